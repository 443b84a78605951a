#include "coordinator/advertise.h"

#include <string.h>

static void warn_without_cluster(const coordinator_config *o)
{
    const struct {
        const char *name;
        bool given;
    } all[] = {{"--transport", strcmp(o->member.transport, "auto") != 0},
               {"--rdma-network", o->member.rdma_network != NULL},
               {"--gpu-frames", strcmp(o->member.gpu_frames, "auto") != 0},
               {"--advertise", o->advertise != NULL},
               {"--replication", o->replication != 0},
               {"--min-nodes", o->min_nodes != 0},
               {"--secret-file", o->member.secret_file != NULL}};

    for (size_t i = 0; i < MOE_COUNT(all); i++) {
        if (all[i].given) {
            MOE_WARN("%s has no effect: without --etcd all experts are in this process", all[i].name);
        }
    }
}

moe_status advertise_check(coordinator_config *o, moe_error *err)
{
    moe_address listen, told;
    moe_status status = moe_address_parse("--listen", o->listen, -1, &listen, err);

    if (status == MOE_OK && o->advertise != NULL) {
        status = moe_address_parse("--advertise", o->advertise, 0, &told, err);
        if (status == MOE_OK && moe_address_is_wildcard(&told)) {
            status = moe_fail(err, MOE_ERR_INVALID_ARG,
                              "--advertise \"%s\": every address of this machine; others need one to connect to",
                              o->advertise);
        }
        if (status == MOE_OK && strlen(o->advertise) + sizeof "65535" > CLUSTER_MAX_ADDRESS) {
            status = moe_fail(err, MOE_ERR_INVALID_ARG, "--advertise: %zu characters, limit %zu", strlen(o->advertise),
                              CLUSTER_MAX_ADDRESS - sizeof "65535");
        }
    }
    if (status != MOE_OK) {
        return status;
    }
    if (o->member.etcd == NULL) {
        warn_without_cluster(o);
    } else if (moe_address_is_wildcard(&listen) && o->advertise == NULL) {
        return moe_fail(
            err, MOE_ERR_INVALID_ARG,
            "--listen \"%s\": every address of this machine; --advertise HOST:PORT must say under which one "
            "the cluster finds this coordinator",
            o->listen);
    } else {
        return member_lane_check(&o->member, o->insecure, err);
    }
    return MOE_OK;
}

void advertise_address(const coordinator_config *o, uint16_t found_port, char out[ADVERTISE_BYTES])
{
    const char *text = o->advertise != NULL ? o->advertise : o->listen;
    char printed[MOE_ADDRESS_BYTES];
    moe_address a;

    MOE_ASSERT(moe_address_parse("--advertise", text, 0, &a, NULL) == MOE_OK); /* advertise_check has seen it */
    a.port = o->advertise == NULL || a.port == 0 ? found_port : a.port;
    moe_address_print(&a, printed);
    (void)snprintf(out, ADVERTISE_BYTES, "%.*s", CLUSTER_MAX_ADDRESS, printed);
}
