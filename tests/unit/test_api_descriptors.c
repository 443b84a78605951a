#include "api/grpc/descriptors_priv.h"
#include "tests/support/support.h"

#include <stdlib.h>

/* a.proto (package p) imports b.proto; each imports the other, which protoc would refuse. */
static const char set[] = "\x0a\x1f" /* a.proto: message M with N inside */
                          "\x0a\x07"
                          "a.proto"
                          "\x12\x01"
                          "p"
                          "\x1a\x07"
                          "b.proto"
                          "\x22\x08"
                          "\x0a\x01"
                          "M"
                          "\x1a\x03"
                          "\x0a\x01"
                          "N"
                          "\x0a\x16" /* b.proto: an enum without a name */
                          "\x0a\x07"
                          "b.proto"
                          "\x1a\x07"
                          "a.proto"
                          "\x2a\x02"
                          "\x0a\x00";

static descriptors *open_set(void)
{
    descriptors *d = NULL;

    assert_int_equal(descriptors_open((const uint8_t *)set, sizeof(set) - 1, &d), MOE_OK);
    return d;
}

static void imports_are_included_once(void **state)
{
    descriptors *d = open_set();
    descriptors_file files[DESCRIPTORS_MAX_FILES];

    (void)state;
    assert_int_equal(descriptors_by_name(d, "a.proto", files), 2);
    assert_int_equal(files[0].n_bytes, 0x1f);
    descriptors_close(d);
}

static void nested_messages_are_found_by_full_name(void **state)
{
    descriptors *d = open_set();
    descriptors_file files[DESCRIPTORS_MAX_FILES];

    (void)state;
    assert_int_equal(descriptors_by_symbol(d, "p.M.N", files), 2);
    assert_true(descriptors_is_message(d, "p.M.N"));
    assert_int_equal(descriptors_by_symbol(d, "p.N", files), 0);
    assert_int_equal(descriptors_by_symbol(d, "M", files), 0);
    descriptors_close(d);
}

static void a_damaged_set_is_refused_and_nothing_is_read_past_it(void **state)
{
    descriptors *d = NULL;

    (void)state;
    for (size_t n = 1; n < sizeof(set) - 1; n++) {
        unsigned char *copy = malloc(n); /* of exactly this size, so that a sanitizer sees the byte behind it */

        assert_non_null(copy);
        memcpy(copy, set, n);
        if (descriptors_open(copy, n, &d) == MOE_OK) {
            descriptors_close(d);
            assert_int_equal(n, 0x21);
        }
        free(copy);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(imports_are_included_once),
        cmocka_unit_test(nested_messages_are_found_by_full_name),
        cmocka_unit_test(a_damaged_set_is_refused_and_nothing_is_read_past_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
