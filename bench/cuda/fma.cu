/* FMAs on registers alone: the most that a GPU has of them. */
#include "compute/cuda/ptx.h"
#include "bench/cuda/fma.h"

#define CHAINS 16
#ifdef GPU_LIMITS_SMALL
#define ROUNDS 8
#else
#define ROUNDS 4096
#endif

__global__ void __launch_bounds__(256) fma_kernel(float *out, float a)
{
    float x[CHAINS];

#pragma unroll
    for (int i = 0; i < CHAINS; i++) {
        x[i] = a * (float)(threadIdx.x + i);
    }
    for (int r = 0; r < ROUNDS; r++) {
#pragma unroll
        for (int i = 0; i < CHAINS; i++) {
            x[i] = __fmaf_rn(x[i], a, 1.0f);
        }
    }
#pragma unroll
    for (int i = 1; i < CHAINS; i++) {
        x[0] += x[i];
    }
    out[blockIdx.x * 256 + threadIdx.x] = x[0];
}

double limits_fma_flop(unsigned blocks)
{
    return 2.0 * CHAINS * ROUNDS * 256 * blocks;
}

void limits_fma(float *out, unsigned blocks, cudaStream_t s)
{
    CUDA_LAUNCH(fma_kernel, blocks, 256, 0, s, out, 0.5f);
}
