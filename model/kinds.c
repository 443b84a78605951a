/* What follows from a config alone: kinds of experts, the width of the head. */
#include "model/model.h"

uint32_t model_head_width(const model_config *c)
{
    return c->n_labels > 0 ? c->n_labels : c->vocab_size;
}

const char *const model_expert_kind_names[MODEL_N_EXPERT_KINDS] = {"ffn", "constant", "copy", "zero"};

bool model_expert_is_local(const model_config *c, int32_t expert_id)
{
    return expert_id >= 0 && (uint32_t)expert_id >= c->n_ffn_experts && (uint32_t)expert_id < c->n_experts;
}

moe_status model_config_space(const model_config *c, router_space **out, moe_error *err)
{
    return router_space_open_base(c->n_layers, c->n_ffn_experts, c->n_experts - c->n_ffn_experts, out, err);
}

model_expert_kind model_expert_kind_of(const model_config *c, int32_t expert_id)
{
    uint32_t place;

    if (!model_expert_is_local(c, expert_id)) {
        return MODEL_EXPERT_FFN;
    }
    place = (uint32_t)expert_id - c->n_ffn_experts;
    return place < c->n_constant_experts                       ? MODEL_EXPERT_CONSTANT
           : place < c->n_constant_experts + c->n_copy_experts ? MODEL_EXPERT_COPY
                                                               : MODEL_EXPERT_ZERO;
}
