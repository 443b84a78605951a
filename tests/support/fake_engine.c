#include "tests/support/fake_engine.h"
#include "tests/support/fake_tokenizer.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define RING 64

struct engine_request {
    engine *engine;
    int n_refs; /* under the engine's mutex */
    char id[ENGINE_MAX_REQUEST_ID + 1];
    router_set *set;
    engine_kind kind;
    int32_t *prompt, *resume;
    size_t n_prompt;
    char command[64], stop[ENGINE_MAX_STOP_BYTES + 1];
    uint32_t n_choices, max_tokens, n_top;
    bool want_logprobs, want_progress, want_experts, has_stop;
    uint64_t seed, deadline_ns, next_ns;
    void (*wake)(void *ctx);
    void *wake_ctx;
    /* what the loop has done */
    bool started, ended;
    uint32_t choice, index, first;
    tokenizer_decode decode;
    /* events */
    engine_event ring[RING];
    char text[RING][32];
    size_t head, tail;
    sampling_top top[SAMPLING_MAX_TOP_LOGPROBS];
    int32_t experts[FAKE_LAYERS * FAKE_TOP_K];
    engine_request *next;
};

struct engine {
    model_config config;
    tokenizer tokenizer;
    engine_info info;
    router_set *set; /* under the mutex */
    router_space *space;
    catalogue *catalogue;
    packs *packs; /* NULL: none were asked for */
    atomic_bool ready, stop, frozen;
    atomic_uint_least64_t last_step_ns, tokens, admitted, cancelled;
    pthread_mutex_t mutex;
    pthread_t thread;
    engine_request *requests;
    uint64_t n_drawn;
};

const double engine_bucket_seconds[16] = {0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2,
                                          0.5,   1,     2,     5,    10,   20,   50,  100};

/* ------------------------------------------------------------------------------------------------ events */
static size_t ring_room(const engine_request *r)
{
    return RING - (r->tail - r->head);
}

static engine_event *push(engine_request *r, engine_event_kind kind)
{
    size_t at = r->tail++ % RING;

    r->ring[at] = (engine_event){.kind = kind, .text = r->text[at]};
    return &r->ring[at];
}

static void set_text(engine_event *event, const moe_text *text)
{
    MOE_ASSERT(text->size < 32);
    memcpy((char *)(uintptr_t)event->text, moe_text_cstr(text), text->size);
    event->text_bytes = text->size;
}

static void end(engine_request *r, moe_status status)
{
    engine_event *event = push(r, status == MOE_OK ? ENGINE_DONE : ENGINE_FAILED);

    event->status = status;
    snprintf(event->error, sizeof(event->error), "the fake engine was told to fail");
    event->usage =
        (engine_usage){.prompt_tokens = (uint32_t)r->n_prompt, .completion_tokens = r->max_tokens * r->n_choices};
    r->ended = true;
}

static int32_t next_token(const engine_request *r)
{
    if (strncmp(r->command, "!utf8", 5) == 0) {
        return r->index % 2 == 0 ? 0xc3 : 0xa9;
    }
    if (strncmp(r->command, "!nul", 4) == 0) {
        return 0;
    }
    if (strncmp(r->command, "!echo", 5) == 0) {
        return r->prompt[r->index % r->n_prompt];
    }
    return 'a' + (int32_t)((r->seed + r->index + r->choice) % 26);
}

static void add_logprobs(engine_request *r, engine_event *event)
{
    event->has_logprob = true;
    event->logprob = -0.5f;
    event->n_top = r->n_top;
    event->top = r->top;
}

static void token(engine_request *r)
{
    engine_event *event = push(r, ENGINE_TOKEN);
    moe_text text;

    moe_text_init(&text, 64);
    event->choice = r->choice;
    event->index = r->index;
    event->token_id = next_token(r);
    if (r->want_logprobs) {
        add_logprobs(r, event);
    }
    tokenizer_decode_push(&r->decode, event->token_id, &text);
    set_text(event, &text);
    moe_text_fini(&text);
    atomic_fetch_add(&r->engine->tokens, 1);
    r->index++;
}

static void choice_done(engine_request *r, bool stopped)
{
    engine_event *event = push(r, ENGINE_CHOICE_DONE);
    moe_text text;

    moe_text_init(&text, 64);
    tokenizer_decode_finish(&r->decode, &text);
    set_text(event, &text);
    moe_text_fini(&text);
    event->choice = r->choice;
    event->finish = stopped ? ENGINE_FINISH_STOP : ENGINE_FINISH_LENGTH;
    event->stop_match = stopped && r->has_stop ? r->stop : NULL;
    event->has_stop_token = stopped && !r->has_stop;
    event->stop_token_id = 256;
    r->choice++;
    r->index = 0;
    tokenizer_decode_init(&r->decode, r->decode.t, false);
}

static bool step_generate(engine_request *r)
{
    int status, after = 0;

    if (sscanf(r->command, "!fail %d", &status) == 1 ||
        (sscanf(r->command, "!break %d %d", &status, &after) == 2 && r->index >= (uint32_t)after)) {
        end(r, (moe_status)-status);
    } else if (r->choice == r->n_choices) {
        end(r, MOE_OK);
    } else if (strncmp(r->command, "!stop", 5) == 0 && r->index == 3) {
        choice_done(r, true);
    } else if (r->index >= r->max_tokens) {
        choice_done(r, false);
    } else {
        token(r);
        r->next_ns = strncmp(r->command, "!slow", 5) == 0 ? engine_now_ns(NULL) + 50000000u : 0;
    }
    return true;
}

static bool step_score(engine_request *r)
{
    if (r->index == r->n_prompt) {
        end(r, MOE_OK);
        return true;
    }
    engine_event *event = push(r, ENGINE_SCORED);
    event->index = r->index;
    event->token_id = r->prompt[r->index];
    add_logprobs(r, event);
    event->has_logprob = r->index > 0;
    event->n_experts = r->want_experts ? FAKE_LAYERS * FAKE_TOP_K : 0;
    event->experts = r->experts;
    r->index++;
    return true;
}

/* Label i scores i, and i - 10 as its log-softmax. */
static bool step_classify(engine_request *r)
{
    static const float scores[FAKE_LABELS] = {0, 1, 2}, logprobs[FAKE_LABELS] = {-10, -9, -8};
    int status;

    if (sscanf(r->command, "!fail %d", &status) == 1) {
        end(r, (moe_status)-status);
    } else if (r->index == 1) {
        end(r, MOE_OK);
    } else {
        engine_event *event = push(r, ENGINE_CLASSIFIED);

        event->n_scores = FAKE_LABELS;
        event->scores = scores;
        event->score_logprobs = logprobs;
        r->index = 1;
    }
    return true;
}

static bool step(engine_request *r)
{
    uint64_t now = engine_now_ns(NULL);

    if (r->ended || ring_room(r) < 4 || now < r->next_ns) {
        return false;
    }
    if (!r->started) {
        r->started = true;
        push(r, ENGINE_STARTED);
        if (r->want_progress) {
            push(r, ENGINE_PROGRESS)->prompt_tokens_done = (uint32_t)r->n_prompt;
        }
        return true;
    }
    if (r->deadline_ns != 0 && now >= r->deadline_ns) {
        end(r, MOE_ERR_TIMEOUT);
        return true;
    }
    if (strncmp(r->command, "!hang", 5) == 0) {
        return false;
    }
    return r->kind == ENGINE_SCORE ? step_score(r) : r->kind == ENGINE_CLASSIFY ? step_classify(r) : step_generate(r);
}

static void *loop(void *ctx)
{
    engine *e = ctx;
    struct timespec pause = {.tv_nsec = 200000};

    while (!atomic_load(&e->stop)) {
        atomic_store(&e->last_step_ns, engine_now_ns(NULL));
        pthread_mutex_lock(&e->mutex);
        for (engine_request *r = e->requests; r != NULL; r = r->next) {
            if (step(r)) {
                r->wake(r->wake_ctx);
            }
        }
        pthread_mutex_unlock(&e->mutex);
        nanosleep(&pause, NULL);
    }
    return NULL;
}

/* ------------------------------------------------------------------------------------------------ the engine */
static void request_free(engine_request *r)
{
    router_set_unref(r->set);
    free(r->prompt);
    free(r->resume);
    free(r);
}

static bool duplicate(const engine *e, const char *id)
{
    for (const engine_request *r = e->requests; r != NULL; r = r->next) {
        if (!r->ended && strcmp(r->id, id) == 0) {
            return true;
        }
    }
    return false;
}

static void fill(engine_request *r, engine *e, const engine_spec *spec)
{
    r->engine = e;
    r->n_refs = 1;
    r->kind = spec->kind;
    r->set = router_set_ref(spec->set != NULL ? spec->set : e->set);
    r->prompt = malloc(spec->n_prompt * sizeof(int32_t));
    MOE_ASSERT(r->prompt != NULL);
    memcpy(r->prompt, spec->prompt, spec->n_prompt * sizeof(int32_t));
    r->n_prompt = spec->n_prompt;
    for (size_t i = 0; i < spec->n_prompt && i < sizeof(r->command) - 1; i++) {
        r->command[i] = (char)spec->prompt[i];
    }
    r->n_choices = spec->n_choices;
    r->max_tokens = spec->has_max_tokens ? spec->max_tokens : e->info.default_max_tokens;
    r->want_logprobs = spec->want_logprobs;
    r->want_progress = spec->want_progress;
    r->want_experts = spec->want_experts;
    r->n_top = spec->n_top;
    r->seed = spec->has_seed ? spec->sampling.seed : 0;
    r->deadline_ns = spec->deadline_ns;
    r->wake = spec->wake;
    r->wake_ctx = spec->wake_ctx;
    r->index = (uint32_t)spec->n_resume;
    r->has_stop = spec->n_stop > 0;
    if (r->has_stop) {
        snprintf(r->stop, sizeof(r->stop), "%s", spec->stop[0]);
    }
    for (int i = 0; i < SAMPLING_MAX_TOP_LOGPROBS; i++) {
        r->top[i] = (sampling_top){.token_id = 'a' + i, .logprob = -0.5f - (float)i};
    }
    for (int i = 0; i < FAKE_LAYERS * FAKE_TOP_K; i++) {
        r->experts[i] = i % FAKE_TOP_K;
    }
    tokenizer_decode_init(&r->decode, e->info.tokenizer, false);
    if (spec->request_id != NULL) {
        snprintf(r->id, sizeof(r->id), "%s", spec->request_id);
    } else {
        snprintf(r->id, sizeof(r->id), "drawn-%llu", (unsigned long long)++e->n_drawn);
    }
}

static moe_status admit(engine *e, const engine_spec *spec, moe_error *err)
{
    size_t n = 0;

    if ((spec->kind == ENGINE_CLASSIFY) != (e->config.n_labels > 0)) {
        return moe_fail(err, MOE_ERR_UNSUPPORTED, "the model's head: %u labels", e->config.n_labels);
    }
    if (!atomic_load(&e->ready)) {
        return moe_fail(err, MOE_ERR_UNAVAILABLE, "the engine is starting");
    }
    if (spec->n_prompt + (spec->has_max_tokens ? spec->max_tokens : 0) > e->info.max_context) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "max_tokens: prompt and max_tokens exceed max_context, %u",
                        e->info.max_context);
    }
    for (const engine_request *r = e->requests; r != NULL; r = r->next) {
        n += !r->ended;
    }
    if (n >= FAKE_MAX_QUEUE) {
        return moe_fail(err, MOE_ERR_BUSY, "the queue is full");
    }
    return spec->request_id != NULL && duplicate(e, spec->request_id)
               ? moe_fail(err, MOE_ERR_EXISTS, "request_id: is live already")
               : MOE_OK;
}

moe_status engine_submit(engine *e, const engine_spec *spec, engine_request **out, moe_error *err)
{
    engine_request *r = calloc(1, sizeof(*r));

    MOE_ASSERT(r != NULL);
    pthread_mutex_lock(&e->mutex);
    moe_status status = admit(e, spec, err);
    if (status == MOE_OK) {
        fill(r, e, spec);
        r->next = e->requests;
        e->requests = r;
        atomic_fetch_add(&e->admitted, 1);
        *out = r;
    } else {
        free(r);
    }
    pthread_mutex_unlock(&e->mutex);
    return status;
}

const char *engine_request_id(const engine_request *r)
{
    return r->id;
}

uint64_t engine_request_seed(const engine_request *r)
{
    return r->seed;
}

const char *engine_request_set_id(const engine_request *r)
{
    return router_set_id(r->set);
}

/* Nothing that could be scored again. */
const int32_t *engine_request_tokens(const engine_request *r, uint32_t index, size_t *n_prompt, size_t *n)
{
    MOE_ASSERT(index < r->n_choices);
    *n_prompt = *n = r->n_prompt;
    return r->prompt;
}

bool engine_next(engine_request *r, engine_event *event)
{
    bool any;

    pthread_mutex_lock(&r->engine->mutex);
    any = r->head != r->tail;
    if (any) {
        *event = r->ring[r->head++ % RING];
    }
    pthread_mutex_unlock(&r->engine->mutex);
    return any;
}

void engine_cancel(engine_request *r)
{
    pthread_mutex_lock(&r->engine->mutex);
    if (!r->ended) {
        r->ended = true;
        atomic_fetch_add(&r->engine->cancelled, 1);
    }
    pthread_mutex_unlock(&r->engine->mutex);
}

void engine_release(engine_request *r)
{
    engine *e = r->engine;

    pthread_mutex_lock(&e->mutex);
    for (engine_request **at = &e->requests; *at != NULL; at = &(*at)->next) {
        if (*at == r) {
            *at = r->next;
            break;
        }
    }
    pthread_mutex_unlock(&e->mutex);
    request_free(r);
}

/* An hour ahead: nobody may take it for his own clock. */
uint64_t engine_now_ns(const engine *e)
{
    (void)e;
    return moe_now_ns(moe_clock_real()) + UINT64_C(3600000000000);
}

/* A device with memory of its own. */
static void report(compute_device *d, compute_report *out)
{
    (void)d;
    *out = (compute_report){.memory_bytes = 1000,
                            .free_bytes = 400,
                            .used_bytes = 500,
                            .kernel_ns = 1500000000,
                            .copy_ns = 250000000,
                            .copied_bytes = 77};
}

static const compute_ops device_ops = {.report = report};
static compute_device device = {.ops = &device_ops, .place = "fake:0", .name = "fake:0 \"GPU\""};

const engine_info *engine_get_info(const engine *e)
{
    return &e->info;
}

void engine_get_stats(engine *e, engine_stats *out)
{
    *out = (engine_stats){.requests_admitted = atomic_load(&e->admitted),
                          .requests_cancelled = atomic_load(&e->cancelled),
                          .generated_tokens = atomic_load(&e->tokens),
                          .attention_keys_seen = 12,
                          .attention_keys_skipped = 34,
                          .running = (uint32_t)fake_engine_live(e),
                          .last_step_ns = atomic_load(&e->frozen) ? 1 : atomic_load(&e->last_step_ns)};
}

uint64_t engine_get_expert_use(engine *e, router_expert_use *out, size_t n)
{
    (void)e;
    for (size_t i = 0; i < n; i++) {
        out[i] = (router_expert_use){.rows = i * 10, .mass = (double)i * 2.5, .rate = (double)i / 2};
    }
    return 7;
}

/* For an hour at most: experts 0 and 1 of the first layer have had none lately. */
bool engine_get_expert_rows_over(engine *e, uint64_t over_ns, uint64_t *out, size_t n, uint64_t *longest_ns)
{
    (void)e;
    *longest_ns = UINT64_C(3600000000000);
    for (size_t i = 0; i < n && over_ns <= *longest_ns; i++) {
        out[i] = i < 2 ? 0 : 5;
    }
    return over_ns <= *longest_ns;
}

void engine_get_ffn_picks(engine *e, uint64_t *out, size_t n)
{
    (void)e;
    for (size_t i = 0; i < n; i++) {
        out[i] = i;
    }
}

router_space *engine_current_space(engine *e)
{
    return router_space_ref(e->space);
}

router_set *engine_current_set(engine *e)
{
    pthread_mutex_lock(&e->mutex);
    router_set *set = router_set_ref(e->set);
    pthread_mutex_unlock(&e->mutex);
    return set;
}

size_t engine_live_sets(engine *e, router_set *out[ENGINE_MAX_SETS])
{
    size_t n = 0;

    pthread_mutex_lock(&e->mutex);
    for (const engine_request *r = e->requests; r != NULL; r = r->next) {
        bool is_new = !r->ended && n < ENGINE_MAX_SETS;

        for (size_t i = 0; i < n && is_new; i++) {
            is_new = strcmp(router_set_id(out[i]), router_set_id(r->set)) != 0;
        }
        if (is_new) {
            out[n++] = router_set_ref(r->set);
        }
    }
    pthread_mutex_unlock(&e->mutex);
    return n;
}

/* Taken at once: nothing is computed. */
moe_status engine_change(engine *e, const engine_changes *changes, moe_error *err)
{
    moe_status status = changes->take != NULL ? changes->take(changes->ctx, err) : MOE_OK;

    if (status == MOE_OK && changes->set != NULL) {
        pthread_mutex_lock(&e->mutex);
        router_set_unref(e->set);
        e->set = router_set_ref(changes->set);
        pthread_mutex_unlock(&e->mutex);
    }
    return status;
}

moe_status engine_check_ready(engine *e, moe_error *err)
{
    return atomic_load(&e->ready) ? MOE_OK : moe_fail(err, MOE_ERR_UNAVAILABLE, "no live owner: layer 1 expert 2");
}

bool engine_ready(engine *e)
{
    return engine_check_ready(e, NULL) == MOE_OK;
}

/* ------------------------------------------------------------------------------------------------ for tests */
static void open_set(engine *e)
{
    catalogue_model m = {.min_experts = FAKE_TOP_K};
    moe_status status = model_config_space(&e->config, &m.space, NULL);

    if (status == MOE_OK) {
        status = catalogue_open(&m, &e->catalogue, NULL);
    }
    MOE_ASSERT(status == MOE_OK);
    e->set = router_set_ref(catalogue_default(e->catalogue));
    e->space = m.space;
}

engine *fake_engine_open(const fake_options *options)
{
    engine *e = calloc(1, sizeof(*e));

    MOE_ASSERT(e != NULL);
    fake_tokenizer_init(&e->tokenizer, !options->no_chat);
    e->config = (model_config){.model_type = "fake",
                               .n_layers = FAKE_LAYERS,
                               .d_model = 8,
                               .vocab_size = FAKE_VOCAB,
                               .n_experts = FAKE_EXPERTS,
                               .n_ffn_experts = 2,
                               .n_constant_experts = 1,
                               .n_zero_experts = 1,
                               .n_labels = options->classifier ? FAKE_LABELS : 0,
                               .pad_id = FAKE_PAD,
                               .gate = {.k = FAKE_TOP_K},
                               .eos_ids = {256},
                               .n_eos = 1,
                               .defaults = model_no_defaults};
    e->info = (engine_info){.config = &e->config,
                            .device = &device,
                            .tokenizer = options->no_tokenizer ? NULL : &e->tokenizer,
                            .max_context = options->max_context != 0 ? options->max_context : FAKE_MAX_CONTEXT,
                            .default_max_tokens = 16,
                            .max_queue = FAKE_MAX_QUEUE,
                            .max_running = 16,
                            .kv_capacity_tokens = 16 * FAKE_MAX_CONTEXT};
    memset(e->info.fingerprint, 'f', 64);
    open_set(e);
    atomic_init(&e->ready, true);
    pthread_mutex_init(&e->mutex, NULL);
    int rc = pthread_create(&e->thread, NULL, loop, e);
    MOE_ASSERT(rc == 0);
    return e;
}

void fake_engine_close(engine *e)
{
    atomic_store(&e->stop, true);
    pthread_join(e->thread, NULL);
    MOE_ASSERT(e->requests == NULL);
    router_set_unref(e->set);
    router_space_unref(e->space);
    catalogue_unref(e->catalogue);
    packs_close(e->packs);
    pthread_mutex_destroy(&e->mutex);
    free(e);
}

registry *fake_registry_open(engine *e, const char *no_changes,
                             moe_status (*change)(void *ctx, engine *e, const embedded_changes *c, moe_error *err))
{
    static const unsigned char fingerprint[32];
    const pack_base base = {.config = &e->config, .fingerprint = fingerprint};
    registry_options options = {.engine = e, .first = e->catalogue, .no_changes = no_changes, .change = change};
    registry *r = NULL;
    moe_error err = {""};

    if (change != NULL && e->packs == NULL && packs_open(&base, NULL, &e->packs, &err) != MOE_OK) {
        moe_assert_failed(err.text, __FILE__, __LINE__);
    }
    options.packs = e->packs;
    if (registry_open(&options, &r, &err) != MOE_OK) {
        moe_assert_failed(err.text, __FILE__, __LINE__);
    }
    return r;
}

void fake_engine_set_ready(engine *e, bool ready)
{
    atomic_store(&e->ready, ready);
}

void fake_engine_freeze(engine *e, bool frozen)
{
    atomic_store(&e->frozen, frozen);
}

void fake_engine_hold(engine *e, bool held)
{
    fake_tokenizer_hold(&e->tokenizer, held);
}

size_t fake_engine_held(engine *e)
{
    return fake_tokenizer_count(&e->tokenizer, &e->tokenizer.n_held);
}

size_t fake_engine_encoded(engine *e)
{
    return fake_tokenizer_count(&e->tokenizer, &e->tokenizer.n_encoded);
}

size_t fake_engine_live(engine *e)
{
    size_t n = 0;

    pthread_mutex_lock(&e->mutex);
    for (const engine_request *r = e->requests; r != NULL; r = r->next) {
        n += !r->ended;
    }
    pthread_mutex_unlock(&e->mutex);
    return n;
}
