/* The attention half of a layer: softmax attention with one q and o for all rows, or stick-breaking attention with
 * attention experts, whose q and o a gate picks per row and whose keys and values all share. */
#include "model/model_priv.h"

#include <string.h>

static size_t kv_width(const model_config *c)
{
    return (size_t)c->n_kv_heads * c->head_dim;
}

static void norm_heads(model_batch *b, compute_mem *x, const compute_mem *gain, uint32_t n_heads)
{
    const model_config *c = &b->m->config;
    compute_device *d = b->m->device;
    bool per_head = c->qk_norm == MODEL_QK_NORM_PER_HEAD;
    size_t width = (per_head ? 1 : n_heads) * (size_t)c->head_dim;

    if (gain != NULL) {
        d->ops->rms_norm(d, x, NULL, x, width, gain, c->norm_eps, width, b->n_rows * (per_head ? n_heads : 1));
    }
}

static void project_kv(model_batch *b, const layer_weights *w)
{
    compute_device *d = b->m->device;
    const model_config *c = &b->m->config;
    size_t n = b->n_rows;

    d->ops->matmul(d, b->k, b->in, w->k, w->k_bias, n);
    d->ops->matmul(d, b->v, b->in, w->v, w->v_bias, n);
    norm_heads(b, b->k, w->k_norm, c->n_kv_heads);
    if (c->clip_qkv) {
        d->ops->clamp(d, b->k, c->clip_qkv_bound, n * kv_width(c));
        d->ops->clamp(d, b->v, c->clip_qkv_bound, n * kv_width(c));
    }
    if (!c->no_positions) {
        d->ops->rope(d, b->k, b->m->rope, c->n_kv_heads, c->head_dim, b->step);
    }
}

static void project_q(model_batch *b, const layer_weights *w)
{
    compute_device *d = b->m->device;
    const model_config *c = &b->m->config;
    size_t n = b->n_rows;

    d->ops->matmul(d, b->q, b->in, w->q, w->q_bias, n);
    norm_heads(b, b->q, w->q_norm, c->n_heads);
    if (c->clip_qkv) {
        d->ops->clamp(d, b->q, c->clip_qkv_bound, n * c->n_heads * c->head_dim);
    }
    if (!c->no_positions) {
        d->ops->rope(d, b->q, b->m->rope, c->n_heads, c->head_dim, b->step);
    }
}

/* The picks of the attention experts, and the rows of each: pick j of row i is row i * a + j of q. */
static moe_status pick_experts(model_batch *b, uint32_t layer, const attention_experts *experts)
{
    const model_config *c = &b->m->config;
    compute_device *d = b->m->device;
    router_set_layer choice = {.n_experts = 0};
    uint32_t a = c->att_gate.k;
    /* Waits: the micro-batch after this one reads keys and values, which are stored when the picks are there. */
    moe_status status = d->ops->wait(d, model_gate_logits(b, &experts->gate, experts->n));

    if (status != MOE_OK) {
        return status;
    }
    for (size_t i = 0; i < b->n_rows; i++) {
        model_attention_choose(b, layer, i, &choice);
        if (b->failed[i] ||
            router_gate_select(&c->att_gate, &choice, b->room->gate_logits + i * experts->n, b->att_experts.ids + i * a,
                               b->att_experts.weights + i * a, b->room->gate_scratch) != MOE_OK) {
            model_batch_fail(b, i, &choice, a, &b->att_experts);
        }
        for (size_t j = i * a; j < (i + 1) * a; j++) {
            b->att_experts.picks[j] = (compute_pick){.weight = b->att_experts.weights[j], .result_row = (uint32_t)j};
        }
    }
    return MOE_OK;
}

/* Sorts the picks by expert: from_rows are rows of x, pick_rows rows of q, an expert's picks
 * group_ends[e - 1] and on. */
static void sort_picks(model_batch *b, uint32_t n_experts)
{
    size_t a = b->m->config.att_gate.k, n = b->n_rows * a;
    uint32_t *ends = b->room->group_ends, start = 0;

    memset(ends, 0, n_experts * sizeof *ends);
    for (size_t i = 0; i < n; i++) {
        ends[b->att_experts.ids[i]]++;
    }
    for (uint32_t e = 0; e < n_experts; e++) {
        uint32_t count = ends[e];
        ends[e] = start; /* for now where the next pick goes */
        start += count;
    }
    for (size_t i = 0; i < n; i++) {
        uint32_t at = ends[b->att_experts.ids[i]]++;
        b->from_rows[at] = (uint32_t)(i / a);
        b->pick_rows[at] = (uint32_t)i;
    }
}

/* The sorted picks as products of rows with their experts' matrices. Returns their number. */
static size_t route_picks(model_batch *b, compute_matrix *const *matrices, uint32_t n_experts, const uint32_t *rows)
{
    const uint32_t *ends = b->room->group_ends;
    size_t n_groups = 0;

    for (uint32_t e = 0; e < n_experts; e++) {
        uint32_t start = e == 0 ? 0 : ends[e - 1];
        if (ends[e] > start) {
            b->room->routed[n_groups++] = (compute_routed){
                .w = matrices[e], .rows = rows + start, .out_rows = b->pick_rows + start, .n_rows = ends[e] - start};
        }
    }
    return n_groups;
}

static moe_status attend_with_experts(model_batch *b, uint32_t layer)
{
    compute_device *d = b->m->device;
    const compute_ops *ops = d->ops;
    const model_config *c = &b->m->config;
    const attention_experts *experts = &b->room->gates->layers[layer].att;
    size_t n = b->n_rows, a = c->att_gate.k, width = (size_t)c->n_heads * c->head_dim;
    moe_status status = pick_experts(b, layer, experts);

    if (status != MOE_OK) {
        return status;
    }
    sort_picks(b, experts->n);
    ops->matmul_routed(d, b->q, b->in, b->room->routed, route_picks(b, experts->q, experts->n, b->from_rows));
    ops->kv_store(d, model_kv_memory(b->kv), model_kv_shape(b->kv), layer, c->shared_kv ? b->norm : b->k,
                  c->shared_kv ? NULL : b->v, b->step);
    ops->to_class(d, b->q_class, b->q, n * a * width);
    ops->stick_attention(d, b->q, b->q_class, model_kv_memory(b->kv), model_kv_shape(b->kv), layer, a * c->n_heads,
                         b->step);
    ops->to_class(d, b->q_class, b->q, n * a * width);
    ops->matmul_routed(d, b->out, b->q_class, b->room->routed, route_picks(b, experts->o, experts->n, b->pick_rows));
    ops->combine(d, b->x, b->out, COMPUTE_F32, b->att_experts.picks, NULL, a, c->d_model, n);
    return MOE_OK;
}

static void attend_plainly(model_batch *b, uint32_t layer)
{
    compute_device *d = b->m->device;
    const compute_ops *ops = d->ops;
    const model_config *c = &b->m->config;
    const layer_weights *w = &b->m->layers[layer];
    size_t n = b->n_rows, width = (size_t)c->n_heads * c->head_dim;

    project_q(b, w);
    ops->kv_store(d, model_kv_memory(b->kv), model_kv_shape(b->kv), layer, b->k, b->v, b->step);
    ops->to_class(d, b->q_class, b->q, n * width);
    ops->attention(d, b->q, b->q_class, model_kv_memory(b->kv), model_kv_shape(b->kv), layer, c->n_heads, b->step);
    ops->to_class(d, b->q_class, b->q, n * width);
    ops->matmul(d, b->out, b->q_class, w->o, w->o_bias, n);
    ops->add(d, b->x, b->out, n * c->d_model);
}

moe_status model_attend(model_batch *b, uint32_t layer)
{
    const model_config *c = &b->m->config;
    const layer_weights *w = &b->m->layers[layer];

    model_batch_norm(b, &w->input_norm);
    if (!c->shared_kv) {
        project_kv(b, w);
    }
    if (c->n_att_experts > 0) {
        return attend_with_experts(b, layer);
    }
    attend_plainly(b, layer);
    return MOE_OK;
}
