/* What follows from a step's rows of logits: the next token, the log-probability of a known one, or scores of classes.
 * Each row is a task of the compute threads that writes what no other one reads, so a token does not depend on how many
 * threads there are. What comes of it is handed out in tokens.c, by the engine's thread, in the order of the step. */
#include "engine/engine_priv.h"

#include <stdlib.h>

moe_status engine_open_samples(engine *e)
{
    size_t n_threads = moe_threads_count(e->options.threads);

    e->samples = calloc(e->limits.max_logit_rows, sizeof *e->samples);
    e->samplers = calloc(n_threads, sizeof *e->samplers);
    if (e->samples == NULL || e->samplers == NULL) {
        return MOE_ERR_NO_MEMORY;
    }
    for (size_t i = 0; i < n_threads; i++) {
        moe_status status = sampler_open(model_head_width(e->info.config), &e->samplers[i]);

        if (status != MOE_OK) {
            return status;
        }
    }
    return MOE_OK;
}

void engine_close_samples(engine *e)
{
    for (size_t i = 0; e->samplers != NULL && i < moe_threads_count(e->options.threads); i++) {
        sampler_close(e->samplers[i]);
    }
    free(e->samplers);
    free(e->samples);
}

/* The next token from the logits of the last known one. */
static moe_status next_token(const engine *e, sampler *s, const float *logits, row_sample *out)
{
    const choice *c = out->work->choice;
    const engine_request *r = c->request;
    uint32_t n_output = choice_n_output(c);
    bool early = n_output < r->min_tokens;
    sampling_history history = {
        .prompt = c->tokens, .n_prompt = r->n_prompt, .output = c->tokens + r->n_prompt, .n_output = n_output};
    choice_token *token = &out->token;
    moe_status status = sampler_pick(s, &r->sampling, logits, &history, early ? r->stop_ids : NULL,
                                     early ? r->n_stop_ids : 0, n_output, c->index, &token->id);

    *token = (choice_token){.id = token->id, .has_logprob = r->want_logprobs, .top = out->top};
    if (status == MOE_OK && r->want_logprobs) {
        token->n_top = MOE_MIN(r->n_top, e->info.config->vocab_size);
        status = sampler_logprobs(s, logits, token->id, &token->logprob, token->n_top, out->top);
    }
    return status;
}

/* Of the prompt's token after this row, unless the consumer has it already: the choice was put back. */
static moe_status score_next(const engine *e, sampler *s, const float *logits, const row_sample *sample)
{
    engine_request *r = sample->work->choice->request;
    uint32_t next = e->step.rows[sample->row].position + 1;

    if (next < atomic_load_explicit(&r->n_scored, memory_order_relaxed)) {
        return MOE_OK;
    }
    r->n_tops[next] = MOE_MIN(r->n_top, e->info.config->vocab_size);
    return sampler_logprobs(s, logits, sample->work->choice->tokens[next], &r->logprobs[next], r->n_top,
                            r->top + (size_t)next * r->n_top);
}

/* The scores of the last token, and their log-softmax: with the best one's, which is -log(sum), all follow. */
static moe_status classify(sampler *s, const float *logits, engine_request *r)
{
    sampling_top best;
    moe_status status = sampler_logprobs(s, logits, -1, NULL, 1, &best);

    for (uint32_t i = 0; i < r->n_labels && status == MOE_OK; i++) {
        r->scores[i] = logits[i];
        r->scores[r->n_labels + i] = (logits[i] - logits[best.token_id]) + best.logprob;
    }
    return status;
}

static void sample_row(void *ctx, size_t logit, size_t thread)
{
    engine *e = ctx;
    row_sample *sample = &e->samples[logit];
    const float *logits = engine_logits_at(e, (uint32_t)logit);
    sampler *s = e->samplers[thread];

    if (sample->work == NULL) {
        return;
    }
    engine_request *r = sample->work->choice->request;
    sample->status = r->kind == ENGINE_SCORE      ? score_next(e, s, logits, sample)
                     : r->kind == ENGINE_CLASSIFY ? classify(s, logits, r)
                                                  : next_token(e, s, logits, sample);
}

bool engine_work_failed(const engine *e, const step_work *w)
{
    for (uint32_t i = 0; i < w->n_rows; i++) {
        if (engine_row_failed(e, w->first_row + i)) {
            return true;
        }
    }
    return false;
}

void engine_sample(engine *e)
{
    for (uint32_t i = 0; i < e->step.n_work; i++) {
        const step_work *w = &e->step.work[i];
        bool wanted = !w->choice->request->ended && !engine_work_failed(e, w);
        uint32_t logit = w->first_logit;

        for (uint32_t row = w->first_row; row < w->first_row + w->n_rows; row++) {
            if (e->step.rows[row].want_logits) {
                e->samples[logit].work = wanted ? w : NULL;
                e->samples[logit].row = row;
                logit++;
            }
        }
    }
    moe_threads_run(e->options.threads, e->step.n_logits, sample_row, e);
}
