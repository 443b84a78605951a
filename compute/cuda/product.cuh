/* Products: one FMA chain an output (docs/numeric.md), for one matrix or for many with rows of their own, in one launch.
 *
 * A block has TILE_WARPS sets of OUTPUTS tiles and ROW_WARPS sets of ROWS rows. A thread keeps OUTPUTS x ROWS chains: a value of x, read by the whole warp at
 * once, serves OUTPUTS of them, a weight ROWS. With few rows the reading of weights decides: a lane has one output (two where gate and up go together), and
 * what counts is the ring (ring.cuh). With many rows FMAs decide: 4 outputs by 8 rows. */
#ifndef CONCLAVE_COMPUTE_CUDA_PRODUCT_CUH
#define CONCLAVE_COMPUTE_CUDA_PRODUCT_CUH

#include "compute/cuda/launch.h"
#include "compute/cuda/ring.cuh"

#define TILE_WARPS 2

/* What a product multiplies: how x is stored, and what a unit of 16 bytes holds. `multiply` goes on with a chain by k values, a compile-time constant but in the
 * last unit of a row. */
struct kind_pair {
    typedef cuda_bf16 x_type;
    static const int UNIT = 8, X_CHUNK = 512;
};
struct kind_f32 {
    typedef cuda_f32 x_type;
    static const int UNIT = 4, X_CHUNK = 256;
};
struct kind_bf16 {
    typedef cuda_f32 x_type;
    static const int UNIT = 8, X_CHUNK = 256;
};
struct kind_f16 {
    typedef cuda_f32 x_type;
    static const int UNIT = 8, X_CHUNK = 256;
};

static __device__ __forceinline__ void unpack_bf16(float *w, uint4 u)
{
    uint32_t v[4] = {u.x, u.y, u.z, u.w};

#pragma unroll
    for (int i = 0; i < 4; i++) {
        w[2 * i] = __uint_as_float(v[i] << 16);
        w[2 * i + 1] = __uint_as_float(v[i] & 0xffff0000u);
    }
}

static __device__ __forceinline__ void unpack(float *w, uint4 u, kind_pair)
{
    unpack_bf16(w, u);
}

static __device__ __forceinline__ void unpack(float *w, uint4 u, kind_bf16)
{
    unpack_bf16(w, u);
}

static __device__ __forceinline__ void unpack(float *w, uint4 u, kind_f16)
{
    uint32_t v[4] = {u.x, u.y, u.z, u.w};

#pragma unroll
    for (int i = 0; i < 4; i++) {
        w[2 * i] = cuda_of_f16(v[i] & 0xffffu);
        w[2 * i + 1] = cuda_of_f16(v[i] >> 16);
    }
}

static __device__ __forceinline__ void unpack(float *w, uint4 u, kind_f32)
{
    w[0] = __uint_as_float(u.x);
    w[1] = __uint_as_float(u.y);
    w[2] = __uint_as_float(u.z);
    w[3] = __uint_as_float(u.w);
}

/* A unit's values of a row, from shared memory, the same for all lanes. */
static __device__ __forceinline__ void load_x(float *x, const uint16_t *at, kind_pair)
{
    unpack_bf16(x, *(const uint4 *)(const void *)at);
}

template <class K> static __device__ __forceinline__ void load_x(float *x, const float *at, K)
{
#pragma unroll
    for (int i = 0; i < K::UNIT; i += 4) {
        float4 v = *(const float4 *)(const void *)(at + i);

        x[i] = v.x;
        x[i + 1] = v.y;
        x[i + 2] = v.z;
        x[i + 3] = v.w;
    }
}

/* The chain over a whole unit, and over its first k values. */
static __device__ __forceinline__ float chain(float acc, const float *x, const float *w, kind_pair)
{
#pragma unroll
    for (int i = 0; i < 8; i += 2) {
        acc = __fmaf_rn(x[i + 1], w[i + 1], acc);
        acc = __fmaf_rn(x[i], w[i], acc);
    }
    return acc;
}

template <class K> static __device__ __forceinline__ float chain(float acc, const float *x, const float *w, K)
{
#pragma unroll
    for (int i = 0; i < K::UNIT; i++) {
        acc = __fmaf_rn(x[i], w[i], acc);
    }
    return acc;
}

static __device__ __forceinline__ float chain_part(float acc, const float *x, const float *w, unsigned k, kind_pair)
{
#pragma unroll
    for (unsigned i = 0; i < 8; i += 2) {
        if (i < k) { /* the zero after an odd row is fed */
            acc = __fmaf_rn(x[i + 1], w[i + 1], acc);
            acc = __fmaf_rn(x[i], w[i], acc);
        }
    }
    return acc;
}

template <class K>
static __device__ __forceinline__ float chain_part(float acc, const float *x, const float *w, unsigned k, K)
{
#pragma unroll
    for (unsigned i = 0; i < K::UNIT; i++) {
        if (i < k) {
            acc = __fmaf_rn(x[i], w[i], acc);
        }
    }
    return acc;
}

/* n_rows rows of x from k0 on, into shared [n_rows][X_CHUNK]; what lies past a row's end, and rows past the group's, is +0. */
template <class K>
static __device__ __forceinline__ void stage_x(typename K::x_type::stored *to, const typename K::x_type::stored *x,
                                               const cuda_group &g, const uint32_t *x_rows, uint32_t row0,
                                               uint32_t n_rows, size_t stride, uint32_t k0)
{
    for (uint32_t i = threadIdx.x; i < n_rows * K::X_CHUNK; i += blockDim.x) {
        uint32_t r = i / K::X_CHUNK, k = k0 + i % K::X_CHUNK, row = row0 + r;

        if (row < g.n_rows && k < g.n_in) {
            size_t from = x_rows == nullptr ? g.first + row : x_rows[g.first + row];

            to[i] = x[from * stride + k];
        } else {
            to[i] = 0;
        }
    }
}

static __device__ __forceinline__ void store_f32(float *out, size_t at, float v, const float *bias, uint32_t j)
{
    out[at] = bias == nullptr ? v : __fadd_rn(v, bias[j]);
}

template <class K, int OUTPUTS, int ROWS, int ROW_WARPS>
__global__ void __launch_bounds__(TILE_WARPS *ROW_WARPS * 32, ROW_WARPS == 1 ? 4 : 2)
    product_kernel(const cuda_group *groups, cuda_group one, const typename K::x_type::stored *x, void *out,
                   const uint32_t *x_rows, const uint32_t *out_rows, const float *bias, size_t x_stride,
                   size_t out_stride, int target)
{
    typedef weight_ring<OUTPUTS, ROW_WARPS> ring_type;
    typedef typename K::x_type::stored stored;
    CUDA_DYNAMIC_SHARED(shared);
    const cuda_group g = groups == nullptr ? one : groups[blockIdx.y];
    uint32_t warp = threadIdx.x / 32, tile_warp = warp / ROW_WARPS, lane = threadIdx.x % 32;
    uint32_t per_tile = g.gated ? 2 : 1, n_tiles = (g.n_out + CUDA_TILE - 1) / CUDA_TILE * per_tile;
    uint32_t first_tile = (blockIdx.x * TILE_WARPS + tile_warp) * OUTPUTS, row_warp = warp % ROW_WARPS;
    uint32_t block_row = blockIdx.z * (ROWS * ROW_WARPS), my_row = block_row + row_warp * ROWS;
    uint32_t n_units = (g.n_in + K::UNIT - 1) / K::UNIT;
    stored *staged = (stored *)(void *)(shared + TILE_WARPS * ring_type::BYTES), *mine = staged + row_warp * ROWS * K::X_CHUNK;
    ring_type ring;
    float acc[ROWS][OUTPUTS];

    if (blockIdx.x * TILE_WARPS * OUTPUTS >= n_tiles || block_row >= g.n_rows) {
        return; /* the whole block: groups differ */
    }
    ring.n_steps = n_units;
    ring.row_warp = row_warp;
    ring.lane = lane;
#pragma unroll
    for (int o = 0; o < OUTPUTS; o++) { /* past the last tile: that one again, not stored */
        uint32_t tile = first_tile + o < n_tiles ? first_tile + o : n_tiles - 1;

        ring.tile[o] = (const unsigned char *)g.weights + (size_t)tile * n_units * RING_UNIT_BYTES;
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            acc[r][o] = 0.0f;
        }
    }
    ring.open(shared + tile_warp * ring_type::BYTES);
    __syncthreads();
    ring.start();

    uint32_t stage = 0, unit = 0, rest = g.n_in % K::UNIT, whole = g.n_in / K::UNIT;
    const int unrolled = ROWS * OUTPUTS > 4 ? 1 : ring_type::TAKE_STEPS; /* more is code that fills the instruction cache */

    (void)unrolled;

    for (uint32_t k0 = 0; k0 < g.n_in; k0 += K::X_CHUNK) {
        uint32_t last = (k0 + K::X_CHUNK) / K::UNIT;

        __syncthreads(); /* the rows before are used */
        stage_x<K>(staged, x, g, x_rows, block_row, ROWS * ROW_WARPS, x_stride, k0);
        __syncthreads();
        last = last < n_units ? last : n_units;
        for (; unit < last; stage++) {
            ring.wait(stage);
#pragma unroll unrolled
            for (int step = 0; step < ring_type::TAKE_STEPS; step++, unit++) {
                float w[OUTPUTS][K::UNIT];

                if (unit >= whole) {
                    continue;
                }
#pragma unroll
                for (int o = 0; o < OUTPUTS; o++) {
                    unpack(w[o], ring.take(stage, step, o), K());
                }
#pragma unroll
                for (int r = 0; r < ROWS; r++) {
                    float v[K::UNIT];

                    load_x(v, mine + r * K::X_CHUNK + unit % (K::X_CHUNK / K::UNIT) * K::UNIT, K());
#pragma unroll
                    for (int o = 0; o < OUTPUTS; o++) {
                        acc[r][o] = chain(acc[r][o], v, w[o], K());
                    }
                }
            }
            ring.used(stage);
        }
    }
    if (rest > 0) { /* the last unit, whose stage nothing has overwritten */
        unit = n_units - 1;
#pragma unroll
        for (int o = 0; o < OUTPUTS; o++) {
            float w[K::UNIT];

            unpack(w, ring.take(unit / ring_type::TAKE_STEPS, unit % ring_type::TAKE_STEPS, o), K());
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
                float v[K::UNIT];

                load_x(v, mine + r * K::X_CHUNK + unit % (K::X_CHUNK / K::UNIT) * K::UNIT, K());
                acc[r][o] = chain_part(acc[r][o], v, w, rest, K());
            }
        }
    }

#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        uint32_t row = my_row + r;

        if (row < g.n_rows) {
            size_t to = (out_rows == nullptr ? g.first + row : out_rows[g.first + row]) * out_stride;

#pragma unroll
            for (int o = 0; o < OUTPUTS; o++) {
                uint32_t tile = first_tile + o, j = tile / per_tile * CUDA_TILE + lane;

                if (tile >= n_tiles || j >= g.n_out) {
                    continue;
                }
                if (target == CUDA_TO_F32) {
                    store_f32((float *)out, to + j, acc[r][o], bias, j);
                } else if (target == CUDA_TO_CLASS) {
                    ((stored *)out)[to + j] = K::x_type::store(acc[r][o]);
                } else if (!g.gated) {
                    ((stored *)out)[to + j] = K::x_type::store(cuda_gelu_tanh(acc[r][o]));
                } else if (OUTPUTS > 1 && o % 2 == 0) { /* the launcher gives a gated product pairs of tiles */
                    ((stored *)out)[to + j] = K::x_type::store(__fmul_rn(cuda_silu(acc[r][o]), acc[r][(o + 1) % OUTPUTS]));
                }
            }
        }
    }
}

template <class K, int OUTPUTS, int ROWS, int ROW_WARPS> static void launch(const cuda_product *p, cudaStream_t s)
{
    typedef typename K::x_type::stored stored;
    static const size_t BYTES = (size_t)TILE_WARPS * weight_ring<OUTPUTS, ROW_WARPS>::BYTES +
                                (size_t)ROWS * ROW_WARPS * K::X_CHUNK * sizeof(stored);
    size_t tiles = (p->max_outputs + CUDA_TILE - 1) / CUDA_TILE * (p->gated ? 2 : 1), rows = ROWS * ROW_WARPS;
    dim3 grid((unsigned)((tiles + TILE_WARPS * OUTPUTS - 1) / (TILE_WARPS * OUTPUTS)), (unsigned)p->n_groups,
              (unsigned)((p->max_rows + rows - 1) / rows));

    CUDA_ALLOW_SHARED((product_kernel<K, OUTPUTS, ROWS, ROW_WARPS>), BYTES);
    CUDA_LAUNCH((product_kernel<K, OUTPUTS, ROWS, ROW_WARPS>), grid, dim3(TILE_WARPS * ROW_WARPS * 32), BYTES, s,
                p->groups, p->one, (const stored *)p->x, p->out, p->x_rows, p->out_rows, p->bias, p->x_stride,
                p->out_stride, (int)p->target);
}

#endif
