/* The C copy of the published messages (proto3 optional as one-member oneofs) against bytes of python3-protobuf:
 * tests/vectors/api_proto.txt. */
#include "conclave/v1/admin.pb-c.h"
#include "conclave/v1/inference.pb-c.h"
#include "tests/support/support.h"

#include <stdlib.h>

static const struct {
    const char *name;
    const ProtobufCMessageDescriptor *type;
} vectors[] = {
    {"sampling_unset", &conclave__v1__sampling__descriptor},
    {"sampling_zero", &conclave__v1__sampling__descriptor},
    {"sampling_set", &conclave__v1__sampling__descriptor},
    {"generate_unset", &conclave__v1__generate_request__descriptor},
    {"generate_zero", &conclave__v1__generate_request__descriptor},
    {"generate_set", &conclave__v1__generate_request__descriptor},
    {"response_zero", &conclave__v1__generate_response__descriptor},
    {"response_set", &conclave__v1__generate_response__descriptor},
    {"scored_unset", &conclave__v1__scored_token__descriptor},
    {"scored_zero", &conclave__v1__scored_token__descriptor},
    {"scored_set", &conclave__v1__scored_token__descriptor},
    {"list_zero", &conclave__v1__list_experts_request__descriptor},
    {"list_set", &conclave__v1__list_experts_request__descriptor},
};

/* The bytes of a vector; the caller frees them. */
static uint8_t *vector_bytes(const char *name, size_t *n_out)
{
    char *text = test_read_file("tests/vectors/api_proto.txt", NULL), *line = text;
    uint8_t *bytes = NULL;
    size_t n = strlen(name);

    while (line != NULL && !(strncmp(line, name, n) == 0 && line[n] == ' ')) {
        line = strchr(line, '\n');
        line = line == NULL ? NULL : line + 1;
    }
    assert_non_null(line);
    const char *hex = line + n + 1;
    size_t n_hex = strcspn(hex, "\n");
    bytes = malloc(n_hex / 2 + 1);
    assert_non_null(bytes);
    for (size_t i = 0; i < n_hex / 2; i++) {
        char pair[3] = {hex[2 * i], hex[2 * i + 1], 0};

        bytes[i] = (uint8_t)strtoul(pair, NULL, 16);
    }
    *n_out = n_hex / 2;
    free(text);
    return bytes;
}

static void assert_packs_to(const char *name, const ProtobufCMessage *message)
{
    size_t n;
    uint8_t *expected = vector_bytes(name, &n);
    uint8_t *packed = malloc(protobuf_c_message_get_packed_size(message) + 1);

    assert_non_null(packed);
    assert_int_equal(protobuf_c_message_pack(message, packed), n);
    assert_memory_equal(packed, expected, n);
    free(packed);
    free(expected);
}

static void every_message_of_python_is_read_and_written_back_as_it_was(void **state)
{
    (void)state;
    for (size_t i = 0; i < MOE_COUNT(vectors); i++) {
        size_t n;
        uint8_t *bytes = vector_bytes(vectors[i].name, &n);
        ProtobufCMessage *message = protobuf_c_message_unpack(vectors[i].type, NULL, n, bytes);

        assert_non_null(message);
        assert_int_equal(message->n_unknown_fields, 0);
        assert_packs_to(vectors[i].name, message);
        protobuf_c_message_free_unpacked(message, NULL);
        free(bytes);
    }
}

static void unset_optional_fields_are_left_out(void **state)
{
    Conclave__V1__Sampling m = CONCLAVE__V1__SAMPLING__INIT;

    (void)state;
    assert_packs_to("sampling_unset", &m.base);
}

#define SET(m, field, FIELD, value)                                                                                    \
    (m).has_##field##_case = CONCLAVE__V1__SAMPLING__HAS_##FIELD##_##FIELD;                                            \
    (m).field = (value)

static void optional_fields_set_to_zero_are_written(void **state)
{
    Conclave__V1__Sampling m = CONCLAVE__V1__SAMPLING__INIT;

    (void)state;
    SET(m, max_tokens, MAX_TOKENS, 0);
    SET(m, min_tokens, MIN_TOKENS, 0);
    SET(m, temperature, TEMPERATURE, 0);
    SET(m, top_k, TOP_K, 0);
    SET(m, top_p, TOP_P, 0);
    SET(m, min_p, MIN_P, 0);
    SET(m, repetition_penalty, REPETITION_PENALTY, 0);
    SET(m, frequency_penalty, FREQUENCY_PENALTY, 0);
    SET(m, presence_penalty, PRESENCE_PENALTY, 0);
    SET(m, seed, SEED, 0);
    SET(m, ignore_eos, IGNORE_EOS, 0);
    SET(m, n, N, 0);
    SET(m, logprobs, LOGPROBS, 0);
    assert_packs_to("sampling_zero", &m.base);
}

static void optional_fields_that_are_set_are_written(void **state)
{
    Conclave__V1__Sampling m = CONCLAVE__V1__SAMPLING__INIT;
    char *stop[] = {"a", "bc"};
    int32_t stop_ids[] = {1, 2, 300};

    (void)state;
    SET(m, max_tokens, MAX_TOKENS, 1);
    SET(m, min_tokens, MIN_TOKENS, 300);
    SET(m, temperature, TEMPERATURE, 0.5f);
    SET(m, top_k, TOP_K, 70000);
    SET(m, top_p, TOP_P, 0.25f);
    SET(m, min_p, MIN_P, 0.125f);
    SET(m, repetition_penalty, REPETITION_PENALTY, 1.5f);
    SET(m, frequency_penalty, FREQUENCY_PENALTY, -2);
    SET(m, presence_penalty, PRESENCE_PENALTY, 2);
    SET(m, seed, SEED, UINT64_MAX);
    SET(m, ignore_eos, IGNORE_EOS, 1);
    SET(m, n, N, 16);
    SET(m, logprobs, LOGPROBS, 50);
    m.stop = stop;
    m.n_stop = MOE_COUNT(stop);
    m.stop_token_ids = stop_ids;
    m.n_stop_token_ids = MOE_COUNT(stop_ids);
    assert_packs_to("sampling_set", &m.base);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_message_of_python_is_read_and_written_back_as_it_was),
        cmocka_unit_test(unset_optional_fields_are_left_out),
        cmocka_unit_test(optional_fields_set_to_zero_are_written),
        cmocka_unit_test(optional_fields_that_are_set_are_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
