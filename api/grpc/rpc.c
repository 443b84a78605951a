/* The part of a call that has nothing to do with the server's life: messages out, statuses, requests in. */
#include "api/grpc/server_priv.h"
#include "api/grpc/proto.h"

#include <grpc/byte_buffer_reader.h>
#include <inttypes.h>
#include <string.h>

grpc_status_code rpc_status_code(moe_status status)
{
    switch (status) {
    case MOE_OK:
        return GRPC_STATUS_OK;
    case MOE_ERR_INVALID_ARG:
        return GRPC_STATUS_INVALID_ARGUMENT;
    case MOE_ERR_BUSY:
    case MOE_ERR_NO_MEMORY:
        return GRPC_STATUS_RESOURCE_EXHAUSTED;
    case MOE_ERR_TIMEOUT:
        return GRPC_STATUS_DEADLINE_EXCEEDED;
    case MOE_ERR_NOT_FOUND:
        return GRPC_STATUS_NOT_FOUND;
    case MOE_ERR_UNSUPPORTED:
        return GRPC_STATUS_UNIMPLEMENTED;
    case MOE_ERR_UNAVAILABLE:
    case MOE_ERR_IO:
        return GRPC_STATUS_UNAVAILABLE;
    case MOE_ERR_CANCELLED:
        return GRPC_STATUS_CANCELLED;
    case MOE_ERR_EXISTS:
        return GRPC_STATUS_ALREADY_EXISTS;
    case MOE_ERR_DENIED:
        return GRPC_STATUS_PERMISSION_DENIED;
    case MOE_ERR_CORRUPT: /* of our own data: a malformed request is an invalid argument */
    case MOE_ERR_DATA_LOSS:
        return GRPC_STATUS_DATA_LOSS;
    case MOE_ERR_INTERNAL:
        break;
    }
    return GRPC_STATUS_INTERNAL;
}

/* ------------------------------------------------------------------------------------------------ messages out */
static grpc_byte_buffer *buffer_of_slice(grpc_slice slice)
{
    grpc_byte_buffer *buffer = grpc_raw_byte_buffer_create(&slice, 1);

    grpc_slice_unref(slice);
    return buffer;
}

static grpc_byte_buffer *buffer_of_message(const ProtobufCMessage *message)
{
    grpc_slice slice = grpc_slice_malloc(protobuf_c_message_get_packed_size(message));

    protobuf_c_message_pack(message, GRPC_SLICE_START_PTR(slice));
    return buffer_of_slice(slice);
}

static void start_batch(rpc_call *call, grpc_op *ops, size_t n_ops, rpc_tag *tag)
{
    grpc_call_error error = grpc_call_start_batch(call->call, ops, n_ops, tag, NULL);

    MOE_ASSERT(error == GRPC_CALL_OK);
    call->n_tags++;
}

static void add_headers(rpc_call *call, grpc_op *ops, size_t *n_ops)
{
    if (!call->headers_sent) {
        call->headers_sent = true;
        ops[(*n_ops)++].op = GRPC_OP_SEND_INITIAL_METADATA;
    }
}

static void add_message(rpc_call *call, grpc_byte_buffer *buffer, grpc_op *ops, size_t *n_ops)
{
    call->sent = buffer;
    ops[*n_ops].op = GRPC_OP_SEND_MESSAGE;
    ops[(*n_ops)++].data.send_message.send_message = buffer;
}

static void mark_sending(rpc_call *call)
{
    call->sending = true;
    call->send_begun_ns = call->last_send_ns = moe_now_ns(moe_clock_real());
}

static void send_buffer(rpc_call *call, grpc_byte_buffer *buffer)
{
    grpc_op ops[2];
    size_t n_ops = 0;

    MOE_ASSERT(!call->sending && !call->finished);
    memset(ops, 0, sizeof(ops));
    add_headers(call, ops, &n_ops);
    add_message(call, buffer, ops, &n_ops);
    mark_sending(call);
    start_batch(call, ops, n_ops, &call->tag_send);
}

void rpc_send(rpc_call *call, const ProtobufCMessage *message)
{
    send_buffer(call, buffer_of_message(message));
}

void rpc_send_bytes(rpc_call *call, const void *bytes, size_t n)
{
    send_buffer(call, buffer_of_slice(grpc_slice_from_copied_buffer(bytes, n)));
}

/* Headers without entries and the status in one batch leave as Trailers-Only when no message goes with them. */
static void send_status(rpc_call *call)
{
    grpc_op ops[3];
    size_t n_ops = 0;

    memset(ops, 0, sizeof(ops));
    add_headers(call, ops, &n_ops);
    if (call->last != NULL) {
        add_message(call, call->last, ops, &n_ops);
        call->last = NULL;
    }
    ops[n_ops].op = GRPC_OP_SEND_STATUS_FROM_SERVER;
    ops[n_ops].data.send_status_from_server.status = call->status;
    ops[n_ops].data.send_status_from_server.status_details = &call->status_text;
    ops[n_ops].data.send_status_from_server.trailing_metadata = call->trailers;
    ops[n_ops].data.send_status_from_server.trailing_metadata_count = call->n_trailers;
    n_ops++;
    call->status_sent = true;
    mark_sending(call);
    start_batch(call, ops, n_ops, &call->tag_send);
}

static void finish(rpc_call *call, grpc_status_code code, const char *text, grpc_byte_buffer *last)
{
    MOE_ASSERT(!call->finished);
    call->finished = true;
    call->status = code;
    call->status_text = grpc_slice_from_copied_string(text);
    call->last = last;
    if (!call->sending) {
        send_status(call);
    }
}

void rpc_finish_ok(rpc_call *call, const ProtobufCMessage *message)
{
    finish(call, GRPC_STATUS_OK, "", message == NULL ? NULL : buffer_of_message(message));
}

void rpc_finish_bytes(rpc_call *call, const void *bytes, size_t n)
{
    finish(call, GRPC_STATUS_OK, "", buffer_of_slice(grpc_slice_from_copied_buffer(bytes, n)));
}

static void add_trailer(rpc_call *call, const char *key, uint64_t value)
{
    char text[24];

    snprintf(text, sizeof(text), "%" PRIu64, value);
    MOE_ASSERT(call->n_trailers < MOE_COUNT(call->trailers));
    call->trailers[call->n_trailers].key = grpc_slice_from_static_string(key);
    call->trailers[call->n_trailers++].value = grpc_slice_from_copied_string(text);
}

void rpc_fail_code(rpc_call *call, grpc_status_code code, const char *text)
{
    finish(call, code, text, NULL);
}

void rpc_fail(rpc_call *call, moe_status status, const char *text)
{
    char incident[64];

    if (status == MOE_ERR_BUSY || status == MOE_ERR_NO_MEMORY) {
        add_trailer(call, "grpc-retry-pushback-ms", RPC_RETRY_BUSY_MS);
    } else if (rpc_status_code(status) == GRPC_STATUS_UNAVAILABLE) {
        add_trailer(call, "grpc-retry-pushback-ms", RPC_RETRY_STARTING_MS);
    } else if (rpc_status_code(status) == GRPC_STATUS_INTERNAL) {
        snprintf(incident, sizeof(incident), "internal error, incident %016" PRIx64, moe_random_entropy());
        MOE_ERROR("%s: %s: %s", call->method->path, incident, text);
        text = incident;
    }
    rpc_fail_code(call, rpc_status_code(status), text[0] == '\0' ? moe_status_text(status) : text);
}

void rpc_fail_after(rpc_call *call, moe_status status, const char *text, uint64_t tokens_emitted)
{
    add_trailer(call, "tokens_emitted", tokens_emitted);
    rpc_fail(call, status, text);
}

/* ------------------------------------------------------------------------------------------------ tags of a call */
void rpc_on_sent(rpc_call *call, bool ok)
{
    grpc_byte_buffer_destroy(call->sent);
    call->sent = NULL;
    call->sending = false;
    if (call->status_sent || !ok || call->closed) {
        return;
    }
    if (call->finished) {
        send_status(call);
    } else if (call->method->wake != NULL) {
        call->method->wake(call);
    }
}

void rpc_receive(rpc_call *call)
{
    grpc_op op;

    memset(&op, 0, sizeof(op));
    op.op = GRPC_OP_RECV_MESSAGE;
    op.data.recv_message.recv_message = &call->received;
    start_batch(call, &op, 1, &call->tag_receive);
}

void rpc_watch_close(rpc_call *call)
{
    grpc_op op;

    memset(&op, 0, sizeof(op));
    op.op = GRPC_OP_RECV_CLOSE_ON_SERVER;
    op.data.recv_close_on_server.cancelled = &call->cancelled;
    start_batch(call, &op, 1, &call->tag_close);
}

static void deliver(rpc_call *call, grpc_byte_buffer *buffer)
{
    grpc_byte_buffer_reader reader;

    if (buffer->type != GRPC_BB_RAW || buffer->data.raw.compression != GRPC_COMPRESS_NONE) {
        rpc_fail(call, MOE_ERR_UNSUPPORTED, "compressed messages are not accepted");
        return;
    }
    if (!grpc_byte_buffer_reader_init(&reader, buffer)) {
        rpc_fail(call, MOE_ERR_INVALID_ARG, "the request message cannot be read");
        return;
    }
    grpc_slice bytes = grpc_byte_buffer_reader_readall(&reader);
    grpc_byte_buffer_reader_destroy(&reader);
    call->method->start(call, GRPC_SLICE_START_PTR(bytes), GRPC_SLICE_LENGTH(bytes));
    grpc_slice_unref(bytes);
}

/* No buffer: the client has ended its side, with or without a message before. */
void rpc_on_received(rpc_call *call, bool ok)
{
    grpc_byte_buffer *buffer = call->received;

    call->received = NULL;
    if (!call->finished && !call->closed) {
        if (buffer != NULL) {
            call->started = true;
            deliver(call, buffer);
        } else if (ok && call->method->client_streams) {
            rpc_finish_ok(call, NULL);
        } else if (ok) {
            rpc_fail(call, MOE_ERR_INVALID_ARG, "the call carries no request message");
        }
    }
    if (buffer != NULL) {
        grpc_byte_buffer_destroy(buffer);
    }
}

/* ------------------------------------------------------------------------------------------------ requests in */
ProtobufCMessage *rpc_unpack(rpc_call *call, const ProtobufCMessageDescriptor *type, const uint8_t *bytes, size_t n)
{
    ProtobufCMessage *message = NULL;
    moe_error err;
    moe_status status = proto_unpack(type, bytes, n, &message, &err);

    if (status != MOE_OK) {
        rpc_fail(call, status, err.text);
        return NULL;
    }
    return message;
}

void rpc_free(ProtobufCMessage *message)
{
    proto_free(message);
}
