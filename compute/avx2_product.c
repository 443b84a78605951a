/* AVX2: matrix products. Of 16 registers 12 hold sums: 6 rows x 2 vectors, or 4 rows x 3; the others are the weights
 * of a step and one value of x. gcc 12 does not keep to that by itself: it loads the weights of both halves of a
 * unit, or the values of several rows, at once, and has to spill sums. Hence the asm; tests/check_spills.sh looks at
 * what came of it. */
#include "compute/avx2_priv.h"

typedef __m256 vf;

#define VF_LANES    8
#define VF_ROWS     6
#define KEPT_FROM   9 /* rows */
#define KEPT_WIDTH  2
#define PIECE_UNITS 128 /* that are kept: 16 KB beside 6 KB of rows in L1 */
#define PRODUCT_SHAPES(X)                                                                                              \
    X(1, 8, 0)                                                                                                         \
    X(2, 4, 0)                                                                                                         \
    X(3, 3, 2)                                                                                                         \
    X(4, 3, 2)                                                                                                         \
    X(5, 2, 0)                                                                                                         \
    X(6, 2, 0)
#define KEPT_SHAPES(X)     X(4) X(5) X(6)
#define FEW_PASSES(n_rows) ((n_rows) == 5 || (n_rows) == 6 ? 4 : 3)

static inline vf vf_zero(void)
{
    return _mm256_setzero_ps();
}

static inline vf vf_set(float x)
{
    return _mm256_set1_ps(x);
}

static inline vf vf_fma(vf a, vf b, vf c)
{
    return _mm256_fmadd_ps(a, b, c);
}

static inline vf vf_load(const float *x)
{
    return _mm256_loadu_ps(x);
}

static inline void vf_store(float *to, vf x)
{
    _mm256_storeu_ps(to, x);
}

#define EACH_LANE(...)                                                                                                 \
    {                                                                                                                  \
        __VA_ARGS__, __VA_ARGS__                                                                                       \
    }

static const _Alignas(32) uint32_t high_half[8] = EACH_LANE(0xffff0000u, 0xffff0000u, 0xffff0000u, 0xffff0000u);
/* Byte shuffles: the low half of each dword becomes its high half, above zeros; the low, the high halves move
 * together. */
static const _Alignas(32) uint32_t low_half[8] = EACH_LANE(0x01008080u, 0x05048080u, 0x09088080u, 0x0d0c8080u);
static const _Alignas(32) uint32_t low_words[8] = EACH_LANE(0x05040100u, 0x0d0c0908u, 0x80808080u, 0x80808080u);
static const _Alignas(32) uint32_t high_words[8] = EACH_LANE(0x07060302u, 0x0f0e0b0au, 0x80808080u, 0x80808080u);

/* The widenings avoid the shift, which runs on the FMA ports only, and need no register but the result. */
CPU_TILE vf vf_half(cpu_kind kind, size_t width, const uint32_t *from, bool high)
{
    const __m256i *v = (const void *)from, *mask = (const void *)high_half, *order = (const void *)low_half;
    const __m256i *words = (const void *)(high ? high_words : low_words);
    __m256i w;

    if (kind == CPU_F16) {
        __asm__("vmovdqu %[v], %[w]\n\tvpshufb %[words], %[w], %[w]\n\tvpermq $8, %[w], %[w]\n\tvcvtph2ps %x[w], %[w]"
                : [w] "=x"(w)
                : [v] "m"(*v), [words] "m"(*words));
    } else if (!high) {
        __asm__("vmovdqu %[v], %[w]\n\tvpshufb %[order], %[w], %[w]" : [w] "=x"(w) : [v] "m"(*v), [order] "m"(*order));
    } else if (width == 2) { /* leaves a register for the mask */
        __asm__("vpand %[v], %[mask], %[w]" : [w] "=x"(w) : [v] "m"(*v), [mask] "x"(*mask));
    } else {
        __asm__("vmovdqu %[v], %[w]\n\tvpand %[mask], %[w], %[w]" : [w] "=x"(w) : [v] "m"(*v), [mask] "m"(*mask));
    }
    return _mm256_castsi256_ps(w);
}

CPU_TILE void row_step(size_t width, vf *c, const float *x, const vf *w)
{
    vf y;

#define ROW_FMA(j) "vfmadd231ps %[w" #j "], %[y], %[c" #j "]\n\t"
#define ROW_SUM(j) [c##j] "+x"(c[j])
#define ROW_W(j)   [w##j] "x"(w[j])
    if (width == 2) {
        __asm__("vbroadcastss %[x], %[y]\n\t" ROW_FMA(0) ROW_FMA(1)
                : ROW_SUM(0), ROW_SUM(1), [y] "=&x"(y)
                : [x] "m"(*x), ROW_W(0), ROW_W(1));
    } else if (width == 3) {
        __asm__("vbroadcastss %[x], %[y]\n\t" ROW_FMA(0) ROW_FMA(1) ROW_FMA(2)
                : ROW_SUM(0), ROW_SUM(1), ROW_SUM(2), [y] "=&x"(y)
                : [x] "m"(*x), ROW_W(0), ROW_W(1), ROW_W(2));
    } else if (width == 4) {
        __asm__("vbroadcastss %[x], %[y]\n\t" ROW_FMA(0) ROW_FMA(1) ROW_FMA(2) ROW_FMA(3)
                : ROW_SUM(0), ROW_SUM(1), ROW_SUM(2), ROW_SUM(3), [y] "=&x"(y)
                : [x] "m"(*x), ROW_W(0), ROW_W(1), ROW_W(2), ROW_W(3));
    } else {
        y = vf_set(*x);
        CPU_UNROLL(8)
        for (size_t j = 0; j < width; j++) {
            c[j] = vf_fma(y, w[j], c[j]);
        }
    }
}

#include "compute/vector_product_priv.h"

static void rows_pair(float *to, const void *const *x, size_t n_rows, size_t k_begin, size_t k_end)
{
    rows_of(CPU_PAIR, to, x, n_rows, k_begin, k_end);
}

static void panel_pair(float *acc, size_t stride, const void *const *x, size_t n_rows, const uint32_t *w,
                       size_t k_begin, size_t k_end, const uint32_t *next)
{
    panel(CPU_PAIR, acc, stride, x, n_rows, w, k_begin, k_end, next);
}

static void rows_f32(float *to, const void *const *x, size_t n_rows, size_t k_begin, size_t k_end)
{
    rows_of(CPU_F32, to, x, n_rows, k_begin, k_end);
}

static void panel_f32(float *acc, size_t stride, const void *const *x, size_t n_rows, const uint32_t *w, size_t k_begin,
                      size_t k_end, const uint32_t *next)
{
    panel(CPU_F32, acc, stride, x, n_rows, w, k_begin, k_end, next);
}

static void rows_bf16(float *to, const void *const *x, size_t n_rows, size_t k_begin, size_t k_end)
{
    rows_of(CPU_BF16, to, x, n_rows, k_begin, k_end);
}

static void panel_bf16(float *acc, size_t stride, const void *const *x, size_t n_rows, const uint32_t *w,
                       size_t k_begin, size_t k_end, const uint32_t *next)
{
    panel(CPU_BF16, acc, stride, x, n_rows, w, k_begin, k_end, next);
}

static void rows_f16(float *to, const void *const *x, size_t n_rows, size_t k_begin, size_t k_end)
{
    rows_of(CPU_F16, to, x, n_rows, k_begin, k_end);
}

static void panel_f16(float *acc, size_t stride, const void *const *x, size_t n_rows, const uint32_t *w, size_t k_begin,
                      size_t k_end, const uint32_t *next)
{
    panel(CPU_F16, acc, stride, x, n_rows, w, k_begin, k_end, next);
}

const cpu_panel_fn cpu_avx2_panels[CPU_N_KINDS] = {
    [CPU_PAIR] = panel_pair, [CPU_F32] = panel_f32, [CPU_BF16] = panel_bf16, [CPU_F16] = panel_f16};

const cpu_rows cpu_avx2_rows = {
    .of = {[CPU_PAIR] = rows_pair, [CPU_F32] = rows_f32, [CPU_BF16] = rows_bf16, [CPU_F16] = rows_f16},
    .floats = ROW_APART,
    .piece_units = PIECE_UNITS};
