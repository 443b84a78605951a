/* The experts a node owns, and the history of that for coordinators (docs/wire.md, HOLDS). */
#include "expert_node/expert_node_priv.h"

#include <stdlib.h>
#include <string.h>

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

compute_expert *expert_node_take(expert_node *node, uint32_t layer, int32_t expert_id)
{
    node_slot *slot = find_slot(node, layer, expert_id);
    compute_expert *expert = slot == NULL ? NULL : slot->expert;

    if (expert != NULL) {
        node_batch_run(node);
        note_change(node, slot, expert_id, false);
        slot->expert = NULL;
        node->stats.experts--;
        node->stats.memory_bytes -= node->o.expert_bytes;
    }
    return expert;
}

void expert_node_drop(expert_node *node, uint32_t layer, int32_t expert_id)
{
    compute_expert *expert = expert_node_take(node, layer, expert_id);

    if (expert != NULL) {
        node->o.device->ops->expert_close(node->o.device, expert);
    }
}

/* ------------------------------------------------------------------------------------------------ growing */
struct expert_node_growth {
    router_space *space; /* shared */
    node_slot *slots;    /* owned [slots of the space] */
    node_block *blocks;  /* owned [n_blocks] */
    uint32_t n_blocks;
};

/* Gives the slots from the first on their blocks: those of the slots before, and behind them new ones. Returns how many there
 * are then. A new expert is above all of its layer that were there before, so only the layer's last block may take it in. blocks
 * NULL: the new ones are only counted. */
static uint32_t map_blocks(const router_space *space, uint32_t first_slot, const node_slot *before, uint32_t n_before,
                           node_slot *slots, node_block *blocks)
{
    uint32_t n = n_before;

    for (uint32_t l = 0; l < router_space_n_layers(space); l++) {
        const router_space_layer *layer = router_space_at(space, l);
        uint32_t block = NODE_NO_BLOCK;

        for (uint32_t i = 0; i < layer->n_experts; i++) {
            uint32_t first = (uint32_t)layer->ids[i] / 64 * 64, slot = layer->slots[i];

            if (slot < first_slot) {
                block = before[slot].block;
                continue;
            }
            if (i == 0 || first != (uint32_t)layer->ids[i - 1] / 64 * 64) {
                block = n++;
            }
            slots[slot].block = block;
            if (blocks != NULL && block >= n_before) {
                blocks[block] =
                    (node_block){.layer = l, .first = first, .older = NODE_NO_BLOCK, .newer = NODE_NO_BLOCK};
            }
        }
    }
    return n;
}

/* What is sized by a space; slots before the first one have no values yet, blocks of the first n_before neither. */
static moe_status tables_open(const router_space *space, uint32_t first_slot, const node_slot *before,
                              uint32_t n_before, expert_node_growth *g)
{
    uint32_t n = router_space_n_slots(space);

    g->slots = calloc(n, sizeof *g->slots);
    if (g->slots == NULL) {
        return MOE_ERR_NO_MEMORY;
    }
    g->n_blocks = map_blocks(space, first_slot, before, n_before, g->slots, NULL);
    g->blocks = calloc(g->n_blocks, sizeof *g->blocks);
    if (g->blocks == NULL) {
        return MOE_ERR_NO_MEMORY;
    }
    (void)map_blocks(space, first_slot, before, n_before, g->slots, g->blocks);
    for (uint32_t i = first_slot; i < n; i++) {
        g->slots[i].first_group = g->slots[i].last_group = NODE_NO_GROUP;
    }
    return MOE_OK;
}

moe_status expert_node_growth_open(const expert_node *node, router_space *space, expert_node_growth **out,
                                   moe_error *err)
{
    expert_node_growth *g;

    if (!router_space_continues(space, node->o.space)) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "node %s: the expert space is no later version of its own",
                        node->o.id);
    }
    g = calloc(1, sizeof *g);
    if (g == NULL ||
        tables_open(space, router_space_n_slots(node->o.space), node->slots, node->n_blocks, g) != MOE_OK) {
        expert_node_growth_close(g);
        return moe_fail(err, MOE_ERR_NO_MEMORY, "node %s: %u experts: out of memory", node->o.id,
                        router_space_n_slots(space));
    }
    g->space = router_space_ref(space);
    *out = g;
    return MOE_OK;
}

void expert_node_growth_close(expert_node_growth *g)
{
    if (g != NULL) {
        router_space_unref(g->space);
        free(g->slots);
        free(g->blocks);
        free(g);
    }
}

void expert_node_grow(expert_node *node, expert_node_growth *g)
{
    const expert_node_growth before = {node->o.space, node->slots, node->blocks, node->n_blocks};

    MOE_ASSERT(g->n_blocks >= before.n_blocks);
    memcpy(g->slots, before.slots, router_space_n_slots(before.space) * sizeof *g->slots);
    memcpy(g->blocks, before.blocks, before.n_blocks * sizeof *g->blocks);
    node->o.space = g->space;
    node->slots = g->slots;
    node->blocks = g->blocks;
    node->n_blocks = g->n_blocks;
    *g = before;
}

router_space *expert_node_space(const expert_node *node)
{
    return node->o.space;
}

moe_status node_shard_open(expert_node *node)
{
    expert_node_growth all = {.space = NULL};
    moe_status status = tables_open(node->o.space, 0, NULL, 0, &all);

    node->newest_block = NODE_NO_BLOCK;
    node->slots = all.slots;
    node->blocks = all.blocks;
    node->n_blocks = all.n_blocks;
    return status;
}

void node_shard_close(expert_node *node)
{
    compute_device *device = node->o.device;

    for (size_t i = 0; node->slots != NULL && i < router_space_n_slots(node->o.space); i++) {
        device->ops->expert_close(device, node->slots[i].expert);
    }
    free(node->slots);
    free(node->blocks);
}
