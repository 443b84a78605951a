/* pool: the expert nodes of a cluster, as the engine uses them and as the API shows them. The counterpart of embedded.h
 * for coordinators that were given --etcd.
 *
 * The cluster's state is applied to the exchange on the engine's thread whenever it has changed, also while a step
 * waits: nodes are connected to and let go, and rows are routed to replicas that are ready.
 *
 * Threads: open, join, step and close belong to main; the exchange to the thread that steps the engine; the view, status and
 * covered to any. */
#ifndef CONCLAVE_COORDINATOR_POOL_H
#define CONCLAVE_COORDINATOR_POOL_H

#include "api/api.h"
#include "exchange/exchange.h"
#include "member/fetch.h"
#include "member/member.h"

typedef struct pool pool;

typedef struct pool_options {
    const member_config *member; /* borrowed, as all here */
    const member_files *files;
    compute_device *device;
    moe_threads *threads; /* the device's */
    size_t max_rows;      /* of one step */
    uint32_t micro_batches, dispatch_timeout_ms, replication, min_nodes;
    uint64_t keep_unused_ms; /* as of cluster_options */
    /* What it stands on. NULL: the network and the etcd that the member's options name, and the real clock; a thread of
     * its own then watches the cluster. The simulator gives all three (transport and store are owned from open on, also
     * when it fails), and steps the pool itself. */
    transport *transport;
    cluster_store *store;
    const moe_clock *clock;
    uint64_t incarnation; /* 0: drawn */
} pool_options;

/* Opens the transport and the exchange; nobody is connected to yet. */
MOE_NODISCARD moe_status pool_open(const pool_options *options, pool **out, moe_error *err);
/* Called from then on when a new state can be acquired, on the thread that watches the cluster. Before pool_join. */
void pool_on_changed(pool *p, void (*changed)(void *ctx), void *ctx);
/* Enters the cluster as the coordinator whose API is at address. */
MOE_NODISCARD moe_status pool_join(pool *p, const char *address, moe_error *err);
/* One turn of what watches the cluster, where no thread of its own does: see cluster_step. */
uint64_t pool_step(pool *p);
/* How the registration stands: see cluster_status. */
moe_status pool_status(pool *p, moe_error *err);
/* Whether another process has taken our id: cluster_is_displaced. p NULL: no. */
bool pool_is_displaced(pool *p, moe_error *why);
/* Whether every expert has a live owner (exchange_coverage); if not, err says which have none, or why nothing is placed. */
bool pool_covered(pool *p, moe_error *err);
exchange *pool_exchange(pool *p);
cluster *pool_cluster(pool *p); /* once it has joined */
const api_view *pool_view(pool *p);
/* Reads a pack's part of the router from the nodes of the state that offer it: pack_fetch_from, of which f has what is neither the
 * network's nor this member's: base, options, dir, deadline, bounds. On a thread that may wait. */
MOE_NODISCARD moe_status pool_fetch_pack(pool *p, pack_fetch *f, const cluster_state *s, const char *hash, pack **out,
                                         moe_error *err);
/* Leaves the cluster, so that others need not wait for the lease. */
void pool_leave(pool *p);
void pool_close(pool *p); /* NULL is fine; the engine is closed before */

#endif
