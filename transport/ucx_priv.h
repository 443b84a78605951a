/* What the files that include UCX's headers share: ucx.c (the transport, its workers, the messages), ucx_peer.c (the
 * connections) and ucx_context.c (starting UCX). Nobody else includes them.
 *
 * A slot is one connection: socket, worker, endpoint, the frames under way, and what is still to be told. */
#ifndef CONCLAVE_TRANSPORT_UCX_PRIV_H
#define CONCLAVE_TRANSPORT_UCX_PRIV_H

#include "transport/meet_priv.h"
#include "transport/net_priv.h"

#include <ucp/api/ucp.h>

#define UCX_MAX_LANE 64

typedef struct ucx ucx;

typedef struct ucx_slot {
    net_slot s;          /* first; CLOSING: its endpoint is being closed, or frames are still to come back */
    ucp_worker_h worker; /* owned; NULL: none yet */
    ucp_ep_h ep;         /* owned; NULL: none yet, or being closed */
    void *close;         /* owned request; NULL: none or done */
    bool active;         /* the worker is to be progressed */
    uint32_t n_out;
    struct ucx_send *oldest, *newest; /* frames under way, in order */
    unsigned char token[MEET_TOKEN];  /* in front of every message */
} ucx_slot;

typedef struct ucx_send {
    ucx_slot *slot;
    transport_msg *msg; /* borrowed */
    ucp_dt_iov_t iov[TRANSPORT_MAX_PARTS];
    uint64_t since_ns;
    struct ucx_send *prev, *next;
} ucx_send;

struct ucx {
    net n; /* first */
    meet_key key;
    ucp_context_h context;
    ucx_slot *slots;  /* the net's */
    meet *meets;      /* owned [n_slots] */
    uint32_t *active; /* owned [n_slots]: the first n_active are slots whose worker is to be progressed */
    size_t n_active;
    ucx_send *sends; /* owned [n_slots * max_sends] */
    ucx_send *free_sends;
    unsigned turn;
    size_t n_read; /* bytes of the worker that is being progressed, in this turn */
};

/* ucx_context.c */
/* UCX for one endpoint, on this device alone unless that is "". lane_out: the transports it has opened. */
MOE_NODISCARD moe_status ucx_context_open(transport_lane lane, const char *device, char lane_out[UCX_MAX_LANE],
                                          ucp_context_h *out, moe_error *err);

/* ucx.c */
/* The slot's worker is progressed until it has nothing more to do. */
void ucx_slot_activate(ucx_slot *slot);
/* Makes the slot's worker; its frames go to the handler of the transport. */
MOE_NODISCARD moe_status ucx_worker_open(ucx_slot *slot);

/* ucx_peer.c */
extern const net_lane ucx_net_lane;
/* Closes what has failed, and tells. Not from within a callback of UCX. */
void ucx_attend(ucx *t);

#endif
