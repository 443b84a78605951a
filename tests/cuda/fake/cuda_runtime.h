/* The device side of CUDA for g++: what the kernels of compute/cuda use of it, as functions of fake.cc. tests/cuda/fake/fake.h says what is checked. */
#ifndef FAKE_CUDA_RUNTIME_H
#define FAKE_CUDA_RUNTIME_H

#include "cuda_runtime_api.h"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <type_traits>

#define __global__ static
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __restrict__ __restrict
#define __constant__ static

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_)
    {
    }
};
struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w)
{
    return uint4{x, y, z, w};
}
static inline float4 make_float4(float x, float y, float z, float w)
{
    return float4{x, y, z, w};
}

/* ------------------------------------------------------------------------------------------------ where a thread is */
namespace fake
{
struct place {
    dim3 thread, block, block_dim, grid_dim;
};
extern place here; /* of the fibre that runs; set by every switch */
struct line {
    const char *file;
    int number;
};
void barrier(line at);
bool barrier_or(bool value, line at);
void warp_barrier(unsigned mask, line at);
uint32_t shuffle(unsigned mask, uint32_t value, unsigned from, line at); /* of absolute lane `from` */
uint32_t ballot(unsigned mask, bool value, line at);
void *shared_region(const void *key, size_t bytes, size_t alignment);
void *shared_dynamic();
uint64_t atomic_add(uint64_t *p, uint64_t v);

/* Asynchronous copies of a thread (cp.async) and of a block (cp.async.bulk with its mbarrier). */
void copy_async(void *shared, const void *global, unsigned bytes);
void copy_async_commit();
void copy_async_wait(unsigned pending); /* all but the newest `pending` groups are there */
void bulk_copy(void *shared, const void *global, unsigned bytes, uint64_t *barrier, line at);
void mbarrier_init(uint64_t *barrier, unsigned count, line at);
void mbarrier_arrive(uint64_t *barrier, unsigned expect_bytes, line at);
void mbarrier_wait(uint64_t *barrier, unsigned parity, line at);

void check_argument(const void *p, const char *kernel);
template <class T> void check_one(const T &v, const char *kernel)
{
    if constexpr (std::is_pointer_v<T>) {
        check_argument(static_cast<const void *>(v), kernel);
    }
}
void launch(const char *name, const void *kernel, dim3 grid, dim3 block, size_t shared, cudaStream_t stream,
            std::function<void()> body);
template <class K, class... A>
void launch_kernel(const char *name, K kernel, dim3 grid, dim3 block, size_t shared, cudaStream_t stream, A... a)
{
    (check_one(a, name), ...);
    launch(name, reinterpret_cast<const void *>(kernel), grid, block, shared, stream, [=] { kernel(a...); });
}
void allow_shared(const void *kernel, size_t bytes);

template <class T> T shuffle_of(unsigned mask, T value, unsigned from, line at)
{
    uint32_t u;
    static_assert(sizeof(T) == 4, "a shuffle moves 32 bits");
    __builtin_memcpy(&u, &value, 4);
    u = shuffle(mask, u, from, at);
    __builtin_memcpy(&value, &u, 4);
    return value;
}
static inline unsigned lane()
{
    return (here.thread.x + here.block_dim.x * (here.thread.y + here.block_dim.y * here.thread.z)) & 31u;
}
} // namespace fake

#define FAKE_LINE                    (fake::line{__FILE__, __LINE__})
#define threadIdx                    (fake::here.thread)
#define blockIdx                     (fake::here.block)
#define blockDim                     (fake::here.block_dim)
#define gridDim                      (fake::here.grid_dim)
#define __syncthreads()              fake::barrier(FAKE_LINE)
#define __syncthreads_or(p)          fake::barrier_or((p) != 0, FAKE_LINE)
#define __syncwarp(...)              fake::warp_barrier(0xffffffffu, FAKE_LINE)
#define __shfl_sync(mask, v, from)   fake::shuffle_of(mask, v, (unsigned)(from)&31u, FAKE_LINE)
#define __shfl_xor_sync(mask, v, by) fake::shuffle_of(mask, v, fake::lane() ^ (unsigned)(by), FAKE_LINE)
#define __shfl_down_sync(mask, v, by)                                                                                  \
    fake::shuffle_of(mask, v, fake::lane() + (by) < 32u ? fake::lane() + (by) : fake::lane(), FAKE_LINE)
#define __ballot_sync(mask, p) fake::ballot(mask, (p) != 0, FAKE_LINE)
#define atomicAdd(p, v)        fake::atomic_add((uint64_t *)(p), v)

/* ------------------------------------------------------------------------------------------------ arithmetic */
static inline float __fmaf_rn(float a, float b, float c)
{
    return __builtin_fmaf(a, b, c);
}
static inline float __fmul_rn(float a, float b)
{
    return a * b;
}
static inline float __fadd_rn(float a, float b)
{
    return a + b;
}
static inline float __fsub_rn(float a, float b)
{
    return a - b;
}
static inline float __fdiv_rn(float a, float b)
{
    return a / b;
}
static inline float __fsqrt_rn(float a)
{
    return __builtin_sqrtf(a);
}
static inline float __uint2float_rn(unsigned a)
{
    return (float)a;
}
static inline float __int2float_rn(int a)
{
    return (float)a;
}
static inline unsigned __float_as_uint(float f)
{
    unsigned u;
    __builtin_memcpy(&u, &f, 4);
    return u;
}
static inline float __uint_as_float(unsigned u)
{
    float f;
    __builtin_memcpy(&f, &u, 4);
    return f;
}
static inline int __clz(int x)
{
    return x == 0 ? 32 : __builtin_clz((unsigned)x);
}

#endif
