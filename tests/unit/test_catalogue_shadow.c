/* The catalogue: a pack on trial beside the default set. */
#include "tests/unit/test_catalogue_support.h"

static void shadow(catalogue_pack p, uint32_t share)
{
    change((catalogue_change){.op = CATALOGUE_ADD, .pack = &p, .is_shadow = true, .share = share});
}

static void assert_shadow(const char *expected)
{
    assert_non_null(catalogue_get_shadow(now));
    assert_set(catalogue_get_shadow(now)->set, expected);
}

static void a_pack_on_trial_has_a_set_beside_the_default(void **state)
{
    router_set *found = NULL;
    uint64_t wanted[1];

    (void)state;
    shadow(german(), 500);
    assert_default("0-4|0-4|0-4");
    assert_shadow("0-6|0-4|0-5");
    assert_int_equal(catalogue_get_shadow(now)->share, 500);
    assert_string_equal(catalogue_get_shadow(now)->by, "tester");
    assert_false(catalogue_pack_at(now, 0)->active);
    assert_string_equal(catalogue_entry_at(now, 0)->what, "shadow german 1 at 5%");
    assert_string_equal(catalogue_entry_at(now, 0)->before, "");
    assert_string_equal(catalogue_entry_at(now, 0)->after, router_set_id(catalogue_get_shadow(now)->set));
    assert_ok(catalogue_find_set(now, router_set_id(catalogue_get_shadow(now)->set), &found, &why), why);
    router_set_unref(found);
    catalogue_wanted(now, clock_ms, 0, wanted);
    assert_true(router_bit(wanted, router_space_slot(catalogue_space(now), 0, 6)));
}

static void what_is_on_trial_is_promoted_or_removed(void **state)
{
    (void)state;
    assert_int_equal(begin((catalogue_change){.op = CATALOGUE_PROMOTE, .word = "german"}), MOE_ERR_NOT_FOUND);
    shadow(german(), 500);
    assert_int_equal(begin((catalogue_change){.op = CATALOGUE_PROMOTE, .word = "french"}), MOE_ERR_NOT_FOUND);
    assert_ok(begin((catalogue_change){.op = CATALOGUE_REMOVE, .word = "german"}), why);
    assert_null(catalogue_get_pending(now));
    assert_null(catalogue_get_shadow(now));
    assert_default("0-4|0-4|0-4");
    assert_string_equal(catalogue_entry_at(now, 1)->what, "remove german 1 from the shadow");
    shadow(german(), 0);
    change((catalogue_change){.op = CATALOGUE_PROMOTE, .word = "german"});
    assert_null(catalogue_get_shadow(now));
    assert_default("0-6|0-4|0-5");
    assert_true(catalogue_pack_at(now, 0)->active);
    change((catalogue_change){.op = CATALOGUE_ROLLBACK});
    assert_default("0-4|0-4|0-4");
}

static void one_pack_is_on_trial_at_a_time(void **state)
{
    catalogue_pack p = german(), v2 = pack_of("german", "2", 'b', french_layers, 2, 2);

    (void)state;
    shadow(p, 500);
    assert_int_equal(begin((catalogue_change){.op = CATALOGUE_ADD, .pack = &v2, .is_shadow = true}), MOE_ERR_BUSY);
    assert_int_equal(begin((catalogue_change){.op = CATALOGUE_ADD, .pack = &p, .is_shadow = true, .share = 500}),
                     MOE_ERR_EXISTS);
    assert_int_equal(begin((catalogue_change){.op = CATALOGUE_ADD, .pack = &p, .is_shadow = true, .share = 10001}),
                     MOE_ERR_INVALID_ARG);
    shadow(p, 10000);
    assert_int_equal(catalogue_get_shadow(now)->share, 10000);
    add(p); /* as if it had been promoted */
    assert_null(catalogue_get_shadow(now));
    assert_int_equal(begin((catalogue_change){.op = CATALOGUE_ADD, .pack = &p, .is_shadow = true}), MOE_ERR_EXISTS);
}

static void a_trial_that_is_given_up_leaves_the_one_before(void **state)
{
    catalogue_pack p = german();
    catalogue *next = NULL;

    (void)state;
    shadow(p, 500);
    assert_ok(begin((catalogue_change){.op = CATALOGUE_ADD, .pack = &p, .is_shadow = true, .share = 9}), why);
    assert_ok(catalogue_undo(now, catalogue_get_number(now), ++clock_ms, "no", &next, &why), why);
    become(next);
    assert_int_equal(catalogue_get_shadow(now)->share, 500);
    assert_shadow("0-6|0-4|0-5");
}

/* The trial goes on beside another default, as long as that can take the pack in. */
static void a_trial_follows_the_default(void **state)
{
    const catalogue_expert gone = {1, 2}, replaced = {2, 0};

    (void)state;
    shadow(fix(), 500);
    assert_shadow("0,2,4-6|0-4|1-5");
    change((catalogue_change){.op = CATALOGUE_PRUNE, .experts = &gone, .n_experts = 1});
    assert_shadow("0,2,4-6|0-1,3-4|1-5");
    add(german());
    assert_shadow("0,2,4-8|0-1,3-4|1-6");
    change((catalogue_change){.op = CATALOGUE_PRUNE, .experts = &replaced, .n_experts = 1});
    assert_null(catalogue_get_shadow(now));
}

static void the_set_on_trial_counts_among_those_that_live(void **state)
{
    char name[16];

    (void)state;
    shadow(german(), 500);
    for (int i = 0; i < CATALOGUE_MAX_SETS - 2; i++) {
        (void)snprintf(name, sizeof name, "n%d", i);
        change((catalogue_change){.op = CATALOGUE_DEFINE, .word = name});
    }
    assert_int_equal(begin((catalogue_change){.op = CATALOGUE_DEFINE, .word = "more"}), MOE_ERR_BUSY);
    assert_ok(begin((catalogue_change){.op = CATALOGUE_REMOVE, .word = "german"}), why);
    change((catalogue_change){.op = CATALOGUE_DEFINE, .word = "more"});
    catalogue_pack p = german();
    assert_int_equal(begin((catalogue_change){.op = CATALOGUE_ADD, .pack = &p, .is_shadow = true}), MOE_ERR_BUSY);
}

static void the_record_has_the_trial(void **state)
{
    catalogue_pack p = german();

    (void)state;
    shadow(p, 500);
    assert_ok(begin((catalogue_change){.op = CATALOGUE_ADD, .pack = &p, .is_shadow = true, .share = 700}), why);
    char *text = text_of(now);
    catalogue *c = read_back(text, now);
    char *again = text_of(c);
    assert_string_equal(text, again);
    assert_int_equal(catalogue_get_shadow(c)->share, 500);
    assert_string_equal(catalogue_get_pending(c)->shadow, p.hash);
    assert_int_equal(catalogue_get_pending(c)->share, 700);
    assert_false(catalogue_pending_is_default(catalogue_get_pending(c)));
    free(text);
    free(again);
    catalogue_unref(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_pack_on_trial_has_a_set_beside_the_default),
        TEST(what_is_on_trial_is_promoted_or_removed),
        TEST(one_pack_is_on_trial_at_a_time),
        TEST(a_trial_that_is_given_up_leaves_the_one_before),
        TEST(a_trial_follows_the_default),
        TEST(the_set_on_trial_counts_among_those_that_live),
        TEST(the_record_has_the_trial),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
