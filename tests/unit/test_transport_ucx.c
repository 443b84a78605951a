/* The ucx endpoint over this machine's loopback device: two in one thread, and one in a child process where somebody
 * has to die. */
#include "tests/support/support.h"

#include <netinet/in.h>
#include <arpa/inet.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "transport/transport.h"

#define MAX_MESSAGE ((size_t)300000)
#define PATIENCE_NS UINT64_C(20000000000)

typedef struct seen {
    transport_peer last_up, last_down;
    int n_up, n_down;
    char why[128];
    size_t n_messages, bytes;
    transport_peer from;
    uint32_t serial; /* of the last message */
    bool in_order, intact;
    bool echo, close_on_message;
    transport *t;
} seen;

typedef struct side {
    transport *t;
    seen s;
} side;

static side server, client;
static unsigned char *payload;
static transport_msg msgs[64];
static size_t n_done;
static moe_status last_status;

static void on_done(transport_msg *msg, moe_status status)
{
    (void)msg;
    n_done++;
    last_status = status;
}

/* A frame: its serial number, then bytes that follow from it. */
static void fill(unsigned char *bytes, size_t n, uint32_t serial)
{
    for (size_t i = 0; i < n; i++) {
        uint64_t byte = i < 4 ? serial >> (8 * i) : serial * 31 + i * 7 + (i >> 8);

        bytes[i] = (unsigned char)(byte & 255);
    }
}

static void on_message(void *ctx, transport_peer peer, const unsigned char *bytes, size_t n)
{
    seen *s = ctx;
    uint32_t serial = 0;
    unsigned char *expected = malloc(n + 4);

    assert_non_null(expected);
    for (size_t i = 0; i < MOE_MIN(n, 4); i++) {
        serial |= (uint32_t)bytes[i] << (8 * i);
    }
    fill(expected, n, serial);
    s->intact = s->intact && memcmp(expected, bytes, n) == 0;
    free(expected);
    s->in_order = s->in_order && (n < 4 || serial == s->serial + 1);
    s->serial = serial;
    s->n_messages++;
    s->bytes += n;
    s->from = peer;
    if (s->close_on_message) {
        s->t->ops->peer_close(s->t, peer);
    }
}

static void on_peer(void *ctx, transport_peer peer, transport_peer_event event, const char *why)
{
    seen *s = ctx;

    if (event == TRANSPORT_UP) {
        s->n_up++;
        s->last_up = peer;
    } else {
        s->n_down++;
        s->last_down = peer;
        (void)snprintf(s->why, sizeof s->why, "%s", why);
    }
}

static void side_open(side *x, const char *listen, size_t max_message, size_t max_peers)
{
    const transport_ucx_options o = {
        .listen = listen, .max_message = max_message, .max_peers = max_peers, .max_sends = 4, .send_timeout_ns = 0};
    moe_error err;

    *x = (side){.s = {.in_order = true, .intact = true}};
    assert_ok(transport_ucx_open(&o, &x->t, &err), err);
    x->s.t = x->t;
    x->t->handler = (transport_handler){&x->s, on_message, on_peer};
}

static int setup(void **state)
{
    (void)state;
    payload = malloc(MAX_MESSAGE * 2);
    assert_non_null(payload);
    n_done = 0;
    side_open(&server, "127.0.0.1:0", MAX_MESSAGE, 4);
    side_open(&client, NULL, MAX_MESSAGE, 8);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    transport_close(client.t);
    transport_close(server.t);
    free(payload);
    return 0;
}

static void turn(void)
{
    unsigned n = client.t == NULL ? 0 : client.t->ops->progress(client.t);

    n += server.t == NULL ? 0 : server.t->ops->progress(server.t);
    if (n == 0 && client.t != NULL) {
        client.t->ops->wait(client.t, 1000000);
    }
}

/* Turns until *counter has reached n. */
#define UNTIL(condition)                                                                                               \
    do {                                                                                                               \
        uint64_t until_end = moe_now_ns(moe_clock_real()) + PATIENCE_NS;                                               \
        while (!(condition)) {                                                                                         \
            turn();                                                                                                    \
            if (moe_now_ns(moe_clock_real()) > until_end) {                                                            \
                fail_msg("never: %s", #condition);                                                                     \
            }                                                                                                          \
        }                                                                                                              \
    } while (0)

static transport_peer connect_to(const char *address)
{
    transport_peer peer = 0;
    int n = client.s.n_up;

    assert_int_equal(client.t->ops->connect(client.t, address, &peer), MOE_OK);
    UNTIL(client.s.n_up > n);
    assert_true(client.s.last_up == peer);
    return peer;
}

static transport_peer connect_both(void)
{
    int n = server.s.n_up;
    transport_peer peer = connect_to(transport_ucx_address(server.t));

    UNTIL(server.s.n_up > n);
    return peer;
}

static moe_status send_from(side *x, transport_peer peer, transport_msg *msg, const void *bytes, size_t n)
{
    *msg = (transport_msg){.parts = {{bytes, n}}, .n_parts = 1, .done = on_done};
    return x->t->ops->send(x->t, peer, msg);
}

/* ------------------------------------------------------------------------------------------------ one thread */
static void the_port_found_and_the_lane_are_reported(void **state)
{
    (void)state;
    assert_memory_equal(transport_ucx_address(server.t), "127.0.0.1:", 10);
    assert_true(atoi(transport_ucx_address(server.t) + 10) > 0);
    assert_string_equal(transport_ucx_address(client.t), "");
    assert_string_equal(transport_ucx_lane(server.t), "tcp");
    assert_string_equal(server.t->ops->name, "tcp");
}

static void frames_of_all_sizes_arrive_whole_and_in_order(void **state)
{
    static const size_t sizes[] = {4, 5, 100, 8191, 8192, 8193, 65536, 65537, 131072, 299999, MAX_MESSAGE};
    transport_peer peer = connect_both();

    (void)state;
    for (uint32_t i = 0; i < 60; i++) {
        size_t n = sizes[i % MOE_COUNT(sizes)];

        fill(payload, n, i + 1);
        assert_int_equal(send_from(&client, peer, &msgs[0], payload, n), MOE_OK);
        UNTIL(n_done == i + 1);
        assert_int_equal(last_status, MOE_OK);
    }
    UNTIL(server.s.n_messages == 60);
    assert_true(server.s.intact && server.s.in_order);
}

static void a_frame_of_one_byte_arrives(void **state)
{
    transport_peer peer = connect_both();

    (void)state;
    fill(payload, 1, 1);
    assert_int_equal(send_from(&client, peer, &msgs[0], payload, 1), MOE_OK);
    UNTIL(server.s.n_messages == 1);
    assert_int_equal(server.s.bytes, 1);
    assert_true(server.s.intact);
}

static void frames_sent_without_waiting_arrive_in_order(void **state)
{
    transport_peer peer = connect_both();
    uint32_t sent = 0;

    (void)state;
    while (sent < 500) {
        unsigned char *bytes = payload + (size_t)(sent % 64) * 4096;
        size_t n = 4 + sent * 37 % 4000;

        if (n_done + 4 < sent) {
            turn();
            continue;
        }
        fill(bytes, n, sent + 1);
        if (send_from(&client, peer, &msgs[sent % 64], bytes, n) == MOE_OK) {
            sent++;
        } else {
            turn();
        }
    }
    UNTIL(server.s.n_messages == 500);
    assert_true(server.s.intact && server.s.in_order);
}

static void two_parts_are_joined(void **state)
{
    transport_peer peer = connect_both();

    (void)state;
    fill(payload, 100000, 1);
    msgs[0] = (transport_msg){.parts = {{payload, 77}, {payload + 77, 100000 - 77}}, .n_parts = 2, .done = on_done};
    assert_int_equal(client.t->ops->send(client.t, peer, &msgs[0]), MOE_OK);
    UNTIL(server.s.n_messages == 1);
    assert_int_equal(server.s.bytes, 100000);
    assert_true(server.s.intact);
}

static void the_other_end_can_answer(void **state)
{
    transport_peer peer = connect_both();

    (void)state;
    fill(payload, 500, 1);
    assert_int_equal(send_from(&server, server.s.last_up, &msgs[0], payload, 500), MOE_OK);
    UNTIL(client.s.n_messages == 1);
    assert_true(client.s.from == peer && client.s.intact);
}

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

static void nobody_there_is_down_or_refused(void **state)
{
    char address[128];
    transport_peer peer;

    (void)state;
    (void)snprintf(address, sizeof address, "%s", transport_ucx_address(server.t));
    transport_close(server.t);
    server.t = NULL;
    if (client.t->ops->connect(client.t, address, &peer) == MOE_OK) {
        UNTIL(client.s.n_down == 1);
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

static void a_frame_above_the_limit_is_not_sent(void **state)
{
    transport_peer peer = connect_both();

    (void)state;
    assert_int_equal(send_from(&client, peer, &msgs[0], payload, MAX_MESSAGE + 1), MOE_ERR_INVALID_ARG);
    assert_int_equal(n_done, 0);
}

static void a_frame_above_the_receivers_limit_costs_the_connection(void **state)
{
    transport_ucx_stats stats;

    (void)state;
    transport_close(client.t);
    side_open(&client, NULL, 2 * MAX_MESSAGE, 4);
    transport_peer peer = connect_both();
    fill(payload, MAX_MESSAGE + 1, 1);
    assert_int_equal(send_from(&client, peer, &msgs[0], payload, MAX_MESSAGE + 1), MOE_OK);
    UNTIL(server.s.n_down == 1 && client.s.n_down == 1);
    assert_string_equal(server.s.why, "frame above the limit");
    assert_int_equal(server.s.n_messages, 0);
    transport_ucx_get_stats(server.t, &stats);
    assert_int_equal(stats.violations, 1);
}

static void a_peer_that_does_not_read_makes_sends_busy(void **state)
{
    transport_peer peer = connect_both();
    moe_status status = MOE_OK;
    uint32_t sent = 0;
    transport_ucx_stats stats;

    (void)state;
    fill(payload, MAX_MESSAGE, 1);
    for (; sent < 10000 && status == MOE_OK; sent += status == MOE_OK) {
        status = send_from(&client, peer, &msgs[sent % 64], payload, MAX_MESSAGE);
        for (int i = 0; i < 3; i++) {
            client.t->ops->progress(client.t);
        }
    }
    assert_int_equal(status, MOE_ERR_BUSY);
    transport_ucx_get_stats(client.t, &stats);
    assert_int_equal(stats.sends, 4);
    client.t->ops->peer_close(client.t, peer);
    UNTIL(n_done == sent);
    assert_int_equal(last_status, MOE_ERR_CANCELLED);
}

static void frames_that_do_not_leave_cost_the_connection(void **state)
{
    moe_clock_virtual clock;
    const transport_ucx_options o = {.max_message = MAX_MESSAGE, .max_peers = 4, .clock = &clock.clock};
    transport_ucx_stats stats;
    moe_error err;

    (void)state;
    moe_clock_virtual_init(&clock, 1000);
    transport_close(client.t);
    assert_ok(transport_ucx_open(&o, &client.t, &err), err);
    client.t->handler = (transport_handler){&client.s, on_message, on_peer};
    transport_peer peer = connect_both();
    uint32_t sent = 0;
    while (send_from(&client, peer, &msgs[sent % 64], payload, MAX_MESSAGE) == MOE_OK) {
        sent++;
        client.t->ops->progress(client.t);
    }
    moe_clock_virtual_advance(&clock, 9000000000u);
    client.t->ops->progress(client.t);
    assert_int_equal(client.s.n_down, 0);
    moe_clock_virtual_advance(&clock, 2000000000u);
    while (client.s.n_down == 0) { /* the server stands still */
        client.t->ops->progress(client.t);
    }
    assert_string_equal(client.s.why, "frames do not leave");
    assert_int_equal(n_done, sent);
    transport_ucx_get_stats(client.t, &stats);
    assert_int_equal(stats.timeouts, 1);
}

static void strangers_above_max_peers_are_refused(void **state)
{
    transport_peer peer;
    transport_ucx_stats stats;

    (void)state;
    for (int i = 0; i < 4; i++) {
        connect_both();
    }
    int up = client.s.n_up;
    assert_int_equal(client.t->ops->connect(client.t, transport_ucx_address(server.t), &peer), MOE_OK);
    UNTIL(client.s.n_down == 1);
    assert_int_equal(client.s.n_up, up);
    assert_int_equal(server.s.n_up, 4);
    transport_ucx_get_stats(server.t, &stats);
    assert_int_equal(stats.refused, 1);
    assert_int_equal(stats.peers, 4);
}

static void own_connects_above_max_peers_are_busy(void **state)
{
    transport_peer peer;

    (void)state;
    for (int i = 0; i < 8; i++) {
        assert_int_equal(client.t->ops->connect(client.t, transport_ucx_address(server.t), &peer), MOE_OK);
    }
    assert_int_equal(client.t->ops->connect(client.t, transport_ucx_address(server.t), &peer), MOE_ERR_BUSY);
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

static void closing_an_endpoint_gives_all_frames_back(void **state)
{
    transport_peer peer = connect_both();
    uint32_t sent = 0;

    (void)state;
    while (send_from(&client, peer, &msgs[sent % 64], payload, MAX_MESSAGE) == MOE_OK) {
        sent++;
        client.t->ops->progress(client.t);
    }
    transport_close(client.t);
    client.t = NULL;
    assert_int_equal(n_done, sent);
}

static void an_address_is_taken_once(void **state)
{
    const transport_ucx_options o = {.listen = transport_ucx_address(server.t), .max_message = 1000, .max_peers = 1};
    transport *t = NULL;
    moe_error err = {""};

    (void)state;
    assert_int_equal(transport_ucx_open(&o, &t, &err), MOE_ERR_EXISTS);
    assert_contains(err.text, transport_ucx_address(server.t));
}

/* There is none on the machines the tests run on; where there is, the lane says so. */
static void rdma_is_never_something_else(void **state)
{
    const transport_ucx_options o = {.lane = TRANSPORT_LANE_RDMA, .max_message = 1000, .max_peers = 1};
    transport *t = NULL;
    moe_error err = {""};
    moe_status status = transport_ucx_open(&o, &t, &err);

    (void)state;
    if (status == MOE_OK) {
        assert_null(strstr(transport_ucx_lane(t), "tcp"));
        transport_close(t);
    } else {
        assert_int_equal(status, MOE_ERR_UNSUPPORTED);
        assert_contains(err.text, "RDMA");
    }
}

static void a_wake_ends_a_wait(void **state)
{
    (void)state;
    for (int i = 0; i < 20; i++) {
        while (client.t->ops->progress(client.t) != 0) {
        }
        client.t->ops->wake(client.t);
        client.t->ops->wait(client.t, UINT64_MAX); /* ctest's timeout otherwise */
    }
}

/* ------------------------------------------------------------------------------------------------ secret */
static void reopen_with(side *x, const char *listen, const char *secret)
{
    const transport_ucx_options o = {
        .listen = listen, .max_message = MAX_MESSAGE, .max_peers = 4, .secret = secret, .n_secret = strlen(secret)};
    moe_error err;

    transport_close(x->t);
    *x = (side){.s = {.in_order = true, .intact = true}};
    assert_ok(transport_ucx_open(&o, &x->t, &err), err);
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
    transport_ucx_stats stats;

    reopen_with(&server, "127.0.0.1:0", "one secret");
    reopen_with(&client, NULL, secret);
    assert_int_equal(client.t->ops->connect(client.t, transport_ucx_address(server.t), &peer), MOE_OK);
    UNTIL(client.s.n_down == 1);
    assert_int_equal(client.s.n_up + server.s.n_up + server.s.n_down, 0);
    assert_contains(client.s.why, why);
    do {
        turn();
        transport_ucx_get_stats(server.t, &stats);
    } while (stats.peers > 0);
    assert_int_equal(stats.denied, 1);
}

static void another_secret_is_refused(void **state)
{
    (void)state;
    refused_with("two secrets", "does not accept our proof");
}

static void no_secret_is_refused(void **state)
{
    (void)state;
    refused_with("", "has a cluster secret, this end has not");
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
    const transport_ucx_options o = {.listen = "127.0.0.1:0", .max_message = MAX_MESSAGE, .max_peers = 4};
    transport *t;
    moe_error err;

    if (transport_ucx_open(&o, &t, &err) != MOE_OK) {
        _exit(1);
    }
    t->handler = (transport_handler){t, echo_message, ignore_peer};
    const char *address = transport_ucx_address(t);
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

/* Strangers who come later take the place of earlier ones: who was pushed out comes again, as members do. */
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

int main(void)
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
        TEST(the_port_found_and_the_lane_are_reported),
        TEST(frames_of_all_sizes_arrive_whole_and_in_order),
        TEST(a_frame_of_one_byte_arrives),
        TEST(frames_sent_without_waiting_arrive_in_order),
        TEST(two_parts_are_joined),
        TEST(the_other_end_can_answer),
        TEST(connections_are_told_apart),
        TEST(a_closed_connection_is_down_at_the_other_end_only),
        TEST(the_accepting_end_can_close_from_within_a_callback),
        TEST(numbers_are_never_used_again),
        TEST(nobody_there_is_down_or_refused),
        TEST(what_is_no_address_is_refused),
        TEST(a_frame_above_the_limit_is_not_sent),
        TEST(a_frame_above_the_receivers_limit_costs_the_connection),
        TEST(a_peer_that_does_not_read_makes_sends_busy),
        TEST(frames_that_do_not_leave_cost_the_connection),
        TEST(strangers_above_max_peers_are_refused),
        TEST(own_connects_above_max_peers_are_busy),
        TEST(places_are_free_again_after_a_close),
        TEST(closing_an_endpoint_gives_all_frames_back),
        TEST(an_address_is_taken_once),
        TEST(rdma_is_never_something_else),
        TEST(a_wake_ends_a_wait),
        TEST(who_has_the_secret_is_up),
        TEST(another_secret_is_refused),
        TEST(no_secret_is_refused),
    };

    moe_log_set_level(MOE_LOG_ERROR);
    int failed = cmocka_run_group_tests(in_one_thread, NULL, NULL);
    return failed + cmocka_run_group_tests(with_child, NULL, NULL);
}
