#include "tests/support/support.h"

static void the_real_clock_never_goes_back(void **state)
{
    uint64_t last = moe_now_ns(moe_clock_real());

    (void)state;
    for (int i = 0; i < 1000; i++) {
        uint64_t now = moe_now_ns(moe_clock_real());

        assert_true(now >= last);
        last = now;
    }
}

static void the_virtual_clock_stands_until_advanced(void **state)
{
    moe_clock_virtual v;

    (void)state;
    moe_clock_virtual_init(&v, 5);
    assert_int_equal(moe_now_ns(&v.clock), 5);
    moe_clock_virtual_advance(&v, 7);
    assert_int_equal(moe_now_ns(&v.clock), 12);
}

static void the_generator_gives_the_published_sequence(void **state)
{
    /* splitmix64 of seed 1234567, as published with the reference code */
    static const uint64_t expected[] = {6457827717110365317u, 3203168211198807973u, 9817491932198370423u};
    moe_random r;

    (void)state;
    moe_random_seed(&r, 1234567);
    for (size_t i = 0; i < MOE_COUNT(expected); i++) {
        assert_true(moe_random_u64(&r) == expected[i]);
    }
}

static void below_reaches_every_value_and_no_other(void **state)
{
    size_t seen[5] = {0};
    moe_random r;

    (void)state;
    moe_random_seed(&r, 1);
    for (int i = 0; i < 1000; i++) {
        uint64_t v = moe_random_below(&r, 5);

        assert_true(v < 5);
        seen[v]++;
    }
    for (size_t i = 0; i < 5; i++) {
        assert_true(seen[i] > 100);
    }
}

static void unit_stays_below_one(void **state)
{
    moe_random r;

    (void)state;
    moe_random_seed(&r, 2);
    for (int i = 0; i < 10000; i++) {
        double v = moe_random_unit(&r);

        assert_true(v >= 0 && v < 1);
    }
}

static void entropy_differs(void **state)
{
    (void)state;
    assert_true(moe_random_entropy() != moe_random_entropy());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_real_clock_never_goes_back),
        cmocka_unit_test(the_virtual_clock_stands_until_advanced),
        cmocka_unit_test(the_generator_gives_the_published_sequence),
        cmocka_unit_test(below_reaches_every_value_and_no_other),
        cmocka_unit_test(unit_stays_below_one),
        cmocka_unit_test(entropy_differs),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
