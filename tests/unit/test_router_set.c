#include "tests/support/support.h"

#include "router/router.h"

static unsigned char fingerprint[32];

static const int32_t base_ids[] = {0, 1, 2};
static const uint32_t base_columns[] = {0, 1, 2};
static const int32_t other_ids[] = {0, 2, 7};
static const uint32_t other_columns[] = {0, 2, 3};

/* sha256 of "conclave-set 1\n", the fingerprint 00..1f in hex and LF, "0,1,2\n", "0,2,7\n" */
static void id_is_the_documented_hash(void **state)
{
    const router_set_layer layers[] = {{3, base_ids, base_columns}, {3, other_ids, other_columns}};
    router_set *s = NULL;
    moe_error err;

    (void)state;
    assert_ok(router_set_open(layers, 2, 2, fingerprint, &s, &err), err);
    assert_string_equal(router_set_id(s), "ab46e31eaf433de6f1e16b5284969ac69252d2bdcb157e57e6d6ccfd0e6a5a9c");
    router_set_unref(s);
}

static void layers_are_copied(void **state)
{
    int32_t ids[] = {4, 9};
    uint32_t columns[] = {1, 0};
    const router_set_layer layer = {2, ids, columns};
    router_set *s = NULL;
    moe_error err;

    (void)state;
    assert_ok(router_set_open(&layer, 1, 1, fingerprint, &s, &err), err);
    ids[0] = 0;
    columns[0] = 7;
    assert_int_equal(router_set_n_layers(s), 1);
    assert_int_equal(router_set_at(s, 0)->n_experts, 2);
    assert_int_equal(router_set_at(s, 0)->expert_ids[0], 4);
    assert_int_equal(router_set_at(s, 0)->columns[0], 1);
    router_set_unref(s);
}

static void base_set_equals_the_written_out_one(void **state)
{
    const router_set_layer layers[] = {{3, base_ids, base_columns}, {2, base_ids, base_columns}};
    const uint32_t n_experts[] = {3, 2};
    router_set *a = NULL, *b = NULL;
    moe_error err;

    (void)state;
    assert_ok(router_set_open(layers, 2, 2, fingerprint, &a, &err), err);
    assert_ok(router_set_open_base(n_experts, 2, 2, fingerprint, &b, &err), err);
    assert_string_equal(router_set_id(a), router_set_id(b));
    router_set_unref(a);
    router_set_unref(b);
}

static void sets_of_two_models_differ(void **state)
{
    const uint32_t n_experts[] = {3};
    unsigned char other[32] = {1};
    router_set *a = NULL, *b = NULL;
    moe_error err;

    (void)state;
    assert_ok(router_set_open_base(n_experts, 1, 1, fingerprint, &a, &err), err);
    assert_ok(router_set_open_base(n_experts, 1, 1, other, &b, &err), err);
    assert_string_not_equal(router_set_id(a), router_set_id(b));
    router_set_unref(a);
    router_set_unref(b);
}

static void a_reference_keeps_the_set(void **state)
{
    const uint32_t n_experts[] = {3};
    router_set *s = NULL;
    moe_error err;

    (void)state;
    assert_ok(router_set_open_base(n_experts, 1, 1, fingerprint, &s, &err), err);
    router_set *again = router_set_ref(s);
    router_set_unref(s);
    assert_int_equal(router_set_at(again, 0)->n_experts, 3);
    router_set_unref(again);
}

static void refuses(const router_set_layer *layers, size_t n, uint32_t min_experts, const char *why)
{
    router_set *s = NULL;
    moe_error err = {""};

    assert_int_equal(router_set_open(layers, n, min_experts, fingerprint, &s, &err), MOE_ERR_INVALID_ARG);
    assert_null(s);
    assert_contains(err.text, why);
}

static void too_few_experts_are_refused(void **state)
{
    const router_set_layer layers[] = {{3, base_ids, base_columns}, {2, base_ids, base_columns}};

    (void)state;
    refuses(layers, 2, 3, "layer 1 has 2 experts, at least 3");
}

static void ids_that_do_not_ascend_are_refused(void **state)
{
    const int32_t ids[] = {0, 2, 2};
    const router_set_layer layer = {3, ids, base_columns};

    (void)state;
    refuses(&layer, 1, 1, "expert id 2 at 2");
}

static void negative_ids_are_refused(void **state)
{
    const int32_t ids[] = {-1, 2, 3};
    const router_set_layer layer = {3, ids, base_columns};

    (void)state;
    refuses(&layer, 1, 1, "expert id -1 at 0");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(id_is_the_documented_hash),           cmocka_unit_test(layers_are_copied),
        cmocka_unit_test(base_set_equals_the_written_out_one), cmocka_unit_test(sets_of_two_models_differ),
        cmocka_unit_test(a_reference_keeps_the_set),           cmocka_unit_test(too_few_experts_are_refused),
        cmocka_unit_test(ids_that_do_not_ascend_are_refused),  cmocka_unit_test(negative_ids_are_refused),
    };

    for (int i = 0; i < 32; i++) {
        fingerprint[i] = (unsigned char)i;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
