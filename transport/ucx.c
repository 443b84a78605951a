/* UCX: connections between processes by active messages. The only file that includes UCX's headers.
 *
 * A slot is one connection: an endpoint of UCX, the frames under way on it, and what is still to be told. UCX's
 * callbacks only note what happened; attend() acts on it outside of them, because an endpoint may not be closed from
 * within. A slot is free again when its endpoint is closed and all its frames have come back. */
#include "transport/transport.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <ucp/api/ucp.h>
#include <ucs/debug/debug.h>
#include <ucs/debug/log_def.h>

#define SLOT_BITS        16
#define AM_FRAME         1 /* the only kind of active message */
#define ADDRESS_BYTES    128
#define LANE_BYTES       64
#define MAX_SENDS        16
#define SEND_TIMEOUT_NS  UINT64_C(10000000000)
#define CHECK_EVERY_NS   UINT64_C(100000000)
#define CLOSING_NAP_NS   UINT64_C(1000000)
#define CLOSE_TIMEOUT_NS UINT64_C(5000000000)
#define PROGRESS_ROUNDS  64
#define LOG_PER_SECOND   10

typedef struct ucx ucx;

typedef enum {
    SLOT_FREE,
    SLOT_CONNECTING, /* ours; the first flush has not come back */
    SLOT_UP,
    SLOT_FAILED, /* to be closed; DOWN is told when the frames are back */
    SLOT_CLOSING /* its endpoint is being closed, or frames are still to come back */
} ucx_slot_state;

typedef struct ucx_slot {
    ucx_slot_state state;
    ucx *t;
    transport_peer peer;
    ucp_ep_h ep; /* owned; NULL once it is being closed */
    void *close; /* owned request; NULL: none or done */
    bool quiet;  /* closed from here: no event */
    bool opened; /* its first flush came back well */
    uint32_t n_out;
    struct ucx_send *oldest, *newest; /* frames under way, in order */
    const char *why;
} ucx_slot;

/* One frame, or one flush (msg NULL), under way. */
typedef struct ucx_send {
    ucx_slot *slot;
    transport_msg *msg; /* borrowed */
    ucp_dt_iov_t iov[TRANSPORT_MAX_PARTS];
    uint64_t since_ns;
    struct ucx_send *prev, *next;
} ucx_send;

struct ucx {
    transport base; /* first: ops get it */
    const moe_clock *clock;
    ucp_context_h context;
    ucp_worker_h worker;
    ucp_listener_h listener; /* NULL: does not listen */
    int event_fd;            /* the worker's */
    char address[ADDRESS_BYTES], lane[LANE_BYTES];
    ucx_slot *slots; /* owned [n_slots] */
    size_t n_slots, hint;
    uint64_t serial;
    ucx_send *sends; /* owned [n_slots * (max_sends + 1)] */
    ucx_send *free_sends;
    uint32_t max_sends;
    uint64_t send_timeout_ns, check_ns;
    ucp_conn_request_h *strangers; /* owned [n_slots]; the first n_strangers wait to be taken */
    size_t n_strangers;
    bool dirty; /* attend has something to do */
    unsigned n_events;
    transport_ucx_stats stats;
};

/* ------------------------------------------------------------------------------------------------ process
 * UCX's log goes to ours, at most a few lines a second: peers can provoke some of them. */
static atomic_uint log_second, log_lines;

static ucs_log_func_rc_t on_log(const char *file, unsigned line, const char *function, ucs_log_level_t level,
                                const ucs_log_component_config_t *component, const char *format, va_list ap)
{
    struct timespec now;
    char text[512];

    (void)file;
    (void)line;
    (void)function;
    (void)component;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    if (atomic_exchange(&log_second, (unsigned)now.tv_sec) != (unsigned)now.tv_sec) {
        atomic_store(&log_lines, 0);
    }
    if (atomic_fetch_add(&log_lines, 1) >= LOG_PER_SECOND) {
        return UCS_LOG_FUNC_RC_STOP;
    }
    (void)vsnprintf(text, sizeof text, format, ap);
    /* What fails is told to the caller too; here is only UCX's own word for it. */
    moe_log(level == UCS_LOG_LEVEL_FATAL   ? MOE_LOG_ERROR
            : level == UCS_LOG_LEVEL_ERROR ? MOE_LOG_WARN
                                           : MOE_LOG_DEBUG,
            "ucx: %s", text);
    return UCS_LOG_FUNC_RC_STOP;
}

/* What a variable set by the user says stays. */
static void process_init(void)
{
    static const char *const defaults[][2] = {
        {"UCX_TLS", "tcp"},
        {"UCX_RNDV_THRESH", "inf"},    /* rendezvous over tcp costs four times plain TCP at 64 KB */
        {"UCX_TCP_TX_SEG_SIZE", "1m"}, /* a frame is one piece: nothing is put together from parts a peer sends */
        {"UCX_TCP_RX_SEG_SIZE", "1m"}, /* equal in all members */
        {"UCX_TCP_CONN_NB", "y"},      /* a host that does not answer must not stop the thread */
        {"UCX_LOG_FILE", "stderr"},    /* the default is stdout, where READY lines are read */
        {"UCX_ERROR_SIGNALS", ""},     /* crashes are the sanitizer's and the core dump's */
        {"UCX_WARN_UNUSED_ENV_VARS", "n"},
    };
    bool own_signals = getenv("UCX_ERROR_SIGNALS") == NULL;

    for (size_t i = 0; i < MOE_COUNT(defaults); i++) {
        (void)setenv(defaults[i][0], defaults[i][1], 0);
    }
    /* The library took the signals and chose its log file when it was loaded. */
    if (own_signals) {
        static const int signals[] = {SIGILL, SIGSEGV, SIGBUS, SIGFPE};

        for (size_t i = 0; i < MOE_COUNT(signals); i++) {
            ucs_debug_disable_signal(signals[i]);
        }
    }
    ucs_log_push_handler(on_log);
}

/* ------------------------------------------------------------------------------------------------ slots */
static ucx_slot *find_slot(ucx *t, transport_peer peer)
{
    size_t i = peer & (MOE_BIT(SLOT_BITS) - 1);

    return peer != 0 && i < t->n_slots && t->slots[i].peer == peer ? &t->slots[i] : NULL;
}

static ucx_slot *find_ep(ucx *t, ucp_ep_h ep)
{
    if (t->slots[t->hint].ep == ep) {
        return &t->slots[t->hint];
    }
    for (size_t i = 0; i < t->n_slots; i++) {
        if (t->slots[i].ep == ep) {
            t->hint = i;
            return &t->slots[i];
        }
    }
    return NULL;
}

static ucx_slot *take_slot(ucx *t)
{
    for (size_t i = 0; i < t->n_slots; i++) {
        ucx_slot *slot = &t->slots[i];

        if (slot->state == SLOT_FREE) {
            *slot = (ucx_slot){.t = t, .peer = ++t->serial << SLOT_BITS | i, .why = ""};
            t->stats.peers++;
            return slot;
        }
    }
    return NULL;
}

static void free_slot(ucx *t, ucx_slot *slot)
{
    *slot = (ucx_slot){.state = SLOT_FREE};
    t->stats.peers--;
}

static void tell(ucx *t, ucx_slot *slot, transport_peer_event event)
{
    t->n_events++;
    t->base.handler.on_peer(t->base.handler.ctx, slot->peer, event, event == TRANSPORT_UP ? "" : slot->why);
}

/* Notes that a connection is over; attend() closes it. */
static void fail_slot(ucx_slot *slot, const char *why)
{
    if (slot->state == SLOT_CONNECTING || slot->state == SLOT_UP) {
        slot->state = SLOT_FAILED;
        slot->why = why;
        slot->t->dirty = true;
    }
}

static void slot_up(ucx_slot *slot)
{
    if (slot->state == SLOT_CONNECTING) {
        slot->state = SLOT_UP;
        slot->t->stats.connected++;
        tell(slot->t, slot, TRANSPORT_UP);
    }
}

static void on_ep_error(void *arg, ucp_ep_h ep, ucs_status_t status)
{
    ucx_slot *slot = arg;

    (void)ep;
    fail_slot(slot, ucs_status_string(status));
}

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

/* Takes a send off its slot's list; returns the message. */
static transport_msg *end_send(ucx_send *s)
{
    ucx_slot *slot = s->slot;
    ucx *t = slot->t;

    *(s->prev == NULL ? &slot->oldest : &s->prev->next) = s->next;
    *(s->next == NULL ? &slot->newest : &s->next->prev) = s->prev;
    slot->n_out--;
    t->stats.sends--;
    transport_msg *msg = s->msg;
    s->next = t->free_sends;
    t->free_sends = s;
    return msg;
}

static void finish_send(ucx_send *s, ucs_status_t status)
{
    ucx_slot *slot = s->slot;
    transport_msg *msg = end_send(s);

    slot->t->n_events++;
    slot->t->dirty |= slot->state == SLOT_CLOSING;
    if (msg != NULL) {
        msg->done(msg, status == UCS_OK ? MOE_OK : slot->quiet ? MOE_ERR_CANCELLED : MOE_ERR_UNAVAILABLE);
    } else if (status == UCS_OK) {
        slot->opened = true;
        slot->t->dirty = true;
    } else {
        fail_slot(slot, ucs_status_string(status));
    }
}

static void on_sent(void *request, ucs_status_t status, void *user_data)
{
    ucp_request_free(request);
    finish_send(user_data, status);
}

static moe_status ucx_send_frame(transport *base, transport_peer peer, transport_msg *msg)
{
    ucx *t = (ucx *)base;
    ucx_slot *slot = find_slot(t, peer);
    size_t bytes = 0;

    MOE_ASSERT(msg->n_parts >= 1 && msg->n_parts <= TRANSPORT_MAX_PARTS);
    if (slot == NULL || (slot->state != SLOT_UP && slot->state != SLOT_CONNECTING)) {
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
                                       .flags = UCP_AM_SEND_FLAG_REPLY | UCP_AM_SEND_FLAG_EAGER,
                                       .cb = {.send = on_sent},
                                       .datatype = one ? ucp_dt_make_contig(1) : ucp_dt_make_iov(),
                                       .user_data = s};
    ucs_status_ptr_t request = ucp_am_send_nbx(slot->ep, AM_FRAME, NULL, 0, one ? s->iov[0].buffer : s->iov,
                                               one ? s->iov[0].length : msg->n_parts, &param);
    if (UCS_PTR_IS_ERR(request)) {
        (void)end_send(s);
        fail_slot(slot, ucs_status_string(UCS_PTR_STATUS(request)));
        return MOE_ERR_UNAVAILABLE;
    }
    if (request == NULL) {
        (void)end_send(s);
        msg->done(msg, MOE_OK);
    }
    return MOE_OK;
}

/* Frames that do not leave: the peer stands still or the network has gone. UCX would wait for ever. */
static void check_timeouts(ucx *t)
{
    uint64_t now = moe_now_ns(t->clock);

    if (t->stats.sends == 0 || now < t->check_ns) {
        return;
    }
    t->check_ns = now + CHECK_EVERY_NS;
    for (size_t i = 0; i < t->n_slots; i++) {
        ucx_slot *slot = &t->slots[i];

        if ((slot->state == SLOT_UP || slot->state == SLOT_CONNECTING) && slot->oldest != NULL &&
            now - slot->oldest->since_ns > t->send_timeout_ns) {
            t->stats.timeouts++;
            fail_slot(slot, "frames do not leave");
        }
    }
}

/* ------------------------------------------------------------------------------------------------ receive */
static ucs_status_t on_frame(void *arg, const void *header, size_t header_length, void *data, size_t length,
                             const ucp_am_recv_param_t *param)
{
    ucx *t = arg;
    ucx_slot *slot = (param->recv_attr & UCP_AM_RECV_ATTR_FIELD_REPLY_EP) != 0 ? find_ep(t, param->reply_ep) : NULL;

    (void)header;
    if (slot == NULL || (slot->state != SLOT_UP && slot->state != SLOT_CONNECTING)) {
        return UCS_OK; /* of a connection that is over, or of nobody */
    }
    if ((param->recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV) != 0 || header_length != 0 || length > t->base.max_message) {
        t->stats.violations++;
        fail_slot(slot, length > t->base.max_message ? "frame above the limit" : "message of another kind");
        return UCS_OK;
    }
    slot_up(slot); /* its frame was faster than our flush */
    if (slot->state == SLOT_UP) {
        t->n_events++;
        t->base.handler.on_message(t->base.handler.ctx, slot->peer, data, length);
    }
    return UCS_OK;
}

/* ------------------------------------------------------------------------------------------------ connect, accept */
static moe_status ep_open(ucx_slot *slot, ucp_ep_params_t *params)
{
    params->field_mask |= UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE | UCP_EP_PARAM_FIELD_ERR_HANDLER;
    params->err_mode = UCP_ERR_HANDLING_MODE_PEER;
    params->err_handler = (ucp_err_handler_t){on_ep_error, slot};
    ucs_status_t status = ucp_ep_create(slot->t->worker, params, &slot->ep);
    if (status == UCS_OK) {
        return MOE_OK;
    }
    MOE_DEBUG("ucx: no endpoint: %s", ucs_status_string(status));
    slot->ep = NULL;
    return status == UCS_ERR_NO_MEMORY ? MOE_ERR_NO_MEMORY : MOE_ERR_UNAVAILABLE;
}

static void take_stranger(ucx *t, ucp_conn_request_h request)
{
    ucp_ep_params_t params = {.field_mask = UCP_EP_PARAM_FIELD_CONN_REQUEST, .conn_request = request};
    ucx_slot *slot = take_slot(t);

    if (slot == NULL) {
        t->stats.refused++;
        (void)ucp_listener_reject(t->listener, request);
        return;
    }
    if (ep_open(slot, &params) != MOE_OK) {
        free_slot(t, slot); /* the request went with it */
        return;
    }
    slot->state = SLOT_UP;
    t->stats.accepted++;
    tell(t, slot, TRANSPORT_UP);
}

static void on_stranger(ucp_conn_request_h request, void *arg)
{
    ucx *t = arg;

    if (t->n_strangers == t->n_slots) {
        t->stats.refused++;
        (void)ucp_listener_reject(t->listener, request);
        return;
    }
    t->strangers[t->n_strangers++] = request;
    t->dirty = true;
}

/* HOST:PORT, [HOST]:PORT. */
static moe_status parse_address(const char *text, int flags, struct sockaddr_storage *out, socklen_t *bytes_out,
                                moe_error *err)
{
    char host[ADDRESS_BYTES];
    const char *colon = strrchr(text, ':');
    size_t n = colon == NULL ? 0 : (size_t)(colon - text);
    const struct addrinfo hints = {
        .ai_socktype = SOCK_STREAM, .ai_flags = flags | AI_NUMERICSERV, .ai_family = AF_UNSPEC};
    struct addrinfo *found;

    if (n >= 2 && text[0] == '[' && text[n - 1] == ']') {
        text++;
        n -= 2;
    }
    if (n == 0 || n >= sizeof host || colon[1] == '\0') {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "address \"%s\": expected HOST:PORT", text);
    }
    memcpy(host, text, n);
    host[n] = '\0';
    int failed = getaddrinfo(host, colon + 1, &hints, &found);
    if (failed != 0) {
        return moe_fail(err, failed == EAI_SERVICE ? MOE_ERR_INVALID_ARG : MOE_ERR_UNAVAILABLE, "address \"%s\": %s",
                        text, gai_strerror(failed));
    }
    memcpy(out, found->ai_addr, found->ai_addrlen);
    *bytes_out = found->ai_addrlen;
    freeaddrinfo(found);
    return MOE_OK;
}

/* When the flush comes back, the other end has accepted. */
static moe_status begin_flush(ucx_slot *slot)
{
    ucx_send *s = take_send(slot, NULL);
    const ucp_request_param_t param = {.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA,
                                       .cb = {.send = on_sent},
                                       .user_data = s};
    ucs_status_ptr_t request = ucp_ep_flush_nbx(slot->ep, &param);

    if (UCS_PTR_IS_PTR(request)) {
        return MOE_OK;
    }
    (void)end_send(s);
    slot->opened = slot->t->dirty = request == NULL;
    return request == NULL ? MOE_OK : MOE_ERR_UNAVAILABLE;
}

static moe_status ucx_connect(transport *base, const char *address, transport_peer *peer_out)
{
    ucx *t = (ucx *)base;
    struct sockaddr_storage to;
    ucp_ep_params_t params = {.field_mask = UCP_EP_PARAM_FIELD_FLAGS | UCP_EP_PARAM_FIELD_SOCK_ADDR,
                              .flags = UCP_EP_PARAMS_FLAGS_CLIENT_SERVER};
    moe_status status = parse_address(address, 0, &to, &params.sockaddr.addrlen, NULL);

    if (status != MOE_OK) {
        return status;
    }
    params.sockaddr.addr = (const struct sockaddr *)&to;
    ucx_slot *slot = take_slot(t);
    if (slot == NULL) {
        return MOE_ERR_BUSY;
    }
    status = ep_open(slot, &params);
    if (status != MOE_OK) {
        free_slot(t, slot);
        return status;
    }
    slot->state = SLOT_CONNECTING;
    if (begin_flush(slot) != MOE_OK) {
        fail_slot(slot, "no connection");
    }
    *peer_out = slot->peer;
    return MOE_OK;
}

/* ------------------------------------------------------------------------------------------------ close */
static void begin_close(ucx_slot *slot)
{
    const ucp_request_param_t param = {.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS, .flags = UCP_EP_CLOSE_FLAG_FORCE};
    ucs_status_ptr_t request = ucp_ep_close_nbx(slot->ep, &param);

    slot->ep = NULL;
    slot->close = UCS_PTR_IS_PTR(request) ? request : NULL;
    slot->state = SLOT_CLOSING;
}

static void check_close(ucx *t, ucx_slot *slot)
{
    if (slot->close != NULL && ucp_request_check_status(slot->close) != UCS_INPROGRESS) {
        ucp_request_free(slot->close);
        slot->close = NULL;
    }
    if (slot->close != NULL || slot->n_out > 0) {
        t->dirty = true;
        return;
    }
    if (!slot->quiet) {
        tell(t, slot, TRANSPORT_DOWN);
    }
    free_slot(t, slot);
}

static void attend_slot(ucx *t, ucx_slot *slot)
{
    if (slot->opened && slot->state == SLOT_CONNECTING) {
        slot_up(slot);
    }
    if (slot->state == SLOT_FAILED) {
        begin_close(slot);
    }
    if (slot->state == SLOT_CLOSING) {
        check_close(t, slot);
    }
}

/* What callbacks have noted. */
static void attend(ucx *t)
{
    t->dirty = false;
    for (size_t i = 0; i < t->n_slots; i++) {
        attend_slot(t, &t->slots[i]);
    }
    while (t->n_strangers > 0) {
        take_stranger(t, t->strangers[--t->n_strangers]);
    }
}

static void ucx_peer_close(transport *base, transport_peer peer)
{
    ucx_slot *slot = find_slot((ucx *)base, peer);

    if (slot != NULL) {
        fail_slot(slot, "closed");
        slot->quiet = true;
    }
}

static unsigned ucx_progress(transport *base)
{
    ucx *t = (ucx *)base;

    t->n_events = 0;
    for (int i = 0; i < PROGRESS_ROUNDS && ucp_worker_progress(t->worker) != 0; i++) {
    }
    check_timeouts(t);
    if (t->dirty) {
        attend(t);
    }
    return t->n_events;
}

static void ucx_wait(transport *base, uint64_t timeout_ns)
{
    ucx *t = (ucx *)base;

    if (t->dirty) {
        timeout_ns = MOE_MIN(timeout_ns, CLOSING_NAP_NS);
    } else if (t->stats.sends > 0) {
        timeout_ns = MOE_MIN(timeout_ns, CHECK_EVERY_NS);
    }
    if (ucp_worker_arm(t->worker) != UCS_OK) {
        return; /* there is something to do */
    }
    struct pollfd p = {.fd = t->event_fd, .events = POLLIN};
    const struct timespec timeout = {(time_t)(timeout_ns / 1000000000), (long)(timeout_ns % 1000000000)};
    (void)ppoll(&p, 1, timeout_ns == UINT64_MAX ? NULL : &timeout, NULL);
}

static void ucx_wake(transport *base)
{
    (void)ucp_worker_signal(((ucx *)base)->worker);
}

/* Everything quietly; what does not come back in time is taken back when the worker is gone. */
static void close_peers(ucx *t)
{
    uint64_t until = moe_now_ns(moe_clock_real()) + CLOSE_TIMEOUT_NS;

    if (t->listener != NULL) {
        for (; t->n_strangers > 0; t->n_strangers--) {
            (void)ucp_listener_reject(t->listener, t->strangers[t->n_strangers - 1]);
        }
    }
    for (size_t i = 0; i < t->n_slots; i++) {
        ucx_peer_close(&t->base, t->slots[i].peer);
        t->slots[i].quiet = true; /* also those that had failed before */
    }
    t->dirty = true;
    while (t->stats.peers > 0 && moe_now_ns(moe_clock_real()) < until) {
        (void)ucx_progress(&t->base);
    }
}

static void ucx_close(transport *base)
{
    ucx *t = (ucx *)base;

    if (t->worker != NULL) {
        close_peers(t);
        if (t->listener != NULL) {
            ucp_listener_destroy(t->listener);
        }
        ucp_worker_destroy(t->worker);
    }
    if (t->context != NULL) {
        ucp_cleanup(t->context);
    }
    for (size_t i = 0; t->slots != NULL && i < t->n_slots; i++) {
        while (t->slots[i].oldest != NULL) {
            finish_send(t->slots[i].oldest, UCS_ERR_CANCELED);
        }
    }
    free(t->strangers);
    free(t->sends);
    free(t->slots);
    free(t);
}

static const transport_ops tcp_ops = {
    .name = "tcp",
    .connect = ucx_connect,
    .send = ucx_send_frame,
    .progress = ucx_progress,
    .wait = ucx_wait,
    .wake = ucx_wake,
    .peer_close = ucx_peer_close,
    .close = ucx_close,
};

static const transport_ops rdma_ops = {
    .name = "rdma",
    .connect = ucx_connect,
    .send = ucx_send_frame,
    .progress = ucx_progress,
    .wait = ucx_wait,
    .wake = ucx_wake,
    .peer_close = ucx_peer_close,
    .close = ucx_close,
};

/* ------------------------------------------------------------------------------------------------ open */
static bool is_rdma(const char *transport_name)
{
    static const char *const prefixes[] = {"rc", "dc", "ud"};

    for (size_t i = 0; i < MOE_COUNT(prefixes); i++) {
        if (strncmp(transport_name, prefixes[i], 2) == 0) {
            return true;
        }
    }
    return false;
}

/* Reads the transports that UCX has opened out of its own report, "# resource 0: md 0 dev 0 flags -- tcp/eth0". False
 * when one of them is not of the lane, or there is none. */
static bool read_lane(ucx *t, transport_lane lane)
{
    char *report = NULL, *rest = NULL;
    size_t bytes = 0, used = 0;
    FILE *f = open_memstream(&report, &bytes);
    bool good = false;

    if (f == NULL) {
        return false;
    }
    ucp_context_print_info(t->context, f);
    (void)fclose(f);
    for (char *line = strtok_r(report, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest)) {
        char *name = strstr(line, "-- ");
        char *end = name == NULL ? NULL : strchr(name, '/');

        if (strstr(line, "resource") == NULL || end == NULL) {
            continue;
        }
        name += 3;
        *end = '\0';
        good = lane == TRANSPORT_LANE_TCP || (is_rdma(name) && (good || used == 0));
        if (strstr(t->lane, name) == NULL && used < sizeof t->lane) {
            used += (size_t)snprintf(t->lane + used, sizeof t->lane - used, used == 0 ? "%s" : ",%s", name);
        }
    }
    free(report);
    return good;
}

static moe_status context_open(ucx *t, transport_lane lane, moe_error *err)
{
    const ucp_params_t params = {.field_mask = UCP_PARAM_FIELD_FEATURES | UCP_PARAM_FIELD_ESTIMATED_NUM_EPS,
                                 .features = UCP_FEATURE_AM | UCP_FEATURE_WAKEUP,
                                 .estimated_num_eps = 1}; /* more would make UCX look for another lane */
    ucp_config_t *config;
    ucs_status_t status = ucp_config_read(NULL, NULL, &config);

    if (status != UCS_OK) {
        return moe_fail(err, MOE_ERR_UNAVAILABLE, "ucx: configuration: %s", ucs_status_string(status));
    }
    /* Whatever UCX_TLS says, this lane has no tcp to fall back to. */
    if (lane == TRANSPORT_LANE_RDMA) {
        (void)ucp_config_modify(config, "TLS", "rc,dc,ud");
    }
    status = ucp_init(&params, config, &t->context);
    ucp_config_release(config);
    if (status != UCS_OK) {
        t->context = NULL;
    }
    if (lane == TRANSPORT_LANE_RDMA && (status != UCS_OK || !read_lane(t, lane))) {
        return moe_fail(err, MOE_ERR_UNSUPPORTED,
                        "transport rdma: this machine has no RDMA device that UCX can use (%s)",
                        status != UCS_OK     ? ucs_status_string(status)
                        : t->lane[0] == '\0' ? "none found"
                                             : t->lane);
    }
    if (status != UCS_OK) {
        return moe_fail(err, MOE_ERR_UNAVAILABLE, "ucx: %s", ucs_status_string(status));
    }
    if (lane == TRANSPORT_LANE_TCP && !read_lane(t, lane)) {
        (void)snprintf(t->lane, sizeof t->lane, "%s", "tcp");
    }
    return MOE_OK;
}

static moe_status worker_open(ucx *t, moe_error *err)
{
    const ucp_worker_params_t params = {.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE,
                                        .thread_mode = UCS_THREAD_MODE_SINGLE};
    const ucp_am_handler_param_t handler = {.field_mask =
                                                UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_FLAGS |
                                                UCP_AM_HANDLER_PARAM_FIELD_CB | UCP_AM_HANDLER_PARAM_FIELD_ARG,
                                            .id = AM_FRAME,
                                            .flags = UCP_AM_FLAG_WHOLE_MSG,
                                            .cb = on_frame,
                                            .arg = t};
    ucs_status_t status = ucp_worker_create(t->context, &params, &t->worker);

    if (status != UCS_OK) {
        t->worker = NULL;
        return moe_fail(err, MOE_ERR_UNAVAILABLE, "ucx: worker: %s", ucs_status_string(status));
    }
    status = ucp_worker_set_am_recv_handler(t->worker, &handler);
    if (status == UCS_OK) {
        status = ucp_worker_get_efd(t->worker, &t->event_fd);
    }
    return status == UCS_OK ? MOE_OK : moe_fail(err, MOE_ERR_UNAVAILABLE, "ucx: worker: %s", ucs_status_string(status));
}

static void format_address(const struct sockaddr_storage *a, char *out, size_t bytes)
{
    char host[64], port[16];

    if (getnameinfo((const struct sockaddr *)a, sizeof *a, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV) == 0) {
        (void)snprintf(out, bytes, a->ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
    }
}

static moe_status listener_open(ucx *t, const char *address, moe_error *err)
{
    struct sockaddr_storage at;
    ucp_listener_params_t params = {.field_mask =
                                        UCP_LISTENER_PARAM_FIELD_SOCK_ADDR | UCP_LISTENER_PARAM_FIELD_CONN_HANDLER,
                                    .conn_handler = {on_stranger, t}};
    ucp_listener_attr_t attr = {.field_mask = UCP_LISTENER_ATTR_FIELD_SOCKADDR};
    moe_status parsed = parse_address(address, AI_PASSIVE, &at, &params.sockaddr.addrlen, err);

    if (parsed != MOE_OK) {
        return parsed;
    }
    params.sockaddr.addr = (const struct sockaddr *)&at;
    ucs_status_t status = ucp_listener_create(t->worker, &params, &t->listener);
    if (status == UCS_OK) {
        status = ucp_listener_query(t->listener, &attr);
    } else {
        t->listener = NULL;
    }
    if (status != UCS_OK) {
        return moe_fail(err, status == UCS_ERR_BUSY ? MOE_ERR_EXISTS : MOE_ERR_UNAVAILABLE, "listen %s: %s", address,
                        ucs_status_string(status));
    }
    format_address(&attr.sockaddr, t->address, sizeof t->address);
    return MOE_OK;
}

static moe_status buffers_open(ucx *t)
{
    size_t n_sends = t->n_slots * (t->max_sends + 1);

    t->slots = calloc(t->n_slots, sizeof *t->slots);
    t->strangers = calloc(t->n_slots, sizeof(ucp_conn_request_h));
    t->sends = calloc(n_sends, sizeof *t->sends);
    if (t->slots == NULL || t->strangers == NULL || t->sends == NULL) {
        return MOE_ERR_NO_MEMORY;
    }
    for (size_t i = 0; i < n_sends; i++) {
        t->sends[i].next = t->free_sends;
        t->free_sends = &t->sends[i];
    }
    return MOE_OK;
}

static moe_status check_options(const transport_ucx_options *o, moe_error *err)
{
    if (o->max_peers == 0 || o->max_peers >= MOE_BIT(SLOT_BITS) || o->max_message == 0 || o->max_message > UINT32_MAX ||
        o->max_sends > 1024) {
        return moe_fail(err, MOE_ERR_INVALID_ARG,
                        "ucx: %zu peers (1 to %u), frames of %zu bytes (1 to %u), %zu sends (at most 1024)",
                        o->max_peers, MOE_BIT(SLOT_BITS) - 1, o->max_message, UINT32_MAX, o->max_sends);
    }
    return MOE_OK;
}

moe_status transport_ucx_open(const transport_ucx_options *o, transport **out, moe_error *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
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
    t->max_sends = o->max_sends == 0 ? MAX_SENDS : (uint32_t)o->max_sends;
    t->send_timeout_ns = o->send_timeout_ns == 0 ? SEND_TIMEOUT_NS : o->send_timeout_ns;
    (void)pthread_once(&once, process_init);
    status = buffers_open(t);
    if (status != MOE_OK) {
        moe_fail(err, status, "ucx: %zu peers", o->max_peers);
    } else {
        status = context_open(t, o->lane, err);
    }
    if (status == MOE_OK) {
        status = worker_open(t, err);
    }
    if (status == MOE_OK && o->listen != NULL) {
        status = listener_open(t, o->listen, err);
    }
    if (status != MOE_OK) {
        ucx_close(&t->base);
        return status;
    }
    *out = &t->base;
    return MOE_OK;
}

static const ucx *of(const transport *t)
{
    MOE_ASSERT(t->ops == &tcp_ops || t->ops == &rdma_ops);
    return (const ucx *)t;
}

const char *transport_ucx_address(const transport *t)
{
    return of(t)->address;
}

const char *transport_ucx_lane(const transport *t)
{
    return of(t)->lane;
}

void transport_ucx_get_stats(const transport *t, transport_ucx_stats *out)
{
    *out = of(t)->stats;
}
