/* Coverage: whether every expert has a live owner, and since when. On a virtual clock. */
#include "tests/sim/world.h"

#define MS UINT64_C(1000000)

static world w;

static void open_settled(uint32_t n_nodes, uint32_t replication)
{
    const world_options o = {.numeric_class = COMPUTE_CLASS_F32_1,
                             .n_layers = 2,
                             .n_experts = WORLD_MAX_EXPERTS, /* as many as the exchange is told of */
                             .k = 3,
                             .d_model = 20,
                             .d_ff = 12,
                             .max_rows = 24,
                             .n_nodes = n_nodes,
                             .n_coordinators = 1,
                             .micro_batches = 1,
                             .replication = replication,
                             .seed = 77,
                             .dispatch_timeout_ns = 5 * MS};

    world_open(&w, &o);
    world_settle(&w);
    world_turn(&w, MS);
}

static exchange_coverage coverage(void)
{
    exchange_coverage c;

    exchange_get_coverage(w.coordinators[0].x, &c);
    return c;
}

/* Turns, a millisecond each, until coverage is so. */
static void turn_until(bool whole)
{
    for (int i = 0; i < 1000 && coverage().whole != whole; i++) {
        world_turn(&w, MS);
    }
    assert_int_equal(coverage().whole, whole);
}

static void turn_for(uint64_t ns)
{
    for (uint64_t end = w.clock.time_ns + ns; w.clock.time_ns < end;) {
        world_turn(&w, MS);
    }
}

static void all_nodes_there_cover_every_expert(void **state)
{
    (void)state;
    open_settled(2, 1);
    assert_true(coverage().placed && coverage().whole);
    assert_int_equal(coverage().n_missing, 0);
    assert_int_equal(coverage().n_gaps, 0);
    world_close(&w);
}

static void before_a_placement_nothing_is_covered(void **state)
{
    moe_error err;

    (void)state;
    open_settled(1, 1);
    exchange_coverage c = {.placed = false};
    assert_int_equal(exchange_coverage_check(&c, &err), MOE_ERR_UNAVAILABLE);
    assert_contains(err.text, "no expert has been placed");
    world_close(&w);
}

static void a_dead_node_leaves_its_experts_without_owner(void **state)
{
    moe_error err;
    exchange_coverage c;
    size_t held = 0;

    (void)state;
    open_settled(2, 1);
    for (uint32_t l = 0; l < 2; l++) {
        for (uint32_t e = 0; e < WORLD_MAX_EXPERTS; e++) {
            held += w.nodes[0].holds[l][e];
        }
    }
    world_node_kill(&w, 0);
    turn_until(false);
    c = coverage();
    assert_int_equal(c.n_missing, held);
    for (size_t i = 0; i < MOE_MIN(held, EXCHANGE_NAMED); i++) {
        assert_true(w.nodes[0].holds[c.missing[i].layer][c.missing[i].id]);
    }
    assert_int_equal(exchange_coverage_check(&c, &err), MOE_ERR_UNAVAILABLE);
    assert_contains(err.text, "experts have no live owner: layer 0 expert");
    assert_contains(err.text, "more");
    world_close(&w);
}

static void a_replica_keeps_it_whole(void **state)
{
    (void)state;
    open_settled(2, 2);
    world_node_kill(&w, 0);
    turn_for(50 * MS);
    assert_true(coverage().whole);
    assert_int_equal(coverage().n_gaps, 0);
    world_close(&w);
}

static void a_short_gap_is_not_counted_and_a_long_one_is(void **state)
{
    (void)state;
    open_settled(1, 1);
    world_node_kill(&w, 0);
    turn_until(false);
    world_node_start(&w, 0);
    turn_until(true);
    assert_int_equal(coverage().n_gaps, 0);

    world_node_kill(&w, 0);
    turn_until(false);
    uint64_t since = coverage().since_ns;
    turn_for(EXCHANGE_GAP_NS);
    assert_int_equal(coverage().since_ns, since);
    assert_int_equal(coverage().n_gaps, 0); /* not over */
    world_node_start(&w, 0);
    turn_until(true);
    assert_int_equal(coverage().n_gaps, 1);
    assert_true(coverage().since_ns > since);
    world_close(&w);
}

static void a_draining_node_is_no_owner(void **state)
{
    (void)state;
    open_settled(1, 1);
    expert_node_drain(w.nodes[0].node);
    turn_until(false);
    assert_int_equal(coverage().n_missing, 2 * WORLD_MAX_EXPERTS);
    world_close(&w);
}

static void a_placement_without_an_expert_is_noticed(void **state)
{
    const char *const ids[] = {w.nodes[0].id};
    router_placement *empty;
    moe_error err;

    (void)state;
    open_settled(1, 1);
    assert_ok(router_placement_open(2, router_placement_space(w.placement), ids, 1, NULL, 0, &empty, &err), err);
    exchange_set_placement(w.coordinators[0].x, empty);
    router_placement_unref(empty);
    turn_until(false);
    assert_int_equal(coverage().n_missing, 2 * WORLD_MAX_EXPERTS);
    exchange_set_placement(w.coordinators[0].x, w.placement);
    turn_until(true);
    world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_nodes_there_cover_every_expert),
        cmocka_unit_test(before_a_placement_nothing_is_covered),
        cmocka_unit_test(a_dead_node_leaves_its_experts_without_owner),
        cmocka_unit_test(a_replica_keeps_it_whole),
        cmocka_unit_test(a_short_gap_is_not_counted_and_a_long_one_is),
        cmocka_unit_test(a_draining_node_is_no_owner),
        cmocka_unit_test(a_placement_without_an_expert_is_noticed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
