#include <unistd.h>

#include <conclave/v1/inference.pb-c.h>

#include "cli/cli.h"
#include "cli/stream.h"

static cli_stream_form form_of(const cli_run *run)
{
    if (run->json) {
        return CLI_STREAM_JSON;
    }
    return cli_run_value(run, "logprobs") != NULL ? CLI_STREAM_TABLE : CLI_STREAM_TEXT;
}

static bool wants_stats(const cli_run *run)
{
    return cli_run_flag(run, "stats") || (!cli_run_flag(run, "quiet") && !run->json && isatty(STDERR_FILENO));
}

static moe_status stream_answer(cli_run *run, const ProtobufCMessage *request, moe_error *err)
{
    cli_stream stream;
    moe_status status;

    cli_stream_init(&stream, form_of(run), cli_run_value(run, "tokens") != NULL);
    stream.expect = cli_run_value(run, "expect");
    status = cli_stream_call(&stream, run, request, err);
    if (wants_stats(run)) {
        cli_stream_stats(&stream, stderr);
    }
    cli_stream_fini(&stream);
    return status;
}

moe_status cli_generate_run(cli_run *run, moe_error *err)
{
    ProtobufCMessage *request;
    moe_status status = cli_run_request(run, &conclave__v1__generate_request__descriptor, &request, err);

    if (status != MOE_OK) {
        return status;
    }
    if (cli_run_value(run, "expect") != NULL && cli_run_flag(run, "echo")) {
        status = moe_fail(err, MOE_ERR_INVALID_ARG, "--expect and --echo: the prompt is no part of the answer");
    }
    if (status == MOE_OK) {
        status = cli_run_fill_prompt(run, request, err);
    }
    if (status == MOE_OK) {
        status = stream_answer(run, request, err);
    }
    cli_message_free(request);
    return status;
}
