#include "conclave/v1/inference.pb-c.h"
#include "api/grpc/proto.h"
#include "tests/support/support.h"

#include <stdlib.h>

#define GENERATE (&conclave__v1__generate_request__descriptor)

static moe_status unpack(const void *bytes, size_t n, moe_error *err)
{
    ProtobufCMessage *message = NULL;
    moe_status status = proto_unpack(GENERATE, bytes, n, &message, err);

    proto_free(message);
    return status;
}

static void assert_refused(const void *bytes, size_t n, const char *text)
{
    moe_error err = {.text = ""};

    assert_int_equal(unpack(bytes, n, &err), MOE_ERR_INVALID_ARG);
    assert_contains(err.text, text);
}

static void a_valid_request_is_unpacked(void **state)
{
    moe_error err;
    ProtobufCMessage *message = NULL;

    (void)state;
    assert_ok(proto_unpack(GENERATE, (const uint8_t *)"\x0a\x02hi", 4, &message, &err), err);
    assert_string_equal(((Conclave__V1__GenerateRequest *)message)->text, "hi");
    proto_free(message);
}

static void an_empty_message_is_valid(void **state)
{
    moe_error err;

    (void)state;
    assert_ok(unpack("", 0, &err), err);
}

static void unknown_fields_are_let_through(void **state)
{
    moe_error err;

    (void)state;
    assert_ok(unpack("\xa0\x06\x01\x0a\x01x", 6, &err), err);
}

static void a_string_that_is_not_utf8_is_refused_by_name(void **state)
{
    (void)state;
    assert_refused("\x0a\x03"
                   "a\xff\xfe",
                   5, "text: invalid UTF-8 at byte 1");
}

static void a_string_with_nul_is_refused_by_name(void **state)
{
    (void)state;
    assert_refused("\x0a\x03"
                   "a\0b",
                   5, "text: a NUL at byte 1");
}

static void strings_of_inner_messages_are_checked(void **state)
{
    (void)state;
    assert_refused("\x22\x03\x5a\x01\xff", 5, "stop: invalid UTF-8");
}

static void truncation_at_every_byte_is_survived(void **state)
{
    static const char whole[] = "\x0a\x02hi\x22\x0b\x1d\x00\x00\x00\x3f\x5a\x04stop\x32\x01i\x38\x01";
    moe_error err;
    size_t n_refused = 0;

    (void)state;
    for (size_t n = 0; n < sizeof(whole) - 1; n++) {
        n_refused += unpack(whole, n, &err) != MOE_OK;
    }
    assert_true(n_refused > 10);
    assert_ok(unpack(whole, sizeof(whole) - 1, &err), err);
}

static void lengths_beyond_the_message_are_refused(void **state)
{
    (void)state;
    assert_refused("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01x", 12, "malformed");
}

static void groups_are_refused(void **state)
{
    (void)state;
    assert_refused("\x0b\x0c", 2, "malformed");
}

static void field_zero_is_refused(void **state)
{
    (void)state;
    assert_refused("\x02\x00", 2, "malformed");
}

static void nesting_does_not_use_the_stack(void **state)
{
    size_t n = 0, capacity = 200000;
    uint8_t *bytes = malloc(capacity);
    moe_error err;

    (void)state;
    assert_non_null(bytes);
    /* field 4 within field 4 within ...: deeper than the message types are, so the inner ones are unknown fields or
     * strings */
    for (size_t left = capacity - 8; left > 8; left -= 4) {
        bytes[n++] = 0x22;
        bytes[n++] = (uint8_t)((left & 0x7f) | 0x80);
        bytes[n++] = (uint8_t)((left >> 7 & 0x7f) | 0x80);
        bytes[n++] = (uint8_t)(left >> 14);
    }
    moe_status status = unpack(bytes, n, &err);
    free(bytes);
    assert_int_equal(status, MOE_ERR_INVALID_ARG);
}

static void a_small_message_of_many_parts_exceeds_its_budget(void **state)
{
    size_t n_stops = 100000, n = 0;
    uint8_t *bytes = malloc(2 * n_stops + 8);

    (void)state;
    assert_non_null(bytes);
    bytes[n++] = 0x22; /* sampling, 200000 bytes */
    bytes[n++] = 0xc0;
    bytes[n++] = 0x9a;
    bytes[n++] = 0x0c;
    for (size_t i = 0; i < n_stops; i++) {
        bytes[n++] = 0x5a; /* an empty stop string */
        bytes[n++] = 0;
    }
    assert_refused(bytes, n, "too many parts");
    free(bytes);
}

static void unpacked_token_ids_fit_the_budget(void **state)
{
    size_t n_ids = 100000, n = 0;
    uint8_t *bytes = malloc(2 * n_ids + 8);
    moe_error err;

    (void)state;
    assert_non_null(bytes);
    bytes[n++] = 0x12; /* token_ids, 200000 bytes */
    bytes[n++] = 0xc0;
    bytes[n++] = 0x9a;
    bytes[n++] = 0x0c;
    for (size_t i = 0; i < n_ids; i++) {
        bytes[n++] = 0x08;
        bytes[n++] = 7;
    }
    assert_ok(unpack(bytes, n, &err), err);
    free(bytes);
}

static void built_fields_are_what_protobuf_c_packs(void **state)
{
    Conclave__V1__Choice m = CONCLAVE__V1__CHOICE__INIT;
    int32_t ids[] = {1, 300};
    uint8_t packed[64];
    moe_text built;

    (void)state;
    m.index = 2;
    m.token_ids = ids;
    m.n_token_ids = 2;
    moe_text_init(&built, 1000);
    proto_put_fields(&built, &m.base);
    proto_put_bytes(&built, 3, "text", 4);
    m.text = (char *)"text";
    assert_int_equal(protobuf_c_message_pack(&m.base, packed), built.size);
    assert_memory_equal(packed, built.data, built.size);
    moe_text_fini(&built);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_valid_request_is_unpacked),
        cmocka_unit_test(an_empty_message_is_valid),
        cmocka_unit_test(unknown_fields_are_let_through),
        cmocka_unit_test(a_string_that_is_not_utf8_is_refused_by_name),
        cmocka_unit_test(a_string_with_nul_is_refused_by_name),
        cmocka_unit_test(strings_of_inner_messages_are_checked),
        cmocka_unit_test(truncation_at_every_byte_is_survived),
        cmocka_unit_test(lengths_beyond_the_message_are_refused),
        cmocka_unit_test(groups_are_refused),
        cmocka_unit_test(field_zero_is_refused),
        cmocka_unit_test(nesting_does_not_use_the_stack),
        cmocka_unit_test(a_small_message_of_many_parts_exceeds_its_budget),
        cmocka_unit_test(unpacked_token_ids_fit_the_budget),
        cmocka_unit_test(built_fields_are_what_protobuf_c_packs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
