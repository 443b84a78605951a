/* Attempts: one DISPATCH under way each. They are taken, answered, lost, hedged and late. */
#include "exchange/exchange_priv.h"

/* Chosen, not measured.
 *
 *   SLOW_TIMEOUTS  a node that let a deadline pass is avoided for so many time-outs, unless nobody else has the expert
 *   TELL           a node that is late is told of so often at most
 *   STRAGGLER      so often it is looked at again whether a late part is the job's last
 *   AGAIN          so often, once it was hedged, whether others can take what is left of it now */
#define SLOW_TIMEOUTS 4
#define TELL_NS       UINT64_C(10000000000)
#define STRAGGLER_NS  UINT64_C(1000000)
#define AGAIN_NS      UINT64_C(20000000)

/* A free attempt, else the oldest that is late: its picks have been taken from it. */
exchange_attempt *exchange_take_attempt(exchange *x)
{
    exchange_attempt *oldest = NULL;

    for (size_t i = 0; i < x->n_attempts; i++) {
        exchange_attempt *a = &x->attempts[i];

        if (a->state == ATTEMPT_FREE) {
            return a;
        }
        if (a->state == ATTEMPT_LATE && (oldest == NULL || a->deadline_ns < oldest->deadline_ns)) {
            oldest = a;
        }
    }
    return oldest;
}

exchange_run *exchange_run_of(exchange *x, const exchange_attempt *a)
{
    return &x->runs[a->request.micro_batch];
}

/* Takes the picks away from an open attempt: they wait for another. Those that a late attempt has answered meanwhile
 * are done and stay so. */
void exchange_requeue(exchange *x, const exchange_attempt *a)
{
    exchange_run *run = exchange_run_of(x, a);

    for (uint32_t i = 0; i < a->n_picks; i++) {
        if ((a->picks[i] & ATTEMPT_AWAY) == 0 && run->picks[a->picks[i]] == PICK_SENT) {
            run->picks[a->picks[i]] = PICK_WAITING;
            run->n_waiting++;
        }
    }
    run->replan = true;
}

/* ------------------------------------------------------------------------------------------------ hedging */
/* Whether the rest of the job is done, or late as well: others then have nothing better to do than its picks. */
static bool is_straggler(const exchange *x, const exchange_attempt *a, uint64_t now)
{
    for (size_t i = 0; i < x->n_attempts; i++) {
        const exchange_attempt *b = &x->attempts[i];

        if (b->state == ATTEMPT_OPEN && b->request.micro_batch == a->request.micro_batch && now < b->late_ns) {
            return false;
        }
    }
    return true;
}

static void tell_late(exchange *x, exchange_node *n, const exchange_attempt *a, uint64_t now)
{
    n->hedges++;
    x->stats.hedges++;
    n->slow_until_ns = now + SLOW_TIMEOUTS * x->o.dispatch_timeout_ns;
    if (n->late_told_ns == 0 || now - n->late_told_ns >= TELL_NS) {
        uint64_t usual_ns = exchange_speed_usual_ns(x, n, a->cost);
        char usual[48] = "no node has answered yet";

        if (usual_ns != 0) {
            (void)snprintf(usual, sizeof usual, "usually %llu ms", (unsigned long long)(usual_ns / 1000000));
        }
        n->late_told_ns = now;
        MOE_WARN("node %s at %s is late: no result for %llu ms, %s; others are asked as well", n->id, n->address,
                 (unsigned long long)((now - a->sent_ns) / 1000000), usual);
    }
}

/* Those picks that another node can compute now go there as well; whichever answers first wins. */
static void hedge(exchange *x, exchange_attempt *a, uint64_t now)
{
    exchange_run *run = exchange_run_of(x, a);
    uint32_t n_open = 0, n_away = 0;

    for (uint32_t i = 0; i < a->n_picks; i++) {
        uint32_t pick = a->picks[i];

        if ((pick & ATTEMPT_AWAY) != 0 || run->picks[pick] != PICK_SENT) {
            continue;
        }
        n_open++;
        if (exchange_is_taken(x, run->job.layer, run->job.ids[pick], a->node, now)) {
            a->picks[i] |= ATTEMPT_AWAY;
            run->picks[pick] = PICK_WAITING;
            n_away++;
        }
    }
    a->look_ns = now + AGAIN_NS;
    if (n_away > 0) {
        a->state = n_away == n_open ? ATTEMPT_LATE : ATTEMPT_OPEN;
        run->n_waiting += n_away;
        run->replan = true;
        tell_late(x, &x->nodes[a->node], a, now);
    }
}

void exchange_end_attempts(exchange *x, uint32_t micro_batch)
{
    for (size_t i = 0; i < x->n_attempts; i++) {
        if (x->attempts[i].state != ATTEMPT_FREE && x->attempts[i].request.micro_batch == micro_batch) {
            x->attempts[i].state = ATTEMPT_FREE;
        }
    }
}

void exchange_peer_lost(exchange *x, transport_peer peer)
{
    for (size_t i = 0; i < x->n_attempts; i++) {
        exchange_attempt *a = &x->attempts[i];

        if (a->state == ATTEMPT_OPEN && a->peer == peer) {
            x->stats.retries++;
            exchange_requeue(x, a);
        }
        if (a->peer == peer) {
            a->state = ATTEMPT_FREE;
        }
    }
}

void exchange_take_back(exchange *x, transport_peer peer)
{
    for (size_t i = 0; i < x->n_attempts; i++) {
        exchange_attempt *a = &x->attempts[i];

        if (a->state == ATTEMPT_OPEN && a->peer == peer) {
            a->state = ATTEMPT_LATE;
            exchange_requeue(x, a);
        }
    }
}

/* A deadline that passes makes the attempt late, not dead: its picks go elsewhere, to the same node again if there is no
 * other, and its answer is still welcome. */
void exchange_attempt_timers(exchange *x, uint64_t now)
{
    for (size_t i = 0; i < x->n_attempts; i++) {
        exchange_attempt *a = &x->attempts[i];

        if (a->state != ATTEMPT_OPEN) {
            continue;
        }
        if (now >= a->deadline_ns) {
            a->state = ATTEMPT_LATE;
            tell_late(x, &x->nodes[a->node], a, now);
            exchange_requeue(x, a);
            continue;
        }
        if (now >= a->look_ns) {
            a->look_ns = now + STRAGGLER_NS;
            if (is_straggler(x, a, now)) {
                hedge(x, a, now);
            }
        }
        exchange_wake_at(x, MOE_MIN(a->deadline_ns, a->look_ns));
    }
}

exchange_attempt *exchange_find_attempt(const exchange *x, transport_peer peer, const wire_request *request)
{
    for (size_t i = 0; i < x->n_attempts; i++) {
        exchange_attempt *a = &x->attempts[i];

        if (a->state != ATTEMPT_FREE && a->peer == peer && wire_request_equal(&a->request, request)) {
            return a;
        }
    }
    return NULL;
}
