/* MoE++ (arXiv 2410.07348; where paper and released code differ, the code): a LLaMA-style decoder whose layers also
 * have zero, copy and constant experts, and whose router adds the logits of the layer before through a matrix. Top-2
 * always. */
#include "model/config_keys.h"
#include "model/family/family.h"

#include <jansson.h>
#include <string.h>

#define TOP_K            2
#define DEFAULT_CONSTANT 2 /* moe_num_constant is ours: the paper's largest model has six, the class knows two */
#define GATE_WIDTH       8 /* times the number of experts: the inside of a gate of two layers */

#define MOE    MODEL_LLAMA_LAYER "mlp.moe."
#define EXPERT MOE "experts.experts.{e}."

static const char *const names[MODEL_N_ROLES] = {
    MODEL_LLAMA_NAMES,
    [MODEL_ROLE_GATE_INNER] = MOE "gate.wg.0.weight",
    [MODEL_ROLE_GATE] = MOE "gate.wg.weight",
    [MODEL_ROLE_GATE_MAP] = MOE "gate.gate_map.weight",
    [MODEL_ROLE_CONSTANT] = EXPERT "constant",
    [MODEL_ROLE_CONSTANT_GATE] = EXPERT "wg.weight",
    [MODEL_ROLE_EXPERT_GATE] = EXPERT "gate_proj.weight",
    [MODEL_ROLE_EXPERT_UP] = EXPERT "up_proj.weight",
    [MODEL_ROLE_EXPERT_DOWN] = EXPERT "down_proj.weight",
};

/* up_proj holds the rows of the SiLU branch, then those of the linear one. */
static const model_stored stored[MODEL_N_ROLES] = {
    [MODEL_ROLE_EXPERT_GATE] = {EXPERT "up_proj.weight", 0, 2},
    [MODEL_ROLE_EXPERT_UP] = {EXPERT "up_proj.weight", 1, 2},
};

static const char *const keys[] = {
    MODEL_LLAMA_KEYS,      "num_experts",       "moe_expert_interval",     "moe_use_mixtral_gating", "moe_2layer_gate",
    "moe_use_logits_norm", "moe_gate_norm_std", "moe_feature_no_mul_topk", "moe_num_constant",       NULL};

/* The first layer has a gate map that nothing uses. */
static const char *const ignored[] = {MODEL_LLAMA_IGNORED, "layers.0.mlp.moe.gate.gate_map.weight", NULL};

static const char *other_name(const model_config *c, model_role role)
{
    return role == MODEL_ROLE_GATE && c->gate_kind == MODEL_GATE_TANH ? MOE "gate.wg.2.weight" : NULL;
}

/* num_experts is a list, of which the class uses the first. */
static moe_status parse_experts(const moe_json *json, model_config *c, moe_error *err)
{
    const json_t *value = json_object_get(json, "num_experts");
    const json_t *n = json_is_array(value) ? json_array_get(value, 0) : value;
    uint32_t least;

    c->n_constant_experts = DEFAULT_CONSTANT;
    c->n_experts = 32;
    if (value != NULL) {
        if (!json_is_integer(n) || json_integer_value(n) < 1 || json_integer_value(n) > MODEL_MAX_EXPERTS) {
            return moe_fail(err, MOE_ERR_INVALID_ARG,
                            "num_experts: must be a list that begins with an integer within [1, %d]",
                            MODEL_MAX_EXPERTS);
        }
        c->n_experts = (uint32_t)json_integer_value(n);
    }
    if (model_config_u32(json, "moe_num_constant", 0, MODEL_MAX_EXPERTS, &c->n_constant_experts, err) != MOE_OK) {
        return MOE_ERR_INVALID_ARG;
    }
    least = c->n_constant_experts + 3; /* one FFN, copy, zero */
    if (c->n_experts < least) {
        return moe_fail(err, MOE_ERR_INVALID_ARG,
                        "num_experts: %u must be at least %u: one FFN, %u constant, a copy and a zero expert",
                        c->n_experts, least, c->n_constant_experts);
    }
    c->n_copy_experts = 1;
    c->n_zero_experts = 1;
    c->n_ffn_experts = c->n_experts - c->n_constant_experts - 2;
    return MOE_OK;
}

static moe_status parse_gate(const moe_json *json, model_config *c, moe_error *err)
{
    bool mixtral = false, two_layers = true, as_is = false;
    uint32_t interval = 1;
    moe_status status = model_config_u32(json, "moe_expert_interval", 0, INT32_MAX, &interval, err);

    c->gate = (router_gate_rule){.k = TOP_K, .target_std = 1.0f};
    if (status == MOE_OK && interval != 1) {
        status = moe_fail(err, MOE_ERR_UNSUPPORTED, "moe_expert_interval: %u is not supported, only 1", interval);
    }
    if (status == MOE_OK) {
        status = moe_json_bool(json, "moe_use_mixtral_gating", &mixtral, NULL, err);
    }
    if (status == MOE_OK) {
        status = moe_json_bool(json, "moe_2layer_gate", &two_layers, NULL, err);
    }
    if (status == MOE_OK) {
        status = moe_json_bool(json, "moe_use_logits_norm", &c->gate.standardize, NULL, err);
    }
    if (status == MOE_OK) {
        status = model_config_positive(json, "moe_gate_norm_std", 1e30, &c->gate.target_std, NULL, err);
    }
    if (status == MOE_OK) {
        status = moe_json_bool(json, "moe_feature_no_mul_topk", &as_is, NULL, err);
    }
    c->gate.choose_first = mixtral;
    c->gate.renormalize = !mixtral;
    c->gate.has_zero = true;
    c->gate.zero_expert = (int32_t)c->n_experts - 1;
    c->gate_kind = two_layers ? MODEL_GATE_TANH : MODEL_GATE_LINEAR;
    c->gate_width = two_layers ? GATE_WIDTH * c->n_experts : 0;
    c->gate_map = true;
    c->double_input = !mixtral && !as_is;
    return status;
}

/* NULL or an object of exactly type and factor. "dynamic" depends on what the process has seen before, so that one
 * request would change another: refused. */
static moe_status parse_rope(const moe_json *json, model_config *c, moe_error *err)
{
    const json_t *scaling = json_object_get(json, "rope_scaling");
    const char *type = NULL;
    double factor = 0.0;
    moe_status status = moe_json_real(json, "rope_theta", 1.0, 1e15, &c->rope.theta, NULL, err);

    if (status != MOE_OK || model_rope_is_plain(scaling)) {
        return status;
    }
    if (!json_is_object(scaling) || json_object_size(scaling) != 2) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "rope_scaling: must be null or an object of type and factor");
    }
    status = moe_json_string(scaling, "type", &type, NULL, err);
    if (status == MOE_OK) {
        status = moe_json_real(scaling, "factor", 0.0, 1e6, &factor, NULL, err);
    }
    if (status != MOE_OK) {
        return status;
    }
    if (!(factor > 1.0)) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "rope_scaling.factor: %g must be more than 1", factor);
    }
    if (type != NULL && strcmp(type, "linear") == 0) {
        c->rope.position_scale = 1.0 / factor;
        return MOE_OK;
    }
    if (type != NULL && strcmp(type, "ntk") == 0) {
        c->rope.theta *= factor;
        return MOE_OK;
    }
    return moe_fail(err, MOE_ERR_UNSUPPORTED,
                    "rope_scaling.type: \"%.64s\" is not supported, only \"linear\" and \"ntk\"",
                    type == NULL ? "" : type);
}

static void set_defaults(model_config *c)
{
    c->vocab_size = 32000;
    c->d_model = 4096;
    c->d_ff = 11008;
    c->n_layers = 32;
    c->n_heads = 32;
    c->max_positions = 2048;
    c->norm_eps = 1e-6f;
    c->rope.theta = 10000.0;
    c->bos_id = 1;
    c->eos_ids[0] = 2;
    c->n_eos = 1;
    c->ffn = COMPUTE_FFN_SWIGLU;
}

static moe_status moe_plus_plus_parse(const moe_json *json, model_config *c, moe_error *err)
{
    static const model_config_part parts[] = {model_config_widths,
                                              model_config_attention,
                                              parse_experts,
                                              parse_gate,
                                              parse_rope,
                                              model_config_any_window,
                                              model_config_plain_heads,
                                              model_config_d_ff,
                                              model_config_norm_and_head,
                                              model_config_tokens};
    moe_status status;

    set_defaults(c);
    status = model_config_parts(parts, MOE_COUNT(parts), json, c, err);
    c->attention_bias = false; /* the class has none, whatever the key says */
    return status;
}

const model_family model_family_moe_plus_plus = {
    .model_type = "MoE++",
    .parse = moe_plus_plus_parse,
    .keys = keys,
    .names = names,
    .other_name = other_name,
    .stored = stored,
    .ignored = ignored,
};
