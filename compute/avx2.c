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

/* 8 rows from `row` on, 8 units: all there. */
CPU_TILE void pack_block(uint32_t *to, const unsigned char *row, size_t row_bytes)
{
    __m256i v[8];

    CPU_UNROLL(8)
    for (size_t i = 0; i < 8; i++) {
        v[i] = _mm256_loadu_si256((const void *)(row + i * row_bytes));
    }
    transpose(v);
    CPU_UNROLL(8)
    for (size_t i = 0; i < 8; i++) {
        _mm256_storeu_si256((void *)(to + i * CPU_PANEL), v[i]);
    }
}

/* The same of n_rows rows and n_units units, either of which may be less than 8; the other columns become zero. */
static void pack_rest(uint32_t *to, const unsigned char *row, size_t row_bytes, size_t n_rows, size_t n_units)
{
    __m256i v[8];

    for (size_t i = 0; i < 8; i++) {
        uint32_t t[8] = {0};

        if (i < n_rows) {
            memcpy(t, row + i * row_bytes, n_units * sizeof(*t));
        }
        v[i] = _mm256_loadu_si256((const void *)t);
    }
    transpose(v);
    for (size_t i = 0; i < n_units; i++) {
        _mm256_storeu_si256((void *)(to + i * CPU_PANEL), v[i]);
    }
}

/* 8 rows to their end, then the next 8: few enough streams for the hardware to follow. */
static void pack(uint32_t *panel_out, const unsigned char *rows, size_t row_bytes, size_t n_rows, size_t n_units)
{
    for (size_t first = 0; first < CPU_PANEL; first += 8) {
        size_t n = n_rows > first ? cpu_min(8, n_rows - first) : 0, u = 0;
        const unsigned char *row = rows + cpu_min(first, n_rows) * row_bytes;

        for (; n == 8 && u + 8 <= n_units; u += 8) {
            pack_block(panel_out + u * CPU_PANEL + first, row + u * 4, row_bytes);
        }
        for (; u < n_units; u += 8) {
            pack_rest(panel_out + u * CPU_PANEL + first, row + u * 4, row_bytes, n, cpu_min(8, n_units - u));
        }
    }
}

const cpu_kernels cpu_kernels_avx2 = {.name = "cpu-avx2",
                                      .rows_at_once = 1,
                                      .chunk_units = CPU_CHUNK_UNITS,
                                      .panel = cpu_avx2_panels,
                                      .rows = &cpu_avx2_rows,
                                      .pack = pack,
                                      .attention = cpu_avx2_attention,
                                      .stick = cpu_avx2_stick,
                                      VECTOR_ROWS};
