/* Who sleeps is woken: an idle engine by what is asked of it. It looks around by itself now and then, which would hide a
 * wake-up that is lost; so here nobody sleeps, and what a sleeper would find is looked at. */
#include <stdlib.h>

#include "engine/engine_priv.h"
#include "tests/support/engine_fixture.h"
#include "tests/support/random_model.h"
#include "tests/support/support.h"

#define VOCAB 512

typedef struct world {
    test_folder folder;
    engine_fixture f;
    asked a;
} world;

static int setup(void **state)
{
    world *w = calloc(1, sizeof *w);
    random_model m = random_model_defaults("olmoe");
    engine_fixture_options o;

    test_folder_open(&w->folder);
    m.vocab_size = VOCAB;
    m.n_layers = 1;
    random_model_write(&m, w->folder.path);
    o = engine_fixture_defaults(w->folder.path);
    engine_fixture_open(&w->f, &o);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    world *w = *state;

    engine_fixture_close(&w->f);
    test_folder_close(&w->folder);
    free(w);
    return 0;
}

static bool note(void *ctx)
{
    *(bool *)ctx = true;
    return true;
}

/* Whether the engine's thread would be woken, and takes the wake-up: without one a waiter asks its question. */
static bool is_woken(world *w)
{
    bool asked_itself = false;

    moe_waiter_wait(w->f.engine->waiter, note, &asked_itself, 0);
    return !asked_itself;
}

static void begin(world *w, uint32_t max_tokens)
{
    int32_t prompt[8];
    engine_spec spec;

    random_prompt(prompt, MOE_COUNT(prompt), VOCAB, 1);
    spec = ask_spec(prompt, MOE_COUNT(prompt), max_tokens, 1);
    (void)is_woken(w);
    ask(&w->f, &w->a, &spec);
}

static void a_request_wakes_the_engine(void **state)
{
    world *w = *state;

    begin(w, 4);
    assert_true(is_woken(w));
    assert_false(is_woken(w));
    ask_finish(&w->f, &w->a);
}

static void a_cancel_wakes_the_engine(void **state)
{
    world *w = *state;

    begin(w, 4);
    (void)is_woken(w);
    engine_cancel(w->a.request);
    assert_true(is_woken(w));
    ask_finish(&w->f, &w->a);
}

/* The request pauses when its events fill the ring; its reader has to say that there is room. */
static void a_reader_that_makes_room_wakes_the_engine(void **state)
{
    world *w = *state;
    engine_event event;

    begin(w, 200);
    while (engine_step(w->f.engine)) {
    }
    assert_false(engine_idle(w->f.engine));
    (void)is_woken(w);
    assert_true(engine_next(w->a.request, &event));
    assert_true(is_woken(w));
    assert_int_equal(event.kind, ENGINE_STARTED);
    ask_finish(&w->f, &w->a);
    assert_int_equal(w->a.choices[0].n, 200);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_request_wakes_the_engine),
        TEST(a_cancel_wakes_the_engine),
        TEST(a_reader_that_makes_room_wakes_the_engine),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
