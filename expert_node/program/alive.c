#include "expert_node/program/alive.h"

#define ANSWER_NS UINT64_C(1000000000)
#define NAP_NS    UINT64_C(10000000)

typedef struct question {
    transport *transport;
    const wire_hello *hello;
    uint64_t incarnation;
    cluster_alive answer; /* UNKNOWN: none yet */
    transport_msg msg;
    unsigned char frame[WIRE_SMALL_BYTES];
} question;

static void on_sent(transport_msg *msg, moe_status status)
{
    (void)msg, (void)status; /* a failure is followed by DOWN, or by silence */
}

static void on_peer(void *ctx, transport_peer peer, transport_peer_event event, const char *why)
{
    question *q = ctx;
    moe_buf b;

    (void)why;
    if (event != TRANSPORT_UP) {
        q->answer = CLUSTER_ALIVE_NO;
        return;
    }
    moe_buf_init(&b, q->frame, sizeof q->frame);
    wire_put_hello(&b, q->hello);
    q->msg = (transport_msg){.parts = {{q->frame, wire_finish(&b)}}, .n_parts = 1, .done = on_sent};
    if (q->transport->ops->send(q->transport, peer, &q->msg) != MOE_OK) {
        q->answer = CLUSTER_ALIVE_NO;
    }
}

/* Whatever else it says, it is not the one that is asked for. */
static void on_message(void *ctx, transport_peer peer, const unsigned char *bytes, size_t n)
{
    question *q = ctx;
    wire_type type;
    wire_hello theirs;

    (void)peer;
    q->answer = CLUSTER_ALIVE_NO;
    if (wire_open(bytes, n, &type, NULL) == MOE_OK && type == WIRE_HELLO &&
        wire_get_hello(bytes, n, &theirs, NULL) == MOE_OK && theirs.incarnation == q->incarnation) {
        q->answer = CLUSTER_ALIVE_YES;
    }
}

static void wait_for_answer(question *q, const char *address)
{
    transport *t = q->transport;
    uint64_t end = moe_now_ns(moe_clock_real()) + ANSWER_NS;
    transport_peer peer;
    moe_status status = t->ops->connect(t, address, &peer);

    if (status != MOE_OK) {
        q->answer = status == MOE_ERR_UNAVAILABLE || status == MOE_ERR_INVALID_ARG ? CLUSTER_ALIVE_NO : q->answer;
        return;
    }
    while (q->answer == CLUSTER_ALIVE_UNKNOWN && moe_now_ns(moe_clock_real()) < end) {
        if (t->ops->progress(t) == 0 && t->ops->wait != NULL) {
            t->ops->wait(t, NAP_NS);
        }
    }
    q->answer = q->answer == CLUSTER_ALIVE_YES ? CLUSTER_ALIVE_YES : CLUSTER_ALIVE_NO;
}

cluster_alive alive_node(transport *t, const wire_hello *hello, const char *address, uint64_t incarnation)
{
    question q = {.transport = t, .hello = hello, .incarnation = incarnation, .answer = CLUSTER_ALIVE_UNKNOWN};

    t->handler = (transport_handler){&q, on_message, on_peer};
    wait_for_answer(&q, address);
    transport_close(t); /* before q goes: it lends the frame */
    return q.answer;
}
