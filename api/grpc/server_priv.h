/* The listener as its files share it: server.c (open, close, limits), turn.c (its thread) and call.c (the life of a call);
 * and what rpc.c does for the tags of a call.
 *
 * Threads: what is not under "shared" or constant after open belongs to the API thread. */
#ifndef CONCLAVE_API_GRPC_SERVER_PRIV_H
#define CONCLAVE_API_GRPC_SERVER_PRIV_H

#include "api/grpc/auth_priv.h"
#include "api/grpc/descriptors_priv.h"
#include "api/grpc/rpc.h"
#include "api/grpc/tls_priv.h"
#include "api/grpc/wake_priv.h"
#include "api/grpc/work.h"

#include <pthread.h>
#include <stdatomic.h>

#define SERVER_MAX_METHODS 32

typedef enum {
    SERVER_RUNNING,
    SERVER_REFUSING,
    SERVER_STOPPING,
    SERVER_ENDING,
    SERVER_CANCELLING,
    SERVER_STOPPED
} server_stage;

struct api_server {
    _Atomic(engine *) engine;       /* borrowed; NULL while the program loads */
    const api_view *view;           /* borrowed; set before engine */
    const api_catalogue *catalogue; /* the same */
    const api_loading *loading;     /* borrowed; NULL: nothing to tell */
    char *model_name;               /* owned */
    char **labels;                  /* borrowed; NULL: none */
    grpc_server *server;            /* owned */
    grpc_completion_queue *queue;
    tls *tls;   /* owned; NULL: none */
    auth *auth; /* owned; NULL: none */
    wake_hub *hub;
    work_desk *desk;          /* owned */
    descriptors *descriptors; /* owned */
    pthread_t thread;
    uint16_t port;
    unsigned services;
    uint32_t max_calls;
    uint64_t send_timeout_ns, first_message_ns;

    const rpc_method *methods[SERVER_MAX_METHODS + 1]; /* the last one stands for every unknown one */
    size_t n_methods;
    atomic_uint_least64_t counts[SERVER_MAX_METHODS + 1][RPC_N_STATUS];

    /* the API thread's */
    server_stage stage;
    rpc_call *calls;  /* accepted and not yet freed */
    size_t n_objects; /* those and the posted ones */
    size_t n_posted;
    uint32_t n_watches;
    uint64_t last_poll_ns, last_auth_ns, last_traffic_ns, refuse_until_ns, cancel_at_ns;
    rpc_tag tag_wake, tag_shutdown;

    /* shared */
    atomic_uint n_calls;
    atomic_uint_least64_t last_turn_ns;
    atomic_bool announced; /* that it drains, or will */
    atomic_bool draining;
    atomic_bool stop;
    atomic_uint grace_ms;
};

/* call.c */
extern const rpc_method server_unknown_method;
void server_post_calls(api_server *s); /* so many that a burst need not wait for this thread */

/* turn.c: the API thread; ctx is the server. */
void *server_run(void *ctx);
void server_on_wake(void *ctx, bool ok);
void server_on_shutdown(void *ctx, bool ok);

/* rpc.c */
void rpc_watch_close(rpc_call *call);
void rpc_on_received(rpc_call *call, bool ok);
void rpc_on_sent(rpc_call *call, bool ok);

static inline uint64_t server_now_ns(void)
{
    return moe_now_ns(moe_clock_real());
}

#endif
