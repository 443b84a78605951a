/* A whole cluster for tests, in one thread on a virtual clock: coordinators (pool, engine), expert nodes, and a store, on
 * one loopback network. Members are killed, stopped, slowed down and drained; the network delays and breaks; the store
 * fails in all its ways. Everything fails the test on trouble of its own. */
#ifndef CONCLAVE_TESTS_SIM_CLUSTER_WORLD_H
#define CONCLAVE_TESTS_SIM_CLUSTER_WORLD_H

#include "cluster/store.h"
#include "coordinator/pool.h"
#include "engine/engine.h"
#include "expert_node/expert_node.h"
#include "expert_node/program/assignment.h"
#include "tests/support/model_fixture.h"
#include "tests/support/support.h"

enum { CLUSTER_WORLD_NODES = 5, CLUSTER_WORLD_COORDINATORS = 2 };

typedef struct cluster_world_options {
    uint64_t seed;
    uint32_t n_nodes, n_coordinators, micro_batches, replication, min_nodes;
    uint64_t turn_ns;                       /* by which the clock moves; may be changed at any time */
    uint32_t per_mille[TRANSPORT_N_FAULTS]; /* of frames, while there is trouble */
    uint64_t max_delay_ns;
    uint64_t memory_bytes;     /* of a node; 0: no bound */
    uint64_t keep_unused_ms;   /* as of pool_options */
    const cluster_pack *packs; /* that nodes offer [n_packs]; borrowed */
    size_t n_packs;
    /* As expert_checkpoint.find, with the cluster_world_node as ctx; NULL: there are no packs. */
    moe_status (*find)(void *ctx, uint32_t layer, int32_t expert_id, model_expert_parts *out, moe_error *err);
    /* Called in each turn of a coordinator in which its engine has no step under way at some time: then. NULL: nobody. */
    void (*between)(uint32_t coordinator);
} cluster_world_options;

/* What both kinds of members have. */
typedef struct cluster_world_member {
    char id[16];
    bool is_up;
    uint64_t incarnation, stopped_until_ns;
    transport
        *t; /* the owner's: the pool's, or the node's. What it does goes through faulty, and that through obstacle.h */
    transport *faulty;
} cluster_world_member;

typedef struct cluster_world_node {
    cluster_world_member m;
    const struct cluster_world *world;
    uint32_t every; /* it turns in every so many turns */
    bool is_draining;
    uint64_t mute_until_ns;   /* it answers all but dispatches until then */
    uint64_t drains_until_ns; /* then it leaves, relieved or not */
    uint64_t leaves_ns;       /* it has said goodbye, and ends then; 0: it has not */
    cluster_store *store;
    cluster *cluster;
    expert_checkpoint source;
    expert_node *node;
    loader *loader;
    assignment *assignment;
} cluster_world_node;

typedef struct cluster_world_coordinator {
    cluster_world_member m;
    member_config config;
    model_kv *kv;
    pool *pool;
    engine *engine;
} cluster_world_coordinator;

/* From a coordinator to a node. */
typedef struct cluster_world_way {
    unsigned obstacles; /* obstacle_kind */
    uint64_t until_ns;
} cluster_world_way;

typedef struct cluster_world {
    cluster_world_options o;
    const model_fixture *model; /* borrowed: config, tensors, device, weights */
    member_files files;         /* lent to pools */
    moe_random random;
    moe_clock_virtual clock;
    uint64_t turn;
    bool is_calm;
    transport_loopback_net *net;
    cluster_memory *memory;
    cluster_world_node nodes[CLUSTER_WORLD_NODES];
    cluster_world_coordinator coordinators[CLUSTER_WORLD_COORDINATORS];
    cluster_world_way ways[CLUSTER_WORLD_COORDINATORS][CLUSTER_WORLD_NODES];
} cluster_world;

/* Nobody is up at first. */
void cluster_world_open(cluster_world *w, const model_fixture *shared, const cluster_world_options *o);
void cluster_world_close(cluster_world *w);

void cluster_world_start_node(cluster_world *w, uint32_t i);
void cluster_world_kill_node(cluster_world *w, uint32_t i);
/* It asks to be relieved, and ends when it is, or after ten seconds. */
void cluster_world_drain_node(cluster_world *w, uint32_t i);
void cluster_world_start_coordinator(cluster_world *w, uint32_t i);
/* Its requests are not heard of again: they are released before. */
void cluster_world_kill_coordinator(cluster_world *w, uint32_t i);
/* What is in the way of frames between the two, and for how long; also of those that start anew meanwhile. */
void cluster_world_obstruct(cluster_world *w, uint32_t coordinator, uint32_t node, unsigned obstacles, uint64_t for_ns);
/* The node answers whatever it is asked but what it is there for. */
void cluster_world_mute_node(cluster_world *w, uint32_t i, uint64_t for_ns);
/* Somebody writes into the store, under the node's own lease, that it has everything ready. False: it is not registered. */
bool cluster_world_lie_of_node(cluster_world *w, uint32_t i);
/* No more faults of frames; stopped and slow members go on as usual. Obstacles and mute nodes stay for their time. */
void cluster_world_calm(cluster_world *w);
/* Everybody who is not stopped does what there is to do, and the clock moves on. */
void cluster_world_turn(cluster_world *w);
uint64_t cluster_world_now(const cluster_world *w);

#endif
