/* The API thread: it takes what comes out of the completion queue, and ten times a second looks at the time.
 *
 * The end: RUNNING -> REFUSING (until nobody asks) -> STOPPING (nothing new is accepted, calls may end by themselves) -> ENDING
 * (they are told to end) -> CANCELLING (connections are closed, and what still runs is cut off) -> STOPPED, when no call is left. */
#include "api/grpc/server_priv.h"

/* Chosen, not measured: POLL is how late a time-out or a change of health may be. */
#define POLL_NS         100000000u
#define AUTH_REFRESH_NS 1000000000u
/* A call that arrives once gRPC has been shut down ends as CANCELLED, which is no reason to ask elsewhere. So whoever asks again
 * when an answer has ended is told before to wait for RPC_RETRY_STARTING_MS, and connections are closed while he waits. QUIET is
 * what a client may take to ask again; a longer one holds up the end of a drain that had clients. */
#define QUIET_NS         200000000u
#define REFUSING_NS      800000000u /* at most, where somebody asks without a pause; who was told to wait is not back yet */
#define REFUSING_TURN_NS 10000000u
#define LAST_STATUS_NS   1000000000u /* for the last statuses to leave */

void server_on_wake(void *ctx, bool ok)
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

void server_on_shutdown(void *ctx, bool ok)
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
    server_post_calls(s);
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
        s->stage = SERVER_REFUSING;
        s->refuse_until_ns = now + REFUSING_NS;
    }
    if (s->stage == SERVER_REFUSING && (now >= s->last_traffic_ns + QUIET_NS || now >= s->refuse_until_ns)) {
        s->stage = SERVER_STOPPING;
        s->cancel_at_ns = now + (uint64_t)atomic_load(&s->grace_ms) * 1000000u;
        grpc_server_shutdown_and_notify(s->server, s->queue, &s->tag_shutdown);
    }
    if (s->stage == SERVER_STOPPING && now >= s->cancel_at_ns) {
        s->stage = SERVER_ENDING;
        s->cancel_at_ns = now + LAST_STATUS_NS;
        end_calls(s);
    }
    /* Without calls there is nothing to wait for: a client that does not read now would not see that we leave. */
    if ((s->stage == SERVER_ENDING && now >= s->cancel_at_ns) || (s->stage == SERVER_STOPPING && s->calls == NULL)) {
        s->stage = SERVER_CANCELLING;
        grpc_server_cancel_all_calls(s->server);
    }
}

static bool turn(api_server *s)
{
    uint64_t most_ns = s->stage == SERVER_REFUSING ? REFUSING_TURN_NS : POLL_NS;
    gpr_timespec until =
        gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_nanos((int64_t)most_ns, GPR_TIMESPAN));
    grpc_event event = grpc_completion_queue_next(s->queue, until, NULL);
    uint64_t now = server_now_ns();

    atomic_store_explicit(&s->last_turn_ns, now, memory_order_relaxed);
    if (event.type == GRPC_OP_COMPLETE) {
        rpc_tag *tag = event.tag;

        tag->done(tag->ctx, event.success != 0);
    }
    if (now - s->last_poll_ns >= POLL_NS || atomic_load(&s->stop) != (s->stage != SERVER_RUNNING)) {
        now = server_now_ns(); /* not before anything that the event has begun */
        poll_calls(s, now);
    }
    advance_stage(s, now);
    return s->stage != SERVER_STOPPED || s->n_objects > 0;
}

void *server_run(void *ctx)
{
    api_server *s = ctx;

    server_post_calls(s);
    while (turn(s)) {
    }
    wake_hub_shut(s->hub);
    grpc_completion_queue_shutdown(s->queue);
    while (grpc_completion_queue_next(s->queue, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL).type !=
           GRPC_QUEUE_SHUTDOWN) {
    }
    return NULL;
}
