/* New experts for a model, in memory: what a pack brings, without files. Equal options, equal values. */
#ifndef CONCLAVE_TESTS_RANDOM_PACK_H
#define CONCLAVE_TESTS_RANDOM_PACK_H

#include "model/model.h"

typedef struct random_pack_options {
    const uint32_t *n_experts; /* [n_layers of the model] 0: none in that layer */
    /* [n_layers] attention experts, where n_experts is not 0 and the model has some; not with replaces. NULL: none */
    const uint32_t *n_attention;
    bool replaces; /* the experts 0, 1, ... of the checkpoint, whose router rows they take over */
    bool bf16;     /* all tensors; else f32 */
    uint64_t seed;
} random_pack_options;

typedef struct random_pack {
    model_gate_pack gates;            /* points into parts */
    model_gate_part *parts;           /* owned; those layers that have experts */
    model_expert_parts *experts;      /* owned [experts of all layers] in the order of parts */
    model_attention_parts *attention; /* owned, in that order too */
    checkpoint_tensor *tensors;       /* owned [n_tensors] */
    size_t n_tensors;
    uint64_t seed;
} random_pack;

void random_pack_open(random_pack *p, const model_config *c, const random_pack_options *o);
void random_pack_close(random_pack *p);
/* Gives its experts ids above all of the space; the next version of it. A second time: the same ids, if they are free. */
router_space *random_pack_join(random_pack *p, router_space *before);
/* NULL: the expert is not of this pack. */
const model_expert_parts *random_pack_find(const random_pack *p, uint32_t layer, int32_t expert_id);

#endif
