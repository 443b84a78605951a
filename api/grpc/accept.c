/* accept4 is declared here and not by the system's header, whose type of the address differs between C libraries. */
#undef _GNU_SOURCE
#define _DEFAULT_SOURCE
#include "api/grpc/accept_priv.h"

#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MAX_PORTS 4

int accept4(int listener, struct sockaddr *restrict address, socklen_t *restrict n_address, int flags);

static atomic_uint n_ports;
static atomic_uint ports[MAX_PORTS];
static atomic_int first_refused = INT_MAX; /* descriptors from here on are not for connections */

void accept_guard_port(uint16_t port)
{
    struct rlimit limit;
    unsigned at = atomic_fetch_add(&n_ports, 1);

    if (at < MAX_PORTS) {
        atomic_store(&ports[at], port);
    }
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < INT_MAX) {
        int n = (int)limit.rlim_cur;
        int kept = n / 8 > 256 ? 256 : n / 8 < 16 ? 16 : n / 8;

        atomic_store(&first_refused, n > 2 * kept ? n - kept : n);
    }
}

static bool guarded(int listener)
{
    struct sockaddr_storage own;
    socklen_t n = sizeof(own);
    unsigned port = 0;

    if (getsockname(listener, (struct sockaddr *)&own, &n) != 0) {
        return false;
    }
    if (own.ss_family == AF_INET) {
        port = ntohs(((const struct sockaddr_in *)&own)->sin_port);
    } else if (own.ss_family == AF_INET6) {
        port = ntohs(((const struct sockaddr_in6 *)&own)->sin6_port);
    }
    for (unsigned i = 0; i < MAX_PORTS; i++) {
        if (port != 0 && atomic_load(&ports[i]) == port) {
            return true;
        }
    }
    return false;
}

static int accept_within_limit(int listener, struct sockaddr *address, socklen_t *n_address, int flags)
{
    socklen_t room = n_address == NULL ? 0 : *n_address;

    for (;;) {
        int fd = (int)syscall(SYS_accept4, listener, address, n_address, flags);

        if (fd < 0) {
            bool full = errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM;

            errno = full ? EAGAIN : errno;
            return -1;
        }
        /* The kernel hands out the lowest free descriptor, so a high one says that few are left. */
        if (fd < atomic_load(&first_refused)) {
            return fd;
        }
        close(fd);
        if (n_address != NULL) {
            *n_address = room;
        }
    }
}

__attribute__((visibility("default"))) int accept4(int listener, struct sockaddr *restrict address,
                                                   socklen_t *restrict n_address, int flags)
{
    if (guarded(listener)) {
        return accept_within_limit(listener, address, n_address, flags);
    }
    return (int)syscall(SYS_accept4, listener, address, n_address, flags);
}
