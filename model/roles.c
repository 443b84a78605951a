/* What a role's tensors are called under a config, of what shape they are, and which experts have one. */
#include "model/family/family.h"

#include <inttypes.h>

/* ------------------------------------------------------------------------------------------------ names */
void model_format_name(const char *pattern, uint32_t layer, uint32_t expert, char name[CHECKPOINT_MAX_NAME])
{
    size_t n = 0;

    while (*pattern != '\0' && n < CHECKPOINT_MAX_NAME - 1) {
        if (pattern[0] == '{') {
            n += (size_t)snprintf(name + n, CHECKPOINT_MAX_NAME - n, "%" PRIu32, pattern[1] == 'l' ? layer : expert);
            pattern += 3;
        } else {
            name[n++] = *pattern++;
        }
    }
    MOE_ASSERT(n < CHECKPOINT_MAX_NAME);
    name[n] = '\0';
}

const char *model_role_pattern(const model_config *c, model_role role)
{
    const char *other = c->family->other_name == NULL ? NULL : c->family->other_name(c, role);

    return other == NULL ? c->family->names[role] : other;
}

void model_tensor_name(const model_config *c, model_role role, uint32_t layer, uint32_t expert,
                       char name[CHECKPOINT_MAX_NAME])
{
    model_format_name(model_role_pattern(c, role), layer, expert, name);
}

static bool is_input_major(const model_config *c, model_role role)
{
    return (c->family->input_major >> role & 1) != 0;
}

/* ------------------------------------------------------------------------------------------------ shapes */
static bool matrix(model_tensor_shape *out, size_t n_out, size_t n_in)
{
    *out = (model_tensor_shape){.rank = 2, .dims = {n_out, n_in}};
    return true;
}

static bool vector(model_tensor_shape *out, size_t n)
{
    *out = (model_tensor_shape){.rank = 1, .dims = {n}};
    return true;
}

static bool norm_shape(const model_config *c, model_role role, model_tensor_shape *out)
{
    bool is_bias =
        role == MODEL_ROLE_FINAL_NORM_BIAS || role == MODEL_ROLE_INPUT_NORM_BIAS || role == MODEL_ROLE_POST_NORM_BIAS;

    return (!is_bias || c->norm == MODEL_NORM_LAYER) && vector(out, c->d_model);
}

static bool attention_shape(const model_config *c, model_role role, model_tensor_shape *out)
{
    size_t d_q = (size_t)c->n_heads * c->head_dim, d_kv = (size_t)c->n_kv_heads * c->head_dim;
    bool per_head = c->qk_norm == MODEL_QK_NORM_PER_HEAD, normed = c->qk_norm != MODEL_QK_NORM_NONE;

    switch (role) {
    case MODEL_ROLE_Q:
        return c->n_att_experts == 0 && matrix(out, d_q, c->d_model);
    case MODEL_ROLE_O:
        return c->n_att_experts == 0 && matrix(out, c->d_model, d_q);
    case MODEL_ROLE_K:
    case MODEL_ROLE_V:
        return !c->shared_kv && matrix(out, d_kv, c->d_model);
    case MODEL_ROLE_Q_BIAS:
        return c->attention_bias && vector(out, d_q);
    case MODEL_ROLE_K_BIAS:
    case MODEL_ROLE_V_BIAS:
        return (c->attention_bias || c->kv_bias) && vector(out, d_kv);
    case MODEL_ROLE_O_BIAS:
        return c->attention_bias && vector(out, c->d_model);
    case MODEL_ROLE_Q_NORM:
        return normed && vector(out, per_head ? c->head_dim : d_q);
    case MODEL_ROLE_K_NORM:
        return normed && vector(out, per_head ? c->head_dim : d_kv);
    case MODEL_ROLE_ATTENTION_EXPERT_Q:
        return c->n_att_experts > 0 && matrix(out, d_q, c->d_model);
    default:
        MOE_ASSERT(role == MODEL_ROLE_ATTENTION_EXPERT_O);
        return c->n_att_experts > 0 && matrix(out, c->d_model, d_q);
    }
}

/* The gate of n experts; part counts from the first of its four roles: inner, bias, gate, temperature. */
static bool gate_shape(const model_config *c, int part, size_t n, model_tensor_shape *out)
{
    bool two_layers = c->gate_kind != MODEL_GATE_LINEAR;

    if (n == 0) {
        return false;
    }
    switch (part) {
    case 0:
        return two_layers && matrix(out, c->gate_width, c->d_model);
    case 1:
        return c->gate_kind == MODEL_GATE_GELU && vector(out, c->gate_width);
    case 2:
        return matrix(out, n, two_layers ? c->gate_width : c->d_model);
    default:
        return c->gate_kind == MODEL_GATE_CENTROIDS && vector(out, 1);
    }
}

static bool expert_shape(const model_config *c, model_role role, model_tensor_shape *out)
{
    switch (role) {
    case MODEL_ROLE_CONSTANT:
        return c->n_constant_experts > 0 && vector(out, c->d_model);
    case MODEL_ROLE_CONSTANT_GATE:
        return c->n_constant_experts > 0 && matrix(out, 2, c->d_model);
    case MODEL_ROLE_EXPERT_GATE:
        return c->ffn == COMPUTE_FFN_SWIGLU && matrix(out, c->d_ff, c->d_model);
    case MODEL_ROLE_EXPERT_UP:
        return matrix(out, c->d_ff, c->d_model);
    default:
        MOE_ASSERT(role == MODEL_ROLE_EXPERT_DOWN);
        return matrix(out, c->d_model, c->d_ff);
    }
}

static bool plain_shape(const model_config *c, model_role role, uint32_t layer, model_tensor_shape *out)
{
    switch (role) {
    case MODEL_ROLE_EMBED:
        return matrix(out, c->vocab_size, c->d_model);
    case MODEL_ROLE_HEAD:
        return !c->tied_head && matrix(out, model_head_width(c), c->d_model);
    case MODEL_ROLE_FINAL_NORM:
    case MODEL_ROLE_FINAL_NORM_BIAS:
    case MODEL_ROLE_INPUT_NORM:
    case MODEL_ROLE_INPUT_NORM_BIAS:
    case MODEL_ROLE_POST_NORM:
    case MODEL_ROLE_POST_NORM_BIAS:
        return norm_shape(c, role, out);
    case MODEL_ROLE_ATTENTION_GATE_INNER:
    case MODEL_ROLE_ATTENTION_GATE_BIAS:
    case MODEL_ROLE_ATTENTION_GATE:
    case MODEL_ROLE_ATTENTION_TEMPERATURE:
        return gate_shape(c, (int)role - MODEL_ROLE_ATTENTION_GATE_INNER, c->n_att_experts, out);
    case MODEL_ROLE_GATE_INNER:
    case MODEL_ROLE_GATE_BIAS:
    case MODEL_ROLE_GATE:
    case MODEL_ROLE_TEMPERATURE:
        return gate_shape(c, (int)role - MODEL_ROLE_GATE_INNER, c->n_experts, out);
    case MODEL_ROLE_GATE_MAP: /* nothing comes before the first layer */
        return c->gate_map && layer > 0 && matrix(out, c->n_experts, c->n_experts);
    default:
        return role >= MODEL_FIRST_CONSTANT_ROLE ? expert_shape(c, role, out) : attention_shape(c, role, out);
    }
}

bool model_tensor_shape_of(const model_config *c, model_role role, uint32_t layer, model_tensor_shape *out)
{
    if (!plain_shape(c, role, layer, out)) {
        return false;
    }
    if (is_input_major(c, role)) {
        *out = (model_tensor_shape){.rank = 2, .dims = {out->dims[1], out->dims[0]}};
    }
    return true;
}

uint32_t model_role_experts(const model_config *c, model_role role, uint32_t *first_out)
{
    *first_out = 0;
    if (role >= MODEL_FIRST_EXPERT_ROLE) {
        return c->n_ffn_experts;
    }
    if (role >= MODEL_FIRST_CONSTANT_ROLE) {
        *first_out = c->n_ffn_experts;
        return c->n_constant_experts;
    }
    return role >= MODEL_FIRST_ATTENTION_EXPERT_ROLE ? c->n_att_experts : 1;
}

compute_weight model_tensors_weight(const model_config *c, model_role role, const checkpoint_logical *t)
{
    bool input_major = is_input_major(c, role);

    return (compute_weight){.data = t->data,
                            .dtype = t->dtype,
                            .n_out = t->shape[input_major ? 1 : 0],
                            .n_in = t->shape[input_major ? 0 : 1],
                            .input_major = input_major};
}
