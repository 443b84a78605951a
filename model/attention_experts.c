/* Attention experts that packs add. They stay in the coordinators, so they have no owners and no place in the expert space: a pack's
 * are routed to by whoever's set has one of its experts. */
#include "model/model_priv.h"

#include <stdlib.h>
#include <string.h>

/* ------------------------------------------------------------------------------------------------ a pack's */
static void pack_close(compute_device *d, attention_pack *p)
{
    for (uint32_t i = 0; i < p->n; i++) {
        d->ops->matrix_close(d, p->q != NULL ? p->q[i] : NULL);
        d->ops->matrix_close(d, p->o != NULL ? p->o[i] : NULL);
    }
    free(p->q);
    free(p->o);
    free(p->ends);
    free(p->experts);
    free(p);
}

static bool pack_alloc(const model *m, const model_gate_pack *from, attention_pack *p)
{
    for (size_t i = 0; i < from->n_parts; i++) {
        p->n += from->parts[i].n_attention;
        p->n_experts += from->parts[i].n_experts;
    }
    p->q = calloc(p->n, sizeof(*p->q));
    p->o = calloc(p->n, sizeof(*p->o));
    p->ends = calloc(m->config.n_layers, sizeof *p->ends);
    p->experts = calloc(p->n_experts, sizeof *p->experts);
    return p->q != NULL && p->o != NULL && p->ends != NULL && p->experts != NULL;
}

static void list_experts(const model_gate_pack *from, attention_pack *p)
{
    size_t at = 0;

    for (size_t i = 0; i < from->n_parts; i++) {
        for (uint32_t j = 0; j < from->parts[i].n_experts; j++) {
            p->experts[at++] = (router_expert){.layer = from->parts[i].layer, .id = from->parts[i].ids[j]};
        }
    }
}

static moe_status open_matrix(const model *m, compute_device *maker, const checkpoint_tensor *t, compute_matrix **out)
{
    const compute_weight w = {.data = t->data, .dtype = t->dtype, .n_out = t->shape[0], .n_in = t->shape[1]};

    return maker->ops->matrix_open(maker, &w, m->layout, out);
}

static moe_status load(const model *m, compute_device *maker, const model_gate_pack *from, attention_pack *p)
{
    moe_status status = MOE_OK;
    uint32_t at = 0;
    size_t part = 0;

    for (uint32_t layer = 0; layer < m->config.n_layers; layer++) {
        const model_gate_part *here =
            part < from->n_parts && from->parts[part].layer == layer ? &from->parts[part++] : NULL;

        for (uint32_t i = 0; here != NULL && i < here->n_attention && status == MOE_OK; i++, at++) {
            status = open_matrix(m, maker, here->attention[i].q, &p->q[at]);
            if (status == MOE_OK) {
                status = open_matrix(m, maker, here->attention[i].o, &p->o[at]);
            }
        }
        p->ends[layer] = at;
    }
    return status;
}

/* The kernel promises memory that it has not; whoever runs out of it is killed. */
static moe_status check_memory(const model *m, uint32_t n, moe_error *err)
{
    const model_config *c = &m->config;
    size_t each = 2 * (size_t)c->n_heads * c->head_dim * c->d_model;
    size_t needed = n * each * compute_dtype_bytes(compute_class_dtype(m->device->numeric_class));
    size_t available = m->layout == COMPUTE_MAPPED ? SIZE_MAX : moe_memory_available();
    char more[MOE_SIZE_TEXT], free_now[MOE_SIZE_TEXT];

    return needed <= available ? MOE_OK
                               : moe_fail(err, MOE_ERR_BUSY, "%u attention experts take %s, and %s are free", n,
                                          moe_size_text(needed, more), moe_size_text(available, free_now));
}

static moe_status load_checked(const model *m, compute_device *maker, const model_gate_pack *from, attention_pack *p,
                               moe_error *err)
{
    moe_status status = check_memory(m, p->n, err);

    if (status != MOE_OK) {
        return status;
    }
    status = load(m, maker, from, p);
    return status == MOE_OK ? MOE_OK : moe_fail(err, status, "%u attention experts: %s", p->n, moe_status_text(status));
}

static attention_pack *find(model *m, const unsigned char hash[32])
{
    attention_pack *p;

    pthread_mutex_lock(&m->lock);
    for (p = m->att_packs; p != NULL && memcmp(p->hash, hash, sizeof p->hash) != 0; p = p->next) {
    }
    if (p != NULL) {
        p->refs++;
    }
    pthread_mutex_unlock(&m->lock);
    return p;
}

moe_status model_attention_pack_open(model *m, compute_device *maker, const router_space *space,
                                     const model_gate_pack *from, attention_pack **out, moe_error *err)
{
    uint32_t slot = router_space_slot(space, from->parts[0].layer, from->parts[0].ids[0]);
    const unsigned char *hash = router_space_hash(space, slot);
    attention_pack *p = find(m, hash);

    if (p == NULL) {
        p = calloc(1, sizeof *p);
        moe_status status = p != NULL && pack_alloc(m, from, p)
                                ? load_checked(m, maker, from, p, err)
                                : moe_fail(err, MOE_ERR_NO_MEMORY, "attention experts: out of memory");
        if (status != MOE_OK) {
            if (p != NULL) {
                pack_close(m->device, p);
            }
            return status;
        }
        list_experts(from, p);
        p->slot = slot;
        p->refs = 1;
        memcpy(p->hash, hash, sizeof p->hash);
        pthread_mutex_lock(&m->lock);
        p->next = m->att_packs;
        m->att_packs = p;
        pthread_mutex_unlock(&m->lock);
    }
    *out = p;
    return MOE_OK;
}

void model_attention_pack_unref(model *m, attention_pack *p)
{
    attention_pack **at = &m->att_packs;
    bool is_last;

    if (p == NULL) {
        return;
    }
    pthread_mutex_lock(&m->lock);
    is_last = --p->refs == 0;
    while (is_last && *at != p) {
        at = &(*at)->next;
    }
    if (is_last) {
        *at = p->next;
    }
    pthread_mutex_unlock(&m->lock);
    if (is_last) {
        pack_close(m->device, p);
    }
}

uint32_t model_attention_pack_count(const attention_pack *p, uint32_t layer, uint32_t *first_out)
{
    *first_out = layer == 0 ? 0 : p->ends[layer - 1];
    return p->ends[layer] - *first_out;
}

/* ------------------------------------------------------------------------------------------------ a step's */
static bool has_one_of(const router_set *set, const attention_pack *p)
{
    for (size_t i = 0; i < p->n_experts; i++) {
        if (router_set_layer_has(router_set_at(set, p->experts[i].layer), p->experts[i].id)) {
            return true;
        }
    }
    return false;
}

static uint64_t *marks_of(const model_batch *b, size_t row)
{
    return b->room->att_marks + row * b->room->att_words;
}

void model_attention_mark(model_batch *b)
{
    const model_gates *g = b->room->gates;
    size_t bytes = b->room->att_words * sizeof(uint64_t);

    for (size_t row = 0; row < b->n_rows && bytes > 0; row++) {
        uint64_t *marks = marks_of(b, row);

        if (row > 0 && b->rows[row].set == b->rows[row - 1].set) {
            memcpy(marks, marks_of(b, row - 1), bytes);
            continue;
        }
        memset(marks, 0, bytes);
        for (uint32_t p = 0; p < g->n_att_packs; p++) {
            if (has_one_of(b->rows[row].set, g->att_packs[p])) {
                router_bit_set(marks, p);
            }
        }
    }
}

void model_attention_choose(model_batch *b, uint32_t layer, size_t row, router_set_layer *choice)
{
    const model_room *r = b->room;
    uint32_t n = b->m->config.n_att_experts, next = n;

    if (row > 0 && memcmp(marks_of(b, row), marks_of(b, row - 1), r->att_words * sizeof(uint64_t)) == 0) {
        return;
    }
    for (uint32_t p = 0; p < r->gates->n_att_packs; p++) {
        uint32_t first, end = next + model_attention_pack_count(r->gates->att_packs[p], layer, &first);

        for (; next < end; next++) {
            if (router_bit(marks_of(b, row), p)) {
                r->att_ids[n] = (int32_t)next;
                r->att_columns[n++] = next;
            }
        }
    }
    *choice = (router_set_layer){.n_experts = n, .expert_ids = r->att_ids, .columns = r->att_columns};
}
