#include "cluster/store.h"
#include "expert_node/program/assignment.h"
#include "tests/sim/world.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#define N_LAYERS  2
#define N_EXPERTS 4
#define N_ALL     (N_LAYERS * N_EXPERTS)

static world w;
static transport *end;
static expert_node *node;
static assignment *a;
static moe_clock_virtual clock_v;
static cluster_memory *memory;
static cluster_store *stores[3];
static cluster *member, *other, *coordinator;
static transport *its_end; /* of a coordinator that is in no store */
static exchange *its_exchange;
static expert_source source;
static loader *its_loader;
static atomic_uint n_failures; /* loads that fail before one succeeds */
static uint64_t last;          /* what `other` has reported */

/* A source that stops, as on a disk that does not answer. Whoever waits for it gives up after a while. */
static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned n_free; /* loads that pass */
    atomic_bool stuck, gave_up;
} gate = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static void gate_set(unsigned n_free)
{
    pthread_mutex_lock(&gate.lock);
    gate.n_free = n_free;
    pthread_cond_broadcast(&gate.changed);
    pthread_mutex_unlock(&gate.lock);
}

static void gate_pass(void)
{
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 20;
    pthread_mutex_lock(&gate.lock);
    while (gate.n_free == 0 && !gate.gave_up) {
        gate.stuck = true;
        gate.gave_up = pthread_cond_timedwait(&gate.changed, &gate.lock, &until) != 0;
    }
    gate.n_free -= !gate.gave_up;
    gate.stuck = false;
    pthread_mutex_unlock(&gate.lock);
}

static moe_status source_of_test(void *ctx, uint32_t layer, int32_t expert_id, compute_expert **out, moe_error *err)
{
    (void)ctx;
    gate_pass();
    if (n_failures > 0) {
        n_failures--;
        return moe_fail(err, MOE_ERR_CORRUPT, "not today");
    }
    return source.open(source.ctx, layer, expert_id, out, err);
}

static void on_changed(void *ctx)
{
    (void)ctx;
    assignment_notify(a);
}

static cluster *join(cluster_role role, const char *id, size_t store, void (*changed)(void *))
{
    cluster_options o = {.role = role,
                         .cluster = "test",
                         .id = id,
                         .address = "localhost:1",
                         .incarnation = 7 + store,
                         .model = {.family = "test",
                                   .numeric_class = "f32-1",
                                   .space = test_space(N_LAYERS, N_EXPERTS),
                                   .k = 2,
                                   .d_model = 8,
                                   .expert_bytes = 100},
                         .clock = &clock_v.clock,
                         .seed = 1 + store,
                         .changed = changed};
    cluster *c;
    moe_error err;

    assert_int_equal(cluster_memory_client(memory, &stores[store]), MOE_OK);
    o.store = stores[store];
    assert_ok(cluster_open(&o, &c, &err), err);
    return c;
}

static int setup_with(size_t room)
{
    const world_options o = {
        .n_layers = N_LAYERS, .n_experts = N_EXPERTS, .k = 2, .d_model = 8, .d_ff = 4, .max_rows = 4, .n_nodes = 1};
    moe_error err;

    world_open(&w, &o);
    const transport_loopback_options loopback = {
        .net = w.net, .address = "a", .max_message = 4096, .max_peers = 2, .max_queued = 4};
    assert_int_equal(transport_loopback_open(&loopback, &end), MOE_OK);
    source = world_source(&w);
    n_failures = 0;
    gate.gave_up = false;
    gate_set(UINT32_MAX);
    const expert_node_options options = {.id = "a",
                                         .cluster = "test",
                                         .transport = end,
                                         .device = w.device,
                                         .space = test_space(N_LAYERS, N_EXPERTS),
                                         .d_model = 8,
                                         .memory_bytes = room * 100,
                                         .expert_bytes = 100,
                                         .max_rows = 4,
                                         .max_picks = 8,
                                         .max_ffn_rows = 8};
    assert_ok(expert_node_open(&options, &node, &err), err);
    moe_clock_virtual_init(&clock_v, 1000000000);
    const loader_options l = {.source = {NULL, source_of_test}, .device = w.device, .clock = &clock_v.clock};
    assert_ok(loader_open(&l, &its_loader, &err), err);
    assert_int_equal(assignment_open(node, its_loader, "a", test_space(N_LAYERS, N_EXPERTS), &clock_v.clock, &a),
                     MOE_OK);
    assert_int_equal(cluster_memory_open(&clock_v.clock, 1, &memory), MOE_OK);
    member = join(CLUSTER_NODE, "a", 0, on_changed);
    coordinator = join(CLUSTER_COORDINATOR, "c", 1, NULL);
    other = NULL;
    return 0;
}

static int setup(void **state)
{
    (void)state;
    return setup_with(0);
}

static int setup_small(void **state)
{
    (void)state;
    return setup_with(N_ALL / 2);
}

static int teardown(void **state)
{
    (void)state;
    transport_close(its_end);
    exchange_close(its_exchange);
    its_end = NULL;
    its_exchange = NULL;
    gate_set(UINT32_MAX);
    loader_close(its_loader);
    cluster_close(other);
    cluster_close(coordinator);
    cluster_close(member);
    for (size_t i = 0; i < MOE_COUNT(stores); i++) {
        cluster_store_close(stores[i]);
        stores[i] = NULL;
    }
    cluster_memory_close(memory);
    assignment_close(a);
    transport_close(end);
    expert_node_close(node);
    world_close(&w);
    return 0;
}

static size_t n_loaded(void)
{
    expert_node_stats stats;

    expert_node_get_stats(node, &stats);
    return stats.experts;
}

static bool is_loading(void)
{
    assignment_progress p;

    assignment_get_progress(a, &p);
    return p.loading > 0;
}

static void turn_assignment(void)
{
    size_t before = n_loaded();

    (void)assignment_turn(a, member);
    assert_true(n_loaded() <= before + 1);
}

/* Everybody's turns for so long; the loader, which has no part in this clock, is waited for unless it is stuck. */
static void run(unsigned seconds)
{
    for (unsigned i = 0; i < 50 * seconds; i++) {
        moe_clock_virtual_advance(&clock_v, 20000000);
        (void)cluster_step(member);
        (void)cluster_step(coordinator);
        if (other != NULL) {
            (void)cluster_step(other);
        }
        if (its_exchange != NULL) {
            (void)exchange_progress(its_exchange);
        }
        (void)expert_node_progress(node);
        turn_assignment();
        while (is_loading() && !gate.stuck) {
            turn_assignment();
            sched_yield();
        }
    }
}

static uint32_t n_reported(void)
{
    const cluster_state *s = cluster_state_acquire(coordinator);
    const cluster_node *n = cluster_state_node(s, "a");
    uint32_t n_ready = n == NULL ? 0 : n->n_ready;

    cluster_state_release(s);
    return n_ready;
}

static uint64_t epoch(void)
{
    const cluster_state *s = cluster_state_acquire(coordinator);
    uint64_t e = s->epoch;

    cluster_state_release(s);
    return e;
}

static void what_the_placement_gives_is_loaded_and_reported(void **state)
{
    assignment_progress p;

    (void)state;
    run(10);
    assignment_get_progress(a, &p);
    assert_int_equal(n_loaded(), N_ALL);
    assert_int_equal(n_reported(), N_ALL);
    assert_true(p.complete);
    assert_int_equal(p.wanted, N_ALL);
    assert_int_equal(p.epoch, epoch());
}

static void an_expert_is_dropped_when_every_coordinator_applies_a_placement_without_it(void **state)
{
    (void)state;
    run(10);
    cluster_set_applied(coordinator, epoch());
    other = join(CLUSTER_NODE, "b", 2, NULL);
    run(10);
    assert_int_equal(n_loaded(), N_ALL);
    cluster_set_applied(coordinator, epoch());
    run(10);
    assert_int_equal(n_loaded(), N_ALL / 2);
    assert_int_equal(n_reported(), N_ALL / 2);
}

static void connect_one(const char *id, uint64_t incarnation)
{
    const transport_loopback_options loopback = {
        .net = w.net, .address = "lost", .max_message = 4096, .max_peers = 2, .max_queued = 4};
    moe_error err;

    assert_int_equal(transport_loopback_open(&loopback, &its_end), MOE_OK);
    const exchange_options o = {.transport = its_end,
                                .device = w.device,
                                .clock = &clock_v.clock,
                                .space = test_space(N_LAYERS, N_EXPERTS),
                                .k = 2,
                                .d_model = 8,
                                .max_rows = 4,
                                .micro_batches = 1,
                                .dispatch_timeout_ns = 1000000000,
                                .id = id,
                                .incarnation = incarnation,
                                .cluster = "test"};
    assert_ok(exchange_open(&o, &its_exchange, &err), err);
    assert_ok(exchange_add_node(its_exchange, "a", "a", 0, &err), err);
    run(1);
    assert_true(exchange_node_ready(its_exchange, "a"));
}

/* It may have lost the store for longer than its lease. */
static void connect_one_that_is_not_registered(void)
{
    connect_one("lost", 99);
}

static void an_expert_is_kept_while_a_connected_coordinator_uses_it_whatever_the_store_says(void **state)
{
    (void)state;
    run(10);
    connect_one_that_is_not_registered();
    exchange_set_applied(its_exchange, epoch());
    cluster_set_applied(coordinator, epoch());
    other = join(CLUSTER_NODE, "b", 2, NULL);
    run(10);
    cluster_set_applied(coordinator, epoch());
    run(30);
    assert_int_equal(n_loaded(), N_ALL);
    exchange_set_applied(its_exchange, epoch());
    run(10);
    assert_int_equal(n_loaded(), N_ALL / 2);
    assert_int_equal(n_reported(), N_ALL / 2);
}

static void a_connected_coordinator_that_has_told_nothing_yet_may_use_everything(void **state)
{
    (void)state;
    run(10);
    connect_one_that_is_not_registered();
    other = join(CLUSTER_NODE, "b", 2, NULL);
    run(10);
    cluster_set_applied(coordinator, epoch());
    run(10);
    assert_int_equal(n_loaded(), N_ALL);
    exchange_remove_node(its_exchange, "a");
    run(10);
    assert_int_equal(n_loaded(), N_ALL / 2);
}

/* Which experts it has settled in an epoch that it does not apply yet, only the store can tell. */
static void a_coordinator_that_is_registered_and_connected_speaks_in_the_store(void **state)
{
    (void)state;
    run(10);
    connect_one("c", 8); /* as in the store */
    other = join(CLUSTER_NODE, "b", 2, NULL);
    run(10);
    assert_int_equal(n_loaded(), N_ALL);
    cluster_set_applied(coordinator, epoch());
    run(10);
    assert_int_equal(n_loaded(), N_ALL / 2);
}

/* A key under somebody's lease, by which nobody ever connects and nothing is ever applied. */
static void who_is_registered_alone_is_not_waited_for_without_an_end(void **state)
{
    assignment_progress p;

    (void)state;
    run(10);
    other = join(CLUSTER_NODE, "b", 2, NULL);
    run(25);
    assert_int_equal(n_loaded(), N_ALL);
    run(20);
    assignment_get_progress(a, &p);
    assert_int_equal(n_loaded(), N_ALL / 2);
    assert_int_equal(p.epoch_registered, epoch());
}

static void who_is_connected_is_waited_for(void **state)
{
    (void)state;
    run(10);
    connect_one("c", 8); /* as in the store */
    other = join(CLUSTER_NODE, "b", 2, NULL);
    run(60);
    assert_int_equal(n_loaded(), N_ALL);
    cluster_set_applied(coordinator, epoch());
    run(10);
    assert_int_equal(n_loaded(), N_ALL / 2);
}

/* A process of that name which is not the registered one has lost its name, and may use everything. */
static void another_process_of_a_registered_name_speaks_for_itself(void **state)
{
    (void)state;
    run(10);
    connect_one("c", 7);
    other = join(CLUSTER_NODE, "b", 2, NULL);
    run(10);
    cluster_set_applied(coordinator, epoch());
    run(10);
    assert_int_equal(n_loaded(), N_ALL);
}

static void what_could_not_be_loaded_is_tried_again(void **state)
{
    assignment_progress p;

    (void)state;
    n_failures = 3;
    run(4);
    assignment_get_progress(a, &p);
    assert_int_equal(n_loaded(), N_ALL - 3);
    assert_int_equal(p.missing, 3);
    assert_false(p.complete);
    run(10);
    assert_int_equal(n_loaded(), N_ALL);
    assert_int_equal(n_reported(), N_ALL);
}

/* A placement by hand, of the nodes a and b: per layer the experts of each. */
static void place(unsigned e, const char *of_a_0, const char *of_b_0, const char *of_a_1, const char *of_b_1)
{
    char key[64], value[256];
    const char *of_a[] = {of_a_0, of_a_1}, *of_b[] = {of_b_0, of_b_1};

    for (unsigned l = 0; l < N_LAYERS; l++) {
        (void)snprintf(key, sizeof key, "/conclave/test/placement/%u", l);
        (void)snprintf(value, sizeof value,
                       "{\"v\":1,\"epoch\":%u,\"owners\":[{\"experts\":\"%s\",\"nodes\":[0]},"
                       "{\"experts\":\"%s\",\"nodes\":[1]}]}",
                       e, of_a[l], of_b[l]);
        cluster_memory_put(memory, key, value);
    }
    (void)snprintf(value, sizeof value,
                   "{\"v\":1,\"epoch\":%u,\"replication\":2,\"n_layers\":%d,\"nodes\":[\"a\",\"b\"]}", e, N_LAYERS);
    cluster_memory_put(memory, "/conclave/test/placement", value);
}

/* A bitmap of the experts of both layers. */
static uint64_t bits_of(uint64_t layer_0, uint64_t layer_1)
{
    return layer_0 | layer_1 << N_EXPERTS;
}

/* What b has and what the coordinator then says of the epoch. */
static void b_reports(uint64_t layer_0, uint64_t layer_1, uint64_t settled_0, uint64_t settled_1)
{
    const uint64_t settled = bits_of(settled_0, settled_1);

    last = bits_of(layer_0, layer_1);
    cluster_set_ready(other, NULL, &last, 0);
    cluster_set_settled(coordinator, NULL, epoch(), &settled);
    run(2);
}

static uint64_t held(uint32_t layer)
{
    uint64_t bits = 0;

    for (int32_t e = 0; e < N_EXPERTS; e++) {
        bits |= (uint64_t)expert_node_holds(node, layer, e) << e;
    }
    return bits;
}

/* Both nodes are full, and each is to have what the other has: neither can load all of it before it has dropped. */
static void a_full_node_drops_what_is_settled_and_then_loads(void **state)
{
    (void)state;
    other = join(CLUSTER_NODE, "b", 2, NULL);
    run(3);
    place(50, "0-3", "", "", "0-3");
    run(3);
    assert_int_equal(epoch(), 50);
    b_reports(0, 0xf, 0, 0);
    cluster_set_applied(coordinator, 50);
    run(3);
    assert_int_equal(held(0), 0xf);
    assert_int_equal(held(1), 0);
    place(51, "0-1", "2-3", "0-1", "2-3");
    b_reports(0, 0xf, 0x3, 0xc); /* b is full, too: it has dropped nothing yet */
    assert_int_equal(epoch(), 51);
    assert_int_equal(held(0), 0xf);
    assert_int_equal(held(1), 0);
    b_reports(0x4, 0xf, 0x7, 0xc); /* it has found room for one */
    assert_int_equal(held(0), 0xb);
    assert_int_equal(held(1), 0x1);
    b_reports(0x4, 0xe, 0x7, 0xd); /* which it drops where a has it now */
    b_reports(0xc, 0xe, 0xf, 0xd);
    assert_int_equal(held(0), 0x3);
    assert_int_equal(held(1), 0x3);
    assert_int_equal(n_reported(), N_ALL / 2);
}

/* What a coordinator says of another epoch means nothing for this one. */
static void what_was_settled_before_is_not_settled_now(void **state)
{
    const uint64_t all = bits_of(0xf, 0xf);

    (void)state;
    other = join(CLUSTER_NODE, "b", 2, NULL);
    run(3);
    place(50, "0-3", "", "", "0-3");
    run(3);
    cluster_set_settled(coordinator, NULL, 50, &all);
    run(3);
    place(51, "", "0-3", "", "0-3");
    run(3);
    assert_int_equal(held(0), 0xf);
    cluster_set_settled(coordinator, NULL, 51, &all);
    run(3);
    assert_int_equal(held(0), 0);
}

/* Steps may wait for what nobody has. */
static void what_nobody_has_is_loaded_first(void **state)
{
    (void)state;
    run(3);
    other = join(CLUSTER_NODE, "b", 2, NULL);
    run(3);
    place(50, "", "0-3", "", "0-3");
    cluster_set_applied(coordinator, 50);
    run(3);
    assert_int_equal(n_loaded(), 0);
    b_reports(0x7, 0xd, 0, 0);
    place(51, "0-3", "0-3", "0-3", "0-3");
    for (unsigned i = 0; (i < 50 || is_loading()) && n_loaded() < 2; i++) {
        moe_clock_virtual_advance(&clock_v, 20000000);
        (void)cluster_step(member);
        turn_assignment();
        sched_yield();
    }
    assert_int_equal(held(0), 0x8);
    assert_int_equal(held(1), 0x2);
}

/* Rows for the expert 0 of layer 0, through the exchange that is in no store. */
static void compute_one_job(void)
{
    enum { ROWS = 3, VALUES = ROWS * 8 };
    const uint32_t rows[ROWS] = {0, 1, 2};
    const compute_group group = {w.experts[0][0], rows, ROWS, 0};
    const int32_t ids[2 * ROWS] = {0, -1, 0, -1, 0, -1};
    compute_mem *x = w.ops.alloc(w.device, VALUES * sizeof(float)),
                *results = w.ops.alloc(w.device, 2 * VALUES * sizeof(float)),
                *direct = w.ops.alloc(w.device, VALUES * sizeof(float));
    float in[VALUES], got[2 * VALUES], expected[VALUES];
    router_placement *placement;
    moe_error err;

    for (size_t i = 0; i < VALUES; i++) {
        in[i] = (float)i / VALUES;
    }
    w.ops.upload(w.device, x, in, sizeof in);
    assert_ok(router_placement_open_single(1, test_space(N_LAYERS, N_EXPERTS), "a", &placement, &err), err);
    exchange_set_placement(its_exchange, placement);
    router_placement_unref(placement);
    const exchange_job job = {.n_rows = ROWS, .ids = ids, .x = x, .results = results};
    assert_int_equal(exchange_begin(its_exchange, &job), MOE_OK);
    for (int turn = 0; turn < 100 && exchange_state(its_exchange, 0) == EXCHANGE_RUNNING; turn++) {
        run(1);
    }
    assert_int_equal(exchange_state(its_exchange, 0), EXCHANGE_DONE);
    w.ops.expert_ffn(w.device, direct, x, &group, 1);
    assert_int_equal(w.ops.download(w.device, got, results, sizeof got), MOE_OK);
    assert_int_equal(w.ops.download(w.device, expected, direct, sizeof expected), MOE_OK);
    for (size_t r = 0; r < ROWS; r++) {
        assert_memory_equal(got + 2 * r * 8, expected + r * 8, 8 * sizeof(float));
    }
    w.ops.free(w.device, x);
    w.ops.free(w.device, results);
    w.ops.free(w.device, direct);
}

static void dispatches_are_answered_while_an_expert_is_being_read(void **state)
{
    (void)state;
    gate_set(2);
    run(10);
    assert_int_equal(n_loaded(), 2);
    assert_true(gate.stuck);
    connect_one_that_is_not_registered();
    compute_one_job();
    assert_true(gate.stuck && !gate.gave_up);
    assert_int_equal(n_loaded(), 2);
    assert_int_equal(n_reported(), 2);
    gate_set(UINT32_MAX);
    while (gate.stuck) {
        sched_yield();
    }
    run(10);
    assert_int_equal(n_loaded(), N_ALL);
    assert_int_equal(n_reported(), N_ALL);
}

static void what_comes_when_it_is_not_wanted_any_more_is_not_kept(void **state)
{
    expert_node_stats stats;

    (void)state;
    gate_set(0);
    run(10);
    other = join(CLUSTER_NODE, "b", 2, NULL);
    run(10);
    assert_true(gate.stuck);
    gate_set(UINT32_MAX);
    while (gate.stuck) {
        sched_yield();
    }
    run(10);
    assert_int_equal(n_loaded(), N_ALL / 2); /* and no coordinator has applied anything */
    assert_int_equal(n_reported(), N_ALL / 2);
    expert_node_get_stats(node, &stats);
    assert_true(stats.loads > N_ALL / 2);
    assert_int_equal(stats.memory_bytes, N_ALL / 2 * 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_the_placement_gives_is_loaded_and_reported, setup, teardown),
        cmocka_unit_test_setup_teardown(an_expert_is_dropped_when_every_coordinator_applies_a_placement_without_it,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(an_expert_is_kept_while_a_connected_coordinator_uses_it_whatever_the_store_says,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(a_connected_coordinator_that_has_told_nothing_yet_may_use_everything, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_coordinator_that_is_registered_and_connected_speaks_in_the_store, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(who_is_registered_alone_is_not_waited_for_without_an_end, setup, teardown),
        cmocka_unit_test_setup_teardown(who_is_connected_is_waited_for, setup, teardown),
        cmocka_unit_test_setup_teardown(another_process_of_a_registered_name_speaks_for_itself, setup, teardown),
        cmocka_unit_test_setup_teardown(dispatches_are_answered_while_an_expert_is_being_read, setup, teardown),
        cmocka_unit_test_setup_teardown(what_comes_when_it_is_not_wanted_any_more_is_not_kept, setup, teardown),
        cmocka_unit_test_setup_teardown(what_could_not_be_loaded_is_tried_again, setup, teardown),
        cmocka_unit_test_setup_teardown(a_full_node_drops_what_is_settled_and_then_loads, setup_small, teardown),
        cmocka_unit_test_setup_teardown(what_was_settled_before_is_not_settled_now, setup, teardown),
        cmocka_unit_test_setup_teardown(what_nobody_has_is_loaded_first, setup, teardown),
    };

    moe_log_set_level(MOE_LOG_WARN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
