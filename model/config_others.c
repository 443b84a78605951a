/* Keys of config.json that no family reads. Most mean nothing for an answer. Those that were written for another model
 * than the one that would be computed are refused unless they hold what this one does anyway. */
#include "model/config_keys.h"
#include "model/family/family.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* What is neutral; null is everywhere. */
typedef enum {
    NOTHING, /* false, 0, and what is empty */
    NUMBER,  /* of a list every one */
    ZERO_OR, /* 0 or the number */
    WORD,    /* of a list every one */
    YES      /* true */
} neutral_kind;

typedef struct neutral {
    const char *key;
    neutral_kind kind;
    double number;
    const char *word;
} neutral;

static const neutral rows[] = {
    /* weights that are not what they are stored as */
    {"quantization_config", NOTHING, 0, NULL},
    {"compression_config", NOTHING, 0, NULL},
    {"quantization", NOTHING, 0, NULL},
    /* attention */
    {"dual_chunk_attention_config", NOTHING, 0, NULL},
    {"attention_chunk_size", NOTHING, 0, NULL},
    {"attn_logit_softcapping", NOTHING, 0, NULL},
    {"attention_sinks", NOTHING, 0, NULL},
    {"clip_qkv", NOTHING, 0, NULL},
    {"use_bidirectional_attention", NOTHING, 0, NULL},
    {"is_encoder_decoder", NOTHING, 0, NULL},
    {"add_cross_attention", NOTHING, 0, NULL},
    {"is_causal", YES, 0, NULL},
    {"q_lora_rank", NOTHING, 0, NULL},
    {"kv_lora_rank", NOTHING, 0, NULL},
    {"pruned_heads", NOTHING, 0, NULL},
    /* positions */
    {"alibi", NOTHING, 0, NULL},
    {"rope_interleaved", NOTHING, 0, NULL},
    {"rope_interleave", NOTHING, 0, NULL},
    {"partial_rotary_factor", NUMBER, 1, NULL},
    {"rotary_pct", NUMBER, 1, NULL},
    {"rotary_percent", NUMBER, 1, NULL},
    {"no_rope_layers", NUMBER, 1, NULL},
    /* where norms, biases and scales stand */
    {"norm_after_attn", NOTHING, 0, NULL},
    {"parallel_attn", NOTHING, 0, NULL},
    {"use_parallel_residual", NOTHING, 0, NULL},
    {"mlp_bias", NOTHING, 0, NULL},
    {"use_bias", NOTHING, 0, NULL},
    {"qkv_bias", NOTHING, 0, NULL},
    {"attention_out_bias", NOTHING, 0, NULL},
    {"lm_head_bias", NOTHING, 0, NULL},
    {"embedding_multiplier", NUMBER, 1, NULL},
    {"residual_multiplier", NUMBER, 1, NULL},
    {"logits_scaling", NUMBER, 1, NULL},
    {"logit_scale", NUMBER, 1, NULL},
    {"scale_emb", NUMBER, 1, NULL},
    {"final_logit_softcapping", NOTHING, 0, NULL},
    {"swiglu_limit", NOTHING, 0, NULL},
    /* experts: which layers have them, which are always on, how they are chosen and weighed */
    {"decoder_sparse_step", NUMBER, 1, NULL},
    {"moe_layer_freq", NUMBER, 1, NULL},
    {"interleave_moe_layer_step", NUMBER, 1, NULL},
    {"mlp_only_layers", NOTHING, 0, NULL},
    {"first_k_dense_replace", NOTHING, 0, NULL},
    {"moe_layer_start_index", NOTHING, 0, NULL},
    {"n_shared_experts", NOTHING, 0, NULL},
    {"num_shared_experts", NOTHING, 0, NULL},
    {"moe_num_shared_experts", NOTHING, 0, NULL},
    {"shared_expert_intermediate_size", NOTHING, 0, NULL},
    {"moe_shared_expert_intermediate_size", NOTHING, 0, NULL},
    {"shared_intermediate_size", NOTHING, 0, NULL},
    {"zero_expert_num", NOTHING, 0, NULL},
    {"num_nextn_predict_layers", NOTHING, 0, NULL},
    {"routed_scaling_factor", NUMBER, 1, NULL},
    {"router_logit_softcapping", NOTHING, 0, NULL},
    {"router_bias", NOTHING, 0, NULL},
    {"use_routing_bias", NOTHING, 0, NULL},
    {"moe_router_enable_expert_bias", NOTHING, 0, NULL},
    {"n_group", ZERO_OR, 1, NULL},
    {"topk_group", ZERO_OR, 1, NULL},
    {"scoring_func", WORD, 0, "softmax"},
    {"topk_method", WORD, 0, "greedy"},
};

/* Of every file that transformers writes; they decide nothing here. */
static const char *const harmless[] = {
    "_name_or_path",
    "architectures",
    "attention_dropout",
    "auto_map",
    "dtype",
    "initializer_range",
    "max_window_layers",
    "output_router_logits",
    "pretraining_tp",
    "router_aux_loss_coef",
    "torch_dtype",
    "transformers_version",
    "use_cache",
    "router_jitter_noise",
    "model_type",
    "output_attentions",
    "output_hidden_states",
    "return_dict",
    "label2id",
    "problem_type",
    "eos_token_id",
    "bos_token_id",
    "pad_token_id",
    "tie_word_embeddings",
    "vocab_size",
    "use_sliding_window",
    "sliding_window",
    "layer_types",
    "original_max_position_embeddings",
    "use_qk_norm",
    "head_dim",
    "id2label",
};

static bool is_neutral(const json_t *value, const neutral *row)
{
    if (json_is_array(value)) { /* an empty one too */
        for (size_t i = 0; i < json_array_size(value); i++) {
            if (row->kind == NOTHING || !is_neutral(json_array_get(value, i), row)) {
                return false;
            }
        }
        return true;
    }
    switch (json_typeof(value)) {
    case JSON_NULL:
        return true;
    case JSON_TRUE:
        return row->kind == YES;
    case JSON_FALSE:
        return row->kind == NOTHING;
    case JSON_OBJECT:
        return row->kind == NOTHING && json_object_size(value) == 0;
    case JSON_STRING:
        return row->kind == WORD && strcmp(json_string_value(value), row->word) == 0;
    default:
        return (row->kind == NUMBER && json_number_value(value) == row->number) ||
               (row->kind == ZERO_OR && (json_number_value(value) == row->number || json_number_value(value) == 0.0)) ||
               (row->kind == NOTHING && json_number_value(value) == 0.0);
    }
}

static moe_status refuse(const neutral *row, const json_t *value, moe_error *err)
{
    char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(9)), only[64];

    if (row->kind == NUMBER || row->kind == ZERO_OR) {
        snprintf(only, sizeof only, "%.9g", row->number);
    } else {
        snprintf(only, sizeof only, "%s%s%s", row->kind == WORD ? "\"" : "",
                 row->kind == WORD  ? row->word
                 : row->kind == YES ? "true"
                                    : "null",
                 row->kind == WORD ? "\"" : "");
    }
    moe_status status = moe_fail(err, MOE_ERR_UNSUPPORTED, "%s: %.100s is not supported, only %s", row->key,
                                 text == NULL ? "its value" : text, only);
    free(text);
    return status;
}

/* What follows from the config itself. */
static moe_status check_derived(const moe_json *json, const model_config *c, moe_error *err)
{
    const neutral derived[] = {
        {"query_pre_attn_scalar", NUMBER, c->head_dim, NULL},
        {"attention_multiplier", NUMBER, 1.0 / sqrt((double)c->head_dim), NULL},
        {"v_head_dim", NUMBER, c->head_dim, NULL},
        {"rotary_dim", NUMBER, c->head_dim, NULL},
        {"use_qk_norm", c->qk_norm != MODEL_QK_NORM_NONE ? YES : NOTHING, 0, NULL},
    };

    for (size_t i = 0; i < MOE_COUNT(derived); i++) {
        const json_t *value = json_object_get(json, derived[i].key);
        if (value != NULL && !is_neutral(value, &derived[i])) {
            return refuse(&derived[i], value, err);
        }
    }
    return MOE_OK;
}

static bool reads(const model_family *family, const char *key)
{
    for (const char *const *known = family->keys; known != NULL && *known != NULL; known++) {
        if (strcmp(*known, key) == 0) {
            return true;
        }
    }
    return false;
}

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);

    return n >= m && strcmp(text + n - m, end) == 0;
}

/* A class whose head is not that of a language model. Names of classes are otherwise free. */
static moe_status check_architecture(const moe_json *json, const model_family *family, moe_error *err)
{
    static const char *const others[] = {"ForSequenceClassification",
                                         "ForTokenClassification",
                                         "ForQuestionAnswering",
                                         "ForMaskedLM",
                                         "ForConditionalGeneration",
                                         "ForMultipleChoice",
                                         "Model"};
    const char *name = json_string_value(json_array_get(json_object_get(json, "architectures"), 0));

    for (size_t i = family->classifies ? 1 : 0; name != NULL && i < MOE_COUNT(others); i++) {
        if (ends_with(name, others[i])) {
            return moe_fail(err, MOE_ERR_UNSUPPORTED,
                            "architectures: \"%.64s\" is not supported, only ...ForCausalLM%s", name,
                            family->classifies ? " and ...ForSequenceClassification" : "");
        }
    }
    return MOE_OK;
}

moe_status model_config_refuse_others(const moe_json *json, const model_config *c, moe_error *err)
{
    moe_status status = check_architecture(json, c->family, err);

    for (size_t i = 0; i < MOE_COUNT(rows) && status == MOE_OK; i++) {
        const json_t *value = json_object_get(json, rows[i].key);
        if (value != NULL && !reads(c->family, rows[i].key) && !is_neutral(value, &rows[i])) {
            status = refuse(&rows[i], value, err);
        }
    }
    return status == MOE_OK ? check_derived(json, c, err) : status;
}

static bool is_known(const model_family *family, const char *key)
{
    for (size_t i = 0; i < MOE_COUNT(rows); i++) {
        if (strcmp(rows[i].key, key) == 0) {
            return true;
        }
    }
    for (size_t i = 0; i < MOE_COUNT(harmless); i++) {
        if (strcmp(harmless[i], key) == 0) {
            return true;
        }
    }
    return reads(family, key);
}

void model_config_unknown(const moe_json *json, const model_family *family, moe_text *names)
{
    const char *key;
    json_t *value;

    json_object_foreach((json_t *)(uintptr_t)json, key, value)
    {
        if (!is_known(family, key)) {
            moe_text_printf(names, " %.64s", key);
        }
    }
}

void model_config_log_unknown(const moe_json *json, const model_config *c)
{
    moe_text names;

    if (!moe_log_enabled(MOE_LOG_DEBUG)) {
        return;
    }
    moe_text_init(&names, 512); /* what is more is not shown */
    model_config_unknown(json, c->family, &names);
    if (names.size > 0) {
        MOE_DEBUG("config.json: keys that mean nothing to a %s:%s", c->model_type, moe_text_cstr(&names));
    }
    moe_text_fini(&names);
}
