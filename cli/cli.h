/* cli: the program `conclave`.
 *
 * Nouns: a command is a row of the table in commands.c: a name, its options and what it runs. An option names the
 * request field that it fills, so most commands are nothing but their row. A run is one command with its parsed
 * options. Threads: one; SIGINT during a call cancels that call. */
#ifndef CONCLAVE_CLI_CLI_H
#define CONCLAVE_CLI_CLI_H

#include "base/base.h"
#include "cli/client.h"
#include "cli/message.h"

enum {
    CLI_MAX_GROUPS = 6,
    CLI_MAX_OPTIONS = 40,     /* of one command */
    CLI_MAX_COMMON = 9,       /* of every command */
    CLI_MAX_REPEATS = 256,    /* values of repeatable options; the server takes 16 stop strings */
    CLI_MAX_INPUT = 64 << 20, /* bytes of standard input */
};

#define CLI_MAX_PRINT ((size_t)4 << 30) /* bytes of one reply in text */

typedef enum {
    CLI_VALUE,  /* one value */
    CLI_FLAG,   /* sets a bool field to true */
    CLI_LIST,   /* 1,2,3 into a repeated field */
    CLI_REPEAT, /* may be given several times, each adds to a repeated field */
} cli_option_kind;

typedef struct cli_option {
    const char *name;  /* snake_case; --with-hyphens on the command line */
    const char *field; /* path in the request; NULL: the command looks at it itself */
    cli_option_kind kind;
    const char *value; /* shown in --help */
    const char *help;
} cli_option;

typedef struct cli_options {
    const cli_option *rows;
    size_t n;
} cli_options;

typedef struct cli_run cli_run;

typedef struct cli_command {
    const char *name;
    const char *usage;     /* the arguments in the usage line; NULL when none are taken */
    const char *arguments; /* what --help says of them; NULL */
    const char *summary;
    const char *timeout;                       /* default of --timeout; NULL: none */
    const cli_options *groups[CLI_MAX_GROUPS]; /* ends with NULL */
    size_t max_args;
    moe_status (*run)(cli_run *run, moe_error *err);
    bool local; /* needs no server: of the common options it has only --json */
} cli_command;

extern const cli_command cli_commands[];
extern const size_t cli_n_commands;

/* Filled by cli_run_parse; what is in it stays until cli_run_fini. */
struct cli_run {
    const cli_command *command;
    /* What every command has. */
    char *server, *tls_ca, *tls_cert, *tls_key, *tls_server_name, *token_file; /* owned */
    double timeout;
    bool json, tls;
    bool outlives_interrupts;
    /* The command's own, in the order of its groups. */
    bool flags[CLI_MAX_OPTIONS];
    char *values[CLI_MAX_OPTIONS]; /* owned; NULL: not given */
    struct {
        size_t option;
        const char *text; /* borrowed from argv */
    } repeats[CLI_MAX_REPEATS];
    size_t n_repeats;
    moe_option_origin origins[CLI_MAX_OPTIONS + CLI_MAX_COMMON];
    const char **args; /* owned array, borrowed strings */
    size_t n_args;
    cli_client *client; /* owned; opened by the first call */
};

/* argv[0] is the command's name. env as in moe_options_parse. On failure there is nothing to free. */
MOE_NODISCARD moe_status cli_run_parse(cli_run *run, const cli_command *command, int argc, char **argv, char **env,
                                       moe_options_next *next_out, moe_error *err);
void cli_run_fini(cli_run *run);

/* The options by name: false or NULL when it was not given, or is none of this command's. */
bool cli_run_flag(const cli_run *run, const char *name);
const char *cli_run_value(const cli_run *run, const char *name);
/* The values of a repeatable option, in their order; returns how many. */
size_t cli_run_repeated(const cli_run *run, const char *name, const char *out[CLI_MAX_REPEATS]);
/* Whether it stands on the command line: not in the environment, nor in a file. */
bool cli_run_given(const cli_run *run, const char *name);

/* A new request with every option that was given written into its field; owned by the caller. */
MOE_NODISCARD moe_status cli_run_request(const cli_run *run, const ProtobufCMessageDescriptor *type,
                                         ProtobufCMessage **out, moe_error *err);
/* Writes an option of the command line into the field of its name; nothing when it was not given there. */
MOE_NODISCARD moe_status cli_run_fill_given(const cli_run *run, const char *name, ProtobufCMessage *request,
                                            moe_error *err);
/* Text that came in: at most CLI_MAX_INPUT bytes (its bound) and no NUL. `what` begins the error. */
MOE_NODISCARD moe_status cli_check_input(const char *what, const moe_text *text, moe_error *err);
/* The prompt: the first argument, or standard input for "-", into the string field `text`; or what --tokens has put in
 * already. Errors: MOE_ERR_INVALID_ARG when there is neither or both. */
MOE_NODISCARD moe_status cli_run_fill_prompt(const cli_run *run, ProtobufCMessage *request, moe_error *err);

/* Calls; the first call opens the client. */
MOE_NODISCARD moe_status cli_run_call(cli_run *run, const char *path, const ProtobufCMessage *request,
                                      const ProtobufCMessageDescriptor *reply_type, cli_reply_fn fn, void *ctx,
                                      moe_error *err);
/* The last reply of a call, owned: cli_message_free. Errors: also MOE_ERR_DATA_LOSS: there was none. */
MOE_NODISCARD moe_status cli_run_fetch(cli_run *run, const char *path, const ProtobufCMessage *request,
                                       const ProtobufCMessageDescriptor *reply_type, ProtobufCMessage **out,
                                       moe_error *err);
/* Makes the request from the options, calls, and prints each reply: as JSON with --json, else by `print` (ctx: the
 * run). */
MOE_NODISCARD moe_status cli_run_print(cli_run *run, const char *path, const ProtobufCMessageDescriptor *request_type,
                                       const ProtobufCMessageDescriptor *reply_type, cli_reply_fn print,
                                       moe_error *err);
/* The same with a prompt, as cli_run_fill_prompt. */
MOE_NODISCARD moe_status cli_run_print_prompt(cli_run *run, const char *path,
                                              const ProtobufCMessageDescriptor *request_type,
                                              const ProtobufCMessageDescriptor *reply_type, cli_reply_fn print,
                                              moe_error *err);
/* A command whose replies have no end: the default of --timeout does not hold; one that was given does. */
void cli_run_wait_for_ever(cli_run *run);
/* Ctrl-C ends a call and never the program. Before the first call. */
void cli_run_ignore_interrupts(cli_run *run);
/* The text on standard output, flushed, since a reader of a stream waits for it; frees the text. */
MOE_NODISCARD moe_status cli_print_text(moe_text *text, moe_error *err);
/* One line of JSON on standard output; ctx is not used. */
moe_status cli_print_json(void *ctx, const ProtobufCMessage *reply, moe_error *err);
/* One line per field; ctx is not used. */
moe_status cli_print_lines(void *ctx, const ProtobufCMessage *reply, moe_error *err);

/* What a command's first argument says is to be done; without one it is the first of them. */
typedef struct cli_word {
    const char *word;
    size_t min_args, max_args; /* after it */
    moe_status (*run)(cli_run *run, moe_error *err);
} cli_word;
MOE_NODISCARD moe_status cli_run_word(cli_run *run, const cli_word *words, size_t n, moe_error *err);

/* The folder's commands. */
moe_status cli_generate_run(cli_run *run, moe_error *err);
moe_status cli_chat_run(cli_run *run, moe_error *err);
moe_status cli_score_run(cli_run *run, moe_error *err);
moe_status cli_classify_run(cli_run *run, moe_error *err);
moe_status cli_tokenize_run(cli_run *run, moe_error *err);
moe_status cli_detokenize_run(cli_run *run, moe_error *err);
moe_status cli_model_run(cli_run *run, moe_error *err);
moe_status cli_health_run(cli_run *run, moe_error *err);
moe_status cli_experts_run(cli_run *run, moe_error *err);
moe_status cli_nodes_run(cli_run *run, moe_error *err);
moe_status cli_placement_run(cli_run *run, moe_error *err);
moe_status cli_convert_run(cli_run *run, moe_error *err);
moe_status cli_packs_run(cli_run *run, moe_error *err);
moe_status cli_sets_run(cli_run *run, moe_error *err);
moe_status cli_manifest_run(cli_run *run, moe_error *err);
moe_status cli_export_run(cli_run *run, moe_error *err);

/* How far a command has come, on standard error: every hundredth on a terminal, else every tenth. The function takes a
 * cli_progress and the bytes done and in all: a checkpoint_progress. */
typedef struct cli_progress {
    const char *what; /* borrowed */
    bool is_terminal;
    size_t shown; /* hundredths */
} cli_progress;

cli_progress cli_progress_of(const char *what);
void cli_progress_show(void *ctx, size_t done, size_t total);
/* Ends a line that a failure has cut short. */
void cli_progress_break(const cli_progress *p);
/* SIGINT and SIGTERM are only noted from now on; a second one ends the program at once. */
void cli_catch_stop(void);
bool cli_is_stopped(void);

/* Writes text that came from a server or a model. On a terminal, control characters other than tab and newline become
 * "?", so that an answer cannot drive the terminal. */
void cli_put(FILE *out, const char *text, size_t n);
/* Appends a token as a quoted string. It may end inside of a code point: such bytes are shown in hexadecimal. */
void cli_token_text(const ProtobufCBinaryData *token, moe_text *out);
/* Flushes standard output. Errors: MOE_ERR_IO with the reason of the first write that failed. */
MOE_NODISCARD moe_status cli_flush(moe_error *err);

/* The whole program; the exit code. */
int cli_main(int argc, char **argv);

#endif
