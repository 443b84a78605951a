/* UCX: frames between processes by active messages, over connections that have met by tls.
 *
 * One UCX worker per connection, not one for all: a frame is thus tied to its connection by the worker that it comes
 * to and the token that it carries, and a worker is destroyed with its connection, whatever the peer left in it.
 *
 * A worker is active while it may have something to do; active ones are polled. Before a wait idle ones are armed: from
 * then on their descriptor becomes readable when there is work, and the epoll set tells. Arming costs a system call, so
 * it is done when somebody is about to sleep, and not after each turn. */
#include "transport/ucx_priv.h"

#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include <ucp/api/ucp.h>

#define AM_FRAME 1 /* the only kind of active message */
/* Chosen, not measured: rounds of one worker in a turn, as NET_TURN_BYTES for what is no frame. */
#define PROGRESS_ROUNDS 64

typedef struct ucx_send {
    ucx_conn *conn;
    transport_msg *msg; /* borrowed */
    ucp_dt_iov_t iov[TRANSPORT_MAX_PARTS];
    uint64_t since_ns;
    struct ucx_send *prev, *next;
} ucx_send;

struct ucx_conn {
    ucx *u;
    net_slot *slot;
    ucp_worker_h worker; /* owned */
    ucp_ep_h ep;         /* owned; NULL: none yet, or being closed */
    void *close;         /* owned request; NULL: none or done */
    bool up, ending;
    bool active; /* the worker is to be progressed */
    int fd;      /* the worker's */
    size_t n_out;
    ucx_send *oldest, *newest; /* frames under way, in order */
    unsigned char token[UCX_TOKEN];
};

struct ucx {
    net *t;
    ucp_context_h context;
    char transports[UCX_MAX_LANE];
    bool takes_device;
    ucs_memory_type_t device_memory; /* where frames on a device are */
    ucx_conn **active;               /* owned [n_slots]: the first n_active are to be progressed */
    size_t n_active, n_up;
    ucx_send *sends; /* owned [n_slots * max_sends] */
    ucx_send *free_sends;
    size_t n_read; /* bytes of the worker that is being progressed, in this turn */
};

/* ------------------------------------------------------------------------------------------------ active ones */
void ucx_conn_wake(ucx_conn *c)
{
    if (!c->active && (c->up || c->ending)) {
        c->active = true;
        c->u->active[c->u->n_active++] = c;
    }
}

static void rest(ucx *u, size_t i)
{
    u->active[i]->active = false;
    u->active[i] = u->active[--u->n_active];
}

bool ucx_may_sleep(ucx *u)
{
    for (size_t i = 0; u != NULL && i < u->n_active;) {
        if (u->active[i]->ending || ucp_worker_arm(u->active[i]->worker) != UCS_OK) {
            i++;
        } else {
            rest(u, i);
        }
    }
    return u == NULL || u->n_active == 0;
}

void ucx_progress(ucx *u)
{
    for (size_t i = 0; i < u->n_active; i++) {
        u->n_read = 0;
        for (int round = 0;
             round < PROGRESS_ROUNDS && u->n_read < NET_TURN_BYTES && ucp_worker_progress(u->active[i]->worker) != 0;
             round++) {
        }
    }
}

bool ucx_is_busy(const ucx *u)
{
    return u != NULL && u->n_active > 0;
}

size_t ucx_n_up(const ucx *u)
{
    return u != NULL ? u->n_up : 0;
}

/* ------------------------------------------------------------------------------------------------ sends */
static ucx_send *take_send(ucx_conn *c, transport_msg *msg)
{
    ucx *u = c->u;
    ucx_send *s = u->free_sends;

    MOE_ASSERT(s != NULL); /* there is one for all that connections may have */
    u->free_sends = s->next;
    *s = (ucx_send){.conn = c, .msg = msg, .since_ns = moe_now_ns(u->t->clock), .prev = c->newest};
    *(c->newest == NULL ? &c->oldest : &c->newest->next) = s;
    c->newest = s;
    c->n_out++;
    u->t->stats.sends++;
    return s;
}

/* Takes a send off its connection's list. */
static void end_send(ucx_send *s, moe_status status)
{
    ucx_conn *c = s->conn;
    transport_msg *msg = s->msg;

    *(s->prev == NULL ? &c->oldest : &s->prev->next) = s->next;
    *(s->next == NULL ? &c->newest : &s->next->prev) = s->prev;
    c->n_out--;
    c->u->t->stats.sends--;
    s->next = c->u->free_sends;
    c->u->free_sends = s;
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
    s->conn->u->t->n_events++;
    end_send(s, status == UCS_OK ? MOE_OK : s->conn->slot->quiet ? MOE_ERR_CANCELLED : MOE_ERR_UNAVAILABLE);
}

moe_status ucx_conn_send(ucx_conn *c, transport_msg *msg)
{
    if (c->n_out >= c->u->t->max_sends) {
        return MOE_ERR_BUSY;
    }
    ucx_send *s = take_send(c, msg);
    for (size_t i = 0; i < msg->n_parts; i++) {
        s->iov[i] = (ucp_dt_iov_t){(void *)(uintptr_t)msg->parts[i].data, msg->parts[i].bytes};
    }
    bool one = msg->n_parts == 1;
    ucp_request_param_t param = {.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA |
                                                 UCP_OP_ATTR_FIELD_FLAGS | UCP_OP_ATTR_FIELD_DATATYPE,
                                 .flags = UCP_AM_SEND_FLAG_EAGER,
                                 .cb = {.send = on_sent},
                                 .datatype = one ? ucp_dt_make_contig(1) : ucp_dt_make_iov(),
                                 .user_data = s};
    if (msg->on_device) {
        MOE_ASSERT(one && c->u->takes_device);
        param.op_attr_mask |= UCP_OP_ATTR_FIELD_MEMORY_TYPE;
        param.memory_type = c->u->device_memory;
    }
    ucs_status_ptr_t request =
        ucp_am_send_nbx(c->ep, AM_FRAME, c->token, sizeof c->token, one ? s->iov[0].buffer : s->iov,
                        one ? s->iov[0].length : msg->n_parts, &param);
    if (UCS_PTR_IS_ERR(request)) {
        s->msg = NULL;
        end_send(s, MOE_OK);
        net_slot_fail(c->slot, ucs_status_string(UCS_PTR_STATUS(request)));
        return MOE_ERR_UNAVAILABLE;
    }
    if (request == NULL) {
        end_send(s, MOE_OK); /* it has gone to the kernel: the worker has nothing to do */
    } else {
        ucx_conn_wake(c);
    }
    return MOE_OK;
}

uint64_t ucx_conn_stands_since(const ucx_conn *c)
{
    return c->oldest != NULL ? c->oldest->since_ns : UINT64_MAX;
}

/* ------------------------------------------------------------------------------------------------ receive */
static ucs_status_t on_frame(void *arg, const void *header, size_t header_length, void *data, size_t length,
                             const ucp_am_recv_param_t *param)
{
    ucx_conn *c = arg;
    net *t = c->u->t;

    if (c->slot->state != NET_UP) {
        return UCS_OK; /* of a connection that is over */
    }
    if (header_length != sizeof c->token || memcmp(header, c->token, sizeof c->token) != 0) {
        t->stats.violations++; /* from a stranger who found the worker's port */
        return UCS_OK;
    }
    if ((param->recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV) != 0 || length > t->base.max_message) {
        t->stats.violations++;
        net_slot_fail(c->slot, length > t->base.max_message ? "frame above the limit" : "message of another kind");
        return UCS_OK;
    }
    t->n_events++;
    c->u->n_read += length;
    t->base.handler.on_message(t->base.handler.ctx, c->slot->peer, data, length);
    return UCS_OK;
}

void ucx_conn_drain(ucx_conn *c)
{
    while (ucp_worker_progress(c->worker) != 0) {
    }
}

/* ------------------------------------------------------------------------------------------------ connections */
static moe_status worker_open(ucx_conn *c)
{
    const ucp_worker_params_t params = {.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE,
                                        .thread_mode = UCS_THREAD_MODE_SINGLE};
    const ucp_am_handler_param_t handler = {.field_mask =
                                                UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_FLAGS |
                                                UCP_AM_HANDLER_PARAM_FIELD_CB | UCP_AM_HANDLER_PARAM_FIELD_ARG,
                                            .id = AM_FRAME,
                                            .flags = UCP_AM_FLAG_WHOLE_MSG,
                                            .cb = on_frame,
                                            .arg = c};

    if (ucp_worker_create(c->u->context, &params, &c->worker) != UCS_OK) {
        c->worker = NULL;
        return MOE_ERR_UNAVAILABLE;
    }
    return ucp_worker_set_am_recv_handler(c->worker, &handler) == UCS_OK &&
                   ucp_worker_get_efd(c->worker, &c->fd) == UCS_OK
               ? MOE_OK
               : MOE_ERR_UNAVAILABLE;
}

static moe_status own_address(ucx_conn *c, unsigned char out[UCX_MAX_ADDRESS], size_t *n_out)
{
    ucp_worker_attr_t attr = {.field_mask = UCP_WORKER_ATTR_FIELD_ADDRESS | UCP_WORKER_ATTR_FIELD_ADDRESS_FLAGS,
                              .address_flags = UCP_WORKER_ADDRESS_FLAG_NET_ONLY};

    if (ucp_worker_query(c->worker, &attr) != UCS_OK) {
        return MOE_ERR_UNAVAILABLE;
    }
    bool fits = attr.address_length <= UCX_MAX_ADDRESS;
    *n_out = fits ? attr.address_length : 0;
    memcpy(out, attr.address, *n_out);
    ucp_worker_release_address(c->worker, attr.address);
    return fits ? MOE_OK : MOE_ERR_UNSUPPORTED;
}

moe_status ucx_conn_open(ucx *u, net_slot *slot, const unsigned char token[UCX_TOKEN], ucx_conn **out,
                         unsigned char address_out[UCX_MAX_ADDRESS], size_t *n_out, moe_error *err)
{
    ucx_conn *c = calloc(1, sizeof *c);
    moe_status status = c == NULL ? MOE_ERR_NO_MEMORY : MOE_OK;

    if (c != NULL) {
        *c = (ucx_conn){.u = u, .slot = slot};
        memcpy(c->token, token, sizeof c->token);
        status = worker_open(c);
    }
    if (status == MOE_OK) {
        status = own_address(c, address_out, n_out);
    }
    if (status != MOE_OK) {
        ucx_conn_close(c);
        return moe_fail(err, status, "no UCX worker: %s", moe_status_text(status));
    }
    *out = c;
    return MOE_OK;
}

static void on_ep_error(void *arg, ucp_ep_h ep, ucs_status_t status)
{
    ucx_conn *c = arg;

    (void)ep;
    net_slot_fail(c->slot, ucs_status_string(status));
}

moe_status ucx_conn_connect(ucx_conn *c, const unsigned char *address, size_t n, moe_error *err)
{
    unsigned char copy[UCX_MAX_ADDRESS] = {0}; /* UCX is not told how long it is */
    const ucp_ep_params_t params = {.field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS |
                                                  UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE | UCP_EP_PARAM_FIELD_ERR_HANDLER,
                                    .address = (const ucp_address_t *)copy,
                                    .err_mode = UCP_ERR_HANDLING_MODE_PEER,
                                    .err_handler = {on_ep_error, c}};

    MOE_ASSERT(n <= sizeof copy);
    memcpy(copy, address, n);
    ucs_status_t status = ucp_ep_create(c->worker, &params, &c->ep);
    if (status != UCS_OK) {
        c->ep = NULL;
        return moe_fail(err, MOE_ERR_UNAVAILABLE, "no UCX endpoint: %s", ucs_status_string(status));
    }
    return MOE_OK;
}

moe_status ucx_conn_up(ucx_conn *c)
{
    c->up = true;
    c->u->n_up++;
    ucx_conn_wake(c);
    return net_watch(c->u->t, c->fd, EPOLLIN, NET_SECOND, c->slot->peer, EPOLL_CTL_ADD);
}

bool ucx_conn_end(ucx_conn *c)
{
    const ucp_request_param_t param = {.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS, .flags = UCP_EP_CLOSE_FLAG_FORCE};

    if (!c->ending) {
        ucs_status_ptr_t request = c->ep == NULL ? NULL : ucp_ep_close_nbx(c->ep, &param);

        c->ending = true;
        c->ep = NULL;
        c->close = UCS_PTR_IS_PTR(request) ? request : NULL;
        ucx_conn_wake(c);
    }
    if (c->close != NULL && ucp_request_check_status(c->close) != UCS_INPROGRESS) {
        ucp_request_free(c->close);
        c->close = NULL;
    }
    return c->close == NULL && c->n_out == 0;
}

void ucx_conn_close(ucx_conn *c)
{
    if (c == NULL) {
        return;
    }
    for (size_t i = 0; c->active && i < c->u->n_active; i++) {
        if (c->u->active[i] == c) {
            rest(c->u, i);
        }
    }
    c->u->n_up -= c->up;
    if (c->worker != NULL) {
        ucp_worker_destroy(c->worker);
    }
    while (c->oldest != NULL) {
        end_send(c->oldest, MOE_ERR_CANCELLED);
    }
    free(c);
}

/* ------------------------------------------------------------------------------------------------ open */
void ucx_close(ucx *u)
{
    if (u == NULL) {
        return;
    }
    if (u->context != NULL) {
        ucp_cleanup(u->context);
    }
    free(u->active);
    free(u->sends);
    free(u);
}

const char *ucx_transports(const ucx *u)
{
    return u->transports;
}

bool ucx_takes_device(const ucx *u)
{
    return u != NULL && u->takes_device;
}

moe_status ucx_open(const ucx_options *o, net *t, ucx **out, moe_error *err)
{
    size_t n_sends = t->n_slots * t->max_sends;
    ucx *u = calloc(1, sizeof *u);

    if (u == NULL) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "ucx: out of memory");
    }
    u->t = t;
    u->device_memory = o->gpu_is_host ? UCS_MEMORY_TYPE_HOST : UCS_MEMORY_TYPE_CUDA;
    u->active = calloc(t->n_slots, sizeof(ucx_conn *));
    u->sends = calloc(n_sends, sizeof *u->sends);
    moe_status status = u->active == NULL || u->sends == NULL
                            ? moe_fail(err, MOE_ERR_NO_MEMORY, "ucx: out of memory")
                            : ucx_context_open(o, u->transports, &u->takes_device, &u->context, err);
    if (status != MOE_OK) {
        ucx_close(u);
        return status;
    }
    for (size_t i = 0; i < n_sends; i++) {
        u->sends[i].next = u->free_sends;
        u->free_sends = &u->sends[i];
    }
    *out = u;
    return MOE_OK;
}
