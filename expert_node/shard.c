/* The experts a node owns. */
#include "expert_node/expert_node_priv.h"

/* NULL: there is no such expert, or it is no node's. */
static node_slot *find_slot(const expert_node *node, uint32_t layer, int32_t expert_id)
{
    uint32_t slot = router_space_slot(node->o.space, layer, expert_id);

    return slot == ROUTER_NO_SLOT || router_space_expert(node->o.space, slot)->is_local ? NULL : &node->slots[slot];
}

bool expert_node_holds(const expert_node *node, uint32_t layer, int32_t expert_id)
{
    const node_slot *slot = find_slot(node, layer, expert_id);

    return slot != NULL && slot->expert != NULL;
}

uint64_t expert_node_expert_rows(const expert_node *node, uint32_t layer, int32_t expert_id)
{
    const node_slot *slot = find_slot(node, layer, expert_id);

    return slot != NULL ? slot->rows : 0;
}

moe_status expert_node_load_begin(expert_node *node, uint32_t layer, int32_t expert_id, moe_error *err)
{
    const expert_node_options *o = &node->o;

    node_slot *slot = find_slot(node, layer, expert_id);

    if (slot == NULL) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "layer %u expert %d: the model has no such expert for nodes", layer,
                        expert_id);
    }
    if (slot->expert != NULL || slot->loading) {
        return moe_fail(err, MOE_ERR_EXISTS, "layer %u expert %d is %s already", layer, expert_id,
                        slot->loading ? "being loaded" : "loaded");
    }
    if (o->memory_bytes != 0 && o->expert_bytes > o->memory_bytes - node->stats.memory_bytes) {
        return moe_fail(err, MOE_ERR_BUSY, "layer %u expert %d: %zu bytes more than the %zu of %zu in use", layer,
                        expert_id, o->expert_bytes, node->stats.memory_bytes, o->memory_bytes);
    }
    slot->loading = true;
    node->stats.memory_bytes += o->expert_bytes;
    return MOE_OK;
}

void expert_node_load_abandon(expert_node *node, uint32_t layer, int32_t expert_id)
{
    node_slot *slot = find_slot(node, layer, expert_id);

    MOE_ASSERT(slot != NULL && slot->loading);
    slot->loading = false;
    node->stats.memory_bytes -= node->o.expert_bytes;
    node->stats.load_failures++;
}

moe_status expert_node_load_finish(expert_node *node, uint32_t layer, int32_t expert_id, compute_expert *expert,
                                   moe_error *err)
{
    node_slot *slot = find_slot(node, layer, expert_id);
    compute_device *device = node->o.device;

    MOE_ASSERT(slot != NULL && slot->loading);
    moe_status status = device->ops->expert_adopt(device, expert);
    if (status != MOE_OK) {
        device->ops->expert_close(device, expert);
        expert_node_load_abandon(node, layer, expert_id);
        return moe_fail(err, status, "layer %u expert %d: %s", layer, expert_id, moe_status_text(status));
    }
    slot->loading = false;
    slot->expert = expert;
    slot->rows = 0;
    node->stats.loads++;
    node->stats.experts++;
    return MOE_OK;
}

moe_status expert_node_load(expert_node *node, uint32_t layer, int32_t expert_id, moe_error *err)
{
    const expert_source *source = &node->o.source;
    compute_expert *expert = NULL;
    moe_status status = expert_node_load_begin(node, layer, expert_id, err);

    if (status != MOE_OK) {
        return status;
    }
    status = source->open(source->ctx, layer, expert_id, &expert, err);
    if (status != MOE_OK) {
        expert_node_load_abandon(node, layer, expert_id);
        return status;
    }
    return expert_node_load_finish(node, layer, expert_id, expert, err);
}

static void slot_close(expert_node *node, node_slot *slot)
{
    node->o.device->ops->expert_close(node->o.device, slot->expert);
    slot->expert = NULL;
    node->stats.experts--;
    node->stats.memory_bytes -= node->o.expert_bytes;
}

void expert_node_drop(expert_node *node, uint32_t layer, int32_t expert_id)
{
    if (expert_node_holds(node, layer, expert_id)) {
        node_batch_run(node);
        slot_close(node, find_slot(node, layer, expert_id));
    }
}

void node_shard_close(expert_node *node)
{
    for (size_t i = 0; node->slots != NULL && i < router_space_n_slots(node->o.space); i++) {
        if (node->slots[i].expert != NULL) {
            slot_close(node, &node->slots[i]);
        }
    }
}
