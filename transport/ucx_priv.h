/* What the two files that include UCX's headers share. */
#ifndef CONCLAVE_TRANSPORT_UCX_PRIV_H
#define CONCLAVE_TRANSPORT_UCX_PRIV_H

#include "transport/transport.h"

#include <ucp/api/ucp.h>

#define UCX_MAX_LANE 64

/* UCX for one endpoint, on this device alone unless that is "". lane_out: the transports it has opened. */
MOE_NODISCARD moe_status ucx_context_open(transport_lane lane, const char *device, char lane_out[UCX_MAX_LANE],
                                          ucp_context_h *out, moe_error *err);

#endif
