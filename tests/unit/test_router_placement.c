#include "tests/support/space.h"
#include "tests/support/support.h"

#include "router/router.h"

static const char *const three[] = {"node-a", "node-b", "node-c"};

static void replicas_come_back_ascending(void **state)
{
    const router_replica replicas[] = {
        {1, 5, 2, false}, {0, 5, 1, false}, {1, 5, 0, false}, {1, 5, 1, false}, {0, 0, 2, false}};
    router_placement *p = NULL;
    size_t n;
    moe_error err;

    (void)state;
    assert_ok(router_placement_open(9, test_space(2, 8), three, 3, replicas, 5, &p, &err), err);
    const uint32_t *nodes = router_placement_replicas(p, 1, 5, &n);
    assert_int_equal(n, 3);
    assert_int_equal(nodes[0], 0);
    assert_int_equal(nodes[1], 1);
    assert_int_equal(nodes[2], 2);
    assert_int_equal(router_placement_replicas(p, 0, 5, &n)[0], 1);
    assert_int_equal(n, 1);
    router_placement_unref(p);
}

static void spare_replicas_come_last(void **state)
{
    const router_replica replicas[] = {{1, 5, 2, false}, {1, 5, 0, true}, {1, 5, 1, false}, {0, 3, 1, true}};
    router_placement *p = NULL;
    size_t n;
    moe_error err;

    (void)state;
    assert_ok(router_placement_open(9, test_space(2, 8), three, 3, replicas, 4, &p, &err), err);
    const uint32_t *nodes = router_placement_replicas(p, 1, 5, &n);
    assert_int_equal(n, 3);
    assert_int_equal(nodes[0], 1);
    assert_int_equal(nodes[1], 2);
    assert_int_equal(nodes[2], 0);
    assert_int_equal(router_placement_n_preferred(p, 13), 2);
    assert_int_equal(router_placement_n_preferred(p, 3), 0);
    router_placement_unref(p);
}

static void an_expert_without_replicas_has_none(void **state)
{
    router_placement *p = NULL;
    size_t n = 7;
    moe_error err;

    (void)state;
    assert_ok(router_placement_open(1, test_space(2, 8), three, 3, NULL, 0, &p, &err), err);
    router_placement_replicas(p, 1, 7, &n);
    assert_int_equal(n, 0);
    router_placement_unref(p);
}

static void single_holds_everything_on_one_node(void **state)
{
    router_placement *p = NULL;
    size_t n;
    moe_error err;

    (void)state;
    assert_ok(router_placement_open_single(4, test_space(3, 5), "local", &p, &err), err);
    assert_int_equal(router_placement_epoch(p), 4);
    assert_int_equal(router_placement_n_nodes(p), 1);
    assert_string_equal(router_placement_node_id(p, 0), "local");
    for (uint32_t l = 0; l < 3; l++) {
        for (int32_t e = 0; e < 5; e++) {
            assert_int_equal(router_placement_replicas(p, l, e, &n)[0], 0);
            assert_int_equal(n, 1);
        }
    }
    router_placement_unref(p);
}

static void refuses(const char *const *nodes, size_t n_nodes, const router_replica *replicas, size_t n, const char *why)
{
    router_placement *p = NULL;
    moe_error err = {""};

    assert_int_equal(router_placement_open(1, test_space(2, 8), nodes, n_nodes, replicas, n, &p, &err),
                     MOE_ERR_INVALID_ARG);
    assert_null(p);
    assert_contains(err.text, why);
}

static void a_replica_given_twice_is_refused(void **state)
{
    router_replica replicas[] = {{1, 5, 2, false}, {1, 5, 0, false}, {1, 5, 2, false}};

    (void)state;
    refuses(three, 3, replicas, 3, "layer 1 expert 5 is on node node-c twice");
    replicas[2].spare = true;
    refuses(three, 3, replicas, 3, "layer 1 expert 5 is on node node-c twice");
}

static void a_replica_out_of_range_is_refused(void **state)
{
    const router_replica layer = {2, 0, 0, false}, expert = {0, 8, 0, false}, negative = {0, -1, 0, false},
                         node = {0, 0, 3, false};

    (void)state;
    refuses(three, 3, &layer, 1, "layer 2");
    refuses(three, 3, &expert, 1, "expert 8");
    refuses(three, 3, &negative, 1, "expert -1");
    refuses(three, 3, &node, 1, "node 3");
}

static void bad_node_ids_are_refused(void **state)
{
    const char *const twice[] = {"a", "b", "a"};
    const char *const empty[] = {""};
    const char *const longest[] = {"0123456789012345678901234567890123456789012345678901234567890123"};

    (void)state;
    refuses(twice, 3, NULL, 0, "node a is given twice");
    refuses(empty, 1, NULL, 0, "0 characters");
    refuses(longest, 1, NULL, 0, "64 characters");
    refuses(longest, ROUTER_MAX_NODES + 1, NULL, 0, "257 nodes");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(replicas_come_back_ascending),
        cmocka_unit_test(spare_replicas_come_last),
        cmocka_unit_test(an_expert_without_replicas_has_none),
        cmocka_unit_test(single_holds_everything_on_one_node),
        cmocka_unit_test(a_replica_given_twice_is_refused),
        cmocka_unit_test(a_replica_out_of_range_is_refused),
        cmocka_unit_test(bad_node_ids_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
