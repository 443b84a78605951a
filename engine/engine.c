/* Requests join and leave; the engine's thread. One step is in step.c.
 *
 * A request has two references: the engine's, from admission to retirement, and the call's. Between the two threads are
 * only the queue of arrivals, the request's ring of events, and a few atomic flags. A cancel is such a flag: the engine
 * looks at it between steps, and every millisecond while a step waits for experts. The client hears of the end at once;
 * the pages stay until the step has ended, so nothing is ever torn out of one that runs.
 *
 * Admission counts what waits (n_waiting) itself, under the lock: the queue alone would say how many have not been
 * taken yet, but a request that was taken may still wait for pages. */
#include "engine/engine_priv.h"

#include <stdlib.h>
#include <string.h>

const double engine_bucket_seconds[16] = {0.005, 0.01, 0.025, 0.05, 0.1,  0.2,  0.4,   0.8,
                                          1.6,   3.2,  6.4,   12.8, 25.6, 51.2, 102.4, 1e9};

/* Chosen, not measured. With few running choices a Score request still gets so many of its tokens in one step. */
#define LOGIT_ROWS_LEAST 64u

#define IDLE_WAIT_NS    50000000u /* an idle loop looks at deadlines this often, */
#define UNREADY_WAIT_NS 5000000u  /* and so often at its connections while it waits for them */

/* ------------------------------------------------------------------------------------------------ open and close */
static moe_status check_options(const engine_options *o, moe_error *err)
{
    if (o->prefill_chunk == 0 || o->prefill_chunk > o->max_batch_tokens) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "prefill_chunk %u: must be within [1, max_batch_tokens %u]",
                        o->prefill_chunk, o->max_batch_tokens);
    }
    if (o->micro_batches < 1 || o->micro_batches > ENGINE_MAX_MICRO_BATCHES) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "micro_batches %u: must be 1 or 2", o->micro_batches);
    }
    return MOE_OK;
}

static size_t logits_bytes(const engine *e)
{
    return (size_t)e->limits.max_logit_rows * model_head_width(e->info.config) * sizeof *e->logits;
}

static moe_status open_buffers(engine *e)
{
    const engine_options *o = &e->options;
    const model_config *c = e->info.config;
    moe_status status = step_init(&e->step, &e->limits);

    for (uint32_t i = 0; i < o->micro_batches && status == MOE_OK; i++) {
        status = model_batch_open(o->model, o->kv, o->max_batch_tokens, e->limits.max_logit_rows, &e->batches[i]);
    }
    if (status == MOE_OK) {
        status = engine_open_samples(e);
    }
    if (status == MOE_OK) {
        status = moe_queue_open(o->max_queue + 1, &e->arrivals);
    }
    if (status == MOE_OK) {
        status = moe_waiter_open(&e->waiter);
    }
    e->logits = compute_host_alloc(e->info.device, logits_bytes(e));
    if (status == MOE_OK) {
        status = router_use_open(e->space, c->gate.k, moe_now_ns(o->clock), &e->use);
    }
    return status == MOE_OK && e->logits == NULL ? MOE_ERR_NO_MEMORY : status;
}

static void fill_info(engine *e)
{
    const engine_options *o = &e->options;

    e->info = (engine_info){.config = model_get_config(o->model),
                            .tokenizer = o->tokenizer,
                            .numeric_class = model_device(o->model)->numeric_class,
                            .device = model_device(o->model),
                            .max_context = o->max_context,
                            .default_max_tokens = o->default_max_tokens,
                            .max_queue = o->max_queue,
                            .max_running = e->limits.max_running,
                            .kv_capacity_tokens = model_kv_capacity_tokens(o->kv)};
    memcpy(e->info.fingerprint, o->fingerprint, sizeof e->info.fingerprint);
}

moe_status engine_open(const engine_options *options, engine **out, moe_error *err)
{
    moe_status status = check_options(options, err);
    engine *e;

    if (status != MOE_OK) {
        return status;
    }
    e = calloc(1, sizeof *e);
    if (e == NULL) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "engine: out of memory");
    }
    e->options = *options;
    e->limits = (scheduler_limits){.max_batch_tokens = options->max_batch_tokens,
                                   .prefill_chunk = options->prefill_chunk,
                                   .max_running = MOE_MIN(options->max_running, options->max_batch_tokens)};
    e->limits.max_logit_rows = MOE_MIN(MOE_MAX(e->limits.max_running, LOGIT_ROWS_LEAST), options->max_batch_tokens);
    fill_info(e);
    e->set = router_set_ref(options->base_set);
    e->space = router_space_ref(router_set_space(e->set));
    pthread_mutex_init(&e->lock, NULL);
    pthread_cond_init(&e->change.ended, NULL);
    exchange_set_needed(options->exchange, e->set);
    status = open_buffers(e);
    if (status != MOE_OK) {
        engine_close(e);
        return moe_fail(err, status, "engine: %s for steps of %u rows", moe_status_text(status),
                        options->max_batch_tokens);
    }
    *out = e;
    return MOE_OK;
}

static void end_all(engine *e)
{
    engine_intake(e);
    while (e->oldest != NULL) {
        engine_fail_request(e, e->oldest, MOE_ERR_UNAVAILABLE, "the server is shutting down");
    }
    if (atomic_load(&e->background) != NULL) {
        engine_fail_request(e, atomic_load(&e->background), MOE_ERR_UNAVAILABLE, "the server is shutting down");
    }
}

void engine_close(engine *e)
{
    if (e == NULL) {
        return;
    }
    atomic_store(&e->draining, true);
    if (e->thread_runs) {
        atomic_store(&e->stopping, true);
        moe_waiter_wake(e->waiter);
        pthread_join(e->thread, NULL);
    }
    if (e->arrivals != NULL) {
        engine_abandon_step(e, "it was put off");
        end_all(e);
    }
    for (size_t i = 0; i < MOE_COUNT(e->batches); i++) {
        model_batch_close(e->batches[i]);
    }
    step_fini(&e->step);
    engine_close_samples(e);
    moe_queue_close(e->arrivals);
    moe_waiter_close(e->waiter);
    router_set_unref(e->set);
    router_set_unref(e->next_set);
    router_space_unref(e->space);
    compute_host_free(e->info.device, e->logits, logits_bytes(e));
    router_use_close(e->use);
    pthread_cond_destroy(&e->change.ended);
    pthread_mutex_destroy(&e->lock);
    free(e);
}

static void *engine_main(void *arg)
{
    engine *e = arg;

    compute_thread_init();
    while (!atomic_load(&e->stopping)) {
        engine_turn_kind kind = engine_turn(e);

        if (kind == ENGINE_TURN_WAITS) {
            engine_pause(e);
        } else if (kind == ENGINE_TURN_IDLE) {
            bool calm = engine_ready(e) && e->n_blocked == 0;
            moe_waiter_wait(e->waiter, NULL, NULL, calm ? IDLE_WAIT_NS : UNREADY_WAIT_NS);
        }
    }
    return NULL;
}

moe_status engine_start(engine *e, moe_error *err)
{
    if (pthread_create(&e->thread, NULL, engine_main, e) != 0) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "engine thread: cannot be created");
    }
    e->thread_runs = true;
    return MOE_OK;
}

void engine_begin_drain(engine *e)
{
    atomic_store(&e->draining, true);
}

bool engine_idle(engine *e)
{
    return atomic_load(&e->n_live) == 0;
}

/* ------------------------------------------------------------------------------------------------ joining */
static bool id_is_live(const engine *e, const char *id)
{
    for (const engine_request *r = e->live_ids; r != NULL; r = r->next_id) {
        if (strcmp(r->id, id) == 0) {
            return true;
        }
    }
    return false;
}

static void make_live(engine *e, engine_request *r)
{
    r->next_id = e->live_ids;
    e->live_ids = r;
}

static moe_status admit_in_background(engine *e, engine_request *r, moe_error *err)
{
    if (atomic_load(&e->background) != NULL) {
        return moe_fail(err, MOE_ERR_BUSY, "a request is in the background already");
    }
    moe_status status = engine_sets_take(e, r->set, err);
    if (status == MOE_OK) {
        make_live(e, r);
        atomic_store(&e->background, r);
    }
    return status;
}

static moe_status admit_locked(engine *e, engine_request *r, moe_error *err)
{
    if (!r->background && atomic_load(&e->n_waiting) >= e->options.max_queue) {
        return moe_fail(err, MOE_ERR_BUSY, "the queue is full: %u requests wait (max_queue)", e->options.max_queue);
    }
    if (id_is_live(e, r->id)) {
        return moe_fail(err, MOE_ERR_EXISTS, "request_id: a request with this id is running");
    }
    if (r->background) {
        return admit_in_background(e, r, err);
    }
    moe_status status = engine_sets_take(e, r->set, err);
    if (status == MOE_OK && moe_queue_push(e->arrivals, r) != MOE_OK) {
        engine_sets_leave(e, r->set);
        status = moe_fail(err, MOE_ERR_BUSY, "the queue is full (max_queue %u)", e->options.max_queue);
    }
    if (status != MOE_OK) {
        return status;
    }
    make_live(e, r);
    atomic_fetch_add(&e->n_waiting, 1);
    atomic_fetch_add(&e->n_live, 1);
    return MOE_OK;
}

moe_status engine_submit(engine *e, const engine_spec *spec, engine_request **out, moe_error *err)
{
    router_set *current = engine_current_set(e);
    engine_request *r = NULL;
    moe_status status = request_open(e->waiter, &e->info, current, spec, moe_now_ns(e->options.clock), &r, err);

    router_set_unref(current);
    if (status == MOE_OK) {
        status = engine_check_set(e, r->set, err) == MOE_OK ? engine_check_ready(e, err) : MOE_ERR_UNAVAILABLE;
        if (status == MOE_OK) {
            pthread_mutex_lock(&e->lock);
            status = admit_locked(e, r, err);
            pthread_mutex_unlock(&e->lock);
        }
        if (status != MOE_OK) { /* the caller's and the engine's */
            request_unref(r);
            request_unref(r);
        }
    }
    if (status != MOE_OK) {
        pthread_mutex_lock(&e->lock);
        e->published.requests_refused += !spec->background;
        pthread_mutex_unlock(&e->lock);
        return status;
    }
    moe_waiter_wake(e->waiter);
    *out = r;
    return MOE_OK;
}

void engine_cancel(engine_request *r)
{
    if (!atomic_exchange(&r->cancelled, true)) {
        moe_waiter_wake(r->waiter);
    }
}

/* Tokens that the client already has: text and stop state are replayed, nothing is given out but a possible end. They
 * are then a part of what the scheduler reads like a prompt; the next token follows from seed and output index, so the
 * stream goes on as if it had never been cut. */
static void replay_resumed(engine *e, engine_request *r)
{
    for (uint32_t i = 0; i < r->n_resume; i++) {
        if (choice_append(&r->choices[0], &e->info, &(choice_token){.id = r->resume[i]}, true)) {
            break;
        }
    }
    if (r->n_done == r->n_choices) {
        request_emit_done(r);
    }
}

static void take_arrivals(engine *e)
{
    engine_request *r;

    while ((r = moe_queue_pop(e->arrivals)) != NULL) {
        r->older = e->newest;
        r->newer = NULL;
        if (e->newest != NULL) {
            e->newest->newer = r;
        } else {
            e->oldest = r;
        }
        e->newest = r;
        e->stats.requests_admitted++;
        replay_resumed(e, r);
    }
}

/* ------------------------------------------------------------------------------------------------ leaving */
void engine_release_choice(engine *e, choice *c)
{
    model_kv_seq_release(e->options.kv, &c->kv);
}

/* It is in no figures any more. */
static void uncount(engine *e, const engine_request *r)
{
    engine_observe(&e->stats.request, engine_seconds(r->submitted_ns, moe_now_ns(e->options.clock)));
    if (!r->started) {
        atomic_fetch_sub(&e->n_waiting, 1);
    }
    atomic_fetch_sub(&e->n_live, 1);
}

/* Pages back, off the lists, the engine's reference given up. The last event has been given out. */
static void retire(engine *e, engine_request *r)
{
    for (uint32_t i = 0; i < r->n_choices; i++) {
        engine_release_choice(e, &r->choices[i]);
    }
    if (!r->background) {
        *(r->older != NULL ? &r->older->newer : &e->oldest) = r->newer;
        *(r->newer != NULL ? &r->newer->older : &e->newest) = r->older;
    }
    pthread_mutex_lock(&e->lock);
    if (r->background) {
        atomic_store(&e->background, NULL);
    }
    for (engine_request **link = &e->live_ids; *link != NULL; link = &(*link)->next_id) {
        if (*link == r) {
            *link = r->next_id;
            break;
        }
    }
    engine_sets_leave(e, r->set);
    pthread_mutex_unlock(&e->lock);
    atomic_store(&r->paused, false);
    if (!r->background) {
        uncount(e, r);
    }
    request_unref(r);
}

/* The client has heard of its end. What the step that runs needs of it stays until that has ended. */
static void leave(engine *e, engine_request *r)
{
    r->left = true;
    if (r->in_step) {
        e->run.left_behind = true;
    } else {
        retire(e, r);
    }
}

void engine_fail_request(engine *e, engine_request *r, moe_status status, const char *why)
{
    MOE_DEBUG("request %s failed: %s", r->id, why);
    for (uint32_t i = 0; i < r->n_choices; i++) {
        if (r->choices[i].state != CHOICE_DONE) {
            choice_move(&r->choices[i], CHOICE_DONE);
        }
    }
    r->n_done = r->n_choices;
    e->stats.requests_failed += !r->background;
    request_emit_failed(r, status, why);
    leave(e, r);
}

/* It has been left out of steps because nobody computes an expert that it needs. */
static void look_at_blocked(engine *e, engine_request *r, uint64_t now)
{
    char why[ENGINE_STUCK_TEXT];

    if (now - r->blocked.since_ns >= e->options.step_timeout_ns) {
        engine_fail_request(e, r, MOE_ERR_UNAVAILABLE, engine_stuck_text(&r->blocked.by, why));
        return;
    }
    r->blocked.is = now < r->blocked.retry_ns || !exchange_has_taker(e->options.exchange, &r->blocked.by);
    e->n_blocked += r->blocked.is;
}

/* One that has ended leaves; others may have to end. */
static void look_at(engine *e, engine_request *r, uint64_t now)
{
    if (r->ended) {
        if (!r->in_step) {
            e->stats.requests_done += !r->left && !r->background;
            retire(e, r);
        }
    } else if (atomic_load(&r->cancelled)) {
        e->stats.requests_cancelled += !r->background;
        request_emit_cancelled(r);
        leave(e, r);
    } else if (r->deadline_ns != 0 && now >= r->deadline_ns) {
        engine_fail_request(e, r, MOE_ERR_TIMEOUT, "the request's deadline has passed");
    } else if (r->blocked.is) {
        look_at_blocked(e, r, now);
    }
}

void engine_intake(engine *e)
{
    uint64_t now = moe_now_ns(e->options.clock);
    engine_request *next, *last = atomic_load(&e->background);

    e->intake_ns = now;
    e->n_blocked = 0;
    take_arrivals(e);
    for (engine_request *r = e->oldest; r != NULL; r = next) {
        next = r->newer;
        look_at(e, r, now);
    }
    if (last != NULL) {
        look_at(e, last, now);
    }
}

/* ------------------------------------------------------------------------------------------------ what others read */
uint64_t engine_now_ns(const engine *e)
{
    return moe_now_ns(e->options.clock);
}

const engine_info *engine_get_info(const engine *e)
{
    return &e->info;
}

void engine_publish_stats(engine *e)
{
    model_kv_stats kv;
    compute_counters counters;
    compute_device *device = model_device(e->options.model);
    uint64_t refused;

    model_kv_get_stats(e->options.kv, &kv);
    device->ops->counters(device, &counters);
    e->stats.attention_keys_seen = counters.stick_keys_seen - e->own_tokens.stick_keys_seen;
    e->stats.attention_keys_skipped = counters.stick_keys_skipped - e->own_tokens.stick_keys_skipped;
    exchange_get_stats(e->options.exchange, &e->stats.dispatch);
    e->stats.queued = atomic_load(&e->n_waiting);
    e->stats.running = e->step.n_running;
    e->stats.kv_pages = kv.n_pages;
    e->stats.kv_pages_used = kv.n_used;
    e->stats.kv_pages_cached = kv.n_cached;
    e->stats.prefix_hit_tokens = kv.prefix_hit_tokens;
    e->stats.last_step_ns = moe_now_ns(e->options.clock);
    pthread_mutex_lock(&e->lock);
    refused = e->published.requests_refused; /* counted where it happens, on any thread */
    e->published = e->stats;
    e->published.requests_refused = refused;
    router_use_fold(e->use, e->stats.last_step_ns);
    pthread_mutex_unlock(&e->lock);
}

void engine_get_stats(engine *e, engine_stats *out)
{
    pthread_mutex_lock(&e->lock);
    *out = e->published;
    pthread_mutex_unlock(&e->lock);
    /* A step that waits for its experts turns the exchange: the loop stands still only when that does. */
    out->last_step_ns = MOE_MAX(out->last_step_ns, exchange_turned_ns(e->options.exchange));
}

void engine_get_ffn_picks(engine *e, uint64_t *out, size_t n)
{
    pthread_mutex_lock(&e->lock);
    router_use_read_node_picks(e->use, out, n);
    pthread_mutex_unlock(&e->lock);
}

uint64_t engine_get_expert_rows(engine *e, uint64_t *out, size_t n)
{
    pthread_mutex_lock(&e->lock);
    router_use_read_rows(e->use, out, n);
    pthread_mutex_unlock(&e->lock);
    return atomic_load_explicit(&e->rows_done, memory_order_relaxed);
}

bool engine_get_expert_rows_over(engine *e, uint64_t over_ns, uint64_t *out, size_t n, uint64_t *longest_ns)
{
    uint64_t now = moe_now_ns(e->options.clock);

    pthread_mutex_lock(&e->lock);
    bool is_kept = router_use_read_over(e->use, now, over_ns, out, n, longest_ns);
    pthread_mutex_unlock(&e->lock);
    return is_kept;
}

uint64_t engine_get_expert_use(engine *e, router_expert_use *out, size_t n)
{
    pthread_mutex_lock(&e->lock);
    router_use_read(e->use, out, n);
    pthread_mutex_unlock(&e->lock);
    return atomic_load_explicit(&e->rows_done, memory_order_relaxed);
}

router_space *engine_current_space(engine *e)
{
    router_space *s;

    pthread_mutex_lock(&e->lock);
    s = router_space_ref(e->space);
    pthread_mutex_unlock(&e->lock);
    return s;
}

router_set *engine_current_set(engine *e)
{
    router_set *s;

    pthread_mutex_lock(&e->lock);
    s = router_set_ref(e->next_set != NULL ? e->next_set : e->set);
    pthread_mutex_unlock(&e->lock);
    return s;
}
