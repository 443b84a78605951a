/* The gRPC listener: generic calls on one completion queue and one thread, which alone touches calls.
 *
 * The life of a call: posted (on_new is out), then accepted; on_close is out until the client or we have ended it, and
 * on_receive and on_send while a message is under way. Each call counts the tags that are out for it (n_tags) and is
 * freed when the last has come back. So a late tag never meets freed memory, in whatever order gRPC gives them back.
 *
 * What a service holds for the call (the engine's request) is let go in on_close, which comes as soon as the client is
 * gone: that is how a disconnect frees KV pages within one step.
 *
 * The end: RUNNING -> STOPPING (nothing new is accepted, calls may end by themselves) -> ENDING (they are told to end)
 * -> CANCELLING (what takes nothing is cut off) -> STOPPED, when no call is left. */
#include "api/grpc/accept_priv.h"
#include "api/grpc/auth_priv.h"
#include "api/grpc/descriptors_priv.h"
#include "api/grpc/server_priv.h"
#include "api/grpc/tls_priv.h"
#include "api/grpc/wake_priv.h"
#include "api/grpc/work.h"

#include <grpc/grpc_security.h>
#include <grpc/support/alloc.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* proto/api.cmake: the published files as a FileDescriptorSet. */
extern const unsigned char moe_proto_descriptors[];
extern const size_t moe_proto_descriptors_bytes;

/* Chosen, not measured: N_POSTED calls are accepted without waiting for this thread; POLL is how late a time-out or a
 * change of health may be; a receive limit follows from the model's context, between FLOOR and LIMIT; the quota lets
 * QUOTA_MESSAGES messages of the largest size be under way. The time-outs are in docs/api.md. */
#define N_POSTED         64
#define POLL_NS          100000000u
#define AUTH_REFRESH_NS  1000000000u
#define MAX_METHODS      32
#define MAX_STREAMS      1024 /* of one connection */
#define RECEIVE_FLOOR    ((size_t)64 << 10)
#define RECEIVE_LIMIT    ((size_t)64 << 20)
#define QUOTA_FLOOR      ((size_t)256 << 20)
#define QUOTA_MESSAGES   16 /* of the largest size, under way at once */
#define SEND_TIMEOUT_MS  60000
#define FIRST_MESSAGE_MS 10000
#define LAST_STATUS_NS   1000000000u /* for the last statuses to leave */

typedef enum { SERVER_RUNNING, SERVER_STOPPING, SERVER_ENDING, SERVER_CANCELLING, SERVER_STOPPED } server_stage;

struct api_server {
    _Atomic(engine *) engine;   /* borrowed; NULL while the program loads */
    const api_view *view;       /* borrowed; set before engine */
    const api_loading *loading; /* borrowed; NULL: nothing to tell */
    char *model_name;           /* owned */
    char **labels;              /* borrowed; NULL: none */
    grpc_server *server;        /* owned */
    grpc_completion_queue *queue;
    tls *tls;   /* owned; NULL: none */
    auth *auth; /* owned; NULL: none */
    wake_hub *hub;
    work_desk *desk;          /* owned */
    descriptors *descriptors; /* owned */
    pthread_t thread;
    uint16_t port;
    unsigned services;
    uint32_t max_calls;
    uint64_t send_timeout_ns, first_message_ns;

    const rpc_method *methods[MAX_METHODS + 1]; /* the last one stands for every unknown one */
    size_t n_methods;
    atomic_uint_least64_t counts[MAX_METHODS + 1][RPC_N_STATUS];

    /* the API thread's */
    server_stage stage;
    rpc_call *calls;  /* accepted and not yet freed */
    size_t n_objects; /* those and the posted ones */
    size_t n_posted;
    uint32_t n_watches;
    uint64_t last_poll_ns, last_auth_ns, cancel_at_ns;
    rpc_tag tag_wake, tag_shutdown;

    /* shared */
    atomic_uint n_calls;
    atomic_uint_least64_t last_turn_ns;
    atomic_bool draining;
    atomic_bool stop;
    atomic_uint grace_ms;
};

static void refuse_unknown(rpc_call *call, const uint8_t *bytes, size_t n)
{
    (void)bytes, (void)n;
    rpc_fail_code(call, GRPC_STATUS_UNIMPLEMENTED, "unknown method");
}

static const rpc_method unknown_method = {.path = "unknown", .needs_token = true, .start = refuse_unknown};

static uint64_t now_ns(void)
{
    return moe_now_ns(moe_clock_real());
}

/* ------------------------------------------------------------------------------------------------ life of a call */
static void on_new(void *ctx, bool ok);
static void on_close(void *ctx, bool ok);
static void on_receive(void *ctx, bool ok);
static void on_send(void *ctx, bool ok);

static void post_call(api_server *s)
{
    rpc_call *call = calloc(1, sizeof(*call));

    if (call == NULL) {
        return; /* no memory now: the next poll tries again */
    }
    call->server = s;
    call->method = &unknown_method;
    call->tag_new = (rpc_tag){on_new, call};
    call->tag_close = (rpc_tag){on_close, call};
    call->tag_receive = (rpc_tag){on_receive, call};
    call->tag_send = (rpc_tag){on_send, call};
    call->status_text = grpc_empty_slice();
    grpc_call_details_init(&call->details);
    grpc_metadata_array_init(&call->metadata);
    s->n_objects++;
    s->n_posted++;
    call->n_tags = 1;
    grpc_call_error error = grpc_server_request_call(s->server, &call->call, &call->details, &call->metadata, s->queue,
                                                     s->queue, &call->tag_new);
    MOE_ASSERT(error == GRPC_CALL_OK);
}

static void post_calls(api_server *s)
{
    size_t n = s->stage == SERVER_RUNNING ? N_POSTED - s->n_posted : 0;

    for (size_t i = 0; i < n; i++) {
        post_call(s);
    }
}

static void call_free(rpc_call *call)
{
    api_server *s = call->server;

    if (call->accepted) {
        *(call->prev == NULL ? &s->calls : &call->prev->next) = call->next;
        if (call->next != NULL) {
            call->next->prev = call->prev;
        }
        if (call->method->watch) {
            s->n_watches--;
        }
        atomic_fetch_sub(&s->n_calls, 1);
        grpc_call_unref(call->call);
    }
    if (call->last != NULL) {
        grpc_byte_buffer_destroy(call->last);
    }
    for (size_t i = 0; i < call->n_trailers; i++) {
        grpc_slice_unref(call->trailers[i].value);
    }
    grpc_slice_unref(call->status_text);
    grpc_call_details_destroy(&call->details);
    grpc_metadata_array_destroy(&call->metadata);
    s->n_objects--;
    free(call);
}

static void tag_back(rpc_call *call)
{
    if (--call->n_tags == 0) {
        call_free(call);
    }
}

static bool token_accepted(const rpc_call *call)
{
    const auth *a = call->server->auth;

    if (a == NULL || !call->method->needs_token) {
        return true;
    }
    for (size_t i = 0; i < call->metadata.count; i++) {
        const grpc_metadata *m = &call->metadata.metadata[i];

        if (grpc_slice_str_cmp(m->key, "authorization") == 0 &&
            auth_accepts(a, GRPC_SLICE_START_PTR(m->value), GRPC_SLICE_LENGTH(m->value))) {
            return true;
        }
    }
    return false;
}

static void find_method(rpc_call *call)
{
    api_server *s = call->server;
    size_t i = 0;

    while (i < s->n_methods && grpc_slice_str_cmp(call->details.method, s->methods[i]->path) != 0) {
        i++;
    }
    call->method_idx = i;
    call->method = s->methods[i];
}

/* Monotonic nanoseconds; a deadline that has passed is 1, so that it stands for one. */
static uint64_t deadline_of(const rpc_call *call)
{
    gpr_timespec deadline = gpr_convert_clock_type(call->details.deadline, GPR_CLOCK_MONOTONIC);
    gpr_timespec left;

    if (gpr_time_cmp(deadline, gpr_inf_future(GPR_CLOCK_MONOTONIC)) == 0) {
        return 0;
    }
    left = gpr_time_sub(deadline, gpr_now(GPR_CLOCK_MONOTONIC));
    if (left.tv_sec > INT32_MAX) {
        return 0;
    }
    if (left.tv_sec < 0) {
        return 1;
    }
    return now_ns() + (uint64_t)left.tv_sec * 1000000000u + (uint64_t)left.tv_nsec;
}

static void link_call(rpc_call *call)
{
    api_server *s = call->server;

    call->accepted = true;
    call->next = s->calls;
    if (s->calls != NULL) {
        s->calls->prev = call;
    }
    s->calls = call;
    s->n_watches += call->method->watch;
    atomic_fetch_add(&s->n_calls, 1);
}

/* Without an engine there is nothing to ask; while it is not ready, work is refused before its message is read. */
static bool cannot_serve(const rpc_call *call, moe_error *why)
{
    const api_server *s = call->server;
    engine *e = atomic_load(&s->engine);

    return call->method->service != 0 && (e == NULL || call->method->works) &&
           api_check_ready(s->loading, e, why) != MOE_OK;
}

static void begin_call(rpc_call *call)
{
    api_server *s = call->server;
    moe_error why;

    call->begun_ns = call->last_send_ns = now_ns();
    call->deadline_ns = deadline_of(call);
    rpc_watch_close(call);
    if (!token_accepted(call)) {
        rpc_fail_code(call, GRPC_STATUS_UNAUTHENTICATED, "authorization: a valid bearer token is needed");
    } else if (call->method == &unknown_method) {
        refuse_unknown(call, NULL, 0);
    } else if (atomic_load(&s->n_calls) > s->max_calls) {
        rpc_fail(call, MOE_ERR_BUSY, "too many calls are open");
    } else if (cannot_serve(call, &why)) {
        rpc_fail(call, MOE_ERR_UNAVAILABLE, why.text);
    } else if (s->n_watches > RPC_MAX_WATCHES && call->method->watch) {
        rpc_fail(call, MOE_ERR_BUSY, "too many watching streams are open");
    } else {
        rpc_receive(call);
    }
}

static void on_new(void *ctx, bool ok)
{
    rpc_call *call = ctx;
    api_server *s = call->server;

    s->n_posted--;
    if (ok) {
        post_calls(s);
        find_method(call);
        link_call(call);
        begin_call(call);
    }
    tag_back(call);
}

static grpc_status_code final_code(const rpc_call *call)
{
    if (call->finished) {
        return call->status;
    }
    return call->deadline_ns != 0 && now_ns() >= call->deadline_ns ? GRPC_STATUS_DEADLINE_EXCEEDED
                                                                   : GRPC_STATUS_CANCELLED;
}

static const char *const code_names[RPC_N_STATUS] = {
    "OK",        "CANCELLED",      "UNKNOWN",           "INVALID_ARGUMENT",   "DEADLINE_EXCEEDED",
    "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
    "ABORTED",   "OUT_OF_RANGE",   "UNIMPLEMENTED",     "INTERNAL",           "UNAVAILABLE",
    "DATA_LOSS", "UNAUTHENTICATED"};

const char *rpc_code_name(size_t code)
{
    return code_names[code];
}

/* What was refused before it reached the engine may come as a flood: those lines are warnings, which are counted. */
static void log_call(const rpc_call *call, grpc_status_code code)
{
    const rpc_record *r = &call->record;
    const char *method = strrchr(call->method->path, '/') + 1;
    char *why = grpc_slice_to_c_string(call->status_text);
    const moe_log_field fields[] = {{.name = "method", .text = method},
                                    {.name = "id", .text = r->id},
                                    {.name = "status", .text = code_names[code]},
                                    {.name = "prompt_tokens", .number = r->usage.prompt_tokens},
                                    {.name = "completion_tokens", .number = r->usage.completion_tokens},
                                    {.name = "cached_tokens", .number = r->usage.cached_tokens},
                                    {.name = "queue_ms", .number = round(r->usage.queue_seconds * 1e3)},
                                    {.name = "prefill_ms", .number = round(r->usage.prefill_seconds * 1e3)},
                                    {.name = "decode_ms", .number = round(r->usage.decode_seconds * 1e3)},
                                    {.name = "total_ms", .number = round((double)(now_ns() - call->begun_ns) * 1e-6)},
                                    {.name = "set", .text = r->set},
                                    {.name = "why", .text = why}}; /* last: only of what failed */

    if (r->id[0] == '\0') {
        MOE_WARN("%s refused: %s: %s", method, code_names[code], why);
    } else {
        moe_log_event(MOE_LOG_INFO, "request", fields, MOE_COUNT(fields) - (why[0] == '\0'));
    }
    gpr_free(why);
}

/* The end of the call, however it came: what the service holds for it is let go at once. */
static void on_close(void *ctx, bool ok)
{
    rpc_call *call = ctx;

    (void)ok;
    call->closed = true;
    atomic_fetch_add(&call->server->counts[call->method_idx][final_code(call)], 1);
    if (call->method->works) {
        log_call(call, final_code(call));
    }
    work_abandon(call);
    if (call->method->fini != NULL && call->state != NULL) {
        call->method->fini(call);
        call->state = NULL;
    }
    tag_back(call);
}

static void on_receive(void *ctx, bool ok)
{
    rpc_on_received(ctx, ok);
    tag_back(ctx);
}

static void on_send(void *ctx, bool ok)
{
    rpc_on_sent(ctx, ok);
    tag_back(ctx);
}

/* ------------------------------------------------------------------------------------------------ the loop */
static void on_wake(void *ctx, bool ok)
{
    api_server *s = ctx;
    rpc_call *call;

    (void)ok;
    wake_hub_take(s->hub);
    while ((call = wake_hub_next(s->hub)) != NULL) {
        if (call->finished || call->closed) {
            continue;
        }
        if (call->work != NULL) {
            work_wake(call);
        } else if (call->method->wake != NULL) {
            call->method->wake(call);
        }
    }
}

static void on_shutdown(void *ctx, bool ok)
{
    api_server *s = ctx;

    (void)ok;
    s->stage = SERVER_STOPPED;
}

static void cut_off(rpc_call *call, const char *why)
{
    if (!call->finished) {
        call->finished = true;
        call->status = GRPC_STATUS_RESOURCE_EXHAUSTED;
    }
    grpc_call_cancel_with_status(call->call, GRPC_STATUS_RESOURCE_EXHAUSTED, why, NULL);
}

static void poll_call(rpc_call *call, uint64_t now)
{
    const api_server *s = call->server;

    if (call->closed) {
        return;
    }
    if (call->sending && now - call->send_begun_ns > s->send_timeout_ns) {
        cut_off(call, "the client reads too slowly");
    } else if (!call->finished && !call->started && now - call->begun_ns > s->first_message_ns) {
        rpc_fail(call, MOE_ERR_TIMEOUT, "the request message did not come in time");
    } else if (!call->finished && call->started && call->method->poll != NULL) {
        call->method->poll(call, now);
    }
}

static void poll_calls(api_server *s, uint64_t now)
{
    s->last_poll_ns = now;
    post_calls(s);
    for (rpc_call *call = s->calls, *next; call != NULL; call = next) {
        next = call->next; /* poll may end a call but never frees one */
        poll_call(call, now);
    }
    if (s->auth != NULL && now - s->last_auth_ns > AUTH_REFRESH_NS) {
        s->last_auth_ns = now;
        auth_refresh(s->auth);
    }
}

/* What the library would cancel without a word is told what to do next. */
static void end_calls(api_server *s)
{
    for (rpc_call *call = s->calls; call != NULL; call = call->next) {
        if (call->closed || call->finished) {
            continue;
        }
        if (call->method->stop != NULL && call->state != NULL) {
            call->method->stop(call);
        } else {
            rpc_fail(call, MOE_ERR_UNAVAILABLE, RPC_SHUTTING_DOWN);
        }
    }
}

static void advance_stage(api_server *s, uint64_t now)
{
    if (s->stage == SERVER_RUNNING && atomic_load(&s->stop)) {
        s->stage = SERVER_STOPPING;
        s->cancel_at_ns = now + (uint64_t)atomic_load(&s->grace_ms) * 1000000u;
        grpc_server_shutdown_and_notify(s->server, s->queue, &s->tag_shutdown);
    }
    if (s->stage == SERVER_STOPPING && now >= s->cancel_at_ns) {
        s->stage = SERVER_ENDING;
        s->cancel_at_ns = now + LAST_STATUS_NS;
        end_calls(s);
    }
    if (s->stage == SERVER_ENDING && now >= s->cancel_at_ns) {
        s->stage = SERVER_CANCELLING;
        grpc_server_cancel_all_calls(s->server);
    }
}

static bool turn(api_server *s)
{
    gpr_timespec until =
        gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_millis(POLL_NS / 1000000, GPR_TIMESPAN));
    grpc_event event = grpc_completion_queue_next(s->queue, until, NULL);
    uint64_t now = now_ns();

    atomic_store_explicit(&s->last_turn_ns, now, memory_order_relaxed);
    if (event.type == GRPC_OP_COMPLETE) {
        rpc_tag *tag = event.tag;

        tag->done(tag->ctx, event.success != 0);
    }
    if (now - s->last_poll_ns >= POLL_NS || atomic_load(&s->stop) != (s->stage != SERVER_RUNNING)) {
        now = now_ns(); /* not before anything that the event has begun */
        poll_calls(s, now);
    }
    advance_stage(s, now);
    return s->stage != SERVER_STOPPED || s->n_objects > 0;
}

static void *run(void *ctx)
{
    api_server *s = ctx;

    post_calls(s);
    while (turn(s)) {
    }
    wake_hub_shut(s->hub);
    grpc_completion_queue_shutdown(s->queue);
    while (grpc_completion_queue_next(s->queue, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL).type !=
           GRPC_QUEUE_SHUTDOWN) {
    }
    return NULL;
}

/* ------------------------------------------------------------------------------------------------ what services ask */
engine *rpc_engine(const rpc_call *call)
{
    return atomic_load_explicit(&call->server->engine, memory_order_relaxed); /* the call has begun: it is there */
}

const api_view *rpc_view(const rpc_call *call)
{
    return call->server->view;
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

bool rpc_ready(const rpc_call *call)
{
    return rpc_loaded(call) && !rpc_draining(call) && engine_ready(rpc_engine(call));
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
                MOE_ASSERT(s->n_methods < MAX_METHODS);
                s->methods[s->n_methods++] = m;
            }
        }
    }
    s->methods[s->n_methods] = &unknown_method;
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

bool api_server_draining(const api_server *s)
{
    return atomic_load(&s->draining);
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
    if (moe_address_is_loopback(a) || o->insecure) {
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
    s->tag_wake = (rpc_tag){on_wake, s};
    s->tag_shutdown = (rpc_tag){on_shutdown, s};
    atomic_store(&s->last_turn_ns, now_ns());
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
        if (pthread_create(&s->thread, NULL, run, s) != 0) {
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

void api_server_set_engine(api_server *s, engine *e, const api_view *view)
{
    s->view = view;
    atomic_store(&s->engine, e); /* last: who sees it sees the view */
}

uint16_t api_server_port(const api_server *s)
{
    return s->port;
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
