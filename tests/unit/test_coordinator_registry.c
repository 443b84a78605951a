/* The registry over an engine without a model: changes one after the other, whole or undone. */
#include "tests/support/fake_engine.h"
#include "tests/support/support.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static engine *e;
static registry *r;
static const api_catalogue *table;
static char before[65];

/* What the engine is asked to take, on the registry's thread: also to unload, which has no set. */
static struct {
    _Atomic moe_status status;
    atomic_uint n_sets;
} taken;

static moe_status take(void *ctx, engine *of, const embedded_changes *changes, moe_error *err)
{
    const engine_changes set = {.set = changes->set};

    (void)ctx;
    MOE_ASSERT(changes->wanted != NULL);
    if (taken.status != MOE_OK) {
        return moe_fail(err, taken.status, "no memory for an expert");
    }
    taken.n_sets += changes->set != NULL;
    return changes->set != NULL ? engine_change(of, &set, err) : MOE_OK;
}

static int setup(void **state)
{
    static const fake_options options;

    (void)state;
    taken.status = MOE_OK;
    taken.n_sets = 0;
    e = fake_engine_open(&options);
    r = fake_registry_open(e, NULL, take);
    table = registry_table(r);
    router_set *set = engine_current_set(e);
    (void)snprintf(before, sizeof before, "%s", router_set_id(set));
    router_set_unref(set);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    registry_close(r);
    fake_engine_close(e);
    return 0;
}

static void *ask(const catalogue_change *change, bool dry_run)
{
    const api_ask what = {.change = *change, .dry_run = dry_run};
    void *ticket = NULL;
    moe_error err;

    assert_ok(table->ask(table->ctx, &what, &ticket, &err), err);
    return ticket;
}

/* How it ended. The plan is gone then. */
static api_told wait_for(void *ticket)
{
    api_told told = {.ended = false};

    while (!told.ended) {
        table->look(table->ctx, ticket, &told);
        usleep(1000);
    }
    table->leave(table->ctx, ticket);
    return told;
}

static void assert_default(const char *id)
{
    catalogue *c = table->current(table->ctx);
    router_set *set = engine_current_set(e);

    assert_string_equal(router_set_id(catalogue_default(c)), id);
    assert_string_equal(router_set_id(set), id);
    assert_null(catalogue_get_pending(c));
    router_set_unref(set);
    catalogue_unref(c);
}

static const catalogue_expert first = {.layer = 0, .id = 0};
static const catalogue_change prune = {
    .op = CATALOGUE_PRUNE, .who = "ann", .why = "a test", .experts = &first, .n_experts = 1};

static void a_change_reaches_the_engine_and_the_catalogue(void **state)
{
    (void)state;
    assert_int_equal(wait_for(ask(&prune, false)).status, MOE_OK);
    assert_int_equal(taken.n_sets, 1);
    router_set *set = engine_current_set(e);
    assert_int_equal(router_set_at(set, 0)->n_experts, FAKE_EXPERTS - 1);
    assert_default(router_set_id(set));
    router_set_unref(set);
}

static void what_the_engine_does_not_take_is_undone_with_its_reason(void **state)
{
    (void)state;
    taken.status = MOE_ERR_NO_MEMORY;
    api_told told = wait_for(ask(&prune, false));
    assert_int_equal(told.status, MOE_ERR_NO_MEMORY);
    assert_string_equal(told.error.text, "no memory for an expert");
    assert_default(before);
    catalogue *c = table->current(table->ctx);
    assert_int_equal(catalogue_n_entries(c), 1);
    assert_string_equal(catalogue_entry_at(c, 0)->undone, "no memory for an expert");
    assert_string_equal(catalogue_entry_at(c, 0)->who, "ann");
    catalogue_unref(c);
    taken.status = MOE_OK;
    assert_int_equal(wait_for(ask(&prune, false)).status, MOE_OK);
}

static void a_dry_run_reaches_nobody(void **state)
{
    (void)state;
    assert_int_equal(wait_for(ask(&prune, true)).status, MOE_OK);
    assert_int_equal(taken.n_sets, 0);
    assert_default(before);
}

static void a_name_changes_no_default(void **state)
{
    const catalogue_change define = {.op = CATALOGUE_DEFINE, .word = "few", .experts = &first, .n_experts = 1};
    const catalogue_expert two[] = {{0, 0}, {0, 1}};
    catalogue_change enough = define;

    (void)state;
    assert_int_equal(wait_for(ask(&define, false)).status, MOE_ERR_INVALID_ARG);
    enough.experts = two;
    enough.n_experts = 2;
    assert_int_equal(wait_for(ask(&enough, false)).status, MOE_OK);
    assert_int_equal(taken.n_sets, 0);
    assert_default(before);
}

static void changes_wait_for_each_other(void **state)
{
    const catalogue_change restore = {.op = CATALOGUE_RESTORE};
    void *tickets[LEDGER_MAX_ASKED];

    (void)state;
    for (size_t i = 0; i < LEDGER_MAX_ASKED; i++) {
        tickets[i] = ask(i % 2 == 0 ? &prune : &restore, false);
    }
    for (size_t i = 0; i < LEDGER_MAX_ASKED; i++) {
        assert_int_equal(wait_for(tickets[i]).status, MOE_OK);
    }
    assert_default(before);
}

static void who_leaves_does_not_stop_a_change(void **state)
{
    void *ticket = ask(&prune, false);

    (void)state;
    table->leave(table->ctx, ticket);
    const catalogue_change rollback = {.op = CATALOGUE_ROLLBACK};
    assert_int_equal(wait_for(ask(&rollback, false)).status, MOE_OK);
    assert_default(before);
}

static void a_set_that_is_not_loaded_is_not_held(void **state)
{
    catalogue *c = table->current(table->ctx);
    router_set *base = router_set_ref(catalogue_default(c)), *held = NULL;
    moe_error err;

    (void)state;
    catalogue_unref(c);
    assert_ok(table->hold(table->ctx, base, &held, &err), err);
    assert_ptr_equal(held, base);
    router_set_unref(held);
    assert_int_equal(wait_for(ask(&prune, false)).status, MOE_OK);
    assert_int_equal(table->hold(table->ctx, base, &held, &err), MOE_ERR_NOT_FOUND); /* kept for 0 ms */
    router_set_unref(base);
}

static void a_pack_is_taken_from_no_directory_that_a_client_names(void **state)
{
    const api_ask add = {.change = {.op = CATALOGUE_ADD}, .pack = "/nowhere/german"};
    void *ticket = NULL;
    moe_error err;

    (void)state;
    assert_ok(table->ask(table->ctx, &add, &ticket, &err), err);
    api_told told = wait_for(ticket);
    assert_int_equal(told.status, MOE_ERR_DENIED);
    assert_non_null(strstr(told.error.text, "--pack-dir"));
    assert_default(before);
}

static void make_dir(const char *path)
{
    assert_int_equal(mkdir(path, 0700), 0);
}

/* Of three directories only what is below the second and the third may be named, however it is written. */
static void a_directory_must_be_below_one_of_those_given(void **state)
{
    const char *here[] = {"b/pack", "b/../b/pack/", "b/back/pack", "c/pack", "./pack", "pack/"};
    const char *elsewhere[] = {"a/pack", "b/../a/pack", "b/out/pack", "b/none", "a/none", "b", "b/", "bb/pack"};
    char root[] = "/tmp/test_registry_XXXXXX", roots[256], text[512], *out = NULL;
    moe_error err, first_err;

    (void)state;
    assert_non_null(mkdtemp(root));
    assert_int_equal(chdir(root), 0);
    for (const char *at = "a b bb c "; *at != '\0'; at += strcspn(at, " ") + 1) {
        (void)snprintf(text, sizeof text, "%.*s", (int)strcspn(at, " "), at);
        make_dir(text);
        (void)snprintf(text, sizeof text, "%.*s/pack", (int)strcspn(at, " "), at);
        make_dir(text);
    }
    assert_int_equal(symlink("../a", "b/out"), 0);
    assert_int_equal(symlink(".", "b/back"), 0);
    (void)snprintf(roots, sizeof roots, "%s/b,%s/c/", root, root);
    for (size_t i = 0; i < MOE_COUNT(here); i++) {
        const bool is_relative = i >= 4;

        (void)snprintf(text, sizeof text, "%s%s%s", is_relative ? "" : root, is_relative ? "" : "/", here[i]);
        assert_ok(packs_locate(roots, text, &out, &err), err);
        (void)snprintf(text, sizeof text, "%s/%s", root, i == 3 ? "c/pack" : "b/pack");
        assert_string_equal(out, text);
        free(out);
    }
    for (size_t i = 0; i < MOE_COUNT(elsewhere); i++) {
        (void)snprintf(text, sizeof text, "%s/%s", root, elsewhere[i]);
        assert_int_equal(packs_locate(roots, text, &out, &err), MOE_ERR_DENIED);
    }
    assert_int_equal(packs_locate(NULL, text, &out, &first_err), MOE_ERR_DENIED);
    assert_int_equal(chdir("/"), 0);
    (void)snprintf(text, sizeof text, "rm -r %s", root);
    assert_int_equal(system(text), 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_change_reaches_the_engine_and_the_catalogue),
        TEST(what_the_engine_does_not_take_is_undone_with_its_reason),
        TEST(a_dry_run_reaches_nobody),
        TEST(a_name_changes_no_default),
        TEST(changes_wait_for_each_other),
        TEST(who_leaves_does_not_stop_a_change),
        TEST(a_set_that_is_not_loaded_is_not_held),
        TEST(a_pack_is_taken_from_no_directory_that_a_client_names),
        cmocka_unit_test(a_directory_must_be_below_one_of_those_given),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
