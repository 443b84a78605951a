/* The lanes that net.c chooses from. */
#ifndef CONCLAVE_TRANSPORT_NET_PRIV_H
#define CONCLAVE_TRANSPORT_NET_PRIV_H

#include "transport/transport.h"

MOE_NODISCARD moe_status transport_tls_open(const transport_net_options *options, transport **out, moe_error *err);
MOE_NODISCARD moe_status transport_ucx_open(const transport_net_options *options, transport **out, moe_error *err);

#endif
