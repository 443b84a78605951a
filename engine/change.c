/* Changes between two steps. Who asks lays the change down and sleeps; the engine's thread takes it when no step is under way,
 * and wakes everybody. Those who ask go by turns. */
#include "engine/engine_priv.h"

#include <stdlib.h>

/* One who asks, on its own stack until it is answered. */
typedef struct engine_asked {
    const engine_changes *changes;
    bool is_answered; /* under the engine's lock */
    moe_status status;
    moe_error why;
} engine_asked;

/* ------------------------------------------------------------------------------------------------ growth */
struct engine_growth {
    router_space *space;                         /* shared */
    model_room *rooms[ENGINE_MAX_MICRO_BATCHES]; /* owned */
    uint32_t n_rooms;
    router_use *use;           /* owned */
    exchange_growth *exchange; /* owned */
};

moe_status engine_growth_open(engine *e, model_gates *gates, engine_growth **out, moe_error *err)
{
    const engine_options *o = &e->options;
    router_space *space = model_gates_space(gates), *now = engine_current_space(e);
    bool is_later = router_space_continues(space, now);
    engine_growth *g = is_later ? calloc(1, sizeof *g) : NULL;
    moe_status status = g != NULL ? MOE_OK : MOE_ERR_NO_MEMORY;

    router_space_unref(now);
    if (!is_later) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "engine: the expert space is no later version of the one in use");
    }
    for (uint32_t i = 0; i < o->micro_batches && status == MOE_OK; i++) {
        status = model_room_open(o->model, gates, o->max_batch_tokens, &g->rooms[i]);
        g->n_rooms = i + 1;
    }
    if (status == MOE_OK) {
        status = router_use_open(space, e->info.config->gate.k, moe_now_ns(o->clock), &g->use);
    }
    if (status == MOE_OK) {
        status = exchange_growth_open(o->exchange, space, &g->exchange, err);
    }
    if (status != MOE_OK) {
        engine_growth_close(g);
        return moe_fail(err, status, "engine: %u experts: out of memory", router_space_n_slots(space));
    }
    g->space = router_space_ref(space);
    *out = g;
    return MOE_OK;
}

void engine_growth_close(engine_growth *g)
{
    if (g == NULL) {
        return;
    }
    for (uint32_t i = 0; i < g->n_rooms; i++) {
        model_room_close(g->rooms[i]);
    }
    router_use_close(g->use);
    exchange_growth_close(g->exchange);
    router_space_unref(g->space);
    free(g);
}

static void grow(engine *e, engine_growth *g)
{
    router_space *space = e->space;
    router_use *use = e->use;

    for (uint32_t i = 0; i < g->n_rooms; i++) {
        g->rooms[i] = model_batch_move(e->batches[i], g->rooms[i]);
    }
    exchange_grow(e->options.exchange, g->exchange);
    router_use_take(g->use, use);
    pthread_mutex_lock(&e->lock);
    e->space = g->space;
    e->use = g->use;
    pthread_mutex_unlock(&e->lock);
    g->space = space;
    g->use = use;
}

/* ------------------------------------------------------------------------------------------------ taking */
static moe_status check_set_in(const router_space *space, const router_set *set, moe_error *err)
{
    return router_set_is_in(set, space)
               ? MOE_OK
               : moe_fail(err, MOE_ERR_INVALID_ARG, "expert set %.12s: it has experts that are not here yet",
                          router_set_id(set));
}

moe_status engine_check_set(engine *e, const router_set *set, moe_error *err)
{
    router_space *space = engine_current_space(e);
    moe_status status = check_set_in(space, set, err);

    router_space_unref(space);
    return status;
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
    const router_space *space = c->growth != NULL ? c->growth->space : e->space;
    moe_status status = c->set == NULL ? MOE_OK : check_set_in(space, c->set, err);

    if (status == MOE_OK && c->growth != NULL && !router_space_continues(space, e->space)) {
        status = moe_fail(err, MOE_ERR_INVALID_ARG, "engine: the expert space has grown otherwise meanwhile");
    }
    if (status == MOE_OK && c->take != NULL) {
        status = c->take(c->ctx, err);
    }
    if (status == MOE_OK && c->growth != NULL) {
        grow(e, c->growth);
    }
    if (status == MOE_OK && c->set != NULL) {
        switch_set(e, c->set);
    }
    return status;
}

/* Of the sets that were current since the last step, the latest. */
static void take_next_set(engine *e)
{
    pthread_mutex_lock(&e->lock);
    router_set *next = e->next_set, *old = e->set;
    if (next != NULL) {
        e->set = next;
        e->next_set = NULL;
    }
    pthread_mutex_unlock(&e->lock);
    if (next != NULL) {
        exchange_set_needed(e->options.exchange, next);
        router_set_unref(old);
    }
}

void engine_take_change(engine *e)
{
    engine_asked *asked = atomic_load_explicit(&e->change.now, memory_order_acquire);

    take_next_set(e);
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

/* A set of experts that are all here needs nothing of the engine: who comes from now on gets it, and a step that runs goes on. Not
 * before changes that others asked for earlier. */
static bool switch_at_once(engine *e, router_set *set)
{
    router_set *old = NULL;

    pthread_mutex_lock(&e->lock);
    bool is_free = e->change.n_asked == e->change.n_taken && router_set_is_in(set, e->space);
    if (is_free) {
        old = e->next_set;
        e->next_set = router_set_ref(set);
    }
    pthread_mutex_unlock(&e->lock);
    router_set_unref(old);
    return is_free;
}

moe_status engine_change(engine *e, const engine_changes *changes, moe_error *err)
{
    engine_asked asked = {.changes = changes, .why = {""}};
    bool is_set_alone = changes->growth == NULL && changes->take == NULL && changes->set != NULL;

    if (!e->thread_runs) {
        return e->run.active ? moe_fail(err, MOE_ERR_BUSY, "a step is under way") : take(e, changes, err);
    }
    if (is_set_alone && switch_at_once(e, changes->set)) {
        moe_waiter_wake(e->waiter);
        return MOE_OK;
    }
    ask_engine(e, &asked);
    return asked.status == MOE_OK ? MOE_OK : moe_fail(err, asked.status, "%s", asked.why.text);
}
