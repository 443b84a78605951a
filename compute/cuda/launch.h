/* The kernels' launchers: plain device pointers and a stream. Each queues and returns; what went wrong stays in cudaGetLastError. n rows may be 0.
 * Shapes and meaning are those of compute.h's ops; docs/numeric.md has the arithmetic. Every array here is device memory. */
#ifndef CONCLAVE_COMPUTE_CUDA_LAUNCH_H
#define CONCLAVE_COMPUTE_CUDA_LAUNCH_H

#include <cuda_runtime_api.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Of values in memory. CUDA_PAIR is the bf16 class's product: x and w bf16, odd element first; the others are the f32 chain. */
typedef enum { CUDA_DTYPE_F32, CUDA_DTYPE_BF16, CUDA_DTYPE_F16 } cuda_dtype;
typedef enum { CUDA_PAIR, CUDA_F32, CUDA_BF16, CUDA_F16 } cuda_kind;

/* ------------------------------------------------------------------------------------------------ rows and values */
void cuda_embed(float *out, const void *table, cuda_dtype dtype, size_t width, const int32_t *ids, size_t n,
                cudaStream_t s);
void cuda_to_bf16(uint16_t *out, const float *x, size_t n, cudaStream_t s);
void cuda_clamp(float *x, float bound, size_t n, cudaStream_t s);
void cuda_add(float *x, const float *y, size_t n, cudaStream_t s);
void cuda_gelu_erf(float *x, size_t n, cudaStream_t s);
void cuda_tanh(float *x, size_t n, cudaStream_t s);
/* Rows of `bytes`: out row out_index[i] = x row index[i]; either NULL: i. */
void cuda_gather(void *out, const void *x, const uint32_t *out_index, const uint32_t *index, size_t bytes, size_t n,
                 cudaStream_t s);
void cuda_rope(float *x, const float *table, size_t n_heads, size_t head_dim, const uint32_t *positions, size_t n,
               cudaStream_t s);
typedef struct cuda_pick {
    float weight;
    uint32_t result_row;
} cuda_pick;
/* n_picks NULL: k each. */
void cuda_combine(float *x, const void *results, bool bf16, const cuda_pick *picks, const uint32_t *n_picks, size_t k,
                  size_t width, size_t n, cudaStream_t s);
/* rounded may be NULL; bf16 says what it holds. rms_norm: out dense unless it is x. */
void cuda_rms_norm(float *out, void *rounded, bool bf16, const float *x, size_t stride, const float *gain, float eps,
                   size_t width, size_t n, cudaStream_t s);
void cuda_layer_norm(float *out, void *rounded, bool bf16, const float *x, const float *gain, const float *bias,
                     float eps, size_t width, size_t n, cudaStream_t s);
void cuda_unit_norm(float *x, size_t width, size_t n, cudaStream_t s);
/* A constant expert; gate and constant are not NULL (a copy is cuda_gather). */
void cuda_constant_expert(void *out, const void *x, bool bf16, const float *gate, const float *constant,
                          const uint32_t *rows, const uint32_t *out_rows, size_t n, size_t width, cudaStream_t s);

/* The CRC-32C of a frame's bytes but the four at sum_at, where it goes; both are multiples of 4. */
void cuda_frame_sum(void *frame, size_t bytes, size_t sum_at, cudaStream_t s);

/* ------------------------------------------------------------------------------------------------ attention
 * A row's page table starts at pages[page_start[row]]. k and v point at the layer's first page. */
typedef struct cuda_pages {
    const uint32_t *pages, *page_start, *positions; /* [..], [n], [n] */
    size_t page_bytes, page_tokens, n_kv_heads, head_dim,
        v_offset; /* v_offset: bytes from K to V of a page; 0: shared */
    bool bf16;
} cuda_pages;
void cuda_kv_store(unsigned char *layer, const cuda_pages *p, const float *k, const float *v, size_t n, cudaStream_t s);
void cuda_attention(float *out, const void *q, const unsigned char *layer, const cuda_pages *p, size_t n_heads,
                    float scale, size_t n, cudaStream_t s);
/* counters[0] += keys seen, [1] += keys skipped. */
void cuda_stick_attention(float *out, const void *q, const unsigned char *layer, const cuda_pages *p, size_t n_heads,
                          float scale, bool full_scan, unsigned long long *counters, size_t n, cudaStream_t s);

/* ------------------------------------------------------------------------------------------------ products
 * A packed matrix: tiles of 32 outputs, [n_units][32 lanes] of 16 bytes: a lane's unit is 8 consecutive k of its own output (4 of F32). Zero past n_out and n_in.
 * Gate and up of an expert share one: tile 2t of it is tile t of the gate, tile 2t + 1 tile t of up. */
#define CUDA_TILE 32
static inline size_t cuda_unit_k(cuda_kind kind)
{
    return kind == CUDA_F32 ? 4 : 8;
}
static inline size_t cuda_tile_bytes(cuda_kind kind, size_t n_in)
{
    return (n_in + cuda_unit_k(kind) - 1) / cuda_unit_k(kind) * CUDA_TILE * 16;
}

/* Source rows [first, first + n) of a weight, in `from`, into a zeroed packed matrix. Rows are outputs, or, input_major, inputs; then first is a multiple of 8.
 * Tile t of the weight becomes tile t * tile_step + tile_first. CUDA_PAIR rounds F32 and F16 to bf16. */
typedef struct cuda_pack_job {
    void *to;
    const void *from;
    cuda_dtype dtype;
    cuda_kind kind;
    size_t n_out, n_in, first, n;
    size_t tile_step, tile_first;
    bool input_major;
} cuda_pack_job;
void cuda_pack(const cuda_pack_job *job, cudaStream_t s);

typedef struct cuda_group {
    const void *weights;
    uint32_t n_out, n_in;   /* gated: n_out counts the outputs of one of the two */
    uint32_t first, n_rows; /* entries of x_rows and out_rows */
    uint32_t gated;
} cuda_group;

typedef enum {
    CUDA_TO_F32,   /* the sum, plus bias where there is one */
    CUDA_TO_CLASS, /* rounded to the class dtype */
    CUDA_TO_HIDDEN /* gated: silu(gate) * up; else gelu_tanh; rounded to the class dtype */
} cuda_target;

/* For every group: out row out_rows[first + i] = x row x_rows[first + i] . w^T. A row of x has x_stride values (f32, or bf16 for CUDA_PAIR), one of out out_stride.
 * x_rows, out_rows NULL: first + i. groups NULL: the one group `one`. max_rows and max_outputs are the largest of the groups. */
typedef struct cuda_product {
    cuda_kind kind;
    cuda_target target;
    const cuda_group *groups;
    cuda_group one;
    size_t n_groups, max_rows, max_outputs;
    const void *x;
    void *out;
    const uint32_t *x_rows, *out_rows;
    const float *bias;
    size_t x_stride, out_stride;
    bool gated; /* some group is */
} cuda_product;
void cuda_multiply(const cuda_product *p, cudaStream_t s);
void cuda_multiply_pair(const cuda_product *p, cudaStream_t s); /* of CUDA_PAIR; cuda_multiply calls it */

#ifdef __cplusplus
}
#endif
#endif
