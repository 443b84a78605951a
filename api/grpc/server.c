/* The gRPC listener: generic calls on one completion queue and one thread, which alone touches calls. Here are its
 * opening, its limits and its end; its thread is in turn.c, the life of a call in call.c. */
#include "api/grpc/accept_priv.h"
#include "api/grpc/server_priv.h"

#include <grpc/grpc_security.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

/* proto/api.cmake: the published files as a FileDescriptorSet. */
extern const unsigned char moe_proto_descriptors[];
extern const size_t moe_proto_descriptors_bytes;

/* Chosen, not measured: a receive limit follows from the model's context, between FLOOR and LIMIT; the quota lets
 * QUOTA_MESSAGES messages of the largest size be under way. The time-outs are in docs/api.md. */
#define MAX_STREAMS      1024 /* of one connection */
#define RECEIVE_FLOOR    ((size_t)64 << 10)
#define RECEIVE_LIMIT    ((size_t)64 << 20)
#define QUOTA_FLOOR      ((size_t)256 << 20)
#define QUOTA_MESSAGES   16 /* of the largest size, under way at once */
#define SEND_TIMEOUT_MS  60000
#define FIRST_MESSAGE_MS 10000

/* ------------------------------------------------------------------------------------------------ what services ask */
engine *rpc_engine(const rpc_call *call)
{
    return atomic_load_explicit(&call->server->engine, memory_order_relaxed); /* the call has begun: it is there */
}

const api_view *rpc_view(const rpc_call *call)
{
    return call->server->view;
}

const api_catalogue *rpc_catalogue(const rpc_call *call)
{
    return call->server->catalogue;
}

const char *rpc_model_name(const rpc_call *call)
{
    return call->server->model_name;
}

char **rpc_labels(const rpc_call *call, size_t *n_out)
{
    *n_out = call->server->labels == NULL ? 0 : engine_get_info(rpc_engine(call))->config->n_labels;
    return call->server->labels;
}

unsigned rpc_services(const rpc_call *call)
{
    return call->server->services;
}

bool rpc_draining(const rpc_call *call)
{
    return atomic_load(&call->server->draining);
}

bool rpc_loaded(const rpc_call *call)
{
    return atomic_load(&call->server->engine) != NULL;
}

bool rpc_leaving(const rpc_call *call)
{
    return api_server_leaving(call->server);
}

bool rpc_ready(const rpc_call *call)
{
    return rpc_loaded(call) && !rpc_leaving(call) && engine_ready(rpc_engine(call));
}

wake_hub *rpc_wake_hub(const rpc_call *call)
{
    return call->server->hub;
}

work_desk *rpc_work_desk(const rpc_call *call)
{
    return call->server->desk;
}

const descriptors *rpc_descriptors(const rpc_call *call)
{
    return call->server->descriptors;
}

/* ------------------------------------------------------------------------------------------------ counters */
static const struct {
    const rpc_method *rows;
    const size_t *n;
} method_tables[] = {
    {inference_methods, &n_inference_methods},
    {admin_methods, &n_admin_methods},
    {health_methods, &n_health_methods},
    {reflection_methods, &n_reflection_methods},
};

static void list_methods(api_server *s, bool reflection)
{
    for (size_t t = 0; t < MOE_COUNT(method_tables); t++) {
        for (size_t i = 0; i < *method_tables[t].n; i++) {
            const rpc_method *m = &method_tables[t].rows[i];

            if ((m->service == 0 || (m->service & s->services) != 0) &&
                (reflection || method_tables[t].rows != reflection_methods)) {
                MOE_ASSERT(s->n_methods < SERVER_MAX_METHODS);
                s->methods[s->n_methods++] = m;
            }
        }
    }
    s->methods[s->n_methods] = &server_unknown_method;
}

size_t api_server_n_methods(const api_server *s)
{
    return s->n_methods + 1;
}

const char *api_server_method_path(const api_server *s, size_t method_idx)
{
    return s->methods[method_idx]->path;
}

uint64_t api_server_count(const api_server *s, size_t method_idx, size_t code)
{
    return atomic_load_explicit(&s->counts[method_idx][code], memory_order_relaxed);
}

uint32_t api_server_open_calls(const api_server *s)
{
    return atomic_load_explicit(&s->n_calls, memory_order_relaxed);
}

bool api_server_leaving(const api_server *s)
{
    return atomic_load(&s->announced) || atomic_load(&s->draining);
}

uint64_t api_server_last_turn_ns(const api_server *s)
{
    return atomic_load_explicit(&s->last_turn_ns, memory_order_relaxed);
}

/* ------------------------------------------------------------------------------------------------ open and close */
static const char *option_of(const api_options *o)
{
    return o->option == NULL ? "--listen" : o->option;
}

static moe_status check_exposure(const api_options *o, const moe_address *a, moe_error *err)
{
    if ((o->tls_cert == NULL) != (o->tls_key == NULL)) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "--tls-cert and --tls-key go together");
    }
    if (o->tls_ca != NULL && o->tls_cert == NULL) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "--tls-ca needs --tls-cert and --tls-key");
    }
    if (moe_address_is_loopback(a) || o->insecure || o->services == API_SERVE_HEALTH) {
        return MOE_OK;
    }
    if (o->tls_cert == NULL) {
        return moe_fail(err, MOE_ERR_INVALID_ARG,
                        "%s %s: beyond loopback --tls-cert and --tls-key are needed, or --insecure", option_of(o),
                        o->listen);
    }
    if (o->token_file == NULL) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "%s %s: beyond loopback --token-file is needed, or --insecure",
                        option_of(o), o->listen);
    }
    return MOE_OK;
}

moe_status api_options_check(const api_options *options, moe_error *err)
{
    moe_address address;
    moe_status status = moe_address_parse(option_of(options), options->listen, -1, &address, err);

    return status == MOE_OK ? check_exposure(options, &address, err) : status;
}

static size_t receive_bytes(const api_options *o)
{
    size_t ids = (size_t)o->max_context * 6; /* tag and varint of every id, unpacked */
    size_t text = o->tokenizer == NULL ? 0 : tokenizer_max_text_bytes(o->tokenizer, o->max_context);

    return MOE_MIN(MOE_MAX(ids, text) + RECEIVE_FLOOR, RECEIVE_LIMIT);
}

static grpc_arg int_arg(const char *key, int value)
{
    return (grpc_arg){.type = GRPC_ARG_INTEGER, .key = (char *)(uintptr_t)key, .value.integer = value};
}

/* Under memory pressure gRPC refuses new connections and shrinks its windows instead of growing. */
static grpc_resource_quota *create_quota(size_t max_receive_bytes)
{
    grpc_resource_quota *quota = grpc_resource_quota_create("api");

    grpc_resource_quota_resize(quota, QUOTA_FLOOR + QUOTA_MESSAGES * max_receive_bytes);
    return quota;
}

static grpc_server *create_server(size_t max_receive_bytes)
{
    grpc_resource_quota *quota = create_quota(max_receive_bytes);
    grpc_arg args[] = {
        int_arg(GRPC_ARG_ALLOW_REUSEPORT, 0), /* a second server on this port must fail */
        int_arg(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, (int)max_receive_bytes),
        int_arg(GRPC_ARG_MAX_METADATA_SIZE, 16384),
        int_arg(GRPC_ARG_MAX_CONCURRENT_STREAMS, MAX_STREAMS),
        int_arg(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 10000),
        int_arg(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1),
        int_arg(GRPC_ARG_KEEPALIVE_TIME_MS, 30000),
        int_arg(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10000),
        int_arg("grpc.server_handshake_timeout_ms", 10000),
        int_arg(GRPC_ARG_MAX_CONNECTION_IDLE_MS, 600000), /* clients connect again by themselves */
        /* a compressed message could become any size */
        int_arg(GRPC_ARG_ENABLE_PER_MESSAGE_DECOMPRESSION, 0),
        int_arg(GRPC_COMPRESSION_CHANNEL_ENABLED_ALGORITHMS_BITSET, 1 << GRPC_COMPRESS_NONE),
        {.type = GRPC_ARG_POINTER,
         .key = (char *)(uintptr_t)GRPC_ARG_RESOURCE_QUOTA,
         .value.pointer = {.p = quota, .vtable = grpc_resource_quota_arg_vtable()}},
    };
    grpc_channel_args all = {.num_args = MOE_COUNT(args), .args = args};
    grpc_server *server = grpc_server_create(&all, NULL);

    grpc_resource_quota_unref(quota);
    return server;
}

static moe_status bind_port(api_server *s, const moe_address *a, const api_options *o, moe_error *err)
{
    grpc_server_credentials *credentials =
        s->tls != NULL ? tls_credentials(s->tls) : grpc_insecure_server_credentials_create();
    moe_address every = {.host = "::", .port = a->port};
    char address[MOE_ADDRESS_BYTES];

    moe_address_print(a->host[0] == '\0' ? &every : a, address);
    int port = grpc_server_add_http2_port(s->server, address, credentials);
    grpc_server_credentials_release(credentials);
    if (port <= 0) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "%s %s: cannot be bound: in use, or not an address of this machine",
                        option_of(o), o->listen);
    }
    s->port = (uint16_t)port;
    accept_guard_port(s->port);
    return MOE_OK;
}

static void configure(api_server *s, const api_options *o)
{
    s->loading = o->loading;
    s->labels = o->labels;
    s->services = o->services == 0 ? API_SERVE_INFERENCE | API_SERVE_ADMIN : o->services;
    s->max_calls = o->max_calls != 0 ? o->max_calls : o->max_requests + 2 * RPC_MAX_WATCHES;
    s->send_timeout_ns = (uint64_t)(o->send_timeout_ms != 0 ? o->send_timeout_ms : SEND_TIMEOUT_MS) * 1000000u;
    s->first_message_ns = (uint64_t)(o->first_message_ms != 0 ? o->first_message_ms : FIRST_MESSAGE_MS) * 1000000u;
    s->tag_wake = (rpc_tag){server_on_wake, s};
    s->tag_shutdown = (rpc_tag){server_on_shutdown, s};
    atomic_store(&s->last_turn_ns, server_now_ns());
    list_methods(s, o->reflection);
}

static moe_status open_files(api_server *s, const api_options *o, moe_error *err)
{
    moe_status status = MOE_OK;

    if (o->tls_cert != NULL) {
        status = tls_open(o->tls_cert, o->tls_key, o->tls_ca, &s->tls, err);
    }
    if (status == MOE_OK && o->token_file != NULL) {
        status = auth_open(o->token_file, &s->auth, err);
    }
    if (status == MOE_OK &&
        descriptors_open(moe_proto_descriptors, moe_proto_descriptors_bytes, &s->descriptors) != MOE_OK) {
        status = moe_fail(err, MOE_ERR_INTERNAL, "api: the descriptors of this build cannot be read");
    }
    s->model_name = strdup(o->model_name == NULL ? "" : o->model_name);
    if (status == MOE_OK && s->model_name == NULL) {
        status = moe_fail(err, MOE_ERR_NO_MEMORY, "api: out of memory");
    }
    return status;
}

static void destroy_server(api_server *s)
{
    if (s->server != NULL) {
        grpc_server_destroy(s->server);
    }
    if (s->queue != NULL) {
        grpc_completion_queue_destroy(s->queue);
    }
    grpc_shutdown_blocking();
}

static void server_free(api_server *s)
{
    work_desk_close(s->desk);
    tls_close(s->tls);
    auth_close(s->auth);
    descriptors_close(s->descriptors);
    free(s->model_name);
    free(s);
}

/* A server that was never started must still be shut down before it is destroyed. */
static void abandon_server(api_server *s)
{
    wake_hub_shut(s->hub);
    grpc_server_shutdown_and_notify(s->server, s->queue, NULL);
    grpc_completion_queue_next(s->queue, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
    grpc_completion_queue_shutdown(s->queue);
    while (grpc_completion_queue_next(s->queue, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL).type !=
           GRPC_QUEUE_SHUTDOWN) {
    }
}

static moe_status start_server(api_server *s, const api_options *o, const moe_address *a, moe_error *err)
{
    grpc_init();
    s->queue = grpc_completion_queue_create_for_next(NULL);
    s->server = create_server(receive_bytes(o));
    grpc_server_register_completion_queue(s->server, s->queue, NULL);
    moe_status status = wake_hub_open(s->max_calls, s->queue, &s->tag_wake, &s->hub);
    if (status == MOE_OK && work_desk_open(&s->desk) != MOE_OK) {
        status = moe_fail(err, MOE_ERR_NO_MEMORY, "api: no threads for long texts");
    }
    if (status == MOE_OK) {
        status = bind_port(s, a, o, err);
    }
    if (status == MOE_OK) {
        grpc_server_start(s->server);
        if (pthread_create(&s->thread, NULL, server_run, s) != 0) {
            status = moe_fail(err, MOE_ERR_NO_MEMORY, "api: no thread");
        }
    }
    if (status != MOE_OK) {
        abandon_server(s);
        destroy_server(s);
    }
    return status;
}

moe_status api_server_open(const api_options *options, api_server **out, moe_error *err)
{
    moe_address address;
    sigset_t all, old;
    moe_status status = moe_address_parse(option_of(options), options->listen, -1, &address, err);

    if (status == MOE_OK) {
        status = check_exposure(options, &address, err);
    }
    if (status != MOE_OK) {
        return status;
    }
    api_server *s = calloc(1, sizeof(*s));
    if (s == NULL) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "api: out of memory");
    }
    configure(s, options);
    status = open_files(s, options, err);
    if (status == MOE_OK) {
        setenv("GRPC_VERBOSITY", "NONE", 0); /* or every bad handshake of a stranger is a line */
        sigfillset(&all);                    /* gRPC's threads and ours take no signals */
        pthread_sigmask(SIG_BLOCK, &all, &old);
        status = start_server(s, options, &address, err);
        pthread_sigmask(SIG_SETMASK, &old, NULL);
    }
    if (status != MOE_OK) {
        server_free(s);
        return status;
    }
    *out = s;
    return MOE_OK;
}

void api_server_set_engine(api_server *s, engine *e, const api_view *view, const api_catalogue *c)
{
    s->catalogue = c;
    s->view = view;
    atomic_store(&s->engine, e); /* last: who sees it sees the view */
}

uint16_t api_server_port(const api_server *s)
{
    return s->port;
}

void api_server_announce_drain(api_server *s)
{
    atomic_store(&s->announced, true);
    wake_hub_signal(s->hub);
}

void api_server_begin_drain(api_server *s)
{
    atomic_store(&s->draining, true);
    wake_hub_signal(s->hub);
}

void api_server_close(api_server *s, uint32_t grace_ms)
{
    if (s == NULL) {
        return;
    }
    atomic_store(&s->grace_ms, grace_ms);
    atomic_store(&s->draining, true);
    atomic_store(&s->stop, true);
    wake_hub_signal(s->hub);
    pthread_join(s->thread, NULL);
    destroy_server(s);
    server_free(s);
}
