/* Connections to nodes: connect, meet, watch, lose, connect again.
 *
 *   DOWN --connect--> CONNECTING --UP--> MET        what is said then is the link's (proto/link.h)
 *     ^                   |               |
 *     +-------------------+---------------+ lost, refused
 *
 * A node is never given up here: the cluster's state says which nodes there are (exchange_add_node, _remove_node), and
 * as long as one is there it is met again, ever more slowly. */
#include "exchange/exchange_priv.h"

#include <string.h>

/* Chosen, not measured.
 *
 *   BACKOFF_FIRST, _MOST   between connects: doubled from 10 ms to 1 s. A node that restarts is thus found within a
 *                          second of listening, and one that is gone costs one connect a second
 *   GREETING_TIMEOUTS      connect and HELLO may take so many dispatch time-outs, LINK_GREETING_NS at most: a node itself
 *                          closes what has not greeted and proved by then
 *   MISSED                 a node that was met counts as lost when its connection has broken, so much time has passed, and
 *                          another one could not be made meanwhile: one that lives is met again within milliseconds */
#define BACKOFF_FIRST_NS  UINT64_C(10000000)
#define BACKOFF_MOST_NS   UINT64_C(1000000000)
#define GREETING_TIMEOUTS 8
#define MISSED_NS         UINT64_C(1000000000)

static exchange_node *find_peer(exchange *x, transport_peer peer)
{
    for (size_t i = 0; i < ROUTER_MAX_NODES; i++) {
        if (x->nodes[i].state != NODE_FREE && x->nodes[i].peer == peer) {
            return &x->nodes[i];
        }
    }
    return NULL;
}

exchange_node *exchange_find_node(const exchange *x, const char *id)
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
        const exchange_node *node = exchange_find_node(x, router_placement_node_id(x->placement, i));

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
    if (exchange_find_node(x, id) != NULL) {
        return moe_fail(err, MOE_ERR_EXISTS, "node %s was added before", id);
    }
    for (size_t i = 0; i < ROUTER_MAX_NODES && node == NULL; i++) {
        node = x->nodes[i].state == NODE_FREE ? &x->nodes[i] : NULL;
    }
    if (node == NULL) {
        return moe_fail(err, MOE_ERR_BUSY, "node %s: limit %d nodes", id, ROUTER_MAX_NODES);
    }
    *node = (exchange_node){.state = NODE_DOWN, .x = x, .expected = incarnation, .speed.burden = ROUTER_BURDEN_ONE};
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
    node->link = (link_end){.state = LINK_CLOSED};
    node->is_met = false;
    if (peer != 0) {
        x->o.transport->ops->peer_close(x->o.transport, peer);
        exchange_peer_lost(x, peer);
    }
}

void exchange_remove_node(exchange *x, const char *id)
{
    exchange_node *node = exchange_find_node(x, id);

    if (node != NULL) {
        disconnect(x, node);
        node->state = NODE_FREE;
        exchange_map_nodes(x);
    }
}

bool exchange_node_ready(const exchange *x, const char *id)
{
    const exchange_node *node = exchange_find_node(x, id);

    return node != NULL && exchange_node_takes(node);
}

static exchange_node_kind kind_of(const exchange_node *node)
{
    return node->state == NODE_DOWN            ? EXCHANGE_NODE_DOWN
           : exchange_node_takes(node)         ? EXCHANGE_NODE_READY
           : node->link.state == LINK_DRAINING ? EXCHANGE_NODE_DRAINING
                                               : EXCHANGE_NODE_CONNECTING;
}

static bool is_missed(const exchange_node *node, uint64_t now)
{
    return node->n_failed > 0 && node->lost_ns != 0 && now - node->lost_ns >= MISSED_NS && !node->is_another;
}

bool exchange_get_node(const exchange *x, const char *id, exchange_node_info *out)
{
    const exchange_node *node = exchange_find_node(x, id);

    if (node == NULL) {
        return false;
    }
    uint64_t now = moe_now_ns(x->o.clock);
    *out = (exchange_node_info){.kind = kind_of(node),
                                .incarnation = node->incarnation,
                                .is_another = node->is_another,
                                .is_refused = !link_is_open(&node->link) && node->is_refused,
                                .is_mute = now < node->mute.until_ns,
                                .is_untold = link_is_open(&node->link) && node->is_untold,
                                .is_missed = is_missed(node, now),
                                .rows = node->rows,
                                .frames = node->frames,
                                .busy_seconds = (double)node->busy_ns * 1e-9,
                                .queued_rows = node->link.queued_rows,
                                .hedges = node->hedges,
                                .carrier =
                                    link_is_open(&node->link) ? transport_carrier(x->o.transport, node->peer) : NULL,
                                .slowness = (double)node->speed.burden / ROUTER_BURDEN_ONE,
                                .told = exchange_holds_are_told(node) ? node->n_told : 0};
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
    if (node->is_met) {
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
    lose(x, node, link_is_open(&node->link) ? "is lost" : "is not used", why);
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
    set_timer(x, node, now + MOE_MIN(GREETING_TIMEOUTS * x->o.dispatch_timeout_ns, LINK_GREETING_NS));
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

void exchange_set_applied(exchange *x, uint64_t epoch)
{
    x->side.epoch = epoch;
    exchange_wake_at(x, 0);
}

static void turn_link(exchange *x, exchange_node *node, uint64_t now)
{
    uint64_t wake = UINT64_MAX;
    bool beats = x->o.heartbeat_ns != 0;

    if (beats && now - node->link.pinged_ns > 2 * x->o.heartbeat_ns && node->mute.owed_ns != 0) {
        node->mute.owed_ns = now; /* this loop has not turned for two beats: the silence was ours, not the node's */
    }
    link_verdict verdict = link_tick(&node->link, now, is_busy_for_us(x, node), &wake);

    if (verdict == LINK_SILENT) {
        lose(x, node, "is lost", "silent");
    } else if (verdict == LINK_LATE) {
        lost(x, node, "no greeting in time");
    } else {
        exchange_wake_at(x, wake);
        exchange_holds_judge(x, node, now);
        if (beats) {
            exchange_mute_judge(x, node, now);
        }
    }
}

void exchange_node_timers(exchange *x, uint64_t now)
{
    for (size_t i = 0; i < ROUTER_MAX_NODES; i++) {
        exchange_node *node = &x->nodes[i];

        if (node->state == NODE_FREE) {
            continue;
        }
        if (node->state == NODE_MET) {
            turn_link(x, node, now);
        } else if (now < node->timer_ns) {
            exchange_wake_at(x, node->timer_ns);
        } else if (node->state == NODE_DOWN) {
            connect_node(x, node, now);
        } else {
            lost(x, node, "no greeting in time");
        }
    }
    exchange_holds_timer(x);
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
        node->state = NODE_MET;
        if (link_begin(&node->link, &x->side, node, moe_now_ns(x->o.clock), node->timer_ns) != MOE_OK) {
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

static bool send_on_link(void *ctx, const unsigned char *frame, size_t n)
{
    const exchange_node *node = ctx;
    transport_frame *f = transport_frames_take_for(node->x->small, node->peer, EXCHANGE_OWN_SMALL,
                                                   EXCHANGE_OWN_SMALL * (ROUTER_MAX_NODES - 1));

    if (f != NULL) {
        memcpy(f->data, frame, n);
        transport_frame_post(f, node->peer, n);
    }
    return f != NULL;
}

static moe_status judge(void *ctx, const wire_hello *theirs, moe_error *why)
{
    exchange_node *node = ctx;
    exchange *x = node->x;

    node->max_rows = MOE_MIN(x->hello.max_rows, theirs->max_rows);
    node->max_picks = MOE_MIN(x->hello.max_picks, theirs->max_picks);
    if (strcmp(theirs->member, node->id) != 0) {
        return moe_fail(why, MOE_ERR_DENIED, "another member answers at its address");
    }
    if (node->expected != 0 && theirs->incarnation != node->expected) {
        node->is_another = true;
        return moe_fail(why, MOE_ERR_DENIED,
                        "it was started anew, and the cluster's state does not tell yet what it holds");
    }
    if (!exchange_fit(x, MOE_MIN(theirs->max_message, x->hello.max_message), &node->max_rows, &node->max_picks)) {
        return moe_fail(why, MOE_ERR_DENIED, "it takes less than one row in a frame");
    }
    return MOE_OK;
}

const link_ops exchange_link_ops = {
    .send = send_on_link, .draw = wire_random, .judge = judge, .on_holds = exchange_on_holds};

static void on_opened(exchange *x, exchange_node *node)
{
    node->is_refused = false;
    node->is_another = false;
    node->incarnation = node->link.theirs.incarnation;
    node->is_met = true;
    node->lost_ns = 0;
    node->n_failed = 0;
    node->mute.owed_ns = 0;
    node->why[0] = '\0';
    node->leaving = false;
    exchange_holds_forget(x, node);
    node->opened_ns = moe_now_ns(x->o.clock);
    node->is_untold = false;
    node->slow_until_ns = node->hold_until_ns = 0;
    MOE_INFO("node %s at %s: frames travel by %s", node->id, node->address,
             transport_carrier(x->o.transport, node->peer));
    exchange_wake_at(x, node->link.pinged_ns); /* the epoch is told at once */
    exchange_replan(x);
}

static moe_status on_answer(exchange *x, exchange_node *node, wire_type type, const unsigned char *bytes, size_t n,
                            moe_error *err)
{
    wire_result result;
    wire_refuse refuse;
    moe_status status;

    if (type == WIRE_RESULT) {
        node->slow_until_ns = 0; /* it computes, whatever this answers */
        exchange_mute_answered(x, node);
        x->stats.frames_received++;
        x->stats.bytes_received += n;
        status = wire_get_result(bytes, n, &result, err);
        return status == MOE_OK ? exchange_on_result(x, node->peer, &result, err) : status;
    }
    status = wire_get_refuse(bytes, n, &refuse, err);
    if (status == MOE_OK) {
        exchange_on_refuse(x, node->peer, &refuse);
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
    link_event event;
    wire_type type;
    moe_status status = link_receive(&node->link, bytes, n, moe_now_ns(x->o.clock), &event, &type, err);

    if (status != MOE_OK) {
        return status;
    }
    if (event == LINK_OPENED) {
        on_opened(x, node);
    } else if (event == LINK_TURNED_AWAY) {
        x->stats.auth_failures += node->link.is_unproved;
        refuse_node(x, node, err->text);
    } else if (event == LINK_LEAVING) {
        MOE_INFO("node %s: draining", node->id);
        node->leaving = true;
    } else if (event != LINK_NOTHING) {
        well(node); /* not for a HELLO alone: a node that then talks nonsense is met ever more slowly */
    }
    return event == LINK_FRAME ? on_answer(x, node, type, bytes, n, err) : MOE_OK;
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
