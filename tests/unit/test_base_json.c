#include "tests/support/support.h"

#include <math.h>

#define DEPTH 4

static moe_status parse(const char *text, moe_error *err)
{
    moe_json *json = NULL;
    moe_status status = moe_json_parse(text, strlen(text), DEPTH, &json, err);

    if (status == MOE_OK) {
        moe_json_free(json);
    }
    return status;
}

static void assert_corrupt(const char *text, const char *reason)
{
    moe_error err = {{0}};

    assert_int_equal(parse(text, &err), MOE_ERR_CORRUPT);
    assert_contains(err.text, reason);
}

static void text_needs_no_terminator(void **state)
{
    moe_json *json = NULL;
    moe_error err;

    (void)state;
    assert_ok(moe_json_parse("{\"a\":1}garbage", 7, DEPTH, &json, &err), err);
    moe_json_free(json);
}

static void the_allowed_depth_is_accepted(void **state)
{
    moe_error err;

    (void)state;
    assert_ok(parse("[[[[1]],[{}]]]", &err), err);
}

static void deeper_nesting_is_refused(void **state)
{
    (void)state;
    assert_corrupt("[[[[[1]]]]]", "nested deeper than 4");
    assert_corrupt("{\"a\":{\"a\":[[{}]]}}", "nested deeper than 4");
}

static void brackets_in_strings_are_no_nesting(void **state)
{
    moe_error err;

    (void)state;
    assert_ok(parse("[\"[[[[[[\\\"[[[[\\\\\"]", &err), err);
}

static void unbalanced_closings_do_not_hide_depth(void **state)
{
    (void)state;
    assert_corrupt("]]]][[[[[", "nested deeper");
}

static void the_line_of_an_error_is_named(void **state)
{
    (void)state;
    assert_corrupt("{\n\"a\": 1,\n!}", "line 3");
}

static void duplicate_keys_are_refused(void **state)
{
    (void)state;
    assert_corrupt("{\"a\":1,\"a\":1}", "duplicate");
}

static void a_bare_value_is_refused(void **state)
{
    (void)state;
    assert_corrupt("1", "line 1");
}

static void bytes_after_the_value_are_refused(void **state)
{
    (void)state;
    assert_corrupt("{} {}", "end of file expected");
}

static void integers_beyond_64_bits_are_refused(void **state)
{
    (void)state;
    assert_corrupt("[9223372036854775808]", "too big");
    assert_corrupt("[-9223372036854775809]", "too big");
}

static void reals_beyond_range_are_refused(void **state)
{
    (void)state;
    assert_corrupt("[1e999]", "overflow");
}

static void invalid_utf8_is_refused(void **state)
{
    (void)state;
    assert_corrupt("[\"\xff\"]", "unable to decode byte");
    assert_corrupt("[\"\xed\xa0\x80\"]", "unable to decode byte");
}

static void words_that_json_lacks_are_refused(void **state)
{
    static const char *const texts[] = {"[NaN]", "[Infinity]",    "[01]", "[1,]", "{a:1}",
                                        "['a']", "[\"\\u0000\"]", "",     "[",    "[\"a"};
    moe_error err;

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(texts); i++) {
        assert_int_equal(parse(texts[i], &err), MOE_ERR_CORRUPT);
    }
}

/* ------------------------------------------------------------------------------------------------ fields */

static int setup(void **state)
{
    static const char text[] = "{\"int\":7,\"max\":9223372036854775807,\"real\":0.5,\"whole\":3.0,\"huge\":1e300,"
                               "\"edge\":9223372036854775808.0,"
                               "\"yes\":true,\"text\":\"abc\",\"null\":null}";
    moe_json *json = NULL;
    moe_error err;

    assert_ok(moe_json_parse(text, sizeof text - 1, DEPTH, &json, &err), err);
    *state = json;
    return 0;
}

static int teardown(void **state)
{
    moe_json_free(*state);
    return 0;
}

static moe_status get_int(void **state, const char *key, int64_t *out, moe_error *err)
{
    return moe_json_int(*state, key, INT64_MIN, INT64_MAX, out, NULL, err);
}

static void integers_keep_64_bits(void **state)
{
    int64_t v = 0;
    moe_error err;

    assert_ok(get_int(state, "max", &v, &err), err);
    assert_true(v == INT64_MAX);
}

static void a_whole_real_is_an_integer(void **state)
{
    int64_t v = 0;
    moe_error err;

    assert_ok(get_int(state, "whole", &v, &err), err);
    assert_int_equal(v, 3);
}

static void other_reals_are_no_integers(void **state)
{
    static const char *const keys[] = {"real", "huge", "edge"};
    int64_t v = 0;
    moe_error err;

    for (size_t i = 0; i < MOE_COUNT(keys); i++) {
        assert_int_equal(get_int(state, keys[i], &v, &err), MOE_ERR_INVALID_ARG);
        assert_contains(err.text, "must be an integer");
    }
}

static void absent_and_null_leave_the_output(void **state)
{
    static const char *const keys[] = {"absent", "null"};
    moe_error err;

    for (size_t i = 0; i < MOE_COUNT(keys); i++) {
        int64_t v = 42;
        bool found = true;

        assert_ok(moe_json_int(*state, keys[i], 0, 1, &v, &found, &err), err);
        assert_false(found);
        assert_int_equal(v, 42);
    }
}

static void what_is_there_is_found(void **state)
{
    int64_t v;
    bool found = false;
    moe_error err;

    assert_ok(moe_json_int(*state, "int", 7, 7, &v, &found, &err), err);
    assert_true(found);
}

static void an_integer_out_of_range_names_key_value_and_limits(void **state)
{
    int64_t v = 0;
    moe_error err;

    assert_int_equal(moe_json_int(*state, "int", 8, 9, &v, NULL, &err), MOE_ERR_INVALID_ARG);
    assert_string_equal(err.text, "int: 7 must be within [8, 9]");
    assert_int_equal(v, 0);
}

static void a_real_out_of_range_names_key_value_and_limits(void **state)
{
    double v = 0;
    moe_error err;

    assert_int_equal(moe_json_real(*state, "real", 1, 2, &v, NULL, &err), MOE_ERR_INVALID_ARG);
    assert_string_equal(err.text, "real: 0.5 must be within [1, 2]");
}

static void an_integer_is_a_real(void **state)
{
    double v = 0;
    moe_error err;

    assert_ok(moe_json_real(*state, "int", 0, 10, &v, NULL, &err), err);
    assert_true(v == 7.0);
}

static void booleans_and_strings_are_read(void **state)
{
    bool yes = false;
    const char *text = "";
    moe_error err;

    assert_ok(moe_json_bool(*state, "yes", &yes, NULL, &err), err);
    assert_ok(moe_json_string(*state, "text", &text, NULL, &err), err);
    assert_true(yes);
    assert_string_equal(text, "abc");
}

static void a_wrong_type_is_named(void **state)
{
    int64_t i;
    double r;
    bool b;
    const char *s;
    moe_error err;

    assert_int_equal(get_int(state, "text", &i, &err), MOE_ERR_INVALID_ARG);
    assert_string_equal(err.text, "text: must be an integer, is \"abc\"");
    assert_int_equal(moe_json_real(*state, "yes", 0, 1, &r, NULL, &err), MOE_ERR_INVALID_ARG);
    assert_string_equal(err.text, "yes: must be a number, is a boolean");
    assert_int_equal(moe_json_bool(*state, "int", &b, NULL, &err), MOE_ERR_INVALID_ARG);
    assert_string_equal(err.text, "int: must be true or false, is a number");
    assert_int_equal(moe_json_string(*state, "int", &s, NULL, &err), MOE_ERR_INVALID_ARG);
    assert_string_equal(err.text, "int: must be a string, is a number");
}

static void a_broken_file_is_named(void **state)
{
    const char *path = test_folder_path(*state, "broken.json");
    moe_json *json;
    moe_error err;

    test_write_text(path, "{\n");
    assert_int_equal(moe_json_load(path, 100, DEPTH, &json, &err), MOE_ERR_CORRUPT);
    assert_contains(err.text, "broken.json: line ");
}

static void an_oversized_file_is_refused(void **state)
{
    const char *path = test_folder_path(*state, "large.json");
    moe_json *json;
    moe_error err;

    test_write_text(path, "[1,2,3]");
    assert_int_equal(moe_json_load(path, 6, DEPTH, &json, &err), MOE_ERR_INVALID_ARG);
}

#define FIELD_TEST(test)  cmocka_unit_test_setup_teardown(test, setup, teardown)
#define FOLDER_TEST(test) cmocka_unit_test_setup_teardown(test, test_folder_setup, test_folder_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_needs_no_terminator),
        cmocka_unit_test(the_allowed_depth_is_accepted),
        cmocka_unit_test(deeper_nesting_is_refused),
        cmocka_unit_test(brackets_in_strings_are_no_nesting),
        cmocka_unit_test(unbalanced_closings_do_not_hide_depth),
        cmocka_unit_test(the_line_of_an_error_is_named),
        cmocka_unit_test(duplicate_keys_are_refused),
        cmocka_unit_test(a_bare_value_is_refused),
        cmocka_unit_test(bytes_after_the_value_are_refused),
        cmocka_unit_test(integers_beyond_64_bits_are_refused),
        cmocka_unit_test(reals_beyond_range_are_refused),
        cmocka_unit_test(invalid_utf8_is_refused),
        cmocka_unit_test(words_that_json_lacks_are_refused),
        FIELD_TEST(integers_keep_64_bits),
        FIELD_TEST(a_whole_real_is_an_integer),
        FIELD_TEST(other_reals_are_no_integers),
        FIELD_TEST(absent_and_null_leave_the_output),
        FIELD_TEST(what_is_there_is_found),
        FIELD_TEST(an_integer_out_of_range_names_key_value_and_limits),
        FIELD_TEST(a_real_out_of_range_names_key_value_and_limits),
        FIELD_TEST(an_integer_is_a_real),
        FIELD_TEST(booleans_and_strings_are_read),
        FIELD_TEST(a_wrong_type_is_named),
        FOLDER_TEST(a_broken_file_is_named),
        FOLDER_TEST(an_oversized_file_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
