/* http: the pages a process shows to probes and to Prometheus. Read-only, small bounded connections, one thread.
 *
 *   GET /livez     200 while the process's loops turn; never looks at peers
 *   GET /readyz    200 while it is of use
 *   GET /metrics   Prometheus text
 *
 * Threads: open and close belong to the program's thread; the handlers run on the server's own. */
#ifndef CONCLAVE_API_HTTP_HTTP_H
#define CONCLAVE_API_HTTP_HTTP_H

#include "base/base.h"
#include "compute/compute.h"

typedef struct http_server http_server;

/* Each appends its page; live and ready say yes or no. A page that fails (out->failed) is an error 500. */
typedef struct http_pages {
    void *ctx; /* borrowed */
    bool (*live)(void *ctx, moe_text *out);
    bool (*ready)(void *ctx, moe_text *out);
    void (*metrics)(void *ctx, moe_text *out);
} http_pages;

/* listen: HOST:PORT; port 0: a free one. Errors: MOE_ERR_INVALID_ARG (not an address, or one that
 * cannot be bound), MOE_ERR_NO_MEMORY. */
MOE_NODISCARD moe_status http_server_open(const char *listen, const http_pages *pages, http_server **out,
                                          moe_error *err);
uint16_t http_server_port(const http_server *s);
void http_server_close(http_server *s); /* NULL is fine */

/* ------------------------------------------------------------------------------------------------ Prometheus text
 * One metric without labels, or the head of one whose lines follow. */
void metrics_head(moe_text *out, const char *name, const char *type, const char *help);
void metrics_counter(moe_text *out, const char *name, const char *help, uint64_t value);
/* process_*: resident and virtual memory, processor time, descriptors, start, as Prometheus' own clients name them. */
void metrics_process(moe_text *out);
void metrics_gauge(moe_text *out, const char *name, const char *help, uint64_t value);
/* A label value with backslash, quote and line feed escaped, at most 128 bytes of it. */
void metrics_label(moe_text *out, const char *value);

/* How a member, node or coordinator, stands with its cluster. Counters are since the start. */
typedef struct metrics_cluster {
    bool connected, registered; /* the store answers; we are registered in it */
    uint64_t failures, lease_losses, lists, watch_events, ignored;
    uint64_t epoch_published, epoch_applied;
    bool is_coordinator; /* only then what follows is told */
    bool controller;
    uint64_t elections, placements, unreachable;
} metrics_cluster;

void metrics_put_cluster(moe_text *out, const metrics_cluster *c);

/* What a member's end of the transport has seen. Now: peers; the others since the start. */
typedef struct metrics_transport {
    uint64_t peers, connected, accepted, refused, silent, denied, violations, timeouts, shm_peers;
} metrics_transport;

/* auth_failures: those that were found after meeting, by HELLO. */
void metrics_put_transport(moe_text *out, const metrics_transport *t, uint64_t auth_failures);

/* What computes; its memory and times, if the device has memory of its own. Any thread. */
void metrics_put_device(moe_text *out, compute_device *d);

#endif
