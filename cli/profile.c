/* conclave experts prune --profile FILE: what the texts of a file use decides, and how much worse they get is told before. */
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include <conclave/v1/inference.pb-c.h>

#include "cli/changes.h"
#include "cli/cluster.h"
#include "cli/usage.h"

#define MAX_DEPTH  32        /* of a line's JSON: other keys than ours may hold what they like */
#define MAX_LAYERS (1 << 12) /* of what a server may say */
#define MAX_IDS    (1 << 20)

typedef struct layer_rows {
    uint64_t *rows; /* owned: by id */
    size_t n;
} layer_rows;

typedef struct profile {
    cli_run *run;
    const char *path;
    char *data; /* owned: the file */
    size_t n_bytes, n_lines;
    layer_rows layers[MAX_LAYERS];
    size_t n_layers;
    cli_progress shown;
} profile;

/* One reading of the file. */
typedef struct reading {
    Conclave__V1__ExpertList *const *without; /* of the default set */
    size_t n_without;
    bool count;
    char set_id[128]; /* that all texts were scored with */
    size_t n_tokens;
    double sum;
} reading;

/* ------------------------------------------------------------------------------------------------ lines */
static moe_status fill_tokens(const json_t *ids, ProtobufCMessage *request, moe_error *err)
{
    moe_text text;
    moe_status status = MOE_OK;

    moe_text_init(&text, CLI_MAX_INPUT);
    for (size_t i = 0; i < json_array_size(ids) && status == MOE_OK; i++) {
        const json_t *id = json_array_get(ids, i);

        status =
            json_is_integer(id) ? MOE_OK : moe_fail(err, MOE_ERR_INVALID_ARG, "token_ids[%zu]: is no whole number", i);
        moe_text_printf(&text, "%s%" JSON_INTEGER_FORMAT, i > 0 ? "," : "", json_integer_value(id));
    }
    if (status == MOE_OK) {
        status = text.failed ? moe_fail(err, MOE_ERR_NO_MEMORY, "token_ids: out of memory")
                             : cli_message_set_list(request, "token_ids.ids", moe_text_cstr(&text), err);
    }
    moe_text_fini(&text);
    return status;
}

static moe_status fill_input(const moe_json *line, ProtobufCMessage *request, moe_error *err)
{
    const json_t *ids = json_object_get(line, "token_ids");
    const char *text = NULL;
    bool has_text = false;
    moe_status status = json_is_object(line) ? moe_json_string(line, "text", &text, &has_text, err)
                                             : moe_fail(err, MOE_ERR_INVALID_ARG, "must be an object");

    if (status != MOE_OK) {
        return status;
    }
    if (has_text == (ids != NULL)) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "must have either text or token_ids");
    }
    if (has_text) {
        return cli_message_set(request, "text", text, err);
    }
    return json_is_array(ids) ? fill_tokens(ids, request, err)
                              : moe_fail(err, MOE_ERR_INVALID_ARG, "token_ids: is no list");
}

static moe_status fill_without(const reading *r, ProtobufCMessage *request, moe_error *err)
{
    moe_status status = MOE_OK;

    for (size_t l = 0; l < r->n_without && status == MOE_OK; l++) {
        ProtobufCMessage *list = NULL;

        status = cli_change_add_layer(request, "set.without", r->without[l]->layer, &list, err);
        for (size_t i = 0; i < r->without[l]->n_ids && status == MOE_OK; i++) {
            status = cli_change_put_number(list, "ids", (uint64_t)r->without[l]->ids[i], err);
        }
    }
    return status;
}

/* ------------------------------------------------------------------------------------------------ scores */
static moe_status count_row(profile *p, uint32_t layer, int32_t id, moe_error *err)
{
    if (layer >= MAX_LAYERS || id < 0 || id >= MAX_IDS) {
        return moe_fail(err, MOE_ERR_DATA_LOSS, "the server names expert %" PRId32 " of layer %" PRIu32, id, layer);
    }
    layer_rows *l = &p->layers[layer];
    if ((size_t)id >= l->n) {
        size_t n = MOE_MAX((size_t)id + 1, 2 * l->n);
        uint64_t *grown = realloc(l->rows, n * sizeof *grown);

        if (grown == NULL) {
            return moe_fail(err, MOE_ERR_NO_MEMORY, "--profile: out of memory");
        }
        memset(grown + l->n, 0, (n - l->n) * sizeof *grown);
        *l = (layer_rows){grown, n};
    }
    l->rows[id]++;
    p->n_layers = MOE_MAX(p->n_layers, (size_t)layer + 1);
    return MOE_OK;
}

static moe_status take_token(profile *p, reading *r, const Conclave__V1__ScoredToken *t, moe_error *err)
{
    moe_status status = MOE_OK;

    if (t->has_logprob_case == CONCLAVE__V1__SCORED_TOKEN__HAS_LOGPROB_LOGPROB) {
        r->sum += (double)t->logprob;
        r->n_tokens++;
    }
    for (size_t l = 0; l < t->n_experts && r->count; l++) {
        for (size_t i = 0; i < t->experts[l]->n_ids && status == MOE_OK; i++) {
            status = count_row(p, t->experts[l]->layer, t->experts[l]->ids[i], err);
        }
    }
    return status;
}

static moe_status take_score(profile *p, reading *r, const Conclave__V1__ScoreResponse *reply, moe_error *err)
{
    moe_status status = MOE_OK;

    if (r->set_id[0] != '\0' && strcmp(r->set_id, reply->set_id) != 0) {
        return moe_fail(err, MOE_ERR_UNAVAILABLE, "the default set has changed meanwhile; nothing was pruned");
    }
    (void)snprintf(r->set_id, sizeof r->set_id, "%.127s", reply->set_id);
    for (size_t i = 0; i < reply->n_tokens && status == MOE_OK; i++) {
        status = take_token(p, r, reply->tokens[i], err);
    }
    return status;
}

static moe_status score_line(profile *p, reading *r, const moe_json *line, moe_error *err)
{
    ProtobufCMessage *request = NULL, *reply = NULL;
    moe_status status = cli_change_request(&conclave__v1__score_request__descriptor, "experts",
                                           r->count ? "true" : "false", &request, err);

    if (status == MOE_OK) {
        status = fill_input(line, request, err);
    }
    if (status == MOE_OK) {
        status = fill_without(r, request, err);
    }
    if (status == MOE_OK) {
        status = cli_run_fetch(p->run, "/conclave.v1.Inference/Score", request,
                               &conclave__v1__score_response__descriptor, &reply, err);
    }
    if (status == MOE_OK) {
        status = take_score(p, r, (const Conclave__V1__ScoreResponse *)reply, err);
    }
    cli_message_free(request);
    cli_message_free(reply);
    return status;
}

static bool is_blank(const char *at, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (strchr(" \t\r", at[i]) == NULL || at[i] == '\0') {
            return false;
        }
    }
    return true;
}

static moe_status read_file(profile *p, reading *r, moe_error *err)
{
    const char *end = p->data + p->n_bytes, *next;
    size_t number = 0;

    p->n_lines = 0;
    for (const char *at = p->data; at < end; at = next) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        size_t n = (size_t)((newline != NULL ? newline : end) - at);
        moe_json *line = NULL;
        moe_error why = {""};

        number++;
        next = newline != NULL ? newline + 1 : end;
        if (is_blank(at, n)) {
            continue;
        }
        moe_status status = moe_json_parse(at, n, MAX_DEPTH, &line, &why);
        status = status == MOE_ERR_CORRUPT ? MOE_ERR_INVALID_ARG : status;
        if (status == MOE_OK) {
            status = score_line(p, r, line, &why);
        }
        moe_json_free(line);
        if (status != MOE_OK) {
            cli_progress_break(&p->shown);
            return moe_fail(err, status, "%.300s: line %zu: %.600s", p->path, number, why.text);
        }
        p->n_lines++;
        cli_progress_show(&p->shown, (r->count ? 0 : p->n_bytes) + (size_t)(next - p->data), 2 * p->n_bytes);
    }
    return r->n_tokens > 0 ? MOE_OK
                           : moe_fail(err, MOE_ERR_INVALID_ARG, "%.300s: no text of two tokens is in it", p->path);
}

/* ------------------------------------------------------------------------------------------------ the plan */
static moe_status fill_usage(const profile *p, ProtobufCMessage *request, moe_error *err)
{
    moe_status status = MOE_OK;

    for (size_t l = 0; l < p->n_layers && status == MOE_OK; l++) {
        const uint64_t *rows = p->layers[l].rows;
        ProtobufCMessage *usage = NULL;

        status = cli_change_add_layer(request, "usage", l, &usage, err);
        for (size_t id = 0; id < p->layers[l].n && status == MOE_OK; id++) {
            if (rows[id] > 0) {
                status = cli_change_put_number(usage, "ids", id, err);
            }
            if (rows[id] > 0 && status == MOE_OK) {
                status = cli_change_put_number(usage, "rows", rows[id], err);
            }
        }
    }
    return status;
}

/* What the server would prune by these rows. *out: a reply with a result. */
static moe_status ask_plan(profile *p, ProtobufCMessage *chosen, ProtobufCMessage **out, moe_error *err)
{
    moe_status status = fill_usage(p, chosen, err);

    if (status == MOE_OK) {
        status = cli_message_set(chosen, "options.dry_run", "true", err);
    }
    if (status == MOE_OK) {
        status = cli_run_fetch(p->run, "/conclave.v1.Admin/PruneExperts", chosen,
                               &conclave__v1__change_progress__descriptor, out, err);
    }
    if (status == MOE_OK && ((const Conclave__V1__ChangeProgress *)*out)->result == NULL) {
        status = moe_fail(err, MOE_ERR_DATA_LOSS, "the server ended without a result");
    }
    return status;
}

static uint32_t experts_of(const Conclave__V1__GetModelResponse *m, uint32_t layer)
{
    return layer < m->n_n_experts ? m->n_experts[layer] : 0;
}

static void put_plan(const Conclave__V1__ChangeResult *r, const Conclave__V1__GetModelResponse *m, moe_text *out)
{
    for (size_t i = 0; i < r->n_removed; i++) {
        const Conclave__V1__ExpertList *l = r->removed[i];
        const uint32_t before = experts_of(m, l->layer);
        cli_ranges ranges = {.out = out};

        moe_text_printf(out, "layer %" PRIu32 ": %" PRIu32 " -> %zu experts, without ", l->layer, before,
                        before > l->n_ids ? before - l->n_ids : 0);
        for (size_t e = 0; e < l->n_ids; e++) {
            cli_ranges_add(&ranges, l->ids[e]);
        }
        cli_ranges_end(&ranges);
        moe_text_printf(out, "\n");
    }
    cli_put_savings(r, out);
}

static moe_status fetch_model(profile *p, ProtobufCMessage **out, moe_error *err)
{
    return cli_change_fetch(p->run, "/conclave.v1.Inference/GetModel", &conclave__v1__get_model_request__descriptor, "",
                            NULL, &conclave__v1__get_model_response__descriptor, out, err);
}

static moe_status show(profile *p, const ProtobufCMessage *plan, const reading *before, const reading *after,
                       moe_error *err)
{
    const double was = before->sum / (double)before->n_tokens, is = after->sum / (double)after->n_tokens;
    ProtobufCMessage *model = NULL;
    moe_status status = p->run->json ? cli_print_json(NULL, plan, err) : fetch_model(p, &model, err);
    moe_text out;

    if (status != MOE_OK) {
        return status;
    }
    moe_text_init(&out, CLI_MAX_PRINT);
    if (p->run->json) {
        moe_text_printf(&out,
                        "{\"profile\":{\"texts\":%zu,\"tokens\":%zu,\"mean_logprob_before\":%.9g,"
                        "\"mean_logprob_after\":%.9g}}\n",
                        p->n_lines, before->n_tokens, was, is);
    } else {
        put_plan(((const Conclave__V1__ChangeProgress *)plan)->result, (const Conclave__V1__GetModelResponse *)model,
                 &out);
        moe_text_printf(&out, "%zu tokens of %zu texts: mean log-probability %.6f -> %.6f, %+.6f\n", before->n_tokens,
                        p->n_lines, was, is, is - was);
    }
    cli_message_free(model);
    return cli_print_text(&out, err);
}

/* ------------------------------------------------------------------------------------------------ the change */
/* Just those of the plan that was shown, whatever has happened since. */
static moe_status prune(profile *p, const Conclave__V1__ChangeResult *plan, moe_error *err)
{
    Conclave__V1__PruneExpertsRequest all = CONCLAVE__V1__PRUNE_EXPERTS_REQUEST__INIT;
    ProtobufCMessage *request = NULL;

    all.n_experts = plan->n_removed;
    all.experts = plan->removed;
    moe_status status = cli_message_copy(&all.base, &request, err);
    if (status == MOE_OK) {
        status = cli_change_call(p->run, "PruneExperts", request, err);
        cli_message_free(request);
    }
    return status;
}

static moe_status carry_out(profile *p, ProtobufCMessage *chosen, moe_error *err)
{
    reading before = {.count = true}, after = {.count = false};
    ProtobufCMessage *reply = NULL;
    moe_status status = read_file(p, &before, err);

    if (status == MOE_OK) {
        status = ask_plan(p, chosen, &reply, err);
    }
    if (status == MOE_OK) {
        const Conclave__V1__ChangeResult *plan = ((const Conclave__V1__ChangeProgress *)reply)->result;

        after.without = plan->removed;
        after.n_without = plan->n_removed;
        (void)snprintf(after.set_id, sizeof after.set_id, "%.127s", plan->set_after);
        status = strcmp(plan->set_before, before.set_id) == 0
                     ? read_file(p, &after, err)
                     : moe_fail(err, MOE_ERR_UNAVAILABLE, "the default set has changed meanwhile; nothing was pruned");
        if (status == MOE_OK) {
            status = show(p, reply, &before, &after, err);
        }
        if (status == MOE_OK && !cli_run_flag(p->run, "dry_run")) {
            status = prune(p, plan, err);
        }
    }
    cli_message_free(reply);
    return status;
}

moe_status cli_profile_prune(cli_run *run, const char *path, ProtobufCMessage *chosen, moe_error *err)
{
    profile *p = calloc(1, sizeof *p);

    if (p == NULL) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "--profile: out of memory");
    }
    p->run = run;
    p->path = path;
    p->shown = cli_progress_of("scoring the profile");
    cli_run_wait_for_ever(run);
    moe_status status = moe_file_read(path, CLI_MAX_INPUT, &p->data, &p->n_bytes, err);
    if (status == MOE_OK) {
        status = carry_out(p, chosen, err);
    }
    for (size_t l = 0; l < p->n_layers; l++) {
        free(p->layers[l].rows);
    }
    free(p->data);
    free(p);
    return status;
}
