/* One table per family: what its config.json says, which tensors it has and what they are called. A new family is one
 * file here and one line in config.c. */
#ifndef CONCLAVE_MODEL_FAMILY_PRIV_H
#define CONCLAVE_MODEL_FAMILY_PRIV_H

#include "model/model.h"

/* What a tensor is for. Global ones first, then those of a layer, then those of an expert. */
typedef enum {
    MODEL_ROLE_EMBED,
    MODEL_ROLE_FINAL_NORM,
    MODEL_ROLE_HEAD,
    MODEL_ROLE_INPUT_NORM,
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
    MODEL_ROLE_POST_NORM,
    MODEL_ROLE_ROUTER,
    MODEL_ROLE_EXPERT_GATE,
    MODEL_ROLE_EXPERT_UP,
    MODEL_ROLE_EXPERT_DOWN,
    MODEL_N_ROLES
} model_role;

#define MODEL_FIRST_LAYER_ROLE  MODEL_ROLE_INPUT_NORM
#define MODEL_FIRST_EXPERT_ROLE MODEL_ROLE_EXPERT_GATE

/* Experts of a layer stored as two tensors without an expert number in the name: gate_up [n_experts, 2 * d_ff, d_model]
 * (rows of gate, then of up) and down [n_experts, d_model, d_ff]. */
typedef enum { MODEL_FUSED_GATE_UP, MODEL_FUSED_DOWN, MODEL_N_FUSED } model_fused;

typedef enum { MODEL_QK_NORM_NONE, MODEL_QK_NORM_FULL, MODEL_QK_NORM_PER_HEAD } model_qk_norm;

typedef struct model_tensor_shape {
    size_t rank;
    size_t dims[3];
} model_tensor_shape;

struct model_family {
    const char *model_type; /* of config.json */
    model_qk_norm qk_norm;
    /* Fills what the family knows (config_priv.h has the keys that many share). Bounds that hold for all are checked
     * after it. */
    moe_status (*parse)(const moe_json *json, model_config *c, moe_error *err);
    /* The checkpoint's name of a tensor, and of a fused one (NULL when the family has no fused layout). layer and
     * expert are ignored by roles that have none. */
    void (*tensor_name)(model_role role, uint32_t layer, uint32_t expert, char name[CHECKPOINT_MAX_NAME]);
    void (*fused_name)(model_fused part, uint32_t layer, char name[CHECKPOINT_MAX_NAME]);
    /* False when a checkpoint with this config has no tensor of this role. */
    bool (*tensor_shape)(const model_config *c, model_role role, model_tensor_shape *out);
    /* Tensors that may be there and are not used. */
    bool (*ignores)(const char *name);
};

extern const model_family model_family_olmoe;

/* The shapes of the common decoder: what most families' tensor_shape answers. */
bool model_common_tensor_shape(const model_config *c, model_role role, model_tensor_shape *out);

/* Replaces {l} and {e} in a family's name pattern by numbers. */
void model_format_name(const char *pattern, uint32_t layer, uint32_t expert, char name[CHECKPOINT_MAX_NAME]);

/* The logical tensor of a role; NULL when this config has none. */
const checkpoint_logical *model_tensors_role(const model_tensors *t, model_role role, uint32_t layer, uint32_t expert);

#endif
