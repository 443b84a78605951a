/* What the tests of endpoints on a network share: two of them in one thread over this machine's loopback device, of the
 * lane that the program is called with. */
#ifndef CONCLAVE_TEST_TRANSPORT_NET_SUPPORT_H
#define CONCLAVE_TEST_TRANSPORT_NET_SUPPORT_H

#include "tests/support/support.h"
#include "transport/transport.h"

#include <stdlib.h>
#include <string.h>

#define MAX_MESSAGE ((size_t)300000)
#define PATIENCE_NS UINT64_C(20000000000)

typedef struct seen {
    transport_peer last_up, last_down;
    int n_up, n_down, n_refused;
    char why[128];
    size_t n_messages, bytes;
    transport_peer from;
    uint32_t serial; /* of the last message */
    bool in_order, intact;
    bool close_on_message;
    transport *t;
} seen;

typedef struct side {
    transport *t;
    seen s;
} side;

static transport_lane lane;
static side server, client;
static unsigned char *payload;
static transport_msg msgs[64];
static size_t n_done;
static moe_status last_status;

static inline void on_done(transport_msg *msg, moe_status status)
{
    (void)msg;
    n_done++;
    last_status = status;
}

/* A frame: its serial number, then bytes that follow from it. */
static inline void fill(unsigned char *bytes, size_t n, uint32_t serial)
{
    for (size_t i = 0; i < n; i++) {
        uint64_t byte = i < 4 ? serial >> (8 * i) : serial * 31 + i * 7 + (i >> 8);

        bytes[i] = (unsigned char)(byte & 255);
    }
}

static inline void on_message(void *ctx, transport_peer peer, const unsigned char *bytes, size_t n)
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

static inline void on_peer(void *ctx, transport_peer peer, transport_peer_event event, const char *why)
{
    seen *s = ctx;

    if (event == TRANSPORT_UP) {
        s->n_up++;
        s->last_up = peer;
    } else {
        s->n_down++;
        s->n_refused += event == TRANSPORT_REFUSED;
        s->last_down = peer;
        (void)snprintf(s->why, sizeof s->why, "%s", why);
    }
}

static inline void side_open(side *x, const char *listen, size_t max_message, size_t max_peers)
{
    const transport_net_options o = {.lane = lane,
                                     .listen = listen,
                                     .max_message = max_message,
                                     .max_peers = max_peers,
                                     .max_sends = 4,
                                     .send_timeout_ns = 0};
    moe_error err;

    *x = (side){.s = {.in_order = true, .intact = true}};
    assert_ok(transport_net_open(&o, &x->t, &err), err);
    x->s.t = x->t;
    x->t->handler = (transport_handler){&x->s, on_message, on_peer};
}

static inline int setup(void **state)
{
    (void)state;
    payload = malloc(MAX_MESSAGE * 2);
    assert_non_null(payload);
    n_done = 0;
    side_open(&server, "127.0.0.1:0", MAX_MESSAGE, 4);
    side_open(&client, NULL, MAX_MESSAGE, 8);
    return 0;
}

static inline int teardown(void **state)
{
    (void)state;
    transport_close(client.t);
    transport_close(server.t);
    free(payload);
    return 0;
}

static inline void turn(void)
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

static inline transport_peer connect_to(const char *address)
{
    transport_peer peer = 0;
    int n = client.s.n_up;

    assert_int_equal(client.t->ops->connect(client.t, address, &peer), MOE_OK);
    UNTIL(client.s.n_up > n);
    assert_true(client.s.last_up == peer);
    return peer;
}

static inline transport_peer connect_both(void)
{
    int n = server.s.n_up;
    transport_peer peer = connect_to(transport_net_address(server.t));

    UNTIL(server.s.n_up > n);
    return peer;
}

/* For main: the lane by its name, tls without one. */
static inline void choose_lane(int argc, char **argv)
{
    while (argc > 1 && strcmp(argv[1], transport_lane_names[lane]) != 0) {
        lane++;
    }
}

static inline moe_status send_from(side *x, transport_peer peer, transport_msg *msg, const void *bytes, size_t n)
{
    *msg = (transport_msg){.parts = {{bytes, n}}, .n_parts = 1, .done = on_done};
    return x->t->ops->send(x->t, peer, msg);
}

#endif
