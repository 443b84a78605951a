/* Two ends of a link, and whoever stands between them. The input is a program: frames that the ends have sent are given,
 * given twice, dropped or damaged, frames of the input's own are put in, time passes, sides change (make_link_corpus.py
 * has the codes). Whatever it does:
 *
 *   - no end moves along an edge that is not in the table
 *   - with a secret nobody is accepted who has not proved it: an end opens only by the very frame that the other, with the
 *     same secret, has sent on this connection; with different secrets never
 *   - an end sends at most one frame for each that it was given, and some more of what it holds after a PING; a stranger
 *     gets at most one at all
 *   - a reader that nobody lied to is given the bytes that it asked for, or none
 *   - what a coordinator that nobody lied to knows of what the node holds, up to a revision, is true: checked at the end */
#include <string.h>

#include "proto/link.h"
#include "tests/support/link_blocks.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { QUEUE = 16, N_BLOCKS = 64, AT_ONCE = 8 }; /* three frames */
enum { PART_BYTES = 300 };                       /* of the part that readers read: byte i is i */

typedef struct member {
    wire_hello hello;
    wire_key key;
    link_side side;
    link_end end;
    bool is_full, is_unwanted;
    link_block blocks[N_BLOCKS];                 /* what a node holds; what a coordinator knows of it */
    unsigned char sent[QUEUE][WIRE_SMALL_BYTES]; /* not given yet; the oldest first */
    size_t n_bytes[QUEUE], n_queued, n_sent;     /* n_sent: since it was last looked at */
    size_t n_before_open;
    unsigned char key_frame[WIRE_SMALL_BYTES]; /* by which the other end opens: a node's HELLO, a coordinator's PROOF */
    size_t n_key_frame;
} member;

typedef struct program {
    const uint8_t *data;
    size_t n, at;
    uint64_t now;
    bool has_secret, is_same, is_honest; /* honest: no frame was put in */
    member coordinator, node;
} program;

static unsigned char draws;

static bool is_accepted(const link_end *l)
{
    return link_is_open(l) || link_is_reading(l);
}

static bool keep(void *ctx, const unsigned char *frame, size_t n)
{
    member *m = ctx;
    wire_type type;

    MOE_ASSERT(n <= WIRE_SMALL_BYTES && wire_open(frame, n, &type, NULL) == MOE_OK && m->end.state != LINK_CLOSED);
    if (m->is_full || m->n_queued == QUEUE) {
        return false;
    }
    memcpy(m->sent[m->n_queued], frame, n);
    m->n_bytes[m->n_queued++] = n;
    m->n_sent++;
    m->n_before_open += !is_accepted(&m->end);
    if (type == (m->side.role == LINK_NODE ? WIRE_HELLO : WIRE_PROOF)) {
        memcpy(m->key_frame, frame, n);
        m->n_key_frame = n;
    }
    return true;
}

static moe_status draw(unsigned char *out, size_t n)
{
    memset(out, ++draws, n);
    return MOE_OK;
}

static moe_status judge(void *ctx, const wire_hello *theirs, moe_error *why)
{
    const member *m = ctx;

    return m->is_unwanted ? moe_fail(why, MOE_ERR_DENIED, "%s is unwanted", theirs->member) : MOE_OK;
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
        m->blocks[changed->blocks[i].layer % N_BLOCKS].experts = changed->blocks[i].experts;
    }
}

static const link_ops ops = {
    .send = keep, .draw = draw, .judge = judge, .holds_after = holds_after, .on_holds = on_holds};

static void member_init(member *m, link_role role, const char *secret)
{
    *m = (member){.hello = {.role = role == LINK_NODE     ? WIRE_NODE
                                    : role == LINK_READER ? WIRE_READER
                                                          : WIRE_COORDINATOR,
                            .d_model = 16,
                            .max_message = 4096,
                            .max_rows = 4,
                            .max_picks = 8}};
    memcpy(m->hello.member, role == LINK_NODE ? "n0" : "c0", 3);
    memcpy(m->hello.cluster, "conclave", 9);
    memcpy(m->hello.numeric_class, "f32-1", sizeof "f32-1");
    MOE_ASSERT(wire_key_init(&m->key, secret, strlen(secret)) == MOE_OK);
    m->side = (link_side){.role = role, .hello = &m->hello, .key = &m->key, .ops = &ops};
    m->side.heartbeat_ns = role == LINK_COORDINATOR ? UINT64_C(250000000) : 0;
    m->side.revision = role == LINK_NODE;
}

static uint8_t next(program *p)
{
    return p->at < p->n ? p->data[p->at++] : 0;
}

static void check_edge(const link_end *l, link_role role, link_state before, int frame)
{
    size_t n;
    const link_edge *edges = link_edges(&n);

    for (size_t i = 0; i < n; i++) {
        if (edges[i].role == role && edges[i].from == before && edges[i].frame == frame) {
            MOE_ASSERT((edges[i].to & LINK_TO(l->state)) != 0);
            return;
        }
    }
    MOE_ASSERT(before == LINK_CLOSED && l->state == LINK_CLOSED); /* what is given to it then is not taken */
}

static void check_piece(const program *p, const unsigned char *frame, size_t n)
{
    wire_piece piece;

    MOE_ASSERT(wire_get_piece(frame, n, &piece, NULL) == MOE_OK);
    for (uint32_t i = 0; p->is_honest && i < piece.n; i++) {
        MOE_ASSERT(piece.bytes[i] == (unsigned char)(piece.offset + i));
    }
}

static void give(program *p, member *to, const unsigned char *frame, size_t n)
{
    const member *from = to == &p->node ? &p->coordinator : &p->node;
    const link_state before = to->end.state;
    const uint64_t epoch = to->end.epoch;
    bool was_open = is_accepted(&to->end);
    link_event event;
    wire_type type = WIRE_HELLO;
    moe_error err;

    to->n_sent = 0;
    if (before == LINK_CLOSED) {
        return; /* there is no connection */
    }
    if (link_receive(&to->end, frame, n, p->now, &event, &type, &err) != MOE_OK) {
        MOE_ASSERT(to->end.state == LINK_CLOSED && event == LINK_NOTHING);
    } else {
        check_edge(&to->end, to->side.role, before, type);
    }
    bool is_open = is_accepted(&to->end);
    MOE_ASSERT(was_open || (event != LINK_TOLD && event != LINK_FRAME && event != LINK_ANSWERED &&
                            event != LINK_WANTED && event != LINK_GIVEN && to->end.epoch == epoch));
    if (event == LINK_GIVEN) {
        check_piece(p, frame, n);
    }
    if (p->has_secret && is_open && !was_open) {
        MOE_ASSERT(p->is_same && n == from->n_key_frame && memcmp(frame, from->key_frame, n) == 0);
    }
    MOE_ASSERT(to->n_sent <= 1 || (was_open && type == WIRE_PING && to->n_sent <= 1 + AT_ONCE));
    MOE_ASSERT(to->side.role != LINK_NODE || to->n_before_open <= 1);
}

static void tick(program *p, member *m, bool busy)
{
    const link_state before = m->end.state;
    uint64_t wake = UINT64_MAX;

    m->n_sent = 0;
    link_verdict verdict = link_tick(&m->end, p->now, busy, &wake);
    MOE_ASSERT((verdict == LINK_FINE) == (m->end.state == before));
    check_edge(&m->end, m->side.role, before, LINK_TIME);
    MOE_ASSERT(m->n_sent <= 1 + AT_ONCE && (m->n_sent == 0 || link_is_open(&m->end)));
}

static void connect(program *p)
{
    member *both[] = {&p->coordinator, &p->node};

    for (size_t i = 0; i < MOE_COUNT(both); i++) {
        both[i]->n_queued = both[i]->n_before_open = both[i]->n_key_frame = 0;
        memset(both[i]->blocks, 0, i == 0 ? sizeof both[i]->blocks : 0); /* as a coordinator does */
        (void)!link_begin(&both[i]->end, &both[i]->side, both[i], p->now, p->now + LINK_GREETING_NS);
    }
}

static void drop_oldest(member *m)
{
    m->n_queued -= m->n_queued > 0;
    memmove(m->sent[0], m->sent[1], m->n_queued * sizeof m->sent[0]);
    memmove(m->n_bytes, m->n_bytes + 1, m->n_queued * sizeof m->n_bytes[0]);
}

static void give_oldest(program *p, member *from, bool again)
{
    member *to = from == &p->node ? &p->coordinator : &p->node;
    unsigned char frame[WIRE_SMALL_BYTES];
    size_t n = from->n_bytes[0];

    if (from->n_queued > 0) {
        memcpy(frame, from->sent[0], n);
        if (!again) {
            drop_oldest(from);
        }
        give(p, to, frame, n);
    }
}

static void damage(program *p, member *from)
{
    size_t at = next(p) * 2u + next(p) % 2u;

    if (from->n_queued > 0) {
        from->sent[0][at % from->n_bytes[0]] ^= (unsigned char)(1u << (next(p) & 7));
    }
}

/* A frame of the input's own: a type, a length and a body. */
static void put_in(program *p, member *to)
{
    unsigned char frame[WIRE_SMALL_BYTES] = {'C', 'N', 'C', 'W', WIRE_VERSION, 0, 0, 0};
    uint8_t type = next(p);
    size_t body = next(p) * 2u;
    moe_buf b;

    body = MOE_MIN(body, MOE_MIN(p->n - p->at, sizeof frame - WIRE_HEADER_BYTES));
    frame[6] = type;
    memcpy(frame + WIRE_HEADER_BYTES, p->data + p->at, body);
    p->at += body;
    moe_buf_init(&b, frame, sizeof frame);
    b.used = WIRE_HEADER_BYTES + body;
    p->is_honest = false;
    give(p, to, frame, wire_finish(&b));
}

/* The node loads or drops something. */
static void change(program *p)
{
    uint32_t block = next(p) % N_BLOCKS;

    p->node.blocks[block].experts = next(p);
    p->node.blocks[block].revision = ++p->node.side.revision;
}

static void ask(program *p)
{
    const wire_fetch f = {.part = next(p), .offset = 2u * next(p), .length = 1u + next(p)};

    if (p->coordinator.end.state == LINK_READING) {
        (void)!link_ask(&p->coordinator.end, &f, p->now);
    }
}

/* The node has one part. */
static void answer(program *p)
{
    unsigned char bytes[PART_BYTES], frame[WIRE_SMALL_BYTES];
    const wire_fetch *asked = &p->node.end.asked;
    wire_piece piece = {.part = asked->part, .offset = asked->offset, .bytes = bytes};
    moe_buf b;

    if (p->node.end.state != LINK_ASKED) {
        return;
    }
    memcpy(piece.pack, asked->pack, sizeof piece.pack);
    piece.size = asked->part == 0 ? PART_BYTES : 0;
    for (size_t i = 0; piece.offset + i < piece.size && i < asked->length; i++) {
        bytes[piece.n++] = (unsigned char)(piece.offset + i);
    }
    moe_buf_init(&b, frame, sizeof frame);
    wire_put_piece(&b, &piece);
    if (keep(&p->node, frame, wire_finish(&b))) {
        link_answered(&p->node.end, p->now);
    }
}

/* From here on nothing is lost: soon the coordinator knows all. */
static void check_holds(program *p)
{
    p->node.is_full = p->coordinator.is_full = false;
    while (p->node.n_queued > 0) {
        give_oldest(p, &p->node, false);
    }
    while (p->coordinator.n_queued > 0) {
        give_oldest(p, &p->coordinator, false);
    }
    for (int i = 0; i < 8; i++) {
        p->now += UINT64_C(250000000);
        tick(p, &p->coordinator, false);
        tick(p, &p->node, false);
        while (p->coordinator.n_queued > 0 || p->node.n_queued > 0) {
            give_oldest(p, &p->coordinator, false);
            give_oldest(p, &p->node, false);
        }
    }
    if (!p->is_honest || !link_is_open(&p->coordinator.end) || !link_is_open(&p->node.end)) {
        return;
    }
    MOE_ASSERT(p->coordinator.end.knows_all && p->coordinator.end.known == p->node.side.revision);
    for (uint32_t i = 0; i < N_BLOCKS; i++) {
        MOE_ASSERT(p->coordinator.blocks[i].experts == p->node.blocks[i].experts);
    }
}

static void run(program *p)
{
    uint8_t byte = next(p);
    member *m = (byte & 0x80) != 0 ? &p->node : &p->coordinator;

    switch (byte & 0x7f) {
    case 0:
        connect(p);
        break;
    case 1:
        give_oldest(p, m, false);
        break;
    case 2:
        give_oldest(p, m, true);
        break;
    case 3:
        drop_oldest(m);
        break;
    case 4:
        damage(p, m);
        break;
    case 5:
        put_in(p, m);
        break;
    case 6:
        p->now += next(p) * UINT64_C(10000000);
        tick(p, &p->coordinator, (byte & 0x80) != 0);
        tick(p, &p->node, false);
        break;
    case 7:
        m->side.epoch = next(p);
        break;
    case 8:
        m->side.draining = next(p) & 1;
        break;
    case 9:
        m->is_full = next(p) & 1;
        break;
    case 10:
        m->is_unwanted = next(p) & 1;
        break;
    case 11:
        change(p);
        break;
    case 13:
        ask(p);
        break;
    case 14:
        answer(p);
        break;
    default:
        link_close(&m->end);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const char *const secrets[][2] = {{"", ""}, {"secret", "secret"}, {"secret", "another"}, {"", "secret"}};
    program p = {.data = data, .n = n, .now = 1, .is_honest = true};
    uint8_t first = next(&p);
    const char *const *secret = secrets[first % MOE_COUNT(secrets)];

    draws = 0;
    p.has_secret = secret[1][0] != '\0';
    p.is_same = strcmp(secret[0], secret[1]) == 0;
    member_init(&p.coordinator, (first & 4) != 0 ? LINK_READER : LINK_COORDINATOR, secret[0]);
    member_init(&p.node, LINK_NODE, secret[1]);
    while (p.at < p.n) {
        run(&p);
    }
    check_holds(&p);
    return 0;
}
