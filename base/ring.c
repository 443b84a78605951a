/* Ring of records, one producer and one consumer, without locks. Each side owns one counter and only reads the other's.
 *
 * The producer copies a record in and then publishes `written` with release; the consumer's acquire of it makes the
 * bytes visible. The other way round `read` is published after the bytes were copied out, and the producer's acquire of
 * it keeps it from writing over bytes that are still being read. The two counters lie on cache lines of their own, so
 * that the sides do not take each other's line with each record. */
#include "base/base.h"

#include <stdalign.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define RECORD_HEAD sizeof(uint32_t) /* the record's size comes first */

/* written and read count bytes since open and never wrap in practice; each has one writer. */
struct moe_ring {
    unsigned char *data; /* owned */
    size_t size;
    alignas(MOE_CACHE_LINE) _Atomic uint64_t written; /* producer */
    alignas(MOE_CACHE_LINE) _Atomic uint64_t read;    /* consumer */
};

moe_status moe_ring_open(size_t capacity, moe_ring **out)
{
    moe_ring *r;

    MOE_ASSERT(capacity > 0 && capacity <= UINT32_MAX - RECORD_HEAD);
    r = aligned_alloc(MOE_CACHE_LINE, sizeof *r);
    if (r == NULL) {
        return MOE_ERR_NO_MEMORY;
    }
    r->size = capacity + RECORD_HEAD; /* an empty ring takes a record of the whole capacity */
    r->data = malloc(r->size);
    if (r->data == NULL) {
        free(r);
        return MOE_ERR_NO_MEMORY;
    }
    atomic_init(&r->written, 0);
    atomic_init(&r->read, 0);
    *out = r;
    return MOE_OK;
}

void moe_ring_close(moe_ring *r)
{
    if (r != NULL) {
        free(r->data);
        free(r);
    }
}

size_t moe_ring_room(const moe_ring *r)
{
    uint64_t written = atomic_load_explicit(&r->written, memory_order_relaxed);
    uint64_t read = atomic_load_explicit(&r->read, memory_order_acquire);
    size_t room = r->size - (size_t)(written - read);

    return room > RECORD_HEAD ? room - RECORD_HEAD : 0;
}

static uint64_t copy_in(moe_ring *r, uint64_t at, const void *bytes, size_t n)
{
    size_t start = (size_t)(at % r->size);
    size_t first = MOE_MIN(n, r->size - start);

    if (n > 0) {
        memcpy(r->data + start, bytes, first);
        memcpy(r->data, (const unsigned char *)bytes + first, n - first);
    }
    return at + n;
}

static uint64_t copy_out(const moe_ring *r, uint64_t at, void *bytes, size_t n)
{
    size_t start = (size_t)(at % r->size);
    size_t first = MOE_MIN(n, r->size - start);

    if (n > 0) {
        memcpy(bytes, r->data + start, first);
        memcpy((unsigned char *)bytes + first, r->data, n - first);
    }
    return at + n;
}

bool moe_ring_push(moe_ring *r, const void *head, size_t head_bytes, const void *tail, size_t tail_bytes)
{
    uint64_t at = atomic_load_explicit(&r->written, memory_order_relaxed);
    uint64_t read = atomic_load_explicit(&r->read, memory_order_acquire);
    size_t room = r->size - (size_t)(at - read);
    uint32_t bytes;

    if (room < RECORD_HEAD || head_bytes > room - RECORD_HEAD || tail_bytes > room - RECORD_HEAD - head_bytes) {
        return false;
    }
    bytes = (uint32_t)(head_bytes + tail_bytes);
    at = copy_in(r, at, &bytes, RECORD_HEAD);
    at = copy_in(r, at, head, head_bytes);
    at = copy_in(r, at, tail, tail_bytes);
    atomic_store_explicit(&r->written, at, memory_order_release);
    return true;
}

bool moe_ring_pop(moe_ring *r, void *out, size_t capacity, size_t *bytes_out)
{
    uint64_t at = atomic_load_explicit(&r->read, memory_order_relaxed);
    uint32_t bytes;

    if (at == atomic_load_explicit(&r->written, memory_order_acquire)) {
        return false;
    }
    at = copy_out(r, at, &bytes, RECORD_HEAD);
    MOE_ASSERT(bytes <= capacity);
    at = copy_out(r, at, out, bytes);
    atomic_store_explicit(&r->read, at, memory_order_release);
    *bytes_out = bytes;
    return true;
}

bool moe_ring_empty(const moe_ring *r)
{
    return atomic_load_explicit(&r->read, memory_order_acquire) ==
           atomic_load_explicit(&r->written, memory_order_acquire);
}
