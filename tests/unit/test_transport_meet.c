/* Two ends of a meeting, byte by byte, with somebody in between. */
#include "tests/support/support.h"

#include "transport/meet_priv.h"

static meet_key key, other_key, no_key;
static meet caller, called;
static unsigned char recorded[2][4096]; /* what each end has said, the caller's first */
static size_t n_recorded[2];
static moe_error err;

static int setup(void **state)
{
    (void)state;
    assert_int_equal(meet_key_init(&key, "secret", 6), MOE_OK);
    assert_int_equal(meet_key_init(&other_key, "Secret", 6), MOE_OK);
    assert_int_equal(meet_key_init(&no_key, NULL, 0), MOE_OK);
    memset(n_recorded, 0, sizeof n_recorded);
    return 0;
}

static void begin(const meet_key *a, const meet_key *b)
{
    assert_int_equal(meet_begin(&caller, true, a), MOE_OK);
    assert_int_equal(meet_begin(&called, false, b), MOE_OK);
}

static void offer_when_due(meet *m)
{
    if (m->stage == MEET_CALL || m->stage == MEET_ANSWER) {
        assert_int_equal(meet_offer(m, m->caller ? "address of the caller" : "address", m->caller ? 21 : 7), MOE_OK);
    }
}

/* Carries what `from` has to say to `to` in pieces; byte number flip of it is spoilt. */
static moe_status carry(meet *from, meet *to, size_t piece, size_t flip)
{
    size_t side = from->caller ? 0 : 1, n = from->n_out, at = 0;
    unsigned char *bytes = recorded[side] + n_recorded[side];
    moe_status status = MOE_OK;

    memcpy(bytes, from->out, n);
    from->n_out = 0;
    if (flip >= n_recorded[side] && flip - n_recorded[side] < n) {
        bytes[flip - n_recorded[side]] ^= 1;
    }
    n_recorded[side] += n;
    while (at < n && status == MOE_OK) {
        size_t used;

        status = meet_receive(to, bytes + at, MOE_MIN(piece, n - at), &used, &err);
        at += used;
        offer_when_due(to);
        if (used == 0 && status == MOE_OK) {
            return MOE_ERR_CORRUPT;
        }
    }
    return status;
}

static moe_status run(size_t piece, size_t flip_caller, size_t flip_called)
{
    moe_status status = MOE_OK;

    for (int i = 0; i < 6 && status == MOE_OK; i++) {
        status = i % 2 == 0 ? carry(&caller, &called, piece, flip_caller) : carry(&called, &caller, piece, flip_called);
    }
    return status;
}

static void both_ends_learn_the_others_address(void **state)
{
    (void)state;
    for (size_t piece = 1; piece < 200; piece += 13) {
        n_recorded[0] = n_recorded[1] = 0;
        begin(&key, &key);
        assert_int_equal(run(piece, SIZE_MAX, SIZE_MAX), MOE_OK);
        assert_int_equal(caller.stage, MEET_DONE);
        assert_int_equal(called.stage, MEET_DONE);
        assert_int_equal(called.n_theirs, 21);
        assert_memory_equal(called.theirs, "address of the caller", 21);
        assert_memory_equal(caller.theirs, "address", 7);
        assert_memory_equal(caller.token, called.token, MEET_TOKEN);
    }
}

static void without_a_secret_they_meet_as_well(void **state)
{
    (void)state;
    begin(&no_key, &no_key);
    assert_int_equal(run(64, SIZE_MAX, SIZE_MAX), MOE_OK);
    assert_int_equal(caller.stage, MEET_DONE);
}

static void tokens_differ_from_meeting_to_meeting(void **state)
{
    unsigned char before[MEET_TOKEN];

    (void)state;
    begin(&no_key, &no_key);
    assert_int_equal(run(64, SIZE_MAX, SIZE_MAX), MOE_OK);
    memcpy(before, caller.token, sizeof before);
    n_recorded[0] = n_recorded[1] = 0;
    begin(&no_key, &no_key);
    assert_int_equal(run(64, SIZE_MAX, SIZE_MAX), MOE_OK);
    assert_memory_not_equal(before, caller.token, sizeof before);
}

static void any_spoilt_byte_ends_it(void **state)
{
    const size_t n_caller = 40 + 2 + 21 + MEET_MAC, n_called = 40 + 2 + 7 + MEET_MAC;

    (void)state;
    for (size_t i = 0; i < n_caller + n_called; i++) {
        n_recorded[0] = n_recorded[1] = 0;
        begin(&key, &key);
        moe_status status = run(64, i < n_caller ? i : SIZE_MAX, i < n_caller ? SIZE_MAX : i - n_caller);
        bool both = caller.stage == MEET_DONE && called.stage == MEET_DONE;
        assert_false(status == MOE_OK && both);
        /* An end that is done may have been served before the damage; the other's address is right all the same. */
        assert_true(called.stage != MEET_DONE || memcmp(called.theirs, "address of the caller", 21) == 0);
        assert_true(caller.stage != MEET_DONE || memcmp(caller.theirs, "address", 7) == 0);
    }
}

static void another_secret_is_denied(void **state)
{
    (void)state;
    begin(&key, &other_key);
    assert_int_equal(run(64, SIZE_MAX, SIZE_MAX), MOE_ERR_DENIED);
    assert_int_not_equal(called.stage, MEET_DONE);
}

static void one_secret_alone_is_denied(void **state)
{
    (void)state;
    begin(&no_key, &key);
    assert_int_equal(run(64, SIZE_MAX, SIZE_MAX), MOE_ERR_DENIED);
    assert_contains(err.text, "the other end has no cluster secret, this end has one");
}

static void a_callers_part_played_again_is_denied(void **state)
{
    size_t used;

    (void)state;
    begin(&key, &key);
    assert_int_equal(run(64, SIZE_MAX, SIZE_MAX), MOE_OK);
    assert_int_equal(meet_begin(&called, false, &key), MOE_OK);
    assert_int_equal(meet_receive(&called, recorded[0], n_recorded[0], &used, &err), MOE_ERR_DENIED);
}

static void the_callers_own_part_sent_back_is_denied(void **state)
{
    size_t used;

    (void)state;
    begin(&key, &key);
    memcpy(recorded[0], caller.out, caller.n_out);
    assert_int_equal(meet_receive(&caller, recorded[0], caller.n_out, &used, &err), MOE_OK); /* its own nonce */
    caller.n_out = 0;
    offer_when_due(&caller);
    memcpy(recorded[0], caller.out, caller.n_out);
    assert_int_equal(meet_receive(&caller, recorded[0], caller.n_out, &used, &err), MOE_ERR_DENIED);
}

static void who_is_refused_learns_it(void **state)
{
    size_t used;

    (void)state;
    begin(&key, &key);
    assert_int_equal(carry(&called, &caller, 64, SIZE_MAX), MOE_OK);
    meet_refuse(&called);
    assert_int_equal(meet_receive(&caller, called.out, called.n_out, &used, &err), MOE_ERR_DENIED);
    assert_contains(err.text, "does not accept our proof");
}

static void what_is_no_member_is_refused(void **state)
{
    static const char http[] = "GET / HTTP/1.1\r\nHost: localhost:1234\r\nAccept: */*\r\n\r\n";
    size_t used;

    (void)state;
    begin(&key, &key);
    assert_int_equal(meet_receive(&called, (const unsigned char *)http, sizeof http, &used, &err), MOE_ERR_CORRUPT);
}

static void an_address_above_the_limit_is_refused(void **state)
{
    static const unsigned char head[2] = {0x01, 0x08}; /* 2049 */
    static const unsigned char long_address[MEET_MAX_ADDRESS + 1];
    size_t used;

    (void)state;
    begin(&no_key, &no_key);
    assert_int_equal(meet_receive(&called, caller.out, caller.n_out, &used, &err), MOE_OK);
    assert_int_equal(meet_receive(&called, head, 2, &used, &err), MOE_ERR_CORRUPT);
    assert_contains(err.text, "2049");
    assert_int_equal(meet_receive(&caller, called.out, called.n_out, &used, &err), MOE_OK);
    assert_int_equal(meet_offer(&caller, long_address, sizeof long_address), MOE_ERR_UNSUPPORTED);
}

#define TEST(f) cmocka_unit_test_setup(f, setup)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(both_ends_learn_the_others_address),
        TEST(without_a_secret_they_meet_as_well),
        TEST(tokens_differ_from_meeting_to_meeting),
        TEST(any_spoilt_byte_ends_it),
        TEST(another_secret_is_denied),
        TEST(one_secret_alone_is_denied),
        TEST(a_callers_part_played_again_is_denied),
        TEST(the_callers_own_part_sent_back_is_denied),
        TEST(who_is_refused_learns_it),
        TEST(what_is_no_member_is_refused),
        TEST(an_address_above_the_limit_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
