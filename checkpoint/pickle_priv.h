/* data.pkl of a torch.save file: a program for a stack machine, of which only the words that build a dictionary of
 * tensors are understood. Nothing is imported, called or run. */
#ifndef CONCLAVE_CHECKPOINT_PICKLE_PRIV_H
#define CONCLAVE_CHECKPOINT_PICKLE_PRIV_H

#include "checkpoint/checkpoint_priv.h"

#define PICKLE_MAX_BYTES 67108864u /* of data.pkl: 200 are needed per tensor */
#define PICKLE_MAX_STACK 65536u

/* One tensor of the dictionary. Strings are borrowed from the pickle, without NUL. What is here is consistent in
 * itself: offset and strides stay below storage_numel, and neither a product nor a sum of these numbers overflows, in
 * bytes either. The storage itself is the caller's to find and to compare with storage_numel. */
typedef struct pickle_tensor {
    const char *name, *key; /* key: of the storage */
    size_t name_bytes, key_bytes;
    const char *dtype; /* as safetensors spells it; static */
    size_t item_bytes;
    size_t storage_numel, offset; /* in items */
    size_t numel;                 /* product of shape */
    size_t rank;
    size_t shape[CHECKPOINT_MAX_RANK], stride[CHECKPOINT_MAX_RANK];
} pickle_tensor;

typedef struct pickle_tensors {
    pickle_tensor *tensors; /* owned [n_tensors], name order, no name twice */
    size_t n_tensors;
} pickle_tensors;

/* Understood: protocol 2, the opcodes of the table in pickle.c, the globals collections.OrderedDict,
 * torch._utils._rebuild_tensor_v2 and _rebuild_parameter and torch's storage types, persistent ids of storages. The
 * result must be one dictionary from names to tensors. A tensor that repeats items of its storage (stride 0 over more
 * than one item, or views over more than it has) is refused.
 * Errors: MOE_ERR_CORRUPT naming byte and opcode; MOE_ERR_DENIED for any other global; MOE_ERR_UNSUPPORTED;
 * MOE_ERR_NO_MEMORY. */
MOE_NODISCARD moe_status pickle_parse(const void *bytes, size_t n, const char *file, pickle_tensors *out,
                                      moe_error *err);
void pickle_tensors_fini(pickle_tensors *t);

#endif
