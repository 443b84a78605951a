/* The life of a call: posted (on_new is out), then accepted; on_close is out until the client or we have ended it, and
 * on_receive and on_send while a message is under way. Each call counts the tags that are out for it (n_tags) and is
 * freed when the last has come back. So a late tag never meets freed memory, in whatever order gRPC gives them back.
 *
 * What a service holds for the call (the engine's request) is let go in on_close, which comes as soon as the client is
 * gone: that is how a disconnect frees KV pages within one step. */
#include "api/grpc/server_priv.h"

#include <grpc/support/alloc.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define N_POSTED 64 /* accepted without waiting for this thread; chosen, not measured */

static void refuse_unknown(rpc_call *call, const uint8_t *bytes, size_t n)
{
    (void)bytes, (void)n;
    rpc_fail_code(call, GRPC_STATUS_UNIMPLEMENTED, "unknown method");
}

const rpc_method server_unknown_method = {.path = "unknown", .needs_token = true, .start = refuse_unknown};

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
    call->method = &server_unknown_method;
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

void server_post_calls(api_server *s)
{
    size_t n = s->stage <= SERVER_REFUSING ? N_POSTED - s->n_posted : 0;

    for (size_t i = 0; i < n; i++) {
        post_call(s);
    }
}

/* Of clients that may ask again, or have: before a drain is announced nobody waits for them. */
static void note_traffic(api_server *s)
{
    if (atomic_load(&s->announced) || atomic_load(&s->draining)) {
        s->last_traffic_ns = server_now_ns();
    }
}

static void call_free(rpc_call *call)
{
    api_server *s = call->server;

    if (call->accepted) {
        note_traffic(s);
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

static bool token_accepted(rpc_call *call)
{
    const auth *a = call->server->auth;

    if (a == NULL || !call->method->needs_token) {
        return true;
    }
    for (size_t i = 0; i < call->metadata.count; i++) {
        const grpc_metadata *m = &call->metadata.metadata[i];

        if (grpc_slice_str_cmp(m->key, "authorization") == 0 &&
            auth_accepts(a, GRPC_SLICE_START_PTR(m->value), GRPC_SLICE_LENGTH(m->value), &call->permits)) {
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
    return server_now_ns() + (uint64_t)left.tv_sec * 1000000000u + (uint64_t)left.tv_nsec;
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

    call->begun_ns = call->last_send_ns = server_now_ns();
    call->deadline_ns = deadline_of(call);
    rpc_watch_close(call);
    if (!token_accepted(call)) {
        rpc_fail_code(call, GRPC_STATUS_UNAUTHENTICATED, "authorization: a valid bearer token is needed");
    } else if (call->permits.bound && call->method->for_all_sets) {
        rpc_fail_code(call, GRPC_STATUS_PERMISSION_DENIED, "authorization: this token is bound to sets");
    } else if (call->method == &server_unknown_method) {
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
        note_traffic(s);
        server_post_calls(s);
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
    return call->deadline_ns != 0 && server_now_ns() >= call->deadline_ns ? GRPC_STATUS_DEADLINE_EXCEEDED
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
    const moe_log_field fields[] = {
        {.name = "method", .text = method},
        {.name = "id", .text = r->id},
        {.name = "status", .text = code_names[code]},
        {.name = "prompt_tokens", .number = r->usage.prompt_tokens},
        {.name = "completion_tokens", .number = r->usage.completion_tokens},
        {.name = "cached_tokens", .number = r->usage.cached_tokens},
        {.name = "queue_ms", .number = round(r->usage.queue_seconds * 1e3)},
        {.name = "prefill_ms", .number = round(r->usage.prefill_seconds * 1e3)},
        {.name = "decode_ms", .number = round(r->usage.decode_seconds * 1e3)},
        {.name = "total_ms", .number = round((double)(server_now_ns() - call->begun_ns) * 1e-6)},
        {.name = "set", .text = r->set},
        {.name = "why", .text = why}}; /* last: only of what failed */

    if (r->id[0] == '\0') {
        MOE_WARN("%s refused: %s: %s", method, code_names[code], why[0] != '\0' ? why : "the client left");
    } else {
        moe_log_event(MOE_LOG_INFO, "request", fields, MOE_COUNT(fields) - (why[0] == '\0'));
    }
    gpr_free(why);
}

/* The end of the call, however it came: what the service holds for it is let go at once. */
static void on_close(void *ctx, bool ok)
{
    rpc_call *call = ctx;
    grpc_status_code code = final_code(call); /* once: a deadline may pass in between */

    (void)ok;
    call->closed = true;
    atomic_fetch_add(&call->server->counts[call->method_idx][code], 1);
    if (call->method->works) {
        log_call(call, code);
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
