/* view: how a program shows its cluster to the API and to the HTTP pages. The API reads it, and knows nothing of how
 * members find each other; embedded.c and pool.c of coordinator/ fill it.
 *
 * Threads: acquire and release are called on the gRPC and the HTTP thread at once. A snapshot does not change. */
#ifndef CONCLAVE_API_VIEW_H
#define CONCLAVE_API_VIEW_H

#include "base/base.h"
#include "api/http/http.h"

typedef enum {
    API_VIEW_NODE_CONNECTING = 1,
    API_VIEW_NODE_UP,
    API_VIEW_NODE_DRAINING,
    API_VIEW_NODE_DOWN
} api_view_node_state;

typedef struct api_view_node {
    const char *id, *address; /* address: "in-process" for the embedded node */
    uint64_t incarnation;
    api_view_node_state state;
    const char *why;                /* not connected: why it last failed; "": nothing has */
    const char *device, *transport; /* "cpu-avx512"; what carries its frames: "loopback", "shm", "tls" */
    const char *zone, *version;
    uint64_t memory_bytes, used_bytes;
    uint32_t n_experts;
    uint64_t rows, frames; /* answered since connected */
    double busy_seconds;   /* from dispatch to result, summed over those frames; 0 in one process */
    uint32_t queued_rows;  /* of all coordinators, at the node when it last answered */
    uint64_t hedges;       /* dispatches that were late, so that others were asked as well */
    double slowness;       /* how many times as long as others it takes for the same work; 1, or 0: it is not slow */
} api_view_node;

typedef struct api_view_coordinator {
    const char *id, *address;
    uint64_t epoch; /* placement epoch applied */
    bool controller;
} api_view_coordinator;

typedef struct api_view_replica {
    uint32_t layer;
    int32_t expert_id;
    uint32_t node; /* index into nodes */
    bool ready;
} api_view_replica;

/* All strings may be NULL (unknown). replicas ascend by (layer, expert_id). */
typedef struct api_view_snapshot {
    const char *cluster; /* its name */
    uint64_t epoch;      /* placement epoch of this coordinator */
    size_t n_nodes, n_coordinators, n_replicas;
    const api_view_node *nodes;
    const api_view_coordinator *coordinators;
    const api_view_replica *replicas;           /* only if asked for */
    uint32_t replication, min_nodes;            /* the placement policy; 0: there is none, or it is not known */
    const metrics_cluster *cluster_metrics;     /* NULL: none */
    const metrics_transport *transport_metrics; /* NULL: none */
    uint64_t loop_ns; /* of moe_clock_real, when the loop that watches the cluster last turned; 0: none */
} api_view_snapshot;

/* acquire never blocks for long and never returns NULL; every snapshot is released. */
typedef struct api_view {
    const api_view_snapshot *(*acquire)(void *ctx, bool want_replicas);
    void (*release)(void *ctx, const api_view_snapshot *snapshot);
    /* The policy is to become this; 0: that part stays. Snapshots tell when it has. Does not wait. NULL: there is no
     * cluster whose policy could be set. Errors: MOE_ERR_INVALID_ARG, MOE_ERR_UNAVAILABLE. */
    moe_status (*set_policy)(void *ctx, uint32_t replication, uint32_t min_nodes, moe_error *err);
    void *ctx;
} api_view;

#endif
