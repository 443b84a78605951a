#include "bench/timed_device.h"

#include <stdlib.h>

typedef struct opened_expert {
    const void *gate_data;
    compute_expert *expert; /* borrowed from its opener */
} opened_expert;

typedef struct timed_device {
    compute_device base;
    compute_device *inner; /* owned */
    size_t head_outputs;
    const compute_matrix *head; /* the last matrix with so many outputs */
    opened_expert *experts;     /* owned [n_experts] */
    size_t n_experts, capacity;
    timed_report *report; /* borrowed between begin and end; NULL outside */
    bool any_op;          /* since begin */
    uint64_t since_ns;    /* begin, or the end of the last op */
} timed_device;

const char *timed_part_name(timed_part part)
{
    static const char *const names[] = {
#define X(name, text) [name] = (text),
        TIMED_PART_MAP(X)
#undef X
    };

    return names[part];
}

/* ------------------------------------------------------------------------------------------------ counting */
static void lap(timed_device *t, timed_part part)
{
    uint64_t now;

    if (t->report == NULL) {
        return;
    }
    now = moe_now_ns(moe_clock_real());
    t->report->ns[part] += now - t->since_ns;
    t->report->calls[part]++;
    t->since_ns = now;
}

static compute_device *enter(compute_device *d)
{
    timed_device *t = (timed_device *)d;

    lap(t, t->any_op ? TIMED_BETWEEN : TIMED_BEFORE);
    t->any_op = true;
    return t->inner;
}

static void leave(compute_device *d, timed_part part)
{
    lap((timed_device *)d, part);
}

void timed_device_begin(compute_device *d, timed_report *report)
{
    timed_device *t = (timed_device *)d;

    t->report = report;
    t->any_op = false;
    t->since_ns = moe_now_ns(moe_clock_real());
}

void timed_device_end(compute_device *d)
{
    timed_device *t = (timed_device *)d;

    lap(t, TIMED_AFTER);
    t->report = NULL;
}

/* ------------------------------------------------------------------------------------------------ memory, weights */
static compute_device *inner_of(compute_device *d)
{
    return ((timed_device *)d)->inner;
}

static compute_mem *timed_alloc(compute_device *d, size_t bytes)
{
    return inner_of(d)->ops->alloc(inner_of(d), bytes);
}

static void timed_free(compute_device *d, compute_mem *m)
{
    inner_of(d)->ops->free(inner_of(d), m);
}

static void timed_upload(compute_device *d, compute_mem *to, const void *from, size_t bytes)
{
    compute_device *i = enter(d);

    i->ops->upload(i, to, from, bytes);
    leave(d, TIMED_COPY);
}

static moe_status timed_download(compute_device *d, void *to, const compute_mem *from, size_t bytes)
{
    compute_device *i = enter(d);
    moe_status status = i->ops->download(i, to, from, bytes);

    leave(d, TIMED_COPY);
    return status;
}

static moe_status timed_sync(compute_device *d)
{
    return inner_of(d)->ops->sync(inner_of(d));
}

static moe_status timed_matrix_open(compute_device *d, const compute_weight *w, compute_layout layout,
                                    compute_matrix **out)
{
    timed_device *t = (timed_device *)d;
    moe_status status = t->inner->ops->matrix_open(t->inner, w, layout, out);

    if (status == MOE_OK && w->n_out >= t->head_outputs) {
        t->head = *out;
    }
    return status;
}

static moe_status timed_matrix_open_f32(compute_device *d, const compute_weight *w, compute_matrix **out)
{
    return inner_of(d)->ops->matrix_open_f32(inner_of(d), w, out);
}

static void timed_matrix_close(compute_device *d, compute_matrix *m)
{
    inner_of(d)->ops->matrix_close(inner_of(d), m);
}

static moe_status note_expert(timed_device *t, const void *gate_data, compute_expert *expert)
{
    if (t->n_experts == t->capacity) {
        size_t capacity = MOE_MAX(2 * t->capacity, 64);
        opened_expert *grown = realloc(t->experts, capacity * sizeof *grown);

        if (grown == NULL) {
            return MOE_ERR_NO_MEMORY;
        }
        t->experts = grown;
        t->capacity = capacity;
    }
    t->experts[t->n_experts++] = (opened_expert){gate_data, expert};
    return MOE_OK;
}

static moe_status timed_expert_open(compute_device *d, compute_ffn ffn, const compute_weight *gate,
                                    const compute_weight *up, const compute_weight *down, compute_layout layout,
                                    compute_expert **out)
{
    timed_device *t = (timed_device *)d;
    moe_status status = t->inner->ops->expert_open(t->inner, ffn, gate, up, down, layout, out);

    if (status == MOE_OK && (status = note_expert(t, (gate != NULL ? gate : up)->data, *out)) != MOE_OK) {
        t->inner->ops->expert_close(t->inner, *out);
    }
    return status;
}

static void timed_expert_close(compute_device *d, compute_expert *e)
{
    inner_of(d)->ops->expert_close(inner_of(d), e);
}

static moe_status timed_expert_adopt(compute_device *d, compute_expert *e)
{
    return inner_of(d)->ops->expert_adopt(inner_of(d), e);
}

const compute_expert *timed_device_expert(const compute_device *d, const void *gate_data)
{
    const timed_device *t = (const timed_device *)d;

    for (size_t i = 0; i < t->n_experts; i++) {
        if (t->experts[i].gate_data == gate_data) {
            return t->experts[i].expert;
        }
    }
    return NULL;
}

/* ------------------------------------------------------------------------------------------------ ops */
static void timed_embed(compute_device *d, compute_mem *out, const compute_mem *table, compute_dtype table_dtype,
                        size_t width, const int32_t *ids, size_t n)
{
    compute_device *i = enter(d);

    i->ops->embed(i, out, table, table_dtype, width, ids, n);
    leave(d, TIMED_SMALL);
}

static void timed_to_class(compute_device *d, compute_mem *out, const compute_mem *x, size_t n)
{
    compute_device *i = enter(d);

    i->ops->to_class(i, out, x, n);
    leave(d, TIMED_SMALL);
}

static void timed_matmul(compute_device *d, compute_mem *out, const compute_mem *x, const compute_matrix *w,
                         const compute_mem *bias, size_t n)
{
    compute_device *i = enter(d);

    i->ops->matmul(i, out, x, w, bias, n);
    leave(d, w == ((timed_device *)d)->head ? TIMED_HEAD : TIMED_PROJECTIONS);
}

static void timed_matmul_f32(compute_device *d, compute_mem *out, const compute_mem *x, const compute_matrix *w,
                             const compute_mem *bias, size_t n)
{
    compute_device *i = enter(d);

    i->ops->matmul_f32(i, out, x, w, bias, n);
    leave(d, TIMED_ROUTER);
}

static void timed_rms_norm(compute_device *d, compute_mem *out, compute_mem *rounded, const compute_mem *x,
                           size_t stride, const compute_mem *gain, float eps, size_t width, size_t n)
{
    compute_device *i = enter(d);

    i->ops->rms_norm(i, out, rounded, x, stride, gain, eps, width, n);
    leave(d, TIMED_NORM);
}

static void timed_clamp(compute_device *d, compute_mem *x, float bound, size_t count)
{
    compute_device *i = enter(d);

    i->ops->clamp(i, x, bound, count);
    leave(d, TIMED_SMALL);
}

static void timed_rope(compute_device *d, compute_mem *x, const compute_mem *table, size_t n_heads, size_t head_dim,
                       const compute_row *rows, size_t n)
{
    compute_device *i = enter(d);

    i->ops->rope(i, x, table, n_heads, head_dim, rows, n);
    leave(d, TIMED_ROPE);
}

static void timed_kv_store(compute_device *d, compute_mem *kv, const compute_kv_shape *shape, size_t layer,
                           const compute_mem *k, const compute_mem *v, const compute_row *rows, size_t n)
{
    compute_device *i = enter(d);

    i->ops->kv_store(i, kv, shape, layer, k, v, rows, n);
    leave(d, TIMED_KV_STORE);
}

static void timed_attention(compute_device *d, compute_mem *out, const compute_mem *q, const compute_mem *kv,
                            const compute_kv_shape *shape, size_t layer, size_t n_heads, const compute_row *rows,
                            size_t n)
{
    compute_device *i = enter(d);

    i->ops->attention(i, out, q, kv, shape, layer, n_heads, rows, n);
    leave(d, TIMED_ATTENTION);
}

static void timed_expert_ffn(compute_device *d, compute_mem *out, const compute_mem *x, const compute_group *groups,
                             size_t n_groups)
{
    compute_device *i = enter(d);

    i->ops->expert_ffn(i, out, x, groups, n_groups);
    leave(d, TIMED_EXPERTS);
}

static void timed_combine(compute_device *d, compute_mem *x, const compute_mem *results, compute_dtype results_dtype,
                          const compute_pick *picks, const uint32_t *n_picks, size_t k, size_t width, size_t n)
{
    compute_device *i = enter(d);

    i->ops->combine(i, x, results, results_dtype, picks, n_picks, k, width, n);
    leave(d, TIMED_COMBINE);
}

static void timed_add(compute_device *d, compute_mem *x, const compute_mem *y, size_t n)
{
    compute_device *i = enter(d);

    i->ops->add(i, x, y, n);
    leave(d, TIMED_SMALL);
}

static void timed_gather(compute_device *d, compute_mem *out, const compute_mem *x, const uint32_t *index, size_t width,
                         size_t n)
{
    compute_device *i = enter(d);

    i->ops->gather(i, out, x, index, width, n);
    leave(d, TIMED_SMALL);
}

static void timed_matmul_routed(compute_device *d, compute_mem *out, const compute_mem *x, const compute_routed *groups,
                                size_t n_groups)
{
    compute_device *i = enter(d);

    i->ops->matmul_routed(i, out, x, groups, n_groups);
    leave(d, TIMED_PROJECTIONS);
}

static void timed_layer_norm(compute_device *d, compute_mem *out, compute_mem *rounded, const compute_mem *x,
                             const compute_mem *gain, const compute_mem *bias, float eps, size_t width, size_t n)
{
    compute_device *i = enter(d);

    i->ops->layer_norm(i, out, rounded, x, gain, bias, eps, width, n);
    leave(d, TIMED_NORM);
}

static void timed_unit_norm(compute_device *d, compute_mem *x, size_t width, size_t n)
{
    compute_device *i = enter(d);

    i->ops->unit_norm(i, x, width, n);
    leave(d, TIMED_NORM);
}

static void timed_activate(compute_device *d, compute_mem *x, compute_activation kind, size_t count)
{
    compute_device *i = enter(d);

    i->ops->activate(i, x, kind, count);
    leave(d, TIMED_ROUTER);
}

static void timed_stick_attention(compute_device *d, compute_mem *out, const compute_mem *q, const compute_mem *kv,
                                  const compute_kv_shape *shape, size_t layer, size_t n_heads, const compute_row *rows,
                                  size_t n)
{
    compute_device *i = enter(d);

    i->ops->stick_attention(i, out, q, kv, shape, layer, n_heads, rows, n);
    leave(d, TIMED_ATTENTION);
}

static void timed_local_expert(compute_device *d, compute_mem *out, const compute_mem *x, const compute_mem *gate,
                               const compute_mem *constant, const uint32_t *rows, const uint32_t *out_rows,
                               size_t n_rows, size_t width)
{
    compute_device *i = enter(d);

    i->ops->local_expert(i, out, x, gate, constant, rows, out_rows, n_rows, width);
    leave(d, TIMED_LOCAL);
}

static void timed_counters(compute_device *d, compute_counters *out)
{
    inner_of(d)->ops->counters(inner_of(d), out);
}

static void timed_close(compute_device *d)
{
    timed_device *t = (timed_device *)d;

    compute_close(t->inner);
    free(t->experts);
    free(t);
}

static const compute_ops timed_ops = {
    .name = "timed",
    .alloc = timed_alloc,
    .free = timed_free,
    .upload = timed_upload,
    .download = timed_download,
    .sync = timed_sync,
    .matrix_open = timed_matrix_open,
    .matrix_close = timed_matrix_close,
    .expert_open = timed_expert_open,
    .expert_close = timed_expert_close,
    .expert_adopt = timed_expert_adopt,
    .embed = timed_embed,
    .to_class = timed_to_class,
    .matmul = timed_matmul,
    .matrix_open_f32 = timed_matrix_open_f32,
    .matmul_f32 = timed_matmul_f32,
    .rms_norm = timed_rms_norm,
    .clamp = timed_clamp,
    .rope = timed_rope,
    .kv_store = timed_kv_store,
    .attention = timed_attention,
    .expert_ffn = timed_expert_ffn,
    .combine = timed_combine,
    .add = timed_add,
    .gather = timed_gather,
    .matmul_routed = timed_matmul_routed,
    .layer_norm = timed_layer_norm,
    .unit_norm = timed_unit_norm,
    .activate = timed_activate,
    .stick_attention = timed_stick_attention,
    .local_expert = timed_local_expert,
    .counters = timed_counters,
    .close = timed_close,
};

moe_status timed_device_open(compute_device *inner, size_t head_outputs, compute_device **out)
{
    timed_device *t = calloc(1, sizeof *t);

    if (t == NULL) {
        compute_close(inner);
        return MOE_ERR_NO_MEMORY;
    }
    *t = (timed_device){.base = {.ops = &timed_ops, .numeric_class = inner->numeric_class},
                        .inner = inner,
                        .head_outputs = head_outputs};
    *out = &t->base;
    return MOE_OK;
}
