#include "api/grpc/proto.h"

#include <stdlib.h>
#include <string.h>

#define BUDGET_FACTOR 32 /* unpacked token ids cost about 25 times their bytes in protobuf-c's bookkeeping */
#define BUDGET_FLOOR  ((size_t)256 << 10)
#define BUDGET_LIMIT  ((size_t)256 << 20)
#define ALLOC_COST    32 /* charged per allocation beside its bytes */

/* ------------------------------------------------------------------------------------------------ cursor */
static bool read_varint(proto_cursor *c, uint64_t *out)
{
    uint64_t value = 0;

    for (unsigned shift = 0; shift < 70 && c->at < c->end; shift += 7) {
        uint8_t byte = *c->at++;

        value |= shift == 63 ? (uint64_t)(byte & 1) << 63 : (uint64_t)(byte & 0x7f) << shift;
        if ((byte & 0x80) == 0) {
            *out = value;
            return true;
        }
    }
    c->failed = true;
    return false;
}

static bool skip(proto_cursor *c, uint64_t n)
{
    if (n > (uint64_t)(c->end - c->at)) {
        c->failed = true;
        return false;
    }
    c->at += n;
    return true;
}

bool proto_next(proto_cursor *c, proto_field *field)
{
    uint64_t tag, length;

    if (c->failed || c->at == c->end || !read_varint(c, &tag)) {
        return false;
    }
    *field = (proto_field){.id = (uint32_t)(tag >> 3), .wire_type = (unsigned)(tag & 7)};
    if (tag >> 3 == 0 || tag >> 32 != 0) {
        c->failed = true;
        return false;
    }
    switch (field->wire_type) {
    case 0:
        return read_varint(c, &field->varint);
    case 1:
        return skip(c, 8);
    case 2:
        if (!read_varint(c, &length)) {
            return false;
        }
        field->bytes = c->at;
        field->n_bytes = (size_t)length;
        return skip(c, length);
    case 5:
        return skip(c, 4);
    default:
        c->failed = true;
        return false;
    }
}

/* ------------------------------------------------------------------------------------------------ check */
static moe_status check_string(const char *name, const uint8_t *bytes, size_t n, moe_error *err)
{
    size_t valid = moe_utf8_valid_prefix(bytes, n);

    if (valid != n) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "%s: invalid UTF-8 at byte %zu", name, valid);
    }
    const uint8_t *nul = n > 0 ? memchr(bytes, 0, n) : NULL;
    if (nul != NULL) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "%s: a NUL at byte %zu, which strings must not contain", name,
                        (size_t)(nul - bytes));
    }
    return MOE_OK;
}

/* Recursion ends with the message types: none of ours contains itself. */
moe_status proto_check(const ProtobufCMessageDescriptor *type, const uint8_t *bytes, size_t n, moe_error *err)
{
    proto_cursor c = {.at = bytes, .end = bytes + n};
    proto_field field;
    moe_status status = MOE_OK;

    while (status == MOE_OK && proto_next(&c, &field)) {
        const ProtobufCFieldDescriptor *d = protobuf_c_message_descriptor_get_field(type, field.id);

        if (d == NULL || field.wire_type != 2) {
            continue; /* unpack compares the wire types */
        }
        if (d->type == PROTOBUF_C_TYPE_STRING) {
            status = check_string(d->name, field.bytes, field.n_bytes, err);
        } else if (d->type == PROTOBUF_C_TYPE_MESSAGE) {
            status = proto_check(d->descriptor, field.bytes, field.n_bytes, err);
        }
    }
    if (status == MOE_OK && c.failed) {
        status = moe_fail(err, MOE_ERR_INVALID_ARG, "%s: malformed message", type->short_name);
    }
    return status;
}

/* ------------------------------------------------------------------------------------------------ unpack */
static void *budget_alloc(void *ctx, size_t size)
{
    size_t *left = ctx;

    if (size > SIZE_MAX - ALLOC_COST || size + ALLOC_COST > *left) {
        *left = 0;
        return NULL;
    }
    *left -= size + ALLOC_COST;
    return malloc(size);
}

static void budget_free(void *ctx, void *p)
{
    (void)ctx;
    free(p);
}

moe_status proto_unpack(const ProtobufCMessageDescriptor *type, const uint8_t *bytes, size_t n, ProtobufCMessage **out,
                        moe_error *err)
{
    size_t left = n < (BUDGET_LIMIT - BUDGET_FLOOR) / BUDGET_FACTOR ? n * BUDGET_FACTOR + BUDGET_FLOOR : BUDGET_LIMIT;
    ProtobufCAllocator allocator = {.alloc = budget_alloc, .free = budget_free, .allocator_data = &left};
    moe_status status = proto_check(type, bytes, n, err);

    if (status != MOE_OK) {
        return status;
    }
    ProtobufCMessage *message = protobuf_c_message_unpack(type, &allocator, n, bytes);
    if (message == NULL) {
        return moe_fail(err, MOE_ERR_INVALID_ARG,
                        left == 0 ? "%s: too many parts for a message of %zu bytes"
                                  : "%s: malformed message of %zu bytes",
                        type->short_name, n);
    }
    *out = message;
    return MOE_OK;
}

void proto_free(ProtobufCMessage *message)
{
    if (message != NULL) {
        size_t left = 0;
        ProtobufCAllocator allocator = {.alloc = budget_alloc, .free = budget_free, .allocator_data = &left};

        protobuf_c_message_free_unpacked(message, &allocator);
    }
}

/* ------------------------------------------------------------------------------------------------ building */
static void put_varint(moe_text *out, uint64_t value)
{
    uint8_t bytes[10];
    size_t n = 0;

    do {
        bytes[n++] = (uint8_t)((value & 0x7f) | (value > 0x7f ? 0x80 : 0));
        value >>= 7;
    } while (value != 0);
    moe_text_append(out, bytes, n);
}

char *proto_text(const char *s)
{
    return (char *)(uintptr_t)(s == NULL ? "" : s);
}

void proto_put_bytes(moe_text *out, uint32_t id, const void *bytes, size_t n)
{
    put_varint(out, (uint64_t)id << 3 | 2);
    put_varint(out, n);
    moe_text_append(out, bytes, n);
}

typedef struct text_sink {
    ProtobufCBuffer base;
    moe_text *out;
} text_sink;

static void sink_append(ProtobufCBuffer *buffer, size_t n, const uint8_t *bytes)
{
    moe_text_append(((text_sink *)buffer)->out, bytes, n);
}

void proto_put_fields(moe_text *out, const ProtobufCMessage *message)
{
    text_sink sink = {.base = {.append = sink_append}, .out = out};

    protobuf_c_message_pack_to_buffer(message, &sink.base);
}

void proto_put_message(moe_text *out, uint32_t id, const ProtobufCMessage *message)
{
    put_varint(out, (uint64_t)id << 3 | 2);
    put_varint(out, protobuf_c_message_get_packed_size(message));
    proto_put_fields(out, message);
}
