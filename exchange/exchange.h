/* exchange: the hook where the experts go. Plans which node computes which picked expert, sends each node its rows
 * once, and puts the results where Combine reads them; retries and hedges until every pick has exactly one result.
 *
 * Nouns:
 *   exchange         one coordinator's dispatcher over one transport endpoint
 *   exchange_job     one (layer, micro-batch) of a step
 *   pick             (row i, choice j) of a job, numbered i * k + j
 *   exchange_growth  what is sized by the expert space, made for a later version of it
 *   attempt          one DISPATCH under way: some picks, sent to one node on one connection
 *
 * A pick is in one of three states:
 *   waiting        it is planned at the next turn
 *   sent           exactly one open attempt answers for it
 *   done           its result is in place
 *
 * An attempt ends without a result when its node dies, refuses, or lets the deadline pass. Its picks then wait again
 * and are planned anew: over the nodes that are left, or over the same one when there is no other. One that takes several
 * times as long as its node usually does is hedged: those of its picks that others can compute are sent to them as well.
 * A late attempt may still answer. The first result wins; both are equal. Slow nodes are given less (speed.c), and one that
 * computes nothing at all counts as if it were not there (mute.c).
 *
 * Nothing here blocks but exchange_pause.
 *
 * Threads: everything belongs to the engine thread, which also makes the transport progress; exchange_turned_ns and
 *          exchange_get_coverage may be called from any.
 * Memory:  a step allocates nothing. Buffers are sized at open for max_rows * k picks and micro_batches jobs. */
#ifndef CONCLAVE_EXCHANGE_H
#define CONCLAVE_EXCHANGE_H

#include "base/base.h"
#include "compute/compute.h"
#include "router/router.h"
#include "transport/transport.h"

typedef struct exchange exchange;

typedef struct exchange_options {
    transport *transport;    /* borrowed; open sets its handler, and it is closed before the exchange */
    compute_device *device;  /* borrowed: x is downloaded from it, results are uploaded to it */
    const moe_clock *clock;  /* borrowed */
    uint64_t coordinator_id; /* part of every request id */
    router_space *space;     /* shared: a reference is kept. Placements are of it, or of a later version */
    uint32_t k, d_model;
    size_t max_rows;              /* of one job */
    uint32_t micro_batches;       /* jobs in flight, 1 or 2 */
    uint64_t dispatch_timeout_ns; /* wait for a node at most before trying a replica (and again) */

    /* What HELLO says. Nodes whose cluster, fingerprint, numeric class or width differ are not used. */
    const char *id, *cluster; /* names: 1..63 of A-Z a-z 0-9 . - _; copied */
    unsigned char fingerprint[32];
    uint64_t incarnation; /* drawn at each start */
    /* Unique rows in one dispatch. 0: max_rows, or as many as the transport's max_message takes. */
    size_t max_frame_rows;
    /* The cluster secret: only nodes that prove it are used. n_secret 0: there is none, and a node's proof is not
     * looked at. A derived key is kept, not the secret. */
    const void *secret;
    size_t n_secret;
    /* How often a node is asked for a sign of life; after 8 without one it counts as lost, after 32 while it has
     * rows of ours. 0: never. */
    uint64_t heartbeat_ns;
    /* Called at the end of every transport progress, also while a job waits: may add and remove nodes and set the
     * placement. NULL: none. */
    void (*poll)(void *ctx);
    void *poll_ctx;
    moe_threads *threads; /* borrowed; they rest in exchange_pause, as nodes may share the cores; NULL: none */
} exchange_options;

typedef struct exchange_job {
    uint32_t layer, micro_batch;
    size_t n_rows;
    const int32_t *ids;   /* host [n_rows, k] expert ids; borrowed until done; -1: nothing to compute for this pick */
    const compute_mem *x; /* class dtype [n_rows, d_model]; borrowed until done */
    compute_mem *results; /* class dtype [n_rows * k, d_model]: pick j of row i goes to i * k + j */
} exchange_job;

/* Errors: MOE_ERR_INVALID_ARG names the option, MOE_ERR_NO_MEMORY. */
MOE_NODISCARD moe_status exchange_open(const exchange_options *options, exchange **out, moe_error *err);
void exchange_close(exchange *x); /* after its transport */

/* What the transport calls. open has set them as its handler. A caller that puts a handler of its own in their place
 * passes events on with x as ctx. */
void exchange_on_message(void *x, transport_peer peer, const unsigned char *bytes, size_t n);
void exchange_on_peer(void *x, transport_peer peer, transport_peer_event event, const char *why);

/* A node to be connected to, and connected to again whenever the connection is lost. At most ROUTER_MAX_NODES. One that
 * was started anew is not used: what it holds is not what was known of this incarnation (0: any will do).
 * Errors: MOE_ERR_EXISTS (id), MOE_ERR_BUSY (too many), MOE_ERR_INVALID_ARG (id or address too long). */
MOE_NODISCARD moe_status exchange_add_node(exchange *x, const char *id, const char *address, uint64_t incarnation,
                                           moe_error *err);
void exchange_remove_node(exchange *x, const char *id);
bool exchange_node_ready(const exchange *x, const char *id); /* connected, and its HELLO is accepted */

typedef enum {
    EXCHANGE_NODE_DOWN,
    EXCHANGE_NODE_CONNECTING,
    EXCHANGE_NODE_READY,
    EXCHANGE_NODE_DRAINING
} exchange_node_kind;

typedef struct exchange_node_info {
    exchange_node_kind kind;
    uint64_t incarnation;  /* of its last HELLO that was accepted; 0: none yet */
    bool is_another;       /* another incarnation answers at its address: what is known of the node is out of date */
    bool is_refused;       /* not connected: nobody listens at its address */
    bool is_missed;        /* not connected: its connection was lost a while ago, and no other could be made since */
    bool is_mute;          /* it is connected, but has computed nothing, or refused all, for too long (mute.c) */
    bool is_untold;        /* it is connected, but has not told for 10 s what it holds (holds.c) */
    char why[96];          /* why it last failed, or is given nothing; "" while nothing has */
    uint64_t rows, frames; /* answered since it was added: unique rows, results */
    double busy_seconds;   /* from dispatch to result, summed over those frames */
    uint32_t queued_rows;  /* of all coordinators, at the node when it last answered */
    uint64_t hedges;       /* dispatches that were late, so that others were asked as well */
    const char *carrier;   /* what carries its frames (transport_carrier); NULL: not connected */
    double slowness;       /* how many times as long as others it takes for the same work; 1: it is not slow */
    uint64_t told; /* another number whenever it has told something of what it holds; 0: see exchange_node_holds */
} exchange_node_info;
/* False: no such node was added. */
bool exchange_get_node(const exchange *x, const char *id, exchange_node_info *out);

/* What the node has told on its connection that it holds and has verified: a bitmap over the space's slots.
 * NULL: it is not connected, or has not told all of it yet. Valid until the next exchange_progress. */
const uint64_t *exchange_node_holds(const exchange *x, const char *id);
/* Whether one of those has changed since this was last called; 20 ms lie between two changes at least. */
bool exchange_holds_changed(exchange *x);

/* The placement (referenced) used from now on, also for what is sent again. Its nodes are matched by id; those that
 * were not added are not used. */
void exchange_set_placement(exchange *x, router_placement *placement);
/* From now on no row is in need of a copy outside the placement of this epoch: all nodes are told at the next progress,
 * and any that is met later. Until a node hears of it, it keeps what it holds for older placements. */
void exchange_set_applied(exchange *x, uint64_t epoch);

/* The space grows: everything that is sized by it is made beforehand, on any thread, and taken by the engine's when no job runs.
 * Afterwards the growth has what was there before, to be closed. Nodes are asked for all that they hold once more; what
 * they have told of the experts before goes on to count.
 * Errors: MOE_ERR_NO_MEMORY. */
typedef struct exchange_growth exchange_growth;
MOE_NODISCARD moe_status exchange_growth_open(const exchange *x, router_space *space, exchange_growth **out,
                                              moe_error *err);
void exchange_growth_close(exchange_growth *g); /* NULL is fine */
void exchange_grow(exchange *x, exchange_growth *g);
router_space *exchange_get_space(const exchange *x); /* borrowed: the bitmaps are over its slots */

/* Plans and sends one job. Afterwards exchange_progress until exchange_collect has it.
 * Errors: of the device, when x cannot be downloaded; the job is then EXCHANGE_IDLE. */
MOE_NODISCARD moe_status exchange_begin(exchange *x, const exchange_job *job);
typedef enum { EXCHANGE_IDLE, EXCHANGE_RUNNING, EXCHANGE_DONE, EXCHANGE_FAILED } exchange_state_kind;
exchange_state_kind exchange_state(const exchange *x, uint32_t micro_batch);
/* Makes the transport progress and acts on deadlines; returns the number of events handled. Never blocks. */
unsigned exchange_progress(exchange *x);
/* MOE_OK: all results of the job are in place. MOE_ERR_BUSY: some are awaited. Others are the device's: the job is over. */
MOE_NODISCARD moe_status exchange_collect(exchange *x, uint32_t micro_batch, moe_error *err);
/* Ends the job where it stands, if one runs: results that still come are counted as late and ignored. */
void exchange_drop(exchange *x, uint32_t micro_batch);

/* A pick without a node that takes it keeps its job waiting. Since when, on the clock, one of this job's has been without
 * one while no result of the job came; 0: all are under way. */
uint64_t exchange_stuck_since(const exchange *x, uint32_t micro_batch);
typedef struct exchange_stuck {
    uint32_t layer;
    int32_t expert_id;
} exchange_stuck;
/* Whether a pick of this row of the job waits for a node; the first such pick's expert. */
bool exchange_row_is_stuck(const exchange *x, uint32_t micro_batch, size_t row, exchange_stuck *out);
/* Whether some node takes rows for this expert now. */
bool exchange_has_taker(const exchange *x, const exchange_stuck *of);

/* Waits, in three stages, for what exchange_progress would act on, or until until_ns of the clock, which must be one that
 * runs. Returns at once while something has happened a moment ago. */
void exchange_pause(exchange *x, uint64_t until_ns);
/* When, on the clock, exchange_progress last ran. 0: never. Any thread. */
uint64_t exchange_turned_ns(const exchange *x);

/* ------------------------------------------------------------------------------------------------ coverage
 * Whether every expert that is needed has a live owner: a replica of the placement on a node that is connected, greeted, computes and is not
 * draining. Connections break and come back, and a step waits for that: only a gap of EXCHANGE_GAP_NS counts. */
#define EXCHANGE_GAP_NS UINT64_C(1000000000)
#define EXCHANGE_NAMED  3 /* experts named to a person */

typedef struct exchange_coverage {
    bool placed;       /* a placement is known */
    bool whole;        /* every needed expert has a live owner */
    uint64_t since_ns; /* of the clock: when whole last changed; at first when the exchange was opened */
    uint64_t n_gaps;   /* gaps of EXCHANGE_GAP_NS or longer that are over */
    size_t n_missing;  /* experts without a live owner */
    router_expert missing[EXCHANGE_NAMED]; /* the first of them */
} exchange_coverage;

/* The experts of this set (referenced) are those that are needed from now on. Until the first call: all of the space. */
void exchange_set_needed(exchange *x, router_set *set);
/* As it was at the end of the last exchange_progress. Any thread. */
void exchange_get_coverage(exchange *x, exchange_coverage *out);
/* MOE_OK, or MOE_ERR_UNAVAILABLE and which experts are missing. */
moe_status exchange_coverage_check(const exchange_coverage *c, moe_error *err);

typedef struct exchange_stats {
    uint64_t frames_sent, frames_received, bytes_sent, bytes_received; /* dispatches and results */
    /* (row, expert) pairs; the two are equal when nothing is in flight and no job was dropped. */
    uint64_t rows_dispatched, rows_combined;
    uint64_t retries;       /* attempts lost with their node's connection */
    uint64_t hedges;        /* attempts that were late: their picks went elsewhere as well */
    uint64_t late_results;  /* results and refusals that no attempt waited for */
    uint64_t bad_frames;    /* frames that cost a connection */
    uint64_t refusals;      /* REFUSE frames */
    uint64_t auth_failures; /* nodes that did not prove the secret */
} exchange_stats;
void exchange_get_stats(const exchange *x, exchange_stats *out);
/* Now: send buffers in use, attempts that may still answer. Both 0 when nothing is under way. */
void exchange_get_held(const exchange *x, size_t *frames_out, size_t *attempts_out);

#endif
