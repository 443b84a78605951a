/* Planning one step: a walk over the requests from the oldest to the youngest.
 *
 * The order of arrival decides everything, and that is what makes the plan safe:
 *   - A choice that needs a page may take it from any younger one. The walk has not reached the younger one yet, so
 *     rows that are in the plan never lose their pages.
 *   - The oldest can always go on. Admission has refused what the cache cannot hold, and all that others hold can be
 *     taken back. So some request makes progress in every step, and no two can wait for each other's pages.
 *   - A waiting choice that does not fit stops admission for the rest of the walk. Otherwise short requests would
 *     overtake a long one for ever.
 *
 * A choice that is put back loses its pages and keeps its tokens: it is read again as a longer prompt, which gives the
 * same bits (docs/numeric.md), and what the prefix cache still has of it is not computed again. */
#include "engine/scheduler_priv.h"

#include <stdlib.h>

/* Rows of a step in the background: whoever arrives while it runs waits for it, and reading so few at a time costs no more than
 * a weight is read for anyway. Chosen, not measured. */
#define BACKGROUND_ROWS 16u

moe_status step_init(step *s, const scheduler_limits *limits)
{
    *s = (step){.n_rows = 0};
    s->rows = calloc(limits->max_batch_tokens, sizeof *s->rows);
    s->work = calloc(limits->max_batch_tokens, sizeof *s->work);
    return s->rows != NULL && s->work != NULL ? MOE_OK : MOE_ERR_NO_MEMORY;
}

void step_fini(step *s)
{
    free(s->rows);
    free(s->work);
}

/* What the walk carries along. */
typedef struct planner {
    const scheduler_limits *limits;
    model_kv *kv;
    const scheduler_queue *queue;
    void (*admit)(void *ctx, choice *c);
    void *ctx;
    step *out;
    uint32_t prefill_budget; /* rows left for prefill: what decode does not need */
    bool admitting;          /* false once a waiting choice did not fit: nobody overtakes it */
} planner;

static bool is_running(const choice *c)
{
    return c->state == CHOICE_PREFILL || c->state == CHOICE_DECODE;
}

static void put_back(planner *p, choice *c)
{
    model_kv_seq_release(p->kv, &c->kv);
    c->n_computed = 0;
    choice_move(c, CHOICE_WAITING);
    c->request->usage.preemptions++;
    if (!c->request->background) {
        p->out->n_running--;
        p->out->n_preempted++;
    }
}

/* NULL: nobody is in the background, or it holds no pages. */
static choice *running_in_background(const planner *p)
{
    engine_request *r = p->queue->background;

    return r != NULL && is_running(&r->choices[0]) ? &r->choices[0] : NULL;
}

static choice *youngest_running(const planner *p)
{
    choice *last = running_in_background(p);

    if (last != NULL) {
        return last;
    }
    for (engine_request *r = p->queue->newest; r != NULL; r = r->older) {
        for (uint32_t i = r->n_choices; i-- > 0;) {
            if (is_running(&r->choices[i])) {
                return &r->choices[i];
            }
        }
    }
    return NULL;
}

/* Pages for n_tokens of c, putting back younger choices as needed. False: c itself was the youngest and is put back;
 * then nobody is admitted in this walk, as there are no pages for anybody younger either. */
static bool reserve(planner *p, choice *c, uint32_t n_tokens)
{
    while (model_kv_seq_reserve(p->kv, &c->kv, n_tokens) != MOE_OK) {
        choice *victim = youngest_running(p);
        put_back(p, victim);
        if (victim == c) {
            p->admitting = false;
            return false;
        }
        /* The victim is younger than c and the walk goes by age, so the victim is not in the plan yet. */
    }
    return true;
}

/* A score reads the logits of each row whose next token is scored. Everything else reads those of the last known token
 * alone, which give the next one. */
static bool wants_logits(const choice *c, uint32_t position)
{
    return c->request->kind == ENGINE_SCORE ? position + 1 < c->n_tokens && position + 1 >= c->request->score_from
                                            : position + 1 == c->n_tokens;
}

static void add_rows(planner *p, choice *c, uint32_t n)
{
    step *s = p->out;
    step_work *w = &s->work[s->n_work++];

    *w = (step_work){.choice = c, .first_row = s->n_rows, .n_rows = n, .first_logit = s->n_logits};
    for (uint32_t i = 0; i < n; i++) {
        uint32_t position = c->n_computed + i;
        bool logits = wants_logits(c, position);
        s->rows[s->n_rows++] = (model_row){.token_id = c->tokens[position],
                                           .position = position,
                                           .pages = c->kv.pages,
                                           .set = c->request->set,
                                           .want_logits = logits};
        s->n_logits += logits;
    }
    w->n_logits = s->n_logits - w->first_logit;
}

/* One row. Decode rows do not count against prefill_budget: it was made smaller by all of them before the walk, so that
 * prompts never take their place in a step. */
static void plan_decode(planner *p, choice *c)
{
    if (p->out->n_rows < p->limits->max_batch_tokens && p->out->n_logits < p->limits->max_logit_rows &&
        reserve(p, c, c->n_tokens)) {
        add_rows(p, c, 1);
    }
}

/* The next chunk of the prompt. prefill_chunk bounds what one request takes of a step, so that several prompts are read
 * side by side and a decode step beside them stays short. */
static void plan_prefill(planner *p, choice *c)
{
    uint32_t n = MOE_MIN(p->limits->prefill_chunk, c->n_tokens - c->n_computed);
    uint32_t logits_left = p->limits->max_logit_rows - p->out->n_logits;

    n = MOE_MIN(n, p->prefill_budget);
    if (c->request->kind == ENGINE_SCORE) {
        n = MOE_MIN(n, logits_left);
    }
    if (n == 0 || logits_left == 0 || !reserve(p, c, c->n_computed + n)) {
        return;
    }
    p->prefill_budget -= n;
    add_rows(p, c, n);
}

/* Choices beyond the first wait until the first has read the prompt: they then find its pages in the prefix cache. */
static bool must_wait_for_first(const choice *c)
{
    const choice *first = &c->request->choices[0];

    return c->index > 0 && first->state != CHOICE_DONE && first->n_computed < c->request->n_prompt;
}

/* Whether all known tokens of a waiting choice and one more would find pages now. Pages are taken chunk by chunk, so
 * this is no reservation: it keeps a choice from starting that would be put back before its first token. With nobody
 * running it starts in any case. */
static bool pages_for_all(const planner *p, const choice *c)
{
    const choice *last = running_in_background(p);
    size_t n_taken = last != NULL ? last->kv.n_pages : 0; /* which it gives up */
    model_kv_stats stats;

    model_kv_get_stats(p->kv, &stats);
    return p->out->n_running == 0 ||
           (size_t)c->n_tokens + 1 <= (stats.n_free + stats.n_cached + n_taken) * MODEL_KV_PAGE_TOKENS;
}

/* What the prefix cache has is not computed again, but for rows whose logits the choice is here for: of a score those from the one
 * before its first token on, otherwise the last one's. */
static void start(planner *p, choice *c)
{
    const engine_request *r = c->request;
    uint32_t first_logit = r->kind != ENGINE_SCORE ? c->n_tokens - 1 : MOE_MAX(r->score_from, 1u) - 1;

    if (first_logit > 0) {
        c->n_computed = (uint32_t)model_kv_seq_adopt(p->kv, &c->kv, r->set, c->tokens, first_logit);
    }
    choice_move(c, CHOICE_PREFILL);
    p->admit(p->ctx, c);
}

static void plan_waiting(planner *p, choice *c)
{
    if (!p->admitting || must_wait_for_first(c)) {
        return;
    }
    if (p->out->n_running >= p->limits->max_running || p->prefill_budget == 0 || !pages_for_all(p, c)) {
        p->admitting = false;
        return;
    }
    start(p, c);
    p->out->n_running++;
    plan_prefill(p, c);
}

/* Whether the request's consumer has left room for another event. If not, the flag goes up and the room is looked at
 * again: what the consumer reads before that look is seen by it, and what it reads later finds the flag and wakes the
 * engine. Without the second look a wake-up could be lost, and the request would sleep for ever. */
static bool has_room(engine_request *r)
{
    if (request_has_room(r)) {
        return true;
    }
    atomic_store(&r->paused, true);
    return request_has_room(r);
}

static void plan_choice(planner *p, choice *c)
{
    if (c->request->blocked.is) {
        return; /* it keeps its pages, but for those that an older one needs */
    }
    switch (c->state) {
    case CHOICE_DECODE:
        if (has_room(c->request)) {
            plan_decode(p, c);
        }
        break;
    case CHOICE_PREFILL:
        if (has_room(c->request)) {
            plan_prefill(p, c);
        }
        break;
    case CHOICE_WAITING:
        plan_waiting(p, c);
        break;
    case CHOICE_DONE:
    case CHOICE_N_STATES:
        break;
    }
}

/* Nobody else has a row. */
static void plan_background(planner *p, engine_request *r)
{
    choice *c = &r->choices[0];

    p->prefill_budget = MOE_MIN(p->limits->max_batch_tokens, BACKGROUND_ROWS);
    if (c->state == CHOICE_WAITING) {
        start(p, c);
    }
    if (c->state == CHOICE_PREFILL && has_room(r)) {
        plan_prefill(p, c);
    }
}

void scheduler_plan(const scheduler_limits *limits, model_kv *kv, const scheduler_queue *queue,
                    void (*admit)(void *ctx, choice *c), void *ctx, step *out)
{
    planner p = {.limits = limits, .kv = kv, .queue = queue, .admit = admit, .ctx = ctx, .out = out, .admitting = true};
    uint32_t n_decode = 0;

    out->n_rows = out->n_work = out->n_logits = out->n_running = out->n_preempted = 0;
    for (engine_request *r = queue->oldest; r != NULL; r = r->newer) {
        for (uint32_t i = 0; i < r->n_choices; i++) {
            out->n_running += is_running(&r->choices[i]);
            n_decode += r->choices[i].state == CHOICE_DECODE && !r->blocked.is;
        }
    }
    p.prefill_budget = limits->max_batch_tokens - MOE_MIN(n_decode, limits->max_batch_tokens);
    for (engine_request *r = queue->oldest; r != NULL; r = r->newer) {
        for (uint32_t i = 0; i < r->n_choices; i++) {
            plan_choice(&p, &r->choices[i]);
        }
    }
    if (out->n_rows == 0 && queue->background != NULL && !queue->background->ended && !queue->background->blocked.is) {
        plan_background(&p, queue->background);
    }
}
