/* The policy by which experts are placed: who sets and changes it, and what it outlives. */
#include "tests/unit/test_cluster_support.h"

static cluster_policy policy_of(member *m)
{
    const cluster_state *s = cluster_state_acquire(m->c);
    cluster_policy p = s->policy;

    cluster_state_release(s);
    return p;
}

/* The nodes a and b, and a coordinator c that wants everything twice. */
static member *world_with_copies(world *w, uint64_t seed)
{
    world_open(w, seed);
    w->replication = 2;
    member *coordinator = add(w, CLUSTER_COORDINATOR, "c");
    (void)add(w, CLUSTER_NODE, "a");
    (void)add(w, CLUSTER_NODE, "b");
    run_for(w, 5 * SECOND);
    assert_int_equal(wanted_of(coordinator, "a"), LAYERS * EXPERTS);
    assert_int_equal(wanted_of(coordinator, "b"), LAYERS * EXPERTS);
    return coordinator;
}

static void another_controller_does_not_change_the_policy(void **state)
{
    world w;

    (void)state;
    member *first = world_with_copies(&w, 1);
    w.replication = 1;
    w.min_nodes = 7;
    member *second = add(&w, CLUSTER_COORDINATOR, "d");
    run_for(&w, 5 * SECOND);
    kill_member(first);
    run_for(&w, 60 * SECOND);
    assert_true(state_is(second, is_controller));
    assert_int_equal(epoch_of(second), 1);
    assert_int_equal(policy_of(second).replication, 2);
    assert_int_equal(policy_of(second).min_nodes, 1);
    assert_string_equal(stored(&w, "policy"), "{\"v\":1,\"replication\":2,\"min_nodes\":1}");
    world_close(&w);
}

static void a_policy_is_changed_by_any_coordinator_part_by_part(void **state)
{
    world w;
    moe_error err;

    (void)state;
    member *first = world_with_copies(&w, 1), *second = add(&w, CLUSTER_COORDINATOR, "d");
    run_for(&w, 5 * SECOND);
    assert_ok(cluster_set_policy(second->c, &(cluster_policy){.replication = 1}, &err), err);
    run_for(&w, 5 * SECOND);
    assert_int_equal(policy_of(first).replication, 1);
    assert_int_equal(wanted_of(first, "a") + wanted_of(first, "b"), LAYERS * EXPERTS);
    assert_ok(cluster_set_policy(first->c, &(cluster_policy){.min_nodes = 3}, &err), err);
    run_for(&w, 5 * SECOND);
    assert_int_equal(policy_of(second).replication, 1);
    assert_int_equal(policy_of(second).min_nodes, 3);
    world_close(&w);
}

static void a_policy_that_cannot_be_is_refused(void **state)
{
    world w;
    moe_error err;

    (void)state;
    member *coordinator = world_with_copies(&w, 1);
    assert_int_equal(cluster_set_policy(coordinator->c, &(cluster_policy){.replication = ROUTER_MAX_NODES + 1}, &err),
                     MOE_ERR_INVALID_ARG);
    assert_contains(err.text, "replication");
    assert_int_equal(cluster_set_policy(coordinator->c, &(cluster_policy){.min_nodes = ROUTER_MAX_NODES + 1}, &err),
                     MOE_ERR_INVALID_ARG);
    assert_contains(err.text, "min_nodes");
    world_close(&w);
}

static void a_policy_is_not_changed_while_the_store_is_down(void **state)
{
    world w;
    moe_error err;

    (void)state;
    member *coordinator = world_with_copies(&w, 1);
    cluster_memory_set_faults(w.memory, &(cluster_memory_faults){.down = true});
    run_for(&w, 10 * SECOND);
    assert_int_equal(cluster_set_policy(coordinator->c, &(cluster_policy){.replication = 1}, &err),
                     MOE_ERR_UNAVAILABLE);
    cluster_memory_set_faults(w.memory, &(cluster_memory_faults){.down = false});
    run_for(&w, 20 * SECOND);
    assert_int_equal(policy_of(coordinator).replication, 2);
    world_close(&w);
}

static void after_a_wipe_the_policy_is_what_it_was(void **state)
{
    world w;
    moe_error err;

    (void)state;
    member *coordinator = world_with_copies(&w, 1);
    assert_ok(cluster_set_policy(coordinator->c, &(cluster_policy){.replication = 1}, &err), err);
    run_for(&w, 2 * SECOND);
    cluster_memory_wipe(w.memory);
    run_for(&w, 10 * SECOND);
    assert_string_equal(stored(&w, "policy"), "{\"v\":1,\"replication\":1,\"min_nodes\":1}");
    world_close(&w);
}

static void a_malformed_policy_leaves_the_last_one_in_force(void **state)
{
    static const char *const bad[] = {"",
                                      "7",
                                      "{\"v\":1}",
                                      "{\"v\":2,\"replication\":1,\"min_nodes\":1}",
                                      "{\"v\":1,\"replication\":0,\"min_nodes\":1}",
                                      "{\"v\":1,\"replication\":1,\"min_nodes\":1e99}"};
    world w;
    moe_error err;

    (void)state;
    member *coordinator = world_with_copies(&w, 1);
    for (size_t i = 0; i < MOE_COUNT(bad); i++) {
        cluster_memory_put(w.memory, PREFIX "policy", bad[i]);
        run_for(&w, 5 * SECOND);
        assert_int_equal(policy_of(coordinator).replication, 2);
        assert_int_equal(epoch_of(coordinator), 1);
    }
    assert_ok(cluster_set_policy(coordinator->c, &(cluster_policy){.min_nodes = 2}, &err), err);
    run_for(&w, 2 * SECOND);
    assert_string_equal(stored(&w, "policy"), "{\"v\":1,\"replication\":2,\"min_nodes\":2}");
    world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(another_controller_does_not_change_the_policy),
        cmocka_unit_test(a_policy_is_changed_by_any_coordinator_part_by_part),
        cmocka_unit_test(a_policy_that_cannot_be_is_refused),
        cmocka_unit_test(a_policy_is_not_changed_while_the_store_is_down),
        cmocka_unit_test(after_a_wipe_the_policy_is_what_it_was),
        cmocka_unit_test(a_malformed_policy_leaves_the_last_one_in_force),
    };

    moe_log_set_level(MOE_LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
