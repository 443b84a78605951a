/* The limits of the machine, measured beside what is compared with them: same threads, same threads, same run. */
#ifndef CONCLAVE_BENCH_CPU_LIMITS_H
#define CONCLAVE_BENCH_CPU_LIMITS_H

#include "compute/compute.h"

/* Bytes per second of reading `bytes` of memory (larger than the caches) with all threads, best of a few. */
double cpu_limits_bandwidth(moe_threads *threads, const void *memory, size_t bytes);
/* Seconds of reading it once. */
double cpu_limits_read_seconds(moe_threads *threads, const void *memory, size_t bytes);
/* Flop per second of independent register-only FMAs, as wide as the instruction set has them: of f32, and of
 * products of bf16 pairs, which without vdpbf16ps are two f32 FMAs each. */
double cpu_limits_peak_f32(moe_threads *threads, compute_isa isa);
double cpu_limits_peak_bf16(moe_threads *threads, compute_isa isa);

#endif
