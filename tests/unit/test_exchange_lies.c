/* A node that answers something else than it was asked: it costs the node its connection or is ignored, and no result that
 * was not asked for is ever written (the world watches every upload). */
#include "proto/wire.h"
#include "tests/sim/world.h"

static world w;
static transport_ops honest, lying;
static void (*twist)(wire_result *r); /* of node 1's answers */
static unsigned char frame[1 << 16];

static moe_status lying_send(transport *t, transport_peer peer, transport_msg *msg)
{
    wire_type type;
    wire_result r;
    moe_error err;
    moe_buf b;

    assert_ok(wire_open(msg->parts[0].data, msg->parts[0].bytes, &type, &err), err);
    if (twist != NULL && type == WIRE_RESULT) {
        assert_ok(wire_get_result(msg->parts[0].data, msg->parts[0].bytes, &r, &err), err);
        twist(&r);
        moe_buf_init(&b, frame, sizeof frame);
        wire_result_begin(&b, &r);
        unsigned char *rows = wire_put_rows(&b, r.n_picks, r.d_model, r.dtype);
        assert_non_null(rows);
        memcpy(rows, r.rows, r.n_picks * r.d_model * wire_dtype_bytes(r.dtype));
        msg->parts[0].data = frame;
        msg->parts[0].bytes = wire_finish(&b);
    }
    return honest.send(t, peer, msg);
}

/* Two nodes that hold everything; the second answers otherwise. A job is under way to both. */
static exchange *open_world(void (*how)(wire_result *r))
{
    const world_options o = {.numeric_class = COMPUTE_CLASS_F32_1,
                             .n_layers = 1,
                             .n_experts = 10,
                             .k = 3,
                             .d_model = 20,
                             .d_ff = 12,
                             .max_rows = 24,
                             .n_nodes = 2,
                             .n_coordinators = 1,
                             .micro_batches = 1,
                             .replication = 2,
                             .seed = 77,
                             .dispatch_timeout_ns = 5000000};
    exchange_stats stats;

    world_open(&w, &o);
    world_settle(&w);
    transport *t = w.nodes[1].t;
    honest = lying = *t->ops;
    lying.send = lying_send;
    t->ops = &lying;
    twist = how;
    world_job_make(&w, 0, 0);
    exchange *x = w.coordinators[0].x;
    assert_int_equal(exchange_begin(x, &w.jobs[0][0].job), MOE_OK);
    exchange_get_stats(x, &stats);
    assert_int_equal(stats.frames_sent, 2);
    return x;
}

static exchange_stats take_answer_of_1(exchange *x)
{
    exchange_stats stats;

    (void)expert_node_progress(w.nodes[1].node);
    (void)exchange_progress(x);
    exchange_get_stats(x, &stats);
    assert_int_equal(stats.rows_combined, 0);
    return stats;
}

/* Everybody is honest again. */
static void finish(exchange *x)
{
    twist = NULL;
    for (int turn = 0; turn < 2000 && exchange_state(x, 0) == EXCHANGE_RUNNING; turn++) {
        world_turn(&w, 10000);
    }
    assert_int_equal(exchange_state(x, 0), EXCHANGE_DONE);
    world_job_check(&w, 0, 0);
    w.nodes[1].t->ops = &honest;
    world_close(&w);
}

static void check_ignored(void (*how)(wire_result *r))
{
    exchange *x = open_world(how);
    exchange_stats stats = take_answer_of_1(x);

    assert_int_equal(stats.late_results, 1);
    assert_int_equal(stats.bad_frames, 0);
    finish(x);
}

static void as_node_0(wire_result *r)
{
    r->request.attempt ^= 1;
}

static void what_another_node_was_asked_is_ignored(void **state)
{
    (void)state;
    check_ignored(as_node_0);
}

static void of_a_former_job(wire_result *r)
{
    r->request.step--;
}

static void what_was_asked_for_a_former_job_is_ignored(void **state)
{
    (void)state;
    check_ignored(of_a_former_job);
}

static void of_another_coordinator(wire_result *r)
{
    r->request.coordinator++;
}

static void what_another_coordinator_asked_is_ignored(void **state)
{
    (void)state;
    check_ignored(of_another_coordinator);
}

static void check_refused(void (*how)(wire_result *r))
{
    exchange *x = open_world(how);
    exchange_stats stats = take_answer_of_1(x);

    assert_int_equal(stats.bad_frames, 1);
    assert_int_equal(stats.retries, 1); /* what the lost connection had is asked for anew */
    finish(x);
}

static void one_row_less(wire_result *r)
{
    r->n_picks--;
}

static void an_answer_of_fewer_rows_costs_the_connection(void **state)
{
    (void)state;
    check_refused(one_row_less);
}

static void narrower(wire_result *r)
{
    r->d_model -= 4;
}

static void an_answer_of_another_width_costs_the_connection(void **state)
{
    (void)state;
    check_refused(narrower);
}

static void in_bf16(wire_result *r)
{
    r->dtype = WIRE_BF16;
}

static void an_answer_in_another_dtype_costs_the_connection(void **state)
{
    (void)state;
    check_refused(in_bf16);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_another_node_was_asked_is_ignored),
        cmocka_unit_test(what_was_asked_for_a_former_job_is_ignored),
        cmocka_unit_test(what_another_coordinator_asked_is_ignored),
        cmocka_unit_test(an_answer_of_fewer_rows_costs_the_connection),
        cmocka_unit_test(an_answer_of_another_width_costs_the_connection),
        cmocka_unit_test(an_answer_in_another_dtype_costs_the_connection),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
