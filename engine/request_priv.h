/* request: one admitted request and its choices; what the scheduler moves and the step fills.
 *
 * Ownership: ref-counted between the engine (one reference while it lives) and the API call. All memory is allocated at
 * admission. Threads: fields are the engine thread's, except those marked "any" and the consumer's side of the ring. */
#ifndef CONCLAVE_ENGINE_REQUEST_PRIV_H
#define CONCLAVE_ENGINE_REQUEST_PRIV_H

#include "engine/engine.h"

#include <stdatomic.h>

typedef enum { CHOICE_WAITING, CHOICE_PREFILL, CHOICE_DECODE, CHOICE_DONE, CHOICE_N_STATES } choice_state;

typedef struct choice {
    engine_request *request; /* borrowed: its parent */
    uint32_t index;
    choice_state state;
    int32_t *tokens; /* owned [capacity]: prompt, then output */
    uint32_t n_tokens, capacity;
    uint32_t n_computed; /* tokens whose K and V stand in the cache */
    model_kv_seq kv;
    tokenizer_decode decode;
    moe_text text; /* decoded, not yet given out: may be the head of a stop string */
} choice;

struct engine_request {
    atomic_uint refs;              /* any */
    atomic_bool cancelled;         /* any */
    atomic_bool paused;            /* any: a plan passed it over because the ring was full; a reader wakes the engine */
    moe_waiter *waiter;            /* the engine's; borrowed: the engine outlives the calls that read */
    engine_request *older, *newer; /* the engine's list in order of arrival */
    engine_request *next_id;       /* the live-id list, under the engine's lock */

    char id[ENGINE_MAX_REQUEST_ID + 1];
    engine_kind kind;
    router_set *set; /* referenced */
    uint64_t deadline_ns;
    sampling_params sampling;
    uint32_t n_prompt, max_tokens, min_tokens, n_top, n_labels;
    bool want_logprobs, want_progress, want_experts, background;
    uint32_t score_from;
    char *stop[ENGINE_MAX_STOP_STRINGS]; /* owned */
    size_t stop_bytes[ENGINE_MAX_STOP_STRINGS];
    size_t n_stop;
    int32_t stop_ids[ENGINE_MAX_STOP_IDS + MODEL_MAX_EOS]; /* stop ids, then the model's eos unless ignore_eos */
    size_t n_stop_ids;
    int32_t *resume; /* owned [n_resume]: tokens of choice 0 that the client has; appended when the request starts */
    uint32_t n_resume;

    choice *choices; /* owned [n_choices] */
    uint32_t n_choices, n_done;
    bool started, ended;
    bool in_step;      /* the step that runs has rows of it: its pages are needed */
    bool left;         /* it was cancelled or has failed; only its pages are still here */
    moe_status failed; /* a row of it failed in this step */
    engine_usage usage;
    struct {
        bool is;           /* an expert that it needs has nobody who computes it: it is left out of steps */
        exchange_stuck by; /* that expert */
        uint64_t since_ns; /* no row of it has gone through a step since then; 0: it is not waiting for an expert */
        uint64_t retry_ns, pause_ns;
    } blocked;
    uint64_t submitted_ns, started_ns, first_token_ns, last_token_ns, progress_ns;

    moe_ring *ring;             /* engine -> consumer */
    size_t event_bound;         /* bytes of the largest event of a choice */
    unsigned char *tail_memory; /* owned [event_bound]: the event being built */
    void (*wake)(void *ctx);
    void *wake_ctx;

    float *scores; /* classify: owned [2, n_labels], raw and log-softmax; there when n_scored is 1 */

    /* score: results by position, filled by the step, published by n_scored (release) */
    float *logprobs;   /* owned [n_prompt] */
    sampling_top *top; /* owned [n_prompt, n_top] */
    uint32_t *n_tops;  /* owned [n_prompt] */
    int32_t *experts;  /* owned [n_prompt, n_experts_per_token] */
    uint32_t n_experts_per_token;
    atomic_uint n_scored;

    /* consumer's side */
    unsigned char *event_memory; /* owned [event_bound]: the event last popped */
    uint32_t n_read;             /* scored tokens handed out */
    bool held;                   /* event_memory waits until all scored tokens are read */
};

/* ------------------------------------------------------------------------------------------------ request.c
 * Checks spec against the limits and copies it. The request starts with two references: the engine's, the caller's. */
MOE_NODISCARD moe_status request_open(moe_waiter *waiter, const engine_info *info, router_set *current_set,
                                      const engine_spec *spec, uint64_t now_ns, engine_request **out, moe_error *err);
void request_unref(engine_request *r);
void choice_move(choice *c, choice_state to); /* along a legal edge (asserted) */
uint32_t choice_n_output(const choice *c);

/* limits.c: every limit of a request, and the length of its answer. Errors name the field, the value and the limit. */
MOE_NODISCARD moe_status request_check(const engine_info *info, const engine_spec *spec, uint32_t *max_tokens_out,
                                       moe_error *err);

/* ------------------------------------------------------------------------------------------------ text.c */
/* A generated token, as the step hands it over. */
typedef struct choice_token {
    int32_t id;
    bool has_logprob;
    float logprob;
    uint32_t n_top;
    const sampling_top *top; /* [n_top], borrowed */
} choice_token;

/* Appends a token: text, stop strings and ids, length; gives out the TOKEN event and, at the end, CHOICE_DONE. Returns
 * true when the choice has ended. quiet: a resumed token that the client already has (text state only). */
bool choice_append(choice *c, const engine_info *info, const choice_token *t, bool quiet);
size_t choice_text_bound(const engine_info *info); /* longest text of one event */

/* ------------------------------------------------------------------------------------------------ events.c */
MOE_NODISCARD moe_status request_events_open(engine_request *r, const engine_info *info);
/* Room for the next token's event of every running choice and for the last events. */
bool request_has_room(const engine_request *r);
void choice_emit_token(choice *c, const choice_token *t, size_t text_bytes); /* of c->text; t is its last token */
void choice_end(choice *c, engine_finish finish, int32_t stop_match, bool has_stop_token, int32_t stop_token);
void request_emit_started(engine_request *r);
void request_emit_progress(engine_request *r, uint32_t queue_position);
void request_emit_done(engine_request *r);
void request_emit_failed(engine_request *r, moe_status status, const char *why);
void request_emit_cancelled(engine_request *r); /* ends every choice that still lives, then gives out DONE */

#endif
