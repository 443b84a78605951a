/* What the files that include UCX's headers share: ucx.c (the transport, its workers, the messages), ucx_peer.c (the
 * connections) and ucx_context.c (starting UCX). Nobody else includes them.
 *
 * A slot is one connection: socket, worker, endpoint, the frames under way, and what is still to be told. */
#ifndef CONCLAVE_TRANSPORT_UCX_PRIV_H
#define CONCLAVE_TRANSPORT_UCX_PRIV_H

#include "transport/meet_priv.h"
#include "transport/net_priv.h"
#include "transport/socket_priv.h"
#include "transport/transport.h"

#include <ucp/api/ucp.h>

#define UCX_SLOT_BITS 16 /* the low bits of a transport_peer: the place of its slot */
#define UCX_MAX_LANE  64

typedef struct ucx ucx;

typedef enum {
    SLOT_FREE,
    SLOT_MEETING, /* the socket is connecting, or the meeting goes on */
    SLOT_UP,
    SLOT_FAILED, /* to be closed; DOWN is told when the frames are back */
    SLOT_CLOSING /* its endpoint is being closed, or frames are still to come back */
} ucx_slot_state;

typedef struct ucx_slot {
    ucx_slot_state state;
    ucx *t;
    transport_peer peer;
    int fd;              /* owned; -1: none */
    ucp_worker_h worker; /* owned; NULL: none yet */
    ucp_ep_h ep;         /* owned; NULL: none yet, or being closed */
    void *close;         /* owned request; NULL: none or done */
    bool caller;         /* the connect was ours */
    bool connecting;     /* the socket has no connection yet */
    bool quiet;          /* no event is due: closed from here, or never UP at the end that was called */
    bool active;         /* the worker is to be progressed */
    uint32_t n_out;
    struct ucx_send *oldest, *newest; /* frames under way, in order */
    uint64_t since_ns;
    unsigned char token[MEET_TOKEN]; /* in front of every message */
    char why[96];
} ucx_slot;

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
    meet_key key;
    ucp_context_h context;
    int listen_fd, epoll_fd, wake_fd; /* owned; -1: none */
    bool listening;                   /* listen_fd is in the epoll set */
    char address[SOCKET_MAX_ADDRESS], lane[UCX_MAX_LANE];
    ucx_slot *slots; /* owned [n_slots] */
    meet *meets;     /* owned [n_slots] */
    size_t n_slots;
    uint32_t *active; /* owned [n_slots]: the first n_active are slots whose worker is to be progressed */
    size_t n_active, n_meeting;
    uint64_t serial;
    ucx_send *sends; /* owned [n_slots * max_sends] */
    ucx_send *free_sends;
    uint32_t max_sends;
    uint64_t send_timeout_ns, check_ns;
    bool dirty; /* ucx_attend has something to do */
    unsigned n_events, turn;
    transport_net_stats stats;
};

/* What an event of the epoll set is about. */
enum { KIND_SOCKET = 0, KIND_WORKER = 1, KIND_LISTEN = 2, KIND_WAKE = 3 };

/* ucx_context.c */
/* UCX for one endpoint, on this device alone unless that is "". lane_out: the transports it has opened. */
MOE_NODISCARD moe_status ucx_context_open(transport_lane lane, const char *device, char lane_out[UCX_MAX_LANE],
                                          ucp_context_h *out, moe_error *err);

/* ucx.c */
/* Puts fd into the epoll set, or changes what it waits for there: op is one of epoll_ctl's. */
MOE_NODISCARD moe_status ucx_watch(ucx *t, int fd, uint32_t events, uint64_t kind, transport_peer peer, int op);
/* The slot's worker is progressed until it has nothing more to do. */
void ucx_slot_activate(ucx_slot *slot);
/* Makes the slot's worker; its frames go to the handler of the transport. */
MOE_NODISCARD moe_status ucx_worker_open(ucx_slot *slot);

/* ucx_peer.c */
ucx_slot *ucx_slot_find(ucx *t, transport_peer peer); /* NULL: it is over */
/* Notes that a connection is over; ucx_attend() closes it. */
void ucx_slot_fail(ucx_slot *slot, const char *why);
/* Closes what has failed, and tells. Not from within a callback of UCX. */
void ucx_attend(ucx *t);
void ucx_on_socket(ucx_slot *slot); /* its socket is ready */
void ucx_on_listen(ucx *t);         /* strangers call */
void ucx_stop_listening(ucx *t);
/* Of transport_ops. */
MOE_NODISCARD moe_status ucx_connect(transport *base, const char *address, transport_peer *peer_out);
void ucx_peer_close(transport *base, transport_peer peer);

#endif
