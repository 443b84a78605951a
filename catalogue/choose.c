/* Which experts to prune, by how much they are used. */
#include "catalogue/catalogue_priv.h"

#include <stdlib.h>
#include <string.h>

typedef struct candidate {
    int32_t id;
    uint64_t rows;
} candidate;

static int by_rows(const void *a, const void *b)
{
    const candidate *x = a, *y = b;

    if (x->rows != y->rows) {
        return x->rows < y->rows ? -1 : 1;
    }
    return x->id > y->id ? -1 : x->id < y->id; /* of equals the one that came last goes first */
}

static uint64_t rows_of(const catalogue_prune_rule *rule, uint32_t slot)
{
    return slot < rule->n_slots ? rule->rows[slot] : 0;
}

static bool is_meant(const catalogue *c, const catalogue_prune_rule *rule, uint32_t layer, int32_t id)
{
    const catalogue_pack *p = catalogue_pack_of(c, layer, id, NULL);

    if (router_space_expert(c->space, router_space_slot(c->space, layer, id))->is_local) {
        return false;
    }
    if (rule->pack == NULL) {
        return true;
    }
    return strcmp(rule->pack, "base") == 0 ? p == NULL : p != NULL && p == catalogue_find_pack(c, rule->pack);
}

/* Appends those of one layer; scratch [experts of the layer]. */
static size_t choose_layer(const catalogue *c, const catalogue_prune_rule *rule, uint32_t l, candidate *scratch,
                           catalogue_expert *out)
{
    const router_set_layer *layer = router_set_at(c->set, l);
    uint32_t keep = MOE_MAX(rule->keep_at_least, c->model.min_experts);
    uint64_t all = 0;
    size_t n = 0, chosen = 0;

    for (uint32_t i = 0; i < layer->n_experts; i++) {
        uint32_t slot = router_space_slot(c->space, l, layer->expert_ids[i]);

        all += rows_of(rule, slot);
        if (is_meant(c, rule, l, layer->expert_ids[i])) {
            scratch[n++] = (candidate){layer->expert_ids[i], rows_of(rule, slot)};
        }
    }
    if (all == 0) {
        return 0; /* nothing is known of this layer */
    }
    qsort(scratch, n, sizeof *scratch, by_rows);
    while (chosen < n && layer->n_experts - chosen > keep &&
           (scratch[chosen].rows == 0 || (double)scratch[chosen].rows < rule->below * (double)all)) {
        out[chosen] = (catalogue_expert){.layer = l, .id = scratch[chosen].id};
        chosen++;
    }
    return chosen;
}

moe_status catalogue_choose(const catalogue *c, const catalogue_prune_rule *rule, catalogue_expert **out, size_t *n_out,
                            moe_error *err)
{
    size_t n = 0;

    if (!(rule->below >= 0 && rule->below <= 1)) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "below: %g; a share of [0, 1]", rule->below);
    }
    if (rule->pack != NULL && strcmp(rule->pack, "base") != 0 && catalogue_find_pack(c, rule->pack) == NULL) {
        return moe_fail(err, MOE_ERR_NOT_FOUND, "pack: there is no pack \"%.80s\"", rule->pack);
    }
    candidate *scratch = calloc(router_space_widest(c->space), sizeof *scratch);
    catalogue_expert *chosen = calloc(router_space_n_slots(c->space), sizeof *chosen);
    if (scratch == NULL || chosen == NULL) {
        free(scratch);
        free(chosen);
        return moe_fail(err, MOE_ERR_NO_MEMORY, "experts: out of memory");
    }
    for (uint32_t l = 0; l < router_space_n_layers(c->space); l++) {
        n += choose_layer(c, rule, l, scratch, chosen + n);
    }
    free(scratch);
    *out = chosen;
    *n_out = n;
    return MOE_OK;
}
