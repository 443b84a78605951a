/* Gates of a space that has grown: the checkpoint's rows, and below them those of the added experts, each at its place in the
 * layer. A product's outputs do not know of each other and its inputs are added in the order of columns (docs/numeric.md), so
 * more rows change no logit, and columns of zeros at the end of a map change none either. */
#include "model/model_priv.h"

#include "compute/math.h"
#include "model/family/family.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ------------------------------------------------------------------------------------------------ life */
moe_status model_gates_alloc(model *m, router_space *space, model_gates *own, model_gates **out)
{
    model_gates *g = calloc(1, sizeof *g);
    uint32_t n = router_space_n_layers(space);

    if (g == NULL || (g->layers = calloc(n, sizeof *g->layers)) == NULL) {
        free(g);
        return MOE_ERR_NO_MEMORY;
    }
    atomic_init(&g->refs, 1);
    g->m = m;
    g->space = router_space_ref(space);
    g->own = own == NULL ? NULL : model_gates_ref(own);
    for (uint32_t l = 0; l < n; l++) {
        if (own != NULL) {
            g->layers[l] = own->layers[l];
        }
        g->layers[l].n_columns = router_space_at(space, l)->n_experts;
    }
    *out = g;
    return MOE_OK;
}

/* What never grows. */
static void close_base(compute_device *d, const gate_layer *l)
{
    const gate_weights *gates[] = {&l->w, &l->att.gate};

    for (size_t i = 0; i < MOE_COUNT(gates); i++) {
        d->ops->matrix_close(d, gates[i]->inner);
        d->ops->free(d, gates[i]->bias);
    }
    for (uint32_t i = 0; i < l->att.n; i++) {
        d->ops->matrix_close(d, l->att.q != NULL ? l->att.q[i] : NULL);
        d->ops->matrix_close(d, l->att.o != NULL ? l->att.o[i] : NULL);
    }
}

static void close_layer(const model_gates *g, uint32_t layer)
{
    static const gate_layer none = {.n_columns = 0};
    const gate_layer *l = &g->layers[layer], *own = g->own != NULL ? &g->own->layers[layer] : &none;
    compute_device *d = g->m->device;

    if (g->own == NULL) {
        close_base(d, l);
    }
    d->ops->matrix_close(d, l->w.out != own->w.out ? l->w.out : NULL);
    d->ops->matrix_close(d, l->w.map != own->w.map ? l->w.map : NULL);
    d->ops->matrix_close(d, l->att.gate.out != own->att.gate.out ? l->att.gate.out : NULL);
    free(l->att.q != own->att.q ? l->att.q : NULL);
    free(l->att.o != own->att.o ? l->att.o : NULL);
}

model_gates *model_gates_ref(model_gates *g)
{
    atomic_fetch_add_explicit(&g->refs, 1, memory_order_relaxed);
    return g;
}

void model_gates_unref(model_gates *g)
{
    if (g == NULL || atomic_fetch_sub_explicit(&g->refs, 1, memory_order_acq_rel) != 1) {
        return;
    }
    for (uint32_t l = 0; l < router_space_n_layers(g->space); l++) {
        close_layer(g, l);
    }
    for (size_t i = 0; i < g->n_att_packs; i++) {
        model_attention_pack_unref(g->m, g->att_packs[i]);
    }
    free(g->att_packs);
    router_space_unref(g->space);
    model_gates_unref(g->own);
    free(g->layers);
    free(g);
}

model_gates *model_own_gates(model *m)
{
    return m->gates;
}

router_space *model_gates_space(const model_gates *g)
{
    return g->space;
}

/* ------------------------------------------------------------------------------------------------ values */
void model_widen(float *out, const unsigned char *data, compute_dtype dtype, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint16_t half;

        if (dtype == COMPUTE_F32) {
            memcpy(&out[i], data + i * sizeof out[i], sizeof out[i]);
        } else {
            memcpy(&half, data + i * sizeof half, sizeof half);
            out[i] = dtype == COMPUTE_BF16 ? compute_f32_from_bf16(half) : compute_f32_from_f16(half);
        }
    }
}

void model_scale_centroids(float *rows, size_t n_rows, size_t width, float temperature)
{
    for (size_t r = 0; r < n_rows; r++) {
        float *row = rows + r * width;
        double sum = 0.0;

        for (size_t i = 0; i < width; i++) {
            sum += (double)row[i] * (double)row[i];
        }
        double by = (double)compute_exp(temperature) / MOE_MAX(sqrt(sum), 1e-12);
        for (size_t i = 0; i < width; i++) {
            row[i] = (float)((double)row[i] * by);
        }
    }
}

/* Row r of a tensor, `width` values from its first on. */
static void widen_row(float *out, const checkpoint_tensor *t, size_t r, size_t first, size_t width)
{
    model_widen(out, t->data + (r * t->shape[1] + first) * compute_dtype_bytes(t->dtype), t->dtype, width);
}

/* ------------------------------------------------------------------------------------------------ making */
typedef struct gate_maker {
    model *m;
    const model_tensors *tensors;
    compute_device *device;
    const router_space *space;
    const model_gate_pack *packs;
    size_t n_packs;
    const model_gate_pack *
        *attention; /* owned [n_attention]: those that have attention experts, in the order of the gates' */
    size_t n_attention;
    uint32_t layer;
    float *sheet; /* the matrix that is made, [rows, width] */
    size_t width;
    moe_error *err;
} gate_maker;

/* NULL: the pack has no experts there. */
static const model_gate_part *part_of(const model_gate_pack *pack, uint32_t layer)
{
    for (size_t i = 0; i < pack->n_parts; i++) {
        if (pack->parts[i].layer == layer) {
            return &pack->parts[i];
        }
    }
    return NULL;
}

static uint32_t place_of(const gate_maker *k, const model_gate_part *part, uint32_t i)
{
    return router_space_place(router_space_at(k->space, part->layer), part->ids[i]);
}

static moe_status check_shape(const gate_maker *k, const model_gate_part *part, const char *what,
                              const checkpoint_tensor *t, size_t rows, size_t columns)
{
    if (t == NULL || t->rank != 2 || t->shape[0] != rows || t->shape[1] != columns || t->dtype == COMPUTE_DTYPE_OTHER) {
        return moe_fail(k->err, MOE_ERR_INVALID_ARG, "layer %u: %s of added experts must have the shape [%zu, %zu]",
                        part->layer, what, rows, columns);
    }
    return MOE_OK;
}

static size_t gate_input(const model_config *c)
{
    return c->gate_kind == MODEL_GATE_LINEAR ? c->d_model : c->gate_width;
}

static moe_status check_attention(const gate_maker *k, const model_gate_part *part)
{
    const model_config *c = &k->m->config;
    size_t heads = (size_t)c->n_heads * c->head_dim;
    moe_status status = MOE_OK;

    if (part->n_attention > 0 && (c->n_att_experts == 0 || part->like != NULL)) {
        return moe_fail(k->err, MOE_ERR_INVALID_ARG, "layer %u: no attention experts can be added here", part->layer);
    }
    if (part->n_attention > 0) {
        status = check_shape(k, part, "the attention router's rows", part->attention_router, part->n_attention,
                             gate_input(c));
    }
    for (uint32_t i = 0; i < part->n_attention && status == MOE_OK; i++) {
        status = check_shape(k, part, "q", part->attention[i].q, heads, c->d_model);
        if (status == MOE_OK) {
            status = check_shape(k, part, "o", part->attention[i].o, c->d_model, heads);
        }
    }
    return status;
}

static moe_status check_part(const gate_maker *k, const model_gate_pack *pack, const model_gate_part *part)
{
    const model_config *c = &k->m->config;
    const model_gate_part *below = part->layer == 0 ? NULL : part_of(pack, part->layer - 1);
    size_t before = below == NULL ? 0 : below->n_experts, n = c->n_experts;
    moe_status status = MOE_OK;

    if (below != NULL && (below->like == NULL) != (part->like == NULL)) {
        return moe_fail(k->err, MOE_ERR_INVALID_ARG, "layer %u: a pack either brings its rows or copies them",
                        part->layer);
    }
    for (uint32_t i = 0; i < part->n_experts; i++) {
        uint32_t place = part->layer < c->n_layers ? place_of(k, part, i) : ROUTER_NO_SLOT;

        if (place == ROUTER_NO_SLOT || place < n) {
            return moe_fail(k->err, MOE_ERR_INVALID_ARG, "layer %u expert %d: is none that was added to the space",
                            part->layer, part->ids[i]);
        }
        if (part->like != NULL && (part->like[i] < 0 || (uint32_t)part->like[i] >= c->n_ffn_experts)) {
            return moe_fail(k->err, MOE_ERR_INVALID_ARG, "layer %u expert %d: the checkpoint has no FFN expert %d",
                            part->layer, part->ids[i], part->like[i]);
        }
    }
    if (part->like == NULL) {
        status = check_shape(k, part, "the router's rows", part->router, part->n_experts, gate_input(c));
    }
    if (status == MOE_OK && part->like == NULL && c->gate_map && part->layer > 0) {
        status = check_shape(k, part, "map_rows", part->map_rows, part->n_experts, n + before);
        if (status == MOE_OK && before > 0) {
            status = check_shape(k, part, "map_columns", part->map_columns, n, before);
        }
    }
    return status == MOE_OK ? check_attention(k, part) : status;
}

static moe_status check_packs(const gate_maker *k)
{
    const model_config *c = &k->m->config;
    moe_status status = MOE_OK;

    if (router_space_n_layers(k->space) != c->n_layers || router_space_base_experts(k->space) != c->n_ffn_experts) {
        return moe_fail(k->err, MOE_ERR_INVALID_ARG, "gates: the space is not of this model");
    }
    for (size_t p = 0; p < k->n_packs; p++) {
        for (size_t i = 0; i < k->packs[p].n_parts && status == MOE_OK; i++) {
            status = check_part(k, &k->packs[p], &k->packs[p].parts[i]);
        }
    }
    return status;
}

static float *row_of(const gate_maker *k, size_t row)
{
    return k->sheet + row * k->width;
}

/* The checkpoint's rows; the sheet may be wider. */
static void fill_base(const gate_maker *k, const checkpoint_logical *t)
{
    compute_weight w = model_tensors_weight(&k->m->config, MODEL_ROLE_GATE, t);

    MOE_ASSERT(!w.input_major); /* no family stores a gate so */
    for (size_t r = 0; r < w.n_out; r++) {
        model_widen(row_of(k, r), t->data + r * w.n_in * compute_dtype_bytes(t->dtype), t->dtype, w.n_in);
    }
}

/* Below the checkpoint's rows those of the packs, one pack after the other. */
static void fill_attention(const gate_maker *k)
{
    size_t row = k->m->config.n_att_experts;

    for (size_t p = 0; p < k->n_attention; p++) {
        const model_gate_part *part = part_of(k->attention[p], k->layer);

        for (uint32_t i = 0; part != NULL && i < part->n_attention; i++) {
            widen_row(row_of(k, row++), part->attention_router, i, 0, k->width);
        }
    }
}

static void fill_out(const gate_maker *k, const model_gate_part *part)
{
    for (uint32_t i = 0; i < part->n_experts; i++) {
        float *to = row_of(k, place_of(k, part, i));

        if (part->like != NULL) {
            memcpy(to, row_of(k, (size_t)part->like[i]), k->width * sizeof *to);
        } else {
            widen_row(to, part->router, i, 0, k->width);
        }
    }
}

/* What the added experts of the layer before add to the logits of the checkpoint's in this one. */
static void fill_map_columns(const gate_maker *k, const model_gate_part *part, const model_gate_part *below)
{
    for (size_t r = 0; r < k->m->config.n_experts; r++) {
        for (uint32_t j = 0; j < below->n_experts; j++) {
            float *to = row_of(k, r) + place_of(k, below, j);

            if (below->like != NULL) {
                *to = row_of(k, r)[below->like[j]];
            } else if (part != NULL) {
                widen_row(to, part->map_columns, r, j, 1);
            }
        }
    }
}

/* What those of the layer before add to the logits of the added experts in this one; after the columns. */
static void fill_map_rows(const gate_maker *k, const model_gate_part *part, const model_gate_part *below)
{
    size_t n = k->m->config.n_experts;

    for (uint32_t i = 0; i < part->n_experts; i++) {
        float *to = row_of(k, place_of(k, part, i));
        const float *like = part->like == NULL ? NULL : row_of(k, (size_t)part->like[i]);

        if (like == NULL) {
            widen_row(to, part->map_rows, i, 0, n);
        } else {
            memcpy(to, like, n * sizeof *to);
        }
        for (uint32_t j = 0; below != NULL && j < below->n_experts; j++) {
            uint32_t column = place_of(k, below, j);

            if (like == NULL) {
                widen_row(to + column, part->map_rows, i, n + j, 1);
            } else {
                to[column] = like[column];
            }
        }
    }
}

static void fill_map(const gate_maker *k, const model_gate_pack *pack)
{
    const model_gate_part *part = part_of(pack, k->layer), *below = part_of(pack, k->layer - 1);

    if (below != NULL) {
        fill_map_columns(k, part, below);
    }
    if (part != NULL) {
        fill_map_rows(k, part, below);
    }
}

/* The temperature's role follows that of the gate. */
static void scale_sheet(const gate_maker *k, model_role role, size_t n_rows)
{
    const checkpoint_logical *t = model_tensors_role(k->tensors, role + 1, k->layer, 0);
    float temperature;

    model_widen(&temperature, t->data, t->dtype, 1);
    model_scale_centroids(k->sheet, n_rows, k->width, temperature);
}

/* A matrix of n_rows rows out of the tensor of a role, and of what packs add to it. */
static moe_status make(gate_maker *k, model_role role, size_t n_rows, size_t width, compute_matrix **out)
{
    compute_weight w = {.dtype = COMPUTE_F32, .n_out = n_rows, .n_in = width};

    k->width = width;
    w.data = k->sheet = calloc(n_rows * width, sizeof *k->sheet);
    if (k->sheet == NULL) {
        return moe_fail(k->err, MOE_ERR_NO_MEMORY, "layer %u: a gate of %zu experts", k->layer, n_rows);
    }
    fill_base(k, model_tensors_role(k->tensors, role, k->layer, 0));
    for (size_t p = 0; p < k->n_packs; p++) {
        const model_gate_part *part = part_of(&k->packs[p], k->layer);

        if (role == MODEL_ROLE_GATE_MAP) {
            fill_map(k, &k->packs[p]);
        } else if (role == MODEL_ROLE_GATE && part != NULL) {
            fill_out(k, part);
        }
    }
    if (role == MODEL_ROLE_ATTENTION_GATE) {
        fill_attention(k);
    }
    if (role != MODEL_ROLE_GATE_MAP && k->m->config.gate_kind == MODEL_GATE_CENTROIDS) {
        scale_sheet(k, role, n_rows);
    }
    moe_status status = k->device->ops->matrix_open_f32(k->device, &w, out);
    free(k->sheet);
    return status == MOE_OK ? MOE_OK
                            : moe_fail(k->err, status, "layer %u: %s for a gate of %zu experts", k->layer,
                                       moe_status_text(status), n_rows);
}

/* The packs that have attention experts, in the order in which their experts were added. */
static moe_status load_attention(gate_maker *k, model_gates *g)
{
    moe_status status = MOE_OK;

    for (size_t p = 0; p < k->n_packs && status == MOE_OK; p++) {
        const model_gate_pack *from = &k->packs[p];
        size_t n = 0, at = g->n_att_packs;
        attention_pack *fresh;

        for (size_t i = 0; i < from->n_parts; i++) {
            n += from->parts[i].n_attention;
        }
        if (n == 0) {
            continue;
        }
        status = model_attention_pack_open(k->m, k->device, k->space, from, &fresh, k->err);
        for (; status == MOE_OK && at > 0 && g->att_packs[at - 1]->slot > fresh->slot; at--) {
            g->att_packs[at] = g->att_packs[at - 1];
            k->attention[at] = k->attention[at - 1];
        }
        if (status == MOE_OK) {
            g->att_packs[at] = fresh;
            k->attention[at] = from;
            k->n_attention = ++g->n_att_packs;
        }
    }
    return status;
}

static moe_status grow_attention(gate_maker *k, model_gates *g)
{
    const model_config *c = &k->m->config;
    attention_experts *a = &g->layers[k->layer].att, own = *a;
    uint32_t n = own.n, first;

    for (size_t p = 0; p < g->n_att_packs; p++) {
        n += model_attention_pack_count(g->att_packs[p], k->layer, &first);
    }
    if (n == own.n) {
        return MOE_OK;
    }
    a->gate.out = NULL;
    a->q = calloc(n, sizeof(*a->q));
    a->o = calloc(n, sizeof(*a->o));
    if (a->q == NULL || a->o == NULL) {
        return moe_fail(k->err, MOE_ERR_NO_MEMORY, "layer %u: %u attention experts", k->layer, n);
    }
    memcpy(a->q, own.q, own.n * sizeof(*a->q));
    memcpy(a->o, own.o, own.n * sizeof(*a->o));
    for (size_t p = 0; p < g->n_att_packs; p++) {
        uint32_t more = model_attention_pack_count(g->att_packs[p], k->layer, &first);

        memcpy(a->q + a->n, g->att_packs[p]->q + first, more * sizeof(*a->q));
        memcpy(a->o + a->n, g->att_packs[p]->o + first, more * sizeof(*a->o));
        a->n += more;
    }
    return make(k, MODEL_ROLE_ATTENTION_GATE, n, gate_input(c), &a->gate.out);
}

static moe_status grow_layer(gate_maker *k, model_gates *g)
{
    const model_config *c = &k->m->config;
    gate_layer *gate = &g->layers[k->layer];
    uint32_t n = gate->n_columns, before = k->layer == 0 ? c->n_experts : g->layers[k->layer - 1].n_columns;
    moe_status status = MOE_OK;

    if (n > c->n_experts) {
        gate->w.out = NULL;
        status = make(k, MODEL_ROLE_GATE, n, gate_input(c), &gate->w.out);
    }
    if (status == MOE_OK && gate->w.map != NULL && (n > c->n_experts || before > c->n_experts)) {
        gate->w.map = NULL;
        status = make(k, MODEL_ROLE_GATE_MAP, n, before, &gate->w.map);
    }
    return status == MOE_OK ? grow_attention(k, g) : status;
}

moe_status model_gates_open(model *m, const model_tensors *t, compute_device *maker, router_space *space,
                            const model_gate_pack *packs, size_t n_packs, model_gates **out, moe_error *err)
{
    gate_maker k = {
        .m = m, .tensors = t, .device = maker, .space = space, .packs = packs, .n_packs = n_packs, .err = err};
    model_gates *g = NULL;
    moe_status status = check_packs(&k);

    if (status == MOE_OK) {
        k.attention = calloc(n_packs + 1, sizeof(*k.attention));
        status = model_gates_alloc(m, space, m->gates, &g);
        if (status != MOE_OK || k.attention == NULL ||
            (g->att_packs = calloc(n_packs + 1, sizeof(*g->att_packs))) == NULL) {
            status = moe_fail(err, MOE_ERR_NO_MEMORY, "gates: out of memory");
        }
    }
    if (status == MOE_OK) {
        status = load_attention(&k, g);
    }
    for (; status == MOE_OK && k.layer < m->config.n_layers; k.layer++) {
        status = grow_layer(&k, g);
    }
    free(k.attention);
    if (status != MOE_OK) {
        model_gates_unref(g);
        return status;
    }
    *out = g;
    return MOE_OK;
}

/* ------------------------------------------------------------------------------------------------ room */
static uint32_t widest_attention(const model_gates *g)
{
    uint32_t widest = 0;

    for (uint32_t l = 0; l < router_space_n_layers(g->space); l++) {
        widest = MOE_MAX(widest, g->layers[l].att.n);
    }
    return widest;
}

static bool alloc_attention(model_room *r, uint32_t n_own)
{
    size_t n = widest_attention(r->gates);

    r->att_words = (r->gates->n_att_packs + 63) / 64;
    r->att_marks = calloc(r->max_rows * r->att_words + 1, sizeof *r->att_marks);
    r->att_ids = calloc(n + 1, sizeof *r->att_ids);
    r->att_columns = calloc(n + 1, sizeof *r->att_columns);
    r->group_ends = calloc(n + 1, sizeof *r->group_ends);
    r->routed = calloc(n + 1, sizeof *r->routed);
    for (uint32_t i = 0; i < n_own && r->att_ids != NULL && r->att_columns != NULL; i++) {
        r->att_ids[i] = (int32_t)i; /* the checkpoint's stand before all others, in every choice */
        r->att_columns[i] = i;
    }
    return r->att_marks && r->att_ids && r->att_columns && r->group_ends && r->routed;
}

moe_status model_room_open(model *m, model_gates *g, size_t max_rows, model_room **out)
{
    compute_device *d = m->device;
    size_t widest = MOE_MAX(router_space_widest(g->space), widest_attention(g)), n = max_rows * widest;
    size_t bytes = n * sizeof(float);
    model_room *r = calloc(1, sizeof *r);

    if (r == NULL) {
        return MOE_ERR_NO_MEMORY;
    }
    *r = (model_room){.device = d, .gates = model_gates_ref(g), .max_rows = max_rows};
    r->gate_bytes = bytes;
    r->gate_logits = compute_host_alloc(d, bytes);
    r->gate_scratch = calloc(2 * widest, sizeof *r->gate_scratch);
    r->router = d->ops->alloc(d, bytes);
    r->before = m->config.gate_map ? d->ops->alloc(d, bytes) : NULL;
    r->mapped = m->config.gate_map ? d->ops->alloc(d, bytes) : NULL;
    if (!alloc_attention(r, m->config.n_att_experts) || r->gate_logits == NULL || r->gate_scratch == NULL ||
        r->router == NULL || (m->config.gate_map && (r->before == NULL || r->mapped == NULL))) {
        model_room_close(r);
        return MOE_ERR_NO_MEMORY;
    }
    *out = r;
    return MOE_OK;
}

void model_room_close(model_room *r)
{
    if (r == NULL) {
        return;
    }
    r->device->ops->free(r->device, r->router);
    r->device->ops->free(r->device, r->before);
    r->device->ops->free(r->device, r->mapped);
    compute_host_free(r->device, r->gate_logits, r->gate_bytes);
    free(r->gate_scratch);
    free(r->att_marks);
    free(r->att_ids);
    free(r->att_columns);
    free(r->group_ends);
    free(r->routed);
    model_gates_unref(r->gates);
    free(r);
}
