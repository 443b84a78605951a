/* Expert space: which experts there are, immutable and ref-counted, growing by versions. */
#include "router/router.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

struct router_space {
    atomic_uint refs;
    uint32_t version, n_layers, n_slots, widest;
    uint32_t n_base, n_local;    /* slots of the checkpoint's experts; of them, of local ones */
    router_space_layer *layers;  /* owned [n_layers]; their arrays point into ids and slots */
    router_expert *experts;      /* owned [n_slots] */
    int32_t *ids;                /* owned [n_slots] layer by layer */
    uint32_t *slots;             /* owned [n_slots] layer by layer */
    unsigned char (*hashes)[32]; /* owned [n_slots - n_base]: of the added ones */
};

static void space_free(router_space *s)
{
    if (s != NULL) {
        free(s->layers);
        free(s->experts);
        free(s->ids);
        free(s->slots);
        free(s->hashes);
        free(s);
    }
}

static router_space *space_alloc(uint32_t n_layers, uint32_t n_slots, uint32_t n_base)
{
    router_space *s = calloc(1, sizeof *s);

    if (s == NULL) {
        return NULL;
    }
    atomic_init(&s->refs, 1);
    s->n_layers = n_layers;
    s->n_slots = n_slots;
    s->n_base = n_base;
    s->layers = calloc(n_layers, sizeof *s->layers);
    s->experts = calloc(n_slots, sizeof *s->experts);
    s->ids = calloc(n_slots, sizeof *s->ids);
    s->slots = calloc(n_slots, sizeof *s->slots);
    s->hashes = calloc((size_t)n_slots - n_base + 1, sizeof *s->hashes);
    if (s->layers == NULL || s->experts == NULL || s->ids == NULL || s->slots == NULL || s->hashes == NULL) {
        space_free(s);
        return NULL;
    }
    return s;
}

/* The layers' arrays, from experts: slots of a layer ascend with its ids, as no id is below one that was there before. */
static void index_layers(router_space *s)
{
    uint32_t first = 0;

    for (uint32_t i = 0; i < s->n_slots; i++) {
        s->layers[s->experts[i].layer].n_experts++;
    }
    for (uint32_t l = 0; l < s->n_layers; l++) {
        router_space_layer *layer = &s->layers[l];

        layer->ids = s->ids + first;
        layer->slots = s->slots + first;
        first += layer->n_experts;
        s->widest = MOE_MAX(s->widest, layer->n_experts);
        layer->n_experts = 0;
    }
    for (uint32_t i = 0; i < s->n_slots; i++) {
        router_space_layer *layer = &s->layers[s->experts[i].layer];
        size_t at = (size_t)(layer->ids - s->ids) + layer->n_experts++;

        s->ids[at] = s->experts[i].id;
        s->slots[at] = i;
    }
}

moe_status router_space_open_base(uint32_t n_layers, uint32_t n_node_experts, uint32_t n_local_experts,
                                  router_space **out, moe_error *err)
{
    uint64_t of_layer = (uint64_t)n_node_experts + n_local_experts;

    if (n_layers == 0 || n_node_experts == 0 || of_layer > ROUTER_MAX_SLOTS / n_layers) {
        return moe_fail(err, MOE_ERR_INVALID_ARG,
                        "expert space: %u layers of %u experts for nodes and %u others, limit %u in all", n_layers,
                        n_node_experts, n_local_experts, ROUTER_MAX_SLOTS);
    }
    uint32_t n = (uint32_t)of_layer;
    router_space *s = space_alloc(n_layers, n_layers * n, n_layers * n);
    if (s == NULL) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "expert space: %u layers of %u experts", n_layers, n);
    }
    s->version = 1;
    s->n_local = n_layers * n_local_experts;
    for (uint32_t i = 0; i < s->n_slots; i++) {
        s->experts[i] = (router_expert){.layer = i / n, .id = (int32_t)(i % n), .is_local = i % n >= n_node_experts};
    }
    index_layers(s);
    *out = s;
    return MOE_OK;
}

/* Whether the addition is new. An id must be above all that its layer has, and had in this call: `highest`. */
static moe_status check_addition(const router_space *before, const router_addition *a, int32_t highest, bool *is_new,
                                 moe_error *err)
{
    uint32_t slot = router_space_slot(before, a->layer, a->id);
    const unsigned char *hash = slot != ROUTER_NO_SLOT ? router_space_hash(before, slot) : NULL;

    *is_new = slot == ROUTER_NO_SLOT;
    if (*is_new && a->id <= highest) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "expert space: layer %u expert %d is not above %d", a->layer, a->id,
                        highest);
    }
    if (!*is_new && (hash == NULL || memcmp(hash, a->hash, sizeof a->hash) != 0)) {
        return moe_fail(err, MOE_ERR_EXISTS, "expert space: layer %u has another expert %d", a->layer, a->id);
    }
    return MOE_OK;
}

/* Which additions are new; highest [n_layers] is the highest id of each layer, and is moved up. */
static moe_status check_additions(const router_space *before, const router_addition *added, size_t n_added,
                                  int32_t *highest, bool *is_new, size_t *n_new, moe_error *err)
{
    *n_new = 0;
    for (size_t i = 0; i < n_added; i++) {
        const router_addition *a = &added[i];

        if (a->layer >= before->n_layers) {
            return moe_fail(err, MOE_ERR_INVALID_ARG, "expert space: layer %u expert %d: there are %u layers", a->layer,
                            a->id, before->n_layers);
        }
        moe_status status = check_addition(before, a, highest[a->layer], &is_new[i], err);
        if (status != MOE_OK) {
            return status;
        }
        highest[a->layer] = MOE_MAX(highest[a->layer], a->id);
        *n_new += is_new[i];
    }
    if (*n_new > ROUTER_MAX_SLOTS - before->n_slots) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "expert space: %u experts and %zu more, limit %u", before->n_slots,
                        *n_new, ROUTER_MAX_SLOTS);
    }
    return MOE_OK;
}

static router_space *extend(const router_space *before, const router_addition *added, size_t n_added,
                            const bool *is_new, size_t n_new)
{
    router_space *s = space_alloc(before->n_layers, before->n_slots + (uint32_t)n_new, before->n_base);
    uint32_t slot = before->n_slots;

    if (s == NULL) {
        return NULL;
    }
    s->version = before->version + 1;
    s->n_local = before->n_local;
    memcpy(s->experts, before->experts, before->n_slots * sizeof *s->experts);
    memcpy(s->hashes, before->hashes, (before->n_slots - before->n_base) * sizeof *s->hashes);
    for (size_t i = 0; i < n_added; i++) {
        if (is_new[i]) {
            s->experts[slot] = (router_expert){.layer = added[i].layer, .id = added[i].id};
            memcpy(s->hashes[slot++ - s->n_base], added[i].hash, sizeof added[i].hash);
        }
    }
    index_layers(s);
    return s;
}

moe_status router_space_grow(const router_space *before, const router_addition *added, size_t n_added,
                             router_space **out, moe_error *err)
{
    moe_status status = MOE_ERR_NO_MEMORY;
    size_t n_new;
    int32_t *highest = calloc(before->n_layers, sizeof *highest);
    bool *is_new = calloc(n_added + 1, sizeof *is_new);

    if (highest == NULL || is_new == NULL) {
        moe_fail(err, status, "expert space: %zu added experts", n_added);
        goto out;
    }
    for (uint32_t l = 0; l < before->n_layers; l++) {
        highest[l] = before->layers[l].ids[before->layers[l].n_experts - 1];
    }
    status = check_additions(before, added, n_added, highest, is_new, &n_new, err);
    if (status == MOE_OK && (*out = extend(before, added, n_added, is_new, n_new)) == NULL) {
        status = moe_fail(err, MOE_ERR_NO_MEMORY, "expert space: %zu added experts", n_added);
    }
out:
    free(highest);
    free(is_new);
    return status;
}

router_space *router_space_ref(router_space *s)
{
    atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
    return s;
}

void router_space_unref(router_space *s)
{
    if (s != NULL && atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) == 1) {
        space_free(s);
    }
}

uint32_t router_space_version(const router_space *s)
{
    return s->version;
}

uint32_t router_space_n_layers(const router_space *s)
{
    return s->n_layers;
}

uint32_t router_space_n_slots(const router_space *s)
{
    return s->n_slots;
}

uint32_t router_space_n_node_experts(const router_space *s)
{
    return s->n_slots - s->n_local;
}

uint32_t router_space_base_experts(const router_space *s)
{
    return (s->n_base - s->n_local) / s->n_layers;
}

uint32_t router_space_widest(const router_space *s)
{
    return s->widest;
}

const router_expert *router_space_expert(const router_space *s, uint32_t slot)
{
    MOE_ASSERT(slot < s->n_slots);
    return &s->experts[slot];
}

const router_space_layer *router_space_at(const router_space *s, uint32_t layer)
{
    MOE_ASSERT(layer < s->n_layers);
    return &s->layers[layer];
}

uint32_t router_space_place(const router_space_layer *layer, int32_t expert_id)
{
    uint32_t low = 0, high = layer->n_experts;

    if (expert_id >= 0 && (uint32_t)expert_id < high && layer->ids[expert_id] == expert_id) {
        return (uint32_t)expert_id; /* the checkpoint's */
    }
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;

        if (layer->ids[middle] < expert_id) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < layer->n_experts && layer->ids[low] == expert_id ? low : ROUTER_NO_SLOT;
}

uint32_t router_space_slot(const router_space *s, uint32_t layer, int32_t expert_id)
{
    uint32_t place = layer < s->n_layers ? router_space_place(&s->layers[layer], expert_id) : ROUTER_NO_SLOT;

    return place == ROUTER_NO_SLOT ? ROUTER_NO_SLOT : s->layers[layer].slots[place];
}

const unsigned char *router_space_hash(const router_space *s, uint32_t slot)
{
    MOE_ASSERT(slot < s->n_slots);
    return slot < s->n_base ? NULL : s->hashes[slot - s->n_base];
}

static bool same_expert(const router_space *a, const router_space *b, uint32_t slot)
{
    const router_expert *x = &a->experts[slot], *y = &b->experts[slot];
    const unsigned char *of_x = router_space_hash(a, slot), *of_y = router_space_hash(b, slot);

    return x->layer == y->layer && x->id == y->id && x->is_local == y->is_local && (of_x == NULL) == (of_y == NULL) &&
           (of_x == NULL || memcmp(of_x, of_y, 32) == 0);
}

bool router_space_continues(const router_space *s, const router_space *before)
{
    bool does = s->n_layers == before->n_layers && s->n_slots >= before->n_slots;

    for (uint32_t slot = 0; slot < before->n_slots && does && s != before; slot++) {
        does = same_expert(s, before, slot);
    }
    return does;
}
