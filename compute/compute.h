/* compute: the device ops table and the host's own mathematics. docs/numeric.md is the contract: rounding points and
 * reduction orders of every op; one numeric class has one result, bit for bit, on every device and instruction set of
 * its kind.
 *
 * Nouns:
 *   compute_class    a complete set of rounding points and orders: "cpu-f32-1", "cpu-bf16-1"
 *   compute_device   an ops table with its memory; belongs to the thread that steps it, and to its compute threads
 *   compute_mem      device memory. The type is never completed: host code cannot dereference an activation
 *   compute_matrix   a weight matrix prepared for the device (packed, or row-major in the mapped file)
 *   compute_expert   the matrices of one expert
 *   compute_row      where a row stands: its position, and the KV pages of its sequence
 *
 * Shapes:  [rows, columns], row-major, no padding between rows. Activations in "class dtype" are f32 in cpu-f32-1 and
 *          bf16 in cpu-bf16-1; everything else is f32. Weights: out = x . W^T with W [n_out, n_in].
 * Threads: every thread that computes has called compute_thread_init. The host functions at the end are pure.
 * Errors:  ops return nothing. A device failure is kept, and reported by the ops sync and download. Wrong arguments are
 *          our bugs and asserted. */
#ifndef CONCLAVE_COMPUTE_H
#define CONCLAVE_COMPUTE_H

#include "base/base.h"

/* ----------------------------------------------------------------------------------------------- dtypes and classes */
typedef enum { COMPUTE_F32, COMPUTE_BF16, COMPUTE_F16, COMPUTE_DTYPE_OTHER } compute_dtype;
typedef enum { COMPUTE_CLASS_CPU_F32_1, COMPUTE_CLASS_CPU_BF16_1, COMPUTE_N_CLASSES } compute_class;

size_t compute_dtype_bytes(compute_dtype dtype);
const char *compute_dtype_name(compute_dtype dtype); /* "F32", ... as safetensors spells it */
const char *compute_class_name(compute_class c);     /* "cpu-f32-1" */
MOE_NODISCARD bool compute_class_parse(const char *name, compute_class *out);
compute_dtype compute_class_dtype(compute_class c); /* of activations between ops and on the wire */

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
size_t compute_kv_page_bytes(const compute_kv_shape *s); /* of one layer */

/* Where a row stands: its position and the page table of its sequence (host memory; entry i holds positions
 * [i * page_tokens, (i + 1) * page_tokens)). Rows of one sequence in a step are consecutive and ascending and share
 * `pages`. */
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

typedef struct compute_ops {
    const char *name; /* "cpu-avx512" */

    /* -- memory: 64-byte aligned, zero-filled; alloc returns NULL when there is none. alloc and free may be called from any
     * thread while the device computes (not on the test device). */
    compute_mem *(*alloc)(compute_device *d, size_t bytes);
    void (*free)(compute_device *d, compute_mem *m); /* NULL is fine */
    void (*upload)(compute_device *d, compute_mem *to, const void *from, size_t bytes);
    MOE_NODISCARD moe_status (*download)(compute_device *d, void *to, const compute_mem *from,
                                         size_t bytes); /* waits */
    MOE_NODISCARD moe_status (*sync)(compute_device *d);

    /* -- weights: see compute_matrix_open, compute_expert_open below */
    MOE_NODISCARD moe_status (*matrix_open)(compute_device *d, const compute_weight *w, compute_layout layout,
                                            compute_matrix **out);
    void (*matrix_close)(compute_device *d, compute_matrix *m);
    MOE_NODISCARD moe_status (*expert_open)(compute_device *d, compute_ffn ffn, const compute_weight *gate,
                                            const compute_weight *up, const compute_weight *down, compute_layout layout,
                                            compute_expert **out);
    void (*expert_close)(compute_device *d, compute_expert *e);
    /* Takes an expert that another device of the same kind and class has opened: from now on it is as if it had been
     * opened here. So a thread with a device of its own can prepare experts while this one computes; only what a step
     * needs at hand is done here. Errors: MOE_ERR_NO_MEMORY, MOE_ERR_INVALID_ARG; either device may then close it. */
    MOE_NODISCARD moe_status (*expert_adopt)(compute_device *d, compute_expert *e);

    /* -- ops; n rows may be 0 */
    /* out f32 [n, width] = row ids[i] of table, widened. table [.., width] of table_dtype, row-major. */
    void (*embed)(compute_device *d, compute_mem *out, const compute_mem *table, compute_dtype table_dtype,
                  size_t width, const int32_t *ids, size_t n);
    /* out (class dtype) = round(x f32), n values. In cpu-f32-1 a copy. */
    void (*to_class)(compute_device *d, compute_mem *out, const compute_mem *x, size_t n);
    /* out f32 [n, n_out] = x . W^T (+ bias f32 [n_out], NULL: none). x is class dtype [n, n_in]. */
    void (*matmul)(compute_device *d, compute_mem *out, const compute_mem *x, const compute_matrix *w,
                   const compute_mem *bias, size_t n);
    /* The same with x f32 and the f32 chain in every class: routers. w was opened by matrix_open_f32, of this device or of
     * another one of the same kind and class, which may be another thread's. matrix_close: from any thread. */
    MOE_NODISCARD moe_status (*matrix_open_f32)(compute_device *d, const compute_weight *w, compute_matrix **out);
    void (*matmul_f32)(compute_device *d, compute_mem *out, const compute_mem *x, const compute_matrix *w,
                       const compute_mem *bias, size_t n);
    /* For every group, out row out_rows[i] (f32 [.., n_out]) = x row rows[i] (class dtype [.., n_in]) . w^T: the bits
     * of matmul. All matrices of a call have one shape. Each weight byte is read once per call; threads split outputs
     * and rows, never K. Other rows of out keep what they hold. */
    void (*matmul_routed)(compute_device *d, compute_mem *out, const compute_mem *x, const compute_routed *groups,
                          size_t n_groups);
    /* out f32 [n, width] = gain * (x * 1/sqrt(mean(x^2) + eps)); out may be x; rounded (class dtype, may be NULL) gets
     * round(out). stride: floats from one row of x to the next, at least width; out and rounded are dense unless out is
     * x. */
    void (*rms_norm)(compute_device *d, compute_mem *out, compute_mem *rounded, const compute_mem *x, size_t stride,
                     const compute_mem *gain, float eps, size_t width, size_t n);
    /* out f32 [n, width] = (x - mean) / sqrt(variance + eps) * gain + bias, the variance over width (not width - 1);
     * out may be x; rounded (class dtype, may be NULL) gets round(out). Rows are dense. */
    void (*layer_norm)(compute_device *d, compute_mem *out, compute_mem *rounded, const compute_mem *x,
                       const compute_mem *gain, const compute_mem *bias, float eps, size_t width, size_t n);
    /* x f32 [n, width], every row in place divided by max(its Euclidean length, 1e-12). */
    void (*unit_norm)(compute_device *d, compute_mem *x, size_t width, size_t n);
    /* x f32 [count] = f(x) in place. */
    void (*activate)(compute_device *d, compute_mem *x, compute_activation kind, size_t count);
    /* x f32 [count] = min(max(x, -bound), bound) in place. */
    void (*clamp)(compute_device *d, compute_mem *x, float bound, size_t count);
    /* Half-split rotation in place of x f32 [n, n_heads, head_dim] by table [positions, head_dim/2] cos then sin (see
     * compute_rope_table); row i stands at rows[i].position. */
    void (*rope)(compute_device *d, compute_mem *x, const compute_mem *table, size_t n_heads, size_t head_dim,
                 const compute_row *rows, size_t n);
    /* Rounds K and V rows (f32 [n, n_kv_heads * head_dim]) into the pages of `layer`. v is NULL where shape->shared,
     * and only there. */
    void (*kv_store)(compute_device *d, compute_mem *kv, const compute_kv_shape *shape, size_t layer,
                     const compute_mem *k, const compute_mem *v, const compute_row *rows, size_t n);
    /* out f32 [n, n_heads * head_dim]: softmax attention of q (class dtype) over positions 0 .. rows[i].position of its
     * pages, grouped-query (head h reads kv head h / (n_heads / n_kv_heads)). docs/numeric.md, "attention". */
    void (*attention)(compute_device *d, compute_mem *out, const compute_mem *q, const compute_mem *kv,
                      const compute_kv_shape *shape, size_t layer, size_t n_heads, const compute_row *rows, size_t n);
    /* out f32 [n, n_heads * head_dim]: stick-breaking attention of q (class dtype), from the row's own position back to
     * 0, over the keys that are reached before nothing of the stick is left (options.full_scan: over all; equal bits
     * where all values are finite). Head h reads kv head h % n_kv_heads: heads are laid out [attention expert][head],
     * and the experts share K and V. docs/numeric.md, "Stick-breaking attention"; ModuleFormer (2306.04640). */
    void (*stick_attention)(compute_device *d, compute_mem *out, const compute_mem *q, const compute_mem *kv,
                            const compute_kv_shape *shape, size_t layer, size_t n_heads, const compute_row *rows,
                            size_t n);
    /* out (class dtype) [sum of n_rows, d_model]: every expert over its rows of x (class dtype [.., d_model]). Each
     * weight byte is read once per call. Splits over threads by outputs and rows, never K. At most the rows of
     * compute_device_options.max_ffn_rows. */
    void (*expert_ffn)(compute_device *d, compute_mem *out, const compute_mem *x, const compute_group *groups,
                       size_t n_groups);
    /* x f32 [n, width]: per row y = +0; for its k picks in order y = y + round32(weight * results[result_row]); x = x +
     * y. picks [n, k] host memory; results of results_dtype: the class dtype for MLP experts, COMPUTE_F32 for attention
     * experts. Optional n_picks[n] (NULL: k each). */
    void (*combine)(compute_device *d, compute_mem *x, const compute_mem *results, compute_dtype results_dtype,
                    const compute_pick *picks, const uint32_t *n_picks, size_t k, size_t width, size_t n);
    /* A constant expert: out row out_rows[i] = round(a0 * x + a1 * constant), x being row rows[i] and (a0, a1) =
     * softmax(gate . x). out and x class dtype [.., width]; gate f32 [2, width]; constant f32 [width]. gate NULL: the
     * copy expert, out = x. rows and out_rows [n_rows] host memory. MoE++ (2410.07348) sec. 3.1. */
    void (*local_expert)(compute_device *d, compute_mem *out, const compute_mem *x, const compute_mem *gate,
                         const compute_mem *constant, const uint32_t *rows, const uint32_t *out_rows, size_t n_rows,
                         size_t width);
    /* x f32 [n] = x + y. */
    void (*add)(compute_device *d, compute_mem *x, const compute_mem *y, size_t n);
    /* out f32 [n, width] = row index[i] of x. */
    void (*gather)(compute_device *d, compute_mem *out, const compute_mem *x, const uint32_t *index, size_t width,
                   size_t n);

    /* Sums over all threads; between ops. */
    void (*counters)(compute_device *d, compute_counters *out);
    void (*close)(compute_device *d);
} compute_ops;

struct compute_device {
    const compute_ops *ops;
    compute_class numeric_class;
    /* private fields follow */
};

typedef struct compute_device_options {
    compute_class numeric_class;
    compute_isa isa;        /* AUTO: the best there is. MOE_ERR_UNSUPPORTED when it is not there */
    moe_threads *threads;   /* borrowed for the device's life */
    size_t max_rows;        /* rows of one op call */
    size_t max_ffn_rows;    /* sum of rows of one expert_ffn call */
    size_t max_d_ff;        /* widest expert */
    size_t max_context;     /* positions an attention row may see: scratch for scores */
    size_t max_routed_rows; /* sum of n_rows of one matmul_routed call; 0 where there is none */
    bool full_scan;         /* stick_attention looks at every key: slower, equal bits */
} compute_device_options;

/* All workspace is allocated here; a step allocates nothing. */
MOE_NODISCARD moe_status compute_cpu_open(const compute_device_options *options, compute_device **out, moe_error *err);

/* The test device: a CPU device whose buffers are unreadable (PROT_NONE) except inside its own ops, so that any other
 * access is a fault. One page-aligned mapping per buffer; slow. */
MOE_NODISCARD moe_status compute_guarded_open(const compute_device_options *options, compute_device **out,
                                              moe_error *err);

static inline void compute_close(compute_device *d)
{
    if (d != NULL) {
        d->ops->close(d);
    }
}

/* theta^(-2j/head_dim), radians per position of pair j: out [head_dim / 2]. */
void compute_rope_frequencies(double *out, size_t head_dim, double theta);
/* cos and sin of position * position_scale * frequencies[j], times magnitude, made in double and stored f32: out
 * [n_positions][2][head_dim / 2]. position_scale: 1 / factor for linear scaling, else 1; magnitude: 1 but for YaRN. */
void compute_rope_table(float *out, size_t n_positions, size_t head_dim, const double *frequencies,
                        double position_scale, double magnitude);

/* ------------------------------------------------------------------------------------------------ host mathematics
 * One definition each, scalar and vector bit for bit, never libm. docs/numeric.md gives polynomials and error. */
float compute_exp(float x);
float compute_log(float x);
float compute_log1p(float x);
float compute_erf(float x);
float compute_tanh(float x);
float compute_sigmoid(float x);   /* 1 / (1 + exp(-x)) */
float compute_silu(float x);      /* x / (1 + exp(-x)) */
float compute_gelu_erf(float x);  /* x/2 * (1 + erf(x / sqrt 2)) */
float compute_gelu_tanh(float x); /* x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3))) */

uint16_t compute_bf16_from_f32(float x); /* nearest even; denormals to signed zero; NaN quiet */
static inline float compute_f32_from_bf16(uint16_t b)
{
    union {
        uint32_t u;
        float f;
    } v = {(uint32_t)b << 16};
    return v.f;
}
float compute_f32_from_f16(uint16_t h); /* exact */

/* Row functions on host arrays, using the best instruction set (equal bits on all):
 * sum of 16 strided partial sums folded in the fixed tree; the maximum; y = exp(x - shift). */
float compute_row_sum(const float *x, size_t n);
float compute_row_max(const float *x, size_t n); /* NaN if any is NaN; n > 0 */
void compute_row_exp(float *y, const float *x, float shift, size_t n);
/* y = softmax(x): m = max; e = exp(x - m); y = e / sum(e). y may be x. */
void compute_row_softmax(float *y, const float *x, size_t n);
/* max(x) and log(sum(exp(x - max))): log-softmax of entry i is (x[i] - max) - log_sum. scratch [n]. */
void compute_row_log_sum(const float *x, size_t n, float *scratch, float *max_out, float *log_sum_out);
/* Tests and benchmarks: which set the row functions use (default AUTO). */
void compute_row_set_isa(compute_isa isa);

#endif
