/* The checkpoint's tensors against the exact set that the config demands. */
#include "model/family/family.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Of logical tensors: a small fused file can spell out many. The largest published models have about 50,000. */
#define MAX_TENSORS (1u << 18)
#define CONFIG_TEXT ((size_t)1 << 20) /* bytes of the configuration's text, at most */

struct model_tensors {
    model_config config;
    const checkpoint *checkpoint; /* borrowed */
    checkpoint_logical *all;      /* owned [n], name order */
    size_t n;
    bool all_matrices_bf16;
    size_t expert_bytes;      /* of the largest FFN expert */
    size_t all_experts_bytes; /* of all together */
};

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
    size_t i = checkpoint_find_at(r->cp, name);

    if (i == SIZE_MAX) {
        return NULL;
    }
    r->used[i] = true;
    return checkpoint_at(r->cp, i);
}

static void format_shape(const size_t *dims, size_t rank, char *text, size_t capacity)
{
    size_t n = 0;

    text[0] = '\0';
    for (size_t i = 0; i < rank && n < capacity; i++) {
        n += (size_t)snprintf(text + n, capacity - n, "%s%zu", i == 0 ? "" : ", ", dims[i]);
    }
}

/* Embeddings are often padded to a round number of rows, and a hand has changed one of the two. */
static bool has_other_rows(const checkpoint_tensor *tensor, model_role role, const model_tensor_shape *shape)
{
    return (role == MODEL_ROLE_EMBED || role == MODEL_ROLE_HEAD) && tensor->rank == 2 &&
           tensor->shape[0] != shape->dims[0] && tensor->shape[1] == shape->dims[1];
}

static moe_status check_tensor(resolver *r, const checkpoint_tensor *tensor, model_role role,
                               const model_tensor_shape *shape)
{
    char is[192], wanted[96];

    if (has_other_rows(tensor, role, shape)) {
        return moe_fail(r->err, MOE_ERR_INVALID_ARG,
                        "tensor %s: %zu rows, but %s is %zu; it must be the number of rows", tensor->name,
                        tensor->shape[0],
                        role == MODEL_ROLE_HEAD && r->t->config.n_labels > 0 ? "the number of labels" : "vocab_size",
                        shape->dims[0]);
    }
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

/* Of the matrices, those that the class dtype is about: gates, their maps and temperatures are widened
 * in every class. */
static bool is_gate(model_role role)
{
    return (role >= MODEL_ROLE_ATTENTION_GATE_INNER && role <= MODEL_ROLE_ATTENTION_TEMPERATURE) ||
           (role >= MODEL_ROLE_GATE_INNER && role <= MODEL_ROLE_GATE_MAP) || role == MODEL_ROLE_CONSTANT_GATE;
}

/* One logical tensor: the part-th of n_parts equal slices of tensor, by its first dimensions. */
static moe_status add(resolver *r, model_role role, uint32_t layer, uint32_t expert, const model_tensor_shape *shape,
                      const checkpoint_tensor *tensor, size_t part, size_t n_parts)
{
    model_tensors *t = r->t;
    checkpoint_logical *out = &t->all[t->n];

    MOE_ASSERT(t->n < r->capacity);
    model_tensor_name(&t->config, role, layer, expert, out->name);
    out->dtype = tensor->dtype;
    out->rank = shape->rank;
    memcpy(out->shape, shape->dims, sizeof shape->dims);
    out->bytes = tensor->bytes / n_parts;
    out->data = tensor->data + part * out->bytes;
    t->n++;
    if (shape->rank == 2 && !is_gate(role)) {
        t->all_matrices_bf16 &= tensor->dtype == COMPUTE_BF16;
        return MOE_OK;
    }
    bool finite = checkpoint_is_finite(out->data, out->bytes, out->dtype);
    model_tensors_forget(t, out);
    if (!finite) {
        return moe_fail(r->err, MOE_ERR_CORRUPT, "tensor %s: holds a value that is not finite", out->name);
    }
    return MOE_OK;
}

/* Where a role's tensors lie in this checkpoint. */
typedef struct source {
    const char *pattern;
    uint32_t part, of;
    bool all_experts; /* one file tensor for all of a layer */
} source;

static source source_of(const resolver *r, model_role role, bool stored)
{
    const model_family *family = r->t->config.family;
    const model_stored *row = stored && family->stored != NULL ? &family->stored[role] : NULL;

    if (row == NULL || row->pattern == NULL) {
        return (source){.pattern = model_role_pattern(&r->t->config, role), .of = 1};
    }
    return (source){row->pattern, row->part, row->of, strstr(row->pattern, "{e}") == NULL};
}

/* What the file's tensor must look like: of parts of an expert's rows, all experts or one. */
static model_tensor_shape file_shape(const source *from, const model_tensor_shape *shape, size_t n_experts)
{
    model_tensor_shape out = *shape;

    out.dims[0] *= from->of;
    if (from->all_experts) {
        out = (model_tensor_shape){.rank = shape->rank + 1, .dims = {n_experts, out.dims[0], out.dims[1]}};
    }
    return out;
}

/* All tensors of a role in one layer. */
static moe_status resolve(resolver *r, model_role role, uint32_t layer, bool stored)
{
    const model_config *c = &r->t->config;
    source from = source_of(r, role, stored);
    uint32_t first, n = model_role_experts(c, role, &first);
    model_tensor_shape shape, whole;
    moe_status status = MOE_OK;

    if (!model_tensor_shape_of(c, role, layer, &shape)) {
        return MOE_OK;
    }
    whole = file_shape(&from, &shape, n);
    for (uint32_t i = 0; i < n && status == MOE_OK; i++) {
        char name[CHECKPOINT_MAX_NAME];
        const checkpoint_tensor *tensor;

        model_format_name(from.pattern, layer, first + i, name);
        tensor = take(r, name);
        if (tensor == NULL) {
            return moe_fail(r->err, MOE_ERR_INVALID_ARG, "tensor %s: missing", name);
        }
        status = check_tensor(r, tensor, role, &whole);
        if (status == MOE_OK) {
            size_t part = (from.all_experts ? (size_t)i * from.of : 0) + from.part;
            status = add(r, role, layer, first + i, &shape, tensor, part, (from.all_experts ? n : 1) * (size_t)from.of);
        }
    }
    return status;
}

/* One stored tensor makes the layer so. What is there of the other layout is then not expected, and refused as such. */
static bool is_stored(const resolver *r, uint32_t layer)
{
    const model_family *family = r->t->config.family;
    char name[CHECKPOINT_MAX_NAME];

    if (family->stored == NULL || !family->stored_is_optional) {
        return true;
    }
    for (int role = 0; role < MODEL_N_ROLES; role++) {
        if (family->stored[role].pattern != NULL) {
            model_format_name(family->stored[role].pattern, layer, 0, name);
            if (checkpoint_find(r->cp, name) != NULL) {
                return true;
            }
        }
    }
    return false;
}

/* The largest FFN expert, of the layer whose tensors begin at `first`. */
static void measure_experts(resolver *r, size_t first)
{
    const model_config *c = &r->t->config;
    size_t n_matrices = c->ffn == COMPUTE_FFN_SWIGLU ? 3 : 2, n = c->n_ffn_experts;

    MOE_ASSERT(r->t->n - first == n_matrices * n);
    for (size_t expert = 0; expert < n; expert++) { /* role by role, each with all experts */
        size_t bytes = 0;
        for (size_t i = 0; i < n_matrices; i++) {
            bytes += r->t->all[first + i * n + expert].bytes;
        }
        r->t->expert_bytes = MOE_MAX(r->t->expert_bytes, bytes);
        r->t->all_experts_bytes += bytes;
    }
}

static moe_status resolve_layer(resolver *r, uint32_t layer)
{
    bool stored = is_stored(r, layer);
    moe_status status = MOE_OK;
    size_t first = 0;

    for (int role = MODEL_FIRST_LAYER_ROLE; role < MODEL_N_ROLES && status == MOE_OK; role++) {
        first = role == MODEL_FIRST_EXPERT_ROLE ? r->t->n : first;
        status = resolve(r, (model_role)role, layer, stored);
    }
    if (status == MOE_OK) {
        measure_experts(r, first);
    }
    return status;
}

static bool is_ignored(const model_family *family, const char *name)
{
    size_t n = strlen(name);

    for (const char *const *end = family->ignored; end != NULL && *end != NULL; end++) {
        size_t m = strlen(*end);
        if (n >= m && strcmp(name + n - m, *end) == 0) {
            return true;
        }
    }
    return false;
}

static moe_status refuse_unexpected(const resolver *r)
{
    for (size_t i = 0; i < checkpoint_n_tensors(r->cp); i++) {
        const char *name = checkpoint_at(r->cp, i)->name;

        if (!r->used[i] && !is_ignored(r->t->config.family, name)) {
            return moe_fail(r->err, MOE_ERR_INVALID_ARG, "tensor %s: unexpected, the config has no such tensor", name);
        }
    }
    return MOE_OK;
}

/* Some programs write the head of a tied model as well. It is left alone if it is the embedding; if not, the config and
 * the file speak of two models. */
static moe_status check_stored_head(resolver *r)
{
    const model_config *c = &r->t->config;
    char name[CHECKPOINT_MAX_NAME];
    const checkpoint_tensor *head, *embedding;

    if (!c->tied_head) {
        return MOE_OK;
    }
    model_tensor_name(c, MODEL_ROLE_HEAD, 0, 0, name);
    head = take(r, name);
    model_tensor_name(c, MODEL_ROLE_EMBED, 0, 0, name);
    embedding = take(r, name);
    if (head == NULL ||
        (head->dtype == embedding->dtype && head->rank == 2 && head->shape[0] == embedding->shape[0] &&
         head->shape[1] == embedding->shape[1] && memcmp(head->data, embedding->data, head->bytes) == 0)) {
        return MOE_OK;
    }
    return moe_fail(r->err, MOE_ERR_INVALID_ARG,
                    "tensor %s: differs from %s, while tie_word_embeddings is true and makes them one", head->name,
                    embedding->name);
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(((const checkpoint_logical *)a)->name, ((const checkpoint_logical *)b)->name);
}

static moe_status resolve_all(resolver *r)
{
    moe_status status = MOE_OK;

    for (int role = 0; role < MODEL_FIRST_LAYER_ROLE && status == MOE_OK; role++) {
        status = resolve(r, (model_role)role, 0, false);
    }
    for (uint32_t layer = 0; layer < r->t->config.n_layers && status == MOE_OK; layer++) {
        status = resolve_layer(r, layer);
    }
    if (status == MOE_OK) {
        status = check_stored_head(r);
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
    size_t layer = 0;
    uint32_t first;

    for (int role = MODEL_FIRST_LAYER_ROLE; role < MODEL_N_ROLES; role++) {
        layer += model_role_experts(c, (model_role)role, &first);
    }
    return MODEL_FIRST_LAYER_ROLE + c->n_layers * layer;
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
    t->checkpoint = cp;
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
moe_status model_tensors_manifest(const model_tensors *t, moe_threads *threads, const char *cache_dir,
                                  checkpoint_progress progress, void *progress_ctx, checkpoint_manifest *out,
                                  moe_error *err)
{
    moe_text config;

    moe_text_init(&config, CONFIG_TEXT);
    model_config_text(&t->config, &config);
    moe_status status = checkpoint_manifest_build(t->checkpoint, moe_text_cstr(&config), t->all, t->n, threads,
                                                  cache_dir, progress, progress_ctx, out, err);
    moe_text_fini(&config);
    return status;
}

size_t model_tensors_count(const model_tensors *t)
{
    return t->n;
}

const checkpoint_logical *model_tensors_all(const model_tensors *t)
{
    return t->all;
}

void model_tensors_forget(const model_tensors *t, const checkpoint_logical *tensor)
{
    checkpoint_forget(t->checkpoint, tensor->data, tensor->bytes);
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
    model_tensor_shape shape;

    if (!model_tensor_shape_of(&t->config, role, layer, &shape)) {
        return NULL;
    }
    model_tensor_name(&t->config, role, layer, expert, name);
    return model_tensors_find(t, name);
}

compute_class model_tensors_auto_class(const model_tensors *t)
{
    return t->all_matrices_bf16 ? COMPUTE_CLASS_BF16_1 : COMPUTE_CLASS_F32_1;
}

size_t model_tensors_coordinator_bytes(const model_tensors *t)
{
    size_t bytes = 0;

    for (size_t i = 0; i < t->n; i++) {
        bytes += t->all[i].bytes;
    }
    return bytes - t->all_experts_bytes;
}

size_t model_expert_bytes(const model_config *c, const model_tensors *t)
{
    (void)c;
    return t->expert_bytes;
}
