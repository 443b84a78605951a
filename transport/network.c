/* Which addresses are those of a network. */
#include "transport/transport.h"

#include <string.h>

static const unsigned char mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

/* A socket that listens for IPv6 tells IPv4 callers as ::ffff:10.0.0.1. */
static moe_ip plain(const moe_ip *ip)
{
    moe_ip v4 = {.n_bytes = 4};

    if (ip->n_bytes != 16 || memcmp(ip->bytes, mapped, sizeof mapped) != 0) {
        return *ip;
    }
    memcpy(v4.bytes, ip->bytes + sizeof mapped, 4);
    return v4;
}

static bool bits_equal(const unsigned char *a, const unsigned char *b, uint32_t n)
{
    unsigned rest = n % 8, mask = rest == 0 ? 0 : 0xff00u >> rest & 0xff;

    return memcmp(a, b, n / 8) == 0 && (rest == 0 || ((a[n / 8] ^ b[n / 8]) & mask) == 0);
}

moe_status transport_network_parse(const char *what, const char *text, transport_network *out, moe_error *err)
{
    transport_network net = {.is_all = strcmp(text, "all") == 0, .is_given = true};
    char host[MOE_HOST_BYTES];
    const char *slash = strchr(text, '/');
    size_t n_host = slash == NULL ? 0 : (size_t)(slash - text);
    uint32_t bits = 0;
    size_t n_digits = 0;

    if (net.is_all) {
        *out = net;
        return MOE_OK;
    }
    for (const char *c = slash; c != NULL && c[1] >= '0' && c[1] <= '9' && n_digits < 4; c++) {
        bits = bits * 10 + (uint32_t)(c[1] - '0');
        n_digits++;
    }
    if (n_host > 0 && n_host < sizeof host) {
        memcpy(host, text, n_host);
        host[n_host] = '\0';
    }
    if (n_host == 0 || n_host >= sizeof host || n_digits == 0 || slash[1 + n_digits] != '\0' ||
        !moe_ip_parse(host, &net.base) || net.base.zone != 0 || bits > 8 * net.base.n_bytes) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "%s \"%.80s\": neither all nor a network, as 10.0.0.0/8 or fd00::/8",
                        what, text);
    }
    for (uint32_t i = bits; i < 8 * net.base.n_bytes; i++) {
        if ((net.base.bytes[i / 8] >> (7 - i % 8) & 1) != 0) {
            return moe_fail(err, MOE_ERR_INVALID_ARG, "%s \"%.80s\": has bits beyond its first %u", what, text, bits);
        }
    }
    net.n_bits = bits;
    *out = net;
    return MOE_OK;
}

bool transport_network_has(const transport_network *net, const moe_ip *ip)
{
    moe_ip at = plain(ip);

    return net->is_given &&
           (net->is_all || (at.n_bytes == net->base.n_bytes && bits_equal(at.bytes, net->base.bytes, net->n_bits)));
}
