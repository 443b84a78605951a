/* The ops of the later families: norms, activations, local experts, input-major weights, GELU experts,
 * routed products. */
#include "tests/unit/test_compute_devices.h"

typedef struct rows {
    size_t width, n;
    bool wild;
} rows;

static const rows row_cases[] = {{96, 1, true},    {24, 5, true},    {33, 7, false}, {7, 3, false},
                                 {1024, 9, false}, {2050, 40, true}, {16, 2, false}, {1, 2, true}};

static void everywhere(const char *name, void *(*run)(compute_device *, const void *), compute_dtype dtype)
{
    for (size_t i = 0; i < MOE_COUNT(row_cases); i++) {
        scenario s = {name, run, &row_cases[i], row_cases[i].width * row_cases[i].n, dtype};

        assert_same_in_both_classes(&s);
    }
}

static size_t class_bytes(const compute_device *d)
{
    return compute_dtype_bytes(compute_class_dtype(d->numeric_class));
}

/* ------------------------------------------------------------------------------------------------ norms */
static void *run_layer_norm(compute_device *d, const void *ctx)
{
    const rows *c = ctx;
    compute_mem *x = f32_values(d, 1, c->width * c->n, c->wild), *gain = f32_values(d, 2, c->width, false);
    compute_mem *bias = f32_values(d, 3, c->width, false), *out = d->ops->alloc(d, c->width * c->n * 4);

    d->ops->layer_norm(d, out, NULL, x, gain, bias, 1e-5f, c->width, c->n);
    d->ops->free(d, x);
    d->ops->free(d, gain);
    d->ops->free(d, bias);
    return take(d, out, c->width * c->n * 4);
}

static void *run_layer_norm_rounded(compute_device *d, const void *ctx)
{
    const rows *c = ctx;
    compute_mem *x = f32_values(d, 1, c->width * c->n, c->wild), *gain = f32_values(d, 2, c->width, false);
    compute_mem *bias = f32_values(d, 3, c->width, false), *rounded = d->ops->alloc(d, c->width * c->n * 4);

    d->ops->layer_norm(d, x, rounded, x, gain, bias, 1e-5f, c->width, c->n); /* in place */
    d->ops->free(d, x);
    d->ops->free(d, gain);
    d->ops->free(d, bias);
    return take(d, rounded, c->width * c->n * class_bytes(d));
}

static void layer_norm_has_equal_bits(void **state)
{
    (void)state;
    everywhere("layer_norm", run_layer_norm, COMPUTE_F32);
    everywhere("layer_norm in place, rounded", run_layer_norm_rounded, COMPUTE_DTYPE_OTHER);
}

static void layer_norm_takes_the_mean_away_and_divides_by_the_biased_deviation(void **state)
{
    const rows c = {33, 4, false};
    test_device t = test_device_open(COMPUTE_CLASS_F32_1, COMPUTE_ISA_AUTO, 1);
    float *x = any_values(1, c.width * c.n, false), *gain = any_values(2, c.width, false);
    float *bias = any_values(3, c.width, false), *out = run_layer_norm(t.d, &c);

    (void)state;
    for (size_t r = 0; r < c.n; r++) {
        double mean = 0.0, variance = 0.0;

        for (size_t i = 0; i < c.width; i++) {
            mean += (double)x[r * c.width + i] / (double)c.width;
        }
        for (size_t i = 0; i < c.width; i++) {
            variance += pow((double)x[r * c.width + i] - mean, 2.0) / (double)c.width;
        }
        for (size_t i = 0; i < c.width; i++) {
            double y = ((double)x[r * c.width + i] - mean) / sqrt(variance + 1e-5) * (double)gain[i] + (double)bias[i];

            assert_float_equal(out[r * c.width + i], y, 1e-6);
        }
    }
    free(x);
    free(gain);
    free(bias);
    free(out);
    test_device_close(&t);
}

static void *run_unit_norm(compute_device *d, const void *ctx)
{
    const rows *c = ctx;
    compute_mem *x = f32_values(d, 1, c->width * c->n, c->wild);

    d->ops->unit_norm(d, x, c->width, c->n);
    return take(d, x, c->width * c->n * 4);
}

static void unit_norm_has_equal_bits(void **state)
{
    (void)state;
    everywhere("unit_norm", run_unit_norm, COMPUTE_F32);
}

static void unit_norm_gives_length_one_and_leaves_a_short_row_short(void **state)
{
    test_device t = test_device_open(COMPUTE_CLASS_F32_1, COMPUTE_ISA_AUTO, 1);
    const float x[] = {3.0f, 4.0f, 3e-13f, -4e-13f, 0.0f, 0.0f};
    compute_mem *m = on_device(t.d, x, sizeof x);
    float *y;

    (void)state;
    t.d->ops->unit_norm(t.d, m, 2, 3);
    y = take(t.d, m, sizeof x);
    assert_float_equal(y[0], 0.6f, 1e-7f);
    assert_float_equal(y[1], 0.8f, 1e-7f);
    assert_float_equal(y[2], 0.3f, 1e-7f);
    assert_float_equal(y[3], -0.4f, 1e-7f);
    assert_true(y[4] == 0.0f && y[5] == 0.0f);
    free(y);
    test_device_close(&t);
}

/* ------------------------------------------------------------------------------------------------ activations */
/* Bit patterns of all sizes, infinities and NaNs among them. */
enum { N_PATTERNS = 40009 };

static compute_activation activation;

static void *run_activation(compute_device *d, const void *ctx)
{
    float *x = malloc(N_PATTERNS * sizeof *x);
    compute_mem *m;

    (void)ctx;
    assert_non_null(x);
    for (uint32_t i = 0; i < N_PATTERNS; i++) {
        x[i] = bits_to_f32(i * 107349u);
    }
    x[0] = NAN;
    x[1] = INFINITY;
    x[2] = -INFINITY;
    m = on_device(d, x, N_PATTERNS * sizeof *x);
    free(x);
    d->ops->activate(d, m, activation, N_PATTERNS);
    return take(d, m, N_PATTERNS * sizeof *x);
}

static void activations_have_equal_bits(void **state)
{
    scenario s = {"activate", run_activation, NULL, N_PATTERNS, COMPUTE_F32};

    (void)state;
    for (activation = COMPUTE_ACT_GELU_ERF; activation <= COMPUTE_ACT_TANH; activation++) {
        assert_same_everywhere(&s, COMPUTE_CLASS_F32_1);
    }
}

static void activations_have_the_bits_of_the_host_functions(void **state)
{
    static float (*const host[])(float) = {
        [COMPUTE_ACT_GELU_ERF] = compute_gelu_erf, [COMPUTE_ACT_TANH] = compute_tanh};

    (void)state;
    for (activation = COMPUTE_ACT_GELU_ERF; activation <= COMPUTE_ACT_TANH; activation++) {
        test_device t = test_device_open(COMPUTE_CLASS_F32_1, COMPUTE_ISA_AUTO, 1);
        float *got = run_activation(t.d, NULL);

        for (uint32_t i = 3; i < N_PATTERNS; i++) {
            float y = host[activation](bits_to_f32(i * 107349u));

            assert_same_bits(&got[i], &y, 1, COMPUTE_F32, "activate");
        }
        free(got);
        test_device_close(&t);
    }
}

/* ------------------------------------------------------------------------------------------------ local experts */
static void *run_constant(compute_device *d, const void *ctx)
{
    const rows *c = ctx;
    compute_mem *x = class_values(d, 1, c->width * c->n, c->wild), *gate = f32_values(d, 2, 2 * c->width, c->wild);
    compute_mem *constant = f32_values(d, 3, c->width, c->wild), *out = d->ops->alloc(d, c->width * c->n * 4);
    uint32_t from[70], to[70];

    for (size_t i = 0; i < c->n; i++) {
        from[i] = (uint32_t)(i * 3 % c->n);
        to[i] = (uint32_t)(c->n - 1 - i);
    }
    d->ops->local_expert(d, out, x, gate, constant, from, to, c->n, c->width);
    d->ops->free(d, x);
    d->ops->free(d, gate);
    d->ops->free(d, constant);
    return take(d, out, c->width * c->n * class_bytes(d));
}

static void constant_experts_have_equal_bits(void **state)
{
    (void)state;
    everywhere("constant expert", run_constant, COMPUTE_DTYPE_OTHER);
}

static float *local_result(const float *gate, const float *constant, uint32_t row)
{
    static const float x[] = {9.0f, 9.0f, 9.0f, 1.0f, 2.0f, -1.0f};
    const uint32_t out_row = 1;
    test_device t = test_device_open(COMPUTE_CLASS_F32_1, COMPUTE_ISA_AUTO, 1);
    compute_mem *in = on_device(t.d, x, sizeof x), *out = t.d->ops->alloc(t.d, sizeof x);
    compute_mem *g = gate == NULL ? NULL : on_device(t.d, gate, 6 * sizeof *gate);
    compute_mem *v = constant == NULL ? NULL : on_device(t.d, constant, 3 * sizeof *constant);
    float *y;

    t.d->ops->local_expert(t.d, out, in, g, v, &row, &out_row, 1, 3);
    y = take(t.d, out, sizeof x);
    t.d->ops->free(t.d, in);
    t.d->ops->free(t.d, g);
    t.d->ops->free(t.d, v);
    test_device_close(&t);
    return y;
}

static void a_constant_expert_mixes_the_row_and_its_vector(void **state)
{
    static const float gate[] = {0.2f, -0.1f, 0.4f, -0.3f, 0.6f, 0.1f}, v[] = {1.0f, -2.0f, 0.5f};
    static const float golden[] = {1.0f, -1.07409918f, 0.152787194f};
    float *y = local_result(gate, v, 1);

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        assert_float_equal(y[3 + i], golden[i], 2e-7f);
        assert_true(y[i] == 0.0f); /* a row that was not asked for */
    }
    free(y);
}

static void a_copy_expert_gives_the_row_back(void **state)
{
    float *y = local_result(NULL, NULL, 1);

    (void)state;
    assert_true(y[3] == 1.0f && y[4] == 2.0f && y[5] == -1.0f && y[0] == 0.0f);
    free(y);
}

/* docs/numeric.md, operation by operation. */
static void a_constant_expert_is_the_written_definition(void **state)
{
    const rows c = {33, 5, false};
    test_device t = test_device_open(COMPUTE_CLASS_BF16_1, COMPUTE_ISA_AUTO, 1);
    float *x = any_values(1, c.width * c.n, false), *gate = any_values(2, 2 * c.width, false);
    float *v = any_values(3, c.width, false);
    uint16_t *out = run_constant(t.d, &c);

    (void)state;
    for (size_t r = 0; r < c.n; r++) {
        const float *row = x + r * 3 % c.n * c.width;
        float z[2] = {0}, a[2];

        for (size_t k = 0; k < c.width; k++) {
            float wide = bits_to_f32(f32_to_bits(row[k]) & 0xffff0000u); /* as in_dtype makes them */

            z[0] = fmaf(wide, gate[k], z[0]);
            z[1] = fmaf(wide, gate[c.width + k], z[1]);
        }
        compute_row_softmax(a, z, 2);
        for (size_t i = 0; i < c.width; i++) {
            float p = a[0] * bits_to_f32(f32_to_bits(row[i]) & 0xffff0000u), s = a[1] * v[i];

            assert_int_equal(out[(c.n - 1 - r) * c.width + i], compute_bf16_from_f32(p + s));
        }
    }
    free(x);
    free(gate);
    free(v);
    free(out);
    test_device_close(&t);
}

/* ---------------------------------------------------------------------------------------------- input-major weights */
typedef struct layouts {
    size_t n_out, n_in, n_rows;
    compute_dtype dtype;
    bool input_major, router;
} layouts;

/* The same values as [n_in, n_out]. */
static void *transposed(const unsigned char *data, size_t n_out, size_t n_in, size_t bytes)
{
    unsigned char *t = malloc(n_out * n_in * bytes);

    assert_non_null(t);
    for (size_t i = 0; i < n_out * n_in; i++) {
        memcpy(t + (i % n_in * n_out + i / n_in) * bytes, data + i * bytes, bytes);
    }
    return t;
}

static void *run_layout(compute_device *d, const void *ctx)
{
    const layouts *l = ctx;
    float *values = any_values(1, l->n_out * l->n_in, true);
    void *data = in_dtype(values, l->n_out * l->n_in, l->dtype);
    void *other = transposed(data, l->n_out, l->n_in, compute_dtype_bytes(l->dtype));
    const compute_weight w = {l->input_major ? other : data, l->dtype, l->n_out, l->n_in, l->input_major};
    compute_mem *x =
        l->router ? f32_values(d, 2, l->n_rows * l->n_in, true) : class_values(d, 2, l->n_rows * l->n_in, true);
    compute_mem *out = d->ops->alloc(d, l->n_rows * l->n_out * 4), *bias = f32_values(d, 3, l->n_out, false);
    compute_matrix *m;

    if (l->router) {
        assert_int_equal(d->ops->matrix_open_f32(d, &w, &m), MOE_OK);
        d->ops->matmul_f32(d, out, x, m, bias, l->n_rows);
    } else {
        assert_int_equal(d->ops->matrix_open(d, &w, l->input_major ? COMPUTE_MAPPED : COMPUTE_PACKED, &m), MOE_OK);
        memset(other, 0, l->n_out * l->n_in * compute_dtype_bytes(l->dtype)); /* the matrix is a copy */
        d->ops->matmul(d, out, x, m, bias, l->n_rows);
    }
    d->ops->matrix_close(d, m);
    d->ops->free(d, x);
    d->ops->free(d, bias);
    free(values);
    free(data);
    free(other);
    return take(d, out, l->n_rows * l->n_out * 4);
}

static void assert_layouts_agree(compute_class c, compute_isa isa, layouts l)
{
    test_device t = test_device_open(c, isa, 2);
    void *output_major, *input_major;

    l.input_major = false;
    output_major = run_layout(t.d, &l);
    l.input_major = true;
    input_major = run_layout(t.d, &l);
    assert_same_bits(input_major, output_major, l.n_out * l.n_rows, COMPUTE_F32, compute_dtype_name(l.dtype));
    free(output_major);
    free(input_major);
    test_device_close(&t);
}

static void input_major_weights_have_the_bits_of_output_major_ones(void **state)
{
    static const size_t shapes[][2] = {{1, 1}, {64, 32}, {65, 33}, {200, 257}, {31, 96}};
    static const compute_dtype stored[] = {COMPUTE_F32, COMPUTE_BF16, COMPUTE_F16};

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(shapes); i++) {
        for (size_t j = 0; j < MOE_COUNT(stored); j++) {
            for (int c = 0; c < COMPUTE_N_CLASSES; c++) {
                layouts l = {shapes[i][0], shapes[i][1], 5, stored[j], false, false};

                assert_layouts_agree((compute_class)c, COMPUTE_ISA_PORTABLE, l);
                assert_layouts_agree((compute_class)c, COMPUTE_ISA_AUTO, l);
                l.router = true;
                assert_layouts_agree((compute_class)c, COMPUTE_ISA_AUTO, l);
            }
        }
    }
}

static void a_router_product_adds_its_bias_after_the_chain(void **state)
{
    test_device t = test_device_open(COMPUTE_CLASS_BF16_1, COMPUTE_ISA_AUTO, 1);
    const layouts l = {3, 5, 1, COMPUTE_F32, false, true};
    float *w = any_values(1, 15, true), *x = any_values(2, 5, true), *bias = any_values(3, 3, false);
    float *out = run_layout(t.d, &l);

    (void)state;
    for (size_t j = 0; j < 3; j++) {
        float acc = 0.0f;

        for (size_t k = 0; k < 5; k++) {
            acc = fmaf(x[k], w[j * 5 + k], acc);
        }
        assert_int_equal(f32_to_bits(out[j]), f32_to_bits(acc + bias[j]));
    }
    free(out);
    free(w);
    free(x);
    free(bias);
    test_device_close(&t);
}

/* ------------------------------------------------------------------------------------------------ GELU experts */
enum { N_EXPERTS = 3, X_ROWS = 75 };

typedef struct gelu {
    size_t d_model, d_ff;
    compute_layout layout;
    compute_dtype dtype;
    bool input_major;
    size_t n_rows[N_EXPERTS];
} gelu;

static const gelu gelu_cases[] = {
    {96, 64, COMPUTE_PACKED, COMPUTE_BF16, true, {1, 1, 1}},
    {97, 33, COMPUTE_MAPPED, COMPUTE_BF16, true, {3, 0, 8}},
    {64, 200, COMPUTE_MAPPED, COMPUTE_BF16, false, {70, 2, 9}},
    {130, 96, COMPUTE_PACKED, COMPUTE_F32, true, {13, 6, 1}},
    {101, 301, COMPUTE_PACKED, COMPUTE_F16, true, {5, 49, 17}},
};

/* data: up and down, to be freed after the expert. */
static compute_expert *gelu_open(compute_device *d, const gelu *g, uint64_t seed, void *data[2])
{
    size_t n = g->d_model * g->d_ff;
    compute_weight w[2];
    compute_expert *e;

    for (size_t i = 0; i < 2; i++) {
        float *values = any_values(10 * seed + i, n, false);

        data[i] = in_dtype(values, n, g->dtype);
        w[i] = (compute_weight){data[i], g->dtype, i == 0 ? g->d_ff : g->d_model, i == 0 ? g->d_model : g->d_ff,
                                g->input_major};
        free(values);
    }
    assert_int_equal(d->ops->expert_open(d, COMPUTE_FFN_GELU_TANH, NULL, &w[0], &w[1], g->layout, &e), MOE_OK);
    return e;
}

static size_t gelu_rows(const gelu *g)
{
    return g->n_rows[0] + g->n_rows[1] + g->n_rows[2];
}

static void *run_gelu(compute_device *d, const void *ctx)
{
    const gelu *g = ctx;
    size_t n = 0;
    compute_mem *x = class_values(d, 5, X_ROWS * g->d_model, false);
    compute_mem *out = d->ops->alloc(d, gelu_rows(g) * g->d_model * class_bytes(d));
    compute_group groups[N_EXPERTS];
    compute_expert *experts[N_EXPERTS];
    uint32_t index[N_EXPERTS][X_ROWS];
    void *data[N_EXPERTS][2];

    for (size_t e = 0; e < N_EXPERTS; e++) {
        experts[e] = gelu_open(d, g, e + 1, data[e]);
        for (size_t i = 0; i < g->n_rows[e]; i++) {
            index[e][i] = (uint32_t)((i * 7 + e) % X_ROWS);
        }
        groups[e] = (compute_group){experts[e], index[e], g->n_rows[e], n};
        n += g->n_rows[e];
    }
    d->ops->expert_ffn(d, out, x, groups, N_EXPERTS);
    for (size_t e = 0; e < N_EXPERTS; e++) {
        d->ops->expert_close(d, experts[e]);
        free(data[e][0]);
        free(data[e][1]);
    }
    d->ops->free(d, x);
    return take(d, out, n * g->d_model * class_bytes(d));
}

static void gelu_experts_have_equal_bits(void **state)
{
    (void)state;
    for (size_t i = 0; i < MOE_COUNT(gelu_cases); i++) {
        scenario s = {"gelu experts", run_gelu, &gelu_cases[i], gelu_rows(&gelu_cases[i]) * gelu_cases[i].d_model,
                      COMPUTE_DTYPE_OTHER};

        assert_same_in_both_classes(&s);
    }
}

static void a_gelu_expert_is_down_of_gelu_tanh_up(void **state)
{
    const gelu g = {7, 24, COMPUTE_PACKED, COMPUTE_F32, true, {1, 0, 0}};
    test_device t = test_device_open(COMPUTE_CLASS_F32_1, COMPUTE_ISA_AUTO, 1);
    float *up = any_values(10, 7 * 24, false), *down = any_values(11, 7 * 24, false), *x = any_values(5, 7, false);
    float *out = run_gelu(t.d, &g), hidden[24];

    (void)state;
    for (size_t j = 0; j < 24; j++) {
        float acc = 0.0f;

        for (size_t k = 0; k < 7; k++) {
            acc = fmaf(x[k], up[k * 24 + j], acc);
        }
        hidden[j] = compute_gelu_tanh(acc);
    }
    for (size_t j = 0; j < 7; j++) {
        float acc = 0.0f;

        for (size_t k = 0; k < 24; k++) {
            acc = fmaf(hidden[k], down[k * 7 + j], acc);
        }
        assert_int_equal(f32_to_bits(out[j]), f32_to_bits(acc));
    }
    free(up);
    free(down);
    free(x);
    free(out);
    test_device_close(&t);
}

static void gelu_experts_of_another_form_are_refused(void **state)
{
    test_device t = test_device_open(COMPUTE_CLASS_F32_1, COMPUTE_ISA_AUTO, 1);
    float data[64] = {0};
    const compute_weight up = {data, COMPUTE_F32, 4, 8, true}, down = {data, COMPUTE_F32, 8, 4, true};
    const compute_weight wide = {data, COMPUTE_F32, 5, 8, false};
    const compute_ops *o = t.d->ops;
    compute_expert *e;

    (void)state;
    assert_int_equal(o->expert_open(t.d, COMPUTE_FFN_GELU_TANH, &up, &up, &down, COMPUTE_PACKED, &e),
                     MOE_ERR_INVALID_ARG);
    assert_int_equal(o->expert_open(t.d, COMPUTE_FFN_SWIGLU, NULL, &up, &down, COMPUTE_PACKED, &e),
                     MOE_ERR_INVALID_ARG);
    assert_int_equal(o->expert_open(t.d, COMPUTE_FFN_GELU_TANH, NULL, &wide, &down, COMPUTE_PACKED, &e),
                     MOE_ERR_INVALID_ARG);
    assert_int_equal(o->expert_open(t.d, COMPUTE_FFN_GELU_TANH, NULL, &up, &up, COMPUTE_PACKED, &e),
                     MOE_ERR_INVALID_ARG);
    test_device_close(&t);
}

/* ------------------------------------------------------------------------------------------------ routed products */
enum { N_MATRICES = 4, MAX_ROUTED = 160 };

typedef struct routed {
    size_t n_out, n_in;
    compute_layout layout;
    size_t n_rows[N_MATRICES];
    bool one_by_one; /* through matmul */
} routed;

static const routed routed_cases[] = {
    {96, 64, COMPUTE_PACKED, {1, 0, 1, 0}, false},   {33, 97, COMPUTE_PACKED, {3, 1, 0, 8}, false},
    {64, 64, COMPUTE_MAPPED, {40, 7, 2, 13}, false}, {130, 35, COMPUTE_MAPPED, {5, 100, 0, 55}, false},
    {7, 24, COMPUTE_PACKED, {0, 0, 0, 160}, false},
};

static size_t routed_rows(const routed *r)
{
    return r->n_rows[0] + r->n_rows[1] + r->n_rows[2] + r->n_rows[3];
}

static void *run_routed(compute_device *d, const void *ctx)
{
    const routed *r = ctx;
    size_t n = routed_rows(r), at = 0;
    compute_mem *x = class_values(d, 1, X_ROWS * r->n_in, true), *out = d->ops->alloc(d, n * r->n_out * 4);
    compute_routed groups[N_MATRICES];
    compute_matrix *m[N_MATRICES];
    void *data[N_MATRICES];
    uint32_t from[MAX_ROUTED], to[MAX_ROUTED];

    for (size_t i = 0; i < n; i++) {
        from[i] = (uint32_t)(i * 11 % X_ROWS);
        to[i] = (uint32_t)(n - 1 - i);
    }
    for (size_t e = 0; e < N_MATRICES; e++) {
        float *values = any_values(e + 2, r->n_out * r->n_in, true);
        compute_weight w = {NULL, COMPUTE_BF16, r->n_out, r->n_in, e == 1};

        w.data = data[e] = in_dtype(values, r->n_out * r->n_in, COMPUTE_BF16);
        assert_int_equal(d->ops->matrix_open(d, &w, r->layout, &m[e]), MOE_OK);
        groups[e] = (compute_routed){m[e], from + at, to + at, r->n_rows[e]};
        at += r->n_rows[e];
        free(values);
    }
    for (size_t e = 0; e < N_MATRICES && r->one_by_one; e++) {
        for (size_t i = 0; i < groups[e].n_rows; i++) {
            d->ops->matmul(d, compute_at(out, groups[e].out_rows[i] * r->n_out * 4),
                           compute_at(x, groups[e].rows[i] * r->n_in * class_bytes(d)), m[e], NULL, 1);
        }
    }
    if (!r->one_by_one) {
        d->ops->matmul_routed(d, out, x, groups, N_MATRICES);
    }
    for (size_t e = 0; e < N_MATRICES; e++) {
        d->ops->matrix_close(d, m[e]);
        free(data[e]);
    }
    d->ops->free(d, x);
    return take(d, out, n * r->n_out * 4);
}

static void routed_products_have_equal_bits(void **state)
{
    (void)state;
    for (size_t i = 0; i < MOE_COUNT(routed_cases); i++) {
        scenario s = {"routed", run_routed, &routed_cases[i], routed_rows(&routed_cases[i]) * routed_cases[i].n_out,
                      COMPUTE_F32};

        assert_same_in_both_classes(&s);
    }
}

static void routed_products_have_the_bits_of_matmul(void **state)
{
    (void)state;
    for (size_t i = 0; i < MOE_COUNT(routed_cases); i++) {
        for (int c = 0; c < COMPUTE_N_CLASSES; c++) {
            test_device t = test_device_open((compute_class)c, COMPUTE_ISA_AUTO, 2);
            routed single = routed_cases[i];
            void *together = run_routed(t.d, &routed_cases[i]), *alone;

            single.one_by_one = true;
            alone = run_routed(t.d, &single);
            assert_same_bits(together, alone, routed_rows(&single) * single.n_out, COMPUTE_F32, "routed");
            free(together);
            free(alone);
            test_device_close(&t);
        }
    }
}

static void a_routed_product_leaves_other_rows_alone(void **state)
{
    test_device t = test_device_open(COMPUTE_CLASS_F32_1, COMPUTE_ISA_AUTO, 1);
    const float weight = 2.0f, x[] = {3.0f, 5.0f}, before[] = {-1.0f, -1.0f, -1.0f};
    const compute_weight w = {&weight, COMPUTE_F32, 1, 1, false};
    const uint32_t from[] = {1, 0}, to[] = {0, 2};
    compute_mem *in = on_device(t.d, x, sizeof x), *out = on_device(t.d, before, sizeof before);
    compute_matrix *m;
    compute_routed group = {NULL, from, to, 2};
    float *y;

    (void)state;
    assert_int_equal(t.d->ops->matrix_open(t.d, &w, COMPUTE_PACKED, &m), MOE_OK);
    group.w = m;
    t.d->ops->matmul_routed(t.d, out, in, &group, 1);
    y = take(t.d, out, sizeof before);
    assert_true(y[0] == 10.0f && y[1] == -1.0f && y[2] == 6.0f);
    free(y);
    t.d->ops->matrix_close(t.d, m);
    t.d->ops->free(t.d, in);
    test_device_close(&t);
}

/* ------------------------------------------------------------------------------------------------ combine, KV pages */
static void combine_takes_f32_results_in_the_bf16_class(void **state)
{
    (void)state;
    for (int isa = COMPUTE_ISA_PORTABLE; isa <= COMPUTE_ISA_AVX512; isa++) {
        const float x = 0.25f, results[] = {0.7f, 1e-3f};
        const compute_pick picks[] = {{0.1f, 1}, {0.33f, 0}};
        test_device t;
        compute_mem *m, *r;
        float y = 0.0f, *out;

        if (!compute_isa_available((compute_isa)isa)) {
            continue;
        }
        t = test_device_open(COMPUTE_CLASS_BF16_1, (compute_isa)isa, 1);
        m = on_device(t.d, &x, sizeof x);
        r = on_device(t.d, results, sizeof results);
        t.d->ops->combine(t.d, m, r, COMPUTE_F32, picks, NULL, 2, 1, 1);
        for (size_t i = 0; i < 2; i++) {
            float product = picks[i].weight * results[picks[i].result_row];

            y = y + product;
        }
        out = take(t.d, m, sizeof x);
        assert_int_equal(f32_to_bits(*out), f32_to_bits(x + y));
        free(out);
        t.d->ops->free(t.d, r);
        test_device_close(&t);
    }
}

/* Softmax attention over pages that hold K as V, against pages that hold it twice. */
static void *run_shared(compute_device *d, const void *ctx)
{
    enum { N = 40, D = 24 };
    compute_kv_shape shape = {1, 10, 4, 1, D, compute_class_dtype(d->numeric_class), *(const bool *)ctx};
    const uint32_t pages[] = {9, 8, 7, 6, 5, 4, 3, 2, 1, 0};
    compute_mem *k = f32_values(d, 1, N * D, false), *q = class_values(d, 3, N * D, false);
    compute_mem *kv = d->ops->alloc(d, 10 * compute_kv_page_bytes(&shape)), *out = d->ops->alloc(d, N * D * 4);
    compute_row where[N];
    compute_step *step;

    for (uint32_t i = 0; i < N; i++) {
        where[i] = (compute_row){pages, i};
    }
    step = step_of(d, shape.page_tokens, where, N);
    d->ops->kv_store(d, kv, &shape, 0, k, shape.shared ? NULL : k, step);
    d->ops->attention(d, out, q, kv, &shape, 0, 1, step);
    d->ops->step_close(d, step);
    d->ops->free(d, k);
    d->ops->free(d, q);
    d->ops->free(d, kv);
    return take(d, out, N * D * 4);
}

static void attention_reads_a_shared_page_as_keys_and_values(void **state)
{
    const bool shared = true, separate = false;

    (void)state;
    for (int c = 0; c < COMPUTE_N_CLASSES; c++) {
        test_device t = test_device_open((compute_class)c, COMPUTE_ISA_AUTO, 2);
        void *a = run_shared(t.d, &shared), *b = run_shared(t.d, &separate);

        assert_same_bits(a, b, 40 * 24, COMPUTE_F32, "shared");
        free(a);
        free(b);
        test_device_close(&t);
    }
}

/* ------------------------------------------------------------------------------------------------ guarded device */
static void the_guarded_device_passes_the_ops_on(void **state)
{
    static const struct {
        const char *name;
        void *(*run)(compute_device *d, const void *ctx);
        const void *ctx;
        size_t n;
        compute_dtype dtype;
    } runs[] = {{"layer_norm", run_layer_norm, &row_cases[1], 24 * 5, COMPUTE_F32},
                {"unit_norm", run_unit_norm, &row_cases[1], 24 * 5, COMPUTE_F32},
                {"activate", run_activation, NULL, N_PATTERNS, COMPUTE_F32},
                {"constant", run_constant, &row_cases[1], 24 * 5, COMPUTE_BF16},
                {"gelu", run_gelu, &gelu_cases[0], 3 * 96, COMPUTE_BF16},
                {"routed", run_routed, &routed_cases[0], 2 * 96, COMPUTE_F32}};
    compute_device_options o = {.numeric_class = COMPUTE_CLASS_BF16_1,
                                .max_rows = 128,
                                .max_ffn_rows = 512,
                                .max_d_ff = 320,
                                .max_context = 200};
    test_device t = test_device_open(COMPUTE_CLASS_BF16_1, COMPUTE_ISA_PORTABLE, 1);
    compute_device *guarded;
    moe_error err;

    (void)state;
    o.threads = t.threads;
    activation = COMPUTE_ACT_GELU_ERF;
    assert_ok(compute_open("guarded", &o, &guarded, &err), err);
    for (size_t i = 0; i < MOE_COUNT(runs); i++) {
        void *expected = runs[i].run(t.d, runs[i].ctx), *got = runs[i].run(guarded, runs[i].ctx);

        assert_same_bits(got, expected, runs[i].n, runs[i].dtype, runs[i].name);
        free(expected);
        free(got);
    }
    compute_close(guarded);
    test_device_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layer_norm_has_equal_bits),
        cmocka_unit_test(layer_norm_takes_the_mean_away_and_divides_by_the_biased_deviation),
        cmocka_unit_test(unit_norm_has_equal_bits),
        cmocka_unit_test(unit_norm_gives_length_one_and_leaves_a_short_row_short),
        cmocka_unit_test(activations_have_equal_bits),
        cmocka_unit_test(activations_have_the_bits_of_the_host_functions),
        cmocka_unit_test(constant_experts_have_equal_bits),
        cmocka_unit_test(a_constant_expert_mixes_the_row_and_its_vector),
        cmocka_unit_test(a_copy_expert_gives_the_row_back),
        cmocka_unit_test(a_constant_expert_is_the_written_definition),
        cmocka_unit_test(input_major_weights_have_the_bits_of_output_major_ones),
        cmocka_unit_test(a_router_product_adds_its_bias_after_the_chain),
        cmocka_unit_test(gelu_experts_have_equal_bits),
        cmocka_unit_test(a_gelu_expert_is_down_of_gelu_tanh_up),
        cmocka_unit_test(gelu_experts_of_another_form_are_refused),
        cmocka_unit_test(routed_products_have_equal_bits),
        cmocka_unit_test(routed_products_have_the_bits_of_matmul),
        cmocka_unit_test(a_routed_product_leaves_other_rows_alone),
        cmocka_unit_test(combine_takes_f32_results_in_the_bf16_class),
        cmocka_unit_test(attention_reads_a_shared_page_as_keys_and_values),
        cmocka_unit_test(the_guarded_device_passes_the_ops_on),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
