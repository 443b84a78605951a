/* The first two of the three stages in which every sleeper of base waits: spin, yield, sleep. Spinning alone starves
 * the thread that is waited for as soon as there are more threads than cores. */
#ifndef CONCLAVE_BASE_WAIT_PRIV_H
#define CONCLAVE_BASE_WAIT_PRIV_H

#include "base/base.h"

#include <sched.h>

#define WAIT_SPIN_NS           20000u
#define WAIT_YIELD_NS          1000000u
#define WAIT_SPINS_PER_READING 32 /* the clock costs about as much as a pause */

typedef struct wait_stage {
    uint64_t start_ns; /* 0: not read yet */
    uint64_t waited_ns;
    unsigned n_spins;
} wait_stage;

static inline void wait_pause(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Waits a moment; false when it is time to sleep. Start with a zeroed stage, call between two looks at
 * the condition. */
static inline bool wait_a_moment(wait_stage *s)
{
    if (s->waited_ns < WAIT_SPIN_NS && ++s->n_spins % WAIT_SPINS_PER_READING != 0) {
        wait_pause();
        return true;
    }
    uint64_t now = moe_now_ns(moe_clock_real());

    if (s->start_ns == 0) {
        s->start_ns = now;
    }
    s->waited_ns = now - s->start_ns;
    if (s->waited_ns >= WAIT_SPIN_NS) {
        (void)sched_yield();
    }
    return s->waited_ns < WAIT_YIELD_NS;
}

#endif
