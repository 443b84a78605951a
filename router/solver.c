/* Solver: who should own what. Four steps, each exact:
 *
 *   0. copies   How many there are: `replication` of each expert where memory suffices; else as many as fit. Every expert
 *               then has `least`, and in each layer the same part of the experts has one more.
 *   1. shares   How many copies a node holds in all: in proportion to its memory, within its bound.
 *   2. quotas   How many of them in each layer, so that layers are even too: a node's share is spread over the layers in
 *               proportion to their copies, rounded down or up.
 *   3. layers   Experts to nodes, one layer after the other. What was there stays within the quota, copies that are the last
 *               of their expert before all others; the rest goes where there is room. Where all nodes with room hold the expert already, other experts move along an
 *               augmenting path to make place for it. Last, pairs are swapped while that brings an expert into one more
 *               zone.
 *
 * Why evenness within a layer counts as much as in all: a step visits the layers one by one and waits for the slowest
 * node of each. Why what was there stays: moving a copy means that a node reads and verifies an expert's weights while
 * it serves. */
#include "router/router.h"

#include <stdlib.h>
#include <string.h>

/* Layers x experts x replication. Chosen, not measured: four copies of each expert of the largest model that a cluster
 * takes (1024 layers of 4096); the list of replicas then takes 200 MB. */
#define SOLVER_MAX_COPIES (1u << 24)

typedef struct solver {
    const router_solver_input *in;
    const router_space *space;
    uint32_t n_nodes, n_layers, widest, replication;
    uint64_t n_experts; /* to be placed, of all layers */
    uint32_t least;     /* step 0: copies of every expert */
    uint32_t *extra;    /* owned [n_layers]: of each layer's experts so many have one more */
    uint64_t n_copies;
    uint64_t limit[ROUTER_MAX_NODES];  /* copies that fit, at most one of every expert */
    uint64_t weight[ROUTER_MAX_NODES]; /* memory in MiB */
    uint32_t share[ROUTER_MAX_NODES];  /* step 1 */
    uint32_t zone[ROUTER_MAX_NODES];   /* the first node with an equal zone */
    uint32_t now[ROUTER_MAX_NODES];    /* of each node of the previous placement; UINT32_MAX: it is no more */
    bool has_previous, has_zones;

    uint32_t *quota; /* owned [n_nodes, n_layers], step 2 */

    /* of the layer under work. Experts are counted by their place among those of the layer that are to be placed */
    uint32_t n;   /* experts */
    int32_t *ids; /* owned [widest] */
    uint32_t room[ROUTER_MAX_NODES];
    uint8_t *on;      /* owned [n_nodes * widest]: 1 if the node holds the expert */
    uint32_t *copies; /* owned [widest] */
    uint32_t *wanted; /* owned [widest]: copies that there are to be */
    uint32_t *left;   /* owned [widest]: copies of the previous placement that still are */

    router_replica *replicas; /* owned: of all layers, ascending layer, expert, node */
    size_t n_replicas;
} solver;

static uint8_t *held(solver *s, uint32_t node, uint32_t expert)
{
    return &s->on[(size_t)node * s->widest + expert];
}

static bool is_placed(const router_solver_input *in, uint32_t slot)
{
    return !router_space_expert(in->space, slot)->is_local && (in->wanted == NULL || router_bit(in->wanted, slot));
}

static uint64_t count_wanted(const router_solver_input *in)
{
    uint64_t n = 0;

    for (uint32_t slot = 0; slot < router_space_n_slots(in->space); slot++) {
        n += is_placed(in, slot);
    }
    return n;
}

static moe_status check_input(const router_solver_input *in, moe_error *err)
{
    if (in->n_nodes == 0 || in->n_nodes > ROUTER_MAX_NODES) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "solver: %zu nodes, limits 1 and %d", in->n_nodes, ROUTER_MAX_NODES);
    }
    uint32_t r = MOE_MIN(in->replication, (uint32_t)in->n_nodes);
    uint64_t n = count_wanted(in);
    if (r == 0 || n == 0 || n > SOLVER_MAX_COPIES / r) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "solver: %llu experts, replication %u: limit %u copies",
                        (unsigned long long)n, in->replication, SOLVER_MAX_COPIES);
    }
    for (size_t i = 0; i < in->n_nodes; i++) {
        if (in->nodes[i].memory_bytes != 0 && in->nodes[i].expert_bytes == 0) {
            return moe_fail(err, MOE_ERR_INVALID_ARG, "solver: node %s: expert_bytes must not be 0", in->nodes[i].id);
        }
    }
    return MOE_OK;
}

static void find_zones(solver *s)
{
    for (uint32_t i = 0; i < s->n_nodes; i++) {
        const char *mine = s->in->nodes[i].zone != NULL ? s->in->nodes[i].zone : "";

        s->zone[i] = i;
        for (uint32_t j = 0; j < i && s->zone[i] == i; j++) {
            const char *other = s->in->nodes[j].zone != NULL ? s->in->nodes[j].zone : "";

            s->zone[i] = strcmp(mine, other) == 0 ? j : i;
        }
        s->has_zones |= s->zone[i] != 0;
    }
}

static void find_previous(solver *s)
{
    const router_placement *p = s->in->previous;

    s->has_previous = p != NULL;
    for (uint32_t j = 0; s->has_previous && j < router_placement_n_nodes(p); j++) {
        s->now[j] = UINT32_MAX;
        for (uint32_t i = 0; i < s->n_nodes; i++) {
            if (strcmp(router_placement_node_id(p, j), s->in->nodes[i].id) == 0) {
                s->now[j] = i;
            }
        }
    }
}

/* The nodes that held the expert, as indices of now; UINT32_MAX among them: one that is no more. */
static size_t previous_owners(const solver *s, uint32_t layer, int32_t id, uint32_t owners[ROUTER_MAX_NODES])
{
    size_t n = 0;

    if (s->has_previous) {
        const uint32_t *nodes = router_placement_replicas(s->in->previous, layer, id, &n);
        for (size_t i = 0; i < n; i++) {
            owners[i] = s->now[nodes[i]];
        }
    }
    return n;
}

static void find_limits(solver *s)
{
    uint64_t all = s->n_experts;
    uint64_t largest = 1;

    for (uint32_t i = 0; i < s->n_nodes; i++) {
        largest = MOE_MAX(largest, s->in->nodes[i].memory_bytes >> 20);
    }
    for (uint32_t i = 0; i < s->n_nodes; i++) {
        const router_solver_node *n = &s->in->nodes[i];

        s->limit[i] = n->memory_bytes == 0 ? all : MOE_MIN(all, n->memory_bytes / n->expert_bytes);
        s->weight[i] = n->memory_bytes == 0 ? largest : MOE_MAX(n->memory_bytes >> 20, (uint64_t)1);
    }
}

static moe_status does_not_fit(const solver *s, uint64_t room, moe_error *err)
{
    char list[200] = "";
    size_t used = 0;

    for (uint32_t i = 0; i < s->n_nodes && used < sizeof list - 1; i++) {
        int n = snprintf(list + used, sizeof list - used, "%s%s %llu", i > 0 ? ", " : "", s->in->nodes[i].id,
                         (unsigned long long)s->limit[i]);

        used += n > 0 ? (size_t)n : 0;
    }
    return moe_fail(err, MOE_ERR_BUSY,
                    "placement: one of each expert of %u layers are %llu copies; the nodes have room for %llu (%s)",
                    s->n_layers, (unsigned long long)s->n_experts, (unsigned long long)room, list);
}

/* Experts of a layer that are to be placed. */
static uint32_t layer_size(const solver *s, uint32_t layer)
{
    const router_space_layer *l = router_space_at(s->space, layer);
    uint32_t n = 0;

    for (uint32_t i = 0; i < l->n_experts; i++) {
        n += is_placed(s->in, l->slots[i]);
    }
    return n;
}

static uint64_t layer_copies(const solver *s, uint32_t layer)
{
    return (uint64_t)layer_size(s, layer) * s->least + s->extra[layer];
}

/* Step 0. Where memory is short, one place of each node that cannot hold everything stays free, if every expert keeps
 * `least` copies all the same: two full nodes that are to exchange the only copies of two experts could never begin. */
static moe_status count_copies(solver *s, moe_error *err)
{
    uint64_t all = s->n_experts, room = 0, places = 0, extra = 0;

    for (uint32_t i = 0; i < s->n_nodes; i++) {
        room += s->limit[i];
        places += s->limit[i] - (s->limit[i] > 0 && s->limit[i] < all);
    }
    if (room < all) {
        return does_not_fit(s, room, err);
    }
    s->least = (uint32_t)MOE_MIN((uint64_t)s->replication, room / all);
    if (s->least < s->replication && places >= s->least * all) {
        extra = places - s->least * all;
        for (uint32_t i = 0; i < s->n_nodes; i++) {
            s->limit[i] -= s->limit[i] > 0 && s->limit[i] < all;
        }
    }
    for (uint32_t layer = 0; layer < s->n_layers; layer++) {
        s->extra[layer] = (uint32_t)(extra * layer_size(s, layer) / all);
        s->n_copies += layer_copies(s, layer);
    }
    return MOE_OK;
}

/* With one copy more, node a would be filled to a lower ratio than b. The ratios are multiplied out; doubles are exact
 * here, as 2^24 copies times 2^29 MiB is 2^53. */
static bool is_emptier(const solver *s, uint32_t a, uint32_t b)
{
    return (double)(s->share[a] + 1) * (double)s->weight[b] < (double)(s->share[b] + 1) * (double)s->weight[a];
}

/* Step 1. Copies go one by one to the node that would be the emptiest with one more. This is division in proportion,
 * and it respects the bounds: a full node drops out, and what it would have got goes to the others in proportion
 * again. */
static void divide(solver *s)
{
    for (uint64_t unit = 0; unit < s->n_copies; unit++) {
        uint32_t best = UINT32_MAX;

        for (uint32_t i = 0; i < s->n_nodes; i++) {
            if (s->share[i] < s->limit[i] && (best == UINT32_MAX || is_emptier(s, i, best))) {
                best = i;
            }
        }
        s->share[best]++;
    }
}

static uint32_t *quota_of(const solver *s, uint32_t node, uint32_t layer)
{
    return &s->quota[(size_t)node * s->n_layers + layer];
}

/* One unit more for the node, in the layer that lacks most of its copies; among equals the next one after *begin, around
 * the layers. So what the nodes get beyond the rounded part of their shares is laid end to end around the layers, where
 * these are equal. Every layer ends up with all of its copies: that is how a table of zeros and ones is made to given
 * sums of rows and columns (Gale and Ryser), and such a table exists, as the fractions that were cut off have these sums. */
static void give_unit(solver *s, uint32_t node, uint32_t *lacking, uint8_t *given, uint32_t *begin)
{
    uint32_t best = UINT32_MAX;

    for (uint32_t i = 0; i < s->n_layers; i++) {
        uint32_t layer = (*begin + i) % s->n_layers;

        if (!given[layer] && (best == UINT32_MAX || lacking[layer] > lacking[best])) {
            best = layer;
        }
    }
    *quota_of(s, node, best) += 1;
    lacking[best]--;
    given[best] = 1;
    *begin = (best + 1) % s->n_layers;
}

/* Two nodes exchange units of two layers, so that the first has one less of `layer`, of which it has too many. */
static bool exchange_unit(solver *s, uint32_t node, uint32_t layer)
{
    uint32_t most = layer_size(s, layer);

    for (uint32_t other = 0; other < s->n_layers; other++) {
        if (other == layer || *quota_of(s, node, other) >= layer_size(s, other)) {
            continue;
        }
        for (uint32_t j = 0; j < s->n_nodes; j++) {
            if (j != node && *quota_of(s, j, layer) < most && *quota_of(s, j, other) > 0) {
                *quota_of(s, node, layer) -= 1;
                *quota_of(s, node, other) += 1;
                *quota_of(s, j, layer) += 1;
                *quota_of(s, j, other) -= 1;
                return true;
            }
        }
    }
    return false;
}

/* No node can have more copies of a layer than that has experts. Only where the layers differ and memory is short can
 * rounding have led to that; a copy that finds no place then is one of those that not all experts have. */
static void cap_quotas(solver *s)
{
    for (uint32_t layer = 0; layer < s->n_layers; layer++) {
        uint32_t most = layer_size(s, layer);

        for (uint32_t i = 0; i < s->n_nodes; i++) {
            while (*quota_of(s, i, layer) > most && exchange_unit(s, i, layer)) {
            }
            while (*quota_of(s, i, layer) > most && s->extra[layer] > 0) {
                *quota_of(s, i, layer) -= 1;
                s->extra[layer]--;
                s->n_copies--;
            }
            MOE_ASSERT(*quota_of(s, i, layer) <= most);
        }
    }
}

/* Step 2. lacking [n_layers] and given [n_layers] are scratch. */
static void set_quotas(solver *s, uint32_t *lacking, uint8_t *given)
{
    uint32_t begin = 0;

    for (uint32_t layer = 0; layer < s->n_layers; layer++) {
        uint64_t copies = layer_copies(s, layer);

        lacking[layer] = (uint32_t)copies;
        for (uint32_t i = 0; i < s->n_nodes; i++) {
            *quota_of(s, i, layer) = (uint32_t)(s->share[i] * copies / s->n_copies);
            lacking[layer] -= *quota_of(s, i, layer);
        }
    }
    for (uint32_t i = 0; i < s->n_nodes; i++) {
        uint32_t left_over = s->share[i];

        for (uint32_t layer = 0; layer < s->n_layers; layer++) {
            left_over -= *quota_of(s, i, layer);
        }
        memset(given, 0, s->n_layers);
        while (left_over-- > 0) {
            give_unit(s, i, lacking, given, &begin);
        }
    }
    cap_quotas(s);
}

static void put(solver *s, uint32_t node, uint32_t expert)
{
    *held(s, node, expert) = 1;
    s->room[node]--;
    s->copies[expert]++;
}

static void count_left(solver *s, uint32_t layer)
{
    uint32_t owners[ROUTER_MAX_NODES];

    for (uint32_t e = 0; e < s->n; e++) {
        size_t n = previous_owners(s, layer, s->ids[e], owners);

        s->left[e] = 0;
        for (size_t i = 0; i < n; i++) {
            s->left[e] += owners[i] != UINT32_MAX;
        }
    }
}

/* The one copy more goes to experts that have it already, then to the lowest ids. */
static void choose_extra(solver *s, uint32_t layer)
{
    uint32_t n = 0, extra = s->extra[layer];

    for (uint32_t e = 0; e < s->n; e++) {
        bool has = s->left[e] > s->least && n < extra;

        s->wanted[e] = s->least + has;
        n += has;
    }
    for (uint32_t e = 0; e < s->n && n < extra; e++) {
        n += s->wanted[e] == s->least;
        s->wanted[e] = s->least + 1;
    }
}

static void keep_copies(solver *s, uint32_t layer, uint32_t expert)
{
    uint32_t owners[ROUTER_MAX_NODES];
    size_t n = previous_owners(s, layer, s->ids[expert], owners);

    while (s->copies[expert] < s->wanted[expert]) {
        uint32_t best = UINT32_MAX;

        for (size_t i = 0; i < n; i++) {
            uint32_t at = owners[i];

            if (at != UINT32_MAX && s->room[at] > 0 && !*held(s, at, expert) &&
                (best == UINT32_MAX || s->room[at] > s->room[best])) {
                best = at;
            }
        }
        if (best == UINT32_MAX) {
            return;
        }
        put(s, best, expert);
    }
}

/* What was there stays, before anything new is placed: otherwise a newcomer could take the room of a copy that is
 * loaded already. Experts with the fewest copies come first: the others can do without one of theirs. */
static void keep_previous(solver *s, uint32_t layer)
{
    for (uint32_t n = 1; n <= s->n_nodes; n++) {
        for (uint32_t e = 0; e < s->n; e++) {
            if (s->left[e] == n) {
                keep_copies(s, layer, e);
            }
        }
    }
}

/* Copies of the expert in the node's zone, the node itself left out. */
static uint32_t zone_mates(solver *s, uint32_t node, uint32_t expert)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < s->n_nodes; i++) {
        n += i != node && s->zone[i] == s->zone[node] && *held(s, i, expert);
    }
    return n;
}

/* To the node with room that shares its zone with the fewest copies; among those, to the one with most room left.
 * False: every node with room holds the expert already. */
static bool put_where_room(solver *s, uint32_t expert)
{
    uint32_t best = UINT32_MAX, best_mates = 0;

    for (uint32_t i = 0; i < s->n_nodes; i++) {
        if (s->room[i] == 0 || *held(s, i, expert)) {
            continue;
        }
        uint32_t mates = zone_mates(s, i, expert);
        if (best == UINT32_MAX || mates < best_mates || (mates == best_mates && s->room[i] > s->room[best])) {
            best = i;
            best_mates = mates;
        }
    }
    if (best != UINT32_MAX) {
        put(s, best, expert);
    }
    return best != UINT32_MAX;
}

/* An expert on node a that is not on node b. */
static bool find_movable(solver *s, uint32_t a, uint32_t b, uint32_t *expert)
{
    for (uint32_t e = 0; e < s->n; e++) {
        if (*held(s, a, e) && !*held(s, b, e)) {
            *expert = e;
            return true;
        }
    }
    return false;
}

/* Every node with room holds the expert already, so the expert takes a place at a full node, and that node passes
 * another of its experts on, until somebody has room: an augmenting path, searched breadth first and thus as short as
 * can be. It starts at the nodes that do not hold the expert; an edge from a to b is an expert that a holds and b does
 * not.
 *
 * Such a path exists, because the layer can be solved: the quotas add up to the copies, none is above n_experts, and the
 * experts' copies differ by one at most (Gale and Ryser). Take any solution. The expert is on a node there that it is not
 * on here; either that node has room, or it holds something here that is elsewhere in the solution; and so on. */
static void put_by_path(solver *s, uint32_t expert)
{
    uint32_t queue[ROUTER_MAX_NODES], from[ROUTER_MAX_NODES], via[ROUTER_MAX_NODES], n = 0, end = UINT32_MAX;
    bool seen[ROUTER_MAX_NODES] = {false};

    for (uint32_t i = 0; i < s->n_nodes; i++) {
        if (!*held(s, i, expert)) {
            seen[i] = true;
            from[i] = UINT32_MAX;
            queue[n++] = i;
        }
    }
    for (uint32_t at = 0; at < n && end == UINT32_MAX; at++) {
        for (uint32_t to = 0; to < s->n_nodes && end == UINT32_MAX; to++) {
            if (!seen[to] && find_movable(s, queue[at], to, &via[to])) {
                seen[to] = true;
                from[to] = queue[at];
                queue[n++] = to;
                end = s->room[to] > 0 ? to : UINT32_MAX;
            }
        }
    }
    MOE_ASSERT(end != UINT32_MAX);
    s->room[end]--;
    s->copies[expert]++;
    for (; from[end] != UINT32_MAX; end = from[end]) {
        *held(s, from[end], via[end]) = 0;
        *held(s, end, via[end]) = 1;
    }
    *held(s, end, expert) = 1;
}

/* Expert e leaves node a for node c of a zone it is not in; f comes back from c to a and must not lose a zone by it. */
static bool swap_for_zone(solver *s, uint32_t e, uint32_t a)
{
    for (uint32_t c = 0; c < s->n_nodes; c++) {
        if (*held(s, c, e) || zone_mates(s, c, e) > 0) {
            continue;
        }
        for (uint32_t f = 0; f < s->n; f++) {
            if (*held(s, c, f) && !*held(s, a, f) && (zone_mates(s, a, f) == 0 || zone_mates(s, c, f) > 0)) {
                *held(s, a, e) = *held(s, c, f) = 0;
                *held(s, c, e) = *held(s, a, f) = 1;
                return true;
            }
        }
    }
    return false;
}

/* Every swap brings an expert into one more zone and takes none from the other, so no swap undoes another. */
static void spread_zones(solver *s)
{
    for (uint32_t e = 0; e < s->n; e++) {
        for (uint32_t a = 0; a < s->n_nodes; a++) {
            if (*held(s, a, e) && zone_mates(s, a, e) > 0) {
                (void)swap_for_zone(s, e, a);
            }
        }
    }
}

static void begin_layer(solver *s, uint32_t layer)
{
    const router_space_layer *l = router_space_at(s->space, layer);

    s->n = 0;
    for (uint32_t i = 0; i < l->n_experts; i++) {
        if (is_placed(s->in, l->slots[i])) {
            s->ids[s->n++] = l->ids[i];
        }
    }
    for (uint32_t i = 0; i < s->n_nodes; i++) {
        s->room[i] = *quota_of(s, i, layer);
    }
    memset(s->on, 0, (size_t)s->n_nodes * s->widest);
    memset(s->copies, 0, s->widest * sizeof *s->copies);
}

static void solve_layer(solver *s, uint32_t layer)
{
    begin_layer(s, layer);
    count_left(s, layer);
    choose_extra(s, layer);
    keep_previous(s, layer);
    for (uint32_t e = 0; e < s->n; e++) {
        while (s->copies[e] < s->wanted[e]) {
            if (!put_where_room(s, e)) {
                put_by_path(s, e);
            }
        }
    }
    if (s->has_zones && s->replication > 1) {
        spread_zones(s);
    }
    for (uint32_t e = 0; e < s->n; e++) {
        for (uint32_t i = 0; i < s->n_nodes; i++) {
            if (*held(s, i, e)) {
                s->replicas[s->n_replicas++] = (router_replica){layer, s->ids[e], i, false};
            }
        }
    }
}

/* ------------------------------------------------------------------------------------------------ only what is lost */
static bool solution_has(const router_replica *of_expert, size_t n, uint32_t node)
{
    for (size_t i = 0; i < n; i++) {
        if (of_expert[i].node == node) {
            return true;
        }
    }
    return false;
}

/* The owners that an expert has left; without any, those of the solution, of_expert [n]. What is left on a node that is
 * over its limit goes, if the solution takes it away in any case and it is not the last copy. Returns how many. */
static size_t merge_expert(const solver *s, const router_replica *of_expert, size_t n, uint64_t over[ROUTER_MAX_NODES],
                           router_replica *out)
{
    uint32_t owners[ROUTER_MAX_NODES];
    size_t n_owners = previous_owners(s, of_expert->layer, of_expert->expert_id, owners), n_out = 0;

    for (size_t i = 0; i < n_owners; i++) {
        if (owners[i] != UINT32_MAX) {
            out[n_out] = *of_expert;
            out[n_out++].node = owners[i];
        }
    }
    if (n_out == 0) {
        memcpy(out, of_expert, n * sizeof *out);
        return n;
    }
    for (size_t i = n_out; i > 0 && n_out > 1; i--) {
        uint32_t node = out[i - 1].node;

        if (over[node] > 0 && !solution_has(of_expert, n, node)) {
            over[node]--;
            out[i - 1] = out[--n_out];
        }
    }
    return n_out;
}

static size_t merge(const solver *s, uint64_t over[ROUTER_MAX_NODES], router_replica *out)
{
    size_t n_out = 0;

    for (size_t begin = 0, end; begin < s->n_replicas; begin = end) {
        const router_replica *of_expert = &s->replicas[begin];

        for (end = begin + 1; end < s->n_replicas && s->replicas[end].layer == of_expert->layer &&
                              s->replicas[end].expert_id == of_expert->expert_id;
             end++) {
        }
        n_out += merge_expert(s, of_expert, end - begin, over, out + n_out);
    }
    return n_out;
}

/* Twice: the first time shows which nodes would hold more than fits. */
static moe_status keep_what_has_an_owner(solver *s, moe_error *err)
{
    uint64_t over[ROUTER_MAX_NODES] = {0}, n_held[ROUTER_MAX_NODES] = {0};
    uint32_t owners[ROUTER_MAX_NODES];
    size_t most = s->n_replicas;
    for (uint32_t slot = 0; slot < router_space_n_slots(s->space); slot++) {
        const router_expert *e = router_space_expert(s->space, slot);

        most += previous_owners(s, e->layer, e->id, owners);
    }
    router_replica *merged = calloc(most, sizeof *merged);

    if (merged == NULL) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "solver: %zu copies", most);
    }
    size_t n = merge(s, over, merged);
    for (size_t i = 0; i < n; i++) {
        n_held[merged[i].node]++;
    }
    for (uint32_t i = 0; i < s->n_nodes; i++) {
        over[i] = n_held[i] > s->limit[i] ? n_held[i] - s->limit[i] : 0;
    }
    n = merge(s, over, merged);
    free(s->replicas);
    s->replicas = merged;
    s->n_replicas = n;
    return MOE_OK;
}

static moe_status open_tables(solver *s, moe_error *err)
{
    s->extra = calloc(s->n_layers, sizeof *s->extra);
    s->quota = calloc((size_t)s->n_nodes * s->n_layers, sizeof *s->quota);
    s->ids = calloc(s->widest, sizeof *s->ids);
    s->on = calloc(s->n_nodes, s->widest);
    s->copies = calloc(s->widest, sizeof *s->copies);
    s->wanted = calloc(s->widest, sizeof *s->wanted);
    s->left = calloc(s->widest, sizeof *s->left);
    if (s->extra == NULL || s->quota == NULL || s->ids == NULL || s->on == NULL || s->copies == NULL ||
        s->wanted == NULL || s->left == NULL) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "solver: %u layers of up to %u experts", s->n_layers, s->widest);
    }
    return MOE_OK;
}

static moe_status open_quotas(solver *s, moe_error *err)
{
    uint32_t *lacking = calloc(s->n_layers, sizeof *lacking);
    uint8_t *given = calloc(s->n_layers, sizeof *given);
    moe_status status = MOE_ERR_NO_MEMORY;

    if (lacking != NULL && given != NULL) {
        set_quotas(s, lacking, given);
        status = MOE_OK;
    }
    free(lacking);
    free(given);
    s->replicas = calloc(s->n_copies, sizeof *s->replicas);
    return status == MOE_OK && s->replicas != NULL
               ? MOE_OK
               : moe_fail(err, MOE_ERR_NO_MEMORY, "solver: %llu copies", (unsigned long long)s->n_copies);
}

static moe_status solve_all(solver *s, router_placement **out, moe_error *err)
{
    const char *ids[ROUTER_MAX_NODES];

    find_zones(s);
    find_previous(s);
    find_limits(s);
    moe_status status = open_tables(s, err);
    if (status == MOE_OK) {
        status = count_copies(s, err);
    }
    if (status != MOE_OK) {
        return status;
    }
    divide(s);
    if ((status = open_quotas(s, err)) != MOE_OK) {
        return status;
    }
    for (uint32_t layer = 0; layer < s->n_layers; layer++) {
        solve_layer(s, layer);
    }
    if (s->in->only_lost && (status = keep_what_has_an_owner(s, err)) != MOE_OK) {
        return status;
    }
    for (uint32_t i = 0; i < s->n_nodes; i++) {
        ids[i] = s->in->nodes[i].id;
    }
    return router_placement_open(s->in->epoch, s->in->space, ids, s->n_nodes, s->replicas, s->n_replicas, out, err);
}

moe_status router_solve(const router_solver_input *input, router_placement **out, moe_error *err)
{
    moe_status status = check_input(input, err);

    if (status != MOE_OK) {
        return status;
    }
    solver s = {.in = input,
                .space = input->space,
                .n_nodes = (uint32_t)input->n_nodes,
                .n_layers = router_space_n_layers(input->space),
                .widest = router_space_widest(input->space),
                .n_experts = count_wanted(input),
                .replication = MOE_MIN(input->replication, (uint32_t)input->n_nodes)};
    status = solve_all(&s, out, err);
    free(s.extra);
    free(s.quota);
    free(s.ids);
    free(s.on);
    free(s.copies);
    free(s.wanted);
    free(s.left);
    free(s.replicas);
    return status;
}
