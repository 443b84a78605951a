/* Members of a cluster, each on a thread of its own, over a real etcd. */
#include "tests/support/space.h"
#include "tests/integration/etcd_server.h"

#include <stdlib.h>
#include <time.h>

#include "cluster/store.h"

#define SECOND  ((uint64_t)1000000000)
#define LAYERS  3
#define EXPERTS 10

static void pause_a_little(void)
{
    const struct timespec pause = {.tv_nsec = 20000000};

    (void)nanosleep(&pause, NULL);
}

/* Waits for something that must come, on a loaded machine too. */
#define eventually(condition)                                                                                          \
    do {                                                                                                               \
        uint64_t eventually_end = moe_now_ns(moe_clock_real()) + 90 * SECOND;                                          \
        while (!(condition)) {                                                                                         \
            if (moe_now_ns(moe_clock_real()) > eventually_end) {                                                       \
                fail_msg("%s:%d: never: %s", __FILE__, __LINE__, #condition);                                          \
            }                                                                                                          \
            pause_a_little();                                                                                          \
        }                                                                                                              \
    } while (0)

typedef struct member {
    cluster *c;
    cluster_store *store;
    const char *id;
} member;

static cluster_alive nobody_else(void *ctx, cluster_role role, const char *id, const char *address,
                                 uint64_t incarnation)
{
    (void)ctx, (void)role, (void)id, (void)address, (void)incarnation;
    return CLUSTER_ALIVE_YES;
}

static void member_start(member *m, const cluster_etcd_options *etcd, cluster_role role, const char *id)
{
    moe_error err;

    *m = (member){.id = id};
    assert_ok(cluster_etcd_open(etcd, &m->store, &err), err);
    const cluster_options o = {.role = role,
                               .cluster = "test",
                               .id = id,
                               .address = "127.0.0.1:1",
                               .incarnation = moe_random_entropy() | 1,
                               .model = {.fingerprint = {7},
                                         .family = "olmoe",
                                         .numeric_class = "f32-1",
                                         .space = test_space(LAYERS, EXPERTS),
                                         .k = 2,
                                         .d_model = 16,
                                         .expert_bytes = 1 << 20},
                               .memory_bytes = (uint64_t)64 << 20,
                               .policy = {.min_nodes = 2},
                               .store = m->store,
                               .alive = nobody_else};
    assert_ok(cluster_open(&o, &m->c, &err), err);
    assert_ok(cluster_start(m->c, &err), err);
}

static void member_stop(member *m)
{
    cluster_stop(m->c, 5 * SECOND);
    cluster_close(m->c);
    cluster_store_close(m->store);
}

/* ------------------------------------------------------------------------------------------------ questions */
static uint64_t epoch_of(member *m)
{
    const cluster_state *s = cluster_state_acquire(m->c);
    uint64_t epoch = s->epoch;

    cluster_state_release(s);
    return epoch;
}

static bool is_connected(member *m)
{
    const cluster_state *s = cluster_state_acquire(m->c);
    bool connected = s->connected;

    cluster_state_release(s);
    return connected;
}

static size_t missing_of(member *m)
{
    const cluster_state *s = cluster_state_acquire(m->c);
    size_t n = cluster_state_missing(s, NULL);

    cluster_state_release(s);
    return n;
}

static size_t registered_of(member *m)
{
    const cluster_state *s = cluster_state_acquire(m->c);
    size_t n = 0;

    for (size_t i = 0; i < s->n_nodes; i++) {
        n += s->nodes[i].registered;
    }
    cluster_state_release(s);
    return n;
}

static void load_wanted(member *m)
{
    uint64_t bitmap[LAYERS];
    const cluster_state *s = cluster_state_acquire(m->c);

    (void)cluster_state_wanted(s, m->id, bitmap);
    cluster_set_ready(m->c, NULL, bitmap, s->epoch);
    cluster_state_release(s);
}

/* ------------------------------------------------------------------------------------------------ a cluster */
typedef struct trio {
    member a, b, c;
} trio;

static void trio_is_whole(trio *t)
{
    eventually(cluster_status(t->a.c, NULL) == MOE_OK && cluster_status(t->b.c, NULL) == MOE_OK &&
               cluster_status(t->c.c, NULL) == MOE_OK);
    eventually(registered_of(&t->c) == 2 && missing_of(&t->c) == 0 && is_connected(&t->c));
}

static void trio_start(trio *t, const cluster_etcd_options *etcd)
{
    member_start(&t->a, etcd, CLUSTER_NODE, "a");
    member_start(&t->c, etcd, CLUSTER_COORDINATOR, "c");
    member_start(&t->b, etcd, CLUSTER_NODE, "b");
    eventually(epoch_of(&t->a) == 1 && epoch_of(&t->b) == 1 && epoch_of(&t->c) == 1);
    load_wanted(&t->a);
    load_wanted(&t->b);
    trio_is_whole(t);
}

static void trio_stop(trio *t)
{
    member_stop(&t->a);
    member_stop(&t->b);
    member_stop(&t->c);
}

/* ------------------------------------------------------------------------------------------------ store */
typedef struct answer {
    bool has_come;
    moe_status status;
    char reason[384];
    uint64_t lease;
    size_t n_kvs;
} answer;

static void on_reply(void *ctx, const cluster_reply *reply)
{
    answer *a = ctx;

    a->has_come = true;
    a->status = reply->status;
    a->n_kvs = reply->n_kvs;
    a->lease = reply->n_kvs > 0 ? reply->kvs[0].lease : 0;
    (void)snprintf(a->reason, sizeof a->reason, "%s", reply->reason);
}

static void on_watch(void *ctx, const cluster_watch_event *event)
{
    answer *a = ctx;

    if (event->kind == CLUSTER_WATCH_LOST) {
        a->has_come = true;
        (void)snprintf(a->reason, sizeof a->reason, "%s", event->reason);
    }
}

static void wait_for(cluster_store *s, const answer *a)
{
    for (int i = 0; i < 900 && !a->has_come; i++) {
        s->ops->poll(s, SECOND / 10);
    }
    assert_true(a->has_come);
}

static answer range(cluster_store *s, const char *prefix)
{
    answer a = {0};

    s->ops->range(s, prefix, on_reply, &a);
    wait_for(s, &a);
    return a;
}

static answer range_with(const cluster_etcd_options *o)
{
    cluster_store *s = NULL;
    moe_error err;

    assert_ok(cluster_etcd_open(o, &s, &err), err);
    answer a = range(s, "/conclave/");
    cluster_store_close(s);
    return a;
}

static void revoke_lease_of(const cluster_etcd_options *o, const char *prefix)
{
    cluster_store *s = NULL;
    moe_error err;
    answer done = {0};

    assert_ok(cluster_etcd_open(o, &s, &err), err);
    answer a = range(s, prefix);
    assert_true(a.lease != 0);
    s->ops->revoke(s, a.lease, on_reply, &done);
    wait_for(s, &done);
    assert_int_equal(done.status, MOE_OK);
    cluster_store_close(s);
}

/* ------------------------------------------------------------------------------------------------ tests
 * Each has an etcd of its own, which goes with it, also when the test fails. */
static int open_server(void **state, bool tls)
{
    etcd_server *server = calloc(1, sizeof *server);

    assert_non_null(server);
    *state = server;
    etcd_server_open(server, tls);
    etcd_server_start(server);
    return 0;
}

static int open_plain(void **state)
{
    return open_server(state, false);
}

static int open_tls(void **state)
{
    return open_server(state, true);
}

static int close_server(void **state)
{
    etcd_server_close(*state);
    free(*state);
    return 0;
}

static void members_find_each_other_and_leave_nothing_behind(void **state)
{
    etcd_server *server = *state;
    trio t;

    const cluster_etcd_options o = {.endpoints = server->url};
    trio_start(&t, &o);
    trio_stop(&t);
    cluster_store *s = NULL;
    moe_error err;
    assert_ok(cluster_etcd_open(&o, &s, &err), err);
    assert_int_equal(range(s, "/conclave/test/nodes/").n_kvs, 0);
    assert_int_equal(range(s, "/conclave/test/ready/").n_kvs, 0);
    assert_int_equal(range(s, "/conclave/test/coordinators/").n_kvs, 0);
    assert_int_equal(range(s, "/conclave/test/placement/").n_kvs, LAYERS);
    cluster_store_close(s);
}

static void a_revoked_lease_is_taken_anew(void **state)
{
    etcd_server *server = *state;
    trio t;
    cluster_stats stats;

    const cluster_etcd_options o = {.endpoints = server->url};
    trio_start(&t, &o);
    revoke_lease_of(&o, "/conclave/test/nodes/"); /* the first: a */
    eventually((cluster_get_stats(t.a.c, &stats), stats.lease_losses == 1));
    trio_is_whole(&t);
    trio_stop(&t);
}

static void a_restart_of_etcd_changes_nothing(void **state)
{
    etcd_server *server = *state;
    trio t;

    const cluster_etcd_options o = {.endpoints = server->url};
    trio_start(&t, &o);
    etcd_server_kill(server);
    eventually(!is_connected(&t.a) && !is_connected(&t.c));
    assert_int_equal(missing_of(&t.c), 0);
    assert_int_equal(epoch_of(&t.c), 1);
    etcd_server_start(server);
    trio_is_whole(&t);
    assert_int_equal(epoch_of(&t.c), 1);
    trio_stop(&t);
}

static void a_wiped_etcd_is_filled_again(void **state)
{
    etcd_server *server = *state;
    trio t;

    const cluster_etcd_options o = {.endpoints = server->url};
    trio_start(&t, &o);
    etcd_server_kill(server);
    etcd_server_wipe(server);
    etcd_server_start(server);
    eventually(epoch_of(&t.c) > 1 && epoch_of(&t.a) > 1 && epoch_of(&t.b) > 1);
    trio_is_whole(&t);
    trio_stop(&t);
}

static void a_watch_of_what_was_compacted_is_lost_and_says_so(void **state)
{
    etcd_server *server = *state;
    cluster_store *s = NULL;
    moe_error err;
    answer a = {0};

    for (int i = 0; i < 3; i++) {
        (void)etcd_server_post(server, "kv/put", "{\"key\":\"YQ==\",\"value\":\"MQ==\"}", NULL);
    }
    assert_contains(etcd_server_post(server, "kv/compaction", "{\"revision\":\"4\"}", NULL), "header");
    const cluster_etcd_options o = {.endpoints = server->url};
    assert_ok(cluster_etcd_open(&o, &s, &err), err);
    s->ops->watch(s, "/conclave/", 2, on_watch, &a);
    wait_for(s, &a);
    assert_contains(a.reason, "compacted up to revision 4");
    cluster_store_close(s);
}

static void a_dead_endpoint_is_left_for_a_live_one(void **state)
{
    etcd_server *server = *state;
    trio t;
    char both[160];

    (void)snprintf(both, sizeof both, "http://127.0.0.1:%d,%s", etcd_free_port(), server->url);
    const cluster_etcd_options o = {.endpoints = both};
    trio_start(&t, &o);
    trio_stop(&t);
}

static void a_reply_over_the_limit_is_refused(void **state)
{
    etcd_server *server = *state;

    const cluster_etcd_options o = {.endpoints = server->url, .max_response_bytes = 16};
    answer a = range_with(&o);
    assert_int_equal(a.status, MOE_ERR_CORRUPT);
    assert_contains(a.reason, "larger than 16 bytes");
}

/* Whoever may write below the prefix; the names sort before and between the members'. */
static void strangers_write(const cluster_etcd_options *o, size_t n, size_t value_bytes)
{
    char *value = calloc(1, value_bytes + 1);
    cluster_store *s = NULL;
    moe_error err;

    assert_non_null(value);
    memset(value, 'x', value_bytes);
    assert_ok(cluster_etcd_open(o, &s, &err), err);
    for (size_t i = 0; i < n; i++) {
        char key[64];
        answer a = {0};
        const cluster_put put = {.key = key, .value = value, .value_bytes = value_bytes};

        (void)snprintf(key, sizeof key, "/conclave/test/%s%zu-%zu", i % 2 == 0 ? "a" : "nodes/0", value_bytes, i);
        s->ops->txn(s, &(const cluster_txn){.puts = &put, .n_puts = 1}, on_reply, &a);
        wait_for(s, &a);
        assert_int_equal(a.status, MOE_OK);
    }
    cluster_store_close(s);
    free(value);
}

/* More than one reply may have, and single values that are: what members write is read all the same. */
static void strangers_that_write_much_stop_no_list_and_no_watch(void **state)
{
    etcd_server *server = *state;
    const cluster_etcd_options o = {.endpoints = server->url, .max_response_bytes = 128 << 10};
    trio t;

    strangers_write(&o, 20, 20000);
    strangers_write(&o, 3, 300000);
    assert_int_equal(range_with(&o).status, MOE_OK);
    trio_start(&t, &o);
    strangers_write(&o, 3, 310000); /* what the watch tells is above the limit as well */
    strangers_write(&o, 20, 21000);
    trio_is_whole(&t);
    member_stop(&t.b);
    eventually(registered_of(&t.a) == 1 && registered_of(&t.c) == 1);
    member_stop(&t.a);
    member_stop(&t.c);
}

/* etcd forgets its tokens when it restarts: they are fetched again. */
static void users_log_in_and_again_after_a_restart(void **state)
{
    etcd_server *server = *state;
    trio t;

    etcd_server_enable_auth(server);
    const cluster_etcd_options o = {
        .endpoints = server->url, .user = "node", .password_file = test_folder_path(&server->folder, "node.password")};
    trio_start(&t, &o);
    etcd_server_kill(server);
    eventually(!is_connected(&t.a));
    etcd_server_start(server);
    trio_is_whole(&t);
    trio_stop(&t);
}

static void wrong_credentials_are_denied(void **state)
{
    etcd_server *server = *state;

    etcd_server_enable_auth(server);
    const char *wrong = test_folder_path(&server->folder, "root.password");
    cluster_etcd_options o = {.endpoints = server->url};
    answer a = range_with(&o);
    assert_int_equal(a.status, MOE_ERR_DENIED);
    o.user = "node";
    o.password_file = wrong;
    a = range_with(&o);
    assert_int_equal(a.status, MOE_ERR_DENIED);
    o.password_file = "/nonexistent/password";
    a = range_with(&o);
    assert_int_equal(a.status, MOE_ERR_DENIED);
    assert_contains(a.reason, "/nonexistent/password");
}

static void a_denied_watch_is_lost_and_says_so(void **state)
{
    etcd_server *server = *state;
    cluster_store *s = NULL;
    moe_error err;
    answer a = {0};

    etcd_server_enable_auth(server);
    const cluster_etcd_options o = {.endpoints = server->url};
    assert_ok(cluster_etcd_open(&o, &s, &err), err);
    s->ops->watch(s, "/conclave/", 1, on_watch, &a);
    wait_for(s, &a);
    assert_contains(a.reason, "cancelled");
    cluster_store_close(s);
}

static void mutual_tls_with_users_works(void **state)
{
    etcd_server *server = *state;
    trio t;

    etcd_server_enable_auth(server);
    const cluster_etcd_options o = {.endpoints = server->url,
                                    .user = "node",
                                    .password_file = test_folder_path(&server->folder, "node.password"),
                                    .ca = test_folder_path(&server->folder, "ca.pem"),
                                    .cert = test_folder_path(&server->folder, "client.pem"),
                                    .key = test_folder_path(&server->folder, "client.key")};
    trio_start(&t, &o);
    trio_stop(&t);
}

static void tls_is_verified_on_both_sides(void **state)
{
    etcd_server *server = *state;
    char plain[64];

    cluster_etcd_options o = {.endpoints = server->url, .ca = test_folder_path(&server->folder, "ca.pem")};
    assert_int_equal(range_with(&o).status, MOE_ERR_UNAVAILABLE); /* no client certificate */
    o.cert = test_folder_path(&server->folder, "client.pem");
    o.key = test_folder_path(&server->folder, "client.key");
    assert_int_equal(range_with(&o).status, MOE_OK);
    o.ca = o.cert; /* not the authority of the server's */
    assert_int_equal(range_with(&o).status, MOE_ERR_UNAVAILABLE);
    o.ca = test_folder_path(&server->folder, "ca.pem");
    (void)snprintf(plain, sizeof plain, "http://127.0.0.1:%d", server->client_port);
    o.endpoints = plain;
    assert_int_not_equal(range_with(&o).status, MOE_OK);
}

static void bad_options_are_named(void **state)
{
    cluster_store *s = NULL;
    moe_error err;

    (void)state;
    const char *const bad[] = {"", "127.0.0.1:2379", "http://", "http://a:1/v3", "http://user@a:1", "http://a:1,,"};
    for (size_t i = 0; i < MOE_COUNT(bad); i++) {
        const cluster_etcd_options o = {.endpoints = bad[i]};
        assert_int_equal(cluster_etcd_open(&o, &s, &err), MOE_ERR_INVALID_ARG);
    }
    const cluster_etcd_options lonely = {.endpoints = "http://a:1", .cert = "x"};
    assert_int_equal(cluster_etcd_open(&lonely, &s, &err), MOE_ERR_INVALID_ARG);
    assert_contains(err.text, "one needs the other");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(members_find_each_other_and_leave_nothing_behind, open_plain, close_server),
        cmocka_unit_test_setup_teardown(a_revoked_lease_is_taken_anew, open_plain, close_server),
        cmocka_unit_test_setup_teardown(a_restart_of_etcd_changes_nothing, open_plain, close_server),
        cmocka_unit_test_setup_teardown(a_wiped_etcd_is_filled_again, open_plain, close_server),
        cmocka_unit_test_setup_teardown(a_watch_of_what_was_compacted_is_lost_and_says_so, open_plain, close_server),
        cmocka_unit_test_setup_teardown(a_dead_endpoint_is_left_for_a_live_one, open_plain, close_server),
        cmocka_unit_test_setup_teardown(a_reply_over_the_limit_is_refused, open_plain, close_server),
        cmocka_unit_test_setup_teardown(strangers_that_write_much_stop_no_list_and_no_watch, open_plain, close_server),
        cmocka_unit_test_setup_teardown(users_log_in_and_again_after_a_restart, open_plain, close_server),
        cmocka_unit_test_setup_teardown(wrong_credentials_are_denied, open_plain, close_server),
        cmocka_unit_test_setup_teardown(a_denied_watch_is_lost_and_says_so, open_plain, close_server),
        cmocka_unit_test_setup_teardown(mutual_tls_with_users_works, open_tls, close_server),
        cmocka_unit_test_setup_teardown(tls_is_verified_on_both_sides, open_tls, close_server),
        cmocka_unit_test(bad_options_are_named),
    };

    if (!etcd_is_installed()) {
        print_message("skipped: etcd, curl and openssl are wanted\n");
        return 77;
    }
    moe_log_set_level(MOE_LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
