/* The engine's state, shared by engine.c (joining, leaving, the thread), step.c (one step) and change.c. */
#ifndef CONCLAVE_ENGINE_ENGINE_PRIV_H
#define CONCLAVE_ENGINE_ENGINE_PRIV_H

#include "engine/engine.h"
#include "engine/scheduler_priv.h"

#include <pthread.h>

#define ENGINE_MAX_MICRO_BATCHES 2

/* Which layer it is at; the one after the model's last is the head. Of a layer first the experts' results of the layer before
 * are collected and combined, then the device attends and routes. */
typedef struct micro_batch {
    uint32_t first_row, n_rows;
    uint32_t layer;
    bool computes; /* the device is at it */
} micro_batch;

/* The step that is under way. */
typedef struct step_run {
    bool active, proving; /* proving: its row is a token of our own */
    bool background;      /* its rows are of the request in the background */
    uint64_t n_admitted;  /* requests, when it began */
    uint32_t n_mb;
    micro_batch mb[ENGINE_MAX_MICRO_BATCHES];
    uint64_t waits_ns;          /* since when it waits for experts; 0: it does not */
    bool left_behind;           /* a request of it has been cancelled or has failed */
    exchange_coverage at_begin; /* the owners as they were */
} step_run;

/* What came of a row of logits: filled by one of the threads, handed out by the engine's. */
typedef struct row_sample {
    const step_work *work; /* NULL: its request has ended or failed, so nobody wants it */
    uint32_t row;          /* of the step */
    moe_status status;
    choice_token token; /* where it is a token that is wanted; token.top is top */
    sampling_top top[SAMPLING_MAX_TOP_LOGPROBS];
} row_sample;

struct engine {
    engine_options options;
    engine_info info;
    scheduler_limits limits;

    /* the engine thread's own */
    step step;
    step_run run;
    model_batch *batches[ENGINE_MAX_MICRO_BATCHES];
    sampler **samplers;              /* owned: one of each thread */
    row_sample *samples;             /* owned [max_logit_rows]: what came of the rows of logits */
    float *logits;                   /* owned [max_logit_rows, width of the head] */
    engine_request *oldest, *newest; /* but for the one in the background */
    uint64_t intake_ns;              /* when arrivals were last taken */
    uint32_t n_blocked;              /* requests that are left out, as an expert has nobody who computes it */
    model_kv_seq proof;              /* page of a token of our own */
    moe_status proof_status;         /* how it ended */
    compute_counters before_own;     /* when it was sent */
    compute_counters own_tokens;     /* what such tokens have added: they are nobody's */
    router_set *set;                 /* the current set; referenced */
    router_space *space;             /* shared, under the lock as the set: all experts that there are */
    engine_stats stats;              /* published under the lock after every step */

    /* any thread */
    moe_queue *arrivals;
    _Atomic(engine_request *) background; /* set under the lock; taken away by the engine's thread. NULL: none */
    moe_waiter *waiter;
    router_use *use; /* owned; the engine thread counts, and folds and replaces it under the lock */
    _Atomic uint64_t rows_done;
    atomic_uint n_waiting; /* requests that have not started */
    atomic_uint n_live;
    atomic_bool draining, stopping;
    _Atomic uint64_t proven; /* 1 + the coverage's n_gaps when a token last went through all layers; 0: none has */

    /* Under the lock: the set of requests that come from now on, which the engine's thread takes between two steps; referenced. NULL:
     * it is `set`. */
    router_set *next_set;
    struct {
        pthread_cond_t ended;               /* under lock: a change has been taken or refused */
        uint64_t n_asked, n_taken;          /* under lock: turns of those who ask */
        _Atomic(struct engine_asked *) now; /* that the next turn takes; NULL: none */
    } change;

    pthread_mutex_t lock;     /* docs/threads.md: before the queue of arrivals, else a leaf */
    engine_request *live_ids; /* under lock: all live requests, by next_id */
    struct {
        router_set *set;     /* shared */
        uint32_t n;          /* requests */
    } sets[ENGINE_MAX_SETS]; /* under lock: those of live requests, the first n_sets */
    size_t n_sets;
    engine_stats published; /* under lock */
    moe_error unproven;     /* under lock: why our own last token did not go through; "": it did */
    pthread_t thread;
    bool thread_runs;
};

/* Takes new requests in, and ends those that were cancelled or ran out of time, also while a step runs. */
void engine_intake(engine *e);
void engine_fail_request(engine *e, engine_request *r, moe_status status, const char *why);
void engine_release_choice(engine *e, choice *c);
void engine_publish_stats(engine *e);

/* sets.c, with the lock held: one more live request of this set, or one less. MOE_ERR_BUSY: too many sets. */
MOE_NODISCARD moe_status engine_sets_take(engine *e, router_set *set, moe_error *err);
void engine_sets_leave(engine *e, const router_set *set);

/* change.c: takes the change that waits, if one does. No step is under way. */
void engine_take_change(engine *e);
/* Whether the engine knows all experts of the set. */
MOE_NODISCARD moe_status engine_check_set(engine *e, const router_set *set, moe_error *err);

/* sample.c: all rows of logits of a step whose layers have all run, on the threads. Nothing that others see changes. */
MOE_NODISCARD moe_status engine_open_samples(engine *e);
void engine_close_samples(engine *e);
void engine_sample(engine *e);
bool engine_work_failed(const engine *e, const step_work *w);

/* tokens.c: what one choice gets of such a step, after engine_sample; its tokens count as computed from now on. */
MOE_NODISCARD moe_status engine_finish_work(engine *e, const step_work *w);
float *engine_logits_at(engine *e, uint32_t logit);
double engine_seconds(uint64_t from_ns, uint64_t to_ns);
void engine_observe(engine_histogram *h, double seconds);

/* step.c: begins with the rows that e->step was filled with. */
void engine_begin_step(engine *e, bool proving);
/* Ends the step that is under way, if one is, as if it had never begun. why: for readiness, of a token of our own. */
void engine_abandon_step(engine *e, const char *why);
/* A moment's rest while a step waits: arrivals and cancels are noticed no later than a turn would notice them. */
void engine_pause(engine *e);
/* Returns out. */
#define ENGINE_STUCK_TEXT 64
const char *engine_stuck_text(const exchange_stuck *by, char out[ENGINE_STUCK_TEXT]);
bool engine_row_failed(const engine *e, uint32_t row);

/* readiness.c: a step that began with this coverage has gone through all layers. */
void engine_note_proof(engine *e, const exchange_coverage *at_begin);
/* Between steps: begins with a token of our own if readiness waits for that alone. */
void engine_prove(engine *e);
/* That token has gone through all layers (MOE_OK), or it has not: why. */
void engine_end_proof(engine *e, moe_status status, const char *why);

#endif
