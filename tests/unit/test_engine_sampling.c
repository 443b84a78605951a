/* A step's rows are sampled by all threads: whatever is asked for side by side, every answer and the order in which answers are given out
 * are those of one thread. */
#include <pthread.h>
#include <stdlib.h>

#include "tests/support/engine_fixture.h"
#include "tests/support/random_model.h"
#include "tests/support/support.h"

#define VOCAB     4096
#define NAN_TOKEN (VOCAB - 1)
#define N_PROMPT  24
#define N_TOKENS  20
#define MAX_WAKES 4096

enum { GREEDY, POISONED, CHOICES, TOP_K, CUT, PENALIZED, PENALIZED_GREEDY, BANNED, QUIET, SCORE, N_ASKED };

typedef struct world {
    int32_t prompts[N_ASKED][N_PROMPT];
    int32_t banned[ENGINE_MAX_STOP_IDS];
    engine_spec specs[N_ASKED];
} world;

/* Who was told that an event is there, in that order; and that only the engine's thread tells. */
typedef struct wakes {
    struct told {
        struct wakes *all;
        uint32_t who;
    } told[N_ASKED];
    pthread_t engine;
    uint32_t order[MAX_WAKES], n, n_elsewhere;
} wakes;

typedef struct outcome {
    asked asked[N_ASKED];
    wakes wakes;
} outcome;

static void on_wake(void *ctx)
{
    const struct told *t = ctx;
    wakes *w = t->all;

    w->n_elsewhere += !pthread_equal(pthread_self(), w->engine);
    if (w->n < MAX_WAKES) {
        w->order[w->n] = t->who;
    }
    w->n++;
}

static int setup(void **state)
{
    world *w = calloc(1, sizeof *w);

    for (uint32_t i = 0; i < N_ASKED; i++) {
        random_prompt(w->prompts[i], N_PROMPT, NAN_TOKEN, i);
        w->specs[i] = ask_spec(w->prompts[i], N_PROMPT, N_TOKENS + i, i);
    }
    w->specs[GREEDY].sampling.temperature = 0.0f;
    w->specs[CHOICES].n_choices = ENGINE_MAX_CHOICES;
    w->specs[TOP_K].sampling.top_k = 50;
    w->specs[CUT].n_choices = 4;
    w->specs[CUT].sampling.top_p = 0.95f;
    w->specs[CUT].sampling.min_p = 0.05f;
    w->specs[PENALIZED].n_choices = 4;
    w->specs[PENALIZED].sampling.repetition_penalty = 1.3f;
    w->specs[PENALIZED].sampling.frequency_penalty = 0.5f;
    w->specs[PENALIZED_GREEDY].sampling = w->specs[PENALIZED].sampling;
    w->specs[PENALIZED_GREEDY].sampling.temperature = 0.0f;
    w->specs[BANNED].min_tokens = N_TOKENS / 2;
    for (int32_t i = 0; i < ENGINE_MAX_STOP_IDS; i++) {
        w->banned[i] = i * (VOCAB / ENGINE_MAX_STOP_IDS);
    }
    w->specs[BANNED].stop_ids = w->banned;
    w->specs[BANNED].n_stop_ids = ENGINE_MAX_STOP_IDS;
    w->specs[QUIET].want_logprobs = false;
    w->specs[QUIET].n_top = 0;
    w->specs[SCORE].kind = ENGINE_SCORE;
    w->specs[SCORE].want_logprobs = w->specs[SCORE].has_max_tokens = false;
    w->prompts[POISONED][N_PROMPT - 1] = NAN_TOKEN; /* its row of logits is one that nobody wants */
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    free(*state);
    return 0;
}

static outcome *run(const world *w, const char *dir, size_t n_threads)
{
    engine_fixture_options o = engine_fixture_defaults(dir);
    engine_fixture f;
    outcome *out = calloc(1, sizeof *out);

    o.model.n_threads = n_threads;
    o.max_batch_tokens = 512;
    o.prefill_chunk = 16;
    o.max_running = 64;
    engine_fixture_open(&f, &o);
    out->wakes.engine = pthread_self();
    for (uint32_t i = 0; i < N_ASKED; i++) {
        engine_spec spec = w->specs[i];
        out->wakes.told[i] = (struct told){&out->wakes, i};
        spec.wake = on_wake;
        spec.wake_ctx = &out->wakes.told[i];
        ask(&f, &out->asked[i], &spec);
    }
    for (uint32_t i = 0; i < N_ASKED; i++) {
        ask_finish(&f, &out->asked[i]);
        for (uint32_t j = i + 1; j < N_ASKED; j++) {
            ask_read(&out->asked[j]);
        }
    }
    engine_fixture_close(&f);
    return out;
}

static void expect_same(const outcome *want, const outcome *got)
{
    assert_true(want->wakes.n < MAX_WAKES);
    assert_int_equal(want->wakes.n, got->wakes.n);
    assert_memory_equal(want->wakes.order, got->wakes.order, want->wakes.n * sizeof want->wakes.order[0]);
    assert_int_equal(got->wakes.n_elsewhere, 0);
    for (uint32_t i = 0; i < N_ASKED; i++) {
        const asked *a = &want->asked[i], *b = &got->asked[i];
        assert_int_equal(a->status, i == POISONED ? MOE_ERR_DATA_LOSS : MOE_OK);
        assert_int_equal(b->status, a->status);
        assert_string_equal(b->error, a->error);
        assert_int_equal(b->n_scored, a->n_scored);
        assert_memory_equal(b->scored, a->scored, a->n_scored * sizeof a->scored[0]);
        for (uint32_t c = 0; c < ENGINE_MAX_CHOICES; c++) {
            assert_answers_equal(&a->choices[c], &b->choices[c]);
        }
    }
}

static void threads_change_no_answer_and_no_order(void **state)
{
    const world *w = *state;
    test_folder folder;
    random_model m = random_model_defaults("olmoe");

    m.vocab_size = VOCAB;
    m.n_layers = 1;
    m.nan_token = NAN_TOKEN;
    test_folder_open(&folder);
    random_model_write(&m, folder.path);
    outcome *want = run(w, folder.path, 1);
    assert_int_equal(want->asked[SCORE].n_scored, N_PROMPT);
    assert_int_equal(want->asked[CHOICES].choices[ENGINE_MAX_CHOICES - 1].n, N_TOKENS + CHOICES);
    for (int turn = 0; turn < 3; turn++) {
        outcome *got = run(w, folder.path, 4);
        expect_same(want, got);
        free(got);
    }
    free(want);
    test_folder_close(&folder);
}

/* Here the sampler itself refuses a row, between rows that it does not. */
static void a_row_that_cannot_be_sampled_fails_its_request_alone(void **state)
{
    enum { N_IDS = ENGINE_MAX_STOP_IDS, N = 9, BAD = 4 };
    test_folder folder;
    random_model m = random_model_defaults("olmoe");
    int32_t prompt[N_PROMPT], ids[N_IDS];
    asked *all = calloc(2 * N, sizeof *all);

    (void)state;
    m.vocab_size = N_IDS;
    m.n_layers = 1;
    test_folder_open(&folder);
    random_model_write(&m, folder.path);
    random_prompt(prompt, N_PROMPT, N_IDS, 1);
    for (int32_t id = 0; id < N_IDS; id++) {
        ids[id] = id;
    }
    for (size_t turn = 0; turn < 2; turn++) {
        engine_fixture_options o = engine_fixture_defaults(folder.path);
        engine_fixture f;
        asked *a = all + turn * N;

        o.model.n_threads = turn == 0 ? 1 : 4;
        engine_fixture_open(&f, &o);
        for (size_t i = 0; i < N; i++) {
            engine_spec spec = ask_spec(prompt, N_PROMPT, N_TOKENS, i);
            if (i == BAD) { /* no id may be chosen */
                spec.min_tokens = 1;
                spec.n_stop_ids = N_IDS;
                spec.stop_ids = ids;
            }
            ask(&f, &a[i], &spec);
        }
        for (size_t i = 0; i < N; i++) {
            ask_finish(&f, &a[i]);
            assert_int_equal(a[i].status, i == BAD ? MOE_ERR_INVALID_ARG : MOE_OK);
            assert_int_equal(a[i].choices[0].n, i == BAD ? 0 : N_TOKENS);
            assert_answers_equal(&all[i].choices[0], &a[i].choices[0]);
        }
        engine_fixture_close(&f);
    }
    free(all);
    test_folder_close(&folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(threads_change_no_answer_and_no_order, setup, teardown),
        cmocka_unit_test(a_row_that_cannot_be_sampled_fails_its_request_alone),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
