/* frames: what the exchange (plan, frames encoded and decoded, loopback) costs beside computing the same picks by one
 * direct call of the device. */
#ifndef CONCLAVE_BENCH_FRAMES_H
#define CONCLAVE_BENCH_FRAMES_H

#include "bench/rig.h"

/* Seconds of one pass through all layers; medians over n_rounds pairs. */
typedef struct frames_result {
    double direct_experts, direct_all; /* the experts' part, the whole pass */
    double frames_experts, frames_all;
} frames_result;

/* The engine must be idle. n_sequences sequences with one row each at position 16, or (n_sequences 1, n_rows > 1) the
 * first n_rows positions of one. Each pair reads the same random tokens, once either way. */
MOE_NODISCARD moe_status frames_measure(rig *r, size_t n_sequences, size_t n_rows, size_t n_rounds, frames_result *out,
                                        moe_error *err);

#endif
