/* What a GPU can do at most, for tools/gpu_check.sh: FMAs on registers alone, and copies within its memory. */
#include "compute/cuda/ptx.h"
#include "tests/cuda/probe.h"

#define CHAINS 16
#define ROUNDS 4096

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

double probe_fma_flop(unsigned blocks)
{
    return 2.0 * CHAINS * ROUNDS * 256 * blocks;
}

void probe_fma(float *out, unsigned blocks, cudaStream_t s)
{
    CUDA_LAUNCH(fma_kernel, blocks, 256, 0, s, out, 0.5f);
}
