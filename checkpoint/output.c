#include "checkpoint/output_priv.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define WORK_FOLDER ".converting-XXXXXX"
#define MAX_FILES   (CHECKPOINT_MAX_SHARDS + 64u)

/* dir/name, owned by the caller; NULL: no memory. */
static char *join(const char *dir, const char *name)
{
    moe_text path;

    moe_text_init(&path, 8192);
    moe_text_printf(&path, "%s/%s", dir, name);
    if (path.failed) {
        moe_text_fini(&path);
        return NULL;
    }
    return path.data;
}

static bool is_empty_dir(const char *path)
{
    DIR *dir = opendir(path);
    const struct dirent *e;
    bool empty = dir != NULL;

    while (empty && (e = readdir(dir)) != NULL) {
        empty = strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0;
    }
    if (dir != NULL) {
        (void)closedir(dir);
    }
    return empty;
}

moe_status output_open(const char *path, output_dir *out, moe_error *err)
{
    output_dir o = {.path = strdup(path), .files = calloc(MAX_FILES, sizeof(*o.files))};

    if (o.path == NULL || o.files == NULL) {
        output_close(&o);
        return moe_fail(err, MOE_ERR_NO_MEMORY, "%.200s: no memory for its files", path);
    }
    o.made = mkdir(path, 0777) == 0;
    if (!o.made) {
        const int cause = errno;
        moe_status status = moe_fail(err, MOE_ERR_IO, "%.200s: %s", path, strerror(cause));
        if (cause == EEXIST && !is_empty_dir(path)) {
            status = moe_fail(err, MOE_ERR_EXISTS, "%.200s: exists already and is not an empty directory", path);
        } else if (cause == EEXIST) {
            status = MOE_OK;
        }
        if (status != MOE_OK) {
            output_close(&o);
            return status;
        }
    }
    o.work = join(path, WORK_FOLDER);
    if (o.work == NULL || mkdtemp(o.work) == NULL) {
        const int cause = errno;
        free(o.work);
        o.work = NULL;
        output_close(&o);
        return moe_fail(err, MOE_ERR_IO, "%.200s: %s", path, strerror(cause));
    }
    *out = o;
    return MOE_OK;
}

moe_status output_create(output_dir *o, const char *name, int *fd_out, moe_error *err)
{
    char *path = join(o->work, name), *kept = strdup(name);
    int fd = -1;

    if (path == NULL || kept == NULL || o->n_files == MAX_FILES) {
        free(path);
        free(kept);
        return moe_fail(err, MOE_ERR_NO_MEMORY, "%.200s: no memory for its name, or too many files", name);
    }
    fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    const int cause = errno;
    free(path);
    if (fd < 0) {
        free(kept);
        return moe_fail(err, MOE_ERR_IO, "%.200s: %s", name, strerror(cause));
    }
    o->files[o->n_files++] = kept;
    *fd_out = fd;
    return MOE_OK;
}

moe_status output_write(int fd, const char *name, const void *bytes, size_t n, moe_error *err)
{
    for (const char *at = bytes; n > 0;) {
        const ssize_t wrote = write(fd, at, n);
        if (wrote < 0 && errno == EINTR) {
            continue;
        }
        if (wrote <= 0) {
            return moe_fail(err, MOE_ERR_IO, "%.200s: cannot be written: %s", name, strerror(errno));
        }
        at += wrote;
        n -= (size_t)wrote;
    }
    return MOE_OK;
}

moe_status output_finish(int fd, const char *name, moe_error *err)
{
    moe_status status = MOE_OK;

    if (fsync(fd) != 0) {
        status = moe_fail(err, MOE_ERR_IO, "%.200s: cannot be written: %s", name, strerror(errno));
    }
    (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    if (close(fd) != 0 && status == MOE_OK) {
        status = moe_fail(err, MOE_ERR_IO, "%.200s: cannot be written: %s", name, strerror(errno));
    }
    return status;
}

/* The names in a directory are on the disk. */
static bool sync_dir(const char *path)
{
    const int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    const bool done = fd >= 0 && fsync(fd) == 0;

    if (fd >= 0) {
        (void)close(fd);
    }
    return done;
}

static bool move_up(const output_dir *o, const char *name)
{
    char *from = join(o->work, name), *to = join(o->path, name);
    const bool moved = from != NULL && to != NULL && rename(from, to) == 0;

    free(from);
    free(to);
    return moved;
}

static void remove_all(const output_dir *o, const char *dir)
{
    for (size_t i = 0; i < o->n_files; i++) {
        char *path = join(dir, o->files[i]);
        if (path != NULL) {
            (void)unlink(path);
        }
        free(path);
    }
}

moe_status output_publish(output_dir *o, moe_error *err)
{
    for (size_t i = 0; i < o->n_files; i++) {
        if (!move_up(o, o->files[i])) {
            const int cause = errno;
            remove_all(o, o->path);
            return moe_fail(err, MOE_ERR_IO, "%.200s: cannot be moved into place: %s", o->files[i], strerror(cause));
        }
    }
    if (!sync_dir(o->path)) {
        const int cause = errno;
        remove_all(o, o->path);
        return moe_fail(err, MOE_ERR_IO, "%.200s: %s", o->path, strerror(cause));
    }
    (void)rmdir(o->work);
    free(o->work);
    o->work = NULL;
    o->made = false;
    return MOE_OK;
}

void output_close(output_dir *o)
{
    if (o->work != NULL) {
        remove_all(o, o->work);
        (void)rmdir(o->work);
    }
    if (o->made) {
        (void)rmdir(o->path);
    }
    for (size_t i = 0; i < o->n_files; i++) {
        free(o->files[i]);
    }
    free(o->files);
    free(o->work);
    free(o->path);
    *o = (output_dir){0};
}
