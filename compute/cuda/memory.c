/* Memory of a GPU and the ways to and from it. Every copy goes through pinned memory: the driver would make the host wait for any other. */
#include "compute/cuda/device_priv.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* ------------------------------------------------------------------------------------------------ what is held
 * Of all devices of the process: memory may be freed by another thread than the one that steps the device. */
typedef struct held {
    struct held *next;
    const unsigned char *p;
    size_t bytes;
    int index; /* of the GPU */
} held;

/* Pinned memory has a list of its own: it is looked through for every copy, and a GPU may hold thousands of experts. */
static struct {
    pthread_mutex_t lock; /* a leaf */
    held *on_gpus, *pinned;
} memory = {.lock = PTHREAD_MUTEX_INITIALIZER};

static bool hold(held **list, const void *p, size_t bytes, int index)
{
    held *h = malloc(sizeof(*h));

    if (h == NULL) {
        return false;
    }
    pthread_mutex_lock(&memory.lock);
    *h = (held){*list, p, bytes, index};
    *list = h;
    pthread_mutex_unlock(&memory.lock);
    return true;
}

static void let_go(held **list, const void *p)
{
    held *h = NULL;

    pthread_mutex_lock(&memory.lock);
    for (held **link = list; *link != NULL; link = &(*link)->next) {
        if ((*link)->p == p) {
            h = *link;
            *link = h->next;
            break;
        }
    }
    pthread_mutex_unlock(&memory.lock);
    MOE_ASSERT(h != NULL);
    free(h);
}

bool cuda_is_pinned(const void *p, size_t bytes)
{
    const unsigned char *at = p;
    bool found = false;

    pthread_mutex_lock(&memory.lock);
    for (const held *h = memory.pinned; h != NULL && !found; h = h->next) {
        found = at >= h->p && at < h->p + h->bytes && bytes <= h->bytes - (size_t)(at - h->p);
    }
    pthread_mutex_unlock(&memory.lock);
    return found;
}

uint64_t cuda_memory_used(int index)
{
    uint64_t sum = 0;

    pthread_mutex_lock(&memory.lock);
    for (const held *h = memory.on_gpus; h != NULL; h = h->next) {
        sum += h->index == index ? h->bytes : 0;
    }
    pthread_mutex_unlock(&memory.lock);
    return sum;
}

void *cuda_memory_alloc(cuda_device *d, size_t bytes)
{
    void *p = NULL;

    (void)cudaSetDevice(d->index);
    if (cudaMalloc(&p, MOE_MAX(bytes, 1)) != cudaSuccess) {
        (void)cudaGetLastError(); /* too little memory is an answer, no failure of the device */
        return NULL;
    }
    if (!hold(&memory.on_gpus, p, bytes, d->index)) {
        (void)cudaFree(p);
        return NULL;
    }
    cuda_note(d, cudaMemsetAsync(p, 0, MOE_MAX(bytes, 1), d->stream));
    return p;
}

void cuda_memory_free(void *p)
{
    if (p != NULL) {
        let_go(&memory.on_gpus, p);
        (void)cudaFree(p);
    }
}

void *cuda_host_memory_alloc(size_t bytes)
{
    void *p = NULL;

    if (cudaHostAlloc(&p, MOE_MAX(bytes, 1), cudaHostAllocDefault) != cudaSuccess) {
        (void)cudaGetLastError();
        return NULL;
    }
    if (!hold(&memory.pinned, p, bytes, -1)) {
        (void)cudaFreeHost(p);
        return NULL;
    }
    return p;
}

void cuda_host_memory_free(void *p)
{
    if (p != NULL) {
        let_go(&memory.pinned, p);
        (void)cudaFreeHost(p);
    }
}

void *cuda_op_host_alloc(compute_device *d, size_t bytes)
{
    (void)cudaSetDevice(cuda_of(d)->index);
    return cuda_host_memory_alloc(bytes);
}

void cuda_op_host_free(compute_device *d, void *p, size_t bytes)
{
    (void)d;
    (void)bytes;
    cuda_host_memory_free(p);
}

compute_mem *cuda_op_alloc(compute_device *d, size_t bytes)
{
    return cuda_memory_alloc(cuda_of(d), bytes);
}

void cuda_op_free(compute_device *d, compute_mem *m)
{
    (void)d;
    cuda_memory_free(m);
}

/* ------------------------------------------------------------------------------------------------ failures, tickets */
void cuda_note(cuda_device *d, cudaError_t e)
{
    if (e == cudaSuccess || d->failed != MOE_OK) {
        return;
    }
    d->failed = e == cudaErrorMemoryAllocation ? MOE_ERR_NO_MEMORY : MOE_ERR_INTERNAL;
    moe_log(MOE_LOG_ERROR, "device %s has failed: %s", d->place, cudaGetErrorString(e));
}

static compute_ticket give_ticket(cuda_device *d)
{
    d->ticket++;
    cuda_note(d, cudaEventRecord(d->tickets[d->ticket % CUDA_TICKETS], d->stream));
    return d->ticket;
}

moe_status cuda_op_reached(compute_device *device, compute_ticket t)
{
    cuda_device *d = cuda_of(device);
    cudaError_t e;

    MOE_ASSERT(t <= d->ticket);
    if (d->failed != MOE_OK || t == 0) {
        return d->failed;
    }
    e = cudaEventQuery(d->tickets[t % CUDA_TICKETS]);
    if (e == cudaErrorNotReady) {
        return MOE_ERR_BUSY;
    }
    cuda_note(d, e);
    return d->failed;
}

moe_status cuda_op_wait(compute_device *device, compute_ticket t)
{
    cuda_device *d = cuda_of(device);

    MOE_ASSERT(t <= d->ticket);
    if (d->failed == MOE_OK && t != 0) {
        cuda_note(d, cudaEventSynchronize(d->tickets[t % CUDA_TICKETS]));
    }
    return d->failed;
}

moe_status cuda_op_sync(compute_device *device)
{
    cuda_device *d = cuda_of(device);

    cuda_note(d, cudaGetLastError());
    if (d->failed == MOE_OK) {
        cuda_note(d, cudaStreamSynchronize(d->stream));
    }
    return d->failed;
}

/* ------------------------------------------------------------------------------------------------ staging */
static moe_status segments_open(cuda_device *d, size_t segment_bytes)
{
    d->staging = cuda_host_memory_alloc(CUDA_SEGMENTS * segment_bytes);
    d->twin = cuda_memory_alloc(d, CUDA_SEGMENTS * segment_bytes);
    d->segment_bytes = segment_bytes;
    d->segment = d->used = 0;
    return d->staging == NULL || d->twin == NULL ? MOE_ERR_NO_MEMORY : MOE_OK;
}

static void segments_close(cuda_device *d)
{
    cuda_host_memory_free(d->staging);
    cuda_memory_free(d->twin);
    d->staging = d->twin = NULL;
}

/* The next segment, once what was copied out of it is there. */
static void next_segment(cuda_device *d)
{
    cuda_note(d, cudaEventRecord(d->segment_free[d->segment], d->stream));
    d->segment = (d->segment + 1) % CUDA_SEGMENTS;
    d->used = 0;
    cuda_note(d, cudaEventSynchronize(d->segment_free[d->segment]));
}

void *cuda_stage(cuda_device *d, size_t bytes, void **device_out)
{
    size_t at, want = moe_round_up(MOE_MAX(bytes, 1), 256);

    if (d->failed == MOE_OK && want > d->segment_bytes) {
        cuda_note(d, cudaStreamSynchronize(d->stream));
        segments_close(d);
        if (segments_open(d, moe_round_up(want, CUDA_SEGMENT_BYTES)) != MOE_OK) {
            cuda_note(d, cudaErrorMemoryAllocation);
        }
    }
    if (d->failed != MOE_OK) {
        return NULL;
    }
    if (want > d->segment_bytes - d->used) {
        next_segment(d);
    }
    at = d->segment * d->segment_bytes + d->used;
    d->used += want;
    *device_out = d->twin + at;
    return d->staging + at;
}

void cuda_stage_send(cuda_device *d, void *to, const void *staged, size_t bytes)
{
    if (bytes > 0) {
        cuda_note(d, cudaMemcpyAsync(to, staged, bytes, cudaMemcpyHostToDevice, d->stream));
        d->copied_bytes += bytes;
    }
}

const void *cuda_send(cuda_device *d, const void *from, size_t bytes)
{
    void *twin, *staged = cuda_stage(d, bytes, &twin);

    if (staged == NULL) {
        return NULL;
    }
    memcpy(staged, from, bytes);
    cuda_stage_send(d, twin, staged, bytes);
    return twin;
}

moe_status cuda_staging_open(cuda_device *d)
{
    for (size_t i = 0; i < CUDA_SEGMENTS; i++) {
        if (cudaEventCreateWithFlags(&d->segment_free[i], cudaEventDisableTiming) != cudaSuccess) {
            return MOE_ERR_NO_MEMORY;
        }
    }
    for (size_t i = 0; i < CUDA_TICKETS; i++) {
        if (cudaEventCreateWithFlags(&d->tickets[i], cudaEventDisableTiming) != cudaSuccess) {
            return MOE_ERR_NO_MEMORY;
        }
    }
    d->down = cuda_host_memory_alloc(CUDA_DOWNLOAD_BYTES);
    d->down_twin = cuda_memory_alloc(d, CUDA_DOWNLOAD_BYTES);
    if (d->down == NULL || d->down_twin == NULL) {
        return MOE_ERR_NO_MEMORY;
    }
    return segments_open(d, CUDA_SEGMENT_BYTES);
}

void cuda_staging_close(cuda_device *d)
{
    segments_close(d);
    cuda_host_memory_free(d->down);
    cuda_memory_free(d->down_twin);
    for (size_t i = 0; i < CUDA_SEGMENTS; i++) {
        if (d->segment_free[i] != NULL) {
            (void)cudaEventDestroy(d->segment_free[i]);
        }
    }
    for (size_t i = 0; i < CUDA_TICKETS; i++) {
        if (d->tickets[i] != NULL) {
            (void)cudaEventDestroy(d->tickets[i]);
        }
    }
}

/* ------------------------------------------------------------------------------------------------ copies */
void cuda_op_upload(compute_device *device, compute_mem *to, const void *from, size_t bytes)
{
    cuda_device *d = cuda_of(device);

    for (size_t done = 0; done < bytes;) {
        size_t n = MOE_MIN(bytes - done, CUDA_SEGMENT_BYTES);
        void *twin, *staged = cuda_stage(d, n, &twin);

        if (staged == NULL) {
            return;
        }
        memcpy(staged, (const unsigned char *)from + done, n);
        cuda_stage_send(d, (unsigned char *)to + done, staged, n);
        done += n;
    }
}

moe_status cuda_op_download(compute_device *device, void *to, const compute_mem *from, size_t bytes)
{
    cuda_device *d = cuda_of(device);

    for (size_t done = 0; done < bytes && d->failed == MOE_OK;) {
        size_t n = MOE_MIN(bytes - done, CUDA_DOWNLOAD_BYTES);

        cuda_note(d,
                  cudaMemcpyAsync(d->down, (const unsigned char *)from + done, n, cudaMemcpyDeviceToHost, d->stream));
        if (cuda_op_sync(device) == MOE_OK) {
            memcpy((unsigned char *)to + done, d->down, n);
        }
        d->copied_bytes += n;
        done += n;
    }
    return cuda_op_sync(device);
}

/* Rows of `from`, dense: where they lie if they do so there, else gathered in down_twin, at most CUDA_DOWNLOAD_BYTES. NULL: the device has failed. */
static const void *dense_rows(cuda_device *d, const compute_mem *from, const uint32_t *rows, size_t row_bytes, size_t n)
{
    const uint32_t *index;

    if (rows == NULL || n == 1) {
        return (const unsigned char *)from + (rows == NULL ? 0 : rows[0] * row_bytes);
    }
    index = cuda_send(d, rows, n * sizeof(*rows));
    if (index == NULL) {
        return NULL;
    }
    cuda_gather(d->down_twin, from, NULL, index, row_bytes, n, d->stream);
    return d->down_twin;
}

/* Pinned memory has the bytes when a later ticket is reached, any other when this returns. */
static void copy_out(cuda_device *d, void *to, const void *from, size_t bytes, bool pinned)
{
    if (!pinned) {
        (void)cuda_op_download(&d->base, to, from, bytes);
        return;
    }
    cuda_note(d, cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, d->stream));
    d->copied_bytes += bytes;
}

compute_ticket cuda_op_gather_out(compute_device *device, void *to, const compute_mem *from, const uint32_t *rows,
                                  size_t row_bytes, size_t n)
{
    cuda_device *d = cuda_of(device);
    bool pinned = cuda_is_pinned(to, n * row_bytes);
    size_t most = rows == NULL ? n : MOE_MAX(1, CUDA_DOWNLOAD_BYTES / row_bytes);

    for (size_t i = 0; i < n && d->failed == MOE_OK; i += most) {
        size_t m = MOE_MIN(n - i, most);
        const void *dense = dense_rows(d, from, rows == NULL ? NULL : rows + i, row_bytes, m);

        if (dense != NULL) {
            copy_out(d, (unsigned char *)to + i * row_bytes, dense, m * row_bytes, pinned);
        }
    }
    cuda_note(d, cudaGetLastError());
    return pinned && n > 0 ? give_ticket(d) : 0;
}

void cuda_op_scatter_in(compute_device *device, compute_mem *to, const void *from, const uint32_t *rows,
                        size_t row_bytes, size_t n)
{
    cuda_device *d = cuda_of(device);
    size_t most = MOE_MAX(1, CUDA_SEGMENT_BYTES / (row_bytes + sizeof(*rows)));

    if (rows == NULL) {
        cuda_op_upload(device, to, from, n * row_bytes);
        return;
    }
    for (size_t i = 0; i < n;) {
        size_t m = MOE_MIN(n - i, most), index_at = moe_round_up(m * row_bytes, 16);
        size_t bytes = index_at + m * sizeof(*rows);
        void *twin;
        unsigned char *staged = cuda_stage(d, bytes, &twin);

        if (staged == NULL) {
            return;
        }
        memcpy(staged, (const unsigned char *)from + i * row_bytes, m * row_bytes);
        memcpy(staged + index_at, rows + i, m * sizeof(*rows));
        cuda_stage_send(d, twin, staged, bytes);
        cuda_gather(to, twin, (const uint32_t *)(const void *)((unsigned char *)twin + index_at), NULL, row_bytes, m,
                    d->stream);
        i += m;
    }
    cuda_note(d, cudaGetLastError());
}
