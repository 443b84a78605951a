/* Between image.c, which lays a checkpoint out, and image_steer.c, which makes its router do as it is told. */
#ifndef CONCLAVE_BENCH_IMAGE_PRIV_H
#define CONCLAVE_BENCH_IMAGE_PRIV_H

#include "bench/image.h"
#include "model/family/family.h"

typedef struct image_tensor {
    model_role role;
    size_t offset, n; /* in the data; values, bf16 */
    size_t width;     /* of a row; 1: a vector */
} image_tensor;

/* Changes what the shares need of one tensor. */
void image_steer(const model_config *c, const image_shares *shares, unsigned char *data, const image_tensor *t);

#endif
