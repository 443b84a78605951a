/* router: which expert, which node. Pure functions on host arrays; no clock, no socket, no device.
 *
 * Nouns:
 *   router_set        the routable experts of every layer: immutable, shared (ref-counted); its id is a content hash
 *   router_gate_rule  how a family turns router logits into picks
 *
 * Ids: `expert_id` is model-wide within a layer (base experts keep the checkpoint's, added ones stand above). A `column` is the
 * expert's place in the layer's router matrix; a set lists the columns it routes to.
 * Threads: everything const is safe from any thread; ref/unref are atomic. */
#ifndef CONCLAVE_ROUTER_H
#define CONCLAVE_ROUTER_H

#include "base/base.h"
#include "compute/compute.h"

#define ROUTER_MAX_TOP_K 64

/* ------------------------------------------------------------------------------------------------ expert sets */
typedef struct router_set router_set;

typedef struct router_set_layer {
    uint32_t n_experts;
    const int32_t *expert_ids; /* [n_experts] ascending */
    const uint32_t *columns;   /* [n_experts] column of each in the router matrix */
} router_set_layer;

/* Makes a set: layers [n_layers] are copied. model_fingerprint (32 bytes) goes into the id, so that the sets of two models differ:
 * id = SHA-256("conclave-set 1" LF, fingerprint hex LF, per layer its ids in decimal, comma-separated, LF).
 * Errors: MOE_ERR_INVALID_ARG when a layer has fewer than min_experts (the family's k), ids that do not ascend, or ids < 0. */
MOE_NODISCARD moe_status router_set_open(const router_set_layer *layers, size_t n_layers, uint32_t min_experts,
                                         const unsigned char model_fingerprint[32], router_set **out, moe_error *err);
/* The base set: expert ids 0 .. n_experts[l] - 1 in columns of the same number. */
MOE_NODISCARD moe_status router_set_open_base(const uint32_t *n_experts, size_t n_layers, uint32_t min_experts,
                                              const unsigned char model_fingerprint[32], router_set **out, moe_error *err);
router_set *router_set_ref(router_set *s);
void router_set_unref(router_set *s); /* NULL is fine */
const char *router_set_id(const router_set *s); /* 64 hex digits */
size_t router_set_n_layers(const router_set *s);
const router_set_layer *router_set_at(const router_set *s, size_t layer);

/* ------------------------------------------------------------------------------------------------ gate */
typedef struct router_gate_rule {
    uint32_t k;       /* experts per token */
    bool renormalize; /* the k weights are divided by their sum (chain in the order best first) */
} router_gate_rule;

/* Picks the experts of one token among those of the set, and weighs them by the family's rule: softmax over the set's logits
 * (experts outside the set are left out before it), the k largest probabilities, ties to the lower id.
 *
 *   logits   in   [n_columns]  f32, one row of the layer's router output
 *   ids      out  [k]          expert ids, ascending: the order in which Combine adds
 *   weights  out  [k]          f32 in [0, 1]; a row sums to 1 only if rule->renormalize
 *   margin   out  optional     gap between the last chosen and the first refused probability; +inf if none was refused
 *   scratch  [2 * layer->n_experts] floats
 *
 * Threads: pure function; the thread has called compute_thread_init.
 * Errors: MOE_ERR_DATA_LOSS when a logit of the set is NaN (the request fails, not a sort order); outputs then untouched.
 * Source: OLMoE (2409.02060) sec. 2; docs/numeric.md "gate". */
MOE_NODISCARD moe_status router_gate_select(const router_gate_rule *rule, const router_set_layer *layer, const float *logits, int32_t *ids,
                                            float *weights, float *margin, float *scratch);

#endif
