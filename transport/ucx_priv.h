/* ucx: connections that have met by tls, whose frames travel by UCX active messages. Only ucx.c (connections and messages) and
 * ucx_context.c (starting UCX) include UCX's headers.
 *
 * UCX believes what it reads: addresses and tokens reach it only over the channel of two ends that have proved the secret to
 * each other (tls_agree.c). The channel stays, silent; its end is the connection's end.
 *
 *   open -> connect -> up -> end -> close         nothing that has come is delivered before up: it waits in the worker
 *
 * Callbacks of UCX only note what happened (net_slot_fail); end and close are called outside of them.
 * Threads: the endpoint's. */
#ifndef CONCLAVE_TRANSPORT_UCX_PRIV_H
#define CONCLAVE_TRANSPORT_UCX_PRIV_H

#include "transport/net_priv.h"

#include <ucp/api/ucp_def.h>

#define UCX_MAX_LANE    64
#define UCX_MAX_ADDRESS 2048
#define UCX_TOKEN       16 /* in front of every message: it ties what UCX delivers to the meeting */

typedef struct ucx ucx;           /* of one endpoint */
typedef struct ucx_conn ucx_conn; /* of one connection */

/* What UCX is opened for. */
typedef struct ucx_options {
    transport_lane lane; /* ucx-tcp or rdma */
    const char *device;  /* the network's, alone; "": all */
    transport_gpu gpu;
    bool gpu_is_host; /* of tests: what is said to be a GPU's memory is the host's, as a fake GPU's is */
} ucx_options;

/* Connections of t (borrowed). */
MOE_NODISCARD moe_status ucx_open(const ucx_options *o, net *t, ucx **out, moe_error *err);
void ucx_close(ucx *u);                   /* its connections were closed before; NULL is fine */
const char *ucx_transports(const ucx *u); /* as transport_net_lane: "tcp", "rc_mlx5+gpu" */
bool ucx_takes_device(const ucx *u);      /* frames from the memory of a GPU; NULL: no */

/* A worker of its own for the slot (borrowed); its address is what the other end connects to. */
MOE_NODISCARD moe_status ucx_conn_open(ucx *u, net_slot *slot, const unsigned char token[UCX_TOKEN], ucx_conn **out,
                                       unsigned char address_out[UCX_MAX_ADDRESS], size_t *n_out, moe_error *err);
MOE_NODISCARD moe_status ucx_conn_connect(ucx_conn *c, const unsigned char *address, size_t n, moe_error *err);
MOE_NODISCARD moe_status ucx_conn_up(ucx_conn *c);
MOE_NODISCARD moe_status ucx_conn_send(ucx_conn *c, transport_msg *msg); /* as of transport_ops, the size was checked */
void ucx_conn_wake(ucx_conn *c);  /* its descriptor tells that there is something to do */
void ucx_conn_drain(ucx_conn *c); /* delivers what has come */
uint64_t ucx_conn_stands_since(const ucx_conn *c);
/* Begins to end it. True once UCX is done with it and with all frames, which have been given back: so no frame's memory is the
 * caller's again while UCX may still read it. */
MOE_NODISCARD bool ucx_conn_end(ucx_conn *c);
/* What has not ended is cut off: the worker goes first, then its frames are given back. NULL is fine. */
void ucx_conn_close(ucx_conn *c);

void ucx_progress(ucx *u);                /* of those that may have something to do */
bool ucx_is_busy(const ucx *u);           /* there are such; NULL: no */
size_t ucx_n_up(const ucx *u);            /* connections; NULL: none */
MOE_NODISCARD bool ucx_may_sleep(ucx *u); /* from now on the set of events tells; false: there is something to do */

/* ucx_context.c: UCX for one endpoint. transports_out: as ucx_transports. */
MOE_NODISCARD moe_status ucx_context_open(const ucx_options *o, char transports_out[UCX_MAX_LANE],
                                          bool *takes_device_out, ucp_context_h *out, moe_error *err);

#endif
