/* socket: TCP sockets that do not block, for the places where members meet. */
#ifndef CONCLAVE_TRANSPORT_SOCKET_PRIV_H
#define CONCLAVE_TRANSPORT_SOCKET_PRIV_H

#include "base/base.h"

#define SOCKET_MAX_ADDRESS 128 /* bytes of HOST:PORT with its end */
#define SOCKET_MAX_DEVICE  32

/* address, of --listen, is HOST:PORT or [HOST]:PORT; a name is looked up, which may block, and its first address is taken:
 * for the start of a program. *device_out is the network device that has the address, "" for a wildcard.
 * Errors: MOE_ERR_INVALID_ARG (none, or not this machine's), MOE_ERR_EXISTS (in use), MOE_ERR_UNAVAILABLE. */
MOE_NODISCARD moe_status socket_listen(const char *address, int *fd_out, char found_out[SOCKET_MAX_ADDRESS],
                                       char device_out[SOCKET_MAX_DEVICE], moe_error *err);
/* Begins to connect. Errors: MOE_ERR_UNAVAILABLE. */
MOE_NODISCARD moe_status socket_connect(const moe_ip *ip, uint16_t port, int *fd_out, moe_error *err);
void socket_set_options(int fd); /* no delay, keepalive */
/* The host of the other end, without the port, which is another one each time; "somebody" when it is no longer known. */
void socket_peer_host(int fd, char out[SOCKET_MAX_ADDRESS]);

#endif
