/* Members on a store in memory and a virtual clock, with every fault the store can have. */
#include "tests/unit/test_cluster_support.h"

/* ------------------------------------------------------------------------------------------------ registration */
static void a_node_and_a_coordinator_find_each_other(void **state)
{
    world w;

    (void)state;
    world_open(&w, 1);
    member *node = add(&w, CLUSTER_NODE, "a"), *coordinator = add(&w, CLUSTER_COORDINATOR, "c");
    run_for(&w, SECOND);
    assert_status(node, MOE_OK);
    assert_status(coordinator, MOE_OK);
    const cluster_state *s = cluster_state_acquire(coordinator->c);
    assert_int_equal(s->n_nodes, 1);
    assert_string_equal(s->nodes[0].id, "a");
    assert_string_equal(s->nodes[0].address, "127.0.0.1:1");
    assert_int_equal(s->nodes[0].incarnation, node->incarnation);
    assert_true(s->nodes[0].registered && s->connected && s->registered && s->is_controller);
    assert_string_equal(s->controller, "c");
    cluster_state_release(s);
    world_close(&w);
}

static void another_numeric_class_is_denied_by_name(void **state)
{
    world w;
    moe_error err;

    (void)state;
    world_open(&w, 1);
    member *first = add(&w, CLUSTER_NODE, "a");
    run_for(&w, SECOND);
    member *other = add_class(&w, CLUSTER_NODE, "b", "bf16-1");
    run_for(&w, SECOND);
    assert_status(first, MOE_OK);
    assert_int_equal(cluster_status(other->c, &err), MOE_ERR_DENIED);
    assert_contains(err.text, "numeric_class is f32-1, ours is bf16-1");
    assert_null(stored(&w, "nodes/b"));
    world_close(&w);
}

static void an_id_in_use_is_refused_while_its_holder_answers(void **state)
{
    world w;

    (void)state;
    world_open(&w, 1);
    member *first = add(&w, CLUSTER_NODE, "a");
    run_for(&w, SECOND);
    member *second = add(&w, CLUSTER_NODE, "a");
    run_for(&w, 5 * SECOND);
    assert_status(first, MOE_OK);
    assert_status(second, MOE_ERR_EXISTS);
    assert_true(w.n_asked >= 4 && w.n_asked <= 6); /* once a second */
    world_close(&w);
}

/* Both find the id free. The slower does not hear of the other's key before it writes its own, whenever its watch falls
 * silent. */
static void of_two_that_start_at_once_under_one_id_the_faster_has_it(void **state)
{
    (void)state;
    for (uint64_t n_turns = 0; n_turns < 6; n_turns++) {
        world w;
        moe_error why;

        world_open(&w, 1);
        (void)add(&w, CLUSTER_COORDINATOR, "c");
        run_for(&w, SECOND);
        member *first = add(&w, CLUSTER_NODE, "a"), *second = add(&w, CLUSTER_NODE, "a");
        run_for(&w, n_turns * 20 * MS);
        cluster_memory_mute_watches(w.memory);
        run_for(&w, 3 * SECOND);
        assert_status(first, MOE_OK);
        assert_status(second, MOE_ERR_EXISTS);
        cluster_refresh(first->c);
        run_for(&w, 3 * SECOND);
        assert_status(first, MOE_OK);
        assert_false(cluster_is_displaced(first->c, &why));
        world_close(&w);
    }
}

static void an_id_whose_holder_is_dead_is_taken_over_before_its_lease_ends(void **state)
{
    world w;

    (void)state;
    world_open(&w, 1);
    member *first = add(&w, CLUSTER_NODE, "a");
    run_for(&w, SECOND);
    kill_member(first);
    member *second = add(&w, CLUSTER_NODE, "a"), *coordinator = add(&w, CLUSTER_COORDINATOR, "c");
    run_for(&w, 2 * SECOND);
    assert_status(second, MOE_OK);
    const cluster_state *s = cluster_state_acquire(coordinator->c);
    assert_int_equal(s->n_nodes, 1);
    assert_int_equal(s->nodes[0].incarnation, second->incarnation);
    cluster_state_release(s);
    run_for(&w, 20 * SECOND); /* the dead one's lease ends meanwhile */
    assert_status(second, MOE_OK);
    world_close(&w);
}

/* Stands still, so that another is started in its place, and wakes. */
static member *displace(world *w, cluster_role role, uint64_t ns_after)
{
    moe_error why;
    member *first = add(w, role, "a");

    run_for(w, SECOND);
    assert_status(first, MOE_OK);
    cluster *paused = first->c;
    first->c = NULL;
    first->answers = false;
    member *second = add(w, role, "a");
    run_for(w, 2 * SECOND);
    assert_status(second, MOE_OK);
    first->c = paused;
    run_for(w, ns_after);
    assert_status(second, MOE_OK);
    assert_status(first, MOE_ERR_EXISTS);
    assert_false(cluster_is_displaced(second->c, &why));
    return first;
}

static void a_node_whose_id_was_taken_over_is_displaced(void **state)
{
    world w;
    moe_error why;

    (void)state;
    world_open(&w, 1);
    member *first = displace(&w, CLUSTER_NODE, 2 * SECOND);
    assert_true(cluster_is_displaced(first->c, &why));
    assert_contains(why.text, "id a is held by incarnation 0000000000000066 at 127.0.0.1:1, which answers");
    world_close(&w);
}

/* Who listens at its port does not say a name: it may be a stranger who was given the port. */
static void a_coordinator_is_displaced_when_the_other_has_outlived_a_lease(void **state)
{
    world w;
    moe_error why;

    (void)state;
    world_open(&w, 1);
    member *first = displace(&w, CLUSTER_COORDINATOR, 10 * SECOND);
    assert_false(cluster_is_displaced(first->c, &why));
    run_for(&w, 10 * SECOND);
    assert_true(cluster_is_displaced(first->c, &why));
    world_close(&w);
}

static void who_was_never_registered_is_not_displaced(void **state)
{
    world w;
    moe_error why;

    (void)state;
    world_open(&w, 1);
    (void)add(&w, CLUSTER_NODE, "a");
    run_for(&w, SECOND);
    member *second = add(&w, CLUSTER_NODE, "a");
    run_for(&w, 60 * SECOND);
    assert_status(second, MOE_ERR_EXISTS);
    assert_false(cluster_is_displaced(second->c, &why));
    world_close(&w);
}

static void without_anybody_to_ask_the_lease_decides(void **state)
{
    world w;

    (void)state;
    world_open(&w, 1);
    w.has_nobody_to_ask = true;
    member *first = add(&w, CLUSTER_NODE, "a");
    run_for(&w, SECOND);
    kill_member(first);
    member *second = add(&w, CLUSTER_NODE, "a");
    run_for(&w, 5 * SECOND);
    assert_status(second, MOE_ERR_UNAVAILABLE);
    run_for(&w, 15 * SECOND);
    assert_status(second, MOE_OK);
    world_close(&w);
}

static void leaving_takes_the_keys_away_at_once(void **state)
{
    world w;

    (void)state;
    world_open(&w, 1);
    member *node = add(&w, CLUSTER_NODE, "a");
    run_for(&w, SECOND);
    assert_non_null(stored(&w, "nodes/a"));
    cluster_leave(node->c);
    run_for(&w, SECOND);
    assert_true(cluster_has_left(node->c));
    assert_null(stored(&w, "nodes/a"));
    assert_null(stored(&w, "ready/a"));
    world_close(&w);
}

static void keys_stay_while_the_member_lives(void **state)
{
    world w;

    (void)state;
    world_open(&w, 1);
    member *node = add(&w, CLUSTER_NODE, "a");
    for (int i = 0; i < 120; i++) {
        run_for(&w, SECOND);
        assert_non_null(stored(&w, "nodes/a"));
    }
    assert_status(node, MOE_OK);
    world_close(&w);
}

/* ------------------------------------------------------------------------------------------------ election */
static void one_of_two_candidates_is_elected_and_the_other_follows(void **state)
{
    world w;

    (void)state;
    world_open(&w, 1);
    member *c1 = add(&w, CLUSTER_COORDINATOR, "c1"), *c2 = add(&w, CLUSTER_COORDINATOR, "c2");
    (void)add(&w, CLUSTER_NODE, "a");
    run_for(&w, 3 * SECOND);
    assert_int_equal(state_is(c1, is_controller) + state_is(c2, is_controller), 1);
    member *first = state_is(c1, is_controller) ? c1 : c2, *second = first == c1 ? c2 : c1;
    kill_member(first);
    run_for(&w, 20 * SECOND);
    assert_true(state_is(second, is_controller));
    (void)add(&w, CLUSTER_NODE, "b");
    run_for(&w, 3 * SECOND);
    assert_int_equal(epoch_of(second), 2);
    world_close(&w);
}

/* The office has a lease of its own: it is taken while all else that the dead one wrote still stands. */
static void the_office_of_a_dead_controller_is_taken_before_its_keys_are_gone(void **state)
{
    world w;

    (void)state;
    world_open(&w, 1);
    member *c1 = add(&w, CLUSTER_COORDINATOR, "c1");
    run_for(&w, 2 * SECOND);
    member *c2 = add(&w, CLUSTER_COORDINATOR, "c2"), *a = add(&w, CLUSTER_NODE, "a");
    run_for(&w, 20 * SECOND);
    assert_true(state_is(c1, is_controller));
    kill_member(c1);
    for (int i = 0; i < 1000 && !state_is(c2, is_controller); i++) {
        assert_non_null(stored(&w, "coordinators/c1"));
        run_for(&w, 20 * MS);
    }
    assert_non_null(stored(&w, "coordinators/c1"));
    kill_process(a);
    run_for(&w, 20 * SECOND);
    assert_true(state_is(c2, is_controller)); /* it keeps it */
    world_close(&w);
}

/* It slept for longer than that, and not for so long that it is no member any more. */
static void a_controller_that_slept_a_while_is_another_ones_follower(void **state)
{
    world w;

    (void)state;
    world_open(&w, 1);
    member *c1 = add(&w, CLUSTER_COORDINATOR, "c1");
    run_for(&w, 2 * SECOND);
    member *c2 = add(&w, CLUSTER_COORDINATOR, "c2");
    run_for(&w, 3 * SECOND);
    cluster *sleeper = c1->c;
    c1->c = NULL;
    run_for(&w, 8 * SECOND);
    assert_true(state_is(c2, is_controller));
    c1->c = sleeper;
    run_for(&w, 10 * SECOND);
    assert_true(state_is(c2, is_controller));
    assert_false(state_is(c1, is_controller));
    assert_status(c1, MOE_OK);
    world_close(&w);
}

/* A publication of which only a part was written: the next controller makes it whole under a new epoch. */
static void a_torn_publication_is_repaired(void **state)
{
    world w;

    (void)state;
    world_open(&w, 1);
    member *c = add(&w, CLUSTER_COORDINATOR, "c"), *node = add(&w, CLUSTER_NODE, "a");
    run_for(&w, 3 * SECOND);
    cluster_memory_put(w.memory, PREFIX "placement/1", "{\"v\":1,\"epoch\":9,\"owners\":[]}");
    (void)cluster_step(node->c);
    assert_int_equal(epoch_of(node), 1); /* the last whole one stays in force */
    assert_int_equal(wanted_of(node, "a"), LAYERS * EXPERTS);
    run_for(&w, 3 * SECOND);
    assert_int_equal(epoch_of(c), 10);
    assert_int_equal(wanted_of(node, "a"), LAYERS * EXPERTS);
    world_close(&w);
}

/* `placement` names an epoch that no layer has, or only some: written by a controller that does not know the order. */
static void a_placement_is_taken_only_whole(void **state)
{
    world w;

    (void)state;
    world_open(&w, 1);
    member *c = add(&w, CLUSTER_COORDINATOR, "c"), *node = add(&w, CLUSTER_NODE, "a");
    run_for(&w, 3 * SECOND);
    for (int i = 0; i < 2; i++) {
        uint64_t before = epoch_of(node);
        cluster_memory_put(w.memory, PREFIX "placement",
                           "{\"v\":1,\"epoch\":90,\"replication\":1,\"n_layers\":3,\"nodes\":[\"nobody\"]}");
        if (i == 1) {
            cluster_memory_put(w.memory, PREFIX "placement/0",
                               "{\"v\":1,\"epoch\":90,\"owners\":[{\"experts\":\"0-9\",\"nodes\":[0]}]}");
        }
        (void)cluster_step(node->c);
        assert_int_equal(epoch_of(node), before);
        assert_int_equal(wanted_of(node, "a"), LAYERS * EXPERTS);
        run_for(&w, 3 * SECOND);
        assert_int_equal(epoch_of(c), 91 + i);
        assert_int_equal(wanted_of(node, "a"), LAYERS * EXPERTS);
    }
    world_close(&w);
}

/* ------------------------------------------------------------------------------------------------ trouble */
typedef struct trio {
    world w;
    member *c, *a, *b;
} trio;

static void trio_open(trio *t, uint64_t seed)
{
    world_open(&t->w, seed);
    t->c = add(&t->w, CLUSTER_COORDINATOR, "c");
    t->a = add(&t->w, CLUSTER_NODE, "a");
    t->b = add(&t->w, CLUSTER_NODE, "b");
    run_for(&t->w, 5 * SECOND);
    load_wanted(t->a, "a");
    load_wanted(t->b, "b");
    run_for(&t->w, SECOND);
    assert_int_equal(missing_of(t->c), 0);
}

static void trio_is_whole(trio *t, uint64_t epoch)
{
    assert_status(t->a, MOE_OK);
    assert_status(t->b, MOE_OK);
    assert_status(t->c, MOE_OK);
    assert_int_equal(missing_of(t->c), 0);
    assert_int_equal(epoch_of(t->c), epoch);
    assert_int_equal(epoch_of(t->a), epoch);
    assert_true(state_is(t->c, is_controller));
    const cluster_state *s = cluster_state_acquire(t->b->c);
    assert_int_equal(s->n_nodes, 2);
    assert_true(s->nodes[0].registered && s->nodes[1].registered && s->connected && s->registered);
    cluster_state_release(s);
    world_close(&t->w);
}

static void a_lost_lease_is_taken_anew(void **state)
{
    trio t;
    cluster_stats stats;

    (void)state;
    trio_open(&t, 1);
    cluster_memory_expire_leases(t.w.memory);
    assert_null(stored(&t.w, "nodes/a"));
    run_for(&t.w, 2 * SECOND);
    assert_non_null(stored(&t.w, "nodes/a"));
    cluster_get_stats(t.a->c, &stats);
    assert_int_equal(stats.lease_losses, 1);
    trio_is_whole(&t, 1);
}

static void assert_applied(member *m, uint64_t epoch)
{
    const cluster_state *s = cluster_state_acquire(m->c);

    assert_int_equal(s->coordinators[0].epoch_applied, epoch);
    cluster_state_release(s);
}

/* What changes while the write of what was before is under way is written as well. */
static void what_is_told_while_a_write_is_under_way_is_not_lost(void **state)
{
    trio t;

    (void)state;
    trio_open(&t, 1);
    cluster_set_applied(t.c->c, 1);
    (void)cluster_step(t.c->c); /* writes; the answer comes with the next step */
    cluster_set_applied(t.c->c, 2);
    run_for(&t.w, SECOND);
    assert_applied(t.a, 2);
    world_close(&t.w);
}

static void a_lost_watch_is_read_up(void **state)
{
    trio t;

    (void)state;
    trio_open(&t, 1);
    cluster_memory_lose_watches(t.w.memory);
    cluster_set_applied(t.c->c, 1);
    run_for(&t.w, SECOND);
    assert_applied(t.a, 1);
    trio_is_whole(&t, 1);
}

static void a_watch_that_falls_silent_is_noticed_within_thirty_seconds(void **state)
{
    trio t;

    (void)state;
    trio_open(&t, 1);
    cluster_memory_mute_watches(t.w.memory);
    cluster_set_applied(t.c->c, 1);
    run_for(&t.w, 31 * SECOND);
    assert_applied(t.a, 1);
    trio_is_whole(&t, 1);
}

static void who_knows_better_has_everything_read_again(void **state)
{
    trio t;

    (void)state;
    trio_open(&t, 1);
    run_for(&t.w, 2 * SECOND);
    cluster_memory_mute_watches(t.w.memory);
    cluster_set_applied(t.c->c, 1);
    run_for(&t.w, SECOND);
    cluster_refresh(t.a->c);
    run_for(&t.w, SECOND);
    assert_applied(t.a, 1);
    trio_is_whole(&t, 1);
}

static void compaction_is_survived(void **state)
{
    trio t;

    (void)state;
    trio_open(&t, 1);
    cluster_set_applied(t.c->c, 1);
    (void)cluster_step(t.c->c);
    cluster_memory_compact(t.w.memory);
    run_for(&t.w, 2 * SECOND);
    trio_is_whole(&t, 1);
}

static void while_the_store_is_down_the_last_state_stays(void **state)
{
    trio t;

    (void)state;
    trio_open(&t, 1);
    cluster_memory_set_faults(t.w.memory, &(cluster_memory_faults){.down = true});
    run_for(&t.w, 600 * SECOND);
    assert_false(state_is(t.c, is_connected));
    assert_status(t.a, MOE_ERR_UNAVAILABLE);
    assert_int_equal(missing_of(t.c), 0);
    assert_int_equal(epoch_of(t.c), 1);
    cluster_memory_set_faults(t.w.memory, &(cluster_memory_faults){.down = false});
    run_for(&t.w, 10 * SECOND);
    trio_is_whole(&t, 1);
}

/* A key that vanished just before says nothing of its node, and the store nothing any more. */
static void while_the_store_is_down_nobody_is_given_up(void **state)
{
    trio t;

    (void)state;
    trio_open(&t, 1);
    kill_member(t.a);
    while (stored(&t.w, "nodes/a") != NULL) {
        run_for(&t.w, 20 * MS);
    }
    run_for(&t.w, 20 * MS);
    cluster_memory_set_faults(t.w.memory, &(cluster_memory_faults){.down = true});
    run_for(&t.w, 60 * SECOND);
    const cluster_state *s = cluster_state_acquire(t.c->c);
    const cluster_node *a = cluster_state_node(s, "a");
    assert_true(a != NULL && !a->registered);
    cluster_state_release(s);
    world_close(&t.w);
}

static void after_a_wipe_the_store_is_filled_again(void **state)
{
    trio t;

    (void)state;
    trio_open(&t, 1);
    cluster_memory_wipe(t.w.memory);
    run_for(&t.w, 10 * SECOND);
    assert_non_null(stored(&t.w, "model"));
    assert_non_null(stored(&t.w, "placement"));
    assert_non_null(stored(&t.w, "placement/2"));
    trio_is_whole(&t, 2);
}

/* A new coordinator on a wiped store knows no epoch, but the nodes' reports tell. */
static void epochs_do_not_fall_when_the_coordinator_is_new_too(void **state)
{
    trio t;

    (void)state;
    trio_open(&t, 1);
    kill_member(t.c);
    cluster_memory_wipe(t.w.memory);
    t.c = add(&t.w, CLUSTER_COORDINATOR, "d");
    run_for(&t.w, 10 * SECOND);
    assert_true(epoch_of(t.c) > 1);
    world_close(&t.w);
}

/* Steps everybody; nobody's epoch may fall. */
static void run_forwards(world *w, uint64_t ns)
{
    for (uint64_t t = 0; t < ns; t += 20 * MS) {
        uint64_t before[MAX];

        for (size_t i = 0; i < w->n; i++) {
            before[i] = epoch_of(&w->members[i]);
        }
        run_for(w, 20 * MS);
        for (size_t i = 0; i < w->n; i++) {
            assert_true(epoch_of(&w->members[i]) >= before[i]);
        }
    }
}

/* The snapshot is older than a placement and than what was loaded for it. */
static void an_older_store_takes_no_epoch_back(void **state)
{
    trio t;

    (void)state;
    trio_open(&t, 1);
    cluster_memory_save(t.w.memory);
    member *d = add(&t.w, CLUSTER_NODE, "d");
    run_for(&t.w, 5 * SECOND);
    assert_int_equal(epoch_of(t.c), 2);
    load_wanted(t.a, "a");
    load_wanted(t.b, "b");
    load_wanted(d, "d");
    run_for(&t.w, SECOND);
    cluster_memory_restore(t.w.memory);
    run_forwards(&t.w, 10 * SECOND);
    assert_int_equal(epoch_of(t.c), 3);
    assert_int_equal(wanted_of(t.c, "d"), LAYERS * EXPERTS / 3);
    assert_int_equal(missing_of(t.c), 0); /* the reports are written anew, too */
    world_close(&t.w);
}

/* As before; and the coordinator that knew the newer placement is gone: the nodes tell. */
static void a_new_controller_on_an_older_store_publishes_above_all_that_was_seen(void **state)
{
    trio t;

    (void)state;
    trio_open(&t, 1);
    cluster_memory_save(t.w.memory);
    cluster_memory_put(t.w.memory, PREFIX "placement/1", "{\"v\":1,\"epoch\":9,\"owners\":[]}");
    run_for(&t.w, 5 * SECOND);
    assert_int_equal(epoch_of(t.c), 10);
    load_wanted(t.a, "a");
    load_wanted(t.b, "b");
    run_for(&t.w, SECOND);
    kill_member(t.c);
    cluster_memory_restore(t.w.memory);
    t.c = add(&t.w, CLUSTER_COORDINATOR, "d");
    for (int i = 0; i < 30; i++) {
        uint64_t before = epoch_of(t.a);
        run_for(&t.w, SECOND);
        assert_true(epoch_of(t.a) >= before);
    }
    assert_true(state_is(t.c, is_controller));
    assert_int_equal(epoch_of(t.c), 11);
    assert_int_equal(epoch_of(t.a), 11);
    world_close(&t.w);
}

/* A member of etcd that lags answers one list. */
static void an_older_list_is_not_believed_at_once(void **state)
{
    trio t;

    (void)state;
    trio_open(&t, 1);
    cluster_memory_save(t.w.memory);
    (void)add(&t.w, CLUSTER_NODE, "d");
    run_for(&t.w, 5 * SECOND);
    cluster_memory_lag(t.w.memory);
    cluster_memory_lose_watches(t.w.memory);
    for (int i = 0; i < 100; i++) {
        run_for(&t.w, 20 * MS);
        const cluster_state *s = cluster_state_acquire(t.a->c);
        const cluster_node *d = cluster_state_node(s, "d");
        assert_true(d != NULL && d->registered);
        cluster_state_release(s);
    }
    world_close(&t.w);
}

/* ------------------------------------------------------------------------------------------------ at random */
static void disturb(world *w, moe_random *r)
{
    static const char *const ids[] = {"a", "b"};
    const cluster_memory_faults none = {0};

    switch (moe_random_below(r, 9)) {
    case 0:
        cluster_memory_expire_leases(w->memory);
        break;
    case 1:
        cluster_memory_lose_watches(w->memory);
        break;
    case 2:
        cluster_memory_mute_watches(w->memory);
        break;
    case 3:
        cluster_memory_compact(w->memory);
        break;
    case 4:
        cluster_memory_wipe(w->memory);
        break;
    case 5:
        cluster_memory_set_faults(w->memory, &(cluster_memory_faults){.down = true});
        run_for(w, moe_random_below(r, 40) * SECOND);
        cluster_memory_set_faults(w->memory, &none);
        break;
    case 6:
        cluster_memory_set_faults(w->memory, &(cluster_memory_faults){.fail_percent = 40, .lose_percent = 5});
        run_for(w, moe_random_below(r, 20) * SECOND);
        cluster_memory_set_faults(w->memory, &none);
        break;
    case 7:
        cluster_memory_set_faults(w->memory, &(cluster_memory_faults){.fail_percent = 10, .max_delay_ns = SECOND});
        run_for(w, moe_random_below(r, 20) * SECOND);
        cluster_memory_set_faults(w->memory, &none);
        break;
    default:
        for (size_t i = 0; i < 2; i++) {
            load_wanted(&w->members[2 + i], ids[i]);
        }
        break;
    }
}

static void assert_at_most_one_controller_in_the_store(world *w)
{
    size_t n = 0;

    for (size_t i = 0; i < w->n; i++) {
        n += state_is(&w->members[i], is_controller);
    }
    assert_int_equal(n, 1);
}

/* Whatever has happened: when it is over, everybody is registered, sees everybody, and one epoch is in force that never
 * fell. */
static void after_any_trouble_the_cluster_is_whole_again(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 25; seed++) {
        world w;
        moe_random r;
        uint64_t highest = 0;

        print_message("seed %llu\n", (unsigned long long)seed);
        world_open(&w, seed);
        w.replication = 1 + (uint32_t)(seed % 2);
        moe_random_seed(&r, seed * 77);
        member *c1 = add(&w, CLUSTER_COORDINATOR, "c1"), *c2 = add(&w, CLUSTER_COORDINATOR, "c2");
        member *a = add(&w, CLUSTER_NODE, "a"), *b = add(&w, CLUSTER_NODE, "b");
        for (int i = 0; i < 12; i++) {
            run_for(&w, moe_random_below(&r, 8000) * MS);
            disturb(&w, &r);
        }
        run_for(&w, 60 * SECOND);
        load_wanted(a, "a");
        load_wanted(b, "b");
        run_for(&w, 2 * SECOND);
        highest = epoch_of(c1);
        assert_true(highest > 0);
        for (size_t i = 0; i < w.n; i++) {
            assert_status(&w.members[i], MOE_OK);
            assert_int_equal(epoch_of(&w.members[i]), highest);
            assert_int_equal(missing_of(&w.members[i]), 0);
        }
        assert_at_most_one_controller_in_the_store(&w);
        assert_int_equal(wanted_of(c2, "a") + wanted_of(c2, "b"), LAYERS * EXPERTS * w.replication);
        world_close(&w);
    }
}

static void bad_options_are_refused(void **state)
{
    world w;
    cluster *c = NULL;
    cluster_store *store = NULL;
    moe_error err;

    (void)state;
    world_open(&w, 1);
    assert_int_equal(cluster_memory_client(w.memory, &store), MOE_OK);
    cluster_options o = {
        .cluster = "test", .id = "a/b", .address = "x:1", .incarnation = 1, .model = model_of("f32-1"), .store = store};
    assert_int_equal(cluster_open(&o, &c, &err), MOE_ERR_INVALID_ARG);
    assert_contains(err.text, "a/b");
    o.id = "a";
    o.address = "";
    assert_int_equal(cluster_open(&o, &c, &err), MOE_ERR_INVALID_ARG);
    assert_contains(err.text, "address");
    o.address = "x:1";
    o.model.space = test_space(CLUSTER_MAX_LAYERS + 1, 1);
    assert_int_equal(cluster_open(&o, &c, &err), MOE_ERR_INVALID_ARG);
    cluster_store_close(store);
    world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_node_and_a_coordinator_find_each_other),
        cmocka_unit_test(another_numeric_class_is_denied_by_name),
        cmocka_unit_test(an_id_in_use_is_refused_while_its_holder_answers),
        cmocka_unit_test(of_two_that_start_at_once_under_one_id_the_faster_has_it),
        cmocka_unit_test(an_id_whose_holder_is_dead_is_taken_over_before_its_lease_ends),
        cmocka_unit_test(a_node_whose_id_was_taken_over_is_displaced),
        cmocka_unit_test(a_coordinator_is_displaced_when_the_other_has_outlived_a_lease),
        cmocka_unit_test(who_was_never_registered_is_not_displaced),
        cmocka_unit_test(without_anybody_to_ask_the_lease_decides),
        cmocka_unit_test(leaving_takes_the_keys_away_at_once),
        cmocka_unit_test(keys_stay_while_the_member_lives),
        cmocka_unit_test(one_of_two_candidates_is_elected_and_the_other_follows),
        cmocka_unit_test(the_office_of_a_dead_controller_is_taken_before_its_keys_are_gone),
        cmocka_unit_test(a_controller_that_slept_a_while_is_another_ones_follower),
        cmocka_unit_test(a_torn_publication_is_repaired),
        cmocka_unit_test(a_placement_is_taken_only_whole),
        cmocka_unit_test(a_lost_lease_is_taken_anew),
        cmocka_unit_test(what_is_told_while_a_write_is_under_way_is_not_lost),
        cmocka_unit_test(a_lost_watch_is_read_up),
        cmocka_unit_test(a_watch_that_falls_silent_is_noticed_within_thirty_seconds),
        cmocka_unit_test(who_knows_better_has_everything_read_again),
        cmocka_unit_test(compaction_is_survived),
        cmocka_unit_test(while_the_store_is_down_the_last_state_stays),
        cmocka_unit_test(while_the_store_is_down_nobody_is_given_up),
        cmocka_unit_test(after_a_wipe_the_store_is_filled_again),
        cmocka_unit_test(epochs_do_not_fall_when_the_coordinator_is_new_too),
        cmocka_unit_test(an_older_store_takes_no_epoch_back),
        cmocka_unit_test(a_new_controller_on_an_older_store_publishes_above_all_that_was_seen),
        cmocka_unit_test(an_older_list_is_not_believed_at_once),
        cmocka_unit_test(after_any_trouble_the_cluster_is_whole_again),
        cmocka_unit_test(bad_options_are_refused),
    };

    moe_log_set_level(MOE_LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
