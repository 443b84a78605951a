/* What nodes hold, as they have told on their connections. It counts once a node has told all, and as long as it is
 * connected. One that has not told in time counts as not there: rows never go to it, and what it was given others are given. */
#include "exchange/exchange_priv.h"

#include <stdlib.h>
#include <string.h>

/* Who routes by this builds its table anew for each change, which is milliseconds of the engine's thread in the largest
 * clusters; a node that loads changes with every expert. Chosen, not measured. */
#define HOLDS_NS UINT64_C(20000000)
/* A node tells all right after the greeting, but it may compute a large prompt of somebody else first, or swap. Chosen, not measured. */
#define UNTOLD_NS UINT64_C(10000000000)

static uint64_t *bits_of(const exchange *x, const exchange_node *node)
{
    return x->holds.bits + (size_t)(node - x->nodes) * router_space_words(x->o.space);
}

uint64_t *exchange_holds_alloc(const router_space *space)
{
    return calloc(ROUTER_MAX_NODES * router_space_words(space), sizeof(uint64_t));
}

void exchange_holds_copy(uint64_t *to, const router_space *later, const exchange *x)
{
    for (size_t i = 0; i < ROUTER_MAX_NODES; i++) {
        memcpy(to + i * router_space_words(later), bits_of(x, &x->nodes[i]),
               router_space_words(x->o.space) * sizeof *to);
    }
}

void exchange_holds_forget(exchange *x, const exchange_node *node)
{
    memset(bits_of(x, node), 0, router_space_words(x->o.space) * sizeof(uint64_t));
}

/* Experts that the space does not have are passed over. */
static void take_block(const exchange *x, uint64_t *bits, const wire_block *b)
{
    for (uint32_t i = 0; i < 64; i++) {
        uint32_t slot = router_space_slot(x->o.space, b->layer, (int32_t)(b->first + i));

        if (slot != ROUTER_NO_SLOT && (b->experts >> i & 1) != 0) {
            router_bit_set(bits, slot);
        } else if (slot != ROUTER_NO_SLOT) {
            router_bit_clear(bits, slot);
        }
    }
}

void exchange_on_holds(void *ctx, const wire_holds *changed)
{
    exchange_node *node = ctx;
    exchange *x = node->x;

    for (size_t i = 0; i < changed->n_blocks; i++) {
        take_block(x, bits_of(x, node), &changed->blocks[i]);
    }
    node->n_told++;
    if (node->is_untold && node->link.knows_all) {
        node->is_untold = false;
        node->why[0] = '\0';
        MOE_INFO("node %s at %s has told what it holds", node->id, node->address);
    }
    x->holds.is_changed = x->holds.is_changed || node->link.knows_all;
}

void exchange_holds_judge(exchange *x, exchange_node *node, uint64_t now)
{
    if (!link_is_open(&node->link) || node->link.knows_all || node->is_untold) {
        return;
    }
    if (now - node->opened_ns < UNTOLD_NS) {
        exchange_wake_at(x, node->opened_ns + UNTOLD_NS);
        return;
    }
    node->is_untold = true;
    (void)snprintf(node->why, sizeof node->why, "it is connected, but does not tell what it holds");
    MOE_WARN("node %s at %s is connected, but has not told for %llu s what it holds: it counts as lost until it does",
             node->id, node->address, (unsigned long long)((now - node->opened_ns) / 1000000000));
}

bool exchange_holds_are_told(const exchange_node *node)
{
    return link_is_open(&node->link) && node->link.knows_all;
}

const uint64_t *exchange_node_holds(const exchange *x, const char *id)
{
    const exchange_node *node = exchange_find_node(x, id);

    return node != NULL && exchange_holds_are_told(node) ? bits_of(x, node) : NULL;
}

void exchange_holds_timer(exchange *x)
{
    if (x->holds.is_changed) {
        exchange_wake_at(x, x->holds.shown_ns + HOLDS_NS);
    }
}

bool exchange_holds_changed(exchange *x)
{
    uint64_t now = moe_now_ns(x->o.clock);

    if (!x->holds.is_changed || now - x->holds.shown_ns < HOLDS_NS) {
        exchange_holds_timer(x);
        return false;
    }
    x->holds.is_changed = false;
    x->holds.shown_ns = now;
    return true;
}
