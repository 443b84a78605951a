#include "transport/carrier_priv.h"

const char *const carrier_names[CARRIER_N] = {"none", "shm", "rdma", "ucx-tcp", "tls"};

unsigned carrier_offer(transport_lane lane, bool has_ucx, const transport_network *rdma, const moe_ip *other)
{
    static const unsigned offers[TRANSPORT_N_LANES] = {
        [TRANSPORT_LANE_TLS] = MOE_BIT(CARRIER_TLS),
        [TRANSPORT_LANE_AUTO] = MOE_BIT(CARRIER_SHM) | MOE_BIT(CARRIER_RDMA) | MOE_BIT(CARRIER_TLS),
        [TRANSPORT_LANE_SHM] = MOE_BIT(CARRIER_SHM),
        [TRANSPORT_LANE_UCX_TCP] = MOE_BIT(CARRIER_UCX_TCP),
        [TRANSPORT_LANE_RDMA] = MOE_BIT(CARRIER_RDMA)};
    bool may_rdma =
        (other != NULL && transport_network_has(rdma, other)) || (lane == TRANSPORT_LANE_RDMA && !rdma->is_given);
    unsigned without = has_ucx ? 0 : MOE_BIT(CARRIER_RDMA) | MOE_BIT(CARRIER_UCX_TCP);

    return offers[lane] & ~(without | (may_rdma ? 0 : MOE_BIT(CARRIER_RDMA)));
}

carrier carrier_next(unsigned offer, carrier after)
{
    for (carrier c = after + 1; c < CARRIER_N; c++) {
        if ((offer & MOE_BIT(c)) != 0) {
            return c;
        }
    }
    return CARRIER_NONE;
}
