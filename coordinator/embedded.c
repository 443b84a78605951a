#include "coordinator/embedded_priv.h"

#include <stdlib.h>
#include <string.h>

#include "proto/wire.h"

#define NODE_ID          EMBEDDED_NODE_ID
#define COORDINATOR_ID   "coordinator"
#define CLUSTER          "embedded"
#define GREETING_TURNS   1000                   /* a handful suffice: connected, HELLO, its answer */
#define DISPATCH_TIMEOUT UINT64_C(600000000000) /* the node computes on this very thread: it cannot be late */

/* ------------------------------------------------------------------------------------------------ the view */
typedef struct snapshot {
    api_view_snapshot base;
    api_view_node node;
    api_view_coordinator coordinator;
    embedded_shown *shown; /* shared */
} snapshot;

moe_status embedded_shown_open(router_placement *placement, embedded_shown **out)
{
    const router_space *space = router_placement_space(placement);
    embedded_shown *s = calloc(1, sizeof *s);

    if (s == NULL || (s->replicas = calloc(router_space_n_slots(space), sizeof *s->replicas)) == NULL) {
        free(s);
        return MOE_ERR_NO_MEMORY;
    }
    atomic_init(&s->refs, 1);
    s->epoch = router_placement_epoch(placement);
    for (uint32_t slot = 0; slot < router_space_n_slots(space); slot++) {
        const router_expert *x = router_space_expert(space, slot);
        size_t n = 0;

        (void)router_placement_owners(placement, slot, &n);
        if (n > 0) {
            s->replicas[s->n_replicas++] =
                (api_view_replica){.layer = x->layer, .expert_id = x->id, .node = 0, .ready = true};
        }
    }
    *out = s;
    return MOE_OK;
}

void embedded_shown_unref(embedded_shown *s)
{
    if (s != NULL && atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) == 1) {
        free(s->replicas);
        free(s);
    }
}

static embedded_shown *shown_now(embedded *e)
{
    pthread_mutex_lock(&e->lock);
    embedded_shown *s = e->shown;
    atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
    pthread_mutex_unlock(&e->lock);
    return s;
}

static const api_view_snapshot *acquire(void *ctx, bool want_replicas)
{
    static const api_view_snapshot nothing;
    embedded *e = ctx;
    snapshot *s = calloc(1, sizeof *s);

    if (s == NULL) {
        return &nothing;
    }
    s->shown = shown_now(e);
    s->node = (api_view_node){.id = NODE_ID,
                              .address = "in-process",
                              .state = API_VIEW_NODE_UP,
                              .device = e->device_name,
                              .transport = "loopback",
                              .version = MOE_VERSION,
                              .used_bytes = s->shown->n_replicas * e->expert_bytes,
                              .n_experts = (uint32_t)s->shown->n_replicas,
                              .rows = e->rows,
                              .frames = e->frames};
    s->coordinator = (api_view_coordinator){
        .id = COORDINATOR_ID, .epoch = s->shown->epoch, .controller = true, .address = e->published_address};
    s->base = (api_view_snapshot){.cluster = CLUSTER,
                                  .epoch = s->shown->epoch,
                                  .n_nodes = 1,
                                  .nodes = &s->node,
                                  .n_coordinators = 1,
                                  .coordinators = &s->coordinator,
                                  .n_replicas = want_replicas ? s->shown->n_replicas : 0,
                                  .replicas = s->shown->replicas};
    return &s->base;
}

static void release(void *ctx, const api_view_snapshot *s)
{
    (void)ctx;
    if (s->n_nodes > 0) {
        snapshot *whole = (snapshot *)(uintptr_t)s;
        embedded_shown_unref(whole->shown);
        free(whole);
    }
}

static moe_status fill_view(embedded *e)
{
    e->view = (api_view){.acquire = acquire, .release = release, .ctx = e};
    return embedded_shown_open(e->placement, &e->shown);
}

/* ------------------------------------------------------------------------------------------------ the node */
/* Runs on the engine's thread whenever the coordinator's endpoint makes progress. */
static unsigned poll_node(void *ctx)
{
    embedded *e = ctx;
    unsigned events = expert_node_progress(e->node);

    if (events > 0) {
        expert_node_stats stats;
        expert_node_get_stats(e->node, &stats);
        e->rows = stats.rows;
        e->frames = stats.frames;
    }
    return events;
}

/* A whole step goes in one frame each way, so that every expert's weights are read once. */
static size_t frame_bytes(const embedded_options *o)
{
    size_t row = o->config->d_model * compute_dtype_bytes(compute_class_dtype(o->device->numeric_class));
    size_t picks = o->max_rows * o->config->gate.k;

    return WIRE_SMALL_BYTES + 16 * picks + 64 * (size_t)router_space_widest(o->space) + picks * row + o->max_rows * row;
}

static moe_status open_ends(embedded *e, const embedded_options *o)
{
    transport_loopback_options end = {
        .max_message = frame_bytes(o), .max_peers = 2, .max_queued = 16, .address = COORDINATOR_ID};
    moe_status status = transport_loopback_net_open(2, &e->net);

    end.net = e->net;
    if (status == MOE_OK) {
        status = transport_loopback_open(&end, &e->coordinator_end);
    }
    end.address = NODE_ID;
    if (status == MOE_OK) {
        status = transport_loopback_open(&end, &e->node_end);
    }
    return status;
}

static moe_status open_node(embedded *e, const embedded_options *o, moe_error *err)
{
    expert_node_options node = {.id = NODE_ID,
                                .cluster = CLUSTER,
                                .incarnation = moe_random_entropy(),
                                .transport = e->node_end,
                                .device = o->device,
                                .space = o->space,
                                .d_model = o->config->d_model,
                                .max_rows = (uint32_t)o->max_rows,
                                .max_picks = (uint32_t)o->max_rows * o->config->gate.k,
                                .max_ffn_rows = o->max_rows * o->config->gate.k,
                                .max_peers = 1};
    moe_status status;

    memcpy(node.fingerprint, o->fingerprint, sizeof node.fingerprint);
    e->checkpoint =
        (expert_checkpoint){.config = o->config, .tensors = o->tensors, .device = o->device, .layout = o->layout};
    node.source = expert_source_checkpoint(&e->checkpoint);
    status = expert_node_open(&node, &e->node, err);
    if (status == MOE_OK) {
        transport_loopback_set_member_poll(e->coordinator_end, poll_node, e);
    }
    return status;
}

static moe_status load_experts(embedded *e, const embedded_options *o, moe_error *err)
{
    size_t each = model_expert_bytes(o->config, o->tensors);
    size_t total = each * router_space_n_node_experts(o->space), done = 0;

    e->expert_bytes = each;
    for (uint32_t slot = 0; slot < router_space_n_slots(o->space); slot++) {
        const router_expert *x = router_space_expert(o->space, slot);

        if (x->is_local) {
            continue;
        }
        moe_status status = expert_node_load(e->node, x->layer, x->id, err);
        if (status != MOE_OK) {
            return status;
        }
        done += each;
        if (o->progress != NULL) {
            o->progress(o->progress_ctx, done, total);
        }
    }
    return MOE_OK;
}

static moe_status open_exchange(embedded *e, const embedded_options *o, moe_error *err)
{
    exchange_options x = {.transport = e->coordinator_end,
                          .device = o->device,
                          .clock = moe_clock_real(),
                          .coordinator_id = moe_random_entropy(),
                          .space = o->space,
                          .k = o->config->gate.k,
                          .d_model = o->config->d_model,
                          .max_rows = o->max_rows,
                          .micro_batches = o->micro_batches,
                          .dispatch_timeout_ns = DISPATCH_TIMEOUT,
                          .id = COORDINATOR_ID,
                          .cluster = CLUSTER,
                          .incarnation = moe_random_entropy()};
    moe_status status;

    memcpy(x.fingerprint, o->fingerprint, sizeof x.fingerprint);
    status = exchange_open(&x, &e->exchange, err);
    if (status == MOE_OK) {
        status = exchange_add_node(e->exchange, NODE_ID, NODE_ID, 0, err);
    }
    if (status == MOE_OK) {
        status = router_placement_open_single(1, o->space, NODE_ID, &e->placement, err);
    }
    if (status == MOE_OK) {
        exchange_set_placement(e->exchange, e->placement);
    }
    return status;
}

/* The node is in this process: from here on it is always there. */
static moe_status meet(embedded *e, moe_error *err)
{
    exchange_coverage c = {.whole = false};

    for (int turn = 0; turn < GREETING_TURNS && !c.whole; turn++) {
        (void)exchange_progress(e->exchange);
        exchange_get_coverage(e->exchange, &c);
    }
    return exchange_coverage_check(&c, err);
}

moe_status embedded_open(const embedded_options *options, embedded **out, moe_error *err)
{
    embedded *e = calloc(1, sizeof *e);
    moe_status status;

    if (e == NULL) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "embedded node: out of memory");
    }
    pthread_mutex_init(&e->lock, NULL);
    e->o = *options;
    e->device_name = options->device->name;
    status = open_ends(e, options);
    if (status != MOE_OK) {
        embedded_close(e);
        return moe_fail(err, status, "embedded node: %s for frames of %zu bytes", moe_status_text(status),
                        frame_bytes(options));
    }
    status = open_node(e, options, err);
    if (status == MOE_OK) {
        status = load_experts(e, options, err);
    }
    if (status == MOE_OK) {
        status = open_exchange(e, options, err);
    }
    if (status == MOE_OK) {
        status = meet(e, err);
    }
    if (status == MOE_OK && (status = fill_view(e)) != MOE_OK) {
        (void)moe_fail(err, status, "embedded node: out of memory");
    }
    if (status != MOE_OK) {
        embedded_close(e);
        return status;
    }
    *out = e;
    return MOE_OK;
}

void embedded_close(embedded *e)
{
    if (e == NULL) {
        return;
    }
    transport_close(e->coordinator_end);
    exchange_close(e->exchange);
    transport_close(e->node_end);
    expert_node_close(e->node);
    transport_loopback_net_close(e->net);
    router_placement_unref(e->placement);
    embedded_shown_unref(e->shown);
    pthread_mutex_destroy(&e->lock);
    free(e);
}

exchange *embedded_exchange(embedded *e)
{
    return e->exchange;
}

const api_view *embedded_view(embedded *e)
{
    return &e->view;
}

void embedded_set_address(embedded *e, const char *address)
{
    snprintf(e->address, sizeof e->address, "%s", address);
    e->published_address = e->address;
}
