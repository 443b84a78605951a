/* The connections of a tls endpoint: met, used, left.
 *
 * On the wire: one stream of bytes each way for each connection, in it frames, each behind four bytes with its length. The
 * stream is TLS's, or a ring in shared memory. In TLS a frame is encrypted in records of up to 16 KB straight from the
 * sender's memory; only its first record, which begins with the length, and those that join two parts are copied together
 * first. */
#include "transport/tls_priv.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

/* So much is encrypted before it is sent. Measured (docs/benchmarks.md): a call of send over loopback takes as long as encrypting
 * 16 KB, so a frame of two records leaves with one; of a larger one the other end is not to wait for all. */
#define SEND_BYTES ((size_t)CHANNEL_RECORD * 3 / 2)

/* ------------------------------------------------------------------------------------------------ slots */
static tls *endpoint_of(const tls_slot *slot)
{
    return (tls *)slot->s.t;
}

static bool is_by_channel(const tls_slot *slot)
{
    return slot->shm == NULL && slot->ucx == NULL;
}

static void set_wants_out(tls_slot *slot, bool wants_out)
{
    slot->s.t->n_standing += (size_t)wants_out - (size_t)slot->wants_out;
    slot->wants_out = wants_out;
}

static transport_msg *pop_msg(tls_slot *slot)
{
    transport_msg *msg = slot->oldest;

    slot->oldest = msg->next;
    slot->newest = slot->oldest == NULL ? NULL : slot->newest;
    slot->at = 0;
    slot->n_out--;
    slot->s.t->stats.sends--;
    return msg;
}

static void end_msgs(tls_slot *slot, moe_status status)
{
    while (slot->oldest != NULL) {
        transport_msg *msg = pop_msg(slot);

        msg->done(msg, status);
    }
}

static uint32_t place_of(const tls_slot *slot)
{
    return (uint32_t)(slot->s.peer & (MOE_BIT(NET_SLOT_BITS) - 1));
}

static tls_slot *ring_slot(const tls *t, size_t i)
{
    return (tls_slot *)net_slot_at(&t->n, t->rings[i]);
}

static void rings_remove(tls_slot *slot)
{
    tls *t = endpoint_of(slot);

    for (size_t i = 0; slot->shm != NULL && i < t->n_rings; i++) {
        if (ring_slot(t, i) == slot) {
            t->rings[i] = t->rings[--t->n_rings];
            t->n.stats.shm_peers--;
            return;
        }
    }
}

void tls_slot_free(net_slot *base)
{
    tls_slot *slot = (tls_slot *)base;

    set_wants_out(slot, false);
    rings_remove(slot);
    tls_agree_end(slot);
    channel_close(slot->channel);
    moe_pages_free(slot->frame, base->t->base.max_message);
}

void tls_attend(tls *t)
{
    t->n.dirty = false;
    for (size_t i = 0; i < t->n.n_slots; i++) {
        net_slot *base = net_slot_at(&t->n, i);
        tls_slot *slot = (tls_slot *)base;

        if (base->state != NET_FAILED && base->state != NET_CLOSING) {
            continue;
        }
        if (slot->ucx != NULL && !ucx_conn_end(slot->ucx)) {
            base->state = NET_CLOSING;
            t->n.dirty = true;
            continue;
        }
        end_msgs(slot, base->quiet ? MOE_ERR_CANCELLED : MOE_ERR_UNAVAILABLE);
        net_slot_down(base);
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

/* The bytes that lie together from `at` on in a frame with its length in front, which is put into head. */
static const unsigned char *run_of(const transport_msg *msg, size_t at, unsigned char head[TLS_HEAD_BYTES],
                                   size_t *n_out)
{
    if (at < TLS_HEAD_BYTES) {
        put_length(head, bytes_of(msg));
        *n_out = TLS_HEAD_BYTES - at;
        return head + at;
    }
    size_t i = 0;
    for (at -= TLS_HEAD_BYTES; at >= msg->parts[i].bytes; i++) { /* at is within the frame */
        at -= msg->parts[i].bytes;
    }
    *n_out = msg->parts[i].bytes - at;
    return (const unsigned char *)msg->parts[i].data + at;
}

/* The next n bytes of a frame from `at` on: where they lie, or copied together into record. */
static const unsigned char *piece(const transport_msg *msg, size_t at, size_t n, unsigned char *record)
{
    unsigned char head[TLS_HEAD_BYTES];

    for (size_t filled = 0; filled < n;) {
        size_t run;
        const unsigned char *from = run_of(msg, at + filled, head, &run);

        if (filled == 0 && run >= n) { /* never the head: more follows it */
            return from;
        }
        run = MOE_MIN(run, n - filled);
        memcpy(record + filled, from, run);
        filled += run;
    }
    return record;
}

static void end_oldest(tls_slot *slot)
{
    transport_msg *msg = pop_msg(slot);

    slot->s.t->n_events++;
    msg->done(msg, MOE_OK);
}

static size_t bytes_to_send(const tls_slot *slot)
{
    size_t n;

    (void)channel_out(slot->channel, &n);
    return n;
}

/* The records of a frame are as few as possible, and alike: with full ones, a frame of 16 KB would have a second one of the four
 * bytes that the length takes. */
static size_t record_bytes(size_t total)
{
    size_t n_records = (total + CHANNEL_RECORD - 1) / CHANNEL_RECORD;

    return (total + n_records - 1) / n_records;
}

/* Encrypts what is sent at once. The other end decrypts it on a core of its own while the next is encrypted here. */
static void encrypt(tls_slot *slot)
{
    while (slot->oldest != NULL && slot->s.state == NET_UP && bytes_to_send(slot) < SEND_BYTES) {
        size_t total = TLS_HEAD_BYTES + bytes_of(slot->oldest), n = MOE_MIN(total - slot->at, record_bytes(total));
        moe_status status =
            channel_write(slot->channel, piece(slot->oldest, slot->at, n, endpoint_of(slot)->record), n);

        if (status != MOE_OK) {
            if (status != MOE_ERR_BUSY) {
                net_slot_fail(&slot->s, "a frame could not be encrypted");
            }
            return;
        }
        slot->at += n;
        if (slot->at == total) {
            end_oldest(slot);
        }
    }
}

/* Puts frames into the ring while it has room. */
static void push_ring(tls_slot *slot)
{
    while (slot->oldest != NULL && slot->s.state == NET_UP) {
        unsigned char head[TLS_HEAD_BYTES];
        size_t run, n;
        const unsigned char *from = run_of(slot->oldest, slot->at, head, &run);

        if (shm_write(slot->shm, from, run, &n) != MOE_OK) {
            slot->s.t->stats.violations++;
            net_slot_fail(&slot->s, "the shared memory is damaged");
        } else if (n == 0) {
            break;
        } else {
            slot->at += n;
            slot->left_ns = moe_now_ns(slot->s.t->clock);
            if (slot->at == TLS_HEAD_BYTES + bytes_of(slot->oldest)) {
                end_oldest(slot);
            }
        }
    }
    shm_tell(slot->shm);
}

/* Sends what is encrypted. False: the socket takes no more, or there is nothing. */
static bool flush(tls_slot *slot)
{
    size_t n;
    const unsigned char *bytes = channel_out(slot->channel, &n);
    ssize_t sent = n == 0 ? 0 : send(slot->s.fd, bytes, n, MSG_NOSIGNAL | MSG_DONTWAIT);

    if (sent < 0 && errno != EAGAIN && errno != EINTR) {
        net_slot_fail(&slot->s, strerror(errno));
    }
    if (sent <= 0) {
        return false;
    }
    channel_sent(slot->channel, (size_t)sent);
    slot->left_ns = moe_now_ns(slot->s.t->clock);
    return true;
}

static void push(tls_slot *slot)
{
    do {
        encrypt(slot);
    } while (slot->s.state != NET_FAILED && flush(slot));
    if (slot->s.state != NET_MEETING && slot->s.state != NET_UP) {
        return;
    }
    bool wants_out = bytes_to_send(slot) > 0 || slot->s.connecting;
    if (wants_out != slot->wants_out) {
        set_wants_out(slot, wants_out);
        if (net_watch(slot->s.t, slot->s.fd, EPOLLIN | (wants_out ? (uint32_t)EPOLLOUT : 0), NET_SOCKET, slot->s.peer,
                      EPOLL_CTL_MOD) != MOE_OK) {
            net_slot_fail(&slot->s, "epoll");
        }
    }
}

moe_status tls_send(transport *base, transport_peer peer, transport_msg *msg)
{
    tls *t = (tls *)base;
    tls_slot *slot = (tls_slot *)net_slot_find(&t->n, peer);

    MOE_ASSERT(msg->n_parts >= 1 && msg->n_parts <= TRANSPORT_MAX_PARTS);
    if (slot == NULL || slot->s.state != NET_UP) {
        return MOE_ERR_UNAVAILABLE;
    }
    if (bytes_of(msg) > base->max_message || bytes_of(msg) == 0) {
        return MOE_ERR_INVALID_ARG;
    }
    if (slot->ucx != NULL) {
        return ucx_conn_send(slot->ucx, msg);
    }
    MOE_ASSERT(!msg->on_device);
    if (slot->n_out >= t->n.max_sends) {
        return MOE_ERR_BUSY;
    }
    if (slot->oldest == NULL && !slot->wants_out) {
        slot->left_ns = moe_now_ns(t->n.clock);
    }
    msg->next = NULL;
    *(slot->newest == NULL ? &slot->oldest : &slot->newest->next) = msg;
    slot->newest = msg;
    slot->n_out++;
    t->n.stats.sends++;
    if (slot->shm != NULL) {
        push_ring(slot);
    } else {
        push(slot);
    }
    return MOE_OK;
}

/* ------------------------------------------------------------------------------------------------ receiving */
static moe_status read_bytes(tls_slot *slot, void *to, size_t n, size_t *n_out, moe_error *err)
{
    if (slot->shm == NULL) {
        return channel_read(slot->channel, to, n, n_out, err);
    }
    return shm_read(slot->shm, to, n, n_out) == MOE_OK ? MOE_OK
                                                       : moe_fail(err, MOE_ERR_CORRUPT, "the shared memory is damaged");
}

/* Takes some bytes of the frame that is coming; a frame that is whole is delivered. *n_out may be 0. */
static moe_status read_some(tls_slot *slot, size_t *n_out, moe_error *err)
{
    transport *base = &slot->s.t->base;
    bool in_head = slot->n_head < TLS_HEAD_BYTES;
    size_t want = in_head ? TLS_HEAD_BYTES - slot->n_head : slot->frame_bytes - slot->n_frame;
    moe_status status =
        read_bytes(slot, in_head ? slot->head + slot->n_head : slot->frame + slot->n_frame, want, n_out, err);

    if (status != MOE_OK || *n_out == 0) {
        return status;
    }
    *(in_head ? &slot->n_head : &slot->n_frame) += *n_out;
    if (in_head && slot->n_head == TLS_HEAD_BYTES) {
        moe_buf b;

        moe_buf_init(&b, slot->head, TLS_HEAD_BYTES);
        slot->frame_bytes = moe_get_u32(&b);
        if (slot->frame_bytes == 0 || slot->frame_bytes > base->max_message) {
            return moe_fail(err, MOE_ERR_CORRUPT, "frame above the limit");
        }
    } else if (!in_head && slot->n_frame == slot->frame_bytes) {
        slot->n_head = slot->n_frame = 0;
        slot->s.t->n_events++;
        base->handler.on_message(base->handler.ctx, slot->s.peer, slot->frame, slot->frame_bytes);
    }
    return MOE_OK;
}

/* Of a ring at most NET_TURN_BYTES and the rest of a frame. Of the channel all that it holds, which is bounded: nothing
 * would tell of what is left in it. */
static moe_status read_frames(tls_slot *slot, moe_error *err)
{
    moe_status status = MOE_OK;
    size_t n_read = 0, n = 1;

    while (status == MOE_OK && n > 0 && slot->s.state == NET_UP &&
           (slot->shm == NULL || n_read < NET_TURN_BYTES || slot->n_frame > 0)) {
        status = read_some(slot, &n, err);
        n_read += n;
    }
    return status;
}

static void slot_up(tls_slot *slot)
{
    slot->frame = slot->ucx != NULL ? NULL : moe_pages_alloc(slot->s.t->base.max_message);
    if (slot->ucx == NULL && slot->frame == NULL) {
        net_slot_fail(&slot->s, "no memory for frames");
        return;
    }
    if (slot->ucx != NULL && ucx_conn_up(slot->ucx) != MOE_OK) {
        net_slot_fail(&slot->s, "epoll");
        return;
    }
    if (slot->shm != NULL) {
        tls *t = endpoint_of(slot);

        t->rings[t->n_rings++] = place_of(slot);
        t->n.stats.shm_peers++;
        if (net_watch(&t->n, shm_fd(slot->shm), EPOLLIN, NET_SECOND, slot->s.peer, EPOLL_CTL_ADD) != MOE_OK) {
            net_slot_fail(&slot->s, "epoll");
            return;
        }
    }
    net_slot_up(&slot->s);
}

/* Of one that we call the owner of the connection tells: he knows its name. */
static void warn_of_stranger(const tls_slot *slot, const char *why)
{
    char from[SOCKET_MAX_ADDRESS];

    if (!slot->s.caller) {
        socket_peer_host(slot->s.fd, from);
        MOE_WARN("transport: a member that connected from %s is not used: %s", from, why);
    }
}

static moe_status meet(tls_slot *slot, moe_error *err)
{
    moe_status status = channel_handshake(slot->channel, err);
    bool knows = status == MOE_OK;

    if (knows) {
        status = tls_agree(slot, err);
    }
    if (status == MOE_ERR_DENIED && !knows) {
        slot->s.t->stats.denied++;
        warn_of_stranger(slot, err->text);
    } else if (status == MOE_ERR_UNSUPPORTED) {
        warn_of_stranger(slot, err->text);
    } else if (status == MOE_OK) {
        slot_up(slot);
    }
    return status;
}

static void fail_by(tls_slot *slot, moe_status status, const moe_error *err)
{
    slot->s.t->stats.violations += status == MOE_ERR_CORRUPT;
    if (status != MOE_OK && status != MOE_ERR_BUSY) {
        net_slot_fail(&slot->s, err->text);
    }
}

/* Moves the slot on by the bytes that have come. */
static void take_bytes(tls_slot *slot)
{
    moe_error err = {""};
    moe_status status = MOE_OK;

    if (slot->s.state == NET_MEETING) {
        status = meet(slot, &err);
    }
    if (slot->s.state == NET_UP && is_by_channel(slot)) {
        status = read_frames(slot, &err);
    }
    fail_by(slot, status, &err);
}

/* What has come by shared memory, and then what stands there: there may be room now. */
static void take_ring(tls_slot *slot)
{
    moe_error err = {""};

    fail_by(slot, read_frames(slot, &err), &err);
    if (slot->s.state == NET_UP) {
        push_ring(slot);
    } else {
        shm_tell(slot->shm);
    }
}

void tls_take_rings(tls *t)
{
    for (size_t i = 0; i < t->n_rings; i++) { /* none is removed meanwhile */
        if (ring_slot(t, i)->s.state == NET_UP) {
            take_ring(ring_slot(t, i));
        }
    }
}

bool tls_sleep(tls *t)
{
    bool may = true;

    for (size_t i = 0; i < t->n_rings; i++) {
        const tls_slot *slot = ring_slot(t, i);

        may = slot->s.state != NET_UP || shm_sleep(slot->shm, slot->oldest != NULL) ? may : false;
    }
    return may;
}

void tls_awake(tls *t)
{
    for (size_t i = 0; i < t->n_rings; i++) {
        shm_awake(ring_slot(t, i)->shm);
    }
}

static void on_end(tls_slot *slot, ssize_t n)
{
    if (n < 0) {
        net_slot_fail(&slot->s, strerror(errno));
    } else if (slot->s.state == NET_MEETING && slot->s.caller && !slot->agreeing) {
        net_slot_fail(&slot->s,
                      "closed before our proof of the cluster secret was accepted: another secret, or no member");
    } else {
        net_slot_fail(&slot->s, "closed by the other end");
    }
}

static void receive(tls_slot *slot)
{
    size_t n_read = 0;

    while (n_read < NET_TURN_BYTES && (slot->s.state == NET_MEETING || slot->s.state == NET_UP)) {
        size_t room;
        unsigned char *to = channel_in(slot->channel, &room);
        ssize_t n = recv(slot->s.fd, to, room, MSG_DONTWAIT);

        if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            break;
        }
        if (n <= 0) {
            on_end(slot, n);
            break;
        }
        channel_received(slot->channel, (size_t)n);
        n_read += (size_t)n;
        take_bytes(slot);
        if ((size_t)n < room) {
            break;
        }
    }
}

/* Where frames travel by something else, the channel is silent until the connection ends. What the other end has written
 * before that is read. */
static void watch_end(tls_slot *slot, net_event_kind kind)
{
    char byte;

    if (kind == NET_SECOND && slot->ucx != NULL) {
        ucx_conn_wake(slot->ucx);
        return;
    }
    ssize_t n = kind == NET_SOCKET ? recv(slot->s.fd, &byte, 1, MSG_DONTWAIT) : shm_hear(slot->shm) ? -1 : 0;

    if (n > 0) {
        slot->s.t->stats.violations++;
        net_slot_fail(&slot->s, "bytes beside the frames");
    } else if (n == 0 || (kind == NET_SOCKET && errno != EAGAIN && errno != EINTR)) {
        if (slot->ucx != NULL) {
            ucx_conn_drain(slot->ucx);
        } else {
            take_ring(slot);
        }
        net_slot_fail(&slot->s, n == 0 ? "closed by the other end" : strerror(errno));
    }
}

/* ------------------------------------------------------------------------------------------------ of net_priv.h */
moe_status tls_slot_begin(net_slot *base)
{
    tls_slot *slot = (tls_slot *)base;

    set_wants_out(slot, true); /* as the socket is first watched */
    return channel_open(endpoint_of(slot)->key, base->caller, &slot->channel);
}

void tls_slot_on_event(net_slot *base, net_event_kind kind, uint32_t events)
{
    tls_slot *slot = (tls_slot *)base;

    if (base->state != NET_MEETING && base->state != NET_UP) {
        return; /* it has failed in this turn */
    }
    if (base->state == NET_UP && !is_by_channel(slot)) {
        watch_end(slot, kind);
        return;
    }
    if (base->connecting) {
        if (!net_slot_connected(base)) {
            return;
        }
        take_bytes(slot); /* makes our first message */
    }
    if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) {
        receive(slot);
    }
    if (base->state == NET_MEETING || base->state == NET_UP) {
        push(slot);
    }
}

uint64_t tls_slot_stands_since(const net_slot *base)
{
    const tls_slot *slot = (const tls_slot *)base;

    if (slot->ucx != NULL) {
        return ucx_conn_stands_since(slot->ucx);
    }
    return (slot->shm == NULL && bytes_to_send(slot) > 0) || slot->oldest != NULL ? slot->left_ns : UINT64_MAX;
}

const char *tls_slot_carrier(const net_slot *base)
{
    const tls_slot *slot = (const tls_slot *)base;

    return slot->shm != NULL ? "shm" : slot->ucx != NULL ? ucx_transports(endpoint_of(slot)->ucx) : "tls";
}
