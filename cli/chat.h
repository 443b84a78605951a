/* chat: one conversation, and the commands that can be typed in it. */
#ifndef CONCLAVE_CLI_CHAT_H
#define CONCLAVE_CLI_CHAT_H

#include <conclave/v1/inference.pb-c.h>

#include "cli/cli.h"
#include "cli/stream.h"

/* The conversation lives in the request, which grows by two messages a turn. */
typedef struct cli_chat {
    cli_run *run;
    ProtobufCMessage *request; /* owned by cli_chat_run */
    size_t n_first;            /* messages that /reset keeps: the system's */
    cli_stream last;           /* figures of the last answer; its texts are gone */
    bool is_terminal, quit;
} cli_chat;

/* Forgets the conversation; NULL: no system message. */
MOE_NODISCARD moe_status cli_chat_begin(cli_chat *c, const char *system, moe_error *err);

/* Forgets the newest messages until n are left. */
void cli_chat_keep(const cli_chat *c, size_t n);
const Conclave__V1__Messages *cli_chat_messages(const cli_chat *c); /* NULL: none yet */

/* Runs a line that is a command: a slash, small letters, and what belongs to it. *known_out: whether it was one; else it
 * is a message. Errors: MOE_ERR_INVALID_ARG for a slash and a word that is no command, and for what belongs to one. */
MOE_NODISCARD moe_status cli_chat_command(cli_chat *c, const char *line, bool *known_out, moe_error *err);

#endif
