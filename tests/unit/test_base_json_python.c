/* What Python's json module writes and strict JSON has not. */
#include "tests/support/support.h"

#include <math.h>

#define DEPTH 4

static moe_json *parsed(const char *text)
{
    moe_json *json = NULL;
    moe_error err = {{0}};

    assert_ok(moe_json_parse_python(text, strlen(text), DEPTH, &json, &err), err);
    return json;
}

static void assert_refused(const char *text, const char *reason)
{
    moe_json *json = NULL;
    moe_error err = {{0}};

    if (moe_json_parse_python(text, strlen(text), DEPTH, &json, &err) != MOE_ERR_CORRUPT) {
        fail_msg("%s is accepted", text);
    }
    assert_contains(err.text, reason);
}

/* The refusal of `a` as a real, an integer and a string. */
static void assert_unreadable(const char *text, const char *real, const char *integer)
{
    moe_json *json = parsed(text);
    double number = 7.0;
    int64_t n = 7;
    moe_error err;

    assert_int_equal(moe_json_real(json, "a", -1e300, 1e300, &number, NULL, &err), MOE_ERR_INVALID_ARG);
    assert_contains(err.text, real);
    assert_int_equal(moe_json_int(json, "a", INT64_MIN, INT64_MAX, &n, NULL, &err), MOE_ERR_INVALID_ARG);
    assert_contains(err.text, integer);
    assert_true(number == 7.0 && n == 7);
    moe_json_free(json);
}

static void a_key_that_nobody_reads_refuses_no_file(void **state)
{
    static const char text[] = "{\"max_length\": 1000000000000000019884624838656, \"score\": NaN,\n"
                               " \"range\": [-Infinity, Infinity, 1e999, -1e999], \"read\": 5}";
    moe_json *json = parsed(text);
    int64_t read = 0;
    moe_error err;

    (void)state;
    assert_ok(moe_json_int(json, "read", 0, 9, &read, NULL, &err), err);
    assert_int_equal(read, 5);
    moe_json_free(json);
}

static void a_key_that_is_read_refuses_them_by_name(void **state)
{
    (void)state;
    assert_unreadable("{\"a\":NaN}", "a: must be a number, is \"NaN\"", "a: must be an integer, is \"NaN\"");
    assert_unreadable("{\"a\":-Infinity}", "a: must be a number, is \"-Infinity\"", "is \"-Infinity\"");
    assert_unreadable("{\"a\":1e400}", "a: must be a number, is \"Infinity\"", "is \"Infinity\"");
}

static void an_integer_beyond_64_bits_is_a_real(void **state)
{
    moe_json *json = parsed("{\"a\":100000000000000000000,\"b\":-9223372036854775809}");
    double a = 0.0, b = 0.0;
    int64_t n = 0;
    moe_error err;

    (void)state;
    assert_ok(moe_json_real(json, "a", 0.0, 1e30, &a, NULL, &err), err);
    assert_ok(moe_json_real(json, "b", -1e30, 0.0, &b, NULL, &err), err);
    assert_true(a == 1e20 && b == -0x1p63);
    assert_int_equal(moe_json_int(json, "a", 0, INT64_MAX, &n, NULL, &err), MOE_ERR_INVALID_ARG);
    assert_contains(err.text, "a: must be an integer, is 1e+20");
    moe_json_free(json);
}

static void integers_keep_64_bits(void **state)
{
    moe_json *json = parsed("{\"a\":-9223372036854775808,\"b\":9223372036854775807}");
    int64_t a = 0, b = 0;
    moe_error err;

    (void)state;
    assert_ok(moe_json_int(json, "a", INT64_MIN, 0, &a, NULL, &err), err);
    assert_ok(moe_json_int(json, "b", 0, INT64_MAX, &b, NULL, &err), err);
    assert_true(a == INT64_MIN && b == INT64_MAX);
    moe_json_free(json);
}

static void strings_keep_what_looks_like_it(void **state)
{
    moe_json *json = parsed("{\"a\":\"NaN \\\"Infinity\\\\\",\"NaN\":\"1e999\"}");
    const char *a = NULL, *nan = NULL;
    moe_error err;

    (void)state;
    assert_ok(moe_json_string(json, "a", &a, NULL, &err), err);
    assert_ok(moe_json_string(json, "NaN", &nan, NULL, &err), err);
    assert_string_equal(a, "NaN \"Infinity\\");
    assert_string_equal(nan, "1e999");
    moe_json_free(json);
}

static void what_python_refuses_too_is_refused(void **state)
{
    (void)state;
    assert_refused("{NaN:1}", "line 1");
    assert_refused("{\"a\":1,\nInfinity :1}", "line 2");
    assert_refused("{\"a\":nan}", "line 1");
    assert_refused("{\"a\":NaNs}", "line 1");
    assert_refused("{\"a\":-}", "line 1");
    assert_refused("{\"a\":--Infinity}", "line 1");
    assert_refused("{\"a\":1-99999999999999999999}", "line 1");
    assert_refused("{\"a\":01}", "line 1");
    assert_refused("{\"a\":\"NaN}", "line 1");
    assert_refused("{\"a\":\"\\", "line 1");
    assert_refused("", "line 1");
    assert_refused("[[[[[NaN]]]]]", "nested deeper than 4 levels");
}

static void the_line_of_an_error_is_that_of_the_file(void **state)
{
    (void)state;
    assert_refused("{\"a\":NaN,\n\"b\":99999999999999999999,\n\"c\":}", "line 3");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_key_that_nobody_reads_refuses_no_file),
        cmocka_unit_test(a_key_that_is_read_refuses_them_by_name),
        cmocka_unit_test(an_integer_beyond_64_bits_is_a_real),
        cmocka_unit_test(integers_keep_64_bits),
        cmocka_unit_test(strings_keep_what_looks_like_it),
        cmocka_unit_test(what_python_refuses_too_is_refused),
        cmocka_unit_test(the_line_of_an_error_is_that_of_the_file),
    };

    return cmocka_run_group_tests_name("base json_python", tests, NULL, NULL);
}
