/* Connections to nodes: connect, greet, watch, lose, connect again.
 *
 *   DOWN --connect--> CONNECTING --UP--> GREETING --HELLO accepted--> READY --GOODBYE (1)--> DRAINING
 *     ^                   |                  |                          |                       |
 *     +-------------------+------------------+------- lost, refused ----+-----------------------+
 *
 * A node is never given up here: the cluster's state says which nodes there are (exchange_add_node, _remove_node), and
 * as long as one is there it is met again, ever more slowly. */
#include "exchange/exchange_priv.h"

#include <string.h>

/* Chosen, not measured.
 *
 *   BACKOFF_FIRST, _MOST   between connects: doubled from 10 ms to 1 s. A node that restarts is thus found within a
 *                          second of listening, and one that is gone costs one connect a second
 *   GREETING_TIMEOUTS      connect and HELLO may take so many dispatch time-outs, GREETING_MOST at most: a node itself
 *                          closes what has not greeted and proved within 2 s (docs/wire.md)
 *   SILENT_BEATS           heartbeats without a sign of life until a node counts as lost
 *   BUSY_BEATS             the same while it has rows of ours: a node that computes does not answer. Those that others can
 *                          compute do not wait for that (speed.c)
 *   MISSED                 a node that was met counts as lost when its connection has broken, so much time has passed, and
 *                          another one could not be made meanwhile: one that lives is met again within milliseconds */
#define BACKOFF_FIRST_NS  UINT64_C(10000000)
#define BACKOFF_MOST_NS   UINT64_C(1000000000)
#define GREETING_TIMEOUTS 8
#define GREETING_MOST_NS  UINT64_C(2000000000)
#define SILENT_BEATS      8
#define MISSED_NS         UINT64_C(1000000000)
#define BUSY_BEATS        32

static exchange_node *find_peer(exchange *x, transport_peer peer)
{
    for (size_t i = 0; i < ROUTER_MAX_NODES; i++) {
        if (x->nodes[i].state != NODE_FREE && x->nodes[i].peer == peer) {
            return &x->nodes[i];
        }
    }
    return NULL;
}

static exchange_node *find_id(const exchange *x, const char *id)
{
    for (size_t i = 0; i < ROUTER_MAX_NODES; i++) {
        if (x->nodes[i].state != NODE_FREE && strcmp(x->nodes[i].id, id) == 0) {
            return (exchange_node *)(uintptr_t)&x->nodes[i];
        }
    }
    return NULL;
}

void exchange_map_nodes(exchange *x)
{
    size_t n = x->placement == NULL ? 0 : router_placement_n_nodes(x->placement);

    for (size_t i = 0; i < n; i++) {
        const exchange_node *node = find_id(x, router_placement_node_id(x->placement, i));

        x->node_of[i] = node == NULL ? EXCHANGE_NO_NODE : (uint32_t)(node - x->nodes);
    }
    x->coverage.stale = true;
    exchange_replan(x);
}

static void set_timer(exchange *x, exchange_node *node, uint64_t at_ns)
{
    node->timer_ns = at_ns;
    exchange_wake_at(x, at_ns);
}

moe_status exchange_add_node(exchange *x, const char *id, const char *address, uint64_t incarnation, moe_error *err)
{
    exchange_node *node = NULL;

    if (strlen(id) == 0 || strlen(id) > ROUTER_MAX_NODE_ID || strlen(address) >= sizeof node->address) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "node \"%s\" at \"%s\": id of 1 to %d characters, address below %zu",
                        id, address, ROUTER_MAX_NODE_ID, sizeof node->address);
    }
    if (find_id(x, id) != NULL) {
        return moe_fail(err, MOE_ERR_EXISTS, "node %s was added before", id);
    }
    for (size_t i = 0; i < ROUTER_MAX_NODES && node == NULL; i++) {
        node = x->nodes[i].state == NODE_FREE ? &x->nodes[i] : NULL;
    }
    if (node == NULL) {
        return moe_fail(err, MOE_ERR_BUSY, "node %s: limit %d nodes", id, ROUTER_MAX_NODES);
    }
    *node = (exchange_node){.state = NODE_DOWN, .expected = incarnation, .speed.burden = ROUTER_BURDEN_ONE};
    memcpy(node->id, id, strlen(id) + 1);
    memcpy(node->address, address, strlen(address) + 1);
    set_timer(x, node, moe_now_ns(x->o.clock));
    exchange_map_nodes(x);
    return MOE_OK;
}

/* Closes what there is and forgets its attempts. */
static void disconnect(exchange *x, exchange_node *node)
{
    transport_peer peer = node->peer;

    node->state = NODE_DOWN;
    node->peer = 0;
    node->queued_rows = 0;
    if (peer != 0) {
        x->o.transport->ops->peer_close(x->o.transport, peer);
        exchange_peer_lost(x, peer);
    }
}

void exchange_remove_node(exchange *x, const char *id)
{
    exchange_node *node = find_id(x, id);

    if (node != NULL) {
        disconnect(x, node);
        node->state = NODE_FREE;
        exchange_map_nodes(x);
    }
}

bool exchange_node_ready(const exchange *x, const char *id)
{
    const exchange_node *node = find_id(x, id);

    return node != NULL && node->state == NODE_READY;
}

static bool is_missed(const exchange_node *node, uint64_t now)
{
    return node->n_failed > 0 && node->lost_ns != 0 && now - node->lost_ns >= MISSED_NS && !node->is_another;
}

bool exchange_get_node(const exchange *x, const char *id, exchange_node_info *out)
{
    const exchange_node *node = find_id(x, id);
    static const exchange_node_kind kinds[] = {[NODE_DOWN] = EXCHANGE_NODE_DOWN,
                                               [NODE_CONNECTING] = EXCHANGE_NODE_CONNECTING,
                                               [NODE_GREETING] = EXCHANGE_NODE_CONNECTING,
                                               [NODE_READY] = EXCHANGE_NODE_READY,
                                               [NODE_DRAINING] = EXCHANGE_NODE_DRAINING};

    if (node == NULL) {
        return false;
    }
    uint64_t now = moe_now_ns(x->o.clock);
    *out = (exchange_node_info){.kind = kinds[node->state],
                                .incarnation = node->incarnation,
                                .is_another = node->is_another,
                                .is_refused = node->state < NODE_READY && node->is_refused,
                                .is_mute = now < node->mute.until_ns,
                                .is_missed = is_missed(node, now),
                                .rows = node->rows,
                                .frames = node->frames,
                                .busy_seconds = (double)node->busy_ns * 1e-9,
                                .queued_rows = node->queued_rows,
                                .hedges = node->hedges,
                                .carrier =
                                    node->state >= NODE_READY ? transport_carrier(x->o.transport, node->peer) : NULL,
                                .slowness = (double)node->speed.burden / ROUTER_BURDEN_ONE};
    memcpy(out->why, node->why, sizeof out->why);
    return true;
}

/* That a node is gone which has said goodbye is no trouble. */
static void complain(exchange_node *node, const char *what, const char *why)
{
    (void)snprintf(node->why, sizeof node->why, "%s", why);
    if (node->leaving) {
        MOE_DEBUG("node %s at %s %s: %s", node->id, node->address, what, why);
        return;
    }
    node->troubled = true;
    MOE_WARN("node %s at %s %s: %s", node->id, node->address, what, why);
}

/* The first connect after a loss is tried at once, later ones ever more slowly. */
static void lose(exchange *x, exchange_node *node, const char *what, const char *why)
{
    node->leaving = node->leaving || node->state == NODE_DRAINING;
    if (node->state >= NODE_READY) {
        node->lost_ns = moe_now_ns(x->o.clock);
    } else {
        node->n_failed++;
    }
    disconnect(x, node);
    set_timer(x, node, moe_now_ns(x->o.clock) + node->backoff_ns);
    node->backoff_ns = node->backoff_ns == 0 ? BACKOFF_FIRST_NS : MOE_MIN(2 * node->backoff_ns, BACKOFF_MOST_NS);
    complain(node, what, why);
}

static void lost(exchange *x, exchange_node *node, const char *why)
{
    lose(x, node, node->state >= NODE_READY ? "is lost" : "is not used", why);
}

static void refuse_node(exchange *x, exchange_node *node, const char *why)
{
    node->backoff_ns = BACKOFF_MOST_NS;
    lose(x, node, "is not used", why);
}

static void connect_node(exchange *x, exchange_node *node, uint64_t now)
{
    transport *t = x->o.transport;
    moe_status status = t->ops->connect(t, node->address, &node->peer);

    if (status != MOE_OK) {
        node->peer = 0;
        node->is_refused = status == MOE_ERR_UNAVAILABLE;
        lost(x, node, moe_status_text(status));
        return;
    }
    node->state = NODE_CONNECTING;
    set_timer(x, node, now + MOE_MIN(GREETING_TIMEOUTS * x->o.dispatch_timeout_ns, GREETING_MOST_NS));
}

static bool post_small(exchange *x, transport_peer peer, void (*put)(moe_buf *b, const void *what), const void *what)
{
    transport_frame *f = transport_frames_take(x->small);
    moe_buf b;

    if (f == NULL) {
        return false;
    }
    moe_buf_init(&b, f->data, WIRE_SMALL_BYTES);
    put(&b, what);
    size_t n = wire_finish(&b);
    MOE_ASSERT(n > 0);
    transport_frame_post(f, peer, n);
    return true;
}

static void put_hello(moe_buf *b, const void *hello)
{
    wire_put_hello(b, hello);
}

static void put_proof(moe_buf *b, const void *mac)
{
    wire_put_proof(b, mac);
}

/* Our HELLO as it was sent on the node's connection. */
static wire_hello hello_to(const exchange *x, const exchange_node *node)
{
    wire_hello h = x->hello;

    if (x->key.present) {
        h.n_nonce = sizeof h.nonce;
        memcpy(h.nonce, node->nonce, sizeof h.nonce);
    }
    return h;
}

static moe_status send_hello(exchange *x, exchange_node *node)
{
    wire_hello h = x->hello;
    moe_status status = x->key.present ? wire_hello_nonce(&h) : MOE_OK;

    if (status == MOE_OK) {
        memcpy(node->nonce, h.nonce, sizeof node->nonce);
        status = post_small(x, node->peer, put_hello, &h) ? MOE_OK : MOE_ERR_BUSY;
    }
    return status;
}

static void put_ping(moe_buf *b, const void *p)
{
    wire_put_ping(b, p);
}

static void ping(exchange *x, exchange_node *node, uint64_t now)
{
    const wire_ping p = {.token = now, .epoch = x->applied_epoch};

    node->pinged_ns = now;
    if (post_small(x, node->peer, put_ping, &p)) {
        node->told_epoch = p.epoch;
    } else {
        exchange_wake_at(x, now + BACKOFF_FIRST_NS);
    }
}

static bool is_busy_for_us(const exchange *x, const exchange_node *node)
{
    for (size_t i = 0; i < x->n_attempts; i++) {
        if (x->attempts[i].state != ATTEMPT_FREE && x->attempts[i].peer == node->peer) {
            return true;
        }
    }
    return false;
}

static void beat(exchange *x, exchange_node *node, uint64_t now)
{
    if (now - node->pinged_ns > 2 * x->o.heartbeat_ns) {
        node->heard_ns = now; /* this loop has not turned for two beats: the silence was ours, not the node's */
        node->mute.owed_ns = node->mute.owed_ns == 0 ? 0 : now;
    }
    if (now - node->heard_ns > (is_busy_for_us(x, node) ? BUSY_BEATS : SILENT_BEATS) * x->o.heartbeat_ns) {
        lost(x, node, "silent");
        return;
    }
    exchange_mute_judge(x, node, now);
    if (now - node->pinged_ns >= x->o.heartbeat_ns) {
        ping(x, node, now);
    }
    exchange_wake_at(x, node->pinged_ns + x->o.heartbeat_ns);
}

void exchange_set_applied(exchange *x, uint64_t epoch)
{
    x->applied_epoch = epoch;
    exchange_wake_at(x, 0);
}

void exchange_node_timers(exchange *x, uint64_t now)
{
    for (size_t i = 0; i < ROUTER_MAX_NODES; i++) {
        exchange_node *node = &x->nodes[i];

        if (node->state == NODE_FREE) {
            continue;
        }
        if (node->state >= NODE_READY) {
            if (x->o.heartbeat_ns != 0) {
                beat(x, node, now);
            }
            if (node->state >= NODE_READY && node->told_epoch != x->applied_epoch) {
                ping(x, node, now);
            }
        } else if (now < node->timer_ns) {
            exchange_wake_at(x, node->timer_ns);
        } else if (node->state == NODE_DOWN) {
            connect_node(x, node, now);
        } else {
            lost(x, node, "no greeting in time");
        }
    }
}

void exchange_on_peer(void *ctx, transport_peer peer, transport_peer_event event, const char *why)
{
    exchange *x = ctx;
    exchange_node *node = find_peer(x, peer);

    if (node == NULL) {
        if (event == TRANSPORT_UP) {
            x->o.transport->ops->peer_close(x->o.transport, peer); /* a coordinator is not connected to */
        }
        return;
    }
    if (event != TRANSPORT_UP) {
        node->is_refused = event == TRANSPORT_REFUSED;
        lost(x, node, why);
    } else if (node->state == NODE_CONNECTING) {
        node->state = NODE_GREETING;
        if (send_hello(x, node) != MOE_OK) {
            lost(x, node, "no send buffer or no randomness for HELLO");
        }
    }
}

bool exchange_fit(const exchange *x, uint64_t max_message, uint32_t *rows, uint32_t *picks)
{
    uint64_t result_head = wire_result_bytes(0, x->o.d_model, x->dtype);
    uint64_t dispatch_head = wire_dispatch_bytes(0, 0, 0, x->o.d_model, x->dtype);

    if (max_message <= result_head || max_message <= dispatch_head) {
        return false;
    }
    *picks = (uint32_t)MOE_MIN(*picks, (max_message - result_head) / x->row_bytes);
    /* Each pick brings 4 bytes of index and at most one group of 8. The lists may take half of a frame, the rows get
     * the other half at least. Chosen, not measured: with k picks of 12 bytes per row the lists pass a half only where
     * 12 * k > row_bytes, far below the widths of real models, so this bounds tiny tests and odd shapes. + 1: at least
     * one pick, also in the smallest frame. */
    uint64_t room = max_message - dispatch_head;
    *picks = (uint32_t)MOE_MIN(*picks, room / 2 / 12 + 1);
    uint64_t lists = (uint64_t)*picks * 12;
    *rows = room <= lists ? 0 : (uint32_t)MOE_MIN(*rows, (room - lists) / x->row_bytes);
    return *rows >= 1 && *picks >= x->o.k;
}

/* With a secret: the node's proof is checked and answered with ours. */
static moe_status prove(exchange *x, exchange_node *node, const wire_hello *theirs, moe_error *err)
{
    const wire_hello mine = hello_to(x, node);
    unsigned char mac[32];

    if (!x->key.present) {
        return MOE_OK;
    }
    if (theirs->n_mac != sizeof theirs->mac || !wire_proves(&x->key, WIRE_NODE, &mine, theirs, theirs->mac)) {
        x->stats.auth_failures++;
        return moe_fail(err, MOE_ERR_DENIED, "its proof of the cluster secret is %s",
                        theirs->n_mac == 0 ? "missing" : "wrong");
    }
    if (wire_prove(&x->key, WIRE_COORDINATOR, &mine, theirs, mac) != MOE_OK ||
        !post_small(x, node->peer, put_proof, mac)) {
        return moe_fail(err, MOE_ERR_BUSY, "no send buffer for PROOF");
    }
    return MOE_OK;
}

static void on_ready(exchange_node *node, const wire_hello *theirs)
{
    node->state = NODE_READY;
    node->is_refused = false;
    node->is_another = false;
    node->incarnation = theirs->incarnation;
    node->told_epoch = 0;
    node->lost_ns = 0;
    node->n_failed = 0;
    node->mute.owed_ns = 0;
    node->why[0] = '\0';
    node->leaving = false;
}

/* The checks go from what the operator must mend (another cluster, another model, an address that leads elsewhere) to
 * the proof, which costs two HMACs. HELLO needs no proof to be parsed: nothing in it is believed but names and
 * limits. */
static moe_status on_hello(exchange *x, exchange_node *node, const unsigned char *bytes, size_t n, moe_error *err)
{
    wire_hello h;
    moe_status status = wire_get_hello(bytes, n, &h, err);

    if (status != MOE_OK) {
        return status;
    }
    node->max_rows = MOE_MIN(x->hello.max_rows, h.max_rows);
    node->max_picks = MOE_MIN(x->hello.max_picks, h.max_picks);
    if (wire_hello_check(&x->hello, &h, err) != MOE_OK) {
        refuse_node(x, node, err->text);
    } else if (strcmp(h.member, node->id) != 0) {
        refuse_node(x, node, "another member answers at its address");
    } else if (node->expected != 0 && h.incarnation != node->expected) {
        node->is_another = true;
        refuse_node(x, node, "it was started anew, and the cluster's state does not tell yet what it holds");
    } else if (!exchange_fit(x, MOE_MIN(h.max_message, x->hello.max_message), &node->max_rows, &node->max_picks)) {
        refuse_node(x, node, "it takes less than one row in a frame");
    } else if (prove(x, node, &h, err) != MOE_OK) {
        refuse_node(x, node, err->text);
    } else {
        on_ready(node, &h);
        MOE_INFO("node %s at %s: frames travel by %s", node->id, node->address,
                 transport_carrier(x->o.transport, node->peer));
        node->slow_until_ns = node->hold_until_ns = 0;
        node->pinged_ns = moe_now_ns(x->o.clock);
        exchange_wake_at(x, node->pinged_ns); /* the epoch is told at once */
        exchange_replan(x);
    }
    return MOE_OK;
}

static moe_status on_goodbye(exchange *x, exchange_node *node, const unsigned char *bytes, size_t n, moe_error *err)
{
    wire_goodbye g;
    moe_status status = wire_get_goodbye(bytes, n, &g, err);

    if (status != MOE_OK) {
        return status;
    }
    if (g.reason != WIRE_GOODBYE_DRAINING) {
        refuse_node(x, node, g.text);
    } else if (node->state == NODE_READY) {
        MOE_INFO("node %s: draining", node->id);
        node->state = NODE_DRAINING;
    }
    return MOE_OK;
}

static moe_status on_answer(exchange *x, exchange_node *node, wire_type type, const unsigned char *bytes, size_t n,
                            moe_error *err)
{
    wire_result result;
    wire_refuse refuse;
    wire_pong pong;
    moe_status status;

    if (type == WIRE_RESULT) {
        node->slow_until_ns = 0; /* it computes, whatever this answers */
        exchange_mute_answered(x, node);
        x->stats.frames_received++;
        x->stats.bytes_received += n;
        status = wire_get_result(bytes, n, &result, err);
        return status == MOE_OK ? exchange_on_result(x, node->peer, &result, err) : status;
    }
    if (type == WIRE_REFUSE) {
        status = wire_get_refuse(bytes, n, &refuse, err);
        if (status == MOE_OK) {
            exchange_on_refuse(x, node->peer, &refuse);
        }
        return status;
    }
    status = wire_get_pong(bytes, n, &pong, err);
    if (status == MOE_OK) {
        node->queued_rows = pong.queued_rows;
    }
    return status;
}

/* It has answered: what was wrong before is over. */
static void well(exchange_node *node)
{
    node->backoff_ns = 0;
    if (node->troubled) {
        node->troubled = false;
        MOE_INFO("node %s at %s answers again", node->id, node->address);
    }
}

static moe_status on_frame(exchange *x, exchange_node *node, const unsigned char *bytes, size_t n, moe_error *err)
{
    wire_type type;
    moe_status status = wire_open(bytes, n, &type, err);

    if (status != MOE_OK) {
        return status;
    }
    node->heard_ns = moe_now_ns(x->o.clock);
    if (type == WIRE_GOODBYE) {
        return on_goodbye(x, node, bytes, n, err);
    }
    if (type == WIRE_HELLO && node->state == NODE_GREETING) {
        return on_hello(x, node, bytes, n, err);
    }
    if (node->state >= NODE_READY && (type == WIRE_RESULT || type == WIRE_REFUSE || type == WIRE_PONG)) {
        well(node); /* not for a HELLO alone: a node that then talks nonsense is met ever more slowly */
        return on_answer(x, node, type, bytes, n, err);
    }
    return moe_fail(err, MOE_ERR_CORRUPT, "%s is not expected now", wire_type_name(type));
}

void exchange_on_message(void *ctx, transport_peer peer, const unsigned char *bytes, size_t n)
{
    exchange *x = ctx;
    exchange_node *node = find_peer(x, peer);
    moe_error err = {""};

    if (node != NULL && on_frame(x, node, bytes, n, &err) != MOE_OK) {
        x->stats.bad_frames++;
        lose(x, node, "has sent what is no answer", err.text);
    }
}
