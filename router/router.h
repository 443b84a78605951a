/* router: which expert, which node. Pure functions on host arrays; no clock, no socket, no device.
 *
 * Nouns:
 *   router_space      which experts there are, and the dense slot of each: immutable, shared (ref-counted), versioned
 *   router_set        the routable experts of every layer: immutable, shared (ref-counted); its id is a content hash
 *   router_gate_rule  how a family turns router logits into picks
 *   router_use        how much each expert was picked
 *   router_placement  which nodes hold which expert: immutable, shared (ref-counted), versioned by its epoch
 *   router_solve      who should own what: a new placement from the nodes and the one before
 *   router_plan       which node computes which pick of one step and layer, in parts that fit a frame
 *
 * Ids:
 *   expert_id         names an expert within its layer, the same in all members: base experts keep the checkpoint's
 *                     ids, added ones stand above them
 *   column            the expert's place in the layer's router matrix; a set lists the columns it routes to
 *   slot              the expert's place in arrays about all experts of a space: counters, bitmaps, owners
 *
 * Threads: everything const is safe from any thread; ref and unref are atomic. */
#ifndef CONCLAVE_ROUTER_H
#define CONCLAVE_ROUTER_H

#include "base/base.h"
#include "compute/compute.h"

#define ROUTER_MAX_TOP_K   64
#define ROUTER_MAX_NODES   256 /* in one placement */
#define ROUTER_MAX_NODE_ID 63  /* characters */

/* ------------------------------------------------------------------------------------------------ expert space
 * Arrays about experts have one entry per slot of a space, whatever the layers' numbers of experts are. Of a base space
 * slots go up layer by layer, within a layer by id. A later version has all experts of the one before in the same slots,
 * and the added ones after them: what is indexed by slot stays valid when it is lengthened. An id or a slot is never
 * given to another expert. */
typedef struct router_space router_space;

#define ROUTER_NO_SLOT   UINT32_MAX
#define ROUTER_MAX_SLOTS (1u << 22) /* experts of a space: 1024 layers of 4096 */

typedef struct router_expert {
    uint32_t layer;
    int32_t id;
    bool is_local; /* evaluated by the coordinator, on no node: has no owners */
} router_expert;

/* The experts of a layer, ascending by id; in a base space ids are 0 .. n - 1. */
typedef struct router_space_layer {
    uint32_t n_experts;
    const int32_t *ids;    /* [n_experts] ascending */
    const uint32_t *slots; /* [n_experts] */
} router_space_layer;

/* An expert to be added. Its hash says what it is: that of its tensors, as its pack's manifest has it. */
typedef struct router_addition {
    uint32_t layer;
    int32_t id;
    unsigned char hash[32];
} router_addition;

/* Of a checkpoint: in every layer ids 0 .. n_node_experts - 1 for nodes, then n_local_experts for the coordinator.
 * Version 1. Errors: MOE_ERR_INVALID_ARG: no layers, no node's experts, or more than ROUTER_MAX_SLOTS;
 * MOE_ERR_NO_MEMORY. */
MOE_NODISCARD moe_status router_space_open_base(uint32_t n_layers, uint32_t n_node_experts, uint32_t n_local_experts,
                                                router_space **out, moe_error *err);
/* The next version: `before` and the added experts, which are nodes'. An id that the layer has already must be the same
 * expert (equal hash), and is left as it is; a new one must be above all of its layer.
 * Errors: MOE_ERR_INVALID_ARG names the layer and the id; MOE_ERR_EXISTS: the id is another expert's; MOE_ERR_NO_MEMORY. */
MOE_NODISCARD moe_status router_space_grow(const router_space *before, const router_addition *added, size_t n_added,
                                           router_space **out, moe_error *err);
router_space *router_space_ref(router_space *s);
void router_space_unref(router_space *s); /* NULL is fine */
uint32_t router_space_version(const router_space *s);
uint32_t router_space_n_layers(const router_space *s);
uint32_t router_space_n_slots(const router_space *s);
uint32_t router_space_n_node_experts(const router_space *s); /* slots whose expert is not local */
uint32_t router_space_base_experts(const router_space *s); /* of a layer of the checkpoint: those that are not local */
/* The most experts that a layer has. */
uint32_t router_space_widest(const router_space *s);
const router_expert *router_space_expert(const router_space *s, uint32_t slot);
const router_space_layer *router_space_at(const router_space *s, uint32_t layer);
/* Whether it is `before` or a later version of it: it has the same experts in the same slots. */
bool router_space_continues(const router_space *s, const router_space *before);
/* ROUTER_NO_SLOT: there is no such layer or expert. */
uint32_t router_space_slot(const router_space *s, uint32_t layer, int32_t expert_id);
/* Where the expert is in its layer's arrays: [0, n_experts); ROUTER_NO_SLOT: it is not there. */
uint32_t router_space_place(const router_space_layer *layer, int32_t expert_id);
/* [32]; NULL: the expert is the checkpoint's, and known by the model's fingerprint. */
const unsigned char *router_space_hash(const router_space *s, uint32_t slot);

/* Bitmaps over slots: bit s % 64 of word s / 64. */
static inline size_t router_space_words(const router_space *s)
{
    return ((size_t)router_space_n_slots(s) + 63) / 64;
}
static inline bool router_bit(const uint64_t *bitmap, uint32_t slot)
{
    return bitmap[slot / 64] >> (slot % 64) & 1;
}
static inline void router_bit_set(uint64_t *bitmap, uint32_t slot)
{
    bitmap[slot / 64] |= (uint64_t)1 << (slot % 64);
}
static inline void router_bit_clear(uint64_t *bitmap, uint32_t slot)
{
    bitmap[slot / 64] &= ~((uint64_t)1 << (slot % 64));
}

/* Takes the next item of a list of ids as records have it, "0-15,64": decimal, ascending, ids and ranges of ids. It is *first to
 * *last; before the first one *last is -1, then what it was left as. Returns where the next one begins, or the list ends; NULL:
 * the list is malformed. */
const char *router_ids_take(const char *at, int32_t *first, int32_t *last);

/* ------------------------------------------------------------------------------------------------ expert sets */
typedef struct router_set router_set;

typedef struct router_set_layer {
    uint32_t n_experts;
    const int32_t *expert_ids; /* [n_experts] ascending */
    const uint32_t *columns;   /* [n_experts] column of each in the router matrix */
} router_set_layer;

/* Makes a set of experts of a space, which it keeps a reference of; layers [layers of the space] are copied. The id is
 * the SHA-256 of these lines, each ended by LF:
 *   conclave-set 1
 *   the model's fingerprint in hex, so that the sets of two models differ
 *   per layer its expert ids in decimal, separated by commas; an added expert's followed by a colon and its hash in hex,
 *   so that sets with equal ids of different experts differ
 * Errors: MOE_ERR_INVALID_ARG when a layer has fewer than min_experts (the family's k), ids that do not ascend from 0
 * or above, or one that the space has not; MOE_ERR_NO_MEMORY. */
MOE_NODISCARD moe_status router_set_open(router_space *space, const router_set_layer *layers, uint32_t min_experts,
                                         const unsigned char model_fingerprint[32], router_set **out, moe_error *err);
/* All experts of the space, each in the column of its place in its layer: of a base space the checkpoint's own set. */
MOE_NODISCARD moe_status router_set_open_all(router_space *space, uint32_t min_experts,
                                             const unsigned char model_fingerprint[32], router_set **out,
                                             moe_error *err);
router_set *router_set_ref(router_set *s);
void router_set_unref(router_set *s);                /* NULL is fine */
const char *router_set_id(const router_set *s);      /* 64 hex digits */
router_space *router_set_space(const router_set *s); /* borrowed */
size_t router_set_n_layers(const router_set *s);
const router_set_layer *router_set_at(const router_set *s, size_t layer);
bool router_set_layer_has(const router_set_layer *layer, int32_t expert_id);
/* Sets the bits of its experts, by their slots in a version of its space; what that has not is left out. */
void router_set_mark(const router_set *s, const router_space *space, uint64_t *bitmap);
/* Whether a version of the set's space has all of its experts; it may be earlier than the one that the set was made of. */
bool router_set_is_in(const router_set *s, const router_space *space);

/* ------------------------------------------------------------------------------------------------ gate */
typedef struct router_gate_rule {
    uint32_t k;       /* experts per token */
    bool renormalize; /* the k weights are divided by their sum (chain in the order best first) */
    bool standardize; /* logits are first divided by (their standard deviation over the set / target_std) */
    float target_std; /* > 0 with standardize */
    /* true: the k largest logits are chosen and softmax runs over those alone; renormalize and zero_expert have no
     * effect. false: softmax runs over the set, then the k largest are chosen. */
    bool choose_first;
    bool has_zero; /* zero_expert's probability becomes 0 once chosen, before renormalizing */
    int32_t zero_expert;
} router_gate_rule;

/* Picks the experts of one token among those of the set, and weighs them by the family's rule: softmax over the set's
 * logits, the k largest probabilities, ties to the lower id; or as the rule says otherwise. Experts outside the set are
 * left out before anything is computed: of the standard deviation and its count too.
 *
 *   logits   in   [n_columns]  f32, one row of the layer's router output
 *   ids      out  [k]          expert ids, ascending: the order in which Combine adds
 *   weights  out  [k]          f32 in [0, 1]; a row sums to 1 only if rule->renormalize
 *   scratch  [2 * layer->n_experts]  f32, overwritten
 *
 * Threads: pure function; the thread has called compute_thread_init.
 * Errors: MOE_ERR_DATA_LOSS when a logit of the set is NaN, or a weight would be (all logits equal with standardize;
 * nothing left to renormalize): the request fails, not a sort order; ids and weights then mean nothing.
 * Source: OLMoE (2409.02060) sec. 2; ModuleFormer (2306.04640) sec. 3; MoE++ (2410.07348) eq. 6 and the released code;
 * docs/numeric.md "gate". */
MOE_NODISCARD moe_status router_gate_select(const router_gate_rule *rule, const router_set_layer *layer,
                                            const float *logits, int32_t *ids, float *weights, float *scratch);

/* ------------------------------------------------------------------------------------------------ use
 * Counters of a space's experts: always on, so a pick costs some nanoseconds (make bench prints how many).
 *
 * Threads: one counts. The reading functions may run beside it on any other; router_use_fold excludes router_use_read, and
 * close excludes all. */
typedef struct router_use router_use;

/* A rate forgets half of what was so long ago: a change of the traffic shows within a minute, and hundreds of steps make
 * each figure. Chosen, not measured. */
#define ROUTER_USE_HALF_LIFE_S 60.0

/* Rows of a window that ends now: they are noted every MARK_S, and so many of these notes are kept, which is 8 hours. Finer or longer
 * costs memory: a note has 8 bytes for each expert. Chosen, not measured. */
#define ROUTER_USE_MARK_S 300u
#define ROUTER_USE_MARKS  96u

typedef struct router_expert_use {
    uint64_t rows; /* that picked it, since open */
    double mass;   /* the sum of its weights in them */
    double rate;   /* rows per second, lately: decays by ROUTER_USE_HALF_LIFE_S */
} router_expert_use;

/* Keeps a reference of the space. k: picks of a row. Errors: MOE_ERR_NO_MEMORY. */
MOE_NODISCARD moe_status router_use_open(router_space *space, uint32_t k, uint64_t now_ns, router_use **out);
void router_use_close(router_use *u); /* NULL is fine */
/* u, of a later version of the space, goes on with what `before` has counted. Between two counts. */
void router_use_take(router_use *u, const router_use *before);
/* ids and weights [n_rows, k] of a layer, as router_gate_select gives them. */
void router_use_count(router_use *u, uint32_t layer, const int32_t *ids, const float *weights, size_t n_rows);
/* Brings the rates and the notes up to now; does nothing within a second of the last time. */
void router_use_fold(router_use *u, uint64_t now_ns);
/* Of the first n slots of the space. */
void router_use_read(const router_use *u, router_expert_use *out, size_t n);
void router_use_read_rows(const router_use *u, uint64_t *out, size_t n);
/* Rows of the last over_ns, and of at most ROUTER_USE_MARK_S more, of the first n slots; excludes router_use_fold. False: no window is
 * that long; longest_ns is the longest there is now. */
MOE_NODISCARD bool router_use_read_over(const router_use *u, uint64_t now_ns, uint64_t over_ns, uint64_t *out, size_t n,
                                        uint64_t *longest_ns);
/* The first n of [layers, k + 1]: rows by the number of node experts among their picks. */
void router_use_read_node_picks(const router_use *u, uint64_t *out, size_t n);

/* ------------------------------------------------------------------------------------------------ placement */
typedef struct router_placement router_placement;

/* One copy of an expert: `node` is an index into the placement's nodes. A spare copy is used only where no other can
 * be: it is on its way out, or was never meant to serve. */
typedef struct router_replica {
    uint32_t layer;
    int32_t expert_id;
    uint32_t node;
    bool spare;
} router_replica;

/* Makes a placement of a space's experts, which it keeps a reference of; all else is copied. Replicas come in any order;
 * an expert may have none (its rows then wait).
 * Errors: MOE_ERR_INVALID_ARG names the replica or the node: no such layer, expert or node, a local expert, given twice,
 * more than ROUTER_MAX_NODES, an empty or too long node id. */
MOE_NODISCARD moe_status router_placement_open(uint64_t epoch, router_space *space, const char *const *node_ids,
                                               size_t n_nodes, const router_replica *replicas, size_t n_replicas,
                                               router_placement **out, moe_error *err);
/* One node holds every expert that is not local: the embedded default. */
MOE_NODISCARD moe_status router_placement_open_single(uint64_t epoch, router_space *space, const char *node_id,
                                                      router_placement **out, moe_error *err);
router_placement *router_placement_ref(router_placement *p);
void router_placement_unref(router_placement *p); /* NULL is fine */
uint64_t router_placement_epoch(const router_placement *p);
router_space *router_placement_space(const router_placement *p); /* borrowed */
size_t router_placement_n_nodes(const router_placement *p);
const char *router_placement_node_id(const router_placement *p, size_t node);
/* The nodes that hold an expert, *n_out of them: ascending, those with spare copies after all others. None of an expert
 * that the space has not. */
const uint32_t *router_placement_replicas(const router_placement *p, uint32_t layer, int32_t expert_id, size_t *n_out);
/* The same by slot of its space, or of another version of it. */
const uint32_t *router_placement_owners(const router_placement *p, uint32_t slot, size_t *n_out);
/* How many of them are not spare. */
size_t router_placement_n_preferred(const router_placement *p, uint32_t slot);

/* Some of a placement's nodes. */
typedef struct router_nodes {
    uint64_t bits[ROUTER_MAX_NODES / 64];
} router_nodes;
static inline bool router_nodes_has(const router_nodes *s, uint32_t node)
{
    return router_bit(s->bits, node);
}
static inline void router_nodes_add(router_nodes *s, uint32_t node)
{
    router_bit_set(s->bits, node);
}

/* ------------------------------------------------------------------------------------------------ solver */
typedef struct router_solver_node {
    const char *id;
    const char *zone;      /* NULL or "": none; replicas of one expert go to different zones where that is possible */
    uint64_t memory_bytes; /* what experts may take; 0: no bound */
    uint64_t expert_bytes; /* what one expert takes there; 0 only without a bound */
} router_solver_node;

typedef struct router_solver_input {
    const router_solver_node *nodes;  /* [n_nodes] */
    size_t n_nodes;                   /* 1 .. ROUTER_MAX_NODES */
    router_space *space;              /* its experts are placed, but for local ones */
    const uint64_t *wanted;           /* by slot: only these are; NULL: all */
    uint32_t replication;             /* owners wanted per expert, >= 1; more than there are nodes: one on each */
    const router_placement *previous; /* NULL: none. What need not move stays */
    /* What has an owner left among the nodes stays as it is; only the other experts are given owners: those that they have
     * without this flag. So a second solve, without it, moves them no more. */
    bool only_lost;
    uint64_t epoch;
} router_solver_input;

/* Decides who should own what: every expert on min(replication, n_nodes) distinct nodes. Where memory does not suffice for
 * that, as many experts as fit keep a copy more than the others, of each layer in proportion to its experts; a place on each node
 * may stay free for moves. Each layer is spread in proportion to the nodes' memory, to within one expert, as far as bounds
 * and distinctness allow; a node without a bound counts as the largest. Equal input gives an equal placement, and solving
 * again with the result as `previous` moves nothing.
 *
 * Threads: pure function.
 * Errors:  MOE_ERR_BUSY when not even one copy of each fits: says how many that are, and how many each node has room for;
 *          MOE_ERR_INVALID_ARG names what is out of range; MOE_ERR_NO_MEMORY. */
MOE_NODISCARD moe_status router_solve(const router_solver_input *input, router_placement **out, moe_error *err);

/* ------------------------------------------------------------------------------------------------ plan
 * A pick is (row i, choice j), numbered i * k + j. ids [n_rows, k] holds each pick's expert, and the pick's number is
 * also the row of its result. A plan assigns each pick that is asked for to one usable replica, a spare one only where
 * there is no other, so as to even out the step: it counts the distinct experts that a node must read as well as its
 * rows, times the node's burden. An expert with many rows may be split over its replicas. Equal input gives an equal
 * plan.
 *
 *     router_plan_build(plan, &input);                       assigns
 *     while (router_plan_next(plan, &part)) { ... }          one frame's worth after the other
 *
 * All memory is taken at open. One thread at a time. */
typedef struct router_plan router_plan;

#define ROUTER_BURDEN_ONE 8

/* One frame's worth for one node. Arrays are the plan's, valid until the next router_plan_next or _build. */
typedef struct router_plan_group {
    int32_t expert_id;
    uint32_t n_picks;
} router_plan_group;

typedef struct router_plan_part {
    uint32_t node; /* index into the placement's nodes */
    uint32_t n_rows, n_groups, n_picks;
    uint32_t cost;                   /* in the plan's units: its picks, and what reading its experts costs */
    const uint32_t *rows;            /* [n_rows] unique rows of the step, ascending */
    const router_plan_group *groups; /* [n_groups] ascending expert id; their picks follow each other below */
    const uint32_t *pick_rows;       /* [n_picks] index into rows, ascending within a group */
    const uint32_t *picks;           /* [n_picks] the pick's number: where its result goes */
} router_plan_part;

typedef struct router_plan_input {
    const router_placement *placement;
    uint32_t layer;
    const int32_t *ids; /* [n_rows, k] expert ids; -1: nothing to compute */
    size_t n_rows;
    const uint8_t *skip; /* [n_rows * k] picks with a value other than 0 are left out; NULL: none */
    const bool *usable;  /* [nodes of the placement] */
    const uint32_t
        *burden; /* [nodes of the placement] how many times as long as the fastest a node takes for the same work,
                             * in units of 1 / ROUTER_BURDEN_ONE; NULL: all take the same */
    size_t max_part_rows;  /* >= 1: unique rows in one part */
    size_t max_part_picks; /* >= k */
} router_plan_input;

/* widest: of the spaces whose placements are planned with (router_space_widest). */
MOE_NODISCARD moe_status router_plan_open(size_t max_rows, uint32_t k, uint32_t widest, router_plan **out);
void router_plan_close(router_plan *plan);
/* Assigns. Returns the number of picks that no usable node can compute; those are in no part. A pick of an expert that the
 * placement's space has not is one of them. */
size_t router_plan_build(router_plan *plan, const router_plan_input *input);
/* Hands out the next part: nodes ascend, and rows ascend within a node. A row's picks at one node stay in one part.
 * False when there is no more. */
MOE_NODISCARD bool router_plan_next(router_plan *plan, router_plan_part *part);

#endif
