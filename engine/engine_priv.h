/* The engine's state, shared by engine.c (joining, leaving, the thread) and step.c (one step). */
#ifndef CONCLAVE_ENGINE_ENGINE_PRIV_H
#define CONCLAVE_ENGINE_ENGINE_PRIV_H

#include "engine/engine.h"
#include "engine/scheduler_priv.h"

#include <pthread.h>

#define ENGINE_MAX_MICRO_BATCHES 2

struct engine {
    engine_options options;
    engine_info info;
    scheduler_limits limits;

    /* the engine thread's own */
    step step;
    model_batch *batches[ENGINE_MAX_MICRO_BATCHES];
    sampler *sampler;
    float *logits; /* owned [max_logit_rows, width of the head] */
    engine_request *oldest, *newest;
    router_set *set;    /* the current set; referenced */
    engine_stats stats; /* published under the lock after every step */

    /* any thread */
    moe_queue *arrivals;
    moe_waiter *waiter;
    compute_counters warm_up;      /* what the warm-up token added: it is nobody's */
    _Atomic uint64_t *expert_rows; /* owned [n_layers, n_experts] */
    _Atomic uint64_t *ffn_picks;   /* owned [n_layers, k + 1]: rows by the number of FFN experts they picked */
    _Atomic uint64_t rows_done;
    atomic_uint n_waiting; /* requests that have not started */
    atomic_uint n_live;
    atomic_bool warm, draining, stopping;

    pthread_mutex_t lock;     /* docs/threads.md: before the queue of arrivals, else a leaf */
    engine_request *live_ids; /* under lock: all live requests, by next_id */
    engine_stats published;   /* under lock */
    pthread_t thread;
    bool thread_runs;
};

/* Takes new requests in, and ends those that were cancelled or ran out of time. */
void engine_intake(engine *e);
/* Ends a request: pages back, off the lists, the engine's reference given up. The last event has been given out. */
void engine_retire(engine *e, engine_request *r);
void engine_fail_request(engine *e, engine_request *r, moe_status status, const char *why);
void engine_release_choice(engine *e, choice *c);
void engine_publish_stats(engine *e);
void engine_observe(engine_histogram *h, double seconds);

#endif
