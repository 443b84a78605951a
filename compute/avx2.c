/* The AVX2 twins (avx2, fma, f16c): rows, packing and the table. Only avx2*.c are compiled for the set; isa.c decides
 * whether they run. */
#include "compute/avx2_priv.h"

#include "compute/vector_rows_priv.h"

/* ---------------------------------------------------------------------------------------------- packing */
/* 8 rows of 8 dwords become 8 columns. */
CPU_TILE void transpose(__m256i *v)
{
    __m256i t[8];

    CPU_UNROLL(4)
    for (size_t i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_epi32(v[i], v[i + 1]);
        t[i + 1] = _mm256_unpackhi_epi32(v[i], v[i + 1]);
    }
    CPU_UNROLL(2)
    for (size_t i = 0; i < 8; i += 4) {
        v[i] = _mm256_unpacklo_epi64(t[i], t[i + 2]);
        v[i + 1] = _mm256_unpackhi_epi64(t[i], t[i + 2]);
        v[i + 2] = _mm256_unpacklo_epi64(t[i + 1], t[i + 3]);
        v[i + 3] = _mm256_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    CPU_UNROLL(4)
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
    .panel = cpu_avx2_panels,
    .pack = pack,
    .widen = vector_widen,
    .round_bf16 = vector_round_bf16,
    .rms_norm = vector_rms_norm,
    .rope = vector_rope,
    .clamp = vector_clamp,
    .add = vector_add,
    .swiglu = vector_swiglu,
    .combine = vector_combine,
    .attention = cpu_avx2_attention,
    .stick = cpu_avx2_stick,
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
