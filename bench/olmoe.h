/* olmoe: the shape of OLMoE-1B-7B. */
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

/* Its config.json; the text is the caller's. */
void olmoe_config(uint32_t n_layers, moe_text *out);
/* Of one layer, bf16. */
size_t olmoe_layer_bytes(void);

#endif
