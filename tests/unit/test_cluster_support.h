/* Members of one cluster on a store in memory and a virtual clock. */
#ifndef CONCLAVE_TESTS_CLUSTER_SUPPORT_H
#define CONCLAVE_TESTS_CLUSTER_SUPPORT_H

#include "tests/support/space.h"
#include "tests/support/support.h"

#include <stdlib.h>

#include "cluster/store.h"

#define MS      ((uint64_t)1000000)
#define SECOND  (1000 * MS)
#define MAX     12
#define LAYERS  3
#define EXPERTS 10
#define PREFIX  "/conclave/test/"

typedef struct member {
    struct world *world;
    cluster *c;
    cluster_store *store;
    uint64_t incarnation;
    cluster_role role;
    bool answers;                /* what `alive` says of it */
    bool gone;                   /* its address refuses connections */
    const struct member *misses; /* a node that this coordinator has missed for a while; NULL: none */
    bool tells;                  /* what it holds, on its connections */
    uint64_t told[8];
} member;

typedef struct world {
    moe_clock_virtual clock;
    cluster_memory *memory;
    member members[MAX];
    size_t n;
    uint32_t replication, min_nodes;
    uint64_t memory_bytes; /* of the nodes that are added next */
    bool has_nobody_to_ask;
    bool has_links;     /* of those that are added next: what nodes hold they tell their coordinators (tell) */
    const char *secret; /* of those that are added; NULL: none */
    uint64_t n_asked;
} world;

static inline cluster_alive ask(void *ctx, cluster_role role, const char *id, const char *address, uint64_t incarnation)
{
    const member *asker = ctx;
    world *w = asker->world;

    (void)id;
    (void)address;
    w->n_asked++;
    for (size_t i = 0; i < w->n; i++) {
        if (w->members[i].incarnation == incarnation && w->members[i].role == role) {
            return asker->misses == &w->members[i] ? CLUSTER_ALIVE_MISSED
                   : w->members[i].answers         ? CLUSTER_ALIVE_YES
                   : w->members[i].gone            ? CLUSTER_ALIVE_GONE
                                                   : CLUSTER_ALIVE_NO;
        }
    }
    return CLUSTER_ALIVE_NO;
}

static inline bool hear(void *ctx, const char *id, uint64_t incarnation, uint64_t *bitmap, size_t n_words)
{
    const member *asker = ctx;
    const world *w = asker->world;

    (void)id;
    for (size_t i = 0; i < w->n; i++) {
        const member *m = &w->members[i];

        if (m->incarnation == incarnation && m->role == CLUSTER_NODE && m->tells) {
            memcpy(bitmap, m->told, MOE_MIN(n_words, MOE_COUNT(m->told)) * sizeof *bitmap);
            return true;
        }
    }
    return false;
}

static inline void tell(member *m, const uint64_t *bitmap, size_t n_words)
{
    memcpy(m->told, bitmap, MOE_MIN(n_words, MOE_COUNT(m->told)) * sizeof *bitmap);
    m->tells = true;
}

static inline void world_open(world *w, uint64_t seed)
{
    *w = (world){.replication = 1, .min_nodes = 1, .memory_bytes = (uint64_t)64 << 20};
    moe_clock_virtual_init(&w->clock, SECOND);
    assert_int_equal(cluster_memory_open(&w->clock.clock, seed, &w->memory), MOE_OK);
}

static inline cluster_model model_of(const char *numeric_class)
{
    return (cluster_model){.fingerprint = {1, 2, 3},
                           .family = "olmoe",
                           .numeric_class = numeric_class,
                           .space = test_space(LAYERS, EXPERTS),
                           .k = 2,
                           .d_model = 16,
                           .expert_bytes = 1 << 20};
}

static inline member *add_class(world *w, cluster_role role, const char *id, const char *numeric_class)
{
    member *m = &w->members[w->n];
    moe_error err;

    assert_true(w->n < MAX);
    w->n++;
    *m = (member){.world = w, .incarnation = 100 + w->n, .role = role, .answers = true};
    assert_int_equal(cluster_memory_client(w->memory, &m->store), MOE_OK);
    const cluster_options o = {.role = role,
                               .cluster = "test",
                               .id = id,
                               .address = "127.0.0.1:1",
                               .incarnation = m->incarnation,
                               .model = model_of(numeric_class),
                               .device = "cpu",
                               .memory_bytes = w->memory_bytes,
                               .policy = {w->replication, w->min_nodes},
                               .secret = w->secret,
                               .n_secret = w->secret != NULL ? strlen(w->secret) : 0,
                               .store = m->store,
                               .clock = &w->clock.clock,
                               .seed = w->n,
                               .ctx = m,
                               .alive = w->has_nobody_to_ask ? NULL : ask,
                               .holds = w->has_links ? hear : NULL};
    assert_ok(cluster_open(&o, &m->c, &err), err);
    return m;
}

static inline member *add(world *w, cluster_role role, const char *id)
{
    return add_class(w, role, id, "f32-1");
}

/* Ends without a word, as a killed process does. */
static inline void kill_member(member *m)
{
    m->answers = false;
    cluster_close(m->c);
    cluster_store_close(m->store);
    m->c = NULL;
    m->store = NULL;
}

/* As before, and its host answers for it that nobody listens. */
static inline void kill_process(member *m)
{
    kill_member(m);
    m->gone = true;
}

static inline void world_close(world *w)
{
    for (size_t i = 0; i < w->n; i++) {
        if (w->members[i].c != NULL) {
            kill_member(&w->members[i]);
        }
    }
    cluster_memory_close(w->memory);
}

static inline void run_for(world *w, uint64_t ns)
{
    for (uint64_t t = 0; t < ns; t += 20 * MS) {
        moe_clock_virtual_advance(&w->clock, 20 * MS);
        for (size_t i = 0; i < w->n; i++) {
            if (w->members[i].c != NULL) {
                (void)cluster_step(w->members[i].c);
            }
        }
    }
}

static inline bool state_is(member *m, bool (*question)(const cluster_state *))
{
    const cluster_state *s = cluster_state_acquire(m->c);
    bool answer = question(s);

    cluster_state_release(s);
    return answer;
}

static inline bool is_connected(const cluster_state *s)
{
    return s->connected;
}

static inline bool is_controller(const cluster_state *s)
{
    return s->is_controller;
}

static inline uint64_t epoch_of(member *m)
{
    const cluster_state *s = cluster_state_acquire(m->c);
    uint64_t epoch = s->epoch;

    cluster_state_release(s);
    return epoch;
}

static inline size_t wanted_of(member *m, const char *id)
{
    uint64_t bitmap[LAYERS];
    const cluster_state *s = cluster_state_acquire(m->c);
    size_t n = cluster_state_wanted(s, id, bitmap);

    cluster_state_release(s);
    return n;
}

static inline void assert_status(member *m, moe_status wanted)
{
    moe_error err = {""};
    moe_status status = cluster_status(m->c, &err);

    if (status != wanted) {
        fail_msg("status %s (%s), wanted %s", moe_status_text(status), err.text, moe_status_text(wanted));
    }
}

/* Does as a node would: loads what it is to hold. */
static inline void load_wanted(member *m, const char *id)
{
    uint64_t bitmap[LAYERS];
    const cluster_state *s = cluster_state_acquire(m->c);

    (void)cluster_state_wanted(s, id, bitmap);
    cluster_set_ready(m->c, NULL, bitmap, s->epoch);
    cluster_state_release(s);
}

static inline size_t missing_of(member *m)
{
    const cluster_state *s = cluster_state_acquire(m->c);
    size_t n = cluster_state_missing(s, NULL);

    cluster_state_release(s);
    return n;
}

/* As if each node had told on a connection what its report says. */
static inline router_placement *routing_of(const cluster_state *s)
{
    const uint64_t *told[ROUTER_MAX_NODES];
    router_placement *routing = NULL;
    moe_error err;

    for (size_t i = 0; i < s->n_nodes; i++) {
        told[i] = s->nodes[i].ready;
    }
    assert_ok(cluster_state_routing(s, NULL, told, &routing, &err), err);
    return routing;
}

static inline const char *stored(world *w, const char *key)
{
    char full[128];

    (void)snprintf(full, sizeof full, PREFIX "%s", key);
    return cluster_memory_get(w->memory, full);
}

#endif
