/* One step: plan, all layers with the experts' exchange in between, then one more token for each choice whose last
 * token was read.
 *
 * Nothing that others see changes before all layers have run: tokens count as computed, and full pages are registered
 * for other requests, only in engine_finish_work. A step that fails in the middle ends its own requests, whose pages go
 * back; what was written into them is read by nobody. */
#include "engine/engine_priv.h"

#include <string.h>

#define PROGRESS_NS 1000000000u /* between two PROGRESS events of a request that waits; chosen */

/* ------------------------------------------------------------------------------------------------ planning */
/* A waiting choice starts, or starts again. */
static void on_admit(void *ctx, choice *c)
{
    engine *e = ctx;
    engine_request *r = c->request;

    if (r->started) {
        return;
    }
    r->started = true;
    r->started_ns = moe_now_ns(e->options.clock);
    r->usage.queue_seconds = engine_seconds(r->submitted_ns, r->started_ns);
    engine_observe(&e->stats.queue, r->usage.queue_seconds);
    r->usage.cached_tokens = MOE_MIN(c->n_computed, r->n_prompt);
    atomic_fetch_sub(&e->n_waiting, 1);
    request_emit_started(r);
}

/* ------------------------------------------------------------------------------------------------ layers */
typedef struct micro_batch {
    uint32_t first_row, n_rows;
} micro_batch;

/* Two micro-batches alternate only when each gets a row. A sequence may straddle them: the first half's K and V of a
 * layer are stored before the second half attends. */
static uint32_t split(const engine *e, micro_batch *mb)
{
    uint32_t n = e->step.n_rows, half = n / 2;

    if (e->options.micro_batches == 1 || half == 0) {
        mb[0] = (micro_batch){0, n};
        return 1;
    }
    mb[0] = (micro_batch){0, half};
    mb[1] = (micro_batch){half, n - half};
    return 2;
}

/* One writer: a plain add, made visible to readers of the counters. */
static void count(_Atomic uint64_t *at)
{
    atomic_store_explicit(at, atomic_load_explicit(at, memory_order_relaxed) + 1, memory_order_relaxed);
}

static void count_rows(engine *e, const micro_batch *mb, const int32_t *ids, uint32_t layer)
{
    const model_config *c = e->info.config;
    size_t k = c->gate.k;

    for (size_t row = 0; row < mb->n_rows; row++) {
        size_t n_ffn = 0;

        for (size_t j = 0; j < k; j++) {
            int32_t id = ids[row * k + j];
            n_ffn += !model_expert_is_local(c, id);
            count(&e->expert_rows[(size_t)layer * c->n_experts + (size_t)id]);
        }
        count(&e->ffn_picks[(size_t)layer * (k + 1) + n_ffn]);
    }
}

/* Keeps the picks of scored rows that were asked for. */
static void keep_experts(engine *e, const micro_batch *mb, const int32_t *ids, uint32_t layer)
{
    uint32_t k = e->info.config->gate.k;

    for (uint32_t w = 0; w < e->step.n_work; w++) {
        const step_work *work = &e->step.work[w];
        engine_request *r = work->choice->request;
        if (!r->want_experts || r->kind != ENGINE_SCORE) {
            continue;
        }
        for (uint32_t i = 0; i < work->n_rows; i++) {
            uint32_t row = work->first_row + i;
            if (row >= mb->first_row && row < mb->first_row + mb->n_rows) {
                size_t position = e->step.rows[row].position;
                memcpy(r->experts + position * r->n_experts_per_token + (size_t)layer * k,
                       ids + (size_t)(row - mb->first_row) * k, k * sizeof *ids);
            }
        }
    }
}

static moe_status route(engine *e, uint32_t b, const micro_batch *mb, uint32_t layer)
{
    model_batch *batch = e->batches[b];
    moe_status status = model_batch_route(batch, layer);
    exchange_job job = {.layer = layer,
                        .micro_batch = b,
                        .n_rows = mb->n_rows,
                        .ids = model_batch_remote_ids(batch),
                        .x = model_batch_x(batch),
                        .results = model_batch_results(batch)};

    if (status != MOE_OK) {
        return status;
    }
    if (!e->proving) { /* a token of our own is nobody's */
        count_rows(e, mb, model_batch_ids(batch), layer);
    }
    keep_experts(e, mb, model_batch_ids(batch), layer);
    status = exchange_begin(e->options.exchange, &job);
    if (status == MOE_OK) {
        model_batch_local(batch);
    }
    return status;
}

/* Every layer of every micro-batch: while one waits for its experts, the other attends.
 *
 *   b = 0   route 0 |         | combine, route 1 |                  | combine, route 2 | ...
 *   b = 1           | route 0 |                  | combine, route 1 |                  | ...
 *
 * exchange_wait(0) comes when micro-batch 1 has been sent, so its nodes compute meanwhile. One more round than there
 * are layers combines the last one. The deadline is the whole step's. */
static moe_status run_layers(engine *e, const micro_batch *mb, uint32_t n_mb, moe_error *err)
{
    uint64_t deadline = moe_now_ns(e->options.clock) + e->options.step_timeout_ns;
    uint32_t n_layers = e->info.config->n_layers;
    moe_status status = MOE_OK;

    for (uint32_t b = 0; b < n_mb; b++) {
        model_batch_begin(e->batches[b], e->step.rows + mb[b].first_row, mb[b].n_rows);
    }
    for (uint32_t layer = 0; layer <= n_layers && status == MOE_OK; layer++) {
        for (uint32_t b = 0; b < n_mb && status == MOE_OK; b++) {
            if (layer > 0) {
                status = exchange_wait(e->options.exchange, b, deadline, err);
                if (status != MOE_OK) {
                    break;
                }
                model_batch_combine(e->batches[b]);
            }
            if (layer < n_layers) {
                status = route(e, b, &mb[b], layer);
            }
        }
    }
    return status;
}

static uint32_t logits_before(const engine *e, uint32_t row)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < row; i++) {
        n += e->step.rows[i].want_logits;
    }
    return n;
}

moe_status engine_run_rows(engine *e, moe_error *err)
{
    micro_batch mb[ENGINE_MAX_MICRO_BATCHES];
    uint32_t n_mb = split(e, mb);
    moe_status status = run_layers(e, mb, n_mb, err);

    for (uint32_t b = 0; b < n_mb && status == MOE_OK; b++) {
        status = model_batch_logits(e->batches[b], engine_logits_at(e, logits_before(e, mb[b].first_row)));
    }
    /* A failed exchange leaves the other micro-batch's job behind. Waiting for it until now drops it, so that the next
     * step may use its place; late results are counted and ignored. */
    for (uint32_t b = 0; b < n_mb && status != MOE_OK; b++) {
        if (exchange_state(e->options.exchange, b) == EXCHANGE_RUNNING) {
            moe_status dropped = exchange_wait(e->options.exchange, b, moe_now_ns(e->options.clock), NULL);
            MOE_DEBUG("micro-batch %u of a failed step: %s", b, moe_status_text(dropped));
        }
    }
    return status;
}

bool engine_row_failed(const engine *e, uint32_t row)
{
    micro_batch mb[ENGINE_MAX_MICRO_BATCHES];
    uint32_t b = split(e, mb) == 2 && row >= mb[1].first_row;

    return model_batch_failed(e->batches[b], row - mb[b].first_row);
}

/* ------------------------------------------------------------------------------------------------ after the layers */
/* Every request of the step gets its tokens; those whose rows failed end, the others never notice. */
static void finish_step(engine *e)
{
    for (uint32_t i = 0; i < e->step.n_work; i++) {
        const step_work *w = &e->step.work[i];
        engine_request *r = w->choice->request;
        moe_status status = r->ended ? MOE_OK : engine_finish_work(e, w);

        if (status != MOE_OK) {
            r->failed = status;
        } else if (!r->ended && r->n_done == r->n_choices && r->failed == MOE_OK) {
            request_emit_done(r);
        }
    }
}

static void fail_marked(engine *e, const char *why)
{
    engine_request *next;

    for (engine_request *r = e->oldest; r != NULL; r = next) {
        next = r->newer;
        if (r->failed != MOE_OK && !r->ended) {
            engine_fail_request(e, r, r->failed, why);
        }
    }
}

static void fail_step(engine *e, moe_status status, const char *why)
{
    for (uint32_t i = 0; i < e->step.n_work; i++) {
        e->step.work[i].choice->request->failed = status;
    }
    fail_marked(e, why);
}

static void emit_progress(engine *e)
{
    uint64_t now = moe_now_ns(e->options.clock);
    uint32_t position = 0;

    for (engine_request *r = e->oldest; r != NULL; r = r->newer) {
        position += !r->started;
        if (r->want_progress && r->first_token_ns == 0 && !r->ended && now - r->progress_ns >= PROGRESS_NS &&
            request_has_room(r)) {
            r->progress_ns = now;
            request_emit_progress(r, r->started ? 0 : position);
        }
    }
}

/* Whether the step gave anything: rows of NaN alone prove nothing of the nodes that made them. */
static bool any_row_counts(const engine *e)
{
    for (uint32_t i = 0; i < e->step.n_rows; i++) {
        if (!engine_row_failed(e, i)) {
            return true;
        }
    }
    return false;
}

bool engine_step(engine *e)
{
    exchange_coverage at_begin;
    moe_error err = {""};
    moe_status status;

    engine_intake(e);
    scheduler_plan(&e->limits, e->options.kv, e->oldest, e->newest, on_admit, e, &e->step);
    e->stats.preemptions += e->step.n_preempted;
    emit_progress(e);
    if (e->step.n_rows == 0) {
        (void)exchange_progress(e->options.exchange); /* connections live on without work */
        engine_prove(e);
        engine_publish_stats(e);
        return false;
    }
    exchange_get_coverage(e->options.exchange, &at_begin);
    status = engine_run_rows(e, &err);
    (void)exchange_progress(e->options.exchange); /* a step whose picks are all local has not turned the transport */
    /* Before a token is handed out: a client that has its last token finds all rows counted, as the experts have. */
    atomic_fetch_add_explicit(&e->rows_done, e->step.n_rows, memory_order_relaxed);
    if (status != MOE_OK) {
        MOE_ERROR("step of %u rows failed: %s", e->step.n_rows,
                  err.text[0] != '\0' ? err.text : moe_status_text(status));
        fail_step(e, status, err.text[0] != '\0' ? err.text : moe_status_text(status));
    } else {
        finish_step(e);
        if (any_row_counts(e)) {
            engine_note_proof(e, &at_begin);
        }
        fail_marked(e, "the model gave a value that is not a number");
    }
    e->stats.steps++;
    engine_intake(e);
    engine_publish_stats(e);
    return true;
}
