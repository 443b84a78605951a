/* The most that a GPU can do, measured in the same run as what is compared with it: copies within its memory, and FMAs on registers
 * alone. Best of some: what was reached once can be reached.
 *
 * The programs of bench/ link no CUDA: for them this is a shared object beside the program (bench/gpu_limits.h). */
#ifndef CONCLAVE_BENCH_CUDA_LIMITS_H
#define CONCLAVE_BENCH_CUDA_LIMITS_H

#include <stdbool.h>

/* Bytes a second, read and written; flop a second. False: the GPU has failed, or has no memory for two copies of 256 MB. */
bool conclave_gpu_limits(int gpu, double *bytes_s, double *flop_s);

typedef bool (*gpu_limits_fn)(int gpu, double *bytes_s, double *flop_s);
#define GPU_LIMITS_SYMBOL "conclave_gpu_limits"

#endif
