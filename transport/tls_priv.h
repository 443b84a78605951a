/* What tls.c (the endpoint: events, time, frames), tls_peer.c (its connections) and tls_agree.c (what carries their frames)
 * share. A slot is one connection: socket, channel, the frame that is coming and the frames that are going.
 *
 * All connections meet by the channel. Where two ends agree on it, frames travel through shared memory or by UCX. The channel is
 * silent then; its end is the connection's end. */
#ifndef CONCLAVE_TRANSPORT_TLS_PRIV_H
#define CONCLAVE_TRANSPORT_TLS_PRIV_H

#include "transport/carrier_priv.h"
#include "transport/channel_priv.h"
#include "transport/net_priv.h"
#include "transport/shm_priv.h"
#include "transport/ucx_priv.h"

#define TLS_HEAD_BYTES 4 /* in front of every frame: its length, little-endian */
#define TLS_NOTE_HEAD  3
#define TLS_NOTE_BYTES (TLS_NOTE_HEAD + 1 + UCX_MAX_ADDRESS)

/* What two ends that offer more than the channel say to each other before they are UP (docs/transport.md). */
typedef enum { TLS_NOTE_NONE, TLS_NOTE_ASK, TLS_NOTE_HERE, TLS_NOTE_READ } tls_note;

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
    bool agreeing;                       /* the handshake is done, and what carries frames is not agreed on */
    unsigned offer;                      /* of this end: bits of carriers */
    carrier trying;                      /* what was asked for last, by the caller */
    bool has_door;                       /* the caller's, while agreeing */
    int door;                            /* owned if has_door */
    unsigned char note[TLS_NOTE_BYTES];  /* that is coming */
    size_t n_note;
    shm *shm;      /* owned; with both NULL frames travel by the channel, or it is not agreed on */
    ucx_conn *ucx; /* owned */
} tls_slot;

typedef struct tls {
    net n; /* first */
    transport_lane lane;
    transport_network rdma_network;
    channel_key *key; /* owned */
    ucx *ucx;         /* owned; NULL: UCX carries nothing here */
    uint32_t *rings;  /* owned [n_slots]: the first n_rings are slots that are UP by shared memory */
    size_t n_rings;
    unsigned turn;
    bool warned;                          /* that a carrier failed for no fault of the other end's */
    unsigned char record[CHANNEL_RECORD]; /* pieces of a frame, joined */
} tls;

/* tls_agree.c */
/* Moves the agreement on by what has come; the first call follows the handshake. MOE_OK: slot->shm, slot->ucx, or the channel if
 * both are NULL. MOE_ERR_BUSY: more must come. Errors: MOE_ERR_UNSUPPORTED (nothing that both ends offer has come about),
 * MOE_ERR_CORRUPT, MOE_ERR_DENIED. */
MOE_NODISCARD moe_status tls_agree(tls_slot *slot, moe_error *err);
void tls_agree_end(tls_slot *slot); /* closes what it has made, and what was open for it */

/* tls_peer.c */
void tls_attend(tls *t);     /* closes what has failed, and tells; not from within a callback of UCX */
void tls_take_rings(tls *t); /* what has come by shared memory, and what stands there */
/* All ends of shared memory are to be woken by the others from now on. False: there is something to do. */
MOE_NODISCARD bool tls_sleep(tls *t);
void tls_awake(tls *t);
MOE_NODISCARD moe_status tls_send(transport *base, transport_peer peer, transport_msg *msg); /* of transport_ops */

#endif
