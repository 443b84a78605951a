#include "api/grpc/work.h"
#include "api/grpc/wake_priv.h"

#include <pthread.h>
#include <stdlib.h>

typedef enum { WORK_WAITING, WORK_RUNNING, WORK_DONE } work_stage;

struct work {
    work_desk *desk;
    const work_kind *kind;
    void *state; /* owned */
    wake_slot *slot;
    size_t bytes;
    uint64_t deadline_ns;
    work *next; /* that waits */
    /* under the desk's lock */
    work_stage stage;
    bool abandoned; /* only while it runs */
    bool late;      /* its deadline had passed before it was begun */
};

struct work_desk {
    pthread_mutex_t lock; /* of the queue and of the stages; held for a few instructions */
    pthread_cond_t filled;
    work *first, **end; /* that wait, in order of arrival */
    size_t n_waiting, n_bytes;
    bool stop;
    pthread_t threads[WORK_THREADS];
    size_t n_threads;
};

static void work_free(work *w)
{
    w->kind->fini(w->state);
    free(w);
}

/* ------------------------------------------------------------------------------------------------ desk's threads */
static void unlink_waiting(work_desk *desk, work *w)
{
    work **at = &desk->first;

    while (*at != w) {
        at = &(*at)->next;
    }
    *at = w->next;
    desk->end = *at == NULL ? at : desk->end;
    desk->n_waiting--;
    desk->n_bytes -= w->bytes;
}

static work *take(work_desk *desk)
{
    work *w;

    pthread_mutex_lock(&desk->lock);
    while (!desk->stop && desk->first == NULL) {
        pthread_cond_wait(&desk->filled, &desk->lock);
    }
    w = desk->stop ? NULL : desk->first;
    if (w != NULL) {
        unlink_waiting(desk, w);
        w->stage = WORK_RUNNING;
        w->late = w->deadline_ns != 0 && w->deadline_ns <= moe_now_ns(moe_clock_real());
    }
    pthread_mutex_unlock(&desk->lock);
    return w;
}

/* Once the lock is released the API thread may free the work, and give the slot to another call, which a wake-up for
 * nothing does not harm. */
static void give_back(work_desk *desk, work *w)
{
    wake_slot *slot = w->slot;
    bool abandoned;

    pthread_mutex_lock(&desk->lock);
    abandoned = w->abandoned;
    w->stage = WORK_DONE;
    pthread_mutex_unlock(&desk->lock);
    if (abandoned) {
        work_free(w);
    } else {
        wake_signal(slot);
    }
}

static void *run(void *ctx)
{
    work_desk *desk = ctx;
    work *w;

    while ((w = take(desk)) != NULL) {
        if (!w->late) {
            w->kind->run(w->state);
        }
        give_back(desk, w);
    }
    return NULL;
}

moe_status work_desk_open(work_desk **out)
{
    work_desk *desk = calloc(1, sizeof(*desk));

    if (desk == NULL) {
        return MOE_ERR_NO_MEMORY;
    }
    pthread_mutex_init(&desk->lock, NULL);
    pthread_cond_init(&desk->filled, NULL);
    desk->end = &desk->first;
    while (desk->n_threads < WORK_THREADS) {
        if (pthread_create(&desk->threads[desk->n_threads], NULL, run, desk) != 0) {
            work_desk_close(desk);
            return MOE_ERR_NO_MEMORY;
        }
        desk->n_threads++;
    }
    *out = desk;
    return MOE_OK;
}

void work_desk_close(work_desk *desk)
{
    if (desk == NULL) {
        return;
    }
    pthread_mutex_lock(&desk->lock);
    desk->stop = true;
    pthread_cond_broadcast(&desk->filled);
    pthread_mutex_unlock(&desk->lock);
    for (size_t i = 0; i < desk->n_threads; i++) {
        pthread_join(desk->threads[i], NULL);
    }
    MOE_ASSERT(desk->first == NULL);
    pthread_cond_destroy(&desk->filled);
    pthread_mutex_destroy(&desk->lock);
    free(desk);
}

/* ------------------------------------------------------------------------------------------------ the API thread */
static bool enqueue(work_desk *desk, work *w)
{
    bool fits;

    pthread_mutex_lock(&desk->lock);
    fits = desk->n_waiting < WORK_MAX_WAITING && w->bytes <= WORK_MAX_BYTES - desk->n_bytes;
    if (fits) {
        *desk->end = w;
        desk->end = &w->next;
        desk->n_waiting++;
        desk->n_bytes += w->bytes;
        pthread_cond_signal(&desk->filled);
    }
    pthread_mutex_unlock(&desk->lock);
    return fits;
}

void work_begin(rpc_call *call, const work_kind *kind, void *state, size_t bytes)
{
    work *w = calloc(1, sizeof(*w));

    MOE_ASSERT(call->work == NULL);
    if (w == NULL) {
        kind->fini(state);
        rpc_fail(call, MOE_ERR_NO_MEMORY, "out of memory");
        return;
    }
    *w = (work){
        .desk = rpc_work_desk(call), .kind = kind, .state = state, .bytes = bytes, .deadline_ns = call->deadline_ns};
    w->slot = wake_slot_reserve(rpc_wake_hub(call), call);
    if (w->slot == NULL || !enqueue(w->desk, w)) {
        if (w->slot != NULL) {
            wake_slot_release(w->slot);
        }
        work_free(w);
        rpc_fail(call, MOE_ERR_BUSY, "too many long texts are waiting to be read");
        return;
    }
    call->work = w;
}

void work_wake(rpc_call *call)
{
    work *w = call->work;
    bool done;

    pthread_mutex_lock(&w->desk->lock);
    done = w->stage == WORK_DONE;
    pthread_mutex_unlock(&w->desk->lock);
    if (!done) {
        return;
    }
    call->work = NULL;
    wake_slot_release(w->slot);
    if (w->late) {
        rpc_fail(call, MOE_ERR_TIMEOUT, "the deadline passed while the text waited to be read");
    } else {
        w->kind->done(call, w->state);
    }
    work_free(w);
}

void work_abandon(rpc_call *call)
{
    work *w = call->work;
    bool running;

    if (w == NULL) {
        return;
    }
    call->work = NULL;
    wake_slot_release(w->slot);
    pthread_mutex_lock(&w->desk->lock);
    running = w->abandoned = w->stage == WORK_RUNNING;
    if (w->stage == WORK_WAITING) {
        unlink_waiting(w->desk, w);
    }
    pthread_mutex_unlock(&w->desk->lock);
    if (!running) {
        work_free(w);
    }
}
