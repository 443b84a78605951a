/* Experts out of a checkpoint, loaded while a coordinator asks. */
#include "expert_node/expert_node.h"
#include "proto/wire.h"
#include "tests/support/model_fixture.h"
#include "tests/support/support.h"

#include <string.h>

#define DIR   "tests/vectors/olmoe-gqa"
#define PIECE 1000

static model_fixture f;
static checkpoint_manifest manifest;
static expert_checkpoint source;
static transport_loopback_net *net;
static transport *node_end, *end;
static expert_node *node;
static transport_peer peer;
static unsigned n_turns;
static wire_type types[16]; /* of the frames that came */
static size_t n_types;

static void on_message(void *ctx, transport_peer from, const unsigned char *bytes, size_t n)
{
    moe_error err;

    (void)ctx, (void)from;
    assert_true(n_types < MOE_COUNT(types));
    assert_ok(wire_open(bytes, n, &types[n_types], &err), err);
    n_types++;
}

static void on_peer(void *ctx, transport_peer from, transport_peer_event event, const char *why)
{
    (void)ctx, (void)from, (void)event, (void)why;
}

/* What the node program does, and the other end beside it. */
static void turn(void *ctx)
{
    (void)ctx;
    n_turns++;
    (void)expert_node_progress(node);
    (void)end->ops->progress(end);
}

static void open_node(void)
{
    expert_node_options o = {.id = "n",
                             .cluster = "test",
                             .incarnation = 7,
                             .device = f.device,
                             .n_layers = f.config.n_layers,
                             .n_experts_max = f.config.n_ffn_experts,
                             .d_model = f.config.d_model,
                             .max_rows = 4,
                             .max_picks = 4 * f.config.gate.k,
                             .max_ffn_rows = 4 * f.config.gate.k};
    transport_loopback_options l = {.address = "n", .max_message = 1 << 16, .max_peers = 2, .max_queued = 16};
    moe_error err;

    assert_int_equal(transport_loopback_net_open(2, &net), MOE_OK);
    l.net = net;
    assert_int_equal(transport_loopback_open(&l, &node_end), MOE_OK);
    l.address = "c";
    assert_int_equal(transport_loopback_open(&l, &end), MOE_OK);
    end->handler = (transport_handler){NULL, on_message, on_peer};
    source = (expert_checkpoint){.config = &f.config,
                                 .tensors = f.tensors,
                                 .device = f.device,
                                 .layout = COMPUTE_PACKED,
                                 .manifest = &manifest,
                                 .turn = turn,
                                 .turn_bytes = PIECE};
    o.transport = node_end;
    o.source = expert_source_checkpoint(&source);
    assert_ok(expert_node_open(&o, &node, &err), err);
}

static int setup(void **state)
{
    const model_fixture_options o = model_fixture_defaults(DIR);
    moe_error err;

    (void)state;
    model_fixture_open(&f, &o);
    assert_ok(checkpoint_manifest_build(f.checkpoint, "", model_tensors_all(f.tensors), model_tensors_count(f.tensors),
                                        f.threads, "", NULL, NULL, &manifest, &err),
              err);
    open_node();
    n_turns = 0;
    n_types = 0;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    transport_close(end);
    transport_close(node_end);
    expert_node_close(node);
    transport_loopback_net_close(net);
    checkpoint_manifest_fini(&manifest);
    model_fixture_close(&f);
    return 0;
}

static void sent(transport_msg *msg, moe_status status)
{
    (void)msg;
    assert_int_equal(status, MOE_OK);
}

static void post(void (*put)(moe_buf *b))
{
    static unsigned char bytes[8][WIRE_SMALL_BYTES];
    static transport_msg msgs[8];
    static size_t next;
    size_t i = next++ % MOE_COUNT(msgs);
    moe_buf b;

    moe_buf_init(&b, bytes[i], sizeof bytes[i]);
    put(&b);
    msgs[i] = (transport_msg){.n_parts = 1, .parts = {{bytes[i], wire_finish(&b)}}, .done = sent};
    assert_int_equal(end->ops->send(end, peer, &msgs[i]), MOE_OK);
}

static void put_hello(moe_buf *b)
{
    wire_hello h = {.role = WIRE_COORDINATOR,
                    .incarnation = 9,
                    .member = "c",
                    .cluster = "test",
                    .d_model = f.config.d_model,
                    .max_message = 1 << 16,
                    .max_rows = 4,
                    .max_picks = 4 * f.config.gate.k};

    (void)snprintf(h.numeric_class, sizeof h.numeric_class, "%s", compute_class_name(f.device->numeric_class));
    wire_put_hello(b, &h);
}

static void put_ping(moe_buf *b)
{
    wire_put_ping(b, &(wire_ping){.token = 42});
}

/* Nobody turns the node but the load itself. */
static void peers_are_met_and_answered_while_an_expert_is_loaded(void **state)
{
    moe_error err;

    (void)state;
    assert_int_equal(end->ops->connect(end, "n", &peer), MOE_OK);
    for (int i = 0; i < 4; i++) {
        (void)end->ops->progress(end);
        (void)node_end->ops->progress(node_end);
    }
    post(put_hello);
    post(put_ping);
    assert_ok(expert_node_load(node, 0, 0, &err), err);
    assert_true(expert_node_holds(node, 0, 0));
    assert_int_equal(n_types, 2);
    assert_int_equal(types[0], WIRE_HELLO);
    assert_int_equal(types[1], WIRE_PONG);
}

static void every_piece_of_an_expert_is_a_turn(void **state)
{
    size_t idx[MODEL_MAX_EXPERT_TENSORS], n, n_pieces = 0;
    moe_error err;

    (void)state;
    assert_ok(model_expert_tensors(&f.config, f.tensors, 1, 2, idx, &n, &err), err);
    for (size_t i = 0; i < n; i++) {
        n_pieces += (model_tensors_all(f.tensors)[idx[i]].bytes + PIECE - 1) / PIECE;
    }
    assert_true(n_pieces > 4);
    assert_ok(expert_node_load(node, 1, 2, &err), err);
    assert_int_equal(n_turns, n_pieces);
}

static void bytes_that_are_not_the_manifests_are_refused(void **state)
{
    size_t idx[MODEL_MAX_EXPERT_TENSORS], n;
    moe_error err;

    (void)state;
    assert_ok(model_expert_tensors(&f.config, f.tensors, 1, 2, idx, &n, &err), err);
    manifest.tensors[idx[0]].bytes[5] ^= 1;
    assert_int_equal(expert_node_load(node, 1, 2, &err), MOE_ERR_CORRUPT);
    assert_contains(err.text, "not those of the manifest");
    assert_false(expert_node_holds(node, 1, 2));
}

#define NODE_TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        NODE_TEST(peers_are_met_and_answered_while_an_expert_is_loaded),
        NODE_TEST(every_piece_of_an_expert_is_a_turn),
        NODE_TEST(bytes_that_are_not_the_manifests_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
