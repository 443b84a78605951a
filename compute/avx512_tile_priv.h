/* Matrix products over AVX-512, from the panel as it is stored: of f32 chains and, where there are bf16
 * instructions, of pairs. Included after avx512_priv.h. */

#define V_AHEAD    24 /* units (6 KB) that one tile alone fetches ahead of what it multiplies */
#define UNIT_BYTES (CPU_PANEL * sizeof(uint32_t))

static inline int dword_at(const unsigned char *p)
{
    int x;

    memcpy(&x, p, sizeof(x));
    return x;
}

#ifdef __AVX512BF16__
/* One unit (4 vectors of weights) into every accumulator. x points at the unit's first element in each row. */
CPU_TILE void unit_pair(v16 (*c)[4], size_t n, const uint32_t *w, const unsigned char *const *x, size_t at)
{
    __m512i v[4];

    CPU_UNROLL(4)
    for (size_t j = 0; j < 4; j++) {
        v[j] = _mm512_loadu_si512(w + 16 * j);
    }
    CPU_UNROLL(6)
    for (size_t r = 0; r < n; r++) {
        __m512i y = _mm512_set1_epi32(dword_at(x[r] + at));

        CPU_UNROLL(4)
        for (size_t j = 0; j < 4; j++) {
            c[r][j] = _mm512_dpbf16_ps(c[r][j], (__m512bh)y, (__m512bh)v[j]);
        }
    }
}
#endif

CPU_TILE void unit_chain(v16 (*c)[4], size_t n, const v16 *w, const unsigned char *const *x, size_t at)
{
    CPU_UNROLL(6)
    for (size_t r = 0; r < n; r++) {
        v16_row_step(4, c[r], (const float *)(const void *)(x[r] + at), w);
    }
}

CPU_TILE void unit_half(cpu_kind kind, v16 (*c)[4], size_t n, const uint32_t *w, bool high,
                        const unsigned char *const *x, size_t at)
{
    v16 v[4];

    CPU_UNROLL(4)
    for (size_t j = 0; j < 4; j++) {
        v[j] = v16_half(kind, w + 16 * j, high);
    }
    unit_chain(c, n, v, x, at);
}

CPU_TILE void unit_f32(v16 (*c)[4], size_t n, const uint32_t *w, const unsigned char *const *x, size_t at)
{
    v16 v[4];

    CPU_UNROLL(4)
    for (size_t j = 0; j < 4; j++) {
        v[j] = _mm512_castsi512_ps(_mm512_loadu_si512(w + 16 * j));
    }
    unit_chain(c, n, v, x, at);
}

/* Per unit that is multiplied: nothing, a part of a unit that the other tiles will read too, or a whole unit that is
 * read only once and need not stay in any cache. A part goes into L2: into L1, where what is multiplied lies too, 8 rows
 * took twice as long as 4 on Zen 4 (32 KB of L1). */
typedef enum { FETCH_NONE, FETCH_PART, FETCH_UNIT } fetch_kind;

CPU_TILE void fetch_from(fetch_kind fetch_as, const char *fetch)
{
    if (fetch_as == FETCH_PART) {
        _mm_prefetch(fetch, _MM_HINT_T1);
        _mm_prefetch(fetch + 64, _MM_HINT_T1);
    } else if (fetch_as == FETCH_UNIT) {
        CPU_UNROLL(4)
        for (size_t i = 0; i < UNIT_BYTES; i += 64) {
            _mm_prefetch(fetch + i, _MM_HINT_NTA);
        }
    }
}

/* n (<= AVX512_TILE_ROWS) rows; n, kind and fetch_as are constants. For each unit that is multiplied, fetch_step (of
 * FETCH_PART: <= 128) bytes from fetch on are brought near. */
CPU_TILE void tile(cpu_kind kind, fetch_kind fetch_as, size_t n, float *acc, size_t stride, const void *const *x,
                   const uint32_t *w, size_t k_begin, size_t k_end, const char *fetch, size_t fetch_step)
{
    size_t x_bytes = kind == CPU_PAIR ? 2 : 4, k = k_begin, n_units = (k_end - k_begin) / (kind == CPU_F32 ? 1 : 2);
    const unsigned char *row[AVX512_TILE_ROWS];
    v16 c[AVX512_TILE_ROWS][4];

    CPU_UNROLL(6)
    for (size_t r = 0; r < n; r++) {
        row[r] = x[r];
        CPU_UNROLL(4)
        for (size_t j = 0; j < 4; j++) {
            c[r][j] = k_begin == 0 ? _mm512_setzero_ps() : _mm512_loadu_ps(acc + r * stride + 16 * j);
        }
    }
    for (size_t u = 0; u < n_units; u++, w += CPU_PANEL) {
        if (fetch_as != FETCH_NONE) {
            fetch_from(fetch_as, fetch);
            fetch += fetch_step;
        }
#ifdef __AVX512BF16__
        if (kind == CPU_PAIR) {
            unit_pair(c, n, w, row, k * x_bytes);
            k += 2;
            continue;
        }
#endif
        if (kind == CPU_F32) {
            unit_f32(c, n, w, row, k * x_bytes);
            k++;
        } else {
            unit_half(kind, c, n, w, false, row, k * x_bytes);
            unit_half(kind, c, n, w, true, row, (k + 1) * x_bytes);
            k += 2;
        }
    }
    if (k < k_end) { /* only 2-byte weights of the f32 chain can be odd */
        unit_half(kind, c, n, w, false, row, k * x_bytes);
    }
    CPU_UNROLL(6)
    for (size_t r = 0; r < n; r++) {
        CPU_UNROLL(4)
        for (size_t j = 0; j < 4; j++) {
            _mm512_storeu_ps(acc + r * stride + 16 * j, c[r][j]);
        }
    }
}

CPU_TILE void tile_of(size_t n, cpu_kind kind, fetch_kind fetch_as, float *acc, size_t stride, const void *const *x,
                      const uint32_t *w, size_t k_begin, size_t k_end, const char *fetch, size_t fetch_step)
{
    switch (n) {
    case 1:
        tile(kind, fetch_as, 1, acc, stride, x, w, k_begin, k_end, fetch, fetch_step);
        break;
    case 2:
        tile(kind, fetch_as, 2, acc, stride, x, w, k_begin, k_end, fetch, fetch_step);
        break;
    case 3:
        tile(kind, fetch_as, 3, acc, stride, x, w, k_begin, k_end, fetch, fetch_step);
        break;
    case 4:
        tile(kind, fetch_as, 4, acc, stride, x, w, k_begin, k_end, fetch, fetch_step);
        break;
    case 5:
        tile(kind, fetch_as, 5, acc, stride, x, w, k_begin, k_end, fetch, fetch_step);
        break;
    default:
        tile(kind, fetch_as, 6, acc, stride, x, w, k_begin, k_end, fetch, fetch_step);
    }
}

/* At most AVX512_TILE_ROWS rows: what is read next is fetched V_AHEAD units before it is multiplied, beyond the end
 * from next on. The hardware's own fetching falls behind, since waiting products fill the core before enough loads
 * are under way. */
CPU_TILE void few_rows(cpu_kind kind, float *acc, size_t stride, const void *const *x, size_t n, const uint32_t *w,
                       size_t k_begin, size_t k_end, const uint32_t *next)
{
    size_t per_unit = kind == CPU_F32 ? 1 : 2, n_units = (k_end - k_begin) / per_unit;
    size_t n_ahead = n_units > V_AHEAD ? n_units - V_AHEAD : 0, k_ahead = k_begin + n_ahead * per_unit;

    if (n_ahead > 0) {
        tile_of(n, kind, FETCH_UNIT, acc, stride, x, w, k_begin, k_ahead, (const char *)(w + V_AHEAD * CPU_PANEL),
                UNIT_BYTES);
    }
    w += n_ahead * CPU_PANEL;
    if (next != NULL) {
        tile_of(n, kind, FETCH_UNIT, acc, stride, x, w, k_ahead, k_end, (const char *)next, UNIT_BYTES);
    } else {
        tile_of(n, kind, FETCH_NONE, acc, stride, x, w, k_ahead, k_end, NULL, 0);
    }
}

/* Rows in tiles of about equal height. Each of several tiles fetches an equal part of the next units, at an even pace:
 * memory never waits for arithmetic, and fetches that are under way do not hold up the loads from the nearer caches. */
CPU_TILE void panel(cpu_kind kind, float *acc, size_t stride, const void *const *x, size_t n_rows, const uint32_t *w,
                    size_t k_begin, size_t k_end, const uint32_t *next)
{
    size_t n_tiles = (n_rows + AVX512_TILE_ROWS - 1) / AVX512_TILE_ROWS;
    size_t next_bytes = (k_end - k_begin) / (kind == CPU_F32 ? 1 : 2) * UNIT_BYTES;

    if (n_tiles == 1) {
        few_rows(kind, acc, stride, x, n_rows, w, k_begin, k_end, next);
        return;
    }
    for (size_t i = 0; i < n_tiles; i++) {
        size_t n = (n_rows + n_tiles - i - 1) / (n_tiles - i);

        if (next != NULL) {
            tile_of(n, kind, FETCH_PART, acc, stride, x, w, k_begin, k_end,
                    (const char *)next + next_bytes * i / n_tiles, (UNIT_BYTES + n_tiles - 1) / n_tiles);
        } else {
            tile_of(n, kind, FETCH_NONE, acc, stride, x, w, k_begin, k_end, NULL, 0);
        }
        acc += n * stride;
        x += n;
        n_rows -= n;
    }
}
