/* scheduler: which tokens run in the next step.
 *
 * Requests are walked in order of arrival: running choices get their next rows (one for decode, a chunk for prefill),
 * waiting ones are admitted while there are slots and pages. When no page is free for a choice, the youngest running
 * choice is put back: it gives up its pages and is recomputed later. The oldest request can always go on, because
 * admission refuses what the cache cannot hold.
 *
 * A request in the background is younger than all others, and has a step to itself where they have no row: a small one, as
 * who arrives meanwhile waits for it.
 *
 * Pure of time and threads; belongs to the engine thread. */
#ifndef CONCLAVE_ENGINE_SCHEDULER_PRIV_H
#define CONCLAVE_ENGINE_SCHEDULER_PRIV_H

#include "engine/request_priv.h"

typedef struct scheduler_limits {
    uint32_t max_batch_tokens, prefill_chunk, max_running, max_logit_rows;
} scheduler_limits;

/* Rows [first_row, first_row + n_rows) of a step: consecutive tokens of one choice. Its rows that want logits are
 * [first_logit, first_logit + n_logits) among the step's. */
typedef struct step_work {
    choice *choice;
    uint32_t first_row, n_rows, first_logit, n_logits;
} step_work;

typedef struct step {
    model_row *rows; /* owned [max_batch_tokens] */
    step_work *work; /* owned [max_batch_tokens] */
    uint32_t n_rows, n_work, n_logits;
    uint32_t n_running;   /* choices that hold pages after planning, but for one in the background */
    uint32_t n_preempted; /* choices put back by this plan */
} step;

MOE_NODISCARD moe_status step_init(step *s, const scheduler_limits *limits);
void step_fini(step *s);

/* What there is to plan: requests linked by ->newer, and one in the background or NULL. */
typedef struct scheduler_queue {
    engine_request *oldest, *newest, *background;
} scheduler_queue;

/* Plans one step. admit(ctx, choice) is called when a waiting choice starts or starts again, after its cached prefix was
 * adopted. */
void scheduler_plan(const scheduler_limits *limits, model_kv *kv, const scheduler_queue *queue,
                    void (*admit)(void *ctx, choice *c), void *ctx, step *out);

#endif
