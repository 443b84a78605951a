/* Qwen3-MoE (arXiv 2505.09388): q and k normed per head, a head width of its own, narrow experts. Dense layers
 * (mlp_only_layers, decoder_sparse_step) are refused: no released model has them. */
#include "model/config_keys.h"
#include "model/family/family.h"

#include <jansson.h>

#define EXPERT MODEL_LLAMA_LAYER "mlp.experts.{e}."

static const char *const names[MODEL_N_ROLES] = {
    MODEL_LLAMA_NAMES,
    [MODEL_ROLE_GATE] = MODEL_LLAMA_LAYER "mlp.gate.weight",
    [MODEL_ROLE_EXPERT_GATE] = EXPERT "gate_proj.weight",
    [MODEL_ROLE_EXPERT_UP] = EXPERT "up_proj.weight",
    [MODEL_ROLE_EXPERT_DOWN] = EXPERT "down_proj.weight",
};

static const char *const ignored[] = {MODEL_LLAMA_IGNORED, NULL};

static void set_defaults(model_config *c)
{
    c->vocab_size = 151936;
    c->d_model = 2048;
    c->n_layers = 24;
    c->n_heads = 32;
    c->n_kv_heads = 4;
    c->d_ff = 768;
    c->n_experts = 128;
    c->gate.k = 8;
    c->qk_norm = MODEL_QK_NORM_PER_HEAD;
    c->max_positions = 32768;
    c->positions_are_a_limit = true;
    c->norm_eps = 1e-6f;
    c->rope_theta = 10000.0;
    c->ffn = COMPUTE_FFN_SWIGLU;
}

static moe_status refuse_dense_layers(const moe_json *json, model_config *c, moe_error *err)
{
    const json_t *dense = json_object_get(json, "mlp_only_layers");
    int64_t step = 1;
    moe_status status = moe_json_int(json, "decoder_sparse_step", 0, INT32_MAX, &step, NULL, err);

    (void)c;
    if (status == MOE_OK && step != 1) {
        return moe_fail(err, MOE_ERR_UNSUPPORTED, "decoder_sparse_step: %lld is not supported, only 1",
                        (long long)step);
    }
    if (status == MOE_OK && dense != NULL && !json_is_null(dense) &&
        !(json_is_array(dense) && json_array_size(dense) == 0)) {
        return moe_fail(err, MOE_ERR_UNSUPPORTED, "mlp_only_layers: dense layers are not supported, it must be empty");
    }
    return status;
}

static moe_status refuse_window(const moe_json *json, model_config *c, moe_error *err)
{
    bool window = false;
    moe_status status = moe_json_bool(json, "use_sliding_window", &window, NULL, err);

    (void)c;
    return status == MOE_OK && window ? moe_fail(err, MOE_ERR_UNSUPPORTED, "use_sliding_window: true is not supported")
                                      : status;
}

static moe_status parse_d_ff(const moe_json *json, model_config *c, moe_error *err)
{
    return model_config_u32(json, "moe_intermediate_size", 1, MODEL_MAX_WIDTH, &c->d_ff, err);
}

static moe_status qwen3_moe_parse(const moe_json *json, model_config *c, moe_error *err)
{
    static const model_config_part parts[] = {model_config_widths,
                                              model_config_attention,
                                              model_config_experts,
                                              model_config_rope,
                                              parse_d_ff,
                                              model_config_silu,
                                              refuse_dense_layers,
                                              refuse_window,
                                              model_config_norm_and_head,
                                              model_config_renormalize,
                                              model_config_tokens};

    set_defaults(c);
    return model_config_parts(parts, MOE_COUNT(parts), json, c, err);
}

const model_family model_family_qwen3_moe = {
    .model_type = "qwen3_moe",
    .parse = qwen3_moe_parse,
    .names = names,
    .ignored = ignored,
};
