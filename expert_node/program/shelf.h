/* shelf: the packs that a node has on its disks, checked whole, and reads to others (docs/wire.md, FETCH).
 *
 * Threads: packs are added by one thread at a time, and found and read by others meanwhile: what is there stays. */
#ifndef CONCLAVE_EXPERT_NODE_PROGRAM_SHELF_H
#define CONCLAVE_EXPERT_NODE_PROGRAM_SHELF_H

#include <stdatomic.h>

#include "expert_node/expert_node.h"
#include "pack/pack.h"

#define SHELF_MAX_PACKS 64 /* as many as a catalogue can have at a time */

typedef struct shelf {
    pack *packs[SHELF_MAX_PACKS]; /* owned */
    unsigned char hashes[SHELF_MAX_PACKS][32];
    atomic_size_t n;
    unsigned n_later; /* the node's: times that a piece was not there, one after the other */
} shelf;

/* Takes the pack, which is closed with the shelf. Errors: MOE_ERR_EXISTS (it is there; the pack is closed), MOE_ERR_BUSY. */
MOE_NODISCARD moe_status shelf_add(shelf *s, pack *p, moe_error *err);
/* Opens the packs of a list of directories with commas (--pack). Errors: those of pack_open, of shelf_add; names the directory. */
MOE_NODISCARD moe_status shelf_open_all(shelf *s, const char *dirs, const pack_base *base, const pack_options *options,
                                        moe_error *err);
void shelf_fini(shelf *s);
const pack *shelf_find(const shelf *s, const unsigned char hash[32]); /* NULL: it is not there */
/* What it has, for expert_node_options. A piece that is not in memory is asked of the kernel and given later: the node's thread
 * waits for no disk, but for one that does not come. */
expert_packs shelf_reads(shelf *s);

#endif
