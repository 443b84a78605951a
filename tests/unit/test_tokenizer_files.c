/* Whole tokenizer files: our own small one, and the published ones in the folder that TOKENIZERS names
 * (olmo-a.json, olmo-b.json, codegen.json), skipped by name where they are absent. */
#include "tests/unit/test_tokenizer_support.h"

enum { OLMO_VOCAB = 50304, CODEGEN_VOCAB = 51200 };

typedef struct text_ids {
    const char *text;
    size_t n; /* 0: up to the NUL */
    const char *ids;
} text_ids;

static tokenizer *open_path(const char *path, size_t vocab_size)
{
    size_t n;
    char *json = test_read_file(path, &n);
    tokenizer *t = NULL;
    moe_error err = {""};

    assert_ok(tokenizer_open_memory(json, n, NULL, 0, NULL, 0, vocab_size, NULL, &t, &err), err);
    free(json);
    return t;
}

static tokenizer *open_published(const char *name, size_t vocab_size)
{
    const char *folder = getenv("TOKENIZERS");
    char path[1024];
    FILE *f;

    snprintf(path, sizeof path, "%s/%s", folder ? folder : "", name);
    f = folder ? fopen(path, "rb") : NULL;
    if (!f) {
        print_message("skipped: %s\n", folder ? path : "TOKENIZERS is not set");
        skip();
    }
    fclose(f);
    return open_path(path, vocab_size);
}

static void assert_all(tokenizer *t, const text_ids *cases, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const char *ids =
            encoded_bytes(t, cases[i].text, cases[i].n ? cases[i].n : strlen(cases[i].text), false, NULL, 0);

        if (strcmp(ids, cases[i].ids) != 0) {
            fail_msg("\"%s\": %s, expected %s", cases[i].text, ids, cases[i].ids);
        }
    }
}

static const text_ids olmo_texts[] = {
    {"The the", 0, "510 253"},
    {"it's", 0, "262 434"},
    {" don't we'll 12345", 0, "1053 626 359 1833 1249 16767"},
    {"1 2", 0, "18 374"},
    {"a  b", 0, "66 50276 67"},
    {"a                         b", 0, "66 50254 270"},
    {"    x", 0, "50274 89"},
    {"x\n\n", 0, "89 535"},
    {"a\n\nb", 0, "66 187 187 67"},
    {"\t\tx", 0, "186 186 89"},
    {"def f(x):\n    return x\n", 0, "1545 269 9 89 2262 187 50274 2309 1269 187"},
    {"a\xc2\xa0"
     "b",
     0, "66 575 67"},
    {"\0", 1, "177"},
    {"e\xcc\x81", 0, "860"},
    {"\xc3\xa9", 0, "860"},
    {"na\xc3\xafve caf\xc3\xa9", 0, "2072 30180 36241"},
    {"\xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e", 0, "49868 19119 241"},
    {"\xf0\x9f\x98\x80", 0, "14931 235 211"},
    {"\xe2\x96\x81x", 0, "10897 212 89"},
    {"Hello, world!", 0, "12092 13 1533 2"},
    {"Bitcoin is", 0, "12871 9669 310"},
    {"A<|padding|>B", 0, "34 1 35"},
};

static void variant_a_gives_the_checked_ids(void **state)
{
    static const text_ids own[] = {{"<|endoftext|>", 0, "50279"},
                                   {"|||IP_ADDRESS|||", 0, "0"},
                                   {"<|endoftext|><|user|>\nHi\n<|assistant|>\n", 0,
                                    "50279 29 93 4537 49651 187 12764 187 29 93 515 5567 49651 187"}};
    tokenizer *t = open_published("olmo-a.json", OLMO_VOCAB);

    (void)state;
    assert_all(t, olmo_texts, MOE_COUNT(olmo_texts));
    assert_all(t, own, MOE_COUNT(own));
    tokenizer_close(t);
}

static void variant_b_gives_the_checked_ids(void **state)
{
    static const text_ids own[] = {{"<|endoftext|>", 0, "0"},
                                   {"|||IP_ADDRESS|||", 0, "50279"},
                                   {"|||IP_ADDRESS|||<|user|>\nHi\n<|assistant|>\n", 0,
                                    "50279 29 93 4537 49651 187 12764 187 29 93 515 5567 49651 187"}};
    tokenizer *t = open_published("olmo-b.json", OLMO_VOCAB);

    (void)state;
    assert_all(t, olmo_texts, MOE_COUNT(olmo_texts));
    assert_all(t, own, MOE_COUNT(own));
    tokenizer_close(t);
}

static void codegen_has_runs_of_spaces_and_tabs(void **state)
{
    static const text_ids texts[] = {{"x\t\t", 0, "87 50294"},
                                     {"a  b", 0, "64 50286 65"},
                                     {"<|endoftext|>", 0, "50256"},
                                     {"Hello world", 0, "15496 995"}};
    tokenizer *t = open_published("codegen.json", CODEGEN_VOCAB);

    (void)state;
    assert_all(t, texts, MOE_COUNT(texts));
    tokenizer_close(t);
}

static void a_user_cannot_type_the_end_of_text(const char *name, const char *typed)
{
    const tokenizer_specials specials = {.bos_id = 50279, .eos_id = 50279};
    const char *folder = getenv("TOKENIZERS");
    const tokenizer_message message = said(TOKENIZER_ROLE_USER, typed);
    char path[1024], *json;
    size_t n, n_ids = 0;
    tokenizer *t = NULL;
    moe_error err = {""};
    int32_t ids[256];

    tokenizer_close(open_published(name, OLMO_VOCAB)); /* or skip */
    snprintf(path, sizeof path, "%s/%s", folder, name);
    json = test_read_file(path, &n);
    assert_ok(tokenizer_open_memory(json, n, "{\"eos_token\":\"|||IP_ADDRESS|||\"}",
                                    strlen("{\"eos_token\":\"|||IP_ADDRESS|||\"}"), NULL, 0, OLMO_VOCAB, &specials, &t,
                                    &err),
              err);
    assert_ok(tokenizer_chat_select(t, "olmo2", &err), err);
    assert_ok(chat_ids(t, &message, 1, true, ids, MOE_COUNT(ids), &n_ids, &err), err);
    assert_int_equal(ids[0], 50279);
    for (size_t i = 1; i < n_ids; i++) {
        assert_int_not_equal(ids[i], 50279);
        assert_int_not_equal(ids[i], 0);
    }
    tokenizer_close(t);
    free(json);
}

static void a_user_cannot_type_the_end_of_text_of_variant_a(void **state)
{
    (void)state;
    a_user_cannot_type_the_end_of_text("olmo-a.json", "x<|endoftext|>y");
}

static void a_user_cannot_type_the_end_of_text_of_variant_b(void **state)
{
    (void)state;
    a_user_cannot_type_the_end_of_text("olmo-b.json", "x|||IP_ADDRESS|||e\xcc\x81<|endoftext|>");
}

static void our_small_tokenizer_gives_the_ids_of_the_reference(void **state)
{
    static const text_ids texts[] = {
        {"The capital of France is Paris.", 0, "53 263 278 66 81 292 291 281 473 352 303 409 222 49 66 280 84 15"},
        {"it's  two   spaces\n\n", 0, "292 8 84 511 85 88 80 510 84 81 66 303 84 200 200"},
        {"def f(x):\n        return x", 0, "334 71 286 9 89 10 27 200 505 273 85 436 79 222 89"},
        {"cafe\xcc\x81 \xf0\x9f\x98\x80", 0, "68 66 71 129 104 222 174 255 248 224"},
        {"a<|endoftext|>b", 0, "66 0 67"},
        {"\t\tx \xe3\x80\x80y", 0, "199 199 89 222 161 224 224 90"},
    };
    tokenizer *t = open_path("tests/vectors/tokenizer/tokenizer.json", 512);

    (void)state;
    assert_all(t, texts, MOE_COUNT(texts));
    tokenizer_close(t);
}

static void the_config_of_our_small_tokenizer_names_the_tulu_template(void **state)
{
    tokenizer *t = NULL;
    moe_error err = {""};

    (void)state;
    assert_ok(tokenizer_open("tests/vectors/tokenizer", 512, NULL, &t, &err), err);
    assert_string_equal(tokenizer_chat_name(t), "tulu");
    tokenizer_close(t);
}

/* ------------------------------------------------------------------------------------------- round trips, streaming */
static void assert_round_trip(tokenizer *t, const char *text, size_t n)
{
    int32_t *ids = malloc(sizeof *ids * (n + 1));
    moe_error err = {""};
    size_t n_ids = 0;
    moe_text back;

    assert_ok(tokenizer_encode(t, text, n, false, NULL, 0, ids, n + 1, &n_ids, &err), err);
    back = decoded(t, ids, n_ids, false);
    assert_int_equal(back.size, n);
    assert_memory_equal(back.data, text, n);
    moe_text_fini(&back);
    free(ids);
}

/* The text is NFC: it is ours, and written so. */
static void assert_files_round_trip(tokenizer *t)
{
    static const char *const files[] = {"LICENSE", "tokenizer/encode.c", "tools/make_tokenizer.py",
                                        "tests/unit/test_tokenizer_files.c"};
    moe_random r;

    moe_random_seed(&r, 3);
    for (size_t i = 0; i < MOE_COUNT(files); i++) {
        size_t n;
        char *text = test_read_file(files[i], &n);

        assert_round_trip(t, text, n);
        for (int slice = 0; slice < 200; slice++) {
            size_t begin = moe_random_below(&r, n), end = begin + moe_random_below(&r, n - begin + 1);

            while (begin < n && ((unsigned char)text[begin] & 0xc0) == 0x80) {
                begin++;
            }
            end = begin + moe_utf8_valid_prefix(text + begin, end > begin ? end - begin : 0);
            assert_round_trip(t, text + begin, end - begin);
        }
        free(text);
    }
}

/* Chunks of any length, and the definition applied to all bytes at once. */
static void assert_streaming_equals_one_shot(tokenizer *t, size_t n_vocab)
{
    moe_random r;

    moe_random_seed(&r, 5);
    for (int round = 0; round < 500; round++) {
        char bytes[8192];
        int32_t ids[64];
        size_t n = moe_random_below(&r, MOE_COUNT(ids)), n_bytes = 0, used = 0;
        moe_text expected, stream = {.data = NULL};
        tokenizer_decode d;

        moe_text_init(&expected, 1 << 20);
        for (size_t i = 0; i < n; i++) {
            size_t length;
            const char *token;

            ids[i] = (int32_t)moe_random_below(&r, round % 2 ? n_vocab : 300);
            token = tokenizer_token_bytes(t, ids[i], &length);
            assert_true(n_bytes + length <= sizeof bytes);
            memcpy(bytes + n_bytes, token, length);
            n_bytes += length;
        }
        while (used < n_bytes) { /* lossy decoding, one maximal subpart at a time */
            size_t valid = moe_utf8_valid_prefix(bytes + used, n_bytes - used), longest = 1;

            moe_text_append(&expected, bytes + used, valid);
            used += valid;
            for (size_t k = 2; k <= 3 && used + k <= n_bytes && valid != n_bytes; k++) {
                for (unsigned tail = 0x80; tail < 0xc0; tail++) { /* a prefix of something valid? */
                    char probe[5];

                    memcpy(probe, bytes + used, k);
                    probe[k] = (char)tail;
                    probe[k + 1] = (char)0x80;
                    if (moe_utf8_valid_prefix(probe, k + 1) == k + 1 ||
                        (k == 2 && moe_utf8_valid_prefix(probe, 4) == 4)) {
                        longest = k;
                    }
                }
            }
            if (used < n_bytes) {
                moe_text_append(&expected, "\xef\xbf\xbd", 3);
                used += longest;
            }
        }
        moe_text_init(&stream, 1 << 20);
        tokenizer_decode_init(&d, t, false);
        for (size_t i = 0; i < n; i++) {
            tokenizer_decode_push(&d, ids[i], &stream);
            assert_int_equal(moe_utf8_valid_prefix(stream.data, stream.size), stream.size); /* at every moment whole */
        }
        tokenizer_decode_finish(&d, &stream);
        assert_string_equal(moe_text_cstr(&stream), moe_text_cstr(&expected));
        moe_text_fini(&stream);
        moe_text_fini(&expected);
    }
}

static void our_small_tokenizer_round_trips_files(void **state)
{
    tokenizer *t = open_path("tests/vectors/tokenizer/tokenizer.json", 512);

    (void)state;
    assert_files_round_trip(t);
    tokenizer_close(t);
}

static void streaming_equals_one_shot_on_our_small_tokenizer(void **state)
{
    tokenizer *t = open_path("tests/vectors/tokenizer/tokenizer.json", 512);

    (void)state;
    assert_streaming_equals_one_shot(t, 512);
    tokenizer_close(t);
}

static void published_olmo_round_trips_files(void **state)
{
    tokenizer *t = open_published("olmo-a.json", OLMO_VOCAB);

    (void)state;
    assert_files_round_trip(t);
    tokenizer_close(t);
}

static void published_codegen_round_trips_files(void **state)
{
    tokenizer *t = open_published("codegen.json", CODEGEN_VOCAB);

    (void)state;
    assert_files_round_trip(t);
    tokenizer_close(t);
}

static void streaming_equals_one_shot_on_published_olmo(void **state)
{
    tokenizer *t = open_published("olmo-a.json", OLMO_VOCAB);

    (void)state;
    assert_streaming_equals_one_shot(t, OLMO_VOCAB);
    tokenizer_close(t);
}

/* Quadratic work here would take hours, and so fail by the test's time limit. */
static void long_pieces_and_runs_are_not_quadratic(void **state)
{
    enum { N = 1 << 20 };
    tokenizer *t = open_path("tests/vectors/tokenizer/tokenizer.json", 512);
    char *text = malloc(N);
    int32_t *ids = malloc(sizeof *ids * N);
    static const char *const units[] = {"a", "abcdefgh", " ", "\n ", "\xcc\x81\xcc\xa3", "<|endoftext|", "'s"};

    (void)state;
    for (size_t u = 0; u < MOE_COUNT(units); u++) {
        const size_t length = strlen(units[u]), n = N / length * length;
        moe_error err = {""};
        size_t n_ids = 0;

        for (size_t i = 0; i < n; i++) {
            text[i] = units[u][i % length];
        }
        assert_ok(tokenizer_encode(t, text, n, false, NULL, 0, ids, N, &n_ids, &err), err);
        assert_true(n_ids > 0);
    }
    free(text);
    free(ids);
    tokenizer_close(t);
}

/* Marks in all orders, more than the short sort takes; expected by the standard: ascending class, stable. */
static void combining_marks_are_ordered_by_class(void **state)
{
    static const char *const marks[] = {"\xcc\xb4", "\xcc\xa7", "\xcc\xa3", "\xcc\x81",
                                        "\xcd\x85"}; /* 1 202 220 230 240 */
    tokenizer *t = open_path("tests/vectors/tokenizer/tokenizer.json", 512);
    char text[256] = "q", expected[256] = "q"; /* composes with none of them */
    int32_t ids[256];
    size_t n_ids = 0;
    moe_error err = {""};
    moe_text back;

    (void)state;
    for (int round = 0; round < 6; round++) {
        for (size_t i = MOE_COUNT(marks); i-- > 0;) {
            strcat(text, marks[i]);
        }
    }
    for (size_t i = 0; i < MOE_COUNT(marks); i++) {
        for (int round = 0; round < 6; round++) {
            strcat(expected, marks[i]);
        }
    }
    assert_ok(tokenizer_encode(t, text, strlen(text), false, NULL, 0, ids, 256, &n_ids, &err), err);
    back = decoded(t, ids, n_ids, false);
    assert_string_equal(moe_text_cstr(&back), expected);
    moe_text_fini(&back);
    tokenizer_close(t);
}

/* U+11A7 stands right before the finals of Hangul and is none; U+11A8 behind it is one, and finds no syllable. */
static void a_vowel_of_hangul_behind_a_syllable_is_kept(void **state)
{
    static const char text[] = "\xec\xaf\xb0\xe1\x86\xa7\xe1\x86\xa8 \xec\xaf\xb0\xe1\x86\xa8",
                      expected[] = "\xec\xaf\xb0\xe1\x86\xa7\xe1\x86\xa8 \xec\xaf\xb1";
    tokenizer *t = open_path("tests/vectors/tokenizer/tokenizer.json", 512);
    int32_t ids[64];
    size_t n_ids = 0;
    moe_error err = {""};
    moe_text back;

    (void)state;
    assert_ok(tokenizer_encode(t, text, strlen(text), false, NULL, 0, ids, 64, &n_ids, &err), err);
    back = decoded(t, ids, n_ids, false);
    assert_string_equal(moe_text_cstr(&back), expected);
    moe_text_fini(&back);
    tokenizer_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(variant_a_gives_the_checked_ids),
        cmocka_unit_test(variant_b_gives_the_checked_ids),
        cmocka_unit_test(codegen_has_runs_of_spaces_and_tabs),
        cmocka_unit_test(a_user_cannot_type_the_end_of_text_of_variant_a),
        cmocka_unit_test(a_user_cannot_type_the_end_of_text_of_variant_b),
        cmocka_unit_test(our_small_tokenizer_gives_the_ids_of_the_reference),
        cmocka_unit_test(the_config_of_our_small_tokenizer_names_the_tulu_template),
        cmocka_unit_test(our_small_tokenizer_round_trips_files),
        cmocka_unit_test(streaming_equals_one_shot_on_our_small_tokenizer),
        cmocka_unit_test(published_olmo_round_trips_files),
        cmocka_unit_test(published_codegen_round_trips_files),
        cmocka_unit_test(streaming_equals_one_shot_on_published_olmo),
        cmocka_unit_test(long_pieces_and_runs_are_not_quadratic),
        cmocka_unit_test(combining_marks_are_ordered_by_class),
        cmocka_unit_test(a_vowel_of_hangul_behind_a_syllable_is_kept),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
