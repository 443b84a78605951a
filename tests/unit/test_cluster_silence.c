/* Which silent nodes the controller takes for dead, when, and who gets what they had. */
#include "tests/unit/test_cluster_support.h"

static void a_node_that_stops_answering_is_replaced(void **state)
{
    world w;

    (void)state;
    world_open(&w, 1);
    member *coordinator = add(&w, CLUSTER_COORDINATOR, "c");
    (void)add(&w, CLUSTER_NODE, "a");
    member *b = add(&w, CLUSTER_NODE, "b");
    run_for(&w, 5 * SECOND);
    kill_member(b);
    run_for(&w, 25 * SECOND);
    assert_int_equal(wanted_of(coordinator, "a"), LAYERS * EXPERTS);
    assert_int_equal(epoch_of(coordinator), 2);
    world_close(&w);
}

/* What each node is to hold. */
typedef struct owners {
    uint64_t of[3][LAYERS];
} owners;

static const char *const owner_ids[] = {"a", "b", "d"};

static owners owners_now(member *m)
{
    owners o = {0};
    const cluster_state *s = cluster_state_acquire(m->c);

    for (size_t i = 0; i < 3; i++) {
        (void)cluster_state_wanted(s, owner_ids[i], o.of[i]);
    }
    cluster_state_release(s);
    return o;
}

/* Three nodes with everything loaded, and a coordinator. */
static member *world_of_three(world *w, uint32_t replication, member *nodes[3])
{
    world_open(w, 1);
    w->replication = replication;
    member *c = add(w, CLUSTER_COORDINATOR, "c");
    for (size_t i = 0; i < 3; i++) {
        nodes[i] = add(w, CLUSTER_NODE, owner_ids[i]);
    }
    run_for(w, 5 * SECOND);
    for (size_t i = 0; i < 3; i++) {
        load_wanted(nodes[i], owner_ids[i]);
    }
    run_for(w, SECOND);
    assert_int_equal(epoch_of(c), 1);
    assert_int_equal(missing_of(c), 0);
    return c;
}

/* Its key stays for 15 s. What it alone had is given to others long before, and they keep what they have. */
static void what_a_dead_node_alone_had_is_placed_at_once(void **state)
{
    world w;
    member *nodes[3];

    (void)state;
    member *c = world_of_three(&w, 1, nodes);
    owners before = owners_now(c);
    kill_process(nodes[1]);
    run_for(&w, 500 * MS);
    owners after = owners_now(c);
    assert_int_equal(epoch_of(c), 2);
    assert_int_equal(wanted_of(c, "b"), 0);
    assert_int_equal(wanted_of(c, "a") + wanted_of(c, "d"), LAYERS * EXPERTS);
    for (size_t l = 0; l < LAYERS; l++) {
        assert_int_equal(before.of[0][l] & ~after.of[0][l], 0);
        assert_int_equal(before.of[2][l] & ~after.of[2][l], 0);
    }
    assert_non_null(stored(&w, "nodes/b"));
    run_for(&w, 30 * SECOND); /* until long after the lease */
    assert_true(epoch_of(c) <= 3);
    assert_int_equal(wanted_of(c, "a") + wanted_of(c, "d"), LAYERS * EXPERTS);
    world_close(&w);
}

/* At replication 2 nothing is lost: nothing moves for a moment, and then the copies are made good. */
static void copies_that_a_dead_node_had_are_made_good_when_it_stays_away(void **state)
{
    world w;
    member *nodes[3];

    (void)state;
    member *c = world_of_three(&w, 2, nodes);
    kill_process(nodes[1]);
    run_for(&w, 2 * SECOND);
    assert_int_equal(epoch_of(c), 1);
    run_for(&w, 3 * SECOND);
    assert_int_equal(epoch_of(c), 2);
    assert_int_equal(wanted_of(c, "a"), LAYERS * EXPERTS);
    assert_int_equal(wanted_of(c, "d"), LAYERS * EXPERTS);
    world_close(&w);
}

/* A restart in place takes a second or two. */
static void a_node_that_comes_back_soon_has_what_it_had(void **state)
{
    for (uint32_t replication = 1; replication <= 2; replication++) {
        world w;
        member *nodes[3];

        (void)state;
        member *c = world_of_three(&w, replication, nodes);
        owners before = owners_now(c);
        kill_process(nodes[1]);
        run_for(&w, 1500 * MS);
        nodes[1] = add(&w, CLUSTER_NODE, "b");
        run_for(&w, 10 * SECOND);
        owners after = owners_now(c);
        assert_memory_equal(&before, &after, sizeof before);
        assert_int_equal(epoch_of(c), replication == 1 ? 3 : 1);
        world_close(&w);
    }
}

/* It does not answer, but nothing refuses the connection either: only time tells. */
static void a_silent_node_is_not_taken_for_dead_at_once(void **state)
{
    world w;
    member *nodes[3];

    (void)state;
    member *c = world_of_three(&w, 1, nodes);
    nodes[1]->answers = false;
    run_for(&w, 5 * SECOND);
    nodes[1]->answers = true;
    run_for(&w, 20 * SECOND);
    assert_int_equal(epoch_of(c), 1);
    nodes[1]->answers = false;
    run_for(&w, 11 * SECOND);
    assert_int_equal(wanted_of(c, "b"), 0);
    assert_int_equal(wanted_of(c, "a") + wanted_of(c, "d"), LAYERS * EXPERTS);
    world_close(&w);
}

/* It was met, has fallen silent and could not be met again. With nobody else to ask that is enough. */
static void a_node_that_is_missed_is_lost_without_a_long_wait(void **state)
{
    world w;
    member *nodes[3];

    (void)state;
    member *c = world_of_three(&w, 1, nodes);
    c->misses = nodes[1];
    run_for(&w, 500 * MS);
    assert_int_equal(wanted_of(c, "b"), 0);
    assert_int_equal(wanted_of(c, "a") + wanted_of(c, "d"), LAYERS * EXPERTS);
    c->misses = NULL;
    run_for(&w, 5 * SECOND);
    assert_true(wanted_of(c, "b") > 0);
    world_close(&w);
}

/* The controller alone may have lost its way to a node. Whoever serves with it keeps it, until it has been silent for long. */
static void a_node_is_lost_when_every_coordinator_misses_it(void **state)
{
    world w;
    member *nodes[3];

    (void)state;
    member *c = world_of_three(&w, 1, nodes), *other = add(&w, CLUSTER_COORDINATOR, "c2");
    run_for(&w, 5 * SECOND);
    assert_true(state_is(c, is_controller));
    cluster_set_applied(other->c, 1);
    c->misses = nodes[1];
    run_for(&w, 5 * SECOND);
    assert_int_equal(epoch_of(c), 1);
    other->misses = nodes[1];
    run_for(&w, 500 * MS);
    assert_int_equal(wanted_of(c, "b"), 0);
    assert_non_null(strstr(stored(&w, "coordinators/c2"), "\"missed\":[\"b\"]"));
    other->misses = c->misses = NULL;
    run_for(&w, 5 * SECOND);
    assert_true(wanted_of(c, "b") > 0);
    assert_null(strstr(stored(&w, "coordinators/c2"), "missed"));
    c->misses = nodes[2];
    run_for(&w, 11 * SECOND);
    assert_int_equal(wanted_of(c, "d"), 0);
    world_close(&w);
}

/* Coordinator and all nodes start at once, into a store with a placement: those that are not there yet are waited for. */
static void nodes_that_are_still_starting_are_not_lost(void **state)
{
    world w;
    member *nodes[3];

    (void)state;
    member *c = world_of_three(&w, 1, nodes);
    owners before = owners_now(c);
    kill_process(c);
    for (size_t i = 0; i < 3; i++) {
        kill_process(nodes[i]);
    }
    run_for(&w, SECOND);
    cluster_memory_expire_leases(w.memory);
    c = add(&w, CLUSTER_COORDINATOR, "c");
    for (size_t i = 0; i < 3; i++) {
        run_for(&w, SECOND);
        assert_int_equal(epoch_of(c), 1);
        nodes[i] = add(&w, CLUSTER_NODE, owner_ids[i]);
    }
    run_for(&w, 10 * SECOND);
    owners after = owners_now(c);
    assert_int_equal(epoch_of(c), 1);
    assert_memory_equal(&before, &after, sizeof before);
    world_close(&w);
}

/* The key of a node that answers vanishes: nobody is dropped. */
static void a_vanished_key_is_no_death_certificate(void **state)
{
    world w;

    (void)state;
    world_open(&w, 1);
    member *coordinator = add(&w, CLUSTER_COORDINATOR, "c");
    (void)add(&w, CLUSTER_NODE, "a");
    member *b = add(&w, CLUSTER_NODE, "b");
    run_for(&w, 5 * SECOND);
    load_wanted(b, "b");
    run_for(&w, SECOND);
    kill_member(b);
    b->answers = true;
    run_for(&w, 60 * SECOND);
    const cluster_state *s = cluster_state_acquire(coordinator->c);
    const cluster_node *n = cluster_state_node(s, "b");
    assert_non_null(n);
    assert_false(n->registered);
    assert_int_equal(n->n_ready, LAYERS * EXPERTS / 2);
    assert_int_equal(s->epoch, 1);
    cluster_state_release(s);
    world_close(&w);
}

/* Its lease is kept alive, but nobody answers at its address. */
static void a_registered_node_that_is_silent_is_given_nothing(void **state)
{
    world w;

    (void)state;
    world_open(&w, 1);
    member *coordinator = add(&w, CLUSTER_COORDINATOR, "c");
    (void)add(&w, CLUSTER_NODE, "a");
    member *b = add(&w, CLUSTER_NODE, "b");
    run_for(&w, 5 * SECOND);
    b->answers = false;
    run_for(&w, 8 * SECOND);
    assert_int_equal(wanted_of(coordinator, "b"), LAYERS * EXPERTS / 2);
    run_for(&w, 8 * SECOND);
    assert_int_equal(wanted_of(coordinator, "a"), LAYERS * EXPERTS);
    assert_int_equal(wanted_of(coordinator, "b"), 0);
    b->answers = true;
    run_for(&w, 5 * SECOND);
    assert_int_equal(wanted_of(coordinator, "b"), LAYERS * EXPERTS / 2);
    world_close(&w);
}

/* It is registered, but behind an address that leads nowhere, or with another secret. */
static void a_node_that_has_never_answered_is_given_nothing(void **state)
{
    world w;
    cluster_stats stats;

    (void)state;
    world_open(&w, 1);
    member *coordinator = add(&w, CLUSTER_COORDINATOR, "c");
    (void)add(&w, CLUSTER_NODE, "a");
    member *b = add(&w, CLUSTER_NODE, "b");
    b->answers = false;
    for (int i = 0; i < 60; i++) {
        run_for(&w, SECOND);
        assert_int_equal(wanted_of(coordinator, "b"), 0);
    }
    assert_int_equal(wanted_of(coordinator, "a"), LAYERS * EXPERTS);
    assert_int_equal(epoch_of(coordinator), 1);
    cluster_get_stats(coordinator->c, &stats);
    assert_int_equal(stats.unreachable, 1);
    b->answers = true;
    run_for(&w, 3 * SECOND);
    assert_int_equal(wanted_of(coordinator, "b"), LAYERS * EXPERTS / 2);
    cluster_get_stats(coordinator->c, &stats);
    assert_int_equal(stats.unreachable, 0);
    world_close(&w);
}

static void nothing_is_placed_while_no_node_has_answered(void **state)
{
    world w;

    (void)state;
    world_open(&w, 1);
    member *coordinator = add(&w, CLUSTER_COORDINATOR, "c"), *a = add(&w, CLUSTER_NODE, "a");
    a->answers = false;
    run_for(&w, 60 * SECOND);
    assert_int_equal(epoch_of(coordinator), 0);
    a->answers = true;
    run_for(&w, 3 * SECOND);
    assert_int_equal(epoch_of(coordinator), 1);
    world_close(&w);
}

/* It has met nobody yet. */
static void a_new_controller_leaves_the_nodes_what_they_have(void **state)
{
    world w;

    (void)state;
    world_open(&w, 1);
    member *first = add(&w, CLUSTER_COORDINATOR, "c"), *a = add(&w, CLUSTER_NODE, "a");
    run_for(&w, 5 * SECOND);
    load_wanted(a, "a");
    kill_member(first);
    a->answers = false;
    member *second = add(&w, CLUSTER_COORDINATOR, "d");
    for (int i = 0; i < 30 && !state_is(second, is_controller); i++) {
        run_for(&w, SECOND);
    }
    run_for(&w, 5 * SECOND);
    a->answers = true;
    run_for(&w, 10 * SECOND);
    assert_int_equal(epoch_of(second), 1);
    assert_int_equal(wanted_of(second, "a"), LAYERS * EXPERTS);
    world_close(&w);
}

static void what_a_node_had_is_given_to_others_when_it_comes_back_unreachable(void **state)
{
    world w;

    (void)state;
    world_open(&w, 1);
    member *coordinator = add(&w, CLUSTER_COORDINATOR, "c");
    (void)add(&w, CLUSTER_NODE, "a");
    member *b = add(&w, CLUSTER_NODE, "b");
    run_for(&w, 5 * SECOND);
    assert_int_equal(wanted_of(coordinator, "b"), LAYERS * EXPERTS / 2);
    kill_member(b);
    b = add(&w, CLUSTER_NODE, "b");
    b->answers = false;
    run_for(&w, 15 * SECOND);
    assert_int_equal(wanted_of(coordinator, "a"), LAYERS * EXPERTS);
    assert_int_equal(wanted_of(coordinator, "b"), 0);
    world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_node_that_stops_answering_is_replaced),
        cmocka_unit_test(what_a_dead_node_alone_had_is_placed_at_once),
        cmocka_unit_test(copies_that_a_dead_node_had_are_made_good_when_it_stays_away),
        cmocka_unit_test(a_node_that_comes_back_soon_has_what_it_had),
        cmocka_unit_test(a_silent_node_is_not_taken_for_dead_at_once),
        cmocka_unit_test(a_node_that_is_missed_is_lost_without_a_long_wait),
        cmocka_unit_test(a_node_is_lost_when_every_coordinator_misses_it),
        cmocka_unit_test(nodes_that_are_still_starting_are_not_lost),
        cmocka_unit_test(a_vanished_key_is_no_death_certificate),
        cmocka_unit_test(a_registered_node_that_is_silent_is_given_nothing),
        cmocka_unit_test(a_node_that_has_never_answered_is_given_nothing),
        cmocka_unit_test(nothing_is_placed_while_no_node_has_answered),
        cmocka_unit_test(a_new_controller_leaves_the_nodes_what_they_have),
        cmocka_unit_test(what_a_node_had_is_given_to_others_when_it_comes_back_unreachable),
    };

    moe_log_set_level(MOE_LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
