/* The expert space: slots of a checkpoint's experts, and how they stay when experts are added. */
#include "router/router.h"

#include "tests/support/support.h"

static router_space *base(uint32_t n_layers, uint32_t n_node, uint32_t n_local)
{
    router_space *s = NULL;
    moe_error err;

    assert_ok(router_space_open_base(n_layers, n_node, n_local, &s, &err), err);
    return s;
}

static router_addition addition(uint32_t layer, int32_t id, unsigned char what)
{
    router_addition a = {.layer = layer, .id = id};

    memset(a.hash, what, sizeof a.hash);
    return a;
}

static void a_base_space_is_dense(void **state)
{
    router_space *s = base(3, 4, 2);

    (void)state;
    assert_int_equal(router_space_version(s), 1);
    assert_int_equal(router_space_n_slots(s), 18);
    assert_int_equal(router_space_n_node_experts(s), 12);
    assert_int_equal(router_space_widest(s), 6);
    assert_int_equal(router_space_words(s), 1);
    for (uint32_t slot = 0; slot < 18; slot++) {
        const router_expert *e = router_space_expert(s, slot);

        assert_int_equal(e->layer, slot / 6);
        assert_int_equal(e->id, slot % 6);
        assert_int_equal(e->is_local, slot % 6 >= 4);
        assert_int_equal(router_space_slot(s, e->layer, e->id), slot);
        assert_null(router_space_hash(s, slot));
    }
    assert_int_equal(router_space_slot(s, 3, 0), ROUTER_NO_SLOT);
    assert_int_equal(router_space_slot(s, 0, 6), ROUTER_NO_SLOT);
    assert_int_equal(router_space_slot(s, 0, -1), ROUTER_NO_SLOT);
    router_space_unref(s);
}

static void what_is_added_leaves_all_slots_as_they_are(void **state)
{
    const router_addition first[] = {addition(1, 9, 1), addition(0, 6, 2), addition(1, 12, 3)};
    const router_addition second[] = {addition(0, 6, 2), addition(0, 7, 4)};
    router_space *a = base(2, 4, 1), *b = NULL, *c = NULL;
    moe_error err;

    (void)state;
    assert_ok(router_space_grow(a, first, 3, &b, &err), err);
    assert_ok(router_space_grow(b, second, 2, &c, &err), err);
    assert_int_equal(router_space_version(c), 3);
    assert_int_equal(router_space_n_slots(c), 14);
    assert_int_equal(router_space_n_node_experts(c), 12);
    assert_int_equal(router_space_widest(c), 7);
    for (uint32_t slot = 0; slot < router_space_n_slots(b); slot++) {
        const router_expert *before = router_space_expert(b, slot), *now = router_space_expert(c, slot);

        assert_int_equal(before->layer, now->layer);
        assert_int_equal(before->id, now->id);
        assert_int_equal(router_space_slot(c, now->layer, now->id), slot);
    }
    assert_int_equal(router_space_slot(c, 1, 12), 12);
    assert_int_equal(router_space_slot(c, 0, 7), 13);
    assert_int_equal(router_space_hash(c, 13)[31], 4);
    assert_int_equal(router_space_hash(c, 11)[0], 2);
    const router_space_layer *layer = router_space_at(c, 1);
    assert_int_equal(layer->n_experts, 7);
    assert_int_equal(layer->ids[5], 9);
    assert_int_equal(layer->slots[6], 12);
    assert_int_equal(router_space_place(layer, 12), 6);
    assert_int_equal(router_space_place(layer, 10), ROUTER_NO_SLOT);
    router_space_unref(a);
    router_space_unref(b);
    router_space_unref(c);
}

static void refused(const router_space *s, const router_addition *added, size_t n, moe_status want, const char *text)
{
    router_space *out = NULL;
    moe_error err;

    assert_int_equal(router_space_grow(s, added, n, &out, &err), want);
    assert_non_null(strstr(err.text, text));
    assert_null(out);
}

static void an_id_is_never_given_twice(void **state)
{
    const router_addition sound[] = {addition(0, 9, 1)};
    const router_addition below[] = {addition(0, 8, 1)}, other[] = {addition(0, 9, 2)}, of_base[] = {addition(0, 3, 1)},
                          twice[] = {addition(0, 10, 1), addition(0, 10, 1)}, no_layer[] = {addition(2, 10, 1)};
    router_space *a = base(2, 4, 0), *b = NULL;
    moe_error err;

    (void)state;
    assert_ok(router_space_grow(a, sound, 1, &b, &err), err);
    refused(b, below, 1, MOE_ERR_INVALID_ARG, "layer 0 expert 8 is not above 9");
    refused(b, other, 1, MOE_ERR_EXISTS, "layer 0 has another expert 9");
    refused(b, of_base, 1, MOE_ERR_EXISTS, "layer 0 has another expert 3");
    refused(b, twice, 2, MOE_ERR_INVALID_ARG, "layer 0 expert 10 is not above 10");
    refused(b, no_layer, 1, MOE_ERR_INVALID_ARG, "there are 2 layers");
    router_space_unref(a);
    router_space_unref(b);
}

static void limits_are_named(void **state)
{
    router_space *s = NULL;
    moe_error err;

    (void)state;
    assert_int_equal(router_space_open_base(0, 4, 0, &s, &err), MOE_ERR_INVALID_ARG);
    assert_int_equal(router_space_open_base(4, 0, 4, &s, &err), MOE_ERR_INVALID_ARG);
    assert_int_equal(router_space_open_base(1025, 4096, 0, &s, &err), MOE_ERR_INVALID_ARG);
    assert_non_null(strstr(err.text, "limit 4194304"));
    assert_int_equal(router_space_open_base(1, UINT32_MAX, UINT32_MAX, &s, &err), MOE_ERR_INVALID_ARG);
}

static void a_later_version_continues_those_before(void **state)
{
    const router_addition first = addition(1, 9, 1), other = addition(1, 9, 2), second = addition(0, 7, 4);
    router_space *a = base(2, 4, 1), *b, *c, *d, *e = base(2, 5, 0);
    moe_error err;

    (void)state;
    assert_ok(router_space_grow(a, &first, 1, &b, &err), err);
    assert_ok(router_space_grow(b, &second, 1, &c, &err), err);
    assert_ok(router_space_grow(a, &other, 1, &d, &err), err);
    assert_true(router_space_continues(a, a) && router_space_continues(c, a) && router_space_continues(c, b));
    assert_false(router_space_continues(a, c));
    assert_false(router_space_continues(c, d)); /* another expert under the same number */
    assert_false(router_space_continues(e, a)); /* another of them is local */
    router_space_unref(a);
    router_space_unref(b);
    router_space_unref(c);
    router_space_unref(d);
    router_space_unref(e);
}

static void a_list_of_ids_is_ranges_that_ascend(void **state)
{
    static const char *const wrong[] = {"",   ",",  "-1", "3,3", "5-5",        "5-4",
                                        "01", "1,", "1-", "1 ",  "2147483648", "0-3,2"};
    const char *at = "0-15,64";
    int32_t first, last = -1;

    (void)state;
    at = router_ids_take(at, &first, &last);
    assert_true(at != NULL && first == 0 && last == 15);
    at = router_ids_take(at, &first, &last);
    assert_true(at != NULL && first == 64 && last == 64 && *at == '\0');
    for (size_t i = 0; i < MOE_COUNT(wrong); i++) {
        last = -1;
        for (at = wrong[i]; at != NULL && (at == wrong[i] || *at != '\0');) {
            at = router_ids_take(at, &first, &last);
        }
        assert_null(at);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_base_space_is_dense),      cmocka_unit_test(what_is_added_leaves_all_slots_as_they_are),
        cmocka_unit_test(an_id_is_never_given_twice), cmocka_unit_test(a_later_version_continues_those_before),
        cmocka_unit_test(limits_are_named),           cmocka_unit_test(a_list_of_ids_is_ranges_that_ascend),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
