/* v16, a vector of 16 f32, and its operations over AVX2; and what the files of that set give each other.
 * Only avx2*.c include it, which alone are compiled for the set. */
#ifndef CONCLAVE_COMPUTE_AVX2_PRIV_H
#define CONCLAVE_COMPUTE_AVX2_PRIV_H

#include "compute/cpu_priv.h"
#include "compute/math_priv.h"

#include <immintrin.h>
#include <math.h>
#include <string.h>

typedef struct v16 {
    __m256 a, b; /* lanes 0 .. 7, 8 .. 15 */
} v16;

#define V_SCORE_ROWS   2
#define V_SCORE_KEYS   2
#define V_SCORES       4
#define V_VALUE_ROWS   2
#define V_VALUE_BLOCKS 2

static inline v16 v16_of(__m256 a, __m256 b)
{
    return (v16){a, b};
}

static inline v16 v16_set(float x)
{
    return v16_of(_mm256_set1_ps(x), _mm256_set1_ps(x));
}

static inline v16 v16_zero(void)
{
    return v16_set(0.0f);
}

static inline v16 v16_load(const float *x)
{
    return v16_of(_mm256_loadu_ps(x), _mm256_loadu_ps(x + 8));
}

static inline v16 v16_load_n(const float *x, size_t n)
{
    float t[16] = {0};

    memcpy(t, x, n * sizeof(*t));
    return v16_load(t);
}

static inline void v16_store(float *to, v16 x)
{
    _mm256_storeu_ps(to, x.a);
    _mm256_storeu_ps(to + 8, x.b);
}

static inline void v16_store_n(float *to, size_t n, v16 x)
{
    float t[16];

    v16_store(t, x);
    memcpy(to, t, n * sizeof(*t));
}

static inline __m256 widen_bf16(__m128i h)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}

static inline v16 v16_load_bf16(const uint16_t *x)
{
    return v16_of(widen_bf16(_mm_loadu_si128((const void *)x)), widen_bf16(_mm_loadu_si128((const void *)(x + 8))));
}

static inline v16 v16_load_bf16_n(const uint16_t *x, size_t n)
{
    uint16_t t[16] = {0};

    memcpy(t, x, n * sizeof(*t));
    return v16_load_bf16(t);
}

static inline v16 v16_load_f16(const uint16_t *x)
{
    return v16_of(_mm256_cvtph_ps(_mm_loadu_si128((const void *)x)),
                  _mm256_cvtph_ps(_mm_loadu_si128((const void *)(x + 8))));
}

static inline v16 v16_load_f16_n(const uint16_t *x, size_t n)
{
    uint16_t t[16] = {0};

    memcpy(t, x, n * sizeof(*t));
    return v16_load_f16(t);
}

/* Dwords with the bf16 in the low half: nearest even; denormals to signed zero; NaN truncated and quiet. */
static inline __m256i round_to_bf16(__m256 x)
{
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff), infinity = _mm256_set1_epi32(0x7f800000);
    __m256i u = _mm256_castps_si256(x), high = _mm256_srli_epi32(u, 16), size = _mm256_and_si256(u, magnitude);
    __m256i odd = _mm256_and_si256(high, _mm256_set1_epi32(1));
    __m256i y = _mm256_srli_epi32(_mm256_add_epi32(_mm256_add_epi32(u, _mm256_set1_epi32(0x7fff)), odd), 16);

    y = _mm256_blendv_epi8(y, _mm256_and_si256(high, _mm256_set1_epi32(0x8000)),
                           _mm256_cmpgt_epi32(_mm256_set1_epi32(0x00800000), size));
    return _mm256_blendv_epi8(y, _mm256_or_si256(high, _mm256_set1_epi32(0x40)), _mm256_cmpgt_epi32(size, infinity));
}

static inline void v16_store_bf16(uint16_t *to, v16 x)
{
    __m256i y = _mm256_packus_epi32(round_to_bf16(x.a), round_to_bf16(x.b)); /* interleaved by 128-bit lanes */

    _mm256_storeu_si256((void *)to, _mm256_permute4x64_epi64(y, 0xd8));
}

static inline void v16_store_bf16_n(uint16_t *to, size_t n, v16 x)
{
    uint16_t t[16];

    v16_store_bf16(t, x);
    memcpy(to, t, n * sizeof(*t));
}

static inline v16 v16_fma(v16 a, v16 b, v16 c)
{
    return v16_of(_mm256_fmadd_ps(a.a, b.a, c.a), _mm256_fmadd_ps(a.b, b.b, c.b));
}

static inline v16 v16_add(v16 a, v16 b)
{
    return v16_of(_mm256_add_ps(a.a, b.a), _mm256_add_ps(a.b, b.b));
}

static inline v16 v16_sub(v16 a, v16 b)
{
    return v16_of(_mm256_sub_ps(a.a, b.a), _mm256_sub_ps(a.b, b.b));
}

static inline v16 v16_mul(v16 a, v16 b)
{
    return v16_of(_mm256_mul_ps(a.a, b.a), _mm256_mul_ps(a.b, b.b));
}

static inline v16 v16_div(v16 a, v16 b)
{
    return v16_of(_mm256_div_ps(a.a, b.a), _mm256_div_ps(a.b, b.b));
}

static inline v16 v16_max(v16 a, v16 b)
{
    return v16_of(_mm256_max_ps(a.a, b.a), _mm256_max_ps(a.b, b.b));
}

static inline v16 v16_xor(v16 a, v16 b)
{
    return v16_of(_mm256_xor_ps(a.a, b.a), _mm256_xor_ps(a.b, b.b));
}

static inline v16 v16_and(v16 a, v16 b)
{
    return v16_of(_mm256_and_ps(a.a, b.a), _mm256_and_ps(a.b, b.b));
}

static inline v16 v16_less(v16 a, v16 b, v16 x, v16 y)
{
    return v16_of(_mm256_blendv_ps(y.a, x.a, _mm256_cmp_ps(a.a, b.a, _CMP_LT_OQ)),
                  _mm256_blendv_ps(y.b, x.b, _mm256_cmp_ps(a.b, b.b, _CMP_LT_OQ)));
}

static inline bool v16_any_nan(v16 x)
{
    return _mm256_movemask_ps(
               _mm256_or_ps(_mm256_cmp_ps(x.a, x.a, _CMP_UNORD_Q), _mm256_cmp_ps(x.b, x.b, _CMP_UNORD_Q))) != 0;
}

static inline float v16_fold(v16 x)
{
    __m256 a = _mm256_add_ps(x.a, x.b);
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));

    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}

static inline float v16_max_fold(v16 x)
{
    __m256 a = _mm256_max_ps(x.a, x.b);
    __m128 b = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));

    b = _mm_max_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_max_ss(b, _mm_movehdup_ps(b)));
}

static inline __m256 power_of(__m256i n)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
}

/* 2^(n >> 1), and 2^(n - (n >> 1)) in *high, for the n in the low bits of t. */
static inline v16 v16_power(v16 t, v16 *high)
{
    const __m256i zero = _mm256_set1_epi32(0x4b400000);
    __m256i a = _mm256_sub_epi32(_mm256_castps_si256(t.a), zero), half_a = _mm256_srai_epi32(a, 1);
    __m256i b = _mm256_sub_epi32(_mm256_castps_si256(t.b), zero), half_b = _mm256_srai_epi32(b, 1);

    *high = v16_of(power_of(_mm256_sub_epi32(a, half_a)), power_of(_mm256_sub_epi32(b, half_b)));
    return v16_of(power_of(half_a), power_of(half_b));
}

/* Takes 2^n out of x, leaving [sqrt(1/2), sqrt(2)). */
static inline __m256 without_exponent(__m256 x, __m256 *n)
{
    __m256i u = _mm256_castps_si256(x), e = _mm256_srai_epi32(_mm256_sub_epi32(u, _mm256_set1_epi32(0x3f3504f3)), 23);

    *n = _mm256_cvtepi32_ps(e);
    return _mm256_castsi256_ps(_mm256_sub_epi32(u, _mm256_slli_epi32(e, 23)));
}

/* x = 2^n * y with y in [sqrt(1/2), sqrt(2)). */
static inline v16 v16_exponent(v16 x, v16 *n)
{
    __m256 a = without_exponent(x.a, &n->a), b = without_exponent(x.b, &n->b);

    return v16_of(a, b);
}

CPU_TILE void v16_fold_tile(const v16 *p, float *const *s, float scale)
{
    CPU_UNROLL(16)
    for (size_t i = 0; i < V_SCORES; i++) {
        s[i / V_SCORE_KEYS][i % V_SCORE_KEYS] = v16_fold(p[i]) * scale;
    }
}

#include "compute/vector_priv.h"

extern const cpu_panel_fn cpu_avx2_panels[CPU_N_KINDS];
extern const cpu_rows cpu_avx2_rows;
void cpu_avx2_attention(const cpu_attention *a);
void cpu_avx2_stick(cpu_stick *s);

#endif
