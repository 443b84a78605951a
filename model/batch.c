/* The rows of one micro-batch on their way through the layers. The device's ops see the activations; this file only
 * names them.
 *
 * Shapes: R rows, d = d_model, A = n_heads * head_dim, G = n_kv_heads * head_dim, E experts, k picks. */
#include "model/model_priv.h"

#include <stdlib.h>
#include <string.h>

struct model_batch {
    model *m;     /* borrowed */
    model_kv *kv; /* borrowed */
    size_t max_rows, max_logit_rows;

    /* the step */
    const model_row *rows; /* borrowed from begin to the last op */
    size_t n_rows, n_logit_rows;
    uint32_t layer;       /* last routed */
    compute_row *places;  /* owned [max_rows] */
    int32_t *token_ids;   /* owned [max_rows] */
    uint32_t *logit_rows; /* owned [max_logit_rows] */
    bool *failed;         /* owned [max_rows] */

    /* picks of the last routed layer, host */
    int32_t *ids;        /* owned [max_rows, k] */
    float *weights;      /* owned [max_rows, k] */
    compute_pick *picks; /* owned [max_rows, k] */
    float *gate_logits;  /* owned [max_rows, E] */
    float *gate_scratch; /* owned [2 * E] */

    /* device memory, owned */
    compute_mem *x;       /* f32 [R, d]: the residual */
    compute_mem *norm;    /* f32 [R, d] */
    compute_mem *in;      /* class [R, d]: rounded norm */
    compute_mem *q;       /* f32 [R, A], then attention's output */
    compute_mem *k, *v;   /* f32 [R, G] */
    compute_mem *q_class; /* class [R, A]: rounded q, then rounded attention */
    compute_mem *out;     /* f32 [R, d]: O's output */
    compute_mem *router;  /* f32 [R, E] */
    compute_mem *results; /* class [R * k, d] */
    compute_mem *last;    /* f32 [L, d] */
    compute_mem *last_in; /* class [L, d] */
    compute_mem *logits;  /* f32 [L, V] */
};

static bool alloc_host(model_batch *b, const model_config *c)
{
    size_t n = b->max_rows, k = c->gate.k;

    b->places = calloc(n, sizeof *b->places);
    b->token_ids = calloc(n, sizeof *b->token_ids);
    b->logit_rows = calloc(b->max_logit_rows, sizeof *b->logit_rows);
    b->failed = calloc(n, sizeof *b->failed);
    b->ids = calloc(n * k, sizeof *b->ids);
    b->weights = calloc(n * k, sizeof *b->weights);
    b->picks = calloc(n * k, sizeof *b->picks);
    b->gate_logits = calloc(n * c->n_experts, sizeof *b->gate_logits);
    b->gate_scratch = calloc(2 * (size_t)c->n_experts, sizeof *b->gate_scratch);
    return b->places && b->token_ids && b->logit_rows && b->failed && b->ids && b->weights && b->picks &&
           b->gate_logits && b->gate_scratch;
}

static bool alloc_device(model_batch *b, const model_config *c)
{
    compute_device *d = b->m->device;
    size_t cls = compute_dtype_bytes(compute_class_dtype(d->numeric_class));
    size_t n = b->max_rows, width = c->d_model, f = sizeof(float);
    size_t heads = (size_t)c->n_heads * c->head_dim, kv_heads = (size_t)c->n_kv_heads * c->head_dim;
    struct {
        compute_mem **at;
        size_t bytes;
    } all[] = {{&b->x, n * width * f},
               {&b->norm, n * width * f},
               {&b->in, n * width * cls},
               {&b->q, n * heads * f},
               {&b->k, n * kv_heads * f},
               {&b->v, n * kv_heads * f},
               {&b->q_class, n * heads * cls},
               {&b->out, n * width * f},
               {&b->router, n * c->n_experts * f},
               {&b->results, n * c->gate.k * width * cls},
               {&b->last, b->max_logit_rows * width * f},
               {&b->last_in, b->max_logit_rows * width * cls},
               {&b->logits, b->max_logit_rows * c->vocab_size * f}};

    for (size_t i = 0; i < MOE_COUNT(all); i++) {
        if ((*all[i].at = d->ops->alloc(d, all[i].bytes)) == NULL) {
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
    if (!alloc_host(b, &m->config) || !alloc_device(b, &m->config)) {
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
    compute_mem *device[] = {b->x,   b->norm,   b->in,      b->q,    b->k,       b->v,     b->q_class,
                             b->out, b->router, b->results, b->last, b->last_in, b->logits};
    void *host[] = {b->places,  b->token_ids, b->logit_rows,  b->failed,      b->ids,
                    b->weights, b->picks,     b->gate_logits, b->gate_scratch};

    for (size_t i = 0; i < MOE_COUNT(device); i++) {
        b->m->device->ops->free(b->m->device, device[i]);
    }
    for (size_t i = 0; i < MOE_COUNT(host); i++) {
        free(host[i]);
    }
    free(b);
}

void model_batch_begin(model_batch *b, const model_row *rows, size_t n_rows)
{
    compute_device *d = b->m->device;
    const model_config *c = &b->m->config;

    MOE_ASSERT(n_rows <= b->max_rows);
    b->rows = rows;
    b->n_rows = n_rows;
    b->n_logit_rows = 0;
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
    d->ops->embed(d, b->x, b->m->embedding, b->m->embedding_dtype, c->d_model, b->token_ids, n_rows);
}

/* q, k, v of the normed rows: projections, q and k normed over the whole vector, clamped, rotated; K and V go to their
 * pages. */
static void project(model_batch *b, uint32_t layer)
{
    compute_device *d = b->m->device;
    const compute_ops *ops = d->ops;
    const model_config *c = &b->m->config;
    const layer_weights *w = &b->m->layers[layer];
    size_t n = b->n_rows, heads = (size_t)c->n_heads * c->head_dim, kv_heads = (size_t)c->n_kv_heads * c->head_dim;

    ops->rms_norm(d, b->norm, b->in, b->x, c->d_model, w->input_norm, c->norm_eps, c->d_model, n);
    ops->matmul(d, b->q, b->in, w->q, w->q_bias, n);
    ops->matmul(d, b->k, b->in, w->k, w->k_bias, n);
    ops->matmul(d, b->v, b->in, w->v, w->v_bias, n);
    ops->rms_norm(d, b->q, NULL, b->q, heads, w->q_norm, c->norm_eps, heads, n);
    ops->rms_norm(d, b->k, NULL, b->k, kv_heads, w->k_norm, c->norm_eps, kv_heads, n);
    if (c->clip_qkv) {
        ops->clamp(d, b->q, c->clip_qkv_bound, n * heads);
        ops->clamp(d, b->k, c->clip_qkv_bound, n * kv_heads);
        ops->clamp(d, b->v, c->clip_qkv_bound, n * kv_heads);
    }
    ops->rope(d, b->q, b->m->rope, c->n_heads, c->head_dim, b->places, n);
    ops->rope(d, b->k, b->m->rope, c->n_kv_heads, c->head_dim, b->places, n);
    ops->kv_store(d, model_kv_memory(b->kv), model_kv_shape(b->kv), layer, b->k, b->v, b->places, n);
    ops->to_class(d, b->q_class, b->q, n * heads);
}

static void attend(model_batch *b, uint32_t layer)
{
    compute_device *d = b->m->device;
    const compute_ops *ops = d->ops;
    const model_config *c = &b->m->config;
    const layer_weights *w = &b->m->layers[layer];
    size_t n = b->n_rows, heads = (size_t)c->n_heads * c->head_dim;

    ops->attention(d, b->q, b->q_class, model_kv_memory(b->kv), model_kv_shape(b->kv), layer, c->n_heads, b->places, n);
    ops->to_class(d, b->q_class, b->q, n * heads);
    ops->matmul(d, b->out, b->q_class, w->o, w->o_bias, n);
    ops->add(d, b->x, b->out, n * c->d_model);
}

/* A row whose logits are NaN has failed; it gets harmless picks so that the rows beside it go on. */
static void fail_row(model_batch *b, size_t row, const router_set_layer *layer)
{
    size_t k = b->m->config.gate.k;

    b->failed[row] = true;
    for (size_t j = 0; j < k; j++) {
        b->ids[row * k + j] = layer->expert_ids[j];
        b->weights[row * k + j] = 0.0f;
    }
}

static void gate(model_batch *b, uint32_t layer)
{
    const model_config *c = &b->m->config;
    size_t k = c->gate.k;

    for (size_t i = 0; i < b->n_rows; i++) {
        const router_set_layer *set = router_set_at(b->rows[i].set, layer);
        if (b->failed[i] || router_gate_select(&c->gate, set, b->gate_logits + i * c->n_experts, b->ids + i * k,
                                               b->weights + i * k, NULL, b->gate_scratch) != MOE_OK) {
            fail_row(b, i, set);
        }
    }
}

moe_status model_batch_route(model_batch *b, uint32_t layer)
{
    compute_device *d = b->m->device;
    const model_config *c = &b->m->config;
    const layer_weights *w = &b->m->layers[layer];
    moe_status status;

    b->layer = layer;
    project(b, layer);
    attend(b, layer);
    d->ops->rms_norm(d, b->norm, b->in, b->x, c->d_model, w->post_norm, c->norm_eps, c->d_model, b->n_rows);
    d->ops->matmul_f32(d, b->router, b->norm, w->router, NULL, b->n_rows);
    status = d->ops->download(d, b->gate_logits, b->router, b->n_rows * c->n_experts * sizeof(float));
    if (status == MOE_OK) {
        gate(b, layer);
    }
    return status;
}

void model_batch_combine(model_batch *b)
{
    compute_device *d = b->m->device;
    size_t k = b->m->config.gate.k;

    for (size_t i = 0; i < b->n_rows * k; i++) {
        b->picks[i] = (compute_pick){.weight = b->weights[i], .result_row = (uint32_t)i};
    }
    d->ops->combine(d, b->x, b->results, compute_class_dtype(d->numeric_class), b->picks, NULL, k,
                    b->m->config.d_model, b->n_rows);
}

moe_status model_batch_logits(model_batch *b, float *out)
{
    compute_device *d = b->m->device;
    const model_config *c = &b->m->config;
    size_t n = b->n_logit_rows;

    if (n == 0) {
        return d->ops->sync(d);
    }
    d->ops->gather(d, b->last, b->x, b->logit_rows, c->d_model, n);
    d->ops->rms_norm(d, b->last, b->last_in, b->last, c->d_model, b->m->final_norm, c->norm_eps, c->d_model, n);
    d->ops->matmul(d, b->logits, b->last_in, b->m->head, NULL, n);
    return d->ops->download(d, out, b->logits, n * c->vocab_size * sizeof(float));
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
    return b->ids;
}

const float *model_batch_weights(const model_batch *b)
{
    return b->weights;
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
