/* exchange: the hook where the experts go. Plans which node computes which picked expert, sends each node its rows once, and puts
 * the results where Combine reads them; retries and hedges until every pick has exactly one result.
 *
 * Nouns:
 *   exchange       one coordinator's dispatcher over one transport endpoint
 *   exchange_job   one (layer, micro-batch) of a step
 *
 * Threads: everything belongs to the engine thread, which also makes the transport progress.
 * A step allocates nothing: buffers are sized at open for max_rows * k picks and `micro_batches` jobs in flight. */
#ifndef CONCLAVE_COORDINATOR_EXCHANGE_H
#define CONCLAVE_COORDINATOR_EXCHANGE_H

#include "base/base.h"
#include "compute/compute.h"
#include "router/router.h"
#include "transport/transport.h"

typedef struct exchange exchange;

typedef struct exchange_options {
    transport *transport;       /* borrowed; its handler must be given to exchange_on_message / exchange_on_peer */
    compute_device *device;     /* borrowed: x is downloaded from it, results are uploaded to it */
    const moe_clock *clock;     /* borrowed */
    uint64_t coordinator_id;    /* part of every request id */
    uint32_t n_layers, n_experts_max, k, d_model;
    size_t max_rows;            /* of one job */
    uint32_t micro_batches;     /* jobs in flight, 1 or 2 */
    uint64_t dispatch_timeout_ns; /* wait for a node before trying a replica (and again) */
} exchange_options;

typedef struct exchange_job {
    uint32_t layer, micro_batch;
    size_t n_rows;
    const int32_t *ids;     /* host [n_rows, k] expert ids; borrowed until done; -1: nothing to compute for this pick */
    const compute_mem *x;   /* class dtype [n_rows, d_model]; borrowed until done */
    compute_mem *results;   /* class dtype [n_rows * k, d_model]: pick j of row i goes to i * k + j */
} exchange_job;

MOE_NODISCARD moe_status exchange_open(const exchange_options *options, exchange **out, moe_error *err);
void exchange_close(exchange *x);

/* The placement used from the next exchange_begin on (referenced). */
void exchange_set_placement(exchange *x, router_placement *placement);

/* Plans and sends one job. Afterwards exchange_progress until exchange_state leaves EXCHANGE_RUNNING. */
MOE_NODISCARD moe_status exchange_begin(exchange *x, const exchange_job *job);
typedef enum { EXCHANGE_IDLE, EXCHANGE_RUNNING, EXCHANGE_DONE, EXCHANGE_FAILED } exchange_state_kind;
exchange_state_kind exchange_state(const exchange *x, uint32_t micro_batch);
/* Makes the transport progress and acts on deadlines; returns the number of events handled. Never blocks. */
unsigned exchange_progress(exchange *x);
/* Progress, waiting in three stages, until the job is done, has failed, or deadline_ns (of the clock; 0: none) has passed. After a
 * failure or a timeout the job is dropped: late results are counted and ignored.
 * Errors: MOE_ERR_UNAVAILABLE (an expert has no live owner until the deadline), MOE_ERR_TIMEOUT. */
MOE_NODISCARD moe_status exchange_wait(exchange *x, uint32_t micro_batch, uint64_t deadline_ns, moe_error *err);

typedef struct exchange_stats {
    uint64_t frames_sent, frames_received, bytes_sent, bytes_received;
    uint64_t rows_dispatched, rows_combined; /* (row, expert) pairs; equal when nothing is in flight */
    uint64_t retries, hedges, late_results, bad_frames, refusals;
} exchange_stats;
void exchange_get_stats(const exchange *x, exchange_stats *out);

#endif
