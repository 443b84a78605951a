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
    if (d->recorded != NULL) {
        d->record_failed = d->record_failed == cudaSuccess ? e : d->record_failed;
        return;
    }
    d->failed = e == cudaErrorMemoryAllocation ? MOE_ERR_NO_MEMORY : MOE_ERR_INTERNAL;
    moe_log(MOE_LOG_ERROR, "device %s has failed: %s", d->place, cudaGetErrorString(e));
}

static cuda_mark *mark_of(cuda_device *d, compute_ticket t)
{
    return &d->marks[t % CUDA_TICKETS];
}

cudaStream_t cuda_queue(cuda_device *d)
{
    cuda_mark *m = mark_of(d, d->ticket + 1);

    if (d->recorded != NULL) {
        return d->recorder;
    }
    if (!m->burst) {
        m->burst = true;
        cuda_note(d, cudaEventRecord(m->began, d->stream));
    }
    return d->stream;
}

/* copies goes on when stream has done what it was given until now. */
static void join(cuda_device *d)
{
    cuda_mark *m = mark_of(d, d->ticket + 1);

    cuda_note(d, cudaEventRecord(m->computed, d->stream));
    cuda_note(d, cudaStreamWaitEvent(d->copies, m->computed, 0));
}

/* After a join. */
static compute_ticket give_ticket(cuda_device *d)
{
    cuda_mark *next;

    d->ticket++;
    cuda_note(d, cudaEventRecord(mark_of(d, d->ticket)->done, d->copies));
    next = mark_of(d, d->ticket + 1);
    next->burst = next->copies = false;
    return d->ticket;
}

static uint64_t ns_between(cudaEvent_t from, cudaEvent_t to)
{
    float ms = 0.0f;

    if (cudaEventElapsedTime(&ms, from, to) != cudaSuccess) {
        (void)cudaGetLastError(); /* a time that is not known is no failure of the device */
    }
    return (uint64_t)((double)ms * 1e6 + 0.5);
}

/* Of a ticket that is reached, and those before it. A mark that was used again meanwhile has lost its times. */
static void count_times(cuda_device *d, compute_ticket t)
{
    if (d->ticket >= CUDA_TICKETS) {
        d->timed = MOE_MAX(d->timed, d->ticket + 1 - CUDA_TICKETS);
    }
    while (d->timed < t) {
        const cuda_mark *m = mark_of(d, ++d->timed);

        d->kernel_ns += m->burst ? ns_between(m->began, m->computed) : 0;
        d->copy_ns += m->copies ? ns_between(m->copied, m->done) : 0;
    }
}

moe_status cuda_op_reached(compute_device *device, compute_ticket t)
{
    cuda_device *d = cuda_of(device);
    cudaError_t e;

    MOE_ASSERT(t <= d->ticket);
    if (d->failed != MOE_OK || t == 0) {
        return d->failed;
    }
    e = cudaEventQuery(mark_of(d, t)->done);
    if (e == cudaErrorNotReady) {
        return MOE_ERR_BUSY;
    }
    cuda_note(d, e);
    count_times(d, t);
    return d->failed;
}

moe_status cuda_op_wait(compute_device *device, compute_ticket t)
{
    cuda_device *d = cuda_of(device);

    MOE_ASSERT(t <= d->ticket);
    if (d->failed == MOE_OK && t != 0) {
        cuda_note(d, cudaEventSynchronize(mark_of(d, t)->done));
        count_times(d, t);
    }
    return d->failed;
}

moe_status cuda_op_sync(compute_device *device)
{
    cuda_device *d = cuda_of(device);

    cuda_note(d, cudaGetLastError());
    if (d->failed == MOE_OK) {
        join(d);
        (void)give_ticket(d);
    }
    return cuda_op_wait(device, d->ticket);
}

/* ------------------------------------------------------------------------------------------------ staging */
static moe_status segments_open(cuda_device *d, size_t segment_bytes)
{
    d->staging = cuda_host_memory_alloc(CUDA_SEGMENTS * segment_bytes);
    d->twin = cuda_memory_alloc(d, CUDA_SEGMENTS * segment_bytes);
    d->segment_bytes = segment_bytes;
    d->segment = d->used = 0;
    if (d->staging == NULL || d->twin == NULL) {
        return MOE_ERR_NO_MEMORY;
    }
    cuda_note(d, cudaStreamSynchronize(d->stream)); /* which zeroes the twin, and the other stream copies there */
    return MOE_OK;
}

static void segments_close(cuda_device *d)
{
    cuda_host_memory_free(d->staging);
    cuda_memory_free(d->twin);
    d->staging = d->twin = NULL;
}

/* The next segment, once stream has used what was copied out of it to the twin. */
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

    MOE_ASSERT(d->recorded == NULL); /* where it is staged would be recorded */
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

/* Always to the twin first, which nothing that was queued before can be using: so the copy begins at once, whatever is being computed. */
void cuda_stage_send(cuda_device *d, void *to, const void *staged, size_t bytes)
{
    unsigned char *twin = d->twin + ((const unsigned char *)staged - d->staging);

    if (bytes == 0) {
        return;
    }
    cuda_note(d, cudaMemcpyAsync(twin, staged, bytes, cudaMemcpyHostToDevice, d->up));
    cuda_note(d, cudaEventRecord(d->arrived, d->up));
    cuda_note(d, cudaStreamWaitEvent(d->stream, d->arrived, 0));
    if (to != twin) {
        cuda_note(d, cudaMemcpyAsync(to, twin, bytes, cudaMemcpyDeviceToDevice, cuda_queue(d)));
    }
    d->copied_bytes += bytes;
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

static bool events_open(cudaEvent_t *events, size_t n, unsigned flags)
{
    for (size_t i = 0; i < n; i++) {
        if (cudaEventCreateWithFlags(&events[i], flags) != cudaSuccess) {
            return false;
        }
    }
    return true;
}

static void events_close(cudaEvent_t *events, size_t n)
{
    for (size_t i = 0; i < n && events[i] != NULL; i++) {
        (void)cudaEventDestroy(events[i]);
    }
}

static bool marks_open(cuda_device *d)
{
    for (size_t i = 0; i < CUDA_TICKETS; i++) {
        cuda_mark *m = &d->marks[i];

        if (!events_open(&m->began, 1, cudaEventDefault) || !events_open(&m->computed, 1, cudaEventDefault) ||
            !events_open(&m->copied, 1, cudaEventDefault) || !events_open(&m->done, 1, cudaEventDefault)) {
            return false;
        }
    }
    return true;
}

static void marks_close(cuda_device *d)
{
    for (size_t i = 0; i < CUDA_TICKETS; i++) {
        cuda_mark *m = &d->marks[i];

        events_close(&m->began, 1);
        events_close(&m->computed, 1);
        events_close(&m->copied, 1);
        events_close(&m->done, 1);
    }
}

moe_status cuda_staging_open(cuda_device *d)
{
    if (cudaStreamCreateWithFlags(&d->copies, cudaStreamNonBlocking) != cudaSuccess ||
        cudaStreamCreateWithFlags(&d->up, cudaStreamNonBlocking) != cudaSuccess ||
        cudaStreamCreateWithFlags(&d->recorder, cudaStreamNonBlocking) != cudaSuccess ||
        !events_open(&d->arrived, 1, cudaEventDisableTiming) ||
        !events_open(d->segment_free, CUDA_SEGMENTS, cudaEventDisableTiming) ||
        !events_open(d->piece_free, CUDA_PIECES, cudaEventDisableTiming) || !marks_open(d)) {
        return MOE_ERR_NO_MEMORY;
    }
    d->down = cuda_host_memory_alloc(CUDA_PIECE_BYTES);
    d->pieces = cuda_memory_alloc(d, CUDA_PIECES * CUDA_PIECE_BYTES);
    if (d->down == NULL || d->pieces == NULL) {
        return MOE_ERR_NO_MEMORY;
    }
    return segments_open(d, CUDA_SEGMENT_BYTES);
}

void cuda_staging_close(cuda_device *d)
{
    segments_close(d);
    cuda_host_memory_free(d->down);
    cuda_memory_free(d->pieces);
    events_close(&d->arrived, 1);
    events_close(d->segment_free, CUDA_SEGMENTS);
    events_close(d->piece_free, CUDA_PIECES);
    marks_close(d);
    if (d->copies != NULL) {
        (void)cudaStreamDestroy(d->copies);
    }
    if (d->up != NULL) {
        (void)cudaStreamDestroy(d->up);
    }
    if (d->recorder != NULL) {
        (void)cudaStreamDestroy(d->recorder);
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
        size_t n = MOE_MIN(bytes - done, CUDA_PIECE_BYTES);

        cuda_note(
            d, cudaMemcpyAsync(d->down, (const unsigned char *)from + done, n, cudaMemcpyDeviceToHost, cuda_queue(d)));
        if (cuda_op_sync(device) == MOE_OK) {
            memcpy((unsigned char *)to + done, d->down, n);
        }
        d->copied_bytes += n;
        done += n;
    }
    return cuda_op_sync(device);
}

/* Copied by this stream, so that `from` may change as soon as the call returns. */
static bool gather_piece(cuda_device *d, unsigned char *piece, const compute_mem *from, const uint32_t *rows,
                         size_t row_bytes, size_t n)
{
    const uint32_t *index = NULL;

    if (rows != NULL && n > 1) {
        index = cuda_send(d, rows, n * sizeof(*rows));
        if (index == NULL) {
            return false;
        }
        cuda_gather(piece, from, NULL, index, row_bytes, n, cuda_queue(d));
        return true;
    }
    cuda_note(d, cudaMemcpyAsync(piece, (const unsigned char *)from + (rows == NULL ? 0 : rows[0] * row_bytes),
                                 n * row_bytes, cudaMemcpyDeviceToDevice, cuda_queue(d)));
    return d->failed == MOE_OK;
}

/* Pinned memory has the bytes when a later ticket is reached, any other when this returns. */
static void copy_out(cuda_device *d, void *to, size_t at, size_t bytes, bool pinned)
{
    const unsigned char *piece = d->pieces + at * CUDA_PIECE_BYTES;

    if (!pinned) {
        (void)cuda_op_download(&d->base, to, (const compute_mem *)(const void *)piece, bytes);
        return;
    }
    join(d);
    cuda_mark *m = mark_of(d, d->ticket + 1);
    if (!m->copies) {
        m->copies = true;
        cuda_note(d, cudaEventRecord(m->copied, d->copies));
    }
    cuda_note(d, cudaMemcpyAsync(to, piece, bytes, cudaMemcpyDeviceToHost, d->copies));
    cuda_note(d, cudaEventRecord(d->piece_free[at], d->copies));
    d->copied_bytes += bytes;
}

/* Row_bytes are at most a piece's. */
static void rows_out(cuda_device *d, unsigned char *to, const compute_mem *from, const uint32_t *rows, size_t row_bytes,
                     size_t n, bool pinned)
{
    size_t most = CUDA_PIECE_BYTES / row_bytes;

    for (size_t i = 0; i < n && d->failed == MOE_OK; i += most) {
        size_t m = MOE_MIN(n - i, most), at = d->piece;
        const compute_mem *first = rows == NULL ? compute_at_const(from, i * row_bytes) : from;

        d->piece = (at + 1) % CUDA_PIECES;
        cuda_note(d, cudaStreamWaitEvent(d->stream, d->piece_free[at], 0));
        if (gather_piece(d, d->pieces + at * CUDA_PIECE_BYTES, first, rows == NULL ? NULL : rows + i, row_bytes, m)) {
            copy_out(d, to + i * row_bytes, at, m * row_bytes, pinned);
        }
    }
}

compute_ticket cuda_op_gather_out(compute_device *device, void *to, const compute_mem *from, const uint32_t *rows,
                                  size_t row_bytes, size_t n)
{
    cuda_device *d = cuda_of(device);
    bool pinned = cuda_is_pinned(to, n * row_bytes);

    if (rows == NULL) { /* cut anywhere */
        rows_out(d, to, from, NULL, 1, n * row_bytes, pinned);
    } else if (row_bytes <= CUDA_PIECE_BYTES) {
        rows_out(d, to, from, rows, row_bytes, n, pinned);
    } else {
        for (size_t i = 0; i < n; i++) {
            rows_out(d, (unsigned char *)to + i * row_bytes, compute_at_const(from, rows[i] * row_bytes), NULL, 1,
                     row_bytes, pinned);
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
                    cuda_queue(d));
        i += m;
    }
    cuda_note(d, cudaGetLastError());
}

compute_ticket cuda_op_frame_out(compute_device *device, compute_mem *frame, const void *head, size_t head_bytes,
                                 size_t sum_at, const compute_mem *from, const uint32_t *rows, size_t row_bytes,
                                 size_t n)
{
    cuda_device *d = cuda_of(device);
    size_t index_at = moe_round_up(head_bytes, 16), index_bytes = rows == NULL ? 0 : n * sizeof(*rows);
    void *twin;
    unsigned char *staged = cuda_stage(d, index_at + index_bytes, &twin);

    MOE_ASSERT(head_bytes % 4 == 0 && sum_at % 4 == 0 && sum_at + 4 <= head_bytes); /* where kernels write words */
    if (staged == NULL) {
        return 0;
    }
    memcpy(staged, head, head_bytes);
    if (index_bytes > 0) {
        memcpy(staged + index_at, rows, index_bytes);
    }
    cuda_stage_send(d, twin, staged, index_at + index_bytes);
    cuda_note(d, cudaMemcpyAsync(frame, twin, head_bytes, cudaMemcpyDeviceToDevice, cuda_queue(d)));
    cuda_gather(compute_at(frame, head_bytes), from, NULL,
                rows == NULL ? NULL : (const uint32_t *)(const void *)((unsigned char *)twin + index_at), row_bytes, n,
                cuda_queue(d));
    cuda_frame_sum(frame, head_bytes + n * row_bytes, sum_at, cuda_queue(d));
    cuda_note(d, cudaGetLastError());
    join(d);
    return give_ticket(d);
}
