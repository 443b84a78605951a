/* The connections of an endpoint on a network, as far as its lanes are alike: their places, and how they begin. */
#include "transport/net_priv.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define ACCEPT_ROUNDS 16 /* strangers taken in one turn; chosen, not measured */

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

    if (t->lane->free != NULL) {
        t->lane->free(slot);
    }
    if (slot->fd >= 0) {
        (void)close(slot->fd);
    }
    t->n_meeting -= slot->state == NET_MEETING;
    t->stats.peers--;
    memset(slot, 0, t->slot_bytes);
    slot->fd = -1;
}

void net_slot_fail(net_slot *slot, const char *why)
{
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

    slot->state = NET_UP;
    t->n_meeting--;
    *(slot->caller ? &t->stats.connected : &t->stats.accepted) += 1;
    tell(slot, TRANSPORT_UP);
}

void net_slot_down(net_slot *slot)
{
    if (!slot->quiet) {
        tell(slot, TRANSPORT_DOWN);
    }
    net_slot_free(slot);
}

/* ------------------------------------------------------------------------------------------------ how they begin */
/* Takes fd, also on failure. */
static void begin_meeting(net_slot *slot, int fd, bool caller)
{
    slot->fd = fd;
    slot->caller = slot->connecting = caller;
    socket_set_options(fd);
    if (slot->t->lane->begin(slot) != MOE_OK ||
        net_watch(slot->t, fd, EPOLLIN | EPOLLOUT, NET_SOCKET, slot->peer, EPOLL_CTL_ADD) != MOE_OK) {
        net_slot_fail(slot, "no meeting");
    }
}

bool net_slot_connected(net_slot *slot)
{
    int error = 0;
    socklen_t bytes = sizeof error;

    if (getsockopt(slot->fd, SOL_SOCKET, SO_ERROR, &error, &bytes) != 0 || error != 0) {
        net_slot_fail(slot, error == 0 ? "no connection" : strerror(error));
        return false;
    }
    slot->connecting = false;
    return true;
}

moe_status net_connect(transport *base, const char *address, transport_peer *peer_out)
{
    net *t = (net *)base;
    moe_error err;
    int fd = -1;
    moe_status status = socket_connect(address, &fd, &err);
    net_slot *slot = status == MOE_ERR_INVALID_ARG ? NULL : take_slot(t);

    if (slot == NULL) {
        if (fd >= 0) {
            (void)close(fd);
        }
        return status == MOE_ERR_INVALID_ARG ? status : MOE_ERR_BUSY;
    }
    *peer_out = slot->peer;
    slot->caller = true;
    if (status != MOE_OK) {
        net_slot_fail(slot, err.text); /* DOWN is told, with the reason */
    } else {
        begin_meeting(slot, fd, true);
    }
    return MOE_OK;
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
            begin_meeting(slot, fd, false);
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
