/* What the files of checkpoint/ share: the parsers work on bytes in memory and know no file system. */
#ifndef CONCLAVE_CHECKPOINT_PRIV_H
#define CONCLAVE_CHECKPOINT_PRIV_H

#include "checkpoint/checkpoint.h"

#define CHECKPOINT_MAX_TENSORS 1000000u
#define CHECKPOINT_MAX_JSON    100000000u /* bytes of a header or an index */
#define CHECKPOINT_MAX_SHARDS  4096u

/* A validated safetensors header. */
typedef struct safetensors_header {
    checkpoint_tensor *tensors; /* owned [n_tensors], name order; data borrowed from the image */
    size_t n_tensors;
    char *names; /* owned: what the names of tensors point into */
} safetensors_header;

MOE_NODISCARD moe_status safetensors_parse(const void *image, size_t bytes, const char *file, safetensors_header *out,
                                           moe_error *err);
void safetensors_fini(safetensors_header *header);

/* A validated model.safetensors.index.json, or its like for files with another suffix. */
typedef struct checkpoint_index_entry {
    const char *tensor, *shard; /* borrowed from json */
} checkpoint_index_entry;

typedef struct checkpoint_index {
    checkpoint_index_entry *entries; /* owned [n_entries], by shard, then tensor */
    size_t n_entries;
    moe_json *json; /* owned */
} checkpoint_index;

MOE_NODISCARD moe_status checkpoint_index_parse(const void *text, size_t bytes, const char *file, const char *suffix,
                                                checkpoint_index *out, moe_error *err);
void checkpoint_index_fini(checkpoint_index *index);
/* Entries of the shard that entries[first] names. */
size_t checkpoint_index_run(const checkpoint_index *index, size_t first);
/* The n entries of one shard and the tensors of that shard are the same set. */
MOE_NODISCARD moe_status checkpoint_index_match(const checkpoint_index_entry *entries, size_t n,
                                                const safetensors_header *header, moe_error *err);

/* One file of the checkpoint. */
typedef struct checkpoint_file {
    char *name;                /* owned, base name */
    const unsigned char *data; /* owned mapping if mapped, else borrowed from the caller */
    size_t bytes;
    bool mapped;
    uint64_t device, inode;
    int64_t mtime_ns;
    char *tensor_names; /* owned */
} checkpoint_file;

struct checkpoint {
    char *dir;              /* owned, absolute; NULL: opened from memory */
    checkpoint_file *files; /* owned [n_files] */
    size_t n_files;
    checkpoint_tensor *tensors; /* owned [n_tensors], name order */
    size_t n_tensors;
    size_t total_bytes;
};

/* MOE_ERR_NOT_FOUND: what is missing, and what the directory holds in its place with the command that helps. */
moe_status checkpoint_missing(int dir_fd, const char *what, moe_error *err);
/* A regular file of the directory, mapped. A pointer that Git LFS left in its place is refused by name. */
MOE_NODISCARD moe_status checkpoint_file_open(int dir_fd, const char *name, checkpoint_file *out, moe_error *err);
void checkpoint_file_close(checkpoint_file *f);
/* checkpoint_forget for bytes of this file. */
void checkpoint_file_forget(const checkpoint_file *f, const void *data, size_t bytes);

/* The file that holds data; NULL when none does. */
const checkpoint_file *checkpoint_file_of(const checkpoint *c, const void *data);

/* ------------------------------------------------------------------------------------------------ manifest cache
 * One file of digests per key under the cache directory; the key names everything the digests depend on. */
MOE_NODISCARD bool manifest_cache_load(const char *cache_dir, const checkpoint_digest *key, checkpoint_digest *digests,
                                       size_t n_digests);
/* Whether it was written. Failing is logged and costs only the next start its time. */
MOE_NODISCARD bool manifest_cache_store(const char *cache_dir, const checkpoint_digest *key,
                                        const checkpoint_digest *digests, size_t n_digests);

#endif
