/* Placement: an immutable table from (layer, expert) to the nodes that hold it. */
#include "router/router.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

struct router_placement {
    atomic_uint refs;
    uint64_t epoch;
    router_space *space; /* shared */
    size_t n_nodes;
    uint32_t n_slots;
    char (*node_ids)[ROUTER_MAX_NODE_ID + 1]; /* owned [n_nodes] */
    uint32_t *first;                          /* owned [n_slots + 1]: into nodes */
    uint32_t *nodes;                          /* owned; per expert ascending, the spare ones last */
    uint16_t *n_preferred;                    /* owned [n_slots] */
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

/* The slot of a replica's expert. */
static moe_status find_slot(const router_placement *p, const router_replica *r, size_t i, uint32_t *slot,
                            moe_error *err)
{
    *slot = router_space_slot(p->space, r->layer, r->expert_id);
    if (*slot == ROUTER_NO_SLOT || router_space_expert(p->space, *slot)->is_local) {
        return moe_fail(err, MOE_ERR_INVALID_ARG,
                        "placement: replica %zu: layer %u expert %d: there is no such expert for nodes", i, r->layer,
                        r->expert_id);
    }
    if (r->node >= p->n_nodes) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "placement: replica %zu: layer %u expert %d: node %u, limit %zu", i,
                        r->layer, r->expert_id, r->node, p->n_nodes);
    }
    return MOE_OK;
}

/* Within an expert: by node, the spare ones last. */
#define SPARE UINT32_C(0x80000000)

/* Keys of an expert become nodes; returns one that is there twice, or n_nodes. */
static size_t take_keys(router_placement *p, uint32_t slot)
{
    router_nodes seen = {{0}};

    for (uint32_t i = p->first[slot]; i < p->first[slot + 1]; i++) {
        p->n_preferred[slot] = (uint16_t)(p->n_preferred[slot] + ((p->nodes[i] & SPARE) == 0));
        p->nodes[i] &= ~SPARE;
        if (router_nodes_has(&seen, p->nodes[i])) {
            return p->nodes[i];
        }
        router_nodes_add(&seen, p->nodes[i]);
    }
    return p->n_nodes;
}

/* Among an expert's nodes, in order; places that are still free hold UINT32_MAX, which is above every key. They are few. */
static void insert_key(uint32_t *begin, uint32_t key)
{
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

/* Counting sort: first[slot] is where an expert's nodes begin. slots [n] is of each replica. */
static moe_status sort_replicas(router_placement *p, const router_replica *replicas, const uint32_t *slots, size_t n,
                                moe_error *err)
{
    for (size_t i = 0; i < n; i++) {
        p->first[slots[i] + 1]++;
    }
    for (uint32_t s = 0; s < p->n_slots; s++) {
        p->first[s + 1] += p->first[s];
    }
    memset(p->nodes, 0xff, n * sizeof *p->nodes);
    for (size_t i = 0; i < n; i++) {
        insert_key(p->nodes + p->first[slots[i]], replicas[i].node | (replicas[i].spare ? SPARE : 0));
    }
    for (uint32_t s = 0; s < p->n_slots; s++) {
        size_t twice = take_keys(p, s);

        if (twice < p->n_nodes) {
            const router_expert *e = router_space_expert(p->space, s);
            return moe_fail(err, MOE_ERR_INVALID_ARG, "placement: layer %u expert %d is on node %s twice", e->layer,
                            e->id, p->node_ids[twice]);
        }
    }
    return MOE_OK;
}

static moe_status place_replicas(router_placement *p, const router_replica *replicas, size_t n, moe_error *err)
{
    uint32_t *slots = calloc(n + 1, sizeof *slots);
    moe_status status = slots != NULL ? MOE_OK : moe_fail(err, MOE_ERR_NO_MEMORY, "placement: %zu replicas", n);

    for (size_t i = 0; i < n && status == MOE_OK; i++) {
        status = find_slot(p, &replicas[i], i, &slots[i], err);
    }
    if (status == MOE_OK) {
        status = sort_replicas(p, replicas, slots, n, err);
    }
    free(slots);
    return status;
}

static void placement_free(router_placement *p)
{
    router_space_unref(p->space);
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
    p->first = calloc((size_t)p->n_slots + 1, sizeof *p->first);
    p->nodes = calloc(n_replicas + 1, sizeof *p->nodes);
    p->n_preferred = calloc((size_t)p->n_slots + 1, sizeof *p->n_preferred);
    if (p->node_ids == NULL || p->first == NULL || p->nodes == NULL || p->n_preferred == NULL) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "placement: %zu replicas", n_replicas);
    }
    moe_status status = copy_node_ids(p, node_ids, err);
    return status == MOE_OK ? place_replicas(p, replicas, n_replicas, err) : status;
}

moe_status router_placement_open(uint64_t epoch, router_space *space, const char *const *node_ids, size_t n_nodes,
                                 const router_replica *replicas, size_t n_replicas, router_placement **out,
                                 moe_error *err)
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
    p->space = router_space_ref(space);
    p->n_slots = router_space_n_slots(space);
    p->n_nodes = n_nodes;
    moe_status status = placement_fill(p, node_ids, replicas, n_replicas, err);
    if (status != MOE_OK) {
        placement_free(p);
        return status;
    }
    *out = p;
    return MOE_OK;
}

moe_status router_placement_open_single(uint64_t epoch, router_space *space, const char *node_id,
                                        router_placement **out, moe_error *err)
{
    uint32_t n_slots = router_space_n_slots(space);
    size_t n = 0;
    router_replica *replicas = calloc(n_slots, sizeof *replicas);

    if (replicas == NULL) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "placement: %u replicas", n_slots);
    }
    for (uint32_t slot = 0; slot < n_slots; slot++) {
        const router_expert *e = router_space_expert(space, slot);

        if (!e->is_local) {
            replicas[n++] = (router_replica){.layer = e->layer, .expert_id = e->id};
        }
    }
    moe_status status = router_placement_open(epoch, space, &node_id, 1, replicas, n, out, err);
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

router_space *router_placement_space(const router_placement *p)
{
    return p->space;
}

size_t router_placement_n_nodes(const router_placement *p)
{
    return p->n_nodes;
}

const char *router_placement_node_id(const router_placement *p, size_t node)
{
    MOE_ASSERT(node < p->n_nodes);
    return p->node_ids[node];
}

const uint32_t *router_placement_owners(const router_placement *p, uint32_t slot, size_t *n_out)
{
    *n_out = slot < p->n_slots ? p->first[slot + 1] - p->first[slot] : 0;
    return slot < p->n_slots ? p->nodes + p->first[slot] : p->nodes;
}

const uint32_t *router_placement_replicas(const router_placement *p, uint32_t layer, int32_t expert_id, size_t *n_out)
{
    return router_placement_owners(p, router_space_slot(p->space, layer, expert_id), n_out);
}

size_t router_placement_n_preferred(const router_placement *p, uint32_t slot)
{
    return slot < p->n_slots ? p->n_preferred[slot] : 0;
}
