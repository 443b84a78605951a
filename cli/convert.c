/* conclave convert DIR OUT */
#include <string.h>

#include "checkpoint/checkpoint.h"
#include "cli/cli.h"

typedef struct convert_progress {
    cli_progress shown;
    checkpoint_convert_phase phase;
} convert_progress;

static cli_progress progress_of(checkpoint_convert_phase phase)
{
    return cli_progress_of(phase == CHECKPOINT_CONVERTING ? "converting" : "verifying ");
}

static bool on_progress(void *ctx, checkpoint_convert_phase phase, size_t done, size_t total)
{
    convert_progress *p = ctx;

    if (phase != p->phase) {
        *p = (convert_progress){progress_of(phase), phase};
    }
    cli_progress_show(&p->shown, done, total);
    return !cli_is_stopped();
}

/* ---------------------------------------------------------------------------------------------------------- command */

static void print_json(const char *out_dir, const checkpoint_converted *done)
{
    moe_text text;

    moe_text_init(&text, 1 << 16);
    moe_text_printf(&text, "{\"out\":");
    moe_text_json_string(&text, out_dir, strlen(out_dir));
    moe_text_printf(&text, ",\"tensors\":%zu,\"bytes\":%zu,\"shards\":%zu,\"copied_files\":%zu,\"verified\":true}\n",
                    done->n_tensors, done->bytes, done->n_shards, done->n_copied);
    cli_put(stdout, moe_text_cstr(&text), text.size);
    moe_text_fini(&text);
}

moe_status cli_convert_run(cli_run *run, moe_error *err)
{
    convert_progress progress = {progress_of(CHECKPOINT_CONVERTING), CHECKPOINT_CONVERTING};
    checkpoint_converted done = {0};
    moe_status status;

    if (run->n_args != 2) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "give two directories: DIR with the checkpoint, OUT for safetensors");
    }
    cli_catch_stop();
    status = checkpoint_convert(run->args[0], run->args[1], on_progress, &progress, &done, err);
    if (status != MOE_OK) {
        cli_progress_break(&progress.shown);
        return status;
    }
    if (run->json) {
        print_json(run->args[1], &done);
    } else {
        printf("%s: %zu tensors, %.1f MB in %zu file%s; %zu other file%s copied; every tensor read back and compared\n",
               run->args[1], done.n_tensors, (double)done.bytes / 1e6, done.n_shards, done.n_shards == 1 ? "" : "s",
               done.n_copied, done.n_copied == 1 ? "" : "s");
    }
    return MOE_OK;
}
