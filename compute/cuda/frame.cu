/* The checksum of a frame that lies in the GPU's memory: CRC-32C, as proto/wire.h has it. One block: each thread walks a piece, then the pieces' sums are moved to where they belong and added. */
#include "compute/cuda/launch.h"
#include "compute/cuda/math.cuh"

#define THREADS    1024u
#define POLYNOMIAL 0x82f63b78u /* Castagnoli's, bit 31 the lowest power */

/* a * b modulo the polynomial. */
static __device__ __forceinline__ uint32_t times(uint32_t a, uint32_t b)
{
    uint32_t product = 0;

    for (unsigned i = 0; i < 32; i++) {
        product ^= b & (0u - (a >> 31));
        a <<= 1;
        b = b >> 1 ^ (POLYNOMIAL & (0u - (b & 1u)));
    }
    return product;
}

/* The sum after n further bytes of zeroes: times x^8 for each. */
static __device__ __forceinline__ uint32_t moved(uint32_t sum, size_t n)
{
    uint32_t by = 1u << 23;

    for (; n > 0; n >>= 1) {
        sum = (n & 1) != 0 ? times(by, sum) : sum;
        by = times(by, by);
    }
    return sum;
}

/* n bytes without the four at sum_at, where the sum goes. */
__global__ void __launch_bounds__(THREADS) frame_sum_kernel(unsigned char *frame, size_t n, size_t sum_at)
{
    CUDA_SHARED(uint32_t, table, 256);
    CUDA_SHARED(uint32_t, sums, THREADS / 32);
    size_t each = (n + THREADS - 1) / THREADS, first = threadIdx.x * each < n ? threadIdx.x * each : n,
           end = n - first < each ? n : first + each;
    uint32_t sum = threadIdx.x == 0 ? 0xffffffffu : 0;

    if (threadIdx.x < 256) {
        uint32_t entry = threadIdx.x;

        for (unsigned i = 0; i < 8; i++) {
            entry = entry >> 1 ^ (POLYNOMIAL & (0u - (entry & 1u)));
        }
        table[threadIdx.x] = entry;
    }
    __syncthreads();
    for (size_t i = first; i < end; i++) {
        sum = sum >> 8 ^ table[(sum ^ frame[i < sum_at ? i : i + 4]) & 255u];
    }
    sum = moved(sum, n - end);
    for (unsigned by = 16; by > 0; by >>= 1) {
        sum ^= __shfl_xor_sync(0xffffffffu, sum, by);
    }
    if (threadIdx.x % 32 == 0) {
        sums[threadIdx.x / 32] = sum;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        for (unsigned i = 1; i < THREADS / 32; i++) {
            sum ^= sums[i];
        }
        *(uint32_t *)(void *)(frame + sum_at) = ~sum;
    }
}

void cuda_frame_sum(void *frame, size_t bytes, size_t sum_at, cudaStream_t s)
{
    CUDA_LAUNCH(frame_sum_kernel, 1, THREADS, 0, s, (unsigned char *)frame, bytes - 4, sum_at);
}
