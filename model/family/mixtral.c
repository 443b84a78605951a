/* Mixtral (arXiv 2401.04088): grouped-query attention, no q and k norms, top-k of the softmax always renormalised. */
#include "model/config_keys.h"
#include "model/family/family.h"

#include <jansson.h>

#define EXPERT MODEL_LLAMA_LAYER "block_sparse_moe.experts.{e}."

static const char *const names[MODEL_N_ROLES] = {
    MODEL_LLAMA_NAMES,
    [MODEL_ROLE_GATE] = MODEL_LLAMA_LAYER "block_sparse_moe.gate.weight",
    [MODEL_ROLE_EXPERT_GATE] = EXPERT "w1.weight",
    [MODEL_ROLE_EXPERT_UP] = EXPERT "w3.weight",
    [MODEL_ROLE_EXPERT_DOWN] = EXPERT "w2.weight",
};

static const char *const keys[] = {MODEL_LLAMA_KEYS,      "num_experts",    "num_local_experts",
                                   "num_experts_per_tok", "norm_topk_prob", NULL};

static const char *const ignored[] = {MODEL_LLAMA_IGNORED, NULL};

static void set_defaults(model_config *c)
{
    c->vocab_size = 32000;
    c->d_model = 4096;
    c->n_layers = 32;
    c->n_heads = 32;
    c->n_kv_heads = 8;
    c->d_ff = 14336;
    c->n_experts = 8;
    c->gate = (router_gate_rule){.k = 2, .renormalize = true};
    c->max_positions = 131072; /* 4096 * 32 */
    c->positions_are_a_limit = true;
    c->norm_eps = 1e-5f;
    c->rope.theta = 1e6;
    c->bos_id = 1;
    c->eos_ids[0] = 2;
    c->n_eos = 1;
    c->ffn = COMPUTE_FFN_SWIGLU;
}

/* The class always renormalises. */
static moe_status check_weights(const moe_json *json, model_config *c, moe_error *err)
{
    bool renormalize = true;
    moe_status status = moe_json_bool(json, "norm_topk_prob", &renormalize, NULL, err);

    (void)c;
    return status == MOE_OK && !renormalize
               ? moe_fail(err, MOE_ERR_UNSUPPORTED, "norm_topk_prob: false is not supported, only true")
               : status;
}

static moe_status mixtral_parse(const moe_json *json, model_config *c, moe_error *err)
{
    static const model_config_part parts[] = {model_config_widths,        model_config_attention,  model_config_experts,
                                              model_config_rope,          model_config_d_ff,       model_config_silu,
                                              model_config_norm_and_head, model_config_any_window, check_weights,
                                              model_config_tokens};
    moe_status status;

    set_defaults(c);
    status = model_config_parts(parts, MOE_COUNT(parts), json, c, err);
    c->attention_bias = false; /* the class has none, whatever the key says */
    return status;
}

const model_family model_family_mixtral = {
    .model_type = "mixtral",
    .parse = mixtral_parse,
    .keys = keys,
    .names = names,
    .ignored = ignored,
};
