#include "expert_node/program/alive.h"

#define ANSWER_NS UINT64_C(1000000000)
#define NAP_NS    UINT64_C(10000000)

typedef struct probe {
    transport *transport;
    const wire_hello *hello;
    uint64_t incarnation;
    cluster_alive answer; /* UNKNOWN: none yet */
    transport_msg msg;
    unsigned char frame[WIRE_SMALL_BYTES];
} probe;

static void on_sent(transport_msg *msg, moe_status status)
{
    (void)msg, (void)status; /* a failure is followed by DOWN, or by silence */
}

static void on_peer(void *ctx, transport_peer peer, transport_peer_event event, const char *why)
{
    probe *p = ctx;
    moe_buf b;

    (void)why;
    if (event == TRANSPORT_DOWN) {
        p->answer = CLUSTER_ALIVE_NO;
        return;
    }
    moe_buf_init(&b, p->frame, sizeof p->frame);
    wire_put_hello(&b, p->hello);
    p->msg = (transport_msg){.parts = {{p->frame, wire_finish(&b)}}, .n_parts = 1, .done = on_sent};
    if (p->transport->ops->send(p->transport, peer, &p->msg) != MOE_OK) {
        p->answer = CLUSTER_ALIVE_NO;
    }
}

/* Whatever else it says, it is not the one that is asked for. */
static void on_message(void *ctx, transport_peer peer, const unsigned char *bytes, size_t n)
{
    probe *p = ctx;
    wire_type type;
    wire_hello theirs;

    (void)peer;
    p->answer = CLUSTER_ALIVE_NO;
    if (wire_open(bytes, n, &type, NULL) == MOE_OK && type == WIRE_HELLO &&
        wire_get_hello(bytes, n, &theirs, NULL) == MOE_OK && theirs.incarnation == p->incarnation) {
        p->answer = CLUSTER_ALIVE_YES;
    }
}

static void wait_for_answer(probe *p, const char *address)
{
    transport *t = p->transport;
    uint64_t end = moe_now_ns(moe_clock_real()) + ANSWER_NS;
    transport_peer peer;
    moe_status status = t->ops->connect(t, address, &peer);

    if (status != MOE_OK) {
        p->answer = status == MOE_ERR_UNAVAILABLE || status == MOE_ERR_INVALID_ARG ? CLUSTER_ALIVE_NO : p->answer;
        return;
    }
    while (p->answer == CLUSTER_ALIVE_UNKNOWN && moe_now_ns(moe_clock_real()) < end) {
        if (t->ops->progress(t) == 0 && t->ops->wait != NULL) {
            t->ops->wait(t, NAP_NS);
        }
    }
    p->answer = p->answer == CLUSTER_ALIVE_YES ? CLUSTER_ALIVE_YES : CLUSTER_ALIVE_NO;
}

cluster_alive alive_node(transport *t, const wire_hello *hello, const char *address, uint64_t incarnation)
{
    probe p = {.transport = t, .hello = hello, .incarnation = incarnation, .answer = CLUSTER_ALIVE_UNKNOWN};

    t->handler = (transport_handler){&p, on_message, on_peer};
    wait_for_answer(&p, address);
    transport_close(t); /* before p goes: it lends the frame */
    return p.answer;
}
