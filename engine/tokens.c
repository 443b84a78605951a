/* What one choice gets of a step whose layers have all run: the next token, scored tokens, or classes. */
#include "engine/engine_priv.h"

double engine_seconds(uint64_t from_ns, uint64_t to_ns)
{
    return (double)(to_ns - from_ns) * 1e-9;
}

void engine_observe(engine_histogram *h, double value)
{
    h->sum += value;
    h->count++;
    for (size_t i = 0; i < ENGINE_N_BUCKETS; i++) {
        h->buckets[i] += value <= engine_bucket_seconds[i];
    }
}

float *engine_logits_at(engine *e, uint32_t logit)
{
    return e->logits + (size_t)logit * model_head_width(e->info.config);
}

/* Log-probabilities of the scored rows. n_scored is published last, with release order: the consumer reads the arrays
 * below it without a lock. So what was published before the choice was put back stays as it is. */
static moe_status score_rows(engine *e, const step_work *w)
{
    choice *c = w->choice;
    engine_request *r = c->request;
    uint32_t logit = w->first_logit, published = atomic_load_explicit(&r->n_scored, memory_order_relaxed);

    for (uint32_t i = 0; i < w->n_rows; i++) {
        const model_row *row = &e->step.rows[w->first_row + i];
        const float *logits = engine_logits_at(e, logit);
        uint32_t next = row->position + 1;

        logit += row->want_logits;
        if (row->want_logits && next >= published) {
            moe_status status = sampler_logprobs(e->sampler, logits, c->tokens[next], &r->logprobs[next], r->n_top,
                                                 r->top + (size_t)next * r->n_top);
            if (status != MOE_OK) {
                return status;
            }
            r->n_tops[next] = MOE_MIN(r->n_top, e->info.config->vocab_size);
        }
    }
    atomic_store_explicit(&r->n_scored, MOE_MAX(c->n_computed, published), memory_order_release);
    return MOE_OK;
}

/* A request that asks for no token ends with its prompt. */
static void end_prompt(engine *e, choice *c)
{
    engine_request *r = c->request;

    r->usage.prefill_seconds = engine_seconds(r->started_ns, moe_now_ns(e->options.clock));
    choice_move(c, CHOICE_DONE);
    r->n_done++;
    engine_release_choice(e, c);
}

static moe_status finish_score(engine *e, const step_work *w)
{
    choice *c = w->choice;
    engine_request *r = c->request;
    moe_status status = score_rows(e, w);

    if (status != MOE_OK) {
        return status;
    }
    if (c->n_computed < c->n_tokens) {
        if (r->wake != NULL) {
            r->wake(r->wake_ctx);
        }
        return MOE_OK;
    }
    end_prompt(e, c);
    return MOE_OK;
}

/* The scores of the last token, and their log-softmax: with the best one's, which is -log(sum), all follow. */
static moe_status finish_classify(engine *e, const step_work *w)
{
    engine_request *r = w->choice->request;
    const float *logits = engine_logits_at(e, w->first_logit);
    sampling_top best;
    moe_status status = sampler_logprobs(e->sampler, logits, -1, NULL, 1, &best);

    if (status != MOE_OK) {
        return status;
    }
    for (uint32_t i = 0; i < r->n_labels; i++) {
        r->scores[i] = logits[i];
        r->scores[r->n_labels + i] = (logits[i] - logits[best.token_id]) + best.logprob;
    }
    end_prompt(e, w->choice);
    atomic_store_explicit(&r->n_scored, 1, memory_order_release);
    return MOE_OK;
}

static void note_token_time(engine *e, engine_request *r)
{
    uint64_t now = moe_now_ns(e->options.clock);

    if (r->first_token_ns == 0) {
        r->first_token_ns = now;
        r->usage.prefill_seconds = engine_seconds(r->started_ns, now);
        engine_observe(&e->stats.first_token, engine_seconds(r->submitted_ns, now));
    } else {
        engine_observe(&e->stats.inter_token, engine_seconds(r->last_token_ns, now));
    }
    r->last_token_ns = now;
    r->usage.decode_seconds = engine_seconds(r->first_token_ns, now);
}

/* The next token from the logits of the last known one. */
static moe_status next_token(engine *e, const step_work *w)
{
    choice *c = w->choice;
    engine_request *r = c->request;
    const float *logits = engine_logits_at(e, w->first_logit);
    uint32_t n_output = choice_n_output(c);
    bool early = n_output < r->min_tokens;
    sampling_history history = {
        .prompt = c->tokens, .n_prompt = r->n_prompt, .output = c->tokens + r->n_prompt, .n_output = n_output};
    sampling_top top[SAMPLING_MAX_TOP_LOGPROBS];
    choice_token token = {.has_logprob = r->want_logprobs, .top = top};
    moe_status status = sampler_pick(e->sampler, &r->sampling, logits, &history, early ? r->stop_ids : NULL,
                                     early ? r->n_stop_ids : 0, n_output, c->index, &token.id);

    if (status == MOE_OK && r->want_logprobs) {
        token.n_top = MOE_MIN(r->n_top, e->info.config->vocab_size);
        status = sampler_logprobs(e->sampler, logits, token.id, &token.logprob, token.n_top, top);
    }
    if (status != MOE_OK) {
        return status;
    }
    if (c->state == CHOICE_PREFILL) {
        choice_move(c, CHOICE_DECODE);
    }
    note_token_time(e, r);
    e->stats.generated_tokens++;
    if (choice_append(c, &e->info, &token, false)) {
        engine_release_choice(e, c);
    }
    return MOE_OK;
}

moe_status engine_finish_work(engine *e, const step_work *w)
{
    choice *c = w->choice;
    engine_request *r = c->request;

    for (uint32_t i = 0; i < w->n_rows; i++) {
        if (engine_row_failed(e, w->first_row + i)) {
            return MOE_ERR_DATA_LOSS;
        }
    }
    c->n_computed += w->n_rows;
    if (c->state == CHOICE_PREFILL && !r->background) {
        e->stats.prompt_tokens += w->n_rows;
    }
    if (!r->background) { /* nobody asks for it again, and it would drive out what others may ask for */
        model_kv_seq_register(e->options.kv, &c->kv, r->set, c->tokens, c->n_computed);
    }
    if (r->kind == ENGINE_SCORE) {
        return finish_score(e, w);
    }
    if (w->n_logits == 0) {
        return MOE_OK;
    }
    return r->kind == ENGINE_CLASSIFY ? finish_classify(e, w) : next_token(e, w);
}
