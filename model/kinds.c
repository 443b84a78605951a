/* What follows from a config alone: kinds of experts, the width of the head. */
#include "model/model.h"

uint32_t model_head_width(const model_config *c)
{
    return c->n_labels > 0 ? c->n_labels : c->vocab_size;
}

const char *const model_expert_kind_names[MODEL_N_EXPERT_KINDS] = {"ffn", "constant", "copy", "zero"};

model_expert_kind model_expert_kind_of(const model_config *c, int32_t expert_id)
{
    const uint32_t counts[] = {[MODEL_EXPERT_CONSTANT] = c->n_constant_experts,
                               [MODEL_EXPERT_COPY] = c->n_copy_experts,
                               [MODEL_EXPERT_ZERO] = c->n_zero_experts};
    uint32_t end = c->n_experts;

    if (expert_id < 0 || (uint32_t)expert_id >= c->n_experts) {
        return MODEL_EXPERT_FFN;
    }
    for (unsigned kind = MODEL_N_EXPERT_KINDS; --kind > MODEL_EXPERT_FFN;) {
        end -= counts[kind];
        if ((uint32_t)expert_id >= end) {
            return (model_expert_kind)kind;
        }
    }
    return MODEL_EXPERT_FFN;
}

bool model_expert_is_local(const model_config *c, int32_t expert_id)
{
    return model_expert_kind_of(c, expert_id) != MODEL_EXPERT_FFN;
}
