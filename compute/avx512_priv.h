/* v16, a vector of 16 f32, and its operations over AVX-512; and what the files of that set give each other. Only
 * avx512*.c include it, which alone are compiled for the set: avx512.c and avx512_pair.c with its bf16 instructions,
 * the others without, so that processors without may run them. */
#ifndef CONCLAVE_COMPUTE_AVX512_PRIV_H
#define CONCLAVE_COMPUTE_AVX512_PRIV_H

#include "compute/cpu_priv.h"
#include "compute/math_priv.h"

#include <immintrin.h>
#include <math.h>
#include <string.h>

typedef __m512 v16;

#define V_SCORE_ROWS   4
#define V_SCORE_KEYS   4
#define V_SCORES       16
#define V_VALUE_ROWS   4
#define V_VALUE_BLOCKS 4

static inline __mmask16 first_lanes(size_t n)
{
    return (__mmask16)((1u << n) - 1);
}

static inline v16 v16_zero(void)
{
    return _mm512_setzero_ps();
}

static inline v16 v16_set(float x)
{
    return _mm512_set1_ps(x);
}

static inline v16 v16_load(const float *x)
{
    return _mm512_loadu_ps(x);
}

static inline v16 v16_load_n(const float *x, size_t n)
{
    return _mm512_maskz_loadu_ps(first_lanes(n), x);
}

static inline void v16_store(float *to, v16 x)
{
    _mm512_storeu_ps(to, x);
}

static inline void v16_store_n(float *to, size_t n, v16 x)
{
    _mm512_mask_storeu_ps(to, first_lanes(n), x);
}

static inline v16 widen_bf16(__m256i h)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}

static inline v16 v16_load_bf16(const uint16_t *x)
{
    return widen_bf16(_mm256_loadu_si256((const void *)x));
}

static inline v16 v16_load_bf16_n(const uint16_t *x, size_t n)
{
    return widen_bf16(_mm256_maskz_loadu_epi16(first_lanes(n), x));
}

/* The odd (high) or even elements of 16 units of 2-byte weights, widened. bf16 from memory each time: held in
 * registers between the halves, four vectors of raw weights would push out sums. */
CPU_TILE v16 v16_half(cpu_kind kind, const uint32_t *from, bool high)
{
    const __m512i *v = (const void *)from;
    __m512i w;

    if (kind == CPU_F16) {
        w = _mm512_loadu_si512(v);
        return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(high ? _mm512_srli_epi32(w, 16) : w));
    }
    if (high) {
        __asm__("vpandd %[v], %[mask], %[w]" : [w] "=v"(w) : [v] "m"(*v), [mask] "v"(_mm512_set1_epi32(-65536)));
    } else {
        __asm__("vpslld $16, %[v], %[w]" : [w] "=v"(w) : [v] "m"(*v));
    }
    return _mm512_castsi512_ps(w);
}

static inline v16 v16_load_f16(const uint16_t *x)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const void *)x));
}

static inline v16 v16_load_f16_n(const uint16_t *x, size_t n)
{
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first_lanes(n), x));
}

/* Nearest even; denormals to signed zero; NaN truncated and quiet. */
static inline __m256i round_to_bf16(v16 x)
{
#ifdef __AVX512BF16__
    return (__m256i)_mm512_cvtneps_pbh(x);
#else
    __m512i u = _mm512_castps_si512(x), high = _mm512_srli_epi32(u, 16);
    __m512i size = _mm512_and_si512(u, _mm512_set1_epi32(0x7fffffff)),
            odd = _mm512_and_si512(high, _mm512_set1_epi32(1));
    __m512i y = _mm512_srli_epi32(_mm512_add_epi32(_mm512_add_epi32(u, _mm512_set1_epi32(0x7fff)), odd), 16);

    y = _mm512_mask_and_epi32(y, _mm512_cmplt_epi32_mask(size, _mm512_set1_epi32(0x00800000)), high,
                              _mm512_set1_epi32(0x8000));
    y = _mm512_mask_or_epi32(y, _mm512_cmpgt_epi32_mask(size, _mm512_set1_epi32(0x7f800000)), high,
                             _mm512_set1_epi32(0x40));
    return _mm512_cvtepi32_epi16(y);
#endif
}

static inline void v16_store_bf16(uint16_t *to, v16 x)
{
    _mm256_storeu_si256((void *)to, round_to_bf16(x));
}

static inline void v16_store_bf16_n(uint16_t *to, size_t n, v16 x)
{
    _mm256_mask_storeu_epi16(to, first_lanes(n), round_to_bf16(x));
}

static inline v16 v16_fma(v16 a, v16 b, v16 c)
{
    return _mm512_fmadd_ps(a, b, c);
}

static inline v16 v16_add(v16 a, v16 b)
{
    return _mm512_add_ps(a, b);
}

static inline v16 v16_sub(v16 a, v16 b)
{
    return _mm512_sub_ps(a, b);
}

static inline v16 v16_mul(v16 a, v16 b)
{
    return _mm512_mul_ps(a, b);
}

static inline v16 v16_div(v16 a, v16 b)
{
    return _mm512_div_ps(a, b);
}

static inline v16 v16_max(v16 a, v16 b)
{
    return _mm512_max_ps(a, b);
}

static inline v16 v16_xor(v16 a, v16 b)
{
    return _mm512_xor_ps(a, b);
}

static inline v16 v16_and(v16 a, v16 b)
{
    return _mm512_and_ps(a, b);
}

static inline v16 v16_less(v16 a, v16 b, v16 x, v16 y)
{
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), y, x);
}

static inline bool v16_any_nan(v16 x)
{
    return _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q) != 0;
}

static inline float v16_fold(v16 x)
{
    __m256 a = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));

    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}

static inline float v16_max_fold(v16 x)
{
    return _mm512_reduce_max_ps(x);
}

/* 2^(n >> 1), and 2^(n - (n >> 1)) in *high, for the n in the low bits of t. */
static inline v16 v16_power(v16 t, v16 *high)
{
    __m512i n = _mm512_sub_epi32(_mm512_castps_si512(t), _mm512_set1_epi32(0x4b400000)), half = _mm512_srai_epi32(n, 1);
    const __m512i bias = _mm512_set1_epi32(127);

    *high = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(_mm512_sub_epi32(n, half), bias), 23));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(half, bias), 23));
}

/* x = 2^n * y with y in [sqrt(1/2), sqrt(2)). */
static inline v16 v16_exponent(v16 x, v16 *n)
{
    __m512i u = _mm512_castps_si512(x), e = _mm512_srai_epi32(_mm512_sub_epi32(u, _mm512_set1_epi32(0x3f3504f3)), 23);

    *n = _mm512_cvtepi32_ps(e);
    return _mm512_castsi512_ps(_mm512_sub_epi32(u, _mm512_slli_epi32(e, 23)));
}

/* Two sums of 16 become one vector of twice 8, and so on: the tree of v16_fold on 16 sums at once. p[4 r + k] ends in
 * lane r of 4, element k. */
CPU_TILE void v16_fold_tile(const v16 *p, float *const *s, float scale)
{
    v16 a[8], b[4], c[2], sum;

    CPU_UNROLL(8)
    for (size_t k = 0; k < 4; k++) {
        CPU_UNROLL(2)
        for (size_t r = 0; r < 4; r += 2) { /* rows r and r + 1 of key k: 8 + 8 */
            v16 x = p[4 * r + k], y = p[4 * (r + 1) + k];

            a[2 * k + r / 2] = _mm512_add_ps(_mm512_shuffle_f32x4(x, y, 0x44), _mm512_shuffle_f32x4(x, y, 0xee));
        }
        b[k] = _mm512_add_ps(_mm512_shuffle_f32x4(a[2 * k], a[2 * k + 1], 0x88),
                             _mm512_shuffle_f32x4(a[2 * k], a[2 * k + 1], 0xdd));
    }
    CPU_UNROLL(2)
    for (size_t k = 0; k < 2; k++) { /* keys k and k + 2 */
        c[k] = _mm512_add_ps(_mm512_shuffle_ps(b[k], b[k + 2], 0x44), _mm512_shuffle_ps(b[k], b[k + 2], 0xee));
    }
    sum = _mm512_add_ps(_mm512_shuffle_ps(c[0], c[1], 0x88), _mm512_shuffle_ps(c[0], c[1], 0xdd));
    /* elements: key 0, 2, 1, 3 */
    sum = _mm512_mul_ps(_mm512_permute_ps(sum, 0xd8), _mm512_set1_ps(scale));
    _mm_storeu_ps(s[0], _mm512_castps512_ps128(sum));
    _mm_storeu_ps(s[1], _mm512_extractf32x4_ps(sum, 1));
    _mm_storeu_ps(s[2], _mm512_extractf32x4_ps(sum, 2));
    _mm_storeu_ps(s[3], _mm512_extractf32x4_ps(sum, 3));
}

#include "compute/vector_priv.h"

/* c[0 .. width) += *x * w[0 .. width), width 2 or 4. */
CPU_TILE void v16_row_step(size_t width, v16 *c, const float *x, const v16 *w)
{
    v16 y;

#define ROW_FMA(j) "vfmadd231ps %[w" #j "], %[y], %[c" #j "]\n\t"
#define ROW_SUM(j) [c##j] "+v"(c[j])
#define ROW_W(j)   [w##j] "v"(w[j])
    if (width == 2) {
        __asm__("vbroadcastss %[x], %[y]\n\t" ROW_FMA(0) ROW_FMA(1)
                : ROW_SUM(0), ROW_SUM(1), [y] "=&v"(y)
                : [x] "m"(*x), ROW_W(0), ROW_W(1));
    } else {
        __asm__("vbroadcastss %[x], %[y]\n\t" ROW_FMA(0) ROW_FMA(1) ROW_FMA(2) ROW_FMA(3)
                : ROW_SUM(0), ROW_SUM(1), ROW_SUM(2), ROW_SUM(3), [y] "=&v"(y)
                : [x] "m"(*x), ROW_W(0), ROW_W(1), ROW_W(2), ROW_W(3));
    }
}

#define AVX512_TILE_ROWS 6 /* of a product: 6 x 4 accumulators, 4 weights, 1 input */

void cpu_avx512_panel_f32(float *acc, size_t stride, const void *const *x, size_t n_rows, const uint32_t *w,
                          size_t k_begin, size_t k_end, const uint32_t *next);
void cpu_avx512_panel_bf16(float *acc, size_t stride, const void *const *x, size_t n_rows, const uint32_t *w,
                           size_t k_begin, size_t k_end, const uint32_t *next);
void cpu_avx512_panel_f16(float *acc, size_t stride, const void *const *x, size_t n_rows, const uint32_t *w,
                          size_t k_begin, size_t k_end, const uint32_t *next);
extern const cpu_panel_fn cpu_avx512_panels[CPU_N_KINDS], cpu_avx512f_panels[CPU_N_KINDS];
extern const cpu_rows cpu_avx512f_rows;
void cpu_avx512_pack(uint32_t *panel_out, const unsigned char *rows, size_t row_bytes, size_t n_rows, size_t n_units);
void cpu_avx512_attention(const cpu_attention *a);
void cpu_avx512_stick(cpu_stick *s);

#endif
