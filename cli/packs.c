/* conclave packs [list] | add | promote | remove | update | rollback | check PACK --text FILE, of a server; packs check PACK --model DIR, here */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cli/changes.h"
#include "cli/check.h"
#include "pack/pack.h"

/* ------------------------------------------------------------------------------------------------ what is printed */
static const char *kind_of(const pack *p)
{
    return pack_get_kind(p) == PACK_ADD ? "add" : "replace";
}

static void put_json(const pack *p, bool is_signed, moe_text *out)
{
    moe_text_printf(out,
                    "{\"name\":\"%s\",\"version\":\"%s\",\"kind\":\"%s\",\"hash\":\"%s\",\"licence\":", pack_name(p),
                    pack_version(p), kind_of(p), pack_hash(p));
    moe_text_json_string(out, pack_licence(p), strlen(pack_licence(p)));
    moe_text_printf(out, ",\"experts\":%zu,\"bytes\":\"%zu\",\"signed\":%s,\"layers\":[", pack_n_experts(p),
                    pack_bytes(p), is_signed ? "true" : "false");
    for (size_t l = 0; l < pack_n_layers(p); l++) {
        moe_text_printf(out, "%s{\"layer\":%u,\"experts\":%u}", l > 0 ? "," : "", pack_at(p, l)->layer,
                        pack_at(p, l)->n_experts);
    }
    moe_text_printf(out, "]}\n");
}

static void put_text(const pack *p, const pack_model *m, bool is_signed, moe_text *out)
{
    char size[MOE_SIZE_TEXT];

    moe_text_printf(out, "%s %s is sound: %s, %zu experts in %zu of %u layers, %s\n", pack_name(p), pack_version(p),
                    kind_of(p), pack_n_experts(p), pack_n_layers(p), m->config.n_layers,
                    moe_size_text(pack_bytes(p), size));
    moe_text_printf(out, "hash: %s\nlicence: %s\nsignature: %s\n", pack_hash(p),
                    pack_licence(p)[0] != '\0' ? pack_licence(p) : "not given", is_signed ? "valid" : "not asked for");
    for (size_t l = 0, end; l < pack_n_layers(p); l = end) {
        const pack_layer *first = pack_at(p, l);

        for (end = l + 1; end < pack_n_layers(p) && pack_at(p, end)->n_experts == first->n_experts &&
                          pack_at(p, end)->layer == pack_at(p, end - 1)->layer + 1;
             end++) {
        }
        moe_text_printf(out, end - l > 1 ? "layers %u-%u" : "layer %u", first->layer, pack_at(p, end - 1)->layer);
        moe_text_printf(out, ": %u experts\n", first->n_experts);
    }
}

static moe_status check(cli_run *run, const pack_model *m, moe_error *err)
{
    cli_progress shown = cli_progress_of("checking the pack");
    const pack_base base = pack_model_base(m);
    const pack_options o = {
        .key_file = cli_run_value(run, "pack_key"), .progress = cli_progress_show, .progress_ctx = &shown};
    pack *p;
    moe_text out;
    moe_status status = pack_open(run->args[1], &base, &o, &p, err);

    if (status != MOE_OK) {
        return status;
    }
    moe_text_init(&out, 1 << 20);
    if (run->json) {
        put_json(p, o.key_file != NULL, &out);
    } else {
        put_text(p, m, o.key_file != NULL, &out);
    }
    pack_close(p);
    return cli_print_text(&out, err);
}

static moe_status open_model(const char *dir, pack_model *out, moe_error *err)
{
    cli_progress shown = cli_progress_of("hashing the model");

    return pack_model_open(dir, NULL, cli_progress_show, &shown, out, err);
}

static moe_status run_check(cli_run *run, moe_error *err)
{
    const char *dir = cli_run_value(run, "model"), *text = cli_run_value(run, "text");
    moe_status status = MOE_OK;
    pack_model m;

    if (dir == NULL && text == NULL) {
        return moe_fail(err, MOE_ERR_INVALID_ARG,
                        "--model DIR: give the model that the pack is for; or --text FILE, for a server's");
    }
    if (dir != NULL) {
        status = open_model(dir, &m, err);
        if (status == MOE_OK) {
            status = check(run, &m, err);
            pack_model_close(&m);
        }
    }
    return status == MOE_OK && text != NULL ? cli_check_text(run, run->args[1], text, err) : status;
}

/* ------------------------------------------------------------------------------------------------ of a server */
static void put_shadow(const Conclave__V1__Shadow *s, moe_text *out)
{
    moe_text_printf(out, "  on trial since ");
    cli_put_time(s->since_ms, out);
    moe_text_printf(out, " by %s, set %.*s, %g%% of the requests: ", s->by[0] != '\0' ? s->by : "-", CLI_SET_DIGITS,
                    s->set_id, 100 * s->share);
    if (s->requests == 0) {
        moe_text_printf(out, "none compared here");
    } else {
        moe_text_printf(out, "%" PRIu64 " compared here, %" PRIu64 " tokens, mean log-probability %+.6f", s->requests,
                        s->tokens, s->mean_difference);
        if (s->has_standard_error_case == CONCLAVE__V1__SHADOW__HAS_STANDARD_ERROR_STANDARD_ERROR) {
            moe_text_printf(out, " +- %.6f", s->standard_error);
        }
    }
    moe_text_printf(out, ", %" PRIu64 " dropped\n", s->dropped);
}

static moe_status print_packs(void *ctx, const ProtobufCMessage *reply, moe_error *err)
{
    const Conclave__V1__ListPacksResponse *r = (const Conclave__V1__ListPacksResponse *)reply;
    moe_text out;

    (void)ctx;
    moe_text_init(&out, CLI_MAX_PRINT);
    for (size_t i = 0; i < r->n_packs; i++) {
        const Conclave__V1__Pack *p = r->packs[i];

        moe_text_printf(&out, "%s %s, ", p->name, p->version);
        if (p->n_experts > 0) { /* a node tells no more than name and hash of what nobody has taken in */
            moe_text_printf(&out, "%s, %" PRIu32 " experts, ",
                            p->kind == CONCLAVE__V1__PACK_KIND__PACK_KIND_REPLACE ? "replace" : "add", p->n_experts);
        }
        moe_text_printf(&out, "%s",
                        !p->taken_in        ? "offered"
                        : p->shadow != NULL ? "on trial"
                        : p->active         ? "active"
                                            : "removed");
        if (p->active && p->n_in_default < p->n_experts) {
            moe_text_printf(&out, " with %" PRIu32 " of them", p->n_in_default);
        }
        if (p->taken_in && p->shadow == NULL) {
            moe_text_printf(&out, " since ");
            cli_put_time(p->since_ms, &out);
            moe_text_printf(&out, " by %s", p->by[0] != '\0' ? p->by : "-");
        }
        moe_text_printf(&out, ", %.*s", CLI_SET_DIGITS, p->hash);
        moe_text_printf(&out, p->source[0] != '\0' ? ", %s\n" : "%s\n", p->source);
        if (p->shadow != NULL) {
            put_shadow(p->shadow, &out);
        }
    }
    if (r->n_packs == 0) {
        moe_text_printf(&out, "no packs\n");
    }
    return cli_print_text(&out, err);
}

static moe_status run_list(cli_run *run, moe_error *err)
{
    ProtobufCMessage *m = NULL;
    moe_status status = cli_change_request(&conclave__v1__list_packs_request__descriptor, "", NULL, &m, err);

    if (status == MOE_OK) {
        status = cli_run_call(run, "/conclave.v1.Admin/ListPacks", m, &conclave__v1__list_packs_response__descriptor,
                              run->json ? cli_print_json : print_packs, run, err);
        cli_message_free(m);
    }
    return status;
}

static moe_status run_add(cli_run *run, moe_error *err)
{
    const char *share = cli_run_value(run, "shadow");
    ProtobufCMessage *m = NULL;
    moe_status status = cli_change_request(&conclave__v1__add_pack_request__descriptor, "pack", run->args[1], &m, err);

    if (status == MOE_OK && share != NULL) {
        status = cli_change_put_share(m, "shadow", "--shadow", share, err);
    }
    if (status == MOE_OK) {
        status = cli_change_call(run, "AddPack", m, err);
    }
    cli_message_free(m);
    return status;
}

static moe_status run_promote(cli_run *run, moe_error *err)
{
    return cli_change_words(run, "PromotePack", &conclave__v1__promote_pack_request__descriptor, "pack", NULL, err);
}

static moe_status run_remove(cli_run *run, moe_error *err)
{
    return cli_change_words(run, "RemovePack", &conclave__v1__remove_pack_request__descriptor, "pack", NULL, err);
}

static moe_status run_update(cli_run *run, moe_error *err)
{
    return cli_change_words(run, "UpdatePack", &conclave__v1__update_pack_request__descriptor, "pack", "to", err);
}

static moe_status run_rollback(cli_run *run, moe_error *err)
{
    return cli_change_words(run, "Rollback", &conclave__v1__rollback_request__descriptor, NULL, NULL, err);
}

moe_status cli_packs_run(cli_run *run, moe_error *err)
{
    static const cli_word words[] = {{"list", 0, 0, run_list},       {"add", 1, 1, run_add},
                                     {"promote", 1, 1, run_promote}, {"remove", 1, 1, run_remove},
                                     {"update", 2, 2, run_update},   {"rollback", 0, 0, run_rollback},
                                     {"check", 1, 1, run_check}};

    return cli_run_word(run, words, MOE_COUNT(words), err);
}
