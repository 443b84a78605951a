/* What a node holds, as its coordinators are told of it. */
#include "tests/unit/test_proto_link_support.h"

static void assert_all_is_known(void)
{
    assert_true(coordinator.end.knows_all);
    assert_int_equal(coordinator.end.known, node.side.revision);
    for (uint32_t i = 0; i < N_BLOCKS; i++) {
        assert_int_equal(coordinator.blocks[i].experts, node.blocks[i].experts);
    }
}

static void holding(uint32_t n_blocks)
{
    open_all("");
    for (uint32_t i = 0; i < n_blocks; i++) {
        change(&node, (i * 7) % N_BLOCKS, i + 1);
    }
    meet();
}

static void a_node_without_experts_says_so(void **state)
{
    (void)state;
    holding(0);
    assert_false(coordinator.end.knows_all);
    tell_all();
    assert_all_is_known();
}

static void all_is_told_first_and_then_what_changes(void **state)
{
    wire_holds h;

    (void)state;
    holding(3 * WIRE_MAX_BLOCKS);
    tick(&node, 2);
    assert_int_equal(node.n_sent, 3);
    for (size_t i = 0; i < 3; i++) {
        assert_false(coordinator.end.knows_all); /* half of the truth does not count */
        assert_ok(give(&coordinator, node.sent[i], node.n_bytes[i]), err);
    }
    node.n_sent = 0;
    assert_all_is_known();
    change(&node, 5, 77);
    change(&node, 5, 78);
    tick(&node, 3);
    assert_int_equal(node.n_sent, 1);
    assert_ok(wire_get_holds(node.sent[0], node.n_bytes[0], &h, &err), err);
    assert_int_equal(h.n_blocks, 1);
    tell_all();
    assert_all_is_known();
}

static void much_is_told_in_several_turns(void **state)
{
    uint64_t wake = UINT64_MAX;

    (void)state;
    holding(N_BLOCKS);
    assert_int_equal(link_tick(&node.end, 2, false, &wake), LINK_FINE);
    assert_true(node.n_sent < (N_BLOCKS + WIRE_MAX_BLOCKS - 1) / WIRE_MAX_BLOCKS);
    assert_true(wake < UINT64_MAX);
    tell_all();
    assert_all_is_known();
}

static void what_was_lost_is_told_again(void **state)
{
    (void)state;
    for (size_t lost = 0; lost < 3; lost++) {
        uint64_t now = 2;

        holding(3 * WIRE_MAX_BLOCKS);
        tick(&node, now);
        for (size_t i = 0; i < 3; i++) {
            if (i != lost) {
                assert_ok(give(&coordinator, node.sent[i], node.n_bytes[i]), err);
            }
        }
        assert_false(coordinator.end.knows_all);
        node.n_sent = 0;
        for (int beats = 0; beats < 3; beats++) {
            now += HEARTBEAT;
            tick(&coordinator, now);
            carry(&coordinator, &node);
            carry(&node, &coordinator);
        }
        assert_all_is_known();
    }
}

/* By the next PING; what is known meanwhile goes on to count. */
static void all_is_told_again_when_it_is_asked_for(void **state)
{
    (void)state;
    holding(3 * WIRE_MAX_BLOCKS);
    tell_all();
    assert_all_is_known();
    tick(&coordinator, 3 * HEARTBEAT); /* a PING that knows all */
    carry(&coordinator, &node);
    carry(&node, &coordinator);
    memset(coordinator.blocks, 0, sizeof coordinator.blocks); /* as if it had passed over all */
    link_ask_again(&coordinator.end);
    assert_true(coordinator.end.knows_all);
    tick(&coordinator, 4 * HEARTBEAT);
    carry(&coordinator, &node);
    carry(&node, &coordinator);
    assert_all_is_known();
}

static void what_is_old_or_comes_twice_changes_nothing(void **state)
{
    unsigned char old[WIRE_SMALL_BYTES];

    (void)state;
    holding(1);
    tick(&node, 2);
    size_t n = node.n_bytes[0];
    memcpy(old, node.sent[0], n);
    tell_all();
    change(&node, 0, 99);
    tell_all();
    assert_ok(give(&coordinator, old, n), err);
    assert_all_is_known();
}

static void a_new_connection_hears_all_anew(void **state)
{
    (void)state;
    holding(40);
    tell_all();
    link_close(&coordinator.end);
    change(&node, 0, 0);
    meet();
    assert_false(coordinator.end.knows_all);
    memset(coordinator.blocks, 0, sizeof coordinator.blocks);
    tell_all();
    assert_all_is_known();
}

static void one_that_cannot_be_sent_now_is_sent_later(void **state)
{
    uint64_t wake = UINT64_MAX;

    (void)state;
    holding(2);
    node.is_full = true;
    assert_int_equal(link_tick(&node.end, 2, false, &wake), LINK_FINE);
    assert_true(wake < UINT64_MAX);
    node.is_full = false;
    tell_all();
    assert_all_is_known();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_node_without_experts_says_so),
        cmocka_unit_test(all_is_told_first_and_then_what_changes),
        cmocka_unit_test(much_is_told_in_several_turns),
        cmocka_unit_test(what_was_lost_is_told_again),
        cmocka_unit_test(all_is_told_again_when_it_is_asked_for),
        cmocka_unit_test(what_is_old_or_comes_twice_changes_nothing),
        cmocka_unit_test(a_new_connection_hears_all_anew),
        cmocka_unit_test(one_that_cannot_be_sent_now_is_sent_later),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
