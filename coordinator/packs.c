#include "coordinator/packs.h"

#include <stdlib.h>
#include <string.h>

/* An open pack, in the form in which model and nodes take it. The experts of all layers follow each other. */
typedef struct open_pack {
    pack *p;                     /* owned */
    model_gate_part *parts;      /* owned [layers of the pack] */
    model_expert_parts *experts; /* owned [experts of the pack], as all below */
    int32_t *ids, *like;
    bool is_numbered;
} open_pack;

struct packs {
    pack_base base; /* borrowed */
    char *key_file; /* owned; NULL: none */
    open_pack *all; /* owned [n] */
    size_t n;
    model_gate_pack *gates; /* owned [n]: the first n_gates */
    size_t n_gates;
};

moe_status packs_open(const pack_base *base, const char *key_file, packs **out, moe_error *err)
{
    packs *p = calloc(1, sizeof *p);

    if (p == NULL || (key_file != NULL && (p->key_file = strdup(key_file)) == NULL)) {
        free(p);
        return moe_fail(err, MOE_ERR_NO_MEMORY, "packs: out of memory");
    }
    p->base = *base;
    *out = p;
    return MOE_OK;
}

static void fini(open_pack *o)
{
    pack_close(o->p);
    free(o->parts);
    free(o->experts);
    free(o->ids);
    free(o->like);
}

void packs_close(packs *p)
{
    if (p == NULL) {
        return;
    }
    for (size_t i = 0; i < p->n; i++) {
        fini(&p->all[i]);
    }
    free(p->all);
    free(p->gates);
    free(p->key_file);
    free(p);
}

const pack *packs_find(const packs *p, const char *hash)
{
    for (size_t i = 0; i < p->n; i++) {
        if (strcmp(pack_hash(p->all[i].p), hash) == 0) {
            return p->all[i].p;
        }
    }
    return NULL;
}

/* All but the ids. */
static void fill(open_pack *o)
{
    size_t at = 0;

    for (size_t l = 0; l < pack_n_layers(o->p); l++) {
        const pack_layer *from = pack_at(o->p, l);

        o->parts[l] = (model_gate_part){.layer = from->layer,
                                        .n_experts = from->n_experts,
                                        .ids = o->ids + at,
                                        .like = pack_get_kind(o->p) == PACK_REPLACE ? o->like + at : NULL,
                                        .router = from->router,
                                        .map_rows = from->map_rows,
                                        .map_columns = from->map_columns,
                                        .attention_router = from->attention_router,
                                        .attention = from->attention,
                                        .n_attention = from->n_attention};
        for (uint32_t i = 0; i < from->n_experts; i++, at++) {
            const pack_expert *e = &from->experts[i];
            o->experts[at] = (model_expert_parts){.gate = e->gate, .up = e->up, .down = e->down};
            o->like[at] = e->replaces;
        }
    }
}

static moe_status keep(packs *p, pack *fresh)
{
    open_pack o = {.p = fresh};
    size_t n = pack_n_experts(fresh);
    open_pack *all = realloc(p->all, (p->n + 1) * sizeof *all);
    model_gate_pack *gates = realloc(p->gates, (p->n + 1) * sizeof *gates);

    p->all = all != NULL ? all : p->all;
    p->gates = gates != NULL ? gates : p->gates;
    o.parts = calloc(pack_n_layers(fresh), sizeof *o.parts);
    o.experts = calloc(n, sizeof *o.experts);
    o.ids = calloc(n, sizeof *o.ids);
    o.like = calloc(n, sizeof *o.like);
    if (all == NULL || gates == NULL || o.parts == NULL || o.experts == NULL || o.ids == NULL || o.like == NULL) {
        fini(&o);
        return MOE_ERR_NO_MEMORY;
    }
    fill(&o);
    p->all[p->n++] = o;
    return MOE_OK;
}

moe_status packs_take(packs *p, pack *fresh, const pack **out, moe_error *err)
{
    const pack *known = packs_find(p, pack_hash(fresh));

    if (known != NULL) {
        pack_close(fresh);
    } else if (keep(p, fresh) != MOE_OK) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "packs: out of memory");
    }
    *out = known != NULL ? known : fresh;
    return MOE_OK;
}

void packs_forget(packs *p, const catalogue *c)
{
    size_t n = 0;

    for (size_t i = 0; i < p->n; i++) {
        if (catalogue_find_pack(c, pack_hash(p->all[i].p)) == NULL) {
            fini(&p->all[i]);
        } else {
            p->all[n++] = p->all[i];
        }
    }
    p->n_gates = n < p->n ? 0 : p->n_gates; /* until the next packs_number */
    p->n = n;
}

const pack_base *packs_base(const packs *p)
{
    return &p->base;
}

const char *packs_key_file(const packs *p)
{
    return p->key_file;
}

moe_status packs_read(packs *p, const char *dir, const pack **out, moe_error *err)
{
    const pack_options options = {.key_file = p->key_file};
    pack *fresh;
    moe_error why = {""};
    moe_status status = pack_open(dir, &p->base, &options, &fresh, &why);

    if (status != MOE_OK) {
        return moe_fail(err, status, "pack %.300s: %.600s", dir, why.text);
    }
    return packs_take(p, fresh, out, err);
}

/* dir, or root/dir, without links; NULL: there is none. */
static char *join(const char *root, const char *dir)
{
    char *joined = NULL, *path;

    if (asprintf(&joined, "%s/%s", root, dir) < 0) {
        return NULL;
    }
    path = realpath(dir[0] == '/' ? dir : joined, NULL);
    free(joined);
    return path;
}

static bool is_below(const char *root, const char *path)
{
    size_t n = strcmp(root, "/") == 0 ? 0 : strlen(root);

    return strncmp(path, root, n) == 0 && path[n] == '/';
}

static char *locate_in(const char *item, size_t n, const char *dir)
{
    char *name = strndup(item, n), *root = name != NULL ? realpath(name, NULL) : NULL;
    char *path = root != NULL ? join(root, dir) : NULL;

    if (path != NULL && !is_below(root, path)) {
        free(path);
        path = NULL;
    }
    free(root);
    free(name);
    return path;
}

moe_status packs_locate(const char *roots, const char *dir, char **out, moe_error *err)
{
    const char *at = roots, *item;
    char *path = NULL;
    size_t n;

    if (roots == NULL) {
        return moe_fail(err, MOE_ERR_DENIED,
                        "pack: the server takes no directories: it was started without --pack-dir");
    }
    while (path == NULL && moe_list_next(&at, &item, &n)) {
        path = locate_in(item, n, dir);
    }
    if (path == NULL) {
        return moe_fail(err, MOE_ERR_DENIED, "pack: \"%.200s\" is no directory below the server's --pack-dir", dir);
    }
    *out = path;
    return MOE_OK;
}

static moe_status number(open_pack *o, const catalogue_pack *as, moe_error *err)
{
    bool fits = as->n_layers == pack_n_layers(o->p);
    size_t at = 0;

    for (size_t l = 0; l < as->n_layers && fits; l++) {
        fits = as->layers[l].layer == o->parts[l].layer && as->layers[l].n_experts == o->parts[l].n_experts;
        for (uint32_t i = 0; i < as->layers[l].n_experts && fits; i++) {
            o->ids[at++] = as->layers[l].first_id + (int32_t)i;
        }
    }
    o->is_numbered = fits;
    return fits ? MOE_OK
                : moe_fail(err, MOE_ERR_CORRUPT, "pack %s: the catalogue has one of this hash with other experts",
                           pack_name(o->p));
}

moe_status packs_number(packs *p, const catalogue *c, moe_error *err)
{
    moe_status status = MOE_OK;

    p->n_gates = 0;
    for (size_t i = 0; i < p->n && status == MOE_OK; i++) {
        open_pack *o = &p->all[i];
        const catalogue_pack *as = catalogue_find_pack(c, pack_hash(o->p));

        o->is_numbered = false;
        status = as == NULL ? MOE_OK : number(o, as, err);
        if (o->is_numbered) {
            p->gates[p->n_gates++] = (model_gate_pack){o->parts, pack_n_layers(o->p)};
        }
    }
    return status;
}

const model_gate_pack *packs_gates(const packs *p, size_t *n_out)
{
    *n_out = p->n_gates;
    return p->gates;
}

moe_status packs_expert(void *ctx, uint32_t layer, int32_t expert_id, model_expert_parts *out, moe_error *err)
{
    const packs *p = ctx;

    (void)err;
    for (size_t i = 0; i < p->n; i++) {
        const open_pack *o = &p->all[i];
        size_t first = 0;

        for (size_t l = 0; o->is_numbered && l < pack_n_layers(o->p); l++) {
            const model_gate_part *part = &o->parts[l];
            if (part->layer == layer && expert_id >= part->ids[0] &&
                expert_id - part->ids[0] < (int32_t)part->n_experts) {
                *out = o->experts[first + (size_t)(expert_id - part->ids[0])];
                return MOE_OK;
            }
            first += part->n_experts;
        }
    }
    return MOE_OK;
}
