/* What nobody waits for: it is read when others have no row, gives them its pages, is in no figures, and its numbers are those of any
 * score. */
#include <stdlib.h>

#include "tests/support/engine_fixture.h"
#include "tests/support/random_model.h"
#include "tests/support/support.h"

#define VOCAB    512
#define N_SCORED (3 * MODEL_KV_PAGE_TOKENS)

typedef struct world {
    test_folder folder;
    engine_fixture f;
    int32_t tokens[N_SCORED];
    asked *score, *other;
} world;

static void adjust_nothing(engine_fixture_options *o)
{
    (void)o;
}

static world *open_world(void (*adjust)(engine_fixture_options *o))
{
    world *w = calloc(1, sizeof *w);
    random_model m = random_model_defaults("olmoe");
    engine_fixture_options o;

    assert_non_null(w);
    test_folder_open(&w->folder);
    m.vocab_size = VOCAB;
    m.n_layers = 2;
    random_model_write(&m, w->folder.path);
    o = engine_fixture_defaults(w->folder.path);
    adjust(&o);
    engine_fixture_open(&w->f, &o);
    random_prompt(w->tokens, N_SCORED, VOCAB, 5);
    w->score = calloc(1, sizeof *w->score);
    w->other = calloc(1, sizeof *w->other);
    return w;
}

static void close_world(world *w)
{
    free(w->score);
    free(w->other);
    engine_fixture_close(&w->f);
    test_folder_close(&w->folder);
    free(w);
}

static engine_spec score_spec(const world *w, bool background)
{
    return (engine_spec){.kind = ENGINE_SCORE, .prompt = w->tokens, .n_prompt = N_SCORED, .background = background};
}

static void its_numbers_are_those_of_any_score(void **state)
{
    world *w = open_world(adjust_nothing);
    engine_spec all = score_spec(w, false), tail = score_spec(w, true);

    (void)state;
    tail.score_from = 2 * MODEL_KV_PAGE_TOKENS + 5;
    ask(&w->f, w->other, &all);
    ask_finish(&w->f, w->other);
    ask(&w->f, w->score, &tail);
    ask_finish(&w->f, w->score);
    assert_int_equal(w->score->status, MOE_OK);
    assert_int_equal(w->score->n_scored, N_SCORED);
    assert_memory_equal(w->score->scored + tail.score_from, w->other->scored + tail.score_from,
                        (N_SCORED - tail.score_from) * sizeof w->score->scored[0]);
    close_world(w);
}

/* What the cache has of the tokens before it is not read again. */
static void what_is_not_scored_comes_from_the_prefix_cache(void **state)
{
    world *w = open_world(adjust_nothing);
    engine_spec generate = ask_spec(w->tokens, N_SCORED, 4, 1), tail = score_spec(w, true);

    (void)state;
    tail.score_from = 2 * MODEL_KV_PAGE_TOKENS + 5;
    ask(&w->f, w->other, &generate);
    ask_finish(&w->f, w->other);
    ask(&w->f, w->score, &tail);
    ask_finish(&w->f, w->score);
    assert_int_equal(w->score->usage.cached_tokens, 2 * MODEL_KV_PAGE_TOKENS);
    close_world(w);
}

static void it_has_no_row_while_another_request_has_one(void **state)
{
    world *w = open_world(adjust_nothing);
    engine_spec generate = ask_spec(w->tokens, 8, 12, 1), score = score_spec(w, true);

    (void)state;
    ask(&w->f, w->score, &score);
    ask(&w->f, w->other, &generate);
    while (!w->other->ended) {
        assert_true(engine_step(w->f.engine));
        ask_read(w->other);
        ask_read(w->score);
        assert_int_equal(w->score->n_scored, 0);
    }
    ask_finish(&w->f, w->other);
    ask_finish(&w->f, w->score);
    assert_int_equal(w->score->n_scored, N_SCORED);
    close_world(w);
}

static void few_pages(engine_fixture_options *o)
{
    o->model.kv_tokens = 4 * MODEL_KV_PAGE_TOKENS;
    o->model.prefix_cache = false;
}

/* It holds two of the four pages when two others come who need three and one: both start at once, and nobody is put back. */
static void others_get_its_pages_and_it_begins_anew(void **state)
{
    world *w = open_world(few_pages);
    engine_spec all = score_spec(w, false), score = score_spec(w, true);
    asked *third = calloc(1, sizeof *third), *undisturbed = calloc(1, sizeof *undisturbed);
    engine_spec large = ask_spec(w->tokens, 2 * MODEL_KV_PAGE_TOKENS + 2, 12, 1), small = ask_spec(w->tokens, 8, 12, 1);
    engine_stats stats;

    (void)state;
    ask(&w->f, undisturbed, &all);
    ask_finish(&w->f, undisturbed);
    ask(&w->f, w->score, &score);
    while (w->score->n_scored <= MODEL_KV_PAGE_TOKENS) {
        assert_true(engine_step(w->f.engine));
        ask_read(w->score);
    }
    ask(&w->f, third, &small);
    ask(&w->f, w->other, &large);
    assert_true(engine_step(w->f.engine));
    engine_get_stats(w->f.engine, &stats);
    assert_int_equal(stats.running, 2);
    ask_finish(&w->f, third);
    ask_finish(&w->f, w->other);
    assert_int_equal(w->other->usage.preemptions + third->usage.preemptions, 0);
    ask_finish(&w->f, w->score);
    assert_true(w->score->usage.preemptions > 0);
    assert_int_equal(w->score->n_scored, N_SCORED);
    assert_memory_equal(w->score->scored, undisturbed->scored, sizeof w->tokens);
    engine_get_stats(w->f.engine, &stats);
    assert_int_equal(stats.preemptions, 0);
    assert_int_equal(stats.kv_pages_used, 0);
    free(third);
    free(undisturbed);
    close_world(w);
}

static void it_is_in_no_figures(void **state)
{
    world *w = open_world(adjust_nothing);
    engine_spec score = score_spec(w, true);
    engine_stats before, after;
    uint64_t rows = engine_get_expert_rows(w->f.engine, NULL, 0), experts_before[64] = {0}, experts_after[64] = {0};

    (void)state;
    engine_get_expert_rows(w->f.engine, experts_before, MOE_COUNT(experts_before));
    engine_get_stats(w->f.engine, &before);
    ask(&w->f, w->score, &score);
    assert_true(engine_idle(w->f.engine));
    ask_finish(&w->f, w->score);
    engine_get_stats(w->f.engine, &after);
    engine_get_expert_rows(w->f.engine, experts_after, MOE_COUNT(experts_after));
    assert_int_equal(engine_get_expert_rows(w->f.engine, NULL, 0), rows);
    assert_memory_equal(experts_before, experts_after, sizeof experts_before);
    assert_int_equal(after.requests_admitted, before.requests_admitted);
    assert_int_equal(after.requests_done, before.requests_done);
    assert_int_equal(after.prompt_tokens, before.prompt_tokens);
    assert_int_equal(after.queue.count, before.queue.count);
    assert_int_equal(after.request.count, before.request.count);
    assert_int_equal(after.queued, 0);
    close_world(w);
}

static void there_is_one_at_a_time_and_others_are_let_in(void **state)
{
    world *w = open_world(adjust_nothing);
    engine_spec score = score_spec(w, true), generate = ask_spec(w->tokens, 8, 2, 1);
    engine_request *refused = NULL;
    engine_stats stats;
    moe_error err;

    (void)state;
    ask(&w->f, w->score, &score);
    assert_int_equal(engine_submit(w->f.engine, &score, &refused, &err), MOE_ERR_BUSY);
    engine_get_stats(w->f.engine, &stats);
    assert_int_equal(stats.requests_refused, 0);
    ask(&w->f, w->other, &generate);
    ask_finish(&w->f, w->other);
    engine_cancel(w->score->request);
    ask_finish(&w->f, w->score);
    assert_true(w->score->n_scored < N_SCORED);
    (void)engine_step(w->f.engine);
    ask(&w->f, w->score, &score);
    ask_finish(&w->f, w->score);
    assert_int_equal(w->score->n_scored, N_SCORED);
    close_world(w);
}

/* The engine is closed while it lives. */
static void an_engine_that_closes_ends_it(void **state)
{
    world *w = open_world(adjust_nothing);
    engine_spec score = score_spec(w, true);

    (void)state;
    ask(&w->f, w->score, &score);
    assert_true(engine_step(w->f.engine));
    engine_close(w->f.engine);
    w->f.engine = NULL;
    ask_read(w->score);
    assert_true(w->score->ended);
    assert_int_equal(w->score->status, MOE_ERR_UNAVAILABLE);
    engine_release(w->score->request);
    close_world(w);
}

static void refusals_name_the_field(void **state)
{
    world *w = open_world(adjust_nothing);
    engine_spec specs[] = {score_spec(w, false), ask_spec(w->tokens, 8, 2, 1), ask_spec(w->tokens, 8, 2, 1)};
    static const char *const fields[] = {"score_from", "score_from", "background"};

    (void)state;
    specs[0].score_from = N_SCORED;
    specs[1].score_from = 1;
    specs[2].background = true;
    for (size_t i = 0; i < MOE_COUNT(specs); i++) {
        engine_request *r = NULL;
        moe_error err;

        assert_int_equal(engine_submit(w->f.engine, &specs[i], &r, &err), MOE_ERR_INVALID_ARG);
        assert_contains(err.text, fields[i]);
    }
    close_world(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(its_numbers_are_those_of_any_score),
        cmocka_unit_test(what_is_not_scored_comes_from_the_prefix_cache),
        cmocka_unit_test(it_has_no_row_while_another_request_has_one),
        cmocka_unit_test(others_get_its_pages_and_it_begins_anew),
        cmocka_unit_test(it_is_in_no_figures),
        cmocka_unit_test(there_is_one_at_a_time_and_others_are_let_in),
        cmocka_unit_test(an_engine_that_closes_ends_it),
        cmocka_unit_test(refusals_name_the_field),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
