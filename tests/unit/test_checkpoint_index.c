#include "tests/unit/checkpoint_image.h"

#define INDEX             "model.safetensors.index.json"
#define BYTE(name, range) "\"" name "\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[" range "]}"

/* a.safetensors holds x and z, b.safetensors holds y. */
static const char shard_a[] = "{" BYTE("x", "0,1") "," BYTE("z", "1,2") "}";
static const char shard_b[] = "{" BYTE("y", "0,1") "}";
#define SOUND                                                                                                          \
    "{\"metadata\":{\"total_size\":3},\"weight_map\":{\"x\":\"a.safetensors\",\"y\":\"b.safetensors\",\"z\":\"a."      \
    "safetensors\"}}"

static moe_status open_index(const char *index, bool with_b, checkpoint **out, moe_error *err)
{
    static image a, b;
    image_free(&a);
    image_free(&b);
    a = image_of(shard_a, 2);
    b = image_of(shard_b, 1);
    const checkpoint_image images[] = {
        {INDEX, index, strlen(index)}, {"a.safetensors", a.bytes, a.n}, {"b.safetensors", b.bytes, b.n}};
    const moe_status status = checkpoint_open_images(images, with_b ? 3 : 2, out, err);

    if (status != MOE_OK) {
        image_free(&a);
        image_free(&b);
    }
    return status;
}

typedef struct refusal {
    const char *name, *index, *reason;
} refusal;

#define MAP(map)     "{\"weight_map\":" map "}"
#define NAMED(shard) MAP("{\"x\":\"" shard "\"}")

static const refusal refusals[] = {
    {"refuses_an_empty_index", "", "expected 1"},
    {"refuses_an_index_that_is_not_json", "weights", "not strict JSON"},
    {"refuses_an_index_that_is_an_array", "[]", "weight_map is missing"},
    {"refuses_an_index_without_a_map", "{\"metadata\":{}}", "weight_map is missing"},
    {"refuses_a_map_that_is_an_array", MAP("[\"x\"]"), "weight_map is missing or not an object"},
    {"refuses_an_empty_map", MAP("{}"), "weight_map is missing or not an object"},
    {"refuses_a_tensor_mapped_twice", MAP("{\"x\":\"a.safetensors\",\"x\":\"b.safetensors\"}"), "uplicate"},
    {"refuses_a_shard_that_is_a_number", MAP("{\"x\":1}"), "no string"},
    {"refuses_a_shard_with_a_slash", NAMED("dir/a.safetensors"), "plain name"},
    {"refuses_a_shard_above_the_directory", NAMED("../a.safetensors"), "plain name"},
    {"refuses_an_absolute_shard", NAMED("/a.safetensors"), "plain name"},
    {"refuses_a_shard_with_a_backslash", NAMED("dir\\\\a.safetensors"), "plain name"},
    {"refuses_a_shard_with_two_dots", NAMED("a..safetensors"), "plain name"},
    {"refuses_a_hidden_shard", NAMED(".a.safetensors"), "plain name"},
    {"refuses_an_empty_shard_name", NAMED(""), "plain name"},
    {"refuses_a_shard_that_is_only_the_suffix", NAMED(".safetensors"), "plain name"},
    {"refuses_a_shard_with_another_suffix", NAMED("a.bin"), "plain name"},
    {"refuses_a_shard_with_a_control_character", NAMED("a\\n.safetensors"), "plain name"},
    {"refuses_nul_in_a_shard_name", NAMED("a\\u0000.safetensors"), "not strict JSON"},
    {"refuses_a_tensor_that_its_shard_does_not_have",
     MAP("{\"w\":\"a.safetensors\",\"x\":\"a.safetensors\",\"y\":\"b.safetensors\",\"z\":\"a.safetensors\"}"),
     "tensor \"w\" is mapped to shard a.safetensors, which does not have it"},
    {"refuses_a_tensor_in_the_wrong_shard",
     MAP("{\"x\":\"a.safetensors\",\"y\":\"a.safetensors\",\"z\":\"b.safetensors\"}"),
     "tensor \"y\" is mapped to shard a.safetensors, which does not have it"},
    {"refuses_an_unmapped_tensor_at_the_end", MAP("{\"x\":\"a.safetensors\",\"y\":\"b.safetensors\"}"),
     "tensor \"z\" of shard a.safetensors is not mapped"},
    {"refuses_an_unmapped_tensor_at_the_start", MAP("{\"y\":\"b.safetensors\",\"z\":\"a.safetensors\"}"),
     "tensor \"x\" of shard a.safetensors is not mapped"},
    {"refuses_a_mapped_tensor_behind_the_last",
     MAP("{\"x\":\"a.safetensors\",\"y\":\"b.safetensors\",\"z\":\"a.safetensors\",\"zz\":\"a.safetensors\"}"),
     "tensor \"zz\" is mapped to shard a.safetensors, which does not have it"},
};

static void refuses(void **state)
{
    const refusal *r = *state;
    checkpoint *c = NULL;
    moe_error err = {.text = ""};

    assert_int_equal(open_index(r->index, true, &c, &err), MOE_ERR_CORRUPT);
    assert_null(c);
    if (strstr(err.text, r->reason) == NULL) {
        fail_msg("message \"%s\" does not say \"%s\"", err.text, r->reason);
    }
}

static void refuses_a_missing_shard(void **state)
{
    checkpoint *c = NULL;
    moe_error err = {.text = ""};

    (void)state;
    assert_int_equal(open_index(SOUND, false, &c, &err), MOE_ERR_NOT_FOUND);
    assert_non_null(strstr(err.text, "b.safetensors"));
}

static void refuses_a_name_over_512_bytes(void **state)
{
    char index[700];
    checkpoint *c = NULL;
    moe_error err = {.text = ""};

    (void)state;
    snprintf(index, sizeof(index), "{\"weight_map\":{\"%0513d\":\"a.safetensors\"}}", 7);
    assert_int_equal(open_index(index, true, &c, &err), MOE_ERR_CORRUPT);
    assert_non_null(strstr(err.text, "its name has 513 bytes"));
}

static void refuses_more_shards_than_4096(void **state)
{
    moe_text index;
    checkpoint *c = NULL;
    moe_error err = {.text = ""};

    (void)state;
    moe_text_init(&index, 1 << 20);
    for (int i = 0; i < 4097; i++) {
        moe_text_printf(&index, "%s\"t%d\":\"%d.safetensors\"", i == 0 ? "{\"weight_map\":{" : ",", i, i);
    }
    moe_text_printf(&index, "}}");
    assert_int_equal(open_index(moe_text_cstr(&index), true, &c, &err), MOE_ERR_CORRUPT);
    assert_non_null(strstr(err.text, "4097 shards, the limit is 4096"));
    moe_text_fini(&index);
}

static void refuses_a_corrupt_shard_by_its_name(void **state)
{
    static const char index[] = MAP("{\"y\":\"b.safetensors\"}");
    image b = image_of(shard_b, 2);
    const checkpoint_image images[] = {{INDEX, index, strlen(index)}, {"b.safetensors", b.bytes, b.n}};
    checkpoint *c = NULL;
    moe_error err = {.text = ""};

    (void)state;
    assert_int_equal(checkpoint_open_images(images, 2, &c, &err), MOE_ERR_CORRUPT);
    assert_non_null(strstr(err.text, "b.safetensors: 2 bytes of data"));
    image_free(&b);
}

static void joins_the_shards_in_name_order(void **state)
{
    checkpoint *c = NULL;

    (void)state;
    assert_int_equal(open_index(SOUND, true, &c, NULL), MOE_OK);
    assert_int_equal(checkpoint_n_tensors(c), 3);
    for (size_t i = 0; i < 3; i++) {
        const char name[2] = {(char)('x' + i), '\0'};
        assert_string_equal(checkpoint_at(c, i)->name, name);
        assert_ptr_equal(checkpoint_find(c, name), checkpoint_at(c, i));
    }
    assert_int_equal(checkpoint_find(c, "z")->data[0], 1);
    assert_int_equal(checkpoint_total_bytes(c), 3);
    checkpoint_close(c);
}

static void opens_the_single_file_without_an_index(void **state)
{
    image b = image_of(shard_b, 1);
    const checkpoint_image images[] = {{"model.safetensors", b.bytes, b.n}};
    checkpoint *c = NULL;

    (void)state;
    assert_int_equal(checkpoint_open_images(images, 1, &c, NULL), MOE_OK);
    assert_non_null(checkpoint_find(c, "y"));
    checkpoint_close(c);
    image_free(&b);
}

static void a_broken_index_is_not_passed_over(void **state)
{
    image b = image_of(shard_b, 1);
    const checkpoint_image images[] = {{INDEX, "{", 1}, {"model.safetensors", b.bytes, b.n}};
    checkpoint *c = NULL;

    (void)state;
    assert_int_equal(checkpoint_open_images(images, 2, &c, NULL), MOE_ERR_CORRUPT);
    image_free(&b);
}

static void survives_damage_of_the_index(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 20000; seed++) {
        char index[sizeof(SOUND)] = SOUND;
        checkpoint *c = NULL;
        moe_error err = {.text = ""};
        moe_random r;
        moe_random_seed(&r, seed);
        for (uint64_t left = 1 + moe_random_below(&r, 3); left > 0; left--) {
            const size_t at = (size_t)moe_random_below(&r, sizeof(SOUND) - 1);
            index[at] = moe_random_below(&r, 2) == 0 ? SOUND[moe_random_below(&r, sizeof(SOUND) - 1)]
                                                     : (char)moe_random_u64(&r);
        }
        const moe_status status = open_index(index, true, &c, &err);
        if (status == MOE_OK) {
            (void)checkpoint_touch(c);
        } else if (err.text[0] == '\0' || (status != MOE_ERR_CORRUPT && status != MOE_ERR_NOT_FOUND)) {
            fail_msg("seed %llu: status %d, \"%s\"", (unsigned long long)seed, status, err.text);
        }
        checkpoint_close(c);
    }
}

int main(void)
{
    static const struct CMUnitTest others[] = {
        cmocka_unit_test(refuses_a_missing_shard),           cmocka_unit_test(refuses_a_name_over_512_bytes),
        cmocka_unit_test(refuses_more_shards_than_4096),     cmocka_unit_test(refuses_a_corrupt_shard_by_its_name),
        cmocka_unit_test(joins_the_shards_in_name_order),    cmocka_unit_test(opens_the_single_file_without_an_index),
        cmocka_unit_test(a_broken_index_is_not_passed_over), cmocka_unit_test(survives_damage_of_the_index),
    };
    struct CMUnitTest tests[MOE_COUNT(refusals) + MOE_COUNT(others)];

    for (size_t i = 0; i < MOE_COUNT(refusals); i++) {
        tests[i] = (struct CMUnitTest){refusals[i].name, refuses, NULL, NULL, (void *)(uintptr_t)&refusals[i]};
    }
    memcpy(tests + MOE_COUNT(refusals), others, sizeof(others));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
