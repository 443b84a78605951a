#include "tests/support/engine_fixture.h"

#include <stdlib.h>

#include "tests/support/support.h"

engine_fixture_options engine_fixture_defaults(const char *dir)
{
    engine_fixture_options o = {.model = model_fixture_defaults(dir),
                                .max_batch_tokens = 512,
                                .prefill_chunk = 512,
                                .max_running = 32,
                                .max_queue = 64,
                                .micro_batches = 1,
                                .step_timeout_ns = UINT64_C(3600000000000)};

    o.model.max_context = 1024;
    o.model.kv_tokens = 32 * 1024;
    return o;
}

void engine_fixture_open(engine_fixture *f, const engine_fixture_options *o)
{
    static const unsigned char no_fingerprint[32];
    model_fixture_options m = o->model;
    moe_error err;

    memset(f, 0, sizeof *f);
    m.max_rows = o->max_batch_tokens;
    model_fixture_open(&f->model, &m);
    if (o->tokenizer_dir != NULL) {
        assert_ok(tokenizer_open(o->tokenizer_dir, f->model.config.vocab_size, NULL, &f->tokenizer, &err), err);
    }
    model_fixture_maker(&f->model, m.isa, &f->one, &f->maker);
    embedded_options e = {.config = &f->model.config,
                          .space = router_set_space(f->model.set),
                          .tensors = f->model.tensors,
                          .device = f->model.device,
                          .layout = m.layout,
                          .fingerprint = no_fingerprint,
                          .max_rows = o->max_batch_tokens,
                          .micro_batches = o->micro_batches,
                          .model = f->model.model,
                          .maker = f->maker};
    assert_ok(embedded_open(&e, &f->embedded, &err), err);
    engine_options options = {.model = f->model.model,
                              .kv = f->model.kv,
                              .exchange = embedded_exchange(f->embedded),
                              .threads = f->model.threads,
                              .tokenizer = f->tokenizer,
                              .base_set = f->model.set,
                              .clock = moe_clock_real(),
                              .max_batch_tokens = o->max_batch_tokens,
                              .prefill_chunk = o->prefill_chunk,
                              .max_running = o->max_running,
                              .max_queue = o->max_queue,
                              .max_context = (uint32_t)m.max_context,
                              .default_max_tokens = 64,
                              .micro_batches = o->micro_batches,
                              .step_timeout_ns = o->step_timeout_ns};
    assert_ok(engine_open(&options, &f->engine, &err), err);
    assert_ok(engine_warm_up(f->engine, &err), err);
}

void engine_fixture_close(engine_fixture *f)
{
    engine_close(f->engine);
    embedded_close(f->embedded);
    compute_close(f->maker);
    moe_threads_close(f->one);
    tokenizer_close(f->tokenizer);
    model_fixture_close(&f->model);
}

engine_spec ask_spec(const int32_t *prompt, size_t n_prompt, uint32_t max_tokens, uint64_t seed)
{
    return (engine_spec){
        .kind = ENGINE_GENERATE,
        .prompt = prompt,
        .n_prompt = n_prompt,
        .has_max_tokens = true,
        .max_tokens = max_tokens,
        .sampling = {.temperature = 1.0f, .top_p = 1.0f, .repetition_penalty = 1.0f, .seed = seed},
        .has_seed = true,
        .n_choices = 1,
        .want_logprobs = true,
        .n_top = ANSWER_MAX_TOP,
        .ignore_eos = true,
    };
}

void ask(engine_fixture *f, asked *a, const engine_spec *spec)
{
    moe_error err;

    memset(a, 0, sizeof *a);
    a->n_scored = spec->score_from;
    for (size_t i = 0; i < MOE_COUNT(a->first_index); i++) {
        a->first_index[i] = (uint32_t)spec->n_resume;
    }
    assert_ok(engine_submit(f->engine, spec, &a->request, &err), err);
}

static void take_text(answer *to, const engine_event *ev)
{
    assert_true(to->text_bytes + ev->text_bytes < ANSWER_MAX_TEXT);
    memcpy(to->text + to->text_bytes, ev->text, ev->text_bytes);
    to->text_bytes += ev->text_bytes;
}

static void take_token(asked *a, const engine_event *ev)
{
    answer *to = &a->choices[ev->choice];

    assert_int_equal(ev->index, a->first_index[ev->choice]++);
    assert_true(to->n < ANSWER_MAX_TOKENS && ev->n_top <= ANSWER_MAX_TOP);
    to->tokens[to->n] = ev->token_id;
    to->logprobs[to->n] = ev->logprob;
    memcpy(to->top[to->n], ev->top, ev->n_top * sizeof *ev->top);
    to->n++;
    take_text(to, ev);
}

static void take_end(asked *a, const engine_event *ev)
{
    answer *to = &a->choices[ev->choice];

    to->finish = ev->finish;
    to->has_stop_token = ev->has_stop_token;
    to->stop_token = ev->has_stop_token ? ev->stop_token_id : 0;
    snprintf(to->stop_match, sizeof to->stop_match, "%s", ev->stop_match != NULL ? ev->stop_match : "");
    take_text(to, ev);
}

void ask_read(asked *a)
{
    engine_event ev;

    while (engine_next(a->request, &ev)) {
        switch (ev.kind) {
        case ENGINE_TOKEN:
            take_token(a, &ev);
            break;
        case ENGINE_CHOICE_DONE:
            take_end(a, &ev);
            break;
        case ENGINE_SCORED:
            assert_int_equal(ev.index, a->n_scored);
            assert_int_equal(ev.has_logprob, ev.index > 0);
            assert_true(a->n_scored < MOE_COUNT(a->scored));
            a->scored[a->n_scored++] = ev.logprob;
            break;
        case ENGINE_CLASSIFIED:
            assert_true(a->n_scored == 0 && ev.n_scores <= MOE_COUNT(a->scored));
            a->n_scored = ev.n_scores;
            memcpy(a->scored, ev.score_logprobs, ev.n_scores * sizeof a->scored[0]);
            memcpy(a->raw_scores, ev.scores, ev.n_scores * sizeof a->raw_scores[0]);
            break;
        case ENGINE_DONE:
        case ENGINE_FAILED:
            a->ended = true;
            a->status = ev.status;
            a->usage = ev.usage;
            snprintf(a->error, sizeof a->error, "%s", ev.error);
            break;
        case ENGINE_STARTED:
        case ENGINE_PROGRESS:
            break;
        }
    }
}

void ask_finish(engine_fixture *f, asked *a)
{
    while (!a->ended) {
        (void)engine_step(f->engine);
        ask_read(a);
    }
    engine_release(a->request);
    a->request = NULL;
}

void random_prompt(int32_t *out, size_t n, uint32_t vocab_size, uint64_t seed)
{
    moe_random r;

    moe_random_seed(&r, seed);
    for (size_t i = 0; i < n; i++) {
        out[i] = (int32_t)moe_random_below(&r, vocab_size);
    }
}

void assert_answers_equal(const answer *a, const answer *b)
{
    assert_int_equal(a->n, b->n);
    assert_memory_equal(a->tokens, b->tokens, a->n * sizeof a->tokens[0]);
    assert_memory_equal(a->logprobs, b->logprobs, a->n * sizeof a->logprobs[0]);
    assert_memory_equal(a->top, b->top, a->n * sizeof a->top[0]);
    assert_int_equal(a->finish, b->finish);
    assert_int_equal(a->text_bytes, b->text_bytes);
    assert_memory_equal(a->text, b->text, a->text_bytes);
    assert_string_equal(a->stop_match, b->stop_match);
    assert_int_equal(a->has_stop_token, b->has_stop_token);
    assert_int_equal(a->stop_token, b->stop_token);
}
