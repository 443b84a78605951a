/* Products of the bf16 class: what the experts and the attention of a served model cost. product.cuh has the kernel. */
#include "compute/cuda/product.cuh"

/* By the most rows of a group. Each shape reads a weight once for all rows of its block: 1, 4, 16, 32. */
void cuda_multiply_pair(const cuda_product *p, cudaStream_t s)
{
    if (p->max_rows > 16) {
        launch<kind_pair, 4, 8, 4>(p, s);
    } else if (p->max_rows > 4) {
        launch<kind_pair, 2, 4, 4>(p, s);
    } else if (p->max_rows > 1) {
        launch<kind_pair, 2, 4, 1>(p, s);
    } else if (p->gated) {
        launch<kind_pair, 2, 1, 1>(p, s);
    } else {
        launch<kind_pair, 1, 1, 1>(p, s);
    }
}
