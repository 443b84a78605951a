#include "tests/sim/obstacle.h"

#include <stdlib.h>

#include "proto/wire.h"
#include "tests/support/support.h"

#define MAX_PEERS     64
#define MAX_ADDRESSES 8
#define INTO_NOTHING  ((transport_peer)1 << 63)

typedef struct way {
    char address[32]; /* "": free */
    unsigned kinds;
} way;

typedef struct peer_entry {
    transport_peer peer; /* 0: free */
    const way *way;
    bool nameless; /* begun while its name was not known */
} peer_entry;

/* A frame that is to leave, one that has come, or an event. */
typedef struct held {
    transport_msg msg; /* first: done finds the frame by it */
    transport_peer peer;
    bool is_out, is_event;
    transport_peer_event event;
    struct held *next;
    size_t n;
    unsigned char bytes[];
} held;

typedef struct obstacle {
    transport base;   /* first: ops get it */
    transport *inner; /* owned */
    bool is_mute, hides;
    uint64_t n_lost; /* connects into nothing */
    way ways[MAX_ADDRESSES];
    peer_entry peers[MAX_PEERS];
    held *held; /* owned list, oldest first */
} obstacle;

static peer_entry *find_peer(obstacle *o, transport_peer peer)
{
    for (size_t i = 0; i < MAX_PEERS; i++) {
        if (o->peers[i].peer == peer) {
            return &o->peers[i];
        }
    }
    return NULL;
}

static way *way_of(obstacle *o, const char *address)
{
    way *w = o->ways;

    while (w->address[0] != '\0' && strcmp(w->address, address) != 0) {
        w++;
        assert_true(w < o->ways + MAX_ADDRESSES);
    }
    (void)snprintf(w->address, sizeof w->address, "%s", address);
    return w;
}

static bool is_closed(obstacle *o, transport_peer peer, bool out)
{
    peer_entry *p = find_peer(o, peer);

    if (p == NULL) {
        return false;
    }
    p->nameless = p->nameless && (p->way->kinds & OBSTACLE_NAME) != 0;
    return p->nameless || (p->way->kinds & (out ? OBSTACLE_OUT : OBSTACLE_IN)) != 0;
}

/* Connecting needs both ways; so does an answer that nobody is there. */
static bool may_come_up(obstacle *o, transport_peer peer)
{
    return !is_closed(o, peer, true) && !is_closed(o, peer, false);
}

static bool waits_before(const obstacle *o, transport_peer peer, bool out, const held *until)
{
    for (const held *h = o->held; h != until; h = h->next) {
        if (h->peer == peer && h->is_out == out) {
            return true;
        }
    }
    return false;
}

static bool may_be_told(obstacle *o, transport_peer peer, transport_peer_event event)
{
    return event == TRANSPORT_DOWN ? !is_closed(o, peer, false) : may_come_up(o, peer);
}

static bool may_go(obstacle *o, const held *h)
{
    bool is_free = h->is_event ? may_be_told(o, h->peer, h->event) : !is_closed(o, h->peer, h->is_out);

    return is_free && !waits_before(o, h->peer, h->is_out, h);
}

static void forget(obstacle *o, transport_peer peer)
{
    peer_entry *p = find_peer(o, peer);

    for (held **at = &o->held; *at != NULL;) {
        held *h = *at;

        if (h->peer == peer) {
            *at = h->next;
            free(h);
        } else {
            at = &h->next;
        }
    }
    if (p != NULL) {
        *p = (peer_entry){0};
    }
}

static void free_sent(transport_msg *msg, moe_status status)
{
    (void)status;
    free(msg);
}

static held *hold(obstacle *o, transport_peer peer, bool out, size_t n)
{
    held *h = calloc(1, sizeof *h + n), **end = &o->held;

    assert_non_null(h);
    h->peer = peer;
    h->is_out = out;
    h->n = n;
    h->msg = (transport_msg){.parts = {{h->bytes, n}}, .n_parts = 1, .done = free_sent};
    while (*end != NULL) {
        end = &(*end)->next;
    }
    *end = h;
    return h;
}

static moe_status obstacle_connect(transport *base, const char *address, transport_peer *peer_out)
{
    obstacle *o = (obstacle *)base;
    const way *w = way_of(o, address);
    moe_status status = o->inner->ops->connect(o->inner, address, peer_out);

    if (status == MOE_ERR_UNAVAILABLE && w->kinds != 0) { /* that nobody is there is not to be known */
        *peer_out = INTO_NOTHING + o->n_lost++;
        status = MOE_OK;
    }
    if (status == MOE_OK) {
        peer_entry *p = find_peer(o, 0);
        assert_non_null(p);
        *p = (peer_entry){.peer = *peer_out, .way = w, .nameless = (w->kinds & OBSTACLE_NAME) != 0};
    }
    return status;
}

static size_t join(const transport_msg *msg, unsigned char *out)
{
    size_t n = 0;

    for (size_t i = 0; i < msg->n_parts; n += msg->parts[i++].bytes) {
        if (out != NULL) {
            memcpy(out + n, msg->parts[i].data, msg->parts[i].bytes);
        }
    }
    return n;
}

static bool is_of(const transport_msg *msg, wire_type type)
{
    const unsigned char *head = msg->parts[0].data;

    return msg->parts[0].bytes >= 8 && head[6] == type && head[7] == 0;
}

static moe_status obstacle_send(transport *base, transport_peer peer, transport_msg *msg)
{
    obstacle *o = (obstacle *)base;

    if ((o->is_mute && is_of(msg, WIRE_RESULT)) || (o->hides && is_of(msg, WIRE_HOLDS))) {
        msg->done(msg, MOE_OK);
        return MOE_OK;
    }
    if (!is_closed(o, peer, true) && !waits_before(o, peer, true, NULL)) {
        return o->inner->ops->send(o->inner, peer, msg);
    }
    (void)join(msg, hold(o, peer, true, join(msg, NULL))->bytes);
    msg->done(msg, MOE_OK);
    return MOE_OK;
}

static void deliver(obstacle *o, held *h)
{
    const transport_handler *to = &o->base.handler;

    if (h->is_event) {
        if (h->event != TRANSPORT_UP) {
            forget(o, h->peer);
        }
        to->on_peer(to->ctx, h->peer, h->event, "after an obstacle");
    } else {
        to->on_message(to->ctx, h->peer, h->bytes, h->n);
    }
    free(h);
}

/* Returns whether the frame has left the list. */
static bool let_pass(obstacle *o, held **at)
{
    held *h = *at;

    if (h->is_out) {
        *at = h->next; /* sending may end it, or lose the peer and with it others of the list */
        moe_status status = o->inner->ops->send(o->inner, h->peer, &h->msg);
        if (status == MOE_ERR_BUSY) {
            h->next = *at;
            *at = h;
            return false;
        }
        if (status != MOE_OK) {
            free(h);
        }
        return true;
    }
    *at = h->next;
    deliver(o, h); /* may close the peer, and so change the list */
    return true;
}

static unsigned obstacle_progress(transport *base)
{
    obstacle *o = (obstacle *)base;
    unsigned n = 0;

    for (held **at = &o->held; *at != NULL;) {
        if (may_go(o, *at) && let_pass(o, at)) {
            n++;
            at = &o->held;
        } else {
            at = &(*at)->next;
        }
    }
    return n + o->inner->ops->progress(o->inner);
}

static void obstacle_peer_close(transport *base, transport_peer peer)
{
    obstacle *o = (obstacle *)base;

    forget(o, peer);
    o->inner->ops->peer_close(o->inner, peer);
}

static void obstacle_close(transport *base)
{
    obstacle *o = (obstacle *)base;

    while (o->held != NULL) {
        forget(o, o->held->peer);
    }
    transport_close(o->inner);
    free(o);
}

static void on_message(void *ctx, transport_peer peer, const unsigned char *bytes, size_t n)
{
    obstacle *o = ctx;

    if (is_closed(o, peer, false) || waits_before(o, peer, false, NULL)) {
        memcpy(hold(o, peer, false, n)->bytes, bytes, n);
    } else {
        o->base.handler.on_message(o->base.handler.ctx, peer, bytes, n);
    }
}

static void on_peer(void *ctx, transport_peer peer, transport_peer_event event, const char *why)
{
    obstacle *o = ctx;

    if (!may_be_told(o, peer, event) || waits_before(o, peer, false, NULL)) {
        held *h = hold(o, peer, false, 0);
        h->is_event = true;
        h->event = event;
        return;
    }
    if (event != TRANSPORT_UP) {
        forget(o, peer);
    }
    o->base.handler.on_peer(o->base.handler.ctx, peer, event, why);
}

static const transport_ops obstacle_ops = {
    .name = "obstacle",
    .connect = obstacle_connect,
    .send = obstacle_send,
    .progress = obstacle_progress,
    .peer_close = obstacle_peer_close,
    .close = obstacle_close,
};

transport *obstacle_open(transport *inner)
{
    obstacle *o = calloc(1, sizeof *o);

    assert_non_null(o);
    o->base = (transport){.ops = &obstacle_ops, .max_message = inner->max_message};
    o->inner = inner;
    inner->handler = (transport_handler){o, on_message, on_peer};
    return &o->base;
}

void obstacle_mute(transport *t, bool on)
{
    assert_ptr_equal(t->ops, &obstacle_ops);
    ((obstacle *)t)->is_mute = on;
}

void obstacle_hide(transport *t, bool on)
{
    assert_ptr_equal(t->ops, &obstacle_ops);
    ((obstacle *)t)->hides = on;
}

void obstacle_set(transport *t, const char *address, unsigned kinds)
{
    assert_ptr_equal(t->ops, &obstacle_ops);
    way_of((obstacle *)t, address)->kinds = kinds;
}
