/* conclave sets [list] | define | use | forget | log | diff */
#include <inttypes.h>
#include <string.h>

#include "cli/changes.h"

/* ------------------------------------------------------------------------------------------------ reading */
static moe_status print_sets(void *ctx, const ProtobufCMessage *reply, moe_error *err)
{
    const Conclave__V1__ListSetsResponse *r = (const Conclave__V1__ListSetsResponse *)reply;
    moe_text out;

    (void)ctx;
    moe_text_init(&out, CLI_MAX_PRINT);
    for (size_t i = 0; i < r->n_sets; i++) {
        const Conclave__V1__SetInfo *s = r->sets[i];

        moe_text_printf(&out, "%.*s %6" PRIu32 " experts", CLI_SET_DIGITS, s->id, s->size);
        for (size_t n = 0; n < s->n_names; n++) {
            moe_text_printf(&out, "%s%s", n == 0 ? "  " : ",", s->names[n]);
        }
        moe_text_printf(&out, "%s", s->is_default ? "  default" : "");
        if (s->default_until_ms != 0) {
            moe_text_printf(&out, "  default until ");
            cli_put_time(s->default_until_ms, &out);
        }
        for (size_t n = 0; n < s->n_packs; n++) {
            moe_text_printf(&out, "%s%s", n == 0 ? "  with " : ",", s->packs[n]);
        }
        moe_text_printf(&out, "\n");
        cli_put_expert_lists(s->experts, s->n_experts, " ", &out);
    }
    if (r->pending[0] != '\0') {
        moe_text_printf(&out, "under way: %s\n", r->pending);
    }
    return cli_print_text(&out, err);
}

static moe_status call(cli_run *run, const char *path, ProtobufCMessage *request,
                       const ProtobufCMessageDescriptor *type, cli_reply_fn print, moe_error *err)
{
    moe_status status = cli_run_call(run, path, request, type, run->json ? cli_print_json : print, run, err);

    cli_message_free(request);
    return status;
}

static moe_status run_list(cli_run *run, moe_error *err)
{
    ProtobufCMessage *m = NULL;
    moe_status status = cli_change_request(&conclave__v1__list_sets_request__descriptor, "set",
                                           run->n_args > 1 ? run->args[1] : NULL, &m, err);

    if (status == MOE_OK && run->n_args > 1) {
        status = cli_message_set(m, "experts", "true", err);
    }
    if (status != MOE_OK) {
        cli_message_free(m);
        return status;
    }
    return call(run, "/conclave.v1.Admin/ListSets", m, &conclave__v1__list_sets_response__descriptor, print_sets, err);
}

static moe_status print_log(void *ctx, const ProtobufCMessage *reply, moe_error *err)
{
    const Conclave__V1__GetSetLogResponse *r = (const Conclave__V1__GetSetLogResponse *)reply;
    moe_text out;

    (void)ctx;
    moe_text_init(&out, CLI_MAX_PRINT);
    for (size_t i = 0; i < r->n_entries; i++) {
        const Conclave__V1__SetLogEntry *e = r->entries[i];

        moe_text_printf(&out, "%4" PRIu64 " ", e->number);
        cli_put_time(e->at_ms, &out);
        moe_text_printf(&out, " %s: %s, %.*s -> %.*s", e->who[0] != '\0' ? e->who : "-", e->what, CLI_SET_DIGITS,
                        e->set_before[0] != '\0' ? e->set_before : "none", CLI_SET_DIGITS,
                        e->set_after[0] != '\0' ? e->set_after : "none");
        moe_text_printf(&out, e->why[0] != '\0' ? " (%s)" : "%s", e->why);
        moe_text_printf(&out, e->undone[0] != '\0' ? "; undone: %s\n" : "%s\n", e->undone);
    }
    return cli_print_text(&out, err);
}

static moe_status run_log(cli_run *run, moe_error *err)
{
    ProtobufCMessage *m = NULL;
    moe_status status = cli_change_request(&conclave__v1__get_set_log_request__descriptor, "limit",
                                           cli_run_value(run, "limit"), &m, err);

    return status != MOE_OK ? status
                            : call(run, "/conclave.v1.Admin/GetSetLog", m,
                                   &conclave__v1__get_set_log_response__descriptor, print_log, err);
}

static moe_status print_diff(void *ctx, const ProtobufCMessage *reply, moe_error *err)
{
    const Conclave__V1__DiffSetsResponse *r = (const Conclave__V1__DiffSetsResponse *)reply;
    moe_text out;

    (void)ctx;
    moe_text_init(&out, CLI_MAX_PRINT);
    moe_text_printf(&out, "%.*s -> %.*s%s\n", CLI_SET_DIGITS, r->set_a, CLI_SET_DIGITS, r->set_b,
                    strcmp(r->set_a, r->set_b) == 0 ? ", the same" : "");
    cli_put_expert_lists(r->only_b, r->n_only_b, "+", &out);
    cli_put_expert_lists(r->only_a, r->n_only_a, "-", &out);
    return cli_print_text(&out, err);
}

static moe_status run_diff(cli_run *run, moe_error *err)
{
    ProtobufCMessage *m = NULL;
    moe_status status = cli_change_request(&conclave__v1__diff_sets_request__descriptor, "a", run->args[1], &m, err);

    if (status == MOE_OK) {
        status = cli_message_set(m, "b", run->args[2], err);
    }
    if (status != MOE_OK) {
        cli_message_free(m);
        return status;
    }
    return call(run, "/conclave.v1.Admin/DiffSets", m, &conclave__v1__diff_sets_response__descriptor, print_diff, err);
}

/* ------------------------------------------------------------------------------------------------ changes */
static moe_status run_define(cli_run *run, moe_error *err)
{
    ProtobufCMessage *m = NULL;
    const char *experts = cli_run_value(run, "experts");
    moe_status status =
        cli_change_request(&conclave__v1__define_set_request__descriptor, "name", run->args[1], &m, err);

    if (status == MOE_OK) {
        status = cli_change_repeated(run, "include", m, err);
    }
    if (status == MOE_OK) {
        status = cli_change_repeated(run, "exclude", m, err);
    }
    if (status == MOE_OK && experts != NULL) {
        status = cli_change_experts("--experts", experts, m, err);
    }
    if (status == MOE_OK) {
        status = cli_change_call(run, "DefineSet", m, err);
    }
    cli_message_free(m);
    return status;
}

static moe_status run_use(cli_run *run, moe_error *err)
{
    return cli_change_words(run, "UseSet", &conclave__v1__use_set_request__descriptor, "set", NULL, err);
}

static moe_status run_forget(cli_run *run, moe_error *err)
{
    return cli_change_words(run, "ForgetSet", &conclave__v1__forget_set_request__descriptor, "name", NULL, err);
}

moe_status cli_sets_run(cli_run *run, moe_error *err)
{
    static const cli_word words[] = {{"list", 0, 1, run_list}, {"define", 1, 1, run_define},
                                     {"use", 1, 1, run_use},   {"forget", 1, 1, run_forget},
                                     {"log", 0, 0, run_log},   {"diff", 2, 2, run_diff}};

    return cli_run_word(run, words, MOE_COUNT(words), err);
}
