/* Whole models of all kinds through the engine, their experts and their attention on the fake GPU: tokens and log-probabilities
 * are those of the portable CPU, bit for bit, whatever the prefill chunk, and with two micro-batches in turn, with streams that are as late as they may
 * and by a seed. */
#include "tests/cuda/fake/fake.h"
#include "tests/support/engine_fixture.h"
#include "tests/support/random_model.h"
#include "tests/support/support.h"

#include <dlfcn.h>
#include <stdlib.h>

#define N_PROMPT 30
#define N_ANSWER 4

/* The fake lives in the module, which the fixture has opened. NULL: it is one for a real GPU (tools/gpu_check.sh). */
static void *find_in_module(const char *name)
{
    void *module = dlopen(getenv("MOE_TEST_MODULE"), RTLD_NOW | RTLD_NOLOAD);

    assert_non_null(module);
    return dlsym(module, name);
}

/* Seed 0: as late as may be. */
static void set_order(uint64_t seed)
{
    const fake_config config = {.order = FAKE_ASCENDING,
                                .copies = seed == 0 ? FAKE_LATE : FAKE_BY_SEED,
                                .streams = seed == 0 ? FAKE_LATE : FAKE_BY_SEED,
                                .seed = seed,
                                .n_devices = 1};
    union {
        void *object;
        void (*configure)(const fake_config *config);
    } symbol = {.object = find_in_module("fake_configure")};

    if (symbol.object != NULL) {
        symbol.configure(&config);
    }
}

/* UINT64_MAX: nobody counts them. */
static uint64_t graphs_launched(void)
{
    union {
        void *object;
        void (*read)(fake_counts *out);
    } symbol = {.object = find_in_module("fake_read_counts")};
    fake_counts c = {.graphs = UINT64_MAX};

    if (symbol.object != NULL) {
        symbol.read(&c);
    }
    return c.graphs;
}

static void run(const char *folder, compute_isa isa, uint32_t chunk, uint32_t micro_batches, answer *out)
{
    static int32_t prompt[N_PROMPT];
    engine_fixture_options o = engine_fixture_defaults(folder);
    engine_fixture f;
    asked *a = malloc(sizeof *a);

    assert_non_null(a);
    random_prompt(prompt, N_PROMPT, random_model_defaults("olmoe").vocab_size, 7);
    o.model.isa = isa;
    o.model.n_threads = 1;
    o.prefill_chunk = chunk;
    o.micro_batches = micro_batches;
    engine_spec spec = ask_spec(prompt, N_PROMPT, N_ANSWER, 42);

    spec.sampling.temperature = 0.9f;
    engine_fixture_open(&f, &o);
    if (isa != COMPUTE_ISA_PORTABLE) {
        set_order(micro_batches - 1);
    }
    ask(&f, a, &spec);
    ask_finish(&f, a);
    assert_int_equal(a->status, MOE_OK);
    *out = a->choices[0];
    engine_fixture_close(&f);
    free(a);
}

static void check(const char *kind)
{
    random_model m = random_model_defaults(kind);

    for (int bf16 = 0; bf16 < 2; bf16++) {
        static answer want, got;
        test_folder folder;

        test_folder_open(&folder);
        m.bf16 = bf16 == 1;
        random_model_write(&m, folder.path);
        run(folder.path, COMPUTE_ISA_PORTABLE, 512, 1, &want);
        assert_int_equal(want.n, N_ANSWER);
        run(folder.path, COMPUTE_ISA_AUTO, 512, 1, &got);
        assert_answers_equal(&want, &got);
        uint64_t graphs = graphs_launched();
        run(folder.path, COMPUTE_ISA_AUTO, 7, 2, &got);
        assert_answers_equal(&want, &got);
        /* attention experts take host arrays in the middle of what would be one */
        if (graphs != UINT64_MAX) {
            assert_int_equal(graphs_launched() > graphs, strstr(kind, "moduleformer") == NULL);
        }
        test_folder_close(&folder);
    }
}

#define KIND_TEST(name, kind)                                                                                          \
    static void name##_has_the_bits_of_the_cpu(void **state)                                                           \
    {                                                                                                                  \
        (void)state;                                                                                                   \
        check(kind);                                                                                                   \
    }
KIND_TEST(olmoe, "olmoe")
KIND_TEST(mixtral, "mixtral")
KIND_TEST(qwen3_moe, "qwen3_moe")
KIND_TEST(moduleformer, "moduleformer")
KIND_TEST(moduleformer_kv, "moduleformer-kv")
KIND_TEST(moe_plus_plus, "moe_plus_plus")

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(olmoe_has_the_bits_of_the_cpu),
                                       cmocka_unit_test(mixtral_has_the_bits_of_the_cpu),
                                       cmocka_unit_test(qwen3_moe_has_the_bits_of_the_cpu),
                                       cmocka_unit_test(moduleformer_has_the_bits_of_the_cpu),
                                       cmocka_unit_test(moduleformer_kv_has_the_bits_of_the_cpu),
                                       cmocka_unit_test(moe_plus_plus_has_the_bits_of_the_cpu)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
