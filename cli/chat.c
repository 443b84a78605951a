#include "cli/chat.h"

#include <inttypes.h>
#include <string.h>

#include "cli/lines.h"

/* ----------------------------------------------------------------------------------------------------- conversation */

const Conclave__V1__Messages *cli_chat_messages(const cli_chat *c)
{
    return ((const Conclave__V1__GenerateRequest *)c->request)->messages;
}

static moe_status add_message(cli_chat *c, const char *role, const char *content, moe_error *err)
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

void cli_chat_keep(const cli_chat *c, size_t n)
{
    Conclave__V1__Messages *messages = ((Conclave__V1__GenerateRequest *)c->request)->messages;

    while (messages != NULL && messages->n_messages > n) {
        cli_message_free((ProtobufCMessage *)messages->messages[--messages->n_messages]);
    }
}

static size_t n_messages(const cli_chat *c)
{
    return cli_chat_messages(c) != NULL ? cli_chat_messages(c)->n_messages : 0;
}

moe_status cli_chat_begin(cli_chat *c, const char *system, moe_error *err)
{
    moe_status status = MOE_OK;

    cli_chat_keep(c, 0);
    if (system != NULL) {
        status = add_message(c, "ROLE_SYSTEM", system, err);
    }
    c->n_first = n_messages(c);
    return status;
}

/* ---------------------------------------------------------------------------------------------------------- a turn */

/* A turn that failed is forgotten: the same line may be typed again. What came before Ctrl-C stays, as it was read. */
static moe_status turn(cli_chat *c, const char *text, moe_error *err)
{
    size_t before = n_messages(c);
    cli_stream stream;
    moe_status status = add_message(c, "ROLE_USER", text, err);
    bool stopped;

    cli_stream_init(&stream, c->run->json ? CLI_STREAM_JSON : CLI_STREAM_TEXT, false);
    if (status == MOE_OK) {
        status = cli_stream_call(&stream, c->run, c->request, err);
    }
    stopped = c->is_terminal && status == MOE_ERR_CANCELLED && stream.choices[0].text.size > 0;
    if (status == MOE_OK || stopped) {
        moe_status added = add_message(c, "ROLE_ASSISTANT", moe_text_cstr(&stream.choices[0].text), err);

        status = added != MOE_OK ? added : status;
    }
    if (status == MOE_OK && cli_run_flag(c->run, "stats")) {
        cli_stream_stats(&stream, stderr);
    }
    if (status != MOE_OK && !stopped) {
        cli_chat_keep(c, before);
    }
    cli_stream_fini(&stream);
    c->last = stream;
    return status;
}

/* ---------------------------------------------------------------------------------------------------------- program */

static void report(const cli_chat *c, moe_status status, const moe_error *err)
{
    if (status == MOE_ERR_CANCELLED) {
        fprintf(stderr, n_messages(c) > c->n_first ? "(stopped; what came so far is part of the conversation)\n"
                                                   : "(stopped)\n");
        return;
    }
    cli_put(stderr, err->text, strlen(err->text));
    fputc('\n', stderr);
}

/* At a terminal a failed turn is reported and the conversation goes on; in a pipe it ends the program. */
static moe_status take(cli_chat *c, const char *text, moe_error *err)
{
    bool known;
    moe_status status = cli_chat_command(c, text, &known, err);

    if (status == MOE_OK && !known && text[strspn(text, " \t\n")] != '\0') {
        status = turn(c, text, err);
    }
    if (status != MOE_OK && c->is_terminal && status != MOE_ERR_IO) { /* IO: nobody can read the answers */
        report(c, status, err);
        status = MOE_OK;
    }
    return status;
}

static moe_status talk(cli_chat *c, cli_lines *lines, moe_error *err)
{
    moe_text message;
    cli_lines_what what = CLI_LINES_MESSAGE;
    moe_status status = MOE_OK;

    moe_text_init(&message, CLI_MAX_INPUT);
    while (status == MOE_OK && !c->quit && what != CLI_LINES_END) {
        status = cli_lines_read(lines, &message, &what, err);
        if (status == MOE_OK && what == CLI_LINES_MESSAGE) {
            status = take(c, moe_text_cstr(&message), err);
        }
    }
    if (c->is_terminal && what == CLI_LINES_END) {
        fputc('\n', stderr); /* the prompt's line is ended */
    }
    moe_text_fini(&message);
    return status;
}

static moe_status print_banner(void *ctx, const ProtobufCMessage *reply, moe_error *err)
{
    const cli_chat *c = ctx;
    const Conclave__V1__GetModelResponse *m = (const Conclave__V1__GetModelResponse *)reply;
    moe_text text;

    (void)err;
    moe_text_init(&text, 1 << 16);
    moe_text_printf(&text, "conclave %s at %s\nmodel %s (%s), context of %" PRIu32 " tokens%s\n", MOE_VERSION,
                    c->run->server, m->name, m->family, m->max_context,
                    *m->chat_template == '\0' ? "\nThe server knows no chat template for it: messages will be refused."
                                              : "");
    moe_text_printf(&text, "/help lists the commands. Ctrl-C stops an answer, Ctrl-D ends.\n");
    cli_put(stderr, moe_text_cstr(&text), text.size);
    moe_text_fini(&text);
    return MOE_OK;
}

/* Who is there is asked before the first message is typed. */
static moe_status greet(cli_chat *c, moe_error *err)
{
    ProtobufCMessage *request;

    if (!c->is_terminal || c->run->json) {
        return MOE_OK;
    }
    request = cli_message_new(&conclave__v1__get_model_request__descriptor);
    if (request == NULL) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "request: out of memory");
    }
    moe_status status = cli_run_call(c->run, "/conclave.v1.Inference/GetModel", request,
                                     &conclave__v1__get_model_response__descriptor, print_banner, c, err);
    cli_message_free(request);
    return status;
}

moe_status cli_chat_run(cli_run *run, moe_error *err)
{
    cli_chat c = {.run = run, .is_terminal = cli_lines_at_terminal()};
    cli_lines *lines = NULL;
    moe_status status = cli_run_request(run, &conclave__v1__generate_request__descriptor, &c.request, err);

    if (status != MOE_OK) {
        return status;
    }
    if (c.is_terminal) {
        cli_run_ignore_interrupts(run);
    }
    status = cli_chat_begin(&c, cli_run_value(run, "system"), err);
    if (status == MOE_OK) {
        status = greet(&c, err);
    }
    if (status == MOE_OK) {
        status = cli_lines_open(!cli_run_flag(run, "no_history"), &lines, err);
    }
    if (status == MOE_OK) {
        status = talk(&c, lines, err);
    }
    cli_lines_close(lines);
    cli_message_free(c.request);
    return status;
}
