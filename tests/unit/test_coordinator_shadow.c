/* What may wait to be scored again is bounded, what has no room is counted, and a server ends with some of it under way. What is made
 * of it is in tests/integration/packs_shadow.py. */
#include <stdlib.h>

#include "coordinator/shadow.h"
#include "tests/support/engine_fixture.h"
#include "tests/support/random_model.h"
#include "tests/support/support.h"

#define MANY 40 /* more than may wait */

typedef struct world {
    test_folder folder;
    engine_fixture f;
    catalogue *none, *trial; /* without and with a pack on trial */
    engine_request *ended;
} world;

static catalogue *put_on_trial(const catalogue *c, uint32_t share)
{
    static const catalogue_pack_layer layers[] = {{.layer = 0, .n_experts = 1}};
    catalogue_pack p = {.name = "german", .version = "1", .layers = layers, .n_layers = 1, .n_experts = 1};
    catalogue *begun, *done;
    moe_error err;

    memset(p.hash, 'a', 64);
    const catalogue_change change = {
        .op = CATALOGUE_ADD, .pack = &p, .is_shadow = true, .share = share, .deadline_ms = 1};
    assert_ok(catalogue_begin(c, &change, &begun, &err), err);
    assert_ok(catalogue_commit(begun, 1, 1, &done, &err), err);
    catalogue_unref(begun);
    return done;
}

static int setup(void **state)
{
    world *w = calloc(1, sizeof *w);
    random_model m = random_model_defaults("olmoe");
    engine_fixture_options o;
    static const int32_t prompt[] = {1, 2, 3};
    const engine_spec spec = ask_spec(prompt, MOE_COUNT(prompt), 2, 1);
    asked *a = calloc(1, sizeof *a);
    moe_error err;

    test_folder_open(&w->folder);
    random_model_write(&m, w->folder.path);
    o = engine_fixture_defaults(w->folder.path);
    engine_fixture_open(&w->f, &o);
    catalogue_model of = {.space = engine_current_space(w->f.engine),
                          .min_experts = model_get_config(w->f.model.model)->gate.k};
    assert_ok(catalogue_open(&of, &w->none, &err), err);
    router_space_unref(of.space);
    w->trial = put_on_trial(w->none, CATALOGUE_ALL_REQUESTS);
    assert_ok(engine_change(w->f.engine, &(engine_changes){.set = catalogue_default(w->none)}, &err), err);
    ask(&w->f, a, &spec);
    while (!a->ended) {
        assert_true(engine_step(w->f.engine));
        ask_read(a);
    }
    w->ended = a->request;
    free(a);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    world *w = *state;

    engine_release(w->ended);
    catalogue_unref(w->none);
    catalogue_unref(w->trial);
    engine_fixture_close(&w->f);
    test_folder_close(&w->folder);
    free(w);
    return 0;
}

/* Nobody steps the engine: one is under way, the others wait. */
static void what_has_no_room_is_counted(void **state)
{
    world *w = *state;
    api_compared told;
    shadow *s;
    moe_error err;

    assert_ok(shadow_open(w->f.engine, &s, &err), err);
    for (int i = 0; i < MANY; i++) {
        shadow_offer(s, w->trial, w->ended);
    }
    shadow_read(s, w->trial, &told);
    assert_true(told.dropped >= MANY - 17 && told.dropped <= MANY - 16);
    assert_int_equal(told.requests + told.tokens, 0);
    shadow_close(s);
}

static void only_the_share_of_the_default_set_is_taken(void **state)
{
    world *w = *state;
    catalogue *idle = put_on_trial(w->none, 0), *other;
    const catalogue_change use = {
        .op = CATALOGUE_PRUNE, .experts = &(catalogue_expert){0, 1}, .n_experts = 1, .deadline_ms = 1};
    api_compared told;
    catalogue *begun;
    shadow *s;
    moe_error err;

    assert_ok(catalogue_begin(w->trial, &use, &begun, &err), err);
    assert_ok(catalogue_commit(begun, 2, 1, &other, &err), err);
    assert_ok(shadow_open(w->f.engine, &s, &err), err);
    for (int i = 0; i < MANY; i++) {
        shadow_offer(s, w->none, w->ended); /* nothing is on trial */
        shadow_offer(s, idle, w->ended);    /* no request is of the share */
        shadow_offer(s, other, w->ended);   /* its set is no longer the default */
    }
    shadow_read(s, w->none, &told);
    assert_int_equal(told.dropped, 0);
    shadow_read(s, other, &told);
    assert_int_equal(told.dropped, 0);
    shadow_close(s);
    catalogue_unref(begun);
    catalogue_unref(other);
    catalogue_unref(idle);
}

static void a_share_is_of_the_ids(void **state)
{
    unsigned n = 0, n_more = 0;
    char id[16];

    (void)state;
    for (unsigned i = 0; i < 10000; i++) {
        (void)snprintf(id, sizeof id, "req-%u", i);
        assert_false(shadow_takes(id, 0));
        assert_true(shadow_takes(id, CATALOGUE_ALL_REQUESTS));
        n += shadow_takes(id, 500);
        n_more += shadow_takes(id, 500) && !shadow_takes(id, 700);
    }
    assert_true(n > 400 && n < 600);
    assert_int_equal(n_more, 0); /* a larger share has all of a smaller one */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_has_no_room_is_counted, setup, teardown),
        cmocka_unit_test_setup_teardown(only_the_share_of_the_default_set_is_taken, setup, teardown),
        cmocka_unit_test(a_share_is_of_the_ids),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
