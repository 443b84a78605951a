/* The host's own mathematics. One definition each, scalar and vector bit for bit, never libm; docs/numeric.md gives
 * polynomials and error. Pure functions, any thread that has called compute_thread_init. */
#ifndef CONCLAVE_COMPUTE_MATH_H
#define CONCLAVE_COMPUTE_MATH_H

#include "compute/compute.h"

#ifdef __cplusplus
extern "C" {
#endif

float compute_exp(float x);
float compute_log(float x);
float compute_log1p(float x);
float compute_erf(float x);
float compute_tanh(float x);
float compute_sigmoid(float x);   /* 1 / (1 + exp(-x)) */
float compute_silu(float x);      /* x / (1 + exp(-x)) */
float compute_gelu_erf(float x);  /* x/2 * (1 + erf(x / sqrt 2)) */
float compute_gelu_tanh(float x); /* x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3))) */

uint16_t compute_bf16_from_f32(float x); /* nearest even; denormals to signed zero; NaN quiet */
static inline float compute_f32_from_bf16(uint16_t b)
{
    union {
        uint32_t u;
        float f;
    } v = {(uint32_t)b << 16};
    return v.f;
}
float compute_f32_from_f16(uint16_t h); /* exact */

/* Row functions on host arrays, using the best instruction set (equal bits on all):
 * sum of 16 strided partial sums folded in the fixed tree; the maximum; y = exp(x - shift); y = y / by. */
float compute_row_sum(const float *x, size_t n);
float compute_row_max(const float *x, size_t n);                       /* NaN if any is NaN; n > 0 */
void compute_row_exp(float *y, const float *x, float shift, size_t n); /* y may be x */
void compute_row_divide(float *y, float by, size_t n);
/* y = softmax(x): m = max; e = exp(x - m); y = e / sum(e). y may be x. */
void compute_row_softmax(float *y, const float *x, size_t n);
/* log(sum(exp(x - max))) with max = max(x): log-softmax of entry i is (x[i] - max) - that. scratch [n]. */
float compute_row_log_sum(const float *x, float max, size_t n, float *scratch);
/* Tests and benchmarks: which set the row functions use (default AUTO). */
void compute_row_set_isa(compute_isa isa);

/* theta^(-2j/head_dim), radians per position of pair j: out [head_dim / 2]. */
void compute_rope_frequencies(double *out, size_t head_dim, double theta);
/* cos and sin of position * position_scale * frequencies[j], times magnitude, made in double and stored f32: out
 * [n_positions][2][head_dim / 2]. position_scale: 1 / factor for linear scaling, else 1; magnitude: 1 but for YaRN. */
void compute_rope_table(float *out, size_t n_positions, size_t head_dim, const double *frequencies,
                        double position_scale, double magnitude);

#ifdef __cplusplus
}
#endif

#endif
