/* What pool.c and pool_view.c share. */
#ifndef CONCLAVE_COORDINATOR_POOL_PRIV_H
#define CONCLAVE_COORDINATOR_POOL_PRIV_H

#include <pthread.h>
#include <stdatomic.h>

#include "cluster/cluster.h"
#include "coordinator/pool.h"

/* A node that the exchange was told of. */
typedef struct pool_node {
    char id[ROUTER_MAX_NODE_ID + 1]; /* "": free */
    char address[CLUSTER_MAX_ADDRESS + 1];
    uint64_t incarnation;
    uint64_t told; /* exchange_node_info.told of what `held` has of it */
} pool_node;

/* Of the pool_node at the same place. */
typedef struct pool_shown {
    char id[ROUTER_MAX_NODE_ID + 1]; /* "": nobody */
    exchange_node_info info;
} pool_shown;

struct pool {
    pool_options o;                        /* borrowed until close */
    const char *id;                        /* of the options */
    char address[CLUSTER_MAX_ADDRESS + 1]; /* of the API */
    const char *lane;                      /* of the transport */
    uint64_t incarnation;
    bool is_stepped; /* by the caller, on his clock; false: a thread of its own watches the cluster */
    transport *transport;
    exchange *exchange;
    moe_resolver *names; /* for on_alive */
    cluster_store *store;
    cluster *cluster; /* NULL until join */
    api_view view;
    void (*changed_of)(void *ctx); /* who else is told of a new state; NULL: nobody */
    void *changed_ctx;

    /* the engine's thread */
    pool_node nodes[ROUTER_MAX_NODES];
    uint64_t epoch_applied, shown_ns;
    router_space *space;                /* owned: the exchange's, as settled is sized */
    uint64_t *settled;                  /* owned bitmap: of the newest epoch, until it is applied */
    uint64_t settled_epoch, settled_ns; /* still to be told, 0: nothing; when it was last told */
    uint64_t epoch, epoch_ns, look_ns;  /* that is to be applied, since when; when it is looked again what is settled */

    atomic_bool changed;  /* a new state can be acquired */
    atomic_bool joined;   /* cluster may be used by the engine's thread */
    pthread_mutex_t lock; /* of the next four; a leaf */
    transport_net_stats shown_transport;
    pool_shown shown[ROUTER_MAX_NODES];
    uint64_t *
        held; /* owned [ROUTER_MAX_NODES][n_held_words]: what each has told that it holds; counts while info.told is not 0 */
    size_t n_held_words;
};

/* pool_view.c */
void pool_view_open(pool *p);
bool pool_find_shown(pool *p, const char *id, exchange_node_info *out); /* any thread */

#endif
