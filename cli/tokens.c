#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include <conclave/v1/inference.pb-c.h>

#include "cli/cli.h"

static moe_status print_ids(void *ctx, const ProtobufCMessage *reply, moe_error *err)
{
    const Conclave__V1__TokenizeResponse *response = (const Conclave__V1__TokenizeResponse *)reply;
    moe_text out;

    (void)ctx;
    moe_text_init(&out, CLI_MAX_PRINT);
    for (size_t i = 0; i < response->n_ids; i++) {
        moe_text_printf(&out, "%s%" PRId32, i > 0 ? " " : "", response->ids[i]);
    }
    moe_text_append(&out, "\n", 1);
    return cli_print_text(&out, err);
}

/* Not a byte more than the text, so that a file makes the round trip. At a terminal the line is ended. */
static moe_status print_text(void *ctx, const ProtobufCMessage *reply, moe_error *err)
{
    const Conclave__V1__DetokenizeResponse *response = (const Conclave__V1__DetokenizeResponse *)reply;

    (void)ctx;
    cli_put(stdout, response->text, strlen(response->text));
    if (isatty(STDOUT_FILENO)) {
        putchar('\n');
    }
    return cli_flush(err);
}

moe_status cli_tokenize_run(cli_run *run, moe_error *err)
{
    return cli_run_print_prompt(run, "/conclave.v1.Inference/Tokenize", &conclave__v1__tokenize_request__descriptor,
                                &conclave__v1__tokenize_response__descriptor, print_ids, err);
}

moe_status cli_detokenize_run(cli_run *run, moe_error *err)
{
    ProtobufCMessage *request;
    moe_status status = cli_run_request(run, &conclave__v1__detokenize_request__descriptor, &request, err);

    if (status != MOE_OK) {
        return status;
    }
    if (run->n_args == 0 && cli_run_value(run, "tokens") == NULL) {
        status = moe_fail(err, MOE_ERR_INVALID_ARG, "give token ids, or --tokens");
    }
    for (size_t i = 0; i < run->n_args && status == MOE_OK; i++) {
        status = cli_message_set_list(request, "ids", run->args[i], err);
    }
    if (status == MOE_OK) {
        status = cli_run_call(run, "/conclave.v1.Inference/Detokenize", request,
                              &conclave__v1__detokenize_response__descriptor, run->json ? cli_print_json : print_text,
                              NULL, err);
    }
    cli_message_free(request);
    return status;
}
