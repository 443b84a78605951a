/* Where the rounding of a GPU might differ from x86: results next to the smallest normal number, which FTZ flushes or not
 * after it has rounded. On the fake GPU both sides are x86; tools/gpu_check.sh runs this on a real one. */
#include "tests/unit/test_compute_devices.h"

#if defined(TEST_CUDA_REAL)
#define CASES ((size_t)1 << 20)
#else
#define CASES ((size_t)1 << 12)
#endif
#define OUTPUTS 4096u

/* Products x[0] * w[0] + x[1] * w[1] whose exact value lies within a few ulp of 2^-126, on both sides and of both signs. */
static void corner_weights(float *w, uint64_t seed)
{
    moe_random r;

    moe_random_seed(&r, seed);
    for (size_t i = 0; i < OUTPUTS; i++) {
        float near =
            bits_to_f32(0x00800000u + (uint32_t)moe_random_below(&r, 4)) * (moe_random_below(&r, 2) ? 1.0f : -1.0f);
        uint32_t low = (uint32_t)moe_random_below(&r, 1u << 24);

        w[2 * i] = near * 0x1p20f;
        w[2 * i + 1] = (moe_random_below(&r, 2) ? 1.0f : -1.0f) * ldexpf((float)low, -126 - 24 - 22 + 60);
    }
}

static void *run_corner(compute_device *d, const void *ctx)
{
    const uint64_t *seed = ctx;
    const float x[2] = {0x1p-20f, 0x1p-60f};
    float *w = malloc(OUTPUTS * 2 * sizeof(*w));
    compute_mem *in = on_device(d, x, sizeof(x)), *out = d->ops->alloc(d, OUTPUTS * 4);
    compute_matrix *m;

    assert_non_null(w);
    corner_weights(w, *seed);
    assert_int_equal(d->ops->matrix_open_f32(d, &(compute_weight){w, COMPUTE_F32, OUTPUTS, 2, false}, &m), MOE_OK);
    d->ops->matmul_f32(d, out, in, m, NULL, 1);
    d->ops->matrix_close(d, m);
    d->ops->free(d, in);
    free(w);
    return take(d, out, OUTPUTS * 4);
}

static void sums_next_to_the_smallest_normal_number_have_equal_bits(void **state)
{
    size_t flushed = 0, kept = 0;

    (void)state;
    for (size_t i = 0; i < CASES / OUTPUTS; i++) {
        uint64_t seed = 1 + i;
        scenario s = {"corner", run_corner, &seed, OUTPUTS, COMPUTE_F32};
        test_device t = test_device_open(COMPUTE_CLASS_F32_1, COMPUTE_ISA_PORTABLE, 1);
        float *y = run_corner(t.d, &seed);

        for (size_t j = 0; j < OUTPUTS; j++) {
            flushed += y[j] == 0.0f;
            kept += y[j] != 0.0f;
        }
        free(y);
        test_device_close(&t);
        assert_same_everywhere(&s, COMPUTE_CLASS_F32_1);
    }
    assert_true(flushed > CASES / 16 && kept > CASES / 16); /* the corner is where it was aimed at */
}

/* A product alone, rounded up to 2^-126 or not: combine multiplies without a sum. */
static void *run_single_products(compute_device *d, const void *ctx)
{
    const uint64_t *seed = ctx;
    float *x = malloc(OUTPUTS * 4);
    compute_pick pick = {bits_to_f32(0x3f7fffffu), 0}; /* 1 - 2^-24: 2^-126 times it is below 2^-126 and rounds to it */
    compute_mem *results, *sum = d->ops->alloc(d, OUTPUTS * 4);
    moe_random r;

    assert_non_null(x);
    moe_random_seed(&r, *seed);
    for (size_t i = 0; i < OUTPUTS; i++) {
        x[i] =
            bits_to_f32(0x00800000u + (uint32_t)moe_random_below(&r, 3) + (moe_random_below(&r, 2) ? 0x80000000u : 0));
    }
    results = on_device(d, x, OUTPUTS * 4);
    d->ops->combine(d, sum, results, COMPUTE_F32, &pick, NULL, 1, OUTPUTS, 1);
    d->ops->free(d, results);
    free(x);
    return take(d, sum, OUTPUTS * 4);
}

static void products_next_to_the_smallest_normal_number_have_equal_bits(void **state)
{
    (void)state;
    for (size_t i = 0; i < CASES / OUTPUTS; i++) {
        uint64_t seed = 1 + i;
        scenario s = {"product", run_single_products, &seed, OUTPUTS, COMPUTE_F32};

        assert_same_everywhere(&s, COMPUTE_CLASS_F32_1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(sums_next_to_the_smallest_normal_number_have_equal_bits),
                                       cmocka_unit_test(products_next_to_the_smallest_normal_number_have_equal_bits)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
