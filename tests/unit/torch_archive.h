/* What the tests of pickled checkpoints share: archives taken apart and put together again, with a
 * CRC-32 of their own. */
#ifndef CONCLAVE_TESTS_TORCH_ARCHIVE_H
#define CONCLAVE_TESTS_TORCH_ARCHIVE_H

#include "checkpoint/torch_file_priv.h"
#include "tests/support/support.h"

#include <stdlib.h>

#define TORCH_VECTORS "tests/vectors/torch/"

typedef struct bytes {
    unsigned char *data; /* owned, exactly n when it came from bytes_exact: a byte beyond is a sanitizer's */
    size_t n, capacity;
} bytes;

static inline void bytes_free(bytes *b)
{
    free(b->data);
    *b = (bytes){0};
}

static inline void bytes_add(bytes *b, const void *data, size_t n)
{
    if (b->n + n > b->capacity) {
        b->capacity = 2 * (b->n + n);
        b->data = realloc(b->data, b->capacity);
        assert_non_null(b->data);
    }
    if (n > 0) {
        memcpy(b->data + b->n, data, n);
    }
    b->n += n;
}

static inline void bytes_number(bytes *b, uint64_t v, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const unsigned char byte = (unsigned char)(v >> (8 * i));
        bytes_add(b, &byte, 1);
    }
}

static inline bytes bytes_exact(const void *data, size_t n)
{
    bytes b = {malloc(n > 0 ? n : 1), n, n};

    assert_non_null(b.data);
    if (n > 0) {
        memcpy(b.data, data, n);
    }
    return b;
}

static inline bytes bytes_of_file(const char *path)
{
    size_t n = 0;
    char *data = test_read_file(path, &n);
    const bytes b = bytes_exact(data, n);

    free(data);
    return b;
}

/* The slow and obvious one. */
static inline uint32_t crc32_slow(const unsigned char *data, size_t n)
{
    uint32_t c = 0xffffffffu;

    for (size_t i = 0; i < n; i++) {
        c ^= data[i];
        for (int bit = 0; bit < 8; bit++) {
            c = (c & 1) != 0 ? (c >> 1) ^ 0xedb88320u : c >> 1;
        }
    }
    return ~c;
}

#define ARCHIVE_MAX_ENTRIES 64

typedef struct archive_entry {
    char name[128];
    const unsigned char *data; /* borrowed */
    size_t n;
    size_t offset; /* of its header; set by archive_build */
    uint16_t flags, method;
} archive_entry;

typedef struct archive {
    archive_entry entries[ARCHIVE_MAX_ENTRIES];
    size_t n_entries;
    size_t directory; /* offset; set by archive_build */
} archive;

/* The entries of a sound image, which stays the owner of their bytes. */
static inline archive archive_of(const bytes *image)
{
    zip_archive zip;
    archive a = {.n_entries = 0};
    moe_error err = {.text = ""};

    assert_ok(zip_open(image->data, image->n, "image", &zip, &err), err);
    assert_true(zip.n_entries <= ARCHIVE_MAX_ENTRIES);
    for (size_t i = 0; i < zip.n_entries; i++) {
        archive_entry *m = &a.entries[a.n_entries++];
        snprintf(m->name, sizeof(m->name), "%.*s", (int)zip.entries[i].name_bytes, zip.entries[i].name);
        m->data = zip.entries[i].data;
        m->n = zip.entries[i].bytes;
    }
    zip_close(&zip);
    return a;
}

/* The entry whose name ends in `end`. */
static inline archive_entry *archive_find(archive *a, const char *end)
{
    for (size_t i = 0; i < a->n_entries; i++) {
        const size_t n = strlen(a->entries[i].name);
        if (n >= strlen(end) && strcmp(a->entries[i].name + n - strlen(end), end) == 0) {
            return &a->entries[i];
        }
    }
    fail_msg("no entry %s", end);
    return NULL;
}

static inline void archive_common(bytes *out, const archive_entry *m)
{
    bytes_number(out, m->flags, 2);
    bytes_number(out, m->method, 2);
    bytes_number(out, 0, 4);
    bytes_number(out, crc32_slow(m->data, m->n), 4);
    bytes_number(out, m->n, 4);
    bytes_number(out, m->n, 4);
    bytes_number(out, strlen(m->name), 2);
    bytes_number(out, 0, 2);
}

/* A plain archive: no zip64, no descriptors, no padding. */
static inline bytes archive_build(archive *a)
{
    bytes out = {0};
    bytes exact;

    for (size_t i = 0; i < a->n_entries; i++) {
        archive_entry *m = &a->entries[i];
        m->offset = out.n;
        bytes_number(&out, 0x04034b50u, 4);
        bytes_number(&out, 0, 2);
        archive_common(&out, m);
        bytes_add(&out, m->name, strlen(m->name));
        bytes_add(&out, m->data, m->n);
    }
    a->directory = out.n;
    for (size_t i = 0; i < a->n_entries; i++) {
        bytes_number(&out, 0x02014b50u, 4);
        bytes_number(&out, 0, 4);
        archive_common(&out, &a->entries[i]);
        bytes_number(&out, 0, 8);
        bytes_number(&out, 0, 2);
        bytes_number(&out, a->entries[i].offset, 4);
        bytes_add(&out, a->entries[i].name, strlen(a->entries[i].name));
    }
    const size_t directory_bytes = out.n - a->directory;
    bytes_number(&out, 0x06054b50u, 4);
    bytes_number(&out, 0, 4);
    bytes_number(&out, a->n_entries, 2);
    bytes_number(&out, a->n_entries, 2);
    bytes_number(&out, directory_bytes, 4);
    bytes_number(&out, a->directory, 4);
    bytes_number(&out, 0, 2);
    exact = bytes_exact(out.data, out.n);
    bytes_free(&out);
    return exact;
}

/* The same image with another data.pkl. */
static inline bytes archive_with_pickle(const bytes *image, const void *pickle, size_t n)
{
    archive a = archive_of(image);
    archive_entry *m = archive_find(&a, "/data.pkl");

    m->data = pickle;
    m->n = n;
    return archive_build(&a);
}

/* SHA-256 over names, dtypes, shapes and bytes of all tensors, storages checked: two files with equal sums give the
 * same. */
static inline moe_status torch_file_sum(const bytes *image, checkpoint_digest *sum, moe_error *err)
{
    torch_file f;
    bytes all = {0};
    moe_status status = torch_file_open(image->data, image->n, "image", &f, err);

    if (status != MOE_OK) {
        return status;
    }
    for (size_t i = 0; status == MOE_OK && i < f.n_tensors; i++) {
        const torch_tensor *t = &f.tensors[i];
        unsigned char *items = malloc(t->bytes + 1);
        assert_non_null(items);
        status = torch_file_check(&f, t, err);
        if (status == MOE_OK) {
            torch_tensor_gather(t, 0, t->bytes / t->item_bytes, items);
            assert_true(!t->contiguous || memcmp(items, t->data, t->bytes) == 0);
            bytes_add(&all, t->name, strlen(t->name) + 1);
            bytes_add(&all, t->dtype, strlen(t->dtype) + 1);
            for (size_t d = 0; d < t->rank; d++) {
                bytes_number(&all, t->shape[d], 8);
            }
            bytes_add(&all, items, t->bytes);
        }
        free(items);
    }
    if (status == MOE_OK) {
        *sum = checkpoint_sha256(all.data, all.n);
    }
    bytes_free(&all);
    torch_file_close(&f);
    return status;
}

#endif
