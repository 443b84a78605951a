/* What a request tells the call that waits for it: events in a ring, written by the engine, read by one consumer.
 *
 * Memory is taken at admission for the largest event there can be, so that a step allocates nothing; the engine asks
 * for room before it plans a row, so that it never waits for a reader. */
#include "engine/request_priv.h"

#include <stdlib.h>
#include <string.h>

/* How far a reader may fall behind before its request pauses; chosen, not measured. A ring holds so many of the largest
 * events there can be; most are far smaller, so more of them fit. */
#define EVENTS_OF_CHOICE  8
#define EVENTS_OF_REQUEST 4
#define RECORD_HEAD       8 /* at least what the ring adds to a record */

/* In the ring an event is this head, then n_top entries, then text, then the error. */
typedef struct event_head {
    engine_event_kind kind;
    uint32_t choice, index;
    int32_t token_id;
    float logprob;
    uint32_t n_top, text_bytes, error_bytes;
    uint32_t queue_position, prompt_tokens_done;
    engine_finish finish;
    int32_t stop_match; /* index of the stop string; -1: none */
    int32_t stop_token_id;
    bool has_logprob, has_stop_token;
    moe_status status;
    engine_usage usage;
} event_head;

moe_status request_events_open(engine_request *r, const engine_info *info)
{
    r->event_bound = sizeof(event_head) + r->n_top * sizeof(sampling_top) + choice_text_bound(info) +
                     sizeof((engine_event *)0)->error;
    r->event_memory = malloc(r->event_bound);
    r->tail_memory = malloc(r->event_bound);
    if (r->event_memory == NULL || r->tail_memory == NULL) {
        return MOE_ERR_NO_MEMORY;
    }
    return moe_ring_open((r->event_bound + RECORD_HEAD) * (EVENTS_OF_CHOICE * (size_t)r->n_choices + EVENTS_OF_REQUEST),
                         &r->ring);
}

static void emit(engine_request *r, const event_head *head, const sampling_top *top, const char *text,
                 const char *error)
{
    unsigned char *tail = r->tail_memory;
    size_t top_bytes = head->n_top * sizeof *top;

    if (top_bytes > 0) {
        memcpy(tail, top, top_bytes);
    }
    if (head->text_bytes > 0) {
        memcpy(tail + top_bytes, text, head->text_bytes);
    }
    if (head->error_bytes > 0) {
        memcpy(tail + top_bytes + head->text_bytes, error, head->error_bytes);
    }
    /* request_has_room was asked before the step: a full ring here is our bug. */
    MOE_ASSERT(moe_ring_push(r->ring, head, sizeof *head, tail, top_bytes + head->text_bytes + head->error_bytes));
    if (r->wake != NULL) {
        r->wake(r->wake_ctx);
    }
}

bool request_has_room(const engine_request *r)
{
    /* The next step's TOKEN and CHOICE_DONE of every choice that lives, then PROGRESS and the last event. */
    return moe_ring_room(r->ring) >= (r->event_bound + RECORD_HEAD) * (2 * (size_t)(r->n_choices - r->n_done) + 2);
}

void choice_emit_token(choice *c, const choice_token *t, size_t text_bytes)
{
    event_head head = {.kind = ENGINE_TOKEN,
                       .choice = c->index,
                       .index = choice_n_output(c) - 1,
                       .token_id = t->id,
                       .has_logprob = t->has_logprob,
                       .logprob = t->logprob,
                       .n_top = t->n_top,
                       .text_bytes = (uint32_t)text_bytes,
                       .stop_match = -1};
    emit(c->request, &head, t->top, c->text.data, NULL);
}

void request_emit_started(engine_request *r)
{
    emit(r, &(event_head){.kind = ENGINE_STARTED, .stop_match = -1}, NULL, NULL, NULL);
}

void request_emit_progress(engine_request *r, uint32_t queue_position)
{
    event_head head = {.kind = ENGINE_PROGRESS,
                       .stop_match = -1,
                       .queue_position = queue_position,
                       .prompt_tokens_done = MOE_MIN(r->choices[0].n_computed, r->n_prompt)};
    emit(r, &head, NULL, NULL, NULL);
}

void request_emit_done(engine_request *r)
{
    r->ended = true;
    emit(r, &(event_head){.kind = ENGINE_DONE, .stop_match = -1, .usage = r->usage}, NULL, NULL, NULL);
}

void request_emit_failed(engine_request *r, moe_status status, const char *why)
{
    event_head head = {.kind = ENGINE_FAILED, .stop_match = -1, .status = status, .usage = r->usage};

    head.error_bytes = (uint32_t)MOE_MIN(strlen(why), sizeof((engine_event *)0)->error - 1);
    r->ended = true;
    emit(r, &head, NULL, NULL, why);
}

void choice_end(choice *c, engine_finish finish, int32_t stop_match, bool has_stop_token, int32_t stop_token)
{
    event_head head = {.kind = ENGINE_CHOICE_DONE,
                       .choice = c->index,
                       .index = choice_n_output(c),
                       .finish = finish,
                       .stop_match = stop_match,
                       .has_stop_token = has_stop_token,
                       .stop_token_id = stop_token,
                       .text_bytes = (uint32_t)c->text.size};
    emit(c->request, &head, NULL, c->text.data, NULL);
    c->text.size = 0;
    choice_move(c, CHOICE_DONE);
    c->request->n_done++;
    c->request->usage.completion_tokens += choice_n_output(c);
}

void request_emit_cancelled(engine_request *r)
{
    for (uint32_t i = 0; i < r->n_choices; i++) {
        if (r->choices[i].state != CHOICE_DONE) {
            choice_end(&r->choices[i], ENGINE_FINISH_CANCELLED, -1, false, 0);
        }
    }
    request_emit_done(r);
}

/* ------------------------------------------------------------------------------------------------ consumer's side */
static void next_scored(engine_request *r, engine_event *event)
{
    uint32_t i = r->n_read++;

    if (r->kind == ENGINE_CLASSIFY) {
        *event = (engine_event){.kind = ENGINE_CLASSIFIED,
                                .n_scores = r->n_labels,
                                .scores = r->scores,
                                .score_logprobs = r->scores + r->n_labels};
        return;
    }
    *event = (engine_event){.kind = ENGINE_SCORED,
                            .index = i,
                            .token_id = r->choices[0].tokens[i],
                            .has_logprob = i > 0,
                            .logprob = r->logprobs[i],
                            .n_top = r->n_tops[i],
                            .top = r->top + (size_t)i * r->n_top,
                            .n_experts = r->n_experts_per_token,
                            .experts = r->experts + (size_t)i * r->n_experts_per_token};
}

static void next_in_ring(const engine_request *r, engine_event *event)
{
    event_head head;
    const unsigned char *tail = r->event_memory + sizeof head;

    memcpy(&head, r->event_memory, sizeof head);
    *event = (engine_event){.kind = head.kind,
                            .choice = head.choice,
                            .index = head.index,
                            .token_id = head.token_id,
                            .has_logprob = head.has_logprob,
                            .logprob = head.logprob,
                            .n_top = head.n_top,
                            .top = (const sampling_top *)(const void *)tail,
                            .text = (const char *)tail + head.n_top * sizeof(sampling_top),
                            .text_bytes = head.text_bytes,
                            .queue_position = head.queue_position,
                            .prompt_tokens_done = head.prompt_tokens_done,
                            .finish = head.finish,
                            .stop_match = head.stop_match >= 0 ? r->stop[head.stop_match] : NULL,
                            .has_stop_token = head.has_stop_token,
                            .stop_token_id = head.stop_token_id,
                            .usage = head.usage,
                            .status = head.status};
    memcpy(event->error, event->text + head.text_bytes, head.error_bytes);
}

bool engine_next(engine_request *r, engine_event *event)
{
    size_t bytes;

    /* Scored tokens come before the ring's DONE: the engine raises the count before it pushes DONE, so one more look at
     * the count after the pop sees them all; DONE is then held until they are read. */
    if (r->n_read < atomic_load_explicit(&r->n_scored, memory_order_acquire)) {
        next_scored(r, event);
        return true;
    }
    if (!r->held && !moe_ring_pop(r->ring, r->event_memory, r->event_bound, &bytes)) {
        return false;
    }
    r->held = r->n_read < atomic_load_explicit(&r->n_scored, memory_order_acquire);
    if (r->held) {
        next_scored(r, event);
        return true;
    }
    next_in_ring(r, event);
    if (atomic_exchange(&r->paused, false)) {
        moe_waiter_wake(r->waiter);
    }
    return true;
}
