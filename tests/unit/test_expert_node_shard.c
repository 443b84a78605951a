#include "tests/sim/world.h"

static world w;
static transport *end;
static expert_node *node;

static int setup(void **state)
{
    const world_options o = {
        .n_layers = 2, .n_experts = 4, .k = 2, .d_model = 8, .d_ff = 4, .max_rows = 4, .n_nodes = 1};
    moe_error err;

    (void)state;
    world_open(&w, &o);
    const transport_loopback_options loopback = {
        .net = w.net, .address = "shard", .max_message = 4096, .max_peers = 2, .max_queued = 4};
    assert_int_equal(transport_loopback_open(&loopback, &end), MOE_OK);
    const expert_node_options options = {.id = "shard",
                                         .cluster = "test",
                                         .transport = end,
                                         .device = w.device,
                                         .source = world_source(&w),
                                         .space = test_space(2, 4),
                                         .d_model = 8,
                                         .memory_bytes = 250,
                                         .expert_bytes = 100,
                                         .max_rows = 4,
                                         .max_picks = 8,
                                         .max_ffn_rows = 8};
    assert_ok(expert_node_open(&options, &node, &err), err);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    transport_close(end);
    expert_node_close(node);
    world_close(&w);
    return 0;
}

static void a_loaded_expert_is_held_and_counted(void **state)
{
    expert_node_stats stats;
    moe_error err;

    (void)state;
    assert_ok(expert_node_load(node, 1, 3, &err), err);
    assert_true(expert_node_holds(node, 1, 3));
    assert_false(expert_node_holds(node, 0, 3));
    expert_node_get_stats(node, &stats);
    assert_int_equal(stats.experts, 1);
    assert_int_equal(stats.memory_bytes, 100);
}

static void an_expert_is_loaded_once(void **state)
{
    moe_error err;

    (void)state;
    assert_ok(expert_node_load(node, 1, 3, &err), err);
    assert_int_equal(expert_node_load(node, 1, 3, &err), MOE_ERR_EXISTS);
}

static void what_does_not_fit_the_memory_is_refused_until_something_is_dropped(void **state)
{
    moe_error err = {""};

    (void)state;
    assert_ok(expert_node_load(node, 0, 0, &err), err);
    assert_ok(expert_node_load(node, 0, 1, &err), err);
    assert_int_equal(expert_node_load(node, 0, 2, &err), MOE_ERR_BUSY);
    assert_contains(err.text, "200 of 250");
    expert_node_drop(node, 0, 0);
    assert_ok(expert_node_load(node, 0, 2, &err), err);
}

static void what_is_under_way_takes_its_memory(void **state)
{
    compute_expert *expert = NULL;
    const expert_source source = world_source(&w);
    expert_node_stats stats;
    moe_error err = {""};

    (void)state;
    assert_ok(expert_node_load_begin(node, 0, 0, &err), err);
    assert_ok(expert_node_load_begin(node, 0, 1, &err), err);
    assert_int_equal(expert_node_load_begin(node, 0, 1, &err), MOE_ERR_EXISTS);
    assert_contains(err.text, "is being loaded already");
    assert_int_equal(expert_node_load_begin(node, 0, 2, &err), MOE_ERR_BUSY);
    assert_false(expert_node_holds(node, 0, 0));
    expert_node_load_abandon(node, 0, 0);
    assert_ok(expert_node_load_begin(node, 0, 2, &err), err);
    assert_ok(source.open(source.ctx, 0, 1, &expert, &err), err);
    assert_ok(expert_node_load_finish(node, 0, 1, expert, &err), err);
    assert_true(expert_node_holds(node, 0, 1));
    expert_node_get_stats(node, &stats);
    assert_int_equal(stats.experts, 1);
    assert_int_equal(stats.memory_bytes, 200);
    assert_int_equal(stats.load_failures, 1);
}

static void ids_out_of_range_are_refused(void **state)
{
    moe_error err = {""};

    (void)state;
    assert_int_equal(expert_node_load(node, 2, 0, &err), MOE_ERR_INVALID_ARG);
    assert_int_equal(expert_node_load(node, 0, 4, &err), MOE_ERR_INVALID_ARG);
    assert_int_equal(expert_node_load(node, 0, -1, &err), MOE_ERR_INVALID_ARG);
    assert_false(expert_node_holds(node, 9, 9));
}

static void dropping_what_is_not_held_does_nothing(void **state)
{
    expert_node_stats stats;

    (void)state;
    expert_node_drop(node, 0, 0);
    expert_node_drop(node, 99, -1);
    expert_node_get_stats(node, &stats);
    assert_int_equal(stats.experts, 0);
}

static moe_status no_source(void *ctx, uint32_t layer, int32_t expert_id, compute_expert **out, moe_error *err)
{
    (void)ctx;
    (void)out;
    return moe_fail(err, MOE_ERR_CORRUPT, "layer %u expert %d: bad tensor", layer, expert_id);
}

static void an_expert_that_cannot_be_read_is_not_held(void **state)
{
    const transport_loopback_options loopback = {
        .net = w.net, .address = "other", .max_message = 4096, .max_peers = 2, .max_queued = 4};
    transport *t;
    expert_node *other = NULL;
    moe_error err = {""};

    (void)state;
    assert_int_equal(transport_loopback_open(&loopback, &t), MOE_OK);
    const expert_node_options options = {.id = "other",
                                         .cluster = "test",
                                         .transport = t,
                                         .device = w.device,
                                         .source = {NULL, no_source},
                                         .space = test_space(1, 4),
                                         .d_model = 8,
                                         .max_rows = 4,
                                         .max_picks = 8,
                                         .max_ffn_rows = 8};
    assert_ok(expert_node_open(&options, &other, &err), err);
    assert_int_equal(expert_node_load(other, 0, 2, &err), MOE_ERR_CORRUPT);
    assert_contains(err.text, "bad tensor");
    assert_false(expert_node_holds(other, 0, 2));
    transport_close(t);
    expert_node_close(other);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_loaded_expert_is_held_and_counted),
        TEST(an_expert_is_loaded_once),
        TEST(what_does_not_fit_the_memory_is_refused_until_something_is_dropped),
        TEST(what_is_under_way_takes_its_memory),
        TEST(ids_out_of_range_are_refused),
        TEST(dropping_what_is_not_held_does_nothing),
        TEST(an_expert_that_cannot_be_read_is_not_held),
    };

    moe_log_set_level(MOE_LOG_ERROR);
    compute_thread_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
