/* What a manifest says of tensors that are not there yet. */
#include "checkpoint/output.h"
#include "pack/pack_priv.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define MAX_TENSORS (5 * (size_t)PACK_MAX_ALL + 4 * (size_t)MODEL_MAX_LAYERS)

struct pack_contents {
    moe_json *json;   /* owned; names point into it */
    pack_content *at; /* owned [n] */
    size_t n;
};

void pack_contents_close(pack_contents *c)
{
    if (c != NULL) {
        moe_json_free(c->json);
        free(c->at);
        free(c);
    }
}

static size_t dtype_bytes(const char *name)
{
    static const struct {
        const char *name;
        size_t bytes;
    } known[] = {{"F32", 4}, {"BF16", 2}, {"F16", 2}};

    for (size_t i = 0; name != NULL && i < MOE_COUNT(known); i++) {
        if (strcmp(known[i].name, name) == 0) {
            return known[i].bytes;
        }
    }
    return 0;
}

static bool read_dim(const json_t *json, size_t *out)
{
    json_int_t v = json_integer_value(json);

    *out = (size_t)v;
    return json_is_integer(json) && v > 0 && v <= INT32_MAX;
}

static moe_status read_content(const char *name, const json_t *json, pack_content *c, moe_error *err)
{
    const json_t *shape = json_object_get(json, "shape");
    const char *hex = json_string_value(json_object_get(json, "sha256"));

    c->name = name;
    c->dtype_name = json_string_value(json_object_get(json, "dtype"));
    c->bytes = dtype_bytes(c->dtype_name);
    if (c->bytes == 0 || json_array_size(shape) != 2 || !read_dim(json_array_get(shape, 0), &c->shape[0]) ||
        !read_dim(json_array_get(shape, 1), &c->shape[1]) || strlen(name) >= CHECKPOINT_MAX_NAME ||
        __builtin_mul_overflow(c->bytes, c->shape[0], &c->bytes) ||
        __builtin_mul_overflow(c->bytes, c->shape[1], &c->bytes)) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "tensors.%.200s: must be a matrix of F32, BF16 or F16", name);
    }
    return hex != NULL && pack_read_digest(hex, &c->digest)
               ? MOE_OK
               : moe_fail(err, MOE_ERR_INVALID_ARG, "tensors.%.200s.sha256: must be 64 lower-case hex digits", name);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const pack_content *)a)->name, ((const pack_content *)b)->name);
}

static moe_status read_tensors(pack_contents *c, moe_error *err)
{
    json_t *list = json_object_get(c->json, "tensors"), *entry;
    size_t n = json_object_size(list);
    const char *name;

    if (n == 0 || n > MAX_TENSORS) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "tensors: must be an object of 1 to %zu", MAX_TENSORS);
    }
    c->at = calloc(n, sizeof *c->at);
    if (c->at == NULL) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "%zu tensors", n);
    }
    json_object_foreach(list, name, entry)
    {
        moe_status status = read_content(name, entry, &c->at[c->n++], err);

        if (status != MOE_OK) {
            return status;
        }
    }
    qsort(c->at, c->n, sizeof *c->at, by_name);
    return MOE_OK;
}

/* The tensors that an object names by these keys. */
static void mark(pack_contents *c, const json_t *object, const char *const *keys)
{
    for (; *keys != NULL; keys++) {
        const pack_content key = {.name = json_string_value(json_object_get(object, *keys))};
        pack_content *found = key.name == NULL ? NULL : bsearch(&key, c->at, c->n, sizeof key, by_name);

        if (found != NULL) {
            found->is_router = true;
        }
    }
}

static void mark_router(pack_contents *c)
{
    static const char *const of_layer[] = {"router", "map_rows", "map_columns", NULL};
    static const char *const of_expert[] = {"q", "o", NULL};
    const json_t *layers = json_object_get(c->json, "layers");

    for (size_t l = 0; l < json_array_size(layers); l++) {
        const json_t *layer = json_array_get(layers, l), *attention = json_object_get(layer, "attention");
        const json_t *experts = json_object_get(attention, "experts");

        mark(c, layer, of_layer);
        mark(c, attention, of_layer);
        for (size_t i = 0; i < json_array_size(experts); i++) {
            mark(c, json_array_get(experts, i), of_expert);
        }
    }
}

moe_status pack_contents_read(const char *manifest, size_t n, const pack_base *base, pack_contents **out,
                              moe_error *err)
{
    pack_contents *c = calloc(1, sizeof *c);

    if (c == NULL) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "a pack's contents");
    }
    moe_status status = moe_json_parse(manifest, n, PACK_MANIFEST_DEPTH, &c->json, err);
    if (status == MOE_OK && !json_is_object(c->json)) {
        status = moe_fail(err, MOE_ERR_INVALID_ARG, "pack: must be an object");
    }
    if (status == MOE_OK) {
        status = pack_check_base(base, c->json, err);
    }
    if (status == MOE_OK) {
        status = read_tensors(c, err);
    }
    if (status != MOE_OK) {
        pack_contents_close(c);
        return status;
    }
    mark_router(c);
    *out = c;
    return MOE_OK;
}

size_t pack_contents_n(const pack_contents *c)
{
    return c->n;
}

const pack_content *pack_contents_at(const pack_contents *c, size_t i)
{
    MOE_ASSERT(i < c->n);
    return &c->at[i];
}

moe_status pack_contents_head(const pack_contents *c, bool router_only, char **out, size_t *n_out)
{
    output_tensor *tensors = calloc(c->n, sizeof *tensors);
    size_t n = 0;

    for (size_t i = 0; tensors != NULL && i < c->n; i++) {
        const pack_content *p = &c->at[i];

        if (p->is_router || !router_only) {
            tensors[n++] = (output_tensor){p->name, p->dtype_name, p->shape, MOE_COUNT(p->shape), p->bytes};
        }
    }
    moe_status status = tensors != NULL ? output_header(tensors, n, out, n_out) : MOE_ERR_NO_MEMORY;
    free(tensors);
    return status;
}
