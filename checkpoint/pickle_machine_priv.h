/* What pickle.c (stack, memo, containers) and pickle_tensor.c (globals, storages, tensors) share. */
#ifndef CONCLAVE_CHECKPOINT_PICKLE_MACHINE_PRIV_H
#define CONCLAVE_CHECKPOINT_PICKLE_MACHINE_PRIV_H

#include "checkpoint/pickle_priv.h"

#define PICKLE_MAX_LINE 128u /* of a module or a global */

typedef enum { V_MARK, V_BOOL, V_INT, V_TEXT, V_GLOBAL, V_TUPLE, V_LIST, V_DICT, V_STORAGE, V_TENSOR } pickle_kind;

typedef struct pickle_value {
    uint8_t kind;
    uint32_t n; /* V_TEXT: bytes; V_TUPLE: items; V_DICT: 1 if made by OrderedDict */
    union {
        int64_t number;   /* V_BOOL, V_INT */
        const char *text; /* V_TEXT; borrowed from the pickle */
        size_t index;     /* V_GLOBAL: row of globals; V_TUPLE: first item; V_DICT, V_STORAGE, V_TENSOR: in its array */
    } as;
} pickle_value;

typedef struct pickle_array {
    void *data; /* owned */
    size_t n, capacity;
} pickle_array;

typedef struct pickle_dict {
    size_t first, last; /* index + 1; 0: empty */
} pickle_dict;

typedef struct pickle_storage {
    size_t global; /* the storage type */
    const char *key;
    size_t key_bytes, numel;
} pickle_storage;

typedef struct pickle_machine {
    const unsigned char *bytes;
    size_t n, at;
    size_t op_at; /* where the opcode that runs stands */
    const char *op_name;
    const char *file;
    moe_error *err;
    pickle_array stack, memo, items, dicts, entries, storages, tensors;
    bool stopped;
} pickle_machine;

/* Fail with file, byte and opcode before the reason. */
moe_status pickle_refuse_as(const pickle_machine *m, moe_status status, const char *why);
moe_status pickle_refuse(const pickle_machine *m, const char *why); /* MOE_ERR_CORRUPT */
moe_status pickle_refuse_kind(const pickle_machine *m, const char *what, pickle_kind found);
/* Text of the file for a message: what is not printable ASCII becomes "?". */
const char *pickle_printable(char out[PICKLE_MAX_LINE + 1], const char *text, size_t n);

/* Room for one more of `size` bytes at the end; NULL after a refusal. */
void *pickle_array_add(pickle_machine *m, pickle_array *p, size_t size, size_t limit, moe_status *status);
/* Item i of a tuple; those behind it follow. */
const pickle_value *pickle_item_at(const pickle_machine *m, const pickle_value *tuple, size_t i);
moe_status pickle_push(pickle_machine *m, pickle_value v);
moe_status pickle_pop(pickle_machine *m, pickle_value *out);
/* The line behind an opcode, without its end. */
moe_status pickle_take_line(pickle_machine *m, const char **out, size_t *n_out);

/* Opcodes that the other file has. */
moe_status pickle_op_dict(pickle_machine *m, size_t ordered);
moe_status pickle_op_global(pickle_machine *m, size_t unused);
moe_status pickle_op_persistent_id(pickle_machine *m, size_t unused);
moe_status pickle_op_reduce(pickle_machine *m, size_t unused);

#endif
