#include "cli/client.h"

#include <grpc/byte_buffer.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <grpc/support/alloc.h>
#include <grpc/support/time.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

enum {
    KEEPALIVE_MS = 30000, /* a server of ours takes a ping every 10 s */
    KEEPALIVE_TIMEOUT_MS = 10000,
    PEM_MAX_BYTES = 1 << 20,
    TOKEN_MAX_BYTES = 16384,
    SIGNAL_POLL_MS = 50,
};

struct cli_client {
    grpc_channel *channel;     /* owned */
    grpc_completion_queue *cq; /* owned */
    char *authorization;       /* owned; NULL: no token */
    double timeout_s;
};

/* ---------------------------------------------------------------------------------------------------------- opening */

static bool is_set(const char *text)
{
    return text != NULL && *text != '\0';
}

static moe_status read_text(const char *path, size_t max_bytes, char **out, moe_error *err)
{
    size_t n;

    *out = NULL;
    return is_set(path) ? moe_file_read(path, max_bytes, out, &n, err) : MOE_OK;
}

static moe_status read_token(cli_client *client, const char *path, moe_error *err)
{
    static const char scheme[] = "Bearer ";
    char *token;
    moe_status status = read_text(path, TOKEN_MAX_BYTES, &token, err);

    if (status != MOE_OK || token == NULL) {
        return status;
    }
    token[strcspn(token, "\r\n")] = '\0';
    if (*token == '\0') {
        status = moe_fail(err, MOE_ERR_INVALID_ARG, "token file %s: its first line is empty", path);
    } else {
        size_t n = sizeof(scheme) + strlen(token);

        client->authorization = malloc(n);
        if (client->authorization != NULL) {
            snprintf(client->authorization, n, "%s%s", scheme, token);
        } else {
            status = moe_fail(err, MOE_ERR_NO_MEMORY, "token: out of memory");
        }
    }
    free(token);
    return status;
}

static moe_status make_tls(const cli_client_options *options, grpc_channel_credentials **out, moe_error *err)
{
    char *ca = NULL, *cert = NULL, *key = NULL;
    grpc_ssl_pem_key_cert_pair pair;
    moe_status status;

    if (is_set(options->tls_cert) != is_set(options->tls_key)) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "--tls-cert and --tls-key: one needs the other");
    }
    status = read_text(options->tls_ca, PEM_MAX_BYTES, &ca, err);
    if (status == MOE_OK) {
        status = read_text(options->tls_cert, PEM_MAX_BYTES, &cert, err);
    }
    if (status == MOE_OK) {
        status = read_text(options->tls_key, PEM_MAX_BYTES, &key, err);
    }
    if (status == MOE_OK) {
        pair = (grpc_ssl_pem_key_cert_pair){.private_key = key, .cert_chain = cert};
        *out = grpc_ssl_credentials_create_ex(ca, cert != NULL ? &pair : NULL, NULL, NULL);
        if (*out == NULL) {
            status = moe_fail(err, MOE_ERR_INVALID_ARG, "tls: the certificates were refused");
        }
    }
    free(ca);
    free(cert);
    free(key);
    return status;
}

static bool is_loopback(const char *server)
{
    static const char *const prefixes[] = {"127.", "localhost:", "[::1]:", "unix:"};

    for (size_t i = 0; i < MOE_COUNT(prefixes); i++) {
        if (strncmp(server, prefixes[i], strlen(prefixes[i])) == 0) {
            return true;
        }
    }
    return false;
}

static bool wants_tls(const cli_client_options *options)
{
    return is_set(options->tls_ca) || is_set(options->tls_cert) || is_set(options->tls_key) ||
           is_set(options->tls_server_name);
}

static moe_status make_credentials(const cli_client_options *options, grpc_channel_credentials **out, moe_error *err)
{
    if (wants_tls(options)) {
        return make_tls(options, out, err);
    }
    if (is_set(options->token_file) && !is_loopback(options->server)) {
        MOE_WARN("token goes to %s in plain text; --tls-ca FILE protects it", options->server);
    }
    *out = grpc_insecure_credentials_create();
    return MOE_OK;
}

static grpc_arg int_arg(char *key, int v)
{
    return (grpc_arg){.type = GRPC_ARG_INTEGER, .key = key, .value.integer = v};
}

static grpc_channel *make_channel(const cli_client_options *options, grpc_channel_credentials *credentials)
{
    /* gRPC's argument structs take char *, but do not write through it. */
    grpc_arg args[] = {
        int_arg((char *)GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, -1),
        int_arg((char *)GRPC_ARG_KEEPALIVE_TIME_MS, KEEPALIVE_MS),
        int_arg((char *)GRPC_ARG_KEEPALIVE_TIMEOUT_MS, KEEPALIVE_TIMEOUT_MS),
        int_arg((char *)GRPC_ARG_SERVICE_CONFIG_DISABLE_RESOLUTION, 1),
        /* A proxy of the environment cannot reach this machine's own loopback. */
        int_arg((char *)GRPC_ARG_ENABLE_HTTP_PROXY, !is_loopback(options->server)),
        {.type = GRPC_ARG_STRING,
         .key = (char *)GRPC_SSL_TARGET_NAME_OVERRIDE_ARG,
         .value.string = (char *)options->tls_server_name},
    };
    grpc_channel_args list = {.num_args = MOE_COUNT(args) - !is_set(options->tls_server_name), .args = args};

    return grpc_channel_create(options->server, credentials, &list);
}

moe_status cli_client_open(const cli_client_options *options, cli_client **out, moe_error *err)
{
    grpc_channel_credentials *credentials = NULL;
    cli_client *client = calloc(1, sizeof(*client));
    moe_status status;

    if (client == NULL) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "client: out of memory");
    }
    client->timeout_s = options->timeout_s;
    setenv("GRPC_VERBOSITY", "NONE", 0); /* the status says it; its log lines would say it again */
    grpc_init();
    status = read_token(client, options->token_file, err);
    if (status != MOE_OK) {
        goto err_close;
    }
    status = make_credentials(options, &credentials, err);
    if (status != MOE_OK) {
        goto err_close;
    }
    client->channel = make_channel(options, credentials);
    grpc_channel_credentials_release(credentials);
    client->cq = grpc_completion_queue_create_for_next(NULL);
    *out = client;
    return MOE_OK;

err_close:
    cli_client_close(client);
    return status;
}

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

static void interrupt_catch(struct sigaction *before)
{
    struct sigaction action = {.sa_handler = on_interrupt, .sa_flags = (int)SA_RESETHAND};

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
    bool cancelled;
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

static moe_status call_outcome(call_state *s)
{
    char *details;
    long retry_ms;

    if (s->result != MOE_OK) {
        return s->result;
    }
    if (s->code == GRPC_STATUS_OK) {
        return MOE_OK;
    }
    if (s->cancelled) {
        return moe_fail(s->err, MOE_ERR_CANCELLED, "CANCELLED: interrupted");
    }
    details = grpc_slice_to_c_string(s->details);
    retry_ms = retry_after_ms(&s->trailers);
    if (retry_ms > 0) {
        moe_fail(s->err, MOE_ERR_UNAVAILABLE, "%s: %s (try again in %ld ms)", code_name(s->code), details, retry_ms);
    } else {
        moe_fail(s->err, MOE_ERR_UNAVAILABLE, "%s: %s", code_name(s->code), details);
    }
    gpr_free(details);
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
    interrupt_catch(&before);
    call_receive_status(&s);
    call_send(&s, client, request, n_bytes);
    call_receive(&s);
    call_loop(&s, client->cq);
    interrupt_restore(&before);
    status = call_outcome(&s);
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
