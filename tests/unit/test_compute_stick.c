/* Stick-breaking attention: the written-out definition, equal bits on every instruction set, alone and in chunks, and
 * where the scan may stop. */
#include "tests/unit/test_compute_devices.h"

enum { MAX_ROWS = 128, N_SEQUENCES = 3, N_PAGES = 96 };

typedef struct stick {
    size_t head_dim, n_heads, n_kv_heads, page_tokens;
    bool shared;
    size_t n_tokens[N_SEQUENCES];
    float q_scale; /* of the queries: large ones end the stick early */
    size_t chunk;  /* rows per call; SIZE_MAX: all at once */
    bool wild;
} stick;

static const stick cases[] = {
    {24, 4, 4, 4, false, {1, 1, 1}, 1.0f, SIZE_MAX, true},
    {24, 4, 2, 4, false, {19, 1, 33}, 1.0f, SIZE_MAX, true},
    {128, 2, 1, 16, true, {37, 0, 20}, 1.0f, SIZE_MAX, false},
    {64, 3, 1, 16, true, {5, 90, 2}, 30.0f, SIZE_MAX, false},
    {7, 2, 2, 5, false, {50, 11, 7}, 300.0f, SIZE_MAX, false},
    {96, 6, 3, 16, true, {8, 17, 16}, 60.0f, SIZE_MAX, false},
    {33, 1, 1, 8, true, {100, 20, 1}, 3.0f, SIZE_MAX, true},
    {1024, 2, 1, 16, true, {70, 3, 41}, 30.0f, SIZE_MAX, false},
    {16, 1, 1, 16, false, {100, 1, 0}, 1000.0f, SIZE_MAX, false},
};

static size_t total_rows(const stick *a)
{
    return a->n_tokens[0] + a->n_tokens[1] + a->n_tokens[2];
}

static size_t total_values(const stick *a)
{
    return total_rows(a) * a->n_heads * a->head_dim;
}

static size_t row_values(const stick *a)
{
    return a->n_kv_heads * a->head_dim;
}

/* Queries, scaled, in the class dtype. */
static compute_mem *queries(compute_device *d, const stick *a)
{
    compute_dtype dtype = compute_class_dtype(d->numeric_class);
    size_t n = total_values(a);
    float *x = any_values(3, n, a->wild);
    compute_mem *m;
    void *q;

    for (size_t i = 0; i < n; i++) {
        x[i] *= a->q_scale;
    }
    q = in_dtype(x, n, dtype);
    m = on_device(d, q, n * compute_dtype_bytes(dtype));
    free(x);
    free(q);
    return m;
}

/* Stores all tokens of the three sequences (pages interleaved) and attends from every one of them. */
static void *run_stick(compute_device *d, const void *ctx)
{
    const stick *a = ctx;
    compute_kv_shape shape = {
        2, N_PAGES, a->page_tokens, a->n_kv_heads, a->head_dim, compute_class_dtype(d->numeric_class), a->shared};
    size_t bytes = compute_dtype_bytes(shape.dtype), n = total_rows(a), q_row = a->n_heads * a->head_dim;
    size_t kv_row = row_values(a);
    compute_mem *k = f32_values(d, 1, n * kv_row, a->wild), *v = f32_values(d, 2, n * kv_row, a->wild);
    compute_mem *q = queries(d, a), *out = d->ops->alloc(d, n * q_row * 4);
    compute_mem *kv = d->ops->alloc(d, 2 * shape.n_pages * compute_kv_page_bytes(&shape));
    uint32_t pages[N_SEQUENCES][N_PAGES / N_SEQUENCES];
    compute_row rows[MAX_ROWS];
    size_t i = 0;

    for (uint32_t p = 0; p < N_PAGES; p++) {
        pages[p % 3][p / 3] = (p * 35 + 7) % N_PAGES;
    }
    for (size_t s = 0; s < N_SEQUENCES; s++) {
        for (uint32_t t = 0; t < a->n_tokens[s]; t++) {
            rows[i++] = (compute_row){pages[s], t};
        }
    }
    for (size_t first = 0; first < n; first += MOE_MIN(a->chunk, n - first)) {
        compute_step *step = step_of(d, a->page_tokens, rows + first, MOE_MIN(a->chunk, n - first));

        d->ops->kv_store(d, kv, &shape, 1, compute_at(k, first * kv_row * 4),
                         a->shared ? NULL : compute_at(v, first * kv_row * 4), step);
        d->ops->stick_attention(d, compute_at(out, first * q_row * 4), compute_at(q, first * q_row * bytes), kv, &shape,
                                1, a->n_heads, step);
        d->ops->step_close(d, step);
    }
    d->ops->free(d, k);
    d->ops->free(d, v);
    d->ops->free(d, q);
    d->ops->free(d, kv);
    return take(d, out, n * q_row * 4);
}

static void stick_attention_has_equal_bits(void **state)
{
    (void)state;
    for (size_t i = 0; i < MOE_COUNT(cases); i++) {
        scenario s = {"stick", run_stick, &cases[i], total_values(&cases[i]), COMPUTE_F32};

        assert_same_in_both_classes(&s);
    }
}

static void stick_attention_in_chunks_has_the_bits_of_one_call(void **state)
{
    static const size_t chunks[] = {1, 3, 16};

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(cases); i++) {
        for (size_t j = 0; j < MOE_COUNT(chunks); j++) {
            test_device t = test_device_open(COMPUTE_CLASS_BF16_1, COMPUTE_ISA_AUTO, 2);
            stick chunked = cases[i];
            void *whole = run_stick(t.d, &cases[i]), *got;

            chunked.chunk = chunks[j];
            got = run_stick(t.d, &chunked);
            assert_same_bits(got, whole, total_values(&chunked), COMPUTE_F32, "chunked");
            free(whole);
            free(got);
            test_device_close(&t);
        }
    }
}

/* ------------------------------------------------------------------------------------------------ the definition */
/* One head, one sequence, f32, not shared: row i against keys i, i - 1, ..., 0, in double. */
static void exact_row(const float *q, const float *k, const float *v, size_t i, size_t head_dim, double *y)
{
    double c = 0.0;

    memset(y, 0, head_dim * sizeof *y);
    for (size_t t = i + 1; t-- > 0;) {
        double s = 0.0, beta;

        for (size_t d = 0; d < head_dim; d++) {
            s += (double)q[i * head_dim + d] * (double)k[t * head_dim + d];
        }
        s /= sqrt((double)head_dim);
        beta = 1.0 / (1.0 + exp(-s));
        for (size_t d = 0; d < head_dim; d++) {
            y[d] += beta * exp(c) * (double)v[t * head_dim + d];
        }
        c += log1p(-beta);
    }
}

static void the_newest_key_breaks_the_stick_first(void **state)
{
    enum { N = 60, D = 20 };
    const stick a = {D, 1, 1, 4, false, {N, 0, 0}, 1.0f, SIZE_MAX, false};
    test_device t = test_device_open(COMPUTE_CLASS_F32_1, COMPUTE_ISA_AUTO, 1);
    float *k = any_values(1, N * D, false), *v = any_values(2, N * D, false), *q = any_values(3, N * D, false);
    float *out = run_stick(t.d, &a);

    (void)state;
    for (size_t i = 0; i < N; i++) {
        double y[D];

        exact_row(q, k, v, i, D, y);
        for (size_t d = 0; d < D; d++) {
            assert_float_equal(out[i * D + d], y[d], 1e-6);
        }
    }
    free(out);
    free(k);
    free(v);
    free(q);
    test_device_close(&t);
}

/* The definition of docs/numeric.md, operation by operation. */
static void stick_attention_is_the_written_definition(void **state)
{
    enum { N = 60, D = 20 };
    const stick a = {D, 1, 1, 4, true, {N, 0, 0}, 100.0f, SIZE_MAX, false};
    test_device t = test_device_open(COMPUTE_CLASS_F32_1, COMPUTE_ISA_AUTO, 1);
    float *k = any_values(1, N * D, false), *q = any_values(3, N * D, false), *out = run_stick(t.d, &a);

    (void)state;
    for (size_t i = 0; i < N; i++) {
        float y[D] = {0}, c = 0.0f;

        for (size_t j = i + 1; j-- > 0 && c >= -88.0f;) {
            float p[16] = {0}, s, w, l;

            for (size_t d = 0; d < D; d++) {
                p[d % 16] = fmaf(q[i * D + d] * 100.0f, k[j * D + d], p[d % 16]);
            }
            for (size_t n = 8; n > 0; n /= 2) {
                for (size_t d = 0; d < n; d++) {
                    p[d] = p[d] + p[d + n];
                }
            }
            s = p[0] * (float)(1.0 / sqrt((double)D));
            w = compute_sigmoid(s) * compute_exp(c);
            for (size_t d = 0; d < D; d++) {
                y[d] = fmaf(w, k[j * D + d], y[d]);
            }
            l = (s > 0.0f ? s : 0.0f) + compute_log1p(compute_exp(-fabsf(s)));
            c = c - l;
        }
        for (size_t d = 0; d < D; d++) {
            assert_int_equal(f32_to_bits(out[i * D + d]), f32_to_bits(y[d] + 0.0f));
        }
    }
    free(out);
    free(k);
    free(q);
    test_device_close(&t);
}

/* Four keys whose scores are 0.5, -1, 2, 0 from the oldest on: values are unit vectors, so out is the weights. */
static void stick_weights_are_the_golden_ones(void **state)
{
    enum { N = 4, D = 4 };
    static const float keys[N][D] = {{1.0f}, {-2.0f}, {4.0f}, {0.0f}}; /* q = 1, 0, 0, 0; scale 1/2 */
    static const float values[N][D] = {{1, 0, 0, 0}, {0, 1, 0, 0}, {0, 0, 1, 0}, {0, 0, 0, 1}};
    static const float query[D] = {1.0f}, golden[D] = {0.02712190f, 0.01602930f, 0.44039854f, 0.5f};
    const compute_kv_shape shape = {1, 2, 2, 1, D, COMPUTE_F32, false};
    const uint32_t pages[] = {1, 0};
    compute_row rows[N];
    test_device t = test_device_open(COMPUTE_CLASS_F32_1, COMPUTE_ISA_AUTO, 1);
    compute_mem *k = on_device(t.d, keys, sizeof keys), *v = on_device(t.d, values, sizeof values);
    compute_mem *q = on_device(t.d, query, sizeof query), *out = t.d->ops->alloc(t.d, sizeof query);
    compute_mem *kv = t.d->ops->alloc(t.d, 2 * compute_kv_page_bytes(&shape));
    compute_step *store, *attend;
    float *w;

    (void)state;
    for (uint32_t i = 0; i < N; i++) {
        rows[i] = (compute_row){pages, i};
    }
    store = step_of(t.d, shape.page_tokens, rows, N);
    attend = step_of(t.d, shape.page_tokens, &rows[N - 1], 1);
    t.d->ops->kv_store(t.d, kv, &shape, 0, k, v, store);
    t.d->ops->stick_attention(t.d, out, q, kv, &shape, 0, 1, attend);
    t.d->ops->step_close(t.d, store);
    t.d->ops->step_close(t.d, attend);
    w = take(t.d, out, sizeof query);
    for (size_t i = 0; i < D; i++) {
        assert_float_equal(w[i], golden[i], 1e-7f);
    }
    free(w);
    t.d->ops->free(t.d, k);
    t.d->ops->free(t.d, v);
    t.d->ops->free(t.d, q);
    t.d->ops->free(t.d, kv);
    test_device_close(&t);
}

/* Heads are [attention expert][head]: head h of 4 reads kv head h % 2. */
static void query_heads_take_the_kv_heads_in_turn(void **state)
{
    const stick four = {24, 4, 2, 4, false, {9, 0, 0}, 1.0f, SIZE_MAX, false};
    test_device t = test_device_open(COMPUTE_CLASS_F32_1, COMPUTE_ISA_AUTO, 1);
    float *all = run_stick(t.d, &four), *k = any_values(1, 9 * 48, false), *v = any_values(2, 9 * 48, false);
    float *q = any_values(3, 9 * 96, false);

    (void)state;
    for (size_t h = 0; h < 4; h++) {
        float one_q[9 * 24], one_k[9 * 24], one_v[9 * 24];
        double y[24];

        for (size_t i = 0; i < 9; i++) {
            memcpy(one_q + i * 24, q + i * 96 + h * 24, 96);
            memcpy(one_k + i * 24, k + i * 48 + h % 2 * 24, 96);
            memcpy(one_v + i * 24, v + i * 48 + h % 2 * 24, 96);
        }
        exact_row(one_q, one_k, one_v, 8, 24, y);
        for (size_t d = 0; d < 24; d++) {
            assert_float_equal(all[8 * 96 + h * 24 + d], y[d], 1e-6);
        }
    }
    free(all);
    free(k);
    free(v);
    free(q);
    test_device_close(&t);
}

/* --------------------------------------------------------------------------------------------- the end of the stick */
static test_device open_with_full_scan(compute_class c, compute_isa isa)
{
    test_device t;
    compute_device_options o = {.numeric_class = c, .isa = isa, .max_rows = 128, .max_context = 200, .full_scan = true};
    moe_error err;

    compute_thread_init();
    assert_int_equal(moe_threads_open(2, compute_thread_init, &t.threads), MOE_OK);
    o.threads = t.threads;
    assert_ok(compute_open("cpu", &o, &t.d, &err), err);
    return t;
}

static void a_scan_that_never_stops_has_equal_bits(void **state)
{
    static const compute_isa sets[] = {COMPUTE_ISA_PORTABLE, COMPUTE_ISA_AVX2, COMPUTE_ISA_AVX512F, COMPUTE_ISA_AVX512};

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(cases); i++) {
        for (size_t j = 0; j < MOE_COUNT(sets) && !cases[i].wild; j++) {
            for (int c = 0; c < COMPUTE_N_CLASSES && compute_isa_available(sets[j]); c++) {
                test_device t = test_device_open((compute_class)c, sets[j], 2);
                test_device full = open_with_full_scan((compute_class)c, sets[j]);
                void *stopped = run_stick(t.d, &cases[i]), *whole = run_stick(full.d, &cases[i]);

                assert_same_bits(stopped, whole, total_values(&cases[i]), COMPUTE_F32, "stopped");
                free(stopped);
                free(whole);
                test_device_close(&t);
                test_device_close(&full);
            }
        }
    }
}

static uint64_t visible_keys(const stick *a)
{
    uint64_t n = 0;

    for (size_t s = 0; s < N_SEQUENCES; s++) {
        n += a->n_tokens[s] * (a->n_tokens[s] + 1) / 2 * a->n_heads;
    }
    return n;
}

static compute_counters counters_after(test_device t, const stick *a)
{
    compute_counters c;

    free(run_stick(t.d, a));
    t.d->ops->counters(t.d, &c);
    test_device_close(&t);
    return c;
}

static void counters_add_up_to_all_keys_before_the_rows(void **state)
{
    (void)state;
    for (size_t i = 0; i < MOE_COUNT(cases); i++) {
        compute_counters c = counters_after(test_device_open(COMPUTE_CLASS_F32_1, COMPUTE_ISA_AUTO, 3), &cases[i]);

        assert_int_equal(c.stick_keys_seen + c.stick_keys_skipped, visible_keys(&cases[i]));
    }
}

static void large_scores_end_the_stick_early_on_every_instruction_set_alike(void **state)
{
    const stick large = {16, 1, 1, 16, false, {100, 1, 0}, 1000.0f, SIZE_MAX, false};
    compute_counters expected = counters_after(test_device_open(COMPUTE_CLASS_F32_1, COMPUTE_ISA_PORTABLE, 1), &large);

    (void)state;
    assert_true(expected.stick_keys_skipped > expected.stick_keys_seen);
    for (int isa = COMPUTE_ISA_AVX2; isa <= COMPUTE_ISA_AVX512; isa++) {
        compute_counters got;

        if (!compute_isa_available((compute_isa)isa)) {
            continue;
        }
        got = counters_after(test_device_open(COMPUTE_CLASS_F32_1, (compute_isa)isa, 3), &large);
        assert_int_equal(got.stick_keys_seen, expected.stick_keys_seen);
        assert_int_equal(got.stick_keys_skipped, expected.stick_keys_skipped);
    }
}

static void a_full_scan_skips_no_key(void **state)
{
    const stick large = {16, 1, 1, 16, false, {100, 1, 0}, 1000.0f, SIZE_MAX, false};
    compute_counters c = counters_after(open_with_full_scan(COMPUTE_CLASS_F32_1, COMPUTE_ISA_AUTO), &large);

    (void)state;
    assert_int_equal(c.stick_keys_skipped, 0);
    assert_int_equal(c.stick_keys_seen, visible_keys(&large));
}

static void a_nan_score_makes_the_row_nan(void **state)
{
    (void)state;
    for (int isa = COMPUTE_ISA_PORTABLE; isa <= COMPUTE_ISA_AVX512; isa++) {
        const compute_kv_shape shape = {1, 1, 4, 1, 2, COMPUTE_F32, true};
        const float keys[] = {1, 1, NAN, 1, 1, 1}, query[] = {1, 1};
        const uint32_t page = 0;
        const compute_row rows[] = {{&page, 0}, {&page, 1}, {&page, 2}};
        test_device t;
        compute_mem *k, *kv, *q, *out;
        compute_step *store, *attend;
        float *y;

        if (!compute_isa_available((compute_isa)isa)) {
            continue;
        }
        t = test_device_open(COMPUTE_CLASS_F32_1, (compute_isa)isa, 1);
        k = on_device(t.d, keys, sizeof keys);
        q = on_device(t.d, query, sizeof query);
        kv = t.d->ops->alloc(t.d, compute_kv_page_bytes(&shape));
        out = t.d->ops->alloc(t.d, sizeof query);
        store = step_of(t.d, shape.page_tokens, rows, 3);
        attend = step_of(t.d, shape.page_tokens, &rows[2], 1);
        t.d->ops->kv_store(t.d, kv, &shape, 0, k, NULL, store);
        t.d->ops->stick_attention(t.d, out, q, kv, &shape, 0, 1, attend);
        t.d->ops->step_close(t.d, store);
        t.d->ops->step_close(t.d, attend);
        y = take(t.d, out, sizeof query);
        assert_true(isnan(y[0]) && isnan(y[1]));
        free(y);
        t.d->ops->free(t.d, k);
        t.d->ops->free(t.d, q);
        t.d->ops->free(t.d, kv);
        test_device_close(&t);
    }
}

static void a_page_of_shared_keys_and_values_is_half_as_large(void **state)
{
    compute_kv_shape shape = {1, 1, 16, 1, 1024, COMPUTE_BF16, false};

    (void)state;
    assert_int_equal(compute_kv_page_bytes(&shape), 2 * 16 * 1024 * 2);
    shape.shared = true;
    assert_int_equal(compute_kv_page_bytes(&shape), 16 * 1024 * 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stick_attention_has_equal_bits),
        cmocka_unit_test(stick_attention_in_chunks_has_the_bits_of_one_call),
        cmocka_unit_test(the_newest_key_breaks_the_stick_first),
        cmocka_unit_test(stick_attention_is_the_written_definition),
        cmocka_unit_test(stick_weights_are_the_golden_ones),
        cmocka_unit_test(query_heads_take_the_kv_heads_in_turn),
        cmocka_unit_test(a_scan_that_never_stops_has_equal_bits),
        cmocka_unit_test(counters_add_up_to_all_keys_before_the_rows),
        cmocka_unit_test(large_scores_end_the_stick_early_on_every_instruction_set_alike),
        cmocka_unit_test(a_full_scan_skips_no_key),
        cmocka_unit_test(a_nan_score_makes_the_row_nan),
        cmocka_unit_test(a_page_of_shared_keys_and_values_is_half_as_large),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
