#include "tests/support/support.h"

#include "transport/transport.h"

static void a_taken_frame_is_nobody_elses(void **state)
{
    transport_frames *pool = NULL;

    (void)state;
    assert_int_equal(transport_frames_open(2, 100, &pool), MOE_OK);
    transport_frame *a = transport_frames_take(pool);
    transport_frame *b = transport_frames_take(pool);
    assert_ptr_not_equal(a, b);
    assert_true(a->data + 100 <= b->data || b->data + 100 <= a->data);
    assert_null(transport_frames_take(pool));
    transport_frames_release(a);
    assert_ptr_equal(transport_frames_take(pool), a);
    transport_frames_release(a);
    transport_frames_release(b);
    transport_frames_close(pool);
}

static void frames_are_aligned(void **state)
{
    transport_frames *pool = NULL;

    (void)state;
    assert_int_equal(transport_frames_open(3, 65, &pool), MOE_OK);
    transport_frame *f[3];
    for (int i = 0; i < 3; i++) {
        f[i] = transport_frames_take(pool);
        assert_int_equal((uintptr_t)f[i]->data % 64, 0);
    }
    assert_int_equal(transport_frames_out(pool), 3);
    for (int i = 0; i < 3; i++) {
        transport_frames_release(f[i]);
    }
    transport_frames_close(pool);
}

static void sizes_that_overflow_are_refused(void **state)
{
    transport_frames *pool = NULL;

    (void)state;
    assert_int_equal(transport_frames_open(SIZE_MAX / 4, 64, &pool), MOE_ERR_NO_MEMORY);
    assert_int_equal(transport_frames_open(1, SIZE_MAX, &pool), MOE_ERR_NO_MEMORY);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_taken_frame_is_nobody_elses),
        cmocka_unit_test(frames_are_aligned),
        cmocka_unit_test(sizes_that_overflow_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
