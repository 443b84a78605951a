/* The program's listeners: open before the load, given the engine after it. */
#include <string.h>

#include "coordinator/advertise.h"
#include "coordinator/coordinator_priv.h"

#define GRACE_MS 1000 /* what the drain has left over gets a status within it */

static const char *base_name(const char *dir)
{
    static char name[256];
    size_t n = strlen(dir);

    while (n > 1 && dir[n - 1] == '/') {
        n--;
    }
    size_t begin = n;
    while (begin > 0 && dir[begin - 1] != '/') {
        begin--;
    }
    snprintf(name, sizeof name, "%.*s", (int)(n - begin), dir + begin);
    return name;
}

static api_options api_of(const coordinator_config *o, bool admin)
{
    return (api_options){.option = admin ? "--admin-listen" : "--listen",
                         .listen = admin ? o->admin_listen : o->listen,
                         .tls_cert = o->tls_cert,
                         .tls_key = o->tls_key,
                         .tls_ca = o->tls_ca,
                         .token_file = admin && o->admin_token_file != NULL ? o->admin_token_file : o->token_file,
                         .insecure = o->insecure,
                         .reflection = !o->no_reflection,
                         .services = admin                     ? API_SERVE_ADMIN
                                     : o->admin_listen != NULL ? API_SERVE_INFERENCE
                                                               : 0,
                         .model_name = o->model_name != NULL ? o->model_name : base_name(o->model)};
}

/* Probes have neither certificate nor token, and learn one bit. */
static api_options health_of(const coordinator_config *o)
{
    return (api_options){.option = "--health", .listen = o->health, .services = API_SERVE_HEALTH};
}

moe_status listeners_check(coordinator_config *o, moe_error *err)
{
    api_options api = api_of(o, false), admin = api_of(o, true), health = health_of(o);
    moe_status status = api_options_check(&api, err);

    if (status == MOE_OK) {
        status = advertise_check(o, err);
    }
    if (status == MOE_OK && o->admin_listen != NULL) {
        status = api_options_check(&admin, err);
    }
    return status == MOE_OK && o->health != NULL ? api_options_check(&health, err) : status;
}

/* What the engine will take bounds what the listeners take. */
static api_options api_with_limits(const coordinator *c, bool admin)
{
    api_options api = api_of(&c->config, admin);

    api.labels = c->labels;
    api.loading = &c->loading;
    api.tokenizer = c->tokenizer;
    api.max_context = c->max_context;
    api.max_requests = c->config.max_queue + MOE_MIN(c->config.max_running, c->config.max_batch_tokens);
    return api;
}

static moe_status open_health(coordinator *c, moe_error *err)
{
    const api_options health = health_of(&c->config);
    moe_status status = api_server_open(&health, &c->health, err);

    if (status == MOE_OK) {
        MOE_INFO("health on port %u", api_server_port(c->health));
    }
    return status;
}

moe_status listeners_open(coordinator *c, moe_error *err)
{
    const coordinator_config *o = &c->config;
    const api_options api = api_with_limits(c, false), admin = api_with_limits(c, true);
    moe_status status = api_server_open(&api, &c->server, err);

    if (status == MOE_OK && o->admin_listen != NULL) {
        status = api_server_open(&admin, &c->admin, err);
        if (status == MOE_OK) {
            MOE_INFO("admin on port %u", api_server_port(c->admin));
        }
    }
    if (status == MOE_OK && o->health != NULL) {
        status = open_health(c, err);
    }
    if (status == MOE_OK && o->http != NULL) {
        api_http_options http = {.listen = o->http,
                                 .model_name = api.model_name,
                                 .no_experts = strcmp(o->metrics_experts, "off") == 0,
                                 .loading = &c->loading};
        status = api_http_open(&http, c->server, &c->http, err);
        if (status == MOE_OK) {
            MOE_INFO("http on port %u", api_http_port(c->http));
        }
    }
    return status;
}

void listeners_set_engine(coordinator *c)
{
    const api_view *view = coordinator_in_cluster(c) ? pool_view(c->pool) : embedded_view(c->embedded);
    const api_catalogue *table = coordinator_in_cluster(c) ? follower_table(c->follower) : registry_table(c->registry);

    api_server_set_engine(c->server, c->engine, view, table);
    if (c->admin != NULL) {
        api_server_set_engine(c->admin, c->engine, view, table);
    }
    if (c->health != NULL) {
        api_server_set_engine(c->health, c->engine, view, table);
    }
    if (c->http != NULL) {
        api_http_set_engine(c->http, c->engine, view, table);
    }
}

static void on_each(coordinator *c, void (*act)(api_server *s))
{
    api_server *const all[] = {c->server, c->admin, c->health};

    for (size_t i = 0; i < MOE_COUNT(all); i++) {
        if (all[i] != NULL) {
            act(all[i]);
        }
    }
}

void listeners_announce_drain(coordinator *c)
{
    on_each(c, api_server_announce_drain);
}

void listeners_begin_drain(coordinator *c)
{
    on_each(c, api_server_begin_drain);
}

void listeners_close(coordinator *c)
{
    api_http_close(c->http);
    api_server_close(c->health, GRACE_MS);
    api_server_close(c->admin, GRACE_MS);
    api_server_close(c->server, GRACE_MS);
}

void listeners_address(const coordinator *c, char out[MOE_ADDRESS_BYTES])
{
    moe_address a;

    MOE_ASSERT(moe_address_parse("--listen", c->config.listen, -1, &a, NULL) == MOE_OK); /* it was at start */
    a.port = api_server_port(c->server);
    moe_address_print(&a, out);
}
