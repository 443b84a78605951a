/* follower: the catalogue of a coordinator in a cluster (docs/catalogue.md). What is in force is in etcd, the same for all; the
 * follower makes this coordinator follow it, on a thread of its own, and asks for changes in its name.
 *
 *   pending    what the change needs is made ready: the packs' parts of the router are read from nodes, the gates grow, and the engine
 *              takes them between two steps; then the cluster is told that this coordinator is prepared, or why it cannot be
 *   default    the engine gets each new one
 *   asking     the next catalogue is written, made of the one that is there; the cluster decides what comes of it
 *   accepting  a pack that a node offers and the rules are for is asked for, as if somebody had (coordinator/accept.h)
 *
 * Fills the table by which the API sees packs and sets and asks for changes.
 *
 * Threads: open, start and close on the program's; caught_up and the table's functions on any. */
#ifndef CONCLAVE_COORDINATOR_FOLLOWER_H
#define CONCLAVE_COORDINATOR_FOLLOWER_H

#include "api/catalogue.h"
#include "coordinator/accept.h"
#include "coordinator/packs.h"
#include "coordinator/pool.h"
#include "engine/engine.h"

typedef struct follower follower;

typedef struct follower_options {
    engine *engine; /* borrowed, as all here */
    model *model;
    const model_tensors *tensors;
    compute_device *maker; /* nobody else uses it: makes gates */
    packs *packs;          /* the follower's thread alone opens more */
    pool *pool;            /* not yet joined */
    catalogue *first;      /* of the checkpoint alone */
    const char *dir;       /* where packs of nodes are kept (copied); "": nowhere, and there can be none */
    uint64_t keep_unused_ms;
    accept_rules accept; /* what is switched on when a node offers it */
    /* The wall clock: milliseconds since 1970. NULL: the real one. */
    uint64_t (*wall_ms)(void *ctx);
    void *wall_ctx;
} follower_options;

/* Errors: MOE_ERR_NO_MEMORY. */
MOE_NODISCARD moe_status follower_open(const follower_options *options, follower **out, moe_error *err);
/* When the pool has joined and the engine runs. Errors: MOE_ERR_NO_MEMORY. */
MOE_NODISCARD moe_status follower_start(follower *f, moe_error *err);
/* One turn of it, in place of the thread: for a world of one thread, where the engine has no step under way. */
void follower_turn(follower *f);
/* Whether the engine has had a default set of the cluster: before that it would serve another one than all others. If not, err
 * says what it waits for. */
bool follower_caught_up(follower *f, moe_error *err);
/* After the API has closed, before engine_close. NULL is fine. */
void follower_close(follower *f);
const api_catalogue *follower_table(follower *f);

#endif
