/* What the tests of tools/gpu_check.sh use of cmocka, for a machine that has nothing but compilers. A failure ends its
 * test and is counted. */
#ifndef CONCLAVE_TESTS_CUDA_BARE_CMOCKA_H
#define CONCLAVE_TESTS_CUDA_BARE_CMOCKA_H

#include <math.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>

struct CMUnitTest {
    const char *name;
    void (*run)(void **state);
};

/* One for all files of a program. */
__attribute__((weak)) jmp_buf bare_failed;

#define fail_msg(...)                                                                                                  \
    (printf("%s:%d: ", __FILE__, __LINE__), printf(__VA_ARGS__), printf("\n"), fflush(stdout), longjmp(bare_failed, 1))
#define assert_true(condition)  ((condition) ? (void)0 : fail_msg("%s", #condition))
#define assert_false(condition) assert_true(!(condition))
#define assert_non_null(p)      assert_true((p) != NULL)
#define assert_int_equal(a, b)                                                                                         \
    ((long long)(a) == (long long)(b) ? (void)0                                                                        \
                                      : fail_msg("%s is %lld, %s is %lld", #a, (long long)(a), #b, (long long)(b)))
#define assert_memory_equal(a, b, n) assert_true(memcmp(a, b, n) == 0)
#define assert_string_equal(a, b)    assert_true(strcmp(a, b) == 0)
#define assert_float_equal(a, b, by) assert_true(fabs((double)(a) - (double)(b)) <= (double)(by))

#define cmocka_unit_test(f)                                                                                            \
    {                                                                                                                  \
#f, f                                                                                                          \
    }
#define cmocka_run_group_tests(tests, setup, teardown)                                                                 \
    bare_run_tests(tests, sizeof(tests) / sizeof((tests)[0]), setup, teardown)

static inline int bare_run_tests(const struct CMUnitTest *tests, size_t n, const void *setup, const void *teardown)
{
    volatile int failed = 0;

    (void)setup;
    (void)teardown;
    for (volatile size_t i = 0; i < n; i++) {
        void *state = NULL;

        if (setjmp(bare_failed) == 0) {
            tests[i].run(&state);
        } else {
            printf("FAILED: %s\n", tests[i].name);
            failed++;
        }
    }
    printf("%zu tests, %d failed\n", n, failed);
    return failed;
}

#endif
