#include "tests/unit/checkpoint_image.h"

#include <dirent.h>

/* Two experts, each of gate and up [1, 2] and f32: in four tensors, and as one fused [2, 2, 2]. */
#define F32_2(name, range) "\"" name "\":{\"dtype\":\"F32\",\"shape\":[1,2],\"data_offsets\":[" range "]}"
static const char per_expert[] =
    "{" F32_2("0.gate", "0,8") "," F32_2("0.up", "8,16") "," F32_2("1.gate", "16,24") "," F32_2("1.up", "24,32") "}";
static const char fused[] = "{\"gate_up\":{\"dtype\":\"F32\",\"shape\":[2,2,2],\"data_offsets\":[0,32]}}";
static const char *const names[4] = {"1.up", "0.gate", "0.up", "1.gate"}; /* in no order */
static const size_t places[4] = {24, 0, 8, 16};

static const char config[] = "hidden_size 2\n";
static moe_threads *threads;
static test_folder dir;

static int open_all(void **state)
{
    (void)state;
    test_folder_open(&dir);
    return moe_threads_open(2, NULL, &threads) == MOE_OK ? 0 : -1;
}

static int close_all(void **state)
{
    (void)state;
    moe_threads_close(threads);
    test_folder_close(&dir);
    return 0;
}

static void logical_of(const checkpoint *c, checkpoint_logical out[4])
{
    const unsigned char *base = checkpoint_at(c, 0)->data;

    for (size_t i = 0; i < 4; i++) {
        out[i] = (checkpoint_logical){
            .dtype = COMPUTE_F32, .rank = 2, .shape = {1, 2}, .data = base + places[i], .bytes = 8};
        strcpy(out[i].name, names[i]);
    }
}

static void write_checkpoint(const char *header)
{
    image m = image_of(header, 32);

    test_write_file(test_folder_path(&dir, "model.safetensors"), m.bytes, m.n);
    image_free(&m);
}

static checkpoint *open_dir(void)
{
    checkpoint *c = NULL;

    assert_int_equal(checkpoint_open(dir.path, &c, NULL), MOE_OK);
    return c;
}

static checkpoint_manifest build(const checkpoint *c, const char *config_text, const char *cache)
{
    checkpoint_logical tensors[4];
    checkpoint_manifest m;
    const char *cache_dir = cache[0] != '\0' ? test_folder_path(&dir, cache) : "";

    logical_of(c, tensors);
    assert_int_equal(checkpoint_manifest_build(c, config_text, tensors, 4, threads, cache_dir, NULL, NULL, &m, NULL),
                     MOE_OK);
    return m;
}

/* Opens, builds and closes. */
static checkpoint_manifest build_dir(const char *config_text, const char *cache)
{
    checkpoint *c = open_dir();
    checkpoint_manifest m = build(c, config_text, cache);

    checkpoint_close(c);
    return m;
}

static checkpoint_manifest build_image(const char *header, const char *config_text, int change)
{
    image im = image_of(header, 32);
    checkpoint *c = NULL;
    checkpoint_manifest m;

    im.bytes[im.n - 1] = (unsigned char)(im.bytes[im.n - 1] + change);
    assert_int_equal(checkpoint_open_memory(im.bytes, im.n, "x", &c, NULL), MOE_OK);
    m = build(c, config_text, "");
    checkpoint_close(c);
    image_free(&im);
    return m;
}

static bool same(const checkpoint_digest *a, const checkpoint_digest *b)
{
    return memcmp(a, b, sizeof(*a)) == 0;
}

static void sha256_is_the_published_one(void **state)
{
    const checkpoint_digest d = checkpoint_sha256("abc", 3);
    char hex[65];

    (void)state;
    checkpoint_digest_hex(&d, hex);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

static void digests_keep_the_order_of_the_tensors(void **state)
{
    checkpoint_manifest m = build_image(per_expert, config, 0);
    unsigned char bytes[32];

    (void)state;
    for (size_t i = 0; i < sizeof(bytes); i++) {
        bytes[i] = (unsigned char)i;
    }
    for (size_t i = 0; i < 4; i++) {
        const checkpoint_digest d = checkpoint_sha256(bytes + places[i], 8);
        assert_true(same(&m.tensors[i], &d));
    }
    checkpoint_manifest_fini(&m);
}

static void the_fingerprint_is_of_the_documented_text(void **state)
{
    static const size_t in_name_order[4] = {1, 2, 3, 0};
    checkpoint_manifest m = build_image(per_expert, config, 0);
    checkpoint_digest d;
    moe_text text;
    char hex[65];

    (void)state;
    moe_text_init(&text, 4096);
    moe_text_printf(&text, "conclave-manifest 1\nhidden_size 2\n");
    for (size_t i = 0; i < 4; i++) {
        checkpoint_digest_hex(&m.tensors[in_name_order[i]], hex);
        moe_text_printf(&text, "%s F32 1,2 %s\n", names[in_name_order[i]], hex);
    }
    d = checkpoint_sha256(text.data, text.size);
    assert_true(same(&m.fingerprint, &d));
    moe_text_fini(&text);
    checkpoint_manifest_fini(&m);
}

static void fused_and_per_expert_files_have_one_fingerprint(void **state)
{
    checkpoint_manifest a = build_image(per_expert, config, 0), b = build_image(fused, config, 0);

    (void)state;
    assert_true(same(&a.fingerprint, &b.fingerprint));
    checkpoint_manifest_fini(&a);
    checkpoint_manifest_fini(&b);
}

static void one_changed_byte_changes_the_fingerprint(void **state)
{
    checkpoint_manifest a = build_image(per_expert, config, 0), b = build_image(per_expert, config, 1);

    (void)state;
    assert_false(same(&a.fingerprint, &b.fingerprint));
    checkpoint_manifest_fini(&a);
    checkpoint_manifest_fini(&b);
}

static void the_configuration_changes_the_fingerprint(void **state)
{
    checkpoint_manifest a = build_image(per_expert, config, 0), b = build_image(per_expert, "hidden_size 3\n", 0);

    (void)state;
    assert_false(same(&a.fingerprint, &b.fingerprint));
    checkpoint_manifest_fini(&a);
    checkpoint_manifest_fini(&b);
}

static void refuse_names(const char *first, const char *second)
{
    image im = image_of(per_expert, 32);
    checkpoint *c = NULL;
    checkpoint_logical tensors[4];
    checkpoint_manifest m;

    assert_int_equal(checkpoint_open_memory(im.bytes, im.n, "x", &c, NULL), MOE_OK);
    logical_of(c, tensors);
    strcpy(tensors[0].name, first);
    strcpy(tensors[1].name, second);
    assert_int_equal(checkpoint_manifest_build(c, config, tensors, 4, threads, "", NULL, NULL, &m, NULL),
                     MOE_ERR_INVALID_ARG);
    checkpoint_close(c);
    image_free(&im);
}

static void refuses_a_name_twice(void **state)
{
    (void)state;
    refuse_names("a", "a");
}

static void refuses_a_name_with_a_line_end(void **state)
{
    (void)state;
    refuse_names("a", "b\nc");
}

static void refuses_an_empty_name(void **state)
{
    (void)state;
    refuse_names("a", "");
}

typedef struct seen {
    size_t n, done, total;
} seen;

static void see(void *ctx, size_t done, size_t total)
{
    seen *s = ctx;

    s->n++;
    s->done = done;
    s->total = total;
}

static void progress_ends_with_all_bytes(void **state)
{
    image im = image_of(per_expert, 32);
    checkpoint *c = NULL;
    checkpoint_logical tensors[4];
    checkpoint_manifest m;
    seen s = {0};

    (void)state;
    assert_int_equal(checkpoint_open_memory(im.bytes, im.n, "x", &c, NULL), MOE_OK);
    logical_of(c, tensors);
    assert_int_equal(checkpoint_manifest_build(c, config, tensors, 4, threads, "", see, &s, &m, NULL), MOE_OK);
    assert_int_equal(s.done, 32);
    assert_int_equal(s.total, 32);
    assert_in_range(s.n, 1, 101);
    checkpoint_manifest_fini(&m);
    checkpoint_close(c);
    image_free(&im);
}

/* ------------------------------------------------------------------------------------------------ cache */
static void the_second_time_comes_from_the_cache(void **state)
{
    (void)state;
    write_checkpoint(per_expert);
    checkpoint_manifest a = build_dir(config, "new/cache"), b = build_dir(config, "new/cache");
    assert_false(a.from_cache);
    assert_true(b.from_cache);
    assert_true(same(&a.fingerprint, &b.fingerprint));
    assert_memory_equal(a.tensors, b.tensors, 4 * sizeof(checkpoint_digest));
    checkpoint_manifest_fini(&a);
    checkpoint_manifest_fini(&b);
}

static void an_empty_cache_dir_keeps_nothing(void **state)
{
    (void)state;
    write_checkpoint(per_expert);
    checkpoint_manifest a = build_dir(config, ""), b = build_dir(config, "");
    assert_false(b.from_cache);
    checkpoint_manifest_fini(&a);
    checkpoint_manifest_fini(&b);
}

static void another_configuration_misses_the_cache(void **state)
{
    (void)state;
    write_checkpoint(per_expert);
    checkpoint_manifest a = build_dir(config, "cache"), b = build_dir("hidden_size 3\n", "cache");
    assert_false(b.from_cache);
    checkpoint_manifest_fini(&a);
    checkpoint_manifest_fini(&b);
}

static void a_rewritten_file_misses_the_cache(void **state)
{
    (void)state;
    write_checkpoint(per_expert);
    checkpoint_manifest a = build_dir(config, "cache");
    assert_int_equal(rename(test_folder_path(&dir, "model.safetensors"), test_folder_path(&dir, "kept")),
                     0); /* so that the inode is another one */
    write_checkpoint(per_expert);
    checkpoint_manifest b = build_dir(config, "cache");
    assert_false(b.from_cache);
    assert_true(same(&a.fingerprint, &b.fingerprint));
    checkpoint_manifest_fini(&a);
    checkpoint_manifest_fini(&b);
}

/* Calls change with the bytes of the one file in the cache and writes them back. */
static void change_cache(void (*change)(char *bytes, size_t *n))
{
    DIR *d = opendir(test_folder_path(&dir, "cache"));
    const char *path = NULL;
    struct dirent *entry;
    char *bytes;
    size_t n;

    assert_non_null(d);
    while ((entry = readdir(d)) != NULL) {
        if (entry->d_name[0] != '.') {
            char name[300];
            assert_null(path); /* nothing but the one file, no temporary either */
            snprintf(name, sizeof(name), "cache/%s", entry->d_name);
            path = test_folder_path(&dir, name);
        }
    }
    closedir(d);
    assert_non_null(path);
    bytes = test_read_file(path, &n);
    change(bytes, &n);
    test_write_file(path, bytes, n);
    free(bytes);
}

static void cut(char *bytes, size_t *n)
{
    (void)bytes;
    (*n)--;
}

static void flip(char *bytes, size_t *n)
{
    bytes[*n - 40] ^= 1; /* in the last digest */
}

static void is_ignored_and_rewritten(void (*change)(char *bytes, size_t *n))
{
    write_checkpoint(per_expert);
    checkpoint_manifest a = build_dir(config, "cache");
    change_cache(change);
    checkpoint_manifest b = build_dir(config, "cache");
    checkpoint_manifest again = build_dir(config, "cache");
    assert_false(b.from_cache);
    assert_true(same(&a.fingerprint, &b.fingerprint));
    assert_true(again.from_cache);
    checkpoint_manifest_fini(&a);
    checkpoint_manifest_fini(&b);
    checkpoint_manifest_fini(&again);
}

static void a_cut_cache_is_ignored_and_rewritten(void **state)
{
    (void)state;
    is_ignored_and_rewritten(cut);
}

static void a_flipped_cache_is_ignored_and_rewritten(void **state)
{
    (void)state;
    is_ignored_and_rewritten(flip);
}

static void a_cache_that_cannot_be_written_costs_nothing_else(void **state)
{
    (void)state;
    write_checkpoint(per_expert);
    moe_log_set_level(MOE_LOG_ERROR);
    checkpoint_manifest a = build_dir(config, "model.safetensors/cache");
    moe_log_set_level(MOE_LOG_INFO);
    assert_false(a.from_cache);
    checkpoint_manifest_fini(&a);
}

#define WITH_ALL(test) cmocka_unit_test_setup_teardown(test, open_all, close_all)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sha256_is_the_published_one),
        WITH_ALL(digests_keep_the_order_of_the_tensors),
        WITH_ALL(the_fingerprint_is_of_the_documented_text),
        WITH_ALL(fused_and_per_expert_files_have_one_fingerprint),
        WITH_ALL(one_changed_byte_changes_the_fingerprint),
        WITH_ALL(the_configuration_changes_the_fingerprint),
        WITH_ALL(refuses_a_name_twice),
        WITH_ALL(refuses_a_name_with_a_line_end),
        WITH_ALL(refuses_an_empty_name),
        WITH_ALL(progress_ends_with_all_bytes),
        WITH_ALL(the_second_time_comes_from_the_cache),
        WITH_ALL(an_empty_cache_dir_keeps_nothing),
        WITH_ALL(another_configuration_misses_the_cache),
        WITH_ALL(a_rewritten_file_misses_the_cache),
        WITH_ALL(a_cut_cache_is_ignored_and_rewritten),
        WITH_ALL(a_flipped_cache_is_ignored_and_rewritten),
        WITH_ALL(a_cache_that_cannot_be_written_costs_nothing_else),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
