#include "tests/support/support.h"

#include "router/router.h"

static unsigned char fingerprint[32];

static const int32_t base_ids[] = {0, 1, 2};
static const uint32_t base_columns[] = {0, 1, 2};
static const int32_t other_ids[] = {0, 2, 7};
static const uint32_t other_columns[] = {0, 2, 3};

/* Two layers of experts 0, 1 and 2, and in the second one an added expert 7. */
static router_space *space_with(unsigned char what)
{
    router_addition added = {.layer = 1, .id = 7};
    router_space *base = NULL, *grown = NULL;
    moe_error err;

    memset(added.hash, what, sizeof added.hash);
    assert_ok(router_space_open_base(2, 3, 0, &base, &err), err);
    assert_ok(router_space_grow(base, &added, 1, &grown, &err), err);
    router_space_unref(base);
    return grown;
}

static router_set *set_of(router_space *space, const router_set_layer *layers)
{
    router_set *s = NULL;
    moe_error err;

    assert_ok(router_set_open(space, layers, 2, fingerprint, &s, &err), err);
    return s;
}

static void id_is_the_documented_hash(void **state)
{
    const router_set_layer of_base[] = {{3, base_ids, base_columns}, {2, other_ids, other_columns}};
    const router_set_layer layers[] = {{3, base_ids, base_columns}, {3, other_ids, other_columns}};
    router_space *space = space_with(0xab);
    router_set *s;

    (void)state;
    /* sha256 of "conclave-set 1\n", the fingerprint 00..1f in hex and LF, "0,1,2\n", "0,2\n" */
    s = set_of(space, of_base);
    assert_string_equal(router_set_id(s), "b2509454d89647d005ac0aa8a2e1c1e721a12d12065ea3044eb8bc46ddc1f2d0");
    router_set_unref(s);
    /* the same with "0,2,7:abab...ab\n" at the end */
    s = set_of(space, layers);
    assert_string_equal(router_set_id(s), "129942e58df0a4bfca9244ebc7c643e6936872df0482c5533222aeb67ced7d00");
    assert_ptr_equal(router_set_space(s), space);
    router_set_unref(s);
    router_space_unref(space);
}

/* Two packs may well choose the same ids. */
static void equal_ids_of_different_experts_are_different_sets(void **state)
{
    const router_set_layer layers[] = {{3, base_ids, base_columns}, {3, other_ids, other_columns}};
    router_space *one = space_with(1), *two = space_with(2);
    router_set *a = set_of(one, layers), *b = set_of(two, layers);

    (void)state;
    assert_string_not_equal(router_set_id(a), router_set_id(b));
    router_set_unref(a);
    router_set_unref(b);
    router_space_unref(one);
    router_space_unref(two);
}

/* A set without the added ones is the same set as before they were there. */
static void a_set_is_the_same_in_every_version_of_its_space(void **state)
{
    const router_set_layer layers[] = {{3, base_ids, base_columns}, {3, base_ids, base_columns}};
    router_space *grown = space_with(1), *base = NULL;
    router_set *a = NULL;
    moe_error err;

    (void)state;
    assert_ok(router_space_open_base(2, 3, 0, &base, &err), err);
    assert_ok(router_set_open_all(base, 2, fingerprint, &a, &err), err);
    router_set *b = set_of(grown, layers);
    assert_string_equal(router_set_id(a), router_set_id(b));
    router_set_unref(a);
    router_set_unref(b);
    router_space_unref(base);
    router_space_unref(grown);
}

static void all_of_a_space_are_in_the_columns_of_their_places(void **state)
{
    router_space *space = space_with(1);
    router_set *s = NULL;
    moe_error err;

    (void)state;
    assert_ok(router_set_open_all(space, 2, fingerprint, &s, &err), err);
    assert_int_equal(router_set_n_layers(s), 2);
    assert_int_equal(router_set_at(s, 0)->n_experts, 3);
    assert_int_equal(router_set_at(s, 1)->n_experts, 4);
    assert_int_equal(router_set_at(s, 1)->expert_ids[3], 7);
    assert_int_equal(router_set_at(s, 1)->columns[3], 3);
    router_set_unref(s);
    router_space_unref(space);
}

static void layers_are_copied(void **state)
{
    int32_t ids[] = {1, 2};
    uint32_t columns[] = {1, 0};
    const router_set_layer layers[] = {{2, ids, columns}, {2, ids, columns}};
    router_space *space = space_with(1);
    router_set *s = set_of(space, layers);

    (void)state;
    ids[0] = 0;
    columns[0] = 7;
    assert_int_equal(router_set_n_layers(s), 2);
    assert_int_equal(router_set_at(s, 0)->n_experts, 2);
    assert_int_equal(router_set_at(s, 0)->expert_ids[0], 1);
    assert_int_equal(router_set_at(s, 0)->columns[0], 1);
    router_space_unref(space);
    router_set_unref(s);
}

static router_set *all_of(const unsigned char of_model[32])
{
    router_space *space = space_with(1);
    router_set *s = NULL;
    moe_error err;

    assert_ok(router_set_open_all(space, 1, of_model, &s, &err), err);
    router_space_unref(space);
    return s;
}

static void sets_of_two_models_differ(void **state)
{
    unsigned char other[32] = {1};
    router_set *a = all_of(fingerprint), *b = all_of(other);

    (void)state;
    assert_string_not_equal(router_set_id(a), router_set_id(b));
    router_set_unref(a);
    router_set_unref(b);
}

static void a_reference_keeps_the_set(void **state)
{
    router_set *s = all_of(fingerprint), *again = router_set_ref(s);

    (void)state;
    router_set_unref(s);
    assert_int_equal(router_set_at(again, 0)->n_experts, 3);
    router_set_unref(again);
}

static void refuses(const router_set_layer *layers, uint32_t min_experts, const char *why)
{
    router_space *space = space_with(1);
    router_set *s = NULL;
    moe_error err = {""};

    assert_int_equal(router_set_open(space, layers, min_experts, fingerprint, &s, &err), MOE_ERR_INVALID_ARG);
    assert_null(s);
    assert_contains(err.text, why);
    router_space_unref(space);
}

static void too_few_experts_are_refused(void **state)
{
    const router_set_layer layers[] = {{3, base_ids, base_columns}, {2, base_ids, base_columns}};

    (void)state;
    refuses(layers, 3, "layer 1 has 2 experts, at least 3");
}

static void refuses_in_layer_1(const int32_t ids[3], const char *why)
{
    const router_set_layer layers[] = {{3, base_ids, base_columns}, {3, ids, base_columns}};

    refuses(layers, 1, why);
}

static void ids_that_do_not_ascend_are_refused(void **state)
{
    (void)state;
    refuses_in_layer_1((const int32_t[]){0, 2, 2}, "layer 1 expert id 2 at 2");
}

static void negative_ids_are_refused(void **state)
{
    (void)state;
    refuses_in_layer_1((const int32_t[]){-1, 2, 7}, "layer 1 expert id -1 at 0");
}

static void experts_that_the_space_has_not_are_refused(void **state)
{
    (void)state;
    refuses_in_layer_1((const int32_t[]){0, 1, 6}, "layer 1 has no expert 6");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(id_is_the_documented_hash),
        cmocka_unit_test(equal_ids_of_different_experts_are_different_sets),
        cmocka_unit_test(a_set_is_the_same_in_every_version_of_its_space),
        cmocka_unit_test(all_of_a_space_are_in_the_columns_of_their_places),
        cmocka_unit_test(layers_are_copied),
        cmocka_unit_test(sets_of_two_models_differ),
        cmocka_unit_test(a_reference_keeps_the_set),
        cmocka_unit_test(too_few_experts_are_refused),
        cmocka_unit_test(ids_that_do_not_ascend_are_refused),
        cmocka_unit_test(negative_ids_are_refused),
        cmocka_unit_test(experts_that_the_space_has_not_are_refused),
    };

    for (int i = 0; i < 32; i++) {
        fingerprint[i] = (unsigned char)i;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
