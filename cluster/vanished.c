/* Vanished: nodes whose key has gone, until it is known that they do not answer. */
#include "cluster/cluster_priv.h"

#include <string.h>

static cluster_vanished *find_vanished(cluster *c, const cluster_node *n)
{
    for (size_t i = 0; i < c->n_vanished; i++) {
        if (c->vanished[i].incarnation == n->incarnation && strcmp(c->vanished[i].id, n->id) == 0) {
            return &c->vanished[i];
        }
    }
    return NULL;
}

bool cluster_keep_vanished(void *ctx, const cluster_node *n)
{
    cluster *c = ctx;
    cluster_vanished *v = find_vanished(c, n);

    if (v == NULL && c->n_vanished < MOE_COUNT(c->vanished)) {
        uint64_t now = cluster_now(c);

        v = &c->vanished[c->n_vanished++];
        *v = (cluster_vanished){.incarnation = n->incarnation, .since_ns = now, .asked_ns = now};
        memcpy(v->id, n->id, sizeof v->id);
        MOE_INFO("cluster: the key of node %s has vanished", n->id);
    }
    return v != NULL && !v->is_gone;
}

/* Those that are present again, or were dropped, are forgotten. */
void cluster_prune_vanished(cluster *c)
{
    size_t n = 0;

    for (size_t i = 0; i < c->n_vanished; i++) {
        const cluster_node *node = cluster_state_node(&c->state->s, c->vanished[i].id);

        if (node != NULL && !node->registered && node->incarnation == c->vanished[i].incarnation) {
            c->vanished[n++] = c->vanished[i];
        }
    }
    c->n_vanished = n;
}

static void judge(cluster *c, cluster_vanished *v, uint64_t now)
{
    const cluster_node *n = cluster_state_node(&c->state->s, v->id);

    if (c->o.role != CLUSTER_COORDINATOR || c->o.alive == NULL) {
        v->is_gone = now - v->since_ns >= CLUSTER_VANISHED;
    } else if (now - v->asked_ns >= CLUSTER_ASK && n != NULL) {
        v->asked_ns = now;
        v->is_gone = c->o.alive(c->o.ctx, CLUSTER_NODE, n->id, n->address, n->incarnation) >= CLUSTER_ALIVE_NO;
    }
    if (v->is_gone) {
        MOE_INFO("cluster: node %s is gone", v->id);
        c->is_dirty = true;
    }
}

/* While the store does not answer nobody is dropped: what is known stays in force. */
void cluster_judge_vanished(cluster *c, uint64_t now)
{
    for (size_t i = 0; i < c->n_vanished && c->connected && c->is_synced; i++) {
        judge(c, &c->vanished[i], now);
    }
}
