/* One output file of a conversion: a safetensors file with the tensors of one input. */
#ifndef CONCLAVE_CHECKPOINT_SHARD_PRIV_H
#define CONCLAVE_CHECKPOINT_SHARD_PRIV_H

#include "checkpoint/torch_file_priv.h"

#define SHARD_PIECE_BYTES ((size_t)4 << 20) /* between two looks at the progress */

/* Bytes that were hashed; false to stop. */
typedef bool (*shard_progress)(void *ctx, size_t bytes);

typedef struct shard_hash shard_hash;            /* SHA-256 in pieces */
MOE_NODISCARD shard_hash *shard_hash_open(void); /* NULL: no memory */
void shard_hash_add(shard_hash *h, const void *bytes, size_t n);
/* Frees h. */
MOE_NODISCARD moe_status shard_hash_finish(shard_hash *h, checkpoint_digest *out);

/* Writes all tensors of f, in full and row-major, to fd, the larger items first, so that every tensor is aligned to its
 * items. digests [f->n_tensors]: of each tensor's bytes as they were read. input is the mapping under f. */
MOE_NODISCARD moe_status shard_write(int fd, const char *name, const checkpoint_file *input, torch_file *f,
                                     shard_progress progress, void *progress_ctx, checkpoint_digest *digests,
                                     moe_error *err);

#endif
