/* accept: keeps a flood of connections from closing a listener for good.
 *
 * gRPC core 1.51 gives up its listening socket when accept4 fails for want of descriptors: one moment of too many
 * connections, and the server is deaf until it is restarted. This library therefore defines accept4 itself. On the
 * ports that are guarded, connections beyond what the limit of descriptors allows are accepted and closed at once, and
 * want of descriptors looks like want of connections; on all others it is the system call. */
#ifndef CONCLAVE_API_GRPC_ACCEPT_PRIV_H
#define CONCLAVE_API_GRPC_ACCEPT_PRIV_H

#include <stdint.h>

/* Guards a listening port of this process until it ends. An eighth of RLIMIT_NOFILE, at most 256 and at least 16
 * descriptors, is kept for what is not a connection of a guarded port. Any thread; a port beyond the fourth is not
 * guarded. */
void accept_guard_port(uint16_t port);

#endif
