/* olmoe: the shape of OLMoE-1B-7B, and a tiny one of the same kind. */
#ifndef CONCLAVE_BENCH_OLMOE_H
#define CONCLAVE_BENCH_OLMOE_H

#include "base/base.h"

enum {
    OLMOE_D_MODEL = 2048,
    OLMOE_D_FF = 1024,
    OLMOE_N_HEADS = 16,
    OLMOE_N_EXPERTS = 64,
    OLMOE_TOP_K = 8,
    OLMOE_VOCAB = 50304,
    OLMOE_N_LAYERS = 16,
    OLMOE_MAX_CONTEXT = 4096
};

typedef struct olmoe_shape {
    uint32_t d_model, d_ff, n_heads, n_experts, top_k, vocab_size, n_layers;
} olmoe_shape;
extern const olmoe_shape olmoe_shape_full;
extern const olmoe_shape olmoe_shape_tiny; /* shows that a benchmark works, where a figure of it means nothing */

/* config.json; the text is the caller's. */
void olmoe_config(const olmoe_shape *s, uint32_t n_layers, moe_text *out);
/* Of one layer, bf16. */
size_t olmoe_layer_bytes(const olmoe_shape *s);

#endif
