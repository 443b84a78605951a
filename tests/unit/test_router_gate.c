#include "tests/support/support.h"

#include <math.h>

#include "compute/math.h"
#include "router/router.h"

static const int32_t ids_4[] = {0, 1, 2, 3};
static const uint32_t columns_4[] = {0, 1, 2, 3};
static const router_set_layer all_4 = {4, ids_4, columns_4};
static const router_gate_rule top_2 = {.k = 2};

static void top_k_breaks_ties_toward_the_lower_expert(void **state)
{
    const float logits[] = {3.0f, 1.0f, 3.0f, 3.0f};
    int32_t ids[2];
    float weights[2], scratch[8];

    (void)state;
    assert_int_equal(router_gate_select(&top_2, &all_4, logits, ids, weights, scratch), MOE_OK);
    assert_int_equal(ids[0], 0);
    assert_int_equal(ids[1], 2);
}

static void picks_come_in_ascending_order_with_their_weights(void **state)
{
    const float logits[] = {0.0f, 2.0f, -1.0f, 5.0f};
    int32_t ids[2];
    float weights[2], scratch[8], probability[4];

    (void)state;
    compute_row_softmax(probability, logits, 4);
    assert_int_equal(router_gate_select(&top_2, &all_4, logits, ids, weights, scratch), MOE_OK);
    assert_int_equal(ids[0], 1);
    assert_int_equal(ids[1], 3);
    assert_memory_equal(&weights[0], &probability[1], sizeof(float));
    assert_memory_equal(&weights[1], &probability[3], sizeof(float));
}

static void renormalized_weights_are_divided_by_their_sum_best_first(void **state)
{
    const router_gate_rule rule = {.k = 3, .renormalize = true};
    const float logits[] = {1.0f, 2.0f, 0.5f, 1.7f};
    int32_t ids[3];
    float weights[3], scratch[8], p[4];

    (void)state;
    compute_row_softmax(p, logits, 4);
    const float sum = (p[1] + p[3]) + p[0];
    assert_int_equal(router_gate_select(&rule, &all_4, logits, ids, weights, scratch), MOE_OK);
    assert_true(weights[0] == p[0] / sum);
    assert_true(weights[1] == p[1] / sum);
    assert_true(weights[2] == p[3] / sum);
}

static void an_absent_expert_is_left_out_before_the_softmax(void **state)
{
    const int32_t set_ids[] = {1, 7};
    const uint32_t set_columns[] = {3, 0};
    const router_set_layer set = {2, set_ids, set_columns};
    const float logits[] = {1.0f, 90.0f, 80.0f, 0.25f};
    const float kept[] = {0.25f, 1.0f};
    int32_t ids[2];
    float weights[2], scratch[4], p[2];

    (void)state;
    compute_row_softmax(p, kept, 2);
    assert_int_equal(router_gate_select(&top_2, &set, logits, ids, weights, scratch), MOE_OK);
    assert_int_equal(ids[0], 1);
    assert_int_equal(ids[1], 7);
    assert_memory_equal(weights, p, sizeof p);
}

static void a_nan_logit_fails_and_leaves_the_outputs(void **state)
{
    const float logits[] = {1.0f, NAN, 0.5f, 1.7f};
    int32_t ids[2] = {-5, -6};
    float weights[2] = {-1.0f, -2.0f}, scratch[8];

    (void)state;
    assert_int_equal(router_gate_select(&top_2, &all_4, logits, ids, weights, scratch), MOE_ERR_DATA_LOSS);
    assert_int_equal(ids[0], -5);
    assert_true(weights[1] == -2.0f);
}

static void a_nan_outside_the_set_does_not_matter(void **state)
{
    const router_set_layer set = {2, ids_4, columns_4};
    const float logits[] = {1.0f, 2.0f, NAN, NAN};
    int32_t ids[2];
    float weights[2], scratch[4];

    (void)state;
    assert_int_equal(router_gate_select(&top_2, &set, logits, ids, weights, scratch), MOE_OK);
}

/* The k best by full sort of random rows with many ties. */
static void picks_equal_a_full_sort(void **state)
{
    enum { N = 37, K = 8 };
    int32_t set_ids[N], ids[K];
    uint32_t columns[N];
    float logits[N], weights[K], scratch[2 * N], p[N];
    const router_gate_rule rule = {.k = K};
    moe_random r;

    (void)state;
    moe_random_seed(&r, 5);
    for (uint32_t e = 0; e < N; e++) {
        set_ids[e] = (int32_t)(3 * e);
        columns[e] = e;
    }
    const router_set_layer set = {N, set_ids, columns};
    for (int round = 0; round < 500; round++) {
        bool chosen[N] = {false};

        for (int e = 0; e < N; e++) {
            logits[e] = (float)moe_random_below(&r, 12) * 0.5f;
        }
        compute_row_softmax(p, logits, N);
        for (int j = 0; j < K; j++) {
            int best = -1;

            for (int e = 0; e < N; e++) {
                best = !chosen[e] && (best < 0 || p[e] > p[best]) ? e : best;
            }
            chosen[best] = true;
        }
        assert_int_equal(router_gate_select(&rule, &set, logits, ids, weights, scratch), MOE_OK);
        for (int e = 0, j = 0; e < N; e++) {
            if (chosen[e]) {
                assert_int_equal(ids[j], 3 * e);
                assert_true(weights[j] == p[e]);
                j++;
            }
        }
    }
}

/* ------------------------------------------------------------------------------------------------ MoE++
 * Values of the released code: experts 0, 1 FFN; 2, 3 constant; 4 copy; 5 zero. */
static const int32_t ids_6[] = {0, 1, 2, 3, 4, 5};
static const uint32_t columns_6[] = {0, 1, 2, 3, 4, 5};
static const router_set_layer all_6 = {6, ids_6, columns_6};
static const float logits_a[] = {0.5f, -1.0f, 2.0f, 0.25f, 1.5f, -3.0f},
                   logits_b[] = {0.5f, -1.0f, 2.0f, 0.25f, 1.5f, 3.0f};

static router_gate_rule moe_plus_plus(bool choose_first, float std)
{
    return (router_gate_rule){.k = 2,
                              .renormalize = !choose_first,
                              .choose_first = choose_first,
                              .standardize = std > 0.0f,
                              .target_std = std,
                              .has_zero = true,
                              .zero_expert = 5};
}

static void moe_plus_plus_weights_are_those_of_its_code(void **state)
{
    static const struct {
        const float *logits;
        bool choose_first;
        float std;
        int32_t ids[2];
        float weights[2];
    } rows[] = {
        {logits_a, false, 1.0f, {2, 4}, {0.568272769f, 0.431727201f}},
        {logits_a, false, 0.5f, {2, 4}, {0.534297049f, 0.465702981f}},
        {logits_a, false, 0.0f, {2, 4}, {0.622459292f, 0.377540648f}},
        {logits_a, true, 1.0f, {2, 4}, {0.568272829f, 0.431727231f}},
        {logits_b, true, 1.0f, {2, 5}, {0.33064425f, 0.66935569f}},
        {logits_b, true, 0.0f, {2, 5}, {0.268941432f, 0.731058598f}},
    };

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(rows); i++) {
        router_gate_rule rule = moe_plus_plus(rows[i].choose_first, rows[i].std);
        int32_t ids[2];
        float weights[2], scratch[12];
        assert_int_equal(router_gate_select(&rule, &all_6, rows[i].logits, ids, weights, scratch), MOE_OK);
        for (size_t j = 0; j < 2; j++) {
            assert_int_equal(ids[j], rows[i].ids[j]);
            assert_true(fabsf(weights[j] - rows[i].weights[j]) < 2e-7f);
        }
    }
}

static void beside_the_zero_expert_the_other_weighs_exactly_one(void **state)
{
    router_gate_rule rule = moe_plus_plus(false, 1.0f);
    int32_t ids[2];
    float weights[2], scratch[12];

    (void)state;
    assert_int_equal(router_gate_select(&rule, &all_6, logits_b, ids, weights, scratch), MOE_OK);
    assert_int_equal(ids[0], 2);
    assert_int_equal(ids[1], 5);
    assert_true(weights[0] == 1.0f);
    assert_true(weights[1] == 0.0f);
}

/* The deviation and its count are of the experts that are there. */
static void an_absent_expert_counts_for_nothing(void **state)
{
    const int32_t ids_4_of_6[] = {0, 2, 4, 5};
    const uint32_t columns_4_of_6[] = {0, 2, 4, 5};
    const router_set_layer some = {4, ids_4_of_6, columns_4_of_6};
    const float alone[] = {0.5f, 2.0f, 1.5f, -3.0f};
    router_gate_rule rule = moe_plus_plus(false, 1.0f);
    int32_t ids[2], want_ids[2];
    float weights[2], want[2], scratch[12];

    (void)state;
    rule.zero_expert = 3;
    assert_int_equal(router_gate_select(&rule, &all_4, alone, want_ids, want, scratch), MOE_OK);
    rule.zero_expert = 5;
    assert_int_equal(router_gate_select(&rule, &some, logits_a, ids, weights, scratch), MOE_OK);
    assert_int_equal(ids[0], ids_4_of_6[want_ids[0]]);
    assert_int_equal(ids[1], ids_4_of_6[want_ids[1]]);
    assert_memory_equal(weights, want, sizeof want);
}

static void equal_logits_have_no_deviation_and_fail_the_row(void **state)
{
    const float equal[] = {1.0f, 1.0f, 1.0f, 1.0f, 1.0f, 1.0f};
    router_gate_rule rule = moe_plus_plus(false, 1.0f);
    int32_t ids[2];
    float weights[2], scratch[12];

    (void)state;
    assert_int_equal(router_gate_select(&rule, &all_6, equal, ids, weights, scratch), MOE_ERR_DATA_LOSS);
}

static void nothing_beside_the_zero_expert_fails_the_row(void **state)
{
    const float steep[] = {-200.0f, -200.0f, -200.0f, -200.0f, -200.0f, 200.0f};
    router_gate_rule rule = moe_plus_plus(false, 0.0f);
    int32_t ids[2];
    float weights[2], scratch[12];

    (void)state;
    assert_int_equal(router_gate_select(&rule, &all_6, steep, ids, weights, scratch), MOE_ERR_DATA_LOSS);
}

/* ModuleFormer: softmax over all, nothing renormalised. */
static void probabilities_are_kept_as_they_are(void **state)
{
    const float logits[] = {1.0f, 2.0f, 0.5f, 3.0f, -1.0f};
    const router_set_layer all_5 = {5, ids_6, columns_6};
    int32_t ids[2];
    float weights[2], scratch[10];

    (void)state;
    assert_int_equal(router_gate_select(&top_2, &all_5, logits, ids, weights, scratch), MOE_OK);
    assert_int_equal(ids[0], 1);
    assert_int_equal(ids[1], 3);
    assert_true(fabsf(weights[0] - 0.22940628f) < 1e-7f);
    assert_true(fabsf(weights[1] - 0.62359093f) < 1e-7f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(top_k_breaks_ties_toward_the_lower_expert),
        cmocka_unit_test(picks_come_in_ascending_order_with_their_weights),
        cmocka_unit_test(renormalized_weights_are_divided_by_their_sum_best_first),
        cmocka_unit_test(an_absent_expert_is_left_out_before_the_softmax),
        cmocka_unit_test(a_nan_logit_fails_and_leaves_the_outputs),
        cmocka_unit_test(a_nan_outside_the_set_does_not_matter),
        cmocka_unit_test(picks_equal_a_full_sort),
        cmocka_unit_test(moe_plus_plus_weights_are_those_of_its_code),
        cmocka_unit_test(beside_the_zero_expert_the_other_weighs_exactly_one),
        cmocka_unit_test(an_absent_expert_counts_for_nothing),
        cmocka_unit_test(equal_logits_have_no_deviation_and_fail_the_row),
        cmocka_unit_test(nothing_beside_the_zero_expert_fails_the_row),
        cmocka_unit_test(probabilities_are_kept_as_they_are),
    };

    compute_thread_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
