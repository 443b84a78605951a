/* A zip archive in memory, of the one kind that torch.save writes: every entry stored as it is. */
#ifndef CONCLAVE_CHECKPOINT_ZIP_PRIV_H
#define CONCLAVE_CHECKPOINT_ZIP_PRIV_H

#include "checkpoint/checkpoint_priv.h"

#define ZIP_MAX_ENTRIES (CHECKPOINT_MAX_TENSORS + 64u)
#define ZIP_MAX_NAME    1024u

typedef struct zip_entry {
    const char *name; /* borrowed from the image; no NUL behind it */
    size_t name_bytes;
    const unsigned char *data; /* borrowed from the image */
    size_t bytes;
    size_t begin, end; /* of local header, data and descriptor in the image */
    uint32_t crc;      /* what the archive says; zip_check compares */
} zip_entry;

typedef struct zip_archive {
    zip_entry *entries; /* owned [n_entries], name order */
    size_t n_entries;
    uint32_t crc_table[8][256];
} zip_archive;

/* Checks the whole structure before any entry is used: end record and zip64 end record, the central directory to its
 * last byte, every local header against it, names (relative, no "..", no control characters, none twice), places
 * (inside the file, none overlapping). Compressed, encrypted and multi-disk archives are refused. Errors:
 * MOE_ERR_CORRUPT, MOE_ERR_UNSUPPORTED (what is well-formed, but of another kind), MOE_ERR_NO_MEMORY. */
MOE_NODISCARD moe_status zip_open(const void *image, size_t bytes, const char *file, zip_archive *out, moe_error *err);
void zip_close(zip_archive *zip);

const zip_entry *zip_find(const zip_archive *zip, const char *name, size_t name_bytes); /* NULL when absent */
/* The bytes of an entry have the CRC-32 that the archive says. */
MOE_NODISCARD moe_status zip_check(const zip_archive *zip, const zip_entry *entry, const char *file, moe_error *err);

#endif
