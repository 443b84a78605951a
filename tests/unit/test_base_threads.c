#include "tests/support/support.h"

#include <stdatomic.h>
#include <pthread.h>
#include <unistd.h>

#define MAX_TASKS 1000

typedef struct record {
    size_t n_threads;
    unsigned char runs[MAX_TASKS]; /* plain: a task that ran twice at once is a race that ThreadSanitizer sees */
    atomic_size_t n_bad_threads;
} record;

static void note(void *ctx, size_t task, size_t thread)
{
    record *r = ctx;

    r->runs[task]++;
    if (thread >= r->n_threads) {
        atomic_fetch_add(&r->n_bad_threads, 1);
    }
}

static void either_run_runs_every_task_once_for_any_count(void **state)
{
    static const size_t counts[] = {0, 1, 2, 3, 4, 5, 31, MAX_TASKS};

    (void)state;
    for (size_t n_threads = 1; n_threads <= 5; n_threads++) {
        moe_threads *threads;

        assert_int_equal(moe_threads_open(n_threads, NULL, &threads), MOE_OK);
        for (size_t c = 0; c < MOE_COUNT(counts); c++) {
            record r = {.n_threads = n_threads};

            moe_threads_run(threads, counts[c], note, &r);
            moe_threads_run_even(threads, counts[c], note, &r);
            for (size_t i = 0; i < MAX_TASKS; i++) {
                assert_int_equal(r.runs[i], i < counts[c] ? 2 : 0);
            }
            assert_int_equal(r.n_bad_threads, 0);
        }
        moe_threads_close(threads);
    }
}

static void many_runs_after_each_other_see_their_own_tasks(void **state)
{
    record r = {.n_threads = 3};
    moe_threads *threads;

    (void)state;
    assert_int_equal(moe_threads_open(3, NULL, &threads), MOE_OK);
    for (size_t run = 0; run < 3000; run++) {
        size_t n_tasks = 1 + run % 37;

        memset(r.runs, 0, sizeof r.runs);
        (run % 2 == 0 ? moe_threads_run : moe_threads_run_even)(threads, n_tasks, note, &r);
        for (size_t i = 0; i < 38; i++) {
            assert_int_equal(r.runs[i], i < n_tasks);
        }
    }
    moe_threads_close(threads);
}

static void workers_that_sleep_are_woken(void **state)
{
    moe_threads *threads;

    (void)state;
    assert_int_equal(moe_threads_open(3, NULL, &threads), MOE_OK);
    for (size_t run = 0; run < 20; run++) {
        record r = {.n_threads = 3};

        (void)usleep(3000); /* past the yielding stage */
        moe_threads_run(threads, MAX_TASKS, note, &r);
        for (size_t i = 0; i < MAX_TASKS; i++) {
            assert_int_equal(r.runs[i], 1);
        }
    }
    moe_threads_close(threads);
}

/* Both tasks wait for each other: only two threads at once can finish them. */
static void meet(void *ctx, size_t task, size_t thread)
{
    atomic_size_t *n_here = ctx;

    (void)task;
    (void)thread;
    atomic_fetch_add(n_here, 1);
    while (atomic_load(n_here) < 2) {
        (void)usleep(10);
    }
}

static void a_sleeping_worker_shares_the_work(void **state)
{
    atomic_size_t n_here = 0;
    moe_threads *threads;

    (void)state;
    assert_int_equal(moe_threads_open(2, NULL, &threads), MOE_OK);
    (void)usleep(3000);
    moe_threads_run(threads, 2, meet, &n_here);
    moe_threads_close(threads);
    assert_int_equal(n_here, 2);
}

static void a_resting_worker_shares_the_work(void **state)
{
    moe_threads *threads;

    (void)state;
    assert_int_equal(moe_threads_open(2, NULL, &threads), MOE_OK);
    for (useconds_t run = 0; run < 50; run++) {
        atomic_size_t n_here = 0;

        moe_threads_rest(threads);
        (void)usleep(run); /* about to sleep, or asleep */
        moe_threads_run(threads, 2, meet, &n_here);
        assert_int_equal(n_here, 2);
    }
    moe_threads_close(threads);
}

typedef struct late {
    atomic_bool worker_has_one;
    bool done; /* plain: run orders it before its return */
} late;

/* The caller's task ends once a worker holds the other one, which takes longer than the caller spins and yields. */
static void finish_late(void *ctx, size_t task, size_t thread)
{
    late *l = ctx;

    (void)task;
    if (thread != 0) {
        atomic_store(&l->worker_has_one, true);
        (void)usleep(5000);
        l->done = true;
    }
    while (!atomic_load(&l->worker_has_one)) {
        (void)usleep(10);
    }
}

static void a_run_returns_when_the_last_worker_is_done(void **state)
{
    moe_threads *threads;

    (void)state;
    assert_int_equal(moe_threads_open(2, NULL, &threads), MOE_OK);
    for (size_t run = 0; run < 10; run++) {
        late l = {.done = false};

        moe_threads_run(threads, 2, finish_late, &l);
        assert_true(l.done);
    }
    moe_threads_close(threads);
}

static atomic_size_t n_inits;

static void count_init(void)
{
    atomic_fetch_add(&n_inits, 1);
}

static void thread_init_runs_on_every_worker(void **state)
{
    moe_threads *threads;

    (void)state;
    atomic_store(&n_inits, 0);
    assert_int_equal(moe_threads_open(4, count_init, &threads), MOE_OK);
    moe_threads_close(threads);
    assert_int_equal(n_inits, 3);
}

typedef struct order {
    pthread_t caller;
    size_t next;
    bool ok;
} order;

static void check_order(void *ctx, size_t task, size_t thread)
{
    order *o = ctx;

    o->ok = o->ok && task == o->next++ && thread == 0 && pthread_equal(pthread_self(), o->caller) != 0;
}

static void one_thread_runs_in_order_on_the_caller(void **state)
{
    order o = {.caller = pthread_self(), .ok = true};
    moe_threads *threads;

    (void)state;
    assert_int_equal(moe_threads_open(1, NULL, &threads), MOE_OK);
    moe_threads_run(threads, 100, check_order, &o);
    moe_threads_close(threads);
    assert_true(o.ok && o.next == 100);
}

static void no_thread_count_means_the_cores_available(void **state)
{
    moe_threads *threads;

    (void)state;
    assert_int_equal(moe_threads_open(0, NULL, &threads), MOE_OK);
    assert_int_equal(moe_threads_count(threads), moe_cores_available());
    moe_threads_close(threads);
}

static void an_absurd_thread_count_is_refused(void **state)
{
    moe_threads *threads;

    (void)state;
    assert_int_equal(moe_threads_open(SIZE_MAX, NULL, &threads), MOE_ERR_INVALID_ARG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(either_run_runs_every_task_once_for_any_count),
        cmocka_unit_test(many_runs_after_each_other_see_their_own_tasks),
        cmocka_unit_test(workers_that_sleep_are_woken),
        cmocka_unit_test(a_sleeping_worker_shares_the_work),
        cmocka_unit_test(a_resting_worker_shares_the_work),
        cmocka_unit_test(a_run_returns_when_the_last_worker_is_done),
        cmocka_unit_test(thread_init_runs_on_every_worker),
        cmocka_unit_test(one_thread_runs_in_order_on_the_caller),
        cmocka_unit_test(no_thread_count_means_the_cores_available),
        cmocka_unit_test(an_absurd_thread_count_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
