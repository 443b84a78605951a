/* One step: plan, all layers with the experts' exchange in between, then one more token for each choice whose last
 * token was read. Nothing in it blocks: engine_turn goes on as far as the experts' results allow, and in between
 * requests come, are cancelled and run out of time.
 *
 * Nothing that others see changes before all layers have run: tokens count as computed, and full pages are registered
 * for other requests, only in engine_finish_work. So a step can be abandoned at any point: its rows are computed again
 * in a later one, to the same bits; what it had written into pages is read by nobody. */
#include "engine/engine_priv.h"

#include <sched.h>
#include <string.h>

/* Chosen, not measured.
 *
 *   PROGRESS   between two PROGRESS events of a request that waits
 *   INTAKE     so late a step that waits for experts notices arrivals and cancels
 *   HOLD       so long a step waits for an expert that nobody computes: a connection that broke is made again within some
 *              milliseconds, and those who need no such expert wait as well
 *   BLOCK      a request whose expert has an owner that refuses is tried again after so long, ever more slowly: each try
 *              holds up the others in its step
 *   CHANGE     so long a layer of a step may wait for results while a change waits for the step: more than a layer of a large
 *              prompt takes, and a person who changes something does not notice it
 *   TURNS      of the transport in which something came, before others have their turn */
#define PROGRESS_NS    UINT64_C(1000000000)
#define INTAKE_NS      UINT64_C(1000000)
#define HOLD_NS        UINT64_C(50000000)
#define BLOCK_FIRST_NS UINT64_C(10000000)
#define BLOCK_MOST_NS  UINT64_C(1000000000)
#define CHANGE_NS      UINT64_C(1000000000)
#define TURNS          64

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
    r->usage.cached_tokens = MOE_MIN(c->n_computed, r->n_prompt);
    if (!r->background) {
        engine_observe(&e->stats.queue, r->usage.queue_seconds);
        atomic_fetch_sub(&e->n_waiting, 1);
    }
    request_emit_started(r);
}

/* ------------------------------------------------------------------------------------------------ layers */
/* Two micro-batches alternate only when each gets a row. A sequence may straddle them: the first half's K and V of a
 * layer are stored before the second half attends. */
static uint32_t split(const engine *e, micro_batch *mb)
{
    uint32_t n = e->step.n_rows, half = n / 2;

    if (e->options.micro_batches == 1 || half == 0) {
        mb[0] = (micro_batch){.n_rows = n};
        return 1;
    }
    mb[0] = (micro_batch){.n_rows = half};
    mb[1] = (micro_batch){.first_row = half, .n_rows = n - half};
    return 2;
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
    if (!e->run.proving && !e->run.background) { /* a token of our own is nobody's */
        router_use_count(e->use, layer, model_batch_ids(batch), model_batch_weights(batch), mb->n_rows);
    }
    keep_experts(e, mb, model_batch_ids(batch), layer);
    status = exchange_begin(e->options.exchange, &job);
    if (status == MOE_OK) {
        model_batch_local(batch);
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

void engine_begin_step(engine *e, bool proving)
{
    step_run *run = &e->run;

    *run = (step_run){.active = true,
                      .proving = proving,
                      .background = e->step.n_work > 0 && e->step.work[0].choice->request->background,
                      .n_admitted = e->stats.requests_admitted};
    run->n_mb = split(e, run->mb);
    exchange_get_coverage(e->options.exchange, &run->at_begin);
    for (uint32_t b = 0; b < run->n_mb; b++) {
        model_batch_begin(e->batches[b], e->step.rows + run->mb[b].first_row, run->mb[b].n_rows);
    }
    for (uint32_t i = 0; i < e->step.n_work; i++) {
        e->step.work[i].choice->request->in_step = true;
    }
}

/* Its requests may be put back, and leave. */
static void end_run(engine *e)
{
    e->run.active = false;
    for (uint32_t i = 0; i < e->step.n_work; i++) {
        e->step.work[i].choice->request->in_step = false;
    }
}

/* The experts' results, as long as there is something to take: MOE_ERR_BUSY when they are awaited. */
static moe_status collect(engine *e, uint32_t b, moe_error *err)
{
    exchange *x = e->options.exchange;
    moe_status status = exchange_collect(x, b, err);

    for (int turn = 0; status == MOE_ERR_BUSY && turn < TURNS && exchange_progress(x) > 0; turn++) {
        status = exchange_collect(x, b, err);
    }
    return status;
}

static bool has_begun(const micro_batch *mb, uint32_t layer)
{
    return mb->layer > layer || (mb->layer == layer && mb->computes);
}

/* They take turns: a sequence that straddles them has its first half's keys and values stored when the second attends. */
static bool may_begin(const step_run *run, uint32_t b)
{
    uint32_t layer = run->mb[b].layer;

    for (uint32_t o = 0; o < run->n_mb; o++) {
        if ((o < b && !has_begun(&run->mb[o], layer)) || (o > b && layer > 0 && !has_begun(&run->mb[o], layer - 1))) {
            return false;
        }
    }
    return true;
}

/* MOE_ERR_BUSY: results, the device or the other micro-batch are awaited. */
static moe_status next_layer(engine *e, uint32_t b, moe_error *err)
{
    step_run *run = &e->run;
    micro_batch *mb = &run->mb[b];
    moe_status status = MOE_OK;

    if (!mb->computes) {
        if (!may_begin(run, b)) {
            return MOE_ERR_BUSY;
        }
        status = mb->layer == 0 ? MOE_OK : collect(e, b, err);
        if (status != MOE_OK) {
            return status;
        }
        run->waits_ns = 0;
        if (mb->layer > 0) {
            model_batch_combine(e->batches[b]);
        }
    }
    status = mb->layer < e->info.config->n_layers
                 ? route(e, b, mb, mb->layer)
                 : model_batch_logits(e->batches[b], engine_logits_at(e, logits_before(e, mb->first_row)));
    mb->computes = status == MOE_ERR_BUSY;
    mb->layer += status == MOE_OK;
    return status;
}

/* Every layer of every micro-batch: while one waits for its experts or for the device, the other goes on.
 *
 *   b = 0   route 0 |         | combine, route 1 |                  | combine, route 2 | ...
 *   b = 1           | route 0 |                  | combine, route 1 |                  | ...
 *
 * Micro-batch 0 is collected when 1 has been given to the device, so its nodes compute meanwhile. MOE_ERR_BUSY: something is
 * awaited, and the next call goes on from there. */
static moe_status advance(engine *e, moe_error *err)
{
    step_run *run = &e->run;
    uint32_t end = e->info.config->n_layers;
    bool moved = true, done = false;

    while (moved && !done) {
        moved = false;
        done = true;
        for (uint32_t b = 0; b < run->n_mb; b++) {
            if (run->mb[b].layer > end) {
                continue;
            }
            moe_status status = next_layer(e, b, err);
            if (status != MOE_OK && status != MOE_ERR_BUSY) {
                return status;
            }
            moved = moved || status == MOE_OK;
            done = false;
        }
    }
    return done ? MOE_OK : MOE_ERR_BUSY;
}

static bool awaits_device(const engine *e)
{
    return e->run.active && (e->run.mb[0].computes || (e->run.n_mb == 2 && e->run.mb[1].computes));
}

/* The micro-batch that a row of the step is in. */
static uint32_t batch_of(const step_run *run, uint32_t row)
{
    return run->n_mb == 2 && row >= run->mb[1].first_row;
}

bool engine_row_failed(const engine *e, uint32_t row)
{
    uint32_t b = batch_of(&e->run, row);

    return model_batch_failed(e->batches[b], row - e->run.mb[b].first_row);
}

/* ------------------------------------------------------------------------------------------------ after the layers */
/* Every request of the step gets its tokens; those whose rows failed end, the others never notice. */
static void finish_step(engine *e)
{
    engine_sample(e);
    for (uint32_t i = 0; i < e->step.n_work; i++) {
        const step_work *w = &e->step.work[i];
        engine_request *r = w->choice->request;
        moe_status status = r->ended ? MOE_OK : engine_finish_work(e, w);

        r->blocked.since_ns = r->blocked.pause_ns = 0;
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
    engine_request *last = atomic_load(&e->background);
    if (last != NULL && last->failed != MOE_OK && !last->ended) {
        engine_fail_request(e, last, last->failed, why);
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

/* ------------------------------------------------------------------------------------------------ waiting */
static void drop_jobs(engine *e)
{
    for (uint32_t b = 0; b < e->run.n_mb; b++) {
        exchange_drop(e->options.exchange, b);
    }
}

void engine_abandon_step(engine *e, const char *why)
{
    if (!e->run.active) {
        return;
    }
    drop_jobs(e);
    e->stats.abandoned_steps += !e->run.proving && !e->run.background;
    end_run(e);
    if (e->run.proving) {
        engine_end_proof(e, MOE_ERR_UNAVAILABLE, why);
    }
}

const char *engine_stuck_text(const exchange_stuck *by, char out[ENGINE_STUCK_TEXT])
{
    (void)snprintf(out, ENGINE_STUCK_TEXT, "layer %u expert %d has no live owner", by->layer, by->expert_id);
    return out;
}

static bool row_is_stuck(const engine *e, uint32_t row, exchange_stuck *out)
{
    uint32_t b = batch_of(&e->run, row);

    return exchange_row_is_stuck(e->options.exchange, b, row - e->run.mb[b].first_row, out);
}

/* Left out of steps until the expert has somebody who computes it, and for a moment at least: a node may be there and
 * refuse. */
static void block(engine *e, engine_request *r, const exchange_stuck *by, uint64_t now)
{
    r->blocked.is = true;
    r->blocked.by = *by;
    r->blocked.since_ns = r->blocked.since_ns == 0 ? e->run.waits_ns : r->blocked.since_ns;
    r->blocked.pause_ns = r->blocked.pause_ns == 0 ? BLOCK_FIRST_NS : MOE_MIN(2 * r->blocked.pause_ns, BLOCK_MOST_NS);
    r->blocked.retry_ns = now + r->blocked.pause_ns;
}

/* Returns whether a request of the step was. */
static bool block_stuck(engine *e, uint64_t now)
{
    exchange_stuck by = {0, 0};
    char why[ENGINE_STUCK_TEXT];
    uint32_t n = 0;

    for (uint32_t i = 0; i < e->step.n_work; i++) {
        const step_work *w = &e->step.work[i];
        bool stuck = false;

        for (uint32_t row = w->first_row; row < w->first_row + w->n_rows && !stuck; row++) {
            stuck = row_is_stuck(e, row, &by);
        }
        if (stuck) {
            block(e, w->choice->request, &by, now);
            n++;
        }
    }
    if (n > 0) {
        MOE_WARN("%s: %u of the %u choices of this step wait, the others go on", engine_stuck_text(&by, why), n,
                 e->step.n_work);
    }
    return n > 0;
}

static uint64_t stuck_since(const engine *e)
{
    uint64_t since = UINT64_MAX;

    for (uint32_t b = 0; b < e->run.n_mb; b++) {
        uint64_t its = exchange_stuck_since(e->options.exchange, b);
        since = its == 0 ? since : MOE_MIN(since, its);
    }
    return since;
}

static void prove_no_more(engine *e)
{
    exchange_stuck by;
    char why[ENGINE_STUCK_TEXT];

    if (row_is_stuck(e, 0, &by)) {
        engine_abandon_step(e, engine_stuck_text(&by, why));
    }
}

/* A step that waits for long holds everybody who is in it, so it ends when it waits for what nobody computes, or keeps
 * pages of requests that have gone. Those that can go on do, from where they were. */
static void look_at_wait(engine *e, uint64_t now)
{
    step_run *run = &e->run;
    uint64_t since = stuck_since(e);

    run->waits_ns = run->waits_ns == 0 ? now : run->waits_ns;
    if (since < now && now - since >= HOLD_NS) {
        if (run->proving) {
            prove_no_more(e);
        } else if (block_stuck(e, now)) {
            engine_abandon_step(e, "");
        }
    }
    if (run->active && run->background && e->stats.requests_admitted != run->n_admitted) {
        engine_abandon_step(e, ""); /* somebody has come who is not to wait for it */
    }
    if (run->active && run->left_behind && now - run->waits_ns >= HOLD_NS) {
        engine_abandon_step(e, "");
    }
    if (run->active && atomic_load(&e->change.now) != NULL && now - run->waits_ns >= CHANGE_NS) {
        engine_abandon_step(e, "a change of the experts came between");
    }
}

/* ------------------------------------------------------------------------------------------------ the turn */
/* Fills and begins a step; false: there is no row. */
static bool begin_step(engine *e)
{
    const scheduler_queue queue = {e->oldest, e->newest, atomic_load(&e->background)};

    scheduler_plan(&e->limits, e->options.kv, &queue, on_admit, e, &e->step);
    e->stats.preemptions += e->step.n_preempted;
    emit_progress(e);
    if (e->step.n_rows > 0) {
        engine_begin_step(e, false);
    }
    return e->step.n_rows > 0;
}

static void end_step(engine *e, moe_status status, const char *why)
{
    end_run(e);
    (void)exchange_progress(e->options.exchange); /* a step whose picks are all local has not turned the transport */
    if (e->run.proving) {
        engine_end_proof(e, status, why);
        return;
    }
    /* Before a token is handed out: a client that has its last token finds all rows counted, as the experts have. */
    if (!e->run.background) {
        atomic_fetch_add_explicit(&e->rows_done, e->step.n_rows, memory_order_relaxed);
    }
    if (status != MOE_OK) {
        drop_jobs(e);
        MOE_ERROR("step of %u rows failed: %s", e->step.n_rows, why);
        fail_step(e, status, why);
    } else {
        finish_step(e);
        if (any_row_counts(e)) {
            engine_note_proof(e, &e->run.at_begin);
        }
        fail_marked(e, "the model gave a value that is not a number");
    }
    e->stats.steps++;
    engine_intake(e);
    engine_publish_stats(e);
}

static engine_turn_kind on_wait(engine *e)
{
    if (awaits_device(e)) {
        (void)exchange_progress(e->options.exchange); /* frames leave, and answers come, meanwhile */
    }
    uint64_t now = exchange_turned_ns(e->options.exchange);

    if (now - e->intake_ns >= INTAKE_NS) {
        engine_intake(e);
        emit_progress(e);
        engine_publish_stats(e);
    }
    look_at_wait(e, now);
    return e->run.active ? ENGINE_TURN_WAITS : ENGINE_TURN_WORKED;
}

engine_turn_kind engine_turn(engine *e)
{
    moe_error err = {""};

    if (!e->run.active) {
        engine_take_change(e);
        engine_intake(e);
        if (!begin_step(e)) {
            (void)exchange_progress(e->options.exchange); /* connections live on without work */
            engine_prove(e);
        }
        if (!e->run.active) {
            engine_publish_stats(e);
            return ENGINE_TURN_IDLE;
        }
    }
    bool proving = e->run.proving;
    moe_status status = advance(e, &err);
    if (status == MOE_ERR_BUSY) {
        return on_wait(e);
    }
    end_step(e, status, err.text[0] != '\0' ? err.text : moe_status_text(status));
    return proving ? ENGINE_TURN_IDLE : ENGINE_TURN_WORKED;
}

/* A device is done in microseconds: nobody sleeps for it. */
void engine_pause(engine *e)
{
    if (awaits_device(e)) {
        (void)sched_yield();
        return;
    }
    exchange_pause(e->options.exchange, exchange_turned_ns(e->options.exchange) + INTAKE_NS);
}

bool engine_step(engine *e)
{
    engine_turn_kind kind;

    while ((kind = engine_turn(e)) == ENGINE_TURN_WAITS) {
        engine_pause(e);
    }
    return kind == ENGINE_TURN_WORKED;
}
