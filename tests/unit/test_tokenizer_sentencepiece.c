/* tokenizer.model: SentencePiece's answers on the models of tests/vectors/sentencepiece, and by hand-made files what is
 * read, what is refused, what tokenizer_config.json adds. */
#include "tests/unit/test_tokenizer_support.h"

#include <jansson.h>
#include <math.h>

#define VECTORS "tests/vectors/sentencepiece/"

enum { MAX_MODEL = 1 << 16, NORMAL = 1, UNKNOWN, CONTROL, USER, UNUSED, BYTE };

/* ------------------------------------------------------------------------------------------------ a protobuf writer */
typedef struct message {
    unsigned char bytes[MAX_MODEL];
    size_t n;
} message;

static void put_varint(message *m, uint64_t value)
{
    for (; value > 0x7f; value >>= 7) {
        m->bytes[m->n++] = (unsigned char)(value | 0x80);
    }
    m->bytes[m->n++] = (unsigned char)value;
}

static void put_int(message *m, unsigned number, uint64_t value)
{
    put_varint(m, number << 3);
    put_varint(m, value);
}

static void put_bytes(message *m, unsigned number, const void *bytes, size_t n)
{
    put_varint(m, number << 3 | 2);
    put_varint(m, n);
    memcpy(m->bytes + m->n, bytes, n);
    m->n += n;
}

static void put_float(message *m, unsigned number, float value)
{
    put_varint(m, number << 3 | 5);
    memcpy(m->bytes + m->n, &value, 4);
    m->n += 4;
}

static void put_piece_bytes(message *m, const void *text, size_t n, float score, uint64_t type)
{
    static message inner;

    inner.n = 0;
    put_bytes(&inner, 1, text, n);
    put_float(&inner, 2, score);
    put_int(&inner, 3, type);
    put_bytes(m, 1, inner.bytes, inner.n);
}

static void put_piece(message *m, const char *text, float score, uint64_t type)
{
    put_piece_bytes(m, text, strlen(text), score, type);
}

/* One field of trainer_spec (2), normalizer_spec (3) or denormalizer_spec (5). */
static void put_setting(message *m, unsigned spec, unsigned number, uint64_t value)
{
    static message inner;

    inner.n = 0;
    put_int(&inner, number, value);
    put_bytes(m, spec, inner.bytes, inner.n);
}

static void put_setting_bytes(message *m, unsigned spec, unsigned number, const char *value)
{
    static message inner;

    inner.n = 0;
    put_bytes(&inner, number, value, strlen(value));
    put_bytes(m, spec, inner.bytes, inner.n);
}

/* <unk> <s> </s> a b ab U+2581 ba: ids 0 .. 7; spaces are kept. */
static message *small_model(void)
{
    static message m;
    const char *const pieces[] = {"a", "b", "ab", "\xe2\x96\x81", "ba"};

    m.n = 0;
    put_piece(&m, "<unk>", 0, UNKNOWN);
    put_piece(&m, "<s>", 0, CONTROL);
    put_piece(&m, "</s>", 0, CONTROL);
    for (size_t i = 0; i < MOE_COUNT(pieces); i++) {
        put_piece(&m, pieces[i], -(float)i, NORMAL);
    }
    put_setting(&m, 2, 3, 2); /* model_type BPE */
    put_setting(&m, 3, 4, 0); /* remove_extra_whitespaces */
    return &m;
}

static moe_status open_model(const message *m, const char *config, size_t vocab_size, tokenizer **out, moe_error *err)
{
    char *config_json = quoted(config);
    const moe_status status = tokenizer_open_model_memory(m->bytes, m->n, config_json, config ? strlen(config) : 0,
                                                          NULL, 0, vocab_size, NULL, out, err);

    free(config_json);
    return status;
}

static tokenizer *must_open_model(const message *m, const char *config)
{
    tokenizer *t = NULL;
    moe_error err = {""};

    assert_ok(open_model(m, config, INLINE_VOCAB, &t, &err), err);
    return t;
}

static void assert_refused(const message *m, const char *config, moe_status expected, const char *reason)
{
    tokenizer *t = NULL;
    moe_error err = {""};

    assert_int_equal(open_model(m, config, 9, &t, &err), expected);
    assert_contains(err.text, reason);
    assert_null(t);
}

static const char *encoded_special(tokenizer *t, const char *text)
{
    return encoded_bytes(t, text, strlen(text), true, NULL, 0);
}

/* ------------------------------------------------------------------------------------------ SentencePiece's answers */
typedef struct vectors {
    json_t *json; /* owned */
    tokenizer *t; /* owned */
} vectors;

static vectors vectors_open(const char *name)
{
    char path[128];
    size_t n;
    char *model, *text;
    vectors v = {NULL, NULL};
    moe_error err = {""};

    snprintf(path, sizeof path, VECTORS "%s.model", name);
    model = test_read_file(path, &n);
    snprintf(path, sizeof path, VECTORS "%s.json", name);
    text = test_read_file(path, NULL);
    v.json = json_loads(text, 0, NULL);
    assert_non_null(v.json);
    assert_ok(tokenizer_open_model_memory(model, n, NULL, 0, NULL, 0, 512, NULL, &v.t, &err), err);
    free(model);
    free(text);
    return v;
}

static void vectors_close(vectors *v)
{
    json_decref(v->json);
    tokenizer_close(v->t);
}

static size_t read_ids(const json_t *json, int32_t ids[MAX_IDS])
{
    for (size_t i = 0; i < json_array_size(json); i++) {
        ids[i] = (int32_t)json_integer_value(json_array_get(json, i));
    }
    return json_array_size(json);
}

static void assert_text_of(const tokenizer *t, const json_t *json_ids, const json_t *json_text)
{
    int32_t ids[MAX_IDS];
    moe_text text = decoded(t, ids, read_ids(json_ids, ids), true);

    assert_string_equal(moe_text_cstr(&text), json_string_value(json_text));
    moe_text_fini(&text);
}

static void assert_encodes_alike(const char *name)
{
    vectors v = vectors_open(name);
    const json_t *list = json_object_get(v.json, "encode");
    int32_t ids[MAX_IDS];

    assert_true(json_array_size(list) > 100);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *item = json_array_get(list, i), *text = json_array_get(item, 0);
        char *expected = strdup(ids_text(ids, read_ids(json_array_get(item, 1), ids)));

        assert_string_equal(encoded_bytes(v.t, json_string_value(text), json_string_length(text), false, NULL, 0),
                            expected);
        free(expected);
    }
    vectors_close(&v);
}

static void assert_decodes_alike(const char *name)
{
    vectors v = vectors_open(name);
    const json_t *list = json_object_get(v.json, "decode"), *encodings = json_object_get(v.json, "encode");

    assert_true(json_array_size(list) > 50);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *item = json_array_get(list, i);

        assert_text_of(v.t, json_array_get(item, 0), json_array_get(item, 1));
    }
    for (size_t i = 0; i < json_array_size(encodings); i++) {
        const json_t *item = json_array_get(encodings, i);

        assert_text_of(v.t, json_array_get(item, 1), json_array_get(item, 2));
    }
    vectors_close(&v);
}

static void texts_encode_as_by_sentencepiece_with_byte_fallback(void **state)
{
    (void)state;
    assert_encodes_alike("bytes");
}

static void texts_encode_as_by_sentencepiece_without_byte_fallback(void **state)
{
    (void)state;
    assert_encodes_alike("plain");
}

static void ids_decode_as_by_sentencepiece_with_byte_fallback(void **state)
{
    (void)state;
    assert_decodes_alike("bytes");
}

static void ids_decode_as_by_sentencepiece_without_byte_fallback(void **state)
{
    (void)state;
    assert_decodes_alike("plain");
}

/* ------------------------------------------------------------------------------------------------ encoding */
static void the_higher_score_merges_first_then_the_leftmost(void **state)
{
    tokenizer *t = must_open_model(small_model(), NULL);

    (void)state;
    assert_string_equal(encoded(t, "bab"), "6 4 5"); /* ab before ba */
    assert_string_equal(encoded(t, "baa"), "6 7 3");
    assert_string_equal(encoded(t, "abab"), "6 5 5");
    tokenizer_close(t);
}

static void characters_that_are_no_pieces_merge_to_pieces(void **state)
{
    message *m = small_model();
    tokenizer *t;

    (void)state;
    put_piece(m, "cd", 0, NORMAL);
    t = must_open_model(m, NULL);
    assert_string_equal(encoded(t, "cd"), "6 8");
    assert_string_equal(encoded(t, "dcc"), "6 0"); /* a run of unknown ones is one */
    tokenizer_close(t);
}

static void equal_scores_merge_from_the_left(void **state)
{
    message *m = small_model();
    tokenizer *t;

    (void)state;
    put_piece(m, "aa", -2.0f, NORMAL); /* as ab */
    t = must_open_model(m, NULL);
    assert_string_equal(encoded(t, "aab"), "6 8 4");
    tokenizer_close(t);
}

static void user_defined_pieces_are_units_and_never_merge(void **state)
{
    message *m = small_model();
    tokenizer *t;

    (void)state;
    put_piece(m, "ba!", 0, USER);
    put_piece(m, "b!", 0, USER);
    put_piece(m, "ab!", 0, NORMAL);
    t = must_open_model(m, NULL);
    assert_string_equal(encoded(t, "ab!"), "6 3 9");
    assert_string_equal(encoded(t, "aba!b"), "6 3 8 4");
    tokenizer_close(t);
}

static void control_pieces_are_not_found_in_text(void **state)
{
    tokenizer *t = must_open_model(small_model(), NULL);

    (void)state;
    assert_string_equal(encoded(t, "<s>"), "6 0");
    tokenizer_close(t);
}

static void nul_bytes_are_text(void **state)
{
    tokenizer *t = must_open_model(small_model(), NULL);

    (void)state;
    assert_string_equal(encoded_bytes(t, "a\0b", 3, false, NULL, 0), "6 3 0 4");
    tokenizer_close(t);
}

static void more_ids_than_wanted_are_refused(void **state)
{
    tokenizer *t = must_open_model(small_model(), NULL);
    int32_t ids[2];
    size_t n;
    moe_error err = {""};

    (void)state;
    assert_int_equal(tokenizer_encode(t, "aa", 2, false, NULL, 0, ids, 2, &n, &err), MOE_ERR_INVALID_ARG);
    assert_contains(err.text, "more than 2 tokens");
    tokenizer_close(t);
}

/* ------------------------------------------------------------------------------------------------ decoding */
static message *byte_model(void)
{
    message *m = small_model();

    for (unsigned byte = 0; byte < 256; byte++) { /* id 8 + byte */
        char name[8];

        snprintf(name, sizeof name, "<0x%02X>", byte);
        put_piece(m, name, 0, BYTE);
    }
    put_setting(m, 2, 35, 1);
    return m;
}

static tokenizer *open_bytes(void)
{
    tokenizer *t = NULL;
    moe_error err = {""};

    assert_ok(open_model(byte_model(), NULL, 300, &t, &err), err);
    return t;
}

static void unknown_characters_are_their_bytes(void **state)
{
    tokenizer *t = open_bytes();

    (void)state;
    assert_string_equal(encoded(t, "a\xc3\xa9"), "6 3 203 177");
    tokenizer_close(t);
}

static void bytes_are_held_until_their_code_point_is_whole(void **state)
{
    const int32_t ids[] = {8 + 0xe2, 8 + 0x82, 8 + 0xac};
    tokenizer *t = open_bytes();
    tokenizer_decode d;
    moe_text out;

    (void)state;
    moe_text_init(&out, 64);
    tokenizer_decode_init(&d, t, true);
    tokenizer_decode_push(&d, ids[0], &out);
    tokenizer_decode_push(&d, ids[1], &out);
    assert_int_equal(out.size, 0);
    tokenizer_decode_push(&d, ids[2], &out);
    assert_string_equal(moe_text_cstr(&out), "\xe2\x82\xac");
    moe_text_fini(&out);
    tokenizer_close(t);
}

static void each_invalid_byte_is_one_replacement(void **state)
{
    const int32_t cut[] = {8 + 0xe2, 8 + 0x82}, broken[] = {8 + 0xe2, 8 + 0x82, 3};
    tokenizer *t = open_bytes();

    (void)state;
    assert_decodes(t, cut, "\xef\xbf\xbd\xef\xbf\xbd");
    assert_decodes(t, broken,
                   "\xef\xbf\xbd\xef\xbf\xbd"
                   "a");
    tokenizer_close(t);
}

static void only_the_dummy_prefix_is_taken_off(void **state)
{
    const int32_t two[] = {6, 6, 3}, alone[] = {6}, later[] = {3, 6, 3};
    tokenizer *t = open_bytes();

    (void)state;
    assert_decodes(t, two, " a");
    assert_decodes(t, alone, "");
    assert_decodes(t, later, "a a");
    tokenizer_close(t);
}

static void ids_beyond_the_pieces_decode_to_nothing(void **state)
{
    const int32_t ids[] = {3, 60, 4, 299, -1};
    tokenizer *t = must_open_model(small_model(), NULL);
    size_t n = 1;

    (void)state;
    assert_decodes(t, ids, "ab");
    (void)tokenizer_token_bytes(t, 60, &n);
    assert_int_equal(n, 0);
    tokenizer_close(t);
}

static void special_tokens_are_skipped_or_shown(void **state)
{
    const int32_t ids[] = {1, 6, 3, 2};
    tokenizer *t = must_open_model(small_model(), NULL);
    moe_text skipped = decoded(t, ids, MOE_COUNT(ids), true);

    (void)state;
    assert_string_equal(moe_text_cstr(&skipped), "a");
    assert_decodes(t, ids, "<s> a</s>");
    moe_text_fini(&skipped);
    tokenizer_close(t);
}

/* -------------------------------------------------------------------------------------------- tokenizer_config.json */
static void a_bos_goes_first_by_default(void **state)
{
    tokenizer *t = must_open_model(small_model(), NULL);

    (void)state;
    assert_string_equal(encoded_special(t, "a"), "1 6 3");
    tokenizer_close(t);
}

static void the_config_overrules_bos_and_eos(void **state)
{
    tokenizer *t = must_open_model(small_model(), "{'add_bos_token':false,'add_eos_token':true}");

    (void)state;
    assert_string_equal(encoded_special(t, "a"), "6 3 2");
    tokenizer_close(t);
}

static void another_class_adds_no_bos(void **state)
{
    tokenizer *t = must_open_model(small_model(), "{'tokenizer_class':'XGLMTokenizer'}");

    (void)state;
    assert_string_equal(encoded_special(t, "a"), "6 3");
    tokenizer_close(t);
}

static void named_tokens_are_found_in_text_outside_of_spans(void **state)
{
    const tokenizer_span span = {1, 4};
    tokenizer *t = must_open_model(small_model(), "{'bos_token':{'__type':'AddedToken','content':'<s>'}}");

    (void)state;
    assert_string_equal(encoded(t, "a<s>b"), "6 3 1 6 4");
    assert_string_equal(encoded_bytes(t, "a<s>b", 5, false, &span, 1), "6 3 0 4");
    tokenizer_close(t);
}

static void without_legacy_only_the_head_gets_a_prefix(void **state)
{
    tokenizer *t = must_open_model(small_model(), "{'bos_token':'<s>','legacy':false}");

    (void)state;
    assert_string_equal(encoded(t, "a<s>b"), "6 3 1 4");
    assert_string_equal(encoded(t, "<s>b"), "1 4");
    tokenizer_close(t);
}

static void added_tokens_may_lie_beyond_the_pieces(void **state)
{
    const int32_t ids[] = {6, 3, 20};
    tokenizer *t =
        must_open_model(small_model(), "{'added_tokens_decoder':{'20':{'content':'<end>','special':false}}}");

    (void)state;
    assert_string_equal(encoded(t, "a<end>"), "6 3 20");
    assert_decodes(t, ids, "a<end>");
    tokenizer_close(t);
}

static void a_config_that_contradicts_the_model_is_refused(void **state)
{
    (void)state;
    assert_refused(small_model(), "{'added_tokens_decoder':{'3':{'content':'x'}}}", MOE_ERR_CORRUPT,
                   "added_tokens_decoder[\"3\"].content: \"x\", but tokenizer.model says \"a\"");
    assert_refused(small_model(), "{'legacy':1}", MOE_ERR_CORRUPT, "legacy: not true or false");
    assert_refused(small_model(), "{'bos_token':1}", MOE_ERR_CORRUPT, "bos_token: not a string");
}

/* ------------------------------------------------------------------------------------------------ files */
static void a_folder_with_only_a_model_file_opens(void **state)
{
    const test_folder *folder = *state;
    const message *m = small_model();
    tokenizer *t = NULL;
    moe_error err = {""};

    test_write_file(test_folder_path(folder, "tokenizer.model"), m->bytes, m->n);
    assert_ok(tokenizer_open(folder->path, 64, NULL, &t, &err), err);
    assert_string_equal(encoded(t, "ab"), "6 5");
    tokenizer_close(t);
}

static void tokenizer_json_goes_before_the_model_file(void **state)
{
    const test_folder *folder = *state;
    const message *m = small_model();
    tokenizer *t = NULL;
    moe_error err = {""};

    test_write_file(test_folder_path(folder, "tokenizer.model"), m->bytes, m->n);
    test_write_text(test_folder_path(folder, "tokenizer.json"), "{\"model\":{\"vocab\":{\"a\":0},\"merges\":[]}}");
    assert_ok(tokenizer_open(folder->path, 64, NULL, &t, &err), err);
    assert_string_equal(encoded(t, "a"), "0");
    tokenizer_close(t);
}

/* ------------------------------------------------------------------------------------------------ refused */
static void other_kinds_of_models_are_refused_by_name(void **state)
{
    message *m;

    (void)state;
    m = small_model();
    put_setting(m, 2, 3, 1);
    assert_refused(m, NULL, MOE_ERR_UNSUPPORTED, "trainer_spec.model_type: 1 (unigram) is not supported");
    m = small_model();
    put_setting(m, 2, 3, 4);
    assert_refused(m, NULL, MOE_ERR_UNSUPPORTED, "trainer_spec.model_type: 4 is not supported");
    m = small_model();
    put_setting(m, 2, 24, 1);
    assert_refused(m, NULL, MOE_ERR_UNSUPPORTED, "treat_whitespace_as_suffix");
    m = small_model();
    put_setting_bytes(m, 3, 2, "charsmap");
    assert_refused(m, NULL, MOE_ERR_UNSUPPORTED, "normalizer_spec.precompiled_charsmap: 8 bytes");
    m = small_model();
    put_setting_bytes(m, 5, 2, "charsmap");
    assert_refused(m, NULL, MOE_ERR_UNSUPPORTED, "denormalizer_spec.precompiled_charsmap");
    m = small_model();
    put_piece(m, "c", 0, UNUSED);
    assert_refused(m, NULL, MOE_ERR_UNSUPPORTED, "pieces[8].type: unused (5)");
}

static void malformed_pieces_are_refused_by_name(void **state)
{
    message *m;

    (void)state;
    m = small_model();
    put_piece(m, "", 0, NORMAL);
    assert_refused(m, NULL, MOE_ERR_CORRUPT, "pieces[8].piece: empty");
    m = small_model();
    put_piece(m, "ab", 0, USER);
    assert_refused(m, NULL, MOE_ERR_CORRUPT, "pieces[8].piece: \"ab\" is piece 5 too");
    m = small_model();
    put_piece(m, "\xff", 0, NORMAL);
    assert_refused(m, NULL, MOE_ERR_CORRUPT, "pieces[8].piece: not UTF-8");
    m = small_model();
    put_piece(m, "c", NAN, NORMAL);
    assert_refused(m, NULL, MOE_ERR_CORRUPT, "pieces[8].score: not a finite float");
    m = small_model();
    put_piece(m, "c", 0, 7);
    assert_refused(m, NULL, MOE_ERR_CORRUPT, "pieces[8].type: 7 is outside [1, 6]");
    m = small_model();
    put_piece(m, "c", 0, UNKNOWN);
    assert_refused(m, NULL, MOE_ERR_CORRUPT, "pieces[8].type: unknown (2), as is piece 0");
    m = small_model();
    put_piece(m, "c", 0, NORMAL);
    put_piece(m, "d", 0, NORMAL);
    assert_refused(m, NULL, MOE_ERR_CORRUPT, "pieces: more than vocab_size 9");
}

static void a_piece_over_the_limit_is_refused(void **state)
{
    message *m = small_model();
    char text[4097];

    (void)state;
    memset(text, 'x', sizeof text);
    put_piece_bytes(m, text, sizeof text, 0, NORMAL);
    assert_refused(m, NULL, MOE_ERR_CORRUPT, "pieces[8].piece: not UTF-8 text of at most 4096 bytes");
}

static void models_without_what_they_need_are_refused(void **state)
{
    static message empty;
    message *m;

    (void)state;
    put_setting(&empty, 2, 3, 2);
    assert_refused(&empty, NULL, MOE_ERR_CORRUPT, "none is of type unknown");
    m = small_model();
    put_setting(m, 2, 35, 1);
    assert_refused(m, NULL, MOE_ERR_CORRUPT, "no <0x00>, but trainer_spec.byte_fallback is true");
    m = small_model();
    put_piece(m, "<0x41>", 0, BYTE);
    assert_refused(m, NULL, MOE_ERR_CORRUPT, "byte (6), but trainer_spec.byte_fallback is false");
    m = small_model();
    put_setting(m, 2, 35, 1);
    put_piece(m, "<0x4a>", 0, BYTE);
    assert_refused(m, NULL, MOE_ERR_CORRUPT, "byte (6), but its piece names none");
}

static void malformed_wire_data_is_refused(void **state)
{
    static const struct {
        const char *bytes;
        size_t n;
    } cases[] = {
        {"\x0a\x05", 2},                                      /* longer than the file */
        {"\x0a", 1},                                          /* no length */
        {"\x08\x01", 2},                                      /* pieces as a number */
        {"\x0b\x0c", 2},                                      /* a group */
        {"\x02\x00", 2},                                      /* field 0 */
        {"\x3d\x00", 2},                                      /* half of 32 bits */
        {"\x39\x00", 2},                                      /* and of 64 */
        {"\x30\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", 11}, /* 65 bits */
        {"\xff\xff\xff\xff\xff\x01\x00", 7},                  /* a field number over 29 bits */
    };
    message *m = small_model();
    const size_t n = m->n;

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(cases); i++) {
        char reason[64];

        memcpy(m->bytes + n, cases[i].bytes, cases[i].n);
        m->n = n + cases[i].n;
        snprintf(reason, sizeof reason, "malformed field at byte %zu", n);
        assert_refused(m, NULL, MOE_ERR_CORRUPT, reason);
    }
}

static void fields_of_the_wrong_kind_are_refused_by_name(void **state)
{
    message *m;

    (void)state;
    m = small_model();
    put_setting_bytes(m, 2, 35, "x");
    assert_refused(m, NULL, MOE_ERR_CORRUPT, "trainer_spec.byte_fallback: not a varint");
    m = small_model();
    put_setting(m, 2, 44, 1);
    assert_refused(m, NULL, MOE_ERR_CORRUPT, "trainer_spec.unk_surface: not UTF-8 text");
}

static void unknown_fields_are_skipped(void **state)
{
    message *m = small_model();
    tokenizer *t;

    (void)state;
    put_int(m, 200, UINT64_MAX);
    put_float(m, 201, 1.0f);
    put_bytes(m, 202, "abc", 3);
    put_varint(m, 203u << 3 | 1);
    memset(m->bytes + m->n, 0xff, 8);
    m->n += 8;
    t = must_open_model(m, NULL);
    assert_string_equal(encoded(t, "a"), "6 3");
    tokenizer_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_encode_as_by_sentencepiece_with_byte_fallback),
        cmocka_unit_test(texts_encode_as_by_sentencepiece_without_byte_fallback),
        cmocka_unit_test(ids_decode_as_by_sentencepiece_with_byte_fallback),
        cmocka_unit_test(ids_decode_as_by_sentencepiece_without_byte_fallback),
        cmocka_unit_test(the_higher_score_merges_first_then_the_leftmost),
        cmocka_unit_test(characters_that_are_no_pieces_merge_to_pieces),
        cmocka_unit_test(equal_scores_merge_from_the_left),
        cmocka_unit_test(user_defined_pieces_are_units_and_never_merge),
        cmocka_unit_test(control_pieces_are_not_found_in_text),
        cmocka_unit_test(nul_bytes_are_text),
        cmocka_unit_test(more_ids_than_wanted_are_refused),
        cmocka_unit_test(unknown_characters_are_their_bytes),
        cmocka_unit_test(bytes_are_held_until_their_code_point_is_whole),
        cmocka_unit_test(each_invalid_byte_is_one_replacement),
        cmocka_unit_test(only_the_dummy_prefix_is_taken_off),
        cmocka_unit_test(ids_beyond_the_pieces_decode_to_nothing),
        cmocka_unit_test(special_tokens_are_skipped_or_shown),
        cmocka_unit_test(a_bos_goes_first_by_default),
        cmocka_unit_test(the_config_overrules_bos_and_eos),
        cmocka_unit_test(another_class_adds_no_bos),
        cmocka_unit_test(named_tokens_are_found_in_text_outside_of_spans),
        cmocka_unit_test(without_legacy_only_the_head_gets_a_prefix),
        cmocka_unit_test(added_tokens_may_lie_beyond_the_pieces),
        cmocka_unit_test(a_config_that_contradicts_the_model_is_refused),
        cmocka_unit_test_setup_teardown(a_folder_with_only_a_model_file_opens, test_folder_setup, test_folder_teardown),
        cmocka_unit_test_setup_teardown(tokenizer_json_goes_before_the_model_file, test_folder_setup,
                                        test_folder_teardown),
        cmocka_unit_test(other_kinds_of_models_are_refused_by_name),
        cmocka_unit_test(malformed_pieces_are_refused_by_name),
        cmocka_unit_test(a_piece_over_the_limit_is_refused),
        cmocka_unit_test(models_without_what_they_need_are_refused),
        cmocka_unit_test(malformed_wire_data_is_refused),
        cmocka_unit_test(fields_of_the_wrong_kind_are_refused_by_name),
        cmocka_unit_test(unknown_fields_are_skipped),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
