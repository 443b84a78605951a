/* Waiting for results: what waits for a node that nobody is, and how to wait without a core. */
#include "exchange/exchange_priv.h"

#include <time.h>

bool exchange_is_taken(const exchange *x, uint32_t layer, int32_t expert_id, uint32_t not_node, uint64_t now)
{
    size_t n = 0;
    const uint32_t *owners =
        x->placement == NULL ? NULL : router_placement_replicas(x->placement, layer, expert_id, &n);

    for (size_t i = 0; i < n; i++) {
        uint32_t idx = x->node_of[owners[i]];
        const exchange_node *node = idx == EXCHANGE_NO_NODE ? NULL : &x->nodes[idx];

        if (node != NULL && idx != not_node && exchange_takes_rows(node, now) &&
            (not_node == EXCHANGE_NO_NODE || now >= node->slow_until_ns)) {
            return true;
        }
    }
    return false;
}

bool exchange_has_taker(const exchange *x, const exchange_stuck *of)
{
    return exchange_is_taken(x, of->layer, of->expert_id, EXCHANGE_NO_NODE, moe_now_ns(x->o.clock));
}

uint64_t exchange_stuck_since(const exchange *x, uint32_t micro_batch)
{
    MOE_ASSERT(micro_batch < x->o.micro_batches);
    return x->runs[micro_batch].state == EXCHANGE_RUNNING ? x->runs[micro_batch].stuck_ns : 0;
}

bool exchange_row_is_stuck(const exchange *x, uint32_t micro_batch, size_t row, exchange_stuck *out)
{
    MOE_ASSERT(micro_batch < x->o.micro_batches);
    const exchange_run *run = &x->runs[micro_batch];
    uint64_t now = moe_now_ns(x->o.clock);

    for (size_t pick = row * x->o.k; run->state == EXCHANGE_RUNNING && pick < (row + 1) * x->o.k; pick++) {
        if (run->picks[pick] == PICK_WAITING &&
            !exchange_is_taken(x, run->job.layer, run->job.ids[pick], EXCHANGE_NO_NODE, now)) {
            *out = (exchange_stuck){run->job.layer, run->job.ids[pick]};
            return true;
        }
    }
    return false;
}

uint64_t exchange_turned_ns(const exchange *x)
{
    return atomic_load_explicit(&x->turned_ns, memory_order_relaxed);
}

/* Spin, yield, sleep, each for a while (docs/threads.md). Measured with other processes on the same two cores: a spin
 * of 20 us cost 60 us per round trip where spinner and node shared a core, against 17.6 us when it yields at once
 * (bench_transport); a pool of two nodes at batch 1 went from 0.89 - 0.96 of one process's rate to 0.98 by sleeping
 * after 100 us instead of a millisecond, together with the other changes that docs/threads.md lists under "Waiting". */
#define NAP_NS UINT64_C(100000) /* at most, where the transport cannot be slept on */

void exchange_pause(exchange *x, uint64_t until_ns)
{
    transport *t = x->o.transport;
    uint64_t now = exchange_turned_ns(x);
    uint64_t until = MOE_MIN(x->wake_ns, until_ns);
    uint64_t left = until > now ? until - now : 0;

    if (x->o.threads != NULL) {
        moe_threads_rest(x->o.threads);
    }
    /* A transport that can be slept on has other processes behind it, which may need this core to answer. */
    if (moe_wait_moment(now > x->busy_ns ? now - x->busy_ns : 0, t->ops->wait != NULL)) {
        return;
    }
    if (t->ops->wait != NULL) {
        t->ops->wait(t, left);
    } else {
        const struct timespec nap = {0, (long)MOE_MIN(left, NAP_NS)};

        (void)nanosleep(&nap, NULL);
    }
}
