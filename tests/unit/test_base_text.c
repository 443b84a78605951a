#include "tests/support/support.h"

static void text_grows_and_stays_terminated(void **state)
{
    moe_text t;

    (void)state;
    moe_text_init(&t, 10000);
    for (int i = 0; i < 1000; i++) {
        moe_text_printf(&t, "%d", i % 10);
        moe_text_append(&t, "x", 1);
    }
    assert_int_equal(t.size, 2000);
    assert_int_equal(strlen(moe_text_cstr(&t)), 2000);
    moe_text_fini(&t);
}

static void a_secret_text_grows_like_any_other(void **state)
{
    moe_text t;

    (void)state;
    moe_text_init_secret(&t, 1000);
    moe_text_append(&t, "", 0);
    for (int i = 0; i < 100; i++) {
        moe_text_printf(&t, "%d", i % 10);
    }
    assert_int_equal(t.size, 100);
    assert_int_equal(strncmp(moe_text_cstr(&t), "01234567890123", 14), 0);
    assert_int_equal(strlen(moe_text_cstr(&t)), 100);
    moe_text_fini(&t);
}

static void text_at_the_limit_is_kept(void **state)
{
    moe_text t;

    (void)state;
    moe_text_init(&t, 3);
    moe_text_append(&t, "abc", 3);
    assert_false(t.failed);
    assert_string_equal(moe_text_cstr(&t), "abc");
    moe_text_fini(&t);
}

static void text_over_the_limit_fails_and_stays_failed(void **state)
{
    moe_text t;

    (void)state;
    moe_text_init(&t, 3);
    moe_text_append(&t, "ab", 2);
    moe_text_printf(&t, "%s", "cd");
    moe_text_append(&t, "c", 1);
    assert_true(t.failed);
    assert_string_equal(moe_text_cstr(&t), "ab");
    moe_text_fini(&t);
}

static void empty_text_is_an_empty_string(void **state)
{
    moe_text t;

    (void)state;
    moe_text_init(&t, 3);
    assert_string_equal(moe_text_cstr(&t), "");
    moe_text_fini(&t);
}

static void json_strings_are_escaped(void **state)
{
    moe_text t;

    (void)state;
    moe_text_init(&t, 1000);
    moe_text_json_string(&t, "a\"\\\n\x01\xc3\xa9\xff\0z", 10);
    assert_string_equal(moe_text_cstr(&t), "\"a\\\"\\\\\\n\\u0001\xc3\xa9\xef\xbf\xbd\\u0000z\"");
    moe_text_fini(&t);
}

static void json_strings_end_where_they_are_cut(void **state)
{
    moe_text t;

    (void)state;
    moe_text_init(&t, 1000);
    moe_text_json_string(&t, "a\xe2\x82", 3);
    assert_string_equal(moe_text_cstr(&t), "\"a\xef\xbf\xbd\xef\xbf\xbd\"");
    moe_text_fini(&t);
}

static void valid_utf8_is_accepted_to_its_end(void **state)
{
    /* the first and last character of every length, and both edges of the surrogates */
    static const char *const valid[] = {"\x01\x7f",
                                        "\xc2\x80\xdf\xbf",
                                        "\xe0\xa0\x80\xef\xbf\xbf",
                                        "\xed\x9f\xbf\xee\x80\x80",
                                        "\xf0\x90\x80\x80\xf4\x8f\xbf\xbf",
                                        ""};

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(valid); i++) {
        assert_int_equal(moe_utf8_valid_prefix(valid[i], strlen(valid[i])), strlen(valid[i]));
    }
}

static void invalid_utf8_ends_the_prefix(void **state)
{
    static const char *const invalid[] = {"\x80",     /* continuation alone */
                                          "\xc0\x80", /* overlong */
                                          "\xc1\xbf",
                                          "\xe0\x9f\xbf",
                                          "\xf0\x8f\xbf\xbf",
                                          "\xed\xa0\x80",     /* surrogate */
                                          "\xf4\x90\x80\x80", /* above U+10FFFF */
                                          "\xf5\x80\x80\x80",
                                          "\xff",
                                          "\xc3",
                                          "\xe2\x82",
                                          "\xf0\x9f\x98", /* cut */
                                          "\xe2\x28\xa1",
                                          "\xf0\x9f\x28\x80"};

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(invalid); i++) {
        char text[8];
        int n = snprintf(text, sizeof text, "ok%s", invalid[i]);

        assert_int_equal(moe_utf8_valid_prefix(text, (size_t)n), 2);
    }
}

static void a_code_point_of_each_length_is_read(void **state)
{
    static const struct {
        const char *text;
        int32_t c;
    } all[] = {{"a", 'a'},
               {"\x7f", 0x7f},
               {"\xc2\x80", 0x80},
               {"\xdf\xbf", 0x7ff},
               {"\xe0\xa0\x80", 0x800},
               {"\xef\xbf\xbf", 0xffff},
               {"\xf0\x90\x80\x80", 0x10000},
               {"\xf4\x8f\xbf\xbf", 0x10ffff}};
    int32_t c;

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(all); i++) {
        assert_int_equal(moe_utf8_get(all[i].text, &c), strlen(all[i].text));
        assert_int_equal(c, all[i].c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_code_point_of_each_length_is_read),
        cmocka_unit_test(text_grows_and_stays_terminated),
        cmocka_unit_test(a_secret_text_grows_like_any_other),
        cmocka_unit_test(text_at_the_limit_is_kept),
        cmocka_unit_test(text_over_the_limit_fails_and_stays_failed),
        cmocka_unit_test(empty_text_is_an_empty_string),
        cmocka_unit_test(json_strings_are_escaped),
        cmocka_unit_test(json_strings_end_where_they_are_cut),
        cmocka_unit_test(valid_utf8_is_accepted_to_its_end),
        cmocka_unit_test(invalid_utf8_ends_the_prefix),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
