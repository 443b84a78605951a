/* Plan: picks -> nodes -> parts.
 *
 *   count_experts   picks per expert
 *   order_experts   the experts in the order in which they choose; their picks grouped
 *   assign_expert   each takes the replica (or, chunk by chunk, the replicas) that makes the step shortest
 *   sort_by_node    the picks, by node
 *   router_plan_next cuts a node's picks into parts
 *
 * All passes are linear in the picks, but for sorting the experts in use, and nothing is allocated: a plan is made for
 * each layer of each step, and until it is made no node has anything to do. Experts choose greedily in a fixed order,
 * so equal input gives an equal plan. No plan changes an answer, only how long it takes. */
#include "router/router.h"

#include <stdlib.h>

/* What reading one more expert costs a node, in rows: decode is bound by the bytes of weights read, prefill by rows.
 * Chosen, not measured. The kernels' table in docs/benchmarks.md puts it higher on that machine: two threads take as
 * long for 16 rows of an expert as for one, and 1.6 times as long for 32. Machines without bf16 products have it
 * lower. */
#define PLAN_EXPERT_COST 8
/* An expert with several replicas is dealt out in pieces of this many rows, so that a hot one can be split. Chosen, not
 * measured: four times the cost of reading it at one more node, so a split is worth its read. */
#define PLAN_CHUNK    32
#define PLAN_NO_NODE  UINT16_MAX
#define PLAN_NO_PLACE UINT32_MAX

struct router_plan {
    uint32_t k, widest;
    size_t max_rows;
    const router_space_layer *layer; /* borrowed until the parts have been taken */
    uint32_t *place_of;              /* owned [max_picks] the expert's place in the layer; PLAN_NO_PLACE: not to plan */
    uint32_t *expert_count;          /* owned [widest] by place, all 0 between uses */
    uint32_t *expert_first;          /* owned [widest] by place */
    uint64_t *active;                /* owned [min(widest, picks)]: sort key and place of each expert in use */
    uint32_t *by_expert;             /* owned [max_picks] picks grouped by expert */
    uint32_t *by_node;               /* owned [max_picks] picks grouped by node, ascending */
    uint16_t *node_of;               /* owned [max_picks] */
    uint32_t node_end[ROUTER_MAX_NODES];
    size_t n_nodes, n_active;

    /* where next stands, and what it hands out */
    uint32_t node, at;
    size_t max_part_rows, max_part_picks;
    uint32_t *rows;            /* owned [max_rows] */
    router_plan_group *groups; /* owned, as active */
    uint32_t *pick_rows;       /* owned [max_picks] */
    uint32_t *picks;           /* owned [max_picks] */
};

void router_plan_close(router_plan *plan)
{
    if (plan == NULL) {
        return;
    }
    free(plan->place_of);
    free(plan->expert_count);
    free(plan->expert_first);
    free(plan->active);
    free(plan->by_expert);
    free(plan->by_node);
    free(plan->node_of);
    free(plan->rows);
    free(plan->groups);
    free(plan->pick_rows);
    free(plan->picks);
    free(plan);
}

moe_status router_plan_open(size_t max_rows, uint32_t k, uint32_t widest, router_plan **out)
{
    MOE_ASSERT(max_rows > 0 && k > 0 && widest > 0);
    if (max_rows > INT32_MAX / k) {
        return MOE_ERR_INVALID_ARG;
    }
    size_t n_picks = max_rows * k;
    size_t n_active = MOE_MIN(n_picks, widest);
    router_plan *plan = calloc(1, sizeof *plan);

    if (plan == NULL) {
        return MOE_ERR_NO_MEMORY;
    }
    *plan = (router_plan){.k = k, .widest = widest, .max_rows = max_rows};
    plan->place_of = calloc(n_picks, sizeof *plan->place_of);
    plan->expert_count = calloc(widest, sizeof *plan->expert_count);
    plan->expert_first = calloc(widest, sizeof *plan->expert_first);
    plan->active = calloc(n_active, sizeof *plan->active);
    plan->by_expert = calloc(n_picks, sizeof *plan->by_expert);
    plan->by_node = calloc(n_picks, sizeof *plan->by_node);
    plan->node_of = calloc(n_picks, sizeof *plan->node_of);
    plan->rows = calloc(max_rows, sizeof *plan->rows);
    plan->groups = calloc(n_active, sizeof *plan->groups);
    plan->pick_rows = calloc(n_picks, sizeof *plan->pick_rows);
    plan->picks = calloc(n_picks, sizeof *plan->picks);
    if (plan->place_of == NULL || plan->expert_count == NULL || plan->expert_first == NULL || plan->active == NULL ||
        plan->by_expert == NULL || plan->by_node == NULL || plan->node_of == NULL || plan->rows == NULL ||
        plan->groups == NULL || plan->pick_rows == NULL || plan->picks == NULL) {
        router_plan_close(plan);
        return MOE_ERR_NO_MEMORY;
    }
    *out = plan;
    return MOE_OK;
}

static void sift_down(uint64_t *v, size_t at, size_t n)
{
    for (size_t child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && v[child] < v[child + 1]) {
            child++;
        }
        if (v[at] >= v[child]) {
            return;
        }
        uint64_t swap = v[at];
        v[at] = v[child];
        v[child] = swap;
    }
}

/* Ascending, in place, without the allocation that qsort may do. */
static void heap_sort(uint64_t *v, size_t n)
{
    for (size_t i = n / 2; i-- > 0;) {
        sift_down(v, i, n);
    }
    for (size_t end = n; end-- > 1;) {
        uint64_t swap = v[0];
        v[0] = v[end];
        v[end] = swap;
        sift_down(v, 0, end);
    }
}

static uint32_t active_place(const router_plan *plan, size_t i)
{
    return (uint32_t)plan->active[i];
}

/* A spare one only where there is no other. */
static size_t usable_replicas(const router_plan *plan, const router_plan_input *in, uint32_t place, uint32_t *nodes)
{
    size_t n;
    size_t n_usable = 0;
    uint32_t slot = plan->layer->slots[place];
    const uint32_t *all = router_placement_owners(in->placement, slot, &n);
    size_t n_preferred = router_placement_n_preferred(in->placement, slot);

    for (size_t i = 0; i < n && (i != n_preferred || n_usable == 0); i++) {
        if (in->usable[all[i]]) {
            nodes[n_usable++] = all[i];
        }
    }
    return n_usable;
}

/* Counts the asked-for picks per expert. Returns how many name an expert that the placement's space has not. */
static size_t count_experts(router_plan *plan, const router_plan_input *in)
{
    size_t n_unknown = 0;

    plan->n_active = 0;
    for (size_t pick = 0; pick < in->n_rows * plan->k; pick++) {
        int32_t id = in->ids[pick];

        plan->node_of[pick] = PLAN_NO_NODE;
        plan->place_of[pick] = PLAN_NO_PLACE;
        if (id < 0 || (in->skip != NULL && in->skip[pick] != 0)) {
            continue;
        }
        uint32_t place = router_space_place(plan->layer, id);
        if (place >= plan->widest) { /* ROUTER_NO_SLOT is, too */
            n_unknown++;
            continue;
        }
        plan->place_of[pick] = place;
        if (plan->expert_count[place]++ == 0) {
            plan->active[plan->n_active++] = place;
        }
    }
    return n_unknown;
}

/* Experts without a choice come first, then the largest: what is placed late can still fill the gaps. Ties by place, that
 * is by id. */
static void order_experts(router_plan *plan, const router_plan_input *in)
{
    uint32_t nodes[ROUTER_MAX_NODES];
    uint32_t first = 0;

    for (size_t i = 0; i < plan->n_active; i++) {
        uint32_t place = active_place(plan, i);
        uint64_t choice = usable_replicas(plan, in, place, nodes) > 1;

        plan->active[i] = choice << 63 | (uint64_t)(INT32_MAX - plan->expert_count[place]) << 32 | place;
    }
    heap_sort(plan->active, plan->n_active);
    for (size_t i = 0; i < plan->n_active; i++) {
        uint32_t place = active_place(plan, i);

        plan->expert_first[place] = first;
        first += plan->expert_count[place];
        plan->expert_count[place] = 0;
    }
    for (size_t pick = 0; pick < in->n_rows * plan->k; pick++) {
        uint32_t place = plan->place_of[pick];

        if (place != PLAN_NO_PLACE) {
            plan->by_expert[plan->expert_first[place] + plan->expert_count[place]++] = (uint32_t)pick;
        }
    }
}

/* What n rows of an expert take a node; reads_it: the nodes that read it anyway. */
static uint64_t cost_of(const router_plan_input *in, size_t n, uint32_t node, const router_nodes *reads_it)
{
    uint64_t units = n + (router_nodes_has(reads_it, node) ? 0 : PLAN_EXPERT_COST);

    return units * (in->burden == NULL ? ROUTER_BURDEN_ONE : in->burden[node]);
}

/* The node that would be done first with n rows of the expert. Ties go to the one that comes first. */
static uint32_t cheapest(const router_plan_input *in, const uint32_t *nodes, size_t n_nodes, size_t n,
                         const uint64_t *load, const router_nodes *reads_it)
{
    uint32_t best = nodes[0];
    uint64_t best_cost = UINT64_MAX;

    for (size_t i = 0; i < n_nodes; i++) {
        uint64_t cost = load[nodes[i]] + cost_of(in, n, nodes[i], reads_it);

        if (cost < best_cost) {
            best = nodes[i];
            best_cost = cost;
        }
    }
    return best;
}

/* Gives the expert's picks to nodes. Returns how many could not be given. With one usable replica there is nothing to
 * decide, so all go in one piece. */
static size_t assign_expert(router_plan *plan, const router_plan_input *in, uint32_t place, uint64_t *load)
{
    uint32_t nodes[ROUTER_MAX_NODES];
    size_t n_nodes = usable_replicas(plan, in, place, nodes);
    const uint32_t *picks = plan->by_expert + plan->expert_first[place];
    size_t n = plan->expert_count[place];
    size_t chunk = n_nodes == 1 ? n : PLAN_CHUNK;
    router_nodes reads_it = {{0}};

    if (n_nodes == 0) {
        return n;
    }
    for (size_t at = 0; at < n; at += chunk) {
        size_t end = MOE_MIN(at + chunk, n);
        uint32_t node = cheapest(in, nodes, n_nodes, end - at, load, &reads_it);

        load[node] += cost_of(in, end - at, node, &reads_it);
        router_nodes_add(&reads_it, node);
        for (size_t i = at; i < end; i++) {
            plan->node_of[picks[i]] = (uint16_t)node;
        }
    }
    return 0;
}

static void sort_by_node(router_plan *plan, size_t n_picks)
{
    uint32_t at[ROUTER_MAX_NODES] = {0};
    uint32_t first = 0;

    for (size_t pick = 0; pick < n_picks; pick++) {
        if (plan->node_of[pick] != PLAN_NO_NODE) {
            at[plan->node_of[pick]]++;
        }
    }
    for (size_t node = 0; node < plan->n_nodes; node++) {
        uint32_t n = at[node];

        at[node] = first;
        first += n;
        plan->node_end[node] = first;
    }
    for (size_t pick = 0; pick < n_picks; pick++) {
        if (plan->node_of[pick] != PLAN_NO_NODE) {
            plan->by_node[at[plan->node_of[pick]]++] = (uint32_t)pick;
        }
    }
}

size_t router_plan_build(router_plan *plan, const router_plan_input *in)
{
    uint64_t load[ROUTER_MAX_NODES] = {0};

    MOE_ASSERT(in->n_rows <= plan->max_rows && in->max_part_rows >= 1 && in->max_part_picks >= plan->k);
    plan->layer = router_space_at(router_placement_space(in->placement), in->layer);
    plan->max_part_rows = in->max_part_rows;
    plan->max_part_picks = in->max_part_picks;
    plan->n_nodes = router_placement_n_nodes(in->placement);
    plan->node = 0;
    plan->at = 0;
    size_t n_unplaced = count_experts(plan, in);
    order_experts(plan, in);
    for (size_t i = 0; i < plan->n_active; i++) {
        uint32_t place = active_place(plan, i);

        n_unplaced += assign_expert(plan, in, place, load);
        plan->expert_count[place] = 0;
    }
    sort_by_node(plan, in->n_rows * plan->k);
    return n_unplaced;
}

/* Takes whole rows from by_node[at ..] while they fit; returns the number of picks taken. A row's picks stay together,
 * so that the row crosses the network once per node. */
static uint32_t take_rows(router_plan *plan, router_plan_part *part)
{
    const uint32_t *from = plan->by_node + plan->at;
    uint32_t left = plan->node_end[plan->node] - plan->at;
    uint32_t n = 0;

    part->n_rows = 0;
    while (n < left && part->n_rows < plan->max_part_rows) {
        uint32_t row = from[n] / plan->k;
        uint32_t end = n + 1;

        while (end < left && from[end] / plan->k == row) {
            end++;
        }
        if (end > plan->max_part_picks) {
            break;
        }
        plan->rows[part->n_rows++] = row;
        n = end;
    }
    return n;
}

/* Groups the picks by ascending expert; a stable counting sort keeps the rows ascending in each group. */
static void group_picks(router_plan *plan, router_plan_part *part)
{
    const uint32_t *from = plan->by_node + plan->at;
    uint32_t first = 0;
    uint32_t row_idx = 0;

    plan->n_active = 0;
    for (uint32_t i = 0; i < part->n_picks; i++) {
        uint32_t place = plan->place_of[from[i]];

        if (plan->expert_count[place]++ == 0) {
            plan->active[plan->n_active++] = place;
        }
    }
    heap_sort(plan->active, plan->n_active);
    for (size_t g = 0; g < plan->n_active; g++) {
        uint32_t place = active_place(plan, g);

        plan->groups[g] = (router_plan_group){plan->layer->ids[place], plan->expert_count[place]};
        plan->expert_first[place] = first;
        first += plan->expert_count[place];
        plan->expert_count[place] = 0;
    }
    part->n_groups = (uint32_t)plan->n_active;
    for (uint32_t i = 0; i < part->n_picks; i++) {
        uint32_t to = plan->expert_first[plan->place_of[from[i]]]++;

        row_idx += from[i] / plan->k != plan->rows[row_idx];
        plan->pick_rows[to] = row_idx;
        plan->picks[to] = from[i];
    }
}

bool router_plan_next(router_plan *plan, router_plan_part *part)
{
    while (plan->node < plan->n_nodes && plan->at == plan->node_end[plan->node]) {
        plan->node++;
    }
    if (plan->node == plan->n_nodes) {
        return false;
    }
    part->node = plan->node;
    part->n_picks = take_rows(plan, part);
    group_picks(plan, part);
    plan->at += part->n_picks;
    part->cost = part->n_picks + part->n_groups * PLAN_EXPERT_COST;
    part->rows = plan->rows;
    part->groups = plan->groups;
    part->pick_rows = plan->pick_rows;
    part->picks = plan->picks;
    return true;
}
