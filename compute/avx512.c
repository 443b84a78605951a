/* The AVX-512 twins with bf16 instructions (f, bw, vl, dq, bf16): rows and the table. isa.c decides whether they
 * run. */
#include "compute/avx512_priv.h"

#include "compute/vector_rows_priv.h"

const cpu_kernels cpu_kernels_avx512 = {
    .name = "cpu-avx512",
    .rows_at_once = AVX512_TILE_ROWS,
    .chunk_units = 512, /* 128 KB, and as many being fetched: read from L2 faster than multiplied */
    .panel = cpu_avx512_panels,
    .pack = cpu_avx512_pack,
    .attention = cpu_avx512_attention,
    .stick = cpu_avx512_stick,
    VECTOR_ROWS};
