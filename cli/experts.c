/* conclave experts [list] | stats | prune | restore */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli/changes.h"
#include "cli/cluster.h"
#include "cli/usage.h"

#define WATCH_S 2 /* short beside the minute in which a rate halves, long beside a call */

/* ------------------------------------------------------------------------------------------------ how much they are used */
const char *cli_kind_name(Conclave__V1__ExpertKind kind)
{
    static const char *const names[] = {"", "ffn", "constant", "copy", "zero"};

    return (size_t)kind < MOE_COUNT(names) ? names[kind] : "?";
}

/* Only of layers in which not every pick is an FFN: of the others there is nothing to tell. */
static void put_picks(const Conclave__V1__GetExpertStatsResponse *stats, moe_text *out)
{
    for (size_t i = 0; i < stats->n_layers; i++) {
        const Conclave__V1__LayerStats *l = stats->layers[i];

        if (l->constant_picks + l->copy_picks + l->zero_picks > 0) {
            moe_text_printf(out,
                            "layer %" PRIu32 " picks: %" PRIu64 " ffn, %" PRIu64 " constant, %" PRIu64 " copy, %" PRIu64
                            " zero; rows by FFN picks:",
                            l->layer, l->ffn_picks, l->constant_picks, l->copy_picks, l->zero_picks);
            for (size_t n = 0; n < l->n_rows_by_ffn_picks; n++) {
                moe_text_printf(out, " %" PRIu64, l->rows_by_ffn_picks[n]);
            }
            moe_text_printf(out, "; %" PRIu64 " bytes not sent\n", l->bytes_not_sent);
        }
    }
    if (stats->attention_keys_seen + stats->attention_keys_skipped > 0) {
        moe_text_printf(out, "attention: %" PRIu64 " keys seen, %" PRIu64 " skipped\n", stats->attention_keys_seen,
                        stats->attention_keys_skipped);
    }
}

/* What one layer's experts of one kind have had: the sum, both ends, and those that were never picked. */
static void put_group(Conclave__V1__ExpertStats *const *group, size_t n, moe_text *out)
{
    const Conclave__V1__ExpertStats *most = group[0], *least = group[0];
    cli_ranges unused = {.out = out};
    const char *kind = cli_kind_name(group[0]->kind);
    uint64_t rows = 0;

    for (size_t i = 0; i < n; i++) {
        rows += group[i]->rows;
        most = group[i]->rows > most->rows ? group[i] : most;
        least = group[i]->rows < least->rows ? group[i] : least;
    }
    moe_text_printf(out, "layer %" PRIu32 ": %zu %s%sexpert%s, %" PRIu64 " rows", group[0]->layer, n, kind,
                    *kind != '\0' ? " " : "", n == 1 ? "" : "s", rows);
    if (rows > 0 && n > 1) {
        moe_text_printf(out, ", most %" PRIu64 " (expert %" PRId32 "), least %" PRIu64 " (expert %" PRId32 ")",
                        most->rows, most->expert_id, least->rows, least->expert_id);
    }
    if (rows > 0 && least->rows == 0) {
        moe_text_printf(out, ", never picked: ");
        for (size_t i = 0; i < n; i++) {
            if (group[i]->rows == 0) {
                cli_ranges_add(&unused, group[i]->expert_id);
            }
        }
        cli_ranges_end(&unused);
    }
    moe_text_printf(out, "\n");
}

static void put_folded(const Conclave__V1__GetExpertStatsResponse *stats, moe_text *out)
{
    for (size_t first = 0, next; first < stats->n_experts; first = next) {
        for (next = first + 1; next < stats->n_experts && stats->experts[next]->layer == stats->experts[first]->layer &&
                               stats->experts[next]->kind == stats->experts[first]->kind;
             next++) {
        }
        put_group(stats->experts + first, next - first, out);
    }
}

static void put_table(const Conclave__V1__GetExpertStatsResponse *stats, moe_text *out)
{
    moe_text_printf(out, "%5s %6s %8s %14s %12s %9s  %s\n", "layer", "expert", "kind", "rows", "mass", "rows/s", "of");
    for (size_t i = 0; i < stats->n_experts; i++) {
        const Conclave__V1__ExpertStats *e = stats->experts[i];

        moe_text_printf(out, "%5" PRIu32 " %6" PRId32 " %8s %14" PRIu64 " %12.1f %9.2f  %s%s\n", e->layer, e->expert_id,
                        cli_kind_name(e->kind), e->rows, e->gate_mass, e->rate, e->pack[0] != '\0' ? e->pack : "base",
                        e->in_default ? "" : ", not in the default set");
    }
}

static moe_status print_stats(void *ctx, const ProtobufCMessage *reply, moe_error *err)
{
    const cli_run *run = ctx;
    const Conclave__V1__GetExpertStatsResponse *stats = (const Conclave__V1__GetExpertStatsResponse *)reply;
    moe_text out;

    moe_text_init(&out, CLI_MAX_PRINT);
    moe_text_printf(&out, "tokens %" PRIu64 "\n", stats->tokens);
    cli_usage_sort(stats);
    (cli_run_flag(run, "all") ? put_table : put_folded)(stats, &out);
    put_picks(stats, &out);
    return cli_print_text(&out, err);
}

static moe_status print_once(cli_run *run, moe_error *err)
{
    /* Of changes it is a name, which an environment may have for them. */
    const char *by = cli_run_given(run, "by") ? cli_run_value(run, "by") : NULL;

    if (by != NULL) {
        return cli_run_flag(run, "all") ? moe_fail(err, MOE_ERR_INVALID_ARG, "--by: does not go with --all")
                                        : cli_usage_by(run, by, err);
    }
    return cli_run_print(run, "/conclave.v1.Admin/GetExpertStats", &conclave__v1__get_expert_stats_request__descriptor,
                         &conclave__v1__get_expert_stats_response__descriptor, print_stats, err);
}

/* Until Ctrl-C or a failure. */
static moe_status watch(cli_run *run, moe_error *err)
{
    const struct timespec pause = {.tv_sec = WATCH_S};
    moe_status status;

    cli_catch_stop();
    while ((status = print_once(run, err)) == MOE_OK) {
        if (cli_is_stopped() || (nanosleep(&pause, NULL) != 0 && cli_is_stopped())) {
            return moe_fail(err, MOE_ERR_CANCELLED, "interrupted");
        }
    }
    return status;
}

static moe_status run_stats(cli_run *run, moe_error *err)
{
    return cli_run_flag(run, "watch") ? watch(run, err) : print_once(run, err);
}

static moe_status run_list(cli_run *run, moe_error *err)
{
    moe_status status = cli_placement_experts(run, err);

    return status == MOE_OK ? print_once(run, err) : status;
}

/* "90s", "30m", "1h" */
static moe_status fill_over(const char *text, ProtobufCMessage *m, moe_error *err)
{
    static const struct {
        char unit;
        uint32_t seconds;
    } units[] = {{'s', 1}, {'m', 60}, {'h', 3600}};
    char *end = NULL;
    unsigned long n = text[0] >= '0' && text[0] <= '9' ? strtoul(text, &end, 10) : 0;

    for (size_t i = 0; i < MOE_COUNT(units); i++) {
        if (end != NULL && end[0] == units[i].unit && end[1] == '\0' && n > 0 && n <= UINT32_MAX / units[i].seconds) {
            return cli_change_put_number(m, "over_s", (uint64_t)n * units[i].seconds, err);
        }
    }
    return moe_fail(err, MOE_ERR_INVALID_ARG, "--over \"%.32s\": a time as 90s, 30m or 1h", text);
}

static moe_status run_prune(cli_run *run, moe_error *err)
{
    static const char *const names[] = {"keep_at_least", "pack"};
    const char *below = cli_run_value(run, "below"), *profile = cli_run_value(run, "profile"),
               *over = cli_run_value(run, "over");
    ProtobufCMessage *m = NULL;
    moe_status status = cli_change_request(&conclave__v1__prune_experts_request__descriptor, "", NULL, &m, err);

    if (status == MOE_OK && (run->n_args > 1) == (below != NULL || profile != NULL)) {
        status = moe_fail(err, MOE_ERR_INVALID_ARG,
                          "experts prune: give either LAYER:EXPERT,... or --below SHARE or --profile FILE");
    }
    if (status == MOE_OK && run->n_args > 1) {
        status = cli_change_experts("experts prune", run->args[1], m, err);
    }
    if (status == MOE_OK && below != NULL) {
        status = cli_change_put_share(m, "below", "--below", below, err);
    }
    if (status == MOE_OK && over != NULL) {
        status = fill_over(over, m, err);
    }
    for (size_t i = 0; i < MOE_COUNT(names) && status == MOE_OK; i++) {
        status = cli_run_fill_given(run, names[i], m, err);
    }
    if (status == MOE_OK) {
        status =
            profile != NULL ? cli_profile_prune(run, profile, m, err) : cli_change_call(run, "PruneExperts", m, err);
    }
    cli_message_free(m);
    return status;
}

static moe_status run_restore(cli_run *run, moe_error *err)
{
    bool all = cli_run_flag(run, "all");
    ProtobufCMessage *m = NULL;
    moe_status status = cli_change_request(&conclave__v1__restore_experts_request__descriptor, "", NULL, &m, err);

    if (status == MOE_OK && (run->n_args > 1) == all) {
        status = moe_fail(err, MOE_ERR_INVALID_ARG, "experts restore: give either LAYER:EXPERT,... or --all");
    }
    if (status == MOE_OK && !all) {
        status = cli_change_experts("experts restore", run->args[1], m, err);
    }
    if (status == MOE_OK) {
        status = cli_change_call(run, "RestoreExperts", m, err);
    }
    cli_message_free(m);
    return status;
}

moe_status cli_experts_run(cli_run *run, moe_error *err)
{
    static const cli_word words[] = {{"list", 0, 0, run_list},
                                     {"stats", 0, 0, run_stats},
                                     {"prune", 0, 1, run_prune},
                                     {"restore", 0, 1, run_restore}};

    return cli_run_word(run, words, MOE_COUNT(words), err);
}
