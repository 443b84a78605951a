/* The container of a pickled checkpoint. Two places describe each entry, the central directory and the header before
 * its data: where they differ two readers would see different files, so they may not differ. */
#include "checkpoint/zip_priv.h"

#include <stdlib.h>
#include <string.h>

#define SIG_LOCAL       0x04034b50u
#define SIG_CENTRAL     0x02014b50u
#define SIG_DESCRIPTOR  0x08074b50u
#define SIG_END         0x06054b50u
#define SIG_END64       0x06064b50u
#define SIG_LOCATOR64   0x07064b50u
#define LOCAL_BYTES     30u
#define CENTRAL_BYTES   46u
#define END_BYTES       22u
#define END64_BYTES     56u
#define LOCATOR64_BYTES 20u
#define EXTRA_ZIP64     1u
#define FLAG_DESCRIPTOR 0x0008u /* sizes and CRC stand behind the data */
#define FLAG_UTF8       0x0800u
#define ABSENT32        0xffffffffu
#define ABSENT16        0xffffu

typedef struct zip_reader {
    const unsigned char *image;
    size_t bytes;
    const char *file;
    moe_error *err;
} zip_reader;

/* One row of the central directory. */
typedef struct central {
    size_t at; /* of the row */
    uint16_t flags, method, disk;
    uint32_t crc;
    uint64_t compressed, bytes, offset;
    const char *name;
    size_t name_bytes;
    size_t row_bytes;
} central;

typedef struct directory {
    size_t offset, bytes, n_entries;
} directory;

static moe_buf reader_at(const zip_reader *r, size_t at, size_t bytes)
{
    moe_buf b;

    MOE_ASSERT(at <= r->bytes && bytes <= r->bytes - at);
    moe_buf_init(&b, (void *)(uintptr_t)(r->image + at), bytes);
    return b;
}

static bool fits(const zip_reader *r, uint64_t at, uint64_t bytes)
{
    return at <= r->bytes && bytes <= r->bytes - at;
}

/* ------------------------------------------------------------------------------------------------ CRC-32 */
static void crc_table_fill(uint32_t table[8][256])
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int bit = 0; bit < 8; bit++) {
            c = (c >> 1) ^ (0xedb88320u & (0u - (c & 1)));
        }
        table[0][i] = c;
    }
    for (uint32_t i = 0; i < 256; i++) {
        for (size_t k = 1; k < 8; k++) {
            table[k][i] = (table[k - 1][i] >> 8) ^ table[0][table[k - 1][i] & 255];
        }
    }
}

/* Eight bytes a step: table k carries a byte over k more zero bytes. */
static uint32_t crc32_of(const uint32_t table[8][256], const unsigned char *p, size_t n)
{
    uint32_t c = ABSENT32;

    for (; n >= 8; n -= 8, p += 8) {
        c ^= (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
        c = table[7][c & 255] ^ table[6][c >> 8 & 255] ^ table[5][c >> 16 & 255] ^ table[4][c >> 24] ^ table[3][p[4]] ^
            table[2][p[5]] ^ table[1][p[6]] ^ table[0][p[7]];
    }
    for (; n > 0; n--, p++) {
        c = (c >> 8) ^ table[0][(c ^ *p) & 255];
    }
    return ~c;
}

moe_status zip_check(const zip_archive *zip, const zip_entry *entry, const char *file, moe_error *err)
{
    const uint32_t crc = crc32_of(zip->crc_table, entry->data, entry->bytes);

    if (crc != entry->crc) {
        return moe_fail(err, MOE_ERR_CORRUPT, "%.100s: entry %.*s: CRC-32 %08x, the archive says %08x", file,
                        (int)MOE_MIN(entry->name_bytes, 150), entry->name, (unsigned)crc, (unsigned)entry->crc);
    }
    return MOE_OK;
}

/* ----------------------------------------------------------------------------------------------- end of the archive */
static moe_status check_single_disk(const zip_reader *r, uint32_t disk, uint32_t directory_disk, uint64_t here,
                                    uint64_t total)
{
    if (disk != 0 || directory_disk != 0 || here != total) {
        return moe_fail(r->err, MOE_ERR_UNSUPPORTED, "%.100s: the archive is spread over several disks", r->file);
    }
    return MOE_OK;
}

/* The zip64 end record; before it lies the directory, behind it the locator that names its place. */
static moe_status read_end64(const zip_reader *r, size_t locator_at, directory *out, size_t *end_out)
{
    moe_buf b = reader_at(r, locator_at, LOCATOR64_BYTES);
    uint32_t disk, n_disks;
    uint64_t at, n_here, n;

    (void)moe_get_u32(&b); /* signature */
    disk = moe_get_u32(&b);
    at = moe_get_u64(&b);
    n_disks = moe_get_u32(&b);
    if (disk != 0 || n_disks > 1) {
        return check_single_disk(r, 1, 0, 0, 0);
    }
    if (locator_at < END64_BYTES || at != locator_at - END64_BYTES) {
        return moe_fail(r->err, MOE_ERR_CORRUPT,
                        "%.100s: the zip64 end record is said to lie at %llu, not before its locator", r->file,
                        (unsigned long long)at);
    }
    b = reader_at(r, (size_t)at, END64_BYTES);
    if (moe_get_u32(&b) != SIG_END64 || moe_get_u64(&b) != END64_BYTES - 12) {
        return moe_fail(r->err, MOE_ERR_CORRUPT, "%.100s: no zip64 end record at %llu", r->file,
                        (unsigned long long)at);
    }
    (void)moe_get_u32(&b); /* versions */
    disk = moe_get_u32(&b);
    const uint32_t directory_disk = moe_get_u32(&b);
    n_here = moe_get_u64(&b);
    n = moe_get_u64(&b);
    *out = (directory){.bytes = moe_get_u64(&b), .n_entries = n};
    out->offset = moe_get_u64(&b);
    *end_out = (size_t)at;
    return check_single_disk(r, disk, directory_disk, n_here, n);
}

/* A field of the short end record is that of the long one, or says that it does not hold it. */
static bool agrees(uint64_t field, uint64_t absent, uint64_t value)
{
    return field == value || field == absent;
}

/* The end record is the last thing in the file: a comment could hold a second one. */
static moe_status read_end(const zip_reader *r, directory *out, size_t *end_out)
{
    size_t at, end64 = 0;
    directory d64 = {0};

    if (r->bytes < END_BYTES) {
        return moe_fail(r->err, MOE_ERR_CORRUPT, "%.100s: %zu bytes, a zip archive has at least %u", r->file, r->bytes,
                        END_BYTES);
    }
    at = r->bytes - END_BYTES;
    moe_buf b = reader_at(r, at, END_BYTES);
    if (moe_get_u32(&b) != SIG_END) {
        return moe_fail(r->err, MOE_ERR_CORRUPT, "%.100s: does not end with the end record of a zip archive", r->file);
    }
    const uint32_t disk = moe_get_u16(&b), directory_disk = moe_get_u16(&b), n_here = moe_get_u16(&b),
                   n = moe_get_u16(&b), bytes = moe_get_u32(&b), offset = moe_get_u32(&b), comment = moe_get_u16(&b);
    if (comment != 0) {
        return moe_fail(r->err, MOE_ERR_CORRUPT, "%.100s: the archive says that a comment of %u bytes follows its end",
                        r->file, (unsigned)comment);
    }
    *out = (directory){offset, bytes, n};
    *end_out = at;
    if (at >= LOCATOR64_BYTES) {
        moe_buf l = reader_at(r, at - LOCATOR64_BYTES, LOCATOR64_BYTES);
        if (moe_get_u32(&l) == SIG_LOCATOR64) {
            const moe_status status = read_end64(r, at - LOCATOR64_BYTES, &d64, &end64);
            if (status != MOE_OK) {
                return status;
            }
            if (!agrees(n, ABSENT16, d64.n_entries) || !agrees(bytes, ABSENT32, d64.bytes) ||
                !agrees(offset, ABSENT32, d64.offset)) {
                return moe_fail(r->err, MOE_ERR_CORRUPT, "%.100s: the two end records contradict each other", r->file);
            }
            *out = d64;
            *end_out = end64;
            return check_single_disk(r, disk == ABSENT16 ? 0 : disk, directory_disk == ABSENT16 ? 0 : directory_disk,
                                     n_here, n);
        }
    }
    return check_single_disk(r, disk, directory_disk, n_here, n);
}

static moe_status find_directory(const zip_reader *r, directory *out)
{
    size_t end = 0;
    moe_status status = read_end(r, out, &end);

    if (status != MOE_OK) {
        return status;
    }
    if (out->bytes > end || out->offset != end - out->bytes) {
        return moe_fail(r->err, MOE_ERR_CORRUPT,
                        "%.100s: the directory is said to be %zu bytes at %zu, it must end at the end record at %zu",
                        r->file, out->bytes, out->offset, end);
    }
    if (out->n_entries > ZIP_MAX_ENTRIES || out->n_entries > out->bytes / CENTRAL_BYTES) {
        return moe_fail(r->err, MOE_ERR_CORRUPT,
                        "%.100s: %zu entries, the limit is %u and what %zu bytes of directory hold", r->file,
                        out->n_entries, ZIP_MAX_ENTRIES, out->bytes);
    }
    return MOE_OK;
}

/* -------------------------------------------------------------------------------------------- rows of the directory */
static moe_status refuse(const zip_reader *r, const central *c, moe_status status, const char *why)
{
    return moe_fail(r->err, status, "%.100s: entry at directory byte %zu: %s", r->file, c->at, why);
}

/* The zip64 values stand in a fixed order, each only where the short field says that it does not hold it. */
static moe_status read_zip64(const zip_reader *r, moe_buf *b, central *c)
{
    if (c->bytes == ABSENT32) {
        c->bytes = moe_get_u64(b);
    }
    if (c->compressed == ABSENT32) {
        c->compressed = moe_get_u64(b);
    }
    if (c->offset == ABSENT32) {
        c->offset = moe_get_u64(b);
    }
    if (b->failed || moe_buf_left(b) != 0) {
        return refuse(r, c, MOE_ERR_CORRUPT, "its zip64 field does not fit its short fields");
    }
    return MOE_OK;
}

static moe_status read_extra(const zip_reader *r, size_t at, size_t bytes, central *c)
{
    moe_buf b = reader_at(r, at, bytes);
    bool seen = false;

    while (moe_buf_left(&b) > 0) {
        const uint16_t id = moe_get_u16(&b), n = moe_get_u16(&b);
        const void *field = moe_get_bytes(&b, n);
        if (b.failed || (id == EXTRA_ZIP64 && seen)) {
            return refuse(r, c, MOE_ERR_CORRUPT, "its extra field is malformed");
        }
        if (id == EXTRA_ZIP64) {
            moe_buf wide;
            moe_buf_init(&wide, (void *)(uintptr_t)field, n);
            const moe_status status = read_zip64(r, &wide, c);
            if (status != MOE_OK) {
                return status;
            }
            seen = true;
        }
    }
    return MOE_OK;
}

/* A name that would stay below any folder it is unpacked into. (Nothing is unpacked; a tool that the file went through
 * might have.) */
static bool is_plain_name(const char *name, size_t n)
{
    size_t begin = 0;

    if (n == 0 || n > ZIP_MAX_NAME || moe_utf8_valid_prefix(name, n) != n) {
        return false;
    }
    for (size_t i = 0; i <= n; i++) {
        const unsigned char ch = i < n ? (unsigned char)name[i] : '/';
        if (ch < 0x20 || ch == 0x7f || ch == '\\') {
            return false;
        }
        if (ch == '/') {
            const size_t part = i - begin;
            if (part == 0 || (part <= 2 && memcmp(name + begin, "..", part) == 0)) {
                return false;
            }
            begin = i + 1;
        }
    }
    return true;
}

static moe_status check_kind(const zip_reader *r, const central *c)
{
    if (!is_plain_name(c->name, c->name_bytes)) {
        return refuse(r, c, MOE_ERR_CORRUPT,
                      "its name is empty, too long, absolute, has an empty, \".\" or \"..\" part or is no clean UTF-8");
    }
    if ((c->flags & ~(FLAG_DESCRIPTOR | FLAG_UTF8)) != 0) {
        return refuse(r, c, MOE_ERR_UNSUPPORTED, "it is encrypted or has flags other than UTF-8 and data descriptor");
    }
    if (c->method != 0 || c->compressed != c->bytes) {
        return refuse(r, c, MOE_ERR_UNSUPPORTED, "it is compressed; torch.save stores its entries as they are");
    }
    if (c->disk != 0) {
        return refuse(r, c, MOE_ERR_UNSUPPORTED, "it lies on another disk");
    }
    return MOE_OK;
}

static moe_status read_central(const zip_reader *r, size_t at, size_t end, central *c)
{
    moe_buf b = reader_at(r, at, MOE_MIN(end - at, CENTRAL_BYTES));

    *c = (central){.at = at};
    const bool is_row = moe_get_u32(&b) == SIG_CENTRAL;
    (void)moe_get_u32(&b); /* versions */
    c->flags = moe_get_u16(&b);
    c->method = moe_get_u16(&b);
    (void)moe_get_u32(&b); /* time and date */
    c->crc = moe_get_u32(&b);
    c->compressed = moe_get_u32(&b);
    c->bytes = moe_get_u32(&b);
    c->name_bytes = moe_get_u16(&b);
    const size_t extra_bytes = moe_get_u16(&b), comment_bytes = moe_get_u16(&b);
    c->disk = moe_get_u16(&b);
    (void)moe_get_u16(&b); /* attributes */
    (void)moe_get_u32(&b);
    c->offset = moe_get_u32(&b);
    c->row_bytes = CENTRAL_BYTES + c->name_bytes + extra_bytes + comment_bytes;
    if (b.failed || !is_row || c->row_bytes > end - at) {
        return refuse(r, c, MOE_ERR_CORRUPT, "no row of a directory, or one that reaches beyond its end");
    }
    c->name = (const char *)r->image + at + CENTRAL_BYTES;
    const moe_status status = read_extra(r, at + CENTRAL_BYTES + c->name_bytes, extra_bytes, c);
    return status == MOE_OK ? check_kind(r, c) : status;
}

/* ------------------------------------------------------------------------------------------------ local headers */
/* Sizes of a local header: those of the directory, in the zip64 field where they do not fit. */
static bool local_sizes_agree(const zip_reader *r, const central *c, uint32_t compressed, uint32_t bytes,
                              size_t extra_at, size_t extra_bytes)
{
    moe_buf b = reader_at(r, extra_at, extra_bytes);

    if (compressed != ABSENT32 && bytes != ABSENT32) {
        return compressed == c->bytes && bytes == c->bytes;
    }
    while (moe_buf_left(&b) > 0) {
        const uint16_t id = moe_get_u16(&b), n = moe_get_u16(&b);
        if (id == EXTRA_ZIP64) {
            const bool agree_bytes = bytes != ABSENT32 ? bytes == c->bytes : moe_get_u64(&b) == c->bytes;
            return (compressed != ABSENT32 ? compressed == c->bytes : moe_get_u64(&b) == c->bytes) && agree_bytes &&
                   !b.failed;
        }
        (void)moe_get_bytes(&b, n);
    }
    return false;
}

/* Bytes of the descriptor behind the data: sizes of 4 or of 8 bytes; 0 when there is none that agrees. */
static size_t descriptor_bytes(const zip_reader *r, const central *c, uint64_t at)
{
    for (size_t bytes = 16; bytes <= 24; bytes += 8) {
        if (fits(r, at, bytes)) {
            moe_buf b = reader_at(r, (size_t)at, bytes);
            const bool head = moe_get_u32(&b) == SIG_DESCRIPTOR && moe_get_u32(&b) == c->crc;
            const uint64_t first = bytes == 16 ? moe_get_u32(&b) : moe_get_u64(&b);
            const uint64_t second = bytes == 16 ? moe_get_u32(&b) : moe_get_u64(&b);
            if (head && first == c->bytes && second == c->bytes) {
                return bytes;
            }
        }
    }
    return 0;
}

/* limit: where the directory begins. */
static moe_status read_local(const zip_reader *r, const central *c, size_t limit, zip_entry *out)
{
    if (c->offset > limit || limit - c->offset < LOCAL_BYTES) {
        return refuse(r, c, MOE_ERR_CORRUPT, "its header lies outside of the archive");
    }
    moe_buf b = reader_at(r, (size_t)c->offset, LOCAL_BYTES);
    const bool is_header = moe_get_u32(&b) == SIG_LOCAL;
    (void)moe_get_u16(&b); /* version */
    const uint16_t flags = moe_get_u16(&b), method = moe_get_u16(&b);
    (void)moe_get_u32(&b); /* time and date */
    const uint32_t crc = moe_get_u32(&b), compressed = moe_get_u32(&b), bytes = moe_get_u32(&b);
    const size_t name_bytes = moe_get_u16(&b), extra_bytes = moe_get_u16(&b);
    const uint64_t room = limit - c->offset - LOCAL_BYTES;
    if (!is_header || flags != c->flags || method != c->method || name_bytes != c->name_bytes ||
        name_bytes + extra_bytes > room || c->bytes > room - name_bytes - extra_bytes) {
        return refuse(r, c, MOE_ERR_CORRUPT,
                      "its local header is not what the directory says, or its data does not fit");
    }
    const size_t name_at = (size_t)c->offset + LOCAL_BYTES, data_at = name_at + name_bytes + extra_bytes;
    const bool behind = (flags & FLAG_DESCRIPTOR) != 0, is_behind = behind && crc == 0 && compressed == 0 && bytes == 0;
    if (memcmp(r->image + name_at, c->name, name_bytes) != 0 ||
        (!is_behind &&
         (crc != c->crc || !local_sizes_agree(r, c, compressed, bytes, name_at + name_bytes, extra_bytes)))) {
        return refuse(r, c, MOE_ERR_CORRUPT, "its local header has another name, size or CRC-32 than the directory");
    }
    const size_t tail = behind ? descriptor_bytes(r, c, data_at + c->bytes) : 0;
    if (behind && (tail == 0 || tail > limit - data_at - c->bytes)) {
        return refuse(r, c, MOE_ERR_CORRUPT, "the descriptor behind its data is missing or says something else");
    }
    *out = (zip_entry){.name = c->name,
                       .name_bytes = c->name_bytes,
                       .data = r->image + data_at,
                       .bytes = (size_t)c->bytes,
                       .begin = (size_t)c->offset,
                       .end = data_at + (size_t)c->bytes + tail,
                       .crc = c->crc};
    return MOE_OK;
}

/* ------------------------------------------------------------------------------------------------ all entries */
static int by_place(const void *a, const void *b)
{
    const zip_entry *x = a, *y = b;

    return x->begin < y->begin ? -1 : x->begin > y->begin;
}

static int name_order(const char *a, size_t a_bytes, const char *b, size_t b_bytes)
{
    const int order = memcmp(a, b, MOE_MIN(a_bytes, b_bytes));

    return order != 0 ? order : a_bytes < b_bytes ? -1 : a_bytes > b_bytes;
}

static int by_name(const void *a, const void *b)
{
    const zip_entry *x = a, *y = b;

    return name_order(x->name, x->name_bytes, y->name, y->name_bytes);
}

static moe_status check_entries(const zip_reader *r, zip_archive *zip)
{
    qsort(zip->entries, zip->n_entries, sizeof(*zip->entries), by_place);
    for (size_t i = 1; i < zip->n_entries; i++) {
        if (zip->entries[i].begin < zip->entries[i - 1].end) {
            return moe_fail(r->err, MOE_ERR_CORRUPT, "%.100s: entry %.*s begins inside of another, at %zu", r->file,
                            (int)MOE_MIN(zip->entries[i].name_bytes, 150), zip->entries[i].name, zip->entries[i].begin);
        }
    }
    qsort(zip->entries, zip->n_entries, sizeof(*zip->entries), by_name);
    for (size_t i = 1; i < zip->n_entries; i++) {
        if (by_name(&zip->entries[i - 1], &zip->entries[i]) == 0) {
            return moe_fail(r->err, MOE_ERR_CORRUPT, "%.100s: entry %.*s is there twice", r->file,
                            (int)MOE_MIN(zip->entries[i].name_bytes, 150), zip->entries[i].name);
        }
    }
    return MOE_OK;
}

static moe_status read_entries(const zip_reader *r, const directory *d, zip_archive *zip)
{
    const size_t end = d->offset + d->bytes;
    size_t at = d->offset;
    central c;

    while (zip->n_entries < d->n_entries && at < end) {
        moe_status status = read_central(r, at, end, &c);
        if (status == MOE_OK) {
            status = read_local(r, &c, d->offset, &zip->entries[zip->n_entries]);
        }
        if (status != MOE_OK) {
            return status;
        }
        zip->n_entries++;
        at += c.row_bytes;
    }
    if (zip->n_entries != d->n_entries || at != end) {
        return moe_fail(r->err, MOE_ERR_CORRUPT, "%.100s: the directory holds %s entries than the %zu it says", r->file,
                        at != end ? "more" : "fewer", d->n_entries);
    }
    return check_entries(r, zip);
}

moe_status zip_open(const void *image, size_t bytes, const char *file, zip_archive *out, moe_error *err)
{
    const zip_reader r = {image, bytes, file, err};
    zip_archive zip = {0};
    directory d = {0};
    moe_status status = find_directory(&r, &d);

    if (status != MOE_OK) {
        return status;
    }
    zip.entries = calloc(d.n_entries + 1, sizeof(*zip.entries));
    if (zip.entries == NULL) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "%.100s: no memory for %zu entries", file, d.n_entries);
    }
    crc_table_fill(zip.crc_table);
    status = read_entries(&r, &d, &zip);
    if (status != MOE_OK) {
        zip_close(&zip);
        return status;
    }
    *out = zip;
    return MOE_OK;
}

void zip_close(zip_archive *zip)
{
    free(zip->entries);
    *zip = (zip_archive){0};
}

const zip_entry *zip_find(const zip_archive *zip, const char *name, size_t name_bytes)
{
    const zip_entry key = {.name = name, .name_bytes = name_bytes};

    return bsearch(&key, zip->entries, zip->n_entries, sizeof(*zip->entries), by_name);
}
