/* assignment: makes what a node holds become what the cluster's placement gives it, one expert at a time, between two
 * turns of its loop.
 *
 * An expert is loaded when the placement names this node, and reported once everything it names is there (and now and
 * then on the way). It is dropped when no placement that a coordinator may still use names it here: one that is
 * registered in the store, or one that is connected, whatever the store says of it.
 * Threads: all belongs to the node's thread, but for assignment_notify and assignment_get_progress. */
#ifndef CONCLAVE_EXPERT_NODE_PROGRAM_ASSIGNMENT_H
#define CONCLAVE_EXPERT_NODE_PROGRAM_ASSIGNMENT_H

#include "cluster/cluster.h"
#include "expert_node/expert_node.h"

typedef struct assignment assignment;

/* node and clock are borrowed; id is copied. */
MOE_NODISCARD moe_status assignment_open(expert_node *node, const char *id, uint32_t n_layers, uint32_t n_ffn_experts,
                                         const moe_clock *clock, assignment **out);
void assignment_close(assignment *a); /* NULL is fine */
/* The cluster's state has changed: for cluster_options.changed. Any thread. */
void assignment_notify(assignment *a);
/* One turn: takes a new state if there is one; loads or drops at most one expert; reports. Returns what it did, 0 if
 * there was nothing to do. */
unsigned assignment_turn(assignment *a, cluster *c);

typedef struct assignment_progress {
    uint64_t epoch;           /* of the placement that is carried out */
    uint32_t wanted, missing; /* experts it gives this node, and those not loaded yet */
    bool complete;            /* all loaded and reported */
} assignment_progress;
void assignment_get_progress(const assignment *a, assignment_progress *out); /* any thread */

#endif
