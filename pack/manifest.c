/* pack.json: read strictly. A key that nobody knows is an error: a typing mistake must not change what a pack means. */
#include "pack/pack_priv.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

/* ------------------------------------------------------------------------------------------------ fields */
static moe_status check_keys(const json_t *object, const char *where, const char *const *known, moe_error *err)
{
    const char *key;
    json_t *value;

    if (!json_is_object(object)) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "%s: must be an object", where);
    }
    json_object_foreach((json_t *)(uintptr_t)object, key, value)
    {
        size_t i = 0;

        (void)value;
        while (known[i] != NULL && strcmp(known[i], key) != 0) {
            i++;
        }
        if (known[i] == NULL) {
            return moe_fail(err, MOE_ERR_INVALID_ARG, "%s: unknown key \"%.64s\"", where, key);
        }
    }
    return MOE_OK;
}

/* Its text; absent, or of another type or length, is an error. */
static moe_status need_text(const json_t *object, const char *where, const char *key, size_t most, const char **out,
                            moe_error *err)
{
    const json_t *value = json_object_get(object, key);
    size_t n = json_string_length(value);

    if (!json_is_string(value) || n == 0 || n > most || strlen(json_string_value(value)) != n) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "%s.%s: must be a text of 1 to %zu bytes", where, key, most);
    }
    *out = json_string_value(value);
    return MOE_OK;
}

static moe_status need_name(const json_t *json, const char *key, char out[PACK_MAX_NAME + 1], moe_error *err)
{
    const char *text;
    moe_status status = need_text(json, "pack", key, PACK_MAX_NAME, &text, err);

    if (status != MOE_OK) {
        return status;
    }
    if (text[strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-_")] != '\0') {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "pack.%s: \"%.64s\" must be of A-Z a-z 0-9 . - _", key, text);
    }
    (void)snprintf(out, PACK_MAX_NAME + 1, "%s", text);
    return MOE_OK;
}

bool pack_read_digest(const char *hex, checkpoint_digest *out)
{
    static const char digits[] = "0123456789abcdef";

    for (size_t i = 0; i < 64; i++) {
        const char *digit = hex[i] == '\0' ? NULL : strchr(digits, hex[i]);

        if (digit == NULL) {
            return false;
        }
        out->bytes[i / 2] = (unsigned char)(out->bytes[i / 2] << 4 | (digit - digits));
    }
    return hex[64] == '\0';
}

static moe_status need_digest(const json_t *object, const char *where, const char *key, checkpoint_digest *out,
                              moe_error *err)
{
    const char *hex;
    moe_status status = need_text(object, where, key, 64, &hex, err);

    if (status == MOE_OK && !pack_read_digest(hex, out)) {
        status = moe_fail(err, MOE_ERR_INVALID_ARG, "%s.%s: must be 64 lower-case hex digits", where, key);
    }
    return status;
}

/* ------------------------------------------------------------------------------------------------ tensors */
static bool has_shape(const json_t *shape, const size_t *dims, size_t rank)
{
    if (!json_is_array(shape) || json_array_size(shape) != rank) {
        return false;
    }
    for (size_t i = 0; i < rank; i++) {
        const json_t *dim = json_array_get(shape, i);

        if (!json_is_integer(dim) || json_integer_value(dim) < 0 || (uint64_t)json_integer_value(dim) != dims[i]) {
            return false;
        }
    }
    return true;
}

/* What the manifest says of a tensor is what the file has. */
static moe_status check_listed(pack_reading *r, const checkpoint_tensor *t, checkpoint_digest *digest, moe_error *err)
{
    static const char *const known[] = {"dtype", "shape", "sha256", NULL};
    const json_t *entry = json_object_get(r->listed, t->name);
    const char *dtype = json_string_value(json_object_get(entry, "dtype"));
    char where[CHECKPOINT_MAX_NAME + 16];

    (void)snprintf(where, sizeof where, "tensors.%s", t->name);
    if (entry == NULL) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "%s: is in no list of the manifest", where);
    }
    moe_status status = check_keys(entry, where, known, err);
    if (status == MOE_OK && (dtype == NULL || strcmp(dtype, t->dtype_name) != 0)) {
        status = moe_fail(err, MOE_ERR_INVALID_ARG, "%s.dtype: is not the file's, %s", where, t->dtype_name);
    }
    if (status == MOE_OK && !has_shape(json_object_get(entry, "shape"), t->shape, t->rank)) {
        status = moe_fail(err, MOE_ERR_INVALID_ARG, "%s.shape: is not the file's", where);
    }
    return status == MOE_OK ? need_digest(entry, where, "sha256", digest, err) : status;
}

/* The tensor that a key names: [rows, columns] of one of our dtypes (any: also another than the base's). */
static moe_status take_matrix(pack_reading *r, const json_t *object, const char *where, const char *key, size_t rows,
                              size_t columns, bool any, const checkpoint_tensor **out, moe_error *err)
{
    const char *name;
    moe_status status = need_text(object, where, key, CHECKPOINT_MAX_NAME - 1, &name, err);

    if (status != MOE_OK) {
        return status;
    }
    size_t i = checkpoint_find_at(r->p->tensors, name);
    if (i == SIZE_MAX) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "%s.%s: the files have no tensor %.200s", where, key, name);
    }
    const checkpoint_tensor *t = checkpoint_at(r->p->tensors, i);
    if (r->used[i]) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "%s.%s: tensor %s is named twice", where, key, name);
    }
    if (t->rank != 2 || t->shape[0] != rows || t->shape[1] != columns) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "%s.%s: tensor %s must have the shape [%zu, %zu]", where, key, name,
                        rows, columns);
    }
    if (t->dtype == COMPUTE_DTYPE_OTHER || (!any && t->dtype != r->base->dtype)) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "%s.%s: tensor %s is %s; the base's are %s", where, key, name,
                        t->dtype_name, compute_dtype_name(r->base->dtype));
    }
    r->used[i] = true;
    *out = t;
    return check_listed(r, t, &r->digests[i], err);
}

/* ------------------------------------------------------------------------------------------------ layers */
static moe_status read_replaces(const pack_reading *r, const json_t *json, const char *where, const pack_layer *layer,
                                pack_expert *e, moe_error *err)
{
    int64_t id = -1;
    bool found;
    moe_status status =
        moe_json_int(json, "replaces", 0, (int64_t)r->base->config->n_ffn_experts - 1, &id, &found, err);

    if (status != MOE_OK) {
        return status;
    }
    if (found != (r->p->kind == PACK_REPLACE)) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "%s.replaces: %s", where,
                        found ? "only of a pack of kind replace" : "is missing");
    }
    e->replaces = (int32_t)id;
    for (const pack_expert *other = layer->experts; found && other < e; other++) {
        if (other->replaces == e->replaces) {
            return moe_fail(err, MOE_ERR_INVALID_ARG, "%s.replaces: expert %d is replaced twice", where, e->replaces);
        }
    }
    return MOE_OK;
}

static moe_status read_expert(pack_reading *r, const json_t *json, const pack_layer *layer, pack_expert *e,
                              moe_error *err)
{
    static const char *const known[] = {"gate", "up", "down", "replaces", NULL};
    const model_config *c = r->base->config;
    bool has_gate = c->ffn == COMPUTE_FFN_SWIGLU;
    char where[64];

    (void)snprintf(where, sizeof where, "layer %u expert %td", layer->layer, e - layer->experts);
    moe_status status = check_keys(json, where, known, err);
    if (status == MOE_OK) {
        status = read_replaces(r, json, where, layer, e, err);
    }
    if (status == MOE_OK && !has_gate && json_object_get(json, "gate") != NULL) {
        status = moe_fail(err, MOE_ERR_INVALID_ARG, "%s.gate: experts of this family have none", where);
    }
    if (status != MOE_OK || r->router_only) {
        return status;
    }
    if (has_gate) {
        status = take_matrix(r, json, where, "gate", c->d_ff, c->d_model, false, &e->gate, err);
    }
    if (status == MOE_OK) {
        status = take_matrix(r, json, where, "up", c->d_ff, c->d_model, false, &e->up, err);
    }
    return status == MOE_OK ? take_matrix(r, json, where, "down", c->d_model, c->d_ff, false, &e->down, err) : status;
}

static moe_status read_experts(pack_reading *r, const json_t *json, pack_layer *layer, moe_error *err)
{
    const json_t *list = json_object_get(json, "experts");
    size_t n = json_array_size(list);

    if (!json_is_array(list) || n == 0 || n > PACK_MAX_EXPERTS || n > PACK_MAX_ALL - r->p->n_experts) {
        return moe_fail(err, MOE_ERR_INVALID_ARG,
                        "layer %u.experts: must be an array of 1 to %d experts, and at most %d in all", layer->layer,
                        PACK_MAX_EXPERTS, PACK_MAX_ALL);
    }
    layer->experts = r->p->experts + r->p->n_experts;
    layer->n_experts = (uint32_t)n;
    for (size_t i = 0; i < n; i++) {
        moe_status status = read_expert(r, json_array_get(list, i), layer, &r->p->experts[r->p->n_experts++], err);

        if (status != MOE_OK) {
            return status;
        }
    }
    return MOE_OK;
}

/* Of the pack, in the layer before. */
static uint32_t experts_before(const pack *p, const pack_layer *layer)
{
    const pack_layer *before = layer - 1;

    return layer > p->layers && before->layer + 1 == layer->layer ? before->n_experts : 0;
}

static moe_status read_router(pack_reading *r, const json_t *json, pack_layer *layer, moe_error *err)
{
    const model_config *c = r->base->config;
    size_t width = c->gate_kind == MODEL_GATE_LINEAR ? c->d_model : c->gate_width;
    uint32_t before = experts_before(r->p, layer);
    bool adds = r->p->kind == PACK_ADD, has_map = adds && c->gate_map && layer->layer > 0;
    const struct {
        const char *key;
        bool there;
        size_t rows, columns;
        const checkpoint_tensor **out;
    } parts[] = {{"router", adds, layer->n_experts, width, &layer->router},
                 {"map_rows", has_map, layer->n_experts, (size_t)c->n_experts + before, &layer->map_rows},
                 {"map_columns", has_map && before > 0, c->n_experts, before, &layer->map_columns}};
    char where[32];

    (void)snprintf(where, sizeof where, "layer %u", layer->layer);
    for (size_t i = 0; i < MOE_COUNT(parts); i++) {
        if (!parts[i].there && json_object_get(json, parts[i].key) != NULL) {
            return moe_fail(err, MOE_ERR_INVALID_ARG, "%s.%s: there is none in this layer, kind and family", where,
                            parts[i].key);
        }
        moe_status status = parts[i].there ? take_matrix(r, json, where, parts[i].key, parts[i].rows, parts[i].columns,
                                                         true, parts[i].out, err)
                                           : MOE_OK;
        if (status != MOE_OK) {
            return status;
        }
    }
    return MOE_OK;
}

/* ------------------------------------------------------------------------------------------------ attention */
static moe_status read_attention_expert(pack_reading *r, const json_t *json, const pack_layer *layer, size_t i,
                                        moe_error *err)
{
    static const char *const known[] = {"q", "o", NULL};
    const model_config *c = r->base->config;
    model_attention_parts *e = &r->p->attention[r->p->n_attention++];
    size_t heads = (size_t)c->n_heads * c->head_dim;
    char where[64];

    (void)snprintf(where, sizeof where, "layer %u attention expert %zu", layer->layer, i);
    moe_status status = check_keys(json, where, known, err);
    if (status == MOE_OK) {
        status = take_matrix(r, json, where, "q", heads, c->d_model, false, &e->q, err);
    }
    return status == MOE_OK ? take_matrix(r, json, where, "o", c->d_model, heads, false, &e->o, err) : status;
}

static moe_status read_attention(pack_reading *r, const json_t *whole, pack_layer *layer, moe_error *err)
{
    static const char *const known[] = {"router", "experts", NULL};
    const model_config *c = r->base->config;
    const json_t *json = json_object_get(whole, "attention"), *list = json_object_get(json, "experts");
    size_t n = json_array_size(list), width = c->gate_kind == MODEL_GATE_LINEAR ? c->d_model : c->gate_width;
    char where[40];

    if (json == NULL) {
        return MOE_OK;
    }
    (void)snprintf(where, sizeof where, "layer %u.attention", layer->layer);
    if (c->n_att_experts == 0 || r->p->kind != PACK_ADD) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "%s: %s", where,
                        c->n_att_experts == 0 ? "this family has no attention experts" : "only of a pack of kind add");
    }
    moe_status status = check_keys(json, where, known, err);
    if (status == MOE_OK &&
        (!json_is_array(list) || n == 0 || n > PACK_MAX_EXPERTS || n > PACK_MAX_ALL - r->p->n_attention)) {
        status =
            moe_fail(err, MOE_ERR_INVALID_ARG, "%s.experts: must be an array of 1 to %d experts, and at most %d in all",
                     where, PACK_MAX_EXPERTS, PACK_MAX_ALL);
    }
    layer->attention = r->p->attention + r->p->n_attention;
    for (size_t i = 0; i < n && status == MOE_OK; i++) {
        status = read_attention_expert(r, json_array_get(list, i), layer, i, err);
    }
    layer->n_attention = (uint32_t)n;
    return status == MOE_OK ? take_matrix(r, json, where, "router", n, width, true, &layer->attention_router, err)
                            : status;
}

static moe_status read_layer(pack_reading *r, const json_t *json, moe_error *err)
{
    static const char *const known[] = {"layer", "experts", "router", "map_rows", "map_columns", "attention", NULL};
    pack *p = r->p;
    pack_layer *layer = &p->layers[p->n_layers];
    int64_t number = 0;
    bool found;
    char where[40];

    (void)snprintf(where, sizeof where, "layers[%zu]", p->n_layers);
    moe_status status = check_keys(json, where, known, err);
    if (status == MOE_OK) {
        status = moe_json_int(json, "layer", 0, (int64_t)r->base->config->n_layers - 1, &number, &found, err);
    }
    if (status != MOE_OK) {
        return status;
    }
    layer->layer = (uint32_t)number;
    if (!found || (p->n_layers > 0 && layer[-1].layer >= layer->layer)) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "%s.layer: must be there, and above that of the one before", where);
    }
    p->n_layers++;
    status = read_experts(r, json, layer, err);
    if (status == MOE_OK) {
        status = read_router(r, json, layer, err);
    }
    return status == MOE_OK ? read_attention(r, json, layer, err) : status;
}

static moe_status read_layers(pack_reading *r, const json_t *json, moe_error *err)
{
    const json_t *layers = json_object_get(json, "layers");
    size_t n = json_array_size(layers), n_experts = 0, n_attention = 0;

    if (!json_is_array(layers) || n == 0 || n > r->base->config->n_layers) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "layers: must be an array of 1 to %u", r->base->config->n_layers);
    }
    for (size_t i = 0; i < n; i++) {
        const json_t *layer = json_array_get(layers, i);

        n_experts += json_array_size(json_object_get(layer, "experts"));
        n_attention += json_array_size(json_object_get(json_object_get(layer, "attention"), "experts"));
    }
    r->p->layers = calloc(n, sizeof *r->p->layers);
    r->p->experts = calloc(MOE_MIN(n_experts, (size_t)PACK_MAX_ALL) + 1, sizeof *r->p->experts);
    r->p->attention = calloc(MOE_MIN(n_attention, (size_t)PACK_MAX_ALL) + 1, sizeof *r->p->attention);
    if (r->p->layers == NULL || r->p->experts == NULL || r->p->attention == NULL) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "layers: %zu experts", n_experts);
    }
    for (size_t i = 0; i < n; i++) {
        moe_status status = read_layer(r, json_array_get(layers, i), err);

        if (status != MOE_OK) {
            return status;
        }
    }
    return MOE_OK;
}

/* Every tensor has a use, and the list names no others. */
static moe_status check_complete(const pack_reading *r, moe_error *err)
{
    const char *name;
    json_t *entry;

    if (r->router_only) {
        return MOE_OK; /* that is for who has all of it */
    }
    for (size_t i = 0; i < checkpoint_n_tensors(r->p->tensors); i++) {
        if (!r->used[i]) {
            return moe_fail(err, MOE_ERR_INVALID_ARG, "tensor %s: no layer names it",
                            checkpoint_at(r->p->tensors, i)->name);
        }
    }
    json_object_foreach((json_t *)(uintptr_t)r->listed, name, entry)
    {
        (void)entry;
        if (checkpoint_find_at(r->p->tensors, name) == SIZE_MAX) {
            return moe_fail(err, MOE_ERR_INVALID_ARG, "tensors.%.200s: the files have no such tensor", name);
        }
    }
    return MOE_OK;
}

/* ------------------------------------------------------------------------------------------------ the whole */
static moe_status read_kind(const json_t *json, pack_kind *out, moe_error *err)
{
    const char *kind;
    moe_status status = need_text(json, "pack", "kind", 16, &kind, err);

    if (status != MOE_OK) {
        return status;
    }
    if (strcmp(kind, "add") != 0 && strcmp(kind, "replace") != 0) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "pack.kind: \"%s\" must be \"add\" or \"replace\"", kind);
    }
    *out = kind[0] == 'a' ? PACK_ADD : PACK_REPLACE;
    return MOE_OK;
}

moe_status pack_check_base(const pack_base *base, const json_t *json, moe_error *err)
{
    checkpoint_digest digest = {{0}}, own;
    const char *family;
    char theirs[65], mine[65];
    moe_status status = need_text(json, "pack", "family", 31, &family, err);

    if (status == MOE_OK) {
        status = need_digest(json, "pack", "base", &digest, err);
    }
    if (status != MOE_OK) {
        return status;
    }
    if (strcmp(family, base->config->model_type) != 0) {
        return moe_fail(err, MOE_ERR_DENIED, "pack.family: \"%s\"; the model is of \"%s\"", family,
                        base->config->model_type);
    }
    memcpy(own.bytes, base->fingerprint, sizeof own.bytes);
    if (memcmp(digest.bytes, own.bytes, sizeof own.bytes) != 0) {
        checkpoint_digest_hex(&digest, theirs);
        checkpoint_digest_hex(&own, mine);
        return moe_fail(err, MOE_ERR_DENIED, "pack.base: %s; this model's fingerprint is %s", theirs, mine);
    }
    return MOE_OK;
}

static moe_status read_licence(pack *p, const json_t *json, moe_error *err)
{
    const char *text = "";
    bool found;
    moe_status status = moe_json_string(json, "licence", &text, &found, err);

    if (status == MOE_OK && strlen(text) > 1000) {
        status = moe_fail(err, MOE_ERR_INVALID_ARG, "pack.licence: %zu bytes, limit 1000", strlen(text));
    }
    if (status == MOE_OK && (p->licence = strdup(text)) == NULL) {
        status = moe_fail(err, MOE_ERR_NO_MEMORY, "pack.licence");
    }
    return status;
}

moe_status pack_read_manifest(pack_reading *r, const moe_json *json, moe_error *err)
{
    static const char *const known[] = {"v",      "kind",    "name",    "version",    "family",     "base",
                                        "layers", "tensors", "licence", "provenance", "evaluation", NULL};
    int64_t v = 0;
    moe_status status = check_keys(json, "pack", known, err);

    if (status == MOE_OK) {
        status = moe_json_int(json, "v", 1, 1, &v, NULL, err);
    }
    if (status == MOE_OK && v != 1) {
        status = moe_fail(err, MOE_ERR_INVALID_ARG, "pack.v: is missing");
    }
    if (status == MOE_OK) {
        status = read_kind(json, &r->p->kind, err);
    }
    if (status == MOE_OK) {
        status = need_name(json, "name", r->p->name, err);
    }
    if (status == MOE_OK) {
        status = need_name(json, "version", r->p->version, err);
    }
    if (status == MOE_OK) {
        status = pack_check_base(r->base, json, err);
    }
    if (status == MOE_OK) {
        status = read_licence(r->p, json, err);
    }
    r->listed = json_object_get(json, "tensors");
    if (status == MOE_OK && !json_is_object(r->listed)) {
        status = moe_fail(err, MOE_ERR_INVALID_ARG, "tensors: must be an object");
    }
    if (status == MOE_OK) {
        status = read_layers(r, json, err);
    }
    return status == MOE_OK ? check_complete(r, err) : status;
}
