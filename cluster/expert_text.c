/* Experts as they stand in records: of a layer a text, of all layers a list of such texts. */
#include "cluster/cluster_priv.h"

#include <jansson.h>
#include <string.h>

void cluster_put_experts(moe_text *t, const router_space_layer *layer, bool (*in)(const void *ctx, uint32_t slot),
                         const void *ctx)
{
    const char *before = "";

    moe_text_append(t, "\"", 1);
    for (uint32_t i = 0, end; i < layer->n_experts; i = end) {
        for (end = i; end < layer->n_experts && in(ctx, layer->slots[end]); end++) {
        }
        if (end == i) {
            end++;
            continue;
        }
        moe_text_printf(t, end - i > 1 ? "%s%d-%d" : "%s%d", before, layer->ids[i], layer->ids[end - 1]);
        before = ",";
    }
    moe_text_append(t, "\"", 1);
}

moe_status cluster_read_experts(const moe_json *text, const char *key, const router_space_layer *layer,
                                bool (*each)(void *ctx, uint32_t slot), void *ctx, moe_error *err)
{
    const char *at = json_string_value(text);
    int32_t first, last = -1;
    uint32_t place = 0;

    if (at == NULL || strlen(at) != json_string_length(text)) {
        return moe_fail(err, MOE_ERR_CORRUPT, "%s: a layer's experts must be a string of ids and ranges", key);
    }
    while (*at != '\0') {
        const char *next = router_ids_take(at, &first, &last);

        if (next == NULL) {
            return moe_fail(err, MOE_ERR_CORRUPT, "%s: \"%.24s\" must be ascending ids and ranges of ids", key, at);
        }
        for (; place < layer->n_experts && layer->ids[place] <= last; place++) {
            if (layer->ids[place] >= first && !each(ctx, layer->slots[place])) {
                return moe_fail(err, MOE_ERR_CORRUPT, "%s: expert %d is there twice, or no node's", key,
                                layer->ids[place]);
            }
        }
        at = next;
    }
    return MOE_OK;
}

/* ------------------------------------------------------------------------------------------------ of all layers */
static bool bit_is_set(const void *ctx, uint32_t slot)
{
    return router_bit(ctx, slot);
}

void cluster_put_bitmap(moe_text *t, const char *key, const router_space *space, const uint64_t *bitmap)
{
    moe_text_printf(t, ",\"%s\":[", key);
    for (uint32_t layer = 0; layer < router_space_n_layers(space); layer++) {
        moe_text_printf(t, layer > 0 ? "," : "");
        cluster_put_experts(t, router_space_at(space, layer), bit_is_set, bitmap);
    }
    moe_text_printf(t, "]");
}

typedef struct bits {
    const router_space *space;
    uint64_t *bitmap;
    uint32_t n_set;
} bits;

static bool set_bit(void *ctx, uint32_t slot)
{
    bits *b = ctx;

    router_bit_set(b->bitmap, slot);
    b->n_set++;
    return !router_space_expert(b->space, slot)->is_local;
}

moe_status cluster_read_bitmap(const moe_json *json, const char *key, const router_space *space, uint64_t *bitmap,
                               uint32_t *n_set, moe_error *err)
{
    const json_t *layers = json_object_get(json, key);
    uint32_t n_layers = router_space_n_layers(space);
    bits b = {.space = space, .bitmap = bitmap};
    moe_status status = MOE_OK;

    if (!json_is_array(layers) || json_array_size(layers) != n_layers) {
        return moe_fail(err, MOE_ERR_CORRUPT, "%s: must be an array of %u layers", key, n_layers);
    }
    memset(bitmap, 0, router_space_words(space) * sizeof *bitmap);
    for (uint32_t layer = 0; layer < n_layers && status == MOE_OK; layer++) {
        status =
            cluster_read_experts(json_array_get(layers, layer), key, router_space_at(space, layer), set_bit, &b, err);
    }
    *n_set = b.n_set;
    return status;
}
