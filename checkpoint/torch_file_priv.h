/* One file of torch.save: a zip archive with a pickle that says which bytes are which tensor. */
#ifndef CONCLAVE_CHECKPOINT_TORCH_FILE_PRIV_H
#define CONCLAVE_CHECKPOINT_TORCH_FILE_PRIV_H

#include "checkpoint/zip_priv.h"

typedef struct torch_tensor {
    const char *name;  /* borrowed from the file's names */
    const char *dtype; /* as safetensors spells it; static */
    size_t item_bytes;
    size_t rank;
    size_t shape[CHECKPOINT_MAX_RANK], stride[CHECKPOINT_MAX_RANK]; /* in items */
    size_t bytes;                                                   /* of all items, row-major */
    const unsigned char *data;                                      /* the first item; borrowed from the image */
    bool contiguous;                                                /* the items lie in row-major order from data on */
    size_t entry;                                                   /* of the archive: the storage */
} torch_tensor;

typedef struct torch_file {
    const char *file; /* borrowed; names it in messages */
    zip_archive zip;
    bool *checked;         /* owned [zip.n_entries]: the CRC-32 was compared */
    torch_tensor *tensors; /* owned [n_tensors], name order */
    size_t n_tensors;
    size_t total_bytes; /* of all tensors; at most 16 times the image, however often storages are shared */
    char *names;        /* owned */
} torch_file;

/* Checks the archive, its version and byte order, the pickle, and every tensor's storage against the archive: there,
 * and of exactly the size that the pickle says. Reads no storage. Errors: as zip_open and pickle_parse;
 * MOE_ERR_UNSUPPORTED for the format of torch before 1.6 and for big-endian files. */
MOE_NODISCARD moe_status torch_file_open(const void *image, size_t bytes, const char *file, torch_file *out,
                                         moe_error *err);
void torch_file_close(torch_file *f);

/* The CRC-32 of the storage under a tensor, compared once. To be called before its data is read. */
MOE_NODISCARD moe_status torch_file_check(torch_file *f, const torch_tensor *t, moe_error *err);
/* n items of t in row-major order, from item `first` on, into out [n * item_bytes]. */
void torch_tensor_gather(const torch_tensor *t, size_t first, size_t n, unsigned char *out);

#endif
