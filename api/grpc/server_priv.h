/* What rpc.c does for the tags of a call, on behalf of server.c. */
#ifndef CONCLAVE_API_GRPC_SERVER_PRIV_H
#define CONCLAVE_API_GRPC_SERVER_PRIV_H

#include "api/grpc/rpc.h"

void rpc_watch_close(rpc_call *call);
void rpc_on_received(rpc_call *call, bool ok);
void rpc_on_sent(rpc_call *call, bool ok);

#endif
