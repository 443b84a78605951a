/* metrics: the counters of the process as Prometheus text. Labels come from closed sets (methods, codes, layers,
 * experts, nodes). */
#ifndef CONCLAVE_API_METRICS_PRIV_H
#define CONCLAVE_API_METRICS_PRIV_H

#include "api/grpc/counters.h"
#include "api/http/http.h"

#define METRICS_READY_HELP "1 while every expert has a live owner and a real token has gone through all layers."

typedef struct metrics_source {
    engine *engine;
    const api_view *view;
    const api_catalogue *catalogue; /* NULL: nothing is told of it */
    const api_server *server;       /* may be NULL */
    const char *model_name;
    bool no_experts; /* no lines per expert: with many layers they are most of the page */
} metrics_source;

/* Appends one whole page; out->failed when it does not fit. Any thread. */
void metrics_render(const metrics_source *source, moe_text *out);

#endif
