/* What arrives at a node: HELLO first, then dispatches. Nothing here trusts a byte.
 *
 *   NEW --HELLO--> GREETED                          no secret
 *   NEW --HELLO--> PROVING --PROOF--> GREETED       with a secret
 *   NEW --HELLO that does not fit--> REFUSED        told why by GOODBYE, and closed when the time to greet is over
 *
 * A bad frame costs the peer its connection; a good one that cannot be served costs a REFUSE. The difference is whose
 * fault it may be: placements change while frames are under way, so a dispatch for an expert that has just gone is
 * nobody's fault, but no correct member sends a frame that does not decode. */
#include "expert_node/expert_node_priv.h"

#include <string.h>

#define GREETING_NS UINT64_C(2000000000) /* docs/wire.md; chosen, not measured: a few round trips and two HMACs */
#define CHECK_NS    UINT64_C(100000000)  /* how late that may be noticed */

static node_peer *find_peer(expert_node *node, transport_peer peer)
{
    for (uint32_t i = 0; i < node->o.max_peers; i++) {
        if (node->peers[i].state != PEER_FREE && node->peers[i].peer == peer) {
            return &node->peers[i];
        }
    }
    return NULL;
}

/* A place for a new peer: a free one, else that of the oldest which has not been accepted, so that connections which
 * never greet cannot keep coordinators out. NULL: all are in use by coordinators. */
static node_peer *place_for_peer(expert_node *node)
{
    node_peer *oldest = NULL;

    for (uint32_t i = 0; i < node->o.max_peers; i++) {
        node_peer *p = &node->peers[i];

        if (p->state == PEER_FREE) {
            return p;
        }
        if (p->state != PEER_GREETED && (oldest == NULL || p->peer < oldest->peer)) {
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

    if (event != TRANSPORT_UP) {
        if (known != NULL) {
            MOE_DEBUG("node %s: peer %s is gone: %s", node->o.id, known->hello.member, why);
            known->state = PEER_FREE;
        }
        return;
    }
    node_peer *place = place_for_peer(node);
    if (place != NULL) {
        *place = (node_peer){
            .state = PEER_NEW, .peer = peer, .since_ns = node->o.clock == NULL ? 0 : moe_now_ns(node->o.clock)};
        return;
    }
    MOE_WARN("node %s: connection refused, limit %u peers", node->o.id, node->o.max_peers);
    node->o.transport->ops->peer_close(node->o.transport, peer);
}

void node_check_peers(expert_node *node)
{
    uint64_t now = node->o.clock == NULL ? 0 : moe_now_ns(node->o.clock);

    if (node->o.clock == NULL || now < node->peers_check_ns) {
        return;
    }
    node->peers_check_ns = now + CHECK_NS;
    for (uint32_t i = 0; i < node->o.max_peers; i++) {
        node_peer *p = &node->peers[i];

        if (p->state != PEER_FREE && p->state != PEER_GREETED && now - p->since_ns >= GREETING_NS) {
            MOE_DEBUG("node %s: a connection has not greeted in time", node->o.id);
            node->stats.silent += p->state != PEER_REFUSED;
            p->state = PEER_FREE;
            node->o.transport->ops->peer_close(node->o.transport, p->peer);
        }
    }
}

/* A small frame to write into, or NULL: the peer does not take those that it was sent before. */
static transport_frame *small_begin(expert_node *node, transport_peer peer, moe_buf *b)
{
    transport_frame *f = transport_frames_take_for(node->small, peer, NODE_OWN_SMALL, node->small_kept);

    if (f != NULL) {
        moe_buf_init(b, f->data, WIRE_SMALL_BYTES);
    }
    node->stats.unsent += f == NULL;
    return f;
}

static void small_post(transport_frame *f, moe_buf *b, transport_peer peer)
{
    size_t n = wire_finish(b);

    MOE_ASSERT(n > 0);
    transport_frame_post(f, peer, n);
}

void node_goodbye(expert_node *node, transport_peer peer, wire_goodbye_reason reason, const char *text)
{
    wire_goodbye g = {.reason = (uint16_t)reason};
    moe_buf b;
    transport_frame *f = small_begin(node, peer, &b);

    if (f != NULL) {
        (void)snprintf(g.text, sizeof g.text, "%s", text);
        wire_put_goodbye(&b, &g);
        small_post(f, &b, peer);
    }
}

void node_refuse(expert_node *node, transport_peer peer, const wire_request *request, wire_refuse_reason reason,
                 const char *text)
{
    wire_refuse r = {.request = *request, .reason = (uint16_t)reason};
    moe_buf b;
    transport_frame *f = small_begin(node, peer, &b);

    node->stats.refusals++;
    if (f != NULL) {
        (void)snprintf(r.text, sizeof r.text, "%s", text);
        wire_put_refuse(&b, &r);
        small_post(f, &b, peer);
    }
}

/* Our HELLO on this connection; with a secret it carries a nonce and the proof. */
static moe_status own_hello(expert_node *node, node_peer *p, wire_hello *out)
{
    moe_status status = MOE_OK;

    *out = node->hello;
    if (node->key.present) {
        status = wire_hello_nonce(out);
        if (status == MOE_OK) {
            status = wire_prove(&node->key, WIRE_NODE, &p->hello, out, out->mac);
            out->n_mac = sizeof out->mac;
            memcpy(p->nonce, out->nonce, sizeof p->nonce);
        }
    }
    return status;
}

static moe_status check_hello(const expert_node *node, const wire_hello *theirs, moe_error *err)
{
    moe_status status = wire_hello_check(&node->hello, theirs, err);

    if (status == MOE_OK && node->key.present && theirs->n_nonce == 0) {
        return moe_fail(err, MOE_ERR_DENIED, "member %s has no nonce: this cluster has a secret", theirs->member);
    }
    return status;
}

static void greeted(expert_node *node, node_peer *p)
{
    p->state = PEER_GREETED;
    node->stats.hellos++;
}

static moe_status on_hello(expert_node *node, node_peer *p, const unsigned char *bytes, size_t n, moe_error *err)
{
    moe_status status = wire_get_hello(bytes, n, &p->hello, err);
    wire_hello mine;
    moe_buf b;

    if (status != MOE_OK) {
        return status;
    }
    if (check_hello(node, &p->hello, err) != MOE_OK) {
        MOE_WARN("node %s: %s", node->o.id, err->text);
        node->stats.auth_failures += node->key.present && p->hello.n_nonce == 0;
        node_goodbye(node, p->peer, WIRE_GOODBYE_REFUSED, err->text);
        p->state = PEER_REFUSED;
        return MOE_OK;
    }
    transport_frame *f = small_begin(node, p->peer, &b);
    if (f == NULL) {
        return moe_fail(err, MOE_ERR_BUSY, "no send buffer for HELLO");
    }
    status = own_hello(node, p, &mine);
    if (status != MOE_OK) {
        transport_frame_release(f);
        return moe_fail(err, status, "no proof for HELLO");
    }
    wire_put_hello(&b, &mine);
    p->state = PEER_PROVING;
    if (!node->key.present) {
        greeted(node, p);
    }
    small_post(f, &b, p->peer);
    return MOE_OK;
}

static moe_status on_proof(expert_node *node, node_peer *p, const unsigned char *bytes, size_t n, moe_error *err)
{
    unsigned char mac[32];
    wire_hello mine = node->hello;
    moe_status status = wire_get_proof(bytes, n, mac, err);

    if (status != MOE_OK) {
        return status;
    }
    mine.n_nonce = sizeof mine.nonce;
    memcpy(mine.nonce, p->nonce, sizeof mine.nonce);
    if (!wire_proves(&node->key, WIRE_COORDINATOR, &p->hello, &mine, mac)) {
        node->stats.auth_failures++;
        return moe_fail(err, MOE_ERR_DENIED, "its proof of the cluster secret is wrong");
    }
    greeted(node, p);
    return MOE_OK;
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
        wire_result_bytes(d->n_picks, d->d_model, d->dtype) > MOE_MIN(p->hello.max_message, node->hello.max_message)) {
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

static moe_status on_ping(expert_node *node, node_peer *p, const unsigned char *bytes, size_t n, moe_error *err)
{
    wire_pong pong = {.queued_frames = node->batch.n_frames,
                      .queued_rows = node->batch.n_rows,
                      .frames = node->stats.frames,
                      .rows = node->stats.rows};
    wire_ping ping;
    moe_status status = wire_get_ping(bytes, n, &ping, err);
    moe_buf b;

    if (status != MOE_OK) {
        return status;
    }
    p->epoch = ping.epoch;
    pong.token = ping.token;
    transport_frame *f = small_begin(node, p->peer, &b);
    if (f != NULL) {
        wire_put_pong(&b, &pong);
        small_post(f, &b, p->peer);
    }
    return MOE_OK;
}

static moe_status on_frame(expert_node *node, node_peer *p, const unsigned char *bytes, size_t n, moe_error *err)
{
    wire_type type;
    moe_status status = wire_open(bytes, n, &type, err);

    if (status != MOE_OK) {
        return status;
    }
    if (p->state == PEER_NEW && type == WIRE_HELLO) {
        return on_hello(node, p, bytes, n, err);
    }
    if (p->state == PEER_PROVING && type == WIRE_PROOF) {
        return on_proof(node, p, bytes, n, err);
    }
    if (p->state == PEER_GREETED && type == WIRE_DISPATCH) {
        return on_dispatch(node, p, bytes, n, err);
    }
    if (p->state == PEER_GREETED && type == WIRE_PING) {
        return on_ping(node, p, bytes, n, err);
    }
    return moe_fail(err, MOE_ERR_CORRUPT, "%s %s", wire_type_name(type),
                    p->state == PEER_GREETED ? "is no frame for a node" : "came before HELLO was accepted");
}

void node_on_message(void *ctx, transport_peer peer, const unsigned char *bytes, size_t n)
{
    expert_node *node = ctx;
    node_peer *p = find_peer(node, peer);
    moe_error err = {""};

    if (p != NULL && on_frame(node, p, bytes, n, &err) != MOE_OK) {
        MOE_WARN("node %s: closing the connection of %s: %s", node->o.id,
                 p->hello.member[0] != '\0' ? p->hello.member : "a stranger", err.text);
        node->stats.bad_frames++;
        p->state = PEER_FREE;
        node->o.transport->ops->peer_close(node->o.transport, peer);
    }
}
