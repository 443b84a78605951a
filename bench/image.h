/* image: a checkpoint of any family as one safetensors image in memory, bf16, random.
 *
 * Norms, vectors, routers, embeddings and head have values of their own. The other matrices all show the same 256 MB of
 * random numbers, each from another place on, so that 13 GB of checkpoint cost less than one GB until
 * they are packed. */
#ifndef CONCLAVE_BENCH_IMAGE_H
#define CONCLAVE_BENCH_IMAGE_H

#include "model/model.h"

#define IMAGE_MAX_SHARES 4

typedef struct image {
    unsigned char *data; /* owned, page-aligned */
    size_t bytes;
    size_t own_bytes; /* of those, what is not shown from the pattern */
} image;

/* Only for MoE++ with four local experts and a linear gate: routes a known share of all picks to experts of zero
 * computation. The vocabulary is cut into n equal parts (image_vocab_part); a row of a token of part i picks such
 * experts with share of[i], and the head gives it a next token of the same part. n == 0: picks as they come. */
typedef struct image_shares {
    double of[IMAGE_MAX_SHARES];
    size_t n;
} image_shares;

/* Weights are uniform: deviation 1 for embeddings (so that tokens keep apart through the layers) and constant experts,
 * 0.1 for the head (logits as peaked as a trained model's, the best token at about a tenth), 0.02 for the rest (router
 * logits of deviation 0.9 at width 2048: picks spread); gains of norms are 1, biases 0. The caller's thread is thread 0
 * of the threads. */
MOE_NODISCARD moe_status image_open(const model_config *c, const image_shares *shares, moe_threads *threads, image *out,
                                    moe_error *err);
void image_close(image *i);
/* Tokens of a part: n * part .. n * (part + 1) - 1, where n is returned. */
size_t image_vocab_part(const model_config *c, const image_shares *shares);

#endif
