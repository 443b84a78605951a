/* The listener itself: libmicrohttpd with one polling thread. */
#include "api/http/http.h"

#include <microhttpd.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define MAX_CONNECTIONS  64
#define CONNECTION_BYTES 16384
#define TIMEOUT_S        10
#define MAX_PAGE_BYTES   ((size_t)16 << 20)

struct http_server {
    http_pages pages;
    struct MHD_Daemon *daemon;
    uint16_t port;
};

static unsigned render(const http_pages *p, const char *url, const char **type_out, moe_text *page)
{
    *type_out = "text/plain; charset=utf-8";
    if (strcmp(url, "/livez") == 0) {
        return p->live(p->ctx, page) ? MHD_HTTP_OK : MHD_HTTP_SERVICE_UNAVAILABLE;
    }
    if (strcmp(url, "/readyz") == 0) {
        return p->ready(p->ctx, page) ? MHD_HTTP_OK : MHD_HTTP_SERVICE_UNAVAILABLE;
    }
    if (strcmp(url, "/metrics") == 0) {
        *type_out = "text/plain; version=0.0.4; charset=utf-8";
        p->metrics(p->ctx, page);
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
    http_server *s = ctx;
    const char *type = "text/plain; charset=utf-8";
    unsigned code = MHD_HTTP_METHOD_NOT_ALLOWED;
    moe_text page;

    (void)version, (void)upload, (void)state;
    *n_upload = 0; /* bodies are read past and ignored */
    moe_text_init(&page, MAX_PAGE_BYTES);
    if (strcmp(method, MHD_HTTP_METHOD_GET) == 0 || strcmp(method, MHD_HTTP_METHOD_HEAD) == 0) {
        code = render(&s->pages, url, &type, &page);
    }
    enum MHD_Result result = respond(connection, code, type, &page);
    moe_text_fini(&page);
    return result;
}

/* ------------------------------------------------------------------------------------------------ open and close */
static moe_status resolve(const moe_address *a, const char *text, struct addrinfo **out, moe_error *err)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    char port[8];

    snprintf(port, sizeof(port), "%u", (unsigned)a->port);
    int rc = getaddrinfo(a->host[0] == '\0' ? NULL : a->host, port, &hints, out);
    if (rc != 0) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "--http %s: %s", text, gai_strerror(rc));
    }
    return MOE_OK;
}

static moe_status start(http_server *s, const struct addrinfo *address, const char *text, moe_error *err)
{
    unsigned flags =
        MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_ITC | (address->ai_family == AF_INET6 ? MHD_USE_DUAL_STACK : 0u);

    s->daemon =
        MHD_start_daemon(flags, 0, NULL, NULL, on_request, s, MHD_OPTION_SOCK_ADDR, address->ai_addr,
                         MHD_OPTION_CONNECTION_LIMIT, (unsigned)MAX_CONNECTIONS, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
                         (size_t)CONNECTION_BYTES, MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)TIMEOUT_S, MHD_OPTION_END);
    if (s->daemon == NULL) {
        return moe_fail(err, MOE_ERR_INVALID_ARG,
                        "--http %s: cannot be bound: in use, or not an address of this machine", text);
    }
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(s->daemon, MHD_DAEMON_INFO_BIND_PORT);
    s->port = info == NULL ? 0 : info->port;
    return MOE_OK;
}

moe_status http_server_open(const char *listen, const http_pages *pages, http_server **out, moe_error *err)
{
    moe_address a;
    struct addrinfo *address;
    moe_status status = moe_address_parse("--http", listen, -1, &a, err);

    if (status == MOE_OK) {
        status = resolve(&a, listen, &address, err);
    }
    if (status != MOE_OK) {
        return status;
    }
    http_server *s = calloc(1, sizeof(*s));
    if (s == NULL) {
        status = moe_fail(err, MOE_ERR_NO_MEMORY, "http: out of memory");
    } else {
        s->pages = *pages;
        status = start(s, address, listen, err);
    }
    freeaddrinfo(address);
    if (status != MOE_OK) {
        free(s);
        return status;
    }
    *out = s;
    return MOE_OK;
}

uint16_t http_server_port(const http_server *s)
{
    return s->port;
}

void http_server_close(http_server *s)
{
    if (s != NULL) {
        MHD_stop_daemon(s->daemon);
        free(s);
    }
}
