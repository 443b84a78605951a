/* A node against a hand-made coordinator: what it honours, refuses, and closes the connection for. */
#include "proto/wire.h"
#include "tests/sim/world.h"

enum { WIDTH = 8, ROWS = 4, TOP_K = 2 };

static world w;
static transport *end;
static transport_peer peer;
static bool is_down;
static unsigned char got[8][4096]; /* frames that came, in order */
static size_t n_got, got_bytes[8];
static unsigned char frame[4096];

static void on_message(void *ctx, transport_peer from, const unsigned char *bytes, size_t n)
{
    (void)ctx;
    (void)from;
    wire_type type;

    if (wire_open(bytes, n, &type, NULL) == MOE_OK && type == WIRE_HOLDS) {
        return; /* tests of the link and the exchange look at these */
    }
    assert_true(n_got < 8 && n <= sizeof got[0]);
    memcpy(got[n_got], bytes, n);
    got_bytes[n_got++] = n;
}

static void on_peer(void *ctx, transport_peer from, transport_peer_event event, const char *why)
{
    (void)ctx;
    (void)from;
    (void)why;
    is_down = event != TRANSPORT_UP;
}

static void turn(void)
{
    for (int i = 0; i < 3; i++) {
        end->ops->progress(end);
        (void)expert_node_progress(w.nodes[0].node);
    }
}

static const char *const the_secret = "between members only";

static void open_with(const char *secret)
{
    const world_options o = {.secret = secret,
                             .n_layers = 2,
                             .n_experts = 4,
                             .k = TOP_K,
                             .d_model = WIDTH,
                             .d_ff = 4,
                             .max_rows = ROWS,
                             .n_nodes = 1,
                             .replication = 1};

    world_open(&w, &o);
    const transport_loopback_options loopback = {
        .net = w.net, .address = "client", .max_message = 1 << 16, .max_peers = 2, .max_queued = 16};
    assert_int_equal(transport_loopback_open(&loopback, &end), MOE_OK);
    end->handler = (transport_handler){NULL, on_message, on_peer};
    n_got = 0;
    is_down = false;
    assert_int_equal(end->ops->connect(end, "node-0", &peer), MOE_OK);
    turn();
}

static int setup(void **state)
{
    (void)state;
    open_with(NULL);
    return 0;
}

static int setup_secret(void **state)
{
    (void)state;
    open_with(the_secret);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    transport_close(end);
    world_close(&w);
    return 0;
}

static void done(transport_msg *msg, moe_status status)
{
    (void)msg;
    (void)status;
}

static void send_bytes(size_t n)
{
    transport_msg msg = {.parts = {{frame, n}}, .n_parts = 1, .done = done};

    assert_true(n > 0);
    assert_int_equal(end->ops->send(end, peer, &msg), MOE_OK);
    turn();
}

static wire_hello hello_of(const char *cluster)
{
    wire_hello h = {.role = WIRE_COORDINATOR,
                    .member = "client",
                    .d_model = WIDTH,
                    .max_message = 1 << 16,
                    .max_rows = ROWS,
                    .max_picks = ROWS * TOP_K};

    (void)snprintf(h.cluster, sizeof h.cluster, "%s", cluster);
    (void)snprintf(h.numeric_class, sizeof h.numeric_class, "%s", compute_class_name(w.o.numeric_class));
    return h;
}

static void send_this_hello(const wire_hello *h)
{
    moe_buf b;

    moe_buf_init(&b, frame, sizeof frame);
    wire_put_hello(&b, h);
    send_bytes(wire_finish(&b));
}

static void send_hello(const char *cluster)
{
    const wire_hello h = hello_of(cluster);

    send_this_hello(&h);
}

static void greet(void)
{
    send_hello("sim");
    assert_int_equal(n_got, 1);
    n_got = 0;
}

static wire_dispatch good(void)
{
    return (wire_dispatch){
        .request = {1, 2, 1, 0, 3}, .d_model = WIDTH, .dtype = WIRE_F32, .n_rows = 2, .n_groups = 1, .n_picks = 2};
}

/* All rows to one expert. */
static size_t put_dispatch(const wire_dispatch *d, int32_t expert_id)
{
    moe_buf b;

    moe_buf_init(&b, frame, sizeof frame);
    wire_dispatch_begin(&b, d);
    wire_put_group(&b, (wire_group){expert_id, d->n_picks});
    for (uint32_t i = 0; i < d->n_picks; i++) {
        moe_put_u32(&b, i);
    }
    unsigned char *rows = wire_put_rows(&b, d->n_rows, d->d_model, d->dtype);
    assert_non_null(rows);
    memset(rows, 0x3f, (size_t)d->n_rows * d->d_model * wire_dtype_bytes(d->dtype));
    return wire_finish(&b);
}

static wire_type type_of(size_t i)
{
    wire_type type;
    moe_error err;

    assert_true(i < n_got);
    assert_ok(wire_open(got[i], got_bytes[i], &type, &err), err);
    return type;
}

static void send_ping(uint64_t epoch)
{
    moe_buf b;

    n_got = 0;
    moe_buf_init(&b, frame, sizeof frame);
    wire_put_ping(&b, &(wire_ping){.token = 4711, .epoch = epoch});
    send_bytes(wire_finish(&b));
}

static void answers_a_ping(void)
{
    wire_pong pong;
    moe_error err;

    send_ping(0);
    assert_int_equal(type_of(0), WIRE_PONG);
    assert_ok(wire_get_pong(got[0], got_bytes[0], &pong, &err), err);
    assert_int_equal(pong.token, 4711);
}

static void hello_is_answered_with_the_nodes_own(void **state)
{
    wire_hello h;
    moe_error err;

    (void)state;
    send_hello("sim");
    assert_int_equal(type_of(0), WIRE_HELLO);
    assert_ok(wire_get_hello(got[0], got_bytes[0], &h, &err), err);
    assert_string_equal(h.member, "node-0");
    assert_int_equal(h.max_rows, ROWS);
    answers_a_ping();
}

static void the_epoch_that_a_coordinator_applies_counts_while_it_is_connected(void **state)
{
    const expert_node *node = w.nodes[0].node;

    (void)state;
    assert_int_equal(expert_node_epoch_applied(node), UINT64_MAX); /* connected, but a stranger */
    greet();
    assert_int_equal(expert_node_epoch_applied(node), 0);
    send_ping(3);
    assert_int_equal(expert_node_epoch_applied(node), 3);
    send_ping(4);
    assert_int_equal(expert_node_epoch_applied(node), 4);
    end->ops->peer_close(end, peer);
    turn();
    assert_int_equal(expert_node_epoch_applied(node), UINT64_MAX);
}

static void nothing_is_honoured_before_hello(void **state)
{
    const wire_dispatch d = good();

    (void)state;
    send_bytes(put_dispatch(&d, 0));
    assert_true(is_down);
    assert_int_equal(n_got, 0);
}

static void a_stranger_of_another_cluster_is_told_why(void **state)
{
    wire_goodbye g;
    moe_error err;

    (void)state;
    send_hello("other");
    assert_int_equal(type_of(0), WIRE_GOODBYE);
    assert_ok(wire_get_goodbye(got[0], got_bytes[0], &g, &err), err);
    assert_int_equal(g.reason, WIRE_GOODBYE_REFUSED);
    assert_contains(g.text, "cluster other");
}

static void a_refused_stranger_is_not_honoured(void **state)
{
    const wire_dispatch d = good();

    (void)state;
    send_hello("other");
    send_bytes(put_dispatch(&d, 0));
    assert_true(is_down);
}

static void a_second_hello_costs_the_connection(void **state)
{
    (void)state;
    greet();
    send_hello("sim");
    assert_true(is_down);
}

static void a_damaged_frame_costs_the_connection(void **state)
{
    const wire_dispatch d = good();
    expert_node_stats stats;

    (void)state;
    greet();
    size_t n = put_dispatch(&d, 0);
    frame[n - 1] ^= 4;
    send_bytes(n);
    assert_true(is_down);
    expert_node_get_stats(w.nodes[0].node, &stats);
    assert_int_equal(stats.bad_frames, 1);
}

static void a_frame_for_coordinators_costs_the_connection(void **state)
{
    const wire_pong pong = {0};
    moe_buf b;

    (void)state;
    greet();
    moe_buf_init(&b, frame, sizeof frame);
    wire_put_pong(&b, &pong);
    send_bytes(wire_finish(&b));
    assert_true(is_down);
}

static void refuses(const wire_dispatch *d, int32_t expert_id, wire_refuse_reason reason)
{
    wire_refuse r;
    moe_error err;

    greet();
    send_bytes(put_dispatch(d, expert_id));
    assert_int_equal(type_of(0), WIRE_REFUSE);
    assert_ok(wire_get_refuse(got[0], got_bytes[0], &r, &err), err);
    assert_int_equal(r.reason, reason);
    assert_true(wire_request_equal(&r.request, &d->request));
    answers_a_ping(); /* the connection stays */
}

static void another_dtype_is_refused(void **state)
{
    wire_dispatch d = good();

    (void)state;
    d.dtype = WIRE_BF16;
    refuses(&d, 0, WIRE_REFUSE_CLASS);
}

static void another_width_is_refused(void **state)
{
    wire_dispatch d = good();

    (void)state;
    d.d_model = WIDTH + 1;
    refuses(&d, 0, WIRE_REFUSE_SHAPE);
}

static void a_layer_beyond_the_model_is_refused(void **state)
{
    wire_dispatch d = good();

    (void)state;
    d.request.layer = 2;
    refuses(&d, 0, WIRE_REFUSE_SHAPE);
}

static void too_many_rows_are_refused(void **state)
{
    wire_dispatch d = good();

    (void)state;
    d.n_rows = d.n_picks = ROWS + 1;
    refuses(&d, 0, WIRE_REFUSE_TOO_MANY);
}

static void an_expert_that_is_not_here_is_refused(void **state)
{
    wire_dispatch d = good();

    (void)state;
    refuses(&d, 1000000, WIRE_REFUSE_EXPERT);
}

static void a_dispatch_sent_twice_is_answered_twice_alike(void **state)
{
    const wire_dispatch d = good();

    (void)state;
    greet();
    send_bytes(put_dispatch(&d, 0));
    send_bytes(put_dispatch(&d, 0));
    assert_int_equal(n_got, 2);
    assert_int_equal(type_of(0), WIRE_RESULT);
    assert_int_equal(got_bytes[0], got_bytes[1]);
    assert_memory_equal(got[0], got[1], got_bytes[0]);
    assert_int_equal(expert_node_expert_rows(w.nodes[0].node, 1, 0), 4);
}

/* ------------------------------------------------------------------------------------------------ secret */
static wire_key key_of(const char *secret)
{
    wire_key key;

    assert_int_equal(wire_key_init(&key, secret, strlen(secret)), MOE_OK);
    return key;
}

static void send_proof(const unsigned char mac[32])
{
    moe_buf b;

    moe_buf_init(&b, frame, sizeof frame);
    wire_put_proof(&b, mac);
    send_bytes(wire_finish(&b));
}

/* Greets with a nonce; what the node answered is in *theirs. */
static wire_hello greet_with_nonce(wire_hello *theirs)
{
    wire_hello mine = hello_of("sim");
    moe_error err;

    mine.n_nonce = sizeof mine.nonce;
    assert_int_equal(wire_random(mine.nonce, sizeof mine.nonce), MOE_OK);
    send_this_hello(&mine);
    assert_int_equal(type_of(0), WIRE_HELLO);
    assert_ok(wire_get_hello(got[0], got_bytes[0], theirs, &err), err);
    return mine;
}

static void prove_with(const char *secret, wire_role role)
{
    wire_key key = key_of(secret);
    wire_hello theirs;
    const wire_hello mine = greet_with_nonce(&theirs);
    unsigned char mac[32];

    assert_int_equal(wire_prove(&key, role, &mine, &theirs, mac), MOE_OK);
    send_proof(mac);
}

static void refused_for_its_proof(void)
{
    expert_node_stats stats;

    assert_true(is_down);
    expert_node_get_stats(w.nodes[0].node, &stats);
    assert_int_equal(stats.auth_failures, 1);
}

static void the_node_proves_the_secret(void **state)
{
    wire_key key = key_of(the_secret);
    wire_hello theirs;

    (void)state;
    const wire_hello mine = greet_with_nonce(&theirs);
    assert_int_equal(theirs.n_mac, 32);
    assert_true(wire_proves(&key, WIRE_NODE, &mine, &theirs, theirs.mac));
}

static void who_proves_the_secret_is_served(void **state)
{
    (void)state;
    prove_with(the_secret, WIRE_COORDINATOR);
    answers_a_ping();
}

static void a_wrong_secret_costs_the_connection(void **state)
{
    (void)state;
    prove_with("another secret", WIRE_COORDINATOR);
    refused_for_its_proof();
}

static void the_proof_of_the_other_role_costs_the_connection(void **state)
{
    (void)state;
    prove_with(the_secret, WIRE_NODE);
    refused_for_its_proof();
}

static void the_nodes_own_proof_sent_back_costs_the_connection(void **state)
{
    wire_hello theirs;

    (void)state;
    (void)greet_with_nonce(&theirs);
    send_proof(theirs.mac);
    refused_for_its_proof();
}

static void a_greeting_played_again_costs_the_connection(void **state)
{
    static unsigned char hello[512], proof[512];
    wire_key key = key_of(the_secret);
    wire_hello theirs;
    unsigned char mac[32];

    (void)state;
    const wire_hello mine = greet_with_nonce(&theirs);
    memcpy(hello, frame, sizeof hello);
    assert_int_equal(wire_prove(&key, WIRE_COORDINATOR, &mine, &theirs, mac), MOE_OK);
    send_proof(mac);
    memcpy(proof, frame, sizeof proof);
    assert_int_equal(end->ops->connect(end, "node-0", &peer), MOE_OK);
    turn();
    memcpy(frame, hello, sizeof hello);
    send_bytes(wire_u32_at(hello, 2));
    memcpy(frame, proof, sizeof proof);
    send_bytes(wire_u32_at(proof, 2));
    refused_for_its_proof();
}

static void a_hello_without_nonce_is_told_of_the_secret(void **state)
{
    wire_goodbye g;
    moe_error err;

    (void)state;
    send_hello("sim");
    assert_int_equal(type_of(0), WIRE_GOODBYE);
    assert_ok(wire_get_goodbye(got[0], got_bytes[0], &g, &err), err);
    assert_contains(g.text, "secret");
    const wire_dispatch d = good();
    send_bytes(put_dispatch(&d, 0));
    refused_for_its_proof();
}

static void nothing_is_honoured_before_the_proof(void **state)
{
    const wire_dispatch d = good();
    wire_hello theirs;

    (void)state;
    (void)greet_with_nonce(&theirs);
    n_got = 0;
    send_bytes(put_dispatch(&d, 0));
    assert_true(is_down);
    assert_int_equal(n_got, 0);
}

static void a_proof_without_a_secret_is_a_violation(void **state)
{
    const unsigned char mac[32] = {0};

    (void)state;
    greet();
    send_proof(mac);
    assert_true(is_down);
}

static void passes(uint64_t ns)
{
    moe_clock_virtual_advance(&w.clock, ns);
    turn();
}

static void who_does_not_greet_is_disconnected_after_two_seconds(void **state)
{
    expert_node_stats stats;

    (void)state;
    passes(1900000000);
    assert_false(is_down);
    passes(200000000);
    assert_true(is_down);
    expert_node_get_stats(w.nodes[0].node, &stats);
    assert_int_equal(stats.silent, 1);
}

static void who_does_not_prove_is_disconnected_after_two_seconds(void **state)
{
    wire_hello theirs;

    (void)state;
    (void)greet_with_nonce(&theirs);
    passes(2100000000);
    assert_true(is_down);
}

static void who_has_greeted_may_be_silent(void **state)
{
    (void)state;
    prove_with(the_secret, WIRE_COORDINATOR);
    passes(60000000000);
    assert_false(is_down);
    answers_a_ping();
}

/* ------------------------------------------------------------------------------------------------ hostile */
static void mend(size_t n)
{
    moe_buf length, crc;

    moe_buf_init(&length, frame + 8, 4);
    moe_put_u32(&length, (uint32_t)n);
    moe_buf_init(&crc, frame + 12, 4);
    moe_put_u32(&crc, wire_crc32c(wire_crc32c(0, frame, 12), frame + WIRE_HEADER_BYTES, n - WIRE_HEADER_BYTES));
}

/* One to three fields of the lists and the head take another value; the checksum is right. */
static size_t spoil(moe_random *r, size_t n)
{
    size_t n_words = (n - WIRE_HEADER_BYTES) / 4;
    static const uint32_t values[] = {0, 1, 2, 3, 4, 5, 8, 255, 65536, 0x7fffffff, 0x80000000, 0xffffffff};

    for (uint64_t i = 0; i <= moe_random_below(r, 3); i++) {
        moe_buf word;

        moe_buf_init(&word, frame + WIRE_HEADER_BYTES + 4 * moe_random_below(r, MOE_MIN(n_words, 22)), 4);
        moe_put_u32(&word, values[moe_random_below(r, MOE_COUNT(values))]);
    }
    n += moe_random_below(r, 20) == 0 ? 4 * moe_random_below(r, 30) : 0;
    mend(n);
    return n;
}

static void hostile_frames_with_good_checksums_do_no_harm(void **state)
{
    const wire_dispatch d = good();
    uint64_t n_closed = 0, n_answered = 0;
    moe_random r;

    (void)state;
    moe_random_seed(&r, 9);
    greet();
    for (int i = 0; i < 20000; i++) {
        n_got = 0;
        send_bytes(spoil(&r, put_dispatch(&d, (int32_t)moe_random_below(&r, 4))));
        n_answered += n_got;
        if (is_down) {
            n_closed++;
            assert_int_equal(end->ops->connect(end, "node-0", &peer), MOE_OK);
            turn();
            n_got = 0;
            greet();
        }
    }
    assert_true(n_closed > 100 && n_answered > 100);
    answers_a_ping();
}

#define TEST(f)   cmocka_unit_test_setup_teardown(f, setup, teardown)
#define SECRET(f) cmocka_unit_test_setup_teardown(f, setup_secret, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(hello_is_answered_with_the_nodes_own),
        TEST(the_epoch_that_a_coordinator_applies_counts_while_it_is_connected),
        TEST(nothing_is_honoured_before_hello),
        TEST(a_stranger_of_another_cluster_is_told_why),
        TEST(a_refused_stranger_is_not_honoured),
        TEST(a_second_hello_costs_the_connection),
        TEST(a_damaged_frame_costs_the_connection),
        TEST(a_frame_for_coordinators_costs_the_connection),
        TEST(another_dtype_is_refused),
        TEST(another_width_is_refused),
        TEST(a_layer_beyond_the_model_is_refused),
        TEST(too_many_rows_are_refused),
        TEST(an_expert_that_is_not_here_is_refused),
        TEST(a_dispatch_sent_twice_is_answered_twice_alike),
        TEST(hostile_frames_with_good_checksums_do_no_harm),
        SECRET(the_node_proves_the_secret),
        SECRET(who_proves_the_secret_is_served),
        SECRET(a_wrong_secret_costs_the_connection),
        SECRET(the_proof_of_the_other_role_costs_the_connection),
        SECRET(the_nodes_own_proof_sent_back_costs_the_connection),
        SECRET(a_greeting_played_again_costs_the_connection),
        SECRET(a_hello_without_nonce_is_told_of_the_secret),
        SECRET(nothing_is_honoured_before_the_proof),
        TEST(a_proof_without_a_secret_is_a_violation),
        TEST(who_does_not_greet_is_disconnected_after_two_seconds),
        SECRET(who_does_not_prove_is_disconnected_after_two_seconds),
        SECRET(who_has_greeted_may_be_silent),
    };

    moe_log_set_level(MOE_LOG_ERROR);
    compute_thread_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
