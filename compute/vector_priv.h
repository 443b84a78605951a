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

CPU_TILE v16 v16_horner(v16 x, const float *c, size_t n)
{
    v16 y = v16_set(c[n - 1]);

    CPU_UNROLL(16)
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

static inline float vector_row_max(const float *x, size_t n)
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

static inline void vector_row_exp(float *y, const float *x, float shift, size_t n)
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
