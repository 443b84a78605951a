/* What the controller places, and by which policy: members on a store in memory and a virtual clock. */
#include "tests/unit/test_cluster_support.h"

/* ------------------------------------------------------------------------------------------------ placement */
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

/* ------------------------------------------------------------------------------------------------ policy */
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
        cmocka_unit_test(a_node_that_stops_answering_is_replaced),
        cmocka_unit_test(what_a_dead_node_alone_had_is_placed_at_once),
        cmocka_unit_test(copies_that_a_dead_node_had_are_made_good_when_it_stays_away),
        cmocka_unit_test(a_node_that_comes_back_soon_has_what_it_had),
        cmocka_unit_test(a_silent_node_is_not_taken_for_dead_at_once),
        cmocka_unit_test(a_node_that_is_missed_is_lost_without_a_long_wait),
        cmocka_unit_test(a_node_is_lost_when_every_coordinator_misses_it),
        cmocka_unit_test(nodes_that_are_still_starting_are_not_lost),
        cmocka_unit_test(a_controller_that_was_replaced_publishes_nothing),
        cmocka_unit_test(a_vanished_key_is_no_death_certificate),
        cmocka_unit_test(a_registered_node_that_is_silent_is_given_nothing),
        cmocka_unit_test(a_node_that_has_never_answered_is_given_nothing),
        cmocka_unit_test(nothing_is_placed_while_no_node_has_answered),
        cmocka_unit_test(a_new_controller_leaves_the_nodes_what_they_have),
        cmocka_unit_test(what_a_node_had_is_given_to_others_when_it_comes_back_unreachable),
        cmocka_unit_test(another_controller_does_not_change_the_policy),
        cmocka_unit_test(a_policy_is_changed_by_any_coordinator_part_by_part),
        cmocka_unit_test(a_policy_that_cannot_be_is_refused),
        cmocka_unit_test(a_policy_is_not_changed_while_the_store_is_down),
        cmocka_unit_test(after_a_wipe_the_policy_is_what_it_was),
        cmocka_unit_test(a_malformed_policy_leaves_the_last_one_in_force),
        cmocka_unit_test(min_nodes_holds_back_the_first_placement_alone),
        cmocka_unit_test(a_draining_node_is_given_nothing),
        cmocka_unit_test(replicas_that_do_not_fit_are_fewer),
        cmocka_unit_test(what_memory_does_not_suffice_for_is_lowered_expert_by_expert),
        cmocka_unit_test(the_applied_epoch_is_that_of_the_slowest_coordinator),
    };

    moe_log_set_level(MOE_LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
