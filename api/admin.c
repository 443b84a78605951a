/* The Admin service, its reading part: the cluster as the program shows it, and the engine's counters. */
#include "conclave/v1/admin.pb-c.h"
#include "api/expert_counts_priv.h"
#include "api/grpc/proto.h"
#include "api/methods_priv.h"

#include <stdlib.h>
#include <string.h>

typedef Conclave__V1__GetClusterResponse cluster_reply;

enum { LIST_EXPERTS = 3, STATS_EXPERTS = 2, STATS_LAYERS = 3 };

/* ----------------------------------------------------------------------------------------- the cluster as a message */
typedef struct cluster_parts {
    cluster_reply reply;
    Conclave__V1__Policy policy;
    Conclave__V1__Node *nodes; /* owned, as are the next three */
    Conclave__V1__Node **node_pointers;
    Conclave__V1__Coordinator *coordinators;
    Conclave__V1__Coordinator **coordinator_pointers;
} cluster_parts;

static void fill_node(const api_view_node *from, bool counters, Conclave__V1__Node *to)
{
    conclave__v1__node__init(to);
    to->id = proto_text(from->id);
    to->incarnation = from->incarnation;
    to->address = proto_text(from->address);
    to->state = (Conclave__V1__NodeState)from->state;
    to->device = proto_text(from->device);
    to->transport = proto_text(from->transport);
    to->memory_bytes = from->memory_bytes;
    to->n_experts = from->n_experts;
    to->zone = proto_text(from->zone);
    to->version = proto_text(from->version);
    to->why = proto_text(from->why);
    if (counters) {
        to->used_bytes = from->used_bytes;
        to->rows = from->rows;
        to->frames = from->frames;
    }
}

static void fill_coordinator(const api_view_coordinator *from, Conclave__V1__Coordinator *to)
{
    conclave__v1__coordinator__init(to);
    to->id = proto_text(from->id);
    to->address = proto_text(from->address);
    to->epoch = from->epoch;
    to->controller = from->controller;
}

static void parts_fini(cluster_parts *p)
{
    free(p->nodes);
    free(p->node_pointers);
    free(p->coordinators);
    free(p->coordinator_pointers);
}

/* Strings point into the snapshot. counters false: without what changes all the time. */
static bool parts_init(cluster_parts *p, rpc_call *call, const api_view_snapshot *from, bool counters)
{
    const engine_info *info = engine_get_info(rpc_engine(call));

    *p = (cluster_parts){.nodes = calloc(from->n_nodes + 1, sizeof(p->nodes[0])),
                         .node_pointers = calloc(from->n_nodes + 1, sizeof(p->node_pointers[0])),
                         .coordinators = calloc(from->n_coordinators + 1, sizeof(p->coordinators[0])),
                         .coordinator_pointers = calloc(from->n_coordinators + 1, sizeof(p->coordinator_pointers[0]))};
    if (p->nodes == NULL || p->node_pointers == NULL || p->coordinators == NULL || p->coordinator_pointers == NULL) {
        parts_fini(p);
        return false;
    }
    for (size_t i = 0; i < from->n_nodes; i++) {
        fill_node(&from->nodes[i], counters, &p->nodes[i]);
        p->node_pointers[i] = &p->nodes[i];
    }
    for (size_t i = 0; i < from->n_coordinators; i++) {
        fill_coordinator(&from->coordinators[i], &p->coordinators[i]);
        p->coordinator_pointers[i] = &p->coordinators[i];
    }
    conclave__v1__get_cluster_response__init(&p->reply);
    p->reply.cluster = proto_text(from->cluster);
    p->reply.model_fingerprint = proto_text(info->fingerprint);
    p->reply.numeric_class = proto_text(compute_class_name(info->numeric_class));
    p->reply.epoch = from->epoch;
    p->reply.n_nodes = from->n_nodes;
    p->reply.nodes = p->node_pointers;
    p->reply.n_coordinators = from->n_coordinators;
    p->reply.coordinators = p->coordinator_pointers;
    p->reply.ready = rpc_ready(call);
    p->policy = (Conclave__V1__Policy)CONCLAVE__V1__POLICY__INIT;
    p->policy.replication = from->replication;
    p->policy.min_nodes = from->min_nodes;
    p->reply.policy = from->replication != 0 ? &p->policy : NULL;
    return true;
}

/* Appends the packed reply. */
static bool put_cluster(rpc_call *call, bool counters, moe_text *out)
{
    const api_view *view = rpc_view(call);
    const api_view_snapshot *snapshot = view->acquire(view->ctx, false);
    cluster_parts parts;
    bool ok = parts_init(&parts, call, snapshot, counters);

    if (ok) {
        proto_put_fields(out, &parts.reply.base);
        parts_fini(&parts);
    }
    view->release(view->ctx, snapshot);
    return ok && !out->failed;
}

static void get_cluster_start(rpc_call *call, const uint8_t *bytes, size_t n)
{
    ProtobufCMessage *r = rpc_unpack(call, &conclave__v1__get_cluster_request__descriptor, bytes, n);
    moe_text out;

    if (r == NULL) {
        return;
    }
    rpc_free(r);
    moe_text_init(&out, RPC_MAX_REPLY_BYTES);
    if (put_cluster(call, true, &out)) {
        rpc_finish_bytes(call, out.data, out.size);
    } else {
        rpc_fail(call, MOE_ERR_NO_MEMORY, "out of memory");
    }
    moe_text_fini(&out);
}

/* ------------------------------------------------------------------------------------------------ watching it */
typedef struct cluster_watch {
    moe_text told; /* what was sent last, without counters */
} cluster_watch;

static void watch_send(rpc_call *call)
{
    moe_text out;

    moe_text_init(&out, RPC_MAX_REPLY_BYTES);
    if (put_cluster(call, true, &out)) {
        rpc_send_bytes(call, out.data, out.size);
    } else {
        rpc_fail(call, MOE_ERR_NO_MEMORY, "out of memory");
    }
    moe_text_fini(&out);
}

/* Called about every 100 ms, which bounds the rate. */
static void watch_poll(rpc_call *call, uint64_t now_ns)
{
    cluster_watch *w = call->state;
    moe_text now;

    (void)now_ns;
    if (w == NULL || call->sending) {
        return;
    }
    if (rpc_draining(call)) {
        rpc_fail(call, MOE_ERR_UNAVAILABLE, "the server is draining");
        return;
    }
    moe_text_init(&now, RPC_MAX_REPLY_BYTES);
    if (put_cluster(call, false, &now) && (w->told.size != now.size || memcmp(w->told.data, now.data, now.size) != 0)) {
        moe_text_fini(&w->told);
        w->told = now;
        watch_send(call);
    } else {
        moe_text_fini(&now);
    }
}

static void watch_cluster_start(rpc_call *call, const uint8_t *bytes, size_t n)
{
    ProtobufCMessage *r = rpc_unpack(call, &conclave__v1__get_cluster_request__descriptor, bytes, n);

    if (r == NULL) {
        return;
    }
    rpc_free(r);
    call->state = calloc(1, sizeof(cluster_watch));
    if (call->state == NULL) {
        rpc_fail(call, MOE_ERR_NO_MEMORY, "out of memory");
    } else {
        watch_poll(call, 0);
    }
}

static void watch_fini(rpc_call *call)
{
    cluster_watch *w = call->state;

    moe_text_fini(&w->told);
    free(w);
}

/* ------------------------------------------------------------------------------------------------ experts */
static Conclave__V1__ExpertKind kind_of(const model_config *c, int32_t expert_id)
{
    static const Conclave__V1__ExpertKind kinds[MODEL_N_EXPERT_KINDS] = {
        [MODEL_EXPERT_FFN] = CONCLAVE__V1__EXPERT_KIND__EXPERT_KIND_FFN,
        [MODEL_EXPERT_CONSTANT] = CONCLAVE__V1__EXPERT_KIND__EXPERT_KIND_CONSTANT,
        [MODEL_EXPERT_COPY] = CONCLAVE__V1__EXPERT_KIND__EXPERT_KIND_COPY,
        [MODEL_EXPERT_ZERO] = CONCLAVE__V1__EXPERT_KIND__EXPERT_KIND_ZERO};

    return kinds[model_expert_kind_of(c, expert_id)];
}

/* What pack an expert is of; "": the checkpoint's own. */
static char *pack_name(const catalogue *c, uint32_t layer, int32_t expert_id)
{
    const catalogue_pack *p = catalogue_pack_of(c, layer, expert_id, NULL);

    return proto_text(p != NULL ? p->name : "");
}

static void put_replicas(moe_text *out, const api_view_snapshot *s, size_t first, size_t end, uint32_t layer,
                         int32_t expert_id, Conclave__V1__ExpertKind kind, char *pack)
{
    Conclave__V1__ExpertPlacement m = CONCLAVE__V1__EXPERT_PLACEMENT__INIT;
    size_t n = end - first;
    Conclave__V1__ExpertReplica *replicas = calloc(n + 1, sizeof(replicas[0]));
    Conclave__V1__ExpertReplica **pointers = calloc(n + 1, sizeof(pointers[0]));

    if (replicas == NULL || pointers == NULL) {
        out->failed = true;
        n = 0;
    }
    for (size_t i = 0; i < n; i++) {
        const api_view_replica *from = &s->replicas[first + i];

        conclave__v1__expert_replica__init(&replicas[i]);
        replicas[i].node_id = proto_text(from->node < s->n_nodes ? s->nodes[from->node].id : NULL);
        replicas[i].ready = from->ready;
        pointers[i] = &replicas[i];
    }
    m.layer = layer;
    m.expert_id = expert_id;
    m.n_replicas = n;
    m.replicas = pointers;
    m.kind = kind;
    m.pack = pack;
    proto_put_message(out, LIST_EXPERTS, &m.base);
    free(replicas);
    free(pointers);
}

static bool replica_before(const api_view_replica *r, uint32_t layer, int32_t expert_id)
{
    return r->layer < layer || (r->layer == layer && r->expert_id < expert_id);
}

/* Both lists ascend, so one walk joins them. */
static void put_layers(moe_text *out, const model_config *c, const catalogue *packs, const api_view_snapshot *s,
                       const router_set *set, uint32_t begin, uint32_t end)
{
    size_t at = 0;

    for (uint32_t layer = begin; layer < end; layer++) {
        const router_set_layer *experts = router_set_at(set, layer);

        for (uint32_t i = 0; i < experts->n_experts && !out->failed; i++) {
            int32_t expert_id = experts->expert_ids[i];

            while (at < s->n_replicas && replica_before(&s->replicas[at], layer, expert_id)) {
                at++;
            }
            size_t first = at;
            while (at < s->n_replicas && s->replicas[at].layer == layer && s->replicas[at].expert_id == expert_id) {
                at++;
            }
            put_replicas(out, s, first, at, layer, expert_id, kind_of(c, expert_id),
                         pack_name(packs, layer, expert_id));
        }
    }
}

static moe_status check_layer(bool given, uint32_t layer, size_t n_layers, moe_error *err)
{
    if (given && layer >= n_layers) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "layer: %u; the model has %zu layers", layer, n_layers);
    }
    return MOE_OK;
}

static void answer_list(rpc_call *call, const Conclave__V1__ListExpertsRequest *r, const catalogue *c,
                        const router_set *set, moe_text *out)
{
    const api_view *view = rpc_view(call);
    Conclave__V1__ListExpertsResponse m = CONCLAVE__V1__LIST_EXPERTS_RESPONSE__INIT;
    uint32_t n_layers = (uint32_t)router_set_n_layers(set);
    bool one = r->has_layer_case != 0;
    const api_view_snapshot *snapshot = view->acquire(view->ctx, true);

    m.epoch = snapshot->epoch;
    m.set_id = proto_text(router_set_id(set));
    proto_put_fields(out, &m.base);
    put_layers(out, engine_get_info(rpc_engine(call))->config, c, snapshot, set, one ? r->layer : 0,
               one ? r->layer + 1 : n_layers);
    view->release(view->ctx, snapshot);
    if (out->failed) {
        rpc_fail(call, MOE_ERR_NO_MEMORY, "the reply is too large; ask for one layer");
    } else {
        rpc_finish_bytes(call, out->data, out->size);
    }
}

static void list_experts_start(rpc_call *call, const uint8_t *bytes, size_t n)
{
    ProtobufCMessage *message = rpc_unpack(call, &conclave__v1__list_experts_request__descriptor, bytes, n);
    const Conclave__V1__ListExpertsRequest *r = (const void *)message;
    router_set *set = NULL;
    moe_status status = MOE_OK;
    moe_text out;
    moe_error err;

    if (message == NULL) {
        return;
    }
    catalogue *c = rpc_catalogue(call)->current(rpc_catalogue(call)->ctx);
    if (r->has_set_id_case == 0) {
        set = engine_current_set(rpc_engine(call));
    } else if (catalogue_find_set(c, r->set_id, &set, NULL) != MOE_OK) {
        set = NULL;
        status = moe_fail(&err, MOE_ERR_NOT_FOUND, "set_id: no such expert set");
    }
    if (status == MOE_OK) {
        status = check_layer(r->has_layer_case != 0, r->layer, router_set_n_layers(set), &err);
    }
    if (status != MOE_OK) {
        rpc_fail(call, status, err.text);
    } else {
        moe_text_init(&out, RPC_MAX_REPLY_BYTES);
        answer_list(call, r, c, set, &out);
        moe_text_fini(&out);
    }
    router_set_unref(set);
    catalogue_unref(c);
    rpc_free(message);
}

/* ------------------------------------------------------------------------------------------------ usage counters */
static void put_expert_stats(moe_text *out, const catalogue *packs, const expert_counts *c, uint32_t layer)
{
    const router_set_layer *routable = router_set_at(catalogue_default(packs), layer);
    uint32_t at = 0;
    const model_config *m = c->info->config;
    const router_space_layer *experts = router_space_at(c->space, layer);
    Conclave__V1__ExpertStats stats = CONCLAVE__V1__EXPERT_STATS__INIT;

    stats.layer = layer;
    for (uint32_t i = 0; i < experts->n_experts; i++) {
        stats.expert_id = experts->ids[i];
        stats.rows = c->rows[experts->slots[i]];
        stats.gate_mass = c->use[experts->slots[i]].mass;
        stats.rate = c->use[experts->slots[i]].rate;
        stats.kind = kind_of(m, experts->ids[i]);
        stats.pack = pack_name(packs, layer, experts->ids[i]);
        while (at < routable->n_experts && routable->expert_ids[at] < experts->ids[i]) {
            at++;
        }
        stats.in_default = at < routable->n_experts && routable->expert_ids[at] == experts->ids[i];
        proto_put_message(out, STATS_EXPERTS, &stats.base);
    }
}

static void put_layer_stats(moe_text *out, const expert_counts *c, uint32_t layer)
{
    Conclave__V1__LayerStats stats = CONCLAVE__V1__LAYER_STATS__INIT;
    layer_counts counts = expert_counts_of(c, layer);

    stats.layer = layer;
    stats.n_rows_by_ffn_picks = c->info->config->gate.k + 1;
    stats.rows_by_ffn_picks = (uint64_t *)(uintptr_t)counts.ffn_picks;
    stats.ffn_picks = counts.picks[MODEL_EXPERT_FFN];
    stats.constant_picks = counts.picks[MODEL_EXPERT_CONSTANT];
    stats.copy_picks = counts.picks[MODEL_EXPERT_COPY];
    stats.zero_picks = counts.picks[MODEL_EXPERT_ZERO];
    stats.bytes_not_sent = counts.bytes_not_sent;
    proto_put_message(out, STATS_LAYERS, &stats.base);
}

static void put_stats(moe_text *out, engine *e, const catalogue *packs, const expert_counts *c, uint32_t begin,
                      uint32_t end)
{
    Conclave__V1__GetExpertStatsResponse m = CONCLAVE__V1__GET_EXPERT_STATS_RESPONSE__INIT;
    engine_stats stats;

    engine_get_stats(e, &stats);
    m.tokens = c->tokens;
    m.attention_keys_seen = stats.attention_keys_seen;
    m.attention_keys_skipped = stats.attention_keys_skipped;
    proto_put_fields(out, &m.base);
    for (uint32_t layer = begin; layer < end; layer++) {
        put_expert_stats(out, packs, c, layer);
        put_layer_stats(out, c, layer);
    }
}

static void answer_stats(rpc_call *call, bool one, uint32_t layer)
{
    uint32_t n_layers = engine_get_info(rpc_engine(call))->config->n_layers;
    expert_counts counts;
    moe_text out;

    if (expert_counts_init(&counts, rpc_engine(call)) != MOE_OK) {
        rpc_fail(call, MOE_ERR_NO_MEMORY, "out of memory");
        return;
    }
    moe_text_init(&out, RPC_MAX_REPLY_BYTES);
    catalogue *packs = rpc_catalogue(call)->current(rpc_catalogue(call)->ctx);
    put_stats(&out, rpc_engine(call), packs, &counts, one ? layer : 0, one ? layer + 1 : n_layers);
    catalogue_unref(packs);
    if (out.failed) {
        rpc_fail(call, MOE_ERR_NO_MEMORY, "the reply is too large; ask for one layer");
    } else {
        rpc_finish_bytes(call, out.data, out.size);
    }
    moe_text_fini(&out);
    expert_counts_fini(&counts);
}

static void expert_stats_start(rpc_call *call, const uint8_t *bytes, size_t n)
{
    ProtobufCMessage *message = rpc_unpack(call, &conclave__v1__get_expert_stats_request__descriptor, bytes, n);
    const Conclave__V1__GetExpertStatsRequest *r = (const void *)message;
    moe_error err;

    if (message == NULL) {
        return;
    }
    bool one = r->has_layer_case != 0;
    uint32_t layer = one ? r->layer : 0;
    moe_status status = check_layer(one, layer, engine_get_info(rpc_engine(call))->config->n_layers, &err);
    rpc_free(message);
    if (status != MOE_OK) {
        rpc_fail(call, status, err.text);
    } else {
        answer_stats(call, one, layer);
    }
}

/* ------------------------------------------------------------------------------------------------ changes */
#define CHANGES(name, op)                                                                                              \
    static void name##_start(rpc_call *call, const uint8_t *bytes, size_t n)                                           \
    {                                                                                                                  \
        change_start(call, op, bytes, n);                                                                              \
    }
CHANGES(add, CATALOGUE_ADD)
CHANGES(promote, CATALOGUE_PROMOTE)
CHANGES(remove, CATALOGUE_REMOVE)
CHANGES(update, CATALOGUE_UPDATE)
CHANGES(rollback, CATALOGUE_ROLLBACK)
CHANGES(prune, CATALOGUE_PRUNE)
CHANGES(restore, CATALOGUE_RESTORE)
CHANGES(define, CATALOGUE_DEFINE)
CHANGES(use, CATALOGUE_USE)
CHANGES(forget, CATALOGUE_FORGET)

#define CHANGE(name) .start = name##_start, .poll = change_poll, .fini = change_fini
#define ADMIN(name)  "/conclave.v1.Admin/" name, .service = API_SERVE_ADMIN, .needs_token = true, .for_all_sets = true

const rpc_method admin_methods[] = {
    {ADMIN("GetCluster"), .start = get_cluster_start},
    {ADMIN("WatchCluster"), .watch = true, .start = watch_cluster_start, .poll = watch_poll, .fini = watch_fini},
    {ADMIN("ListExperts"), .start = list_experts_start},
    {ADMIN("GetExpertStats"), .start = expert_stats_start},
    {ADMIN("SetPolicy"), .start = policy_start, .poll = policy_poll, .fini = policy_fini},
    {ADMIN("ListPacks"), .start = list_packs_start},
    {ADMIN("AddPack"), CHANGE(add)},
    {ADMIN("PromotePack"), CHANGE(promote)},
    {ADMIN("RemovePack"), CHANGE(remove)},
    {ADMIN("UpdatePack"), CHANGE(update)},
    {ADMIN("Rollback"), CHANGE(rollback)},
    {ADMIN("PruneExperts"), CHANGE(prune)},
    {ADMIN("RestoreExperts"), CHANGE(restore)},
    {ADMIN("ListSets"), .start = list_sets_start},
    {ADMIN("DefineSet"), CHANGE(define)},
    {ADMIN("UseSet"), CHANGE(use)},
    {ADMIN("ForgetSet"), CHANGE(forget)},
    {ADMIN("GetSetLog"), .start = set_log_start},
    {ADMIN("DiffSets"), .start = diff_sets_start},
};
const size_t n_admin_methods = MOE_COUNT(admin_methods);
