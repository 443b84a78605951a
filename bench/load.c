#include "bench/load.h"

moe_status load_submit(load *l, const int32_t *prompt, size_t n_prompt, uint32_t max_tokens, moe_error *err)
{
    engine_spec spec = {.kind = ENGINE_GENERATE,
                        .prompt = prompt,
                        .n_prompt = n_prompt,
                        .has_max_tokens = true,
                        .max_tokens = max_tokens,
                        .sampling = {.temperature = 1.0f, .top_p = 1.0f, .repetition_penalty = 1.0f},
                        .n_choices = 1,
                        .ignore_eos = true};
    moe_status status;

    MOE_ASSERT(l->n_requests < LOAD_MAX);
    status = engine_submit(l->engine, &spec, &l->requests[l->n_requests], err);
    if (status == MOE_OK) {
        l->n_tokens[l->n_requests++] = 0;
    }
    return status;
}

moe_status load_read(load *l, moe_error *err)
{
    engine_event ev;

    for (size_t i = 0; i < l->n_requests; i++) {
        while (engine_next(l->requests[i], &ev)) {
            l->n_tokens[i] += ev.kind == ENGINE_TOKEN;
            if (ev.kind == ENGINE_FAILED) {
                return moe_fail(err, ev.status, "a request failed: %s", ev.error);
            }
        }
    }
    return MOE_OK;
}

bool load_all_decode(const load *l)
{
    for (size_t i = 0; i < l->n_requests; i++) {
        if (l->n_tokens[i] == 0) {
            return false;
        }
    }
    return true;
}

void load_end(load *l)
{
    moe_error err;

    for (size_t i = 0; i < l->n_requests; i++) {
        engine_cancel(l->requests[i]);
    }
    while (engine_step(l->engine) && load_read(l, &err) == MOE_OK) {
    }
    while (l->n_requests > 0) {
        engine_release(l->requests[--l->n_requests]);
    }
}
