/* The bytes of one tensor, in pieces: copied, converted, turned, or put together of rows. */
#include "export/export_priv.h"
#include "compute/math.h"

#include <stdlib.h>
#include <string.h>

#define PIECE_BYTES ((size_t)1 << 20) /* between two looks at the progress; a multiple of every item */

/* With this unit inside, and that weight on it, the logit of a silent expert is -65,536: it is never chosen, and takes nothing
 * of the softmax. GELU of 8 is 8 in f32; both values are exact in bf16. */
#define HUSH_UNIT   8.0f
#define HUSH_WEIGHT (-8192.0f)

typedef struct writer {
    exporting *x;
    int fd;
    const char *file;
    compute_dtype dtype;
    unsigned char *piece; /* owned [PIECE_BYTES] */
    size_t used;
    moe_status status; /* the first failure sticks */
} writer;

/* ------------------------------------------------------------------------------------------------ values */
static void flush(writer *w)
{
    exporting *x = w->x;

    if (w->status != MOE_OK || w->used == 0) {
        return;
    }
    w->status = output_write(w->fd, w->file, w->piece, w->used, x->err);
    x->done_bytes += w->used;
    w->used = 0;
    if (w->status == MOE_OK && x->o->progress != NULL &&
        !x->o->progress(x->o->progress_ctx, x->done_bytes, x->result.bytes)) {
        w->status = moe_fail(x->err, MOE_ERR_CANCELLED, "stopped");
    }
}

static unsigned char *room(writer *w, size_t bytes)
{
    if (w->used + bytes > PIECE_BYTES) {
        flush(w);
        w->used = 0;
    }
    w->used += bytes;
    return w->piece + w->used - bytes;
}

static void put_value(writer *w, float value)
{
    if (w->dtype == COMPUTE_F32) {
        memcpy(room(w, sizeof value), &value, sizeof value);
    } else {
        uint16_t half = compute_bf16_from_f32(value);

        MOE_ASSERT(w->dtype == COMPUTE_BF16 || value == 0.0f); /* export_list has seen to it */
        memcpy(room(w, sizeof half), &half, sizeof half);
    }
}

static void put_zeros(writer *w, size_t n)
{
    for (size_t i = 0; i < n && w->status == MOE_OK; i++) {
        put_value(w, 0.0f);
    }
}

static float value_at(const unsigned char *data, compute_dtype dtype, size_t i)
{
    uint16_t half;
    float value;

    if (dtype == COMPUTE_F32) {
        memcpy(&value, data + i * sizeof value, sizeof value);
        return value;
    }
    memcpy(&half, data + i * sizeof half, sizeof half);
    return dtype == COMPUTE_BF16 ? compute_f32_from_bf16(half) : compute_f32_from_f16(half);
}

/* One item of the same dtype keeps its bits. */
static void put_item(writer *w, const unsigned char *data, compute_dtype dtype, size_t i)
{
    size_t item = compute_dtype_bytes(dtype);

    if (dtype == w->dtype) {
        memcpy(room(w, item), data + i * item, item);
    } else {
        put_value(w, value_at(data, dtype, i));
    }
}

static void put_items(writer *w, const unsigned char *data, compute_dtype dtype, size_t n)
{
    size_t item = compute_dtype_bytes(dtype), step = PIECE_BYTES / item;

    if (dtype != w->dtype) {
        for (size_t i = 0; i < n && w->status == MOE_OK; i++) {
            put_value(w, value_at(data, dtype, i));
        }
        return;
    }
    for (size_t at = 0; at < n && w->status == MOE_OK; at += step) {
        size_t bytes = MOE_MIN(step, n - at) * item;

        memcpy(room(w, bytes), data + at * item, bytes);
    }
}

/* [rows, columns], column by column: where the family stores what a pack has the other way round. */
static void put_turned(writer *w, const checkpoint_tensor *t)
{
    for (size_t column = 0; column < t->shape[1]; column++) {
        for (size_t row = 0; row < t->shape[0] && w->status == MOE_OK; row++) {
            put_item(w, t->data, t->dtype, row * t->shape[1] + column);
        }
    }
}

/* ------------------------------------------------------------------------------------------------ what a role consists of */
static const checkpoint_logical *own(const writer *w, model_role role, uint32_t layer, uint32_t expert)
{
    return model_tensors_role(w->x->model.tensors, role, layer, expert);
}

static void put_own(writer *w, model_role role, uint32_t layer, uint32_t expert)
{
    const checkpoint_logical *t = own(w, role, layer, expert);

    put_items(w, t->data, t->dtype, t->bytes / compute_dtype_bytes(t->dtype));
    model_tensors_forget(w->x->model.tensors, t);
}

/* As the family stores it. */
static void put_matrix(writer *w, model_role role, const pack *p, const checkpoint_tensor *t)
{
    if ((w->x->config.family->input_major >> role & 1) != 0) {
        put_turned(w, t);
    } else {
        put_items(w, t->data, t->dtype, t->shape[0] * t->shape[1]);
    }
    pack_forget(p, t);
}

static void put_attention_expert(writer *w, model_role role, uint32_t layer, uint32_t expert)
{
    const exporting *x = w->x;
    uint32_t end = x->model.config.n_att_experts;

    if (expert < end) {
        put_own(w, role, layer, expert);
    }
    for (size_t i = 0; i < x->n_attention; i++) {
        uint32_t first = end;

        end += export_n_attention(x->attention[i], layer);
        if (expert >= first && expert < end) {
            const model_attention_parts *e = &pack_layer_of(x->attention[i], layer)->attention[expert - first];
            put_matrix(w, role, x->attention[i], role == MODEL_ROLE_ATTENTION_EXPERT_Q ? e->q : e->o);
        }
    }
}

static void put_added(writer *w, model_role role, const pack *p, uint32_t layer, uint32_t place)
{
    const pack_expert *e = &pack_layer_of(p, layer)->experts[place];
    const checkpoint_tensor *t = role == MODEL_ROLE_EXPERT_GATE ? e->gate
                                 : role == MODEL_ROLE_EXPERT_UP ? e->up
                                                                : e->down;

    put_matrix(w, role, p, t);
}

static void put_ffn(writer *w, model_role role, uint32_t layer, uint32_t expert)
{
    const export_column *c = &export_columns(w->x, layer)[expert];

    if (c->pack != NULL) {
        put_added(w, role, c->pack, layer, c->place);
    } else if (c->base >= 0) {
        put_own(w, role, layer, (uint32_t)c->base);
    } else {
        put_zeros(w, (size_t)w->x->config.d_ff * w->x->config.d_model);
    }
}

/* Rows of the gate's last layer; its input may have become wider. */
static void put_gate(writer *w, uint32_t layer)
{
    const exporting *x = w->x;
    const checkpoint_logical *t = own(w, MODEL_ROLE_GATE, layer, 0);
    size_t width = t->shape[1], more = x->config.gate_kind == MODEL_GATE_LINEAR ? 0 : x->config.gate_width - width;

    for (uint32_t i = 0; i < x->config.n_experts; i++) {
        const export_column *c = &export_columns(x, layer)[i];

        if (c->base >= 0) {
            put_items(w, t->data + (size_t)c->base * width * compute_dtype_bytes(t->dtype), t->dtype, width);
        } else if (c->pack != NULL) {
            const checkpoint_tensor *rows = pack_layer_of(c->pack, layer)->router;
            put_items(w, rows->data + c->place * width * compute_dtype_bytes(rows->dtype), rows->dtype, width);
        } else {
            put_zeros(w, width);
        }
        if (x->hushed) {
            put_value(w, export_is_silent(c) ? HUSH_WEIGHT : 0.0f);
        } else {
            put_zeros(w, more);
        }
    }
}

/* Rows with zeros behind them, to the width of the tensor. */
static void put_rows(writer *w, const export_tensor *t, const unsigned char *data, compute_dtype dtype, size_t n,
                     size_t width)
{
    for (size_t row = 0; row < n; row++) {
        put_items(w, data + row * width * compute_dtype_bytes(dtype), dtype, width);
        put_zeros(w, t->shape[1] - width);
    }
}

/* A matrix of the checkpoint with more rows or columns of zeros, to the size of the tensor. */
static void put_widened(writer *w, const export_tensor *t)
{
    const checkpoint_logical *from = own(w, t->role, t->layer, 0);

    put_rows(w, t, from->data, from->dtype, from->shape[0], from->shape[1]);
    put_zeros(w, (t->shape[0] - from->shape[0]) * t->shape[1]);
}

static void put_attention_gate(writer *w, const export_tensor *t)
{
    const checkpoint_logical *from = own(w, t->role, t->layer, 0);

    put_rows(w, t, from->data, from->dtype, from->shape[0], from->shape[1]);
    for (size_t i = 0; i < w->x->n_attention; i++) {
        if (export_n_attention(w->x->attention[i], t->layer) > 0) {
            const checkpoint_tensor *more = pack_layer_of(w->x->attention[i], t->layer)->attention_router;
            put_rows(w, t, more->data, more->dtype, more->shape[0], more->shape[1]);
        }
    }
}

static void put_bias(writer *w, const export_tensor *t)
{
    put_own(w, t->role, t->layer, 0);
    if (w->x->hushed) {
        put_value(w, t->role == MODEL_ROLE_GATE_BIAS ? HUSH_UNIT : 0.0f);
    }
}

/* What a column of the layer before adds to one of this layer: as a server with these packs has it. */
static void put_map_entry(writer *w, uint32_t layer, const export_column *row, const export_column *column)
{
    const checkpoint_logical *t = own(w, MODEL_ROLE_GATE_MAP, layer, 0);
    size_t n = t->shape[1];
    const pack_layer *of_row = row->pack != NULL ? pack_layer_of(row->pack, layer) : NULL;

    if (export_is_silent(row) || export_is_silent(column) ||
        (row->pack != NULL && column->pack != NULL && row->pack != column->pack)) {
        put_value(w, 0.0f); /* packs know nothing of each other */
    } else if (row->base >= 0 && column->base >= 0) {
        put_item(w, t->data, t->dtype, (size_t)row->base * n + (size_t)column->base);
    } else if (row->base < 0) {
        size_t at = column->base >= 0 ? (size_t)column->base : n + column->place;
        put_item(w, of_row->map_rows->data, of_row->map_rows->dtype, row->place * of_row->map_rows->shape[1] + at);
    } else { /* an added column: the pack says it, if it has a layer here */
        const pack_layer *here = pack_layer_of(column->pack, layer);
        const checkpoint_tensor *m = here != NULL ? here->map_columns : NULL;

        if (m != NULL) {
            put_item(w, m->data, m->dtype, (size_t)row->base * m->shape[1] + column->place);
        } else {
            put_value(w, 0.0f);
        }
    }
}

static void put_map(writer *w, uint32_t layer)
{
    uint32_t n = w->x->config.n_experts;

    if (layer == 0) {
        put_zeros(w, (size_t)n * n);
        return;
    }
    for (uint32_t row = 0; row < n; row++) {
        for (uint32_t column = 0; column < n && w->status == MOE_OK; column++) {
            put_map_entry(w, layer, &export_columns(w->x, layer)[row], &export_columns(w->x, layer - 1)[column]);
        }
    }
}

/* ------------------------------------------------------------------------------------------------ a tensor */
static void put_experts(writer *w, const export_tensor *t)
{
    uint32_t n = t->all_experts ? (uint32_t)t->shape[0] : 1;

    for (uint32_t e = 0; e < n; e++) {
        for (uint32_t part = 0; part < t->of; part++) {
            model_role role = (model_role)(t->role + part);

            if (role >= MODEL_FIRST_EXPERT_ROLE) {
                put_ffn(w, role, t->layer, t->expert + e);
            } else if (role >= MODEL_FIRST_CONSTANT_ROLE) {
                put_own(w, role, t->layer, t->expert - w->x->config.n_ffn_experts + w->x->model.config.n_ffn_experts);
            } else if (role >= MODEL_FIRST_ATTENTION_EXPERT_ROLE) {
                put_attention_expert(w, role, t->layer, t->expert + e);
            } else {
                put_own(w, role, t->layer, t->expert + e);
            }
        }
    }
}

static void put_tensor(writer *w, const export_tensor *t)
{
    switch (t->role) {
    case MODEL_ROLE_GATE:
        put_gate(w, t->layer);
        break;
    case MODEL_ROLE_GATE_MAP:
        put_map(w, t->layer);
        break;
    case MODEL_ROLE_GATE_INNER:
    case MODEL_ROLE_ATTENTION_GATE_INNER:
        put_widened(w, t);
        break;
    case MODEL_ROLE_ATTENTION_GATE:
        put_attention_gate(w, t);
        break;
    case MODEL_ROLE_GATE_BIAS:
    case MODEL_ROLE_ATTENTION_GATE_BIAS:
        put_bias(w, t);
        break;
    default:
        put_experts(w, t);
    }
}

moe_status export_write_tensor(exporting *x, int fd, const char *file, const export_tensor *t)
{
    writer w = {.x = x, .fd = fd, .file = file, .dtype = t->dtype, .piece = malloc(PIECE_BYTES)};

    if (w.piece == NULL) {
        return moe_fail(x->err, MOE_ERR_NO_MEMORY, "tensor %.200s: out of memory", t->name);
    }
    size_t before = x->done_bytes;
    put_tensor(&w, t);
    flush(&w);
    free(w.piece);
    MOE_ASSERT(w.status != MOE_OK || x->done_bytes - before == t->bytes);
    return w.status;
}
