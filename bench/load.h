/* load: the requests that a benchmark has under way in an engine that it steps itself. */
#ifndef CONCLAVE_BENCH_LOAD_H
#define CONCLAVE_BENCH_LOAD_H

#include "engine/engine.h"

enum { LOAD_MAX = 128 };

typedef struct load {
    engine *engine; /* borrowed */
    engine_request *requests[LOAD_MAX];
    uint32_t n_tokens[LOAD_MAX]; /* generated so far */
    size_t n_requests;
} load;

/* Samples at temperature 1 until max_tokens are there, whatever they are. At most LOAD_MAX at a time. */
MOE_NODISCARD moe_status load_submit(load *l, const int32_t *prompt, size_t n_prompt, uint32_t max_tokens,
                                     moe_error *err);
/* Takes what the engine has said, so that no ring fills up; after every step. */
MOE_NODISCARD moe_status load_read(load *l, moe_error *err);
/* Whether every request has its first token. */
bool load_all_decode(const load *l);
/* Cancels and releases all. */
void load_end(load *l);

#endif
