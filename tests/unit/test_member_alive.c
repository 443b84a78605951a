/* Whether a coordinator under our id still answers, asked at names that have several addresses, or none now. */
#include "member/member.h"
#include "tests/support/support.h"

#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

static moe_resolver *names;
static moe_waiter *silence; /* never closed: a look-up sleeps in it */
static char address[64];
static int listener;

/* "two": nobody at the first address; "silent": no answer; "none": nobody at all. */
static int look_up(void *ctx, const char *host, moe_ips *out)
{
    (void)ctx;
    if (strcmp(host, "silent") == 0) {
        moe_waiter_wait(silence, NULL, NULL, UINT64_MAX);
        return EAI_AGAIN;
    }
    *out = (moe_ips){.n = strcmp(host, "two") == 0 ? 2 : 1,
                     .at = {{.n_bytes = 4, .bytes = {127, 0, 0, 9}}, {.n_bytes = 4, .bytes = {127, 0, 0, 1}}}};
    return 0;
}

static int setup(void **state)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof at;

    listener = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(listener >= 0);
    assert_int_equal(bind(listener, (const struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(listen(listener, 8), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&at, &bytes), 0);
    *state = NULL;
    (void)snprintf(address, sizeof address, "two:%d", ntohs(at.sin_port));
    assert_int_equal(moe_waiter_open(&silence), MOE_OK);
    assert_int_equal(moe_resolver_open(&(moe_resolver_options){.look_up = look_up}, &names), MOE_OK);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    moe_resolver_close(names);
    (void)close(listener);
    return 0;
}

/* The same port of another host. */
static const char *at_host(const char *host)
{
    static char text[64];

    (void)snprintf(text, sizeof text, "%s%s", host, strchr(address, ':'));
    return text;
}

static void who_listens_at_any_of_its_addresses_is_alive(void **state)
{
    (void)state;
    assert_int_equal(member_alive(names, address, "us:1"), CLUSTER_ALIVE_YES);
    assert_int_equal(member_alive(names, at_host("127.0.0.1"), "us:1"), CLUSTER_ALIVE_YES);
}

static void who_is_refused_everywhere_is_not(void **state)
{
    (void)state;
    assert_int_equal(member_alive(names, at_host("none"), "us:1"), CLUSTER_ALIVE_NO);
    assert_int_equal(member_alive(names, at_host("127.0.0.9"), "us:1"), CLUSTER_ALIVE_NO);
    assert_int_equal(member_alive(names, "no address", "us:1"), CLUSTER_ALIVE_NO);
}

static void at_our_own_address_it_is_us(void **state)
{
    (void)state;
    assert_int_equal(member_alive(names, address, address), CLUSTER_ALIVE_NO);
}

static void while_the_name_server_is_silent_nobody_knows(void **state)
{
    (void)state;
    assert_int_equal(member_alive(names, at_host("silent"), "us:1"), CLUSTER_ALIVE_UNKNOWN);
    moe_waiter_wake(silence);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_listens_at_any_of_its_addresses_is_alive),
        cmocka_unit_test(who_is_refused_everywhere_is_not),
        cmocka_unit_test(at_our_own_address_it_is_us),
        cmocka_unit_test(while_the_name_server_is_silent_nobody_knows),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
