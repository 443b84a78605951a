/* A node that has a pack, and who reads it. */
#include "proto/link.h"
#include "tests/sim/world.h"

enum { WIDTH = 8, ROWS = 4, TOP_K = 2, MAX_READERS = 10, SIZE = 200000 };

typedef struct reader {
    wire_hello hello;
    wire_key key;
    link_side side;
    link_end link;
    transport *t;
    transport_peer peer;
    bool is_down;
    transport_msg msg;
    unsigned char frame[WIRE_SMALL_BYTES];
    size_t n_given;
    wire_piece piece; /* the last; its bytes are in `bytes` */
    unsigned char bytes[WIRE_MAX_PIECE];
} reader;

static world w;
static reader readers[MAX_READERS];
static unsigned char part[SIZE];
static unsigned n_later; /* so often the disk is waited for */
static const unsigned char hash[32] = {1, 2, 3};

static expert_pack_answer read_pack(void *ctx, const unsigned char pack[32], uint32_t number, uint64_t offset,
                                    size_t length, const unsigned char **bytes_out, uint64_t *size_out)
{
    (void)ctx, (void)length;
    if (memcmp(pack, hash, sizeof hash) != 0 || number != 5) {
        return EXPERT_PACK_NONE;
    }
    if (n_later > 0) {
        n_later--;
        return EXPERT_PACK_LATER;
    }
    *size_out = SIZE;
    if (offset < SIZE) {
        *bytes_out = part + offset;
    }
    return EXPERT_PACK_HERE;
}

static void sent(transport_msg *msg, moe_status status)
{
    (void)msg, (void)status;
}

static bool send_frame(void *ctx, const unsigned char *frame, size_t n)
{
    reader *r = ctx;

    memcpy(r->frame, frame, n);
    r->msg = (transport_msg){.parts = {{r->frame, n}}, .n_parts = 1, .done = sent};
    return r->t->ops->send(r->t, r->peer, &r->msg) == MOE_OK;
}

static const link_ops ops = {.send = send_frame, .draw = wire_random};

static void on_message(void *ctx, transport_peer peer, const unsigned char *bytes, size_t n)
{
    reader *r = ctx;
    link_event event;
    wire_type type;
    moe_error err;

    (void)peer;
    assert_ok(link_receive(&r->link, bytes, n, moe_now_ns(&w.clock.clock), &event, &type, &err), err);
    if (event == LINK_GIVEN) {
        assert_ok(wire_get_piece(bytes, n, &r->piece, &err), err);
        memcpy(r->bytes, r->piece.bytes, r->piece.n);
        r->n_given++;
    }
}

static void on_peer(void *ctx, transport_peer peer, transport_peer_event event, const char *why)
{
    reader *r = ctx;

    (void)peer, (void)why;
    r->is_down = event != TRANSPORT_UP;
}

static void turn(void)
{
    for (size_t i = 0; i < MAX_READERS; i++) {
        if (readers[i].t != NULL) {
            readers[i].t->ops->progress(readers[i].t);
        }
    }
    (void)expert_node_progress(w.nodes[0].node);
}

static void open_reader(reader *r, const char *secret, size_t max_message)
{
    char name[24];

    (void)snprintf(name, sizeof name, "reader-%td", r - readers);
    const transport_loopback_options o = {
        .net = w.net, .address = name, .max_message = 1 << 17, .max_peers = 1, .max_queued = 4};
    *r = (reader){.hello = {.role = WIRE_READER,
                            .cluster = "sim",
                            .d_model = WIDTH,
                            .max_message = max_message,
                            .max_rows = 1,
                            .max_picks = 1}};
    (void)snprintf(r->hello.member, sizeof r->hello.member, "%s", name);
    (void)snprintf(r->hello.numeric_class, sizeof r->hello.numeric_class, "%s", compute_class_name(w.o.numeric_class));
    assert_int_equal(wire_key_init(&r->key, secret, secret == NULL ? 0 : strlen(secret)), MOE_OK);
    r->side = (link_side){.role = LINK_READER, .hello = &r->hello, .key = &r->key, .ops = &ops};
    assert_int_equal(transport_loopback_open(&o, &r->t), MOE_OK);
    r->t->handler = (transport_handler){r, on_message, on_peer};
    assert_int_equal(r->t->ops->connect(r->t, "node-0", &r->peer), MOE_OK);
    turn();
    assert_int_equal(link_begin(&r->link, &r->side, r, 0, 0), MOE_OK);
    for (int i = 0; i < 4; i++) {
        turn();
    }
}

static void ask(reader *r, const unsigned char pack[32], uint32_t number, uint64_t offset, uint32_t length)
{
    wire_fetch f = {.part = number, .offset = offset, .length = length};

    memcpy(f.pack, pack, sizeof f.pack);
    assert_int_equal(link_ask(&r->link, &f, moe_now_ns(&w.clock.clock)), MOE_OK);
}

static void open_world(bool has_packs, const char *secret)
{
    const world_options o = {.secret = secret,
                             .n_layers = 2,
                             .n_experts = 4,
                             .k = TOP_K,
                             .d_model = WIDTH,
                             .d_ff = 4,
                             .max_rows = ROWS,
                             .n_nodes = 1,
                             .replication = 1,
                             .packs = {.read = has_packs ? read_pack : NULL}};

    n_later = 0;
    for (size_t i = 0; i < SIZE; i++) {
        part[i] = (unsigned char)(i * 31 >> 3);
    }
    world_open(&w, &o);
}

static int teardown(void **state)
{
    (void)state;
    for (size_t i = 0; i < MAX_READERS; i++) {
        transport_close(readers[i].t);
        readers[i].t = NULL;
    }
    world_close(&w);
    return 0;
}

static void read_all(reader *r)
{
    uint32_t most = link_max_piece(&r->link);

    for (uint64_t at = 0; at < SIZE; at += r->piece.n) {
        ask(r, hash, 5, at, most);
        for (size_t n = r->n_given; r->n_given == n;) {
            turn();
        }
        assert_int_equal(r->piece.size, SIZE);
        assert_memory_equal(r->bytes, part + at, r->piece.n);
    }
}

static void a_part_is_read_in_pieces(void **state)
{
    expert_node_stats stats;

    (void)state;
    open_world(true, "secret");
    open_reader(&readers[0], "secret", 1 << 17);
    assert_int_equal(link_max_piece(&readers[0].link),
                     MOE_MIN((size_t)WIRE_MAX_PIECE, w.nodes[0].t->max_message - WIRE_PIECE_BYTES));
    read_all(&readers[0]);
    open_reader(&readers[1], "secret", 1000); /* which takes no more in one frame */
    assert_int_equal(link_max_piece(&readers[1].link), 1000 - WIRE_PIECE_BYTES);
    read_all(&readers[1]);
    expert_node_get_stats(w.nodes[0].node, &stats);
    assert_int_equal(stats.piece_bytes, 2 * SIZE);
    assert_int_equal(stats.readers, 2);
    assert_int_equal(stats.coordinators, 0);
    assert_int_equal(stats.hellos, 0);                                        /* or READY would be said because of it */
    assert_int_equal(expert_node_epoch_applied(w.nodes[0].node), UINT64_MAX); /* or no expert could be dropped */
}

static void give_up_at(const unsigned char pack[32], uint32_t number, uint64_t offset, uint64_t size)
{
    reader *r = &readers[0];
    size_t n = r->n_given;

    ask(r, pack, number, offset, 100);
    for (int i = 0; i < 4; i++) {
        turn();
    }
    assert_int_equal(r->n_given, n + 1);
    assert_int_equal(r->piece.n, 0);
    assert_int_equal(r->piece.size, size);
}

static void what_is_not_there_is_answered_so(void **state)
{
    const unsigned char other[32] = {1, 2, 4};

    (void)state;
    open_world(true, NULL);
    open_reader(&readers[0], NULL, 1 << 17);
    give_up_at(other, 5, 0, 0);
    give_up_at(hash, 6, 0, 0);
    give_up_at(hash, 5, SIZE, SIZE);
    give_up_at(hash, 5, UINT64_MAX, SIZE);
    read_all(&readers[0]); /* the connection is as good as before */
}

static void a_node_without_packs_answers_too(void **state)
{
    (void)state;
    open_world(false, NULL);
    open_reader(&readers[0], NULL, 1 << 17);
    give_up_at(hash, 5, 0, 0);
}

static void what_the_disk_has_not_read_comes_later(void **state)
{
    (void)state;
    open_world(true, NULL);
    open_reader(&readers[0], NULL, 1 << 17);
    n_later = 10;
    read_all(&readers[0]);
    assert_int_equal(n_later, 0);
}

static void all_readers_share_one_piece_in_a_turn(void **state)
{
    expert_node_stats before, after;

    (void)state;
    open_world(true, NULL);
    for (size_t i = 0; i < 4; i++) {
        open_reader(&readers[i], NULL, 1 << 17);
    }
    for (size_t i = 0; i < 4; i++) {
        ask(&readers[i], hash, 5, i, 100);
    }
    for (size_t i = 0; i < 4; i++) {
        expert_node_get_stats(w.nodes[0].node, &before);
        turn();
        expert_node_get_stats(w.nodes[0].node, &after);
        assert_int_equal(after.pieces, before.pieces + 1);
    }
    turn();
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(readers[i].n_given, 1); /* each in its turn */
    }
}

static void too_many_readers_are_told_so(void **state)
{
    expert_node_stats stats;

    (void)state;
    open_world(true, "secret");
    for (size_t i = 0; i < MAX_READERS; i++) {
        open_reader(&readers[i], "secret", 1 << 17);
    }
    expert_node_get_stats(w.nodes[0].node, &stats);
    assert_int_equal(stats.readers, 8);
    assert_int_equal(readers[7].link.state, LINK_READING);
    assert_int_equal(readers[8].link.state, LINK_CLOSED);
    transport_close(readers[0].t);
    readers[0].t = NULL;
    transport_close(readers[8].t);
    readers[8].t = NULL;
    turn();
    open_reader(&readers[8], "secret", 1 << 17);
    assert_int_equal(readers[8].link.state, LINK_READING);
}

static void a_reader_that_asks_nothing_loses_its_place(void **state)
{
    expert_node_stats stats;

    (void)state;
    open_world(true, NULL);
    open_reader(&readers[0], NULL, 1 << 17);
    open_reader(&readers[1], NULL, 1 << 17);
    for (uint64_t now = 0; now <= LINK_READING_NS; now += LINK_READING_NS / 4) {
        moe_clock_virtual_advance(&w.clock, LINK_READING_NS / 4);
        ask(&readers[1], hash, 5, 0, 1);
        for (int i = 0; i < 4; i++) {
            turn();
        }
    }
    expert_node_get_stats(w.nodes[0].node, &stats);
    assert_int_equal(stats.readers, 1);
    assert_true(readers[0].is_down);
    assert_false(readers[1].is_down);
}

#define TEST(f) cmocka_unit_test_teardown(f, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_part_is_read_in_pieces),
        TEST(what_is_not_there_is_answered_so),
        TEST(a_node_without_packs_answers_too),
        TEST(what_the_disk_has_not_read_comes_later),
        TEST(all_readers_share_one_piece_in_a_turn),
        TEST(too_many_readers_are_told_so),
        TEST(a_reader_that_asks_nothing_loses_its_place),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
