#include "tests/support/support.h"

#include <stdlib.h>
#include <sys/stat.h>

static moe_status read_it(const char *path, size_t max_bytes, moe_error *err)
{
    char *data;
    size_t n;
    moe_status status = moe_file_read(path, max_bytes, &data, &n, err);

    if (status == MOE_OK) {
        free(data);
    }
    return status;
}

static void a_file_is_read_whole_and_terminated(void **state)
{
    const char *path = test_folder_path(*state, "f");
    moe_error err;
    char *data = NULL;
    size_t n = 0;

    test_write_file(path, "a\0b", 3);
    assert_ok(moe_file_read(path, 3, &data, &n, &err), err);
    assert_int_equal(n, 3);
    assert_memory_equal(data, "a\0b", 4);
    free(data);
}

static void an_empty_file_is_an_empty_string(void **state)
{
    const char *path = test_folder_path(*state, "f");
    char *data;
    size_t n;

    test_write_text(path, "");
    data = test_read_file(path, &n);
    assert_int_equal(n, 0);
    assert_string_equal(data, "");
    free(data);
}

static void a_file_over_the_limit_is_refused_by_size(void **state)
{
    const char *path = test_folder_path(*state, "f");
    moe_error err;

    test_write_text(path, "abcd");
    assert_int_equal(read_it(path, 3, &err), MOE_ERR_INVALID_ARG);
    assert_contains(err.text, "4 bytes, at most 3");
}

static void a_missing_file_is_named(void **state)
{
    moe_error err;

    assert_int_equal(read_it(test_folder_path(*state, "absent"), 3, &err), MOE_ERR_NOT_FOUND);
    assert_contains(err.text, "absent: No such file");
}

static void a_folder_is_refused(void **state)
{
    moe_error err;

    assert_int_equal(read_it(test_folder_path(*state, "."), 3, &err), MOE_ERR_INVALID_ARG);
    assert_contains(err.text, "is not a regular file");
}

static void a_pipe_is_refused_without_waiting_for_a_writer(void **state)
{
    const char *path = test_folder_path(*state, "pipe");
    moe_error err;

    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(read_it(path, 3, &err), MOE_ERR_INVALID_ARG);
}

#define FOLDER_TEST(test) cmocka_unit_test_setup_teardown(test, test_folder_setup, test_folder_teardown)

static void lines_that_say_nothing_are_left_out(void **state)
{
    static const char text[] = "# comment\n\n  \t\r\n  # indented\n  one \r\n#\ntwo";
    const char *at = text, *line;
    size_t n, line_no = 0;

    (void)state;
    assert_true(moe_file_next_line(&at, text + sizeof text - 1, &line, &n, &line_no));
    assert_int_equal(line_no, 5);
    assert_int_equal(n, 3);
    assert_memory_equal(line, "one", 3);
    assert_true(moe_file_next_line(&at, text + sizeof text - 1, &line, &n, &line_no));
    assert_int_equal(line_no, 7);
    assert_memory_equal(line, "two", 3);
    assert_false(moe_file_next_line(&at, text + sizeof text - 1, &line, &n, &line_no));
}

static void a_pointer_of_git_lfs_is_refused_with_the_command_that_helps(void **state)
{
    static const char pointer[] = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";
    const char *path = test_folder_path(*state, "tokenizer.json");
    char *data;
    size_t n;
    moe_error err;

    test_write_file(path, pointer, sizeof pointer - 1);
    assert_int_equal(moe_file_read(path, 1000, &data, &n, &err), MOE_ERR_CORRUPT);
    assert_contains(err.text, "tokenizer.json: a pointer that Git LFS left in place of the file: run `git lfs pull`");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FOLDER_TEST(a_file_is_read_whole_and_terminated),
        FOLDER_TEST(an_empty_file_is_an_empty_string),
        FOLDER_TEST(a_file_over_the_limit_is_refused_by_size),
        FOLDER_TEST(a_missing_file_is_named),
        FOLDER_TEST(a_folder_is_refused),
        FOLDER_TEST(a_pipe_is_refused_without_waiting_for_a_writer),
        FOLDER_TEST(a_pointer_of_git_lfs_is_refused_with_the_command_that_helps),
        cmocka_unit_test(lines_that_say_nothing_are_left_out),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
