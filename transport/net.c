/* Endpoints on a network, whatever their lane. */
#include "transport/net_priv.h"

const char *const transport_lane_names[TRANSPORT_N_LANES + 1] = {"tls", "ucx-tcp", "rdma", NULL};

moe_status transport_net_open(const transport_net_options *options, transport **out, moe_error *err)
{
    return options->lane == TRANSPORT_LANE_TLS ? transport_tls_open(options, out, err)
                                               : transport_ucx_open(options, out, err);
}

static transport_net_info info_of(const transport *t)
{
    MOE_ASSERT(t->ops->info != NULL);
    return t->ops->info(t);
}

const char *transport_net_address(const transport *t)
{
    return info_of(t).address;
}

const char *transport_net_lane(const transport *t)
{
    return info_of(t).lane;
}

void transport_net_get_stats(const transport *t, transport_net_stats *out)
{
    *out = *info_of(t).stats;
}
