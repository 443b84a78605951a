#include "engine/request_priv.h"

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

/* ------------------------------------------------------------------------------------------------ admission */
static moe_status alloc_choice(engine_request *r, uint32_t index, const engine_info *info, const engine_spec *spec)
{
    choice *c = &r->choices[index];
    size_t capacity = spec->n_prompt + r->max_tokens;

    *c = (choice){.request = r,
                  .index = index,
                  .state = CHOICE_WAITING,
                  .n_tokens = (uint32_t)spec->n_prompt,
                  .capacity = (uint32_t)capacity};
    moe_text_init(&c->text, choice_text_bound(info));
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
    r->min_tokens = MOE_MIN(spec->min_tokens, max_tokens);
    r->n_top = spec->n_top;
    r->want_logprobs = spec->want_logprobs;
    r->want_progress = spec->want_progress;
    r->want_experts = spec->want_experts;
    r->background = spec->background;
    r->score_from = r->n_read = spec->score_from;
    r->sampling = spec->sampling;
    r->n_choices = spec->kind == ENGINE_GENERATE ? spec->n_choices : 1;
    r->n_resume = (uint32_t)spec->n_resume;
    r->wake = spec->wake;
    r->wake_ctx = spec->wake_ctx;
    r->usage.prompt_tokens = r->n_prompt;
    if (!spec->has_seed) {
        /* 53 bits: a client may read its seed from JSON, where many readers keep no more of a number. */
        r->sampling.seed = moe_random_entropy() >> 11;
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
    return status == MOE_OK ? request_events_open(r, info) : status;
}

moe_status request_open(moe_waiter *waiter, const engine_info *info, router_set *current_set, const engine_spec *spec,
                        uint64_t now_ns, engine_request **out, moe_error *err)
{
    engine_request *r;
    uint32_t max_tokens = 0;
    moe_status status = request_check(info, spec, &max_tokens, err);

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

uint32_t engine_request_n_choices(const engine_request *r)
{
    return r->n_choices;
}

const int32_t *engine_request_tokens(const engine_request *r, uint32_t index, size_t *n_prompt, size_t *n)
{
    MOE_ASSERT(index < r->n_choices);
    *n_prompt = r->n_prompt;
    *n = r->choices[index].n_tokens;
    return r->choices[index].tokens;
}

void engine_release(engine_request *r)
{
    if (r != NULL) {
        request_unref(r);
    }
}
