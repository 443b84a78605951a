#include "bench/cuda/limits.h"

#include <stddef.h>
#include <time.h>

#include "bench/cuda/fma.h"

#ifdef GPU_LIMITS_SMALL /* on the fake GPU, where the figures mean nothing */
#define COPY   ((size_t)1 << 20)
#define BLOCKS 1u
#define ROUNDS 1
#else
#define COPY   ((size_t)256 << 20)
#define BLOCKS 2112u /* 16 an SM of an H200 */
#define ROUNDS 10
#endif

static double now(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void better(double *best, double value)
{
    *best = value > *best ? value : *best;
}

__attribute__((visibility("default"))) bool conclave_gpu_limits(int gpu, double *bytes_s, double *flop_s)
{
    void *a = NULL, *b = NULL;
    cudaStream_t s = NULL;
    double best_bytes = 0.0, best_flop = 0.0;
    bool ok = cudaSetDevice(gpu) == cudaSuccess && cudaMalloc(&a, COPY) == cudaSuccess &&
              cudaMalloc(&b, COPY) == cudaSuccess &&
              cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking) == cudaSuccess;

    for (int i = 0; i < ROUNDS && ok; i++) {
        double t = now();

        (void)cudaMemcpyAsync(b, a, COPY, cudaMemcpyDeviceToDevice, s);
        ok = cudaStreamSynchronize(s) == cudaSuccess;
        better(&best_bytes, 2.0 * (double)COPY / (now() - t));
        t = now();
        limits_fma(a, BLOCKS, s);
        ok = ok && cudaStreamSynchronize(s) == cudaSuccess;
        better(&best_flop, limits_fma_flop(BLOCKS) / (now() - t));
    }
    if (s != NULL) {
        (void)cudaStreamDestroy(s);
    }
    (void)cudaFree(a);
    (void)cudaFree(b);
    *bytes_s = best_bytes;
    *flop_s = best_flop;
    return ok;
}
