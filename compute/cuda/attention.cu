/* Both attentions: a block a (row, head). Scores and exponentials are independent and shared out over the keys; the sums over keys are chains in the order of
 * docs/numeric.md, one per value of the head, each walked by one thread. */
#include "compute/cuda/launch.h"
#include "compute/cuda/math.cuh"

#define THREADS 128u
/* Keys whose scores are kept; a longer row is scored twice, first for its maximum. A test makes it small. */
#ifndef CUDA_ATTENTION_CHUNK
#define CUDA_ATTENTION_CHUNK 2048
#endif
#define CHUNK ((unsigned)CUDA_ATTENTION_CHUNK)
#define STICK   128u /* keys of a stick that are scored before the chain decides whether it goes on */

/* Key or value t of the sequence: [head_dim]. */
template <class D>
static __device__ __forceinline__ const typename D::stored *cached(const unsigned char *layer, const cuda_pages &p,
                                                                   const uint32_t *pages, size_t kv_head, size_t t,
                                                                   size_t offset)
{
    return (const typename D::stored *)(const void *)(layer + pages[t / p.page_tokens] * p.page_bytes + offset) +
           (kv_head * p.page_tokens + t % p.page_tokens) * p.head_dim;
}

template <int W> static __device__ __forceinline__ void fold_by(float *p)
{
#pragma unroll
    for (int j = 0; j < W; j++) {
        p[j] = __fadd_rn(p[j], p[j + W]);
    }
}

/* q . k, 16 partial sums, the padding fed, times scale. */
template <class D>
static __device__ __forceinline__ float score_of(const float *q, const typename D::stored *k, size_t head_dim,
                                                 float scale)
{
    float p[16];

#pragma unroll
    for (int j = 0; j < 16; j++) {
        p[j] = 0.0f;
    }
    for (size_t i = 0; i < head_dim; i += 16) {
        if (i + 16 <= head_dim) {
#pragma unroll
            for (unsigned j = 0; j < 16; j++) {
                p[j] = __fmaf_rn(q[i + j], D::load(k + i + j), p[j]);
            }
        } else {
#pragma unroll
            for (unsigned j = 0; j < 16; j++) {
                float b = i + j < head_dim ? D::load(k + i + j) : 0.0f;

                p[j] = __fmaf_rn(q[i + j], b, p[j]); /* q is padded with +0 */
            }
        }
    }
    fold_by<8>(p);
    fold_by<4>(p);
    fold_by<2>(p);
    fold_by<1>(p);
    return __fmul_rn(p[0], scale);
}

/* The row's query, widened, padded with +0 to a multiple of 16. */
template <class D>
static __device__ __forceinline__ void load_query(float *shared, const typename D::stored *q, size_t head_dim)
{
    for (size_t i = threadIdx.x; i < (head_dim + 15) / 16 * 16; i += THREADS) {
        shared[i] = i < head_dim ? D::load(q + i) : 0.0f;
    }
    __syncthreads();
}

/* Maximum over the block, NaN if any is. */
static __device__ __forceinline__ float block_max(float *shared, float m)
{
#pragma unroll
    for (int w = 16; w > 0; w /= 2) {
        m = cuda_max(m, __shfl_xor_sync(CUDA_ALL_LANES, m, w));
    }
    if (threadIdx.x % 32 == 0) {
        shared[threadIdx.x / 32] = m;
    }
    __syncthreads();
    m = shared[0];
    for (unsigned i = 1; i < THREADS / 32; i++) {
        m = cuda_max(m, shared[i]);
    }
    return m;
}

/* Shared: the query, then CHUNK scores. */
template <class D>
__global__ void __launch_bounds__(THREADS)
    attention_kernel(float *out, const typename D::stored *q, const unsigned char *layer, cuda_pages p, size_t n_heads,
                     float scale)
{
    CUDA_DYNAMIC_SHARED(shared);
    CUDA_SHARED(float, maxima, THREADS / 32);
    size_t row = blockIdx.x / n_heads, head = blockIdx.x % n_heads, kv_head = head / (n_heads / p.n_kv_heads);
    size_t n = (size_t)p.positions[row] + 1, at = (row * n_heads + head) * p.head_dim;
    const uint32_t *pages = p.pages + p.page_start[row];
    float *query = (float *)(void *)shared, *scores = query + (p.head_dim + 15) / 16 * 16, m = -CUDA_INFINITY;

    load_query<D>(query, q + at, p.head_dim);
    for (size_t t = threadIdx.x; t < n; t += THREADS) {
        float score = score_of<D>(query, cached<D>(layer, p, pages, kv_head, t, 0), p.head_dim, scale);

        m = cuda_max(m, score);
        if (n <= CHUNK) {
            scores[t] = score;
        }
    }
    m = __fadd_rn(block_max(maxima, m), 0.0f);
    for (size_t d0 = 0; d0 < p.head_dim; d0 += THREADS) {
        size_t d = d0 + threadIdx.x;
        float l = 0.0f, o = 0.0f;

        for (size_t t0 = 0; t0 < n; t0 += CHUNK) {
            size_t count = n - t0 < CHUNK ? n - t0 : CHUNK;

            if (n > CHUNK || d0 == 0) { /* the exponentials of a row that fits are made once */
                for (size_t t = threadIdx.x; t < count; t += THREADS) {
                    float score = n <= CHUNK ? scores[t]
                                             : score_of<D>(query, cached<D>(layer, p, pages, kv_head, t0 + t, 0),
                                                           p.head_dim, scale);

                    scores[t] = cuda_exp(__fsub_rn(score, m));
                }
                __syncthreads();
            }
            if (d < p.head_dim) {
#pragma unroll 4
                for (size_t t = 0; t < count; t++) {
                    float v = D::load(cached<D>(layer, p, pages, kv_head, t0 + t, p.v_offset) + d);

                    l = __fadd_rn(l, scores[t]);
                    o = __fmaf_rn(scores[t], v, o);
                }
            }
            if (n > CHUNK) {
                __syncthreads(); /* the next chunk's scores go where these are read */
            }
        }
        if (d < p.head_dim) {
            out[at + d] = __fdiv_rn(o, l);
        }
    }
}

void cuda_attention(float *out, const void *q, const unsigned char *layer, const cuda_pages *p, size_t n_heads,
                    float scale, size_t n, cudaStream_t s)
{
    size_t bytes = ((p->head_dim + 15) / 16 * 16 + CHUNK) * sizeof(float);
    unsigned blocks = (unsigned)(n * n_heads);

    if (blocks == 0) {
        return;
    }
    if (p->bf16) {
        CUDA_LAUNCH(attention_kernel<cuda_bf16>, blocks, THREADS, bytes, s, out, (const uint16_t *)q, layer, *p, n_heads,
                    scale);
    } else {
        CUDA_LAUNCH(attention_kernel<cuda_f32>, blocks, THREADS, bytes, s, out, (const float *)q, layer, *p, n_heads,
                    scale);
    }
}

/* Head h reads kv head h % n_kv_heads. STICK keys at a time, newest first: what depends on a key's score alone is made by a thread each; one thread walks the
 * chain of c and finds where the stick ends; then weights in parallel, then the chains of the values. */
template <class D>
__global__ void __launch_bounds__(THREADS)
    stick_kernel(float *out, const typename D::stored *q, const unsigned char *layer, cuda_pages p, size_t n_heads,
                 float scale, bool full_scan, unsigned long long *counters)
{
    CUDA_DYNAMIC_SHARED(shared);
    CUDA_SHARED(float, weights, STICK);
    CUDA_SHARED(float, losses, STICK);
    CUDA_SHARED(unsigned, used, 1);
    size_t row = blockIdx.x / n_heads, head = blockIdx.x % n_heads, kv_head = head % p.n_kv_heads;
    size_t left = (size_t)p.positions[row] + 1, at = (row * n_heads + head) * p.head_dim, seen = 0;
    const uint32_t *pages = p.pages + p.page_start[row];
    float *query = (float *)(void *)shared, *sums = query + (p.head_dim + 15) / 16 * 16, c = 0.0f;
    bool ended = false;

    load_query<D>(query, q + at, p.head_dim);
    for (size_t d = threadIdx.x; d < p.head_dim; d += THREADS) {
        sums[d] = 0.0f; /* of thread d % THREADS alone */
    }
    while (left > 0 && !ended) {
        unsigned count = left < STICK ? (unsigned)left : STICK, taken;
        float w = 0.0f;

        if (threadIdx.x < count) {
            float score = score_of<D>(query, cached<D>(layer, p, pages, kv_head, left - 1 - threadIdx.x, 0), p.head_dim,
                                      scale);

            w = cuda_sigmoid(score);
            losses[threadIdx.x] =
                __fadd_rn(score > 0.0f ? score : 0.0f, cuda_log1p(cuda_exp(-cuda_magnitude(score))));
        }
        __syncthreads();
        if (threadIdx.x == 0) { /* losses[i] becomes the c that key i meets */
            unsigned i = 0;

            while (i < count && (full_scan || !(c < -88.0f))) {
                float loss = losses[i];

                losses[i++] = c;
                c = __fsub_rn(c, loss);
            }
            *used = i;
        }
        __syncthreads();
        taken = *used;
        if (threadIdx.x < taken) {
            weights[threadIdx.x] = __fmul_rn(w, cuda_exp(losses[threadIdx.x]));
        }
        __syncthreads();
        for (size_t d = threadIdx.x; d < p.head_dim; d += THREADS) {
            float y = sums[d];

#pragma unroll 4
            for (unsigned i = 0; i < taken; i++) {
                y = __fmaf_rn(weights[i], D::load(cached<D>(layer, p, pages, kv_head, left - 1 - i, p.v_offset) + d), y);
            }
            sums[d] = y;
        }
        seen += taken;
        left -= taken;
        ended = taken < count;
        /* what comes next writes losses (read before the last barrier) and, two barriers on, weights and used */
    }
    for (size_t d = threadIdx.x; d < p.head_dim; d += THREADS) {
        out[at + d] = __fadd_rn(sums[d], 0.0f);
    }
    if (threadIdx.x == 0) {
        atomicAdd(counters, (unsigned long long)seen);
        atomicAdd(counters + 1, (unsigned long long)left);
    }
}

void cuda_stick_attention(float *out, const void *q, const unsigned char *layer, const cuda_pages *p, size_t n_heads,
                          float scale, bool full_scan, unsigned long long *counters, size_t n, cudaStream_t s)
{
    size_t bytes = ((p->head_dim + 15) / 16 * 16 + p->head_dim) * sizeof(float);
    unsigned blocks = (unsigned)(n * n_heads);

    if (blocks == 0) {
        return;
    }
    if (p->bf16) {
        CUDA_LAUNCH(stick_kernel<cuda_bf16>, blocks, THREADS, bytes, s, out, (const uint16_t *)q, layer, *p, n_heads,
                    scale, full_scan, counters);
    } else {
        CUDA_LAUNCH(stick_kernel<cuda_f32>, blocks, THREADS, bytes, s, out, (const float *)q, layer, *p, n_heads, scale,
                    full_scan, counters);
    }
}
