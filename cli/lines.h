/* lines: what a person types, message by message: with editing and history at a terminal (libedit), plainly from a pipe.
 *
 * Threads: one; at a terminal libedit has the signals while a line is being typed. */
#ifndef CONCLAVE_CLI_LINES_H
#define CONCLAVE_CLI_LINES_H

#include "base/base.h"

typedef struct cli_lines cli_lines;

typedef enum {
    CLI_LINES_MESSAGE,
    CLI_LINES_DROPPED, /* Ctrl-C: what was typed is to be forgotten */
    CLI_LINES_END,     /* Ctrl-D, or the end of the file */
} cli_lines_what;

/* Whether there is somebody at a terminal to talk to: standard input is one, and so is a way to answer. */
bool cli_lines_at_terminal(void);

/* keep_history: the lines of a terminal are kept in $XDG_STATE_HOME/conclave/history (else ~/.local/state/conclave/
 * history), mode 0600, the newest 1000. Where that cannot be, a line on standard error says why and nothing is kept. */
MOE_NODISCARD moe_status cli_lines_open(bool keep_history, cli_lines **out, moe_error *err);
void cli_lines_close(cli_lines *lines);

/* The next message, without its last newline. A line that ends in \ goes on in the next; """ at its beginning begins a
 * block that the next """ at the end of a line ends. Errors: MOE_ERR_INVALID_ARG over CLI_MAX_INPUT bytes or with a NUL
 * byte, MOE_ERR_IO. *message is emptied first. */
MOE_NODISCARD moe_status cli_lines_read(cli_lines *lines, moe_text *message, cli_lines_what *what_out, moe_error *err);

#endif
