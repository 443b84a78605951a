#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"

/* ---------------------------------------------------------------------------------------------------------- options */

/* The first row is of all commands, the others are of those that call a server. */
static const moe_option common_options[] = {
    {.name = "json",
     .kind = MOE_OPT_BOOL,
     .offset = offsetof(cli_run, json),
     .help = "print each reply as JSON, one object per line"},
    {.name = "server",
     .kind = MOE_OPT_STRING,
     .offset = offsetof(cli_run, server),
     .fallback = "127.0.0.1:50051",
     .value = "HOST[:PORT]",
     .help = "the coordinator; port 50051 unless given; an IPv6 address with a port stands in brackets"},
    {.name = "timeout",
     .kind = MOE_OPT_F64,
     .offset = offsetof(cli_run, timeout),
     .fallback = "0",
     .min = 0,
     .max = 1e6,
     .value = "SECONDS",
     .help = "give up a call after this time; 0: never"},
    {.name = "tls",
     .kind = MOE_OPT_BOOL,
     .offset = offsetof(cli_run, tls),
     .help = "use TLS; the system's authorities may have signed the server's certificate"},
    {.name = "tls_ca",
     .kind = MOE_OPT_STRING,
     .offset = offsetof(cli_run, tls_ca),
     .value = "FILE",
     .help = "use TLS; the authorities (PEM) that may have signed the server's certificate"},
    {.name = "tls_cert",
     .kind = MOE_OPT_STRING,
     .offset = offsetof(cli_run, tls_cert),
     .value = "FILE",
     .help = "use TLS; our own certificate (PEM), where the server asks for one"},
    {.name = "tls_key",
     .kind = MOE_OPT_STRING,
     .offset = offsetof(cli_run, tls_key),
     .value = "FILE",
     .help = "private key (PEM) of --tls-cert"},
    {.name = "tls_server_name",
     .kind = MOE_OPT_STRING,
     .offset = offsetof(cli_run, tls_server_name),
     .value = "NAME",
     .help = "use TLS; the name in the server's certificate where it is not the host of --server"},
    {.name = "token_file",
     .kind = MOE_OPT_STRING,
     .offset = offsetof(cli_run, token_file),
     .value = "FILE",
     .help = "file with the bearer token in its first line; lines that begin with # are comments"},
};

static const cli_option *option_at(const cli_command *command, size_t idx)
{
    for (size_t g = 0; command->groups[g] != NULL; g++) {
        if (idx < command->groups[g]->n) {
            return &command->groups[g]->rows[idx];
        }
        idx -= command->groups[g]->n;
    }
    return NULL;
}

/* The tables of this command as one table of base; returns its length. */
static size_t build_table(const cli_command *command, moe_option table[])
{
    size_t n = 0;
    const cli_option *option;

    for (; (option = option_at(command, n)) != NULL; n++) {
        bool is_flag = option->kind == CLI_FLAG;

        MOE_ASSERT(n < CLI_MAX_OPTIONS);
        table[n] = (moe_option){
            .name = option->name,
            .kind = is_flag ? MOE_OPT_BOOL : MOE_OPT_STRING,
            .offset =
                is_flag ? offsetof(cli_run, flags) + n * sizeof(bool) : offsetof(cli_run, values) + n * sizeof(char *),
            .value = option->value,
            .help = option->help,
        };
    }
    for (size_t i = 0; i < (command->local ? 1 : MOE_COUNT(common_options)); i++) {
        table[n] = common_options[i];
        if (table[n].offset == offsetof(cli_run, timeout) && command->timeout != NULL) {
            table[n].fallback = command->timeout;
        }
        n++;
    }
    return n;
}

/* --stop-this for stop_this. */
static bool flag_is(const char *word, size_t n, const char *name)
{
    if (n != strlen(name)) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        if (word[i] != (name[i] == '_' ? '-' : name[i])) {
            return false;
        }
    }
    return true;
}

static bool find_repeat(const cli_command *command, const char *word, size_t n, size_t *idx_out)
{
    const cli_option *option;

    for (size_t i = 0; (option = option_at(command, i)) != NULL; i++) {
        if (option->kind == CLI_REPEAT && flag_is(word, n, option->name)) {
            *idx_out = i;
            return true;
        }
    }
    return false;
}

/* Takes the repeatable options out of argv, which base's table cannot hold: there the last value wins. `-n 3` becomes
 * `--n 3`. Returns the new argc. */
static moe_status take_repeats(cli_run *run, int *argc, char **argv, moe_error *err)
{
    static char long_n[] = "--n";
    int kept = 1;

    for (int i = 1; i < *argc; i++) {
        const char *word = argv[i];
        const char *equals = strchr(word, '=');
        size_t n = equals != NULL ? (size_t)(equals - word) : strlen(word);
        size_t idx;

        if (strcmp(word, "--") == 0) {
            while (i < *argc) {
                argv[kept++] = argv[i++];
            }
        } else if (n > 2 && strncmp(word, "--", 2) == 0 && find_repeat(run->command, word + 2, n - 2, &idx) &&
                   (equals != NULL || (i + 1 < *argc && strncmp(argv[i + 1], "--", 2) != 0))) {
            if (run->n_repeats == CLI_MAX_REPEATS) {
                return moe_fail(err, MOE_ERR_INVALID_ARG, "%.*s: given more than %d times", (int)n, word,
                                CLI_MAX_REPEATS);
            }
            run->repeats[run->n_repeats].option = idx;
            run->repeats[run->n_repeats++].text = equals != NULL ? equals + 1 : argv[++i];
        } else {
            argv[kept++] = strcmp(word, "-n") == 0 ? long_n : argv[i];
        }
    }
    *argc = kept;
    return MOE_OK;
}

moe_status cli_run_parse(cli_run *run, const cli_command *command, int argc, char **argv, char **env,
                         moe_options_next *next_out, moe_error *err)
{
    moe_option table[CLI_MAX_OPTIONS + CLI_MAX_COMMON];
    char name[64], summary[512];
    moe_program program = {.name = name,
                           .summary = summary,
                           .options = table,
                           .n_options = build_table(command, table),
                           .arguments = command->usage,
                           .origins = run->origins};
    moe_status status;

    _Static_assert(MOE_COUNT(common_options) == CLI_MAX_COMMON, "room for every common option");
    *run = (cli_run){.command = command};
    snprintf(name, sizeof(name), "conclave %s", command->name);
    snprintf(summary, sizeof(summary), "%s.%s%s", command->summary, command->arguments != NULL ? "\n  " : "",
             command->arguments != NULL ? command->arguments : "");
    run->args = calloc(command->max_args + 1, sizeof(*run->args));
    if (run->args == NULL) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "arguments: out of memory");
    }
    status = take_repeats(run, &argc, argv, err);
    if (status == MOE_OK) {
        status = moe_options_parse(&program, run, argc, argv, env, run->args, command->max_args, &run->n_args, next_out,
                                   err);
    }
    if (status != MOE_OK) {
        free(run->args);
        *run = (cli_run){0};
    }
    return status;
}

void cli_run_fini(cli_run *run)
{
    moe_option table[CLI_MAX_OPTIONS + CLI_MAX_COMMON];
    moe_program program = {.options = table};

    if (run->command != NULL) {
        program.n_options = build_table(run->command, table);
        moe_options_fini(&program, run);
    }
    cli_client_close(run->client);
    free(run->args);
    *run = (cli_run){0};
}

static bool find_option(const cli_run *run, const char *name, size_t *idx_out)
{
    const cli_option *option;

    for (size_t i = 0; (option = option_at(run->command, i)) != NULL; i++) {
        if (strcmp(option->name, name) == 0) {
            *idx_out = i;
            return true;
        }
    }
    return false;
}

void cli_run_wait_for_ever(cli_run *run)
{
    moe_option table[CLI_MAX_OPTIONS + CLI_MAX_COMMON];
    size_t n = build_table(run->command, table);

    for (size_t i = 0; i < n; i++) {
        if (table[i].offset == offsetof(cli_run, timeout) && run->origins[i] == MOE_FROM_DEFAULT) {
            run->timeout = 0;
        }
    }
}

static void on_interrupt(int number)
{
    (void)number;
}

void cli_run_ignore_interrupts(cli_run *run)
{
    struct sigaction action = {.sa_handler = on_interrupt}; /* not SIG_IGN: it would interrupt no read */

    sigaction(SIGINT, &action, NULL);
    run->outlives_interrupts = true;
}

bool cli_run_flag(const cli_run *run, const char *name)
{
    size_t idx;

    return find_option(run, name, &idx) && run->flags[idx];
}

const char *cli_run_value(const cli_run *run, const char *name)
{
    size_t idx;

    return find_option(run, name, &idx) ? run->values[idx] : NULL;
}

size_t cli_run_repeated(const cli_run *run, const char *name, const char *out[CLI_MAX_REPEATS])
{
    size_t idx, n = 0;

    if (!find_option(run, name, &idx)) {
        return 0;
    }
    for (size_t i = 0; i < run->n_repeats; i++) {
        if (run->repeats[i].option == idx) {
            out[n++] = run->repeats[i].text;
        }
    }
    if (n == 0 && run->values[idx] != NULL) { /* of the environment, or of a file */
        out[n++] = run->values[idx];
    }
    return n;
}

bool cli_run_given(const cli_run *run, const char *name)
{
    moe_option table[CLI_MAX_OPTIONS + CLI_MAX_COMMON];
    size_t n = build_table(run->command, table);

    for (size_t i = 0; i < n; i++) {
        if (strcmp(table[i].name, name) == 0) {
            return run->origins[i] == MOE_FROM_FLAG;
        }
    }
    return false;
}

/* ------------------------------------------------------------------------------------------------ requests */

static moe_status label_reason(moe_status status, const char *name, const char *text, moe_option_origin from,
                               const moe_error *reason, moe_error *err)
{
    moe_error label;

    if (status == MOE_OK) {
        return MOE_OK;
    }
    moe_option_label(name, text, from, NULL, &label);
    return moe_fail(err, status, "%s: %s", label.text, reason->text);
}

static moe_status fill_one(const cli_option *option, const char *text, moe_option_origin from,
                           ProtobufCMessage *request, moe_error *err)
{
    moe_error reason;
    moe_status status = option->kind == CLI_LIST ? cli_message_set_list(request, option->field, text, &reason)
                                                 : cli_message_set(request, option->field, text, &reason);

    return label_reason(status, option->name, text, from, &reason, err);
}

moe_status cli_run_fill_given(const cli_run *run, const char *name, ProtobufCMessage *request, moe_error *err)
{
    const char *text = cli_run_given(run, name) ? cli_run_value(run, name) : NULL;
    moe_error reason;

    return text == NULL
               ? MOE_OK
               : label_reason(cli_message_set(request, name, text, &reason), name, text, MOE_FROM_FLAG, &reason, err);
}

static moe_status fill(const cli_run *run, ProtobufCMessage *request, moe_error *err)
{
    const cli_option *option;
    moe_status status = MOE_OK;

    for (size_t i = 0; status == MOE_OK && (option = option_at(run->command, i)) != NULL; i++) {
        const char *text = option->kind == CLI_FLAG && run->flags[i] ? "true" : run->values[i];

        if (option->field != NULL && text != NULL) {
            status = fill_one(option, text, run->origins[i], request, err);
        }
    }
    for (size_t i = 0; status == MOE_OK && i < run->n_repeats; i++) {
        status = fill_one(option_at(run->command, run->repeats[i].option), run->repeats[i].text, MOE_FROM_FLAG, request,
                          err);
    }
    return status;
}

moe_status cli_check_input(const char *what, const moe_text *text, moe_error *err)
{
    if (text->failed) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "%s: more than %d bytes", what, CLI_MAX_INPUT);
    }
    if (text->size > 0 && memchr(text->data, '\0', text->size) != NULL) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "%s: a NUL byte, which text cannot hold", what);
    }
    return MOE_OK;
}

static moe_status read_standard_input(moe_text *text, moe_error *err)
{
    char chunk[65536];
    size_t n;

    moe_text_init(text, CLI_MAX_INPUT);
    while ((n = fread(chunk, 1, sizeof(chunk), stdin)) > 0) {
        moe_text_append(text, chunk, n);
    }
    if (ferror(stdin) != 0) {
        return moe_fail(err, MOE_ERR_IO, "standard input: %s", strerror(errno));
    }
    return cli_check_input("standard input", text, err);
}

static bool takes_tokens(const cli_run *run)
{
    size_t idx;

    return find_option(run, "tokens", &idx);
}

moe_status cli_run_fill_prompt(const cli_run *run, ProtobufCMessage *request, moe_error *err)
{
    moe_text text;
    moe_status status;

    if ((run->n_args > 0) == (cli_run_value(run, "tokens") != NULL)) {
        return moe_fail(err, MOE_ERR_INVALID_ARG,
                        run->n_args > 0     ? "give a text or --tokens, not both"
                        : takes_tokens(run) ? "give a text (- for standard input) or --tokens"
                                            : "give a text (- for standard input)");
    }
    if (run->n_args == 0) {
        return MOE_OK;
    }
    if (strcmp(run->args[0], "-") != 0) {
        return cli_message_set(request, "text", run->args[0], err);
    }
    status = read_standard_input(&text, err);
    if (status == MOE_OK) {
        status = cli_message_set(request, "text", moe_text_cstr(&text), err);
    }
    moe_text_fini(&text);
    return status;
}

moe_status cli_run_request(const cli_run *run, const ProtobufCMessageDescriptor *type, ProtobufCMessage **out,
                           moe_error *err)
{
    ProtobufCMessage *request = cli_message_new(type);
    moe_status status;

    if (request == NULL) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "request: out of memory");
    }
    status = fill(run, request, err);
    if (status != MOE_OK) {
        cli_message_free(request);
        return status;
    }
    *out = request;
    return MOE_OK;
}

/* ------------------------------------------------------------------------------------------------ calls */

moe_status cli_print_text(moe_text *text, moe_error *err)
{
    moe_status status = MOE_OK;

    if (text->failed) {
        status = moe_fail(err, MOE_ERR_NO_MEMORY, "reply: out of memory for its text");
    } else {
        cli_put(stdout, moe_text_cstr(text), text->size);
        status = cli_flush(err); /* a reader of the stream waits for it */
    }
    moe_text_fini(text);
    return status;
}

moe_status cli_print_json(void *ctx, const ProtobufCMessage *reply, moe_error *err)
{
    moe_text line;

    (void)ctx;
    moe_text_init(&line, CLI_MAX_PRINT);
    cli_message_json(reply, &line);
    moe_text_append(&line, "\n", 1);
    return cli_print_text(&line, err);
}

moe_status cli_print_lines(void *ctx, const ProtobufCMessage *reply, moe_error *err)
{
    moe_text lines;

    (void)ctx;
    moe_text_init(&lines, CLI_MAX_PRINT);
    cli_message_lines(reply, &lines);
    return cli_print_text(&lines, err);
}

static moe_status open_client(cli_run *run, moe_error *err)
{
    cli_client_options options = {
        .server = run->server,
        .tls = run->tls,
        .tls_ca = run->tls_ca,
        .tls_cert = run->tls_cert,
        .tls_key = run->tls_key,
        .tls_server_name = run->tls_server_name,
        .token_file = run->token_file,
        .timeout_s = run->timeout,
        .outlives_interrupts = run->outlives_interrupts,
    };

    if (run->client != NULL) {
        return MOE_OK;
    }
    return cli_client_open(&options, &run->client, err);
}

moe_status cli_run_call(cli_run *run, const char *path, const ProtobufCMessage *request,
                        const ProtobufCMessageDescriptor *reply_type, cli_reply_fn fn, void *ctx, moe_error *err)
{
    moe_status status = open_client(run, err);

    return status == MOE_OK ? cli_client_call(run->client, path, request, reply_type, fn, ctx, err) : status;
}

static moe_status keep_reply(void *ctx, const ProtobufCMessage *reply, moe_error *err)
{
    ProtobufCMessage **last = ctx;

    cli_message_free(*last);
    *last = NULL;
    return cli_message_copy(reply, last, err);
}

moe_status cli_run_fetch(cli_run *run, const char *path, const ProtobufCMessage *request,
                         const ProtobufCMessageDescriptor *reply_type, ProtobufCMessage **out, moe_error *err)
{
    ProtobufCMessage *last = NULL;
    moe_status status = cli_run_call(run, path, request, reply_type, keep_reply, &last, err);

    if (status == MOE_OK && last == NULL) {
        status = moe_fail(err, MOE_ERR_DATA_LOSS, "the server ended without a reply");
    }
    if (status != MOE_OK) {
        cli_message_free(last);
        return status;
    }
    *out = last;
    return MOE_OK;
}

static moe_status print_replies(cli_run *run, bool has_prompt, const char *path,
                                const ProtobufCMessageDescriptor *request_type,
                                const ProtobufCMessageDescriptor *reply_type, cli_reply_fn print, moe_error *err)
{
    ProtobufCMessage *request;
    moe_status status = cli_run_request(run, request_type, &request, err);

    if (status != MOE_OK) {
        return status;
    }
    if (has_prompt) {
        status = cli_run_fill_prompt(run, request, err);
    }
    if (status == MOE_OK) {
        status = cli_run_call(run, path, request, reply_type, run->json ? cli_print_json : print, run, err);
    }
    cli_message_free(request);
    return status;
}

moe_status cli_run_print(cli_run *run, const char *path, const ProtobufCMessageDescriptor *request_type,
                         const ProtobufCMessageDescriptor *reply_type, cli_reply_fn print, moe_error *err)
{
    return print_replies(run, false, path, request_type, reply_type, print, err);
}

moe_status cli_run_print_prompt(cli_run *run, const char *path, const ProtobufCMessageDescriptor *request_type,
                                const ProtobufCMessageDescriptor *reply_type, cli_reply_fn print, moe_error *err)
{
    return print_replies(run, true, path, request_type, reply_type, print, err);
}

/* ------------------------------------------------------------------------------------------------ output */

static int output_errno; /* of the first write to standard output that failed */

static void put_safely(FILE *out, const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)text[i];

        fputc((c < ' ' && c != '\n' && c != '\t') || c == 127 ? '?' : c, out);
    }
}

void cli_put(FILE *out, const char *text, size_t n)
{
    if (isatty(fileno(out))) {
        put_safely(out, text, n);
    } else if (fwrite(text, 1, n, out) != n && out == stdout && output_errno == 0) {
        output_errno = errno;
    }
}

moe_status cli_flush(moe_error *err)
{
    if (output_errno != 0) {
        return moe_fail(err, MOE_ERR_IO, "standard output: %s", strerror(output_errno));
    }
    return moe_output_flush(err);
}

/* ------------------------------------------------------------------------------------------------ words */
static const cli_word *find_word(const cli_run *run, const cli_word *words, size_t n, moe_error *err)
{
    moe_text all;

    if (run->n_args == 0) {
        return &words[0];
    }
    for (size_t i = 0; i < n; i++) {
        if (strcmp(run->args[0], words[i].word) == 0) {
            return &words[i];
        }
    }
    moe_text_init(&all, 1 << 10);
    for (size_t i = 0; i < n; i++) {
        moe_text_printf(&all, "%s%s", i == 0 ? "" : i + 1 < n ? ", " : " or ", words[i].word);
    }
    (void)moe_fail(err, MOE_ERR_INVALID_ARG, "\"%.64s\": say %s", run->args[0], moe_text_cstr(&all));
    moe_text_fini(&all);
    return NULL;
}

moe_status cli_run_word(cli_run *run, const cli_word *words, size_t n, moe_error *err)
{
    const cli_word *word = find_word(run, words, n, err);
    size_t given = run->n_args > 0 ? run->n_args - 1 : 0;

    if (word == NULL) {
        return MOE_ERR_INVALID_ARG;
    }
    if (given < word->min_args || given > word->max_args) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "%s %s: %zu arguments; it takes %zu to %zu: see --help",
                        run->command->name, word->word, given, word->min_args, word->max_args);
    }
    return word->run(run, err);
}
