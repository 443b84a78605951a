/* A directory that is filled in one go: everything is written and checked in a folder inside of it, and moved up only
 * when all of it is there. What writes checkpoints shares it. */
#ifndef CONCLAVE_CHECKPOINT_OUTPUT_H
#define CONCLAVE_CHECKPOINT_OUTPUT_H

#include "checkpoint/checkpoint.h"

#define OUTPUT_INDEX_FILE  "model.safetensors.index.json"
#define OUTPUT_SINGLE_FILE "model.safetensors"

typedef struct output_dir {
    char *path;   /* owned; the directory */
    char *work;   /* owned; the folder inside of it; NULL: there is none */
    bool made;    /* the directory did not exist */
    char **files; /* owned [n_files]; base names, in the order of their creation */
    size_t n_files;
} output_dir;

/* Makes path, or takes it if it is an empty directory. Errors: MOE_ERR_EXISTS, MOE_ERR_IO. */
MOE_NODISCARD moe_status output_open(const char *path, output_dir *out, moe_error *err);
/* Whether so many bytes fit onto its disk now. Errors: MOE_ERR_IO names both numbers. */
MOE_NODISCARD moe_status output_check_room(const output_dir *o, size_t bytes, moe_error *err);
/* A new file for writing. name is a base name; it is not kept. */
MOE_NODISCARD moe_status output_create(output_dir *o, const char *name, int *fd_out, moe_error *err);
MOE_NODISCARD moe_status output_write(int fd, const char *name, const void *bytes, size_t n, moe_error *err);
/* Closes fd, always. The bytes are on the disk, and no longer in memory: reading them again reads the disk. */
MOE_NODISCARD moe_status output_finish(int fd, const char *name, moe_error *err);
/* The four above for a file whose bytes are there. */
MOE_NODISCARD moe_status output_write_file(output_dir *o, const char *name, const void *bytes, size_t n,
                                           moe_error *err);
/* Copies what a model has beside its weights from another directory: configuration, tokenizer, chat template; what is not
 * there is left out, and `except` too (NULL: nothing). */
MOE_NODISCARD moe_status output_copy_companions(output_dir *o, int dir_fd, const char *except, size_t *n_copied,
                                                moe_error *err);
/* All files move up, in the order of their creation; the folder goes. */
MOE_NODISCARD moe_status output_publish(output_dir *o, moe_error *err);
/* Removes what was not published, and the directory if it was made here. Nothing happens after output_publish. */
void output_close(output_dir *o);

/* ------------------------------------------------------------------------------------------------ safetensors */
typedef struct output_tensor {
    const char *name, *dtype; /* dtype as safetensors spells it */
    const size_t *shape;      /* [rank] */
    size_t rank, bytes;
} output_tensor;

/* What stands before the data of a file: the length and the JSON text of its tensors, in the order in which their data follow;
 * padded so that the data begin aligned. *out [*n_out] is the caller's to free. Errors: MOE_ERR_NO_MEMORY, also of a text that
 * no reader would take. */
MOE_NODISCARD moe_status output_header(const output_tensor *tensors, size_t n, char **out, size_t *n_out);
MOE_NODISCARD moe_status output_write_header(int fd, const char *name, const output_tensor *tensors, size_t n,
                                             moe_error *err);
/* The name of shard i of n; out [64]. */
void output_shard_name(size_t i, size_t n, char out[64]);

/* In which file a tensor is. */
typedef struct output_place {
    const char *tensor, *file;
} output_place;
/* OUTPUT_INDEX_FILE. total_bytes: of all tensors. */
MOE_NODISCARD moe_status output_write_index(output_dir *o, const output_place *places, size_t n, size_t total_bytes,
                                            moe_error *err);

#endif
