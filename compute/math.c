/* The host's own exp, log, erf, ...: the scalar definitions of docs/numeric.md. The vector twins in vector_priv.h
 * repeat them operation by operation. */
#include "compute/math.h"
#include "compute/math_priv.h"

#include <math.h>
#include <string.h>

static float from_bits(uint32_t u)
{
    float f;

    memcpy(&f, &u, sizeof(f));
    return f;
}

static uint32_t to_bits(float f)
{
    uint32_t u;

    memcpy(&u, &f, sizeof(u));
    return u;
}

/* c[0] + x * (c[1] + x * (...)), each step one FMA. */
static float horner(float x, const float *c, size_t n)
{
    float y = c[n - 1];

    for (size_t i = n - 1; i-- > 0;) {
        y = fmaf(y, x, c[i]);
    }
    return y;
}

/* 2^n * exp(r) with |r| <= ln2 / 2; the power in two factors, because n reaches 128 and -127. */
float compute_exp(float x)
{
    const float magic = 0x1.8p23f; /* adding it rounds to an integer, to even, in the low bits */
    float t, n, r, y;
    int32_t i;

    if (x < -88.0f) {
        return 0.0f;
    }
    if (x > 0x1.62e42ep6f) {
        return INFINITY;
    }
    if (x != x) {
        return x;
    }
    t = fmaf(x, 0x1.715476p0f, magic);
    n = t - magic;
    i = (int32_t)(to_bits(t) - to_bits(magic));
    r = fmaf(n, -0x1.62e4p-1f, x);
    r = fmaf(n, -0x1.7f7d1cp-20f, r);
    y = fmaf(r * r, horner(r, math_exp_p5, MOE_COUNT(math_exp_p5)), r) + 1.0f;
    return y * from_bits((uint32_t)((i >> 1) + 127) << 23) * from_bits((uint32_t)(i - (i >> 1) + 127) << 23);
}

/* x = 2^e * (1 + f) with 1 + f in [sqrt(1/2), sqrt(2)). */
float compute_log(float x)
{
    uint32_t u = to_bits(x);
    int32_t e;
    float f, n, y;

    if ((u & 0x7f800000u) == 0) {
        return -INFINITY; /* zero, and a denormal is one */
    }
    if (x != x || x < 0.0f) {
        return NAN;
    }
    if (u == 0x7f800000u) {
        return x;
    }
    e = (int32_t)(u - 0x3f3504f3u) >> 23;
    f = from_bits(u - ((uint32_t)e << 23)) - 1.0f;
    n = (float)e;
    y = fmaf(f * f, fmaf(f, horner(f, math_log_p8, MOE_COUNT(math_log_p8)), -0.5f), n * 0x1.7f7d1cp-20f);
    return fmaf(n, 0x1.62e4p-1f, f + y);
}

/* log of the rounded 1 + x, plus what the rounding lost over 1 + x. */
float compute_log1p(float x)
{
    float u = 1.0f + x, lost;

    if (x > -0x1p-24f && x < 0x1p-24f) {
        return x;
    }
    if (!(u > 0.0f) || u == INFINITY) {
        return compute_log(u);
    }
    lost = x >= 1.0f ? 1.0f - (u - x) : x - (u - 1.0f);
    return compute_log(u) + lost / u;
}

/* Below 0.921875 x + x P(x^2); above it 1 - exp(-(x^2 + Q(x))). */
float compute_erf(float x)
{
    float a = fabsf(x), y;

    if (a < 0.921875f) {
        return fmaf(x, horner(x * x, math_erf_p7, MOE_COUNT(math_erf_p7)), x);
    }
    if (x != x) {
        return x;
    }
    y = a >= 4.0f ? 1.0f : 1.0f - compute_exp(-fmaf(a, a, horner(a, math_erf_q8, MOE_COUNT(math_erf_q8))));
    return copysignf(y, x);
}

/* Below 0.625 x + x^3 P(x^2); above it 1 - 2 / (exp(2x) + 1). */
float compute_tanh(float x)
{
    float a = fabsf(x), s;

    if (a < 0.625f) {
        s = x * x;
        return fmaf(x * s, horner(s, math_tanh_p5, MOE_COUNT(math_tanh_p5)), x);
    }
    if (x != x) {
        return x;
    }
    return copysignf(1.0f - 2.0f / (compute_exp(a + a) + 1.0f), x);
}

float compute_sigmoid(float x)
{
    return 1.0f / (1.0f + compute_exp(-x));
}

float compute_silu(float x)
{
    return x / (1.0f + compute_exp(-x));
}

float compute_gelu_erf(float x)
{
    return 0.5f * x * (1.0f + compute_erf(x * MATH_ROOT_HALF));
}

float compute_gelu_tanh(float x)
{
    float u = MATH_GELU_SCALE * fmaf(MATH_GELU_CUBE * (x * x), x, x);

    return 0.5f * x * (1.0f + compute_tanh(u));
}

/* As vcvtneps2bf16, whatever the thread's FTZ and DAZ. */
uint16_t compute_bf16_from_f32(float x)
{
    uint32_t u = to_bits(x);

    if ((u & 0x7f800000u) == 0) {
        return (uint16_t)(u >> 16 & 0x8000u);
    }
    if ((u & 0x7fffffffu) > 0x7f800000u) {
        return (uint16_t)(u >> 16 | 0x40u);
    }
    return (uint16_t)((u + 0x7fffu + (u >> 16 & 1u)) >> 16);
}

float compute_f32_from_f16(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, e = h >> 10 & 31u, m = h & 0x3ffu;
    uint32_t shift;

    if (e == 31) {
        return from_bits(sign | 0x7f800000u | m << 13 | (m != 0 ? 0x400000u : 0));
    }
    if (e != 0) {
        return from_bits(sign | (e + 112) << 23 | m << 13);
    }
    if (m == 0) {
        return from_bits(sign);
    }
    shift = (uint32_t)__builtin_clz(m) - 21; /* moves the leading one to bit 10 */
    return from_bits(sign | (113 - shift) << 23 | (m << shift & 0x3ffu) << 13);
}

void compute_rope_frequencies(double *out, size_t head_dim, double theta)
{
    for (size_t j = 0; j < head_dim / 2; j++) {
        out[j] = pow(theta, -2.0 * (double)j / (double)head_dim);
    }
}

void compute_rope_table(float *out, size_t n_positions, size_t head_dim, const double *frequencies,
                        double position_scale, double magnitude)
{
    size_t half = head_dim / 2;

    for (size_t t = 0; t < n_positions; t++) {
        for (size_t j = 0; j < half; j++) {
            double angle = (double)t * position_scale * frequencies[j];

            out[2 * t * half + j] = (float)(cos(angle) * magnitude);
            out[(2 * t + 1) * half + j] = (float)(sin(angle) * magnitude);
        }
    }
}
