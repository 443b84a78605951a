/* carrier: what carries the frames of one connection. Two ends that have proved the secret to each other try what both offer, in
 * the order of the enum; the last is the channel by which they met. Pure functions. */
#ifndef CONCLAVE_TRANSPORT_CARRIER_PRIV_H
#define CONCLAVE_TRANSPORT_CARRIER_PRIV_H

#include "transport/transport.h"

typedef enum { CARRIER_NONE, CARRIER_SHM, CARRIER_RDMA, CARRIER_UCX_TCP, CARRIER_TLS, CARRIER_N } carrier;
extern const char *const carrier_names[CARRIER_N];

/* What an end of this lane offers to the one at this address: bits of carriers. UCX's are offered only where UCX is open for them
 * (has_ucx); RDMA in auto only within the network that was given as private, and on its own lane everywhere if none was given.
 * other NULL: it is not known, and in no network. */
unsigned carrier_offer(transport_lane lane, bool has_ucx, const transport_network *rdma, const moe_ip *other);
/* The next one of them to be tried; CARRIER_NONE: there is no more. */
carrier carrier_next(unsigned offer, carrier after);

#endif
