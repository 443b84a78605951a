/* Loopback: a network inside one process. A connection is a pair of slots, one at each endpoint; a frame is an entry in
 * the receiver's queue that points to the sender's message. One thread owns the whole net.
 *
 * It keeps the promises of the table as a network would, so that code tested on it works on one: nothing is delivered
 * from within send, UP comes before the first frame, frames that are under way when a connection ends are done with an
 * error before DOWN is told. A slot's number has the net's serial in it, so an entry of an ended connection finds no
 * slot even where the slot is used again. Cancelled entries stay in the queue without a message until their turn
 * comes. */
#include "transport/transport.h"

#include <stdlib.h>
#include <string.h>

#define ADDRESS_BYTES 128
#define SLOT_BITS     16

typedef struct loopback loopback;

typedef struct loopback_slot {
    transport_peer peer; /* 0: free */
    loopback *far;       /* NULL: closed by the other end, DOWN not yet told */
    transport_peer far_peer;
    bool tell_up;
} loopback_slot;

typedef struct loopback_entry {
    transport_peer peer; /* the receiver's name of the connection */
    transport_msg *msg;  /* borrowed; NULL: cancelled */
} loopback_entry;

struct loopback {
    transport base; /* first: ops get it */
    transport_loopback_net *net;
    char address[ADDRESS_BYTES];
    loopback_slot *slots; /* owned [n_slots] */
    size_t n_slots;
    loopback_entry *queue; /* owned, ring [queue_size] */
    size_t queue_size, queue_head, queue_used;
    unsigned char *joined; /* owned [max_message]: where two parts meet */
    unsigned (*poll)(void *ctx);
    void *poll_ctx;
    bool polling;
};

struct transport_loopback_net {
    loopback **endpoints; /* owned [max]; entries borrowed */
    size_t max, used;
    uint64_t serial;
};

moe_status transport_loopback_net_open(size_t max_endpoints, transport_loopback_net **out)
{
    transport_loopback_net *net = calloc(1, sizeof *net);

    if (net == NULL) {
        return MOE_ERR_NO_MEMORY;
    }
    net->max = max_endpoints;
    net->endpoints = calloc(max_endpoints, sizeof *net->endpoints);
    if (net->endpoints == NULL) {
        free(net);
        return MOE_ERR_NO_MEMORY;
    }
    *out = net;
    return MOE_OK;
}

void transport_loopback_net_close(transport_loopback_net *net)
{
    if (net != NULL) {
        MOE_ASSERT(net->used == 0);
        free(net->endpoints);
        free(net);
    }
}

static loopback *find_endpoint(const transport_loopback_net *net, const char *address)
{
    for (size_t i = 0; i < net->used; i++) {
        if (strcmp(net->endpoints[i]->address, address) == 0) {
            return net->endpoints[i];
        }
    }
    return NULL;
}

static loopback_slot *find_slot(loopback *t, transport_peer peer)
{
    size_t i = peer & (MOE_BIT(SLOT_BITS) - 1);

    return peer != 0 && i < t->n_slots && t->slots[i].peer == peer ? &t->slots[i] : NULL;
}

static loopback_slot *take_slot(loopback *t)
{
    for (size_t i = 0; i < t->n_slots; i++) {
        if (t->slots[i].peer == 0) {
            t->slots[i] = (loopback_slot){.peer = ++t->net->serial << SLOT_BITS | i, .tell_up = true};
            return &t->slots[i];
        }
    }
    return NULL;
}

static moe_status loopback_connect(transport *base, const char *address, transport_peer *peer_out)
{
    loopback *t = (loopback *)base;
    loopback *far = find_endpoint(t->net, address);

    if (far == NULL || far == t) {
        return MOE_ERR_UNAVAILABLE;
    }
    loopback_slot *near_slot = take_slot(t);
    if (near_slot == NULL) {
        return MOE_ERR_BUSY;
    }
    loopback_slot *far_slot = take_slot(far);
    if (far_slot == NULL) {
        near_slot->peer = 0;
        return MOE_ERR_BUSY;
    }
    near_slot->far = far;
    near_slot->far_peer = far_slot->peer;
    far_slot->far = t;
    far_slot->far_peer = near_slot->peer;
    *peer_out = near_slot->peer;
    return MOE_OK;
}

static moe_status loopback_send(transport *base, transport_peer peer, transport_msg *msg)
{
    loopback_slot *slot = find_slot((loopback *)base, peer);
    size_t bytes = 0;

    MOE_ASSERT(msg->n_parts >= 1 && msg->n_parts <= TRANSPORT_MAX_PARTS);
    if (slot == NULL || slot->far == NULL) {
        return MOE_ERR_UNAVAILABLE;
    }
    loopback *far = slot->far;
    for (size_t i = 0; i < msg->n_parts; i++) {
        bytes += msg->parts[i].bytes;
    }
    if (bytes > base->max_message || bytes > far->base.max_message) {
        return MOE_ERR_INVALID_ARG;
    }
    if (far->queue_used == far->queue_size) {
        return MOE_ERR_BUSY;
    }
    far->queue[(far->queue_head + far->queue_used++) % far->queue_size] = (loopback_entry){slot->far_peer, msg};
    return MOE_OK;
}

/* Takes back what is queued at t for its connection `peer`. */
static void cancel_queued(loopback *t, transport_peer peer, moe_status status)
{
    for (size_t i = 0; i < t->queue_used; i++) {
        loopback_entry *e = &t->queue[(t->queue_head + i) % t->queue_size];

        if (e->peer == peer && e->msg != NULL) {
            transport_msg *msg = e->msg;

            e->msg = NULL;
            msg->done(msg, status);
        }
    }
}

static void loopback_peer_close(transport *base, transport_peer peer)
{
    loopback *t = (loopback *)base;
    loopback_slot *slot = find_slot(t, peer);

    if (slot == NULL) {
        return;
    }
    loopback *far = slot->far;
    transport_peer far_peer = slot->far_peer;
    slot->peer = 0;
    if (far != NULL) {
        find_slot(far, far_peer)->far = NULL;
        cancel_queued(far, far_peer, MOE_ERR_CANCELLED);
        cancel_queued(t, peer, MOE_ERR_UNAVAILABLE);
    }
}

/* UP once, and DOWN when the other end has closed. */
static unsigned tell_peers(loopback *t)
{
    unsigned n = 0;

    for (size_t i = 0; i < t->n_slots; i++) {
        loopback_slot *slot = &t->slots[i];
        transport_peer peer = slot->peer;

        if (peer != 0 && slot->tell_up && slot->far != NULL) {
            slot->tell_up = false;
            n++;
            t->base.handler.on_peer(t->base.handler.ctx, peer, TRANSPORT_UP, "");
        } else if (peer != 0 && slot->far == NULL) {
            slot->peer = 0;
            n++;
            t->base.handler.on_peer(t->base.handler.ctx, peer, TRANSPORT_DOWN, "closed by the other end");
        }
    }
    return n;
}

static void deliver(loopback *t, transport_peer peer, const transport_msg *msg)
{
    const unsigned char *bytes = msg->parts[0].data;
    size_t n = msg->parts[0].bytes;

    if (msg->n_parts == 2) {
        memcpy(t->joined, bytes, n);
        memcpy(t->joined + n, msg->parts[1].data, msg->parts[1].bytes);
        bytes = t->joined;
        n += msg->parts[1].bytes;
    }
    t->base.handler.on_message(t->base.handler.ctx, peer, bytes, n);
}

static unsigned loopback_progress(transport *base)
{
    loopback *t = (loopback *)base;
    unsigned n = tell_peers(t);

    /* What comes while this runs waits for the next round, behind its UP. */
    for (size_t left = t->queue_used; left > 0; left--) {
        loopback_entry e = t->queue[t->queue_head];

        t->queue_head = (t->queue_head + 1) % t->queue_size;
        t->queue_used--;
        if (e.msg != NULL) {
            n++;
            deliver(t, e.peer, e.msg);
            e.msg->done(e.msg, MOE_OK);
        }
    }
    if (t->poll != NULL && !t->polling) {
        t->polling = true;
        n += t->poll(t->poll_ctx);
        t->polling = false;
    }
    return n;
}

static void loopback_close(transport *base)
{
    loopback *t = (loopback *)base;
    transport_loopback_net *net = t->net;

    for (size_t i = 0; t->slots != NULL && i < t->n_slots; i++) {
        loopback_peer_close(base, t->slots[i].peer);
    }
    for (size_t i = 0; i < net->used; i++) {
        if (net->endpoints[i] == t) {
            net->endpoints[i] = net->endpoints[--net->used];
        }
    }
    moe_pages_free(t->joined, base->max_message);
    free(t->queue);
    free(t->slots);
    free(t);
}

static const transport_ops loopback_ops = {
    .name = "loopback",
    .connect = loopback_connect,
    .send = loopback_send,
    .progress = loopback_progress,
    .peer_close = loopback_peer_close,
    .close = loopback_close,
};

moe_status transport_loopback_open(const transport_loopback_options *o, transport **out)
{
    transport_loopback_net *net = o->net;

    MOE_ASSERT(o->max_peers > 0 && o->max_peers < MOE_BIT(SLOT_BITS) && o->max_queued > 0 && o->max_message > 0);
    if (strlen(o->address) >= ADDRESS_BYTES) {
        return MOE_ERR_INVALID_ARG;
    }
    if (find_endpoint(net, o->address) != NULL) {
        return MOE_ERR_EXISTS;
    }
    if (net->used == net->max) {
        return MOE_ERR_BUSY;
    }
    loopback *t = calloc(1, sizeof *t);
    if (t == NULL) {
        return MOE_ERR_NO_MEMORY;
    }
    t->base = (transport){.ops = &loopback_ops, .max_message = o->max_message};
    t->net = net;
    t->n_slots = o->max_peers;
    t->queue_size = o->max_queued;
    memcpy(t->address, o->address, strlen(o->address) + 1);
    t->slots = calloc(t->n_slots, sizeof *t->slots);
    t->queue = calloc(t->queue_size, sizeof *t->queue);
    t->joined = moe_pages_alloc(o->max_message);
    if (t->slots == NULL || t->queue == NULL || t->joined == NULL) {
        loopback_close(&t->base);
        return MOE_ERR_NO_MEMORY;
    }
    net->endpoints[net->used++] = t;
    *out = &t->base;
    return MOE_OK;
}

void transport_loopback_set_member_poll(transport *base, unsigned (*poll)(void *ctx), void *ctx)
{
    MOE_ASSERT(base->ops == &loopback_ops);
    loopback *t = (loopback *)base;

    t->poll = poll;
    t->poll_ctx = ctx;
}
