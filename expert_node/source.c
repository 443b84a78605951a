/* Experts out of a checkpoint and of packs. */
#include "expert_node/expert_node.h"

#include <string.h>

#define PIECE_BYTES ((size_t)4 << 20)

static bool go_on(void *ctx, size_t bytes)
{
    (void)ctx, (void)bytes;
    return true;
}

static bool digest_of(const expert_checkpoint *c, const checkpoint_logical *t, checkpoint_digest *out)
{
    size_t piece = c->piece_bytes != 0 ? c->piece_bytes : PIECE_BYTES;

    return checkpoint_sha256_in_pieces(t->data, t->bytes, piece, c->more != NULL ? c->more : go_on, c->more_ctx, out);
}

/* The files may have changed since the manifest was made (or was taken from its cache). */
static moe_status verify(const expert_checkpoint *c, uint32_t layer, int32_t expert_id, moe_error *err)
{
    const checkpoint_logical *all = model_tensors_all(c->tensors);
    size_t idx[MODEL_MAX_EXPERT_TENSORS], n = 0;
    moe_status status = model_expert_tensors(c->config, c->tensors, layer, expert_id, idx, &n, err);
    checkpoint_digest d;

    for (size_t i = 0; i < n && status == MOE_OK; i++) {
        if (!digest_of(c, &all[idx[i]], &d)) {
            status = moe_fail(err, MOE_ERR_CANCELLED, "layer %u expert %d: stopped while reading it", layer, expert_id);
        } else if (memcmp(d.bytes, c->manifest->tensors[idx[i]].bytes, sizeof d.bytes) != 0) {
            status = moe_fail(err, MOE_ERR_CORRUPT, "%s: its bytes are not those of the manifest", all[idx[i]].name);
        }
    }
    return status;
}

/* Tells of an added expert's bytes, as verify does of others. */
static bool tell(const expert_checkpoint *c, const checkpoint_tensor *t)
{
    size_t piece = c->piece_bytes != 0 ? c->piece_bytes : PIECE_BYTES;
    bool goes_on = true;

    for (size_t left = t == NULL || c->more == NULL ? 0 : t->bytes; left > 0 && goes_on;) {
        size_t n = MOE_MIN(left, piece);

        goes_on = c->more(c->more_ctx, n);
        left -= n;
    }
    return goes_on;
}

static moe_status open_added(const expert_checkpoint *c, const model_expert_parts *parts, uint32_t layer,
                             int32_t expert_id, compute_expert **out, moe_error *err)
{
    if (!tell(c, parts->gate) || !tell(c, parts->up) || !tell(c, parts->down)) {
        return moe_fail(err, MOE_ERR_CANCELLED, "layer %u expert %d: stopped while reading it", layer, expert_id);
    }
    return model_expert_open_parts(c->config, parts, c->device, c->layout, out, err);
}

static moe_status open_own(const expert_checkpoint *c, uint32_t layer, int32_t expert_id, compute_expert **out,
                           moe_error *err)
{
    moe_status status = MOE_OK;

    if (expert_id >= (int32_t)c->config->n_experts) {
        return moe_fail(err, MOE_ERR_NOT_FOUND, "layer %u expert %d: there is no pack that has it", layer, expert_id);
    }
    if (c->manifest != NULL) {
        status = verify(c, layer, expert_id, err);
    }
    return status == MOE_OK ? model_expert_open(c->config, c->tensors, c->device, c->layout, layer, expert_id, out, err)
                            : status;
}

static moe_status checkpoint_open_expert(void *ctx, uint32_t layer, int32_t expert_id, compute_expert **out,
                                         moe_error *err)
{
    const expert_checkpoint *c = ctx;
    model_expert_parts added = {.up = NULL};
    moe_status status = c->find == NULL ? MOE_OK : c->find(c->find_ctx, layer, expert_id, &added, err);

    if (status != MOE_OK) {
        return status;
    }
    return added.up != NULL ? open_added(c, &added, layer, expert_id, out, err)
                            : open_own(c, layer, expert_id, out, err);
}

expert_source expert_source_checkpoint(expert_checkpoint *c)
{
    return (expert_source){c, checkpoint_open_expert};
}
