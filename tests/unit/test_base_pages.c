#include "tests/support/support.h"

static void pages_are_zero_and_aligned(void **state)
{
    size_t bytes = ((size_t)2 << 20) + 1;
    unsigned char *p = moe_pages_alloc(bytes);

    (void)state;
    assert_non_null(p);
    assert_int_equal((uintptr_t)p % 4096, 0);
    assert_int_equal(p[0] | p[bytes - 1], 0);
    p[bytes - 1] = 1;
    moe_pages_free(p, bytes);
}

static void impossible_page_counts_give_null(void **state)
{
    (void)state;
    assert_null(moe_pages_alloc(0));
    assert_null(moe_pages_alloc(SIZE_MAX));
    moe_pages_free(NULL, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pages_are_zero_and_aligned),
        cmocka_unit_test(impossible_page_counts_give_null),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
