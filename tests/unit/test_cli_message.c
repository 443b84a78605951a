#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <conclave/v1/inference.pb-c.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/message.h"

typedef struct fixture {
    ProtobufCMessage *message;
    moe_text text;
    moe_error err;
} fixture;

static int set_up(void **state)
{
    fixture *f = calloc(1, sizeof(*f));

    if (f == NULL) {
        return -1;
    }
    f->message = cli_message_new(&conclave__v1__generate_request__descriptor);
    moe_text_init(&f->text, 1 << 20);
    *state = f;
    return f->message != NULL ? 0 : -1;
}

static int tear_down(void **state)
{
    fixture *f = *state;

    cli_message_free(f->message);
    moe_text_fini(&f->text);
    free(f);
    return 0;
}

static void set(fixture *f, const char *path, const char *text)
{
    assert_int_equal(cli_message_set(f->message, path, text, &f->err), MOE_OK);
}

static void refuse(fixture *f, const char *path, const char *text, const char *reason)
{
    assert_int_equal(cli_message_set(f->message, path, text, &f->err), MOE_ERR_INVALID_ARG);
    assert_string_equal(f->err.text, reason);
}

static void assert_json(fixture *f, const ProtobufCMessage *message, const char *json)
{
    cli_message_json(message, &f->text);
    assert_string_equal(moe_text_cstr(&f->text), json);
}

static void a_set_zero_is_written_and_an_unset_field_is_not(void **state)
{
    fixture *f = *state;

    set(f, "sampling.temperature", "0");
    set(f, "sampling.max_tokens", "0");
    assert_json(f, f->message, "{\"sampling\":{\"max_tokens\":0,\"temperature\":0}}");
}

static void a_set_empty_string_of_an_optional_field_is_written(void **state)
{
    fixture *f = *state;

    set(f, "request_id", "");
    assert_json(f, f->message, "{\"request_id\":\"\"}");
}

static void a_field_set_twice_has_the_last_value(void **state)
{
    fixture *f = *state;

    set(f, "text", "first");
    set(f, "text", "second");
    assert_json(f, f->message, "{\"text\":\"second\"}");
}

static void a_repeated_field_grows_by_each_value(void **state)
{
    fixture *f = *state;

    set(f, "sampling.stop", "a");
    set(f, "sampling.stop", "b,c");
    assert_json(f, f->message, "{\"sampling\":{\"stop\":[\"a\",\"b,c\"]}}");
}

static void a_list_is_divided_by_commas_and_spaces(void **state)
{
    fixture *f = *state;

    assert_int_equal(cli_message_set_list(f->message, "token_ids.ids", " 1,2 , 3\n-4", &f->err), MOE_OK);
    assert_json(f, f->message, "{\"token_ids\":{\"ids\":[1,2,3,-4]}}");
}

static void an_empty_list_marks_its_message(void **state)
{
    fixture *f = *state;

    assert_int_equal(cli_message_set_list(f->message, "token_ids.ids", "", &f->err), MOE_OK);
    assert_json(f, f->message, "{\"token_ids\":{}}");
}

static void a_list_with_a_word_is_refused(void **state)
{
    fixture *f = *state;

    assert_int_equal(cli_message_set_list(f->message, "token_ids.ids", "1,two,3", &f->err), MOE_ERR_INVALID_ARG);
    assert_string_equal(f->err.text, "'two' is not a whole number within [-2147483648, 2147483647]");
}

static void a_list_with_a_gap_is_refused(void **state)
{
    fixture *f = *state;

    assert_int_equal(cli_message_set_list(f->message, "token_ids.ids", "1,,3", &f->err), MOE_ERR_INVALID_ARG);
    assert_string_equal(f->err.text, "'' is not a whole number within [-2147483648, 2147483647]");
}

static void two_inputs_are_refused(void **state)
{
    fixture *f = *state;

    assert_int_equal(cli_message_set_list(f->message, "token_ids.ids", "1", &f->err), MOE_OK);
    refuse(f, "text", "hello", "something else is given in its place already");
}

static void a_negative_count_is_refused(void **state)
{
    refuse(*state, "sampling.max_tokens", "-1", "'-1' is not a whole number within [0, 4294967295]");
}

static void a_count_over_32_bits_is_refused(void **state)
{
    refuse(*state, "sampling.max_tokens", "4294967296", "'4294967296' is not a whole number within [0, 4294967295]");
}

static void a_count_with_a_tail_is_refused(void **state)
{
    refuse(*state, "sampling.n", "3x", "'3x' is not a whole number within [0, 4294967295]");
}

static void a_float_that_is_a_word_is_refused(void **state)
{
    refuse(*state, "sampling.top_p", "high", "'high' is not a number");
}

static void a_seed_keeps_64_bits(void **state)
{
    fixture *f = *state;

    set(f, "sampling.seed", "18446744073709551615");
    assert_json(f, f->message, "{\"sampling\":{\"seed\":\"18446744073709551615\"}}");
}

static void a_seed_over_64_bits_is_refused(void **state)
{
    refuse(*state, "sampling.seed", "18446744073709551616",
           "'18446744073709551616' is not a whole number within [0, 18446744073709551615]");
}

static void a_bool_takes_true_and_false_only(void **state)
{
    refuse(*state, "echo", "yes", "must be true or false");
}

static void messages_are_added_one_by_one(void **state)
{
    fixture *f = *state;
    ProtobufCMessage *message;

    assert_int_equal(cli_message_add(f->message, "messages.messages", &message, &f->err), MOE_OK);
    assert_int_equal(cli_message_set(message, "role", "ROLE_USER", &f->err), MOE_OK);
    assert_int_equal(cli_message_set(message, "content", "hi", &f->err), MOE_OK);
    assert_json(f, f->message, "{\"messages\":{\"messages\":[{\"role\":\"ROLE_USER\",\"content\":\"hi\"}]}}");
}

static void a_request_survives_packing(void **state)
{
    fixture *f = *state;
    unsigned char bytes[64];
    size_t n;
    ProtobufCMessage *copy;

    set(f, "sampling.top_p", "0.9");
    set(f, "text", "hi");
    n = protobuf_c_message_get_packed_size(f->message);
    assert_true(n <= sizeof(bytes));
    protobuf_c_message_pack(f->message, bytes);
    copy = protobuf_c_message_unpack(f->message->descriptor, NULL, n, bytes);
    assert_non_null(copy);
    cli_message_json(copy, &f->text);
    protobuf_c_message_free_unpacked(copy, NULL);
    assert_string_equal(moe_text_cstr(&f->text), "{\"text\":\"hi\",\"sampling\":{\"top_p\":0.9}}");
}

/* The line that a checker reads: the first token has no log-probability, an empty token text is left out. */
static void a_score_is_written_as_documented(void **state)
{
    fixture *f = *state;
    int32_t ids[] = {1, 4, 9, 12};
    Conclave__V1__LayerExperts layer = CONCLAVE__V1__LAYER_EXPERTS__INIT, *layers[] = {&layer};
    Conclave__V1__TopLogprob best = CONCLAVE__V1__TOP_LOGPROB__INIT, self = CONCLAVE__V1__TOP_LOGPROB__INIT;
    Conclave__V1__TopLogprob *top[] = {&best, &self};
    Conclave__V1__ScoredToken first = CONCLAVE__V1__SCORED_TOKEN__INIT, second = CONCLAVE__V1__SCORED_TOKEN__INIT;
    Conclave__V1__ScoredToken *tokens[] = {&first, &second};
    Conclave__V1__ScoreResponse response = CONCLAVE__V1__SCORE_RESPONSE__INIT;

    layer.n_ids = MOE_COUNT(ids);
    layer.ids = ids;
    best.id = 9;
    best.logprob = -0.7f;
    self.id = 3;
    self.logprob = -1.25f;
    first.id = 7;
    first.n_experts = 1;
    first.experts = layers;
    second.id = 3;
    second.has_logprob_case = CONCLAVE__V1__SCORED_TOKEN__HAS_LOGPROB_LOGPROB;
    second.logprob = -1.25f;
    second.n_top = MOE_COUNT(top);
    second.top = top;
    response.n_tokens = MOE_COUNT(tokens);
    response.tokens = tokens;
    assert_json(f, &response.base,
                "{\"tokens\":[{\"id\":7,\"experts\":[{\"layer\":0,\"ids\":[1,4,9,12]}]},"
                "{\"id\":3,\"logprob\":-1.25,\"top\":[{\"id\":9,\"logprob\":-0.7},{\"id\":3,\"logprob\":-1.25}]}]}");
}

static void numbers_that_json_lacks_are_strings(void **state)
{
    fixture *f = *state;
    float scores[] = {NAN, INFINITY, -INFINITY};
    Conclave__V1__ClassifyResponse response = CONCLAVE__V1__CLASSIFY_RESPONSE__INIT;

    response.n_scores = MOE_COUNT(scores);
    response.scores = scores;
    assert_json(f, &response.base, "{\"scores\":[\"NaN\",\"Infinity\",\"-Infinity\"]}");
}

static void floats_read_back_to_the_same_bits(void **state)
{
    fixture *f = *state;
    moe_random random;

    moe_random_seed(&random, 1);
    for (int i = 0; i < 20000; i++) {
        uint32_t bits = (uint32_t)moe_random_u64(&random);
        float v, back;
        Conclave__V1__ClassifyResponse response = CONCLAVE__V1__CLASSIFY_RESPONSE__INIT;
        moe_text line;

        memcpy(&v, &bits, sizeof(v));
        if (isnan(v) || isinf(v)) {
            continue;
        }
        response.n_scores = 1;
        response.scores = &v;
        moe_text_init(&line, 1 << 10);
        cli_message_json(&response.base, &line);
        back = strtof(moe_text_cstr(&line) + strlen("{\"scores\":["), NULL);
        moe_text_fini(&line);
        assert_memory_equal(&back, &v, sizeof(v));
    }
    (void)f;
}

static void an_unknown_enum_value_is_a_number(void **state)
{
    fixture *f = *state;
    Conclave__V1__Message message = CONCLAVE__V1__MESSAGE__INIT;

    message.role = (Conclave__V1__Role)77;
    assert_json(f, &message.base, "{\"role\":77}");
}

static void bytes_are_base64(void **state)
{
    fixture *f = *state;
    uint8_t raw[] = {0xff, 0xfe, 0x00, 0x41, 0x42};
    Conclave__V1__TopLogprob top = CONCLAVE__V1__TOP_LOGPROB__INIT;

    for (top.token.len = 3; top.token.len <= 5; top.token.len++) {
        top.token.data = raw;
        cli_message_json(&top.base, &f->text);
    }
    assert_string_equal(moe_text_cstr(&f->text), "{\"id\":0,\"logprob\":0,\"token\":\"//4A\"}"
                                                 "{\"id\":0,\"logprob\":0,\"token\":\"//4AQQ==\"}"
                                                 "{\"id\":0,\"logprob\":0,\"token\":\"//4AQUI=\"}");
}

static void lines_have_a_name_and_a_value(void **state)
{
    fixture *f = *state;

    set(f, "text", "hi");
    set(f, "echo", "true");
    cli_message_lines(f->message, &f->text);
    assert_string_equal(moe_text_cstr(&f->text), "text: \"hi\"\necho: true\n");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_set_zero_is_written_and_an_unset_field_is_not),
        TEST(a_set_empty_string_of_an_optional_field_is_written),
        TEST(a_field_set_twice_has_the_last_value),
        TEST(a_repeated_field_grows_by_each_value),
        TEST(a_list_is_divided_by_commas_and_spaces),
        TEST(an_empty_list_marks_its_message),
        TEST(a_list_with_a_word_is_refused),
        TEST(a_list_with_a_gap_is_refused),
        TEST(two_inputs_are_refused),
        TEST(a_negative_count_is_refused),
        TEST(a_count_over_32_bits_is_refused),
        TEST(a_count_with_a_tail_is_refused),
        TEST(a_float_that_is_a_word_is_refused),
        TEST(a_seed_keeps_64_bits),
        TEST(a_seed_over_64_bits_is_refused),
        TEST(a_bool_takes_true_and_false_only),
        TEST(messages_are_added_one_by_one),
        TEST(a_request_survives_packing),
        TEST(a_score_is_written_as_documented),
        TEST(numbers_that_json_lacks_are_strings),
        TEST(floats_read_back_to_the_same_bits),
        TEST(an_unknown_enum_value_is_a_number),
        TEST(bytes_are_base64),
        TEST(lines_have_a_name_and_a_value),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
