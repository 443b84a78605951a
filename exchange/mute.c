/* Nodes that answer pings and compute nothing: a worker that hangs, a path that carries small frames alone. A connection
 * that lives says nothing of that, and what such a node alone has would be awaited for ever.
 *
 * A node owes results from the first dispatch after its last result. Once it has owed them for much longer than it usually
 * takes, it counts as one that is not there: it owns nothing (coverage.c), requests that need it are put back, and the
 * cluster's controller gives its experts to others. A result makes all that undone, also one that comes late. Without one
 * it is tried again after the same time, and each time in vain doubles both. So a node that is only very slow gets the time
 * that it needs, and one that hangs costs ever less.
 *
 * So does one that refuses whatever it is given, though it tells that it has the experts: a refusal is no result. Placements change
 * under way, and queues are full for a while, so it takes many of them and as long. */
#include "exchange/exchange_priv.h"

/* Chosen, not measured.
 *
 *   MUTE_FACTOR  times what a part may take before it is hedged, which is several times what is usual
 *   MUTE_LEAST   what a node may do to us that swaps, or computes a large prompt of somebody else: longer than silence may
 *                last, since something of it lives
 *   MUTE_MOST    doublings
 *   REFUSALS     in a row at least, so that a few of them far from each other are none */
#define MUTE_FACTOR   4
#define MUTE_LEAST_NS UINT64_C(10000000000)
#define MUTE_MOST     6
#define REFUSALS      64

void exchange_mute_owes(exchange_node *n, uint32_t cost, uint64_t now)
{
    if (n->mute.owed_ns == 0) {
        n->mute.owed_ns = now;
        n->mute.owed_cost = 0;
    }
    n->mute.owed_cost = MOE_MAX(n->mute.owed_cost, cost);
}

/* Each time in vain doubles it. */
static uint64_t doubled(const exchange_mute *m, uint64_t ns)
{
    return ns << MOE_MIN(m->n_times, (uint32_t)MUTE_MOST);
}

static void give_up(exchange *x, exchange_node *n, uint64_t until_ns, const char *why)
{
    (void)snprintf(n->why, sizeof n->why, "%s", why);
    n->mute.owed_ns = 0;
    n->mute.n_refused = 0;
    n->mute.until_ns = until_ns;
    n->mute.n_times++;
    exchange_take_back(x, n->peer);
    exchange_replan(x);
}

void exchange_mute_judge(exchange *x, exchange_node *n, uint64_t now)
{
    if (n->mute.owed_ns == 0) {
        return;
    }
    /* What nobody has computed yet may take long for good reasons: caches and pages are cold. */
    uint64_t late = exchange_speed_usual_ns(x, n, 1) != 0 ? exchange_speed_late_ns(x, n, n->mute.owed_cost)
                                                          : x->o.dispatch_timeout_ns;
    uint64_t bound = doubled(&n->mute, MOE_MAX(MUTE_FACTOR * late, MUTE_LEAST_NS));
    if (now - n->mute.owed_ns < bound) {
        return;
    }
    MOE_WARN(
        "node %s at %s answers pings, but has computed nothing for %llu s: it counts as lost, and is tried again in "
        "%llu s",
        n->id, n->address, (unsigned long long)((now - n->mute.owed_ns) / 1000000000),
        (unsigned long long)(bound / 1000000000));
    give_up(x, n, now + bound, "it answers pings, but computes nothing");
}

void exchange_mute_refused(exchange *x, exchange_node *n, uint64_t now)
{
    exchange_mute *m = &n->mute;

    m->owed_ns = 0;
    m->refused_ns = m->n_refused == 0 ? now : m->refused_ns;
    m->n_refused++;
    if (m->n_refused < REFUSALS || now - m->refused_ns < MUTE_LEAST_NS) {
        return;
    }
    uint64_t bound = doubled(m, MUTE_LEAST_NS);
    MOE_WARN(
        "node %s at %s has refused all that it was given for %llu s: it counts as lost, and is tried again in %llu s",
        n->id, n->address, (unsigned long long)((now - m->refused_ns) / 1000000000),
        (unsigned long long)(bound / 1000000000));
    give_up(x, n, now + bound, "it refuses all that it is given");
}

void exchange_mute_answered(exchange *x, exchange_node *n)
{
    if (n->mute.n_times > 0) {
        MOE_INFO("node %s at %s computes again", n->id, n->address);
        n->why[0] = '\0';
        exchange_replan(x);
    }
    n->mute = (exchange_mute){.owed_ns = 0};
}

bool exchange_takes_rows(const exchange_node *n, uint64_t now)
{
    return exchange_node_takes(n) && now >= n->hold_until_ns && now >= n->mute.until_ns;
}
