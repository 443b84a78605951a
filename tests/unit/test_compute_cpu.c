/* The ops on rows and values, the grouped expert FFN and the guarded device. */
#include "tests/unit/test_compute_devices.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct rows {
    size_t width, n;
    bool wild;
} rows;

static const rows row_cases[] = {{96, 1, true}, {24, 5, true}, {2048, 3, false}, {2050, 70, true}, {1, 2, true}};

static void everywhere(const char *name, void *(*run)(compute_device *, const void *), compute_dtype dtype)
{
    for (size_t i = 0; i < MOE_COUNT(row_cases); i++) {
        scenario s = {name, run, &row_cases[i], row_cases[i].width * row_cases[i].n, dtype};

        assert_same_in_both_classes(&s);
    }
}

/* ------------------------------------------------------------------------------------------------ rows */
static void *run_rms_norm(compute_device *d, const void *ctx)
{
    const rows *c = ctx;
    compute_mem *x = f32_values(d, 1, (c->width + 8) * c->n, c->wild), *gain = f32_values(d, 2, c->width, false);
    compute_mem *out = d->ops->alloc(d, c->width * c->n * 4), *rounded = d->ops->alloc(d, c->width * c->n * 4);

    d->ops->rms_norm(d, out, rounded, x, c->width + 8, gain, 1e-5f, c->width, c->n);
    d->ops->free(d, x);
    d->ops->free(d, gain);
    d->ops->free(d, rounded);
    return take(d, out, c->width * c->n * 4);
}

static void *run_rms_norm_rounded(compute_device *d, const void *ctx)
{
    const rows *c = ctx;
    compute_mem *x = f32_values(d, 1, c->width * c->n, c->wild), *gain = f32_values(d, 2, c->width, false);
    compute_mem *rounded = d->ops->alloc(d, c->width * c->n * 4);

    d->ops->rms_norm(d, x, rounded, x, c->width, gain, 1e-5f, c->width, c->n); /* in place */
    d->ops->free(d, x);
    d->ops->free(d, gain);
    return take(d, rounded, c->width * c->n * compute_dtype_bytes(compute_class_dtype(d->numeric_class)));
}

static void rms_norm_has_equal_bits(void **state)
{
    (void)state;
    everywhere("rms_norm", run_rms_norm, COMPUTE_F32);
    everywhere("rms_norm in place, rounded", run_rms_norm_rounded, COMPUTE_DTYPE_OTHER);
}

static void rms_norm_divides_by_the_root_of_the_mean_square(void **state)
{
    test_device t = test_device_open(COMPUTE_CLASS_F32_1, COMPUTE_ISA_AUTO, 1);
    const float x[] = {3.0f, 4.0f}, gain[] = {1.0f, 2.0f};
    compute_mem *m = on_device(t.d, x, sizeof(x)), *g = on_device(t.d, gain, sizeof(gain));
    float *out;

    (void)state;
    t.d->ops->rms_norm(t.d, m, NULL, m, 2, g, 0.0f, 2, 1);
    out = take(t.d, m, sizeof(x));
    assert_float_equal(out[0], 3.0f / sqrtf(12.5f), 1e-6f);
    assert_float_equal(out[1], 8.0f / sqrtf(12.5f), 1e-6f);
    t.d->ops->free(t.d, g);
    free(out);
    test_device_close(&t);
}

static void *run_clamp_add(compute_device *d, const void *ctx)
{
    const rows *c = ctx;
    compute_mem *x = f32_values(d, 1, c->width * c->n, c->wild), *y = f32_values(d, 2, c->width * c->n, c->wild);

    d->ops->clamp(d, x, 0.5f, c->width * c->n);
    d->ops->add(d, x, y, c->width * c->n);
    d->ops->free(d, y);
    return take(d, x, c->width * c->n * 4);
}

static void clamp_and_add_have_equal_bits(void **state)
{
    (void)state;
    everywhere("clamp, add", run_clamp_add, COMPUTE_F32);
}

static void clamp_keeps_nan(void **state)
{
    (void)state;
    for (int isa = COMPUTE_ISA_PORTABLE; isa <= COMPUTE_ISA_AVX512; isa++) {
        const float x[] = {NAN, -9.0f, 9.0f, 1.0f};
        compute_mem *m;
        test_device t;
        float *out;

        if (!compute_isa_available((compute_isa)isa)) {
            continue;
        }
        t = test_device_open(COMPUTE_CLASS_F32_1, (compute_isa)isa, 1);
        m = on_device(t.d, x, sizeof(x));
        t.d->ops->clamp(t.d, m, 8.0f, 4);
        out = take(t.d, m, sizeof(x));
        assert_true(isnan(out[0]) && out[1] == -8.0f && out[2] == 8.0f && out[3] == 1.0f);
        free(out);
        test_device_close(&t);
    }
}

static void *run_to_class(compute_device *d, const void *ctx)
{
    const rows *c = ctx;
    compute_mem *x = f32_values(d, 1, c->width * c->n, c->wild), *out = d->ops->alloc(d, c->width * c->n * 4);

    d->ops->to_class(d, out, x, c->width * c->n);
    d->ops->free(d, x);
    return take(d, out, c->width * c->n * compute_dtype_bytes(compute_class_dtype(d->numeric_class)));
}

static void to_class_has_equal_bits(void **state)
{
    (void)state;
    everywhere("to_class", run_to_class, COMPUTE_DTYPE_OTHER);
}

static compute_dtype embed_dtype;

static void *run_embed_gather(compute_device *d, const void *ctx)
{
    const rows *c = ctx;
    float *values = any_values(1, 7 * c->width, c->wild);
    void *data = in_dtype(values, 7 * c->width, embed_dtype);
    compute_mem *table = on_device(d, data, 7 * c->width * compute_dtype_bytes(embed_dtype));
    compute_mem *x = d->ops->alloc(d, c->width * c->n * 4), *out = d->ops->alloc(d, c->width * c->n * 4);
    int32_t ids[70];
    uint32_t index[70];

    for (size_t i = 0; i < c->n; i++) {
        ids[i] = (int32_t)(i * 3 % 7);
        index[i] = (uint32_t)(c->n - 1 - i);
    }
    d->ops->embed(d, x, table, embed_dtype, c->width, ids, c->n);
    d->ops->gather(d, out, x, index, c->width, c->n);
    d->ops->free(d, table);
    d->ops->free(d, x);
    free(values);
    free(data);
    return take(d, out, c->width * c->n * 4);
}

static void embed_and_gather_have_equal_bits_in_every_dtype(void **state)
{
    (void)state;
    for (embed_dtype = COMPUTE_F32; embed_dtype < COMPUTE_DTYPE_OTHER; embed_dtype++) {
        everywhere("embed, gather", run_embed_gather, COMPUTE_F32);
    }
}

/* Rows out, into memory of the device's or any other: all of them dense, some of them, and one alone. */
static void *run_gather_out(compute_device *d, const void *ctx)
{
    const rows *c = ctx;
    const uint32_t some[] = {(uint32_t)c->n - 1, 0}, *which[] = {NULL, some, some};
    const size_t row_bytes = c->width * 4, bytes = c->n * row_bytes, counts[] = {c->n, MOE_MIN(c->n, 2), 1};
    compute_mem *x = f32_values(d, 1, c->width * c->n, c->wild);
    unsigned char *out = calloc(6, bytes), *host = compute_host_alloc(d, bytes);

    assert_true(out != NULL && host != NULL);
    for (size_t i = 0; i < 3; i++) {
        unsigned char *any = out + (2 * i + 1) * bytes;
        compute_ticket t = d->ops->gather_out(d, host, x, which[i], row_bytes, counts[i]);

        assert_int_equal(d->ops->wait(d, t), MOE_OK);
        memcpy(out + 2 * i * bytes, host, counts[i] * row_bytes);
        t = d->ops->gather_out(d, any, x, which[i], row_bytes, counts[i]);
        assert_int_equal(d->ops->wait(d, t), MOE_OK);
    }
    compute_host_free(d, host, bytes);
    d->ops->free(d, x);
    return out;
}

/* The logits of the largest vocabulary that a model may have are 16 MB a row. */
static void rows_of_any_width_go_out(void **state)
{
    static const rows cases[] = {{1, 2, true}, {33, 5, true}, {(1 << 18) + 3, 2, false}};

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(cases); i++) {
        scenario s = {"gather_out", run_gather_out, &cases[i], 6 * cases[i].width * cases[i].n, COMPUTE_F32};

        assert_same_everywhere(&s, COMPUTE_CLASS_F32_1);
    }
}

static void *run_rope(compute_device *d, const void *ctx)
{
    const rows *c = ctx; /* 3 heads of an even width */
    size_t head_dim = moe_round_up(c->width, 2) % 512 + 2, n = 3 * head_dim * c->n;
    compute_mem *x = f32_values(d, 1, n, c->wild), *table;
    float *cosines = malloc(100 * head_dim * 4);
    double frequencies[257];
    compute_row where[70];
    compute_step *step;

    compute_rope_frequencies(frequencies, head_dim, 10000.0);
    compute_rope_table(cosines, 100, head_dim, frequencies, 1.0, 1.0);
    table = on_device(d, cosines, 100 * head_dim * 4);
    for (size_t i = 0; i < c->n; i++) {
        where[i] = (compute_row){NULL, (uint32_t)(i * 13 % 100)};
    }
    step = step_of(d, 1, where, c->n);
    d->ops->rope(d, x, table, 3, head_dim, step);
    d->ops->step_close(d, step);
    d->ops->free(d, table);
    free(cosines);
    return take(d, x, n * 4);
}

static void rope_has_equal_bits(void **state)
{
    (void)state;
    for (size_t i = 0; i < MOE_COUNT(row_cases); i++) {
        size_t head_dim = moe_round_up(row_cases[i].width, 2) % 512 + 2;
        scenario s = {"rope", run_rope, &row_cases[i], 3 * head_dim * row_cases[i].n, COMPUTE_F32};

        assert_same_everywhere(&s, COMPUTE_CLASS_F32_1);
    }
}

static void rope_rotates_halves_with_every_product_rounded(void **state)
{
    test_device t = test_device_open(COMPUTE_CLASS_F32_1, COMPUTE_ISA_AUTO, 1);
    float x[24], table[2 * 24], *out;
    double frequencies[12];
    const compute_row row = {NULL, 1};
    compute_mem *m, *cosines;
    compute_step *step = step_of(t.d, 1, &row, 1);

    (void)state;
    compute_rope_frequencies(frequencies, 24, 10000.0);
    compute_rope_table(table, 2, 24, frequencies, 1.0, 1.0);
    for (size_t i = 0; i < 24; i++) {
        x[i] = 1.0f / (float)(i + 3);
    }
    m = on_device(t.d, x, sizeof(x));
    cosines = on_device(t.d, table, sizeof(table));
    t.d->ops->rope(t.d, m, cosines, 1, 24, step);
    t.d->ops->step_close(t.d, step);
    out = take(t.d, m, sizeof(x));
    t.d->ops->free(t.d, cosines);
    for (size_t j = 0; j < 12; j++) {
        float c = table[24 + j], s = table[36 + j], a = x[j] * c, b = x[j + 12] * s;

        assert_int_equal(f32_to_bits(out[j]), f32_to_bits(a - b));
        a = x[j + 12] * c;
        b = x[j] * s;
        assert_int_equal(f32_to_bits(out[j + 12]), f32_to_bits(a + b));
    }
    free(out);
    test_device_close(&t);
}

/* ------------------------------------------------------------------------------------------------ combine */
static void *run_combine(compute_device *d, const void *ctx)
{
    const rows *c = ctx;
    compute_mem *x = f32_values(d, 1, c->width * c->n, c->wild), *results = class_values(d, 2, c->width * 9, c->wild);
    compute_pick picks[70 * 4];
    uint32_t n_picks[70];

    for (size_t i = 0; i < c->n * 4; i++) {
        picks[i] = (compute_pick){1.0f / (float)(i + 2), (uint32_t)(i * 5 % 9)};
    }
    for (size_t i = 0; i < c->n; i++) {
        n_picks[i] = (uint32_t)(i % 5);
    }
    d->ops->combine(d, x, results, compute_class_dtype(d->numeric_class), picks, NULL, 4, c->width, c->n);
    d->ops->combine(d, x, results, compute_class_dtype(d->numeric_class), picks, n_picks, 4, c->width, c->n);
    d->ops->free(d, results);
    return take(d, x, c->width * c->n * 4);
}

static void combine_has_equal_bits(void **state)
{
    (void)state;
    everywhere("combine", run_combine, COMPUTE_F32);
}

static void combine_rounds_each_product_and_adds_in_the_order_of_picks(void **state)
{
    test_device t = test_device_open(COMPUTE_CLASS_F32_1, COMPUTE_ISA_AUTO, 1);
    const float x = 0.3f, results[] = {0.7f, 1e-3f, -5.5f};
    const compute_pick picks[] = {{0.1f, 2}, {0.33f, 0}, {0.77f, 1}};
    compute_mem *m = on_device(t.d, &x, sizeof(x)), *r = on_device(t.d, results, sizeof(results));
    float y = 0.0f, *out;

    (void)state;
    t.d->ops->combine(t.d, m, r, COMPUTE_F32, picks, NULL, 3, 1, 1);
    for (size_t i = 0; i < 3; i++) {
        float product = picks[i].weight * results[picks[i].result_row];

        y = y + product;
    }
    out = take(t.d, m, sizeof(x));
    assert_int_equal(f32_to_bits(*out), f32_to_bits(x + y));
    t.d->ops->free(t.d, r);
    free(out);
    test_device_close(&t);
}

/* ------------------------------------------------------------------------------------------------ expert FFN */
enum { N_EXPERTS = 3, X_ROWS = 75 };

typedef struct ffn {
    size_t d_model, d_ff;
    compute_layout layout;
    compute_dtype dtype;
    size_t n_rows[N_EXPERTS];
    bool one_by_one;
    compute_device *maker; /* opens the experts; NULL: who computes does */
} ffn;

static compute_expert *expert_of(compute_device *d, const ffn *f, uint64_t seed, void *data[3])
{
    compute_weight w[3];
    compute_expert *e;

    for (size_t i = 0; i < 3; i++) {
        size_t n = f->d_model * f->d_ff;
        float *values = any_values(100 * seed + i, n, false);

        data[i] = in_dtype(values, n, f->dtype);
        w[i] = (compute_weight){data[i], f->dtype, i < 2 ? f->d_ff : f->d_model, i < 2 ? f->d_model : f->d_ff, false};
        free(values);
    }
    assert_int_equal(d->ops->expert_open(d, COMPUTE_FFN_SWIGLU, &w[0], &w[1], &w[2], f->layout, &e), MOE_OK);
    return e;
}

static void *run_ffn(compute_device *d, const void *ctx)
{
    const ffn *f = ctx;
    size_t bytes = compute_dtype_bytes(compute_class_dtype(d->numeric_class)), n = 0;
    compute_mem *x = class_values(d, 5, X_ROWS * f->d_model, false),
                *out = d->ops->alloc(d, N_EXPERTS * X_ROWS * f->d_model * bytes);
    compute_group groups[N_EXPERTS];
    compute_expert *experts[N_EXPERTS];
    uint32_t index[N_EXPERTS][X_ROWS];
    void *data[N_EXPERTS][3];

    for (size_t e = 0; e < N_EXPERTS; e++) {
        experts[e] = expert_of(f->maker != NULL ? f->maker : d, f, e, data[e]);
        assert_true(f->maker == NULL || d->ops->expert_adopt(d, experts[e]) == MOE_OK);
        for (size_t i = 0; i < f->n_rows[e]; i++) {
            index[e][i] = (uint32_t)((i * 7 + e) % X_ROWS);
        }
        groups[e] = (compute_group){experts[e], index[e], f->n_rows[e], n};
        n += f->n_rows[e];
    }
    for (size_t e = 0; e < N_EXPERTS && f->one_by_one; e++) {
        for (size_t i = 0; i < f->n_rows[e]; i++) {
            compute_group one = {experts[e], &index[e][i], 1, groups[e].out_row + i};

            d->ops->expert_ffn(d, out, x, &one, 1);
        }
    }
    if (!f->one_by_one) {
        d->ops->expert_ffn(d, out, x, groups, N_EXPERTS);
    }
    for (size_t e = 0; e < N_EXPERTS; e++) {
        d->ops->expert_close(d, experts[e]);
        free(data[e][0]);
        free(data[e][1]);
        free(data[e][2]);
    }
    d->ops->free(d, x);
    return take(d, out, n * f->d_model * bytes);
}

static const ffn ffn_cases[] = {
    {96, 64, COMPUTE_PACKED, COMPUTE_BF16, {1, 1, 1}, false, NULL},
    {97, 33, COMPUTE_PACKED, COMPUTE_BF16, {3, 0, 8}, false, NULL},
    {64, 200, COMPUTE_MAPPED, COMPUTE_BF16, {70, 2, 9}, false, NULL},
    {130, 96, COMPUTE_PACKED, COMPUTE_F32, {13, 6, 1}, false, NULL},
    {101, 301, COMPUTE_PACKED, COMPUTE_F16, {5, 49, 17}, false, NULL},
    {33, 31, COMPUTE_MAPPED, COMPUTE_BF16, {7, 12, 0}, false, NULL},
};

static size_t ffn_values(const ffn *f)
{
    return (f->n_rows[0] + f->n_rows[1] + f->n_rows[2]) * f->d_model;
}

static void expert_ffn_has_equal_bits(void **state)
{
    (void)state;
    for (size_t i = 0; i < MOE_COUNT(ffn_cases); i++) {
        scenario s = {"expert_ffn", run_ffn, &ffn_cases[i], ffn_values(&ffn_cases[i]), COMPUTE_DTYPE_OTHER};

        assert_same_in_both_classes(&s);
    }
}

static void grouped_experts_have_the_bits_of_one_row_at_a_time(void **state)
{
    (void)state;
    for (size_t i = 0; i < MOE_COUNT(ffn_cases); i++) {
        for (int c = 0; c < COMPUTE_N_CLASSES; c++) {
            test_device t = test_device_open((compute_class)c, COMPUTE_ISA_AUTO, 2);
            ffn single = ffn_cases[i];
            void *grouped = run_ffn(t.d, &ffn_cases[i]), *alone;

            single.one_by_one = true;
            alone = run_ffn(t.d, &single);
            assert_same_bits(grouped, alone, ffn_values(&single), compute_class_dtype((compute_class)c), "grouped");
            free(grouped);
            free(alone);
            test_device_close(&t);
        }
    }
}

static void experts_of_another_device_have_the_bits_of_ones_own(void **state)
{
    (void)state;
    for (size_t i = 0; i < MOE_COUNT(ffn_cases); i++) {
        for (int c = 0; c < COMPUTE_N_CLASSES; c++) {
            test_device own = test_device_open((compute_class)c, COMPUTE_ISA_AUTO, 2),
                        t = test_device_open((compute_class)c, COMPUTE_ISA_AUTO, 2),
                        maker = test_device_open((compute_class)c, COMPUTE_ISA_AUTO, 1);
            ffn made = ffn_cases[i];
            void *expected = run_ffn(own.d, &made), *got;

            made.maker = maker.d;
            got = run_ffn(t.d, &made);
            assert_same_bits(got, expected, ffn_values(&made), compute_class_dtype((compute_class)c), "adopted");
            free(expected);
            free(got);
            test_device_close(&own);
            test_device_close(&t);
            test_device_close(&maker);
        }
    }
}

static void an_expert_is_down_of_silu_gate_times_up(void **state)
{
    test_device t = test_device_open(COMPUTE_CLASS_F32_1, COMPUTE_ISA_AUTO, 1);
    const float gate[] = {0.5f, -1.0f}, up[] = {2.0f, 0.25f}, down[] = {3.0f, -3.0f}, x[] = {0.7f, 0.2f};
    const compute_weight g = {gate, COMPUTE_F32, 1, 2, false}, u = {up, COMPUTE_F32, 1, 2, false},
                         d = {down, COMPUTE_F32, 2, 1, false};
    compute_mem *in = on_device(t.d, x, sizeof(x)), *out = t.d->ops->alloc(t.d, sizeof(x));
    compute_expert *e;
    uint32_t row = 0;
    compute_group group = {NULL, &row, 1, 0};
    float a = fmaf(0.2f, -1.0f, 0.7f * 0.5f), b = fmaf(0.2f, 0.25f, 0.7f * 2.0f), *got;

    (void)state;
    assert_int_equal(t.d->ops->expert_open(t.d, COMPUTE_FFN_SWIGLU, &g, &u, &d, COMPUTE_PACKED, &e), MOE_OK);
    group.expert = e;
    t.d->ops->expert_ffn(t.d, out, in, &group, 1);
    got = take(t.d, out, sizeof(x));
    assert_int_equal(f32_to_bits(got[0]), f32_to_bits(compute_silu(a) * b * 3.0f));
    t.d->ops->expert_close(t.d, e);
    t.d->ops->free(t.d, in);
    free(got);
    test_device_close(&t);
}

static void experts_whose_shapes_disagree_are_refused(void **state)
{
    test_device t = test_device_open(COMPUTE_CLASS_F32_1, COMPUTE_ISA_AUTO, 1);
    float data[64] = {0};
    const compute_weight a = {data, COMPUTE_F32, 4, 8, false}, b = {data, COMPUTE_F32, 8, 4, false},
                         c = {data, COMPUTE_F32, 8, 5, false};
    compute_expert *e;

    (void)state;
    assert_int_equal(t.d->ops->expert_open(t.d, COMPUTE_FFN_SWIGLU, &a, &b, &b, COMPUTE_PACKED, &e),
                     MOE_ERR_INVALID_ARG);
    assert_int_equal(t.d->ops->expert_open(t.d, COMPUTE_FFN_SWIGLU, &a, &a, &c, COMPUTE_PACKED, &e),
                     MOE_ERR_INVALID_ARG);
    test_device_close(&t);
}

/* ------------------------------------------------------------------------------------------------ guarded device */
static test_device guarded_open(void)
{
    test_device t;
    compute_device_options o = {
        .isa = COMPUTE_ISA_AUTO, .max_rows = 128, .max_ffn_rows = 512, .max_d_ff = 320, .max_context = 200};
    moe_error err;

    compute_thread_init();
    assert_int_equal(moe_threads_open(1, compute_thread_init, &t.threads), MOE_OK);
    o.threads = t.threads;
    o.numeric_class = COMPUTE_CLASS_BF16_1;
    assert_ok(compute_open("guarded", &o, &t.d, &err), err);
    return t;
}

static void the_guarded_device_computes_what_the_cpu_device_does(void **state)
{
    test_device t = test_device_open(COMPUTE_CLASS_BF16_1, COMPUTE_ISA_AUTO, 1), g = guarded_open();
    void *expected = run_ffn(t.d, &ffn_cases[1]), *got = run_ffn(g.d, &ffn_cases[1]);

    (void)state;
    assert_same_bits(got, expected, ffn_values(&ffn_cases[1]), COMPUTE_BF16, "guarded");
    free(expected);
    free(got);
    test_device_close(&t);
    test_device_close(&g);
}

static void reading_a_guarded_buffer_on_the_host_is_a_fault(void **state)
{
    test_device g = guarded_open();
    compute_mem *m = g.d->ops->alloc(g.d, 64);
    pid_t child;
    int how;

    (void)state;
    child = fork();
    if (child == 0) {
        (void)signal(SIGSEGV, SIG_DFL);
        _exit(*(volatile unsigned char *)(void *)m);
    }
    assert_int_equal(waitpid(child, &how, 0), child);
    assert_false(WIFEXITED(how) && WEXITSTATUS(how) == 0);
    test_device_close(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rms_norm_has_equal_bits),
        cmocka_unit_test(rms_norm_divides_by_the_root_of_the_mean_square),
        cmocka_unit_test(clamp_and_add_have_equal_bits),
        cmocka_unit_test(clamp_keeps_nan),
        cmocka_unit_test(to_class_has_equal_bits),
        cmocka_unit_test(embed_and_gather_have_equal_bits_in_every_dtype),
        cmocka_unit_test(rows_of_any_width_go_out),
        cmocka_unit_test(rope_has_equal_bits),
        cmocka_unit_test(rope_rotates_halves_with_every_product_rounded),
        cmocka_unit_test(combine_has_equal_bits),
        cmocka_unit_test(combine_rounds_each_product_and_adds_in_the_order_of_picks),
        cmocka_unit_test(expert_ffn_has_equal_bits),
        cmocka_unit_test(grouped_experts_have_the_bits_of_one_row_at_a_time),
        cmocka_unit_test(experts_of_another_device_have_the_bits_of_ones_own),
        cmocka_unit_test(an_expert_is_down_of_silu_gate_times_up),
        cmocka_unit_test(experts_whose_shapes_disagree_are_refused),
        cmocka_unit_test(the_guarded_device_computes_what_the_cpu_device_does),
        cmocka_unit_test(reading_a_guarded_buffer_on_the_host_is_a_fault),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
