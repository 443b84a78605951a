/* The engine on its own thread with clients on theirs: every stream as if it were alone, whoever cancels. Meant for
 * TSan. */
#include <pthread.h>
#include <stdlib.h>

#include "tests/support/engine_fixture.h"
#include "tests/support/random_model.h"
#include "tests/support/support.h"

#define N_CLIENTS  4
#define N_REQUESTS 8
#define N_PROMPTS  3
#define N_TOKENS   12

typedef struct client {
    engine *engine;
    unsigned number;
    int32_t tokens[N_REQUESTS][N_TOKENS];
    unsigned n_tokens[N_REQUESTS];
    unsigned n_refused, n_cancelled;
    moe_waiter *waiter; /* until the engine is closed: it may be inside the wake-up of an event that has been read */
    pthread_t thread;
} client;

static void on_wake(void *ctx)
{
    moe_waiter_wake(ctx);
}

/* Client 0 never cancels: its streams are what the others are compared with. */
static bool cancels(unsigned client_number, unsigned i)
{
    return client_number > 0 && (client_number + i) % 3 == 2;
}

static void read_all(client *c, unsigned i, engine_request *r, moe_waiter *waiter)
{
    engine_event ev;
    bool ended = false;

    while (!ended) {
        while (!ended && engine_next(r, &ev)) {
            if (ev.kind == ENGINE_TOKEN && c->n_tokens[i] < N_TOKENS) {
                c->tokens[i][c->n_tokens[i]++] = ev.token_id;
            }
            if (ev.kind == ENGINE_TOKEN && cancels(c->number, i) && c->n_tokens[i] == 3) {
                engine_cancel(r);
            }
            c->n_cancelled += ev.kind == ENGINE_CHOICE_DONE && ev.finish == ENGINE_FINISH_CANCELLED;
            ended = ev.kind == ENGINE_DONE || ev.kind == ENGINE_FAILED;
        }
        if (!ended) {
            moe_waiter_wait(waiter, NULL, NULL, 10000000);
        }
    }
}

/* cmocka's assertions stay on the test's own thread: a client only records. */
static void *client_main(void *arg)
{
    client *c = arg;

    compute_thread_init();
    for (unsigned i = 0; i < N_REQUESTS; i++) {
        int32_t prompt[40];
        size_t n = 10 + 10 * (i % N_PROMPTS);
        engine_request *r;
        engine_spec spec;
        random_prompt(prompt, n, 256, i % N_PROMPTS);
        /* Longer than its ring is deep, so that it cannot have ended before its reader cancels. */
        spec = ask_spec(prompt, n, cancels(c->number, i) ? 200 : N_TOKENS, 5);
        spec.wake = on_wake;
        spec.wake_ctx = c->waiter;
        if (engine_submit(c->engine, &spec, &r, NULL) != MOE_OK) {
            c->n_refused++;
            continue;
        }
        read_all(c, i, r, c->waiter);
        engine_release(r);
    }
    return NULL;
}

static void streams_of_many_threads_are_as_if_alone(void **state)
{
    test_folder *folder = *state;
    random_model m = random_model_defaults("olmoe");
    engine_fixture_options o;
    engine_fixture f;
    client *clients = calloc(N_CLIENTS, sizeof *clients);
    moe_error err;
    unsigned n_cancelled = 0;

    m.n_layers = 2;
    random_model_write(&m, folder->path);
    o = engine_fixture_defaults(folder->path);
    o.prefill_chunk = 16;
    o.model.kv_tokens = 256;
    engine_fixture_open(&f, &o);
    assert_ok(engine_start(f.engine, &err), err);
    for (unsigned i = 0; i < N_CLIENTS; i++) {
        clients[i].engine = f.engine;
        clients[i].number = i;
        assert_int_equal(moe_waiter_open(&clients[i].waiter), MOE_OK);
        assert_int_equal(pthread_create(&clients[i].thread, NULL, client_main, &clients[i]), 0);
    }
    for (unsigned i = 0; i < N_CLIENTS; i++) {
        pthread_join(clients[i].thread, NULL);
    }
    for (unsigned i = 0; i < N_CLIENTS; i++) {
        assert_int_equal(clients[i].n_refused, 0);
        n_cancelled += clients[i].n_cancelled;
        for (unsigned r = 0; r < N_REQUESTS; r++) {
            const client *whole = &clients[0];
            assert_true(clients[i].n_tokens[r] == N_TOKENS || cancels(i, r));
            assert_memory_equal(clients[i].tokens[r], whole->tokens[r % N_PROMPTS],
                                clients[i].n_tokens[r] * sizeof(int32_t));
        }
    }
    assert_true(n_cancelled > 0);
    engine_fixture_close(&f);
    for (unsigned i = 0; i < N_CLIENTS; i++) {
        moe_waiter_close(clients[i].waiter);
    }
    free(clients);
}

static void closing_ends_what_still_runs(void **state)
{
    test_folder *folder = *state;
    engine_fixture_options o = engine_fixture_defaults(folder->path);
    engine_fixture f;
    engine_request *r;
    engine_event ev;
    int32_t prompt[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    engine_spec spec = ask_spec(prompt, 8, 200, 1);
    moe_error err;
    bool failed = false;

    engine_fixture_open(&f, &o);
    assert_ok(engine_start(f.engine, &err), err);
    assert_ok(engine_submit(f.engine, &spec, &r, &err), err);
    engine_close(f.engine);
    f.engine = NULL;
    while (engine_next(r, &ev)) {
        failed = ev.kind == ENGINE_FAILED && ev.status == MOE_ERR_UNAVAILABLE;
    }
    assert_true(failed);
    engine_release(r);
    engine_fixture_close(&f);
}

/* For ever, if the loop stands still: a probe would take the process for dead. */
static void wait_for_a_turn(engine *e)
{
    engine_stats then, now;

    engine_get_stats(e, &then);
    do {
        engine_get_stats(e, &now);
    } while (now.last_step_ns == then.last_step_ns);
}

/* Without owners a step waits for an hour. Meanwhile its loop is alive, and can be ended. */
static void closing_ends_a_step_that_waits_for_an_owner(void **state)
{
    test_folder folder;
    engine_fixture f;
    random_model m = random_model_defaults("olmoe");
    asked *a = malloc(sizeof *a);
    int32_t prompt[4];
    moe_error err;

    (void)state;
    assert_non_null(a);
    test_folder_open(&folder);
    random_model_write(&m, folder.path);
    engine_fixture_options o = engine_fixture_defaults(folder.path);
    engine_fixture_open(&f, &o);
    random_prompt(prompt, MOE_COUNT(prompt), m.vocab_size, 3);
    engine_spec spec = ask_spec(prompt, MOE_COUNT(prompt), 4, 5);
    ask(&f, a, &spec);
    exchange_remove_node(embedded_exchange(f.embedded), "embedded");
    assert_ok(engine_start(f.engine, &err), err);
    engine_event ev;
    while (!engine_next(a->request, &ev)) {
    }
    assert_int_equal(ev.kind, ENGINE_STARTED);
    wait_for_a_turn(f.engine);
    wait_for_a_turn(f.engine);
    engine_close(f.engine);
    f.engine = NULL;
    ask_read(a);
    assert_true(a->ended);
    assert_int_equal(a->status, MOE_ERR_UNAVAILABLE);
    assert_contains(a->error, "shutting down");
    engine_release(a->request);
    free(a);
    engine_fixture_close(&f);
    test_folder_close(&folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(streams_of_many_threads_are_as_if_alone),
        cmocka_unit_test(closing_ends_what_still_runs),
        cmocka_unit_test(closing_ends_a_step_that_waits_for_an_owner),
    };

    return cmocka_run_group_tests(tests, test_folder_setup, test_folder_teardown);
}
