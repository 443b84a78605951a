/* The device's mathematics: compute/math.c operation by operation, with the roundings spelled out. Also the conversions between the dtypes, and the strided sum. */
#ifndef CONCLAVE_COMPUTE_CUDA_MATH_CUH
#define CONCLAVE_COMPUTE_CUDA_MATH_CUH

#include "compute/cuda/ptx.h"
#include "compute/math_priv.h"

#define CUDA_INFINITY __uint_as_float(0x7f800000u)
#define CUDA_NAN      __uint_as_float(0x7fc00000u)

/* c[0] + x * (c[1] + x * (...)), each step one FMA. */
template <int N> static __device__ __forceinline__ float cuda_horner(float x, const float (&c)[N])
{
    float y = c[N - 1];

#pragma unroll
    for (int i = N - 2; i >= 0; i--) {
        y = __fmaf_rn(y, x, c[i]);
    }
    return y;
}

static __device__ __forceinline__ float cuda_exp(float x)
{
    const float p5[] = {MATH_EXP_P5};
    const float magic = 0x1.8p23f;
    float t, n, r, y;
    int i;

    if (x < -88.0f) {
        return 0.0f;
    }
    if (x > 0x1.62e42ep6f) {
        return CUDA_INFINITY;
    }
    if (x != x) {
        return x;
    }
    t = __fmaf_rn(x, 0x1.715476p0f, magic);
    n = __fsub_rn(t, magic);
    i = (int)(__float_as_uint(t) - __float_as_uint(magic));
    r = __fmaf_rn(n, -0x1.62e4p-1f, x);
    r = __fmaf_rn(n, -0x1.7f7d1cp-20f, r);
    y = __fadd_rn(__fmaf_rn(__fmul_rn(r, r), cuda_horner(r, p5), r), 1.0f);
    return __fmul_rn(__fmul_rn(y, __uint_as_float((uint32_t)((i >> 1) + 127) << 23)),
                     __uint_as_float((uint32_t)(i - (i >> 1) + 127) << 23));
}

static __device__ __forceinline__ float cuda_log(float x)
{
    const float p8[] = {MATH_LOG_P8};
    uint32_t u = __float_as_uint(x);
    int e;
    float f, n, y;

    if ((u & 0x7f800000u) == 0) {
        return -CUDA_INFINITY;
    }
    if (x != x || x < 0.0f) {
        return CUDA_NAN;
    }
    if (u == 0x7f800000u) {
        return x;
    }
    e = (int)(u - 0x3f3504f3u) >> 23;
    f = __fsub_rn(__uint_as_float(u - ((uint32_t)e << 23)), 1.0f);
    n = __int2float_rn(e);
    y = __fmaf_rn(__fmul_rn(f, f), __fmaf_rn(f, cuda_horner(f, p8), -0.5f), __fmul_rn(n, 0x1.7f7d1cp-20f));
    return __fmaf_rn(n, 0x1.62e4p-1f, __fadd_rn(f, y));
}

static __device__ __forceinline__ float cuda_log1p(float x)
{
    float u = __fadd_rn(1.0f, x), lost;

    if (x > -0x1p-24f && x < 0x1p-24f) {
        return x;
    }
    if (!(u > 0.0f) || u == CUDA_INFINITY) {
        return cuda_log(u);
    }
    lost = x >= 1.0f ? __fsub_rn(1.0f, __fsub_rn(u, x)) : __fsub_rn(x, __fsub_rn(u, 1.0f));
    return __fadd_rn(cuda_log(u), __fdiv_rn(lost, u));
}

static __device__ __forceinline__ float cuda_magnitude(float x)
{
    return __uint_as_float(__float_as_uint(x) & 0x7fffffffu);
}

static __device__ __forceinline__ float cuda_with_sign(float magnitude, float sign)
{
    return __uint_as_float((__float_as_uint(magnitude) & 0x7fffffffu) | (__float_as_uint(sign) & 0x80000000u));
}

static __device__ __forceinline__ float cuda_erf(float x)
{
    const float p7[] = {MATH_ERF_P7};
    const float q8[] = {MATH_ERF_Q8};
    float a = cuda_magnitude(x), y;

    if (a < 0.921875f) {
        return __fmaf_rn(x, cuda_horner(__fmul_rn(x, x), p7), x);
    }
    if (x != x) {
        return x;
    }
    y = a >= 4.0f ? 1.0f : __fsub_rn(1.0f, cuda_exp(-__fmaf_rn(a, a, cuda_horner(a, q8))));
    return cuda_with_sign(y, x);
}

static __device__ __forceinline__ float cuda_tanh(float x)
{
    const float p5[] = {MATH_TANH_P5};
    float a = cuda_magnitude(x), s;

    if (a < 0.625f) {
        s = __fmul_rn(x, x);
        return __fmaf_rn(__fmul_rn(x, s), cuda_horner(s, p5), x);
    }
    if (x != x) {
        return x;
    }
    return cuda_with_sign(__fsub_rn(1.0f, __fdiv_rn(2.0f, __fadd_rn(cuda_exp(__fadd_rn(a, a)), 1.0f))), x);
}

static __device__ __forceinline__ float cuda_sigmoid(float x)
{
    return __fdiv_rn(1.0f, __fadd_rn(1.0f, cuda_exp(-x)));
}

static __device__ __forceinline__ float cuda_silu(float x)
{
    return __fdiv_rn(x, __fadd_rn(1.0f, cuda_exp(-x)));
}

static __device__ __forceinline__ float cuda_gelu_erf(float x)
{
    return __fmul_rn(__fmul_rn(0.5f, x), __fadd_rn(1.0f, cuda_erf(__fmul_rn(x, MATH_ROOT_HALF))));
}

static __device__ __forceinline__ float cuda_gelu_tanh(float x)
{
    float u = __fmul_rn(MATH_GELU_SCALE, __fmaf_rn(__fmul_rn(MATH_GELU_CUBE, __fmul_rn(x, x)), x, x));

    return __fmul_rn(__fmul_rn(0.5f, x), __fadd_rn(1.0f, cuda_tanh(u)));
}

/* ------------------------------------------------------------------------------------------------ dtypes
 * Bits alone, so that no mode of the arithmetic can change them. */
static __device__ __forceinline__ uint16_t cuda_bf16_of(float x)
{
    uint32_t u = __float_as_uint(x);

    if ((u & 0x7f800000u) == 0) {
        return (uint16_t)(u >> 16 & 0x8000u);
    }
    if ((u & 0x7fffffffu) > 0x7f800000u) {
        return (uint16_t)(u >> 16 | 0x40u);
    }
    return (uint16_t)((u + 0x7fffu + (u >> 16 & 1u)) >> 16);
}

static __device__ __forceinline__ float cuda_of_bf16(uint32_t h)
{
    return __uint_as_float(h << 16);
}

static __device__ __forceinline__ float cuda_of_f16(uint32_t h)
{
    uint32_t sign = (h & 0x8000u) << 16, e = h >> 10 & 31u, m = h & 0x3ffu, shift;

    if (e == 31) {
        return __uint_as_float(sign | 0x7f800000u | m << 13 | (m != 0 ? 0x400000u : 0));
    }
    if (e != 0) {
        return __uint_as_float(sign | (e + 112) << 23 | m << 13);
    }
    if (m == 0) {
        return __uint_as_float(sign);
    }
    shift = (uint32_t)__clz((int)m) - 21;
    return __uint_as_float(sign | (113 - shift) << 23 | (m << shift & 0x3ffu) << 13);
}

/* What a value in memory is: the class dtype of an op, or the dtype of a weight. */
struct cuda_f32 {
    typedef float stored;
    static __device__ __forceinline__ float load(const float *p)
    {
        return *p;
    }
    static __device__ __forceinline__ float store(float x)
    {
        return x;
    }
};

struct cuda_bf16 {
    typedef uint16_t stored;
    static __device__ __forceinline__ float load(const uint16_t *p)
    {
        return cuda_of_bf16(*p);
    }
    static __device__ __forceinline__ uint16_t store(float x)
    {
        return cuda_bf16_of(x);
    }
};

struct cuda_f16 {
    typedef uint16_t stored;
    static __device__ __forceinline__ float load(const uint16_t *p)
    {
        return cuda_of_f16(*p);
    }
};

/* ------------------------------------------------------------------------------------------------ sums, maxima
 * Lanes 0 to 15 of a warp hold the partial sums of docs/numeric.md; all lanes get the sum. */
#define CUDA_ALL_LANES 0xffffffffu

static __device__ __forceinline__ float cuda_fold(float p)
{
#pragma unroll
    for (int w = 8; w > 0; w /= 2) {
        p = __fadd_rn(p, __shfl_down_sync(CUDA_ALL_LANES, p, w)); /* lanes from w on hold what nobody reads */
    }
    return __shfl_sync(CUDA_ALL_LANES, p, 0);
}

/* The maximum of two; NaN if one is. */
static __device__ __forceinline__ float cuda_max(float a, float b)
{
    return a != a ? a : b != b ? b : a > b ? a : b;
}

#endif
