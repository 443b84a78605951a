#include "coordinator/advertise.h"

#include <string.h>

#include "api/http/listen.h"

static void warn_without_cluster(const coordinator_config *o)
{
    const struct {
        const char *name;
        bool given;
    } all[] = {{"--transport rdma", strcmp(o->member.transport, "rdma") == 0},
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

moe_status advertise_check(const coordinator_config *o, moe_error *err)
{
    listen_address listen, told;
    moe_status status = listen_parse("listen", o->listen, &listen, err);

    if (status == MOE_OK && o->advertise != NULL) {
        status = listen_parse("advertise", o->advertise, &told, err);
        if (status == MOE_OK && listen_is_wildcard(&told)) {
            status = moe_fail(err, MOE_ERR_INVALID_ARG, "advertise: \"%s\" is no address to connect to", o->advertise);
        }
        if (status == MOE_OK && strlen(o->advertise) + sizeof "65535" > CLUSTER_MAX_ADDRESS) {
            status = moe_fail(err, MOE_ERR_INVALID_ARG, "advertise: %zu characters, limit %zu", strlen(o->advertise),
                              CLUSTER_MAX_ADDRESS - sizeof "65535");
        }
    }
    if (status != MOE_OK) {
        return status;
    }
    if (o->member.etcd == NULL) {
        warn_without_cluster(o);
    } else if (listen_is_wildcard(&listen) && o->advertise == NULL) {
        return moe_fail(
            err, MOE_ERR_INVALID_ARG,
            "listen: \"%s\" is every address of this machine: --advertise HOST:PORT must say under which one "
            "the cluster finds this coordinator",
            o->listen);
    }
    return MOE_OK;
}

void advertise_address(const coordinator_config *o, uint16_t found_port, char out[ADVERTISE_BYTES])
{
    const char *text = o->advertise != NULL ? o->advertise : o->listen;
    const char *colon = strrchr(text, ':');

    if (o->advertise == NULL || strcmp(colon, ":0") == 0) {
        (void)snprintf(out, ADVERTISE_BYTES, "%.*s:%u", (int)MOE_MIN(colon - text, CLUSTER_MAX_ADDRESS - 6), text,
                       found_port);
    } else {
        (void)snprintf(out, ADVERTISE_BYTES, "%s", text);
    }
}
