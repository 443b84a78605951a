/* The test device: a CPU device whose buffers are opened (mprotect) by its own ops only. Each op unprotects all
 * buffers, runs the inner device's op and protects them again, so a pointer that host code follows into device memory
 * is a fault. */
#include "compute/compute.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

typedef struct guarded_buffer {
    struct guarded_buffer *next;
    unsigned char *pages;
    size_t bytes;
} guarded_buffer;

typedef struct guarded_device {
    compute_device base;
    compute_device *inner;   /* owned */
    guarded_buffer *buffers; /* owned */
} guarded_device;

static void protect(const guarded_device *g, int access)
{
    for (const guarded_buffer *b = g->buffers; b != NULL; b = b->next) {
        MOE_ASSERT(mprotect(b->pages, b->bytes, access) == 0);
    }
}

static compute_device *enter(compute_device *d)
{
    protect((guarded_device *)d, PROT_READ | PROT_WRITE);
    return ((guarded_device *)d)->inner;
}

static void leave(compute_device *d)
{
    protect((guarded_device *)d, PROT_NONE);
}

static compute_device *inner_of(compute_device *d)
{
    return ((guarded_device *)d)->inner;
}

static compute_mem *guarded_alloc(compute_device *d, size_t bytes)
{
    guarded_device *g = (guarded_device *)d;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    guarded_buffer *b;

    if (bytes > SIZE_MAX - page) {
        return NULL;
    }
    b = malloc(sizeof(*b));
    if (b == NULL) {
        return NULL;
    }
    b->bytes = moe_round_up(MOE_MAX(bytes, 1), page);
    b->pages = mmap(NULL, b->bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (b->pages == MAP_FAILED) {
        free(b);
        return NULL;
    }
    b->next = g->buffers;
    g->buffers = b;
    return (compute_mem *)(void *)b->pages;
}

static void guarded_free(compute_device *d, compute_mem *m)
{
    guarded_buffer **link = &((guarded_device *)d)->buffers, *b;

    if (m == NULL) {
        return;
    }
    while (*link != NULL && (*link)->pages != (unsigned char *)m) {
        link = &(*link)->next;
    }
    b = *link;
    MOE_ASSERT(b != NULL);
    *link = b->next;
    (void)munmap(b->pages, b->bytes);
    free(b);
}

static void guarded_upload(compute_device *d, compute_mem *to, const void *from, size_t bytes)
{
    compute_device *i = enter(d);

    i->ops->upload(i, to, from, bytes);
    leave(d);
}

static moe_status guarded_download(compute_device *d, void *to, const compute_mem *from, size_t bytes)
{
    compute_device *i = enter(d);
    moe_status status = i->ops->download(i, to, from, bytes);

    leave(d);
    return status;
}

static moe_status guarded_sync(compute_device *d)
{
    return inner_of(d)->ops->sync(inner_of(d));
}

static moe_status guarded_matrix_open(compute_device *d, const compute_weight *w, compute_layout layout,
                                      compute_matrix **out)
{
    return inner_of(d)->ops->matrix_open(inner_of(d), w, layout, out);
}

static moe_status guarded_matrix_open_f32(compute_device *d, const compute_weight *w, compute_matrix **out)
{
    return inner_of(d)->ops->matrix_open_f32(inner_of(d), w, out);
}

static void guarded_matrix_close(compute_device *d, compute_matrix *m)
{
    inner_of(d)->ops->matrix_close(inner_of(d), m);
}

static moe_status guarded_expert_open(compute_device *d, compute_ffn ffn, const compute_weight *gate,
                                      const compute_weight *up, const compute_weight *down, compute_layout layout,
                                      compute_expert **out)
{
    return inner_of(d)->ops->expert_open(inner_of(d), ffn, gate, up, down, layout, out);
}

static void guarded_expert_close(compute_device *d, compute_expert *e)
{
    inner_of(d)->ops->expert_close(inner_of(d), e);
}

static moe_status guarded_expert_adopt(compute_device *d, compute_expert *e)
{
    return inner_of(d)->ops->expert_adopt(inner_of(d), e);
}

static void guarded_embed(compute_device *d, compute_mem *out, const compute_mem *table, compute_dtype table_dtype,
                          size_t width, const int32_t *ids, size_t n)
{
    compute_device *i = enter(d);

    i->ops->embed(i, out, table, table_dtype, width, ids, n);
    leave(d);
}

static void guarded_to_class(compute_device *d, compute_mem *out, const compute_mem *x, size_t n)
{
    compute_device *i = enter(d);

    i->ops->to_class(i, out, x, n);
    leave(d);
}

static void guarded_matmul(compute_device *d, compute_mem *out, const compute_mem *x, const compute_matrix *w,
                           const compute_mem *bias, size_t n)
{
    compute_device *i = enter(d);

    i->ops->matmul(i, out, x, w, bias, n);
    leave(d);
}

static void guarded_matmul_f32(compute_device *d, compute_mem *out, const compute_mem *x, const compute_matrix *w,
                               const compute_mem *bias, size_t n)
{
    compute_device *i = enter(d);

    i->ops->matmul_f32(i, out, x, w, bias, n);
    leave(d);
}

static void guarded_rms_norm(compute_device *d, compute_mem *out, compute_mem *rounded, const compute_mem *x,
                             size_t stride, const compute_mem *gain, float eps, size_t width, size_t n)
{
    compute_device *i = enter(d);

    i->ops->rms_norm(i, out, rounded, x, stride, gain, eps, width, n);
    leave(d);
}

static void guarded_clamp(compute_device *d, compute_mem *x, float bound, size_t count)
{
    compute_device *i = enter(d);

    i->ops->clamp(i, x, bound, count);
    leave(d);
}

static void guarded_rope(compute_device *d, compute_mem *x, const compute_mem *table, size_t n_heads, size_t head_dim,
                         const compute_row *rows, size_t n)
{
    compute_device *i = enter(d);

    i->ops->rope(i, x, table, n_heads, head_dim, rows, n);
    leave(d);
}

static void guarded_kv_store(compute_device *d, compute_mem *kv, const compute_kv_shape *shape, size_t layer,
                             const compute_mem *k, const compute_mem *v, const compute_row *rows, size_t n)
{
    compute_device *i = enter(d);

    i->ops->kv_store(i, kv, shape, layer, k, v, rows, n);
    leave(d);
}

static void guarded_attention(compute_device *d, compute_mem *out, const compute_mem *q, const compute_mem *kv,
                              const compute_kv_shape *shape, size_t layer, size_t n_heads, const compute_row *rows,
                              size_t n)
{
    compute_device *i = enter(d);

    i->ops->attention(i, out, q, kv, shape, layer, n_heads, rows, n);
    leave(d);
}

static void guarded_expert_ffn(compute_device *d, compute_mem *out, const compute_mem *x, const compute_group *groups,
                               size_t n_groups)
{
    compute_device *i = enter(d);

    i->ops->expert_ffn(i, out, x, groups, n_groups);
    leave(d);
}

static void guarded_combine(compute_device *d, compute_mem *x, const compute_mem *results, compute_dtype results_dtype,
                            const compute_pick *picks, const uint32_t *n_picks, size_t k, size_t width, size_t n)
{
    compute_device *i = enter(d);

    i->ops->combine(i, x, results, results_dtype, picks, n_picks, k, width, n);
    leave(d);
}

static void guarded_add(compute_device *d, compute_mem *x, const compute_mem *y, size_t n)
{
    compute_device *i = enter(d);

    i->ops->add(i, x, y, n);
    leave(d);
}

static void guarded_gather(compute_device *d, compute_mem *out, const compute_mem *x, const uint32_t *index,
                           size_t width, size_t n)
{
    compute_device *i = enter(d);

    i->ops->gather(i, out, x, index, width, n);
    leave(d);
}

static void guarded_matmul_routed(compute_device *d, compute_mem *out, const compute_mem *x,
                                  const compute_routed *groups, size_t n_groups)
{
    compute_device *i = enter(d);

    i->ops->matmul_routed(i, out, x, groups, n_groups);
    leave(d);
}

static void guarded_layer_norm(compute_device *d, compute_mem *out, compute_mem *rounded, const compute_mem *x,
                               const compute_mem *gain, const compute_mem *bias, float eps, size_t width, size_t n)
{
    compute_device *i = enter(d);

    i->ops->layer_norm(i, out, rounded, x, gain, bias, eps, width, n);
    leave(d);
}

static void guarded_unit_norm(compute_device *d, compute_mem *x, size_t width, size_t n)
{
    compute_device *i = enter(d);

    i->ops->unit_norm(i, x, width, n);
    leave(d);
}

static void guarded_activate(compute_device *d, compute_mem *x, compute_activation kind, size_t count)
{
    compute_device *i = enter(d);

    i->ops->activate(i, x, kind, count);
    leave(d);
}

static void guarded_stick_attention(compute_device *d, compute_mem *out, const compute_mem *q, const compute_mem *kv,
                                    const compute_kv_shape *shape, size_t layer, size_t n_heads,
                                    const compute_row *rows, size_t n)
{
    compute_device *i = enter(d);

    i->ops->stick_attention(i, out, q, kv, shape, layer, n_heads, rows, n);
    leave(d);
}

static void guarded_local_expert(compute_device *d, compute_mem *out, const compute_mem *x, const compute_mem *gate,
                                 const compute_mem *constant, const uint32_t *rows, const uint32_t *out_rows,
                                 size_t n_rows, size_t width)
{
    compute_device *i = enter(d);

    i->ops->local_expert(i, out, x, gate, constant, rows, out_rows, n_rows, width);
    leave(d);
}

static void guarded_counters(compute_device *d, compute_counters *out)
{
    inner_of(d)->ops->counters(inner_of(d), out);
}

static void guarded_close(compute_device *d)
{
    guarded_device *g = (guarded_device *)d;

    while (g->buffers != NULL) {
        guarded_free(d, (compute_mem *)(void *)g->buffers->pages);
    }
    compute_close(g->inner);
    free(g);
}

static const compute_ops ops = {
    .name = "guarded",
    .alloc = guarded_alloc,
    .free = guarded_free,
    .upload = guarded_upload,
    .download = guarded_download,
    .sync = guarded_sync,
    .matrix_open = guarded_matrix_open,
    .matrix_close = guarded_matrix_close,
    .expert_open = guarded_expert_open,
    .expert_close = guarded_expert_close,
    .expert_adopt = guarded_expert_adopt,
    .embed = guarded_embed,
    .to_class = guarded_to_class,
    .matmul = guarded_matmul,
    .matrix_open_f32 = guarded_matrix_open_f32,
    .matmul_f32 = guarded_matmul_f32,
    .rms_norm = guarded_rms_norm,
    .clamp = guarded_clamp,
    .rope = guarded_rope,
    .kv_store = guarded_kv_store,
    .attention = guarded_attention,
    .expert_ffn = guarded_expert_ffn,
    .combine = guarded_combine,
    .add = guarded_add,
    .gather = guarded_gather,
    .matmul_routed = guarded_matmul_routed,
    .layer_norm = guarded_layer_norm,
    .unit_norm = guarded_unit_norm,
    .activate = guarded_activate,
    .stick_attention = guarded_stick_attention,
    .local_expert = guarded_local_expert,
    .counters = guarded_counters,
    .close = guarded_close,
};

moe_status compute_guarded_open(const compute_device_options *options, compute_device **out, moe_error *err)
{
    guarded_device *g = calloc(1, sizeof(*g));
    moe_status status;

    if (g == NULL) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "no memory for a device");
    }
    status = compute_cpu_open(options, &g->inner, err);
    if (status != MOE_OK) {
        free(g);
        return status;
    }
    g->base.ops = &ops;
    g->base.numeric_class = options->numeric_class;
    *out = &g->base;
    return MOE_OK;
}
