/* channel: TLS 1.3 over bytes in memory, with a key from the cluster secret in place of certificates. One channel is
 * one connection; whoever owns it moves its bytes to and from a socket. No sockets and no clock here.
 *
 *   handshake   pre-shared key with (EC)DHE, RFC 8446 sec. 2.2; TLS_AES_128_GCM_SHA256 and X25519 alone. The caller's
 *               first message proves that it knows the key, so the one called says nothing to a stranger: not an alert
 *               either, which would tell what listens here
 *   key         HMAC-SHA-256 of the secret. Without a secret the key is known to everybody: frames are then encrypted
 *               and nobody is authenticated, which is why a member without a secret listens on loopback only
 *   no          certificates, resumption, tickets, early data, renegotiation
 *
 * Memory: two buffers for each channel, whose pages are touched only when used.
 * Threads: a channel belongs to one thread; a key is constant once made. */
#ifndef CONCLAVE_TRANSPORT_CHANNEL_PRIV_H
#define CONCLAVE_TRANSPORT_CHANNEL_PRIV_H

#include "base/base.h"

#define CHANNEL_RECORD 16384 /* bytes of plaintext in one record: the most that TLS allows */

typedef struct channel_key channel_key;
typedef struct channel channel;

/* secret [n] is not kept. Errors: MOE_ERR_NO_MEMORY; MOE_ERR_UNSUPPORTED when OpenSSL has no such cipher. */
MOE_NODISCARD moe_status channel_key_open(const void *secret, size_t n, channel_key **out, moe_error *err);
void channel_key_close(channel_key *key); /* cleansed; its channels are closed before. NULL is fine */
/* Channels of this key offer the protocol from now on, or take it up: it comes about where both ends would (ALPN, RFC
 * 7301); the offer can be read by whoever listens in. Errors: MOE_ERR_NO_MEMORY. */
MOE_NODISCARD moe_status channel_key_offer(channel_key *key, const char *protocol);

MOE_NODISCARD moe_status channel_open(const channel_key *key, bool caller, channel **out);
void channel_close(channel *c); /* NULL is fine */

/* Where received bytes go: room for *n_out of them, 0 when the channel must be read first; then how many came. */
unsigned char *channel_in(channel *c, size_t *n_out);
void channel_received(channel *c, size_t n);
/* Bytes to be sent, and how many of them were. */
const unsigned char *channel_out(const channel *c, size_t *n_out);
void channel_sent(channel *c, size_t n);

/* Moves the handshake on by what has come. MOE_ERR_BUSY: more bytes are needed. Errors: MOE_ERR_DENIED (the other end
 * does not know the secret, or is no member), MOE_ERR_CORRUPT. */
MOE_NODISCARD moe_status channel_handshake(channel *c, moe_error *err);
/* After the handshake: whether both ends take up the protocol, and bytes that nobody but the two ends can know. Errors:
 * MOE_ERR_INTERNAL. */
bool channel_agreed(const channel *c);
MOE_NODISCARD moe_status channel_export(channel *c, const char *label, unsigned char *out, size_t n);
/* After the handshake. Up to n decrypted bytes; 0: more must come first. Errors: MOE_ERR_CORRUPT (not from the other
 * end, or damaged), MOE_ERR_CANCELLED (the other end says that it is done). */
MOE_NODISCARD moe_status channel_read(channel *c, void *bytes, size_t n, size_t *n_out, moe_error *err);
/* Encrypts n <= CHANNEL_RECORD bytes as one record. MOE_ERR_BUSY: some must be sent first. Errors: MOE_ERR_INTERNAL. */
MOE_NODISCARD moe_status channel_write(channel *c, const void *bytes, size_t n);

#endif
