#include "tests/support/support.h"

static void integers_are_little_endian(void **state)
{
    static const unsigned char expected[] = {1, 3, 2, 7, 6, 5, 4, 15, 14, 13, 12, 11, 10, 9, 8};
    unsigned char data[sizeof expected];
    moe_buf b;

    (void)state;
    moe_buf_init(&b, data, sizeof data);
    moe_put_u8(&b, 1);
    moe_put_u16(&b, 0x0203);
    moe_put_u32(&b, 0x04050607);
    moe_put_u64(&b, 0x08090a0b0c0d0e0f);
    assert_false(b.failed);
    assert_memory_equal(data, expected, sizeof expected);
}

static void integers_are_read_as_written(void **state)
{
    unsigned char data[15];
    moe_buf b;

    (void)state;
    moe_buf_init(&b, data, sizeof data);
    moe_put_u8(&b, 0xf1);
    moe_put_u16(&b, 0xf203);
    moe_put_u32(&b, 0xf4050607);
    moe_put_u64(&b, 0xf8090a0b0c0d0e0f);
    moe_buf_init(&b, data, sizeof data);
    assert_int_equal(moe_get_u8(&b), 0xf1);
    assert_int_equal(moe_get_u16(&b), 0xf203);
    assert_int_equal(moe_get_u32(&b), 0xf4050607);
    assert_true(moe_get_u64(&b) == 0xf8090a0b0c0d0e0f);
    assert_int_equal(moe_buf_left(&b), 0);
}

static void a_put_without_room_writes_nothing_and_fails(void **state)
{
    unsigned char data[4] = {9, 9, 9, 9};
    moe_buf b;

    (void)state;
    moe_buf_init(&b, data, 3);
    moe_put_u32(&b, 1);
    assert_true(b.failed);
    assert_int_equal(b.used, 0);
    assert_int_equal(data[0], 9);
}

static void after_a_failure_nothing_happens(void **state)
{
    unsigned char data[4] = {9, 9, 9, 9};
    moe_buf b;

    (void)state;
    moe_buf_init(&b, data, 3);
    moe_put_u32(&b, 1);
    moe_put_u8(&b, 1);
    assert_int_equal(data[0], 9);
    assert_int_equal(moe_buf_left(&b), 0);
}

static void a_short_get_gives_zero_and_fails(void **state)
{
    unsigned char data[3] = {1, 1, 1};
    moe_buf b;

    (void)state;
    moe_buf_init(&b, data, sizeof data);
    assert_int_equal(moe_get_u32(&b), 0);
    assert_true(b.failed);
    assert_int_equal(moe_get_u8(&b), 0);
}

static void a_length_near_the_end_of_memory_is_short(void **state)
{
    unsigned char data[3] = {1, 1, 1};
    moe_buf b;

    (void)state;
    moe_buf_init(&b, data, sizeof data);
    (void)moe_get_u8(&b);
    assert_null(moe_get_bytes(&b, SIZE_MAX));
    assert_true(b.failed);
}

static void bytes_are_borrowed_from_the_data(void **state)
{
    unsigned char data[3] = {1, 2, 3};
    moe_buf b;

    (void)state;
    moe_buf_init(&b, data, sizeof data);
    (void)moe_get_u8(&b);
    assert_ptr_equal(moe_get_bytes(&b, 2), data + 1);
}

static void reserved_bytes_are_the_callers_to_fill(void **state)
{
    unsigned char data[4] = {0};
    unsigned char *p;
    moe_buf b;

    (void)state;
    moe_buf_init(&b, data, sizeof data);
    p = moe_put_reserve(&b, 2);
    assert_ptr_equal(p, data);
    moe_put_bytes(&b, "xy", 2);
    assert_memory_equal(data + 2, "xy", 2);
    assert_null(moe_put_reserve(&b, 1));
}

static void an_empty_buf_needs_no_memory(void **state)
{
    moe_buf b;

    (void)state;
    moe_buf_init(&b, NULL, 0);
    moe_put_bytes(&b, NULL, 0);
    assert_non_null(moe_get_bytes(&b, 0));
    assert_false(b.failed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(integers_are_little_endian),
        cmocka_unit_test(integers_are_read_as_written),
        cmocka_unit_test(a_put_without_room_writes_nothing_and_fails),
        cmocka_unit_test(after_a_failure_nothing_happens),
        cmocka_unit_test(a_short_get_gives_zero_and_fails),
        cmocka_unit_test(a_length_near_the_end_of_memory_is_short),
        cmocka_unit_test(bytes_are_borrowed_from_the_data),
        cmocka_unit_test(reserved_bytes_are_the_callers_to_fill),
        cmocka_unit_test(an_empty_buf_needs_no_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
