/* What tools/make_checkpoint.py writes is a checkpoint. */
#include "tests/unit/checkpoint_image.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#define PYTHON    "/usr/bin/python3"
#define MAX_WORDS 16

extern char **environ;

static test_folder dir;
static bool has_numpy;

static int run(char *const argv[])
{
    posix_spawn_file_actions_t quiet;
    pid_t pid;
    int status = -1;

    assert_int_equal(posix_spawn_file_actions_init(&quiet), 0);
    assert_int_equal(posix_spawn_file_actions_addopen(&quiet, 1, "/dev/null", O_WRONLY, 0), 0);
    if (posix_spawn(&pid, argv[0], &quiet, NULL, argv, environ) == 0) {
        assert_int_equal(waitpid(pid, &status, 0), pid);
    }
    posix_spawn_file_actions_destroy(&quiet);
    return status;
}

static int look_for_numpy(void **state)
{
    char *const argv[] = {PYTHON, "-c", "import numpy", NULL};

    (void)state;
    has_numpy = run(argv) == 0;
    if (!has_numpy) {
        printf("skipped: " PYTHON " has no numpy\n");
    }
    return 0;
}

static int open_dir(void **state)
{
    (void)state;
    test_folder_open(&dir);
    return 0;
}

static int close_dir(void **state)
{
    (void)state;
    test_folder_close(&dir);
    return 0;
}

/* words: more arguments, split at spaces. */
static checkpoint *make(const char *name, const char *words)
{
    char *argv[MAX_WORDS + 1] = {
        PYTHON,          "tools/make_checkpoint.py", (char *)(uintptr_t)test_folder_path(&dir, name), "--shape", "tiny",
        "--no-tokenizer"};
    char copy[256];
    size_t n = 6;
    checkpoint *c = NULL;
    moe_error err;

    if (!has_numpy) {
        skip();
    }
    snprintf(copy, sizeof(copy), "%s", words);
    for (char *word = strtok(copy, " "); word != NULL; word = strtok(NULL, " ")) {
        assert_true(n < MAX_WORDS);
        argv[n++] = word;
    }
    assert_int_equal(run(argv), 0);
    assert_ok(checkpoint_open(argv[2], &c, &err), err);
    return c;
}

static void has_every_tensor_of_the_model(void **state)
{
    checkpoint *c = make("a", "");
    const checkpoint_tensor *k = checkpoint_find(c, "model.layers.1.self_attn.k_proj.weight");

    (void)state;
    assert_int_equal(checkpoint_n_tensors(c), 3 + 2 * (9 + 3 * 8));
    assert_non_null(k);
    assert_int_equal(k->dtype, COMPUTE_BF16);
    assert_int_equal(k->rank, 2);
    assert_int_equal(k->shape[0], 32);
    assert_int_equal(k->shape[1], 64);
    checkpoint_close(c);
}

static void settings_change_the_tensors(void **state)
{
    checkpoint *c = make("a", "--layers 1 --set tie_word_embeddings=true --set attention_bias=true --dtype f32");

    (void)state;
    assert_null(checkpoint_find(c, "lm_head.weight"));
    assert_null(checkpoint_find(c, "model.layers.1.mlp.gate.weight"));
    assert_non_null(checkpoint_find(c, "model.layers.0.self_attn.o_proj.bias"));
    assert_int_equal(checkpoint_at(c, 0)->dtype, COMPUTE_F32);
    checkpoint_close(c);
}

static void shards_hold_the_same_tensors(void **state)
{
    checkpoint *whole = make("a", ""), *parts = make("b", "--shards 5");

    (void)state;
    assert_int_equal(checkpoint_n_tensors(whole), checkpoint_n_tensors(parts));
    for (size_t i = 0; i < checkpoint_n_tensors(whole); i++) {
        const checkpoint_tensor *x = checkpoint_at(whole, i), *y = checkpoint_at(parts, i);
        assert_string_equal(x->name, y->name);
        assert_int_equal(x->bytes, y->bytes);
        assert_memory_equal(x->data, y->data, x->bytes);
    }
    checkpoint_close(whole);
    checkpoint_close(parts);
}

static void fused_tensors_hold_the_experts_one_after_the_other(void **state)
{
    static const size_t matrix = (size_t)32 * 64 * 2;
    checkpoint *each = make("a", ""), *fused = make("b", "--fused");
    const checkpoint_tensor *gate_up = checkpoint_find(fused, "model.layers.1.mlp.experts.gate_up_proj");
    const checkpoint_tensor *down = checkpoint_find(fused, "model.layers.1.mlp.experts.down_proj");

    (void)state;
    assert_non_null(gate_up);
    assert_non_null(down);
    assert_int_equal(gate_up->shape[1], 64);
    assert_memory_equal(gate_up->data + 2 * 5 * matrix,
                        checkpoint_find(each, "model.layers.1.mlp.experts.5.gate_proj.weight")->data, matrix);
    assert_memory_equal(gate_up->data + (2 * 5 + 1) * matrix,
                        checkpoint_find(each, "model.layers.1.mlp.experts.5.up_proj.weight")->data, matrix);
    assert_memory_equal(down->data + 5 * matrix,
                        checkpoint_find(each, "model.layers.1.mlp.experts.5.down_proj.weight")->data, matrix);
    checkpoint_close(each);
    checkpoint_close(fused);
}

static void another_seed_makes_other_weights(void **state)
{
    checkpoint *a = make("a", "--seed 1"), *b = make("b", "--seed 2");

    (void)state;
    assert_memory_not_equal(checkpoint_find(a, "lm_head.weight")->data, checkpoint_find(b, "lm_head.weight")->data, 64);
    checkpoint_close(a);
    checkpoint_close(b);
}

#define IN_DIR(test) cmocka_unit_test_setup_teardown(test, open_dir, close_dir)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_DIR(has_every_tensor_of_the_model),    IN_DIR(settings_change_the_tensors),
        IN_DIR(shards_hold_the_same_tensors),     IN_DIR(fused_tensors_hold_the_experts_one_after_the_other),
        IN_DIR(another_seed_makes_other_weights),
    };

    return cmocka_run_group_tests(tests, look_for_numpy, NULL);
}
