#include "tests/support/support.h"

#include <pthread.h>
#include <sched.h>

#define N_RECORDS 20000u

static int setup(void **state)
{
    moe_ring *r;

    assert_int_equal(moe_ring_open(64, &r), MOE_OK);
    *state = r;
    return 0;
}

static int teardown(void **state)
{
    moe_ring_close(*state);
    return 0;
}

static void head_and_tail_come_out_joined(void **state)
{
    char out[64];
    size_t n;

    assert_true(moe_ring_push(*state, "ab", 2, "cde", 3));
    assert_true(moe_ring_pop(*state, out, sizeof out, &n));
    assert_int_equal(n, 5);
    assert_memory_equal(out, "abcde", 5);
}

static void records_survive_every_wrap(void **state)
{
    char in[20], out[20];
    size_t n;

    for (size_t i = 0; i < 500; i++) {
        memset(in, (int)(i % 100), sizeof in);
        assert_true(moe_ring_push(*state, in, i % 11, in, i % 10));
        assert_true(moe_ring_pop(*state, out, sizeof out, &n));
        assert_int_equal(n, i % 11 + i % 10);
        assert_memory_equal(in, out, n);
    }
}

static void an_empty_ring_takes_a_record_of_its_capacity(void **state)
{
    char in[64] = "x", out[64];
    size_t n;

    assert_int_equal(moe_ring_room(*state), 64);
    assert_true(moe_ring_push(*state, in, 64, NULL, 0));
    assert_int_equal(moe_ring_room(*state), 0);
    assert_true(moe_ring_pop(*state, out, sizeof out, &n));
    assert_memory_equal(in, out, 64);
}

static void room_is_what_push_takes(void **state)
{
    char in[64] = {0};

    assert_true(moe_ring_push(*state, in, 20, NULL, 0));
    assert_false(moe_ring_push(*state, in, moe_ring_room(*state), in, 1));
    assert_true(moe_ring_push(*state, in, moe_ring_room(*state), NULL, 0));
}

static void a_push_without_room_leaves_the_ring_as_it_is(void **state)
{
    char in[64] = {0};

    assert_false(moe_ring_push(*state, in, 64, in, 1));
    assert_false(moe_ring_push(*state, in, SIZE_MAX, in, 2));
    assert_true(moe_ring_empty(*state));
}

static void an_empty_ring_gives_nothing(void **state)
{
    char out[1];
    size_t n;

    assert_true(moe_ring_empty(*state));
    assert_false(moe_ring_pop(*state, out, sizeof out, &n));
}

static void an_empty_record_is_a_record(void **state)
{
    size_t n = 9;

    assert_true(moe_ring_push(*state, NULL, 0, NULL, 0));
    assert_false(moe_ring_empty(*state));
    assert_true(moe_ring_pop(*state, NULL, 0, &n));
    assert_int_equal(n, 0);
}

static void *produce(void *arg)
{
    for (uint32_t i = 0; i < N_RECORDS;) {
        if (moe_ring_push(arg, &i, sizeof i, &i, i % 5)) {
            i++;
        } else {
            (void)sched_yield();
        }
    }
    return NULL;
}

static void a_second_thread_sees_every_record_in_order(void **state)
{
    pthread_t thread;
    uint32_t n_wrong = 0;

    assert_int_equal(pthread_create(&thread, NULL, produce, *state), 0);
    for (uint32_t i = 0; i < N_RECORDS;) {
        uint32_t out[3];
        size_t n;

        if (!moe_ring_pop(*state, out, sizeof out, &n)) {
            (void)sched_yield();
            continue;
        }
        n_wrong += out[0] != i || n != sizeof i + i % 5;
        i++;
    }
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(n_wrong, 0);
}

#define RING_TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        RING_TEST(head_and_tail_come_out_joined),
        RING_TEST(records_survive_every_wrap),
        RING_TEST(an_empty_ring_takes_a_record_of_its_capacity),
        RING_TEST(room_is_what_push_takes),
        RING_TEST(a_push_without_room_leaves_the_ring_as_it_is),
        RING_TEST(an_empty_ring_gives_nothing),
        RING_TEST(an_empty_record_is_a_record),
        RING_TEST(a_second_thread_sees_every_record_in_order),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
