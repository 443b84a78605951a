#include "cli/changes.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli/cluster.h"

#define MAX_PATH_TEXT 128
#define MAX_WHO       64

/* ------------------------------------------------------------------------------------------------ text */
void cli_put_time(uint64_t ms, moe_text *out)
{
    const time_t t = (time_t)(ms / 1000u);
    char text[32] = "-";
    struct tm tm;

    if (ms != 0 && localtime_r(&t, &tm) != NULL) {
        (void)strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &tm);
    }
    moe_text_printf(out, "%s", text);
}

void cli_put_expert_lists(Conclave__V1__ExpertList *const *lists, size_t n, const char *mark, moe_text *out)
{
    for (size_t i = 0; i < n; i++) {
        cli_ranges ranges = {.out = out};

        moe_text_printf(out, "%s layer %" PRIu32 ": ", mark, lists[i]->layer);
        for (size_t e = 0; e < lists[i]->n_ids; e++) {
            cli_ranges_add(&ranges, lists[i]->ids[e]);
        }
        cli_ranges_end(&ranges);
        moe_text_printf(out, "\n");
    }
}

/* ------------------------------------------------------------------------------------------------ requests */
moe_status cli_change_request(const ProtobufCMessageDescriptor *type, const char *field, const char *text,
                              ProtobufCMessage **out, moe_error *err)
{
    ProtobufCMessage *m = cli_message_new(type);
    moe_status status = m == NULL      ? moe_fail(err, MOE_ERR_NO_MEMORY, "request: out of memory")
                        : text != NULL ? cli_message_set(m, field, text, err)
                                       : MOE_OK;

    if (status != MOE_OK) {
        cli_message_free(m);
        return status;
    }
    *out = m;
    return MOE_OK;
}

moe_status cli_change_fetch(cli_run *run, const char *path, const ProtobufCMessageDescriptor *type, const char *field,
                            const char *text, const ProtobufCMessageDescriptor *reply_type, ProtobufCMessage **out,
                            moe_error *err)
{
    ProtobufCMessage *request = NULL;
    moe_status status = cli_change_request(type, field, text, &request, err);

    if (status == MOE_OK) {
        status = cli_run_fetch(run, path, request, reply_type, out, err);
        cli_message_free(request);
    }
    return status;
}

moe_status cli_change_repeated(const cli_run *run, const char *name, ProtobufCMessage *request, moe_error *err)
{
    const char *values[CLI_MAX_REPEATS];
    size_t n = cli_run_repeated(run, name, values);
    moe_status status = MOE_OK;

    for (size_t i = 0; i < n && status == MOE_OK; i++) {
        status = cli_message_set(request, name, values[i], err);
    }
    return status;
}

/* A number without sign; where it ends. NULL: there is none, or it is too large. */
static const char *take_number(const char *at, int64_t max, int64_t *out)
{
    const char *end = at;

    for (*out = 0; *end >= '0' && *end <= '9' && *out <= max; end++) {
        *out = *out * 10 + (*end - '0');
    }
    return end == at || *out > max ? NULL : end;
}

/* "L:E" or "L:E-E"; where it ends. */
static const char *take_item(const char *at, int64_t *layer, int64_t *first, int64_t *last)
{
    const char *end = take_number(at, UINT32_MAX, layer);

    end = end != NULL && *end == ':' ? take_number(end + 1, INT32_MAX, first) : NULL;
    *last = *first;
    if (end != NULL && *end == '-') {
        end = take_number(end + 1, INT32_MAX, last);
    }
    return end != NULL && (*end == '\0' || *end == ',') && *last >= *first && *last - *first < 1 << 16 ? end : NULL;
}

moe_status cli_change_put_number(ProtobufCMessage *m, const char *field, uint64_t number, moe_error *err)
{
    char text[24];

    (void)snprintf(text, sizeof text, "%" PRIu64, number);
    return cli_message_set(m, field, text, err);
}

moe_status cli_change_put_share(ProtobufCMessage *m, const char *field, const char *option, const char *text,
                                moe_error *err)
{
    size_t n = strlen(text);
    char value[32];
    char *end = NULL;
    double share = strtod(text, &end);
    bool is_percent = n > 0 && text[n - 1] == '%';

    if (n == (size_t)is_percent || end != text + n - is_percent || !(share >= 0)) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "%s \"%.32s\": a share as 0.2%% or 0.002", option, text);
    }
    (void)snprintf(value, sizeof value, "%.17g", is_percent ? share / 100 : share);
    return cli_message_set(m, field, value, err);
}

moe_status cli_change_add_layer(ProtobufCMessage *request, const char *field, uint64_t layer, ProtobufCMessage **out,
                                moe_error *err)
{
    moe_status status = cli_message_add(request, field, out, err);

    return status == MOE_OK ? cli_change_put_number(*out, "layer", layer, err) : status;
}

static moe_status add_item(ProtobufCMessage *request, int64_t layer, int64_t first, int64_t last, moe_error *err)
{
    ProtobufCMessage *list = NULL;
    moe_status status = cli_change_add_layer(request, "experts", (uint64_t)layer, &list, err);

    for (int64_t id = first; id <= last && status == MOE_OK; id++) {
        status = cli_change_put_number(list, "ids", (uint64_t)id, err);
    }
    return status;
}

moe_status cli_change_experts(const char *what, const char *text, ProtobufCMessage *request, moe_error *err)
{
    const char *at = text;
    int64_t layer = 0, first = 0, last = 0;
    moe_status status = MOE_OK;

    do {
        const char *end = take_item(at, &layer, &first, &last);

        if (end == NULL) {
            return moe_fail(err, MOE_ERR_INVALID_ARG,
                            "%s \"%.64s\": experts are LAYER:EXPERT or LAYER:FIRST-LAST, with commas between", what,
                            at);
        }
        status = add_item(request, layer, first, last, err);
        at = *end == ',' ? end + 1 : end;
    } while (status == MOE_OK && *at != '\0');
    return status;
}

/* user@host, as far as it is known. */
static void put_who(char out[MAX_WHO])
{
    const char *user = getenv("USER");
    char host[32] = "";

    if (gethostname(host, sizeof host) != 0) {
        host[0] = '\0';
    }
    host[sizeof host - 1] = '\0';
    (void)snprintf(out, MAX_WHO, "%.28s%s%s", user != NULL ? user : "", user != NULL && host[0] != '\0' ? "@" : "",
                   host);
}

static moe_status fill_options(const cli_run *run, ProtobufCMessage *request, moe_error *err)
{
    char who[MAX_WHO];
    const char *by = cli_run_value(run, "by"), *why = cli_run_value(run, "why");
    moe_status status;

    put_who(who);
    status = cli_message_set(request, "options.who", by != NULL ? by : who, err);
    if (status == MOE_OK && why != NULL) {
        status = cli_message_set(request, "options.why", why, err);
    }
    if (status == MOE_OK && cli_run_flag(run, "dry_run")) {
        status = cli_message_set(request, "options.dry_run", "true", err);
    }
    return status;
}

/* ------------------------------------------------------------------------------------------------ the answer */
typedef struct telling {
    const cli_run *run;
    char phase[64];
    uint64_t shown; /* hundredths */
    bool is_terminal, has_result;
} telling;

static void show_progress(telling *t, const Conclave__V1__ChangeProgress *p)
{
    uint64_t hundredths = p->total > 0 ? p->done * 100 / p->total : 0;

    if (strncmp(t->phase, p->phase, sizeof t->phase - 1) == 0 && (!t->is_terminal || hundredths == t->shown)) {
        return;
    }
    (void)snprintf(t->phase, sizeof t->phase, "%s", p->phase);
    t->shown = hundredths;
    cli_put(stderr, t->phase, strlen(t->phase));
    if (p->total > 0 && t->is_terminal) {
        fprintf(stderr, ", %" PRIu64 " %%", hundredths);
    }
    fputc('\n', stderr);
}

void cli_put_savings(const Conclave__V1__ChangeResult *r, moe_text *out)
{
    char size[MOE_SIZE_TEXT];

    for (size_t i = 0; i < r->n_savings; i++) {
        if (r->savings[i]->n_experts > 0) {
            moe_text_printf(out, "node %s could drop %" PRIu32 " experts, %s\n", r->savings[i]->node_id,
                            r->savings[i]->n_experts, moe_size_text((size_t)r->savings[i]->bytes, size));
        }
    }
}

static void put_result(const Conclave__V1__ChangeResult *r, moe_text *out)
{
    moe_text_printf(out, "%s%s, change %" PRIu64 ": %s%s %.*s -> %.*s\n", r->dry_run ? "would be: " : "", r->what,
                    r->number,
                    r->shadow            ? "the default set stays; on trial"
                    : r->name[0] != '\0' ? "set "
                                         : "the default set",
                    r->name, CLI_SET_DIGITS, r->set_before[0] != '\0' ? r->set_before : "none", CLI_SET_DIGITS,
                    r->set_after[0] != '\0' ? r->set_after : "none");
    cli_put_expert_lists(r->added, r->n_added, "+", out);
    cli_put_expert_lists(r->removed, r->n_removed, "-", out);
    cli_put_savings(r, out);
}

static moe_status print_progress(void *ctx, const ProtobufCMessage *reply, moe_error *err)
{
    const Conclave__V1__ChangeProgress *p = (const Conclave__V1__ChangeProgress *)reply;
    telling *t = ctx;
    moe_text out;

    t->has_result = t->has_result || p->result != NULL;
    if (t->run->json) {
        return cli_print_json(ctx, reply, err);
    }
    if (p->result == NULL) {
        show_progress(t, p);
        return MOE_OK;
    }
    moe_text_init(&out, CLI_MAX_PRINT);
    put_result(p->result, &out);
    return cli_print_text(&out, err);
}

moe_status cli_change_call(cli_run *run, const char *method, ProtobufCMessage *request, moe_error *err)
{
    telling t = {.run = run, .is_terminal = isatty(STDERR_FILENO) != 0};
    char path[MAX_PATH_TEXT];
    moe_status status = fill_options(run, request, err);

    if (status != MOE_OK) {
        return status;
    }
    cli_run_wait_for_ever(run);
    (void)snprintf(path, sizeof path, "/conclave.v1.Admin/%s", method);
    status = cli_run_call(run, path, request, &conclave__v1__change_progress__descriptor, print_progress, &t, err);
    return status == MOE_OK && !t.has_result ? moe_fail(err, MOE_ERR_DATA_LOSS, "the server ended without a result")
                                             : status;
}

moe_status cli_change_words(cli_run *run, const char *method, const ProtobufCMessageDescriptor *type, const char *field,
                            const char *to, moe_error *err)
{
    ProtobufCMessage *m = NULL;
    moe_status status = cli_change_request(type, field, field != NULL ? run->args[1] : NULL, &m, err);

    if (status == MOE_OK && to != NULL) {
        status = cli_message_set(m, to, run->args[2], err);
    }
    if (status == MOE_OK) {
        status = cli_change_call(run, method, m, err);
    }
    cli_message_free(m);
    return status;
}
