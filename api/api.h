/* api: what clients, operators and probes see of a coordinator: gRPC (inference, admin, health, reflection) and HTTP
 * (livez, readyz, metrics). Built on engine.h; the program links the engine and the tokenizer behind it.
 *
 * Nouns (view.h: how the program shows the cluster to both):
 *   api_server     one gRPC listener: one completion queue, one thread
 *   api_http       one HTTP listener: one thread
 *
 * Threads: open, begin_drain and close belong to the program's thread; the getters may be called from any thread. */
#ifndef CONCLAVE_API_H
#define CONCLAVE_API_H

#include "api/view.h"
#include "base/base.h"
#include "engine/engine.h"

/* ------------------------------------------------------------------------------------------------ gRPC */
#define API_SERVE_INFERENCE 1u
#define API_SERVE_ADMIN     2u

/* Strings are borrowed during api_server_open. */
typedef struct api_options {
    const char *listen;   /* HOST:PORT, [IPV6]:PORT; port 0: a free one */
    const char *tls_cert; /* PEM files; cert and key go together. Changed files are taken up without a restart */
    const char *tls_key;
    const char *tls_ca;     /* given: clients must show a certificate that it signed */
    const char *token_file; /* one token per line, several for rotation; re-read on change */
    bool insecure;          /* allows listening beyond loopback without TLS and token, and tokens without TLS there */
    bool reflection;
    unsigned services;         /* API_SERVE_...; 0: all */
    const char *model_name;    /* of GetModel */
    char **labels;             /* names [n_labels of the config], borrowed until api_server_close; NULL: none */
    size_t max_receive_bytes;  /* 0: from max_context and the tokenizer */
    uint32_t max_calls;        /* open at a time; 0: from the engine's limits */
    uint32_t send_timeout_ms;  /* a client that reads nothing for so long is cut off; 0: 60000 */
    uint32_t first_message_ms; /* a call whose request has not come by then is ended; 0: 10000 */
} api_options;

typedef struct api_server api_server;

/* What api_server_open refuses before it looks at files, engine or network. A program asks before a load that takes
 * minutes. Errors: MOE_ERR_INVALID_ARG, as there. */
MOE_NODISCARD moe_status api_options_check(const api_options *options, moe_error *err);
/* Listens and serves. engine and view are borrowed until api_server_close.
 * Errors:
 *   MOE_ERR_INVALID_ARG    names the option: a listener beyond loopback without TLS and token, unless insecure; a
 *                          certificate without key; an empty token file
 *   MOE_ERR_UNAVAILABLE    the address cannot be bound
 *   MOE_ERR_IO, _CORRUPT   a file cannot be read, or is not what it should be */
MOE_NODISCARD moe_status api_server_open(const api_options *options, engine *e, const api_view *view, api_server **out,
                                         moe_error *err);
uint16_t api_server_port(const api_server *s);
/* Health says NOT_SERVING, watches end, new requests are refused with UNAVAILABLE; running ones go on. */
void api_server_begin_drain(api_server *s);
/* Calls in progress may end within grace_ms; the others are cancelled. Returns when none is left. NULL is fine. */
void api_server_close(api_server *s, uint32_t grace_ms);

/* ------------------------------------------------------------------------------------------------ HTTP
 * GET /livez     200 while the loops turn: the engine's and the API's; never looks at peers
 * GET /readyz    200 while engine_ready
 * GET /metrics   Prometheus text */
typedef struct api_http api_http;

typedef struct api_http_options {
    const char *listen;       /* HOST:PORT; port 0: a free one */
    const char *model_name;   /* label of the build information */
    bool no_experts;          /* /metrics has no lines per layer and expert */
    uint32_t live_timeout_ms; /* a loop with work that has not turned for so long is stuck; 0: 60000 */
} api_http_options;

/* server may be NULL (no gRPC listener to report on). Everything is borrowed until api_http_close, which comes before
 * api_server_close. Errors: as api_server_open. */
MOE_NODISCARD moe_status api_http_open(const api_http_options *options, engine *e, const api_view *view,
                                       api_server *server, api_http **out, moe_error *err);
uint16_t api_http_port(const api_http *h);
void api_http_close(api_http *h); /* NULL is fine */

#endif
