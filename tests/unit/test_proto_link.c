/* Every edge of the table, and everything that is not in it. */
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

static bool keep(void *ctx, const unsigned char *frame, size_t n)
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

static moe_status draw(unsigned char *out, size_t n)
{
    static unsigned char next;

    memset(out, ++next, n);
    return MOE_OK;
}

static moe_status judge(void *ctx, const wire_hello *theirs, moe_error *why)
{
    const member *m = ctx;

    (void)theirs;
    return m->is_unwanted ? moe_fail(why, MOE_ERR_DENIED, "unwanted") : MOE_OK;
}

static void change(member *m, uint32_t block, uint64_t experts)
{
    m->blocks[block].experts = experts;
    m->blocks[block].revision = ++m->side.revision;
}

static void holds_after(void *ctx, uint64_t revision, wire_holds *out)
{
    const member *m = ctx;

    link_blocks_after(m->blocks, N_BLOCKS, m->side.revision, revision, out);
}

static void on_holds(void *ctx, const wire_holds *changed)
{
    member *m = ctx;

    for (uint32_t i = 0; i < changed->n_blocks; i++) {
        m->blocks[changed->blocks[i].layer].experts = changed->blocks[i].experts;
    }
}

static const link_ops ops = {
    .send = keep, .draw = draw, .judge = judge, .holds_after = holds_after, .on_holds = on_holds};

static void member_open(member *m, link_role role, const char *secret)
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

static void open_all(const char *secret)
{
    member_open(&coordinator, LINK_COORDINATOR, secret);
    member_open(&node, LINK_NODE, secret);
    member_open(&probe, LINK_PROBE, secret);
    member_open(&reader, LINK_READER, secret);
}

static void begin(member *m)
{
    assert_int_equal(link_begin(&m->end, &m->side, m, 0, DEADLINE), MOE_OK);
}

static link_event last;

static moe_status give(member *m, const unsigned char *frame, size_t n)
{
    wire_type type;

    return link_receive(&m->end, frame, n, 1, &last, &type, &err);
}

/* Gives one all that the other has sent and it has not been given. */
static void carry(member *from, member *to)
{
    for (size_t i = 0; i < from->n_sent; i++) {
        assert_ok(give(to, from->sent[i], from->n_bytes[i]), err);
    }
    from->n_sent = 0;
}

static void meet(void)
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

static void meet_reader(bool is_asked)
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

static member *of_role(link_role role)
{
    member *const all[] = {&coordinator, &node, &probe, &reader};

    return all[role];
}

/* ------------------------------------------------------------------------------------------------ the table */
static size_t frame_of(int type, unsigned char *frame)
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

/* Brings the role's end into the state by frames alone. False: it has no such state. */
static bool reach(link_role role, link_state state)
{
    member *m = of_role(role);
    unsigned char frame[WIRE_SMALL_BYTES];

    open_all("secret");
    switch (state) {
    case LINK_GREETING:
        begin(m);
        break;
    case LINK_PROVING:
    case LINK_REFUSED:
        node.is_unwanted = state == LINK_REFUSED;
        begin(&coordinator);
        begin(&node);
        carry(&coordinator, &node);
        return role == LINK_NODE;
    case LINK_OPEN:
        meet();
        return role == LINK_NODE || role == LINK_COORDINATOR;
    case LINK_READING:
    case LINK_ASKED:
        meet_reader(state == LINK_ASKED);
        return role == LINK_NODE || role == LINK_READER;
    case LINK_DRAINING:
        meet();
        assert_ok(give(&coordinator, frame, frame_of(WIRE_GOODBYE, frame)), err);
        return role == LINK_COORDINATOR;
    default:
        break;
    }
    return true;
}

static const link_edge *edge_of(link_role role, link_state from, int frame)
{
    size_t n;
    const link_edge *edges = link_edges(&n), *found = NULL;

    for (size_t i = 0; i < n; i++) {
        if (edges[i].role == role && edges[i].from == from && edges[i].frame == frame) {
            assert_null(found); /* no edge stands twice */
            found = &edges[i];
        }
    }
    return found;
}

/* A legal frame of the kind that the end expects in its state: what only the other can make is what the other has sent. */
static size_t expected_frame(link_role role, int type, unsigned char *frame)
{
    member *m = of_role(role), *other = role == LINK_NODE ? &coordinator : &node;

    if (type == WIRE_HELLO && m->end.state == LINK_GREETING) {
        if (role == LINK_NODE) {
            begin(other);
        } else {
            begin(&node);
            carry(m, &node);
        }
    } else if (type == WIRE_PROOF && m->end.state == LINK_PROVING) {
        carry(&node, &coordinator);
    } else {
        return frame_of(type, frame);
    }
    memcpy(frame, other->sent[0], other->n_bytes[0]);
    return other->n_bytes[0];
}

static void what_is_in_the_table_is_taken_and_nothing_else(void **state_)
{
    size_t n_edges, n_taken = 0;

    (void)state_;
    (void)link_edges(&n_edges);
    for (link_role role = 0; role < LINK_N_ROLES; role++) {
        for (link_state state = 0; state < LINK_N_STATES; state++) {
            for (int type = WIRE_HELLO; reach(role, state) && type <= WIRE_LAST; type++) {
                const link_edge *edge = edge_of(role, state, type);
                unsigned char frame[WIRE_SMALL_BYTES];
                member *m = of_role(role);

                assert_int_equal(m->end.state, state);
                moe_status status = give(m, frame, expected_frame(role, type, frame));
                if (edge == NULL) {
                    assert_int_equal(status, MOE_ERR_CORRUPT);
                    assert_int_equal(m->end.state, LINK_CLOSED);
                    assert_int_equal(last, LINK_NOTHING);
                } else {
                    assert_ok(status, err);
                    assert_true((edge->to & LINK_TO(m->end.state)) != 0);
                    n_taken++;
                }
            }
            n_taken += edge_of(role, state, LINK_TIME) != NULL;
        }
    }
    assert_int_equal(n_taken, n_edges); /* every edge was walked */
}

static void time_leads_along_the_table(void **state_)
{
    (void)state_;
    for (link_role role = 0; role < LINK_N_ROLES; role++) {
        for (link_state state = 0; state < LINK_N_STATES; state++) {
            const link_edge *edge = edge_of(role, state, LINK_TIME);
            uint64_t wake = UINT64_MAX;

            if (!reach(role, state)) {
                assert_null(edge);
                continue;
            }
            member *m = of_role(role);
            bool watched = state != LINK_CLOSED && !(role == LINK_NODE && state == LINK_OPEN) &&
                           !(role == LINK_READER && state == LINK_READING);
            bool is_reading = link_is_reading(&m->end);
            uint64_t end = is_reading ? 2 * LINK_READING_NS : DEADLINE, each = is_reading ? end / 50 : HEARTBEAT / 2;
            assert_int_equal(link_tick(&m->end, 2, false, &wake), LINK_FINE);
            assert_int_equal(m->end.state, state);
            for (uint64_t now = 2; now <= end && m->end.state == state; now += each) {
                link_verdict verdict = link_tick(&m->end, now + each, false, &wake);
                assert_true(verdict == LINK_FINE || (watched && m->end.state == LINK_CLOSED));
            }
            assert_int_equal(m->end.state, watched ? LINK_CLOSED : state);
            assert_true(edge == NULL ? state == LINK_CLOSED : (edge->to & LINK_TO(m->end.state)) != 0);
        }
    }
}

/* ------------------------------------------------------------------------------------------------ greeting */
static void members_without_a_secret_meet_in_two_frames(void **state)
{
    (void)state;
    open_all("");
    begin(&coordinator);
    begin(&node);
    carry(&coordinator, &node);
    assert_int_equal(last, LINK_OPENED);
    assert_int_equal(node.end.state, LINK_OPEN);
    carry(&node, &coordinator);
    assert_int_equal(last, LINK_OPENED);
    assert_int_equal(coordinator.n_sent, 0);
}

static void a_member_with_another_secret_is_turned_away(void **state)
{
    (void)state;
    open_all("secret");
    assert_int_equal(wire_key_init(&node.key, "guessed", 7), MOE_OK);
    begin(&coordinator);
    begin(&node);
    carry(&coordinator, &node);
    assert_int_equal(node.end.state, LINK_PROVING);
    carry(&node, &coordinator);
    assert_int_equal(last, LINK_TURNED_AWAY);
    assert_true(coordinator.end.is_unproved);
    assert_int_equal(coordinator.end.state, LINK_CLOSED);
    assert_int_equal(coordinator.n_sent, 0);
}

static void a_proof_of_another_connection_is_none(void **state)
{
    unsigned char frame[WIRE_SMALL_BYTES];

    (void)state;
    open_all("secret");
    begin(&coordinator);
    begin(&node);
    carry(&coordinator, &node);
    carry(&node, &coordinator);
    size_t n = coordinator.n_bytes[0];
    memcpy(frame, coordinator.sent[0], n);
    coordinator.n_sent = 0;
    begin(&coordinator);
    begin(&node);
    carry(&coordinator, &node);
    assert_int_equal(give(&node, frame, n), MOE_ERR_DENIED);
    assert_true(node.end.is_unproved);
    assert_int_equal(node.end.state, LINK_CLOSED);
}

static void a_probe_believes_only_who_proves_the_secret(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        open_all("secret");
        if (i == 1) {
            assert_int_equal(wire_key_init(&node.key, "guessed", 7), MOE_OK);
        }
        begin(&probe);
        begin(&node);
        carry(&probe, &node);
        carry(&node, &probe);
        assert_int_equal(last, i == 0 ? LINK_OPENED : LINK_TURNED_AWAY);
        assert_int_equal(probe.n_sent, 0); /* no node counts it among its coordinators */
    }
}

static void who_does_not_fit_is_told_why_and_heard_no_more(void **state)
{
    unsigned char frame[WIRE_SMALL_BYTES];

    (void)state;
    open_all("");
    (void)snprintf(coordinator.hello.cluster, sizeof coordinator.hello.cluster, "elsewhere");
    begin(&coordinator);
    begin(&node);
    carry(&coordinator, &node);
    assert_int_equal(last, LINK_TURNED_AWAY);
    assert_int_equal(node.end.state, LINK_REFUSED);
    carry(&node, &coordinator);
    assert_int_equal(last, LINK_TURNED_AWAY);
    assert_non_null(strstr(err.text, "elsewhere"));
    assert_int_equal(give(&node, frame, frame_of(WIRE_PING, frame)), MOE_ERR_CORRUPT);
}

static void a_hello_that_cannot_be_sent_ends_the_link(void **state)
{
    (void)state;
    open_all("secret");
    coordinator.is_full = true;
    assert_int_equal(link_begin(&coordinator.end, &coordinator.side, &coordinator, 0, 0), MOE_ERR_BUSY);
    assert_int_equal(coordinator.end.state, LINK_CLOSED);
    coordinator.is_full = false;
    begin(&coordinator);
    begin(&node);
    node.is_full = true;
    assert_int_equal(give(&node, coordinator.sent[0], coordinator.n_bytes[0]), MOE_ERR_BUSY);
    assert_int_equal(node.end.state, LINK_CLOSED);
}

/* ------------------------------------------------------------------------------------------------ open */
static void tick(member *m, uint64_t now)
{
    uint64_t wake = UINT64_MAX;

    assert_int_equal(link_tick(&m->end, now, false, &wake), LINK_FINE);
}

static void the_epoch_is_told_at_once_and_again_when_there_was_no_room(void **state)
{
    uint64_t wake = UINT64_MAX;

    (void)state;
    open_all("");
    meet();
    coordinator.side.epoch = 7;
    coordinator.is_full = true;
    assert_int_equal(link_tick(&coordinator.end, 2, false, &wake), LINK_FINE);
    assert_true(wake <= 2 + HEARTBEAT);
    coordinator.is_full = false;
    tick(&coordinator, 3);
    carry(&coordinator, &node);
    assert_int_equal(node.end.epoch, 7);
    tick(&coordinator, 4);
    assert_int_equal(coordinator.n_sent, 0); /* once is enough */
}

/* The node tells all that it can, and the coordinator hears it. */
static void tell_all(void)
{
    do {
        carry(&node, &coordinator);
        tick(&node, 2);
    } while (node.n_sent > 0);
}

static void a_node_that_drains_says_so_to_all_now_and_later(void **state)
{
    (void)state;
    open_all("");
    meet();
    tell_all();
    node.side.draining = true;
    node.is_full = true;
    tick(&node, 2);
    node.is_full = false;
    tick(&node, 3);
    tick(&node, 4);
    assert_int_equal(node.n_sent, 1);
    carry(&node, &coordinator);
    assert_int_equal(coordinator.end.state, LINK_DRAINING);
    link_close(&coordinator.end);
    meet();
    tell_all();
    assert_int_equal(coordinator.end.state, LINK_DRAINING);
}

static void pong_tells_the_load(void **state)
{
    (void)state;
    open_all("");
    meet();
    node.side.load = (wire_pong){.queued_rows = 5};
    tick(&coordinator, HEARTBEAT + 1);
    carry(&coordinator, &node);
    carry(&node, &coordinator);
    assert_int_equal(last, LINK_ANSWERED);
    assert_int_equal(coordinator.end.queued_rows, 5);
}

static void a_node_that_may_be_computing_gets_more_time(void **state)
{
    uint64_t now = 0, wake = UINT64_MAX;

    (void)state;
    for (int busy = 0; busy < 2; busy++) {
        uint64_t before = now;

        open_all("");
        meet();
        for (now = 0; link_tick(&coordinator.end, now, busy == 1, &wake) == LINK_FINE; now += HEARTBEAT) {
            coordinator.n_sent = 0;
        }
        assert_true(now > before);
    }
}

static void a_loop_that_has_not_turned_blames_nobody(void **state)
{
    (void)state;
    open_all("");
    meet();
    tick(&coordinator, 1000 * HEARTBEAT);
    assert_true(link_is_open(&coordinator.end));
}

/* ------------------------------------------------------------------------------------------------ what a node holds */
static void assert_all_is_known(void)
{
    assert_true(coordinator.end.knows_all);
    assert_int_equal(coordinator.end.known, node.side.revision);
    for (uint32_t i = 0; i < N_BLOCKS; i++) {
        assert_int_equal(coordinator.blocks[i].experts, node.blocks[i].experts);
    }
}

static void holding(uint32_t n_blocks)
{
    open_all("");
    for (uint32_t i = 0; i < n_blocks; i++) {
        change(&node, (i * 7) % N_BLOCKS, i + 1);
    }
    meet();
}

static void a_node_without_experts_says_so(void **state)
{
    (void)state;
    holding(0);
    assert_false(coordinator.end.knows_all);
    tell_all();
    assert_all_is_known();
}

static void all_is_told_first_and_then_what_changes(void **state)
{
    wire_holds h;

    (void)state;
    holding(3 * WIRE_MAX_BLOCKS);
    tick(&node, 2);
    assert_int_equal(node.n_sent, 3);
    for (size_t i = 0; i < 3; i++) {
        assert_false(coordinator.end.knows_all); /* half of the truth does not count */
        assert_ok(give(&coordinator, node.sent[i], node.n_bytes[i]), err);
    }
    node.n_sent = 0;
    assert_all_is_known();
    change(&node, 5, 77);
    change(&node, 5, 78);
    tick(&node, 3);
    assert_int_equal(node.n_sent, 1);
    assert_ok(wire_get_holds(node.sent[0], node.n_bytes[0], &h, &err), err);
    assert_int_equal(h.n_blocks, 1);
    tell_all();
    assert_all_is_known();
}

static void much_is_told_in_several_turns(void **state)
{
    uint64_t wake = UINT64_MAX;

    (void)state;
    holding(N_BLOCKS);
    assert_int_equal(link_tick(&node.end, 2, false, &wake), LINK_FINE);
    assert_true(node.n_sent < (N_BLOCKS + WIRE_MAX_BLOCKS - 1) / WIRE_MAX_BLOCKS);
    assert_true(wake < UINT64_MAX);
    tell_all();
    assert_all_is_known();
}

static void what_was_lost_is_told_again(void **state)
{
    (void)state;
    for (size_t lost = 0; lost < 3; lost++) {
        uint64_t now = 2;

        holding(3 * WIRE_MAX_BLOCKS);
        tick(&node, now);
        for (size_t i = 0; i < 3; i++) {
            if (i != lost) {
                assert_ok(give(&coordinator, node.sent[i], node.n_bytes[i]), err);
            }
        }
        assert_false(coordinator.end.knows_all);
        node.n_sent = 0;
        for (int beats = 0; beats < 3; beats++) {
            now += HEARTBEAT;
            tick(&coordinator, now);
            carry(&coordinator, &node);
            carry(&node, &coordinator);
        }
        assert_all_is_known();
    }
}

/* By the next PING; what is known meanwhile goes on to count. */
static void all_is_told_again_when_it_is_asked_for(void **state)
{
    (void)state;
    holding(3 * WIRE_MAX_BLOCKS);
    tell_all();
    assert_all_is_known();
    tick(&coordinator, 3 * HEARTBEAT); /* a PING that knows all */
    carry(&coordinator, &node);
    carry(&node, &coordinator);
    memset(coordinator.blocks, 0, sizeof coordinator.blocks); /* as if it had passed over all */
    link_ask_again(&coordinator.end);
    assert_true(coordinator.end.knows_all);
    tick(&coordinator, 4 * HEARTBEAT);
    carry(&coordinator, &node);
    carry(&node, &coordinator);
    assert_all_is_known();
}

static void what_is_old_or_comes_twice_changes_nothing(void **state)
{
    unsigned char old[WIRE_SMALL_BYTES];

    (void)state;
    holding(1);
    tick(&node, 2);
    size_t n = node.n_bytes[0];
    memcpy(old, node.sent[0], n);
    tell_all();
    change(&node, 0, 99);
    tell_all();
    assert_ok(give(&coordinator, old, n), err);
    assert_all_is_known();
}

static void a_new_connection_hears_all_anew(void **state)
{
    (void)state;
    holding(40);
    tell_all();
    link_close(&coordinator.end);
    change(&node, 0, 0);
    meet();
    assert_false(coordinator.end.knows_all);
    memset(coordinator.blocks, 0, sizeof coordinator.blocks);
    tell_all();
    assert_all_is_known();
}

static void one_that_cannot_be_sent_now_is_sent_later(void **state)
{
    uint64_t wake = UINT64_MAX;

    (void)state;
    holding(2);
    node.is_full = true;
    assert_int_equal(link_tick(&node.end, 2, false, &wake), LINK_FINE);
    assert_true(wake < UINT64_MAX);
    node.is_full = false;
    tell_all();
    assert_all_is_known();
}

/* ------------------------------------------------------------------------------------------------ reading */
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
        cmocka_unit_test(what_is_in_the_table_is_taken_and_nothing_else),
        cmocka_unit_test(time_leads_along_the_table),
        cmocka_unit_test(members_without_a_secret_meet_in_two_frames),
        cmocka_unit_test(a_member_with_another_secret_is_turned_away),
        cmocka_unit_test(a_proof_of_another_connection_is_none),
        cmocka_unit_test(a_probe_believes_only_who_proves_the_secret),
        cmocka_unit_test(who_does_not_fit_is_told_why_and_heard_no_more),
        cmocka_unit_test(a_hello_that_cannot_be_sent_ends_the_link),
        cmocka_unit_test(the_epoch_is_told_at_once_and_again_when_there_was_no_room),
        cmocka_unit_test(a_node_that_drains_says_so_to_all_now_and_later),
        cmocka_unit_test(pong_tells_the_load),
        cmocka_unit_test(a_node_that_may_be_computing_gets_more_time),
        cmocka_unit_test(a_loop_that_has_not_turned_blames_nobody),
        cmocka_unit_test(a_node_without_experts_says_so),
        cmocka_unit_test(all_is_told_first_and_then_what_changes),
        cmocka_unit_test(much_is_told_in_several_turns),
        cmocka_unit_test(what_was_lost_is_told_again),
        cmocka_unit_test(all_is_told_again_when_it_is_asked_for),
        cmocka_unit_test(what_is_old_or_comes_twice_changes_nothing),
        cmocka_unit_test(a_new_connection_hears_all_anew),
        cmocka_unit_test(one_that_cannot_be_sent_now_is_sent_later),
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
