#include "tests/support/support.h"

static int setup(void **state)
{
    static moe_arena arena;

    assert_int_equal(moe_arena_init(&arena, 1000), MOE_OK);
    *state = &arena;
    return 0;
}

static int teardown(void **state)
{
    moe_arena_fini(*state);
    return 0;
}

static void every_block_is_aligned(void **state)
{
    for (size_t i = 0; i < 5; i++) {
        assert_int_equal((uintptr_t)moe_arena_alloc(*state, i, 3) % 64, 0);
    }
}

static void blocks_do_not_overlap(void **state)
{
    unsigned char *a = moe_arena_alloc(*state, 1, 65), *b = moe_arena_alloc(*state, 1, 65);

    assert_true(b >= a + 65);
}

static void a_full_arena_gives_null(void **state)
{
    moe_arena *a = *state;

    assert_non_null(moe_arena_alloc(a, a->capacity, 1));
    assert_null(moe_arena_alloc(a, 1, 1));
}

static void a_product_that_overflows_gives_null(void **state)
{
    assert_null(moe_arena_alloc(*state, SIZE_MAX / 2, 3));
    assert_null(moe_arena_alloc(*state, SIZE_MAX, 1));
}

static void reset_frees_all_and_keeps_the_peak(void **state)
{
    moe_arena *a = *state;
    void *first = moe_arena_alloc(a, 1, 500);

    moe_arena_reset(a);
    assert_ptr_equal(moe_arena_alloc(a, 1, 10), first);
    assert_int_equal(a->peak, 512);
}

static void a_capacity_beyond_memory_is_refused(void **state)
{
    moe_arena a;

    (void)state;
    assert_int_equal(moe_arena_init(&a, SIZE_MAX), MOE_ERR_NO_MEMORY);
    moe_arena_fini(&a);
}

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
        cmocka_unit_test_setup_teardown(every_block_is_aligned, setup, teardown),
        cmocka_unit_test_setup_teardown(blocks_do_not_overlap, setup, teardown),
        cmocka_unit_test_setup_teardown(a_full_arena_gives_null, setup, teardown),
        cmocka_unit_test_setup_teardown(a_product_that_overflows_gives_null, setup, teardown),
        cmocka_unit_test_setup_teardown(reset_frees_all_and_keeps_the_peak, setup, teardown),
        cmocka_unit_test(a_capacity_beyond_memory_is_refused),
        cmocka_unit_test(pages_are_zero_and_aligned),
        cmocka_unit_test(impossible_page_counts_give_null),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
