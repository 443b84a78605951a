/* What tls.c (the endpoint: events, time, frames), tls_peer.c (its connections) and tls_agree.c (what carries their frames)
 * share. A slot is one connection: socket, channel, the frame that is coming and the frames that are going.
 *
 * Where two ends agree on it, frames travel through shared memory. The channel is silent then; its end is the
 * connection's end. */
#ifndef CONCLAVE_TRANSPORT_TLS_PRIV_H
#define CONCLAVE_TRANSPORT_TLS_PRIV_H

#include "transport/channel_priv.h"
#include "transport/net_priv.h"
#include "transport/shm_priv.h"

#define TLS_HEAD_BYTES 4 /* in front of every frame: its length, little-endian */
#define TLS_NOTE_BYTES (1 + SHM_TOKEN)

/* What two ends that know shared memory say to each other before they are UP (docs/transport.md). */
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
    bool has_door;                       /* the caller's, while agreeing */
    int door;                            /* owned if has_door */
    unsigned char note[TLS_NOTE_BYTES];  /* that is coming */
    size_t n_note;
    shm *shm; /* owned; NULL: frames travel by the channel, or it is not agreed on */
} tls_slot;

typedef struct tls {
    net n;               /* first */
    transport_lane lane; /* tls, auto or shm */
    channel_key *key;    /* owned */
    uint32_t *rings;     /* owned [n_slots]: the first n_rings are slots that are UP by shared memory */
    size_t n_rings;
    unsigned turn;
    bool warned;                          /* that there is no shared memory to be had */
    unsigned char record[CHANNEL_RECORD]; /* pieces of a frame, joined */
} tls;

/* tls_agree.c */
/* Moves the agreement on by what has come; the first call follows the handshake. MOE_OK: slot->shm, or the channel if that
 * is NULL. MOE_ERR_BUSY: more must come. Errors: MOE_ERR_UNSUPPORTED (it has to be shared memory and cannot be),
 * MOE_ERR_CORRUPT, MOE_ERR_DENIED. */
MOE_NODISCARD moe_status tls_agree(tls_slot *slot, moe_error *err);
void tls_agree_end(tls_slot *slot); /* closes what was open for it */

/* tls_peer.c */
extern const net_lane tls_lane;
void tls_attend(tls *t);     /* closes what has failed, and tells */
void tls_take_rings(tls *t); /* what has come by shared memory, and what stands there */
/* All ends of shared memory are to be woken by the others from now on. False: there is something to do. */
MOE_NODISCARD bool tls_sleep(tls *t);
void tls_awake(tls *t);
MOE_NODISCARD moe_status tls_send(transport *base, transport_peer peer, transport_msg *msg); /* of transport_ops */

#endif
