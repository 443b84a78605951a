/* Changes of what may be routed to, in a cluster: both phases, whoever dies or loses the store meanwhile. */
#include "tests/unit/test_cluster_changes.h"

static world w;
static member *a, *b, *n1, *n2; /* coordinators; nodes */

static int setup_with(bool has_links)
{
    world_open(&w, 7);
    w.has_links = has_links;
    a = add(&w, CLUSTER_COORDINATOR, "a");
    b = add(&w, CLUSTER_COORDINATOR, "b");
    n1 = add(&w, CLUSTER_NODE, "n1");
    n2 = add(&w, CLUSTER_NODE, "n2");
    return 0;
}

static int setup(void **state)
{
    (void)state;
    return setup_with(false);
}

static int setup_links(void **state)
{
    (void)state;
    return setup_with(true);
}

static int teardown(void **state)
{
    (void)state;
    world_close(&w);
    return 0;
}

/* ------------------------------------------------------------------------------------------------ what members do */
/* Nodes load what they are to hold. */
static void run_loading(uint64_t ns)
{
    for (uint64_t t = 0; t < ns; t += 200 * MS) {
        run_for(&w, 200 * MS);
        load(n1, "n1");
        load(n2, "n2");
    }
}

static void prepare(member *m)
{
    cluster_set_prepared(m->c, pending_of(m), NULL);
}

static moe_status ask_for_german(member *m)
{
    const catalogue_pack p = german();
    const catalogue_change change = {
        .op = CATALOGUE_ADD, .pack = &p, .who = "ann", .now_ms = 1000, .deadline_ms = 61000};

    return ask_by(m, &change);
}

static void begin_german(void)
{
    run_loading(5 * SECOND);
    assert_ok(ask_for_german(a), err);
    run_loading(5 * SECOND);
    assert_int_equal(pending_of(b), 1);
}

static size_t default_experts(member *m)
{
    const cluster_state *s = cluster_state_acquire(m->c);
    size_t n = 0;

    for (size_t l = 0; l < LAYERS; l++) {
        n += router_set_at(catalogue_default(s->catalogue), l)->n_experts;
    }
    cluster_state_release(s);
    return n;
}

/* Why the last change was given up; "": it was done. */
static const char *end_of(member *m)
{
    static char text[CATALOGUE_MAX_WHY + 1];
    const cluster_state *s = cluster_state_acquire(m->c);
    size_t n = catalogue_n_entries(s->catalogue);

    (void)snprintf(text, sizeof text, "%s",
                   n > 0 ? catalogue_entry_at(s->catalogue, n - 1)->undone : "nothing was asked");
    cluster_state_release(s);
    return text;
}

static void assert_done(bool done)
{
    member *const all[] = {a, b, n1, n2};

    for (size_t i = 0; i < MOE_COUNT(all); i++) {
        if (all[i]->c != NULL) {
            assert_int_equal(pending_of(all[i]), 0);
            assert_int_equal(default_experts(all[i]), LAYERS * EXPERTS + (done ? GERMAN : 0));
        }
    }
}

static void do_german(void)
{
    begin_german();
    prepare(a);
    prepare(b);
    run_loading(2 * SECOND);
    assert_done(true);
}

/* Both coordinators are prepared when it returns; the change is done a moment later. */
static void remove_german(member *by)
{
    const catalogue_change remove = {.op = CATALOGUE_REMOVE, .word = "german", .now_ms = 1, .deadline_ms = 60001};

    assert_ok(ask_by(by, &remove), err);
    run_loading(SECOND);
    prepare(a);
    prepare(b);
}

/* Owners of the experts that were added, in the newest placement. */
static size_t placed_german(member *m)
{
    const cluster_state *s = cluster_state_acquire(m->c);
    size_t total = 0, n;

    for (uint32_t slot = LAYERS * EXPERTS; slot < router_space_n_slots(s->space); slot++) {
        (void)router_placement_owners(s->desired, slot, &n);
        total += n > 0;
    }
    cluster_state_release(s);
    return total;
}

/* ------------------------------------------------------------------------------------------------ done */
static void a_change_is_done_when_all_are_prepared_and_covered(void **state)
{
    (void)state;
    begin_german();
    assert_int_equal(placed_german(b), GERMAN);
    prepare(a);
    run_loading(5 * SECOND);
    assert_int_equal(default_experts(a), LAYERS * EXPERTS); /* b has not said so */
    prepare(b);
    run_loading(2 * SECOND);
    assert_done(true);
    assert_string_equal(end_of(b), "");
}

static void it_waits_until_its_experts_are_there(void **state)
{
    (void)state;
    run_loading(5 * SECOND);
    assert_ok(ask_for_german(b), err);
    run_for(&w, 3 * SECOND);
    prepare(a);
    prepare(b);
    run_for(&w, 10 * SECOND); /* nodes load nothing */
    assert_int_equal(pending_of(a), 1);
    run_loading(2 * SECOND);
    assert_done(true);
}

/* Its key says that it has all, whoever wrote it. */
static void claim(member *m)
{
    const cluster_state *s = cluster_state_acquire(m->c);
    uint64_t all[WORDS];

    memset(all, 0xff, sizeof all);
    for (uint32_t slot = router_space_n_slots(s->space); slot < 64 * WORDS; slot++) {
        router_bit_clear(all, slot);
    }
    cluster_set_ready(m->c, s->space, all, s->epoch);
    cluster_state_release(s);
}

static void what_a_key_claims_commits_nothing(void **state)
{
    (void)state;
    run_loading(5 * SECOND);
    assert_ok(ask_for_german(b), err);
    run_for(&w, 3 * SECOND);
    prepare(a);
    prepare(b);
    claim(n1);
    claim(n2);
    run_for(&w, 5 * SECOND);
    assert_int_equal(missing_of(a), 0);
    assert_int_equal(pending_of(a), 1);
    n1->tells = n2->tells = false; /* nor where there is no connection */
    run_for(&w, 5 * SECOND);
    assert_int_equal(pending_of(a), 1);
    run_loading(2 * SECOND);
    assert_done(true);
}

static void replicate(uint32_t n)
{
    run_loading(5 * SECOND);
    assert_ok(cluster_set_policy(a->c, &(cluster_policy){.replication = n}, &err), err);
    run_loading(10 * SECOND);
}

static void it_waits_until_they_have_all_their_owners(void **state)
{
    (void)state;
    replicate(2);
    assert_ok(ask_for_german(b), err);
    run_for(&w, 3 * SECOND);
    prepare(a);
    prepare(b);
    for (int i = 0; i < 50; i++) { /* the other node takes its time */
        run_for(&w, 200 * MS);
        load(n1, "n1");
    }
    assert_int_equal(pending_of(a), 1);
    run_loading(2 * SECOND);
    assert_done(true);
}

static void an_owner_that_dies_is_not_waited_for(void **state)
{
    (void)state;
    replicate(2);
    assert_ok(ask_for_german(b), err);
    run_for(&w, 3 * SECOND);
    prepare(a);
    prepare(b);
    load(n1, "n1");
    kill_process(n2);
    for (int i = 0; i < 200 && pending_of(a) != 0; i++) {
        run_for(&w, 200 * MS);
        load(n1, "n1");
    }
    assert_done(true);
}

static void what_needs_no_experts_needs_the_coordinators_alone(void **state)
{
    const catalogue_expert one = {.layer = 1, .id = 3};
    const catalogue_change prune = {
        .op = CATALOGUE_PRUNE, .experts = &one, .n_experts = 1, .now_ms = 1, .deadline_ms = 60001};

    (void)state;
    run_loading(5 * SECOND);
    assert_ok(ask_by(a, &prune), err);
    run_for(&w, SECOND);
    prepare(a);
    prepare(b);
    run_for(&w, SECOND);
    assert_int_equal(default_experts(b), LAYERS * EXPERTS - 1);
}

static void what_no_set_has_any_more_loses_its_owners_in_the_end(void **state)
{
    const catalogue_change rollback = {.op = CATALOGUE_ROLLBACK, .now_ms = 1, .deadline_ms = 60001};

    (void)state;
    do_german();
    remove_german(a);
    run_loading(10 * SECOND);
    assert_int_equal(default_experts(a), LAYERS * EXPERTS);
    assert_int_equal(placed_german(a), GERMAN); /* an undo takes no load */
    assert_ok(ask_by(a, &rollback), err);
    run_for(&w, 100 * MS);
    prepare(a);
    prepare(b);
    run_for(&w, 200 * MS);
    assert_done(true);
    remove_german(b);
    run_loading(700 * SECOND);
    assert_int_equal(placed_german(a), 0);
    load(n1, "n1");
    assert_int_equal(missing_of(a), 0);
}

/* The pack may have gone with the node: who is to load it would wait for it in vain. */
static void what_only_a_former_default_has_is_not_loaded_anew(void **state)
{
    size_t kept = 0;

    (void)state;
    do_german();
    remove_german(a);
    run_loading(10 * SECOND);
    assert_int_equal(placed_german(a), GERMAN);
    const cluster_state *s = cluster_state_acquire(a->c);
    const cluster_node *n = cluster_state_node(s, "n1");
    for (uint32_t slot = LAYERS * EXPERTS; slot < router_space_n_slots(s->space); slot++) {
        kept += router_bit(n->ready, slot);
    }
    cluster_state_release(s);
    assert_true(kept < GERMAN);
    kill_process(n2);
    run_loading(60 * SECOND);
    assert_int_equal(placed_german(a), kept);
    assert_int_equal(missing_of(a), 0);
}

static void what_requests_use_keeps_its_owners(void **state)
{
    const catalogue_change remove = {.op = CATALOGUE_REMOVE, .word = "german", .now_ms = 1, .deadline_ms = 60001};
    uint64_t used[WORDS] = {0};

    (void)state;
    do_german();
    assert_ok(ask_by(a, &remove), err);
    run_loading(SECOND);
    const cluster_state *s = cluster_state_acquire(b->c);
    router_bit_set(used, LAYERS * EXPERTS + 1);
    cluster_set_used(b->c, s->space, used); /* not the controller */
    cluster_state_release(s);
    prepare(a);
    prepare(b);
    run_loading(700 * SECOND);
    assert_int_equal(default_experts(a), LAYERS * EXPERTS);
    assert_int_equal(placed_german(a), 1);
    s = cluster_state_acquire(b->c);
    used[0] = used[1] = used[2] = used[3] = 0;
    cluster_set_used(b->c, s->space, used);
    cluster_state_release(s);
    run_loading(10 * SECOND);
    assert_int_equal(placed_german(a), 0);
}

static void what_requests_of_a_dead_coordinator_used_goes(void **state)
{
    uint64_t used[WORDS] = {0};

    (void)state;
    do_german();
    const cluster_state *s = cluster_state_acquire(b->c);
    router_bit_set(used, LAYERS * EXPERTS + 1);
    cluster_set_used(b->c, s->space, used);
    cluster_state_release(s);
    remove_german(a);
    run_loading(700 * SECOND);
    assert_int_equal(placed_german(a), 1);
    kill_process(b);
    run_loading(30 * SECOND);
    assert_int_equal(placed_german(a), 0);
}

/* ------------------------------------------------------------------------------------------------ undone */
static void a_coordinator_that_cannot_undoes_it_with_its_reason(void **state)
{
    (void)state;
    begin_german();
    prepare(a);
    cluster_set_prepared(b->c, pending_of(b), "no\nmemory");
    run_loading(2 * SECOND);
    assert_done(false);
    assert_string_equal(end_of(a), "coordinator b: no memory");
    run_loading(5 * SECOND);
    assert_ok(ask_for_german(a), err); /* its reason was for that change alone */
    run_loading(SECOND);
    prepare(a);
    prepare(b);
    run_loading(2 * SECOND);
    assert_done(true);
}

static void a_node_that_cannot_load_undoes_it_with_its_reason(void **state)
{
    (void)state;
    run_loading(5 * SECOND);
    assert_ok(ask_for_german(a), err);
    run_for(&w, 3 * SECOND);
    prepare(a);
    prepare(b);
    cluster_set_prepared(n2->c, pending_of(n2), "layer 0 expert 10: its file\nis spoilt");
    run_for(&w, 2 * SECOND);
    assert_done(false);
    assert_string_equal(end_of(b), "node n2: layer 0 expert 10: its file is spoilt");
    run_loading(5 * SECOND);
    assert_ok(ask_for_german(b), err); /* its reason was for that change alone */
    run_loading(3 * SECOND);
    prepare(a);
    prepare(b);
    run_loading(2 * SECOND);
    assert_done(true);
}

/* But what needs no place goes on, as it may be what makes room. */
static void what_fits_nowhere_is_undone_at_once(void **state)
{
    const catalogue_expert one = {.layer = 1, .id = 3};
    const catalogue_change prune = {
        .op = CATALOGUE_PRUNE, .experts = &one, .n_experts = 1, .now_ms = 1, .deadline_ms = 60001};

    (void)state;
    world_close(&w);
    world_open(&w, 7);
    w.memory_bytes = (uint64_t)15 << 20; /* a half of the checkpoint's experts */
    a = add(&w, CLUSTER_COORDINATOR, "a");
    b = add(&w, CLUSTER_COORDINATOR, "b");
    n1 = add(&w, CLUSTER_NODE, "n1");
    n2 = add(&w, CLUSTER_NODE, "n2");
    run_loading(5 * SECOND);
    assert_ok(ask_for_german(a), err);
    run_for(&w, SECOND);
    prepare(a);
    prepare(b);
    run_loading(10 * SECOND);
    assert_done(false);
    assert_non_null(strstr(end_of(b), "34 copies"));
    assert_ok(ask_by(a, &prune), err);
    run_loading(SECOND);
    prepare(a);
    prepare(b);
    run_loading(SECOND);
    assert_int_equal(default_experts(b), LAYERS * EXPERTS - 1);
}

static void the_time_ends_and_it_is_said_who_was_waited_for(void **state)
{
    (void)state;
    begin_german();
    prepare(a);
    run_loading(50 * SECOND);
    assert_int_equal(pending_of(a), 1);
    run_loading(15 * SECOND);
    assert_done(false);
    assert_string_equal(end_of(a), "coordinator b has not prepared");
}

static void an_expert_that_no_node_loads_undoes_it(void **state)
{
    (void)state;
    run_loading(5 * SECOND);
    assert_ok(ask_for_german(a), err);
    run_for(&w, 3 * SECOND);
    prepare(a);
    prepare(b);
    run_for(&w, 62 * SECOND);
    assert_done(false);
    assert_string_equal(end_of(a), "no node has layer 0 expert 10 ready");
}

/* ------------------------------------------------------------------------------------------------ members */
static void a_coordinator_that_joins_must_prepare_too(void **state)
{
    (void)state;
    begin_german();
    member *c = add(&w, CLUSTER_COORDINATOR, "c");
    run_loading(2 * SECOND);
    prepare(a);
    prepare(b);
    run_loading(5 * SECOND);
    assert_int_equal(pending_of(c), 1);
    prepare(c);
    run_loading(SECOND);
    assert_done(true);
    assert_int_equal(default_experts(c), LAYERS * EXPERTS + GERMAN);
}

static void a_coordinator_that_has_died_is_not_waited_for(void **state)
{
    (void)state;
    begin_german();
    member *dies = state_is(a, is_controller) ? b : a, *stays = dies == a ? b : a;
    kill_member(dies);
    prepare(stays);
    run_loading(25 * SECOND);
    assert_done(true);
}

static void the_next_controller_ends_what_the_last_one_began(void **state)
{
    (void)state;
    for (int fails = 0; fails < 2; fails++) {
        begin_german();
        member *dies = state_is(a, is_controller) ? a : b, *stays = dies == a ? b : a;
        kill_member(dies);
        if (fails == 0) {
            prepare(stays);
        }
        run_loading(90 * SECOND);
        assert_done(fails == 0);
        (void)teardown(NULL);
        (void)setup(NULL);
    }
}

static void a_node_that_dies_with_the_only_copies_holds_it_up(void **state)
{
    (void)state;
    begin_german();
    kill_process(n1);
    kill_process(n2);
    run_for(&w, 3 * SECOND);
    prepare(a);
    prepare(b);
    run_for(&w, 62 * SECOND);
    assert_int_equal(pending_of(a), 0);
    assert_int_equal(default_experts(a), LAYERS * EXPERTS);
    assert_contains(end_of(a), "no node has layer");
}

static void of_two_who_ask_at_once_one_is_heard(void **state)
{
    const catalogue_change define = {.op = CATALOGUE_DEFINE, .word = "plain", .now_ms = 1, .deadline_ms = 60001};

    (void)state;
    run_loading(5 * SECOND);
    assert_ok(ask_for_german(a), err);
    assert_ok(ask_by(b, &define), err);
    assert_int_equal(ask_for_german(a), MOE_ERR_BUSY);
    run_loading(3 * SECOND);
    assert_int_equal(pending_of(a), pending_of(b));
    assert_int_not_equal(ask_by(b, &define), MOE_OK); /* one at a time */
    prepare(a);
    prepare(b);
    run_loading(3 * SECOND);
    assert_int_equal(pending_of(a), 0);
}

/* ------------------------------------------------------------------------------------------------ the store */
static void a_store_that_was_wiped_is_filled_again(void **state)
{
    (void)state;
    do_german();
    cluster_memory_wipe(w.memory);
    run_loading(60 * SECOND);
    assert_non_null(stored(&w, "catalogue"));
    assert_done(true);
    member *c = add(&w, CLUSTER_COORDINATOR, "c");
    run_loading(2 * SECOND);
    assert_int_equal(default_experts(c), LAYERS * EXPERTS + GERMAN);
}

static void a_store_that_was_restored_takes_nothing_back(void **state)
{
    for (int phase = 0; phase < 2; phase++) {
        (void)state;
        run_loading(5 * SECOND);
        if (phase == 0) {
            cluster_memory_save(w.memory); /* there is none yet */
        }
        assert_ok(ask_for_german(a), err);
        run_loading(SECOND);
        if (phase == 1) {
            cluster_memory_save(w.memory); /* it is pending */
        }
        prepare(a);
        prepare(b);
        run_loading(3 * SECOND);
        assert_done(true);
        cluster_memory_restore(w.memory);
        for (int i = 0; i < 3000; i++) {
            run_for(&w, 20 * MS);
            assert_done(true); /* at every moment */
        }
        assert_contains(stored(&w, "catalogue"), "\"number\":1");
        (void)teardown(NULL);
        (void)setup(NULL);
    }
}

static void what_is_malformed_changes_nothing_and_is_written_anew(void **state)
{
    (void)state;
    do_german();
    cluster_memory_put(w.memory, PREFIX "catalogue", "{\"v\":1,\"number\":9}");
    run_for(&w, 2 * SECOND);
    assert_done(true);
    assert_contains(stored(&w, "catalogue"), "german");
}

static void a_stranger_without_the_secret_changes_nothing(void **state)
{
    char *copy;

    (void)state;
    world_close(&w);
    world_open(&w, 7);
    w.secret = "secret";
    a = add(&w, CLUSTER_COORDINATOR, "a");
    b = add(&w, CLUSTER_COORDINATOR, "b");
    n1 = add(&w, CLUSTER_NODE, "n1");
    n2 = add(&w, CLUSTER_NODE, "n2");
    do_german();
    copy = strdup(stored(&w, "catalogue"));
    *strstr(copy, "\"who\":\"ann\"") = ' ';
    cluster_memory_put(w.memory, PREFIX "catalogue", copy);
    free(copy);
    run_for(&w, 2 * SECOND);
    assert_done(true);
    assert_contains(stored(&w, "catalogue"), "\"who\":\"ann\"");
    assert_contains(stored(&w, "catalogue"), "\"mac\":\"");
}

static void a_member_without_the_store_keeps_what_it_knows(void **state)
{
    (void)state;
    do_german();
    cluster_memory_set_faults(w.memory, &(cluster_memory_faults){.down = true});
    run_for(&w, 40 * SECOND);
    assert_done(true);
    assert_int_equal(ask_for_german(a), MOE_ERR_EXISTS); /* the catalogue's own word: it is active */
    const catalogue_change remove = {.op = CATALOGUE_REMOVE, .word = "german", .now_ms = 1, .deadline_ms = 60001};
    assert_int_equal(ask_by(a, &remove), MOE_ERR_UNAVAILABLE);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_change_is_done_when_all_are_prepared_and_covered),
        cmocka_unit_test_setup_teardown(what_a_key_claims_commits_nothing, setup_links, teardown),
        TEST(it_waits_until_its_experts_are_there),
        TEST(it_waits_until_they_have_all_their_owners),
        TEST(an_owner_that_dies_is_not_waited_for),
        TEST(what_needs_no_experts_needs_the_coordinators_alone),
        TEST(what_no_set_has_any_more_loses_its_owners_in_the_end),
        TEST(what_only_a_former_default_has_is_not_loaded_anew),
        TEST(what_requests_use_keeps_its_owners),
        TEST(what_requests_of_a_dead_coordinator_used_goes),
        TEST(a_coordinator_that_cannot_undoes_it_with_its_reason),
        TEST(a_node_that_cannot_load_undoes_it_with_its_reason),
        TEST(what_fits_nowhere_is_undone_at_once),
        TEST(the_time_ends_and_it_is_said_who_was_waited_for),
        TEST(an_expert_that_no_node_loads_undoes_it),
        TEST(a_coordinator_that_joins_must_prepare_too),
        TEST(a_coordinator_that_has_died_is_not_waited_for),
        TEST(the_next_controller_ends_what_the_last_one_began),
        TEST(a_node_that_dies_with_the_only_copies_holds_it_up),
        TEST(of_two_who_ask_at_once_one_is_heard),
        TEST(a_store_that_was_wiped_is_filled_again),
        TEST(a_store_that_was_restored_takes_nothing_back),
        TEST(what_is_malformed_changes_nothing_and_is_written_anew),
        TEST(a_stranger_without_the_secret_changes_nothing),
        TEST(a_member_without_the_store_keeps_what_it_knows),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
