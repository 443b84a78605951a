/* A model on a GPU that fails: whatever fails, and when, a request is answered right or with an error, and nothing crashes or is left behind. */
#include "tests/cuda/fake/fake.h"
#include "tests/support/engine_fixture.h"
#include "tests/support/random_model.h"
#include "tests/support/support.h"

#include <dlfcn.h>
#include <stdlib.h>

#define N_PROMPT 9
#define N_ANSWER 3

/* The fake lives in the module. */
typedef void (*fail_fn)(fake_failure what, uint64_t nth);
typedef void (*counts_fn)(fake_counts *out);
static fail_fn make_fail;
static counts_fn read_counts;

static void find_fake(void)
{
    void *module = dlopen(getenv("MOE_TEST_MODULE"), RTLD_NOW | RTLD_NOLOAD);
    union {
        void *object;
        fail_fn fail;
        counts_fn counts;
    } symbol;

    assert_non_null(module);
    assert_non_null(symbol.object = dlsym(module, "fake_fail"));
    make_fail = symbol.fail;
    assert_non_null(symbol.object = dlsym(module, "fake_read_counts"));
    read_counts = symbol.counts;
}

static size_t device_bytes(void)
{
    fake_counts c;

    read_counts(&c);
    return c.device_bytes;
}

static void open_fixture(engine_fixture *f, const char *folder)
{
    engine_fixture_options o = engine_fixture_defaults(folder);

    o.model.n_threads = 1;
    o.model.max_context = 64;
    o.model.kv_tokens = 512;
    o.max_batch_tokens = 16;
    o.prefill_chunk = 5;
    o.micro_batches = 2;
    o.step_timeout_ns = UINT64_C(200000000); /* a node that cannot answer is waited for so long */
    engine_fixture_open(f, &o);
    find_fake();
}

static void ask_one(engine_fixture *f, asked *a)
{
    static int32_t prompt[N_PROMPT];

    random_prompt(prompt, N_PROMPT, random_model_defaults("olmoe").vocab_size, 7);
    engine_spec spec = ask_spec(prompt, N_PROMPT, N_ANSWER, 42);

    ask(f, a, &spec);
    ask_finish(f, a);
}

/* What was said before it failed is what would have been said. */
static void assert_right_as_far_as_it_goes(const asked *want, const asked *got)
{
    const answer *w = &want->choices[0], *g = &got->choices[0];

    assert_true(g->n <= w->n);
    for (uint32_t i = 0; i < g->n; i++) {
        assert_int_equal(g->tokens[i], w->tokens[i]);
        assert_memory_equal(&g->logprobs[i], &w->logprobs[i], sizeof w->logprobs[i]);
    }
    if (got->status == MOE_OK) {
        assert_int_equal(g->n, w->n);
    } else {
        assert_true(got->error[0] != '\0');
    }
}

static void write_model(test_folder *folder)
{
    random_model m = random_model_defaults("olmoe");

    test_folder_open(folder);
    m.n_layers = 2;
    random_model_write(&m, folder->path);
}

static void requests_on_a_gpu_that_fails_are_told_so(void **state)
{
    const fake_failure kinds[] = {FAKE_LAUNCH, FAKE_WORK};
    asked *want = calloc(1, sizeof *want), *got = calloc(1, sizeof *got);
    engine_fixture f;
    test_folder folder;

    (void)state;
    write_model(&folder);
    open_fixture(&f, folder.path);
    make_fail(FAKE_ALLOCATION, 1); /* a step allocates nothing; a graph that gets no memory is done without */
    ask_one(&f, want);
    make_fail(FAKE_ALLOCATION, 0);
    assert_int_equal(want->status, MOE_OK);
    engine_fixture_close(&f);
    for (size_t k = 0; k < MOE_COUNT(kinds); k++) {
        /* Right until nothing fails any more: once may be a graph that could not be recorded. */
        for (uint64_t nth = 1, n_right = 0; n_right < 3; nth = nth * 3 / 2 + 1) {
            open_fixture(&f, folder.path);
            make_fail(kinds[k], nth);
            ask_one(&f, got);
            bool failed = got->status != MOE_OK;
            n_right = failed ? 0 : n_right + 1;
            assert_right_as_far_as_it_goes(want, got);
            if (failed) {
                ask_one(&f, got);
                assert_int_not_equal(got->status, MOE_OK);
                assert_int_equal(got->choices[0].n, 0);
            }
            engine_fixture_close(&f);
            make_fail(kinds[k], 0);
            assert_true(nth < 100000 && (failed || nth > 1));
        }
        assert_int_equal(device_bytes(), 0);
    }
    test_folder_close(&folder);
    free(want);
    free(got);
}

/* Every allocation of opening a model, its cache and its batches once. */
static moe_status open_again(const engine_fixture *f, moe_error *err)
{
    const model_fixture *m = &f->model;
    model *second = NULL;
    model_kv *kv = NULL;
    model_batch *batch = NULL;
    moe_status status = model_open(&m->config, m->tensors, m->device, COMPUTE_PACKED, 64, NULL, NULL, &second, err);

    if (status == MOE_OK) {
        status = model_kv_open(&m->config, m->device, model_kv_page_bytes(&m->config, m->device->numeric_class) * 8,
                               true, &kv, err);
    }
    if (status == MOE_OK) {
        status = model_batch_open(second, kv, 8, 8, &batch);
    }
    model_batch_close(batch);
    model_kv_close(kv);
    model_close(second);
    return status;
}

static void a_model_that_finds_no_memory_leaves_nothing_behind(void **state)
{
    moe_status status = MOE_ERR_NO_MEMORY;
    engine_fixture f;
    test_folder folder;

    (void)state;
    write_model(&folder);
    open_fixture(&f, folder.path);
    for (uint64_t nth = 1; status != MOE_OK; nth++) {
        size_t before = device_bytes();
        moe_error err = {""};

        make_fail(FAKE_ALLOCATION, nth);
        status = open_again(&f, &err);
        make_fail(FAKE_ALLOCATION, 0);
        assert_true(status == MOE_OK || status == MOE_ERR_NO_MEMORY);
        if (err.text[0] != '\0') { /* the batch has none */
            assert_contains(err.text, " bytes, ");
            assert_contains(err.text, " free on cuda:0");
        }
        assert_int_equal(device_bytes(), before);
        assert_true(nth < 1000 && (status != MOE_OK || nth > 1));
    }
    engine_fixture_close(&f);
    test_folder_close(&folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(requests_on_a_gpu_that_fails_are_told_so),
                                       cmocka_unit_test(a_model_that_finds_no_memory_leaves_nothing_behind)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
