/* Nodes that stand still for a moment, and nodes that are slow. */
#include "tests/sim/obstacle.h"
#include "tests/sim/world.h"
#include "tests/support/support.h"

#define MS UINT64_C(1000000)

static world w;

static exchange_stats stats(void)
{
    exchange_stats s;

    exchange_get_stats(w.coordinators[0].x, &s);
    return s;
}

static exchange_node_info node_info(const char *id)
{
    exchange_node_info info;

    assert_true(exchange_get_node(w.coordinators[0].x, id, &info));
    return info;
}

/* Node 0 turns every `every`-th turn, the others every one; 0: never. Returns how many turns it took. */
static int run_job_in(int every, uint64_t turn_ns)
{
    exchange *x = w.coordinators[0].x;
    int turn = 0;

    world_job_make(&w, 0, 0);
    assert_int_equal(exchange_begin(x, &w.jobs[0][0].job), MOE_OK);
    for (; turn < 2000 && exchange_state(x, 0) == EXCHANGE_RUNNING; turn++) {
        for (uint32_t i = 0; i < w.o.n_nodes; i++) {
            if (w.nodes[i].node != NULL && (i != 0 || (every > 0 && turn % every == every - 1))) {
                (void)expert_node_progress(w.nodes[i].node);
            }
        }
        moe_clock_virtual_advance(&w.clock, turn_ns);
        (void)exchange_progress(x);
    }
    assert_int_equal(exchange_state(x, 0), EXCHANGE_DONE);
    world_job_check(&w, 0, 0);
    return turn;
}

/* Turns of a millisecond. */
static int run_job(int every)
{
    return run_job_in(every, MS);
}

static void open_world(uint32_t n_nodes, uint32_t replication)
{
    const world_options o = {.numeric_class = COMPUTE_CLASS_F32_1,
                             .n_layers = 2,
                             .n_experts = 12,
                             .k = 3,
                             .d_model = 16,
                             .d_ff = 16,
                             .max_rows = 24,
                             .n_nodes = n_nodes,
                             .n_coordinators = 1,
                             .micro_batches = 1,
                             .replication = replication,
                             .seed = 78,
                             .dispatch_timeout_ns = 5000 * MS};

    world_open(&w, &o);
    world_settle(&w);
}

/* So many jobs that what is usual is known of all nodes. */
static void learn(void)
{
    for (int i = 0; i < 40; i++) {
        (void)run_job(1);
    }
}

static void a_node_that_stands_still_is_hedged_long_before_its_deadline(void **state)
{
    (void)state;
    open_world(2, 2);
    learn();
    assert_int_equal(stats().hedges, 0);
    assert_true(run_job(0) < 100);
    assert_int_equal(stats().hedges, 1);
    assert_int_equal(node_info("node-0").hedges, 1);
    /* Until it answers, it is asked for nothing. */
    uint64_t frames = stats().frames_sent;
    assert_true(run_job(0) < 5);
    assert_int_equal(stats().frames_sent, frames + 1);
    /* It wakes up: what it computed is late, and it is asked again. */
    for (int turn = 0; turn < 4; turn++) {
        world_turn(&w, MS);
    }
    assert_int_equal(stats().late_results, 1);
    uint64_t rows = node_info("node-0").rows;
    (void)run_job(1);
    assert_true(node_info("node-0").rows > rows);
    world_close(&w);
}

/* What it usually takes is not known yet: what the others take is. */
static void a_new_node_that_stands_still_is_hedged_by_what_others_take(void **state)
{
    moe_error err;
    exchange *x;

    (void)state;
    open_world(2, 2);
    learn();
    x = w.coordinators[0].x;
    world_node_kill(&w, 0);
    exchange_remove_node(x, "node-0");
    world_node_start(&w, 0);
    assert_int_equal(exchange_add_node(x, "node-0", "node-0", 0, &err), MOE_OK);
    for (int turn = 0; turn < 100 && !exchange_node_ready(x, "node-0"); turn++) {
        world_turn(&w, MS);
    }
    assert_true(run_job(0) < 1000);
    assert_int_equal(node_info("node-0").hedges, 1);
    world_close(&w);
}

/* Nothing is known of anybody, and nobody answers; then node 1 does. */
static void the_first_job_of_a_pool_is_hedged_too(void **state)
{
    exchange *x;
    int turn = 0;

    (void)state;
    open_world(2, 2);
    x = w.coordinators[0].x;
    world_job_make(&w, 0, 0);
    assert_int_equal(exchange_begin(x, &w.jobs[0][0].job), MOE_OK);
    for (; turn < 1000 && exchange_state(x, 0) == EXCHANGE_RUNNING; turn++) {
        if (turn >= 300) {
            (void)expert_node_progress(w.nodes[1].node);
        }
        moe_clock_virtual_advance(&w.clock, MS);
        (void)exchange_progress(x);
    }
    assert_true(turn < 350);
    assert_int_equal(node_info("node-0").hedges, 1);
    world_job_check(&w, 0, 0);
    world_close(&w);
}

/* So short jobs have told what a unit takes that a long one would be waited for much too long. */
static void a_long_part_is_hedged_by_what_its_job_takes(void **state)
{
    exchange *x;
    int turn = 0;

    (void)state;
    open_world(2, 2);
    x = w.coordinators[0].x;
    for (int i = 0; i < 40; i++) {
        (void)run_job_in(1, 60 * MS);
    }
    do { /* both nodes are asked, and node 1 answers at once */
        world_job_make(&w, 0, 0);
    } while (w.jobs[0][0].job.n_rows < 20);
    assert_int_equal(exchange_begin(x, &w.jobs[0][0].job), MOE_OK);
    for (; turn < 2000 && exchange_state(x, 0) == EXCHANGE_RUNNING; turn++) {
        (void)expert_node_progress(w.nodes[1].node);
        moe_clock_virtual_advance(&w.clock, MS);
        (void)exchange_progress(x);
    }
    assert_true(turn < 300);
    world_job_check(&w, 0, 0);
    world_close(&w);
}

/* An owner that is late itself is not asked, but it is as soon as it answers. */
static void whoever_can_take_a_late_part_later_is_given_it_then(void **state)
{
    exchange *x;

    (void)state;
    open_world(2, 2);
    learn();
    assert_true(run_job(0) < 100); /* node 0 is late, and is asked for nothing until it answers */
    x = w.coordinators[0].x;
    world_job_make(&w, 0, 0);
    assert_int_equal(exchange_begin(x, &w.jobs[0][0].job), MOE_OK);
    for (int turn = 0; turn < 200; turn++) { /* and now node 1 */
        moe_clock_virtual_advance(&w.clock, MS);
        (void)exchange_progress(x);
    }
    assert_int_equal(exchange_state(x, 0), EXCHANGE_RUNNING);
    assert_int_equal(stats().hedges, 1);
    for (int turn = 0; turn < 500 && exchange_state(x, 0) == EXCHANGE_RUNNING; turn++) {
        (void)expert_node_progress(w.nodes[0].node);
        moe_clock_virtual_advance(&w.clock, MS);
        (void)exchange_progress(x);
    }
    assert_int_equal(exchange_state(x, 0), EXCHANGE_DONE);
    assert_int_equal(stats().hedges, 2);
    world_job_check(&w, 0, 0);
    world_close(&w);
}

/* What only the late node has is awaited; it is not asked for it twice. */
static void an_only_owner_is_waited_for(void **state)
{
    (void)state;
    open_world(2, 1);
    learn();
    uint64_t frames = stats().frames_sent;
    assert_true(run_job(300) >= 299);
    assert_int_equal(stats().hedges, 0);
    assert_in_range(stats().frames_sent, frames + 1, frames + 2);
    world_close(&w);
}

/* A dead node's picks that were hedged are not asked for again: another attempt has them. */
static void a_hedged_node_that_dies_loses_nothing(void **state)
{
    (void)state;
    open_world(3, 2);
    learn();
    world_job_make(&w, 0, 0);
    exchange *x = w.coordinators[0].x;
    assert_int_equal(exchange_begin(x, &w.jobs[0][0].job), MOE_OK);
    for (int turn = 0; turn < 100 && stats().hedges == 0; turn++) {
        (void)expert_node_progress(w.nodes[1].node);
        (void)expert_node_progress(w.nodes[2].node);
        moe_clock_virtual_advance(&w.clock, MS);
        (void)exchange_progress(x);
    }
    assert_int_equal(stats().hedges, 1);
    world_node_kill(&w, 0);
    for (int turn = 0; turn < 20; turn++) {
        world_turn(&w, MS);
    }
    assert_int_equal(exchange_state(x, 0), EXCHANGE_DONE);
    world_job_check(&w, 0, 0);
    assert_int_equal(stats().rows_combined, stats().rows_dispatched);
    world_close(&w);
}

static void a_slow_node_is_given_less(void **state)
{
    exchange_node_info slow, other;

    (void)state;
    open_world(2, 2);
    learn();
    uint64_t slow_before = node_info("node-0").rows, other_before = node_info("node-1").rows;
    for (int i = 0; i < 200; i++) {
        (void)run_job(10);
    }
    slow = node_info("node-0");
    other = node_info("node-1");
    assert_true(slow.slowness >= 2);
    assert_true((slow.rows - slow_before) * 3 < other.rows - other_before);
    assert_true(slow.rows > slow_before); /* it is tried now and then */
    for (int i = 0; i < 60; i++) {
        moe_clock_virtual_advance(&w.clock, 50 * MS);
        (void)run_job(1);
    }
    assert_true(node_info("node-0").slowness < 2); /* as fast as the other again */
    world_close(&w);
}

/* ------------------------------------------------------------------------------------------------ computes nothing */
static transport *open_behind_obstacle(const char *id)
{
    const transport_loopback_options o = {
        .net = w.net, .address = id, .max_message = 1 << 16, .max_peers = 16, .max_queued = 32};
    transport *t;

    assert_int_equal(transport_loopback_open(&o, &t), MOE_OK);
    return obstacle_open(t);
}

/* With signs of life, and node 0 behind an obstacle. */
static void open_world_with_beats(uint32_t replication)
{
    const world_options o = {.numeric_class = COMPUTE_CLASS_F32_1,
                             .n_layers = 2,
                             .n_experts = 12,
                             .k = 3,
                             .d_model = 16,
                             .d_ff = 16,
                             .max_rows = 24,
                             .n_nodes = 2,
                             .n_coordinators = 1,
                             .micro_batches = 1,
                             .replication = replication,
                             .seed = 78,
                             .dispatch_timeout_ns = 5000 * MS,
                             .heartbeat_ns = 250 * MS,
                             .endpoint_open = open_behind_obstacle};

    world_open(&w, &o);
    world_settle(&w);
    learn();
}

static bool is_covered(void)
{
    exchange_coverage c;

    exchange_get_coverage(w.coordinators[0].x, &c);
    return c.whole;
}

/* Until the job is done, or so much time has passed. */
static void turn_for(uint64_t ns)
{
    for (uint64_t t = 0; t < ns && exchange_state(w.coordinators[0].x, 0) == EXCHANGE_RUNNING; t += 20 * MS) {
        world_turn(&w, 20 * MS);
    }
}

/* It is not waited for without an end, whatever its pings say; and it is tried again. */
static void an_only_owner_that_computes_nothing_counts_as_lost(void **state)
{
    exchange *x;

    (void)state;
    open_world_with_beats(1);
    x = w.coordinators[0].x;
    obstacle_mute(w.nodes[0].t, true);
    world_job_make(&w, 0, 0);
    assert_int_equal(exchange_begin(x, &w.jobs[0][0].job), MOE_OK);
    turn_for(9000 * MS);
    assert_true(is_covered());
    turn_for(3000 * MS);
    assert_true(exchange_node_ready(x, "node-0")); /* its connection lives */
    assert_true(node_info("node-0").is_mute);
    assert_false(is_covered());
    assert_true(exchange_stuck_since(x, 0) != 0);
    obstacle_mute(w.nodes[0].t, false);
    turn_for(11000 * MS);
    assert_int_equal(exchange_state(x, 0), EXCHANGE_DONE);
    world_job_check(&w, 0, 0);
    assert_false(node_info("node-0").is_mute);
    assert_true(is_covered());
    world_close(&w);
}

/* Drops, or loads, the experts that are noted: those it had at first. */
static void set_experts_of_node_0(bool held[2][12], bool on)
{
    moe_error err;

    for (uint32_t layer = 0; layer < 2; layer++) {
        for (int32_t id = 0; id < 12; id++) {
            if (!on) {
                held[layer][id] = expert_node_holds(w.nodes[0].node, layer, id);
                expert_node_drop(w.nodes[0].node, layer, id);
            } else if (held[layer][id]) {
                assert_ok(expert_node_load(w.nodes[0].node, layer, id, &err), err);
            }
        }
    }
}

/* It tells that it has them, and refuses them all: nothing is ever late. */
static void an_only_owner_that_refuses_everything_counts_as_lost(void **state)
{
    bool held[2][12];
    exchange *x;

    (void)state;
    open_world_with_beats(1);
    x = w.coordinators[0].x;
    obstacle_hide(w.nodes[0].t, true);
    set_experts_of_node_0(held, false);
    do {
        exchange_drop(x, 0);
        world_job_make(&w, 0, 0);
        assert_int_equal(exchange_begin(x, &w.jobs[0][0].job), MOE_OK);
        turn_for(1000 * MS);
    } while (exchange_state(x, 0) != EXCHANGE_RUNNING);
    turn_for(7000 * MS);
    assert_true(is_covered());
    turn_for(6000 * MS);
    assert_true(node_info("node-0").is_mute);
    assert_false(is_covered());
    set_experts_of_node_0(held, true);
    turn_for(30000 * MS);
    assert_int_equal(exchange_state(x, 0), EXCHANGE_DONE);
    world_job_check(&w, 0, 0);
    assert_false(node_info("node-0").is_mute);
    assert_true(is_covered());
    world_close(&w);
}

/* The other owner has answered long ago. A node that is tried in vain is left alone for longer each time. */
static void a_node_that_computes_nothing_is_asked_ever_less(void **state)
{
    int n_tried[2] = {0, 0};
    uint64_t rows = 0;

    (void)state;
    open_world_with_beats(2);
    obstacle_mute(w.nodes[0].t, true);
    for (int i = 0; i < 2000; i++) {
        uint64_t frames = stats().frames_sent;

        (void)run_job(1);
        turn_for(0);
        for (int turn = 0; turn < 10; turn++) {
            world_turn(&w, 20 * MS);
        }
        n_tried[i / 1000] += stats().frames_sent > frames + 1;
        rows += node_info("node-0").is_mute;
    }
    assert_true(rows > 0 && n_tried[1] < n_tried[0]);
    assert_true(node_info("node-0").hedges > 0);
    world_close(&w);
}

/* ------------------------------------------------------------------------------------------------ missed */
/* Turns the coordinator and node 1 only. */
static void turn_without_node_0(uint64_t ns)
{
    for (uint64_t t = 0; t < ns; t += 20 * MS) {
        (void)expert_node_progress(w.nodes[1].node);
        (void)exchange_progress(w.coordinators[0].x);
        moe_clock_virtual_advance(&w.clock, 20 * MS);
    }
}

/* What is lost is missed only when it could not be met again: a connection may break. */
static void a_node_that_stands_still_is_missed_until_it_is_met_again(void **state)
{
    (void)state;
    open_world_with_beats(1);
    turn_without_node_0(1000 * MS);
    assert_true(exchange_node_ready(w.coordinators[0].x, "node-0"));
    turn_without_node_0(1500 * MS);
    assert_false(exchange_node_ready(w.coordinators[0].x, "node-0"));
    assert_false(node_info("node-0").is_missed);
    turn_without_node_0(3000 * MS);
    assert_true(node_info("node-0").is_missed);
    assert_false(node_info("node-0").is_refused);
    for (int turn = 0; turn < 200; turn++) {
        world_turn(&w, 20 * MS);
    }
    assert_true(exchange_node_ready(w.coordinators[0].x, "node-0"));
    assert_false(node_info("node-0").is_missed);
    world_close(&w);
}

/* HELLO and PINGs for all nodes come from one pool: whoever does not take them holds up itself alone. */
static void a_node_that_takes_nothing_keeps_few_frames(void **state)
{
    size_t frames, attempts;

    (void)state;
    open_world_with_beats(1);
    do {
        world_job_make(&w, 0, 0);
        assert_int_equal(exchange_begin(w.coordinators[0].x, &w.jobs[0][0].job), MOE_OK);
        turn_without_node_0(40 * MS);
    } while (exchange_state(w.coordinators[0].x, 0) != EXCHANGE_RUNNING);
    for (int i = 0; i < 60; i++) {
        turn_without_node_0(100 * MS);
        exchange_get_held(w.coordinators[0].x, &frames, &attempts);
        assert_true(frames <= 2 + 3 + 1); /* DISPATCH, and again after its deadline; its others; a PING for node 1 */
    }
    assert_true(exchange_node_ready(w.coordinators[0].x, "node-0"));
    assert_true(exchange_node_ready(w.coordinators[0].x, "node-1"));
    turn_for(5000 * MS);
    assert_int_equal(exchange_state(w.coordinators[0].x, 0), EXCHANGE_DONE);
    world_job_check(&w, 0, 0);
    world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_node_that_stands_still_is_hedged_long_before_its_deadline),
        cmocka_unit_test(a_new_node_that_stands_still_is_hedged_by_what_others_take),
        cmocka_unit_test(the_first_job_of_a_pool_is_hedged_too),
        cmocka_unit_test(a_long_part_is_hedged_by_what_its_job_takes),
        cmocka_unit_test(whoever_can_take_a_late_part_later_is_given_it_then),
        cmocka_unit_test(an_only_owner_is_waited_for),
        cmocka_unit_test(a_hedged_node_that_dies_loses_nothing),
        cmocka_unit_test(a_slow_node_is_given_less),
        cmocka_unit_test(an_only_owner_that_computes_nothing_counts_as_lost),
        cmocka_unit_test(an_only_owner_that_refuses_everything_counts_as_lost),
        cmocka_unit_test(a_node_that_computes_nothing_is_asked_ever_less),
        cmocka_unit_test(a_node_that_stands_still_is_missed_until_it_is_met_again),
        cmocka_unit_test(a_node_that_takes_nothing_keeps_few_frames),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
