#include "cli/client_priv.h"
#include "cli/peer.h"

#include <grpc/byte_buffer.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/support/alloc.h>
#include <grpc/support/time.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

enum { SIGNAL_POLL_MS = 50 };

static gpr_timespec after_ms(int64_t ms)
{
    return gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_millis(ms, GPR_TIMESPAN));
}

void cli_client_close(cli_client *client)
{
    if (client == NULL) {
        return;
    }
    if (client->channel != NULL) {
        grpc_channel_destroy(client->channel);
    }
    if (client->cq != NULL) {
        grpc_completion_queue_shutdown(client->cq);
        while (grpc_completion_queue_next(client->cq, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL).type !=
               GRPC_QUEUE_SHUTDOWN) {
        }
        grpc_completion_queue_destroy(client->cq);
    }
    grpc_shutdown_blocking();
    free(client->authorization);
    free(client);
}

/* ------------------------------------------------------------------------------------------------ interruption */

static volatile sig_atomic_t interrupted;

static void on_interrupt(int number)
{
    (void)number;
    interrupted = 1;
}

static void interrupt_catch(const cli_client *client, struct sigaction *before)
{
    struct sigaction action = {.sa_handler = on_interrupt,
                               .sa_flags = client->outlives_interrupts ? 0 : (int)SA_RESETHAND};

    interrupted = 0;
    sigaction(SIGINT, &action, before);
}

static void interrupt_restore(const struct sigaction *before)
{
    sigaction(SIGINT, before, NULL);
}

/* ----------------------------------------------------------------------------------------------------------- a call */

static char tag_sent, tag_message, tag_status;

typedef struct call_state {
    grpc_call *call;
    grpc_byte_buffer *request; /* belongs to the library until its tag is back */
    grpc_byte_buffer *message; /* received; NULL at the end of the stream */
    grpc_metadata_array headers, trailers;
    grpc_status_code code;
    grpc_slice details;
    cli_bytes_fn fn;
    void *ctx;
    moe_status result; /* of fn */
    moe_error *err;
    int n_pending; /* tags that have not come back */
    size_t n_messages;
    bool cancelled;
    bool past_deadline; /* ours */
} call_state;

static void call_batch(call_state *s, const grpc_op *ops, size_t n_ops, void *tag)
{
    MOE_ASSERT(grpc_call_start_batch(s->call, ops, n_ops, tag, NULL) == GRPC_CALL_OK);
    s->n_pending++;
}

static void call_send(call_state *s, const cli_client *client, const uint8_t *request, size_t n_bytes)
{
    grpc_slice slice = grpc_slice_from_copied_buffer((const char *)request, n_bytes);
    grpc_metadata metadata = {0};
    grpc_op ops[4] = {{.op = GRPC_OP_SEND_INITIAL_METADATA},
                      {.op = GRPC_OP_SEND_MESSAGE},
                      {.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT},
                      {.op = GRPC_OP_RECV_INITIAL_METADATA}};

    if (client->authorization != NULL) {
        metadata.key = grpc_slice_from_static_string("authorization");
        metadata.value = grpc_slice_from_static_string(client->authorization);
        ops[0].data.send_initial_metadata.count = 1;
        ops[0].data.send_initial_metadata.metadata = &metadata;
    }
    s->request = grpc_raw_byte_buffer_create(&slice, 1);
    grpc_slice_unref(slice);
    ops[1].data.send_message.send_message = s->request;
    ops[3].data.recv_initial_metadata.recv_initial_metadata = &s->headers;
    call_batch(s, ops, MOE_COUNT(ops), &tag_sent);
}

static void call_receive(call_state *s)
{
    grpc_op op = {.op = GRPC_OP_RECV_MESSAGE, .data.recv_message.recv_message = &s->message};

    call_batch(s, &op, 1, &tag_message);
}

static void call_receive_status(call_state *s)
{
    grpc_op op = {.op = GRPC_OP_RECV_STATUS_ON_CLIENT,
                  .data.recv_status_on_client = {
                      .trailing_metadata = &s->trailers, .status = &s->code, .status_details = &s->details}};

    call_batch(s, &op, 1, &tag_status);
}

static void call_cancel(call_state *s)
{
    if (!s->cancelled) {
        s->cancelled = true;
        grpc_call_cancel(s->call, NULL);
    }
}

static void call_take(call_state *s)
{
    grpc_byte_buffer_reader reader;
    grpc_slice slice;

    if (s->message == NULL) {
        return;
    }
    s->n_messages++;
    if (s->result == MOE_OK) {
        MOE_ASSERT(grpc_byte_buffer_reader_init(&reader, s->message));
        slice = grpc_byte_buffer_reader_readall(&reader);
        s->result = s->fn(s->ctx, GRPC_SLICE_START_PTR(slice), GRPC_SLICE_LENGTH(slice), s->err);
        grpc_slice_unref(slice);
        grpc_byte_buffer_reader_destroy(&reader);
    }
    grpc_byte_buffer_destroy(s->message);
    s->message = NULL;
    if (s->result != MOE_OK) {
        call_cancel(s);
    }
    call_receive(s);
}

static void call_loop(call_state *s, grpc_completion_queue *cq)
{
    while (s->n_pending > 0) {
        grpc_event event = grpc_completion_queue_next(cq, after_ms(SIGNAL_POLL_MS), NULL);

        if (interrupted) {
            call_cancel(s);
        }
        if (event.type != GRPC_OP_COMPLETE) {
            continue;
        }
        s->n_pending--;
        if (event.tag == &tag_message) {
            call_take(s);
        }
    }
}

static const char *code_name(grpc_status_code code)
{
    static const char *const names[] = {
        "OK",        "CANCELLED",      "UNKNOWN",           "INVALID_ARGUMENT",   "DEADLINE_EXCEEDED",
        "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
        "ABORTED",   "OUT_OF_RANGE",   "UNIMPLEMENTED",     "INTERNAL",           "UNAVAILABLE",
        "DATA_LOSS", "UNAUTHENTICATED"};

    return (size_t)code < MOE_COUNT(names) ? names[code] : "UNKNOWN";
}

/* The server's hint when to come again; 0 when there is none. */
static long retry_after_ms(const grpc_metadata_array *trailers)
{
    for (size_t i = 0; i < trailers->count; i++) {
        if (grpc_slice_str_cmp(trailers->metadata[i].key, "grpc-retry-pushback-ms") == 0) {
            char *text = grpc_slice_to_c_string(trailers->metadata[i].value);
            long ms = strtol(text, NULL, 10);

            gpr_free(text);
            return ms;
        }
    }
    return 0;
}

/* ---------------------------------------------------------------------------------------------------------- outcome */

/* What the user can do when no connection came about. */
static const char *advice(const cli_client *client)
{
    switch (client->is_unix ? CLI_PEER_UNKNOWN : cli_peer_detect(&client->address)) {
    case CLI_PEER_NOBODY:
        return "; nobody listens there: is conclave-coordinator running? --server HOST:PORT names another";
    case CLI_PEER_WEB:
        return "; a web server listens there, as for --http of a coordinator: give the port of its --listen";
    case CLI_PEER_TLS:
        return client->tls ? "" : "; the server speaks TLS: give --tls-ca FILE, or --tls for the system's authorities";
    case CLI_PEER_PLAIN:
        return client->tls ? "; the server speaks plain text, not TLS: leave --tls and --tls-... out" : "";
    default:
        return "";
    }
}

/* Whether the server was there at all; else gRPC is still trying, or has given up. */
static bool was_connected(const cli_client *client, const call_state *s)
{
    return s->n_messages > 0 || s->headers.count > 0 ||
           grpc_channel_check_connectivity_state(client->channel, 0) == GRPC_CHANNEL_READY;
}

static void explain_deadline(const cli_client *client, const call_state *s)
{
    bool connected = was_connected(client, s);
    const char *waited_for = s->n_messages > 0 ? "the end of the answer of"
                             : connected       ? "an answer of"
                                               : "a connection to";

    moe_fail(s->err, MOE_ERR_TIMEOUT, "DEADLINE_EXCEEDED: waited %g s (--timeout) for %s %s%s", client->timeout_s,
             waited_for, client->target, connected ? ", which took the connection" : advice(client));
}

static void explain(const cli_client *client, const call_state *s)
{
    char *details = grpc_slice_to_c_string(s->details);
    long retry_ms = retry_after_ms(&s->trailers);

    if (retry_ms > 0) {
        moe_fail(s->err, MOE_ERR_UNAVAILABLE, "%s: %s (try again in %ld ms)", code_name(s->code), details, retry_ms);
    } else {
        moe_fail(s->err, MOE_ERR_UNAVAILABLE, "%s: %s%s", code_name(s->code), details,
                 s->code == GRPC_STATUS_UNAVAILABLE && !was_connected(client, s) ? advice(client) : "");
    }
    gpr_free(details);
}

static moe_status call_outcome(const cli_client *client, const call_state *s)
{
    if (s->result != MOE_OK) {
        return s->result;
    }
    if (s->code == GRPC_STATUS_OK && !interrupted) {
        return MOE_OK;
    }
    if (s->cancelled || s->code == GRPC_STATUS_OK) { /* the reply was faster, and more calls may be to come */
        return moe_fail(s->err, MOE_ERR_CANCELLED, "CANCELLED: interrupted");
    }
    if (s->code == GRPC_STATUS_DEADLINE_EXCEEDED && s->past_deadline) {
        explain_deadline(client, s);
        return MOE_ERR_TIMEOUT;
    }
    explain(client, s);
    return MOE_ERR_UNAVAILABLE;
}

moe_status cli_client_call_bytes(cli_client *client, const char *path, const uint8_t *request, size_t n_bytes,
                                 cli_bytes_fn fn, void *ctx, moe_error *err)
{
    call_state s = {.fn = fn, .ctx = ctx, .err = err};
    gpr_timespec deadline =
        client->timeout_s > 0 ? after_ms((int64_t)(client->timeout_s * 1000)) : gpr_inf_future(GPR_CLOCK_MONOTONIC);
    struct sigaction before;
    moe_status status;

    grpc_metadata_array_init(&s.headers);
    grpc_metadata_array_init(&s.trailers);
    s.details = grpc_empty_slice();
    s.call = grpc_channel_create_call(client->channel, NULL, GRPC_PROPAGATE_DEFAULTS, client->cq,
                                      grpc_slice_from_static_string(path), NULL, deadline, NULL);
    interrupt_catch(client, &before);
    call_receive_status(&s);
    call_send(&s, client, request, n_bytes);
    call_receive(&s);
    call_loop(&s, client->cq);
    interrupt_restore(&before);
    s.past_deadline = client->timeout_s > 0 && gpr_time_cmp(gpr_now(GPR_CLOCK_MONOTONIC), deadline) >= 0;
    status = call_outcome(client, &s);
    grpc_byte_buffer_destroy(s.request);
    grpc_metadata_array_destroy(&s.headers);
    grpc_metadata_array_destroy(&s.trailers);
    grpc_slice_unref(s.details);
    grpc_call_unref(s.call);
    return status;
}

/* --------------------------------------------------------------------------------------------------------- messages */

typedef struct message_call {
    const ProtobufCMessageDescriptor *reply_type;
    cli_reply_fn fn;
    void *ctx;
} message_call;

static moe_status on_bytes(void *ctx, const uint8_t *bytes, size_t n_bytes, moe_error *err)
{
    message_call *call = ctx;
    ProtobufCMessage *reply = protobuf_c_message_unpack(call->reply_type, NULL, n_bytes, bytes);
    moe_status status;

    if (reply == NULL) {
        return moe_fail(err, MOE_ERR_CORRUPT, "reply of %zu bytes: not a %s", n_bytes, call->reply_type->name);
    }
    status = call->fn(call->ctx, reply, err);
    protobuf_c_message_free_unpacked(reply, NULL);
    return status;
}

moe_status cli_client_call(cli_client *client, const char *path, const ProtobufCMessage *request,
                           const ProtobufCMessageDescriptor *reply_type, cli_reply_fn fn, void *ctx, moe_error *err)
{
    message_call call = {.reply_type = reply_type, .fn = fn, .ctx = ctx};
    size_t n = protobuf_c_message_get_packed_size(request);
    uint8_t *bytes = malloc(n > 0 ? n : 1);
    moe_status status;

    if (bytes == NULL) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "request of %zu bytes: out of memory", n);
    }
    protobuf_c_message_pack(request, bytes);
    status = cli_client_call_bytes(client, path, bytes, n, on_bytes, &call, err);
    free(bytes);
    return status;
}
