/* Generate and Complete: engine events become chunks, or one message.
 *
 * A chunk holds what one choice has since its last chunk: one token when the client keeps up, more when it does not.
 * While a message is in flight at most CHUNK_TOKENS tokens are taken from the engine, so a client that stops reading
 * pauses its own request. */
#include "api/reading_priv.h"
#include "api/grpc/proto.h"
#include "api/reply_priv.h"
#include "api/grpc/session.h"
#include "api/methods_priv.h"

#include <stdlib.h>
#include <string.h>

#define CHUNK_TOKENS 256
#define PROGRESS_NS  4000000000u /* a stream with progress is never silent for longer than 5 s */

enum {
    RESPONSE_TEXT = 4,
    RESPONSE_LOGPROBS = 5,
    CHOICE_TEXT = 3,
    CHOICE_LOGPROBS = 4,
    COMPLETE_CHOICES = 1,
    COMPLETE_PROMPT_TEXT = 9
};

typedef struct generation {
    session session;
    const engine_info *info;
    bool stream, want_logprobs, want_progress;
    bool echo;       /* still to be sent */
    int32_t *prompt; /* owned; with echo */
    size_t n_prompt;
    uint32_t n_choices, n_unsent; /* choices whose end has not been sent */
    reply_choice choices[ENGINE_MAX_CHOICES];
    uint32_t turn;    /* choice to look at next */
    size_t n_waiting; /* tokens taken from the engine and not sent */
    bool first_sent, progress_waiting, ended;
    uint32_t queue_position, prompt_tokens_done;
    uint64_t n_emitted;
    engine_usage usage;
    moe_status status; /* of the end */
    char error[256];
    moe_text out; /* the message being built */
} generation;

/* ------------------------------------------------------------------------------------------------ events */
static void absorb(generation *g, const engine_event *event)
{
    switch (event->kind) {
    case ENGINE_TOKEN:
        g->n_waiting++;
        reply_choice_add(&g->choices[event->choice], g->info, event, g->want_logprobs);
        break;
    case ENGINE_CHOICE_DONE:
        reply_choice_add(&g->choices[event->choice], g->info, event, g->want_logprobs);
        break;
    case ENGINE_PROGRESS:
        g->progress_waiting = g->want_progress;
        g->queue_position = event->queue_position;
        g->prompt_tokens_done = event->prompt_tokens_done;
        break;
    case ENGINE_STARTED:
        g->progress_waiting = g->want_progress;
        g->queue_position = 0;
        break;
    case ENGINE_DONE:
        g->ended = true;
        g->usage = event->usage;
        break;
    case ENGINE_FAILED:
        g->ended = true;
        g->status = event->status == MOE_OK ? MOE_ERR_INTERNAL : event->status;
        snprintf(g->error, sizeof(g->error), "%s", event->error);
        break;
    case ENGINE_SCORED:
    case ENGINE_CLASSIFIED:
        break;
    }
}

static void take_events(rpc_call *call, generation *g)
{
    engine_event event;

    while (!g->ended && (!g->stream || g->n_waiting < CHUNK_TOKENS) && session_next(call, &g->session, &event)) {
        bool of_choice = event.kind == ENGINE_TOKEN || event.kind == ENGINE_CHOICE_DONE;

        MOE_ASSERT(!of_choice || event.choice < g->n_choices);
        absorb(g, &event);
        if (of_choice && g->choices[event.choice].failed) {
            g->ended = true;
            g->status = MOE_ERR_BUSY;
            snprintf(g->error, sizeof(g->error), "the reply exceeds %zu bytes; use Generate, or ask for fewer logprobs",
                     RPC_MAX_REPLY_BYTES);
            engine_cancel(g->session.request);
        }
        if (g->ended && g->status == MOE_OK && g->choices[0].finish != ENGINE_FINISH_CANCELLED) {
            const api_catalogue *c = rpc_catalogue(call);

            c->delivered(c->ctx, g->session.request);
        }
    }
}

/* ------------------------------------------------------------------------------------------------ chunks */
typedef Conclave__V1__GenerateResponse chunk;

static void add_identity(generation *g, chunk *m)
{
    if (g->first_sent) {
        return;
    }
    g->first_sent = true;
    m->has_request_id_case = CONCLAVE__V1__GENERATE_RESPONSE__HAS_REQUEST_ID_REQUEST_ID;
    m->request_id = (char *)(uintptr_t)engine_request_id(g->session.request);
    m->has_seed_case = CONCLAVE__V1__GENERATE_RESPONSE__HAS_SEED_SEED;
    m->seed = engine_request_seed(g->session.request);
    m->has_set_id_case = CONCLAVE__V1__GENERATE_RESPONSE__HAS_SET_ID_SET_ID;
    m->set_id = (char *)(uintptr_t)engine_request_set_id(g->session.request);
    m->has_model_fingerprint_case = CONCLAVE__V1__GENERATE_RESPONSE__HAS_MODEL_FINGERPRINT_MODEL_FINGERPRINT;
    m->model_fingerprint = (char *)(uintptr_t)g->info->fingerprint;
}

static void send_chunk(rpc_call *call, generation *g, bool last)
{
    if (g->out.failed) {
        rpc_fail_after(call, MOE_ERR_NO_MEMORY, "the reply is too large", g->n_emitted);
    } else if (last) {
        rpc_finish_bytes(call, g->out.data, g->out.size);
    } else {
        rpc_send_bytes(call, g->out.data, g->out.size);
    }
}

static void send_echo(rpc_call *call, generation *g)
{
    chunk m = CONCLAVE__V1__GENERATE_RESPONSE__INIT;
    moe_text text;

    moe_text_init(&text, RPC_MAX_REPLY_BYTES);
    intake_decode(g->info, g->prompt, g->n_prompt, false, &text);
    m.echo = true;
    m.token_ids = g->prompt;
    m.n_token_ids = g->n_prompt;
    add_identity(g, &m);
    proto_put_fields(&g->out, &m.base);
    proto_put_bytes(&g->out, RESPONSE_TEXT, text.data, text.size);
    moe_text_fini(&text);
    g->echo = false;
    send_chunk(call, g, false);
}

static void send_progress(rpc_call *call, generation *g)
{
    chunk m = CONCLAVE__V1__GENERATE_RESPONSE__INIT;
    Conclave__V1__Progress progress = CONCLAVE__V1__PROGRESS__INIT;

    progress.queue_position = g->queue_position;
    progress.prompt_tokens_done = g->prompt_tokens_done;
    m.progress = &progress;
    add_identity(g, &m);
    proto_put_fields(&g->out, &m.base);
    g->progress_waiting = false;
    send_chunk(call, g, false);
}

static void add_end(const reply_choice *c, chunk *m)
{
    m->finish_reason = reply_finish(c->finish);
    if (c->has_stop_match) {
        m->has_stop_match_case = CONCLAVE__V1__GENERATE_RESPONSE__HAS_STOP_MATCH_STOP_MATCH;
        m->stop_match = (char *)(uintptr_t)c->stop_match;
    }
    if (c->has_stop_token) {
        m->has_stop_token_id_case = CONCLAVE__V1__GENERATE_RESPONSE__HAS_STOP_TOKEN_ID_STOP_TOKEN_ID;
        m->stop_token_id = c->stop_token_id;
    }
}

static void send_choice(rpc_call *call, generation *g, uint32_t index, bool with_end, bool last)
{
    reply_choice *c = &g->choices[index];
    chunk m = CONCLAVE__V1__GENERATE_RESPONSE__INIT;
    Conclave__V1__Usage usage;
    Conclave__V1__Timings timings;

    m.index = index;
    m.first_index = c->first_index;
    m.token_ids = c->ids;
    m.n_token_ids = c->n_ids;
    add_identity(g, &m);
    if (with_end) {
        add_end(c, &m);
        c->sent_done = true;
        g->n_unsent--;
    }
    if (last) {
        reply_usage(&g->usage, &usage, &timings);
        m.usage = &usage;
        m.timings = &timings;
    }
    proto_put_fields(&g->out, &m.base);
    if (c->text.size > 0) {
        proto_put_bytes(&g->out, RESPONSE_TEXT, c->text.data, c->text.size);
    }
    if (c->logprobs.size > 0) {
        moe_text_append(&g->out, c->logprobs.data, c->logprobs.size);
    }
    g->n_emitted += c->n_ids;
    g->n_waiting -= c->n_ids;
    c->first_index += (uint32_t)c->n_ids;
    reply_choice_clear(c);
    send_chunk(call, g, last);
}

/* The end of the last choice waits for the usage, which follows at once. */
static bool may_send_end(const generation *g, const reply_choice *c)
{
    return c->done && !c->sent_done && (g->n_unsent > 1 || (g->ended && g->status == MOE_OK));
}

static bool send_some_choice(rpc_call *call, generation *g)
{
    for (uint32_t i = 0; i < g->n_choices; i++) {
        uint32_t index = (g->turn + i) % g->n_choices;
        const reply_choice *c = &g->choices[index];
        bool with_end = may_send_end(g, c);

        if (with_end || (!reply_choice_empty(c) && !(c->done && !g->ended))) {
            g->turn = index + 1;
            send_choice(call, g, index, with_end, with_end && g->n_unsent == 1);
            return true;
        }
    }
    return false;
}

static void break_stream(rpc_call *call, const generation *g, moe_status status, const char *why)
{
    if (call->headers_sent) {
        rpc_fail_after(call, status, why, g->n_emitted);
    } else {
        rpc_fail(call, status, why);
    }
}

static void end_stream(rpc_call *call, const generation *g)
{
    if (g->status == MOE_OK) {
        rpc_finish_ok(call, NULL); /* an engine that ended without ending its choices */
    } else {
        break_stream(call, g, g->status, g->error);
    }
}

static bool has_output(const generation *g)
{
    for (uint32_t i = 0; i < g->n_choices; i++) {
        if (!reply_choice_empty(&g->choices[i]) || may_send_end(g, &g->choices[i])) {
            return true;
        }
    }
    return false;
}

static void pump_stream(rpc_call *call, generation *g)
{
    take_events(call, g);
    if (call->sending || call->finished) {
        return;
    }
    g->out.size = 0;
    if (g->echo && has_output(g)) {
        send_echo(call, g);
    } else if (send_some_choice(call, g)) {
        return;
    } else if (g->ended) {
        end_stream(call, g);
    } else if (g->progress_waiting) {
        send_progress(call, g);
    }
}

/* ------------------------------------------------------------------------------------------------ one message */
static void put_choice(moe_text *out, moe_text *scratch, reply_choice *c, uint32_t index)
{
    Conclave__V1__Choice m = CONCLAVE__V1__CHOICE__INIT;

    m.index = index;
    m.token_ids = c->ids;
    m.n_token_ids = c->n_ids;
    m.finish_reason = reply_finish(c->finish);
    if (c->has_stop_match) {
        m.has_stop_match_case = CONCLAVE__V1__CHOICE__HAS_STOP_MATCH_STOP_MATCH;
        m.stop_match = c->stop_match;
    }
    if (c->has_stop_token) {
        m.has_stop_token_id_case = CONCLAVE__V1__CHOICE__HAS_STOP_TOKEN_ID_STOP_TOKEN_ID;
        m.stop_token_id = c->stop_token_id;
    }
    scratch->size = 0;
    proto_put_fields(scratch, &m.base);
    if (c->text.size > 0) {
        proto_put_bytes(scratch, CHOICE_TEXT, c->text.data, c->text.size);
    }
    if (c->logprobs.size > 0) {
        moe_text_append(scratch, c->logprobs.data, c->logprobs.size);
    }
    proto_put_bytes(out, COMPLETE_CHOICES, scratch->data, scratch->size);
    out->failed = out->failed || scratch->failed;
}

static void put_complete(generation *g, moe_text *scratch)
{
    Conclave__V1__CompleteResponse m = CONCLAVE__V1__COMPLETE_RESPONSE__INIT;
    Conclave__V1__Usage usage;
    Conclave__V1__Timings timings;

    for (uint32_t i = 0; i < g->n_choices; i++) {
        put_choice(&g->out, scratch, &g->choices[i], i);
    }
    reply_usage(&g->usage, &usage, &timings);
    m.request_id = (char *)(uintptr_t)engine_request_id(g->session.request);
    m.seed = engine_request_seed(g->session.request);
    m.set_id = (char *)(uintptr_t)engine_request_set_id(g->session.request);
    m.model_fingerprint = (char *)(uintptr_t)g->info->fingerprint;
    m.usage = &usage;
    m.timings = &timings;
    m.prompt_token_ids = g->prompt;
    m.n_prompt_token_ids = g->n_prompt;
    proto_put_fields(&g->out, &m.base);
    if (g->echo) {
        scratch->size = 0;
        intake_decode(g->info, g->prompt, g->n_prompt, false, scratch);
        proto_put_bytes(&g->out, COMPLETE_PROMPT_TEXT, scratch->data, scratch->size);
    }
}

static void pump_complete(rpc_call *call, generation *g)
{
    moe_text scratch;

    take_events(call, g);
    if (!g->ended || call->finished) {
        return;
    }
    if (g->status != MOE_OK) {
        rpc_fail(call, g->status, g->error);
        return;
    }
    moe_text_init(&scratch, RPC_MAX_REPLY_BYTES);
    put_complete(g, &scratch);
    moe_text_fini(&scratch);
    if (g->out.failed) {
        rpc_fail(call, MOE_ERR_BUSY, "the reply is too large; use Generate, or ask for fewer logprobs");
    } else {
        rpc_finish_bytes(call, g->out.data, g->out.size);
    }
}

/* ------------------------------------------------------------------------------------------------ life */
static void generation_free(generation *g)
{
    session_close(&g->session);
    for (uint32_t i = 0; i < g->n_choices; i++) {
        reply_choice_fini(&g->choices[i]);
    }
    moe_text_fini(&g->out);
    free(g->prompt);
    free(g);
}

static generation *generation_new(const engine_info *info, const intake *in, bool stream, bool echo)
{
    generation *g = calloc(1, sizeof(*g));

    if (g == NULL) {
        return NULL;
    }
    g->info = info;
    g->stream = stream;
    g->echo = echo;
    g->want_logprobs = in->spec.want_logprobs;
    g->want_progress = in->spec.want_progress;
    g->n_choices = g->n_unsent = in->spec.n_choices;
    for (uint32_t i = 0; i < g->n_choices; i++) {
        reply_choice_init(&g->choices[i], stream ? RESPONSE_LOGPROBS : CHOICE_LOGPROBS);
        g->choices[i].first_index = (uint32_t)in->spec.n_resume;
    }
    moe_text_init(&g->out, 2 * RPC_MAX_REPLY_BYTES);
    if (echo) {
        g->n_prompt = in->spec.n_prompt;
        g->prompt = malloc(g->n_prompt * sizeof(g->prompt[0]));
        if (g->prompt == NULL) {
            generation_free(g);
            return NULL;
        }
        memcpy(g->prompt, in->spec.prompt, g->n_prompt * sizeof(g->prompt[0]));
    }
    return g;
}

static moe_status begin(rpc_call *call, const generate_request *r, bool stream, intake *in, moe_error *err)
{
    generation *g;
    moe_status status;

    in->spec.want_progress = in->spec.want_progress && stream;
    g = generation_new(engine_get_info(rpc_engine(call)), in, stream, r->has_echo_case != 0 && r->echo);
    if (g == NULL) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "out of memory");
    }
    status = session_open(call, &in->spec, &g->session, err);
    if (status != MOE_OK) {
        generation_free(g);
        return status;
    }
    call->state = g;
    return MOE_OK;
}

static moe_status take(const request_scope *scope, const ProtobufCMessage *r, intake *out, moe_error *err)
{
    return intake_generate(scope, (const generate_request *)r, out, err);
}

static moe_status begin_stream(rpc_call *call, const ProtobufCMessage *r, intake *in, moe_error *err)
{
    return begin(call, (const generate_request *)r, true, in, err);
}

static moe_status begin_complete(rpc_call *call, const ProtobufCMessage *r, intake *in, moe_error *err)
{
    return begin(call, (const generate_request *)r, false, in, err);
}

void generate_start(rpc_call *call, const uint8_t *bytes, size_t n)
{
    static const reading_kind kind = {&conclave__v1__generate_request__descriptor, take, begin_stream, generate_wake};

    reading_start(call, &kind, bytes, n);
}

void complete_start(rpc_call *call, const uint8_t *bytes, size_t n)
{
    static const reading_kind kind = {&conclave__v1__generate_request__descriptor, take, begin_complete, generate_wake};

    reading_start(call, &kind, bytes, n);
}

void generate_wake(rpc_call *call)
{
    generation *g = call->state;

    if (g == NULL) {
        return;
    }
    if (g->stream) {
        pump_stream(call, g);
    } else {
        pump_complete(call, g);
    }
}

/* The engine tells of progress when there is any; a stream that asked for it is not left silent in between. */
void generate_poll(rpc_call *call, uint64_t now_ns)
{
    generation *g = call->state;

    if (g != NULL && g->want_progress && !call->sending && now_ns - call->last_send_ns > PROGRESS_NS) {
        g->progress_waiting = true;
        pump_stream(call, g);
    }
}

void generate_stop(rpc_call *call)
{
    break_stream(call, call->state, MOE_ERR_UNAVAILABLE, RPC_SHUTTING_DOWN);
}

void generate_fini(rpc_call *call)
{
    generation_free(call->state);
}
