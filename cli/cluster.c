/* The Admin service: experts, nodes, placement and its policy. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <conclave/v1/admin.pb-c.h>

#include "cli/cli.h"

/* ---------------------------------------------------------------------------------------------------------- experts */

/* "ffn"; nothing from a server that does not tell. */
static const char *kind_name(Conclave__V1__ExpertKind kind)
{
    static const char *const names[] = {"", "ffn", "constant", "copy", "zero"};

    return (size_t)kind < MOE_COUNT(names) ? names[kind] : "?";
}

static int compare_stats(const void *a, const void *b)
{
    const Conclave__V1__ExpertStats *x = *(Conclave__V1__ExpertStats *const *)a;
    const Conclave__V1__ExpertStats *y = *(Conclave__V1__ExpertStats *const *)b;

    if (x->layer != y->layer) {
        return x->layer < y->layer ? -1 : 1;
    }
    return (x->expert_id > y->expert_id) - (x->expert_id < y->expert_id);
}

/* Only of layers in which not every pick is an FFN: of the others there is nothing to tell. */
static void print_layers(const Conclave__V1__GetExpertStatsResponse *stats)
{
    for (size_t i = 0; i < stats->n_layers; i++) {
        const Conclave__V1__LayerStats *l = stats->layers[i];

        if (l->constant_picks + l->copy_picks + l->zero_picks > 0) {
            printf("layer %" PRIu32 " picks: %" PRIu64 " ffn, %" PRIu64 " constant, %" PRIu64 " copy, %" PRIu64
                   " zero; rows by FFN picks:",
                   l->layer, l->ffn_picks, l->constant_picks, l->copy_picks, l->zero_picks);
            for (size_t n = 0; n < l->n_rows_by_ffn_picks; n++) {
                printf(" %" PRIu64, l->rows_by_ffn_picks[n]);
            }
            printf("; %" PRIu64 " bytes not sent\n", l->bytes_not_sent);
        }
    }
    if (stats->attention_keys_seen + stats->attention_keys_skipped > 0) {
        printf("attention: %" PRIu64 " keys seen, %" PRIu64 " skipped\n", stats->attention_keys_seen,
               stats->attention_keys_skipped);
    }
}

static moe_status print_stats(void *ctx, const ProtobufCMessage *reply, moe_error *err)
{
    const Conclave__V1__GetExpertStatsResponse *stats = (const Conclave__V1__GetExpertStatsResponse *)reply;

    (void)ctx;
    (void)err;
    printf("tokens %" PRIu64 "\n%5s %6s %8s %14s\n", stats->tokens, "layer", "expert", "kind", "rows");
    if (stats->n_experts > 0) {
        qsort(stats->experts, stats->n_experts, sizeof(*stats->experts), compare_stats);
    }
    for (size_t i = 0; i < stats->n_experts; i++) {
        printf("%5" PRIu32 " %6" PRId32 " %8s %14" PRIu64 "\n", stats->experts[i]->layer, stats->experts[i]->expert_id,
               kind_name(stats->experts[i]->kind), stats->experts[i]->rows);
    }
    print_layers(stats);
    return MOE_OK;
}

/* -------------------------------------------------------------------------------------------------------- placement */

static bool same_owners(const Conclave__V1__ExpertPlacement *a, const Conclave__V1__ExpertPlacement *b)
{
    if (a->layer != b->layer || a->kind != b->kind || a->n_replicas != b->n_replicas) {
        return false;
    }
    for (size_t i = 0; i < a->n_replicas; i++) {
        if (strcmp(a->replicas[i]->node_id, b->replicas[i]->node_id) != 0 ||
            a->replicas[i]->ready != b->replicas[i]->ready) {
            return false;
        }
    }
    return true;
}

static void print_run(const Conclave__V1__ExpertPlacement *first, const Conclave__V1__ExpertPlacement *last)
{
    printf("layer %" PRIu32 " experts %" PRId32, first->layer, first->expert_id);
    if (last != first) {
        printf("-%" PRId32, last->expert_id);
    }
    if (first->kind > CONCLAVE__V1__EXPERT_KIND__EXPERT_KIND_FFN) {
        printf(" (%s): every coordinator", kind_name(first->kind));
    } else {
        printf(":%s", first->n_replicas == 0 ? " nobody" : "");
    }
    for (size_t i = 0; i < first->n_replicas; i++) {
        printf(" %s%s", first->replicas[i]->node_id, first->replicas[i]->ready ? "" : " (loading)");
    }
    putchar('\n');
}

/* One line per run of neighbouring experts with the same owners. */
static moe_status print_placement(void *ctx, const ProtobufCMessage *reply, moe_error *err)
{
    const Conclave__V1__ListExpertsResponse *list = (const Conclave__V1__ListExpertsResponse *)reply;
    size_t first = 0;

    (void)ctx;
    (void)err;
    printf("epoch %" PRIu64 ", set %s\n", list->epoch, list->set_id);
    for (size_t i = 1; i <= list->n_experts; i++) {
        if (i < list->n_experts && list->experts[i]->expert_id == list->experts[i - 1]->expert_id + 1 &&
            same_owners(list->experts[i], list->experts[i - 1])) {
            continue;
        }
        print_run(list->experts[first], list->experts[i - 1]);
        first = i;
    }
    return MOE_OK;
}

static moe_status print_policy(void *ctx, const ProtobufCMessage *reply, moe_error *err)
{
    const Conclave__V1__Policy *p = ((const Conclave__V1__SetPolicyResponse *)reply)->policy;

    (void)ctx;
    (void)err;
    printf("replication %" PRIu32 ", min_nodes %" PRIu32 "\n", p != NULL ? p->replication : 0,
           p != NULL ? p->min_nodes : 0);
    return MOE_OK;
}

moe_status cli_placement_run(cli_run *run, moe_error *err)
{
    if (run->n_args > 0 && strcmp(run->args[0], "policy") == 0) {
        return cli_run_print(run, "/conclave.v1.Admin/SetPolicy", &conclave__v1__set_policy_request__descriptor,
                             &conclave__v1__set_policy_response__descriptor, print_policy, err);
    }
    if (run->n_args > 0) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "\"%s\": policy is all that can be said here", run->args[0]);
    }
    if (cli_run_value(run, "replication") != NULL || cli_run_value(run, "min_nodes") != NULL) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "--replication and --min-nodes are the policy's: placement policy");
    }
    return cli_run_print(run, "/conclave.v1.Admin/ListExperts", &conclave__v1__list_experts_request__descriptor,
                         &conclave__v1__list_experts_response__descriptor, print_placement, err);
}

moe_status cli_experts_run(cli_run *run, moe_error *err)
{
    moe_status status = cli_placement_run(run, err);

    if (status != MOE_OK) {
        return status;
    }
    return cli_run_print(run, "/conclave.v1.Admin/GetExpertStats", &conclave__v1__get_expert_stats_request__descriptor,
                         &conclave__v1__get_expert_stats_response__descriptor, print_stats, err);
}

/* ------------------------------------------------------------------------------------------------------------ nodes */

static const char *state_name(Conclave__V1__NodeState state)
{
    const ProtobufCEnumValue *value =
        protobuf_c_enum_descriptor_get_value(&conclave__v1__node_state__descriptor, (int)state);

    return value != NULL ? value->name + strlen("NODE_STATE_") : "?";
}

static moe_status print_cluster(void *ctx, const ProtobufCMessage *reply, moe_error *err)
{
    const Conclave__V1__GetClusterResponse *c = (const Conclave__V1__GetClusterResponse *)reply;

    (void)ctx;
    (void)err;
    printf("cluster %s, epoch %" PRIu64 ", %s, model %s, class %s\n", *c->cluster != '\0' ? c->cluster : "-", c->epoch,
           c->ready ? "ready" : "not ready", c->model_fingerprint, c->numeric_class);
    for (size_t i = 0; i < c->n_coordinators; i++) {
        printf("coordinator %s at %s, epoch %" PRIu64 "%s\n", c->coordinators[i]->id, c->coordinators[i]->address,
               c->coordinators[i]->epoch, c->coordinators[i]->controller ? ", controller" : "");
    }
    for (size_t i = 0; i < c->n_nodes; i++) {
        const Conclave__V1__Node *n = c->nodes[i];

        printf("node %s at %s, %s, %s, %s, %" PRIu32 " experts, %" PRIu64 " of %" PRIu64 " MiB, %" PRIu64 " rows\n",
               n->id, n->address, state_name(n->state), n->device, n->transport, n->n_experts, n->used_bytes >> 20,
               n->memory_bytes >> 20, n->rows);
    }
    fflush(stdout);
    return MOE_OK;
}

moe_status cli_nodes_run(cli_run *run, moe_error *err)
{
    const char *path = cli_run_flag(run, "watch") ? "/conclave.v1.Admin/WatchCluster" : "/conclave.v1.Admin/GetCluster";

    return cli_run_print(run, path, &conclave__v1__get_cluster_request__descriptor,
                         &conclave__v1__get_cluster_response__descriptor, print_cluster, err);
}
