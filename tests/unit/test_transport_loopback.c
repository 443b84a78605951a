#include "tests/support/support.h"

#include "transport/transport.h"

/* One end: what it was told, in order. */
typedef struct end {
    transport *t;
    transport_peer peer; /* of the last UP */
    char log[256];       /* "up", "down", and the bytes of messages, comma-separated */
    transport_peer close_on_message;
} end;

static transport_loopback_net *net;
static end a, b;
static int n_done;
static moe_status last_done;

static void note(end *e, const char *text, size_t n)
{
    size_t used = strlen(e->log);

    assert_true(used + n + 2 < sizeof e->log);
    memcpy(e->log + used, text, n);
    memcpy(e->log + used + n, ",", 2);
}

static void on_message(void *ctx, transport_peer peer, const unsigned char *bytes, size_t n)
{
    end *e = ctx;

    note(e, (const char *)bytes, n);
    if (e->close_on_message == peer) {
        e->t->ops->peer_close(e->t, peer);
    }
}

static void on_peer(void *ctx, transport_peer peer, transport_peer_event event, const char *why)
{
    end *e = ctx;

    (void)why;
    e->peer = event == TRANSPORT_UP ? peer : e->peer;
    note(e, event == TRANSPORT_UP ? "up" : "down", event == TRANSPORT_UP ? 2 : 4);
}

static void on_done(transport_msg *msg, moe_status status)
{
    (void)msg;
    n_done++;
    last_done = status;
}

static void end_open(end *e, const char *address, size_t max_peers, size_t max_queued)
{
    const transport_loopback_options options = {
        .net = net, .address = address, .max_message = 64, .max_peers = max_peers, .max_queued = max_queued};

    *e = (end){0};
    assert_int_equal(transport_loopback_open(&options, &e->t), MOE_OK);
    e->t->handler = (transport_handler){e, on_message, on_peer};
}

static int setup(void **state)
{
    (void)state;
    n_done = 0;
    last_done = MOE_ERR_INTERNAL;
    assert_int_equal(transport_loopback_net_open(4, &net), MOE_OK);
    end_open(&a, "a", 2, 3);
    end_open(&b, "b", 2, 3);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    transport_close(a.t);
    transport_close(b.t);
    transport_loopback_net_close(net);
    return 0;
}

static transport_peer join(void)
{
    transport_peer peer;

    assert_int_equal(a.t->ops->connect(a.t, "b", &peer), MOE_OK);
    a.t->ops->progress(a.t);
    b.t->ops->progress(b.t);
    return peer;
}

static transport_msg text(const char *bytes)
{
    return (transport_msg){.parts = {{bytes, strlen(bytes)}}, .n_parts = 1, .done = on_done};
}

static void both_ends_are_told_up(void **state)
{
    (void)state;
    transport_peer peer = join();
    assert_string_equal(a.log, "up,");
    assert_string_equal(b.log, "up,");
    assert_true(a.peer == peer);
}

static void frames_arrive_in_order_and_are_done_then(void **state)
{
    transport_msg one = text("one"), two = text("two");

    (void)state;
    transport_peer peer = join();
    assert_int_equal(a.t->ops->send(a.t, peer, &one), MOE_OK);
    assert_int_equal(a.t->ops->send(a.t, peer, &two), MOE_OK);
    assert_int_equal(n_done, 0);
    assert_int_equal(b.t->ops->progress(b.t), 2);
    assert_string_equal(b.log, "up,one,two,");
    assert_int_equal(n_done, 2);
    assert_int_equal(last_done, MOE_OK);
}

static void two_parts_arrive_as_one_frame(void **state)
{
    transport_msg msg = {.parts = {{"head", 4}, {"tail", 4}}, .n_parts = 2, .done = on_done};

    (void)state;
    assert_int_equal(a.t->ops->send(a.t, join(), &msg), MOE_OK);
    b.t->ops->progress(b.t);
    assert_string_equal(b.log, "up,headtail,");
}

static const unsigned char *seen_at;

static void remember(void *ctx, transport_peer peer, const unsigned char *bytes, size_t n)
{
    (void)ctx;
    (void)peer;
    (void)n;
    seen_at = bytes;
}

static void one_part_is_not_copied(void **state)
{
    static const char bytes[] = "here";
    transport_msg msg = text(bytes);

    (void)state;
    transport_peer peer = join();
    b.t->handler.on_message = remember;
    assert_int_equal(a.t->ops->send(a.t, peer, &msg), MOE_OK);
    b.t->ops->progress(b.t);
    assert_ptr_equal(seen_at, bytes);
}

static void a_full_queue_is_busy_until_progress(void **state)
{
    transport_msg m[4] = {text("1"), text("2"), text("3"), text("4")};

    (void)state;
    transport_peer peer = join();
    for (int i = 0; i < 3; i++) {
        assert_int_equal(a.t->ops->send(a.t, peer, &m[i]), MOE_OK);
    }
    assert_int_equal(a.t->ops->send(a.t, peer, &m[3]), MOE_ERR_BUSY);
    b.t->ops->progress(b.t);
    assert_int_equal(a.t->ops->send(a.t, peer, &m[3]), MOE_OK);
    b.t->ops->progress(b.t);
    assert_int_equal(n_done, 4);
}

static void a_frame_above_the_limit_is_refused(void **state)
{
    char big[65] = {0};
    transport_msg msg = {.parts = {{big, sizeof big}}, .n_parts = 1, .done = on_done};

    (void)state;
    assert_int_equal(a.t->ops->send(a.t, join(), &msg), MOE_ERR_INVALID_ARG);
    assert_int_equal(n_done, 0);
}

static void closing_cancels_what_is_under_way(void **state)
{
    transport_msg msg = text("late");

    (void)state;
    transport_peer peer = join();
    assert_int_equal(a.t->ops->send(a.t, peer, &msg), MOE_OK);
    a.t->ops->peer_close(a.t, peer);
    assert_int_equal(n_done, 1);
    assert_int_equal(last_done, MOE_ERR_CANCELLED);
    b.t->ops->progress(b.t);
    assert_string_equal(b.log, "up,down,");
    assert_int_equal(a.t->ops->send(a.t, peer, &msg), MOE_ERR_UNAVAILABLE);
}

static void an_endpoint_that_closes_gives_frames_back(void **state)
{
    transport_msg msg = text("late");

    (void)state;
    assert_int_equal(a.t->ops->send(a.t, join(), &msg), MOE_OK);
    transport_close(b.t);
    b.t = NULL;
    assert_int_equal(n_done, 1);
    a.t->ops->progress(a.t);
    assert_string_equal(a.log, "up,down,");
}

static void a_peer_may_be_closed_while_its_frame_is_handled(void **state)
{
    transport_msg m[2] = {text("1"), text("2")};

    (void)state;
    transport_peer peer = join();
    b.close_on_message = b.peer;
    assert_int_equal(a.t->ops->send(a.t, peer, &m[0]), MOE_OK);
    assert_int_equal(a.t->ops->send(a.t, peer, &m[1]), MOE_OK);
    b.t->ops->progress(b.t);
    assert_string_equal(b.log, "up,1,");
    assert_int_equal(n_done, 2);
    a.t->ops->progress(a.t);
    assert_string_equal(a.log, "up,down,");
}

static void a_second_connection_has_another_number(void **state)
{
    (void)state;
    transport_peer first = join();
    a.t->ops->peer_close(a.t, first);
    b.t->ops->progress(b.t);
    assert_true(join() != first);
}

static void connecting_to_nobody_is_unavailable(void **state)
{
    transport_peer peer;

    (void)state;
    assert_int_equal(a.t->ops->connect(a.t, "c", &peer), MOE_ERR_UNAVAILABLE);
}

static void connections_are_bounded_at_both_ends(void **state)
{
    transport_peer peer;

    (void)state;
    join();
    join();
    assert_int_equal(a.t->ops->connect(a.t, "b", &peer), MOE_ERR_BUSY);
    assert_int_equal(b.t->ops->connect(b.t, "a", &peer), MOE_ERR_BUSY);
}

static void an_address_is_taken_once(void **state)
{
    const transport_loopback_options again = {
        .net = net, .address = "a", .max_message = 64, .max_peers = 1, .max_queued = 1};
    transport *t = NULL;

    (void)state;
    assert_int_equal(transport_loopback_open(&again, &t), MOE_ERR_EXISTS);
}

static unsigned poll_b(void *ctx)
{
    end *e = ctx;

    return e->t->ops->progress(e->t);
}

static void a_member_progresses_with_the_endpoint(void **state)
{
    transport_msg msg = text("x");

    (void)state;
    transport_peer peer = join();
    transport_loopback_set_member_poll(a.t, poll_b, &b);
    assert_int_equal(a.t->ops->send(a.t, peer, &msg), MOE_OK);
    assert_int_equal(a.t->ops->progress(a.t), 1);
    assert_string_equal(b.log, "up,x,");
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(both_ends_are_told_up),
        TEST(frames_arrive_in_order_and_are_done_then),
        TEST(two_parts_arrive_as_one_frame),
        TEST(one_part_is_not_copied),
        TEST(a_full_queue_is_busy_until_progress),
        TEST(a_frame_above_the_limit_is_refused),
        TEST(closing_cancels_what_is_under_way),
        TEST(an_endpoint_that_closes_gives_frames_back),
        TEST(a_peer_may_be_closed_while_its_frame_is_handled),
        TEST(a_second_connection_has_another_number),
        TEST(connecting_to_nobody_is_unavailable),
        TEST(connections_are_bounded_at_both_ends),
        TEST(an_address_is_taken_once),
        TEST(a_member_progresses_with_the_endpoint),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
