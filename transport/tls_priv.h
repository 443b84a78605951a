/* What tls.c (the endpoint: events, time, frames) and tls_peer.c (its connections) share. A slot is one connection:
 * socket, channel, the frame that is coming and the frames that are going. */
#ifndef CONCLAVE_TRANSPORT_TLS_PRIV_H
#define CONCLAVE_TRANSPORT_TLS_PRIV_H

#include "transport/channel_priv.h"
#include "transport/net_priv.h"

#define TLS_HEAD_BYTES 4 /* in front of every frame: its length, little-endian */

typedef struct tls_slot {
    net_slot s;                     /* first */
    channel *channel;               /* owned; NULL: free */
    bool wants_out;                 /* the set tells when the socket takes more; counted in n_standing */
    uint64_t left_ns;               /* when bytes last left, or the oldest frame came */
    transport_msg *oldest, *newest; /* frames under way, in order, linked by next */
    size_t n_out, at;               /* their number; bytes of the oldest that are encrypted, its head included */
    unsigned char head[TLS_HEAD_BYTES];
    size_t n_head, n_frame, frame_bytes; /* of the frame that is coming */
    unsigned char *frame;                /* owned [max_message]; NULL until UP */
} tls_slot;

typedef struct tls {
    net n;                                /* first */
    channel_key *key;                     /* owned */
    unsigned char record[CHANNEL_RECORD]; /* pieces of a frame, joined */
} tls;

/* tls_peer.c */
extern const net_lane tls_lane;
void tls_attend(tls *t); /* closes what has failed, and tells */
MOE_NODISCARD moe_status tls_send(transport *base, transport_peer peer, transport_msg *msg); /* of transport_ops */

#endif
