/* The checkpoint's tensors against the exact set that the config demands. */
#include "model/family/family_priv.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Of logical tensors: a small fused file can spell out many. The largest published models have about 50,000. */
#define MAX_TENSORS (1u << 18)

struct model_tensors {
    model_config config;
    checkpoint_logical *all; /* owned [n], name order */
    size_t n;
    bool all_matrices_bf16;
    size_t expert_bytes; /* of the largest */
};

/* ------------------------------------------------------------------------------------------------ names and shapes */
void model_format_name(const char *pattern, uint32_t layer, uint32_t expert, char name[CHECKPOINT_MAX_NAME])
{
    size_t n = 0;

    while (*pattern != '\0' && n < CHECKPOINT_MAX_NAME - 1) {
        if (pattern[0] == '{') {
            n += (size_t)snprintf(name + n, CHECKPOINT_MAX_NAME - n, "%" PRIu32, pattern[1] == 'l' ? layer : expert);
            pattern += 3;
        } else {
            name[n++] = *pattern++;
        }
    }
    MOE_ASSERT(n < CHECKPOINT_MAX_NAME);
    name[n] = '\0';
}

static bool matrix(model_tensor_shape *out, size_t n_out, size_t n_in)
{
    *out = (model_tensor_shape){.rank = 2, .dims = {n_out, n_in}};
    return true;
}

static bool vector(model_tensor_shape *out, size_t n)
{
    *out = (model_tensor_shape){.rank = 1, .dims = {n}};
    return true;
}

bool model_common_tensor_shape(const model_config *c, model_role role, model_tensor_shape *out)
{
    size_t d_q = (size_t)c->n_heads * c->head_dim, d_kv = (size_t)c->n_kv_heads * c->head_dim;
    bool per_head = c->family->qk_norm == MODEL_QK_NORM_PER_HEAD, normed = c->family->qk_norm != MODEL_QK_NORM_NONE;

    switch (role) {
    case MODEL_ROLE_EMBED:
        return matrix(out, c->vocab_size, c->d_model);
    case MODEL_ROLE_HEAD:
        return !c->tied_head && matrix(out, c->vocab_size, c->d_model);
    case MODEL_ROLE_FINAL_NORM:
    case MODEL_ROLE_INPUT_NORM:
    case MODEL_ROLE_POST_NORM:
        return vector(out, c->d_model);
    case MODEL_ROLE_Q:
        return matrix(out, d_q, c->d_model);
    case MODEL_ROLE_K:
    case MODEL_ROLE_V:
        return matrix(out, d_kv, c->d_model);
    case MODEL_ROLE_O:
        return matrix(out, c->d_model, d_q);
    case MODEL_ROLE_Q_BIAS:
        return c->attention_bias && vector(out, d_q);
    case MODEL_ROLE_K_BIAS:
    case MODEL_ROLE_V_BIAS:
        return c->attention_bias && vector(out, d_kv);
    case MODEL_ROLE_O_BIAS:
        return c->attention_bias && vector(out, c->d_model);
    case MODEL_ROLE_Q_NORM:
        return normed && vector(out, per_head ? c->head_dim : d_q);
    case MODEL_ROLE_K_NORM:
        return normed && vector(out, per_head ? c->head_dim : d_kv);
    case MODEL_ROLE_ROUTER:
        return matrix(out, c->n_experts, c->d_model);
    case MODEL_ROLE_EXPERT_GATE:
    case MODEL_ROLE_EXPERT_UP:
        return matrix(out, c->d_ff, c->d_model);
    case MODEL_ROLE_EXPERT_DOWN:
        return matrix(out, c->d_model, c->d_ff);
    default:
        return false;
    }
}

/* ------------------------------------------------------------------------------------------------ resolving
 * Carried through one open. */
typedef struct resolver {
    model_tensors *t;
    const checkpoint *cp;
    bool *used; /* owned [checkpoint_n_tensors] */
    size_t capacity;
    moe_error *err;
} resolver;

/* NULL when absent. Marks it as used. */
static const checkpoint_tensor *take(resolver *r, const char *name)
{
    size_t low = 0, high = checkpoint_n_tensors(r->cp);

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const checkpoint_tensor *tensor = checkpoint_at(r->cp, middle);
        int order = strcmp(tensor->name, name);

        if (order == 0) {
            r->used[middle] = true;
            return tensor;
        }
        if (order < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return NULL;
}

static void format_shape(const size_t *dims, size_t rank, char *text, size_t capacity)
{
    size_t n = 0;

    text[0] = '\0';
    for (size_t i = 0; i < rank && n < capacity; i++) {
        n += (size_t)snprintf(text + n, capacity - n, "%s%zu", i == 0 ? "" : ", ", dims[i]);
    }
}

static moe_status check_tensor(resolver *r, const checkpoint_tensor *tensor, const model_tensor_shape *shape)
{
    char is[192], wanted[96];

    if (tensor->rank != shape->rank || memcmp(tensor->shape, shape->dims, shape->rank * sizeof shape->dims[0]) != 0) {
        format_shape(tensor->shape, tensor->rank, is, sizeof is);
        format_shape(shape->dims, shape->rank, wanted, sizeof wanted);
        return moe_fail(r->err, MOE_ERR_INVALID_ARG, "tensor %s: shape [%s], the config demands [%s]", tensor->name, is,
                        wanted);
    }
    if (tensor->dtype == COMPUTE_DTYPE_OTHER) {
        return moe_fail(r->err, MOE_ERR_UNSUPPORTED, "tensor %s: dtype %s is not supported, only F32, BF16 and F16",
                        tensor->name, tensor->dtype_name);
    }
    return MOE_OK;
}

/* A row of dtype values holds no NaN and no infinity. */
static bool is_finite(const checkpoint_logical *t)
{
    size_t width = compute_dtype_bytes(t->dtype);

    for (size_t at = 0; at < t->bytes; at += width) {
        uint32_t word = 0;
        uint32_t exponent = t->dtype == COMPUTE_F32 ? 0x7f800000u : t->dtype == COMPUTE_BF16 ? 0x7f80u : 0x7c00u;

        for (size_t i = 0; i < width; i++) {
            word |= (uint32_t)t->data[at + i] << (8 * i);
        }
        if ((word & exponent) == exponent) {
            return false;
        }
    }
    return true;
}

/* Adds one logical tensor: the part-th of n_parts equal slices of tensor, by its first dimensions. */
static moe_status add(resolver *r, model_role role, uint32_t layer, uint32_t expert, const checkpoint_tensor *tensor,
                      size_t part, size_t n_parts)
{
    model_tensors *t = r->t;
    checkpoint_logical *out = &t->all[t->n];
    model_tensor_shape shape;

    MOE_ASSERT(t->n < r->capacity && t->config.family->tensor_shape(&t->config, role, &shape));
    t->config.family->tensor_name(role, layer, expert, out->name);
    out->dtype = tensor->dtype;
    out->rank = shape.rank;
    memcpy(out->shape, shape.dims, sizeof shape.dims);
    out->bytes = tensor->bytes / n_parts;
    out->data = tensor->data + part * out->bytes;
    t->n++;
    if (shape.rank == 2 && role != MODEL_ROLE_ROUTER) { /* the router is widened in every class */
        t->all_matrices_bf16 &= tensor->dtype == COMPUTE_BF16;
        return MOE_OK;
    }
    if (!is_finite(out)) {
        return moe_fail(r->err, MOE_ERR_CORRUPT, "tensor %s: holds a value that is not finite", out->name);
    }
    return MOE_OK;
}

static moe_status resolve(resolver *r, model_role role, uint32_t layer, uint32_t expert)
{
    const model_family *family = r->t->config.family;
    char name[CHECKPOINT_MAX_NAME];
    const checkpoint_tensor *tensor;
    model_tensor_shape shape;
    moe_status status;

    if (!family->tensor_shape(&r->t->config, role, &shape)) {
        return MOE_OK;
    }
    family->tensor_name(role, layer, expert, name);
    tensor = take(r, name);
    if (tensor == NULL) {
        return moe_fail(r->err, MOE_ERR_NOT_FOUND, "tensor %s: missing", name);
    }
    status = check_tensor(r, tensor, &shape);
    return status == MOE_OK ? add(r, role, layer, expert, tensor, 0, 1) : status;
}

static moe_status resolve_experts(resolver *r, uint32_t layer)
{
    moe_status status = MOE_OK;
    size_t expert_bytes, first;

    for (uint32_t expert = 0; expert < r->t->config.n_experts && status == MOE_OK; expert++) {
        first = r->t->n;
        for (int role = MODEL_FIRST_EXPERT_ROLE; role < MODEL_N_ROLES && status == MOE_OK; role++) {
            status = resolve(r, (model_role)role, layer, expert);
        }
        expert_bytes = 0;
        for (size_t i = first; i < r->t->n; i++) {
            expert_bytes += r->t->all[i].bytes;
        }
        r->t->expert_bytes = MOE_MAX(r->t->expert_bytes, expert_bytes);
    }
    return status;
}

static moe_status take_fused(resolver *r, model_fused part, uint32_t layer, const model_tensor_shape *shape,
                             const checkpoint_tensor **out)
{
    char name[CHECKPOINT_MAX_NAME];

    r->t->config.family->fused_name(part, layer, name);
    *out = take(r, name);
    if (*out == NULL) {
        return moe_fail(r->err, MOE_ERR_NOT_FOUND, "tensor %s: missing", name);
    }
    return check_tensor(r, *out, shape);
}

static moe_status resolve_fused(resolver *r, uint32_t layer)
{
    const model_config *c = &r->t->config;
    model_tensor_shape gate_up_shape = {.rank = 3, .dims = {c->n_experts, 2 * (size_t)c->d_ff, c->d_model}};
    model_tensor_shape down_shape = {.rank = 3, .dims = {c->n_experts, c->d_model, c->d_ff}};
    const checkpoint_tensor *gate_up, *down;
    moe_status status = take_fused(r, MODEL_FUSED_GATE_UP, layer, &gate_up_shape, &gate_up);

    if (status == MOE_OK) {
        status = take_fused(r, MODEL_FUSED_DOWN, layer, &down_shape, &down);
    }
    for (uint32_t expert = 0; expert < c->n_experts && status == MOE_OK; expert++) {
        size_t n = c->n_experts;

        status = add(r, MODEL_ROLE_EXPERT_GATE, layer, expert, gate_up, 2 * (size_t)expert, 2 * n);
        if (status == MOE_OK) {
            status = add(r, MODEL_ROLE_EXPERT_UP, layer, expert, gate_up, 2 * (size_t)expert + 1, 2 * n);
        }
        if (status == MOE_OK) {
            status = add(r, MODEL_ROLE_EXPERT_DOWN, layer, expert, down, expert, n);
        }
    }
    if (status == MOE_OK) {
        r->t->expert_bytes = MOE_MAX(r->t->expert_bytes, (gate_up->bytes + down->bytes) / c->n_experts);
    }
    return status;
}

/* One fused tensor makes the layer fused. What is there of the other layout is then not expected, and refused as such.
 */
static bool is_fused(const resolver *r, uint32_t layer)
{
    const model_family *family = r->t->config.family;
    char name[CHECKPOINT_MAX_NAME];

    for (int part = 0; part < MODEL_N_FUSED && family->fused_name != NULL; part++) {
        family->fused_name((model_fused)part, layer, name);
        if (checkpoint_find(r->cp, name) != NULL) {
            return true;
        }
    }
    return false;
}

static moe_status resolve_layer(resolver *r, uint32_t layer)
{
    moe_status status = MOE_OK;

    for (int role = MODEL_FIRST_LAYER_ROLE; role < MODEL_FIRST_EXPERT_ROLE && status == MOE_OK; role++) {
        status = resolve(r, (model_role)role, layer, 0);
    }
    if (status != MOE_OK) {
        return status;
    }
    return is_fused(r, layer) ? resolve_fused(r, layer) : resolve_experts(r, layer);
}

static moe_status refuse_unexpected(const resolver *r)
{
    for (size_t i = 0; i < checkpoint_n_tensors(r->cp); i++) {
        const char *name = checkpoint_at(r->cp, i)->name;

        if (!r->used[i] && !r->t->config.family->ignores(name)) {
            return moe_fail(r->err, MOE_ERR_INVALID_ARG, "tensor %s: unexpected, the config has no such tensor", name);
        }
    }
    return MOE_OK;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(((const checkpoint_logical *)a)->name, ((const checkpoint_logical *)b)->name);
}

static moe_status resolve_all(resolver *r)
{
    moe_status status = MOE_OK;

    for (int role = 0; role < MODEL_FIRST_LAYER_ROLE && status == MOE_OK; role++) {
        status = resolve(r, (model_role)role, 0, 0);
    }
    for (uint32_t layer = 0; layer < r->t->config.n_layers && status == MOE_OK; layer++) {
        status = resolve_layer(r, layer);
    }
    if (status == MOE_OK) {
        status = refuse_unexpected(r);
    }
    if (status == MOE_OK) {
        qsort(r->t->all, r->t->n, sizeof r->t->all[0], compare_names);
    }
    return status;
}

static size_t count_expected(const model_config *c)
{
    size_t n = MODEL_FIRST_LAYER_ROLE, experts = MODEL_N_ROLES - MODEL_FIRST_EXPERT_ROLE;

    return n + c->n_layers * (MODEL_FIRST_EXPERT_ROLE - MODEL_FIRST_LAYER_ROLE + experts * c->n_experts);
}

moe_status model_tensors_open(const model_config *c, const checkpoint *cp, model_tensors **out, moe_error *err)
{
    resolver r = {.cp = cp, .capacity = count_expected(c), .err = err};
    model_tensors *t;
    moe_status status;

    if (r.capacity > MAX_TENSORS) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "%u layers of %u experts: more than %u tensors", c->n_layers,
                        c->n_experts, MAX_TENSORS);
    }
    t = calloc(1, sizeof *t);
    if (t == NULL) {
        return MOE_ERR_NO_MEMORY;
    }
    t->config = *c;
    t->all_matrices_bf16 = true;
    t->all = calloc(r.capacity, sizeof *t->all);
    r.used = calloc(checkpoint_n_tensors(cp) + 1, sizeof *r.used);
    r.t = t;
    status = t->all == NULL || r.used == NULL
                 ? moe_fail(err, MOE_ERR_NO_MEMORY, "%zu tensors: out of memory", r.capacity)
                 : resolve_all(&r);
    free(r.used);
    if (status != MOE_OK) {
        model_tensors_close(t);
        return status;
    }
    *out = t;
    return MOE_OK;
}

void model_tensors_close(model_tensors *t)
{
    if (t != NULL) {
        free(t->all);
        free(t);
    }
}

/* ------------------------------------------------------------------------------------------------ asking */
size_t model_tensors_count(const model_tensors *t)
{
    return t->n;
}

const checkpoint_logical *model_tensors_all(const model_tensors *t)
{
    return t->all;
}

const checkpoint_logical *model_tensors_find(const model_tensors *t, const char *name)
{
    size_t low = 0, high = t->n;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(t->all[middle].name, name);

        if (order == 0) {
            return &t->all[middle];
        }
        if (order < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return NULL;
}

const checkpoint_logical *model_tensors_role(const model_tensors *t, model_role role, uint32_t layer, uint32_t expert)
{
    char name[CHECKPOINT_MAX_NAME];

    t->config.family->tensor_name(role, layer, expert, name);
    return model_tensors_find(t, name);
}

compute_class model_tensors_auto_class(const model_tensors *t)
{
    return t->all_matrices_bf16 ? COMPUTE_CLASS_CPU_BF16_1 : COMPUTE_CLASS_CPU_F32_1;
}

size_t model_expert_bytes(const model_config *c, const model_tensors *t)
{
    (void)c;
    return t->expert_bytes;
}
