#include <inttypes.h>
#include <math.h>
#include <string.h>

#include <conclave/v1/inference.pb-c.h>

#include "cli/cli.h"

static bool has_logprob(const Conclave__V1__ScoredToken *token)
{
    return token->has_logprob_case == CONCLAVE__V1__SCORED_TOKEN__HAS_LOGPROB_LOGPROB;
}

static void put_experts(const Conclave__V1__ScoredToken *token, moe_text *out)
{
    for (size_t l = 0; l < token->n_experts; l++) {
        moe_text_printf(out, "        layer %" PRIu32 ":", token->experts[l]->layer);
        for (size_t i = 0; i < token->experts[l]->n_ids; i++) {
            moe_text_printf(out, " %" PRId32, token->experts[l]->ids[i]);
        }
        moe_text_append(out, "\n", 1);
    }
}

static void put_token(size_t idx, const Conclave__V1__ScoredToken *token, moe_text *out)
{
    moe_text_printf(out, "%6zu %7" PRId32, idx, token->id);
    if (has_logprob(token)) {
        moe_text_printf(out, " %11.6f", (double)token->logprob);
    }
    if (token->token.len > 0) {
        moe_text_printf(out, "%*s", has_logprob(token) ? 2 : 14, "");
        cli_token_text(&token->token, out);
    }
    for (size_t i = 0; i < token->n_top; i++) {
        const Conclave__V1__TopLogprob *other = token->top[i];

        moe_text_printf(out, "%s%" PRId32 " %.6f", i == 0 ? "  best: " : ", ", other->id, (double)other->logprob);
        if (other->token.len > 0) {
            moe_text_append(out, " ", 1);
            cli_token_text(&other->token, out);
        }
    }
    moe_text_append(out, "\n", 1);
    put_experts(token, out);
}

static moe_status print_scores(void *ctx, const ProtobufCMessage *reply, moe_error *err)
{
    const Conclave__V1__ScoreResponse *response = (const Conclave__V1__ScoreResponse *)reply;
    double sum = 0;
    size_t n = 0;
    moe_text out;

    (void)ctx;
    moe_text_init(&out, CLI_MAX_PRINT);
    for (size_t i = 0; i < response->n_tokens; i++) {
        put_token(i, response->tokens[i], &out);
        if (has_logprob(response->tokens[i])) {
            sum += (double)response->tokens[i]->logprob;
            n++;
        }
    }
    if (n > 0) {
        moe_text_printf(&out, "%zu scored, sum %.6f, mean %.6f, perplexity %.6g\n", n, sum, sum / (double)n,
                        exp(-sum / (double)n));
    }
    return cli_print_text(&out, err);
}

static moe_status print_classes(void *ctx, const ProtobufCMessage *reply, moe_error *err)
{
    const Conclave__V1__ClassifyResponse *response = (const Conclave__V1__ClassifyResponse *)reply;
    moe_text out;

    (void)ctx;
    moe_text_init(&out, CLI_MAX_PRINT);
    for (size_t i = 0; i < response->n_scores; i++) {
        moe_text_printf(&out, "class %zu", i);
        if (i < response->n_labels) {
            moe_text_append(&out, " ", 1);
            moe_text_append(&out, response->labels[i], strlen(response->labels[i]));
        }
        moe_text_printf(&out, ": %.6f", (double)response->scores[i]);
        if (i < response->n_logprobs) {
            moe_text_printf(&out, ", probability %.6f", exp((double)response->logprobs[i]));
        }
        moe_text_append(&out, "\n", 1);
    }
    return cli_print_text(&out, err);
}

moe_status cli_score_run(cli_run *run, moe_error *err)
{
    return cli_run_print_prompt(run, "/conclave.v1.Inference/Score", &conclave__v1__score_request__descriptor,
                                &conclave__v1__score_response__descriptor, print_scores, err);
}

moe_status cli_classify_run(cli_run *run, moe_error *err)
{
    return cli_run_print_prompt(run, "/conclave.v1.Inference/Classify", &conclave__v1__classify_request__descriptor,
                                &conclave__v1__classify_response__descriptor, print_classes, err);
}
