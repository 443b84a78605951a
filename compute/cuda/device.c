/* The CUDA device: the ops table over the launchers, and the module. One stream computes: ops queue and nobody waits; what an op was given in host memory goes up
 * beside it, through the pinned ring (memory.c). */
#include "compute/cuda/device_priv.h"
#include "compute/module.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ------------------------------------------------------------------------------------------------ host arrays of an op
 * Gathered into one piece of the ring and sent by one copy. */
typedef struct bundle {
    cuda_device *d;
    unsigned char *host, *twin;
    size_t bytes, used;
} bundle;

static size_t bundled(size_t bytes)
{
    return moe_round_up(bytes, 16);
}

static bool bundle_open(bundle *b, cuda_device *d, size_t bytes)
{
    void *twin = NULL;

    *b = (bundle){.d = d, .bytes = bytes};
    b->host = cuda_stage(d, bytes, &twin);
    b->twin = twin;
    return b->host != NULL;
}

/* Room for an array: *device_out is where it will be. */
static void *bundle_room(bundle *b, size_t bytes, const void **device_out)
{
    void *at = b->host + b->used;

    *device_out = b->twin + b->used;
    b->used += bundled(bytes);
    MOE_ASSERT(b->used <= b->bytes);
    return at;
}

static const void *bundle_add(bundle *b, const void *from, size_t bytes)
{
    const void *on_device;
    void *to = bundle_room(b, bytes, &on_device);

    if (bytes > 0) {
        memcpy(to, from, bytes);
    }
    return on_device;
}

static void bundle_send(bundle *b)
{
    cuda_stage_send(b->d, b->twin, b->host, b->used);
}

/* After every op: what its launch said. */
static void launched(cuda_device *d)
{
    cuda_note(d, cudaGetLastError());
}

/* ------------------------------------------------------------------------------------------------ steps */
static moe_status step_open(compute_device *device, size_t max_rows, size_t page_tokens, compute_step **out)
{
    cuda_device *d = cuda_of(device);
    compute_step *s = calloc(1, sizeof(*s));
    size_t per_row = (d->options.max_context + page_tokens - 1) / page_tokens;

    if (s == NULL) {
        return MOE_ERR_NO_MEMORY;
    }
    *s = (compute_step){.max_rows = max_rows, .page_tokens = page_tokens, .max_pages = max_rows * per_row};
    s->on_device = cuda_memory_alloc(d, (2 * max_rows + s->max_pages) * sizeof(uint32_t));
    if (s->on_device == NULL || cuda_graphs_open(s) != MOE_OK) {
        cuda_memory_free(s->on_device);
        free(s);
        return MOE_ERR_NO_MEMORY;
    }
    *out = s;
    return MOE_OK;
}

static void step_close(compute_device *d, compute_step *s)
{
    if (s != NULL) {
        cuda_graphs_close(cuda_of(d), s);
        cuda_memory_free(s->on_device);
        free(s);
    }
}

/* Pages that the rows of one sequence use; *next_out: the first row after them. */
static size_t pages_used(const compute_step *s, const compute_row *rows, size_t i, size_t n, size_t *next_out)
{
    size_t used = 0, j = i;

    for (; j < n && rows[j].pages == rows[i].pages; j++) {
        used = MOE_MAX(used, rows[j].position / s->page_tokens + 1);
    }
    *next_out = j;
    return rows[i].pages == NULL ? 0 : used;
}

static void step_begin(compute_device *device, compute_step *s, const compute_row *rows, size_t n)
{
    cuda_device *d = cuda_of(device);
    size_t n_pages = 0, next, at = 0;
    uint32_t *words;
    void *twin;

    MOE_ASSERT(n <= s->max_rows);
    s->n = n;
    for (size_t i = 0; i < n; i = next) {
        n_pages += pages_used(s, rows, i, n, &next);
    }
    MOE_ASSERT(n_pages <= s->max_pages);
    words = n == 0 ? NULL : cuda_stage(d, (2 * n + n_pages) * sizeof(*words), &twin);
    if (words == NULL) {
        return;
    }
    for (size_t i = 0; i < n; i = next) {
        size_t used = pages_used(s, rows, i, n, &next);

        for (size_t j = i; j < next; j++) {
            MOE_ASSERT(rows[j].position < d->options.max_context);
            words[j] = rows[j].position;
            words[n + j] = (uint32_t)at;
        }
        if (used > 0) {
            memcpy(words + 2 * n + at, rows[i].pages, used * sizeof(*words));
        }
        at += used;
    }
    cuda_stage_send(d, s->on_device, words, (2 * n + n_pages) * sizeof(*words));
}

static cuda_pages pages_of(const compute_step *s, const compute_kv_shape *shape)
{
    size_t page_bytes = compute_kv_page_bytes(shape);

    MOE_ASSERT(shape->page_tokens == s->page_tokens);
    return (cuda_pages){.positions = s->on_device,
                        .page_start = s->on_device + s->n,
                        .pages = s->on_device + 2 * s->n,
                        .page_bytes = page_bytes,
                        .page_tokens = shape->page_tokens,
                        .n_kv_heads = shape->n_kv_heads,
                        .head_dim = shape->head_dim,
                        .v_offset = shape->shared ? 0 : page_bytes / 2,
                        .bf16 = shape->dtype == COMPUTE_BF16};
}

/* ------------------------------------------------------------------------------------------------ rows and values */
static void embed(compute_device *device, compute_mem *out, const compute_mem *table, compute_dtype table_dtype,
                  size_t width, const int32_t *ids, size_t n)
{
    cuda_device *d = cuda_of(device);
    const int32_t *on_device = n == 0 ? NULL : cuda_send(d, ids, n * sizeof(*ids));

    if (on_device != NULL) {
        cuda_embed((float *)(void *)out, table, cuda_dtype_of(table_dtype), width, on_device, n, cuda_queue(d));
        launched(d);
    }
}

static void to_class(compute_device *device, compute_mem *out, const compute_mem *x, size_t n)
{
    cuda_device *d = cuda_of(device);

    if (cuda_is_bf16(device)) {
        cuda_to_bf16((uint16_t *)(void *)out, (const float *)(const void *)x, n, cuda_queue(d));
    } else if (n > 0 && out != x) {
        cuda_note(d, cudaMemcpyAsync(out, x, n * sizeof(float), cudaMemcpyDeviceToDevice, cuda_queue(d)));
    }
    launched(d);
}

static void rms_norm(compute_device *device, compute_mem *out, compute_mem *rounded, const compute_mem *x,
                     size_t stride, const compute_mem *gain, float eps, size_t width, size_t n)
{
    cuda_device *d = cuda_of(device);

    MOE_ASSERT(stride >= width && width > 0);
    cuda_rms_norm((float *)(void *)out, rounded, cuda_is_bf16(device), (const float *)(const void *)x, stride,
                  (const float *)(const void *)gain, eps, width, n, cuda_queue(d));
    launched(d);
}

static void layer_norm(compute_device *device, compute_mem *out, compute_mem *rounded, const compute_mem *x,
                       const compute_mem *gain, const compute_mem *bias, float eps, size_t width, size_t n)
{
    cuda_device *d = cuda_of(device);

    MOE_ASSERT(width > 0);
    cuda_layer_norm((float *)(void *)out, rounded, cuda_is_bf16(device), (const float *)(const void *)x,
                    (const float *)(const void *)gain, (const float *)(const void *)bias, eps, width, n, cuda_queue(d));
    launched(d);
}

static void unit_norm(compute_device *device, compute_mem *x, size_t width, size_t n)
{
    cuda_unit_norm((float *)(void *)x, width, n, cuda_queue(cuda_of(device)));
    launched(cuda_of(device));
}

static void activate(compute_device *device, compute_mem *x, compute_activation kind, size_t count)
{
    cuda_device *d = cuda_of(device);

    if (kind == COMPUTE_ACT_TANH) {
        cuda_tanh((float *)(void *)x, count, cuda_queue(d));
    } else {
        cuda_gelu_erf((float *)(void *)x, count, cuda_queue(d));
    }
    launched(d);
}

static void clamp(compute_device *device, compute_mem *x, float bound, size_t count)
{
    cuda_clamp((float *)(void *)x, bound, count, cuda_queue(cuda_of(device)));
    launched(cuda_of(device));
}

static void add(compute_device *device, compute_mem *x, const compute_mem *y, size_t n)
{
    cuda_add((float *)(void *)x, (const float *)(const void *)y, n, cuda_queue(cuda_of(device)));
    launched(cuda_of(device));
}

static void gather(compute_device *device, compute_mem *out, const compute_mem *x, const uint32_t *index, size_t width,
                   size_t n)
{
    cuda_device *d = cuda_of(device);
    const uint32_t *on_device = n == 0 ? NULL : cuda_send(d, index, n * sizeof(*index));

    if (on_device != NULL) {
        cuda_gather(out, x, NULL, on_device, width * sizeof(float), n, cuda_queue(d));
        launched(d);
    }
}

static void combine(compute_device *device, compute_mem *x, const compute_mem *results, compute_dtype results_dtype,
                    const compute_pick *picks, const uint32_t *n_picks, size_t k, size_t width, size_t n)
{
    cuda_device *d = cuda_of(device);
    size_t picks_bytes = n * k * sizeof(*picks), counts_bytes = n_picks == NULL ? 0 : n * sizeof(*n_picks);
    bundle b;

    _Static_assert(sizeof(cuda_pick) == sizeof(compute_pick), "copied as they are");
    if (n == 0 || !bundle_open(&b, d, bundled(picks_bytes) + bundled(counts_bytes))) {
        return;
    }
    const cuda_pick *on_device = bundle_add(&b, picks, picks_bytes);
    const uint32_t *counts = n_picks == NULL ? NULL : bundle_add(&b, n_picks, counts_bytes);

    bundle_send(&b);
    cuda_combine((float *)(void *)x, results, results_dtype == COMPUTE_BF16, on_device, counts, k, width, n,
                 cuda_queue(d));
    launched(d);
}

static void local_expert(compute_device *device, compute_mem *out, const compute_mem *x, const compute_mem *gate,
                         const compute_mem *constant, const uint32_t *rows, const uint32_t *out_rows, size_t n_rows,
                         size_t width)
{
    cuda_device *d = cuda_of(device);
    size_t bytes = n_rows * sizeof(*rows);
    bundle b;

    MOE_ASSERT((gate == NULL) == (constant == NULL));
    if (n_rows == 0 || !bundle_open(&b, d, 2 * bundled(bytes))) {
        return;
    }
    const uint32_t *from = bundle_add(&b, rows, bytes), *to = bundle_add(&b, out_rows, bytes);

    bundle_send(&b);
    if (gate == NULL) {
        cuda_gather(out, x, to, from, width * compute_dtype_bytes(compute_class_dtype(device->numeric_class)), n_rows,
                    cuda_queue(d));
    } else {
        cuda_constant_expert(out, x, cuda_is_bf16(device), (const float *)(const void *)gate,
                             (const float *)(const void *)constant, from, to, n_rows, width, cuda_queue(d));
    }
    launched(d);
}

/* ------------------------------------------------------------------------------------------------ attention */
static void rope(compute_device *device, compute_mem *x, const compute_mem *table, size_t n_heads, size_t head_dim,
                 const compute_step *s)
{
    MOE_ASSERT(head_dim % 2 == 0);
    cuda_rope((float *)(void *)x, (const float *)(const void *)table, n_heads, head_dim, s->on_device, s->n,
              cuda_queue(cuda_of(device)));
    launched(cuda_of(device));
}

static size_t layer_at(const compute_kv_shape *shape, size_t layer)
{
    return layer * shape->n_pages * compute_kv_page_bytes(shape);
}

static void kv_store(compute_device *device, compute_mem *kv, const compute_kv_shape *shape, size_t layer,
                     const compute_mem *k, const compute_mem *v, const compute_step *s)
{
    cuda_pages p = pages_of(s, shape);

    MOE_ASSERT(shape->dtype == compute_class_dtype(device->numeric_class) && (v == NULL) == shape->shared);
    cuda_kv_store((unsigned char *)kv + layer_at(shape, layer), &p, (const float *)(const void *)k,
                  (const float *)(const void *)v, s->n, cuda_queue(cuda_of(device)));
    launched(cuda_of(device));
}

static void attention(compute_device *device, compute_mem *out, const compute_mem *q, const compute_mem *kv,
                      const compute_kv_shape *shape, size_t layer, size_t n_heads, const compute_step *s)
{
    cuda_pages p = pages_of(s, shape);

    MOE_ASSERT(shape->dtype == compute_class_dtype(device->numeric_class) && n_heads % shape->n_kv_heads == 0);
    cuda_attention((float *)(void *)out, q, (const unsigned char *)kv + layer_at(shape, layer), &p, n_heads,
                   (float)(1.0 / sqrt((double)shape->head_dim)), s->n, cuda_queue(cuda_of(device)));
    launched(cuda_of(device));
}

static void stick_attention(compute_device *device, compute_mem *out, const compute_mem *q, const compute_mem *kv,
                            const compute_kv_shape *shape, size_t layer, size_t n_heads, const compute_step *s)
{
    cuda_device *d = cuda_of(device);
    cuda_pages p = pages_of(s, shape);

    MOE_ASSERT(shape->dtype == compute_class_dtype(device->numeric_class) && n_heads % shape->n_kv_heads == 0);
    cuda_stick_attention((float *)(void *)out, q, (const unsigned char *)kv + layer_at(shape, layer), &p, n_heads,
                         (float)(1.0 / sqrt((double)shape->head_dim)), d->options.full_scan, d->counters, s->n,
                         cuda_queue(d));
    launched(d);
}

/* ------------------------------------------------------------------------------------------------ products */
static void multiply(compute_device *device, compute_mem *out, const compute_mem *x, const compute_matrix *w,
                     const compute_mem *bias, size_t n)
{
    cuda_device *d = cuda_of(device);

    MOE_ASSERT(n <= d->options.max_rows);
    cuda_multiply(&(cuda_product){.kind = w->kind,
                                  .target = CUDA_TO_F32,
                                  .one = {w->packed, (uint32_t)w->n_out, (uint32_t)w->n_in, 0, (uint32_t)n, 0},
                                  .n_groups = 1,
                                  .max_rows = n,
                                  .max_outputs = w->n_out,
                                  .x = x,
                                  .out = out,
                                  .bias = (const float *)(const void *)bias,
                                  .x_stride = w->n_in,
                                  .out_stride = w->n_out},
                  cuda_queue(d));
    launched(d);
}

static void matmul(compute_device *device, compute_mem *out, const compute_mem *x, const compute_matrix *w,
                   const compute_mem *bias, size_t n)
{
    MOE_ASSERT((w->kind == CUDA_PAIR) == cuda_is_bf16(device));
    multiply(device, out, x, w, bias, n);
}

static void matmul_f32(compute_device *device, compute_mem *out, const compute_mem *x, const compute_matrix *w,
                       const compute_mem *bias, size_t n)
{
    MOE_ASSERT(w->kind != CUDA_PAIR);
    multiply(device, out, x, w, bias, n);
}

static void matmul_routed(compute_device *device, compute_mem *out, const compute_mem *x, const compute_routed *groups,
                          size_t n_groups)
{
    cuda_device *d = cuda_of(device);
    const void *rows_at, *out_rows_at, *groups_at;
    size_t n = 0, most = 0, at = 0;
    bundle b;

    for (size_t i = 0; i < n_groups; i++) {
        n += groups[i].n_rows;
        most = MOE_MAX(most, groups[i].n_rows);
    }
    MOE_ASSERT(n <= d->options.max_routed_rows);
    if (n == 0 || !bundle_open(&b, d, bundled(n_groups * sizeof(cuda_group)) + 2 * bundled(n * sizeof(uint32_t)))) {
        return;
    }
    cuda_group *to = bundle_room(&b, n_groups * sizeof(*to), &groups_at);
    uint32_t *rows = bundle_room(&b, n * sizeof(*rows), &rows_at);
    uint32_t *out_rows = bundle_room(&b, n * sizeof(*out_rows), &out_rows_at);

    for (size_t i = 0; i < n_groups; i++) {
        const compute_routed *g = &groups[i];

        to[i] = (cuda_group){g->w->packed, (uint32_t)g->w->n_out, (uint32_t)g->w->n_in,
                             (uint32_t)at, (uint32_t)g->n_rows,   0};
        MOE_ASSERT(g->w->kind == groups[0].w->kind && g->w->n_out == groups[0].w->n_out &&
                   g->w->n_in == groups[0].w->n_in);
        if (g->n_rows > 0) {
            memcpy(rows + at, g->rows, g->n_rows * sizeof(*rows));
            memcpy(out_rows + at, g->out_rows, g->n_rows * sizeof(*rows));
        }
        at += g->n_rows;
    }
    bundle_send(&b);
    cuda_multiply(&(cuda_product){.kind = groups[0].w->kind,
                                  .target = CUDA_TO_F32,
                                  .groups = groups_at,
                                  .n_groups = n_groups,
                                  .max_rows = most,
                                  .max_outputs = groups[0].w->n_out,
                                  .x = x,
                                  .out = out,
                                  .x_rows = rows_at,
                                  .out_rows = out_rows_at,
                                  .x_stride = groups[0].w->n_in,
                                  .out_stride = groups[0].w->n_out},
                  cuda_queue(d));
    launched(d);
}

/* Rows of an expert_ffn call, and the largest of its experts. */
typedef struct ffn_size {
    size_t rows, most, d_ff, d_model;
    bool gated;
} ffn_size;

static ffn_size ffn_size_of(const compute_group *groups, size_t n_groups)
{
    ffn_size s = {0};

    for (size_t i = 0; i < n_groups; i++) {
        const compute_expert *e = groups[i].expert;

        s.rows += groups[i].n_rows;
        s.most = MOE_MAX(s.most, groups[i].n_rows);
        s.d_ff = MOE_MAX(s.d_ff, e->d_ff);
        s.d_model = e->d_model;
        s.gated = s.gated || e->ffn == COMPUTE_FFN_SWIGLU;
        MOE_ASSERT(e->kind == groups[0].expert->kind && e->d_model == groups[0].expert->d_model);
    }
    return s;
}

/* Two launches: into hidden, a row each in the order of the groups; from there down. */
static void expert_ffn(compute_device *device, compute_mem *out, const compute_mem *x, const compute_group *groups,
                       size_t n_groups)
{
    cuda_device *d = cuda_of(device);
    ffn_size s = ffn_size_of(groups, n_groups);
    const void *up_at, *down_at, *rows_at, *out_rows_at;
    size_t at = 0;
    bundle b;

    MOE_ASSERT(s.rows <= d->options.max_ffn_rows);
    if (s.rows == 0 ||
        !bundle_open(&b, d, 2 * bundled(n_groups * sizeof(cuda_group)) + 2 * bundled(s.rows * sizeof(uint32_t)))) {
        return;
    }
    cuda_group *up = bundle_room(&b, n_groups * sizeof(*up), &up_at);
    cuda_group *down = bundle_room(&b, n_groups * sizeof(*down), &down_at);
    uint32_t *rows = bundle_room(&b, s.rows * sizeof(*rows), &rows_at);
    uint32_t *out_rows = bundle_room(&b, s.rows * sizeof(*rows), &out_rows_at);

    for (size_t i = 0; i < n_groups; i++) {
        const compute_expert *e = groups[i].expert;
        uint32_t n = (uint32_t)groups[i].n_rows;

        up[i] =
            (cuda_group){e->up, (uint32_t)e->d_ff, (uint32_t)e->d_model, (uint32_t)at, n, e->ffn == COMPUTE_FFN_SWIGLU};
        down[i] = (cuda_group){e->down, (uint32_t)e->d_model, (uint32_t)e->d_ff, (uint32_t)at, n, 0};
        for (size_t r = 0; r < n; r++, at++) {
            rows[at] = groups[i].rows[r];
            out_rows[at] = (uint32_t)(groups[i].out_row + r);
        }
    }
    bundle_send(&b);
    cuda_product p = {.kind = groups[0].expert->kind,
                      .target = CUDA_TO_HIDDEN,
                      .groups = up_at,
                      .n_groups = n_groups,
                      .max_rows = s.most,
                      .max_outputs = s.d_ff,
                      .x = x,
                      .out = d->hidden,
                      .x_rows = rows_at,
                      .x_stride = s.d_model,
                      .out_stride = s.d_ff,
                      .gated = s.gated};

    cuda_multiply(&p, cuda_queue(d));
    p.target = CUDA_TO_CLASS;
    p.groups = down_at;
    p.max_outputs = s.d_model;
    p.x = d->hidden;
    p.out = out;
    p.x_rows = NULL;
    p.out_rows = out_rows_at;
    p.x_stride = s.d_ff;
    p.out_stride = s.d_model;
    p.gated = false;
    cuda_multiply(&p, cuda_queue(d));
    launched(d);
}

/* ------------------------------------------------------------------------------------------------ open, close */
static void read_counters(compute_device *device, compute_counters *out)
{
    unsigned long long seen[2] = {0, 0};

    (void)cuda_op_download(device, seen, (compute_mem *)(void *)cuda_of(device)->counters, sizeof(seen));
    *out = (compute_counters){.stick_keys_seen = seen[0], .stick_keys_skipped = seen[1]};
}

/* Any thread. */
static void report(compute_device *device, compute_report *out)
{
    cuda_device *d = cuda_of(device);
    size_t free_bytes = 0, total = 0;

    (void)cudaSetDevice(d->index);
    if (cudaMemGetInfo(&free_bytes, &total) != cudaSuccess) {
        (void)cudaGetLastError();
    }
    *out = (compute_report){.memory_bytes = total,
                            .free_bytes = free_bytes,
                            .used_bytes = cuda_memory_used(d->index),
                            .kernel_ns = d->kernel_ns,
                            .copy_ns = d->copy_ns,
                            .copied_bytes = d->copied_bytes};
}

static void device_close(compute_device *device)
{
    cuda_device *d = cuda_of(device);

    (void)cudaSetDevice(d->index);
    if (d->stream != NULL) {
        (void)cudaStreamSynchronize(d->stream);
    }
    if (d->up != NULL) {
        (void)cudaStreamSynchronize(d->up);
    }
    if (d->copies != NULL) {
        (void)cudaStreamSynchronize(d->copies);
    }
    cuda_memory_free(d->hidden);
    cuda_memory_free(d->counters);
    cuda_staging_close(d);
    if (d->stream != NULL) {
        (void)cudaStreamDestroy(d->stream);
    }
    free(d);
}

static const compute_ops ops = {
    .alloc = cuda_op_alloc,
    .free = cuda_op_free,
    .host_alloc = cuda_op_host_alloc,
    .host_free = cuda_op_host_free,
    .upload = cuda_op_upload,
    .download = cuda_op_download,
    .gather_out = cuda_op_gather_out,
    .scatter_in = cuda_op_scatter_in,
    .frame_out = cuda_op_frame_out,
    .reached = cuda_op_reached,
    .wait = cuda_op_wait,
    .sync = cuda_op_sync,
    .matrix_open = cuda_op_matrix_open,
    .matrix_open_f32 = cuda_op_matrix_open_f32,
    .matrix_close = cuda_op_matrix_close,
    .expert_open = cuda_op_expert_open,
    .expert_close = cuda_op_expert_close,
    .expert_adopt = cuda_op_expert_adopt,
    .step_open = step_open,
    .step_close = step_close,
    .step_begin = step_begin,
    .stretch_begin = cuda_op_stretch_begin,
    .stretch_end = cuda_op_stretch_end,
    .embed = embed,
    .to_class = to_class,
    .matmul = matmul,
    .matmul_f32 = matmul_f32,
    .matmul_routed = matmul_routed,
    .rms_norm = rms_norm,
    .layer_norm = layer_norm,
    .unit_norm = unit_norm,
    .activate = activate,
    .clamp = clamp,
    .rope = rope,
    .kv_store = kv_store,
    .attention = attention,
    .stick_attention = stick_attention,
    .expert_ffn = expert_ffn,
    .combine = combine,
    .local_expert = local_expert,
    .add = add,
    .gather = gather,
    .counters = read_counters,
    .report = report,
    .close = device_close,
};

static moe_status device_init(cuda_device *d, size_t hidden_bytes)
{
    if (cudaStreamCreateWithFlags(&d->stream, cudaStreamNonBlocking) != cudaSuccess) {
        return MOE_ERR_NO_MEMORY;
    }
    d->hidden = cuda_memory_alloc(d, hidden_bytes);
    d->counters = cuda_memory_alloc(d, 2 * sizeof(*d->counters));
    if (d->hidden == NULL || d->counters == NULL || cuda_staging_open(d) != MOE_OK) {
        return MOE_ERR_NO_MEMORY;
    }
    return cuda_op_sync(&d->base);
}

/* ------------------------------------------------------------------------------------------------ the module */
#define OLDEST_MAJOR 8 /* sm_80: asynchronous copies into shared memory */

static void describe(compute_module_device *out, int index)
{
    struct cudaDeviceProp p;
    size_t free_bytes = 0, total = 0;
    cudaError_t e = cudaGetDeviceProperties(&p, index);

    if (e != cudaSuccess) {
        (void)snprintf(out->problem, sizeof(out->problem), "%s", cudaGetErrorString(e));
        return;
    }
    (void)snprintf(out->name, sizeof(out->name), "%.63s", p.name);
    if (p.major < OLDEST_MAJOR) {
        (void)snprintf(out->problem, sizeof(out->problem), "compute capability %d.%d; %d.0 is the least", p.major,
                       p.minor, OLDEST_MAJOR);
        return;
    }
    e = cudaSetDevice(index);
    e = e == cudaSuccess ? cudaMemGetInfo(&free_bytes, &total) : e;
    if (e != cudaSuccess) {
        (void)snprintf(out->problem, sizeof(out->problem), "%s", cudaGetErrorString(e));
        return;
    }
    out->memory_bytes = total;
    out->free_bytes = free_bytes;
}

static void enumerate(compute_module_devices *out)
{
    int n = 0;
    cudaError_t e = cudaGetDeviceCount(&n);

    *out = (compute_module_devices){.n_devices = 0};
    if (e != cudaSuccess || n <= 0) {
        (void)cudaGetLastError();
        (void)snprintf(out->problem, sizeof(out->problem), "%s",
                       e == cudaErrorInsufficientDriver ? "no NVIDIA driver, or one older than this module's CUDA"
                       : e == cudaSuccess || e == cudaErrorNoDevice ? "the NVIDIA driver finds no GPU"
                                                                    : cudaGetErrorString(e));
        return;
    }
    out->n_devices = (uint32_t)MOE_MIN(n, COMPUTE_MODULE_DEVICES);
    for (int i = 0; i < (int)out->n_devices; i++) {
        describe(&out->devices[i], i);
    }
}

static moe_status check_options(const compute_device_options *o, size_t *hidden_out, moe_error *err)
{
    size_t row_bytes = o->max_d_ff * compute_dtype_bytes(compute_class_dtype(o->numeric_class));

    if (o->numeric_class >= COMPUTE_N_CLASSES) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "a device needs a numeric class");
    }
    if (o->max_d_ff > UINT32_MAX / 4 || o->max_ffn_rows > UINT32_MAX / 4 || o->max_context > UINT32_MAX / 4 ||
        __builtin_mul_overflow(row_bytes, o->max_ffn_rows, hidden_out)) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "max_d_ff %zu, max_ffn_rows %zu, max_context %zu: too large",
                        o->max_d_ff, o->max_ffn_rows, o->max_context);
    }
    return MOE_OK;
}

static moe_status module_open(uint32_t index, const compute_device_options *options, compute_device **out,
                              moe_error *err)
{
    compute_module_device found = {.problem = ""};
    size_t hidden_bytes = 0, wanted;
    cuda_device *d;
    moe_status status = check_options(options, &hidden_bytes, err);

    if (status != MOE_OK) {
        return status;
    }
    describe(&found, (int)index);
    if (found.problem[0] != '\0') {
        return moe_fail(err, MOE_ERR_UNSUPPORTED, "GPU %u: %s", index, found.problem);
    }
    wanted = hidden_bytes + CUDA_SEGMENTS * CUDA_SEGMENT_BYTES + CUDA_PIECES * CUDA_PIECE_BYTES;
    d = found.free_bytes < wanted ? NULL : calloc(1, sizeof(*d));
    if (d == NULL) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "GPU %u: workspace of %zu bytes wanted, %llu free", index, wanted,
                        (unsigned long long)found.free_bytes);
    }
    d->options = *options;
    d->index = (int)index;
    (void)snprintf(d->place, sizeof(d->place), "cuda:%u", index);
    (void)snprintf(d->name, sizeof(d->name), "cuda:%u %s", index, found.name);
    d->base.ops = &ops;
    d->base.numeric_class = options->numeric_class;
    d->base.place = d->place;
    d->base.name = d->name;
    status = device_init(d, hidden_bytes);
    if (status != MOE_OK) {
        device_close(&d->base);
        return moe_fail(err, status, "GPU %u: workspace of %zu bytes wanted, %llu free: it cannot be had", index,
                        wanted, (unsigned long long)found.free_bytes);
    }
    *out = &d->base;
    return MOE_OK;
}

__attribute__((visibility("default"))) const compute_module *conclave_compute_module(void);
const compute_module *conclave_compute_module(void)
{
    static const compute_module module = {COMPUTE_MODULE_HEAD, .kind = "cuda", .release = MOE_VERSION,
                                          .enumerate = enumerate, .open = module_open};

    return &module;
}
