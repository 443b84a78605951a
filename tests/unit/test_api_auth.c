#include "api/grpc/auth_priv.h"
#include "tests/support/support.h"

static auth *open_tokens(const test_folder *folder, const char *text)
{
    auth *a = NULL;
    moe_error err;

    test_write_text(test_folder_path(folder, "tokens"), text);
    assert_ok(auth_open(test_folder_path(folder, "tokens"), &a, &err), err);
    return a;
}

static bool accepts(const auth *a, const char *value)
{
    permits p;

    return auth_accepts(a, value, strlen(value), &p);
}

static void every_token_of_the_file_is_accepted(void **state)
{
    auth *a = open_tokens(*state, "one\r\n\n# comment\n  # indented\ntwo \n");

    assert_true(accepts(a, "Bearer one"));
    assert_true(accepts(a, "bearer two"));
    auth_close(a);
}

static void other_values_are_refused(void **state)
{
    static const char *const wrong[] = {
        "", "Bearer", "Bearer ", "Bearer on", "Bearer onee", "Bearer one ", "one", "Basic one", "Bearer # comment"};
    auth *a = open_tokens(*state, "one\n# comment\n");

    for (size_t i = 0; i < MOE_COUNT(wrong); i++) {
        assert_false(accepts(a, wrong[i]));
    }
    auth_close(a);
}

static void a_longer_value_than_any_token_is_refused(void **state)
{
    char value[2000];
    auth *a = open_tokens(*state, "one\n");

    memset(value, 'x', sizeof(value));
    memcpy(value, "Bearer ", 7);
    assert_false(auth_accepts(a, value, sizeof(value), &(permits){.bound = false}));
    auth_close(a);
}

static void a_token_padded_with_zeroes_is_refused(void **state)
{
    auth *a = open_tokens(*state, "one\n");

    assert_false(auth_accepts(a, "Bearer one\0\0", 12, &(permits){.bound = false}));
    auth_close(a);
}

static void assert_file_refused(const test_folder *folder, const char *text, const char *why)
{
    auth *a = NULL;
    moe_error err;

    test_write_text(test_folder_path(folder, "tokens"), text);
    assert_int_equal(auth_open(test_folder_path(folder, "tokens"), &a, &err), MOE_ERR_INVALID_ARG);
    assert_contains(err.text, why);
}

static void a_file_without_token_is_refused(void **state)
{
    assert_file_refused(*state, "# nothing\n\n", "no token");
}

static void a_token_with_blanks_is_refused(void **state)
{
    assert_file_refused(*state, "one\ntw o\n", "line 2");
}

static void a_token_may_be_bound_to_sets(void **state)
{
    auth *a = open_tokens(*state, "one\ntwo  sets=de,fr-1\n");
    permits p;

    assert_true(auth_accepts(a, "Bearer one", 10, &p));
    assert_false(p.bound);
    assert_true(auth_accepts(a, "Bearer two", 10, &p));
    assert_true(p.bound);
    assert_int_equal(p.n, 2);
    assert_string_equal(p.names[0], "de");
    assert_string_equal(p.names[1], "fr-1");
    assert_false(accepts(a, "Bearer two  sets=de,fr-1"));
    auth_close(a);
}

static void a_token_is_bound_in_one_way(void **state)
{
    assert_file_refused(*state, "two\none sets=de\none\n", "twice");
    assert_file_refused(*state, "one\none sets=de\n", "twice");
    assert_file_refused(*state, "one sets=de\none sets=de,fr\n", "twice");
    auth_close(open_tokens(*state, "one sets=de\ntwo\none sets=de\ntwo\n"));
}

static void what_follows_a_token_is_a_list_of_sets(void **state)
{
    static const char *const bad[] = {
        "one sets=", "one sets=a,",  "one sets=,a",   "one sets=a b",
        "one set=a", "one sets=a/b", "one sets=a,,b", "one sets=a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q"};

    for (size_t i = 0; i < MOE_COUNT(bad); i++) {
        assert_file_refused(*state, bad[i], "sets=NAME");
    }
}

static void a_token_that_is_too_long_is_refused(void **state)
{
    char text[AUTH_MAX_TOKEN_BYTES + 3];

    memset(text, 'x', sizeof(text));
    text[sizeof(text) - 2] = '\n';
    text[sizeof(text) - 1] = '\0';
    assert_file_refused(*state, text, "at most");
}

static void a_changed_file_is_taken_up(void **state)
{
    auth *a = open_tokens(*state, "one\n");

    test_write_text(test_folder_path(*state, "tokens"), "three\n");
    auth_refresh(a);
    assert_true(accepts(a, "Bearer three"));
    assert_false(accepts(a, "Bearer one"));
    auth_close(a);
}

static void a_bad_new_file_leaves_the_old_tokens(void **state)
{
    auth *a = open_tokens(*state, "one\n");

    test_write_text(test_folder_path(*state, "tokens"), "");
    auth_refresh(a);
    assert_true(accepts(a, "Bearer one"));
    auth_close(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(every_token_of_the_file_is_accepted, test_folder_setup, test_folder_teardown),
        cmocka_unit_test_setup_teardown(other_values_are_refused, test_folder_setup, test_folder_teardown),
        cmocka_unit_test_setup_teardown(a_longer_value_than_any_token_is_refused, test_folder_setup,
                                        test_folder_teardown),
        cmocka_unit_test_setup_teardown(a_token_padded_with_zeroes_is_refused, test_folder_setup, test_folder_teardown),
        cmocka_unit_test_setup_teardown(a_file_without_token_is_refused, test_folder_setup, test_folder_teardown),
        cmocka_unit_test_setup_teardown(a_token_may_be_bound_to_sets, test_folder_setup, test_folder_teardown),
        cmocka_unit_test_setup_teardown(a_token_is_bound_in_one_way, test_folder_setup, test_folder_teardown),
        cmocka_unit_test_setup_teardown(what_follows_a_token_is_a_list_of_sets, test_folder_setup,
                                        test_folder_teardown),
        cmocka_unit_test_setup_teardown(a_token_with_blanks_is_refused, test_folder_setup, test_folder_teardown),
        cmocka_unit_test_setup_teardown(a_token_that_is_too_long_is_refused, test_folder_setup, test_folder_teardown),
        cmocka_unit_test_setup_teardown(a_changed_file_is_taken_up, test_folder_setup, test_folder_teardown),
        cmocka_unit_test_setup_teardown(a_bad_new_file_leaves_the_old_tokens, test_folder_setup, test_folder_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
