#include "tests/support/support.h"

#include "model/model.h"

static void experts_are_numbered_by_kind(void **state)
{
    const model_config c = {
        .n_experts = 12, .n_ffn_experts = 8, .n_constant_experts = 2, .n_copy_experts = 1, .n_zero_experts = 1};
    const model_expert_kind want[] = {MODEL_EXPERT_FFN,      MODEL_EXPERT_FFN,  MODEL_EXPERT_FFN,
                                      MODEL_EXPERT_FFN,      MODEL_EXPERT_FFN,  MODEL_EXPERT_FFN,
                                      MODEL_EXPERT_FFN,      MODEL_EXPERT_FFN,  MODEL_EXPERT_CONSTANT,
                                      MODEL_EXPERT_CONSTANT, MODEL_EXPERT_COPY, MODEL_EXPERT_ZERO};

    (void)state;
    for (int32_t i = 0; i < 12; i++) {
        assert_int_equal(model_expert_kind_of(&c, i), want[i]);
    }
}

static void added_experts_are_ffns(void **state)
{
    const model_config c = {.n_experts = 4, .n_ffn_experts = 3, .n_zero_experts = 1};

    (void)state;
    assert_true(model_expert_is_local(&c, 3));
    assert_false(model_expert_is_local(&c, 4));
}

static void a_classifiers_head_is_as_wide_as_its_labels(void **state)
{
    (void)state;
    assert_int_equal(model_head_width(&(model_config){.vocab_size = 7}), 7);
    assert_int_equal(model_head_width(&(model_config){.vocab_size = 7, .n_labels = 9}), 9);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(experts_are_numbered_by_kind),
        cmocka_unit_test(added_experts_are_ffns),
        cmocka_unit_test(a_classifiers_head_is_as_wide_as_its_labels),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
