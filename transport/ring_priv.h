/* ring: bytes from one process to another through memory that both have mapped. One end writes, the other reads.
 *
 * Trust:   the other process may put anything into the shared memory at any time. So an end keeps its own place to
 *          itself and never reads it back; the other's is read once for each call and checked; bytes are copied out
 *          before anybody looks at them
 * Order:   what was written is read whole, once and in order, if the other end keeps the rules. If it does not, the
 *          bytes are wrong or MOE_ERR_CORRUPT comes, and nothing outside of the ring is touched
 * Threads: each end belongs to one thread. */
#ifndef CONCLAVE_TRANSPORT_RING_PRIV_H
#define CONCLAVE_TRANSPORT_RING_PRIV_H

#include "base/base.h"

#include <stdatomic.h>

/* In shared memory. The counts go round; the difference is what lies in the ring. A line of cache for each writer. */
typedef struct ring_places {
    _Alignas(64) _Atomic uint32_t written; /* bytes, by the end that writes */
    _Alignas(64) _Atomic uint32_t taken;   /* bytes, by the end that reads */
} ring_places;
_Static_assert(ATOMIC_INT_LOCK_FREE == 2, "two processes share no lock");

/* One end. */
typedef struct ring {
    ring_places *places;  /* borrowed, shared */
    unsigned char *bytes; /* borrowed, shared [size] */
    uint32_t size;        /* a power of two */
    uint32_t at;          /* this end's place */
} ring;

/* Copies as many of n bytes as there is room for, or that have come; *n_out may be 0. Errors: MOE_ERR_CORRUPT when the
 * other end's place is impossible. */
MOE_NODISCARD moe_status ring_write(ring *r, const void *from, size_t n, size_t *n_out);
MOE_NODISCARD moe_status ring_read(ring *r, void *to, size_t n, size_t *n_out);
/* Whether ring_read, ring_write would do something: also true when it would fail. */
bool ring_has_bytes(const ring *r);
bool ring_has_room(const ring *r);

#endif
