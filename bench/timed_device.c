#include "bench/timed_device.h"

#include <stdlib.h>

typedef struct opened_expert {
    const void *gate_data;
    compute_expert *expert; /* borrowed from its opener */
} opened_expert;

typedef struct timed_device {
    compute_device base;
    compute_ops ops;
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

/* ------------------------------------------------------------------------------------------------ passed on
 * By kind, see compute/ops.h. What is not timed counts as the host's. */
static compute_device *inner_of(compute_device *d)
{
    return ((timed_device *)d)->inner;
}

#define PART_upload          TIMED_COPY
#define PART_download        TIMED_COPY
#define PART_gather_out      TIMED_COPY
#define PART_scatter_in      TIMED_COPY
#define PART_frame_out       TIMED_COPY
#define PART_embed           TIMED_SMALL
#define PART_to_class        TIMED_SMALL
#define PART_matmul          (w == ((timed_device *)outer)->head ? TIMED_HEAD : TIMED_PROJECTIONS)
#define PART_matmul_f32      TIMED_ROUTER
#define PART_matmul_routed   TIMED_PROJECTIONS
#define PART_rms_norm        TIMED_NORM
#define PART_layer_norm      TIMED_NORM
#define PART_unit_norm       TIMED_NORM
#define PART_activate        TIMED_ROUTER
#define PART_clamp           TIMED_SMALL
#define PART_rope            TIMED_ROPE
#define PART_kv_store        TIMED_KV_STORE
#define PART_attention       TIMED_ATTENTION
#define PART_stick_attention TIMED_ATTENTION
#define PART_expert_ffn      TIMED_EXPERTS
#define PART_combine         TIMED_COMBINE
#define PART_local_expert    TIMED_LOCAL
#define PART_add             TIMED_SMALL
#define PART_gather          TIMED_SMALL

#define PASS_OWN(result, name, parameters, arguments) PASS_OWN_##name(result, name, parameters, arguments)
#define PASS_QUEUED(result, name, parameters, arguments)                                                               \
    static void pass_##name parameters                                                                                 \
    {                                                                                                                  \
        compute_device *outer = d;                                                                                     \
        d = enter(outer);                                                                                              \
        d->ops->name arguments;                                                                                        \
        leave(outer, PART_##name);                                                                                     \
    }
#define PASS_FETCHED(result, name, parameters, arguments)                                                              \
    static result pass_##name parameters                                                                               \
    {                                                                                                                  \
        compute_device *outer = d;                                                                                     \
        d = enter(outer);                                                                                              \
        result r = d->ops->name arguments;                                                                             \
        leave(outer, PART_##name);                                                                                     \
        return r;                                                                                                      \
    }
#define PASS_HOST(result, name, parameters, arguments)                                                                 \
    static void pass_##name parameters                                                                                 \
    {                                                                                                                  \
        d = inner_of(d);                                                                                               \
        d->ops->name arguments;                                                                                        \
    }
#define PASS_ASKED(result, name, parameters, arguments)                                                                \
    static result pass_##name parameters                                                                               \
    {                                                                                                                  \
        d = inner_of(d);                                                                                               \
        return d->ops->name arguments;                                                                                 \
    }
#define PASS_OPTIONAL         PASS_HOST
#define PASS_OPTIONAL_ASKED   PASS_ASKED
#define PASS_OPTIONAL_FETCHED PASS_FETCHED
/* The memory is the inner device's, its end our own. */
#define PASS_OWN_alloc PASS_ASKED
#define PASS_OWN_free  PASS_HOST
#define PASS_OWN_close(result, name, parameters, arguments)
#define COMPUTE_OP(kind, result, name, parameters, arguments) PASS_##kind(result, name, parameters, arguments)
#include "compute/ops.h"

static void pass_close(compute_device *d)
{
    timed_device *t = (timed_device *)d;

    compute_close(t->inner);
    free(t->experts);
    free(t);
}

static const compute_ops passing = {
#define COMPUTE_OP(kind, result, name, parameters, arguments) .name = pass_##name,
#include "compute/ops.h"
};

/* ------------------------------------------------------------------------------------------------ weights that are known again */
static moe_status noting_matrix_open(compute_device *d, const compute_weight *w, compute_layout layout,
                                     compute_matrix **out)
{
    timed_device *t = (timed_device *)d;
    moe_status status = pass_matrix_open(d, w, layout, out);

    if (status == MOE_OK && w->n_out >= t->head_outputs) {
        t->head = *out;
    }
    return status;
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

static moe_status noting_expert_open(compute_device *d, compute_ffn ffn, const compute_weight *gate,
                                     const compute_weight *up, const compute_weight *down, compute_layout layout,
                                     compute_expert **out)
{
    timed_device *t = (timed_device *)d;
    moe_status status = pass_expert_open(d, ffn, gate, up, down, layout, out);

    if (status == MOE_OK && (status = note_expert(t, (gate != NULL ? gate : up)->data, *out)) != MOE_OK) {
        pass_expert_close(d, *out);
    }
    return status;
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

/* What the inner device has not, this one has not. */
static void ops_init(compute_ops *ops, const compute_ops *inner)
{
    *ops = passing;
#define COMPUTE_OP(kind, result, name, parameters, arguments) ops->name = inner->name != NULL ? ops->name : NULL;
#include "compute/ops.h"
    ops->matrix_open = noting_matrix_open;
    ops->expert_open = noting_expert_open;
}

moe_status timed_device_open(compute_device *inner, size_t head_outputs, compute_device **out)
{
    timed_device *t = calloc(1, sizeof *t);

    if (t == NULL) {
        compute_close(inner);
        return MOE_ERR_NO_MEMORY;
    }
    *t = (timed_device){.inner = inner, .head_outputs = head_outputs};
    ops_init(&t->ops, inner->ops);
    t->base = (compute_device){
        .ops = &t->ops, .numeric_class = inner->numeric_class, .place = inner->place, .name = inner->name};
    *out = &t->base;
    return MOE_OK;
}
