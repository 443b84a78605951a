/* ModuleFormer / MoLM (arXiv 2306.04640 and the released code): stick-breaking attention with attention experts over
 * shared keys and values, LayerNorm, no positions, tanh-GELU experts of two matrices, gates not renormalised.
 *
 * Several defaults of the configuration class differ from every released model, so shapes have none here. The class
 * reads layer_norm_epsilon and never uses it: 1e-5 always. block_size and history_length bound nothing at inference. */
#include "model/config_keys.h"
#include "model/family/family.h"

#include <jansson.h>
#include <string.h>

#define DEFAULT_EOS     50256
#define DEFAULT_CONTEXT 4096
#define MAX_LABELS      65536

#define LAYER          "transformer.h.{l}."
#define ATTENTION      LAYER "attn."
#define ATTENTION_GATE ATTENTION "q_proj.gate."
#define MLP_GATE       LAYER "mlpf.gate."

static const char *const names[MODEL_N_ROLES] = {
    [MODEL_ROLE_EMBED] = "transformer.wte.weight",
    [MODEL_ROLE_FINAL_NORM] = "transformer.ln_f.weight",
    [MODEL_ROLE_FINAL_NORM_BIAS] = "transformer.ln_f.bias",
    [MODEL_ROLE_HEAD] = "lm_head.weight",
    [MODEL_ROLE_INPUT_NORM] = LAYER "ln_1.weight",
    [MODEL_ROLE_INPUT_NORM_BIAS] = LAYER "ln_1.bias",
    [MODEL_ROLE_K] = ATTENTION "k_proj.weight",
    [MODEL_ROLE_K_BIAS] = ATTENTION "k_proj.bias",
    [MODEL_ROLE_V] = ATTENTION "v_proj.weight",
    [MODEL_ROLE_V_BIAS] = ATTENTION "v_proj.bias",
    [MODEL_ROLE_ATTENTION_GATE_INNER] = ATTENTION_GATE "w_gate.0.weight",
    [MODEL_ROLE_ATTENTION_GATE_BIAS] = ATTENTION_GATE "w_gate.0.bias",
    [MODEL_ROLE_ATTENTION_GATE] = ATTENTION_GATE "w_gate.3.weight",
    [MODEL_ROLE_ATTENTION_TEMPERATURE] = ATTENTION_GATE "temperature",
    [MODEL_ROLE_POST_NORM] = LAYER "ln_2.weight",
    [MODEL_ROLE_POST_NORM_BIAS] = LAYER "ln_2.bias",
    [MODEL_ROLE_GATE_INNER] = MLP_GATE "w_gate.0.weight",
    [MODEL_ROLE_GATE_BIAS] = MLP_GATE "w_gate.0.bias",
    [MODEL_ROLE_GATE] = MLP_GATE "w_gate.3.weight",
    [MODEL_ROLE_TEMPERATURE] = MLP_GATE "temperature",
    [MODEL_ROLE_ATTENTION_EXPERT_Q] = ATTENTION "q_proj.experts.{e}.weight",
    [MODEL_ROLE_ATTENTION_EXPERT_O] = ATTENTION "q_proj.output_experts.{e}.weight",
    [MODEL_ROLE_EXPERT_UP] = LAYER "mlpf.experts.{e}.weight",
    [MODEL_ROLE_EXPERT_DOWN] = LAYER "mlpf.output_experts.{e}.weight",
};

/* The files hold all experts of a layer in one tensor, [expert][in][out]. */
static const model_stored stored[MODEL_N_ROLES] = {
    [MODEL_ROLE_ATTENTION_EXPERT_Q] = {ATTENTION "q_proj.experts.weight", 0, 1},
    [MODEL_ROLE_ATTENTION_EXPERT_O] = {ATTENTION "q_proj.output_experts.weight", 0, 1},
    [MODEL_ROLE_EXPERT_UP] = {LAYER "mlpf.experts.weight", 0, 1},
    [MODEL_ROLE_EXPERT_DOWN] = {LAYER "mlpf.output_experts.weight", 0, 1},
};

static const char *const keys[] = {"vocab_size",
                                   "n_embd",
                                   "hidden_size",
                                   "n_layer",
                                   "num_hidden_layers",
                                   "n_head",
                                   "num_attention_heads",
                                   "att_hidden",
                                   "n_att_experts",
                                   "k_att",
                                   "ffd_hidden",
                                   "n_mlp_experts",
                                   "k_mlp",
                                   "gating_size",
                                   "gate_type",
                                   "activation_function",
                                   "att_func",
                                   "moe_type",
                                   "pre_norm",
                                   "universal",
                                   "num_labels",
                                   "layer_norm_epsilon",
                                   "block_size",
                                   "history_length",
                                   "n_ctx",
                                   "sample_topk",
                                   "resid_pdrop",
                                   "embd_pdrop",
                                   "attn_pdrop",
                                   "moe_pdrop",
                                   "aux_loss_type",
                                   "aux_loss_weight",
                                   "local_size",
                                   "world_size",
                                   NULL};

/* Buffers that only training used. */
static const char *const ignored[] = {".attn.mask", ".attn.cum_weight", NULL};

/* What the other gate types, and the classifier, call differently. */
static const char *other_name(const model_config *c, model_role role)
{
    bool linear = c->gate_kind == MODEL_GATE_LINEAR, centroids = c->gate_kind == MODEL_GATE_CENTROIDS;

    switch (role) {
    case MODEL_ROLE_ATTENTION_GATE_INNER:
        return centroids ? ATTENTION_GATE "w_gate.weight" : NULL;
    case MODEL_ROLE_ATTENTION_GATE:
        return linear ? ATTENTION_GATE "w_gate.0.weight" : centroids ? ATTENTION_GATE "expert_centroids" : NULL;
    case MODEL_ROLE_GATE_INNER:
        return centroids ? MLP_GATE "w_gate.weight" : NULL;
    case MODEL_ROLE_GATE:
        return linear ? MLP_GATE "w_gate.0.weight" : centroids ? MLP_GATE "expert_centroids" : NULL;
    case MODEL_ROLE_HEAD:
        return c->n_labels > 0 ? "score.weight" : NULL;
    default:
        return NULL;
    }
}

/* A required shape, under its own name or the alias that the class maps to it. */
static moe_status need(const moe_json *json, const char *key, const char *alias, uint32_t max, uint32_t *out,
                       moe_error *err)
{
    bool use_alias = alias != NULL && json_object_get(json, key) == NULL && json_object_get(json, alias) != NULL;

    return model_config_need_u32(json, use_alias ? alias : key, 1, max, out, err);
}

static moe_status parse_shapes(const moe_json *json, model_config *c, moe_error *err)
{
    struct {
        const char *key, *alias;
        uint32_t max, *out;
    } const rows[] = {{"vocab_size", NULL, MODEL_MAX_VOCAB, &c->vocab_size},
                      {"n_embd", "hidden_size", MODEL_MAX_WIDTH, &c->d_model},
                      {"n_layer", "num_hidden_layers", MODEL_MAX_LAYERS, &c->n_layers},
                      {"n_head", "num_attention_heads", MODEL_MAX_WIDTH, &c->n_heads},
                      {"n_att_experts", NULL, MODEL_MAX_EXPERTS, &c->n_att_experts},
                      {"k_att", NULL, ROUTER_MAX_TOP_K, &c->att_gate.k},
                      {"ffd_hidden", NULL, MODEL_MAX_WIDTH, &c->d_ff},
                      {"n_mlp_experts", NULL, MODEL_MAX_EXPERTS, &c->n_experts},
                      {"k_mlp", NULL, ROUTER_MAX_TOP_K, &c->gate.k},
                      {"gating_size", NULL, MODEL_MAX_WIDTH, &c->gate_width}};
    moe_status status = MOE_OK;

    for (size_t i = 0; i < MOE_COUNT(rows) && status == MOE_OK; i++) {
        status = need(json, rows[i].key, rows[i].alias, rows[i].max, rows[i].out, err);
    }
    c->n_ffn_experts = c->n_experts;
    if (status == MOE_OK && c->gate.k > c->n_experts) {
        status =
            moe_fail(err, MOE_ERR_INVALID_ARG, "k_mlp: %u must be at most n_mlp_experts %u", c->gate.k, c->n_experts);
    }
    if (status == MOE_OK && c->att_gate.k > c->n_att_experts) {
        status = moe_fail(err, MOE_ERR_INVALID_ARG, "k_att: %u must be at most n_att_experts %u", c->att_gate.k,
                          c->n_att_experts);
    }
    return status;
}

/* Whether there are projections follows from the shapes, as in the class, not from the file. */
static moe_status parse_heads(const moe_json *json, model_config *c, moe_error *err)
{
    uint32_t width;
    moe_status status = model_config_need_u32(json, "att_hidden", 1, MODEL_MAX_WIDTH, &width, err);

    if (status != MOE_OK) {
        return status;
    }
    if (width % c->n_heads != 0) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "n_head: %u must divide att_hidden %u", c->n_heads, width);
    }
    c->n_kv_heads = c->n_heads;
    c->head_dim = width / c->n_heads;
    c->shared_kv = width == c->d_model && c->n_heads == 1;
    c->kv_bias = !c->shared_kv;
    return MOE_OK;
}

static moe_status parse_gate(const moe_json *json, model_config *c, moe_error *err)
{
    static const char *const kinds[] = {
        [MODEL_GATE_LINEAR] = "linear", [MODEL_GATE_GELU] = "mlp", [MODEL_GATE_CENTROIDS] = "gmm"};
    const char *name = "mlp";
    moe_status status = moe_json_string(json, "gate_type", &name, NULL, err);

    if (status != MOE_OK) {
        return status;
    }
    for (size_t i = 0; i < MOE_COUNT(kinds); i++) {
        if (kinds[i] != NULL && strcmp(name, kinds[i]) == 0) {
            c->gate_kind = (model_gate)i;
            c->gate_width = c->gate_kind == MODEL_GATE_LINEAR ? 0 : c->gate_width;
            return MOE_OK;
        }
    }
    return moe_fail(err, MOE_ERR_UNSUPPORTED,
                    "gate_type: \"%.64s\" is not supported, only \"mlp\", \"linear\" and \"gmm\"", name);
}

/* Keys that the class ignores. Another value was meant to be another model. */
static moe_status refuse_others(const moe_json *json, model_config *c, moe_error *err)
{
    static const struct {
        const char *key, *wanted;
    } texts[] = {{"att_func", "stickbreaking"}, {"moe_type", "moe"}, {"activation_function", "gelu_new"}};
    bool pre_norm = true, universal = false;
    moe_status status = MOE_OK;

    (void)c;
    for (size_t i = 0; i < MOE_COUNT(texts) && status == MOE_OK; i++) {
        const char *is = texts[i].wanted;
        status = moe_json_string(json, texts[i].key, &is, NULL, err);
        if (status == MOE_OK && strcmp(is, texts[i].wanted) != 0) {
            status = moe_fail(err, MOE_ERR_UNSUPPORTED, "%s: \"%.64s\" is not supported, only \"%s\"", texts[i].key, is,
                              texts[i].wanted);
        }
    }
    if (status == MOE_OK) {
        status = moe_json_bool(json, "pre_norm", &pre_norm, NULL, err);
    }
    if (status == MOE_OK) {
        status = moe_json_bool(json, "universal", &universal, NULL, err);
    }
    if (status == MOE_OK && !pre_norm) {
        status = moe_fail(err, MOE_ERR_UNSUPPORTED, "pre_norm: false is not supported, only true");
    }
    if (status == MOE_OK && universal) {
        status = moe_fail(err, MOE_ERR_UNSUPPORTED, "universal: true is not supported, only false");
    }
    return status;
}

/* Saved configs leave num_labels out and list the labels instead, and the list counts; without either there are two. */
static moe_status parse_labels(const moe_json *json, model_config *c, moe_error *err)
{
    const char *class = json_string_value(json_array_get(json_object_get(json, "architectures"), 0));
    const json_t *named = json_object_get(json, "id2label");
    size_t n_named = json_object_size(named);
    moe_status status;

    if (class == NULL || strcmp(class, "ModuleFormerForSequenceClassification") != 0) {
        return MOE_OK;
    }
    if (named != NULL && !json_is_null(named) && !json_is_object(named)) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "id2label: must be an object");
    }
    if (n_named > MAX_LABELS) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "id2label: %zu labels, at most %d", n_named, MAX_LABELS);
    }
    c->n_labels = 2;
    status = model_config_u32(json, "num_labels", 1, MAX_LABELS, &c->n_labels, err);
    c->n_labels = n_named > 0 ? (uint32_t)n_named : c->n_labels;
    return status;
}

static moe_status parse_tokens(const moe_json *json, model_config *c, moe_error *err)
{
    if (c->vocab_size > DEFAULT_EOS) { /* else it could never be chosen */
        c->bos_id = DEFAULT_EOS;
        c->eos_ids[0] = DEFAULT_EOS;
        c->n_eos = 1;
    }
    return model_config_tokens(json, c, err);
}

static moe_status parse_tied(const moe_json *json, model_config *c, moe_error *err)
{
    moe_status status = moe_json_bool(json, "tie_word_embeddings", &c->tied_head, NULL, err);

    c->tied_head &= c->n_labels == 0;
    return status;
}

static moe_status moduleformer_parse(const moe_json *json, model_config *c, moe_error *err)
{
    static const model_config_part parts[] = {parse_shapes, parse_heads,  parse_gate, refuse_others,
                                              parse_labels, parse_tokens, parse_tied};

    c->ffn = COMPUTE_FFN_GELU_TANH;
    c->attention = MODEL_ATTENTION_STICK_BREAKING;
    c->no_positions = true;
    c->max_positions = DEFAULT_CONTEXT;
    c->norm = MODEL_NORM_LAYER;
    c->norm_eps = 1e-5f;
    return model_config_parts(parts, MOE_COUNT(parts), json, c, err);
}

const model_family model_family_moduleformer = {
    .model_type = "moduleformer",
    .parse = moduleformer_parse,
    .keys = keys,
    .classifies = true,
    .names = names,
    .other_name = other_name,
    .stored = stored,
    .input_major = 1ull << MODEL_ROLE_ATTENTION_EXPERT_Q | 1ull << MODEL_ROLE_ATTENTION_EXPERT_O |
                   1ull << MODEL_ROLE_EXPERT_UP | 1ull << MODEL_ROLE_EXPERT_DOWN,
    .ignored = ignored,
};
