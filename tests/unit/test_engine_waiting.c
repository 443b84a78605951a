/* A step that waits for experts: others go on, requests come and go, and what waited is answered to the same bits. */
#include <stdlib.h>

#include "engine/engine_priv.h"
#include "tests/support/engine_fixture.h"
#include "tests/support/random_model.h"
#include "tests/support/support.h"

#define VOCAB     512
#define N_EXPERTS 24
#define N_LAYERS  2

typedef struct world {
    test_folder folder;
    engine_fixture f;
    exchange *x;
    int32_t of_a[2], of_b[2];
    answer a, b;    /* undisturbed */
    int32_t only_a; /* an expert of layer 0 that a's rows pick, and b's never */
    asked asked_a, asked_b;
} world;

static engine_spec spec_of(const int32_t *prompt)
{
    return ask_spec(prompt, 2, 8, 11);
}

/* Answers alone; marks the experts of layer 0 that it picked. */
static void rehearse(world *w, const int32_t *prompt, answer *out, bool *picked)
{
    uint64_t before[N_LAYERS * N_EXPERTS], after[N_LAYERS * N_EXPERTS];
    engine_spec spec = spec_of(prompt);

    (void)engine_get_expert_rows(w->f.engine, before, MOE_COUNT(before));
    ask(&w->f, &w->asked_a, &spec);
    ask_finish(&w->f, &w->asked_a);
    (void)engine_get_expert_rows(w->f.engine, after, MOE_COUNT(after));
    *out = w->asked_a.choices[0];
    for (size_t e = 0; e < N_EXPERTS; e++) {
        picked[e] = after[e] > before[e];
    }
}

static void open_world(world *w, uint64_t step_timeout_ns)
{
    random_model m = random_model_defaults("olmoe");
    engine_fixture_options o;

    test_folder_open(&w->folder);
    m.vocab_size = VOCAB;
    m.n_layers = N_LAYERS;
    random_model_write(&m, w->folder.path);
    o = engine_fixture_defaults(w->folder.path);
    o.step_timeout_ns = step_timeout_ns;
    o.micro_batches = 2;
    engine_fixture_open(&w->f, &o);
    w->x = embedded_exchange(w->f.embedded);
    w->only_a = -1;
    for (uint64_t seed = 0; w->only_a < 0; seed++) {
        bool picked_a[N_EXPERTS], picked_b[N_EXPERTS];

        random_prompt(w->of_a, MOE_COUNT(w->of_a), VOCAB, 2 * seed);
        random_prompt(w->of_b, MOE_COUNT(w->of_b), VOCAB, 2 * seed + 1);
        rehearse(w, w->of_a, &w->a, picked_a);
        rehearse(w, w->of_b, &w->b, picked_b);
        for (int32_t e = 0; e < N_EXPERTS; e++) {
            w->only_a = picked_a[e] && !picked_b[e] ? e : w->only_a;
        }
    }
}

static int setup(void **state)
{
    *state = calloc(1, sizeof(world));
    open_world(*state, UINT64_C(3600000000000));
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

/* The placement as it was, without one expert of layer 0; -1: with all. */
static void place(world *w, int32_t without)
{
    static const char *const node = "embedded";
    router_replica replicas[N_LAYERS * N_EXPERTS];
    router_placement *p;
    moe_error err;
    size_t n = 0;

    for (uint32_t layer = 0; layer < N_LAYERS; layer++) {
        for (int32_t e = 0; e < N_EXPERTS; e++) {
            if (layer != 0 || e != without) {
                replicas[n++] = (router_replica){layer, e, 0, false};
            }
        }
    }
    assert_ok(router_placement_open(1, router_set_space(w->f.model.set), &node, 1, replicas, n, &p, &err), err);
    exchange_set_placement(w->x, p);
    router_placement_unref(p);
}

static void ask_both(world *w)
{
    engine_spec a = spec_of(w->of_a), b = spec_of(w->of_b);

    ask(&w->f, &w->asked_a, &a);
    ask(&w->f, &w->asked_b, &b);
}

static engine_stats stats_of(world *w)
{
    engine_stats stats;

    engine_get_stats(w->f.engine, &stats);
    return stats;
}

/* Turns until the request has ended, or the engine has nothing to compute. */
static void turn_until_ended(world *w, asked *a)
{
    for (size_t i = 0; i < 1000000 && !a->ended; i++) {
        if (engine_turn(w->f.engine) == ENGINE_TURN_WAITS) {
            exchange_pause(w->x, exchange_turned_ns(w->x) + 1000000);
        }
        ask_read(a);
    }
    assert_true(a->ended);
}

static void turn_until_waiting(world *w)
{
    while (engine_turn(w->f.engine) != ENGINE_TURN_WAITS) {
    }
}

/* ------------------------------------------------------------------------------------------------ going on */
static void who_needs_no_missing_expert_goes_on(void **state)
{
    world *w = *state;

    place(w, w->only_a);
    ask_both(w);
    turn_until_ended(w, &w->asked_b);
    assert_answers_equal(&w->asked_b.choices[0], &w->b);
    assert_false(w->asked_a.ended);
    assert_true(stats_of(w).abandoned_steps > 0);
    place(w, -1);
    turn_until_ended(w, &w->asked_a);
    assert_answers_equal(&w->asked_a.choices[0], &w->a);
    ask_finish(&w->f, &w->asked_a);
    ask_finish(&w->f, &w->asked_b);
    assert_int_equal(stats_of(w).kv_pages_used, 0);
}

static void who_comes_while_a_step_waits_is_answered(void **state)
{
    world *w = *state;
    engine_spec a = spec_of(w->of_a), b = spec_of(w->of_b);

    place(w, w->only_a);
    ask(&w->f, &w->asked_a, &a);
    turn_until_waiting(w);
    ask(&w->f, &w->asked_b, &b);
    turn_until_ended(w, &w->asked_b);
    assert_answers_equal(&w->asked_b.choices[0], &w->b);
    assert_false(w->asked_a.ended);
    place(w, -1);
    ask_finish(&w->f, &w->asked_a);
    assert_answers_equal(&w->asked_a.choices[0], &w->a);
    ask_finish(&w->f, &w->asked_b);
}

/* The whole node goes in mid-decode, and comes back. */
static void a_lost_node_repeats_no_token(void **state)
{
    world *w = *state;
    moe_error err;

    ask_both(w);
    for (size_t i = 0; i < 3; i++) {
        assert_true(engine_step(w->f.engine));
    }
    exchange_remove_node(w->x, "embedded");
    for (size_t i = 0; i < 200; i++) {
        if (engine_turn(w->f.engine) != ENGINE_TURN_WORKED) {
            exchange_pause(w->x, exchange_turned_ns(w->x) + 1000000);
        }
    }
    assert_ok(exchange_add_node(w->x, "embedded", "embedded", 0, &err), err);
    ask_finish(&w->f, &w->asked_a);
    ask_finish(&w->f, &w->asked_b);
    assert_answers_equal(&w->asked_a.choices[0], &w->a);
    assert_answers_equal(&w->asked_b.choices[0], &w->b);
}

/* A score that was put off in its middle gives the numbers of one that was not. */
static void a_score_that_waited_is_the_same(void **state)
{
    world *w = *state;
    int32_t prompt[200];
    engine_spec spec = {.kind = ENGINE_SCORE, .prompt = prompt, .n_prompt = MOE_COUNT(prompt), .n_choices = 1};
    asked *whole = calloc(1, sizeof *whole);
    moe_error err;

    random_prompt(prompt, MOE_COUNT(prompt), VOCAB, 5);
    ask(&w->f, whole, &spec);
    ask_finish(&w->f, whole);
    ask(&w->f, &w->asked_a, &spec);
    assert_true(engine_step(w->f.engine)); /* as many rows as there are logits */
    exchange_remove_node(w->x, "embedded");
    while (stats_of(w).abandoned_steps == 0) {
        (void)engine_turn(w->f.engine);
    }
    ask_read(&w->asked_a);
    assert_true(w->asked_a.n_scored > 0 && w->asked_a.n_scored < MOE_COUNT(prompt));
    assert_ok(exchange_add_node(w->x, "embedded", "embedded", 0, &err), err);
    ask_finish(&w->f, &w->asked_a);
    assert_int_equal(w->asked_a.n_scored, MOE_COUNT(prompt));
    assert_memory_equal(w->asked_a.scored, whole->scored, sizeof prompt);
    free(whole);
}

/* ------------------------------------------------------------------------------------------------ leaving */
static void a_cancel_is_heard_while_the_step_waits(void **state)
{
    world *w = *state;

    place(w, w->only_a);
    ask_both(w);
    turn_until_waiting(w);
    engine_cancel(w->asked_a.request);
    engine_cancel(w->asked_b.request);
    turn_until_ended(w, &w->asked_a);
    assert_int_equal(w->asked_a.choices[0].finish, ENGINE_FINISH_CANCELLED);
    while (engine_turn(w->f.engine) != ENGINE_TURN_IDLE) {
    }
    assert_true(engine_idle(w->f.engine));
    assert_int_equal(stats_of(w).kv_pages_used, 0);
    assert_int_equal(stats_of(w).requests_cancelled, 2);
    ask_finish(&w->f, &w->asked_a);
    ask_finish(&w->f, &w->asked_b);
    place(w, -1);
}

/* The client hears of its end at once, and of nothing after it; the step still writes to its pages. */
static void who_leaves_a_step_that_waits_keeps_its_pages_until_it_ends(void **state)
{
    world *w = *state;
    model_kv_stats kv;
    engine_event event;

    place(w, w->only_a);
    ask_both(w);
    turn_until_waiting(w);
    engine_cancel(w->asked_a.request);
    engine_intake(w->f.engine);
    ask_read(&w->asked_a);
    assert_true(w->asked_a.ended);
    model_kv_get_stats(w->f.model.kv, &kv);
    assert_int_equal(kv.n_used, 2);
    place(w, -1);
    ask_finish(&w->f, &w->asked_b);
    assert_answers_equal(&w->asked_b.choices[0], &w->b);
    assert_false(engine_next(w->asked_a.request, &event));
    ask_finish(&w->f, &w->asked_a);
    model_kv_get_stats(w->f.model.kv, &kv);
    assert_int_equal(kv.n_used, 0);
}

static void a_deadline_passes_while_the_step_waits(void **state)
{
    world *w = *state;
    engine_spec a = spec_of(w->of_a);

    place(w, w->only_a);
    ask(&w->f, &w->asked_a, &a);
    turn_until_waiting(w);
    a.deadline_ns = moe_now_ns(moe_clock_real()) + 5000000;
    a.request_id = "short";
    ask(&w->f, &w->asked_b, &a);
    turn_until_ended(w, &w->asked_b);
    assert_int_equal(w->asked_b.status, MOE_ERR_TIMEOUT);
    assert_false(w->asked_a.ended);
    place(w, -1);
    ask_finish(&w->f, &w->asked_a);
    assert_answers_equal(&w->asked_a.choices[0], &w->a);
    ask_finish(&w->f, &w->asked_b);
}

static void nobody_waits_for_ever(void **state)
{
    world *w = calloc(1, sizeof *w);
    char expected[64];

    (void)state;
    open_world(w, 200000000);
    place(w, w->only_a);
    ask_both(w);
    turn_until_ended(w, &w->asked_a);
    turn_until_ended(w, &w->asked_b);
    assert_int_equal(w->asked_a.status, MOE_ERR_UNAVAILABLE);
    (void)snprintf(expected, sizeof expected, "layer 0 expert %d has no live owner", w->only_a);
    assert_string_equal(w->asked_a.error, expected);
    assert_int_equal(w->asked_b.status, MOE_OK);
    assert_answers_equal(&w->asked_b.choices[0], &w->b);
    ask_finish(&w->f, &w->asked_a);
    ask_finish(&w->f, &w->asked_b);
    assert_int_equal(stats_of(w).kv_pages_used, 0);
    close_world(w);
}

/* The bound is on waiting for an owner: computing takes what it takes. */
static void computing_has_no_bound(void **state)
{
    world *w = calloc(1, sizeof *w);

    (void)state;
    open_world(w, 1);
    ask_both(w);
    ask_finish(&w->f, &w->asked_a);
    ask_finish(&w->f, &w->asked_b);
    assert_answers_equal(&w->asked_a.choices[0], &w->a);
    assert_answers_equal(&w->asked_b.choices[0], &w->b);
    close_world(w);
}

static void closing_ends_a_step_that_waits(void **state)
{
    world *w = calloc(1, sizeof *w);
    engine_event event;
    moe_error err;

    (void)state;
    open_world(w, UINT64_C(3600000000000));
    place(w, w->only_a);
    ask_both(w);
    turn_until_waiting(w);
    assert_ok(engine_start(w->f.engine, &err), err);
    engine_close(w->f.engine);
    w->f.engine = NULL;
    while (engine_next(w->asked_a.request, &event) && event.kind != ENGINE_FAILED) {
    }
    assert_int_equal(event.kind, ENGINE_FAILED);
    assert_contains(event.error, "shutting down");
    engine_release(w->asked_a.request);
    engine_release(w->asked_b.request);
    close_world(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(who_needs_no_missing_expert_goes_on, setup, teardown),
        cmocka_unit_test_setup_teardown(who_comes_while_a_step_waits_is_answered, setup, teardown),
        cmocka_unit_test_setup_teardown(a_lost_node_repeats_no_token, setup, teardown),
        cmocka_unit_test_setup_teardown(a_score_that_waited_is_the_same, setup, teardown),
        cmocka_unit_test_setup_teardown(a_cancel_is_heard_while_the_step_waits, setup, teardown),
        cmocka_unit_test_setup_teardown(who_leaves_a_step_that_waits_keeps_its_pages_until_it_ends, setup, teardown),
        cmocka_unit_test_setup_teardown(a_deadline_passes_while_the_step_waits, setup, teardown),
        cmocka_unit_test(nobody_waits_for_ever),
        cmocka_unit_test(computing_has_no_bound),
        cmocka_unit_test(closing_ends_a_step_that_waits),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
