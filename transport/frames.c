/* A fixed pool of send buffers. */
#include "transport/transport.h"

#include <stdlib.h>

struct transport_frames {
    transport *transport; /* borrowed */
    size_t n_frames, capacity, bytes, n_out;
    unsigned char *memory;   /* owned [bytes] */
    transport_frame *frames; /* owned [n_frames] */
    transport_frame *free;
    transport_frame *waiting, **waiting_end; /* posted while the transport was busy */
};

moe_status transport_frames_open(transport *t, size_t n_frames, size_t capacity, transport_frames **out)
{
    size_t stride = moe_round_up(capacity, 64);
    size_t bytes;

    if (stride < capacity || __builtin_mul_overflow(n_frames, stride, &bytes)) {
        return MOE_ERR_NO_MEMORY;
    }
    transport_frames *pool = calloc(1, sizeof *pool);
    if (pool == NULL) {
        return MOE_ERR_NO_MEMORY;
    }
    *pool = (transport_frames){.transport = t, .n_frames = n_frames, .capacity = capacity, .bytes = bytes};
    pool->waiting_end = &pool->waiting;
    pool->memory = moe_pages_alloc(bytes);
    pool->frames = calloc(n_frames, sizeof *pool->frames);
    if (pool->memory == NULL || pool->frames == NULL) {
        transport_frames_close(pool);
        return MOE_ERR_NO_MEMORY;
    }
    for (size_t i = 0; i < n_frames; i++) {
        pool->frames[i] = (transport_frame){.pool = pool, .data = pool->memory + i * stride, .next = pool->free};
        pool->free = &pool->frames[i];
    }
    *out = pool;
    return MOE_OK;
}

void transport_frames_close(transport_frames *pool)
{
    if (pool == NULL) {
        return;
    }
    while (pool->waiting != NULL) {
        transport_frame *f = pool->waiting;

        pool->waiting = f->next;
        transport_frame_release(f);
    }
    MOE_ASSERT(pool->n_out == 0);
    moe_pages_free(pool->memory, pool->bytes);
    free(pool->frames);
    free(pool);
}

transport_frame *transport_frames_take(transport_frames *pool)
{
    transport_frame *f = pool->free;

    if (f != NULL) {
        pool->free = f->next;
        f->next = NULL;
        pool->n_out++;
    }
    return f;
}

void transport_frame_release(transport_frame *f)
{
    transport_frames *pool = f->pool;

    MOE_ASSERT(pool->n_out > 0);
    f->next = pool->free;
    pool->free = f;
    pool->n_out--;
}

size_t transport_frames_capacity(const transport_frames *pool)
{
    return pool->capacity;
}

size_t transport_frames_out(const transport_frames *pool)
{
    return pool->n_out;
}

static void frame_done(transport_msg *msg, moe_status status)
{
    (void)status; /* a peer that is gone is told by on_peer */
    transport_frame_release((transport_frame *)(void *)msg);
}

/* False while the transport is busy. */
static bool frame_send(transport_frame *f)
{
    transport *t = f->pool->transport;
    moe_status status = t->ops->send(t, f->peer, &f->msg);

    if (status != MOE_OK && status != MOE_ERR_BUSY) {
        transport_frame_release(f);
    }
    return status != MOE_ERR_BUSY;
}

/* Whether a frame to this peer waits, before `until` (NULL: anywhere): frames of one connection keep their order. */
static bool peer_waits(const transport_frames *pool, transport_peer peer, const transport_frame *until)
{
    for (const transport_frame *f = pool->waiting; f != until; f = f->next) {
        if (f->peer == peer) {
            return true;
        }
    }
    return false;
}

void transport_frame_post(transport_frame *f, transport_peer peer, size_t n_bytes)
{
    transport_frames *pool = f->pool;

    MOE_ASSERT(n_bytes <= pool->capacity);
    f->peer = peer;
    f->msg = (transport_msg){.parts = {{f->data, n_bytes}}, .n_parts = 1, .done = frame_done};
    if (peer_waits(pool, peer, NULL) || !frame_send(f)) {
        f->next = NULL;
        *pool->waiting_end = f;
        pool->waiting_end = &f->next;
    }
}

/* A peer that takes nothing does not hold up the others. */
unsigned transport_frames_flush(transport_frames *pool)
{
    transport_frame **link = &pool->waiting;
    unsigned n = 0;

    while (*link != NULL) {
        transport_frame *f = *link;
        transport_frame *next = f->next; /* a frame that is sent belongs to somebody else */

        if (peer_waits(pool, f->peer, f) || !frame_send(f)) {
            link = &f->next;
        } else {
            *link = next;
            n++;
        }
    }
    pool->waiting_end = link;
    return n;
}
