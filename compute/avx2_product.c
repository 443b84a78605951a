/* AVX2: matrix products. Of 16 registers 12 hold sums: 6 rows x 2 vectors, or 4 rows x 3; the others are the weights
 * of a step and one value of x. Over kept weights it is 3 rows x 4 vectors, one vector of weights and three values of
 * x: half as many rows pass by from L2, and as the last vector is an operand in memory of its FMAs, 12 of them are 18
 * operations and 9 loads, not 20 and 8. It is what counts where two threads share a core. (Two such vectors, 17 and
 * 11, are slower: the loads.) gcc 12 does not keep to that by itself: it loads the weights of both halves of a unit, or
 * the values of several rows, at once, and has to spill sums. Hence the asm; tests/check_spills.sh looks at what came
 * of it. */
#include "compute/avx2_priv.h"

typedef __m256 vf;

#define VF_LANES         8
#define VF_ROWS          6
#define KEPT_FROM        11 /* rows */
#define KEPT_ROWS        3
#define KEPT_WIDTH       4
#define KEPT_LOADED      3    /* vectors of these that go through a register */
#define KEPT_BLOCK_UNITS 16   /* fewer fetches: 1.03 times as fast */
#define KEPT_FETCH_ROWS  true /* 1.07 to 1.10 times as fast from 64 rows on */
#define PIECE_UNITS      64   /* that are kept: 16 KB beside 2 KB of rows in L1 */
#define PRODUCT_SHAPES(X)                                                                                              \
    X(1, 8, 0)                                                                                                         \
    X(2, 4, 0)                                                                                                         \
    X(3, 3, 2)                                                                                                         \
    X(4, 3, 2)                                                                                                         \
    X(5, 2, 0)                                                                                                         \
    X(6, 2, 0)
#define KEPT_SHAPES(X)     X(2) X(3)
#define FEW_PASSES(n_rows) ((n_rows) <= 2 ? (n_rows) : (n_rows) == 5 || (n_rows) == 6 || (n_rows) >= 9 ? 4 : 3)

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

/* Three sums += y[r] * t. */
#define COLUMN_FMA  "vfmadd231ps %[t], %[y0], %[c0]\n\tvfmadd231ps %[t], %[y1], %[c1]\n\tvfmadd231ps %[t], %[y2], %[c2]"
#define COLUMN_SUMS [c0] "+x"(c[0][j]), [c1] "+x"(c[1][j]), [c2] "+x"(c[2][j])
#define COLUMN_X    [y0] "x"(y[0]), [y1] "x"(y[1]), [y2] "x"(y[2])

/* Vector j of three rows. */
CPU_TILE void column_step(size_t j, vf (*c)[CPU_PANEL / VF_LANES], const vf *y, const float *kept)
{
    const __m256 *k = (const void *)(kept + VF_LANES * j);
    vf t;

    if (j < KEPT_LOADED) {
        __asm__("vmovaps %[k], %[t]\n\t" COLUMN_FMA : COLUMN_SUMS, [t] "=&x"(t) : COLUMN_X, [k] "m"(*k));
    } else {
        __asm__(COLUMN_FMA:COLUMN_SUMS : COLUMN_X, [t] "m"(*k));
    }
}

/* The same from the panel. */
CPU_TILE void column_keep(cpu_kind kind, int half, size_t j, vf (*c)[CPU_PANEL / VF_LANES], const vf *y,
                          const uint32_t *w, float *kept)
{
    const uint32_t *words = half == 2 ? high_words : low_words, *one = half == 2 ? high_half : low_half;
    const __m256i *v = (const void *)(w + VF_LANES * j), *table = (const void *)(kind == CPU_F16 ? words : one);
    __m256 *k = (void *)(kept + VF_LANES * j);
    vf t;

#define COLUMN_KEEP(widen)                                                                                             \
    __asm__("vmovups %[v], %[t]\n\t" widen "vmovaps %[t], %[k]\n\t" COLUMN_FMA                                         \
            : COLUMN_SUMS, [t] "=&x"(t), [k] "=m"(*k)                                                                  \
            : COLUMN_X, [v] "m"(*v), [table] "m"(*table))
    if (kind == CPU_F16) {
        COLUMN_KEEP("vpshufb %[table], %[t], %[t]\n\tvpermq $8, %[t], %[t]\n\tvcvtph2ps %x[t], %[t]\n\t");
    } else if (half == 2) {
        COLUMN_KEEP("vpand %[table], %[t], %[t]\n\t");
    } else if (half == 1) {
        COLUMN_KEEP("vpshufb %[table], %[t], %[t]\n\t");
    } else {
        COLUMN_KEEP("");
    }
}

CPU_TILE void kept_step(cpu_kind kind, int half, bool keep, size_t n, vf (*c)[CPU_PANEL / VF_LANES], const float *x,
                        size_t apart, const uint32_t *w, float *kept)
{
    vf y[KEPT_ROWS];

    CPU_UNROLL(4)
    for (size_t r = 0; r < n; r++) {
        __asm__("vbroadcastss %[x], %[y]" : [y] "=x"(y[r]) : [x] "m"(x[r * apart]));
    }
    CPU_UNROLL(4)
    for (size_t j = 0; j < KEPT_WIDTH; j++) {
        if (n == KEPT_ROWS && keep) {
            column_keep(kind, half, j, c, y, w, kept);
        } else if (n == KEPT_ROWS) {
            column_step(j, c, y, kept);
        } else {
            const uint32_t *from = w + VF_LANES * j;
            vf t = !keep       ? vf_load(kept + VF_LANES * j)
                   : half == 0 ? vf_load((const float *)(const void *)from)
                               : vf_half(kind, KEPT_WIDTH, from, half == 2);

            if (keep) {
                vf_store(kept + VF_LANES * j, t);
            }
            CPU_UNROLL(4)
            for (size_t r = 0; r < n; r++) {
                c[r][j] = vf_fma(y[r], t, c[r][j]);
            }
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
