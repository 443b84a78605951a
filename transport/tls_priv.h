/* What tls.c (the endpoint: events, time, frames) and tls_peer.c (its connections) share. A slot is one connection:
 * socket, channel, the frame that is coming and the frames that are going. */
#ifndef CONCLAVE_TRANSPORT_TLS_PRIV_H
#define CONCLAVE_TRANSPORT_TLS_PRIV_H

#include "transport/channel_priv.h"
#include "transport/net_priv.h"
#include "transport/socket_priv.h"
#include "transport/transport.h"

#define TLS_SLOT_BITS  16 /* the low bits of a transport_peer: the place of its slot */
#define TLS_HEAD_BYTES 4  /* in front of every frame: its length, little-endian */

typedef struct tls tls;

typedef enum {
    TLS_FREE,
    TLS_MEETING, /* the socket is connecting, or the handshake goes on */
    TLS_UP,
    TLS_FAILED /* to be closed at the end of the turn */
} tls_slot_state;

typedef struct tls_slot {
    tls_slot_state state;
    tls *t;
    transport_peer peer;
    int fd;                         /* owned; -1: none */
    channel *channel;               /* owned; NULL: free */
    bool caller;                    /* the connect was ours */
    bool connecting;                /* the socket has no connection yet */
    bool quiet;                     /* no event is due: closed from here, or never UP at the end that was called */
    bool wants_out;                 /* the epoll set tells when the socket takes more */
    uint64_t since_ns;              /* of the meeting; then when bytes last left, or the oldest frame came */
    transport_msg *oldest, *newest; /* frames under way, in order, linked by next */
    size_t n_out, at;               /* their number; bytes of the oldest that are encrypted, its head included */
    unsigned char head[TLS_HEAD_BYTES];
    size_t n_head, n_frame, frame_bytes; /* of the frame that is coming */
    unsigned char *frame;                /* owned [max_message]; NULL until UP */
    char why[128];
} tls_slot;

struct tls {
    transport base; /* first: ops get it */
    const moe_clock *clock;
    channel_key *key;                 /* owned */
    int listen_fd, epoll_fd, wake_fd; /* owned; -1: none */
    bool listening;                   /* listen_fd is in the epoll set */
    char address[SOCKET_MAX_ADDRESS];
    tls_slot *slots; /* owned [n_slots] */
    size_t n_slots, n_meeting;
    uint64_t serial;
    size_t max_sends;
    uint64_t send_timeout_ns, check_ns;
    bool dirty; /* a slot has failed */
    unsigned n_events;
    transport_net_stats stats;
    unsigned char record[CHANNEL_RECORD]; /* pieces of a frame, joined */
};

/* What an event of the epoll set is about. */
enum { TLS_KIND_SOCKET = 0, TLS_KIND_LISTEN = 1, TLS_KIND_WAKE = 2 };
MOE_NODISCARD moe_status tls_watch(tls *t, int fd, uint32_t events, uint64_t kind, transport_peer peer, int op);

/* tls_peer.c */
tls_slot *tls_slot_find(tls *t, transport_peer peer); /* NULL: it is over */
void tls_slot_fail(tls_slot *slot, const char *why);  /* closed at the end of the turn */
void tls_attend(tls *t);                              /* closes what has failed, and tells */
void tls_on_listen(tls *t);
void tls_on_socket(tls_slot *slot, uint32_t events);
void tls_stop_listening(tls *t);
/* Encrypts and sends what the slot has, as far as the socket takes it. */
void tls_push(tls_slot *slot);
/* Of transport_ops. */
MOE_NODISCARD moe_status tls_connect(transport *base, const char *address, transport_peer *peer_out);
MOE_NODISCARD moe_status tls_send(transport *base, transport_peer peer, transport_msg *msg);
void tls_peer_close(transport *base, transport_peer peer);

#endif
