/* Faulty: damages what is sent through it, by seed. Frames are copied and done at once, as an eager send would be; the
 * copies wait here until they are due. */
#include "transport/transport.h"

#include <stdlib.h>
#include <string.h>

const char *const transport_fault_names[TRANSPORT_N_FAULTS] = {"drop",     "duplicate", "delay", "reorder",
                                                               "truncate", "flip",      "kill"};

typedef struct faulty_frame {
    transport_msg msg; /* first: done finds the frame by it */
    transport_peer peer;
    uint64_t due_ns;
    bool behind; /* waits until a later frame to the same peer has gone */
    struct faulty_frame *next;
    unsigned char bytes[];
} faulty_frame;

typedef struct faulty {
    transport base;   /* first: ops get it */
    transport *inner; /* owned */
    const moe_clock *clock;
    moe_random random;
    uint32_t per_mille[TRANSPORT_N_FAULTS];
    uint64_t max_delay_ns;
    uint64_t counts[TRANSPORT_N_FAULTS];
    bool enabled;
    faulty_frame *held;        /* owned list, oldest first */
    transport_peer broken[16]; /* connections whose DOWN is still to be told here */
    size_t n_broken;
} faulty;

static bool roll(faulty *f, transport_fault fault)
{
    return f->enabled && moe_random_below(&f->random, 1000) < f->per_mille[fault];
}

static bool strikes(faulty *f, transport_fault fault)
{
    bool hit = roll(f, fault);

    f->counts[fault] += hit;
    return hit;
}

static void free_sent(transport_msg *msg, moe_status status)
{
    (void)status;
    free(msg);
}

static faulty_frame *copy_frame(transport_peer peer, const transport_msg *msg)
{
    size_t n = 0;

    for (size_t i = 0; i < msg->n_parts; i++) {
        n += msg->parts[i].bytes;
    }
    faulty_frame *frame = calloc(1, sizeof *frame + n);
    MOE_ASSERT(frame != NULL); /* tests only */
    frame->peer = peer;
    frame->msg = (transport_msg){.parts = {{frame->bytes, n}}, .n_parts = 1, .done = free_sent};
    for (size_t i = 0, at = 0; i < msg->n_parts; at += msg->parts[i++].bytes) {
        memcpy(frame->bytes + at, msg->parts[i].data, msg->parts[i].bytes);
    }
    return frame;
}

static void hold(faulty *f, faulty_frame *frame)
{
    faulty_frame **end = &f->held;

    while (*end != NULL) {
        end = &(*end)->next;
    }
    *end = frame;
}

static void damage(faulty *f, faulty_frame *frame)
{
    size_t *n = &frame->msg.parts[0].bytes;

    if (strikes(f, TRANSPORT_FAULT_TRUNCATE)) {
        *n = moe_random_below(&f->random, *n);
    }
    if (*n > 0 && strikes(f, TRANSPORT_FAULT_FLIP)) {
        frame->bytes[moe_random_below(&f->random, *n)] ^= (unsigned char)(1u << moe_random_below(&f->random, 8));
    }
    if (strikes(f, TRANSPORT_FAULT_DELAY)) {
        frame->due_ns = moe_now_ns(f->clock) + 1 + moe_random_below(&f->random, f->max_delay_ns);
    }
    /* Due in any case after a while, or the last frame of all would never go. */
    if (roll(f, TRANSPORT_FAULT_REORDER)) {
        frame->behind = true;
        frame->due_ns = moe_now_ns(f->clock) + f->max_delay_ns;
    }
}

static void drop_held(faulty *f, transport_peer peer)
{
    for (faulty_frame **at = &f->held; *at != NULL;) {
        faulty_frame *frame = *at;

        if (peer == 0 || frame->peer == peer) {
            *at = frame->next;
            free(frame);
        } else {
            at = &frame->next;
        }
    }
}

static void kill_peer(faulty *f, transport_peer peer)
{
    drop_held(f, peer);
    f->inner->ops->peer_close(f->inner, peer);
    if (f->n_broken < MOE_COUNT(f->broken)) {
        f->broken[f->n_broken++] = peer;
    }
}

static moe_status faulty_connect(transport *base, const char *address, transport_peer *peer_out)
{
    faulty *f = (faulty *)base;

    return f->inner->ops->connect(f->inner, address, peer_out);
}

static bool is_broken(const faulty *f, transport_peer peer)
{
    for (size_t i = 0; i < f->n_broken; i++) {
        if (f->broken[i] == peer) {
            return true;
        }
    }
    return false;
}

static moe_status faulty_send(transport *base, transport_peer peer, transport_msg *msg)
{
    faulty *f = (faulty *)base;

    if (is_broken(f, peer)) {
        return MOE_ERR_UNAVAILABLE;
    }
    if (f->n_broken < MOE_COUNT(f->broken) && strikes(f, TRANSPORT_FAULT_KILL)) {
        kill_peer(f, peer);
    } else if (!strikes(f, TRANSPORT_FAULT_DROP)) {
        unsigned copies = strikes(f, TRANSPORT_FAULT_DUPLICATE) ? 2 : 1;

        for (unsigned i = 0; i < copies; i++) {
            faulty_frame *frame = copy_frame(peer, msg);

            damage(f, frame);
            hold(f, frame);
        }
    }
    msg->done(msg, MOE_OK);
    return MOE_OK;
}

/* Whether the frame may go now: it is due, and unless it is one that was put behind, nothing of its connection stands
 * before it but those that were. */
static bool may_go(const faulty *f, const faulty_frame *frame, uint64_t now)
{
    if (f->enabled && now < frame->due_ns) {
        return false;
    }
    for (const faulty_frame *before = f->held; before != frame; before = before->next) {
        if (before->peer == frame->peer && !before->behind) {
            return false;
        }
    }
    return true;
}

static void release_behind(faulty *f, const faulty_frame *until, transport_peer peer)
{
    for (faulty_frame *before = f->held; before != until; before = before->next) {
        if (before->peer == peer && before->behind) {
            f->counts[TRANSPORT_FAULT_REORDER]++; /* only now has it happened */
            before->behind = false;
            before->due_ns = 0;
        }
    }
}

static unsigned send_due(faulty *f)
{
    uint64_t now = moe_now_ns(f->clock);
    unsigned n = 0;

    for (faulty_frame **at = &f->held; *at != NULL;) {
        faulty_frame *frame = *at;

        if (!may_go(f, frame, now)) {
            at = &frame->next;
            continue;
        }
        moe_status status = f->inner->ops->send(f->inner, frame->peer, &frame->msg);
        if (status == MOE_ERR_BUSY) {
            at = &frame->next;
            continue;
        }
        release_behind(f, frame, frame->peer);
        *at = frame->next;
        if (status != MOE_OK) {
            free(frame);
        }
        n++;
    }
    return n;
}

static unsigned faulty_progress(transport *base)
{
    faulty *f = (faulty *)base;
    unsigned n = send_due(f);

    while (f->n_broken > 0) {
        transport_peer peer = f->broken[--f->n_broken];

        n++;
        base->handler.on_peer(base->handler.ctx, peer, TRANSPORT_DOWN, "injected fault");
    }
    return n + f->inner->ops->progress(f->inner);
}

static void faulty_peer_close(transport *base, transport_peer peer)
{
    faulty *f = (faulty *)base;

    drop_held(f, peer);
    for (size_t i = 0; i < f->n_broken; i++) {
        if (f->broken[i] == peer) {
            f->broken[i--] = f->broken[--f->n_broken];
        }
    }
    f->inner->ops->peer_close(f->inner, peer);
}

static const char *faulty_carrier(transport *base, transport_peer peer)
{
    return transport_carrier(((faulty *)base)->inner, peer);
}

static void faulty_close(transport *base)
{
    faulty *f = (faulty *)base;

    drop_held(f, 0);
    transport_close(f->inner);
    free(f);
}

static void pass_message(void *ctx, transport_peer peer, const unsigned char *bytes, size_t n)
{
    faulty *f = ctx;

    f->base.handler.on_message(f->base.handler.ctx, peer, bytes, n);
}

static void pass_peer(void *ctx, transport_peer peer, transport_peer_event event, const char *why)
{
    faulty *f = ctx;

    drop_held(f, event == TRANSPORT_DOWN ? peer : UINT64_MAX);
    f->base.handler.on_peer(f->base.handler.ctx, peer, event, why);
}

/* Of tests, where the memory of a device is the host's: frames are copied as any. */
static bool faulty_takes_device(transport *t, transport_peer peer)
{
    return transport_takes_device(((faulty *)t)->inner, peer);
}

static const transport_ops faulty_ops = {
    .name = "faulty",
    .connect = faulty_connect,
    .send = faulty_send,
    .progress = faulty_progress,
    .peer_close = faulty_peer_close,
    .carrier = faulty_carrier,
    .takes_device = faulty_takes_device,
    .close = faulty_close,
};

moe_status transport_faulty_open(const transport_faulty_options *o, transport **out)
{
    MOE_ASSERT(o->max_delay_ns > 0);
    faulty *f = calloc(1, sizeof *f);

    if (f == NULL) {
        return MOE_ERR_NO_MEMORY;
    }
    f->base = (transport){.ops = &faulty_ops, .max_message = o->inner->max_message};
    f->inner = o->inner;
    f->clock = o->clock;
    f->max_delay_ns = o->max_delay_ns;
    f->enabled = true;
    memcpy(f->per_mille, o->per_mille, sizeof f->per_mille);
    moe_random_seed(&f->random, o->seed);
    o->inner->handler = (transport_handler){f, pass_message, pass_peer};
    *out = &f->base;
    return MOE_OK;
}

void transport_faulty_enable(transport *t, bool on)
{
    MOE_ASSERT(t->ops == &faulty_ops);
    ((faulty *)t)->enabled = on;
}

const uint64_t *transport_faulty_counts(const transport *t)
{
    MOE_ASSERT(t->ops == &faulty_ops);
    return ((const faulty *)t)->counts;
}
