/* Readiness: a real token has gone through all layers, and since then every expert has had a live owner. What the owners
 * are is the exchange's coverage; which of its gaps a token has been sent through after is `proven`. */
#include "engine/engine_priv.h"

static bool in_a_gap(const engine *e, const exchange_coverage *c)
{
    return !c->whole && (atomic_load(&e->proven) == 0 || moe_now_ns(e->options.clock) - c->since_ns >= EXCHANGE_GAP_NS);
}

static bool is_proven(const engine *e, const exchange_coverage *c)
{
    return atomic_load(&e->proven) == c->n_gaps + 1;
}

static void copy_reason(engine *e, moe_error *err)
{
    pthread_mutex_lock(&e->lock);
    moe_error why = e->unproven;
    pthread_mutex_unlock(&e->lock);
    (void)moe_fail(err, MOE_ERR_UNAVAILABLE, "no token has gone through all layers yet%s%s",
                   why.text[0] == '\0' ? "" : ": ", why.text);
}

moe_status engine_check_ready(engine *e, moe_error *err)
{
    exchange_coverage c;

    if (atomic_load(&e->draining)) {
        return moe_fail(err, MOE_ERR_UNAVAILABLE, "the server is draining");
    }
    exchange_get_coverage(e->options.exchange, &c);
    if (in_a_gap(e, &c)) {
        return exchange_coverage_check(&c, err);
    }
    if (!is_proven(e, &c)) {
        copy_reason(e, err);
        return MOE_ERR_UNAVAILABLE;
    }
    return MOE_OK;
}

bool engine_ready(engine *e)
{
    return engine_check_ready(e, NULL) == MOE_OK;
}

/* ------------------------------------------------------------------------------------------------ proofs */
/* A gap that ended in the middle of the step may have changed who owns what: the next token tells. */
void engine_note_proof(engine *e, const exchange_coverage *at_begin)
{
    exchange_coverage c;

    exchange_get_coverage(e->options.exchange, &c);
    if (at_begin->whole && c.whole && at_begin->n_gaps == c.n_gaps) {
        atomic_store(&e->proven, c.n_gaps + 1);
    }
}

static moe_status begin_proof(engine *e, moe_error *err)
{
    compute_device *device = model_device(e->options.model);
    moe_status status = model_kv_seq_init(&e->proof, 1);

    if (status == MOE_OK) {
        status = model_kv_seq_reserve(e->options.kv, &e->proof, 1);
        if (status != MOE_OK) {
            model_kv_seq_fini(e->options.kv, &e->proof);
        }
    }
    if (status != MOE_OK) {
        return moe_fail(err, status, "no KV page");
    }
    device->ops->counters(device, &e->before_own);
    e->step.rows[0] =
        (model_row){.token_id = 0, .position = 0, .pages = e->proof.pages, .set = e->set, .want_logits = true};
    e->step.n_rows = e->step.n_logits = 1;
    e->step.n_work = 0;
    engine_begin_step(e, true);
    return MOE_OK;
}

static void set_reason(engine *e, const char *why)
{
    pthread_mutex_lock(&e->lock);
    (void)snprintf(e->unproven.text, sizeof e->unproven.text, "%s", why);
    pthread_mutex_unlock(&e->lock);
}

/* A token of our own is in nobody's figures. */
void engine_end_proof(engine *e, moe_status status, const char *why)
{
    compute_device *device = model_device(e->options.model);
    compute_counters after;
    float logprob;

    if (status == MOE_OK &&
        (engine_row_failed(e, 0) || sampler_logprobs(e->samplers[0], e->logits, 0, &logprob, 0, NULL) != MOE_OK)) {
        status = MOE_ERR_DATA_LOSS;
        why = "the model gave a value that is not a number";
    }
    device->ops->counters(device, &after);
    e->own_tokens.stick_keys_seen += after.stick_keys_seen - e->before_own.stick_keys_seen;
    e->own_tokens.stick_keys_skipped += after.stick_keys_skipped - e->before_own.stick_keys_skipped;
    model_kv_seq_fini(e->options.kv, &e->proof);
    e->step.n_rows = e->step.n_logits = 0;
    set_reason(e, status == MOE_OK ? "" : why);
    e->proof_status = status;
    if (status == MOE_OK) {
        engine_note_proof(e, &e->run.at_begin);
        MOE_INFO("ready: every expert has a live owner, and a token has gone through all layers");
    } else {
        MOE_WARN("not ready: %s", why);
    }
    engine_publish_stats(e);
}

void engine_prove(engine *e)
{
    exchange_coverage c;
    moe_error err = {""};

    exchange_get_coverage(e->options.exchange, &c);
    if (!c.whole || is_proven(e, &c) || atomic_load(&e->stopping)) {
        return;
    }
    if (begin_proof(e, &err) != MOE_OK) {
        set_reason(e, err.text);
        MOE_WARN("not ready: %s", err.text);
    }
}

static moe_status send_token(engine *e, moe_error *err)
{
    moe_status status = begin_proof(e, err);

    if (status != MOE_OK) {
        return status;
    }
    (void)engine_step(e);
    return e->proof_status == MOE_OK ? MOE_OK : moe_fail(err, e->proof_status, "warm-up: %s", e->unproven.text);
}

/* The owners may not be connected yet: until then tokens are put off, one after the other. */
moe_status engine_warm_up(engine *e, moe_error *err)
{
    uint64_t begun = moe_now_ns(e->options.clock);
    moe_status status;

    do {
        status = send_token(e, err);
    } while ((status == MOE_ERR_UNAVAILABLE || (status == MOE_OK && atomic_load(&e->proven) == 0)) &&
             moe_now_ns(e->options.clock) - begun < e->options.step_timeout_ns);
    return status;
}
