/* The peers of an endpoint on a network: connections in one thread, and one to a child process where somebody has to die. */
#include "tests/unit/test_transport_net_support.h"

#include <netinet/in.h>
#include <arpa/inet.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* ------------------------------------------------------------------------------------------------ one thread */
static void connections_are_told_apart(void **state)
{
    transport_peer a = connect_both(), at_a = server.s.last_up;
    transport_peer b = connect_both(), at_b = server.s.last_up;

    (void)state;
    assert_true(a != b && at_a != at_b);
    fill(payload, 10, 1);
    assert_int_equal(send_from(&client, b, &msgs[0], payload, 10), MOE_OK);
    UNTIL(server.s.n_messages == 1);
    assert_true(server.s.from == at_b);
    assert_int_equal(send_from(&client, a, &msgs[0], payload, 10), MOE_OK);
    UNTIL(server.s.n_messages == 2);
    assert_true(server.s.from == at_a);
}

static void a_closed_connection_is_down_at_the_other_end_only(void **state)
{
    transport_peer peer = connect_both();

    (void)state;
    client.t->ops->peer_close(client.t, peer);
    UNTIL(server.s.n_down == 1);
    assert_true(server.s.last_down == server.s.last_up);
    assert_int_equal(client.s.n_down, 0);
    assert_int_equal(send_from(&client, peer, &msgs[0], payload, 10), MOE_ERR_UNAVAILABLE);
    assert_int_equal(send_from(&server, server.s.last_up, &msgs[0], payload, 10), MOE_ERR_UNAVAILABLE);
}

static void the_accepting_end_can_close_from_within_a_callback(void **state)
{
    transport_peer peer = connect_both();

    (void)state;
    server.s.close_on_message = true;
    fill(payload, 100, 1);
    assert_int_equal(send_from(&client, peer, &msgs[0], payload, 100), MOE_OK);
    UNTIL(client.s.n_down == 1);
    assert_int_equal(server.s.n_down, 0);
}

static void numbers_are_never_used_again(void **state)
{
    transport_peer first = connect_both(), at_first = server.s.last_up;

    (void)state;
    client.t->ops->peer_close(client.t, first);
    UNTIL(server.s.n_down == 1);
    transport_peer second = connect_both();
    assert_true(second != first && server.s.last_up != at_first);
}

static void where_nobody_listens_is_refused(void **state)
{
    char address[128];
    transport_peer peer;

    (void)state;
    (void)snprintf(address, sizeof address, "%s", transport_net_address(server.t));
    transport_close(server.t);
    server.t = NULL;
    moe_status status = client.t->ops->connect(client.t, address, &peer);
    if (status == MOE_OK) {
        UNTIL(client.s.n_down == 1);
        assert_int_equal(client.s.n_refused, 1);
    } else {
        assert_int_equal(status, MOE_ERR_UNAVAILABLE);
    }
    assert_int_equal(client.s.n_up, 0);
}

static void what_is_no_address_is_refused(void **state)
{
    static const char *const bad[] = {"", "nohost", ":1", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "[::1]"};
    transport_peer peer;

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(bad); i++) {
        assert_int_not_equal(client.t->ops->connect(client.t, bad[i], &peer), MOE_OK);
    }
}

static void strangers_above_max_peers_are_refused(void **state)
{
    transport_peer peer;
    transport_net_stats stats;

    (void)state;
    for (int i = 0; i < 4; i++) {
        connect_both();
    }
    int up = client.s.n_up;
    assert_int_equal(client.t->ops->connect(client.t, transport_net_address(server.t), &peer), MOE_OK);
    UNTIL(client.s.n_down == 1);
    assert_int_equal(client.s.n_up, up);
    assert_int_equal(server.s.n_up, 4);
    transport_net_get_stats(server.t, &stats);
    assert_int_equal(stats.refused, 1);
    assert_int_equal(stats.peers, 4);
}

static void own_connects_above_max_peers_are_busy(void **state)
{
    transport_peer peer;

    (void)state;
    for (int i = 0; i < 8; i++) {
        assert_int_equal(client.t->ops->connect(client.t, transport_net_address(server.t), &peer), MOE_OK);
    }
    assert_int_equal(client.t->ops->connect(client.t, transport_net_address(server.t), &peer), MOE_ERR_BUSY);
}

static void places_are_free_again_after_a_close(void **state)
{
    (void)state;
    for (int i = 0; i < 40; i++) {
        transport_peer peer = connect_both();

        client.t->ops->peer_close(client.t, peer);
        UNTIL(server.s.n_down == i + 1);
    }
}

/* ------------------------------------------------------------------------------------------------ secret */
static void reopen_with(side *x, const char *listen, const char *secret)
{
    const transport_net_options o = {.lane = lane,
                                     .listen = listen,
                                     .max_message = MAX_MESSAGE,
                                     .max_peers = 4,
                                     .secret = secret,
                                     .n_secret = strlen(secret)};
    moe_error err;

    transport_close(x->t);
    *x = (side){.s = {.in_order = true, .intact = true}};
    assert_ok(transport_net_open(&o, &x->t, &err), err);
    x->s.t = x->t;
    x->t->handler = (transport_handler){&x->s, on_message, on_peer};
}

static void who_has_the_secret_is_up(void **state)
{
    (void)state;
    reopen_with(&server, "127.0.0.1:0", "one secret");
    reopen_with(&client, NULL, "one secret");
    transport_peer peer = connect_both();
    fill(payload, 500, 1);
    assert_int_equal(send_from(&client, peer, &msgs[0], payload, 500), MOE_OK);
    UNTIL(server.s.n_messages == 1);
}

static void refused_with(const char *secret, const char *why)
{
    transport_peer peer;
    transport_net_stats stats;

    reopen_with(&server, "127.0.0.1:0", "one secret");
    reopen_with(&client, NULL, secret);
    assert_int_equal(client.t->ops->connect(client.t, transport_net_address(server.t), &peer), MOE_OK);
    UNTIL(client.s.n_down == 1);
    assert_int_equal(client.s.n_up + server.s.n_up + server.s.n_down, 0);
    assert_contains(client.s.why, why);
    do {
        turn();
        transport_net_get_stats(server.t, &stats);
    } while (stats.peers > 0);
    assert_int_equal(stats.denied, 1);
}

static void another_secret_is_refused(void **state)
{
    (void)state;
    refused_with("two secrets", "our proof");
}

static void no_secret_is_refused(void **state)
{
    (void)state;
    refused_with("", "our proof");
}

/* ------------------------------------------------------------------------------------------------ two processes */
static int child_up_fd;

/* Listens and echoes until it is killed; exits when asked by a frame of 2 bytes. */
static void echo_message(void *ctx, transport_peer peer, const unsigned char *bytes, size_t n)
{
    transport *t = ctx;
    static unsigned char copy[MAX_MESSAGE];
    static transport_msg msg;

    if (n == 2) {
        _exit(0);
    }
    memcpy(copy, bytes, n);
    msg = (transport_msg){.parts = {{copy, n}}, .n_parts = 1, .done = on_done};
    (void)!t->ops->send(t, peer, &msg);
}

static void ignore_peer(void *ctx, transport_peer peer, transport_peer_event event, const char *why)
{
    (void)ctx;
    (void)peer;
    (void)event;
    (void)why;
}

static void child_main(void)
{
    const transport_net_options o = {.lane = lane, .listen = "127.0.0.1:0", .max_message = MAX_MESSAGE, .max_peers = 4};
    transport *t;
    moe_error err;

    if (transport_net_open(&o, &t, &err) != MOE_OK) {
        _exit(1);
    }
    t->handler = (transport_handler){t, echo_message, ignore_peer};
    const char *address = transport_net_address(t);
    if (write(child_up_fd, address, strlen(address) + 1) < 0) {
        _exit(1);
    }
    for (;;) {
        if (t->ops->progress(t) == 0) {
            t->ops->wait(t, 100000000);
        }
    }
}

/* The child is made while this process has no endpoint open. */
static pid_t child_start(char *address, size_t bytes)
{
    int fds[2];
    pid_t parent = getpid();

    assert_int_equal(pipe(fds), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) {
            _exit(1);
        }
        child_up_fd = fds[1];
        child_main();
    }
    (void)close(fds[1]);
    size_t n = 0;
    while (n < bytes && read(fds[0], address + n, 1) == 1 && address[n] != '\0') {
        n++;
    }
    (void)close(fds[0]);
    assert_true(n > 0 && n < bytes);
    return pid;
}

static pid_t child;
static char child_address[128];

static int setup_child(void **state)
{
    (void)state;
    payload = malloc(MAX_MESSAGE * 2);
    assert_non_null(payload);
    n_done = 0;
    server = (side){0};
    child = child_start(child_address, sizeof child_address);
    side_open(&client, NULL, MAX_MESSAGE, 8);
    return 0;
}

static int teardown_child(void **state)
{
    int status;

    (void)state;
    transport_close(client.t);
    free(payload);
    if (child > 0) {
        (void)kill(child, SIGKILL);
        (void)waitpid(child, &status, 0);
    }
    return 0;
}

static void frames_travel_between_processes(void **state)
{
    transport_peer peer = connect_to(child_address);

    (void)state;
    for (uint32_t i = 0; i < 50; i++) {
        size_t n = 4 + (size_t)i * 5999;

        fill(payload, n, i + 1);
        assert_int_equal(send_from(&client, peer, &msgs[0], payload, n), MOE_OK);
        UNTIL(client.s.n_messages == i + 1);
    }
    assert_true(client.s.intact && client.s.in_order);
}

static void a_killed_process_is_down(void **state)
{
    transport_peer peer = connect_to(child_address);
    int status;

    (void)state;
    assert_int_equal(kill(child, SIGKILL), 0);
    (void)waitpid(child, &status, 0);
    child = 0;
    UNTIL(client.s.n_down == 1);
    assert_true(client.s.last_down == peer);
}

static void a_process_killed_with_frames_under_way_gives_them_back(void **state)
{
    transport_peer peer = connect_to(child_address);
    uint32_t sent = 0;
    int status;

    (void)state;
    assert_int_equal(kill(child, SIGSTOP), 0);
    fill(payload, MAX_MESSAGE, 1);
    while (send_from(&client, peer, &msgs[sent % 64], payload, MAX_MESSAGE) == MOE_OK) {
        sent++;
        client.t->ops->progress(client.t);
    }
    assert_true(n_done < sent);
    assert_int_equal(kill(child, SIGKILL), 0);
    (void)waitpid(child, &status, 0);
    child = 0;
    UNTIL(client.s.n_down == 1);
    assert_int_equal(n_done, sent);
}

static void a_process_that_exits_is_down(void **state)
{
    transport_peer peer = connect_to(child_address);
    int status;

    (void)state;
    assert_int_equal(send_from(&client, peer, &msgs[0], "by", 2), MOE_OK);
    UNTIL(client.s.n_down == 1);
    (void)waitpid(child, &status, 0);
    child = 0;
    assert_int_equal(status, 0);
}

static int socket_to_child(void)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    to.sin_port = htons((uint16_t)atoi(strrchr(child_address, ':') + 1));
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    return fd;
}

/* Strangers who come later take the place of earlier ones: a member that was pushed out comes again. */
static transport_peer connect_until_up(const char *address)
{
    transport_peer peer = 0;
    int up = client.s.n_up;

    while (client.s.n_up == up) {
        int down = client.s.n_down;

        assert_int_equal(client.t->ops->connect(client.t, address, &peer), MOE_OK);
        UNTIL(client.s.n_up > up || client.s.n_down > down);
    }
    return peer;
}

static void the_child_serves(void)
{
    size_t before = client.s.n_messages;
    transport_peer peer = connect_until_up(child_address);

    fill(payload, 100, 1);
    assert_int_equal(send_from(&client, peer, &msgs[0], payload, 100), MOE_OK);
    UNTIL(client.s.n_messages == before + 1);
    client.t->ops->peer_close(client.t, peer);
}

static void a_thousand_silent_sockets_do_not_stop_the_service(void **state)
{
    enum { N = 1000 };
    static int fds[N];

    (void)state;
    for (int i = 0; i < N; i++) {
        fds[i] = socket_to_child();
    }
    the_child_serves();
    for (int i = 0; i < N; i++) {
        (void)close(fds[i]);
    }
    the_child_serves();
}

static void sockets_that_talk_nonsense_do_not_stop_the_service(void **state)
{
    static const char greeting[] = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    unsigned char bytes[4096];
    moe_random r;

    (void)state;
    moe_random_seed(&r, 5);
    for (size_t i = 0; i < 300; i++) {
        int fd = socket_to_child();
        size_t n = 1 + moe_random_below(&r, i % 2 == 0 ? 64 : sizeof bytes);

        for (size_t j = 0; j < n; j++) {
            bytes[j] = (unsigned char)moe_random_u64(&r);
        }
        if (i % 3 == 0) { /* the right head, and then anything */
            memcpy(bytes, "MCNC\1\0\0\0", 8);
        } else if (i % 3 == 1) {
            memcpy(bytes, greeting, sizeof greeting);
        }
        if (i % 6 != 0) { /* without a secret an address of the right form would be believed */
            (void)send(fd, bytes, n, MSG_NOSIGNAL);
        } else {
            (void)send(fd, bytes, MOE_MIN(n, 41), MSG_NOSIGNAL);
        }
        (void)close(fd);
    }
    the_child_serves();
}

#define TEST(f)  cmocka_unit_test_setup_teardown(f, setup, teardown)
#define CHILD(f) cmocka_unit_test_setup_teardown(f, setup_child, teardown_child)

int main(int argc, char **argv)
{
    const struct CMUnitTest with_child[] = {
        CHILD(frames_travel_between_processes),
        CHILD(a_killed_process_is_down),
        CHILD(a_process_killed_with_frames_under_way_gives_them_back),
        CHILD(a_process_that_exits_is_down),
        CHILD(a_thousand_silent_sockets_do_not_stop_the_service),
        CHILD(sockets_that_talk_nonsense_do_not_stop_the_service),
    };
    const struct CMUnitTest in_one_thread[] = {
        TEST(connections_are_told_apart),
        TEST(a_closed_connection_is_down_at_the_other_end_only),
        TEST(the_accepting_end_can_close_from_within_a_callback),
        TEST(numbers_are_never_used_again),
        TEST(where_nobody_listens_is_refused),
        TEST(what_is_no_address_is_refused),
        TEST(strangers_above_max_peers_are_refused),
        TEST(own_connects_above_max_peers_are_busy),
        TEST(places_are_free_again_after_a_close),
        TEST(who_has_the_secret_is_up),
        TEST(another_secret_is_refused),
        TEST(no_secret_is_refused),
    };

    moe_log_set_level(MOE_LOG_ERROR);
    choose_lane(argc, argv);
    int failed = cmocka_run_group_tests(in_one_thread, NULL, NULL);
    return failed + cmocka_run_group_tests(with_child, NULL, NULL);
}
