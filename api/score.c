/* Score: scored tokens are packed as they come, so that a long reply is held once. */
#include "api/reading_priv.h"
#include "api/grpc/proto.h"
#include "api/reply_priv.h"
#include "api/grpc/session.h"
#include "api/methods_priv.h"

#include <stdlib.h>

enum { RESPONSE_TOKENS = 1 };

typedef struct scoring {
    session session;
    const engine_info *info;
    moe_text out; /* wire form of the reply's tokens */
} scoring;

static size_t layer_experts(const engine_info *info, const engine_event *event, Conclave__V1__LayerExperts *layers,
                            Conclave__V1__LayerExperts **pointers)
{
    size_t k = info->config->gate.k;
    size_t n_layers = k == 0 ? 0 : MOE_MIN(event->n_experts / k, MODEL_MAX_LAYERS);

    for (size_t i = 0; i < n_layers; i++) {
        conclave__v1__layer_experts__init(&layers[i]);
        layers[i].layer = (uint32_t)i;
        layers[i].n_ids = k;
        layers[i].ids = (int32_t *)(uintptr_t)(event->experts + i * k);
        pointers[i] = &layers[i];
    }
    return n_layers;
}

static void add_token(scoring *s, const engine_event *event)
{
    Conclave__V1__ScoredToken m = CONCLAVE__V1__SCORED_TOKEN__INIT;
    Conclave__V1__TopLogprob entries[SAMPLING_MAX_TOP_LOGPROBS], *top[SAMPLING_MAX_TOP_LOGPROBS];
    Conclave__V1__LayerExperts layers[MODEL_MAX_LAYERS], *experts[MODEL_MAX_LAYERS];

    m.id = event->token_id;
    m.token = reply_token(s->info, event->token_id);
    if (event->has_logprob) {
        m.has_logprob_case = CONCLAVE__V1__SCORED_TOKEN__HAS_LOGPROB_LOGPROB;
        m.logprob = event->logprob;
    }
    m.n_top = MOE_MIN(event->n_top, SAMPLING_MAX_TOP_LOGPROBS);
    reply_top(s->info, event->top, m.n_top, entries, top);
    m.top = top;
    m.n_experts = layer_experts(s->info, event, layers, experts);
    m.experts = experts;
    proto_put_message(&s->out, RESPONSE_TOKENS, &m.base);
}

static void finish(rpc_call *call, scoring *s, const engine_usage *used)
{
    Conclave__V1__ScoreResponse m = CONCLAVE__V1__SCORE_RESPONSE__INIT;
    Conclave__V1__Usage usage;
    Conclave__V1__Timings timings;

    reply_usage(used, &usage, &timings);
    m.request_id = (char *)(uintptr_t)engine_request_id(s->session.request);
    m.set_id = (char *)(uintptr_t)engine_request_set_id(s->session.request);
    m.model_fingerprint = (char *)(uintptr_t)s->info->fingerprint;
    m.usage = &usage;
    m.timings = &timings;
    proto_put_fields(&s->out, &m.base);
    if (!s->out.failed) {
        rpc_finish_bytes(call, s->out.data, s->out.size);
    }
}

void score_wake(rpc_call *call)
{
    scoring *s = call->state;
    engine_event event;

    while (s != NULL && !call->finished && session_next(call, &s->session, &event)) {
        if (event.kind == ENGINE_SCORED) {
            add_token(s, &event);
        } else if (event.kind == ENGINE_DONE) {
            finish(call, s, &event.usage);
        } else if (event.kind == ENGINE_FAILED) {
            rpc_fail(call, event.status == MOE_OK ? MOE_ERR_INTERNAL : event.status, event.error);
        }
        if (s->out.failed && !call->finished) {
            engine_cancel(s->session.request);
            rpc_fail(call, MOE_ERR_BUSY, "the reply is too large; ask for fewer alternatives or fewer tokens");
        }
    }
}

static moe_status begin(rpc_call *call, const ProtobufCMessage *request, intake *in, moe_error *err)
{
    scoring *s = calloc(1, sizeof(*s));
    moe_status status;

    (void)request;
    if (s == NULL) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "out of memory");
    }
    s->info = engine_get_info(rpc_engine(call));
    moe_text_init(&s->out, RPC_MAX_REPLY_BYTES);
    status = session_open(call, &in->spec, &s->session, err);
    if (status != MOE_OK) {
        free(s);
        return status;
    }
    call->state = s;
    return MOE_OK;
}

static moe_status take(const request_scope *scope, const ProtobufCMessage *r, intake *out, moe_error *err)
{
    return intake_score(scope, (const score_request *)r, out, err);
}

void score_start(rpc_call *call, const uint8_t *bytes, size_t n)
{
    static const reading_kind kind = {&conclave__v1__score_request__descriptor, take, begin, score_wake};

    reading_start(call, &kind, bytes, n);
}

void score_fini(rpc_call *call)
{
    scoring *s = call->state;

    session_close(&s->session);
    moe_text_fini(&s->out);
    free(s);
}
