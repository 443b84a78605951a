/* UCX: frames between processes by active messages. Here are the transport itself, its workers and the messages; the
 * peers that they go to and come from, and how those are met and left, are in ucx_peer.c.
 *
 * One UCX worker per connection, not one for all: a frame is thus tied to its connection by the worker that it comes
 * to and the token that it carries, and a worker is destroyed with its connection, whatever the peer left in it.
 *
 * Callbacks of UCX only note what happened; ucx_attend() acts on it outside of them, because an endpoint may not be
 * closed from within its own callback.
 *
 * A worker is active while it may have something to do; active ones are polled. Before a wait idle ones are armed: from
 * then on their descriptor becomes readable when there is work, and the epoll set tells. Arming costs a system call, so
 * it is done when somebody is about to sleep, and not after each turn. */
#include "transport/ucx_priv.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

/* Chosen, not measured, but for LOOK_EVERY.
 *
 *   SEND_TIMEOUT      a frame of 1 MiB leaves far sooner on a network that is of use; UCX would wait for ever
 *   MEET_TIMEOUT      as HELLO's (docs/wire.md): a stranger holds a place so long at most
 *   CHECK_EVERY       how late a time-out may be noticed
 *   CLOSE_TIMEOUT     for the endpoints to end when the transport is closed
 *   PROGRESS_ROUNDS   rounds of one worker in a turn: a peer that never stops sending must not keep the thread from
 *                     the others
 *   LOOK_EVERY        turns between two looks at the sockets while a worker is busy; with this and arming on demand a
 *                     round trip of 4 KB costs 1.08 of a plain socket's (docs/benchmarks.md, bench_transport) */
#define AM_FRAME         1 /* the only kind of active message */
#define MAX_SENDS        16
#define SEND_TIMEOUT_NS  UINT64_C(10000000000)
#define MEET_TIMEOUT_NS  UINT64_C(2000000000)
#define CHECK_EVERY_NS   UINT64_C(100000000)
#define CLOSE_TIMEOUT_NS UINT64_C(5000000000)
#define PROGRESS_ROUNDS  64
#define LOOK_EVERY       8
#define EPOLL_EVENTS     32

/* ------------------------------------------------------------------------------------------------ sends */
static ucx_send *take_send(ucx_slot *slot, transport_msg *msg)
{
    ucx *t = slot->t;
    ucx_send *s = t->free_sends;

    MOE_ASSERT(s != NULL); /* there is one for all that slots may have */
    t->free_sends = s->next;
    *s = (ucx_send){.slot = slot, .msg = msg, .since_ns = moe_now_ns(t->clock), .prev = slot->newest};
    *(slot->newest == NULL ? &slot->oldest : &slot->newest->next) = s;
    slot->newest = s;
    slot->n_out++;
    t->stats.sends++;
    return s;
}

/* Takes a send off its slot's list. */
static void end_send(ucx_send *s, moe_status status)
{
    ucx_slot *slot = s->slot;
    ucx *t = slot->t;
    transport_msg *msg = s->msg;

    *(s->prev == NULL ? &slot->oldest : &s->prev->next) = s->next;
    *(s->next == NULL ? &slot->newest : &s->next->prev) = s->prev;
    slot->n_out--;
    t->stats.sends--;
    s->next = t->free_sends;
    t->free_sends = s;
    if (msg != NULL) {
        msg->done(msg, status);
    }
}

static void on_sent(void *request, ucs_status_t status, void *user_data)
{
    ucx_send *s = user_data;

    if (request != NULL) {
        ucp_request_free(request);
    }
    s->slot->t->n_events++;
    end_send(s, status == UCS_OK ? MOE_OK : s->slot->quiet ? MOE_ERR_CANCELLED : MOE_ERR_UNAVAILABLE);
}

static moe_status ucx_send_frame(transport *base, transport_peer peer, transport_msg *msg)
{
    ucx *t = (ucx *)base;
    ucx_slot *slot = ucx_slot_find(t, peer);
    size_t bytes = 0;

    MOE_ASSERT(msg->n_parts >= 1 && msg->n_parts <= TRANSPORT_MAX_PARTS);
    if (slot == NULL || slot->state != SLOT_UP) {
        return MOE_ERR_UNAVAILABLE;
    }
    for (size_t i = 0; i < msg->n_parts; i++) {
        bytes += msg->parts[i].bytes;
    }
    if (bytes > base->max_message) {
        return MOE_ERR_INVALID_ARG;
    }
    if (slot->n_out >= t->max_sends) {
        return MOE_ERR_BUSY;
    }
    ucx_send *s = take_send(slot, msg);
    for (size_t i = 0; i < msg->n_parts; i++) {
        s->iov[i] = (ucp_dt_iov_t){(void *)(uintptr_t)msg->parts[i].data, msg->parts[i].bytes};
    }
    bool one = msg->n_parts == 1;
    const ucp_request_param_t param = {.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA |
                                                       UCP_OP_ATTR_FIELD_FLAGS | UCP_OP_ATTR_FIELD_DATATYPE,
                                       .flags = UCP_AM_SEND_FLAG_EAGER,
                                       .cb = {.send = on_sent},
                                       .datatype = one ? ucp_dt_make_contig(1) : ucp_dt_make_iov(),
                                       .user_data = s};
    ucs_status_ptr_t request =
        ucp_am_send_nbx(slot->ep, AM_FRAME, slot->token, sizeof slot->token, one ? s->iov[0].buffer : s->iov,
                        one ? s->iov[0].length : msg->n_parts, &param);
    if (UCS_PTR_IS_ERR(request)) {
        s->msg = NULL;
        end_send(s, MOE_OK);
        ucx_slot_fail(slot, ucs_status_string(UCS_PTR_STATUS(request)));
        return MOE_ERR_UNAVAILABLE;
    }
    if (request == NULL) {
        end_send(s, MOE_OK); /* it has gone to the kernel: the worker has nothing to do */
    } else {
        ucx_slot_activate(slot);
    }
    return MOE_OK;
}

/* ------------------------------------------------------------------------------------------------ receive */
static ucs_status_t on_frame(void *arg, const void *header, size_t header_length, void *data, size_t length,
                             const ucp_am_recv_param_t *param)
{
    ucx_slot *slot = arg;
    ucx *t = slot->t;

    if (slot->state != SLOT_UP) {
        return UCS_OK; /* of a connection that is over */
    }
    if (header_length != sizeof slot->token || memcmp(header, slot->token, sizeof slot->token) != 0) {
        t->stats.violations++; /* from a stranger who found the worker's port */
        return UCS_OK;
    }
    if ((param->recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV) != 0 || length > t->base.max_message) {
        t->stats.violations++;
        ucx_slot_fail(slot, length > t->base.max_message ? "frame above the limit" : "message of another kind");
        return UCS_OK;
    }
    t->n_events++;
    t->base.handler.on_message(t->base.handler.ctx, slot->peer, data, length);
    return UCS_OK;
}

/* ------------------------------------------------------------------------------------------------ workers */
moe_status ucx_watch(ucx *t, int fd, uint32_t events, uint64_t kind, transport_peer peer, int op)
{
    struct epoll_event e = {.events = events, .data.u64 = kind << 62 | peer};

    return epoll_ctl(t->epoll_fd, op, fd, &e) == 0 ? MOE_OK : MOE_ERR_IO;
}

void ucx_slot_activate(ucx_slot *slot)
{
    ucx *t = slot->t;

    if (!slot->active && slot->worker != NULL) {
        slot->active = true;
        t->active[t->n_active++] = (uint32_t)(slot - t->slots);
    }
}

/* Before anything can be sent by it. */
moe_status ucx_worker_open(ucx_slot *slot)
{
    const ucp_worker_params_t params = {.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE,
                                        .thread_mode = UCS_THREAD_MODE_SINGLE};
    const ucp_am_handler_param_t handler = {.field_mask =
                                                UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_FLAGS |
                                                UCP_AM_HANDLER_PARAM_FIELD_CB | UCP_AM_HANDLER_PARAM_FIELD_ARG,
                                            .id = AM_FRAME,
                                            .flags = UCP_AM_FLAG_WHOLE_MSG,
                                            .cb = on_frame,
                                            .arg = slot};
    int fd = -1;

    if (ucp_worker_create(slot->t->context, &params, &slot->worker) != UCS_OK) {
        slot->worker = NULL;
        return MOE_ERR_UNAVAILABLE;
    }
    if (ucp_worker_set_am_recv_handler(slot->worker, &handler) != UCS_OK ||
        ucp_worker_get_efd(slot->worker, &fd) != UCS_OK ||
        ucx_watch(slot->t, fd, EPOLLIN, KIND_WORKER, slot->peer, EPOLL_CTL_ADD) != MOE_OK) {
        return MOE_ERR_UNAVAILABLE;
    }
    ucx_slot_activate(slot);
    return MOE_OK;
}

/* ------------------------------------------------------------------------------------------------ progress, wait */
/* Ends connections whose frames do not leave (the peer stands still or the network has gone, and UCX would wait for
 * ever) and meetings that the other end does not go on with. */
static void check_times(ucx *t)
{
    uint64_t now = moe_now_ns(t->clock);

    if ((t->stats.sends == 0 && t->n_meeting == 0 && (t->listening || t->listen_fd < 0)) || now < t->check_ns) {
        return;
    }
    t->check_ns = now + CHECK_EVERY_NS;
    for (size_t i = 0; i < t->n_slots; i++) {
        ucx_slot *slot = &t->slots[i];

        if (slot->state == SLOT_UP && slot->oldest != NULL && now - slot->oldest->since_ns > t->send_timeout_ns) {
            t->stats.timeouts++;
            ucx_slot_fail(slot, "frames do not leave");
        } else if (slot->state == SLOT_MEETING && now - slot->since_ns > MEET_TIMEOUT_NS) {
            t->stats.silent += !slot->caller;
            ucx_slot_fail(slot, "no meeting in time");
        }
    }
    if (!t->listening && t->listen_fd >= 0) {
        t->listening = ucx_watch(t, t->listen_fd, EPOLLIN, KIND_LISTEN, 0, EPOLL_CTL_ADD) == MOE_OK;
    }
}

static void on_event(ucx *t, uint64_t data)
{
    uint64_t count;
    ucx_slot *slot = ucx_slot_find(t, data & (UINT64_MAX >> 2));

    switch (data >> 62) {
    case KIND_LISTEN:
        ucx_on_listen(t);
        break;
    case KIND_WAKE:
        (void)!read(t->wake_fd, &count, sizeof count);
        break;
    case KIND_WORKER:
        if (slot != NULL) {
            ucx_slot_activate(slot);
        }
        break;
    default:
        if (slot != NULL && slot->fd >= 0) {
            ucx_on_socket(slot);
        }
    }
}

/* Workers that do nothing more are armed; from then on the epoll set tells. */
static void arm_workers(ucx *t)
{
    for (size_t i = 0; i < t->n_active;) {
        ucx_slot *slot = &t->slots[t->active[i]];

        if (slot->state == SLOT_CLOSING || ucp_worker_arm(slot->worker) != UCS_OK) {
            i++;
        } else {
            slot->active = false;
            t->active[i] = t->active[--t->n_active];
        }
    }
}

static unsigned ucx_progress(transport *base)
{
    ucx *t = (ucx *)base;
    struct epoll_event events[EPOLL_EVENTS];
    /* While a worker is busy, the others and the sockets are looked at only now and then: it is a system call. */
    bool all = t->n_active == 0 || t->turn++ % LOOK_EVERY == 0;
    int n = all ? epoll_wait(t->epoll_fd, events, EPOLL_EVENTS, 0) : 0;

    t->n_events = 0;
    for (int i = 0; i < n; i++) {
        on_event(t, events[i].data.u64);
    }
    for (size_t i = 0; i < t->n_active; i++) {
        for (int round = 0; round < PROGRESS_ROUNDS && ucp_worker_progress(t->slots[t->active[i]].worker) != 0;
             round++) {
        }
    }
    check_times(t);
    if (t->dirty) {
        ucx_attend(t);
    }
    return t->n_events;
}

static void ucx_wait(transport *base, uint64_t timeout_ns)
{
    ucx *t = (ucx *)base;

    if (!t->dirty) {
        arm_workers(t);
    }
    if (t->n_active > 0 || t->dirty) {
        return; /* there is something to do */
    }
    if (t->stats.sends > 0 || t->n_meeting > 0 || (t->listen_fd >= 0 && !t->listening)) {
        timeout_ns = MOE_MIN(timeout_ns, CHECK_EVERY_NS);
    }
    struct pollfd p = {.fd = t->epoll_fd, .events = POLLIN};
    const struct timespec timeout = {(time_t)(timeout_ns / 1000000000), (long)(timeout_ns % 1000000000)};
    (void)ppoll(&p, 1, timeout_ns == UINT64_MAX ? NULL : &timeout, NULL);
}

static void ucx_wake(transport *base)
{
    uint64_t one = 1;

    (void)!write(((ucx *)base)->wake_fd, &one, sizeof one);
}

static void close_fd(int fd)
{
    if (fd >= 0) {
        (void)close(fd);
    }
}

/* Everything quietly. */
static void close_peers(ucx *t)
{
    uint64_t until = moe_now_ns(moe_clock_real()) + CLOSE_TIMEOUT_NS;

    for (size_t i = 0; i < t->n_slots; i++) {
        ucx_peer_close(&t->base, t->slots[i].peer);
        t->slots[i].quiet = true; /* also those that had failed before */
    }
    t->dirty = true;
    while (t->stats.peers > 0 && moe_now_ns(moe_clock_real()) < until) {
        (void)ucx_progress(&t->base);
    }
}

/* Sends that did not come back in time: the worker is destroyed first, so that UCX cannot read their frames any
 * more. */
static void abandon(ucx_slot *slot)
{
    if (slot->worker != NULL) {
        ucp_worker_destroy(slot->worker);
    }
    while (slot->oldest != NULL) {
        end_send(slot->oldest, MOE_ERR_CANCELLED);
    }
    close_fd(slot->fd);
}

static void ucx_close(transport *base)
{
    ucx *t = (ucx *)base;

    if (t->listen_fd >= 0) {
        ucx_stop_listening(t);
        (void)close(t->listen_fd);
        t->listen_fd = -1;
    }
    if (t->slots != NULL) {
        close_peers(t);
        for (size_t i = 0; i < t->n_slots; i++) {
            abandon(&t->slots[i]);
        }
    }
    if (t->context != NULL) {
        ucp_cleanup(t->context);
    }
    close_fd(t->wake_fd);
    close_fd(t->epoll_fd);
    explicit_bzero(&t->key, sizeof t->key);
    free(t->active);
    free(t->sends);
    free(t->meets);
    free(t->slots);
    free(t);
}

static transport_net_info ucx_info(const transport *base)
{
    const ucx *t = (const ucx *)base;

    return (transport_net_info){.address = t->address, .lane = t->lane, .stats = &t->stats};
}

#define UCX_OPS(lane_name)                                                                                             \
    {                                                                                                                  \
        .name = (lane_name), .connect = ucx_connect, .send = ucx_send_frame, .progress = ucx_progress,                 \
        .wait = ucx_wait, .wake = ucx_wake, .peer_close = ucx_peer_close, .close = ucx_close, .info = ucx_info         \
    }
static const transport_ops tcp_ops = UCX_OPS("ucx-tcp"), rdma_ops = UCX_OPS("rdma");

/* ------------------------------------------------------------------------------------------------ open */
static moe_status epoll_open(ucx *t, moe_error *err)
{
    t->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    t->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (t->epoll_fd < 0 || t->wake_fd < 0 || ucx_watch(t, t->wake_fd, EPOLLIN, KIND_WAKE, 0, EPOLL_CTL_ADD) != MOE_OK) {
        return moe_fail(err, MOE_ERR_UNAVAILABLE, "ucx: epoll: %s", strerror(errno));
    }
    return MOE_OK;
}

static moe_status buffers_open(ucx *t)
{
    size_t n_sends = t->n_slots * t->max_sends;

    t->slots = calloc(t->n_slots, sizeof *t->slots);
    t->meets = calloc(t->n_slots, sizeof *t->meets);
    t->active = calloc(t->n_slots, sizeof *t->active);
    t->sends = calloc(n_sends, sizeof *t->sends);
    if (t->slots == NULL || t->meets == NULL || t->active == NULL || t->sends == NULL) {
        return MOE_ERR_NO_MEMORY;
    }
    for (size_t i = 0; i < t->n_slots; i++) {
        t->slots[i].fd = -1;
    }
    for (size_t i = 0; i < n_sends; i++) {
        t->sends[i].next = t->free_sends;
        t->free_sends = &t->sends[i];
    }
    return MOE_OK;
}

static moe_status check_options(const transport_net_options *o, moe_error *err)
{
    if (o->max_peers == 0 || o->max_peers >= MOE_BIT(UCX_SLOT_BITS) || o->max_message == 0 ||
        o->max_message > UINT32_MAX || o->max_sends > 1024) {
        return moe_fail(err, MOE_ERR_INVALID_ARG,
                        "ucx: %zu peers (1 to %u), frames of %zu bytes (1 to %u), %zu sends (at most 1024)",
                        o->max_peers, MOE_BIT(UCX_SLOT_BITS) - 1, o->max_message, UINT32_MAX, o->max_sends);
    }
    return MOE_OK;
}

moe_status transport_ucx_open(const transport_net_options *o, transport **out, moe_error *err)
{
    char device[SOCKET_MAX_DEVICE] = "";
    moe_status status = check_options(o, err);

    if (status != MOE_OK) {
        return status;
    }
    ucx *t = calloc(1, sizeof *t);
    if (t == NULL) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "ucx");
    }
    t->base = (transport){.ops = o->lane == TRANSPORT_LANE_RDMA ? &rdma_ops : &tcp_ops, .max_message = o->max_message};
    t->clock = o->clock == NULL ? moe_clock_real() : o->clock;
    t->n_slots = o->max_peers;
    t->listen_fd = t->epoll_fd = t->wake_fd = -1;
    t->max_sends = o->max_sends == 0 ? MAX_SENDS : (uint32_t)o->max_sends;
    t->send_timeout_ns = o->send_timeout_ns == 0 ? SEND_TIMEOUT_NS : o->send_timeout_ns;
    status = buffers_open(t);
    if (status == MOE_OK) {
        status = meet_key_init(&t->key, o->secret, o->n_secret);
    }
    if (status != MOE_OK) {
        moe_fail(err, status, "ucx: %zu peers, secret of %zu bytes", o->max_peers, o->n_secret);
    }
    if (status == MOE_OK) {
        status = epoll_open(t, err);
    }
    if (status == MOE_OK && o->listen != NULL) {
        status = socket_listen(o->listen, &t->listen_fd, t->address, device, err);
    }
    if (status == MOE_OK) {
        status = ucx_context_open(o->lane, device, t->lane, &t->context, err);
    }
    if (status != MOE_OK) {
        ucx_close(&t->base);
        return status;
    }
    t->listening = t->listen_fd >= 0 && ucx_watch(t, t->listen_fd, EPOLLIN, KIND_LISTEN, 0, EPOLL_CTL_ADD) == MOE_OK;
    *out = &t->base;
    return MOE_OK;
}
