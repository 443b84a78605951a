/* Matrix products by f32 FMAs, written once over vf, a vector of VF_LANES f32 that avx2_product.c and avx512f_pair.c
 * define together with its operations before they include this file.
 *
 * A product of bf16 pairs is two FMAs per vector of outputs and pair, so the limit is the f32 peak: two FMAs a
 * cycle, each four cycles long. The sums of a tile of rows x vectors stay in registers while it passes over a piece
 * of the panel. It needs 8 sums to fill those four cycles, and as many as fit so that little else is done per FMA.
 *
 * - The rows are widened to f32 before, once for all panels that a thread passes them over (cpu_rows), so that
 *   a value of x is a broadcast load, which costs neither an FMA port nor a shuffle. Rows of a piece lie beside each
 *   other at a distance that is a constant: one pointer serves all.
 * - From KEPT_FROM rows on, the first tile of rows keeps the weights that it widened, and the other tiles only load
 *   them. Widening in every tile takes a tenth of the time, since half of the operations compete with the FMAs for
 *   ports. The kept weights stay in L1, and rows pass by them from L2, or from L3 where there are many.
 *
 * vf operations: vf_zero, vf_set, vf_load, vf_store, vf_fma(a, b, c) = a * b + c, vf_half(kind, width, from, high):
 * VF_LANES even or odd elements, widened; row_step(width, c, x, w): c[j] += *x * w[j]; kept_step(kind, half, keep, n,
 * c, x, apart, w, kept): c[r][j] += x[r * apart] * vector j of `kept`, which comes from w if it is to be kept.
 * Constants: VF_ROWS of a tile, PIECE_UNITS of a panel, PRODUCT_SHAPES(X): X(n, width, last) for every number of rows
 * of a tile over the panel, in passes of `width` vectors and one of `last`; FEW_PASSES(n): passes of a tile when n rows
 * are fewer than KEPT_FROM; KEPT_SHAPES(X): X(n) for every number of rows, up to KEPT_ROWS, of a tile over kept
 * weights, KEPT_WIDTH vectors wide; KEPT_BLOCK_UNITS between two fetches there; KEPT_FETCH_ROWS: of the next tile's
 * rows too. */

#define VF_PANEL   (CPU_PANEL / VF_LANES) /* vectors */
#define PIECE_K    (2 * PIECE_UNITS)      /* of every kind, so a piece of F32 has twice as many units */
#define HALF_APART (PIECE_UNITS + 8)      /* f32 between the odd and the even elements of a row of pairs */
#define ROW_APART  (2 * HALF_APART)       /* f32 between rows; no power of two, or they would share few sets of L1 */
/* Units that a tile fetches ahead in its own stream, into L1: one or two rows wait for memory, more for L2. Measured on
 * Cascade Lake from cold memory: with 8 units (2 KB) one row is 1.06 and two rows are 1.2 times as fast as the kernels
 * before, with NTA 0.7 times, since there it keeps the lines out of L2; 3 to 16 rows gain a further 1.05 to 1.2 from 4
 * units. On Zen 3 an earlier form was best with 1.25 KB, and 4 KB slowed even a plain read.
 *
 * The next piece is fetched into L2 besides, but not for one or two rows in one pass: they read a stream as it lies, and
 * that alone is faster (1.08 and 1.2 times on Zen 4). Two rows of AVX2 take two passes over every other 128 bytes, which
 * keeps half as much under way and no processor foresees: with the next piece fetched 2.4 times as fast on Zen 4. */
#define FEW_AHEAD   8
#define NEAR_AHEAD  4
#define UNIT_BYTES  (CPU_PANEL * sizeof(uint32_t))
#define BLOCK_UNITS 8 /* between two fetches of a part of the next piece */

/* What a pass over a piece brings near meanwhile: a part of the next piece, into L2. */
typedef struct fetch_part {
    const char *at, *end;
    size_t lines; /* per block: always as many, so that the processor foresees the loop */
} fetch_part;

/* A tile of rows, VF_ROWS or fewer, over some vectors of the panel. */
typedef struct tile_job {
    float *acc; /* sums of the first row, rows `stride` apart */
    size_t stride;
    const float *x;    /* widened, rows ROW_APART */
    const float *soon; /* rows of the next tile */
    const uint32_t *w; /* the panel from its first vector on */
    float *kept;       /* [n_units][2][KEPT_WIDTH] vectors; F32: [n_units][KEPT_WIDTH] */
    size_t n_units;    /* whole ones */
    bool half;         /* and the low half of one more: only 2-byte weights of the f32 chain can be odd */
    bool fresh;        /* chains start here */
    fetch_part *fetch;
} tile_job;

/* ------------------------------------------------------------------------------------------------ tile
 * kind, keep, n (rows) and width (vectors) are constants everywhere. */
CPU_TILE void sums_in(size_t n, size_t width, vf (*c)[VF_PANEL], const tile_job *t)
{
    CPU_UNROLL(16)
    for (size_t r = 0; r < n; r++) {
        CPU_UNROLL(8)
        for (size_t j = 0; j < width; j++) {
            c[r][j] = t->fresh ? vf_zero() : vf_load(t->acc + r * t->stride + VF_LANES * j);
        }
    }
}

CPU_TILE void sums_out(size_t n, size_t width, vf (*c)[VF_PANEL], const tile_job *t)
{
    CPU_UNROLL(16)
    for (size_t r = 0; r < n; r++) {
        CPU_UNROLL(8)
        for (size_t j = 0; j < width; j++) {
            vf_store(t->acc + r * t->stride + VF_LANES * j, c[r][j]);
        }
    }
}

CPU_TILE void fetch_next(fetch_part *f)
{
    for (size_t i = 0; i < f->lines; i++) {
        _mm_prefetch(f->at + i * MOE_CACHE_LINE, _MM_HINT_T1);
    }
    f->at = MOE_MIN(f->at + f->lines * MOE_CACHE_LINE, f->end);
}

CPU_TILE void fetch_ahead(size_t width, const uint32_t *w)
{
    CPU_UNROLL(4)
    for (size_t i = 0; i < width * sizeof(vf); i += MOE_CACHE_LINE) {
        _mm_prefetch((const char *)w + i, _MM_HINT_T0);
    }
}

/* One k. half: 0 the dword itself, 1 its low, 2 its high half. */
CPU_TILE void step(cpu_kind kind, size_t n, size_t width, vf (*c)[VF_PANEL], const float *x, const uint32_t *w,
                   int half)
{
    vf v[VF_PANEL];

    CPU_UNROLL(8)
    for (size_t j = 0; j < width; j++) {
        v[j] = half == 0 ? vf_load((const float *)(const void *)(w + VF_LANES * j))
                         : vf_half(kind, width, w + VF_LANES * j, half == 2);
    }
    CPU_UNROLL(16)
    for (size_t r = 0; r < n; r++) {
        row_step(width, c[r], x + r * ROW_APART, v);
    }
}

/* One row: vector by vector, so that no weights wait in registers, which would have to spill. */
CPU_TILE void unit_of_row(cpu_kind kind, size_t width, vf *c, const float *x, const uint32_t *w)
{
    bool high_first = kind == CPU_PAIR;
    vf first = vf_set(x[0]), last = vf_set(x[kind == CPU_PAIR ? HALF_APART : 1]);

    CPU_UNROLL(8)
    for (size_t j = 0; j < width; j++) {
        c[j] = vf_fma(first, vf_half(kind, width, w + VF_LANES * j, high_first), c[j]);
        c[j] = vf_fma(last, vf_half(kind, width, w + VF_LANES * j, !high_first), c[j]);
    }
}

/* The pair class multiplies the odd element first, and has the odd and the even elements of its rows apart. */
CPU_TILE void unit(cpu_kind kind, size_t n, size_t width, vf (*c)[VF_PANEL], const float *x, const uint32_t *w)
{
    if (kind == CPU_F32) {
        step(kind, n, width, c, x, w, 0);
    } else if (n == 1) {
        unit_of_row(kind, width, c[0], x, w);
    } else if (kind == CPU_PAIR) {
        step(kind, n, width, c, x, w, 2);
        step(kind, n, width, c, x + HALF_APART, w, 1);
    } else {
        step(kind, n, width, c, x, w, 1);
        step(kind, n, width, c, x + 1, w, 2);
    }
}

CPU_TILE void kept_unit(cpu_kind kind, bool keep, size_t n, vf (*c)[VF_PANEL], const float *x, const uint32_t *w,
                        float *kept)
{
    bool pair = kind == CPU_PAIR;

    if (kind == CPU_F32) {
        kept_step(kind, 0, keep, n, c, x, ROW_APART, w, kept);
    } else {
        kept_step(kind, pair ? 2 : 1, keep, n, c, x, ROW_APART, w, kept);
        kept_step(kind, pair ? 1 : 2, keep, n, c, x + (pair ? HALF_APART : 1), ROW_APART, w,
                  kept + KEPT_WIDTH * VF_LANES);
    }
}

CPU_TILE void tile(cpu_kind kind, size_t n, size_t width, const tile_job *t)
{
    size_t k_apart = kind == CPU_F32 || kind == CPU_PAIR ? 1 : 2;
    size_t left = t->n_units;
    const float *x = t->x;
    const uint32_t *w = t->w;
    vf c[VF_ROWS][VF_PANEL];

    sums_in(n, width, c, t);
    while (left > 0) {
        size_t block = cpu_min(left, BLOCK_UNITS);

        if (n > 2 || width < VF_PANEL) {
            fetch_next(t->fetch);
        }
        left -= block;
        CPU_UNROLL(1)
        for (; block > 0; block--) {
            fetch_ahead(width, w + (n <= 2 ? FEW_AHEAD : NEAR_AHEAD) * CPU_PANEL);
            unit(kind, n, width, c, x, w);
            x += k_apart;
            w += CPU_PANEL;
        }
    }
    if (t->half) {
        step(kind, n, width, c, x, w, 1);
    }
    sums_out(n, width, c, t);
}

/* keep: the weights come from the panel. */
CPU_TILE void kept_tile(cpu_kind kind, bool keep, size_t n, const tile_job *t)
{
    size_t k_apart = kind == CPU_F32 || kind == CPU_PAIR ? 1 : 2, per_unit = kind == CPU_F32 ? 1 : 2;
    size_t left = t->n_units;
    const float *x = t->x;
    size_t blocks = PIECE_K / per_unit / KEPT_BLOCK_UNITS, row_lines = ROW_APART * sizeof(float) / MOE_CACHE_LINE;
    size_t soon_lines = KEPT_FETCH_ROWS ? (KEPT_ROWS * row_lines + blocks) / blocks : 0;
    const char *soon = (const char *)t->soon;
    const uint32_t *w = t->w;
    float *kept = t->kept;
    vf c[VF_ROWS][VF_PANEL];

    sums_in(n, KEPT_WIDTH, c, t);
    while (left > 0) {
        size_t block = cpu_min(left, KEPT_BLOCK_UNITS);

        fetch_next(t->fetch);
        CPU_UNROLL(8)
        for (size_t i = 0; i < soon_lines; i++) {
            _mm_prefetch(soon + i * MOE_CACHE_LINE, _MM_HINT_T0);
        }
        soon += soon_lines * MOE_CACHE_LINE;
        left -= block;
        CPU_UNROLL(2)
        for (; block > 0; block--) {
            if (keep) {
                fetch_ahead(KEPT_WIDTH, w + NEAR_AHEAD * CPU_PANEL);
            }
            kept_unit(kind, keep, n, c, x, w, kept);
            x += k_apart;
            w += CPU_PANEL;
            kept += per_unit * KEPT_WIDTH * VF_LANES;
        }
    }
    if (t->half) {
        kept_step(kind, 1, keep, n, c, x, ROW_APART, w, kept);
    }
    sums_out(n, KEPT_WIDTH, c, t);
}

/* ------------------------------------------------------------------------------------------------ tiles over a
 * panel */
CPU_TILE void passes(cpu_kind kind, size_t n, size_t width, size_t last, tile_job t)
{
    for (size_t done = 0; done + width <= VF_PANEL; done += width) {
        tile(kind, n, width, &t);
        t.acc += VF_LANES * width;
        t.w += VF_LANES * width;
    }
    if (last > 0) {
        tile(kind, n, last, &t);
    }
}

CPU_TILE void tile_alone(cpu_kind kind, size_t n, const tile_job *t)
{
    switch (n) {
#define SHAPE(rows, width, last)                                                                                       \
    case rows:                                                                                                         \
        passes(kind, rows, width, last, *t);                                                                           \
        break;
        PRODUCT_SHAPES(SHAPE)
#undef SHAPE
    default:
        break;
    }
}

CPU_TILE void tile_among(cpu_kind kind, bool keep, size_t n, const tile_job *t)
{
    switch (n) {
#define SHAPE(rows)                                                                                                    \
    case rows:                                                                                                         \
        kept_tile(kind, keep, rows, t);                                                                                \
        break;
        KEPT_SHAPES(SHAPE)
#undef SHAPE
    default:
        break;
    }
}

/* The i-th of n_tiles tiles of about equal height has so many of n_rows rows. */
static size_t tile_height(size_t n_rows, size_t n_tiles, size_t i)
{
    return n_rows / n_tiles + (i < n_rows % n_tiles ? 1 : 0);
}

/* Each tile of rows over the whole piece: n_rows < KEPT_FROM. */
CPU_TILE void few_rows(cpu_kind kind, tile_job t, size_t n_rows)
{
    size_t n_tiles = (n_rows + VF_ROWS - 1) / VF_ROWS;

    for (size_t i = 0; i < n_tiles; i++) {
        size_t n = tile_height(n_rows, n_tiles, i);

        tile_alone(kind, n, &t);
        t.acc += n * t.stride;
        t.x += n * ROW_APART;
    }
}

/* All tiles of rows over the same few vectors, which stay in L1, then over the next. */
CPU_TILE void many_rows(cpu_kind kind, tile_job t, size_t n_rows)
{
    _Alignas(MOE_CACHE_LINE) float kept[2 * (PIECE_UNITS + 1) * KEPT_WIDTH * VF_LANES];
    size_t n_tiles = (n_rows + KEPT_ROWS - 1) / KEPT_ROWS;
    const tile_job first = t;

    for (size_t done = 0; done < CPU_PANEL; done += KEPT_WIDTH * VF_LANES) {
        t = first;
        t.kept = kept;
        t.acc += done;
        t.w += done;
        for (size_t i = 0; i < n_tiles; i++) {
            size_t n = tile_height(n_rows, n_tiles, i);

            t.soon = i + 1 < n_tiles ? t.x + n * ROW_APART : first.x;
            if (i == 0) {
                tile_among(kind, true, n, &t);
            } else {
                tile_among(kind, false, n, &t);
            }
            t.acc += n * t.stride;
            t.x += n * ROW_APART;
        }
    }
}

/* ------------------------------------------------------------------------------------------------ rows */
/* n_units pairs as f32: the odd elements, and HALF_APART further the even ones. */
static void widen_pairs(float *to, const uint16_t *x, size_t n_units)
{
    size_t u = 0;

    for (; u + VF_LANES <= n_units; u += VF_LANES) {
        const uint32_t *pairs = (const uint32_t *)(const void *)(x + 2 * u);

        vf_store(to + u, vf_half(CPU_PAIR, 2, pairs, true));
        vf_store(to + HALF_APART + u, vf_half(CPU_PAIR, 2, pairs, false));
    }
    for (; u < n_units; u++) {
        to[u] = compute_f32_from_bf16(x[2 * u + 1]);
        to[HALF_APART + u] = compute_f32_from_bf16(x[2 * u]);
    }
}

CPU_TILE void widen_rows(cpu_kind kind, float *to, const void *const *x, size_t n_rows, size_t k, size_t n)
{
    for (size_t r = 0; r < n_rows; r++, to += ROW_APART) {
        if (kind == CPU_PAIR) {
            widen_pairs(to, (const uint16_t *)x[r] + k, n / 2);
        } else {
            memcpy(to, (const float *)x[r] + k, n * sizeof(*to));
        }
    }
}

/* Blocks of all passes of tiles over n_units of a piece for n_rows rows: what the fetching is spread over. */
static size_t n_blocks(size_t n_rows, size_t n_units)
{
    if (n_rows >= KEPT_FROM) {
        return (n_rows + KEPT_ROWS - 1) / KEPT_ROWS * (VF_PANEL / KEPT_WIDTH) *
               ((n_units + KEPT_BLOCK_UNITS - 1) / KEPT_BLOCK_UNITS);
    }
    return (n_rows + VF_ROWS - 1) / VF_ROWS * FEW_PASSES(n_rows) * ((n_units + BLOCK_UNITS - 1) / BLOCK_UNITS);
}

/* At most PIECE_K of a panel. */
CPU_TILE void piece(cpu_kind kind, float *acc, size_t stride, const float *wide, size_t n_rows, const uint32_t *w,
                    size_t k_begin, size_t k_end, const uint32_t *next)
{
    size_t n = k_end - k_begin, n_units = kind == CPU_F32 ? n : n / 2;
    fetch_part fetch = {NULL, NULL, 0};
    tile_job t = {.acc = acc,
                  .stride = stride,
                  .x = wide,
                  .w = w,
                  .n_units = n_units,
                  .half = kind != CPU_F32 && n % 2 != 0,
                  .fresh = k_begin == 0,
                  .fetch = &fetch};

    if (next != NULL) {
        fetch.at = (const char *)next;
        fetch.end = fetch.at + n_units * UNIT_BYTES;
        fetch.lines = n_units * UNIT_BYTES / MOE_CACHE_LINE / MOE_MAX(1, n_blocks(n_rows, n_units)) + 1;
    }
    if (n_rows < KEPT_FROM) {
        few_rows(kind, t, n_rows);
    } else {
        many_rows(kind, t, n_rows);
    }
}

/* cpu_rows.of: piece by piece. */
CPU_TILE void rows_of(cpu_kind kind, float *to, const void *const *x, size_t n_rows, size_t k_begin, size_t k_end)
{
    for (size_t k = k_begin; k < k_end; k += PIECE_K, to += n_rows * ROW_APART) {
        widen_rows(kind, to, x, n_rows, k, cpu_min(PIECE_K, k_end - k));
    }
}

CPU_TILE void panel(cpu_kind kind, float *acc, size_t stride, const void *const *x, size_t n_rows, const uint32_t *w,
                    size_t k_begin, size_t k_end, const uint32_t *next)
{
    const float *wide = x[0];

    for (size_t k = k_begin; k < k_end; k += PIECE_K) {
        bool last = k_end - k <= PIECE_K;
        const uint32_t *after = w + PIECE_K / (kind == CPU_F32 ? 1 : 2) * CPU_PANEL;

        piece(kind, acc, stride, wide, n_rows, w, k, last ? k_end : k + PIECE_K, last ? next : after);
        wide += n_rows * ROW_APART;
        w = after;
    }
}
