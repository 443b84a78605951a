/* The thread that makes experts: in order, a few ahead, no faster than it may read, and gone when it is asked to. */
#include "expert_node/program/loader.h"
#include "tests/sim/world.h"

#include <sched.h>
#include <stdatomic.h>

static world w;
static loader *l;
static expert_source inner;
static size_t bytes_each;
static atomic_uint n_begun, n_made, n_stopped;
static _Atomic uint64_t now_ns;

static uint64_t now(void *ctx)
{
    (void)ctx;
    return now_ns;
}

static const moe_clock clock_of_test = {now, NULL};

static moe_status paced_open(void *ctx, uint32_t layer, int32_t expert_id, compute_expert **out, moe_error *err)
{
    (void)ctx;
    n_begun++;
    if (expert_id == 3) {
        return moe_fail(err, MOE_ERR_CORRUPT, "expert 3 is broken");
    }
    for (int piece = 0; piece < 4; piece++) {
        if (!loader_pace(l, bytes_each / 4)) {
            n_stopped++;
            return moe_fail(err, MOE_ERR_CANCELLED, "stopped");
        }
    }
    n_made++;
    return inner.open(inner.ctx, layer, expert_id, out, err);
}

static void open_with(uint64_t bytes_per_second)
{
    const world_options o = {
        .n_layers = 2, .n_experts = 8, .k = 2, .d_model = 8, .d_ff = 4, .max_rows = 4, .n_nodes = 1};
    moe_error err;

    world_open(&w, &o);
    inner = world_source(&w);
    bytes_each = 1000;
    n_begun = n_made = n_stopped = 0;
    now_ns = 1000000000;
    const loader_options options = {.source = {NULL, paced_open},
                                    .device = w.device,
                                    .clock = &clock_of_test,
                                    .bytes_per_second = bytes_per_second};
    assert_ok(loader_open(&options, &l, &err), err);
}

static int teardown(void **state)
{
    (void)state;
    loader_close(l);
    world_close(&w);
    return 0;
}

static loader_expert take(void)
{
    loader_expert e;

    while (!loader_take(l, &e)) {
        sched_yield();
    }
    return e;
}

static void experts_come_in_the_order_asked_and_so_many_ahead(void **state)
{
    (void)state;
    open_with(0);
    for (int round = 0; round < 3; round++) {
        for (int32_t i = 0; i < LOADER_DEPTH; i++) {
            assert_true(loader_ask(l, 1, 4 + i));
        }
        assert_false(loader_ask(l, 0, 0));
        for (int32_t i = 0; i < LOADER_DEPTH; i++) {
            loader_expert e = take();

            assert_int_equal(e.status, MOE_OK);
            assert_int_equal(e.layer, 1);
            assert_int_equal(e.expert_id, 4 + i);
            assert_non_null(e.expert);
            w.ops.expert_close(w.device, e.expert);
        }
    }
    loader_expert none;
    assert_false(loader_take(l, &none));
}

static void what_cannot_be_made_says_why(void **state)
{
    (void)state;
    open_with(0);
    assert_true(loader_ask(l, 0, 3));
    loader_expert e = take();
    assert_int_equal(e.status, MOE_ERR_CORRUPT);
    assert_string_equal(e.err.text, "expert 3 is broken");
    assert_null(e.expert);
}

/* 1,000 bytes at 500 in a second: 2 s of a clock that stands still until it is moved. */
static void nothing_is_read_faster_than_the_bandwidth(void **state)
{
    loader_expert e;

    (void)state;
    open_with(500);
    assert_true(loader_ask(l, 0, 1));
    while (n_begun == 0) {
        sched_yield();
    }
    now_ns += 1999999999;
    for (int i = 0; i < 1000; i++) {
        assert_false(loader_take(l, &e));
        sched_yield();
    }
    assert_int_equal(n_made, 0);
    now_ns += 1;
    e = take();
    assert_int_equal(e.status, MOE_OK);
    w.ops.expert_close(w.device, e.expert);
}

static void time_in_which_nothing_was_asked_for_is_not_made_up_for(void **state)
{
    loader_expert e;

    (void)state;
    open_with(500);
    now_ns += 100000000000;
    assert_true(loader_ask(l, 0, 1));
    while (n_begun == 0) {
        sched_yield();
    }
    now_ns += 1000000000;
    for (int i = 0; i < 1000; i++) {
        assert_false(loader_take(l, &e));
        sched_yield();
    }
    now_ns += 1000000000;
    e = take();
    w.ops.expert_close(w.device, e.expert);
}

static void a_close_gives_up_what_is_being_read_and_closes_what_nobody_took(void **state)
{
    (void)state;
    open_with(1);
    bytes_each = 0;
    assert_true(loader_ask(l, 0, 0));
    while (n_made == 0) {
        sched_yield();
    }
    bytes_each = 1000000000;
    assert_true(loader_ask(l, 0, 1));
    assert_true(loader_ask(l, 0, 2));
    while (n_begun < 2) {
        sched_yield();
    }
    loader_close(l);
    l = NULL;
    assert_int_equal(n_begun, 2);
    assert_int_equal(n_stopped, 1);
}

#define LOADER_TEST(test) cmocka_unit_test_teardown(test, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        LOADER_TEST(experts_come_in_the_order_asked_and_so_many_ahead),
        LOADER_TEST(what_cannot_be_made_says_why),
        LOADER_TEST(nothing_is_read_faster_than_the_bandwidth),
        LOADER_TEST(time_in_which_nothing_was_asked_for_is_not_made_up_for),
        LOADER_TEST(a_close_gives_up_what_is_being_read_and_closes_what_nobody_took),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
