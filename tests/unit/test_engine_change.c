/* Changes while requests run: taken between two steps, never in one; who was admitted before keeps its set, and everybody's
 * tokens are those of a run alone under its own set. */
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "engine/engine_priv.h"
#include "tests/support/engine_fixture.h"
#include "tests/support/random_model.h"
#include "tests/support/support.h"

#define VOCAB     256
#define N_LAYERS  2
#define N_EXPERTS 24
#define N_KEPT    15 /* of each layer's experts, in the smaller set */
#if defined(__SANITIZE_THREAD__)
#define N_ANSWER  4 /* all that counts is who shares what */
#define N_CHANGES 40
#else
#define N_ANSWER  12
#define N_CHANGES 200
#endif

static const unsigned char fingerprint[32] = {7};

typedef struct world {
    test_folder folder;
    engine_fixture f;
    exchange *x;
    router_set *base, *fewer;
    int32_t prompt[2][9];
    answer alone[2][2]; /* [set: base, fewer][prompt] */
    asked asked[4];
} world;

static router_set *open_fewer(router_space *space, uint32_t k)
{
    router_set_layer layers[N_LAYERS];
    int32_t ids[N_LAYERS][N_KEPT];
    uint32_t columns[N_LAYERS][N_KEPT];
    router_set *set;
    moe_error err;

    for (uint32_t l = 0; l < N_LAYERS; l++) {
        for (uint32_t i = 0; i < N_KEPT; i++) {
            columns[l][i] = i + l;
            ids[l][i] = (int32_t)(i + l);
        }
        layers[l] = (router_set_layer){.n_experts = N_KEPT, .expert_ids = ids[l], .columns = columns[l]};
    }
    assert_ok(router_set_open(space, layers, k, fingerprint, &set, &err), err);
    return set;
}

static engine_spec spec_of(const world *w, size_t prompt, router_set *set)
{
    engine_spec spec = ask_spec(w->prompt[prompt], MOE_COUNT(w->prompt[prompt]), N_ANSWER, 3);

    spec.set = set;
    return spec;
}

static void rehearse(world *w)
{
    router_set *const sets[] = {w->base, w->fewer};

    for (size_t s = 0; s < 2; s++) {
        for (size_t p = 0; p < 2; p++) {
            engine_spec spec = spec_of(w, p, sets[s]);
            ask(&w->f, &w->asked[0], &spec);
            ask_finish(&w->f, &w->asked[0]);
            w->alone[s][p] = w->asked[0].choices[0];
        }
    }
    assert_true(memcmp(w->alone[0][0].logprobs, w->alone[1][0].logprobs, N_ANSWER * sizeof(float)) != 0);
}

static int setup(void **state)
{
    world *w = calloc(1, sizeof *w);
    random_model m = random_model_defaults("olmoe");
    engine_fixture_options o;

    test_folder_open(&w->folder);
    m.vocab_size = VOCAB;
    m.n_layers = N_LAYERS;
    random_model_write(&m, w->folder.path);
    o = engine_fixture_defaults(w->folder.path);
    o.micro_batches = 2;
    o.max_queue = 2 * ENGINE_MAX_SETS;
    engine_fixture_open(&w->f, &o);
    w->x = embedded_exchange(w->f.embedded);
    w->base = w->f.model.set;
    w->fewer = open_fewer(router_set_space(w->base), w->f.model.config.gate.k);
    random_prompt(w->prompt[0], MOE_COUNT(w->prompt[0]), VOCAB, 1);
    random_prompt(w->prompt[1], MOE_COUNT(w->prompt[1]), VOCAB, 2);
    rehearse(w);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    world *w = *state;

    engine_fixture_close(&w->f);
    router_set_unref(w->fewer);
    test_folder_close(&w->folder);
    free(w);
    return 0;
}

static void switch_to(world *w, router_set *set)
{
    moe_error err;

    assert_ok(engine_change(w->f.engine, &(engine_changes){.set = set}, &err), err);
}

static void expect_current(world *w, const router_set *set)
{
    router_set *current = engine_current_set(w->f.engine);

    assert_string_equal(router_set_id(current), router_set_id(set));
    router_set_unref(current);
}

/* Asked under the set that is current; stepped by hand, so that all share steps. */
static void requests_keep_the_set_that_they_came_under(void **state)
{
    world *w = *state;

    for (size_t i = 0; i < 4; i++) {
        engine_spec spec = spec_of(w, i / 2, NULL);

        switch_to(w, i % 2 == 0 ? w->base : w->fewer);
        expect_current(w, i % 2 == 0 ? w->base : w->fewer);
        ask(&w->f, &w->asked[i], &spec);
        (void)engine_step(w->f.engine);
    }
    for (size_t i = 0; i < 4; i++) {
        assert_string_equal(engine_request_set_id(w->asked[i].request), router_set_id(i % 2 == 0 ? w->base : w->fewer));
        ask_finish(&w->f, &w->asked[i]);
        assert_answers_equal(&w->asked[i].choices[0], &w->alone[i % 2][i / 2]);
    }
}

static moe_status refuse(void *ctx, moe_error *err)
{
    *(bool *)ctx = true;
    return moe_fail(err, MOE_ERR_NO_MEMORY, "no room for it");
}

static void what_is_refused_changes_nothing(void **state)
{
    world *w = *state;
    bool was_called = false;
    moe_error err;

    switch_to(w, w->base);
    assert_int_equal(
        engine_change(w->f.engine, &(engine_changes){.set = w->fewer, .take = refuse, .ctx = &was_called}, &err),
        MOE_ERR_NO_MEMORY);
    assert_true(was_called);
    assert_string_equal(err.text, "no room for it");
    expect_current(w, w->base);
}

/* Its experts are of a space that the engine has not heard of. */
static void a_set_of_a_later_space_is_refused(void **state)
{
    world *w = *state;
    const router_addition added = {.layer = 0, .id = N_EXPERTS, .hash = {1}};
    engine_spec spec;
    engine_request *r;
    router_space *later;
    router_set *set;
    moe_error err;

    assert_ok(router_space_grow(router_set_space(w->base), &added, 1, &later, &err), err);
    assert_ok(router_set_open_all(later, w->f.model.config.gate.k, fingerprint, &set, &err), err);
    assert_int_equal(engine_change(w->f.engine, &(engine_changes){.set = set}, &err), MOE_ERR_INVALID_ARG);
    assert_contains(err.text, "experts that are not here yet");
    expect_current(w, w->base);
    spec = spec_of(w, 0, set);
    assert_int_equal(engine_submit(w->f.engine, &spec, &r, &err), MOE_ERR_UNAVAILABLE);
    assert_contains(err.text, "experts that are not here yet");
    router_set_unref(set);
    router_space_unref(later);
}

/* Whether an expert without an owner counts depends on who is asked for by default. */
static void readiness_is_about_the_current_set(void **state)
{
    static const char *const node = "embedded";
    world *w = *state;
    router_space *space = router_set_space(w->base);
    router_replica replicas[N_LAYERS * N_EXPERTS];
    router_placement *p;
    exchange_coverage c;
    moe_error err;
    size_t n = 0;

    for (uint32_t l = 0; l < N_LAYERS; l++) {
        const router_set_layer *kept = router_set_at(w->fewer, l);
        for (uint32_t i = 0; i < kept->n_experts; i++) {
            replicas[n++] = (router_replica){.layer = l, .expert_id = kept->expert_ids[i]};
        }
    }
    assert_ok(router_placement_open(2, space, &node, 1, replicas, n, &p, &err), err);
    exchange_set_placement(w->x, p);
    router_placement_unref(p);
    (void)exchange_progress(w->x);
    exchange_get_coverage(w->x, &c);
    assert_int_equal(c.n_missing, N_LAYERS * (N_EXPERTS - N_KEPT));
    switch_to(w, w->fewer);
    (void)exchange_progress(w->x);
    exchange_get_coverage(w->x, &c);
    assert_true(c.whole);
    switch_to(w, w->base);
}

/* All but one expert of layer 0; i of them, then also one of layer 1. */
static router_set *open_without(world *w, size_t i)
{
    router_set_layer layers[N_LAYERS];
    int32_t ids[N_LAYERS][N_EXPERTS];
    uint32_t columns[N_LAYERS][N_EXPERTS];
    router_set *set;
    moe_error err;

    for (uint32_t l = 0; l < N_LAYERS; l++) {
        size_t left_out = l == 0 ? i % N_EXPERTS : i / N_EXPERTS;

        layers[l] = (router_set_layer){.expert_ids = ids[l], .columns = columns[l]};
        for (uint32_t e = 0; e < N_EXPERTS; e++) {
            ids[l][layers[l].n_experts] = (int32_t)e;
            columns[l][layers[l].n_experts] = e;
            layers[l].n_experts += e != left_out;
        }
    }
    assert_ok(router_set_open(router_set_space(w->base), layers, w->f.model.config.gate.k, fingerprint, &set, &err),
              err);
    return set;
}

static void more_sets_than_can_live_are_refused(void **state)
{
    world *w = *state;
    asked *all = calloc(ENGINE_MAX_SETS + 1, sizeof *all);
    router_set *live[ENGINE_MAX_SETS];
    engine_request *refused;
    moe_error err;

    for (size_t i = 0; i < ENGINE_MAX_SETS; i++) {
        router_set *set = open_without(w, i);
        engine_spec spec = spec_of(w, 0, set);
        ask(&w->f, &all[i], &spec);
        router_set_unref(set); /* the request's now */
    }
    assert_int_equal(engine_live_sets(w->f.engine, live), ENGINE_MAX_SETS);
    engine_spec again = spec_of(w, 1, live[3]), another = spec_of(w, 1, w->base);
    assert_int_equal(engine_submit(w->f.engine, &another, &refused, &err), MOE_ERR_BUSY);
    assert_contains(err.text, "64 expert sets");
    ask(&w->f, &all[ENGINE_MAX_SETS], &again); /* of a set that is there */
    for (size_t i = 0; i < ENGINE_MAX_SETS; i++) {
        router_set_unref(live[i]);
    }
    for (size_t i = 0; i <= ENGINE_MAX_SETS; i++) {
        ask_finish(&w->f, &all[i]);
        assert_int_equal(all[i].status, MOE_OK);
    }
    while (engine_turn(w->f.engine) != ENGINE_TURN_IDLE) {
    }
    assert_int_equal(engine_live_sets(w->f.engine, live), 0);
    ask(&w->f, &all[0], &another);
    ask_finish(&w->f, &all[0]);
    assert_answers_equal(&all[0].choices[0], &w->alone[0][1]);
    free(all);
}

/* ------------------------------------------------------------------------------------------------ while it runs */
typedef struct look {
    engine *e;
    exchange *x;
    unsigned n_taken, n_in_step;
} look;

/* On the engine's thread: is anything of a step under way? */
static moe_status look_at_steps(void *ctx, moe_error *err)
{
    look *l = ctx;

    (void)err;
    l->n_taken++;
    l->n_in_step +=
        l->e->run.active || exchange_state(l->x, 0) == EXCHANGE_RUNNING || exchange_state(l->x, 1) == EXCHANGE_RUNNING;
    return MOE_OK;
}

static void *keep_changing(void *arg)
{
    world *w = arg;
    look l = {.e = w->f.engine, .x = w->x};
    bool all_taken = true;

    for (unsigned i = 0; i < N_CHANGES; i++) {
        engine_changes c = {.set = i % 2 == 0 ? w->fewer : w->base, .take = look_at_steps, .ctx = &l};
        all_taken = engine_change(w->f.engine, &c, NULL) == MOE_OK && all_taken;
    }
    return all_taken && l.n_taken == N_CHANGES && l.n_in_step == 0 ? w : NULL;
}

static void wait_for(asked *a)
{
    const struct timespec nap = {.tv_nsec = 500000};

    while (!a->ended) {
        ask_read(a);
        (void)nanosleep(&nap, NULL);
    }
}

/* From two threads at once, while requests of both sets run. */
static void changes_never_cut_a_step(void **state)
{
    world *w = *state;
    router_set *const sets[] = {w->base, w->fewer};
    pthread_t threads[2];
    void *went_well;
    moe_error err;

    assert_ok(engine_start(w->f.engine, &err), err);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, keep_changing, w), 0);
    }
    for (size_t round = 0; round < 4; round++) {
        for (size_t i = 0; i < 4; i++) {
            engine_spec spec = spec_of(w, i / 2, sets[i % 2]);
            ask(&w->f, &w->asked[i], &spec);
        }
        for (size_t i = 0; i < 4; i++) {
            wait_for(&w->asked[i]);
            ask_finish(&w->f, &w->asked[i]);
            assert_answers_equal(&w->asked[i].choices[0], &w->alone[i % 2][i / 2]);
        }
    }
    for (size_t i = 0; i < 2; i++) {
        pthread_join(threads[i], &went_well);
        assert_non_null(went_well);
    }
    expect_current(w, w->base);
}

/* The node is gone, so the step gets no result; then it is back. */
static moe_status lose_node(void *ctx, moe_error *err)
{
    (void)err;
    exchange_remove_node(ctx, "embedded");
    return MOE_OK;
}

static moe_status find_node(void *ctx, moe_error *err)
{
    return exchange_add_node(ctx, "embedded", "embedded", 0, err);
}

static void a_step_that_waits_is_put_off_for_a_change(void **state)
{
    world *w = *state;
    look l = {.e = w->f.engine, .x = w->x};
    engine_spec spec = spec_of(w, 0, w->base);
    engine_stats stats;
    moe_error err;

    assert_ok(engine_start(w->f.engine, &err), err);
    ask(&w->f, &w->asked[0], &spec);
    assert_ok(engine_change(w->f.engine, &(engine_changes){.take = lose_node, .ctx = w->x}, &err), err);
    for (unsigned i = 0; i < 3; i++) {
        engine_changes c = {.set = i % 2 == 0 ? w->fewer : w->base, .take = look_at_steps, .ctx = &l};
        assert_ok(engine_change(w->f.engine, &c, &err), err);
    }
    assert_int_equal(l.n_in_step, 0);
    assert_ok(engine_change(w->f.engine, &(engine_changes){.take = find_node, .ctx = w->x}, &err), err);
    wait_for(&w->asked[0]);
    ask_finish(&w->f, &w->asked[0]);
    assert_answers_equal(&w->asked[0].choices[0], &w->alone[0][0]);
    engine_get_stats(w->f.engine, &stats);
    assert_int_equal(stats.kv_pages_used, 0);
}

/* The engine's thread stands in the middle of a step, in the wake-up of its request, until it is let go. */
typedef struct standing {
    sem_t arrived, go;
    atomic_uint n_wakes;
} standing;

static void stand(void *ctx)
{
    standing *s = ctx;

    if (atomic_fetch_add(&s->n_wakes, 1) == 1) { /* the first is of its start, before the step */
        sem_post(&s->arrived);
        sem_wait(&s->go);
    }
}

static void *change_set(void *arg)
{
    world *w = arg;

    return engine_change(w->f.engine, &(engine_changes){.set = w->fewer}, NULL) == MOE_OK ? w : NULL;
}

static void a_set_whose_experts_are_here_waits_for_no_step(void **state)
{
    world *w = *state;
    standing s = {.n_wakes = 0};
    struct timespec limit;
    pthread_t thread;
    void *went_well = NULL;
    engine_spec spec = spec_of(w, 0, NULL), late = spec_of(w, 1, NULL);
    moe_error err;

    sem_init(&s.arrived, 0, 0);
    sem_init(&s.go, 0, 0);
    spec.wake = stand;
    spec.wake_ctx = &s;
    assert_ok(engine_start(w->f.engine, &err), err);
    ask(&w->f, &w->asked[0], &spec);
    sem_wait(&s.arrived);
    assert_int_equal(pthread_create(&thread, NULL, change_set, w), 0);
    (void)clock_gettime(CLOCK_REALTIME, &limit);
    limit.tv_sec += 60;
    bool is_back = pthread_timedjoin_np(thread, &went_well, &limit) == 0;
    ask(&w->f, &w->asked[1], &late);
    sem_post(&s.go);
    if (!is_back) {
        (void)pthread_join(thread, &went_well);
    }
    assert_true(is_back);
    assert_non_null(went_well);
    for (size_t i = 0; i < 2; i++) {
        wait_for(&w->asked[i]);
        ask_finish(&w->f, &w->asked[i]);
        assert_answers_equal(&w->asked[i].choices[0],
                             &w->alone[i][i]); /* each under the set that was current when it came */
    }
    expect_current(w, w->fewer);
    sem_destroy(&s.arrived);
    sem_destroy(&s.go);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(requests_keep_the_set_that_they_came_under, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_refused_changes_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(a_set_of_a_later_space_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(readiness_is_about_the_current_set, setup, teardown),
        cmocka_unit_test_setup_teardown(more_sets_than_can_live_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(changes_never_cut_a_step, setup, teardown),
        cmocka_unit_test_setup_teardown(a_step_that_waits_is_put_off_for_a_change, setup, teardown),
        cmocka_unit_test_setup_teardown(a_set_whose_experts_are_here_waits_for_no_step, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
