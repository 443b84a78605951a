/* catalogue: what may be routed to, as one value: the packs that were ever taken in, the sets that have names, the default
 * set and those before it, the change under way, and a log. Pure: no socket, no clock, and no file but catalogue_read_own's.
 *
 * Nouns:
 *   catalogue           the value: immutable, shared (ref-counted). A change makes the next one
 *   catalogue_pack      a pack in words and numbers: what its experts are, not their bytes
 *   catalogue_change    what somebody asks for
 *   catalogue_pending   a change that has begun: its set is known, and is to be made ready before it counts
 *
 * A change has two phases, whoever owns the catalogue: catalogue_begin works out the new set and writes it down as pending;
 * what it needs is made ready (the packs' experts, the router's rows); then catalogue_commit, or catalogue_undo with a
 * reason. There is one at a time.
 *
 * The space follows from the packs in the order in which they were taken in: an expert of a pack has the id after the
 * layer's highest, for good. So a pack that comes back has the ids that it had, and one that is undone keeps them.
 *
 * A pack may be on trial (catalogue_shadow): the default with it lives as another set, with which a share of the requests is scored too.
 *
 * A pack is active while the default set has an expert of it. Words for packs: a name (of the active pack of that name,
 * else the one of that name taken in last), NAME@VERSION, or its hash; "base" is the checkpoint's own experts. Words for sets: a
 * name, an id, "default", or "base", all of the checkpoint's experts.
 *
 * As text it is JSON, docs/catalogue.md: the record of a cluster. All who read it have the same space and sets.
 *
 * Threads: everything const is safe from any thread; ref and unref are atomic. */
#ifndef CONCLAVE_CATALOGUE_H
#define CONCLAVE_CATALOGUE_H

#include "base/base.h"
#include "router/router.h"

#define CATALOGUE_MAX_TEXT     ((size_t)1 << 20) /* bytes of JSON: what etcd takes of one value, with room for others */
#define CATALOGUE_MAX_PACKS    1024              /* ever taken in: their ids are never given back */
#define CATALOGUE_MAX_SETS     64                /* with a name, the default one, and one on trial */
#define CATALOGUE_ALL_REQUESTS 10000             /* shares of requests are parts of so many */
#define CATALOGUE_MAX_NAME     63                /* characters of a set's name, a pack's name and version */
#define CATALOGUE_MAX_EXPERTS  1024              /* of a pack in a layer: as pack/pack.h has it, as the next */
#define CATALOGUE_MAX_PACK     16384             /* experts of a pack */
#define CATALOGUE_MAX_ADDED    65536             /* experts of all packs: a reader copies the space for each */
#define CATALOGUE_MAX_PREVIOUS 16                /* default sets that a rollback can reach */
#define CATALOGUE_MAX_LOG      128               /* the latest entries are kept */
#define CATALOGUE_MAX_WHO      63
#define CATALOGUE_MAX_WHY      255
#define CATALOGUE_MAX_WHAT     287                 /* room for two packs and their versions */
#define CATALOGUE_MAX_NUMBER   ((uint64_t)1 << 53) /* of changes and of milliseconds: what JSON's readers take */

typedef struct catalogue catalogue;
struct pack; /* pack/pack.h */

/* The model that all of it is about. */
typedef struct catalogue_model {
    router_space *space;           /* version 1, of the checkpoint; a catalogue keeps a reference */
    uint32_t min_experts;          /* of a layer of any set: the family's k */
    unsigned char fingerprint[32]; /* of the checkpoint */
    router_set *own; /* what of the space the checkpoint itself routes to (catalogue_read_own), which "base" then is; a
                      * catalogue keeps a reference. NULL: all */
} catalogue_model;

/* Beside a checkpoint's weights, where it routes to some of its experts alone: conclave export makes layers equally wide by
 * others. As catalogue_read_set takes it. */
#define CATALOGUE_OWN_FILE "conclave_set.json"
/* The set of DIR/conclave_set.json, or of all experts where there is no such file; `m` without own. Referenced.
 * Errors: those of moe_file_read and catalogue_read_set, with the file's name. */
MOE_NODISCARD moe_status catalogue_read_own(const catalogue_model *m, const char *dir, router_set **out,
                                            moe_error *err);

typedef struct catalogue_pack_layer {
    uint32_t layer, n_experts;
    const int32_t *replaces; /* [n_experts]; NULL unless is_replace */
    int32_t first_id;        /* its experts have this id and the following ones; 0 before it is taken in */
} catalogue_pack_layer;

typedef struct catalogue_pack {
    char name[CATALOGUE_MAX_NAME + 1], version[CATALOGUE_MAX_NAME + 1];
    char hash[65];   /* 64 hex digits: of its manifest */
    bool is_replace; /* its experts stand in for others, whose rows of the router they have */
    size_t n_layers;
    const catalogue_pack_layer *layers; /* [n_layers] ascending */
    size_t n_experts;
    /* of a catalogue: */
    bool active;
    uint64_t since_ms; /* of the wall clock: when it became active, or no longer is */
    char by[CATALOGUE_MAX_WHO + 1];
} catalogue_pack;

/* What `p` is; *out is owned: catalogue_pack_fini. Errors: MOE_ERR_NO_MEMORY. */
MOE_NODISCARD moe_status catalogue_describe(const struct pack *p, catalogue_pack *out, moe_error *err);
void catalogue_pack_fini(catalogue_pack *p);

/* ------------------------------------------------------------------------------------------------ the value */
/* No packs, no names; the default is all of the checkpoint's experts. Errors: MOE_ERR_INVALID_ARG, MOE_ERR_NO_MEMORY. */
MOE_NODISCARD moe_status catalogue_open(const catalogue_model *m, catalogue **out, moe_error *err);
catalogue *catalogue_ref(catalogue *c);
void catalogue_unref(catalogue *c); /* NULL is fine */

/* Appends it as JSON; at most CATALOGUE_MAX_TEXT bytes, as every change has checked. */
void catalogue_write(const catalogue *c, moe_text *out);
/* Reads what catalogue_write wrote, of anybody. previous: the catalogue that was read before, or NULL: its space and sets
 * are shared where they are the same. Errors: MOE_ERR_CORRUPT and MOE_ERR_INVALID_ARG say what is wrong;
 * MOE_ERR_NO_MEMORY. */
MOE_NODISCARD moe_status catalogue_read(const catalogue_model *m, const char *text, size_t n, catalogue *previous,
                                        catalogue **out, moe_error *err);

const catalogue_model *catalogue_get_model(const catalogue *c);
uint64_t catalogue_get_number(const catalogue *c); /* of the latest change; 0: there was none */
router_space *
catalogue_space(const catalogue *c); /* borrowed, as all that follows; a pending change's packs included */
router_set *catalogue_default(const catalogue *c);

size_t catalogue_n_packs(const catalogue *c);
const catalogue_pack *catalogue_pack_at(const catalogue *c, size_t i); /* in the order in which they were taken in */
/* Whether a word of the list above but "base" is for it. */
bool catalogue_pack_is_called(const catalogue_pack *p, const char *word);
/* By a word of the list above but "base". NULL: there is none. */
const catalogue_pack *catalogue_find_pack(const catalogue *c, const char *word);
/* Whether a set has an expert of a pack that was taken in. */
bool catalogue_uses(const router_set *set, const catalogue_pack *p);
/* Which pack an expert is of; NULL: the checkpoint's, or nobody's. place: its place in the pack's layer; may be NULL. */
const catalogue_pack *catalogue_pack_of(const catalogue *c, uint32_t layer, int32_t expert_id, uint32_t *place);

typedef struct catalogue_named {
    char name[CATALOGUE_MAX_NAME + 1];
    router_set *set;
} catalogue_named;
size_t catalogue_n_named(const catalogue *c);
const catalogue_named *catalogue_named_at(const catalogue *c, size_t i); /* ascending by name */
bool catalogue_name_is_valid(const char *name); /* of a set: 1 to 63 of A-Z a-z 0-9 . - _, no built-in word */

typedef struct catalogue_former {
    router_set *set;
    uint64_t until_ms; /* when it was the default for the last time */
} catalogue_former;
size_t catalogue_n_former(const catalogue *c);
const catalogue_former *catalogue_former_at(const catalogue *c, size_t i); /* 0: what a rollback goes to */

/* The default with a pack that is on trial. When the default changes, so does this one; it is gone when the default has the pack. */
typedef struct catalogue_shadow {
    char pack[65];  /* its hash */
    uint32_t share; /* of CATALOGUE_ALL_REQUESTS: which requests are scored with the set too */
    uint64_t since_ms;
    char by[CATALOGUE_MAX_WHO + 1];
    router_set *set;
} catalogue_shadow;
const catalogue_shadow *catalogue_get_shadow(const catalogue *c); /* NULL: no pack is on trial */
/* The sets that live: the default one, those with names, and one on trial, in this order. Borrowed; returns how many. */
size_t catalogue_live_sets(const catalogue *c, router_set *out[CATALOGUE_MAX_SETS]);

typedef struct catalogue_pending {
    uint64_t number; /* of changes: ascending, never given twice */
    uint64_t begun_ms, deadline_ms;
    char who[CATALOGUE_MAX_WHO + 1], why[CATALOGUE_MAX_WHY + 1],
        what[CATALOGUE_MAX_WHAT + 1];  /* what: "add german 1.2" */
    char name[CATALOGUE_MAX_NAME + 1]; /* the set gets this name; "": it becomes the default */
    bool is_rollback;                  /* the default goes back to the former one */
    char shadow[65];                   /* the set becomes the one on trial, with that pack; "": it does not */
    uint32_t share;                    /* of the requests then */
    router_set *target;
} catalogue_pending;
const catalogue_pending *catalogue_get_pending(const catalogue *c); /* NULL: none */
bool catalogue_pending_is_default(const catalogue_pending *p);      /* what it makes becomes the default set */

typedef struct catalogue_entry {
    uint64_t number, at_ms; /* at_ms: when it was committed or undone */
    char who[CATALOGUE_MAX_WHO + 1], why[CATALOGUE_MAX_WHY + 1], what[CATALOGUE_MAX_WHAT + 1];
    char before[65], after[65];         /* ids of the default set, or of the name's; "": none */
    char undone[CATALOGUE_MAX_WHY + 1]; /* the reason; "": it was done */
} catalogue_entry;
size_t catalogue_n_entries(const catalogue *c);
const catalogue_entry *catalogue_entry_at(const catalogue *c, size_t i); /* 0: the oldest that is kept */

/* ------------------------------------------------------------------------------------------------ sets */
typedef struct catalogue_expert {
    uint32_t layer;
    int32_t id;
} catalogue_expert;

/* A set in the words above; ids are those of the sets that live and of former defaults. Referenced.
 * Errors: MOE_ERR_NOT_FOUND; MOE_ERR_NO_MEMORY. */
MOE_NODISCARD moe_status catalogue_find_set(const catalogue *c, const char *word, router_set **out, moe_error *err);
/* The default with the experts of some packs put in, then those of others left out, then `without`. An expert that a pack replaces leaves
 * with the pack's coming, and is there again with its leaving. Referenced.
 * Errors: MOE_ERR_NOT_FOUND: no such pack; MOE_ERR_INVALID_ARG: a layer would have too few, `without`
 * names what is not in the set; MOE_ERR_NO_MEMORY. */
MOE_NODISCARD moe_status catalogue_resolve(const catalogue *c, const char *const *include, size_t n_include,
                                           const char *const *exclude, size_t n_exclude,
                                           const catalogue_expert *without, size_t n_without, router_set **out,
                                           moe_error *err);
/* A set of the catalogue's space out of JSON: {"layers": ["0-15,64", ...]}, or {"layer": 0, "experts": "0-15,64"} in place of a
 * layer's text; or one set as the API lists it, {"experts": [{"layer": 0, "ids": [0, 64]}, ...]}, also within {"sets": [...]}.
 * Other keys are left alone. Referenced. Errors: MOE_ERR_CORRUPT and MOE_ERR_INVALID_ARG say what is wrong;
 * MOE_ERR_NO_MEMORY. */
MOE_NODISCARD moe_status catalogue_read_set(const catalogue *c, const char *text, size_t n, router_set **out,
                                            moe_error *err);
/* What has to be loaded: the experts of the sets that live, of the pending one, and of those that were the default within the
 * last keep_ms before now_ms. bitmap [router_space_words(space)], by slot. */
void catalogue_wanted(const catalogue *c, uint64_t now_ms, uint64_t keep_ms, uint64_t *bitmap);
/* Whether all of a set are wanted, so that a request may have it. Errors: MOE_ERR_NOT_FOUND names the first that is not;
 * MOE_ERR_NO_MEMORY. */
MOE_NODISCARD moe_status catalogue_check_wanted(const catalogue *c, const router_set *set, uint64_t now_ms,
                                                uint64_t keep_ms, moe_error *err);
/* The expert ids of a layer of a set as text: "0-15,64". */
void catalogue_put_ids(moe_text *out, const router_set_layer *layer);

/* ------------------------------------------------------------------------------------------------ changes */
typedef enum {
    CATALOGUE_ADD, /* default + pack, - what it replaces. pack. is_shadow: that is on trial, and the default stays */
    CATALOGUE_PROMOTE, /* default := the set on trial. word: its pack */
    CATALOGUE_REMOVE, /* default - pack, + what it replaces. word: a pack. Of the one on trial: the trial ends, at once */
    CATALOGUE_UPDATE,   /* remove and add in one. word: the old pack; pack: the new one */
    CATALOGUE_PRUNE,    /* default - experts */
    CATALOGUE_RESTORE,  /* default + experts; none: all of base and of the active packs */
    CATALOGUE_USE,      /* default := the set `word` */
    CATALOGUE_ROLLBACK, /* default := the former one */
    CATALOGUE_DEFINE,   /* the name `word` := default +- packs; where experts names a layer, it has just those */
    CATALOGUE_FORGET,   /* no name `word` any more: done at once */
    CATALOGUE_N_OPS
} catalogue_op;

/* All borrowed for the call. who and why go into the log: cut to their limits, without control characters. */
typedef struct catalogue_change {
    catalogue_op op;
    const char *who, *why;        /* NULL: "" */
    uint64_t now_ms, deadline_ms; /* of the wall clock */
    const catalogue_pack *pack;
    bool is_shadow; /* of ADD */
    uint32_t share; /* then: of CATALOGUE_ALL_REQUESTS; of the pack that is on trial already: another share */
    const char *word;
    const catalogue_expert *experts; /* in any order, each once */
    size_t n_experts;
    const char *const *include, *const *exclude; /* words for packs */
    size_t n_include, n_exclude;
} catalogue_change;

/* The next catalogue, with the change pending in it (FORGET, and REMOVE of what is on trial: done). Errors, naming the field,
 * value and limit:
 *   MOE_ERR_INVALID_ARG   no such layer or expert; a layer would have too few; a name or pack that is none
 *   MOE_ERR_NOT_FOUND     no such pack, set, or former default
 *   MOE_ERR_EXISTS        nothing would change; an active pack of that name
 *   MOE_ERR_BUSY          another change is pending; another pack is on trial; a limit: CATALOGUE_MAX_...
 *   MOE_ERR_NO_MEMORY */
MOE_NODISCARD moe_status catalogue_begin(const catalogue *c, const catalogue_change *change, catalogue **out,
                                         moe_error *err);
/* What is pending is done, or given up for that reason. Errors: MOE_ERR_NOT_FOUND: `number` is not pending;
 * MOE_ERR_NO_MEMORY. */
MOE_NODISCARD moe_status catalogue_commit(const catalogue *c, uint64_t number, uint64_t now_ms, catalogue **out,
                                          moe_error *err);
MOE_NODISCARD moe_status catalogue_undo(const catalogue *c, uint64_t number, uint64_t now_ms, const char *reason,
                                        catalogue **out, moe_error *err);

/* The next catalogue with a pack in its default set: begun and done at once, where nobody else waits for it.
 * Errors: those of catalogue_describe, _begin and _commit. */
MOE_NODISCARD moe_status catalogue_with_pack(const catalogue *c, const struct pack *p, const char *who, uint64_t now_ms,
                                             catalogue **out, moe_error *err);

/* ------------------------------------------------------------------------------------------------ choosing what to prune */
typedef struct catalogue_prune_rule {
    double below; /* of its layer's rows that went to experts of the set: less than that share, or none; [0, 1] */
    uint32_t keep_at_least; /* experts of every layer; min_experts at least */
    const char *pack;       /* only of that pack, or "base"; NULL: of all */
    const uint64_t *rows;   /* [n_slots] by slot of the catalogue's space */
    size_t n_slots;         /* those beyond have none */
} catalogue_prune_rule;
/* The experts of the default set that are used less than the rule says, least used first within a layer; a coordinator's own are never
 * among them. *out is owned (free); none: *n_out is 0. Errors: MOE_ERR_INVALID_ARG, MOE_ERR_NOT_FOUND (the pack),
 * MOE_ERR_NO_MEMORY. */
MOE_NODISCARD moe_status catalogue_choose(const catalogue *c, const catalogue_prune_rule *rule, catalogue_expert **out,
                                          size_t *n_out, moe_error *err);

#endif
