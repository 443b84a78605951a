/* conclave experts stats --by: sums over the experts of a pack, a layer or a set. */
#include "cli/usage.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/changes.h"

#define MAX_LABEL 128 /* a set may have many names: the first ones are shown */

typedef struct group {
    char label[MAX_LABEL];
    size_t n_experts;
    uint64_t rows;
    double gate_mass, rate;
} group;

typedef struct sums {
    group *all; /* owned [as many as there can be] */
    size_t n;
    uint64_t rows; /* of all experts: of which a group has its share */
} sums;

/* ------------------------------------------------------------------------------------------------ experts */
static int compare_at(const Conclave__V1__ExpertStats *e, uint32_t layer, int32_t id)
{
    if (e->layer != layer) {
        return e->layer < layer ? -1 : 1;
    }
    return (e->expert_id > id) - (e->expert_id < id);
}

static int compare(const void *a, const void *b)
{
    const Conclave__V1__ExpertStats *y = *(Conclave__V1__ExpertStats *const *)b;

    return compare_at(*(Conclave__V1__ExpertStats *const *)a, y->layer, y->expert_id);
}

void cli_usage_sort(const Conclave__V1__GetExpertStatsResponse *stats)
{
    if (stats->n_experts > 0) {
        qsort(stats->experts, stats->n_experts, sizeof(*stats->experts), compare);
    }
}

/* NULL: not among those that were asked for, as with --layer. */
static const Conclave__V1__ExpertStats *find(const Conclave__V1__GetExpertStatsResponse *stats, uint32_t layer,
                                             int32_t id)
{
    size_t low = 0, high = stats->n_experts;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (compare_at(stats->experts[middle], layer, id) < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < stats->n_experts && compare_at(stats->experts[low], layer, id) == 0 ? stats->experts[low] : NULL;
}

/* ------------------------------------------------------------------------------------------------ groups */
static void add(group *g, const Conclave__V1__ExpertStats *e)
{
    g->n_experts++;
    g->rows += e->rows;
    g->gate_mass += e->gate_mass;
    g->rate += e->rate;
}

/* The latest ones first: experts of one group mostly stand together. */
static group *group_of(sums *s, const char *label)
{
    for (size_t i = s->n; i > 0; i--) {
        if (strcmp(s->all[i - 1].label, label) == 0) {
            return &s->all[i - 1];
        }
    }
    (void)snprintf(s->all[s->n].label, MAX_LABEL, "%s", label);
    return &s->all[s->n++];
}

static void sum_experts(sums *s, const Conclave__V1__GetExpertStatsResponse *stats, bool by_pack)
{
    for (size_t i = 0; i < stats->n_experts; i++) {
        const Conclave__V1__ExpertStats *e = stats->experts[i];
        char label[MAX_LABEL];

        if (by_pack) {
            (void)snprintf(label, sizeof label, "%.*s", MAX_LABEL - 1, e->pack[0] != '\0' ? e->pack : "base");
        } else {
            (void)snprintf(label, sizeof label, "%" PRIu32, e->layer);
        }
        add(group_of(s, label), e);
    }
}

static void put_label(const Conclave__V1__SetInfo *set, char out[MAX_LABEL])
{
    size_t n = (size_t)snprintf(out, MAX_LABEL, "%s", set->is_default ? "default" : "");

    for (size_t i = 0; i < set->n_names && n < MAX_LABEL; i++) {
        n += (size_t)snprintf(out + n, MAX_LABEL - n, "%s%s", n > 0 ? "," : "", set->names[i]);
    }
}

/* Of the default set and those with names: one has no other word for a former default. */
static void sum_sets(sums *s, const Conclave__V1__GetExpertStatsResponse *stats,
                     const Conclave__V1__ListSetsResponse *sets)
{
    for (size_t i = 0; i < sets->n_sets; i++) {
        const Conclave__V1__SetInfo *set = sets->sets[i];
        group *g = &s->all[s->n];

        put_label(set, g->label);
        s->n += g->label[0] != '\0';
        for (size_t l = 0; l < set->n_experts && g->label[0] != '\0'; l++) {
            for (size_t e = 0; e < set->experts[l]->n_ids; e++) {
                const Conclave__V1__ExpertStats *one = find(stats, set->experts[l]->layer, set->experts[l]->ids[e]);

                if (one != NULL) {
                    add(g, one);
                }
            }
        }
    }
}

/* ------------------------------------------------------------------------------------------------ what is printed */
static double share_of(const sums *s, const group *g)
{
    return s->rows > 0 ? (double)g->rows / (double)s->rows : 0;
}

static void put_json(const sums *s, const char *by, uint64_t tokens, moe_text *out)
{
    moe_text_printf(out, "{\"by\":\"%s\",\"tokens\":\"%" PRIu64 "\",\"groups\":[", by, tokens);
    for (size_t i = 0; i < s->n; i++) {
        const group *g = &s->all[i];

        moe_text_printf(out, "%s{\"name\":", i > 0 ? "," : "");
        moe_text_json_string(out, g->label, strlen(g->label));
        moe_text_printf(out,
                        ",\"experts\":%zu,\"rows\":\"%" PRIu64 "\",\"share\":%.9g,\"gate_mass\":%.9g,\"rate\":%.9g}",
                        g->n_experts, g->rows, share_of(s, g), isfinite(g->gate_mass) ? g->gate_mass : 0,
                        isfinite(g->rate) ? g->rate : 0);
    }
    moe_text_printf(out, "]}\n");
}

static void put_text(const sums *s, const char *by, uint64_t tokens, moe_text *out)
{
    moe_text_printf(out, "tokens %" PRIu64 "\n%8s %14s %8s %12s %9s  %s\n", tokens, "experts", "rows", "share", "mass",
                    "rows/s", by);
    for (size_t i = 0; i < s->n; i++) {
        const group *g = &s->all[i];

        moe_text_printf(out, "%8zu %14" PRIu64 " %7.2f%% %12.1f %9.2f  %s\n", g->n_experts, g->rows,
                        100 * share_of(s, g), g->gate_mass, g->rate, g->label);
    }
}

/* ------------------------------------------------------------------------------------------------ the replies */
static moe_status fetch_stats(cli_run *run, ProtobufCMessage **out, moe_error *err)
{
    ProtobufCMessage *request = NULL;
    moe_status status = cli_run_request(run, &conclave__v1__get_expert_stats_request__descriptor, &request, err);

    if (status == MOE_OK) {
        status = cli_run_fetch(run, "/conclave.v1.Admin/GetExpertStats", request,
                               &conclave__v1__get_expert_stats_response__descriptor, out, err);
        cli_message_free(request);
    }
    return status;
}

static moe_status fetch_sets(cli_run *run, ProtobufCMessage **out, moe_error *err)
{
    return cli_change_fetch(run, "/conclave.v1.Admin/ListSets", &conclave__v1__list_sets_request__descriptor, "experts",
                            "true", &conclave__v1__list_sets_response__descriptor, out, err);
}

moe_status cli_usage_by(cli_run *run, const char *by, moe_error *err)
{
    const bool by_set = strcmp(by, "set") == 0;
    ProtobufCMessage *used = NULL, *sets = NULL;
    sums s = {.n = 0};
    moe_text out;

    if (!by_set && strcmp(by, "pack") != 0 && strcmp(by, "layer") != 0) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "--by \"%.32s\": pack, layer or set", by);
    }
    moe_status status = fetch_stats(run, &used, err);
    if (status == MOE_OK && by_set) {
        status = fetch_sets(run, &sets, err);
    }
    if (status == MOE_OK) {
        const Conclave__V1__GetExpertStatsResponse *stats = (const Conclave__V1__GetExpertStatsResponse *)used;
        const Conclave__V1__ListSetsResponse *listed = (const Conclave__V1__ListSetsResponse *)sets;

        cli_usage_sort(stats);
        s.all = calloc(1 + (by_set ? listed->n_sets : stats->n_experts), sizeof *s.all);
        for (size_t i = 0; i < stats->n_experts; i++) {
            s.rows += stats->experts[i]->rows;
        }
        if (s.all == NULL) {
            status = moe_fail(err, MOE_ERR_NO_MEMORY, "--by: out of memory");
        } else {
            moe_text_init(&out, CLI_MAX_PRINT);
            by_set ? sum_sets(&s, stats, listed) : sum_experts(&s, stats, strcmp(by, "pack") == 0);
            (run->json ? put_json : put_text)(&s, by, stats->tokens, &out);
            status = cli_print_text(&out, err);
        }
        free(s.all);
    }
    cli_message_free(used);
    cli_message_free(sets);
    return status;
}
