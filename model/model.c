/* Opening the coordinator's part of a checkpoint: every tensor but the experts, prepared for the device. */
#include "model/model_priv.h"

#include "model/family/family_priv.h"

#include <stdlib.h>
#include <string.h>

/* What is being loaded, carried through the little loaders below; the first failure sticks. */
typedef struct loader {
    model *m;
    const model_tensors *tensors;
    compute_layout layout;
    checkpoint_progress progress;
    void *progress_ctx;
    size_t done, total;
    moe_status status;
    moe_error *err;
} loader;

static const checkpoint_logical *find(loader *l, model_role role, uint32_t layer)
{
    char name[CHECKPOINT_MAX_NAME];
    const checkpoint_logical *t;

    l->m->config.family->tensor_name(role, layer, 0, name);
    t = model_tensors_find(l->tensors, name);
    MOE_ASSERT(t != NULL); /* model_tensors_open has checked the whole set */
    return t;
}

static void advance(loader *l, const checkpoint_logical *t)
{
    l->done += t->bytes;
    if (l->progress != NULL) {
        l->progress(l->progress_ctx, l->done, l->total);
    }
}

static void fail(loader *l, moe_status status, const checkpoint_logical *t)
{
    if (l->status == MOE_OK) {
        l->status =
            moe_fail(l->err, status, "%s: %s while loading %zu bytes", t->name, moe_status_text(status), t->bytes);
    }
}

static compute_mem *load_raw(loader *l, const void *data, size_t bytes, const checkpoint_logical *t)
{
    compute_mem *mem = l->m->device->ops->alloc(l->m->device, bytes);

    if (mem == NULL) {
        fail(l, MOE_ERR_NO_MEMORY, t);
        return NULL;
    }
    l->m->device->ops->upload(l->m->device, mem, data, bytes);
    return mem;
}

/* A vector, widened to f32. */
static compute_mem *load_vector(loader *l, model_role role, uint32_t layer)
{
    const checkpoint_logical *t = find(l, role, layer);
    size_t n = t->bytes / compute_dtype_bytes(t->dtype);
    float *wide = malloc(n * sizeof *wide);
    compute_mem *mem = NULL;

    if (wide == NULL) {
        fail(l, MOE_ERR_NO_MEMORY, t);
        return NULL;
    }
    for (size_t i = 0; i < n; i++) {
        uint16_t half;
        if (t->dtype == COMPUTE_F32) {
            memcpy(&wide[i], t->data + i * sizeof wide[i], sizeof wide[i]);
        } else {
            memcpy(&half, t->data + i * sizeof half, sizeof half);
            wide[i] = t->dtype == COMPUTE_BF16 ? compute_f32_from_bf16(half) : compute_f32_from_f16(half);
        }
    }
    mem = load_raw(l, wide, n * sizeof *wide, t);
    free(wide);
    advance(l, t);
    return mem;
}

static compute_weight weight_of(const checkpoint_logical *t)
{
    return (compute_weight){.data = t->data, .dtype = t->dtype, .n_out = t->shape[0], .n_in = t->shape[1]};
}

static compute_matrix *load_matrix(loader *l, model_role role, uint32_t layer)
{
    const checkpoint_logical *t = find(l, role, layer);
    compute_weight w = weight_of(t);
    compute_matrix *matrix = NULL;
    moe_status status = role == MODEL_ROLE_ROUTER
                            ? l->m->device->ops->matrix_open_f32(l->m->device, &w, &matrix)
                            : l->m->device->ops->matrix_open(l->m->device, &w, l->layout, &matrix);

    if (status != MOE_OK) {
        fail(l, status, t);
        return NULL;
    }
    l->m->bytes += t->bytes;
    advance(l, t);
    return matrix;
}

static void load_layer(loader *l, uint32_t layer)
{
    layer_weights *w = &l->m->layers[layer];
    const model_config *c = &l->m->config;

    w->input_norm = load_vector(l, MODEL_ROLE_INPUT_NORM, layer);
    w->post_norm = load_vector(l, MODEL_ROLE_POST_NORM, layer);
    w->q_norm = load_vector(l, MODEL_ROLE_Q_NORM, layer);
    w->k_norm = load_vector(l, MODEL_ROLE_K_NORM, layer);
    w->q = load_matrix(l, MODEL_ROLE_Q, layer);
    w->k = load_matrix(l, MODEL_ROLE_K, layer);
    w->v = load_matrix(l, MODEL_ROLE_V, layer);
    w->o = load_matrix(l, MODEL_ROLE_O, layer);
    if (c->attention_bias) {
        w->q_bias = load_vector(l, MODEL_ROLE_Q_BIAS, layer);
        w->k_bias = load_vector(l, MODEL_ROLE_K_BIAS, layer);
        w->v_bias = load_vector(l, MODEL_ROLE_V_BIAS, layer);
        w->o_bias = load_vector(l, MODEL_ROLE_O_BIAS, layer);
    }
    w->router = load_matrix(l, MODEL_ROLE_ROUTER, layer);
}

static void load_embedding(loader *l)
{
    model *m = l->m;
    const checkpoint_logical *t = find(l, MODEL_ROLE_EMBED, 0);
    compute_weight head = weight_of(t);
    moe_status status;

    m->embedding_dtype = t->dtype;
    m->embedding = load_raw(l, t->data, t->bytes, t);
    advance(l, t);
    if (!m->config.tied_head) {
        m->head = load_matrix(l, MODEL_ROLE_HEAD, 0);
        return;
    }
    status = m->device->ops->matrix_open(m->device, &head, l->layout, &m->head);
    if (status != MOE_OK) {
        fail(l, status, t);
    }
    m->bytes += t->bytes;
}

static void load_rope(loader *l)
{
    model *m = l->m;
    size_t n = m->max_context * m->config.head_dim;
    float *table = malloc(n * sizeof *table);

    if (table != NULL) {
        compute_rope_table(table, m->max_context, m->config.head_dim, m->config.rope_theta, 1.0);
        m->rope = m->device->ops->alloc(m->device, n * sizeof *table);
    }
    if (m->rope != NULL) {
        m->device->ops->upload(m->device, m->rope, table, n * sizeof *table);
    } else if (l->status == MOE_OK) {
        l->status = moe_fail(l->err, MOE_ERR_NO_MEMORY, "rope table of %zu positions: out of memory", m->max_context);
    }
    free(table);
}

moe_status model_open(const model_config *c, const model_tensors *t, compute_device *d, compute_layout layout,
                      size_t max_context, checkpoint_progress progress, void *progress_ctx, model **out, moe_error *err)
{
    model *m = calloc(1, sizeof *m);
    loader l = {.m = m, .tensors = t, .layout = layout, .progress = progress, .progress_ctx = progress_ctx, .err = err};

    if (m == NULL || (m->layers = calloc(c->n_layers, sizeof *m->layers)) == NULL) {
        free(m);
        return moe_fail(err, MOE_ERR_NO_MEMORY, "model: out of memory");
    }
    m->config = *c;
    m->device = d;
    m->max_context = max_context;
    for (size_t i = 0; i < model_tensors_count(t); i++) {
        l.total += model_tensors_all(t)[i].bytes;
    }
    l.total -= model_expert_bytes(c, t) * c->n_experts * c->n_layers;
    load_embedding(&l);
    for (uint32_t layer = 0; layer < c->n_layers && l.status == MOE_OK; layer++) {
        load_layer(&l, layer);
    }
    if (l.status == MOE_OK) {
        m->final_norm = load_vector(&l, MODEL_ROLE_FINAL_NORM, 0);
        load_rope(&l);
    }
    if (l.status != MOE_OK) {
        model_close(m);
        return l.status;
    }
    *out = m;
    return MOE_OK;
}

static void close_layer(compute_device *d, layer_weights *w)
{
    compute_mem *vectors[] = {w->input_norm, w->post_norm, w->q_norm, w->k_norm,
                              w->q_bias,     w->k_bias,    w->v_bias, w->o_bias};
    compute_matrix *matrices[] = {w->q, w->k, w->v, w->o, w->router};

    for (size_t i = 0; i < MOE_COUNT(vectors); i++) {
        d->ops->free(d, vectors[i]);
    }
    for (size_t i = 0; i < MOE_COUNT(matrices); i++) {
        d->ops->matrix_close(d, matrices[i]);
    }
}

void model_close(model *m)
{
    if (m == NULL) {
        return;
    }
    for (uint32_t layer = 0; layer < m->config.n_layers; layer++) {
        close_layer(m->device, &m->layers[layer]);
    }
    m->device->ops->free(m->device, m->embedding);
    m->device->ops->free(m->device, m->final_norm);
    m->device->ops->free(m->device, m->rope);
    m->device->ops->matrix_close(m->device, m->head);
    free(m->layers);
    free(m);
}

const model_config *model_get_config(const model *m)
{
    return &m->config;
}

size_t model_coordinator_bytes(const model *m)
{
    return m->bytes;
}

compute_device *model_device(const model *m)
{
    return m->device;
}
