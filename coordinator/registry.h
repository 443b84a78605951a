/* registry: the catalogue of a coordinator that has its experts in its own process, and the changes to it: one after the other, on a
 * thread of its own, each whole or undone. Fills the table by which the API sees packs and sets and asks for changes.
 *
 * A change is begun (it is pending in the catalogue that others see), what it needs is made ready, the engine takes it between
 * two steps, and it is committed. Whatever fails, the catalogue's log says why and the engine goes on as before. Experts that
 * nobody needs any more are unloaded keep_unused_ms after the change that made them so.
 *
 * Threads: open and close on the program's; the table's functions on any. */
#ifndef CONCLAVE_COORDINATOR_REGISTRY_H
#define CONCLAVE_COORDINATOR_REGISTRY_H

#include "coordinator/ledger.h"
#include "coordinator/embedded.h"
#include "coordinator/packs.h"
#include "engine/engine.h"

typedef struct registry registry;

typedef struct registry_options {
    engine *engine;         /* borrowed; its current set is the first catalogue's default */
    catalogue *first;       /* what it begins with */
    const char *no_changes; /* why there can be none, static storage: they are MOE_ERR_UNSUPPORTED. NULL: there can */
    /* How the engine takes experts and a set: embedded_change. NULL: it takes sets alone, and packs are refused. */
    moe_status (*change)(void *ctx, engine *e, const embedded_changes *changes, moe_error *err);
    void *change_ctx;
    packs *packs;          /* borrowed: the registry's thread alone opens more */
    const char *pack_dirs; /* borrowed: as roots of packs_locate, for directories that clients name */
    uint64_t keep_unused_ms;
} registry_options;

/* Errors: MOE_ERR_NO_MEMORY. */
MOE_NODISCARD moe_status registry_open(const registry_options *options, registry **out, moe_error *err);
/* What is under way ends first, what waits is MOE_ERR_UNAVAILABLE. Comes after the API has closed and before engine_close.
 * NULL is fine. */
void registry_close(registry *r);
const api_catalogue *registry_table(registry *r);

#endif
