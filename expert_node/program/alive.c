#include "expert_node/program/alive.h"

#include <string.h>

#define ANSWER_NS UINT64_C(1000000000)
#define NAP_NS    UINT64_C(10000000)

typedef struct question {
    transport *transport;
    transport_peer peer;
    const link_side *side;
    link_end link;
    uint64_t incarnation;
    cluster_alive answer; /* UNKNOWN: none yet */
    transport_msg msg;
    unsigned char frame[WIRE_SMALL_BYTES];
} question;

static void on_sent(transport_msg *msg, moe_status status)
{
    (void)msg, (void)status; /* a failure is followed by DOWN, or by silence */
}

/* A probe says HELLO and nothing else. */
static bool send_frame(void *ctx, const unsigned char *frame, size_t n)
{
    question *q = ctx;

    memcpy(q->frame, frame, n);
    q->msg = (transport_msg){.parts = {{q->frame, n}}, .n_parts = 1, .done = on_sent};
    return q->transport->ops->send(q->transport, q->peer, &q->msg) == MOE_OK;
}

static moe_status judge(void *ctx, const wire_hello *theirs, moe_error *why)
{
    const question *q = ctx;

    return theirs->incarnation == q->incarnation ? MOE_OK : moe_fail(why, MOE_ERR_DENIED, "another incarnation");
}

static const link_ops ops = {.send = send_frame, .draw = wire_random, .judge = judge};

static void on_peer(void *ctx, transport_peer peer, transport_peer_event event, const char *why)
{
    question *q = ctx;

    (void)why;
    q->peer = peer;
    if (q->answer == CLUSTER_ALIVE_UNKNOWN &&
        (event != TRANSPORT_UP || link_begin(&q->link, q->side, q, moe_now_ns(moe_clock_real()), 0) != MOE_OK)) {
        q->answer = CLUSTER_ALIVE_NO;
    }
}

/* What comes first counts: a node without a secret goes on with what it holds. Whatever else it says first, it is not the
 * one that is asked for. */
static void on_message(void *ctx, transport_peer peer, const unsigned char *bytes, size_t n)
{
    question *q = ctx;
    link_event event;
    wire_type type;

    (void)peer;
    if (q->answer != CLUSTER_ALIVE_UNKNOWN) {
        return;
    }
    bool is_said = link_receive(&q->link, bytes, n, moe_now_ns(moe_clock_real()), &event, &type, NULL) == MOE_OK;
    q->answer = is_said && event == LINK_OPENED ? CLUSTER_ALIVE_YES : CLUSTER_ALIVE_NO;
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

cluster_alive alive_node(transport *t, const wire_hello *hello, const wire_key *key, const char *address,
                         uint64_t incarnation)
{
    const link_side side = {.role = LINK_PROBE, .hello = hello, .key = key, .ops = &ops};
    question q = {.transport = t, .side = &side, .incarnation = incarnation, .answer = CLUSTER_ALIVE_UNKNOWN};

    t->handler = (transport_handler){&q, on_message, on_peer};
    wait_for_answer(&q, address);
    transport_close(t); /* before q goes: it lends the frame */
    return q.answer;
}
