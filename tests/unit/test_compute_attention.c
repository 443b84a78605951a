/* KV pages and attention: equal bits on every instruction set, alone and in chunks, and the written-out definition. */
#include "tests/unit/test_compute_devices.h"

enum { MAX_ROWS = 128 };

typedef struct attention {
    size_t head_dim, n_heads, n_kv_heads, page_tokens;
    size_t n_tokens[3]; /* of three sequences */
    size_t chunk;       /* rows per call; SIZE_MAX: all at once */
    bool wild;
} attention;

static size_t total_rows(const attention *a)
{
    return a->n_tokens[0] + a->n_tokens[1] + a->n_tokens[2];
}

/* Stores all tokens of the three sequences (pages interleaved) and attends from every one of them. */
static void *run_attention(compute_device *d, const void *ctx)
{
    const attention *a = ctx;
    compute_kv_shape shape = {
        2, 96, a->page_tokens, a->n_kv_heads, a->head_dim, compute_class_dtype(d->numeric_class), false};
    size_t bytes = compute_dtype_bytes(shape.dtype), n = total_rows(a), q_row = a->n_heads * a->head_dim;
    size_t kv_row = a->n_kv_heads * a->head_dim;
    compute_mem *k = f32_values(d, 1, n * kv_row, a->wild), *v = f32_values(d, 2, n * kv_row, a->wild);
    compute_mem *q = class_values(d, 3, n * q_row, a->wild), *out = d->ops->alloc(d, n * q_row * 4);
    compute_mem *kv = d->ops->alloc(d, 2 * shape.n_pages * compute_kv_page_bytes(&shape));
    uint32_t pages[3][32];
    compute_row rows[MAX_ROWS];
    size_t i = 0;

    for (uint32_t p = 0; p < 96; p++) {
        pages[p % 3][p / 3] = (p * 35 + 7) % 96;
    }
    for (size_t s = 0; s < 3; s++) {
        for (uint32_t t = 0; t < a->n_tokens[s]; t++) {
            rows[i++] = (compute_row){pages[s], t};
        }
    }
    for (size_t first = 0; first < n; first += MOE_MIN(a->chunk, n - first)) {
        compute_step *step = step_of(d, a->page_tokens, rows + first, MOE_MIN(a->chunk, n - first));

        d->ops->kv_store(d, kv, &shape, 1, compute_at(k, first * kv_row * 4), compute_at(v, first * kv_row * 4), step);
        d->ops->attention(d, compute_at(out, first * q_row * 4), compute_at(q, first * q_row * bytes), kv, &shape, 1,
                          a->n_heads, step);
        d->ops->step_close(d, step);
    }
    d->ops->free(d, k);
    d->ops->free(d, v);
    d->ops->free(d, q);
    d->ops->free(d, kv);
    return take(d, out, n * q_row * 4);
}

static const attention cases[] = {
    {24, 4, 4, 4, {1, 1, 1}, SIZE_MAX, true},      {24, 4, 2, 4, {19, 1, 33}, SIZE_MAX, true},
    {128, 2, 2, 16, {37, 0, 20}, SIZE_MAX, false}, {64, 3, 1, 16, {5, 90, 2}, SIZE_MAX, false},
    {10, 2, 2, 5, {50, 11, 7}, SIZE_MAX, true},    {16, 1, 1, 16, {8, 17, 16}, SIZE_MAX, false},
};

static void attention_has_equal_bits(void **state)
{
    (void)state;
    for (size_t i = 0; i < MOE_COUNT(cases); i++) {
        scenario s = {"attention", run_attention, &cases[i],
                      total_rows(&cases[i]) * cases[i].n_heads * cases[i].head_dim, COMPUTE_F32};

        assert_same_in_both_classes(&s);
    }
}

static void attention_in_chunks_has_the_bits_of_one_call(void **state)
{
    static const size_t chunks[] = {1, 3, 16};

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(cases); i++) {
        for (size_t j = 0; j < MOE_COUNT(chunks); j++) {
            test_device t = test_device_open(COMPUTE_CLASS_BF16_1, COMPUTE_ISA_AUTO, 2);
            attention chunked = cases[i];
            void *whole = run_attention(t.d, &cases[i]), *got;

            chunked.chunk = chunks[j];
            got = run_attention(t.d, &chunked);
            assert_same_bits(got, whole, total_rows(&chunked) * chunked.n_heads * chunked.head_dim, COMPUTE_F32,
                             "chunked");
            free(whole);
            free(got);
            test_device_close(&t);
        }
    }
}

/* The definition for one head, one sequence, f32. */
static void attention_is_the_written_definition(void **state)
{
    enum { N = 21, D = 20 };
    const attention a = {D, 1, 1, 4, {N, 0, 0}, SIZE_MAX, false};
    test_device t = test_device_open(COMPUTE_CLASS_F32_1, COMPUTE_ISA_AUTO, 1);
    float *k = any_values(1, N * D, false), *v = any_values(2, N * D, false), *q = any_values(3, N * D, false);
    float *out = run_attention(t.d, &a);

    (void)state;
    for (size_t i = 0; i < N; i++) {
        float s[N], o[D] = {0}, l = 0.0f, max;

        for (size_t j = 0; j <= i; j++) {
            float p[16] = {0};

            for (size_t d = 0; d < D; d++) {
                p[d % 16] = fmaf(q[i * D + d], k[j * D + d], p[d % 16]);
            }
            for (size_t w = 8; w > 0; w /= 2) {
                for (size_t d = 0; d < w; d++) {
                    p[d] = p[d] + p[d + w];
                }
            }
            s[j] = p[0] * (float)(1.0 / sqrt((double)D));
        }
        max = compute_row_max(s, i + 1);
        for (size_t j = 0; j <= i; j++) {
            float p = compute_exp(s[j] - max);

            l = l + p;
            for (size_t d = 0; d < D; d++) {
                o[d] = fmaf(p, v[j * D + d], o[d]);
            }
        }
        for (size_t d = 0; d < D; d++) {
            assert_int_equal(f32_to_bits(out[i * D + d]), f32_to_bits(o[d] / l));
        }
    }
    free(out);
    free(k);
    free(v);
    free(q);
    test_device_close(&t);
}

/* Two rows that share pages need not ascend: the later one of the call sees fewer keys. */
static void rows_that_share_pages_may_stand_anywhere(void **state)
{
    enum { N = 40, D = 32 };
    test_device t = test_device_open(COMPUTE_CLASS_F32_1, COMPUTE_ISA_AUTO, 1);
    const compute_kv_shape shape = {1, 10, 4, 1, D, COMPUTE_F32, false};
    const uint32_t pages[] = {9, 8, 7, 6, 5, 4, 3, 2, 1, 0};
    const compute_row where[] = {{pages, 30}, {pages, 3}, {pages, 17}};
    compute_mem *k = f32_values(t.d, 1, N * D, false), *v = f32_values(t.d, 2, N * D, false);
    compute_mem *q = f32_values(t.d, 3, 3 * D, false), *kv = t.d->ops->alloc(t.d, 10 * compute_kv_page_bytes(&shape));
    compute_mem *together = t.d->ops->alloc(t.d, 3 * D * 4), *alone = t.d->ops->alloc(t.d, 3 * D * 4);
    compute_row rows[N];
    compute_step *step;
    void *a, *b;

    (void)state;
    for (uint32_t i = 0; i < N; i++) {
        rows[i] = (compute_row){pages, i};
    }
    step = step_of(t.d, shape.page_tokens, rows, N);
    t.d->ops->kv_store(t.d, kv, &shape, 0, k, v, step);
    t.d->ops->step_begin(t.d, step, where, 3);
    t.d->ops->attention(t.d, together, q, kv, &shape, 0, 1, step);
    for (size_t i = 0; i < 3; i++) {
        t.d->ops->step_begin(t.d, step, where + i, 1);
        t.d->ops->attention(t.d, compute_at(alone, i * D * 4), compute_at(q, i * D * 4), kv, &shape, 0, 1, step);
    }
    t.d->ops->step_close(t.d, step);
    a = take(t.d, together, 3 * D * 4);
    b = take(t.d, alone, 3 * D * 4);
    assert_same_bits(a, b, 3 * D, COMPUTE_F32, "together");
    free(a);
    free(b);
    t.d->ops->free(t.d, k);
    t.d->ops->free(t.d, v);
    t.d->ops->free(t.d, q);
    t.d->ops->free(t.d, kv);
    test_device_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(attention_has_equal_bits),
        cmocka_unit_test(attention_in_chunks_has_the_bits_of_one_call),
        cmocka_unit_test(attention_is_the_written_definition),
        cmocka_unit_test(rows_that_share_pages_may_stand_anywhere),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
