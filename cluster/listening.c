/* Listening: which nodes the controller has an answer of, on its own connections. */
#include "cluster/cluster_priv.h"

#include <string.h>

cluster_heard *cluster_find_heard(cluster *c, const cluster_node *n)
{
    for (size_t i = 0; i < c->ctl.n_heard; i++) {
        cluster_heard *h = &c->ctl.heard[i];

        if (h->incarnation == n->incarnation && strcmp(h->id, n->id) == 0) {
            return h;
        }
    }
    return NULL;
}

/* Whether the placement gives the node something. */
bool cluster_is_placed(const cluster_state *s, const char *id)
{
    for (size_t i = 0; s->desired != NULL && i < router_placement_n_nodes(s->desired); i++) {
        if (strcmp(router_placement_node_id(s->desired, i), id) == 0) {
            return true;
        }
    }
    return false;
}

static void warn_of_unmet(const cluster_node *n, const cluster_heard *h, uint64_t now)
{
    if (!h->is_met && now - h->heard_ns >= CLUSTER_MEET_WARN) {
        MOE_WARN(
            "cluster: controller: node %s at %s is registered, but has not exchanged HELLO with us: nothing new is "
            "placed on it",
            n->id, n->address);
    }
}

static void ask(cluster *c, const cluster_node *n, cluster_heard *h, uint64_t now)
{
    if (now - h->asked_ns < CLUSTER_LISTEN) {
        return;
    }
    h->asked_ns = now;
    warn_of_unmet(n, h, now);
    cluster_alive alive = c->o.alive(c->o.ctx, CLUSTER_NODE, n->id, n->address, n->incarnation);
    if (alive == CLUSTER_ALIVE_YES) {
        h->heard_ns = now;
        h->is_met = true;
        h->is_gone = false;
    } else if (alive == CLUSTER_ALIVE_GONE && !h->is_gone) {
        h->is_gone = true;
        if (h->is_met || cluster_is_placed(&c->state->s, n->id)) {
            MOE_WARN("cluster: controller: node %s at %s is gone: its address refuses connections", n->id, n->address);
        }
    }
}

static void listen_to(cluster *c, const cluster_node *n, cluster_heard *h, uint64_t now)
{
    if (!n->registered) {
        h->heard_ns = now; /* judged as one that has vanished */
    } else {
        ask(c, n, h, now);
    }
    bool is_silent = now - h->heard_ns >= (h->is_met ? CLUSTER_SILENT : CLUSTER_UNMET);
    if (is_silent != h->is_silent) {
        h->is_silent = is_silent;
        if (h->is_met) {
            MOE_WARN("cluster: controller: node %s at %s is registered %s", n->id, n->address,
                     is_silent ? "but does not answer: nothing is placed on it" : "and answers again");
        }
    }
}

/* The next question, and how many do not answer. */
static void plan_questions(cluster *c, uint64_t now, uint64_t *due_ns)
{
    uint64_t n_unreachable = 0;

    for (size_t i = 0; i < c->ctl.n_heard; i++) {
        const cluster_heard *h = &c->ctl.heard[i];

        n_unreachable += !h->is_met || h->is_silent || h->is_gone;
    }
    *due_ns = MOE_MIN(*due_ns, now + CLUSTER_LISTEN);
    pthread_mutex_lock(&c->lock);
    c->stats.unreachable = n_unreachable;
    pthread_mutex_unlock(&c->lock);
}

/* A lease says that some thread of a node lives; only an answer says that it serves. */
void cluster_listen(cluster *c, uint64_t now, uint64_t *due_ns)
{
    const cluster_state *s = &c->state->s;
    cluster_heard heard[ROUTER_MAX_NODES];

    if (c->o.alive == NULL) {
        return;
    }
    if (now - c->ctl.listened_ns > CLUSTER_SILENT / 4) {
        c->ctl.n_heard = 0; /* this controller has not listened for a while: all nodes start anew */
    }
    c->ctl.listened_ns = now;
    for (size_t i = 0; i < s->n_nodes; i++) {
        const cluster_heard *known = cluster_find_heard(c, &s->nodes[i]);

        heard[i] = (cluster_heard){.incarnation = s->nodes[i].incarnation, .heard_ns = now};
        memcpy(heard[i].id, s->nodes[i].id, sizeof heard[i].id);
        heard[i] = known == NULL ? heard[i] : *known;
        listen_to(c, &s->nodes[i], &heard[i], now);
    }
    memcpy(c->ctl.heard, heard, s->n_nodes * sizeof *heard);
    c->ctl.n_heard = s->n_nodes;
    plan_questions(c, now, due_ns);
}
