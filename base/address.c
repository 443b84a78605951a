#include "base/base.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <string.h>
#include <strings.h>

#define SHOWN "%s \"%.64s\": "

static bool is_ipv6(const char *host)
{
    struct in6_addr v6;

    return inet_pton(AF_INET6, host, &v6) == 1;
}

/* At most 65535, nothing but digits. */
static bool parse_port(const char *text, uint16_t *out)
{
    uint32_t port = 0;

    if (*text == '\0' || strlen(text) > 5) {
        return false;
    }
    for (; *text != '\0'; text++) {
        if (*text < '0' || *text > '9') {
            return false;
        }
        port = port * 10 + (uint32_t)(*text - '0');
    }
    *out = (uint16_t)port;
    return port <= UINT16_MAX;
}

/* What names and numbers are made of; a zone (fe80::1%eth0) only in brackets. */
static bool is_host(const char *host, bool brackets)
{
    for (const char *p = host; *p != '\0'; p++) {
        if (isalnum((unsigned char)*p) == 0 && strchr(brackets ? ":.%_-" : "._-", *p) == NULL) {
            return false;
        }
    }
    return !brackets || strchr(host, ':') != NULL;
}

/* Finds the host's end and the port's begin; *port_out NULL: there is none. */
static moe_status split(const char *what, const char *text, bool may_lack_port, char host[MOE_HOST_BYTES],
                        const char **port_out, moe_error *err)
{
    bool brackets = text[0] == '[';
    const char *end = brackets ? strchr(text, ']') : strrchr(text, ':');
    size_t n;

    if (brackets && (end == NULL || (end[1] != ':' && end[1] != '\0'))) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, SHOWN "expected [IPV6]:PORT", what, text);
    }
    if (!brackets && may_lack_port && is_ipv6(text)) {
        end = NULL;
    }
    *port_out = brackets ? (end[1] == ':' ? end + 2 : NULL) : (end != NULL ? end + 1 : NULL);
    text += brackets;
    n = end != NULL ? (size_t)(end - text) : strlen(text);
    if (n >= MOE_HOST_BYTES) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, SHOWN "a host of %zu bytes; at most %d", what, text, n,
                        MOE_HOST_BYTES - 1);
    }
    memcpy(host, text, n);
    host[n] = '\0';
    if (!brackets && end != NULL && memchr(host, ':', n) != NULL) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, SHOWN "an IPv6 address stands in brackets: [IPV6]:PORT", what, text);
    }
    return MOE_OK;
}

moe_status moe_address_parse(const char *what, const char *text, int default_port, moe_address *out, moe_error *err)
{
    moe_address a = {.port = (uint16_t)MOE_MAX(default_port, 0)};
    const char *port = NULL;
    moe_status status;

    text = text != NULL ? text : "";
    if (strstr(text, "://") != NULL) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, SHOWN "a URL; expected HOST:PORT", what, text);
    }
    status = split(what, text, default_port >= 0, a.host, &port, err);
    if (status != MOE_OK) {
        return status;
    }
    if (!is_host(a.host, text[0] == '[') && !is_ipv6(a.host)) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, SHOWN "not the name or number of a host", what, text);
    }
    if (port == NULL && (default_port < 0 || a.host[0] == '\0')) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, SHOWN "no %s; expected HOST:PORT", what, text,
                        a.host[0] == '\0' ? "host" : "port");
    }
    if (port != NULL && !parse_port(port, &a.port)) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, SHOWN "the port must be a number of at most 65535", what, text);
    }
    *out = a;
    return MOE_OK;
}

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), n_end = strlen(end);

    return n >= n_end && strcasecmp(text + n - n_end, end) == 0;
}

/* RFC 6761 and what Linux systems have in /etc/hosts. Other names may resolve to anything. */
static bool is_loopback_name(const char *host)
{
    static const char *const names[] = {"localhost", "localhost.", "localhost.localdomain", "ip6-localhost",
                                        "ip6-loopback"};

    for (size_t i = 0; i < MOE_COUNT(names); i++) {
        if (strcasecmp(host, names[i]) == 0) {
            return true;
        }
    }
    return ends_with(host, ".localhost") || ends_with(host, ".localhost.");
}

bool moe_address_is_loopback(const moe_address *a)
{
    struct in_addr v4;
    struct in6_addr v6;

    if (inet_pton(AF_INET, a->host, &v4) == 1) {
        return (ntohl(v4.s_addr) >> 24) == 127;
    }
    if (inet_pton(AF_INET6, a->host, &v6) == 1) {
        return IN6_IS_ADDR_LOOPBACK(&v6);
    }
    return is_loopback_name(a->host);
}

bool moe_address_is_wildcard(const moe_address *a)
{
    struct in6_addr v6;

    return a->host[0] == '\0' || strcmp(a->host, "0.0.0.0") == 0 ||
           (inet_pton(AF_INET6, a->host, &v6) == 1 && IN6_IS_ADDR_UNSPECIFIED(&v6));
}

void moe_address_print(const moe_address *a, char out[MOE_ADDRESS_BYTES])
{
    (void)snprintf(out, MOE_ADDRESS_BYTES, strchr(a->host, ':') != NULL ? "[%s]:%u" : "%s:%u", a->host,
                   (unsigned)a->port);
}
