/* AVX-512 without bf16 instructions: products of bf16 pairs as two FMAs. Of 32 registers 24 hold sums: up to 6 rows
 * x the 4 vectors of a panel, or up to 12 rows x 2. The asm keeps gcc 12 from spilling them (tests/check_spills.sh). */
#include "compute/avx512_priv.h"

typedef v16 vf;

#define VF_LANES         16
#define VF_ROWS          12
#define KEPT_FROM        13 /* rows */
#define KEPT_ROWS        12
#define KEPT_WIDTH       2
#define KEPT_BLOCK_UNITS 8
#define KEPT_FETCH_ROWS  false /* its tiles of 12 rows are 108 lines: 0.88 to 0.97 times as fast */
/* Units that are kept: 16 KB. With 128 they push the rows out of L1: 96 rows took 1.1 times as long. */
#define PIECE_UNITS 64
#define PRODUCT_SHAPES(X)                                                                                              \
    X(1, 4, 0)                                                                                                         \
    X(2, 4, 0)                                                                                                         \
    X(3, 4, 0)                                                                                                         \
    X(4, 4, 0)                                                                                                         \
    X(5, 4, 0)                                                                                                         \
    X(6, 4, 0)                                                                                                         \
    X(7, 2, 0)                                                                                                         \
    X(8, 2, 0)                                                                                                         \
    X(9, 2, 0)                                                                                                         \
    X(10, 2, 0)                                                                                                        \
    X(11, 2, 0)                                                                                                        \
    X(12, 2, 0)
#define KEPT_SHAPES(X)     X(6) X(7) X(8) X(9) X(10) X(11) X(12)
#define FEW_PASSES(n_rows) ((n_rows) <= 6 ? 1 : 2)

static inline vf vf_zero(void)
{
    return v16_zero();
}

static inline vf vf_set(float x)
{
    return v16_set(x);
}

static inline vf vf_fma(vf a, vf b, vf c)
{
    return v16_fma(a, b, c);
}

static inline vf vf_load(const float *x)
{
    return v16_load(x);
}

static inline void vf_store(float *to, vf x)
{
    v16_store(to, x);
}

CPU_TILE vf vf_half(cpu_kind kind, size_t width, const uint32_t *from, bool high)
{
    (void)width;
    return v16_half(kind, from, high);
}

CPU_TILE void row_step(size_t width, vf *c, const float *x, const vf *w)
{
    v16_row_step(width, c, x, w);
}

CPU_TILE void kept_step(cpu_kind kind, int half, bool keep, size_t n, vf (*c)[CPU_PANEL / VF_LANES], const float *x,
                        size_t apart, const uint32_t *w, float *kept)
{
    vf v[KEPT_WIDTH];

    CPU_UNROLL(2)
    for (size_t j = 0; j < KEPT_WIDTH; j++) {
        v[j] = keep ? v16_half(kind, w + VF_LANES * j, half == 2) : vf_load(kept + VF_LANES * j);
        if (keep) {
            vf_store(kept + VF_LANES * j, v[j]);
        }
    }
    CPU_UNROLL(16)
    for (size_t r = 0; r < n; r++) {
        row_step(KEPT_WIDTH, c[r], x + r * apart, v);
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

const cpu_panel_fn cpu_avx512f_panels[CPU_N_KINDS] = {[CPU_PAIR] = panel_pair,
                                                      [CPU_F32] = cpu_avx512_panel_f32,
                                                      [CPU_BF16] = cpu_avx512_panel_bf16,
                                                      [CPU_F16] = cpu_avx512_panel_f16};

const cpu_rows cpu_avx512f_rows = {.of = {[CPU_PAIR] = rows_pair}, .floats = ROW_APART, .piece_units = PIECE_UNITS};
