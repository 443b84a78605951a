/* assignment: makes what a node holds become what the cluster's placement gives it: the loader makes experts, and between
 * two turns of the node's loop one of them is put in its place or dropped.
 *
 * An expert is loaded when the placement names this node, and reported once everything it names is there (and now and
 * then on the way). It is dropped when no placement that a coordinator may still use names it here: one that is
 * registered in the store (unless it is absent for long), or one that is connected, whatever the store says of it.
 * Threads: all belongs to the node's thread, but for assignment_notify and assignment_get_progress. */
#ifndef CONCLAVE_EXPERT_NODE_PROGRAM_ASSIGNMENT_H
#define CONCLAVE_EXPERT_NODE_PROGRAM_ASSIGNMENT_H

#include "cluster/cluster.h"
#include "expert_node/program/loader.h"

typedef struct assignment assignment;

/* node, loader and clock are borrowed; id is copied. The loader works for this assignment alone; the space is the node's, and
 * both follow the cluster's when that grows. */
MOE_NODISCARD moe_status assignment_open(expert_node *node, loader *from, const char *id, router_space *space,
                                         const moe_clock *clock, assignment **out);
void assignment_close(assignment *a); /* NULL is fine */
/* The cluster's state has changed: for cluster_options.changed. Any thread. */
void assignment_notify(assignment *a);
/* What could not be loaded can be, perhaps: it is tried again at once. Any thread. */
void assignment_retry(assignment *a);
/* One turn: takes a new state if there is one; takes from the loader, drops or asks for at most one expert; reports.
 * Returns what it did, 0 if there was nothing to do: then the loader's `done` says when to turn again. */
unsigned assignment_turn(assignment *a, cluster *c);

typedef struct assignment_progress {
    uint64_t epoch; /* of the placement that is carried out */
    /* The lowest that a registered coordinator applies. One that is not connected, and has not followed for half a minute,
     * is not waited for. */
    uint64_t epoch_registered;
    uint32_t wanted, missing; /* experts it gives this node, and those not loaded yet */
    uint32_t loading;         /* asked of the loader and not yet in their places */
    bool complete;            /* all loaded and reported */
} assignment_progress;
void assignment_get_progress(const assignment *a, assignment_progress *out); /* any thread */

#endif
