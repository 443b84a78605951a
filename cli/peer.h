/* peer: what a port speaks, asked when gRPC could not connect, so that the user is told what to change.
 *
 * Threads: none; blocks for a few seconds at most. */
#ifndef CONCLAVE_CLI_PEER_H
#define CONCLAVE_CLI_PEER_H

#include "base/base.h"

typedef enum {
    CLI_PEER_UNKNOWN,
    CLI_PEER_NOBODY, /* refused: nothing listens */
    CLI_PEER_PLAIN,  /* HTTP/2 in plain text, as gRPC without TLS */
    CLI_PEER_TLS,
    CLI_PEER_WEB, /* HTTP/1, as the pages of --http */
} cli_peer;

/* Says HTTP/2's first words, then TLS's on a second connection, and looks at the first bytes of the answer. */
cli_peer cli_peer_detect(const moe_address *address);

#endif
