/* message: protobuf messages by field name, so that a command is a table of options and fields.
 *
 * Nouns: a message made by cli_message_new belongs to the caller, with everything below it, until cli_message_free.
 * Threads: none of this is shared. */
#ifndef CONCLAVE_CLI_MESSAGE_H
#define CONCLAVE_CLI_MESSAGE_H

#include <protobuf-c/protobuf-c.h>

#include "base/base.h"

/* NULL: out of memory. */
ProtobufCMessage *cli_message_new(const ProtobufCMessageDescriptor *type);
void cli_message_free(ProtobufCMessage *message);
/* Owned. Errors: MOE_ERR_NO_MEMORY. */
MOE_NODISCARD moe_status cli_message_copy(const ProtobufCMessage *message, ProtobufCMessage **out, moe_error *err);

/* Sets the field at `path` ("sampling.top_p") from what the user wrote; makes the messages on the way, and marks the
 * members of oneofs. A repeated field gets one more element. Enums are given by name, booleans as true or false.
 * Errors: MOE_ERR_INVALID_ARG says what is taken; the option is named by the caller. An unknown path is our bug
 * (asserted). */
MOE_NODISCARD moe_status cli_message_set(ProtobufCMessage *message, const char *path, const char *text, moe_error *err);

/* The same for a repeated field and a list divided by commas or white space; an empty list marks the
 * field's message. */
MOE_NODISCARD moe_status cli_message_set_list(ProtobufCMessage *message, const char *path, const char *text,
                                              moe_error *err);

/* One more element of a repeated message field; borrowed from `message`. */
MOE_NODISCARD moe_status cli_message_add(ProtobufCMessage *message, const char *path, ProtobufCMessage **element_out,
                                         moe_error *err);

/* Appends the message as proto3 JSON in one line: the names of the .proto file, 64-bit integers as strings (most readers
 * of JSON keep 53 bits), enums by name, bytes in base64, floats with as few digits as give the same float, NaN and
 * infinities as strings. Left out: unset fields, empty lists, and empty strings and bytes of fields that cannot be
 * unset. */
void cli_message_json(const ProtobufCMessage *message, moe_text *out);

/* Of one element in a repeated field's array. */
size_t cli_element_bytes(ProtobufCType type);

/* Appends one "name: value" line per field that cli_message_json would write. */
void cli_message_lines(const ProtobufCMessage *message, moe_text *out);

#endif
