/* client: one connection to a server, one call at a time.
 *
 * Threads: a client belongs to the thread that opened it. During a call SIGINT cancels the call instead of ending the
 * process; a second one ends it, unless the options say otherwise. */
#ifndef CONCLAVE_CLI_CLIENT_H
#define CONCLAVE_CLI_CLIENT_H

#include <protobuf-c/protobuf-c.h>

#include "base/base.h"

typedef struct cli_client cli_client;

enum { CLI_DEFAULT_PORT = 50051 };

/* Borrowed for the open call. NULL or "" is unset. Any of the tls_ fields asks for TLS too. */
typedef struct cli_client_options {
    const char *server;          /* HOST, HOST:PORT, [IPV6]:PORT, unix:PATH */
    bool tls;                    /* asked for without any of the following */
    const char *tls_ca;          /* PEM file: who may have signed the server's certificate; unset: the system's roots */
    const char *tls_cert;        /* PEM file: our own certificate, with tls_key */
    const char *tls_key;         /* PEM file */
    const char *tls_server_name; /* the name to look for in the server's certificate; unset: the host of `server` */
    const char *token_file;      /* its first line that is no comment goes out as `authorization: Bearer ...` */
    double timeout_s;            /* of each call; 0: none */
    bool outlives_interrupts;    /* a second SIGINT ends nothing but the call, for programs that go on after it */
} cli_client_options;

MOE_NODISCARD moe_status cli_client_open(const cli_client_options *options, cli_client **out, moe_error *err);
void cli_client_close(cli_client *client);

/* One reply; the bytes are borrowed. Anything but MOE_OK cancels the call and becomes its result. */
typedef moe_status (*cli_bytes_fn)(void *ctx, const uint8_t *bytes, size_t n_bytes, moe_error *err);

/* Calls `path` ("/package.Service/Method") with one request and hands every reply to fn. MOE_OK only when the server
 * ended the call with OK. Otherwise err holds "NAME: message", NAME being the gRPC status, and what the user can do
 * where we know it; after SIGINT the status is MOE_ERR_CANCELLED. */
MOE_NODISCARD moe_status cli_client_call_bytes(cli_client *client, const char *path, const uint8_t *request,
                                               size_t n_bytes, cli_bytes_fn fn, void *ctx, moe_error *err);

typedef moe_status (*cli_reply_fn)(void *ctx, const ProtobufCMessage *reply, moe_error *err);

/* The same with messages; the reply is borrowed. */
MOE_NODISCARD moe_status cli_client_call(cli_client *client, const char *path, const ProtobufCMessage *request,
                                         const ProtobufCMessageDescriptor *reply_type, cli_reply_fn fn, void *ctx,
                                         moe_error *err);

#endif
