/* How the API sees the cluster: its state, and what the connections say of the nodes. */
#include <stdlib.h>
#include <string.h>

#include "coordinator/pool_priv.h"

typedef struct snapshot {
    api_view_snapshot base;     /* first: release finds the rest by it */
    const cluster_state *state; /* shared; lends the strings */
    api_view_node *nodes;       /* owned, as the next */
    api_view_coordinator *coordinators;
    api_view_replica *replicas;
    char (*whys)[sizeof(((exchange_node_info *)0)->why)]; /* owned [n_nodes] */
    metrics_cluster metrics;
    metrics_transport transport;
} snapshot;

bool pool_find_shown(pool *p, const char *id, exchange_node_info *out)
{
    bool found = false;

    pthread_mutex_lock(&p->lock);
    for (size_t i = 0; i < ROUTER_MAX_NODES && !found; i++) {
        found = strcmp(p->shown[i].id, id) == 0;
        *out = found ? p->shown[i].info : *out;
    }
    pthread_mutex_unlock(&p->lock);
    return found;
}

static api_view_node_state node_state(const cluster_node *n, bool known, const exchange_node_info *info)
{
    if (!known || info->kind == EXCHANGE_NODE_DOWN || info->is_mute || info->is_untold) {
        return API_VIEW_NODE_DOWN;
    }
    if (info->kind == EXCHANGE_NODE_CONNECTING) {
        return API_VIEW_NODE_CONNECTING;
    }
    return n->draining || info->kind == EXCHANGE_NODE_DRAINING ? API_VIEW_NODE_DRAINING : API_VIEW_NODE_UP;
}

static void fill_nodes(pool *p, snapshot *s)
{
    for (size_t i = 0; i < s->state->n_nodes; i++) {
        const cluster_node *n = &s->state->nodes[i];
        exchange_node_info info = {.rows = 0};
        bool known = pool_find_shown(p, n->id, &info);

        memcpy(s->whys[i], info.why, sizeof s->whys[i]);
        s->nodes[i] = (api_view_node){.id = n->id,
                                      .address = n->address,
                                      .incarnation = n->incarnation,
                                      .why = s->whys[i],
                                      .state = node_state(n, known, &info),
                                      .device = n->device,
                                      .transport = info.carrier != NULL ? info.carrier : p->lane,
                                      .zone = n->zone,
                                      .version = n->version,
                                      .memory_bytes = n->memory_bytes,
                                      .used_bytes = n->n_ready * n->expert_bytes,
                                      .n_experts = n->n_ready,
                                      .rows = info.rows,
                                      .frames = info.frames,
                                      .busy_seconds = info.busy_seconds,
                                      .queued_rows = info.queued_rows,
                                      .hedges = info.hedges,
                                      .slowness = info.slowness};
    }
}

static void fill_coordinators(snapshot *s)
{
    for (size_t i = 0; i < s->state->n_coordinators; i++) {
        const cluster_coordinator *c = &s->state->coordinators[i];

        s->coordinators[i] = (api_view_coordinator){.id = c->id,
                                                    .address = c->address,
                                                    .epoch = c->epoch_applied,
                                                    .controller = strcmp(c->id, s->state->controller) == 0};
    }
}

/* Whether the placement gives the expert to the node of this id. */
static bool is_desired(const router_placement *desired, uint32_t slot, const char *id)
{
    size_t n = 0;
    const uint32_t *owners = desired == NULL ? NULL : router_placement_owners(desired, slot, &n);

    for (size_t i = 0; i < n; i++) {
        if (strcmp(router_placement_node_id(desired, owners[i]), id) == 0) {
            return true;
        }
    }
    return false;
}

/* The nodes that are to hold an expert, and those that do. Counts only when out is NULL. */
static size_t list_expert(const cluster_state *c, uint32_t slot, api_view_replica *out)
{
    const router_expert *e = router_space_expert(c->space, slot);
    size_t n = 0;

    for (uint32_t i = 0; i < c->n_nodes; i++) {
        bool ready = router_bit(c->nodes[i].ready, slot);

        if (!ready && !is_desired(c->desired, slot, c->nodes[i].id)) {
            continue;
        }
        if (out != NULL) {
            out[n] = (api_view_replica){.layer = e->layer, .expert_id = e->id, .node = i, .ready = ready};
        }
        n++;
    }
    return n;
}

/* Ascending layer and expert. */
static size_t list_replicas(const cluster_state *c, api_view_replica *out)
{
    size_t n = 0;

    for (uint32_t l = 0; l < router_space_n_layers(c->space); l++) {
        const router_space_layer *layer = router_space_at(c->space, l);

        for (uint32_t i = 0; i < layer->n_experts; i++) {
            n += list_expert(c, layer->slots[i], out != NULL ? out + n : NULL);
        }
    }
    return n;
}

static void free_snapshot(snapshot *s)
{
    cluster_state_release(s->state);
    free(s->nodes);
    free(s->coordinators);
    free(s->replicas);
    free(s->whys);
    free(s);
}

static void release(void *ctx, const api_view_snapshot *base)
{
    (void)ctx;
    if (base->nodes != NULL) { /* else it is the empty one */
        free_snapshot((snapshot *)(uintptr_t)base);
    }
}

static void fill_metrics(const pool *p, snapshot *s, const cluster_stats *stats)
{
    s->metrics = (metrics_cluster){.connected = s->state->connected,
                                   .registered = s->state->registered,
                                   .failures = stats->failures,
                                   .lease_losses = stats->lease_losses,
                                   .lists = stats->lists,
                                   .watch_events = stats->watch_events,
                                   .ignored = stats->ignored,
                                   .epoch_published = s->state->epoch,
                                   .is_coordinator = true,
                                   .controller = s->state->is_controller,
                                   .elections = stats->elections,
                                   .placements = stats->placements};
    for (size_t i = 0; i < s->state->n_nodes; i++) {
        api_view_node_state is = s->nodes[i].state;

        s->metrics.unreachable += is == API_VIEW_NODE_DOWN || is == API_VIEW_NODE_CONNECTING;
    }
    for (size_t i = 0; i < s->state->n_coordinators; i++) {
        if (strcmp(s->state->coordinators[i].id, p->id) == 0) {
            s->metrics.epoch_applied = s->state->coordinators[i].epoch_applied;
        }
    }
}

static void fill_transport(pool *p, snapshot *s)
{
    pthread_mutex_lock(&p->lock);
    const transport_net_stats t = p->shown_transport;
    pthread_mutex_unlock(&p->lock);
    s->transport = (metrics_transport){.peers = t.peers,
                                       .connected = t.connected,
                                       .accepted = t.accepted,
                                       .refused = t.refused,
                                       .silent = t.silent,
                                       .denied = t.denied,
                                       .violations = t.violations,
                                       .timeouts = t.timeouts,
                                       .shm_peers = t.shm_peers};
}

static bool fill(pool *p, snapshot *s, bool want_replicas)
{
    const cluster_state *c = s->state;

    s->nodes = calloc(c->n_nodes + 1, sizeof *s->nodes);
    s->coordinators = calloc(c->n_coordinators + 1, sizeof *s->coordinators);
    s->whys = calloc(c->n_nodes + 1, sizeof *s->whys);
    if (s->nodes == NULL || s->coordinators == NULL || s->whys == NULL) {
        return false;
    }
    cluster_stats stats;
    cluster_get_stats(p->cluster, &stats);
    fill_nodes(p, s);
    fill_coordinators(s);
    fill_metrics(p, s, &stats);
    fill_transport(p, s);
    s->base = (api_view_snapshot){.cluster = p->o.member->cluster,
                                  .epoch = c->epoch,
                                  .n_nodes = c->n_nodes,
                                  .n_coordinators = c->n_coordinators,
                                  .nodes = s->nodes,
                                  .coordinators = s->coordinators,
                                  .replication = c->policy.replication,
                                  .min_nodes = c->policy.min_nodes,
                                  .cluster_metrics = &s->metrics,
                                  .transport_metrics = &s->transport,
                                  .loop_ns = stats.last_step_ns};
    if (want_replicas) {
        s->base.n_replicas = list_replicas(c, NULL);
        s->replicas = calloc(s->base.n_replicas + 1, sizeof *s->replicas);
        if (s->replicas == NULL) {
            return false;
        }
        s->base.replicas = s->replicas;
        (void)list_replicas(c, s->replicas);
    }
    return true;
}

static const api_view_snapshot *acquire(void *ctx, bool want_replicas)
{
    static const api_view_snapshot nothing;
    pool *p = ctx;
    snapshot *s = atomic_load(&p->joined) ? calloc(1, sizeof *s) : NULL;

    if (s == NULL) {
        return &nothing;
    }
    s->state = cluster_state_acquire(p->cluster);
    if (!fill(p, s, want_replicas)) {
        free_snapshot(s);
        return &nothing;
    }
    return &s->base;
}

static moe_status set_policy(void *ctx, uint32_t replication, uint32_t min_nodes, moe_error *err)
{
    pool *p = ctx;
    const cluster_policy policy = {.replication = replication, .min_nodes = min_nodes};

    return atomic_load(&p->joined)
               ? cluster_set_policy(p->cluster, &policy, err)
               : moe_fail(err, MOE_ERR_UNAVAILABLE, "policy: this coordinator has not joined its cluster yet");
}

void pool_view_open(pool *p)
{
    p->view = (api_view){.acquire = acquire, .release = release, .set_policy = set_policy, .ctx = p};
}
