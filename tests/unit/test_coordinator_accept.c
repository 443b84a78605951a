/* Which offered packs are switched on by themselves. */
#include "coordinator/accept.h"

#include "tests/support/space.h"

#define H1 "1111111111111111111111111111111111111111111111111111111111111111"
#define H2 "22222222222222222222222222222222222222222222222222222222222222ab"

static catalogue *now;
static accept_rules rules;
static moe_error why;
static uint64_t clock_ms;

static int setup(void **state)
{
    const catalogue_model m = {.space = test_space(2, 4), .min_experts = 2};

    (void)state;
    clock_ms = 1000;
    assert_ok(catalogue_open(&m, &now, &why), why);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    catalogue_unref(now);
    return 0;
}

static void become(moe_status status, catalogue *next)
{
    assert_ok(status, why);
    catalogue_unref(now);
    now = next;
}

static void begin_by(const char *who, catalogue_op op, const char *name, const char *hash)
{
    static const catalogue_pack_layer layers[] = {{.layer = 0, .n_experts = 1}};
    catalogue_pack p = {.version = "1", .n_layers = 1, .layers = layers, .n_experts = 1};
    catalogue *next = NULL;

    (void)snprintf(p.name, sizeof p.name, "%s", name);
    (void)snprintf(p.hash, sizeof p.hash, "%s", hash);
    clock_ms++;
    const catalogue_change change = {
        .op = op, .who = who, .now_ms = clock_ms, .deadline_ms = clock_ms + 100, .pack = &p, .word = name};
    moe_status status = catalogue_begin(now, &change, &next, &why);
    become(status, next);
}

static void begin(catalogue_op op, const char *name, const char *hash)
{
    begin_by(ACCEPT_WHO, op, name, hash);
}

static void end(bool done)
{
    catalogue *next = NULL;
    uint64_t number = catalogue_get_pending(now)->number;
    moe_status status = done ? catalogue_commit(now, number, ++clock_ms, &next, &why)
                             : catalogue_undo(now, number, ++clock_ms, "a reason", &next, &why);

    become(status, next);
}

static accept_verdict judge(const char *name, const char *hash)
{
    const catalogue_pack *taken = NULL;

    return accept_judge(&rules, now, name, hash, &taken);
}

static void test_rules_name_packs(void **state)
{
    (void)state;
    assert_ok(accept_read(NULL, &rules, &why), why);
    assert_true(accept_is_empty(&rules));
    assert_int_equal(judge("german", H1), ACCEPT_FOREIGN);
    assert_ok(accept_read("german@" H1 ",french@" H2, &rules, &why), why);
    assert_false(accept_is_empty(&rules));
    assert_int_equal(judge("german", H1), ACCEPT_NOW);
    assert_int_equal(judge("french", H2), ACCEPT_NOW);
    assert_int_equal(judge("german", H2), ACCEPT_FOREIGN);
    assert_int_equal(judge("italian", H1), ACCEPT_FOREIGN);
    assert_ok(accept_read("offered", &rules, &why), why);
    assert_int_equal(judge("italian", H1), ACCEPT_NOW);
}

static void test_wrong_rules_are_named(void **state)
{
    static const char *const wrong[] = {"",
                                        "german",
                                        "@" H1,
                                        "german@12",
                                        "german@" H1 "0",
                                        "german@" H1 ",",
                                        "offered,",
                                        "german@" H1 ",offered",
                                        "german@",
                                        "GERMAN@X" H1 ",a@",
                                        "offered,german@" H1};
    char text[100];

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(wrong); i++) {
        assert_int_equal(accept_read(wrong[i], &rules, &why), MOE_ERR_INVALID_ARG);
        assert_contains(why.text, "--accept-packs");
    }
    assert_int_equal(accept_read("german@12", &rules, &why), MOE_ERR_INVALID_ARG);
    assert_contains(why.text, "\"german@12\"");
    memset(text, 'n', sizeof text);
    memcpy(text + 64, "@" H1, 35);
    text[99] = '\0';
    assert_int_equal(accept_read(text, &rules, &why), MOE_ERR_INVALID_ARG);
}

static void test_no_more_rules_than_the_limit(void **state)
{
    char text[(ACCEPT_MAX_RULES + 1) * 70] = "";
    size_t n = 0;

    (void)state;
    for (size_t i = 0; i <= ACCEPT_MAX_RULES; i++) {
        if (i == ACCEPT_MAX_RULES) {
            assert_ok(accept_read(text, &rules, &why), why);
        }
        n += (size_t)snprintf(text + n, sizeof text - n, "%sa@" H1, i > 0 ? "," : "");
    }
    assert_int_equal(accept_read(text, &rules, &why), MOE_ERR_INVALID_ARG);
}

/* Once it has been in the default set it is for people; until then it is tried, also after a change that was undone. */
static void test_a_pack_is_switched_on_by_itself_once(void **state)
{
    (void)state;
    assert_ok(accept_read("offered", &rules, &why), why);
    begin(CATALOGUE_ADD, "german", H1);
    end(false);
    assert_int_equal(judge("german", H1), ACCEPT_NOW);
    begin(CATALOGUE_ADD, "german", H1);
    end(true);
    assert_int_equal(judge("german", H1), ACCEPT_KNOWN);
    assert_int_equal(judge("german", H2), ACCEPT_TAKEN);
    assert_int_equal(judge("french", H2), ACCEPT_NOW);
    begin(CATALOGUE_ROLLBACK, "", H1);
    end(true);
    assert_int_equal(judge("german", H1), ACCEPT_KNOWN);
    assert_int_equal(judge("german", H2), ACCEPT_NOW);
}

static void test_what_somebody_else_began_with_is_theirs(void **state)
{
    (void)state;
    assert_ok(accept_read("offered", &rules, &why), why);
    begin_by("ann", CATALOGUE_ADD, "german", H1);
    end(false);
    assert_int_equal(judge("german", H1), ACCEPT_KNOWN);
    begin(CATALOGUE_ADD, "french", H2);
    end(false);
    assert_int_equal(judge("french", H2), ACCEPT_NOW);
    begin_by("ann", CATALOGUE_ADD, "french", H2);
    end(false);
    assert_int_equal(judge("french", H2), ACCEPT_KNOWN);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_rules_name_packs, setup, teardown),
        cmocka_unit_test(test_wrong_rules_are_named),
        cmocka_unit_test(test_no_more_rules_than_the_limit),
        cmocka_unit_test_setup_teardown(test_a_pack_is_switched_on_by_itself_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_somebody_else_began_with_is_theirs, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
