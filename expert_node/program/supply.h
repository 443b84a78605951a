/* supply: the packs of the experts that a node loads: those on its shelf, and those of other nodes. These
 * are read on a thread of the supply's own, into a directory and onto the shelf; until then their experts cannot be loaded, and the
 * loader is told so at once: it goes on with others, and asks again.
 *
 * Threads: what finds an expert (expert_checkpoint.find) is the loader's; all else belongs to the thread that opened the supply. */
#ifndef CONCLAVE_EXPERT_NODE_PROGRAM_SUPPLY_H
#define CONCLAVE_EXPERT_NODE_PROGRAM_SUPPLY_H

#include "cluster/cluster.h"
#include "expert_node/program/shelf.h"
#include "member/fetch.h"

/* Of a pack that is read: chosen, not measured. It only keeps a wrong manifest from filling a disk. */
#define SUPPLY_MAX_BYTES ((uint64_t)1 << 40)

typedef struct supply supply;

typedef struct supply_options {
    expert_checkpoint *experts; /* borrowed, as all here; its find is set */
    shelf *shelf;
    const char *id; /* of this node: it is not asked */
    pack_base base;
    pack_options pack;                    /* key_file */
    const char *dir;                      /* for packs that are read; "": none are */
    const moe_clock *clock;               /* real time passes while it waits */
    uint64_t max_bytes, bytes_per_second; /* of a pack; that are read in a second, 0: no limit */
    wire_hello hello;                     /* a reader's */
    const wire_key *key;
    /* An endpoint that connects only; closed by the supply. On its thread. */
    moe_status (*dial)(void *ctx, transport **out, moe_error *err);
    void *dial_ctx;
    /* A pack has come onto the shelf, and can be read to others, or could not be read: what was refused can be asked for again. On the
     * supply's thread. */
    void (*done)(void *ctx);
    void *done_ctx;
} supply_options;

/* Errors: MOE_ERR_NO_MEMORY, MOE_ERR_UNAVAILABLE (no thread). */
MOE_NODISCARD moe_status supply_open(const supply_options *options, supply **out, moe_error *err);
void supply_close(supply *s); /* after the loader, before shelf and cluster; NULL is fine */
/* What the packs are is known by this member's catalogue; none are before. */
void supply_set_cluster(supply *s, cluster *c);

#endif
