#include "api/expert_counts_priv.h"

#include <stdlib.h>

moe_status expert_counts_init(expert_counts *c, engine *e)
{
    const engine_info *info = engine_get_info(e);
    const model_config *m = info->config;
    router_space *space = engine_current_space(e);
    size_t n_rows = router_space_n_slots(space), n_picks = (size_t)m->n_layers * (m->gate.k + 1);
    uint64_t *all = calloc(n_rows + n_picks, sizeof(all[0]));
    router_expert_use *use = calloc(n_rows + 1, sizeof(use[0]));

    if (all == NULL || use == NULL) {
        free(all);
        free(use);
        router_space_unref(space);
        return MOE_ERR_NO_MEMORY;
    }
    *c = (expert_counts){.info = info, .space = space, .rows = all, .use = use, .ffn_picks = all + n_rows};
    c->tokens = engine_get_expert_use(e, use, n_rows);
    for (size_t i = 0; i < n_rows; i++) {
        all[i] = use[i].rows;
    }
    engine_get_ffn_picks(e, all + n_rows, n_picks);
    return MOE_OK;
}

void expert_counts_fini(expert_counts *c)
{
    router_space_unref(c->space);
    free(c->rows);
    free(c->use);
}

layer_counts expert_counts_of(const expert_counts *c, uint32_t layer)
{
    const model_config *m = c->info->config;
    const router_space_layer *experts = router_space_at(c->space, layer);
    size_t row_bytes = m->d_model * compute_dtype_bytes(compute_class_dtype(c->info->numeric_class));
    layer_counts out = {.ffn_picks = c->ffn_picks + (size_t)layer * (m->gate.k + 1)};

    for (uint32_t i = 0; i < experts->n_experts; i++) {
        out.picks[model_expert_kind_of(m, experts->ids[i])] += c->rows[experts->slots[i]];
    }
    out.bytes_not_sent = out.ffn_picks[0];
    for (size_t kind = MODEL_EXPERT_FFN + 1; kind < MODEL_N_EXPERT_KINDS; kind++) {
        out.bytes_not_sent += out.picks[kind];
    }
    out.bytes_not_sent *= row_bytes;
    return out;
}
