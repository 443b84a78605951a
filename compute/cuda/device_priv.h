/* The inside of a CUDA device: its streams, the way of host arrays to it and of rows from it, tickets. */
#ifndef CONCLAVE_COMPUTE_CUDA_DEVICE_PRIV_H
#define CONCLAVE_COMPUTE_CUDA_DEVICE_PRIV_H

#include "compute/compute.h"
#include "compute/cuda/launch.h"

/* Host arrays go through a ring of pinned memory with a twin on the device, copied by a stream of their own. A segment is used again when what was to be done with
 * it is done; a host that is that far ahead of its device waits. An array larger than a segment makes the segments grow, once. */
#define CUDA_SEGMENTS      4
#define CUDA_SEGMENT_BYTES ((size_t)2 << 20)
/* Tickets whose events are kept. An older one counts as reached when the one that took its place is. */
#define CUDA_TICKETS 256
/* Rows go out in pieces: gathered on the device by the stream, copied to the host by another one meanwhile. So many pieces are under way at once: one that
 * is gathered while another is copied would do, more of them let small answers queue up. Downloads into memory that is not pinned go a piece at a time. */
#define CUDA_PIECES      4
#define CUDA_PIECE_BYTES ((size_t)1 << 20)

/* Stretches of steps with so few rows become graphs, of so many parts (layers). Chosen, not measured: with 16 rows of top-8 a layer of OLMoE-1B-7B reads nearly all of its
 * experts, 0.7 GB, beside which a dozen launches are nothing. A graph takes some tens of kilobytes. */
#define CUDA_GRAPH_ROWS  16u
#define CUDA_GRAPH_PARTS 128u

typedef struct cuda_graph {
    cudaGraphExec_t graph; /* owned; NULL: not recorded */
    bool seen;
} cuda_graph;

/* A ticket's events. What the stream is given between two tickets is a burst: it has been idle before, or goes on. */
typedef struct cuda_mark {
    cudaEvent_t began, computed; /* the burst, on stream */
    cudaEvent_t copied;          /* before the first copy out, on copies */
    cudaEvent_t done;            /* the ticket: on copies, behind all that stream had been given */
    bool burst, copies;          /* there were some */
} cuda_mark;

typedef struct cuda_device {
    compute_device base;
    compute_device_options options;
    int index;
    char place[COMPUTE_MAX_PLACE], name[128];
    cudaStream_t stream;       /* computes. Events say what it waits for of the others, and they of it */
    cudaStream_t copies;       /* pieces on their way to the host */
    cudaStream_t up;           /* host arrays on their way to the twin */
    cudaStream_t recorder;     /* takes what is queued while a stretch becomes a graph */
    cuda_graph *recorded;      /* that is what happens, and where it goes; NULL: no */
    cudaError_t record_failed; /* the first failure meanwhile */
    moe_status failed;         /* the first failure; every later answer is it */

    unsigned char *staging, *twin; /* [CUDA_SEGMENTS][segment_bytes], pinned and device */
    size_t segment_bytes, segment, used;
    cudaEvent_t arrived; /* the last copy of up */
    cudaEvent_t segment_free[CUDA_SEGMENTS];
    unsigned char *down;   /* [CUDA_PIECE_BYTES] pinned */
    unsigned char *pieces; /* [CUDA_PIECES][CUDA_PIECE_BYTES] on the device */
    size_t piece;          /* the next one */
    cudaEvent_t piece_free[CUDA_PIECES];
    cuda_mark marks[CUDA_TICKETS]; /* of the last tickets, and of the next one */
    compute_ticket ticket;         /* the last one given */
    compute_ticket timed;          /* the last one whose times are counted */

    void *hidden;                 /* [max_ffn_rows][max_d_ff] class dtype: between the two products of an expert */
    unsigned long long *counters; /* [2] on the device */
    _Atomic uint64_t kernel_ns, copy_ns, copied_bytes; /* written by the device's thread; report reads them from any */
} cuda_device;

struct compute_step {
    size_t max_rows, max_pages, page_tokens, n;
    uint32_t *on_device; /* positions, starts of page tables, page tables */
    cuda_graph *graphs;  /* owned [CUDA_GRAPH_PARTS][CUDA_GRAPH_ROWS]: of 1 row and more */
};

struct compute_matrix {
    cuda_kind kind;
    size_t n_out, n_in;
    void *packed; /* owned */
};

struct compute_expert {
    compute_ffn ffn;
    cuda_kind kind;
    size_t d_ff, d_model;
    void *up, *down; /* owned; up: with the gate's tiles between its own, where there is a gate */
};

/* memory.c */
void *cuda_memory_alloc(cuda_device *d, size_t bytes); /* zeroed in the device's order; NULL when there is none */
void cuda_memory_free(void *p);
void *cuda_host_memory_alloc(size_t bytes);
void cuda_host_memory_free(void *p);
bool cuda_is_pinned(const void *p, size_t bytes);
uint64_t cuda_memory_used(int index);
/* The stream, for what is queued now: a burst begins if none has. Or the recorder. */
cudaStream_t cuda_queue(cuda_device *d);
/* Keeps the first failure; while something is recorded, as the recording's. */
void cuda_note(cuda_device *d, cudaError_t e);
/* Room in the ring for an op's host arrays, to be written and sent at once: to the twin, *device_out, or anywhere. NULL: the device has failed. */
void *cuda_stage(cuda_device *d, size_t bytes, void **device_out);
void cuda_stage_send(cuda_device *d, void *to, const void *staged, size_t bytes);
/* Both, of one array: where it is on the device for the next launch. NULL: the device has failed. */
const void *cuda_send(cuda_device *d, const void *from, size_t bytes);
moe_status cuda_staging_open(cuda_device *d);
void cuda_staging_close(cuda_device *d);

void *cuda_op_host_alloc(compute_device *d, size_t bytes);
void cuda_op_host_free(compute_device *d, void *p, size_t bytes);
compute_mem *cuda_op_alloc(compute_device *d, size_t bytes);
void cuda_op_free(compute_device *d, compute_mem *m);
void cuda_op_upload(compute_device *d, compute_mem *to, const void *from, size_t bytes);
moe_status cuda_op_download(compute_device *d, void *to, const compute_mem *from, size_t bytes);
compute_ticket cuda_op_gather_out(compute_device *d, void *to, const compute_mem *from, const uint32_t *rows,
                                  size_t row_bytes, size_t n);
void cuda_op_scatter_in(compute_device *d, compute_mem *to, const void *from, const uint32_t *rows, size_t row_bytes,
                        size_t n);
compute_ticket cuda_op_frame_out(compute_device *d, compute_mem *frame, const void *head, size_t head_bytes,
                                 size_t sum_at, const compute_mem *from, const uint32_t *rows, size_t row_bytes,
                                 size_t n);
moe_status cuda_op_reached(compute_device *d, compute_ticket t);
moe_status cuda_op_wait(compute_device *d, compute_ticket t);
moe_status cuda_op_sync(compute_device *d);

/* graph.c */
MOE_NODISCARD moe_status cuda_graphs_open(compute_step *s);
void cuda_graphs_close(cuda_device *d, compute_step *s);
bool cuda_op_stretch_begin(compute_device *d, compute_step *s, uint32_t part);
bool cuda_op_stretch_end(compute_device *d);

/* weights.c */
moe_status cuda_op_matrix_open(compute_device *d, const compute_weight *w, compute_layout layout, compute_matrix **out);
moe_status cuda_op_matrix_open_f32(compute_device *d, const compute_weight *w, compute_matrix **out);
void cuda_op_matrix_close(compute_device *d, compute_matrix *m);
moe_status cuda_op_expert_open(compute_device *d, compute_ffn ffn, const compute_weight *gate, const compute_weight *up,
                               const compute_weight *down, compute_layout layout, compute_expert **out);
void cuda_op_expert_close(compute_device *d, compute_expert *e);
moe_status cuda_op_expert_adopt(compute_device *d, compute_expert *e);

static inline cuda_device *cuda_of(compute_device *d)
{
    return (cuda_device *)d;
}

static inline cuda_dtype cuda_dtype_of(compute_dtype dtype)
{
    return dtype == COMPUTE_F32 ? CUDA_DTYPE_F32 : dtype == COMPUTE_BF16 ? CUDA_DTYPE_BF16 : CUDA_DTYPE_F16;
}

static inline bool cuda_is_bf16(const compute_device *d)
{
    return compute_class_dtype(d->numeric_class) == COMPUTE_BF16;
}

#endif
