#include "cli/peer.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { STEP_MS = 1000, ANSWER_BYTES = 16 };

/* The client's preface of HTTP/2 and an empty SETTINGS frame (RFC 9113, 3.4). */
static const char http2_hello[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0";

/* A ClientHello of TLS 1.2 that every server answers with a handshake or an alert record: four ECDHE suites, the
 * extensions that they need, and ALPN "h2". (RFC 5246, 7.4.1.2.) The random is fixed: nothing is ever sent over it. */
static const unsigned char tls_hello[] = {
    0x16, 3,    1,    0,    0x61, 1,    0,    0,    0x5d, 3,    3,   'c', 'o', 'n', 'c',
    'l',  'a',  'v',  'e',  ':',  ' ',  'w',  'h',  'a',  't',  ' ', 'd', 'o', 'y', 'o',
    'u',  's',  'p',  'e',  'a',  'k',  '?',  '?',  '?',  '?',  '?', '?', '?', 0, /* no session */
    0,    8,    0xc0, 0x2b, 0xc0, 0x2f, 0xc0, 0x2c, 0xc0, 0x30,                   /* suites */
    1,    0,                                                                      /* no compression */
    0,    0x2c,                                                                   /* extensions */
    0,    10,   0,    6,    0,    4,    0,    0x1d, 0,    0x17,                   /* groups: x25519, P-256 */
    0,    11,   0,    2,    1,    0,                                              /* points: uncompressed */
    0,    13,   0,    10,   0,    8,    4,    3,    8,    4,    4,   1,   5,   3, /* signatures */
    0,    16,   0,    5,    0,    3,    2,    'h',  '2',                          /* ALPN */
    0xff, 1,    0,    1,    0,                                                    /* no renegotiation */
};

static bool wait_for(int fd, short events)
{
    struct pollfd p = {.fd = fd, .events = events};

    return poll(&p, 1, STEP_MS) == 1;
}

/* *refused_out: whether the machine is there and nothing listens. */
static int connect_one(const struct addrinfo *a, bool *refused_out)
{
    int fd = socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), error = 0;
    socklen_t n = sizeof(error);

    if (fd < 0) {
        return -1;
    }
    if (connect(fd, a->ai_addr, a->ai_addrlen) != 0) {
        error = errno;
        if (error == EINPROGRESS && wait_for(fd, POLLOUT) && getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &n) != 0) {
            error = errno;
        }
    }
    if (error == 0) {
        return fd;
    }
    *refused_out = error == ECONNREFUSED;
    close(fd);
    return -1;
}

static int connect_to(const moe_address *address, bool *refused_out)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV}, *found;
    char port[8];
    int fd = -1;

    snprintf(port, sizeof(port), "%u", (unsigned)address->port);
    *refused_out = false;
    if (getaddrinfo(address->host, port, &hints, &found) != 0) {
        return -1;
    }
    for (const struct addrinfo *a = found; a != NULL && fd < 0; a = a->ai_next) {
        fd = connect_one(a, refused_out);
    }
    freeaddrinfo(found);
    return fd;
}

/* The first bytes of the answer; fewer than 3 when the other side hangs up. */
static size_t ask(const moe_address *address, const void *hello, size_t n, unsigned char answer[ANSWER_BYTES],
                  bool *refused_out)
{
    int fd = connect_to(address, refused_out);
    size_t got = 0;

    if (fd < 0) {
        return 0;
    }
    if (send(fd, hello, n, MSG_NOSIGNAL) == (ssize_t)n) {
        while (got < ANSWER_BYTES && wait_for(fd, POLLIN)) {
            ssize_t part = recv(fd, answer + got, ANSWER_BYTES - got, 0);

            if (part <= 0) {
                break;
            }
            got += (size_t)part;
        }
    }
    close(fd);
    return got;
}

static bool is_tls(const unsigned char *answer, size_t n)
{
    return n >= 3 && (answer[0] == 0x15 || answer[0] == 0x16) && answer[1] == 3; /* alert or handshake record */
}

cli_peer cli_peer_detect(const moe_address *address)
{
    unsigned char answer[ANSWER_BYTES];
    bool refused;
    size_t n = ask(address, http2_hello, sizeof(http2_hello), answer, &refused);

    if (refused) {
        return CLI_PEER_NOBODY;
    }
    if (n >= 5 && (memcmp(answer, "HTTP/", 5) == 0 || memcmp(answer, "<!DOC", 5) == 0)) {
        return CLI_PEER_WEB;
    }
    if (n >= 9 && answer[3] == 4 && answer[4] == 0) { /* SETTINGS */
        return CLI_PEER_PLAIN;
    }
    if (!is_tls(answer, n)) {
        n = ask(address, tls_hello, sizeof(tls_hello), answer, &refused);
    }
    return is_tls(answer, n) ? CLI_PEER_TLS : CLI_PEER_UNKNOWN;
}
