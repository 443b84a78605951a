/* The connections of an endpoint on a network, whatever carries their frames: their places, and how they begin. */
#include "transport/net_priv.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

/* Chosen, not measured.
 *
 *   ACCEPT_ROUNDS   strangers taken in one turn
 *   ANSWER          for the name server, before the addresses that are kept are called: a server that is near answers in
 *                   a few milliseconds, and an address that is kept may be another host's by now
 *   RESOLVE         for the name server where none are kept. With ANSWER well below the 2 s in which whoever connects
 *                   gives up (exchange/exchange_node.c), so that the reason is told
 *   CALL            for one address to take the call, while there is another one: a SYN that was lost is sent again after
 *                   1 s, but the next address is asked sooner. The last one has all of MEET_TIMEOUT
 *   MEET_TIMEOUT    as HELLO's (docs/wire.md): a stranger holds a place so long at most */
#define ACCEPT_ROUNDS   16
#define ANSWER_NS       UINT64_C(200000000)
#define RESOLVE_NS      UINT64_C(1000000000)
#define CALL_NS         UINT64_C(250000000)
#define MEET_TIMEOUT_NS UINT64_C(2000000000)

net_slot *net_slot_at(const net *t, size_t i)
{
    return (net_slot *)(void *)(t->slots + i * t->slot_bytes);
}

net_slot *net_slot_find(net *t, transport_peer peer)
{
    size_t i = peer & (MOE_BIT(NET_SLOT_BITS) - 1);

    return peer != 0 && i < t->n_slots && net_slot_at(t, i)->peer == peer ? net_slot_at(t, i) : NULL;
}

static net_slot *take_slot(net *t)
{
    for (size_t i = 0; i < t->n_slots; i++) {
        net_slot *slot = net_slot_at(t, i);

        if (slot->state == NET_FREE) {
            *slot = (net_slot){.state = NET_MEETING,
                               .t = t,
                               .peer = ++t->serial << NET_SLOT_BITS | i,
                               .fd = -1,
                               .since_ns = moe_now_ns(t->clock)};
            t->stats.peers++;
            t->n_meeting++;
            return slot;
        }
    }
    return NULL;
}

void net_slot_free(net_slot *slot)
{
    net *t = slot->t;

    tls_slot_free(slot);
    if (slot->fd >= 0) {
        (void)close(slot->fd);
    }
    t->n_meeting -= slot->state == NET_MEETING;
    t->stats.peers--;
    memset(slot, 0, t->slot_bytes);
    slot->fd = -1;
}

/* The next connect to this name begins with this address, counted from the one that was called last: with that one when
 * it was of use, else with the one after it, so that all have their turn also when each connect has time for one alone. */
static void prefer(net_slot *slot, size_t after_last)
{
    if (slot->question != 0 && slot->n_called > 0) {
        size_t i = (slot->n_called - 1 + after_last) % slot->ips.n;

        moe_resolver_prefer(slot->t->resolver, slot->to.host, &slot->ips.at[i]);
    }
}

void net_slot_fail(net_slot *slot, const char *why)
{
    if (slot->state == NET_MEETING) {
        prefer(slot, 1);
    }
    if (slot->state == NET_MEETING || slot->state == NET_UP) {
        slot->t->n_meeting -= slot->state == NET_MEETING;
        slot->quiet = slot->state == NET_MEETING && !slot->caller;
        slot->state = NET_FAILED;
        (void)snprintf(slot->why, sizeof slot->why, "%s", why);
        slot->t->dirty = true;
    }
}

static void tell(net_slot *slot, transport_peer_event event)
{
    transport *base = &slot->t->base;

    slot->t->n_events++;
    base->handler.on_peer(base->handler.ctx, slot->peer, event, event == TRANSPORT_UP ? "" : slot->why);
}

void net_slot_up(net_slot *slot)
{
    net *t = slot->t;

    prefer(slot, 0);
    slot->state = NET_UP;
    t->n_meeting--;
    *(slot->caller ? &t->stats.connected : &t->stats.accepted) += 1;
    tell(slot, TRANSPORT_UP);
}

void net_slot_down(net_slot *slot)
{
    if (!slot->quiet) {
        tell(slot, slot->n_refused > 0 && slot->n_refused == slot->ips.n ? TRANSPORT_REFUSED : TRANSPORT_DOWN);
    }
    net_slot_free(slot);
}

/* ------------------------------------------------------------------------------------------------ how they begin */
static void watch_socket(net_slot *slot)
{
    socket_set_options(slot->fd);
    if (net_watch(slot->t, slot->fd, EPOLLIN | EPOLLOUT, NET_SOCKET, slot->peer, EPOLL_CTL_ADD) != MOE_OK) {
        net_slot_fail(slot, "no meeting");
    }
}

/* Calls the next address that can be called; the slot fails when there is none, because of `why` if none is left. */
static void call_next(net_slot *slot, const char *why)
{
    moe_error err;

    (void)moe_fail(&err, MOE_ERR_UNAVAILABLE, "%s", why);
    if (slot->fd >= 0) {
        (void)close(slot->fd);
        slot->fd = -1;
    }
    while (slot->n_called < slot->ips.n) {
        moe_status status = socket_connect(&slot->ips.at[slot->n_called++], slot->to.port, &slot->fd, &err);

        slot->n_refused += status == MOE_ERR_NOT_FOUND;
        if (status == MOE_OK) {
            slot->since_ns = moe_now_ns(slot->t->clock);
            slot->connecting = true;
            watch_socket(slot);
            return;
        }
    }
    net_slot_fail(slot, err.text);
}

bool net_slot_connected(net_slot *slot)
{
    int error = 0;
    socklen_t bytes = sizeof error;

    if (getsockopt(slot->fd, SOL_SOCKET, SO_ERROR, &error, &bytes) != 0 || error != 0) {
        slot->n_refused += error == ECONNREFUSED;
        call_next(slot, error == 0 ? "no connection" : strerror(error));
        return false;
    }
    slot->connecting = false;
    return true;
}

/* The name server has been given its time when `kept`: then what is kept is called, and after RESOLVE the slot fails. */
static void take_answer(net_slot *slot, uint64_t waited_ns)
{
    moe_error err;
    bool kept = waited_ns >= ANSWER_NS;
    moe_status status = moe_resolver_get(slot->t->resolver, slot->to.host, slot->question, kept, &slot->ips, &err);

    if (status == MOE_OK) {
        slot->asking = false;
        call_next(slot, "no address");
    } else if (status != MOE_ERR_BUSY || waited_ns >= RESOLVE_NS) {
        net_slot_fail(slot, err.text);
    }
}

void net_slot_go_on(net_slot *slot, uint64_t now)
{
    uint64_t waited_ns = now > slot->since_ns ? now - slot->since_ns : 0;

    if (slot->state != NET_MEETING) {
        return;
    }
    if (slot->asking) {
        take_answer(slot, waited_ns);
    } else if (slot->connecting && slot->n_called < slot->ips.n && waited_ns >= CALL_NS) {
        call_next(slot, "no answer");
    } else if (waited_ns > MEET_TIMEOUT_NS) {
        slot->t->stats.silent += !slot->caller;
        net_slot_fail(slot, "no meeting in time");
    }
}

/* A number is called at once. */
static void begin_connect(net_slot *slot)
{
    moe_error err;

    if (moe_ip_parse(slot->to.host, &slot->ips.at[0])) {
        slot->ips.n = 1;
        call_next(slot, "no address");
    } else if (moe_resolver_ask(slot->t->resolver, slot->to.host, &slot->question, &err) == MOE_OK) {
        slot->asking = true;
    } else {
        net_slot_fail(slot, err.text);
    }
}

moe_status net_connect(transport *base, const char *address, transport_peer *peer_out)
{
    net *t = (net *)base;
    moe_address to;

    if (moe_address_parse("address", address, -1, &to, NULL) != MOE_OK || to.host[0] == '\0') {
        return MOE_ERR_INVALID_ARG;
    }
    net_slot *slot = take_slot(t);
    if (slot == NULL) {
        return MOE_ERR_BUSY;
    }
    *peer_out = slot->peer;
    slot->caller = true;
    slot->to = to;
    if (tls_slot_begin(slot) != MOE_OK) {
        net_slot_fail(slot, "no meeting");
    } else {
        begin_connect(slot);
    }
    return MOE_OK; /* also when it has failed: DOWN is told, with the reason */
}

/* A place for a stranger: a free one, else that of the stranger who has been meeting longest. So many silent
 * connections cannot keep a member out: it needs a few round trips, and they would have to be replaced faster than
 * that. Connections that are up, or that this endpoint makes itself, keep their places. */
static net_slot *place_for_stranger(net *t)
{
    net_slot *slot = take_slot(t), *oldest = NULL;

    if (slot != NULL) {
        return slot;
    }
    for (size_t i = 0; i < t->n_slots; i++) {
        net_slot *s = net_slot_at(t, i);

        if (s->state == NET_MEETING && !s->caller && !s->keeps_place && (oldest == NULL || s->peer < oldest->peer)) {
            oldest = s;
        }
    }
    if (oldest == NULL) {
        return NULL;
    }
    t->stats.silent++;
    net_slot_free(oldest);
    return take_slot(t);
}

void net_take_strangers(net *t)
{
    for (int i = 0; i < ACCEPT_ROUNDS; i++) {
        int fd = accept4(t->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

        if (fd < 0) {
            if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
                net_listen_off(t); /* until the next check: it would be ready all the time */
            }
            return;
        }
        net_slot *slot = place_for_stranger(t);
        if (slot == NULL) {
            t->stats.refused++;
            (void)close(fd);
        } else {
            slot->fd = fd;
            if (tls_slot_begin(slot) != MOE_OK) {
                net_slot_fail(slot, "no meeting");
            } else {
                watch_socket(slot);
            }
        }
    }
}

void net_peer_close(transport *base, transport_peer peer)
{
    net_slot *slot = net_slot_find((net *)base, peer);

    if (slot != NULL) {
        net_slot_fail(slot, "closed");
        slot->quiet = true;
    }
}
