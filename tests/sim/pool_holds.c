/* Which experts a coordinator sends rows to: those that nodes tell of on their connections, whatever etcd says. */
#include "tests/sim/cluster_world.h"

#include "tests/support/random_model.h"

#define MS    UINT64_C(1000000)
#define TURNS 20000 /* far more than needed: a bound, not a measure */

static test_folder folder;
static model_fixture fixture;
static cluster_world w;

static int prepare(void **state)
{
    random_model m = random_model_defaults("olmoe");

    (void)state;
    test_folder_open(&folder);
    m.n_layers = 2;
    random_model_write(&m, folder.path);
    const model_fixture_options o = model_fixture_defaults(folder.path);
    model_fixture_open(&fixture, &o);
    return 0;
}

static int clean_up(void **state)
{
    (void)state;
    model_fixture_close(&fixture);
    test_folder_close(&folder);
    return 0;
}

static int setup(void **state)
{
    const cluster_world_options o = {.seed = 3,
                                     .n_nodes = 2,
                                     .n_coordinators = 1,
                                     .micro_batches = 1,
                                     .replication = 1,
                                     .min_nodes = 2,
                                     .turn_ns = 2 * MS,
                                     .max_delay_ns = MS};

    (void)state;
    cluster_world_open(&w, &fixture, &o);
    cluster_world_start_coordinator(&w, 0);
    cluster_world_start_node(&w, 0);
    cluster_world_start_node(&w, 1);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    cluster_world_close(&w);
    return 0;
}

static exchange_coverage coverage(void)
{
    exchange_coverage c;

    exchange_get_coverage(pool_exchange(w.coordinators[0].pool), &c);
    return c;
}

/* Until all is covered. False: it never was. */
static bool turn_until_whole(void)
{
    for (int i = 0; i < TURNS && !coverage().whole; i++) {
        cluster_world_turn(&w);
    }
    return coverage().whole;
}

static bool nodes_know_what_is_theirs(void)
{
    for (uint32_t i = 0; i < w.o.n_nodes; i++) {
        assignment_progress p;

        assignment_get_progress(w.nodes[i].assignment, &p);
        if (p.epoch == 0) {
            return false;
        }
    }
    return true;
}

static void what_a_node_tells_is_used_though_etcd_is_gone(void **state)
{
    moe_error err;

    (void)state;
    for (int i = 0; i < TURNS && !(nodes_know_what_is_theirs() && coverage().placed); i++) {
        cluster_world_turn(&w);
    }
    assert_true(coverage().placed && !coverage().whole);
    cluster_memory_set_faults(w.memory, &(cluster_memory_faults){.down = true});
    assert_true(turn_until_whole());
    assert_true(pool_covered(w.coordinators[0].pool, &err)); /* though etcd has never said so */
}

static void what_a_node_denies_is_not_used_though_etcd_says_it(void **state)
{
    moe_error err;
    uint32_t i = 0;

    (void)state;
    assert_true(turn_until_whole());
    for (int turn = 0; turn < 1000; turn++) {
        cluster_world_turn(&w);
    }
    assert_true(pool_covered(w.coordinators[0].pool, &err));
    i = expert_node_holds(w.nodes[1].node, 1, 2);
    assert_true(expert_node_holds(w.nodes[i].node, 1, 2));
    expert_node_drop(w.nodes[i].node, 1, 2); /* its report stays as it is */
    for (int turn = 0; turn < 100; turn++) {
        cluster_world_turn(&w);
    }
    assert_false(pool_covered(w.coordinators[0].pool, &err));
    const exchange_coverage c = coverage();
    assert_false(c.whole);
    assert_int_equal(c.n_missing, 1);
    assert_int_equal(c.missing[0].layer, 1);
    assert_int_equal(c.missing[0].id, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_a_node_tells_is_used_though_etcd_is_gone, setup, teardown),
        cmocka_unit_test_setup_teardown(what_a_node_denies_is_not_used_though_etcd_says_it, setup, teardown),
    };
    return cmocka_run_group_tests(tests, prepare, clean_up);
}
