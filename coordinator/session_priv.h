/* session: an engine request on behalf of a call: submitted, woken, cancelled and released as one. API thread. */
#ifndef CONCLAVE_COORDINATOR_SESSION_PRIV_H
#define CONCLAVE_COORDINATOR_SESSION_PRIV_H

#include "coordinator/rpc_priv.h"
#include "coordinator/wake_priv.h"

typedef struct session {
    engine_request *request; /* referenced */
    wake_slot *slot;
} session;

/* Refuses while draining, and work whose deadline has passed already. Fills in the spec's wake and deadline. */
MOE_NODISCARD moe_status session_open(rpc_call *call, engine_spec *spec, session *out, moe_error *err);
void session_close(session *s); /* ends the work if it has not ended; also of a zeroed session */

/* RPC methods of inference.c that live in files of their own. */
void generate_start(rpc_call *call, const uint8_t *bytes, size_t n);
void complete_start(rpc_call *call, const uint8_t *bytes, size_t n);
void generate_wake(rpc_call *call);
void generate_poll(rpc_call *call, uint64_t now_ns);
void generate_stop(rpc_call *call);
void generate_fini(rpc_call *call);
void score_start(rpc_call *call, const uint8_t *bytes, size_t n);
void score_wake(rpc_call *call);
void score_fini(rpc_call *call);
void classify_start(rpc_call *call, const uint8_t *bytes, size_t n);
void classify_wake(rpc_call *call);
void classify_fini(rpc_call *call);

#endif
