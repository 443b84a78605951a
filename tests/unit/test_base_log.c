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
    moe_log_set_format(MOE_LOG_TEXT);
    moe_log_set_clock(NULL);
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

/* ------------------------------------------------------------------------------------------------ JSON */
static void a_message_is_an_object_in_json(void **state)
{
    moe_log_set_format(MOE_LOG_JSON);
    MOE_INFO("say \"%s\"", "a\nb\\");
    assert_contains(logged(state), "Z\",\"level\":\"info\",\"message\":\"say \\\"a\\u000ab\\\\\\\"\"}\n");
}

static void a_long_message_is_still_an_object_in_json(void **state)
{
    char text[1024];

    memset(text, '\1', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    moe_log_set_format(MOE_LOG_JSON);
    MOE_INFO("%s", text);
    assert_contains(logged(state), "\\u0001\"}\n");
}

static void an_event_has_its_values(void **state)
{
    const moe_log_field fields[] = {{.name = "id", .text = "a \"b\""}, {.name = "tokens", .number = 12}};

    moe_log_event(MOE_LOG_INFO, "request", fields, 2);
    assert_contains(logged(state), "info request id=a \"b\" tokens=12\n");
    moe_log_set_format(MOE_LOG_JSON);
    moe_log_event(MOE_LOG_INFO, "request", fields, 2);
    assert_contains(logged(state), "\"message\":\"request\",\"id\":\"a \\\"b\\\"\",\"tokens\":12}\n");
}

/* ------------------------------------------------------------------------------------------------ repetition */
#define SECOND 1000000000u

static size_t n_lines(void **state)
{
    size_t n = 0;

    for (const char *at = logged(state); (at = strchr(at, '\n')) != NULL; at++) {
        n++;
    }
    return n;
}

static void a_warning_that_repeats_is_said_every_30_seconds_with_a_count(void **state)
{
    moe_clock_virtual v;

    moe_clock_virtual_init(&v, SECOND);
    moe_log_set_clock(&v.clock);
    for (int i = 0; i < 61; i++) {
        MOE_WARN("node %s is silent", "b");
        moe_clock_virtual_advance(&v, SECOND);
    }
    assert_int_equal(n_lines(state), 3);
    assert_contains(logged(state), "node b is silent\n");
    assert_contains(logged(state), "node b is silent (and 29 more like it since)\n");
}

static void different_warnings_do_not_hide_each_other(void **state)
{
    moe_clock_virtual v;

    moe_clock_virtual_init(&v, SECOND);
    moe_log_set_clock(&v.clock);
    for (int i = 0; i < 3; i++) {
        MOE_WARN("node %d left", i);
        MOE_WARN("node %d came", i);
    }
    assert_int_equal(n_lines(state), 6);
}

static void a_flood_of_different_warnings_from_one_place_is_bounded(void **state)
{
    moe_clock_virtual v;

    moe_clock_virtual_init(&v, SECOND);
    moe_log_set_clock(&v.clock);
    for (int i = 0; i < 10000; i++) {
        MOE_WARN("caller %d refused", i);
    }
    assert_int_equal(n_lines(state), MOE_LOG_BURST);
    moe_clock_virtual_advance(&v, (uint64_t)31 * SECOND);
    MOE_WARN("caller %d refused", 10000);
    assert_int_equal(n_lines(state), MOE_LOG_BURST + 1);
}

static void errors_are_never_held_back(void **state)
{
    MOE_ERROR("no disk");
    MOE_ERROR("no disk");
    assert_int_equal(n_lines(state), 2);
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
        WITH_CAPTURE(a_message_is_a_line_with_its_level),
        WITH_CAPTURE(messages_above_the_level_are_dropped),
        WITH_CAPTURE(debug_is_enabled_by_the_level),
        WITH_CAPTURE(control_characters_are_escaped),
        WITH_CAPTURE(bytes_that_are_no_utf8_are_escaped),
        WITH_CAPTURE(a_long_message_is_cut_to_one_line),
        WITH_CAPTURE(errno_survives_a_message),
        cmocka_unit_test(level_names_are_parsed),
        cmocka_unit_test(an_unknown_level_is_refused),
        WITH_CAPTURE(a_message_is_an_object_in_json),
        WITH_CAPTURE(a_long_message_is_still_an_object_in_json),
        WITH_CAPTURE(an_event_has_its_values),
        WITH_CAPTURE(a_warning_that_repeats_is_said_every_30_seconds_with_a_count),
        WITH_CAPTURE(different_warnings_do_not_hide_each_other),
        WITH_CAPTURE(a_flood_of_different_warnings_from_one_place_is_bounded),
        WITH_CAPTURE(errors_are_never_held_back),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
