/* Coordinators and expert nodes on one virtual clock while frames are dropped, doubled, delayed, reordered, cut and
 * flipped, connections break, nodes die and come back, experts vanish from nodes, and jobs are given up. Checked at
 * every event: a result is written once, while its job runs, with the bits of the expert run directly (world.c).
 * Checked at the end: every job finished, nothing leaked, every kind of trouble really happened.
 *
 * SIM_SEED=SEED or FIRST..LAST runs those seeds alone. */
#include "tests/sim/seeds.h"
#include "tests/sim/world.h"

#if defined(__SANITIZE_THREAD__)
#define LAST_SEED 199 /* ten times slower, and only one thread to look at */
#elif defined(__SANITIZE_ADDRESS__)
#define LAST_SEED 499
#else
#define LAST_SEED 1999
#endif
#define CALM_TURN   120
#define LAST_TURN   6000
#define QUIET_TURNS 12

/* What happened, over all seeds. */
static struct {
    uint64_t faults[TRANSPORT_N_FAULTS];
    uint64_t kills, expert_drops, jobs_done, jobs_given_up, pairs_of_coordinators;
    exchange_stats stats;
} total;

static world w;
static uint32_t jobs_left[WORLD_MAX_COORDINATORS];
static uint64_t given_up[WORLD_MAX_COORDINATORS]; /* picks of jobs that were given up */

static uint64_t below(uint64_t bound)
{
    return moe_random_below(&w.random, bound);
}

static bool chance(uint32_t per_mille)
{
    return below(1000) < per_mille;
}

/* ------------------------------------------------------------------------------------------------ a seed's world */
static world_options draw_options(void)
{
    moe_random r;
    world_options o = {.faulty = true, .seed = sim_seed, .dispatch_timeout_ns = 5000000};

    moe_random_seed(&r, sim_seed * 7919 + 1);
    o.numeric_class = moe_random_below(&r, 2) == 0 ? COMPUTE_CLASS_F32_1 : COMPUTE_CLASS_BF16_1;
    o.n_layers = 1 + (uint32_t)moe_random_below(&r, WORLD_MAX_LAYERS);
    o.n_experts = 4 + (uint32_t)moe_random_below(&r, WORLD_MAX_EXPERTS - 3);
    o.k = 1 + (uint32_t)moe_random_below(&r, 4);
    o.d_model = 4 + (uint32_t)moe_random_below(&r, 9);
    o.d_ff = 3 + (uint32_t)moe_random_below(&r, 6);
    o.max_rows = 1 + moe_random_below(&r, WORLD_MAX_ROWS);
    o.max_frame_rows = 1 + moe_random_below(&r, o.max_rows);
    o.node_rows = 1 + (uint32_t)moe_random_below(&r, o.max_rows);
    o.max_ffn_rows = 1 + moe_random_below(&r, o.max_rows * o.k * 4);
    o.n_nodes = 3 + (uint32_t)moe_random_below(&r, 3);
    o.n_coordinators = moe_random_below(&r, 3) == 0 ? 2 : 1;
    o.micro_batches = 1 + (uint32_t)moe_random_below(&r, 2);
    o.heartbeat_ns = moe_random_below(&r, 2) == 0 ? 0 : 20000000;
    o.secret = moe_random_below(&r, 2) == 0 ? NULL : "the cluster's secret";
    for (int f = 0; f < TRANSPORT_N_FAULTS; f++) {
        o.per_mille[f] =
            (uint32_t)moe_random_below(&r, 2) * (uint32_t)moe_random_below(&r, f == TRANSPORT_FAULT_KILL ? 30 : 120);
    }
    o.late_device = moe_random_below(&r, 2) == 0;
    o.device_frames = moe_random_below(&r, 3) == 0;
    return o;
}

/* ------------------------------------------------------------------------------------------------ events */
static void job_event(uint32_t c, uint32_t mb)
{
    exchange *x = w.coordinators[c].x;
    world_job *j = &w.jobs[c][mb];

    if (j->open && exchange_state(x, mb) == EXCHANGE_DONE) {
        world_job_check(&w, c, mb);
        total.jobs_done++;
    }
    if (!j->open && jobs_left[c] > 0 && chance(500)) {
        jobs_left[c]--;
        world_job_make(&w, c, mb);
        assert_int_equal(exchange_begin(x, &j->job), MOE_OK);
    }
}

static void give_up(uint32_t c, uint32_t mb)
{
    world_job *j = &w.jobs[c][mb];

    (void)exchange_progress(w.coordinators[c].x);
    if (j->open && exchange_state(w.coordinators[c].x, mb) == EXCHANGE_RUNNING) {
        exchange_drop(w.coordinators[c].x, mb);
        for (size_t pick = 0; pick < j->job.n_rows * w.o.k; pick++) {
            given_up[c] += j->ids[pick] >= 0 && j->written[pick] == 0;
        }
        j->open = false;
        total.jobs_given_up++;
    } else {
        job_event(c, mb);
    }
}

static void drop_or_load(uint32_t i)
{
    world_node *n = &w.nodes[i];
    uint32_t l = (uint32_t)below(w.o.n_layers), e = (uint32_t)below(w.o.n_experts);

    if (n->node == NULL || !n->holds[l][e]) {
        return;
    }
    if (expert_node_holds(n->node, l, (int32_t)e)) {
        expert_node_drop(n->node, l, (int32_t)e);
        total.expert_drops++;
    } else {
        assert_int_equal(expert_node_load(n->node, l, (int32_t)e, NULL), MOE_OK);
    }
}

static void trouble(void)
{
    uint32_t i = (uint32_t)below(w.o.n_nodes);

    if (w.nodes[i].node == NULL) {
        if (chance(100)) {
            world_node_start(&w, i);
        }
    } else if (chance(10)) {
        world_node_kill(&w, i);
        total.kills++;
    } else if (chance(50)) {
        drop_or_load(i);
    }
    if (chance(5)) {
        give_up((uint32_t)below(w.o.n_coordinators), (uint32_t)below(w.o.micro_batches));
    }
}

static void end_trouble(void)
{
    moe_error err;

    world_calm(&w);
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

/* Not everybody gets to run each time, so that frames meet in all orders. */
static void turn_some(void)
{
    for (uint32_t c = 0; c < w.o.n_coordinators; c++) {
        if (chance(700)) {
            (void)exchange_progress(w.coordinators[c].x);
        }
    }
    for (uint32_t i = 0; i < w.o.n_nodes; i++) {
        if (w.nodes[i].node != NULL && chance(700)) {
            (void)expert_node_progress(w.nodes[i].node);
        }
    }
    moe_clock_virtual_advance(&w.clock, chance(30) ? below(100000000) : below(2000000));
}

/* ------------------------------------------------------------------------------------------------ invariants */
static void check_counts(void)
{
    for (uint32_t c = 0; c < w.o.n_coordinators; c++) {
        exchange_stats s;
        uint64_t running = 0;

        exchange_get_stats(w.coordinators[c].x, &s);
        for (uint32_t mb = 0; mb < w.o.micro_batches; mb++) {
            const world_job *j = &w.jobs[c][mb];

            for (size_t pick = 0; j->open && pick < j->job.n_rows * w.o.k; pick++) {
                running += j->ids[pick] >= 0 && j->written[pick] == 0;
            }
        }
        assert_int_equal(s.rows_dispatched, s.rows_combined + running + given_up[c]);
    }
}

static bool all_done(void)
{
    for (uint32_t c = 0; c < w.o.n_coordinators; c++) {
        for (uint32_t mb = 0; mb < w.o.micro_batches; mb++) {
            if (jobs_left[c] > 0 || w.jobs[c][mb].open) {
                return false;
            }
        }
    }
    return true;
}

/* Nothing to do and no faults: after a while every buffer is back where it belongs. */
static void check_quiet(void)
{
    size_t frames_out, attempts_out;
    expert_node_stats n;

    for (int turn = 0; turn < QUIET_TURNS; turn++) {
        world_turn(&w, 10);
    }
    for (uint32_t c = 0; c < w.o.n_coordinators; c++) {
        exchange_get_held(w.coordinators[c].x, &frames_out, &attempts_out);
        assert_int_equal(frames_out, 0);
        assert_int_equal(attempts_out, 0);
    }
    for (uint32_t i = 0; i < w.o.n_nodes; i++) {
        expert_node_get_stats(w.nodes[i].node, &n);
        assert_int_equal(n.frames_out, 0);
    }
}

static void add_up(void)
{
    world_count_faults(&w, total.faults);
    total.pairs_of_coordinators += w.o.n_coordinators == 2;
    for (uint32_t c = 0; c < w.o.n_coordinators; c++) {
        exchange_stats s;

        exchange_get_stats(w.coordinators[c].x, &s);
        total.stats.rows_combined += s.rows_combined;
        total.stats.retries += s.retries;
        total.stats.hedges += s.hedges;
        total.stats.late_results += s.late_results;
        total.stats.bad_frames += s.bad_frames;
        total.stats.refusals += s.refusals;
    }
}

static void run_seed(void)
{
    world_options o = draw_options();

    world_open(&w, &o);
    for (uint32_t c = 0; c < o.n_coordinators; c++) {
        jobs_left[c] = 4 + (uint32_t)below(8);
        given_up[c] = 0;
    }
    for (int turn = 0; turn <= CALM_TURN || !all_done(); turn++) {
        if (turn == LAST_TURN) {
            fail_msg("jobs did not finish although the faults had stopped");
        }
        if (turn < CALM_TURN) {
            trouble();
        } else if (turn == CALM_TURN) {
            end_trouble();
        }
        turn_some();
        for (uint32_t c = 0; c < o.n_coordinators; c++) {
            job_event(c, (uint32_t)below(o.micro_batches));
        }
        check_counts();
    }
    check_quiet();
    add_up();
    world_close(&w);
}

/* ------------------------------------------------------------------------------------------------ program */
static void picks_are_combined_once_with_equal_bits_whatever_breaks(void **state)
{
    (void)state;
    if (!sim_run_seeds(LAST_SEED, run_seed)) {
        return;
    }
    for (int f = 0; f < TRANSPORT_N_FAULTS; f++) {
        print_message("%s: %llu\n", transport_fault_names[f], (unsigned long long)total.faults[f]);
        assert_true(total.faults[f] > 0);
    }
    assert_true(total.kills > 0 && total.expert_drops > 0 && total.jobs_given_up > 0 &&
                total.pairs_of_coordinators > 0);
    assert_true(total.stats.retries > 0 && total.stats.hedges > 0 && total.stats.late_results > 0 &&
                total.stats.bad_frames > 0 && total.stats.refusals > 0);
    print_message("%llu jobs, %llu picks, %llu given up; %llu kills, %llu retries, %llu hedges, %llu late, %llu bad, "
                  "%llu refused\n",
                  (unsigned long long)total.jobs_done, (unsigned long long)total.stats.rows_combined,
                  (unsigned long long)total.jobs_given_up, (unsigned long long)total.kills,
                  (unsigned long long)total.stats.retries, (unsigned long long)total.stats.hedges,
                  (unsigned long long)total.stats.late_results, (unsigned long long)total.stats.bad_frames,
                  (unsigned long long)total.stats.refusals);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(picks_are_combined_once_with_equal_bits_whatever_breaks, sim_name_seed),
    };

    moe_log_set_level(MOE_LOG_ERROR);
    compute_thread_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
