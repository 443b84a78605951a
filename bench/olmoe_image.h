/* olmoe_image: a checkpoint of OLMoE-1B-7B's shape as one safetensors image in memory, bf16, random.
 *
 * Embeddings, norms, routers and head have memory of their own. The other matrices all show the same 256 MB of random
 * numbers, each from another place on, so that 13 GB of checkpoint cost less than one GB until they are packed. */
#ifndef CONCLAVE_BENCH_OLMOE_IMAGE_H
#define CONCLAVE_BENCH_OLMOE_IMAGE_H

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

typedef struct olmoe_image {
    unsigned char *data; /* owned, page-aligned */
    size_t bytes;
} olmoe_image;

/* Weights are uniform: deviation 1 for embeddings (so that tokens keep apart through the layers), 0.1 for the head
 * (logits as peaked as a trained model's, the best token at about a tenth), 0.02 for the rest (router logits of
 * deviation 0.9: picks spread); norms are 1. The caller's thread is thread 0 of the pool. */
MOE_NODISCARD moe_status olmoe_image_open(uint32_t n_layers, moe_pool *pool, olmoe_image *out, moe_error *err);
void olmoe_image_close(olmoe_image *image);
/* Its config.json; the text is the caller's. */
void olmoe_image_config(uint32_t n_layers, moe_text *out);
/* Of one layer, bf16. */
size_t olmoe_layer_bytes(void);

#endif
