/* All PTX of the kernels, and what nvcc and the fake GPU (tests/cuda/fake) spell differently: launches, shared memory, asynchronous copies.
 *
 *   CUDA_LAUNCH(kernel, grid, block, shared_bytes, stream, arguments...)
 *   CUDA_SHARED(type, name, count)   a shared array;  CUDA_DYNAMIC_SHARED(name)  the dynamic one, unsigned char, 128-byte aligned
 *
 *   ptx_copy_async, _commit, _wait   16 bytes from global to shared memory, of one thread and seen by it after its wait (sm_80 and later)
 *   ptx_bulk_copy, ptx_barrier_*     any multiple of 16 bytes, announced at an mbarrier in shared memory (sm_90 and later: CUDA_HAS_BULK) */
#ifndef CONCLAVE_COMPUTE_CUDA_PTX_H
#define CONCLAVE_COMPUTE_CUDA_PTX_H

#include <cuda_runtime.h>
#include <stdint.h>

#if defined(__CUDACC__)
#define CUDA_LAUNCH(kernel, grid, block, shared, stream, ...) kernel<<<grid, block, shared, stream>>>(__VA_ARGS__)
#define CUDA_ALLOW_SHARED(kernel, bytes)                                                                               \
    (void)cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)(bytes))
#define CUDA_SHARED(type, name, count) __shared__ type name[count]
#define CUDA_DYNAMIC_SHARED(name)      extern __shared__ __align__(128) unsigned char name[]
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
#define CUDA_HAS_BULK 1
#endif

static __device__ __forceinline__ uint32_t ptx_shared(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

/* .ca: warps of a block that read the same weights find them in L1. */
static __device__ __forceinline__ void ptx_copy_async(void *shared, const void *global)
{
    asm volatile("cp.async.ca.shared.global [%0], [%1], 16;" ::"r"(ptx_shared(shared)), "l"(global) : "memory");
}

static __device__ __forceinline__ void ptx_copy_async_commit(void)
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

template <int PENDING> static __device__ __forceinline__ void ptx_copy_async_wait(void)
{
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

#if defined(CUDA_HAS_BULK)
static __device__ __forceinline__ void ptx_barrier_init(uint64_t *barrier, uint32_t count)
{
    asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(ptx_shared(barrier)), "r"(count) : "memory");
}

/* Makes initialised barriers known to the copies; before the block's barrier. */
static __device__ __forceinline__ void ptx_barrier_fence(void)
{
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

static __device__ __forceinline__ void ptx_barrier_arrive(uint64_t *barrier)
{
    asm volatile("mbarrier.arrive.shared.b64 _, [%0];" ::"r"(ptx_shared(barrier)) : "memory");
}

static __device__ __forceinline__ void ptx_barrier_expect(uint64_t *barrier, uint32_t bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(ptx_shared(barrier)), "r"(bytes) : "memory");
}

static __device__ __forceinline__ void ptx_barrier_wait(uint64_t *barrier, uint32_t parity)
{
    uint32_t done;

    do {
        asm volatile("{\n .reg .pred p;\n mbarrier.try_wait.parity.shared.b64 p, [%1], %2;\n selp.u32 %0, 1, 0, p;\n}"
                     : "=r"(done)
                     : "r"(ptx_shared(barrier)), "r"(parity)
                     : "memory");
    } while (done == 0);
}

static __device__ __forceinline__ void ptx_bulk_copy(void *shared, const void *global, uint32_t bytes,
                                                     uint64_t *barrier)
{
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                     ptx_shared(shared)),
                 "l"(global), "r"(bytes), "r"(ptx_shared(barrier))
                 : "memory");
}
#endif

#else /* the fake GPU */
#define CUDA_LAUNCH(kernel, grid, block, shared, stream, ...)                                                          \
    fake::launch_kernel(#kernel, kernel, grid, block, shared, stream, __VA_ARGS__)
#define CUDA_ALLOW_SHARED(kernel, bytes) fake::allow_shared(reinterpret_cast<const void *>(kernel), bytes)
#define CUDA_SHARED(type, name, count)                                                                                 \
    static const char name##_key = 0;                                                                                  \
    type *const name = static_cast<type *>(fake::shared_region(&name##_key, sizeof(type) * (count), alignof(type)))
#define CUDA_DYNAMIC_SHARED(name) unsigned char *const name = static_cast<unsigned char *>(fake::shared_dynamic())
#if FAKE_ARCH >= 90
#define CUDA_HAS_BULK 1
#endif
#define ptx_copy_async(shared, global)                fake::copy_async(shared, global, 16)
#define ptx_copy_async_commit()                       fake::copy_async_commit()
#define ptx_barrier_init(barrier, count)              fake::mbarrier_init(barrier, count, FAKE_LINE)
#define ptx_barrier_fence()                           (void)0
#define ptx_barrier_arrive(barrier)                   fake::mbarrier_arrive(barrier, 0, FAKE_LINE)
#define ptx_barrier_expect(barrier, bytes)            fake::mbarrier_arrive(barrier, bytes, FAKE_LINE)
#define ptx_barrier_wait(barrier, parity)             fake::mbarrier_wait(barrier, parity, FAKE_LINE)
#define ptx_bulk_copy(shared, global, bytes, barrier) fake::bulk_copy(shared, global, bytes, barrier, FAKE_LINE)

template <int PENDING> static inline void ptx_copy_async_wait(void)
{
    fake::copy_async_wait(PENDING);
}
#endif

#endif
