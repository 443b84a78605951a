/* The rows of one micro-batch on their way through the layers. The device's ops see the activations; this file only
 * names them. */
#include "model/model_priv.h"

#include <stdlib.h>

static size_t att_picks(const model_config *c)
{
    return MOE_MAX(c->att_gate.k, 1);
}

static bool alloc_picks(row_picks *p, size_t n)
{
    p->ids = calloc(n, sizeof *p->ids);
    p->weights = calloc(n, sizeof *p->weights);
    p->picks = calloc(n, sizeof *p->picks);
    return p->ids && p->weights && p->picks;
}

static bool alloc_host(model_batch *b, const model_config *c)
{
    size_t n = b->max_rows, k = c->gate.k, most = n * MOE_MAX(k, att_picks(c));

    b->places = calloc(n, sizeof *b->places);
    b->token_ids = calloc(n, sizeof *b->token_ids);
    b->logit_rows = calloc(b->max_logit_rows, sizeof *b->logit_rows);
    b->failed = calloc(n, sizeof *b->failed);
    b->remote_ids = calloc(n * k, sizeof *b->remote_ids);
    b->n_picks = calloc(n, sizeof *b->n_picks);
    b->from_rows = calloc(most, sizeof *b->from_rows);
    b->pick_rows = calloc(most, sizeof *b->pick_rows);
    return alloc_picks(&b->experts, n * k) && alloc_picks(&b->att_experts, n * att_picks(c)) && b->places &&
           b->token_ids && b->logit_rows && b->failed && b->remote_ids && b->n_picks && b->from_rows && b->pick_rows;
}

static bool alloc_device(model_batch *b, const model_config *c)
{
    compute_device *d = b->m->device;
    size_t cls = compute_dtype_bytes(compute_class_dtype(d->numeric_class));
    size_t n = b->max_rows, width = c->d_model, f = sizeof(float), a = att_picks(c);
    size_t heads = (size_t)c->n_heads * c->head_dim, kv_heads = (size_t)c->n_kv_heads * c->head_dim;
    struct {
        compute_mem **at;
        size_t bytes;
    } all[] = {{&b->x, n * width * f},
               {&b->norm, n * width * f},
               {&b->in, n * width * cls},
               {&b->q, n * a * heads * f},
               {&b->k, n * kv_heads * f},
               {&b->v, n * kv_heads * f},
               {&b->q_class, n * a * heads * cls},
               {&b->out, n * a * width * f},
               {&b->inner, n * c->gate_width * f},
               {&b->results, n * c->gate.k * width * cls},
               {&b->last, b->max_logit_rows * width * f},
               {&b->last_in, b->max_logit_rows * width * cls},
               {&b->logits, b->max_logit_rows * model_head_width(c) * f}};

    for (size_t i = 0; i < MOE_COUNT(all); i++) {
        if (all[i].bytes > 0 && (*all[i].at = d->ops->alloc(d, all[i].bytes)) == NULL) {
            return false;
        }
    }
    return true;
}

moe_status model_batch_open(model *m, model_kv *kv, size_t max_rows, size_t max_logit_rows, model_batch **out)
{
    model_batch *b = calloc(1, sizeof *b);

    if (b == NULL) {
        return MOE_ERR_NO_MEMORY;
    }
    b->m = m;
    b->kv = kv;
    b->max_rows = max_rows;
    b->max_logit_rows = max_logit_rows;
    if (!alloc_host(b, &m->config) || !alloc_device(b, &m->config) ||
        m->device->ops->step_open(m->device, max_rows, MODEL_KV_PAGE_TOKENS, &b->step) != MOE_OK ||
        model_room_open(m, m->gates, max_rows, &b->room) != MOE_OK) {
        model_batch_close(b);
        return MOE_ERR_NO_MEMORY;
    }
    *out = b;
    return MOE_OK;
}

void model_batch_close(model_batch *b)
{
    if (b == NULL) {
        return;
    }
    compute_mem *device[] = {b->x,   b->norm,  b->in,      b->q,    b->k,       b->v,     b->q_class,
                             b->out, b->inner, b->results, b->last, b->last_in, b->logits};
    void *host[] = {
        b->places,        b->token_ids,       b->logit_rows,          b->failed,           b->remote_ids,
        b->n_picks,       b->from_rows,       b->pick_rows,           b->experts.ids,      b->experts.weights,
        b->experts.picks, b->att_experts.ids, b->att_experts.weights, b->att_experts.picks};

    for (size_t i = 0; i < MOE_COUNT(device); i++) {
        b->m->device->ops->free(b->m->device, device[i]);
    }
    for (size_t i = 0; i < MOE_COUNT(host); i++) {
        free(host[i]);
    }
    b->m->device->ops->step_close(b->m->device, b->step);
    model_room_close(b->room);
    free(b);
}

model_room *model_batch_move(model_batch *b, model_room *r)
{
    model_room *old = b->room;

    MOE_ASSERT(r->max_rows >= b->max_rows);
    b->room = r;
    return old;
}

void model_batch_begin(model_batch *b, const model_row *rows, size_t n_rows)
{
    compute_device *d = b->m->device;
    const model_config *c = &b->m->config;

    MOE_ASSERT(n_rows <= b->max_rows);
    b->rows = rows;
    b->n_rows = n_rows;
    b->n_logit_rows = 0;
    b->routing = b->reading = false;
    for (size_t i = 0; i < n_rows; i++) {
        MOE_ASSERT(rows[i].position < b->m->max_context && rows[i].token_id >= 0 &&
                   (uint32_t)rows[i].token_id < c->vocab_size);
        b->places[i] = (compute_row){.pages = rows[i].pages, .position = rows[i].position};
        b->token_ids[i] = rows[i].token_id;
        b->failed[i] = false;
        if (rows[i].want_logits) {
            MOE_ASSERT(b->n_logit_rows < b->max_logit_rows);
            b->logit_rows[b->n_logit_rows++] = (uint32_t)i;
        }
    }
    model_attention_mark(b);
    d->ops->step_begin(d, b->step, b->places, n_rows);
    d->ops->embed(d, b->x, b->m->embedding, b->m->embedding_dtype, c->d_model, b->token_ids, n_rows);
}

static void norm(model_batch *b, compute_mem *out, compute_mem *rounded, const compute_mem *x, const norm_weights *w,
                 size_t n)
{
    compute_device *d = b->m->device;
    const model_config *c = &b->m->config;

    if (c->norm == MODEL_NORM_LAYER) {
        d->ops->layer_norm(d, out, rounded, x, w->gain, w->bias, c->norm_eps, c->d_model, n);
    } else {
        d->ops->rms_norm(d, out, rounded, x, c->d_model, w->gain, c->norm_eps, c->d_model, n);
    }
}

void model_batch_norm(model_batch *b, const norm_weights *w)
{
    norm(b, b->norm, b->in, b->x, w, b->n_rows);
}

void model_batch_fail(model_batch *b, size_t row, const router_set_layer *set, uint32_t k, const row_picks *out)
{
    b->failed[row] = true;
    for (size_t j = 0; j < k; j++) {
        out->ids[row * k + j] = set->expert_ids[j];
        out->weights[row * k + j] = 0.0f;
    }
}

/* Attention and the norm behind it. Without attention experts these are the same ops whenever there are as many rows: all that
 * differs stands in the step. */
static moe_status attend(model_batch *b, uint32_t layer)
{
    compute_device *d = b->m->device;
    bool stretch = b->m->config.n_att_experts == 0 && d->ops->stretch_begin != NULL;

    if (stretch && d->ops->stretch_begin(d, b->step, layer)) {
        return MOE_OK;
    }
    do {
        moe_status status = model_attend(b, layer);

        if (status != MOE_OK) {
            return status;
        }
        model_batch_norm(b, &b->m->layers[layer].post_norm);
    } while (stretch && !d->ops->stretch_end(d));
    return MOE_OK;
}

moe_status model_batch_route(model_batch *b, uint32_t layer)
{
    compute_device *d = b->m->device;
    moe_status status;

    if (!b->routing) {
        status = attend(b, layer);
        b->layer = layer;
        if (status != MOE_OK) {
            return status;
        }
        b->arrives = model_gate_begin(b, layer);
    }
    status = d->ops->reached(d, b->arrives);
    b->routing = status == MOE_ERR_BUSY;
    if (status == MOE_OK) {
        model_gate_pick(b, layer);
    }
    return status;
}

void model_batch_combine(model_batch *b)
{
    compute_device *d = b->m->device;
    const model_config *c = &b->m->config;
    size_t k = c->gate.k;

    for (size_t i = 0; i < b->n_rows; i++) {
        b->n_picks[i] = 0;
        for (size_t j = i * k; j < (i + 1) * k; j++) {
            if (model_expert_kind_of(c, b->experts.ids[j]) != MODEL_EXPERT_ZERO) {
                b->experts.picks[i * k + b->n_picks[i]++] =
                    (compute_pick){.weight = b->experts.weights[j], .result_row = (uint32_t)j};
            }
        }
    }
    d->ops->combine(d, b->x, b->results, compute_class_dtype(d->numeric_class), b->experts.picks, b->n_picks, k,
                    c->d_model, b->n_rows);
}

moe_status model_batch_logits(model_batch *b, float *out)
{
    compute_device *d = b->m->device;
    const model_config *c = &b->m->config;
    size_t n = b->n_logit_rows;

    if (!b->reading && n > 0) {
        d->ops->gather(d, b->last, b->x, b->logit_rows, c->d_model, n);
        norm(b, b->last, b->last_in, b->last, &b->m->final_norm, n);
        d->ops->matmul(d, b->logits, b->last_in, b->m->head, NULL, n);
        b->arrives = d->ops->gather_out(d, out, b->logits, NULL, model_head_width(c) * sizeof(float), n);
    }
    /* Without logits the ticket is the last gate's, and tells whether the device has failed. */
    moe_status status = d->ops->reached(d, b->arrives);
    b->reading = status == MOE_ERR_BUSY;
    return status;
}

size_t model_batch_n_rows(const model_batch *b)
{
    return b->n_rows;
}

uint32_t model_batch_layer(const model_batch *b)
{
    return b->layer;
}

const int32_t *model_batch_ids(const model_batch *b)
{
    return b->experts.ids;
}

const float *model_batch_weights(const model_batch *b)
{
    return b->experts.weights;
}

const int32_t *model_batch_remote_ids(const model_batch *b)
{
    return b->remote_ids;
}

const compute_mem *model_batch_x(const model_batch *b)
{
    return b->in;
}

compute_mem *model_batch_results(model_batch *b)
{
    return b->results;
}

bool model_batch_failed(const model_batch *b, size_t row)
{
    return b->failed[row];
}
