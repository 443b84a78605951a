/* Rows and values over v16, included after vector_priv.h. */

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
CPU_TILE void local_logits_of(float (*logits)[2], const void *const *x, compute_dtype dtype, size_t n_rows,
                              const float *gate, size_t width)
{
    float acc[CPU_LOCAL_ROWS][2] = {{0}};

    for (size_t k = 0; k < width; k++) {
        CPU_UNROLL(8)
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

/* What this file gives a cpu_kernels. */
#define VECTOR_ROWS                                                                                                    \
    .widen = vector_widen, .round_bf16 = vector_round_bf16, .rms_norm = vector_rms_norm, .rope = vector_rope,          \
    .clamp = vector_clamp, .add = vector_add, .swiglu = vector_swiglu, .combine = vector_combine,                      \
    .layer_norm = vector_layer_norm, .unit_norm = vector_unit_norm, .gelu_erf = vector_gelu_erf,                       \
    .gelu_tanh = vector_gelu_tanh, .tanh = vector_tanh, .local_logits = vector_local_logits,                           \
    .local_mix = vector_local_mix, .row_sum = vector_row_sum, .row_max = vector_row_max, .row_exp = vector_row_exp,    \
    .row_divide = vector_row_divide
