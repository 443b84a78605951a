/* A ring of weight units in shared memory that asynchronous copies keep full.
 *
 * A warp (or ROW_WARPS warps that multiply the same weights by different rows) walks OUTPUTS tiles of a packed matrix, one unit of 16 bytes a lane and tile at a
 * time. Units come in stages. With bulk copies (sm_90) one thread asks for a whole stage, 4 KB, and mbarriers say when it is there and when it has been used
 * by all. Before that every lane copies the units that it will read itself, so that nothing but its own wait is needed; then each warp has a ring of its own, and
 * warps that want the same weights find them in L1. */
#ifndef CONCLAVE_COMPUTE_CUDA_RING_CUH
#define CONCLAVE_COMPUTE_CUDA_RING_CUH

#include "compute/cuda/math.cuh"

#define RING_STAGES      6
#define RING_STAGE_UNITS 8 /* 512 bytes each: 4 KB a stage; 20 KB of the 24 are in flight while a stage is used */
#define RING_UNIT_BYTES  512

template <int OUTPUTS, int ROW_WARPS> struct weight_ring {
    /* Units of k in a stage, for each of the OUTPUTS tiles. */
    static const int STEPS = RING_STAGE_UNITS / OUTPUTS;
    static const int OWN_STAGES = ROW_WARPS == 1 ? RING_STAGES : 2; /* of rings that a warp has for itself */
    static const int OWN_STEPS = ROW_WARPS == 1 ? STEPS : 1;
    /* Of one set of tiles, barriers included, a multiple of 128. */
    static const int BULK_BYTES = RING_STAGES * RING_STAGE_UNITS * RING_UNIT_BYTES + 128;
    static const int OWN_BYTES = ROW_WARPS * OWN_STAGES * OWN_STEPS * OUTPUTS * RING_UNIT_BYTES;
    static const int BYTES = BULK_BYTES > OWN_BYTES ? BULK_BYTES : OWN_BYTES;

    const unsigned char *tile[OUTPUTS]; /* global */
    unsigned char *units;               /* shared */
    uint32_t n_steps, row_warp, lane;   /* n_steps: units of k in all */

#if defined(CUDA_HAS_BULK)
    uint64_t *full, *empty;

    static const int TAKE_STEPS = STEPS;

    __device__ __forceinline__ uint32_t n_stages() const
    {
        return (n_steps + STEPS - 1) / STEPS;
    }

    /* Stage `stage` of the walk, into slot stage % RING_STAGES. By one thread. */
    __device__ __forceinline__ void ask(uint32_t stage)
    {
        uint32_t slot = stage % RING_STAGES, left = n_steps - stage * STEPS, steps = left < STEPS ? left : STEPS;

        ptx_barrier_expect(&full[slot], steps * OUTPUTS * RING_UNIT_BYTES);
#pragma unroll
        for (int o = 0; o < OUTPUTS; o++) {
            ptx_bulk_copy(units + (slot * RING_STAGE_UNITS + o * STEPS) * RING_UNIT_BYTES,
                          tile[o] + (size_t)stage * STEPS * RING_UNIT_BYTES, steps * RING_UNIT_BYTES, &full[slot]);
        }
    }

    /* Before the block's first barrier. */
    __device__ __forceinline__ void open(unsigned char *shared)
    {
        units = shared;
        full = (uint64_t *)(void *)(shared + RING_STAGES * RING_STAGE_UNITS * RING_UNIT_BYTES);
        empty = full + RING_STAGES;
        if (row_warp == 0 && lane == 0) {
            for (int i = 0; i < RING_STAGES; i++) {
                ptx_barrier_init(&full[i], 1);
                ptx_barrier_init(&empty[i], ROW_WARPS);
            }
            ptx_barrier_fence();
        }
    }

    /* After it. */
    __device__ __forceinline__ void start()
    {
        if (row_warp == 0 && lane == 0) {
            for (uint32_t i = 0; i < RING_STAGES && i < n_stages(); i++) {
                ask(i);
            }
        }
    }

    __device__ __forceinline__ void wait(uint32_t stage)
    {
        ptx_barrier_wait(&full[stage % RING_STAGES], stage / RING_STAGES & 1u);
    }

    __device__ __forceinline__ uint4 take(uint32_t stage, int step, int o) const
    {
        uint32_t at = (stage % RING_STAGES * RING_STAGE_UNITS + o * STEPS + step) * RING_UNIT_BYTES + lane * 16;

        return *(const uint4 *)(const void *)(units + at);
    }

    /* This warp has used a stage; the first warp asks for what comes into its slot once all have. */
    __device__ __forceinline__ void used(uint32_t stage)
    {
        __syncwarp();
        if (lane == 0) {
            ptx_barrier_arrive(&empty[stage % RING_STAGES]);
            if (row_warp == 0 && stage + RING_STAGES < n_stages()) {
                ptx_barrier_wait(&empty[stage % RING_STAGES], stage / RING_STAGES & 1u);
                ask(stage + RING_STAGES);
            }
        }
        __syncwarp();
    }
#else
    static const int TAKE_STEPS = OWN_STEPS;

    __device__ __forceinline__ uint32_t n_stages() const
    {
        return (n_steps + OWN_STEPS - 1) / OWN_STEPS;
    }

    __device__ __forceinline__ unsigned char *slot(uint32_t stage, int step, int o) const
    {
        return units + ((stage % OWN_STAGES * OWN_STEPS + step) * OUTPUTS + o) * RING_UNIT_BYTES + lane * 16;
    }

    /* Every stage is a group of copies, those past the end too: a wait counts groups. */
    __device__ __forceinline__ void ask(uint32_t stage)
    {
#pragma unroll
        for (int step = 0; step < OWN_STEPS; step++) {
            uint32_t at = stage * OWN_STEPS + step;

            if (at < n_steps) {
#pragma unroll
                for (int o = 0; o < OUTPUTS; o++) {
                    ptx_copy_async(slot(stage, step, o), tile[o] + (size_t)at * RING_UNIT_BYTES + lane * 16);
                }
            }
        }
        ptx_copy_async_commit();
    }

    __device__ __forceinline__ void open(unsigned char *shared)
    {
        units = shared + row_warp * (OWN_BYTES / ROW_WARPS);
    }

    __device__ __forceinline__ void start()
    {
        for (uint32_t i = 0; i < OWN_STAGES; i++) {
            ask(i);
        }
    }

    __device__ __forceinline__ void wait(uint32_t stage)
    {
        (void)stage;
        ptx_copy_async_wait<OWN_STAGES - 1>();
    }

    __device__ __forceinline__ uint4 take(uint32_t stage, int step, int o) const
    {
        return *(const uint4 *)(const void *)slot(stage, step, o);
    }

    __device__ __forceinline__ void used(uint32_t stage)
    {
        ask(stage + OWN_STAGES);
    }
#endif
};

#endif
