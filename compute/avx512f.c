/* The AVX-512 twins of processors without its bf16 instructions (f, bw, vl, dq), as most servers of 2017 to 2021
 * are: rows, packing and the table. isa.c decides whether they run. */
#include "compute/avx512_priv.h"

#include "compute/vector_rows_priv.h"

/* ---------------------------------------------------------------------------------------------- packing */
/* 16 rows of 16 dwords in v become 16 columns: dwords, then pairs of dwords, within 128-bit lanes, then the lanes. */
CPU_TILE void transpose(__m512i *v)
{
    __m512i t[16];

    CPU_UNROLL(8)
    for (size_t i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(v[i], v[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(v[i], v[i + 1]);
    }
    CPU_UNROLL(4)
    for (size_t i = 0; i < 16; i += 4) {
        v[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        v[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        v[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        v[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    CPU_UNROLL(4)
    for (size_t i = 0; i < 4; i++) { /* v[i + 4 g]: column i of each lane, rows 4 g .. 4 g + 3 */
        t[i] = _mm512_shuffle_i32x4(v[i], v[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_i32x4(v[i], v[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_i32x4(v[i + 8], v[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_i32x4(v[i + 8], v[i + 12], 0xdd);
    }
    CPU_UNROLL(4)
    for (size_t i = 0; i < 4; i++) {
        v[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
        v[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
        v[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
        v[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
    }
}

CPU_TILE void pack_block(uint32_t *to, const unsigned char *rows, size_t row_bytes, size_t n_rows, size_t n_units)
{
    __mmask16 mask = first_lanes(n_units);
    __m512i v[16];

    CPU_UNROLL(16)
    for (size_t i = 0; i < 16; i++) {
        v[i] = i < n_rows ? _mm512_maskz_loadu_epi32(mask, rows + i * row_bytes) : _mm512_setzero_si512();
    }
    transpose(v);
    CPU_UNROLL(16)
    for (size_t i = 0; i < 16; i++) {
        if (i < n_units) {
            _mm512_storeu_si512(to + i * CPU_PANEL, v[i]);
        }
    }
}

/* 16 rows to their end, then the next 16: few enough streams for the hardware to follow. */
void cpu_avx512_pack(uint32_t *panel_out, const unsigned char *rows, size_t row_bytes, size_t n_rows, size_t n_units)
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

const cpu_kernels cpu_kernels_avx512f = {.name = "cpu-avx512f",
                                         .rows_at_once = AVX512_TILE_ROWS,
                                         .chunk_units = CPU_CHUNK_UNITS,
                                         .panel = cpu_avx512f_panels,
                                         .rows = &cpu_avx512f_rows,
                                         .pack = cpu_avx512_pack,
                                         .attention = cpu_avx512_attention,
                                         .stick = cpu_avx512_stick,
                                         VECTOR_ROWS};
