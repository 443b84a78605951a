/* Counters of experts: rows, weights, the rate that decays. */
#include "tests/support/support.h"

#include "router/router.h"

#define SECOND UINT64_C(1000000000)

static router_use *open_use(router_space **space)
{
    moe_error err;
    router_use *u;

    assert_int_equal(router_space_open_base(2, 3, 1, space, &err), MOE_OK);
    assert_int_equal(router_use_open(*space, 2, 0, &u), MOE_OK);
    return u;
}

static void close_use(router_use *u, router_space *space)
{
    router_use_close(u);
    router_space_unref(space);
}

static void rows_weights_and_node_picks_are_of_slot_and_layer(void **state)
{
    static const int32_t ids[] = {0, 2, 2, 3};
    static const float weights[] = {0.25f, 0.75f, 0.5f, 0.125f};
    router_expert_use use[8];
    uint64_t rows[8], node_picks[6];
    router_space *space;
    router_use *u = open_use(&space);

    (void)state;
    router_use_count(u, 1, ids, weights, 2);
    router_use_read(u, use, 8);
    router_use_read_rows(u, rows, 8);
    router_use_read_node_picks(u, node_picks, 6);
    static const uint64_t expected[8] = {0, 0, 0, 0, 1, 0, 2, 1}, expected_picks[6] = {0, 0, 0, 0, 1, 1};
    static const double mass[8] = {0, 0, 0, 0, 0.25, 0, 1.25, 0.125};
    for (size_t i = 0; i < 8; i++) {
        assert_int_equal(use[i].rows, expected[i]);
        assert_true(use[i].mass == mass[i]);
    }
    assert_memory_equal(rows, expected, sizeof rows);
    assert_memory_equal(node_picks, expected_picks, sizeof node_picks);
    close_use(u, space);
}

static double rate_of(const router_use *u, uint32_t slot)
{
    router_expert_use use[8];

    router_use_read(u, use, 8);
    return use[slot].rate;
}

static void a_rate_nears_the_traffic_and_halves_without_it(void **state)
{
    static const int32_t ids[] = {0, 1};
    static const float weights[] = {0.5f, 0.5f};
    router_space *space;
    router_use *u = open_use(&space);
    uint64_t now = 0;

    (void)state;
    for (int second = 0; second < 600; second++) { /* ten half-lives of five rows a second */
        for (int i = 0; i < 5; i++) {
            router_use_count(u, 0, ids, weights, 1);
        }
        now += SECOND;
        router_use_fold(u, now);
    }
    double full = rate_of(u, 0);
    assert_true(full > 4.99 && full < 5.0);
    assert_true(rate_of(u, 2) == 0.0);
    router_use_fold(u, now + SECOND / 2); /* too soon: nothing moves */
    assert_true(rate_of(u, 0) == full);
    router_use_fold(u, now + (uint64_t)ROUTER_USE_HALF_LIFE_S * SECOND);
    assert_true(rate_of(u, 0) > 0.499 * full && rate_of(u, 0) < 0.501 * full);
    router_use_fold(u, 0); /* a clock that went back moves nothing */
    assert_true(rate_of(u, 0) < 0.501 * full);
    close_use(u, space);
}

static void counters_go_on_in_a_larger_space(void **state)
{
    static const int32_t ids[] = {0, 3}, more[] = {2, 4};
    static const float weights[] = {0.5f, 0.5f};
    const router_addition added = {.layer = 0, .id = 4, .hash = {1}};
    router_space *space, *larger;
    router_use *before = open_use(&space), *u;
    router_expert_use use[9];
    uint64_t node_picks[6];
    moe_error err;

    (void)state;
    router_use_count(before, 0, ids, weights, 1);
    router_use_fold(before, 60 * SECOND);
    assert_int_equal(router_space_grow(space, &added, 1, &larger, &err), MOE_OK);
    assert_int_equal(router_use_open(larger, 2, 60 * SECOND, &u), MOE_OK);
    router_use_take(u, before);
    router_use_close(before);
    router_use_count(u, 0, more, weights, 1);
    router_use_read(u, use, 9);
    router_use_read_node_picks(u, node_picks, 6);
    assert_int_equal(use[0].rows, 1);
    assert_true(use[0].mass == 0.5 && use[0].rate > 0.0);
    assert_int_equal(use[2].rows, 1);
    assert_int_equal(use[8].rows, 1); /* the added expert's slot */
    assert_int_equal(node_picks[1], 1);
    assert_int_equal(node_picks[2], 1);
    close_use(u, space);
    router_space_unref(larger);
}

static uint64_t over(const router_use *u, uint64_t now_s, uint64_t over_s, uint32_t slot, uint64_t *longest_s)
{
    uint64_t rows[9] = {0}, longest = 0;
    bool is_kept = router_use_read_over(u, now_s * SECOND, over_s * SECOND, rows, 9, &longest);

    *longest_s = longest / SECOND;
    return is_kept ? rows[slot] : UINT64_MAX;
}

/* A row a minute of expert 0 for ten hours; from then on of expert 1. */
static void a_window_has_its_rows_and_no_others(void **state)
{
    static const int32_t ids[] = {0, 2}, later[] = {1, 2};
    static const float weights[] = {0.5f, 0.5f};
    const uint64_t kept_s = (ROUTER_USE_MARKS - 1) * ROUTER_USE_MARK_S, hours = 600;
    router_space *space;
    router_use *u = open_use(&space);
    uint64_t longest, now_s = 0;

    (void)state;
    assert_int_equal(over(u, 7, 8, 0, &longest), UINT64_MAX); /* it is not there for so long */
    assert_int_equal(longest, 7);
    for (uint64_t minute = 0; minute < hours; minute++) {
        router_use_count(u, 0, ids, weights, 1);
        now_s += 60;
        router_use_fold(u, now_s * SECOND);
        const uint64_t asked_s = MOE_MIN(now_s, kept_s), rows = over(u, now_s, asked_s, 0, &longest);
        assert_true(rows >= asked_s / 60 && rows < (asked_s + ROUTER_USE_MARK_S) / 60);
    }
    assert_int_equal(over(u, now_s, 3600, 0, &longest), 60);
    assert_true(longest >= kept_s && longest < kept_s + ROUTER_USE_MARK_S);
    assert_int_equal(over(u, now_s, longest + 1, 0, &longest), UINT64_MAX);
    router_use_count(u, 0, later, weights, 1);
    now_s += 120;
    assert_int_equal(over(u, now_s, 100, 0, &longest), 0);
    assert_int_equal(over(u, now_s, 100, 1, &longest), 1);
    assert_int_equal(over(u, now_s, 400, 0, &longest), 5); /* up to five minutes more */
    close_use(u, space);
}

static void windows_go_on_in_a_larger_space(void **state)
{
    static const int32_t ids[] = {0, 3}, more[] = {0, 4};
    static const float weights[] = {0.5f, 0.5f};
    const router_addition added = {.layer = 0, .id = 4, .hash = {1}};
    router_space *space, *larger;
    router_use *before = open_use(&space), *u;
    uint64_t longest;
    moe_error err;

    (void)state;
    for (uint64_t s = 300; s <= 300 * (ROUTER_USE_MARKS + 5); s += 300) {
        router_use_count(before, 0, ids, weights, 1);
        router_use_fold(before, s * SECOND);
    }
    const uint64_t now_s = UINT64_C(300) * (ROUTER_USE_MARKS + 5);
    uint64_t in_an_hour = over(before, now_s, 3600, 0, &longest), kept = longest;
    assert_int_equal(router_space_grow(space, &added, 1, &larger, &err), MOE_OK);
    assert_int_equal(router_use_open(larger, 2, now_s * SECOND, &u), MOE_OK);
    router_use_take(u, before);
    router_use_close(before);
    router_use_count(u, 0, more, weights, 1);
    assert_int_equal(over(u, now_s, 3600, 0, &longest), in_an_hour + 1);
    assert_int_equal(longest, kept);
    assert_int_equal(over(u, now_s, 3600, 8, &longest), 1);
    close_use(u, space);
    router_space_unref(larger);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_weights_and_node_picks_are_of_slot_and_layer),
        cmocka_unit_test(counters_go_on_in_a_larger_space),
        cmocka_unit_test(a_rate_nears_the_traffic_and_halves_without_it),
        cmocka_unit_test(a_window_has_its_rows_and_no_others),
        cmocka_unit_test(windows_go_on_in_a_larger_space),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
