/* How large the KV cache becomes: pages of 1 MiB, contexts of 4096 tokens (128 MiB). */
#include "coordinator/kv_memory.h"
#include "tests/support/support.h"

#define MIB ((size_t)1 << 20)
#define GIB ((size_t)1 << 30)

static kv_budget budget(size_t asked, size_t available, size_t weights)
{
    return (kv_budget){.asked = asked,
                       .available = available,
                       .weights = weights,
                       .page_bytes = MIB,
                       .max_running = 64,
                       .max_context = 4096};
}

static size_t chosen(kv_budget b)
{
    moe_error err;
    size_t bytes = 0;

    assert_ok(kv_memory_choose(&b, &bytes, &err), err);
    return bytes;
}

static void what_was_asked_for_is_taken_up_to_what_can_be_used(void **state)
{
    (void)state;
    assert_int_equal(chosen(budget(3 * MIB, GIB, 0)), 3 * MIB);
    assert_int_equal(chosen(budget(3 * MIB, 0, GIB)), 3 * MIB); /* nobody asks whether it fits */
    assert_int_equal(chosen(budget(100 * GIB, GIB, 0)), 64 * 128 * MIB);
}

static void without_a_word_it_takes_what_is_left_beside_weights_and_margin(void **state)
{
    size_t bytes;

    (void)state;
    bytes = chosen(budget(0, 4 * GIB, 2 * GIB));
    assert_true(bytes >= GIB && bytes < 2 * GIB - 256 * MIB);
    assert_int_equal(bytes % MIB, 0);
    assert_int_equal(chosen(budget(0, 100 * GIB, 2 * GIB)), 64 * 128 * MIB); /* no sense in more */
}

static void one_context_may_eat_into_the_margin(void **state)
{
    (void)state;
    assert_int_equal(chosen(budget(0, 2 * GIB + 128 * MIB, 2 * GIB)), 128 * MIB);
}

static void less_than_one_context_is_refused_with_the_figures(void **state)
{
    kv_budget b = budget(0, 2 * GIB + 127 * MIB, 2 * GIB);
    size_t bytes = 7;
    moe_error err;

    (void)state;
    assert_int_equal(kv_memory_choose(&b, &bytes, &err), MOE_ERR_INVALID_ARG);
    assert_int_equal(bytes, 7);
    assert_contains(err.text, "the weights take 2.0 GiB");
    assert_contains(err.text, "of the 127.0 MiB that are left one context of 4096 tokens takes 128.0 MiB");
    b = budget(0, GIB, 2 * GIB);
    assert_int_equal(kv_memory_choose(&b, &bytes, &err), MOE_ERR_INVALID_ARG);
    assert_contains(err.text, "of the 0 bytes that are left");
}

static void a_context_that_is_no_multiple_of_a_page_gets_whole_pages(void **state)
{
    kv_budget b = budget(0, 100 * GIB, 0);

    (void)state;
    b.max_running = 1;
    b.max_context = 33;
    assert_int_equal(chosen(b), 2 * MIB);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_asked_for_is_taken_up_to_what_can_be_used),
        cmocka_unit_test(without_a_word_it_takes_what_is_left_beside_weights_and_margin),
        cmocka_unit_test(one_context_may_eat_into_the_margin),
        cmocka_unit_test(less_than_one_context_is_refused_with_the_figures),
        cmocka_unit_test(a_context_that_is_no_multiple_of_a_page_gets_whole_pages),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
