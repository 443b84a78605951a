#include "api/lists_priv.h"

#include <stdlib.h>

static bool has(const router_set_layer *layer, int32_t id)
{
    uint32_t low = 0, high = layer->n_experts;

    while (low < high) {
        uint32_t middle = low + (high - low) / 2;

        if (layer->expert_ids[middle] < id) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < layer->n_experts && layer->expert_ids[low] == id;
}

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
            if (without == NULL || !has(router_set_at(without, layer), from->expert_ids[i])) {
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

moe_status expert_lists_take(Conclave__V1__ExpertList *const *lists, size_t n_lists, size_t limit,
                             catalogue_expert **out, size_t *n_out, moe_error *err)
{
    size_t n = 0, at = 0;

    for (size_t i = 0; i < n_lists; i++) {
        n += lists[i]->n_ids;
    }
    if (n > limit) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "experts: %zu ids; there are %zu experts", n, limit);
    }
    catalogue_expert *experts = calloc(n + 1, sizeof *experts);
    if (experts == NULL) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "experts: out of memory");
    }
    for (size_t i = 0; i < n_lists; i++) {
        for (size_t e = 0; e < lists[i]->n_ids; e++) {
            experts[at++] = (catalogue_expert){.layer = lists[i]->layer, .id = lists[i]->ids[e]};
        }
    }
    *out = experts;
    *n_out = n;
    return MOE_OK;
}
