/* Experts move between nodes while coordinators compute. Each coordinator hears of a new placement at a time of its own;
 * a node drops what it gave away by the rule of docs/wire.md, from what its connections tell alone. Checked: every job
 * finishes with the bits of the experts, and no row ever comes to a node that has dropped its expert.
 *
 * SIM_SEED=SEED or FIRST..LAST runs those seeds alone. */
#include "tests/sim/seeds.h"
#include "tests/sim/world.h"

#if defined(__SANITIZE_THREAD__)
#define LAST_SEED 9 /* ten times slower, and only one thread to look at */
#elif defined(__SANITIZE_ADDRESS__)
#define LAST_SEED 29
#else
#define LAST_SEED 99
#endif
#define TURNS     400
#define LAST_TURN 4000

static world w;
static uint64_t epoch, applied[WORLD_MAX_COORDINATORS];
static uint64_t n_moves, n_drops, n_jobs;

static bool chance(uint32_t per_mille)
{
    return moe_random_below(&w.random, 1000) < per_mille;
}

static void apply(uint32_t c)
{
    exchange_set_placement(w.coordinators[c].x, w.placement);
    exchange_set_applied(w.coordinators[c].x, epoch);
    applied[c] = epoch;
}

/* The new owners are there before anybody hears of it, as coordinators wait for them. */
static void move_experts(void)
{
    moe_error err;

    world_place(&w, ++epoch);
    n_moves++;
    for (uint32_t i = 0; i < w.o.n_nodes; i++) {
        for (uint32_t l = 0; l < w.o.n_layers; l++) {
            for (uint32_t e = 0; e < w.o.n_experts; e++) {
                if (w.nodes[i].holds[l][e] && !expert_node_holds(w.nodes[i].node, l, (int32_t)e)) {
                    assert_ok(expert_node_load(w.nodes[i].node, l, (int32_t)e, &err), err);
                }
            }
        }
    }
}

static void drop_surplus(const world_node *n)
{
    if (expert_node_epoch_applied(n->node) < epoch) {
        return;
    }
    for (uint32_t l = 0; l < w.o.n_layers; l++) {
        for (uint32_t e = 0; e < w.o.n_experts; e++) {
            if (!n->holds[l][e] && expert_node_holds(n->node, l, (int32_t)e)) {
                expert_node_drop(n->node, l, (int32_t)e);
                n_drops++;
            }
        }
    }
}

static void turn_coordinator(uint32_t c, bool more)
{
    world_job *j = &w.jobs[c][0];

    if (applied[c] != epoch && chance(50)) {
        apply(c);
    }
    if (j->open && exchange_state(w.coordinators[c].x, 0) == EXCHANGE_DONE) {
        world_job_check(&w, c, 0);
        n_jobs++;
    }
    if (!j->open && more && chance(500)) {
        world_job_make(&w, c, 0);
        assert_int_equal(exchange_begin(w.coordinators[c].x, &j->job), MOE_OK);
    }
    if (chance(700)) {
        (void)exchange_progress(w.coordinators[c].x);
    }
}

static void turn(bool more)
{
    if (more && chance(30)) {
        move_experts();
    }
    for (uint32_t c = 0; c < w.o.n_coordinators; c++) {
        turn_coordinator(c, more);
    }
    for (uint32_t i = 0; i < w.o.n_nodes; i++) {
        if (chance(700)) {
            (void)expert_node_progress(w.nodes[i].node);
            drop_surplus(&w.nodes[i]);
        }
    }
    moe_clock_virtual_advance(&w.clock, 1000);
}

static bool all_done(void)
{
    for (uint32_t c = 0; c < w.o.n_coordinators; c++) {
        if (w.jobs[c][0].open || applied[c] != epoch) {
            return false;
        }
    }
    return true;
}

static void run_seed(void)
{
    const uint64_t seed = sim_seed;
    const world_options o = {.n_layers = 2,
                             .n_experts = 4 + (uint32_t)(seed % 9),
                             .k = 1 + (uint32_t)(seed % 4),
                             .d_model = 4,
                             .d_ff = 3,
                             .max_rows = 1 + seed % WORLD_MAX_ROWS,
                             .n_nodes = 2 + (uint32_t)(seed % 4),
                             .n_coordinators = 1 + (uint32_t)(seed % 2),
                             .micro_batches = 1,
                             .replication = (uint32_t)(seed % 3),
                             .seed = seed,
                             .dispatch_timeout_ns = 10000000000};

    epoch = 1;
    world_open(&w, &o);
    world_settle(&w);
    for (uint32_t c = 0; c < o.n_coordinators; c++) {
        apply(c);
    }
    for (int t = 0; t < TURNS || !all_done(); t++) {
        assert_true(t < LAST_TURN);
        turn(t < TURNS);
    }
    for (uint32_t c = 0; c < o.n_coordinators; c++) {
        exchange_stats s;

        exchange_get_stats(w.coordinators[c].x, &s);
        assert_int_equal(s.refusals + s.retries + s.hedges, 0);
    }
    world_close(&w);
}

static void no_row_comes_to_a_node_that_has_dropped_its_expert(void **state)
{
    (void)state;
    if (!sim_run_seeds(LAST_SEED, run_seed)) {
        return;
    }
    print_message("%llu jobs, %llu moves, %llu drops\n", (unsigned long long)n_jobs, (unsigned long long)n_moves,
                  (unsigned long long)n_drops);
    assert_true(n_jobs > 0 && n_moves > 0 && n_drops > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(no_row_comes_to_a_node_that_has_dropped_its_expert, sim_name_seed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
