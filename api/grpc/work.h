/* work: what would hold up the API thread is done on threads of their own, one piece per call.
 *
 * Nouns:
 *   work_desk   a few threads and a bounded queue; one per listener
 *   work        one piece; the call's until it is done or the call has ended
 *
 * Threads: the API thread, but for work_kind.run and, where the call ended meanwhile, work_kind.fini. */
#ifndef CONCLAVE_API_GRPC_WORK_H
#define CONCLAVE_API_GRPC_WORK_H

#include "api/grpc/rpc.h"

#define WORK_THREADS     2
#define WORK_MAX_WAITING 64                  /* pieces that no thread has begun */
#define WORK_MAX_BYTES   ((size_t)128 << 20) /* of their requests */

typedef struct work_desk work_desk;
typedef struct work work;

typedef struct work_kind {
    void (*run)(void *state);                  /* a thread of the desk */
    void (*done)(rpc_call *call, void *state); /* API thread, if the call is still open */
    void (*fini)(void *state);                 /* once, at the end or instead of the others */
} work_kind;

MOE_NODISCARD moe_status work_desk_open(work_desk **out);
void work_desk_close(work_desk *desk); /* waits for what runs; all calls have ended. NULL is fine */

/* Queues work for a call that has none. Takes state over, also where it cannot: then the call ends with
 * RESOURCE_EXHAUSTED. bytes: of the request, for the bound. */
void work_begin(rpc_call *call, const work_kind *kind, void *state, size_t bytes);
void work_wake(rpc_call *call);    /* the call was woken: goes on if its work is done */
void work_abandon(rpc_call *call); /* the call has ended: work that waits is dropped, what runs is freed at its end */

#endif
