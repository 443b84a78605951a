/* What the controller places: members on a store in memory and a virtual clock. */
#include "tests/unit/test_cluster_support.h"

static void everything_is_placed_and_reported_ready(void **state)
{
    static const char *const ids[] = {"a", "b"};
    world w;

    (void)state;
    world_open(&w, 1);
    member *nodes[] = {add(&w, CLUSTER_NODE, "a"), add(&w, CLUSTER_NODE, "b")};
    member *coordinator = add(&w, CLUSTER_COORDINATOR, "c");
    run_for(&w, 3 * SECOND);
    assert_int_equal(epoch_of(coordinator), 1);
    assert_int_equal(missing_of(coordinator), LAYERS * EXPERTS);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(wanted_of(nodes[i], ids[i]), LAYERS * EXPERTS / 2);
        load_wanted(nodes[i], ids[i]);
    }
    run_for(&w, SECOND);
    assert_int_equal(missing_of(coordinator), 0);
    const cluster_state *s = cluster_state_acquire(coordinator->c);
    router_placement *routing = routing_of(s);
    for (uint32_t l = 0; l < LAYERS; l++) {
        for (int32_t e = 0; e < EXPERTS; e++) {
            size_t n;
            router_placement_replicas(routing, l, e, &n);
            assert_int_equal(n, 1);
        }
    }
    assert_int_equal(router_placement_epoch(routing), 1);
    router_placement_unref(routing);
    cluster_state_release(s);
    world_close(&w);
}

static size_t settled_at(member *m)
{
    uint64_t bitmap[LAYERS], n = 0;
    const cluster_state *s = cluster_state_acquire(m->c);

    cluster_state_settled(s, 0, bitmap);
    for (uint32_t slot = 0; slot < router_space_n_slots(s->space); slot++) {
        n += router_bit(bitmap, slot);
    }
    cluster_state_release(s);
    return n;
}

/* A wiped store has none for a moment, and one that was killed will be started again: nobody has said that new owners are ready. */
static void without_a_coordinator_nothing_may_be_dropped(void **state)
{
    world w;

    (void)state;
    world_open(&w, 1);
    member *node = add(&w, CLUSTER_NODE, "a"), *coordinator = add(&w, CLUSTER_COORDINATOR, "c");
    run_for(&w, 3 * SECOND);
    assert_int_equal(settled_at(node), 0);
    cluster_set_applied(coordinator->c, 1);
    run_for(&w, SECOND);
    assert_int_equal(settled_at(node), LAYERS * EXPERTS);
    kill_member(coordinator);
    run_for(&w, 20 * SECOND);
    assert_int_equal(settled_at(node), 0);
    world_close(&w);
}

/* Ready replicas of every expert that rows can go to; at least. */
static size_t fewest_routed(member *m)
{
    size_t fewest = SIZE_MAX;
    const cluster_state *s = cluster_state_acquire(m->c);

    router_placement *routing = routing_of(s);
    for (uint32_t l = 0; l < LAYERS; l++) {
        for (int32_t e = 0; e < EXPERTS; e++) {
            size_t n;
            router_placement_replicas(routing, l, e, &n);
            fewest = MOE_MIN(fewest, n);
        }
    }
    router_placement_unref(routing);
    cluster_state_release(s);
    return fewest;
}

/* Experts that rows can go to a node for; preferred: without those that it may drop at any moment. */
static size_t count_routed(member *m, const char *id, bool preferred)
{
    size_t n_experts = 0;
    const cluster_state *s = cluster_state_acquire(m->c);

    router_placement *routing = routing_of(s);
    for (uint32_t l = 0; l < LAYERS; l++) {
        for (int32_t e = 0; e < EXPERTS; e++) {
            size_t n;
            const uint32_t *nodes = router_placement_replicas(routing, l, e, &n);

            n = preferred ? router_placement_n_preferred(routing, router_space_slot(s->space, l, e)) : n;
            for (size_t i = 0; i < n; i++) {
                n_experts += strcmp(router_placement_node_id(routing, nodes[i]), id) == 0;
            }
        }
    }
    router_placement_unref(routing);
    cluster_state_release(s);
    return n_experts;
}

static size_t routed_to(member *m, const char *id)
{
    return count_routed(m, id, false);
}

static size_t preferred_at(member *m, const char *id)
{
    return count_routed(m, id, true);
}

/* It is to have them, and would refuse every row until it has. */
static void no_row_goes_to_a_node_for_what_it_has_not_loaded(void **state)
{
    world w;

    (void)state;
    world_open(&w, 1);
    member *a = add(&w, CLUSTER_NODE, "a"), *coordinator = add(&w, CLUSTER_COORDINATOR, "c");
    run_for(&w, 3 * SECOND);
    load_wanted(a, "a");
    run_for(&w, SECOND);
    member *b = add(&w, CLUSTER_NODE, "b");
    run_for(&w, 5 * SECOND);
    assert_int_equal(wanted_of(coordinator, "b"), LAYERS * EXPERTS / 2);
    assert_int_equal(routed_to(coordinator, "b"), 0);
    assert_int_equal(routed_to(coordinator, "a"), LAYERS * EXPERTS);
    load_wanted(b, "b");
    run_for(&w, SECOND);
    assert_int_equal(routed_to(coordinator, "b"), LAYERS * EXPERTS / 2);
    assert_int_equal(preferred_at(coordinator, "b"), LAYERS * EXPERTS / 2);
    assert_int_equal(routed_to(coordinator, "a"), LAYERS * EXPERTS);
    assert_int_equal(preferred_at(coordinator, "a"), LAYERS * EXPERTS / 2);
    world_close(&w);
}

/* While the new node loads, what the others hold is all there is: the placement prefers, it does not forbid. */
static void every_ready_replica_can_be_used_while_another_loads(void **state)
{
    world w;

    (void)state;
    world_open(&w, 1);
    w.replication = 2;
    member *a = add(&w, CLUSTER_NODE, "a"), *b = add(&w, CLUSTER_NODE, "b");
    member *coordinator = add(&w, CLUSTER_COORDINATOR, "c");
    run_for(&w, 3 * SECOND);
    load_wanted(a, "a");
    load_wanted(b, "b");
    run_for(&w, SECOND);
    assert_int_equal(fewest_routed(coordinator), 2);
    (void)add(&w, CLUSTER_NODE, "d");
    run_for(&w, 5 * SECOND);
    assert_int_equal(epoch_of(coordinator), 2);
    assert_int_equal(fewest_routed(coordinator), 2);
    world_close(&w);
}

static void nothing_is_placed_before_min_nodes_are_there(void **state)
{
    world w;

    (void)state;
    world_open(&w, 1);
    w.min_nodes = 2;
    member *coordinator = add(&w, CLUSTER_COORDINATOR, "c");
    (void)add(&w, CLUSTER_NODE, "a");
    run_for(&w, 5 * SECOND);
    assert_int_equal(epoch_of(coordinator), 0);
    (void)add(&w, CLUSTER_NODE, "b");
    run_for(&w, 3 * SECOND);
    assert_int_equal(epoch_of(coordinator), 1);
    world_close(&w);
}

static void a_later_node_is_given_its_share(void **state)
{
    world w;

    (void)state;
    world_open(&w, 1);
    member *coordinator = add(&w, CLUSTER_COORDINATOR, "c");
    (void)add(&w, CLUSTER_NODE, "a");
    run_for(&w, 5 * SECOND);
    assert_int_equal(wanted_of(coordinator, "a"), LAYERS * EXPERTS);
    (void)add(&w, CLUSTER_NODE, "b");
    run_for(&w, 5 * SECOND);
    assert_int_equal(epoch_of(coordinator), 2);
    assert_int_equal(wanted_of(coordinator, "a"), LAYERS * EXPERTS / 2);
    assert_int_equal(wanted_of(coordinator, "b"), LAYERS * EXPERTS / 2);
    world_close(&w);
}

static void an_unchanged_cluster_is_not_placed_again(void **state)
{
    world w;

    (void)state;
    world_open(&w, 1);
    member *coordinator = add(&w, CLUSTER_COORDINATOR, "c"), *node = add(&w, CLUSTER_NODE, "a");
    run_for(&w, 5 * SECOND);
    load_wanted(node, "a");
    run_for(&w, 100 * SECOND);
    assert_int_equal(epoch_of(coordinator), 1);
    kill_member(coordinator);
    coordinator = add(&w, CLUSTER_COORDINATOR, "c2");
    run_for(&w, 30 * SECOND);
    assert_true(state_is(coordinator, is_controller));
    assert_int_equal(epoch_of(coordinator), 1);
    world_close(&w);
}

/* It slept through its lease, with a watch that has fallen silent; another one was elected. Before it learns of that, it
 * sees a death and publishes: nothing of it may be written. */
static void a_controller_that_was_replaced_publishes_nothing(void **state)
{
    world w;
    cluster_stats stats, before;
    char *placed, *of_layer;

    (void)state;
    world_open(&w, 1);
    member *c1 = add(&w, CLUSTER_COORDINATOR, "c1");
    (void)add(&w, CLUSTER_NODE, "a");
    member *b = add(&w, CLUSTER_NODE, "b");
    run_for(&w, 5 * SECOND);
    cluster_get_stats(c1->c, &stats);
    do { /* it has just read everything: for 15 s it will not do so again */
        run_for(&w, 20 * MS);
        cluster_get_stats(c1->c, &before);
    } while (before.lists == stats.lists);
    run_for(&w, 100 * MS);
    cluster_memory_mute_watches(w.memory);
    cluster *sleeper = c1->c;
    c1->c = NULL;
    member *c2 = add(&w, CLUSTER_COORDINATOR, "c2");
    for (int i = 0; i < 1000 && !state_is(c2, is_controller); i++) {
        run_for(&w, 20 * MS);
    }
    assert_true(state_is(c2, is_controller));
    placed = strdup(stored(&w, "placement"));
    of_layer = strdup(stored(&w, "placement/0"));
    kill_process(b);
    c1->c = sleeper;
    cluster_get_stats(c1->c, &before);
    for (int i = 0; i < 4; i++) {
        (void)cluster_step(c1->c);
    }
    cluster_get_stats(c1->c, &stats);
    assert_int_equal(stats.placements, before.placements + 1); /* it tried */
    assert_string_equal(stored(&w, "placement"), placed);
    assert_string_equal(stored(&w, "placement/0"), of_layer);
    free(placed);
    free(of_layer);
    world_close(&w);
}

static void min_nodes_holds_back_the_first_placement_alone(void **state)
{
    world w;

    (void)state;
    world_open(&w, 1);
    w.min_nodes = 2;
    member *coordinator = add(&w, CLUSTER_COORDINATOR, "c");
    (void)add(&w, CLUSTER_NODE, "a");
    member *b = add(&w, CLUSTER_NODE, "b");
    run_for(&w, 5 * SECOND);
    assert_int_equal(epoch_of(coordinator), 1);
    kill_member(b);
    run_for(&w, 30 * SECOND);
    assert_int_equal(epoch_of(coordinator), 2);
    assert_int_equal(wanted_of(coordinator, "a"), LAYERS * EXPERTS);
    world_close(&w);
}

static void a_draining_node_is_given_nothing(void **state)
{
    world w;

    (void)state;
    world_open(&w, 1);
    member *coordinator = add(&w, CLUSTER_COORDINATOR, "c");
    (void)add(&w, CLUSTER_NODE, "a");
    member *b = add(&w, CLUSTER_NODE, "b");
    run_for(&w, 5 * SECOND);
    cluster_set_draining(b->c, true);
    run_for(&w, 5 * SECOND);
    assert_int_equal(wanted_of(coordinator, "a"), LAYERS * EXPERTS);
    assert_int_equal(wanted_of(coordinator, "b"), 0);
    world_close(&w);
}

static void replicas_that_do_not_fit_are_fewer(void **state)
{
    world w;

    (void)state;
    world_open(&w, 1);
    w.replication = 3;
    member *coordinator = add(&w, CLUSTER_COORDINATOR, "c");
    (void)add(&w, CLUSTER_NODE, "a");
    (void)add(&w, CLUSTER_NODE, "b");
    run_for(&w, 5 * SECOND);
    const cluster_state *s = cluster_state_acquire(coordinator->c);
    assert_int_equal(s->replication, 2);
    assert_int_equal(cluster_state_missing(s, NULL), LAYERS * EXPERTS);
    cluster_state_release(s);
    assert_int_equal(wanted_of(coordinator, "a"), LAYERS * EXPERTS);
    world_close(&w);
}

/* Room for 20 of the 30 experts on each of three nodes, two of each wanted; then one is gone. */
static void what_memory_does_not_suffice_for_is_lowered_expert_by_expert(void **state)
{
    world w;

    (void)state;
    world_open(&w, 1);
    w.replication = 2;
    w.memory_bytes = (uint64_t)20 << 20;
    member *coordinator = add(&w, CLUSTER_COORDINATOR, "c");
    (void)add(&w, CLUSTER_NODE, "a");
    (void)add(&w, CLUSTER_NODE, "b");
    member *d = add(&w, CLUSTER_NODE, "d");
    run_for(&w, 5 * SECOND);
    assert_int_equal(wanted_of(coordinator, "a"), 20);
    kill_member(d);
    run_for(&w, 25 * SECOND);
    assert_int_equal(wanted_of(coordinator, "a") + wanted_of(coordinator, "b"), 36); /* a place each stays free */
    const cluster_state *s = cluster_state_acquire(coordinator->c);
    assert_int_equal(s->replication, 2);
    cluster_state_release(s);
    world_close(&w);
}

static void the_applied_epoch_is_that_of_the_slowest_coordinator(void **state)
{
    world w;

    (void)state;
    world_open(&w, 1);
    member *c1 = add(&w, CLUSTER_COORDINATOR, "c1"), *c2 = add(&w, CLUSTER_COORDINATOR, "c2");
    member *node = add(&w, CLUSTER_NODE, "a");
    run_for(&w, 5 * SECOND);
    cluster_set_applied(c1->c, 1);
    run_for(&w, SECOND);
    const cluster_state *s = cluster_state_acquire(node->c);
    assert_int_equal(s->n_coordinators, 2);
    assert_int_equal(cluster_state_epoch_applied(s, 0), 0);
    cluster_state_release(s);
    cluster_set_applied(c2->c, 1);
    run_for(&w, SECOND);
    s = cluster_state_acquire(node->c);
    assert_int_equal(cluster_state_epoch_applied(s, 0), 1);
    cluster_state_release(s);
    world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_is_placed_and_reported_ready),
        cmocka_unit_test(without_a_coordinator_nothing_may_be_dropped),
        cmocka_unit_test(no_row_goes_to_a_node_for_what_it_has_not_loaded),
        cmocka_unit_test(every_ready_replica_can_be_used_while_another_loads),
        cmocka_unit_test(nothing_is_placed_before_min_nodes_are_there),
        cmocka_unit_test(a_later_node_is_given_its_share),
        cmocka_unit_test(an_unchanged_cluster_is_not_placed_again),
        cmocka_unit_test(a_controller_that_was_replaced_publishes_nothing),
        cmocka_unit_test(min_nodes_holds_back_the_first_placement_alone),
        cmocka_unit_test(a_draining_node_is_given_nothing),
        cmocka_unit_test(replicas_that_do_not_fit_are_fewer),
        cmocka_unit_test(what_memory_does_not_suffice_for_is_lowered_expert_by_expert),
        cmocka_unit_test(the_applied_epoch_is_that_of_the_slowest_coordinator),
    };

    moe_log_set_level(MOE_LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
