/* TLS: frames between processes over TCP, encrypted and authenticated by the cluster secret. Here are the endpoint, its
 * events and its time-outs; the connections are in tls_peer.c, the encryption in channel.c. */
#include "transport/tls_priv.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

/* Chosen, not measured; the same as of the other lanes (ucx.c says why). */
#define MAX_SENDS       16
#define SEND_TIMEOUT_NS UINT64_C(10000000000)
#define MEET_TIMEOUT_NS UINT64_C(2000000000)
#define CHECK_EVERY_NS  UINT64_C(100000000)
#define EPOLL_EVENTS    32

moe_status tls_watch(tls *t, int fd, uint32_t events, uint64_t kind, transport_peer peer, int op)
{
    struct epoll_event e = {.events = events, .data.u64 = kind << 62 | peer};

    return epoll_ctl(t->epoll_fd, op, fd, &e) == 0 ? MOE_OK : MOE_ERR_IO;
}

/* ------------------------------------------------------------------------------------------------ progress, wait */
static bool has_unsent(const tls_slot *slot)
{
    size_t n;

    (void)channel_out(slot->channel, &n);
    return n > 0 || slot->oldest != NULL;
}

/* Ends connections whose bytes do not leave, and meetings that the other end does not go on with. */
static void check_times(tls *t)
{
    uint64_t now = moe_now_ns(t->clock);

    if (now < t->check_ns) {
        return;
    }
    t->check_ns = now + CHECK_EVERY_NS;
    for (size_t i = 0; i < t->n_slots; i++) {
        tls_slot *slot = &t->slots[i];

        if (slot->state == TLS_UP && has_unsent(slot) && now - slot->since_ns > t->send_timeout_ns) {
            t->stats.timeouts++;
            tls_slot_fail(slot, "frames do not leave");
        } else if (slot->state == TLS_MEETING && now - slot->since_ns > MEET_TIMEOUT_NS) {
            t->stats.silent += !slot->caller;
            tls_slot_fail(slot, "no meeting in time");
        }
    }
    if (!t->listening && t->listen_fd >= 0) {
        t->listening = tls_watch(t, t->listen_fd, EPOLLIN, TLS_KIND_LISTEN, 0, EPOLL_CTL_ADD) == MOE_OK;
    }
}

static void on_event(tls *t, const struct epoll_event *e)
{
    tls_slot *slot = tls_slot_find(t, e->data.u64 & (UINT64_MAX >> 2));
    uint64_t count;

    switch (e->data.u64 >> 62) {
    case TLS_KIND_LISTEN:
        tls_on_listen(t);
        break;
    case TLS_KIND_WAKE:
        (void)!read(t->wake_fd, &count, sizeof count);
        break;
    default:
        if (slot != NULL && (slot->state == TLS_MEETING || slot->state == TLS_UP)) {
            tls_on_socket(slot, e->events);
        }
    }
}

static unsigned tls_progress(transport *base)
{
    tls *t = (tls *)base;
    struct epoll_event events[EPOLL_EVENTS];
    int n = epoll_wait(t->epoll_fd, events, EPOLL_EVENTS, 0);

    t->n_events = 0;
    for (int i = 0; i < n; i++) {
        on_event(t, &events[i]);
    }
    check_times(t);
    if (t->dirty) {
        tls_attend(t);
    }
    return t->n_events;
}

static void tls_wait(transport *base, uint64_t timeout_ns)
{
    tls *t = (tls *)base;

    if (t->dirty) {
        return; /* there is something to do */
    }
    if (t->stats.peers > 0 || (t->listen_fd >= 0 && !t->listening)) { /* bytes may stand, or a meeting */
        timeout_ns = MOE_MIN(timeout_ns, CHECK_EVERY_NS);
    }
    struct pollfd p = {.fd = t->epoll_fd, .events = POLLIN};
    const struct timespec timeout = {(time_t)(timeout_ns / 1000000000), (long)(timeout_ns % 1000000000)};
    (void)ppoll(&p, 1, timeout_ns == UINT64_MAX ? NULL : &timeout, NULL);
}

static void tls_wake(transport *base)
{
    uint64_t one = 1;

    (void)!write(((tls *)base)->wake_fd, &one, sizeof one);
}

static void close_fd(int fd)
{
    if (fd >= 0) {
        (void)close(fd);
    }
}

static void tls_close(transport *base)
{
    tls *t = (tls *)base;

    for (size_t i = 0; t->slots != NULL && i < t->n_slots; i++) {
        tls_slot_fail(&t->slots[i], "closed");
        t->slots[i].quiet = true;
    }
    if (t->slots != NULL) {
        tls_attend(t);
    }
    close_fd(t->listen_fd);
    close_fd(t->wake_fd);
    close_fd(t->epoll_fd);
    channel_key_close(t->key);
    explicit_bzero(t->record, sizeof t->record);
    free(t->slots);
    free(t);
}

static transport_net_info tls_info(const transport *base)
{
    const tls *t = (const tls *)base;

    return (transport_net_info){.address = t->address, .lane = "tls", .stats = &t->stats};
}

static const transport_ops tls_ops = {
    .name = "tls",
    .connect = tls_connect,
    .send = tls_send,
    .progress = tls_progress,
    .wait = tls_wait,
    .wake = tls_wake,
    .peer_close = tls_peer_close,
    .close = tls_close,
    .info = tls_info,
};

/* ------------------------------------------------------------------------------------------------ open */
static moe_status epoll_open(tls *t, moe_error *err)
{
    t->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    t->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (t->epoll_fd < 0 || t->wake_fd < 0 ||
        tls_watch(t, t->wake_fd, EPOLLIN, TLS_KIND_WAKE, 0, EPOLL_CTL_ADD) != MOE_OK) {
        return moe_fail(err, MOE_ERR_UNAVAILABLE, "tls: epoll: %s", strerror(errno));
    }
    return MOE_OK;
}

static moe_status listen_open(tls *t, const char *address, moe_error *err)
{
    char device[SOCKET_MAX_DEVICE];
    moe_status status;

    if (address == NULL) {
        return MOE_OK;
    }
    status = socket_listen(address, &t->listen_fd, t->address, device, err);
    if (status == MOE_OK) {
        t->listening = tls_watch(t, t->listen_fd, EPOLLIN, TLS_KIND_LISTEN, 0, EPOLL_CTL_ADD) == MOE_OK;
    }
    return status;
}

static moe_status check_options(const transport_net_options *o, moe_error *err)
{
    if (o->max_message == 0 || o->max_message > UINT32_MAX) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "tls: max_message %zu: must be within [1, %u]", o->max_message,
                        UINT32_MAX);
    }
    if (o->max_peers == 0 || o->max_peers >= MOE_BIT(TLS_SLOT_BITS)) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "tls: max_peers %zu: must be within [1, %u]", o->max_peers,
                        MOE_BIT(TLS_SLOT_BITS) - 1);
    }
    return MOE_OK;
}

moe_status transport_tls_open(const transport_net_options *o, transport **out, moe_error *err)
{
    moe_status status = check_options(o, err);
    tls *t = status == MOE_OK ? calloc(1, sizeof *t) : NULL;

    if (t == NULL) {
        return status == MOE_OK ? moe_fail(err, MOE_ERR_NO_MEMORY, "tls: out of memory") : status;
    }
    t->base = (transport){.ops = &tls_ops, .max_message = o->max_message};
    t->clock = o->clock != NULL ? o->clock : moe_clock_real();
    t->listen_fd = t->epoll_fd = t->wake_fd = -1;
    t->n_slots = o->max_peers;
    t->max_sends = o->max_sends != 0 ? o->max_sends : MAX_SENDS;
    t->send_timeout_ns = o->send_timeout_ns != 0 ? o->send_timeout_ns : SEND_TIMEOUT_NS;
    t->slots = calloc(t->n_slots, sizeof *t->slots);
    status = t->slots == NULL ? moe_fail(err, MOE_ERR_NO_MEMORY, "tls: out of memory")
                              : channel_key_open(o->secret, o->n_secret, &t->key, err);
    if (status == MOE_OK) {
        status = epoll_open(t, err);
    }
    if (status == MOE_OK) {
        status = listen_open(t, o->listen, err);
    }
    if (status != MOE_OK) {
        tls_close(&t->base);
        return status;
    }
    *out = &t->base;
    return MOE_OK;
}
