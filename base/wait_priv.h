/* The first two of the three stages in which every sleeper of base waits: spin, yield, sleep. Spinning alone starves
 * the thread that is waited for as soon as there are more threads than cores. */
#ifndef CONCLAVE_BASE_WAIT_PRIV_H
#define CONCLAVE_BASE_WAIT_PRIV_H

#include "base/base.h"

#define WAIT_SPINS_PER_READING 32 /* the clock costs about as much as a pause */

typedef struct wait_stage {
    uint64_t start_ns; /* 0: not read yet */
    uint64_t waited_ns;
    unsigned n_spins;
} wait_stage;

/* Waits a moment; false when it is time to sleep. Start with a zeroed stage, call between two looks at
 * the condition. */
static inline bool wait_a_moment(wait_stage *s)
{
    if (s->waited_ns < MOE_WAIT_SPIN_NS && ++s->n_spins % WAIT_SPINS_PER_READING != 0) {
        return moe_wait_moment(0, false);
    }
    uint64_t now = moe_now_ns(moe_clock_real());

    if (s->start_ns == 0) {
        s->start_ns = now;
    }
    s->waited_ns = now - s->start_ns;
    return moe_wait_moment(s->waited_ns, false);
}

#endif
