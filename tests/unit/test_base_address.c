#include "tests/support/support.h"

static void assert_address(const char *text, const char *host, uint16_t port, bool loopback)
{
    moe_address a;
    moe_error err;

    assert_ok(moe_address_parse("--listen", text, -1, &a, &err), err);
    assert_string_equal(a.host, host);
    assert_int_equal(a.port, port);
    assert_int_equal(moe_address_is_loopback(&a), loopback);
}

static void every_address_of_the_machine_is_a_wildcard(void **state)
{
    static const char *const wild[] = {":80", "0.0.0.0:80", "[::]:80", "[0::0]:80"}, *const not_wild[] = {
                                                                                         "127.0.0.1:80", "host:80"};
    moe_address a;
    moe_error err;

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(wild); i++) {
        assert_ok(moe_address_parse("--listen", wild[i], -1, &a, &err), err);
        assert_true(moe_address_is_wildcard(&a));
    }
    for (size_t i = 0; i < MOE_COUNT(not_wild); i++) {
        assert_ok(moe_address_parse("--listen", not_wild[i], -1, &a, &err), err);
        assert_false(moe_address_is_wildcard(&a));
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
    assert_address("mylocalhost:1", "mylocalhost", 1, false);
    assert_address("1270.0.0.1:1", "1270.0.0.1", 1, false);
}

static void names_of_loopback_count_too(void **state)
{
    static const char *const names[] = {"localhost",     "LOCALHOST",  "localhost.", "localhost.localdomain",
                                        "ip6-localhost", "a.localhost"};
    char text[64];

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(names); i++) {
        (void)snprintf(text, sizeof text, "%s:1", names[i]);
        assert_address(text, names[i], 1, true);
    }
    assert_address("[0:0:0:0:0:0:0:1]:1", "0:0:0:0:0:0:0:1", 1, true);
}

static void the_port_may_be_left_out_where_there_is_a_default(void **state)
{
    static const struct {
        const char *text, *host;
        uint16_t port;
    } all[] = {{"host", "host", 7},   {"host:8", "host", 8}, {"10.0.0.1", "10.0.0.1", 7}, {"[::1]", "::1", 7},
               {"[::1]:8", "::1", 8}, {"::1", "::1", 7},     {"fe80::1", "fe80::1", 7}};
    moe_address a;
    moe_error err;

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(all); i++) {
        assert_ok(moe_address_parse("--server", all[i].text, 7, &a, &err), err);
        assert_string_equal(a.host, all[i].host);
        assert_int_equal(a.port, all[i].port);
    }
    assert_int_equal(moe_address_parse("--server", "", 7, &a, &err), MOE_ERR_INVALID_ARG);
    assert_int_equal(moe_address_parse("--server", "host:", 7, &a, &err), MOE_ERR_INVALID_ARG);
    assert_int_equal(moe_address_parse("--server", "::1:50051", 7, &a, &err), MOE_ERR_INVALID_ARG);
}

static void what_is_printed_is_read_back(void **state)
{
    static const char *const all[] = {"host:1", "[::1]:65535", "127.0.0.1:0", ":5"};
    char text[MOE_ADDRESS_BYTES];
    moe_address a;
    moe_error err;

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(all); i++) {
        assert_ok(moe_address_parse("--listen", all[i], -1, &a, &err), err);
        moe_address_print(&a, text);
        assert_string_equal(text, all[i]);
    }
}

static void a_refusal_says_what_is_wrong(void **state)
{
    static const struct {
        const char *text, *reason;
    } all[] = {
        {"host", "--listen \"host\": no port; expected HOST:PORT"},
        {"host:65536", "--listen \"host:65536\": the port must be a number of at most 65535"},
        {"http://host:1", "--listen \"http://host:1\": a URL; expected HOST:PORT"},
        {"::1:5", "--listen \"::1:5\": an IPv6 address stands in brackets: [IPV6]:PORT"},
        {"[::1:5", "--listen \"[::1:5\": expected [IPV6]:PORT"},
        {"a host:1", "--listen \"a host:1\": not the name or number of a host"},
    };
    moe_address a;
    moe_error err;

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(all); i++) {
        assert_int_equal(moe_address_parse("--listen", all[i].text, -1, &a, &err), MOE_ERR_INVALID_ARG);
        assert_string_equal(err.text, all[i].reason);
    }
}

static void anything_else_is_refused(void **state)
{
    static const char *const wrong[] = {"",           "host",     "host:", "host:x",  "host:-1",
                                        "host:65536", "host:1x",  "::1:5", "host: 1", "[::1]5",
                                        "[]:5",       "[host]:5", "a/b:5", "a@b:5",   "host:0000080"};
    moe_address a;
    moe_error err;

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(wrong); i++) {
        assert_int_equal(moe_address_parse("--listen", wrong[i], -1, &a, &err), MOE_ERR_INVALID_ARG);
        assert_contains(err.text, "listen");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hosts_and_ports_are_taken_apart),
        cmocka_unit_test(every_address_of_the_machine_is_a_wildcard),
        cmocka_unit_test(only_loopback_counts_as_loopback),
        cmocka_unit_test(names_of_loopback_count_too),
        cmocka_unit_test(the_port_may_be_left_out_where_there_is_a_default),
        cmocka_unit_test(what_is_printed_is_read_back),
        cmocka_unit_test(a_refusal_says_what_is_wrong),
        cmocka_unit_test(anything_else_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
