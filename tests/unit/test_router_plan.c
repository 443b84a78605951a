#include "tests/support/space.h"
#include "tests/support/support.h"

#include <stdlib.h>

#include "router/router.h"

static const char *const node_ids[] = {"n0", "n1", "n2", "n3", "n4"};
static const bool all_usable[] = {true, true, true, true, true};

static router_placement *placement(size_t n_nodes, const router_replica *replicas, size_t n)
{
    router_placement *p = NULL;
    moe_error err;

    assert_ok(router_placement_open(1, test_space(1, 64), node_ids, n_nodes, replicas, n, &p, &err), err);
    return p;
}

static router_plan *plan_of(size_t max_rows, uint32_t k)
{
    router_plan *plan = NULL;

    assert_int_equal(router_plan_open(max_rows, k, 64, &plan), MOE_OK);
    return plan;
}

static router_plan_input input_of(const router_placement *p, const int32_t *ids, size_t n_rows)
{
    return (router_plan_input){.placement = p,
                               .ids = ids,
                               .n_rows = n_rows,
                               .usable = all_usable,
                               .max_part_rows = 1000,
                               .max_part_picks = 1000};
}

static void a_part_lists_unique_rows_and_groups_by_expert(void **state)
{
    const int32_t ids[] = {3, 9, 3, 5, 5, 9}; /* 3 rows, k 2 */
    const uint32_t rows[] = {0, 1, 2}, pick_rows[] = {0, 1, 1, 2, 0, 2}, picks[] = {0, 2, 3, 4, 1, 5};
    router_placement *p = NULL;
    router_plan *plan = plan_of(3, 2);
    router_plan_part part;
    moe_error err;

    (void)state;
    assert_ok(router_placement_open_single(1, test_space(1, 64), "one", &p, &err), err);
    router_plan_input in = input_of(p, ids, 3);
    assert_int_equal(router_plan_build(plan, &in), 0);
    assert_true(router_plan_next(plan, &part));
    assert_int_equal(part.n_rows, 3);
    assert_memory_equal(part.rows, rows, sizeof rows);
    assert_int_equal(part.n_groups, 3);
    assert_int_equal(part.groups[0].expert_id, 3);
    assert_int_equal(part.groups[1].expert_id, 5);
    assert_int_equal(part.groups[2].expert_id, 9);
    assert_int_equal(part.n_picks, 6);
    assert_memory_equal(part.pick_rows, pick_rows, sizeof pick_rows);
    assert_memory_equal(part.picks, picks, sizeof picks);
    assert_false(router_plan_next(plan, &part));
    router_plan_close(plan);
    router_placement_unref(p);
}

static void skipped_and_empty_picks_are_in_no_part(void **state)
{
    const int32_t ids[] = {3, -1, 3, 5};
    const uint8_t skip[] = {0, 0, 2, 0};
    router_placement *p = NULL;
    router_plan *plan = plan_of(2, 2);
    router_plan_part part;
    moe_error err;

    (void)state;
    assert_ok(router_placement_open_single(1, test_space(1, 64), "one", &p, &err), err);
    router_plan_input in = input_of(p, ids, 2);
    in.skip = skip;
    assert_int_equal(router_plan_build(plan, &in), 0);
    assert_true(router_plan_next(plan, &part));
    assert_int_equal(part.n_picks, 2);
    assert_int_equal(part.picks[0], 0);
    assert_int_equal(part.picks[1], 3);
    router_plan_close(plan);
    router_placement_unref(p);
}

static void experts_without_a_usable_node_are_counted(void **state)
{
    const router_replica replicas[] = {{0, 1, 0, false}, {0, 2, 1, false}};
    const int32_t ids[] = {1, 2, 1, 40};
    const bool usable[] = {true, false};
    router_placement *p = placement(2, replicas, 2);
    router_plan *plan = plan_of(2, 2);
    router_plan_part part;

    (void)state;
    router_plan_input in = input_of(p, ids, 2);
    in.usable = usable;
    assert_int_equal(router_plan_build(plan, &in), 2);
    assert_true(router_plan_next(plan, &part));
    assert_int_equal(part.node, 0);
    assert_int_equal(part.n_picks, 2);
    assert_false(router_plan_next(plan, &part));
    router_plan_close(plan);
    router_placement_unref(p);
}

static void ids_beyond_the_placement_are_unplaced(void **state)
{
    const int32_t ids[] = {64, 1000000};
    router_placement *p = NULL;
    router_plan *plan = plan_of(1, 2);
    router_plan_part part;
    moe_error err;

    (void)state;
    assert_ok(router_placement_open_single(1, test_space(1, 64), "one", &p, &err), err);
    router_plan_input in = input_of(p, ids, 1);
    assert_int_equal(router_plan_build(plan, &in), 2);
    assert_false(router_plan_next(plan, &part));
    router_plan_close(plan);
    router_placement_unref(p);
}

/* Experts 0..7 on both nodes: one row with 8 picks must read 4 experts on each. */
static void distinct_experts_are_evened_out(void **state)
{
    const int32_t ids[] = {0, 1, 2, 3, 4, 5, 6, 7};
    router_replica replicas[16];
    router_plan *plan = plan_of(1, 8);
    router_plan_part part;

    (void)state;
    for (int i = 0; i < 16; i++) {
        replicas[i] = (router_replica){0, i / 2, (uint32_t)(i % 2), false};
    }
    router_placement *p = placement(2, replicas, 16);
    router_plan_input in = input_of(p, ids, 1);
    assert_int_equal(router_plan_build(plan, &in), 0);
    for (int node = 0; node < 2; node++) {
        assert_true(router_plan_next(plan, &part));
        assert_int_equal(part.n_groups, 4);
    }
    router_plan_close(plan);
    router_placement_unref(p);
}

static void a_hot_expert_is_split_over_its_replicas(void **state)
{
    enum { ROWS = 400 };
    const router_replica replicas[] = {{0, 1, 0, false}, {0, 1, 1, false}};
    int32_t ids[ROWS];
    router_placement *p = placement(2, replicas, 2);
    router_plan *plan = plan_of(ROWS, 1);
    router_plan_part part;

    (void)state;
    for (int i = 0; i < ROWS; i++) {
        ids[i] = 1;
    }
    router_plan_input in = input_of(p, ids, ROWS);
    assert_int_equal(router_plan_build(plan, &in), 0);
    for (int node = 0; node < 2; node++) {
        assert_true(router_plan_next(plan, &part));
        assert_in_range(part.n_picks, ROWS / 2 - 32, ROWS / 2 + 32);
    }
    router_plan_close(plan);
    router_placement_unref(p);
}

static void what_has_a_choice_avoids_the_node_that_has_none(void **state)
{
    const router_replica replicas[] = {{0, 1, 0, false}, {0, 2, 0, false}, {0, 2, 1, false}};
    const int32_t ids[] = {1, 2};
    router_placement *p = placement(2, replicas, 3);
    router_plan *plan = plan_of(1, 2);
    router_plan_part part;

    (void)state;
    router_plan_input in = input_of(p, ids, 1);
    assert_int_equal(router_plan_build(plan, &in), 0);
    assert_true(router_plan_next(plan, &part));
    assert_int_equal(part.groups[0].expert_id, 1);
    assert_int_equal(part.n_groups, 1);
    router_plan_close(plan);
    router_placement_unref(p);
}

/* The node of the only pick. */
static uint32_t node_of_one(router_plan *plan, const router_plan_input *in)
{
    router_plan_part part;

    assert_int_equal(router_plan_build(plan, in), 0);
    assert_true(router_plan_next(plan, &part));
    assert_int_equal(part.n_picks, 1);
    return part.node;
}

static void a_spare_copy_is_used_where_there_is_no_other(void **state)
{
    const router_replica replicas[] = {{0, 1, 0, true}, {0, 1, 1, false}, {0, 1, 2, true}};
    const int32_t ids[] = {1};
    bool usable[] = {true, true, true};
    router_placement *p = placement(3, replicas, 3);
    router_plan *plan = plan_of(1, 1);

    (void)state;
    router_plan_input in = input_of(p, ids, 1);
    in.usable = usable;
    assert_int_equal(node_of_one(plan, &in), 1);
    usable[1] = false;
    assert_int_equal(node_of_one(plan, &in), 0);
    usable[0] = false;
    assert_int_equal(node_of_one(plan, &in), 2);
    router_plan_close(plan);
    router_placement_unref(p);
}

/* Its holder is to drop it, and may do so at any moment. */
static void a_spare_copy_takes_no_part_of_a_hot_expert(void **state)
{
    enum { ROWS = 1000 };
    const router_replica replicas[] = {{0, 1, 0, true}, {0, 1, 1, false}};
    int32_t ids[ROWS];
    router_placement *p = placement(2, replicas, 2);
    router_plan *plan = plan_of(ROWS, 1);
    router_plan_part part;

    (void)state;
    for (int i = 0; i < ROWS; i++) {
        ids[i] = 1;
    }
    router_plan_input in = input_of(p, ids, ROWS);
    assert_int_equal(router_plan_build(plan, &in), 0);
    while (router_plan_next(plan, &part)) {
        assert_int_equal(part.node, 1);
    }
    router_plan_close(plan);
    router_placement_unref(p);
}

/* A node that takes four times as long is given a fifth of what both could do. */
static void a_node_with_a_burden_is_given_less(void **state)
{
    enum { ROWS = 1000 };
    const router_replica replicas[] = {{0, 1, 0, false}, {0, 1, 1, false}};
    const uint32_t burden[] = {4 * ROUTER_BURDEN_ONE, ROUTER_BURDEN_ONE};
    int32_t ids[ROWS];
    router_placement *p = placement(2, replicas, 2);
    router_plan *plan = plan_of(ROWS, 1);
    router_plan_part part;

    (void)state;
    for (int i = 0; i < ROWS; i++) {
        ids[i] = 1;
    }
    router_plan_input in = input_of(p, ids, ROWS);
    in.burden = burden;
    assert_int_equal(router_plan_build(plan, &in), 0);
    assert_true(router_plan_next(plan, &part));
    assert_int_equal(part.node, 0);
    assert_in_range(part.n_picks, ROWS / 5 - 32, ROWS / 5 + 32);
    in.n_rows = 1;
    assert_int_equal(node_of_one(plan, &in), 1);
    router_plan_close(plan);
    router_placement_unref(p);
}

/* Random plans: every pick is in exactly one part, at a usable holder of its expert; limits and orders hold. */
enum { MAX_ROWS = 60, MAX_K = 8, EXPERTS = 64 };

typedef struct random_case {
    uint32_t k;
    size_t n_rows, n_nodes, max_part_rows, max_part_picks;
    int32_t ids[MAX_ROWS * MAX_K];
    uint8_t skip[MAX_ROWS * MAX_K];
    bool usable[5];
    router_placement *placement;
} random_case;

static void random_case_init(random_case *c, moe_random *r)
{
    router_replica replicas[EXPERTS * 5];
    size_t n = 0;

    c->k = 1 + (uint32_t)moe_random_below(r, MAX_K);
    c->n_rows = 1 + moe_random_below(r, MAX_ROWS);
    c->n_nodes = 1 + moe_random_below(r, 5);
    c->max_part_rows = 1 + moe_random_below(r, MAX_ROWS);
    c->max_part_picks = c->k + moe_random_below(r, 100);
    for (int32_t e = 0; e < EXPERTS; e++) {
        for (uint32_t node = 0; node < c->n_nodes; node++) {
            if (moe_random_below(r, 2) == 0) {
                replicas[n++] = (router_replica){0, e, node, false};
            }
        }
    }
    c->placement = placement(c->n_nodes, replicas, n);
    for (int i = 0; i < 5; i++) {
        c->usable[i] = moe_random_below(r, 4) != 0;
    }
    for (size_t row = 0; row < c->n_rows; row++) {
        for (uint32_t j = 0; j < c->k; j++) {
            c->ids[row * c->k + j] = (int32_t)(j * (EXPERTS / MAX_K) + moe_random_below(r, EXPERTS / MAX_K));
            c->skip[row * c->k + j] = moe_random_below(r, 5) == 0;
        }
    }
}

static bool holds(const random_case *c, uint32_t node, int32_t expert)
{
    size_t n;
    const uint32_t *nodes = router_placement_replicas(c->placement, 0, expert, &n);

    for (size_t i = 0; i < n; i++) {
        if (nodes[i] == node) {
            return c->usable[node];
        }
    }
    return false;
}

static void check_part(const random_case *c, const router_plan_part *part, uint8_t *seen)
{
    uint32_t at = 0;

    assert_in_range(part->n_rows, 1, c->max_part_rows);
    assert_in_range(part->n_picks, 1, c->max_part_picks);
    for (uint32_t i = 1; i < part->n_rows; i++) {
        assert_true(part->rows[i] > part->rows[i - 1]);
    }
    for (uint32_t g = 0; g < part->n_groups; g++) {
        int32_t expert = part->groups[g].expert_id;

        assert_true(g == 0 || expert > part->groups[g - 1].expert_id);
        assert_true(holds(c, part->node, expert));
        for (uint32_t i = 0; i < part->groups[g].n_picks; i++, at++) {
            uint32_t pick = part->picks[at];

            assert_true(i == 0 || part->pick_rows[at] > part->pick_rows[at - 1]);
            assert_int_equal(part->rows[part->pick_rows[at]], pick / c->k);
            assert_int_equal(c->ids[pick], expert);
            assert_int_equal(seen[pick]++, 0);
        }
    }
    assert_int_equal(at, part->n_picks);
}

static void every_pick_is_in_exactly_one_part(void **state)
{
    moe_random r;
    random_case c;

    (void)state;
    moe_random_seed(&r, 11);
    for (int round = 0; round < 400; round++) {
        uint8_t seen[MAX_ROWS * MAX_K] = {0};
        router_plan_part part;

        random_case_init(&c, &r);
        router_plan *plan = plan_of(MAX_ROWS, c.k);
        router_plan_input in = input_of(c.placement, c.ids, c.n_rows);
        in.skip = c.skip;
        in.usable = c.usable;
        in.max_part_rows = c.max_part_rows;
        in.max_part_picks = c.max_part_picks;
        size_t n_unplaced = router_plan_build(plan, &in);
        while (router_plan_next(plan, &part)) {
            check_part(&c, &part, seen);
        }
        for (size_t pick = 0; pick < c.n_rows * c.k; pick++) {
            n_unplaced -= !c.skip[pick] && !seen[pick];
            assert_false(c.skip[pick] && seen[pick]);
        }
        assert_int_equal(n_unplaced, 0);
        router_plan_close(plan);
        router_placement_unref(c.placement);
    }
}

static void more_picks_than_an_index_holds_are_refused(void **state)
{
    router_plan *plan = NULL;

    (void)state;
    assert_int_equal(router_plan_open((size_t)INT32_MAX, 2, 64, &plan), MOE_ERR_INVALID_ARG);
    assert_null(plan);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_part_lists_unique_rows_and_groups_by_expert),
        cmocka_unit_test(skipped_and_empty_picks_are_in_no_part),
        cmocka_unit_test(experts_without_a_usable_node_are_counted),
        cmocka_unit_test(ids_beyond_the_placement_are_unplaced),
        cmocka_unit_test(distinct_experts_are_evened_out),
        cmocka_unit_test(a_hot_expert_is_split_over_its_replicas),
        cmocka_unit_test(what_has_a_choice_avoids_the_node_that_has_none),
        cmocka_unit_test(a_spare_copy_is_used_where_there_is_no_other),
        cmocka_unit_test(a_spare_copy_takes_no_part_of_a_hot_expert),
        cmocka_unit_test(a_node_with_a_burden_is_given_less),
        cmocka_unit_test(every_pick_is_in_exactly_one_part),
        cmocka_unit_test(more_picks_than_an_index_holds_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
