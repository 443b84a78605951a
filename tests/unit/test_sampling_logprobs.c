#include "tests/support/support.h"

#include "compute/compute.h"
#include "sampling/sampling.h"

#include <math.h>

static moe_status logprobs(const float *logits, size_t n, int32_t token, float *logprob, size_t n_top,
                           sampling_top *top)
{
    sampler *s;
    moe_status status;

    assert_int_equal(sampler_open(n, &s), MOE_OK);
    status = sampler_logprobs(s, logits, token, logprob, n_top, top);
    sampler_close(s);
    return status;
}

static void log_probabilities_are_those_of_the_softmax(void **state)
{
    const float logits[] = {1.0f, -3.0f, 2.5f, 0.0f, 7.0f};
    double sum = 0.0;
    float logprob;

    (void)state;
    for (int32_t i = 0; i < 5; i++) {
        sum += exp((double)logits[i]);
    }
    for (int32_t i = 0; i < 5; i++) {
        assert_int_equal(logprobs(logits, 5, i, &logprob, 0, NULL), MOE_OK);
        assert_true(fabs((double)logprob - ((double)logits[i] - log(sum))) < 1e-6);
    }
}

static void the_best_log_probabilities_come_first_and_ties_by_id(void **state)
{
    const float logits[] = {1.0f, 5.0f, 1.0f, 7.0f, 5.0f, 1.0f};
    static const int32_t wanted[] = {3, 1, 4, 0};
    sampling_top top[4];

    (void)state;
    assert_int_equal(logprobs(logits, 6, -1, NULL, 4, top), MOE_OK);
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(top[i].token_id, wanted[i]);
    }
}

/* Wherever in a long row they are: the best that is left is looked for again and again. */
static void the_best_of_a_long_row_are_found_in_it(void **state)
{
    enum { N = 1000 };
    float logits[N];
    moe_random random;

    (void)state;
    moe_random_seed(&random, 1);
    for (size_t n_top = 1; n_top <= SAMPLING_MAX_TOP_LOGPROBS; n_top += 7) {
        sampling_top top[SAMPLING_MAX_TOP_LOGPROBS];
        bool taken[N] = {false};
        for (size_t i = 0; i < N; i++) {
            logits[i] = (float)moe_random_below(&random, 300); /* few are alone */
        }
        assert_int_equal(logprobs(logits, N, -1, NULL, n_top, top), MOE_OK);
        for (size_t i = 0; i < n_top; i++) {
            int32_t best = -1;
            for (int32_t id = 0; id < N; id++) {
                best = !taken[id] && (best < 0 || logits[id] > logits[best]) ? id : best;
            }
            assert_int_equal(top[i].token_id, best);
            taken[best] = true;
        }
    }
}

static void a_top_entry_has_the_log_probability_of_its_token(void **state)
{
    const float logits[] = {1.0f, 5.0f, 1.0f, 7.0f};
    sampling_top top[2];
    float logprob;

    (void)state;
    assert_int_equal(logprobs(logits, 4, 1, &logprob, 2, top), MOE_OK);
    assert_int_equal(top[1].token_id, 1);
    assert_memory_equal(&top[1].logprob, &logprob, sizeof logprob);
}

static void more_top_entries_than_ids_are_marked_as_none(void **state)
{
    const float logits[] = {1.0f, 5.0f};
    sampling_top top[3];

    (void)state;
    assert_int_equal(logprobs(logits, 2, -1, NULL, 3, top), MOE_OK);
    assert_int_equal(top[2].token_id, -1);
}

static void log_probabilities_of_a_nan_fail(void **state)
{
    const float logits[] = {1.0f, NAN};
    float logprob;

    (void)state;
    assert_int_equal(logprobs(logits, 2, 0, &logprob, 0, NULL), MOE_ERR_DATA_LOSS);
}

static int init_thread(void **state)
{
    (void)state;
    compute_thread_init();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(log_probabilities_are_those_of_the_softmax),
        cmocka_unit_test(the_best_log_probabilities_come_first_and_ties_by_id),
        cmocka_unit_test(the_best_of_a_long_row_are_found_in_it),
        cmocka_unit_test(a_top_entry_has_the_log_probability_of_its_token),
        cmocka_unit_test(more_top_entries_than_ids_are_marked_as_none),
        cmocka_unit_test(log_probabilities_of_a_nan_fail),
    };

    return cmocka_run_group_tests_name("model logprobs", tests, init_thread, NULL);
}
