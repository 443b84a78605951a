/* conclave convert DIR OUT */
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "checkpoint/checkpoint.h"
#include "cli/cli.h"

enum { TERMINAL_STEP = 1, LOG_STEP = 10 }; /* hundredths between two reports */

typedef struct convert_progress {
    bool terminal;
    checkpoint_convert_phase phase;
    size_t shown; /* hundredths of this phase */
} convert_progress;

/* ----------------------------------------------------------------------------------------------------- interruption */

static volatile sig_atomic_t stopped;

static void on_stop(int number)
{
    (void)number;
    stopped = 1;
}

/* A second signal ends the program at once. */
static void catch_stop(void)
{
    const struct sigaction action = {.sa_handler = on_stop, .sa_flags = (int)SA_RESETHAND};

    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

/* --------------------------------------------------------------------------------------------------------- progress */

static void show(const convert_progress *p, size_t done, size_t total)
{
    const char *phase = p->phase == CHECKPOINT_CONVERTING ? "converting" : "verifying ";

    fprintf(stderr, "%s%s %3zu %%  %.1f of %.1f MB%s", p->terminal ? "\r" : "", phase, p->shown, (double)done / 1e6,
            (double)total / 1e6, p->terminal && done < total ? "" : "\n");
    fflush(stderr);
}

static bool on_progress(void *ctx, checkpoint_convert_phase phase, size_t done, size_t total)
{
    convert_progress *p = ctx;
    const size_t hundredths = total > 0 ? (size_t)(100.0 * (double)done / (double)total) : 100;

    if (phase != p->phase) {
        p->phase = phase;
        p->shown = 0;
    }
    if (hundredths >= p->shown + (p->terminal ? TERMINAL_STEP : LOG_STEP) || (done == total && p->shown < 100)) {
        p->shown = hundredths;
        show(p, done, total);
    }
    return stopped == 0;
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
    convert_progress progress = {.terminal = isatty(fileno(stderr)) != 0};
    checkpoint_converted done = {0};
    moe_status status;

    if (run->n_args != 2) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "give two directories: DIR with the checkpoint, OUT for safetensors");
    }
    catch_stop();
    status = checkpoint_convert(run->args[0], run->args[1], on_progress, &progress, &done, err);
    if (status != MOE_OK) {
        if (progress.terminal && progress.shown > 0 && progress.shown < 100) {
            fputc('\n', stderr);
        }
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
