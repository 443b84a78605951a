/* What the two halves of client.h share: client_open.c makes it, client.c calls with it. */
#ifndef CONCLAVE_CLI_CLIENT_PRIV_H
#define CONCLAVE_CLI_CLIENT_PRIV_H

#include <grpc/grpc.h>

#include "cli/client.h"

struct cli_client {
    grpc_channel *channel;     /* owned */
    grpc_completion_queue *cq; /* owned */
    char *authorization;       /* owned; NULL: no token */
    moe_address address;       /* of the server, unless is_unix */
    char target[MOE_ADDRESS_BYTES];
    double timeout_s;
    bool is_unix, tls, outlives_interrupts;
};

#endif
