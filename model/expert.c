/* One expert, prepared for a device. */
#include "model/family/family_priv.h"

static const model_role expert_roles[3] = {MODEL_ROLE_EXPERT_GATE, MODEL_ROLE_EXPERT_UP, MODEL_ROLE_EXPERT_DOWN};

moe_status model_expert_tensors(const model_config *c, const model_tensors *t, uint32_t layer, int32_t expert_id,
                                size_t idx_out[3], moe_error *err)
{
    if (layer >= c->n_layers || expert_id < 0 || (uint32_t)expert_id >= c->n_experts) {
        return moe_fail(err, MOE_ERR_NOT_FOUND,
                        "layer %u expert %d: the checkpoint has layers below %u and experts below %u", layer, expert_id,
                        c->n_layers, c->n_experts);
    }
    for (size_t i = 0; i < 3; i++) {
        const checkpoint_logical *tensor = model_tensors_role(t, expert_roles[i], layer, (uint32_t)expert_id);

        MOE_ASSERT(tensor != NULL); /* model_tensors_open has found them all */
        idx_out[i] = (size_t)(tensor - model_tensors_all(t));
    }
    return MOE_OK;
}

moe_status model_expert_open(const model_config *c, const model_tensors *t, compute_device *d, compute_layout layout,
                             uint32_t layer, int32_t expert_id, compute_expert **out, moe_error *err)
{
    compute_weight w[3];
    size_t idx[3];
    moe_status status = model_expert_tensors(c, t, layer, expert_id, idx, err);

    if (status != MOE_OK) {
        return status;
    }
    for (size_t i = 0; i < 3; i++) {
        const checkpoint_logical *tensor = &model_tensors_all(t)[idx[i]];

        w[i] = (compute_weight){
            .data = tensor->data, .dtype = tensor->dtype, .n_out = tensor->shape[0], .n_in = tensor->shape[1]};
    }
    status = d->ops->expert_open(d, c->ffn, &w[0], &w[1], &w[2], layout, out);
    if (status != MOE_OK) {
        return moe_fail(err, status, "layer %u expert %d: %s while loading it", layer, expert_id,
                        moe_status_text(status));
    }
    return MOE_OK;
}
