/* What arrives at a node. Nothing here trusts a byte: the link (proto/link.h) lets nothing through but dispatches of peers
 * that it has accepted.
 *
 * A bad frame costs the peer its connection; a good one that cannot be served costs a REFUSE. The difference is whose
 * fault it may be: placements change while frames are under way, so a dispatch for an expert that has just gone is
 * nobody's fault, but no correct member sends a frame that does not decode. */
#include "expert_node/expert_node_priv.h"

#include <string.h>

#define CHECK_NS UINT64_C(100000000) /* how late it may be noticed that a peer has not greeted in time */

uint64_t node_now(const expert_node *node)
{
    return node->o.clock == NULL ? 0 : moe_now_ns(node->o.clock);
}

static node_peer *find_peer(expert_node *node, transport_peer peer)
{
    for (uint32_t i = 0; i < node->o.max_peers; i++) {
        if (node->peers[i].link.state != LINK_CLOSED && node->peers[i].peer == peer) {
            return &node->peers[i];
        }
    }
    return NULL;
}

/* A place for a new peer: a free one, else that of the oldest which has not been accepted, so that connections which
 * never greet cannot keep coordinators out. NULL: all are in use by coordinators and readers. */
static node_peer *place_for_peer(expert_node *node)
{
    node_peer *oldest = NULL;

    for (uint32_t i = 0; i < node->o.max_peers; i++) {
        node_peer *p = &node->peers[i];

        if (p->link.state == LINK_CLOSED) {
            return p;
        }
        if (!link_is_open(&p->link) && !link_is_reading(&p->link) && (oldest == NULL || p->peer < oldest->peer)) {
            oldest = p;
        }
    }
    if (oldest != NULL) {
        node->o.transport->ops->peer_close(node->o.transport, oldest->peer);
    }
    return oldest;
}

void node_on_peer(void *ctx, transport_peer peer, transport_peer_event event, const char *why)
{
    expert_node *node = ctx;
    node_peer *known = find_peer(node, peer);
    uint64_t now = node_now(node);

    if (event != TRANSPORT_UP) {
        if (known != NULL) {
            MOE_DEBUG("node %s: peer %s is gone: %s", node->o.id, known->link.theirs.member, why);
            link_close(&known->link);
        }
        return;
    }
    node_peer *place = place_for_peer(node);
    if (place != NULL) {
        *place = (node_peer){.peer = peer, .node = node};
        if (link_begin(&place->link, &node->side, place, now, node->o.clock == NULL ? 0 : now + LINK_GREETING_NS) ==
            MOE_OK) {
            return;
        }
    }
    MOE_WARN("node %s: connection refused, %s", node->o.id,
             place != NULL ? "no randomness for a nonce" : "as many peers as it takes are connected");
    node->o.transport->ops->peer_close(node->o.transport, peer);
}

static void tell_peer(expert_node *node, node_peer *p, uint64_t now)
{
    bool was_refused = p->link.state == LINK_REFUSED, was_open = link_is_open(&p->link);
    uint64_t wake = UINT64_MAX;

    if (link_tick(&p->link, now, false, &wake) != LINK_FINE) {
        if (was_open) {
            MOE_WARN("node %s: closing the connection of coordinator %s: it has said nothing for %llu s", node->o.id,
                     p->link.theirs.member, (unsigned long long)(LINK_CALLER_NS / 1000000000));
        } else {
            MOE_DEBUG("node %s: a connection has not greeted, or a reader not asked, in time", node->o.id);
        }
        node->stats.silent += !was_refused;
        node->o.transport->ops->peer_close(node->o.transport, p->peer);
    }
    node->peers_check_ns = MOE_MIN(node->peers_check_ns, wake);
}

void node_tell_peers(expert_node *node)
{
    uint64_t now = node_now(node);

    node->peers_check_ns = now + CHECK_NS;
    for (uint32_t i = 0; i < node->o.max_peers; i++) {
        if (node->peers[i].link.state != LINK_CLOSED) {
            tell_peer(node, &node->peers[i], now);
        }
    }
}

void node_check_peers(expert_node *node)
{
    if (node->o.clock == NULL || node_now(node) >= node->peers_check_ns) {
        node_tell_peers(node);
    }
}

/* A small frame to write into, or NULL: the peer does not take those that it was sent before. */
static transport_frame *small_begin(expert_node *node, transport_peer peer)
{
    transport_frame *f = transport_frames_take_for(node->small, peer, NODE_OWN_SMALL, node->small_kept);

    node->stats.unsent += f == NULL;
    return f;
}

static bool send_on_link(void *ctx, const unsigned char *frame, size_t n)
{
    const node_peer *p = ctx;
    transport_frame *f = small_begin(p->node, p->peer);

    if (f != NULL) {
        memcpy(f->data, frame, n);
        transport_frame_post(f, p->peer, n);
    }
    return f != NULL;
}

static moe_status judge(void *ctx, const wire_hello *theirs, moe_error *why)
{
    const node_peer *p = ctx;

    return node_reading_judge(p->node, theirs, why);
}

const link_ops node_link_ops = {
    .send = send_on_link, .draw = wire_random, .judge = judge, .holds_after = node_holds_after};

void node_refuse(expert_node *node, transport_peer peer, const wire_request *request, wire_refuse_reason reason,
                 const char *text)
{
    wire_refuse r = {.request = *request, .reason = (uint16_t)reason};
    moe_buf b;
    transport_frame *f = small_begin(node, peer);

    node->stats.refusals++;
    if (f != NULL) {
        (void)snprintf(r.text, sizeof r.text, "%s", text);
        moe_buf_init(&b, f->data, WIRE_SMALL_BYTES);
        wire_put_refuse(&b, &r);
        size_t n = wire_finish(&b);
        MOE_ASSERT(n > 0);
        transport_frame_post(f, peer, n);
    }
}

/* 0 when the node can serve it. */
static wire_refuse_reason why_not(const expert_node *node, const node_peer *p, const wire_dispatch *d, moe_error *why)
{
    const expert_node_options *o = &node->o;
    uint32_t n_layers = router_space_n_layers(o->space);

    if (d->dtype != node->dtype) {
        moe_fail(why, MOE_ERR_DENIED, "dtype %u, this class has %u", d->dtype, node->dtype);
        return WIRE_REFUSE_CLASS;
    }
    if (d->d_model != o->d_model || d->request.layer >= n_layers) {
        moe_fail(why, MOE_ERR_DENIED, "width %u layer %u, this model has width %u and %u layers", d->d_model,
                 d->request.layer, o->d_model, n_layers);
        return WIRE_REFUSE_SHAPE;
    }
    if (d->n_rows > o->max_rows || d->n_picks > o->max_picks ||
        wire_result_bytes(d->n_picks, d->d_model, d->dtype) >
            MOE_MIN(p->link.theirs.max_message, node->hello.max_message)) {
        moe_fail(why, MOE_ERR_DENIED, "%u rows, %u picks, limits %u and %u", d->n_rows, d->n_picks, o->max_rows,
                 o->max_picks);
        return WIRE_REFUSE_TOO_MANY;
    }
    for (uint32_t g = 0; g < d->n_groups; g++) {
        int32_t expert_id = wire_group_at(d->groups, g).expert_id;

        if (!expert_node_holds(node, d->request.layer, expert_id)) {
            moe_fail(why, MOE_ERR_NOT_FOUND, "layer %u expert %d is not held here", d->request.layer, expert_id);
            return WIRE_REFUSE_EXPERT;
        }
    }
    return 0;
}

static moe_status on_dispatch(expert_node *node, const node_peer *p, const unsigned char *bytes, size_t n,
                              moe_error *err)
{
    wire_dispatch d;
    moe_error why = {""};
    moe_status status = wire_get_dispatch(bytes, n, &d, err);

    if (status != MOE_OK) {
        return status;
    }
    wire_refuse_reason reason = why_not(node, p, &d, &why);
    if (reason == 0 && node_batch_add(node, p->peer, &d) != MOE_OK) {
        reason = WIRE_REFUSE_BUSY;
        moe_fail(&why, MOE_ERR_BUSY, "no send buffer for the answer");
    }
    if (reason != 0) {
        node_refuse(node, p->peer, &d.request, reason, why.text);
    }
    return MOE_OK;
}

/* A coordinator has one connection: with a new one that of before is over, though its end may not have come. One that leaks
 * them cannot take all places. */
static void end_former(expert_node *node, const node_peer *p)
{
    for (uint32_t i = 0; i < node->o.max_peers; i++) {
        node_peer *q = &node->peers[i];

        if (q != p && link_is_open(&q->link) && q->link.theirs.incarnation == p->link.theirs.incarnation &&
            strcmp(q->link.theirs.member, p->link.theirs.member) == 0) {
            MOE_DEBUG("node %s: coordinator %s has another connection now", node->o.id, p->link.theirs.member);
            link_close(&q->link);
            node->o.transport->ops->peer_close(node->o.transport, q->peer);
        }
    }
}

static moe_status on_frame(expert_node *node, node_peer *p, const unsigned char *bytes, size_t n, moe_error *err)
{
    link_event event;
    wire_type type;

    node->side.load = (wire_pong){.queued_frames = node->batch.n_frames,
                                  .queued_rows = node->batch.n_rows,
                                  .frames = node->stats.frames,
                                  .rows = node->stats.rows};
    moe_status status = link_receive(&p->link, bytes, n, node_now(node), &event, &type, err);
    node->stats.auth_failures += p->link.is_unproved;
    if (status != MOE_OK) {
        return status;
    }
    if (event == LINK_FRAME) {
        return on_dispatch(node, p, bytes, n, err);
    }
    node->may_ask |= event == LINK_WANTED;
    if (event == LINK_OPENED && link_is_open(&p->link)) {
        node->stats.hellos++;
        end_former(node, p);
        node->peers_check_ns = 0; /* it has been told nothing yet */
    } else if (event == LINK_TURNED_AWAY) {
        MOE_WARN("node %s: %s", node->o.id, err->text);
    }
    return MOE_OK;
}

void node_on_message(void *ctx, transport_peer peer, const unsigned char *bytes, size_t n)
{
    expert_node *node = ctx;
    node_peer *p = find_peer(node, peer);
    moe_error err = {""};

    if (p != NULL && on_frame(node, p, bytes, n, &err) != MOE_OK) {
        MOE_WARN("node %s: closing the connection of %s: %s", node->o.id,
                 p->link.theirs.member[0] != '\0' ? p->link.theirs.member : "a stranger", err.text);
        node->stats.bad_frames++;
        link_close(&p->link);
        node->o.transport->ops->peer_close(node->o.transport, peer);
    }
}
