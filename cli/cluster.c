/* conclave nodes: the members of the cluster */
#include <inttypes.h>
#include <string.h>

#include "cli/cluster.h"

static const char *state_name(Conclave__V1__NodeState state)
{
    const ProtobufCEnumValue *value =
        protobuf_c_enum_descriptor_get_value(&conclave__v1__node_state__descriptor, (int)state);

    return value != NULL ? value->name + strlen("NODE_STATE_") : "?";
}

/* A node that does not say how much it may use shows what it uses. */
static void put_memory(const Conclave__V1__Node *n, moe_text *out)
{
    if (n->memory_bytes > 0) {
        moe_text_printf(out, "%" PRIu64 " of %" PRIu64 " MiB", n->used_bytes >> 20, n->memory_bytes >> 20);
    } else {
        moe_text_printf(out, "%" PRIu64 " MiB", n->used_bytes >> 20);
    }
}

static moe_status print_cluster(void *ctx, const ProtobufCMessage *reply, moe_error *err)
{
    const Conclave__V1__GetClusterResponse *c = (const Conclave__V1__GetClusterResponse *)reply;
    moe_text out;

    (void)ctx;
    moe_text_init(&out, CLI_MAX_PRINT);
    moe_text_printf(&out, "cluster %s, epoch %" PRIu64 ", %s, model %s, class %s\n",
                    *c->cluster != '\0' ? c->cluster : "-", c->epoch, c->ready ? "ready" : "not ready",
                    c->model_fingerprint, c->numeric_class);
    for (size_t i = 0; i < c->n_coordinators; i++) {
        moe_text_printf(&out, "coordinator %s at %s, epoch %" PRIu64 "%s\n", c->coordinators[i]->id,
                        c->coordinators[i]->address, c->coordinators[i]->epoch,
                        c->coordinators[i]->controller ? ", controller" : "");
    }
    for (size_t i = 0; i < c->n_nodes; i++) {
        const Conclave__V1__Node *n = c->nodes[i];

        moe_text_printf(&out, "node %s at %s, %s, %s, %s, %" PRIu32 " experts, ", n->id, n->address,
                        state_name(n->state), n->device, n->transport, n->n_experts);
        put_memory(n, &out);
        moe_text_printf(&out, ", %" PRIu64 " rows%s%s\n", n->rows, n->why[0] != '\0' ? ": " : "", n->why);
    }
    return cli_print_text(&out, err);
}

moe_status cli_nodes_run(cli_run *run, moe_error *err)
{
    const char *path = "/conclave.v1.Admin/GetCluster";

    if (cli_run_flag(run, "watch")) {
        path = "/conclave.v1.Admin/WatchCluster";
        cli_run_wait_for_ever(run);
    }
    return cli_run_print(run, path, &conclave__v1__get_cluster_request__descriptor,
                         &conclave__v1__get_cluster_response__descriptor, print_cluster, err);
}
