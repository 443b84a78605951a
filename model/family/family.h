/* A family is a room: one file here, declared below and listed in config.c and CMakeLists.txt. It says how its
 * config.json reads and what its tensors are called; which tensors there are, and of what shape, follows from the
 * features that parse has put into the model_config. docs/families.md tells how to add one. */
#ifndef CONCLAVE_MODEL_FAMILY_H
#define CONCLAVE_MODEL_FAMILY_H

#include "model/model.h"

/* What a tensor is for: global ones, those of a layer, those of an attention expert, of a constant expert, of an FFN
 * expert. */
typedef enum {
    MODEL_ROLE_EMBED,
    MODEL_ROLE_FINAL_NORM,
    MODEL_ROLE_FINAL_NORM_BIAS,
    MODEL_ROLE_HEAD, /* of words, or of labels */

    MODEL_ROLE_INPUT_NORM,
    MODEL_ROLE_INPUT_NORM_BIAS,
    MODEL_ROLE_Q,
    MODEL_ROLE_K,
    MODEL_ROLE_V,
    MODEL_ROLE_O,
    MODEL_ROLE_Q_BIAS,
    MODEL_ROLE_K_BIAS,
    MODEL_ROLE_V_BIAS,
    MODEL_ROLE_O_BIAS,
    MODEL_ROLE_Q_NORM,
    MODEL_ROLE_K_NORM,
    MODEL_ROLE_ATTENTION_GATE_INNER, /* first layer of a gate of two */
    MODEL_ROLE_ATTENTION_GATE_BIAS,
    MODEL_ROLE_ATTENTION_GATE, /* [n_att_experts, ...] */
    MODEL_ROLE_ATTENTION_TEMPERATURE,
    MODEL_ROLE_POST_NORM,
    MODEL_ROLE_POST_NORM_BIAS,
    MODEL_ROLE_GATE_INNER,
    MODEL_ROLE_GATE_BIAS,
    MODEL_ROLE_GATE, /* [n_experts, ...] */
    MODEL_ROLE_TEMPERATURE,
    MODEL_ROLE_GATE_MAP, /* [n_experts, n_experts]: the logits of the layer before */

    MODEL_ROLE_ATTENTION_EXPERT_Q,
    MODEL_ROLE_ATTENTION_EXPERT_O,

    MODEL_ROLE_CONSTANT, /* the vector */
    MODEL_ROLE_CONSTANT_GATE,

    MODEL_ROLE_EXPERT_GATE,
    MODEL_ROLE_EXPERT_UP,
    MODEL_ROLE_EXPERT_DOWN,
    MODEL_N_ROLES
} model_role;

#define MODEL_FIRST_LAYER_ROLE            MODEL_ROLE_INPUT_NORM
#define MODEL_FIRST_ATTENTION_EXPERT_ROLE MODEL_ROLE_ATTENTION_EXPERT_Q
#define MODEL_FIRST_CONSTANT_ROLE         MODEL_ROLE_CONSTANT
#define MODEL_FIRST_EXPERT_ROLE           MODEL_ROLE_EXPERT_GATE

typedef struct model_tensor_shape {
    size_t rank;
    size_t dims[3];
} model_tensor_shape;

/* Where the tensors of a role lie when they have no file tensor of their own. */
typedef struct model_stored {
    const char *pattern; /* NULL: the role's own name */
    uint32_t part, of;   /* the part-th of `of` equal parts of an expert's rows (gate and up in one) */
} model_stored;

/* Patterns: {l} is the layer, {e} the expert. A stored pattern without {e} holds all experts of the layer:
 * [n_experts, of * rows, columns]. */
struct model_family {
    const char *model_type; /* of config.json */
    /* Fills what the family knows (config_keys.h has the keys that many share). Bounds that hold for all are checked
     * after it. */
    moe_status (*parse)(const moe_json *json, model_config *c, moe_error *err);
    const char *const *keys; /* of config.json that parse reads; NULL ends the list */
    bool classifies;         /* has a head for ...ForSequenceClassification */
    /* [MODEL_N_ROLES]: a tensor's file name, and its name in the manifest whatever the layout of the file. */
    const char *const *names;
    /* The name where a config makes it another one; NULL: none. The function itself may be NULL. */
    const char *(*other_name)(const model_config *c, model_role role);
    const model_stored *stored; /* [MODEL_N_ROLES]; NULL: every tensor is there under its own name */
    bool stored_is_optional;    /* a layer may have its tensors under their own names as well */
    uint64_t input_major;       /* bit per role: matrices stored [n_in, n_out] */
    const char *const *ignored; /* ends of names of tensors that may be there and are not used; NULL ends the list */
};

/* The names that decoders written by transformers share, by role; a family adds its gate and its experts. */
#define MODEL_LLAMA_LAYER "model.layers.{l}."
#define MODEL_LLAMA_NAMES                                                                                              \
    [MODEL_ROLE_EMBED] = "model.embed_tokens.weight", [MODEL_ROLE_FINAL_NORM] = "model.norm.weight",                   \
    [MODEL_ROLE_HEAD] = "lm_head.weight", [MODEL_ROLE_INPUT_NORM] = MODEL_LLAMA_LAYER "input_layernorm.weight",        \
    [MODEL_ROLE_Q] = MODEL_LLAMA_LAYER "self_attn.q_proj.weight",                                                      \
    [MODEL_ROLE_K] = MODEL_LLAMA_LAYER "self_attn.k_proj.weight",                                                      \
    [MODEL_ROLE_V] = MODEL_LLAMA_LAYER "self_attn.v_proj.weight",                                                      \
    [MODEL_ROLE_O] = MODEL_LLAMA_LAYER "self_attn.o_proj.weight",                                                      \
    [MODEL_ROLE_Q_BIAS] = MODEL_LLAMA_LAYER "self_attn.q_proj.bias",                                                   \
    [MODEL_ROLE_K_BIAS] = MODEL_LLAMA_LAYER "self_attn.k_proj.bias",                                                   \
    [MODEL_ROLE_V_BIAS] = MODEL_LLAMA_LAYER "self_attn.v_proj.bias",                                                   \
    [MODEL_ROLE_O_BIAS] = MODEL_LLAMA_LAYER "self_attn.o_proj.bias",                                                   \
    [MODEL_ROLE_Q_NORM] = MODEL_LLAMA_LAYER "self_attn.q_norm.weight",                                                 \
    [MODEL_ROLE_K_NORM] = MODEL_LLAMA_LAYER "self_attn.k_norm.weight",                                                 \
    [MODEL_ROLE_POST_NORM] = MODEL_LLAMA_LAYER "post_attention_layernorm.weight"
/* Old conversion scripts saved the rotary frequencies of each layer. */
#define MODEL_LLAMA_IGNORED ".self_attn.rotary_emb.inv_freq"

/* The keys that decoders of transformers share. */
#define MODEL_LLAMA_KEYS                                                                                               \
    "vocab_size", "hidden_size", "num_hidden_layers", "max_position_embeddings", "num_attention_heads",                \
        "num_key_value_heads", "head_dim", "attention_bias", "rope_theta", "rope_scaling", "rope_parameters",          \
        "hidden_act", "intermediate_size", "rms_norm_eps"

extern const model_family model_family_olmoe, model_family_mixtral, model_family_qwen3_moe, model_family_moduleformer,
    model_family_moe_plus_plus;

/* The shape, as stored, of a role's tensor in a layer; false when this config has none. */
bool model_tensor_shape_of(const model_config *c, model_role role, uint32_t layer, model_tensor_shape *out);
/* Experts first .. first + n - 1 have a tensor of this role; a role that belongs to none has n == 1. */
uint32_t model_role_experts(const model_config *c, model_role role, uint32_t *first_out);

/* A role's name pattern under this config. */
const char *model_role_pattern(const model_config *c, model_role role);
/* Replaces {l} and {e} in a name pattern by numbers. */
void model_format_name(const char *pattern, uint32_t layer, uint32_t expert, char name[CHECKPOINT_MAX_NAME]);
/* The manifest's name of a tensor. layer and expert are ignored by roles that have none. */
void model_tensor_name(const model_config *c, model_role role, uint32_t layer, uint32_t expert,
                       char name[CHECKPOINT_MAX_NAME]);

/* The logical tensor of a role; NULL when this config has none. */
const checkpoint_logical *model_tensors_role(const model_tensors *t, model_role role, uint32_t layer, uint32_t expert);
/* A matrix for the device, in the order that the family stores it. */
compute_weight model_tensors_weight(const model_config *c, model_role role, const checkpoint_logical *t);

#endif
