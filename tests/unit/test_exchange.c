/* The exchange over real expert nodes on a loopback network without faults: whatever the placement, the bits are those
 * of the experts run directly (world_job_check). */
#include "cluster/cluster.h"
#include "tests/sim/world.h"

static world w;

static world_options options(uint32_t n_nodes, uint32_t replication)
{
    return (world_options){.numeric_class = COMPUTE_CLASS_F32_1,
                           .n_layers = 2,
                           .n_experts = 10,
                           .k = 3,
                           .d_model = 20,
                           .d_ff = 12,
                           .max_rows = 24,
                           .n_nodes = n_nodes,
                           .n_coordinators = 1,
                           .micro_batches = 1,
                           .replication = replication,
                           .seed = 77,
                           .dispatch_timeout_ns = 5000000};
}

static void run_job(uint32_t coordinator, uint32_t micro_batch)
{
    exchange *x = w.coordinators[coordinator].x;

    world_job_make(&w, coordinator, micro_batch);
    assert_int_equal(exchange_begin(x, &w.jobs[coordinator][micro_batch].job), MOE_OK);
    for (int turn = 0; turn < 2000 && exchange_state(x, micro_batch) == EXCHANGE_RUNNING; turn++) {
        world_turn(&w, 10000);
    }
    assert_int_equal(exchange_state(x, micro_batch), EXCHANGE_DONE);
    world_job_check(&w, coordinator, micro_batch);
}

static void run_jobs(const world_options *o, int n)
{
    world_open(&w, o);
    world_settle(&w);
    for (int i = 0; i < n; i++) {
        run_job(0, 0);
    }
}

static exchange_stats stats_of(uint32_t coordinator)
{
    exchange_stats stats;

    exchange_get_stats(w.coordinators[coordinator].x, &stats);
    return stats;
}

static void check_placement(uint32_t n_nodes, uint32_t replication)
{
    world_options o = options(n_nodes, replication);

    run_jobs(&o, 20);
    exchange_stats stats = stats_of(0);
    assert_int_equal(stats.rows_combined, stats.rows_dispatched);
    assert_int_equal(stats.late_results + stats.retries + stats.hedges + stats.bad_frames + stats.refusals, 0);
    world_close(&w);
}

static void one_node_gives_the_bits_of_the_experts(void **state)
{
    (void)state;
    check_placement(1, 1);
}

static void two_nodes_give_the_bits_of_the_experts(void **state)
{
    (void)state;
    check_placement(2, 1);
}

static void two_nodes_with_everything_twice_give_the_bits_of_the_experts(void **state)
{
    (void)state;
    check_placement(2, 2);
}

static void five_nodes_give_the_bits_of_the_experts(void **state)
{
    (void)state;
    check_placement(5, 1);
}

static void five_nodes_with_everything_twice_give_the_bits_of_the_experts(void **state)
{
    (void)state;
    check_placement(5, 2);
}

/* Node 1 comes first in the next placement: what is where is asked by name. */
static void a_placement_may_name_the_nodes_in_another_order(void **state)
{
    const char *const ids[] = {"node-1", "node-0"};
    router_replica replicas[2 * 10 * 2];
    world_options o = options(2, 1);
    router_placement *p;
    moe_error err;
    size_t n = 0;

    (void)state;
    run_jobs(&o, 1);
    for (uint32_t l = 0; l < o.n_layers; l++) {
        for (int32_t e = 0; e < (int32_t)o.n_experts; e++) {
            replicas[n++] = (router_replica){l, e, w.nodes[1].holds[l][e] ? 0 : 1, false};
        }
    }
    assert_ok(router_placement_open(2, test_space(o.n_layers, WORLD_MAX_EXPERTS), ids, 2, replicas, n, &p, &err), err);
    exchange_set_placement(w.coordinators[0].x, p);
    router_placement_unref(p);
    for (int i = 0; i < 5; i++) {
        run_job(0, 0);
    }
    assert_int_equal(stats_of(0).refusals, 0);
    world_close(&w);
}

static void the_bf16_class_gives_the_bits_of_the_experts(void **state)
{
    world_options o = options(3, 2);

    (void)state;
    o.numeric_class = COMPUTE_CLASS_BF16_1;
    o.d_model = 21; /* odd rows: 42 bytes */
    run_jobs(&o, 10);
    world_close(&w);
}

static void jobs_are_cut_to_what_a_node_takes(void **state)
{
    world_options o = options(1, 1);

    (void)state;
    o.node_rows = 5;
    o.max_ffn_rows = 4;
    run_jobs(&o, 10);
    assert_true(stats_of(0).frames_sent > 15);
    assert_int_equal(stats_of(0).refusals, 0);
    world_close(&w);
}

static void dispatches_that_wait_together_are_run_together(void **state)
{
    world_options o = options(1, 1);
    expert_node_stats stats;

    (void)state;
    o.n_coordinators = 2;
    world_open(&w, &o);
    world_settle(&w);
    for (uint32_t c = 0; c < 2; c++) {
        world_job_make(&w, c, 0);
        assert_int_equal(exchange_begin(w.coordinators[c].x, &w.jobs[c][0].job), MOE_OK);
    }
    for (int turn = 0; turn < 4; turn++) {
        world_turn(&w, 10000);
    }
    expert_node_get_stats(w.nodes[0].node, &stats);
    assert_int_equal(stats.frames, 2);
    assert_int_equal(stats.batches, 1);
    world_job_check(&w, 0, 0);
    world_job_check(&w, 1, 0);
    world_close(&w);
}

static void micro_batches_do_not_mix(void **state)
{
    world_options o = options(3, 2);

    (void)state;
    o.micro_batches = 2;
    world_open(&w, &o);
    world_settle(&w);
    for (uint32_t mb = 0; mb < 2; mb++) {
        world_job_make(&w, 0, mb);
        assert_int_equal(exchange_begin(w.coordinators[0].x, &w.jobs[0][mb].job), MOE_OK);
    }
    for (int turn = 0; turn < 6; turn++) {
        world_turn(&w, 10000);
    }
    world_job_check(&w, 0, 0);
    world_job_check(&w, 0, 1);
    world_close(&w);
}

static void a_row_goes_once_to_each_node(void **state)
{
    world_options o = options(1, 1);

    (void)state;
    run_jobs(&o, 1);
    expert_node_stats stats;
    expert_node_get_stats(w.nodes[0].node, &stats);
    assert_int_equal(stats.rows, w.jobs[0][0].job.n_rows);
    assert_int_equal(stats.picks, stats_of(0).rows_dispatched);
    world_close(&w);
}

static void a_job_with_nothing_to_compute_is_done_at_once(void **state)
{
    world_options o = options(1, 1);

    (void)state;
    world_open(&w, &o);
    world_job_make(&w, 0, 0);
    for (size_t i = 0; i < MOE_COUNT(w.jobs[0][0].ids); i++) {
        w.jobs[0][0].ids[i] = -1;
    }
    assert_int_equal(exchange_begin(w.coordinators[0].x, &w.jobs[0][0].job), MOE_OK);
    assert_int_equal(exchange_state(w.coordinators[0].x, 0), EXCHANGE_DONE);
    world_close(&w);
}

static void a_dead_nodes_rows_go_to_the_replica(void **state)
{
    world_options o = options(2, 2);

    (void)state;
    world_open(&w, &o);
    world_settle(&w);
    world_job_make(&w, 0, 0);
    assert_int_equal(exchange_begin(w.coordinators[0].x, &w.jobs[0][0].job), MOE_OK);
    world_node_kill(&w, 1);
    for (int turn = 0; turn < 6; turn++) {
        world_turn(&w, 10);
    }
    assert_int_equal(exchange_state(w.coordinators[0].x, 0), EXCHANGE_DONE);
    assert_true(stats_of(0).retries > 0);
    world_job_check(&w, 0, 0);
    world_close(&w);
}

/* A process that has ended is known to be gone; one that stands still is not. */
static void where_nobody_listens_a_node_is_refused(void **state)
{
    world_options o = options(2, 2);
    exchange_node_info info;

    (void)state;
    o.heartbeat_ns = 1000000;
    world_open(&w, &o);
    world_settle(&w);
    world_node_kill(&w, 1);
    for (int turn = 0; turn < 40; turn++) {
        (void)exchange_progress(w.coordinators[0].x); /* node 0 stands still */
        moe_clock_virtual_advance(&w.clock, 500000);
    }
    assert_true(exchange_get_node(w.coordinators[0].x, "node-1", &info));
    assert_true(info.kind == EXCHANGE_NODE_DOWN && info.is_refused);
    assert_true(exchange_get_node(w.coordinators[0].x, "node-0", &info));
    assert_true(info.kind != EXCHANGE_NODE_READY && !info.is_refused);
    world_node_start(&w, 1);
    for (int turn = 0; turn < 5000 && !exchange_node_ready(w.coordinators[0].x, "node-1"); turn++) {
        world_turn(&w, 500000);
    }
    assert_true(exchange_get_node(w.coordinators[0].x, "node-1", &info));
    assert_true(info.kind == EXCHANGE_NODE_READY && !info.is_refused);
    world_close(&w);
}

static void a_silent_node_is_hedged_after_its_deadline(void **state)
{
    world_options o = options(2, 2);

    (void)state;
    world_open(&w, &o);
    world_settle(&w);
    world_job_make(&w, 0, 0);
    exchange *x = w.coordinators[0].x;
    assert_int_equal(exchange_begin(x, &w.jobs[0][0].job), MOE_OK);
    for (int turn = 0; turn < 20 && exchange_state(x, 0) == EXCHANGE_RUNNING; turn++) {
        (void)expert_node_progress(w.nodes[0].node); /* node 1 stands still */
        (void)exchange_progress(x);
        moe_clock_virtual_advance(&w.clock, 1000000);
    }
    assert_int_equal(exchange_state(x, 0), EXCHANGE_DONE);
    assert_int_equal(stats_of(0).hedges, 1);
    world_job_check(&w, 0, 0);
    for (int turn = 0; turn < 4; turn++) {
        world_turn(&w, 10);
    }
    assert_int_equal(stats_of(0).late_results, 1);
    world_close(&w);
}

/* A node that let a deadline pass is avoided for a while, but not where nobody else has the expert. */
static void a_slow_node_is_the_last_resort(void **state)
{
    world_options o = options(1, 1);

    (void)state;
    world_open(&w, &o);
    world_settle(&w);
    world_job_make(&w, 0, 0);
    exchange *x = w.coordinators[0].x;
    assert_int_equal(exchange_begin(x, &w.jobs[0][0].job), MOE_OK);
    assert_int_equal(stats_of(0).frames_sent, 1);
    for (int turn = 0; turn < 6; turn++) { /* it stands still, for longer than a deadline, but not for two */
        moe_clock_virtual_advance(&w.clock, 1000000);
        (void)exchange_progress(x);
    }
    assert_int_equal(stats_of(0).hedges, 1);
    assert_int_equal(stats_of(0).frames_sent, 2);
    for (int turn = 0; turn < 4; turn++) {
        world_turn(&w, 10);
    }
    world_job_check(&w, 0, 0);
    world_close(&w);
}

static void a_silent_node_is_lost_after_eight_beats(void **state)
{
    world_options o = options(1, 1);

    (void)state;
    o.heartbeat_ns = 1000000;
    world_open(&w, &o);
    world_settle(&w);
    for (int turn = 0; turn < 20; turn++) {
        world_turn(&w, 500000);
        assert_true(exchange_node_ready(w.coordinators[0].x, "node-0"));
    }
    for (int turn = 0; turn < 18; turn++) {
        (void)exchange_progress(w.coordinators[0].x);
        moe_clock_virtual_advance(&w.clock, 500000);
    }
    assert_false(exchange_node_ready(w.coordinators[0].x, "node-0"));
    world_close(&w);
}

/* A machine that was stopped, or a step of a second: the silence was the coordinator's own. */
static void a_coordinator_that_stood_still_has_lost_nobody(void **state)
{
    world_options o = options(1, 1);

    (void)state;
    o.heartbeat_ns = 1000000;
    world_open(&w, &o);
    world_settle(&w);
    for (int turn = 0; turn < 20; turn++) {
        world_turn(&w, 500000);
    }
    moe_clock_virtual_advance(&w.clock, 100 * o.heartbeat_ns);
    (void)exchange_progress(w.coordinators[0].x);
    assert_true(exchange_node_ready(w.coordinators[0].x, "node-0"));
    world_close(&w);
}

static void every_node_hears_of_the_epoch_that_is_applied(void **state)
{
    world_options o = options(2, 1);

    (void)state;
    o.n_coordinators = 2; /* and no heartbeats */
    world_open(&w, &o);
    world_settle(&w);
    assert_int_equal(expert_node_epoch_applied(w.nodes[0].node), 0);
    exchange_set_applied(w.coordinators[0].x, 7);
    exchange_set_applied(w.coordinators[1].x, 6);
    for (int turn = 0; turn < 4; turn++) {
        world_turn(&w, 10);
    }
    assert_int_equal(expert_node_epoch_applied(w.nodes[0].node), 6);
    assert_int_equal(expert_node_epoch_applied(w.nodes[1].node), 6);
    world_node_kill(&w, 1);
    world_turn(&w, 10);
    world_node_start(&w, 1);
    assert_int_equal(expert_node_epoch_applied(w.nodes[1].node), UINT64_MAX);
    exchange_set_applied(w.coordinators[1].x, 8);
    world_turn(&w, 20000000); /* connected to again */
    world_settle(&w);
    for (int turn = 0; turn < 4; turn++) {
        world_turn(&w, 10);
    }
    assert_int_equal(expert_node_epoch_applied(w.nodes[0].node), 7);
    assert_int_equal(expert_node_epoch_applied(w.nodes[1].node), 7);
    world_close(&w);
}

static void a_dropped_expert_is_refused_and_found_elsewhere(void **state)
{
    world_options o = options(2, 2);

    (void)state;
    world_open(&w, &o);
    world_settle(&w);
    for (uint32_t l = 0; l < o.n_layers; l++) {
        for (int32_t e = 0; e < (int32_t)o.n_experts; e++) {
            expert_node_drop(w.nodes[1].node, l, e);
        }
    }
    run_job(0, 0);
    assert_int_equal(stats_of(0).refusals, 1);
    world_close(&w);
}

static void a_pick_without_an_owner_is_named(void **state)
{
    world_options o = options(1, 1);
    exchange_stuck stuck = {0, 0};
    moe_error err;

    (void)state;
    world_open(&w, &o);
    world_job_make(&w, 0, 0);
    world_job *j = &w.jobs[0][0];
    j->ids[0] = 4;
    assert_int_equal(exchange_begin(w.coordinators[0].x, &j->job), MOE_OK);
    exchange *x = w.coordinators[0].x;
    assert_int_equal(exchange_collect(x, 0, &err), MOE_ERR_BUSY);
    assert_int_equal(exchange_stuck_since(x, 0), w.clock.time_ns);
    assert_true(exchange_row_is_stuck(x, 0, 0, &stuck));
    assert_int_equal(stuck.layer, j->job.layer);
    assert_int_equal(stuck.expert_id, 4);
    assert_false(exchange_has_taker(x, &stuck));
    exchange_drop(x, 0);
    assert_int_equal(exchange_state(x, 0), EXCHANGE_IDLE);
    assert_int_equal(exchange_stuck_since(x, 0), 0);
    world_close(&w);
}

static void a_dropped_job_is_not_written_to(void **state)
{
    world_options o = options(2, 1);

    (void)state;
    world_open(&w, &o);
    world_settle(&w);
    world_job_make(&w, 0, 0);
    assert_int_equal(exchange_begin(w.coordinators[0].x, &w.jobs[0][0].job), MOE_OK);
    exchange_drop(w.coordinators[0].x, 0);
    w.jobs[0][0].open = false;
    for (int turn = 0; turn < 6; turn++) {
        world_turn(&w, 10);
    }
    assert_true(stats_of(0).late_results > 0);
    run_job(0, 0);
    world_close(&w);
}

static void a_draining_node_gets_nothing_new(void **state)
{
    world_options o = options(2, 2);

    (void)state;
    world_open(&w, &o);
    world_settle(&w);
    expert_node_drain(w.nodes[0].node);
    world_turn(&w, 10);
    world_turn(&w, 10);
    assert_false(exchange_node_ready(w.coordinators[0].x, "node-0"));
    run_job(0, 0);
    expert_node_stats stats;
    expert_node_get_stats(w.nodes[0].node, &stats);
    assert_int_equal(stats.frames, 0);
    world_close(&w);
}

static unsigned poll_node(void *ctx)
{
    return expert_node_progress(ctx);
}

static void waiting_runs_a_member_on_the_same_thread(void **state)
{
    world_options o = options(1, 1);
    moe_error err;

    (void)state;
    world_open(&w, &o);
    transport_loopback_set_member_poll(w.coordinators[0].t, poll_node, w.nodes[0].node);
    world_job_make(&w, 0, 0);
    assert_int_equal(exchange_begin(w.coordinators[0].x, &w.jobs[0][0].job), MOE_OK);
    while (exchange_collect(w.coordinators[0].x, 0, &err) == MOE_ERR_BUSY) {
        (void)exchange_progress(w.coordinators[0].x);
    }
    world_job_check(&w, 0, 0);
    world_close(&w);
}

/* Time passes by looking at it. */
static uint64_t ticking(void *ctx)
{
    moe_clock_virtual *clock = ctx;

    clock->time_ns += 10000;
    return clock->time_ns;
}

static void pauses_end_when_they_are_to(void **state)
{
    world_options o = options(1, 1);
    moe_error err;

    (void)state;
    world_open(&w, &o);
    world_settle(&w);
    world_job_make(&w, 0, 0);
    exchange *x = w.coordinators[0].x;
    assert_int_equal(exchange_begin(x, &w.jobs[0][0].job), MOE_OK);
    w.clock.clock = (moe_clock){ticking, &w.clock};
    uint64_t deadline = w.clock.time_ns + 3000000; /* through spinning, yielding and sleeping */
    do {
        (void)exchange_progress(x);
        exchange_pause(x, deadline);
    } while (exchange_turned_ns(x) < deadline);
    assert_int_equal(exchange_collect(x, 0, &err), MOE_ERR_BUSY);
    exchange_drop(x, 0);
    assert_in_range(w.clock.time_ns, deadline, deadline + 100000);
    world_close(&w);
}

/* What the cluster's state says of a node is of one incarnation. */
static void another_incarnation_is_not_used(void **state)
{
    world_options o = options(1, 1);
    exchange_node_info info;
    moe_error err;

    (void)state;
    world_open(&w, &o);
    world_settle(&w);
    exchange *x = w.coordinators[0].x;
    assert_true(exchange_get_node(x, "node-0", &info));
    uint64_t incarnation = info.incarnation;
    exchange_remove_node(x, "node-0");
    assert_ok(exchange_add_node(x, "node-0", "node-0", incarnation + 1, &err), err);
    for (int turn = 0; turn < 100; turn++) {
        world_turn(&w, 1000);
    }
    assert_true(exchange_get_node(x, "node-0", &info));
    assert_false(exchange_node_ready(x, "node-0"));
    assert_true(info.is_another);
    exchange_remove_node(x, "node-0");
    assert_ok(exchange_add_node(x, "node-0", "node-0", incarnation, &err), err);
    world_settle(&w);
    assert_true(exchange_get_node(x, "node-0", &info));
    assert_false(info.is_another);
    world_close(&w);
}

static void options_out_of_range_are_refused(void **state)
{
    world_options o = options(1, 1);
    exchange *x = NULL;
    moe_error err = {""};

    (void)state;
    world_open(&w, &o);
    const exchange_options bad = {.transport = w.coordinators[0].t,
                                  .device = w.device,
                                  .clock = &w.clock.clock,
                                  .space = test_space(1, 4),
                                  .k = 2,
                                  .d_model = 8,
                                  .max_rows = 4,
                                  .micro_batches = 3,
                                  .dispatch_timeout_ns = 1,
                                  .id = "c",
                                  .cluster = "c"};
    assert_int_equal(exchange_open(&bad, &x, &err), MOE_ERR_INVALID_ARG);
    assert_contains(err.text, "3 micro-batches");
    world_close(&w);
}

static void an_address_that_the_cluster_takes_is_taken(void **state)
{
    world_options o = options(1, 1);
    char address[CLUSTER_MAX_ADDRESS + 1];
    moe_error err = {""};

    (void)state;
    world_open(&w, &o);
    memset(address, 'a', sizeof address - 1);
    address[sizeof address - 1] = '\0';
    assert_ok(exchange_add_node(w.coordinators[0].x, "far", address, 0, &err), err);
    exchange_remove_node(w.coordinators[0].x, "far");
    world_close(&w);
}

static bool used_with_secrets(const char *coordinator, const char *node)
{
    world_options o = options(1, 1);

    o.secret = coordinator;
    o.node_secret = node;
    world_open(&w, &o);
    for (int turn = 0; turn < 50; turn++) {
        world_turn(&w, 1000);
    }
    bool ready = exchange_node_ready(w.coordinators[0].x, "node-0");
    if (ready) {
        run_job(0, 0);
    }
    assert_int_equal(ready, stats_of(0).auth_failures == 0);
    assert_int_equal(stats_of(0).bad_frames, 0);
    world_close(&w);
    return ready;
}

static exchange_node_info look_at_the_node(const char *secret_of_node)
{
    world_options o = options(1, 1);
    exchange_node_info info = {.rows = 0};

    o.secret = "one";
    o.node_secret = secret_of_node;
    world_open(&w, &o);
    for (int turn = 0; turn < 50; turn++) {
        world_turn(&w, 1000);
    }
    assert_true(exchange_get_node(w.coordinators[0].x, "node-0", &info));
    return info;
}

static void a_node_is_shown_with_the_incarnation_of_its_hello(void **state)
{
    exchange_node_info info = look_at_the_node("one");

    (void)state;
    assert_int_equal(info.kind, EXCHANGE_NODE_READY);
    assert_int_equal(info.incarnation, w.nodes[0].incarnation);
    assert_string_equal(info.why, "");
    world_close(&w);
}

static void a_node_that_is_not_used_is_shown_with_the_reason(void **state)
{
    exchange_node_info info = look_at_the_node("two");

    (void)state;
    assert_int_not_equal(info.kind, EXCHANGE_NODE_READY);
    assert_int_equal(info.incarnation, 0);
    assert_string_equal(info.why, "its proof of the cluster secret is wrong");
    world_close(&w);
}

static void a_node_with_the_secret_is_used(void **state)
{
    (void)state;
    assert_true(used_with_secrets("one", NULL));
}

static void a_node_with_another_secret_is_not_used(void **state)
{
    (void)state;
    assert_false(used_with_secrets("one", "two"));
}

static void a_node_without_the_secret_is_not_used(void **state)
{
    (void)state;
    assert_false(used_with_secrets("one", ""));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_node_gives_the_bits_of_the_experts),
        cmocka_unit_test(two_nodes_give_the_bits_of_the_experts),
        cmocka_unit_test(two_nodes_with_everything_twice_give_the_bits_of_the_experts),
        cmocka_unit_test(five_nodes_give_the_bits_of_the_experts),
        cmocka_unit_test(five_nodes_with_everything_twice_give_the_bits_of_the_experts),
        cmocka_unit_test(a_placement_may_name_the_nodes_in_another_order),
        cmocka_unit_test(the_bf16_class_gives_the_bits_of_the_experts),
        cmocka_unit_test(jobs_are_cut_to_what_a_node_takes),
        cmocka_unit_test(dispatches_that_wait_together_are_run_together),
        cmocka_unit_test(micro_batches_do_not_mix),
        cmocka_unit_test(a_row_goes_once_to_each_node),
        cmocka_unit_test(a_job_with_nothing_to_compute_is_done_at_once),
        cmocka_unit_test(a_dead_nodes_rows_go_to_the_replica),
        cmocka_unit_test(where_nobody_listens_a_node_is_refused),
        cmocka_unit_test(a_silent_node_is_hedged_after_its_deadline),
        cmocka_unit_test(a_slow_node_is_the_last_resort),
        cmocka_unit_test(a_silent_node_is_lost_after_eight_beats),
        cmocka_unit_test(a_coordinator_that_stood_still_has_lost_nobody),
        cmocka_unit_test(every_node_hears_of_the_epoch_that_is_applied),
        cmocka_unit_test(a_dropped_expert_is_refused_and_found_elsewhere),
        cmocka_unit_test(another_incarnation_is_not_used),
        cmocka_unit_test(a_pick_without_an_owner_is_named),
        cmocka_unit_test(a_dropped_job_is_not_written_to),
        cmocka_unit_test(a_draining_node_gets_nothing_new),
        cmocka_unit_test(waiting_runs_a_member_on_the_same_thread),
        cmocka_unit_test(pauses_end_when_they_are_to),
        cmocka_unit_test(options_out_of_range_are_refused),
        cmocka_unit_test(an_address_that_the_cluster_takes_is_taken),
        cmocka_unit_test(a_node_is_shown_with_the_incarnation_of_its_hello),
        cmocka_unit_test(a_node_that_is_not_used_is_shown_with_the_reason),
        cmocka_unit_test(a_node_with_the_secret_is_used),
        cmocka_unit_test(a_node_with_another_secret_is_not_used),
        cmocka_unit_test(a_node_without_the_secret_is_not_used),
    };

    moe_log_set_level(MOE_LOG_ERROR);
    compute_thread_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
