#include "engine/request_priv.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ------------------------------------------------------------------------------------------------ states */
static const struct {
    const char *name;
    uint32_t next;
} choice_states[CHOICE_N_STATES] = {
    [CHOICE_WAITING] = {"waiting", MOE_BIT(CHOICE_PREFILL) | MOE_BIT(CHOICE_DONE)},
    [CHOICE_PREFILL] = {"prefill", MOE_BIT(CHOICE_DECODE) | MOE_BIT(CHOICE_WAITING) | MOE_BIT(CHOICE_DONE)},
    [CHOICE_DECODE] = {"decode", MOE_BIT(CHOICE_WAITING) | MOE_BIT(CHOICE_DONE)},
    [CHOICE_DONE] = {"done", 0},
};

void choice_move(choice *c, choice_state to)
{
    MOE_ASSERT((choice_states[c->state].next & MOE_BIT(to)) != 0);
    MOE_TRACE("request %s choice %u %s -> %s", c->request->id, c->index, choice_states[c->state].name,
              choice_states[to].name);
    c->state = to;
}

uint32_t choice_n_output(const choice *c)
{
    return c->n_tokens - c->request->n_prompt;
}

/* ------------------------------------------------------------------------------------------------ events
 * In the ring an event is this head, then n_top entries, then text, then the error. */
typedef struct event_head {
    engine_event_kind kind;
    uint32_t choice, index;
    int32_t token_id;
    float logprob;
    uint32_t n_top, text_bytes, error_bytes;
    uint32_t queue_position, prompt_tokens_done;
    engine_finish finish;
    int32_t stop_match; /* index of the stop string; -1: none */
    int32_t stop_token_id;
    bool has_logprob, has_stop_token;
    moe_status status;
    engine_usage usage;
} event_head;

/* Longest text of one event: a held-back head of a stop string and the token that released it; every byte may have
 * become U+FFFD. */
static size_t text_bound(const engine_info *info)
{
    size_t longest = info->tokenizer != NULL ? tokenizer_longest_token_bytes(info->tokenizer) : 0;

    return 3 * (ENGINE_MAX_STOP_BYTES + longest + 16);
}

static void emit(engine_request *r, const event_head *head, const sampling_top *top, const char *text,
                 const char *error)
{
    unsigned char *tail = r->tail_memory;
    size_t top_bytes = head->n_top * sizeof *top;

    if (top_bytes > 0) {
        memcpy(tail, top, top_bytes);
    }
    if (head->text_bytes > 0) {
        memcpy(tail + top_bytes, text, head->text_bytes);
    }
    if (head->error_bytes > 0) {
        memcpy(tail + top_bytes + head->text_bytes, error, head->error_bytes);
    }
    /* request_has_room was asked before the step: a full ring here is our bug. */
    MOE_ASSERT(moe_ring_push(r->ring, head, sizeof *head, tail, top_bytes + head->text_bytes + head->error_bytes));
    if (r->wake != NULL) {
        r->wake(r->wake_ctx);
    }
}

bool request_has_room(const engine_request *r)
{
    return moe_ring_room(r->ring) >= (r->event_bound + 8) * (2 * (size_t)(r->n_choices - r->n_done) + 2);
}

void request_emit_started(engine_request *r)
{
    emit(r, &(event_head){.kind = ENGINE_STARTED, .stop_match = -1}, NULL, NULL, NULL);
}

void request_emit_progress(engine_request *r, uint32_t queue_position)
{
    event_head head = {.kind = ENGINE_PROGRESS,
                       .stop_match = -1,
                       .queue_position = queue_position,
                       .prompt_tokens_done = MOE_MIN(r->choices[0].n_computed, r->n_prompt)};
    emit(r, &head, NULL, NULL, NULL);
}

void request_emit_done(engine_request *r)
{
    r->ended = true;
    emit(r, &(event_head){.kind = ENGINE_DONE, .stop_match = -1, .usage = r->usage}, NULL, NULL, NULL);
}

void request_emit_failed(engine_request *r, moe_status status, const char *why)
{
    event_head head = {.kind = ENGINE_FAILED, .stop_match = -1, .status = status, .usage = r->usage};

    head.error_bytes = (uint32_t)MOE_MIN(strlen(why), sizeof((engine_event *)0)->error - 1);
    r->ended = true;
    emit(r, &head, NULL, NULL, why);
}

static void emit_choice_done(choice *c, engine_finish finish, int32_t stop_match, bool has_stop_token,
                             int32_t stop_token)
{
    event_head head = {.kind = ENGINE_CHOICE_DONE,
                       .choice = c->index,
                       .index = choice_n_output(c),
                       .finish = finish,
                       .stop_match = stop_match,
                       .has_stop_token = has_stop_token,
                       .stop_token_id = stop_token,
                       .text_bytes = (uint32_t)c->text.size};
    emit(c->request, &head, NULL, c->text.data, NULL);
    c->text.size = 0;
    choice_move(c, CHOICE_DONE);
    c->request->n_done++;
    c->request->usage.completion_tokens += choice_n_output(c);
}

void request_emit_cancelled(engine_request *r)
{
    for (uint32_t i = 0; i < r->n_choices; i++) {
        if (r->choices[i].state != CHOICE_DONE) {
            emit_choice_done(&r->choices[i], ENGINE_FINISH_CANCELLED, -1, false, 0);
        }
    }
    request_emit_done(r);
}

/* ------------------------------------------------------------------------------------------------ text and stopping */
/* Where the first complete stop string begins in text, and which; false when there is none. */
static bool find_stop(const engine_request *r, const moe_text *text, size_t *begin_out, int32_t *which_out)
{
    bool found = false;

    for (size_t s = 0; s < r->n_stop; s++) {
        const char *at = text->size > 0 ? memmem(text->data, text->size, r->stop[s], r->stop_bytes[s]) : NULL;
        if (at != NULL && (!found || (size_t)(at - text->data) < *begin_out)) {
            *begin_out = (size_t)(at - text->data);
            *which_out = (int32_t)s;
            found = true;
        }
    }
    return found;
}

/* Bytes at the end of text that are a proper head of some stop string: the longest such suffix. */
static size_t held_back(const engine_request *r, const moe_text *text)
{
    size_t longest = 0;

    for (size_t s = 0; s < r->n_stop; s++) {
        size_t most = MOE_MIN(r->stop_bytes[s] - 1, text->size);
        for (size_t n = most; n > longest; n--) {
            if (memcmp(text->data + text->size - n, r->stop[s], n) == 0) {
                longest = n;
                break;
            }
        }
    }
    return longest;
}

static void drop_head(moe_text *text, size_t n)
{
    if (n > 0) {
        memmove(text->data, text->data + n, text->size - n);
        text->size -= n;
    }
}

static bool is_stop_id(const engine_request *r, int32_t token)
{
    for (size_t i = 0; i < r->n_stop_ids; i++) {
        if (r->stop_ids[i] == token) {
            return true;
        }
    }
    return false;
}

bool choice_append(choice *c, const engine_info *info, int32_t token, bool has_logprob, float logprob, uint32_t n_top,
                   const sampling_top *top, bool quiet)
{
    engine_request *r = c->request;
    event_head head = {.kind = ENGINE_TOKEN,
                       .choice = c->index,
                       .index = choice_n_output(c),
                       .token_id = token,
                       .has_logprob = has_logprob,
                       .logprob = logprob,
                       .n_top = n_top,
                       .stop_match = -1};
    engine_finish finish = ENGINE_FINISH_NONE;
    size_t give = 0;
    int32_t which = -1;
    bool stop_id, stop_text = false;

    MOE_ASSERT(c->n_tokens < c->capacity);
    c->tokens[c->n_tokens++] = token;
    stop_id = is_stop_id(r, token);
    if (stop_id) {
        finish = ENGINE_FINISH_STOP;
    } else if (info->tokenizer != NULL) {
        tokenizer_decode_push(&c->decode, token, &c->text);
    }
    /* Text before min_tokens is given out unsearched; a stop string counts from there on. */
    if (choice_n_output(c) < r->min_tokens) {
        give = c->text.size;
    } else if (find_stop(r, &c->text, &give, &which)) {
        finish = ENGINE_FINISH_STOP;
        stop_text = true;
    } else {
        give = c->text.size - held_back(r, &c->text);
    }
    if (finish == ENGINE_FINISH_NONE && choice_n_output(c) >= r->max_tokens) {
        finish = ENGINE_FINISH_LENGTH;
    }
    if (!quiet) {
        head.text_bytes = (uint32_t)give;
        emit(r, &head, top, c->text.data, NULL);
    }
    drop_head(&c->text, give);
    if (finish == ENGINE_FINISH_NONE) {
        return false;
    }
    if (stop_text) {
        c->text.size = 0;
    } else if (info->tokenizer != NULL) {
        tokenizer_decode_finish(&c->decode, &c->text);
    }
    emit_choice_done(c, finish, which, stop_id, token);
    return true;
}

/* ------------------------------------------------------------------------------------------------ admission */
static moe_status check_ids(const char *field, const int32_t *ids, size_t n, uint32_t vocab_size, moe_error *err)
{
    for (size_t i = 0; i < n; i++) {
        if (ids[i] < 0 || (uint32_t)ids[i] >= vocab_size) {
            return moe_fail(err, MOE_ERR_INVALID_ARG, "%s[%zu] %d: must be within [0, %u]", field, i, ids[i],
                            vocab_size - 1);
        }
    }
    return MOE_OK;
}

static moe_status check_real(const char *field, float value, float min, float max, bool open_min, moe_error *err)
{
    if (!(value >= min && value <= max) || (open_min && value == min)) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "%s %g: must be within %c%g, %g]", field, (double)value,
                        open_min ? '(' : '[', (double)min, (double)max);
    }
    return MOE_OK;
}

static moe_status check_sampling(const sampling_params *s, uint32_t vocab_size, moe_error *err)
{
    const struct {
        const char *field;
        float value, min, max;
        bool open_min;
    } reals[] = {{"sampling.temperature", s->temperature, 0.0f, 100.0f, false},
                 {"sampling.top_p", s->top_p, 0.0f, 1.0f, true},
                 {"sampling.min_p", s->min_p, 0.0f, 1.0f, false},
                 {"sampling.repetition_penalty", s->repetition_penalty, 0.0f, 100.0f, true},
                 {"sampling.frequency_penalty", s->frequency_penalty, -100.0f, 100.0f, false},
                 {"sampling.presence_penalty", s->presence_penalty, -100.0f, 100.0f, false}};

    for (size_t i = 0; i < MOE_COUNT(reals); i++) {
        moe_status status =
            check_real(reals[i].field, reals[i].value, reals[i].min, reals[i].max, reals[i].open_min, err);
        if (status != MOE_OK) {
            return status;
        }
    }
    if (s->top_k < 0) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "sampling.top_k %d: must be within [0, %u]", s->top_k, vocab_size);
    }
    return MOE_OK;
}

static moe_status check_stops(const engine_info *info, const engine_spec *spec, moe_error *err)
{
    if (spec->n_stop > ENGINE_MAX_STOP_STRINGS) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "sampling.stop: %zu strings, at most %d", spec->n_stop,
                        ENGINE_MAX_STOP_STRINGS);
    }
    if (spec->n_stop > 0 && info->tokenizer == NULL) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "sampling.stop: this model has no tokenizer; use stop_token_ids");
    }
    for (size_t i = 0; i < spec->n_stop; i++) {
        size_t bytes = strlen(spec->stop[i]);
        if (bytes == 0 || bytes > ENGINE_MAX_STOP_BYTES) {
            return moe_fail(err, MOE_ERR_INVALID_ARG, "sampling.stop[%zu] of %zu bytes: must be within [1, %d]", i,
                            bytes, ENGINE_MAX_STOP_BYTES);
        }
    }
    if (spec->n_stop_ids > ENGINE_MAX_STOP_IDS) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "sampling.stop_token_ids: %zu ids, at most %d", spec->n_stop_ids,
                        ENGINE_MAX_STOP_IDS);
    }
    return check_ids("sampling.stop_token_ids", spec->stop_ids, spec->n_stop_ids, info->config->vocab_size, err);
}

static moe_status check_resume(const engine_info *info, const engine_spec *spec, uint32_t max_tokens, moe_error *err)
{
    if (spec->n_resume == 0) {
        return MOE_OK;
    }
    if (spec->n_choices != 1) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "resume_from: needs sampling.n 1, not %u", spec->n_choices);
    }
    if (!spec->has_seed && spec->sampling.temperature > 0.0f) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "resume_from: needs sampling.seed, the seed of the first try");
    }
    if (spec->n_resume > max_tokens) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "resume_from: %zu tokens, but sampling.max_tokens is %u",
                        spec->n_resume, max_tokens);
    }
    return check_ids("resume_from", spec->resume, spec->n_resume, info->config->vocab_size, err);
}

/* The answer's length: what was asked for, or the default within what the context and the KV memory leave. */
static moe_status choose_length(const engine_info *info, const engine_spec *spec, uint32_t *max_tokens_out,
                                moe_error *err)
{
    size_t kv = info->kv_capacity_tokens, limit = MOE_MIN((size_t)info->max_context, kv);
    const char *what = kv < info->max_context ? "tokens that fit in kv_memory" : "max_context";
    size_t ask = spec->has_max_tokens ? spec->max_tokens : 1;

    if (spec->kind != ENGINE_GENERATE) {
        ask = 0;
    } else if (spec->has_max_tokens && spec->max_tokens == 0) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "sampling.max_tokens 0: must be at least 1");
    }
    if (spec->n_prompt > limit || ask > limit - spec->n_prompt) {
        return moe_fail(err, MOE_ERR_INVALID_ARG,
                        "prompt of %zu tokens and sampling.max_tokens %zu: together at most %zu (%s)", spec->n_prompt,
                        ask, limit, what);
    }
    *max_tokens_out = spec->kind != ENGINE_GENERATE ? 0
                      : spec->has_max_tokens
                          ? spec->max_tokens
                          : (uint32_t)MOE_MIN((size_t)info->default_max_tokens, limit - spec->n_prompt);
    if (spec->min_tokens > *max_tokens_out) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "sampling.min_tokens %u: at most max_tokens, %u", spec->min_tokens,
                        *max_tokens_out);
    }
    return MOE_OK;
}

static moe_status check_id_text(const char *id, moe_error *err)
{
    size_t n = strspn(id, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:-");

    if (n == 0 || n > ENGINE_MAX_REQUEST_ID || id[n] != '\0') {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "request_id: must match [A-Za-z0-9._:-]{1,%d}",
                        ENGINE_MAX_REQUEST_ID);
    }
    return MOE_OK;
}

static moe_status check_spec(const engine_info *info, const engine_spec *spec, uint32_t *max_tokens_out, moe_error *err)
{
    moe_status status;

    if ((spec->kind == ENGINE_CLASSIFY) != (info->config->n_labels > 0)) {
        return moe_fail(err, MOE_ERR_UNSUPPORTED,
                        spec->kind == ENGINE_CLASSIFY
                            ? "the model has no classification head; ask with Generate, Complete or Score"
                            : "the model is a classifier without a head over the vocabulary; ask with Classify");
    }
    if (spec->n_prompt == 0) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "prompt: empty; at least 1 token is needed");
    }
    if (spec->n_top > SAMPLING_MAX_TOP_LOGPROBS) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "%s %u: must be within [0, %d]",
                        spec->kind == ENGINE_SCORE ? "top" : "sampling.logprobs", spec->n_top,
                        SAMPLING_MAX_TOP_LOGPROBS);
    }
    if ((status = choose_length(info, spec, max_tokens_out, err)) != MOE_OK ||
        (status = check_ids("prompt", spec->prompt, spec->n_prompt, info->config->vocab_size, err)) != MOE_OK ||
        (spec->request_id != NULL && (status = check_id_text(spec->request_id, err)) != MOE_OK)) {
        return status;
    }
    if (spec->kind != ENGINE_GENERATE) {
        return MOE_OK;
    }
    if (spec->n_choices < 1 || spec->n_choices > ENGINE_MAX_CHOICES) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "sampling.n %u: must be within [1, %d]", spec->n_choices,
                        ENGINE_MAX_CHOICES);
    }
    if ((status = check_sampling(&spec->sampling, info->config->vocab_size, err)) != MOE_OK ||
        (status = check_stops(info, spec, err)) != MOE_OK) {
        return status;
    }
    return check_resume(info, spec, *max_tokens_out, err);
}

static moe_status alloc_choice(engine_request *r, uint32_t index, const engine_info *info, const engine_spec *spec)
{
    choice *c = &r->choices[index];
    size_t capacity = spec->n_prompt + r->max_tokens;

    *c = (choice){.request = r,
                  .index = index,
                  .state = CHOICE_WAITING,
                  .n_tokens = (uint32_t)spec->n_prompt,
                  .capacity = (uint32_t)capacity};
    moe_text_init(&c->text, text_bound(info));
    c->tokens = malloc(capacity * sizeof *c->tokens);
    if (c->tokens == NULL || model_kv_seq_init(&c->kv, capacity) != MOE_OK) {
        return MOE_ERR_NO_MEMORY;
    }
    memcpy(c->tokens, spec->prompt, spec->n_prompt * sizeof *c->tokens);
    if (info->tokenizer != NULL) {
        tokenizer_decode_init(&c->decode, info->tokenizer, true);
        c->decode.first = false; /* an answer continues its prompt */
        c->decode.strip_left = 0;
    }
    return MOE_OK;
}

static moe_status alloc_score(engine_request *r, const engine_info *info)
{
    size_t n = r->n_prompt;

    r->n_experts_per_token = r->want_experts ? info->config->n_layers * info->config->gate.k : 0;
    r->logprobs = calloc(n, sizeof *r->logprobs);
    r->n_tops = calloc(n, sizeof *r->n_tops);
    r->top = calloc(n * MOE_MAX(r->n_top, 1u), sizeof *r->top);
    r->experts = calloc(n * MOE_MAX(r->n_experts_per_token, 1u), sizeof *r->experts);
    return r->logprobs != NULL && r->n_tops != NULL && r->top != NULL && r->experts != NULL ? MOE_OK
                                                                                            : MOE_ERR_NO_MEMORY;
}

static moe_status alloc_events(engine_request *r, const engine_info *info)
{
    r->event_bound =
        sizeof(event_head) + r->n_top * sizeof(sampling_top) + text_bound(info) + sizeof((engine_event *)0)->error;
    r->event_memory = malloc(r->event_bound);
    r->tail_memory = malloc(r->event_bound);
    if (r->event_memory == NULL || r->tail_memory == NULL) {
        return MOE_ERR_NO_MEMORY;
    }
    return moe_ring_open((r->event_bound + 8) * (8 * (size_t)r->n_choices + 4), &r->ring);
}

static moe_status copy_stops(engine_request *r, const engine_info *info, const engine_spec *spec)
{
    for (size_t i = 0; i < spec->n_stop; i++, r->n_stop++) {
        if ((r->stop[i] = strdup(spec->stop[i])) == NULL) {
            return MOE_ERR_NO_MEMORY;
        }
        r->stop_bytes[i] = strlen(spec->stop[i]);
    }
    for (size_t i = 0; i < spec->n_stop_ids; i++) {
        r->stop_ids[r->n_stop_ids++] = spec->stop_ids[i];
    }
    for (size_t i = 0; i < info->config->n_eos && !spec->ignore_eos; i++) {
        r->stop_ids[r->n_stop_ids++] = info->config->eos_ids[i];
    }
    return MOE_OK;
}

static void copy_fields(engine_request *r, const engine_spec *spec, uint32_t max_tokens)
{
    r->kind = spec->kind;
    r->deadline_ns = spec->deadline_ns;
    r->n_prompt = (uint32_t)spec->n_prompt;
    r->max_tokens = max_tokens;
    r->min_tokens = spec->min_tokens;
    r->n_top = spec->n_top;
    r->want_logprobs = spec->want_logprobs;
    r->ignore_eos = spec->ignore_eos;
    r->want_progress = spec->want_progress;
    r->want_experts = spec->want_experts;
    r->sampling = spec->sampling;
    r->n_choices = spec->kind == ENGINE_GENERATE ? spec->n_choices : 1;
    r->n_resume = (uint32_t)spec->n_resume;
    r->wake = spec->wake;
    r->wake_ctx = spec->wake_ctx;
    r->usage.prompt_tokens = r->n_prompt;
    if (!spec->has_seed) {
        r->sampling.seed = moe_random_entropy();
    }
    if (spec->request_id != NULL) {
        strcpy(r->id, spec->request_id); /* check_id_text has bounded it */
    } else {
        snprintf(r->id, sizeof r->id, "req-%016llx", (unsigned long long)moe_random_entropy());
    }
}

static moe_status alloc_all(engine_request *r, const engine_info *info, const engine_spec *spec)
{
    moe_status status = MOE_OK;

    r->n_labels = info->config->n_labels;
    r->choices = calloc(r->n_choices, sizeof *r->choices);
    if (r->choices == NULL) {
        return MOE_ERR_NO_MEMORY;
    }
    for (uint32_t i = 0; i < r->n_choices && status == MOE_OK; i++) {
        status = alloc_choice(r, i, info, spec);
    }
    if (status == MOE_OK && r->kind == ENGINE_SCORE) {
        status = alloc_score(r, info);
    }
    if (status == MOE_OK && r->kind == ENGINE_CLASSIFY &&
        (r->scores = calloc(2 * (size_t)r->n_labels, sizeof *r->scores)) == NULL) {
        status = MOE_ERR_NO_MEMORY;
    }
    if (status == MOE_OK && r->n_resume > 0 && (r->resume = malloc(r->n_resume * sizeof *r->resume)) == NULL) {
        status = MOE_ERR_NO_MEMORY;
    }
    if (status == MOE_OK) {
        status = copy_stops(r, info, spec);
    }
    return status == MOE_OK ? alloc_events(r, info) : status;
}

moe_status request_open(moe_waiter *waiter, const engine_info *info, router_set *current_set, const engine_spec *spec,
                        uint64_t now_ns, engine_request **out, moe_error *err)
{
    engine_request *r;
    uint32_t max_tokens = 0;
    moe_status status = check_spec(info, spec, &max_tokens, err);

    if (status != MOE_OK) {
        return status;
    }
    r = calloc(1, sizeof *r);
    if (r == NULL) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "request: out of memory");
    }
    atomic_init(&r->refs, 1);
    r->waiter = waiter;
    copy_fields(r, spec, max_tokens);
    r->set = router_set_ref(spec->set != NULL ? spec->set : current_set);
    r->submitted_ns = now_ns;
    status = alloc_all(r, info, spec);
    if (status != MOE_OK) {
        request_unref(r);
        return moe_fail(err, status, "request of %zu tokens: %s", spec->n_prompt, moe_status_text(status));
    }
    if (r->n_resume > 0) {
        memcpy(r->resume, spec->resume, r->n_resume * sizeof *r->resume);
    }
    atomic_store(&r->refs, 2);
    *out = r;
    return MOE_OK;
}

void request_unref(engine_request *r)
{
    if (atomic_fetch_sub(&r->refs, 1) != 1) {
        return;
    }
    for (uint32_t i = 0; r->choices != NULL && i < r->n_choices; i++) {
        MOE_ASSERT(r->choices[i].kv.n_pages == 0); /* the engine has taken its pages back */
        free(r->choices[i].kv.pages);
        free(r->choices[i].tokens);
        moe_text_fini(&r->choices[i].text);
    }
    for (size_t i = 0; i < r->n_stop; i++) {
        free(r->stop[i]);
    }
    router_set_unref(r->set);
    moe_ring_close(r->ring);
    void *owned[] = {r->choices, r->resume,  r->logprobs,     r->n_tops,     r->scores,
                     r->top,     r->experts, r->event_memory, r->tail_memory};
    for (size_t i = 0; i < MOE_COUNT(owned); i++) {
        free(owned[i]);
    }
    free(r);
}

/* ------------------------------------------------------------------------------------------------ consumer's side */
static void next_scored(engine_request *r, engine_event *event)
{
    uint32_t i = r->n_read++;

    if (r->kind == ENGINE_CLASSIFY) {
        *event = (engine_event){.kind = ENGINE_CLASSIFIED,
                                .n_scores = r->n_labels,
                                .scores = r->scores,
                                .score_logprobs = r->scores + r->n_labels};
        return;
    }
    *event = (engine_event){.kind = ENGINE_SCORED,
                            .index = i,
                            .token_id = r->choices[0].tokens[i],
                            .has_logprob = i > 0,
                            .logprob = r->logprobs[i],
                            .n_top = r->n_tops[i],
                            .top = r->top + (size_t)i * r->n_top,
                            .n_experts = r->n_experts_per_token,
                            .experts = r->experts + (size_t)i * r->n_experts_per_token};
}

static void next_in_ring(const engine_request *r, engine_event *event)
{
    event_head head;
    const unsigned char *tail = r->event_memory + sizeof head;

    memcpy(&head, r->event_memory, sizeof head);
    *event = (engine_event){.kind = head.kind,
                            .choice = head.choice,
                            .index = head.index,
                            .token_id = head.token_id,
                            .has_logprob = head.has_logprob,
                            .logprob = head.logprob,
                            .n_top = head.n_top,
                            .top = (const sampling_top *)(const void *)tail,
                            .text = (const char *)tail + head.n_top * sizeof(sampling_top),
                            .text_bytes = head.text_bytes,
                            .queue_position = head.queue_position,
                            .prompt_tokens_done = head.prompt_tokens_done,
                            .finish = head.finish,
                            .stop_match = head.stop_match >= 0 ? r->stop[head.stop_match] : NULL,
                            .has_stop_token = head.has_stop_token,
                            .stop_token_id = head.stop_token_id,
                            .usage = head.usage,
                            .status = head.status};
    memcpy(event->error, event->text + head.text_bytes, head.error_bytes);
}

bool engine_next(engine_request *r, engine_event *event)
{
    size_t bytes;

    /* Scored tokens come before the ring's DONE: the engine raises the count before it pushes DONE, so one more look at
     * the count after the pop sees them all; DONE is then held until they are read. */
    if (r->n_read < atomic_load_explicit(&r->n_scored, memory_order_acquire)) {
        next_scored(r, event);
        return true;
    }
    if (!r->held && !moe_ring_pop(r->ring, r->event_memory, r->event_bound, &bytes)) {
        return false;
    }
    r->held = r->n_read < atomic_load_explicit(&r->n_scored, memory_order_acquire);
    if (r->held) {
        next_scored(r, event);
        return true;
    }
    next_in_ring(r, event);
    if (atomic_exchange(&r->paused, false)) {
        moe_waiter_wake(r->waiter);
    }
    return true;
}

const char *engine_request_id(const engine_request *r)
{
    return r->id;
}

uint64_t engine_request_seed(const engine_request *r)
{
    return r->sampling.seed;
}

const char *engine_request_set_id(const engine_request *r)
{
    return router_set_id(r->set);
}

void engine_release(engine_request *r)
{
    if (r != NULL) {
        request_unref(r);
    }
}
