/* Norms: a block a row. A strided sum is 16 chains, which 16 lanes of the first warp walk; the other threads come in where values are independent. */
#include "compute/cuda/launch.h"
#include "compute/cuda/math.cuh"

#define THREADS 128u

/* The strided sums of docs/numeric.md over v(0), v(1), ..., padded with +0, which is fed. By one whole warp; all its lanes get the sum. */
template <class V> static __device__ __forceinline__ float strided_products(size_t n, V v)
{
    unsigned lane = threadIdx.x & 31u;
    float p = 0.0f;

    for (size_t i = lane & 15u; i < (n + 15) / 16 * 16; i += 16) {
        float a = i < n ? v(i) : 0.0f;

        p = __fmaf_rn(a, a, p);
    }
    return cuda_fold(p);
}

template <class V> static __device__ __forceinline__ float strided_sum(size_t n, V v)
{
    unsigned lane = threadIdx.x & 31u;
    float p = 0.0f;

    for (size_t i = lane & 15u; i < (n + 15) / 16 * 16; i += 16) {
        p = __fadd_rn(p, i < n ? v(i) : 0.0f);
    }
    return cuda_fold(p);
}

/* `value` of the first warp for the whole block. */
static __device__ __forceinline__ float for_all(float *shared, float value)
{
    if (threadIdx.x == 0) {
        *shared = value;
    }
    __syncthreads();
    return *shared;
}

static __device__ __forceinline__ void store_rounded(void *rounded, bool bf16, size_t at, float y)
{
    if (rounded == nullptr) {
        return;
    }
    if (bf16) {
        ((uint16_t *)rounded)[at] = cuda_bf16_of(y);
    } else {
        ((float *)rounded)[at] = y;
    }
}

__global__ void __launch_bounds__(THREADS) rms_norm_kernel(float *out, void *rounded, bool bf16, const float *x,
                                                           size_t stride, const float *gain, float eps, size_t width)
{
    CUDA_SHARED(float, shared, 1);
    size_t row = blockIdx.x;
    const float *in = x + row * stride;
    float *to = out + row * (out == x ? stride : width), r = 0.0f;

    if (threadIdx.x < 32) {
        float ss = strided_products(width, [=](size_t i) { return in[i]; });

        r = __fdiv_rn(1.0f, __fsqrt_rn(__fadd_rn(__fdiv_rn(ss, __uint2float_rn((unsigned)width)), eps)));
    }
    r = for_all(shared, r);
    for (size_t i = threadIdx.x; i < width; i += THREADS) {
        float y = __fmul_rn(__fmul_rn(in[i], r), gain[i]);

        to[i] = y;
        store_rounded(rounded, bf16, row * width + i, y);
    }
}

void cuda_rms_norm(float *out, void *rounded, bool bf16, const float *x, size_t stride, const float *gain, float eps,
                   size_t width, size_t n, cudaStream_t s)
{
    if (n > 0) {
        CUDA_LAUNCH(rms_norm_kernel, (unsigned)n, THREADS, 0, s, out, rounded, bf16, x, stride, gain, eps, width);
    }
}

__global__ void __launch_bounds__(THREADS) layer_norm_kernel(float *out, void *rounded, bool bf16, const float *x,
                                                             const float *gain, const float *bias, float eps,
                                                             size_t width)
{
    CUDA_SHARED(float, shared, 2);
    size_t row = blockIdx.x;
    const float *in = x + row * width;
    float mean = 0.0f, r = 0.0f;

    if (threadIdx.x < 32) {
        float n = __uint2float_rn((unsigned)width), m = __fdiv_rn(strided_sum(width, [=](size_t i) { return in[i]; }), n);
        float ss = strided_products(width, [=](size_t i) { return __fsub_rn(in[i], m); });

        mean = m;
        r = __fdiv_rn(1.0f, __fsqrt_rn(__fadd_rn(__fdiv_rn(ss, n), eps)));
    }
    mean = for_all(shared, mean);
    r = for_all(shared + 1, r);
    for (size_t i = threadIdx.x; i < width; i += THREADS) {
        float y = __fadd_rn(__fmul_rn(__fmul_rn(__fsub_rn(in[i], mean), r), gain[i]), bias[i]);

        out[row * width + i] = y;
        store_rounded(rounded, bf16, row * width + i, y);
    }
}

void cuda_layer_norm(float *out, void *rounded, bool bf16, const float *x, const float *gain, const float *bias,
                     float eps, size_t width, size_t n, cudaStream_t s)
{
    if (n > 0) {
        CUDA_LAUNCH(layer_norm_kernel, (unsigned)n, THREADS, 0, s, out, rounded, bf16, x, gain, bias, eps, width);
    }
}

__global__ void __launch_bounds__(THREADS) unit_norm_kernel(float *x, size_t width)
{
    CUDA_SHARED(float, shared, 1);
    float *row = x + blockIdx.x * width, length = 0.0f;

    if (threadIdx.x < 32) {
        length = __fsqrt_rn(strided_products(width, [=](size_t i) { return row[i]; }));
        length = length < 1e-12f ? 1e-12f : length;
    }
    length = for_all(shared, length);
    for (size_t i = threadIdx.x; i < width; i += THREADS) {
        row[i] = __fdiv_rn(row[i], length);
    }
}

void cuda_unit_norm(float *x, size_t width, size_t n, cudaStream_t s)
{
    if (n > 0) {
        CUDA_LAUNCH(unit_norm_kernel, (unsigned)n, THREADS, 0, s, x, width);
    }
}

/* A constant expert, a block a row: two chains over the row by two lanes, softmax of the two, the mix. */
template <class D>
__global__ void __launch_bounds__(THREADS)
    constant_expert_kernel(typename D::stored *out, const typename D::stored *x, const float *gate,
                           const float *constant, const uint32_t *rows, const uint32_t *out_rows, size_t width)
{
    CUDA_SHARED(float, z, 2);
    const typename D::stored *in = x + (size_t)rows[blockIdx.x] * width;
    typename D::stored *to = out + (size_t)out_rows[blockIdx.x] * width;
    float m, e0, e1, sum, a0, a1;

    if (threadIdx.x < 2) {
        float acc = 0.0f;

        for (size_t i = 0; i < width; i++) {
            acc = __fmaf_rn(D::load(in + i), gate[threadIdx.x * width + i], acc);
        }
        z[threadIdx.x] = acc;
    }
    __syncthreads();
    m = __fadd_rn(cuda_max(z[0], z[1]), 0.0f);
    e0 = cuda_exp(__fsub_rn(z[0], m));
    e1 = cuda_exp(__fsub_rn(z[1], m));
    sum = __fadd_rn(e0, e1);
    a0 = __fdiv_rn(e0, sum);
    a1 = __fdiv_rn(e1, sum);
    for (size_t i = threadIdx.x; i < width; i += THREADS) {
        to[i] = D::store(__fadd_rn(__fmul_rn(a0, D::load(in + i)), __fmul_rn(a1, constant[i])));
    }
}

void cuda_constant_expert(void *out, const void *x, bool bf16, const float *gate, const float *constant,
                          const uint32_t *rows, const uint32_t *out_rows, size_t n, size_t width, cudaStream_t s)
{
    if (n == 0) {
        return;
    }
    if (bf16) {
        CUDA_LAUNCH(constant_expert_kernel<cuda_bf16>, (unsigned)n, THREADS, 0, s, (uint16_t *)out, (const uint16_t *)x,
                    gate, constant, rows, out_rows, width);
    } else {
        CUDA_LAUNCH(constant_expert_kernel<cuda_f32>, (unsigned)n, THREADS, 0, s, (float *)out, (const float *)x, gate,
                    constant, rows, out_rows, width);
    }
}
