/* The expert nodes of a cluster, as the engine uses them.
 *
 * The cluster's thread decides nothing here. It sets a flag and wakes the transport; the engine's thread takes the
 * newest state at the end of the exchange's next turn (on_turn), also in the middle of a step. That is how a step that
 * waits for an expert without an owner gets one.
 *
 * What is routed (cluster_state_routing) and what is desired differ while nodes load: rows go to owners that are ready,
 * be they in the placement or not. Which those are a node tells on its connection (exchange_node_holds), and nobody else. An epoch is
 * reported as applied only when every expert has a ready owner within the
 * placement (find_settled): until then some rows still go to former owners, which must keep those experts. Which experts
 * have their owners already is reported meanwhile.
 *
 * An owner that others reach and this coordinator does not would hold all of that up, for as long as the way between the two is
 * broken. The controller then gives its experts to others. Any other coordinator takes, after a while, the word of one whose own
 * connection has told it: what it alone cannot reach is its own trouble, and not the cluster's. */
#include "coordinator/pool.h"

#include <stdlib.h>
#include <string.h>

#include "coordinator/pool_priv.h"

/* Chosen, not measured. HEARTBEAT: a node that stands still (stopped, or its machine gone without a word) is lost after
 * eight of them, or 32 while it may be computing; rows do not wait for that where others have its experts. SHOW: how old what other threads see of the nodes may be. SETTLED: reports of what nodes may drop come no
 * closer, as each is a write to etcd. LEAVE: for etcd to take the farewell; the
 * lease ends the registration otherwise. WORD: before another coordinator's word counts for an owner that is not reached here. Until
 * then former owners keep what they gave away, which costs memory; afterwards rows for it have nobody here. It is three times what the
 * controller waits for a node that it alone misses. LOOK: how often it is looked for such a word then. */
#define HEARTBEAT_NS UINT64_C(250000000)
#define SETTLED_NS   UINT64_C(250000000)
#define SHOW_NS      UINT64_C(10000000)
#define LEAVE_NS     UINT64_C(2000000000)
#define WORD_NS      UINT64_C(30000000000)
#define LOOK_NS      UINT64_C(1000000000)

/* ------------------------------------------------------------------------------------------------ nodes */
static void let_go(pool *p, pool_node *n)
{
    exchange_remove_node(p->exchange, n->id);
    *n = (pool_node){.id = ""};
}

static bool same_node(const pool_node *n, const cluster_node *c)
{
    return c != NULL && n->incarnation == c->incarnation && strcmp(n->address, c->address) == 0;
}

static bool is_known(const pool *p, const char *id)
{
    for (size_t i = 0; i < ROUTER_MAX_NODES; i++) {
        if (strcmp(p->nodes[i].id, id) == 0) {
            return true;
        }
    }
    return false;
}

static void connect_to(pool *p, const cluster_node *c)
{
    pool_node *n = p->nodes;
    moe_error err = {""};

    while (n < p->nodes + ROUTER_MAX_NODES && n->id[0] != '\0') {
        n++;
    }
    if (n == p->nodes + ROUTER_MAX_NODES) {
        return; /* the cluster has logged that there are too many */
    }
    if (exchange_add_node(p->exchange, c->id, c->address, c->incarnation, &err) != MOE_OK) {
        MOE_WARN("node %s is not used: %s", c->id, err.text);
        return;
    }
    (void)snprintf(n->id, sizeof n->id, "%s", c->id);
    (void)snprintf(n->address, sizeof n->address, "%s", c->address);
    n->incarnation = c->incarnation;
}

/* A node that was started anew is another one, even at the same address: what it held is gone. */
static void apply_nodes(pool *p, const cluster_state *s)
{
    for (size_t i = 0; i < ROUTER_MAX_NODES; i++) {
        if (p->nodes[i].id[0] != '\0' && !same_node(&p->nodes[i], cluster_state_node(s, p->nodes[i].id))) {
            let_go(p, &p->nodes[i]);
        }
    }
    for (size_t i = 0; i < s->n_nodes; i++) {
        if (!is_known(p, s->nodes[i].id)) {
            connect_to(p, &s->nodes[i]);
        }
    }
}

/* ------------------------------------------------------------------------------------------------ placement */
typedef const uint64_t *told_by[ROUTER_MAX_NODES]; /* each node of a state */

static void ask_nodes(const pool *p, const cluster_state *s, told_by told)
{
    for (size_t i = 0; i < s->n_nodes; i++) {
        told[i] = exchange_node_holds(p->exchange, s->nodes[i].id);
    }
}

/* Another coordinator sends the expert's rows to an owner. Not by our own word: whoever was first had it of a connection. */
static bool another_has_settled(const pool *p, const cluster_state *s, uint32_t slot)
{
    for (size_t i = 0; i < s->n_coordinators; i++) {
        const cluster_coordinator *c = &s->coordinators[i];
        bool is_settled = c->settled != NULL && c->epoch_settled == s->epoch && router_bit(c->settled, slot);

        if (strcmp(c->id, p->id) != 0 && (c->epoch_applied >= s->epoch || is_settled)) {
            return true;
        }
    }
    return false;
}

/* An owner has told that it has the expert; or none has told anything, and by_word. */
static bool has_its_owner(const pool *p, const cluster_state *s, const uint64_t *const *told, uint32_t slot,
                          bool by_word)
{
    size_t n;
    const uint32_t *owners = router_placement_owners(s->desired, slot, &n);

    for (size_t i = 0; i < n; i++) {
        const cluster_node *node = cluster_state_node(s, router_placement_node_id(s->desired, owners[i]));
        const uint64_t *of_node = node != NULL ? told[node - s->nodes] : NULL;

        if (of_node != NULL && router_bit(of_node, slot)) {
            return true;
        }
        by_word = by_word && of_node == NULL;
    }
    return n == 0 || (by_word && another_has_settled(p, s, slot)); /* without owners: no set has it, or it is local */
}

/* The experts of which no row goes to a replica outside the placement: their former owners may drop them. Returns whether
 * that is all of them. */
static bool find_settled(pool *p, const cluster_state *s, const uint64_t *const *told, uint64_t now)
{
    const bool by_word = now - p->epoch_ns >= WORD_NS && !s->is_controller;
    uint64_t *bitmap = p->settled;
    bool all = true;

    memset(bitmap, 0, router_space_words(p->space) * sizeof *bitmap);
    for (uint32_t slot = 0; slot < router_space_n_slots(p->space); slot++) {
        if (has_its_owner(p, s, told, slot, by_word)) {
            router_bit_set(bitmap, slot);
        } else {
            all = false;
        }
    }
    return all;
}

/* Room for what nodes hold; what is known of that stays, and is copied anew. False: no memory. */
static bool hold(pool *p, size_t n_words)
{
    uint64_t *held = calloc(ROUTER_MAX_NODES * n_words, sizeof *held), *before = p->held;

    if (held == NULL) {
        return false;
    }
    pthread_mutex_lock(&p->lock);
    for (size_t i = 0; i < ROUTER_MAX_NODES && before != NULL; i++) {
        memcpy(held + i * n_words, before + i * p->n_held_words, p->n_held_words * sizeof *held);
        p->nodes[i].told = 0;
    }
    p->held = held;
    p->n_held_words = n_words;
    pthread_mutex_unlock(&p->lock);
    free(before);
    return true;
}

/* The engine has grown: so does what is sized by the space. False: no memory. */
static bool follow_space(pool *p)
{
    router_space *space = exchange_get_space(p->exchange);

    if (space == p->space) {
        return true;
    }
    uint64_t *settled = calloc(router_space_words(space), sizeof *settled);
    if (settled == NULL || !hold(p, router_space_words(space))) {
        free(settled);
        return false;
    }
    free(p->settled);
    router_space_unref(p->space);
    p->settled = settled;
    p->space = router_space_ref(space);
    return true;
}

/* Full nodes wait for this: what they may drop makes room for what they are to load. */
static void tell_settled(pool *p, uint64_t epoch, uint64_t now)
{
    if (now - p->settled_ns >= SETTLED_NS) {
        p->settled_ns = now;
        p->settled_epoch = 0;
        cluster_set_settled(p->cluster, p->space, epoch, p->settled);
    } else {
        p->settled_epoch = epoch; /* on_turn */
    }
}

static void apply_placement(pool *p, const cluster_state *s, uint64_t now)
{
    router_placement *routing;
    told_by told;
    moe_error err = {""};

    if (s->desired == NULL) {
        return;
    }
    ask_nodes(p, s, told);
    if (!follow_space(p) || cluster_state_routing(s, p->space, told, &routing, &err) != MOE_OK) {
        MOE_ERROR("placement epoch %llu is not applied: %s", (unsigned long long)s->epoch, err.text);
        atomic_store(&p->changed, true); /* again at the next turn */
        return;
    }
    exchange_set_placement(p->exchange, routing);
    router_placement_unref(routing);
    if (s->epoch == p->epoch_applied) {
        return;
    }
    if (s->epoch != p->epoch) {
        p->epoch = s->epoch;
        p->epoch_ns = now;
    }
    p->look_ns = now + LOOK_NS;
    if (!find_settled(p, s, told, now)) {
        tell_settled(p, s->epoch, now);
    } else {
        p->epoch_applied = s->epoch;
        p->settled_epoch = 0;
        MOE_INFO("placement epoch %llu applied: %zu nodes", (unsigned long long)s->epoch, s->n_nodes);
        exchange_set_applied(p->exchange, s->epoch);
        cluster_set_applied(p->cluster, s->epoch);
    }
}

/* Copied only when it has changed: it may be KiB of each node. The lock is held. The exchange's space is ours, or a later one. */
static void show_held(pool *p, pool_node *n, uint64_t told)
{
    if (told != 0 && told != n->told) {
        memcpy(p->held + (size_t)(n - p->nodes) * p->n_held_words, exchange_node_holds(p->exchange, n->id),
               p->n_held_words * sizeof *p->held);
        n->told = told;
    }
}

static void show(pool *p, uint64_t now)
{
    bool outdated = false;

    p->shown_ns = now;
    pthread_mutex_lock(&p->lock);
    if (p->o.transport == NULL) { /* then it is one of a network */
        transport_net_get_stats(p->transport, &p->shown_transport);
    }
    for (size_t i = 0; i < ROUTER_MAX_NODES; i++) {
        pool_shown *s = &p->shown[i];

        s->id[0] = '\0';
        if (p->nodes[i].id[0] != '\0' && exchange_get_node(p->exchange, p->nodes[i].id, &s->info)) {
            memcpy(s->id, p->nodes[i].id, sizeof s->id);
            show_held(p, &p->nodes[i], s->info.told);
            outdated = outdated || s->info.is_another;
        }
    }
    pthread_mutex_unlock(&p->lock);
    if (outdated && atomic_load(&p->joined)) {
        cluster_refresh(p->cluster); /* a watch that has lost its voice would tell of the new one in half a minute */
    }
}

/* Every turn of the exchange ends here. */
static void on_turn(void *ctx)
{
    pool *p = ctx;
    uint64_t now = moe_now_ns(p->o.clock);
    bool is_new = exchange_holds_changed(p->exchange) || atomic_load_explicit(&p->changed, memory_order_relaxed);

    is_new = is_new || (p->epoch > p->epoch_applied && now >= MOE_MAX(p->epoch_ns + WORD_NS, p->look_ns));
    if (is_new && atomic_load(&p->joined)) {
        atomic_store(&p->changed, false);
        const cluster_state *s = cluster_state_acquire(p->cluster);
        apply_nodes(p, s);
        apply_placement(p, s, now);
        cluster_state_release(s);
    }
    if (p->settled_epoch != 0) {
        tell_settled(p, p->settled_epoch, now);
    }
    if (now - p->shown_ns >= SHOW_NS) {
        show(p, now);
    }
}

/* ---------------------------------------------------------------------------------------------- the cluster's calls */
static void on_changed(void *ctx)
{
    pool *p = ctx;

    atomic_store(&p->changed, true);
    if (p->transport->ops->wake != NULL) {
        p->transport->ops->wake(p->transport);
    }
    if (p->changed_of != NULL) {
        p->changed_of(p->changed_ctx);
    }
}

/* Our own connections tell of nodes; of another coordinator under our id its API's port does. */
static cluster_alive on_alive(void *ctx, cluster_role role, const char *id, const char *address, uint64_t incarnation)
{
    pool *p = ctx;
    exchange_node_info info;

    if (role == CLUSTER_COORDINATOR) {
        return p->is_stepped ? CLUSTER_ALIVE_NO : member_alive(p->names, address, p->address);
    }
    if (!pool_find_shown(p, id, &info)) {
        return CLUSTER_ALIVE_NO;
    }
    if (info.kind == EXCHANGE_NODE_READY || info.kind == EXCHANGE_NODE_DRAINING) {
        return info.incarnation != incarnation  ? CLUSTER_ALIVE_NO /* another one of its name */
               : info.is_mute || info.is_untold ? CLUSTER_ALIVE_MISSED
               : info.told == 0                 ? CLUSTER_ALIVE_UNKNOWN /* nothing new for it yet: it may never tell */
                                                : CLUSTER_ALIVE_YES;
    }
    if (info.is_refused) { /* the exchange calls it again and again, so this calls nobody itself */
        return CLUSTER_ALIVE_GONE;
    }
    if (info.is_missed) {
        return CLUSTER_ALIVE_MISSED;
    }
    return info.kind == EXCHANGE_NODE_DOWN ? CLUSTER_ALIVE_NO : CLUSTER_ALIVE_UNKNOWN;
}

/* Of that incarnation: exchange_add_node was told which one is meant. */
static bool on_holds(void *ctx, const char *id, uint64_t incarnation, uint64_t *bitmap, size_t n_words)
{
    pool *p = ctx;
    bool is_told = false;

    pthread_mutex_lock(&p->lock);
    for (size_t i = 0; i < ROUTER_MAX_NODES && !is_told; i++) {
        const pool_shown *s = &p->shown[i];

        if (strcmp(s->id, id) == 0 && s->info.told != 0 && s->info.incarnation == incarnation) {
            memcpy(bitmap, p->held + i * p->n_held_words, MOE_MIN(n_words, p->n_held_words) * sizeof *bitmap);
            is_told = true;
        }
    }
    pthread_mutex_unlock(&p->lock);
    return is_told;
}

/* ------------------------------------------------------------------------------------------------ open, join, close */
static moe_status open_transport(pool *p, moe_error *err)
{
    if (p->transport != NULL) {
        return MOE_OK;
    }
    transport_net_options options = {.lane = member_lane(p->o.member),
                                     .rdma_network = p->o.member->private_network,
                                     .max_message = member_max_message(&p->o.files->config, p->o.device->numeric_class),
                                     .max_peers = 2 * ROUTER_MAX_NODES,
                                     .secret = p->o.member->secret,
                                     .n_secret = p->o.member->n_secret};
    moe_status status = member_gpu_frames(p->o.member, p->o.device, &options.gpu_frames, err);

    status = status == MOE_OK ? transport_net_open(&options, &p->transport, err) : status;
    if (status == MOE_OK) {
        p->lane = transport_net_lane(p->transport);
        MOE_INFO("expert nodes are reached by %s", p->lane);
    }
    return status;
}

static moe_status open_exchange(pool *p, moe_error *err)
{
    const model_config *m = &p->o.files->config;
    exchange_options x = {.transport = p->transport,
                          .device = p->o.device,
                          .clock = p->o.clock,
                          .coordinator_id = p->incarnation,
                          .space = p->o.files->space,
                          .k = m->gate.k,
                          .d_model = m->d_model,
                          .max_rows = p->o.max_rows,
                          .micro_batches = p->o.micro_batches,
                          .dispatch_timeout_ns = (uint64_t)p->o.dispatch_timeout_ms * 1000000u,
                          .id = p->id,
                          .cluster = p->o.member->cluster,
                          .incarnation = p->incarnation,
                          .secret = p->o.member->secret,
                          .n_secret = p->o.member->n_secret,
                          .heartbeat_ns = HEARTBEAT_NS,
                          .threads = p->o.threads,
                          .poll = on_turn,
                          .poll_ctx = p};

    memcpy(x.fingerprint, p->o.files->manifest.fingerprint.bytes, sizeof x.fingerprint);
    return exchange_open(&x, &p->exchange, err);
}

moe_status pool_open(const pool_options *options, pool **out, moe_error *err)
{
    pool *p = calloc(1, sizeof *p);

    if (p == NULL) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "pool: out of memory");
    }
    p->o = *options;
    p->id = options->member->name;
    p->is_stepped = options->clock != NULL;
    p->o.clock = p->is_stepped ? options->clock : moe_clock_real();
    p->transport = options->transport;
    p->store = options->store;
    p->lane = "loopback";
    p->incarnation = options->incarnation != 0 ? options->incarnation : moe_random_entropy() | 1;
    pthread_mutex_init(&p->lock, NULL);
    pool_view_open(p);
    p->space = router_space_ref(options->files->space);
    p->settled = calloc(router_space_words(p->space), sizeof *p->settled);
    moe_status status = MOE_OK;
    if (p->settled == NULL || !hold(p, router_space_words(p->space)) ||
        moe_resolver_open(&(moe_resolver_options){0}, &p->names) != MOE_OK) {
        status = moe_fail(err, MOE_ERR_NO_MEMORY, "pool: out of memory");
    }
    if (status == MOE_OK) {
        status = open_transport(p, err);
    }
    if (status == MOE_OK) {
        status = open_exchange(p, err);
    }
    if (status != MOE_OK) {
        pool_close(p);
        return status;
    }
    *out = p;
    return MOE_OK;
}

static uint64_t wall_ms(void *ctx)
{
    (void)ctx;
    return moe_wall_ms();
}

moe_status pool_join(pool *p, const char *address, moe_error *err)
{
    const member_files *f = p->o.files;
    cluster_options o = {.role = CLUSTER_COORDINATOR,
                         .cluster = p->o.member->cluster,
                         .id = p->id,
                         .address = p->address,
                         .incarnation = p->incarnation,
                         .model = member_model(f, p->o.device->numeric_class),
                         .version = MOE_VERSION,
                         .secret = p->o.member->secret,
                         .n_secret = p->o.member->n_secret,
                         .policy = {p->o.replication, p->o.min_nodes},
                         .keep_unused_ms = p->o.keep_unused_ms,
                         .clock = p->o.clock,
                         .seed = p->incarnation,
                         .wall_ms = p->is_stepped ? NULL : wall_ms,
                         .ctx = p,
                         .alive = on_alive,
                         .holds = on_holds,
                         .changed = on_changed};

    (void)snprintf(p->address, sizeof p->address, "%s", address);
    moe_status status = p->store != NULL ? MOE_OK : member_store_open(p->o.member, &p->store, err);
    o.store = p->store;
    if (status == MOE_OK) {
        status = cluster_open(&o, &p->cluster, err);
    }
    if (status == MOE_OK) {
        atomic_store(&p->joined, true);
        status = p->is_stepped ? MOE_OK : cluster_start(p->cluster, err);
    }
    return status;
}

uint64_t pool_step(pool *p)
{
    MOE_ASSERT(p->is_stepped);
    return cluster_step(p->cluster);
}

moe_status pool_status(pool *p, moe_error *err)
{
    return cluster_status(p->cluster, err);
}

bool pool_is_displaced(pool *p, moe_error *why)
{
    return p != NULL && p->cluster != NULL && cluster_is_displaced(p->cluster, why);
}

/* Nothing is placed: because there is no node, or none that answers us. Then the first of them, and why, is named. */
static void why_nothing_is_placed(pool *p, const cluster_state *s, moe_error *err)
{
    const cluster_node *silent = NULL;
    exchange_node_info info = {.why = ""}, its = {.why = ""};
    size_t n_met = 0;

    for (size_t i = 0; i < s->n_nodes; i++) {
        if (pool_find_shown(p, s->nodes[i].id, &info) && info.kind >= EXCHANGE_NODE_READY && !info.is_untold) {
            n_met++;
        } else if (silent == NULL) {
            silent = &s->nodes[i];
            its = info;
        }
    }
    if (silent == NULL || its.why[0] == '\0') {
        (void)moe_fail(err, MOE_ERR_UNAVAILABLE,
                       "nothing is placed yet: %zu nodes are registered, %zu of them answer, policy min_nodes %u",
                       s->n_nodes, n_met, MOE_MAX(s->policy.min_nodes, 1u));
    } else {
        (void)moe_fail(
            err, MOE_ERR_UNAVAILABLE,
            "nothing is placed yet: %zu nodes are registered, %zu of them answer; node %s at %s does not: %s",
            s->n_nodes, n_met, silent->id, silent->address, its.why);
    }
}

bool pool_covered(pool *p, moe_error *err)
{
    exchange_coverage c;

    exchange_get_coverage(p->exchange, &c);
    if (!c.placed) {
        const cluster_state *s = cluster_state_acquire(p->cluster);

        why_nothing_is_placed(p, s, err);
        cluster_state_release(s);
        return false;
    }
    return exchange_coverage_check(&c, err) == MOE_OK;
}

exchange *pool_exchange(pool *p)
{
    return p->exchange;
}

cluster *pool_cluster(pool *p)
{
    return p->cluster;
}

void pool_on_changed(pool *p, void (*changed)(void *ctx), void *ctx)
{
    p->changed_of = changed;
    p->changed_ctx = ctx;
}

const api_view *pool_view(pool *p)
{
    return &p->view;
}

void pool_leave(pool *p)
{
    if (p->cluster != NULL && !p->is_stepped) {
        cluster_stop(p->cluster, LEAVE_NS);
    }
}

void pool_close(pool *p)
{
    if (p == NULL) {
        return;
    }
    pool_leave(p);
    cluster_close(p->cluster);
    cluster_store_close(p->store);
    moe_resolver_close(p->names);
    transport_close(p->transport);
    exchange_close(p->exchange);
    pthread_mutex_destroy(&p->lock);
    free(p->settled);
    free(p->held);
    router_space_unref(p->space);
    free(p);
}
