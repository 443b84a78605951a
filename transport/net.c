/* Endpoints on a network, whatever their lane: options, events, the listener. */
#include "transport/net_priv.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

/* Chosen, not measured.
 *
 *   MAX_SENDS      frames under way to one peer, unless the options say otherwise
 *   SEND_TIMEOUT   a frame of 1 MiB leaves far sooner on a network that is of use
 *   CHECK_EVERY    how late a time-out may be noticed
 *   EPOLL_EVENTS   taken in one turn */
#define MAX_SENDS       16
#define SEND_TIMEOUT_NS UINT64_C(10000000000)
#define CHECK_EVERY_NS  UINT64_C(100000000)
#define EPOLL_EVENTS    32

/* ------------------------------------------------------------------------------------------------ open */
static moe_status check_options(const transport_net_options *o, moe_error *err)
{
    if (o->max_peers == 0 || o->max_peers >= MOE_BIT(NET_SLOT_BITS) || o->max_message == 0 ||
        o->max_message > UINT32_MAX || o->max_sends > NET_MAX_SENDS) {
        return moe_fail(err, MOE_ERR_INVALID_ARG,
                        "transport: %zu peers (1 to %u), frames of %zu bytes (1 to %u), %zu sends (at most %d)",
                        o->max_peers, MOE_BIT(NET_SLOT_BITS) - 1, o->max_message, UINT32_MAX, o->max_sends,
                        NET_MAX_SENDS);
    }
    return MOE_OK;
}

moe_status transport_net_open(const transport_net_options *options, transport **out, moe_error *err)
{
    const net_hardware hardware = {.rdma = TRANSPORT_LANE_RDMA};
    moe_status status = check_options(options, err);

    return status == MOE_OK ? transport_tls_open(options, &hardware, out, err) : status;
}

void net_init(net *t, const transport_ops *ops, const transport_net_options *o, void *slots, size_t slot_bytes)
{
    *t = (net){.base = {.ops = ops, .max_message = o->max_message},
               .clock = o->clock != NULL ? o->clock : moe_clock_real(),
               .listen_fd = -1,
               .epoll_fd = -1,
               .wake_fd = -1,
               .slots = slots,
               .slot_bytes = slot_bytes,
               .n_slots = o->max_peers,
               .max_sends = o->max_sends != 0 ? o->max_sends : MAX_SENDS,
               .send_timeout_ns = o->send_timeout_ns != 0 ? o->send_timeout_ns : SEND_TIMEOUT_NS};
    for (size_t i = 0; slots != NULL && i < t->n_slots; i++) {
        net_slot_at(t, i)->fd = -1;
    }
}

/* On a thread of the resolver's. */
static void on_answered(void *ctx)
{
    net_wake(ctx);
}

moe_status net_open(net *t, const transport_net_options *o, char device_out[SOCKET_MAX_DEVICE], moe_error *err)
{
    const moe_resolver_options names = {
        .look_up = o->look_up, .look_up_ctx = o->look_up_ctx, .answered = on_answered, .ctx = t};

    device_out[0] = '\0';
    t->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    t->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (t->epoll_fd < 0 || t->wake_fd < 0 || net_watch(t, t->wake_fd, EPOLLIN, NET_WAKE, 0, EPOLL_CTL_ADD) != MOE_OK) {
        return moe_fail(err, MOE_ERR_UNAVAILABLE, "transport: epoll: %s", strerror(errno));
    }
    if (moe_resolver_open(&names, &t->resolver) != MOE_OK) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "transport: out of memory");
    }
    return o->listen == NULL ? MOE_OK : socket_listen(o->listen, &t->listen_fd, t->address, device_out, err);
}

static void close_fd(int *fd)
{
    if (*fd >= 0) {
        (void)close(*fd);
    }
    *fd = -1;
}

moe_status transport_net_check_listen(const char *listen, moe_error *err)
{
    char found[SOCKET_MAX_ADDRESS], device[SOCKET_MAX_DEVICE];
    int fd = -1;
    moe_status status = socket_listen(listen, &fd, found, device, err);

    close_fd(&fd);
    return status == MOE_ERR_EXISTS ? MOE_ERR_INVALID_ARG : status;
}

void net_listen_end(net *t)
{
    net_listen_off(t);
    close_fd(&t->listen_fd);
}

void net_fini(net *t)
{
    net_listen_end(t);
    moe_resolver_close(t->resolver); /* from here on nobody wakes */
    close_fd(&t->wake_fd);
    close_fd(&t->epoll_fd);
}

/* ------------------------------------------------------------------------------------------------ what it tells */
static const net *of(const transport *t)
{
    MOE_ASSERT(t->ops->wake == net_wake); /* else it is no endpoint on a network */
    return (const net *)t;
}

const char *transport_net_address(const transport *t)
{
    return of(t)->address;
}

const char *transport_net_lane(const transport *t)
{
    return of(t)->carrier;
}

const char *net_carrier(transport *base, transport_peer peer)
{
    net *t = (net *)base;
    const net_slot *slot = net_slot_find(t, peer);

    return slot != NULL && slot->state == NET_UP ? tls_slot_carrier(slot) : t->carrier;
}

void transport_net_get_stats(const transport *t, transport_net_stats *out)
{
    *out = of(t)->stats;
}

/* ------------------------------------------------------------------------------------------------ events */
moe_status net_watch(net *t, int fd, uint32_t events, net_event_kind kind, transport_peer peer, int op)
{
    struct epoll_event e = {.events = events, .data.u64 = (uint64_t)kind << 62 | peer};

    return epoll_ctl(t->epoll_fd, op, fd, &e) == 0 ? MOE_OK : MOE_ERR_IO;
}

void net_listen_on(net *t)
{
    t->listening = t->listen_fd >= 0 && net_watch(t, t->listen_fd, EPOLLIN, NET_LISTEN, 0, EPOLL_CTL_ADD) == MOE_OK;
}

void net_listen_off(net *t)
{
    if (t->listening) {
        t->listening = false;
        (void)epoll_ctl(t->epoll_fd, EPOLL_CTL_DEL, t->listen_fd, NULL);
    }
}

/* It may have been the resolver's. */
static void take_wake(net *t)
{
    uint64_t now = moe_now_ns(t->clock), count;

    (void)!read(t->wake_fd, &count, sizeof count);
    for (size_t i = 0; i < t->n_slots; i++) {
        net_slot_go_on(net_slot_at(t, i), now);
    }
}

static void take_event(net *t, const struct epoll_event *e)
{
    net_event_kind kind = (net_event_kind)(e->data.u64 >> 62);
    net_slot *slot = net_slot_find(t, e->data.u64 & (UINT64_MAX >> 2));

    if (kind == NET_LISTEN) {
        net_take_strangers(t);
    } else if (kind == NET_WAKE) {
        take_wake(t);
    } else if (slot != NULL) {
        tls_slot_on_event(slot, kind, e->events);
    }
}

void net_take_events(net *t)
{
    struct epoll_event events[EPOLL_EVENTS];
    int n = epoll_wait(t->epoll_fd, events, EPOLL_EVENTS, 0);

    for (int i = 0; i < n; i++) {
        take_event(t, &events[i]);
    }
}

/* Ends connections whose frames do not leave (the peer stands still or the network has gone) and meetings that the other
 * end does not go on with. */
void net_check_times(net *t)
{
    uint64_t now = moe_now_ns(t->clock);

    if (now < t->check_ns) {
        return;
    }
    t->check_ns = now + CHECK_EVERY_NS;
    for (size_t i = 0; i < t->n_slots; i++) {
        net_slot *slot = net_slot_at(t, i);
        uint64_t stands = slot->state == NET_UP ? tls_slot_stands_since(slot) : UINT64_MAX;

        if (stands < now && now - stands > t->send_timeout_ns) {
            t->stats.timeouts++;
            net_slot_fail(slot, "frames do not leave");
        }
        net_slot_go_on(slot, now);
    }
    if (!t->listening) {
        net_listen_on(t); /* it rested for want of descriptors */
    }
}

void net_sleep(net *t, uint64_t timeout_ns)
{
    if (t->stats.sends > 0 || t->n_standing > 0 || t->n_meeting > 0 || (t->listen_fd >= 0 && !t->listening)) {
        timeout_ns = MOE_MIN(timeout_ns, CHECK_EVERY_NS);
    }
    struct pollfd p = {.fd = t->epoll_fd, .events = POLLIN};
    const struct timespec timeout = {(time_t)(timeout_ns / 1000000000), (long)(timeout_ns % 1000000000)};
    (void)ppoll(&p, 1, timeout_ns == UINT64_MAX ? NULL : &timeout, NULL);
}

void net_wake(transport *base)
{
    uint64_t one = 1;

    (void)!write(((net *)base)->wake_fd, &one, sizeof one);
}
