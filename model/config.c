/* config.json: the families, the bounds that hold for all, the canonical text. */
#include "model/config_keys.h"
#include "model/family/family.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define MAX_CONFIG_BYTES (1u << 20)
#define MAX_DEPTH        32
#define MAX_PATH         4096
#define MAX_WEIGHTS      (1ull << 56) /* elements of all tensors together: any product of sizes fits a size_t */

const model_defaults model_no_defaults = {.temperature = -1.0,
                                          .top_p = -1.0,
                                          .min_p = -1.0,
                                          .repetition_penalty = -1.0,
                                          .top_k = -1,
                                          .max_new_tokens = -1,
                                          .min_new_tokens = -1,
                                          .max_length = -1,
                                          .is_missing = true};

static const model_family *const families[] = {&model_family_olmoe, &model_family_mixtral, &model_family_qwen3_moe,
                                               &model_family_moduleformer, &model_family_moe_plus_plus};

/* ------------------------------------------------------------------------------------------------ bounds */
static moe_status check_heads(const model_config *c, moe_error *err)
{
    if (c->n_heads % c->n_kv_heads != 0) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "num_key_value_heads: %u must divide num_attention_heads %u",
                        c->n_kv_heads, c->n_heads);
    }
    if (!c->no_positions && c->head_dim % 2 != 0) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "head_dim: %u must be even", c->head_dim);
    }
    if ((uint64_t)c->n_heads * c->head_dim > MODEL_MAX_WIDTH) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "num_attention_heads: %u times head_dim %u: more than %u", c->n_heads,
                        c->head_dim, MODEL_MAX_WIDTH);
    }
    return MOE_OK;
}

static moe_status check_token(const model_config *c, const char *key, int32_t id, moe_error *err)
{
    if (id >= 0 && (uint32_t)id >= c->vocab_size) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "%s: %d must be below vocab_size %u", key, id, c->vocab_size);
    }
    return MOE_OK;
}

/* Every factor is bounded by now: layers 2^9, experts 2^12, widths 2^20, vocabulary 2^22; only their product is left.
 */
static moe_status check_size(const model_config *c, moe_error *err)
{
    uint64_t expert = 3ull * c->d_ff * c->d_model;                                      /* < 2^42 */
    uint64_t att_expert = 2ull * c->n_heads * c->head_dim * c->d_model;                 /* < 2^42 */
    uint64_t layer = expert * c->n_experts + att_expert * MOE_MAX(c->n_att_experts, 1); /* < 2^55 */

    if (layer > MAX_WEIGHTS / c->n_layers) {
        return moe_fail(err, MOE_ERR_INVALID_ARG,
                        "%u layers x %u experts of %u x %u (and attention): more than 2^56 weights", c->n_layers,
                        c->n_experts, c->d_ff, c->d_model);
    }
    return MOE_OK;
}

static moe_status check_experts(const model_config *c, moe_error *err)
{
    MOE_ASSERT(c->n_ffn_experts >= 1 &&
               c->n_experts == c->n_ffn_experts + c->n_constant_experts + c->n_copy_experts + c->n_zero_experts);
    MOE_ASSERT(c->att_gate.k <= c->n_att_experts);
    /* the one pair that attention.c knows; another wants a branch there */
    MOE_ASSERT((c->attention == MODEL_ATTENTION_STICK_BREAKING) == (c->n_att_experts > 0));
    if (c->gate.k > c->n_experts) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "num_experts_per_tok: %u must be at most num_experts %u", c->gate.k,
                        c->n_experts);
    }
    return MOE_OK;
}

static moe_status check_config(const model_config *c, moe_error *err)
{
    moe_status status = check_heads(c, err);

    if (status == MOE_OK) {
        status = check_experts(c, err);
    }
    if (status == MOE_OK) {
        status = check_token(c, "bos_token_id", c->bos_id, err);
    }
    if (status == MOE_OK) {
        status = check_token(c, "pad_token_id", c->pad_id, err);
    }
    return status == MOE_OK ? check_size(c, err) : status;
}

/* ------------------------------------------------------------------------------------------------ files */
static moe_status find_family(const moe_json *json, const model_family **out, moe_error *err)
{
    const char *type = NULL;
    moe_status status = moe_json_string(json, "model_type", &type, NULL, err);

    if (status != MOE_OK) {
        return status;
    }
    if (type == NULL) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "model_type: missing");
    }
    for (size_t i = 0; i < MOE_COUNT(families); i++) {
        if (strcmp(type, families[i]->model_type) == 0) {
            *out = families[i];
            return MOE_OK;
        }
    }
    return moe_fail(err, MOE_ERR_UNSUPPORTED, "model_type: \"%.64s\" is not supported", type);
}

static moe_status parse_text(const char *text, size_t bytes, const char *file, moe_json **out, moe_error *err)
{
    moe_error reason;
    moe_status status = moe_json_parse_python(text, bytes, MAX_DEPTH, out, &reason);

    if (status != MOE_OK) {
        return moe_fail(err, status, "%s: %s", file, reason.text);
    }
    if (!json_is_object(*out)) {
        moe_json_free(*out);
        return moe_fail(err, MOE_ERR_INVALID_ARG, "%s: must be an object", file);
    }
    return MOE_OK;
}

static moe_status parse_config(const moe_json *json, model_config *c, moe_error *err)
{
    moe_error reason;
    moe_status status = find_family(json, &c->family, &reason);

    if (status == MOE_OK) {
        snprintf(c->model_type, sizeof c->model_type, "%s", c->family->model_type);
        status = c->family->parse(json, c, &reason);
    }
    if (status == MOE_OK) {
        status = check_config(c, &reason);
    }
    if (status == MOE_OK) {
        status = model_config_refuse_others(json, c, &reason);
    }
    if (status == MOE_OK) {
        model_config_log_unknown(json, c);
    }
    return status == MOE_OK ? MOE_OK : moe_fail(err, status, "config.json: %s", reason.text);
}

moe_status model_config_parse(const char *json, size_t bytes, const char *generation_json, size_t generation_bytes,
                              model_config *out, moe_error *err)
{
    model_config c = {.bos_id = -1,
                      .pad_id = -1,
                      .rope = {.position_scale = 1.0, .magnitude = 1.0},

                      .window = MODEL_NO_WINDOW,
                      .positions_by = "max_position_embeddings",
                      .defaults = model_no_defaults};
    moe_error reason;
    moe_json *object;
    moe_status status = parse_text(json, bytes, "config.json", &object, err);

    if (status != MOE_OK) {
        return status;
    }
    status = parse_config(object, &c, err);
    if (status == MOE_OK && generation_json == NULL) {
        model_generation_missing(object, &c);
    }
    moe_json_free(object);
    if (status == MOE_OK && generation_json != NULL) {
        status = parse_text(generation_json, generation_bytes, "generation_config.json", &object, err);
        if (status == MOE_OK) {
            status = model_generation_parse(object, &c, &reason);
            moe_json_free(object);
            status = status == MOE_OK ? MOE_OK : moe_fail(err, status, "generation_config.json: %s", reason.text);
        }
    }
    if (status == MOE_OK) {
        *out = c;
    }
    return status;
}

static moe_status read_text(const char *dir, const char *file, char **data_out, size_t *bytes_out, moe_error *err)
{
    char path[MAX_PATH];
    int n = snprintf(path, sizeof path, "%s/%s", dir, file);

    if (n < 0 || (size_t)n >= sizeof path) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "path of %s: longer than %d bytes", file, MAX_PATH - 1);
    }
    return moe_file_read(path, MAX_CONFIG_BYTES, data_out, bytes_out, err);
}

moe_status model_config_load(const char *dir, model_config *out, moe_error *err)
{
    char *json = NULL, *generation = NULL;
    size_t bytes = 0, generation_bytes = 0;
    moe_status status = read_text(dir, "config.json", &json, &bytes, err);

    if (status == MOE_OK) {
        status = read_text(dir, "generation_config.json", &generation, &generation_bytes, err);
        status = status == MOE_ERR_NOT_FOUND ? MOE_OK : status; /* optional */
    }
    if (status == MOE_OK) {
        status = model_config_parse(json, bytes, generation, generation_bytes, out, err);
    }
    free(generation);
    free(json);
    return status;
}

/* ------------------------------------------------------------------------------------------------ canonical text */
static const char *yes_no(bool value)
{
    return value ? "true" : "false";
}

static const char *const ffn_names[] = {[COMPUTE_FFN_SWIGLU] = "swiglu", [COMPUTE_FFN_GELU_TANH] = "gelu_tanh"};
static const char *const gate_names[] = {[MODEL_GATE_LINEAR] = "linear",
                                         [MODEL_GATE_GELU] = "gelu",
                                         [MODEL_GATE_TANH] = "tanh",
                                         [MODEL_GATE_CENTROIDS] = "centroids"};
static const char *const qk_norm_names[] = {
    [MODEL_QK_NORM_NONE] = "none", [MODEL_QK_NORM_FULL] = "full", [MODEL_QK_NORM_PER_HEAD] = "per_head"};

/* What only some families have is written only for those that have it. */
static void text_features(const model_config *c, moe_text *out)
{
    moe_text_printf(out, "norm %s\nqk_norm %s\n", c->norm == MODEL_NORM_RMS ? "rms" : "layer",
                    qk_norm_names[c->qk_norm]);
    moe_text_printf(out, "attention %s\n", c->attention == MODEL_ATTENTION_SOFTMAX ? "softmax" : "stick_breaking");
    if (c->n_att_experts > 0) {
        moe_text_printf(out, "n_att_experts %u\natt_top_k %u\nshared_kv %s\nkv_bias %s\n", c->n_att_experts,
                        c->att_gate.k, yes_no(c->shared_kv), yes_no(c->kv_bias));
    }
    moe_text_printf(out, "gate %s\n", gate_names[c->gate_kind]);
    if (c->gate_width > 0) {
        moe_text_printf(out, "gate_width %u\n", c->gate_width);
    }
    if (c->n_ffn_experts < c->n_experts) {
        moe_text_printf(out, "n_constant_experts %u\nn_copy_experts %u\nn_zero_experts %u\n", c->n_constant_experts,
                        c->n_copy_experts, c->n_zero_experts);
        moe_text_printf(out, "choose_first %s\nstandardize %.9g\ngate_map %s\ndouble_input %s\n",
                        yes_no(c->gate.choose_first), c->gate.standardize ? (double)c->gate.target_std : 0.0,
                        yes_no(c->gate_map), yes_no(c->double_input));
    }
    if (c->n_labels > 0) {
        moe_text_printf(out, "n_labels %u\n", c->n_labels);
    }
}

/* The kind and its values only where there is one: models without scaling keep their text. */
static void text_rope(const model_rope *r, moe_text *out)
{
    moe_text_printf(out, "rope_theta %.17g\nrope_position_scale %.17g\n", r->theta, r->position_scale);
    if (r->kind != MODEL_ROPE_PLAIN) {
        moe_text_printf(
            out, "rope %s\nrope_factor %.17g\nrope_original_positions %.17g\nrope_fast %.17g\nrope_slow %.17g\n",
            r->kind == MODEL_ROPE_YARN ? "yarn" : "llama3", r->factor, r->original_positions, r->fast, r->slow);
        moe_text_printf(out, "rope_magnitude %.17g\nrope_truncate %s\n", r->magnitude, yes_no(r->truncate));
    }
}

static void text_positions(const model_config *c, moe_text *out)
{
    moe_text_printf(out, "max_positions %u\nnorm_eps %.9g\n", c->max_positions, (double)c->norm_eps);
    if (!c->no_positions) {
        text_rope(&c->rope, out);
    }
}

static void text_tokens(const model_config *c, moe_text *out)
{
    moe_text_printf(out, "bos_token_id %d\n", c->bos_id);
    moe_text_printf(out, "eos_token_ids");
    for (uint32_t i = 0; i < c->n_eos; i++) {
        moe_text_printf(out, "%s%d", i == 0 ? " " : ",", c->eos_ids[i]);
    }
    moe_text_printf(out, "\n");
}

/* Names of keys that came later are written only where the file has them. */
static void text_defaults(const model_defaults *d, moe_text *out)
{
    moe_text_printf(out, "default_temperature %.17g\ndefault_top_p %.17g\ndefault_top_k %d\n", d->temperature, d->top_p,
                    d->top_k);
    if (d->min_p >= 0.0) {
        moe_text_printf(out, "default_min_p %.17g\n", d->min_p);
    }
    if (d->repetition_penalty >= 0.0) {
        moe_text_printf(out, "default_repetition_penalty %.17g\n", d->repetition_penalty);
    }
    if (d->frequency_penalty != 0.0 || d->presence_penalty != 0.0) {
        moe_text_printf(out, "default_frequency_penalty %.17g\ndefault_presence_penalty %.17g\n", d->frequency_penalty,
                        d->presence_penalty);
    }
    if (d->max_new_tokens >= 0) {
        moe_text_printf(out, "default_max_new_tokens %d\n", d->max_new_tokens);
    }
    if (d->min_new_tokens > 0) {
        moe_text_printf(out, "default_min_new_tokens %d\n", d->min_new_tokens);
    }
    if (d->max_length >= 0) {
        moe_text_printf(out, "default_max_length %d\n", d->max_length);
    }
}

void model_config_text(const model_config *c, moe_text *out)
{
    moe_text_printf(out, "model_type %s\n", c->model_type);
    moe_text_printf(out, "n_layers %u\nd_model %u\nn_heads %u\nn_kv_heads %u\nhead_dim %u\n", c->n_layers, c->d_model,
                    c->n_heads, c->n_kv_heads, c->head_dim);
    moe_text_printf(out, "d_ff %u\nvocab_size %u\nn_experts %u\n", c->d_ff, c->vocab_size, c->n_experts);
    moe_text_printf(out, "top_k %u\nrenormalize %s\n", c->gate.k, yes_no(c->gate.renormalize));
    text_features(c, out);
    text_positions(c, out);
    moe_text_printf(out, "clip_qkv %.9g\n", c->clip_qkv ? (double)c->clip_qkv_bound : 0.0);
    moe_text_printf(out, "attention_bias %s\ntied_head %s\n", yes_no(c->attention_bias), yes_no(c->tied_head));
    moe_text_printf(out, "ffn %s\n", ffn_names[c->ffn]);
    text_tokens(c, out);
    text_defaults(&c->defaults, out);
}
