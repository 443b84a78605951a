#include "tests/support/support.h"

#include "transport/transport.h"

/* A transport that is busy as long as it is told to be and keeps what it was sent. */
static moe_status answer;
static transport_peer busy; /* this one is busy, whatever the answer */
static transport_msg *sent[8];
static size_t n_sent;

static moe_status fake_send(transport *t, transport_peer peer, transport_msg *msg)
{
    (void)t;
    if (peer == busy) {
        return MOE_ERR_BUSY;
    }
    if (answer == MOE_OK) {
        sent[n_sent++] = msg;
    }
    return answer;
}

static const transport_ops fake_ops = {.name = "fake", .send = fake_send};
static transport fake = {.ops = &fake_ops, .max_message = 1000};

static void a_taken_frame_is_nobody_elses(void **state)
{
    transport_frames *frames = NULL;

    (void)state;
    assert_int_equal(transport_frames_open(&fake, 2, 100, NULL, &frames), MOE_OK);
    transport_frame *a = transport_frames_take(frames);
    transport_frame *b = transport_frames_take(frames);
    assert_ptr_not_equal(a, b);
    assert_true(a->data + 100 <= b->data || b->data + 100 <= a->data);
    assert_null(transport_frames_take(frames));
    transport_frame_release(a);
    assert_ptr_equal(transport_frames_take(frames), a);
    transport_frame_release(a);
    transport_frame_release(b);
    transport_frames_close(frames);
}

/* 2 for each of 3 peers, and 1 for whoever needs it. */
static void each_peer_can_have_its_own_frames(void **state)
{
    enum { OWN = 2, PEERS = 3, ALL = OWN * PEERS + 1, KEPT = OWN * (PEERS - 1) };
    transport_frames *frames = NULL;
    transport_frame *f[ALL];
    size_t n = 0;

    (void)state;
    assert_int_equal(transport_frames_open(&fake, ALL, 100, NULL, &frames), MOE_OK);
    while (n < ALL && (f[n] = transport_frames_take_for(frames, 1, OWN, KEPT)) != NULL) {
        n++;
    }
    assert_int_equal(n, ALL - KEPT);
    for (transport_peer peer = 2; peer <= PEERS; peer++) {
        for (size_t i = 0; i < OWN; i++) {
            f[n] = transport_frames_take_for(frames, peer, OWN, KEPT);
            assert_non_null(f[n]);
            n++;
        }
        assert_null(transport_frames_take_for(frames, peer, OWN, KEPT));
    }
    assert_int_equal(n, ALL);
    transport_frame_release(f[--n]);
    assert_null(transport_frames_take_for(frames, 1, OWN, KEPT));
    while (n > 0) {
        transport_frame_release(f[--n]);
    }
    f[0] = transport_frames_take_for(frames, 1, OWN, KEPT);
    assert_non_null(f[0]);
    transport_frame_release(f[0]);
    transport_frames_close(frames);
}

static void frames_are_aligned(void **state)
{
    transport_frames *frames = NULL;

    (void)state;
    assert_int_equal(transport_frames_open(&fake, 3, 65, NULL, &frames), MOE_OK);
    transport_frame *f[3];
    for (int i = 0; i < 3; i++) {
        f[i] = transport_frames_take(frames);
        assert_int_equal((uintptr_t)f[i]->data % 64, 0);
    }
    assert_int_equal(transport_frames_out(frames), 3);
    for (int i = 0; i < 3; i++) {
        transport_frame_release(f[i]);
    }
    transport_frames_close(frames);
}

static void sizes_that_overflow_are_refused(void **state)
{
    transport_frames *frames = NULL;

    (void)state;
    assert_int_equal(transport_frames_open(&fake, SIZE_MAX / 4, 64, NULL, &frames), MOE_ERR_NO_MEMORY);
    assert_int_equal(transport_frames_open(&fake, 1, SIZE_MAX, NULL, &frames), MOE_ERR_NO_MEMORY);
}

static transport_frames *posted(moe_status status, size_t n)
{
    transport_frames *frames = NULL;

    answer = status;
    busy = 0;
    n_sent = 0;
    assert_int_equal(transport_frames_open(&fake, 4, 100, NULL, &frames), MOE_OK);
    for (size_t i = 0; i < n; i++) {
        transport_frame *f = transport_frames_take(frames);

        f->data[0] = (unsigned char)i;
        transport_frame_post(f, 1, 10);
    }
    return frames;
}

static void a_frame_is_back_when_its_send_is_done(void **state)
{
    transport_frames *frames = posted(MOE_OK, 1);

    (void)state;
    assert_int_equal(transport_frames_out(frames), 1);
    sent[0]->done(sent[0], MOE_OK);
    assert_int_equal(transport_frames_out(frames), 0);
    transport_frames_close(frames);
}

static void a_frame_that_cannot_be_sent_is_back_at_once(void **state)
{
    transport_frames *frames = posted(MOE_ERR_UNAVAILABLE, 1);

    (void)state;
    assert_int_equal(transport_frames_out(frames), 0);
    transport_frames_close(frames);
}

static void frames_wait_in_order_while_the_transport_is_busy(void **state)
{
    transport_frames *frames = posted(MOE_ERR_BUSY, 3);

    (void)state;
    assert_int_equal(transport_frames_flush(frames), 0);
    answer = MOE_OK;
    assert_int_equal(transport_frames_flush(frames), 3);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(*(const unsigned char *)sent[i]->parts[0].data, i);
        sent[i]->done(sent[i], MOE_OK);
    }
    assert_int_equal(transport_frames_out(frames), 0);
    transport_frames_close(frames);
}

static void a_busy_peer_does_not_hold_up_the_others(void **state)
{
    transport_frames *frames = posted(MOE_ERR_BUSY, 0);

    (void)state;
    for (unsigned char i = 0; i < 4; i++) {
        transport_frame *f = transport_frames_take(frames);

        f->data[0] = i;
        transport_frame_post(f, 1 + i % 2, 10);
    }
    answer = MOE_OK;
    busy = 1;
    assert_int_equal(transport_frames_flush(frames), 2);
    assert_int_equal(*(const unsigned char *)sent[0]->parts[0].data, 1);
    assert_int_equal(*(const unsigned char *)sent[1]->parts[0].data, 3);
    busy = 0;
    assert_int_equal(transport_frames_flush(frames), 2);
    assert_int_equal(*(const unsigned char *)sent[2]->parts[0].data, 0);
    assert_int_equal(*(const unsigned char *)sent[3]->parts[0].data, 2);
    for (size_t i = 0; i < 4; i++) {
        sent[i]->done(sent[i], MOE_OK);
    }
    transport_frames_close(frames);
}

static void frames_to_a_peer_that_waits_keep_their_order(void **state)
{
    transport_frames *frames = posted(MOE_ERR_BUSY, 1);

    (void)state;
    answer = MOE_OK;
    transport_frame *f = transport_frames_take(frames);
    f->data[0] = 1;
    transport_frame_post(f, 1, 10);
    assert_int_equal(n_sent, 0);
    assert_int_equal(transport_frames_flush(frames), 2);
    for (unsigned char i = 0; i < 2; i++) {
        assert_int_equal(*(const unsigned char *)sent[i]->parts[0].data, i);
        sent[i]->done(sent[i], MOE_OK);
    }
    transport_frames_close(frames);
}

static void waiting_frames_go_with_the_buffers(void **state)
{
    transport_frames *frames = posted(MOE_ERR_BUSY, 2);

    (void)state;
    assert_int_equal(transport_frames_out(frames), 2);
    transport_frames_close(frames);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_taken_frame_is_nobody_elses),
        cmocka_unit_test(each_peer_can_have_its_own_frames),
        cmocka_unit_test(frames_are_aligned),
        cmocka_unit_test(a_frame_is_back_when_its_send_is_done),
        cmocka_unit_test(a_frame_that_cannot_be_sent_is_back_at_once),
        cmocka_unit_test(frames_wait_in_order_while_the_transport_is_busy),
        cmocka_unit_test(a_busy_peer_does_not_hold_up_the_others),
        cmocka_unit_test(frames_to_a_peer_that_waits_keep_their_order),
        cmocka_unit_test(waiting_frames_go_with_the_buffers),
        cmocka_unit_test(sizes_that_overflow_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
