/* Listening: which nodes a coordinator has an answer of, on its own connections. A lease outlives its process by 15 s, or is
 * kept alive by a thread that outlives the rest, and the address or the secret of a node that has never answered may be
 * wrong.
 *
 * Every coordinator listens, and says in its record which nodes it misses. To the controller a node is lost when its
 * address refuses connections; when the controller misses it, and so do all other coordinators; and when it has been silent
 * for long, whatever the others say: then it is the way between the two that is broken, and what the controller cannot
 * reach it cannot judge. A coordinator that is gone, or has not noticed yet, thus only makes it wait. */
#include "cluster/cluster_priv.h"

#include <string.h>

static const cluster_heard *find_heard(const cluster *c, const cluster_node *n)
{
    for (size_t i = 0; i < c->listened.n_heard; i++) {
        const cluster_heard *h = &c->listened.heard[i];

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

static bool all_others_miss(const cluster *c, const cluster_node *n)
{
    const cluster_state *s = &c->state->s;

    for (size_t i = 0; i < s->n_coordinators; i++) {
        if (strcmp(s->coordinators[i].id, c->o.id) != 0 &&
            !router_nodes_has(&s->coordinators[i].missed, (uint32_t)(n - s->nodes))) {
            return false;
        }
    }
    return true;
}

bool cluster_is_lost(const cluster *c, const cluster_node *n)
{
    const cluster_heard *h = find_heard(c, n);

    return h != NULL && (h->is_silent || h->is_gone || (h->is_missed && all_others_miss(c, n)));
}

bool cluster_is_met(const cluster *c, const cluster_node *n)
{
    const cluster_heard *h = find_heard(c, n);

    return h == NULL || h->is_met;
}

/* What is of no consequence to a coordinator that is not the controller is not said. */
static bool is_worth_saying(const cluster *c, const cluster_node *n, const cluster_heard *h)
{
    return c->state->s.is_controller && (h->is_met || cluster_is_placed(&c->state->s, n->id));
}

static void warn_of_unmet(const cluster *c, const cluster_node *n, const cluster_heard *h, uint64_t now)
{
    if (c->state->s.is_controller && !h->is_met && now - h->heard_ns >= CLUSTER_MEET_WARN) {
        MOE_WARN(
            "cluster: controller: node %s at %s is registered, but has not exchanged HELLO with us: nothing new is "
            "placed on it",
            n->id, n->address);
    }
}

static void ask(const cluster *c, const cluster_node *n, cluster_heard *h, uint64_t now)
{
    if (now - h->asked_ns < CLUSTER_LISTEN) {
        return;
    }
    h->asked_ns = now;
    warn_of_unmet(c, n, h, now);
    cluster_alive alive = c->o.alive(c->o.ctx, CLUSTER_NODE, n->id, n->address, n->incarnation);
    if (alive == CLUSTER_ALIVE_YES) {
        h->heard_ns = now;
        h->is_met = true;
        h->is_gone = h->is_missed = false;
    } else if (alive == CLUSTER_ALIVE_GONE && !h->is_gone) {
        h->is_gone = true;
        if (is_worth_saying(c, n, h)) {
            MOE_WARN("cluster: controller: node %s at %s is gone: its address refuses connections", n->id, n->address);
        }
    } else if (alive == CLUSTER_ALIVE_MISSED && !h->is_missed) {
        h->is_missed = true;
        if (is_worth_saying(c, n, h)) {
            MOE_WARN("cluster: controller: node %s at %s is missed: it is lost as soon as all coordinators miss it",
                     n->id, n->address);
        }
    }
}

static void listen_to(const cluster *c, const cluster_node *n, cluster_heard *h, uint64_t now)
{
    if (!n->registered) {
        h->heard_ns = now; /* judged as one that has vanished */
        h->is_missed = false;
    } else {
        ask(c, n, h, now);
    }
    bool is_silent = now - h->heard_ns >= (h->is_met ? CLUSTER_SILENT : CLUSTER_UNMET);
    if (is_silent != h->is_silent) {
        h->is_silent = is_silent;
        if (h->is_met && c->state->s.is_controller) {
            MOE_WARN("cluster: controller: node %s at %s is registered %s", n->id, n->address,
                     is_silent ? "but does not answer: nothing is placed on it" : "and answers again");
        }
    }
}

/* For our record, which is written anew when that has changed. Nobody asks the controller, and it has something better to
 * write when a node dies. */
static void tell_missed(cluster *c)
{
    cluster_ids now = {.n = 0};

    if (c->state->s.is_controller) {
        return;
    }
    for (size_t i = 0; i < c->listened.n_heard; i++) {
        const cluster_heard *h = &c->listened.heard[i];

        if (h->is_missed || h->is_gone || (h->is_silent && h->is_met)) {
            memcpy(now.at[now.n++], h->id, sizeof h->id);
        }
    }
    pthread_mutex_lock(&c->lock);
    bool is_new = now.n != c->told.missed.n;
    for (size_t i = 0; i < now.n && !is_new; i++) {
        is_new = strcmp(now.at[i], c->told.missed.at[i]) != 0;
    }
    if (is_new) {
        c->told.missed = now;
        c->told.version++;
    }
    pthread_mutex_unlock(&c->lock);
}

/* The next question, and how many do not answer. */
static void plan_questions(cluster *c, uint64_t now, uint64_t *due_ns)
{
    uint64_t n_unreachable = 0;

    for (size_t i = 0; i < c->listened.n_heard && c->state->s.is_controller; i++) {
        const cluster_heard *h = &c->listened.heard[i];

        n_unreachable += !h->is_met || h->is_silent || h->is_missed || h->is_gone;
    }
    *due_ns = MOE_MIN(*due_ns, now + CLUSTER_LISTEN);
    pthread_mutex_lock(&c->lock);
    c->stats.unreachable = n_unreachable;
    pthread_mutex_unlock(&c->lock);
}

void cluster_listen(cluster *c, uint64_t now, uint64_t *due_ns)
{
    const cluster_state *s = &c->state->s;
    cluster_heard heard[ROUTER_MAX_NODES];

    if (c->o.role != CLUSTER_COORDINATOR || c->o.alive == NULL) {
        return;
    }
    if (now - c->listened.at_ns > CLUSTER_SILENT / 4) {
        c->listened.n_heard = 0; /* this coordinator has not listened for a while: all nodes start anew */
    }
    c->listened.at_ns = now;
    for (size_t i = 0; i < s->n_nodes; i++) {
        const cluster_heard *known = find_heard(c, &s->nodes[i]);

        heard[i] = (cluster_heard){.incarnation = s->nodes[i].incarnation, .heard_ns = now};
        memcpy(heard[i].id, s->nodes[i].id, sizeof heard[i].id);
        heard[i] = known == NULL ? heard[i] : *known;
        listen_to(c, &s->nodes[i], &heard[i], now);
    }
    memcpy(c->listened.heard, heard, s->n_nodes * sizeof *heard);
    c->listened.n_heard = s->n_nodes;
    tell_missed(c);
    plan_questions(c, now, due_ns);
}
