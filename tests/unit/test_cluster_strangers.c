/* What somebody who is no member, but may write into the store, can do to a cluster: nothing that lasts. */
#include "tests/unit/test_cluster_support.h"

#define ABSURD "9007199254740991" /* 2^53 - 1 */
#define RECORD "{\"v\":1,\"incarnation\":\"00000000000000ff\",\"address\":\"127.0.0.1:9\",\"expert_bytes\":4096"
#define NODE   RECORD "}"
#define HELD   "{\"v\":1,\"incarnation\":\"00000000000000ff\",\"address\":\"127.0.0.1:9\",\"epoch_applied\":0}"

/* ------------------------------------------------------------------------------------------------ a stranger */
typedef struct stranger {
    cluster_store *store;
    uint64_t lease; /* of an hour; 0: none yet */
    bool answered;
} stranger;

static void on_reply(void *ctx, const cluster_reply *reply)
{
    stranger *s = ctx;

    assert_int_equal(reply->status, MOE_OK);
    s->lease = reply->lease != 0 ? reply->lease : s->lease;
    s->answered = true;
}

static void await(stranger *s)
{
    while (!s->answered) {
        s->store->ops->poll(s->store, 0);
    }
    s->answered = false;
}

static void stranger_open(stranger *s, world *w)
{
    *s = (stranger){0};
    assert_int_equal(cluster_memory_client(w->memory, &s->store), MOE_OK);
    s->store->ops->grant(s->store, 3600, on_reply, s);
    await(s);
}

static void write_under(stranger *s, const char *key, const char *value, uint64_t lease)
{
    char full[700];
    const cluster_put put = {.key = full, .value = value, .value_bytes = strlen(value), .lease = lease};
    const cluster_txn txn = {.puts = &put, .n_puts = 1};

    (void)snprintf(full, sizeof full, PREFIX "%s", key);
    s->store->ops->txn(s->store, &txn, on_reply, s);
    await(s);
}

static void write_leased(stranger *s, const char *key, const char *value)
{
    write_under(s, key, value, s->lease);
}

static void write_lasting(stranger *s, const char *key, const char *value)
{
    write_under(s, key, value, 0);
}

static void vanish(stranger *s)
{
    s->store->ops->revoke(s->store, s->lease, on_reply, s);
    await(s);
}

/* ------------------------------------------------------------------------------------------------ the cluster */
typedef struct trio {
    world w;
    member *c, *a, *b;
    stranger s;
} trio;

static int setup_with(void **state, const char *secret)
{
    trio *t = calloc(1, sizeof *t);

    assert_non_null(t);
    world_open(&t->w, 1);
    t->w.secret = secret;
    t->c = add(&t->w, CLUSTER_COORDINATOR, "c");
    t->a = add(&t->w, CLUSTER_NODE, "a");
    t->b = add(&t->w, CLUSTER_NODE, "b");
    run_for(&t->w, 5 * SECOND);
    load_wanted(t->a, "a");
    load_wanted(t->b, "b");
    cluster_set_applied(t->c->c, 1);
    run_for(&t->w, SECOND);
    stranger_open(&t->s, &t->w);
    *state = t;
    return 0;
}

static int setup(void **state)
{
    return setup_with(state, NULL);
}

static int setup_signed(void **state)
{
    return setup_with(state, "the secret of a cluster");
}

static int teardown(void **state)
{
    trio *t = *state;

    cluster_store_close(t->s.store);
    world_close(&t->w);
    free(t);
    return 0;
}

static uint64_t ignored_by(member *m)
{
    cluster_stats stats;

    cluster_get_stats(m->c, &stats);
    return stats.ignored;
}

static void assert_all_registered(trio *t)
{
    assert_status(t->a, MOE_OK);
    assert_status(t->b, MOE_OK);
    assert_status(t->c, MOE_OK);
    assert_int_equal(missing_of(t->c), 0);
}

/* Under a lease that still runs. Before the node has written its own again: */
static void what_a_former_incarnation_had_loaded_counts_no_more(void **state)
{
    trio *t = *state;

    write_leased(&t->s, "ready/a",
                 "{\"v\":1,\"incarnation\":\"00000000deadbeef\",\"epoch\":1,\"experts\":[\"0-9\",\"0-9\",\"0-9\"]}");
    (void)cluster_step(t->c->c);
    const cluster_state *s = cluster_state_acquire(t->c->c);
    assert_int_equal(cluster_state_node(s, "a")->n_ready, 0);
    assert_int_equal(cluster_state_missing(s, NULL), LAYERS * EXPERTS / 2);
    cluster_state_release(s);
    run_for(&t->w, SECOND);
    assert_int_equal(missing_of(t->c), 0);
}

/* Under its own lease and incarnation, so that all believe it until the node has written its own again. */
static void a_report_that_somebody_else_wrote_is_written_anew(void **state)
{
    trio *t = *state;
    char *own = strdup(stored(&t->w, "ready/a"));

    assert_true(cluster_memory_forge(t->w.memory, PREFIX "ready/a",
                                     "{\"v\":1,\"incarnation\":\"0000000000000065\",\"epoch\":1,"
                                     "\"experts\":[\"0-9\",\"0-9\",\"0-9\"]}"));
    assert_string_not_equal(stored(&t->w, "ready/a"), own);
    run_for(&t->w, SECOND);
    assert_string_equal(stored(&t->w, "ready/a"), own);
    free(own);
}

/* That placements are still made: a third node comes, and is given its share. */
static void assert_that_it_places(trio *t)
{
    uint64_t before = epoch_of(t->c);

    (void)add(&t->w, CLUSTER_NODE, "new");
    run_for(&t->w, 5 * SECOND);
    assert_true(epoch_of(t->c) > before);
    assert_int_equal(epoch_of(t->a), epoch_of(t->c));
    assert_true(wanted_of(t->a, "new") > 0);
}

/* ------------------------------------------------------------------------------------------------ epochs */
static void an_absurd_epoch_is_not_believed(void **state)
{
    static const struct {
        const char *key, *value;
    } keys[] = {
        {"coordinators/z",
         "{\"v\":1,\"incarnation\":\"00000000000000ff\",\"address\":\"x:9\",\"epoch_applied\":" ABSURD "}"},
        {"ready/a", "{\"v\":1,\"incarnation\":\"0000000000000066\",\"epoch\":" ABSURD ",\"experts\":[\"\",\"\",\"\"]}"},
        {"placement/1", "{\"v\":1,\"epoch\":" ABSURD ",\"owners\":[]}"},
        {"placement", "{\"v\":1,\"epoch\":" ABSURD ",\"replication\":1,\"n_layers\":3,\"nodes\":[\"a\",\"b\"]}"},
    };
    trio *t = *state;

    for (size_t i = 0; i < MOE_COUNT(keys); i++) {
        write_leased(&t->s, keys[i].key, keys[i].value);
        run_for(&t->w, 5 * SECOND);
        assert_true(ignored_by(t->c) > i);
    }
    vanish(&t->s);
    run_for(&t->w, 5 * SECOND);
    assert_true(epoch_of(t->c) < 100);
    assert_that_it_places(t);
}

static void a_whole_placement_of_the_last_epoch_is_not_believed(void **state)
{
    trio *t = *state;

    for (uint32_t layer = 0; layer < LAYERS; layer++) {
        char key[32];

        (void)snprintf(key, sizeof key, "placement/%u", layer);
        write_lasting(&t->s, key, "{\"v\":1,\"epoch\":" ABSURD ",\"owners\":[]}");
    }
    write_lasting(&t->s, "placement", "{\"v\":1,\"epoch\":" ABSURD ",\"replication\":1,\"n_layers\":3,\"nodes\":[]}");
    run_for(&t->w, 5 * SECOND);
    assert_true(epoch_of(t->c) < 100);
    assert_that_it_places(t);
}

/* As a store that was restored does; what members hold is not given up for it. */
static void an_older_placement_is_replaced_by_what_is_in_force(void **state)
{
    trio *t = *state;
    char old[LAYERS + 1][300];

    for (uint32_t layer = 0; layer <= LAYERS; layer++) {
        char key[32] = "placement";

        if (layer < LAYERS) {
            (void)snprintf(key, sizeof key, "placement/%u", layer);
        }
        (void)snprintf(old[layer], sizeof old[layer], "%s", stored(&t->w, key));
    }
    assert_that_it_places(t);
    uint64_t epoch = epoch_of(t->c);
    size_t wanted = wanted_of(t->c, "new");
    for (uint32_t layer = 0; layer <= LAYERS; layer++) {
        char key[32] = "placement";

        if (layer < LAYERS) {
            (void)snprintf(key, sizeof key, "placement/%u", layer);
        }
        write_lasting(&t->s, key, old[layer]);
    }
    for (size_t i = 0; i < t->w.n; i++) {
        (void)cluster_step(t->w.members[i].c);
        assert_true(epoch_of(&t->w.members[i]) >= epoch);
    }
    run_for(&t->w, 5 * SECOND);
    assert_true(epoch_of(t->c) > epoch);
    assert_int_equal(epoch_of(t->a), epoch_of(t->c));
    assert_int_equal(wanted_of(t->c, "new"), wanted);
}

/* ------------------------------------------------------------------------------------------------ model */
static void a_malformed_model_stops_nobody(void **state)
{
    trio *t = *state;
    char model[400];

    (void)snprintf(model, sizeof model, "%s", stored(&t->w, "model"));
    write_lasting(&t->s, "model", "{}");
    run_for(&t->w, 2 * SECOND);
    assert_string_equal(stored(&t->w, "model"), model);
    assert_true(ignored_by(t->c) > 0);
    assert_that_it_places(t);
}

static void a_new_member_leaves_a_malformed_model_to_those_who_know_it(void **state)
{
    trio *t = *state;

    cluster *paused[] = {t->a->c, t->b->c, t->c->c};
    t->a->c = t->b->c = t->c->c = NULL;
    write_lasting(&t->s, "model", "{}");
    member *other = add_class(&t->w, CLUSTER_NODE, "other", "bf16-1");
    run_for(&t->w, 2 * SECOND);
    assert_status(other, MOE_ERR_UNAVAILABLE);
    assert_string_equal(stored(&t->w, "model"), "{}");
    t->a->c = paused[0];
    t->b->c = paused[1];
    t->c->c = paused[2];
    run_for(&t->w, 2 * SECOND);
    assert_status(other, MOE_ERR_DENIED);
    assert_all_registered(t);
}

static void another_model_stops_no_member(void **state)
{
    trio *t = *state;
    char model[400], *class;

    (void)snprintf(model, sizeof model, "%s", stored(&t->w, "model"));
    class = strstr(model, "f32");
    assert_non_null(class);
    memcpy(class, "f64", 3);
    write_lasting(&t->s, "model", model);
    run_for(&t->w, SECOND);
    cluster_memory_expire_leases(t->w.memory);
    run_for(&t->w, 3 * SECOND);
    assert_all_registered(t);
}

/* ------------------------------------------------------------------------------------------------ too many */
static void strangers_do_not_push_out_members(void **state)
{
    trio *t = *state;

    for (int i = 0; i < ROUTER_MAX_NODES + CLUSTER_MAX_COORDINATORS; i++) {
        bool is_node = i < ROUTER_MAX_NODES;
        char key[32];

        (void)snprintf(key, sizeof key, is_node ? "nodes/%03d" : "coordinators/%03d", i);
        write_leased(&t->s, key, is_node ? NODE : HELD);
    }
    run_for(&t->w, 5 * SECOND);
    member *fresh = add(&t->w, CLUSTER_COORDINATOR, "d");
    run_for(&t->w, 5 * SECOND);
    for (size_t i = 0; i < t->w.n; i++) {
        const cluster_state *s = cluster_state_acquire(t->w.members[i].c);

        assert_int_equal(s->n_nodes, ROUTER_MAX_NODES);
        assert_int_equal(s->n_coordinators, CLUSTER_MAX_COORDINATORS);
        assert_non_null(cluster_state_node(s, "a"));
        assert_non_null(cluster_state_node(s, "b"));
        for (size_t n = 1; n < s->n_nodes; n++) {
            assert_true(strcmp(s->nodes[n - 1].id, s->nodes[n].id) < 0);
        }
        cluster_state_release(s);
    }
    assert_int_equal(missing_of(fresh), 0);
    assert_all_registered(t);
    assert_int_equal(epoch_of(t->c), 1);
    assert_true(ignored_by(t->c) > 0);
}

static void more_keys_than_are_remembered_do_not_push_out_members(void **state)
{
    trio *t = *state;

    for (int i = 0; i < 4200; i++) {
        char key[32];

        (void)snprintf(key, sizeof key, "a-tool/%d", i);
        write_lasting(&t->s, key, "{}");
    }
    cluster_memory_lose_watches(t->w.memory);
    member *fresh = add(&t->w, CLUSTER_COORDINATOR, "d");
    run_for(&t->w, 3 * SECOND);
    assert_status(fresh, MOE_OK);
    assert_int_equal(missing_of(fresh), 0);
    assert_all_registered(t);
    assert_that_it_places(t);
}

/* ------------------------------------------------------------------------------------------------ keys without a lease */
static void members_without_a_lease_are_not_believed(void **state)
{
    trio *t = *state;

    write_lasting(&t->s, "nodes/z", NODE);
    write_lasting(&t->s, "ready/a", "{\"v\":1,\"incarnation\":\"0000000000000066\",\"experts\":[\"\",\"\",\"\"]}");
    write_lasting(&t->s, "coordinators/z", HELD);
    run_for(&t->w, 2 * SECOND);
    const cluster_state *s = cluster_state_acquire(t->a->c);
    assert_null(cluster_state_node(s, "z"));
    assert_int_equal(s->n_coordinators, 1);
    assert_int_equal(cluster_state_epoch_applied(s, 0), 1);
    cluster_state_release(s);
    assert_int_equal(ignored_by(t->a), 3);
}

static void an_office_that_is_held_by_nobody_is_taken(void **state)
{
    static const char z[] = "{\"v\":1,\"id\":\"z\",\"incarnation\":\"00000000000000ff\"}";
    static const struct {
        const char *value;
        bool is_leased;
    } keys[] = {{z, false}, {"{}", true}, {z, true}};
    trio *t = *state;

    for (size_t i = 0; i < MOE_COUNT(keys); i++) {
        write_under(&t->s, "controller", keys[i].value, keys[i].is_leased ? t->s.lease : 0);
        run_for(&t->w, 3 * SECOND);
        assert_true(state_is(t->c, is_controller));
    }
    assert_that_it_places(t);
}

/* Its words are right, but it is not the coordinator's: who holds the office knows of it. */
static void a_coordinator_does_not_hold_an_office_that_it_did_not_take(void **state)
{
    trio *t = *state;
    char *own = strdup(stored(&t->w, "controller"));

    write_under(&t->s, "controller", own, t->s.lease);
    run_for(&t->w, 3 * SECOND);
    assert_true(state_is(t->c, is_controller));
    assert_that_it_places(t);
    free(own);
}

/* A node's key that was written over is its own again. */
static void a_member_takes_back_its_key(void **state)
{
    trio *t = *state;

    write_lasting(&t->s, "nodes/a", NODE);
    run_for(&t->w, SECOND);
    assert_contains(stored(&t->w, "nodes/a"), "0000000000000066");
    write_leased(&t->s, "nodes/a", "{}");
    run_for(&t->w, SECOND);
    assert_contains(stored(&t->w, "nodes/a"), "0000000000000066");
    assert_all_registered(t);
    assert_int_equal(epoch_of(t->c), 1);
}

static void a_node_writes_its_report_anew(void **state)
{
    trio *t = *state;
    char report[300];

    (void)snprintf(report, sizeof report, "%s", stored(&t->w, "ready/a"));
    write_leased(&t->s, "ready/a", "{\"v\":1,\"incarnation\":\"0000000000000066\",\"experts\":[\"\",\"\",\"\"]}");
    run_for(&t->w, 2 * SECOND);
    assert_string_equal(stored(&t->w, "ready/a"), report);
    assert_all_registered(t);
}

/* ------------------------------------------------------------------------------------------------ with a secret */
static void every_record_is_signed(void **state)
{
    static const char *const keys[] = {"model",      "nodes/a",     "ready/a",   "coordinators/c",
                                       "controller", "placement/0", "placement", "policy"};
    trio *t = *state;

    assert_all_registered(t);
    for (size_t i = 0; i < MOE_COUNT(keys); i++) {
        assert_contains(stored(&t->w, keys[i]), ",\"mac\":\"");
    }
    assert_int_equal(ignored_by(t->a) + ignored_by(t->b) + ignored_by(t->c), 0);
    assert_that_it_places(t);
}

static void unsigned_records_are_not_believed(void **state)
{
    trio *t = *state;

    write_leased(&t->s, "nodes/z", NODE);
    write_leased(&t->s, "coordinators/z", HELD);
    write_lasting(&t->s, "policy", "{\"v\":1,\"replication\":2,\"min_nodes\":7}");
    for (uint32_t layer = 0; layer < LAYERS; layer++) {
        char key[32];

        (void)snprintf(key, sizeof key, "placement/%u", layer);
        write_lasting(&t->s, key, "{\"v\":1,\"epoch\":2,\"owners\":[]}");
    }
    write_lasting(&t->s, "placement", "{\"v\":1,\"epoch\":2,\"replication\":1,\"n_layers\":3,\"nodes\":[]}");
    run_for(&t->w, 3 * SECOND);
    for (size_t i = 0; i < t->w.n; i++) {
        const cluster_state *s = cluster_state_acquire(t->w.members[i].c);

        assert_null(cluster_state_node(s, "z"));
        assert_int_equal(s->n_coordinators, 1);
        assert_int_equal(s->policy.replication, 1);
        assert_int_equal(cluster_state_missing(s, NULL), 0);
        cluster_state_release(s);
        assert_true(ignored_by(&t->w.members[i]) >= 2);
        assert_true(wanted_of(&t->w.members[i], "a") > 0);
    }
    assert_contains(stored(&t->w, "policy"), "\"replication\":1");
    assert_that_it_places(t);
}

static void a_signed_record_is_of_no_use_under_another_key(void **state)
{
    trio *t = *state;

    write_leased(&t->s, "nodes/z", stored(&t->w, "nodes/a"));
    write_leased(&t->s, "coordinators/z", stored(&t->w, "coordinators/c"));
    run_for(&t->w, 2 * SECOND);
    const cluster_state *s = cluster_state_acquire(t->c->c);
    assert_int_equal(s->n_nodes, 2);
    assert_int_equal(s->n_coordinators, 1);
    cluster_state_release(s);
    assert_int_equal(ignored_by(t->c), 2);
}

/* A record that was written by the member that was there before, put back. */
static void an_old_record_of_a_member_is_replaced(void **state)
{
    trio *t = *state;
    char old[600];

    (void)snprintf(old, sizeof old, "%s", stored(&t->w, "nodes/a"));
    kill_member(t->a);
    t->a = add(&t->w, CLUSTER_NODE, "a");
    run_for(&t->w, 3 * SECOND);
    assert_status(t->a, MOE_OK);
    write_leased(&t->s, "nodes/a", old);
    run_for(&t->w, 3 * SECOND);
    assert_status(t->a, MOE_OK);
    const cluster_state *s = cluster_state_acquire(t->c->c);
    assert_int_equal(cluster_state_node(s, "a")->incarnation, t->a->incarnation);
    cluster_state_release(s);
}

static void members_find_their_places_among_strangers_who_came_first(void **state)
{
    world w;
    stranger s;

    (void)state;
    world_open(&w, 1);
    w.secret = "the secret of a cluster";
    stranger_open(&s, &w);
    for (int i = 0; i < 64; i++) {
        char key[32];

        (void)snprintf(key, sizeof key, "nodes/%02d", i);
        write_leased(&s, key, NODE);
    }
    member *c = add(&w, CLUSTER_COORDINATOR, "c"), *a = add(&w, CLUSTER_NODE, "a");
    run_for(&w, 5 * SECOND);
    assert_status(a, MOE_OK);
    assert_int_equal(wanted_of(c, "a"), LAYERS * EXPERTS);
    cluster_store_close(s.store);
    world_close(&w);
}

/* Two that do not believe each other must not write in turn for ever. */
static void a_member_with_another_secret_or_none_is_denied(void **state)
{
    static const struct {
        const char *secret, *says;
    } others[] = {{"another secret", "are not signed with our secret"}, {NULL, "--secret-file is needed"}};
    trio *t = *state;
    moe_error err;

    for (size_t i = 0; i < MOE_COUNT(others); i++) {
        t->w.secret = others[i].secret;
        member *node = add(&t->w, CLUSTER_NODE, i == 0 ? "x" : "y");
        member *coordinator = add(&t->w, CLUSTER_COORDINATOR, i == 0 ? "k" : "l");
        run_for(&t->w, 3 * SECOND);
        assert_int_equal(cluster_status(node->c, &err), MOE_ERR_DENIED);
        assert_contains(err.text, others[i].says);
        assert_status(coordinator, MOE_ERR_DENIED);
    }
    assert_all_registered(t);
    assert_int_equal(ignored_by(t->c), 0);
    t->w.secret = "the secret of a cluster";
    assert_that_it_places(t);
}

static void a_member_with_a_secret_is_denied_among_members_without(void **state)
{
    trio *t = *state;

    t->w.secret = "the secret of a cluster";
    member *coordinator = add(&t->w, CLUSTER_COORDINATOR, "k");
    run_for(&t->w, 3 * SECOND);
    assert_status(coordinator, MOE_ERR_DENIED);
    t->w.secret = NULL;
    assert_that_it_places(t);
}

/* ------------------------------------------------------------------------------------------------ logged once */
static void what_is_ignored_is_counted_once(void **state)
{
    trio *t = *state;

    write_leased(&t->s, "nodes/z", "{\"v\":1");
    write_leased(&t->s, "nodes/bad id", "");
    write_leased(&t->s, "ready/a/b", "7");
    write_leased(&t->s, "coordinators/z", "[]");
    write_lasting(&t->s, "unknown", "\xff");
    write_lasting(&t->s, "placement/3", "{}");
    write_lasting(&t->s, "placement/01", "{}");
    run_for(&t->w, 200 * SECOND); /* lists of everything */
    assert_int_equal(ignored_by(t->c), 7);
    assert_all_registered(t);
    assert_int_equal(epoch_of(t->c), 1);
}

int main(void)
{
#define TEST(name)   cmocka_unit_test_setup_teardown(name, setup, teardown)
#define SIGNED(name) cmocka_unit_test_setup_teardown(name, setup_signed, teardown)
    const struct CMUnitTest tests[] = {
        TEST(what_a_former_incarnation_had_loaded_counts_no_more),
        TEST(a_report_that_somebody_else_wrote_is_written_anew),
        TEST(an_absurd_epoch_is_not_believed),
        TEST(a_whole_placement_of_the_last_epoch_is_not_believed),
        TEST(an_older_placement_is_replaced_by_what_is_in_force),
        TEST(a_malformed_model_stops_nobody),
        TEST(a_new_member_leaves_a_malformed_model_to_those_who_know_it),
        TEST(another_model_stops_no_member),
        TEST(strangers_do_not_push_out_members),
        TEST(more_keys_than_are_remembered_do_not_push_out_members),
        TEST(members_without_a_lease_are_not_believed),
        TEST(an_office_that_is_held_by_nobody_is_taken),
        TEST(a_coordinator_does_not_hold_an_office_that_it_did_not_take),
        TEST(a_member_takes_back_its_key),
        TEST(a_node_writes_its_report_anew),
        SIGNED(every_record_is_signed),
        SIGNED(unsigned_records_are_not_believed),
        SIGNED(a_signed_record_is_of_no_use_under_another_key),
        SIGNED(an_old_record_of_a_member_is_replaced),
        cmocka_unit_test(members_find_their_places_among_strangers_who_came_first),
        SIGNED(a_member_with_another_secret_or_none_is_denied),
        TEST(a_member_with_a_secret_is_denied_among_members_without),
        TEST(what_is_ignored_is_counted_once),
    };

    moe_log_set_level(MOE_LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
