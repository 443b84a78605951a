/* Private to catalogue/. */
#ifndef CONCLAVE_CATALOGUE_PRIV_H
#define CONCLAVE_CATALOGUE_PRIV_H

#include "catalogue/catalogue.h"

#include <stdatomic.h>

/* A pack's layers, which all versions of a catalogue share. */
typedef struct pack_body {
    atomic_uint refs;
    catalogue_pack_layer *layers; /* owned */
    int32_t *replaces;            /* owned; NULL unless is_replace */
} pack_body;

struct catalogue {
    atomic_uint refs;
    catalogue_model model; /* its space is a reference */
    router_space *space;   /* shared, as all sets below */
    router_set *set;       /* the default */
    uint64_t number;       /* of the latest change */
    catalogue_pack *packs; /* owned [n_packs]; their layers are those of bodies */
    pack_body **bodies;    /* owned [n_packs] of references */
    size_t n_packs, n_named, n_former, n_entries;
    catalogue_named named[CATALOGUE_MAX_SETS];
    catalogue_former former[CATALOGUE_MAX_PREVIOUS];
    catalogue_entry entries[CATALOGUE_MAX_LOG];
    catalogue_shadow shadow; /* set NULL: no pack is on trial */
    bool has_pending;
    catalogue_pending pending;
};

/* A set that is being made. */
typedef struct members {
    uint64_t *bits; /* owned: by slot of `space` */
    const router_space *space;
} members;

/* catalogue.c */
/* The model's space, and no default set yet. NULL: no memory. */
catalogue *catalogue_allocate(const catalogue_model *m, size_t n_packs);
/* What "base" is. Referenced. */
MOE_NODISCARD moe_status catalogue_base(const catalogue *c, router_set **out, moe_error *err);
/* A copy that may be changed until it is handed out, with room for one more pack. NULL: no memory. */
catalogue *catalogue_copy(const catalogue *c);
/* The index of a pack; SIZE_MAX: there is none. */
size_t catalogue_find_hash(const catalogue *c, const char *hash);
/* Takes a pack in, behind all others and with ids of its own. The catalogue has room for it. */
MOE_NODISCARD moe_status catalogue_take_in(catalogue *c, const catalogue_pack *from, moe_error *err);
MOE_NODISCARD moe_status catalogue_check_pack(const catalogue *c, const catalogue_pack *p, moe_error *err);
pack_body *pack_body_ref(pack_body *b);

/* change.c */
size_t catalogue_find_name(const catalogue *c, const char *name); /* its index; SIZE_MAX: there is none */
/* Whether a set may get this name: it has it, or one more has room beside the default set. */
bool catalogue_has_room_for(const catalogue *c, const char *name);

/* A pack comes into a set of the default's, unless another version of it, or that what it replaces is not there, is in the way. */
MOE_NODISCARD moe_status members_add_pack(const catalogue *c, members *m, const catalogue_pack *p, moe_error *err);

/* shadow.c */
/* The pack on trial, if it is called that. NULL: it is not. */
const catalogue_pack *catalogue_shadow_called(const catalogue *c, const char *word);
/* Whether there may be a set on trial: there is one, or one more has room beside the default set. */
bool catalogue_has_room_for_shadow(const catalogue *c);
/* Whether a pack may be put on trial, or get another share. */
MOE_NODISCARD moe_status catalogue_check_shadow(const catalogue *c, const catalogue_pack *p, uint32_t share,
                                                moe_error *err);
void catalogue_put_shadow(catalogue *c, const catalogue_pending *p, uint64_t now_ms);
void catalogue_drop_shadow(catalogue *c);
/* After the default has changed. Errors: MOE_ERR_NO_MEMORY. */
MOE_NODISCARD moe_status catalogue_renew_shadow(catalogue *c, moe_error *err);

/* sets.c */
bool members_init(members *m, const catalogue *c, const router_set *set); /* set NULL: none are in it */
void members_fini(members *m);
MOE_NODISCARD moe_status members_to_set(const members *m, const catalogue *c, router_set **out, moe_error *err);
void members_put_base(members *m, const catalogue *c, bool in); /* but for what packs in it stand in for */
/* And what it replaces the other way. Out: only where some of it is in. */
void members_put_pack(members *m, const catalogue_pack *p, bool in);
/* Experts that are in it leave it. */
MOE_NODISCARD moe_status members_leave_out(members *m, const catalogue *c, const catalogue_expert *experts, size_t n,
                                           moe_error *err);
MOE_NODISCARD moe_status catalogue_slot_of(const catalogue *c, const catalogue_expert *e, uint32_t *out,
                                           moe_error *err);
bool members_have_pack(const members *m, const catalogue_pack *p); /* an expert of it */
MOE_NODISCARD moe_status members_put_packs(members *m, const catalogue *c, const char *const *words, size_t n, bool in,
                                           moe_error *err);

#endif
