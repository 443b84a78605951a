#include "api/reply_priv.h"
#include "api/grpc/proto.h"
#include "api/grpc/rpc.h"

#include <stdlib.h>

void reply_choice_init(reply_choice *c, uint32_t logprobs_id)
{
    *c = (reply_choice){.logprobs_id = logprobs_id};
    moe_text_init(&c->text, RPC_MAX_REPLY_BYTES);
    moe_text_init(&c->logprobs, RPC_MAX_REPLY_BYTES);
}

void reply_choice_fini(reply_choice *c)
{
    free(c->ids);
    moe_text_fini(&c->text);
    moe_text_fini(&c->logprobs);
}

void reply_choice_clear(reply_choice *c)
{
    c->n_ids = 0;
    c->text.size = 0;
    c->logprobs.size = 0;
}

bool reply_choice_empty(const reply_choice *c)
{
    return c->n_ids == 0 && c->text.size == 0;
}

static bool grow_ids(reply_choice *c)
{
    size_t max_ids = c->max_ids == 0 ? 64 : c->max_ids * 2;
    int32_t *ids = c->n_ids < c->max_ids ? c->ids : realloc(c->ids, max_ids * sizeof(ids[0]));

    if (ids == NULL) {
        return false;
    }
    c->max_ids = c->n_ids < c->max_ids ? c->max_ids : max_ids;
    c->ids = ids;
    return true;
}

ProtobufCBinaryData reply_token(const engine_info *info, int32_t id)
{
    size_t n = 0;
    const char *bytes = info->tokenizer == NULL ? NULL : tokenizer_token_bytes(info->tokenizer, id, &n);

    return (ProtobufCBinaryData){.len = bytes == NULL ? 0 : n, .data = (uint8_t *)(uintptr_t)bytes};
}

void reply_top(const engine_info *info, const sampling_top *top, size_t n, Conclave__V1__TopLogprob *entries,
               Conclave__V1__TopLogprob **pointers)
{
    for (size_t i = 0; i < n; i++) {
        conclave__v1__top_logprob__init(&entries[i]);
        entries[i].id = top[i].token_id;
        entries[i].logprob = top[i].logprob;
        entries[i].token = reply_token(info, top[i].token_id);
        pointers[i] = &entries[i];
    }
}

static void add_logprob(reply_choice *c, const engine_info *info, const engine_event *event)
{
    Conclave__V1__TokenLogprob m = CONCLAVE__V1__TOKEN_LOGPROB__INIT;
    Conclave__V1__TopLogprob entries[SAMPLING_MAX_TOP_LOGPROBS], *pointers[SAMPLING_MAX_TOP_LOGPROBS];
    size_t n = MOE_MIN(event->n_top, SAMPLING_MAX_TOP_LOGPROBS);

    reply_top(info, event->top, n, entries, pointers);
    m.id = event->token_id;
    m.logprob = event->logprob;
    m.token = reply_token(info, event->token_id);
    m.n_top = n;
    m.top = pointers;
    proto_put_message(&c->logprobs, c->logprobs_id, &m.base);
}

static void add_token(reply_choice *c, const engine_info *info, const engine_event *event, bool want_logprobs)
{
    if (!grow_ids(c)) {
        c->failed = true;
        return;
    }
    if (c->n_ids == 0) {
        c->first_index = event->index;
    }
    c->ids[c->n_ids++] = event->token_id;
    if (want_logprobs && event->has_logprob) {
        add_logprob(c, info, event);
    }
}

void reply_choice_add(reply_choice *c, const engine_info *info, const engine_event *event, bool want_logprobs)
{
    if (event->kind == ENGINE_TOKEN) {
        add_token(c, info, event, want_logprobs);
    } else {
        c->done = true;
        c->finish = event->finish;
        c->has_stop_match = event->stop_match != NULL;
        snprintf(c->stop_match, sizeof(c->stop_match), "%s", event->stop_match == NULL ? "" : event->stop_match);
        c->has_stop_token = event->has_stop_token;
        c->stop_token_id = event->stop_token_id;
    }
    moe_text_append(&c->text, event->text, event->text == NULL ? 0 : event->text_bytes);
    c->failed = c->failed || c->text.failed || c->logprobs.failed;
}

Conclave__V1__FinishReason reply_finish(engine_finish finish)
{
    switch (finish) {
    case ENGINE_FINISH_STOP:
        return CONCLAVE__V1__FINISH_REASON__FINISH_REASON_STOP;
    case ENGINE_FINISH_LENGTH:
        return CONCLAVE__V1__FINISH_REASON__FINISH_REASON_LENGTH;
    case ENGINE_FINISH_CANCELLED:
        return CONCLAVE__V1__FINISH_REASON__FINISH_REASON_CANCELLED;
    case ENGINE_FINISH_NONE:
        break;
    }
    return CONCLAVE__V1__FINISH_REASON__FINISH_REASON_UNSPECIFIED;
}

void reply_usage(const engine_usage *from, Conclave__V1__Usage *usage, Conclave__V1__Timings *timings)
{
    conclave__v1__usage__init(usage);
    usage->prompt_tokens = from->prompt_tokens;
    usage->completion_tokens = from->completion_tokens;
    usage->cached_tokens = from->cached_tokens;
    conclave__v1__timings__init(timings);
    timings->queue_seconds = from->queue_seconds;
    timings->prefill_seconds = from->prefill_seconds;
    timings->decode_seconds = from->decode_seconds;
    timings->preemptions = from->preemptions;
}
