#include "tests/support/support.h"

static void every_status_has_its_own_text(void **state)
{
    (void)state;
#define X(name, value, text) assert_string_equal(moe_status_text(name), text);
    MOE_STATUS_MAP(X)
#undef X
}

static void a_number_that_is_no_status_has_a_text(void **state)
{
    (void)state;
    assert_string_equal(moe_status_text((moe_status)-99), "unknown status");
}

static void fail_formats_the_reason_and_returns_the_status(void **state)
{
    moe_error err;

    (void)state;
    assert_int_equal(moe_fail(&err, MOE_ERR_BUSY, "%s %d", "rows", 7), MOE_ERR_BUSY);
    assert_string_equal(err.text, "rows 7");
}

static void fail_needs_no_error(void **state)
{
    (void)state;
    assert_int_equal(moe_fail(NULL, MOE_ERR_IO, "%d", 1), MOE_ERR_IO);
}

static void fail_truncates(void **state)
{
    moe_error err;

    (void)state;
    (void)moe_fail(&err, MOE_ERR_IO, "%1000d", 1);
    assert_int_equal(strlen(err.text), sizeof err.text - 1);
}

static void a_reason_may_quote_the_one_before(void **state)
{
    moe_error err;

    (void)state;
    (void)moe_fail(&err, MOE_ERR_IO, "inner");
    (void)moe_fail(&err, MOE_ERR_IO, "outer: %s", err.text);
    assert_string_equal(err.text, "outer: inner");
}

static void a_reason_is_one_line_of_utf8(void **state)
{
    moe_error err;

    (void)state;
    (void)moe_fail(&err, MOE_ERR_IO, "%s", "a\nb\x1b[31m\xff \xc3\xa9");
    assert_string_equal(err.text, "a?b?[31m? \xc3\xa9");
}

static void a_reason_cut_inside_a_character_stays_utf8(void **state)
{
    moe_error err;

    (void)state;
    (void)moe_fail(&err, MOE_ERR_IO, "%382s\xc3\xa9", "");
    assert_int_equal(moe_utf8_valid_prefix(err.text, strlen(err.text)), strlen(err.text));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_status_has_its_own_text),
        cmocka_unit_test(a_number_that_is_no_status_has_a_text),
        cmocka_unit_test(fail_formats_the_reason_and_returns_the_status),
        cmocka_unit_test(fail_needs_no_error),
        cmocka_unit_test(fail_truncates),
        cmocka_unit_test(a_reason_may_quote_the_one_before),
        cmocka_unit_test(a_reason_is_one_line_of_utf8),
        cmocka_unit_test(a_reason_cut_inside_a_character_stays_utf8),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
