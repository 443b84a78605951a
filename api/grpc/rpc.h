/* rpc: one gRPC call on the server side, as the services see it. Private to the API.
 *
 * Nouns:
 *   rpc_call     one call; lives until every tag that is out for it has come back
 *   rpc_method   one row of the method table: its functions
 *
 * Threads: everything here runs on the API thread, but for wake_signal. */
#ifndef CONCLAVE_API_GRPC_RPC_H
#define CONCLAVE_API_GRPC_RPC_H

#include <grpc/grpc.h>
#include <protobuf-c/protobuf-c.h>

#include "api/api.h"
#include "api/grpc/counters.h"
#include "api/permits.h"

#define RPC_MAX_WATCHES       64
#define RPC_MAX_REPLY_BYTES   ((size_t)64 << 20)
#define RPC_RETRY_BUSY_MS     500
#define RPC_RETRY_STARTING_MS 1000
#define RPC_SHUTTING_DOWN     "the server is shutting down"

typedef struct rpc_call rpc_call;

/* What comes out of the completion queue. */
typedef struct rpc_tag {
    void (*done)(void *ctx, bool ok);
    void *ctx;
} rpc_tag;

typedef struct wake_hub wake_hub;
typedef struct wake_slot wake_slot;
typedef struct descriptors descriptors;

/* What the log tells of a request when its call ends: never the prompt, never the answer. */
typedef struct rpc_record {
    char id[ENGINE_MAX_REQUEST_ID + 1]; /* "": it never reached the engine */
    char set[65];
    engine_usage usage;
} rpc_record;

typedef struct rpc_method {
    const char *path;
    unsigned service; /* API_SERVE_... bit; 0: health and reflection */
    bool needs_token;
    bool for_all_sets; /* refused to a token that is bound to some */
    bool works;        /* takes work for the engine: refused at once while that is not ready; logged when it ends */
    bool watch;        /* may stay open for ever: counted against RPC_MAX_WATCHES, ended by a drain */
    /* start is called for every message; it may ask for the next by rpc_receive, and the call ends OK after the last. */
    bool client_streams;
    /* The request's bytes, borrowed. Either finishes the call or leaves it open. */
    void (*start)(rpc_call *call, const uint8_t *bytes, size_t n);
    void (*wake)(rpc_call *call);                  /* optional: events are there, or the message in flight has left */
    void (*poll)(rpc_call *call, uint64_t now_ns); /* optional: about ten times a second */
    void (*stop)(rpc_call *call);                  /* optional: ends the call with UNAVAILABLE, RPC_SHUTTING_DOWN */
    void (*fini)(rpc_call *call); /* optional: frees call->state, once the client is gone or has its status */
} rpc_method;

/* The fields that services use; the rest belongs to server.c. */
struct rpc_call {
    api_server *server;
    const rpc_method *method;
    void *state;           /* the service's own */
    uint64_t deadline_ns;  /* of moe_clock_real; 0: none */
    uint64_t last_send_ns; /* when a message was last handed over, or the call began */
    bool sending;          /* a message is in flight: rpc_send must wait for wake */
    bool headers_sent, finished;
    permits permits;   /* of its token */
    rpc_record record; /* session.c */
    struct work *work; /* work.c: not done yet; NULL: none */

    /* server.c */
    grpc_call *call;
    grpc_call_details details;
    grpc_metadata_array metadata;
    rpc_tag tag_new, tag_close, tag_receive, tag_send;
    grpc_byte_buffer *received, *sent, *last; /* last: goes out with the status */
    grpc_status_code status;
    grpc_slice status_text;
    size_t n_trailers;
    grpc_metadata trailers[2];
    int cancelled;
    bool accepted, closed, started, status_sent;
    unsigned n_tags; /* that have not come back */
    uint64_t begun_ns, send_begun_ns;
    size_t method_idx;
    rpc_call *prev, *next; /* of the server's open calls */
};

/* Sends one message of a stream. Must not be called while call->sending. */
void rpc_send(rpc_call *call, const ProtobufCMessage *message);
void rpc_send_bytes(rpc_call *call, const void *bytes, size_t n);
void rpc_receive(rpc_call *call); /* the next message of a client that streams */
/* Ends the call with OK and, if not NULL, a last message. Also while a message is in flight: the end follows it. */
void rpc_finish_ok(rpc_call *call, const ProtobufCMessage *message);
void rpc_finish_bytes(rpc_call *call, const void *bytes, size_t n);
/* Ends the call with the gRPC status of `status`; text names field, value and limit. RESOURCE_EXHAUSTED and UNAVAILABLE
 * carry the retry hint; an internal error is logged and the client is told where. */
void rpc_fail(rpc_call *call, moe_status status, const char *text);
/* The same, and the trailer tokens_emitted: a stream that breaks off. */
void rpc_fail_after(rpc_call *call, moe_status status, const char *text, uint64_t tokens_emitted);
void rpc_fail_code(rpc_call *call, grpc_status_code code, const char *text);
grpc_status_code rpc_status_code(moe_status status);

/* Unpacks and checks a request: well-formed, every string UTF-8 without NUL, memory within a multiple of its size. On
 * failure the call is ended with INVALID_ARGUMENT and NULL comes back. Free with rpc_free. */
ProtobufCMessage *rpc_unpack(rpc_call *call, const ProtobufCMessageDescriptor *type, const uint8_t *bytes, size_t n);
void rpc_free(ProtobufCMessage *message);

engine *rpc_engine(const rpc_call *call);
const api_view *rpc_view(const rpc_call *call);
const api_catalogue *rpc_catalogue(const rpc_call *call);
const char *rpc_model_name(const rpc_call *call);
char **rpc_labels(const rpc_call *call, size_t *n_out); /* names of a classifier's labels; none: 0 */
unsigned rpc_services(const rpc_call *call);
bool rpc_draining(const rpc_call *call);
bool rpc_leaving(const rpc_call *call); /* it drains, or has announced that it will */
bool rpc_loaded(const rpc_call *call);  /* there is an engine: true for every method of Inference and Admin */
bool rpc_ready(const rpc_call *call);
wake_hub *rpc_wake_hub(const rpc_call *call);
struct work_desk *rpc_work_desk(const rpc_call *call);
const descriptors *rpc_descriptors(const rpc_call *call);

extern const rpc_method inference_methods[], admin_methods[], health_methods[], reflection_methods[];
extern const size_t n_inference_methods, n_admin_methods, n_health_methods, n_reflection_methods;

#endif
