/* conclave packs check PACK --model DIR */
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
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

moe_status cli_packs_run(cli_run *run, moe_error *err)
{
    const char *dir = cli_run_value(run, "model");
    pack_model m;

    if (run->n_args != 2 || strcmp(run->args[0], "check") != 0) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "say: packs check PACK, PACK being a directory with pack.json");
    }
    if (dir == NULL) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "--model DIR: give the model that the pack is for");
    }
    moe_status status = open_model(dir, &m, err);
    if (status == MOE_OK) {
        status = check(run, &m, err);
        pack_model_close(&m);
    }
    return status;
}
