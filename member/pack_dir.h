/* pack_dir: the directory in which a member keeps packs that it has read from nodes (member/fetch.h), and what goes from it.
 *
 *   a pack that the caller's catalogue names stays
 *   another goes when it was last opened PACK_DIR_KEEP_S before the one that was opened last of all; so a directory that nobody uses
 *   stays as it is
 *   and, the longest unused first, while all that lies there takes more than PACK_DIR_MAX_BYTES
 *
 * A pack that another process has open may go: its files are mapped, and are there until it closes them. What somebody reads at
 * this moment is left alone.
 *
 * Threads: any; files are what is shared. */
#ifndef CONCLAVE_MEMBER_PACK_DIR_H
#define CONCLAVE_MEMBER_PACK_DIR_H

#include "base/base.h"

/* Chosen, not measured. KEEP: a pack that was taken out and comes back within a month is not read again. MAX: some dozens of packs of
 * the size of the models that this serves; a smaller disk is full before, and then a read fails with that reason. */
#define PACK_DIR_KEEP_S    (30 * 86400)
#define PACK_DIR_MAX_BYTES ((uint64_t)64 << 30)

#define PACK_DIR_MANIFEST  "pack.json"
#define PACK_DIR_SIGNATURE "pack.sig"
#define PACK_DIR_TENSORS   "model.safetensors"

/* A directory of one pack that this program made: it has no other files than these three. */
void pack_dir_remove(const char *pack);
/* It is being opened. */
void pack_dir_touch(const char *pack);
/* Takes the lock LOCK_EX of the file, which is made if it is not there. Waits for nobody: -1 with errno EWOULDBLOCK when another has
 * it. Closing it gives it back. */
int pack_dir_lock(const char *path);

/* hash: 64 hex digits. max_bytes: PACK_DIR_MAX_BYTES. Returns how many packs have gone. */
size_t pack_dir_tidy(const char *dir, uint64_t max_bytes, bool (*is_named)(void *ctx, const char *hash), void *ctx);

#endif
