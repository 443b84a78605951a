/* Weights as a file has them into the layout of launch.h: one thread a unit. */
#include "compute/cuda/launch.h"
#include "compute/cuda/math.cuh"

static __device__ __forceinline__ float source_value(const cuda_pack_job &job, size_t i)
{
    return job.dtype == CUDA_DTYPE_F32    ? ((const float *)job.from)[i]
           : job.dtype == CUDA_DTYPE_BF16 ? cuda_of_bf16(((const uint16_t *)job.from)[i])
                                          : cuda_of_f16(((const uint16_t *)job.from)[i]);
}

/* The two bytes of a value as a packed matrix of 2-byte values has them. */
static __device__ __forceinline__ uint32_t half_of(const cuda_pack_job &job, size_t i)
{
    if (job.dtype == CUDA_DTYPE_F32 || (job.kind == CUDA_PAIR && job.dtype == CUDA_DTYPE_F16)) {
        return cuda_bf16_of(source_value(job, i));
    }
    return ((const uint16_t *)job.from)[i];
}

__global__ void __launch_bounds__(256) pack_kernel(cuda_pack_job job, const void *from, void *to, size_t n_threads)
{
    size_t i = (size_t)blockIdx.x * 256 + threadIdx.x, unit_k = job.kind == CUDA_F32 ? 4 : 8;
    size_t n_units = (job.n_in + unit_k - 1) / unit_k, out, unit, tile, left, k_step, at;
    uint32_t v[4] = {0, 0, 0, 0};

    if (i >= n_threads) {
        return;
    }
    job.from = from;
    if (job.input_major) {
        out = i % job.n_out;
        unit = job.first / unit_k + i / job.n_out;
        k_step = job.n_out;
        at = i / job.n_out * unit_k * job.n_out + out;
    } else {
        out = job.first + i / n_units;
        unit = i % n_units;
        k_step = 1;
        at = i / n_units * job.n_in + unit * unit_k;
    }
    left = job.n_in - unit * unit_k; /* values of the row from this unit on */
#pragma unroll
    for (unsigned k = 0; k < 8; k++) {
        if (k < unit_k && k < left) {
            if (job.kind != CUDA_F32) {
                v[k / 2] |= half_of(job, at + k * k_step) << (k % 2 * 16);
            } else if (k < 4) {
                v[k] = __float_as_uint(source_value(job, at + k * k_step));
            }
        }
    }
    tile = out / CUDA_TILE * job.tile_step + job.tile_first;
    ((uint4 *)to)[(tile * n_units + unit) * CUDA_TILE + out % CUDA_TILE] = make_uint4(v[0], v[1], v[2], v[3]);
}

void cuda_pack(const cuda_pack_job *job, cudaStream_t s)
{
    size_t unit_k = cuda_unit_k(job->kind), n_units = (job->n_in + unit_k - 1) / unit_k;
    size_t n = job->input_major ? job->n_out * ((job->n + unit_k - 1) / unit_k) : job->n * n_units;

    if (n > 0) {
        CUDA_LAUNCH(pack_kernel, (unsigned)((n + 255) / 256), 256, 0, s, *job, job->from, job->to, n);
    }
}
