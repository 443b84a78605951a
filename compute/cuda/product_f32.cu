/* Products with the f32 chain: routers, and everything of the f32 class. Fewer shapes than the bf16 class has (each is a second of compiling for each
 * architecture): the class serves tests and comparisons. */
#include "compute/cuda/product.cuh"

template <class K> static void launch_rows(const cuda_product *p, cudaStream_t s)
{
    if (p->max_rows > 1) {
        launch<K, 2, 4, 4>(p, s);
    } else {
        launch<K, 2, 1, 1>(p, s);
    }
}

void cuda_multiply(const cuda_product *p, cudaStream_t s)
{
    if (p->n_groups == 0 || p->max_rows == 0 || p->max_outputs == 0) {
        return;
    }
    switch (p->kind) {
    case CUDA_PAIR:
        cuda_multiply_pair(p, s);
        break;
    case CUDA_F32:
        launch_rows<kind_f32>(p, s);
        break;
    case CUDA_BF16:
        launch_rows<kind_bf16>(p, s);
        break;
    case CUDA_F16:
        launch_rows<kind_f16>(p, s);
        break;
    }
}
