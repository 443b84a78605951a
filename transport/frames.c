/* A fixed set of send buffers. */
#include "transport/transport.h"

#include <stdlib.h>

struct transport_frames {
    transport *transport; /* borrowed */
    size_t n_frames, capacity, bytes, n_out;
    unsigned char *owned;    /* [bytes]; NULL: the caller's memory is used */
    transport_frame *frames; /* owned [n_frames] */
    transport_frame *free;
    transport_frame *waiting, **waiting_end; /* posted while the transport was busy */
};

size_t transport_frames_bytes(size_t n_frames, size_t capacity)
{
    size_t stride = moe_round_up(capacity, 64), bytes;

    return stride < capacity || __builtin_mul_overflow(n_frames, stride, &bytes) ? 0 : bytes;
}

moe_status transport_frames_open(transport *t, size_t n_frames, size_t capacity, void *memory, transport_frames **out)
{
    size_t stride = moe_round_up(capacity, 64), bytes = transport_frames_bytes(n_frames, capacity);

    if (bytes == 0) {
        return MOE_ERR_NO_MEMORY;
    }
    transport_frames *buffers = calloc(1, sizeof *buffers);
    if (buffers == NULL) {
        return MOE_ERR_NO_MEMORY;
    }
    *buffers = (transport_frames){.transport = t, .n_frames = n_frames, .capacity = capacity, .bytes = bytes};
    buffers->waiting_end = &buffers->waiting;
    if (memory == NULL) {
        memory = buffers->owned = moe_pages_alloc(bytes);
    }
    buffers->frames = calloc(n_frames, sizeof *buffers->frames);
    if (memory == NULL || buffers->frames == NULL) {
        transport_frames_close(buffers);
        return MOE_ERR_NO_MEMORY;
    }
    for (size_t i = 0; i < n_frames; i++) {
        buffers->frames[i] =
            (transport_frame){.owner = buffers, .data = (unsigned char *)memory + i * stride, .next = buffers->free};
        buffers->free = &buffers->frames[i];
    }
    *out = buffers;
    return MOE_OK;
}

void transport_frames_set_device(transport_frames *buffers, void *memory)
{
    size_t stride = moe_round_up(buffers->capacity, 64);

    MOE_ASSERT(buffers->n_out == 0);
    for (size_t i = 0; i < buffers->n_frames; i++) {
        buffers->frames[i].device_data = (unsigned char *)memory + i * stride;
    }
}

void transport_frames_close(transport_frames *buffers)
{
    if (buffers == NULL) {
        return;
    }
    while (buffers->waiting != NULL) {
        transport_frame *f = buffers->waiting;

        buffers->waiting = f->next;
        transport_frame_release(f);
    }
    MOE_ASSERT(buffers->n_out == 0);
    moe_pages_free(buffers->owned, buffers->bytes);
    free(buffers->frames);
    free(buffers);
}

transport_frame *transport_frames_take(transport_frames *buffers)
{
    transport_frame *f = buffers->free;

    if (f != NULL) {
        buffers->free = f->next;
        f->next = NULL;
        buffers->n_out++;
    }
    return f;
}

static size_t out_for(const transport_frames *buffers, transport_peer peer)
{
    size_t n = 0;

    for (size_t i = 0; i < buffers->n_frames; i++) {
        n += buffers->frames[i].peer == peer;
    }
    return n;
}

transport_frame *transport_frames_take_for(transport_frames *buffers, transport_peer peer, size_t n_own, size_t n_kept)
{
    bool may = buffers->n_frames - buffers->n_out > n_kept || out_for(buffers, peer) < n_own;
    transport_frame *f = may ? transport_frames_take(buffers) : NULL;

    if (f != NULL) {
        f->peer = peer;
    }
    return f;
}

void transport_frame_release(transport_frame *f)
{
    transport_frames *buffers = f->owner;

    MOE_ASSERT(buffers->n_out > 0);
    f->peer = 0;
    f->from_device = false;
    f->next = buffers->free;
    buffers->free = f;
    buffers->n_out--;
}

size_t transport_frames_capacity(const transport_frames *buffers)
{
    return buffers->capacity;
}

size_t transport_frames_out(const transport_frames *buffers)
{
    return buffers->n_out;
}

static void frame_done(transport_msg *msg, moe_status status)
{
    (void)status; /* a peer that is gone is told by on_peer */
    transport_frame_release((transport_frame *)(void *)msg);
}

/* False while the transport is busy. */
static bool frame_send(transport_frame *f)
{
    transport *t = f->owner->transport;
    moe_status status = t->ops->send(t, f->peer, &f->msg);

    if (status != MOE_OK && status != MOE_ERR_BUSY) {
        transport_frame_release(f);
    }
    return status != MOE_ERR_BUSY;
}

/* Whether a frame to this peer waits, before `until` (NULL: anywhere): frames of one connection keep their order. */
static bool peer_waits(const transport_frames *buffers, transport_peer peer, const transport_frame *until)
{
    for (const transport_frame *f = buffers->waiting; f != until; f = f->next) {
        if (f->peer == peer) {
            return true;
        }
    }
    return false;
}

void transport_frame_post(transport_frame *f, transport_peer peer, size_t n_bytes)
{
    transport_frames *buffers = f->owner;

    MOE_ASSERT(n_bytes <= buffers->capacity);
    f->peer = peer;
    f->msg = (transport_msg){.parts = {{f->from_device ? f->device_data : f->data, n_bytes}},
                             .n_parts = 1,
                             .on_device = f->from_device,
                             .done = frame_done};
    if (peer_waits(buffers, peer, NULL) || !frame_send(f)) {
        f->next = NULL;
        *buffers->waiting_end = f;
        buffers->waiting_end = &f->next;
    }
}

/* A peer that takes nothing does not hold up the others. */
unsigned transport_frames_flush(transport_frames *buffers)
{
    transport_frame **link = &buffers->waiting;
    unsigned n = 0;

    while (*link != NULL) {
        transport_frame *f = *link;
        transport_frame *next = f->next; /* a frame that is sent belongs to somebody else */

        if (peer_waits(buffers, f->peer, f) || !frame_send(f)) {
            link = &f->next;
        } else {
            *link = next;
            n++;
        }
    }
    buffers->waiting_end = link;
    return n;
}
