/* The engine's other side: how main and the tests open it, run it on a thread (or step it by hand) and take it down.
 * engine.h is what the API calls. */
#ifndef CONCLAVE_COORDINATOR_ENGINE_LOOP_H
#define CONCLAVE_COORDINATOR_ENGINE_LOOP_H

#include "coordinator/engine.h"
#include "coordinator/exchange.h"

/* Everything is borrowed for the engine's life. model, kv and exchange are touched by the engine's thread only. */
typedef struct engine_options {
    model *model;
    model_kv *kv;
    exchange *exchange;
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
    uint64_t step_timeout_ns; /* how long a step waits for an expert without a live owner */
} engine_options;

MOE_NODISCARD moe_status engine_open(const engine_options *options, engine **out, moe_error *err);
/* Runs one token through all layers; the engine is ready afterwards. The caller's thread steps the engine until
 * engine_start. */
MOE_NODISCARD moe_status engine_warm_up(engine *e, moe_error *err);
/* One step: joins, leaves, rows, tokens. False when there was nothing to run. */
bool engine_step(engine *e);
MOE_NODISCARD moe_status engine_start(engine *e, moe_error *err);
/* No new requests (UNAVAILABLE), running ones go on. */
void engine_begin_drain(engine *e);
bool engine_idle(engine *e); /* no request lives */
/* Stops the thread; what still lives is ended with UNAVAILABLE. */
void engine_close(engine *e);

#endif
