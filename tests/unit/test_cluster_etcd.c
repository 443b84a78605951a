/* The texts of etcd's gateway, without etcd. */
#include "tests/support/support.h"

#include <stdlib.h>

#include "cluster/etcd_priv.h"

static void base64_comes_back_as_it_went(void **state)
{
    char bytes[40];
    moe_random r;

    (void)state;
    moe_random_seed(&r, 3);
    for (size_t n = 0; n < sizeof bytes; n++) {
        moe_text t;
        size_t n_back = 99;

        for (size_t i = 0; i < n; i++) {
            bytes[i] = (char)(unsigned char)moe_random_u64(&r);
        }
        moe_text_init(&t, 1000);
        etcd_put_base64(&t, bytes, n);
        char *back = etcd_get_base64(moe_text_cstr(&t), t.size, &n_back);
        assert_non_null(back);
        assert_int_equal(n_back, n);
        assert_memory_equal(back, bytes, n);
        free(back);
        moe_text_fini(&t);
    }
}

static void what_is_no_base64_is_refused(void **state)
{
    const char *const bad[] = {"a", "ab", "abc", "a===", "ab=c", "ab c", "====", "ab==abcd"};
    size_t n;

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(bad); i++) {
        assert_null(etcd_get_base64(bad[i], strlen(bad[i]), &n));
    }
}

static void a_transaction_is_written_as_the_gateway_wants_it(void **state)
{
    const cluster_compare compares[] = {{CLUSTER_COMPARE_CREATE, "a", 0}, {CLUSTER_COMPARE_MOD, "b", 7}};
    const cluster_put puts[] = {{.key = "a", .value = "1", .value_bytes = 1, .lease = 9}};
    const char *const deletes[] = {"b"};
    const cluster_txn txn = {compares, 2, puts, 1, deletes, 1};
    moe_text t;

    (void)state;
    moe_text_init(&t, 1000);
    etcd_write_txn(&t, &txn);
    assert_string_equal(
        moe_text_cstr(&t),
        "{\"compare\":[{\"result\":\"EQUAL\",\"target\":\"CREATE\",\"create_revision\":\"0\",\"key\":\"YQ==\"},"
        "{\"result\":\"EQUAL\",\"target\":\"MOD\",\"mod_revision\":\"7\",\"key\":\"Yg==\"}],"
        "\"success\":[{\"request_put\":{\"lease\":\"9\",\"key\":\"YQ==\",\"value\":\"MQ==\"}},"
        "{\"request_delete_range\":{\"key\":\"Yg==\"}}]}");
    moe_text_fini(&t);
}

static void a_prefix_ends_with_its_last_byte_raised(void **state)
{
    moe_text t;

    (void)state;
    moe_text_init(&t, 1000);
    etcd_write_range(&t, "/a/", &(const etcd_range_part){.from = "/a/", .n_from = 3});
    assert_string_equal(moe_text_cstr(&t), "{\"key\":\"L2Ev\",\"range_end\":\"L2Ew\"}");
    moe_text_fini(&t);
    moe_text_init(&t, 1000);
    etcd_write_range(&t, "/a/", &(const etcd_range_part){"/a/b", 5, 16, true, 77}); /* with its NUL */
    assert_string_equal(moe_text_cstr(&t),
                        "{\"key\":\"L2EvYgA=\",\"range_end\":\"L2Ew\",\"limit\":\"16\",\"keys_only\":"
                        "true,\"revision\":\"77\"}");
    moe_text_fini(&t);
}

static moe_status status_of(const char *body, long http_status)
{
    cluster_reply r;
    etcd_rest rest;
    moe_error err;

    assert_ok(etcd_read_reply(body, strlen(body), http_status, &r, &rest, &err), err);
    etcd_reply_fini(&r);
    etcd_rest_fini(&rest);
    return r.status;
}

static void errors_say_whose_they_are(void **state)
{
    (void)state;
    assert_int_equal(status_of("{\"error\":\"etcdserver: requested lease not found\",\"code\":5}", 404),
                     MOE_ERR_NOT_FOUND);
    assert_int_equal(status_of("{\"error\":\"etcdserver: user name is empty\",\"code\":3}", 400), MOE_ERR_DENIED);
    assert_int_equal(status_of("{\"error\":\"etcdserver: authentication failed, invalid user ID\",\"code\":3}", 400),
                     MOE_ERR_DENIED);
    assert_int_equal(status_of("{\"error\":\"etcdserver: invalid auth token\",\"code\":16}", 401), MOE_ERR_DENIED);
    assert_int_equal(status_of("{\"error\":\"etcdserver: permission denied\",\"code\":7}", 403), MOE_ERR_DENIED);
    assert_int_equal(status_of("{\"error\":\"etcdserver: mvcc: database space exceeded\",\"code\":8}", 429),
                     MOE_ERR_BUSY);
    assert_int_equal(status_of("{\"error\":\"connection closed\",\"code\":14}", 503), MOE_ERR_UNAVAILABLE);
    assert_int_equal(status_of("{\"error\":{\"grpc_code\":5,\"message\":\"x\"}}", 200), MOE_ERR_NOT_FOUND);
    assert_int_equal(status_of("404 page not found", 404), MOE_ERR_UNAVAILABLE);
}

static void what_is_absent_means_zero(void **state)
{
    static const char body[] = "{\"result\":{\"header\":{\"revision\":\"9223372036854775807\"},\"ID\":\"7587\"}}";
    cluster_reply r;
    etcd_rest rest;
    moe_error err;

    (void)state;
    assert_ok(etcd_read_reply(body, sizeof body - 1, 200, &r, &rest, &err), err);
    assert_false(rest.more);
    assert_true(r.revision == INT64_MAX);
    assert_int_equal(r.lease, 7587);
    assert_int_equal(r.ttl_s, 0); /* a keepalive of a dead lease */
    assert_false(r.succeeded);
    assert_int_equal(r.n_kvs, 0);
    etcd_reply_fini(&r);
}

/* A base64 field of the bytes. */
static void put_bytes(moe_text *t, const char *name, const char *bytes, size_t n)
{
    moe_text_printf(t, "\"%s\":\"", name);
    etcd_put_base64(t, bytes, n);
    moe_text_printf(t, "\"");
}

static void a_key_of_any_bytes_costs_no_other_key(void **state)
{
    char longest[600];
    cluster_reply r;
    etcd_rest rest;
    moe_error err;
    moe_text t;

    (void)state;
    memset(longest, 'x', sizeof longest);
    moe_text_init(&t, 10000);
    moe_text_printf(&t, "{\"kvs\":[{");
    put_bytes(&t, "key", "a\0b\\\xff", 5);
    moe_text_printf(&t, "},{");
    put_bytes(&t, "key", longest, sizeof longest);
    moe_text_printf(&t, "},{");
    put_bytes(&t, "key", "good", 4);
    moe_text_printf(&t, "}]}");
    assert_ok(etcd_read_reply(moe_text_cstr(&t), t.size, 200, &r, &rest, &err), err);
    assert_int_equal(r.n_kvs, 3);
    assert_string_equal(r.kvs[0].key, "a\\x00b\\x5c\\xff");
    assert_int_equal(strlen(r.kvs[1].key), CLUSTER_STORE_MAX_KEY);
    assert_string_equal(r.kvs[2].key, "good");
    etcd_reply_fini(&r);
    moe_text_fini(&t);
}

/* ------------------------------------------------------------------------------------------------ lists in parts */
enum { MANY = 300 };

/* A store of MANY keys of any bytes, each with value_bytes, answering a part as etcd does; more than max_reply is too large. */
static bool answer_part(const etcd_listing *l, const size_t *value_bytes, size_t max_reply, cluster_reply *r,
                        etcd_rest *rest)
{
    size_t first = 0, n = 0, limit = l->keys_only ? 1 : l->limit;
    moe_error err;
    moe_text t;

    if (l->from != NULL) {
        assert_int_equal(l->n_from, 6); /* "/a/" and two bytes, and the NUL */
        first = (size_t)(unsigned char)l->from[3] * 256 + (unsigned char)l->from[4] + 1;
        assert_int_equal(l->revision, 9);
    }
    moe_text_init(&t, (size_t)1 << 26);
    moe_text_printf(&t, "{\"header\":{\"revision\":\"%d\"},\"kvs\":[", l->revision == 0 ? 9 : 10);
    for (size_t i = first; i < MANY && (limit == 0 || n < limit) && t.size <= max_reply; i++, n++) {
        const char key[] = {'/', 'a', '/', (char)(unsigned char)(i / 256), (char)(unsigned char)(i % 256)};

        moe_text_printf(&t, "%s{", n > 0 ? "," : "");
        put_bytes(&t, "key", key, sizeof key);
        if (!l->keys_only) {
            char *value = calloc(1, value_bytes[i] + 1);

            assert_non_null(value);
            moe_text_printf(&t, ",");
            put_bytes(&t, "value", value, value_bytes[i]);
            free(value);
        }
        moe_text_printf(&t, "}");
    }
    moe_text_printf(&t, "]%s}", first + n < MANY ? ",\"more\":true" : "");
    assert_false(t.failed);
    bool fits = t.size <= max_reply;
    if (fits) {
        assert_ok(etcd_read_reply(moe_text_cstr(&t), t.size, 200, r, rest, &err), err);
    }
    moe_text_fini(&t);
    return fits;
}

/* Returns how many keys have lost their value; all are there, once and in order. */
static size_t list_all(etcd_listing *l, const size_t *value_bytes, size_t max_reply)
{
    cluster_reply r = {.status = MOE_OK};
    bool more = true;
    size_t n_lost = 0;

    etcd_listing_init(l, "/a/", l->limit, max_reply);
    while (more) {
        etcd_rest rest;
        moe_error err;

        if (!answer_part(l, value_bytes, max_reply, &r, &rest)) {
            assert_true(etcd_listing_shrink(l));
            continue;
        }
        assert_ok(etcd_listing_take(l, &r, &rest, &more, &err), err);
        etcd_reply_fini(&r);
        etcd_rest_fini(&rest);
        assert_true(l->n_bytes <= max_reply);
    }
    etcd_listing_give(l, &r);
    assert_int_equal(r.n_kvs, MANY);
    assert_int_equal(r.revision, 9);
    for (size_t i = 0; i < MANY; i++) {
        if (i > 0) {
            assert_string_not_equal(r.kvs[i].key, r.kvs[i - 1].key);
        }
        assert_true(r.kvs[i].value_bytes == value_bytes[i] || r.kvs[i].value_bytes == 0);
        n_lost += r.kvs[i].value_bytes != value_bytes[i];
    }
    etcd_reply_fini(&r);
    etcd_listing_fini(l);
    return n_lost;
}

static void a_list_above_the_limit_comes_in_parts(void **state)
{
    size_t value_bytes[MANY];
    etcd_listing l = {.limit = 0};

    (void)state;
    for (size_t i = 0; i < MANY; i++) {
        value_bytes[i] = 2000;
    }
    assert_int_equal(list_all(&l, value_bytes, (size_t)1 << 20), 0); /* in one */
    assert_int_equal(l.limit, 0);
    assert_int_equal(list_all(&l, value_bytes, 700000), 0); /* in parts: base64 is longer than what is kept */
    for (size_t i = 0; i < MANY; i += 10) {
        value_bytes[i] = i % 20 == 0 ? 30000 : 900000; /* a stranger's: many that are too much together, and alone */
    }
    assert_int_equal(list_all(&l, value_bytes, 700000), MANY / 10);
    assert_int_equal(list_all(&l, value_bytes, 700000), MANY / 10); /* again, with what it has learnt */
    for (size_t i = 0; i < MANY; i++) {
        value_bytes[i] = 2000;
    }
    for (int i = 0; i < 20 && l.limit != 0; i++) {
        assert_int_equal(list_all(&l, value_bytes, (size_t)1 << 20), 0);
    }
    assert_int_equal(l.limit, 0); /* they are gone: all in one again */
}

static void names_alone_above_the_limit_are_refused(void **state)
{
    static size_t none[MANY];
    etcd_listing l = {.limit = 0};
    cluster_reply r;
    etcd_rest rest;
    bool more = true;
    moe_error err;
    moe_status status = MOE_OK;

    (void)state;
    etcd_listing_init(&l, "/a/", 0, 20000);
    while (more && status == MOE_OK) {
        assert_true(answer_part(&l, none, 100000, &r, &rest));
        status = etcd_listing_take(&l, &r, &rest, &more, &err);
        etcd_reply_fini(&r);
        etcd_rest_fini(&rest);
    }
    assert_int_equal(status, MOE_ERR_CORRUPT);
    assert_contains(err.text, "/a/");
    etcd_listing_fini(&l);
}

/* ------------------------------------------------------------------------------------------------ watch */
typedef struct seen {
    char text[400];
} seen;

static void on_event(void *ctx, const cluster_watch_event *e)
{
    seen *s = ctx;
    size_t n = strlen(s->text);

    (void)snprintf(s->text + n, sizeof s->text - n, "%d:%s=%s;", (int)e->kind, e->kv.key != NULL ? e->kv.key : "",
                   e->kind == CLUSTER_WATCH_LOST ? e->reason
                   : e->kv.value != NULL         ? e->kv.value
                                                 : "");
}

static void watch(const char *text, size_t piece, const char *wanted)
{
    etcd_watch_parser p;
    seen s = {""};

    etcd_watch_init(&p, 300);
    for (size_t at = 0; at < strlen(text); at += piece) {
        etcd_watch_feed(&p, text + at, MOE_MIN(piece, strlen(text) - at), on_event, &s);
    }
    etcd_watch_fini(&p);
    assert_string_equal(s.text, wanted);
}

static void events_come_whole_however_the_lines_are_cut(void **state)
{
    (void)state;
    for (size_t piece = 1; piece < 60; piece++) {
        watch("{\"result\":{\"created\":true}}\n"
              "{\"result\":{\"events\":[{\"kv\":{\"key\":\"YQ==\",\"value\":\"MQ==\"}},"
              "{\"type\":\"DELETE\",\"kv\":{\"key\":\"Yg==\"}}]}}\n",
              piece, "0:=;1:a=1;2:b=;");
    }
}

static void a_key_of_any_bytes_does_not_end_a_watch(void **state)
{
    (void)state;
    watch("{\"result\":{\"events\":[{\"kv\":{\"key\":\"YQBi\"}},{\"kv\":{\"key\":\"Yg==\"}},"
          "{\"type\":\"DELETE\",\"kv\":{\"key\":\"YQBi\"}}]}}\n",
          1000, "1:a\\x00b=;1:b=;2:a\\x00b=;");
}

static void a_refusal_comes_in_a_line_like_any_other(void **state)
{
    (void)state;
    watch(
        "{\"result\":{\"created\":true,\"canceled\":true,\"cancel_reason\":\"no\"}}\n{\"result\":{\"created\":true}}\n",
        1000, "3:=cancelled: no;");
    watch("{\"result\":{\"canceled\":true,\"compact_revision\":\"15\"}}\n", 1000, "3:=compacted up to revision 15;");
}

static void a_line_without_end_is_not_kept_for_ever(void **state)
{
    char text[401];

    (void)state;
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    watch(text, 7, "3:=a line is longer than the limit;");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(base64_comes_back_as_it_went),
        cmocka_unit_test(what_is_no_base64_is_refused),
        cmocka_unit_test(a_transaction_is_written_as_the_gateway_wants_it),
        cmocka_unit_test(a_prefix_ends_with_its_last_byte_raised),
        cmocka_unit_test(errors_say_whose_they_are),
        cmocka_unit_test(what_is_absent_means_zero),
        cmocka_unit_test(events_come_whole_however_the_lines_are_cut),
        cmocka_unit_test(a_list_above_the_limit_comes_in_parts),
        cmocka_unit_test(names_alone_above_the_limit_are_refused),
        cmocka_unit_test(a_key_of_any_bytes_costs_no_other_key),
        cmocka_unit_test(a_key_of_any_bytes_does_not_end_a_watch),
        cmocka_unit_test(a_refusal_comes_in_a_line_like_any_other),
        cmocka_unit_test(a_line_without_end_is_not_kept_for_ever),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
