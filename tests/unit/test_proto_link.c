/* Every edge of the table, and everything that is not in it; how members greet, and what they tell each other then. */
#include "tests/unit/test_proto_link_support.h"

static member *of_role(link_role role)
{
    member *const all[] = {&coordinator, &node, &probe, &reader};

    return all[role];
}

/* ------------------------------------------------------------------------------------------------ the table */
/* Brings the role's end into the state by frames alone. False: it has no such state. */
static bool reach(link_role role, link_state state)
{
    member *m = of_role(role);
    unsigned char frame[WIRE_SMALL_BYTES];

    open_all("secret");
    switch (state) {
    case LINK_GREETING:
        begin(m);
        break;
    case LINK_PROVING:
    case LINK_REFUSED:
        node.is_unwanted = state == LINK_REFUSED;
        begin(&coordinator);
        begin(&node);
        carry(&coordinator, &node);
        return role == LINK_NODE;
    case LINK_OPEN:
        meet();
        return role == LINK_NODE || role == LINK_COORDINATOR;
    case LINK_READING:
    case LINK_ASKED:
        meet_reader(state == LINK_ASKED);
        return role == LINK_NODE || role == LINK_READER;
    case LINK_DRAINING:
        meet();
        assert_ok(give(&coordinator, frame, frame_of(WIRE_GOODBYE, frame)), err);
        return role == LINK_COORDINATOR;
    default:
        break;
    }
    return true;
}

static const link_edge *edge_of(link_role role, link_state from, int frame)
{
    size_t n;
    const link_edge *edges = link_edges(&n), *found = NULL;

    for (size_t i = 0; i < n; i++) {
        if (edges[i].role == role && edges[i].from == from && edges[i].frame == frame) {
            assert_null(found); /* no edge stands twice */
            found = &edges[i];
        }
    }
    return found;
}

/* A legal frame of the kind that the end expects in its state: what only the other can make is what the other has sent. */
static size_t expected_frame(link_role role, int type, unsigned char *frame)
{
    member *m = of_role(role), *other = role == LINK_NODE ? &coordinator : &node;

    if (type == WIRE_HELLO && m->end.state == LINK_GREETING) {
        if (role == LINK_NODE) {
            begin(other);
        } else {
            begin(&node);
            carry(m, &node);
        }
    } else if (type == WIRE_PROOF && m->end.state == LINK_PROVING) {
        carry(&node, &coordinator);
    } else {
        return frame_of(type, frame);
    }
    memcpy(frame, other->sent[0], other->n_bytes[0]);
    return other->n_bytes[0];
}

static void what_is_in_the_table_is_taken_and_nothing_else(void **state_)
{
    size_t n_edges, n_taken = 0;

    (void)state_;
    (void)link_edges(&n_edges);
    for (link_role role = 0; role < LINK_N_ROLES; role++) {
        for (link_state state = 0; state < LINK_N_STATES; state++) {
            for (int type = WIRE_HELLO; reach(role, state) && type <= WIRE_LAST; type++) {
                const link_edge *edge = edge_of(role, state, type);
                unsigned char frame[WIRE_SMALL_BYTES];
                member *m = of_role(role);

                assert_int_equal(m->end.state, state);
                moe_status status = give(m, frame, expected_frame(role, type, frame));
                if (edge == NULL) {
                    assert_int_equal(status, MOE_ERR_CORRUPT);
                    assert_int_equal(m->end.state, LINK_CLOSED);
                    assert_int_equal(last, LINK_NOTHING);
                } else {
                    assert_ok(status, err);
                    assert_true((edge->to & LINK_TO(m->end.state)) != 0);
                    n_taken++;
                }
            }
            n_taken += edge_of(role, state, LINK_TIME) != NULL;
        }
    }
    assert_int_equal(n_taken, n_edges); /* every edge was walked */
}

static void time_leads_along_the_table(void **state_)
{
    (void)state_;
    for (link_role role = 0; role < LINK_N_ROLES; role++) {
        for (link_state state = 0; state < LINK_N_STATES; state++) {
            const link_edge *edge = edge_of(role, state, LINK_TIME);
            uint64_t wake = UINT64_MAX;

            if (!reach(role, state)) {
                assert_null(edge);
                continue;
            }
            member *m = of_role(role);
            bool watched = state != LINK_CLOSED && !(role == LINK_READER && state == LINK_READING);
            bool is_caller = role == LINK_NODE && state == LINK_OPEN, is_reading = link_is_reading(&m->end);
            uint64_t end = is_caller ? 2 * LINK_CALLER_NS : is_reading ? 2 * LINK_READING_NS : DEADLINE;
            uint64_t each = is_caller || is_reading ? end / 50 : HEARTBEAT / 2;
            assert_int_equal(link_tick(&m->end, 2, false, &wake), LINK_FINE);
            assert_int_equal(m->end.state, state);
            for (uint64_t now = 2; now <= end && m->end.state == state; now += each) {
                link_verdict verdict = link_tick(&m->end, now + each, false, &wake);
                assert_true(verdict == LINK_FINE || (watched && m->end.state == LINK_CLOSED));
            }
            assert_int_equal(m->end.state, watched ? LINK_CLOSED : state);
            assert_true(edge == NULL ? state == LINK_CLOSED : (edge->to & LINK_TO(m->end.state)) != 0);
        }
    }
}

/* ------------------------------------------------------------------------------------------------ greeting */
static void members_without_a_secret_meet_in_two_frames(void **state)
{
    (void)state;
    open_all("");
    begin(&coordinator);
    begin(&node);
    carry(&coordinator, &node);
    assert_int_equal(last, LINK_OPENED);
    assert_int_equal(node.end.state, LINK_OPEN);
    carry(&node, &coordinator);
    assert_int_equal(last, LINK_OPENED);
    assert_int_equal(coordinator.n_sent, 0);
}

static void a_member_with_another_secret_is_turned_away(void **state)
{
    (void)state;
    open_all("secret");
    assert_int_equal(wire_key_init(&node.key, "guessed", 7), MOE_OK);
    begin(&coordinator);
    begin(&node);
    carry(&coordinator, &node);
    assert_int_equal(node.end.state, LINK_PROVING);
    carry(&node, &coordinator);
    assert_int_equal(last, LINK_TURNED_AWAY);
    assert_true(coordinator.end.is_unproved);
    assert_int_equal(coordinator.end.state, LINK_CLOSED);
    assert_int_equal(coordinator.n_sent, 0);
}

static void a_proof_of_another_connection_is_none(void **state)
{
    unsigned char frame[WIRE_SMALL_BYTES];

    (void)state;
    open_all("secret");
    begin(&coordinator);
    begin(&node);
    carry(&coordinator, &node);
    carry(&node, &coordinator);
    size_t n = coordinator.n_bytes[0];
    memcpy(frame, coordinator.sent[0], n);
    coordinator.n_sent = 0;
    begin(&coordinator);
    begin(&node);
    carry(&coordinator, &node);
    assert_int_equal(give(&node, frame, n), MOE_ERR_DENIED);
    assert_true(node.end.is_unproved);
    assert_int_equal(node.end.state, LINK_CLOSED);
}

static void a_probe_believes_only_who_proves_the_secret(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        open_all("secret");
        if (i == 1) {
            assert_int_equal(wire_key_init(&node.key, "guessed", 7), MOE_OK);
        }
        begin(&probe);
        begin(&node);
        carry(&probe, &node);
        carry(&node, &probe);
        assert_int_equal(last, i == 0 ? LINK_OPENED : LINK_TURNED_AWAY);
        assert_int_equal(probe.n_sent, 0); /* no node counts it among its coordinators */
    }
}

static void who_does_not_fit_is_told_why_and_heard_no_more(void **state)
{
    unsigned char frame[WIRE_SMALL_BYTES];

    (void)state;
    open_all("");
    (void)snprintf(coordinator.hello.cluster, sizeof coordinator.hello.cluster, "elsewhere");
    begin(&coordinator);
    begin(&node);
    carry(&coordinator, &node);
    assert_int_equal(last, LINK_TURNED_AWAY);
    assert_int_equal(node.end.state, LINK_REFUSED);
    carry(&node, &coordinator);
    assert_int_equal(last, LINK_TURNED_AWAY);
    assert_non_null(strstr(err.text, "elsewhere"));
    assert_int_equal(give(&node, frame, frame_of(WIRE_PING, frame)), MOE_ERR_CORRUPT);
}

static void a_hello_that_cannot_be_sent_ends_the_link(void **state)
{
    (void)state;
    open_all("secret");
    coordinator.is_full = true;
    assert_int_equal(link_begin(&coordinator.end, &coordinator.side, &coordinator, 0, 0), MOE_ERR_BUSY);
    assert_int_equal(coordinator.end.state, LINK_CLOSED);
    coordinator.is_full = false;
    begin(&coordinator);
    begin(&node);
    node.is_full = true;
    assert_int_equal(give(&node, coordinator.sent[0], coordinator.n_bytes[0]), MOE_ERR_BUSY);
    assert_int_equal(node.end.state, LINK_CLOSED);
}

/* ------------------------------------------------------------------------------------------------ open */
static void the_epoch_is_told_at_once_and_again_when_there_was_no_room(void **state)
{
    uint64_t wake = UINT64_MAX;

    (void)state;
    open_all("");
    meet();
    coordinator.side.epoch = 7;
    coordinator.is_full = true;
    assert_int_equal(link_tick(&coordinator.end, 2, false, &wake), LINK_FINE);
    assert_true(wake <= 2 + HEARTBEAT);
    coordinator.is_full = false;
    tick(&coordinator, 3);
    carry(&coordinator, &node);
    assert_int_equal(node.end.epoch, 7);
    tick(&coordinator, 4);
    assert_int_equal(coordinator.n_sent, 0); /* once is enough */
}

static void a_node_that_drains_says_so_to_all_now_and_later(void **state)
{
    (void)state;
    open_all("");
    meet();
    tell_all();
    node.side.draining = true;
    node.is_full = true;
    tick(&node, 2);
    node.is_full = false;
    tick(&node, 3);
    tick(&node, 4);
    assert_int_equal(node.n_sent, 1);
    carry(&node, &coordinator);
    assert_int_equal(coordinator.end.state, LINK_DRAINING);
    link_close(&coordinator.end);
    meet();
    tell_all();
    assert_int_equal(coordinator.end.state, LINK_DRAINING);
}

static void pong_tells_the_load(void **state)
{
    (void)state;
    open_all("");
    meet();
    node.side.load = (wire_pong){.queued_rows = 5};
    tick(&coordinator, HEARTBEAT + 1);
    carry(&coordinator, &node);
    carry(&node, &coordinator);
    assert_int_equal(last, LINK_ANSWERED);
    assert_int_equal(coordinator.end.queued_rows, 5);
}

static void a_node_that_may_be_computing_gets_more_time(void **state)
{
    uint64_t now = 0, wake = UINT64_MAX;

    (void)state;
    for (int busy = 0; busy < 2; busy++) {
        uint64_t before = now;

        open_all("");
        meet();
        for (now = 0; link_tick(&coordinator.end, now, busy == 1, &wake) == LINK_FINE; now += HEARTBEAT) {
            coordinator.n_sent = 0;
        }
        assert_true(now > before);
    }
}

static void a_loop_that_has_not_turned_blames_nobody(void **state)
{
    (void)state;
    open_all("");
    meet();
    tick(&coordinator, 1000 * HEARTBEAT);
    assert_true(link_is_open(&coordinator.end));
    tick(&node, 10 * LINK_CALLER_NS);
    assert_true(link_is_open(&node.end));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_in_the_table_is_taken_and_nothing_else),
        cmocka_unit_test(time_leads_along_the_table),
        cmocka_unit_test(members_without_a_secret_meet_in_two_frames),
        cmocka_unit_test(a_member_with_another_secret_is_turned_away),
        cmocka_unit_test(a_proof_of_another_connection_is_none),
        cmocka_unit_test(a_probe_believes_only_who_proves_the_secret),
        cmocka_unit_test(who_does_not_fit_is_told_why_and_heard_no_more),
        cmocka_unit_test(a_hello_that_cannot_be_sent_ends_the_link),
        cmocka_unit_test(the_epoch_is_told_at_once_and_again_when_there_was_no_room),
        cmocka_unit_test(a_node_that_drains_says_so_to_all_now_and_later),
        cmocka_unit_test(pong_tells_the_load),
        cmocka_unit_test(a_node_that_may_be_computing_gets_more_time),
        cmocka_unit_test(a_loop_that_has_not_turned_blames_nobody),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
