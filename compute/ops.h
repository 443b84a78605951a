/* The one list of a device's ops: the table in compute.h, the test device and the timed device are made of it. It is
 * included where COMPUTE_OP(kind, result, name, parameters, arguments) is defined, as often as that is.
 *
 * Kinds, for those who pass ops on:
 *
 *   OWN             memory and life of the device itself
 *   QUEUED          works on device memory, returns nothing
 *   FETCHED         works on device memory, returns something
 *   HOST            does not touch device memory, returns nothing
 *   ASKED           does not touch device memory, returns something
 *   OPTIONAL          as HOST, but NULL in a device that has none: callers ask
 *   OPTIONAL_ASKED    as ASKED, but NULL in a device that has none
 *   OPTIONAL_FETCHED  as FETCHED, but NULL in a device that has none
 *
 * n rows may be 0. */
/* Not by clang-format, which takes parameters for products. */
/* clang-format off */

/* -- memory: 64-byte aligned, zero-filled; alloc returns NULL when there is none. alloc and free may be called from
 * any thread while the device computes (not on the test device); free: NULL is fine. */
COMPUTE_OP(OWN, compute_mem *, alloc, (compute_device *d, size_t bytes), (d, bytes))
COMPUTE_OP(OWN, void, free, (compute_device *d, compute_mem *m), (d, m))
/* Host memory from which and to which the device copies fastest (pinned), 64-byte aligned; for frames and staging.
 * NULL when there is none. Any thread. free: when nothing that is on its way there is outstanding any more, for which it
 * waits. A device without the op is as fast with any memory. */
COMPUTE_OP(OPTIONAL_ASKED, void *, host_alloc, (compute_device *d, size_t bytes), (d, bytes))
COMPUTE_OP(OPTIONAL, void, host_free, (compute_device *d, void *p, size_t bytes), (d, p, bytes))
COMPUTE_OP(QUEUED, void, upload,
           (compute_device *d, compute_mem *to, const void *from, size_t bytes), (d, to, from, bytes))
/* Waits for all that was queued. */
COMPUTE_OP(FETCHED, moe_status, download,
           (compute_device *d, void *to, const compute_mem *from, size_t bytes), (d, to, from, bytes))
/* Rows between activations and host memory: row i of `to` = row rows[i] of `from`, row_bytes each; rows NULL: row i.
 * `to` is the device's until the ticket is reached, whatever becomes of the one who asked. It may be any memory;
 * the device waits itself, and returns 0, where it cannot copy there beside other work (host_alloc). */
COMPUTE_OP(FETCHED, compute_ticket, gather_out,
           (compute_device *d, void *to, const compute_mem *from, const uint32_t *rows, size_t row_bytes, size_t n),
           (d, to, from, rows, row_bytes, n))
/* The other way: row rows[i] of `to` = row i of `from`; no index twice in a call. `from` has been read when it
 * returns. */
COMPUTE_OP(QUEUED, void, scatter_in,
           (compute_device *d, compute_mem *to, const void *from, const uint32_t *rows, size_t row_bytes, size_t n),
           (d, to, from, rows, row_bytes, n))
/* A frame in device memory, where a network reads it: head, which has been read when it returns; then rows as gather_out has
 * them; and at sum_at, within head, the CRC-32C of all other bytes, little-endian; both are multiples of 4. `frame` is 64-byte aligned,
 * and the device's until the ticket is reached. NULL: no network reads this device's memory. */
COMPUTE_OP(OPTIONAL_FETCHED, compute_ticket, frame_out,
           (compute_device *d, compute_mem *frame, const void *head, size_t head_bytes, size_t sum_at,
            const compute_mem *from, const uint32_t *rows, size_t row_bytes, size_t n),
           (d, frame, head, head_bytes, sum_at, from, rows, row_bytes, n))
/* MOE_OK: all that was queued before the ticket was given is done. MOE_ERR_BUSY: not yet. Others: the device has
 * failed, and nothing is written any more. Never waits. */
COMPUTE_OP(ASKED, moe_status, reached, (compute_device *d, compute_ticket t), (d, t))
COMPUTE_OP(ASKED, moe_status, wait, (compute_device *d, compute_ticket t), (d, t))
COMPUTE_OP(ASKED, moe_status, sync, (compute_device *d), (d))

/* -- weights: see compute_weight. matrix_open_f32: for matmul_f32; close: from any thread. */
COMPUTE_OP(ASKED, moe_status, matrix_open,
           (compute_device *d, const compute_weight *w, compute_layout layout, compute_matrix **out),
           (d, w, layout, out))
COMPUTE_OP(ASKED, moe_status, matrix_open_f32,
           (compute_device *d, const compute_weight *w, compute_matrix **out), (d, w, out))
COMPUTE_OP(HOST, void, matrix_close, (compute_device *d, compute_matrix *m), (d, m))
/* gate, up and down of the kind that ffn says. */
COMPUTE_OP(ASKED, moe_status, expert_open,
           (compute_device *d, compute_ffn ffn, const compute_weight *gate, const compute_weight *up,
            const compute_weight *down, compute_layout layout, compute_expert **out),
           (d, ffn, gate, up, down, layout, out))
COMPUTE_OP(HOST, void, expert_close, (compute_device *d, compute_expert *e), (d, e))
/* Takes an expert that another device of the same place and class has opened: from now on it is as if it had been
 * opened here. So a thread with a device of its own can prepare experts while this one computes; only what a step
 * needs at hand is done here. Errors: MOE_ERR_NO_MEMORY, MOE_ERR_INVALID_ARG; either device may then close it. */
COMPUTE_OP(ASKED, moe_status, expert_adopt, (compute_device *d, compute_expert *e), (d, e))

/* -- rows of a step: at most max_rows of them, whose pages have page_tokens positions. One step for each batch that
 * can be under way. close: NULL is fine. */
COMPUTE_OP(ASKED, moe_status, step_open,
           (compute_device *d, size_t max_rows, size_t page_tokens, compute_step **out),
           (d, max_rows, page_tokens, out))
COMPUTE_OP(HOST, void, step_close, (compute_device *d, compute_step *s), (d, s))
/* Hands rows and their page tables to the device, once a step. They stay as they are until the step's last op has
 * been queued. */
COMPUTE_OP(HOST, void, step_begin,
           (compute_device *d, compute_step *s, const compute_row *rows, size_t n), (d, s, rows, n))

/* -- stretches: a part of a step whose ops are the same, with the same arguments, whenever step, part and number of rows are
 * the same; none of them is given host arrays, and no other op comes between. A device may queue it as one:
 *
 *   if (!stretch_begin(d, s, part)) { do { ops } while (!stretch_end(d)); }
 *
 * begin: true: it has been queued, its ops are left out. end: false: they are wanted once more, as nothing has been queued.
 * NULL: the device has no use for it. */
COMPUTE_OP(OPTIONAL_ASKED, bool, stretch_begin, (compute_device *d, compute_step *s, uint32_t part), (d, s, part))
COMPUTE_OP(OPTIONAL_ASKED, bool, stretch_end, (compute_device *d), (d))

/* -- ops */
/* out f32 [n, width] = row ids[i] of table, widened. table [.., width] of table_dtype, row-major. */
COMPUTE_OP(QUEUED, void, embed,
           (compute_device *d, compute_mem *out, const compute_mem *table, compute_dtype table_dtype, size_t width,
            const int32_t *ids, size_t n), (d, out, table, table_dtype, width, ids, n))
/* out (class dtype) = round(x f32), n values. In f32-1 a copy. */
COMPUTE_OP(QUEUED, void, to_class,
           (compute_device *d, compute_mem *out, const compute_mem *x, size_t n), (d, out, x, n))
/* out f32 [n, n_out] = x . W^T (+ bias f32 [n_out], NULL: none). x is class dtype [n, n_in]. */
COMPUTE_OP(QUEUED, void, matmul,
           (compute_device *d, compute_mem *out, const compute_mem *x, const compute_matrix *w,
            const compute_mem *bias, size_t n), (d, out, x, w, bias, n))
/* The same with x f32 and the f32 chain in every class: routers. w was opened by matrix_open_f32, of this device or
 * of another one of the same place and class, which may be another thread's. */
COMPUTE_OP(QUEUED, void, matmul_f32,
           (compute_device *d, compute_mem *out, const compute_mem *x, const compute_matrix *w,
            const compute_mem *bias, size_t n), (d, out, x, w, bias, n))
/* For every group, out row out_rows[i] (f32 [.., n_out]) = x row rows[i] (class dtype [.., n_in]) . w^T: the bits
 * of matmul. All matrices of a call have one shape. Each weight byte is read once per call; threads split outputs
 * and rows, never K. Other rows of out keep what they hold. */
COMPUTE_OP(QUEUED, void, matmul_routed,
           (compute_device *d, compute_mem *out, const compute_mem *x, const compute_routed *groups, size_t n_groups),
           (d, out, x, groups, n_groups))
/* out f32 [n, width] = gain * (x * 1/sqrt(mean(x^2) + eps)); out may be x; rounded (class dtype, may be NULL) gets
 * round(out). stride: floats from one row of x to the next, at least width; out and rounded are dense unless out is
 * x. */
COMPUTE_OP(QUEUED, void, rms_norm,
           (compute_device *d, compute_mem *out, compute_mem *rounded, const compute_mem *x, size_t stride,
            const compute_mem *gain, float eps, size_t width, size_t n),
           (d, out, rounded, x, stride, gain, eps, width, n))
/* out f32 [n, width] = (x - mean) / sqrt(variance + eps) * gain + bias, the variance over width (not width - 1);
 * out may be x; rounded (class dtype, may be NULL) gets round(out). Rows are dense. */
COMPUTE_OP(QUEUED, void, layer_norm,
           (compute_device *d, compute_mem *out, compute_mem *rounded, const compute_mem *x, const compute_mem *gain,
            const compute_mem *bias, float eps, size_t width, size_t n),
           (d, out, rounded, x, gain, bias, eps, width, n))
/* x f32 [n, width], every row in place divided by max(its Euclidean length, 1e-12). */
COMPUTE_OP(QUEUED, void, unit_norm, (compute_device *d, compute_mem *x, size_t width, size_t n), (d, x, width, n))
/* x f32 [count] = f(x) in place. */
COMPUTE_OP(QUEUED, void, activate,
           (compute_device *d, compute_mem *x, compute_activation kind, size_t count), (d, x, kind, count))
/* x f32 [count] = min(max(x, -bound), bound) in place. */
COMPUTE_OP(QUEUED, void, clamp, (compute_device *d, compute_mem *x, float bound, size_t count), (d, x, bound, count))
/* Half-split rotation in place of x f32 [rows of s, n_heads, head_dim] by table [positions, head_dim/2] cos then sin
 * (see compute_rope_table), each row by its position. */
COMPUTE_OP(QUEUED, void, rope,
           (compute_device *d, compute_mem *x, const compute_mem *table, size_t n_heads, size_t head_dim,
            const compute_step *s), (d, x, table, n_heads, head_dim, s))
/* Rounds K and V rows (f32 [rows of s, n_kv_heads * head_dim]) into the pages of `layer`. v is NULL where
 * shape->shared, and only there. */
COMPUTE_OP(QUEUED, void, kv_store,
           (compute_device *d, compute_mem *kv, const compute_kv_shape *shape, size_t layer, const compute_mem *k,
            const compute_mem *v, const compute_step *s), (d, kv, shape, layer, k, v, s))
/* out f32 [rows of s, n_heads * head_dim]: softmax attention of q (class dtype) over positions 0 .. a row's own of
 * its pages, grouped-query (head h reads kv head h / (n_heads / n_kv_heads)). docs/numeric.md, "Attention". */
COMPUTE_OP(QUEUED, void, attention,
           (compute_device *d, compute_mem *out, const compute_mem *q, const compute_mem *kv,
            const compute_kv_shape *shape, size_t layer, size_t n_heads, const compute_step *s),
           (d, out, q, kv, shape, layer, n_heads, s))
/* out f32 [rows of s, n_heads * head_dim]: stick-breaking attention of q (class dtype), from the row's own position
 * back to 0, over the keys that are reached before nothing of the stick is left (options.full_scan: over all; equal
 * bits where all values are finite). Head h reads kv head h % n_kv_heads: heads are laid out [attention
 * expert][head], and the experts share K and V. docs/numeric.md, "Stick-breaking attention"; ModuleFormer
 * (2306.04640). */
COMPUTE_OP(QUEUED, void, stick_attention,
           (compute_device *d, compute_mem *out, const compute_mem *q, const compute_mem *kv,
            const compute_kv_shape *shape, size_t layer, size_t n_heads, const compute_step *s),
           (d, out, q, kv, shape, layer, n_heads, s))
/* out (class dtype) [sum of n_rows, d_model]: every expert over its rows of x (class dtype [.., d_model]). Each
 * weight byte is read once per call. Splits over threads by outputs and rows, never K. At most the rows of
 * compute_device_options.max_ffn_rows. */
COMPUTE_OP(QUEUED, void, expert_ffn,
           (compute_device *d, compute_mem *out, const compute_mem *x, const compute_group *groups, size_t n_groups),
           (d, out, x, groups, n_groups))
/* x f32 [n, width]: per row y = +0; for its k picks in order y = y + round32(weight * results[result_row]); x = x +
 * y. picks [n, k] host memory; results of results_dtype: the class dtype for MLP experts, COMPUTE_F32 for attention
 * experts. Optional n_picks[n] (NULL: k each). */
COMPUTE_OP(QUEUED, void, combine,
           (compute_device *d, compute_mem *x, const compute_mem *results, compute_dtype results_dtype,
            const compute_pick *picks, const uint32_t *n_picks, size_t k, size_t width, size_t n),
           (d, x, results, results_dtype, picks, n_picks, k, width, n))
/* A constant expert: out row out_rows[i] = round(a0 * x + a1 * constant), x being row rows[i] and (a0, a1) =
 * softmax(gate . x). out and x class dtype [.., width]; gate f32 [2, width]; constant f32 [width]. gate NULL: the
 * copy expert, out = x. rows and out_rows [n_rows] host memory. MoE++ (2410.07348) sec. 3.1. */
COMPUTE_OP(QUEUED, void, local_expert,
           (compute_device *d, compute_mem *out, const compute_mem *x, const compute_mem *gate,
            const compute_mem *constant, const uint32_t *rows, const uint32_t *out_rows, size_t n_rows, size_t width),
           (d, out, x, gate, constant, rows, out_rows, n_rows, width))
/* x f32 [n] = x + y. */
COMPUTE_OP(QUEUED, void, add, (compute_device *d, compute_mem *x, const compute_mem *y, size_t n), (d, x, y, n))
/* out f32 [n, width] = row index[i] of x. */
COMPUTE_OP(QUEUED, void, gather,
           (compute_device *d, compute_mem *out, const compute_mem *x, const uint32_t *index, size_t width, size_t n),
           (d, out, x, index, width, n))

/* -- the device */
COMPUTE_OP(HOST, void, counters,
           (compute_device *d, compute_counters *out), (d, out)) /* over all threads; between ops */
/* Any thread until it is closed, cheap; a device without it has the host's memory. */
COMPUTE_OP(OPTIONAL, void, report, (compute_device *d, compute_report *out), (d, out))
COMPUTE_OP(OWN, void, close, (compute_device *d), (d))

#undef COMPUTE_OP
/* clang-format on */
