/* Scaled positions, and the context that goes with them. */
#include "tests/unit/test_model_config_support.h"

#include <math.h>

/* ------------------------------------------------------------------------------------------------ scaled positions */
static void a_rope_scaling_that_says_nothing_changes_nothing(void **state)
{
    static const char *const values[] = {"null",
                                         "{}",
                                         "{\"rope_type\": \"default\"}",
                                         "{\"type\": \"default\"}",
                                         "{\"type\": \"mrope\", \"rope_type\": \"default\"}",
                                         "{\"type\": \"linear\", \"factor\": 1}",
                                         "{\"rope_type\": \"dynamic\", \"factor\": 2.0}"};

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(values); i++) {
        assert_same_text("rope_scaling", values[i]);
        assert_same_text("rope_parameters", values[i]);
    }
}

static void a_linear_factor_slows_positions_and_lengthens_the_context(void **state)
{
    model_config c = with("rope_scaling", "{\"type\": \"linear\", \"factor\": 4}");

    (void)state;
    assert_int_equal(c.rope.kind, MODEL_ROPE_PLAIN);
    assert_true(c.rope.position_scale == 0.25 && c.rope.magnitude == 1.0);
    assert_int_equal(c.max_positions, 16384);
}

/* What the transformers package makes of rope_theta 10000, head_dim 24, original length 1024, factor 4: its own
 * inv_freq in float32. */
static void yarn_has_the_frequencies_of_the_package(void **state)
{
    static const double wanted[12] = {1,
                                      0.464158893,
                                      0.215443447,
                                      0.0850000083,
                                      0.0324911177,
                                      0.0118493913,
                                      0.00399999972,
                                      0.00116039743,
                                      0.000538608583,
                                      0.000250000012,
                                      0.000116039737,
                                      5.38608547e-05};
    model_config c = with("rope_scaling", "{\"rope_type\": \"yarn\", \"factor\": 4.0, "
                                          "\"original_max_position_embeddings\": 1024}");
    double frequencies[12];

    (void)state;
    assert_int_equal(c.rope.kind, MODEL_ROPE_YARN);
    assert_true(fabs(c.rope.magnitude - 1.1386294361119891) < 1e-15);
    assert_int_equal(c.max_positions, 4096);
    model_rope_frequencies(&c.rope, 24, frequencies);
    for (size_t j = 0; j < 12; j++) {
        assert_true(fabs(frequencies[j] / wanted[j] - 1.0) < 5e-7);
    }
}

static void llama3_has_the_frequencies_of_the_package(void **state)
{
    static const double wanted[12] = {1,
                                      0.464158893,
                                      0.215443447,
                                      0.100000001,
                                      0.046415884,
                                      0.0184727348,
                                      0.00308676064,
                                      0.000580198714,
                                      0.000269304292,
                                      0.000125000006,
                                      5.80198684e-05,
                                      2.69304273e-05};
    model_config c = with("rope_scaling", "{\"rope_type\": \"llama3\", \"factor\": 8.0, \"low_freq_factor\": 1.0, "
                                          "\"high_freq_factor\": 4.0, \"original_max_position_embeddings\": 1024}");
    double frequencies[12];

    (void)state;
    assert_int_equal(c.max_positions, 4096);
    model_rope_frequencies(&c.rope, 24, frequencies);
    for (size_t j = 0; j < 12; j++) {
        assert_true(fabs(frequencies[j] / wanted[j] - 1.0) < 5e-7);
    }
}

static void yarn_takes_its_keys(void **state)
{
    model_config c = with("rope_parameters",
                          "{\"rope_type\": \"yarn\", \"rope_theta\": 10000, \"factor\": 40, \"mscale\": 1.0, "
                          "\"mscale_all_dim\": 0.5, \"beta_fast\": 16, \"beta_slow\": 2, \"truncate\": false, "
                          "\"original_max_position_embeddings\": 4096}"),
                 said = with("rope_scaling", "{\"type\": \"yarn\", \"factor\": 40, \"attention_factor\": 1.5}"),
                 bare = with("rope_scaling", "{\"type\": \"yarn\", \"factor\": null, \"beta_fast\": null, "
                                             "\"original_max_position_embeddings\": 1024}"),
                 beside = with("original_max_position_embeddings",
                               "512, \"rope_parameters\": {\"type\": \"yarn\", \"factor\": 2, "
                               "\"original_max_position_embeddings\": 1024}");

    (void)state;
    assert_true(fabs(c.rope.magnitude - (0.1 * log(40.0) + 1.0) / (0.05 * log(40.0) + 1.0)) < 1e-15);
    assert_true(c.rope.fast == 16.0 && c.rope.slow == 2.0 && !c.rope.truncate);
    assert_int_equal(c.max_positions, 163840);
    assert_true(said.rope.magnitude == 1.5 && said.rope.truncate && said.rope.fast == 32.0 && said.rope.slow == 1.0);
    assert_true(said.rope.original_positions == 4096.0); /* max_position_embeddings */
    assert_true(bare.rope.factor == 4.0 && bare.rope.fast == 32.0);
    assert_true(beside.rope.original_positions == 512.0);
}

static void only_one_key_may_scale(void **state)
{
    model_config c;
    moe_error err = {.text = ""};

    (void)state;
    assert_int_equal(parse_both("rope_scaling",
                                "{\"type\": \"linear\", \"factor\": 2}, \"rope_parameters\": {\"rope_type\": \"yarn\", "
                                "\"factor\": 2}",
                                NULL, &c, &err),
                     MOE_ERR_INVALID_ARG);
    assert_contains(err.text, "rope_scaling: contradicts rope_parameters");
}

/* ------------------------------------------------------------------------------------------------ context */
static void refused_context(const model_config *c, uint32_t wanted, const char *says)
{
    uint32_t context = 77;
    moe_error err = {.text = ""};

    assert_int_not_equal(model_config_context(c, wanted, &context, &err), MOE_OK);
    assert_contains(err.text, says);
    assert_int_equal(context, 77);
}

static uint32_t context_of(const model_config *c, uint32_t wanted)
{
    uint32_t context = 0;
    moe_error err = {.text = ""};

    assert_ok(model_config_context(c, wanted, &context, &err), err);
    return context;
}

static void the_context_is_bounded_by_positions(void **state)
{
    model_config plain = with("", NULL), longer = with("rope_scaling", "{\"type\": \"linear\", \"factor\": 2}"),
                 dynamic = with("rope_scaling", "{\"type\": \"dynamic\", \"factor\": 2}");

    (void)state;
    assert_int_equal(context_of(&plain, 0), 4096);
    assert_int_equal(context_of(&plain, 100), 100);
    refused_context(&plain, 4097, "4097: at most max_position_embeddings, 4096");
    assert_int_equal(context_of(&longer, 0), 8192);
    refused_context(&longer, 8193, "8193: at most rope_scaling's factor times the original length, 8192");
    assert_int_equal(context_of(&dynamic, 0), 4096);
    refused_context(&dynamic, 4097, "rope_scaling of type \"dynamic\"");
}

static void a_window_is_served_as_long_as_it_hides_nothing(void **state)
{
    model_config wide = with("sliding_window", "4096"), narrow = with("sliding_window", "1024"),
                 huge = with("sliding_window", "9223372036854775807"), none = with("sliding_window", "null"),
                 off = with("sliding_window", "1024, \"use_sliding_window\": false");

    (void)state;
    assert_int_equal(context_of(&wide, 0), 4096);
    assert_int_equal(context_of(&huge, 0), 4096);
    assert_int_equal(context_of(&none, 0), 4096);
    assert_int_equal(context_of(&off, 0), 4096);
    assert_int_equal(context_of(&narrow, 1024), 1024);
    refused_context(&narrow, 0, "sliding_window 1024: shorter than the context, 4096");
    refused_context(&narrow, 1025, "at most 1024");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_rope_scaling_that_says_nothing_changes_nothing),
        cmocka_unit_test(a_linear_factor_slows_positions_and_lengthens_the_context),
        cmocka_unit_test(yarn_has_the_frequencies_of_the_package),
        cmocka_unit_test(llama3_has_the_frequencies_of_the_package),
        cmocka_unit_test(yarn_takes_its_keys),
        cmocka_unit_test(only_one_key_may_scale),
        cmocka_unit_test(the_context_is_bounded_by_positions),
        cmocka_unit_test(a_window_is_served_as_long_as_it_hides_nothing),
    };

    return cmocka_run_group_tests_name("model rope", tests, NULL, NULL);
}
