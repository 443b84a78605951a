/* The model that a pack is for, opened from its directory. */
#include "pack/pack.h"

/* The fingerprint, from the cache that the servers use as well. */
static moe_status hash(pack_model *m, const char *cache_dir, checkpoint_progress progress, void *ctx, moe_error *err)
{
    moe_threads *threads;
    moe_status status = moe_threads_open(moe_cores_available(), NULL, &threads);

    if (status != MOE_OK) {
        return moe_fail(err, status, "threads: cannot be created");
    }
    status = model_tensors_manifest(m->tensors, threads, cache_dir, progress, ctx, &m->manifest, err);
    moe_threads_close(threads);
    return status;
}

/* The dtype is that of the checkpoint's experts, whatever they are computed in. */
moe_status pack_base_of(const model_config *c, const model_tensors *t, const checkpoint_manifest *manifest,
                        pack_base *out, moe_error *err)
{
    size_t of_first[MODEL_MAX_EXPERT_TENSORS], n;
    moe_status status = model_expert_tensors(c, t, 0, 0, of_first, &n, err);

    if (status == MOE_OK) {
        *out = (pack_base){c, manifest->fingerprint.bytes, model_tensors_all(t)[of_first[0]].dtype};
    }
    return status;
}

moe_status pack_model_open(const char *dir, const char *cache_dir, checkpoint_progress progress, void *progress_ctx,
                           pack_model *out, moe_error *err)
{
    pack_model m = {.files = NULL};
    pack_base base;
    moe_status status = model_config_load(dir, &m.config, err);

    if (status == MOE_OK) {
        status = checkpoint_open(dir, &m.files, err);
    }
    if (status == MOE_OK) {
        status = model_tensors_open(&m.config, m.files, &m.tensors, err);
    }
    if (status == MOE_OK) {
        status = pack_base_of(&m.config, m.tensors, &m.manifest, &base, err);
    }
    if (status == MOE_OK) {
        m.dtype = base.dtype;
        status = hash(&m, cache_dir, progress, progress_ctx, err);
    }
    if (status != MOE_OK) {
        pack_model_close(&m);
        return status;
    }
    *out = m;
    return MOE_OK;
}

void pack_model_close(pack_model *m)
{
    checkpoint_manifest_fini(&m->manifest);
    model_tensors_close(m->tensors);
    checkpoint_close(m->files);
}

pack_base pack_model_base(const pack_model *m)
{
    return (pack_base){&m->config, m->manifest.fingerprint.bytes, m->dtype};
}
