/* Placement, company and arithmetic never change an answer: tokens and log-probabilities are equal bit for bit over
 * instruction sets, threads, batch-mates, prefill chunks, KV memory so small that requests are put back, Score against
 * Generate, and a resume at every position. Both numeric classes. */
#include <stdlib.h>

#include "tests/support/engine_fixture.h"
#include "tests/support/random_model.h"
#include "tests/support/support.h"

#if defined(__SANITIZE_THREAD__)
#define N_PROMPT        40 /* as below, where all that counts is who shares what */
#define N_ANSWER        4
#define N_PROMPT_OTHERS 40
#define N_OTHERS        6
#elif defined(__SANITIZE_ADDRESS__)
#define N_PROMPT        150 /* the same paths in a tenth of the time */
#define N_ANSWER        8
#define N_PROMPT_OTHERS 60
#else
#define N_PROMPT        700
#define N_ANSWER        24
#define N_PROMPT_OTHERS 150
#endif
#ifndef N_OTHERS
#define N_OTHERS 16
#endif

/* The family: the program's argument. The first is run in full, the others with a shorter prompt. */
static const char *kind = "olmoe";

/* Of the last run_subject. */
static uint64_t seen_keys, skipped_keys;

typedef struct world {
    test_folder folders[2]; /* f32, bf16 */
    size_t n_prompt;
    int32_t prompt[N_PROMPT];
    answer want[2][2]; /* [class][greedy, sampled]: portable, one thread, alone, one chunk */
} world;

static engine_spec subject(const world *w, bool sampled)
{
    engine_spec spec = ask_spec(w->prompt, w->n_prompt, N_ANSWER, 42);

    spec.sampling.temperature = sampled ? 0.9f : 0.0f;
    spec.sampling.top_k = sampled ? 50 : 0;
    spec.sampling.top_p = sampled ? 0.95f : 1.0f;
    spec.sampling.repetition_penalty = sampled ? 1.1f : 1.0f;
    return spec;
}

static engine_fixture_options options_of(const world *w, size_t cls)
{
    return engine_fixture_defaults(w->folders[cls].path);
}

static void run_subject(const world *w, const engine_fixture_options *o, bool sampled, answer *out)
{
    engine_fixture f;
    compute_counters counters;
    asked *a = malloc(sizeof *a);
    engine_spec spec = subject(w, sampled);

    engine_fixture_open(&f, o);
    ask(&f, a, &spec);
    ask_finish(&f, a);
    assert_int_equal(a->status, MOE_OK);
    *out = a->choices[0];
    f.model.device->ops->counters(f.model.device, &counters);
    seen_keys = counters.stick_keys_seen;
    skipped_keys = counters.stick_keys_skipped;
    engine_fixture_close(&f);
    free(a);
}

static int setup(void **state)
{
    world *w = calloc(1, sizeof *w);
    random_model m = random_model_defaults(kind);

    w->n_prompt = strcmp(kind, "olmoe") == 0 ? N_PROMPT : N_PROMPT_OTHERS;
    random_prompt(w->prompt, w->n_prompt, m.vocab_size, 7);
    for (size_t cls = 0; cls < 2; cls++) {
        engine_fixture_options o;
        test_folder_open(&w->folders[cls]);
        m.bf16 = cls == 1;
        random_model_write(&m, w->folders[cls].path);
        o = options_of(w, cls);
        o.model.isa = COMPUTE_ISA_PORTABLE;
        o.model.n_threads = 1;
        for (size_t sampled = 0; sampled < 2; sampled++) {
            run_subject(w, &o, sampled, &w->want[cls][sampled]);
            assert_int_equal(w->want[cls][sampled].n, N_ANSWER);
        }
    }
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    world *w = *state;

    test_folder_close(&w->folders[0]);
    test_folder_close(&w->folders[1]);
    free(w);
    return 0;
}

/* Runs greedy and sampled under o for one class and compares with the reference. */
static void expect_same(const world *w, size_t cls, const engine_fixture_options *o)
{
    for (size_t sampled = 0; sampled < 2; sampled++) {
        answer got;
        run_subject(w, o, sampled, &got);
        assert_answers_equal(&w->want[cls][sampled], &got);
    }
}

static void instruction_sets_and_threads_give_the_same_bits(void **state)
{
    const compute_isa isas[] = {COMPUTE_ISA_PORTABLE, COMPUTE_ISA_AVX2, COMPUTE_ISA_AVX512F, COMPUTE_ISA_AVX512};

    for (size_t cls = 0; cls < 2; cls++) {
        for (size_t i = 0; i < MOE_COUNT(isas); i++) {
            if (!compute_isa_available(isas[i])) {
                print_message("skipped: this machine has no %s\n", compute_isa_name(isas[i]));
                continue;
            }
            for (size_t threads = 1; threads <= 2; threads++) {
                engine_fixture_options o = options_of(*state, cls);
                o.model.isa = isas[i];
                o.model.n_threads = threads;
                expect_same(*state, cls, &o);
            }
        }
    }
}

static void mapped_weights_give_the_same_bits(void **state)
{
    for (size_t cls = 0; cls < 2; cls++) {
        engine_fixture_options o = options_of(*state, cls);
        o.model.layout = COMPUTE_MAPPED;
        expect_same(*state, cls, &o);
    }
}

static void prefill_chunks_give_the_same_bits(void **state)
{
    const uint32_t chunks[] = {7, 64, 512};

    for (size_t cls = 0; cls < 2; cls++) {
        for (size_t i = 0; i < MOE_COUNT(chunks); i++) {
            engine_fixture_options o = options_of(*state, cls);
            o.prefill_chunk = chunks[i];
            expect_same(*state, cls, &o);
        }
    }
}

static void alternating_micro_batches_give_the_same_bits(void **state)
{
    for (size_t cls = 0; cls < 2; cls++) {
        engine_fixture_options o = options_of(*state, cls);
        o.micro_batches = 2;
        o.prefill_chunk = 64;
        expect_same(*state, cls, &o);
    }
}

/* The subject among others that come before, with and after it; o may make memory short. Returns times put back. */
static uint64_t run_among_others(const world *w, const engine_fixture_options *o, bool sampled, answer *out)
{
    engine_fixture f;
    asked *all = calloc(N_OTHERS + 1, sizeof *all);
    int32_t prompts[N_OTHERS][200];
    engine_spec spec;
    engine_stats stats;

    engine_fixture_open(&f, o);
    for (size_t i = 0; i <= N_OTHERS; i++) {
        if (i == N_OTHERS / 2) {
            spec = subject(w, sampled);
            ask(&f, &all[N_OTHERS], &spec);
        } else if (i < N_OTHERS) {
            size_t n = 5 + 12 * i;
            random_prompt(prompts[i], n, 256, 100 + i);
            spec = ask_spec(prompts[i], n, 10 + 3 * (uint32_t)i, i);
            ask(&f, &all[i], &spec);
        }
        (void)engine_step(f.engine);
    }
    spec = ask_spec(prompts[0], 5, 30, 1);
    ask(&f, &all[N_OTHERS / 2], &spec);
    for (size_t i = 0; i <= N_OTHERS; i++) {
        ask_finish(&f, &all[i]);
        assert_int_equal(all[i].status, MOE_OK);
        for (size_t j = i + 1; j <= N_OTHERS; j++) {
            ask_read(&all[j]);
        }
    }
    *out = all[N_OTHERS].choices[0];
    engine_get_stats(f.engine, &stats);
    assert_int_equal(stats.kv_pages_used, 0);
    engine_fixture_close(&f);
    free(all);
    return stats.preemptions;
}

static void sixteen_others_in_the_batch_change_nothing(void **state)
{
    const world *w = *state;

    for (size_t cls = 0; cls < 2; cls++) {
        for (size_t sampled = 0; sampled < 2; sampled++) {
            engine_fixture_options o = options_of(w, cls);
            answer got;
            o.prefill_chunk = 64;
            (void)run_among_others(w, &o, sampled, &got);
            assert_answers_equal(&w->want[cls][sampled], &got);
        }
    }
}

static void requests_put_back_for_want_of_pages_change_nothing(void **state)
{
    const world *w = *state;

    for (size_t cls = 0; cls < 2; cls++) {
        for (size_t cached = 0; cached < 2; cached++) {
            engine_fixture_options o = options_of(w, cls);
            answer got;
            o.prefill_chunk = 64;
            o.model.kv_tokens = MOE_MAX(w->n_prompt + 68, 288); /* one of the larger requests and little more */
            o.model.prefix_cache = cached;
            assert_true(run_among_others(w, &o, true, &got) > 0);
            assert_answers_equal(&w->want[cls][1], &got);
        }
    }
}

static void score_repeats_what_generate_reported(void **state)
{
    const world *w = *state;

    for (size_t cls = 0; cls < 2; cls++) {
        engine_fixture_options o = options_of(w, cls);
        const answer *said = &w->want[cls][1];
        int32_t tokens[N_PROMPT + N_ANSWER];
        asked *a = malloc(sizeof *a);
        engine_fixture f;
        engine_spec spec = {.kind = ENGINE_SCORE, .prompt = tokens, .n_prompt = w->n_prompt + N_ANSWER};

        o.prefill_chunk = 100;
        memcpy(tokens, w->prompt, w->n_prompt * sizeof *tokens);
        memcpy(tokens + w->n_prompt, said->tokens, N_ANSWER * sizeof *tokens);
        engine_fixture_open(&f, &o);
        ask(&f, a, &spec);
        ask_finish(&f, a);
        assert_int_equal(a->n_scored, w->n_prompt + N_ANSWER);
        assert_memory_equal(a->scored + w->n_prompt, said->logprobs, N_ANSWER * sizeof(float));
        engine_fixture_close(&f);
        free(a);
    }
}

static void a_resumed_answer_goes_on_as_it_would_have(void **state)
{
    const world *w = *state;

    for (size_t cls = 0; cls < 2; cls++) {
        engine_fixture_options o = options_of(w, cls);
        const answer *said = &w->want[cls][1];
        asked *a = malloc(sizeof *a);
        engine_fixture f;

        engine_fixture_open(&f, &o);
        for (uint32_t n = 0; n <= N_ANSWER; n++) {
            engine_spec spec = subject(w, true);
            spec.resume = said->tokens;
            spec.n_resume = n;
            ask(&f, a, &spec);
            ask_finish(&f, a);
            assert_int_equal(a->choices[0].n, N_ANSWER - n);
            assert_memory_equal(a->choices[0].tokens, said->tokens + n, (N_ANSWER - n) * sizeof(int32_t));
            assert_memory_equal(a->choices[0].logprobs, said->logprobs + n, (N_ANSWER - n) * sizeof(float));
            assert_int_equal(a->choices[0].finish, ENGINE_FINISH_LENGTH);
        }
        engine_fixture_close(&f);
        free(a);
    }
}

static void a_cached_prefix_changes_nothing(void **state)
{
    const world *w = *state;
    engine_fixture_options o = options_of(w, 1);
    asked *a = malloc(sizeof *a);
    engine_fixture f;

    engine_fixture_open(&f, &o);
    for (size_t i = 0; i < 2; i++) {
        engine_spec spec = subject(w, true);
        ask(&f, a, &spec);
        ask_finish(&f, a);
        assert_answers_equal(&w->want[1][1], &a->choices[0]);
        assert_int_equal(a->usage.cached_tokens > 0, i == 1);
    }
    engine_fixture_close(&f);
    free(a);
}

/* Scores so large that the stick is soon used up: what is left out could not have changed a bit. */
static void an_early_exit_changes_nothing(void **state)
{
    const world *w = *state;
    random_model m = random_model_defaults(kind);
    answer all, early;

    m.score_scale = 12.0f;
    for (size_t cls = 0; cls < 2; cls++) {
        engine_fixture_options o;
        test_folder folder;
        test_folder_open(&folder);
        m.bf16 = cls == 1;
        random_model_write(&m, folder.path);
        o = engine_fixture_defaults(folder.path);
        o.model.full_scan = true;
        skipped_keys = 0;
        run_subject(w, &o, true, &all);
        assert_int_equal(skipped_keys, 0);
        o.model.full_scan = false;
        run_subject(w, &o, true, &early);
        if (strncmp(kind, "moduleformer", 12) == 0) {
            assert_true(skipped_keys > seen_keys); /* more than half of all */
        }
        assert_answers_equal(&all, &early);
        test_folder_close(&folder);
    }
}

int main(int argc, char **argv)
{
    kind = argc > 1 ? argv[1] : kind;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(instruction_sets_and_threads_give_the_same_bits),
        cmocka_unit_test(mapped_weights_give_the_same_bits),
        cmocka_unit_test(prefill_chunks_give_the_same_bits),
        cmocka_unit_test(alternating_micro_batches_give_the_same_bits),
        cmocka_unit_test(sixteen_others_in_the_batch_change_nothing),
        cmocka_unit_test(requests_put_back_for_want_of_pages_change_nothing),
        cmocka_unit_test(score_repeats_what_generate_reported),
        cmocka_unit_test(a_resumed_answer_goes_on_as_it_would_have),
        cmocka_unit_test(a_cached_prefix_changes_nothing),
        cmocka_unit_test(an_early_exit_changes_nothing),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
