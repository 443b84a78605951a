/* What one choice gets of a step whose layers have all run, and whose rows of logits were sampled: the next token, scored tokens, or
 * classes. */
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

/* n_scored is published last, with release order: the consumer reads the arrays below it without a lock. So what was
 * published before the choice was put back stays as it is. */
static moe_status publish_scores(engine *e, const step_work *w)
{
    engine_request *r = w->choice->request;
    uint32_t published = atomic_load_explicit(&r->n_scored, memory_order_relaxed);

    for (uint32_t i = 0; i < w->n_logits; i++) {
        if (e->samples[w->first_logit + i].status != MOE_OK) {
            return e->samples[w->first_logit + i].status;
        }
    }
    atomic_store_explicit(&r->n_scored, MOE_MAX(w->choice->n_computed, published), memory_order_release);
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
    moe_status status = publish_scores(e, w);

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

static moe_status finish_classify(engine *e, const step_work *w)
{
    moe_status status = e->samples[w->first_logit].status;

    if (status != MOE_OK) {
        return status;
    }
    end_prompt(e, w->choice);
    atomic_store_explicit(&w->choice->request->n_scored, 1, memory_order_release);
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

static moe_status finish_token(engine *e, const step_work *w)
{
    choice *c = w->choice;
    const row_sample *sample = &e->samples[w->first_logit];

    if (sample->status != MOE_OK) {
        return sample->status;
    }
    if (c->state == CHOICE_PREFILL) {
        choice_move(c, CHOICE_DECODE);
    }
    note_token_time(e, c->request);
    e->stats.generated_tokens++;
    if (choice_append(c, &e->info, &sample->token, false)) {
        engine_release_choice(e, c);
    }
    return MOE_OK;
}

moe_status engine_finish_work(engine *e, const step_work *w)
{
    choice *c = w->choice;
    engine_request *r = c->request;

    if (engine_work_failed(e, w)) {
        return MOE_ERR_DATA_LOSS;
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
    return r->kind == ENGINE_CLASSIFY ? finish_classify(e, w) : finish_token(e, w);
}
