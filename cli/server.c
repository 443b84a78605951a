/* What a server says of itself: model, health. */
#include <conclave/v1/inference.pb-c.h>
#include <grpc/health/v1/health.pb-c.h>

#include "cli/cli.h"

moe_status cli_model_run(cli_run *run, moe_error *err)
{
    return cli_run_print(run, "/conclave.v1.Inference/GetModel", &conclave__v1__get_model_request__descriptor,
                         &conclave__v1__get_model_response__descriptor, cli_print_lines, err);
}

static moe_status print_health(void *ctx, const ProtobufCMessage *reply, moe_error *err)
{
    const cli_run *run = ctx;
    const Grpc__Health__V1__HealthCheckResponse *response = (const Grpc__Health__V1__HealthCheckResponse *)reply;
    moe_status status = run->json ? cli_print_json(NULL, reply, err) : cli_print_lines(NULL, reply, err);

    if (status == MOE_OK && response->status != GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING) {
        status = moe_fail(err, MOE_ERR_UNAVAILABLE, "the server is not serving");
    }
    return status;
}

moe_status cli_health_run(cli_run *run, moe_error *err)
{
    ProtobufCMessage *request;
    moe_status status = cli_run_request(run, &grpc__health__v1__health_check_request__descriptor, &request, err);

    if (status == MOE_OK) {
        status = cli_run_call(run, "/grpc.health.v1.Health/Check", request,
                              &grpc__health__v1__health_check_response__descriptor, print_health, run, err);
        cli_message_free(request);
    }
    return status;
}
