/* The KV cache's pages: which prefix is found again, by whom, and that no page is lost. */
#include <stdlib.h>

#include "model/model.h"
#include "tests/support/support.h"

#define PAGE    MODEL_KV_PAGE_TOKENS
#define N_PAGES 8

typedef struct world {
    moe_threads *threads;
    compute_device *device;
    model_kv *kv;
    router_set *set, *other;
    int32_t tokens[3 * PAGE];
    model_kv_seq s;
} world;

static router_set *open_set(int32_t last)
{
    static const unsigned char fingerprint[32];
    static const uint32_t columns[] = {0, 1};
    const int32_t ids[] = {0, last};
    const router_set_layer layer = {2, ids, columns};
    router_space *space = NULL;
    router_set *set = NULL;
    moe_error err;

    assert_ok(router_space_open_base(1, 3, 0, &space, &err), err);
    assert_ok(router_set_open(space, &layer, 2, fingerprint, &set, &err), err);
    router_space_unref(space);
    return set;
}

static int setup(void **state)
{
    static const model_config c = {.n_layers = 1, .n_kv_heads = 1, .head_dim = 8};
    const compute_class cls = COMPUTE_CLASS_F32_1;
    world *w = calloc(1, sizeof *w);
    moe_error err;

    assert_int_equal(moe_threads_open(1, NULL, &w->threads), MOE_OK);
    const compute_device_options d = {
        .numeric_class = cls, .isa = COMPUTE_ISA_PORTABLE, .threads = w->threads, .max_rows = 1, .max_context = PAGE};
    assert_ok(compute_open("cpu", &d, &w->device, &err), err);
    assert_ok(model_kv_open(&c, w->device, N_PAGES * model_kv_page_bytes(&c, cls), true, &w->kv, &err), err);
    w->set = open_set(1);
    w->other = open_set(2);
    for (size_t i = 0; i < MOE_COUNT(w->tokens); i++) {
        w->tokens[i] = (int32_t)(7 * i);
    }
    assert_int_equal(model_kv_seq_init(&w->s, MOE_COUNT(w->tokens)), MOE_OK);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    world *w = *state;

    model_kv_seq_fini(w->kv, &w->s);
    model_kv_close(w->kv);
    router_set_unref(w->set);
    router_set_unref(w->other);
    w->device->ops->close(w->device);
    moe_threads_close(w->threads);
    free(w);
    return 0;
}

/* n tokens are computed, as by a request that goes on. */
static void compute(world *w, size_t n)
{
    assert_int_equal(model_kv_seq_reserve(w->kv, &w->s, n), MOE_OK);
    model_kv_seq_register(w->kv, &w->s, w->set, w->tokens, n);
}

static size_t adopt(world *w, const router_set *set)
{
    return model_kv_seq_adopt(w->kv, &w->s, set, w->tokens, MOE_COUNT(w->tokens));
}

static model_kv_stats stats_of(const world *w)
{
    model_kv_stats stats;

    model_kv_get_stats(w->kv, &stats);
    return stats;
}

static void full_pages_of_a_prefix_are_found_again(void **state)
{
    world *w = *state;

    compute(w, 2 * PAGE + 5);
    const uint32_t first = w->s.pages[0], second = w->s.pages[1];
    model_kv_seq_release(w->kv, &w->s);
    assert_int_equal(adopt(w, w->set), 2 * PAGE);
    assert_int_equal(w->s.pages[0], first);
    assert_int_equal(w->s.pages[1], second);
}

/* Every layer but the first reads what the experts of the set made. */
static void a_prefix_of_another_set_is_not_found(void **state)
{
    world *w = *state;

    compute(w, 2 * PAGE);
    model_kv_seq_release(w->kv, &w->s);
    assert_int_equal(adopt(w, w->other), 0);
    assert_int_equal(adopt(w, w->set), 2 * PAGE);
}

static void equal_tokens_behind_another_prefix_are_not_found(void **state)
{
    world *w = *state;

    compute(w, 2 * PAGE);
    model_kv_seq_release(w->kv, &w->s);
    w->tokens[PAGE - 1]++;
    assert_int_equal(adopt(w, w->set), 0);
}

/* Put back, and started over: as one that never ran, whatever is left of what it had. */
static void a_released_sequence_begins_anew(void **state)
{
    world *w = *state;

    compute(w, 3 * PAGE);
    const uint32_t first = w->s.pages[0];
    model_kv_seq_release(w->kv, &w->s);
    assert_int_equal(w->s.n_pages, 0);
    w->tokens[PAGE]++;
    assert_int_equal(adopt(w, w->set), PAGE);
    assert_int_equal(w->s.n_pages, 1);
    assert_int_equal(w->s.pages[0], first);
    compute(w, 2 * PAGE); /* behind the first page, not behind the third */
    model_kv_seq_release(w->kv, &w->s);
    assert_int_equal(adopt(w, w->set), 2 * PAGE);
}

static void a_page_is_free_used_or_cached(void **state)
{
    world *w = *state;
    model_kv_seq others[2];

    compute(w, PAGE + 1);
    assert_true(stats_of(w).n_used == 2 && stats_of(w).n_free == N_PAGES - 2 && stats_of(w).n_cached == 0);
    model_kv_seq_release(w->kv, &w->s);
    assert_true(stats_of(w).n_used == 0 && stats_of(w).n_free == N_PAGES - 1 && stats_of(w).n_cached == 1);
    for (size_t i = 0; i < 2; i++) { /* two readers of one page */
        assert_int_equal(model_kv_seq_init(&others[i], N_PAGES * PAGE), MOE_OK);
        assert_int_equal(model_kv_seq_adopt(w->kv, &others[i], w->set, w->tokens, PAGE), PAGE);
    }
    assert_true(stats_of(w).n_used == 1 && stats_of(w).n_cached == 0);
    assert_int_equal(model_kv_seq_reserve(w->kv, &others[0], N_PAGES * PAGE), MOE_OK);
    assert_int_equal(model_kv_seq_reserve(w->kv, &others[1], 2 * PAGE), MOE_ERR_BUSY);
    assert_int_equal(others[1].n_pages, 1);
    model_kv_seq_fini(w->kv, &others[0]);
    assert_int_equal(stats_of(w).n_used, 1);
    model_kv_seq_fini(w->kv, &others[1]);
    assert_true(stats_of(w).n_used == 0 && stats_of(w).n_free == N_PAGES - 1 && stats_of(w).n_cached == 1);
}

/* Where no page is free, the one that was out of use the longest goes, and nobody finds it any more. */
static void a_cached_page_that_was_given_up_is_not_found(void **state)
{
    world *w = *state;
    model_kv_seq all;

    compute(w, PAGE);
    model_kv_seq_release(w->kv, &w->s);
    assert_int_equal(model_kv_seq_init(&all, N_PAGES * PAGE), MOE_OK);
    assert_int_equal(model_kv_seq_reserve(w->kv, &all, N_PAGES * PAGE), MOE_OK);
    assert_int_equal(adopt(w, w->set), 0);
    model_kv_seq_fini(w->kv, &all);
    assert_int_equal(stats_of(w).n_free, N_PAGES);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(full_pages_of_a_prefix_are_found_again),
        TEST(a_prefix_of_another_set_is_not_found),
        TEST(equal_tokens_behind_another_prefix_are_not_found),
        TEST(a_released_sequence_begins_anew),
        TEST(a_page_is_free_used_or_cached),
        TEST(a_cached_page_that_was_given_up_is_not_found),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
