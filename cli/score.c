#include <inttypes.h>
#include <math.h>
#include <string.h>

#include <conclave/v1/inference.pb-c.h>

#include "cli/cli.h"

static bool has_logprob(const Conclave__V1__ScoredToken *token)
{
    return token->has_logprob_case == CONCLAVE__V1__SCORED_TOKEN__HAS_LOGPROB_LOGPROB;
}

static void print_experts(const Conclave__V1__ScoredToken *token)
{
    for (size_t l = 0; l < token->n_experts; l++) {
        printf("        layer %" PRIu32 ":", token->experts[l]->layer);
        for (size_t i = 0; i < token->experts[l]->n_ids; i++) {
            printf(" %" PRId32, token->experts[l]->ids[i]);
        }
        putchar('\n');
    }
}

static void print_token(size_t idx, const Conclave__V1__ScoredToken *token)
{
    printf("%6zu %7" PRId32, idx, token->id);
    if (has_logprob(token)) {
        printf(" %11.6f", (double)token->logprob);
    }
    if (token->token.len > 0) {
        printf(has_logprob(token) ? "  " : " %11s  ", "");
        cli_put_token(&token->token);
    }
    for (size_t i = 0; i < token->n_top; i++) {
        const Conclave__V1__TopLogprob *other = token->top[i];

        printf("%s%" PRId32 " %.6f", i == 0 ? "  best: " : ", ", other->id, (double)other->logprob);
        if (other->token.len > 0) {
            putchar(' ');
            cli_put_token(&other->token);
        }
    }
    putchar('\n');
    print_experts(token);
}

static moe_status print_scores(void *ctx, const ProtobufCMessage *reply, moe_error *err)
{
    const Conclave__V1__ScoreResponse *response = (const Conclave__V1__ScoreResponse *)reply;
    double sum = 0;
    size_t n = 0;

    (void)ctx;
    (void)err;
    for (size_t i = 0; i < response->n_tokens; i++) {
        print_token(i, response->tokens[i]);
        if (has_logprob(response->tokens[i])) {
            sum += (double)response->tokens[i]->logprob;
            n++;
        }
    }
    if (n > 0) {
        printf("%zu scored, sum %.6f, mean %.6f, perplexity %.6g\n", n, sum, sum / (double)n, exp(-sum / (double)n));
    }
    return MOE_OK;
}

static moe_status print_classes(void *ctx, const ProtobufCMessage *reply, moe_error *err)
{
    const Conclave__V1__ClassifyResponse *response = (const Conclave__V1__ClassifyResponse *)reply;

    (void)ctx;
    (void)err;
    for (size_t i = 0; i < response->n_scores; i++) {
        printf("class %zu", i);
        if (i < response->n_labels) {
            putchar(' ');
            cli_put(stdout, response->labels[i], strlen(response->labels[i]));
        }
        printf(": %.6f", (double)response->scores[i]);
        if (i < response->n_logprobs) {
            printf(", probability %.6f", exp((double)response->logprobs[i]));
        }
        putchar('\n');
    }
    return MOE_OK;
}

static moe_status score_prompt(cli_run *run, const char *path, const ProtobufCMessageDescriptor *request_type,
                               const ProtobufCMessageDescriptor *reply_type, cli_reply_fn print, moe_error *err)
{
    ProtobufCMessage *request;
    moe_status status = cli_run_request(run, request_type, &request, err);

    if (status != MOE_OK) {
        return status;
    }
    status = cli_run_fill_prompt(run, request, err);
    if (status == MOE_OK) {
        status = cli_run_call(run, path, request, reply_type, run->json ? cli_print_json : print, run, err);
    }
    cli_message_free(request);
    return status;
}

moe_status cli_score_run(cli_run *run, moe_error *err)
{
    return score_prompt(run, "/conclave.v1.Inference/Score", &conclave__v1__score_request__descriptor,
                        &conclave__v1__score_response__descriptor, print_scores, err);
}

moe_status cli_classify_run(cli_run *run, moe_error *err)
{
    return score_prompt(run, "/conclave.v1.Inference/Classify", &conclave__v1__classify_request__descriptor,
                        &conclave__v1__classify_response__descriptor, print_classes, err);
}
