/* The AVX2 twins (avx2, fma, f16c). Only this file is compiled for them; isa.c decides whether it runs. */
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

static inline __attribute__((always_inline)) void v16_fold_tile(const v16 *p, float *const *s, float scale)
{
#pragma GCC unroll 16
    for (size_t i = 0; i < V_SCORES; i++) {
        s[i / V_SCORE_KEYS][i % V_SCORE_KEYS] = v16_fold(p[i]) * scale;
    }
}

#include "compute/vector_priv.h"
#include "compute/vector_stick_priv.h"

/* ---------------------------------------------------------------------------------------------- products
 * A panel is 8 vectors wide. One row takes all 8 at once, two rows take them in two halves of 4 (a third would not fit
 * the registers). */
#define V_TILE_ROWS 2

/* The odd (high) or even elements of 8 units of 2-byte weights, widened. */
static inline __attribute__((always_inline)) __m256 half_unit(cpu_kind kind, __m256i w, bool high)
{
    if (kind != CPU_F16) {
        return _mm256_castsi256_ps(high ? _mm256_and_si256(w, _mm256_set1_epi32(-65536)) : _mm256_slli_epi32(w, 16));
    }
    w = high ? _mm256_srli_epi32(w, 16) : _mm256_and_si256(w, _mm256_set1_epi32(0xffff));
    w = _mm256_permute4x64_epi64(_mm256_packus_epi32(w, w), 0xd8);
    return _mm256_cvtph_ps(_mm256_castsi256_si128(w));
}

static inline __m256i broadcast(const unsigned char *p)
{
    int x;

    memcpy(&x, p, sizeof(x));
    return _mm256_set1_epi32(x);
}

/* One k of `width` vectors of weights at w into n rows. half: 0 the dword itself, 1 its low, 2 its high half. x + at is
 * the f32 input of that k or, of CPU_PAIR, the unit's pair. */
static inline __attribute__((always_inline)) void step(cpu_kind kind, __m256 (*c)[8], size_t n, size_t width,
                                                       const uint32_t *w, int half, const unsigned char *const *x,
                                                       size_t at)
{
    __m256 y[V_TILE_ROWS];

#pragma GCC unroll 2
    for (size_t r = 0; r < n; r++) {
        __m256i v = broadcast(x[r] + at);

        y[r] = kind == CPU_PAIR ? half_unit(kind, v, half == 2) : _mm256_castsi256_ps(v);
    }
#pragma GCC unroll 8
    for (size_t j = 0; j < width; j++) {
        __m256i v = _mm256_loadu_si256((const void *)(w + 8 * j));
        __m256 weight = half == 0 ? _mm256_castsi256_ps(v) : half_unit(kind, v, half == 2);

#pragma GCC unroll 2
        for (size_t r = 0; r < n; r++) {
            c[r][j] = _mm256_fmadd_ps(y[r], weight, c[r][j]);
        }
    }
}

/* kind, n (rows) and width (vectors) are constants. */
static inline __attribute__((always_inline)) void tile(cpu_kind kind, size_t n, size_t width, float *acc, size_t stride,
                                                       const void *const *x, const uint32_t *w, size_t k_begin,
                                                       size_t k_end)
{
    const unsigned char *row[V_TILE_ROWS];
    __m256 c[V_TILE_ROWS][8];
    size_t k = k_begin, per_unit = kind == CPU_F32 ? 1 : 2;

#pragma GCC unroll 2
    for (size_t r = 0; r < n; r++) {
        row[r] = x[r];
#pragma GCC unroll 8
        for (size_t j = 0; j < width; j++) {
            c[r][j] = k_begin == 0 ? _mm256_setzero_ps() : _mm256_loadu_ps(acc + r * stride + 8 * j);
        }
    }
    for (; k + per_unit <= k_end; k += per_unit, w += CPU_PANEL) {
        if (kind == CPU_PAIR) {
            step(kind, c, n, width, w, 2, row, k * 2);
            step(kind, c, n, width, w, 1, row, k * 2);
        } else if (kind == CPU_F32) {
            step(kind, c, n, width, w, 0, row, k * 4);
        } else {
            step(kind, c, n, width, w, 1, row, k * 4);
            step(kind, c, n, width, w, 2, row, (k + 1) * 4);
        }
    }
    if (k < k_end) { /* only 2-byte weights of the f32 chain can be odd */
        step(kind, c, n, width, w, 1, row, k * 4);
    }
#pragma GCC unroll 2
    for (size_t r = 0; r < n; r++) {
#pragma GCC unroll 8
        for (size_t j = 0; j < width; j++) {
            _mm256_storeu_ps(acc + r * stride + 8 * j, c[r][j]);
        }
    }
}

static inline __attribute__((always_inline)) void panel(cpu_kind kind, float *acc, size_t stride, const void *const *x,
                                                        size_t n_rows, const uint32_t *w, size_t k_begin, size_t k_end)
{
    for (; n_rows >= 2; n_rows -= 2, x += 2, acc += 2 * stride) {
        tile(kind, 2, 4, acc, stride, x, w, k_begin, k_end);
        tile(kind, 2, 4, acc + 32, stride, x, w + 32, k_begin, k_end);
    }
    if (n_rows > 0) {
        tile(kind, 1, 8, acc, stride, x, w, k_begin, k_end);
    }
}

static void panel_pair(float *acc, size_t stride, const void *const *x, size_t n_rows, const uint32_t *w,
                       size_t k_begin, size_t k_end, const uint32_t *next)
{
    (void)next;
    panel(CPU_PAIR, acc, stride, x, n_rows, w, k_begin, k_end);
}

static void panel_f32(float *acc, size_t stride, const void *const *x, size_t n_rows, const uint32_t *w, size_t k_begin,
                      size_t k_end, const uint32_t *next)
{
    (void)next;
    panel(CPU_F32, acc, stride, x, n_rows, w, k_begin, k_end);
}

static void panel_bf16(float *acc, size_t stride, const void *const *x, size_t n_rows, const uint32_t *w,
                       size_t k_begin, size_t k_end, const uint32_t *next)
{
    (void)next;
    panel(CPU_BF16, acc, stride, x, n_rows, w, k_begin, k_end);
}

static void panel_f16(float *acc, size_t stride, const void *const *x, size_t n_rows, const uint32_t *w, size_t k_begin,
                      size_t k_end, const uint32_t *next)
{
    (void)next;
    panel(CPU_F16, acc, stride, x, n_rows, w, k_begin, k_end);
}

/* ---------------------------------------------------------------------------------------------- packing */
/* 8 rows of 8 dwords become 8 columns. */
static inline __attribute__((always_inline)) void transpose(__m256i *v)
{
    __m256i t[8];

#pragma GCC unroll 4
    for (size_t i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_epi32(v[i], v[i + 1]);
        t[i + 1] = _mm256_unpackhi_epi32(v[i], v[i + 1]);
    }
#pragma GCC unroll 2
    for (size_t i = 0; i < 8; i += 4) {
        v[i] = _mm256_unpacklo_epi64(t[i], t[i + 2]);
        v[i + 1] = _mm256_unpackhi_epi64(t[i], t[i + 2]);
        v[i + 2] = _mm256_unpacklo_epi64(t[i + 1], t[i + 3]);
        v[i + 3] = _mm256_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
#pragma GCC unroll 4
    for (size_t i = 0; i < 4; i++) {
        __m256i low = _mm256_permute2x128_si256(v[i], v[i + 4], 0x20);

        v[i + 4] = _mm256_permute2x128_si256(v[i], v[i + 4], 0x31);
        v[i] = low;
    }
}

static void pack_columns(uint32_t *to, const unsigned char *rows, size_t row_bytes, size_t first, size_t n_rows,
                         size_t n)
{
    __m256i v[8];

    for (size_t i = 0; i < 8; i++) {
        uint32_t t[8] = {0};

        if (first + i < n_rows) {
            memcpy(t, rows + (first + i) * row_bytes, n * sizeof(*t));
        }
        v[i] = _mm256_loadu_si256((const void *)t);
    }
    transpose(v);
    for (size_t i = 0; i < n; i++) {
        _mm256_storeu_si256((void *)(to + i * CPU_PANEL + first), v[i]);
    }
}

static void pack(uint32_t *panel_out, const unsigned char *rows, size_t row_bytes, size_t n_rows, size_t n_units)
{
    for (size_t u = 0; u < n_units; u += 8) {
        for (size_t first = 0; first < CPU_PANEL; first += 8) {
            pack_columns(panel_out + u * CPU_PANEL, rows + u * 4, row_bytes, first, n_rows, cpu_min(8, n_units - u));
        }
    }
}

const cpu_kernels cpu_kernels_avx2 = {
    .name = "cpu-avx2",
    .rows_at_once = 1,
    .chunk_units = CPU_CHUNK_UNITS,
    .panel = {[CPU_PAIR] = panel_pair, [CPU_F32] = panel_f32, [CPU_BF16] = panel_bf16, [CPU_F16] = panel_f16},
    .pack = pack,
    .widen = vector_widen,
    .round_bf16 = vector_round_bf16,
    .rms_norm = vector_rms_norm,
    .rope = vector_rope,
    .clamp = vector_clamp,
    .add = vector_add,
    .swiglu = vector_swiglu,
    .combine = vector_combine,
    .attention = vector_attention,
    .stick = vector_stick,
    .layer_norm = vector_layer_norm,
    .unit_norm = vector_unit_norm,
    .gelu_erf = vector_gelu_erf,
    .gelu_tanh = vector_gelu_tanh,
    .tanh = vector_tanh,
    .local_logits = vector_local_logits,
    .local_mix = vector_local_mix,
    .row_sum = vector_row_sum,
    .row_max = vector_row_max,
    .row_exp = vector_row_exp,
    .row_divide = vector_row_divide,
};
