#include "expert_node/program/loader.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

/* Chosen, not measured. NICE: the compute threads go first where they want the same core, and a busy machine still lets
 * the load come to an end. LOOK: how long the clock is not looked at while a pause lasts; a close ends it at once. */
#define LOADER_NICE 10
#define LOOK_NS     UINT64_C(50000000)

struct loader {
    loader_options o;
    pthread_t thread;
    pthread_mutex_t lock; /* of all below; a leaf */
    pthread_cond_t asked; /* or closing */
    bool closing;
    /* Experts are counted as they go by: n_taken <= n_made <= n_asked <= n_taken + LOADER_DEPTH. */
    uint64_t n_asked, n_made, n_taken;
    loader_expert experts[LOADER_DEPTH]; /* the i-th asked for is at i % LOADER_DEPTH */
    uint64_t due_ns;                     /* the bytes read so far are paid for at that time */
};

/* With the lock held. The clock may be a virtual one, so it is looked at again and again. */
static void pause_until_due(loader *l)
{
    uint64_t now;

    while (!l->closing && (now = moe_now_ns(l->o.clock)) < l->due_ns) {
        uint64_t left = MOE_MIN(l->due_ns - now, LOOK_NS);
        struct timespec until;

        (void)clock_gettime(CLOCK_MONOTONIC, &until);
        uint64_t ns = (uint64_t)until.tv_nsec + left;
        until.tv_sec += (time_t)(ns / 1000000000);
        until.tv_nsec = (long)(ns % 1000000000);
        (void)pthread_cond_timedwait(&l->asked, &l->lock, &until);
    }
}

bool loader_pace(void *ctx, size_t bytes)
{
    loader *l = ctx;

    pthread_mutex_lock(&l->lock);
    if (l->o.bytes_per_second != 0) {
        l->due_ns += (uint64_t)((double)bytes * 1e9 / (double)l->o.bytes_per_second);
        pause_until_due(l);
    }
    bool go_on = !l->closing;
    pthread_mutex_unlock(&l->lock);
    return go_on;
}

/* NULL: none is asked for, or the loader is being closed. Until it counts as made, an expert belongs to who makes it. */
static loader_expert *next(loader *l, bool wait)
{
    pthread_mutex_lock(&l->lock);
    while (wait && !l->closing && l->n_made == l->n_asked) {
        pthread_cond_wait(&l->asked, &l->lock);
    }
    loader_expert *e = l->closing || l->n_made == l->n_asked ? NULL : &l->experts[l->n_made % LOADER_DEPTH];
    if (l->o.bytes_per_second != 0) {
        l->due_ns = MOE_MAX(l->due_ns, moe_now_ns(l->o.clock)); /* what was not read in time is not made up for */
    }
    pthread_mutex_unlock(&l->lock);
    return e;
}

static bool make_next(loader *l, bool wait)
{
    loader_expert *e = next(l, wait);

    if (e == NULL) {
        return false;
    }
    e->status = l->o.source.open(l->o.source.ctx, e->layer, e->expert_id, &e->expert, &e->err);
    pthread_mutex_lock(&l->lock);
    l->n_made++;
    pthread_mutex_unlock(&l->lock);
    if (l->o.done != NULL) {
        l->o.done(l->o.ctx);
    }
    return true;
}

bool loader_step(loader *l)
{
    return make_next(l, false);
}

static void *loader_main(void *l)
{
    compute_thread_init();
    if (setpriority(PRIO_PROCESS, 0, LOADER_NICE) != 0) { /* of this thread alone, on Linux */
        MOE_DEBUG("priority of the loader's thread: %s", strerror(errno));
    }
    while (make_next(l, true)) {
    }
    return NULL;
}

/* Signals are for the thread that waits for them. */
static int start(loader *l)
{
    sigset_t all, before;

    sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    int e = pthread_create(&l->thread, NULL, loader_main, l);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return e;
}

static void fini(loader *l)
{
    pthread_cond_destroy(&l->asked);
    pthread_mutex_destroy(&l->lock);
    free(l);
}

moe_status loader_open(const loader_options *options, loader **out, moe_error *err)
{
    loader *l = calloc(1, sizeof *l);
    pthread_condattr_t attr;

    if (l == NULL) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "loader: out of memory");
    }
    l->o = *options;
    l->o.bytes_per_second = options->stepped ? 0 : options->bytes_per_second;
    pthread_mutex_init(&l->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&l->asked, &attr);
    pthread_condattr_destroy(&attr);
    int e = l->o.stepped ? 0 : start(l);
    if (e != 0) {
        fini(l);
        return moe_fail(err, MOE_ERR_UNAVAILABLE, "loader: thread: %s", strerror(e));
    }
    *out = l;
    return MOE_OK;
}

void loader_close(loader *l)
{
    loader_expert e;

    if (l == NULL) {
        return;
    }
    pthread_mutex_lock(&l->lock);
    l->closing = true;
    pthread_cond_signal(&l->asked);
    pthread_mutex_unlock(&l->lock);
    if (!l->o.stepped) {
        pthread_join(l->thread, NULL);
    }
    while (loader_take(l, &e)) {
        if (e.expert != NULL) {
            l->o.device->ops->expert_close(l->o.device, e.expert);
        }
    }
    fini(l);
}

bool loader_ask(loader *l, uint32_t layer, int32_t expert_id)
{
    pthread_mutex_lock(&l->lock);
    bool room = l->n_asked < l->n_taken + LOADER_DEPTH;
    if (room) {
        l->experts[l->n_asked++ % LOADER_DEPTH] = (loader_expert){.layer = layer, .expert_id = expert_id};
        pthread_cond_signal(&l->asked);
    }
    pthread_mutex_unlock(&l->lock);
    return room;
}

bool loader_take(loader *l, loader_expert *out)
{
    pthread_mutex_lock(&l->lock);
    bool ready = l->n_taken < l->n_made;
    if (ready) {
        *out = l->experts[l->n_taken++ % LOADER_DEPTH];
    }
    pthread_mutex_unlock(&l->lock);
    return ready;
}
