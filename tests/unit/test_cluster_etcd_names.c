/* etcd behind a name that a silent name server is asked for: getaddrinfo, which libcurl calls on a thread of its own, is
 * ours and hangs. */
#include "tests/support/support.h"

#include <netdb.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

#include "cluster/cluster.h"
#include "cluster/store.h"

/* So that a store which waits for it fails its test instead of hanging. */
#define GIVES_UP_NS UINT64_C(10000000000)

static atomic_bool let_go;
static atomic_uint n_asked, n_ended;

static void nap(void)
{
    const struct timespec ms = {0, 1000000};

    (void)nanosleep(&ms, NULL);
}

/* In place of libc's, also for libcurl. */
__attribute__((visibility("default"))) int getaddrinfo(const char *node, const char *service,
                                                       const struct addrinfo *hints, struct addrinfo **found)
{
    uint64_t end = moe_now_ns(moe_clock_real()) + GIVES_UP_NS;

    (void)node, (void)service, (void)hints, (void)found;
    atomic_fetch_add(&n_asked, 1);
    while (!atomic_load(&let_go) && moe_now_ns(moe_clock_real()) < end) {
        nap();
    }
    atomic_fetch_add(&n_ended, 1);
    return EAI_AGAIN;
}

static void on_reply(void *ctx, const cluster_reply *reply)
{
    *(moe_status *)ctx = reply->status;
}

static cluster_store *open_store(void)
{
    const cluster_etcd_options o = {.endpoints = "http://etcd.test:2379", .timeout_ns = 50000000};
    cluster_store *store;
    moe_error err;

    assert_ok(cluster_etcd_open(&o, &store, &err), err);
    return store;
}

static int teardown(void **state)
{
    (void)state;
    atomic_store(&let_go, true);
    while (atomic_load(&n_ended) < atomic_load(&n_asked)) {
        nap();
    }
    atomic_store(&let_go, false);
    return 0;
}

static void a_request_ends_though_the_name_server_is_silent(void **state)
{
    cluster_store *store = open_store();
    unsigned ended = atomic_load(&n_ended);
    moe_status status = MOE_OK;

    (void)state;
    store->ops->range(store, "/x/", on_reply, &status);
    while (status == MOE_OK) {
        store->ops->poll(store, 10000000);
    }
    assert_true(atomic_load(&n_asked) > ended);
    assert_int_equal(atomic_load(&n_ended), ended); /* the look-up hangs still */
    cluster_store_close(store);
    assert_int_equal(atomic_load(&n_ended), ended);
}

static void a_store_closes_though_the_name_server_is_silent(void **state)
{
    cluster_store *store = open_store();
    unsigned asked = atomic_load(&n_asked), ended = atomic_load(&n_ended);
    moe_status status = MOE_OK;

    (void)state;
    store->ops->range(store, "/x/", on_reply, &status);
    store->ops->poll(store, 0);
    while (atomic_load(&n_asked) == asked) {
        nap();
    }
    cluster_store_close(store);
    assert_int_equal(atomic_load(&n_ended), ended);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(a_request_ends_though_the_name_server_is_silent, teardown),
        cmocka_unit_test_teardown(a_store_closes_though_the_name_server_is_silent, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
