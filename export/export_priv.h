/* What the files of export/ share. */
#ifndef CONCLAVE_EXPORT_PRIV_H
#define CONCLAVE_EXPORT_PRIV_H

#include "catalogue/catalogue.h"
#include "checkpoint/output.h"
#include "export/export.h"
#include "model/family/family.h"
#include "pack/pack.h"

/* One expert of a layer of the checkpoint that is written. Neither base nor pack: silent. */
typedef struct export_column {
    int32_t base;     /* the checkpoint's expert whose rows of the router it has; -1: none */
    const pack *pack; /* whose matrices it has; NULL: those of base */
    uint32_t place;   /* in the pack's layer */
    bool routable;
} export_column;

/* A tensor that is written. */
typedef struct export_tensor {
    char *name; /* owned */
    model_role role;
    uint32_t layer, expert; /* expert: of the checkpoint that is written */
    bool all_experts;       /* of the layer, in one tensor */
    uint32_t of;            /* so many roles follow each other in each expert's part */
    compute_dtype dtype;
    size_t rank, shape[4], bytes;
    size_t file;
} export_tensor;

typedef struct exporting {
    const export_options *o;
    pack_model model;
    pack **packs; /* owned [o->n_packs] */
    catalogue *catalogue;
    router_set *set;
    model_config config;    /* of the checkpoint that is written */
    bool hushed;            /* the inside of the gates has one unit more, by which silent experts are never chosen */
    export_column *columns; /* owned [n_layers][config.n_experts] */
    const pack **attention; /* owned [n_attention]: whose attention experts stand behind the checkpoint's, in order */
    size_t n_attention;
    export_tensor *tensors; /* owned [n_tensors], in the order in which they are written */
    size_t n_tensors, n_files, done_bytes;
    output_dir out;
    export_result result;
    moe_error *err;
} exporting;

static inline export_column *export_columns(const exporting *x, uint32_t layer)
{
    return x->columns + (size_t)layer * x->config.n_experts;
}
/* Attention experts that a pack adds to a layer. */
static inline uint32_t export_n_attention(const pack *p, uint32_t layer)
{
    const pack_layer *l = pack_layer_of(p, layer);

    return l != NULL ? l->n_attention : 0;
}
static inline bool export_is_silent(const export_column *c)
{
    return c->base < 0 && c->pack == NULL;
}

/* plan.c: which experts there are: config, columns, attention, hushed, the counts of result. */
MOE_NODISCARD moe_status export_plan(exporting *x);
/* tensors.c: names, shapes, dtypes and files. */
MOE_NODISCARD moe_status export_list(exporting *x);
/* write.c: one file of the list, without its header. */
MOE_NODISCARD moe_status export_write_tensor(exporting *x, int fd, const char *file, const export_tensor *t);
/* config.c: config.json with the new counts; the file that names the routable experts. */
MOE_NODISCARD moe_status export_write_config(exporting *x);
MOE_NODISCARD moe_status export_write_set(exporting *x);

#endif
