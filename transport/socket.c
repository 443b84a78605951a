/* Sockets that do not block. */
#include "transport/socket_priv.h"

#include <errno.h>
#include <ifaddrs.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BACKLOG 256

static moe_status address_to_listen(const char *text, struct sockaddr_storage *out, socklen_t *bytes_out,
                                    moe_error *err)
{
    moe_address a;
    char port[8];
    moe_status status = moe_address_parse("--listen", text, -1, &a, err);
    const struct addrinfo hints = {
        .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV, .ai_family = AF_UNSPEC};
    struct addrinfo *found;

    if (status != MOE_OK) {
        return status;
    }
    (void)snprintf(port, sizeof port, "%u", (unsigned)a.port);
    int failed = getaddrinfo(a.host[0] == '\0' ? NULL : a.host, port, &hints, &found);
    if (failed != 0) {
        return moe_fail(err, MOE_ERR_UNAVAILABLE, "--listen %s: %s", text, gai_strerror(failed));
    }
    memcpy(out, found->ai_addr, found->ai_addrlen);
    *bytes_out = found->ai_addrlen;
    freeaddrinfo(found);
    return MOE_OK;
}

static void format_address(const struct sockaddr_storage *a, char *out, size_t bytes)
{
    char host[64], port[16];

    if (getnameinfo((const struct sockaddr *)a, sizeof *a, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV) == 0) {
        (void)snprintf(out, bytes, a->ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
    }
}

/* The device that has this address, for UCX to use that one alone. Wildcards and names have none: it may use all. */
static void find_device(const struct sockaddr_storage *at, char *out, size_t bytes)
{
    struct ifaddrs *all;

    if (getifaddrs(&all) != 0) {
        return;
    }
    for (const struct ifaddrs *i = all; i != NULL; i = i->ifa_next) {
        bool same = false;

        if (i->ifa_addr == NULL || i->ifa_addr->sa_family != at->ss_family) {
            continue;
        }
        if (at->ss_family == AF_INET) {
            same = ((const struct sockaddr_in *)(const void *)i->ifa_addr)->sin_addr.s_addr ==
                   ((const struct sockaddr_in *)at)->sin_addr.s_addr;
        } else if (at->ss_family == AF_INET6) {
            same = memcmp(&((const struct sockaddr_in6 *)(const void *)i->ifa_addr)->sin6_addr,
                          &((const struct sockaddr_in6 *)at)->sin6_addr, sizeof(struct in6_addr)) == 0;
        }
        if (same) {
            (void)snprintf(out, bytes, "%s", i->ifa_name);
        }
    }
    freeifaddrs(all);
}

void socket_set_options(int fd)
{
    static const struct {
        int level, name, value;
    } all[] = {{IPPROTO_TCP, TCP_NODELAY, 1},
               {SOL_SOCKET, SO_KEEPALIVE, 1},
               {IPPROTO_TCP, TCP_KEEPIDLE, 5},
               {IPPROTO_TCP, TCP_KEEPINTVL, 5},
               {IPPROTO_TCP, TCP_KEEPCNT, 3}};

    for (size_t i = 0; i < MOE_COUNT(all); i++) {
        (void)setsockopt(fd, all[i].level, all[i].name, &all[i].value, sizeof all[i].value);
    }
}

void socket_peer_host(int fd, char out[SOCKET_MAX_ADDRESS])
{
    struct sockaddr_storage at;
    socklen_t bytes = sizeof at;

    (void)snprintf(out, SOCKET_MAX_ADDRESS, "somebody");
    if (getpeername(fd, (struct sockaddr *)&at, &bytes) == 0) {
        (void)getnameinfo((const struct sockaddr *)&at, bytes, out, SOCKET_MAX_ADDRESS, NULL, 0, NI_NUMERICHOST);
    }
}

static moe_status status_of_bind(int number)
{
    switch (number) {
    case EADDRINUSE:
        return MOE_ERR_EXISTS;
    case EADDRNOTAVAIL:
    case EACCES:
        return MOE_ERR_INVALID_ARG;
    default:
        return MOE_ERR_UNAVAILABLE;
    }
}

moe_status socket_listen(const char *address, int *fd_out, char found_out[SOCKET_MAX_ADDRESS],
                         char device_out[SOCKET_MAX_DEVICE], moe_error *err)
{
    struct sockaddr_storage at;
    socklen_t bytes;
    int one = 1;
    moe_status parsed = address_to_listen(address, &at, &bytes, err);

    if (parsed != MOE_OK) {
        return parsed;
    }
    int fd = socket(at.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd >= 0) {
        (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    }
    if (fd < 0 || bind(fd, (const struct sockaddr *)&at, bytes) != 0 || listen(fd, BACKLOG) != 0 ||
        getsockname(fd, (struct sockaddr *)&at, &bytes) != 0) {
        moe_status status =
            moe_fail(err, status_of_bind(errno), "--listen %s: cannot be bound: %s", address, strerror(errno));

        if (fd >= 0) {
            (void)close(fd);
        }
        return status;
    }
    found_out[0] = device_out[0] = '\0';
    format_address(&at, found_out, SOCKET_MAX_ADDRESS);
    find_device(&at, device_out, SOCKET_MAX_DEVICE);
    *fd_out = fd;
    return MOE_OK;
}

moe_status socket_connect(const moe_ip *ip, uint16_t port, int *fd_out, moe_error *err)
{
    struct sockaddr_storage to;
    socklen_t bytes = (socklen_t)moe_ip_sockaddr(ip, port, &to);
    int fd = socket(to.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || (connect(fd, (const struct sockaddr *)&to, bytes) != 0 && errno != EINPROGRESS)) {
        moe_status status = moe_fail(err, errno == ECONNREFUSED ? MOE_ERR_NOT_FOUND : MOE_ERR_UNAVAILABLE,
                                     "connect: %s", strerror(errno));

        if (fd >= 0) {
            (void)close(fd);
        }
        return status;
    }
    *fd_out = fd;
    return MOE_OK;
}
