/* alive: asks whether a certain incarnation of a node still answers at its address, by saying HELLO there. */
#ifndef CONCLAVE_EXPERT_NODE_PROGRAM_ALIVE_H
#define CONCLAVE_EXPERT_NODE_PROGRAM_ALIVE_H

#include "cluster/cluster.h"
#include "proto/link.h"
#include "transport/transport.h"

/* hello is a coordinator's of the node's cluster, key the cluster's: with a secret only one that proves it counts. t is an endpoint that nobody uses yet; it is closed on return.
 * Returns within a second or so: YES only if that very incarnation said HELLO, UNKNOWN only if the question could not
 * be put. */
cluster_alive alive_node(transport *t, const wire_hello *hello, const wire_key *key, const char *address,
                         uint64_t incarnation);

#endif
