/* The command as it is started: argument lists in, exit code and standard output out. */
#include "tests/support/support.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/cli.h"

#define VECTORS "tests/vectors/torch/2.15.0/"

/* Runs `conclave convert ...` with standard output and standard error in files of the folder. */
static int run(const test_folder *f, const char *dir, const char *out, const char *option)
{
    char program[] = "conclave", command[] = "convert", from[256], to[256], flag[32];
    char *argv[] = {program, command, from, to, flag, NULL};
    int saved[2], code;

    snprintf(from, sizeof(from), "%s", dir);
    snprintf(to, sizeof(to), "%s", out);
    snprintf(flag, sizeof(flag), "%s", option);
    for (int fd = 1; fd <= 2; fd++) {
        const int file =
            open(test_folder_path(f, fd == 1 ? "stdout" : "stderr"), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        saved[fd - 1] = dup(fd);
        assert_true(file >= 0 && saved[fd - 1] >= 0 && dup2(file, fd) == fd);
        (void)close(file);
    }
    code = cli_main(*option != '\0' ? 5 : 4, argv);
    (void)fflush(stdout);
    for (int fd = 1; fd <= 2; fd++) {
        (void)dup2(saved[fd - 1], fd);
        (void)close(saved[fd - 1]);
    }
    return code;
}

static void assert_printed(const test_folder *f, const char *stream, const char *part)
{
    char *text = test_read_file(test_folder_path(f, stream), NULL);

    assert_contains(text, part);
    free(text);
}

static void it_converts_without_a_server_and_says_what_was_done(void **state)
{
    const test_folder *f = *state;

    assert_int_equal(run(f, VECTORS "sharded", test_folder_path(f, "out"), ""), MOE_EXIT_OK);
    assert_printed(f, "stdout",
                   "10 tensors, 0.0 MB in 2 files; 1 other file copied; every tensor read back and compared");
    assert_printed(f, "stderr", "verifying  100 %");
}

static void json_gives_one_object(void **state)
{
    const test_folder *f = *state;

    assert_int_equal(run(f, VECTORS "single", test_folder_path(f, "out"), "--json"), MOE_EXIT_OK);
    assert_printed(f, "stdout", "\"tensors\":19,");
    assert_printed(f, "stdout", "\"verified\":true}");
}

static void a_refusal_has_an_exit_code_and_a_reason(void **state)
{
    const test_folder *f = *state;

    assert_int_equal(run(f, VECTORS "legacy", test_folder_path(f, "out"), ""), MOE_EXIT_FAILED);
    assert_printed(f, "stderr", "conclave convert: " VECTORS "legacy: pytorch_model.bin: written by torch before 1.6");
}

static void options_of_a_server_are_refused(void **state)
{
    const test_folder *f = *state;

    assert_int_equal(run(f, VECTORS "single", test_folder_path(f, "out"), "--server=x:1"), MOE_EXIT_USAGE);
    assert_printed(f, "stderr", "--server");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(it_converts_without_a_server_and_says_what_was_done, test_folder_setup,
                                        test_folder_teardown),
        cmocka_unit_test_setup_teardown(json_gives_one_object, test_folder_setup, test_folder_teardown),
        cmocka_unit_test_setup_teardown(a_refusal_has_an_exit_code_and_a_reason, test_folder_setup,
                                        test_folder_teardown),
        cmocka_unit_test_setup_teardown(options_of_a_server_are_refused, test_folder_setup, test_folder_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
