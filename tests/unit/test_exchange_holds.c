/* What a node tells of its experts and what the exchange knows are the same, whatever was loaded and dropped, in a model of
 * far more experts than one frame tells of. */
#include "tests/sim/world.h"

enum { N_LAYERS = 40, N_EXPERTS = 130, ROUNDS = 300 }; /* 200 blocks: seven frames */

static world w;
static router_space *space; /* with ids far above the others */
static transport *node_end, *coordinator_end;
static expert_node *node;
static exchange *x;
static moe_random r;

static void open_space(void)
{
    router_addition added[2 * N_LAYERS] = {0};
    router_space *base;
    moe_error err;

    for (uint32_t l = 0; l < N_LAYERS; l++) {
        added[2 * l] = (router_addition){.layer = l, .id = 1000000 + (int32_t)(64 * l), .hash = {1}};
        added[2 * l + 1] = (router_addition){.layer = l, .id = INT32_MAX - (int32_t)l, .hash = {2}};
    }
    assert_ok(router_space_open_base(N_LAYERS, N_EXPERTS, 0, &base, &err), err);
    assert_ok(router_space_grow(base, added, MOE_COUNT(added), &space, &err), err);
    router_space_unref(base);
}

static moe_status open_any(void *ctx, uint32_t layer, int32_t expert_id, compute_expert **out, moe_error *err)
{
    const expert_source of_world = world_source(ctx);

    return of_world.open(of_world.ctx, layer % w.o.n_layers, expert_id % (int32_t)w.o.n_experts, out, err);
}

static transport *endpoint(const char *address)
{
    const transport_loopback_options o = {
        .net = w.net, .address = address, .max_message = 1 << 16, .max_peers = 2, .max_queued = 16};
    transport *t;

    assert_int_equal(transport_loopback_open(&o, &t), MOE_OK);
    return t;
}

static void open_node(uint64_t incarnation)
{
    moe_error err;

    node_end = endpoint("large");
    const expert_node_options o = {.id = "large",
                                   .cluster = "sim",
                                   .incarnation = incarnation,
                                   .transport = node_end,
                                   .device = w.device,
                                   .source = {&w, open_any},
                                   .space = space,
                                   .d_model = w.o.d_model,
                                   .max_rows = 4,
                                   .max_picks = 8,
                                   .max_ffn_rows = 8,
                                   .clock = &w.clock.clock};
    assert_ok(expert_node_open(&o, &node, &err), err);
}

static void close_node(void)
{
    transport_close(node_end);
    expert_node_close(node);
}

static void open_exchange(void)
{
    moe_error err;

    coordinator_end = endpoint("asking");
    const exchange_options e = {.transport = coordinator_end,
                                .device = w.device,
                                .clock = &w.clock.clock,
                                .space = space,
                                .k = 2,
                                .d_model = w.o.d_model,
                                .max_rows = 4,
                                .micro_batches = 1,
                                .dispatch_timeout_ns = UINT64_C(100000000),
                                .heartbeat_ns = UINT64_C(10000000),
                                .id = "asking",
                                .cluster = "sim",
                                .incarnation = 1};
    assert_ok(exchange_open(&e, &x, &err), err);
}

static int setup(void **state)
{
    const world_options o = {
        .n_layers = 1, .n_experts = 4, .k = 2, .d_model = 8, .d_ff = 4, .max_rows = 4, .n_nodes = 1, .replication = 1};
    moe_error err;

    (void)state;
    open_space();
    world_open(&w, &o);
    moe_random_seed(&r, 4);
    open_exchange();
    open_node(7);
    assert_ok(exchange_add_node(x, "large", "large", 0, &err), err);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    transport_close(coordinator_end);
    exchange_close(x);
    close_node();
    router_space_unref(space);
    world_close(&w);
    return 0;
}

static void turn(int n)
{
    for (int i = 0; i < n; i++) {
        (void)exchange_progress(x);
        (void)expert_node_progress(node);
        moe_clock_virtual_advance(&w.clock, 1000000);
    }
}

static void change_one(void)
{
    const router_expert *e = router_space_expert(space, (uint32_t)moe_random_below(&r, router_space_n_slots(space)));
    moe_error err;

    if (expert_node_holds(node, e->layer, e->id)) {
        expert_node_drop(node, e->layer, e->id);
    } else {
        assert_ok(expert_node_load(node, e->layer, e->id, &err), err);
    }
}

static void assert_known(void)
{
    const uint64_t *bits = exchange_node_holds(x, "large");

    assert_non_null(bits);
    for (uint32_t slot = 0; slot < router_space_n_slots(space); slot++) {
        const router_expert *e = router_space_expert(space, slot);

        assert_int_equal(router_bit(bits, slot), expert_node_holds(node, e->layer, e->id));
    }
}

static void what_is_known_is_what_is_held(void **state)
{
    (void)state;
    assert_null(exchange_node_holds(x, "large")); /* not met yet */
    turn(20);
    assert_known();
    for (int i = 0; i < ROUNDS; i++) {
        for (uint64_t n = moe_random_below(&r, 40); n > 0; n--) {
            change_one();
        }
        turn(1 + (int)moe_random_below(&r, 3));
        if (i % 50 == 49) {
            turn(40);
            assert_known();
        }
    }
}

static void a_node_that_is_started_anew_is_believed_anew(void **state)
{
    (void)state;
    for (int i = 0; i < 500; i++) {
        change_one();
    }
    turn(40);
    assert_known();
    close_node();
    (void)exchange_progress(x);
    assert_null(exchange_node_holds(x, "large"));
    open_node(8);
    change_one();
    turn(200);
    assert_known();
}

static void a_change_is_shown_and_none_is_not(void **state)
{
    (void)state;
    turn(100);
    (void)exchange_holds_changed(x);
    turn(100);
    assert_false(exchange_holds_changed(x));
    change_one();
    turn(100);
    assert_true(exchange_holds_changed(x));
    assert_false(exchange_holds_changed(x));
    change_one();
    turn(5);
    assert_false(exchange_holds_changed(x)); /* so soon after the last one it waits */
    turn(100);
    assert_true(exchange_holds_changed(x));
}

/* ------------------------------------------------------------------------------------------------ growing */
/* A base without the ids far above, and its next version: in every other layer an expert more, in the last block that there
 * is or in a new one. */
static router_space *open_later(void)
{
    router_addition added[N_LAYERS / 2] = {0};
    router_space *later;
    moe_error err;

    router_space_unref(space);
    assert_ok(router_space_open_base(N_LAYERS, N_EXPERTS, 0, &space, &err), err);
    for (uint32_t i = 0; i < N_LAYERS / 2; i++) {
        added[i] = (router_addition){.layer = 2 * i + 1, .id = N_EXPERTS + (int32_t)(i % 3 * 64), .hash = {9}};
    }
    assert_ok(router_space_grow(space, added, MOE_COUNT(added), &later, &err), err);
    return later;
}

static void change_many(void)
{
    for (int i = 0; i < 3000; i++) {
        change_one();
    }
    turn(100);
    assert_known();
}

static void open_anew(void)
{
    moe_error err;

    transport_close(coordinator_end);
    exchange_close(x);
    close_node();
    open_exchange();
    open_node(9);
    assert_ok(exchange_add_node(x, "large", "large", 0, &err), err);
    change_many();
}

static void grow_node(router_space *later)
{
    expert_node_growth *g;
    moe_error err;

    assert_ok(expert_node_growth_open(node, later, &g, &err), err);
    expert_node_grow(node, g);
    expert_node_growth_close(g);
}

static void grow_exchange(router_space *later)
{
    exchange_growth *g;
    moe_error err;

    assert_ok(exchange_growth_open(x, later, &g, &err), err);
    exchange_grow(x, g);
    exchange_growth_close(g);
}

static void become(router_space *later)
{
    router_space_unref(space);
    space = later;
    turn(100);
    assert_known();
    change_many();
}

static void load_added(const router_space *later)
{
    moe_error err;

    for (uint32_t slot = router_space_n_slots(space); slot < router_space_n_slots(later); slot++) {
        const router_expert *e = router_space_expert(later, slot);
        assert_ok(expert_node_load(node, e->layer, e->id, &err), err);
    }
}

/* The node is ahead: what it tells of is passed over, and asked for once it counts. */
static void what_was_passed_over_is_known_after_growth(void **state)
{
    router_space *later = open_later();

    (void)state;
    open_anew();
    grow_node(later);
    load_added(later);
    turn(100);
    assert_true(exchange_node_ready(x, "large"));
    assert_known(); /* of the experts that it has */
    grow_exchange(later);
    assert_non_null(exchange_node_holds(x, "large")); /* what was told goes on to count */
    become(later);
}

/* The coordinator is ahead: the node holds none of them, until it has grown too. */
static void a_node_of_an_earlier_space_is_understood(void **state)
{
    router_space *later = open_later();
    moe_error err;

    (void)state;
    open_anew();
    grow_exchange(later);
    turn(100);
    assert_true(exchange_node_ready(x, "large"));
    const uint64_t *bits = exchange_node_holds(x, "large");
    assert_non_null(bits);
    for (uint32_t slot = router_space_n_slots(space); slot < router_space_n_slots(later); slot++) {
        const router_expert *e = router_space_expert(later, slot);
        assert_false(router_bit(bits, slot));
        assert_int_equal(expert_node_load(node, e->layer, e->id, &err), MOE_ERR_INVALID_ARG);
    }
    assert_known();
    grow_node(later);
    load_added(later);
    become(later);
}

static void a_space_of_other_experts_is_no_growth(void **state)
{
    router_space *later = open_later(), *other;
    expert_node_growth *g;
    moe_error err;

    (void)state;
    open_anew();
    assert_ok(router_space_open_base(N_LAYERS, N_EXPERTS + 1, 0, &other, &err), err);
    assert_int_equal(expert_node_growth_open(node, other, &g, &err), MOE_ERR_INVALID_ARG);
    assert_contains(err.text, "no later version");
    router_space_unref(other);
    router_space_unref(later);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_is_known_is_what_is_held, setup, teardown),
        cmocka_unit_test_setup_teardown(a_node_that_is_started_anew_is_believed_anew, setup, teardown),
        cmocka_unit_test_setup_teardown(a_change_is_shown_and_none_is_not, setup, teardown),
        cmocka_unit_test_setup_teardown(what_was_passed_over_is_known_after_growth, setup, teardown),
        cmocka_unit_test_setup_teardown(a_node_of_an_earlier_space_is_understood, setup, teardown),
        cmocka_unit_test_setup_teardown(a_space_of_other_experts_is_no_growth, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
