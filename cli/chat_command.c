#include <string.h>

#include "cli/chat.h"

typedef struct command {
    const char *name, *value, *help;
    moe_status (*run)(cli_chat *c, const char *value, moe_error *err);
} command;

static moe_status run_help(cli_chat *c, const char *value, moe_error *err);

static void say_it_begins_again(const cli_chat *c)
{
    if (c->is_terminal) {
        fprintf(stderr, "The conversation begins again.\n");
    }
}

static moe_status run_reset(cli_chat *c, const char *value, moe_error *err)
{
    (void)value;
    (void)err;
    cli_chat_keep(c, c->n_first);
    say_it_begins_again(c);
    return MOE_OK;
}

static moe_status run_system(cli_chat *c, const char *value, moe_error *err)
{
    if (*value != '\0') {
        moe_status status = cli_chat_begin(c, value, err);

        if (status == MOE_OK) {
            say_it_begins_again(c);
        }
        return status;
    }
    if (c->n_first == 0) {
        fprintf(stderr, "no system message\n");
    } else {
        const char *text = cli_chat_messages(c)->messages[0]->content;

        cli_put(stderr, text, strlen(text));
        fputc('\n', stderr);
    }
    return MOE_OK;
}

/* A number holds for every answer from now on; none: the server draws one for each. */
static moe_status run_seed(cli_chat *c, const char *value, moe_error *err)
{
    Conclave__V1__Sampling *sampling = ((Conclave__V1__GenerateRequest *)c->request)->sampling;
    moe_error reason;

    if (*value == '\0') {
        if (sampling != NULL) {
            sampling->has_seed_case = 0;
        }
        fprintf(stderr, "The server draws a seed for each answer; /stats shows it.\n");
        return MOE_OK;
    }
    if (cli_message_set(c->request, "sampling.seed", value, &reason) != MOE_OK) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "/seed: %s", reason.text);
    }
    return MOE_OK;
}

static moe_status run_stats(cli_chat *c, const char *value, moe_error *err)
{
    (void)value;
    (void)err;
    cli_stream_stats(&c->last, stderr);
    return MOE_OK;
}

static moe_status run_quit(cli_chat *c, const char *value, moe_error *err)
{
    (void)value;
    (void)err;
    c->quit = true;
    return MOE_OK;
}

static const command commands[] = {
    {"help", "", "this list", run_help},
    {"reset", "", "begin the conversation again; the system message stays", run_reset},
    {"system", "TEXT", "begin again with this system message; without TEXT: show it", run_system},
    {"seed", "N", "use this seed from now on; without N: a new one for each answer", run_seed},
    {"stats", "", "tokens, speed and seed of the last answer", run_stats},
    {"quit", "", "end; Ctrl-D too", run_quit},
};

static moe_status run_help(cli_chat *c, const char *value, moe_error *err)
{
    (void)c;
    (void)value;
    (void)err;
    for (size_t i = 0; i < MOE_COUNT(commands); i++) {
        fprintf(stderr, "  /%-6s %-5s %s\n", commands[i].name, commands[i].value, commands[i].help);
    }
    fprintf(stderr,
            "A line that ends in \\ goes on in the next. \"\"\" begins a message of several lines, \"\"\" ends it.\n"
            "A message that begins with / is sent when a blank stands before it. Ctrl-C stops an answer.\n");
    return MOE_OK;
}

static moe_status unknown(const char *name, size_t n, moe_error *err)
{
    moe_guess guess = moe_guess_of(name, n);

    for (size_t i = 0; i < MOE_COUNT(commands); i++) {
        moe_guess_offer(&guess, commands[i].name);
    }
    return moe_fail(err, MOE_ERR_INVALID_ARG, "/%.*s: no such command; %s%s%s", (int)MOE_MIN(n, (size_t)64), name,
                    guess.best != NULL ? "did you mean /" : "/help lists them", guess.best != NULL ? guess.best : "",
                    guess.best != NULL ? "?" : "");
}

moe_status cli_chat_command(cli_chat *c, const char *line, bool *known_out, moe_error *err)
{
    size_t n = line[0] == '/' ? strspn(line + 1, "abcdefghijklmnopqrstuvwxyz") : 0;
    const char *value = line + 1 + n;

    *known_out = n > 0 && (*value == '\0' || *value == ' ' || *value == '\t');
    if (!*known_out) {
        return MOE_OK;
    }
    for (size_t i = 0; i < MOE_COUNT(commands); i++) {
        if (strlen(commands[i].name) != n || memcmp(commands[i].name, line + 1, n) != 0) {
            continue;
        }
        value += strspn(value, " \t");
        if (*value != '\0' && *commands[i].value == '\0') {
            return moe_fail(err, MOE_ERR_INVALID_ARG, "/%s: takes nothing after it", commands[i].name);
        }
        return commands[i].run(c, value, err);
    }
    return unknown(line + 1, n, err);
}
