/* How fast nodes are: when one is late, and how much it is given.
 *
 *   usual time   of a node, per unit of work (router_plan_part.cost), as TCP keeps its round-trip time (RFC 6298): a mean
 *                and a mean deviation. A part that takes several times as long is hedged: another owner gets its picks as
 *                well, and whoever answers first wins. Of a node that is new it is not known: what the slowest of the
 *                others takes counts instead, and a multiple of it. What other parts of the same job took says more: a
 *                prompt's rows take another time per unit than decode's
 *   burden       how many times as long as the others of a job a node takes for the same work. The plan gives it that much
 *                less, so that it is done when they are
 *
 * Both are guesses, and neither can change an answer. A hedge costs another owner's time, so it waits until the others of
 * the job are done or late themselves: then they have nothing better to do. A burden grows with every job in which the node
 * keeps the others waiting, and shrinks with time: so it is tried again now and then. */
#include "exchange/exchange_priv.h"

/* Chosen, not measured.
 *
 *   LEARNT        results before a usual time is believed: connections and caches are cold at first
 *   COLD          times as long such a node may take
 *   UNKNOWN       what a part may take while no node has answered anything
 *   HEDGE_FACTOR  times the usual time and four deviations. Decode and prefill take different times for a unit, so it is
 *                 generous; a node that stands still is noticed after some milliseconds all the same
 *   HEDGE_LEAST   what a busy machine may do to a healthy node
 *   JOB_FACTOR    times what another part of the job took that was not smaller
 *   LAG           what is not worth mending
 *   BURDEN_MOST   nodes that take still longer are given nothing until their burden has shrunk
 *   EASE          a burden that has not grown for so long shrinks by a sixteenth: in a second to a third
 *   SLOW, FAST    burdens at which a person is told */
#define LEARNT         16
#define COLD           4
#define UNKNOWN_NS     UINT64_C(250000000)
#define HEDGE_FACTOR   4
#define HEDGE_LEAST_NS UINT64_C(20000000)
#define JOB_FACTOR     8
#define LAG_NS         UINT64_C(1000000)
#define BURDEN_MOST    (64 * ROUTER_BURDEN_ONE)
#define EASE_NS        UINT64_C(50000000)
#define SLOW           (4 * ROUTER_BURDEN_ONE)
#define FAST           (2 * ROUTER_BURDEN_ONE)

static void learn(exchange_node *n, uint64_t elapsed_ns, uint32_t cost)
{
    uint64_t took = elapsed_ns / cost;
    exchange_speed *s = &n->speed;

    if (s->n_learnt == LEARNT) { /* once it stood still for seconds: that is not how it usually is */
        took = MOE_MIN(took, HEDGE_FACTOR * (s->usual_ns + 4 * s->deviation_ns) + HEDGE_LEAST_NS / cost);
    }
    if (s->n_learnt == 0) {
        s->usual_ns = took;
        s->deviation_ns = took / 2;
    } else {
        uint64_t away = took > s->usual_ns ? took - s->usual_ns : s->usual_ns - took;
        s->deviation_ns = s->deviation_ns - s->deviation_ns / 4 + away / 4;
        s->usual_ns = s->usual_ns - s->usual_ns / 8 + took / 8;
    }
    s->n_learnt += s->n_learnt < LEARNT;
}

/* Of the nodes that have answered so often. */
static const exchange_speed *slowest(const exchange *x, uint32_t n_learnt)
{
    const exchange_speed *s = NULL;

    for (size_t i = 0; i < ROUTER_MAX_NODES; i++) {
        const exchange_node *n = &x->nodes[i];

        if (n->state == NODE_MET && n->speed.n_learnt >= n_learnt && (s == NULL || n->speed.usual_ns > s->usual_ns)) {
            s = &n->speed;
        }
    }
    return s;
}

/* What is known of a node, or of the others; NULL: nothing yet. */
static const exchange_speed *known(const exchange *x, const exchange_node *n)
{
    if (n->speed.n_learnt == LEARNT) {
        return &n->speed;
    }
    const exchange_speed *s = slowest(x, LEARNT);
    return s != NULL ? s : slowest(x, 1);
}

uint64_t exchange_speed_usual_ns(const exchange *x, const exchange_node *n, uint32_t cost)
{
    const exchange_speed *s = known(x, n);

    return s == NULL ? 0 : s->usual_ns * cost;
}

uint64_t exchange_speed_late_ns(const exchange *x, const exchange_node *n, uint32_t cost)
{
    const exchange_speed *s = known(x, n);

    if (s == NULL) {
        return MOE_MIN(UNKNOWN_NS, x->o.dispatch_timeout_ns);
    }
    uint64_t late = MOE_MAX(HEDGE_FACTOR * cost * (s->usual_ns + 4 * s->deviation_ns), HEDGE_LEAST_NS);
    return MOE_MIN(n->speed.n_learnt == LEARNT ? late : COLD * late, x->o.dispatch_timeout_ns);
}

/* A part of the job has come: the others need not be waited for much longer. One that is waited for less stays so. */
static void hurry(exchange *x, const exchange_attempt *done, uint64_t elapsed_ns)
{
    for (size_t i = 0; i < x->n_attempts; i++) {
        exchange_attempt *a = &x->attempts[i];

        if (a == done || a->state != ATTEMPT_OPEN || a->request.micro_batch != done->request.micro_batch ||
            a->late_ns == UINT64_MAX) { /* it has not left */
            continue;
        }
        uint64_t late_ns =
            a->sent_ns + MOE_MAX(JOB_FACTOR * elapsed_ns / done->cost * MOE_MAX(a->cost, done->cost), HEDGE_LEAST_NS);
        if (late_ns < a->late_ns) {
            a->late_ns = a->look_ns = late_ns;
            exchange_wake_at(x, late_ns);
        }
    }
}

static void set_burden(exchange_node *n, uint32_t burden, uint64_t now)
{
    exchange_speed *s = &n->speed;

    s->burden = MOE_MIN(MOE_MAX(burden, ROUTER_BURDEN_ONE), BURDEN_MOST);
    s->weighed_ns = now;
    if (!s->is_slow && s->burden >= SLOW) {
        s->is_slow = true;
        MOE_WARN("node %s at %s is slow: it takes %u times as long as others for the same work, and is given less",
                 n->id, n->address, s->burden / ROUTER_BURDEN_ONE);
    } else if (s->is_slow && s->burden <= FAST) {
        s->is_slow = false;
        MOE_INFO("node %s at %s is no longer slow", n->id, n->address);
    }
}

/* Two parts of one job, sent together: `last` has come after `first`. A part may also take long because there is more in
 * it: that is the plan's doing. */
static void weigh(exchange *x, const exchange_lap *first, const exchange_lap *last, uint64_t now)
{
    exchange_node *n = &x->nodes[last->node];

    if (last->elapsed_ns > first->elapsed_ns + LAG_NS && 2 * last->elapsed_ns > 3 * first->elapsed_ns &&
        2 * last->elapsed_ns * first->cost > 3 * first->elapsed_ns * last->cost) {
        uint64_t quarters = MOE_MIN(last->elapsed_ns / (first->elapsed_ns / 4 + 1), UINT64_C(32));
        set_burden(n, n->speed.burden + (uint32_t)(n->speed.burden * quarters / 16), now);
    }
}

void exchange_speed_note(exchange *x, exchange_run *run, const exchange_attempt *a, uint64_t now)
{
    const exchange_lap lap = {.node = a->node, .cost = a->cost, .elapsed_ns = now - a->sent_ns};

    learn(&x->nodes[a->node], lap.elapsed_ns, lap.cost);
    hurry(x, a, lap.elapsed_ns);
    if (run->first.cost == 0) {
        run->first = lap;
    } else if (run->first.node != lap.node) {
        weigh(x, &run->first, &lap, now);
    }
}

const uint32_t *exchange_speed_burdens(exchange *x, uint64_t now, uint32_t burdens[ROUTER_MAX_NODES])
{
    bool any = false;

    for (size_t i = 0; i < router_placement_n_nodes(x->placement); i++) {
        exchange_node *n = x->node_of[i] == EXCHANGE_NO_NODE ? NULL : &x->nodes[x->node_of[i]];

        burdens[i] = ROUTER_BURDEN_ONE;
        if (n == NULL || n->speed.burden <= ROUTER_BURDEN_ONE) {
            continue;
        }
        if (now - n->speed.weighed_ns >= EASE_NS) {
            set_burden(n, n->speed.burden - (n->speed.burden + 15) / 16, now);
        }
        burdens[i] = n->speed.burden;
        any = true;
    }
    return any ? burdens : NULL;
}
