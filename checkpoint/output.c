#include "checkpoint/output.h"

#include "checkpoint/checkpoint_priv.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define WORK_FOLDER    ".writing-XXXXXX"
#define MAX_FILES      (CHECKPOINT_MAX_SHARDS + 64u)
#define DATA_ALIGNMENT 64u
#define MAX_COPY_BYTES ((size_t)512 << 20)

/* What a model needs beside its weights. */
static const char *const companions[] = {
    "config.json",     "generation_config.json", "tokenizer.json",          "tokenizer_config.json",
    "tokenizer.model", "added_tokens.json",      "special_tokens_map.json", "vocab.json",
    "merges.txt",      "chat_template.jinja",    "chat_template.json",
};

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

moe_status output_check_room(const output_dir *o, size_t bytes, moe_error *err)
{
    struct statvfs disk;
    char needed[MOE_SIZE_TEXT], free_bytes[MOE_SIZE_TEXT];

    if (statvfs(o->path, &disk) != 0) {
        return moe_fail(err, MOE_ERR_IO, "%.200s: %s", o->path, strerror(errno));
    }
    if ((uint64_t)disk.f_bavail * disk.f_frsize < bytes) {
        return moe_fail(err, MOE_ERR_IO, "%.200s: %s are needed, %s are free", o->path, moe_size_text(bytes, needed),
                        moe_size_text((size_t)disk.f_bavail * disk.f_frsize, free_bytes));
    }
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

moe_status output_write_file(output_dir *o, const char *name, const void *bytes, size_t n, moe_error *err)
{
    int fd = -1;
    moe_status status = output_create(o, name, &fd, err);

    if (status != MOE_OK) {
        return status;
    }
    status = output_write(fd, name, bytes, n, err);
    if (status != MOE_OK) {
        (void)close(fd);
        return status;
    }
    return output_finish(fd, name, err);
}

static moe_status copy_file(output_dir *o, int dir_fd, const char *name, size_t *n_copied, moe_error *err)
{
    checkpoint_file f = {0};
    moe_status status = checkpoint_file_open(dir_fd, name, &f, err);

    if (status == MOE_ERR_NOT_FOUND) {
        return MOE_OK;
    }
    if (status == MOE_OK && f.bytes > MAX_COPY_BYTES) {
        status = moe_fail(err, MOE_ERR_UNSUPPORTED, "%s: %zu bytes, the limit is %zu", name, f.bytes, MAX_COPY_BYTES);
    }
    if (status == MOE_OK) {
        status = output_write_file(o, name, f.data, f.bytes, err);
        (*n_copied)++;
    }
    checkpoint_file_close(&f);
    return status;
}

moe_status output_copy_companions(output_dir *o, int dir_fd, const char *except, size_t *n_copied, moe_error *err)
{
    moe_status status = MOE_OK;

    for (size_t i = 0; status == MOE_OK && i < MOE_COUNT(companions); i++) {
        if (except == NULL || strcmp(companions[i], except) != 0) {
            status = copy_file(o, dir_fd, companions[i], n_copied, err);
        }
    }
    return status;
}

/* ------------------------------------------------------------------------------------------------ safetensors */
static void put_header(moe_text *header, const output_tensor *tensors, size_t n)
{
    size_t at = 0;

    moe_text_printf(header, "--------{\"__metadata__\":{\"format\":\"pt\"}"); /* the length comes there */
    for (size_t i = 0; i < n; i++) {
        const output_tensor *t = &tensors[i];

        moe_text_append(header, ",", 1);
        moe_text_json_string(header, t->name, strlen(t->name));
        moe_text_printf(header, ":{\"dtype\":\"%s\",\"shape\":[", t->dtype);
        for (size_t d = 0; d < t->rank; d++) {
            moe_text_printf(header, "%s%zu", d > 0 ? "," : "", t->shape[d]);
        }
        moe_text_printf(header, "],\"data_offsets\":[%zu,%zu]}", at, at + t->bytes);
        at += t->bytes;
    }
    moe_text_append(header, "}", 1);
    while (!header->failed && header->size % DATA_ALIGNMENT != 0) {
        moe_text_append(header, " ", 1);
    }
}

moe_status output_header(const output_tensor *tensors, size_t n, char **out, size_t *n_out)
{
    moe_text header;

    moe_text_init(&header, CHECKPOINT_MAX_JSON + 8);
    put_header(&header, tensors, n);
    char *copy = header.failed ? NULL : malloc(header.size);
    if (copy != NULL) {
        memcpy(copy, header.data, header.size);
        for (size_t i = 0; i < 8; i++) {
            copy[i] = (char)(unsigned char)((uint64_t)(header.size - 8) >> (8 * i));
        }
        *out = copy;
        *n_out = header.size;
    }
    moe_text_fini(&header);
    return copy != NULL ? MOE_OK : MOE_ERR_NO_MEMORY;
}

moe_status output_write_header(int fd, const char *name, const output_tensor *tensors, size_t n, moe_error *err)
{
    char *header = NULL;
    size_t size = 0;
    moe_status status = output_header(tensors, n, &header, &size);

    if (status != MOE_OK) {
        return moe_fail(err, status, "%.200s: no memory for its header, or over %u bytes", name, CHECKPOINT_MAX_JSON);
    }
    status = output_write(fd, name, header, size, err);
    free(header);
    return status;
}

void output_shard_name(size_t i, size_t n, char out[64])
{
    if (n == 1) {
        (void)snprintf(out, 64, OUTPUT_SINGLE_FILE);
    } else {
        (void)snprintf(out, 64, "model-%05zu-of-%05zu.safetensors", i + 1, n);
    }
}

moe_status output_write_index(output_dir *o, const output_place *places, size_t n, size_t total_bytes, moe_error *err)
{
    moe_text text;
    moe_status status;

    moe_text_init(&text, CHECKPOINT_MAX_JSON);
    moe_text_printf(&text, "{\"metadata\":{\"total_size\":%zu},\"weight_map\":{", total_bytes);
    for (size_t i = 0; i < n; i++) {
        moe_text_append(&text, i > 0 ? ",\n" : "\n", i > 0 ? 2 : 1);
        moe_text_json_string(&text, places[i].tensor, strlen(places[i].tensor));
        moe_text_printf(&text, ":\"%s\"", places[i].file);
    }
    moe_text_printf(&text, "\n}}\n");
    status = text.failed ? moe_fail(err, MOE_ERR_NO_MEMORY, OUTPUT_INDEX_FILE ": no memory, or over %u bytes",
                                    CHECKPOINT_MAX_JSON)
                         : output_write_file(o, OUTPUT_INDEX_FILE, text.data, text.size, err);
    moe_text_fini(&text);
    return status;
}

/* ------------------------------------------------------------------------------------------------ publishing */
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
