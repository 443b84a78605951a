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

static moe_status run_token(engine *e, moe_error *err)
{
    uint32_t pages[1];
    float logprob;
    model_kv_seq seq;
    moe_status status = model_kv_seq_init(&seq, 1);

    if (status == MOE_OK) {
        status = model_kv_seq_reserve(e->options.kv, &seq, 1);
        if (status != MOE_OK) {
            model_kv_seq_fini(e->options.kv, &seq);
        }
    }
    if (status != MOE_OK) {
        return moe_fail(err, status, "warm-up: no KV page");
    }
    pages[0] = seq.pages[0];
    e->step.rows[0] = (model_row){.token_id = 0, .position = 0, .pages = pages, .set = e->set, .want_logits = true};
    e->step.n_rows = e->step.n_logits = 1;
    e->step.n_work = 0;
    status = engine_run_rows(e, err);
    if (status == MOE_OK &&
        (engine_row_failed(e, 0) || sampler_logprobs(e->sampler, e->logits, 0, &logprob, 0, NULL) != MOE_OK)) {
        status = moe_fail(err, MOE_ERR_DATA_LOSS, "warm-up: the model gave a value that is not a number");
    }
    model_kv_seq_fini(e->options.kv, &seq);
    e->step.n_rows = e->step.n_logits = 0;
    return status;
}

/* A token of our own is in nobody's figures. */
static moe_status run_uncounted(engine *e, moe_error *err)
{
    compute_device *device = model_device(e->options.model);
    compute_counters before, after;

    device->ops->counters(device, &before);
    e->proving = true;
    moe_status status = run_token(e, err);
    e->proving = false;
    device->ops->counters(device, &after);
    e->own_tokens.stick_keys_seen += after.stick_keys_seen - before.stick_keys_seen;
    e->own_tokens.stick_keys_skipped += after.stick_keys_skipped - before.stick_keys_skipped;
    return status;
}

moe_status engine_warm_up(engine *e, moe_error *err)
{
    exchange_coverage at_begin;
    moe_error why = {""};

    exchange_get_coverage(e->options.exchange, &at_begin);
    moe_status status = run_uncounted(e, &why);
    if (status == MOE_OK) {
        (void)exchange_progress(
            e->options.exchange); /* a token whose picks are all local has not turned the transport */
        engine_note_proof(e, &at_begin);
        engine_publish_stats(e);
    } else if (err != NULL) {
        *err = why;
    }
    pthread_mutex_lock(&e->lock);
    e->unproven = why;
    pthread_mutex_unlock(&e->lock);
    return status;
}

void engine_prove(engine *e)
{
    exchange_coverage c;
    moe_error err = {""};

    exchange_get_coverage(e->options.exchange, &c);
    if (!c.whole || is_proven(e, &c) || atomic_load(&e->stopping)) {
        return;
    }
    if (engine_warm_up(e, &err) != MOE_OK) {
        MOE_WARN("not ready: %s", err.text);
    } else {
        MOE_INFO("ready: every expert has a live owner, and a token has gone through all layers");
    }
}
