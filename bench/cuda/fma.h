#ifndef CONCLAVE_BENCH_CUDA_FMA_H
#define CONCLAVE_BENCH_CUDA_FMA_H

#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif

/* out [blocks * 256]. */
void limits_fma(float *out, unsigned blocks, cudaStream_t s);
double limits_fma_flop(unsigned blocks);

#ifdef __cplusplus
}
#endif
#endif
