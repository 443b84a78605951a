#include "tests/support/support.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static void a_closed_folder_is_gone_with_its_content(void **state)
{
    test_folder folder;

    (void)state;
    test_folder_open(&folder);
    assert_int_equal(mkdir(test_folder_path(&folder, "sub"), 0700), 0);
    test_write_text(test_folder_path(&folder, "sub/file"), "x");
    test_folder_close(&folder);
    assert_int_not_equal(access(folder.path, F_OK), 0);
}

static void tensors_are_written_as_safetensors(void **state)
{
    static const char header[] = "{\"a\":{\"dtype\":\"F32\",\"shape\":[1,2],\"data_offsets\":[0,8]},"
                                 "\"b\":{\"dtype\":\"BF16\",\"shape\":[],\"data_offsets\":[8,10]}}";
    const size_t shape[] = {1, 2};
    const float a[] = {1.0f, 2.0f};
    test_tensors *t = test_tensors_open();
    unsigned char *file;
    size_t n, header_bytes = moe_round_up(sizeof header - 1, 8);

    (void)state;
    test_tensors_add(t, "a", "F32", shape, 2, a, sizeof a);
    test_tensors_add(t, "b", "BF16", NULL, 0, "xy", 2);
    file = test_tensors_bytes(t, &n);
    assert_int_equal(n, 8 + header_bytes + 10);
    assert_int_equal(file[0], header_bytes);
    assert_memory_equal(file + 8, header, sizeof header - 1);
    assert_memory_equal(file + 8 + header_bytes, a, sizeof a);
    assert_memory_equal(file + 8 + header_bytes + 8, "xy", 2);
    free(file);
    test_tensors_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_closed_folder_is_gone_with_its_content),
        cmocka_unit_test(tensors_are_written_as_safetensors),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
