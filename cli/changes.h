/* changes: what the commands that change packs and sets share. */
#ifndef CONCLAVE_CLI_CHANGES_H
#define CONCLAVE_CLI_CHANGES_H

#include <conclave/v1/admin.pb-c.h>

#include "cli/cli.h"

#define CLI_SET_DIGITS 12 /* of a set's id, for people */

/* Calls Admin's method with the request, into whose `options` go --why, --by and --dry-run; tells how far it is on standard
 * error, and prints the result. */
MOE_NODISCARD moe_status cli_change_call(cli_run *run, const char *method, ProtobufCMessage *request, moe_error *err);
/* Experts as "L:E,L:E-E,..." into a repeated field `experts` of ExpertList. what: begins the error. */
MOE_NODISCARD moe_status cli_change_experts(const char *what, const char *text, ProtobufCMessage *request,
                                            moe_error *err);
/* A new request of a type; fills a text field where there is a text. */
MOE_NODISCARD moe_status cli_change_request(const ProtobufCMessageDescriptor *type, const char *field, const char *text,
                                            ProtobufCMessage **out, moe_error *err);
/* Such a request, and the last reply to it, owned: cli_message_free. */
MOE_NODISCARD moe_status cli_change_fetch(cli_run *run, const char *path, const ProtobufCMessageDescriptor *type,
                                          const char *field, const char *text,
                                          const ProtobufCMessageDescriptor *reply_type, ProtobufCMessage **out,
                                          moe_error *err);
/* The whole of such a command: a request of a type, with the first argument in one field and the second in another (NULL: none),
 * and its call. */
MOE_NODISCARD moe_status cli_change_words(cli_run *run, const char *method, const ProtobufCMessageDescriptor *type,
                                          const char *field, const char *to, moe_error *err);
/* "0.2%" or "0.002" into a field; `option` begins the error. */
MOE_NODISCARD moe_status cli_change_put_share(ProtobufCMessage *m, const char *field, const char *option,
                                              const char *text, moe_error *err);
MOE_NODISCARD moe_status cli_change_put_number(ProtobufCMessage *m, const char *field, uint64_t number, moe_error *err);
/* One more of a repeated field of messages about a layer each; *out is the request's. */
MOE_NODISCARD moe_status cli_change_add_layer(ProtobufCMessage *request, const char *field, uint64_t layer,
                                              ProtobufCMessage **out, moe_error *err);
/* The values of a repeatable option into the field of that name. */
MOE_NODISCARD moe_status cli_change_repeated(const cli_run *run, const char *name, ProtobufCMessage *request,
                                             moe_error *err);
/* A line per layer: "mark layer 3: experts 0-4,7". */
void cli_put_expert_lists(Conclave__V1__ExpertList *const *lists, size_t n, const char *mark, moe_text *out);
/* What nodes could drop, a line each. */
void cli_put_savings(const Conclave__V1__ChangeResult *r, moe_text *out);
void cli_put_time(uint64_t ms, moe_text *out); /* of this machine's zone; "-": 0 */

#endif
