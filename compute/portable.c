/* The obvious kernels: docs/numeric.md in scalar C, the oracle of the vector ones. */
#include "compute/cpu_priv.h"

#include <math.h>
#include <string.h>

typedef struct partials {
    float p[16];
} partials;

static float fold(partials s)
{
    for (size_t w = 8; w > 0; w /= 2) {
        for (size_t j = 0; j < w; j++) {
            s.p[j] = s.p[j] + s.p[j + w];
        }
    }
    return s.p[0];
}

/* Strided sum of products; short rows are padded with +0, which is fed like any other value. */
static float dot(const float *a, const float *b, size_t n)
{
    partials s = {{0}};

    for (size_t i = 0; i < moe_round_up(n, 16); i++) {
        s.p[i % 16] = fmaf(i < n ? a[i] : 0.0f, i < n ? b[i] : 0.0f, s.p[i % 16]);
    }
    return fold(s);
}

static float row_sum(const float *x, size_t n)
{
    partials s = {{0}};

    for (size_t i = 0; i < moe_round_up(n, 16); i++) {
        s.p[i % 16] = s.p[i % 16] + (i < n ? x[i] : 0.0f);
    }
    return fold(s);
}

static float row_max(const float *x, size_t n)
{
    float m = x[0];

    for (size_t i = 0; i < n; i++) {
        if (x[i] != x[i]) {
            return x[i];
        }
        m = x[i] > m ? x[i] : m;
    }
    return m + 0.0f; /* a zero maximum is +0 */
}

static void row_exp(float *y, const float *x, float shift, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        y[i] = compute_exp(x[i] - shift);
    }
}

static void row_divide(float *y, float by, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        y[i] = y[i] / by;
    }
}

static float load(const void *x, compute_dtype dtype, size_t i)
{
    uint16_t h;
    float f;

    if (dtype == COMPUTE_F32) {
        memcpy(&f, (const unsigned char *)x + 4 * i, sizeof(f));
        return f;
    }
    memcpy(&h, (const unsigned char *)x + 2 * i, sizeof(h));
    return dtype == COMPUTE_BF16 ? compute_f32_from_bf16(h) : compute_f32_from_f16(h);
}

static void widen(float *out, const void *in, compute_dtype dtype, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        out[i] = load(in, dtype, i);
    }
}

static void round_bf16(uint16_t *out, const float *in, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        out[i] = compute_bf16_from_f32(in[i]);
    }
}

/* One element of w: k of output column j. */
static float weight(const uint32_t *w, compute_dtype dtype, size_t k, size_t j)
{
    uint32_t u;

    if (dtype == COMPUTE_F32) {
        return load(w + k * CPU_PANEL + j, COMPUTE_F32, 0);
    }
    u = w[k / 2 * CPU_PANEL + j] >> (k % 2 * 16) & 0xffffu;
    return dtype == COMPUTE_BF16 ? compute_f32_from_bf16((uint16_t)u) : compute_f32_from_f16((uint16_t)u);
}

static void panel_pair(float *acc, size_t stride, const void *const *x, size_t n_rows, const uint32_t *w,
                       size_t k_begin, size_t k_end, const uint32_t *next)
{
    (void)next;
    for (size_t r = 0; r < n_rows; r++) {
        for (size_t j = 0; j < CPU_PANEL; j++) {
            float a = k_begin == 0 ? 0.0f : acc[r * stride + j];

            for (size_t k = k_begin; k < k_end; k += 2) {
                a = fmaf(load(x[r], COMPUTE_BF16, k + 1), weight(w, COMPUTE_BF16, k + 1 - k_begin, j), a);
                a = fmaf(load(x[r], COMPUTE_BF16, k), weight(w, COMPUTE_BF16, k - k_begin, j), a);
            }
            acc[r * stride + j] = a;
        }
    }
}

static void panel_chain(float *acc, size_t stride, const void *const *x, size_t n_rows, const uint32_t *w,
                        size_t k_begin, size_t k_end, compute_dtype dtype)
{
    for (size_t r = 0; r < n_rows; r++) {
        for (size_t j = 0; j < CPU_PANEL; j++) {
            float a = k_begin == 0 ? 0.0f : acc[r * stride + j];

            for (size_t k = k_begin; k < k_end; k++) {
                a = fmaf(load(x[r], COMPUTE_F32, k), weight(w, dtype, k - k_begin, j), a);
            }
            acc[r * stride + j] = a;
        }
    }
}

static void panel_f32(float *acc, size_t stride, const void *const *x, size_t n_rows, const uint32_t *w, size_t k_begin,
                      size_t k_end, const uint32_t *next)
{
    (void)next;
    panel_chain(acc, stride, x, n_rows, w, k_begin, k_end, COMPUTE_F32);
}

static void panel_bf16(float *acc, size_t stride, const void *const *x, size_t n_rows, const uint32_t *w,
                       size_t k_begin, size_t k_end, const uint32_t *next)
{
    (void)next;
    panel_chain(acc, stride, x, n_rows, w, k_begin, k_end, COMPUTE_BF16);
}

static void panel_f16(float *acc, size_t stride, const void *const *x, size_t n_rows, const uint32_t *w, size_t k_begin,
                      size_t k_end, const uint32_t *next)
{
    (void)next;
    panel_chain(acc, stride, x, n_rows, w, k_begin, k_end, COMPUTE_F16);
}

static void pack(uint32_t *panel, const unsigned char *rows, size_t row_bytes, size_t n_rows, size_t n_units)
{
    memset(panel, 0, n_units * CPU_PANEL * sizeof(*panel));
    for (size_t r = 0; r < n_rows; r++) {
        for (size_t u = 0; u < n_units; u++) {
            memcpy(&panel[u * CPU_PANEL + r], rows + r * row_bytes + u * 4, 4);
        }
    }
}

static void rms_norm(float *out, const float *x, const float *gain, float eps, size_t width)
{
    float mean = dot(x, x, width) / (float)width;
    float r = 1.0f / sqrtf(mean + eps);

    for (size_t i = 0; i < width; i++) {
        out[i] = x[i] * r * gain[i];
    }
}

static void rope(float *x, const float *cosine, const float *sine, size_t half)
{
    for (size_t j = 0; j < half; j++) {
        float u = x[j], v = x[j + half];

        x[j] = u * cosine[j] - v * sine[j];
        x[j + half] = v * cosine[j] + u * sine[j];
    }
}

static void clamp(float *x, float bound, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        x[i] = x[i] < -bound ? -bound : x[i] > bound ? bound : x[i];
    }
}

static void add(float *x, const float *y, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        x[i] = x[i] + y[i];
    }
}

static void swiglu(float *gate, const float *up, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        gate[i] = compute_silu(gate[i]) * up[i];
    }
}

static void combine(float *x, const void *results, compute_dtype dtype, const compute_pick *picks, size_t n_picks,
                    size_t width)
{
    for (size_t i = 0; i < width; i++) {
        float y = 0.0f;

        for (size_t p = 0; p < n_picks; p++) {
            y = y + picks[p].weight * load(results, dtype, picks[p].result_row * width + i);
        }
        x[i] = x[i] + y;
    }
}

static const unsigned char *cached(const cpu_attention *a, const unsigned char *base, size_t position)
{
    return base + a->rows[0].pages[position / a->page_tokens] * a->page_bytes +
           position % a->page_tokens * a->head_dim * compute_dtype_bytes(a->dtype);
}

static float score(const cpu_attention *a, size_t row, size_t position)
{
    const unsigned char *q = (const unsigned char *)a->q + row * a->q_stride * compute_dtype_bytes(a->dtype);
    const unsigned char *key = cached(a, a->k, position);
    partials s = {{0}};

    for (size_t i = 0; i < moe_round_up(a->head_dim, 16); i++) {
        bool in = i < a->head_dim;

        s.p[i % 16] = fmaf(in ? load(q, a->dtype, i) : 0.0f, in ? load(key, a->dtype, i) : 0.0f, s.p[i % 16]);
    }
    return fold(s) * a->scale;
}

static void attention_row(const cpu_attention *a, size_t row)
{
    size_t n = (size_t)a->rows[row].position + 1;
    float *s = a->scores, *out = a->out + row * a->out_stride, l = 0.0f;

    for (size_t t = 0; t < n; t++) {
        s[t] = score(a, row, t);
    }
    row_exp(s, s, row_max(s, n), n);
    memset(out, 0, a->head_dim * sizeof(*out));
    for (size_t t = 0; t < n; t++) {
        const unsigned char *value = cached(a, a->v, t);

        l = l + s[t];
        for (size_t i = 0; i < a->head_dim; i++) {
            out[i] = fmaf(s[t], load(value, a->dtype, i), out[i]);
        }
    }
    row_divide(out, l, a->head_dim);
}

static void attention(const cpu_attention *a)
{
    for (size_t row = 0; row < a->n_rows; row++) {
        attention_row(a, row);
    }
}

static const unsigned char *stick_key(const cpu_stick *s, const unsigned char *base, size_t position)
{
    return base + s->pages[position / s->page_tokens] * s->page_bytes +
           position % s->page_tokens * s->head_dim * compute_dtype_bytes(s->dtype);
}

static float stick_score(const cpu_stick *s, const void *q, size_t position)
{
    const unsigned char *key = stick_key(s, s->k, position);
    partials sum = {{0}};

    for (size_t i = 0; i < moe_round_up(s->head_dim, 16); i++) {
        bool in = i < s->head_dim;

        sum.p[i % 16] = fmaf(in ? load(q, s->dtype, i) : 0.0f, in ? load(key, s->dtype, i) : 0.0f, sum.p[i % 16]);
    }
    return fold(sum) * s->scale;
}

static size_t stick_row(const cpu_stick *s, size_t row)
{
    float *out = s->out[row], c = 0.0f;
    size_t t = s->seen[row];

    memset(out, 0, s->head_dim * sizeof(*out));
    while (t > 0 && (s->full_scan || !(c < -88.0f))) {
        float score = stick_score(s, s->q[row], --t), w = compute_sigmoid(score) * compute_exp(c);
        const unsigned char *value = stick_key(s, s->v, t);

        for (size_t i = 0; i < s->head_dim; i++) {
            out[i] = fmaf(w, load(value, s->dtype, i), out[i]);
        }
        c = c - ((score > 0.0f ? score : 0.0f) + compute_log1p(compute_exp(-fabsf(score))));
    }
    for (size_t i = 0; i < s->head_dim; i++) {
        out[i] = out[i] + 0.0f; /* -0 becomes +0, as further keys of no weight would make it */
    }
    return s->seen[row] - t;
}

static void stick(cpu_stick *s)
{
    for (size_t row = 0; row < s->n_rows; row++) {
        s->seen[row] = stick_row(s, row);
    }
}

/* ----------------------------------------------------------------------------------------------- norms, activations */
static void layer_norm(float *out, const float *x, const float *gain, const float *bias, float eps, size_t width)
{
    float mean = row_sum(x, width) / (float)width, r;

    for (size_t i = 0; i < width; i++) {
        out[i] = x[i] - mean;
    }
    r = 1.0f / sqrtf(dot(out, out, width) / (float)width + eps);
    for (size_t i = 0; i < width; i++) {
        out[i] = out[i] * r * gain[i] + bias[i];
    }
}

static void unit_norm(float *x, size_t width)
{
    float length = sqrtf(dot(x, x, width));

    row_divide(x, length < 1e-12f ? 1e-12f : length, width);
}

static void gelu_erf(float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        x[i] = compute_gelu_erf(x[i]);
    }
}

static void gelu_tanh(float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        x[i] = compute_gelu_tanh(x[i]);
    }
}

static void hyperbolic_tangent(float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        x[i] = compute_tanh(x[i]);
    }
}

/* ------------------------------------------------------------------------------------------------ constant experts */
static void local_logits(float (*logits)[2], const void *const *x, compute_dtype dtype, size_t n_rows,
                         const float *gate, size_t width)
{
    for (size_t r = 0; r < n_rows; r++) {
        for (size_t j = 0; j < 2; j++) {
            float acc = 0.0f;

            for (size_t k = 0; k < width; k++) {
                acc = fmaf(load(x[r], dtype, k), gate[j * width + k], acc);
            }
            logits[r][j] = acc;
        }
    }
}

static void local_mix(float *out, const void *x, compute_dtype dtype, const float *a, const float *constant,
                      size_t width)
{
    for (size_t i = 0; i < width; i++) {
        out[i] = a[0] * load(x, dtype, i) + a[1] * constant[i];
    }
}

static const cpu_panel_fn panels[CPU_N_KINDS] = {
    [CPU_PAIR] = panel_pair, [CPU_F32] = panel_f32, [CPU_BF16] = panel_bf16, [CPU_F16] = panel_f16};

const cpu_kernels cpu_kernels_portable = {
    .name = "cpu-portable",
    .rows_at_once = 1,
    .chunk_units = CPU_CHUNK_UNITS,
    .panel = panels,
    .pack = pack,
    .widen = widen,
    .round_bf16 = round_bf16,
    .rms_norm = rms_norm,
    .rope = rope,
    .clamp = clamp,
    .add = add,
    .swiglu = swiglu,
    .combine = combine,
    .attention = attention,
    .stick = stick,
    .layer_norm = layer_norm,
    .unit_norm = unit_norm,
    .gelu_erf = gelu_erf,
    .gelu_tanh = gelu_tanh,
    .tanh = hyperbolic_tangent,
    .local_logits = local_logits,
    .local_mix = local_mix,
    .row_sum = row_sum,
    .row_max = row_max,
    .row_exp = row_exp,
    .row_divide = row_divide,
};
