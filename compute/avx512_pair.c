/* AVX-512 with bf16 instructions: products of bf16 pairs. */
#include "compute/avx512_priv.h"

#include "compute/avx512_tile_priv.h"

static void panel_pair(float *acc, size_t stride, const void *const *x, size_t n_rows, const uint32_t *w,
                       size_t k_begin, size_t k_end, const uint32_t *next)
{
    panel(CPU_PAIR, acc, stride, x, n_rows, w, k_begin, k_end, next);
}

const cpu_panel_fn cpu_avx512_panels[CPU_N_KINDS] = {[CPU_PAIR] = panel_pair,
                                                     [CPU_F32] = cpu_avx512_panel_f32,
                                                     [CPU_BF16] = cpu_avx512_panel_bf16,
                                                     [CPU_F16] = cpu_avx512_panel_f16};
