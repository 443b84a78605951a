/* Keys of config.json that families share. */
#include "model/config_keys.h"

#include <float.h>
#include <jansson.h>
#include <string.h>

moe_status model_config_parts(const model_config_part *parts, size_t n_parts, const moe_json *json, model_config *c,
                              moe_error *err)
{
    moe_status status = MOE_OK;

    for (size_t i = 0; i < n_parts && status == MOE_OK; i++) {
        status = parts[i](json, c, err);
    }
    return status;
}

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

    if (json_is_null(value) || (json_is_integer(value) && id == -1)) { /* none, as old conversion scripts write it */
        return MOE_OK;
    }
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

moe_status model_config_add_eos(const json_t *value, model_config *c, moe_error *err)
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
    return json_is_null(value) ? MOE_OK : model_config_add_eos(value, c, err);
}

moe_status model_config_widths(const moe_json *json, model_config *c, moe_error *err)
{
    moe_status status = model_config_u32(json, "vocab_size", 1, MODEL_MAX_VOCAB, &c->vocab_size, err);

    if (status == MOE_OK) {
        status = model_config_u32(json, "hidden_size", 1, MODEL_MAX_WIDTH, &c->d_model, err);
    }
    if (status == MOE_OK) {
        status = model_config_u32(json, "num_hidden_layers", 1, MODEL_MAX_LAYERS, &c->n_layers, err);
    }
    if (status == MOE_OK) {
        status = model_config_u32(json, "max_position_embeddings", 1, MODEL_MAX_POSITIONS, &c->max_positions, err);
    }
    return status;
}

moe_status model_config_attention(const moe_json *json, model_config *c, moe_error *err)
{
    int64_t head_dim = c->head_dim;
    moe_status status = model_config_u32(json, "num_attention_heads", 1, MODEL_MAX_WIDTH, &c->n_heads, err);

    if (status != MOE_OK) {
        return status;
    }
    if (c->n_kv_heads == 0 || json_is_null(json_object_get(json, "num_key_value_heads"))) {
        c->n_kv_heads = c->n_heads;
    }
    status = model_config_u32(json, "num_key_value_heads", 1, MODEL_MAX_WIDTH, &c->n_kv_heads, err);
    if (status == MOE_OK) {
        status = moe_json_int(json, "head_dim", 1, MODEL_MAX_WIDTH, &head_dim, NULL, err);
        c->head_dim = (uint32_t)head_dim;
    }
    if (status == MOE_OK && c->head_dim == 0) {
        if (c->d_model % c->n_heads != 0) {
            return moe_fail(err, MOE_ERR_INVALID_ARG, "num_attention_heads: %u must divide hidden_size %u", c->n_heads,
                            c->d_model);
        }
        c->head_dim = c->d_model / c->n_heads;
    }
    return status == MOE_OK ? moe_json_bool(json, "attention_bias", &c->attention_bias, NULL, err) : status;
}

moe_status model_config_plain_heads(const moe_json *json, model_config *c, moe_error *err)
{
    (void)json;
    if ((uint64_t)c->n_heads * c->head_dim != c->d_model) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "head_dim: %u times num_attention_heads %u must be hidden_size %u",
                        c->head_dim, c->n_heads, c->d_model);
    }
    return MOE_OK;
}

moe_status model_config_experts(const moe_json *json, model_config *c, moe_error *err)
{
    uint32_t alias = 0;
    moe_status status = model_config_u32(json, "num_local_experts", 1, MODEL_MAX_EXPERTS, &alias, err);

    c->n_experts = alias > 0 ? alias : c->n_experts;
    if (status == MOE_OK) {
        status = model_config_u32(json, "num_experts", 1, MODEL_MAX_EXPERTS, &c->n_experts, err);
    }
    c->n_ffn_experts = c->n_experts;
    if (status == MOE_OK && alias > 0 && alias != c->n_experts) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "num_experts: %u contradicts num_local_experts %u", c->n_experts,
                        alias);
    }
    return status == MOE_OK ? model_config_u32(json, "num_experts_per_tok", 1, ROUTER_MAX_TOP_K, &c->gate.k, err)
                            : status;
}

moe_status model_config_silu(const moe_json *json, model_config *c, moe_error *err)
{
    const char *name = "silu";
    moe_status status = moe_json_string(json, "hidden_act", &name, NULL, err);

    (void)c;
    if (status == MOE_OK && strcmp(name, "silu") != 0 && strcmp(name, "swish") != 0) {
        return moe_fail(err, MOE_ERR_UNSUPPORTED, "hidden_act: \"%.64s\" is not supported, only \"silu\"", name);
    }
    return status;
}

moe_status model_config_d_ff(const moe_json *json, model_config *c, moe_error *err)
{
    return model_config_u32(json, "intermediate_size", 1, MODEL_MAX_WIDTH, &c->d_ff, err);
}

moe_status model_config_norm_and_head(const moe_json *json, model_config *c, moe_error *err)
{
    moe_status status = model_config_positive(json, "rms_norm_eps", 0.999999, &c->norm_eps, NULL, err);

    return status == MOE_OK ? moe_json_bool(json, "tie_word_embeddings", &c->tied_head, NULL, err) : status;
}

moe_status model_config_renormalize(const moe_json *json, model_config *c, moe_error *err)
{
    return moe_json_bool(json, "norm_topk_prob", &c->gate.renormalize, NULL, err);
}

moe_status model_config_tokens(const moe_json *json, model_config *c, moe_error *err)
{
    moe_status status = model_config_token(json, "bos_token_id", &c->bos_id, err);

    if (status == MOE_OK) {
        status = model_config_token(json, "pad_token_id", &c->pad_id, err);
    }
    return status == MOE_OK ? model_config_eos(json, c, err) : status;
}
