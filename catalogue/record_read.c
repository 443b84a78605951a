/* The catalogue as JSON, read: of anybody, so that every count, length, id and number is checked. */
#include "catalogue/catalogue_priv.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define RECORD_DEPTH 8
#define MAX_PATH     4096
#define MAX_SETS_THERE                                                                                                 \
    (CATALOGUE_MAX_SETS + CATALOGUE_MAX_PREVIOUS + 1) /* with names, default or on trial; former; pending */

typedef struct reading {
    catalogue *made;
    const catalogue *previous;        /* may be NULL */
    router_set *sets[MAX_SETS_THERE]; /* references */
    size_t n_sets;
} reading;

/* ------------------------------------------------------------------------------------------------ values */
static moe_status need(const char *key, bool found, moe_error *err)
{
    return found ? MOE_OK : moe_fail(err, MOE_ERR_CORRUPT, "%s: is missing", key);
}

static moe_status get_number(const json_t *json, const char *key, uint64_t *out, moe_error *err)
{
    bool found = false;
    int64_t v = 0;
    moe_status status = moe_json_int(json, key, 0, (int64_t)CATALOGUE_MAX_NUMBER, &v, &found, err);

    *out = (uint64_t)v;
    return status == MOE_OK ? need(key, found, err) : status;
}

/* At most size - 1 bytes, without control characters; absent: "". */
static moe_status get_text(const json_t *json, const char *key, char *out, size_t size, moe_error *err)
{
    const char *text = "";
    moe_status status = moe_json_string(json, key, &text, NULL, err);

    if (status != MOE_OK) {
        return status;
    }
    size_t n = strlen(text);
    if (n >= size) {
        return moe_fail(err, MOE_ERR_CORRUPT, "%s: %zu characters; the limit is %zu", key, n, size - 1);
    }
    for (size_t i = 0; i < n; i++) {
        if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f) {
            return moe_fail(err, MOE_ERR_CORRUPT, "%s: a control character at %zu", key, i);
        }
    }
    memcpy(out, text, n + 1);
    return MOE_OK;
}

typedef struct text_field {
    const char *key;
    char *out;
    size_t size;
} text_field;

static moe_status get_texts(const json_t *json, const text_field *fields, size_t n, moe_error *err)
{
    moe_status status = MOE_OK;

    for (size_t i = 0; i < n && status == MOE_OK; i++) {
        status = get_text(json, fields[i].key, fields[i].out, fields[i].size, err);
    }
    return status;
}

static moe_status get_list(const json_t *json, const char *key, size_t limit, const json_t **out, moe_error *err)
{
    const json_t *list = json_object_get(json, key);

    if (!json_is_array(list) || json_array_size(list) > limit) {
        return moe_fail(err, MOE_ERR_CORRUPT, "%s: must be a list of at most %zu", key, limit);
    }
    *out = list;
    return MOE_OK;
}

/* A whole number of [0, max] in a list. */
static bool item(const json_t *list, size_t at, int64_t max, int64_t *out)
{
    const json_t *v = json_array_get(list, at);

    *out = json_integer_value(v);
    return json_is_integer(v) && *out >= 0 && *out <= max;
}

/* ------------------------------------------------------------------------------------------------ packs */
/* [layer, number, first id] or [layer, number, first id, [replaced, ...]]; replaced [number] is written there. */
static moe_status read_layer(const json_t *json, bool is_replace, catalogue_pack_layer *out, int32_t *replaced,
                             moe_error *err)
{
    int64_t layer, n, first, id;
    const json_t *list = json_array_get(json, 3);

    if (!item(json, 0, INT32_MAX, &layer) || !item(json, 1, CATALOGUE_MAX_EXPERTS, &n) ||
        !item(json, 2, INT32_MAX, &first) || json_array_size(json) != (is_replace ? 4 : 3) ||
        json_array_size(list) != (is_replace ? (size_t)n : 0)) {
        return moe_fail(err, MOE_ERR_CORRUPT, "layers: one is not [layer, number, first id], and what it replaces");
    }
    *out = (catalogue_pack_layer){.layer = (uint32_t)layer,
                                  .n_experts = (uint32_t)n,
                                  .replaces = is_replace ? replaced : NULL,
                                  .first_id = (int32_t)first};
    for (size_t i = 0; is_replace && i < (size_t)n; i++) {
        if (!item(list, i, INT32_MAX, &id)) {
            return moe_fail(err, MOE_ERR_CORRUPT, "layers: what an expert replaces is no id");
        }
        replaced[i] = (int32_t)id;
    }
    return MOE_OK;
}

static bool same_layers(const catalogue_pack *a, const catalogue_pack *b)
{
    bool same = a->is_replace == b->is_replace && a->n_layers == b->n_layers && strcmp(a->hash, b->hash) == 0;

    for (size_t i = 0; i < a->n_layers && same; i++) {
        const catalogue_pack_layer *x = &a->layers[i], *y = &b->layers[i];

        same = x->layer == y->layer && x->n_experts == y->n_experts && x->first_id == y->first_id &&
               (x->replaces == NULL || memcmp(x->replaces, y->replaces, x->n_experts * sizeof *x->replaces) == 0);
    }
    return same;
}

/* The ids that it says are those that it gets. */
static moe_status enter(reading *r, const catalogue_pack *p, moe_error *err)
{
    catalogue *c = r->made;
    size_t at = c->n_packs;
    moe_status status = catalogue_check_pack(c, p, err);

    if (status == MOE_OK && catalogue_find_hash(c, p->hash) != SIZE_MAX) {
        status = moe_fail(err, MOE_ERR_CORRUPT, "packs: %s is there twice", p->hash);
    }
    if (status == MOE_OK) {
        status = catalogue_take_in(c, p, err);
    }
    if (status == MOE_OK && !same_layers(p, &c->packs[at])) {
        status = moe_fail(err, MOE_ERR_CORRUPT,
                          "packs: %s: its experts have other ids than follow from the packs before", p->name);
    }
    return status;
}

/* layers and replaced: room for all layers of the model and CATALOGUE_MAX_PACK ids. */
static moe_status read_pack(reading *r, const json_t *json, catalogue_pack_layer *layers, int32_t *replaced,
                            moe_error *err)
{
    catalogue_pack p = {.layers = layers};
    char kind[16] = "";
    const json_t *list = NULL;
    const text_field texts[] = {{"kind", kind, sizeof kind},
                                {"name", p.name, sizeof p.name},
                                {"version", p.version, sizeof p.version},
                                {"hash", p.hash, sizeof p.hash},
                                {"by", p.by, sizeof p.by}};
    moe_status status = get_texts(json, texts, MOE_COUNT(texts), err);

    if (status == MOE_OK) {
        status = get_number(json, "since", &p.since_ms, err);
    }
    if (status == MOE_OK) {
        status = get_list(json, "layers", router_space_n_layers(r->made->space), &list, err);
    }
    if (status != MOE_OK) {
        return status;
    }
    if (strcmp(kind, "add") != 0 && strcmp(kind, "replace") != 0) {
        return moe_fail(err, MOE_ERR_CORRUPT, "kind: \"%s\"; add or replace", kind);
    }
    p.is_replace = strcmp(kind, "replace") == 0;
    for (p.n_layers = 0; p.n_layers < json_array_size(list) && status == MOE_OK; p.n_layers++) {
        catalogue_pack_layer *l = &layers[p.n_layers];

        if (p.n_experts > CATALOGUE_MAX_PACK) {
            return moe_fail(err, MOE_ERR_CORRUPT, "layers: more than %d experts", CATALOGUE_MAX_PACK);
        }
        status = read_layer(json_array_get(list, p.n_layers), p.is_replace, l, replaced + p.n_experts, err);
        p.n_experts += status == MOE_OK ? l->n_experts : 0;
    }
    return status == MOE_OK ? enter(r, &p, err) : status;
}

/* Equal packs make equal spaces: one object for all versions of a catalogue that have the same. */
static void share_space(catalogue *c, const catalogue *previous)
{
    bool same = previous != NULL && previous->n_packs == c->n_packs;

    for (size_t i = 0; i < c->n_packs && same; i++) {
        same = same_layers(&previous->packs[i], &c->packs[i]);
    }
    if (same) {
        router_space_unref(c->space);
        c->space = router_space_ref(previous->space);
    }
}

static moe_status read_packs(reading *r, const json_t *json, moe_error *err)
{
    const json_t *list = NULL;
    moe_status status = get_list(json, "packs", CATALOGUE_MAX_PACKS, &list, err);
    catalogue_pack_layer *layers = calloc(router_space_n_layers(r->made->space), sizeof *layers);
    int32_t *replaced = calloc(CATALOGUE_MAX_PACK + CATALOGUE_MAX_EXPERTS, sizeof *replaced);

    if (status == MOE_OK && (layers == NULL || replaced == NULL)) {
        status = moe_fail(err, MOE_ERR_NO_MEMORY, "catalogue: out of memory");
    }
    for (size_t i = 0; status == MOE_OK && i < json_array_size(list); i++) {
        status = read_pack(r, json_array_get(list, i), layers, replaced, err);
    }
    free(layers);
    free(replaced);
    if (status == MOE_OK) {
        share_space(r->made, r->previous);
    }
    return status;
}

/* ------------------------------------------------------------------------------------------------ sets */
static moe_status read_ids(members *m, uint32_t layer, const char *at, moe_error *err)
{
    const router_space_layer *experts = router_space_at(m->space, layer);
    int32_t first = 0, last = -1;

    while (*at != '\0') {
        const char *next = router_ids_take(at, &first, &last);

        if (next == NULL || last > experts->ids[experts->n_experts - 1]) {
            return moe_fail(
                err, MOE_ERR_CORRUPT,
                "sets: layer %u: \"%.24s\" must be ascending ids and ranges of ids, of experts that there are", layer,
                at);
        }
        for (int32_t id = first; id <= last; id++) {
            router_bit_set(m->bits, router_space_slot(m->space, layer, id)); /* ids of a layer have no gaps */
        }
        at = next;
    }
    return MOE_OK;
}

/* The set of the catalogue read before with these members: one object for all who have it. */
static router_set *known(const catalogue *previous, const char *id)
{
    router_set *set = NULL;

    if (previous == NULL) {
        return NULL;
    }
    if (previous->has_pending && strcmp(router_set_id(previous->pending.target), id) == 0) {
        return router_set_ref(previous->pending.target);
    }
    return catalogue_find_set(previous, id, &set, NULL) == MOE_OK ? set : NULL;
}

static moe_status keep_set(reading *r, router_set *set, const char *id, moe_error *err)
{
    if (strcmp(router_set_id(set), id) != 0) {
        router_set_unref(set);
        return moe_fail(err, MOE_ERR_CORRUPT, "sets: %.64s is not the id of its experts", id);
    }
    router_set *same = known(r->previous, id);
    if (same != NULL) {
        router_set_unref(set);
        set = same;
    }
    r->sets[r->n_sets++] = set;
    return MOE_OK;
}

/* As the API lists them: [0, 1, 64] */
static moe_status read_id_list(members *m, uint32_t layer, const json_t *list, moe_error *err)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        int64_t id;
        uint32_t slot =
            item(list, i, INT32_MAX, &id) ? router_space_slot(m->space, layer, (int32_t)id) : ROUTER_NO_SLOT;

        if (slot == ROUTER_NO_SLOT) {
            return moe_fail(err, MOE_ERR_CORRUPT, "sets: layer %u: ids[%zu] is no expert that there is", layer, i);
        }
        router_bit_set(m->bits, slot);
    }
    return MOE_OK;
}

/* Of a layer: text; {"layer": l, "experts": text}; {"layer": l, "ids": list}. */
static moe_status read_one_layer(members *m, uint32_t l, const json_t *json, moe_error *err)
{
    const json_t *layer = json_object_get(json, "layer"), *ids = json_object_get(json, "ids");
    const char *text = json_string_value(json_is_object(json) ? json_object_get(json, "experts") : json);

    if (json_is_object(json) && (!json_is_integer(layer) || json_integer_value(layer) != (json_int_t)l)) {
        return moe_fail(err, MOE_ERR_CORRUPT, "sets: layer %u is not where it is expected", l);
    }
    if (json_is_array(ids)) {
        return read_id_list(m, l, ids, err);
    }
    return text != NULL ? read_ids(m, l, text, err) : moe_fail(err, MOE_ERR_CORRUPT, "sets: layer %u is no text", l);
}

/* A list of an object: the ids of each layer. *out is a reference. */
static moe_status read_members(const catalogue *c, const json_t *json, const char *key, router_set **out,
                               moe_error *err)
{
    uint32_t n_layers = router_space_n_layers(c->space);
    const json_t *layers = NULL;
    members m;
    moe_status status = get_list(json, key, n_layers, &layers, err);

    if (status == MOE_OK && json_array_size(layers) != n_layers) {
        status =
            moe_fail(err, MOE_ERR_CORRUPT, "sets: %zu layers; the model has %u", json_array_size(layers), n_layers);
    }
    if (status != MOE_OK) {
        return status;
    }
    if (!members_init(&m, c, NULL)) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "catalogue: out of memory");
    }
    for (uint32_t l = 0; l < n_layers && status == MOE_OK; l++) {
        status = read_one_layer(&m, l, json_array_get(layers, l), err);
    }
    if (status == MOE_OK) {
        status = members_to_set(&m, c, out, err);
    }
    members_fini(&m);
    return status;
}

static moe_status read_set(reading *r, const json_t *json, moe_error *err)
{
    char id[65] = "";
    router_set *set = NULL;
    moe_status status = get_text(json, "id", id, sizeof id, err);

    if (status == MOE_OK) {
        status = read_members(r->made, json, "layers", &set, err);
    }
    return status == MOE_OK ? keep_set(r, set, id, err) : status;
}

moe_status catalogue_read_set(const catalogue *c, const char *text, size_t n, router_set **out, moe_error *err)
{
    moe_json *json;
    moe_status status = moe_json_parse(text, n, RECORD_DEPTH, &json, err);

    if (status != MOE_OK) {
        return status;
    }
    const json_t *sets = json_object_get(json, "sets"),
                 *set = json_array_size(sets) == 1 ? json_array_get(sets, 0) : json;
    status = read_members(c, set, json_object_get(set, "layers") == NULL ? "experts" : "layers", out, err);
    moe_json_free(json);
    return status;
}

static moe_status read_sets(reading *r, const json_t *json, moe_error *err)
{
    const json_t *list = NULL;
    moe_status status = get_list(json, "sets", MAX_SETS_THERE, &list, err);

    for (size_t i = 0; status == MOE_OK && i < json_array_size(list); i++) {
        status = read_set(r, json_array_get(list, i), err);
    }
    return status;
}

/* The set that a key names by its id; referenced. */
static moe_status get_set(const reading *r, const json_t *json, const char *key, router_set **out, moe_error *err)
{
    char id[65] = "";
    moe_status status = get_text(json, key, id, sizeof id, err);

    for (size_t i = 0; i < r->n_sets && status == MOE_OK; i++) {
        if (strcmp(router_set_id(r->sets[i]), id) == 0) {
            *out = router_set_ref(r->sets[i]);
            return MOE_OK;
        }
    }
    return status == MOE_OK ? moe_fail(err, MOE_ERR_CORRUPT, "%s: \"%s\" is none of the sets", key, id) : status;
}

static moe_status read_names(reading *r, const json_t *json, moe_error *err)
{
    catalogue *c = r->made;
    const json_t *list = NULL;
    moe_status status = get_list(json, "names", CATALOGUE_MAX_SETS - 1, &list, err);

    for (size_t i = 0; status == MOE_OK && i < json_array_size(list); i++) {
        catalogue_named *to = &c->named[i];
        const json_t *from = json_array_get(list, i);

        status = get_text(from, "name", to->name, sizeof to->name, err);
        if (status == MOE_OK &&
            (!catalogue_name_is_valid(to->name) || (i > 0 && strcmp(c->named[i - 1].name, to->name) >= 0))) {
            status = moe_fail(err, MOE_ERR_CORRUPT, "names: \"%s\" is no name, or not above the one before", to->name);
        }
        if (status == MOE_OK) {
            status = get_set(r, from, "set", &to->set, err);
        }
        c->n_named += status == MOE_OK;
    }
    return status;
}

static moe_status read_former(reading *r, const json_t *json, moe_error *err)
{
    catalogue *c = r->made;
    const json_t *list = NULL;
    moe_status status = get_list(json, "former", CATALOGUE_MAX_PREVIOUS, &list, err);

    for (size_t i = 0; status == MOE_OK && i < json_array_size(list); i++) {
        status = get_number(json_array_get(list, i), "until", &c->former[i].until_ms, err);
        if (status == MOE_OK) {
            status = get_set(r, json_array_get(list, i), "set", &c->former[i].set, err);
        }
        c->n_former += status == MOE_OK;
    }
    return status;
}

/* Of a pack that there is. */
static moe_status read_share(const reading *r, const json_t *json, const char *hash, uint32_t *out, moe_error *err)
{
    uint64_t share = 0;
    moe_status status = get_number(json, "share", &share, err);

    if (status == MOE_OK && (share > CATALOGUE_ALL_REQUESTS || catalogue_find_hash(r->made, hash) == SIZE_MAX)) {
        status = moe_fail(err, MOE_ERR_CORRUPT, "shadow: share %" PRIu64 " of pack \"%s\"", share, hash);
    }
    *out = (uint32_t)share;
    return status;
}

static moe_status read_shadow(reading *r, const json_t *json, moe_error *err)
{
    catalogue *c = r->made;
    catalogue_shadow *s = &c->shadow;
    const json_t *from = json_object_get(json, "shadow");
    const text_field texts[] = {{"pack", s->pack, sizeof s->pack}, {"by", s->by, sizeof s->by}};
    moe_status status;

    if (from == NULL) {
        return MOE_OK;
    }
    if (!catalogue_has_room_for_shadow(c)) {
        return moe_fail(err, MOE_ERR_CORRUPT, "shadow: %zu sets have names; no room for one more", c->n_named);
    }
    status = get_texts(from, texts, MOE_COUNT(texts), err);
    if (status == MOE_OK) {
        status = read_share(r, from, s->pack, &s->share, err);
    }
    if (status == MOE_OK) {
        status = get_number(from, "since", &s->since_ms, err);
    }
    if (status == MOE_OK) {
        status = get_set(r, from, "set", &s->set, err);
    }
    return status;
}

/* ------------------------------------------------------------------------------------------------ changes */
static moe_status read_entry(const json_t *json, catalogue_entry *e, moe_error *err)
{
    const text_field texts[] = {{"who", e->who, sizeof e->who},       {"why", e->why, sizeof e->why},
                                {"what", e->what, sizeof e->what},    {"before", e->before, sizeof e->before},
                                {"after", e->after, sizeof e->after}, {"undone", e->undone, sizeof e->undone}};
    moe_status status = get_number(json, "number", &e->number, err);

    if (status == MOE_OK) {
        status = get_number(json, "at", &e->at_ms, err);
    }
    return status == MOE_OK ? get_texts(json, texts, MOE_COUNT(texts), err) : status;
}

static moe_status read_log(reading *r, const json_t *json, moe_error *err)
{
    catalogue *c = r->made;
    const json_t *list = NULL;
    moe_status status = get_list(json, "log", CATALOGUE_MAX_LOG, &list, err);
    uint64_t last = 0;

    for (size_t i = 0; status == MOE_OK && i < json_array_size(list); i++) {
        catalogue_entry *e = &c->entries[i];

        status = read_entry(json_array_get(list, i), e, err);
        if (status == MOE_OK && (e->number <= last || e->number > c->number)) {
            status = moe_fail(err, MOE_ERR_CORRUPT, "log: number %" PRIu64 " does not ascend to %" PRIu64, e->number,
                              c->number);
        }
        last = e->number;
        c->n_entries += status == MOE_OK;
    }
    return status;
}

/* What a change that is pending can be: the latest, and one that catalogue_begin takes. */
static bool is_possible(const catalogue *c, const catalogue_pending *p)
{
    return p->number > 0 && p->number == c->number &&
           (p->name[0] == '\0' || (catalogue_name_is_valid(p->name) && catalogue_has_room_for(c, p->name))) &&
           (!p->is_rollback || c->n_former > 0) &&
           (p->shadow[0] == '\0' || (p->name[0] == '\0' && !p->is_rollback && catalogue_has_room_for_shadow(c)));
}

static moe_status read_pending(reading *r, const json_t *json, moe_error *err)
{
    catalogue_pending *p = &r->made->pending;
    const json_t *from = json_object_get(json, "pending");
    const text_field texts[] = {{"who", p->who, sizeof p->who},
                                {"why", p->why, sizeof p->why},
                                {"what", p->what, sizeof p->what},
                                {"name", p->name, sizeof p->name},
                                {"shadow", p->shadow, sizeof p->shadow}};
    moe_status status;

    if (from == NULL) {
        return MOE_OK;
    }
    status = get_texts(from, texts, MOE_COUNT(texts), err);
    if (status == MOE_OK) {
        status = get_number(from, "number", &p->number, err);
    }
    if (status == MOE_OK) {
        status = get_number(from, "begun", &p->begun_ms, err);
    }
    if (status == MOE_OK) {
        status = get_number(from, "deadline", &p->deadline_ms, err);
    }
    if (status == MOE_OK) {
        status = moe_json_bool(from, "rollback", &p->is_rollback, NULL, err);
    }
    if (status == MOE_OK && p->shadow[0] != '\0') {
        status = read_share(r, from, p->shadow, &p->share, err);
    }
    if (status == MOE_OK) {
        status = get_set(r, from, "target", &p->target, err);
    }
    if (status != MOE_OK) {
        return status;
    }
    if (!is_possible(r->made, p)) {
        return moe_fail(err, MOE_ERR_CORRUPT,
                        "pending: change %" PRIu64 " is not the latest one, %" PRIu64 ", or cannot be", p->number,
                        r->made->number);
    }
    r->made->has_pending = true;
    return MOE_OK;
}

/* ------------------------------------------------------------------------------------------------ all of it */
static moe_status read_all(reading *r, const json_t *json, moe_error *err)
{
    moe_status (*const parts[])(reading *, const json_t *, moe_error *) = {
        read_packs, read_sets, read_names, read_former, read_log, read_shadow, read_pending};
    int64_t v = 0;
    bool found = false;
    moe_status status = json_is_object(json) ? moe_json_int(json, "v", 1, 1, &v, &found, err)
                                             : moe_fail(err, MOE_ERR_CORRUPT, "must be an object");

    if (status == MOE_OK) {
        status = need("v", found, err);
    }
    if (status == MOE_OK) {
        status = get_number(json, "number", &r->made->number, err);
    }
    for (size_t i = 0; i < MOE_COUNT(parts) && status == MOE_OK; i++) {
        status = parts[i](r, json, err);
    }
    if (status == MOE_OK) {
        status = get_set(r, json, "default", &r->made->set, err);
    }
    for (size_t i = 0; status == MOE_OK && i < r->made->n_packs; i++) {
        r->made->packs[i].active = catalogue_uses(r->made->set, &r->made->packs[i]);
    }
    return status;
}

moe_status catalogue_read(const catalogue_model *m, const char *text, size_t n, catalogue *previous, catalogue **out,
                          moe_error *err)
{
    reading r = {.previous = previous};
    moe_json *json = NULL;
    moe_error why;
    moe_status status;

    if (n > CATALOGUE_MAX_TEXT) {
        return moe_fail(err, MOE_ERR_CORRUPT, "catalogue: %zu bytes; the limit is %zu", n, CATALOGUE_MAX_TEXT);
    }
    status = moe_json_parse(text, n, RECORD_DEPTH, &json, &why);
    if (status != MOE_OK) {
        return moe_fail(err, status, "catalogue: %s", why.text);
    }
    r.made =
        catalogue_allocate(m, MOE_MIN(json_array_size(json_object_get(json, "packs")), (size_t)CATALOGUE_MAX_PACKS));
    status = r.made != NULL ? read_all(&r, json, &why) : moe_fail(&why, MOE_ERR_NO_MEMORY, "out of memory");
    for (size_t i = 0; i < r.n_sets; i++) {
        router_set_unref(r.sets[i]);
    }
    moe_json_free(json);
    if (status != MOE_OK) {
        catalogue_unref(r.made);
        return moe_fail(err, status, "catalogue: %s", why.text);
    }
    *out = r.made;
    return MOE_OK;
}

/* ------------------------------------------------------------------------------------------------ the checkpoint's own set */
static moe_status read_own(const catalogue_model *m, const char *text, size_t n, router_set **out, moe_error *err)
{
    catalogue *c;
    moe_error why = {.text = ""};
    moe_status status = catalogue_open(m, &c, err);

    if (status != MOE_OK) {
        return status;
    }
    status = text != NULL ? catalogue_read_set(c, text, n, out, &why) : catalogue_base(c, out, &why);
    catalogue_unref(c);
    return status == MOE_OK ? MOE_OK : moe_fail(err, status, CATALOGUE_OWN_FILE ": %.300s", why.text);
}

moe_status catalogue_read_own(const catalogue_model *m, const char *dir, router_set **out, moe_error *err)
{
    moe_text path;
    char *text = NULL;
    size_t n = 0;

    moe_text_init(&path, MAX_PATH);
    moe_text_printf(&path, "%s/" CATALOGUE_OWN_FILE, dir);
    moe_status status =
        path.failed ? moe_fail(err, MOE_ERR_INVALID_ARG, "%.100s...: a path of more than %d bytes", dir, MAX_PATH)
                    : moe_file_read(moe_text_cstr(&path), CATALOGUE_MAX_TEXT, &text, &n, err);
    moe_text_fini(&path);
    if (status == MOE_OK || status == MOE_ERR_NOT_FOUND) {
        status = read_own(m, text, n, out, err);
    }
    free(text);
    return status;
}
