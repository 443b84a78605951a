#include "tests/unit/checkpoint_image.h"

#define ONE(dtype, shape, offsets) "{\"a\":{\"dtype\":" dtype ",\"shape\":" shape ",\"data_offsets\":" offsets "}}"
#define TENSOR(name, begin, end)                                                                                       \
    "\"" name "\":{\"dtype\":\"U8\",\"shape\":[" #end "],\"data_offsets\":[" #begin "," #end "]}"

/* ----------------------------------------------------------------------------------------------- one image per rule */
typedef struct rule {
    const char *name, *header;
    size_t data_bytes;
    const char *reason; /* part of the message */
} rule;

static const rule rules[] = {
    {"refuses_a_header_of_one_byte", "{", 0, "header length 1"},
    {"refuses_a_header_that_begins_with_a_space", " {}", 0, "begins with 0x20"},
    {"refuses_a_header_that_is_an_array", "[]", 0, "begins with 0x5b"},
    {"refuses_invalid_utf8", "{\"\xff\":1}", 0, "not valid UTF-8"},
    {"refuses_an_overlong_utf8_form", "{\"\xc0\xaf\":1}", 0, "not valid UTF-8"},
    {"refuses_a_utf8_surrogate", "{\"\xed\xa0\x80\":1}", 0, "not valid UTF-8"},
    {"refuses_an_open_object", "{\"a\":{", 0, "ends inside an object"},
    {"refuses_an_open_string", "{\"a", 0, "ends inside a string"},
    {"refuses_a_missing_colon", "{\"a\" 1}", 0, "not strict JSON"},
    {"refuses_a_trailing_comma", "{\"a\":{},}", 0, "not strict JSON"},
    {"refuses_mismatched_brackets", "{\"a\":{\"shape\":[1}]}", 0, "not strict JSON"},
    {"refuses_a_leading_zero", ONE("\"U8\"", "[04]", "[0,4]"), 4, "not strict JSON"},
    {"refuses_a_tensor_twice", "{" TENSOR("a", 0, 4) "," TENSOR("a", 0, 4) "}", 4, "uplicate"},
    {"refuses_a_tensor_twice_by_escape", "{" TENSOR("a", 0, 4) "," TENSOR("\\u0061", 0, 4) "}", 4, "uplicate"},
    {"refuses_a_key_of_a_tensor_twice",
     "{\"a\":{\"dtype\":\"U8\",\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}", 4, "uplicate"},
    {"refuses_a_key_of_the_metadata_twice", "{\"__metadata__\":{\"x\":\"1\",\"x\":\"2\"}}", 0, "uplicate"},
    {"refuses_a_tab_behind_the_object", "{}\t", 0, "only spaces may follow"},
    {"refuses_a_second_object", "{} {}", 0, "only spaces may follow"},
    {"refuses_nesting_deeper_than_3", ONE("\"U8\"", "[[4]]", "[0,4]"), 4, "nested deeper than 3"},
    {"refuses_an_object_where_an_array_belongs", ONE("\"U8\"", "{\"x\":4}", "[0,4]"), 4, "more than dtype"},
    {"refuses_a_fraction", ONE("\"U8\"", "[4.0]", "[0,4]"), 4, "integers without sign"},
    {"refuses_an_exponent", ONE("\"U8\"", "[4e0]", "[0,4]"), 4, "integers without sign"},
    {"refuses_a_negative_number", ONE("\"U8\"", "[-4]", "[0,4]"), 4, "integers without sign"},
    {"refuses_negative_zero", ONE("\"U8\"", "[4]", "[-0,4]"), 4, "integers without sign"},
    {"refuses_null", "{\"a\":null}", 0, "integers without sign"},
    {"refuses_two_to_the_63", ONE("\"U8\"", "[9223372036854775808]", "[0,4]"), 4, "not strict JSON"},
    {"refuses_a_tensor_that_is_a_number", "{\"a\":4}", 0, "not an object of exactly"},
    {"refuses_a_tensor_of_two_keys", "{\"a\":{\"dtype\":\"U8\",\"shape\":[4]}}", 4, "not an object of exactly"},
    {"refuses_a_tensor_of_four_keys", "{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4],\"x\":1}}", 4,
     "not an object of exactly"},
    {"refuses_a_tensor_of_three_arrays", "{\"a\":{\"x\":[1],\"shape\":[4],\"data_offsets\":[0,4]}}", 4,
     "more than dtype"},
    {"refuses_a_tensor_without_dtype", "{\"a\":{\"type\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}", 4,
     "dtype is missing"},
    {"refuses_a_tensor_without_shape", "{\"a\":{\"dtype\":\"U8\",\"form\":[4],\"data_offsets\":[0,4]}}", 4,
     "shape is missing"},
    {"refuses_a_tensor_without_offsets", "{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"offsets\":[0,4]}}", 4,
     "data_offsets is missing"},
    {"refuses_a_dtype_that_is_a_number", ONE("8", "[4]", "[0,4]"), 4, "dtype is missing or not a string"},
    {"refuses_an_unknown_dtype", ONE("\"f32\"", "[1]", "[0,4]"), 4, "dtype \"f32\" is unknown"},
    {"refuses_a_shape_that_is_a_number", ONE("\"U8\"", "4", "[0,4]"), 4, "shape is missing or not an array"},
    {"refuses_a_dimension_that_is_a_string", ONE("\"U8\"", "[\"4\"]", "[0,4]"), 4, "shape is missing or not an array"},
    {"refuses_rank_9", ONE("\"U8\"", "[1,1,1,1,1,1,1,1,1]", "[0,1]"), 1, "rank over 8"},
    {"refuses_an_overflowing_product", ONE("\"U8\"", "[4294967296,4294967296]", "[0,0]"), 0, "overflows"},
    {"refuses_an_overflow_that_a_zero_would_hide", ONE("\"U8\"", "[4294967296,4294967296,0]", "[0,0]"), 0, "overflows"},
    {"refuses_an_overflow_in_bits", ONE("\"F64\"", "[576460752303423488]", "[0,0]"), 0, "overflows"},
    {"refuses_bits_that_are_no_bytes", ONE("\"F4\"", "[3]", "[0,1]"), 1, "not whole bytes"},
    {"refuses_six_bit_values_that_are_no_bytes", ONE("\"F6_E2M3\"", "[5]", "[0,3]"), 3, "not whole bytes"},
    {"refuses_one_offset", ONE("\"U8\"", "[4]", "[0]"), 4, "array of two integers"},
    {"refuses_three_offsets", ONE("\"U8\"", "[4]", "[0,4,4]"), 4, "array of two integers"},
    {"refuses_begin_after_end", ONE("\"U8\"", "[4]", "[4,0]"), 4, "lie outside"},
    {"refuses_an_end_beyond_the_data", ONE("\"U8\"", "[5]", "[0,5]"), 4, "lie outside of the 4 bytes"},
    {"refuses_an_end_near_the_limit", ONE("\"U8\"", "[4]", "[9223372036854775803,9223372036854775807]"), 4,
     "lie outside"},
    {"refuses_a_range_that_is_not_the_size", ONE("\"U8\"", "[3]", "[0,4]"), 4, "span 4 bytes, dtype and shape need 3"},
    {"refuses_data_before_the_first_tensor", ONE("\"U8\"", "[3]", "[1,4]"), 4, "behind a hole"},
    {"refuses_a_hole",
     "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
     "\"b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[2,3]}}",
     3, "behind a hole that begins at 1"},
    {"refuses_overlap",
     "{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
     "\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[1,3]}}",
     3, "inside of a tensor that ends at 2"},
    {"refuses_two_tensors_at_one_place", "{" TENSOR("a", 0, 4) "," TENSOR("b", 0, 4) "}", 4, "inside of a tensor"},
    {"refuses_bytes_behind_the_last_tensor", ONE("\"U8\"", "[4]", "[0,4]"), 5, "5 bytes of data, the tensors fill 4"},
    {"refuses_data_without_tensors", "{}", 1, "1 bytes of data, the tensors fill 0"},
    {"refuses_nul_in_a_name", "{\"a\\u0000b\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}", 0,
     "NUL in a string"},
    {"refuses_metadata_that_is_no_object", "{\"__metadata__\":\"pt\"}", 0, "__metadata__ is not an object"},
    {"refuses_metadata_that_is_no_string", "{\"__metadata__\":{\"x\":1}}", 0, "__metadata__ key \"x\" is not a string"},
};

static void refuses(void **state)
{
    const rule *r = *state;
    image m = image_of(r->header, r->data_bytes);
    checkpoint *c = NULL;
    moe_error err = {.text = ""};

    assert_int_equal(checkpoint_open_memory(m.bytes, m.n, "x.safetensors", &c, &err), MOE_ERR_CORRUPT);
    assert_null(c);
    if (strstr(err.text, r->reason) == NULL) {
        fail_msg("message \"%s\" does not say \"%s\"", err.text, r->reason);
    }
    assert_non_null(strstr(err.text, "x.safetensors"));
    image_free(&m);
}

static void expect_corrupt(const void *bytes, size_t n, const char *reason)
{
    checkpoint *c = NULL;
    moe_error err = {.text = ""};

    assert_int_equal(checkpoint_open_memory(bytes, n, "x", &c, &err), MOE_ERR_CORRUPT);
    if (strstr(err.text, reason) == NULL) {
        fail_msg("message \"%s\" does not say \"%s\"", err.text, reason);
    }
}

static void refuses_a_file_shorter_than_the_length(void **state)
{
    (void)state;
    expect_corrupt("\2\0\0\0\0\0\0", 7, "at least 8");
}

static void refuses_an_empty_file(void **state)
{
    (void)state;
    expect_corrupt(NULL, 0, "0 bytes");
}

static void refuses_a_header_longer_than_the_file(void **state)
{
    (void)state;
    expect_corrupt("\3\0\0\0\0\0\0\0{}", 10, "beyond the file");
}

static void refuses_a_length_that_would_wrap(void **state)
{
    (void)state;
    expect_corrupt("\xf8\xff\xff\xff\xff\xff\xff\xff{}", 10, "header length 18446744073709551608");
}

static void refuses_a_header_over_100_million_bytes(void **state)
{
    const size_t n = 100000001;
    unsigned char *bytes = calloc(1, 8 + n);

    (void)state;
    assert_non_null(bytes);
    memcpy(bytes, "\x01\xe1\xf5\x05\0\0\0\0{}", 10);
    expect_corrupt(bytes, 8 + n, "header length 100000001");
    free(bytes);
}

static void refuses_a_name_over_512_bytes(void **state)
{
    char header[700];
    image m;

    (void)state;
    snprintf(header, sizeof(header), "{\"%0513d\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}", 7);
    m = image_of(header, 0);
    expect_corrupt(m.bytes, m.n, "its name has 513 bytes");
    image_free(&m);
}

/* n tensors of no bytes (or of nothing at all), named by number */
static char *many_tensors(size_t n, const char *tensor)
{
    char *text = malloc(n * (strlen(tensor) + 16) + 2), *at = text;

    assert_non_null(text);
    for (size_t i = 0; i < n; i++) {
        at += sprintf(at, "%c\"t%07zu\":%s", i == 0 ? '{' : ',', i, tensor);
    }
    strcpy(at, "}");
    return text;
}

static void refuses_a_million_and_two_entries_unread(void **state)
{
    char *header = many_tensors(1000002, "{}");
    image m = image_of(header, 0);

    (void)state;
    expect_corrupt(m.bytes, m.n, "more than 1000000 tensors");
    image_free(&m);
    free(header);
}

/* ------------------------------------------------------------------------------------------------ what opens */
static checkpoint *open_header(image *m, const char *header, size_t data_bytes)
{
    checkpoint *c = NULL;
    moe_error err = {.text = ""};

    *m = image_of(header, data_bytes);
    if (checkpoint_open_memory(m->bytes, m->n, "x", &c, &err) != MOE_OK) {
        fail_msg("%s", err.text);
    }
    return c;
}

static void close_image(checkpoint *c, image *m)
{
    checkpoint_close(c);
    image_free(m);
}

static void reads_shape_dtype_and_place_of_a_tensor(void **state)
{
    image m;
    checkpoint *c = open_header(&m, ONE("\"F32\"", "[2,3]", "[0,24]"), 24);
    const checkpoint_tensor *t = checkpoint_find(c, "a");

    (void)state;
    assert_non_null(t);
    assert_int_equal(t->dtype, COMPUTE_F32);
    assert_string_equal(t->dtype_name, "F32");
    assert_int_equal(t->rank, 2);
    assert_int_equal(t->shape[0], 2);
    assert_int_equal(t->shape[1], 3);
    assert_int_equal(t->bytes, 24);
    assert_ptr_equal(t->data, m.bytes + m.n - 24);
    close_image(c, &m);
}

static void takes_metadata_out_of_the_tensors(void **state)
{
    image m;
    checkpoint *c =
        open_header(&m, "{\"__metadata__\":{\"format\":\"pt\",\"more\":\"-1e5 null\"}," TENSOR("a", 0, 4) "}", 4);

    (void)state;
    assert_int_equal(checkpoint_n_tensors(c), 1);
    close_image(c, &m);
}

static void opens_a_padded_header_without_tensors(void **state)
{
    image m;
    checkpoint *c = open_header(&m, "{}      ", 0);

    (void)state;
    assert_int_equal(checkpoint_n_tensors(c), 0);
    close_image(c, &m);
}

static void opens_white_space_between_tokens(void **state)
{
    image m;
    checkpoint *c =
        open_header(&m, "{ \"a\" :\n\t{\"dtype\": \"U8\",\r\"shape\": [ 4 ], \"data_offsets\": [0, 4]} }", 4);

    (void)state;
    assert_non_null(checkpoint_find(c, "a"));
    close_image(c, &m);
}

static void counts_one_element_at_rank_0(void **state)
{
    image m;
    checkpoint *c = open_header(&m, ONE("\"BF16\"", "[]", "[0,2]"), 2);

    (void)state;
    assert_int_equal(checkpoint_at(c, 0)->rank, 0);
    assert_int_equal(checkpoint_at(c, 0)->bytes, 2);
    close_image(c, &m);
}

static void opens_rank_8(void **state)
{
    image m;
    checkpoint *c = open_header(&m, ONE("\"F16\"", "[1,1,1,1,1,1,1,2]", "[0,4]"), 4);

    (void)state;
    assert_int_equal(checkpoint_at(c, 0)->rank, 8);
    assert_int_equal(checkpoint_at(c, 0)->dtype, COMPUTE_F16);
    close_image(c, &m);
}

static void opens_an_empty_tensor_between_others(void **state)
{
    image m;
    checkpoint *c = open_header(&m,
                                "{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
                                "\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[2,4]},"
                                "\"c\":{\"dtype\":\"U8\",\"shape\":[5,0],\"data_offsets\":[2,2]}}",
                                4);

    (void)state;
    assert_int_equal(checkpoint_find(c, "c")->bytes, 0);
    close_image(c, &m);
}

static void packs_two_four_bit_values_in_a_byte(void **state)
{
    image m;
    checkpoint *c = open_header(&m, ONE("\"F4\"", "[2,3]", "[0,3]"), 3);

    (void)state;
    assert_int_equal(checkpoint_at(c, 0)->dtype, COMPUTE_DTYPE_OTHER);
    assert_int_equal(checkpoint_at(c, 0)->bytes, 3);
    close_image(c, &m);
}

static void knows_every_dtype_by_its_size(void **state)
{
    static const struct {
        const char *name;
        unsigned bytes_of_8;
    } known[] = {{"BOOL", 8},    {"U8", 8},      {"I8", 8},          {"F8_E4M3", 8},    {"F8_E5M2", 8}, {"F8_E8M0", 8},
                 {"I16", 16},    {"U16", 16},    {"F16", 16},        {"BF16", 16},      {"I32", 32},    {"U32", 32},
                 {"F32", 32},    {"I64", 64},    {"U64", 64},        {"F64", 64},       {"C64", 64},    {"F4", 4},
                 {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}};

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(known); i++) {
        char header[160];
        image m;
        snprintf(header, sizeof(header), "{\"a\":{\"dtype\":\"%s\",\"shape\":[8],\"data_offsets\":[0,%u]}}",
                 known[i].name, known[i].bytes_of_8);
        checkpoint *c = open_header(&m, header, known[i].bytes_of_8);
        assert_string_equal(checkpoint_at(c, 0)->dtype_name, known[i].name);
        close_image(c, &m);
    }
}

static void orders_tensors_by_the_bytes_of_their_names(void **state)
{
    image m;
    checkpoint *c = open_header(&m,
                                "{\"\xc3\xa9\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
                                "\"a.10\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[2,3]},"
                                "\"a.1\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}",
                                3);

    (void)state;
    assert_string_equal(checkpoint_at(c, 0)->name, "a.1");
    assert_string_equal(checkpoint_at(c, 1)->name, "a.10");
    assert_string_equal(checkpoint_at(c, 2)->name, "\xc3\xa9");
    close_image(c, &m);
}

static void finds_no_name_that_is_not_there(void **state)
{
    image m;
    checkpoint *c = open_header(&m, "{" TENSOR("ab", 0, 4) "}", 4);

    (void)state;
    assert_null(checkpoint_find(c, "a"));
    assert_null(checkpoint_find(c, "abc"));
    close_image(c, &m);
}

static void decodes_escapes_in_names(void **state)
{
    image m;
    checkpoint *c = open_header(&m, "{" TENSOR("a\\\"\\u00e9", 0, 4) "}", 4);

    (void)state;
    assert_non_null(checkpoint_find(c, "a\"\xc3\xa9"));
    close_image(c, &m);
}

static void opens_200000_tensors(void **state)
{
    char *header = many_tensors(200000, "{\"dtype\":\"BF16\",\"shape\":[0,4],\"data_offsets\":[0,0]}");
    image m;
    checkpoint *c = open_header(&m, header, 0);

    (void)state;
    assert_int_equal(checkpoint_n_tensors(c), 200000);
    assert_non_null(checkpoint_find(c, "t0123456"));
    close_image(c, &m);
    free(header);
}

static void forgetting_memory_of_others_leaves_it_alone(void **state)
{
    image m;
    checkpoint *c = open_header(&m, ONE("\"U8\"", "[16384]", "[0,16384]"), 16384);
    const checkpoint_tensor *t = checkpoint_at(c, 0);

    (void)state;
    checkpoint_forget(c, t->data, t->bytes);
    assert_int_equal(t->data[8191], 255);
    close_image(c, &m);
}

/* ------------------------------------------------------------------------------------------------ damaged files */
static const char sound[] = "{\"__metadata__\":{\"format\":\"pt\"},"
                            "\"model.a\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]},"
                            "\"model.b\":{\"dtype\":\"BF16\",\"shape\":[4],\"data_offsets\":[24,32]},"
                            "\"model.c\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[32,33]}}  ";

static void open_or_refuse(const void *bytes, size_t n, uint64_t seed)
{
    unsigned char *copy = malloc(n); /* of exactly n bytes, so that a sanitizer sees a read beyond */
    checkpoint *c = NULL;
    moe_error err = {.text = ""};
    moe_status status;

    assert_true(copy != NULL || n == 0);
    if (n > 0) {
        memcpy(copy, bytes, n);
    }
    status = checkpoint_open_memory(copy, n, "x", &c, &err);
    if (status == MOE_OK) {
        (void)checkpoint_touch(c);
    } else if (status != MOE_ERR_CORRUPT || err.text[0] == '\0') {
        fail_msg("seed %llu: status %d, \"%s\"", (unsigned long long)seed, status, err.text);
    }
    checkpoint_close(c);
    free(copy);
}

static void refuses_every_truncation(void **state)
{
    image m = image_of(sound, 33);

    (void)state;
    for (size_t n = 0; n < m.n; n++) {
        checkpoint *c = NULL;
        assert_int_equal(checkpoint_open_memory(m.bytes, n, "x", &c, NULL), MOE_ERR_CORRUPT);
    }
    image_free(&m);
}

static void survives_every_flipped_bit_of_the_header(void **state)
{
    image m = image_of(sound, 33);

    (void)state;
    for (size_t bit = 0; bit < 8 * (m.n - 33); bit++) {
        m.bytes[bit / 8] ^= (unsigned char)(1u << (bit % 8));
        open_or_refuse(m.bytes, m.n, bit);
        m.bytes[bit / 8] ^= (unsigned char)(1u << (bit % 8));
    }
    image_free(&m);
}

/* Copies a stretch, changes a digit, sets a byte, cuts or lengthens the file; fixes the header length
 * half of the time. */
static size_t mutate(moe_random *r, unsigned char *bytes, size_t n, size_t capacity)
{
    static const char tokens[] = "{}[]\",:0123456789 \\ue-.";
    const size_t at = (size_t)moe_random_below(r, n), from = (size_t)moe_random_below(r, n);

    switch (moe_random_below(r, 5)) {
    case 0:
        bytes[at] = (unsigned char)tokens[moe_random_below(r, sizeof(tokens) - 1)];
        break;
    case 1:
        bytes[at] = (unsigned char)moe_random_u64(r);
        break;
    case 2:
        memmove(bytes + at, bytes + from, (size_t)moe_random_below(r, n - MOE_MAX(at, from)));
        break;
    case 3:
        n = MOE_MAX(at, (size_t)9);
        break;
    default:
        n += (size_t)moe_random_below(r, capacity - n);
        break;
    }
    if (moe_random_below(r, 2) == 0) {
        bytes[0] = (unsigned char)moe_random_u64(r);
    }
    return n;
}

static void survives_damage_of_every_kind(void **state)
{
    image m = image_of(sound, 33);

    (void)state;
    for (uint64_t seed = 0; seed < 20000; seed++) {
        unsigned char bytes[1024] = {0};
        size_t n = m.n;
        moe_random r;
        moe_random_seed(&r, seed);
        memcpy(bytes, m.bytes, n);
        for (uint64_t left = 1 + moe_random_below(&r, 4); left > 0; left--) {
            n = mutate(&r, bytes, n, sizeof(bytes));
        }
        open_or_refuse(bytes, n, seed);
    }
    image_free(&m);
}

int main(void)
{
    static const struct CMUnitTest others[] = {
        cmocka_unit_test(refuses_a_file_shorter_than_the_length),
        cmocka_unit_test(refuses_an_empty_file),
        cmocka_unit_test(refuses_a_header_longer_than_the_file),
        cmocka_unit_test(refuses_a_length_that_would_wrap),
        cmocka_unit_test(refuses_a_header_over_100_million_bytes),
        cmocka_unit_test(refuses_a_name_over_512_bytes),
        cmocka_unit_test(refuses_a_million_and_two_entries_unread),
        cmocka_unit_test(reads_shape_dtype_and_place_of_a_tensor),
        cmocka_unit_test(takes_metadata_out_of_the_tensors),
        cmocka_unit_test(opens_a_padded_header_without_tensors),
        cmocka_unit_test(opens_white_space_between_tokens),
        cmocka_unit_test(counts_one_element_at_rank_0),
        cmocka_unit_test(opens_rank_8),
        cmocka_unit_test(opens_an_empty_tensor_between_others),
        cmocka_unit_test(packs_two_four_bit_values_in_a_byte),
        cmocka_unit_test(knows_every_dtype_by_its_size),
        cmocka_unit_test(orders_tensors_by_the_bytes_of_their_names),
        cmocka_unit_test(finds_no_name_that_is_not_there),
        cmocka_unit_test(decodes_escapes_in_names),
        cmocka_unit_test(opens_200000_tensors),
        cmocka_unit_test(forgetting_memory_of_others_leaves_it_alone),
        cmocka_unit_test(refuses_every_truncation),
        cmocka_unit_test(survives_every_flipped_bit_of_the_header),
        cmocka_unit_test(survives_damage_of_every_kind),
    };
    struct CMUnitTest tests[MOE_COUNT(rules) + MOE_COUNT(others)];

    for (size_t i = 0; i < MOE_COUNT(rules); i++) {
        tests[i] = (struct CMUnitTest){rules[i].name, refuses, NULL, NULL, (void *)(uintptr_t)&rules[i]};
    }
    memcpy(tests + MOE_COUNT(rules), others, sizeof(others));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
