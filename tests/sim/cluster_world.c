#include "tests/sim/cluster_world.h"

#include <stdlib.h>

#include "engine/engine_priv.h"
#include "expert_node/program/standing.h"
#include "tests/sim/obstacle.h"

#define CLUSTER_NAME "sim"
#define MAX_MESSAGE  ((size_t)64 << 10)
#define MAX_ROWS     32
#define KV_TOKENS    512
#define MAX_CONTEXT  128
#define WATCH_EVERY  4 /* turns: the cluster's own loop is not in such a hurry */
#define STEPS        4 /* of an engine in one turn */
#define FAREWELL_NS  UINT64_C(100000000)
#define DRAIN_NS     UINT64_C(10000000000)

static const unsigned char fingerprint[32] = {7};

uint64_t cluster_world_now(const cluster_world *w)
{
    return w->clock.time_ns;
}

static uint64_t draw(cluster_world *w)
{
    return moe_random_u64(&w->random);
}

static transport *endpoint(cluster_world *w, const char *address)
{
    const transport_loopback_options o = {
        .net = w->net, .address = address, .max_message = MAX_MESSAGE, .max_peers = 16, .max_queued = 256};
    transport_faulty_options f = {.clock = &w->clock.clock, .seed = draw(w), .max_delay_ns = w->o.max_delay_ns};
    transport *t;

    memcpy(f.per_mille, w->o.per_mille, sizeof f.per_mille);
    assert_int_equal(transport_loopback_open(&o, &f.inner), MOE_OK);
    assert_int_equal(transport_faulty_open(&f, &t), MOE_OK);
    transport_faulty_enable(t, !w->is_calm);
    return t;
}

static void come_up(cluster_world *w, cluster_world_member *m, const char *kind, uint32_t i)
{
    assert_false(m->is_up);
    *m = (cluster_world_member){.is_up = true, .incarnation = draw(w) | 1};
    (void)snprintf(m->id, sizeof m->id, "%s-%u", kind, i);
    m->faulty = endpoint(w, m->id);
    m->t = obstacle_open(m->faulty);
}

static bool is_running(const cluster_world *w, const cluster_world_member *m)
{
    return m->is_up && cluster_world_now(w) >= m->stopped_until_ns;
}

static cluster_model shared_model(const cluster_world *w)
{
    return member_model(&w->files, w->model->device->numeric_class);
}

/* ------------------------------------------------------------------------------------------------ nodes */
/* What a node's program finds out by a HELLO of its own. */
static cluster_alive ask_for(const cluster_world *w, cluster_role role, const char *id, uint64_t incarnation)
{
    for (uint32_t i = 0; i < CLUSTER_WORLD_NODES; i++) {
        const cluster_world_member *m = &w->nodes[i].m;
        if (role == CLUSTER_NODE && m->is_up && strcmp(m->id, id) == 0) {
            return is_running(w, m) && m->incarnation == incarnation ? CLUSTER_ALIVE_YES : CLUSTER_ALIVE_NO;
        }
    }
    return CLUSTER_ALIVE_NO;
}

static void on_changed(void *ctx)
{
    cluster_world_node *n = ctx;

    assignment_notify(n->assignment);
}

static cluster_alive ask_of_node(void *ctx, cluster_role role, const char *id, const char *address,
                                 uint64_t incarnation)
{
    const cluster_world_node *n = ctx;

    (void)address;
    return ask_for(n->world, role, id, incarnation);
}

static void open_node(cluster_world *w, cluster_world_node *n)
{
    const model_config *c = &w->model->config;
    expert_node_options o = {.id = n->m.id,
                             .cluster = CLUSTER_NAME,
                             .incarnation = n->m.incarnation,
                             .transport = n->m.t,
                             .device = w->model->device,
                             .space = w->files.space,
                             .d_model = c->d_model,
                             .memory_bytes = w->o.memory_bytes,
                             .expert_bytes = model_expert_bytes(c, w->model->tensors),
                             .max_rows = MAX_ROWS,
                             .max_picks = MAX_ROWS * c->gate.k,
                             .max_ffn_rows = 64,
                             .max_peers = 8,
                             .clock = &w->clock.clock};
    moe_error err;

    memcpy(o.fingerprint, fingerprint, sizeof fingerprint);
    n->world = w;
    n->source = (expert_checkpoint){
        .config = c, .tensors = w->model->tensors, .device = w->model->device, .layout = COMPUTE_PACKED};
    n->source.find = w->o.find;
    n->source.find_ctx = n;
    const loader_options l = {
        .source = expert_source_checkpoint(&n->source), .device = w->model->device, .stepped = true};
    assert_ok(expert_node_open(&o, &n->node, &err), err);
    assert_ok(loader_open(&l, &n->loader, &err), err);
    assert_int_equal(assignment_open(n->node, n->loader, n->m.id, w->files.space, &w->clock.clock, &n->assignment),
                     MOE_OK);
}

void cluster_world_start_node(cluster_world *w, uint32_t i)
{
    cluster_world_node *n = &w->nodes[i];
    moe_error err;

    come_up(w, &n->m, "node", i);
    n->every = 1;
    n->is_draining = false;
    n->leaves_ns = n->mute_until_ns = 0;
    open_node(w, n);
    assert_int_equal(cluster_memory_client(w->memory, &n->store), MOE_OK);
    const cluster_options o = {.role = CLUSTER_NODE,
                               .cluster = CLUSTER_NAME,
                               .id = n->m.id,
                               .address = n->m.id,
                               .incarnation = n->m.incarnation,
                               .model = shared_model(w),
                               .device = "cpu",
                               .memory_bytes = w->o.memory_bytes,
                               .store = n->store,
                               .clock = &w->clock.clock,
                               .seed = draw(w) | 1,
                               .ctx = n,
                               .alive = ask_of_node,
                               .changed = on_changed};
    assert_ok(cluster_open(&o, &n->cluster, &err), err);
    cluster_set_packs(n->cluster, w->o.packs, w->o.n_packs);
}

void cluster_world_kill_node(cluster_world *w, uint32_t i)
{
    cluster_world_node *n = &w->nodes[i];

    (void)w;
    cluster_close(n->cluster);
    cluster_store_close(n->store);
    loader_close(n->loader);
    assignment_close(n->assignment);
    transport_close(n->m.t);
    expert_node_close(n->node);
    n->m.is_up = false;
}

void cluster_world_drain_node(cluster_world *w, uint32_t i)
{
    w->nodes[i].is_draining = true;
    w->nodes[i].drains_until_ns = cluster_world_now(w) + DRAIN_NS;
    cluster_set_draining(w->nodes[i].cluster, true);
}

/* As the program does: goodbye when others have its experts, or it has waited long enough; the end a moment later. */
static void go_on_draining(cluster_world *w, uint32_t i)
{
    cluster_world_node *n = &w->nodes[i];
    assignment_progress a;
    expert_node_stats stats;

    if (n->leaves_ns != 0) {
        if (cluster_world_now(w) >= n->leaves_ns) {
            cluster_world_kill_node(w, i);
        }
        return;
    }
    assignment_get_progress(n->assignment, &a);
    expert_node_get_stats(n->node, &stats);
    const standing s = {.state = cluster_state_acquire(n->cluster),
                        .id = n->m.id,
                        .address = n->m.id,
                        .n_wanted = a.wanted,
                        .epoch_registered = a.epoch_registered,
                        .n_hellos = stats.hellos,
                        .n_connected = stats.coordinators,
                        .epoch_connected = stats.epoch_applied};
    if (standing_judge(&s, NULL) == STANDING_RELIEVED || cluster_world_now(w) >= n->drains_until_ns) {
        expert_node_drain(n->node);
        n->leaves_ns = cluster_world_now(w) + FAREWELL_NS;
    }
    cluster_state_release(s.state);
}

static void turn_node(cluster_world *w, uint32_t i)
{
    cluster_world_node *n = &w->nodes[i];

    if (!is_running(w, &n->m) || w->turn % n->every != 0) {
        return;
    }
    (void)expert_node_progress(n->node);
    (void)loader_step(n->loader);
    (void)assignment_turn(n->assignment, n->cluster);
    if (w->turn / n->every % WATCH_EVERY == 0) {
        (void)cluster_step(n->cluster);
    }
    if (n->is_draining) {
        go_on_draining(w, i);
    }
}

/* ------------------------------------------------------------------------------------------------ obstacles */
static void set_way(cluster_world *w, uint32_t coordinator, uint32_t node)
{
    char address[16];

    (void)snprintf(address, sizeof address, "node-%u", node);
    if (w->coordinators[coordinator].m.is_up) {
        obstacle_set(w->coordinators[coordinator].m.t, address, w->ways[coordinator][node].obstacles);
    }
}

void cluster_world_obstruct(cluster_world *w, uint32_t coordinator, uint32_t node, unsigned obstacles, uint64_t for_ns)
{
    w->ways[coordinator][node] = (cluster_world_way){obstacles, cluster_world_now(w) + for_ns};
    set_way(w, coordinator, node);
}

void cluster_world_mute_node(cluster_world *w, uint32_t i, uint64_t for_ns)
{
    w->nodes[i].mute_until_ns = cluster_world_now(w) + for_ns;
    obstacle_mute(w->nodes[i].m.t, true);
}

bool cluster_world_lie_of_node(cluster_world *w, uint32_t i)
{
    char key[64];
    moe_text value;

    (void)snprintf(key, sizeof key, "/conclave/" CLUSTER_NAME "/ready/%s", w->nodes[i].m.id);
    moe_text_init(&value, MAX_MESSAGE);
    moe_text_printf(&value, "{\"v\":1,\"incarnation\":\"%016llx\",\"epoch\":1,\"experts\":[",
                    (unsigned long long)w->nodes[i].m.incarnation);
    for (uint32_t l = 0; l < w->model->config.n_layers; l++) {
        moe_text_printf(&value, "%s\"0-%u\"", l > 0 ? "," : "", w->model->config.n_ffn_experts - 1);
    }
    moe_text_printf(&value, "]}");
    bool is_there = w->nodes[i].m.is_up && cluster_memory_forge(w->memory, key, moe_text_cstr(&value));
    moe_text_fini(&value);
    return is_there;
}

static void end_obstacles(cluster_world *w)
{
    uint64_t now = cluster_world_now(w);

    for (uint32_t n = 0; n < CLUSTER_WORLD_NODES; n++) {
        if (w->nodes[n].m.is_up && w->nodes[n].mute_until_ns != 0 && now >= w->nodes[n].mute_until_ns) {
            w->nodes[n].mute_until_ns = 0;
            obstacle_mute(w->nodes[n].m.t, false);
        }
        for (uint32_t c = 0; c < CLUSTER_WORLD_COORDINATORS; c++) {
            if (w->ways[c][n].obstacles != 0 && now >= w->ways[c][n].until_ns) {
                w->ways[c][n].obstacles = 0;
                set_way(w, c, n);
            }
        }
    }
}

/* ------------------------------------------------------------------------------------------------ coordinators */
void cluster_world_start_coordinator(cluster_world *w, uint32_t i)
{
    cluster_world_coordinator *c = &w->coordinators[i];
    moe_error err;

    come_up(w, &c->m, "coordinator", i);
    for (uint32_t n = 0; n < CLUSTER_WORLD_NODES; n++) {
        set_way(w, i, n);
    }
    c->config = (member_config){.cluster = (char *)(uintptr_t)CLUSTER_NAME};
    memcpy(c->config.name, c->m.id, strlen(c->m.id) + 1);
    pool_options p = {.member = &c->config,
                      .files = &w->files,
                      .device = w->model->device,
                      .max_rows = MAX_ROWS,
                      .micro_batches = w->o.micro_batches,
                      .dispatch_timeout_ms = 5000,
                      .replication = w->o.replication,
                      .min_nodes = w->o.min_nodes,
                      .keep_unused_ms = w->o.keep_unused_ms,
                      .transport = c->m.t,
                      .clock = &w->clock.clock,
                      .incarnation = c->m.incarnation};
    assert_int_equal(cluster_memory_client(w->memory, &p.store), MOE_OK);
    assert_ok(pool_open(&p, &c->pool, &err), err);
    assert_ok(pool_join(c->pool, c->m.id, &err), err);
    assert_ok(model_kv_open(&w->model->config, w->model->device,
                            model_kv_page_bytes(&w->model->config, w->model->device->numeric_class) *
                                (KV_TOKENS / MODEL_KV_PAGE_TOKENS),
                            true, &c->kv, &err),
              err);
    const engine_options e = {.model = w->model->model,
                              .kv = c->kv,
                              .exchange = pool_exchange(c->pool),
                              .threads = w->model->threads,
                              .base_set = w->model->set,
                              .clock = &w->clock.clock,
                              .max_batch_tokens = MAX_ROWS,
                              .prefill_chunk = 8,
                              .max_running = 16,
                              .max_queue = 16,
                              .max_context = MAX_CONTEXT,
                              .default_max_tokens = 16,
                              .micro_batches = w->o.micro_batches,
                              .step_timeout_ns = UINT64_C(60000000000)};
    assert_ok(engine_open(&e, &c->engine, &err), err);
}

void cluster_world_kill_coordinator(cluster_world *w, uint32_t i)
{
    cluster_world_coordinator *c = &w->coordinators[i];
    model_kv_stats kv;

    (void)w;
    engine_close(c->engine);
    model_kv_get_stats(c->kv, &kv);
    assert_int_equal(kv.n_used, 0);
    model_kv_close(c->kv);
    pool_close(c->pool);
    c->m.is_up = false;
}

static void turn_coordinator(cluster_world *w, uint32_t i)
{
    cluster_world_coordinator *c = &w->coordinators[i];

    if (!is_running(w, &c->m)) {
        return;
    }
    if (w->turn % WATCH_EVERY == i) {
        (void)pool_step(c->pool);
    }
    bool is_due = w->o.between != NULL, goes_on = true;
    for (int i_step = 0; i_step < STEPS && goes_on; i_step++) {
        if (is_due && !c->engine->run.active) {
            w->o.between(i);
            is_due = false;
        }
        goes_on = engine_turn(c->engine) == ENGINE_TURN_WORKED;
    }
}

/* ------------------------------------------------------------------------------------------------ the world */
void cluster_world_open(cluster_world *w, const model_fixture *shared, const cluster_world_options *o)
{
    *w = (cluster_world){.o = *o, .model = shared};
    w->files.config = shared->config;
    w->files.tensors = shared->tensors;
    w->files.space = router_set_space(shared->set);
    memcpy(w->files.manifest.fingerprint.bytes, fingerprint, sizeof fingerprint);
    moe_random_seed(&w->random, o->seed);
    moe_clock_virtual_init(&w->clock, UINT64_C(1000000000));
    assert_int_equal(transport_loopback_net_open(2 * (CLUSTER_WORLD_NODES + CLUSTER_WORLD_COORDINATORS), &w->net),
                     MOE_OK);
    assert_int_equal(cluster_memory_open(&w->clock.clock, o->seed, &w->memory), MOE_OK);
}

void cluster_world_close(cluster_world *w)
{
    for (uint32_t i = 0; i < CLUSTER_WORLD_COORDINATORS; i++) {
        if (w->coordinators[i].m.is_up) {
            cluster_world_kill_coordinator(w, i);
        }
    }
    for (uint32_t i = 0; i < CLUSTER_WORLD_NODES; i++) {
        if (w->nodes[i].m.is_up) {
            cluster_world_kill_node(w, i);
        }
    }
    cluster_memory_close(w->memory);
    transport_loopback_net_close(w->net);
}

void cluster_world_calm(cluster_world *w)
{
    w->is_calm = true;
    for (uint32_t i = 0; i < CLUSTER_WORLD_NODES; i++) {
        w->nodes[i].m.stopped_until_ns = 0;
        w->nodes[i].every = 1;
        if (w->nodes[i].m.is_up) {
            transport_faulty_enable(w->nodes[i].m.faulty, false);
        }
    }
    for (uint32_t i = 0; i < CLUSTER_WORLD_COORDINATORS; i++) {
        w->coordinators[i].m.stopped_until_ns = 0;
        if (w->coordinators[i].m.is_up) {
            transport_faulty_enable(w->coordinators[i].m.faulty, false);
        }
    }
}

void cluster_world_turn(cluster_world *w)
{
    w->turn++;
    end_obstacles(w);
    for (uint32_t i = 0; i < CLUSTER_WORLD_COORDINATORS; i++) {
        turn_coordinator(w, i);
    }
    for (uint32_t i = 0; i < CLUSTER_WORLD_NODES; i++) {
        turn_node(w, i);
    }
    moe_clock_virtual_advance(&w->clock, w->o.turn_ns);
}
