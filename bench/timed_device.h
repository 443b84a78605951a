/* timed_device: a device that passes every op on to another one and counts where the time goes. Between ops the time
 * is the host's: gate, frames, sampling.
 *
 * Threads: as the inner device, the thread that steps it. */
#ifndef CONCLAVE_BENCH_TIMED_DEVICE_H
#define CONCLAVE_BENCH_TIMED_DEVICE_H

#include "compute/compute.h"

#define TIMED_PART_MAP(X)                                                                                              \
    X(TIMED_ATTENTION, "attention")                                                                                    \
    X(TIMED_PROJECTIONS, "q, k, v, o projections")                                                                     \
    X(TIMED_ROUTER, "router product")                                                                                  \
    X(TIMED_EXPERTS, "experts")                                                                                        \
    X(TIMED_LOCAL, "local experts")                                                                                    \
    X(TIMED_HEAD, "head product")                                                                                      \
    X(TIMED_NORM, "norms")                                                                                             \
    X(TIMED_ROPE, "rope")                                                                                              \
    X(TIMED_KV_STORE, "KV store")                                                                                      \
    X(TIMED_COMBINE, "combine")                                                                                        \
    X(TIMED_SMALL, "embed, round, clamp, add, gather")                                                                 \
    X(TIMED_COPY, "copies to and from the host")                                                                       \
    X(TIMED_BEFORE, "scheduler (before the first op)")                                                                 \
    X(TIMED_BETWEEN, "gate and frames (between ops)")                                                                  \
    X(TIMED_AFTER, "sampling (after the last op)")

typedef enum {
#define X(name, text) name,
    TIMED_PART_MAP(X)
#undef X
        TIMED_N_PARTS
} timed_part;

typedef struct timed_report {
    uint64_t ns[TIMED_N_PARTS];
    uint64_t calls[TIMED_N_PARTS];
} timed_report;

const char *timed_part_name(timed_part part);

/* Owns inner from now on (also on failure). Matrices of at least head_outputs rows count as the head. */
MOE_NODISCARD moe_status timed_device_open(compute_device *inner, size_t head_outputs, compute_device **out);
/* Brackets what is counted, on a device of timed_device_open; sums go to `report` until the end. */
void timed_device_begin(compute_device *d, timed_report *report);
void timed_device_end(compute_device *d);
/* The expert that was opened from this gate weight; NULL: none. */
const compute_expert *timed_device_expert(const compute_device *d, const void *gate_data);

#endif
