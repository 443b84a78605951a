/* Coverage: whether every expert can be computed now. Looked at after every turn, but counted anew only when a node came
 * or went or the placement is another: the engine turns often. */
#include "exchange/exchange_priv.h"

#include <string.h>

/* The placement's nodes that take rows now. Slow nodes and those that refused a moment ago are owners, too; those that
 * compute nothing are none. */
static router_nodes live_nodes(const exchange *x, uint64_t now)
{
    size_t n = x->placement == NULL ? 0 : router_placement_n_nodes(x->placement);
    router_nodes live = {{0}};

    for (uint32_t i = 0; i < n; i++) {
        const exchange_node *node = x->node_of[i] == EXCHANGE_NO_NODE ? NULL : &x->nodes[x->node_of[i]];

        if (node != NULL && exchange_node_takes(node) && now >= node->mute.until_ns) {
            router_nodes_add(&live, i);
        }
    }
    return live;
}

static bool has_live_owner(const exchange *x, const router_nodes *live, uint32_t slot)
{
    size_t n = 0;
    const uint32_t *owners = router_placement_owners(x->placement, slot, &n);

    for (size_t i = 0; i < n; i++) {
        if (router_nodes_has(live, owners[i])) {
            return true;
        }
    }
    return false;
}

static void count_expert(const exchange *x, const router_nodes *live, uint32_t slot, exchange_coverage *out)
{
    const router_expert *e = router_space_expert(x->o.space, slot);

    if (e->is_local || has_live_owner(x, live, slot)) {
        return;
    }
    if (out->n_missing < EXCHANGE_NAMED) {
        out->missing[out->n_missing] = *e;
    }
    out->n_missing++;
}

static void count_layer(const exchange *x, const router_nodes *live, uint32_t layer, exchange_coverage *out)
{
    const router_space_layer *all = router_space_at(x->o.space, layer);
    const router_set_layer *needed = x->needed == NULL ? NULL : router_set_at(x->needed, layer);

    for (uint32_t i = 0; needed == NULL && i < all->n_experts; i++) {
        count_expert(x, live, all->slots[i], out);
    }
    for (uint32_t i = 0; needed != NULL && i < needed->n_experts; i++) {
        count_expert(x, live, router_space_slot(x->o.space, layer, needed->expert_ids[i]), out);
    }
}

static void count_missing(const exchange *x, const router_nodes *live, exchange_coverage *out)
{
    uint32_t n_layers = x->placement == NULL ? 0 : router_space_n_layers(x->o.space);

    out->placed = x->placement != NULL;
    out->n_missing = 0;
    for (uint32_t layer = 0; layer < n_layers; layer++) {
        count_layer(x, live, layer, out);
    }
}

void exchange_set_needed(exchange *x, router_set *set)
{
    router_set *old = x->needed;

    MOE_ASSERT(router_set_is_in(set, x->o.space));
    x->needed = router_set_ref(set);
    router_set_unref(old);
    x->coverage.stale = true;
}

void exchange_coverage_init(exchange *x)
{
    pthread_mutex_init(&x->coverage.lock, NULL);
    x->coverage.stale = true;
    x->coverage.now.since_ns = moe_now_ns(x->o.clock);
}

void exchange_coverage_update(exchange *x, uint64_t now)
{
    router_nodes live = live_nodes(x, now);

    if (!x->coverage.stale && memcmp(&live, &x->coverage.live, sizeof live) == 0) {
        return;
    }
    x->coverage.stale = false;
    x->coverage.live = live;
    exchange_coverage c = x->coverage.now;
    count_missing(x, &live, &c);
    bool whole = c.placed && c.n_missing == 0;
    if (whole != c.whole) {
        c.n_gaps += whole && now - c.since_ns >= EXCHANGE_GAP_NS;
        c.whole = whole;
        c.since_ns = now;
    }
    pthread_mutex_lock(&x->coverage.lock);
    x->coverage.now = c;
    pthread_mutex_unlock(&x->coverage.lock);
}

void exchange_get_coverage(exchange *x, exchange_coverage *out)
{
    pthread_mutex_lock(&x->coverage.lock);
    *out = x->coverage.now;
    pthread_mutex_unlock(&x->coverage.lock);
}

moe_status exchange_coverage_check(const exchange_coverage *c, moe_error *err)
{
    char named[EXCHANGE_NAMED * 40] = "";
    size_t n = MOE_MIN(c->n_missing, EXCHANGE_NAMED), used = 0;

    if (!c->placed) {
        return moe_fail(err, MOE_ERR_UNAVAILABLE, "no expert has been placed on a node yet");
    }
    for (size_t i = 0; i < n; i++) {
        used += (size_t)snprintf(named + used, sizeof named - used, "%slayer %u expert %d", i == 0 ? "" : ", ",
                                 c->missing[i].layer, c->missing[i].id);
    }
    if (c->n_missing > n) {
        return moe_fail(err, MOE_ERR_UNAVAILABLE, "%zu experts have no live owner: %s and %zu more", c->n_missing,
                        named, c->n_missing - n);
    }
    return n == 0 ? MOE_OK : moe_fail(err, MOE_ERR_UNAVAILABLE, "no live owner: %s", named);
}
