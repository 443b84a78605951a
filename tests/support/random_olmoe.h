/* Writes an OLMoE checkpoint with random weights into a folder: config.json and model.safetensors. Equal options, equal bytes. */
#ifndef CONCLAVE_TESTS_RANDOM_OLMOE_H
#define CONCLAVE_TESTS_RANDOM_OLMOE_H

#include "base/base.h"

typedef struct random_olmoe {
    uint32_t vocab_size, hidden_size, intermediate_size, n_layers, n_heads, n_kv_heads, n_experts, top_k, max_positions;
    bool bf16, norm_topk, tied;
    double clip_qkv; /* 0: none */
    uint32_t nan_token; /* its embedding is not a number; 0: none */
    uint64_t seed;
} random_olmoe;

/* hidden 96, 3 layers, 4 heads over 2, 24 experts top-3, vocabulary 256, f32. */
random_olmoe random_olmoe_defaults(void);
void random_olmoe_write(const random_olmoe *o, const char *dir);

#endif
