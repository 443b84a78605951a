/* Proof of the cluster secret: HMAC-SHA-256 over both HELLOs. docs/wire.md changes in the same commit. */
#include "proto/wire.h"

#include <limits.h>
#include <string.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>

static moe_status hmac(const void *key, size_t key_bytes, const void *data, size_t n, unsigned char out[32])
{
    unsigned int n_out = 0;

    if (HMAC(EVP_sha256(), key, (int)key_bytes, data, n, out, &n_out) == NULL || n_out != 32) {
        return MOE_ERR_INTERNAL;
    }
    return MOE_OK;
}

/* A key of its own, so that nothing else made with the secret can pass for a proof. */
moe_status wire_key_init(wire_key *key, const void *secret, size_t n)
{
    static const char purpose[] = "conclave hello 1 key";

    *key = (wire_key){0};
    if (n == 0) {
        return MOE_OK;
    }
    if (n > WIRE_MAX_SECRET) {
        return MOE_ERR_INVALID_ARG;
    }
    moe_status status = hmac(secret, n, purpose, sizeof purpose - 1, key->bytes);
    key->present = status == MOE_OK;
    return status;
}

void wire_key_fini(wire_key *key)
{
    OPENSSL_cleanse(key, sizeof *key);
}

moe_status wire_random(unsigned char *out, size_t n)
{
    return n <= INT_MAX && RAND_bytes(out, (int)n) == 1 ? MOE_OK : MOE_ERR_INTERNAL;
}

static void put_unproved(moe_buf *b, const wire_hello *h)
{
    wire_hello copy = *h;
    moe_buf frame;

    copy.n_mac = 0;
    moe_buf_init(&frame, b->data + b->used, b->capacity - b->used);
    wire_put_hello(&frame, &copy);
    size_t n = wire_finish(&frame);
    MOE_ASSERT(n > 0);
    b->used += n;
}

moe_status wire_prove(const wire_key *key, wire_role who, const wire_hello *caller, const wire_hello *node,
                      unsigned char mac[32])
{
    static const char label[] = "conclave hello 1 ";
    unsigned char transcript[2 * WIRE_SMALL_BYTES + 32];
    const char *role = wire_role_name((uint16_t)who);
    moe_buf b;

    MOE_ASSERT(key->present);
    moe_buf_init(&b, transcript, sizeof transcript);
    moe_put_bytes(&b, label, sizeof label - 1);
    moe_put_bytes(&b, role, strlen(role));
    put_unproved(&b, caller);
    put_unproved(&b, node);
    return hmac(key->bytes, sizeof key->bytes, transcript, b.used, mac);
}

bool wire_proves(const wire_key *key, wire_role who, const wire_hello *caller, const wire_hello *node,
                 const unsigned char mac[32])
{
    unsigned char expected[32];

    /* A nonce of each makes the proof new: an old one is of no use, whichever side replays it. */
    return caller->n_nonce == 32 && node->n_nonce == 32 && wire_prove(key, who, caller, node, expected) == MOE_OK &&
           CRYPTO_memcmp(expected, mac, sizeof expected) == 0;
}
