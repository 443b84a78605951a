/* One end of a link. docs/wire.md changes in the same commit. */
#include "proto/link.h"

#include <string.h>

/* Chosen, not measured.
 *
 *   SILENT_BEATS   heartbeats without a sign of life until a node counts as lost
 *   BUSY_BEATS     the same while it has rows of ours: a node that computes does not answer. Those that others can
 *                  compute do not wait for that (exchange/speed.c)
 *   AGAIN_NS       what found no room is sent again after this
 *   HOLDS_AT_ONCE  frames of what a node holds that leave at once: 14,848 experts in 58 layers, all of a large model, take
 *                  8. It also bounds what a PING can call forth */
#define SILENT_BEATS  8
#define BUSY_BEATS    32
#define AGAIN_NS      UINT64_C(10000000)
#define HOLDS_AT_ONCE 8

/* ------------------------------------------------------------------------------------------------ edges */
static const link_edge edges[] = {
    {LINK_COORDINATOR, LINK_GREETING, WIRE_HELLO, LINK_TO(LINK_OPEN) | LINK_TO(LINK_CLOSED)},
    {LINK_COORDINATOR, LINK_GREETING, WIRE_GOODBYE, LINK_TO(LINK_GREETING) | LINK_TO(LINK_CLOSED)},
    {LINK_COORDINATOR, LINK_OPEN, WIRE_GOODBYE, LINK_TO(LINK_DRAINING) | LINK_TO(LINK_CLOSED)},
    {LINK_COORDINATOR, LINK_OPEN, WIRE_PONG, LINK_TO(LINK_OPEN)},
    {LINK_COORDINATOR, LINK_OPEN, WIRE_HOLDS, LINK_TO(LINK_OPEN)},
    {LINK_COORDINATOR, LINK_OPEN, WIRE_RESULT, LINK_TO(LINK_OPEN)},
    {LINK_COORDINATOR, LINK_OPEN, WIRE_REFUSE, LINK_TO(LINK_OPEN)},
    {LINK_COORDINATOR, LINK_DRAINING, WIRE_GOODBYE, LINK_TO(LINK_DRAINING) | LINK_TO(LINK_CLOSED)},
    {LINK_COORDINATOR, LINK_DRAINING, WIRE_PONG, LINK_TO(LINK_DRAINING)},
    {LINK_COORDINATOR, LINK_DRAINING, WIRE_HOLDS, LINK_TO(LINK_DRAINING)},
    {LINK_COORDINATOR, LINK_DRAINING, WIRE_RESULT, LINK_TO(LINK_DRAINING)},
    {LINK_COORDINATOR, LINK_DRAINING, WIRE_REFUSE, LINK_TO(LINK_DRAINING)},
    {LINK_COORDINATOR, LINK_GREETING, LINK_TIME, LINK_TO(LINK_GREETING) | LINK_TO(LINK_CLOSED)},
    {LINK_COORDINATOR, LINK_OPEN, LINK_TIME, LINK_TO(LINK_OPEN) | LINK_TO(LINK_CLOSED)},
    {LINK_COORDINATOR, LINK_DRAINING, LINK_TIME, LINK_TO(LINK_DRAINING) | LINK_TO(LINK_CLOSED)},

    {LINK_NODE, LINK_GREETING, WIRE_HELLO,
     LINK_TO(LINK_OPEN) | LINK_TO(LINK_PROVING) | LINK_TO(LINK_REFUSED) | LINK_TO(LINK_READING)},
    {LINK_NODE, LINK_PROVING, WIRE_PROOF, LINK_TO(LINK_OPEN) | LINK_TO(LINK_READING)},
    {LINK_NODE, LINK_OPEN, WIRE_PING, LINK_TO(LINK_OPEN)},
    {LINK_NODE, LINK_OPEN, WIRE_DISPATCH, LINK_TO(LINK_OPEN)},
    {LINK_NODE, LINK_GREETING, LINK_TIME, LINK_TO(LINK_GREETING) | LINK_TO(LINK_CLOSED)},
    {LINK_NODE, LINK_PROVING, LINK_TIME, LINK_TO(LINK_PROVING) | LINK_TO(LINK_CLOSED)},
    {LINK_NODE, LINK_REFUSED, LINK_TIME, LINK_TO(LINK_REFUSED) | LINK_TO(LINK_CLOSED)},
    {LINK_NODE, LINK_OPEN, LINK_TIME, LINK_TO(LINK_OPEN) | LINK_TO(LINK_CLOSED)},
    {LINK_NODE, LINK_READING, WIRE_FETCH, LINK_TO(LINK_ASKED)},
    {LINK_NODE, LINK_READING, LINK_TIME, LINK_TO(LINK_READING) | LINK_TO(LINK_CLOSED)},
    {LINK_NODE, LINK_ASKED, LINK_TIME, LINK_TO(LINK_ASKED) | LINK_TO(LINK_CLOSED)},

    {LINK_PROBE, LINK_GREETING, WIRE_HELLO, LINK_TO(LINK_CLOSED)},
    {LINK_PROBE, LINK_GREETING, WIRE_GOODBYE, LINK_TO(LINK_CLOSED)},
    {LINK_PROBE, LINK_GREETING, LINK_TIME, LINK_TO(LINK_GREETING) | LINK_TO(LINK_CLOSED)},

    {LINK_READER, LINK_GREETING, WIRE_HELLO, LINK_TO(LINK_READING) | LINK_TO(LINK_CLOSED)},
    {LINK_READER, LINK_GREETING, WIRE_GOODBYE, LINK_TO(LINK_CLOSED)},
    {LINK_READER, LINK_GREETING, LINK_TIME, LINK_TO(LINK_GREETING) | LINK_TO(LINK_CLOSED)},
    {LINK_READER, LINK_READING, LINK_TIME, LINK_TO(LINK_READING)},
    {LINK_READER, LINK_ASKED, WIRE_PIECE, LINK_TO(LINK_READING)},
    {LINK_READER, LINK_ASKED, LINK_TIME, LINK_TO(LINK_ASKED) | LINK_TO(LINK_CLOSED)},
};

const link_edge *link_edges(size_t *n_out)
{
    *n_out = MOE_COUNT(edges);
    return edges;
}

static const link_edge *find_edge(const link_end *l, int frame)
{
    for (size_t i = 0; l->state != LINK_CLOSED && i < MOE_COUNT(edges); i++) {
        if (edges[i].role == l->side->role && edges[i].from == l->state && edges[i].frame == frame) {
            return &edges[i];
        }
    }
    return NULL;
}

/* ------------------------------------------------------------------------------------------------ sending */
static bool has_secret(const link_end *l)
{
    return l->side->key->present;
}

static bool send_small(link_end *l, moe_buf *b)
{
    size_t n = wire_finish(b);

    MOE_ASSERT(n > 0);
    return l->side->ops->send(l->ctx, b->data, n);
}

static bool send_goodbye(link_end *l, wire_goodbye_reason reason, const char *text)
{
    unsigned char frame[WIRE_SMALL_BYTES];
    wire_goodbye g = {.reason = (uint16_t)reason};
    moe_buf b;

    moe_buf_init(&b, frame, sizeof frame);
    (void)snprintf(g.text, sizeof g.text, "%s", text);
    wire_put_goodbye(&b, &g);
    return send_small(l, &b);
}

static bool send_hello(link_end *l, const wire_hello *mine)
{
    unsigned char frame[WIRE_SMALL_BYTES];
    moe_buf b;

    moe_buf_init(&b, frame, sizeof frame);
    wire_put_hello(&b, mine);
    return send_small(l, &b);
}

/* Our HELLO as it is on this connection, without the proof. */
static wire_hello own_hello(const link_end *l)
{
    wire_hello h = *l->side->hello;

    if (has_secret(l)) {
        h.n_nonce = sizeof h.nonce;
        memcpy(h.nonce, l->nonce, sizeof h.nonce);
    }
    return h;
}

static void ping(link_end *l, uint64_t now)
{
    unsigned char frame[WIRE_SMALL_BYTES];
    const wire_ping p = {.token = now, .epoch = l->side->epoch, .holds = l->known};
    moe_buf b;

    moe_buf_init(&b, frame, sizeof frame);
    wire_put_ping(&b, &p);
    l->pinged_ns = now;
    if (send_small(l, &b)) {
        l->told_epoch = p.epoch;
    }
}

/* ------------------------------------------------------------------------------------------------ HELLO, PROOF */
moe_status link_begin(link_end *l, const link_side *side, void *ctx, uint64_t now, uint64_t deadline_ns)
{
    moe_status status = MOE_OK;

    *l = (link_end){.side = side,
                    .ctx = ctx,
                    .state = LINK_GREETING,
                    .deadline_ns = deadline_ns,
                    .heard_ns = now,
                    .last_known = UINT64_MAX,
                    .ticked_ns = now,
                    .pinged_ns = now};
    if (has_secret(l)) {
        status = side->ops->draw(l->nonce, sizeof l->nonce);
    }
    if (status == MOE_OK && side->role != LINK_NODE) {
        const wire_hello mine = own_hello(l);

        status = send_hello(l, &mine) ? MOE_OK : MOE_ERR_BUSY;
    }
    if (status != MOE_OK) {
        link_close(l);
    }
    return status;
}

void link_close(link_end *l)
{
    l->state = LINK_CLOSED;
}

static moe_status judge(link_end *l, moe_error *err)
{
    const link_ops *ops = l->side->ops;
    moe_status status = wire_hello_check(l->side->hello, &l->theirs, err);

    if (status == MOE_OK && l->side->role == LINK_NODE && has_secret(l) && l->theirs.n_nonce == 0) {
        l->is_unproved = true;
        status = moe_fail(err, MOE_ERR_DENIED, "member %s has no nonce: this cluster has a secret", l->theirs.member);
    }
    return status == MOE_OK && ops->judge != NULL ? ops->judge(l->ctx, &l->theirs, err) : status;
}

/* What a node's end becomes when the other is accepted. */
static link_state accepted(const link_end *l)
{
    return l->theirs.role == WIRE_READER ? LINK_READING : LINK_OPEN;
}

/* The called end answers with its own HELLO, which carries its proof. */
static moe_status answer_hello(link_end *l, link_event *out, moe_error *err)
{
    wire_hello mine = own_hello(l);

    if (has_secret(l)) {
        moe_status status = wire_prove(l->side->key, WIRE_NODE, &l->theirs, &mine, mine.mac);

        if (status != MOE_OK) {
            return moe_fail(err, status, "no proof for HELLO");
        }
        mine.n_mac = sizeof mine.mac;
    }
    if (!send_hello(l, &mine)) {
        return moe_fail(err, MOE_ERR_BUSY, "no send buffer for HELLO");
    }
    l->state = has_secret(l) ? LINK_PROVING : accepted(l);
    *out = has_secret(l) ? LINK_NOTHING : LINK_OPENED;
    return MOE_OK;
}

/* With a secret: the node's proof is checked and, but by a probe, answered with ours. */
static moe_status prove(link_end *l, moe_error *err)
{
    const wire_hello mine = own_hello(l);
    unsigned char frame[WIRE_SMALL_BYTES], mac[32];
    moe_buf b;

    if (!has_secret(l)) {
        return MOE_OK;
    }
    if (l->theirs.n_mac != sizeof l->theirs.mac ||
        !wire_proves(l->side->key, WIRE_NODE, &mine, &l->theirs, l->theirs.mac)) {
        l->is_unproved = true;
        return moe_fail(err, MOE_ERR_DENIED, "its proof of the cluster secret is %s",
                        l->theirs.n_mac == 0 ? "missing" : "wrong");
    }
    if (l->side->role == LINK_PROBE) {
        return MOE_OK;
    }
    moe_buf_init(&b, frame, sizeof frame);
    moe_status status = wire_prove(l->side->key, (wire_role)mine.role, &mine, &l->theirs, mac);
    wire_put_proof(&b, mac);
    return status == MOE_OK && send_small(l, &b) ? MOE_OK : moe_fail(err, MOE_ERR_BUSY, "no send buffer for PROOF");
}

/* The checks go from what the operator must mend (another cluster, another model, an address that leads elsewhere) to
 * the proof, which costs two HMACs. HELLO needs no proof to be parsed: nothing in it is believed but names and
 * limits. */
static moe_status on_hello(link_end *l, const unsigned char *bytes, size_t n, link_event *out, moe_error *err)
{
    moe_status status = wire_get_hello(bytes, n, &l->theirs, err);

    if (status != MOE_OK) {
        return status;
    }
    bool fits = judge(l, err) == MOE_OK;
    if (l->side->role == LINK_NODE) {
        if (fits) {
            return answer_hello(l, out, err);
        }
        (void)send_goodbye(l, WIRE_GOODBYE_REFUSED, err->text);
        l->state = LINK_REFUSED;
        *out = LINK_TURNED_AWAY;
    } else {
        static const link_state opened[LINK_N_ROLES] = {
            [LINK_COORDINATOR] = LINK_OPEN, [LINK_PROBE] = LINK_CLOSED, [LINK_READER] = LINK_READING};
        bool proved = fits && prove(l, err) == MOE_OK;

        l->state = proved ? opened[l->side->role] : LINK_CLOSED;
        l->pinged_ns = l->heard_ns; /* now */
        *out = proved ? LINK_OPENED : LINK_TURNED_AWAY;
    }
    return MOE_OK;
}

static moe_status on_proof(link_end *l, const unsigned char *bytes, size_t n, link_event *out, moe_error *err)
{
    const wire_hello mine = own_hello(l);
    unsigned char mac[32];
    moe_status status = wire_get_proof(bytes, n, mac, err);

    if (status != MOE_OK) {
        return status;
    }
    if (!wire_proves(l->side->key, (wire_role)l->theirs.role, &l->theirs, &mine, mac)) {
        l->is_unproved = true;
        return moe_fail(err, MOE_ERR_DENIED, "its proof of the cluster secret is wrong");
    }
    l->state = accepted(l);
    *out = LINK_OPENED;
    return MOE_OK;
}

/* ------------------------------------------------------------------------------------------------ open */
/* Sends what the coordinator has not been told of what we hold. False: there is more, or there was no room. */
static bool tell_holds(link_end *l)
{
    for (int i = 0; i < HOLDS_AT_ONCE && l->told < l->side->revision; i++) {
        unsigned char frame[WIRE_SMALL_BYTES];
        wire_holds h = {.n_blocks = 0};
        moe_buf b;

        l->side->ops->holds_after(l->ctx, l->told, &h);
        moe_buf_init(&b, frame, sizeof frame);
        wire_put_holds(&b, &h);
        if (!send_small(l, &b)) {
            return false;
        }
        l->told = h.upto;
    }
    return l->told >= l->side->revision;
}

/* A PING that knows no more than the one before, although more was told, says that a frame was lost, or (it knows less) that
 * all is to be told again: it is told from there. */
static void hear_of_holds(link_end *l, uint64_t known)
{
    if (known < l->told && known <= l->last_known && l->last_known != UINT64_MAX) {
        l->told = known;
        (void)tell_holds(l);
    }
    l->last_known = known;
}

static moe_status on_holds(link_end *l, const unsigned char *bytes, size_t n, link_event *out, moe_error *err)
{
    wire_holds h;
    moe_status status = wire_get_holds(bytes, n, &h, err);

    if (status != MOE_OK) {
        return status;
    }
    *out = LINK_TOLD;
    if (h.after <= l->known && h.upto > l->known) { /* else one before it was lost, or it is old */
        l->known = h.upto;
        l->knows_all = l->knows_all || h.upto == h.latest;
        l->side->ops->on_holds(l->ctx, &h);
    }
    return MOE_OK;
}

static moe_status on_ping(link_end *l, const unsigned char *bytes, size_t n, moe_error *err)
{
    unsigned char frame[WIRE_SMALL_BYTES];
    wire_pong pong = l->side->load;
    wire_ping p;
    moe_buf b;
    moe_status status = wire_get_ping(bytes, n, &p, err);

    if (status == MOE_OK) {
        l->epoch = p.epoch;
        pong.token = p.token;
        moe_buf_init(&b, frame, sizeof frame);
        wire_put_pong(&b, &pong);
        (void)send_small(l, &b); /* one that does not read gets none */
        hear_of_holds(l, p.holds);
    }
    return status;
}

static moe_status on_pong(link_end *l, const unsigned char *bytes, size_t n, link_event *out, moe_error *err)
{
    wire_pong pong;
    moe_status status = wire_get_pong(bytes, n, &pong, err);

    if (status == MOE_OK) {
        l->queued_rows = pong.queued_rows;
        *out = LINK_ANSWERED;
    }
    return status;
}

static moe_status on_goodbye(link_end *l, const unsigned char *bytes, size_t n, link_event *out, moe_error *err)
{
    wire_goodbye g;
    moe_status status = wire_get_goodbye(bytes, n, &g, err);

    if (status != MOE_OK) {
        return status;
    }
    if (g.reason != WIRE_GOODBYE_DRAINING || l->side->role != LINK_COORDINATOR) {
        (void)moe_fail(err, MOE_ERR_DENIED, "%s", g.text);
        l->state = LINK_CLOSED;
        *out = LINK_TURNED_AWAY;
    } else if (l->state == LINK_OPEN) {
        l->state = LINK_DRAINING;
        *out = LINK_LEAVING;
    }
    return MOE_OK;
}

/* ------------------------------------------------------------------------------------------------ reading */
uint32_t link_max_piece(const link_end *l)
{
    uint64_t most = MOE_MIN(l->side->hello->max_message, l->theirs.max_message) - WIRE_PIECE_BYTES;

    return (uint32_t)MOE_MIN(most, (uint64_t)WIRE_MAX_PIECE);
}

moe_status link_ask(link_end *l, const wire_fetch *what, uint64_t now)
{
    unsigned char frame[WIRE_SMALL_BYTES];
    moe_buf b;

    MOE_ASSERT(l->state == LINK_READING && l->side->role == LINK_READER && what->length <= link_max_piece(l));
    moe_buf_init(&b, frame, sizeof frame);
    wire_put_fetch(&b, what);
    if (!send_small(l, &b)) {
        return MOE_ERR_BUSY;
    }
    l->asked = *what;
    l->asked_ns = now;
    l->state = LINK_ASKED;
    return MOE_OK;
}

void link_answered(link_end *l, uint64_t now)
{
    MOE_ASSERT(l->state == LINK_ASKED && l->side->role == LINK_NODE);
    l->heard_ns = now; /* its turn begins */
    l->state = LINK_READING;
}

static moe_status on_fetch(link_end *l, const unsigned char *bytes, size_t n, link_event *out, moe_error *err)
{
    moe_status status = wire_get_fetch(bytes, n, &l->asked, err);

    if (status == MOE_OK && l->asked.length > link_max_piece(l)) {
        status = moe_fail(err, MOE_ERR_CORRUPT, "FETCH: %u bytes, limit %u here", l->asked.length, link_max_piece(l));
    }
    if (status == MOE_OK) {
        l->state = LINK_ASKED;
        *out = LINK_WANTED;
    }
    return status;
}

static moe_status on_piece(link_end *l, const unsigned char *bytes, size_t n, link_event *out, moe_error *err)
{
    const wire_fetch *asked = &l->asked;
    wire_piece p;
    moe_status status = wire_get_piece(bytes, n, &p, err);

    if (status != MOE_OK) {
        return status;
    }
    uint64_t left = asked->offset < p.size ? p.size - asked->offset : 0;
    if (memcmp(p.pack, asked->pack, sizeof p.pack) != 0 || p.part != asked->part || p.offset != asked->offset ||
        p.n != MOE_MIN(left, (uint64_t)asked->length)) {
        return moe_fail(err, MOE_ERR_CORRUPT, "PIECE: %u bytes at %llu of part %u, asked for %u at %llu of part %u",
                        p.n, (unsigned long long)p.offset, p.part, asked->length, (unsigned long long)asked->offset,
                        asked->part);
    }
    l->state = LINK_READING;
    *out = LINK_GIVEN;
    return MOE_OK;
}

static moe_status take(link_end *l, wire_type type, const unsigned char *bytes, size_t n, link_event *out,
                       moe_error *err)
{
    switch (type) {
    case WIRE_HELLO:
        return on_hello(l, bytes, n, out, err);
    case WIRE_PROOF:
        return on_proof(l, bytes, n, out, err);
    case WIRE_PING:
        return on_ping(l, bytes, n, err);
    case WIRE_PONG:
        return on_pong(l, bytes, n, out, err);
    case WIRE_HOLDS:
        return on_holds(l, bytes, n, out, err);
    case WIRE_GOODBYE:
        return on_goodbye(l, bytes, n, out, err);
    case WIRE_FETCH:
        return on_fetch(l, bytes, n, out, err);
    case WIRE_PIECE:
        return on_piece(l, bytes, n, out, err);
    case WIRE_DISPATCH:
    case WIRE_RESULT:
    case WIRE_REFUSE:
        *out = LINK_FRAME;
        return MOE_OK;
    }
    return MOE_ERR_INTERNAL; /* wire_open knows no other */
}

moe_status link_receive(link_end *l, const unsigned char *bytes, size_t n, uint64_t now, link_event *out,
                        wire_type *type_out, moe_error *err)
{
    wire_type type = WIRE_HELLO;
    moe_status status = wire_open(bytes, n, &type, err);

    *out = LINK_NOTHING;
    l->is_unproved = false;
    if (status == MOE_OK) {
        const link_edge *edge = find_edge(l, type);

        l->heard_ns = now;
        *type_out = type;
        if (edge == NULL) {
            status = moe_fail(err, MOE_ERR_CORRUPT, "%s %s", wire_type_name(type),
                              link_is_open(l) || link_is_reading(l) ? "is not expected now"
                                                                    : "came before HELLO was accepted");
        } else {
            status = take(l, type, bytes, n, out, err);
            MOE_ASSERT(status != MOE_OK || (edge->to & LINK_TO(l->state)) != 0);
        }
    }
    if (status != MOE_OK) {
        link_close(l);
    }
    return status;
}

/* ------------------------------------------------------------------------------------------------ time */
static link_verdict beat(link_end *l, uint64_t now, bool busy, uint64_t *wake_ns)
{
    uint64_t each = l->side->heartbeat_ns;

    if (now - l->pinged_ns > 2 * each) {
        l->heard_ns = now; /* this loop has not turned for two beats: the silence was ours, not the node's */
    }
    if (now - l->heard_ns > (busy ? BUSY_BEATS : SILENT_BEATS) * each) {
        return LINK_SILENT;
    }
    if (now - l->pinged_ns >= each) {
        ping(l, now);
    }
    *wake_ns = MOE_MIN(*wake_ns, l->pinged_ns + each);
    return LINK_FINE;
}

static link_verdict tick_coordinator(link_end *l, uint64_t now, bool busy, uint64_t *wake_ns)
{
    link_verdict verdict = l->side->heartbeat_ns != 0 ? beat(l, now, busy, wake_ns) : LINK_FINE;

    if (verdict == LINK_FINE && l->told_epoch != l->side->epoch) {
        ping(l, now);
        if (l->told_epoch != l->side->epoch) {
            *wake_ns = MOE_MIN(*wake_ns, now + AGAIN_NS);
        }
    }
    return verdict;
}

static link_verdict tick_node(link_end *l, uint64_t now, uint64_t *wake_ns)
{
    if (now - l->ticked_ns > LINK_CALLER_NS / 2) {
        l->heard_ns = now; /* this loop has not turned meanwhile */
    }
    l->ticked_ns = now;
    if (now - l->heard_ns >= LINK_CALLER_NS) {
        return LINK_SILENT;
    }
    *wake_ns = MOE_MIN(*wake_ns, l->heard_ns + LINK_CALLER_NS);
    bool is_all = tell_holds(l);
    if (l->side->draining && !l->told_draining) {
        l->told_draining = send_goodbye(l, WIRE_GOODBYE_DRAINING, "draining");
        is_all = is_all && l->told_draining;
    }
    if (!is_all) {
        *wake_ns = MOE_MIN(*wake_ns, now + AGAIN_NS);
    }
    return LINK_FINE;
}

/* Silent is a node's reader that asks nothing, or does not take its answers; and a reader's node that does not answer. */
static link_verdict tick_reading(const link_end *l, uint64_t now, uint64_t *wake_ns)
{
    bool is_node = l->side->role == LINK_NODE;
    uint64_t end = is_node ? l->heard_ns + LINK_READING_NS : l->asked_ns + LINK_ASKED_NS;

    if (!is_node && l->state == LINK_READING) {
        return LINK_FINE;
    }
    *wake_ns = MOE_MIN(*wake_ns, end);
    return now >= end ? LINK_SILENT : LINK_FINE;
}

void link_ask_again(link_end *l)
{
    l->known = 0;
    l->told_epoch = 0; /* a PING says so at once */
}

link_verdict link_tick(link_end *l, uint64_t now, bool busy, uint64_t *wake_ns)
{
    link_verdict verdict = LINK_FINE;

    if (l->state == LINK_CLOSED) {
        return LINK_FINE;
    }
    if (link_is_reading(l)) {
        verdict = tick_reading(l, now, wake_ns);
    } else if (!link_is_open(l)) {
        verdict = l->deadline_ns != 0 && now >= l->deadline_ns ? LINK_LATE : LINK_FINE;
        if (l->deadline_ns != 0) {
            *wake_ns = MOE_MIN(*wake_ns, l->deadline_ns);
        }
    } else if (l->side->role == LINK_NODE) {
        verdict = tick_node(l, now, wake_ns);
    } else {
        verdict = tick_coordinator(l, now, busy, wake_ns);
    }
    if (verdict != LINK_FINE) {
        link_close(l);
    }
    return verdict;
}
