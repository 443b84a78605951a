/* Opening the coordinator's part of a checkpoint: every tensor but the experts, prepared for the device. */
#include "model/model_priv.h"

#include "compute/math.h"
#include "model/family/family.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define NO_EXPERT UINT32_MAX /* a tensor of the layer, which every step reads */

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

/* NULL when the config has no such tensor. */
static const checkpoint_logical *find(const loader *l, model_role role, uint32_t layer, uint32_t expert)
{
    return model_tensors_role(l->tensors, role, layer, expert);
}

/* The device has its copy; what it reads from the mapped file stays. */
static void forget(const loader *l, const checkpoint_logical *t)
{
    if (l->layout == COMPUTE_PACKED) {
        model_tensors_forget(l->tensors, t);
    }
}

static void advance(loader *l, const checkpoint_logical *t)
{
    forget(l, t);
    l->done += t->bytes;
    if (l->progress != NULL) {
        l->progress(l->progress_ctx, l->done, l->total);
    }
}

const char *model_left(compute_device *d, char out[MODEL_LEFT_TEXT])
{
    compute_report r;

    out[0] = '\0';
    if (d->ops->report != NULL) {
        d->ops->report(d, &r);
        (void)snprintf(out, MODEL_LEFT_TEXT, ", %llu free on %s", (unsigned long long)r.free_bytes, d->place);
    }
    return out;
}

static void fail(loader *l, moe_status status, const checkpoint_logical *t)
{
    char left[MODEL_LEFT_TEXT] = "";

    if (l->status == MOE_OK) {
        l->status = moe_fail(l->err, status, "%s: %s while loading %zu bytes%s", t->name, moe_status_text(status),
                             t->bytes, status == MOE_ERR_NO_MEMORY ? model_left(l->m->device, left) : left);
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

/* The values of a small tensor, widened to f32; owned. */
static float *widen(loader *l, const checkpoint_logical *t, size_t *n_out)
{
    size_t n = t->bytes / compute_dtype_bytes(t->dtype);
    float *wide = malloc(n * sizeof *wide);

    if (wide == NULL) {
        fail(l, MOE_ERR_NO_MEMORY, t);
        return NULL;
    }
    model_widen(wide, t->data, t->dtype, n);
    *n_out = n;
    return wide;
}

/* A vector, or another small tensor that ops read as f32. NULL when there is none. */
static compute_mem *load_f32(loader *l, model_role role, uint32_t layer, uint32_t expert)
{
    const checkpoint_logical *t = find(l, role, layer, expert);
    compute_mem *mem = NULL;
    float *wide;
    size_t n;

    if (t == NULL || (wide = widen(l, t, &n)) == NULL) {
        return NULL;
    }
    mem = load_raw(l, wide, n * sizeof *wide, t);
    free(wide);
    advance(l, t);
    return mem;
}

static compute_mem *load_vector(loader *l, model_role role, uint32_t layer)
{
    return load_f32(l, role, layer, 0);
}

/* A matrix of the class dtype, or of a gate: the f32 chain in every class. NULL when there is none. */
static compute_matrix *open_matrix(loader *l, model_role role, uint32_t layer, uint32_t expert, bool gate)
{
    const checkpoint_logical *t = find(l, role, layer, expert);
    compute_device *d = l->m->device;
    compute_matrix *matrix = NULL;
    compute_weight w;
    moe_status status;

    if (t == NULL) {
        return NULL;
    }
    w = model_tensors_weight(&l->m->config, role, t);
    status = gate ? d->ops->matrix_open_f32(d, &w, &matrix) : d->ops->matrix_open(d, &w, l->layout, &matrix);
    if (status != MOE_OK) {
        fail(l, status, t);
        return NULL;
    }
    l->m->bytes += expert == NO_EXPERT ? t->bytes : 0;
    advance(l, t);
    return matrix;
}

static compute_matrix *load_matrix(loader *l, model_role role, uint32_t layer)
{
    return open_matrix(l, role, layer, NO_EXPERT, false);
}

static compute_matrix *load_gate_matrix(loader *l, model_role role, uint32_t layer)
{
    return open_matrix(l, role, layer, NO_EXPERT, true);
}

static norm_weights load_norm(loader *l, model_role gain, uint32_t layer)
{
    return (norm_weights){.gain = load_vector(l, gain, layer), .bias = load_vector(l, gain + 1, layer)};
}

static compute_matrix *load_centroids(loader *l, model_role role, model_role temperature_role, uint32_t layer)
{
    const checkpoint_logical *t = find(l, role, layer, 0), *factor = find(l, temperature_role, layer, 0);
    compute_matrix *matrix = NULL;
    size_t n, one;
    float *rows = widen(l, t, &n), *temperature = widen(l, factor, &one);

    if (rows != NULL && temperature != NULL) {
        compute_weight w = {.data = rows, .dtype = COMPUTE_F32, .n_out = t->shape[0], .n_in = t->shape[1]};
        model_scale_centroids(rows, w.n_out, w.n_in, temperature[0]);
        moe_status status = l->m->device->ops->matrix_open_f32(l->m->device, &w, &matrix);
        if (status != MOE_OK) {
            fail(l, status, t);
        }
    }
    free(rows);
    free(temperature);
    l->m->bytes += t->bytes;
    advance(l, t);
    advance(l, factor);
    return matrix;
}

/* The roles of a gate follow each other: inner, bias, gate, temperature. */
static gate_weights load_gate(loader *l, model_role inner, uint32_t layer)
{
    bool centroids = l->m->config.gate_kind == MODEL_GATE_CENTROIDS;

    return (gate_weights){.inner = load_gate_matrix(l, inner, layer),
                          .bias = load_vector(l, inner + 1, layer),
                          .out = centroids ? load_centroids(l, inner + 2, inner + 3, layer)
                                           : load_gate_matrix(l, inner + 2, layer)};
}

static compute_matrix **load_heads(loader *l, model_role role, uint32_t layer, uint32_t n)
{
    compute_matrix **all = calloc(n, sizeof(*all));

    if (all == NULL) {
        l->status = moe_fail(l->err, MOE_ERR_NO_MEMORY, "layer %u: out of memory", layer);
        return NULL;
    }
    for (uint32_t e = 0; e < n; e++) {
        all[e] = open_matrix(l, role, layer, e, false);
    }
    l->m->bytes += find(l, role, layer, 0)->bytes * l->m->config.att_gate.k;
    return all;
}

static void load_attention_experts(loader *l, attention_experts *a, uint32_t layer)
{
    uint32_t n = l->m->config.n_att_experts;

    if (n > 0) {
        a->gate = load_gate(l, MODEL_ROLE_ATTENTION_GATE_INNER, layer);
        a->q = load_heads(l, MODEL_ROLE_ATTENTION_EXPERT_Q, layer, n);
        a->o = load_heads(l, MODEL_ROLE_ATTENTION_EXPERT_O, layer, n);
        a->n = n;
    }
}

static constant_weights *load_constants(loader *l, uint32_t layer)
{
    const model_config *c = &l->m->config;
    constant_weights *all = c->n_constant_experts == 0 ? NULL : calloc(c->n_constant_experts, sizeof *all);

    if (all == NULL && c->n_constant_experts > 0) {
        l->status = moe_fail(l->err, MOE_ERR_NO_MEMORY, "layer %u: out of memory", layer);
    }
    for (uint32_t i = 0; all != NULL && i < c->n_constant_experts; i++) {
        all[i] = (constant_weights){.value = load_f32(l, MODEL_ROLE_CONSTANT, layer, c->n_ffn_experts + i),
                                    .gate = load_f32(l, MODEL_ROLE_CONSTANT_GATE, layer, c->n_ffn_experts + i)};
    }
    return all;
}

static void load_layer(loader *l, uint32_t layer)
{
    layer_weights *w = &l->m->layers[layer];
    gate_layer *gate = &l->m->gates->layers[layer];

    w->input_norm = load_norm(l, MODEL_ROLE_INPUT_NORM, layer);
    w->post_norm = load_norm(l, MODEL_ROLE_POST_NORM, layer);
    w->q_norm = load_vector(l, MODEL_ROLE_Q_NORM, layer);
    w->k_norm = load_vector(l, MODEL_ROLE_K_NORM, layer);
    w->q = load_matrix(l, MODEL_ROLE_Q, layer);
    w->k = load_matrix(l, MODEL_ROLE_K, layer);
    w->v = load_matrix(l, MODEL_ROLE_V, layer);
    w->o = load_matrix(l, MODEL_ROLE_O, layer);
    w->q_bias = load_vector(l, MODEL_ROLE_Q_BIAS, layer);
    w->k_bias = load_vector(l, MODEL_ROLE_K_BIAS, layer);
    w->v_bias = load_vector(l, MODEL_ROLE_V_BIAS, layer);
    w->o_bias = load_vector(l, MODEL_ROLE_O_BIAS, layer);
    load_attention_experts(l, &gate->att, layer);
    gate->w = load_gate(l, MODEL_ROLE_GATE_INNER, layer);
    gate->w.map = load_gate_matrix(l, MODEL_ROLE_GATE_MAP, layer);
    w->constants = load_constants(l, layer);
}

static void load_embedding(loader *l)
{
    model *m = l->m;
    const checkpoint_logical *t = find(l, MODEL_ROLE_EMBED, 0, 0);
    compute_weight head = model_tensors_weight(&m->config, MODEL_ROLE_EMBED, t);
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
    forget(l, t);
    m->bytes += t->bytes;
}

static void load_rope(loader *l)
{
    model *m = l->m;
    const model_rope *r = &m->config.rope;
    size_t n = m->max_context * m->config.head_dim;
    char left[MODEL_LEFT_TEXT];
    double *frequencies;
    float *table;

    if (m->config.no_positions) {
        return;
    }
    table = malloc(n * sizeof *table);
    frequencies = malloc(m->config.head_dim / 2 * sizeof *frequencies);
    if (table != NULL && frequencies != NULL) {
        model_rope_frequencies(r, m->config.head_dim, frequencies);
        compute_rope_table(table, m->max_context, m->config.head_dim, frequencies, r->position_scale, r->magnitude);
        m->rope = m->device->ops->alloc(m->device, n * sizeof *table);
    }
    if (m->rope != NULL) {
        m->device->ops->upload(m->device, m->rope, table, n * sizeof *table);
    } else if (l->status == MOE_OK) {
        l->status = moe_fail(l->err, MOE_ERR_NO_MEMORY, "rope table of %zu positions: no memory for %zu bytes%s",
                             m->max_context, n * sizeof *table, model_left(m->device, left));
    }
    free(frequencies);
    free(table);
}

static moe_status open_own_gates(model *m, moe_error *err)
{
    router_space *space;
    moe_status status = model_config_space(&m->config, &space, err);

    if (status == MOE_OK) {
        status = model_gates_alloc(m, space, NULL, &m->gates);
        router_space_unref(space);
    }
    return status;
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
    m->layout = layout;
    pthread_mutex_init(&m->lock, NULL);
    m->max_context = max_context;
    l.total = model_tensors_coordinator_bytes(t);
    l.status = open_own_gates(m, err);
    if (l.status != MOE_OK) {
        model_close(m);
        return l.status;
    }
    load_embedding(&l);
    for (uint32_t layer = 0; layer < c->n_layers && l.status == MOE_OK; layer++) {
        load_layer(&l, layer);
    }
    if (l.status == MOE_OK) {
        m->final_norm = load_norm(&l, MODEL_ROLE_FINAL_NORM, 0);
        load_rope(&l);
    }
    if (l.status != MOE_OK) {
        model_close(m);
        return l.status;
    }
    *out = m;
    return MOE_OK;
}

static void close_layer(compute_device *d, const model_config *c, layer_weights *w)
{
    compute_mem *vectors[] = {w->input_norm.gain, w->input_norm.bias, w->post_norm.gain, w->post_norm.bias, w->q_norm,
                              w->k_norm,          w->q_bias,          w->k_bias,         w->v_bias,         w->o_bias};
    compute_matrix *matrices[] = {w->q, w->k, w->v, w->o};

    for (size_t i = 0; i < MOE_COUNT(vectors); i++) {
        d->ops->free(d, vectors[i]);
    }
    for (size_t i = 0; i < MOE_COUNT(matrices); i++) {
        d->ops->matrix_close(d, matrices[i]);
    }
    for (uint32_t i = 0; w->constants != NULL && i < c->n_constant_experts; i++) {
        d->ops->free(d, w->constants[i].value);
        d->ops->free(d, w->constants[i].gate);
    }
    free(w->constants);
}

void model_close(model *m)
{
    if (m == NULL) {
        return;
    }
    for (uint32_t layer = 0; layer < m->config.n_layers; layer++) {
        close_layer(m->device, &m->config, &m->layers[layer]);
    }
    m->device->ops->free(m->device, m->embedding);
    m->device->ops->free(m->device, m->final_norm.gain);
    m->device->ops->free(m->device, m->final_norm.bias);
    m->device->ops->free(m->device, m->rope);
    m->device->ops->matrix_close(m->device, m->head);
    model_gates_unref(m->gates);
    pthread_mutex_destroy(&m->lock);
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
