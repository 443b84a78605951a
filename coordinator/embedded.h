/* embedded: one expert node in the coordinator's process, behind the loopback transport, and the placement that gives
 * it everything that it holds. Frames are encoded and decoded as on a network.
 *
 * Threads: opened by main, then the engine thread's; the view's numbers are read from any thread. embedded_change is called by
 *          one thread at a time, which has called compute_thread_init. */
#ifndef CONCLAVE_COORDINATOR_EMBEDDED_H
#define CONCLAVE_COORDINATOR_EMBEDDED_H

#include "api/api.h"
#include "engine/engine.h"
#include "exchange/exchange.h"
#include "model/model.h"

typedef struct embedded embedded;

typedef struct embedded_options {
    const model_config *config; /* borrowed, as all here */
    router_space *space;        /* its experts for nodes are all loaded */
    const model_tensors *tensors;
    compute_device *device; /* shared with the coordinator's part: both run on the engine thread */
    compute_layout layout;
    const unsigned char *fingerprint; /* [32] of the model's manifest */
    size_t max_rows;                  /* of one step */
    uint32_t micro_batches;
    checkpoint_progress progress; /* loading experts; may be NULL */
    void *progress_ctx;
    /* For embedded_change; may be NULL where that is not called. The maker is a device of the same kind and class, which
     * makes gates and experts while the other one computes. */
    model *model;
    compute_device *maker;
} embedded_options;

MOE_NODISCARD moe_status embedded_open(const embedded_options *options, embedded **out, moe_error *err);
void embedded_close(embedded *e); /* NULL is fine */
exchange *embedded_exchange(embedded *e);
/* Shows the node to the API: one node that holds every expert. address (copied): the coordinator's gRPC address, once
 * it is known. */
const api_view *embedded_view(embedded *e);
void embedded_set_address(embedded *e, const char *address);

/* ------------------------------------------------------------------------------------------------ changes
 * All is made on the caller's thread; the engine takes it at once between two steps, or nothing: then everything is as it was,
 * but for the node, which may know the space already. Undone by a change back: the space stays, as ids are for good. */
typedef struct embedded_changes {
    router_space *space; /* from then on: the engine's, or a later version of it */
    /* What packs bring for the gates: of all whose experts may be in a set, in any order; of others there are zeros. Looked at only
     * when the space is a later version. */
    const model_gate_pack *packs;
    size_t n_packs;
    /* As expert_checkpoint.find: what it gives stays while the expert is held. */
    moe_status (*find)(void *ctx, uint32_t layer, int32_t expert_id, model_expert_parts *out, moe_error *err);
    void *find_ctx;
    /* Experts that are held from then on, by slot of the space: those that are not yet are made, others are unloaded. Those that
     * the current set or a live request needs stay in any case. NULL: all of the space. */
    const uint64_t *wanted;
    router_set *set;              /* the current set from then on; NULL: it stays */
    checkpoint_progress progress; /* bytes of experts made; may be NULL */
    void *progress_ctx;
    bool (*goes_on)(void *ctx); /* asked before each expert is made; false: it is given up. NULL: it goes on */
    void *goes_on_ctx;
} embedded_changes;

/* Returns when it is taken; the placement's epoch is one more then. Requests go on meanwhile.
 * Errors: those of engine_change, model_gates_open and of making experts; MOE_ERR_NOT_FOUND: an expert has no tensors;
 * MOE_ERR_BUSY: more memory than is free; MOE_ERR_CANCELLED: goes_on. Then nothing has changed. */
MOE_NODISCARD moe_status embedded_change(embedded *e, engine *of, const embedded_changes *changes, moe_error *err);
/* Whether an expert is held: for the thread that makes changes. */
bool embedded_holds(const embedded *e, uint32_t layer, int32_t expert_id);

#endif
