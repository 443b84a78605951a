#include "api/intake_priv.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef Conclave__V1__Sampling sampling_request;
typedef Conclave__V1__ExpertSet set_request;

/* The three kinds of input, whichever message they came in. All NULL: none was set. */
typedef struct input {
    const char *text;
    const Conclave__V1__TokenIds *token_ids;
    const Conclave__V1__Messages *messages;
    bool add_special;
    bool generation_prompt;
} input;

static tokenizer *tokenizer_of(const engine_info *info)
{
    return (tokenizer *)(uintptr_t)info->tokenizer; /* encoding fills its piece cache, under its own lock */
}

/* ------------------------------------------------------------------------------------------------ input */
static moe_status check_length(const char *field, size_t bytes, const engine_info *info, moe_error *err)
{
    size_t limit = tokenizer_max_text_bytes(info->tokenizer, info->max_context);

    if (bytes > limit) {
        return moe_fail(err, MOE_ERR_INVALID_ARG,
                        "%s: %zu bytes; text of more than %zu bytes cannot fit into max_context, %u tokens", field,
                        bytes, limit, info->max_context);
    }
    return MOE_OK;
}

static const char *given(int has, const char *text)
{
    return has != 0 ? text : NULL;
}

static bool take_role(Conclave__V1__Role role, tokenizer_role *out)
{
    static const tokenizer_role roles[] = {
        [CONCLAVE__V1__ROLE__ROLE_SYSTEM] = TOKENIZER_ROLE_SYSTEM,
        [CONCLAVE__V1__ROLE__ROLE_USER] = TOKENIZER_ROLE_USER,
        [CONCLAVE__V1__ROLE__ROLE_ASSISTANT] = TOKENIZER_ROLE_ASSISTANT,
        [CONCLAVE__V1__ROLE__ROLE_TOOL] = TOKENIZER_ROLE_TOOL,
        [CONCLAVE__V1__ROLE__ROLE_DEVELOPER] = TOKENIZER_ROLE_DEVELOPER,
    };
    const bool known = (unsigned)role < MOE_COUNT(roles) && role != CONCLAVE__V1__ROLE__ROLE_UNSPECIFIED;

    *out = known ? roles[role] : TOKENIZER_ROLE_USER;
    return known;
}

static moe_status check_messages(const Conclave__V1__Messages *m, const engine_info *info, tokenizer_message *out,
                                 moe_error *err)
{
    size_t bytes = 0;

    for (size_t i = 0; i < m->n_messages; i++) {
        const Conclave__V1__Message *from = m->messages[i];

        if (!take_role(from->role, &out[i].role)) {
            return moe_fail(err, MOE_ERR_INVALID_ARG,
                            "messages[%zu].role: %d; known are 1 (system), 2 (user), 3 (assistant), 4 (tool), "
                            "5 (developer)",
                            i, (int)from->role);
        }
        out[i].content = from->content;
        out[i].bytes = strlen(from->content);
        out[i].name = given(from->has_name_case, from->name);
        out[i].tool_call_id = given(from->has_tool_call_id_case, from->tool_call_id);
        out[i].tool_calls = given(from->has_tool_calls_case, from->tool_calls);
        out[i].reasoning_content = given(from->has_reasoning_content_case, from->reasoning_content);
        bytes += out[i].bytes;
    }
    return check_length("messages", bytes, info, err);
}

/* The wall clock of this machine, for templates that print a date. */
static template_time time_here(void)
{
    const time_t now = time(NULL);
    struct tm tm = {.tm_year = 70, .tm_mday = 1};

    (void)localtime_r(&now, &tm);
    return (template_time){tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, MOE_MIN(tm.tm_sec, 59)};
}

static moe_status encode_messages(const engine_info *info, const input *in, int32_t *ids, size_t *n_out, moe_error *err)
{
    const Conclave__V1__Messages *m = in->messages;

    if (tokenizer_chat_name(info->tokenizer)[0] == '\0') {
        const char *problem = tokenizer_chat_problem(info->tokenizer);

        return moe_fail(err, MOE_ERR_INVALID_ARG,
                        "messages: the model has no chat template that is known%s%s; send text or token_ids",
                        problem[0] != '\0' ? ": " : "", problem);
    }
    if (m->n_messages == 0 || m->n_messages > INTAKE_MAX_MESSAGES) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "messages: %zu; there must be 1 to %d", m->n_messages,
                        INTAKE_MAX_MESSAGES);
    }
    tokenizer_message *messages = calloc(m->n_messages, sizeof(messages[0]));
    if (messages == NULL) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "messages: out of memory");
    }
    moe_status status = check_messages(m, info, messages, err);
    if (status == MOE_OK) {
        const template_time now = time_here();
        const tokenizer_conversation c = {.messages = messages,
                                          .n_messages = m->n_messages,
                                          .add_generation_prompt = in->generation_prompt,
                                          .tools = given(m->has_tools_case, m->tools),
                                          .template_args = given(m->has_template_args_case, m->template_args),
                                          .now = &now};

        status = tokenizer_chat_encode(tokenizer_of(info), &c, ids, info->max_context, n_out, err);
    }
    free(messages);
    return status;
}

static moe_status encode_text(const engine_info *info, const input *in, int32_t *ids, size_t *n_out, moe_error *err)
{
    size_t bytes = strlen(in->text);
    moe_status status = check_length("text", bytes, info, err);

    if (status != MOE_OK) {
        return status;
    }
    return tokenizer_encode(tokenizer_of(info), in->text, bytes, in->add_special, NULL, 0, ids, info->max_context,
                            n_out, err);
}

static moe_status encode(const engine_info *info, const input *in, int32_t **ids_out, size_t *n_out, moe_error *err)
{
    size_t n = 0;
    int32_t *ids = malloc(((size_t)info->max_context + 1) * sizeof(ids[0]));

    if (ids == NULL) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "input: out of memory");
    }
    moe_status status =
        in->text != NULL ? encode_text(info, in, ids, &n, err) : encode_messages(info, in, ids, &n, err);
    if (status != MOE_OK) {
        free(ids);
        return status;
    }
    *ids_out = ids;
    *n_out = n;
    return MOE_OK;
}

static moe_status take_input(const engine_info *info, const input *in, intake *out, moe_error *err)
{
    moe_status status;

    if (in->token_ids != NULL) {
        out->spec.prompt = in->token_ids->ids;
        out->spec.n_prompt = in->token_ids->n_ids;
        status = engine_check_ids(info, "token_ids", out->spec.prompt, out->spec.n_prompt, err);
    } else if (in->text == NULL && in->messages == NULL) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "input: one of text, token_ids and messages must be set");
    } else if (info->tokenizer == NULL) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "%s: the model has no tokenizer; send token_ids",
                        in->text != NULL ? "text" : "messages");
    } else {
        status = encode(info, in, &out->ids, &out->spec.n_prompt, err);
        out->spec.prompt = out->ids;
    }
    if (status == MOE_OK && out->spec.n_prompt == 0) {
        status = moe_fail(err, MOE_ERR_INVALID_ARG, "input: the prompt is empty; at least one token is needed");
    }
    return status;
}

/* ------------------------------------------------------------------------------------------------ sampling */
void intake_default_sampling(const model_config *c, sampling_params *out)
{
    const model_defaults *d = &c->defaults;

    *out = (sampling_params){
        .temperature = d->temperature >= 0 ? (float)d->temperature : 1.0f,
        .top_k = d->top_k > 0 ? d->top_k : 0,
        .top_p = d->top_p > 0 ? (float)d->top_p : 1.0f,
        .min_p = d->min_p > 0 ? (float)d->min_p : 0.0f,
        .repetition_penalty = d->repetition_penalty > 0 ? (float)d->repetition_penalty : 1.0f,
        .frequency_penalty = (float)d->frequency_penalty,
        .presence_penalty = (float)d->presence_penalty,
    };
}

static void take_floats(const sampling_request *s, sampling_params *out)
{
    const struct {
        bool given;
        float value, *out;
    } fields[] = {
        {s->has_temperature_case != 0, s->temperature, &out->temperature},
        {s->has_top_p_case != 0, s->top_p, &out->top_p},
        {s->has_min_p_case != 0, s->min_p, &out->min_p},
        {s->has_repetition_penalty_case != 0, s->repetition_penalty, &out->repetition_penalty},
        {s->has_frequency_penalty_case != 0, s->frequency_penalty, &out->frequency_penalty},
        {s->has_presence_penalty_case != 0, s->presence_penalty, &out->presence_penalty},
    };

    for (size_t i = 0; i < MOE_COUNT(fields); i++) {
        if (fields[i].given) {
            *fields[i].out = fields[i].value;
        }
    }
}

static moe_status take_counts(const sampling_request *s, engine_spec *out, moe_error *err)
{
    out->has_max_tokens = s->has_max_tokens_case != 0;
    out->max_tokens = out->has_max_tokens ? s->max_tokens : 0;
    if (s->has_min_tokens_case != 0) {
        out->min_tokens = s->min_tokens;
        out->min_tokens_is_default = false;
    }
    if (s->has_top_k_case != 0) {
        if (s->top_k > INT32_MAX) {
            return moe_fail(err, MOE_ERR_INVALID_ARG, "sampling.top_k: %u; the limit is %d", s->top_k, INT32_MAX);
        }
        out->sampling.top_k = (int32_t)s->top_k;
    }
    if (s->has_n_case != 0) {
        out->n_choices = s->n;
    }
    out->want_logprobs = s->has_logprobs_case != 0;
    out->n_top = out->want_logprobs ? s->logprobs : 0;
    if (s->has_seed_case != 0) {
        out->has_seed = true;
        out->sampling.seed = s->seed;
    }
    out->ignore_eos = s->has_ignore_eos_case != 0 && s->ignore_eos;
    return MOE_OK;
}

static moe_status take_sampling(const engine_info *info, const sampling_request *s, engine_spec *out, moe_error *err)
{
    intake_default_sampling(info->config, &out->sampling);
    out->min_tokens = (uint32_t)MOE_MAX(info->config->defaults.min_new_tokens, 0);
    out->min_tokens_is_default = true;
    out->n_choices = 1;
    if (s == NULL) {
        return MOE_OK;
    }
    take_floats(s, &out->sampling);
    out->stop = (const char *const *)s->stop;
    out->n_stop = s->n_stop;
    out->stop_ids = s->stop_token_ids;
    out->n_stop_ids = s->n_stop_token_ids;
    return take_counts(s, out, err);
}

/* ------------------------------------------------------------------------------------------------ requests */
/* What all have: the options' limits, then the set and the prompt, which alone own memory. */
static moe_status take_rest(const request_scope *scope, const set_request *set, const input *from, intake *in,
                            intake *out, moe_error *err)
{
    const engine_info *info = engine_get_info(scope->engine);
    moe_status status = engine_check_options(info, &in->spec, err);

    if (status == MOE_OK) {
        status = sets_resolve(scope, set, &in->set, err);
        in->spec.set = in->set;
    }
    if (status == MOE_OK) {
        status = take_input(info, from, in, err);
    }
    if (status != MOE_OK) {
        intake_fini(in);
        return status;
    }
    *out = *in;
    return MOE_OK;
}

moe_status intake_generate(const request_scope *scope, const generate_request *r, intake *out, moe_error *err)
{
    const engine_info *info = engine_get_info(scope->engine);
    intake in = {.spec = {.kind = ENGINE_GENERATE}};
    input from = {.add_special = r->has_add_special_tokens_case == 0 || r->add_special_tokens,
                  .generation_prompt = true};
    moe_status status = take_sampling(info, r->sampling, &in.spec, err);

    if (r->input_case == CONCLAVE__V1__GENERATE_REQUEST__INPUT_TEXT) {
        from.text = r->text;
    } else if (r->input_case == CONCLAVE__V1__GENERATE_REQUEST__INPUT_TOKEN_IDS) {
        from.token_ids = r->token_ids;
    } else if (r->input_case == CONCLAVE__V1__GENERATE_REQUEST__INPUT_MESSAGES) {
        from.messages = r->messages;
    }
    if (r->has_resume_from_case != 0) {
        in.spec.resume = r->resume_from->ids;
        in.spec.n_resume = r->resume_from->n_ids;
    }
    in.spec.request_id = given(r->has_request_id_case, r->request_id);
    in.spec.want_progress = r->has_progress_case != 0 && r->progress;
    return status == MOE_OK ? take_rest(scope, r->set, &from, &in, out, err) : status;
}

moe_status intake_score(const request_scope *scope, const score_request *r, intake *out, moe_error *err)
{
    intake in = {.spec = {.kind = ENGINE_SCORE,
                          .request_id = given(r->has_request_id_case, r->request_id),
                          .n_choices = 1,
                          .n_top = r->has_top_case != 0 ? r->top : 0,
                          .want_experts = r->has_experts_case != 0 && r->experts}};
    input from = {.add_special = r->has_add_special_tokens_case == 0 || r->add_special_tokens};

    intake_default_sampling(engine_get_info(scope->engine)->config, &in.spec.sampling);
    if (r->input_case == CONCLAVE__V1__SCORE_REQUEST__INPUT_TEXT) {
        from.text = r->text;
    } else if (r->input_case == CONCLAVE__V1__SCORE_REQUEST__INPUT_TOKEN_IDS) {
        from.token_ids = r->token_ids;
    } else if (r->input_case == CONCLAVE__V1__SCORE_REQUEST__INPUT_MESSAGES) {
        from.messages = r->messages;
    }
    return take_rest(scope, r->set, &from, &in, out, err);
}

/* The row that is classified is the last one that is no padding; a prompt of nothing else is taken as it is. */
static void drop_padding(const model_config *c, engine_spec *spec)
{
    size_t n = spec->n_prompt;

    while (n > 0 && spec->prompt[n - 1] == c->pad_id) {
        n--;
    }
    spec->n_prompt = n > 0 ? n : spec->n_prompt;
}

moe_status intake_classify(const request_scope *scope, const classify_request *r, intake *out, moe_error *err)
{
    intake in = {
        .spec = {.kind = ENGINE_CLASSIFY, .request_id = given(r->has_request_id_case, r->request_id), .n_choices = 1}};
    input from = {.add_special = r->has_add_special_tokens_case == 0 || r->add_special_tokens};
    moe_status status;

    intake_default_sampling(engine_get_info(scope->engine)->config, &in.spec.sampling);
    if (r->input_case == CONCLAVE__V1__CLASSIFY_REQUEST__INPUT_TEXT) {
        from.text = r->text;
    } else if (r->input_case == CONCLAVE__V1__CLASSIFY_REQUEST__INPUT_TOKEN_IDS) {
        from.token_ids = r->token_ids;
    } else if (r->input_case == CONCLAVE__V1__CLASSIFY_REQUEST__INPUT_MESSAGES) {
        from.messages = r->messages;
    }
    status = take_rest(scope, r->set, &from, &in, out, err);
    if (status == MOE_OK) {
        drop_padding(engine_get_info(scope->engine)->config, &out->spec);
    }
    return status;
}

void intake_fini(intake *in)
{
    free(in->ids);
    router_set_unref(in->set);
    in->ids = NULL;
    in->set = NULL;
}

/* ------------------------------------------------------------------------------------------------ tokens and text */
moe_status intake_tokenize(engine *e, const tokenize_request *r, int32_t **ids_out, size_t *n_out, moe_error *err)
{
    const engine_info *info = engine_get_info(e);
    input from = {.add_special = r->has_add_special_tokens_case == 0 || r->add_special_tokens,
                  .generation_prompt = r->has_add_generation_prompt_case == 0 || r->add_generation_prompt};

    if (info->tokenizer == NULL) {
        return moe_fail(err, MOE_ERR_UNSUPPORTED, "the model has no tokenizer");
    }
    if (r->input_case == CONCLAVE__V1__TOKENIZE_REQUEST__INPUT_TEXT) {
        from.text = r->text;
    } else if (r->input_case == CONCLAVE__V1__TOKENIZE_REQUEST__INPUT_MESSAGES) {
        from.messages = r->messages;
    } else {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "input: one of text and messages must be set");
    }
    return encode(info, &from, ids_out, n_out, err);
}

void intake_decode(const engine_info *info, const int32_t *ids, size_t n, bool skip_special, moe_text *out)
{
    tokenizer_decode d;

    if (info->tokenizer == NULL) {
        return;
    }
    tokenizer_decode_init(&d, info->tokenizer, skip_special);
    for (size_t i = 0; i < n && !out->failed; i++) {
        tokenizer_decode_push(&d, ids[i], out);
    }
    tokenizer_decode_finish(&d, out);
}

moe_status intake_detokenize(engine *e, const detokenize_request *r, moe_text *out, moe_error *err)
{
    const engine_info *info = engine_get_info(e);

    if (info->tokenizer == NULL) {
        return moe_fail(err, MOE_ERR_UNSUPPORTED, "the model has no tokenizer");
    }
    moe_status status = engine_check_ids(info, "ids", r->ids, r->n_ids, err);
    if (status == MOE_OK) {
        intake_decode(info, r->ids, r->n_ids, r->has_skip_special_case != 0 && r->skip_special, out);
        if (out->failed) {
            status = moe_fail(err, MOE_ERR_BUSY, "ids: the text exceeds %zu bytes", out->limit);
        }
    }
    return status;
}
