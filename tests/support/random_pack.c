#include "tests/support/random_pack.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "compute/math.h"
#include "tests/support/support.h"

static float normal(moe_random *r)
{
    double u = moe_random_unit(r), v = moe_random_unit(r);

    return (float)(sqrt(-2.0 * log(1.0 - u)) * cos(6.283185307179586 * v));
}

/* Values of such a size that a row keeps its own. */
static const checkpoint_tensor *tensor(random_pack *p, const random_pack_options *o, moe_random *r, size_t rows,
                                       size_t columns, float scale)
{
    checkpoint_tensor *t = &p->tensors[p->n_tensors++];
    size_t n = rows * columns, each = o->bf16 ? 2 : 4;
    unsigned char *data = malloc(n * each);

    assert_non_null(data);
    for (size_t i = 0; i < n; i++) {
        float value = scale * normal(r);
        uint16_t half = compute_bf16_from_f32(value);
        memcpy(data + i * each, o->bf16 ? (const void *)&half : (const void *)&value, each);
    }
    *t = (checkpoint_tensor){.name = "random pack",
                             .dtype = o->bf16 ? COMPUTE_BF16 : COMPUTE_F32,
                             .rank = 2,
                             .shape = {rows, columns},
                             .data = data,
                             .bytes = n * each};
    return t;
}

static void fill_router(random_pack *p, const model_config *c, const random_pack_options *o, moe_random *r,
                        model_gate_part *part, uint32_t before)
{
    size_t width = c->gate_kind == MODEL_GATE_LINEAR ? c->d_model : c->gate_width;
    int32_t *ids = calloc(part->n_experts, sizeof *ids), *like = calloc(part->n_experts, sizeof *like);

    assert_true(ids != NULL && like != NULL);
    part->ids = ids;
    for (uint32_t i = 0; i < part->n_experts; i++) {
        like[i] = (int32_t)i;
    }
    part->like = o->replaces ? like : NULL;
    if (o->replaces) {
        return;
    }
    free(like);
    part->router = tensor(p, o, r, part->n_experts, width, 2.0f / sqrtf((float)width));
    if (c->gate_map && part->layer > 0) {
        part->map_rows = tensor(p, o, r, part->n_experts, (size_t)c->n_experts + before, 0.35f);
        part->map_columns = before == 0 ? NULL : tensor(p, o, r, c->n_experts, before, 0.35f);
    }
}

static model_expert_parts expert(random_pack *p, const model_config *c, const random_pack_options *o, moe_random *r)
{
    float in = 1.0f / sqrtf((float)c->d_model), out = 1.0f / sqrtf((float)c->d_ff);

    return (model_expert_parts){.gate = c->ffn == COMPUTE_FFN_SWIGLU ? tensor(p, o, r, c->d_ff, c->d_model, in) : NULL,
                                .up = tensor(p, o, r, c->d_ff, c->d_model, in),
                                .down = tensor(p, o, r, c->d_model, c->d_ff, out)};
}

static void fill_attention(random_pack *p, const model_config *c, const random_pack_options *o, moe_random *r)
{
    size_t heads = (size_t)c->n_heads * c->head_dim, at = 0;
    size_t width = c->gate_kind == MODEL_GATE_LINEAR ? c->d_model : c->gate_width;

    for (size_t i = 0; i < p->gates.n_parts && o->n_attention != NULL && c->n_att_experts > 0 && !o->replaces; i++) {
        model_gate_part *part = &p->parts[i];
        uint32_t n = o->n_attention[part->layer];

        part->n_attention = n;
        part->attention = p->attention + at;
        part->attention_router = n == 0 ? NULL : tensor(p, o, r, n, width, 2.0f / sqrtf((float)width));
        for (uint32_t e = 0; e < n; e++) {
            p->attention[at++] =
                (model_attention_parts){.q = tensor(p, o, r, heads, c->d_model, 1.0f / sqrtf((float)c->d_model)),
                                        .o = tensor(p, o, r, c->d_model, heads, 1.0f / sqrtf((float)heads))};
        }
    }
}

void random_pack_open(random_pack *p, const model_config *c, const random_pack_options *o)
{
    moe_random r;
    size_t n = 0, n_attention = 0, at = 0;

    for (uint32_t l = 0; l < c->n_layers; l++) {
        n += o->n_experts[l];
        n_attention += o->n_attention != NULL ? o->n_attention[l] : 0;
    }
    *p = (random_pack){.seed = o->seed};
    p->parts = calloc(c->n_layers, sizeof *p->parts);
    p->experts = calloc(n, sizeof *p->experts);
    p->attention = calloc(n_attention + 1, sizeof *p->attention);
    p->tensors = calloc(3 * n + 2 * n_attention + 4 * c->n_layers, sizeof *p->tensors);
    assert_true(p->parts != NULL && p->experts != NULL && p->attention != NULL && p->tensors != NULL);
    moe_random_seed(&r, o->seed);
    for (uint32_t l = 0; l < c->n_layers; l++) {
        if (o->n_experts[l] == 0) {
            continue;
        }
        model_gate_part *part = &p->parts[p->gates.n_parts++];
        *part = (model_gate_part){.layer = l, .n_experts = o->n_experts[l]};
        fill_router(p, c, o, &r, part, l == 0 ? 0 : o->n_experts[l - 1]);
        for (uint32_t i = 0; i < part->n_experts; i++) {
            p->experts[at++] = expert(p, c, o, &r);
        }
    }
    p->gates.parts = p->parts;
    fill_attention(p, c, o, &r);
}

void random_pack_close(random_pack *p)
{
    for (size_t i = 0; i < p->gates.n_parts; i++) {
        free((void *)(uintptr_t)p->parts[i].ids);
        free((void *)(uintptr_t)p->parts[i].like);
    }
    for (size_t i = 0; i < p->n_tensors; i++) {
        free((void *)(uintptr_t)p->tensors[i].data);
    }
    free(p->parts);
    free(p->experts);
    free(p->attention);
    free(p->tensors);
    *p = (random_pack){.seed = 0};
}

router_space *random_pack_join(random_pack *p, router_space *before)
{
    router_addition added[256];
    router_space *space;
    size_t n = 0;
    moe_error err;

    for (size_t i = 0; i < p->gates.n_parts; i++) {
        const model_gate_part *part = &p->parts[i];
        const router_space_layer *layer = router_space_at(before, part->layer);
        int32_t *ids = (int32_t *)(uintptr_t)part->ids;
        bool is_new = router_space_place(layer, ids[0]) == ROUTER_NO_SLOT || ids[0] == 0;

        for (uint32_t j = 0; j < part->n_experts; j++) {
            router_addition a = {.layer = part->layer};

            ids[j] = is_new ? layer->ids[layer->n_experts - 1] + 1 + (int32_t)j : ids[j];
            a.id = ids[j];
            (void)snprintf((char *)a.hash, sizeof a.hash, "%llu.%u.%u", (unsigned long long)p->seed, part->layer, j);
            assert_true(n < MOE_COUNT(added));
            added[n++] = a;
        }
    }
    assert_ok(router_space_grow(before, added, n, &space, &err), err);
    return space;
}

const model_expert_parts *random_pack_find(const random_pack *p, uint32_t layer, int32_t expert_id)
{
    size_t at = 0;

    for (size_t i = 0; i < p->gates.n_parts; i++) {
        for (uint32_t j = 0; j < p->parts[i].n_experts; j++, at++) {
            if (p->parts[i].layer == layer && p->parts[i].ids[j] == expert_id) {
                return &p->experts[at];
            }
        }
    }
    return NULL;
}
