/* session: an engine request on behalf of a call: submitted, woken, cancelled and released as one. API thread. */
#ifndef CONCLAVE_API_GRPC_SESSION_H
#define CONCLAVE_API_GRPC_SESSION_H

#include "api/grpc/rpc.h"

typedef struct session {
    engine_request *request; /* referenced */
    wake_slot *slot;
} session;

/* Refuses while draining, and work whose deadline has passed already. Fills in the spec's wake and deadline. */
MOE_NODISCARD moe_status session_open(rpc_call *call, engine_spec *spec, session *out, moe_error *err);
/* engine_next of the request, and notes for the log what it tells. */
MOE_NODISCARD bool session_next(rpc_call *call, session *s, engine_event *event);
void session_close(session *s); /* ends the work if it has not ended; also of a zeroed session */

#endif
