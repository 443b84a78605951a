/* Policy: how many owners an expert is to have, kept in the store so that it does not change with the controller. */
#include "cluster/cluster_priv.h"

#include <string.h>

cluster_policy cluster_policy_in_force(const cluster *c)
{
    const cluster_policy p = c->state->s.policy;

    return p.replication != 0 ? p
                              : (cluster_policy){.replication = MOE_MAX(c->o.policy.replication, 1u),
                                                 .min_nodes = MOE_MAX(c->o.policy.min_nodes, 1u)};
}

static void send_policy(cluster *c, const cluster_policy *p, uint64_t mod_revision)
{
    cluster_change_begin(c);
    cluster_change_compare(c, CLUSTER_COMPARE_MOD, "policy", mod_revision);
    cluster_write_policy(cluster_change_put(c, "policy", 0), p);
    cluster_change_send(c);
}

/* What was asked for, as far as it is not so already; false: nothing. */
static bool take_asked(cluster *c, cluster_policy *p, uint64_t now)
{
    pthread_mutex_lock(&c->lock);
    cluster_policy asked = c->asked.policy;
    bool is_set = (asked.replication == 0 || asked.replication == p->replication) &&
                  (asked.min_nodes == 0 || asked.min_nodes == p->min_nodes);
    if (is_set || now >= c->asked.until_ns) {
        c->asked.policy = asked = (cluster_policy){0};
    }
    pthread_mutex_unlock(&c->lock);
    p->replication = asked.replication != 0 ? asked.replication : p->replication;
    p->min_nodes = asked.min_nodes != 0 ? asked.min_nodes : p->min_nodes;
    return asked.replication != 0 || asked.min_nodes != 0;
}

/* The cluster's policy is not ours: said once of each that is found. */
static void compare_policy(cluster *c, const cluster_policy *p)
{
    const cluster_policy mine = c->o.policy;
    bool differs = (mine.replication != 0 && mine.replication != p->replication) ||
                   (mine.min_nodes != 0 && mine.min_nodes != p->min_nodes);

    if (differs && memcmp(&c->warned, p, sizeof *p) != 0) {
        c->warned = *p;
        MOE_WARN("cluster: the policy of cluster %s is replication %u, min_nodes %u: what %s was started with "
                 "(replication %u, min_nodes %u; 0: not given) has no effect; `conclave placement policy` changes it",
                 c->o.cluster, p->replication, p->min_nodes, c->o.id, mine.replication, mine.min_nodes);
    }
}

/* The cluster's policy: the first coordinator writes its own, after a wipe whoever is first what was known. True: a change
 * was sent. A malformed one stays, for people to look at, until another is asked for. */
bool cluster_settle_policy(cluster *c, uint64_t now)
{
    const cluster_entry *e = cluster_mirror_find(&c->mirror, "policy");
    cluster_policy p = cluster_policy_in_force(c);

    if (c->o.role != CLUSTER_COORDINATOR) {
        return false;
    }
    if (e == NULL || e->doubt != NULL || take_asked(c, &p, now)) {
        send_policy(c, &p, e != NULL ? e->mod_revision : 0);
        return true;
    }
    compare_policy(c, &p);
    return false;
}
