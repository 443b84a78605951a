#include "api/http/listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static bool parse_port(const char *text, uint16_t *out)
{
    char *end;

    if (text[0] < '0' || text[0] > '9') {
        return false;
    }
    errno = 0;
    unsigned long port = strtoul(text, &end, 10);
    if (errno != 0 || *end != '\0' || port > 65535) {
        return false;
    }
    *out = (uint16_t)port;
    return true;
}

/* Names other than localhost may resolve to anything: not loopback. */
static bool host_is_loopback(const char *host)
{
    struct in_addr v4;
    struct in6_addr v6;

    if (strcmp(host, "localhost") == 0) {
        return true;
    }
    if (inet_pton(AF_INET, host, &v4) == 1) {
        return (ntohl(v4.s_addr) >> 24) == 127;
    }
    return inet_pton(AF_INET6, host, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

moe_status listen_parse(const char *option, const char *text, listen_address *out, moe_error *err)
{
    listen_address a = {.port = 0};
    const char *colon = text == NULL ? NULL : strrchr(text, ':');
    size_t n_host = colon == NULL ? 0 : (size_t)(colon - text);
    const char *host = text;

    if (colon == NULL || !parse_port(colon + 1, &a.port) || n_host >= sizeof(a.host)) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "%s: \"%.64s\" is not HOST:PORT with a port of at most 65535", option,
                        text == NULL ? "" : text);
    }
    if (n_host >= 2 && host[0] == '[' && host[n_host - 1] == ']') {
        host++;
        n_host -= 2;
    } else if (memchr(host, ':', n_host) != NULL) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "%s: \"%.64s\": an IPv6 address stands in brackets", option, text);
    }
    memcpy(a.host, host, n_host);
    a.loopback = host_is_loopback(a.host);
    *out = a;
    return MOE_OK;
}

bool listen_is_wildcard(const listen_address *a)
{
    return a->host[0] == '\0' || strcmp(a->host, "0.0.0.0") == 0 || strcmp(a->host, "::") == 0;
}

static uint64_t time_ns(struct timespec t)
{
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

file_stamp file_stamp_read(const char *path)
{
    struct stat s;

    if (path == NULL || stat(path, &s) != 0) {
        return (file_stamp){.inode = 0};
    }
    return (file_stamp){
        .inode = s.st_ino, .size = (uint64_t)s.st_size, .mtime_ns = time_ns(s.st_mtim), .ctime_ns = time_ns(s.st_ctim)};
}

bool file_stamp_equal(const file_stamp *a, const file_stamp *b)
{
    return a->inode == b->inode && a->size == b->size && a->mtime_ns == b->mtime_ns && a->ctime_ns == b->ctime_ns;
}
