/* The peers of a ucx endpoint: how connections are met, kept and left.
 *
 * UCX's own listener believes every byte it reads; so the address that is published is a socket of ours. Over it two
 * endpoints meet (meet.c), and then each makes a UCX worker for this one connection. The socket stays: when it ends,
 * the connection ends. UCX over tcp does not notice that a silent peer has died; the kernel's keepalive on this socket
 * does.
 *
 *   FREE -> MEETING -> UP -> FAILED -> CLOSING -> FREE
 *              |              ^
 *              +--------------+
 *
 * FAILED is where callbacks may put a slot; CLOSING begins outside of them and lasts until the endpoint has ended and
 * all sends have come back. Only then is DOWN told and the slot free, so that no frame's memory is given back while UCX
 * may still read it. */
#include "transport/ucx_priv.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define ACCEPT_ROUNDS 16

/* ------------------------------------------------------------------------------------------------ slots */
ucx_slot *ucx_slot_find(ucx *t, transport_peer peer)
{
    size_t i = peer & (MOE_BIT(UCX_SLOT_BITS) - 1);

    return peer != 0 && i < t->n_slots && t->slots[i].peer == peer ? &t->slots[i] : NULL;
}

static ucx_slot *take_slot(ucx *t)
{
    for (size_t i = 0; i < t->n_slots; i++) {
        ucx_slot *slot = &t->slots[i];

        if (slot->state == SLOT_FREE) {
            *slot = (ucx_slot){
                .t = t, .peer = ++t->serial << UCX_SLOT_BITS | i, .fd = -1, .since_ns = moe_now_ns(t->clock)};
            slot->state = SLOT_MEETING;
            t->stats.peers++;
            t->n_meeting++;
            return slot;
        }
    }
    return NULL;
}

static meet *meet_of(const ucx_slot *slot)
{
    return &slot->t->meets[slot - slot->t->slots];
}

static void tell(ucx *t, const ucx_slot *slot, transport_peer_event event)
{
    t->n_events++;
    t->base.handler.on_peer(t->base.handler.ctx, slot->peer, event, event == TRANSPORT_UP ? "" : slot->why);
}

void ucx_slot_fail(ucx_slot *slot, const char *why)
{
    if (slot->state == SLOT_MEETING || slot->state == SLOT_UP) {
        slot->t->n_meeting -= slot->state == SLOT_MEETING;
        slot->quiet = slot->state == SLOT_MEETING && !slot->caller;
        slot->state = SLOT_FAILED;
        (void)snprintf(slot->why, sizeof slot->why, "%s", why);
        slot->t->dirty = true;
    }
}

static void on_ep_error(void *arg, ucp_ep_h ep, ucs_status_t status)
{
    (void)ep;
    ucx_slot_fail(arg, ucs_status_string(status));
}

/* ------------------------------------------------------------------------------------------------ meeting */
static moe_status offer_worker(ucx_slot *slot, moe_error *err)
{
    ucp_worker_attr_t attr = {.field_mask = UCP_WORKER_ATTR_FIELD_ADDRESS | UCP_WORKER_ATTR_FIELD_ADDRESS_FLAGS,
                              .address_flags = UCP_WORKER_ADDRESS_FLAG_NET_ONLY};
    moe_status status = ucx_worker_open(slot);

    if (status == MOE_OK && ucp_worker_query(slot->worker, &attr) != UCS_OK) {
        status = MOE_ERR_UNAVAILABLE;
    }
    if (status == MOE_OK) {
        status = meet_offer(meet_of(slot), attr.address, attr.address_length);
        ucp_worker_release_address(slot->worker, attr.address);
    }
    return status == MOE_OK ? MOE_OK : moe_fail(err, status, "no UCX worker: %s", moe_status_text(status));
}

static moe_status ep_open(ucx_slot *slot, moe_error *err)
{
    const ucp_ep_params_t params = {.field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS |
                                                  UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE | UCP_EP_PARAM_FIELD_ERR_HANDLER,
                                    .address = (const ucp_address_t *)meet_of(slot)->theirs,
                                    .err_mode = UCP_ERR_HANDLING_MODE_PEER,
                                    .err_handler = {on_ep_error, slot}};
    ucs_status_t status = ucp_ep_create(slot->worker, &params, &slot->ep);

    if (status != UCS_OK) {
        slot->ep = NULL;
        return moe_fail(err, MOE_ERR_UNAVAILABLE, "no UCX endpoint: %s", ucs_status_string(status));
    }
    return MOE_OK;
}

static bool flush_socket(ucx_slot *slot)
{
    meet *m = meet_of(slot);

    while (m->n_out > 0) {
        ssize_t n = send(slot->fd, m->out, m->n_out, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            break;
        }
        if (n <= 0) {
            return false;
        }
        m->n_out -= (size_t)n;
        memmove(m->out, m->out + n, m->n_out);
    }
    uint32_t events = EPOLLIN | (m->n_out > 0 ? (uint32_t)EPOLLOUT : 0);
    return ucx_watch(slot->t, slot->fd, events, KIND_SOCKET, slot->peer, EPOLL_CTL_MOD) == MOE_OK;
}

static void slot_up(ucx_slot *slot)
{
    ucx *t = slot->t;

    memcpy(slot->token, meet_of(slot)->token, sizeof slot->token);
    slot->state = SLOT_UP;
    t->n_meeting--;
    *(slot->caller ? &t->stats.connected : &t->stats.accepted) += 1;
    tell(t, slot, TRANSPORT_UP);
}

/* Moves the meeting on by what has come. */
static moe_status meet_on(ucx_slot *slot, const unsigned char *bytes, size_t n, moe_error *err)
{
    meet *m = meet_of(slot);
    moe_status status = MOE_OK;

    while (status == MOE_OK && n > 0) {
        size_t used;

        status = meet_receive(m, bytes, n, &used, err);
        if (status == MOE_OK && (m->stage == MEET_CALL || m->stage == MEET_ANSWER)) {
            status = offer_worker(slot, err);
        }
        if (status == MOE_OK && m->stage == MEET_DONE && slot->ep == NULL) {
            status = ep_open(slot, err);
        } else if (status == MOE_OK && used == 0) {
            status = moe_fail(err, MOE_ERR_CORRUPT, "bytes after the meeting");
        }
        bytes += used;
        n -= used;
    }
    return status;
}

/* A member that connects and is refused for its secret is told so; the operator is told that and a wrong version. Of one
 * that we connect to the owner of the connection tells: he knows its name. */
static void meeting_failed(ucx_slot *slot, moe_status status, const char *why)
{
    ucx *t = slot->t;
    bool operators = status == MOE_ERR_DENIED || status == MOE_ERR_UNSUPPORTED;
    char from[SOCKET_MAX_ADDRESS];

    t->stats.denied += status == MOE_ERR_DENIED;
    if (operators && !slot->caller) {
        socket_peer_host(slot->fd, from);
        MOE_WARN("transport: a member that connected from %s is not used: %s", from, why);
    }
    if (status == MOE_ERR_DENIED && !slot->caller && meet_of(slot)->stage == MEET_ADDRESS) {
        meet_refuse(meet_of(slot));
    }
    (void)flush_socket(slot);
    ucx_slot_fail(slot, why);
}

static void on_meeting(ucx_slot *slot)
{
    unsigned char bytes[512];
    moe_error err = {"the socket does not take our part"};
    moe_status status = MOE_OK;
    ssize_t n = recv(slot->fd, bytes, sizeof bytes, MSG_DONTWAIT);

    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
        ucx_slot_fail(slot, n == 0 ? "closed by the other end while meeting" : strerror(errno));
        return;
    }
    if (n > 0) {
        status = meet_on(slot, bytes, (size_t)n, &err);
    }
    if (status != MOE_OK || !flush_socket(slot)) {
        meeting_failed(slot, status, err.text);
    } else if (meet_of(slot)->stage == MEET_DONE && slot->state == SLOT_MEETING) {
        slot_up(slot);
    }
}

/* ------------------------------------------------------------------------------------------------ sockets */
/* Takes fd, also on failure. */
static moe_status begin_meeting(ucx_slot *slot, int fd, bool caller)
{
    slot->fd = fd;
    slot->caller = slot->connecting = caller;
    socket_set_options(fd);
    moe_status status = meet_begin(meet_of(slot), caller, &slot->t->key);
    return status == MOE_OK ? ucx_watch(slot->t, fd, EPOLLIN | EPOLLOUT, KIND_SOCKET, slot->peer, EPOLL_CTL_ADD)
                            : status;
}

void ucx_on_socket(ucx_slot *slot)
{
    int error = 0;
    socklen_t bytes = sizeof error;
    char byte;

    if (slot->state == SLOT_MEETING) {
        if (slot->connecting) {
            if (getsockopt(slot->fd, SOL_SOCKET, SO_ERROR, &error, &bytes) != 0 || error != 0) {
                ucx_slot_fail(slot, error == 0 ? "no connection" : strerror(error));
                return;
            }
            slot->connecting = false;
        }
        on_meeting(slot);
        return;
    }
    ssize_t n = recv(slot->fd, &byte, 1, MSG_DONTWAIT);
    if (slot->state == SLOT_UP && (n >= 0 || (errno != EAGAIN && errno != EINTR))) {
        while (ucp_worker_progress(slot->worker) != 0) { /* what came before the end */
        }
        ucx_slot_fail(slot, n == 0 ? "closed by the other end" : n > 0 ? "bytes after the meeting" : strerror(errno));
    }
}

static void free_slot(ucx *t, ucx_slot *slot)
{
    if (slot->fd >= 0) {
        (void)close(slot->fd);
    }
    *slot = (ucx_slot){.state = SLOT_FREE, .fd = -1};
    t->stats.peers--;
}

/* A place for a stranger: a free one, else that of the stranger who has been meeting longest. So many silent
 * connections cannot keep a member out: it needs a few round trips, and they would have to be replaced faster than
 * that. Connections that are up, or that this endpoint makes itself, keep their places. */
static ucx_slot *place_for_stranger(ucx *t)
{
    ucx_slot *slot = take_slot(t), *oldest = NULL;

    if (slot != NULL) {
        return slot;
    }
    for (size_t i = 0; i < t->n_slots; i++) {
        ucx_slot *s = &t->slots[i];

        if (s->state == SLOT_MEETING && !s->caller && s->worker == NULL && (oldest == NULL || s->peer < oldest->peer)) {
            oldest = s;
        }
    }
    if (oldest == NULL) {
        return NULL;
    }
    t->n_meeting--;
    t->stats.silent++;
    free_slot(t, oldest);
    return take_slot(t);
}

void ucx_stop_listening(ucx *t)
{
    if (t->listening) {
        t->listening = false;
        (void)epoll_ctl(t->epoll_fd, EPOLL_CTL_DEL, t->listen_fd, NULL);
    }
}

void ucx_on_listen(ucx *t)
{
    for (int i = 0; i < ACCEPT_ROUNDS; i++) {
        int fd = accept4(t->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

        if (fd < 0) {
            if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
                ucx_stop_listening(t); /* until the next check: it would be ready all the time */
            }
            return;
        }
        ucx_slot *slot = place_for_stranger(t);
        if (slot == NULL) {
            t->stats.refused++;
            (void)close(fd);
        } else if (begin_meeting(slot, fd, false) != MOE_OK) {
            ucx_slot_fail(slot, "no meeting");
        }
    }
}

moe_status ucx_connect(transport *base, const char *address, transport_peer *peer_out)
{
    ucx *t = (ucx *)base;
    moe_error err;
    int fd = -1;
    moe_status status = socket_connect(address, &fd, &err);
    ucx_slot *slot = status == MOE_ERR_INVALID_ARG ? NULL : take_slot(t);

    if (slot == NULL) {
        if (fd >= 0) {
            (void)close(fd);
        }
        return status == MOE_ERR_INVALID_ARG ? status : MOE_ERR_BUSY;
    }
    *peer_out = slot->peer;
    slot->caller = true;
    if (status != MOE_OK) {
        ucx_slot_fail(slot, err.text); /* DOWN is told, with the reason */
    } else if (begin_meeting(slot, fd, true) != MOE_OK) {
        ucx_slot_fail(slot, "no meeting");
    }
    return MOE_OK;
}

/* ------------------------------------------------------------------------------------------------ close */
static void begin_close(ucx_slot *slot)
{
    const ucp_request_param_t param = {.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS, .flags = UCP_EP_CLOSE_FLAG_FORCE};
    ucs_status_ptr_t request = slot->ep == NULL ? NULL : ucp_ep_close_nbx(slot->ep, &param);

    slot->ep = NULL;
    slot->close = UCS_PTR_IS_PTR(request) ? request : NULL;
    slot->state = SLOT_CLOSING;
    ucx_slot_activate(slot);
}

static void check_close(ucx *t, ucx_slot *slot)
{
    if (slot->close != NULL && ucp_request_check_status(slot->close) != UCS_INPROGRESS) {
        ucp_request_free(slot->close);
        slot->close = NULL;
    }
    if (slot->close != NULL || slot->n_out > 0) {
        t->dirty = true;
        ucx_slot_activate(slot);
        return;
    }
    for (size_t i = 0; slot->active && i < t->n_active; i++) {
        if (t->active[i] == (uint32_t)(slot - t->slots)) {
            t->active[i] = t->active[--t->n_active];
            slot->active = false;
        }
    }
    if (slot->worker != NULL) {
        ucp_worker_destroy(slot->worker);
    }
    slot->worker = NULL;
    if (!slot->quiet) {
        tell(t, slot, TRANSPORT_DOWN);
    }
    free_slot(t, slot);
}

/* What callbacks have noted. */
void ucx_attend(ucx *t)
{
    t->dirty = false;
    for (size_t i = 0; i < t->n_slots; i++) {
        ucx_slot *slot = &t->slots[i];

        if (slot->state == SLOT_FAILED) {
            begin_close(slot);
        }
        if (slot->state == SLOT_CLOSING) {
            check_close(t, slot);
        }
    }
}

void ucx_peer_close(transport *base, transport_peer peer)
{
    ucx_slot *slot = ucx_slot_find((ucx *)base, peer);

    if (slot != NULL) {
        ucx_slot_fail(slot, "closed");
        slot->quiet = true;
    }
}
