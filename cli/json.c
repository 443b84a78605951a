/* The writing half of message.h: proto3 JSON from descriptors. */
#include "cli/message.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { NUMBER_BYTES = 40 };

static const void *at(const ProtobufCMessage *message, unsigned offset)
{
    return (const char *)message + offset;
}

/* As few digits as read back to the same number: 9 do for every float, 17 for every double. */
static void write_number(moe_text *out, double v, bool is_float)
{
    int max_digits = is_float ? 9 : 17;
    char digits[NUMBER_BYTES];

    if (isnan(v)) {
        moe_text_printf(out, "\"NaN\"");
        return;
    }
    if (isinf(v)) {
        moe_text_printf(out, v > 0 ? "\"Infinity\"" : "\"-Infinity\"");
        return;
    }
    for (int n = is_float ? 6 : 15; n <= max_digits; n++) {
        snprintf(digits, sizeof(digits), "%.*g", n, v);
        if (is_float ? strtof(digits, NULL) == (float)v : strtod(digits, NULL) == v) {
            break;
        }
    }
    moe_text_append(out, digits, strlen(digits));
}

static void write_base64(moe_text *out, const unsigned char *bytes, size_t n)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    moe_text_append(out, "\"", 1);
    for (size_t i = 0; i < n; i += 3) {
        size_t left = n - i;
        uint32_t v =
            (uint32_t)bytes[i] << 16 | (left > 1 ? (uint32_t)bytes[i + 1] << 8 : 0) | (left > 2 ? bytes[i + 2] : 0);
        char group[4] = {letters[v >> 18], letters[v >> 12 & 63], letters[v >> 6 & 63], letters[v & 63]};

        if (left < 3) {
            group[3] = '=';
        }
        if (left < 2) {
            group[2] = '=';
        }
        moe_text_append(out, group, sizeof(group));
    }
    moe_text_append(out, "\"", 1);
}

static void write_enum(moe_text *out, const ProtobufCEnumDescriptor *type, int v)
{
    const ProtobufCEnumValue *value = protobuf_c_enum_descriptor_get_value(type, v);

    if (value != NULL) {
        moe_text_printf(out, "\"%s\"", value->name);
    } else {
        moe_text_printf(out, "%d", v); /* a value of a later version */
    }
}

static void write_value(moe_text *out, const ProtobufCFieldDescriptor *field, const void *v)
{
    switch (field->type) {
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_SFIXED32:
        moe_text_printf(out, "%" PRId32, *(const int32_t *)v);
        break;
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
        moe_text_printf(out, "\"%" PRId64 "\"", *(const int64_t *)v);
        break;
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
        moe_text_printf(out, "%" PRIu32, *(const uint32_t *)v);
        break;
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
        moe_text_printf(out, "\"%" PRIu64 "\"", *(const uint64_t *)v);
        break;
    case PROTOBUF_C_TYPE_FLOAT:
        write_number(out, (double)*(const float *)v, true);
        break;
    case PROTOBUF_C_TYPE_DOUBLE:
        write_number(out, *(const double *)v, false);
        break;
    case PROTOBUF_C_TYPE_BOOL:
        moe_text_printf(out, *(const protobuf_c_boolean *)v ? "true" : "false");
        break;
    case PROTOBUF_C_TYPE_ENUM:
        write_enum(out, field->descriptor, *(const int *)v);
        break;
    case PROTOBUF_C_TYPE_STRING: {
        const char *text = *(char *const *)v;

        moe_text_json_string(out, text, strlen(text));
        break;
    }
    case PROTOBUF_C_TYPE_BYTES:
        write_base64(out, ((const ProtobufCBinaryData *)v)->data, ((const ProtobufCBinaryData *)v)->len);
        break;
    case PROTOBUF_C_TYPE_MESSAGE:
        cli_message_json(*(ProtobufCMessage *const *)v, out);
        break;
    }
}

static void write_list(moe_text *out, const ProtobufCFieldDescriptor *field, const ProtobufCMessage *message)
{
    size_t n = *(const size_t *)at(message, field->quantifier_offset);
    const char *elements = *(char *const *)at(message, field->offset);

    moe_text_append(out, "[", 1);
    for (size_t i = 0; i < n; i++) {
        moe_text_append(out, ",", i > 0);
        write_value(out, field, elements + i * cli_element_bytes(field->type));
    }
    moe_text_append(out, "]", 1);
}

static bool is_written(const ProtobufCFieldDescriptor *field, const ProtobufCMessage *message)
{
    const void *v = at(message, field->offset);

    if (field->label == PROTOBUF_C_LABEL_REPEATED) {
        return *(const size_t *)at(message, field->quantifier_offset) > 0;
    }
    if ((field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0) {
        return *(const uint32_t *)at(message, field->quantifier_offset) == field->id;
    }
    switch (field->type) {
    case PROTOBUF_C_TYPE_STRING:
        return *(char *const *)v != NULL && **(char *const *)v != '\0';
    case PROTOBUF_C_TYPE_BYTES:
        return ((const ProtobufCBinaryData *)v)->len > 0;
    case PROTOBUF_C_TYPE_MESSAGE:
        return *(ProtobufCMessage *const *)v != NULL;
    default:
        return true;
    }
}

static void write_field(moe_text *out, const ProtobufCFieldDescriptor *field, const ProtobufCMessage *message)
{
    if (field->label == PROTOBUF_C_LABEL_REPEATED) {
        write_list(out, field, message);
    } else {
        write_value(out, field, at(message, field->offset));
    }
}

void cli_message_json(const ProtobufCMessage *message, moe_text *out)
{
    const char *divider = "";

    moe_text_append(out, "{", 1);
    for (unsigned i = 0; i < message->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &message->descriptor->fields[i];

        if (is_written(field, message)) {
            moe_text_printf(out, "%s\"%s\":", divider, field->name);
            write_field(out, field, message);
            divider = ",";
        }
    }
    moe_text_append(out, "}", 1);
}

void cli_message_lines(const ProtobufCMessage *message, moe_text *out)
{
    for (unsigned i = 0; i < message->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &message->descriptor->fields[i];

        if (is_written(field, message)) {
            moe_text_printf(out, "%s: ", field->name);
            write_field(out, field, message);
            moe_text_append(out, "\n", 1);
        }
    }
}
