/* Qwen3-MoE (arXiv 2505.09388): q and k normed per head, a head width of its own, narrow experts. Dense layers
 * (mlp_only_layers, decoder_sparse_step) are refused: no released model has them. */
#include "model/config_keys.h"
#include "model/family/family.h"

#define DEFAULT_WINDOW 4096

#define EXPERT MODEL_LLAMA_LAYER "mlp.experts.{e}."

static const char *const names[MODEL_N_ROLES] = {
    MODEL_LLAMA_NAMES,
    [MODEL_ROLE_GATE] = MODEL_LLAMA_LAYER "mlp.gate.weight",
    [MODEL_ROLE_EXPERT_GATE] = EXPERT "gate_proj.weight",
    [MODEL_ROLE_EXPERT_UP] = EXPERT "up_proj.weight",
    [MODEL_ROLE_EXPERT_DOWN] = EXPERT "down_proj.weight",
};

static const char *const keys[] = {MODEL_LLAMA_KEYS,      "moe_intermediate_size", "num_experts", "num_local_experts",
                                   "num_experts_per_tok", "norm_topk_prob",        NULL};

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
    c->rope.theta = 10000.0;
    c->ffn = COMPUTE_FFN_SWIGLU;
}

/* The class has a window for those who switch it on. */
static moe_status parse_window(const moe_json *json, model_config *c, moe_error *err)
{
    return model_config_window(json, c, false, DEFAULT_WINDOW, err);
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
                                              parse_window,
                                              model_config_norm_and_head,
                                              model_config_renormalize,
                                              model_config_tokens};

    set_defaults(c);
    return model_config_parts(parts, MOE_COUNT(parts), json, c, err);
}

const model_family model_family_qwen3_moe = {
    .model_type = "qwen3_moe",
    .parse = qwen3_moe_parse,
    .keys = keys,
    .names = names,
    .ignored = ignored,
};
