/* expert_node: a shard of experts behind a transport endpoint, as a library, so that the coordinator can embed it.
 * Stateless: an answer is a function of (layer, expert, rows); a dispatch computed twice gives equal results.
 *
 * Nouns:
 *   expert_node         one member with its experts, its peers and the dispatches that wait
 *   expert_source       where experts come from: a checkpoint, or a test's random weights
 *   expert_node_growth  what is sized by the expert space, made for a later version of it
 *   batch               the dispatches taken so far; all are run at once, the rows of one expert together for all
 *                       who asked
 *   peer                a connection: a coordinator once it has greeted, before that a stranger; or a reader of packs
 *
 * Fairness: a turn reads a bounded number of bytes from each connection (transport.h), and what all sent is computed
 *          together. Every peer can have some frames under way whatever the others do: one that does not read is no
 *          longer answered, its further dispatches are refused, and nobody else notices. Readers get at most one piece of
 *          64 KiB in a turn, all together, after what was computed in it.
 * Threads: everything belongs to the thread that calls expert_node_progress (it has called compute_thread_init).
 * After open and load nothing is allocated, but for growth, which is made on any thread. */
#ifndef CONCLAVE_EXPERT_NODE_H
#define CONCLAVE_EXPERT_NODE_H

#include "base/base.h"
#include "compute/compute.h"
#include "model/model.h"
#include "transport/transport.h"

typedef struct expert_node expert_node;

typedef struct expert_source {
    void *ctx;
    /* Makes one expert on a device of the node's kind and class; who gets it closes it with expert_close. */
    MOE_NODISCARD moe_status (*open)(void *ctx, uint32_t layer, int32_t expert_id, compute_expert **out,
                                     moe_error *err);
} expert_source;

/* Experts of a checkpoint, and those that packs add. c and what it points to are borrowed as long as the source is used. */
typedef struct expert_checkpoint {
    const model_config *config;
    const model_tensors *tensors;
    compute_device *device; /* that makes them, on the thread that calls open */
    compute_layout layout;
    const checkpoint_manifest *manifest; /* every expert's tensors must have its digests; NULL: not checked */
    /* Called whenever piece_bytes (0: 4 MiB) of an expert have been read and checked, with how many it were. False: open
     * gives up with MOE_ERR_CANCELLED. Packing comes after, from memory, and is not interrupted. NULL: none. */
    bool (*more)(void *ctx, size_t bytes);
    void *more_ctx;
    size_t piece_bytes;
    /* The tensors of an expert that is a pack's; *out is empty, and stays so for others. Their bytes were checked when the pack was
     * opened (pack_open), and are not again. With COMPUTE_MAPPED they stay as long as the expert. NULL: there are no packs. */
    moe_status (*find)(void *ctx, uint32_t layer, int32_t expert_id, model_expert_parts *out, moe_error *err);
    void *find_ctx;
} expert_checkpoint;
/* Errors of its open: find's; MOE_ERR_NOT_FOUND: an id that the model has not, and no pack; MOE_ERR_CANCELLED (more);
 * MOE_ERR_CORRUPT: not the manifest's bytes; those of model_expert_open. */
expert_source expert_source_checkpoint(expert_checkpoint *c);

/* Packs that the node reads to others (docs/wire.md, FETCH). */
typedef enum { EXPERT_PACK_NONE, EXPERT_PACK_LATER, EXPERT_PACK_HERE } expert_pack_answer;
typedef struct expert_packs {
    void *ctx;
    /* Up to length bytes of a part of the pack with that hash, from offset on: *bytes_out (borrowed until the next turn; not
     * written if offset is not below the size) and the size of the part. LATER: they are being read from a disk; ask again in
     * a later turn. NONE: there is no such pack or part. Never waits. NULL: there are no packs. */
    expert_pack_answer (*read)(void *ctx, const unsigned char hash[32], uint32_t part, uint64_t offset, size_t length,
                               const unsigned char **bytes_out, uint64_t *size_out);
} expert_packs;

typedef struct expert_node_options {
    const char *id, *cluster; /* names: 1..63 of A-Z a-z 0-9 . - _ */
    unsigned char fingerprint[32];
    uint64_t incarnation;   /* drawn at each start */
    transport *transport;   /* borrowed; open sets its handler, and it is closed before the node */
    compute_device *device; /* borrowed; its numeric class is the node's */
    expert_source source;   /* of expert_node_load; may be empty where that is not called */
    expert_packs packs;     /* may be empty */
    router_space *space;    /* shared: a reference is kept. What there is to be held */
    uint32_t d_model;
    size_t memory_bytes;              /* bound on the experts loaded; 0: none */
    size_t expert_bytes;              /* what one of them takes */
    uint32_t max_rows, max_picks;     /* of one dispatch: unique rows, (row, expert) pairs */
    uint32_t batch_rows, batch_picks; /* of one batch: at least the two above; 0: equal to them */
    uint32_t batch_frames;            /* dispatches in one batch; 0: 16 */
    size_t max_ffn_rows;              /* compute_device_options.max_ffn_rows: a larger batch is split */
    uint32_t max_peers;               /* coordinators connected at a time; 0: 64 */
    /* The cluster secret: only coordinators that prove it are served. n_secret 0: there is none. A derived key is kept,
     * not the secret. */
    const void *secret;
    size_t n_secret;
    /* Borrowed. A peer that has not greeted (and proved the secret) 2 s after connecting is disconnected. NULL: no
     * limit. */
    const moe_clock *clock;
} expert_node_options;

/* Errors: MOE_ERR_INVALID_ARG names the option; MOE_ERR_NO_MEMORY. */
MOE_NODISCARD moe_status expert_node_open(const expert_node_options *options, expert_node **out, moe_error *err);
void expert_node_close(expert_node *node); /* after its transport */

/* Loads one expert on this thread, which does nothing else meanwhile: for a node that does not serve yet. Errors: those of
 * begin and finish, or the source's. */
MOE_NODISCARD moe_status expert_node_load(expert_node *node, uint32_t layer, int32_t expert_id, moe_error *err);
/* The same in parts, for an expert that another thread makes: begin takes the memory, then finish puts the expert in its
 * place, or abandon gives the memory back. finish owns the expert from then on, also when it fails.
 * Errors of begin: MOE_ERR_EXISTS (loaded or begun already), MOE_ERR_BUSY (names the memory bound), MOE_ERR_INVALID_ARG
 * (no such layer or expert). Errors of finish: the device's expert_adopt. */
MOE_NODISCARD moe_status expert_node_load_begin(expert_node *node, uint32_t layer, int32_t expert_id, moe_error *err);
MOE_NODISCARD moe_status expert_node_load_finish(expert_node *node, uint32_t layer, int32_t expert_id,
                                                 compute_expert *expert, moe_error *err);
void expert_node_load_abandon(expert_node *node, uint32_t layer, int32_t expert_id);
/* Drops one expert. Dispatches taken before are answered first. Not held: nothing happens. */
void expert_node_drop(expert_node *node, uint32_t layer, int32_t expert_id);
/* The same without closing it: whoever takes the expert closes it, on any thread. NULL: it is not held. */
compute_expert *expert_node_take(expert_node *node, uint32_t layer, int32_t expert_id);
bool expert_node_holds(const expert_node *node, uint32_t layer, int32_t expert_id);

/* The space grows by experts that are not held yet. Made beforehand, on any thread, one at a time; taken by the node's, without
 * allocating. Afterwards the growth has what was there before, to be closed. A coordinator that knows the space before is told
 * of experts that it passes over, one that knows a later one asks for some that are refused as not held.
 * Errors: MOE_ERR_INVALID_ARG: not a later version of the node's space; MOE_ERR_NO_MEMORY. */
typedef struct expert_node_growth expert_node_growth;
MOE_NODISCARD moe_status expert_node_growth_open(const expert_node *node, router_space *space, expert_node_growth **out,
                                                 moe_error *err);
void expert_node_growth_close(expert_node_growth *g); /* NULL is fine */
void expert_node_grow(expert_node *node, expert_node_growth *g);
router_space *
expert_node_space(const expert_node *node); /* borrowed; as the node's thread or whoever makes it grow sees it */

/* Makes the transport progress and runs the dispatches that have arrived. Returns the number of events handled. Never
 * waits for another member. */
unsigned expert_node_progress(expert_node *node);
/* The lowest epoch that a connected coordinator applies, as it has told on its connection: 0 while one of them has not,
 * UINT64_MAX when none is connected. An expert that is in no placement since then gets no rows from them any more. */
uint64_t expert_node_epoch_applied(const expert_node *node);
/* The same without those coordinators of which more is known. */
uint64_t expert_node_epoch_of_others(const expert_node *node,
                                     bool (*is_left_out)(void *ctx, const char *id, uint64_t incarnation), void *ctx);
/* Tells every coordinator to send nothing new; what comes is still answered. */
void expert_node_drain(expert_node *node);

typedef struct expert_node_stats {
    uint64_t frames, rows, picks; /* dispatches answered, with their unique rows and (row, expert) pairs */
    uint64_t batches;             /* grouped FFN runs; frames / batches is what was merged */
    uint64_t refusals, bad_frames;
    uint64_t loads, load_failures; /* experts */
    uint64_t auth_failures;        /* coordinators that did not prove the secret */
    uint64_t hellos;               /* coordinators whose HELLO (and proof) was accepted, since the start */
    size_t coordinators;           /* of them connected now */
    uint64_t epoch_applied;        /* expert_node_epoch_applied */
    uint64_t silent;               /* connections closed because they did not greet in time, or said nothing for long */
    uint64_t unsent;               /* small frames not sent because the peer does not take those before */
    uint64_t pieces, piece_bytes;  /* of packs, read to others */
    size_t readers;                /* of them connected now */
    size_t experts, memory_bytes;  /* loaded now; memory also of those that are begun */
    size_t frames_out;             /* send buffers in use now */
} expert_node_stats;
void expert_node_get_stats(const expert_node *node, expert_node_stats *out);
/* (row, expert) pairs computed by one expert since it was loaded. */
uint64_t expert_node_expert_rows(const expert_node *node, uint32_t layer, int32_t expert_id);

#endif
