#include "api/http/listen.h"
#include "tests/support/support.h"

static void assert_address(const char *text, const char *host, uint16_t port, bool loopback)
{
    listen_address a;
    moe_error err;

    assert_ok(listen_parse("listen", text, &a, &err), err);
    assert_string_equal(a.host, host);
    assert_int_equal(a.port, port);
    assert_int_equal(a.loopback, loopback);
}

static void every_address_of_the_machine_is_a_wildcard(void **state)
{
    static const char *const wild[] = {":80", "0.0.0.0:80", "[::]:80"}, *const not_wild[] = {"127.0.0.1:80", "host:80"};
    listen_address a;
    moe_error err;

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(wild); i++) {
        assert_ok(listen_parse("listen", wild[i], &a, &err), err);
        assert_true(listen_is_wildcard(&a));
    }
    for (size_t i = 0; i < MOE_COUNT(not_wild); i++) {
        assert_ok(listen_parse("listen", not_wild[i], &a, &err), err);
        assert_false(listen_is_wildcard(&a));
    }
}

static void hosts_and_ports_are_taken_apart(void **state)
{
    (void)state;
    assert_address("127.0.0.1:80", "127.0.0.1", 80, true);
    assert_address("[::1]:0", "::1", 0, true);
    assert_address("localhost:65535", "localhost", 65535, true);
}

static void only_loopback_counts_as_loopback(void **state)
{
    (void)state;
    assert_address("127.9.9.9:1", "127.9.9.9", 1, true);
    assert_address("0.0.0.0:1", "0.0.0.0", 1, false);
    assert_address(":1", "", 1, false);
    assert_address("[::]:1", "::", 1, false);
    assert_address("[::ffff:127.0.0.1]:1", "::ffff:127.0.0.1", 1, false);
    assert_address("127.0.0.1.example.org:1", "127.0.0.1.example.org", 1, false);
    assert_address("localhost.example.org:1", "localhost.example.org", 1, false);
}

static void anything_else_is_refused(void **state)
{
    static const char *const wrong[] = {"",           "host",    "host:", "host:x", "host:-1",
                                        "host:65536", "host:1x", "::1:5", "host: 1"};
    listen_address a;
    moe_error err;

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(wrong); i++) {
        assert_int_equal(listen_parse("listen", wrong[i], &a, &err), MOE_ERR_INVALID_ARG);
        assert_contains(err.text, "listen");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hosts_and_ports_are_taken_apart),
        cmocka_unit_test(every_address_of_the_machine_is_a_wildcard),
        cmocka_unit_test(only_loopback_counts_as_loopback),
        cmocka_unit_test(anything_else_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
