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
 *   ports.
 *
 * vf operations: vf_zero, vf_set, vf_load, vf_store, vf_fma(a, b, c) = a * b + c, vf_half(kind, width, from, high):
 * VF_LANES even or odd elements, widened; row_step(width, c, x, w): c[j] += *x * w[j]. Constants: VF_ROWS of a tile,
 * PIECE_UNITS of a panel, PRODUCT_SHAPES(X): X(n, width, last) for every number of rows of a tile over the panel, in
 * passes of `width` vectors and one of `last`; KEPT_SHAPES(X): X(n) for every number of rows of a tile among
 * several, which are KEPT_WIDTH wide; FEW_PASSES(n): passes of a tile when n rows are fewer than KEPT_FROM. */

#define VF_PANEL   (CPU_PANEL / VF_LANES) /* vectors */
#define HALF_APART (PIECE_UNITS + 8)      /* f32 between the odd and the even elements of a row of pairs */
#define ROW_APART  (2 * HALF_APART)       /* f32 between rows; no power of two, or they would share few sets of L1 */
/* Units that a tile fetches ahead in its own stream, into L1: one or two rows wait for memory, more for L2. Measured on
 * Cascade Lake from cold memory: with 8 units (2 KB) one row is 1.06 and two rows are 1.2 times as fast as the kernels
 * before, with NTA 0.7 times, since there it keeps the lines out of L2; 3 to 16 rows gain a further 1.05 to 1.2 from 4
 * units. On Zen 3 an earlier form was best with 1.25 KB, and 4 KB slowed even a plain read. */
#define FEW_AHEAD   8
#define NEAR_AHEAD  4
#define BLOCK_UNITS 8 /* between two fetches of a part of the next piece */
#define UNIT_BYTES  (CPU_PANEL * sizeof(uint32_t))

/* Weights that a tile multiplies: from the panel; from the panel, kept widened for the next tile; those that were
 * kept. */
typedef enum { FROM_PANEL, FROM_PANEL_KEEP, FROM_KEPT } weight_source;

/* What a pass over a piece brings near meanwhile: a part of the next piece, into L2. */
typedef struct fetch_part {
    const char *at, *end;
    size_t lines; /* per BLOCK_UNITS: always as many, so that the processor foresees the loop */
} fetch_part;

/* A tile of rows, VF_ROWS or fewer, over some vectors of the panel. */
typedef struct tile_job {
    float *acc; /* sums of the first row, rows `stride` apart */
    size_t stride;
    const float *x;    /* widened, rows ROW_APART */
    const uint32_t *w; /* the panel from its first vector on */
    float *kept;       /* [n_units][2][width] vectors */
    size_t n_units;    /* whole ones */
    bool half;         /* and the low half of one more: only 2-byte weights of the f32 chain can be odd */
    bool fresh;        /* chains start here */
    fetch_part *fetch;
} tile_job;

/* ------------------------------------------------------------------------------------------------ tile
 * kind, from, n (rows) and width (vectors) are constants everywhere. */

/* One k. half: 0 the dword itself, 1 its low, 2 its high half. */
CPU_TILE void step(cpu_kind kind, weight_source from, size_t n, size_t width, vf (*c)[VF_PANEL], const float *x,
                   const uint32_t *w, int half, float *kept)
{
    vf v[VF_PANEL];

    CPU_UNROLL(8)
    for (size_t j = 0; j < width; j++) {
        if (from == FROM_KEPT) {
            v[j] = vf_load(kept + VF_LANES * j);
        } else {
            v[j] = half == 0 ? vf_load((const float *)(const void *)(w + VF_LANES * j))
                             : vf_half(kind, width, w + VF_LANES * j, half == 2);
        }
        if (from == FROM_PANEL_KEEP) {
            vf_store(kept + VF_LANES * j, v[j]);
        }
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
CPU_TILE void unit(cpu_kind kind, weight_source from, size_t n, size_t width, vf (*c)[VF_PANEL], const float *x,
                   const uint32_t *w, float *kept)
{
    if (kind == CPU_F32) {
        step(kind, from, n, width, c, x, w, 0, kept);
    } else if (n == 1) {
        unit_of_row(kind, width, c[0], x, w);
    } else if (kind == CPU_PAIR) {
        step(kind, from, n, width, c, x, w, 2, kept);
        step(kind, from, n, width, c, x + HALF_APART, w, 1, kept + width * VF_LANES);
    } else {
        step(kind, from, n, width, c, x, w, 1, kept);
        step(kind, from, n, width, c, x + 1, w, 2, kept + width * VF_LANES);
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

CPU_TILE void tile(cpu_kind kind, weight_source from, size_t n, size_t width, const tile_job *t)
{
    size_t k_apart = kind == CPU_F32 || kind == CPU_PAIR ? 1 : 2, per_unit = kind == CPU_F32 ? 1 : 2;
    size_t left = t->n_units;
    const float *x = t->x;
    const uint32_t *w = t->w;
    float *kept = t->kept;
    vf c[VF_ROWS][VF_PANEL];

    CPU_UNROLL(16)
    for (size_t r = 0; r < n; r++) {
        CPU_UNROLL(8)
        for (size_t j = 0; j < width; j++) {
            c[r][j] = t->fresh ? vf_zero() : vf_load(t->acc + r * t->stride + VF_LANES * j);
        }
    }
    while (left > 0) {
        size_t block = cpu_min(left, BLOCK_UNITS);

        if (n > 2) {
            fetch_next(t->fetch);
        }
        left -= block;
        CPU_UNROLL(1)
        for (; block > 0; block--) {
            if (n <= 2) {
                fetch_ahead(width, w + FEW_AHEAD * CPU_PANEL);
            } else if (from != FROM_KEPT) {
                fetch_ahead(width, w + NEAR_AHEAD * CPU_PANEL);
            }
            unit(kind, from, n, width, c, x, w, kept);
            x += k_apart;
            w += CPU_PANEL;
            kept += from == FROM_PANEL ? 0 : per_unit * width * VF_LANES;
        }
    }
    if (t->half) {
        step(kind, from, n, width, c, x, w, 1, kept);
    }
    CPU_UNROLL(16)
    for (size_t r = 0; r < n; r++) {
        CPU_UNROLL(8)
        for (size_t j = 0; j < width; j++) {
            vf_store(t->acc + r * t->stride + VF_LANES * j, c[r][j]);
        }
    }
}

/* ------------------------------------------------------------------------------------------------ tiles over a
 * panel */
CPU_TILE void passes(cpu_kind kind, size_t n, size_t width, size_t last, tile_job t)
{
    for (size_t done = 0; done + width <= VF_PANEL; done += width) {
        tile(kind, FROM_PANEL, n, width, &t);
        t.acc += VF_LANES * width;
        t.w += VF_LANES * width;
    }
    if (last > 0) {
        tile(kind, FROM_PANEL, n, last, &t);
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

CPU_TILE void tile_among(cpu_kind kind, weight_source from, size_t n, const tile_job *t)
{
    switch (n) {
#define SHAPE(rows)                                                                                                    \
    case rows:                                                                                                         \
        tile(kind, from, rows, KEPT_WIDTH, t);                                                                         \
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

/* All tiles of rows over the same few vectors, which stay in L1, then over the next. f32 weights need no widening. */
CPU_TILE void many_rows(cpu_kind kind, tile_job t, size_t n_rows)
{
    _Alignas(MOE_CACHE_LINE) float kept[2 * (PIECE_UNITS + 1) * KEPT_WIDTH * VF_LANES];
    size_t n_tiles = (n_rows + VF_ROWS - 1) / VF_ROWS;
    const tile_job first = t;

    for (size_t done = 0; done < CPU_PANEL; done += KEPT_WIDTH * VF_LANES) {
        t = first;
        t.kept = kept;
        t.acc += done;
        t.w += done;
        for (size_t i = 0; i < n_tiles; i++) {
            size_t n = tile_height(n_rows, n_tiles, i);

            if (kind == CPU_F32) {
                tile_among(kind, FROM_PANEL, n, &t);
            } else if (i == 0) {
                tile_among(kind, FROM_PANEL_KEEP, n, &t);
            } else {
                tile_among(kind, FROM_KEPT, n, &t);
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

/* Passes of tiles over a piece for n_rows rows: what the fetching is spread over. */
static size_t n_passes(size_t n_rows)
{
    size_t n_tiles = (n_rows + VF_ROWS - 1) / VF_ROWS;

    return n_rows >= KEPT_FROM ? n_tiles * (VF_PANEL / KEPT_WIDTH) : n_tiles * FEW_PASSES(n_rows);
}

/* At most PIECE_UNITS of a panel. */
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
        size_t n_blocks = n_passes(n_rows) * ((n_units + BLOCK_UNITS - 1) / BLOCK_UNITS);

        fetch.at = (const char *)next;
        fetch.end = fetch.at + n_units * UNIT_BYTES;
        fetch.lines = n_units * UNIT_BYTES / MOE_CACHE_LINE / MOE_MAX(1, n_blocks) + 1;
    }
    if (n_rows < KEPT_FROM) {
        few_rows(kind, t, n_rows);
    } else {
        many_rows(kind, t, n_rows);
    }
}

/* k of a piece. */
CPU_TILE size_t piece_length(cpu_kind kind)
{
    return PIECE_UNITS * (kind == CPU_F32 ? 1 : 2);
}

/* cpu_rows.of: piece by piece. */
CPU_TILE void rows_of(cpu_kind kind, float *to, const void *const *x, size_t n_rows, size_t k_begin, size_t k_end)
{
    for (size_t k = k_begin; k < k_end; k += piece_length(kind), to += n_rows * ROW_APART) {
        widen_rows(kind, to, x, n_rows, k, cpu_min(piece_length(kind), k_end - k));
    }
}

CPU_TILE void panel(cpu_kind kind, float *acc, size_t stride, const void *const *x, size_t n_rows, const uint32_t *w,
                    size_t k_begin, size_t k_end, const uint32_t *next)
{
    const float *wide = x[0];

    for (size_t k = k_begin; k < k_end; k += piece_length(kind)) {
        bool last = k_end - k <= piece_length(kind);
        const uint32_t *after = w + PIECE_UNITS * CPU_PANEL;

        piece(kind, acc, stride, wide, n_rows, w, k, last ? k_end : k + piece_length(kind), last ? next : after);
        wide += n_rows * ROW_APART;
        w = after;
    }
}
