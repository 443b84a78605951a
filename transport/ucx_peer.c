/* The peers of a ucx endpoint: how connections are met, kept and left.
 *
 * UCX's own listener believes every byte it reads; so the address that is published is a socket of ours. Over it two
 * endpoints meet (meet.c), and then each makes a UCX worker for this one connection. The socket stays: when it ends,
 * the connection ends. UCX over tcp does not notice that a silent peer has died; the kernel's keepalive on this socket
 * does.
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

/* ------------------------------------------------------------------------------------------------ slots */
static meet *meet_of(const ucx_slot *slot)
{
    const ucx *t = (const ucx *)slot->s.t;

    return &t->meets[slot - t->slots];
}

static void on_ep_error(void *arg, ucp_ep_h ep, ucs_status_t status)
{
    ucx_slot *slot = arg;

    (void)ep;
    net_slot_fail(&slot->s, ucs_status_string(status));
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
        ssize_t n = send(slot->s.fd, m->out, m->n_out, MSG_NOSIGNAL | MSG_DONTWAIT);

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
    return net_watch(slot->s.t, slot->s.fd, events, NET_SOCKET, slot->s.peer, EPOLL_CTL_MOD) == MOE_OK;
}

static void slot_up(ucx_slot *slot)
{
    memcpy(slot->token, meet_of(slot)->token, sizeof slot->token);
    net_slot_up(&slot->s);
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
    bool operators = status == MOE_ERR_DENIED || status == MOE_ERR_UNSUPPORTED;
    char from[SOCKET_MAX_ADDRESS];

    slot->s.t->stats.denied += status == MOE_ERR_DENIED;
    if (operators && !slot->s.caller) {
        socket_peer_host(slot->s.fd, from);
        MOE_WARN("transport: a member that connected from %s is not used: %s", from, why);
    }
    if (status == MOE_ERR_DENIED && !slot->s.caller && meet_of(slot)->stage == MEET_ADDRESS) {
        meet_refuse(meet_of(slot));
    }
    (void)flush_socket(slot);
    net_slot_fail(&slot->s, why);
}

static void on_meeting(ucx_slot *slot)
{
    unsigned char bytes[512];
    moe_error err = {"the socket does not take our part"};
    moe_status status = MOE_OK;
    ssize_t n = recv(slot->s.fd, bytes, sizeof bytes, MSG_DONTWAIT);

    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
        net_slot_fail(&slot->s, n == 0 ? "closed by the other end while meeting" : strerror(errno));
        return;
    }
    if (n > 0) {
        status = meet_on(slot, bytes, (size_t)n, &err);
    }
    if (status != MOE_OK || !flush_socket(slot)) {
        meeting_failed(slot, status, err.text);
    } else if (meet_of(slot)->stage == MEET_DONE && slot->s.state == NET_MEETING) {
        slot_up(slot);
    }
}

/* ------------------------------------------------------------------------------------------------ the lane */
static moe_status begin(net_slot *base)
{
    return meet_begin(meet_of((ucx_slot *)base), base->caller, &((ucx *)base->t)->key);
}

/* The socket of a connection that is up is silent until it ends. */
static void on_end(ucx_slot *slot)
{
    char byte;
    ssize_t n = recv(slot->s.fd, &byte, 1, MSG_DONTWAIT);

    if (slot->s.state == NET_UP && (n >= 0 || (errno != EAGAIN && errno != EINTR))) {
        while (ucp_worker_progress(slot->worker) != 0) { /* what came before the end */
        }
        net_slot_fail(&slot->s, n == 0  ? "closed by the other end"
                                : n > 0 ? "bytes after the meeting"
                                        : strerror(errno));
    }
}

static void on_event(net_slot *base, net_event_kind kind, uint32_t events)
{
    ucx_slot *slot = (ucx_slot *)base;

    (void)events;
    if (kind == NET_SECOND) {
        ucx_slot_activate(slot);
    } else if (base->fd >= 0 && base->state != NET_MEETING) {
        on_end(slot);
    } else if (base->fd >= 0 && (!base->connecting || net_slot_connected(base))) {
        on_meeting(slot);
    }
}

static uint64_t stands_since(const net_slot *base)
{
    const ucx_slot *slot = (const ucx_slot *)base;

    return slot->oldest != NULL ? slot->oldest->since_ns : UINT64_MAX;
}

const net_lane ucx_net_lane = {.begin = begin, .on_event = on_event, .stands_since = stands_since};

/* ------------------------------------------------------------------------------------------------ close */
static void begin_close(ucx_slot *slot)
{
    const ucp_request_param_t param = {.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS, .flags = UCP_EP_CLOSE_FLAG_FORCE};
    ucs_status_ptr_t request = slot->ep == NULL ? NULL : ucp_ep_close_nbx(slot->ep, &param);

    slot->ep = NULL;
    slot->close = UCS_PTR_IS_PTR(request) ? request : NULL;
    slot->s.state = NET_CLOSING;
    ucx_slot_activate(slot);
}

static void check_close(ucx *t, ucx_slot *slot)
{
    if (slot->close != NULL && ucp_request_check_status(slot->close) != UCS_INPROGRESS) {
        ucp_request_free(slot->close);
        slot->close = NULL;
    }
    if (slot->close != NULL || slot->n_out > 0) {
        t->n.dirty = true;
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
    net_slot_down(&slot->s);
}

/* What callbacks have noted. */
void ucx_attend(ucx *t)
{
    t->n.dirty = false;
    for (size_t i = 0; i < t->n.n_slots; i++) {
        ucx_slot *slot = &t->slots[i];

        if (slot->s.state == NET_FAILED) {
            begin_close(slot);
        }
        if (slot->s.state == NET_CLOSING) {
            check_close(t, slot);
        }
    }
}
