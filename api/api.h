/* api: what clients, operators and probes see of a coordinator: gRPC (inference, admin, health, reflection) and HTTP
 * (livez, readyz, metrics). Built on engine.h; the program links the engine and the tokenizer behind it.
 *
 * Nouns (view.h: how the program shows the cluster to both; catalogue.h: how it shows packs and sets, and changes them):
 *   api_server     one gRPC listener: one completion queue, one thread
 *   api_http       one HTTP listener: one thread
 *   api_loading    how far the program has come that has no engine yet
 *
 * Both listen before there is an engine, so that an occupied port is found before a load that takes minutes, and probes
 * and clients are told how it stands. Until set_engine health is NOT_SERVING, Inference and Admin are UNAVAILABLE with
 * the retry hint, /livez is 200 and /readyz is 503.
 *
 * Threads: open, set_engine, begin_drain and close belong to the program's thread; api_loading_set and the getters may be
 * called from any thread. */
#ifndef CONCLAVE_API_H
#define CONCLAVE_API_H

#include <stdatomic.h>

#include "api/catalogue.h"
#include "api/view.h"
#include "base/base.h"
#include "engine/engine.h"

/* ------------------------------------------------------------------------------------------------ loading */
typedef struct api_loading {
    _Atomic(const char *) what; /* "hashing the checkpoint"; static storage; NULL: nothing has begun */
    atomic_uint percent;
} api_loading;

void api_loading_set(api_loading *l, const char *what, size_t done, size_t total);
/* engine_check_ready, or without an engine MOE_ERR_UNAVAILABLE and how far the load is. */
moe_status api_check_ready(const api_loading *l, engine *e, moe_error *err);

/* ------------------------------------------------------------------------------------------------ gRPC */
#define API_SERVE_INFERENCE 1u
#define API_SERVE_ADMIN     2u
#define API_SERVE_HEALTH    4u /* alone: nothing but Health, and no secret to keep: it may listen anywhere without TLS */

/* Strings are borrowed during api_server_open. */
typedef struct api_options {
    const char *option;   /* what messages call the next: "--admin-listen"; NULL: "--listen" */
    const char *listen;   /* HOST:PORT, [IPV6]:PORT; port 0: a free one */
    const char *tls_cert; /* PEM files; cert and key go together. Changed files are taken up without a restart */
    const char *tls_key;
    const char *tls_ca; /* given: clients must show a certificate that it signed */
    const char
        *token_file; /* one token per line, several for rotation; "TOKEN sets=a,b" binds one; re-read on change */
    bool insecure;   /* allows listening beyond loopback without TLS and token, and tokens without TLS there */
    bool reflection;
    unsigned services;          /* API_SERVE_...; 0: all */
    const char *model_name;     /* of GetModel */
    char **labels;              /* names [n_labels of the config], borrowed until api_server_close; NULL: none */
    const api_loading *loading; /* borrowed until api_server_close; NULL: nothing to tell */
    /* What the engine will be given: they bound a request's bytes, and the calls that may be open. */
    uint32_t max_context, max_requests; /* requests: waiting and running */
    const tokenizer *tokenizer;         /* NULL: token ids only */
    uint32_t max_calls;                 /* open at a time; 0: from max_requests */
    uint32_t send_timeout_ms;           /* a client that reads nothing for so long is cut off; 0: 60000 */
    uint32_t first_message_ms;          /* a call whose request has not come by then is ended; 0: 10000 */
} api_options;

typedef struct api_server api_server;

/* What api_server_open refuses before it looks at files, engine or network. A program asks before a load that takes
 * minutes. Errors: MOE_ERR_INVALID_ARG, as there. */
MOE_NODISCARD moe_status api_options_check(const api_options *options, moe_error *err);
/* Listens; until it has an engine it answers as said above.
 * Errors:
 *   MOE_ERR_INVALID_ARG    names the option: a listener beyond loopback without TLS and token, unless insecure; a
 *                          certificate without key; an empty token file; an address that cannot be bound
 *   MOE_ERR_IO, _CORRUPT   a file cannot be read, or is not what it should be */
MOE_NODISCARD moe_status api_server_open(const api_options *options, api_server **out, moe_error *err);
/* Serves from now on; once. All are borrowed until api_server_close. */
void api_server_set_engine(api_server *s, engine *e, const api_view *view, const api_catalogue *c);
uint16_t api_server_port(const api_server *s);
/* Health says NOT_SERVING and /readyz 503 from now on, so that nobody sends new requests here; those that come are served. */
void api_server_announce_drain(api_server *s);
/* The same, and watches end, new requests are refused with UNAVAILABLE; running ones go on. */
void api_server_begin_drain(api_server *s);
/* Calls in progress may end within grace_ms; the others are cancelled. Returns when none is left. NULL is fine. */
void api_server_close(api_server *s, uint32_t grace_ms);

/* ------------------------------------------------------------------------------------------------ HTTP
 * GET /livez     200 while the loops turn: the engine's and the API's; never looks at peers
 * GET /readyz    200 while engine_check_ready says so, else 503 and why not
 * GET /metrics   Prometheus text */
typedef struct api_http api_http;

typedef struct api_http_options {
    const char *listen;         /* HOST:PORT; port 0: a free one */
    const char *model_name;     /* label of the build information */
    bool no_experts;            /* /metrics has no lines per layer and expert */
    uint32_t live_timeout_ms;   /* a loop with work that has not turned for so long is stuck; 0: 60000 */
    const api_loading *loading; /* as of api_options */
} api_http_options;

/* server may be NULL (no gRPC listener to report on). Everything is borrowed until api_http_close, which comes before
 * api_server_close. Errors: MOE_ERR_INVALID_ARG (an address that is none or cannot be bound), MOE_ERR_NO_MEMORY. */
MOE_NODISCARD moe_status api_http_open(const api_http_options *options, api_server *server, api_http **out,
                                       moe_error *err);
/* As api_server_set_engine. */
void api_http_set_engine(api_http *h, engine *e, const api_view *view, const api_catalogue *c);
uint16_t api_http_port(const api_http *h);
void api_http_close(api_http *h); /* NULL is fine */

#endif
