/* gpu_limits: what a GPU can do at most (bench/cuda/limits.h), for programs that link no CUDA. */
#ifndef CONCLAVE_BENCH_GPU_LIMITS_H
#define CONCLAVE_BENCH_GPU_LIMITS_H

#include "base/base.h"
#include "bench/cuda/limits.h"

/* From the shared object beside the module of the device, X-limits.so beside X.so; module NULL: libconclave-cuda.so beside this
 * program. It stays open. MOE_ERR_UNSUPPORTED: there is none. */
MOE_NODISCARD moe_status gpu_limits_open(const char *module, gpu_limits_fn *out, moe_error *err);

#endif
