/* wake: how the engine thread tells the API thread that a request has events.
 *
 * Slots are handed out per request and reused. The engine may be inside wake_signal while the last reference of its
 * request is released, so slots live as long as the hub, and a hub that was shut stays allocated until the program ends
 * (one per listener): a late signal finds it shut and does nothing. Signals are coalesced: one event on the completion
 * queue for any number of slots. The event is an empty batch on a call that never starts (of a channel that goes
 * nowhere): it goes straight to the queue. */
#ifndef CONCLAVE_API_GRPC_WAKE_PRIV_H
#define CONCLAVE_API_GRPC_WAKE_PRIV_H

#include "api/grpc/rpc.h"

/* tag comes out of the queue for every round of signals. */
MOE_NODISCARD moe_status wake_hub_open(size_t n_slots, grpc_completion_queue *queue, void *tag, wake_hub **out);
void wake_hub_shut(wake_hub *hub); /* before the queue is shut down; NULL is fine */

/* API thread. NULL when all are out. */
wake_slot *wake_slot_reserve(wake_hub *hub, rpc_call *call);
void wake_slot_release(wake_slot *slot);

void wake_signal(void *slot);        /* any thread: engine_spec.wake */
void wake_hub_signal(wake_hub *hub); /* any thread: an event without a slot */
/* API thread, when the tag came: the calls that were signalled, one per call of this function; NULL at the end. Begin
 * with wake_hub_take. */
void wake_hub_take(wake_hub *hub);
rpc_call *wake_hub_next(wake_hub *hub);

#endif
