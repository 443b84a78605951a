/* compute: the device door. An ops table that a device fills, the registry that opens devices by name, and what is common
 * to all of them. docs/numeric.md is the contract: rounding points and reduction orders of every op; one numeric class
 * has one result, bit for bit, on every device and instruction set that implements it. docs/devices.md: how the programs
 * choose a device, and what a new one has to do.
 *
 * Nouns:
 *   compute_class    a complete set of rounding points and orders: "f32-1", "bf16-1"
 *   compute_device   an ops table with its memory; belongs to the thread that steps it, and to its compute threads
 *   compute_mem      device memory. The type is never completed: host code cannot dereference an activation
 *   compute_matrix   a weight matrix prepared for the device (packed, or row-major in the mapped file)
 *   compute_expert   the matrices of one expert
 *   compute_row      where a row stands: its position, and the KV pages of its sequence
 *   compute_step     the rows of one step of one batch, as the device has them
 *   compute_ticket   a point in what a device has been given to do
 *
 * Shapes:  [rows, columns], row-major, no padding between rows. Activations in "class dtype" are f32 in f32-1 and bf16
 *          in bf16-1; everything else is f32. Weights: out = x . W^T with W [n_out, n_in].
 * Order:   a device does what it is given in the order given, perhaps later: ops queue. Host arrays handed to an op
 *          (indices, groups, picks, rows that go up) have been read when it returns. What goes down is there when its
 *          ticket is reached.
 * Threads: every thread that computes has called compute_thread_init.
 * Errors:  ops return nothing. A device failure is kept, and reported by download, wait, reached and sync. Wrong
 *          arguments are our bugs and asserted.
 * C++:     devices are written in it too, so this header is read by both. */
#ifndef CONCLAVE_COMPUTE_H
#define CONCLAVE_COMPUTE_H

#ifdef __cplusplus
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define _Noreturn __attribute__((noreturn))
extern "C" {
#endif
#include "base/base.h"

/* Of everything in this header that a device in a file of its own is compiled against: raised by any change of it. */
#define COMPUTE_ABI 2

/* ----------------------------------------------------------------------------------------------- dtypes and classes */
typedef enum { COMPUTE_F32, COMPUTE_BF16, COMPUTE_F16, COMPUTE_DTYPE_OTHER } compute_dtype;

static inline size_t compute_dtype_bytes(compute_dtype dtype) /* 0 of OTHER */
{
    return dtype == COMPUTE_F32 ? 4 : dtype == COMPUTE_DTYPE_OTHER ? 0 : 2;
}
const char *compute_dtype_name(compute_dtype dtype); /* "F32", ... as safetensors spells it */

/* X(id, name, option, dtype): name stands in etcd and in HELLO; option is what --dtype takes; dtype is that of activations
 * between ops and on the wire. */
#define COMPUTE_CLASS_MAP(X)                                                                                           \
    X(COMPUTE_CLASS_F32_1, "f32-1", "f32", COMPUTE_F32)                                                                \
    X(COMPUTE_CLASS_BF16_1, "bf16-1", "bf16", COMPUTE_BF16)

typedef enum {
#define X(id, name, option, dtype) id,
    COMPUTE_CLASS_MAP(X)
#undef X
        COMPUTE_N_CLASSES
} compute_class;

typedef struct compute_class_info {
    const char *name, *option;
    compute_dtype dtype;
} compute_class_info;

static inline const compute_class_info *compute_class_of(compute_class c)
{
    static const compute_class_info all[] = {
#define X(id, name, option, dtype) {name, option, dtype},
        COMPUTE_CLASS_MAP(X)
#undef X
    };

    return &all[c];
}
static inline const char *compute_class_name(compute_class c)
{
    return compute_class_of(c)->name;
}
static inline compute_dtype compute_class_dtype(compute_class c)
{
    return compute_class_of(c)->dtype;
}
MOE_NODISCARD bool compute_class_parse(const char *name, compute_class *out);

/* Sets FTZ and DAZ on this thread (every class needs it). */
void compute_thread_init(void);

/* ------------------------------------------------------------------------------------------------ instruction sets */
typedef enum {
    COMPUTE_ISA_PORTABLE,
    COMPUTE_ISA_AVX2,
    COMPUTE_ISA_AVX512F,
    COMPUTE_ISA_AVX512,
    COMPUTE_ISA_AUTO
} compute_isa;
/* AVX2 needs avx2 and fma; AVX512 needs avx512 f, bw, vl, dq and bf16. */
bool compute_isa_available(compute_isa isa);
compute_isa compute_isa_best(void);
extern const char *const compute_isa_names[];  /* "auto", "portable", "avx2", "avx512f", "avx512", NULL */
const char *compute_isa_name(compute_isa isa); /* one of them */
compute_isa compute_isa_of(const char *name);  /* COMPUTE_ISA_AUTO for a name that is none */

/* ------------------------------------------------------------------------------------------------ device */
typedef struct compute_mem compute_mem;
typedef struct compute_matrix compute_matrix;
typedef struct compute_expert compute_expert;
typedef struct compute_step compute_step;
typedef struct compute_device compute_device;

static inline compute_mem *compute_at(compute_mem *m, size_t bytes)
{
    return (compute_mem *)(void *)((unsigned char *)m + bytes);
}
static inline const compute_mem *compute_at_const(const compute_mem *m, size_t bytes)
{
    return (const compute_mem *)(const void *)((const unsigned char *)m + bytes);
}

/* Where a weight comes from: host memory, any alignment, row-major. */
typedef struct compute_weight {
    const void *data;
    compute_dtype dtype; /* F32, BF16, F16 */
    size_t n_out, n_in;
    /* true: data is [n_in, n_out], as makers who write x . W store it; false: [n_out, n_in]. The product and its bits
     * are the same. */
    bool input_major;
} compute_weight;

/* PACKED copies into the device's own layout; MAPPED computes row-major from data, which must outlive the matrix. An
 * input-major weight cannot be used in place: it is packed whatever is asked, and with it the expert it belongs to. */
typedef enum { COMPUTE_PACKED, COMPUTE_MAPPED } compute_layout;

/* The expert's inner function. Later families add theirs at the end. */
typedef enum {
    COMPUTE_FFN_SWIGLU,   /* down( silu(gate(x)) * up(x) ) */
    COMPUTE_FFN_GELU_TANH /* down( gelu_tanh(up(x)) ); expert_open takes gate == NULL */
} compute_ffn;

/* f32 to f32, element by element; docs/numeric.md, "Functions". */
typedef enum { COMPUTE_ACT_GELU_ERF, COMPUTE_ACT_TANH } compute_activation;

/* Rows of one expert in a grouped FFN. */
typedef struct compute_group {
    const compute_expert *expert;
    const uint32_t *rows; /* [n_rows] indices into x, host memory */
    size_t n_rows;
    size_t out_row; /* this group's rows go to out[out_row ..], in the order of rows */
} compute_group;

/* Rows of one matrix in a grouped product (attention experts). */
typedef struct compute_routed {
    const compute_matrix *w;
    const uint32_t *rows;     /* [n_rows] indices into x, host memory */
    const uint32_t *out_rows; /* [n_rows] indices into out, host memory; no index twice in a call */
    size_t n_rows;
} compute_routed;

/* Geometry of the paged KV cache. A page holds page_tokens consecutive positions of one sequence for one layer, class
 * dtype:
 *   K  [n_kv_heads][page_tokens][head_dim]
 *   V  the same; absent where `shared`: K is V
 * Page p of layer l lies at (l * n_pages + p) * compute_kv_page_bytes. */
typedef struct compute_kv_shape {
    size_t n_layers, n_pages, page_tokens, n_kv_heads, head_dim;
    compute_dtype dtype;
    bool shared;
} compute_kv_shape;
static inline size_t compute_kv_page_bytes(const compute_kv_shape *s) /* of one layer */
{
    return (s->shared ? 1 : 2) * s->n_kv_heads * s->page_tokens * s->head_dim * compute_dtype_bytes(s->dtype);
}

/* Where a row stands: its position and the page table of its sequence (host memory; entry i holds positions
 * [i * page_tokens, (i + 1) * page_tokens)). Rows of one sequence in a step are consecutive and ascending and share
 * `pages`. NULL: the row does not attend. */
typedef struct compute_row {
    const uint32_t *pages;
    uint32_t position;
} compute_row;

/* One pick of one row in Combine: y += round(weight * E[result_row]). Per row ascending expert id. */
typedef struct compute_pick {
    float weight;
    uint32_t result_row; /* into `results` */
} compute_pick;

/* What a device counted since it was opened. */
typedef struct compute_counters {
    uint64_t stick_keys_seen;    /* of stick_attention, summed over (row, head): keys that took part in a sum */
    uint64_t stick_keys_skipped; /* keys before the row's position that the end of the stick left out */
} compute_counters;

/* What a device with memory of its own tells of itself. */
typedef struct compute_report {
    uint64_t memory_bytes, free_bytes; /* of the whole device; free: for any process */
    uint64_t used_bytes;               /* by this device's buffers and weights */
    /* Since it was opened, of what has been waited for: from the first to the last of what was queued between two tickets;
     * rows on their way to the host. The two overlap, and what goes up with them is not in them. */
    uint64_t kernel_ns, copy_ns;
    uint64_t copied_bytes; /* both ways */
} compute_report;

/* A point in what a device was given: 0 is always reached. Later tickets are reached later. */
typedef uint64_t compute_ticket;

/* ------------------------------------------------------------------------------------------------ the table */
/* The ops, with their manual: compute/ops.h. */
typedef struct compute_ops {
#define COMPUTE_OP_OWN(result)                                result
#define COMPUTE_OP_QUEUED(result)                             result
#define COMPUTE_OP_FETCHED(result)                            MOE_NODISCARD result
#define COMPUTE_OP_HOST(result)                               result
#define COMPUTE_OP_ASKED(result)                              MOE_NODISCARD result
#define COMPUTE_OP_OPTIONAL(result)                           result
#define COMPUTE_OP_OPTIONAL_ASKED(result)                     MOE_NODISCARD result
#define COMPUTE_OP_OPTIONAL_FETCHED(result)                   MOE_NODISCARD result
#define COMPUTE_OP(kind, result, name, parameters, arguments) COMPUTE_OP_##kind(result)(*name) parameters;
#include "compute/ops.h"
} compute_ops;

struct compute_device {
    const compute_ops *ops;
    compute_class numeric_class;
    const char *place; /* by which compute_open opens another of its kind: "cpu", "cuda:0" */
    const char *name;  /* for people, at most 63 characters: "cpu-avx512", "cuda:0 NVIDIA H200" */
    /* private fields follow */
};

typedef struct compute_device_options {
    compute_class numeric_class;
    compute_isa isa;        /* of a CPU. AUTO: the best there is. MOE_ERR_UNSUPPORTED when it is not there */
    moe_threads *threads;   /* borrowed for the device's life: a CPU's; others pack with them */
    size_t max_rows;        /* rows of one op call */
    size_t max_ffn_rows;    /* sum of rows of one expert_ffn call */
    size_t max_d_ff;        /* widest expert */
    size_t max_context;     /* positions an attention row may see: scratch for scores */
    size_t max_routed_rows; /* sum of n_rows of one matmul_routed call; 0 where there is none */
    bool full_scan;         /* stick_attention looks at every key: slower, equal bits */
    bool no_graphs;         /* a GPU is given every op by itself, no stretch as one: equal bits */
} compute_device_options;

/* Makers of device ops ask which optional ones there are by name, never who it is. */
static inline void compute_close(compute_device *d)
{
    if (d != NULL) {
        d->ops->close(d);
    }
}

/* Host memory for what this device copies: its own if it has some, else pages, which are touched only as they are used.
 * 64-byte aligned; NULL when there is none. Any thread. */
void *compute_host_alloc(compute_device *d, size_t bytes);
void compute_host_free(compute_device *d, void *p, size_t bytes); /* NULL is fine */

/* ------------------------------------------------------------------------------------------------ registry
 * Devices by name:
 *
 *   cpu         this process's cores
 *   cuda[:N]    GPU number N (0), by the module libconclave-cuda.so (compute/module.h), which is opened when it is asked for
 *   auto        the first GPU that can be used, else cpu
 *   guarded     the test device: a CPU device whose buffers are unreadable (PROT_NONE) except inside its own ops, so that
 *               any other access is a fault. One page-aligned mapping per buffer; slow
 */
#define COMPUTE_MAX_PLACE 32
typedef struct compute_found {
    char place[COMPUTE_MAX_PLACE]; /* what compute_open takes: "cpu", "cuda:0" */
    char why[256];                 /* for the log: which device it is; with auto why not another one */
} compute_found;

/* What a name comes to on this machine. module: the file of the module; NULL: libconclave-cuda.so beside this program, else in
 * ../lib/conclave or ../lib from there. Any thread.
 * Errors: MOE_ERR_INVALID_ARG (no such name), MOE_ERR_UNSUPPORTED (no module, one of another release, no driver, no such
 * GPU): one line that says what is missing. */
MOE_NODISCARD moe_status compute_find(const char *name, const char *module, compute_found *out, moe_error *err);
/* Opens a device; name as above, or a place. All workspace is allocated here; a step allocates nothing. A module that
 * compute_find has not opened before is looked for in its usual places.
 * Errors: of compute_find; MOE_ERR_NO_MEMORY names the bytes wanted and, of a GPU, free. */
MOE_NODISCARD moe_status compute_open(const char *name, const compute_device_options *options, compute_device **out,
                                      moe_error *err);

#ifdef __cplusplus
}
#endif

#endif
