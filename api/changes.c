/* The changes of Admin: each request becomes something to ask the program for; then the caller is told how far it is. */
#include "conclave/v1/admin.pb-c.h"
#include "api/expert_counts_priv.h"
#include "api/grpc/proto.h"
#include "api/lists_priv.h"
#include "api/methods_priv.h"

#include <grpc/support/alloc.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_TIMEOUT_MS 86400000u           /* a day */
#define MAX_USAGE_ROWS (UINT64_C(1) << 48) /* of one expert; a layer's sum stays within 64 bits */

/* ------------------------------------------------------------------------------------------------ what is asked */
typedef struct asked {
    api_ask ask;
    catalogue_expert *experts; /* owned */
} asked;

/* Experts in a list are of those that there are; so their number is bounded by that. */
static moe_status take_experts(rpc_call *call, Conclave__V1__ExpertList *const *lists, size_t n, asked *a,
                               moe_error *err)
{
    const api_catalogue *from = rpc_catalogue(call);
    catalogue *c = from->current(from->ctx);
    moe_status status = expert_lists_take(lists, n, router_space_n_slots(catalogue_space(c)), &a->experts,
                                          &a->ask.change.n_experts, err);

    a->ask.change.experts = a->experts;
    catalogue_unref(c);
    return status;
}

static moe_status take_words(const char *field, char **words, size_t n, const char *const **out, size_t *n_out,
                             moe_error *err)
{
    if (n > SETS_MAX_WORDS) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "%s: %zu packs; the limit is %d", field, n, SETS_MAX_WORDS);
    }
    *out = (const char *const *)words;
    *n_out = n;
    return MOE_OK;
}

static moe_status need(const char *field, const char *value, moe_error *err)
{
    return value[0] != '\0' ? MOE_OK : moe_fail(err, MOE_ERR_INVALID_ARG, "%s: is missing", field);
}

static moe_status take_add(rpc_call *call, const ProtobufCMessage *m, asked *a, moe_error *err)
{
    const Conclave__V1__AddPackRequest *r = (const void *)m;

    (void)call;
    a->ask.pack = r->pack;
    if (r->has_shadow_case != 0) {
        if (!(r->shadow >= 0 && r->shadow <= 1)) {
            return moe_fail(err, MOE_ERR_INVALID_ARG, "shadow: %g; a share of [0, 1]", r->shadow);
        }
        a->ask.change.is_shadow = true;
        a->ask.change.share = (uint32_t)lround(r->shadow * CATALOGUE_ALL_REQUESTS);
    }
    return need("pack", r->pack, err);
}

static moe_status take_promote(rpc_call *call, const ProtobufCMessage *m, asked *a, moe_error *err)
{
    const Conclave__V1__PromotePackRequest *r = (const void *)m;

    (void)call;
    a->ask.change.word = r->pack;
    return need("pack", r->pack, err);
}

static moe_status take_remove(rpc_call *call, const ProtobufCMessage *m, asked *a, moe_error *err)
{
    const Conclave__V1__RemovePackRequest *r = (const void *)m;

    (void)call;
    a->ask.change.word = r->pack;
    return need("pack", r->pack, err);
}

static moe_status take_update(rpc_call *call, const ProtobufCMessage *m, asked *a, moe_error *err)
{
    const Conclave__V1__UpdatePackRequest *r = (const void *)m;
    moe_status status = need("pack", r->pack, err);

    (void)call;
    a->ask.change.word = r->pack;
    a->ask.pack = r->to;
    return status == MOE_OK ? need("to", r->to, err) : status;
}

static moe_status take_rollback(rpc_call *call, const ProtobufCMessage *m, asked *a, moe_error *err)
{
    (void)call, (void)m, (void)a, (void)err;
    return MOE_OK;
}

/* The rows that the caller has counted, in place of those of this server. */
static moe_status take_usage(const Conclave__V1__PruneExpertsRequest *r, expert_counts *counts, moe_error *err)
{
    memset(counts->rows, 0, router_space_n_slots(counts->space) * sizeof counts->rows[0]);
    for (size_t i = 0; i < r->n_usage; i++) {
        const Conclave__V1__ExpertUsage *u = r->usage[i];

        if (u->n_ids != u->n_rows || u->layer >= router_space_n_layers(counts->space)) {
            return moe_fail(err, MOE_ERR_INVALID_ARG, "usage: layer %u, %zu ids, %zu rows; the model has %u layers",
                            u->layer, u->n_ids, u->n_rows, router_space_n_layers(counts->space));
        }
        for (size_t e = 0; e < u->n_ids; e++) {
            uint32_t slot = router_space_slot(counts->space, u->layer, u->ids[e]);

            if (slot == ROUTER_NO_SLOT || u->rows[e] > MAX_USAGE_ROWS) {
                return moe_fail(err, MOE_ERR_INVALID_ARG, "usage: layer %u, expert %d: %s", u->layer, u->ids[e],
                                slot == ROUTER_NO_SLOT ? "there is none" : "more rows than anybody can have counted");
            }
            counts->rows[slot] = u->rows[e];
        }
    }
    return MOE_OK;
}

/* The rows of a window that ends now, in place of those since start. */
static moe_status take_window(rpc_call *call, uint32_t over_s, expert_counts *counts, moe_error *err)
{
    const uint64_t second = UINT64_C(1000000000);
    uint64_t longest = 0;

    return engine_get_expert_rows_over(rpc_engine(call), over_s * second, counts->rows,
                                       router_space_n_slots(counts->space), &longest)
               ? MOE_OK
               : moe_fail(err, MOE_ERR_INVALID_ARG, "over_s: %u; the longest window that is kept is %llu s", over_s,
                          (unsigned long long)(longest / second));
}

/* The experts that live usage, or what the caller has counted, says are hardly needed. */
static moe_status choose(rpc_call *call, const Conclave__V1__PruneExpertsRequest *r, asked *a, moe_error *err)
{
    const api_catalogue *from = rpc_catalogue(call);
    expert_counts counts;

    if (!(r->below <= 1 && (r->n_usage > 0 ? r->below >= 0 : r->below > 0))) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "below: %g; with no experts named, a share of (0, 1]", r->below);
    }
    if (r->over_s != 0 && r->n_usage > 0) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "over_s: does not go with usage");
    }
    if (expert_counts_init(&counts, rpc_engine(call)) != MOE_OK) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "out of memory");
    }
    moe_status status = r->n_usage > 0   ? take_usage(r, &counts, err)
                        : r->over_s != 0 ? take_window(call, r->over_s, &counts, err)
                                         : MOE_OK;
    if (status != MOE_OK) {
        expert_counts_fini(&counts);
        return status;
    }
    catalogue *c = from->current(from->ctx);
    const catalogue_prune_rule rule = {.below = r->below,
                                       .keep_at_least = r->keep_at_least,
                                       .pack = r->pack[0] != '\0' ? r->pack : NULL,
                                       .rows = counts.rows,
                                       .n_slots = router_space_n_slots(counts.space)};
    status = catalogue_choose(c, &rule, &a->experts, &a->ask.change.n_experts, err);
    catalogue_unref(c);
    expert_counts_fini(&counts);
    if (status == MOE_OK && a->ask.change.n_experts == 0) {
        status = moe_fail(err, MOE_ERR_NOT_FOUND,
                          "below: no expert that may go has no row, or less than %g of its layer's", r->below);
    }
    a->ask.change.experts = a->experts;
    return status;
}

static moe_status take_prune(rpc_call *call, const ProtobufCMessage *m, asked *a, moe_error *err)
{
    const Conclave__V1__PruneExpertsRequest *r = (const void *)m;

    if (r->n_experts == 0) {
        return choose(call, r, a, err);
    }
    if (r->below != 0 || r->keep_at_least != 0 || r->n_usage > 0 || r->over_s != 0 || r->pack[0] != '\0') {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "%s: does not go with experts",
                        r->below != 0           ? "below"
                        : r->keep_at_least != 0 ? "keep_at_least"
                        : r->n_usage > 0        ? "usage"
                        : r->over_s != 0        ? "over_s"
                                                : "pack");
    }
    return take_experts(call, r->experts, r->n_experts, a, err);
}

static moe_status take_restore(rpc_call *call, const ProtobufCMessage *m, asked *a, moe_error *err)
{
    const Conclave__V1__RestoreExpertsRequest *r = (const void *)m;

    return take_experts(call, r->experts, r->n_experts, a, err);
}

static moe_status take_define(rpc_call *call, const ProtobufCMessage *m, asked *a, moe_error *err)
{
    const Conclave__V1__DefineSetRequest *r = (const void *)m;
    catalogue_change *c = &a->ask.change;
    moe_status status = need("name", r->name, err);

    c->word = r->name;
    if (status == MOE_OK) {
        status = take_words("include", r->include, r->n_include, &c->include, &c->n_include, err);
    }
    if (status == MOE_OK) {
        status = take_words("exclude", r->exclude, r->n_exclude, &c->exclude, &c->n_exclude, err);
    }
    return status == MOE_OK ? take_experts(call, r->experts, r->n_experts, a, err) : status;
}

static moe_status take_use(rpc_call *call, const ProtobufCMessage *m, asked *a, moe_error *err)
{
    const Conclave__V1__UseSetRequest *r = (const void *)m;

    (void)call;
    a->ask.change.word = r->set;
    return need("set", r->set, err);
}

static moe_status take_forget(rpc_call *call, const ProtobufCMessage *m, asked *a, moe_error *err)
{
    const Conclave__V1__ForgetSetRequest *r = (const void *)m;

    (void)call;
    a->ask.change.word = r->name;
    return need("name", r->name, err);
}

typedef struct change_kind {
    catalogue_op op;
    const ProtobufCMessageDescriptor *type;
    size_t options_at; /* of the field `options` */
    moe_status (*take)(rpc_call *call, const ProtobufCMessage *m, asked *a, moe_error *err);
} change_kind;

#define OPTIONS(name) offsetof(Conclave__V1__##name##Request, options)
static const change_kind kinds[CATALOGUE_N_OPS] = {
    [CATALOGUE_ADD] = {CATALOGUE_ADD, &conclave__v1__add_pack_request__descriptor, OPTIONS(AddPack), take_add},
    [CATALOGUE_PROMOTE] = {CATALOGUE_PROMOTE, &conclave__v1__promote_pack_request__descriptor, OPTIONS(PromotePack),
                           take_promote},
    [CATALOGUE_REMOVE] = {CATALOGUE_REMOVE, &conclave__v1__remove_pack_request__descriptor, OPTIONS(RemovePack),
                          take_remove},
    [CATALOGUE_UPDATE] = {CATALOGUE_UPDATE, &conclave__v1__update_pack_request__descriptor, OPTIONS(UpdatePack),
                          take_update},
    [CATALOGUE_PRUNE] = {CATALOGUE_PRUNE, &conclave__v1__prune_experts_request__descriptor, OPTIONS(PruneExperts),
                         take_prune},
    [CATALOGUE_RESTORE] = {CATALOGUE_RESTORE, &conclave__v1__restore_experts_request__descriptor,
                           OPTIONS(RestoreExperts), take_restore},
    [CATALOGUE_USE] = {CATALOGUE_USE, &conclave__v1__use_set_request__descriptor, OPTIONS(UseSet), take_use},
    [CATALOGUE_ROLLBACK] = {CATALOGUE_ROLLBACK, &conclave__v1__rollback_request__descriptor, OPTIONS(Rollback),
                            take_rollback},
    [CATALOGUE_DEFINE] = {CATALOGUE_DEFINE, &conclave__v1__define_set_request__descriptor, OPTIONS(DefineSet),
                          take_define},
    [CATALOGUE_FORGET] = {CATALOGUE_FORGET, &conclave__v1__forget_set_request__descriptor, OPTIONS(ForgetSet),
                          take_forget}};

static moe_status take_options(const Conclave__V1__ChangeOptions *o, const char *peer, api_ask *out, moe_error *err)
{
    out->change.who = o != NULL && o->who[0] != '\0' ? o->who : peer;
    out->change.why = o != NULL ? o->why : "";
    out->dry_run = o != NULL && o->dry_run;
    out->timeout_ms = o != NULL ? o->timeout_ms : 0;
    if (strlen(out->change.why) > CATALOGUE_MAX_WHY || (o != NULL && strlen(o->who) > CATALOGUE_MAX_WHO)) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "options: who has at most %d bytes, why at most %d",
                        CATALOGUE_MAX_WHO, CATALOGUE_MAX_WHY);
    }
    return out->timeout_ms <= MAX_TIMEOUT_MS ? MOE_OK
                                             : moe_fail(err, MOE_ERR_INVALID_ARG, "options.timeout_ms: %u; at most %u",
                                                        out->timeout_ms, MAX_TIMEOUT_MS);
}

/* ------------------------------------------------------------------------------------------------ what is told */
typedef struct change_call {
    void *ticket;
    const char *phase; /* as last told */
    uint64_t done, total;
    bool dry_run;
} change_call;

typedef struct result_parts {
    Conclave__V1__ChangeResult result;
    expert_lists added, removed;
    Conclave__V1__NodeSavings *savings; /* owned */
    Conclave__V1__NodeSavings **saving_pointers;
} result_parts;

static void parts_fini(result_parts *p)
{
    expert_lists_fini(&p->added);
    expert_lists_fini(&p->removed);
    free(p->savings);
    free(p->saving_pointers);
}

static bool is_in(const expert_lists *l, uint32_t layer, int32_t id)
{
    for (size_t i = 0; i < l->n; i++) {
        for (size_t e = 0; l->pointers[i]->layer == layer && e < l->pointers[i]->n_ids; e++) {
            if (l->pointers[i]->ids[e] == id) {
                return true;
            }
        }
    }
    return false;
}

/* What each node holds of what was removed; an expert takes what the node's take on average. */
static bool put_savings(const api_view_snapshot *s, result_parts *p)
{
    p->savings = calloc(s->n_nodes + 1, sizeof p->savings[0]);
    p->saving_pointers = calloc(s->n_nodes + 1, sizeof(p->saving_pointers[0]));
    if (p->savings == NULL || p->saving_pointers == NULL) {
        return false;
    }
    for (size_t i = 0; i < s->n_nodes; i++) {
        conclave__v1__node_savings__init(&p->savings[i]);
        p->savings[i].node_id = (char *)(uintptr_t)s->nodes[i].id;
        p->saving_pointers[i] = &p->savings[i];
    }
    for (size_t i = 0; i < s->n_replicas; i++) {
        const api_view_replica *r = &s->replicas[i];

        if (r->node < s->n_nodes && is_in(&p->removed, r->layer, r->expert_id)) {
            const api_view_node *n = &s->nodes[r->node];

            p->savings[r->node].n_experts++;
            p->savings[r->node].bytes += n->n_experts > 0 ? n->used_bytes / n->n_experts : 0;
        }
    }
    p->result.n_savings = s->n_nodes;
    p->result.savings = p->saving_pointers;
    return true;
}

static const router_set *named(const catalogue *c, const char *name)
{
    for (size_t i = 0; i < catalogue_n_named(c); i++) {
        if (strcmp(catalogue_named_at(c, i)->name, name) == 0) {
            return catalogue_named_at(c, i)->set;
        }
    }
    return NULL;
}

/* What the plan changes; strings point into the plan and into its sets. */
static bool parts_init(result_parts *p, const api_told *told, const api_view_snapshot *s)
{
    const catalogue_pending *pending = catalogue_get_pending(told->plan);
    Conclave__V1__ChangeResult *r = &p->result;

    *p = (result_parts){.savings = NULL};
    conclave__v1__change_result__init(r);
    if (pending == NULL) { /* a name that went, or a trial: it was done at once, and the log has it */
        const catalogue_entry *e = catalogue_entry_at(told->plan, catalogue_n_entries(told->plan) - 1);

        r->number = e->number;
        r->what = proto_text(e->what);
        r->shadow = catalogue_get_shadow(told->before) != NULL && catalogue_get_shadow(told->plan) == NULL;
        r->name = proto_text(r->shadow ? "" : strrchr(e->what, ' ') + 1);
        r->set_before = proto_text(e->before);
        return true;
    }
    const bool is_default = catalogue_pending_is_default(pending);
    const router_set *before =
        pending->name[0] == '\0' ? catalogue_default(told->before) : named(told->before, pending->name);
    r->shadow = pending->name[0] == '\0' && !is_default;
    r->number = pending->number;
    r->what = proto_text(pending->what);
    r->name = proto_text(pending->name);
    r->set_before = proto_text(before != NULL ? router_set_id(before) : "");
    r->set_after = proto_text(router_set_id(pending->target));
    if (!expert_lists_init(&p->added, pending->target, before) ||
        !expert_lists_init(&p->removed, before, pending->target) || (is_default && !put_savings(s, p))) {
        parts_fini(p);
        return false;
    }
    r->n_added = p->added.n;
    r->added = p->added.pointers;
    r->n_removed = p->removed.n;
    r->removed = p->removed.pointers;
    return true;
}

static void finish(rpc_call *call, const change_call *c, const api_told *told)
{
    const api_view *view = rpc_view(call);
    Conclave__V1__ChangeProgress m = CONCLAVE__V1__CHANGE_PROGRESS__INIT;
    const api_view_snapshot *s;
    result_parts parts;

    if (told->status != MOE_OK) {
        rpc_fail(call, told->status, told->error.text);
        return;
    }
    s = view->acquire(view->ctx, true);
    if (parts_init(&parts, told, s)) {
        parts.result.dry_run = c->dry_run;
        m.phase = proto_text("done");
        m.result = &parts.result;
        rpc_finish_ok(call, &m.base);
        parts_fini(&parts);
    } else {
        rpc_fail(call, MOE_ERR_NO_MEMORY, "out of memory");
    }
    view->release(view->ctx, s);
}

/* Called about every 100 ms. */
void change_poll(rpc_call *call, uint64_t now_ns)
{
    const api_catalogue *to = rpc_catalogue(call);
    change_call *c = call->state;
    api_told told;

    (void)now_ns;
    if (c == NULL || call->finished || call->sending) {
        return;
    }
    to->look(to->ctx, c->ticket, &told);
    if (told.ended) {
        finish(call, c, &told);
    } else if (told.phase != c->phase || told.done != c->done || told.total != c->total) {
        Conclave__V1__ChangeProgress m = CONCLAVE__V1__CHANGE_PROGRESS__INIT;

        c->phase = told.phase;
        c->done = told.done;
        c->total = told.total;
        m.phase = proto_text(told.phase);
        m.done = told.done;
        m.total = told.total;
        rpc_send(call, &m.base);
    }
}

static void begin(rpc_call *call, const api_ask *ask)
{
    const api_catalogue *to = rpc_catalogue(call);
    change_call *c = calloc(1, sizeof *c);
    moe_error err = {"out of memory"};
    moe_status status = c == NULL ? MOE_ERR_NO_MEMORY : to->ask(to->ctx, ask, &c->ticket, &err);

    if (status != MOE_OK) {
        free(c);
        rpc_fail(call, status, err.text);
        return;
    }
    c->dry_run = ask->dry_run;
    c->phase = "";
    call->state = c;
}

void change_start(rpc_call *call, catalogue_op op, const uint8_t *bytes, size_t n)
{
    const change_kind *kind = &kinds[op];
    ProtobufCMessage *m = rpc_unpack(call, kind->type, bytes, n);
    asked a = {.ask = {.change = {.op = op}}};
    moe_error err;

    if (m == NULL) {
        return;
    }
    char *peer = grpc_call_get_peer(call->call);
    const Conclave__V1__ChangeOptions *const *options = (const void *)((const char *)m + kind->options_at);
    moe_status status = take_options(*options, peer, &a.ask, &err);
    if (status == MOE_OK) {
        status = kind->take(call, m, &a, &err);
    }
    if (status != MOE_OK) {
        rpc_fail(call, status, err.text);
    } else {
        begin(call, &a.ask);
    }
    free(a.experts);
    gpr_free(peer);
    rpc_free(m);
}

void change_fini(rpc_call *call)
{
    const api_catalogue *to = rpc_catalogue(call);
    change_call *c = call->state;

    to->leave(to->ctx, c->ticket);
    free(c);
}
