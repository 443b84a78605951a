/* Products: packed and mapped, every dtype, shape and instruction set, against the chain of docs/numeric.md written
 * out. */
#include "tests/unit/test_compute_devices.h"

/* ThreadSanitizer is to see who shares what, not every shape, AddressSanitizer the ends of memory, and the fake GPU is slow: of
 * the cases that only bits depend on they take each so many. */
#if defined(TEST_CUDA_FAKE) && (defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__))
#define EVERY 16u
#elif defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__) || defined(TEST_CUDA_FAKE)
#define EVERY 4u
#else
#define EVERY 1u
#endif

typedef struct product {
    size_t n_out, n_in, n_rows;
    compute_dtype dtype;
    compute_layout layout;
    bool wild, bias, router;
} product;

static void *run_product(compute_device *d, const void *ctx)
{
    const product *p = ctx;
    float *values = any_values(1, p->n_out * p->n_in, p->wild);
    void *data = in_dtype(values, p->n_out * p->n_in, p->dtype);
    compute_weight w = {data, p->dtype, p->n_out, p->n_in, false};
    compute_mem *out = d->ops->alloc(d, p->n_rows * p->n_out * 4), *x, *bias = f32_values(d, 3, p->n_out, p->wild);
    compute_matrix *m;

    if (p->router) {
        x = f32_values(d, 2, p->n_rows * p->n_in, p->wild);
        assert_int_equal(d->ops->matrix_open_f32(d, &w, &m), MOE_OK);
        d->ops->matmul_f32(d, out, x, m, NULL, p->n_rows);
    } else {
        x = class_values(d, 2, p->n_rows * p->n_in, p->wild);
        assert_int_equal(d->ops->matrix_open(d, &w, p->layout, &m), MOE_OK);
        d->ops->matmul(d, out, x, m, p->bias ? bias : NULL, p->n_rows);
    }
    d->ops->matrix_close(d, m);
    d->ops->free(d, x);
    d->ops->free(d, bias);
    free(values);
    free(data);
    return take(d, out, p->n_rows * p->n_out * 4);
}

static scenario scenario_of(const product *p)
{
    return (scenario){"product", run_product, p, p->n_rows * p->n_out, COMPUTE_F32};
}

static void products_have_equal_bits_for_every_number_of_rows(void **state)
{
    (void)state;
    for (size_t n = 0; n <= 70; n += EVERY * (n < 20 ? 1u : 5u)) {
        product p = {96, 96, n, COMPUTE_BF16, COMPUTE_PACKED, true, n % 2 == 1, false};
        scenario s = scenario_of(&p);

        assert_same_in_both_classes(&s);
    }
}

static void products_have_equal_bits_for_odd_shapes(void **state)
{
    static const size_t shapes[][2] = {{1, 1},    {63, 7},    {64, 31},   {65, 33},
                                       {130, 97}, {100, 257}, {200, 520}, {96, 515}};
    static const compute_dtype stored[] = {COMPUTE_F32, COMPUTE_BF16, COMPUTE_F16};

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(shapes); i += EVERY) {
        for (size_t j = 0; j < MOE_COUNT(stored); j++) {
            product p = {shapes[i][0], shapes[i][1], 7, stored[j], COMPUTE_PACKED, i % 2 == 0, true, false};
            scenario s = scenario_of(&p);

            assert_same_in_both_classes(&s);
        }
    }
}

/* Every height of a register tile, alone and among several, over more than one piece of a panel and an odd rest of it. */
static void products_have_equal_bits_for_every_tile(void **state)
{
    static const compute_dtype stored[] = {COMPUTE_F32, COMPUTE_BF16, COMPUTE_F16};
    static const size_t rows[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 17, 19, 23, 25, 31, 49, 97};

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(rows); i += EVERY) {
        for (size_t j = 0; j < MOE_COUNT(stored); j++) {
            product p = {70, 261, rows[i], stored[j], COMPUTE_PACKED, i % 2 == 0, false, false};
            scenario s = scenario_of(&p);

            assert_same_in_both_classes(&s);
        }
    }
}

/* More panels than threads, so that kernels may use rows again that they widened before: rows in one piece, in two, and
 * in one of 66 rows, more than are kept, beside one of 60. */
static void products_have_equal_bits_for_many_panels(void **state)
{
    static const size_t shapes[][3] = {{192, 300, 50}, {192, 260, 97}, {65, 7680, 126}};

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(shapes); i += EVERY) {
        product p = {shapes[i][0], shapes[i][1], shapes[i][2], COMPUTE_BF16, COMPUTE_PACKED, false, false, false};
        scenario s = scenario_of(&p);

        assert_same_in_both_classes(&s);
    }
}

/* Runs both layouts on the best instruction set. */
static void assert_mapped_equals_packed(compute_class c, compute_isa isa, product p)
{
    test_device t = test_device_open(c, isa, 2);
    void *packed, *mapped;

    p.layout = COMPUTE_PACKED;
    packed = run_product(t.d, &p);
    p.layout = COMPUTE_MAPPED;
    mapped = run_product(t.d, &p);
    assert_same_bits(mapped, packed, p.n_rows * p.n_out, COMPUTE_F32, "mapped");
    free(packed);
    free(mapped);
    test_device_close(&t);
}

static void mapped_matrices_have_the_bits_of_packed_ones(void **state)
{
    static const compute_dtype stored[] = {COMPUTE_F32, COMPUTE_BF16, COMPUTE_F16};

    (void)state;
    for (int isa = COMPUTE_ISA_PORTABLE; isa <= COMPUTE_ISA_AVX512; isa++) {
        for (size_t n_in = 509; n_in < 513 && compute_isa_available((compute_isa)isa); n_in++) {
            for (size_t j = 0; j < MOE_COUNT(stored); j++) {
                product p = {100, n_in, 9, stored[j], COMPUTE_MAPPED, true, false, false};

                assert_mapped_equals_packed(COMPUTE_CLASS_F32_1, (compute_isa)isa, p);
            }
            assert_mapped_equals_packed(COMPUTE_CLASS_BF16_1, (compute_isa)isa,
                                        (product){100, n_in, 9, COMPUTE_BF16, COMPUTE_MAPPED, true, false, false});
        }
    }
}

static void a_row_has_the_same_bits_alone_and_among_others(void **state)
{
    test_device t = test_device_open(COMPUTE_CLASS_BF16_1, COMPUTE_ISA_AUTO, 2);
    product many = {192, 160, 67, COMPUTE_BF16, COMPUTE_PACKED, false, false, false}, one = many;
    float *a, *b;

    (void)state;
    one.n_rows = 1; /* the same seed: the first row of many */
    a = run_product(t.d, &many);
    b = run_product(t.d, &one);
    assert_same_bits(b, a, one.n_out, COMPUTE_F32, "one row");
    free(a);
    free(b);
    test_device_close(&t);
}

static void router_products_have_equal_bits_in_both_classes(void **state)
{
    static const compute_dtype stored[] = {COMPUTE_F32, COMPUTE_BF16, COMPUTE_F16};

    (void)state;
    for (size_t j = 0; j < MOE_COUNT(stored); j++) {
        product p = {10, 97, 5, stored[j], COMPUTE_PACKED, true, false, true};
        scenario s = scenario_of(&p);

        assert_same_in_both_classes(&s);
    }
}

/* ------------------------------------------------------------------------------------------------ the chain itself */
static void an_f32_product_is_one_ascending_fma_chain(void **state)
{
    test_device t = test_device_open(COMPUTE_CLASS_F32_1, COMPUTE_ISA_AUTO, 1);
    product p = {70, 33, 3, COMPUTE_F32, COMPUTE_PACKED, false, false, false};
    float *w = any_values(1, p.n_out * p.n_in, false), *x = any_values(2, p.n_rows * p.n_in, false);
    float *out = run_product(t.d, &p);

    (void)state;
    for (size_t r = 0; r < p.n_rows; r++) {
        for (size_t j = 0; j < p.n_out; j++) {
            float acc = 0.0f;

            for (size_t k = 0; k < p.n_in; k++) {
                acc = fmaf(x[r * p.n_in + k], w[j * p.n_in + k], acc);
            }
            assert_int_equal(f32_to_bits(out[r * p.n_out + j]), f32_to_bits(acc));
        }
    }
    free(out);
    free(w);
    free(x);
    test_device_close(&t);
}

static float bf16_at(const float *x, size_t i)
{
    return bits_to_f32(f32_to_bits(x[i]) & 0xffff0000u); /* as in_dtype makes them */
}

static void a_bf16_product_takes_pairs_odd_element_first(void **state)
{
    test_device t = test_device_open(COMPUTE_CLASS_BF16_1, COMPUTE_ISA_AUTO, 1);
    product p = {70, 33, 3, COMPUTE_BF16, COMPUTE_PACKED, false, false, false};
    float *w = any_values(1, p.n_out * p.n_in, false), *x = any_values(2, p.n_rows * p.n_in, false);
    float *out = run_product(t.d, &p);

    (void)state;
    for (size_t r = 0; r < p.n_rows; r++) {
        for (size_t j = 0; j < p.n_out; j++) {
            float acc = 0.0f;

            for (size_t k = 0; k < p.n_in; k += 2) {
                bool odd = k + 1 < p.n_in;

                acc =
                    fmaf(odd ? bf16_at(x, r * p.n_in + k + 1) : 0.0f, odd ? bf16_at(w, j * p.n_in + k + 1) : 0.0f, acc);
                acc = fmaf(bf16_at(x, r * p.n_in + k), bf16_at(w, j * p.n_in + k), acc);
            }
            assert_int_equal(f32_to_bits(out[r * p.n_out + j]), f32_to_bits(acc));
        }
    }
    free(out);
    free(w);
    free(x);
    test_device_close(&t);
}

/* Two million dots of two elements whose products underflow, cancel or are denormal: vdpbf16ps against two FMAs. */
static void the_bf16_pair_of_the_device_is_two_fmas(void **state)
{
    test_device t = test_device_open(COMPUTE_CLASS_BF16_1, COMPUTE_ISA_AUTO, 1);
    enum { ROWS = 128, OUT = 128 };
    uint16_t x[ROWS * 4], w[OUT * 4];
    moe_random random;

    (void)state;
    moe_random_seed(&random, 11);
    for (size_t round = 0; round < 128; round++) {
        compute_weight weight = {w, COMPUTE_BF16, OUT, 4, false};
        compute_mem *in, *out = t.d->ops->alloc(t.d, ROWS * OUT * 4);
        compute_matrix *m;
        float *got;

        for (size_t i = 0; i < ROWS * 4; i++) {
            uint64_t u = moe_random_u64(&random);
            uint64_t exponent = round % 2 == 0 ? 50 + (u >> 32) % 28 : 120 + (u >> 32) % 10;

            x[i] = (uint16_t)((u & 0x807fu) | exponent << 7);
            exponent = round % 2 == 0 ? 48 + (u >> 40) % 28 : (u >> 40) % 8 == 0 ? 0 : 120;
            w[i] = (uint16_t)((u >> 16 & 0x807fu) | exponent << 7);
        }
        in = on_device(t.d, x, sizeof(x));
        assert_int_equal(t.d->ops->matrix_open(t.d, &weight, COMPUTE_PACKED, &m), MOE_OK);
        t.d->ops->matmul(t.d, out, in, m, NULL, ROWS);
        t.d->ops->matrix_close(t.d, m);
        t.d->ops->free(t.d, in);
        got = take(t.d, out, ROWS * OUT * 4);
        for (size_t i = 0; i < ROWS * OUT; i++) {
            const uint16_t *a = x + i / OUT * 4, *b = w + i % OUT * 4;
            float acc = 0.0f;

            for (size_t k = 0; k < 4; k += 2) {
                acc = fmaf(compute_f32_from_bf16(a[k + 1]), compute_f32_from_bf16(b[k + 1]), acc);
                acc = fmaf(compute_f32_from_bf16(a[k]), compute_f32_from_bf16(b[k]), acc);
            }
            if (f32_to_bits(got[i]) != f32_to_bits(acc)) {
                fail_msg("round %zu, dot %zu: %08x, expected %08x", round, i, f32_to_bits(got[i]), f32_to_bits(acc));
            }
        }
        free(got);
    }
    test_device_close(&t);
}

static void forced_bf16_rounds_f32_weights_to_nearest_even(void **state)
{
    test_device t = test_device_open(COMPUTE_CLASS_BF16_1, COMPUTE_ISA_AUTO, 1);
    float weight = bits_to_f32(0x3f818000u), *got; /* halfway, to 0x3f82 */
    compute_weight w = {&weight, COMPUTE_F32, 1, 1, false};
    uint16_t one = 0x3f80;
    compute_mem *x = on_device(t.d, &one, 2), *out = t.d->ops->alloc(t.d, 4);
    compute_matrix *m;

    (void)state;
    assert_int_equal(t.d->ops->matrix_open(t.d, &w, COMPUTE_PACKED, &m), MOE_OK);
    t.d->ops->matmul(t.d, out, x, m, NULL, 1);
    t.d->ops->matrix_close(t.d, m);
    t.d->ops->free(t.d, x);
    got = take(t.d, out, 4);
    assert_int_equal(f32_to_bits(*got), 0x3f820000u);
    free(got);
    test_device_close(&t);
}

static void a_mapped_f32_matrix_is_refused_in_the_bf16_class(void **state)
{
    test_device t = test_device_open(COMPUTE_CLASS_BF16_1, COMPUTE_ISA_AUTO, 1);
    float weight = 1.0f;
    compute_weight w = {&weight, COMPUTE_F32, 1, 1, false};
    compute_matrix *m;

    (void)state;
    assert_int_equal(t.d->ops->matrix_open(t.d, &w, COMPUTE_MAPPED, &m), MOE_ERR_UNSUPPORTED);
    test_device_close(&t);
}

static void impossible_matrices_are_refused(void **state)
{
    test_device t = test_device_open(COMPUTE_CLASS_F32_1, COMPUTE_ISA_AUTO, 1);
    float weight = 1.0f;
    const compute_weight bad[] = {{&weight, COMPUTE_DTYPE_OTHER, 1, 1, false},
                                  {NULL, COMPUTE_F32, 1, 1, false},
                                  {&weight, COMPUTE_F32, 0, 1, false},
                                  {&weight, COMPUTE_F32, 1, 0, false},
                                  {&weight, COMPUTE_F32, SIZE_MAX / 4, SIZE_MAX / 4, false}};
    compute_matrix *m;

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(bad); i++) {
        assert_int_equal(t.d->ops->matrix_open(t.d, &bad[i], COMPUTE_PACKED, &m), MOE_ERR_INVALID_ARG);
    }
    test_device_close(&t);
}

static void a_device_without_a_pool_is_refused(void **state)
{
    const compute_device_options o = {.numeric_class = COMPUTE_CLASS_F32_1};
    moe_error err;
    compute_device *d;

    (void)state;
    assert_int_equal(compute_open("cpu", &o, &d, &err), MOE_ERR_INVALID_ARG);
    assert_contains(err.text, "threads");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_have_equal_bits_for_every_number_of_rows),
        cmocka_unit_test(products_have_equal_bits_for_odd_shapes),
        cmocka_unit_test(products_have_equal_bits_for_every_tile),
        cmocka_unit_test(products_have_equal_bits_for_many_panels),
        cmocka_unit_test(mapped_matrices_have_the_bits_of_packed_ones),
        cmocka_unit_test(a_row_has_the_same_bits_alone_and_among_others),
        cmocka_unit_test(router_products_have_equal_bits_in_both_classes),
        cmocka_unit_test(an_f32_product_is_one_ascending_fma_chain),
        cmocka_unit_test(a_bf16_product_takes_pairs_odd_element_first),
        cmocka_unit_test(the_bf16_pair_of_the_device_is_two_fmas),
        cmocka_unit_test(forced_bf16_rounds_f32_weights_to_nearest_even),
        cmocka_unit_test(a_mapped_f32_matrix_is_refused_in_the_bf16_class),
        cmocka_unit_test(impossible_matrices_are_refused),
        cmocka_unit_test(a_device_without_a_pool_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
