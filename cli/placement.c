/* Who owns which expert, folded: layers that are alike, then the experts of one owner, in ranges. And the policy. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <conclave/v1/admin.pb-c.h>

#include "cli/cluster.h"

typedef Conclave__V1__ExpertPlacement place;

static int compare_places(const void *a, const void *b)
{
    const place *x = *(place *const *)a, *y = *(place *const *)b;

    if (x->layer != y->layer) {
        return x->layer < y->layer ? -1 : 1;
    }
    return (x->expert_id > y->expert_id) - (x->expert_id < y->expert_id);
}

static bool same_owners(const place *a, const place *b)
{
    if (a->kind != b->kind || a->n_replicas != b->n_replicas) {
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

/* Of places [first, n): how many are of the first one's layer. */
static size_t layer_length(place *const *places, size_t n, size_t first)
{
    size_t i = first;

    while (i < n && places[i]->layer == places[first]->layer) {
        i++;
    }
    return i - first;
}

static bool same_layers(place *const *a, size_t n_a, place *const *b, size_t n_b)
{
    if (n_a != n_b) {
        return false;
    }
    for (size_t i = 0; i < n_a; i++) {
        if (a[i]->expert_id != b[i]->expert_id || !same_owners(a[i], b[i])) {
            return false;
        }
    }
    return true;
}

static void put_layers(uint32_t first, uint32_t last, moe_text *out)
{
    if (first == last) {
        moe_text_printf(out, "layer %" PRIu32 ": ", first);
    } else {
        moe_text_printf(out, "layers %" PRIu32 "-%" PRIu32 ": ", first, last);
    }
}

static void put_owners(const place *p, moe_text *out)
{
    if (p->kind > CONCLAVE__V1__EXPERT_KIND__EXPERT_KIND_FFN) {
        moe_text_printf(out, " (%s) -> every coordinator\n", cli_kind_name(p->kind));
        return;
    }
    moe_text_printf(out, " ->%s", p->n_replicas == 0 ? " nobody" : "");
    for (size_t i = 0; i < p->n_replicas; i++) {
        moe_text_printf(out, " %s%s", p->replicas[i]->node_id, p->replicas[i]->ready ? "" : " (loading)");
    }
    moe_text_printf(out, "\n");
}

/* A line per set of owners. seen marks the places that have had theirs. */
static void put_layer(place *const *places, size_t n, uint32_t last_layer, bool *seen, moe_text *out)
{
    memset(seen, 0, n * sizeof(*seen));
    for (size_t i = 0; i < n; i++) {
        cli_ranges ranges = {.out = out};

        if (seen[i]) {
            continue;
        }
        put_layers(places[i]->layer, last_layer, out);
        for (size_t j = i; j < n; j++) {
            if (!seen[j] && same_owners(places[i], places[j])) {
                seen[j] = true;
                cli_ranges_add(&ranges, places[j]->expert_id);
            }
        }
        cli_ranges_end(&ranges);
        put_owners(places[i], out);
    }
}

static void put_folded(place *const *places, size_t n, bool *seen, moe_text *out)
{
    for (size_t first = 0; first < n;) {
        size_t n_first = layer_length(places, n, first), next = first + n_first;
        uint32_t last = places[first]->layer;

        while (next < n && places[next]->layer == last + 1) {
            size_t n_next = layer_length(places, n, next);

            if (!same_layers(places + first, n_first, places + next, n_next)) {
                break;
            }
            last++;
            next += n_next;
        }
        put_layer(places + first, n_first, last, seen, out);
        first = next;
    }
}

static void put_all(place *const *places, size_t n, moe_text *out)
{
    for (size_t i = 0; i < n; i++) {
        put_layers(places[i]->layer, places[i]->layer, out);
        moe_text_printf(out, "expert %" PRId32, places[i]->expert_id);
        put_owners(places[i], out);
    }
}

static moe_status print_placement(void *ctx, const ProtobufCMessage *reply, moe_error *err)
{
    const cli_run *run = ctx;
    const Conclave__V1__ListExpertsResponse *list = (const Conclave__V1__ListExpertsResponse *)reply;
    bool *seen = calloc(list->n_experts + 1, sizeof(*seen));
    moe_text out;

    if (seen == NULL) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "%zu experts: out of memory", list->n_experts);
    }
    moe_text_init(&out, CLI_MAX_PRINT);
    moe_text_printf(&out, "epoch %" PRIu64 ", set %s\n", list->epoch, list->set_id);
    if (list->n_experts > 0) {
        qsort(list->experts, list->n_experts, sizeof(*list->experts), compare_places);
    }
    if (cli_run_flag(run, "all")) {
        put_all(list->experts, list->n_experts, &out);
    } else {
        put_folded(list->experts, list->n_experts, seen, &out);
    }
    free(seen);
    return cli_print_text(&out, err);
}

/* ----------------------------------------------------------------------------------------------------------- policy */

static moe_status print_policy(void *ctx, const ProtobufCMessage *reply, moe_error *err)
{
    const Conclave__V1__Policy *p = ((const Conclave__V1__SetPolicyResponse *)reply)->policy;
    moe_text out;

    (void)ctx;
    moe_text_init(&out, CLI_MAX_PRINT);
    moe_text_printf(&out, "replication %" PRIu32 ", min_nodes %" PRIu32 "\n", p != NULL ? p->replication : 0,
                    p != NULL ? p->min_nodes : 0);
    return cli_print_text(&out, err);
}

/* Only what stands on the command line: CONCLAVE_REPLICATION is a coordinator's too. */
static moe_status fill_policy(const cli_run *run, ProtobufCMessage *request, moe_error *err)
{
    static const char *const names[] = {"replication", "min_nodes"};
    moe_status status = MOE_OK;

    for (size_t i = 0; i < MOE_COUNT(names) && status == MOE_OK; i++) {
        status = cli_run_fill_given(run, names[i], request, err);
    }
    return status;
}

static moe_status run_policy(cli_run *run, moe_error *err)
{
    ProtobufCMessage *request = cli_message_new(&conclave__v1__set_policy_request__descriptor);
    moe_status status;

    if (request == NULL) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "request: out of memory");
    }
    status = fill_policy(run, request, err);
    if (status == MOE_OK) {
        status =
            cli_run_call(run, "/conclave.v1.Admin/SetPolicy", request, &conclave__v1__set_policy_response__descriptor,
                         run->json ? cli_print_json : print_policy, run, err);
    }
    cli_message_free(request);
    return status;
}

moe_status cli_placement_experts(cli_run *run, moe_error *err)
{
    return cli_run_print(run, "/conclave.v1.Admin/ListExperts", &conclave__v1__list_experts_request__descriptor,
                         &conclave__v1__list_experts_response__descriptor, print_placement, err);
}

moe_status cli_placement_run(cli_run *run, moe_error *err)
{
    if (run->n_args > 0 && strcmp(run->args[0], "policy") == 0) {
        return run_policy(run, err);
    }
    if (run->n_args > 0) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "\"%.64s\": policy is all that can be said here", run->args[0]);
    }
    if (cli_run_given(run, "replication") || cli_run_given(run, "min_nodes")) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "--replication and --min-nodes are the policy's: placement policy");
    }
    return cli_placement_experts(run, err);
}
