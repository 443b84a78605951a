/* The catalogue as JSON, written; record_read.c reads it. docs/catalogue.md has the form. */
#include "catalogue/catalogue_priv.h"

#include <inttypes.h>
#include <string.h>

static void put_text(moe_text *t, const char *key, const char *value)
{
    if (value[0] != '\0') {
        moe_text_printf(t, ",\"%s\":", key);
        moe_text_json_string(t, value, strlen(value));
    }
}

static void put_number(moe_text *t, const char *key, uint64_t value)
{
    moe_text_printf(t, ",\"%s\":%" PRIu64, key, value);
}

/* [layer, number, first id], and what they replace. */
static void put_pack_layer(moe_text *t, const catalogue_pack_layer *l)
{
    moe_text_printf(t, "[%u,%u,%d", l->layer, l->n_experts, l->first_id);
    for (uint32_t i = 0; l->replaces != NULL && i < l->n_experts; i++) {
        moe_text_printf(t, "%s%d", i == 0 ? ",[" : ",", l->replaces[i]);
    }
    moe_text_printf(t, l->replaces != NULL ? "]]" : "]");
}

static void put_pack(moe_text *t, const catalogue_pack *p)
{
    moe_text_printf(t, "{\"kind\":\"%s\"", p->is_replace ? "replace" : "add");
    put_text(t, "name", p->name);
    put_text(t, "version", p->version);
    put_text(t, "hash", p->hash);
    put_number(t, "since", p->since_ms);
    put_text(t, "by", p->by);
    moe_text_printf(t, ",\"layers\":[");
    for (size_t i = 0; i < p->n_layers; i++) {
        moe_text_printf(t, i > 0 ? "," : "");
        put_pack_layer(t, &p->layers[i]);
    }
    moe_text_printf(t, "]}");
}

/* Every set once, whatever it is: all others name it by its id. */
typedef struct seen {
    const router_set *sets[CATALOGUE_MAX_SETS + CATALOGUE_MAX_PREVIOUS + 2];
    size_t n;
} seen;

static void put_set(moe_text *t, seen *s, const router_set *set)
{
    for (size_t i = 0; i < s->n; i++) {
        if (strcmp(router_set_id(s->sets[i]), router_set_id(set)) == 0) {
            return;
        }
    }
    moe_text_printf(t, "%s{\"id\":\"%s\",\"layers\":[", s->n > 0 ? "," : "", router_set_id(set));
    for (size_t l = 0; l < router_set_n_layers(set); l++) {
        moe_text_printf(t, l > 0 ? ",\"" : "\"");
        catalogue_put_ids(t, router_set_at(set, l));
        moe_text_printf(t, "\"");
    }
    moe_text_printf(t, "]}");
    s->sets[s->n++] = set;
}

static void put_sets(moe_text *t, const catalogue *c)
{
    seen s = {.n = 0};

    moe_text_printf(t, ",\"sets\":[");
    put_set(t, &s, c->set);
    for (size_t i = 0; i < c->n_named; i++) {
        put_set(t, &s, c->named[i].set);
    }
    for (size_t i = 0; i < c->n_former; i++) {
        put_set(t, &s, c->former[i].set);
    }
    if (c->shadow.set != NULL) {
        put_set(t, &s, c->shadow.set);
    }
    if (c->has_pending) {
        put_set(t, &s, c->pending.target);
    }
    moe_text_printf(t, "]");
}

static void put_names(moe_text *t, const catalogue *c)
{
    moe_text_printf(t, ",\"names\":[");
    for (size_t i = 0; i < c->n_named; i++) {
        moe_text_printf(t, "%s{\"name\":\"%s\",\"set\":\"%s\"}", i > 0 ? "," : "", c->named[i].name,
                        router_set_id(c->named[i].set));
    }
    moe_text_printf(t, "],\"default\":\"%s\",\"former\":[", router_set_id(c->set));
    for (size_t i = 0; i < c->n_former; i++) {
        moe_text_printf(t, "%s{\"set\":\"%s\",\"until\":%" PRIu64 "}", i > 0 ? "," : "",
                        router_set_id(c->former[i].set), c->former[i].until_ms);
    }
    moe_text_printf(t, "]");
}

static void put_log(moe_text *t, const catalogue *c)
{
    moe_text_printf(t, ",\"log\":[");
    for (size_t i = 0; i < c->n_entries; i++) {
        const catalogue_entry *e = &c->entries[i];

        moe_text_printf(t, "%s{\"number\":%" PRIu64 ",\"at\":%" PRIu64, i > 0 ? "," : "", e->number, e->at_ms);
        put_text(t, "who", e->who);
        put_text(t, "why", e->why);
        put_text(t, "what", e->what);
        put_text(t, "before", e->before);
        put_text(t, "after", e->after);
        put_text(t, "undone", e->undone);
        moe_text_printf(t, "}");
    }
    moe_text_printf(t, "]");
}

static void put_shadow(moe_text *t, const catalogue_shadow *s)
{
    moe_text_printf(t, ",\"shadow\":{\"pack\":\"%s\",\"share\":%" PRIu32, s->pack, s->share);
    put_number(t, "since", s->since_ms);
    put_text(t, "by", s->by);
    put_text(t, "set", router_set_id(s->set));
    moe_text_printf(t, "}");
}

static void put_pending(moe_text *t, const catalogue_pending *p)
{
    moe_text_printf(t, ",\"pending\":{\"number\":%" PRIu64, p->number);
    put_number(t, "begun", p->begun_ms);
    put_number(t, "deadline", p->deadline_ms);
    put_text(t, "who", p->who);
    put_text(t, "why", p->why);
    put_text(t, "what", p->what);
    put_text(t, "name", p->name);
    put_text(t, "shadow", p->shadow);
    if (p->shadow[0] != '\0') {
        put_number(t, "share", p->share);
    }
    put_text(t, "target", router_set_id(p->target));
    moe_text_printf(t, "%s}", p->is_rollback ? ",\"rollback\":true" : "");
}

void catalogue_write(const catalogue *c, moe_text *out)
{
    moe_text_printf(out, "{\"v\":1,\"number\":%" PRIu64 ",\"packs\":[", c->number);
    for (size_t i = 0; i < c->n_packs; i++) {
        moe_text_printf(out, i > 0 ? "," : "");
        put_pack(out, &c->packs[i]);
    }
    moe_text_printf(out, "]");
    put_sets(out, c);
    put_names(out, c);
    put_log(out, c);
    if (c->shadow.set != NULL) {
        put_shadow(out, &c->shadow);
    }
    if (c->has_pending) {
        put_pending(out, &c->pending);
    }
    moe_text_printf(out, "}");
}
