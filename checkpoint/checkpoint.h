/* checkpoint: files of others, never trusted.
 *
 * Nouns:
 *   checkpoint           a directory's safetensors, memory-mapped: tensors by name, immutable, shared by all threads
 *   checkpoint_tensor    one tensor as the file has it; data is borrowed from the checkpoint
 *   checkpoint_logical   one matrix of one layer and expert, whatever the file's layout: a tensor, or a slice of one
 *   checkpoint_manifest  the SHA-256 of each logical tensor, and the fingerprint over all of it
 *
 * Threads: open and close on one thread; all reads from any. */
#ifndef CONCLAVE_CHECKPOINT_H
#define CONCLAVE_CHECKPOINT_H

#include "base/base.h"
#include "compute/compute.h"

#define CHECKPOINT_MAX_RANK 8
#define CHECKPOINT_MAX_NAME 512

typedef struct checkpoint checkpoint;

typedef struct checkpoint_tensor {
    const char *name;    /* borrowed */
    compute_dtype dtype; /* F32, BF16, F16; any other dtype in the file is kept as COMPUTE_DTYPE_OTHER */
    char dtype_name[12]; /* as the file spells it, for messages */
    size_t rank;
    size_t shape[CHECKPOINT_MAX_RANK];
    const unsigned char *data; /* row-major, little-endian, any alignment */
    size_t bytes;
} checkpoint_tensor;

/* Opens DIR/model.safetensors.index.json with its shards, or DIR/model.safetensors. Before any tensor is used these are
 * checked, in the order of the format's rules:
 *   header length; strict UTF-8 JSON without duplicate keys; dtype; shape products
 *   offsets that tile the data exactly
 *   index against shards: each mapped tensor is in its shard, each tensor of a shard is mapped, base names only
 *
 * Files are mapped read-only. Links are followed, but only regular files are opened. A file that shrinks while it is
 * open makes reads of its lost part fault (SIGBUS); a process that serves for long therefore copies the weights (packs
 * them) instead of computing from the mapping.
 * Errors: MOE_ERR_NOT_FOUND (no such files), MOE_ERR_CORRUPT naming file, rule and tensor, MOE_ERR_IO. */
MOE_NODISCARD moe_status checkpoint_open(const char *dir, checkpoint **out, moe_error *err);
/* MOE_ERR_NOT_FOUND: what is missing in DIR ("no config.json"), and what it holds in its place with the command that helps:
 * pickles to convert, files of other programs. */
moe_status checkpoint_explain(const char *dir, const char *what, moe_error *err);
/* One safetensors image in memory (borrowed): the fuzz target and the tests. file names it in messages. */
MOE_NODISCARD moe_status checkpoint_open_memory(const void *image, size_t bytes, const char *file, checkpoint **out,
                                                moe_error *err);
/* A whole directory in memory (borrowed), by the same rules as checkpoint_open: the index, if there is one, and its
 * shards. */
typedef struct checkpoint_image {
    const char *file; /* base name */
    const void *data;
    size_t bytes;
} checkpoint_image;
MOE_NODISCARD moe_status checkpoint_open_images(const checkpoint_image *images, size_t n_images, checkpoint **out,
                                                moe_error *err);
void checkpoint_close(checkpoint *c);

size_t checkpoint_n_tensors(const checkpoint *c);
const checkpoint_tensor *checkpoint_at(const checkpoint *c, size_t i);           /* name order (byte-wise) */
const checkpoint_tensor *checkpoint_find(const checkpoint *c, const char *name); /* NULL when absent */
size_t checkpoint_find_at(const checkpoint *c, const char *name); /* of checkpoint_at; SIZE_MAX: absent */
size_t checkpoint_total_bytes(const checkpoint *c);
/* The bytes of a tensor were copied, or will not be read soon: their pages leave this process. Reading them again is right, only
 * slower. The kernel's cache of the file stays: it is not this process's memory, and other members on this machine and the next
 * start read the same files. Pages shared with a neighbour stay. Any thread. */
void checkpoint_forget(const checkpoint *c, const void *data, size_t bytes);

/* A logical tensor: a whole checkpoint tensor or a contiguous slice of one (fused layouts). */
typedef struct checkpoint_logical {
    char name[CHECKPOINT_MAX_NAME]; /* the canonical per-expert name */
    compute_dtype dtype;
    size_t rank;
    size_t shape[CHECKPOINT_MAX_RANK];
    const unsigned char *data; /* borrowed from the checkpoint */
    size_t bytes;
} checkpoint_logical;

typedef struct checkpoint_digest {
    unsigned char bytes[32];
} checkpoint_digest;

typedef struct checkpoint_manifest {
    checkpoint_digest fingerprint; /* SHA-256 over the canonical manifest text */
    checkpoint_digest *tensors;    /* owned [n_tensors], in the order of the logical tensors given */
    size_t n_tensors;
    bool from_cache, cached; /* it was found in the cache; it was written to it */
} checkpoint_manifest;

/* Hashes all logical tensors on the threads (the caller's is thread 0 of them), and the canonical configuration with
 * them.
 *
 * The text of a manifest, each line ended by LF:
 *   conclave-manifest 1
 *   the configuration text as given
 *   per tensor, in name order: name dtype d0,d1,... sha256hex   ("-" for the dimensions of rank 0)
 *
 * Digests are cached under cache_dir (NULL: that of checkpoint_cache_dir; "": no cache). The key is
 * path, size, mtime and inode of every file of the checkpoint, the configuration text, and which bytes the logical
 * tensors are. A cache that does not fit exactly is ignored and rewritten.
 *
 * progress (may be NULL) is called on the caller's thread with bytes done and total: at most once per hundredth, last
 * with done == total, and not at all when the cache answers.
 * Errors: MOE_ERR_INVALID_ARG (a name twice, empty, or with a space or control character), MOE_ERR_NO_MEMORY. */
typedef void (*checkpoint_progress)(void *ctx, size_t done, size_t total);
MOE_NODISCARD moe_status checkpoint_manifest_build(const checkpoint *c, const char *config_text,
                                                   const checkpoint_logical *tensors, size_t n_tensors,
                                                   moe_threads *threads, const char *cache_dir,
                                                   checkpoint_progress progress, void *progress_ctx,
                                                   checkpoint_manifest *out, moe_error *err);
void checkpoint_manifest_fini(checkpoint_manifest *m);
/* $XDG_CACHE_HOME/conclave, else ~/.cache/conclave; absolute, owned by the caller (free). NULL: there is none. */
char *checkpoint_cache_dir(void);

/* ------------------------------------------------------------------------------------------------ pickled checkpoints
 * Turns DIR/pytorch_model.bin, or the shards of DIR/pytorch_model.bin.index.json, into out_dir/model.safetensors or
 * model-0000x-of-0000y.safetensors with their index, and copies the configuration and the tokenizer's files.
 *
 * A pickle is a program. It is read by a reader that knows only what dictionaries of tensors need, and never run.
 *
 *   outputs    one per input; dtypes and shapes as they are; strided views row-major; tensors that share a storage each
 *              in full
 *   checks     all inputs before anything is written; then the output is read back, and the SHA-256 of every tensor
 *              compared
 *   out_dir    new, or an empty directory; after a failure it is as before
 *   memory     beyond the mapping 4 MiB, and about 300 bytes per tensor
 *
 * An input that shrinks meanwhile makes reads fault (SIGBUS).
 * Errors:
 *   MOE_ERR_NOT_FOUND     no such files
 *   MOE_ERR_EXISTS        out_dir is not empty, or dir holds nothing but safetensors
 *   MOE_ERR_CORRUPT       names file, byte and rule
 *   MOE_ERR_DENIED        a pickle asks for a global that tensors do not need
 *   MOE_ERR_UNSUPPORTED   well-formed, but of another kind
 *   MOE_ERR_DATA_LOSS     the output did not read back as it was written
 *   MOE_ERR_CANCELLED     progress said so
 *   MOE_ERR_IO */
typedef enum { CHECKPOINT_CONVERTING, CHECKPOINT_VERIFYING } checkpoint_convert_phase;
/* Bytes of tensors done in this phase; often called. Returns false to stop. */
typedef bool (*checkpoint_convert_progress)(void *ctx, checkpoint_convert_phase phase, size_t done, size_t total);
typedef struct checkpoint_converted {
    size_t n_tensors, n_shards, n_copied; /* copied: other files */
    size_t bytes;                         /* of all tensors */
} checkpoint_converted;
MOE_NODISCARD moe_status checkpoint_convert(const char *dir, const char *out_dir, checkpoint_convert_progress progress,
                                            void *progress_ctx, checkpoint_converted *out, moe_error *err);

/* Whether values of F32, BF16 or F16 hold no NaN and no infinity; bytes: of all. */
bool checkpoint_is_finite(const void *values, size_t bytes, compute_dtype dtype);

checkpoint_digest checkpoint_sha256(const void *bytes, size_t n);
/* The same, `piece` bytes at a time (at least 1): more(ctx, bytes) is called after each with what it was. False, and *out
 * is not written, when more says to stop. */
bool checkpoint_sha256_in_pieces(const void *bytes, size_t n, size_t piece, bool (*more)(void *ctx, size_t bytes),
                                 void *ctx, checkpoint_digest *out);
void checkpoint_digest_hex(const checkpoint_digest *d, char hex[65]);

#endif
