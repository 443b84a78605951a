#include "tests/unit/checkpoint_image.h"

#include <sys/stat.h>
#include <unistd.h>

#define HEADER "{\"a\":{\"dtype\":\"U8\",\"shape\":[20000],\"data_offsets\":[0,20000]}}"

static test_folder dir;
static image sound;

static int make_dir(void **state)
{
    (void)state;
    test_folder_open(&dir);
    sound = image_of(HEADER, 20000);
    return 0;
}

static int remove_dir(void **state)
{
    (void)state;
    test_folder_close(&dir);
    image_free(&sound);
    return 0;
}

static void expect(moe_status status, const char *reason)
{
    checkpoint *c = NULL;
    moe_error err = {.text = ""};

    assert_int_equal(checkpoint_open(dir.path, &c, &err), status);
    assert_null(c);
    if (strstr(err.text, reason) == NULL) {
        fail_msg("message \"%s\" does not say \"%s\"", err.text, reason);
    }
}

static void opens_a_file(void **state)
{
    checkpoint *c = NULL;

    (void)state;
    test_write_file(test_folder_path(&dir, "model.safetensors"), sound.bytes, sound.n);
    assert_int_equal(checkpoint_open(dir.path, &c, NULL), MOE_OK);
    assert_memory_equal(checkpoint_at(c, 0)->data, sound.bytes + sound.n - 20000, 20000);
    checkpoint_close(c);
}

static void opens_a_link_to_a_file(void **state)
{
    checkpoint *c = NULL;

    (void)state;
    test_write_file(test_folder_path(&dir, "blob"), sound.bytes, sound.n);
    assert_int_equal(symlink("blob", test_folder_path(&dir, "model.safetensors")), 0);
    assert_int_equal(checkpoint_open(dir.path, &c, NULL), MOE_OK);
    checkpoint_close(c);
}

static void opens_shards(void **state)
{
    static const char index[] = "{\"weight_map\":{\"a\":\"model-00001-of-00001.safetensors\"}}";
    checkpoint *c = NULL;

    (void)state;
    test_write_file(test_folder_path(&dir, "model.safetensors.index.json"), index, strlen(index));
    test_write_file(test_folder_path(&dir, "model-00001-of-00001.safetensors"), sound.bytes, sound.n);
    assert_int_equal(checkpoint_open(dir.path, &c, NULL), MOE_OK);
    assert_int_equal(checkpoint_total_bytes(c), 20000);
    checkpoint_close(c);
}

static void forgotten_bytes_read_the_same_again(void **state)
{
    checkpoint *c = NULL;

    (void)state;
    test_write_file(test_folder_path(&dir, "model.safetensors"), sound.bytes, sound.n);
    assert_int_equal(checkpoint_open(dir.path, &c, NULL), MOE_OK);
    checkpoint_forget(c, checkpoint_at(c, 0)->data, checkpoint_at(c, 0)->bytes);
    assert_memory_equal(checkpoint_at(c, 0)->data, sound.bytes + sound.n - 20000, 20000);
    checkpoint_close(c);
}

static void refuses_a_directory_that_is_not_there(void **state)
{
    checkpoint *c = NULL;

    (void)state;
    assert_int_equal(checkpoint_open(test_folder_path(&dir, "none"), &c, NULL), MOE_ERR_NOT_FOUND);
}

static void refuses_a_file_as_directory(void **state)
{
    checkpoint *c = NULL;

    (void)state;
    test_write_file(test_folder_path(&dir, "model.safetensors"), sound.bytes, sound.n);
    assert_int_equal(checkpoint_open(test_folder_path(&dir, "model.safetensors"), &c, NULL), MOE_ERR_NOT_FOUND);
}

static void refuses_a_directory_without_a_checkpoint(void **state)
{
    (void)state;
    expect(MOE_ERR_NOT_FOUND, "neither model.safetensors nor model.safetensors.index.json");
}

static void refuses_an_empty_file(void **state)
{
    (void)state;
    test_write_file(test_folder_path(&dir, "model.safetensors"), "", 0);
    expect(MOE_ERR_CORRUPT, "model.safetensors: 0 bytes");
}

static void refuses_a_directory_in_place_of_the_file(void **state)
{
    (void)state;
    assert_int_equal(mkdir(test_folder_path(&dir, "model.safetensors"), 0700), 0);
    expect(MOE_ERR_IO, "not a regular file");
}

static void refuses_a_pipe_without_waiting_for_it(void **state)
{
    (void)state;
    assert_int_equal(mkfifo(test_folder_path(&dir, "model.safetensors"), 0600), 0);
    expect(MOE_ERR_IO, "not a regular file");
}

static void refuses_a_shard_outside_even_if_it_is_there(void **state)
{
    static const char index[] = "{\"weight_map\":{\"a\":\"../model.safetensors\"}}";
    checkpoint *c = NULL;

    (void)state;
    test_write_file(test_folder_path(&dir, "model.safetensors"), sound.bytes, sound.n);
    assert_int_equal(mkdir(test_folder_path(&dir, "inner"), 0700), 0);
    test_write_file(test_folder_path(&dir, "inner/model.safetensors.index.json"), index, strlen(index));
    assert_int_equal(checkpoint_open(test_folder_path(&dir, "inner"), &c, NULL), MOE_ERR_CORRUPT);
}

#define IN_DIR(test) cmocka_unit_test_setup_teardown(test, make_dir, remove_dir)

static void put(const char *name, const char *text)
{
    test_write_file(test_folder_path(&dir, name), text, strlen(text));
}

#define LFS "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 4995584848\n"

static void pointers_of_git_lfs_are_told_with_the_command_that_helps(void **state)
{
    (void)state;
    put("model.safetensors", LFS);
    expect(MOE_ERR_CORRUPT, "model.safetensors: a pointer that Git LFS left in place of the file: run `git lfs pull`");
    put("model.safetensors.index.json", "{\"weight_map\":{\"a\":\"model-00001-of-00001.safetensors\"}}");
    put("model-00001-of-00001.safetensors", LFS);
    expect(MOE_ERR_CORRUPT, "model-00001-of-00001.safetensors: a pointer that Git LFS left");
    put("model.safetensors.index.json", LFS);
    expect(MOE_ERR_CORRUPT, "model.safetensors.index.json: a pointer that Git LFS left");
}

static void pickles_are_told_with_the_command_that_helps(void **state)
{
    (void)state;
    put("training_args.bin", "x"); /* no weights */
    expect(MOE_ERR_NOT_FOUND, "neither model.safetensors nor model.safetensors.index.json");
    put("pytorch_model-00001-of-00002.bin", "x");
    expect(MOE_ERR_NOT_FOUND, "pytorch_model-00001-of-00002.bin (pickled by PyTorch): run `conclave convert DIR OUT`");
}

static void files_of_other_programs_are_named(void **state)
{
    static const char *const names[] = {"m.gguf",      "consolidated.00.pth", "m.pt",  "m.ckpt",
                                        "tf_model.h5", "flax_model.msgpack",  "m.npz", "weights.safetensors"};
    char reason[64];

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(names); i++) {
        put(names[i], "x");
        (void)snprintf(reason, sizeof reason, ", but %s (", names[i]);
        expect(MOE_ERR_NOT_FOUND, reason);
        (void)remove(test_folder_path(&dir, names[i]));
    }
}

static void a_name_of_the_hub_is_told_from_a_directory(void **state)
{
    moe_error err;

    (void)state;
    assert_int_equal(checkpoint_explain("org/name", "no config.json", &err), MOE_ERR_NOT_FOUND);
    assert_contains(err.text, "org/name: no such directory, and models are not fetched: hf download org/name");
    for (size_t i = 0; i < 4; i++) {
        const char *const paths[] = {"./org", "/none/here", "none", "a/b/none"};

        assert_int_equal(checkpoint_explain(paths[i], "no config.json", &err), MOE_ERR_NOT_FOUND);
        assert_contains(err.text, ": No such file or directory");
    }
}

static void what_stands_in_place_of_a_config_is_explained_too(void **state)
{
    moe_error err;

    (void)state;
    put("snapshots", "x"); /* a directory, where people have one */
    put("my_snapshots", "x");
    assert_int_equal(checkpoint_explain(dir.path, "no config.json", &err), MOE_ERR_NOT_FOUND);
    assert_contains(err.text, ": no config.json, but snapshots (of the Hugging Face hub's cache): serve the directory");
    put("m.gguf", "x");
    assert_int_equal(checkpoint_explain(dir.path, "no config.json", &err), MOE_ERR_NOT_FOUND);
    assert_contains(err.text, ": no config.json, but m.gguf (of llama.cpp): Conclave does not read it");
    put("model.safetensors", "x");
    assert_int_equal(checkpoint_explain(dir.path, "no config.json", &err), MOE_ERR_NOT_FOUND);
    assert_contains(err.text, ": no config.json beside the weights: was all of it fetched?");
    assert_int_equal(checkpoint_explain("/nowhere", "no config.json", &err), MOE_ERR_NOT_FOUND);
    assert_contains(err.text, "/nowhere: No such file");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_DIR(opens_a_file),
        IN_DIR(opens_a_link_to_a_file),
        IN_DIR(opens_shards),
        IN_DIR(forgotten_bytes_read_the_same_again),
        IN_DIR(refuses_a_directory_that_is_not_there),
        IN_DIR(refuses_a_file_as_directory),
        IN_DIR(refuses_a_directory_without_a_checkpoint),
        IN_DIR(pointers_of_git_lfs_are_told_with_the_command_that_helps),
        IN_DIR(pickles_are_told_with_the_command_that_helps),
        IN_DIR(files_of_other_programs_are_named),
        cmocka_unit_test(a_name_of_the_hub_is_told_from_a_directory),
        IN_DIR(what_stands_in_place_of_a_config_is_explained_too),
        IN_DIR(refuses_an_empty_file),
        IN_DIR(refuses_a_directory_in_place_of_the_file),
        IN_DIR(refuses_a_pipe_without_waiting_for_it),
        IN_DIR(refuses_a_shard_outside_even_if_it_is_there),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
