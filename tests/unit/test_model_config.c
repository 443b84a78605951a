#include "tests/unit/test_model_config_support.h"

/* ------------------------------------------------------------------------------------------------ what is read */
static void every_key_reaches_its_field(void **state)
{
    model_config c = with("", NULL);

    (void)state;
    assert_string_equal(c.model_type, "olmoe");
    assert_int_equal(c.vocab_size, 256);
    assert_int_equal(c.d_model, 96);
    assert_int_equal(c.d_ff, 40);
    assert_int_equal(c.n_layers, 3);
    assert_int_equal(c.n_heads, 4);
    assert_int_equal(c.n_kv_heads, 2);
    assert_int_equal(c.head_dim, 24);
    assert_int_equal(c.max_positions, 4096);
    assert_true(c.positions_are_a_limit);
    assert_true(c.norm_eps == 1e-5f);
    assert_true(c.rope.theta == 10000.0);
    assert_false(c.clip_qkv);
    assert_false(c.attention_bias);
    assert_false(c.tied_head);
    assert_int_equal(c.n_experts, 24);
    assert_int_equal(c.gate.k, 3);
    assert_false(c.gate.renormalize);
    assert_int_equal(c.ffn, COMPUTE_FFN_SWIGLU);
    assert_int_equal(c.bos_id, -1);
    assert_int_equal(c.pad_id, 1);
    assert_int_equal(c.n_eos, 1);
    assert_int_equal(c.eos_ids[0], 255);
    assert_memory_equal(&c.defaults, &model_no_defaults, sizeof c.defaults);
}

static void a_bare_config_has_the_defaults_of_its_class(void **state)
{
    static const char json[] = "{\"model_type\": \"olmoe\", \"intermediate_size\": 1024}";
    model_config c = {0};
    moe_error err = {.text = ""};

    (void)state;
    assert_ok(model_config_parse(json, sizeof json - 1, NULL, 0, &c, &err), err);
    assert_int_equal(c.vocab_size, 50304);
    assert_int_equal(c.d_model, 2048);
    assert_int_equal(c.n_layers, 16);
    assert_int_equal(c.n_heads, 16);
    assert_int_equal(c.n_kv_heads, 16);
    assert_int_equal(c.head_dim, 128);
    assert_int_equal(c.n_experts, 64);
    assert_int_equal(c.gate.k, 8);
    assert_int_equal(c.max_positions, 4096);
    assert_int_equal(c.eos_ids[0], 50279);
}

static void the_norm_epsilon_defaults_to_1e_5(void **state)
{
    (void)state;
    assert_true(with("rms_norm_eps", NULL).norm_eps == 1e-5f);
}

static void the_default_stop_id_needs_room_in_the_vocabulary(void **state)
{
    (void)state;
    assert_int_equal(with("eos_token_id", NULL).n_eos, 0);
}

static void a_null_stop_id_means_none(void **state)
{
    (void)state;
    assert_int_equal(with("eos_token_id", "null").n_eos, 0);
    assert_int_equal(with("eos_token_id", "-1").n_eos, 0);
    assert_int_equal(with("eos_token_id", "[]").n_eos, 0);
    assert_int_equal(with("eos_token_id", "[7, -1, null]").n_eos, 1);
}

static void stop_ids_may_be_a_list_and_come_out_ascending_and_once(void **state)
{
    model_config c = with("eos_token_id", "[9, 2, 9, 5]");

    (void)state;
    assert_int_equal(c.n_eos, 3);
    assert_int_equal(c.eos_ids[0], 2);
    assert_int_equal(c.eos_ids[1], 5);
    assert_int_equal(c.eos_ids[2], 9);
}

static void null_key_value_heads_mean_as_many_as_heads(void **state)
{
    (void)state;
    assert_int_equal(with("num_key_value_heads", "null").n_kv_heads, 4);
}

static void clip_qkv_is_a_bound(void **state)
{
    model_config c = with("clip_qkv", "8");

    (void)state;
    assert_true(c.clip_qkv && c.clip_qkv_bound == 8.0f);
}

static void the_alias_of_the_number_of_experts_is_read(void **state)
{
    static const char json[] = "{\"model_type\": \"olmoe\", \"intermediate_size\": 1024, \"num_local_experts\": 32}";
    model_config c = {0};
    moe_error err = {.text = ""};

    (void)state;
    assert_ok(model_config_parse(json, sizeof json - 1, NULL, 0, &c, &err), err);
    assert_int_equal(c.n_experts, 32);
}

static void rope_parameters_replace_the_older_keys(void **state)
{
    static const char json[] = "{\"model_type\": \"olmoe\", \"intermediate_size\": 1024, "
                               "\"rope_parameters\": {\"rope_theta\": 500000.0, \"rope_type\": \"default\"}}";
    model_config c = {0};
    moe_error err = {.text = ""};

    (void)state;
    assert_ok(model_config_parse(json, sizeof json - 1, NULL, 0, &c, &err), err);
    assert_true(c.rope.theta == 500000.0);
}

static void rope_parameters_without_a_base_keep_the_older_one(void **state)
{
    (void)state;
    assert_true(with("rope_parameters", "{\"rope_type\": \"default\"}").rope.theta == 10000.0);
}

static void switches_are_read(void **state)
{
    (void)state;
    assert_true(with("norm_topk_prob", "true").gate.renormalize);
    assert_true(with("tie_word_embeddings", "true").tied_head);
    assert_true(with("attention_bias", "true").attention_bias);
}

static void unknown_keys_are_ignored(void **state)
{
    static const char *const values[] = {"[{\"a\": 1}]", "NaN", "-Infinity", "1e999", "[99999999999999999999]"};

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(values); i++) {
        assert_int_equal(with("router_aux_loss_coef", values[i]).n_experts, 24);
    }
}

static void an_explicit_head_dim_may_say_what_follows_anyway(void **state)
{
    (void)state;
    assert_int_equal(with("head_dim", "24").head_dim, 24);
}

/* ------------------------------------------------------------------------------------------------ what is refused */
static const struct refusal {
    const char *key, *value; /* NULL: left out */
    const char *says;
} refusals[] = {
    {"model_type", NULL, "model_type: missing"},
    {"model_type", "7", "model_type: must be a string"},
    {"model_type", "\"llama\"", "model_type: \"llama\" is not supported"},
    {"vocab_size", "0", "vocab_size: 0 must be within [1, 4194304]"},
    {"vocab_size", "4194305", "vocab_size: 4194305 must be within"},
    {"vocab_size", "\"256\"", "vocab_size: must be an integer"},
    {"vocab_size", "99999999999999999999", "config.json: vocab_size: must be an integer, is 1e+20"},
    {"hidden_size", "-96", "hidden_size: -96 must be within"},
    {"hidden_size", "1048577", "hidden_size: 1048577 must be within [1, 1048576]"},
    {"hidden_size", "96.5", "hidden_size: must be an integer"},
    {"hidden_size", "98", "num_attention_heads: 4 must divide hidden_size 98"},
    {"hidden_size", "100", "head_dim: 25 must be even"},
    {"intermediate_size", NULL, "intermediate_size: missing"},
    {"intermediate_size", "0", "intermediate_size: 0 must be within"},
    {"intermediate_size", "1048577", "intermediate_size: 1048577 must be within"},
    {"num_hidden_layers", "0", "num_hidden_layers: 0 must be within [1, 512]"},
    {"num_hidden_layers", "513", "num_hidden_layers: 513 must be within [1, 512]"},
    {"num_attention_heads", "0", "num_attention_heads: 0 must be within"},
    {"num_attention_heads", "5", "num_attention_heads: 5 must divide hidden_size 96"},
    {"num_key_value_heads", "3", "num_key_value_heads: 3 must divide num_attention_heads 4"},
    {"num_key_value_heads", "8", "num_key_value_heads: 8 must divide num_attention_heads 4"},
    {"num_key_value_heads", "0", "num_key_value_heads: 0 must be within"},
    {"head_dim", "32", "head_dim: 32 times num_attention_heads 4 must be hidden_size 96"},
    {"hidden_act", "\"gelu\"", "hidden_act: \"gelu\" is not supported"},
    {"hidden_act", "true", "hidden_act: must be a string"},
    {"max_position_embeddings", "0", "max_position_embeddings: 0 must be within"},
    {"max_position_embeddings", "1e300", "max_position_embeddings"},
    {"rms_norm_eps", "0", "rms_norm_eps: 0 must be within"},
    {"rms_norm_eps", "1", "rms_norm_eps: 1 must be within"},
    {"rms_norm_eps", "-1e-5", "rms_norm_eps"},
    {"rms_norm_eps", "1e-40", "rms_norm_eps"},
    {"rms_norm_eps", "NaN", "config.json: rms_norm_eps: must be a number, is \"NaN\""},
    {"rms_norm_eps", "1e999", "config.json: rms_norm_eps: must be a number, is \"Infinity\""},
    {"rope_theta", "0", "rope_theta: 0 must be within"},
    {"rope_theta", "Infinity", "config.json: rope_theta: must be a number, is \"Infinity\""},
    {"rope_theta", "[1]", "rope_theta: must be a number"},
    {"rope_scaling", "[]", "rope_scaling: must be an object"},
    {"rope_scaling", "{\"type\": \"linear\"}", "rope_scaling.factor: missing"},
    {"rope_scaling", "{\"type\": \"linear\", \"factor\": 0.5}", "rope_scaling.factor: 0.5 must be within [1, 1000000]"},
    {"rope_scaling", "{\"type\": \"linear\", \"factor\": 1e6}", "rope_scaling.factor: 1e+06 times 4096 positions"},
    {"rope_scaling", "{\"type\": 7}", "rope_scaling.type: must be a string"},
    {"rope_scaling", "{\"type\": \"longrope\"}", "rope_scaling.rope_type: \"longrope\" is not supported, only"},
    {"rope_scaling", "{\"type\": \"longrope\", \"short_factor\": [1], \"long_factor\": [1]}",
     "rope_scaling.rope_type: \"longrope\" is not supported, only"},
    {"rope_scaling", "{\"type\": \"default\", \"mrope_section\": [1]}", "rope_scaling.mrope_section: not supported"},
    {"rope_scaling", "{\"type\": \"dynamic\"}", "rope_scaling.factor: missing"},
    {"rope_scaling", "{\"type\": \"yarn\", \"factor\": 0}", "rope_scaling.factor: 0 must be within"},
    {"rope_scaling", "{\"type\": \"yarn\", \"truncate\": 1}", "rope_scaling.truncate: must be true or false"},
    {"rope_scaling", "{\"type\": \"yarn\", \"attention_factor\": 0}",
     "rope_scaling.attention_factor: 0 must be within"},
    {"rope_scaling", "{\"type\": \"yarn\", \"rope_theta\": 1.0}",
     "rope_theta: 10000 contradicts rope_scaling.rope_theta 1"},
    {"rope_scaling", "{\"type\": \"yarn\", \"original_max_position_embeddings\": 0}",
     "rope_scaling.original_max_position_embeddings: 0 must be within"},
    {"rope_scaling", "{\"rope_type\": \"llama3\", \"factor\": 8}", "rope_scaling.low_freq_factor: missing"},
    {"rope_scaling", "{\"rope_type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 4, \"high_freq_factor\": 4}",
     "rope_scaling.high_freq_factor: 4 must be more than low_freq_factor 4"},
    {"rope_theta", "1, \"rope_scaling_\": 0, \"rope_parameters\": {\"rope_type\": \"yarn\", \"factor\": 2}",
     "rope_theta: 1 must be more than 1"},
    {"rope_scaling", "\"linear\"", "rope_scaling: must be an object"},
    {"rope_parameters", "7", "rope_parameters: must be an object"},
    {"rope_parameters", "{\"rope_type\": \"axial\"}", "rope_parameters.rope_type: \"axial\" is not supported"},
    {"rope_parameters", "{\"full_attention\": {\"rope_type\": \"default\"}}",
     "rope_parameters.full_attention: positions that differ by layer"},
    {"rope_parameters", "{\"rope_theta\": 5.0}", "contradicts rope_parameters.rope_theta 5"},
    {"rope_parameters", "{\"partial_rotary_factor\": 0.5}", "rope_parameters.partial_rotary_factor: 0.5"},
    {"clip_qkv", "0", "clip_qkv: 0 must be within"},
    {"clip_qkv", "-3.5", "clip_qkv: -3.5 must be within"},
    {"clip_qkv", "false", "clip_qkv: must be a number"},
    {"attention_bias", "0", "attention_bias: must be true or false"},
    {"num_experts", "0", "num_experts: 0 must be within [1, 4096]"},
    {"num_experts", "4097", "num_experts: 4097 must be within [1, 4096]"},
    {"num_experts", "2", "num_experts_per_tok: 3 must be at most num_experts 2"},
    {"num_local_experts", "23", "num_experts: 24 contradicts num_local_experts 23"},
    {"num_experts_per_tok", "0", "num_experts_per_tok: 0 must be within [1, 64]"},
    {"num_experts_per_tok", "25", "num_experts_per_tok: 25 must be at most num_experts 24"},
    {"num_experts_per_tok", "65", "num_experts_per_tok: 65 must be within [1, 64]"},
    {"norm_topk_prob", "1", "norm_topk_prob: must be true or false"},
    {"tie_word_embeddings", "\"no\"", "tie_word_embeddings: must be true or false"},
    {"bos_token_id", "256", "bos_token_id: 256 must be below vocab_size 256"},
    {"pad_token_id", "300", "pad_token_id: 300 must be below vocab_size 256"},
    {"pad_token_id", "-2", "pad_token_id: -2 must be within"},
    {"eos_token_id", "256", "eos_token_id: 256 must be within [0, vocab_size 256)"},
    {"eos_token_id", "-2", "eos_token_id: -2 must be within"},
    {"eos_token_id", "\"255\"", "eos_token_id: must be an integer or a list of integers"},
    {"eos_token_id", "[1, \"2\"]", "eos_token_id: must be an integer or a list of integers"},
    {"eos_token_id", "[0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16]", "eos_token_id: more than 16 ids"},
    {"eos_token_id", "[1, 256]", "eos_token_id: 256 must be within"},
    {"vocab_size", "256, \"vocab_size\": 256", "config.json"},
};

static void a_bad_value_is_refused_by_the_name_of_its_key(void **state)
{
    (void)state;
    for (size_t i = 0; i < MOE_COUNT(refusals); i++) {
        model_config c;
        moe_error err = {.text = ""};

        if (parse_both(refusals[i].key, refusals[i].value, NULL, &c, &err) == MOE_OK) {
            fail_msg("%s = %s is accepted", refusals[i].key, refusals[i].value);
        }
        assert_contains(err.text, refusals[i].says);
    }
}

/* How tired hands and other programs spell the same thing. */
static void spellings_of_the_same_value_are_the_same(void **state)
{
    static const field same[] = {
        {"hidden_size", "96.0"},
        {"num_hidden_layers", "3e0"},
        {"max_position_embeddings", "4.096e3"},
        {"rms_norm_eps", "0.00001"},
        {"rope_theta", "10000"},
        {"rope_theta", "1e4"},
        {"head_dim", "null"},
        {"torch_dtype", "\"float16\""},
        {"torch_dtype", "\"auto\""},
        {"torch_dtype", "null"},
        {"dtype", "\"bfloat16\""},
        {"dtype", "\"torch.float16\""},
        {"hidden_act", "\"swish\""},
        {"hidden_act", "null"},
        {"bos_token_id", "null"},
        {"clip_qkv", "null"},
        {"attention_bias", "null"},
        {"tie_word_embeddings", "null"},
        {"quantization_config", "null"},
        {"layer_types", "null"},
        {"max_window_layers", "28"},
    };

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(same); i++) {
        assert_same_text(same[i].key, same[i].value);
    }
}

static void a_product_of_sizes_that_are_each_allowed_is_bounded(void **state)
{
    static const char json[] = "{\"model_type\": \"olmoe\", \"intermediate_size\": 1048576, \"hidden_size\": 1048576, "
                               "\"num_experts\": 4096, \"num_hidden_layers\": 512}";
    model_config c;
    moe_error err = {.text = ""};

    (void)state;
    assert_int_equal(model_config_parse(json, sizeof json - 1, NULL, 0, &c, &err), MOE_ERR_INVALID_ARG);
    assert_contains(err.text, "more than 2^56 weights");
}

static void a_refusal_leaves_the_output_alone(void **state)
{
    model_config c = {.n_layers = 77};
    moe_error err;

    (void)state;
    assert_int_not_equal(parse_both("pad_token_id", "300", NULL, &c, &err), MOE_OK);
    assert_int_equal(c.n_layers, 77);
}

static void a_document_that_is_no_object_is_refused(void **state)
{
    model_config c;
    moe_error err = {.text = ""};

    (void)state;
    assert_int_equal(model_config_parse("[1]", 3, NULL, 0, &c, &err), MOE_ERR_INVALID_ARG);
    assert_contains(err.text, "config.json: must be an object");
}

/* ------------------------------------------------------------------------------------------------ files */
static void write_config(const test_folder *folder)
{
    moe_text text;

    render(&text, "", NULL);
    test_write_file(test_folder_path(folder, "config.json"), text.data, text.size);
    moe_text_fini(&text);
}

static void a_folder_without_generation_config_loads(void **state)
{
    const test_folder *folder = *state;
    model_config c = {0};
    moe_error err = {.text = ""};

    write_config(folder);
    assert_ok(model_config_load(folder->path, &c, &err), err);
    assert_int_equal(c.d_model, 96);
}

static void a_folder_with_generation_config_loads_both(void **state)
{
    const test_folder *folder = *state;
    model_config c = {0};
    moe_error err = {.text = ""};

    write_config(folder);
    test_write_text(test_folder_path(folder, "generation_config.json"), "{\"eos_token_id\": 3}");
    assert_ok(model_config_load(folder->path, &c, &err), err);
    assert_int_equal(c.n_eos, 2);
}

static void a_folder_without_config_is_not_found(void **state)
{
    const test_folder *folder = *state;
    model_config c;
    moe_error err = {.text = ""};

    assert_int_equal(model_config_load(folder->path, &c, &err), MOE_ERR_NOT_FOUND);
    assert_contains(err.text, "config.json");
}

/* ------------------------------------------------------------------------------------------------ canonical text */
static void the_canonical_text_is_fixed(void **state)
{
    model_config c = with("eos_token_id", "[255, 3]");
    char *text = text_of(&c);

    (void)state;
    assert_string_equal(text, "model_type olmoe\n"
                              "n_layers 3\nd_model 96\nn_heads 4\nn_kv_heads 2\nhead_dim 24\n"
                              "d_ff 40\nvocab_size 256\nn_experts 24\n"
                              "top_k 3\nrenormalize false\n"
                              "norm rms\nqk_norm full\nattention softmax\ngate linear\n"
                              "max_positions 4096\nnorm_eps 9.99999975e-06\n"
                              "rope_theta 10000\nrope_position_scale 1\n"
                              "clip_qkv 0\n"
                              "attention_bias false\ntied_head false\n"
                              "ffn swiglu\n"
                              "bos_token_id -1\neos_token_ids 3,255\n"
                              "default_temperature -1\ndefault_top_p -1\ndefault_top_k -1\n");
    free(text);
}

static void everything_that_decides_an_answer_changes_the_canonical_text(void **state)
{
    static const field changes[] = {
        {"rope_theta", "500000.0"},   {"clip_qkv", "6.0"},
        {"norm_topk_prob", "true"},   {"rms_norm_eps", "1e-6"},
        {"num_experts_per_tok", "4"}, {"eos_token_id", "3"},
        {"num_key_value_heads", "4"}, {"max_position_embeddings", "512"},
    };
    model_config c = with("", NULL);
    char *same = text_of(&c);

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(changes); i++) {
        char *changed;

        c = with(changes[i].key, changes[i].value);
        changed = text_of(&c);
        assert_string_not_equal(same, changed);
        free(changed);
    }
    free(same);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_key_reaches_its_field),
        cmocka_unit_test(a_bare_config_has_the_defaults_of_its_class),
        cmocka_unit_test(the_norm_epsilon_defaults_to_1e_5),
        cmocka_unit_test(the_default_stop_id_needs_room_in_the_vocabulary),
        cmocka_unit_test(a_null_stop_id_means_none),
        cmocka_unit_test(stop_ids_may_be_a_list_and_come_out_ascending_and_once),
        cmocka_unit_test(null_key_value_heads_mean_as_many_as_heads),
        cmocka_unit_test(clip_qkv_is_a_bound),
        cmocka_unit_test(the_alias_of_the_number_of_experts_is_read),
        cmocka_unit_test(rope_parameters_replace_the_older_keys),
        cmocka_unit_test(rope_parameters_without_a_base_keep_the_older_one),
        cmocka_unit_test(switches_are_read),
        cmocka_unit_test(unknown_keys_are_ignored),
        cmocka_unit_test(an_explicit_head_dim_may_say_what_follows_anyway),
        cmocka_unit_test(a_bad_value_is_refused_by_the_name_of_its_key),
        cmocka_unit_test(spellings_of_the_same_value_are_the_same),
        cmocka_unit_test(a_product_of_sizes_that_are_each_allowed_is_bounded),
        cmocka_unit_test(a_refusal_leaves_the_output_alone),
        cmocka_unit_test(a_document_that_is_no_object_is_refused),
        cmocka_unit_test_setup_teardown(a_folder_without_generation_config_loads, test_folder_setup,
                                        test_folder_teardown),
        cmocka_unit_test_setup_teardown(a_folder_with_generation_config_loads_both, test_folder_setup,
                                        test_folder_teardown),
        cmocka_unit_test_setup_teardown(a_folder_without_config_is_not_found, test_folder_setup, test_folder_teardown),
        cmocka_unit_test(the_canonical_text_is_fixed),
        cmocka_unit_test(everything_that_decides_an_answer_changes_the_canonical_text),
    };

    return cmocka_run_group_tests_name("model config", tests, NULL, NULL);
}
