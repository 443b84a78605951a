/* The HTTP listener: three read-only pages, small bounded connections, one thread. */
#include "coordinator/listen_priv.h"
#include "coordinator/metrics_priv.h"

#include <microhttpd.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define MAX_CONNECTIONS  64
#define CONNECTION_BYTES 16384
#define TIMEOUT_S        10
#define LIVE_TIMEOUT_MS  60000
#define MAX_PAGE_BYTES   ((size_t)16 << 20)

struct api_http {
    metrics_source source;
    uint64_t live_timeout_ns;
    uint64_t seen_step_ns, seen_at_ns; /* the engine's last turn as a probe with work saw it first, and when */
    char *model_name;                  /* owned */
    struct MHD_Daemon *daemon;
    uint16_t port;
};

/* ------------------------------------------------------------------------------------------------ pages */
/* An engine without work may sleep as long as it likes, and is not stuck in the moment in which work arrives: it is
 * when one probe after another has seen work and the same last turn. The HTTP thread alone comes here. */
static double engine_stuck_seconds(api_http *h, uint64_t now)
{
    engine_stats stats;

    engine_get_stats(h->source.engine, &stats);
    if (stats.queued + stats.running == 0 || stats.last_step_ns != h->seen_step_ns) {
        h->seen_step_ns = stats.last_step_ns;
        h->seen_at_ns = now;
    }
    return (double)(now - h->seen_at_ns) * 1e-9;
}

static bool live(api_http *h, moe_text *page)
{
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

static bool ready(const api_http *h, moe_text *page)
{
    bool yes = engine_ready(h->source.engine) && (h->source.server == NULL || !api_server_draining(h->source.server));

    moe_text_printf(page, yes ? "ok\n" : "not ready\n");
    return yes;
}

static unsigned render(api_http *h, const char *url, const char **type_out, moe_text *page)
{
    *type_out = "text/plain; charset=utf-8";
    if (strcmp(url, "/livez") == 0) {
        return live(h, page) ? MHD_HTTP_OK : MHD_HTTP_SERVICE_UNAVAILABLE;
    }
    if (strcmp(url, "/readyz") == 0) {
        return ready(h, page) ? MHD_HTTP_OK : MHD_HTTP_SERVICE_UNAVAILABLE;
    }
    if (strcmp(url, "/metrics") == 0) {
        *type_out = "text/plain; version=0.0.4; charset=utf-8";
        metrics_render(&h->source, page);
        return page->failed ? MHD_HTTP_INTERNAL_SERVER_ERROR : MHD_HTTP_OK;
    }
    moe_text_printf(page, "not found\n");
    return MHD_HTTP_NOT_FOUND;
}

static enum MHD_Result respond(struct MHD_Connection *connection, unsigned code, const char *type, const moe_text *page)
{
    struct MHD_Response *response =
        MHD_create_response_from_buffer(page->size, (void *)(uintptr_t)moe_text_cstr(page), MHD_RESPMEM_MUST_COPY);

    if (response == NULL) {
        return MHD_NO;
    }
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
    enum MHD_Result result = MHD_queue_response(connection, code, response);
    MHD_destroy_response(response);
    return result;
}

static enum MHD_Result on_request(void *ctx, struct MHD_Connection *connection, const char *url, const char *method,
                                  const char *version, const char *upload, size_t *n_upload, void **state)
{
    api_http *h = ctx;
    const char *type = "text/plain; charset=utf-8";
    unsigned code = MHD_HTTP_METHOD_NOT_ALLOWED;
    moe_text page;

    (void)version, (void)upload, (void)state;
    *n_upload = 0; /* bodies are read past and ignored */
    moe_text_init(&page, MAX_PAGE_BYTES);
    if (strcmp(method, MHD_HTTP_METHOD_GET) == 0 || strcmp(method, MHD_HTTP_METHOD_HEAD) == 0) {
        code = render(h, url, &type, &page);
    }
    enum MHD_Result result = respond(connection, code, type, &page);
    moe_text_fini(&page);
    return result;
}

/* ------------------------------------------------------------------------------------------------ open and close */
static moe_status resolve(const listen_address *a, const char *text, struct addrinfo **out, moe_error *err)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    char port[8];

    snprintf(port, sizeof(port), "%u", (unsigned)a->port);
    int rc = getaddrinfo(a->host[0] == '\0' ? NULL : a->host, port, &hints, out);
    if (rc != 0) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "http %s: %s", text, gai_strerror(rc));
    }
    return MOE_OK;
}

static moe_status start(api_http *h, const struct addrinfo *address, const char *text, moe_error *err)
{
    unsigned flags =
        MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_ITC | (address->ai_family == AF_INET6 ? MHD_USE_DUAL_STACK : 0u);

    h->daemon =
        MHD_start_daemon(flags, 0, NULL, NULL, on_request, h, MHD_OPTION_SOCK_ADDR, address->ai_addr,
                         MHD_OPTION_CONNECTION_LIMIT, (unsigned)MAX_CONNECTIONS, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
                         (size_t)CONNECTION_BYTES, MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)TIMEOUT_S, MHD_OPTION_END);
    if (h->daemon == NULL) {
        return moe_fail(err, MOE_ERR_UNAVAILABLE, "http %s: cannot be bound: in use, or not an address of this machine",
                        text);
    }
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(h->daemon, MHD_DAEMON_INFO_BIND_PORT);
    h->port = info == NULL ? 0 : info->port;
    return MOE_OK;
}

moe_status api_http_open(const api_http_options *options, engine *e, const cluster_view *view, api_server *server,
                         api_http **out, moe_error *err)
{
    listen_address a;
    struct addrinfo *address;
    moe_status status = listen_parse("http", options->listen, &a, err);

    if (status == MOE_OK) {
        status = resolve(&a, options->listen, &address, err);
    }
    if (status != MOE_OK) {
        return status;
    }
    api_http *h = calloc(1, sizeof(*h));
    char *name = strdup(options->model_name == NULL ? "" : options->model_name);
    if (h == NULL || name == NULL) {
        status = moe_fail(err, MOE_ERR_NO_MEMORY, "http: out of memory");
    } else {
        h->model_name = name;
        h->source = (metrics_source){.engine = e, .view = view, .server = server, .model_name = name};
        h->live_timeout_ns =
            (uint64_t)(options->live_timeout_ms != 0 ? options->live_timeout_ms : LIVE_TIMEOUT_MS) * 1000000u;
        status = start(h, address, options->listen, err);
    }
    freeaddrinfo(address);
    if (status != MOE_OK) {
        free(name);
        free(h);
        return status;
    }
    *out = h;
    return MOE_OK;
}

uint16_t api_http_port(const api_http *h)
{
    return h->port;
}

void api_http_close(api_http *h)
{
    if (h != NULL) {
        MHD_stop_daemon(h->daemon);
        free(h->model_name);
        free(h);
    }
}
