#include "base/wait_priv.h"

#include <pthread.h>
#include <signal.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdlib.h>

#define MAX_THREADS ((size_t)1024)

/* A job is open from the store to n_left until n_done reaches n_tasks. Claiming a task (n_left one less) is what lets a
 * thread read fn, ctx and n_tasks: they cannot change before that task is reported done. So run never waits for a
 * worker that has claimed nothing, asleep or not scheduled. */
struct moe_threads {
    moe_threads_fn fn; /* borrowed, while the job is open */
    void *ctx;
    size_t n_tasks;
    bool running; /* the caller's: catches a run inside a run */

    alignas(MOE_CACHE_LINE) atomic_size_t n_left; /* tasks nobody has claimed */
    atomic_size_t share;                          /* of n_left that is claimed at once is 1 / share; 0: one task */
    alignas(MOE_CACHE_LINE) atomic_size_t n_done;
    alignas(MOE_CACHE_LINE) atomic_size_t n_asleep; /* workers that have announced to sleep */
    atomic_bool caller_asleep;
    atomic_bool resting; /* do not spin and yield before sleeping */
    atomic_bool stop;

    pthread_mutex_t mutex; /* leaf; only to fall asleep and to wake sleepers */
    pthread_cond_t work, done;
    void (*thread_init)(void);
    size_t n_threads;   /* with the caller */
    size_t n_started;   /* workers to join */
    pthread_t *threads; /* owned */
    atomic_size_t next_thread_idx;
};

/* How many tasks were claimed, of the *left_out there were; 0: nothing is left. */
static size_t claim(moe_threads *p, size_t *left_out)
{
    size_t left = atomic_load_explicit(&p->n_left, memory_order_relaxed);

    while (left != 0) {
        size_t share = atomic_load_explicit(&p->share, memory_order_relaxed); /* of an older job, it is right as well */
        size_t n = left > share && share != 0 ? left / share : 1;

        if (atomic_compare_exchange_weak_explicit(&p->n_left, &left, left - n, memory_order_acq_rel,
                                                  memory_order_relaxed)) {
            *left_out = left;
            return n;
        }
    }
    return 0;
}

static void wake_caller(moe_threads *p)
{
    if (atomic_load(&p->caller_asleep)) {
        (void)pthread_mutex_lock(&p->mutex);
        (void)pthread_cond_signal(&p->done);
        (void)pthread_mutex_unlock(&p->mutex);
    }
}

/* Runs tasks until none is left to claim. They are reported together: the job stays open until then. */
static void take_tasks(moe_threads *p, size_t thread)
{
    size_t left, n, n_mine = 0, n_tasks = 0;

    while ((n = claim(p, &left)) != 0) {
        n_tasks = p->n_tasks;
        for (size_t i = 0; i < n; i++) {
            p->fn(p->ctx, n_tasks - left + i, thread);
        }
        n_mine += n;
    }
    if (n_mine > 0 && atomic_fetch_add(&p->n_done, n_mine) + n_mine == n_tasks && thread != 0) {
        wake_caller(p);
    }
}

static void sleep_until_work(moe_threads *p)
{
    (void)pthread_mutex_lock(&p->mutex);
    atomic_fetch_add(&p->n_asleep, 1);
    if (atomic_load(&p->n_left) == 0 && !atomic_load(&p->stop)) {
        (void)pthread_cond_wait(&p->work, &p->mutex);
    }
    atomic_fetch_sub(&p->n_asleep, 1);
    (void)pthread_mutex_unlock(&p->mutex);
}

static void *worker_main(void *arg)
{
    moe_threads *p = arg;
    size_t thread = atomic_fetch_add(&p->next_thread_idx, 1);
    wait_stage stage = {0};

    if (p->thread_init != NULL) {
        p->thread_init();
    }
    while (!atomic_load_explicit(&p->stop, memory_order_relaxed)) {
        if (atomic_load_explicit(&p->n_left, memory_order_relaxed) != 0) {
            take_tasks(p, thread);
            stage = (wait_stage){0};
        } else if (atomic_load_explicit(&p->resting, memory_order_relaxed) || !wait_a_moment(&stage)) {
            sleep_until_work(p);
            stage = (wait_stage){0};
        }
    }
    return NULL;
}

/* Signals stay with the threads of the program. */
static moe_status start_workers(moe_threads *p)
{
    sigset_t all, before;
    moe_status status = MOE_OK;

    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    while (p->n_started + 1 < p->n_threads && status == MOE_OK) {
        if (pthread_create(&p->threads[p->n_started], NULL, worker_main, p) != 0) {
            status = MOE_ERR_NO_MEMORY;
        } else {
            p->n_started++;
        }
    }
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return status;
}

moe_status moe_threads_open(size_t n_threads, void (*thread_init)(void), moe_threads **out)
{
    moe_threads *p;
    moe_status status;

    if (n_threads == 0) {
        n_threads = MOE_MIN(moe_cores_available(), MAX_THREADS);
    }
    if (n_threads > MAX_THREADS) {
        return MOE_ERR_INVALID_ARG;
    }
    p = aligned_alloc(MOE_CACHE_LINE, sizeof *p);
    if (p == NULL) {
        return MOE_ERR_NO_MEMORY;
    }
    *p = (moe_threads){.n_threads = n_threads, .thread_init = thread_init, .next_thread_idx = 1};
    MOE_ASSERT(pthread_mutex_init(&p->mutex, NULL) == 0);
    MOE_ASSERT(pthread_cond_init(&p->work, NULL) == 0 && pthread_cond_init(&p->done, NULL) == 0);
    p->threads = calloc(n_threads, sizeof *p->threads);
    status = p->threads != NULL ? start_workers(p) : MOE_ERR_NO_MEMORY;
    if (status != MOE_OK) {
        moe_threads_close(p);
        return status;
    }
    *out = p;
    return MOE_OK;
}

void moe_threads_close(moe_threads *t)
{
    if (t == NULL) {
        return;
    }
    MOE_ASSERT(!t->running);
    (void)pthread_mutex_lock(&t->mutex);
    atomic_store(&t->stop, true);
    (void)pthread_cond_broadcast(&t->work);
    (void)pthread_mutex_unlock(&t->mutex);
    for (size_t i = 0; i < t->n_started; i++) {
        (void)pthread_join(t->threads[i], NULL);
    }
    (void)pthread_cond_destroy(&t->done);
    (void)pthread_cond_destroy(&t->work);
    (void)pthread_mutex_destroy(&t->mutex);
    free(t->threads);
    free(t);
}

size_t moe_threads_count(const moe_threads *t)
{
    return t->n_threads;
}

static void wake_workers(moe_threads *p)
{
    if (atomic_load(&p->n_asleep) > 0) {
        (void)pthread_mutex_lock(&p->mutex);
        (void)pthread_cond_broadcast(&p->work);
        (void)pthread_mutex_unlock(&p->mutex);
    }
}

static void wait_for_workers(moe_threads *p)
{
    wait_stage stage = {0};

    while (atomic_load_explicit(&p->n_done, memory_order_acquire) != p->n_tasks) {
        if (wait_a_moment(&stage)) {
            continue;
        }
        (void)pthread_mutex_lock(&p->mutex);
        atomic_store(&p->caller_asleep, true);
        while (atomic_load(&p->n_done) != p->n_tasks) {
            (void)pthread_cond_wait(&p->done, &p->mutex);
        }
        atomic_store(&p->caller_asleep, false);
        (void)pthread_mutex_unlock(&p->mutex);
    }
}

void moe_threads_rest(moe_threads *t)
{
    atomic_store_explicit(&t->resting, true, memory_order_relaxed);
}

static void run(moe_threads *t, size_t n_tasks, size_t share, moe_threads_fn fn, void *ctx)
{
    MOE_ASSERT(!t->running);
    t->running = true;
    if (t->n_threads == 1 || n_tasks <= 1) {
        for (size_t i = 0; i < n_tasks; i++) {
            fn(ctx, i, 0);
        }
    } else {
        t->fn = fn;
        t->ctx = ctx;
        t->n_tasks = n_tasks;
        atomic_store_explicit(&t->resting, false, memory_order_relaxed);
        atomic_store_explicit(&t->share, share, memory_order_relaxed);
        atomic_store_explicit(&t->n_done, 0, memory_order_relaxed);
        atomic_store(&t->n_left, n_tasks); /* opens the job */
        wake_workers(t);
        take_tasks(t, 0);
        wait_for_workers(t);
    }
    t->running = false;
}

void moe_threads_run(moe_threads *t, size_t n_tasks, moe_threads_fn fn, void *ctx)
{
    run(t, n_tasks, 0, fn, ctx);
}

void moe_threads_run_even(moe_threads *t, size_t n_tasks, moe_threads_fn fn, void *ctx)
{
    run(t, n_tasks, 2 * t->n_threads, fn, ctx);
}
