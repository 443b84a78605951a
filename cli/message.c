#include "cli/message.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { PATH_NAME_MAX = 64 };

ProtobufCMessage *cli_message_new(const ProtobufCMessageDescriptor *type)
{
    ProtobufCMessage *message = calloc(1, type->sizeof_message);

    if (message != NULL) {
        protobuf_c_message_init(type, message);
    }
    return message;
}

void cli_message_free(ProtobufCMessage *message)
{
    if (message != NULL) {
        protobuf_c_message_free_unpacked(message, NULL);
    }
}

moe_status cli_message_copy(const ProtobufCMessage *message, ProtobufCMessage **out, moe_error *err)
{
    size_t n = protobuf_c_message_get_packed_size(message);
    uint8_t *bytes = malloc(n + 1);

    if (bytes != NULL) {
        protobuf_c_message_pack(message, bytes);
        *out = protobuf_c_message_unpack(message->descriptor, NULL, n, bytes);
    }
    free(bytes);
    return bytes != NULL && *out != NULL ? MOE_OK : moe_fail(err, MOE_ERR_NO_MEMORY, "message: out of memory");
}

static void *at(ProtobufCMessage *message, unsigned offset)
{
    return (char *)message + offset;
}

static moe_status out_of_memory(moe_error *err, const char *path)
{
    return moe_fail(err, MOE_ERR_NO_MEMORY, "%s: out of memory", path);
}

/* The messages come from malloc, as protobuf_c_message_free_unpacked expects of its default allocator. */
static moe_status append_slot(ProtobufCMessage *message, const ProtobufCFieldDescriptor *field, size_t size,
                              void **slot_out)
{
    size_t *n = at(message, field->quantifier_offset);
    char **array = at(message, field->offset);
    char *grown = realloc(*array, (*n + 1) * size);

    if (grown == NULL) {
        return MOE_ERR_NO_MEMORY;
    }
    *array = grown;
    *slot_out = grown + *n * size;
    memset(*slot_out, 0, size);
    *n += 1;
    return MOE_OK;
}

/* Marks the field of a oneof. Two members of one oneof are two prompts: the user has to choose. */
static moe_status mark(ProtobufCMessage *message, const ProtobufCFieldDescriptor *field, moe_error *err)
{
    if ((field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0) {
        uint32_t *which = at(message, field->quantifier_offset);

        if (*which != 0 && *which != field->id) {
            return moe_fail(err, MOE_ERR_INVALID_ARG, "something else is given in its place already");
        }
        *which = field->id;
    }
    return MOE_OK;
}

/* Steps into the (single) message field, making it when it is not there. */
static moe_status enter(ProtobufCMessage **message, const ProtobufCFieldDescriptor *field, moe_error *err)
{
    ProtobufCMessage **child = at(*message, field->offset);
    moe_status status;

    MOE_ASSERT(field->type == PROTOBUF_C_TYPE_MESSAGE && field->label != PROTOBUF_C_LABEL_REPEATED);
    status = mark(*message, field, err);
    if (status != MOE_OK) {
        return status;
    }
    if (*child == NULL) {
        *child = cli_message_new(field->descriptor);
        if (*child == NULL) {
            return out_of_memory(err, field->name);
        }
    }
    *message = *child;
    return MOE_OK;
}

/* Walks to the last name of the path; *message becomes the message that holds the field. */
static moe_status resolve(ProtobufCMessage **message, const char *path, const ProtobufCFieldDescriptor **field_out,
                          moe_error *err)
{
    for (;;) {
        const char *dot = strchr(path, '.');
        size_t n = dot != NULL ? (size_t)(dot - path) : strlen(path);
        char name[PATH_NAME_MAX];
        const ProtobufCFieldDescriptor *field;
        moe_status status;

        MOE_ASSERT(n < sizeof(name));
        memcpy(name, path, n);
        name[n] = '\0';
        field = protobuf_c_message_descriptor_get_field_by_name((*message)->descriptor, name);
        MOE_ASSERT(field != NULL);
        if (dot == NULL) {
            *field_out = field;
            return MOE_OK;
        }
        status = enter(message, field, err);
        if (status != MOE_OK) {
            return status;
        }
        path = dot + 1;
    }
}

static moe_status parse_signed(const char *text, void *slot, moe_error *err)
{
    char *end;
    long long v;

    errno = 0;
    v = strtoll(text, &end, 10);
    if (end == text || *end != '\0' || errno != 0 || v < INT32_MIN || v > INT32_MAX) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "'%s' is not a whole number within [%d, %d]", text, INT32_MIN,
                        INT32_MAX);
    }
    *(int32_t *)slot = (int32_t)v;
    return MOE_OK;
}

static moe_status parse_unsigned(const char *text, uint64_t max, uint64_t *out, moe_error *err)
{
    char *end;
    unsigned long long v;

    errno = 0;
    v = strtoull(text, &end, 10);
    /* strtoull takes "-1" and makes it the largest number. */
    if (end == text || *end != '\0' || errno != 0 || v > max || strchr(text, '-') != NULL) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "'%s' is not a whole number within [0, %llu]", text,
                        (unsigned long long)max);
    }
    *out = v;
    return MOE_OK;
}

static moe_status parse_real(const ProtobufCFieldDescriptor *field, const char *text, void *slot, moe_error *err)
{
    char *end;
    float narrow = strtof(text, &end); /* rounded once: not that of the double */
    double v = strtod(text, &end);

    if (end == text || *end != '\0') {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "'%s' is not a number", text);
    }
    if (field->type == PROTOBUF_C_TYPE_FLOAT) {
        *(float *)slot = narrow;
    } else {
        *(double *)slot = v;
    }
    return MOE_OK;
}

static moe_status parse_bool(const char *text, void *slot, moe_error *err)
{
    if (strcmp(text, "true") != 0 && strcmp(text, "false") != 0) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "must be true or false");
    }
    *(protobuf_c_boolean *)slot = strcmp(text, "true") == 0;
    return MOE_OK;
}

static moe_status parse_enum(const ProtobufCFieldDescriptor *field, const char *text, void *slot, moe_error *err)
{
    const ProtobufCEnumValue *value = protobuf_c_enum_descriptor_get_value_by_name(field->descriptor, text);

    if (value == NULL) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "'%s' is no such value", text);
    }
    *(int *)slot = value->value;
    return MOE_OK;
}

static moe_status parse_string(const ProtobufCFieldDescriptor *field, const char *text, char **slot, moe_error *err)
{
    char *copy = strdup(text);

    if (copy == NULL) {
        return out_of_memory(err, field->name);
    }
    /* The default value is the library's own constant. */
    if (*slot != NULL && *slot != (const char *)field->default_value) {
        free(*slot);
    }
    *slot = copy;
    return MOE_OK;
}

static moe_status parse_value(const ProtobufCFieldDescriptor *field, const char *text, void *slot, moe_error *err)
{
    uint64_t v = 0;
    moe_status status;

    switch (field->type) {
    case PROTOBUF_C_TYPE_INT32:
        return parse_signed(text, slot, err);
    case PROTOBUF_C_TYPE_UINT32:
        status = parse_unsigned(text, UINT32_MAX, &v, err);
        if (status == MOE_OK) {
            *(uint32_t *)slot = (uint32_t)v;
        }
        return status;
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
        return parse_unsigned(text, UINT64_MAX, slot, err);
    case PROTOBUF_C_TYPE_FLOAT:
    case PROTOBUF_C_TYPE_DOUBLE:
        return parse_real(field, text, slot, err);
    case PROTOBUF_C_TYPE_BOOL:
        return parse_bool(text, slot, err);
    case PROTOBUF_C_TYPE_ENUM:
        return parse_enum(field, text, slot, err);
    case PROTOBUF_C_TYPE_STRING:
        return parse_string(field, text, slot, err);
    default:
        return moe_fail(err, MOE_ERR_UNSUPPORTED, "a field of this type cannot be given");
    }
}

size_t cli_element_bytes(ProtobufCType type)
{
    switch (type) {
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_DOUBLE:
        return 8;
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_MESSAGE:
        return sizeof(void *);
    case PROTOBUF_C_TYPE_BYTES:
        return sizeof(ProtobufCBinaryData);
    default:
        return 4;
    }
}

static moe_status append_value(ProtobufCMessage *message, const ProtobufCFieldDescriptor *field, const char *text,
                               moe_error *err)
{
    void *slot;
    moe_status status = append_slot(message, field, cli_element_bytes(field->type), &slot);

    if (status != MOE_OK) {
        return out_of_memory(err, field->name);
    }
    status = parse_value(field, text, slot, err);
    if (status != MOE_OK) {
        *(size_t *)at(message, field->quantifier_offset) -= 1;
    }
    return status;
}

moe_status cli_message_set(ProtobufCMessage *message, const char *path, const char *text, moe_error *err)
{
    const ProtobufCFieldDescriptor *field;
    moe_status status = resolve(&message, path, &field, err);

    if (status != MOE_OK) {
        return status;
    }
    if (field->label == PROTOBUF_C_LABEL_REPEATED) {
        return append_value(message, field, text, err);
    }
    status = mark(message, field, err);
    if (status != MOE_OK) {
        return status;
    }
    return parse_value(field, text, at(message, field->offset), err);
}

moe_status cli_message_set_list(ProtobufCMessage *message, const char *path, const char *text, moe_error *err)
{
    static const char spaces[] = " \t\r\n";
    const ProtobufCFieldDescriptor *field;
    moe_status status = resolve(&message, path, &field, err);

    text += strspn(text, spaces);
    while (status == MOE_OK && *text != '\0') {
        char word[PATH_NAME_MAX];
        size_t n = strcspn(text, ", \t\r\n");

        if (n >= sizeof(word)) {
            return moe_fail(err, MOE_ERR_INVALID_ARG, "a number of %zu characters", n);
        }
        memcpy(word, text, n); /* empty between two commas: no number, and refused as such */
        word[n] = '\0';
        text += n;
        text += strspn(text, spaces);
        if (*text == ',') {
            text++;
            text += strspn(text, spaces);
        }
        status = append_value(message, field, word, err);
    }
    return status;
}

moe_status cli_message_add(ProtobufCMessage *message, const char *path, ProtobufCMessage **element_out, moe_error *err)
{
    const ProtobufCFieldDescriptor *field;
    ProtobufCMessage *element;
    void *slot;
    moe_status status = resolve(&message, path, &field, err);

    if (status != MOE_OK) {
        return status;
    }
    MOE_ASSERT(field->type == PROTOBUF_C_TYPE_MESSAGE && field->label == PROTOBUF_C_LABEL_REPEATED);
    element = cli_message_new(field->descriptor);
    if (element == NULL) {
        return out_of_memory(err, path);
    }
    status = append_slot(message, field, sizeof(element), &slot);
    if (status != MOE_OK) {
        cli_message_free(element);
        return out_of_memory(err, path);
    }
    *(ProtobufCMessage **)slot = element;
    *element_out = element;
    return MOE_OK;
}
