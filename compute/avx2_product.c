/* AVX2: matrix products. */
#include "compute/avx2_priv.h"

/* ---------------------------------------------------------------------------------------------- products
 * A panel is 8 vectors wide. One row takes all 8 at once, two rows take them in two halves of 4 (a third would not fit
 * the registers). */
#define V_TILE_ROWS 2

/* The odd (high) or even elements of 8 units of 2-byte weights, widened. */
CPU_TILE __m256 half_unit(cpu_kind kind, __m256i w, bool high)
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
CPU_TILE void step(cpu_kind kind, __m256 (*c)[8], size_t n, size_t width, const uint32_t *w, int half,
                   const unsigned char *const *x, size_t at)
{
    __m256 y[V_TILE_ROWS];

    CPU_UNROLL(2)
    for (size_t r = 0; r < n; r++) {
        __m256i v = broadcast(x[r] + at);

        y[r] = kind == CPU_PAIR ? half_unit(kind, v, half == 2) : _mm256_castsi256_ps(v);
    }
    CPU_UNROLL(8)
    for (size_t j = 0; j < width; j++) {
        __m256i v = _mm256_loadu_si256((const void *)(w + 8 * j));
        __m256 weight = half == 0 ? _mm256_castsi256_ps(v) : half_unit(kind, v, half == 2);

        CPU_UNROLL(2)
        for (size_t r = 0; r < n; r++) {
            c[r][j] = _mm256_fmadd_ps(y[r], weight, c[r][j]);
        }
    }
}

/* kind, n (rows) and width (vectors) are constants. */
CPU_TILE void tile(cpu_kind kind, size_t n, size_t width, float *acc, size_t stride, const void *const *x,
                   const uint32_t *w, size_t k_begin, size_t k_end)
{
    const unsigned char *row[V_TILE_ROWS];
    __m256 c[V_TILE_ROWS][8];
    size_t k = k_begin, per_unit = kind == CPU_F32 ? 1 : 2;

    CPU_UNROLL(2)
    for (size_t r = 0; r < n; r++) {
        row[r] = x[r];
        CPU_UNROLL(8)
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
    CPU_UNROLL(2)
    for (size_t r = 0; r < n; r++) {
        CPU_UNROLL(8)
        for (size_t j = 0; j < width; j++) {
            _mm256_storeu_ps(acc + r * stride + 8 * j, c[r][j]);
        }
    }
}

CPU_TILE void panel(cpu_kind kind, float *acc, size_t stride, const void *const *x, size_t n_rows, const uint32_t *w,
                    size_t k_begin, size_t k_end)
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

const cpu_panel_fn cpu_avx2_panels[CPU_N_KINDS] = {
    [CPU_PAIR] = panel_pair, [CPU_F32] = panel_f32, [CPU_BF16] = panel_bf16, [CPU_F16] = panel_f16};
