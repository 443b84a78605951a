#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <conclave/v1/inference.pb-c.h>

#include "cli/cli.h"
#include "cli/stream.h"

/* The conversation lives in the request, which grows by two messages a turn. */
typedef struct chat {
    cli_run *run;
    ProtobufCMessage *request;
    bool is_terminal;
} chat;

static Conclave__V1__Messages *messages_of(const chat *c)
{
    return ((Conclave__V1__GenerateRequest *)c->request)->messages;
}

static moe_status add_message(chat *c, const char *role, const char *content, moe_error *err)
{
    ProtobufCMessage *message;
    moe_status status = cli_message_add(c->request, "messages.messages", &message, err);

    if (status == MOE_OK) {
        status = cli_message_set(message, "role", role, err);
    }
    if (status == MOE_OK) {
        status = cli_message_set(message, "content", content, err);
    }
    return status;
}

/* Forgets the newest messages until n are left. */
static void keep_messages(const chat *c, size_t n)
{
    Conclave__V1__Messages *messages = messages_of(c);

    while (messages != NULL && messages->n_messages > n) {
        cli_message_free((ProtobufCMessage *)messages->messages[--messages->n_messages]);
    }
}

static size_t n_messages(const chat *c)
{
    return messages_of(c) != NULL ? messages_of(c)->n_messages : 0;
}

/* A turn that failed is forgotten: the same line may be typed again. */
static moe_status turn(chat *c, const char *line, moe_error *err)
{
    size_t before = n_messages(c);
    cli_stream stream;
    moe_status status = add_message(c, "ROLE_USER", line, err);

    cli_stream_init(&stream, c->run->json ? CLI_STREAM_JSON : CLI_STREAM_TEXT, false);
    if (status == MOE_OK) {
        status = cli_run_call(c->run, "/conclave.v1.Inference/Generate", c->request,
                              &conclave__v1__generate_response__descriptor, cli_stream_take, &stream, err);
        cli_stream_finish(&stream);
    }
    if (status == MOE_OK && stream.cut_short) {
        status = moe_fail(err, MOE_ERR_UNAVAILABLE, "the server cut the answer short");
    }
    if (status == MOE_OK) {
        status = add_message(c, "ROLE_ASSISTANT", moe_text_cstr(&stream.choices[0].text), err);
    }
    if (status == MOE_OK && cli_run_flag(c->run, "stats")) {
        cli_stream_stats(&stream, stderr);
    }
    if (status != MOE_OK) {
        keep_messages(c, before);
    }
    cli_stream_fini(&stream);
    return status;
}

/* At a terminal a failed turn is reported and the conversation goes on; in a pipe it ends the program. */
static moe_status read_turns(chat *c, size_t n_first, moe_error *err)
{
    char *line = NULL;
    size_t capacity = 0;
    ssize_t n;
    moe_status status = MOE_OK;

    while (status == MOE_OK) {
        if (c->is_terminal) {
            fputs("> ", stderr);
        }
        n = getline(&line, &capacity, stdin);
        if (n < 0) {
            break;
        }
        line[strcspn(line, "\r\n")] = '\0';
        if (strcmp(line, "/reset") == 0) {
            keep_messages(c, n_first);
        } else if (*line != '\0') {
            status = turn(c, line, err);
        }
        if (status != MOE_OK && c->is_terminal) {
            cli_put(stderr, err->text, strlen(err->text));
            fputc('\n', stderr);
            status = MOE_OK;
        }
    }
    free(line);
    return status;
}

moe_status cli_chat_run(cli_run *run, moe_error *err)
{
    chat c = {.run = run, .is_terminal = isatty(STDIN_FILENO) != 0};
    const char *system = cli_run_value(run, "system");
    moe_status status = cli_run_request(run, &conclave__v1__generate_request__descriptor, &c.request, err);

    if (status != MOE_OK) {
        return status;
    }
    if (system != NULL) {
        status = add_message(&c, "ROLE_SYSTEM", system, err);
    }
    if (status == MOE_OK) {
        status = read_turns(&c, n_messages(&c), err);
    }
    cli_message_free(c.request);
    return status;
}
