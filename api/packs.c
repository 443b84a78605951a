/* What Admin tells of packs and sets. */
#include "conclave/v1/admin.pb-c.h"
#include "api/lists_priv.h"
#include "api/grpc/proto.h"
#include "api/methods_priv.h"

#include <stdlib.h>
#include <string.h>

enum { LIST_PACKS = 1, LIST_SETS = 1, LOG_ENTRIES = 1 };

static catalogue *current(rpc_call *call)
{
    const api_catalogue *from = rpc_catalogue(call);

    return from->current(from->ctx);
}

static void answer(rpc_call *call, moe_text *out)
{
    if (out->failed) {
        rpc_fail(call, MOE_ERR_NO_MEMORY, "the reply is too large, or memory is");
    } else {
        rpc_finish_bytes(call, out->data, out->size);
    }
    moe_text_fini(out);
}

/* ------------------------------------------------------------------------------------------------ packs */
static uint32_t count_in(const router_set *set, const catalogue_pack *p)
{
    uint32_t n = 0;

    for (size_t l = 0; l < p->n_layers; l++) {
        const router_set_layer *layer = router_set_at(set, p->layers[l].layer);

        for (uint32_t i = 0; i < layer->n_experts; i++) {
            int64_t place = (int64_t)layer->expert_ids[i] - p->layers[l].first_id;

            n += place >= 0 && place < p->layers[l].n_experts;
        }
    }
    return n;
}

static const char *source_of(const api_offer *offers, size_t n, const char *hash)
{
    for (size_t i = 0; i < n; i++) {
        if (strcmp(offers[i].pack.hash, hash) == 0) {
            return offers[i].source;
        }
    }
    return "";
}

static void fill_pack(const catalogue_pack *p, Conclave__V1__Pack *to)
{
    conclave__v1__pack__init(to);
    to->name = proto_text(p->name);
    to->version = proto_text(p->version);
    to->hash = proto_text(p->hash);
    to->kind = p->is_replace ? CONCLAVE__V1__PACK_KIND__PACK_KIND_REPLACE : CONCLAVE__V1__PACK_KIND__PACK_KIND_ADD;
    to->n_experts = (uint32_t)p->n_experts;
}

static void fill_shadow(const catalogue_shadow *s, const api_catalogue *from, Conclave__V1__Shadow *to)
{
    api_compared compared;

    from->compared(from->ctx, &compared);
    conclave__v1__shadow__init(to);
    to->share = (double)s->share / CATALOGUE_ALL_REQUESTS;
    to->set_id = proto_text(router_set_id(s->set));
    to->since_ms = s->since_ms;
    to->by = proto_text(s->by);
    to->requests = compared.requests;
    to->tokens = compared.tokens;
    to->dropped = compared.dropped;
    to->mean_difference = compared.mean;
    if (compared.has_error) {
        to->has_standard_error_case = CONCLAVE__V1__SHADOW__HAS_STANDARD_ERROR_STANDARD_ERROR;
        to->standard_error = compared.error;
    }
}

static void put_pack(moe_text *out, const catalogue *c, const catalogue_pack *p, const char *source,
                     const api_catalogue *from)
{
    const catalogue_shadow *trial = catalogue_get_shadow(c);
    Conclave__V1__Shadow shadow;
    Conclave__V1__Pack m;
    Conclave__V1__PackLayer *layers = calloc(p->n_layers + 1, sizeof layers[0]);
    Conclave__V1__PackLayer **pointers = calloc(p->n_layers + 1, sizeof(pointers[0]));

    fill_pack(p, &m);
    m.taken_in = true;
    m.active = p->active;
    m.since_ms = p->since_ms;
    m.by = proto_text(p->by);
    m.n_in_default = count_in(catalogue_default(c), p);
    m.source = proto_text(source);
    if (trial != NULL && strcmp(trial->pack, p->hash) == 0) {
        fill_shadow(trial, from, &shadow);
        m.shadow = &shadow;
    }
    for (size_t i = 0; layers != NULL && pointers != NULL && i < p->n_layers; i++) {
        conclave__v1__pack_layer__init(&layers[i]);
        layers[i].layer = p->layers[i].layer;
        layers[i].n_experts = p->layers[i].n_experts;
        layers[i].first_id = p->layers[i].first_id;
        layers[i].n_replaces = p->is_replace ? p->layers[i].n_experts : 0;
        layers[i].replaces = (int32_t *)(uintptr_t)p->layers[i].replaces;
        pointers[m.n_layers++] = &layers[i];
    }
    m.layers = pointers;
    out->failed = out->failed || m.n_layers < p->n_layers;
    proto_put_message(out, LIST_PACKS, &m.base);
    free(layers);
    free(pointers);
}

static void put_offers(moe_text *out, const catalogue *c, const api_offer *offers, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        Conclave__V1__Pack m;

        if (catalogue_find_pack(c, offers[i].pack.hash) == NULL) {
            fill_pack(&offers[i].pack, &m);
            m.source = proto_text(offers[i].source);
            proto_put_message(out, LIST_PACKS, &m.base);
        }
    }
}

void list_packs_start(rpc_call *call, const uint8_t *bytes, size_t n)
{
    ProtobufCMessage *r = rpc_unpack(call, &conclave__v1__list_packs_request__descriptor, bytes, n);
    const api_catalogue *from = rpc_catalogue(call);
    api_offer *offers = r != NULL ? calloc(API_MAX_OFFERS, sizeof offers[0]) : NULL;
    moe_text out;

    if (r == NULL) {
        return;
    }
    rpc_free(r);
    moe_text_init(&out, RPC_MAX_REPLY_BYTES);
    size_t n_offers =
        offers != NULL ? MOE_MIN(from->offers(from->ctx, offers, API_MAX_OFFERS), (size_t)API_MAX_OFFERS) : 0;
    catalogue *c = current(call);
    for (size_t i = 0; i < catalogue_n_packs(c); i++) {
        const catalogue_pack *p = catalogue_pack_at(c, i);

        put_pack(&out, c, p, source_of(offers, n_offers, p->hash), from);
    }
    put_offers(&out, c, offers, n_offers);
    catalogue_unref(c);
    free(offers);
    answer(call, &out);
}

/* ------------------------------------------------------------------------------------------------ sets */
static size_t put_names(const catalogue *c, const router_set *set, char **out)
{
    size_t n = 0;

    for (size_t i = 0; i < catalogue_n_named(c); i++) {
        const catalogue_named *named = catalogue_named_at(c, i);

        if (strcmp(router_set_id(named->set), router_set_id(set)) == 0) {
            out[n++] = proto_text(named->name);
        }
    }
    return n;
}

static uint64_t until_of(const catalogue *c, const router_set *set)
{
    for (size_t i = 0; i < catalogue_n_former(c); i++) {
        if (strcmp(router_set_id(catalogue_former_at(c, i)->set), router_set_id(set)) == 0) {
            return catalogue_former_at(c, i)->until_ms;
        }
    }
    return 0;
}

static void put_set(moe_text *out, const catalogue *c, const router_set *set, bool experts)
{
    Conclave__V1__SetInfo m = CONCLAVE__V1__SET_INFO__INIT;
    char *names[CATALOGUE_MAX_SETS];
    char **packs = calloc(catalogue_n_packs(c) + 1, sizeof packs[0]);
    expert_lists lists = {.n = 0};

    m.id = proto_text(router_set_id(set));
    m.n_names = put_names(c, set, names);
    m.names = names;
    m.is_default = strcmp(router_set_id(catalogue_default(c)), m.id) == 0;
    m.is_shadow = catalogue_get_shadow(c) != NULL && strcmp(router_set_id(catalogue_get_shadow(c)->set), m.id) == 0;
    m.default_until_ms = until_of(c, set);
    for (size_t l = 0; l < router_set_n_layers(set); l++) {
        m.size += router_set_at(set, l)->n_experts;
    }
    for (size_t i = 0; packs != NULL && i < catalogue_n_packs(c); i++) {
        if (catalogue_uses(set, catalogue_pack_at(c, i))) {
            packs[m.n_packs++] = proto_text(catalogue_pack_at(c, i)->name);
        }
    }
    m.packs = packs;
    out->failed = out->failed || packs == NULL || (experts && !expert_lists_init(&lists, set, NULL));
    m.n_experts = lists.n;
    m.experts = lists.pointers;
    proto_put_message(out, LIST_SETS, &m.base);
    expert_lists_fini(&lists);
    free(packs);
}

/* The first of those with this id is told of: the default one, then by name, then the one on trial, then former ones. */
static bool comes_first(router_set *const *sets, size_t at)
{
    for (size_t i = 0; i < at; i++) {
        if (strcmp(router_set_id(sets[i]), router_set_id(sets[at])) == 0) {
            return false;
        }
    }
    return true;
}

static void put_all_sets(moe_text *out, const catalogue *c, bool experts)
{
    router_set *sets[CATALOGUE_MAX_SETS + CATALOGUE_MAX_PREVIOUS];
    size_t n = catalogue_live_sets(c, sets);

    for (size_t i = 0; i < catalogue_n_former(c); i++) {
        sets[n++] = catalogue_former_at(c, i)->set;
    }
    for (size_t i = 0; i < n; i++) {
        if (comes_first(sets, i)) {
            put_set(out, c, sets[i], experts);
        }
    }
}

void list_sets_start(rpc_call *call, const uint8_t *bytes, size_t n)
{
    ProtobufCMessage *message = rpc_unpack(call, &conclave__v1__list_sets_request__descriptor, bytes, n);
    const Conclave__V1__ListSetsRequest *r = (const void *)message;
    Conclave__V1__ListSetsResponse m = CONCLAVE__V1__LIST_SETS_RESPONSE__INIT;
    router_set *one = NULL;
    moe_status status = MOE_OK;
    moe_text out;
    moe_error err;

    if (message == NULL) {
        return;
    }
    catalogue *c = current(call);
    if (r->has_set_case != 0) {
        status = catalogue_find_set(c, r->set, &one, &err);
    }
    if (status != MOE_OK) {
        rpc_fail(call, status, err.text);
    } else {
        moe_text_init(&out, RPC_MAX_REPLY_BYTES);
        m.pending = proto_text(catalogue_get_pending(c) != NULL ? catalogue_get_pending(c)->what : "");
        proto_put_fields(&out, &m.base);
        if (one != NULL) {
            put_set(&out, c, one, r->experts);
        } else {
            put_all_sets(&out, c, r->experts);
        }
        answer(call, &out);
    }
    router_set_unref(one);
    catalogue_unref(c);
    rpc_free(message);
}

/* ------------------------------------------------------------------------------------------------ the log */
static void put_entry(moe_text *out, const catalogue_entry *e)
{
    Conclave__V1__SetLogEntry m = CONCLAVE__V1__SET_LOG_ENTRY__INIT;

    m.number = e->number;
    m.at_ms = e->at_ms;
    m.who = proto_text(e->who);
    m.why = proto_text(e->why);
    m.what = proto_text(e->what);
    m.set_before = proto_text(e->before);
    m.set_after = proto_text(e->after);
    m.undone = proto_text(e->undone);
    proto_put_message(out, LOG_ENTRIES, &m.base);
}

void set_log_start(rpc_call *call, const uint8_t *bytes, size_t n)
{
    ProtobufCMessage *message = rpc_unpack(call, &conclave__v1__get_set_log_request__descriptor, bytes, n);
    const Conclave__V1__GetSetLogRequest *r = (const void *)message;
    moe_text out;

    if (message == NULL) {
        return;
    }
    catalogue *c = current(call);
    size_t n_entries = catalogue_n_entries(c);
    size_t wanted = r->limit == 0 ? n_entries : MOE_MIN((size_t)r->limit, n_entries);
    moe_text_init(&out, RPC_MAX_REPLY_BYTES);
    for (size_t i = n_entries - wanted; i < n_entries; i++) {
        put_entry(&out, catalogue_entry_at(c, i));
    }
    catalogue_unref(c);
    rpc_free(message);
    answer(call, &out);
}

/* ------------------------------------------------------------------------------------------------ two sets */
static void answer_diff(rpc_call *call, const router_set *a, const router_set *b)
{
    Conclave__V1__DiffSetsResponse m = CONCLAVE__V1__DIFF_SETS_RESPONSE__INIT;
    expert_lists only_a = {.n = 0}, only_b = {.n = 0};

    if (!expert_lists_init(&only_a, a, b) || !expert_lists_init(&only_b, b, a)) {
        rpc_fail(call, MOE_ERR_NO_MEMORY, "out of memory");
    } else {
        m.set_a = proto_text(router_set_id(a));
        m.set_b = proto_text(router_set_id(b));
        m.n_only_a = only_a.n;
        m.only_a = only_a.pointers;
        m.n_only_b = only_b.n;
        m.only_b = only_b.pointers;
        rpc_finish_ok(call, &m.base);
    }
    expert_lists_fini(&only_a);
    expert_lists_fini(&only_b);
}

void diff_sets_start(rpc_call *call, const uint8_t *bytes, size_t n)
{
    ProtobufCMessage *message = rpc_unpack(call, &conclave__v1__diff_sets_request__descriptor, bytes, n);
    const Conclave__V1__DiffSetsRequest *r = (const void *)message;
    router_set *a = NULL, *b = NULL;
    moe_error err;

    if (message == NULL) {
        return;
    }
    catalogue *c = current(call);
    moe_status status = catalogue_find_set(c, r->a, &a, &err);
    if (status == MOE_OK) {
        status = catalogue_find_set(c, r->b, &b, &err);
    }
    if (status == MOE_OK) {
        answer_diff(call, a, b);
    } else {
        rpc_fail(call, status, err.text);
    }
    router_set_unref(a);
    router_set_unref(b);
    catalogue_unref(c);
    rpc_free(message);
}
