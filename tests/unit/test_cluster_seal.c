/* The MAC of records. */
#include "tests/support/support.h"

#include "cluster/cluster_priv.h"

#define RECORD "{\"v\":1,\"incarnation\":\"00c0ffee00c0ffee\"}"

static cluster_seal seal;

static void write_record(moe_text *t)
{
    assert_int_equal(cluster_seal_init(&seal, "test", "a secret of members", 19), MOE_OK);
    moe_text_init(t, 1000);
    moe_text_append(t, RECORD, sizeof RECORD - 1);
    cluster_seal_write(&seal, "nodes/a", t);
    assert_false(t->failed);
}

static bool holds(const moe_text *t, const char *key)
{
    return cluster_seal_holds(&seal, key, t->data, t->size);
}

/* Computed by Python's hmac from what the head of cluster/seal.c says. */
static void the_mac_is_what_others_compute(void **state)
{
    moe_text t;

    (void)state;
    write_record(&t);
    assert_string_equal(t.data, "{\"v\":1,\"incarnation\":\"00c0ffee00c0ffee\",\"mac\":"
                                "\"cf5141fbc1c2da3c9ec9a333d2d6842e7a126db4448d177ab72231e2571cb90e\"}");
    assert_true(holds(&t, "nodes/a"));
    assert_true(cluster_seal_is_there(t.data, t.size));
    moe_text_fini(&t);
}

static void it_holds_for_one_key_of_one_cluster(void **state)
{
    moe_text t;

    (void)state;
    write_record(&t);
    assert_false(holds(&t, "nodes/b"));
    assert_int_equal(cluster_seal_init(&seal, "tess", "a secret of members", 19), MOE_OK);
    assert_false(holds(&t, "nodes/a"));
    assert_int_equal(cluster_seal_init(&seal, "test", "a secret of memberS", 19), MOE_OK);
    assert_false(holds(&t, "nodes/a"));
    moe_text_fini(&t);
}

static void no_byte_can_be_changed_or_left_out(void **state)
{
    moe_text t;

    (void)state;
    write_record(&t);
    for (size_t i = 0; i < t.size; i++) {
        t.data[i] ^= 1;
        assert_false(holds(&t, "nodes/a"));
        t.data[i] ^= 1;
        assert_false(cluster_seal_holds(&seal, "nodes/a", t.data, i));
        assert_false(cluster_seal_holds(&seal, "nodes/a", t.data + i + 1, t.size - i - 1));
    }
    assert_true(holds(&t, "nodes/a"));
    moe_text_fini(&t);
}

static void without_a_secret_nothing_is_written(void **state)
{
    moe_text t;

    (void)state;
    assert_int_equal(cluster_seal_init(&seal, "test", NULL, 0), MOE_OK);
    moe_text_init(&t, 1000);
    moe_text_append(&t, RECORD, sizeof RECORD - 1);
    cluster_seal_write(&seal, "nodes/a", &t);
    assert_string_equal(t.data, RECORD);
    assert_false(cluster_seal_is_there(t.data, t.size));
    moe_text_fini(&t);
}

static int teardown(void **state)
{
    (void)state;
    cluster_seal_fini(&seal);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(the_mac_is_what_others_compute, teardown),
        cmocka_unit_test_teardown(it_holds_for_one_key_of_one_cluster, teardown),
        cmocka_unit_test_teardown(no_byte_can_be_changed_or_left_out, teardown),
        cmocka_unit_test_teardown(without_a_secret_nothing_is_written, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
