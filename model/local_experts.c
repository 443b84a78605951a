/* The experts that cost too little to be sent anywhere: constant, copy and zero. */
#include "model/model_priv.h"

/* The picks of one expert: their rows, and where their results go. */
static size_t collect(model_batch *b, int32_t expert_id)
{
    size_t k = b->m->config.gate.k, n = 0;

    for (size_t i = 0; i < b->n_rows * k; i++) {
        if (b->experts.ids[i] == expert_id) {
            b->from_rows[n] = (uint32_t)(i / k);
            b->pick_rows[n++] = (uint32_t)i;
        }
    }
    return n;
}

void model_batch_local(model_batch *b)
{
    const model_config *c = &b->m->config;
    compute_device *d = b->m->device;
    const layer_weights *w = &b->m->layers[b->layer];

    for (uint32_t id = c->n_ffn_experts; id < c->n_experts; id++) {
        model_expert_kind kind = model_expert_kind_of(c, (int32_t)id);
        const constant_weights *own = kind == MODEL_EXPERT_CONSTANT ? &w->constants[id - c->n_ffn_experts] : NULL;
        size_t n = kind == MODEL_EXPERT_ZERO ? 0 : collect(b, (int32_t)id);

        if (n > 0) {
            d->ops->local_expert(d, b->results, b->in, own == NULL ? NULL : own->gate, own == NULL ? NULL : own->value,
                                 b->from_rows, b->pick_rows, n, c->d_model);
        }
    }
}
