/* AVX-512: products of f32 chains, of processors with and without bf16 instructions. */
#include "compute/avx512_priv.h"

#include "compute/avx512_tile_priv.h"

void cpu_avx512_panel_f32(float *acc, size_t stride, const void *const *x, size_t n_rows, const uint32_t *w,
                          size_t k_begin, size_t k_end, const uint32_t *next)
{
    panel(CPU_F32, acc, stride, x, n_rows, w, k_begin, k_end, next);
}

void cpu_avx512_panel_bf16(float *acc, size_t stride, const void *const *x, size_t n_rows, const uint32_t *w,
                           size_t k_begin, size_t k_end, const uint32_t *next)
{
    panel(CPU_BF16, acc, stride, x, n_rows, w, k_begin, k_end, next);
}

void cpu_avx512_panel_f16(float *acc, size_t stride, const void *const *x, size_t n_rows, const uint32_t *w,
                          size_t k_begin, size_t k_end, const uint32_t *next)
{
    panel(CPU_F16, acc, stride, x, n_rows, w, k_begin, k_end, next);
}
