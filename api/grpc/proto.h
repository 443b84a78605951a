/* proto: protobuf messages from outside.
 *
 * protobuf-c takes strings that are not UTF-8 or contain NUL, and a small message can ask for much memory. So
 * proto_unpack walks the wire form first: every length and wire type, every string, no field nested deeper than its
 * message types are. Then it unpacks with an allocator whose budget is a multiple of the bytes received.
 *
 * Threads: pure functions. */
#ifndef CONCLAVE_API_GRPC_PROTO_H
#define CONCLAVE_API_GRPC_PROTO_H

#include <protobuf-c/protobuf-c.h>

#include "base/base.h"

/* Errors: MOE_ERR_INVALID_ARG naming the field. Never MOE_ERR_NO_MEMORY: a message beyond its budget is invalid. */
MOE_NODISCARD moe_status proto_unpack(const ProtobufCMessageDescriptor *type, const uint8_t *bytes, size_t n,
                                      ProtobufCMessage **out, moe_error *err);
void proto_free(ProtobufCMessage *message); /* NULL is fine */
MOE_NODISCARD moe_status proto_check(const ProtobufCMessageDescriptor *type, const uint8_t *bytes, size_t n,
                                     moe_error *err);

/* A cursor over wire form: tag, then value. Used by proto_check and by the reflection tables. */
typedef struct proto_cursor {
    const uint8_t *at, *end;
    bool failed;
} proto_cursor;

typedef struct proto_field {
    uint32_t id;
    unsigned wire_type;   /* 0 varint, 1 64 bits, 2 length-delimited, 5 32 bits */
    uint64_t varint;      /* of wire type 0 */
    const uint8_t *bytes; /* of wire type 2 */
    size_t n_bytes;
} proto_field;

/* The next field; false at the end or when failed (check c->failed). Groups are refused. */
bool proto_next(proto_cursor *c, proto_field *field);

/* A text as generated messages have it, which only read it; NULL: "". */
char *proto_text(const char *s);

/* Appends to wire form that is being built: a length-delimited field, and a message as such a field. */
void proto_put_bytes(moe_text *out, uint32_t id, const void *bytes, size_t n);
void proto_put_message(moe_text *out, uint32_t id, const ProtobufCMessage *message);
/* A message's own fields, without tag and length: wire forms that are joined are merged. */
void proto_put_fields(moe_text *out, const ProtobufCMessage *message);

#endif
