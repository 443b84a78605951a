/* One loss each, in a whole cluster on a virtual clock: what is given to others, when, and that who waited for it is
 * answered to the same bits. */
#include <stdlib.h>

#include "tests/sim/cluster_world.h"
#include "tests/sim/obstacle.h"
#include "tests/support/engine_fixture.h"
#include "tests/support/random_model.h"

#define MS      UINT64_C(1000000)
#define SECOND  (1000 * MS)
#define EVER    (100000 * SECOND)
#define BOUND   (60 * SECOND) /* an engine gives a request up after that */
#define TURN_NS (10 * MS)

static struct {
    test_folder folder;
    engine_fixture single;
    int32_t prompt[6];
    engine_spec spec;
    asked want;
} base;

static cluster_world w;

static int prepare(void **state)
{
    random_model m = random_model_defaults("qwen3_moe");
    engine_fixture_options o;

    (void)state;
    test_folder_open(&base.folder);
    m.n_layers = 2;
    random_model_write(&m, base.folder.path);
    o = engine_fixture_defaults(base.folder.path);
    o.model.n_threads = 1;
    o.max_batch_tokens = o.prefill_chunk = 32;
    engine_fixture_open(&base.single, &o);
    random_prompt(base.prompt, MOE_COUNT(base.prompt), m.vocab_size, 1);
    base.spec = ask_spec(base.prompt, MOE_COUNT(base.prompt), 12, 3);
    ask(&base.single, &base.want, &base.spec);
    ask_finish(&base.single, &base.want);
    assert_int_equal(base.want.status, MOE_OK);
    return 0;
}

static int clean_up(void **state)
{
    (void)state;
    engine_fixture_close(&base.single);
    test_folder_close(&base.folder);
    return 0;
}

static void turn_for(uint64_t ns)
{
    for (uint64_t until = cluster_world_now(&w) + ns; cluster_world_now(&w) < until;) {
        cluster_world_turn(&w);
    }
}

static bool is_covered(void)
{
    exchange_coverage c;

    for (uint32_t i = 0; i < w.o.n_coordinators; i++) {
        exchange_get_coverage(pool_exchange(w.coordinators[i].pool), &c);
        if (!c.whole) {
            return false;
        }
    }
    return true;
}

/* Asked again while it is told that an expert has no owner now. */
static void begin(asked *a)
{
    moe_status status = MOE_ERR_UNAVAILABLE;
    moe_error err = {""};

    *a = (asked){.request = NULL};
    for (uint64_t until = cluster_world_now(&w) + BOUND; status == MOE_ERR_UNAVAILABLE;) {
        assert_true(cluster_world_now(&w) < until);
        cluster_world_turn(&w);
        status = engine_submit(w.coordinators[0].engine, &base.spec, &a->request, &err);
    }
    assert_ok(status, err);
}

/* Until it is answered, as one process answers it. */
static void finish(asked *a)
{
    const answer *want = &base.want.choices[0], *got = &a->choices[0];

    for (uint64_t until = cluster_world_now(&w) + BOUND; !a->ended && cluster_world_now(&w) < until;) {
        cluster_world_turn(&w);
        ask_read(a);
    }
    assert_true(a->ended);
    assert_int_equal(a->status, MOE_OK);
    engine_release(a->request);
    assert_int_equal(got->n, want->n);
    assert_memory_equal(got->tokens, want->tokens, want->n * sizeof *want->tokens);
    assert_memory_equal(got->logprobs, want->logprobs, want->n * sizeof *want->logprobs);
}

static void answer_one(void)
{
    asked a;

    begin(&a);
    finish(&a);
}

/* Three nodes; all has been placed and loaded, and some tokens have been computed. */
static void open_world(uint32_t n_coordinators, uint32_t replication)
{
    const cluster_world_options o = {.seed = 5,
                                     .n_nodes = 3,
                                     .n_coordinators = n_coordinators,
                                     .micro_batches = 1,
                                     .replication = replication,
                                     .min_nodes = 3,
                                     .turn_ns = TURN_NS,
                                     .max_delay_ns = MS};

    cluster_world_open(&w, &base.single.model, &o);
    for (uint32_t i = 0; i < n_coordinators; i++) {
        cluster_world_start_coordinator(&w, i);
        turn_for(SECOND); /* the first is the controller */
    }
    for (uint32_t i = 0; i < o.n_nodes; i++) {
        cluster_world_start_node(&w, i);
    }
    for (uint64_t until = cluster_world_now(&w) + BOUND; !is_covered(); cluster_world_turn(&w)) {
        assert_true(cluster_world_now(&w) < until);
    }
    turn_for(SECOND);
    for (int i = 0; i < 3; i++) {
        answer_one();
    }
}

static uint64_t epoch_now(void)
{
    const cluster_state *s = cluster_state_acquire(w.nodes[0].cluster);
    uint64_t epoch = s->epoch;

    cluster_state_release(s);
    return epoch;
}

static size_t wanted_of(const char *id)
{
    uint64_t bitmap[64];
    const cluster_state *s = cluster_state_acquire(w.nodes[0].cluster);
    size_t n = cluster_state_wanted(s, id, bitmap);

    cluster_state_release(s);
    return n;
}

static bool is_registered(const char *id)
{
    char key[64];

    (void)snprintf(key, sizeof key, "/conclave/sim/nodes/%s", id);
    return cluster_memory_get(w.memory, key) != NULL;
}

/* ------------------------------------------------------------------------------------------------ the losses */
/* It answers pings for ever, and etcd's lease is kept: nothing but its results is missing. */
static void what_a_node_that_computes_nothing_had_is_given_to_others(void **state)
{
    (void)state;
    for (uint32_t replication = 1; replication <= 2; replication++) {
        asked a;

        open_world(1, replication);
        cluster_world_mute_node(&w, 1, EVER);
        begin(&a);
        finish(&a);
        for (uint64_t until = cluster_world_now(&w) + BOUND; wanted_of("node-1") > 0;) {
            assert_true(cluster_world_now(&w) < until);
            answer_one(); /* with a copy elsewhere only work shows it */
        }
        assert_true(is_registered("node-1"));
        answer_one();
        cluster_world_close(&w);
    }
}

/* Every coordinator needs no owner outside of the placement any more. */
static bool all_have_applied(void)
{
    const cluster_state *s = cluster_state_acquire(w.nodes[0].cluster);
    bool all = s->n_coordinators == w.o.n_coordinators && cluster_state_epoch_applied(s, 0) >= s->epoch;

    cluster_state_release(s);
    return all;
}

/* It is connected and answers pings, so nothing but this is missing; and it may be one that has just come, or one that was started
 * anew and has its place in the placement. */
static void what_a_node_that_never_tells_what_it_holds_had_is_given_to_others(void **state)
{
    (void)state;
    for (uint32_t n_coordinators = 1; n_coordinators <= 2; n_coordinators++) {
        open_world(n_coordinators, 1);
        cluster_world_kill_node(&w, 1);
        cluster_world_start_node(&w, 1);
        obstacle_hide(w.nodes[1].m.t, true);
        for (uint64_t until = cluster_world_now(&w) + BOUND; wanted_of("node-1") > 0 || !all_have_applied();) {
            assert_true(cluster_world_now(&w) < until);
            cluster_world_turn(&w);
        }
        answer_one();
        turn_for(BOUND);
        assert_int_equal(wanted_of("node-1"), 0);
        obstacle_hide(w.nodes[1].m.t, false);
        for (uint64_t until = cluster_world_now(&w) + BOUND; wanted_of("node-1") == 0 || !all_have_applied();) {
            assert_true(cluster_world_now(&w) < until);
            cluster_world_turn(&w);
        }
        answer_one();
        cluster_world_close(&w);
    }
}

static bool nobody_has_too_much(void)
{
    const cluster_state *s = cluster_state_acquire(w.nodes[0].cluster);
    uint64_t bitmap[64];
    bool all = true;

    for (size_t i = 0; i < s->n_nodes; i++) {
        all = all && s->nodes[i].n_ready == cluster_state_wanted(s, s->nodes[i].id, bitmap);
    }
    cluster_state_release(s);
    return all;
}

/* Its connections live, and it has lost its lease: what it may still use is kept, but not for ever. */
static void a_coordinator_that_stands_still_does_not_hold_up_drops_for_ever(void **state)
{
    (void)state;
    open_world(2, 1);
    w.coordinators[1].m.stopped_until_ns = EVER;
    cluster_world_kill_node(&w, 1);
    while (wanted_of("node-1") > 0) {
        cluster_world_turn(&w);
    }
    cluster_world_start_node(&w, 1);
    for (uint64_t until = cluster_world_now(&w) + 2 * BOUND; wanted_of("node-1") == 0 || !nobody_has_too_much();) {
        assert_true(cluster_world_now(&w) < until);
        cluster_world_turn(&w);
    }
    answer_one();
    w.coordinators[1].m.stopped_until_ns = 0;
    for (uint64_t until = cluster_world_now(&w) + BOUND; !is_covered() || !all_have_applied();) { /* it is met again */
        assert_true(cluster_world_now(&w) < until);
        cluster_world_turn(&w);
    }
    cluster_world_close(&w);
}

/* Nothing refuses a connection. Its experts have new owners while its lease still runs. */
static void what_a_silent_node_alone_had_is_given_to_others_long_before_its_lease_ends(void **state)
{
    (void)state;
    open_world(1, 1);
    w.nodes[1].m.stopped_until_ns = EVER;
    while (wanted_of("node-1") > 0) {
        assert_true(is_registered("node-1"));
        cluster_world_turn(&w);
    }
    answer_one();
    assert_true(is_registered("node-1"));
    cluster_world_close(&w);
}

static void a_node_that_stands_still_for_a_second_keeps_what_it_has(void **state)
{
    (void)state;
    for (uint32_t replication = 1; replication <= 2; replication++) {
        asked a;

        open_world(1, replication);
        uint64_t epoch = epoch_now();
        w.nodes[1].m.stopped_until_ns = cluster_world_now(&w) + SECOND;
        begin(&a);
        finish(&a);
        turn_for(10 * SECOND);
        assert_int_equal(epoch_now(), epoch);
        cluster_world_close(&w);
    }
}

/* Frames pass in one direction alone, or in none: the one who asks hears nothing. Another coordinator hears the node. */
static void a_node_that_another_coordinator_serves_with_is_not_lost_at_once(void **state)
{
    static const unsigned kinds[] = {OBSTACLE_OUT, OBSTACLE_IN, OBSTACLE_OUT | OBSTACLE_IN};

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(kinds); i++) {
        asked a;

        open_world(2, 1);
        uint64_t epoch = epoch_now();
        cluster_world_obstruct(&w, 0, 1, kinds[i], 6 * SECOND);
        turn_for(5 * SECOND);
        assert_int_equal(epoch_now(), epoch);
        begin(&a);
        finish(&a); /* the way is free again */
        assert_int_equal(epoch_now(), epoch);
        cluster_world_obstruct(&w, 0, 1, kinds[i], EVER);
        cluster_world_obstruct(&w, 1, 1, kinds[i], EVER);
        while (wanted_of("node-1") > 0) {
            assert_true(is_registered("node-1"));
            cluster_world_turn(&w);
        }
        answer_one();
        cluster_world_close(&w);
    }
}

/* A name that nobody resolves any more is asked for only when there is no connection. */
static void a_silent_name_server_stops_nobody_who_is_connected(void **state)
{
    (void)state;
    open_world(1, 1);
    uint64_t epoch = epoch_now();
    for (uint32_t i = 0; i < 3; i++) {
        cluster_world_obstruct(&w, 0, i, OBSTACLE_NAME, EVER);
    }
    answer_one();
    turn_for(20 * SECOND);
    answer_one();
    assert_int_equal(epoch_now(), epoch);
    cluster_world_kill_node(&w, 1); /* and nobody can tell that its address refuses connections */
    while (wanted_of("node-1") > 0) {
        assert_true(is_registered("node-1"));
        cluster_world_turn(&w);
    }
    answer_one();
    cluster_world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_a_node_that_computes_nothing_had_is_given_to_others),
        cmocka_unit_test(what_a_node_that_never_tells_what_it_holds_had_is_given_to_others),
        cmocka_unit_test(a_coordinator_that_stands_still_does_not_hold_up_drops_for_ever),
        cmocka_unit_test(what_a_silent_node_alone_had_is_given_to_others_long_before_its_lease_ends),
        cmocka_unit_test(a_node_that_stands_still_for_a_second_keeps_what_it_has),
        cmocka_unit_test(a_node_that_another_coordinator_serves_with_is_not_lost_at_once),
        cmocka_unit_test(a_silent_name_server_stops_nobody_who_is_connected),
    };

    moe_log_set_level(getenv("SIM_LOG") == NULL ? MOE_LOG_ERROR : MOE_LOG_DEBUG);
    return cmocka_run_group_tests(tests, prepare, clean_up);
}
