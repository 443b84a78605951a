/* A device that takes its time, and whose memory is its own, changes no answer: with the guarded device, from which rows
 * come late, the engine and its node give the tokens of the CPU, in one batch and in two that alternate. */
#include <stdlib.h>

#include "tests/support/engine_fixture.h"
#include "tests/support/random_model.h"
#include "tests/support/support.h"

enum { VOCAB = 200, N_PROMPT = 9, N_TOKENS = 6, N_ASKED = 3 };

typedef struct answers {
    asked all[N_ASKED];
} answers;

static answers *run(const char *dir, bool guarded, uint32_t micro_batches)
{
    engine_fixture_options o = engine_fixture_defaults(dir);
    answers *out = calloc(1, sizeof *out);
    int32_t prompt[N_ASKED][N_PROMPT];
    engine_fixture f;

    assert_non_null(out);
    o.model.guarded = guarded;
    o.model.max_context = 64;
    o.model.kv_tokens = 512;
    o.max_batch_tokens = 16; /* so that prompts are cut, and chunks straddle the micro-batches */
    o.prefill_chunk = 5;
    o.micro_batches = micro_batches;
    engine_fixture_open(&f, &o);
    for (uint32_t i = 0; i < N_ASKED; i++) {
        random_prompt(prompt[i], N_PROMPT, VOCAB, i);
        engine_spec spec = ask_spec(prompt[i], N_PROMPT, N_TOKENS, 7 + i);

        ask(&f, &out->all[i], &spec);
    }
    for (uint32_t i = 0; i < N_ASKED; i++) {
        ask_finish(&f, &out->all[i]);
        assert_int_equal(out->all[i].status, MOE_OK);
    }
    engine_fixture_close(&f);
    return out;
}

static void a_slow_device_gives_the_same_tokens(void **state)
{
    (void)state;
    for (size_t k = 0; k < RANDOM_MODEL_N_KINDS; k++) {
        random_model m = random_model_defaults(random_model_kinds[k]);
        test_folder folder;

        test_folder_open(&folder);
        m.vocab_size = VOCAB;
        m.n_layers = 2;
        random_model_write(&m, folder.path);
        answers *expected = run(folder.path, false, 1);
        for (uint32_t micro_batches = 1; micro_batches <= 2; micro_batches++) {
            answers *got = run(folder.path, true, micro_batches);

            for (uint32_t i = 0; i < N_ASKED; i++) {
                assert_answers_equal(&expected->all[i].choices[0], &got->all[i].choices[0]);
            }
            free(got);
        }
        free(expected);
        test_folder_close(&folder);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_slow_device_gives_the_same_tokens)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
