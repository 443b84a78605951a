/* The experts a node owns, and the history of that for coordinators (docs/wire.md, HOLDS). */
#include "expert_node/expert_node_priv.h"

#include <stdlib.h>

/* NULL: there is no such expert, or it is no node's. */
static node_slot *find_slot(const expert_node *node, uint32_t layer, int32_t expert_id)
{
    uint32_t slot = router_space_slot(node->o.space, layer, expert_id);

    return slot == ROUTER_NO_SLOT || router_space_expert(node->o.space, slot)->is_local ? NULL : &node->slots[slot];
}

/* ------------------------------------------------------------------------------------------------ history */
static void unlink_block(expert_node *node, uint32_t i)
{
    node_block *b = &node->blocks[i];

    if (b->older != NODE_NO_BLOCK) {
        node->blocks[b->older].newer = b->newer;
    }
    if (b->newer != NODE_NO_BLOCK) {
        node->blocks[b->newer].older = b->older;
    } else if (node->newest_block == i) {
        node->newest_block = b->older;
    }
}

static void note_change(expert_node *node, const node_slot *slot, int32_t expert_id, bool is_held)
{
    uint32_t i = slot->block;
    node_block *b = &node->blocks[i];
    uint64_t bit = UINT64_C(1) << ((uint32_t)expert_id % 64);

    unlink_block(node, i);
    b->experts = is_held ? b->experts | bit : b->experts & ~bit;
    b->revision = ++node->side.revision;
    b->older = node->newest_block;
    b->newer = NODE_NO_BLOCK;
    if (b->older != NODE_NO_BLOCK) {
        node->blocks[b->older].newer = i;
    }
    node->newest_block = i;
    node->peers_check_ns = 0; /* they are told at the end of this turn */
}

void node_holds_after(void *peer, uint64_t revision, wire_holds *out)
{
    const expert_node *node = ((const node_peer *)peer)->node;
    uint32_t i = node->newest_block, first = NODE_NO_BLOCK;

    for (; i != NODE_NO_BLOCK && node->blocks[i].revision > revision; i = node->blocks[i].older) {
        first = i;
    }
    out->after = revision;
    out->latest = node->side.revision;
    out->n_blocks = 0;
    for (i = first; i != NODE_NO_BLOCK && out->n_blocks < WIRE_MAX_BLOCKS; i = node->blocks[i].newer) {
        out->blocks[out->n_blocks++] =
            (wire_block){node->blocks[i].layer, node->blocks[i].first, node->blocks[i].experts};
        out->upto = node->blocks[i].revision;
    }
    if (i == NODE_NO_BLOCK) {
        out->upto = out->latest;
    }
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
    note_change(node, slot, expert_id, true);
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
    node_slot *slot = find_slot(node, layer, expert_id);

    if (slot != NULL && slot->expert != NULL) {
        node_batch_run(node);
        note_change(node, slot, expert_id, false);
        slot_close(node, slot);
    }
}

/* Gives every slot its block; returns how many there are. blocks NULL: they are only counted. */
static uint32_t map_blocks(expert_node *node, node_block *blocks)
{
    const router_space *space = node->o.space;
    uint32_t n = 0;

    for (uint32_t l = 0; l < router_space_n_layers(space); l++) {
        const router_space_layer *layer = router_space_at(space, l);

        for (uint32_t i = 0; i < layer->n_experts; i++) {
            uint32_t first = (uint32_t)layer->ids[i] / 64 * 64;

            n += i == 0 || first != (uint32_t)layer->ids[i - 1] / 64 * 64;
            node->slots[layer->slots[i]].block = n - 1;
            if (blocks != NULL) {
                blocks[n - 1] =
                    (node_block){.layer = l, .first = first, .older = NODE_NO_BLOCK, .newer = NODE_NO_BLOCK};
            }
        }
    }
    return n;
}

moe_status node_shard_open(expert_node *node)
{
    size_t n_slots = router_space_n_slots(node->o.space);

    node->newest_block = NODE_NO_BLOCK;
    node->slots = calloc(n_slots, sizeof *node->slots);
    if (node->slots == NULL) {
        return MOE_ERR_NO_MEMORY;
    }
    for (size_t i = 0; i < n_slots; i++) {
        node->slots[i].first_group = node->slots[i].last_group = NODE_NO_GROUP;
    }
    node->blocks = calloc(map_blocks(node, NULL), sizeof *node->blocks);
    if (node->blocks == NULL) {
        return MOE_ERR_NO_MEMORY;
    }
    (void)map_blocks(node, node->blocks);
    return MOE_OK;
}

void node_shard_close(expert_node *node)
{
    for (size_t i = 0; node->slots != NULL && i < router_space_n_slots(node->o.space); i++) {
        if (node->slots[i].expert != NULL) {
            slot_close(node, &node->slots[i]);
        }
    }
    free(node->slots);
    free(node->blocks);
}
