/* A reader asks a node for pieces of a pack. */
#include "tests/unit/test_proto_link_support.h"

static void give_piece(const wire_piece *p, moe_status expected)
{
    unsigned char frame[WIRE_SMALL_BYTES];
    moe_buf b;

    open_all("secret");
    meet_reader(true);
    moe_buf_init(&b, frame, sizeof frame);
    wire_put_piece(&b, p);
    assert_int_equal(give(&reader, frame, wire_finish(&b)), expected);
}

static void a_reader_asks_and_is_given_again_and_again(void **state)
{
    unsigned char frame[WIRE_SMALL_BYTES];

    (void)state;
    open_all("secret");
    meet_reader(false);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(link_ask(&reader.end, &some, 1), MOE_OK);
        carry(&reader, &node);
        assert_int_equal(last, LINK_WANTED);
        assert_memory_equal(node.end.asked.pack, some.pack, 32);
        assert_int_equal(node.end.asked.offset, some.offset);
        link_answered(&node.end, 2);
        assert_ok(give(&reader, frame, frame_of(WIRE_PIECE, frame)), err);
        assert_int_equal(last, LINK_GIVEN);
    }
    assert_false(link_is_open(&node.end)); /* no drop waits for it, and it counts as no coordinator */
}

static void a_second_question_before_the_answer_costs_the_connection(void **state)
{
    unsigned char frame[WIRE_SMALL_BYTES];

    (void)state;
    open_all("");
    meet_reader(true);
    assert_int_equal(give(&node, frame, frame_of(WIRE_FETCH, frame)), MOE_ERR_CORRUPT);
    assert_contains(err.text, "FETCH is not expected now");
    assert_int_equal(node.end.state, LINK_CLOSED);
}

static void a_reader_sends_no_rows(void **state)
{
    unsigned char frame[WIRE_SMALL_BYTES];

    (void)state;
    open_all("");
    meet_reader(false);
    assert_int_equal(give(&node, frame, frame_of(WIRE_DISPATCH, frame)), MOE_ERR_CORRUPT);
}

static void a_coordinator_fetches_nothing(void **state)
{
    unsigned char frame[WIRE_SMALL_BYTES];

    (void)state;
    open_all("");
    meet();
    assert_int_equal(give(&node, frame, frame_of(WIRE_FETCH, frame)), MOE_ERR_CORRUPT);
}

static void a_readers_proof_is_not_a_coordinators(void **state)
{
    (void)state;
    open_all("secret");
    begin(&reader);
    begin(&node);
    carry(&reader, &node);
    carry(&node, &reader);
    node.end.theirs.role = WIRE_COORDINATOR; /* as if that had been the HELLO */
    assert_int_equal(give(&node, reader.sent[0], reader.n_bytes[0]), MOE_ERR_DENIED);
}

static void only_what_was_asked_is_taken(void **state)
{
    wire_piece pack = some_piece, part = some_piece, offset = some_piece, less = some_piece, none = some_piece,
               more = some_piece;

    (void)state;
    pack.pack[31] = 1;
    part.part++;
    offset.offset++;
    less.n--;
    none.size = none.n = 0;
    more.size = 104; /* and 4 are there */
    give_piece(&pack, MOE_ERR_CORRUPT);
    give_piece(&part, MOE_ERR_CORRUPT);
    give_piece(&offset, MOE_ERR_CORRUPT);
    give_piece(&less, MOE_ERR_CORRUPT);
    give_piece(&more, MOE_ERR_CORRUPT);
    more.n = 4;
    give_piece(&more, MOE_OK);
    give_piece(&none, MOE_OK); /* it has no such pack */
}

static void nobody_asks_for_more_than_a_frame_takes(void **state)
{
    unsigned char frame[WIRE_SMALL_BYTES];
    wire_fetch most = some;
    moe_buf b;

    (void)state;
    open_all("");
    meet_reader(false);
    assert_int_equal(link_max_piece(&reader.end), 4096 - WIRE_PIECE_BYTES);
    most.length = link_max_piece(&reader.end) + 1;
    moe_buf_init(&b, frame, sizeof frame);
    wire_put_fetch(&b, &most);
    assert_int_equal(give(&node, frame, wire_finish(&b)), MOE_ERR_CORRUPT);
    assert_contains(err.text, "limit 4024");
}

static void a_question_without_room_can_be_asked_again(void **state)
{
    (void)state;
    open_all("");
    meet_reader(false);
    reader.is_full = true;
    assert_int_equal(link_ask(&reader.end, &some, 1), MOE_ERR_BUSY);
    reader.is_full = false;
    assert_int_equal(link_ask(&reader.end, &some, 1), MOE_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_reader_asks_and_is_given_again_and_again),
        cmocka_unit_test(a_second_question_before_the_answer_costs_the_connection),
        cmocka_unit_test(a_reader_sends_no_rows),
        cmocka_unit_test(a_coordinator_fetches_nothing),
        cmocka_unit_test(a_readers_proof_is_not_a_coordinators),
        cmocka_unit_test(only_what_was_asked_is_taken),
        cmocka_unit_test(nobody_asks_for_more_than_a_frame_takes),
        cmocka_unit_test(a_question_without_room_can_be_asked_again),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
