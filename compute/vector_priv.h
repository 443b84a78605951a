/* The vector twins of portable.c, written once over v16, a vector of 16 f32 that avx2.c and avx512.c define together
 * with its operations before they include this file. Same operations in the same order as portable.c and math.c, hence
 * equal bits.
 *
 * v16 operations: v16_zero, v16_set, v16_load, v16_load_n and v16_store_n (n <= 16, missing lanes zero), v16_store, the
 * same with _bf16 and _f16, v16_fma(a, b, c) = a * b + c, v16_add, v16_sub, v16_mul, v16_div, v16_max (the second
 * operand when either is NaN), v16_xor, v16_and, v16_less(a, b, x, y) = a < b ? x : y, v16_any_nan, v16_fold,
 * v16_max_fold, v16_power(t): see v16_exp, v16_exponent(x): see v16_log. V_SCORE_ROWS x V_SCORE_KEYS = V_SCORES sums
 * (or 1 x V_SCORES) and V_VALUE_ROWS x V_VALUE_BLOCKS are the register tiles of attention; v16_fold_tile folds and
 * scales V_SCORES sums. */

/* ---------------------------------------------------------------------------------------------- rows */
static float vector_row_sum(const float *x, size_t n)
{
    v16 p = v16_zero();
    size_t i = 0;

    for (; i + 16 <= n; i += 16) {
        p = v16_add(p, v16_load(x + i));
    }
    if (i < n) {
        p = v16_add(p, v16_load_n(x + i, n - i));
    }
    return v16_fold(p);
}

static float vector_row_max(const float *x, size_t n)
{
    float m = x[0];
    size_t i = 0;

    if (n >= 16) {
        v16 most = v16_load(x);
        bool nan = false;

        for (; i + 16 <= n; i += 16) {
            v16 v = v16_load(x + i);

            nan |= v16_any_nan(v);
            most = v16_max(most, v);
        }
        m = nan ? __builtin_nanf("") : v16_max_fold(most);
    }
    for (; i < n && m == m; i++) {
        m = x[i] > m || x[i] != x[i] ? x[i] : m;
    }
    return m + 0.0f;
}

static inline __attribute__((always_inline)) v16 v16_horner(v16 x, const float *c, size_t n)
{
    v16 y = v16_set(c[n - 1]);

#pragma GCC unroll 16
    for (size_t i = n - 1; i-- > 0;) {
        y = v16_fma(y, x, v16_set(c[i]));
    }
    return y;
}

static inline v16 v16_exp(v16 x)
{
    const v16 magic = v16_set(0x1.8p23f);
    v16 t = v16_fma(x, v16_set(0x1.715476p0f), magic);
    v16 n = v16_sub(t, magic), low, high;
    v16 r = v16_fma(n, v16_set(-0x1.62e4p-1f), x), y;

    r = v16_fma(n, v16_set(-0x1.7f7d1cp-20f), r);
    y = v16_horner(r, math_exp_p5, MOE_COUNT(math_exp_p5));
    y = v16_add(v16_fma(v16_mul(r, r), y, r), v16_set(1.0f));
    low = v16_power(t, &high);
    y = v16_mul(v16_mul(y, low), high);
    y = v16_less(x, v16_set(-88.0f), v16_zero(), y);
    return v16_less(v16_set(0x1.62e42ep6f), x, v16_set(__builtin_inff()), y);
}

static void vector_row_exp(float *y, const float *x, float shift, size_t n)
{
    v16 s = v16_set(shift);
    size_t i = 0;

    for (; i + 16 <= n; i += 16) {
        v16_store(y + i, v16_exp(v16_sub(v16_load(x + i), s)));
    }
    if (i < n) {
        v16_store_n(y + i, n - i, v16_exp(v16_sub(v16_load_n(x + i, n - i), s)));
    }
}

static void vector_row_divide(float *y, float by, size_t n)
{
    v16 d = v16_set(by);
    size_t i = 0;

    for (; i + 16 <= n; i += 16) {
        v16_store(y + i, v16_div(v16_load(y + i), d));
    }
    if (i < n) {
        v16_store_n(y + i, n - i, v16_div(v16_load_n(y + i, n - i), d));
    }
}

static float vector_sum_of_squares(const float *x, size_t width)
{
    v16 p = v16_zero(), q;
    size_t i = 0;

    for (; i + 16 <= width; i += 16) {
        q = v16_load(x + i);
        p = v16_fma(q, q, p);
    }
    if (i < width) {
        q = v16_load_n(x + i, width - i);
        p = v16_fma(q, q, p);
    }
    return v16_fold(p);
}

static void vector_rms_norm(float *out, const float *x, const float *gain, float eps, size_t width)
{
    v16 r = v16_set(1.0f / sqrtf(vector_sum_of_squares(x, width) / (float)width + eps));
    size_t i = 0;

    for (; i + 16 <= width; i += 16) {
        v16_store(out + i, v16_mul(v16_mul(v16_load(x + i), r), v16_load(gain + i)));
    }
    if (i < width) {
        v16_store_n(out + i, width - i,
                    v16_mul(v16_mul(v16_load_n(x + i, width - i), r), v16_load_n(gain + i, width - i)));
    }
}

static void vector_layer_norm(float *out, const float *x, const float *gain, const float *bias, float eps, size_t width)
{
    v16 mean = v16_set(vector_row_sum(x, width) / (float)width), p = v16_zero(), c, r;
    size_t i = 0;

    for (; i + 16 <= width; i += 16) {
        c = v16_sub(v16_load(x + i), mean);
        p = v16_fma(c, c, p);
        v16_store(out + i, c);
    }
    if (i < width) {
        v16_store_n(out + i, width - i, v16_sub(v16_load_n(x + i, width - i), mean));
        c = v16_load_n(out + i, width - i); /* the lanes past the end are zero again */
        p = v16_fma(c, c, p);
    }
    r = v16_set(1.0f / sqrtf(v16_fold(p) / (float)width + eps));
    for (i = 0; i + 16 <= width; i += 16) {
        c = v16_mul(v16_mul(v16_load(out + i), r), v16_load(gain + i));
        v16_store(out + i, v16_add(c, v16_load(bias + i)));
    }
    if (i < width) {
        c = v16_mul(v16_mul(v16_load_n(out + i, width - i), r), v16_load_n(gain + i, width - i));
        v16_store_n(out + i, width - i, v16_add(c, v16_load_n(bias + i, width - i)));
    }
}

static void vector_unit_norm(float *x, size_t width)
{
    float length = sqrtf(vector_sum_of_squares(x, width));

    vector_row_divide(x, length < 1e-12f ? 1e-12f : length, width);
}

static void vector_rope(float *x, const float *cosine, const float *sine, size_t half)
{
    for (size_t j = 0; j < half; j += 16) {
        size_t n = half - j < 16 ? half - j : 16;
        v16 u = v16_load_n(x + j, n), v = v16_load_n(x + half + j, n);
        v16 c = v16_load_n(cosine + j, n), s = v16_load_n(sine + j, n);

        v16_store_n(x + j, n, v16_sub(v16_mul(u, c), v16_mul(v, s)));
        v16_store_n(x + half + j, n, v16_add(v16_mul(v, c), v16_mul(u, s)));
    }
}

/* ---------------------------------------------------------------------------------------------- values */
static inline v16 v16_load_any(const void *x, compute_dtype dtype, size_t i, size_t n)
{
    const float *f = (const float *)x + i;
    const uint16_t *h = (const uint16_t *)x + i;

    if (n >= 16) {
        return dtype == COMPUTE_F32 ? v16_load(f) : dtype == COMPUTE_BF16 ? v16_load_bf16(h) : v16_load_f16(h);
    }
    return dtype == COMPUTE_F32    ? v16_load_n(f, n)
           : dtype == COMPUTE_BF16 ? v16_load_bf16_n(h, n)
                                   : v16_load_f16_n(h, n);
}

static inline void v16_store_any(float *to, size_t n, v16 x)
{
    if (n >= 16) {
        v16_store(to, x);
    } else {
        v16_store_n(to, n, x);
    }
}

static void vector_widen(float *out, const void *in, compute_dtype dtype, size_t n)
{
    for (size_t i = 0; i < n; i += 16) {
        v16_store_any(out + i, n - i, v16_load_any(in, dtype, i, n - i));
    }
}

static void vector_round_bf16(uint16_t *out, const float *in, size_t n)
{
    size_t i = 0;

    for (; i + 16 <= n; i += 16) {
        v16_store_bf16(out + i, v16_load(in + i));
    }
    if (i < n) {
        v16_store_bf16_n(out + i, n - i, v16_load_n(in + i, n - i));
    }
}

static void vector_clamp(float *x, float bound, size_t n)
{
    v16 low = v16_set(-bound), high = v16_set(bound);

    for (size_t i = 0; i < n; i += 16) {
        v16 v = v16_load_any(x, COMPUTE_F32, i, n - i);

        v = v16_less(v, low, low, v16_less(high, v, high, v));
        v16_store_any(x + i, n - i, v);
    }
}

static void vector_add(float *x, const float *y, size_t n)
{
    for (size_t i = 0; i < n; i += 16) {
        v16 a = v16_load_any(x, COMPUTE_F32, i, n - i), b = v16_load_any(y, COMPUTE_F32, i, n - i);

        v16_store_any(x + i, n - i, v16_add(a, b));
    }
}

static void vector_swiglu(float *gate, const float *up, size_t n)
{
    const v16 one = v16_set(1.0f), sign = v16_set(-0.0f);

    for (size_t i = 0; i < n; i += 16) {
        v16 g = v16_load_any(gate, COMPUTE_F32, i, n - i), u = v16_load_any(up, COMPUTE_F32, i, n - i);
        v16 silu = v16_div(g, v16_add(one, v16_exp(v16_xor(g, sign))));

        v16_store_any(gate + i, n - i, v16_mul(silu, u));
    }
}

/* The log of x in [1, 2] (NaN: any value): compute_log without its special cases. */
static inline v16 v16_log(v16 x)
{
    v16 n, f = v16_sub(v16_exponent(x, &n), v16_set(1.0f)), y;

    y = v16_fma(f, v16_horner(f, math_log_p8, MOE_COUNT(math_log_p8)), v16_set(-0.5f));
    y = v16_fma(v16_mul(f, f), y, v16_mul(n, v16_set(0x1.7f7d1cp-20f)));
    return v16_fma(n, v16_set(0x1.62e4p-1f), v16_add(f, y));
}

/* compute_log1p of x in [0, 1] or NaN. */
static inline v16 v16_log1p(v16 x)
{
    const v16 one = v16_set(1.0f);
    v16 u = v16_add(one, x), lost = v16_sub(x, v16_sub(u, one));

    return v16_less(x, v16_set(0x1p-24f), x, v16_add(v16_log(u), v16_div(lost, u)));
}

static inline v16 v16_negative(v16 x)
{
    return v16_xor(x, v16_set(-0.0f));
}

static inline v16 v16_sign(v16 x)
{
    return v16_and(x, v16_set(-0.0f));
}

static inline v16 v16_abs(v16 x)
{
    return v16_xor(x, v16_sign(x));
}

static inline v16 v16_sigmoid(v16 x)
{
    const v16 one = v16_set(1.0f);

    return v16_div(one, v16_add(one, v16_exp(v16_negative(x))));
}

static inline v16 v16_erf(v16 x)
{
    const v16 one = v16_set(1.0f);
    v16 a = v16_abs(x), small = v16_fma(x, v16_horner(v16_mul(x, x), math_erf_p7, MOE_COUNT(math_erf_p7)), x);
    v16 t = v16_fma(a, a, v16_horner(a, math_erf_q8, MOE_COUNT(math_erf_q8)));
    v16 y = v16_sub(one, v16_exp(v16_negative(t)));

    y = v16_less(v16_set(0x1.fffffep1f), a, one, y); /* from 4 on; NaN stays */
    return v16_less(a, v16_set(0.921875f), small, v16_xor(y, v16_sign(x)));
}

static inline v16 v16_tanh(v16 x)
{
    const v16 one = v16_set(1.0f);
    v16 a = v16_abs(x), s = v16_mul(x, x);
    v16 small = v16_fma(v16_mul(x, s), v16_horner(s, math_tanh_p5, MOE_COUNT(math_tanh_p5)), x);
    v16 y = v16_sub(one, v16_div(v16_set(2.0f), v16_add(v16_exp(v16_add(a, a)), one)));

    return v16_less(a, v16_set(0.625f), small, v16_xor(y, v16_sign(x)));
}

static inline v16 v16_gelu(v16 x, v16 squashed)
{
    return v16_mul(v16_mul(v16_set(0.5f), x), v16_add(v16_set(1.0f), squashed));
}

static void vector_gelu_erf(float *x, size_t n)
{
    for (size_t i = 0; i < n; i += 16) {
        v16 v = v16_load_any(x, COMPUTE_F32, i, n - i);

        v16_store_any(x + i, n - i, v16_gelu(v, v16_erf(v16_mul(v, v16_set(MATH_ROOT_HALF)))));
    }
}

static void vector_gelu_tanh(float *x, size_t n)
{
    for (size_t i = 0; i < n; i += 16) {
        v16 v = v16_load_any(x, COMPUTE_F32, i, n - i);
        v16 u = v16_fma(v16_mul(v16_set(MATH_GELU_CUBE), v16_mul(v, v)), v, v);

        v16_store_any(x + i, n - i, v16_gelu(v, v16_tanh(v16_mul(v16_set(MATH_GELU_SCALE), u))));
    }
}

static void vector_tanh(float *x, size_t n)
{
    for (size_t i = 0; i < n; i += 16) {
        v16_store_any(x + i, n - i, v16_tanh(v16_load_any(x, COMPUTE_F32, i, n - i)));
    }
}

/* Scalar: the rows' chains, which may not be split, run side by side. */
static inline __attribute__((always_inline)) void local_logits_of(float (*logits)[2], const void *const *x,
                                                                  compute_dtype dtype, size_t n_rows, const float *gate,
                                                                  size_t width)
{
    float acc[CPU_LOCAL_ROWS][2] = {{0}};

    for (size_t k = 0; k < width; k++) {
#pragma GCC unroll 8
        for (size_t r = 0; r < CPU_LOCAL_ROWS; r++) {
            const void *row = x[r < n_rows ? r : 0];
            float v =
                dtype == COMPUTE_F32 ? ((const float *)row)[k] : compute_f32_from_bf16(((const uint16_t *)row)[k]);

            acc[r][0] = __builtin_fmaf(v, gate[k], acc[r][0]);
            acc[r][1] = __builtin_fmaf(v, gate[width + k], acc[r][1]);
        }
    }
    memcpy(logits, acc, n_rows * sizeof(*acc));
}

static void vector_local_logits(float (*logits)[2], const void *const *x, compute_dtype dtype, size_t n_rows,
                                const float *gate, size_t width)
{
    if (dtype == COMPUTE_F32) {
        local_logits_of(logits, x, COMPUTE_F32, n_rows, gate, width);
    } else {
        local_logits_of(logits, x, COMPUTE_BF16, n_rows, gate, width);
    }
}

static void vector_local_mix(float *out, const void *x, compute_dtype dtype, const float *a, const float *constant,
                             size_t width)
{
    for (size_t i = 0; i < width; i += 16) {
        v16 row = v16_mul(v16_set(a[0]), v16_load_any(x, dtype, i, width - i));

        v16_store_any(out + i, width - i,
                      v16_add(row, v16_mul(v16_set(a[1]), v16_load_any(constant, COMPUTE_F32, i, width - i))));
    }
}

static void vector_combine(float *x, const void *results, compute_dtype dtype, const compute_pick *picks,
                           size_t n_picks, size_t width)
{
    for (size_t i = 0; i < width; i += 16) {
        v16 y = v16_zero();

        for (size_t p = 0; p < n_picks; p++) {
            const unsigned char *row =
                (const unsigned char *)results + picks[p].result_row * width * (dtype == COMPUTE_F32 ? 4 : 2);

            y = v16_add(y, v16_mul(v16_set(picks[p].weight), v16_load_any(row, dtype, i, width - i)));
        }
        v16_store_any(x + i, width - i, v16_add(v16_load_any(x, COMPUTE_F32, i, width - i), y));
    }
}

/* ---------------------------------------------------------------------------------------------- attention */
static const unsigned char *cached_page(const cpu_attention *a, const unsigned char *base, size_t position)
{
    return base + a->rows[0].pages[position / a->page_tokens] * a->page_bytes;
}

/* The scores of a register tile: V_SCORES sums, of n_rows x n_keys = V_SCORES (both constants). s[i]: where the next
 * V_SCORE_KEYS of them, in the order of rows, then keys, go. */
static inline __attribute__((always_inline)) void score_tile(size_t head_dim, float scale, compute_dtype dtype,
                                                             size_t n_rows, size_t n_keys,
                                                             const unsigned char *const *q,
                                                             const unsigned char *const *key, float *const *s)
{
    v16 p[V_SCORES];

#pragma GCC unroll 16
    for (size_t i = 0; i < V_SCORES; i++) {
        p[i] = v16_zero();
    }
    for (size_t d = 0; d < head_dim; d += 16) {
        size_t n = head_dim - d;
        v16 x[V_SCORE_ROWS];

#pragma GCC unroll 16
        for (size_t r = 0; r < n_rows; r++) {
            x[r] = v16_load_any(q[r], dtype, d, n);
        }
#pragma GCC unroll 16
        for (size_t k = 0; k < n_keys; k++) {
            v16 y = v16_load_any(key[k], dtype, d, n);

#pragma GCC unroll 16
            for (size_t r = 0; r < n_rows; r++) {
                p[r * n_keys + k] = v16_fma(x[r], y, p[r * n_keys + k]);
            }
        }
    }
    v16_fold_tile(p, s, scale);
}

/* Rows [first, first + n_rows) against the in_page keys that start at position t; writes up to V_SCORES - 1 more. */
static inline __attribute__((always_inline)) void scores_in_page(const cpu_attention *a, compute_dtype dtype,
                                                                 size_t n_rows, size_t n_keys, size_t first,
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
static inline __attribute__((always_inline)) void scores_of(const cpu_attention *a, compute_dtype dtype, size_t n_keys)
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
static inline __attribute__((always_inline)) void value_tile(const cpu_attention *a, compute_dtype dtype, size_t first,
                                                             size_t n_rows, size_t d, size_t t, size_t end, v16 *o,
                                                             float *l)
{
    size_t bytes = dtype == COMPUTE_F32 ? 4 : 2;
    const float *s = a->scores + first * a->score_stride;

    while (t < end) {
        const unsigned char *v = cached_page(a, a->v, t) + t % a->page_tokens * a->head_dim * bytes;
        size_t page_end = cpu_min(t - t % a->page_tokens + a->page_tokens, end);

        for (; t < page_end; t++, v += a->head_dim * bytes) {
            v16 value[V_VALUE_BLOCKS];

#pragma GCC unroll 16
            for (size_t b = 0; b < V_VALUE_BLOCKS; b++) {
                size_t at = d + 16 * b;

                value[b] = at < a->head_dim ? v16_load_any(v, dtype, at, a->head_dim - at) : v16_zero();
            }
#pragma GCC unroll 16
            for (size_t r = 0; r < n_rows; r++) {
                float p = s[r * a->score_stride + t];

                l[r] = l[r] + p;
#pragma GCC unroll 16
                for (size_t b = 0; b < V_VALUE_BLOCKS; b++) {
                    o[r * V_VALUE_BLOCKS + b] = v16_fma(v16_set(p), value[b], o[r * V_VALUE_BLOCKS + b]);
                }
            }
        }
    }
}

/* Rows [first, first + n_rows): together over the keys that the first one sees, then each alone over its further ones.
 */
static inline __attribute__((always_inline)) void values_of(const cpu_attention *a, compute_dtype dtype, size_t first,
                                                            size_t n_rows)
{
    size_t shared = (size_t)a->rows[first].position + 1;

    for (size_t d = 0; d < a->head_dim; d += 16 * V_VALUE_BLOCKS) {
        v16 o[V_VALUE_ROWS * V_VALUE_BLOCKS];
        float l[V_VALUE_ROWS] = {0};

#pragma GCC unroll 16
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

static inline __attribute__((always_inline)) void attention_of(const cpu_attention *a, compute_dtype dtype)
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
