/* config.json and generation_config.json: the keys that families share, the bounds that hold for all, the canonical
 * text. */
#include "model/config_priv.h"
#include "model/family/family_priv.h"

#include <float.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define MAX_CONFIG_BYTES (1u << 20)
#define MAX_DEPTH        32
#define MAX_PATH         4096
#define MAX_WEIGHTS      (1ull << 56) /* elements of all tensors together: any product of sizes fits a size_t */

static const model_family *const families[] = {&model_family_olmoe};

/* ------------------------------------------------------------------------------------------------ keys */
moe_status model_config_u32(const moe_json *json, const char *key, uint32_t min, uint32_t max, uint32_t *out,
                            moe_error *err)
{
    int64_t value = *out;
    moe_status status = moe_json_int(json, key, min, max, &value, NULL, err);

    if (status == MOE_OK) {
        *out = (uint32_t)value;
    }
    return status;
}

moe_status model_config_need_u32(const moe_json *json, const char *key, uint32_t min, uint32_t max, uint32_t *out,
                                 moe_error *err)
{
    int64_t value;
    bool found;
    moe_status status = moe_json_int(json, key, min, max, &value, &found, err);

    if (status != MOE_OK) {
        return status;
    }
    if (!found) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "%s: missing", key);
    }
    *out = (uint32_t)value;
    return MOE_OK;
}

moe_status model_config_positive(const moe_json *json, const char *key, double max, float *out, bool *found,
                                 moe_error *err)
{
    double value = (double)*out;
    bool there;
    moe_status status = moe_json_real(json, key, (double)FLT_MIN, max, &value, &there, err);

    if (status != MOE_OK) {
        return status;
    }
    if (there) {
        *out = (float)value;
    }
    if (found != NULL) {
        *found = there;
    }
    return MOE_OK;
}

moe_status model_config_token(const moe_json *json, const char *key, int32_t *out, moe_error *err)
{
    int64_t value = *out;
    moe_status status = moe_json_int(json, key, -1, INT32_MAX, &value, NULL, err);

    if (status == MOE_OK) {
        *out = (int32_t)value;
    }
    return status;
}

/* Inserts in ascending order, each id once. */
static moe_status add_eos(const json_t *value, model_config *c, moe_error *err)
{
    json_int_t id = json_integer_value(value);
    uint32_t at = 0;

    if (!json_is_integer(value)) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "eos_token_id: must be an integer or a list of integers");
    }
    if (id < 0 || id >= (json_int_t)c->vocab_size) {
        return moe_fail(err, MOE_ERR_INVALID_ARG,
                        "eos_token_id: %" JSON_INTEGER_FORMAT " must be within [0, vocab_size %u)", id, c->vocab_size);
    }
    while (at < c->n_eos && c->eos_ids[at] < id) {
        at++;
    }
    if (at < c->n_eos && c->eos_ids[at] == id) {
        return MOE_OK;
    }
    if (c->n_eos == MODEL_MAX_EOS) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "eos_token_id: more than %d ids", MODEL_MAX_EOS);
    }
    memmove(&c->eos_ids[at + 1], &c->eos_ids[at], (c->n_eos - at) * sizeof c->eos_ids[0]);
    c->eos_ids[at] = (int32_t)id;
    c->n_eos++;
    return MOE_OK;
}

static moe_status add_eos_list(const json_t *value, model_config *c, moe_error *err)
{
    moe_status status = MOE_OK;

    if (!json_is_array(value)) {
        return add_eos(value, c, err);
    }
    for (size_t i = 0; i < json_array_size(value) && status == MOE_OK; i++) {
        status = add_eos(json_array_get(value, i), c, err);
    }
    return status;
}

moe_status model_config_eos(const moe_json *json, model_config *c, moe_error *err)
{
    const json_t *value = json_object_get(json, "eos_token_id");

    if (value == NULL) {
        return MOE_OK;
    }
    c->n_eos = 0;
    return json_is_null(value) ? MOE_OK : add_eos_list(value, c, err);
}

/* The object under key, NULL when absent or null. */
static moe_status find_object(const moe_json *json, const char *key, const json_t **out, moe_error *err)
{
    const json_t *value = json_object_get(json, key);

    *out = value == NULL || json_is_null(value) ? NULL : value;
    if (*out != NULL && !json_is_object(*out)) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "%s: must be an object", key);
    }
    return MOE_OK;
}

static moe_status parse_rope_parameters(const json_t *rope, model_config *c, bool theta_given, moe_error *err)
{
    const char *type = "default";
    double theta = c->rope_theta, partial = 1.0;
    bool found;
    moe_status status = moe_json_string(rope, "rope_type", &type, NULL, err);

    if (status == MOE_OK) {
        status = moe_json_real(rope, "rope_theta", 1.0, 1e15, &theta, &found, err);
    }
    if (status == MOE_OK) {
        status = moe_json_real(rope, "partial_rotary_factor", 0.0, 1.0, &partial, NULL, err);
    }
    if (status != MOE_OK) {
        return status;
    }
    if (strcmp(type, "default") != 0) {
        return moe_fail(err, MOE_ERR_UNSUPPORTED,
                        "rope_parameters.rope_type: \"%.64s\" is not supported, only \"default\"", type);
    }
    if (partial < 1.0) {
        return moe_fail(err, MOE_ERR_UNSUPPORTED, "rope_parameters.partial_rotary_factor: %g is not supported, only 1",
                        partial);
    }
    if (theta_given && found && theta != c->rope_theta) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "rope_theta: %g contradicts rope_parameters.rope_theta %g",
                        c->rope_theta, theta);
    }
    c->rope_theta = theta;
    return MOE_OK;
}

moe_status model_config_rope(const moe_json *json, model_config *c, moe_error *err)
{
    const json_t *scaling, *parameters;
    bool theta_given;
    moe_status status = moe_json_real(json, "rope_theta", 1.0, 1e15, &c->rope_theta, &theta_given, err);

    if (status == MOE_OK) {
        status = find_object(json, "rope_scaling", &scaling, err);
    }
    if (status == MOE_OK && scaling != NULL) {
        return moe_fail(err, MOE_ERR_UNSUPPORTED, "rope_scaling: not supported, must be null");
    }
    if (status == MOE_OK) {
        status = find_object(json, "rope_parameters", &parameters, err);
    }
    return status == MOE_OK && parameters != NULL ? parse_rope_parameters(parameters, c, theta_given, err) : status;
}

moe_status model_config_attention(const moe_json *json, model_config *c, moe_error *err)
{
    moe_status status = model_config_u32(json, "num_attention_heads", 1, MODEL_MAX_WIDTH, &c->n_heads, err);

    if (status == MOE_OK) {
        c->n_kv_heads = c->n_heads;
        status = model_config_u32(json, "num_key_value_heads", 1, MODEL_MAX_WIDTH, &c->n_kv_heads, err);
    }
    if (status != MOE_OK) {
        return status;
    }
    if (c->d_model % c->n_heads != 0) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "num_attention_heads: %u must divide hidden_size %u", c->n_heads,
                        c->d_model);
    }
    c->head_dim = c->d_model / c->n_heads;
    status = model_config_u32(json, "head_dim", c->head_dim, c->head_dim, &c->head_dim, err);
    return status == MOE_OK ? moe_json_bool(json, "attention_bias", &c->attention_bias, NULL, err) : status;
}

moe_status model_config_experts(const moe_json *json, model_config *c, moe_error *err)
{
    uint32_t alias = 0;
    moe_status status = model_config_u32(json, "num_local_experts", 1, MODEL_MAX_EXPERTS, &alias, err);

    c->n_experts = alias > 0 ? alias : c->n_experts;
    if (status == MOE_OK) {
        status = model_config_u32(json, "num_experts", 1, MODEL_MAX_EXPERTS, &c->n_experts, err);
    }
    if (status == MOE_OK && alias > 0 && alias != c->n_experts) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "num_experts: %u contradicts num_local_experts %u", c->n_experts,
                        alias);
    }
    return status == MOE_OK ? model_config_u32(json, "num_experts_per_tok", 1, ROUTER_MAX_TOP_K, &c->gate.k, err)
                            : status;
}

moe_status model_config_activation(const moe_json *json, const char *wanted, moe_error *err)
{
    const char *name = wanted;
    moe_status status = moe_json_string(json, "hidden_act", &name, NULL, err);

    if (status == MOE_OK && strcmp(name, wanted) != 0) {
        return moe_fail(err, MOE_ERR_UNSUPPORTED, "hidden_act: \"%.64s\" is not supported, only \"%s\"", name, wanted);
    }
    return status;
}

/* ------------------------------------------------------------------------------------------------ bounds */
static moe_status check_heads(const model_config *c, moe_error *err)
{
    if (c->n_heads % c->n_kv_heads != 0) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "num_key_value_heads: %u must divide num_attention_heads %u",
                        c->n_kv_heads, c->n_heads);
    }
    if (c->head_dim % 2 != 0) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "head_dim: %u must be even", c->head_dim);
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
    uint64_t expert = 3ull * c->d_ff * c->d_model; /* < 2^42 */
    uint64_t layer = expert * c->n_experts;        /* < 2^54 */

    if (layer > MAX_WEIGHTS / c->n_layers) {
        return moe_fail(
            err, MOE_ERR_INVALID_ARG,
            "num_hidden_layers %u x num_experts %u x intermediate_size %u x hidden_size %u: more than 2^56 weights",
            c->n_layers, c->n_experts, c->d_ff, c->d_model);
    }
    return MOE_OK;
}

static moe_status check_config(const model_config *c, moe_error *err)
{
    moe_status status = check_heads(c, err);

    if (status == MOE_OK && c->gate.k > c->n_experts) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "num_experts_per_tok: %u must be at most num_experts %u", c->gate.k,
                        c->n_experts);
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
    moe_status status = moe_json_parse(text, bytes, MAX_DEPTH, out, &reason);

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
    return status == MOE_OK ? MOE_OK : moe_fail(err, status, "config.json: %s", reason.text);
}

/* Greedy decoding may still carry a temperature that it does not use, so the defaults count unless do_sample is false.
 */
static moe_status parse_defaults(const moe_json *json, model_config *c, moe_error *err)
{
    double temperature = -1.0, top_p = -1.0;
    int64_t top_k = -1;
    bool sample = true;
    moe_status status = moe_json_bool(json, "do_sample", &sample, NULL, err);

    if (status == MOE_OK) {
        status = moe_json_real(json, "temperature", 0.0, 100.0, &temperature, NULL, err);
    }
    if (status == MOE_OK) {
        status = moe_json_real(json, "top_p", (double)FLT_MIN, 1.0, &top_p, NULL, err);
    }
    if (status == MOE_OK) {
        status = moe_json_int(json, "top_k", -1, INT32_MAX, &top_k, NULL, err);
    }
    if (status == MOE_OK && sample) {
        c->default_temperature = temperature;
        c->default_top_p = top_p;
        c->default_top_k = (int32_t)top_k;
    }
    return status;
}

static moe_status parse_generation(const moe_json *json, model_config *c, moe_error *err)
{
    moe_error reason;
    const json_t *eos = json_object_get(json, "eos_token_id");
    moe_status status = eos == NULL || json_is_null(eos) ? MOE_OK : add_eos_list(eos, c, &reason);

    if (status == MOE_OK) {
        status = parse_defaults(json, c, &reason);
    }
    return status == MOE_OK ? MOE_OK : moe_fail(err, status, "generation_config.json: %s", reason.text);
}

moe_status model_config_parse(const char *json, size_t bytes, const char *generation_json, size_t generation_bytes,
                              model_config *out, moe_error *err)
{
    model_config c = {
        .bos_id = -1, .pad_id = -1, .default_temperature = -1.0, .default_top_p = -1.0, .default_top_k = -1};
    moe_json *object;
    moe_status status = parse_text(json, bytes, "config.json", &object, err);

    if (status != MOE_OK) {
        return status;
    }
    status = parse_config(object, &c, err);
    moe_json_free(object);
    if (status == MOE_OK && generation_json != NULL) {
        status = parse_text(generation_json, generation_bytes, "generation_config.json", &object, err);
        if (status == MOE_OK) {
            status = parse_generation(object, &c, err);
            moe_json_free(object);
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

static const char *const ffn_names[] = {[COMPUTE_FFN_SWIGLU] = "swiglu"};

static void text_tokens(const model_config *c, moe_text *out)
{
    moe_text_printf(out, "bos_token_id %d\n", c->bos_id);
    moe_text_printf(out, "eos_token_ids");
    for (uint32_t i = 0; i < c->n_eos; i++) {
        moe_text_printf(out, "%s%d", i == 0 ? " " : ",", c->eos_ids[i]);
    }
    moe_text_printf(out, "\n");
}

void model_config_text(const model_config *c, moe_text *out)
{
    moe_text_printf(out, "model_type %s\n", c->model_type);
    moe_text_printf(out, "n_layers %u\nd_model %u\nn_heads %u\nn_kv_heads %u\nhead_dim %u\n", c->n_layers, c->d_model,
                    c->n_heads, c->n_kv_heads, c->head_dim);
    moe_text_printf(out, "d_ff %u\nvocab_size %u\nn_experts %u\n", c->d_ff, c->vocab_size, c->n_experts);
    moe_text_printf(out, "top_k %u\nrenormalize %s\n", c->gate.k, yes_no(c->gate.renormalize));
    moe_text_printf(out, "max_positions %u\n", c->max_positions);
    moe_text_printf(out, "norm_eps %.9g\nrope_theta %.17g\n", (double)c->norm_eps, c->rope_theta);
    moe_text_printf(out, "clip_qkv %.9g\n", c->clip_qkv ? (double)c->clip_qkv_bound : 0.0);
    moe_text_printf(out, "attention_bias %s\ntied_head %s\n", yes_no(c->attention_bias), yes_no(c->tied_head));
    moe_text_printf(out, "ffn %s\n", ffn_names[c->ffn]);
    text_tokens(c, out);
    moe_text_printf(out, "default_temperature %.17g\ndefault_top_p %.17g\ndefault_top_k %d\n", c->default_temperature,
                    c->default_top_p, c->default_top_k);
}
