#include "transport/ring_priv.h"

#include <string.h>

/* Of n bytes from r->at on, those before the end of the ring; the others begin it. */
static size_t first_of(const ring *r, size_t n, size_t *at_out)
{
    *at_out = r->at & (r->size - 1);
    return MOE_MIN(n, r->size - *at_out);
}

moe_status ring_write(ring *r, const void *from, size_t n, size_t *n_out)
{
    uint32_t used = r->at - atomic_load_explicit(&r->places->taken, memory_order_acquire);

    *n_out = 0;
    if (used > r->size) {
        return MOE_ERR_CORRUPT;
    }
    n = MOE_MIN(n, r->size - used);
    if (n > 0) {
        size_t at, first = first_of(r, n, &at);

        memcpy(r->bytes + at, from, first);
        memcpy(r->bytes, (const unsigned char *)from + first, n - first);
        r->at += (uint32_t)n;
        atomic_store_explicit(&r->places->written, r->at, memory_order_release);
    }
    *n_out = n;
    return MOE_OK;
}

moe_status ring_read(ring *r, void *to, size_t n, size_t *n_out)
{
    uint32_t there = atomic_load_explicit(&r->places->written, memory_order_acquire) - r->at;

    *n_out = 0;
    if (there > r->size) {
        return MOE_ERR_CORRUPT;
    }
    n = MOE_MIN(n, there);
    if (n > 0) {
        size_t at, first = first_of(r, n, &at);

        memcpy(to, r->bytes + at, first);
        memcpy((unsigned char *)to + first, r->bytes, n - first);
        r->at += (uint32_t)n;
        atomic_store_explicit(&r->places->taken, r->at, memory_order_release);
    }
    *n_out = n;
    return MOE_OK;
}

bool ring_has_bytes(const ring *r)
{
    return atomic_load_explicit(&r->places->written, memory_order_acquire) != r->at;
}

bool ring_has_room(const ring *r)
{
    return r->at - atomic_load_explicit(&r->places->taken, memory_order_acquire) != r->size;
}
