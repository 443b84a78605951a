/* packs: the packs that are open in this process, each once, and what model and nodes are given of them when the catalogue has
 * given their experts numbers.
 *
 * Threads: one at a time: whoever changes experts. What packs_gates and packs_expert give is good until the next packs_number. */
#ifndef CONCLAVE_COORDINATOR_PACKS_H
#define CONCLAVE_COORDINATOR_PACKS_H

#include "catalogue/catalogue.h"
#include "model/model.h"
#include "pack/pack.h"

typedef struct packs packs;

/* base: what it points to is borrowed as long as packs are opened. key_file (copied): of pack_options; NULL: none. */
MOE_NODISCARD moe_status packs_open(const pack_base *base, const char *key_file, packs **out, moe_error *err);
void packs_close(packs *p); /* NULL is fine */

/* Opens DIR and checks all of it; a pack that is open already (by its hash) is the same one. *out is borrowed from p.
 * Errors: those of pack_open, with the directory's name. */
MOE_NODISCARD moe_status packs_read(packs *p, const char *dir, const pack **out, moe_error *err);
/* The same of a pack that was opened, which is p's from now on, also when it fails. Errors: MOE_ERR_NO_MEMORY. */
MOE_NODISCARD moe_status packs_take(packs *p, pack *fresh, const pack **out, moe_error *err);
const pack_base *packs_base(const packs *p);              /* what it was opened with, as the next */
const char *packs_key_file(const packs *p);               /* NULL: none */
const pack *packs_find(const packs *p, const char *hash); /* NULL: it is not open */

/* Closes those that the catalogue does not know, which nobody has anything of: they were read for a look, or in vain. */
void packs_forget(packs *p, const catalogue *c);

/* Where a directory is that a client names, if it is below one of `roots` (directories with commas; NULL: none), wherever links
 * lead; a relative one is looked for in each of them. *out is the caller's to free. What lies elsewhere is not told from what is
 * not there: nobody learns of the server's disks.
 * Errors: MOE_ERR_DENIED. */
MOE_NODISCARD moe_status packs_locate(const char *roots, const char *dir, char **out, moe_error *err);

/* The experts have the ids that the catalogue says; those of packs that it has not have none. Errors: MOE_ERR_CORRUPT: the
 * catalogue has another pack of that hash; MOE_ERR_NO_MEMORY. */
MOE_NODISCARD moe_status packs_number(packs *p, const catalogue *c, moe_error *err);
const model_gate_pack *packs_gates(const packs *p, size_t *n_out);
/* As expert_checkpoint.find: p is a packs. It never fails. */
moe_status packs_expert(void *p, uint32_t layer, int32_t expert_id, model_expert_parts *out, moe_error *err);

#endif
