/* The connections of a tls endpoint: met, used, left.
 *
 *   FREE -> MEETING -> UP -> FAILED -> FREE
 *              |               ^
 *              +---------------+
 *
 * Whatever ends a connection only notes it (tls_slot_fail), because it may happen below a callback of whoever uses the
 * transport; tls_attend() closes at the end of the turn.
 *
 * On the wire: one TLS stream for each connection, in it frames, each behind four bytes with its length. A frame is
 * encrypted in records of up to 16 KB straight from the sender's memory; only its first record, which begins with the
 * length, and those that join two parts are copied together first. */
#include "transport/tls_priv.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

/* Chosen, not measured.
 *
 *   ACCEPT_ROUNDS    strangers taken in one turn
 *   RECEIVE_ROUNDS   times that one connection is read in one turn, so that a peer which never stops sending does not
 *                    keep the thread from the others */
#define ACCEPT_ROUNDS  16
#define RECEIVE_ROUNDS 4

/* ------------------------------------------------------------------------------------------------ slots */
tls_slot *tls_slot_find(tls *t, transport_peer peer)
{
    size_t i = peer & (MOE_BIT(TLS_SLOT_BITS) - 1);

    return peer != 0 && i < t->n_slots && t->slots[i].peer == peer ? &t->slots[i] : NULL;
}

static tls_slot *take_slot(tls *t)
{
    for (size_t i = 0; i < t->n_slots; i++) {
        tls_slot *slot = &t->slots[i];

        if (slot->state == TLS_FREE) {
            *slot = (tls_slot){.state = TLS_MEETING,
                               .t = t,
                               .peer = ++t->serial << TLS_SLOT_BITS | i,
                               .fd = -1,
                               .since_ns = moe_now_ns(t->clock)};
            t->stats.peers++;
            t->n_meeting++;
            return slot;
        }
    }
    return NULL;
}

void tls_slot_fail(tls_slot *slot, const char *why)
{
    if (slot->state == TLS_MEETING || slot->state == TLS_UP) {
        slot->t->n_meeting -= slot->state == TLS_MEETING;
        slot->quiet = slot->state == TLS_MEETING && !slot->caller;
        slot->state = TLS_FAILED;
        (void)snprintf(slot->why, sizeof slot->why, "%s", why);
        slot->t->dirty = true;
    }
}

static transport_msg *pop_msg(tls_slot *slot)
{
    transport_msg *msg = slot->oldest;

    slot->oldest = msg->next;
    slot->newest = slot->oldest == NULL ? NULL : slot->newest;
    slot->at = 0;
    slot->n_out--;
    slot->t->stats.sends--;
    return msg;
}

static void end_msgs(tls_slot *slot, moe_status status)
{
    while (slot->oldest != NULL) {
        transport_msg *msg = pop_msg(slot);

        msg->done(msg, status);
    }
}

static void free_slot(tls_slot *slot)
{
    tls *t = slot->t;

    channel_close(slot->channel);
    moe_pages_free(slot->frame, t->base.max_message);
    if (slot->fd >= 0) {
        (void)close(slot->fd);
    }
    *slot = (tls_slot){.state = TLS_FREE, .fd = -1};
    t->stats.peers--;
}

static void tell(tls_slot *slot, transport_peer_event event)
{
    transport *base = &slot->t->base;

    slot->t->n_events++;
    base->handler.on_peer(base->handler.ctx, slot->peer, event, event == TRANSPORT_UP ? "" : slot->why);
}

void tls_attend(tls *t)
{
    t->dirty = false;
    for (size_t i = 0; i < t->n_slots; i++) {
        tls_slot *slot = &t->slots[i];

        if (slot->state == TLS_FAILED) {
            end_msgs(slot, slot->quiet ? MOE_ERR_CANCELLED : MOE_ERR_UNAVAILABLE);
            if (!slot->quiet) {
                tell(slot, TRANSPORT_DOWN);
            }
            free_slot(slot);
        }
    }
}

/* ------------------------------------------------------------------------------------------------ sending */
static size_t bytes_of(const transport_msg *msg)
{
    size_t bytes = 0;

    for (size_t i = 0; i < msg->n_parts; i++) {
        bytes += msg->parts[i].bytes;
    }
    return bytes;
}

static void put_length(unsigned char head[TLS_HEAD_BYTES], size_t n)
{
    moe_buf b;

    moe_buf_init(&b, head, TLS_HEAD_BYTES);
    moe_put_u32(&b, (uint32_t)n);
}

/* The next n bytes of a frame from `at` on, its length in front: where they lie, or copied together into record. */
static const unsigned char *piece(const transport_msg *msg, size_t at, size_t n, unsigned char *record)
{
    unsigned char head[TLS_HEAD_BYTES];
    size_t begin = 0, filled = 0; /* begin: where a part lies in the frame */

    put_length(head, bytes_of(msg));
    for (size_t i = 0; i <= msg->n_parts && filled < n; i++) {
        const unsigned char *from = i == 0 ? head : msg->parts[i - 1].data;
        size_t bytes = i == 0 ? sizeof head : msg->parts[i - 1].bytes;

        if (at + filled < begin + bytes) {
            size_t skip = at + filled - begin, take = MOE_MIN(bytes - skip, n - filled);

            if (i > 0 && take == n) {
                return from + skip;
            }
            memcpy(record + filled, from + skip, take);
            filled += take;
        }
        begin += bytes;
    }
    return record;
}

/* Encrypts records of the oldest frame while there is room for them. False: nothing could be done. */
static bool encrypt(tls_slot *slot)
{
    bool any = false;

    while (slot->oldest != NULL && slot->state == TLS_UP) {
        size_t total = TLS_HEAD_BYTES + bytes_of(slot->oldest), n = MOE_MIN(total - slot->at, (size_t)CHANNEL_RECORD);
        moe_status status = channel_write(slot->channel, piece(slot->oldest, slot->at, n, slot->t->record), n);

        if (status != MOE_OK) {
            if (status != MOE_ERR_BUSY) {
                tls_slot_fail(slot, "a frame could not be encrypted");
            }
            return any;
        }
        any = true;
        slot->at += n;
        if (slot->at == total) {
            transport_msg *msg = pop_msg(slot);

            slot->t->n_events++;
            msg->done(msg, MOE_OK);
        }
    }
    return any;
}

/* Sends what is encrypted. False: the socket takes no more, or there is nothing. */
static bool flush(tls_slot *slot)
{
    size_t n;
    const unsigned char *bytes = channel_out(slot->channel, &n);
    ssize_t sent = n == 0 ? 0 : send(slot->fd, bytes, n, MSG_NOSIGNAL | MSG_DONTWAIT);

    if (sent < 0 && errno != EAGAIN && errno != EINTR) {
        tls_slot_fail(slot, strerror(errno));
    }
    if (sent <= 0) {
        return false;
    }
    channel_sent(slot->channel, (size_t)sent);
    slot->since_ns = moe_now_ns(slot->t->clock);
    return true;
}

void tls_push(tls_slot *slot)
{
    size_t left;

    do {
        (void)encrypt(slot);
    } while (slot->state != TLS_FAILED && flush(slot));
    if (slot->state != TLS_MEETING && slot->state != TLS_UP) {
        return;
    }
    (void)channel_out(slot->channel, &left);
    bool wants_out = left > 0 || slot->connecting;
    if (wants_out != slot->wants_out) {
        slot->wants_out = wants_out;
        if (tls_watch(slot->t, slot->fd, EPOLLIN | (wants_out ? (uint32_t)EPOLLOUT : 0), TLS_KIND_SOCKET, slot->peer,
                      EPOLL_CTL_MOD) != MOE_OK) {
            tls_slot_fail(slot, "epoll");
        }
    }
}

moe_status tls_send(transport *base, transport_peer peer, transport_msg *msg)
{
    tls *t = (tls *)base;
    tls_slot *slot = tls_slot_find(t, peer);

    MOE_ASSERT(msg->n_parts >= 1 && msg->n_parts <= TRANSPORT_MAX_PARTS);
    if (slot == NULL || slot->state != TLS_UP) {
        return MOE_ERR_UNAVAILABLE;
    }
    if (bytes_of(msg) > base->max_message || bytes_of(msg) == 0) {
        return MOE_ERR_INVALID_ARG;
    }
    if (slot->n_out >= t->max_sends) {
        return MOE_ERR_BUSY;
    }
    if (slot->oldest == NULL && !slot->wants_out) {
        slot->since_ns = moe_now_ns(t->clock);
    }
    msg->next = NULL;
    *(slot->newest == NULL ? &slot->oldest : &slot->newest->next) = msg;
    slot->newest = msg;
    slot->n_out++;
    t->stats.sends++;
    tls_push(slot);
    return MOE_OK;
}

/* ------------------------------------------------------------------------------------------------ receiving */
/* Delivers the frames that have come whole. */
static moe_status read_frames(tls_slot *slot, moe_error *err)
{
    tls *t = slot->t;
    moe_status status = MOE_OK;

    while (status == MOE_OK && slot->state == TLS_UP) {
        bool in_head = slot->n_head < TLS_HEAD_BYTES;
        size_t got, want = in_head ? TLS_HEAD_BYTES - slot->n_head : slot->frame_bytes - slot->n_frame;

        status = channel_read(slot->channel, in_head ? slot->head + slot->n_head : slot->frame + slot->n_frame, want,
                              &got, err);
        if (status != MOE_OK || got == 0) {
            break;
        }
        *(in_head ? &slot->n_head : &slot->n_frame) += got;
        if (in_head && slot->n_head == TLS_HEAD_BYTES) {
            moe_buf b;

            moe_buf_init(&b, slot->head, TLS_HEAD_BYTES);
            slot->frame_bytes = moe_get_u32(&b);
            if (slot->frame_bytes == 0 || slot->frame_bytes > t->base.max_message) {
                return moe_fail(err, MOE_ERR_CORRUPT, "frame above the limit");
            }
        } else if (!in_head && slot->n_frame == slot->frame_bytes) {
            slot->n_head = slot->n_frame = 0;
            t->n_events++;
            t->base.handler.on_message(t->base.handler.ctx, slot->peer, slot->frame, slot->frame_bytes);
        }
    }
    return status;
}

static void slot_up(tls_slot *slot)
{
    tls *t = slot->t;

    slot->frame = moe_pages_alloc(t->base.max_message);
    if (slot->frame == NULL) {
        tls_slot_fail(slot, "no memory for frames");
        return;
    }
    slot->state = TLS_UP;
    t->n_meeting--;
    *(slot->caller ? &t->stats.connected : &t->stats.accepted) += 1;
    tell(slot, TRANSPORT_UP);
}

/* Moves the slot on by the bytes that have come. */
static void take_bytes(tls_slot *slot)
{
    moe_error err = {""};
    moe_status status = MOE_OK;

    if (slot->state == TLS_MEETING) {
        status = channel_handshake(slot->channel, &err);
        if (status == MOE_ERR_DENIED) {
            slot->t->stats.denied++;
            MOE_WARN("transport: a member that %s is not used: %s", slot->caller ? "this one called" : "called",
                     err.text);
        } else if (status == MOE_OK) {
            slot_up(slot);
        }
    }
    if (slot->state == TLS_UP) {
        status = read_frames(slot, &err);
        slot->t->stats.violations += status == MOE_ERR_CORRUPT;
    }
    if (status != MOE_OK && status != MOE_ERR_BUSY) {
        tls_slot_fail(slot, err.text);
    }
}

static void on_end(tls_slot *slot, ssize_t n)
{
    if (n < 0) {
        tls_slot_fail(slot, strerror(errno));
    } else if (slot->state == TLS_MEETING && slot->caller) {
        tls_slot_fail(slot, "closed before our proof of the cluster secret was accepted: another secret, or no member");
    } else {
        tls_slot_fail(slot, "closed by the other end");
    }
}

static void receive(tls_slot *slot)
{
    for (int round = 0; round < RECEIVE_ROUNDS && (slot->state == TLS_MEETING || slot->state == TLS_UP); round++) {
        size_t room;
        unsigned char *to = channel_in(slot->channel, &room);
        ssize_t n = recv(slot->fd, to, room, MSG_DONTWAIT);

        if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            break;
        }
        if (n <= 0) {
            on_end(slot, n);
            break;
        }
        channel_received(slot->channel, (size_t)n);
        take_bytes(slot);
        if ((size_t)n < room) {
            break;
        }
    }
}

/* ------------------------------------------------------------------------------------------------ sockets */
/* Takes fd, also on failure. */
static moe_status begin_meeting(tls_slot *slot, int fd, bool caller)
{
    slot->fd = fd;
    slot->caller = slot->connecting = caller;
    slot->wants_out = true;
    socket_set_options(fd);
    moe_status status = channel_open(slot->t->key, caller, &slot->channel);
    return status == MOE_OK ? tls_watch(slot->t, fd, EPOLLIN | EPOLLOUT, TLS_KIND_SOCKET, slot->peer, EPOLL_CTL_ADD)
                            : status;
}

/* A connect of ours has ended, well or not. */
static bool connected(tls_slot *slot)
{
    int error = 0;
    socklen_t bytes = sizeof error;

    if (getsockopt(slot->fd, SOL_SOCKET, SO_ERROR, &error, &bytes) != 0 || error != 0) {
        tls_slot_fail(slot, error == 0 ? "no connection" : strerror(error));
        return false;
    }
    slot->connecting = false;
    take_bytes(slot); /* makes our first message */
    return slot->state == TLS_MEETING;
}

void tls_on_socket(tls_slot *slot, uint32_t events)
{
    if (slot->connecting && !connected(slot)) {
        return;
    }
    if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) {
        receive(slot);
    }
    if (slot->state == TLS_MEETING || slot->state == TLS_UP) {
        tls_push(slot);
    }
}

/* A place for a stranger: a free one, else that of the stranger who has been meeting longest, so that silent
 * connections cannot keep a member out. Connections that are up, or that this endpoint makes itself, keep theirs. */
static tls_slot *place_for_stranger(tls *t)
{
    tls_slot *slot = take_slot(t), *oldest = NULL;

    if (slot != NULL) {
        return slot;
    }
    for (size_t i = 0; i < t->n_slots; i++) {
        tls_slot *s = &t->slots[i];

        if (s->state == TLS_MEETING && !s->caller && (oldest == NULL || s->peer < oldest->peer)) {
            oldest = s;
        }
    }
    if (oldest == NULL) {
        return NULL;
    }
    t->n_meeting--;
    t->stats.silent++;
    free_slot(oldest);
    return take_slot(t);
}

void tls_stop_listening(tls *t)
{
    if (t->listening) {
        t->listening = false;
        (void)epoll_ctl(t->epoll_fd, EPOLL_CTL_DEL, t->listen_fd, NULL);
    }
}

void tls_on_listen(tls *t)
{
    for (int i = 0; i < ACCEPT_ROUNDS; i++) {
        int fd = accept4(t->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

        if (fd < 0) {
            if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
                tls_stop_listening(t); /* until the next check: it would be ready all the time */
            }
            return;
        }
        tls_slot *slot = place_for_stranger(t);
        if (slot == NULL) {
            t->stats.refused++;
            (void)close(fd);
        } else if (begin_meeting(slot, fd, false) != MOE_OK) {
            tls_slot_fail(slot, "no memory for a meeting");
        }
    }
}

moe_status tls_connect(transport *base, const char *address, transport_peer *peer_out)
{
    tls *t = (tls *)base;
    int fd;
    moe_status status = socket_connect(address, &fd, NULL);

    if (status != MOE_OK) {
        return status;
    }
    tls_slot *slot = take_slot(t);
    if (slot == NULL) {
        (void)close(fd);
        return MOE_ERR_BUSY;
    }
    *peer_out = slot->peer;
    if (begin_meeting(slot, fd, true) != MOE_OK) {
        tls_slot_fail(slot, "no memory for a meeting");
    }
    return MOE_OK;
}

void tls_peer_close(transport *base, transport_peer peer)
{
    tls_slot *slot = tls_slot_find((tls *)base, peer);

    if (slot != NULL) {
        tls_slot_fail(slot, "closed");
        slot->quiet = true;
    }
}
