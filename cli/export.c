/* conclave export OUT --model DIR */
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/export_set.h"
#include "export/export.h"

#define MAX_SET_BYTES ((size_t)1 << 20)
#define MAX_EXPERTS   4096

static bool on_progress(void *ctx, size_t done, size_t total)
{
    cli_progress_show(ctx, done, total);
    return !cli_is_stopped();
}

static void print_json(const export_options *o, const export_result *r, moe_text *out)
{
    moe_text_printf(out, "{\"out\":");
    moe_text_json_string(out, o->out, strlen(o->out));
    moe_text_printf(out, ",\"tensors\":%zu,\"bytes\":\"%zu\",\"files\":%zu,\"copied_files\":%zu", r->n_tensors,
                    r->bytes, r->n_files, r->n_copied);
    moe_text_printf(out, ",\"experts\":%u,\"left_out\":%zu,\"taken_back\":%zu,\"silent\":%zu", r->n_experts,
                    r->n_left_out, r->n_taken_back, r->n_silent);
    moe_text_printf(out, ",\"set_file\":%s,\"stock_exact\":%s}\n", r->has_set_file ? "true" : "false",
                    r->stock_exact ? "true" : "false");
}

static void print_text(const export_options *o, const export_result *r, moe_text *out)
{
    moe_text_printf(out, "%s: %zu tensors, %.1f MB in %zu file%s, %u experts in every layer\n", o->out, r->n_tensors,
                    (double)r->bytes / 1e6, r->n_files, r->n_files == 1 ? "" : "s", r->n_experts);
    if (r->n_left_out > 0 || r->n_taken_back > 0) {
        moe_text_printf(out, "--uniform: %zu experts of the set left out, %zu that it has not taken in\n",
                        r->n_left_out, r->n_taken_back);
    }
    if (r->n_silent > 0) {
        moe_text_printf(out, "%zu experts are silent: they only make the layers equally wide\n", r->n_silent);
    }
    if (r->has_set_file) {
        moe_text_printf(out, "conclave_set.json says which experts are routed to%s\n",
                        r->stock_exact ? "; other programs come to the same without it"
                                       : "; other programs do not read it, and may choose the others");
    }
}

/* NULL: not given. auto is the servers' word. */
static moe_status read_dtype(const char *text, compute_dtype *out, moe_error *err)
{
    if (text == NULL || strcmp(text, "auto") == 0) {
        *out = COMPUTE_DTYPE_OTHER;
    } else if (strcmp(text, "bf16") == 0) {
        *out = COMPUTE_BF16;
    } else if (strcmp(text, "f32") == 0) {
        *out = COMPUTE_F32;
    } else {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "--dtype: \"%.16s\" must be auto, bf16 or f32", text);
    }
    return MOE_OK;
}

static moe_status read_count(const char *text, uint32_t *out, moe_error *err)
{
    unsigned long n = text != NULL ? strtoul(text, NULL, 10) : 0;

    if (text != NULL && (text[0] == '\0' || text[strspn(text, "0123456789")] != '\0' || n == 0 || n > MAX_EXPERTS)) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "--uniform: \"%.16s\" must be a number within [1, %d]", text,
                        MAX_EXPERTS);
    }
    *out = (uint32_t)n;
    return MOE_OK;
}

static moe_status read_options(cli_run *run, const char **packs, const char **exclude, export_options *o,
                               moe_error *err)
{
    const char *dtype = cli_run_value(run, "dtype"), *uniform = cli_run_value(run, "uniform"),
               *size = cli_run_value(run, "max_file");

    if (run->n_args != 1) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "give one directory: OUT for the checkpoint");
    }
    *o = (export_options){.model = cli_run_value(run, "model"),
                          .out = run->args[0],
                          .packs = packs,
                          .n_packs = cli_run_repeated(run, "pack", packs),
                          .key_file = cli_run_value(run, "pack_key"),
                          .exclude = exclude,
                          .n_exclude = cli_run_repeated(run, "exclude_pack", exclude),
                          .dtype = COMPUTE_DTYPE_OTHER};
    if (o->model == NULL) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "--model DIR: give the checkpoint");
    }
    if (size != NULL && (moe_parse_size(size, &o->file_bytes) != MOE_OK || o->file_bytes == 0)) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "--max-file: \"%.16s\" must be a size such as 4G", size);
    }
    moe_status status = read_dtype(dtype, &o->dtype, err);
    return status == MOE_OK ? read_count(uniform, &o->uniform, err) : status;
}

/* A file; or of a server that is named. *text is owned. */
static moe_status read_set(cli_run *run, const char *word, export_options *o, char **text, moe_error *err)
{
    moe_status status;

    if (cli_run_given(run, "server")) {
        moe_text set;

        moe_text_init(&set, MAX_SET_BYTES);
        status = cli_export_set(run, word, o->packs, o->n_packs, &set, err);
        *text = status == MOE_OK ? strdup(moe_text_cstr(&set)) : NULL;
        o->set_bytes = set.size;
        moe_text_fini(&set);
        if (status == MOE_OK && *text == NULL) {
            status = moe_fail(err, MOE_ERR_NO_MEMORY, "--set: out of memory");
        }
    } else {
        status = moe_file_read(word, MAX_SET_BYTES, text, &o->set_bytes, err);
    }
    o->set = *text;
    return status;
}

static moe_status run_export(export_options *o, export_result *result, moe_error *err)
{
    cli_progress progress = cli_progress_of("writing");

    o->progress = on_progress;
    o->progress_ctx = &progress;
    cli_catch_stop();
    moe_status status = export_run(o, result, err);
    if (status != MOE_OK) {
        cli_progress_break(&progress);
    }
    return status;
}

moe_status cli_export_run(cli_run *run, moe_error *err)
{
    const char *packs[CLI_MAX_REPEATS], *exclude[CLI_MAX_REPEATS], *file = cli_run_value(run, "set");
    char *set = NULL;
    export_options o;
    export_result result;
    moe_text out;
    moe_status status = read_options(run, packs, exclude, &o, err);

    if (status == MOE_OK && file != NULL) {
        status = read_set(run, file, &o, &set, err);
    }
    if (status == MOE_OK) {
        status = run_export(&o, &result, err);
    }
    free(set);
    if (status != MOE_OK) {
        return status;
    }
    moe_text_init(&out, 1 << 16);
    if (run->json) {
        print_json(&o, &result, &out);
    } else {
        print_text(&o, &result, &out);
    }
    return cli_print_text(&out, err);
}
