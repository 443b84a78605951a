/* What the coordinator's HTTP listener says: the loops that turn, readiness, metrics. */
#include "api/metrics_priv.h"

#include <stdlib.h>
#include <string.h>

#define LIVE_TIMEOUT_MS 60000

struct api_http {
    metrics_source source;    /* without those that come with the engine */
    _Atomic(engine *) engine; /* borrowed; NULL while the program loads */
    const api_view *view;     /* borrowed; set before engine, as the next */
    const api_catalogue *catalogue;
    const api_loading *loading;
    uint64_t live_timeout_ns;
    uint64_t seen_step_ns, seen_at_ns; /* the engine's last turn as a probe with work saw it first, and when */
    char *model_name;                  /* owned */
    http_server *server;
};

/* An engine without work may sleep as long as it likes, and is not stuck in the moment in which work arrives: it is
 * when one probe after another has seen work and the same last turn. The HTTP thread alone comes here. */
static double engine_stuck_seconds(api_http *h, uint64_t now)
{
    engine *e = atomic_load(&h->engine);
    engine_stats stats;

    if (e == NULL) {
        return 0.0;
    }
    engine_get_stats(e, &stats);
    if (stats.queued + stats.running == 0 || stats.last_step_ns != h->seen_step_ns) {
        h->seen_step_ns = stats.last_step_ns;
        h->seen_at_ns = now;
    }
    return (double)(now - h->seen_at_ns) * 1e-9;
}

static bool live(void *ctx, moe_text *page)
{
    api_http *h = ctx;
    uint64_t now = moe_now_ns(moe_clock_real());
    double limit = (double)h->live_timeout_ns * 1e-9;
    double engine_s = engine_stuck_seconds(h, now);
    uint64_t turned = h->source.server == NULL ? now : api_server_last_turn_ns(h->source.server);
    double api_s = now > turned ? (double)(now - turned) * 1e-9 : 0.0;

    if (engine_s > limit || api_s > limit) {
        moe_text_printf(page, "the %s loop has not turned for %.1f s\n", engine_s > limit ? "engine" : "api",
                        MOE_MAX(engine_s, api_s));
        return false;
    }
    moe_text_printf(page, "ok\n");
    return true;
}

static bool ready(void *ctx, moe_text *page)
{
    const api_http *h = ctx;
    moe_error why;
    bool draining = h->source.server != NULL && api_server_leaving(h->source.server);

    if (draining || api_check_ready(h->loading, atomic_load(&h->engine), &why) != MOE_OK) {
        moe_text_printf(page, "%s\n", draining ? "the server is draining" : why.text);
        return false;
    }
    moe_text_printf(page, "ok\n");
    return true;
}

static void metrics(void *ctx, moe_text *page)
{
    const api_http *h = ctx;
    metrics_source source = h->source;

    source.engine = atomic_load(&h->engine);
    if (source.engine == NULL) {
        metrics_gauge(page, "conclave_ready", METRICS_READY_HELP, 0);
        return;
    }
    source.view = h->view; /* set before the engine that was seen */
    source.catalogue = h->catalogue;
    metrics_render(&source, page);
}

moe_status api_http_open(const api_http_options *options, api_server *server, api_http **out, moe_error *err)
{
    api_http *h = calloc(1, sizeof(*h));
    char *name = strdup(options->model_name == NULL ? "" : options->model_name);
    http_pages pages = {h, live, ready, metrics};
    moe_status status;

    if (h == NULL || name == NULL) {
        status = moe_fail(err, MOE_ERR_NO_MEMORY, "http: out of memory");
    } else {
        h->model_name = name;
        h->source = (metrics_source){.server = server, .model_name = name, .no_experts = options->no_experts};
        h->loading = options->loading;
        h->live_timeout_ns =
            (uint64_t)(options->live_timeout_ms != 0 ? options->live_timeout_ms : LIVE_TIMEOUT_MS) * 1000000u;
        status = http_server_open(options->listen, &pages, &h->server, err);
    }
    if (status != MOE_OK) {
        free(name);
        free(h);
        return status;
    }
    *out = h;
    return MOE_OK;
}

void api_http_set_engine(api_http *h, engine *e, const api_view *view, const api_catalogue *c)
{
    h->view = view;
    h->catalogue = c;
    atomic_store(&h->engine, e); /* last: who sees it sees the view */
}

uint16_t api_http_port(const api_http *h)
{
    return http_server_port(h->server);
}

void api_http_close(api_http *h)
{
    if (h != NULL) {
        http_server_close(h->server);
        free(h->model_name);
        free(h);
    }
}
