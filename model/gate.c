/* The gate of a layer: router logits, picks, what the next layer's gate reads of them. */
#include "model/model_priv.h"

/* A linear gate, or two layers with what stands between them. */
static void run_gate(model_batch *b, const gate_weights *w)
{
    compute_device *d = b->m->device;
    const compute_ops *ops = d->ops;
    const model_config *c = &b->m->config;
    size_t n = b->n_rows;

    if (w->inner == NULL) {
        ops->matmul_f32(d, b->room->router, b->norm, w->out, NULL, n);
        return;
    }
    ops->matmul_f32(d, b->inner, b->norm, w->inner, w->bias, n);
    switch (c->gate_kind) {
    case MODEL_GATE_GELU:
        ops->activate(d, b->inner, COMPUTE_ACT_GELU_ERF, n * c->gate_width);
        break;
    case MODEL_GATE_TANH:
        ops->activate(d, b->inner, COMPUTE_ACT_TANH, n * c->gate_width);
        break;
    default:
        ops->unit_norm(d, b->inner, c->gate_width, n);
        break;
    }
    ops->matmul_f32(d, b->room->router, b->inner, w->out, NULL, n);
}

compute_ticket model_gate_logits(model_batch *b, const gate_weights *w, uint32_t n_experts)
{
    compute_device *d = b->m->device;
    size_t n = b->n_rows;

    run_gate(b, w);
    if (w->map != NULL) {
        d->ops->matmul_f32(d, b->room->mapped, b->room->before, w->map, NULL, n);
        d->ops->add(d, b->room->router, b->room->mapped, n * n_experts);
    }
    return d->ops->gather_out(d, b->room->gate_logits, b->room->router, NULL, n_experts * sizeof(float), n);
}

/* What an expert outside a row's set would have got does not reach the next layer: its column counts as zero there. */
static void mask_absent(model_batch *b, uint32_t layer)
{
    compute_device *d = b->m->device;
    uint32_t n_columns = b->room->gates->layers[layer].n_columns;
    bool any = false;

    for (size_t i = 0; i < b->n_rows; i++) {
        const router_set_layer *set = router_set_at(b->rows[i].set, layer);
        float *logits = b->room->gate_logits + i * n_columns;
        uint32_t at = 0;

        if (set->n_experts == n_columns && set->columns[n_columns - 1] == n_columns - 1) {
            continue; /* all columns: they ascend */
        }
        any = true;
        for (uint32_t column = 0; column < n_columns; column++) {
            if (at < set->n_experts && set->columns[at] == column) {
                at++;
            } else {
                logits[column] = 0.0f;
            }
        }
    }
    if (any) {
        d->ops->upload(d, b->room->before, b->room->gate_logits, b->n_rows * n_columns * sizeof(float));
    }
}

/* This layer's logits stay for the next one. */
static void carry(model_batch *b, uint32_t layer)
{
    model_room *room = b->room;
    compute_mem *router = room->router;

    room->router = room->before;
    room->before = router;
    mask_absent(b, layer);
}

compute_ticket model_gate_begin(model_batch *b, uint32_t layer)
{
    const gate_layer *gate = &b->room->gates->layers[layer];

    return model_gate_logits(b, &gate->w, gate->n_columns);
}

void model_gate_pick(model_batch *b, uint32_t layer)
{
    const model_config *c = &b->m->config;
    compute_device *d = b->m->device;
    const gate_layer *gate = &b->room->gates->layers[layer];
    size_t k = c->gate.k;

    for (size_t i = 0; i < b->n_rows; i++) {
        const router_set_layer *set = router_set_at(b->rows[i].set, layer);
        if (b->failed[i] ||
            router_gate_select(&c->gate, set, b->room->gate_logits + i * gate->n_columns, b->experts.ids + i * k,
                               b->experts.weights + i * k, b->room->gate_scratch) != MOE_OK) {
            model_batch_fail(b, i, set, c->gate.k, &b->experts);
        }
    }
    for (size_t i = 0; i < b->n_rows * k; i++) {
        int32_t id = b->experts.ids[i];
        b->remote_ids[i] = model_expert_is_local(c, id) ? -1 : id;
    }
    if (c->gate_map) {
        carry(b, layer);
    }
    if (c->double_input) { /* after the router has read the row */
        d->ops->add(d, b->norm, b->norm, b->n_rows * c->d_model);
        d->ops->to_class(d, b->in, b->norm, b->n_rows * c->d_model);
    }
}
