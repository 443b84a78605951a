/* Changes between two steps. Who asks lays the change down and sleeps; the engine's thread takes it when no step is under way,
 * and wakes everybody. Those who ask go by turns. */
#include "engine/engine_priv.h"

/* One who asks, on its own stack until it is answered. */
typedef struct engine_asked {
    const engine_changes *changes;
    bool is_answered; /* under the engine's lock */
    moe_status status;
    moe_error why;
} engine_asked;

moe_status engine_check_set(engine *e, const router_set *set, moe_error *err)
{
    const router_space *space = router_set_space(set);

    pthread_mutex_lock(&e->lock);
    bool is_known = router_space_version(space) <= router_space_version(e->space);
    pthread_mutex_unlock(&e->lock);
    return is_known ? MOE_OK
                    : moe_fail(err, MOE_ERR_INVALID_ARG, "expert set %.12s: it has experts that are not here yet",
                               router_set_id(set));
}

static void switch_set(engine *e, router_set *set)
{
    router_set *old = e->set;

    exchange_set_needed(e->options.exchange, set);
    pthread_mutex_lock(&e->lock);
    e->set = router_set_ref(set);
    pthread_mutex_unlock(&e->lock);
    router_set_unref(old);
}

static moe_status take(engine *e, const engine_changes *c, moe_error *err)
{
    moe_status status = c->set == NULL ? MOE_OK : engine_check_set(e, c->set, err);

    if (status == MOE_OK && c->take != NULL) {
        status = c->take(c->ctx, err);
    }
    if (status == MOE_OK && c->set != NULL) {
        switch_set(e, c->set);
    }
    return status;
}

void engine_take_change(engine *e)
{
    engine_asked *asked = atomic_load_explicit(&e->change.now, memory_order_acquire);

    if (asked == NULL) {
        return;
    }
    asked->status = take(e, asked->changes, &asked->why);
    pthread_mutex_lock(&e->lock);
    asked->is_answered = true;
    atomic_store(&e->change.now, NULL);
    e->change.n_taken++;
    pthread_cond_broadcast(&e->change.ended);
    pthread_mutex_unlock(&e->lock);
}

static void ask_engine(engine *e, engine_asked *asked)
{
    pthread_mutex_lock(&e->lock);
    uint64_t turn = e->change.n_asked++;
    while (e->change.n_taken != turn) {
        pthread_cond_wait(&e->change.ended, &e->lock);
    }
    atomic_store_explicit(&e->change.now, asked, memory_order_release);
    pthread_mutex_unlock(&e->lock);
    moe_waiter_wake(e->waiter);
    pthread_mutex_lock(&e->lock);
    while (!asked->is_answered) {
        pthread_cond_wait(&e->change.ended, &e->lock);
    }
    pthread_mutex_unlock(&e->lock);
}

moe_status engine_change(engine *e, const engine_changes *changes, moe_error *err)
{
    engine_asked asked = {.changes = changes, .why = {""}};

    if (!e->thread_runs) {
        return e->run.active ? moe_fail(err, MOE_ERR_BUSY, "a step is under way") : take(e, changes, err);
    }
    ask_engine(e, &asked);
    return asked.status == MOE_OK ? MOE_OK : moe_fail(err, asked.status, "%s", asked.why.text);
}
