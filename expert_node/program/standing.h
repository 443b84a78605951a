/* standing: how this node stands with the coordinators: whether one has ever met it, and whether it may leave. Pure
 * functions of what the cluster's state and the connections say. */
#ifndef CONCLAVE_EXPERT_NODE_PROGRAM_STANDING_H
#define CONCLAVE_EXPERT_NODE_PROGRAM_STANDING_H

#include "cluster/cluster.h"

typedef struct standing {
    const cluster_state *state; /* borrowed */
    const char *id, *address;   /* of this node */
    uint32_t n_wanted;          /* experts that the placement gives it */
    uint64_t epoch_registered;  /* of assignment_progress */
    uint64_t n_hellos;          /* HELLOs exchanged with coordinators, since the start */
    size_t n_connected;         /* coordinators connected now */
    uint64_t epoch_connected;   /* the lowest that one of them applies (expert_node_epoch_applied) */
    uint64_t n_denied;          /* connections that failed the secret's proof */
} standing;

/* Whether a coordinator can reach this node: one has exchanged HELLO with it, and unless none is registered one is
 * connected now. If not, why says what is probably wrong. */
bool standing_is_met(const standing *s, moe_error *why);

/* A node that leaves waits until others have its experts. HOPELESS: at this moment nobody can take them. */
typedef enum { STANDING_NEEDED, STANDING_RELIEVED, STANDING_HOPELESS } standing_relief;
/* why: of STANDING_HOPELESS. */
standing_relief standing_judge(const standing *s, moe_error *why);

#endif
