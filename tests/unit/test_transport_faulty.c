#include "tests/support/support.h"

#include "transport/transport.h"

typedef struct seen {
    char log[512];
} seen;

static transport_loopback_net *net;
static transport *sender, *receiver;
static transport_peer peer;
static seen at_sender, at_receiver;
static moe_clock_virtual now;
static int n_done;

static void on_message(void *ctx, transport_peer from, const unsigned char *bytes, size_t n)
{
    seen *s = ctx;
    size_t used = strlen(s->log);

    (void)from;
    assert_true(used + n + 2 < sizeof s->log);
    memcpy(s->log + used, bytes, n);
    memcpy(s->log + used + n, ",", 2);
}

static void on_peer(void *ctx, transport_peer from, transport_peer_event event, const char *why)
{
    (void)why;
    if (event != TRANSPORT_UP) {
        on_message(ctx, from, (const unsigned char *)"down", 4);
    }
}

static void on_done(transport_msg *msg, moe_status status)
{
    (void)msg;
    (void)status;
    n_done++;
}

static void open_with(transport_fault fault, uint32_t per_mille)
{
    transport_loopback_options o = {.net = NULL, .address = "s", .max_message = 64, .max_peers = 4, .max_queued = 64};
    transport *inner;

    at_sender = at_receiver = (seen){""};
    n_done = 0;
    moe_clock_virtual_init(&now, 1000);
    assert_int_equal(transport_loopback_net_open(2, &net), MOE_OK);
    o.net = net;
    assert_int_equal(transport_loopback_open(&o, &inner), MOE_OK);
    o.address = "r";
    assert_int_equal(transport_loopback_open(&o, &receiver), MOE_OK);
    transport_faulty_options f = {.inner = inner, .clock = &now.clock, .seed = 1, .max_delay_ns = 100};
    f.per_mille[fault] = per_mille;
    assert_int_equal(transport_faulty_open(&f, &sender), MOE_OK);
    sender->handler = (transport_handler){&at_sender, on_message, on_peer};
    receiver->handler = (transport_handler){&at_receiver, on_message, on_peer};
    assert_int_equal(sender->ops->connect(sender, "r", &peer), MOE_OK);
    receiver->ops->progress(receiver);
}

static int teardown(void **state)
{
    (void)state;
    transport_close(sender);
    transport_close(receiver);
    transport_loopback_net_close(net);
    return 0;
}

static void send_text(const char *text)
{
    transport_msg msg = {.parts = {{text, strlen(text)}}, .n_parts = 1, .done = on_done};

    assert_int_equal(sender->ops->send(sender, peer, &msg), MOE_OK);
}

static void run(void)
{
    for (int i = 0; i < 4; i++) {
        sender->ops->progress(sender);
        receiver->ops->progress(receiver);
    }
}

static void without_faults_everything_passes_in_order(void **state)
{
    (void)state;
    open_with(TRANSPORT_FAULT_DROP, 0);
    send_text("a");
    send_text("b");
    run();
    assert_string_equal(at_receiver.log, "a,b,");
    assert_int_equal(n_done, 2);
}

static void a_dropped_frame_is_done_and_never_comes(void **state)
{
    (void)state;
    open_with(TRANSPORT_FAULT_DROP, 1000);
    send_text("a");
    run();
    assert_string_equal(at_receiver.log, "");
    assert_int_equal(n_done, 1);
    assert_int_equal(transport_faulty_counts(sender)[TRANSPORT_FAULT_DROP], 1);
}

static void a_duplicate_comes_twice(void **state)
{
    (void)state;
    open_with(TRANSPORT_FAULT_DUPLICATE, 1000);
    send_text("a");
    run();
    assert_string_equal(at_receiver.log, "a,a,");
}

static void a_delayed_frame_waits_for_the_clock(void **state)
{
    (void)state;
    open_with(TRANSPORT_FAULT_DELAY, 1000);
    send_text("a");
    run();
    assert_string_equal(at_receiver.log, "");
    moe_clock_virtual_advance(&now, 100);
    run();
    assert_string_equal(at_receiver.log, "a,");
}

static void a_frame_put_behind_comes_after_the_next(void **state)
{
    (void)state;
    open_with(TRANSPORT_FAULT_REORDER, 1000);
    send_text("a");
    transport_faulty_enable(sender, false);
    send_text("b");
    transport_faulty_enable(sender, true);
    run();
    assert_string_equal(at_receiver.log, "b,a,");
    assert_int_equal(transport_faulty_counts(sender)[TRANSPORT_FAULT_REORDER], 1);
}

static void a_truncated_frame_is_shorter(void **state)
{
    (void)state;
    open_with(TRANSPORT_FAULT_TRUNCATE, 1000);
    send_text("0123456789");
    run();
    assert_in_range(strlen(at_receiver.log), 1, 10);
}

static void a_flip_changes_one_bit(void **state)
{
    int bits = 0;

    (void)state;
    open_with(TRANSPORT_FAULT_FLIP, 1000);
    send_text("pppppppp");
    run();
    for (int i = 0; i < 8; i++) {
        bits += __builtin_popcount((unsigned)(at_receiver.log[i] ^ 'p') & 255u);
    }
    assert_int_equal(bits, 1);
}

static void a_kill_breaks_the_connection_for_both(void **state)
{
    (void)state;
    open_with(TRANSPORT_FAULT_KILL, 1000);
    send_text("a");
    run();
    assert_string_equal(at_sender.log, "down,");
    assert_string_equal(at_receiver.log, "down,");
}

static void switched_off_it_sends_on_what_it_held(void **state)
{
    (void)state;
    open_with(TRANSPORT_FAULT_DELAY, 1000);
    send_text("a");
    transport_faulty_enable(sender, false);
    send_text("b");
    run();
    assert_string_equal(at_receiver.log, "a,b,");
}

#define TEST(f) cmocka_unit_test_teardown(f, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(without_faults_everything_passes_in_order),
        TEST(a_dropped_frame_is_done_and_never_comes),
        TEST(a_duplicate_comes_twice),
        TEST(a_delayed_frame_waits_for_the_clock),
        TEST(a_frame_put_behind_comes_after_the_next),
        TEST(a_truncated_frame_is_shorter),
        TEST(a_flip_changes_one_bit),
        TEST(a_kill_breaks_the_connection_for_both),
        TEST(switched_off_it_sends_on_what_it_held),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
