/* A pool follows its cluster: which nodes it is connected to, when it says that it applies a placement, what wakes it. */
#include <stdlib.h>

#include "tests/sim/cluster_world.h"
#include "tests/sim/obstacle.h"
#include "tests/support/random_model.h"

#define TURN_NS UINT64_C(5000000)
#define PATIENT 12000 /* turns, a minute of virtual time: more than any timer of a member */

typedef struct world {
    test_folder folder;
    model_fixture model;
    cluster_world w;
    transport_ops ops; /* of the pool's transport, with a wake that counts */
} world;

static unsigned n_wakes;

/* Coordinators, and one node that has everything. */
static int setup_with(void **state, uint32_t n_coordinators)
{
    const cluster_world_options o = {.seed = 1,
                                     .n_nodes = 2,
                                     .n_coordinators = n_coordinators,
                                     .micro_batches = 1,
                                     .replication = 1,
                                     .min_nodes = 1,
                                     .turn_ns = TURN_NS,
                                     .max_delay_ns = TURN_NS};
    random_model m = random_model_defaults("olmoe");
    world *w = calloc(1, sizeof *w);

    test_folder_open(&w->folder);
    m.n_layers = 2;
    random_model_write(&m, w->folder.path);
    model_fixture_options f = model_fixture_defaults(w->folder.path);
    f.n_threads = 1;
    model_fixture_open(&w->model, &f);
    cluster_world_open(&w->w, &w->model, &o);
    for (uint32_t i = 0; i < n_coordinators; i++) {
        cluster_world_start_coordinator(&w->w, i);
        for (int turn = 0; turn < 200; turn++) { /* the first is the controller */
            cluster_world_turn(&w->w);
        }
    }
    cluster_world_start_node(&w->w, 0);
    *state = w;
    return 0;
}

static int setup(void **state)
{
    return setup_with(state, 1);
}

static int setup_two(void **state)
{
    return setup_with(state, 2);
}

static int teardown(void **state)
{
    world *w = *state;

    cluster_world_close(&w->w);
    model_fixture_close(&w->model);
    test_folder_close(&w->folder);
    free(w);
    return 0;
}

/* The epoch that the coordinator says it applies: on its connection, which is all that counts while it has lost the store;
 * and in the store. */
static uint64_t told_on_connection(const world *w)
{
    expert_node_stats stats;

    expert_node_get_stats(w->w.nodes[0].node, &stats);
    return stats.coordinators > 0 ? stats.epoch_applied : 0;
}

static uint64_t told_in_store(const world *w)
{
    const cluster_state *s = cluster_state_acquire(w->w.nodes[0].cluster);
    uint64_t epoch = s->n_coordinators > 0 ? s->coordinators[0].epoch_applied : 0;

    cluster_state_release(s);
    return epoch;
}

static void turn_until_told(world *w, uint64_t above)
{
    for (int turn = 0; turn < PATIENT && (told_on_connection(w) <= above || told_in_store(w) <= above); turn++) {
        cluster_world_turn(&w->w);
    }
    assert_true(told_on_connection(w) > above);
    assert_int_equal(told_on_connection(w), told_in_store(w));
}

/* Who is to have which experts, and has them. */
typedef struct owners {
    size_t n_of_1, n_missing_at_1; /* experts of node 1; those that it does not hold */
    size_t n_dropped_by_0;         /* given away */
    size_t n_of_nobody;            /* held by neither */
} owners;

static owners owners_now(const world *w)
{
    const model_config *c = &w->model.config;
    const cluster_state *s = cluster_state_acquire(w->w.nodes[0].cluster);
    uint64_t *wanted = calloc(router_space_words(s->space), sizeof *wanted);
    owners o = {.n_of_1 = cluster_state_wanted(s, w->w.nodes[1].m.id, wanted)};

    for (uint32_t layer = 0; layer < c->n_layers; layer++) {
        for (uint32_t e = 0; e < c->n_ffn_experts; e++) {
            bool at_0 = expert_node_holds(w->w.nodes[0].node, layer, (int32_t)e);
            bool at_1 = expert_node_holds(w->w.nodes[1].node, layer, (int32_t)e);
            o.n_missing_at_1 += router_bit(wanted, router_space_slot(s->space, layer, (int32_t)e)) && !at_1;
            o.n_dropped_by_0 += !at_0;
            o.n_of_nobody += !at_0 && !at_1;
        }
    }
    free(wanted);
    cluster_state_release(s);
    return o;
}

/* Former owners may drop what they gave away once an epoch is applied: while the new one loads, rows still go to them. What
 * has its new owner is settled long before, so that full nodes get room. */
static void an_epoch_is_applied_when_the_new_owners_have_everything(void **state)
{
    world *w = *state;
    size_t most_missing = 0, dropped_before = 0;

    turn_until_told(w, 0);
    const uint64_t before = told_in_store(w);
    cluster_world_start_node(&w->w, 1);
    w->w.nodes[1].every = 20;
    for (int turn = 0; turn < PATIENT; turn++) {
        owners o = owners_now(w);
        assert_int_equal(o.n_of_nobody, 0);
        if (told_in_store(w) != before || told_on_connection(w) != before) {
            break;
        }
        most_missing = MOE_MAX(most_missing, o.n_missing_at_1);
        dropped_before = o.n_dropped_by_0;
        cluster_world_turn(&w->w);
    }
    owners o = owners_now(w);
    assert_true(o.n_of_1 > 0);
    assert_int_equal(o.n_missing_at_1, 0);
    assert_int_equal(most_missing, o.n_of_1); /* the placement was known long before */
    assert_true(dropped_before > 0);
    turn_until_told(w, before);
}

static bool is_used(const world *w)
{
    exchange_node_info info;

    return exchange_get_node(pool_exchange(w->w.coordinators[0].pool), w->w.nodes[0].m.id, &info) &&
           info.kind == EXCHANGE_NODE_READY && info.incarnation == w->w.nodes[0].m.incarnation;
}

/* The same name at the same address; what it held is gone. Its predecessor's key is still there. */
static void a_node_that_was_started_anew_is_used_again(void **state)
{
    world *w = *state;

    turn_until_told(w, 0);
    assert_true(is_used(w));
    cluster_world_kill_node(&w->w, 0);
    cluster_world_start_node(&w->w, 0);
    assert_false(is_used(w));
    for (int turn = 0; turn < PATIENT && !is_used(w); turn++) {
        cluster_world_turn(&w->w);
    }
    assert_true(is_used(w));
}

/* Its key stays for 15 s, and heartbeats that it misses tell after more than a second. That nobody listens at its address any
 * more is what its coordinator's own connection says. Of virtual time it takes 100 ms. */
static void what_a_killed_node_had_is_placed_before_its_lease_ends(void **state)
{
    world *w = *state;

    turn_until_told(w, 0);
    cluster_world_start_node(&w->w, 1);
    turn_until_told(w, told_in_store(w));
    const uint64_t before = told_in_store(w), killed_ns = cluster_world_now(&w->w);
    assert_true(owners_now(w).n_of_1 > 0);
    cluster_world_kill_node(&w->w, 1);
    turn_until_told(w, before);
    assert_true(cluster_world_now(&w->w) - killed_ns < 500 * UINT64_C(1000000));
}

/* The key is under the node's own lease, of its incarnation, and false. Its connection is broken: nobody there says otherwise. */
static void what_a_key_claims_lets_nobody_drop_the_last_copy(void **state)
{
    world *w = *state;

    turn_until_told(w, 0);
    cluster_world_start_node(&w->w, 1);
    for (int turn = 0; turn < PATIENT && owners_now(w).n_of_1 == 0; turn++) {
        cluster_world_turn(&w->w);
    }
    assert_true(owners_now(w).n_missing_at_1 > 0);
    w->w.nodes[1].m.stopped_until_ns = cluster_world_now(&w->w) + 60 * UINT64_C(1000000000);
    for (int turn = 0; turn < PATIENT; turn++) {
        (void)cluster_world_lie_of_node(&w->w, 1);
        cluster_world_turn(&w->w);
        assert_int_equal(owners_now(w).n_of_nobody, 0);
    }
}

/* One coordinator never reaches a node that the other serves with: what moves there is given up by its former owner all the
 * same, once the new one has it. */
static void a_coordinator_that_reaches_less_holds_nobody_up_for_ever(void **state)
{
    world *w = *state;
    size_t n_dropped = 0;

    turn_until_told(w, 0);
    cluster_world_obstruct(&w->w, 1, 1, OBSTACLE_OUT | OBSTACLE_IN, UINT64_C(1000000000000));
    cluster_world_start_node(&w->w, 1);
    for (int turn = 0; turn < PATIENT; turn++) {
        owners o = owners_now(w);
        assert_int_equal(o.n_of_nobody, 0);
        if (o.n_of_1 > 0 && o.n_dropped_by_0 == o.n_of_1) {
            n_dropped = o.n_dropped_by_0;
            break;
        }
        cluster_world_turn(&w->w);
    }
    assert_true(n_dropped > 0);
}

static void count_wake(transport *t)
{
    (void)t;
    n_wakes++;
}

/* The engine may sleep on its transport for as long as nothing comes. */
static void a_change_of_the_cluster_wakes_the_transport(void **state)
{
    world *w = *state;
    transport *t = w->w.coordinators[0].m.t;

    turn_until_told(w, 0);
    for (int turn = 0; turn < 200; turn++) { /* until it has heard of its own report */
        cluster_world_turn(&w->w);
    }
    w->ops = *t->ops;
    w->ops.wake = count_wake;
    t->ops = &w->ops;
    n_wakes = 0;
    cluster_world_start_node(&w->w, 1);
    for (int turn = 0; turn < PATIENT && n_wakes == 0; turn++) {
        cluster_world_turn(&w->w);
    }
    assert_true(n_wakes > 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(an_epoch_is_applied_when_the_new_owners_have_everything),
        TEST(a_node_that_was_started_anew_is_used_again),
        TEST(what_a_killed_node_had_is_placed_before_its_lease_ends),
        TEST(what_a_key_claims_lets_nobody_drop_the_last_copy),
        cmocka_unit_test_setup_teardown(a_coordinator_that_reaches_less_holds_nobody_up_for_ever, setup_two, teardown),
        TEST(a_change_of_the_cluster_wakes_the_transport),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
