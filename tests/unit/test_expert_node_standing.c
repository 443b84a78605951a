/* What a node makes of the cluster's state and its own connections. */
#include "tests/support/space.h"
#include "expert_node/program/standing.h"
#include "tests/support/support.h"

#include <string.h>

#define EXPERTS 10

static cluster_node nodes[3];
static uint64_t ready[3]; /* of each node: as many experts as fit into a word */
static cluster_coordinator coordinator;
static cluster_state state;

/* This node is one of two, the coordinator is connected and has applied the placement, which wants this node. */
static standing normal(void)
{
    memset(nodes, 0, sizeof nodes);
    for (size_t i = 0; i < MOE_COUNT(nodes); i++) {
        (void)snprintf(nodes[i].id, sizeof nodes[i].id, "node-%zu", i);
        nodes[i].expert_bytes = 100;
        nodes[i].memory_bytes = 100 * EXPERTS;
        nodes[i].registered = true;
        nodes[i].ready = &ready[i];
        ready[i] = 0;
    }
    ready[0] = 0x1f;
    coordinator = (cluster_coordinator){.id = "c", .epoch_applied = 4};
    state = (cluster_state){.connected = true,
                            .registered = true,
                            .space = test_space(1, EXPERTS),
                            .n_nodes = 2,
                            .n_coordinators = 1,
                            .nodes = nodes,
                            .coordinators = &coordinator,
                            .epoch = 4};
    return (standing){.state = &state,
                      .id = "node-0",
                      .address = "host:7",
                      .n_wanted = 5,
                      .epoch_registered = 4,
                      .n_hellos = 1,
                      .n_connected = 1,
                      .epoch_connected = 4};
}

/* ------------------------------------------------------------------------------------------------ met */
static void assert_not_met(const standing *s, const char *words)
{
    moe_error why = {""};

    assert_false(standing_is_met(s, &why));
    assert_contains(why.text, words);
}

static void who_has_exchanged_hello_is_met(void **state_)
{
    standing s = normal();
    moe_error why;

    (void)state_;
    assert_true(standing_is_met(&s, &why));
}

static void an_address_that_nobody_connects_to_is_named(void **state_)
{
    standing s = normal();

    (void)state_;
    s.n_hellos = 0;
    s.n_connected = 0;
    assert_not_met(&s, "no coordinator has connected to host:7, though 1 is registered: wrong --advertise?");
}

static void a_wrong_secret_is_named(void **state_)
{
    standing s = normal();

    (void)state_;
    s.n_hellos = 0;
    s.n_connected = 0;
    s.n_denied = 3;
    assert_not_met(&s, "connections to host:7 failed the secret's proof");
}

static void before_there_is_a_coordinator_nobody_is_met(void **state_)
{
    standing s = normal();

    (void)state_;
    s.n_hellos = 0;
    s.n_connected = 0;
    state.n_coordinators = 0;
    assert_not_met(&s, "no coordinator is registered");
}

static void a_coordinator_that_is_registered_but_lost_is_missed(void **state_)
{
    standing s = normal();

    (void)state_;
    s.n_connected = 0;
    assert_not_met(&s, "none of the 1 coordinators is connected any more");
}

static void a_coordinator_that_has_left_is_not_missed(void **state_)
{
    standing s = normal();
    moe_error why;

    (void)state_;
    s.n_connected = 0;
    state.n_coordinators = 0;
    assert_true(standing_is_met(&s, &why));
}

/* ------------------------------------------------------------------------------------------------ relief */
static void assert_hopeless(const standing *s, const char *words)
{
    moe_error why = {""};

    assert_int_equal(standing_judge(s, &why), STANDING_HOPELESS);
    assert_contains(why.text, words);
}

static void who_has_experts_waits_while_another_may_take_them(void **state_)
{
    standing s = normal();

    (void)state_;
    assert_int_equal(standing_judge(&s, NULL), STANDING_NEEDED);
}

static void who_has_none_waits_until_every_coordinator_knows(void **state_)
{
    standing s = normal();

    (void)state_;
    s.n_wanted = 0;
    s.epoch_registered = 3;
    assert_int_equal(standing_judge(&s, NULL), STANDING_NEEDED);
    s.epoch_registered = 4;
    assert_int_equal(standing_judge(&s, NULL), STANDING_RELIEVED);
}

static void who_has_none_does_not_wait_for_a_coordinator_that_is_gone(void **state_)
{
    standing s = normal();

    (void)state_;
    s.n_wanted = 0;
    s.n_connected = 0;
    s.epoch_registered = 3;
    ready[1] = 0x1f;
    assert_int_equal(standing_judge(&s, NULL), STANDING_RELIEVED);
}

/* Others were given what it has, and have not loaded it: the coordinator that will be back needs it. */
static void who_has_the_only_copies_waits_for_a_coordinator_that_is_gone(void **state_)
{
    standing s = normal();

    (void)state_;
    s.n_wanted = 0;
    s.n_connected = 0;
    ready[1] = 0x0f;
    assert_hopeless(&s, "no coordinator is connected");
}

static void who_has_none_waits_for_a_coordinator_that_is_connected_and_not_registered(void **state_)
{
    standing s = normal();

    (void)state_;
    s.n_wanted = 0;
    state.n_coordinators = 0;
    s.epoch_connected = 3;
    assert_int_equal(standing_judge(&s, NULL), STANDING_HOPELESS); /* until it finds the store, or goes */
    s.epoch_connected = 4;
    assert_int_equal(standing_judge(&s, NULL), STANDING_RELIEVED);
}

static void a_coordinator_that_has_lost_the_store_needs_what_it_knows(void **state_)
{
    standing s = normal();

    (void)state_;
    state.n_coordinators = 0;
    assert_int_equal(standing_judge(&s, NULL), STANDING_HOPELESS);
}

/* As it is while the only one is restarted. */
static standing without_a_coordinator(void)
{
    standing s = normal();

    s.n_connected = 0;
    state.n_coordinators = 0;
    s.epoch_connected = UINT64_MAX;
    return s;
}

static void without_a_coordinator_nobody_needs_what_others_have(void **state_)
{
    standing s = without_a_coordinator();

    (void)state_;
    ready[1] = 0x0f;
    ready[2] = 0x10;
    state.n_nodes = 3;
    assert_int_equal(standing_judge(&s, NULL), STANDING_RELIEVED);
    ready[0] = 0;
    state.n_nodes = 1;
    assert_int_equal(standing_judge(&s, NULL), STANDING_RELIEVED);
}

static void the_only_copies_do_not_go_while_the_coordinator_is_away(void **state_)
{
    standing s = without_a_coordinator();

    (void)state_;
    ready[1] = 0x0f;
    assert_hopeless(&s, "no coordinator is registered, and 1 experts are nowhere else");
    ready[1] = 0x1f;
    nodes[1].registered = false; /* it may be gone */
    ready[2] = 0x1f;
    nodes[2].draining = true;
    state.n_nodes = 3;
    assert_hopeless(&s, "no coordinator is registered, and 5 experts are nowhere else");
    s.id = "node-3"; /* not even our own key is there */
    assert_hopeless(&s, "5 experts are nowhere else");
}

/* The cluster is taken down. */
static void nodes_that_all_leave_do_not_wait_for_a_coordinator(void **state_)
{
    standing s = without_a_coordinator();

    (void)state_;
    nodes[1].draining = true;
    assert_int_equal(standing_judge(&s, NULL), STANDING_RELIEVED);
    state.connected = false; /* then what is known may be old */
    assert_hopeless(&s, "store does not answer");
}

/* It serves on, though its lease has ended. */
static void a_coordinator_that_has_lost_etcd_still_needs_a_node(void **state_)
{
    standing s = normal();

    (void)state_;
    state.n_coordinators = 0;
    assert_hopeless(&s, "not registered");
}

static void a_coordinator_that_died_relieves_nobody(void **state_)
{
    standing s = normal();

    (void)state_;
    s.n_connected = 0;
    assert_hopeless(&s, "no coordinator is connected");
}

static void the_only_node_cannot_be_relieved(void **state_)
{
    standing s = normal();

    (void)state_;
    state.n_nodes = 1;
    assert_hopeless(&s, "there is no other node");
    state.n_nodes = 2;
    nodes[1].draining = true;
    assert_hopeless(&s, "there is no other node");
}

static void others_without_room_cannot_relieve(void **state_)
{
    standing s = normal();

    (void)state_;
    nodes[1].memory_bytes = 100 * EXPERTS - 1;
    assert_hopeless(&s, "1 other nodes have room for 9 of 10 experts");
    state.n_nodes = 3;
    assert_int_equal(standing_judge(&s, NULL), STANDING_NEEDED);
    state.n_nodes = 2;
    nodes[1].memory_bytes = 0; /* no bound */
    assert_int_equal(standing_judge(&s, NULL), STANDING_NEEDED);
}

static void while_the_store_is_away_nobody_hears_of_the_wish(void **state_)
{
    standing s = normal();

    (void)state_;
    state.connected = false;
    assert_hopeless(&s, "store does not answer");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_has_exchanged_hello_is_met),
        cmocka_unit_test(an_address_that_nobody_connects_to_is_named),
        cmocka_unit_test(a_wrong_secret_is_named),
        cmocka_unit_test(before_there_is_a_coordinator_nobody_is_met),
        cmocka_unit_test(a_coordinator_that_is_registered_but_lost_is_missed),
        cmocka_unit_test(a_coordinator_that_has_left_is_not_missed),
        cmocka_unit_test(who_has_experts_waits_while_another_may_take_them),
        cmocka_unit_test(who_has_none_waits_until_every_coordinator_knows),
        cmocka_unit_test(who_has_none_does_not_wait_for_a_coordinator_that_is_gone),
        cmocka_unit_test(who_has_none_waits_for_a_coordinator_that_is_connected_and_not_registered),
        cmocka_unit_test(a_coordinator_that_has_lost_the_store_needs_what_it_knows),
        cmocka_unit_test(who_has_the_only_copies_waits_for_a_coordinator_that_is_gone),
        cmocka_unit_test(without_a_coordinator_nobody_needs_what_others_have),
        cmocka_unit_test(the_only_copies_do_not_go_while_the_coordinator_is_away),
        cmocka_unit_test(nodes_that_all_leave_do_not_wait_for_a_coordinator),
        cmocka_unit_test(a_coordinator_that_has_lost_etcd_still_needs_a_node),
        cmocka_unit_test(a_coordinator_that_died_relieves_nobody),
        cmocka_unit_test(the_only_node_cannot_be_relieved),
        cmocka_unit_test(others_without_room_cannot_relieve),
        cmocka_unit_test(while_the_store_is_away_nobody_hears_of_the_wish),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
