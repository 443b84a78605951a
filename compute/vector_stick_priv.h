/* Stick-breaking attention over v16, included after vector_priv.h: blocks of keys from the newest down, all rows of a
 * tile over a block while its keys and values are near. */
#define STICK_KEYS 32 /* a block: 64 KB of 1024 bf16 */

typedef struct stick_block {
    size_t first, n; /* its keys start at position `first` */
    const unsigned char *k[STICK_KEYS + V_SCORES], *v[STICK_KEYS];
    size_t row[CPU_ATTENTION_ROWS], n_rows;                  /* rows that take part */
    size_t from[CPU_ATTENTION_ROWS], to[CPU_ATTENTION_ROWS]; /* keys in the block of each of them */
    float w[CPU_ATTENTION_ROWS][STICK_KEYS + V_SCORES];      /* scores, then weights */
} stick_block;

/* Past the end the last key is repeated, so that score tiles are whole. */
static void stick_keys(const cpu_stick *s, stick_block *b)
{
    for (size_t i = 0; i < b->n; i++) {
        size_t t = b->first + i;
        size_t at = s->pages[t / s->page_tokens] * s->page_bytes +
                    t % s->page_tokens * s->head_dim * compute_dtype_bytes(s->dtype);

        b->k[i] = s->k + at;
        b->v[i] = s->v + at;
    }
    for (size_t i = b->n; i < b->n + V_SCORES; i++) {
        b->k[i] = b->k[b->n - 1];
    }
}

/* n_rows (a constant) rows from the i-th on. */
CPU_TILE void stick_scores(const cpu_stick *s, compute_dtype dtype, stick_block *b, size_t i, size_t n_rows,
                           size_t n_keys)
{
    const unsigned char *q[V_SCORE_ROWS];
    float *to[V_SCORE_ROWS];

    for (size_t r = 0; r < n_rows; r++) {
        q[r] = s->q[b->row[i + r]];
    }
    for (size_t k = 0; k < b->n; k += n_keys) {
        for (size_t r = 0; r < V_SCORE_ROWS; r++) {
            to[r] = n_rows == 1 ? &b->w[i][k + r * V_SCORE_KEYS] : &b->w[i + r][k];
        }
        score_tile(s->head_dim, s->scale, dtype, n_rows, n_keys, q, b->k + k, to);
    }
}

/* Scores of the keys [0, to) become weights down to `from`, where the stick ends or the block begins. Returns c. */
static float stick_weights(float *w, size_t to, size_t *from, float c, bool full_scan)
{
    float before[STICK_KEYS] = {0}, l[STICK_KEYS];
    size_t t = to;

    for (size_t i = 0; i < to; i += 16) {
        v16 x = v16_load(w + i), e = v16_exp(v16_negative(v16_abs(x)));

        v16_store(l + i, v16_add(v16_less(v16_zero(), x, x, v16_zero()), v16_log1p(e)));
        v16_store(w + i, v16_sigmoid(x));
    }
    while (t > 0 && (full_scan || !(c < -88.0f))) {
        before[--t] = c;
        c = c - l[t];
    }
    for (size_t i = 0; i < to; i += 16) {
        v16_store(w + i, v16_mul(v16_load(w + i), v16_exp(v16_load(before + i))));
    }
    *from = t;
    return c;
}

/* n_blocks vectors, of which the last has `lanes` values, of n_rows sums (both constants) go on over keys [from, to) of
 * the block, newest first. */
CPU_TILE void stick_tile(compute_dtype dtype, const stick_block *b, size_t i, size_t n_rows, size_t n_blocks,
                         size_t from, size_t to, float *const *out, size_t d, size_t lanes)
{
    v16 y[V_VALUE_ROWS * V_VALUE_BLOCKS];

    CPU_UNROLL(16)
    for (size_t j = 0; j < n_rows * n_blocks; j++) {
        y[j] = v16_load_any(out[j / n_blocks], COMPUTE_F32, d + j % n_blocks * 16, lanes);
    }
    for (size_t t = to; t-- > from;) {
        v16 w[V_VALUE_ROWS];

        CPU_UNROLL(16)
        for (size_t r = 0; r < n_rows; r++) {
            w[r] = v16_set(b->w[i + r][t]);
        }
        CPU_UNROLL(16)
        for (size_t j = 0; j < n_blocks; j++) {
            v16 value = v16_load_any(b->v[t], dtype, d + j * 16, lanes);

            CPU_UNROLL(16)
            for (size_t r = 0; r < n_rows; r++) {
                y[r * n_blocks + j] = v16_fma(w[r], value, y[r * n_blocks + j]);
            }
        }
    }
    CPU_UNROLL(16)
    for (size_t j = 0; j < n_rows * n_blocks; j++) {
        v16_store_any(out[j / n_blocks] + d + j % n_blocks * 16, lanes, y[j]);
    }
}

CPU_TILE void stick_values(const cpu_stick *s, compute_dtype dtype, const stick_block *b, size_t i, size_t n_rows,
                           size_t n_blocks, size_t from, size_t to)
{
    float *out[V_VALUE_ROWS];
    size_t d = 0;

    if (from >= to) {
        return;
    }
    for (size_t r = 0; r < n_rows; r++) {
        out[r] = s->out[b->row[i + r]];
    }
    for (; d + 16 * n_blocks <= s->head_dim; d += 16 * n_blocks) {
        stick_tile(dtype, b, i, n_rows, n_blocks, from, to, out, d, 16);
    }
    for (; d + 16 <= s->head_dim; d += 16) {
        stick_tile(dtype, b, i, n_rows, 1, from, to, out, d, 16);
    }
    if (d < s->head_dim) {
        stick_tile(dtype, b, i, n_rows, 1, from, to, out, d, s->head_dim - d);
    }
}

CPU_TILE void stick_alone(const cpu_stick *s, compute_dtype dtype, const stick_block *b, size_t i, size_t from,
                          size_t to)
{
    stick_values(s, dtype, b, i, 1, V_VALUE_ROWS * V_VALUE_BLOCKS, from, to);
}

/* V_VALUE_ROWS rows: each alone over its newer keys, all together over the keys of all, each alone over
 * its older ones. */
CPU_TILE void stick_together(const cpu_stick *s, compute_dtype dtype, const stick_block *b, size_t i)
{
    size_t from = 0, to = b->n;

    for (size_t r = i; r < i + V_VALUE_ROWS; r++) {
        from = MOE_MAX(from, b->from[r]);
        to = cpu_min(to, b->to[r]);
    }
    from = cpu_min(from, to);
    for (size_t r = i; r < i + V_VALUE_ROWS; r++) {
        stick_alone(s, dtype, b, r, MOE_MAX(to, b->from[r]), b->to[r]);
    }
    stick_values(s, dtype, b, i, V_VALUE_ROWS, V_VALUE_BLOCKS, from, to);
    for (size_t r = i; r < i + V_VALUE_ROWS; r++) {
        stick_alone(s, dtype, b, r, b->from[r], cpu_min(from, b->to[r]));
    }
}

CPU_TILE void stick_of(cpu_stick *s, compute_dtype dtype)
{
    size_t oldest[CPU_ATTENTION_ROWS], end = 0; /* that a row has used so far */
    float c[CPU_ATTENTION_ROWS] = {0};
    bool ended[CPU_ATTENTION_ROWS] = {false};
    stick_block b = {.n = 0};

    for (size_t r = 0; r < s->n_rows; r++) {
        memset(s->out[r], 0, s->head_dim * sizeof(*s->out[r]));
        oldest[r] = s->seen[r];
        end = MOE_MAX(end, s->seen[r]);
    }
    for (; end > 0; end = b.first) {
        size_t i = 0;
        bool waiting = false;

        b.first = (end - 1) / STICK_KEYS * STICK_KEYS;
        b.n = end - b.first;
        b.n_rows = 0;
        for (size_t r = 0; r < s->n_rows; r++) {
            if (!ended[r] && s->seen[r] > b.first) {
                b.to[b.n_rows] = cpu_min(s->seen[r], end) - b.first;
                b.row[b.n_rows++] = r;
            }
            waiting |= !ended[r];
        }
        if (!waiting) {
            break;
        }
        stick_keys(s, &b);
        for (; i + V_SCORE_ROWS <= b.n_rows; i += V_SCORE_ROWS) {
            stick_scores(s, dtype, &b, i, V_SCORE_ROWS, V_SCORE_KEYS);
        }
        for (; i < b.n_rows; i++) {
            stick_scores(s, dtype, &b, i, 1, V_SCORES);
        }
        for (i = 0; i < b.n_rows; i++) {
            size_t r = b.row[i];

            c[r] = stick_weights(b.w[i], b.to[i], &b.from[i], c[r], s->full_scan);
            oldest[r] = b.first + b.from[i];
            ended[r] = !s->full_scan && c[r] < -88.0f;
        }
        for (i = 0; i + V_VALUE_ROWS <= b.n_rows; i += V_VALUE_ROWS) {
            stick_together(s, dtype, &b, i);
        }
        for (; i < b.n_rows; i++) {
            stick_alone(s, dtype, &b, i, b.from[i], b.to[i]);
        }
    }
    for (size_t r = 0; r < s->n_rows; r++) {
        s->seen[r] -= oldest[r];
        for (size_t d = 0; d < s->head_dim; d++) {
            s->out[r][d] = s->out[r][d] + 0.0f; /* -0 becomes +0, as further keys of no weight would make it */
        }
    }
}

static void vector_stick(cpu_stick *s)
{
    if (s->dtype == COMPUTE_F32) {
        stick_of(s, COMPUTE_F32);
    } else {
        stick_of(s, COMPUTE_BF16);
    }
}
