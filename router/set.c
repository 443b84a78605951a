/* Expert sets: immutable, ref-counted, named by the hash of what they route to. */
#include "router/router.h"

#include <openssl/evp.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define ENTRY_BYTES 96 /* of one expert in the text that is hashed */

struct router_set {
    atomic_uint refs;
    router_space *space; /* shared */
    size_t n_layers;
    router_set_layer *layers; /* owned [n_layers]; their arrays point into ids and columns */
    int32_t *ids;             /* owned, all layers */
    uint32_t *columns;        /* owned, all layers */
    char id[65];
};

static void hex(char *out, const unsigned char *bytes, size_t n)
{
    static const char digits[] = "0123456789abcdef";

    for (size_t i = 0; i < n; i++) {
        out[2 * i] = digits[bytes[i] >> 4];
        out[2 * i + 1] = digits[bytes[i] & 15];
    }
    out[2 * n] = '\0';
}

/* One expert's part of its layer's line. */
static int put_expert(char text[ENTRY_BYTES], const router_space *space, uint32_t layer, int32_t id, char end)
{
    const unsigned char *hash = router_space_hash(space, router_space_slot(space, layer, id));
    char hash_hex[65] = "";

    if (hash != NULL) {
        hex(hash_hex, hash, 32);
    }
    return snprintf(text, ENTRY_BYTES, "%d%s%s%c", id, hash != NULL ? ":" : "", hash_hex, end);
}

static bool hash_layer(EVP_MD_CTX *ctx, const router_set *s, uint32_t l)
{
    const router_set_layer *layer = &s->layers[l];
    char text[ENTRY_BYTES];

    for (uint32_t i = 0; i < layer->n_experts; i++) {
        char end = i + 1 < layer->n_experts ? ',' : '\n';
        int n = put_expert(text, s->space, l, layer->expert_ids[i], end);

        if (EVP_DigestUpdate(ctx, text, (size_t)n) != 1) {
            return false;
        }
    }
    return true;
}

static moe_status set_hash(router_set *s, const unsigned char fingerprint[32])
{
    unsigned char digest[32];
    char head[96];
    char fingerprint_hex[65];
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool ok;

    hex(fingerprint_hex, fingerprint, 32);
    int n = snprintf(head, sizeof head, "conclave-set 1\n%s\n", fingerprint_hex);
    ok = ctx != NULL && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) == 1 && EVP_DigestUpdate(ctx, head, (size_t)n) == 1;
    for (uint32_t l = 0; ok && l < s->n_layers; l++) {
        ok = hash_layer(ctx, s, l);
    }
    ok = ok && EVP_DigestFinal_ex(ctx, digest, NULL) == 1;
    EVP_MD_CTX_free(ctx);
    if (!ok) {
        return MOE_ERR_NO_MEMORY;
    }
    hex(s->id, digest, sizeof digest);
    return MOE_OK;
}

static moe_status layer_check(const router_space *space, const router_set_layer *layer, uint32_t l,
                              uint32_t min_experts, moe_error *err)
{
    if (layer->n_experts == 0 || layer->n_experts < min_experts) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "expert set: layer %u has %u experts, at least %u are needed", l,
                        layer->n_experts, MOE_MAX(min_experts, 1u));
    }
    for (uint32_t i = 0; i < layer->n_experts; i++) {
        int32_t floor = i == 0 ? -1 : layer->expert_ids[i - 1];

        if (layer->expert_ids[i] <= floor) {
            return moe_fail(err, MOE_ERR_INVALID_ARG, "expert set: layer %u expert id %d at %u is not above %d", l,
                            layer->expert_ids[i], i, floor);
        }
        if (router_space_slot(space, l, layer->expert_ids[i]) == ROUTER_NO_SLOT) {
            return moe_fail(err, MOE_ERR_INVALID_ARG, "expert set: layer %u has no expert %d", l, layer->expert_ids[i]);
        }
    }
    return MOE_OK;
}

static void set_free(router_set *s)
{
    router_space_unref(s->space);
    free(s->layers);
    free(s->ids);
    free(s->columns);
    free(s);
}

static moe_status set_copy(router_set *s, const router_set_layer *layers, size_t n_layers, size_t n_experts)
{
    size_t at = 0;

    s->layers = calloc(n_layers, sizeof *s->layers);
    s->ids = calloc(n_experts, sizeof *s->ids);
    s->columns = calloc(n_experts, sizeof *s->columns);
    if (s->layers == NULL || s->ids == NULL || s->columns == NULL) {
        return MOE_ERR_NO_MEMORY;
    }
    s->n_layers = n_layers;
    for (size_t l = 0; l < n_layers; l++) {
        size_t n = layers[l].n_experts;

        memcpy(s->ids + at, layers[l].expert_ids, n * sizeof *s->ids);
        memcpy(s->columns + at, layers[l].columns, n * sizeof *s->columns);
        s->layers[l] = (router_set_layer){layers[l].n_experts, s->ids + at, s->columns + at};
        at += n;
    }
    return MOE_OK;
}

moe_status router_set_open(router_space *space, const router_set_layer *layers, uint32_t min_experts,
                           const unsigned char model_fingerprint[32], router_set **out, moe_error *err)
{
    uint32_t n_layers = router_space_n_layers(space);
    size_t n_experts = 0;
    moe_status status;

    for (uint32_t l = 0; l < n_layers; l++) {
        status = layer_check(space, &layers[l], l, min_experts, err);
        if (status != MOE_OK) {
            return status;
        }
        n_experts += layers[l].n_experts;
    }
    router_set *s = calloc(1, sizeof *s);
    if (s == NULL) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "expert set: %zu experts", n_experts);
    }
    atomic_init(&s->refs, 1);
    s->space = router_space_ref(space);
    status = set_copy(s, layers, n_layers, n_experts);
    if (status == MOE_OK) {
        status = set_hash(s, model_fingerprint);
    }
    if (status != MOE_OK) {
        set_free(s);
        return moe_fail(err, status, "expert set: %zu experts", n_experts);
    }
    *out = s;
    return MOE_OK;
}

moe_status router_set_open_all(router_space *space, uint32_t min_experts, const unsigned char model_fingerprint[32],
                               router_set **out, moe_error *err)
{
    uint32_t n_layers = router_space_n_layers(space), widest = router_space_widest(space);
    moe_status status = MOE_ERR_NO_MEMORY;
    router_set_layer *layers = calloc(n_layers, sizeof *layers);
    uint32_t *columns = calloc(widest, sizeof *columns);

    if (layers == NULL || columns == NULL) {
        moe_fail(err, status, "expert set: %u layers of up to %u experts", n_layers, widest);
        goto out;
    }
    for (uint32_t place = 0; place < widest; place++) {
        columns[place] = place;
    }
    for (uint32_t l = 0; l < n_layers; l++) {
        const router_space_layer *layer = router_space_at(space, l);

        layers[l] = (router_set_layer){layer->n_experts, layer->ids, columns};
    }
    status = router_set_open(space, layers, min_experts, model_fingerprint, out, err);
out:
    free(layers);
    free(columns);
    return status;
}

router_set *router_set_ref(router_set *s)
{
    atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
    return s;
}

void router_set_unref(router_set *s)
{
    if (s != NULL && atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) == 1) {
        set_free(s);
    }
}

const char *router_set_id(const router_set *s)
{
    return s->id;
}

router_space *router_set_space(const router_set *s)
{
    return s->space;
}

size_t router_set_n_layers(const router_set *s)
{
    return s->n_layers;
}

const router_set_layer *router_set_at(const router_set *s, size_t layer)
{
    MOE_ASSERT(layer < s->n_layers);
    return &s->layers[layer];
}

bool router_set_layer_has(const router_set_layer *layer, int32_t expert_id)
{
    uint32_t low = 0, high = layer->n_experts;

    while (low < high) {
        uint32_t middle = low + (high - low) / 2;

        if (layer->expert_ids[middle] < expert_id) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < layer->n_experts && layer->expert_ids[low] == expert_id;
}

void router_set_mark(const router_set *s, const router_space *space, uint64_t *bitmap)
{
    for (uint32_t l = 0; l < router_set_n_layers(s); l++) {
        const router_set_layer *layer = router_set_at(s, l);

        for (uint32_t i = 0; i < layer->n_experts; i++) {
            uint32_t slot = router_space_slot(space, l, layer->expert_ids[i]);
            if (slot != ROUTER_NO_SLOT) {
                router_bit_set(bitmap, slot);
            }
        }
    }
}

/* An earlier space has all of a layer up to its highest id. */
bool router_set_is_in(const router_set *s, const router_space *space)
{
    size_t n_layers = router_set_n_layers(s);
    bool is = n_layers == router_space_n_layers(space);

    for (uint32_t l = 0; l < n_layers && is; l++) {
        const router_set_layer *layer = router_set_at(s, l);
        is = layer->n_experts == 0 ||
             router_space_slot(space, l, layer->expert_ids[layer->n_experts - 1]) != ROUTER_NO_SLOT;
    }
    return is;
}
