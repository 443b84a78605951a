/* A fixed pool of send buffers. */
#include "transport/transport.h"

#include <stdlib.h>

struct transport_frames {
    size_t n_frames, capacity, bytes, n_out;
    unsigned char *memory;   /* owned [bytes] */
    transport_frame *frames; /* owned [n_frames] */
    transport_frame *free;
};

moe_status transport_frames_open(size_t n_frames, size_t capacity, transport_frames **out)
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
    *pool = (transport_frames){.n_frames = n_frames, .capacity = capacity, .bytes = bytes};
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

void transport_frames_release(transport_frame *f)
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
    transport_frames_release((transport_frame *)(void *)msg);
}

moe_status transport_frame_send(transport_frame *f, transport *t, transport_peer peer, size_t n_bytes)
{
    MOE_ASSERT(n_bytes <= f->pool->capacity);
    f->msg = (transport_msg){.parts = {{f->data, n_bytes}}, .n_parts = 1, .done = frame_done};
    moe_status status = t->ops->send(t, peer, &f->msg);
    if (status != MOE_OK) {
        transport_frames_release(f);
    }
    return status;
}
