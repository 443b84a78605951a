/* The CPU device's inside: kernel tables, one per instruction set, and the prepared matrix.
 *
 * A panel is CPU_PANEL outputs of a matrix, stored [n_units][CPU_PANEL] dwords. A unit is one k of a 4-byte dtype, or
 * two consecutive k of a 2-byte dtype (the even one in the low half), so one dword transpose packs every dtype. Outputs
 * past n_out and the second half of an odd last unit are zero. */
#ifndef CONCLAVE_COMPUTE_CPU_PRIV_H
#define CONCLAVE_COMPUTE_CPU_PRIV_H

#include "compute/compute.h"
#include "compute/math.h"

#define CPU_PANEL          64  /* outputs */
#define CPU_TILE_ROWS      96  /* rows that pass over a panel together */
#define CPU_CHUNK_UNITS    128 /* of a panel that are packed together (32 KB) */
#define CPU_ATTENTION_ROWS 8   /* rows of one sequence that share a pass over its keys */
#define CPU_LOCAL_ROWS     4   /* chains of a local expert's gate that run side by side, two a row */
#define CPU_MIX_VALUES     256 /* of a local expert's result between mixing and rounding */

/* 2 MB of widened rows for each thread, touched as far as they are used: 96 rows of 4,800 bf16, 60 of 7,900. More rows
 * than fit are widened again for every panel. */
#define CPU_WIDE_FLOATS ((size_t)1 << 19)

/* A register tile: its constants are known where it is used and its loops unrolled, or its sums would live in memory.
 * The sanitizers check every access of unrolled code, and gcc then needs minutes and a gigabyte for a file: under them
 * the same source stays functions and loops. */
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define CPU_TILES_LOOP 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || defined(CPU_TILES_LOOP)
#define CPU_TILE      static __attribute__((noinline, unused))
#define CPU_UNROLL(n) _Pragma("GCC unroll 1")
#else
#define CPU_PRAGMA(text) _Pragma(#text)
#define CPU_TILE         static inline __attribute__((always_inline))
#define CPU_UNROLL(n)    CPU_PRAGMA(GCC unroll n)
#endif

/* What a product multiplies: CPU_PAIR is the bf16 class (x bf16, w bf16, odd element first), the others are the f32
 * chain with w widened exactly from its dtype. */
typedef enum { CPU_PAIR, CPU_F32, CPU_BF16, CPU_F16, CPU_N_KINDS } cpu_kind;

/* One (tile of rows of one sequence, head). Row i of q and out starts at i * stride. k and v point at this head in page
 * 0. */
typedef struct cpu_attention {
    float *out;    /* [n_rows][head_dim], rows out_stride apart */
    const void *q; /* [n_rows][head_dim] of dtype, rows q_stride elements apart */
    size_t out_stride, q_stride;
    const unsigned char *k, *v; /* [page_tokens][head_dim] of dtype; pages page_bytes apart */
    size_t page_bytes, page_tokens, head_dim;
    compute_dtype dtype;
    const compute_row *rows; /* ascending positions, one page table */
    size_t n_rows;           /* <= CPU_ATTENTION_ROWS */
    float *scores;           /* [n_rows][score_stride] scratch, 64-byte aligned */
    size_t score_stride;     /* >= positions + 16 */
    float scale;
} cpu_attention;

/* Stick-breaking of n_rows queries (rows of one sequence, or heads of a row that share its keys) over
 * one head's keys. */
typedef struct cpu_stick {
    float *out[CPU_ATTENTION_ROWS];    /* [head_dim] each */
    const void *q[CPU_ATTENTION_ROWS]; /* [head_dim] each, of dtype */
    size_t seen[CPU_ATTENTION_ROWS];   /* keys from 0 to the query's own position; the kernel leaves how many it used */
    size_t n_rows;
    const uint32_t *pages;
    const unsigned char *k, *v; /* [page_tokens][head_dim] of dtype in page 0; pages page_bytes apart */
    size_t page_bytes, page_tokens, head_dim;
    compute_dtype dtype;
    float scale;
    bool full_scan;
} cpu_stick;

/* acc[r * stride + 0 .. CPU_PANEL) continues (k_begin == 0: starts from +0) the chains of n_rows rows over k in
 * [k_begin, k_end). x[r] is row r at k = 0; w is the panel from k_begin on. CPU_PAIR: k_end is even. next: the units
 * that will be read after these, to fetch as many of; NULL: not known. */
typedef void (*cpu_panel_fn)(float *acc, size_t stride, const void *const *x, size_t n_rows, const uint32_t *w,
                             size_t k_begin, size_t k_end, const uint32_t *next);

/* Rows as `panel` wants them, made once for many panels: `of` makes n_rows * floats f32 of every piece_units units of
 * [k_begin, k_end). NULL for a kind whose rows `panel` takes as they are. */
typedef struct cpu_rows {
    void (*of[CPU_N_KINDS])(float *to, const void *const *x, size_t n_rows, size_t k_begin, size_t k_end);
    size_t floats, piece_units;
} cpu_rows;

typedef struct cpu_kernels {
    const char *name;          /* of the device: "cpu-avx512" */
    size_t rows_at_once;       /* that `panel` takes through in one pass over w */
    size_t chunk_units;        /* of a packed panel that many rows use before the next */
    const cpu_panel_fn *panel; /* [CPU_N_KINDS] */
    const cpu_rows *rows;      /* x[0] of `panel` is then what this made of the rows; NULL: of no kind */
    /* panel[unit][r] = dword `unit` of row r, for n_rows <= CPU_PANEL rows row_bytes apart; the other columns zero. */
    void (*pack)(uint32_t *panel, const unsigned char *rows, size_t row_bytes, size_t n_rows, size_t n_units);
    void (*widen)(float *out, const void *in, compute_dtype dtype, size_t n);
    void (*round_bf16)(uint16_t *out, const float *in, size_t n);
    void (*rms_norm)(float *out, const float *x, const float *gain, float eps, size_t width);
    void (*rope)(float *x, const float *cosine, const float *sine, size_t half);
    void (*clamp)(float *x, float bound, size_t n);
    void (*add)(float *x, const float *y, size_t n);
    void (*swiglu)(float *gate, const float *up, size_t n); /* gate = silu(gate) * up */
    void (*combine)(float *x, const void *results, compute_dtype dtype, const compute_pick *picks, size_t n_picks,
                    size_t width);
    void (*attention)(const cpu_attention *a);
    void (*stick)(cpu_stick *s);
    void (*layer_norm)(float *out, const float *x, const float *gain, const float *bias, float eps, size_t width);
    void (*unit_norm)(float *x, size_t width);
    void (*gelu_erf)(float *x, size_t n);
    void (*gelu_tanh)(float *x, size_t n);
    void (*tanh)(float *x, size_t n);
    /* logits[r][2] = gate [2, width] . row r of x, for n_rows <= CPU_LOCAL_ROWS; f32 chains. */
    void (*local_logits)(float (*logits)[2], const void *const *x, compute_dtype dtype, size_t n_rows,
                         const float *gate, size_t width);
    /* out = a[0] * x + a[1] * constant, not rounded to the class dtype yet. */
    void (*local_mix)(float *out, const void *x, compute_dtype dtype, const float *a, const float *constant,
                      size_t width);
    float (*row_sum)(const float *x, size_t n);
    float (*row_max)(const float *x, size_t n);
    void (*row_exp)(float *y, const float *x, float shift, size_t n);
    void (*row_divide)(float *y, float by, size_t n);
} cpu_kernels;

extern const cpu_kernels cpu_kernels_portable, cpu_kernels_avx2, cpu_kernels_avx512f, cpu_kernels_avx512;
const cpu_kernels *cpu_kernels_of(compute_isa isa); /* available, or AUTO */

struct compute_step { /* as step_begin was given them: borrowed */
    const compute_row *rows;
    size_t n;
};

struct compute_matrix {
    cpu_kind kind;
    bool packed;
    size_t n_out, n_in, n_units;
    const unsigned char *data; /* packed: panels; mapped: the caller's rows, borrowed */
    void *pages;               /* owned; NULL when mapped or part of an expert */
    size_t pages_bytes;
};

struct compute_expert {
    compute_ffn ffn;
    compute_matrix gate, up, down; /* without a gate, up stands in the gate's place and `up` is empty */
    void *pages;                   /* owned: the panels of all three */
    size_t pages_bytes;
};

typedef struct cpu_counters { /* of one thread: a cache line */
    _Alignas(MOE_CACHE_LINE) compute_counters c;
} cpu_counters;

/* Whose rows a thread's `wide` holds. Every pass over the threads is an op of its own. */
typedef struct cpu_wide_of {
    _Alignas(MOE_CACHE_LINE) uint64_t op;
    size_t group, row, n_rows;
} cpu_wide_of;

typedef struct cpu_device {
    compute_device base;
    const cpu_kernels *kernels;
    compute_device_options options;
    size_t n_threads;
    float *acc;      /* [n_threads][2][CPU_TILE_ROWS][CPU_PANEL] */
    uint32_t *chunk; /* [n_threads][2][CPU_CHUNK_UNITS][CPU_PANEL]: a panel being packed; its rows being rounded */
    float *wide;     /* [n_threads][CPU_WIDE_FLOATS]: rows of a product, widened; NULL: the kernels have no `rows` */
    cpu_wide_of *wide_of; /* [n_threads] */
    uint64_t op;          /* passes over the threads so far */
    float *scores;        /* [n_threads][CPU_ATTENTION_ROWS][score_stride] */
    size_t score_stride;
    unsigned char *hidden; /* [max_ffn_rows][hidden_stride] of class dtype: between gate/up and down */
    unsigned char
        *padded; /* rows of x with a zero appended, for odd n_in in the bf16 class; NULL until one is opened */
    size_t padded_bytes;
    cpu_counters *counters; /* [n_threads] */
} cpu_device;

static inline size_t cpu_min(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* pack.c */
moe_status cpu_matrix_open(compute_device *d, const compute_weight *w, compute_layout layout, compute_matrix **out);
moe_status cpu_matrix_open_f32(compute_device *d, const compute_weight *w, compute_matrix **out);
void cpu_matrix_close(compute_device *d, compute_matrix *m);
moe_status cpu_expert_open(compute_device *d, compute_ffn ffn, const compute_weight *gate, const compute_weight *up,
                           const compute_weight *down, compute_layout layout, compute_expert **out);
void cpu_expert_close(compute_device *d, compute_expert *e);
moe_status cpu_expert_adopt(compute_device *d, compute_expert *e);
/* Units [begin, end) of one panel, from packed memory or packed into the thread's chunk (then at most
 * CPU_CHUNK_UNITS). */
const uint32_t *cpu_matrix_units(const cpu_device *d, const compute_matrix *m, size_t panel, size_t begin, size_t end,
                                 size_t thread);

/* gemm.c */
void cpu_matmul(compute_device *d, compute_mem *out, const compute_mem *x, const compute_matrix *w,
                const compute_mem *bias, size_t n);
void cpu_matmul_f32(compute_device *d, compute_mem *out, const compute_mem *x, const compute_matrix *w,
                    const compute_mem *bias, size_t n);
void cpu_matmul_routed(compute_device *d, compute_mem *out, const compute_mem *x, const compute_routed *groups,
                       size_t n_groups);
void cpu_expert_ffn(compute_device *d, compute_mem *out, const compute_mem *x, const compute_group *groups,
                    size_t n_groups);

/* cpu.c, guarded.c: opened by device.c */
moe_status cpu_open(const compute_device_options *options, compute_device **out, moe_error *err);
moe_status guarded_open(const compute_device_options *options, compute_device **out, moe_error *err);

/* stick.c */
void cpu_stick_attention(compute_device *d, compute_mem *out, const compute_mem *q, const compute_mem *kv,
                         const compute_kv_shape *shape, size_t layer, size_t n_heads, const compute_step *step);
void cpu_read_counters(compute_device *d, compute_counters *out);

#endif
