/* Which experts the checkpoint has that is written: the set's, and what makes all layers equally wide. */
#include "export/export_priv.h"

#include <stdlib.h>
#include <string.h>

#define GATE_WIDTH 8 /* MoE++: units inside of a gate of two layers, per expert */

/* The FFN experts of a layer, while they are chosen; ids are the catalogue's. */
typedef struct choice {
    int32_t *ids; /* owned [capacity] ascending */
    uint32_t n, n_silent;
} choice;

static const pack *pack_by_hash(const exporting *x, const char *hash)
{
    for (size_t i = 0; i < x->o->n_packs; i++) {
        if (strcmp(pack_hash(x->packs[i]), hash) == 0) {
            return x->packs[i];
        }
    }
    return NULL;
}

static bool is_ffn(const exporting *x, int32_t id)
{
    return !model_expert_is_local(&x->model.config, id);
}

static export_column column_of(const exporting *x, uint32_t layer, int32_t id)
{
    uint32_t place = 0;
    const catalogue_pack *p = catalogue_pack_of(x->catalogue, layer, id, &place);
    export_column out = {.base = p == NULL ? id : -1, .routable = true};

    if (p != NULL) {
        out.pack = pack_by_hash(x, p->hash);
        out.place = place;
        if (pack_get_kind(out.pack) == PACK_REPLACE) {
            out.base = pack_layer_of(out.pack, layer)->experts[place].replaces;
        }
    }
    return out;
}

/* ------------------------------------------------------------------------------------------------ choosing */
static void choose_set(const exporting *x, uint32_t layer, choice *c)
{
    const router_set_layer *set = router_set_at(x->set, layer);

    for (uint32_t i = 0; i < set->n_experts; i++) {
        if (is_ffn(x, set->expert_ids[i])) {
            c->ids[c->n++] = set->expert_ids[i];
        }
    }
}

/* Whether one of the chosen has the rows of the router that this one has: both would be picked together. */
static bool has_twin(const exporting *x, uint32_t layer, const choice *c, int32_t id)
{
    export_column own = column_of(x, layer, id);

    for (uint32_t i = 0; i < c->n; i++) {
        if (c->ids[i] == id || (own.base >= 0 && column_of(x, layer, c->ids[i]).base == own.base)) {
            return true;
        }
    }
    return false;
}

static int by_id(const void *a, const void *b)
{
    return *(const int32_t *)a - *(const int32_t *)b;
}

static void take_back(exporting *x, uint32_t layer, choice *c, uint32_t wanted)
{
    const router_space_layer *all = router_space_at(catalogue_space(x->catalogue), layer);

    for (uint32_t i = 0; i < all->n_experts && c->n < wanted; i++) {
        if (is_ffn(x, all->ids[i]) && !has_twin(x, layer, c, all->ids[i])) {
            c->ids[c->n++] = all->ids[i];
            x->result.n_taken_back++;
        }
    }
    qsort(c->ids, c->n, sizeof *c->ids, by_id);
}

/* Every layer gets `wanted`. */
static void make_uniform(exporting *x, uint32_t layer, choice *c, uint32_t wanted)
{
    if (c->n > wanted) {
        x->result.n_left_out += c->n - wanted;
        c->n = wanted;
    }
    if (x->o->uniform > 0 && x->config.gate_kind != MODEL_GATE_GELU) {
        take_back(x, layer, c, wanted);
    }
    c->n_silent = wanted - c->n;
    x->result.n_silent += c->n_silent;
}

/* How many FFN experts each layer gets. */
static moe_status choose_width(exporting *x, const choice *all, uint32_t *out)
{
    const model_config *c = &x->model.config;
    uint32_t wanted = x->o->uniform, n_local = c->n_experts - c->n_ffn_experts;
    /* its width follows from the number of experts, so that what the checkpoint's gate computes needs as many */
    uint32_t least = c->gate_kind == MODEL_GATE_TANH ? c->n_ffn_experts : 1;

    for (uint32_t l = 0; l < c->n_layers && x->o->uniform == 0; l++) {
        wanted = MOE_MAX(wanted, all[l].n);
    }
    if (x->o->uniform > 0 && wanted < least) {
        return moe_fail(
            x->err, MOE_ERR_UNSUPPORTED,
            "uniform %u: this model's gates of two layers are as wide as the checkpoint's %u FFN experts make "
            "them: at least as many are needed",
            wanted, least);
    }
    wanted = MOE_MAX(wanted, least);
    if (wanted + n_local < c->gate.k || wanted + n_local > MODEL_MAX_EXPERTS) {
        return moe_fail(x->err, MOE_ERR_INVALID_ARG,
                        "%u FFN experts in a layer: must be within [%u, %u], a token picks %u of them", wanted,
                        c->gate.k > n_local ? c->gate.k - n_local : 1, MODEL_MAX_EXPERTS - n_local, c->gate.k);
    }
    *out = wanted;
    return MOE_OK;
}

/* ------------------------------------------------------------------------------------------------ columns */
static void set_config(exporting *x, uint32_t n_ffn)
{
    model_config *c = &x->config;
    uint32_t n_local = c->n_experts - c->n_ffn_experts;

    c->n_ffn_experts = n_ffn;
    c->n_experts = n_ffn + n_local;
    if (c->gate.has_zero) {
        c->gate.zero_expert = (int32_t)c->n_experts - 1;
    }
    x->hushed = x->result.n_silent > 0 && c->gate_kind == MODEL_GATE_GELU;
    c->gate_width += x->hushed;
    if (c->gate_kind == MODEL_GATE_TANH) {
        c->gate_width = GATE_WIDTH * c->n_experts;
    }
}

static moe_status fill_layer(exporting *x, uint32_t layer, const choice *c)
{
    const model_config *from = &x->model.config;
    export_column *to = export_columns(x, layer);
    uint32_t n_routable = 0;

    for (uint32_t i = 0; i < x->config.n_ffn_experts; i++) {
        to[i] = i < c->n ? column_of(x, layer, c->ids[i]) : (export_column){.base = -1};
    }
    for (uint32_t i = from->n_ffn_experts; i < from->n_experts; i++) {
        to[i - from->n_ffn_experts + x->config.n_ffn_experts] = (export_column){
            .base = (int32_t)i, .routable = router_set_layer_has(router_set_at(x->set, layer), (int32_t)i)};
    }
    for (uint32_t i = 0; i < x->config.n_experts; i++) {
        x->result.has_set_file |= !to[i].routable;
        n_routable += to[i].routable;
    }
    return n_routable >= from->gate.k
               ? MOE_OK
               : moe_fail(x->err, MOE_ERR_INVALID_ARG, "layer %u: %u experts are left, and a token picks %u", layer,
                          n_routable, from->gate.k);
}

/* ------------------------------------------------------------------------------------------------ attention */
static bool has_expert_of(const exporting *x, const pack *p)
{
    size_t n = (size_t)x->config.n_layers * x->config.n_experts;

    for (size_t i = 0; i < n; i++) {
        if (x->columns[i].pack == p) {
            return true;
        }
    }
    return false;
}

/* Packs in the order in which they were taken in, as a server has them. A checkpoint has as many attention experts in all layers, and
 * silent ones cannot be told from others in every kind of gate. */
static moe_status plan_attention(exporting *x)
{
    uint32_t more = 0;

    x->attention = calloc(x->o->n_packs + 1, sizeof(*x->attention));
    if (x->attention == NULL) {
        return moe_fail(x->err, MOE_ERR_NO_MEMORY, "%zu packs: out of memory", x->o->n_packs);
    }
    for (size_t i = 0; i < x->o->n_packs; i++) {
        if (pack_n_attention(x->packs[i]) > 0 && has_expert_of(x, x->packs[i])) {
            x->attention[x->n_attention++] = x->packs[i];
        }
    }
    for (uint32_t l = 0; l < x->config.n_layers; l++) {
        uint32_t n = 0;

        for (size_t i = 0; i < x->n_attention; i++) {
            n += export_n_attention(x->attention[i], l);
        }
        if (l > 0 && n != more) {
            return moe_fail(
                x->err, MOE_ERR_UNSUPPORTED,
                "layer %u: packs add %u attention experts, and %u in the layers before; a checkpoint of this "
                "family has as many in all",
                l, n, more);
        }
        more = n;
    }
    x->config.n_att_experts += more;
    return MOE_OK;
}

static moe_status plan_layers(exporting *x, choice *all)
{
    uint32_t n_layers = x->config.n_layers, wanted = 0;
    moe_status status;

    for (uint32_t l = 0; l < n_layers; l++) {
        choose_set(x, l, &all[l]);
    }
    status = choose_width(x, all, &wanted);
    if (status != MOE_OK) {
        return status;
    }
    for (uint32_t l = 0; l < n_layers; l++) {
        make_uniform(x, l, &all[l], wanted);
    }
    set_config(x, wanted);
    x->columns = calloc((size_t)n_layers * x->config.n_experts, sizeof *x->columns);
    if (x->columns == NULL) {
        return moe_fail(x->err, MOE_ERR_NO_MEMORY, "%u layers of %u experts: out of memory", n_layers,
                        x->config.n_experts);
    }
    for (uint32_t l = 0; l < n_layers && status == MOE_OK; l++) {
        status = fill_layer(x, l, &all[l]);
    }
    if (status == MOE_OK) {
        status = plan_attention(x);
    }
    x->result.n_experts = wanted;
    x->result.stock_exact = !x->result.has_set_file || x->hushed;
    return status;
}

moe_status export_plan(exporting *x)
{
    uint32_t n_layers = x->model.config.n_layers, widest = router_space_widest(catalogue_space(x->catalogue));
    choice *all = calloc(n_layers, sizeof *all);
    int32_t *ids = calloc((size_t)n_layers * widest, sizeof *ids);
    moe_status status =
        all != NULL && ids != NULL ? MOE_OK : moe_fail(x->err, MOE_ERR_NO_MEMORY, "%u layers: out of memory", n_layers);

    x->config = x->model.config;
    for (uint32_t l = 0; l < n_layers && status == MOE_OK; l++) {
        all[l].ids = ids + (size_t)l * widest;
    }
    if (status == MOE_OK) {
        status = plan_layers(x, all);
    }
    free(ids);
    free(all);
    return status;
}
