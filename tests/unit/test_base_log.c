#include "tests/support/support.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

static int stderr_before = -1;

/* Standard error into a file for the length of a test. */
static int capture(void **state)
{
    int fd;

    if (test_folder_setup(state) != 0) {
        return -1;
    }
    fd = open(test_folder_path(*state, "log"), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    stderr_before = dup(STDERR_FILENO);
    (void)dup2(fd, STDERR_FILENO);
    (void)close(fd);
    moe_log_set_level(MOE_LOG_INFO);
    return 0;
}

static int release(void **state)
{
    moe_log_set_level(MOE_LOG_INFO);
    (void)dup2(stderr_before, STDERR_FILENO);
    (void)close(stderr_before);
    return test_folder_teardown(state);
}

/* What was logged, in static memory. */
static const char *logged(void **state)
{
    static char text[8192];
    char *all = test_read_file(test_folder_path(*state, "log"), NULL);

    (void)snprintf(text, sizeof text, "%s", all);
    free(all);
    return text;
}

static void a_message_is_a_line_with_its_level(void **state)
{
    MOE_WARN("node %d rows %d", 7, 96);
    assert_contains(logged(state), "Z warn node 7 rows 96\n");
}

static void messages_above_the_level_are_dropped(void **state)
{
    moe_log_set_level(MOE_LOG_WARN);
    MOE_INFO("not this");
    assert_string_equal(logged(state), "");
}

static void debug_is_enabled_by_the_level(void **state)
{
    moe_log_set_level(MOE_LOG_DEBUG);
    MOE_DEBUG("this");
    MOE_TRACE("not this");
    assert_contains(logged(state), "debug this\n");
    assert_null(strstr(logged(state), "trace"));
}

static void control_characters_are_escaped(void **state)
{
    MOE_INFO("%s", "a\nb\x1b\x7f\xc2\x9b");
    assert_contains(logged(state), "a\\x0ab\\x1b\\x7f\\xc2");
}

static void bytes_that_are_no_utf8_are_escaped(void **state)
{
    MOE_INFO("%s", "\xff\xc3\xa9");
    assert_contains(logged(state), "info \\xff\xc3\xa9\n");
}

static void a_long_message_is_cut_to_one_line(void **state)
{
    const char *text;

    MOE_INFO("%4000d", 1);
    text = logged(state);
    assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
}

static void errno_survives_a_message(void **state)
{
    (void)state;
    errno = EXDEV;
    MOE_INFO("x");
    assert_int_equal(errno, EXDEV);
}

static void level_names_are_parsed(void **state)
{
    moe_log_level level;

    (void)state;
    assert_true(moe_log_level_parse("trace", &level));
    assert_int_equal(level, MOE_LOG_TRACE);
}

static void an_unknown_level_is_refused(void **state)
{
    moe_log_level level;

    (void)state;
    assert_false(moe_log_level_parse("loud", &level));
    assert_false(moe_log_level_parse("", &level));
}

#define WITH_CAPTURE(test) cmocka_unit_test_setup_teardown(test, capture, release)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_CAPTURE(a_message_is_a_line_with_its_level), WITH_CAPTURE(messages_above_the_level_are_dropped),
        WITH_CAPTURE(debug_is_enabled_by_the_level),      WITH_CAPTURE(control_characters_are_escaped),
        WITH_CAPTURE(bytes_that_are_no_utf8_are_escaped), WITH_CAPTURE(a_long_message_is_cut_to_one_line),
        WITH_CAPTURE(errno_survives_a_message),           cmocka_unit_test(level_names_are_parsed),
        cmocka_unit_test(an_unknown_level_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
