/* Ops without sums over a row: one thread a value. */
#include "compute/cuda/launch.h"
#include "compute/cuda/math.cuh"

#define THREADS 256u

/* Blocks for n threads; a grid's x goes to 2^31 - 1, which is more values than any op has. */
static unsigned blocks_of(size_t n)
{
    return (unsigned)((n + THREADS - 1) / THREADS);
}

static __device__ __forceinline__ size_t thread_index(void)
{
    return (size_t)blockIdx.x * THREADS + threadIdx.x;
}

template <class D>
__global__ void __launch_bounds__(THREADS)
    embed_kernel(float *out, const typename D::stored *table, size_t width, const int32_t *ids, size_t n)
{
    size_t i = thread_index();

    if (i < n * width) {
        out[i] = D::load(table + (size_t)ids[i / width] * width + i % width);
    }
}

void cuda_embed(float *out, const void *table, cuda_dtype dtype, size_t width, const int32_t *ids, size_t n,
                cudaStream_t s)
{
    unsigned blocks = blocks_of(n * width);

    if (blocks == 0) {
        return;
    }
    switch (dtype) {
    case CUDA_DTYPE_F32:
        CUDA_LAUNCH(embed_kernel<cuda_f32>, blocks, THREADS, 0, s, out, (const float *)table, width, ids, n);
        break;
    case CUDA_DTYPE_BF16:
        CUDA_LAUNCH(embed_kernel<cuda_bf16>, blocks, THREADS, 0, s, out, (const uint16_t *)table, width, ids, n);
        break;
    case CUDA_DTYPE_F16:
        CUDA_LAUNCH(embed_kernel<cuda_f16>, blocks, THREADS, 0, s, out, (const uint16_t *)table, width, ids, n);
        break;
    }
}

__global__ void __launch_bounds__(THREADS) to_bf16_kernel(uint16_t *out, const float *x, size_t n)
{
    size_t i = thread_index();

    if (i < n) {
        out[i] = cuda_bf16_of(x[i]);
    }
}

void cuda_to_bf16(uint16_t *out, const float *x, size_t n, cudaStream_t s)
{
    if (n > 0) {
        CUDA_LAUNCH(to_bf16_kernel, blocks_of(n), THREADS, 0, s, out, x, n);
    }
}

__global__ void __launch_bounds__(THREADS) clamp_kernel(float *x, float bound, size_t n)
{
    size_t i = thread_index();

    if (i < n) {
        x[i] = x[i] < -bound ? -bound : x[i] > bound ? bound : x[i];
    }
}

void cuda_clamp(float *x, float bound, size_t n, cudaStream_t s)
{
    if (n > 0) {
        CUDA_LAUNCH(clamp_kernel, blocks_of(n), THREADS, 0, s, x, bound, n);
    }
}

__global__ void __launch_bounds__(THREADS) add_kernel(float *x, const float *y, size_t n)
{
    size_t i = thread_index();

    if (i < n) {
        x[i] = __fadd_rn(x[i], y[i]);
    }
}

void cuda_add(float *x, const float *y, size_t n, cudaStream_t s)
{
    if (n > 0) {
        CUDA_LAUNCH(add_kernel, blocks_of(n), THREADS, 0, s, x, y, n);
    }
}

__global__ void __launch_bounds__(THREADS) gelu_erf_kernel(float *x, size_t n)
{
    size_t i = thread_index();

    if (i < n) {
        x[i] = cuda_gelu_erf(x[i]);
    }
}

void cuda_gelu_erf(float *x, size_t n, cudaStream_t s)
{
    if (n > 0) {
        CUDA_LAUNCH(gelu_erf_kernel, blocks_of(n), THREADS, 0, s, x, n);
    }
}

__global__ void __launch_bounds__(THREADS) tanh_kernel(float *x, size_t n)
{
    size_t i = thread_index();

    if (i < n) {
        x[i] = cuda_tanh(x[i]);
    }
}

void cuda_tanh(float *x, size_t n, cudaStream_t s)
{
    if (n > 0) {
        CUDA_LAUNCH(tanh_kernel, blocks_of(n), THREADS, 0, s, x, n);
    }
}

/* T: as many bytes as divide a row. */
template <class T>
__global__ void __launch_bounds__(THREADS)
    gather_kernel(T *out, const T *x, const uint32_t *out_index, const uint32_t *index, size_t width, size_t n)
{
    size_t i = thread_index();

    if (i < n * width) {
        size_t row = i / width, to = out_index == nullptr ? row : out_index[row];

        out[to * width + i % width] = x[(index == nullptr ? row : index[row]) * width + i % width];
    }
}

template <class T>
static void gather_as(void *out, const void *x, const uint32_t *out_index, const uint32_t *index, size_t bytes, size_t n,
                      cudaStream_t s)
{
    size_t width = bytes / sizeof(T);

    CUDA_LAUNCH(gather_kernel<T>, blocks_of(n * width), THREADS, 0, s, (T *)out, (const T *)x, out_index, index, width,
                n);
}

void cuda_gather(void *out, const void *x, const uint32_t *out_index, const uint32_t *index, size_t bytes, size_t n,
                 cudaStream_t s)
{
    if (n == 0 || bytes == 0) {
        return;
    }
    if (bytes % 16 == 0 && ((uintptr_t)out | (uintptr_t)x) % 16 == 0) {
        gather_as<uint4>(out, x, out_index, index, bytes, n, s);
    } else if (bytes % 4 == 0) {
        gather_as<uint32_t>(out, x, out_index, index, bytes, n, s);
    } else {
        gather_as<uint16_t>(out, x, out_index, index, bytes, n, s);
    }
}

/* One thread a pair. The table row of a position: head_dim / 2 cosines, then as many sines. */
__global__ void __launch_bounds__(THREADS)
    rope_kernel(float *x, const float *table, size_t n_heads, size_t head_dim, const uint32_t *positions, size_t n)
{
    size_t i = thread_index(), half = head_dim / 2;

    if (i < n * n_heads * half) {
        size_t j = i % half, head = i / half;
        const float *cosine = table + (size_t)positions[head / n_heads] * head_dim;
        float *at = x + head * head_dim + j, u = at[0], v = at[half], c = cosine[j], d = cosine[j + half];

        at[0] = __fsub_rn(__fmul_rn(u, c), __fmul_rn(v, d));
        at[half] = __fadd_rn(__fmul_rn(v, c), __fmul_rn(u, d));
    }
}

void cuda_rope(float *x, const float *table, size_t n_heads, size_t head_dim, const uint32_t *positions, size_t n,
               cudaStream_t s)
{
    size_t pairs = n * n_heads * (head_dim / 2);

    if (pairs > 0) {
        CUDA_LAUNCH(rope_kernel, blocks_of(pairs), THREADS, 0, s, x, table, n_heads, head_dim, positions, n);
    }
}

template <class D>
__global__ void __launch_bounds__(THREADS) combine_kernel(float *x, const typename D::stored *results,
                                                          const cuda_pick *picks, const uint32_t *n_picks, size_t k,
                                                          size_t width, size_t n)
{
    size_t i = thread_index();

    if (i < n * width) {
        size_t row = i / width, count = n_picks == nullptr ? k : n_picks[row];
        float y = 0.0f;

        for (size_t p = 0; p < count; p++) {
            cuda_pick pick = picks[row * k + p];

            y = __fadd_rn(y, __fmul_rn(pick.weight, D::load(results + (size_t)pick.result_row * width + i % width)));
        }
        x[i] = __fadd_rn(x[i], y);
    }
}

void cuda_combine(float *x, const void *results, bool bf16, const cuda_pick *picks, const uint32_t *n_picks, size_t k,
                  size_t width, size_t n, cudaStream_t s)
{
    unsigned blocks = blocks_of(n * width);

    if (blocks == 0) {
        return;
    }
    if (bf16) {
        CUDA_LAUNCH(combine_kernel<cuda_bf16>, blocks, THREADS, 0, s, x, (const uint16_t *)results, picks, n_picks, k,
                    width, n);
    } else {
        CUDA_LAUNCH(combine_kernel<cuda_f32>, blocks, THREADS, 0, s, x, (const float *)results, picks, n_picks, k, width,
                    n);
    }
}

template <class D>
__global__ void __launch_bounds__(THREADS)
    kv_store_kernel(unsigned char *layer, cuda_pages p, const float *k, const float *v, size_t n)
{
    size_t i = thread_index(), width = p.n_kv_heads * p.head_dim;

    if (i < n * width) {
        size_t row = i / width, head = i % width / p.head_dim, j = i % p.head_dim, position = p.positions[row];
        uint32_t page = p.pages[p.page_start[row] + position / p.page_tokens];
        size_t at = (head * p.page_tokens + position % p.page_tokens) * p.head_dim + j;
        unsigned char *to = layer + page * p.page_bytes;

        ((typename D::stored *)(void *)to)[at] = D::store(k[i]);
        if (v != nullptr) {
            ((typename D::stored *)(void *)(to + p.v_offset))[at] = D::store(v[i]);
        }
    }
}

void cuda_kv_store(unsigned char *layer, const cuda_pages *p, const float *k, const float *v, size_t n, cudaStream_t s)
{
    unsigned blocks = blocks_of(n * p->n_kv_heads * p->head_dim);

    if (blocks == 0) {
        return;
    }
    if (p->bf16) {
        CUDA_LAUNCH(kv_store_kernel<cuda_bf16>, blocks, THREADS, 0, s, layer, *p, k, v, n);
    } else {
        CUDA_LAUNCH(kv_store_kernel<cuda_f32>, blocks, THREADS, 0, s, layer, *p, k, v, n);
    }
}
