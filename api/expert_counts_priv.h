/* expert_counts: what the experts were picked for since start, taken once for a reply or a page. Any thread. */
#ifndef CONCLAVE_API_EXPERT_COUNTS_PRIV_H
#define CONCLAVE_API_EXPERT_COUNTS_PRIV_H

#include "engine/engine.h"

typedef struct expert_counts {
    const engine_info *info; /* borrowed */
    uint64_t tokens;         /* rows that went through the layers */
    router_space *space;     /* shared */
    uint64_t *rows;          /* owned [slots of the space], as the next */
    router_expert_use *use;
    const uint64_t *ffn_picks; /* [n_layers, k + 1]: rows by the number of FFN experts they picked */
} expert_counts;

typedef struct layer_counts {
    const uint64_t *ffn_picks; /* [k + 1], borrowed */
    uint64_t picks[MODEL_N_EXPERT_KINDS];
    /* Activations that never travel because an expert is no FFN, as if one node held all others: a result row per such
     * pick, and the row itself where none of its picks is an FFN. */
    uint64_t bytes_not_sent;
} layer_counts;

MOE_NODISCARD moe_status expert_counts_init(expert_counts *c, engine *e);
void expert_counts_fini(expert_counts *c);
layer_counts expert_counts_of(const expert_counts *c, uint32_t layer);

#endif
