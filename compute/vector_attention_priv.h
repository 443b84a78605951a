/* Attention over v16, included after vector_priv.h. */

static const unsigned char *cached_page(const cpu_attention *a, const unsigned char *base, size_t position)
{
    return base + a->rows[0].pages[position / a->page_tokens] * a->page_bytes;
}

/* The scores of a register tile: V_SCORES sums, of n_rows x n_keys = V_SCORES (both constants). s[i]: where the next
 * V_SCORE_KEYS of them, in the order of rows, then keys, go. */
CPU_TILE void score_tile(size_t head_dim, float scale, compute_dtype dtype, size_t n_rows, size_t n_keys,
                         const unsigned char *const *q, const unsigned char *const *key, float *const *s)
{
    v16 p[V_SCORES];

    CPU_UNROLL(16)
    for (size_t i = 0; i < V_SCORES; i++) {
        p[i] = v16_zero();
    }
    for (size_t d = 0; d < head_dim; d += 16) {
        size_t n = head_dim - d;
        v16 x[V_SCORE_ROWS];

        CPU_UNROLL(16)
        for (size_t r = 0; r < n_rows; r++) {
            x[r] = v16_load_any(q[r], dtype, d, n);
        }
        CPU_UNROLL(16)
        for (size_t k = 0; k < n_keys; k++) {
            v16 y = v16_load_any(key[k], dtype, d, n);

            CPU_UNROLL(16)
            for (size_t r = 0; r < n_rows; r++) {
                p[r * n_keys + k] = v16_fma(x[r], y, p[r * n_keys + k]);
            }
        }
    }
    v16_fold_tile(p, s, scale);
}

/* Rows [first, first + n_rows) against the in_page keys that start at position t; writes up to V_SCORES - 1 more. */
CPU_TILE void scores_in_page(const cpu_attention *a, compute_dtype dtype, size_t n_rows, size_t n_keys, size_t first,
                             const unsigned char *page, size_t t, size_t in_page)
{
    size_t bytes = dtype == COMPUTE_F32 ? 4 : 2;
    const unsigned char *q[V_SCORE_ROWS], *key[V_SCORES];
    float *s[V_SCORE_ROWS];

    for (size_t r = 0; r < n_rows; r++) {
        q[r] = (const unsigned char *)a->q + (first + r) * a->q_stride * bytes;
    }
    for (size_t k = 0; k < in_page; k += n_keys) {
        for (size_t i = 0; i < n_keys; i++) {
            key[i] = page + cpu_min(k + i, in_page - 1) * a->head_dim * bytes;
        }
        for (size_t r = 0; r < V_SCORE_ROWS; r++) {
            s[r] = a->scores + t + k +
                   (n_rows == 1 ? first * a->score_stride + r * V_SCORE_KEYS : (first + r) * a->score_stride);
        }
        score_tile(a->head_dim, a->scale, dtype, n_rows, n_keys, q, key, s);
    }
}

/* Scores of all rows against keys [0, n_keys). Rows that do not see a key leave its score unread. */
CPU_TILE void scores_of(const cpu_attention *a, compute_dtype dtype, size_t n_keys)
{
    for (size_t t = 0; t < n_keys; t += a->page_tokens) {
        const unsigned char *page = cached_page(a, a->k, t);
        size_t in_page = cpu_min(a->page_tokens, n_keys - t), row = 0;

        for (; row + V_SCORE_ROWS <= a->n_rows; row += V_SCORE_ROWS) {
            scores_in_page(a, dtype, V_SCORE_ROWS, V_SCORE_KEYS, row, page, t, in_page);
        }
        for (; row < a->n_rows; row++) {
            scores_in_page(a, dtype, 1, V_SCORES, row, page, t, in_page);
        }
    }
}

/* o and l of n_rows (a constant) rows from `first` on continue over keys [t, end), for V_VALUE_BLOCKS vectors from d
 * on. */
CPU_TILE void value_tile(const cpu_attention *a, compute_dtype dtype, size_t first, size_t n_rows, size_t d, size_t t,
                         size_t end, v16 *o, float *l)
{
    size_t bytes = dtype == COMPUTE_F32 ? 4 : 2;
    const float *s = a->scores + first * a->score_stride;

    while (t < end) {
        const unsigned char *v = cached_page(a, a->v, t) + t % a->page_tokens * a->head_dim * bytes;
        size_t page_end = cpu_min(t - t % a->page_tokens + a->page_tokens, end);

        for (; t < page_end; t++, v += a->head_dim * bytes) {
            v16 value[V_VALUE_BLOCKS];

            CPU_UNROLL(16)
            for (size_t b = 0; b < V_VALUE_BLOCKS; b++) {
                size_t at = d + 16 * b;

                value[b] = at < a->head_dim ? v16_load_any(v, dtype, at, a->head_dim - at) : v16_zero();
            }
            CPU_UNROLL(16)
            for (size_t r = 0; r < n_rows; r++) {
                float p = s[r * a->score_stride + t];

                l[r] = l[r] + p;
                CPU_UNROLL(16)
                for (size_t b = 0; b < V_VALUE_BLOCKS; b++) {
                    o[r * V_VALUE_BLOCKS + b] = v16_fma(v16_set(p), value[b], o[r * V_VALUE_BLOCKS + b]);
                }
            }
        }
    }
}

/* Rows [first, first + n_rows): together over the keys that the first one sees, then each alone over
 * its further ones. */
CPU_TILE void values_of(const cpu_attention *a, compute_dtype dtype, size_t first, size_t n_rows)
{
    size_t shared = (size_t)a->rows[first].position + 1;

    for (size_t d = 0; d < a->head_dim; d += 16 * V_VALUE_BLOCKS) {
        v16 o[V_VALUE_ROWS * V_VALUE_BLOCKS];
        float l[V_VALUE_ROWS] = {0};

        CPU_UNROLL(16)
        for (size_t i = 0; i < V_VALUE_ROWS * V_VALUE_BLOCKS; i++) {
            o[i] = v16_zero();
        }
        value_tile(a, dtype, first, n_rows, d, 0, shared, o, l);
        for (size_t r = 0; r < n_rows; r++) {
            float *out = a->out + (first + r) * a->out_stride;

            value_tile(a, dtype, first + r, 1, d, shared, (size_t)a->rows[first + r].position + 1,
                       o + r * V_VALUE_BLOCKS, l + r);
            for (size_t b = 0; b < V_VALUE_BLOCKS && d + 16 * b < a->head_dim; b++) {
                v16_store_any(out + d + 16 * b, a->head_dim - d - 16 * b,
                              v16_div(o[r * V_VALUE_BLOCKS + b], v16_set(l[r])));
            }
        }
    }
}

CPU_TILE void attention_of(const cpu_attention *a, compute_dtype dtype)
{
    size_t row = 0;

    scores_of(a, dtype, (size_t)a->rows[a->n_rows - 1].position + 1);
    for (size_t r = 0; r < a->n_rows; r++) {
        float *s = a->scores + r * a->score_stride;
        size_t n = (size_t)a->rows[r].position + 1;

        vector_row_exp(s, s, vector_row_max(s, n), n);
    }
    for (; row + V_VALUE_ROWS <= a->n_rows; row += V_VALUE_ROWS) {
        values_of(a, dtype, row, V_VALUE_ROWS);
    }
    for (; row < a->n_rows; row++) {
        values_of(a, dtype, row, 1);
    }
}

static void vector_attention(const cpu_attention *a)
{
    if (a->dtype == COMPUTE_F32) {
        attention_of(a, COMPUTE_F32);
    } else {
        attention_of(a, COMPUTE_BF16);
    }
}
