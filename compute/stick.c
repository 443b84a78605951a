/* Stick-breaking attention: which queries pass over the keys together. The arithmetic is cpu_kernels.stick. */
#include "compute/cpu_priv.h"

#include <math.h>

/* Queries of one KV head, numbered row by row: n_heads / n_kv_heads of each row. */
typedef struct stick_job {
    cpu_device *d;
    const compute_kv_shape *shape;
    const compute_row *rows;
    float *out;
    const unsigned char *q, *layer; /* the layer's first page */
    size_t n_queries, n_heads, per_row, tile;
} stick_job;

/* Queries [first, first + n), all of one sequence, against the keys of a KV head. */
static void stick_tile(const stick_job *j, size_t kv_head, size_t first, size_t n, compute_counters *counters)
{
    const compute_kv_shape *shape = j->shape;
    size_t bytes = compute_dtype_bytes(shape->dtype), page_bytes = compute_kv_page_bytes(shape);
    const unsigned char *k = j->layer + kv_head * shape->page_tokens * shape->head_dim * bytes;
    cpu_stick s = {.n_rows = n,
                   .pages = j->rows[first / j->per_row].pages,
                   .k = k,
                   .v = shape->shared ? k : k + page_bytes / 2,
                   .page_bytes = page_bytes,
                   .page_tokens = shape->page_tokens,
                   .head_dim = shape->head_dim,
                   .dtype = shape->dtype,
                   .scale = (float)(1.0 / sqrt((double)shape->head_dim)),
                   .full_scan = j->d->options.full_scan};
    uint64_t visible = 0, seen = 0;

    for (size_t i = 0; i < n; i++) {
        size_t row = (first + i) / j->per_row, head = (first + i) % j->per_row * shape->n_kv_heads + kv_head;
        size_t at = (row * j->n_heads + head) * shape->head_dim;

        s.out[i] = j->out + at;
        s.q[i] = j->q + at * bytes;
        s.seen[i] = (size_t)j->rows[row].position + 1;
        visible += s.seen[i];
    }
    j->d->kernels->stick(&s);
    for (size_t i = 0; i < n; i++) {
        seen += s.seen[i];
    }
    counters->stick_keys_seen += seen;
    counters->stick_keys_skipped += visible - seen;
}

static void stick_task(void *ctx, size_t task, size_t thread)
{
    const stick_job *j = ctx;
    size_t kv_head = task % j->shape->n_kv_heads, i = task / j->shape->n_kv_heads * j->tile;
    size_t end = cpu_min(i + j->tile, j->n_queries);

    while (i < end) {
        size_t next = i + 1;

        while (next < end && j->rows[next / j->per_row].pages == j->rows[i / j->per_row].pages) {
            next++;
        }
        stick_tile(j, kv_head, i, next - i, &j->d->counters[thread].c);
        i = next;
    }
}

void cpu_stick_attention(compute_device *device, compute_mem *out, const compute_mem *q, const compute_mem *kv,
                         const compute_kv_shape *shape, size_t layer, size_t n_heads, const compute_step *step)
{
    cpu_device *d = (cpu_device *)device;
    stick_job j = {.d = d,
                   .shape = shape,
                   .rows = step->rows,
                   .out = (float *)(void *)out,
                   .q = (const unsigned char *)q,
                   .layer = (const unsigned char *)kv + layer * shape->n_pages * compute_kv_page_bytes(shape),
                   .n_heads = n_heads,
                   .per_row = n_heads / shape->n_kv_heads};

    MOE_ASSERT(shape->dtype == compute_class_dtype(device->numeric_class) && n_heads % shape->n_kv_heads == 0);
    for (size_t i = 0; i < step->n; i++) {
        MOE_ASSERT(step->rows[i].position < d->options.max_context);
    }
    j.n_queries = step->n * j.per_row;
    if (j.n_queries == 0) {
        return;
    }
    j.tile = MOE_MAX(1, cpu_min(CPU_ATTENTION_ROWS, j.n_queries * shape->n_kv_heads / (2 * d->n_threads)));
    moe_threads_run(d->options.threads, (j.n_queries + j.tile - 1) / j.tile * shape->n_kv_heads, stick_task, &j);
}

void cpu_read_counters(compute_device *device, compute_counters *out)
{
    const cpu_device *d = (const cpu_device *)device;

    *out = (compute_counters){0};
    for (size_t i = 0; i < d->n_threads; i++) {
        out->stick_keys_seen += d->counters[i].c.stick_keys_seen;
        out->stick_keys_skipped += d->counters[i].c.stick_keys_skipped;
    }
}
