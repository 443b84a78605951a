/* The files of a checkpoint and its tensors by name. */
#include "checkpoint/checkpoint_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define INDEX_FILE  "model.safetensors.index.json"
#define SINGLE_FILE "model.safetensors"

/* Where the files come from: a directory, or images in memory. */
typedef struct file_source file_source;
struct file_source {
    moe_status (*open)(const file_source *source, const char *name, checkpoint_file *out, moe_error *err);
    int dir_fd;
    const checkpoint_image *images;
    size_t n_images;
};

/* ------------------------------------------------------------------------------------------------ files */
static void file_close(checkpoint_file *f)
{
    if (f->mapped) {
        munmap((void *)(uintptr_t)f->data, f->bytes);
    }
    free(f->name);
    free(f->tensor_names);
    *f = (checkpoint_file){0};
}

/* Links are followed (download caches keep the files elsewhere and link them); what they lead to must be a regular
 * file. */
static moe_status map_fd(int fd, const char *name, checkpoint_file *out, moe_error *err)
{
    struct stat st;

    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        return moe_fail(err, MOE_ERR_IO, "%.200s is not a regular file", name);
    }
    out->bytes = (size_t)st.st_size;
    out->device = (uint64_t)st.st_dev;
    out->inode = (uint64_t)st.st_ino;
    out->mtime_ns = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
    if (out->bytes > 0) { /* nothing to map otherwise; the parsers refuse it */
        void *map = mmap(NULL, out->bytes, PROT_READ, MAP_PRIVATE, fd, 0);
        if (map == MAP_FAILED) {
            return moe_fail(err, MOE_ERR_IO, "%.200s: cannot be mapped: %s", name, strerror(errno));
        }
        out->data = map;
        out->mapped = true;
    }
    return moe_file_is_lfs_pointer(out->data, out->bytes)
               ? moe_fail(err, MOE_ERR_CORRUPT, "%.200s: " MOE_LFS_ADVICE, name)
               : MOE_OK;
}

static moe_status open_in_dir(const file_source *source, const char *name, checkpoint_file *out, moe_error *err)
{
    checkpoint_file f = {.name = strdup(name)};
    moe_status status;
    int fd;

    if (f.name == NULL) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "%.200s: no memory for its name", name);
    }
    fd = openat(source->dir_fd, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) {
        int cause = errno;

        status = moe_fail(err, cause == ENOENT ? MOE_ERR_NOT_FOUND : MOE_ERR_IO, "%.200s: %s", name, strerror(cause));
    } else {
        status = map_fd(fd, name, &f, err);
        close(fd);
    }
    if (status != MOE_OK) {
        file_close(&f);
        return status;
    }
    *out = f;
    return MOE_OK;
}

moe_status checkpoint_file_open(int dir_fd, const char *name, checkpoint_file *out, moe_error *err)
{
    const file_source source = {.dir_fd = dir_fd};

    return open_in_dir(&source, name, out, err);
}

void checkpoint_file_close(checkpoint_file *f)
{
    file_close(f);
}

static moe_status open_image(const file_source *source, const char *name, checkpoint_file *out, moe_error *err)
{
    for (size_t i = 0; i < source->n_images; i++) {
        const checkpoint_image *image = &source->images[i];
        if (strcmp(image->file, name) == 0) {
            *out = (checkpoint_file){.name = strdup(name), .data = image->data, .bytes = image->bytes};
            return out->name != NULL ? MOE_OK
                                     : moe_fail(err, MOE_ERR_NO_MEMORY, "%.200s: no memory for its name", name);
        }
    }
    return moe_fail(err, MOE_ERR_NOT_FOUND, "%.200s: no such file", name);
}

const checkpoint_file *checkpoint_file_of(const checkpoint *c, const void *data)
{
    for (size_t i = 0; i < c->n_files; i++) {
        const uintptr_t base = (uintptr_t)c->files[i].data;
        if ((uintptr_t)data >= base && (uintptr_t)data - base < c->files[i].bytes) {
            return &c->files[i];
        }
    }
    return NULL;
}

/* ------------------------------------------------------------------------------------------------ opening */
static moe_status take_tensors(checkpoint *c, const safetensors_header *h)
{
    checkpoint_tensor *tensors = realloc(c->tensors, (c->n_tensors + h->n_tensors + 1) * sizeof(*tensors));

    if (tensors == NULL) {
        return MOE_ERR_NO_MEMORY;
    }
    c->tensors = tensors;
    if (h->n_tensors > 0) {
        memcpy(tensors + c->n_tensors, h->tensors, h->n_tensors * sizeof(*tensors));
    }
    c->n_tensors += h->n_tensors;
    for (size_t i = 0; i < h->n_tensors; i++) {
        c->total_bytes += h->tensors[i].bytes;
    }
    return MOE_OK;
}

/* Opens the next file and adds its tensors. entries: what the index says of it; NULL without an index. */
static moe_status add_file(checkpoint *c, const file_source *source, const char *name,
                           const checkpoint_index_entry *entries, size_t n_entries, moe_error *err)
{
    checkpoint_file *f = &c->files[c->n_files];
    safetensors_header h = {0};
    moe_status status = source->open(source, name, f, err);

    if (status != MOE_OK) {
        return status;
    }
    c->n_files++; /* from here on checkpoint_close closes it */
    status = safetensors_parse(f->data, f->bytes, name, &h, err);
    if (status == MOE_OK && entries != NULL) {
        status = checkpoint_index_match(entries, n_entries, &h, err);
    }
    if (status == MOE_OK) {
        status = take_tensors(c, &h);
    }
    if (status == MOE_OK) {
        f->tensor_names = h.names;
        h.names = NULL;
    }
    safetensors_fini(&h);
    return status;
}

static moe_status add_shards(checkpoint *c, const file_source *source, const checkpoint_index *index, moe_error *err)
{
    size_t n_shards = 0;

    for (size_t i = 0; i < index->n_entries; i += checkpoint_index_run(index, i)) {
        n_shards++;
    }
    c->files = calloc(n_shards, sizeof(*c->files));
    if (c->files == NULL) {
        return MOE_ERR_NO_MEMORY;
    }
    for (size_t i = 0, n; i < index->n_entries; i += n) {
        n = checkpoint_index_run(index, i);
        const moe_status status = add_file(c, source, index->entries[i].shard, &index->entries[i], n, err);
        if (status != MOE_OK) {
            return status;
        }
    }
    return MOE_OK;
}

static moe_status add_single(checkpoint *c, const file_source *source, const char *name, moe_error *err)
{
    c->files = calloc(1, sizeof(*c->files));
    return c->files != NULL ? add_file(c, source, name, NULL, 0, err) : MOE_ERR_NO_MEMORY;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const checkpoint_tensor *)a)->name, ((const checkpoint_tensor *)b)->name);
}

/* Fills c from its index, or from the one file. Tensors of several shards are put in name order; the index, being an
 * object, names each of them once. */
static moe_status fill(checkpoint *c, const file_source *source, const char *single, moe_error *err)
{
    checkpoint_index index = {0};
    checkpoint_file f = {0};
    moe_status status = single == NULL ? source->open(source, INDEX_FILE, &f, err) : MOE_ERR_NOT_FOUND;

    if (status == MOE_ERR_NOT_FOUND) {
        return add_single(c, source, single != NULL ? single : SINGLE_FILE, err);
    }
    if (status != MOE_OK) {
        return status;
    }
    status = checkpoint_index_parse(f.data, f.bytes, INDEX_FILE, ".safetensors", &index, err);
    file_close(&f);
    if (status == MOE_OK) {
        status = add_shards(c, source, &index, err);
        checkpoint_index_fini(&index);
    }
    if (status == MOE_OK && c->n_files > 1) {
        qsort(c->tensors, c->n_tensors, sizeof(*c->tensors), by_name);
    }
    return status;
}

static moe_status open_from(const file_source *source, char *dir, const char *single, checkpoint **out, moe_error *err)
{
    checkpoint *c = calloc(1, sizeof(*c));
    moe_status status;

    if (c == NULL) {
        free(dir);
        return moe_fail(err, MOE_ERR_NO_MEMORY, "no memory for a checkpoint");
    }
    c->dir = dir;
    status = fill(c, source, single, err);
    if (status != MOE_OK) {
        checkpoint_close(c);
        return status == MOE_ERR_NO_MEMORY ? moe_fail(err, status, "no memory for the tensors of a checkpoint")
                                           : status;
    }
    *out = c;
    return MOE_OK;
}

moe_status checkpoint_open(const char *dir, checkpoint **out, moe_error *err)
{
    file_source source = {.open = open_in_dir, .dir_fd = -1};
    moe_error reason = {.text = ""};
    char *path = realpath(dir, NULL);
    moe_status status;

    if (path != NULL) {
        source.dir_fd = open(path, O_RDONLY | O_CLOEXEC | O_DIRECTORY);
    }
    if (source.dir_fd < 0) {
        int cause = errno;

        free(path);
        return moe_fail(err, cause == ENOENT || cause == ENOTDIR ? MOE_ERR_NOT_FOUND : MOE_ERR_IO, "%.300s: %s", dir,
                        strerror(cause));
    }
    status = faccessat(source.dir_fd, INDEX_FILE, F_OK, 0) != 0 && faccessat(source.dir_fd, SINGLE_FILE, F_OK, 0) != 0
                 ? checkpoint_missing(source.dir_fd, "neither " SINGLE_FILE " nor " INDEX_FILE, &reason)
                 : MOE_OK;
    if (status == MOE_OK) {
        status = open_from(&source, path, NULL, out, &reason);
    } else {
        free(path);
    }
    close(source.dir_fd);
    if (status != MOE_OK) {
        return moe_fail(err, status, "%.120s: %s", dir, reason.text);
    }
    return MOE_OK;
}

moe_status checkpoint_open_memory(const void *image, size_t bytes, const char *file, checkpoint **out, moe_error *err)
{
    const checkpoint_image one = {file, image, bytes};
    const file_source source = {.open = open_image, .images = &one, .n_images = 1};

    return open_from(&source, NULL, file, out, err);
}

moe_status checkpoint_open_images(const checkpoint_image *images, size_t n_images, checkpoint **out, moe_error *err)
{
    const file_source source = {.open = open_image, .images = images, .n_images = n_images};

    return open_from(&source, NULL, NULL, out, err);
}

void checkpoint_close(checkpoint *c)
{
    if (c == NULL) {
        return;
    }
    for (size_t i = 0; i < c->n_files; i++) {
        file_close(&c->files[i]);
    }
    free(c->files);
    free(c->tensors);
    free(c->dir);
    free(c);
}

/* ------------------------------------------------------------------------------------------------ reading */
size_t checkpoint_n_tensors(const checkpoint *c)
{
    return c->n_tensors;
}

const checkpoint_tensor *checkpoint_at(const checkpoint *c, size_t i)
{
    MOE_ASSERT(i < c->n_tensors);
    return &c->tensors[i];
}

const checkpoint_tensor *checkpoint_find(const checkpoint *c, const char *name)
{
    const checkpoint_tensor key = {.name = name};

    return bsearch(&key, c->tensors, c->n_tensors, sizeof(*c->tensors), by_name);
}

size_t checkpoint_find_at(const checkpoint *c, const char *name)
{
    const checkpoint_tensor *t = checkpoint_find(c, name);

    return t == NULL ? SIZE_MAX : (size_t)(t - c->tensors);
}

size_t checkpoint_total_bytes(const checkpoint *c)
{
    return c->total_bytes;
}

void checkpoint_file_forget(const checkpoint_file *f, const void *data, size_t bytes)
{
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    const uintptr_t first = ((uintptr_t)data + page - 1) / page * page; /* pages shared with a neighbour stay */
    const uintptr_t end = ((uintptr_t)data + bytes) / page * page;

    /* only of our own read-only mapping: it would zero memory of anyone else */
    if (f->mapped && end > first && (uintptr_t)data - (uintptr_t)f->data + bytes <= f->bytes) {
        (void)madvise((void *)first, end - first, MADV_DONTNEED);
    }
}

void checkpoint_forget(const checkpoint *c, const void *data, size_t bytes)
{
    const checkpoint_file *f = checkpoint_file_of(c, data);

    if (f != NULL) {
        checkpoint_file_forget(f, data, bytes);
    }
}

bool checkpoint_is_finite(const void *values, size_t bytes, compute_dtype dtype)
{
    const unsigned char *data = values;
    size_t width = compute_dtype_bytes(dtype);
    uint32_t exponent = dtype == COMPUTE_F32 ? 0x7f800000u : dtype == COMPUTE_BF16 ? 0x7f80u : 0x7c00u;

    for (size_t at = 0; at < bytes; at += width) {
        uint32_t word = 0;

        for (size_t i = 0; i < width; i++) {
            word |= (uint32_t)data[at + i] << (8 * i);
        }
        if ((word & exponent) == exponent) {
            return false;
        }
    }
    return true;
}
