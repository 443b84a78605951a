/* Kernels with one fault each, and the same kernel without it: what the fake GPU has to find, and what it must not. test_cuda_fake.c runs them. */
#include "compute/cuda/ptx.h"
#include "tests/cuda/faults.h"
#include "tests/cuda/fake/fake.h"

#include <string.h>

#define N 64u

/* Each thread hands its value to its mirror. */
__global__ void mirror_kernel(float *out, bool barrier)
{
    CUDA_SHARED(float, a, N);

    a[threadIdx.x] = (float)threadIdx.x;
    if (barrier) {
        __syncthreads();
    }
    out[threadIdx.x] = a[N - 1 - threadIdx.x];
}

__global__ void index_kernel(float *out, unsigned n)
{
    out[threadIdx.x + n] = (float)(N - 1 - threadIdx.x);
}

__global__ void shared_index_kernel(float *out, unsigned by)
{
    CUDA_SHARED(float, a, N);

    a[threadIdx.x + by] = (float)threadIdx.x;
    __syncthreads();
    out[threadIdx.x] = a[N - 1 - threadIdx.x];
}

__global__ void divergent_kernel(float *out, unsigned most)
{
    if (threadIdx.x < most) {
        __syncthreads();
    }
    out[threadIdx.x] = (float)(N - 1 - threadIdx.x);
}

__global__ void two_barriers_kernel(float *out)
{
    if (threadIdx.x < N / 2) {
        __syncthreads();
        out[threadIdx.x] = 1.0f;
    } else {
        __syncthreads();
    }
}

__global__ void lanes_kernel(float *out, unsigned most)
{
    float v = (float)threadIdx.x;

    if (threadIdx.x % 32 < most) {
        v = __shfl_xor_sync(0xffffffffu, v, 31);
    }
    out[threadIdx.x] = (float)(N - 1 - threadIdx.x) + 0.0f * v;
}

/* cp.async: 16 lanes bring what all read. */
__global__ void copy_kernel(float *out, const float *in, bool wait, bool barrier)
{
    CUDA_SHARED(float4, a, N / 4);

    if (threadIdx.x < N / 4) {
        ptx_copy_async(a + threadIdx.x, in + 4 * threadIdx.x);
        ptx_copy_async_commit();
        if (wait) {
            ptx_copy_async_wait<0>();
        }
    }
    if (barrier) {
        __syncthreads();
    }
    out[threadIdx.x] = ((float *)(void *)a)[N - 1 - threadIdx.x];
    if (!wait && threadIdx.x < N / 4) {
        ptx_copy_async_wait<0>();
    }
}

/* cp.async.bulk, twice into one place: the second copy must wait until all have read the first. */
__global__ void bulk_kernel(float *out, const float *in, bool wait, bool empty)
{
    CUDA_SHARED(float4, a, N / 4);
    CUDA_SHARED(uint64_t, full, 1);
    CUDA_SHARED(uint64_t, used, 1);
    float sum = 0.0f;

    if (threadIdx.x == 0) {
        ptx_barrier_init(full, 1);
        ptx_barrier_init(used, N);
        ptx_barrier_fence();
    }
    __syncthreads();
    for (unsigned round = 0; round < 2; round++) {
        if (threadIdx.x == 0) {
            if (round > 0 && empty) {
                ptx_barrier_wait(used, 0);
            }
            ptx_barrier_expect(full, N * 4);
            ptx_bulk_copy(a, in + round * N, N * 4, full);
        }
        if (wait) {
            ptx_barrier_wait(full, round);
        }
        sum += ((float *)(void *)a)[N - 1 - threadIdx.x];
        ptx_barrier_arrive(used);
    }
    ptx_barrier_wait(full, 1);
    out[threadIdx.x] = sum;
}

__global__ void shared_limit_kernel(float *out)
{
    CUDA_DYNAMIC_SHARED(a);

    a[threadIdx.x] = 0;
    out[threadIdx.x] = (float)(N - 1 - threadIdx.x);
}

struct gpu {
    cudaStream_t stream, other;
    float *in, *out, *host; /* in: [2][N], 0 to N - 1 and zeroes; host: pinned */
};

/* A kernel by way of a graph: of another one's argument, or with an event that belongs beside it. */
static void run_graph(const gpu &g, const char *name, bool right)
{
    cudaGraph_t graph;
    cudaGraphExec_t made;
    cudaEvent_t event;

    (void)cudaEventCreateWithFlags(&event, 0);
    (void)cudaStreamBeginCapture(g.stream, cudaStreamCaptureModeThreadLocal);
    CUDA_LAUNCH(mirror_kernel, 1, N, 0, g.stream, right || strcmp(name, "graph argument") != 0 ? g.out : g.in, true);
    if (!right && strcmp(name, "graph event") == 0) {
        (void)cudaEventRecord(event, g.stream);
    }
    (void)cudaStreamEndCapture(g.stream, &graph);
    (void)cudaGraphInstantiate(&made, graph, 0);
    (void)cudaGraphDestroy(graph);
    (void)cudaGraphLaunch(made, g.stream);
    (void)cudaStreamSynchronize(g.stream);
    (void)cudaGraphExecDestroy(made);
    (void)cudaEventDestroy(event);
}

static void run(const gpu &g, const char *what)
{
    bool right = strncmp(what, "right ", 6) == 0;
    const char *name = right ? what + 6 : what;

    if (strcmp(name, "barrier") == 0) {
        CUDA_LAUNCH(mirror_kernel, 1, N, 0, g.stream, g.out, right);
    } else if (strcmp(name, "index") == 0) {
        CUDA_LAUNCH(index_kernel, 1, N, 0, g.stream, g.out, right ? 0u : 1u);
    } else if (strcmp(name, "shared index") == 0) {
        CUDA_LAUNCH(shared_index_kernel, 1, N, 0, g.stream, g.out, right ? 0u : 1u);
    } else if (strcmp(name, "divergent barrier") == 0) {
        CUDA_LAUNCH(divergent_kernel, 1, N, 0, g.stream, g.out, right ? N : 40u);
    } else if (strcmp(name, "two barriers") == 0) {
        CUDA_LAUNCH(two_barriers_kernel, 1, N, 0, g.stream, g.out);
    } else if (strcmp(name, "lanes") == 0) {
        CUDA_LAUNCH(lanes_kernel, 1, N, 0, g.stream, g.out, right ? 32u : 20u);
    } else if (strcmp(name, "copy wait") == 0) {
        CUDA_LAUNCH(copy_kernel, 1, N, 0, g.stream, g.out, g.in, right, true);
    } else if (strcmp(name, "copy barrier") == 0) {
        CUDA_LAUNCH(copy_kernel, 1, N, 0, g.stream, g.out, g.in, true, right);
    } else if (strcmp(name, "bulk wait") == 0) {
        CUDA_LAUNCH(bulk_kernel, 1, N, 0, g.stream, g.out, g.in, right, true);
    } else if (strcmp(name, "bulk reuse") == 0) {
        CUDA_LAUNCH(bulk_kernel, 1, N, 0, g.stream, g.out, g.in, true, right);
    } else if (strcmp(name, "bulk alignment") == 0) {
        CUDA_LAUNCH(bulk_kernel, 1, N, 0, g.stream, g.out, g.in + (right ? 0 : 1), true, true);
    } else if (strcmp(name, "shared limit") == 0) {
        if (right) {
            CUDA_ALLOW_SHARED(shared_limit_kernel, 100u << 10);
        }
        CUDA_LAUNCH(shared_limit_kernel, 1, N, 100u << 10, g.stream, g.out);
    } else if (strcmp(name, "graph argument") == 0 || strcmp(name, "graph event") == 0) {
        run_graph(g, name, right);
    } else if (strcmp(name, "host pointer") == 0) {
        CUDA_LAUNCH(mirror_kernel, 1, N, 0, g.stream, right ? g.out : g.host, true);
    } else if (strcmp(name, "threads") == 0) {
        CUDA_LAUNCH(mirror_kernel, 1, right ? N : 1025u, 0, g.stream, g.out, true);
    } else {
        CUDA_LAUNCH(mirror_kernel, 1, N, 0, g.stream, g.out, true);
    }
}

/* s goes on when `of` has done what it was given. */
static void let_wait(cudaStream_t s, cudaStream_t of)
{
    cudaEvent_t done;

    (void)cudaEventCreateWithFlags(&done, 0);
    (void)cudaEventRecord(done, of);
    (void)cudaStreamWaitEvent(s, done, 0);
    (void)cudaEventDestroy(done);
}

int fault_run(const char *what)
{
    bool right = strncmp(what, "right ", 6) == 0;
    const char *name = right ? what + 6 : what;
    gpu g;
    float pageable[N];
    int wrong = 0;

    if (cudaStreamCreateWithFlags(&g.stream, 0) != cudaSuccess || cudaStreamCreateWithFlags(&g.other, 0) != cudaSuccess ||
        cudaMalloc((void **)&g.in, 2 * N * 4) != cudaSuccess || cudaMalloc((void **)&g.out, N * 4) != cudaSuccess ||
        cudaHostAlloc((void **)&g.host, 2 * N * 4, 0) != cudaSuccess) {
        return 2;
    }
    for (unsigned i = 0; i < 2 * N; i++) {
        g.host[i] = i < N ? (float)i : 0.0f;
    }
    (void)cudaMemcpyAsync(g.in, g.host, 2 * N * 4, cudaMemcpyHostToDevice, g.stream);
    if (strcmp(name, "host read") == 0 && !right) {
        return g.in[1] == 1.0f ? 0 : 3;
    }
    if (strcmp(name, "source") == 0 && !right) {
        g.host[1] = 5.0f; /* the copy has not read it yet */
        (void)cudaStreamSynchronize(g.stream);
        CUDA_LAUNCH(copy_kernel, 1, N, 0, g.stream, g.out, g.in, true, true);
    } else {
        (void)cudaStreamSynchronize(g.stream);
        run(g, what);
    }
    if (cudaGetLastError() != cudaSuccess) {
        return 4;
    }
    cudaStream_t down = g.stream;
    bool overtaken = strcmp(name, "overtaken copy") == 0;
    if (strcmp(name, "streams") == 0 || overtaken) {
        down = g.other;
        if (right || overtaken) {
            let_wait(down, g.stream);
        }
    }
    bool mixed = strcmp(name, "pageable") == 0 && !right;
    (void)cudaMemcpyAsync(mixed ? pageable : g.host, g.out, N * 4, cudaMemcpyDeviceToHost, down);
    if (overtaken) { /* what is copied out gets other values meanwhile */
        if (right) {
            let_wait(g.stream, down);
        }
        (void)cudaMemsetAsync(g.out, 0, N * 4, g.stream);
        (void)cudaStreamSynchronize(g.stream);
    }
    if (right || strcmp(name, "sync") != 0) {
        (void)cudaStreamSynchronize(down);
    }
    for (unsigned i = 0; i < N; i++) {
        wrong += g.host[i] != (float)(N - 1 - i);
    }
    (void)cudaFree(g.in);
    (void)cudaFree(g.out);
    (void)cudaFreeHost(g.host);
    (void)cudaStreamDestroy(g.stream);
    (void)cudaStreamDestroy(g.other);
    return wrong != 0 ? 3 : 0;
}
