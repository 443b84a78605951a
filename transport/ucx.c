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

#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

/* Chosen, not measured, but for LOOK_EVERY.
 *
 *   CLOSE_TIMEOUT     for the endpoints to end when the transport is closed
 *   PROGRESS_ROUNDS   rounds of one worker in a turn, as NET_TURN_BYTES for what is no frame
 *   LOOK_EVERY        turns between two looks at the sockets while a worker is busy; with this and arming on demand a
 *                     round trip of 4 KB costs 1.08 of a plain socket's (docs/benchmarks.md, bench_transport) */
#define AM_FRAME         1 /* the only kind of active message */
#define CLOSE_TIMEOUT_NS UINT64_C(5000000000)
#define PROGRESS_ROUNDS  64
#define LOOK_EVERY       8

/* ------------------------------------------------------------------------------------------------ sends */
static ucx_send *take_send(ucx_slot *slot, transport_msg *msg)
{
    ucx *t = (ucx *)slot->s.t;
    ucx_send *s = t->free_sends;

    MOE_ASSERT(s != NULL); /* there is one for all that slots may have */
    t->free_sends = s->next;
    *s = (ucx_send){.slot = slot, .msg = msg, .since_ns = moe_now_ns(t->n.clock), .prev = slot->newest};
    *(slot->newest == NULL ? &slot->oldest : &slot->newest->next) = s;
    slot->newest = s;
    slot->n_out++;
    t->n.stats.sends++;
    return s;
}

/* Takes a send off its slot's list. */
static void end_send(ucx_send *s, moe_status status)
{
    ucx_slot *slot = s->slot;
    ucx *t = (ucx *)slot->s.t;
    transport_msg *msg = s->msg;

    *(s->prev == NULL ? &slot->oldest : &s->prev->next) = s->next;
    *(s->next == NULL ? &slot->newest : &s->next->prev) = s->prev;
    slot->n_out--;
    t->n.stats.sends--;
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
    s->slot->s.t->n_events++;
    end_send(s, status == UCS_OK ? MOE_OK : s->slot->s.quiet ? MOE_ERR_CANCELLED : MOE_ERR_UNAVAILABLE);
}

static moe_status ucx_send_frame(transport *base, transport_peer peer, transport_msg *msg)
{
    ucx *t = (ucx *)base;
    ucx_slot *slot = (ucx_slot *)net_slot_find(&t->n, peer);
    size_t bytes = 0;

    MOE_ASSERT(msg->n_parts >= 1 && msg->n_parts <= TRANSPORT_MAX_PARTS);
    if (slot == NULL || slot->s.state != NET_UP) {
        return MOE_ERR_UNAVAILABLE;
    }
    for (size_t i = 0; i < msg->n_parts; i++) {
        bytes += msg->parts[i].bytes;
    }
    if (bytes > base->max_message) {
        return MOE_ERR_INVALID_ARG;
    }
    if (slot->n_out >= t->n.max_sends) {
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
        net_slot_fail(&slot->s, ucs_status_string(UCS_PTR_STATUS(request)));
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
    ucx *t = (ucx *)slot->s.t;

    if (slot->s.state != NET_UP) {
        return UCS_OK; /* of a connection that is over */
    }
    if (header_length != sizeof slot->token || memcmp(header, slot->token, sizeof slot->token) != 0) {
        t->n.stats.violations++; /* from a stranger who found the worker's port */
        return UCS_OK;
    }
    if ((param->recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV) != 0 || length > t->n.base.max_message) {
        t->n.stats.violations++;
        net_slot_fail(&slot->s, length > t->n.base.max_message ? "frame above the limit" : "message of another kind");
        return UCS_OK;
    }
    t->n.n_events++;
    t->n_read += length;
    t->n.base.handler.on_message(t->n.base.handler.ctx, slot->s.peer, data, length);
    return UCS_OK;
}

/* ------------------------------------------------------------------------------------------------ workers */
void ucx_slot_activate(ucx_slot *slot)
{
    ucx *t = (ucx *)slot->s.t;

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

    slot->s.keeps_place = true; /* whoever came so far has proved the secret, or there is none */
    if (ucp_worker_create(((ucx *)slot->s.t)->context, &params, &slot->worker) != UCS_OK) {
        slot->worker = NULL;
        return MOE_ERR_UNAVAILABLE;
    }
    if (ucp_worker_set_am_recv_handler(slot->worker, &handler) != UCS_OK ||
        ucp_worker_get_efd(slot->worker, &fd) != UCS_OK ||
        net_watch(slot->s.t, fd, EPOLLIN, NET_SECOND, slot->s.peer, EPOLL_CTL_ADD) != MOE_OK) {
        return MOE_ERR_UNAVAILABLE;
    }
    ucx_slot_activate(slot);
    return MOE_OK;
}

/* ------------------------------------------------------------------------------------------------ progress, wait */
/* Workers that do nothing more are armed; from then on the epoll set tells. */
static void arm_workers(ucx *t)
{
    for (size_t i = 0; i < t->n_active;) {
        ucx_slot *slot = &t->slots[t->active[i]];

        if (slot->s.state == NET_CLOSING || ucp_worker_arm(slot->worker) != UCS_OK) {
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

    t->n.n_events = 0;
    /* While a worker is busy, the others and the sockets are looked at only now and then: it is a system call. */
    if (t->n_active == 0 || t->turn++ % LOOK_EVERY == 0) {
        net_take_events(&t->n);
    }
    for (size_t i = 0; i < t->n_active; i++) {
        t->n_read = 0;
        for (int round = 0; round < PROGRESS_ROUNDS && t->n_read < NET_TURN_BYTES &&
                            ucp_worker_progress(t->slots[t->active[i]].worker) != 0;
             round++) {
        }
    }
    net_check_times(&t->n);
    if (t->n.dirty) {
        ucx_attend(t);
    }
    return t->n.n_events;
}

static void ucx_wait(transport *base, uint64_t timeout_ns)
{
    ucx *t = (ucx *)base;

    if (!t->n.dirty) {
        arm_workers(t);
    }
    if (t->n_active == 0 && !t->n.dirty) { /* else there is something to do */
        net_sleep(&t->n, timeout_ns);
    }
}

/* Everything quietly. */
static void close_peers(ucx *t)
{
    uint64_t until = moe_now_ns(moe_clock_real()) + CLOSE_TIMEOUT_NS;

    for (size_t i = 0; i < t->n.n_slots; i++) {
        net_slot_fail(&t->slots[i].s, "closed");
        t->slots[i].s.quiet = true; /* also those that had failed before */
    }
    t->n.dirty = true;
    while (t->n.stats.peers > 0 && moe_now_ns(moe_clock_real()) < until) {
        (void)ucx_progress(&t->n.base);
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
    if (slot->s.fd >= 0) {
        (void)close(slot->s.fd);
    }
}

static void ucx_close(transport *base)
{
    ucx *t = (ucx *)base;

    net_listen_end(&t->n); /* nobody comes while the others go */
    if (t->slots != NULL) {
        close_peers(t);
        for (size_t i = 0; i < t->n.n_slots; i++) {
            abandon(&t->slots[i]);
        }
    }
    if (t->context != NULL) {
        ucp_cleanup(t->context);
    }
    net_fini(&t->n);
    explicit_bzero(&t->key, sizeof t->key);
    free(t->active);
    free(t->sends);
    free(t->meets);
    free(t->slots);
    free(t);
}

#define UCX_OPS(lane_name)                                                                                             \
    {                                                                                                                  \
        .name = (lane_name), .connect = net_connect, .send = ucx_send_frame, .progress = ucx_progress,                 \
        .wait = ucx_wait, .wake = net_wake, .peer_close = net_peer_close, .carrier = net_carrier, .close = ucx_close   \
    }
static const transport_ops tcp_ops = UCX_OPS("ucx-tcp"), rdma_ops = UCX_OPS("rdma");

/* ------------------------------------------------------------------------------------------------ open */
static moe_status buffers_open(ucx *t)
{
    size_t n_sends = t->n.n_slots * t->n.max_sends;

    t->meets = calloc(t->n.n_slots, sizeof *t->meets);
    t->active = calloc(t->n.n_slots, sizeof *t->active);
    t->sends = calloc(n_sends, sizeof *t->sends);
    if (t->slots == NULL || t->meets == NULL || t->active == NULL || t->sends == NULL) {
        return MOE_ERR_NO_MEMORY;
    }
    for (size_t i = 0; i < n_sends; i++) {
        t->sends[i].next = t->free_sends;
        t->free_sends = &t->sends[i];
    }
    return MOE_OK;
}

moe_status transport_ucx_open(const transport_net_options *o, transport **out, moe_error *err)
{
    char device[SOCKET_MAX_DEVICE];
    moe_status status;
    ucx *t = calloc(1, sizeof *t);

    if (t == NULL) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "ucx");
    }
    t->slots = calloc(o->max_peers, sizeof *t->slots);
    net_init(&t->n, o->lane == TRANSPORT_LANE_RDMA ? &rdma_ops : &tcp_ops, &ucx_net_lane, o, t->slots,
             sizeof *t->slots);
    status = buffers_open(t);
    if (status == MOE_OK) {
        status = meet_key_init(&t->key, o->secret, o->n_secret);
    }
    if (status != MOE_OK) {
        moe_fail(err, status, "ucx: %zu peers, secret of %zu bytes", o->max_peers, o->n_secret);
    }
    if (status == MOE_OK) {
        status = net_open(&t->n, o, device, err);
    }
    if (status == MOE_OK) {
        status = ucx_context_open(o->lane, device, t->n.carrier, &t->context, err);
    }
    if (status != MOE_OK) {
        ucx_close(&t->n.base);
        return status;
    }
    net_listen_on(&t->n);
    *out = &t->n.base;
    return MOE_OK;
}
