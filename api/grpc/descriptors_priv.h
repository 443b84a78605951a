/* descriptors: the published .proto files, indexed by file name and by symbol, for reflection.
 * Built once from the descriptor set that the build embeds; constant and shared afterwards. */
#ifndef CONCLAVE_API_GRPC_DESCRIPTORS_PRIV_H
#define CONCLAVE_API_GRPC_DESCRIPTORS_PRIV_H

#include "base/base.h"

#define DESCRIPTORS_MAX_FILES 16

typedef struct descriptors descriptors;

typedef struct descriptors_file {
    const uint8_t *bytes; /* serialized FileDescriptorProto */
    size_t n_bytes;
} descriptors_file;

/* Errors: MOE_ERR_CORRUPT, MOE_ERR_NO_MEMORY. set is borrowed for the result's life. */
MOE_NODISCARD moe_status descriptors_open(const uint8_t *set, size_t n, descriptors **out);
void descriptors_close(descriptors *d); /* NULL is fine */

/* The file and everything it imports, itself first; 0 when there is none. `symbol`: a full name of a service, method,
 * message, enum, field or enum value. */
size_t descriptors_by_name(const descriptors *d, const char *name, descriptors_file out[DESCRIPTORS_MAX_FILES]);
size_t descriptors_by_symbol(const descriptors *d, const char *symbol, descriptors_file out[DESCRIPTORS_MAX_FILES]);
bool descriptors_is_message(const descriptors *d, const char *symbol);

#endif
