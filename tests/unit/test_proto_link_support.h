/* Two ends of a link, and what passes between them: for the tests of proto/link.c. */
#ifndef CONCLAVE_TESTS_PROTO_LINK_SUPPORT_H
#define CONCLAVE_TESTS_PROTO_LINK_SUPPORT_H

#include "tests/support/support.h"

#include "proto/link.h"
#include "tests/support/link_blocks.h"

#define DEADLINE  UINT64_C(1000)
#define HEARTBEAT UINT64_C(100)
#define MAX_SENT  64
#define N_BLOCKS  300 /* 11 frames */

/* One side with one end, and what that has sent. */
typedef struct member {
    wire_hello hello;
    wire_key key;
    link_side side;
    link_end end;
    unsigned char sent[MAX_SENT][WIRE_SMALL_BYTES];
    size_t n_bytes[MAX_SENT], n_sent;
    bool is_full;     /* there is no room to send */
    bool is_unwanted; /* what judge says */
    link_block blocks[N_BLOCKS];
} member;

static member coordinator, node, probe, reader;
static moe_error err;

static inline bool keep(void *ctx, const unsigned char *frame, size_t n)
{
    member *m = ctx;

    if (m->is_full) {
        return false;
    }
    assert_true(n <= WIRE_SMALL_BYTES && m->n_sent < MAX_SENT);
    memcpy(m->sent[m->n_sent], frame, n);
    m->n_bytes[m->n_sent++] = n;
    return true;
}

static inline moe_status draw(unsigned char *out, size_t n)
{
    static unsigned char next;

    memset(out, ++next, n);
    return MOE_OK;
}

static inline moe_status judge(void *ctx, const wire_hello *theirs, moe_error *why)
{
    const member *m = ctx;

    (void)theirs;
    return m->is_unwanted ? moe_fail(why, MOE_ERR_DENIED, "unwanted") : MOE_OK;
}

static inline void change(member *m, uint32_t block, uint64_t experts)
{
    m->blocks[block].experts = experts;
    m->blocks[block].revision = ++m->side.revision;
}

static inline void holds_after(void *ctx, uint64_t revision, wire_holds *out)
{
    const member *m = ctx;

    link_blocks_after(m->blocks, N_BLOCKS, m->side.revision, revision, out);
}

static inline void on_holds(void *ctx, const wire_holds *changed)
{
    member *m = ctx;

    for (uint32_t i = 0; i < changed->n_blocks; i++) {
        m->blocks[changed->blocks[i].layer].experts = changed->blocks[i].experts;
    }
}

static const link_ops ops = {
    .send = keep, .draw = draw, .judge = judge, .holds_after = holds_after, .on_holds = on_holds};

static inline void member_open(member *m, link_role role, const char *secret)
{
    *m = (member){.hello = {.role = role == LINK_NODE     ? WIRE_NODE
                                    : role == LINK_READER ? WIRE_READER
                                                          : WIRE_COORDINATOR,
                            .incarnation = 1 + (uint64_t)role,
                            .d_model = 16,
                            .max_message = 4096,
                            .max_rows = 4,
                            .max_picks = 8}};
    (void)snprintf(m->hello.member, sizeof m->hello.member, "m%u", (unsigned)role);
    (void)snprintf(m->hello.cluster, sizeof m->hello.cluster, "conclave");
    (void)snprintf(m->hello.numeric_class, sizeof m->hello.numeric_class, "f32-1");
    assert_int_equal(wire_key_init(&m->key, secret, strlen(secret)), MOE_OK);
    m->side = (link_side){.role = role,
                          .hello = &m->hello,
                          .key = &m->key,
                          .ops = &ops,
                          .heartbeat_ns = role == LINK_NODE ? 0 : HEARTBEAT,
                          .revision = role == LINK_NODE};
}

static inline void open_all(const char *secret)
{
    member_open(&coordinator, LINK_COORDINATOR, secret);
    member_open(&node, LINK_NODE, secret);
    member_open(&probe, LINK_PROBE, secret);
    member_open(&reader, LINK_READER, secret);
}

static inline void begin(member *m)
{
    assert_int_equal(link_begin(&m->end, &m->side, m, 0, DEADLINE), MOE_OK);
}

static link_event last;

static inline moe_status give(member *m, const unsigned char *frame, size_t n)
{
    wire_type type;

    return link_receive(&m->end, frame, n, 1, &last, &type, &err);
}

/* Gives one all that the other has sent and it has not been given. */
static inline void carry(member *from, member *to)
{
    for (size_t i = 0; i < from->n_sent; i++) {
        assert_ok(give(to, from->sent[i], from->n_bytes[i]), err);
    }
    from->n_sent = 0;
}

static inline void meet(void)
{
    begin(&coordinator);
    begin(&node);
    carry(&coordinator, &node);
    carry(&node, &coordinator);
    carry(&coordinator, &node);
    assert_int_equal(coordinator.end.state, LINK_OPEN);
    assert_int_equal(node.end.state, LINK_OPEN);
}

static const wire_fetch some = {.pack = {7}, .part = 2, .offset = 100, .length = 8};
static const wire_piece some_piece = {
    .pack = {7}, .part = 2, .offset = 100, .size = 1000, .n = 8, .bytes = (const unsigned char *)"12345678"};

static inline void meet_reader(bool is_asked)
{
    begin(&reader);
    begin(&node);
    carry(&reader, &node);
    carry(&node, &reader);
    carry(&reader, &node);
    assert_int_equal(reader.end.state, LINK_READING);
    assert_int_equal(node.end.state, LINK_READING);
    if (is_asked) {
        assert_int_equal(link_ask(&reader.end, &some, 1), MOE_OK);
        carry(&reader, &node);
        assert_int_equal(last, LINK_WANTED);
    }
}

static inline size_t frame_of(int type, unsigned char *frame)
{
    const wire_dispatch d = {.d_model = 1, .dtype = WIRE_F32, .n_rows = 1, .n_groups = 1, .n_picks = 1};
    const wire_result r = {.d_model = 1, .dtype = WIRE_F32, .n_picks = 1};
    unsigned char mac[32] = {0};
    moe_buf b;

    moe_buf_init(&b, frame, WIRE_SMALL_BYTES);
    switch (type) {
    case WIRE_HELLO:
        wire_put_hello(&b, &probe.hello);
        break;
    case WIRE_DISPATCH:
        wire_dispatch_begin(&b, &d);
        wire_put_group(&b, (wire_group){1, 1});
        moe_put_u32(&b, 0);
        assert_non_null(wire_put_rows(&b, 1, 1, WIRE_F32));
        break;
    case WIRE_RESULT:
        wire_result_begin(&b, &r);
        assert_non_null(wire_put_rows(&b, 1, 1, WIRE_F32));
        break;
    case WIRE_REFUSE:
        wire_put_refuse(&b, &(wire_refuse){.reason = WIRE_REFUSE_BUSY});
        break;
    case WIRE_PING:
        wire_put_ping(&b, &(wire_ping){.token = 1});
        break;
    case WIRE_PONG:
        wire_put_pong(&b, &(wire_pong){.token = 1});
        break;
    case WIRE_HOLDS:
        wire_put_holds(&b, &(wire_holds){.upto = 1, .latest = 1});
        break;
    case WIRE_GOODBYE:
        wire_put_goodbye(&b, &(wire_goodbye){.reason = WIRE_GOODBYE_DRAINING});
        break;
    case WIRE_FETCH:
        wire_put_fetch(&b, &some);
        break;
    case WIRE_PIECE:
        wire_put_piece(&b, &some_piece);
        break;
    default:
        wire_put_proof(&b, mac);
    }
    return wire_finish(&b);
}

static inline void tick(member *m, uint64_t now)
{
    uint64_t wake = UINT64_MAX;

    assert_int_equal(link_tick(&m->end, now, false, &wake), LINK_FINE);
}

/* The node tells all that it can, and the coordinator hears it. */
static inline void tell_all(void)
{
    do {
        carry(&node, &coordinator);
        tick(&node, 2);
    } while (node.n_sent > 0);
}

#endif
