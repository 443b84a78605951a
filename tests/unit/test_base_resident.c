/* What the kernel says of this process's memory. */
#include "tests/support/support.h"

static void touched_pages_are_counted_and_given_back(void **state)
{
    const size_t bytes = (size_t)64 << 20;
    moe_resident before, touched, after;

    (void)state;
    moe_memory_resident(&before);
    assert_true(before.anonymous > 0 && before.of_files > 0);
    unsigned char *p = moe_pages_alloc(bytes);
    assert_non_null(p);
    memset(p, 1, bytes);
    moe_memory_resident(&touched);
    moe_pages_free(p, bytes);
    moe_memory_resident(&after);
    assert_true(touched.anonymous >= before.anonymous + bytes / 4 * 3);
    assert_true(after.anonymous <= touched.anonymous - bytes / 4 * 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(touched_pages_are_counted_and_given_back),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
