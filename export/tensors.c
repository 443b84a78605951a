/* The tensors that are written: those that the family's layout demands of the new configuration. */
#include "export/export_priv.h"

#include <stdlib.h>
#include <string.h>

#define FILE_BYTES ((size_t)4 << 30) /* about what the hub's files have */

/* ------------------------------------------------------------------------------------------------ dtypes */
/* The dtype of what is put together: the one that all have, else F32, in which nothing is lost. */
static void mix(compute_dtype *so_far, compute_dtype other)
{
    *so_far = *so_far == COMPUTE_DTYPE_OTHER || *so_far == other ? other : COMPUTE_F32;
}

static compute_dtype dtype_of(const exporting *x, model_role role, uint32_t layer, uint32_t expert)
{
    const checkpoint_logical *own = model_tensors_role(x->model.tensors, role, layer, expert);
    compute_dtype out = own != NULL ? own->dtype : x->model.dtype;

    for (uint32_t i = 0; i < x->config.n_experts && (role == MODEL_ROLE_GATE || role == MODEL_ROLE_GATE_MAP); i++) {
        const pack *p = export_columns(x, layer)[i].pack;
        const pack_layer *parts = p != NULL && pack_get_kind(p) == PACK_ADD ? pack_layer_of(p, layer) : NULL;
        const checkpoint_tensor *t = parts == NULL ? NULL : role == MODEL_ROLE_GATE ? parts->router : parts->map_rows;

        if (t != NULL) {
            mix(&out, t->dtype);
        }
        if (parts != NULL && role == MODEL_ROLE_GATE_MAP && parts->map_columns != NULL) {
            mix(&out, parts->map_columns->dtype);
        }
    }
    for (size_t i = 0; i < x->n_attention; i++) {
        const pack_layer *l = pack_layer_of(x->attention[i], layer);

        if (l != NULL && l->n_attention > 0 && role == MODEL_ROLE_ATTENTION_GATE) {
            mix(&out, l->attention_router->dtype);
        } else if (role == MODEL_ROLE_ATTENTION_EXPERT_Q || role == MODEL_ROLE_ATTENTION_EXPERT_O) {
            mix(&out, x->model.dtype);
        }
    }
    /* what hushes silent experts is made here, in F32 and BF16 alone */
    return x->hushed && out == COMPUTE_F16 && (role == MODEL_ROLE_GATE || role == MODEL_ROLE_GATE_BIAS) ? COMPUTE_F32
                                                                                                        : out;
}

/* ------------------------------------------------------------------------------------------------ the list */
static const model_stored *stored_of(const model_config *c, model_role role)
{
    const model_family *family = c->family;

    return family->stored != NULL && !family->stored_is_optional && family->stored[role].pattern != NULL
               ? &family->stored[role]
               : NULL;
}

/* The checkpoint's own number of an expert whose number changes only because others come or go before it. */
static uint32_t own_expert(const exporting *x, model_role role, uint32_t expert)
{
    return role >= MODEL_FIRST_CONSTANT_ROLE && role < MODEL_FIRST_EXPERT_ROLE
               ? expert - x->config.n_ffn_experts + x->model.config.n_ffn_experts
           : role >= MODEL_FIRST_EXPERT_ROLE ? 0
                                             : expert;
}

static moe_status add(exporting *x, const char *name, const export_tensor *like, const model_tensor_shape *shape,
                      uint32_t n_experts)
{
    export_tensor *t = &x->tensors[x->n_tensors];

    *t = *like;
    t->name = strdup(name);
    if (t->name == NULL) {
        return moe_fail(x->err, MOE_ERR_NO_MEMORY, "tensor %.200s: out of memory", name);
    }
    x->n_tensors++;
    t->dtype = x->o->dtype != COMPUTE_DTYPE_OTHER ? x->o->dtype
                                                  : dtype_of(x, t->role, t->layer, own_expert(x, t->role, t->expert));
    if (t->all_experts) {
        t->shape[t->rank++] = n_experts;
    }
    for (size_t i = 0; i < shape->rank; i++) {
        t->shape[t->rank++] = shape->dims[i] * (i == 0 ? t->of : 1);
    }
    t->bytes = compute_dtype_bytes(t->dtype);
    for (size_t i = 0; i < t->rank; i++) {
        t->bytes *= t->shape[i];
    }
    x->result.bytes += t->bytes;
    return MOE_OK;
}

static moe_status add_role(exporting *x, model_role role, uint32_t layer)
{
    const model_config *c = &x->config;
    const model_stored *row = role >= MODEL_FIRST_LAYER_ROLE ? stored_of(c, role) : NULL;
    uint32_t first, n = model_role_experts(c, role, &first);
    export_tensor like = {.role = role, .layer = layer, .of = row != NULL ? row->of : 1};
    model_tensor_shape shape;
    moe_status status = MOE_OK;

    if (!model_tensor_shape_of(c, role, layer, &shape) || (row != NULL && row->part > 0)) {
        return MOE_OK;
    }
    const char *pattern = row != NULL ? row->pattern : model_role_pattern(c, role);
    like.all_experts = row != NULL && strstr(pattern, "{e}") == NULL;
    for (uint32_t i = 0; i < (like.all_experts ? 1 : n) && status == MOE_OK; i++) {
        char name[CHECKPOINT_MAX_NAME];

        like.expert = first + i;
        model_format_name(pattern, layer, like.expert, name);
        status = add(x, name, &like, &shape, n);
    }
    return status;
}

/* Of layer 0 nothing reads it, but the class has one: where the checkpoint has it, so has what is written. */
static moe_status add_first_map(exporting *x)
{
    const export_tensor like = {.role = MODEL_ROLE_GATE_MAP, .of = 1};
    const model_tensor_shape shape = {.rank = 2, .dims = {x->config.n_experts, x->config.n_experts}};
    char name[CHECKPOINT_MAX_NAME];

    if (!x->config.gate_map) {
        return MOE_OK;
    }
    model_tensor_name(&x->config, MODEL_ROLE_GATE_MAP, 0, 0, name);
    return checkpoint_find(x->model.files, name) != NULL ? add(x, name, &like, &shape, 1) : MOE_OK;
}

static moe_status add_all(exporting *x)
{
    moe_status status = MOE_OK;

    for (int role = 0; role < MODEL_FIRST_LAYER_ROLE && status == MOE_OK; role++) {
        status = add_role(x, (model_role)role, 0);
    }
    for (uint32_t layer = 0; layer < x->config.n_layers; layer++) {
        for (int role = MODEL_FIRST_LAYER_ROLE; role < MODEL_N_ROLES && status == MOE_OK; role++) {
            status = add_role(x, (model_role)role, layer);
        }
    }
    return status == MOE_OK ? add_first_map(x) : status;
}

static size_t most_tensors(const model_config *c)
{
    size_t layer = 0;
    uint32_t first;

    for (int role = MODEL_FIRST_LAYER_ROLE; role < MODEL_N_ROLES; role++) {
        layer += model_role_experts(c, (model_role)role, &first);
    }
    return MODEL_FIRST_LAYER_ROLE + c->n_layers * layer + 1;
}

/* By file; within one the larger items first, so that every tensor is aligned to its items. */
static int by_place(const void *a, const void *b)
{
    const export_tensor *x = a, *y = b;
    size_t p = compute_dtype_bytes(x->dtype), q = compute_dtype_bytes(y->dtype);

    if (x->file != y->file) {
        return x->file < y->file ? -1 : 1;
    }
    return p != q ? (p > q ? -1 : 1) : strcmp(x->name, y->name);
}

moe_status export_list(exporting *x)
{
    size_t bytes = 0, most = x->o->file_bytes > 0 ? x->o->file_bytes : FILE_BYTES;
    moe_status status;

    x->tensors = calloc(most_tensors(&x->config), sizeof *x->tensors);
    if (x->tensors == NULL) {
        return moe_fail(x->err, MOE_ERR_NO_MEMORY, "%zu tensors: out of memory", most_tensors(&x->config));
    }
    status = add_all(x);
    for (size_t i = 0; i < x->n_tensors; i++) {
        if (bytes > 0 && bytes + x->tensors[i].bytes > most) {
            x->n_files++;
            bytes = 0;
        }
        bytes += x->tensors[i].bytes;
        x->tensors[i].file = x->n_files;
    }
    x->n_files++;
    qsort(x->tensors, x->n_tensors, sizeof *x->tensors, by_place);
    x->result.n_tensors = x->n_tensors;
    x->result.n_files = x->n_files;
    return status;
}
