/* The mirror of the store: changes come twice, and by three ways, in any order. */
#include "tests/support/support.h"

#include "cluster/cluster_priv.h"

static cluster_mirror m;

static void put_as(const char *key, const char *value, uint64_t revision, const char *doubt)
{
    const cluster_kv kv = {.key = key, .value = value, .value_bytes = strlen(value), .mod_revision = revision};

    assert_int_equal(cluster_mirror_put(&m, &kv, doubt), MOE_OK);
}

static void put(const char *key, const char *value, uint64_t revision)
{
    put_as(key, value, revision, NULL);
}

static void assert_is(const char *key, const char *value)
{
    const cluster_entry *e = cluster_mirror_read(&m, key);

    assert_non_null(e);
    assert_string_equal(e->value, value);
}

static int teardown(void **state)
{
    (void)state;
    cluster_mirror_fini(&m);
    return 0;
}

/* As when the answer to our own transaction comes after the watch has told what another has made of the key. */
static void what_is_older_than_what_is_known_changes_nothing(void **state)
{
    (void)state;
    put("policy", "old", 5);
    put("policy", "new", 7);
    put("policy", "old", 5);
    put("policy", "in between", 6);
    assert_is("policy", "new");
    cluster_mirror_delete(&m, "policy", 6);
    assert_is("policy", "new");
    cluster_mirror_delete(&m, "policy", 8);
    assert_null(cluster_mirror_find(&m, "policy"));
}

/* An election is told from the one before by it. */
static void a_key_keeps_the_revision_that_it_was_made_at(void **state)
{
    (void)state;
    put("controller", "a", 3);
    put("controller", "a again", 9);
    assert_int_equal(cluster_mirror_find(&m, "controller")->create_revision, 3);
    assert_int_equal(cluster_mirror_find(&m, "controller")->mod_revision, 9);
    cluster_mirror_delete(&m, "controller", 10);
    put("controller", "b", 11);
    assert_int_equal(cluster_mirror_find(&m, "controller")->create_revision, 11);
}

static void what_is_not_believed_is_known_by_name_alone(void **state)
{
    (void)state;
    put("nodes/a", "mine", 3);
    put_as("nodes/a", "somebody else's", 4, "it is not signed");
    assert_null(cluster_mirror_read(&m, "nodes/a"));
    assert_int_equal(cluster_mirror_find(&m, "nodes/a")->mod_revision, 4);
    assert_int_equal(cluster_mirror_find(&m, "nodes/a")->value_bytes, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(what_is_older_than_what_is_known_changes_nothing, teardown),
        cmocka_unit_test_teardown(a_key_keeps_the_revision_that_it_was_made_at, teardown),
        cmocka_unit_test_teardown(what_is_not_believed_is_known_by_name_alone, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
