/* What the published configurations of each family mean, and which are refused. */
#include "tests/support/support.h"

#include <stdlib.h>

#include "model/family/family.h"

static const char molm[] =
    "{\"model_type\":\"moduleformer\",\"architectures\":[\"ModuleFormerForCausalLM\"],\"vocab_size\":50295,\"n_embd\":"
    "1024,"
    "\"n_layer\":48,\"n_head\":1,\"att_hidden\":1024,\"n_att_experts\":16,\"k_att\":2,\"ffd_hidden\":2048,"
    "\"n_mlp_experts\":32,\"k_mlp\":2,\"gating_size\":256,\"gate_type\":\"mlp\",\"activation_function\":\"gelu_new\","
    "\"layer_norm_epsilon\":0.1,\"tie_word_embeddings\":false,\"bos_token_id\":50256,\"eos_token_id\":50256,"
    "\"block_size\":512,\"history_length\":512,\"att_func\":\"stickbreaking\",\"local_size\":1,\"moe_type\":\"moe\","
    "\"pre_norm\":true,\"universal\":false,\"world_size\":null,\"torch_dtype\":\"bfloat16\"}";
static const char moe_plus_plus[] =
    "{\"model_type\":\"MoE++\",\"architectures\":[\"MoeForCausalLM\"],\"vocab_size\":65536,\"hidden_size\":1536,"
    "\"intermediate_size\":4096,\"num_hidden_layers\":24,\"num_attention_heads\":16,\"num_key_value_heads\":16,"
    "\"hidden_act\":\"silu\",\"max_position_embeddings\":2048,\"rms_norm_eps\":1e-06,\"pad_token_id\":0,\"bos_token_"
    "id\":1,"
    "\"eos_token_id\":2,\"tie_word_embeddings\":false,\"rope_theta\":10000,\"num_experts\":[20],\"moe_expert_"
    "interval\":1,"
    "\"moe_use_mixtral_gating\":false,\"moe_2layer_gate\":false,\"moe_use_logits_norm\":true,\"moe_gate_norm_std\":1.0,"
    "\"moe_feature_no_mul_topk\":true,\"sliding_window\":null,\"rotary_percent\":1.0}";
static const char mixtral[] =
    "{\"model_type\":\"mixtral\",\"vocab_size\":32000,\"hidden_size\":4096,\"intermediate_size\":14336,"
    "\"num_hidden_layers\":32,\"num_attention_heads\":32,\"num_key_value_heads\":8,\"hidden_act\":\"silu\","
    "\"max_position_embeddings\":32768,\"rms_norm_eps\":1e-05,\"bos_token_id\":1,\"eos_token_id\":2,"
    "\"tie_word_embeddings\":false,\"rope_theta\":1000000.0,\"sliding_window\":null,\"num_local_experts\":8,"
    "\"num_experts_per_tok\":2}";
static const char qwen3_moe[] =
    "{\"model_type\":\"qwen3_moe\",\"vocab_size\":151936,\"hidden_size\":2048,\"intermediate_size\":6144,"
    "\"moe_intermediate_size\":768,\"num_hidden_layers\":48,\"num_attention_heads\":32,\"num_key_value_heads\":4,"
    "\"head_dim\":128,\"hidden_act\":\"silu\",\"max_position_embeddings\":40960,\"rms_norm_eps\":1e-06,"
    "\"bos_token_id\":151643,\"eos_token_id\":151645,\"tie_word_embeddings\":false,\"rope_theta\":1000000.0,"
    "\"rope_scaling\":null,\"attention_bias\":false,\"sliding_window\":null,\"use_sliding_window\":false,"
    "\"num_experts\":128,\"num_experts_per_tok\":8,\"norm_topk_prob\":true,\"mlp_only_layers\":[],"
    "\"decoder_sparse_step\":1}";

static moe_status parse(const char *text, model_config *out, moe_error *err)
{
    return model_config_parse(text, strlen(text), NULL, 0, out, err);
}

static model_config of(const char *text)
{
    model_config c;
    moe_error err;

    assert_ok(parse(text, &c, &err), err);
    return c;
}

/* The text with a key's value replaced; NULL: the key left out. */
static char *changed(const char *text, const char *key, const char *value)
{
    char quoted[64], *out = malloc(strlen(text) + 256), *at, *end;

    snprintf(quoted, sizeof quoted, "\"%s\":", key);
    strcpy(out, text);
    at = strstr(out, quoted);
    if (at == NULL) {
        sprintf(out + strlen(out) - 1, ",%s%s}", quoted, value);
        return out;
    }
    end = at + strlen(quoted);
    for (int depth = 0; depth > 0 || (*end != ',' && *end != '}'); end++) {
        depth += (*end == '[' || *end == '{') - (*end == ']' || *end == '}');
    }
    char *rest = strdup(value == NULL && *end == ',' ? end + 1 : end);
    sprintf(at, "%s%s%s", value == NULL ? "" : quoted, value == NULL ? "" : value, rest);
    free(rest);
    return out;
}

static model_config with(const char *text, const char *key, const char *value)
{
    char *other = changed(text, key, value);
    model_config c = of(other);

    free(other);
    return c;
}

/* Tensors in the file that a config demands. */
static size_t n_file_tensors(const model_config *c)
{
    size_t n = 0;

    for (int role = 0; role < MODEL_N_ROLES; role++) {
        bool of_layer = role >= MODEL_FIRST_LAYER_ROLE;
        const model_stored *stored =
            c->family->stored == NULL || c->family->stored_is_optional ? NULL : &c->family->stored[role];
        bool is_stored = stored != NULL && stored->pattern != NULL;
        uint32_t first, experts = model_role_experts(c, (model_role)role, &first);
        for (uint32_t l = 0; l < (of_layer ? c->n_layers : 1); l++) {
            model_tensor_shape shape;
            if (model_tensor_shape_of(c, (model_role)role, l, &shape) && (!is_stored || stored->part == 0)) {
                n += is_stored && strstr(stored->pattern, "{e}") == NULL ? 1 : experts;
            }
        }
    }
    return n;
}

static void molm_8b_is_what_its_pages_say(void **state)
{
    model_config c = of(molm);

    (void)state;
    assert_int_equal(c.attention, MODEL_ATTENTION_STICK_BREAKING);
    assert_int_equal(c.n_att_experts, 16);
    assert_int_equal(c.head_dim, 1024);
    assert_true(c.shared_kv && !c.kv_bias && c.no_positions && !c.positions_are_a_limit && !c.gate.renormalize);
    assert_int_equal(c.max_positions, 4096); /* block_size is no limit */
    assert_int_equal(c.norm, MODEL_NORM_LAYER);
    assert_true(c.norm_eps == 1e-5f); /* whatever layer_norm_epsilon says */
    assert_int_equal(c.gate_kind, MODEL_GATE_GELU);
    assert_int_equal(c.gate_width, 256);
    assert_int_equal(c.ffn, COMPUTE_FFN_GELU_TANH);
    assert_int_equal(c.eos_ids[0], 50256);
    assert_int_equal(n_file_tensors(&c) + 2 * 48, 772); /* with the two buffers of each layer */
}

static void projections_of_keys_follow_from_the_shapes(void **state)
{
    model_config two_heads = with(molm, "n_head", "2"), narrow = with(molm, "att_hidden", "512");
    model_tensor_shape shape;

    (void)state;
    assert_true(!two_heads.shared_kv && two_heads.kv_bias);
    assert_int_equal(two_heads.head_dim, 512);
    assert_true(!narrow.shared_kv);
    assert_true(model_tensor_shape_of(&narrow, MODEL_ROLE_K, 0, &shape));
    assert_int_equal(shape.dims[0], 512);
    assert_false(model_tensor_shape_of(&narrow, MODEL_ROLE_Q, 0, &shape));
}

static void matrices_of_experts_are_input_major_and_others_not(void **state)
{
    model_config c = of(molm);
    model_tensor_shape shape;

    (void)state;
    assert_true(model_tensor_shape_of(&c, MODEL_ROLE_EXPERT_UP, 0, &shape));
    assert_int_equal(shape.dims[0], 1024);
    assert_int_equal(shape.dims[1], 2048);
    assert_true(model_tensor_shape_of(&c, MODEL_ROLE_GATE_INNER, 0, &shape));
    assert_int_equal(shape.dims[0], 256);
}

static void a_classifier_has_the_head_that_its_labels_ask_for(void **state)
{
    char *text = changed(molm, "architectures", "[\"ModuleFormerForSequenceClassification\"]");
    model_config two = of(text), three = with(text, "id2label", "{\"0\":\"a\",\"1\":\"b\",\"2\":\"c\"}");
    char name[CHECKPOINT_MAX_NAME];

    (void)state;
    free(text);
    assert_int_equal(two.n_labels, 2);
    assert_int_equal(three.n_labels, 3);
    assert_int_equal(model_head_width(&three), 3);
    text = changed(molm, "architectures", "[\"ModuleFormerForSequenceClassification\"]");
    char *both = changed(text, "num_labels", "2");
    assert_int_equal(with(text, "num_labels", "4").n_labels, 4);
    assert_int_equal(with(both, "id2label", "{\"0\":\"a\",\"1\":\"b\",\"2\":\"c\"}").n_labels, 3);
    free(both);
    free(text);
    model_tensor_name(&three, MODEL_ROLE_HEAD, 0, 0, name);
    assert_string_equal(name, "score.weight");
}

static void moe_plus_plus_7b_is_what_its_pages_say(void **state)
{
    model_config c = of(moe_plus_plus);

    (void)state;
    assert_int_equal(c.n_experts, 20);
    assert_int_equal(c.n_ffn_experts, 16);
    assert_int_equal(model_expert_kind_of(&c, 17), MODEL_EXPERT_CONSTANT);
    assert_int_equal(model_expert_kind_of(&c, 18), MODEL_EXPERT_COPY);
    assert_int_equal(model_expert_kind_of(&c, 19), MODEL_EXPERT_ZERO);
    assert_int_equal(model_expert_kind_of(&c, 20), MODEL_EXPERT_FFN); /* added */
    assert_int_equal(c.head_dim, 96);
    assert_true(c.gate.standardize && c.gate.renormalize && !c.gate.choose_first && c.gate.has_zero);
    assert_int_equal(c.gate.zero_expert, 19);
    assert_int_equal(c.gate_kind, MODEL_GATE_LINEAR);
    assert_true(c.gate_map && !c.double_input && !c.positions_are_a_limit);
    assert_int_equal(n_file_tensors(&c) + 1, 1059); /* with the first layer's gate map */
}

/* Four of the flags differ between the class and the released model. */
static void keys_that_are_missing_take_the_defaults_of_the_class(void **state)
{
    model_config layers = with(moe_plus_plus, "moe_2layer_gate", NULL),
                 norm = with(moe_plus_plus, "moe_use_logits_norm", NULL),
                 doubled = with(moe_plus_plus, "moe_feature_no_mul_topk", NULL);

    (void)state;
    assert_int_equal(layers.gate_kind, MODEL_GATE_TANH);
    assert_int_equal(layers.gate_width, 160);
    assert_false(norm.gate.standardize);
    assert_true(doubled.double_input);
}

static void the_input_is_doubled_in_softmax_gating_only(void **state)
{
    char *text = changed(moe_plus_plus, "moe_feature_no_mul_topk", "false");
    model_config c = with(text, "moe_use_mixtral_gating", "true");

    (void)state;
    free(text);
    assert_false(c.double_input);
    assert_true(c.gate.choose_first && !c.gate.renormalize);
}

static void rope_scaling_changes_positions_or_theta(void **state)
{
    model_config linear = with(moe_plus_plus, "rope_scaling", "{\"type\":\"linear\",\"factor\":4.0}"),
                 ntk = with(moe_plus_plus, "rope_scaling", "{\"type\":\"ntk\",\"factor\":2.0}");

    (void)state;
    assert_true(linear.rope.position_scale == 0.25 && linear.rope.theta == 10000.0);
    assert_true(ntk.rope.position_scale == 1.0 && ntk.rope.theta == 20000.0);
}

static void mixtral_and_qwen3_differ_from_olmoe_as_published(void **state)
{
    model_config m = of(mixtral), q = of(qwen3_moe);

    (void)state;
    assert_int_equal(m.qk_norm, MODEL_QK_NORM_NONE);
    assert_true(m.gate.renormalize);
    assert_int_equal(m.n_kv_heads, 8);
    assert_int_equal(n_file_tensors(&m), 3 + 32 * (7 + 8 * 3));
    assert_int_equal(q.qk_norm, MODEL_QK_NORM_PER_HEAD);
    assert_int_equal(q.head_dim, 128);
    assert_int_equal(q.d_ff, 768);
    assert_int_equal(n_file_tensors(&q), 3 + 48 * (9 + 128 * 3));
}

/* Qwen3-MoE has a width of 4096 for those who switch its window on and give none. */
static void a_window_is_kept_for_the_context_to_meet(void **state)
{
    char *on = changed(qwen3_moe, "use_sliding_window", "true"), *bare = changed(on, "sliding_window", NULL);
    model_config off = of(qwen3_moe), null = of(on), absent = of(bare), narrow = with(on, "sliding_window", "8192"),
                 old = with(mixtral, "sliding_window", "4096");

    (void)state;
    assert_int_equal(off.window, MODEL_NO_WINDOW);
    assert_int_equal(null.window, MODEL_NO_WINDOW);
    assert_int_equal(absent.window, 4096);
    assert_int_equal(narrow.window, 8192);
    assert_int_equal(old.window, 4096);
    free(on);
    free(bare);
}

/* Qwen3-30B-A3B over 131,072 tokens, as its pages tell to write it. */
static void qwen3_with_yarn_reaches_four_times_as_far(void **state)
{
    model_config c = with(qwen3_moe, "rope_scaling",
                          "{\"rope_type\":\"yarn\",\"factor\":4.0,\"original_max_position_embeddings\":32768}");
    uint32_t context;
    moe_error err;

    (void)state;
    assert_ok(model_config_context(&c, 0, &context, &err), err);
    assert_int_equal(context, 131072);
    assert_true(c.rope.kind == MODEL_ROPE_YARN && c.rope.original_positions == 32768.0);
}

/* Beside what is in this file's configurations, as later releases have it. */
static void published_configs_name_what_they_do_not_have(void **state)
{
    char *first = changed(qwen3_moe, "shared_expert_intermediate_size", "0"),
         *second = changed(first, "qkv_bias", "false"), *third = changed(second, "use_qk_norm", "true"),
         *fourth = changed(third, "max_window_layers", "48");
    model_config c = of(fourth);

    (void)state;
    assert_int_equal(c.n_experts, 128);
    free(first);
    free(second);
    free(third);
    free(fourth);
}

static void what_would_be_another_model_is_refused(void **state)
{
    static const struct {
        const char *text, *key, *value, *message;
    } rows[] = {
        {molm, "n_head", NULL, "n_head: missing"},
        {molm, "att_hidden", NULL, "att_hidden: missing"},
        {molm, "n_att_experts", NULL, "n_att_experts: missing"},
        {molm, "n_head", "3", "n_head: 3 must divide att_hidden 1024"},
        {molm, "k_att", "17", "k_att: 17 must be at most n_att_experts 16"},
        {molm, "k_mlp", "33", "k_mlp: 33 must be at most n_mlp_experts 32"},
        {molm, "gate_type", "\"topk\"", "gate_type: \"topk\" is not supported"},
        {molm, "activation_function", "\"relu\"", "activation_function: \"relu\" is not supported"},
        {molm, "att_func", "\"softmax\"", "att_func: \"softmax\" is not supported"},
        {molm, "moe_type", "\"x\"", "moe_type: \"x\" is not supported"},
        {molm, "pre_norm", "false", "pre_norm: false is not supported"},
        {molm, "universal", "true", "universal: true is not supported"},
        {moe_plus_plus, "num_experts", "[4]", "num_experts: 4 must be at least 5"},
        {moe_plus_plus, "num_experts", "[]", "num_experts: must be a list that begins with an integer"},
        {moe_plus_plus, "num_experts", "\"20\"", "num_experts: must be a list that begins with an integer"},
        {moe_plus_plus, "moe_expert_interval", "2", "moe_expert_interval: 2 is not supported"},
        {moe_plus_plus, "moe_gate_norm_std", "0", "moe_gate_norm_std: 0"},
        {moe_plus_plus, "num_attention_heads", "7", "num_attention_heads: 7 must divide hidden_size 1536"},
        {moe_plus_plus, "rope_scaling", "{\"type\":\"dynamic\",\"factor\":2.0}", "rope_scaling.type: \"dynamic\""},
        {moe_plus_plus, "rope_scaling", "{\"type\":\"linear\",\"factor\":1.0}", "rope_scaling.factor: 1 must be more"},
        {moe_plus_plus, "rope_scaling", "{\"type\":\"linear\"}", "rope_scaling: must be null or an object"},
        {mixtral, "norm_topk_prob", "false", "norm_topk_prob: false is not supported, only true"},
        {mixtral, "use_qk_norm", "true", "use_qk_norm: true is not supported, only null"},
        {mixtral, "clip_qkv", "8.0", "clip_qkv: 8.0 is not supported, only null"},
        {mixtral, "architectures", "[\"MixtralForSequenceClassification\"]", "architectures: \"MixtralForSequence"},
        {qwen3_moe, "mlp_only_layers", "3", "mlp_only_layers: 3 is not supported"},
        {qwen3_moe, "mlp_only_layers", "[0]", "mlp_only_layers: [0] is not supported"},
        {qwen3_moe, "decoder_sparse_step", "2", "decoder_sparse_step: 2 is not supported"},
        {qwen3_moe, "quantization_config", "{\"quant_method\":\"fp8\"}",
         "quantization_config: {\"quant_method\":\"fp8\"}"},
        {molm, "quantization_config", "{\"quant_method\":\"fp8\"}", "quantization_config: {\"quant_method\":\"fp8\"}"},
        {moe_plus_plus, "rotary_percent", "0.5", "rotary_percent: 0.5 is not supported, only 1"},
        {molm, "architectures", "[\"ModuleFormerForTokenClassification\"]", "only ...ForCausalLM and ...ForSequence"},
    };

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(rows); i++) {
        char *text = changed(rows[i].text, rows[i].key, rows[i].value);
        model_config c;
        moe_error err = {.text = ""};
        assert_int_not_equal(parse(text, &c, &err), MOE_OK);
        assert_contains(err.text, rows[i].message);
        free(text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(molm_8b_is_what_its_pages_say),
        cmocka_unit_test(projections_of_keys_follow_from_the_shapes),
        cmocka_unit_test(matrices_of_experts_are_input_major_and_others_not),
        cmocka_unit_test(a_classifier_has_the_head_that_its_labels_ask_for),
        cmocka_unit_test(moe_plus_plus_7b_is_what_its_pages_say),
        cmocka_unit_test(keys_that_are_missing_take_the_defaults_of_the_class),
        cmocka_unit_test(the_input_is_doubled_in_softmax_gating_only),
        cmocka_unit_test(rope_scaling_changes_positions_or_theta),
        cmocka_unit_test(mixtral_and_qwen3_differ_from_olmoe_as_published),
        cmocka_unit_test(a_window_is_kept_for_the_context_to_meet),
        cmocka_unit_test(qwen3_with_yarn_reaches_four_times_as_far),
        cmocka_unit_test(published_configs_name_what_they_do_not_have),
        cmocka_unit_test(what_would_be_another_model_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
