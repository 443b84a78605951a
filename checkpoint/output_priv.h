/* A directory that is filled in one go: everything is written and checked in a folder inside of it, and moved up only
 * when all of it is there. */
#ifndef CONCLAVE_CHECKPOINT_OUTPUT_PRIV_H
#define CONCLAVE_CHECKPOINT_OUTPUT_PRIV_H

#include "checkpoint/checkpoint_priv.h"

typedef struct output_dir {
    char *path;   /* owned; the directory */
    char *work;   /* owned; the folder inside of it; NULL: there is none */
    bool made;    /* the directory did not exist */
    char **files; /* owned [n_files]; base names, in the order of their creation */
    size_t n_files;
} output_dir;

/* Makes path, or takes it if it is an empty directory. Errors: MOE_ERR_EXISTS, MOE_ERR_IO. */
MOE_NODISCARD moe_status output_open(const char *path, output_dir *out, moe_error *err);
/* A new file for writing. name is a base name; it is not kept. */
MOE_NODISCARD moe_status output_create(output_dir *o, const char *name, int *fd_out, moe_error *err);
MOE_NODISCARD moe_status output_write(int fd, const char *name, const void *bytes, size_t n, moe_error *err);
/* Closes fd, always. The bytes are on the disk, and no longer in memory: reading them again reads the disk. */
MOE_NODISCARD moe_status output_finish(int fd, const char *name, moe_error *err);
/* All files move up, in the order of their creation; the folder goes. */
MOE_NODISCARD moe_status output_publish(output_dir *o, moe_error *err);
/* Removes what was not published, and the directory if it was made here. Nothing happens after output_publish. */
void output_close(output_dir *o);

#endif
