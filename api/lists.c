#include "api/lists_priv.h"

#include <stdlib.h>

static size_t count(const router_set *set)
{
    size_t n = 0;

    for (size_t i = 0; i < router_set_n_layers(set); i++) {
        n += router_set_at(set, i)->n_experts;
    }
    return n;
}

bool expert_lists_init(expert_lists *l, const router_set *set, const router_set *without)
{
    size_t n_layers = set != NULL ? router_set_n_layers(set) : 0, at = 0;

    *l = (expert_lists){.lists = calloc(n_layers + 1, sizeof l->lists[0]),
                        .pointers = calloc(n_layers + 1, sizeof(l->pointers[0])),
                        .ids = calloc((set != NULL ? count(set) : 0) + 1, sizeof l->ids[0])};
    if (l->lists == NULL || l->pointers == NULL || l->ids == NULL) {
        expert_lists_fini(l);
        return false;
    }
    for (uint32_t layer = 0; layer < n_layers; layer++) {
        const router_set_layer *from = router_set_at(set, layer);
        Conclave__V1__ExpertList *to = &l->lists[l->n];

        conclave__v1__expert_list__init(to);
        to->layer = layer;
        to->ids = l->ids + at;
        for (uint32_t i = 0; i < from->n_experts; i++) {
            if (without == NULL || !router_set_layer_has(router_set_at(without, layer), from->expert_ids[i])) {
                to->ids[to->n_ids++] = from->expert_ids[i];
            }
        }
        at += to->n_ids;
        if (to->n_ids > 0) {
            l->pointers[l->n++] = to;
        }
    }
    return true;
}

void expert_lists_fini(expert_lists *l)
{
    free(l->lists);
    free(l->pointers);
    free(l->ids);
    *l = (expert_lists){.n = 0};
}

/* What is asked for is taken in two goes: how many there are, which bounds the memory, and then each. */
static moe_status open_experts(size_t n, size_t limit, catalogue_expert **out, moe_error *err)
{
    if (n > limit) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "experts: %zu ids; there are %zu experts", n, limit);
    }
    *out = calloc(n + 1, sizeof(**out));
    return *out != NULL ? MOE_OK : moe_fail(err, MOE_ERR_NO_MEMORY, "experts: out of memory");
}

static void append(catalogue_expert *to, size_t *n, uint32_t layer, const int32_t *ids, size_t n_ids)
{
    for (size_t e = 0; e < n_ids; e++) {
        to[(*n)++] = (catalogue_expert){.layer = layer, .id = ids[e]};
    }
}

moe_status expert_lists_take(Conclave__V1__ExpertList *const *lists, size_t n_lists, size_t limit,
                             catalogue_expert **out, size_t *n_out, moe_error *err)
{
    size_t n = 0;

    for (size_t i = 0; i < n_lists; i++) {
        n += lists[i]->n_ids;
    }
    moe_status status = open_experts(n, limit, out, err);
    *n_out = 0;
    for (size_t i = 0; i < n_lists && status == MOE_OK; i++) {
        append(*out, n_out, lists[i]->layer, lists[i]->ids, lists[i]->n_ids);
    }
    return status;
}

moe_status layer_experts_take(Conclave__V1__LayerExperts *const *layers, size_t n_layers, size_t limit,
                              catalogue_expert **out, size_t *n_out, moe_error *err)
{
    size_t n = 0;

    for (size_t i = 0; i < n_layers; i++) {
        n += layers[i]->n_ids;
    }
    moe_status status = open_experts(n, limit, out, err);
    *n_out = 0;
    for (size_t i = 0; i < n_layers && status == MOE_OK; i++) {
        append(*out, n_out, layers[i]->layer, layers[i]->ids, layers[i]->n_ids);
    }
    return status;
}
