/* conclave packs check PACK --model DIR */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "pack/pack.h"

/* What a pack is checked against. */
typedef struct base_model {
    model_config config;
    checkpoint *files;
    model_tensors *tensors;
    checkpoint_manifest manifest;
    compute_dtype dtype;
} base_model;

typedef struct progress {
    const char *what;
    bool is_terminal;
    size_t shown;
} progress;

static void on_progress(void *ctx, size_t done, size_t total)
{
    progress *p = ctx;
    size_t hundredths = total > 0 ? done * 100 / total : 100;

    if (hundredths > p->shown && (p->is_terminal || hundredths == 100)) {
        p->shown = hundredths;
        fprintf(stderr, "%s%s %3zu %%%s", p->is_terminal ? "\r" : "", p->what, hundredths,
                p->is_terminal && hundredths < 100 ? "" : "\n");
        fflush(stderr);
    }
}

static progress progress_of(const char *what)
{
    return (progress){.what = what, .is_terminal = isatty(fileno(stderr)) != 0};
}

/* The fingerprint, from the cache that the servers use as well. */
static moe_status hash_base(base_model *b, moe_error *err)
{
    progress p = progress_of("hashing the model");
    moe_threads *threads;
    moe_status status = moe_threads_open(moe_cores_available(), NULL, &threads);

    if (status != MOE_OK) {
        return moe_fail(err, status, "threads: cannot be created");
    }
    status = model_tensors_manifest(b->tensors, threads, NULL, on_progress, &p, &b->manifest, err);
    moe_threads_close(threads);
    return status;
}

static void base_close(base_model *b)
{
    checkpoint_manifest_fini(&b->manifest);
    model_tensors_close(b->tensors);
    checkpoint_close(b->files);
}

static moe_status base_open(base_model *b, const char *dir, moe_error *err)
{
    size_t of_first[MODEL_MAX_EXPERT_TENSORS], n;
    moe_status status = model_config_load(dir, &b->config, err);

    if (status == MOE_OK) {
        status = checkpoint_open(dir, &b->files, err);
    }
    if (status == MOE_OK) {
        status = model_tensors_open(&b->config, b->files, &b->tensors, err);
    }
    if (status == MOE_OK) {
        status = model_expert_tensors(&b->config, b->tensors, 0, 0, of_first, &n, err);
    }
    if (status == MOE_OK) {
        b->dtype = model_tensors_all(b->tensors)[of_first[0]].dtype;
        status = hash_base(b, err);
    }
    return status;
}

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

static void put_text(const pack *p, const base_model *b, bool is_signed, moe_text *out)
{
    char size[MOE_SIZE_TEXT];

    moe_text_printf(out, "%s %s is sound: %s, %zu experts in %zu of %u layers, %s\n", pack_name(p), pack_version(p),
                    kind_of(p), pack_n_experts(p), pack_n_layers(p), b->config.n_layers,
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

static moe_status check(cli_run *run, const base_model *b, moe_error *err)
{
    progress shown = progress_of("checking the pack");
    const pack_base base = {&b->config, b->manifest.fingerprint.bytes, b->dtype};
    const pack_options o = {cli_run_value(run, "pack_key"), on_progress, &shown};
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
        put_text(p, b, o.key_file != NULL, &out);
    }
    pack_close(p);
    return cli_print_text(&out, err);
}

moe_status cli_packs_run(cli_run *run, moe_error *err)
{
    const char *dir = cli_run_value(run, "model");
    base_model b = {.files = NULL};

    if (run->n_args != 2 || strcmp(run->args[0], "check") != 0) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "say: packs check PACK, PACK being a directory with pack.json");
    }
    if (dir == NULL) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "--model DIR: give the model that the pack is for");
    }
    moe_status status = base_open(&b, dir, err);
    if (status == MOE_OK) {
        status = check(run, &b, err);
    }
    base_close(&b);
    return status;
}
