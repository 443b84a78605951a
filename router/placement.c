/* Placement: an immutable table from (layer, expert) to the nodes that hold it. */
#include "router/router.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

struct router_placement {
    atomic_uint refs;
    uint64_t epoch;
    uint32_t n_layers, n_experts_max;
    size_t n_nodes;
    char (*node_ids)[ROUTER_MAX_NODE_ID + 1]; /* owned [n_nodes] */
    uint32_t *first;                          /* owned [n_layers * n_experts_max + 1]: into nodes */
    uint32_t *nodes;                          /* owned; per expert ascending, the spare ones last */
    uint8_t *n_preferred;                     /* owned [n_layers * n_experts_max] */
};

static moe_status copy_node_ids(router_placement *p, const char *const *node_ids, moe_error *err)
{
    for (size_t i = 0; i < p->n_nodes; i++) {
        size_t length = strlen(node_ids[i]);

        if (length == 0 || length > ROUTER_MAX_NODE_ID) {
            return moe_fail(err, MOE_ERR_INVALID_ARG, "placement: node %zu has an id of %zu characters, limit %d", i,
                            length, ROUTER_MAX_NODE_ID);
        }
        for (size_t j = 0; j < i; j++) {
            if (strcmp(node_ids[i], node_ids[j]) == 0) {
                return moe_fail(err, MOE_ERR_INVALID_ARG, "placement: node %s is given twice", node_ids[i]);
            }
        }
        memcpy(p->node_ids[i], node_ids[i], length + 1);
    }
    return MOE_OK;
}

static moe_status check_replicas(const router_placement *p, const router_replica *replicas, size_t n, moe_error *err)
{
    for (size_t i = 0; i < n; i++) {
        const router_replica *r = &replicas[i];

        if (r->layer >= p->n_layers || r->expert_id < 0 || (uint32_t)r->expert_id >= p->n_experts_max ||
            r->node >= p->n_nodes) {
            return moe_fail(err, MOE_ERR_INVALID_ARG,
                            "placement: replica %zu: layer %u expert %d node %u, limits %u layers %u experts %zu nodes",
                            i, r->layer, r->expert_id, r->node, p->n_layers, p->n_experts_max, p->n_nodes);
        }
    }
    return MOE_OK;
}

/* Within an expert: by node, the spare ones last. */
#define SPARE UINT32_C(0x80000000)

static size_t slot_of(const router_placement *p, uint32_t layer, int32_t expert_id)
{
    return (size_t)layer * p->n_experts_max + (uint32_t)expert_id;
}

/* Keys of an expert become nodes; returns one that is there twice, or n_nodes. */
static size_t take_keys(router_placement *p, size_t slot)
{
    uint64_t seen = 0;

    _Static_assert(ROUTER_MAX_NODES <= 64, "a bit for each node");
    for (uint32_t i = p->first[slot]; i < p->first[slot + 1]; i++) {
        p->n_preferred[slot] = (uint8_t)(p->n_preferred[slot] + ((p->nodes[i] & SPARE) == 0));
        p->nodes[i] &= ~SPARE;
        if ((seen >> p->nodes[i] & 1) != 0) {
            return p->nodes[i];
        }
        seen |= UINT64_C(1) << p->nodes[i];
    }
    return p->n_nodes;
}

/* Counting sort: first[slot] is where an expert's nodes begin. Within an expert they are few, so each is inserted in
 * order; places that are still free hold UINT32_MAX, which is above every key. */
static moe_status sort_replicas(router_placement *p, const router_replica *replicas, size_t n, moe_error *err)
{
    size_t n_slots = (size_t)p->n_layers * p->n_experts_max;

    for (size_t i = 0; i < n; i++) {
        p->first[slot_of(p, replicas[i].layer, replicas[i].expert_id) + 1]++;
    }
    for (size_t s = 0; s < n_slots; s++) {
        p->first[s + 1] += p->first[s];
    }
    memset(p->nodes, 0xff, n * sizeof *p->nodes);
    for (size_t i = 0; i < n; i++) {
        uint32_t *begin = p->nodes + p->first[slot_of(p, replicas[i].layer, replicas[i].expert_id)];
        uint32_t key = replicas[i].node | (replicas[i].spare ? SPARE : 0);
        size_t used = 0;

        while (begin[used] < key) {
            used++;
        }
        for (uint32_t carry = key; carry != UINT32_MAX; used++) {
            uint32_t here = begin[used];

            begin[used] = carry;
            carry = here;
        }
    }
    for (size_t s = 0; s < n_slots; s++) {
        size_t twice = take_keys(p, s);
        if (twice < p->n_nodes) {
            return moe_fail(err, MOE_ERR_INVALID_ARG, "placement: layer %zu expert %zu is on node %s twice",
                            s / p->n_experts_max, s % p->n_experts_max, p->node_ids[twice]);
        }
    }
    return MOE_OK;
}

static void placement_free(router_placement *p)
{
    free(p->node_ids);
    free(p->first);
    free(p->nodes);
    free(p->n_preferred);
    free(p);
}

static moe_status placement_fill(router_placement *p, const char *const *node_ids, const router_replica *replicas,
                                 size_t n_replicas, moe_error *err)
{
    p->node_ids = calloc(p->n_nodes + 1, sizeof *p->node_ids);
    p->first = calloc((size_t)p->n_layers * p->n_experts_max + 1, sizeof *p->first);
    p->nodes = calloc(n_replicas + 1, sizeof *p->nodes);
    p->n_preferred = calloc((size_t)p->n_layers * p->n_experts_max + 1, sizeof *p->n_preferred);
    if (p->node_ids == NULL || p->first == NULL || p->nodes == NULL || p->n_preferred == NULL) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "placement: %zu replicas", n_replicas);
    }
    moe_status status = copy_node_ids(p, node_ids, err);
    if (status == MOE_OK) {
        status = check_replicas(p, replicas, n_replicas, err);
    }
    if (status == MOE_OK) {
        status = sort_replicas(p, replicas, n_replicas, err);
    }
    return status;
}

moe_status router_placement_open(uint64_t epoch, const char *const *node_ids, size_t n_nodes, uint32_t n_layers,
                                 uint32_t n_experts_max, const router_replica *replicas, size_t n_replicas,
                                 router_placement **out, moe_error *err)
{
    if (n_nodes > ROUTER_MAX_NODES) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "placement: %zu nodes, limit %d", n_nodes, ROUTER_MAX_NODES);
    }
    if (n_replicas >= UINT32_MAX) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "placement: %zu replicas", n_replicas);
    }
    router_placement *p = calloc(1, sizeof *p);
    if (p == NULL) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "placement");
    }
    atomic_init(&p->refs, 1);
    p->epoch = epoch;
    p->n_layers = n_layers;
    p->n_experts_max = n_experts_max;
    p->n_nodes = n_nodes;
    moe_status status = placement_fill(p, node_ids, replicas, n_replicas, err);
    if (status != MOE_OK) {
        placement_free(p);
        return status;
    }
    *out = p;
    return MOE_OK;
}

moe_status router_placement_open_single(uint64_t epoch, const char *node_id, uint32_t n_layers, uint32_t n_experts_max,
                                        router_placement **out, moe_error *err)
{
    size_t n = (size_t)n_layers * n_experts_max;
    router_replica *replicas = calloc(n + 1, sizeof *replicas);

    if (replicas == NULL) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "placement: %zu replicas", n);
    }
    for (size_t i = 0; i < n; i++) {
        replicas[i] =
            (router_replica){.layer = (uint32_t)(i / n_experts_max), .expert_id = (int32_t)(i % n_experts_max)};
    }
    moe_status status = router_placement_open(epoch, &node_id, 1, n_layers, n_experts_max, replicas, n, out, err);
    free(replicas);
    return status;
}

router_placement *router_placement_ref(router_placement *p)
{
    atomic_fetch_add_explicit(&p->refs, 1, memory_order_relaxed);
    return p;
}

void router_placement_unref(router_placement *p)
{
    if (p != NULL && atomic_fetch_sub_explicit(&p->refs, 1, memory_order_acq_rel) == 1) {
        placement_free(p);
    }
}

uint64_t router_placement_epoch(const router_placement *p)
{
    return p->epoch;
}

size_t router_placement_n_nodes(const router_placement *p)
{
    return p->n_nodes;
}

uint32_t router_placement_n_layers(const router_placement *p)
{
    return p->n_layers;
}

uint32_t router_placement_n_experts_max(const router_placement *p)
{
    return p->n_experts_max;
}

const char *router_placement_node_id(const router_placement *p, size_t node)
{
    MOE_ASSERT(node < p->n_nodes);
    return p->node_ids[node];
}

const uint32_t *router_placement_replicas(const router_placement *p, uint32_t layer, int32_t expert_id, size_t *n_out)
{
    MOE_ASSERT(layer < p->n_layers && expert_id >= 0 && (uint32_t)expert_id < p->n_experts_max);
    size_t slot = slot_of(p, layer, expert_id);

    *n_out = p->first[slot + 1] - p->first[slot];
    return p->nodes + p->first[slot];
}

size_t router_placement_n_preferred(const router_placement *p, uint32_t layer, int32_t expert_id)
{
    MOE_ASSERT(layer < p->n_layers && expert_id >= 0 && (uint32_t)expert_id < p->n_experts_max);
    return p->n_preferred[slot_of(p, layer, expert_id)];
}
