/* Keys that no family reads. */
#include "tests/unit/test_model_config_support.h"

/* What was written for another model: refused unless it holds what this one does. */
static void keys_of_other_models_are_refused_unless_neutral(void **state)
{
    static const struct {
        const char *key, *value, *only, *neutral;
    } rows[] = {
        {"quantization_config", "{\"quant_method\":\"fp8\"}", "null", "{}"},
        {"compression_config", "{\"format\":1}", "null", "null"},
        {"dual_chunk_attention_config", "{\"chunk_size\":8192}", "null", "null"},
        {"attention_chunk_size", "8192", "null", "0"},
        {"attn_logit_softcapping", "50.0", "null", "null"},
        {"final_logit_softcapping", "30.0", "null", "0"},
        {"query_pre_attn_scalar", "256", "24", "24"},
        {"attention_multiplier", "0.5", "0.204124145", "null"},
        {"embedding_multiplier", "12", "1", "1.0"},
        {"residual_multiplier", "0.22", "1", "1"},
        {"logits_scaling", "8.0", "1", "1"},
        {"norm_after_attn", "true", "null", "false"},
        {"use_parallel_residual", "true", "null", "false"},
        {"mlp_bias", "true", "null", "false"},
        {"qkv_bias", "true", "null", "false"},
        {"partial_rotary_factor", "0.5", "1", "1.0"},
        {"rope_interleaved", "true", "null", "false"},
        {"no_rope_layers", "[1,1,0]", "1", "[1,1,1]"},
        {"moe_layer_freq", "2", "1", "1"},
        {"moe_layer_freq", "[0,1,1]", "1", "[1,1,1]"},
        {"decoder_sparse_step", "2", "1", "1"},
        {"mlp_only_layers", "[0]", "null", "[]"},
        {"mlp_only_layers", "3", "null", "null"},
        {"first_k_dense_replace", "3", "null", "0"},
        {"n_shared_experts", "1", "null", "0"},
        {"shared_expert_intermediate_size", "5632", "null", "0"},
        {"num_nextn_predict_layers", "1", "null", "0"},
        {"routed_scaling_factor", "2.5", "1", "1.0"},
        {"scoring_func", "\"sigmoid\"", "\"softmax\"", "\"softmax\""},
        {"topk_method", "\"noaux_tc\"", "\"greedy\"", "\"greedy\""},
        {"n_group", "8", "1", "0"},
        {"topk_group", "4", "1", "1"},
        {"use_qk_norm", "false", "true", "true"},
        {"is_causal", "false", "true", "true"},
        {"is_encoder_decoder", "true", "null", "false"},
        {"pruned_heads", "{\"0\":[1]}", "null", "{}"},
    };

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(rows); i++) {
        char says[160];
        model_config c;
        moe_error err = {.text = ""};

        snprintf(says, sizeof says, "config.json: %s: %s is not supported, only %s", rows[i].key, rows[i].value,
                 rows[i].only);
        if (parse_both(rows[i].key, rows[i].value, NULL, &c, &err) != MOE_ERR_UNSUPPORTED) {
            fail_msg("%s = %s is accepted", rows[i].key, rows[i].value);
        }
        assert_string_equal(err.text, says);
        assert_int_equal(with(rows[i].key, rows[i].neutral).n_experts, 24);
    }
}

static void layer_types_are_those_that_a_window_leaves_alone(void **state)
{
    model_config c;
    moe_error err = {.text = ""};

    (void)state;
    assert_int_equal(with("layer_types", "[\"full_attention\", \"sliding_attention\"]").n_layers, 3);
    assert_int_equal(parse_both("layer_types", "[\"full_attention\", \"linear_attention\"]", NULL, &c, &err),
                     MOE_ERR_UNSUPPORTED);
    assert_contains(err.text, "layer_types: \"linear_attention\" is not supported");
}

static void a_head_for_another_task_is_refused_and_class_names_are_free(void **state)
{
    static const char *const refused[] = {"OlmoeForSequenceClassification", "OlmoeForTokenClassification",
                                          "OlmoeModel"},
                             *const taken[] = {"[\"MyFormerForCausalLM\"]", "[]", "null", "[\"SomethingElse\"]"};

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(refused); i++) {
        char value[64];
        model_config c;
        moe_error err = {.text = ""};

        snprintf(value, sizeof value, "[\"%s\"]", refused[i]);
        assert_int_equal(parse_both("architectures", value, NULL, &c, &err), MOE_ERR_UNSUPPORTED);
        assert_contains(err.text, "is not supported, only ...ForCausalLM");
    }
    for (size_t i = 0; i < MOE_COUNT(taken); i++) {
        assert_int_equal(with("architectures", taken[i]).n_layers, 3);
    }
    assert_int_equal(with("architectures", NULL).n_layers, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_of_other_models_are_refused_unless_neutral),
        cmocka_unit_test(layer_types_are_those_that_a_window_leaves_alone),
        cmocka_unit_test(a_head_for_another_task_is_refused_and_class_names_are_free),
    };

    return cmocka_run_group_tests_name("model config others", tests, NULL, NULL);
}
