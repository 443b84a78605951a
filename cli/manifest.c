/* conclave manifest DIR [--cache-dir DIR] */
#include <signal.h>
#include <unistd.h>

#include "cli/cli.h"
#include "pack/pack.h"

/* The cache's file is there whole or not at all, so there is nothing to tidy up. Without a handler the first process of a
 * container gets no SIGTERM: whoever stops it would wait until he kills it. */
static void on_stop(int number)
{
    (void)number;
    _exit(MOE_EXIT_INTERRUPTED);
}

static void catch_stop(void)
{
    const struct sigaction action = {.sa_handler = on_stop};

    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

static moe_status print_manifest(const cli_run *run, const pack_model *m, moe_error *err)
{
    char fingerprint[65], size[MOE_SIZE_TEXT];
    size_t bytes = checkpoint_total_bytes(m->files);
    moe_text out;

    checkpoint_digest_hex(&m->manifest.fingerprint, fingerprint);
    moe_text_init(&out, 1 << 16);
    if (run->json) {
        moe_text_printf(&out, "{\"fingerprint\":\"%s\",\"family\":\"%s\",\"tensors\":%zu,", fingerprint,
                        m->config.model_type, m->manifest.n_tensors);
        moe_text_printf(&out, "\"bytes\":\"%zu\",\"from_cache\":%s}\n", bytes,
                        m->manifest.from_cache ? "true" : "false");
    } else {
        moe_text_printf(&out, "fingerprint: %s\n%s, %zu tensors, %s, %s\n", fingerprint, m->config.model_type,
                        m->manifest.n_tensors, moe_size_text(bytes, size),
                        m->manifest.from_cache ? "found in the cache" : "hashed and cached");
    }
    return cli_print_text(&out, err);
}

moe_status cli_manifest_run(cli_run *run, moe_error *err)
{
    cli_progress shown = cli_progress_of("hashing the checkpoint");
    pack_model m;

    if (run->n_args != 1) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "give a directory: DIR with config.json and safetensors");
    }
    catch_stop();
    moe_status status =
        pack_model_open(run->args[0], cli_run_value(run, "cache_dir"), cli_progress_show, &shown, &m, err);
    if (status != MOE_OK) {
        return status;
    }
    if (m.manifest.from_cache || m.manifest.cached) {
        status = print_manifest(run, &m, err);
    } else {
        status =
            moe_fail(err, MOE_ERR_IO, "the manifest could not be written to the cache: every start will hash anew");
    }
    pack_model_close(&m);
    return status;
}
