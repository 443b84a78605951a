/* Connects to names, with a name server of our own that is silent, fails, has several addresses and changes its mind. */
#include "tests/unit/test_transport_net_support.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

/* What the name server does; shared with the resolver's threads. Addresses are 127.0.0.x. */
static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool silent;
    int failed;
    moe_ips ips;
    size_t n_asked, n_answered;
} names = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static int look_up(void *ctx, const char *host, moe_ips *out)
{
    (void)ctx;
    (void)host;
    pthread_mutex_lock(&names.lock);
    names.n_asked++;
    while (names.silent) {
        pthread_cond_wait(&names.changed, &names.lock);
    }
    *out = names.ips;
    int failed = names.failed;
    names.n_answered++;
    pthread_mutex_unlock(&names.lock);
    return failed;
}

/* The addresses end with 0. */
static void answer_with(int failed, const unsigned char *last)
{
    pthread_mutex_lock(&names.lock);
    names.failed = failed;
    for (names.ips.n = 0; last[names.ips.n] != 0; names.ips.n++) {
        names.ips.at[names.ips.n] = (moe_ip){.n_bytes = 4, .bytes = {127, 0, 0, last[names.ips.n]}};
    }
    pthread_mutex_unlock(&names.lock);
}
#define ANSWER(...) answer_with(0, (const unsigned char[]){__VA_ARGS__, 0})

static void be_silent(bool silent)
{
    pthread_mutex_lock(&names.lock);
    names.silent = silent;
    pthread_cond_broadcast(&names.changed);
    pthread_mutex_unlock(&names.lock);
}

static size_t count(const size_t *what)
{
    pthread_mutex_lock(&names.lock);
    size_t n = *what;
    pthread_mutex_unlock(&names.lock);
    return n;
}

static char named[64]; /* the server's address by name: it listens at 127.0.0.2 alone */
static int port;

static int setup_names(void **state)
{
    const transport_net_options o = {.lane = lane, .max_message = MAX_MESSAGE, .max_peers = 8, .look_up = look_up};
    moe_error err;

    (void)state;
    payload = malloc(MAX_MESSAGE * 2);
    assert_non_null(payload);
    be_silent(false);
    ANSWER(2);
    names.n_asked = names.n_answered = 0;
    side_open(&server, "127.0.0.2:0", MAX_MESSAGE, 4);
    client = (side){.s = {.in_order = true, .intact = true}};
    assert_ok(transport_net_open(&o, &client.t, &err), err);
    client.t->handler = (transport_handler){&client.s, on_message, on_peer};
    port = atoi(strrchr(transport_net_address(server.t), ':') + 1);
    (void)snprintf(named, sizeof named, "node-7.nodes:%d", port);
    return 0;
}

/* No thread is left in a look-up: the next test's counts are its own. */
static int teardown_names(void **state)
{
    be_silent(false);
    teardown(state);
    client.t = server.t = NULL;
    UNTIL(count(&names.n_answered) == count(&names.n_asked));
    return 0;
}

static transport_peer begin(const char *address)
{
    transport_peer peer = 0;

    assert_int_equal(client.t->ops->connect(client.t, address, &peer), MOE_OK);
    return peer;
}

static void expect_down(const char *address, const char *why)
{
    int n = client.s.n_down;
    transport_peer peer = begin(address);

    UNTIL(client.s.n_down > n);
    assert_true(client.s.last_down == peer);
    assert_contains(client.s.why, why);
    assert_contains(client.s.why, "node-7.nodes");
}

/* A socket that listens at an address of ours and is no member; returns who call only when asked. */
static int listen_at(unsigned char last, int backlog, struct sockaddr_in *at_out)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

    *at_out = (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK - 1 + last)};
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (const struct sockaddr *)at_out, sizeof *at_out), 0);
    assert_int_equal(listen(fd, backlog), 0);
    return fd;
}

static void a_name_is_connected_to(void **state)
{
    (void)state;
    transport_peer peer = connect_to(named);

    fill(payload, 100, 1);
    assert_int_equal(send_from(&client, peer, &msgs[0], payload, 100), MOE_OK);
    UNTIL(server.s.n_messages == 1);
}

static void a_number_is_not_looked_up(void **state)
{
    (void)state;
    be_silent(true);
    connect_both();
    assert_int_equal(count(&names.n_asked), 0);
}

static void frames_travel_while_a_look_up_hangs(void **state)
{
    (void)state;
    transport_peer healthy = connect_both();

    be_silent(true);
    (void)begin(named);
    UNTIL(count(&names.n_asked) == 1);
    for (uint32_t i = 0; i < 50; i++) {
        fill(payload, 1000, i + 1);
        assert_int_equal(send_from(&client, healthy, &msgs[0], payload, 1000), MOE_OK);
        UNTIL(server.s.n_messages == i + 1);
        assert_int_equal(send_from(&server, server.s.last_up, &msgs[1], payload, 1000), MOE_OK);
        UNTIL(client.s.n_messages == i + 1);
    }
    assert_int_equal(count(&names.n_answered), 0);
    assert_true(client.s.intact && client.s.in_order && server.s.intact && server.s.in_order);
}

static void a_silent_name_server_is_said(void **state)
{
    (void)state;
    be_silent(true);
    expect_down(named, "the name server does not answer");
    assert_int_equal(count(&names.n_answered), 0);
}

static void the_address_that_worked_is_used_while_the_server_is_silent(void **state)
{
    (void)state;
    client.t->ops->peer_close(client.t, connect_to(named));
    be_silent(true);
    connect_to(named);
    assert_int_equal(count(&names.n_answered), 1);
}

static void the_address_that_worked_is_used_while_the_server_fails(void **state)
{
    (void)state;
    client.t->ops->peer_close(client.t, connect_to(named));
    answer_with(EAI_AGAIN, (const unsigned char[]){0});
    connect_to(named);
}

static void a_name_that_is_none_is_down_and_says_why(void **state)
{
    (void)state;
    client.t->ops->peer_close(client.t, connect_to(named));
    answer_with(EAI_NONAME, (const unsigned char[]){0});
    expect_down(named, gai_strerror(EAI_NONAME));
    expect_down(named, gai_strerror(EAI_NONAME));
}

static void a_changed_answer_is_followed(void **state)
{
    int n = client.s.n_down;

    (void)state;
    ANSWER(3);
    (void)begin(named);
    UNTIL(client.s.n_down > n);
    ANSWER(2);
    connect_to(named);
}

static void all_addresses_are_called_in_turn(void **state)
{
    (void)state;
    ANSWER(3, 4, 5, 2);
    connect_to(named);
    assert_int_equal(client.s.n_down, 0);
}

/* Its queue is full: calls are neither taken nor refused. */
static void an_address_that_is_silent_is_passed_over(void **state)
{
    struct sockaddr_in at;
    int fds[4] = {listen_at(4, 0, &at)};

    (void)state;
    for (int i = 1; i < 4; i++) {
        fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        assert_true(fds[i] >= 0);
        (void)!connect(fds[i], (const struct sockaddr *)&at, sizeof at);
    }
    ANSWER(4, 2);
    connect_to(named);
    assert_int_equal(client.s.n_down, 0);
    for (int i = 0; i < 4; i++) {
        (void)close(fds[i]);
    }
}

static void the_address_that_worked_is_called_first(void **state)
{
    struct sockaddr_in at;

    (void)state;
    ANSWER(4, 2);
    client.t->ops->peer_close(client.t, connect_to(named)); /* nobody is at the first one */
    int fd = listen_at(4, 8, &at);
    connect_to(named);
    assert_int_equal(accept(fd, NULL, NULL), -1);
    (void)close(fd);
}

/* Who gives up at the first address gets to the second the next time. */
static void the_next_connect_goes_on_with_the_next_address(void **state)
{
    struct sockaddr_in at;
    int fd = listen_at(4, 8, &at), called = -1;

    (void)state;
    ANSWER(4, 2);
    transport_peer peer = begin(named);
    UNTIL((called = accept(fd, NULL, NULL)) >= 0);
    client.t->ops->peer_close(client.t, peer);
    connect_to(named);
    assert_int_equal(accept(fd, NULL, NULL), -1);
    (void)close(called);
    (void)close(fd);
}

static void a_close_does_not_wait_for_a_look_up(void **state)
{
    (void)state;
    be_silent(true);
    (void)begin(named);
    UNTIL(count(&names.n_asked) == 1);
    transport_close(client.t);
    client.t = NULL;
    assert_int_equal(count(&names.n_answered), 0);
}

/* Its answer, when it comes, is nobody's. */
static void a_peer_can_be_closed_while_it_is_looked_up(void **state)
{
    (void)state;
    be_silent(true);
    client.t->ops->peer_close(client.t, begin(named));
    UNTIL(count(&names.n_asked) == 1);
    be_silent(false);
    UNTIL(count(&names.n_answered) == 1);
    connect_to(named);
    assert_int_equal(client.s.n_up, 1);
    assert_int_equal(client.s.n_down, 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup_names, teardown_names)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        TEST(a_name_is_connected_to),
        TEST(a_number_is_not_looked_up),
        TEST(frames_travel_while_a_look_up_hangs),
        TEST(a_silent_name_server_is_said),
        TEST(the_address_that_worked_is_used_while_the_server_is_silent),
        TEST(the_address_that_worked_is_used_while_the_server_fails),
        TEST(a_name_that_is_none_is_down_and_says_why),
        TEST(a_changed_answer_is_followed),
        TEST(all_addresses_are_called_in_turn),
        TEST(an_address_that_is_silent_is_passed_over),
        TEST(the_address_that_worked_is_called_first),
        TEST(the_next_connect_goes_on_with_the_next_address),
        TEST(a_close_does_not_wait_for_a_look_up),
        TEST(a_peer_can_be_closed_while_it_is_looked_up),
    };

    moe_log_set_level(MOE_LOG_ERROR);
    choose_lane(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
