/* Sets of experts: arithmetic on bitmaps by slot, and what words name. */
#include "catalogue/catalogue_priv.h"

#include <stdlib.h>
#include <string.h>

/* ------------------------------------------------------------------------------------------------ members */
bool members_init(members *m, const catalogue *c, const router_set *set)
{
    m->space = c->space;
    m->bits = calloc(router_space_words(c->space) + 1, sizeof *m->bits);
    if (m->bits != NULL && set != NULL) {
        router_set_mark(set, c->space, m->bits);
    }
    return m->bits != NULL;
}

void members_fini(members *m)
{
    free(m->bits);
}

static void put(members *m, uint32_t slot, bool in)
{
    if (in) {
        router_bit_set(m->bits, slot);
    } else {
        router_bit_clear(m->bits, slot);
    }
}

moe_status members_to_set(const members *m, const catalogue *c, router_set **out, moe_error *err)
{
    uint32_t n_layers = router_space_n_layers(m->space), n_slots = router_space_n_slots(m->space), at = 0;
    moe_status status = MOE_ERR_NO_MEMORY;
    router_set_layer *layers = calloc(n_layers, sizeof *layers);
    int32_t *ids = calloc(n_slots, sizeof *ids);
    uint32_t *columns = calloc(n_slots, sizeof *columns);

    if (layers == NULL || ids == NULL || columns == NULL) {
        (void)moe_fail(err, status, "expert set: out of memory");
        goto out;
    }
    for (uint32_t l = 0; l < n_layers; l++) {
        const router_space_layer *from = router_space_at(m->space, l);

        layers[l] = (router_set_layer){.expert_ids = ids + at, .columns = columns + at};
        for (uint32_t place = 0; place < from->n_experts; place++) {
            if (router_bit(m->bits, from->slots[place])) {
                ids[at] = from->ids[place];
                columns[at++] = place;
                layers[l].n_experts++;
            }
        }
    }
    status = router_set_open(c->space, layers, c->model.min_experts, c->model.fingerprint, out, err);
out:
    free(layers);
    free(ids);
    free(columns);
    return status;
}

static uint32_t slot_of(const members *m, const catalogue_pack_layer *l, uint32_t e)
{
    return router_space_slot(m->space, l->layer, l->first_id + (int32_t)e);
}

static void put_layer(members *m, const catalogue_pack_layer *l, bool in)
{
    for (uint32_t e = 0; e < l->n_experts; e++) {
        put(m, slot_of(m, l, e), in);
        if (l->replaces != NULL) {
            put(m, router_space_slot(m->space, l->layer, l->replaces[e]), !in);
        }
    }
}

bool members_have_pack(const members *m, const catalogue_pack *p)
{
    for (size_t i = 0; i < p->n_layers; i++) {
        for (uint32_t e = 0; e < p->layers[i].n_experts; e++) {
            if (router_bit(m->bits, slot_of(m, &p->layers[i], e))) {
                return true;
            }
        }
    }
    return false;
}

void members_put_pack(members *m, const catalogue_pack *p, bool in)
{
    if (!in && !members_have_pack(m, p)) {
        return; /* what it would replace is not its to bring back */
    }
    for (size_t i = 0; i < p->n_layers; i++) {
        put_layer(m, &p->layers[i], in);
    }
}

static bool is_own(const catalogue *c, const router_expert *e)
{
    return c->model.own == NULL || router_set_layer_has(router_set_at(c->model.own, e->layer), e->id);
}

/* The checkpoint's experts, but for those that others in the set stand in for. */
void members_put_base(members *m, const catalogue *c, bool in)
{
    for (uint32_t slot = 0; slot < router_space_n_slots(c->model.space); slot++) {
        if (!in || is_own(c, router_space_expert(c->model.space, slot))) {
            put(m, slot, in);
        }
    }
    for (size_t i = 0; in && i < c->n_packs; i++) {
        const catalogue_pack *p = &c->packs[i];

        for (size_t l = 0; p->is_replace && l < p->n_layers; l++) {
            for (uint32_t e = 0; e < p->layers[l].n_experts; e++) {
                if (router_bit(m->bits, slot_of(m, &p->layers[l], e))) {
                    put(m, router_space_slot(m->space, p->layers[l].layer, p->layers[l].replaces[e]), false);
                }
            }
        }
    }
}

moe_status members_put_packs(members *m, const catalogue *c, const char *const *words, size_t n, bool in,
                             moe_error *err)
{
    for (size_t i = 0; i < n; i++) {
        const catalogue_pack *p = catalogue_find_pack(c, words[i]);

        if (strcmp(words[i], "base") == 0) {
            members_put_base(m, c, in);
        } else if (p != NULL) {
            members_put_pack(m, p, in);
        } else {
            return moe_fail(err, MOE_ERR_NOT_FOUND, "%s: there is no pack \"%.80s\"", in ? "include" : "exclude",
                            words[i]);
        }
    }
    return MOE_OK;
}

moe_status catalogue_slot_of(const catalogue *c, const catalogue_expert *e, uint32_t *out, moe_error *err)
{
    uint32_t n_layers = router_space_n_layers(c->space);

    if (e->layer >= n_layers) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "experts: layer %u; the model has %u", e->layer, n_layers);
    }
    *out = router_space_slot(c->space, e->layer, e->id);
    return *out != ROUTER_NO_SLOT
               ? MOE_OK
               : moe_fail(err, MOE_ERR_INVALID_ARG, "experts: layer %u has no expert %d", e->layer, e->id);
}

moe_status members_leave_out(members *m, const catalogue *c, const catalogue_expert *experts, size_t n, moe_error *err)
{
    moe_status status = MOE_OK;

    for (size_t i = 0; i < n && status == MOE_OK; i++) {
        uint32_t slot = 0;

        status = catalogue_slot_of(c, &experts[i], &slot, err);
        if (status == MOE_OK && !router_bit(m->bits, slot)) {
            status = moe_fail(err, MOE_ERR_INVALID_ARG, "experts: layer %u expert %d is not in the set",
                              experts[i].layer, experts[i].id);
        }
        if (status == MOE_OK) {
            router_bit_clear(m->bits, slot);
        }
    }
    return status;
}

bool catalogue_uses(const router_set *set, const catalogue_pack *p)
{
    for (size_t i = 0; i < p->n_layers; i++) {
        const router_set_layer *layer = router_set_at(set, p->layers[i].layer);

        for (uint32_t e = layer->n_experts; e > 0 && layer->expert_ids[e - 1] >= p->layers[i].first_id; e--) {
            if (layer->expert_ids[e - 1] - p->layers[i].first_id < (int32_t)p->layers[i].n_experts) {
                return true;
            }
        }
    }
    return false;
}

/* ------------------------------------------------------------------------------------------------ words */
size_t catalogue_live_sets(const catalogue *c, router_set *out[CATALOGUE_MAX_SETS])
{
    size_t n = 0;

    out[n++] = c->set;
    for (size_t i = 0; i < c->n_named; i++) {
        out[n++] = c->named[i].set;
    }
    if (c->shadow.set != NULL) {
        out[n++] = c->shadow.set;
    }
    return n;
}

static router_set *set_of_id(const catalogue *c, const char *id)
{
    router_set *live[CATALOGUE_MAX_SETS];
    size_t n = catalogue_live_sets(c, live);

    for (size_t i = 0; i < n; i++) {
        if (strcmp(router_set_id(live[i]), id) == 0) {
            return live[i];
        }
    }
    for (size_t i = 0; i < c->n_former; i++) {
        if (strcmp(router_set_id(c->former[i].set), id) == 0) {
            return c->former[i].set;
        }
    }
    return NULL;
}

moe_status catalogue_find_set(const catalogue *c, const char *word, router_set **out, moe_error *err)
{
    router_set *found = strcmp(word, "default") == 0 ? c->set : set_of_id(c, word);

    if (strcmp(word, "base") == 0) {
        return catalogue_base(c, out, err);
    }
    size_t at = catalogue_find_name(c, word);
    if (found == NULL && at != SIZE_MAX) {
        found = c->named[at].set;
    }
    if (found == NULL) {
        return moe_fail(err, MOE_ERR_NOT_FOUND, "there is no expert set \"%.80s\"", word);
    }
    *out = router_set_ref(found);
    return MOE_OK;
}

moe_status catalogue_resolve(const catalogue *c, const char *const *include, size_t n_include,
                             const char *const *exclude, size_t n_exclude, const catalogue_expert *without,
                             size_t n_without, router_set **out, moe_error *err)
{
    members m;
    moe_status status = members_init(&m, c, c->set) ? members_put_packs(&m, c, include, n_include, true, err)
                                                    : moe_fail(err, MOE_ERR_NO_MEMORY, "expert set: out of memory");

    if (status == MOE_OK) {
        status = members_put_packs(&m, c, exclude, n_exclude, false, err);
    }
    if (status == MOE_OK) {
        status = members_leave_out(&m, c, without, n_without, err);
    }
    if (status == MOE_OK) {
        status = members_to_set(&m, c, out, err);
    }
    members_fini(&m);
    return status;
}

/* ------------------------------------------------------------------------------------------------ what is wanted */
void catalogue_wanted(const catalogue *c, uint64_t now_ms, uint64_t keep_ms, uint64_t *bitmap)
{
    router_set *live[CATALOGUE_MAX_SETS];
    size_t n = catalogue_live_sets(c, live);

    memset(bitmap, 0, router_space_words(c->space) * sizeof *bitmap);
    for (size_t i = 0; i < n; i++) {
        router_set_mark(live[i], c->space, bitmap);
    }
    if (c->has_pending) {
        router_set_mark(c->pending.target, c->space, bitmap);
    }
    for (size_t i = 0; i < c->n_former; i++) {
        if (c->former[i].until_ms + keep_ms >= now_ms) {
            router_set_mark(c->former[i].set, c->space, bitmap);
        }
    }
}

moe_status catalogue_check_wanted(const catalogue *c, const router_set *set, uint64_t now_ms, uint64_t keep_ms,
                                  moe_error *err)
{
    members m;
    moe_status status = MOE_OK;

    if (!members_init(&m, c, NULL)) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "expert set: out of memory");
    }
    catalogue_wanted(c, now_ms, keep_ms, m.bits);
    for (uint32_t l = 0; l < router_set_n_layers(set) && status == MOE_OK; l++) {
        const router_set_layer *layer = router_set_at(set, l);

        for (uint32_t i = 0; i < layer->n_experts && status == MOE_OK; i++) {
            if (!router_bit(m.bits, router_space_slot(c->space, l, layer->expert_ids[i]))) {
                status = moe_fail(err, MOE_ERR_NOT_FOUND,
                                  "expert %d of layer %u is neither in the default set nor in one with a name, so that "
                                  "it need not be loaded",
                                  layer->expert_ids[i], l);
            }
        }
    }
    members_fini(&m);
    return status;
}

/* ------------------------------------------------------------------------------------------------ text */
void catalogue_put_ids(moe_text *out, const router_set_layer *layer)
{
    const char *before = "";

    for (uint32_t i = 0, end; i < layer->n_experts; i = end) {
        for (end = i + 1; end < layer->n_experts && layer->expert_ids[end] == layer->expert_ids[end - 1] + 1; end++) {
        }
        moe_text_printf(out, end - i > 1 ? "%s%d-%d" : "%s%d", before, layer->expert_ids[i],
                        layer->expert_ids[end - 1]);
        before = ",";
    }
}
