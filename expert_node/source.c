/* Experts out of a checkpoint. */
#include "expert_node/expert_node.h"

static moe_status checkpoint_open_expert(void *ctx, uint32_t layer, int32_t expert_id, compute_expert **out,
                                         moe_error *err)
{
    const expert_checkpoint *c = ctx;

    return model_expert_open(c->config, c->tensors, c->device, c->layout, layer, expert_id, out, err);
}

expert_source expert_source_checkpoint(expert_checkpoint *c)
{
    return (expert_source){c, checkpoint_open_expert};
}
