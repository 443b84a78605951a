#include "api/grpc/session.h"
#include "api/grpc/wake_priv.h"

moe_status session_open(rpc_call *call, engine_spec *spec, session *out, moe_error *err)
{
    session s = {.slot = NULL};
    uint64_t now = moe_now_ns(moe_clock_real());

    if (rpc_draining(call)) {
        return moe_fail(err, MOE_ERR_UNAVAILABLE, "the server is draining");
    }
    if (call->deadline_ns != 0 && call->deadline_ns <= now) {
        return moe_fail(err, MOE_ERR_TIMEOUT, "the deadline had passed on arrival");
    }
    s.slot = wake_slot_reserve(rpc_wake_hub(call), call);
    if (s.slot == NULL) {
        return moe_fail(err, MOE_ERR_BUSY, "too many requests are open");
    }
    spec->deadline_ns = call->deadline_ns == 0 ? 0 : engine_now_ns(rpc_engine(call)) + (call->deadline_ns - now);
    spec->wake = wake_signal;
    spec->wake_ctx = s.slot;
    moe_status status = engine_submit(rpc_engine(call), spec, &s.request, err);
    if (status != MOE_OK) {
        wake_slot_release(s.slot);
        return status;
    }
    (void)snprintf(call->record.id, sizeof call->record.id, "%s", engine_request_id(s.request));
    (void)snprintf(call->record.set, sizeof call->record.set, "%s", engine_request_set_id(s.request));
    *out = s;
    return MOE_OK;
}

bool session_next(rpc_call *call, session *s, engine_event *event)
{
    if (!engine_next(s->request, event)) {
        return false;
    }
    if (event->kind == ENGINE_TOKEN) {
        call->record.usage.completion_tokens++; /* of a stream that never comes to its end */
    } else if (event->kind == ENGINE_DONE || event->kind == ENGINE_FAILED) {
        call->record.usage = event->usage;
    }
    return true;
}

void session_close(session *s)
{
    if (s->request != NULL) {
        engine_cancel(s->request);
        engine_release(s->request);
        wake_slot_release(s->slot);
        s->request = NULL;
    }
}
