#include "tests/unit/torch_archive.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const versions[] = {TORCH_VECTORS "1.13.1", TORCH_VECTORS "2.15.0"};

static size_t count_entries(const char *path)
{
    DIR *dir = opendir(path);
    size_t n = 0;

    assert_non_null(dir);
    while (readdir(dir) != NULL) {
        n++;
    }
    assert_int_equal(closedir(dir), 0);
    return n - 2;
}

static bool is_there(const char *path)
{
    return access(path, F_OK) == 0;
}

static void copy_into(const test_folder *f, const char *from, const char *name)
{
    bytes b = bytes_of_file(from);

    test_write_file(test_folder_path(f, name), b.data, b.n);
    bytes_free(&b);
}

static moe_status convert(const char *dir, const char *out, checkpoint_converted *done, moe_error *err)
{
    return checkpoint_convert(dir, out, NULL, NULL, done, err);
}

static void assert_same_tensors(const char *dir, const char *expected_path)
{
    bytes image = bytes_of_file(expected_path);
    checkpoint *expected = NULL, *got = NULL;
    moe_error err = {.text = ""};

    assert_ok(checkpoint_open_memory(image.data, image.n, "expected", &expected, &err), err);
    assert_ok(checkpoint_open(dir, &got, &err), err);
    assert_int_equal(checkpoint_n_tensors(got), checkpoint_n_tensors(expected));
    for (size_t i = 0; i < checkpoint_n_tensors(expected); i++) {
        const checkpoint_tensor *a = checkpoint_at(expected, i), *b = checkpoint_at(got, i);
        assert_string_equal(b->name, a->name);
        assert_string_equal(b->dtype_name, a->dtype_name);
        assert_int_equal(b->rank, a->rank);
        assert_memory_equal(b->shape, a->shape, sizeof(a->shape));
        assert_int_equal(b->bytes, a->bytes);
        assert_memory_equal(b->data, a->data, a->bytes);
    }
    checkpoint_close(got);
    checkpoint_close(expected);
    bytes_free(&image);
}

static void assert_converts(const test_folder *f, const char *kind)
{
    for (size_t i = 0; i < MOE_COUNT(versions); i++) {
        char dir[128], expected[160], out[64];
        checkpoint_converted done = {0};
        moe_error err = {.text = ""};
        snprintf(dir, sizeof(dir), "%s/%s", versions[i], kind);
        snprintf(expected, sizeof(expected), "%s/expected.safetensors", dir);
        snprintf(out, sizeof(out), "%s-%zu", kind, i);
        assert_ok(convert(dir, test_folder_path(f, out), &done, &err), err);
        assert_same_tensors(test_folder_path(f, out), expected);
    }
}

static void shards_of_bf16_and_fp32_with_int8_buffers_give_the_same_tensors(void **state)
{
    assert_converts(*state, "sharded");
}

static void shared_strided_empty_and_scalar_tensors_of_every_dtype_give_the_same_tensors(void **state)
{
    assert_converts(*state, "single");
}

static void one_output_per_input_and_the_configuration_are_written(void **state)
{
    const test_folder *f = *state;
    checkpoint_converted done = {0};
    moe_error err = {.text = ""};

    assert_ok(convert(TORCH_VECTORS "2.15.0/sharded", test_folder_path(f, "out"), &done, &err), err);
    assert_int_equal(done.n_shards, 2);
    assert_int_equal(done.n_copied, 1);
    assert_int_equal(done.n_tensors, 10);
    assert_true(is_there(test_folder_path(f, "out/model-00001-of-00002.safetensors")));
    assert_true(is_there(test_folder_path(f, "out/config.json")));
    assert_int_equal(count_entries(test_folder_path(f, "out")), 4); /* nothing of the work is left */
}

static void the_output_is_the_same_whatever_torch_wrote_the_input(void **state)
{
    const test_folder *f = *state;
    checkpoint_converted done = {0};
    moe_error err = {.text = ""};
    bytes old, new;

    assert_ok(convert(TORCH_VECTORS "1.13.1/single", test_folder_path(f, "old"), &done, &err), err);
    assert_ok(convert(TORCH_VECTORS "2.15.0/single", test_folder_path(f, "new"), &done, &err), err);
    old = bytes_of_file(test_folder_path(f, "old/model.safetensors"));
    new = bytes_of_file(test_folder_path(f, "new/model.safetensors"));
    assert_int_equal(old.n, new.n);
    assert_memory_equal(old.data, new.data, old.n);
    bytes_free(&old);
    bytes_free(&new);
}

static void an_empty_output_directory_is_taken(void **state)
{
    const test_folder *f = *state;
    checkpoint_converted done = {0};
    moe_error err = {.text = ""};

    assert_int_equal(mkdir(test_folder_path(f, "out"), 0777), 0);
    assert_ok(convert(TORCH_VECTORS "2.15.0/single", test_folder_path(f, "out"), &done, &err), err);
    assert_true(is_there(test_folder_path(f, "out/model.safetensors")));
}

static void assert_refused(const char *dir, const char *out, moe_status expected, const char *why)
{
    checkpoint_converted done = {0};
    moe_error err = {.text = ""};

    assert_int_equal(convert(dir, out, &done, &err), expected);
    assert_contains(err.text, why);
}

static void an_output_directory_that_is_not_empty_is_refused(void **state)
{
    const test_folder *f = *state;

    assert_int_equal(mkdir(test_folder_path(f, "out"), 0777), 0);
    test_write_text(test_folder_path(f, "out/notes.txt"), "keep me");
    assert_refused(TORCH_VECTORS "2.15.0/single", test_folder_path(f, "out"), MOE_ERR_EXISTS, "not an empty directory");
    assert_int_equal(count_entries(test_folder_path(f, "out")), 1);
}

static void the_format_before_torch_1_6_is_refused(void **state)
{
    const test_folder *f = *state;

    assert_refused(TORCH_VECTORS "2.15.0/legacy", test_folder_path(f, "out"), MOE_ERR_UNSUPPORTED, "before 1.6");
    assert_false(is_there(test_folder_path(f, "out")));
}

static void a_directory_of_safetensors_is_refused(void **state)
{
    const test_folder *f = *state;

    assert_refused("tests/vectors/olmoe-gqa", test_folder_path(f, "out"), MOE_ERR_EXISTS, "safetensors already");
}

static void a_directory_without_a_checkpoint_is_refused(void **state)
{
    const test_folder *f = *state;

    assert_int_equal(mkdir(test_folder_path(f, "in"), 0777), 0);
    assert_refused(test_folder_path(f, "in"), test_folder_path(f, "out"), MOE_ERR_NOT_FOUND, "pytorch_model.bin");
}

/* A changed byte in the last storage: the pickle is sound, so it is found only while writing. */
static void a_storage_with_another_crc_is_refused_and_leaves_nothing(void **state)
{
    const test_folder *f = *state;
    bytes image = bytes_of_file(TORCH_VECTORS "1.13.1/single/pytorch_model.bin");
    archive a = archive_of(&image);

    image.data[archive_find(&a, "/data/3")->data - image.data] ^= 1;
    assert_int_equal(mkdir(test_folder_path(f, "in"), 0777), 0);
    test_write_file(test_folder_path(f, "in/pytorch_model.bin"), image.data, image.n);
    bytes_free(&image);
    assert_refused(test_folder_path(f, "in"), test_folder_path(f, "out"), MOE_ERR_CORRUPT, "CRC-32");
    assert_false(is_there(test_folder_path(f, "out")));
}

static void a_failure_leaves_an_empty_directory_empty(void **state)
{
    const test_folder *f = *state;

    assert_int_equal(mkdir(test_folder_path(f, "out"), 0777), 0);
    assert_refused(TORCH_VECTORS "2.15.0/legacy", test_folder_path(f, "out"), MOE_ERR_UNSUPPORTED, "");
    assert_int_equal(count_entries(test_folder_path(f, "out")), 0);
}

static bool stop(void *ctx, checkpoint_convert_phase phase, size_t done, size_t total)
{
    (void)ctx;
    (void)done;
    (void)total;
    return phase == CHECKPOINT_CONVERTING;
}

static void a_stopped_conversion_leaves_nothing(void **state)
{
    const test_folder *f = *state;
    checkpoint_converted done = {0};
    moe_error err = {.text = ""};

    assert_int_equal(
        checkpoint_convert(TORCH_VECTORS "2.15.0/single", test_folder_path(f, "out"), stop, NULL, &done, &err),
        MOE_ERR_CANCELLED);
    assert_false(is_there(test_folder_path(f, "out")));
}

static void a_full_disk_is_an_error_and_leaves_nothing(void **state)
{
    const test_folder *f = *state;
    struct rlimit before, little;
    checkpoint_converted done = {0};
    moe_error err = {.text = ""};
    moe_status status;

    (void)signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    little = before;
    little.rlim_cur = 1000;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &little), 0);
    status = convert(TORCH_VECTORS "2.15.0/single", test_folder_path(f, "out"), &done, &err);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(status, MOE_ERR_IO);
    assert_contains(err.text, "model.safetensors");
    assert_false(is_there(test_folder_path(f, "out")));
}

/* Between writing and reading back, a byte of the last tensor changes in the file. */
static bool spoil(void *ctx, checkpoint_convert_phase phase, size_t done, size_t total)
{
    const char *out = ctx;

    if (phase == CHECKPOINT_CONVERTING && done == total) {
        DIR *dir = opendir(out);
        const struct dirent *e;
        while ((e = readdir(dir)) != NULL) {
            char path[512];
            snprintf(path, sizeof(path), "%s/%s/model.safetensors", out, e->d_name);
            const int fd = open(path, O_RDWR);
            char byte = 0;
            if (fd >= 0) {
                const off_t last = lseek(fd, -1, SEEK_END);
                (void)!pread(fd, &byte, 1, last);
                byte ^= 1;
                (void)!pwrite(fd, &byte, 1, last);
                (void)close(fd);
            }
        }
        (void)closedir(dir);
    }
    return true;
}

static void an_output_that_does_not_read_back_is_refused(void **state)
{
    const test_folder *f = *state;
    char out[256];
    checkpoint_converted done = {0};
    moe_error err = {.text = ""};

    snprintf(out, sizeof(out), "%s", test_folder_path(f, "out"));
    assert_int_equal(checkpoint_convert(TORCH_VECTORS "2.15.0/single", out, spoil, out, &done, &err),
                     MOE_ERR_DATA_LOSS);
    assert_contains(err.text, "did not read back");
    assert_false(is_there(out));
}

/* ------------------------------------------------------------------------------------------------ the index */
static void write_sharded(const test_folder *f, const char *index)
{
    assert_int_equal(mkdir(test_folder_path(f, "in"), 0777), 0);
    copy_into(f, TORCH_VECTORS "2.15.0/sharded/pytorch_model-00001-of-00002.bin", "in/a.bin");
    test_write_text(test_folder_path(f, "in/pytorch_model.bin.index.json"), index);
}

static void a_tensor_that_the_index_does_not_name_is_refused(void **state)
{
    const test_folder *f = *state;

    write_sharded(f, "{\"weight_map\":{\"transformer.wte.weight\":\"a.bin\"}}");
    assert_refused(test_folder_path(f, "in"), test_folder_path(f, "out"), MOE_ERR_CORRUPT, "is not mapped to it");
}

static void a_shard_outside_of_the_directory_is_refused(void **state)
{
    const test_folder *f = *state;

    write_sharded(f, "{\"weight_map\":{\"transformer.wte.weight\":\"../a.bin\"}}");
    assert_refused(test_folder_path(f, "in"), test_folder_path(f, "out"), MOE_ERR_CORRUPT, "plain name");
}

static void a_missing_shard_is_refused(void **state)
{
    const test_folder *f = *state;

    write_sharded(f, "{\"weight_map\":{\"transformer.wte.weight\":\"b.bin\"}}");
    assert_refused(test_folder_path(f, "in"), test_folder_path(f, "out"), MOE_ERR_NOT_FOUND, "b.bin");
}

#define with_folder(test) cmocka_unit_test_setup_teardown(test, test_folder_setup, test_folder_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        with_folder(shards_of_bf16_and_fp32_with_int8_buffers_give_the_same_tensors),
        with_folder(shared_strided_empty_and_scalar_tensors_of_every_dtype_give_the_same_tensors),
        with_folder(one_output_per_input_and_the_configuration_are_written),
        with_folder(the_output_is_the_same_whatever_torch_wrote_the_input),
        with_folder(an_empty_output_directory_is_taken),
        with_folder(an_output_directory_that_is_not_empty_is_refused),
        with_folder(the_format_before_torch_1_6_is_refused),
        with_folder(a_directory_of_safetensors_is_refused),
        with_folder(a_directory_without_a_checkpoint_is_refused),
        with_folder(a_storage_with_another_crc_is_refused_and_leaves_nothing),
        with_folder(a_failure_leaves_an_empty_directory_empty),
        with_folder(a_stopped_conversion_leaves_nothing),
        with_folder(a_full_disk_is_an_error_and_leaves_nothing),
        with_folder(an_output_that_does_not_read_back_is_refused),
        with_folder(a_tensor_that_the_index_does_not_name_is_refused),
        with_folder(a_shard_outside_of_the_directory_is_refused),
        with_folder(a_missing_shard_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
