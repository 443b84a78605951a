/* The limits of a request, all of them, in one place: the API asks before it tokenises, the engine when it admits. */
#include "engine/request_priv.h"

#include <string.h>

typedef struct range {
    float min, max;
    bool above_min; /* min itself is refused */
} range;

static moe_status check_ids(const char *field, const int32_t *ids, size_t n, uint32_t vocab_size, moe_error *err)
{
    for (size_t i = 0; i < n; i++) {
        if (ids[i] < 0 || (uint32_t)ids[i] >= vocab_size) {
            return moe_fail(err, MOE_ERR_INVALID_ARG, "%s[%zu]: %d is not a token id; the vocabulary has %u", field, i,
                            ids[i], vocab_size);
        }
    }
    return MOE_OK;
}

/* NaN fails every comparison. */
static moe_status check_real(const char *name, float value, range limit, moe_error *err)
{
    if (!(limit.above_min ? value > limit.min : value >= limit.min) || !(value <= limit.max)) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "sampling.%s: %g; it must be in %c%g, %g]", name, (double)value,
                        limit.above_min ? '(' : '[', (double)limit.min, (double)limit.max);
    }
    return MOE_OK;
}

static moe_status check_sampling(const sampling_params *s, moe_error *err)
{
    const struct {
        const char *name;
        float value;
        range limit;
    } reals[] = {
        {"temperature", s->temperature, {0, SAMPLING_MAX_TEMPERATURE, false}},
        {"top_p", s->top_p, {0, 1, true}},
        {"min_p", s->min_p, {0, 1, false}},
        {"repetition_penalty", s->repetition_penalty, {0, SAMPLING_MAX_PENALTY, true}},
        {"frequency_penalty", s->frequency_penalty, {-SAMPLING_MAX_PENALTY, SAMPLING_MAX_PENALTY, false}},
        {"presence_penalty", s->presence_penalty, {-SAMPLING_MAX_PENALTY, SAMPLING_MAX_PENALTY, false}},
    };
    moe_status status = MOE_OK;

    for (size_t i = 0; i < MOE_COUNT(reals) && status == MOE_OK; i++) {
        status = check_real(reals[i].name, reals[i].value, reals[i].limit, err);
    }
    if (status == MOE_OK && s->top_k < 0) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "sampling.top_k: %d; it must not be negative", s->top_k);
    }
    return status;
}

static moe_status check_stops(const engine_info *info, const engine_spec *spec, moe_error *err)
{
    if (spec->n_stop > ENGINE_MAX_STOP_STRINGS) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "sampling.stop: %zu strings; the limit is %d", spec->n_stop,
                        ENGINE_MAX_STOP_STRINGS);
    }
    if (spec->n_stop > 0 && info->tokenizer == NULL) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "sampling.stop: the model has no tokenizer; use stop_token_ids");
    }
    for (size_t i = 0; i < spec->n_stop; i++) {
        size_t bytes = strlen(spec->stop[i]);

        if (bytes == 0 || bytes > ENGINE_MAX_STOP_BYTES) {
            return moe_fail(err, MOE_ERR_INVALID_ARG, "sampling.stop[%zu]: %zu bytes; there must be 1 to %d", i, bytes,
                            ENGINE_MAX_STOP_BYTES);
        }
    }
    if (spec->n_stop_ids > ENGINE_MAX_STOP_IDS) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "sampling.stop_token_ids: %zu ids; the limit is %d", spec->n_stop_ids,
                        ENGINE_MAX_STOP_IDS);
    }
    return check_ids("sampling.stop_token_ids", spec->stop_ids, spec->n_stop_ids, info->config->vocab_size, err);
}

static moe_status check_resume(const engine_info *info, const engine_spec *spec, moe_error *err)
{
    if (spec->n_resume == 0) {
        return MOE_OK;
    }
    if (spec->n_choices != 1) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "resume_from: needs sampling.n = 1, not %u", spec->n_choices);
    }
    if (!spec->has_seed && spec->sampling.temperature > 0.0f) {
        return moe_fail(err, MOE_ERR_INVALID_ARG,
                        "resume_from: needs sampling.seed, the seed of the first try, unless temperature is 0");
    }
    return check_ids("resume_from", spec->resume, spec->n_resume, info->config->vocab_size, err);
}

static moe_status check_request_id(const char *id, moe_error *err)
{
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:-";
    size_t n = strlen(id);

    if (n == 0 || n > ENGINE_MAX_REQUEST_ID || strspn(id, allowed) != n) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "request_id: %zu bytes; it must match [A-Za-z0-9._:-]{1,%d}", n,
                        ENGINE_MAX_REQUEST_ID);
    }
    return MOE_OK;
}

static moe_status check_counts(const engine_spec *spec, moe_error *err)
{
    if (spec->n_top > SAMPLING_MAX_TOP_LOGPROBS) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "%s: %u; the limit is %d",
                        spec->kind == ENGINE_SCORE ? "top" : "sampling.logprobs", spec->n_top,
                        SAMPLING_MAX_TOP_LOGPROBS);
    }
    if (spec->score_from > 0 && (spec->kind != ENGINE_SCORE || spec->score_from >= spec->n_prompt)) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "score_from: %u; of a score, below its %zu tokens", spec->score_from,
                        spec->n_prompt);
    }
    if (spec->background && spec->kind != ENGINE_SCORE) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "background: only of a score");
    }
    if (spec->kind != ENGINE_GENERATE) {
        return MOE_OK;
    }
    if (spec->n_choices < 1 || spec->n_choices > ENGINE_MAX_CHOICES) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "sampling.n: %u; it must be in [1, %d]", spec->n_choices,
                        ENGINE_MAX_CHOICES);
    }
    if (spec->has_max_tokens && spec->max_tokens > 0 && spec->min_tokens > spec->max_tokens &&
        !spec->min_tokens_is_default) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "sampling.min_tokens: %u; the limit is max_tokens, %u",
                        spec->min_tokens, spec->max_tokens);
    }
    return MOE_OK;
}

moe_status engine_check_options(const engine_info *info, const engine_spec *spec, moe_error *err)
{
    moe_status status = check_counts(spec, err);

    if (status == MOE_OK && spec->request_id != NULL) {
        status = check_request_id(spec->request_id, err);
    }
    if (status != MOE_OK || spec->kind != ENGINE_GENERATE) {
        return status;
    }
    if ((status = check_sampling(&spec->sampling, err)) != MOE_OK ||
        (status = check_stops(info, spec, err)) != MOE_OK) {
        return status;
    }
    return check_resume(info, spec, err);
}

moe_status engine_check_ids(const engine_info *info, const char *field, const int32_t *ids, size_t n, moe_error *err)
{
    if (n > info->max_context) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "%s: %zu tokens; the limit is max_context, %u", field, n,
                        info->max_context);
    }
    return check_ids(field, ids, n, info->config->vocab_size, err);
}

/* A model's max_length is of prompt and answer; a prompt that is as long already is not the file's case. */
static uint32_t default_length(const engine_info *info, size_t n_prompt, size_t room)
{
    int32_t most = info->config->defaults.max_length;

    if (most > 0 && (size_t)most > n_prompt) {
        room = MOE_MIN(room, (size_t)most - n_prompt);
    }
    return (uint32_t)MOE_MIN((size_t)info->default_max_tokens, room);
}

/* The answer's length: what was asked for, or the default within what the context and the KV memory leave. */
static moe_status choose_length(const engine_info *info, const engine_spec *spec, uint32_t *max_tokens_out,
                                moe_error *err)
{
    size_t kv = info->kv_capacity_tokens, limit = MOE_MIN((size_t)info->max_context, kv);
    const char *what = kv < info->max_context ? "tokens that fit in kv_memory" : "max_context";
    size_t ask = spec->kind != ENGINE_GENERATE ? 0 : spec->has_max_tokens ? spec->max_tokens : 1;

    if (spec->kind == ENGINE_GENERATE && spec->has_max_tokens && spec->max_tokens == 0) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "sampling.max_tokens: 0; it must be at least 1");
    }
    if (spec->n_prompt > limit || ask > limit - spec->n_prompt) {
        return moe_fail(err, MOE_ERR_INVALID_ARG,
                        "prompt of %zu tokens and sampling.max_tokens %zu: together at most %zu (%s)", spec->n_prompt,
                        ask, limit, what);
    }
    *max_tokens_out = spec->kind != ENGINE_GENERATE ? 0
                      : spec->has_max_tokens        ? spec->max_tokens
                                                    : default_length(info, spec->n_prompt, limit - spec->n_prompt);
    if (spec->min_tokens > *max_tokens_out && !spec->min_tokens_is_default) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "sampling.min_tokens: %u; the limit is max_tokens, %u",
                        spec->min_tokens, *max_tokens_out);
    }
    if (spec->n_resume > *max_tokens_out) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "resume_from: %zu tokens; the limit is sampling.max_tokens, %u",
                        spec->n_resume, *max_tokens_out);
    }
    return MOE_OK;
}

moe_status request_check(const engine_info *info, const engine_spec *spec, uint32_t *max_tokens_out, moe_error *err)
{
    moe_status status;

    if ((spec->kind == ENGINE_CLASSIFY) != (info->config->n_labels > 0)) {
        return moe_fail(err, MOE_ERR_UNSUPPORTED,
                        spec->kind == ENGINE_CLASSIFY
                            ? "the model has no classification head; ask with Generate, Complete or Score"
                            : "the model is a classifier without a head over the vocabulary; ask with Classify");
    }
    if (spec->n_prompt == 0) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "prompt: empty; at least one token is needed");
    }
    if ((status = engine_check_options(info, spec, err)) != MOE_OK ||
        (status = choose_length(info, spec, max_tokens_out, err)) != MOE_OK) {
        return status;
    }
    return check_ids("prompt", spec->prompt, spec->n_prompt, info->config->vocab_size, err);
}
