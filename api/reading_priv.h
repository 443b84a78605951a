/* reading: a request is unpacked, checked and tokenised: at once when it is short, else on a thread of the desk, so
 * that no text holds up the calls of others. Then the method goes on with it. API thread, but for take. */
#ifndef CONCLAVE_API_READING_PRIV_H
#define CONCLAVE_API_READING_PRIV_H

#include "api/grpc/rpc.h"
#include "api/intake_priv.h"

#define READING_SHORT_BYTES 4096 /* of a request that is read at once: some hundred microseconds of work */

typedef struct reading_kind {
    const ProtobufCMessageDescriptor *type;
    /* Any thread. */
    moe_status (*take)(const request_scope *scope, const ProtobufCMessage *request, intake *out, moe_error *err);
    /* in is the caller's. Sets call->state, or ends the call, or fails. */
    moe_status (*begin)(rpc_call *call, const ProtobufCMessage *request, intake *in, moe_error *err);
    void (*wake)(rpc_call *call); /* optional: after begin */
} reading_kind;

void reading_start(rpc_call *call, const reading_kind *kind, const uint8_t *bytes, size_t n);

#endif
