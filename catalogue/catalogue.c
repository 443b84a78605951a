#include "catalogue/catalogue_priv.h"

#include "pack/pack.h"

#include <stdlib.h>
#include <string.h>

_Static_assert(CATALOGUE_MAX_NAME == PACK_MAX_NAME && CATALOGUE_MAX_EXPERTS == PACK_MAX_EXPERTS &&
                   CATALOGUE_MAX_PACK == PACK_MAX_ALL,
               "what a pack may be, a catalogue takes");

/* ------------------------------------------------------------------------------------------------ packs in words */
static void body_unref(pack_body *b)
{
    if (b != NULL && atomic_fetch_sub_explicit(&b->refs, 1, memory_order_acq_rel) == 1) {
        free(b->layers);
        free(b->replaces);
        free(b);
    }
}

pack_body *pack_body_ref(pack_body *b)
{
    atomic_fetch_add_explicit(&b->refs, 1, memory_order_relaxed);
    return b;
}

/* Room for what `p` says of its layers; their arrays are filled. */
static pack_body *body_of(const catalogue_pack *p)
{
    pack_body *b = calloc(1, sizeof *b);
    size_t at = 0;

    if (b == NULL) {
        return NULL;
    }
    atomic_init(&b->refs, 1);
    b->layers = calloc(p->n_layers + 1, sizeof *b->layers);
    b->replaces = p->is_replace ? calloc(p->n_experts + 1, sizeof *b->replaces) : NULL;
    if (b->layers == NULL || (p->is_replace && b->replaces == NULL)) {
        body_unref(b);
        return NULL;
    }
    for (size_t i = 0; i < p->n_layers; i++) {
        b->layers[i] = p->layers[i];
        if (b->replaces != NULL) {
            memcpy(b->replaces + at, p->layers[i].replaces, p->layers[i].n_experts * sizeof *b->replaces);
            b->layers[i].replaces = b->replaces + at;
        }
        at += p->layers[i].n_experts;
    }
    return b;
}

moe_status catalogue_describe(const struct pack *p, catalogue_pack *out, moe_error *err)
{
    size_t n_layers = pack_n_layers(p), at = 0;
    bool replaces = pack_get_kind(p) == PACK_REPLACE;
    catalogue_pack_layer *layers = calloc(n_layers + 1, sizeof *layers);
    int32_t *ids = calloc(pack_n_experts(p) + 1, sizeof *ids);

    if (layers == NULL || ids == NULL) {
        free(layers);
        free(ids);
        return moe_fail(err, MOE_ERR_NO_MEMORY, "pack %s: out of memory", pack_name(p));
    }
    for (size_t i = 0; i < n_layers; i++) {
        const pack_layer *from = pack_at(p, i);

        layers[i] = (catalogue_pack_layer){
            .layer = from->layer, .n_experts = from->n_experts, .replaces = replaces ? ids + at : NULL};
        for (uint32_t e = 0; e < from->n_experts; e++) {
            ids[at++] = from->experts[e].replaces;
        }
    }
    *out = (catalogue_pack){
        .is_replace = replaces, .n_layers = n_layers, .layers = layers, .n_experts = pack_n_experts(p)};
    (void)snprintf(out->name, sizeof out->name, "%s", pack_name(p));
    (void)snprintf(out->version, sizeof out->version, "%s", pack_version(p));
    (void)snprintf(out->hash, sizeof out->hash, "%s", pack_hash(p));
    if (!replaces) {
        free(ids);
    }
    return MOE_OK;
}

void catalogue_pack_fini(catalogue_pack *p)
{
    if (p->layers != NULL && p->n_layers > 0) {
        free((int32_t *)(uintptr_t)p->layers[0].replaces); /* one array: the first layer's is its beginning */
    }
    free((catalogue_pack_layer *)(uintptr_t)p->layers);
    *p = (catalogue_pack){0};
}

/* ------------------------------------------------------------------------------------------------ words */
/* 1 to 63 characters of A-Z a-z 0-9 . - _ */
static bool is_word(const char *word)
{
    size_t n = strspn(word, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-_");

    return n > 0 && n <= CATALOGUE_MAX_NAME && word[n] == '\0';
}

bool catalogue_name_is_valid(const char *name)
{
    return is_word(name) && strcmp(name, "default") != 0 && strcmp(name, "base") != 0;
}

static bool is_hash(const char *text)
{
    return strlen(text) == 64 && strspn(text, "0123456789abcdef") == 64;
}

/* ------------------------------------------------------------------------------------------------ taking packs in */
static moe_status check_layer(const catalogue *c, const catalogue_pack *p, const catalogue_pack_layer *l,
                              moe_error *err)
{
    uint32_t n_base = router_space_base_experts(c->model.space);

    if (l->layer >= router_space_n_layers(c->space)) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "pack %s: layer %u; the model has %u", p->name, l->layer,
                        router_space_n_layers(c->space));
    }
    if (l->n_experts == 0 || l->n_experts > CATALOGUE_MAX_EXPERTS) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "pack %s: layer %u: %u experts; there must be 1 to %d", p->name,
                        l->layer, l->n_experts, CATALOGUE_MAX_EXPERTS);
    }
    for (uint32_t i = 0; p->is_replace && i < l->n_experts; i++) {
        if (l->replaces[i] < 0 || (uint32_t)l->replaces[i] >= n_base) {
            return moe_fail(err, MOE_ERR_INVALID_ARG, "pack %s: layer %u: replaces expert %d; the model has 0 to %u",
                            p->name, l->layer, l->replaces[i], n_base - 1);
        }
        for (uint32_t other = 0; other < i; other++) {
            if (l->replaces[other] == l->replaces[i]) {
                return moe_fail(err, MOE_ERR_INVALID_ARG, "pack %s: layer %u: expert %d is replaced twice", p->name,
                                l->layer, l->replaces[i]);
            }
        }
    }
    return MOE_OK;
}

moe_status catalogue_check_pack(const catalogue *c, const catalogue_pack *p, moe_error *err)
{
    moe_status status = MOE_OK;

    if (!catalogue_name_is_valid(p->name) || !is_word(p->version)) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "pack %.80s version %.80s: no name for a pack", p->name, p->version);
    }
    if (!is_hash(p->hash)) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "pack %s: its hash must be 64 hex digits", p->name);
    }
    if (p->n_layers == 0 || p->n_experts > CATALOGUE_MAX_PACK) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "pack %s: %zu experts of %zu layers; there must be 1 to %d", p->name,
                        p->n_experts, p->n_layers, CATALOGUE_MAX_PACK);
    }
    for (size_t i = 0; i < p->n_layers && status == MOE_OK; i++) {
        status = i > 0 && p->layers[i].layer <= p->layers[i - 1].layer
                     ? moe_fail(err, MOE_ERR_INVALID_ARG, "pack %s: its layers do not ascend", p->name)
                     : check_layer(c, p, &p->layers[i], err);
    }
    return status;
}

size_t catalogue_find_hash(const catalogue *c, const char *hash)
{
    for (size_t i = 0; i < c->n_packs; i++) {
        if (strcmp(c->packs[i].hash, hash) == 0) {
            return i;
        }
    }
    return SIZE_MAX;
}

/* The space after its experts have got the ids above all of their layers. */
static moe_status grow(const catalogue *c, pack_body *body, const catalogue_pack *p, router_space **out, moe_error *err)
{
    router_addition *added = calloc(p->n_experts, sizeof *added);
    size_t at = 0;
    moe_status status = MOE_OK;

    if (added == NULL) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "pack %s: %zu experts", p->name, p->n_experts);
    }
    for (size_t i = 0; i < p->n_layers && status == MOE_OK; i++) {
        catalogue_pack_layer *l = &body->layers[i];
        const router_space_layer *now = router_space_at(c->space, l->layer);
        int32_t highest = now->ids[now->n_experts - 1];

        if (highest > INT32_MAX - CATALOGUE_MAX_EXPERTS) {
            status = moe_fail(err, MOE_ERR_BUSY, "pack %s: layer %u has no ids left", p->name, l->layer);
            break;
        }
        l->first_id = highest + 1;
        for (uint32_t e = 0; e < l->n_experts; e++, at++) {
            added[at] = (router_addition){.layer = l->layer, .id = l->first_id + (int32_t)e};
            pack_expert_hash(p->hash, l->layer, e, added[at].hash);
        }
    }
    if (status == MOE_OK) {
        status = router_space_grow(c->space, added, p->n_experts, out, err);
    }
    free(added);
    return status;
}

moe_status catalogue_take_in(catalogue *c, const catalogue_pack *from, moe_error *err)
{
    router_space *space = NULL;
    size_t n_added = router_space_n_slots(c->space) - router_space_n_slots(c->model.space);

    if (from->n_experts > CATALOGUE_MAX_ADDED - n_added) {
        return moe_fail(err, MOE_ERR_BUSY, "pack %s: %zu experts, after %zu of other packs; the limit is %d in all",
                        from->name, from->n_experts, n_added, CATALOGUE_MAX_ADDED);
    }
    pack_body *body = body_of(from);
    moe_status status = body != NULL ? grow(c, body, from, &space, err)
                                     : moe_fail(err, MOE_ERR_NO_MEMORY, "pack %s: out of memory", from->name);

    if (status != MOE_OK) {
        body_unref(body);
        return status;
    }
    router_space_unref(c->space);
    c->space = space;
    c->packs[c->n_packs] = *from;
    c->packs[c->n_packs].layers = body->layers;
    c->bodies[c->n_packs++] = body;
    return MOE_OK;
}

/* ------------------------------------------------------------------------------------------------ life */
static void set_take(router_set **to, router_set *set)
{
    *to = set != NULL ? router_set_ref(set) : NULL;
}

catalogue *catalogue_allocate(const catalogue_model *m, size_t n_packs)
{
    catalogue *c = calloc(1, sizeof *c);

    if (c == NULL) {
        return NULL;
    }
    atomic_init(&c->refs, 1);
    c->packs = calloc(n_packs + 1, sizeof *c->packs);
    c->bodies = calloc(n_packs + 1, sizeof *c->bodies);
    if (c->packs == NULL || c->bodies == NULL) {
        catalogue_unref(c);
        return NULL;
    }
    c->model = *m;
    c->model.space = router_space_ref(m->space);
    c->model.own = m->own == NULL ? NULL : router_set_ref(m->own);
    c->space = router_space_ref(m->space);
    return c;
}

moe_status catalogue_base(const catalogue *c, router_set **out, moe_error *err)
{
    if (c->model.own != NULL) {
        *out = router_set_ref(c->model.own);
        return MOE_OK;
    }
    return router_set_open_all(c->model.space, c->model.min_experts, c->model.fingerprint, out, err);
}

moe_status catalogue_open(const catalogue_model *m, catalogue **out, moe_error *err)
{
    catalogue *c = catalogue_allocate(m, 0);
    moe_status status;

    if (c == NULL) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "catalogue: out of memory");
    }
    status = catalogue_base(c, &c->set, err);
    if (status != MOE_OK) {
        catalogue_unref(c);
        return status;
    }
    *out = c;
    return MOE_OK;
}

catalogue *catalogue_copy(const catalogue *from)
{
    catalogue *c = catalogue_allocate(&from->model, from->n_packs + 1);

    if (c == NULL) {
        return NULL;
    }
    router_space_unref(c->space);
    c->space = router_space_ref(from->space);
    set_take(&c->set, from->set);
    c->number = from->number;
    for (; c->n_packs < from->n_packs; c->n_packs++) {
        c->packs[c->n_packs] = from->packs[c->n_packs];
        c->bodies[c->n_packs] = pack_body_ref(from->bodies[c->n_packs]);
    }
    for (; c->n_named < from->n_named; c->n_named++) {
        c->named[c->n_named] = from->named[c->n_named];
        set_take(&c->named[c->n_named].set, from->named[c->n_named].set);
    }
    for (; c->n_former < from->n_former; c->n_former++) {
        c->former[c->n_former] = from->former[c->n_former];
        set_take(&c->former[c->n_former].set, from->former[c->n_former].set);
    }
    c->shadow = from->shadow;
    set_take(&c->shadow.set, from->shadow.set);
    c->n_entries = from->n_entries;
    memcpy(c->entries, from->entries, from->n_entries * sizeof from->entries[0]);
    c->has_pending = from->has_pending;
    c->pending = from->pending;
    set_take(&c->pending.target, from->pending.target);
    return c;
}

catalogue *catalogue_ref(catalogue *c)
{
    atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
    return c;
}

void catalogue_unref(catalogue *c)
{
    if (c == NULL || atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) != 1) {
        return;
    }
    for (size_t i = 0; i < c->n_packs; i++) {
        body_unref(c->bodies[i]);
    }
    for (size_t i = 0; i < c->n_named; i++) {
        router_set_unref(c->named[i].set);
    }
    for (size_t i = 0; i < c->n_former; i++) {
        router_set_unref(c->former[i].set);
    }
    router_set_unref(c->pending.target);
    router_set_unref(c->shadow.set);
    router_set_unref(c->set);
    router_space_unref(c->space);
    router_space_unref(c->model.space);
    router_set_unref(c->model.own);
    free(c->packs);
    free(c->bodies);
    free(c);
}

/* ------------------------------------------------------------------------------------------------ reading it */
uint64_t catalogue_get_number(const catalogue *c)
{
    return c->number;
}

const catalogue_model *catalogue_get_model(const catalogue *c)
{
    return &c->model;
}

router_space *catalogue_space(const catalogue *c)
{
    return c->space;
}

router_set *catalogue_default(const catalogue *c)
{
    return c->set;
}

size_t catalogue_n_packs(const catalogue *c)
{
    return c->n_packs;
}

const catalogue_pack *catalogue_pack_at(const catalogue *c, size_t i)
{
    MOE_ASSERT(i < c->n_packs);
    return &c->packs[i];
}

bool catalogue_pack_is_called(const catalogue_pack *p, const char *word)
{
    size_t n = strlen(p->name);

    return strcmp(p->hash, word) == 0 ||
           (strncmp(p->name, word, n) == 0 &&
            (word[n] == '\0' || (word[n] == '@' && strcmp(word + n + 1, p->version) == 0)));
}

const catalogue_pack *catalogue_find_pack(const catalogue *c, const char *word)
{
    const catalogue_pack *found = NULL;

    for (size_t i = 0; i < c->n_packs; i++) {
        if (catalogue_pack_is_called(&c->packs[i], word) && (found == NULL || !found->active || c->packs[i].active)) {
            found = &c->packs[i];
        }
    }
    return found;
}

const catalogue_pack *catalogue_pack_of(const catalogue *c, uint32_t layer, int32_t expert_id, uint32_t *place)
{
    if (router_space_slot(c->model.space, layer, expert_id) != ROUTER_NO_SLOT) {
        return NULL; /* the checkpoint's, as most are that are asked for */
    }
    for (size_t i = 0; i < c->n_packs; i++) {
        const catalogue_pack *p = &c->packs[i];

        for (size_t l = 0; l < p->n_layers && p->layers[l].layer <= layer; l++) {
            int64_t at = (int64_t)expert_id - p->layers[l].first_id;

            if (p->layers[l].layer == layer && at >= 0 && at < p->layers[l].n_experts) {
                if (place != NULL) {
                    *place = (uint32_t)at;
                }
                return p;
            }
        }
    }
    return NULL;
}

size_t catalogue_n_named(const catalogue *c)
{
    return c->n_named;
}

const catalogue_named *catalogue_named_at(const catalogue *c, size_t i)
{
    MOE_ASSERT(i < c->n_named);
    return &c->named[i];
}

size_t catalogue_n_former(const catalogue *c)
{
    return c->n_former;
}

const catalogue_former *catalogue_former_at(const catalogue *c, size_t i)
{
    MOE_ASSERT(i < c->n_former);
    return &c->former[i];
}

const catalogue_pending *catalogue_get_pending(const catalogue *c)
{
    return c->has_pending ? &c->pending : NULL;
}

bool catalogue_pending_is_default(const catalogue_pending *p)
{
    return p->name[0] == '\0' && p->shadow[0] == '\0';
}

size_t catalogue_n_entries(const catalogue *c)
{
    return c->n_entries;
}

const catalogue_entry *catalogue_entry_at(const catalogue *c, size_t i)
{
    MOE_ASSERT(i < c->n_entries);
    return &c->entries[i];
}
