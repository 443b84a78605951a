/* The CPU device: memory, workspace, and the splitting of every op but the products (gemm.c) over threads. */
#include "compute/cpu_priv.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ------------------------------------------------------------------------------------------------ memory
 * A cache line in front of each buffer holds the size of its mapping; 0: from aligned_alloc. */
#define HEADER       MOE_CACHE_LINE
#define MAPPED_BYTES ((size_t)1 << 20)

static compute_mem *device_alloc(compute_device *d, size_t bytes)
{
    size_t total;
    unsigned char *p;

    (void)d;
    if (__builtin_add_overflow(bytes, 2 * HEADER, &total)) {
        return NULL;
    }
    total = moe_round_up(total - HEADER, HEADER);
    if (total >= MAPPED_BYTES) {
        p = moe_pages_alloc(total);
    } else {
        p = aligned_alloc(HEADER, total);
        if (p != NULL) {
            memset(p, 0, total);
        }
        total = 0;
    }
    if (p == NULL) {
        return NULL;
    }
    memcpy(p, &total, sizeof(total));
    return (compute_mem *)(void *)(p + HEADER);
}

static void device_free(compute_device *d, compute_mem *m)
{
    unsigned char *p;
    size_t total;

    (void)d;
    if (m == NULL) {
        return;
    }
    p = (unsigned char *)m - HEADER;
    memcpy(&total, p, sizeof(total));
    if (total != 0) {
        moe_pages_free(p, total);
    } else {
        free(p);
    }
}

static void device_upload(compute_device *d, compute_mem *to, const void *from, size_t bytes)
{
    (void)d;
    if (bytes > 0) {
        memcpy(to, from, bytes);
    }
}

static moe_status device_download(compute_device *d, void *to, const compute_mem *from, size_t bytes)
{
    (void)d;
    if (bytes > 0) {
        memcpy(to, from, bytes);
    }
    return MOE_OK;
}

/* Rows [i, end) that follow each other on both sides are one copy; rows NULL: all do. */
static size_t run_end(const uint32_t *rows, size_t i, size_t n)
{
    size_t end = i + 1;

    if (rows == NULL) {
        return n;
    }
    while (end < n && rows[end] == rows[i] + (end - i)) {
        end++;
    }
    return end;
}

static compute_ticket device_gather_out(compute_device *d, void *to, const compute_mem *from, const uint32_t *rows,
                                        size_t row_bytes, size_t n)
{
    (void)d;
    for (size_t i = 0, end; i < n; i = end) {
        end = run_end(rows, i, n);
        memcpy((unsigned char *)to + i * row_bytes,
               (const unsigned char *)from + (rows == NULL ? i : rows[i]) * row_bytes, (end - i) * row_bytes);
    }
    return 0;
}

static void device_scatter_in(compute_device *d, compute_mem *to, const void *from, const uint32_t *rows,
                              size_t row_bytes, size_t n)
{
    (void)d;
    for (size_t i = 0, end; i < n; i = end) {
        end = run_end(rows, i, n);
        memcpy((unsigned char *)to + (rows == NULL ? i : rows[i]) * row_bytes,
               (const unsigned char *)from + i * row_bytes, (end - i) * row_bytes);
    }
}

/* Nothing is ever under way. */
static moe_status device_reached(compute_device *d, compute_ticket t)
{
    (void)d, (void)t;
    return MOE_OK;
}

static moe_status device_sync(compute_device *d)
{
    (void)d;
    return MOE_OK;
}

/* ------------------------------------------------------------------------------------------------ rows of a step */
static moe_status step_open(compute_device *d, size_t max_rows, size_t page_tokens, compute_step **out)
{
    (void)d, (void)max_rows, (void)page_tokens;
    *out = calloc(1, sizeof **out);
    return *out != NULL ? MOE_OK : MOE_ERR_NO_MEMORY;
}

static void step_close(compute_device *d, compute_step *s)
{
    (void)d;
    free(s);
}

static void step_begin(compute_device *d, compute_step *s, const compute_row *rows, size_t n)
{
    (void)d;
    *s = (compute_step){.rows = rows, .n = n};
}

/* ------------------------------------------------------------------------------------------------ splitting
 * Rows [begin, end) of an op. Small ops run where they are: waking the threads costs about a microsecond. */
#define INLINE_WORK  ((size_t)32768) /* elements */
#define BLOCK_VALUES ((size_t)4096)  /* "rows" of ops that have none */

typedef void (*range_fn)(const void *ctx, size_t begin, size_t end);

typedef struct range_job {
    range_fn fn;
    const void *ctx;
    size_t n, n_tasks;
} range_job;

static void range_task(void *ctx, size_t task, size_t thread)
{
    const range_job *job = ctx;
    size_t each = job->n / job->n_tasks, more = job->n % job->n_tasks;
    size_t begin = task * each + cpu_min(task, more);

    (void)thread;
    job->fn(job->ctx, begin, begin + each + (task < more ? 1 : 0));
}

static void split(cpu_device *d, size_t n, size_t work_each, range_fn fn, const void *ctx)
{
    range_job job = {fn, ctx, n, cpu_min(n, 4 * d->n_threads)};

    if (n == 0) {
        return;
    }
    if (d->n_threads == 1 || n * work_each < INLINE_WORK) {
        fn(ctx, 0, n);
        return;
    }
    moe_threads_run(d->options.threads, job.n_tasks, range_task, &job);
}

static size_t n_blocks(size_t count)
{
    return (count + BLOCK_VALUES - 1) / BLOCK_VALUES;
}

/* ---------------------------------------------------------------------------------------------- ops on rows and values
 * One struct serves them all: an op sets what its range function reads. */
typedef struct row_job {
    const cpu_kernels *k;
    unsigned char *out, *rounded;
    const unsigned char *x, *y;
    compute_dtype dtype;
    size_t width, stride, count, n_heads;
    float value;
    const int32_t *ids;
    const uint32_t *index, *out_index, *n_picks;
    const float *constant;
    const compute_pick *picks;
    const compute_row *rows;
    const compute_kv_shape *shape;
    void (*in_place)(float *x, size_t n);
} row_job;

static float *f32_at(unsigned char *p, size_t i)
{
    return (float *)(void *)p + i;
}

static const float *f32_at_const(const unsigned char *p, size_t i)
{
    return (const float *)(const void *)p + i;
}

/* n values rounded (or, in the f32 class, copied) to element `at` of out. */
static void store(const cpu_kernels *k, unsigned char *out, compute_dtype dtype, size_t at, const float *x, size_t n)
{
    if (dtype == COMPUTE_BF16) {
        k->round_bf16((uint16_t *)(void *)out + at, x, n);
    } else {
        memcpy(f32_at(out, at), x, n * sizeof(*x));
    }
}

static void embed_range(const void *ctx, size_t begin, size_t end)
{
    const row_job *j = ctx;
    size_t row_bytes = j->width * compute_dtype_bytes(j->dtype);

    for (size_t i = begin; i < end; i++) {
        j->k->widen(f32_at(j->out, i * j->width), j->x + (size_t)j->ids[i] * row_bytes, j->dtype, j->width);
    }
}

static void embed(compute_device *d, compute_mem *out, const compute_mem *table, compute_dtype table_dtype,
                  size_t width, const int32_t *ids, size_t n)
{
    row_job j = {.k = ((cpu_device *)d)->kernels,
                 .out = (void *)out,
                 .x = (const void *)table,
                 .dtype = table_dtype,
                 .width = width,
                 .ids = ids};

    split((cpu_device *)d, n, width, embed_range, &j);
}

static void to_class_range(const void *ctx, size_t begin, size_t end)
{
    const row_job *j = ctx;
    size_t first = begin * BLOCK_VALUES, last = cpu_min(end * BLOCK_VALUES, j->count);

    store(j->k, j->out, j->dtype, first, f32_at_const(j->x, first), last - first);
}

static void to_class(compute_device *d, compute_mem *out, const compute_mem *x, size_t n)
{
    row_job j = {.k = ((cpu_device *)d)->kernels,
                 .out = (void *)out,
                 .x = (const void *)x,
                 .dtype = compute_class_dtype(d->numeric_class),
                 .count = n};

    split((cpu_device *)d, n_blocks(n), BLOCK_VALUES, to_class_range, &j);
}

static void rms_norm_range(const void *ctx, size_t begin, size_t end)
{
    const row_job *j = ctx;

    for (size_t i = begin; i < end; i++) {
        const float *x = f32_at_const(j->x, i * j->stride);
        float *out = f32_at(j->out, i * (j->out == j->x ? j->stride : j->width));

        j->k->rms_norm(out, x, f32_at_const(j->y, 0), j->value, j->width);
        if (j->rounded != NULL) {
            store(j->k, j->rounded, j->dtype, i * j->width, out, j->width);
        }
    }
}

static void rms_norm(compute_device *d, compute_mem *out, compute_mem *rounded, const compute_mem *x, size_t stride,
                     const compute_mem *gain, float eps, size_t width, size_t n)
{
    row_job j = {.k = ((cpu_device *)d)->kernels,
                 .out = (void *)out,
                 .rounded = (void *)rounded,
                 .x = (const void *)x,
                 .y = (const void *)gain,
                 .dtype = compute_class_dtype(d->numeric_class),
                 .stride = stride,
                 .width = width,
                 .value = eps};

    MOE_ASSERT(stride >= width && width > 0);
    split((cpu_device *)d, n, 2 * width, rms_norm_range, &j);
}

static void layer_norm_range(const void *ctx, size_t begin, size_t end)
{
    const row_job *j = ctx;

    for (size_t i = begin; i < end; i++) {
        float *out = f32_at(j->out, i * j->width);

        j->k->layer_norm(out, f32_at_const(j->x, i * j->width), f32_at_const(j->y, 0), j->constant, j->value, j->width);
        if (j->rounded != NULL) {
            store(j->k, j->rounded, j->dtype, i * j->width, out, j->width);
        }
    }
}

static void layer_norm(compute_device *d, compute_mem *out, compute_mem *rounded, const compute_mem *x,
                       const compute_mem *gain, const compute_mem *bias, float eps, size_t width, size_t n)
{
    row_job j = {.k = ((cpu_device *)d)->kernels,
                 .out = (void *)out,
                 .rounded = (void *)rounded,
                 .x = (const void *)x,
                 .y = (const void *)gain,
                 .constant = (const void *)bias,
                 .dtype = compute_class_dtype(d->numeric_class),
                 .width = width,
                 .value = eps};

    MOE_ASSERT(width > 0);
    split((cpu_device *)d, n, 3 * width, layer_norm_range, &j);
}

static void unit_norm_range(const void *ctx, size_t begin, size_t end)
{
    const row_job *j = ctx;

    for (size_t i = begin; i < end; i++) {
        j->k->unit_norm(f32_at(j->out, i * j->width), j->width);
    }
}

static void unit_norm(compute_device *d, compute_mem *x, size_t width, size_t n)
{
    row_job j = {.k = ((cpu_device *)d)->kernels, .out = (void *)x, .width = width};

    split((cpu_device *)d, n, 2 * width, unit_norm_range, &j);
}

static void activate_range(const void *ctx, size_t begin, size_t end)
{
    const row_job *j = ctx;
    size_t first = begin * BLOCK_VALUES;

    j->in_place(f32_at(j->out, first), cpu_min(end * BLOCK_VALUES, j->count) - first);
}

static void activate(compute_device *d, compute_mem *x, compute_activation kind, size_t count)
{
    const cpu_kernels *k = ((cpu_device *)d)->kernels;
    row_job j = {.out = (void *)x, .count = count, .in_place = kind == COMPUTE_ACT_TANH ? k->tanh : k->gelu_erf};

    split((cpu_device *)d, n_blocks(count), BLOCK_VALUES, activate_range, &j);
}

static void clamp_range(const void *ctx, size_t begin, size_t end)
{
    const row_job *j = ctx;
    size_t first = begin * BLOCK_VALUES;

    j->k->clamp(f32_at(j->out, first), j->value, cpu_min(end * BLOCK_VALUES, j->count) - first);
}

static void clamp(compute_device *d, compute_mem *x, float bound, size_t count)
{
    row_job j = {.k = ((cpu_device *)d)->kernels, .out = (void *)x, .value = bound, .count = count};

    split((cpu_device *)d, n_blocks(count), BLOCK_VALUES, clamp_range, &j);
}

static void add_range(const void *ctx, size_t begin, size_t end)
{
    const row_job *j = ctx;
    size_t first = begin * BLOCK_VALUES;

    j->k->add(f32_at(j->out, first), f32_at_const(j->x, first), cpu_min(end * BLOCK_VALUES, j->count) - first);
}

static void add(compute_device *d, compute_mem *x, const compute_mem *y, size_t n)
{
    row_job j = {.k = ((cpu_device *)d)->kernels, .out = (void *)x, .x = (const void *)y, .count = n};

    split((cpu_device *)d, n_blocks(n), BLOCK_VALUES, add_range, &j);
}

/* width is head_dim; the table row of a position is head_dim / 2 cosines, then as many sines. */
static void rope_range(const void *ctx, size_t begin, size_t end)
{
    const row_job *j = ctx;
    size_t half = j->width / 2;

    for (size_t i = begin; i < end; i++) {
        const float *cosine = f32_at_const(j->y, j->rows[i].position * j->width);

        for (size_t h = 0; h < j->n_heads; h++) {
            j->k->rope(f32_at(j->out, (i * j->n_heads + h) * j->width), cosine, cosine + half, half);
        }
    }
}

static void rope(compute_device *d, compute_mem *x, const compute_mem *table, size_t n_heads, size_t head_dim,
                 const compute_step *step)
{
    row_job j = {.k = ((cpu_device *)d)->kernels,
                 .out = (void *)x,
                 .y = (const void *)table,
                 .width = head_dim,
                 .n_heads = n_heads,
                 .rows = step->rows};

    MOE_ASSERT(head_dim % 2 == 0);
    split((cpu_device *)d, step->n, n_heads * head_dim, rope_range, &j);
}

static void combine_range(const void *ctx, size_t begin, size_t end)
{
    const row_job *j = ctx;

    for (size_t i = begin; i < end; i++) {
        j->k->combine(f32_at(j->out, i * j->width), j->x, j->dtype, j->picks + i * j->count,
                      j->n_picks == NULL ? j->count : j->n_picks[i], j->width);
    }
}

static void combine(compute_device *d, compute_mem *x, const compute_mem *results, compute_dtype results_dtype,
                    const compute_pick *picks, const uint32_t *n_picks, size_t k, size_t width, size_t n)
{
    row_job j = {.k = ((cpu_device *)d)->kernels,
                 .out = (void *)x,
                 .x = (const void *)results,
                 .dtype = results_dtype,
                 .picks = picks,
                 .n_picks = n_picks,
                 .count = k,
                 .width = width};

    split((cpu_device *)d, n, width * (k + 1), combine_range, &j);
}

/* Rows of a constant expert that share a pass over its gate. */
static void constant_rows(const row_job *j, size_t begin, size_t n)
{
    size_t bytes = compute_dtype_bytes(j->dtype);
    float a[CPU_LOCAL_ROWS][2], mixed[CPU_MIX_VALUES];
    const void *x[CPU_LOCAL_ROWS];

    for (size_t r = 0; r < n; r++) {
        x[r] = j->x + j->index[begin + r] * j->width * bytes;
    }
    j->k->local_logits(a, x, j->dtype, n, f32_at_const(j->y, 0), j->width);
    for (size_t r = 0; r < n; r++) {
        j->k->row_exp(a[r], a[r], j->k->row_max(a[r], 2), 2);
        j->k->row_divide(a[r], j->k->row_sum(a[r], 2), 2);
        for (size_t i = 0; i < j->width; i += CPU_MIX_VALUES) {
            size_t m = cpu_min(CPU_MIX_VALUES, j->width - i);

            j->k->local_mix(mixed, (const unsigned char *)x[r] + i * bytes, j->dtype, a[r], j->constant + i, m);
            store(j->k, j->out, j->dtype, j->out_index[begin + r] * j->width + i, mixed, m);
        }
    }
}

static void local_expert_range(const void *ctx, size_t begin, size_t end)
{
    const row_job *j = ctx;
    size_t row_bytes = j->width * compute_dtype_bytes(j->dtype);

    if (j->y == NULL) {
        for (size_t i = begin; i < end; i++) {
            memcpy(j->out + j->out_index[i] * row_bytes, j->x + j->index[i] * row_bytes, row_bytes);
        }
        return;
    }
    for (size_t i = begin; i < end; i += CPU_LOCAL_ROWS) {
        constant_rows(j, i, cpu_min(CPU_LOCAL_ROWS, end - i));
    }
}

static void local_expert(compute_device *d, compute_mem *out, const compute_mem *x, const compute_mem *gate,
                         const compute_mem *constant, const uint32_t *rows, const uint32_t *out_rows, size_t n_rows,
                         size_t width)
{
    row_job j = {.k = ((cpu_device *)d)->kernels,
                 .out = (void *)out,
                 .x = (const void *)x,
                 .y = (const void *)gate,
                 .constant = (const void *)constant,
                 .dtype = compute_class_dtype(d->numeric_class),
                 .index = rows,
                 .out_index = out_rows,
                 .width = width};

    MOE_ASSERT((gate == NULL) == (constant == NULL));
    split((cpu_device *)d, n_rows, (gate == NULL ? 1 : 8) * width, local_expert_range, &j);
}

static void gather_range(const void *ctx, size_t begin, size_t end)
{
    const row_job *j = ctx;

    for (size_t i = begin; i < end; i++) {
        memcpy(f32_at(j->out, i * j->width), f32_at_const(j->x, j->index[i] * j->width), j->width * sizeof(float));
    }
}

static void gather(compute_device *d, compute_mem *out, const compute_mem *x, const uint32_t *index, size_t width,
                   size_t n)
{
    row_job j = {.out = (void *)out, .x = (const void *)x, .index = index, .width = width};

    split((cpu_device *)d, n, width, gather_range, &j);
}

/* ---------------------------------------------------------------------------------------------- KV cache, attention */
/* out is the layer's first page, x and y are K and V. */
static void kv_store_range(const void *ctx, size_t begin, size_t end)
{
    const row_job *j = ctx;
    const compute_kv_shape *s = j->shape;
    size_t page_bytes = compute_kv_page_bytes(s), per_head = s->page_tokens * s->head_dim,
           row = s->n_kv_heads * s->head_dim;

    for (size_t i = begin; i < end; i++) {
        size_t position = j->rows[i].position, slot = position % s->page_tokens * s->head_dim;
        unsigned char *page = j->out + j->rows[i].pages[position / s->page_tokens] * page_bytes;

        for (size_t h = 0; h < s->n_kv_heads; h++) {
            store(j->k, page, s->dtype, h * per_head + slot, f32_at_const(j->x, i * row + h * s->head_dim),
                  s->head_dim);
            if (!s->shared) {
                store(j->k, page + page_bytes / 2, s->dtype, h * per_head + slot,
                      f32_at_const(j->y, i * row + h * s->head_dim), s->head_dim);
            }
        }
    }
}

static void kv_store(compute_device *d, compute_mem *kv, const compute_kv_shape *shape, size_t layer,
                     const compute_mem *k, const compute_mem *v, const compute_step *step)
{
    row_job j = {.k = ((cpu_device *)d)->kernels,
                 .out = (unsigned char *)kv + layer * shape->n_pages * compute_kv_page_bytes(shape),
                 .x = (const void *)k,
                 .y = (const void *)v,
                 .rows = step->rows,
                 .shape = shape};

    MOE_ASSERT(shape->dtype == compute_class_dtype(d->numeric_class) && (v == NULL) == shape->shared);
    split((cpu_device *)d, step->n, 2 * shape->n_kv_heads * shape->head_dim, kv_store_range, &j);
}

typedef struct attention_job {
    const cpu_device *d;
    const compute_kv_shape *shape;
    const compute_row *rows;
    float *out;
    const unsigned char *q, *layer; /* the layer's first page */
    size_t n, n_heads, tile_rows;
} attention_job;

/* Rows [row, row + n) are of one sequence. */
static void attention_tile(const attention_job *j, size_t row, size_t n, size_t head, size_t thread)
{
    const compute_kv_shape *s = j->shape;
    size_t bytes = compute_dtype_bytes(s->dtype), page_bytes = compute_kv_page_bytes(s),
           width = j->n_heads * s->head_dim;
    size_t kv_head = head / (j->n_heads / s->n_kv_heads), at = row * width + head * s->head_dim;
    const unsigned char *k = j->layer + kv_head * s->page_tokens * s->head_dim * bytes;
    cpu_attention a = {.out = j->out + at,
                       .q = j->q + at * bytes,
                       .out_stride = width,
                       .q_stride = width,
                       .k = k,
                       .v = s->shared ? k : k + page_bytes / 2,
                       .page_bytes = page_bytes,
                       .page_tokens = s->page_tokens,
                       .head_dim = s->head_dim,
                       .dtype = s->dtype,
                       .rows = j->rows + row,
                       .n_rows = n,
                       .scores = j->d->scores + thread * CPU_ATTENTION_ROWS * j->d->score_stride,
                       .score_stride = j->d->score_stride,
                       .scale = (float)(1.0 / sqrt((double)s->head_dim))};

    j->d->kernels->attention(&a);
}

static void attention_task(void *ctx, size_t task, size_t thread)
{
    const attention_job *j = ctx;
    size_t head = task % j->n_heads, row = task / j->n_heads * j->tile_rows, end = cpu_min(row + j->tile_rows, j->n);

    while (row < end) {
        size_t next = row + 1;

        while (next < end && j->rows[next].pages == j->rows[row].pages &&
               j->rows[next].position > j->rows[next - 1].position) {
            next++;
        }
        attention_tile(j, row, next - row, head, thread);
        row = next;
    }
}

static void attention(compute_device *device, compute_mem *out, const compute_mem *q, const compute_mem *kv,
                      const compute_kv_shape *shape, size_t layer, size_t n_heads, const compute_step *step)
{
    cpu_device *d = (cpu_device *)device;
    size_t n = step->n;
    attention_job j = {.d = d,
                       .shape = shape,
                       .rows = step->rows,
                       .out = (float *)(void *)out,
                       .q = (const unsigned char *)q,
                       .layer = (const unsigned char *)kv + layer * shape->n_pages * compute_kv_page_bytes(shape),
                       .n = n,
                       .n_heads = n_heads};

    MOE_ASSERT(shape->dtype == compute_class_dtype(device->numeric_class) && n_heads % shape->n_kv_heads == 0);
    for (size_t i = 0; i < n; i++) {
        MOE_ASSERT(step->rows[i].position < d->options.max_context);
    }
    if (n == 0) {
        return;
    }
    j.tile_rows = MOE_MAX(1, cpu_min(CPU_ATTENTION_ROWS, n * n_heads / (4 * d->n_threads)));
    moe_threads_run(d->options.threads, (n + j.tile_rows - 1) / j.tile_rows * n_heads, attention_task, &j);
}

/* ------------------------------------------------------------------------------------------------ open, close */
static void device_close(compute_device *device)
{
    cpu_device *d = (cpu_device *)device;

    free(d->acc);
    free(d->chunk);
    free(d->scores);
    free(d->wide_of);
    device_free(device, (compute_mem *)(void *)d->wide);
    device_free(device, (compute_mem *)(void *)d->hidden);
    free(d->padded);
    free(d->counters);
    free(d);
}

static const compute_ops ops = {
    .alloc = device_alloc,
    .free = device_free,
    .upload = device_upload,
    .download = device_download,
    .gather_out = device_gather_out,
    .scatter_in = device_scatter_in,
    .reached = device_reached,
    .wait = device_reached,
    .sync = device_sync,
    .step_open = step_open,
    .step_close = step_close,
    .step_begin = step_begin,
    .matrix_open = cpu_matrix_open,
    .matrix_close = cpu_matrix_close,
    .expert_open = cpu_expert_open,
    .expert_close = cpu_expert_close,
    .expert_adopt = cpu_expert_adopt,
    .embed = embed,
    .to_class = to_class,
    .matmul = cpu_matmul,
    .matrix_open_f32 = cpu_matrix_open_f32,
    .matmul_f32 = cpu_matmul_f32,
    .matmul_routed = cpu_matmul_routed,
    .rms_norm = rms_norm,
    .layer_norm = layer_norm,
    .unit_norm = unit_norm,
    .activate = activate,
    .clamp = clamp,
    .rope = rope,
    .kv_store = kv_store,
    .attention = attention,
    .stick_attention = cpu_stick_attention,
    .expert_ffn = cpu_expert_ffn,
    .combine = combine,
    .local_expert = local_expert,
    .add = add,
    .gather = gather,
    .counters = cpu_read_counters,
    .close = device_close,
};

/* n_threads parts of n values of 4 bytes, each part a whole number of cache lines; NULL on overflow too. */
static void *thread_scratch(size_t n_threads, size_t n)
{
    size_t bytes;

    if (__builtin_mul_overflow(n_threads * sizeof(float), n, &bytes) || bytes > SIZE_MAX / 2) {
        return NULL;
    }
    return aligned_alloc(MOE_CACHE_LINE, moe_round_up(MOE_MAX(bytes, 1), MOE_CACHE_LINE));
}

static moe_status device_init(cpu_device *d, moe_error *err)
{
    const compute_device_options *o = &d->options;
    size_t row_bytes, bytes;

    if (o->max_d_ff > SIZE_MAX / 16 || o->max_context > SIZE_MAX / 64) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "max_d_ff %zu, max_context %zu: too large", o->max_d_ff,
                        o->max_context);
    }
    row_bytes = moe_round_up(o->max_d_ff, 2) * compute_dtype_bytes(compute_class_dtype(o->numeric_class));
    if (__builtin_mul_overflow(o->max_ffn_rows, row_bytes, &bytes)) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "max_ffn_rows %zu of max_d_ff %zu: too large", o->max_ffn_rows,
                        o->max_d_ff);
    }
    d->score_stride = moe_round_up(o->max_context, 16) + 16; /* tiles write past the last key */
    d->acc = thread_scratch(d->n_threads, 2 * CPU_TILE_ROWS * CPU_PANEL);
    d->chunk = thread_scratch(d->n_threads, 2 * CPU_CHUNK_UNITS * CPU_PANEL);
    d->scores = thread_scratch(d->n_threads, CPU_ATTENTION_ROWS * d->score_stride);
    d->hidden = (unsigned char *)device_alloc(&d->base, bytes);
    d->counters = aligned_alloc(MOE_CACHE_LINE, d->n_threads * sizeof(*d->counters));
    if (d->acc == NULL || d->chunk == NULL || d->scores == NULL || d->hidden == NULL || d->counters == NULL) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "no memory for the workspace of %zu ffn rows and %zu positions",
                        o->max_ffn_rows, o->max_context);
    }
    memset(d->counters, 0, d->n_threads * sizeof(*d->counters));
    if (d->kernels->rows != NULL) {
        d->wide_of = aligned_alloc(MOE_CACHE_LINE, d->n_threads * sizeof(*d->wide_of));
        d->wide = (float *)(void *)device_alloc(&d->base, d->n_threads * CPU_WIDE_FLOATS * sizeof(*d->wide));
        if (d->wide == NULL || d->wide_of == NULL) {
            return moe_fail(err, MOE_ERR_NO_MEMORY, "no memory for the rows of %zu threads", d->n_threads);
        }
        memset(d->wide_of, 0, d->n_threads * sizeof(*d->wide_of));
    }
    return MOE_OK;
}

moe_status cpu_open(const compute_device_options *options, compute_device **out, moe_error *err)
{
    cpu_device *d;
    moe_status status;

    if (!compute_isa_available(options->isa)) {
        return moe_fail(err, MOE_ERR_UNSUPPORTED, "instruction set %s: this processor does not have it",
                        compute_isa_name(options->isa));
    }
    if (options->threads == NULL || options->numeric_class >= COMPUTE_N_CLASSES) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "a device needs threads and a numeric class");
    }
    d = calloc(1, sizeof(*d));
    if (d == NULL) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "no memory for a device");
    }
    d->kernels = cpu_kernels_of(options->isa);
    d->options = *options;
    d->n_threads = moe_threads_count(options->threads);
    d->base = (compute_device){
        .ops = &ops, .numeric_class = options->numeric_class, .place = "cpu", .name = d->kernels->name};
    status = device_init(d, err);
    if (status != MOE_OK) {
        device_close(&d->base);
        return status;
    }
    *out = &d->base;
    return MOE_OK;
}
