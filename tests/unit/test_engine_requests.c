/* What a request may ask for and what it gets: stopping, choices, cancelling, bounds, refusals. */
#include <math.h>
#include <stdlib.h>

#include "tests/support/engine_fixture.h"
#include "tests/support/random_model.h"
#include "tests/support/support.h"

#define TOKENIZER_DIR "tests/vectors/tokenizer"
#define VOCAB         512
#define NAN_TOKEN     (VOCAB - 1) /* the end of sequence: it ends an answer and is never read again */

typedef struct world {
    test_folder folder;
    engine_fixture f;
    int32_t prompt[64];
} world;

static void open_world(world *w, uint32_t nan_token, void (*adjust)(engine_fixture_options *o))
{
    random_model m = random_model_defaults("olmoe");
    engine_fixture_options o;

    test_folder_open(&w->folder);
    m.vocab_size = VOCAB;
    m.n_layers = 2;
    m.nan_token = nan_token;
    random_model_write(&m, w->folder.path);
    o = engine_fixture_defaults(w->folder.path);
    o.tokenizer_dir = TOKENIZER_DIR;
    if (adjust != NULL) {
        adjust(&o);
    }
    engine_fixture_open(&w->f, &o);
    random_prompt(w->prompt, MOE_COUNT(w->prompt), NAN_TOKEN, 3);
}

static int setup(void **state)
{
    world *w = calloc(1, sizeof *w);

    open_world(w, 0, NULL);
    *state = w;
    return 0;
}

static void close_world(world *w)
{
    engine_fixture_close(&w->f);
    test_folder_close(&w->folder);
    free(w);
}

static int teardown(void **state)
{
    close_world(*state);
    return 0;
}

static engine_spec plain(const world *w, uint32_t max_tokens)
{
    return ask_spec(w->prompt, MOE_COUNT(w->prompt), max_tokens, 11);
}

static engine_spec of_kind(const world *w, engine_kind kind)
{
    return (engine_spec){.kind = kind, .prompt = w->prompt, .n_prompt = MOE_COUNT(w->prompt)};
}

static asked *run(world *w, const engine_spec *spec)
{
    asked *a = malloc(sizeof *a);

    ask(&w->f, a, spec);
    ask_finish(&w->f, a);
    return a;
}

static uint64_t pages_used(world *w)
{
    engine_stats stats;

    engine_get_stats(w->f.engine, &stats);
    return stats.kv_pages_used;
}

/* ------------------------------------------------------------------------------------------------ stopping */
static void an_answer_ends_at_max_tokens_with_length(void **state)
{
    engine_spec spec = plain(*state, 9);
    asked *a = run(*state, &spec);

    assert_int_equal(a->choices[0].n, 9);
    assert_int_equal(a->choices[0].finish, ENGINE_FINISH_LENGTH);
    assert_int_equal(a->usage.completion_tokens, 9);
    free(a);
}

static void text_is_what_the_tokens_decode_to(void **state)
{
    world *w = *state;
    engine_spec spec = plain(w, 40);
    asked *a = run(w, &spec);
    tokenizer_decode d;
    moe_text text;

    moe_text_init(&text, ANSWER_MAX_TEXT);
    tokenizer_decode_init(&d, w->f.tokenizer, true);
    d.first = false;
    d.strip_left = 0;
    for (uint32_t i = 0; i < a->choices[0].n; i++) {
        tokenizer_decode_push(&d, a->choices[0].tokens[i], &text);
    }
    tokenizer_decode_finish(&d, &text);
    assert_int_equal(text.size, a->choices[0].text_bytes);
    assert_memory_equal(moe_text_cstr(&text), a->choices[0].text, text.size);
    moe_text_fini(&text);
    free(a);
}

static void a_stop_string_is_cut_wherever_it_begins(void **state)
{
    world *w = *state;
    engine_spec spec = plain(w, 40);
    asked *whole = run(w, &spec);
    const answer *said = &whole->choices[0];
    unsigned tried = 0;

    for (size_t at = 0; at + 5 <= said->text_bytes; at++) {
        char stop[6] = {0};
        const char *stops[] = {"never said \x7f", stop};
        asked *a;
        memcpy(stop, said->text + at, 5);
        if (moe_utf8_valid_prefix(stop, 5) != 5 || strlen(stop) != 5) {
            continue;
        }
        spec.stop = stops;
        spec.n_stop = 2;
        a = run(w, &spec);
        assert_int_equal(a->choices[0].finish, ENGINE_FINISH_STOP);
        assert_string_equal(a->choices[0].stop_match, stop);
        assert_int_equal(a->choices[0].text_bytes, (char *)memmem(said->text, said->text_bytes, stop, 5) - said->text);
        assert_memory_equal(a->choices[0].text, said->text, a->choices[0].text_bytes);
        assert_memory_equal(a->choices[0].tokens, said->tokens, a->choices[0].n * sizeof(int32_t));
        free(a);
        tried++;
    }
    assert_true(tried > 5);
    free(whole);
}

static void a_stop_id_ends_the_answer_and_stays_in_its_tokens(void **state)
{
    engine_spec spec = plain(*state, 40);
    asked *whole = run(*state, &spec), *a;
    int32_t stop = whole->choices[0].tokens[12];
    uint32_t first = 0;

    while (whole->choices[0].tokens[first] != stop) {
        first++;
    }
    spec.stop_ids = &stop;
    spec.n_stop_ids = 1;
    a = run(*state, &spec);
    assert_int_equal(a->choices[0].n, first + 1);
    assert_int_equal(a->choices[0].finish, ENGINE_FINISH_STOP);
    assert_true(a->choices[0].has_stop_token);
    assert_int_equal(a->choices[0].stop_token, stop);
    free(a);
    free(whole);
}

static void a_stop_id_cannot_be_chosen_before_min_tokens(void **state)
{
    engine_spec spec = plain(*state, 40);
    asked *whole = run(*state, &spec), *a;
    int32_t stop = whole->choices[0].tokens[0];

    spec.stop_ids = &stop;
    spec.n_stop_ids = 1;
    spec.min_tokens = 20;
    a = run(*state, &spec);
    assert_true(a->choices[0].n >= 20);
    for (uint32_t i = 0; i < 20; i++) {
        assert_int_not_equal(a->choices[0].tokens[i], stop);
    }
    free(a);
    free(whole);
}

static void a_default_of_min_tokens_is_at_most_the_answers_length(void **state)
{
    engine_spec spec = plain(*state, 5);
    asked *a;

    spec.min_tokens = 6;
    spec.min_tokens_is_default = true;
    a = run(*state, &spec);
    assert_int_equal(a->choices[0].n, 5);
    free(a);
}

static void a_resumed_answer_repeats_no_text(void **state)
{
    world *w = *state;
    engine_spec spec = plain(w, 40);
    asked *whole = run(w, &spec);
    const answer *said = &whole->choices[0];
    char stop[7] = {0};
    const char *stops[] = {stop};

    memcpy(stop, said->text + said->text_bytes / 2, 6);
    spec.stop = stops;
    spec.n_stop = moe_utf8_valid_prefix(stop, 6) == 6 ? 1 : 0;
    free(whole);
    whole = run(w, &spec);
    for (uint32_t n = 1; n <= whole->choices[0].n; n++) {
        asked *rest;
        spec.resume = whole->choices[0].tokens;
        spec.n_resume = n;
        rest = run(w, &spec);
        assert_int_equal(rest->choices[0].n, whole->choices[0].n - n);
        assert_int_equal(rest->choices[0].finish, whole->choices[0].finish);
        assert_true(rest->choices[0].text_bytes <= whole->choices[0].text_bytes);
        assert_memory_equal(rest->choices[0].text,
                            whole->choices[0].text + whole->choices[0].text_bytes - rest->choices[0].text_bytes,
                            rest->choices[0].text_bytes);
        free(rest);
    }
    free(whole);
}

/* ------------------------------------------------------------------------------------------------ choices */
static void choices_differ_and_the_first_is_the_lone_answer(void **state)
{
    engine_spec spec = plain(*state, 20);
    asked *lone = run(*state, &spec), *many;

    spec.n_choices = 5;
    many = run(*state, &spec);
    assert_answers_equal(&lone->choices[0], &many->choices[0]);
    for (uint32_t i = 1; i < 5; i++) {
        assert_int_equal(many->choices[i].n, 20);
        assert_memory_not_equal(many->choices[i].tokens, many->choices[0].tokens, 20 * sizeof(int32_t));
    }
    assert_int_equal(many->usage.completion_tokens, 100);
    free(lone);
    free(many);
}

/* ------------------------------------------------------------------------------------------------ leaving */
static void a_cancelled_request_frees_its_pages_within_one_step(void **state)
{
    world *w = *state;
    engine_spec spec = plain(w, 200);
    asked *a = malloc(sizeof *a);

    ask(&w->f, a, &spec);
    for (size_t i = 0; i < 5; i++) {
        assert_true(engine_step(w->f.engine));
    }
    assert_true(pages_used(w) > 0);
    engine_cancel(a->request);
    (void)engine_step(w->f.engine);
    assert_int_equal(pages_used(w), 0);
    assert_true(engine_idle(w->f.engine));
    ask_finish(&w->f, a);
    assert_int_equal(a->choices[0].finish, ENGINE_FINISH_CANCELLED);
    free(a);
}

static void work_past_its_deadline_is_ended(void **state)
{
    world *w = *state;
    engine_spec spec = plain(w, 200);
    asked *a;

    spec.deadline_ns = moe_now_ns(moe_clock_real());
    a = run(w, &spec);
    assert_int_equal(a->status, MOE_ERR_TIMEOUT);
    assert_int_equal(pages_used(w), 0);
    free(a);
}

static void a_reader_that_stops_pauses_only_its_own_request(void **state)
{
    world *w = *state;
    engine_spec spec = plain(w, 200);
    asked *slow = malloc(sizeof *slow), *quick = malloc(sizeof *quick);

    ask(&w->f, slow, &spec);
    spec.request_id = "quick";
    ask(&w->f, quick, &spec);
    ask_finish(&w->f, quick);
    assert_int_equal(quick->choices[0].n, 200);
    while (engine_step(w->f.engine)) {
    }
    assert_false(engine_idle(w->f.engine)); /* it waits for its reader, not for the engine */
    ask_finish(&w->f, slow);
    assert_answers_equal(&slow->choices[0], &quick->choices[0]);
    free(slow);
    free(quick);
}

static void few_pages(engine_fixture_options *o)
{
    o->prefill_chunk = MODEL_KV_PAGE_TOKENS / 2;
    o->model.kv_tokens = 8 * MODEL_KV_PAGE_TOKENS;
    o->model.prefix_cache = false;
}

/* Four older ones need a second page each when the score has read its first: it gives its own up, somebody else writes
 * into it, and it begins anew. */
static void a_score_that_was_put_back_gives_the_same_numbers(void **state)
{
    world *w = calloc(1, sizeof *w);
    int32_t scored[3 * MODEL_KV_PAGE_TOKENS];
    asked *older = calloc(4, sizeof *older), *undisturbed, *a = malloc(sizeof *a);
    engine_spec generate, score = {.kind = ENGINE_SCORE, .prompt = scored, .n_prompt = MOE_COUNT(scored)};

    (void)state;
    open_world(w, 0, few_pages);
    random_prompt(scored, MOE_COUNT(scored), NAN_TOKEN, 4);
    undisturbed = run(w, &score);
    generate = ask_spec(w->prompt, MODEL_KV_PAGE_TOKENS - 2, 20, 11);
    for (size_t i = 0; i < 4; i++) {
        ask(&w->f, &older[i], &generate);
    }
    for (size_t i = 0; i < 2; i++) { /* their prompts */
        assert_true(engine_step(w->f.engine));
    }
    ask(&w->f, a, &score);
    ask_finish(&w->f, a);
    assert_true(a->usage.preemptions > 0);
    assert_int_equal(a->n_scored, MOE_COUNT(scored));
    assert_memory_equal(a->scored, undisturbed->scored, sizeof scored);
    for (size_t i = 0; i < 4; i++) {
        ask_finish(&w->f, &older[i]);
    }
    assert_int_equal(pages_used(w), 0);
    free(older);
    free(undisturbed);
    free(a);
    close_world(w);
}

static void a_row_that_is_not_a_number_fails_its_request_alone(void **state)
{
    world *w = calloc(1, sizeof *w);
    int32_t poisoned[3] = {1, NAN_TOKEN, 2};
    asked *a = malloc(sizeof *a), *b = malloc(sizeof *b);
    engine_spec bad = ask_spec(poisoned, 3, 10, 1), good;

    (void)state;
    open_world(w, NAN_TOKEN, NULL);
    good = plain(w, 200);
    good.ignore_eos = false;
    ask(&w->f, a, &bad);
    ask(&w->f, b, &good);
    ask_finish(&w->f, a);
    ask_finish(&w->f, b);
    assert_int_equal(a->status, MOE_ERR_DATA_LOSS);
    assert_int_equal(b->status, MOE_OK);
    assert_true(b->choices[0].n > 3);
    assert_int_equal(pages_used(w), 0);
    free(a);
    free(b);
    close_world(w);
}

/* ------------------------------------------------------------------------------------------------ bounds */
static void short_queue(engine_fixture_options *o)
{
    o->max_queue = 2;
    o->max_running = 1;
}

static void a_full_queue_refuses_at_once(void **state)
{
    world *w = calloc(1, sizeof *w);
    asked *all = calloc(3, sizeof *all);
    engine_request *refused;
    engine_spec spec;
    moe_error err;

    (void)state;
    open_world(w, 0, short_queue);
    spec = plain(w, 5);
    ask(&w->f, &all[0], &spec);
    (void)engine_step(w->f.engine);
    ask(&w->f, &all[1], &spec);
    ask(&w->f, &all[2], &spec);
    assert_int_equal(engine_submit(w->f.engine, &spec, &refused, &err), MOE_ERR_BUSY);
    assert_contains(err.text, "max_queue");
    for (size_t i = 0; i < 3; i++) {
        ask_finish(&w->f, &all[i]);
        assert_int_equal(all[i].status, MOE_OK);
    }
    free(all);
    close_world(w);
}

static void a_live_request_id_cannot_be_taken_twice(void **state)
{
    world *w = *state;
    engine_spec spec = plain(w, 5);
    engine_request *refused;
    asked *a = malloc(sizeof *a);
    moe_error err;

    spec.request_id = "twice";
    ask(&w->f, a, &spec);
    assert_int_equal(engine_submit(w->f.engine, &spec, &refused, &err), MOE_ERR_EXISTS);
    ask_finish(&w->f, a);
    free(run(w, &spec)); /* free again */
    free(a);
}

static void a_draining_engine_refuses_and_finishes(void **state)
{
    world *w = calloc(1, sizeof *w);
    asked *a = malloc(sizeof *a);
    engine_request *refused;
    engine_spec spec;
    moe_error err;

    (void)state;
    open_world(w, 0, NULL);
    spec = plain(w, 5);
    ask(&w->f, a, &spec);
    engine_begin_drain(w->f.engine);
    assert_false(engine_ready(w->f.engine));
    assert_int_equal(engine_submit(w->f.engine, &spec, &refused, &err), MOE_ERR_UNAVAILABLE);
    ask_finish(&w->f, a);
    assert_int_equal(a->choices[0].n, 5);
    free(a);
    close_world(w);
}

/* Steps by hand until the engine is ready, or is not. */
static void step_until_ready(world *w, bool ready)
{
    while (engine_ready(w->f.engine) != ready) {
        (void)engine_step(w->f.engine);
    }
}

static void readiness_falls_with_the_owners_and_comes_back_by_itself(void **state)
{
    world *w = calloc(1, sizeof *w);
    exchange *x;
    engine_request *refused;
    engine_spec spec;
    asked *before, *after;
    moe_error err;

    (void)state;
    open_world(w, 0, NULL);
    x = embedded_exchange(w->f.embedded);
    spec = plain(w, 5);
    before = run(w, &spec);
    uint64_t rows = engine_get_expert_rows(w->f.engine, NULL, 0);

    exchange_remove_node(x, "embedded");
    step_until_ready(w, false);
    assert_int_equal(engine_check_ready(w->f.engine, &err), MOE_ERR_UNAVAILABLE);
    assert_contains(err.text, "no live owner: layer 0 expert 0, ");
    assert_int_equal(engine_submit(w->f.engine, &spec, &refused, &err), MOE_ERR_UNAVAILABLE);
    assert_contains(err.text, "no live owner");

    assert_ok(exchange_add_node(x, "embedded", "embedded", 0, &err), err);
    step_until_ready(w, true);
    assert_int_equal(engine_get_expert_rows(w->f.engine, NULL, 0), rows); /* our own token is nobody's */
    after = run(w, &spec);
    assert_answers_equal(&before->choices[0], &after->choices[0]);
    free(before);
    free(after);
    close_world(w);
}

static void refusals_name_the_field(void **state)
{
    world *w = *state;
    static const char *const too_long[] = {
        "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789"
        "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789"
        "01234567890123456789012345678901234567890123456789012345678901234567890123456789"};
    static const char *const empty[] = {""};
    int32_t bad_id[] = {VOCAB}, negative[] = {3, -1};
    engine_request *r;
    moe_error err;

#define REFUSED(field, change)                                                                                         \
    do {                                                                                                               \
        engine_spec spec = plain(w, 5);                                                                                \
        change;                                                                                                        \
        assert_int_equal(engine_submit(w->f.engine, &spec, &r, &err), MOE_ERR_INVALID_ARG);                            \
        assert_contains(err.text, field);                                                                              \
    } while (0)

    REFUSED("prompt", spec.n_prompt = 0);
    REFUSED("prompt[0]", (spec.prompt = bad_id, spec.n_prompt = 1));
    REFUSED("prompt[1]: -1", (spec.prompt = negative, spec.n_prompt = 2));
    REFUSED("max_tokens", spec.max_tokens = 0);
    REFUSED("max_context", spec.max_tokens = 1000);
    REFUSED("max_tokens", spec.max_tokens = UINT32_MAX);
    REFUSED("min_tokens", spec.min_tokens = 6);
    REFUSED("temperature", spec.sampling.temperature = NAN);
    REFUSED("temperature", spec.sampling.temperature = -0.5f);
    REFUSED("temperature", spec.sampling.temperature = INFINITY);
    REFUSED("top_k", spec.sampling.top_k = -1);
    REFUSED("top_p", spec.sampling.top_p = 0.0f);
    REFUSED("top_p", spec.sampling.top_p = 1.5f);
    REFUSED("min_p", spec.sampling.min_p = NAN);
    REFUSED("repetition_penalty", spec.sampling.repetition_penalty = 0.0f);
    REFUSED("frequency_penalty", spec.sampling.frequency_penalty = 101.0f);
    REFUSED("presence_penalty", spec.sampling.presence_penalty = -INFINITY);
    REFUSED("sampling.n", spec.n_choices = 0);
    REFUSED("sampling.n", spec.n_choices = 17);
    REFUSED("logprobs", spec.n_top = 51);
    REFUSED("sampling.stop", spec.n_stop = 10000);
    REFUSED("sampling.stop[0]", (spec.stop = empty, spec.n_stop = 1));
    REFUSED("sampling.stop[0]", (spec.stop = too_long, spec.n_stop = 1));
    REFUSED("stop_token_ids", spec.n_stop_ids = 65);
    REFUSED("stop_token_ids[0]", (spec.stop_ids = bad_id, spec.n_stop_ids = 1));
    REFUSED("resume_from", (spec.resume = w->prompt, spec.n_resume = 2, spec.n_choices = 2));
    REFUSED("resume_from", (spec.resume = w->prompt, spec.n_resume = 2, spec.has_seed = false));
    REFUSED("resume_from", (spec.resume = w->prompt, spec.n_resume = 6));
    REFUSED("resume_from[0]", (spec.resume = bad_id, spec.n_resume = 1));
    REFUSED("request_id", spec.request_id = "no spaces");
    REFUSED("request_id", spec.request_id = "");
#undef REFUSED
    assert_true(engine_idle(w->f.engine));
}

/* ------------------------------------------------------------------------------------------------ other kinds */
/* The vocabulary taken for labels: the engine then sees a classifier with a head of the same width. */
static void set_labels(world *w, uint32_t n_labels)
{
    ((model_config *)(uintptr_t)model_get_config(w->f.model.model))->n_labels = n_labels;
}

static void classes_are_what_the_last_token_says(void **state)
{
    world *w = *state;
    engine_spec generate = plain(w, 1), classify = of_kind(w, ENGINE_CLASSIFY);
    asked *want = run(w, &generate), *got;

    set_labels(w, VOCAB);
    got = run(w, &classify);
    set_labels(w, 0);
    assert_int_equal(got->status, MOE_OK);
    assert_int_equal(got->n_scored, VOCAB);
    for (size_t i = 0; i < ANSWER_MAX_TOP; i++) {
        const sampling_top *top = &want->choices[0].top[0][i];
        assert_memory_equal(&got->scored[top->token_id], &top->logprob, sizeof top->logprob);
    }
    assert_true(got->usage.prefill_seconds > 0);
    assert_int_equal(pages_used(w), 0);
    free(want);
    free(got);
}

static void a_class_score_that_is_not_a_number_fails_the_request(void **state)
{
    world *w = calloc(1, sizeof *w);
    engine_spec spec;
    asked *a;

    (void)state;
    open_world(w, NAN_TOKEN, NULL);
    w->prompt[MOE_COUNT(w->prompt) - 1] = NAN_TOKEN;
    spec = of_kind(w, ENGINE_CLASSIFY);
    set_labels(w, VOCAB);
    a = run(w, &spec);
    assert_int_equal(a->status, MOE_ERR_DATA_LOSS);
    assert_int_equal(a->n_scored, 0);
    free(a);
    close_world(w);
}

static void a_head_serves_its_own_kind_of_request_only(void **state)
{
    world *w = *state;
    engine_spec specs[] = {of_kind(w, ENGINE_CLASSIFY), plain(w, 1), of_kind(w, ENGINE_SCORE)};

    for (size_t i = 0; i < MOE_COUNT(specs); i++) {
        engine_request *r;
        moe_error err;
        moe_status status;

        set_labels(w, i == 0 ? 0 : VOCAB);
        status = engine_submit(w->f.engine, &specs[i], &r, &err);
        set_labels(w, 0);
        assert_int_equal(status, MOE_ERR_UNSUPPORTED);
        assert_non_null(strstr(err.text, i == 0 ? "classification head" : "classifier"));
    }
}

static void a_score_reports_the_time_of_its_prefill(void **state)
{
    engine_spec spec = of_kind(*state, ENGINE_SCORE);
    asked *a = run(*state, &spec);

    assert_true(a->usage.prefill_seconds > 0);
    free(a);
}

static void every_row_counts_its_ffn_picks(void **state)
{
    world *w = *state;
    const model_config *c = model_get_config(w->f.model.model);
    size_t n = (size_t)c->n_layers * (c->gate.k + 1);
    uint64_t *picks = calloc(n, sizeof *picks), rows;
    engine_spec spec = plain(w, 4);

    free(run(w, &spec));
    rows = engine_get_expert_rows(w->f.engine, NULL, 0);
    engine_get_ffn_picks(w->f.engine, picks, n);
    assert_true(rows > 0);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(picks[i], i % (c->gate.k + 1) == c->gate.k ? rows : 0);
    }
    free(picks);
}

/* Of every layer: the k picks of each row, and weights that are shares of a softmax. */
static void every_pick_counts_its_weight(void **state)
{
    world *w = *state;
    const model_config *c = model_get_config(w->f.model.model);
    router_space *space = engine_current_space(w->f.engine);
    router_expert_use *use = calloc(router_space_n_slots(space), sizeof *use);
    engine_spec spec = plain(w, 4);

    free(run(w, &spec));
    uint64_t rows = engine_get_expert_use(w->f.engine, use, router_space_n_slots(space));
    for (uint32_t l = 0; l < c->n_layers; l++) {
        const router_space_layer *layer = router_space_at(space, l);
        uint64_t picks = 0;
        double mass = 0.0;

        for (uint32_t i = 0; i < layer->n_experts; i++) {
            const router_expert_use *u = &use[layer->slots[i]];

            assert_true(u->mass >= 0.0 && u->mass <= (double)u->rows && (u->mass > 0.0) == (u->rows > 0));
            picks += u->rows;
            mass += u->mass;
        }
        assert_int_equal(picks, rows * c->gate.k);
        assert_true(mass > 0.0 && mass < (double)rows * 1.0001);
    }
    free(use);
    router_space_unref(space);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_answer_ends_at_max_tokens_with_length),
        cmocka_unit_test(text_is_what_the_tokens_decode_to),
        cmocka_unit_test(a_stop_string_is_cut_wherever_it_begins),
        cmocka_unit_test(a_stop_id_ends_the_answer_and_stays_in_its_tokens),
        cmocka_unit_test(a_stop_id_cannot_be_chosen_before_min_tokens),
        cmocka_unit_test(a_default_of_min_tokens_is_at_most_the_answers_length),
        cmocka_unit_test(a_resumed_answer_repeats_no_text),
        cmocka_unit_test(choices_differ_and_the_first_is_the_lone_answer),
        cmocka_unit_test(a_cancelled_request_frees_its_pages_within_one_step),
        cmocka_unit_test(work_past_its_deadline_is_ended),
        cmocka_unit_test(a_reader_that_stops_pauses_only_its_own_request),
        cmocka_unit_test(a_score_that_was_put_back_gives_the_same_numbers),
        cmocka_unit_test(a_row_that_is_not_a_number_fails_its_request_alone),
        cmocka_unit_test(a_full_queue_refuses_at_once),
        cmocka_unit_test(a_live_request_id_cannot_be_taken_twice),
        cmocka_unit_test(a_draining_engine_refuses_and_finishes),
        cmocka_unit_test(readiness_falls_with_the_owners_and_comes_back_by_itself),
        cmocka_unit_test(refusals_name_the_field),
        cmocka_unit_test_setup_teardown(classes_are_what_the_last_token_says, setup, teardown),
        cmocka_unit_test(a_class_score_that_is_not_a_number_fails_the_request),
        cmocka_unit_test_setup_teardown(a_head_serves_its_own_kind_of_request_only, setup, teardown),
        cmocka_unit_test_setup_teardown(a_score_reports_the_time_of_its_prefill, setup, teardown),
        cmocka_unit_test_setup_teardown(every_row_counts_its_ffn_picks, setup, teardown),
        cmocka_unit_test_setup_teardown(every_pick_counts_its_weight, setup, teardown),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
