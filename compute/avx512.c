/* The AVX-512 twins (f, bw, vl, dq, bf16). Only this file is compiled for them; isa.c decides whether it runs. */
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
#define V_TILE_ROWS    6  /* of a product: 6 x 4 accumulators, 4 weights, 1 input */
#define V_AHEAD        24 /* units (6 KB) that one tile alone fetches ahead of what it multiplies */
#define UNIT_BYTES     (CPU_PANEL * sizeof(uint32_t))

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

static inline v16 v16_load_f16(const uint16_t *x)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const void *)x));
}

static inline v16 v16_load_f16_n(const uint16_t *x, size_t n)
{
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first_lanes(n), x));
}

static inline void v16_store_bf16(uint16_t *to, v16 x)
{
    _mm256_storeu_si256((void *)to, (__m256i)_mm512_cvtneps_pbh(x));
}

static inline void v16_store_bf16_n(uint16_t *to, size_t n, v16 x)
{
    _mm256_mask_storeu_epi16(to, first_lanes(n), (__m256i)_mm512_cvtneps_pbh(x));
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
static inline __attribute__((always_inline)) void v16_fold_tile(const v16 *p, float *const *s, float scale)
{
    v16 a[8], b[4], c[2], sum;

#pragma GCC unroll 8
    for (size_t k = 0; k < 4; k++) {
#pragma GCC unroll 2
        for (size_t r = 0; r < 4; r += 2) { /* rows r and r + 1 of key k: 8 + 8 */
            v16 x = p[4 * r + k], y = p[4 * (r + 1) + k];

            a[2 * k + r / 2] = _mm512_add_ps(_mm512_shuffle_f32x4(x, y, 0x44), _mm512_shuffle_f32x4(x, y, 0xee));
        }
        b[k] = _mm512_add_ps(_mm512_shuffle_f32x4(a[2 * k], a[2 * k + 1], 0x88),
                             _mm512_shuffle_f32x4(a[2 * k], a[2 * k + 1], 0xdd));
    }
#pragma GCC unroll 2
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
#include "compute/vector_stick_priv.h"

/* ---------------------------------------------------------------------------------------------- products */
static inline __attribute__((always_inline)) v16 half_unit(cpu_kind kind, __m512i w, bool high)
{
    if (kind == CPU_BF16) {
        return _mm512_castsi512_ps(high ? _mm512_and_si512(w, _mm512_set1_epi32(-65536)) : _mm512_slli_epi32(w, 16));
    }
    return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(high ? _mm512_srli_epi32(w, 16) : w));
}

static inline int dword_at(const unsigned char *p)
{
    int x;

    memcpy(&x, p, sizeof(x));
    return x;
}

/* One unit (4 vectors of weights) into every accumulator. x points at the unit's first element in each row. */
static inline __attribute__((always_inline)) void unit_pair(v16 (*c)[4], size_t n, const uint32_t *w,
                                                            const unsigned char *const *x, size_t at)
{
    __m512i v[4];

#pragma GCC unroll 4
    for (size_t j = 0; j < 4; j++) {
        v[j] = _mm512_loadu_si512(w + 16 * j);
    }
#pragma GCC unroll 6
    for (size_t r = 0; r < n; r++) {
        __m512i y = _mm512_set1_epi32(dword_at(x[r] + at));

#pragma GCC unroll 4
        for (size_t j = 0; j < 4; j++) {
            c[r][j] = _mm512_dpbf16_ps(c[r][j], (__m512bh)y, (__m512bh)v[j]);
        }
    }
}

static inline __attribute__((always_inline)) void unit_chain(v16 (*c)[4], size_t n, const v16 *w,
                                                             const unsigned char *const *x, size_t at)
{
#pragma GCC unroll 6
    for (size_t r = 0; r < n; r++) {
        v16 y = _mm512_castsi512_ps(_mm512_set1_epi32(dword_at(x[r] + at)));

#pragma GCC unroll 4
        for (size_t j = 0; j < 4; j++) {
            c[r][j] = _mm512_fmadd_ps(y, w[j], c[r][j]);
        }
    }
}

static inline __attribute__((always_inline)) void unit_half(cpu_kind kind, v16 (*c)[4], size_t n, const uint32_t *w,
                                                            bool high, const unsigned char *const *x, size_t at)
{
    v16 v[4];

#pragma GCC unroll 4
    for (size_t j = 0; j < 4; j++) {
        v[j] = half_unit(kind, _mm512_loadu_si512(w + 16 * j), high);
    }
    unit_chain(c, n, v, x, at);
}

static inline __attribute__((always_inline)) void unit_f32(v16 (*c)[4], size_t n, const uint32_t *w,
                                                           const unsigned char *const *x, size_t at)
{
    v16 v[4];

#pragma GCC unroll 4
    for (size_t j = 0; j < 4; j++) {
        v[j] = _mm512_castsi512_ps(_mm512_loadu_si512(w + 16 * j));
    }
    unit_chain(c, n, v, x, at);
}

/* Per unit that is multiplied: nothing, a part of a unit that the other tiles will read too, or a whole unit that is
 * read only once and need not stay in any cache. */
typedef enum { FETCH_NONE, FETCH_PART, FETCH_UNIT } fetch_kind;

static inline __attribute__((always_inline)) void fetch_from(fetch_kind fetch_as, const char *fetch)
{
    if (fetch_as == FETCH_PART) {
        _mm_prefetch(fetch, _MM_HINT_T0);
        _mm_prefetch(fetch + 64, _MM_HINT_T0);
    } else if (fetch_as == FETCH_UNIT) {
#pragma GCC unroll 4
        for (size_t i = 0; i < UNIT_BYTES; i += 64) {
            _mm_prefetch(fetch + i, _MM_HINT_NTA);
        }
    }
}

/* n (<= V_TILE_ROWS) rows; n, kind and fetch_as are constants. For each unit that is multiplied, fetch_step (of
 * FETCH_PART: <= 128) bytes from fetch on are brought near. */
static inline __attribute__((always_inline)) void tile(cpu_kind kind, fetch_kind fetch_as, size_t n, float *acc,
                                                       size_t stride, const void *const *x, const uint32_t *w,
                                                       size_t k_begin, size_t k_end, const char *fetch,
                                                       size_t fetch_step)
{
    size_t x_bytes = kind == CPU_PAIR ? 2 : 4, k = k_begin, n_units = (k_end - k_begin) / (kind == CPU_F32 ? 1 : 2);
    const unsigned char *row[V_TILE_ROWS];
    v16 c[V_TILE_ROWS][4];

#pragma GCC unroll 6
    for (size_t r = 0; r < n; r++) {
        row[r] = x[r];
#pragma GCC unroll 4
        for (size_t j = 0; j < 4; j++) {
            c[r][j] = k_begin == 0 ? _mm512_setzero_ps() : _mm512_loadu_ps(acc + r * stride + 16 * j);
        }
    }
    for (size_t u = 0; u < n_units; u++, w += CPU_PANEL) {
        if (fetch_as != FETCH_NONE) {
            fetch_from(fetch_as, fetch);
            fetch += fetch_step;
        }
        if (kind == CPU_PAIR) {
            unit_pair(c, n, w, row, k * x_bytes);
            k += 2;
        } else if (kind == CPU_F32) {
            unit_f32(c, n, w, row, k * x_bytes);
            k++;
        } else {
            unit_half(kind, c, n, w, false, row, k * x_bytes);
            unit_half(kind, c, n, w, true, row, (k + 1) * x_bytes);
            k += 2;
        }
    }
    if (k < k_end) { /* only 2-byte weights of the f32 chain can be odd */
        unit_half(kind, c, n, w, false, row, k * x_bytes);
    }
#pragma GCC unroll 6
    for (size_t r = 0; r < n; r++) {
#pragma GCC unroll 4
        for (size_t j = 0; j < 4; j++) {
            _mm512_storeu_ps(acc + r * stride + 16 * j, c[r][j]);
        }
    }
}

static inline __attribute__((always_inline)) void tile_of(size_t n, cpu_kind kind, fetch_kind fetch_as, float *acc,
                                                          size_t stride, const void *const *x, const uint32_t *w,
                                                          size_t k_begin, size_t k_end, const char *fetch,
                                                          size_t fetch_step)
{
    switch (n) {
    case 1:
        tile(kind, fetch_as, 1, acc, stride, x, w, k_begin, k_end, fetch, fetch_step);
        break;
    case 2:
        tile(kind, fetch_as, 2, acc, stride, x, w, k_begin, k_end, fetch, fetch_step);
        break;
    case 3:
        tile(kind, fetch_as, 3, acc, stride, x, w, k_begin, k_end, fetch, fetch_step);
        break;
    case 4:
        tile(kind, fetch_as, 4, acc, stride, x, w, k_begin, k_end, fetch, fetch_step);
        break;
    case 5:
        tile(kind, fetch_as, 5, acc, stride, x, w, k_begin, k_end, fetch, fetch_step);
        break;
    default:
        tile(kind, fetch_as, 6, acc, stride, x, w, k_begin, k_end, fetch, fetch_step);
    }
}

/* At most V_TILE_ROWS rows: what is read next is fetched V_AHEAD units before it is multiplied, beyond the end from
 * next on. The hardware's own fetching falls behind, since waiting products fill the core before enough loads are
 * under way. */
static inline __attribute__((always_inline)) void few_rows(cpu_kind kind, float *acc, size_t stride,
                                                           const void *const *x, size_t n, const uint32_t *w,
                                                           size_t k_begin, size_t k_end, const uint32_t *next)
{
    size_t per_unit = kind == CPU_F32 ? 1 : 2, n_units = (k_end - k_begin) / per_unit;
    size_t n_ahead = n_units > V_AHEAD ? n_units - V_AHEAD : 0, k_ahead = k_begin + n_ahead * per_unit;

    if (n_ahead > 0) {
        tile_of(n, kind, FETCH_UNIT, acc, stride, x, w, k_begin, k_ahead, (const char *)(w + V_AHEAD * CPU_PANEL),
                UNIT_BYTES);
    }
    w += n_ahead * CPU_PANEL;
    if (next != NULL) {
        tile_of(n, kind, FETCH_UNIT, acc, stride, x, w, k_ahead, k_end, (const char *)next, UNIT_BYTES);
    } else {
        tile_of(n, kind, FETCH_NONE, acc, stride, x, w, k_ahead, k_end, NULL, 0);
    }
}

/* Rows in tiles of about equal height. Each of several tiles fetches an equal part of the next units, at an even pace:
 * memory never waits for arithmetic, and fetches that are under way do not hold up the loads from the nearer caches. */
static inline __attribute__((always_inline)) void panel(cpu_kind kind, float *acc, size_t stride, const void *const *x,
                                                        size_t n_rows, const uint32_t *w, size_t k_begin, size_t k_end,
                                                        const uint32_t *next)
{
    size_t n_tiles = (n_rows + V_TILE_ROWS - 1) / V_TILE_ROWS;
    size_t next_bytes = (k_end - k_begin) / (kind == CPU_F32 ? 1 : 2) * UNIT_BYTES;

    if (n_tiles == 1) {
        few_rows(kind, acc, stride, x, n_rows, w, k_begin, k_end, next);
        return;
    }
    for (size_t i = 0; i < n_tiles; i++) {
        size_t n = (n_rows + n_tiles - i - 1) / (n_tiles - i);

        if (next != NULL) {
            tile_of(n, kind, FETCH_PART, acc, stride, x, w, k_begin, k_end,
                    (const char *)next + next_bytes * i / n_tiles, (UNIT_BYTES + n_tiles - 1) / n_tiles);
        } else {
            tile_of(n, kind, FETCH_NONE, acc, stride, x, w, k_begin, k_end, NULL, 0);
        }
        acc += n * stride;
        x += n;
        n_rows -= n;
    }
}

static void panel_pair(float *acc, size_t stride, const void *const *x, size_t n_rows, const uint32_t *w,
                       size_t k_begin, size_t k_end, const uint32_t *next)
{
    panel(CPU_PAIR, acc, stride, x, n_rows, w, k_begin, k_end, next);
}

static void panel_f32(float *acc, size_t stride, const void *const *x, size_t n_rows, const uint32_t *w, size_t k_begin,
                      size_t k_end, const uint32_t *next)
{
    panel(CPU_F32, acc, stride, x, n_rows, w, k_begin, k_end, next);
}

static void panel_bf16(float *acc, size_t stride, const void *const *x, size_t n_rows, const uint32_t *w,
                       size_t k_begin, size_t k_end, const uint32_t *next)
{
    panel(CPU_BF16, acc, stride, x, n_rows, w, k_begin, k_end, next);
}

static void panel_f16(float *acc, size_t stride, const void *const *x, size_t n_rows, const uint32_t *w, size_t k_begin,
                      size_t k_end, const uint32_t *next)
{
    panel(CPU_F16, acc, stride, x, n_rows, w, k_begin, k_end, next);
}

/* ---------------------------------------------------------------------------------------------- packing */
/* 16 rows of 16 dwords in v become 16 columns: dwords, then pairs of dwords, within 128-bit lanes, then the lanes. */
static inline __attribute__((always_inline)) void transpose(__m512i *v)
{
    __m512i t[16];

#pragma GCC unroll 8
    for (size_t i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(v[i], v[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(v[i], v[i + 1]);
    }
#pragma GCC unroll 4
    for (size_t i = 0; i < 16; i += 4) {
        v[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        v[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        v[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        v[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
#pragma GCC unroll 4
    for (size_t i = 0; i < 4; i++) { /* v[i + 4 g]: column i of each lane, rows 4 g .. 4 g + 3 */
        t[i] = _mm512_shuffle_i32x4(v[i], v[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_i32x4(v[i], v[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_i32x4(v[i + 8], v[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_i32x4(v[i + 8], v[i + 12], 0xdd);
    }
#pragma GCC unroll 4
    for (size_t i = 0; i < 4; i++) {
        v[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
        v[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
        v[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
        v[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
    }
}

static inline __attribute__((always_inline)) void pack_block(uint32_t *to, const unsigned char *rows, size_t row_bytes,
                                                             size_t n_rows, size_t n_units)
{
    __mmask16 mask = first_lanes(n_units);
    __m512i v[16];

#pragma GCC unroll 16
    for (size_t i = 0; i < 16; i++) {
        v[i] = i < n_rows ? _mm512_maskz_loadu_epi32(mask, rows + i * row_bytes) : _mm512_setzero_si512();
    }
    transpose(v);
#pragma GCC unroll 16
    for (size_t i = 0; i < 16; i++) {
        if (i < n_units) {
            _mm512_storeu_si512(to + i * CPU_PANEL, v[i]);
        }
    }
}

/* 16 rows to their end, then the next 16: few enough streams for the hardware to follow. */
static void pack(uint32_t *panel_out, const unsigned char *rows, size_t row_bytes, size_t n_rows, size_t n_units)
{
    for (size_t first = 0; first < CPU_PANEL; first += 16) {
        size_t n = n_rows > first ? cpu_min(16, n_rows - first) : 0, u = 0;
        const unsigned char *row = rows + first * row_bytes;

        for (; u + 16 <= n_units && n == 16; u += 16) {
            pack_block(panel_out + u * CPU_PANEL + first, row + u * 4, row_bytes, 16, 16);
        }
        for (; u < n_units; u += 16) {
            pack_block(panel_out + u * CPU_PANEL + first, row + u * 4, row_bytes, n, cpu_min(16, n_units - u));
        }
    }
}

const cpu_kernels cpu_kernels_avx512 = {
    .name = "cpu-avx512",
    .rows_at_once = V_TILE_ROWS,
    .chunk_units = 512, /* 128 KB, and as many being fetched: read from L2 faster than multiplied */
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
