/* The resolver, with a name server that is silent, fails, changes its mind and has several addresses. */
#include "tests/support/support.h"

#include <netdb.h>
#include <pthread.h>
#include <sys/socket.h>

#define PATIENCE_NS UINT64_C(20000000000)

/* What the name server does. Shared with the resolver's threads, which may outlive a resolver. */
static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    const char *silent; /* it does not answer about this name, "*": about any; NULL: it answers */
    int failed;         /* what it answers with, else: */
    moe_ips ips;
    size_t n_asked, n_answered; /* look-ups begun and ended */
} server = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static moe_resolver *resolver;
static moe_waiter *waiter;
static size_t n_told; /* calls of `answered`; under the server's lock */
static moe_error err;

static bool is_silent_about(const char *host)
{
    return server.silent != NULL && (strcmp(server.silent, "*") == 0 || strcmp(server.silent, host) == 0);
}

static int look_up(void *ctx, const char *host, moe_ips *out)
{
    (void)ctx;
    pthread_mutex_lock(&server.lock);
    server.n_asked++;
    while (is_silent_about(host)) {
        pthread_cond_wait(&server.changed, &server.lock);
    }
    *out = server.ips;
    int failed = server.failed;
    server.n_answered++;
    pthread_cond_broadcast(&server.changed);
    pthread_mutex_unlock(&server.lock);
    return failed;
}

static void on_answered(void *ctx)
{
    (void)ctx;
    pthread_mutex_lock(&server.lock);
    n_told++;
    pthread_mutex_unlock(&server.lock);
    moe_waiter_wake(waiter);
}

static moe_ip ip(unsigned char last)
{
    return (moe_ip){.n_bytes = 4, .bytes = {10, 0, 0, last}};
}

static void serve(const char *silent, int failed, unsigned char first, unsigned char second)
{
    pthread_mutex_lock(&server.lock);
    server.silent = silent;
    server.failed = failed;
    server.ips = (moe_ips){.n = second == 0 ? 1 : 2, .at = {ip(first), ip(second)}};
    pthread_cond_broadcast(&server.changed);
    pthread_mutex_unlock(&server.lock);
}

static size_t count(const size_t *what)
{
    pthread_mutex_lock(&server.lock);
    size_t n = *what;
    pthread_mutex_unlock(&server.lock);
    return n;
}

#define UNTIL(condition)                                                                                               \
    do {                                                                                                               \
        uint64_t until_end = moe_now_ns(moe_clock_real()) + PATIENCE_NS;                                               \
        while (!(condition)) {                                                                                         \
            moe_waiter_wait(waiter, NULL, NULL, 1000000);                                                              \
            if (moe_now_ns(moe_clock_real()) > until_end) {                                                            \
                fail_msg("never: %s", #condition);                                                                     \
            }                                                                                                          \
        }                                                                                                              \
    } while (0)

static int setup(void **state)
{
    const moe_resolver_options o = {.look_up = look_up, .answered = on_answered};

    (void)state;
    serve(NULL, 0, 1, 0);
    server.n_asked = server.n_answered = n_told = 0;
    assert_int_equal(moe_waiter_open(&waiter), MOE_OK);
    assert_int_equal(moe_resolver_open(&o, &resolver), MOE_OK);
    return 0;
}

/* No thread is left in a look-up: the next test's counts are its own. */
static int teardown(void **state)
{
    (void)state;
    moe_resolver_close(resolver);
    serve(NULL, 0, 1, 0);
    UNTIL(count(&server.n_answered) == count(&server.n_asked));
    moe_waiter_close(waiter);
    return 0;
}

static uint64_t ask(const char *host)
{
    uint64_t question = 0;

    assert_ok(moe_resolver_ask(resolver, host, &question, &err), err);
    return question;
}

static moe_status get(const char *host, uint64_t question, bool kept, moe_ips *out)
{
    return moe_resolver_get(resolver, host, question, kept, out, &err);
}

/* The last byte of the first address that name has, as answered now; 0: none. */
static unsigned first_of(const char *host)
{
    uint64_t question = ask(host);
    moe_ips ips = {0};
    moe_status status;

    UNTIL((status = get(host, question, false, &ips)) != MOE_ERR_BUSY);
    return status == MOE_OK ? ips.at[0].bytes[3] : 0;
}

static void numbers_are_no_names(void **state)
{
    struct sockaddr_storage at;
    char text[MOE_HOST_BYTES];
    moe_ip a;

    (void)state;
    assert_true(moe_ip_parse("10.0.0.7", &a));
    assert_int_equal(a.n_bytes, 4);
    assert_int_equal(a.bytes[3], 7);
    assert_true(moe_ip_sockaddr(&a, 80, &at) > 0 && at.ss_family == AF_INET);
    moe_ip_print(&a, text);
    assert_string_equal(text, "10.0.0.7");
    assert_true(moe_ip_parse("::1", &a));
    moe_ip_print(&a, text);
    assert_string_equal(text, "::1");
    assert_int_equal(a.n_bytes, 16);
    assert_true(moe_ip_sockaddr(&a, 80, &at) > 0 && at.ss_family == AF_INET6);
    assert_false(moe_ip_parse("localhost", &a));
    assert_false(moe_ip_parse("node-7.nodes", &a));
}

static void an_answer_is_told_and_there(void **state)
{
    uint64_t question = ask("a");
    moe_ips ips;

    (void)state;
    UNTIL(count(&n_told) == 1);
    assert_ok(get("a", question, false, &ips), err);
    assert_int_equal(ips.n, 1);
    assert_int_equal(ips.at[0].bytes[3], 1);
}

static void a_silent_name_server_keeps_nobody(void **state)
{
    moe_ips ips;

    (void)state;
    serve("*", 0, 1, 0);
    uint64_t question = ask("a");
    UNTIL(count(&server.n_asked) == 1);
    assert_int_equal(get("a", question, false, &ips), MOE_ERR_BUSY);
    assert_int_equal(get("a", question, true, &ips), MOE_ERR_BUSY);
    assert_contains(err.text, "\"a\"");
    serve(NULL, 0, 1, 0);
    UNTIL(get("a", question, false, &ips) == MOE_OK);
}

static void one_silent_name_does_not_hold_up_the_others(void **state)
{
    (void)state;
    serve("a", 0, 1, 0);
    (void)ask("a");
    assert_int_equal(first_of("b"), 1);
    assert_int_equal(first_of("c"), 1);
}

static void a_name_is_looked_up_once_at_a_time(void **state)
{
    (void)state;
    serve("*", 0, 1, 0);
    uint64_t question = ask("a");
    for (int i = 0; i < 5; i++) {
        assert_int_equal(ask("a"), question);
    }
    serve(NULL, 0, 1, 0);
    UNTIL(count(&n_told) == 1);
    assert_int_equal(count(&server.n_asked), 1);
    assert_int_not_equal(ask("a"), question);
}

static void the_last_answer_is_kept_while_the_server_is_silent(void **state)
{
    moe_ips ips;

    (void)state;
    assert_int_equal(first_of("a"), 1);
    serve("*", 0, 2, 0);
    uint64_t question = ask("a");
    assert_int_equal(get("a", question, false, &ips), MOE_ERR_BUSY);
    assert_ok(get("a", question, true, &ips), err);
    assert_int_equal(ips.at[0].bytes[3], 1);
    serve(NULL, 0, 2, 0);
    UNTIL(get("a", question, false, &ips) == MOE_OK);
    assert_int_equal(ips.at[0].bytes[3], 2);
}

static void the_last_answer_is_kept_while_the_server_fails(void **state)
{
    (void)state;
    assert_int_equal(first_of("a"), 1);
    serve(NULL, EAI_AGAIN, 2, 0);
    assert_int_equal(first_of("a"), 1);
}

static void that_there_is_no_such_name_is_an_answer(void **state)
{
    moe_ips ips;

    (void)state;
    assert_int_equal(first_of("a"), 1);
    serve(NULL, EAI_NONAME, 1, 0);
    assert_int_equal(first_of("a"), 0);
    assert_contains(err.text, gai_strerror(EAI_NONAME));
    assert_contains(err.text, "\"a\"");
    serve("*", 0, 1, 0);
    assert_int_equal(get("a", ask("a"), true, &ips), MOE_ERR_BUSY); /* nothing is kept */
}

static void a_failure_says_why(void **state)
{
    (void)state;
    serve(NULL, EAI_AGAIN, 1, 0);
    assert_int_equal(first_of("a"), 0);
    assert_contains(err.text, gai_strerror(EAI_AGAIN));
}

static void answers_begin_with_the_address_that_is_preferred(void **state)
{
    moe_ip second = ip(2);

    (void)state;
    serve(NULL, 0, 1, 2);
    assert_int_equal(first_of("a"), 1);
    moe_resolver_prefer(resolver, "a", &second);
    assert_int_equal(first_of("a"), 2);
    serve(NULL, 0, 3, 4); /* it has moved */
    assert_int_equal(first_of("a"), 3);
}

static void names_beyond_the_bound_wait_their_turn(void **state)
{
    char host[16];
    uint64_t question;

    (void)state;
    serve("*", 0, 1, 0);
    for (int i = 0; i < MOE_RESOLVER_NAMES; i++) {
        (void)snprintf(host, sizeof host, "n%d", i);
        (void)ask(host);
    }
    assert_int_equal(moe_resolver_ask(resolver, "more", &question, &err), MOE_ERR_BUSY);
    assert_true(count(&server.n_asked) <= MOE_RESOLVER_THREADS);
    serve(NULL, 0, 1, 0);
    UNTIL(count(&n_told) == MOE_RESOLVER_NAMES);
    assert_int_equal(first_of("more"), 1);
}

static void the_name_asked_for_longest_ago_makes_room(void **state)
{
    char host[16];
    moe_ips ips;

    (void)state;
    uint64_t first = ask("first"), second = ask("second");
    UNTIL(count(&n_told) == 2);
    for (int i = 0; i < MOE_RESOLVER_NAMES - 1; i++) {
        (void)snprintf(host, sizeof host, "n%d", i);
        assert_int_equal(first_of(host), 1);
    }
    assert_int_equal(get("first", first, true, &ips), MOE_ERR_UNAVAILABLE);
    assert_ok(get("second", second, true, &ips), err);
}

static void what_is_no_name_is_refused(void **state)
{
    static char long_name[MOE_HOST_BYTES + 1];
    uint64_t question;

    (void)state;
    memset(long_name, 'a', MOE_HOST_BYTES);
    assert_int_equal(moe_resolver_ask(resolver, long_name, &question, &err), MOE_ERR_INVALID_ARG);
    assert_int_equal(moe_resolver_ask(resolver, "", &question, &err), MOE_ERR_INVALID_ARG);
}

static void a_close_does_not_wait_for_a_silent_name_server(void **state)
{
    const moe_resolver_options o = {.look_up = look_up, .answered = on_answered};

    (void)state;
    serve("*", 0, 1, 0);
    (void)ask("a");
    UNTIL(count(&server.n_asked) == 1);
    moe_resolver_close(resolver);
    assert_int_equal(count(&server.n_answered), 0); /* it hangs still */
    serve(NULL, 0, 1, 0);
    UNTIL(count(&server.n_answered) == 1);
    assert_int_equal(moe_resolver_open(&o, &resolver), MOE_OK);
    assert_int_equal(first_of("a"), 1);
    assert_int_equal(count(&n_told), 1); /* the one that was closed has told nothing */
}

static void a_wait_ends_without_an_answer(void **state)
{
    moe_ips ips;

    (void)state;
    serve("*", 0, 1, 0);
    assert_int_equal(moe_resolver_wait(resolver, "a", 1000000, &ips, &err), MOE_ERR_TIMEOUT);
    serve(NULL, 0, 1, 0);
    assert_ok(moe_resolver_wait(resolver, "a", PATIENCE_NS, &ips, &err), err);
    serve("*", 0, 2, 0);
    assert_ok(moe_resolver_wait(resolver, "a", 1000000, &ips, &err), err);
    assert_int_equal(ips.at[0].bytes[3], 1);
}

static void the_system_knows_this_machine(void **state)
{
    const moe_resolver_options o = {.look_up = NULL};
    moe_resolver *system;
    moe_ips ips;

    (void)state;
    assert_int_equal(moe_resolver_open(&o, &system), MOE_OK);
    assert_ok(moe_resolver_wait(system, "localhost", PATIENCE_NS, &ips, &err), err);
    assert_true(ips.n >= 1);
    moe_resolver_close(system);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(numbers_are_no_names),
        TEST(an_answer_is_told_and_there),
        TEST(a_silent_name_server_keeps_nobody),
        TEST(one_silent_name_does_not_hold_up_the_others),
        TEST(a_name_is_looked_up_once_at_a_time),
        TEST(the_last_answer_is_kept_while_the_server_is_silent),
        TEST(the_last_answer_is_kept_while_the_server_fails),
        TEST(that_there_is_no_such_name_is_an_answer),
        TEST(a_failure_says_why),
        TEST(answers_begin_with_the_address_that_is_preferred),
        TEST(names_beyond_the_bound_wait_their_turn),
        TEST(the_name_asked_for_longest_ago_makes_room),
        TEST(what_is_no_name_is_refused),
        TEST(a_close_does_not_wait_for_a_silent_name_server),
        TEST(a_wait_ends_without_an_answer),
        TEST(the_system_knows_this_machine),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
