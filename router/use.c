/* How much each expert is used. One thread counts, with plain adds that readers see whole. */
#include "router/router.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define FOLD_NS UINT64_C(1000000000) /* rates follow once a second: a pass over all experts */
#define MARK_NS (ROUTER_USE_MARK_S * UINT64_C(1000000000))

struct router_use {
    router_space *space; /* shared */
    uint32_t k;
    size_t n_slots;
    _Atomic uint64_t *rows;       /* owned [n_slots] */
    _Atomic double *mass;         /* owned [n_slots] */
    _Atomic uint64_t *node_picks; /* owned [layers, k + 1] */
    uint64_t *folded;             /* owned [n_slots]: rows that are in the rates */
    double *rate;                 /* owned [n_slots] */
    uint64_t folded_ns;
    uint64_t *marks; /* owned [ROUTER_USE_MARKS, n_slots]: rows as they were; a ring */
    uint64_t marked_ns[ROUTER_USE_MARKS];
    size_t n_marks; /* ever made: the latest one is that before; 0 in it was at open */
};

/* Of the i-th that was ever made. */
static uint64_t *mark_at(const router_use *u, size_t i)
{
    return u->marks + i % ROUTER_USE_MARKS * u->n_slots;
}

moe_status router_use_open(router_space *space, uint32_t k, uint64_t now_ns, router_use **out)
{
    router_use *u = calloc(1, sizeof *u);
    size_t n = router_space_n_slots(space);

    if (u == NULL) {
        return MOE_ERR_NO_MEMORY;
    }
    u->space = router_space_ref(space);
    u->k = k;
    u->n_slots = n;
    u->folded_ns = now_ns;
    u->rows = calloc(n, sizeof *u->rows);
    u->mass = calloc(n, sizeof *u->mass);
    u->node_picks = calloc((size_t)router_space_n_layers(space) * (k + 1), sizeof *u->node_picks);
    u->folded = calloc(n, sizeof *u->folded);
    u->rate = calloc(n, sizeof *u->rate);
    u->marks = calloc(n * ROUTER_USE_MARKS, sizeof *u->marks); /* memory is taken as they are made */
    if (u->rows == NULL || u->mass == NULL || u->node_picks == NULL || u->folded == NULL || u->rate == NULL ||
        u->marks == NULL) {
        router_use_close(u);
        return MOE_ERR_NO_MEMORY;
    }
    u->marked_ns[0] = now_ns;
    u->n_marks = 1;
    *out = u;
    return MOE_OK;
}

void router_use_close(router_use *u)
{
    if (u != NULL) {
        router_space_unref(u->space);
        free(u->rows);
        free(u->mass);
        free(u->node_picks);
        free(u->folded);
        free(u->rate);
        free(u->marks);
        free(u);
    }
}

void router_use_take(router_use *u, const router_use *before)
{
    MOE_ASSERT(u->k == before->k && u->n_slots >= before->n_slots);
    for (size_t slot = 0; slot < before->n_slots; slot++) {
        u->rows[slot] = before->rows[slot];
        u->mass[slot] = before->mass[slot];
        u->folded[slot] = before->folded[slot];
        u->rate[slot] = before->rate[slot];
    }
    for (size_t i = 0; i < (size_t)router_space_n_layers(u->space) * (u->k + 1); i++) {
        u->node_picks[i] = before->node_picks[i];
    }
    u->folded_ns = before->folded_ns;
    u->n_marks = before->n_marks;
    memcpy(u->marked_ns, before->marked_ns, sizeof u->marked_ns);
    for (size_t i = 0; i < MOE_MIN(u->n_marks, (size_t)ROUTER_USE_MARKS); i++) {
        memcpy(mark_at(u, i), mark_at(before, i), before->n_slots * sizeof *u->marks); /* by place in the ring */
    }
}

/* ------------------------------------------------------------------------------------------------ counting */
static void count(_Atomic uint64_t *at)
{
    atomic_store_explicit(at, atomic_load_explicit(at, memory_order_relaxed) + 1, memory_order_relaxed);
}

static void add(_Atomic double *at, double value)
{
    atomic_store_explicit(at, atomic_load_explicit(at, memory_order_relaxed) + value, memory_order_relaxed);
}

void router_use_count(router_use *u, uint32_t layer, const int32_t *ids, const float *weights, size_t n_rows)
{
    const router_space_layer *experts = router_space_at(u->space, layer);

    for (size_t row = 0; row < n_rows; row++) {
        uint32_t n_node = 0;

        for (size_t i = row * u->k; i < (row + 1) * u->k; i++) {
            uint32_t slot = experts->slots[router_space_place(experts, ids[i])];

            n_node += !router_space_expert(u->space, slot)->is_local;
            count(&u->rows[slot]);
            add(&u->mass[slot], (double)weights[i]);
        }
        count(&u->node_picks[(size_t)layer * (u->k + 1) + n_node]);
    }
}

void router_use_fold(router_use *u, uint64_t now_ns)
{
    uint64_t past_ns = now_ns > u->folded_ns ? now_ns - u->folded_ns : 0;
    double seconds = (double)past_ns * 1e-9;

    if (past_ns < FOLD_NS) {
        return;
    }
    double keep = exp2(-seconds / ROUTER_USE_HALF_LIFE_S);
    for (size_t slot = 0; slot < u->n_slots; slot++) {
        uint64_t rows = atomic_load_explicit(&u->rows[slot], memory_order_relaxed);

        u->rate[slot] = keep * u->rate[slot] + (1.0 - keep) * (double)(rows - u->folded[slot]) / seconds;
        u->folded[slot] = rows;
    }
    u->folded_ns = now_ns;
    if (now_ns - u->marked_ns[(u->n_marks - 1) % ROUTER_USE_MARKS] >= MARK_NS) {
        u->marked_ns[u->n_marks % ROUTER_USE_MARKS] = now_ns;
        memcpy(mark_at(u, u->n_marks++), u->folded, u->n_slots * sizeof *u->marks);
    }
}

/* ------------------------------------------------------------------------------------------------ reading */
void router_use_read(const router_use *u, router_expert_use *out, size_t n)
{
    for (size_t slot = 0; slot < MOE_MIN(n, u->n_slots); slot++) {
        out[slot] = (router_expert_use){.rows = atomic_load_explicit(&u->rows[slot], memory_order_relaxed),
                                        .mass = atomic_load_explicit(&u->mass[slot], memory_order_relaxed),
                                        .rate = u->rate[slot]};
    }
}

void router_use_read_rows(const router_use *u, uint64_t *out, size_t n)
{
    for (size_t slot = 0; slot < MOE_MIN(n, u->n_slots); slot++) {
        out[slot] = atomic_load_explicit(&u->rows[slot], memory_order_relaxed);
    }
}

bool router_use_read_over(const router_use *u, uint64_t now_ns, uint64_t over_ns, uint64_t *out, size_t n,
                          uint64_t *longest_ns)
{
    const size_t oldest = u->n_marks - MOE_MIN(u->n_marks, (size_t)ROUTER_USE_MARKS);
    size_t i = u->n_marks;

    *longest_ns = now_ns - MOE_MIN(u->marked_ns[oldest % ROUTER_USE_MARKS], now_ns);
    if (over_ns > *longest_ns) {
        return false;
    }
    while (i > oldest + 1 && now_ns - MOE_MIN(u->marked_ns[(i - 1) % ROUTER_USE_MARKS], now_ns) < over_ns) {
        i--;
    }
    const uint64_t *from = mark_at(u, i - 1);
    for (size_t slot = 0; slot < MOE_MIN(n, u->n_slots); slot++) {
        out[slot] = atomic_load_explicit(&u->rows[slot], memory_order_relaxed) - from[slot];
    }
    return true;
}

void router_use_read_node_picks(const router_use *u, uint64_t *out, size_t n)
{
    size_t all = (size_t)router_space_n_layers(u->space) * (u->k + 1);

    for (size_t i = 0; i < MOE_MIN(n, all); i++) {
        out[i] = atomic_load_explicit(&u->node_picks[i], memory_order_relaxed);
    }
}
