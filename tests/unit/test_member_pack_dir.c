/* Where packs of other members are kept: beside the cached manifest, wherever that is. */
#include "member/member.h"
#include "tests/support/support.h"

#include <stdlib.h>

static void assert_dir(const char *cache_dir, const char *xdg, const char *home, const char *expected)
{
    const member_config config = {.cache_dir = (char *)(uintptr_t)cache_dir};
    char dir[MEMBER_MAX_PATH];

    assert_int_equal(xdg != NULL ? setenv("XDG_CACHE_HOME", xdg, 1) : unsetenv("XDG_CACHE_HOME"), 0);
    assert_int_equal(home != NULL ? setenv("HOME", home, 1) : unsetenv("HOME"), 0);
    member_pack_dir(&config, dir);
    assert_string_equal(dir, expected);
}

static void packs_lie_below_the_directory_of_the_cache(void **state)
{
    (void)state;
    assert_dir("some/cache", "/xdg", "/home/me", "some/cache/packs");
    assert_dir("", "/xdg", "/home/me", "");
    assert_dir(NULL, "/xdg", "/home/me", "/xdg/conclave/packs");
    assert_dir(NULL, "", "/home/me", "/home/me/.cache/conclave/packs");
    assert_dir(NULL, NULL, "/home/me", "/home/me/.cache/conclave/packs");
    assert_dir(NULL, NULL, NULL, "");
}

/* The base directory specification: relative ones are ignored. The manifest would be elsewhere. */
static void a_relative_one_of_the_environment_is_none(void **state)
{
    (void)state;
    assert_dir(NULL, "xdg", "/home/me", "/home/me/.cache/conclave/packs");
    assert_dir(NULL, "xdg", "me", "");
}

static void one_that_is_too_long_is_none(void **state)
{
    char longest[MEMBER_MAX_PATH - sizeof "/packs" + 1], longer[sizeof longest + 1], expected[MEMBER_MAX_PATH];

    (void)state;
    memset(longest, 'x', sizeof longest);
    longest[sizeof longest - 1] = '\0';
    memset(longer, 'x', sizeof longer);
    longer[sizeof longer - 1] = '\0';
    (void)snprintf(expected, sizeof expected, "%s/packs", longest);
    assert_dir(longest, NULL, NULL, expected);
    assert_dir(longer, NULL, NULL, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(packs_lie_below_the_directory_of_the_cache),
        cmocka_unit_test(a_relative_one_of_the_environment_is_none),
        cmocka_unit_test(one_that_is_too_long_is_none),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
