#include "expert_node/program/alive.h"
#include "tests/sim/world.h"

static world w;
static const wire_key no_key;

/* The node has no thread of its own here: the one that asks turns it. */
static unsigned turn_node(void *ctx)
{
    (void)ctx;
    return expert_node_progress(w.nodes[0].node);
}

static transport *open_asking(bool turning)
{
    const transport_loopback_options o = {
        .net = w.net, .address = "asking", .max_message = 4096, .max_peers = 2, .max_queued = 4};
    transport *t;

    assert_int_equal(transport_loopback_open(&o, &t), MOE_OK);
    transport_loopback_set_member_poll(t, turning ? turn_node : NULL, NULL);
    return t;
}

static wire_hello coordinators_hello(void)
{
    wire_hello h = {.role = WIRE_COORDINATOR,
                    .member = "asking",
                    .cluster = "sim",
                    .incarnation = 1,
                    .d_model = 8,
                    .max_message = 4096,
                    .max_rows = 1,
                    .max_picks = 2};

    (void)snprintf(h.numeric_class, sizeof h.numeric_class, "%s", compute_class_name(w.device->numeric_class));
    return h;
}

static int setup(void **state)
{
    const world_options o = {
        .n_layers = 2, .n_experts = 4, .k = 2, .d_model = 8, .d_ff = 4, .max_rows = 4, .n_nodes = 1, .replication = 1};

    (void)state;
    world_open(&w, &o);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    world_close(&w);
    return 0;
}

static void the_incarnation_that_answers_is_alive(void **state)
{
    const wire_hello hello = coordinators_hello();

    (void)state;
    assert_int_equal(alive_node(open_asking(true), &hello, &no_key, w.nodes[0].id, w.nodes[0].incarnation),
                     CLUSTER_ALIVE_YES);
}

static void another_incarnation_at_the_address_is_not_the_one(void **state)
{
    const wire_hello hello = coordinators_hello();

    (void)state;
    assert_int_equal(alive_node(open_asking(true), &hello, &no_key, w.nodes[0].id, w.nodes[0].incarnation + 1),
                     CLUSTER_ALIVE_NO);
}

static void a_member_of_another_cluster_at_the_address_is_not_the_one(void **state)
{
    wire_hello hello = coordinators_hello();

    (void)state;
    (void)snprintf(hello.cluster, sizeof hello.cluster, "elsewhere");
    assert_int_equal(alive_node(open_asking(true), &hello, &no_key, w.nodes[0].id, w.nodes[0].incarnation),
                     CLUSTER_ALIVE_NO);
}

static void where_nobody_is_nobody_is_alive(void **state)
{
    const wire_hello hello = coordinators_hello();

    (void)state;
    assert_int_equal(alive_node(open_asking(true), &hello, &no_key, "nowhere", 1), CLUSTER_ALIVE_NO);
}

static void who_is_silent_is_not_alive(void **state)
{
    const wire_hello hello = coordinators_hello();

    (void)state;
    assert_int_equal(alive_node(open_asking(false), &hello, &no_key, w.nodes[0].id, w.nodes[0].incarnation),
                     CLUSTER_ALIVE_NO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_incarnation_that_answers_is_alive, setup, teardown),
        cmocka_unit_test_setup_teardown(another_incarnation_at_the_address_is_not_the_one, setup, teardown),
        cmocka_unit_test_setup_teardown(a_member_of_another_cluster_at_the_address_is_not_the_one, setup, teardown),
        cmocka_unit_test_setup_teardown(where_nobody_is_nobody_is_alive, setup, teardown),
        cmocka_unit_test_setup_teardown(who_is_silent_is_not_alive, setup, teardown),
    };

    moe_log_set_level(MOE_LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
