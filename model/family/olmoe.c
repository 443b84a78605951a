/* OLMoE (arXiv 2409.02060): pre-norm decoder, RMSNorm, q and k normed over all heads, every layer of experts, top-k of
 * the softmax without renormalising unless the config says so. */
#include "model/config_keys.h"
#include "model/family/family.h"

#define DEFAULT_EOS 50279

#define EXPERT MODEL_LLAMA_LAYER "mlp.experts.{e}."

static const char *const names[MODEL_N_ROLES] = {
    MODEL_LLAMA_NAMES,
    [MODEL_ROLE_GATE] = MODEL_LLAMA_LAYER "mlp.gate.weight",
    [MODEL_ROLE_EXPERT_GATE] = EXPERT "gate_proj.weight",
    [MODEL_ROLE_EXPERT_UP] = EXPERT "up_proj.weight",
    [MODEL_ROLE_EXPERT_DOWN] = EXPERT "down_proj.weight",
};

/* transformers 5 keeps the experts of a layer in two tensors. */
static const model_stored fused[MODEL_N_ROLES] = {
    [MODEL_ROLE_EXPERT_GATE] = {MODEL_LLAMA_LAYER "mlp.experts.gate_up_proj", 0, 2},
    [MODEL_ROLE_EXPERT_UP] = {MODEL_LLAMA_LAYER "mlp.experts.gate_up_proj", 1, 2},
    [MODEL_ROLE_EXPERT_DOWN] = {MODEL_LLAMA_LAYER "mlp.experts.down_proj", 0, 1},
};

static const char *const keys[] = {
    MODEL_LLAMA_KEYS, "num_experts", "num_local_experts", "num_experts_per_tok", "clip_qkv", "norm_topk_prob", NULL};

static const char *const ignored[] = {MODEL_LLAMA_IGNORED, NULL};

/* The class's defaults, for keys that a config leaves out. intermediate_size has none that can be relied on. */
static void set_defaults(model_config *c)
{
    c->n_layers = 16;
    c->d_model = 2048;
    c->n_heads = 16;
    c->vocab_size = 50304;
    c->n_experts = 64;
    c->qk_norm = MODEL_QK_NORM_FULL;
    c->gate.k = 8;
    c->max_positions = 4096;
    c->positions_are_a_limit = true;
    c->norm_eps = 1e-5f;
    c->rope.theta = 10000.0;
    c->ffn = COMPUTE_FFN_SWIGLU;
}

static moe_status parse_d_ff(const moe_json *json, model_config *c, moe_error *err)
{
    return model_config_need_u32(json, "intermediate_size", 1, MODEL_MAX_WIDTH, &c->d_ff, err);
}

static moe_status parse_clip(const moe_json *json, model_config *c, moe_error *err)
{
    return model_config_positive(json, "clip_qkv", 1e30, &c->clip_qkv_bound, &c->clip_qkv, err);
}

static moe_status parse_tokens(const moe_json *json, model_config *c, moe_error *err)
{
    if (c->vocab_size > DEFAULT_EOS) { /* else it could never be chosen */
        c->eos_ids[0] = DEFAULT_EOS;
        c->n_eos = 1;
    }
    return model_config_tokens(json, c, err);
}

static moe_status olmoe_parse(const moe_json *json, model_config *c, moe_error *err)
{
    static const model_config_part parts[] = {model_config_widths,
                                              parse_d_ff,
                                              model_config_attention,
                                              model_config_experts,
                                              model_config_rope,
                                              model_config_plain_heads,
                                              model_config_silu,
                                              model_config_norm_and_head,
                                              parse_clip,
                                              model_config_any_window,
                                              model_config_renormalize,
                                              parse_tokens};

    set_defaults(c);
    return model_config_parts(parts, MOE_COUNT(parts), json, c, err);
}

const model_family model_family_olmoe = {
    .model_type = "olmoe",
    .parse = olmoe_parse,
    .keys = keys,
    .names = names,
    .stored = fused,
    .stored_is_optional = true,
    .ignored = ignored,
};
