/* What the files of the embedded node share. */
#ifndef CONCLAVE_COORDINATOR_EMBEDDED_PRIV_H
#define CONCLAVE_COORDINATOR_EMBEDDED_PRIV_H

#include "coordinator/embedded.h"

#include <pthread.h>
#include <stdatomic.h>

#include "expert_node/expert_node.h"

#define EMBEDDED_NODE_ID "embedded"

/* What the API is shown of a placement. */
typedef struct embedded_shown {
    atomic_uint refs;
    uint64_t epoch;
    api_view_replica *replicas; /* owned [n_replicas] */
    size_t n_replicas;
} embedded_shown;

struct embedded {
    embedded_options o;
    transport_loopback_net *net;
    transport *coordinator_end, *node_end;
    expert_checkpoint checkpoint;
    expert_node *node;
    exchange *exchange;
    router_placement *placement; /* shared; of whoever makes changes: its experts are those that are held */
    const char *device_name;
    size_t expert_bytes;

    /* the view: a reader copies the counters */
    api_view view;
    _Atomic(const char *) published_address;
    _Atomic uint64_t rows, frames;
    char address[256]; /* written once, before it is published */
    pthread_mutex_t lock;
    embedded_shown *shown; /* shared; under lock, a leaf */
};

MOE_NODISCARD moe_status embedded_shown_open(router_placement *placement, embedded_shown **out);
void embedded_shown_unref(embedded_shown *s); /* NULL is fine */

#endif
