/* meet: how two ucx endpoints find each other. Over a socket of our own they exchange nonces, then UCX's addresses with
 * a proof of the cluster secret, so that nothing a stranger sends reaches UCX's own parsers (which trust what they
 * read). docs/transport.md has the bytes. A state machine over bytes: no sockets, no clock. */
#ifndef CONCLAVE_TRANSPORT_MEET_PRIV_H
#define CONCLAVE_TRANSPORT_MEET_PRIV_H

#include "base/base.h"

#define MEET_NONCE       32
#define MEET_MAC         32
#define MEET_TOKEN       16
#define MEET_MAX_ADDRESS 2048
#define MEET_MAX_BYTES   (2 + MEET_MAX_ADDRESS + MEET_MAC)

typedef struct meet_key {
    bool present;
    unsigned char bytes[32];
} meet_key;

MOE_NODISCARD moe_status meet_key_init(meet_key *key, const void *secret, size_t n);

typedef enum {
    MEET_NONCES,  /* the other's nonce is awaited */
    MEET_CALL,    /* the caller: nonces are exchanged, meet_offer is to be called */
    MEET_ADDRESS, /* the other's address is awaited */
    MEET_ANSWER,  /* the one called: the address is there, meet_offer is to be called */
    MEET_DONE
} meet_stage;

typedef struct meet {
    meet_stage stage;
    bool caller;
    const meet_key *key;                  /* borrowed */
    unsigned char nonces[2 * MEET_NONCE]; /* the caller's, then the other's */
    unsigned char mine[MEET_MAX_ADDRESS], theirs[MEET_MAX_ADDRESS];
    size_t n_mine, n_theirs;
    unsigned char token[MEET_TOKEN]; /* once done: equal at both ends, unknown to others that cannot listen */
    unsigned char in[MEET_MAX_BYTES], out[64 + MEET_MAX_BYTES]; /* a nonce's frame may still be there */
    size_t n_in, n_out;
} meet;

/* What is to be sent is in out [n_out]; the caller of these functions empties it. */
MOE_NODISCARD moe_status meet_begin(meet *m, bool caller, const meet_key *key);
/* Takes bytes; *n_used of them, which may be fewer when meet_offer comes first. Errors: MOE_ERR_CORRUPT,
 * MOE_ERR_UNSUPPORTED (another version), MOE_ERR_DENIED (the proof). */
MOE_NODISCARD moe_status meet_receive(meet *m, const unsigned char *bytes, size_t n, size_t *n_used, moe_error *err);
/* Puts into out, instead of an address, that the proof was not accepted. */
void meet_refuse(meet *m);
/* Our address. Errors: MOE_ERR_UNSUPPORTED when it is above MEET_MAX_ADDRESS. */
MOE_NODISCARD moe_status meet_offer(meet *m, const void *address, size_t n);

#endif
