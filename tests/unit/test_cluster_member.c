/* Members on a store in memory and a virtual clock, with every fault the store can have. */
#include "tests/unit/test_cluster_support.h"

/* ------------------------------------------------------------------------------------------------ registration */
static void a_node_and_a_coordinator_find_each_other(void **state)
{
    world w;

    (void)state;
    world_open(&w, 1);
    member *node = add(&w, CLUSTER_NODE, "a"), *coordinator = add(&w, CLUSTER_COORDINATOR, "c");
    run_for(&w, SECOND);
    assert_status(node, MOE_OK);
    assert_status(coordinator, MOE_OK);
    const cluster_state *s = cluster_state_acquire(coordinator->c);
    assert_int_equal(s->n_nodes, 1);
    assert_string_equal(s->nodes[0].id, "a");
    assert_string_equal(s->nodes[0].address, "127.0.0.1:1");
    assert_int_equal(s->nodes[0].incarnation, node->incarnation);
    assert_true(s->nodes[0].registered && s->connected && s->registered && s->is_controller);
    assert_string_equal(s->controller, "c");
    cluster_state_release(s);
    world_close(&w);
}

static void another_numeric_class_is_denied_by_name(void **state)
{
    world w;
    moe_error err;

    (void)state;
    world_open(&w, 1);
    member *first = add(&w, CLUSTER_NODE, "a");
    run_for(&w, SECOND);
    member *other = add_class(&w, CLUSTER_NODE, "b", "cpu-bf16-1");
    run_for(&w, SECOND);
    assert_status(first, MOE_OK);
    assert_int_equal(cluster_status(other->c, &err), MOE_ERR_DENIED);
    assert_contains(err.text, "numeric_class is cpu-f32-1, ours is cpu-bf16-1");
    assert_null(stored(&w, "nodes/b"));
    world_close(&w);
}

static void an_id_in_use_is_refused_while_its_holder_answers(void **state)
{
    world w;

    (void)state;
    world_open(&w, 1);
    member *first = add(&w, CLUSTER_NODE, "a");
    run_for(&w, SECOND);
    member *second = add(&w, CLUSTER_NODE, "a");
    run_for(&w, 5 * SECOND);
    assert_status(first, MOE_OK);
    assert_status(second, MOE_ERR_EXISTS);
    assert_true(w.n_asked >= 4 && w.n_asked <= 6); /* once a second */
    world_close(&w);
}

static void an_id_whose_holder_is_dead_is_taken_over_before_its_lease_ends(void **state)
{
    world w;

    (void)state;
    world_open(&w, 1);
    member *first = add(&w, CLUSTER_NODE, "a");
    run_for(&w, SECOND);
    kill_member(first);
    member *second = add(&w, CLUSTER_NODE, "a"), *coordinator = add(&w, CLUSTER_COORDINATOR, "c");
    run_for(&w, 2 * SECOND);
    assert_status(second, MOE_OK);
    const cluster_state *s = cluster_state_acquire(coordinator->c);
    assert_int_equal(s->n_nodes, 1);
    assert_int_equal(s->nodes[0].incarnation, second->incarnation);
    cluster_state_release(s);
    run_for(&w, 20 * SECOND); /* the dead one's lease ends meanwhile */
    assert_status(second, MOE_OK);
    world_close(&w);
}

/* Stands still, so that another is started in its place, and wakes. */
static member *displace(world *w, cluster_role role, uint64_t ns_after)
{
    moe_error why;
    member *first = add(w, role, "a");

    run_for(w, SECOND);
    assert_status(first, MOE_OK);
    cluster *paused = first->c;
    first->c = NULL;
    first->answers = false;
    member *second = add(w, role, "a");
    run_for(w, 2 * SECOND);
    assert_status(second, MOE_OK);
    first->c = paused;
    run_for(w, ns_after);
    assert_status(second, MOE_OK);
    assert_status(first, MOE_ERR_EXISTS);
    assert_false(cluster_is_displaced(second->c, &why));
    return first;
}

static void a_node_whose_id_was_taken_over_is_displaced(void **state)
{
    world w;
    moe_error why;

    (void)state;
    world_open(&w, 1);
    member *first = displace(&w, CLUSTER_NODE, 2 * SECOND);
    assert_true(cluster_is_displaced(first->c, &why));
    assert_contains(why.text, "id a is held by incarnation 0000000000000066 at 127.0.0.1:1, which answers");
    world_close(&w);
}

/* Who listens at its port does not say a name: it may be a stranger who was given the port. */
static void a_coordinator_is_displaced_when_the_other_has_outlived_a_lease(void **state)
{
    world w;
    moe_error why;

    (void)state;
    world_open(&w, 1);
    member *first = displace(&w, CLUSTER_COORDINATOR, 10 * SECOND);
    assert_false(cluster_is_displaced(first->c, &why));
    run_for(&w, 10 * SECOND);
    assert_true(cluster_is_displaced(first->c, &why));
    world_close(&w);
}

static void who_was_never_registered_is_not_displaced(void **state)
{
    world w;
    moe_error why;

    (void)state;
    world_open(&w, 1);
    (void)add(&w, CLUSTER_NODE, "a");
    run_for(&w, SECOND);
    member *second = add(&w, CLUSTER_NODE, "a");
    run_for(&w, 60 * SECOND);
    assert_status(second, MOE_ERR_EXISTS);
    assert_false(cluster_is_displaced(second->c, &why));
    world_close(&w);
}

static void without_anybody_to_ask_the_lease_decides(void **state)
{
    world w;

    (void)state;
    world_open(&w, 1);
    w.has_nobody_to_ask = true;
    member *first = add(&w, CLUSTER_NODE, "a");
    run_for(&w, SECOND);
    kill_member(first);
    member *second = add(&w, CLUSTER_NODE, "a");
    run_for(&w, 5 * SECOND);
    assert_status(second, MOE_ERR_UNAVAILABLE);
    run_for(&w, 15 * SECOND);
    assert_status(second, MOE_OK);
    world_close(&w);
}

static void leaving_takes_the_keys_away_at_once(void **state)
{
    world w;

    (void)state;
    world_open(&w, 1);
    member *node = add(&w, CLUSTER_NODE, "a");
    run_for(&w, SECOND);
    assert_non_null(stored(&w, "nodes/a"));
    cluster_leave(node->c);
    run_for(&w, SECOND);
    assert_true(cluster_has_left(node->c));
    assert_null(stored(&w, "nodes/a"));
    assert_null(stored(&w, "ready/a"));
    world_close(&w);
}

static void keys_stay_while_the_member_lives(void **state)
{
    world w;

    (void)state;
    world_open(&w, 1);
    member *node = add(&w, CLUSTER_NODE, "a");
    for (int i = 0; i < 120; i++) {
        run_for(&w, SECOND);
        assert_non_null(stored(&w, "nodes/a"));
    }
    assert_status(node, MOE_OK);
    world_close(&w);
}

/* ------------------------------------------------------------------------------------------------ placement */
static void everything_is_placed_and_reported_ready(void **state)
{
    static const char *const ids[] = {"a", "b"};
    world w;
    moe_error err;
    router_placement *routing = NULL;

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
    assert_ok(cluster_state_routing(s, &routing, &err), err);
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

/* Ready replicas of every expert that rows can go to; at least. */
static size_t fewest_routed(member *m)
{
    router_placement *routing = NULL;
    size_t fewest = SIZE_MAX;
    moe_error err;
    const cluster_state *s = cluster_state_acquire(m->c);

    assert_ok(cluster_state_routing(s, &routing, &err), err);
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
    assert_int_equal(cluster_state_missing(s, NULL, NULL), LAYERS * EXPERTS);
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
    assert_int_equal(cluster_state_epoch_applied(s), 0);
    cluster_state_release(s);
    cluster_set_applied(c2->c, 1);
    run_for(&w, SECOND);
    s = cluster_state_acquire(node->c);
    assert_int_equal(cluster_state_epoch_applied(s), 1);
    cluster_state_release(s);
    world_close(&w);
}

/* ------------------------------------------------------------------------------------------------ election */
static void one_of_two_candidates_is_elected_and_the_other_follows(void **state)
{
    world w;

    (void)state;
    world_open(&w, 1);
    member *c1 = add(&w, CLUSTER_COORDINATOR, "c1"), *c2 = add(&w, CLUSTER_COORDINATOR, "c2");
    (void)add(&w, CLUSTER_NODE, "a");
    run_for(&w, 3 * SECOND);
    assert_int_equal(state_is(c1, is_controller) + state_is(c2, is_controller), 1);
    member *first = state_is(c1, is_controller) ? c1 : c2, *second = first == c1 ? c2 : c1;
    kill_member(first);
    run_for(&w, 20 * SECOND);
    assert_true(state_is(second, is_controller));
    (void)add(&w, CLUSTER_NODE, "b");
    run_for(&w, 3 * SECOND);
    assert_int_equal(epoch_of(second), 2);
    world_close(&w);
}

/* A publication of which only a part was written: the next controller makes it whole under a new epoch. */
static void a_torn_publication_is_repaired(void **state)
{
    world w;

    (void)state;
    world_open(&w, 1);
    member *c = add(&w, CLUSTER_COORDINATOR, "c"), *node = add(&w, CLUSTER_NODE, "a");
    run_for(&w, 3 * SECOND);
    cluster_memory_put(w.memory, PREFIX "placement/1",
                       "{\"v\":1,\"epoch\":9,\"experts\":[[],[],[],[],[],[],[],[],[],[]]}");
    (void)cluster_step(node->c);
    assert_int_equal(epoch_of(node), 1); /* the last whole one stays in force */
    assert_int_equal(wanted_of(node, "a"), LAYERS * EXPERTS);
    run_for(&w, 3 * SECOND);
    assert_int_equal(epoch_of(c), 10);
    assert_int_equal(wanted_of(node, "a"), LAYERS * EXPERTS);
    world_close(&w);
}

/* `placement` names an epoch that no layer has, or only some: written by a controller that does not know the order. */
static void a_placement_is_taken_only_whole(void **state)
{
    world w;

    (void)state;
    world_open(&w, 1);
    member *c = add(&w, CLUSTER_COORDINATOR, "c"), *node = add(&w, CLUSTER_NODE, "a");
    run_for(&w, 3 * SECOND);
    for (int i = 0; i < 2; i++) {
        uint64_t before = epoch_of(node);
        cluster_memory_put(
            w.memory, PREFIX "placement",
            "{\"v\":1,\"epoch\":90,\"replication\":1,\"n_layers\":3,\"n_experts\":10,\"nodes\":[\"nobody\"]}");
        if (i == 1) {
            cluster_memory_put(w.memory, PREFIX "placement/0",
                               "{\"v\":1,\"epoch\":90,\"experts\":[[0],[0],[0],[0],[0],[0],[0],[0],[0],[0]]}");
        }
        (void)cluster_step(node->c);
        assert_int_equal(epoch_of(node), before);
        assert_int_equal(wanted_of(node, "a"), LAYERS * EXPERTS);
        run_for(&w, 3 * SECOND);
        assert_int_equal(epoch_of(c), 91 + i);
        assert_int_equal(wanted_of(node, "a"), LAYERS * EXPERTS);
    }
    world_close(&w);
}

/* ------------------------------------------------------------------------------------------------ trouble */
typedef struct trio {
    world w;
    member *c, *a, *b;
} trio;

static void trio_open(trio *t, uint64_t seed)
{
    world_open(&t->w, seed);
    t->c = add(&t->w, CLUSTER_COORDINATOR, "c");
    t->a = add(&t->w, CLUSTER_NODE, "a");
    t->b = add(&t->w, CLUSTER_NODE, "b");
    run_for(&t->w, 5 * SECOND);
    load_wanted(t->a, "a");
    load_wanted(t->b, "b");
    run_for(&t->w, SECOND);
    assert_int_equal(missing_of(t->c), 0);
}

static void trio_is_whole(trio *t, uint64_t epoch)
{
    assert_status(t->a, MOE_OK);
    assert_status(t->b, MOE_OK);
    assert_status(t->c, MOE_OK);
    assert_int_equal(missing_of(t->c), 0);
    assert_int_equal(epoch_of(t->c), epoch);
    assert_int_equal(epoch_of(t->a), epoch);
    assert_true(state_is(t->c, is_controller));
    const cluster_state *s = cluster_state_acquire(t->b->c);
    assert_int_equal(s->n_nodes, 2);
    assert_true(s->nodes[0].registered && s->nodes[1].registered && s->connected && s->registered);
    cluster_state_release(s);
    world_close(&t->w);
}

static void a_lost_lease_is_taken_anew(void **state)
{
    trio t;
    cluster_stats stats;

    (void)state;
    trio_open(&t, 1);
    cluster_memory_expire_leases(t.w.memory);
    assert_null(stored(&t.w, "nodes/a"));
    run_for(&t.w, 2 * SECOND);
    assert_non_null(stored(&t.w, "nodes/a"));
    cluster_get_stats(t.a->c, &stats);
    assert_int_equal(stats.lease_losses, 1);
    trio_is_whole(&t, 1);
}

static void a_lost_watch_is_read_up(void **state)
{
    trio t;

    (void)state;
    trio_open(&t, 1);
    cluster_memory_lose_watches(t.w.memory);
    cluster_set_applied(t.c->c, 1);
    run_for(&t.w, SECOND);
    const cluster_state *s = cluster_state_acquire(t.a->c);
    assert_int_equal(s->coordinators[0].epoch_applied, 1);
    cluster_state_release(s);
    trio_is_whole(&t, 1);
}

static void a_watch_that_falls_silent_is_noticed_within_thirty_seconds(void **state)
{
    trio t;

    (void)state;
    trio_open(&t, 1);
    cluster_memory_mute_watches(t.w.memory);
    cluster_set_applied(t.c->c, 1);
    run_for(&t.w, 31 * SECOND);
    const cluster_state *s = cluster_state_acquire(t.a->c);
    assert_int_equal(s->coordinators[0].epoch_applied, 1);
    cluster_state_release(s);
    trio_is_whole(&t, 1);
}

static void who_knows_better_has_everything_read_again(void **state)
{
    trio t;

    (void)state;
    trio_open(&t, 1);
    run_for(&t.w, 2 * SECOND);
    cluster_memory_mute_watches(t.w.memory);
    cluster_set_applied(t.c->c, 1);
    run_for(&t.w, SECOND);
    cluster_refresh(t.a->c);
    run_for(&t.w, SECOND);
    const cluster_state *s = cluster_state_acquire(t.a->c);
    assert_int_equal(s->coordinators[0].epoch_applied, 1);
    cluster_state_release(s);
    trio_is_whole(&t, 1);
}

static void compaction_is_survived(void **state)
{
    trio t;

    (void)state;
    trio_open(&t, 1);
    cluster_set_applied(t.c->c, 1);
    (void)cluster_step(t.c->c);
    cluster_memory_compact(t.w.memory);
    run_for(&t.w, 2 * SECOND);
    trio_is_whole(&t, 1);
}

static void while_the_store_is_down_the_last_state_stays(void **state)
{
    trio t;

    (void)state;
    trio_open(&t, 1);
    cluster_memory_set_faults(t.w.memory, &(cluster_memory_faults){.down = true});
    run_for(&t.w, 600 * SECOND);
    assert_false(state_is(t.c, is_connected));
    assert_status(t.a, MOE_ERR_UNAVAILABLE);
    assert_int_equal(missing_of(t.c), 0);
    assert_int_equal(epoch_of(t.c), 1);
    cluster_memory_set_faults(t.w.memory, &(cluster_memory_faults){.down = false});
    run_for(&t.w, 10 * SECOND);
    trio_is_whole(&t, 1);
}

static void after_a_wipe_the_store_is_filled_again(void **state)
{
    trio t;

    (void)state;
    trio_open(&t, 1);
    cluster_memory_wipe(t.w.memory);
    run_for(&t.w, 10 * SECOND);
    assert_non_null(stored(&t.w, "model"));
    assert_non_null(stored(&t.w, "placement"));
    assert_non_null(stored(&t.w, "placement/2"));
    trio_is_whole(&t, 2);
}

/* A new coordinator on a wiped store knows no epoch, but the nodes' reports tell. */
static void epochs_do_not_fall_when_the_coordinator_is_new_too(void **state)
{
    trio t;

    (void)state;
    trio_open(&t, 1);
    kill_member(t.c);
    cluster_memory_wipe(t.w.memory);
    t.c = add(&t.w, CLUSTER_COORDINATOR, "d");
    run_for(&t.w, 10 * SECOND);
    assert_true(epoch_of(t.c) > 1);
    world_close(&t.w);
}

/* Steps everybody; nobody's epoch may fall. */
static void run_forwards(world *w, uint64_t ns)
{
    for (uint64_t t = 0; t < ns; t += 20 * MS) {
        uint64_t before[MAX];

        for (size_t i = 0; i < w->n; i++) {
            before[i] = epoch_of(&w->members[i]);
        }
        run_for(w, 20 * MS);
        for (size_t i = 0; i < w->n; i++) {
            assert_true(epoch_of(&w->members[i]) >= before[i]);
        }
    }
}

/* The snapshot is older than a placement and than what was loaded for it. */
static void an_older_store_takes_no_epoch_back(void **state)
{
    trio t;

    (void)state;
    trio_open(&t, 1);
    cluster_memory_save(t.w.memory);
    member *d = add(&t.w, CLUSTER_NODE, "d");
    run_for(&t.w, 5 * SECOND);
    assert_int_equal(epoch_of(t.c), 2);
    load_wanted(t.a, "a");
    load_wanted(t.b, "b");
    load_wanted(d, "d");
    run_for(&t.w, SECOND);
    cluster_memory_restore(t.w.memory);
    run_forwards(&t.w, 10 * SECOND);
    assert_int_equal(epoch_of(t.c), 3);
    assert_int_equal(wanted_of(t.c, "d"), LAYERS * EXPERTS / 3);
    assert_int_equal(missing_of(t.c), 0); /* the reports are written anew, too */
    world_close(&t.w);
}

/* As before; and the coordinator that knew the newer placement is gone: the nodes tell. */
static void a_new_controller_on_an_older_store_publishes_above_all_that_was_seen(void **state)
{
    trio t;

    (void)state;
    trio_open(&t, 1);
    cluster_memory_save(t.w.memory);
    cluster_memory_put(t.w.memory, PREFIX "placement/1",
                       "{\"v\":1,\"epoch\":9,\"experts\":[[],[],[],[],[],[],[],[],[],[]]}");
    run_for(&t.w, 5 * SECOND);
    assert_int_equal(epoch_of(t.c), 10);
    load_wanted(t.a, "a");
    load_wanted(t.b, "b");
    run_for(&t.w, SECOND);
    kill_member(t.c);
    cluster_memory_restore(t.w.memory);
    t.c = add(&t.w, CLUSTER_COORDINATOR, "d");
    for (int i = 0; i < 30; i++) {
        uint64_t before = epoch_of(t.a);
        run_for(&t.w, SECOND);
        assert_true(epoch_of(t.a) >= before);
    }
    assert_true(state_is(t.c, is_controller));
    assert_int_equal(epoch_of(t.c), 11);
    assert_int_equal(epoch_of(t.a), 11);
    world_close(&t.w);
}

/* A member of etcd that lags answers one list. */
static void an_older_list_is_not_believed_at_once(void **state)
{
    trio t;

    (void)state;
    trio_open(&t, 1);
    cluster_memory_save(t.w.memory);
    (void)add(&t.w, CLUSTER_NODE, "d");
    run_for(&t.w, 5 * SECOND);
    cluster_memory_lag(t.w.memory);
    cluster_memory_lose_watches(t.w.memory);
    for (int i = 0; i < 100; i++) {
        run_for(&t.w, 20 * MS);
        const cluster_state *s = cluster_state_acquire(t.a->c);
        const cluster_node *d = cluster_state_node(s, "d");
        assert_true(d != NULL && d->registered);
        cluster_state_release(s);
    }
    world_close(&t.w);
}

/* ------------------------------------------------------------------------------------------------ at random */
static void disturb(world *w, moe_random *r)
{
    static const char *const ids[] = {"a", "b"};
    const cluster_memory_faults none = {0};

    switch (moe_random_below(r, 9)) {
    case 0:
        cluster_memory_expire_leases(w->memory);
        break;
    case 1:
        cluster_memory_lose_watches(w->memory);
        break;
    case 2:
        cluster_memory_mute_watches(w->memory);
        break;
    case 3:
        cluster_memory_compact(w->memory);
        break;
    case 4:
        cluster_memory_wipe(w->memory);
        break;
    case 5:
        cluster_memory_set_faults(w->memory, &(cluster_memory_faults){.down = true});
        run_for(w, moe_random_below(r, 40) * SECOND);
        cluster_memory_set_faults(w->memory, &none);
        break;
    case 6:
        cluster_memory_set_faults(w->memory, &(cluster_memory_faults){.fail_percent = 40, .lose_percent = 5});
        run_for(w, moe_random_below(r, 20) * SECOND);
        cluster_memory_set_faults(w->memory, &none);
        break;
    case 7:
        cluster_memory_set_faults(w->memory, &(cluster_memory_faults){.fail_percent = 10, .max_delay_ns = SECOND});
        run_for(w, moe_random_below(r, 20) * SECOND);
        cluster_memory_set_faults(w->memory, &none);
        break;
    default:
        for (size_t i = 0; i < 2; i++) {
            load_wanted(&w->members[2 + i], ids[i]);
        }
        break;
    }
}

static void assert_at_most_one_controller_in_the_store(world *w)
{
    size_t n = 0;

    for (size_t i = 0; i < w->n; i++) {
        n += state_is(&w->members[i], is_controller);
    }
    assert_int_equal(n, 1);
}

/* Whatever has happened: when it is over, everybody is registered, sees everybody, and one epoch is in force that never
 * fell. */
static void after_any_trouble_the_cluster_is_whole_again(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 25; seed++) {
        world w;
        moe_random r;
        uint64_t highest = 0;

        print_message("seed %llu\n", (unsigned long long)seed);
        world_open(&w, seed);
        w.replication = 1 + (uint32_t)(seed % 2);
        moe_random_seed(&r, seed * 77);
        member *c1 = add(&w, CLUSTER_COORDINATOR, "c1"), *c2 = add(&w, CLUSTER_COORDINATOR, "c2");
        member *a = add(&w, CLUSTER_NODE, "a"), *b = add(&w, CLUSTER_NODE, "b");
        for (int i = 0; i < 12; i++) {
            run_for(&w, moe_random_below(&r, 8000) * MS);
            disturb(&w, &r);
        }
        run_for(&w, 60 * SECOND);
        load_wanted(a, "a");
        load_wanted(b, "b");
        run_for(&w, 2 * SECOND);
        highest = epoch_of(c1);
        assert_true(highest > 0);
        for (size_t i = 0; i < w.n; i++) {
            assert_status(&w.members[i], MOE_OK);
            assert_int_equal(epoch_of(&w.members[i]), highest);
            assert_int_equal(missing_of(&w.members[i]), 0);
        }
        assert_at_most_one_controller_in_the_store(&w);
        assert_int_equal(wanted_of(c2, "a") + wanted_of(c2, "b"), LAYERS * EXPERTS * w.replication);
        world_close(&w);
    }
}

static void bad_options_are_refused(void **state)
{
    world w;
    cluster *c = NULL;
    cluster_store *store = NULL;
    moe_error err;

    (void)state;
    world_open(&w, 1);
    assert_int_equal(cluster_memory_client(w.memory, &store), MOE_OK);
    cluster_options o = {.cluster = "test",
                         .id = "a/b",
                         .address = "x:1",
                         .incarnation = 1,
                         .model = model_of("cpu-f32-1"),
                         .store = store};
    assert_int_equal(cluster_open(&o, &c, &err), MOE_ERR_INVALID_ARG);
    assert_contains(err.text, "a/b");
    o.id = "a";
    o.address = "";
    assert_int_equal(cluster_open(&o, &c, &err), MOE_ERR_INVALID_ARG);
    assert_contains(err.text, "address");
    o.address = "x:1";
    o.model.n_layers = 0;
    assert_int_equal(cluster_open(&o, &c, &err), MOE_ERR_INVALID_ARG);
    cluster_store_close(store);
    world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_node_and_a_coordinator_find_each_other),
        cmocka_unit_test(another_numeric_class_is_denied_by_name),
        cmocka_unit_test(an_id_in_use_is_refused_while_its_holder_answers),
        cmocka_unit_test(an_id_whose_holder_is_dead_is_taken_over_before_its_lease_ends),
        cmocka_unit_test(a_node_whose_id_was_taken_over_is_displaced),
        cmocka_unit_test(a_coordinator_is_displaced_when_the_other_has_outlived_a_lease),
        cmocka_unit_test(who_was_never_registered_is_not_displaced),
        cmocka_unit_test(without_anybody_to_ask_the_lease_decides),
        cmocka_unit_test(leaving_takes_the_keys_away_at_once),
        cmocka_unit_test(keys_stay_while_the_member_lives),
        cmocka_unit_test(everything_is_placed_and_reported_ready),
        cmocka_unit_test(every_ready_replica_can_be_used_while_another_loads),
        cmocka_unit_test(nothing_is_placed_before_min_nodes_are_there),
        cmocka_unit_test(a_later_node_is_given_its_share),
        cmocka_unit_test(an_unchanged_cluster_is_not_placed_again),
        cmocka_unit_test(a_node_that_stops_answering_is_replaced),
        cmocka_unit_test(what_a_dead_node_alone_had_is_placed_at_once),
        cmocka_unit_test(copies_that_a_dead_node_had_are_made_good_when_it_stays_away),
        cmocka_unit_test(a_node_that_comes_back_soon_has_what_it_had),
        cmocka_unit_test(a_silent_node_is_not_taken_for_dead_at_once),
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
        cmocka_unit_test(one_of_two_candidates_is_elected_and_the_other_follows),
        cmocka_unit_test(a_torn_publication_is_repaired),
        cmocka_unit_test(a_placement_is_taken_only_whole),
        cmocka_unit_test(a_lost_lease_is_taken_anew),
        cmocka_unit_test(a_lost_watch_is_read_up),
        cmocka_unit_test(a_watch_that_falls_silent_is_noticed_within_thirty_seconds),
        cmocka_unit_test(who_knows_better_has_everything_read_again),
        cmocka_unit_test(compaction_is_survived),
        cmocka_unit_test(while_the_store_is_down_the_last_state_stays),
        cmocka_unit_test(after_a_wipe_the_store_is_filled_again),
        cmocka_unit_test(epochs_do_not_fall_when_the_coordinator_is_new_too),
        cmocka_unit_test(an_older_store_takes_no_epoch_back),
        cmocka_unit_test(a_new_controller_on_an_older_store_publishes_above_all_that_was_seen),
        cmocka_unit_test(an_older_list_is_not_believed_at_once),
        cmocka_unit_test(after_any_trouble_the_cluster_is_whole_again),
        cmocka_unit_test(bad_options_are_refused),
    };

    moe_log_set_level(MOE_LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
