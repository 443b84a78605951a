#include "tests/unit/test_compute_devices.h"

/* ------------------------------------------------------------------------------------------- error of the functions */
static double ulp_error(float y, double exact)
{
    int e;

    if (isnan(exact) || isnan(y)) {
        return isnan(exact) && isnan(y) ? 0.0 : INFINITY;
    }
    if (fabs(exact) < 0x1p-126) { /* flushed to zero, or just not */
        return fabsf(y) <= 0x1p-126f ? 0.0 : INFINITY;
    }
    if (isinf((float)exact) || isinf(y)) {
        return (float)exact == y ? 0.0 : INFINITY;
    }
    (void)frexp(exact, &e);
    return fabs((double)y - exact) / ldexp(1.0, e - 24);
}

/* Every 1009th float of [low, high], both signs. */
static void assert_within(double limit, float (*f)(float), double (*exact)(double), float low, float high)
{
    compute_thread_init();
    for (uint32_t sign = 0; sign < 2; sign++) {
        for (uint32_t u = 0x00800000u; u < 0x7f800000u; u += 1009) {
            float x = bits_to_f32(u | sign << 31);

            if (x >= low && x <= high && ulp_error(f(x), exact((double)x)) > limit) {
                fail_msg("f(%a) = %a, expected %a", (double)x, (double)f(x), exact((double)x));
            }
        }
    }
}

static double cut_exp(double x)
{
    return x < -88.0 ? 0.0 : exp(x);
}

static double exact_sigmoid(double x)
{
    return 1.0 / (1.0 + exp(-x));
}

static double exact_silu(double x)
{
    return x / (1.0 + exp(-x));
}

static void exp_is_within_1_ulp(void **state)
{
    (void)state;
    assert_within(1.0, compute_exp, cut_exp, -INFINITY, INFINITY);
}

static void log_is_within_1_ulp(void **state)
{
    (void)state;
    assert_within(1.0, compute_log, log, -INFINITY, INFINITY);
}

static void log1p_is_within_1_and_a_half_ulp(void **state)
{
    (void)state;
    assert_within(1.5, compute_log1p, log1p, -INFINITY, INFINITY);
}

static void erf_is_within_1_and_a_half_ulp(void **state)
{
    (void)state;
    assert_within(1.5, compute_erf, erf, -INFINITY, INFINITY);
}

static void tanh_is_within_1_and_a_half_ulp(void **state)
{
    (void)state;
    assert_within(1.5, compute_tanh, tanh, -INFINITY, INFINITY);
}

static void sigmoid_and_silu_are_within_2_and_a_half_ulp(void **state)
{
    (void)state;
    assert_within(2.5, compute_sigmoid, exact_sigmoid, -80.0f, INFINITY);
    assert_within(2.5, compute_silu, exact_silu, -80.0f, INFINITY);
}

static void gelus_are_the_golden_values(void **state)
{
    static const float x[] = {-3.0f, -1.0f, -0.5f, 0.5f, 1.0f, 3.0f};
    static const float by_erf[] = {-0.00404969f, -0.15865525f, -0.15426877f, 0.34573123f, 0.84134475f, 2.99595031f};
    static const float by_tanh[] = {-0.00363739f, -0.15880801f, -0.15428599f, 0.34571401f, 0.84119199f, 2.99636261f};

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(x); i++) {
        assert_float_equal(compute_gelu_erf(x[i]), by_erf[i], 0x1p-23f * fabsf(x[i]));
        assert_float_equal(compute_gelu_tanh(x[i]), by_tanh[i], 0x1p-23f * fabsf(x[i]));
    }
}

static double exact_gelu_erf(double x)
{
    return x / 2 * (1 + erf(x / sqrt(2.0)));
}

static double exact_gelu_tanh(double x)
{
    return x / 2 * (1 + tanh(sqrt(2.0 / acos(-1.0)) * (x + 0.044715 * x * x * x)));
}

static void gelus_are_within_1_and_three_quarter_ulp_for_positive_arguments(void **state)
{
    (void)state;
    assert_within(1.75, compute_gelu_erf, exact_gelu_erf, 1e-30f, INFINITY);
    assert_within(1.75, compute_gelu_tanh, exact_gelu_tanh, 1e-30f, 1e10f);
}

static void exp_is_zero_below_minus_88_and_keeps_nan(void **state)
{
    (void)state;
    assert_int_equal(f32_to_bits(compute_exp(-0x1.600002p6f)), 0);
    assert_int_equal(f32_to_bits(compute_exp(-INFINITY)), 0);
    assert_true(isinf(compute_exp(0x1.62e43p6f)));
    assert_true(isnan(compute_exp(NAN)));
}

static void log_of_zero_denormals_and_negatives_is_defined(void **state)
{
    (void)state;
    assert_true(compute_log(0.0f) == -INFINITY);
    assert_true(compute_log(-0.0f) == -INFINITY);
    assert_true(compute_log(bits_to_f32(0x00000001u)) == -INFINITY);
    assert_true(isnan(compute_log(-1.0f)));
    assert_true(compute_log(INFINITY) == INFINITY);
    assert_true(isnan(compute_log(NAN)));
    assert_true(compute_log1p(-1.0f) == -INFINITY);
    assert_true(isnan(compute_log1p(-2.0f)));
}

/* ------------------------------------------------------------------------------------------------ dtypes */
static void f16_widens_exactly_denormals_included(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x10000u; h++) {
        uint32_t e = h >> 10 & 31u, m = h & 0x3ffu;
        double size = e == 0 ? ldexp(m, -24) : ldexp(1024 + m, (int)e - 25), value = h & 0x8000u ? -size : size;
        float got = compute_f32_from_f16((uint16_t)h);

        if (e == 31) {
            assert_true(m == 0 ? isinf(got) : isnan(got));
        } else {
            assert_int_equal(f32_to_bits(got), f32_to_bits((float)value));
        }
    }
}

static void bf16_rounds_to_nearest_even(void **state)
{
    (void)state;
    assert_int_equal(compute_bf16_from_f32(bits_to_f32(0x3f808000u)), 0x3f80);
    assert_int_equal(compute_bf16_from_f32(bits_to_f32(0x3f808001u)), 0x3f81);
    assert_int_equal(compute_bf16_from_f32(bits_to_f32(0x3f818000u)), 0x3f82);
    assert_int_equal(compute_bf16_from_f32(bits_to_f32(0x7f7fffffu)), 0x7f80);
}

static void bf16_of_a_denormal_is_a_zero_of_its_sign(void **state)
{
    (void)state;
    assert_int_equal(compute_bf16_from_f32(bits_to_f32(0x007fffffu)), 0x0000);
    assert_int_equal(compute_bf16_from_f32(bits_to_f32(0x807fffffu)), 0x8000);
}

static void bf16_of_a_nan_is_a_quiet_nan(void **state)
{
    (void)state;
    assert_int_equal(compute_bf16_from_f32(bits_to_f32(0x7f800001u)), 0x7fc0);
    assert_int_equal(compute_bf16_from_f32(bits_to_f32(0xff812345u)), 0xffc1);
}

/* The device's own rounding (vcvtneps2bf16 where there is one) against the scalar definition, 4
 * million bit patterns. */
static void every_device_rounds_to_bf16_as_the_scalar_does(void **state)
{
    static const compute_isa sets[] = {COMPUTE_ISA_PORTABLE, COMPUTE_ISA_AVX2, COMPUTE_ISA_AVX512F, COMPUTE_ISA_AVX512};
    enum { N = 4099 };

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(sets); i++) {
        test_device t;

        if (!compute_isa_available(sets[i])) {
            continue;
        }
        t = test_device_open(COMPUTE_CLASS_BF16_1, sets[i], 1);
        for (uint32_t block = 0; block < 1024; block++) {
            float x[N];
            uint16_t expected[N], *got;
            compute_mem *in, *out = t.d->ops->alloc(t.d, sizeof(expected));

            for (uint32_t j = 0; j < N; j++) {
                x[j] = bits_to_f32((block * N + j) * 1021u);
                expected[j] = compute_bf16_from_f32(x[j]);
            }
            in = on_device(t.d, x, sizeof(x));
            t.d->ops->to_class(t.d, out, in, N);
            got = take(t.d, out, sizeof(expected));
            t.d->ops->free(t.d, in);
            assert_memory_equal(got, expected, sizeof(expected));
            free(got);
        }
        test_device_close(&t);
    }
}

/* ------------------------------------------------------------------------------------------------ row functions */
typedef struct row_results {
    float sum, max, shared_max, log_sum, exp[300], softmax[300];
} row_results;

static row_results row_results_of(compute_isa isa, const float *x, size_t n)
{
    row_results r = {0};
    float scratch[300];

    compute_row_set_isa(isa);
    r.sum = compute_row_sum(x, n);
    r.max = compute_row_max(x, n);
    compute_row_exp(r.exp, x, 0.25f, n);
    compute_row_softmax(r.softmax, x, n);
    r.shared_max = compute_row_max(x, n);
    r.log_sum = compute_row_log_sum(x, r.shared_max, n, scratch);
    compute_row_set_isa(COMPUTE_ISA_AUTO);
    return r;
}

static void row_functions_have_equal_bits_on_every_instruction_set(void **state)
{
    (void)state;
    compute_thread_init();
    for (size_t n = 1; n <= 300; n += n < 70 ? 1 : 23) {
        for (uint64_t seed = 0; seed < 8; seed++) {
            float *x = any_values(seed * 1000 + n, n, seed % 2 == 1);
            row_results expected = row_results_of(COMPUTE_ISA_PORTABLE, x, n), got;

            if (seed >= 4) {
                x[seed % n] = seed == 4 ? NAN : seed == 5 ? INFINITY : seed == 6 ? -INFINITY : -200.0f;
                expected = row_results_of(COMPUTE_ISA_PORTABLE, x, n);
            }
            for (int isa = COMPUTE_ISA_AVX2; isa <= COMPUTE_ISA_AUTO; isa++) {
                if (compute_isa_available((compute_isa)isa)) {
                    got = row_results_of((compute_isa)isa, x, n);
                    assert_same_bits(&got, &expected, sizeof(got) / sizeof(float), COMPUTE_F32,
                                     compute_isa_name((compute_isa)isa));
                }
            }
            free(x);
        }
    }
}

static void row_exp_has_the_bits_of_the_scalar_exp(void **state)
{
    float x[160], y[160], expected[160];

    (void)state;
    compute_thread_init();
    for (uint32_t u = 0; u < 0xffffff00u - 160u * 4001u; u += 160u * 4001u) {
        for (uint32_t i = 0; i < 160; i++) {
            x[i] = bits_to_f32(u + i * 4001u);
            expected[i] = compute_exp(x[i]);
        }
        compute_row_exp(y, x, 0.0f, 160);
        assert_same_bits(y, expected, 160, COMPUTE_F32, "exp");
    }
}

static void row_sum_keeps_16_strided_sums_and_folds_them(void **state)
{
    float x[40], p[16] = {0};

    (void)state;
    compute_thread_init();
    for (size_t i = 0; i < 40; i++) {
        x[i] = 1.0f / (float)(3 * i + 1);
        p[i % 16] += x[i];
    }
    for (size_t w = 8; w > 0; w /= 2) {
        for (size_t j = 0; j < w; j++) {
            p[j] += p[j + w];
        }
    }
    assert_int_equal(f32_to_bits(compute_row_sum(x, 40)), f32_to_bits(p[0]));
}

static void row_max_is_nan_if_any_entry_is(void **state)
{
    float x[50] = {0};

    (void)state;
    for (size_t i = 0; i < 50; i++) {
        x[i] = NAN;
        assert_true(isnan(compute_row_max(x, 50)));
        x[i] = 1.0f;
    }
}

static void a_zero_maximum_is_positive(void **state)
{
    float x[33];

    (void)state;
    for (size_t i = 0; i < 33; i++) {
        x[i] = -0.0f;
    }
    assert_int_equal(f32_to_bits(compute_row_max(x, 33)), 0);
    assert_int_equal(f32_to_bits(compute_row_max(x, 3)), 0);
}

static void softmax_sums_to_one_and_keeps_the_order(void **state)
{
    float x[] = {1.0f, 3.0f, 2.0f, -200.0f};

    (void)state;
    compute_row_softmax(x, x, 4);
    assert_true(x[1] > x[2] && x[2] > x[0] && x[3] == 0.0f);
    assert_float_equal(x[0] + x[1] + x[2] + x[3], 1.0f, 1e-6f);
}

static void rope_table_is_cosine_and_sine_in_double(void **state)
{
    float table[3 * 8];
    double frequencies[4];

    (void)state;
    compute_rope_frequencies(frequencies, 8, 10000.0);
    compute_rope_table(table, 3, 8, frequencies, 1.0, 1.0);
    assert_int_equal(f32_to_bits(table[0]), f32_to_bits(1.0f));
    assert_int_equal(f32_to_bits(table[4]), f32_to_bits(0.0f));
    assert_int_equal(f32_to_bits(table[16 + 1]), f32_to_bits((float)cos(2.0 * pow(10000.0, -0.25))));
    assert_int_equal(f32_to_bits(table[16 + 4 + 3]), f32_to_bits((float)sin(2.0 * pow(10000.0, -0.75))));
}

static void a_scaled_rope_table_turns_more_slowly(void **state)
{
    float table[3 * 8], slow[5 * 8];
    double frequencies[4];

    (void)state;
    compute_rope_frequencies(frequencies, 8, 10000.0);
    compute_rope_table(table, 3, 8, frequencies, 1.0, 1.0);
    compute_rope_table(slow, 5, 8, frequencies, 0.5, 1.0);
    assert_memory_equal(slow + 4 * 8, table + 2 * 8, 8 * sizeof(float));
    assert_int_equal(f32_to_bits(slow[8]), f32_to_bits((float)cos(0.5)));
}

static void a_magnitude_is_applied_before_the_table_is_rounded(void **state)
{
    const double frequency = 0.3;
    float table[3 * 2];

    (void)state;
    compute_rope_table(table, 3, 2, &frequency, 1.0, 1.1);
    assert_int_equal(f32_to_bits(table[0]), f32_to_bits(1.1f));
    assert_int_equal(f32_to_bits(table[4]), f32_to_bits((float)(1.1 * cos(2.0 * 0.3))));
    assert_int_equal(f32_to_bits(table[5]), f32_to_bits((float)(1.1 * sin(2.0 * 0.3))));
}

static void names_parse_back(void **state)
{
    compute_class c;

    (void)state;
    assert_true(compute_class_parse("bf16-1", &c));
    assert_int_equal(c, COMPUTE_CLASS_BF16_1);
    assert_false(compute_class_parse("bf16-2", &c));
    assert_int_equal(compute_class_dtype(COMPUTE_CLASS_F32_1), COMPUTE_F32);
    assert_string_equal(compute_dtype_name(COMPUTE_BF16), "BF16");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exp_is_within_1_ulp),
        cmocka_unit_test(log_is_within_1_ulp),
        cmocka_unit_test(log1p_is_within_1_and_a_half_ulp),
        cmocka_unit_test(erf_is_within_1_and_a_half_ulp),
        cmocka_unit_test(tanh_is_within_1_and_a_half_ulp),
        cmocka_unit_test(sigmoid_and_silu_are_within_2_and_a_half_ulp),
        cmocka_unit_test(gelus_are_the_golden_values),
        cmocka_unit_test(gelus_are_within_1_and_three_quarter_ulp_for_positive_arguments),
        cmocka_unit_test(exp_is_zero_below_minus_88_and_keeps_nan),
        cmocka_unit_test(log_of_zero_denormals_and_negatives_is_defined),
        cmocka_unit_test(f16_widens_exactly_denormals_included),
        cmocka_unit_test(bf16_rounds_to_nearest_even),
        cmocka_unit_test(bf16_of_a_denormal_is_a_zero_of_its_sign),
        cmocka_unit_test(bf16_of_a_nan_is_a_quiet_nan),
        cmocka_unit_test(every_device_rounds_to_bf16_as_the_scalar_does),
        cmocka_unit_test(row_functions_have_equal_bits_on_every_instruction_set),
        cmocka_unit_test(row_exp_has_the_bits_of_the_scalar_exp),
        cmocka_unit_test(row_sum_keeps_16_strided_sums_and_folds_them),
        cmocka_unit_test(row_max_is_nan_if_any_entry_is),
        cmocka_unit_test(a_zero_maximum_is_positive),
        cmocka_unit_test(softmax_sums_to_one_and_keeps_the_order),
        cmocka_unit_test(rope_table_is_cosine_and_sine_in_double),
        cmocka_unit_test(a_scaled_rope_table_turns_more_slowly),
        cmocka_unit_test(a_magnitude_is_applied_before_the_table_is_rounded),
        cmocka_unit_test(names_parse_back),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
