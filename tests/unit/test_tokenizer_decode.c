#include "tests/unit/test_tokenizer_support.h"

#define FFFD "\xef\xbf\xbd"

/* Ids 0.. are single bytes of the byte alphabet; see the characters in the names. */
#define BYTES                                                                                                          \
    "{'decoder':{'type':'ByteLevel'},'pre_tokenizer':{'type':'ByteLevel','add_prefix_space':false},'added_tokens':["   \
    "{'id':20,'content':'<e>','special':true},{'id':21,'content':'   '}],'model':{'vocab':{'a':0,'\\u0120':1,"         \
    "'\\u00e2':2,'\\u0124':3,'\\u00ac':4,'\\u00f0':5,'\\u0141':6,'\\u013a':7,'\\u0122':8,'\\u00c3':9,'\\u00a9':10,"    \
    "'\\u00e2\\u0124':11,'\\u00ac\\u0120a':12,'\\u00ed':13,'\\u00ff':14},'merges':[]}}"
/* e2 82 ac is U+20AC; f0 9f 98 80 is U+1F600; c3 a9 is U+00E9 */

static void bytes_join_into_code_points_over_tokens(void **state)
{
    tokenizer *t = must_open(BYTES, NULL, NULL);
    const int32_t ids[] = {0, 11, 12, 5, 6, 7, 8};

    (void)state;
    assert_decodes(t, ids, "a\xe2\x82\xac a\xf0\x9f\x98\x80");
    tokenizer_close(t);
}

static void nothing_is_emitted_before_a_code_point_is_whole(void **state)
{
    tokenizer *t = must_open(BYTES, NULL, NULL);
    tokenizer_decode d;
    moe_text out;

    (void)state;
    moe_text_init(&out, 100);
    tokenizer_decode_init(&d, t, false);
    tokenizer_decode_push(&d, 5, &out);
    tokenizer_decode_push(&d, 6, &out);
    tokenizer_decode_push(&d, 7, &out);
    assert_int_equal(out.size, 0);
    tokenizer_decode_push(&d, 8, &out);
    assert_string_equal(moe_text_cstr(&out), "\xf0\x9f\x98\x80");
    moe_text_fini(&out);
    tokenizer_close(t);
}

static void an_unfinished_code_point_is_one_replacement(void **state)
{
    tokenizer *t = must_open(BYTES, NULL, NULL);
    const int32_t ids[] = {5, 6, 7};

    (void)state;
    assert_decodes(t, ids, FFFD);
    tokenizer_close(t);
}

static void each_maximal_invalid_subpart_is_one_replacement(void **state)
{
    tokenizer *t = must_open(BYTES, NULL, NULL);
    const int32_t ids[] = {2, 3, 0, 13, 10, 14, 14, 9, 2, 3, 4}; /* e2 82 | a | ed | a9 | ff | ff | c3 | e2 82 ac */

    (void)state;
    assert_decodes(t, ids, FFFD "a" FFFD FFFD FFFD FFFD FFFD "\xe2\x82\xac");
    tokenizer_close(t);
}

static void text_outside_the_byte_alphabet_is_kept(void **state)
{
    tokenizer *t = must_open(BYTES, NULL, NULL);
    const int32_t ids[] = {0, 21, 0};

    (void)state;
    assert_decodes(t, ids, "a   a");
    tokenizer_close(t);
}

static void ids_without_text_decode_to_nothing(void **state)
{
    tokenizer *t = must_open(BYTES, NULL, NULL);
    const int32_t ids[] = {9, 63, -1, INLINE_VOCAB, INT32_MAX, 10};

    (void)state;
    assert_decodes(t, ids, "\xc3\xa9");
    tokenizer_close(t);
}

static void special_tokens_are_skipped_on_request(void **state)
{
    tokenizer *t = must_open(BYTES, NULL, NULL);
    const int32_t ids[] = {9, 20, 10};
    moe_text text = decoded(t, ids, 3, true);

    (void)state;
    assert_string_equal(moe_text_cstr(&text), "\xc3\xa9");
    moe_text_fini(&text);
    tokenizer_close(t);
}

static void special_tokens_are_text_otherwise(void **state)
{
    tokenizer *t = must_open(BYTES, NULL, NULL);
    const int32_t ids[] = {0, 20};

    (void)state;
    assert_decodes(t, ids, "a<e>");
    tokenizer_close(t);
}

static void ids_that_the_model_calls_special_are_special(void **state)
{
    const int32_t pad = 21;
    tokenizer *t = must_open(BYTES, NULL, &(tokenizer_specials){.ids = &pad, .n_ids = 1, .bos_id = -1, .eos_id = -1});

    (void)state;
    assert_true(tokenizer_is_special(t, 21));
    tokenizer_close(t);
}

static void the_config_may_call_a_token_special(void **state)
{
    tokenizer *t = must_open(BYTES, "{'added_tokens_decoder':{'21':{'content':'   ','special':true}}}", NULL);

    (void)state;
    assert_true(tokenizer_is_special(t, 21));
    tokenizer_close(t);
}

static void the_config_may_add_a_token(void **state)
{
    tokenizer *t = must_open(BYTES,
                             "{'added_tokens_decoder':{'30':{'content':'<x>'}},'model_max_length':1"
                             "000000000000000019884624838656}",
                             NULL);

    (void)state;
    assert_string_equal(encoded(t, "a<x>"), "0 30");
    tokenizer_close(t);
}

static void what_python_writes_in_the_config_is_read(void **state)
{
    tokenizer *t = must_open(
        BYTES, "{'model_max_length':Infinity,'a':NaN,'b':[-Infinity],'added_tokens_decoder':{'30':{'content':'<x>'}}}",
        NULL);

    (void)state;
    assert_string_equal(encoded(t, "a<x>"), "0 30");
    tokenizer_close(t);
}

static void the_bytes_of_one_token_are_its_part_of_the_text(void **state)
{
    tokenizer *t = must_open(BYTES, NULL, NULL);
    size_t n;
    const char *bytes = tokenizer_token_bytes(t, 12, &n);

    (void)state;
    assert_int_equal(n, 3);
    assert_memory_equal(bytes, "\xac a", 3);
    assert_int_equal(tokenizer_longest_token_bytes(t), 3);
    tokenizer_close(t);
}

static void an_id_without_text_has_no_bytes(void **state)
{
    tokenizer *t = must_open(BYTES, NULL, NULL);
    size_t n = 1;

    (void)state;
    (void)tokenizer_token_bytes(t, 62, &n);
    assert_int_equal(n, 0);
    n = 1;
    (void)tokenizer_token_bytes(t, -5, &n);
    assert_int_equal(n, 0);
    tokenizer_close(t);
}

/* ------------------------------------------------------------------------------------------------ Llama-type */
#define LLAMA_VOCAB                                                                                                    \
    "'model':{'byte_fallback':true,'vocab':{'\\u2581a':0,'a':1,'\\u2581':2,'<0xC3>':3,'<0xA9>':4,'<0xFF>':5,'<0x20>':" \
    "6,"                                                                                                               \
    "'b\\u2581':7,'\\u2581\\u2581a':8},'merges':[]}"
#define LLAMA(strip)                                                                                                   \
    "{'decoder':{'type':'Sequence','decoders':[{'type':'Replace','pattern':{'String':'\\u2581'},'content':' '},"       \
    "{'type':'ByteFallback'},{'type':'Fuse'}" strip "]}," LLAMA_VOCAB "}"
#define STRIP_ONE ",{'type':'Strip','content':' ','start':1,'stop':0}"

static void the_head_of_the_text_loses_one_space(void **state)
{
    tokenizer *t = must_open(LLAMA(STRIP_ONE), NULL, NULL);
    const int32_t ids[] = {8, 0, 1};

    (void)state;
    assert_decodes(t, ids, " a aa");
    tokenizer_close(t);
}

static void a_continuation_keeps_its_space(void **state)
{
    tokenizer *t = must_open(LLAMA(STRIP_ONE), NULL, NULL);
    tokenizer_decode d;
    moe_text out;

    (void)state;
    moe_text_init(&out, 100);
    tokenizer_decode_init(&d, t, false);
    d.first = false;
    d.strip_left = 0;
    tokenizer_decode_push(&d, 0, &out);
    tokenizer_decode_finish(&d, &out);
    assert_string_equal(moe_text_cstr(&out), " a");
    moe_text_fini(&out);
    tokenizer_close(t);
}

static void a_valid_run_of_byte_tokens_is_its_text(void **state)
{
    tokenizer *t = must_open(LLAMA(""), NULL, NULL);
    const int32_t ids[] = {1, 3, 4, 6, 1};

    (void)state;
    assert_decodes(t, ids, "a\xc3\xa9 a");
    tokenizer_close(t);
}

static void an_invalid_run_of_byte_tokens_is_one_replacement_per_byte(void **state)
{
    tokenizer *t = must_open(LLAMA(""), NULL, NULL);
    const int32_t ids[] = {1, 3, 4, 5, 1};

    (void)state;
    assert_decodes(t, ids, "a" FFFD FFFD FFFD "a");
    tokenizer_close(t);
}

static void a_long_run_of_byte_tokens_is_cut_between_code_points(void **state)
{
    tokenizer *t = must_open(LLAMA(""), NULL, NULL);
    int32_t ids[401] = {6};
    moe_text text;

    (void)state;
    for (size_t i = 1; i < MOE_COUNT(ids); i++) {
        ids[i] = i % 2 ? 3 : 4;
    }
    text = decoded(t, ids, MOE_COUNT(ids), false);
    assert_int_equal(text.size, 401);
    assert_int_equal(moe_utf8_valid_prefix(text.data, text.size), 401);
    assert_null(strstr(text.data, FFFD));
    moe_text_fini(&text);
    tokenizer_close(t);
}

static void a_long_invalid_run_is_one_replacement_per_byte(void **state)
{
    tokenizer *t = must_open(LLAMA(""), NULL, NULL);
    int32_t ids[200];
    moe_text text;

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(ids); i++) {
        ids[i] = 5;
    }
    text = decoded(t, ids, MOE_COUNT(ids), false);
    assert_int_equal(text.size, 600);
    moe_text_fini(&text);
    tokenizer_close(t);
}

static void metaspace_marks_of_the_first_token_vanish(void **state)
{
    tokenizer *t =
        must_open("{'decoder':{'type':'Metaspace','replacement':'\\u2581','prepend_scheme':'always'}," LLAMA_VOCAB "}",
                  NULL, NULL);
    const int32_t ids[] = {8, 8, 7};

    (void)state;
    assert_decodes(t, ids, "a  ab ");
    tokenizer_close(t);
}

static void metaspace_never_keeps_the_marks_of_the_first_token(void **state)
{
    tokenizer *t = must_open("{'decoder':{'type':'Metaspace','prepend_scheme':'never'}," LLAMA_VOCAB "}", NULL, NULL);
    const int32_t ids[] = {0, 1};

    (void)state;
    assert_decodes(t, ids, " aa");
    tokenizer_close(t);
}

static void strip_without_fuse_strips_each_token(void **state)
{
    tokenizer *t =
        must_open("{'decoder':{'type':'Strip','content':'\\u2581','start':1,'stop':1}," LLAMA_VOCAB "}", NULL, NULL);
    const int32_t ids[] = {0, 8, 7, 2};

    (void)state;
    assert_decodes(t, ids,
                   "a\xe2\x96\x81"
                   "ab");
    tokenizer_close(t);
}

static void without_decoder_tokens_are_joined_by_spaces(void **state)
{
    tokenizer *t = must_open("{" LLAMA_VOCAB "}", NULL, NULL);
    const int32_t ids[] = {1, 3, 1};

    (void)state;
    assert_decodes(t, ids, "a <0xC3> a");
    tokenizer_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_join_into_code_points_over_tokens),
        cmocka_unit_test(nothing_is_emitted_before_a_code_point_is_whole),
        cmocka_unit_test(an_unfinished_code_point_is_one_replacement),
        cmocka_unit_test(each_maximal_invalid_subpart_is_one_replacement),
        cmocka_unit_test(text_outside_the_byte_alphabet_is_kept),
        cmocka_unit_test(ids_without_text_decode_to_nothing),
        cmocka_unit_test(special_tokens_are_skipped_on_request),
        cmocka_unit_test(special_tokens_are_text_otherwise),
        cmocka_unit_test(ids_that_the_model_calls_special_are_special),
        cmocka_unit_test(the_config_may_call_a_token_special),
        cmocka_unit_test(the_config_may_add_a_token),
        cmocka_unit_test(what_python_writes_in_the_config_is_read),
        cmocka_unit_test(the_bytes_of_one_token_are_its_part_of_the_text),
        cmocka_unit_test(an_id_without_text_has_no_bytes),
        cmocka_unit_test(the_head_of_the_text_loses_one_space),
        cmocka_unit_test(a_continuation_keeps_its_space),
        cmocka_unit_test(a_valid_run_of_byte_tokens_is_its_text),
        cmocka_unit_test(an_invalid_run_of_byte_tokens_is_one_replacement_per_byte),
        cmocka_unit_test(a_long_run_of_byte_tokens_is_cut_between_code_points),
        cmocka_unit_test(a_long_invalid_run_is_one_replacement_per_byte),
        cmocka_unit_test(metaspace_marks_of_the_first_token_vanish),
        cmocka_unit_test(metaspace_never_keeps_the_marks_of_the_first_token),
        cmocka_unit_test(strip_without_fuse_strips_each_token),
        cmocka_unit_test(without_decoder_tokens_are_joined_by_spaces),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
