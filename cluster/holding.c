/* Holding: which experts nodes have ready, as the controller believes it.
 *
 * A key is what somebody wrote, maybe long ago or about something else; a node's connection with this coordinator is the node
 * itself. So only that counts. A node that has told nothing here has nothing: one that others reach and this coordinator does not is
 * lost to it after a while (listening.c), and its experts are given to nodes that it does reach. Until then a change waits. */
#include "cluster/cluster_priv.h"

#include <stdlib.h>
#include <string.h>

bool cluster_holding_learn(cluster *c)
{
    const cluster_state *s = &c->state->s;
    const size_t n_words = router_space_words(s->space);
    uint64_t *bits = calloc(s->n_nodes * n_words + 1, sizeof *bits);

    if (bits == NULL) {
        return false;
    }
    cluster_holding_forget(c);
    c->holding.bits = bits;
    for (size_t i = 0; i < s->n_nodes; i++) {
        const cluster_node *n = &s->nodes[i];
        uint64_t *of_node = bits + i * n_words;

        if (c->o.holds == NULL) {
            memcpy(of_node, n->ready, n_words * sizeof *of_node);
            c->holding.is_told[i] = true;
        } else {
            c->holding.is_told[i] = c->o.holds(c->o.ctx, n->id, n->incarnation, of_node, n_words);
        }
    }
    return true;
}

void cluster_holding_forget(cluster *c)
{
    free(c->holding.bits);
    c->holding.bits = NULL;
}

const uint64_t *cluster_holding_of(const cluster *c, const cluster_node *n)
{
    const cluster_state *s = &c->state->s;
    const size_t i = (size_t)(n - s->nodes);

    return c->holding.is_told[i] ? c->holding.bits + i * router_space_words(s->space) : NULL;
}
