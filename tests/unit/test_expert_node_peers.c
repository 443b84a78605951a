/* A node with two coordinators, of which one sends and does not read: it holds up itself alone. */
#include "proto/wire.h"
#include "tests/sim/world.h"

enum { WIDTH = 8, ROWS = 4, TOP_K = 2, FLOOD = 400 };

typedef struct coordinator {
    transport *t;
    transport_peer peer;
    bool is_down;
    size_t n_pongs, n_results, n_busy;
    transport_msg msg;
    unsigned char frame[4096];
} coordinator;

static world w;
static coordinator greedy, modest;

static void on_message(void *ctx, transport_peer from, const unsigned char *bytes, size_t n)
{
    coordinator *c = ctx;
    wire_refuse refuse;
    wire_type type;
    moe_error err;

    (void)from;
    assert_ok(wire_open(bytes, n, &type, &err), err);
    c->n_pongs += type == WIRE_PONG;
    c->n_results += type == WIRE_RESULT;
    if (type == WIRE_REFUSE) {
        assert_ok(wire_get_refuse(bytes, n, &refuse, &err), err);
        assert_int_equal(refuse.reason, WIRE_REFUSE_BUSY);
        c->n_busy++;
    }
}

static void on_peer(void *ctx, transport_peer from, transport_peer_event event, const char *why)
{
    coordinator *c = ctx;

    (void)from;
    (void)why;
    c->is_down = event != TRANSPORT_UP;
}

static void node_turn(void)
{
    (void)expert_node_progress(w.nodes[0].node);
}

static void done(transport_msg *msg, moe_status status)
{
    (void)msg;
    (void)status;
}

static void send_frame(coordinator *c, moe_buf *b)
{
    size_t n = wire_finish(b);

    assert_true(n > 0);
    c->msg = (transport_msg){.parts = {{c->frame, n}}, .n_parts = 1, .done = done};
    assert_int_equal(c->t->ops->send(c->t, c->peer, &c->msg), MOE_OK);
}

static void send_ping(coordinator *c)
{
    moe_buf b;

    moe_buf_init(&b, c->frame, sizeof c->frame);
    wire_put_ping(&b, &(wire_ping){.token = 4711});
    send_frame(c, &b);
}

static void send_dispatch(coordinator *c)
{
    const wire_dispatch d = {
        .request = {1, 2, 1, 0, 3}, .d_model = WIDTH, .dtype = WIRE_F32, .n_rows = 1, .n_groups = 1, .n_picks = 1};
    moe_buf b;

    moe_buf_init(&b, c->frame, sizeof c->frame);
    wire_dispatch_begin(&b, &d);
    wire_put_group(&b, (wire_group){0, 1});
    moe_put_u32(&b, 0);
    unsigned char *rows = wire_put_rows(&b, 1, WIDTH, WIRE_F32);
    assert_non_null(rows);
    memset(rows, 0x3f, WIDTH * wire_dtype_bytes(WIRE_F32));
    send_frame(c, &b);
}

static void send_hello(coordinator *c, const char *member)
{
    wire_hello h = {.role = WIRE_COORDINATOR,
                    .cluster = "sim",
                    .d_model = WIDTH,
                    .max_message = 1 << 16,
                    .max_rows = ROWS,
                    .max_picks = ROWS * TOP_K};
    moe_buf b;

    (void)snprintf(h.member, sizeof h.member, "%s", member);
    (void)snprintf(h.numeric_class, sizeof h.numeric_class, "%s", compute_class_name(w.o.numeric_class));
    moe_buf_init(&b, c->frame, sizeof c->frame);
    wire_put_hello(&b, &h);
    send_frame(c, &b);
}

static void coordinator_open_at(coordinator *c, const char *address, const char *name)
{
    const transport_loopback_options o = {
        .net = w.net, .address = address, .max_message = 1 << 16, .max_peers = 2, .max_queued = 4};

    *c = (coordinator){0};
    assert_int_equal(transport_loopback_open(&o, &c->t), MOE_OK);
    c->t->handler = (transport_handler){c, on_message, on_peer};
    assert_int_equal(c->t->ops->connect(c->t, "node-0", &c->peer), MOE_OK);
    c->t->ops->progress(c->t);
    node_turn();
    send_hello(c, name);
    node_turn();
    c->t->ops->progress(c->t);
    assert_false(c->is_down);
}

static void coordinator_open(coordinator *c, const char *name)
{
    coordinator_open_at(c, name, name);
}

static int setup(void **state)
{
    const world_options o = {.n_layers = 2,
                             .n_experts = 4,
                             .k = TOP_K,
                             .d_model = WIDTH,
                             .d_ff = 4,
                             .max_rows = ROWS,
                             .n_nodes = 1,
                             .replication = 1};

    (void)state;
    world_open(&w, &o);
    coordinator_open(&greedy, "greedy");
    coordinator_open(&modest, "modest");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    transport_close(greedy.t);
    transport_close(modest.t);
    world_close(&w);
    return 0;
}

static expert_node_stats stats(void)
{
    expert_node_stats s;

    expert_node_get_stats(w.nodes[0].node, &s);
    return s;
}

/* What the one sends is answered in the turn in which it comes, whatever the other holds. */
static void flood(void (*send)(coordinator *c))
{
    for (int i = 0; i < FLOOD; i++) {
        send(&greedy);
        node_turn();
    }
    for (size_t i = 1; i <= 100; i++) {
        send(&greedy);
        send_ping(&modest);
        node_turn();
        modest.t->ops->progress(modest.t);
        assert_int_equal(modest.n_pongs, i);
        send_dispatch(&modest);
        node_turn();
        modest.t->ops->progress(modest.t);
        assert_int_equal(modest.n_results, i);
    }
    assert_false(greedy.is_down || modest.is_down);
}

static void read_all(coordinator *c)
{
    for (int i = 0; i < FLOOD; i++) {
        c->t->ops->progress(c->t);
        node_turn();
    }
}

static void who_pings_and_does_not_read_holds_up_itself_alone(void **state)
{
    (void)state;
    flood(send_ping);
    assert_true(stats().unsent > 0);
    read_all(&greedy);
    assert_true(greedy.n_pongs > 0 && greedy.n_pongs < FLOOD);
    assert_int_equal(stats().frames_out, 0);
    size_t before = greedy.n_pongs;
    send_ping(&greedy);
    read_all(&greedy);
    assert_int_equal(greedy.n_pongs, before + 1);
}

static void who_dispatches_and_does_not_read_holds_up_itself_alone(void **state)
{
    (void)state;
    flood(send_dispatch);
    read_all(&greedy);
    assert_true(greedy.n_results > 0 && greedy.n_busy > 0);
    assert_int_equal(modest.n_busy, 0);
    assert_int_equal(stats().frames_out, 0);
    size_t before = greedy.n_results;
    send_dispatch(&greedy);
    read_all(&greedy);
    assert_int_equal(greedy.n_results, before + 1);
}

/* Frames for it that wait are nobody's. */
static void who_leaves_without_reading_leaves_nothing(void **state)
{
    (void)state;
    flood(send_dispatch);
    for (int i = 0; i < FLOOD; i++) {
        send_ping(&greedy);
        node_turn();
    }
    transport_close(greedy.t);
    greedy.t = NULL;
    node_turn();
    node_turn();
    assert_int_equal(stats().frames_out, 0);
    modest.n_pongs = 0;
    send_ping(&modest);
    node_turn();
    modest.t->ops->progress(modest.t);
    assert_int_equal(modest.n_pongs, 1);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

/* The one before is over for it, be it that the end of that has not come yet; and nobody can take all places. */
static void a_coordinator_has_one_connection(void **state)
{
    coordinator again;

    (void)state;
    coordinator_open_at(&again, "from-elsewhere", "modest");
    send_ping(&again);
    node_turn();
    modest.t->ops->progress(modest.t);
    greedy.t->ops->progress(greedy.t);
    again.t->ops->progress(again.t);
    const uint64_t n_connected = stats().coordinators;
    transport_close(again.t);
    assert_true(modest.is_down);
    assert_false(greedy.is_down);
    assert_int_equal(n_connected, 2);
    assert_int_equal(again.n_pongs, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(who_pings_and_does_not_read_holds_up_itself_alone),
        TEST(who_dispatches_and_does_not_read_holds_up_itself_alone),
        TEST(who_leaves_without_reading_leaves_nothing),
        TEST(a_coordinator_has_one_connection),
    };

    moe_log_set_level(MOE_LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
