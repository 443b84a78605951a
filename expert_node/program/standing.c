#include "expert_node/program/standing.h"

#include <string.h>

bool standing_is_met(const standing *s, moe_error *why)
{
    size_t n = s->state->n_coordinators;

    if (s->n_hellos > 0 && (s->n_connected > 0 || n == 0)) {
        return true;
    }
    if (s->n_denied > 0) {
        (void)moe_fail(why, MOE_ERR_DENIED,
                       "connections to %s failed the secret's proof: is --secret-file the cluster's?", s->address);
    } else if (n == 0) {
        (void)moe_fail(why, MOE_ERR_UNAVAILABLE, "no coordinator is registered yet");
    } else if (s->n_hellos > 0) {
        (void)moe_fail(why, MOE_ERR_UNAVAILABLE, "none of the %zu coordinators is connected any more", n);
    } else {
        (void)moe_fail(why, MOE_ERR_UNAVAILABLE,
                       "no coordinator has connected to %s, though %zu %s registered: wrong --advertise?", s->address,
                       n, n == 1 ? "is" : "are");
    }
    return false;
}

/* Experts that the other nodes can hold; *n_others: how many nodes those are. */
static uint64_t room_of_others(const standing *s, size_t *n_others)
{
    uint64_t room = 0, all = router_space_n_node_experts(s->state->space);

    *n_others = 0;
    for (size_t i = 0; i < s->state->n_nodes; i++) {
        const cluster_node *n = &s->state->nodes[i];

        if (strcmp(n->id, s->id) == 0 || n->draining) {
            continue;
        }
        ++*n_others;
        room += n->memory_bytes == 0 ? all : MOE_MIN(n->memory_bytes / MOE_MAX(n->expert_bytes, UINT64_C(1)), all);
    }
    return room;
}

static bool has_another(const cluster_state *s, const cluster_node *own, size_t word, uint64_t bit)
{
    for (size_t i = 0; i < s->n_nodes; i++) {
        const cluster_node *n = &s->nodes[i];

        if (n != own && n->registered && !n->draining && (n->ready[word] & bit) != 0) {
            return true;
        }
    }
    return false;
}

/* Experts that this node has, as it has reported, and nobody who stays. Keys are hints, but where no coordinator is connected there
 * is nothing better. Without its own: what the placement gives it. */
static uint32_t count_only_copies(const standing *s)
{
    const cluster_node *own = cluster_state_node(s->state, s->id);
    uint32_t n = own == NULL ? s->n_wanted : 0;

    for (size_t w = 0; own != NULL && w < router_space_words(s->state->space); w++) {
        for (uint64_t left = own->ready[w]; left != 0; left &= left - 1) {
            n += !has_another(s->state, own, w, left & -left);
        }
    }
    return n;
}

/* No coordinator sends anything here any more, and none that comes will miss what we have. One that is connected may have lost
 * the store, and one that is registered its connection. Where no coordinator is and all nodes leave, the cluster is taken down. */
static bool nobody_needs_us(const standing *s, size_t n_others)
{
    const cluster_state *state = s->state;

    if (s->n_connected > 0) {
        return s->n_wanted == 0 && s->epoch_registered >= state->epoch && s->epoch_connected >= state->epoch;
    }
    if (state->n_coordinators > 0 && s->n_wanted > 0) {
        return false;
    }
    return count_only_copies(s) == 0 || (state->n_coordinators == 0 && state->connected && n_others == 0);
}

standing_relief standing_judge(const standing *s, moe_error *why)
{
    const cluster_state *state = s->state;
    uint64_t all = router_space_n_node_experts(state->space);
    size_t n_others;
    uint64_t room = room_of_others(s, &n_others);

    if (nobody_needs_us(s, n_others)) {
        return STANDING_RELIEVED;
    }
    if (!state->connected) {
        (void)moe_fail(why, MOE_ERR_UNAVAILABLE, "the cluster's store does not answer");
        return STANDING_HOPELESS;
    }
    if (state->n_coordinators == 0 && s->n_connected == 0) {
        (void)moe_fail(why, MOE_ERR_UNAVAILABLE, "no coordinator is registered, and %u experts are nowhere else",
                       count_only_copies(s));
        return STANDING_HOPELESS;
    }
    if (state->n_coordinators == 0) {
        (void)moe_fail(why, MOE_ERR_UNAVAILABLE, "the coordinators that are connected are not registered");
        return STANDING_HOPELESS;
    }
    if (s->n_connected == 0) {
        (void)moe_fail(why, MOE_ERR_UNAVAILABLE, "no coordinator is connected");
        return STANDING_HOPELESS;
    }
    if (n_others == 0) {
        (void)moe_fail(why, MOE_ERR_UNAVAILABLE, "there is no other node");
        return STANDING_HOPELESS;
    }
    if (room < all) {
        (void)moe_fail(why, MOE_ERR_UNAVAILABLE, "%zu other nodes have room for %llu of %llu experts", n_others,
                       (unsigned long long)room, (unsigned long long)all);
        return STANDING_HOPELESS;
    }
    return STANDING_NEEDED;
}
