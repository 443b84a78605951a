/* engine: the step loop behind the API. Requests join and leave between steps; chunked prefill shares steps with
 * decode; KV pages are taken as needed and the youngest request is put back when none is free.
 *
 * Nouns:
 *   engine           owns the model, the KV cache and the one thread that steps them
 *   engine_request   one admitted request with its choices; ref-counted between the engine and the API call
 *   engine_event     what the engine tells a request: tokens, progress, the end
 *   engine_changes   what becomes different for everybody between two steps
 *
 * Threads: engine_submit, engine_cancel, engine_next, engine_release and the getters may be called from any thread;
 *          engine_next by one consumer per request; engine_change by all but the engine's. wake() is called on the engine
 *          thread: it must neither block nor call back into the engine.
 * Bounds:  a consumer that stops reading pauses its own request only, as its ring has a bound. */
#ifndef CONCLAVE_ENGINE_H
#define CONCLAVE_ENGINE_H

#include "base/base.h"
#include "exchange/exchange.h"
#include "model/model.h"
#include "router/router.h"
#include "sampling/sampling.h"
#include "tokenizer/tokenizer.h"

typedef struct engine engine;
typedef struct engine_request engine_request;

#define ENGINE_MAX_CHOICES      16
#define ENGINE_MAX_STOP_STRINGS 16
#define ENGINE_MAX_STOP_BYTES   256
#define ENGINE_MAX_STOP_IDS     64
#define ENGINE_MAX_REQUEST_ID   128

typedef enum { ENGINE_GENERATE, ENGINE_SCORE, ENGINE_CLASSIFY } engine_kind;

/* All pointers are borrowed during engine_submit, which checks every field against the limits and copies. */
typedef struct engine_spec {
    engine_kind kind;
    const char *request_id; /* NULL: one is drawn; a live duplicate is MOE_ERR_EXISTS */
    const int32_t *prompt;
    size_t n_prompt;
    router_set *set;      /* NULL: the current set */
    uint64_t deadline_ns; /* of engine_now_ns; 0: none. Work whose deadline has passed is ended with MOE_ERR_TIMEOUT */

    /* generate */
    bool has_max_tokens;
    uint32_t max_tokens, min_tokens;
    bool min_tokens_is_default; /* nobody asked for it: of a shorter answer it is the length, not an error */
    sampling_params sampling;   /* seed used if has_seed, else drawn */
    bool has_seed;
    uint32_t n_choices;
    bool want_logprobs;
    uint32_t n_top;          /* alternatives beside the chosen token; score: per token */
    const char *const *stop; /* NUL-terminated UTF-8, not empty */
    size_t n_stop;
    const int32_t *stop_ids;
    size_t n_stop_ids;
    bool ignore_eos;
    const int32_t *resume; /* tokens of choice 0 already delivered */
    size_t n_resume;
    bool want_progress;

    /* score */
    bool want_experts;
    uint32_t
        score_from; /* tokens before this position are read and not scored; below n_prompt. What the prefix cache has of
                          * them is not computed again */
    /* For what nobody waits for: read in small steps of its own while no other request has a row to compute, with pages
     * that others get when they need them. One at a time. It is in no figures of requests, tokens and experts, and neither
     * engine_idle nor a drain waits for it. */
    bool background;

    void (*wake)(void *ctx); /* an event is there; called on the engine thread */
    void *wake_ctx;
} engine_spec;

typedef enum {
    ENGINE_STARTED,
    ENGINE_TOKEN,
    ENGINE_SCORED,
    ENGINE_CLASSIFIED,
    ENGINE_PROGRESS,
    ENGINE_CHOICE_DONE,
    ENGINE_DONE,
    ENGINE_FAILED
} engine_event_kind;
typedef enum { ENGINE_FINISH_NONE, ENGINE_FINISH_STOP, ENGINE_FINISH_LENGTH, ENGINE_FINISH_CANCELLED } engine_finish;

typedef struct engine_usage {
    uint32_t prompt_tokens, completion_tokens, cached_tokens, preemptions;
    double queue_seconds, prefill_seconds, decode_seconds;
} engine_usage;

/* One event, as engine_next hands it out. Arrays and text are borrowed until the next engine_next of this request.
 *
 *   kind         what has happened                     fields beside kind
 *   STARTED      left the queue (once)
 *   TOKEN        one token was generated               choice; index among the generated tokens, resumed ones included;
 *                                                      token_id; text that it completed, often ""; logprob and top
 *                                                      [n_top] if asked for
 *   SCORED       one prompt token was scored           index: its position, from score_from on; token_id; logprob, not
 *                                                      for the first; top [n_top]; experts [n_layers * k] if asked for,
 *                                                      ascending within a layer
 *   CLASSIFIED   the classifier's head has read the    scores and score_logprobs [n_scores]
 *                prompt's last token
 *   PROGRESS     the request waits or is read          queue_position, prompt_tokens_done
 *   CHOICE_DONE  one choice has ended                  choice; finish; stop_match or stop_token_id; text: the tail
 *   DONE         all choices have ended; the last      usage
 *   FAILED       the request has failed; the last      status, error */
typedef struct engine_event {
    engine_event_kind kind;
    uint32_t choice, index;
    int32_t token_id;
    bool has_logprob;
    float logprob;
    uint32_t n_top;
    const sampling_top *top;
    const char *text;
    size_t text_bytes;
    uint32_t n_experts; /* entries of experts */
    const int32_t *experts;
    uint32_t n_scores;
    const float *scores, *score_logprobs; /* raw, and their log-softmax */
    uint32_t queue_position, prompt_tokens_done;
    engine_finish finish;
    const char *stop_match; /* NULL: none */
    bool has_stop_token;
    int32_t stop_token_id;
    engine_usage usage;
    moe_status status;
    char error[256];
} engine_event;

/* Limits and identity, constant after start. */
typedef struct engine_info {
    const model_config *config;
    const tokenizer *tokenizer; /* NULL: token ids only */
    compute_class numeric_class;
    compute_device *device; /* for what any thread may ask of it */
    char fingerprint[65];
    uint32_t max_context, default_max_tokens, max_queue, max_running;
    size_t kv_capacity_tokens;
} engine_info;

/* Durations in seconds, as Prometheus has them: buckets are cumulative counts at engine_bucket_seconds. */
#define ENGINE_N_BUCKETS 16
typedef struct engine_histogram {
    double sum;
    uint64_t count, buckets[ENGINE_N_BUCKETS];
} engine_histogram;

/* Counters for /metrics; read without locks, monotonic unless said. */
typedef struct engine_stats {
    uint64_t requests_admitted, requests_done, requests_failed, requests_cancelled, requests_refused;
    uint64_t prompt_tokens, generated_tokens, steps, preemptions;
    uint64_t abandoned_steps; /* begun, and given up because nobody computed an expert; computed again later */
    uint32_t queued, running; /* now */
    uint64_t kv_pages, kv_pages_used, kv_pages_cached; /* now */
    uint64_t prefix_hit_tokens;
    uint64_t last_step_ns;        /* of engine_now_ns, when the loop last turned, also within a step */
    engine_histogram queue;       /* from arrival to the start, of requests that started */
    engine_histogram first_token; /* from arrival to the first token */
    engine_histogram inter_token; /* between the tokens of one choice */
    engine_histogram request;     /* from arrival to the end, however it came */
    uint64_t attention_keys_seen, attention_keys_skipped; /* by stick-breaking scans; those beyond an early exit */
    exchange_stats dispatch;                              /* of all nodes */
} engine_stats;
extern const double engine_bucket_seconds[ENGINE_N_BUCKETS];

const engine_info *engine_get_info(const engine *e);
uint64_t engine_now_ns(const engine *e); /* by its clock */
void engine_get_stats(engine *e, engine_stats *out);
/* All experts that there are; referenced: router_space_unref. */
router_space *engine_current_space(engine *e);
/* Rows per expert since start: copies the counters of the first n slots of the space; returns the rows that went
 * through. */
uint64_t engine_get_expert_rows(engine *e, uint64_t *out, size_t n);
/* The same with the weights that the gate gave them, and how often they are picked lately. */
uint64_t engine_get_expert_use(engine *e, router_expert_use *out, size_t n);
/* Rows of the last over_ns, as router_use_read_over has it. */
MOE_NODISCARD bool engine_get_expert_rows_over(engine *e, uint64_t over_ns, uint64_t *out, size_t n,
                                               uint64_t *longest_ns);
/* Rows by the number of FFN experts among their picks (the other picks are evaluated here). Copies n_layers * (k + 1)
 * counters: per layer the rows that picked 0 .. k of them. */
void engine_get_ffn_picks(engine *e, uint64_t *out, size_t n);
router_set *engine_current_set(engine *e); /* referenced: router_set_unref */
/* Sets of requests that have been admitted and not ended: their experts are needed. At most ENGINE_MAX_SETS, referenced; returns
 * how many. */
#define ENGINE_MAX_SETS 64
size_t engine_live_sets(engine *e, router_set *out[ENGINE_MAX_SETS]);
/* Whether it may be given work: a real token went through all layers, every expert has had a live owner since (gaps
 * below EXCHANGE_GAP_NS do not count), and it is not draining. After a longer gap it becomes ready again by itself, when
 * another token has gone through. Errors: MOE_ERR_UNAVAILABLE and why not. */
moe_status engine_check_ready(engine *e, moe_error *err);
bool engine_ready(engine *e);

/* What can be refused of a request before its prompt is known, so that no text is tokenised in vain: sampling, stops,
 * resume, request id, counts. engine_submit checks it all again, and the rest. Errors: MOE_ERR_INVALID_ARG naming the
 * field, the value and the limit. */
MOE_NODISCARD moe_status engine_check_options(const engine_info *info, const engine_spec *spec, moe_error *err);
/* Token ids that a client sent: within the vocabulary, and no more than the context holds. */
MOE_NODISCARD moe_status engine_check_ids(const engine_info *info, const char *field, const int32_t *ids, size_t n,
                                          moe_error *err);

/* Admits a request. On success *out holds a reference of the caller's: engine_release.
 * Errors, with the reason in err:
 *   MOE_ERR_INVALID_ARG   names the field and the limit
 *   MOE_ERR_BUSY          the queue is full; live requests have ENGINE_MAX_SETS other sets already; or another one
 *                         lives in the background
 *   MOE_ERR_UNAVAILABLE   as engine_check_ready; or the set has experts that the engine's space has not
 *   MOE_ERR_EXISTS        a request of this id lives
 *   MOE_ERR_UNSUPPORTED   the model's head is for another kind of request */
MOE_NODISCARD moe_status engine_submit(engine *e, const engine_spec *spec, engine_request **out, moe_error *err);
const char *engine_request_id(const engine_request *r);
uint64_t engine_request_seed(const engine_request *r);
const char *engine_request_set_id(const engine_request *r);
uint32_t engine_request_n_choices(const engine_request *r);
/* The prompt's tokens and those of a choice behind it, once DONE has come; borrowed until engine_release. */
const int32_t *engine_request_tokens(const engine_request *r, uint32_t index, size_t *n_prompt, size_t *n);
/* The next event; false when there is none now. */
MOE_NODISCARD bool engine_next(engine_request *r, engine_event *event);
/* Ends it at once, also while a step waits for experts; pages and slot are free when the step has ended, or soon after if
 * it waits. Idempotent; an ended request is left as it is. */
void engine_cancel(engine_request *r);
void engine_release(engine_request *r);

/* ------------------------------------------------------------------------------------------------ changes
 * Whoever changes something makes everything beforehand, on a thread of its own; the engine takes it between two steps. So a
 * step has one state from its first row to the last, and allocates nothing. Requests that were admitted before keep their set,
 * and rows of different sets share a step. */
typedef struct engine_growth engine_growth;
typedef struct engine_changes {
    /* The space grows: its gates, and what the engine has that is sized by it. Afterwards it has what was there before, to be
     * closed. NULL: the space stays. */
    engine_growth *growth;
    router_set *set; /* the current set from then on, of which the engine keeps a reference; NULL: it stays */
    /* Called on the engine's thread when no step is under way and nothing has been changed yet, for what else belongs to that
     * thread: what the exchange and an embedded node have. It must neither block nor call back into the engine. An error
     * leaves all as it was. NULL: none. */
    moe_status (*take)(void *ctx, moe_error *err);
    void *ctx;
} engine_changes;

/* Everything for a later version of the space, that of the gates (referenced); made while the engine runs, one at a time.
 * Errors: MOE_ERR_INVALID_ARG: it is no later version; MOE_ERR_NO_MEMORY. */
MOE_NODISCARD moe_status engine_growth_open(engine *e, model_gates *gates, engine_growth **out, moe_error *err);
void engine_growth_close(engine_growth *g); /* NULL is fine; before engine_close */

/* A set alone, of experts that are all here, is current at once: requests that come from now on have it, and nothing is waited for.
 * Otherwise waits until the engine has taken the change, whether it is idle, runs requests or waits for experts. A step that has got no
 * result for a second is put off for it: its rows are computed again afterwards, to the same bits. One change at a time, in
 * the order in which they came. Before engine_start the thread that steps the engine calls it: the change is taken at once.
 * It must have returned before engine_close is called.
 * Errors: MOE_ERR_INVALID_ARG: the set has experts that the (grown) space has not; MOE_ERR_BUSY: a step is under way, before
 * engine_start; those of take. */
MOE_NODISCARD moe_status engine_change(engine *e, const engine_changes *changes, moe_error *err);

/* ------------------------------------------------------------------------------------------------ the loop
 * How the program and the tests open the engine, run it on a thread (or step it by hand) and take it down.
 *
 * All pointers are borrowed for the engine's life. model, kv and exchange are touched by the engine's thread only. */
typedef struct engine_options {
    model *model;
    model_kv *kv;
    exchange *exchange;
    moe_threads *threads;       /* rows of logits are sampled on them; idle whenever the engine's thread runs */
    const tokenizer *tokenizer; /* NULL: token ids only */
    router_set *base_set;
    const moe_clock *clock;
    char fingerprint[65];
    uint32_t max_batch_tokens; /* rows of one step, prefill plus decode */
    uint32_t prefill_chunk;    /* rows of one request's prefill in one step */
    uint32_t max_running;      /* choices that run at once; at most max_batch_tokens */
    uint32_t max_queue;        /* requests that wait */
    uint32_t max_context, default_max_tokens;
    uint32_t micro_batches;   /* 1 or 2: alternate halves of a step, to hide the network */
    uint64_t step_timeout_ns; /* how long a request waits for an expert without a live owner */
} engine_options;

MOE_NODISCARD moe_status engine_open(const engine_options *options, engine **out, moe_error *err);
/* Runs one token through all layers, waiting step_timeout_ns for their owners at most; the engine is ready afterwards. The
 * caller's thread steps the engine until engine_start. A running engine does it by itself once every expert has a live
 * owner. */
MOE_NODISCARD moe_status engine_warm_up(engine *e, moe_error *err);
/* One turn, which never blocks. A step goes on from where it stands as far as the experts' results are there. */
typedef enum {
    ENGINE_TURN_IDLE,  /* there is no row to compute */
    ENGINE_TURN_WAITS, /* a step waits for experts: turn again soon, or after exchange_pause */
    ENGINE_TURN_WORKED /* a step has ended, or was abandoned because somebody computes none of its experts */
} engine_turn_kind;
engine_turn_kind engine_turn(engine *e);
/* Turns, with pauses, until a step has ended. False when there was nothing to run. */
bool engine_step(engine *e);
MOE_NODISCARD moe_status engine_start(engine *e, moe_error *err);
/* No new requests (UNAVAILABLE), running ones go on. */
void engine_begin_drain(engine *e);
bool engine_idle(engine *e); /* no request lives */
/* Stops the thread, also while a step waits for experts; what still lives is ended with UNAVAILABLE. */
void engine_close(engine *e);

#endif
