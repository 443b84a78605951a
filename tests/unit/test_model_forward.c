/* tokens -> logits against the oracle's vectors: log-probabilities within 1e-4, experts and greedy tokens equal.
 * Further checkpoints made by the same recipe (tests/vectors/README.md) can be named in ORACLE_DIRS, separated
 * by colons. */
#include <math.h>
#include <stdlib.h>

#include "tests/support/model_fixture.h"
#include "tests/support/support.h"

static void log_softmax(const float *x, size_t n, double *out)
{
    double max = x[0], sum = 0.0;

    for (size_t i = 1; i < n; i++) {
        max = fmax(max, (double)x[i]);
    }
    for (size_t i = 0; i < n; i++) {
        sum += exp((double)x[i] - max);
    }
    for (size_t i = 0; i < n; i++) {
        out[i] = (double)x[i] - max - log(sum);
    }
}

static double largest_difference(const float *got, const float *want, size_t n)
{
    double *a = malloc(n * sizeof *a), *b = malloc(n * sizeof *b), worst = 0.0;

    log_softmax(got, n, a);
    log_softmax(want, n, b);
    for (size_t i = 0; i < n; i++) {
        worst = fmax(worst, fabs(a[i] - b[i]));
    }
    free(a);
    free(b);
    return worst;
}

/* Runs tokens [first, first + n) of one sequence; logits of every row go to logits. experts, if not NULL, is checked
 * per layer. */
static void run_chunk(model_fixture *f, model_batch *batch, model_kv_seq *seq, const int32_t *tokens, size_t first,
                      size_t n, float *logits, const oracle_answers *a)
{
    model_row *rows = calloc(n, sizeof *rows);

    assert_int_equal(model_kv_seq_reserve(f->kv, seq, first + n), MOE_OK);
    for (size_t i = 0; i < n; i++) {
        rows[i] = (model_row){.token_id = tokens[i],
                              .position = (uint32_t)(first + i),
                              .pages = seq->pages,
                              .set = f->set,
                              .want_logits = true};
    }
    model_batch_begin(batch, rows, n);
    for (uint32_t l = 0; l < f->config.n_layers; l++) {
        model_fixture_route(batch, l);
        if (a != NULL) {
            assert_memory_equal(model_batch_ids(batch), a->experts + (l * a->n_tokens + first) * a->k,
                                n * a->k * sizeof(int32_t));
        }
        model_fixture_compute(f, batch);
        model_batch_combine(batch);
    }
    model_fixture_logits(batch, logits);
    free(rows);
}

static int32_t argmax(const float *x, size_t n)
{
    size_t best = 0;

    for (size_t i = 1; i < n; i++) {
        best = x[i] > x[best] ? i : best;
    }
    return (int32_t)best;
}

/* set: NULL for the base set. */
static void check_against_oracle(const char *dir, const char *answers, const model_fixture_options *options,
                                 router_set *set)
{
    model_fixture f;
    model_batch *batch;
    model_kv_seq seq;
    oracle_answers a;
    float *logits;
    double worst = 0.0;
    size_t chunk = 7;

    model_fixture_open(&f, options);
    if (set != NULL) {
        router_set_unref(f.set);
        f.set = router_set_ref(set);
    }
    model_fixture_load_experts(&f);
    oracle_answers_load(&a, dir, answers, &f.config);
    logits = malloc((a.n_tokens + 64) * a.vocab_size * sizeof *logits);
    assert_int_equal(model_batch_open(f.model, f.kv, 64, 64, &batch), MOE_OK);
    assert_int_equal(model_kv_seq_init(&seq, a.n_tokens + a.n_greedy), MOE_OK);
    for (size_t at = 0; at < a.n_tokens; at += chunk) {
        size_t n = MOE_MIN(chunk, a.n_tokens - at);
        run_chunk(&f, batch, &seq, a.token_ids + at, at, n, logits + at * a.vocab_size, &a);
    }
    for (size_t t = 0; t < a.n_tokens; t++) {
        worst = fmax(worst, largest_difference(logits + t * a.vocab_size, a.logits + t * a.vocab_size, a.vocab_size));
    }
    print_message("%s: %zu tokens, largest log-probability difference %.2e\n", dir, a.n_tokens, worst);
    assert_true(worst < 1e-4);
    memmove(logits, logits + (a.n_tokens - 1) * a.vocab_size, a.vocab_size * sizeof *logits);
    for (size_t g = 0; g < a.n_greedy; g++) {
        int32_t token = argmax(logits, a.vocab_size);
        assert_int_equal(token, a.greedy[g]);
        run_chunk(&f, batch, &seq, &token, a.n_tokens + g, 1, logits, NULL);
    }
    free(logits);
    oracle_answers_free(&a);
    model_kv_seq_fini(f.kv, &seq);
    model_batch_close(batch);
    model_fixture_close(&f);
}

static void for_each_vector(void (*check)(const char *dir, void *ctx), void *ctx)
{
    static const char *const committed[] = {"tests/vectors/olmoe-gqa", "tests/vectors/olmoe-norm-clip",
                                            "tests/vectors/olmoe-tied"};
    const char *more = getenv("ORACLE_DIRS");

    for (size_t i = 0; i < MOE_COUNT(committed); i++) {
        check(committed[i], ctx);
    }
    if (more != NULL) {
        char *list = strdup(more), *save = NULL;
        for (char *dir = strtok_r(list, ":", &save); dir != NULL; dir = strtok_r(NULL, ":", &save)) {
            check(dir, ctx);
        }
        free(list);
    }
}

static void check_isa(const char *dir, void *ctx)
{
    model_fixture_options o = model_fixture_defaults(dir);

    o.numeric_class = COMPUTE_CLASS_F32_1;
    o.auto_class = false;
    o.isa = *(const compute_isa *)ctx;
    check_against_oracle(dir, "expected.safetensors", &o, NULL);
}

static void check_guarded(const char *dir, void *ctx)
{
    model_fixture_options o = model_fixture_defaults(dir);

    (void)ctx;
    o.guarded = true;
    o.n_threads = 1;
    check_against_oracle(dir, "expected.safetensors", &o, NULL);
}

/* A set without some experts, as in the vector's absent.json; `absent` ends with -1. */
static void check_absent(const char *dir, const char *answers, uint32_t n_layers, uint32_t n_experts,
                         const int32_t absent[][4])
{
    static const unsigned char no_fingerprint[32];
    int32_t ids[3][16];
    uint32_t columns[3][16];
    router_set_layer layers[3];
    model_fixture_options o = model_fixture_defaults(dir);
    router_space *space = NULL;
    router_set *set;
    moe_error err;

    for (uint32_t l = 0; l < n_layers; l++) {
        uint32_t n = 0;
        for (uint32_t e = 0; e < n_experts; e++) {
            bool is_absent = false;
            for (size_t i = 0; absent[l][i] >= 0; i++) {
                is_absent |= absent[l][i] == (int32_t)e;
            }
            if (!is_absent) {
                ids[l][n] = (int32_t)e;
                columns[l][n++] = e;
            }
        }
        layers[l] = (router_set_layer){n, ids[l], columns[l]};
    }
    assert_ok(router_space_open_base(n_layers, n_experts, 0, &space, &err), err);
    assert_ok(router_set_open(space, layers, 2, no_fingerprint, &set, &err), err);
    router_space_unref(space);
    check_against_oracle(o.dir, answers, &o, set);
    router_set_unref(set);
}

static void experts_outside_the_set_are_absent_from_the_router(void **state)
{
    const int32_t olmoe[][4] = {{1, 5, -1}, {0, -1}}, molm[][4] = {{1, -1}, {0, 5, -1}};

    (void)state;
    check_absent("tests/vectors/olmoe-gqa", "expected_absent.safetensors", 2, 8, olmoe);
    check_absent("tests/vectors/molm-absent", "expected.safetensors", 2, 6, molm);
}

/* Of MoE++ also: from the deviation, and from what the next layer's logits take over; constant and zero experts too. */
static void experts_outside_the_set_do_not_reach_the_next_layer(void **state)
{
    const int32_t absent[][4] = {{1, 5, -1}, {0, 6, -1}, {2, 8, -1}};

    (void)state;
    check_absent("tests/vectors/moe++-absent", "expected.safetensors", 3, 9, absent);
}

static void portable_code_agrees_with_the_oracle(void **state)
{
    compute_isa isa = COMPUTE_ISA_PORTABLE;

    (void)state;
    for_each_vector(check_isa, &isa);
}

static void the_best_instruction_set_agrees_with_the_oracle(void **state)
{
    compute_isa isa = COMPUTE_ISA_AUTO;

    (void)state;
    for_each_vector(check_isa, &isa);
}

static void model_code_never_touches_an_activation(void **state)
{
    (void)state;
    for_each_vector(check_guarded, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(portable_code_agrees_with_the_oracle),
        cmocka_unit_test(the_best_instruction_set_agrees_with_the_oracle),
        cmocka_unit_test(experts_outside_the_set_are_absent_from_the_router),
        cmocka_unit_test(experts_outside_the_set_do_not_reach_the_next_layer),
        cmocka_unit_test(model_code_never_touches_an_activation),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
