#include "tests/support/support.h"

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#define FOREVER UINT64_MAX
#define N_TURNS 300u

static int setup(void **state)
{
    moe_waiter *w;

    assert_int_equal(moe_waiter_open(&w), MOE_OK);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    moe_waiter_close(*state);
    return 0;
}

static bool always(void *ctx)
{
    (void)ctx;
    return true;
}

static void a_wait_for_what_is_ready_returns(void **state)
{
    moe_waiter_wait(*state, always, NULL, FOREVER);
}

static void a_wake_before_the_wait_is_kept(void **state)
{
    moe_waiter_wake(*state);
    moe_waiter_wait(*state, NULL, NULL, FOREVER);
}

/* The second wait could only return by its timeout. */
static void a_wake_is_consumed_by_one_wait(void **state)
{
    uint64_t start_ns;

    moe_waiter_wake(*state);
    moe_waiter_wait(*state, NULL, NULL, FOREVER);
    start_ns = moe_now_ns(moe_clock_real());
    moe_waiter_wait(*state, NULL, NULL, 3000000);
    assert_true(moe_now_ns(moe_clock_real()) - start_ns >= 3000000);
}

static void a_wait_of_no_time_returns(void **state)
{
    moe_waiter_wait(*state, NULL, NULL, 0);
}

static void a_short_wait_ends_before_the_sleeping_stage(void **state)
{
    moe_waiter_wait(*state, NULL, NULL, 1000);
}

typedef struct turn {
    moe_waiter *mine, *other;
    _Atomic uint32_t count;
} turn;

static bool count_is_odd(void *ctx)
{
    return atomic_load(&((turn *)ctx)->count) % 2 == 1;
}

static bool count_is_even(void *ctx)
{
    return !count_is_odd(ctx);
}

/* Answers each odd count; now and then late, so that the other side has gone to sleep. */
static void *answer(void *arg)
{
    turn *t = arg;

    for (uint32_t i = 0; i < N_TURNS; i++) {
        while (!count_is_odd(t)) {
            moe_waiter_wait(t->other, count_is_odd, t, FOREVER);
        }
        if (i % 10 == 0) {
            (void)usleep(3000);
        }
        atomic_fetch_add(&t->count, 1);
        moe_waiter_wake(t->mine);
    }
    return NULL;
}

static void two_threads_take_turns_without_losing_a_wake(void **state)
{
    turn t = {.mine = *state};
    pthread_t thread;

    assert_int_equal(moe_waiter_open(&t.other), MOE_OK);
    assert_int_equal(pthread_create(&thread, NULL, answer, &t), 0);
    for (uint32_t i = 0; i < N_TURNS; i++) {
        if (i % 10 == 5) {
            (void)usleep(3000);
        }
        atomic_fetch_add(&t.count, 1);
        moe_waiter_wake(t.other);
        while (!count_is_even(&t)) {
            moe_waiter_wait(t.mine, count_is_even, &t, FOREVER);
        }
    }
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(t.count, 2 * N_TURNS);
    moe_waiter_close(t.other);
}

#define WAITER_TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

static void who_waits_long_is_told_to_sleep(void **state)
{
    (void)state;
    assert_true(moe_wait_moment(0, false));
    assert_true(moe_wait_moment(999999, false));
    assert_false(moe_wait_moment(1000000, false));
    assert_true(moe_wait_moment(0, true));
    assert_true(moe_wait_moment(99999, true));
    assert_false(moe_wait_moment(100000, true));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_waits_long_is_told_to_sleep),
        WAITER_TEST(a_wait_for_what_is_ready_returns),
        WAITER_TEST(a_wake_before_the_wait_is_kept),
        WAITER_TEST(a_wake_is_consumed_by_one_wait),
        WAITER_TEST(a_wait_of_no_time_returns),
        WAITER_TEST(a_short_wait_ends_before_the_sleeping_stage),
        WAITER_TEST(two_threads_take_turns_without_losing_a_wake),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
