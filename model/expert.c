/* One FFN expert, prepared for a device. */
#include "model/family/family.h"
#include "model/model_priv.h"

moe_status model_expert_tensors(const model_config *c, const model_tensors *t, uint32_t layer, int32_t expert_id,
                                size_t idx_out[MODEL_MAX_EXPERT_TENSORS], size_t *n_out, moe_error *err)
{
    size_t n = 0;

    if (layer >= c->n_layers || expert_id < 0 || (uint32_t)expert_id >= c->n_ffn_experts) {
        return moe_fail(err, MOE_ERR_NOT_FOUND,
                        "layer %u expert %d: the checkpoint has layers below %u and FFN experts below %u", layer,
                        expert_id, c->n_layers, c->n_ffn_experts);
    }
    for (int role = MODEL_FIRST_EXPERT_ROLE; role < MODEL_N_ROLES; role++) {
        const checkpoint_logical *tensor = model_tensors_role(t, (model_role)role, layer, (uint32_t)expert_id);

        if (tensor != NULL) {
            idx_out[n++] = (size_t)(tensor - model_tensors_all(t));
        }
    }
    *n_out = n;
    return MOE_OK;
}

moe_status model_expert_open(const model_config *c, const model_tensors *t, compute_device *d, compute_layout layout,
                             uint32_t layer, int32_t expert_id, compute_expert **out, moe_error *err)
{
    compute_weight w[MODEL_MAX_EXPERT_TENSORS];
    size_t idx[MODEL_MAX_EXPERT_TENSORS], n = 0;
    bool has_gate = c->ffn == COMPUTE_FFN_SWIGLU;
    moe_status status = model_expert_tensors(c, t, layer, expert_id, idx, &n, err);

    if (status != MOE_OK) {
        return status;
    }
    MOE_ASSERT(n == (has_gate ? 3 : 2)); /* model_tensors_open has found them all */
    for (size_t i = 0; i < n; i++) {
        model_role role = (model_role)(MODEL_N_ROLES - (int)n + (int)i);
        w[i] = model_tensors_weight(c, role, &model_tensors_all(t)[idx[i]]);
    }
    status = d->ops->expert_open(d, c->ffn, has_gate ? &w[0] : NULL, &w[n - 2], &w[n - 1], layout, out);
    if (status != MOE_OK) {
        char left[MODEL_LEFT_TEXT] = "";

        return moe_fail(err, status, "layer %u expert %d: %s while loading its %zu bytes%s", layer, expert_id,
                        moe_status_text(status), model_expert_bytes(c, t),
                        status == MOE_ERR_NO_MEMORY ? model_left(d, left) : left);
    }
    for (size_t i = 0; i < n && layout == COMPUTE_PACKED; i++) {
        model_tensors_forget(t, &model_tensors_all(t)[idx[i]]);
    }
    return MOE_OK;
}

static compute_weight weight_of(const checkpoint_tensor *t)
{
    return (compute_weight){.data = t->data, .dtype = t->dtype, .n_out = t->shape[0], .n_in = t->shape[1]};
}

moe_status model_expert_open_parts(const model_config *c, const model_expert_parts *parts, compute_device *d,
                                   compute_layout layout, compute_expert **out, moe_error *err)
{
    bool has_gate = c->ffn == COMPUTE_FFN_SWIGLU;
    compute_weight up = weight_of(parts->up), down = weight_of(parts->down),
                   gate = has_gate ? weight_of(parts->gate) : up;
    moe_status status = d->ops->expert_open(d, c->ffn, has_gate ? &gate : NULL, &up, &down, layout, out);

    char left[MODEL_LEFT_TEXT] = "";

    return status == MOE_OK
               ? MOE_OK
               : moe_fail(err, status, "%s: %s while loading the expert%s", parts->up->name, moe_status_text(status),
                          status == MOE_ERR_NO_MEMORY ? model_left(d, left) : left);
}
