/* Classify: one event brings the scores, the last one what they cost. */
#include "api/reading_priv.h"
#include "api/grpc/proto.h"
#include "api/reply_priv.h"
#include "api/grpc/session.h"
#include "api/methods_priv.h"

#include <stdlib.h>

typedef struct classification {
    session session;
    moe_text out; /* wire form of the reply */
} classification;

static void add_scores(rpc_call *call, classification *c, const engine_event *event)
{
    Conclave__V1__ClassifyResponse m = CONCLAVE__V1__CLASSIFY_RESPONSE__INIT;

    m.n_scores = m.n_logprobs = event->n_scores;
    m.scores = (float *)(uintptr_t)event->scores;
    m.logprobs = (float *)(uintptr_t)event->score_logprobs;
    m.labels = rpc_labels(call, &m.n_labels);
    proto_put_fields(&c->out, &m.base);
}

static void finish(rpc_call *call, classification *c, const engine_usage *used)
{
    Conclave__V1__ClassifyResponse m = CONCLAVE__V1__CLASSIFY_RESPONSE__INIT;
    Conclave__V1__Usage usage;
    Conclave__V1__Timings timings;

    reply_usage(used, &usage, &timings);
    m.request_id = (char *)(uintptr_t)engine_request_id(c->session.request);
    m.set_id = (char *)(uintptr_t)engine_request_set_id(c->session.request);
    m.model_fingerprint = (char *)(uintptr_t)engine_get_info(rpc_engine(call))->fingerprint;
    m.usage = &usage;
    m.timings = &timings;
    proto_put_fields(&c->out, &m.base);
    if (c->out.failed) {
        rpc_fail(call, MOE_ERR_NO_MEMORY, "out of memory");
    } else {
        rpc_finish_bytes(call, c->out.data, c->out.size);
    }
}

void classify_wake(rpc_call *call)
{
    classification *c = call->state;
    engine_event event;

    while (c != NULL && !call->finished && session_next(call, &c->session, &event)) {
        if (event.kind == ENGINE_CLASSIFIED) {
            add_scores(call, c, &event);
        } else if (event.kind == ENGINE_DONE) {
            finish(call, c, &event.usage);
        } else if (event.kind == ENGINE_FAILED) {
            rpc_fail(call, event.status == MOE_OK ? MOE_ERR_INTERNAL : event.status, event.error);
        }
    }
}

static moe_status begin(rpc_call *call, const ProtobufCMessage *request, intake *in, moe_error *err)
{
    classification *c = calloc(1, sizeof(*c));
    moe_status status;

    (void)request;
    status =
        c == NULL ? moe_fail(err, MOE_ERR_NO_MEMORY, "out of memory") : session_open(call, &in->spec, &c->session, err);
    if (status != MOE_OK) {
        free(c);
        return status;
    }
    moe_text_init(&c->out, RPC_MAX_REPLY_BYTES);
    call->state = c;
    return MOE_OK;
}

static moe_status take(const request_scope *scope, const ProtobufCMessage *r, intake *out, moe_error *err)
{
    return intake_classify(scope, (const classify_request *)r, out, err);
}

void classify_start(rpc_call *call, const uint8_t *bytes, size_t n)
{
    static const reading_kind kind = {&conclave__v1__classify_request__descriptor, take, begin, classify_wake};

    reading_start(call, &kind, bytes, n);
}

void classify_fini(rpc_call *call)
{
    classification *c = call->state;

    session_close(&c->session);
    moe_text_fini(&c->out);
    free(c);
}
