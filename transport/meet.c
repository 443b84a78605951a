/* Meeting: nonces, then addresses with proofs (docs/transport.md has the bytes).
 *
 *   caller   NONCES -> CALL -> ADDRESS -> DONE      CALL: the caller's own address is to be offered (meet_offer)
 *   called   NONCES -> ADDRESS -> ANSWER -> DONE    ANSWER: the same for the other end
 *
 * What the order is for. The caller proves itself first, over both nonces and its address; the called end makes a UCX
 * worker only then, so a stranger costs no worker. Its proof covers both addresses, so neither can be exchanged on the
 * way. The purposes in the texts differ, so no proof can be sent back as an answer (reflection), and the nonces are new
 * on each connection, so none can be used again. The token comes from the same key and all of the above: with a secret
 * only the two ends know it, and it ties the frames that UCX delivers to this meeting. */
#include "transport/meet_priv.h"

#include <string.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>

#define MAGIC        0x4D434E43u /* "CNCM" */
#define VERSION      1
#define HEAD_BYTES   8
#define MEET_REFUSED 0xffff /* in place of an address's length */
#define NONCE_FRAME  (HEAD_BYTES + MEET_NONCE)
#define TEXT_BYTES   (32 + 2 * MEET_NONCE + 2 * (2 + MEET_MAX_ADDRESS))

static moe_status hmac(const void *key, size_t key_bytes, const void *data, size_t n, unsigned char out[32])
{
    unsigned int n_out = 0;

    return HMAC(EVP_sha256(), key, (int)key_bytes, data, n, out, &n_out) != NULL && n_out == 32 ? MOE_OK
                                                                                                : MOE_ERR_INTERNAL;
}

moe_status meet_key_init(meet_key *key, const void *secret, size_t n)
{
    static const char purpose[] = "conclave meet 1 key";

    *key = (meet_key){.present = n > 0};
    return n == 0          ? MOE_OK
           : n > INT32_MAX ? MOE_ERR_INVALID_ARG
                           : hmac(secret, n, purpose, sizeof purpose - 1, key->bytes);
}

/* HMAC over the purpose, both nonces, the caller's address and, but for the caller's own proof, the other's. */
static moe_status prove(const meet *m, const char *purpose, bool both, unsigned char out[32])
{
    unsigned char text[TEXT_BYTES];
    moe_buf b;

    moe_buf_init(&b, text, sizeof text);
    moe_put_bytes(&b, purpose, strlen(purpose));
    moe_put_bytes(&b, m->nonces, sizeof m->nonces);
    for (int i = 0; i < (both ? 2 : 1); i++) {
        bool own = m->caller == (i == 0);

        moe_put_u16(&b, (uint16_t)(own ? m->n_mine : m->n_theirs));
        moe_put_bytes(&b, own ? m->mine : m->theirs, own ? m->n_mine : m->n_theirs);
    }
    MOE_ASSERT(!b.failed);
    return hmac(m->key->bytes, sizeof m->key->bytes, text, b.used, out);
}

static moe_status prove_address(const meet *m, bool of_caller, unsigned char out[32])
{
    return prove(m, of_caller ? "conclave meet 1 caller" : "conclave meet 1 called", !of_caller, out);
}

static unsigned char *own_nonce(meet *m)
{
    return m->nonces + (m->caller ? 0 : MEET_NONCE);
}

moe_status meet_begin(meet *m, bool caller, const meet_key *key)
{
    moe_buf b;

    *m = (meet){.stage = MEET_NONCES, .caller = caller, .key = key};
    if (RAND_bytes(own_nonce(m), MEET_NONCE) != 1) {
        return MOE_ERR_INTERNAL;
    }
    moe_buf_init(&b, m->out, sizeof m->out);
    moe_put_u32(&b, MAGIC);
    moe_put_u16(&b, VERSION);
    moe_put_u16(&b, key->present);
    moe_put_bytes(&b, own_nonce(m), MEET_NONCE);
    m->n_out = b.used;
    return MOE_OK;
}

static moe_status finish(meet *m)
{
    unsigned char mac[MEET_MAC];
    moe_status status = prove(m, "conclave meet 1 token", true, mac);

    memcpy(m->token, mac, sizeof m->token);
    m->stage = MEET_DONE;
    return status;
}

moe_status meet_offer(meet *m, const void *address, size_t n)
{
    unsigned char mac[MEET_MAC] = {0};
    moe_status status = MOE_OK;
    moe_buf b;

    MOE_ASSERT(m->stage == MEET_CALL || m->stage == MEET_ANSWER);
    if (n > MEET_MAX_ADDRESS) {
        return MOE_ERR_UNSUPPORTED;
    }
    memcpy(m->mine, address, n);
    m->n_mine = n;
    if (m->key->present) {
        status = prove_address(m, m->caller, mac);
    }
    moe_buf_init(&b, m->out, sizeof m->out);
    b.used = m->n_out;
    moe_put_u16(&b, (uint16_t)n);
    moe_put_bytes(&b, address, n);
    moe_put_bytes(&b, mac, sizeof mac);
    MOE_ASSERT(!b.failed);
    m->n_out = b.used;
    if (status != MOE_OK || m->stage == MEET_ANSWER) {
        return status == MOE_OK ? finish(m) : status;
    }
    m->stage = MEET_ADDRESS;
    return MOE_OK;
}

static moe_status take_nonce(meet *m, moe_error *err)
{
    moe_buf b;

    moe_buf_init(&b, m->in, m->n_in);
    uint32_t magic = moe_get_u32(&b);
    uint16_t version = moe_get_u16(&b);
    uint16_t secret = moe_get_u16(&b);
    if (magic != MAGIC) {
        return moe_fail(err, MOE_ERR_CORRUPT, "not a member: magic %08x", magic);
    }
    if (version != VERSION) {
        return moe_fail(err, MOE_ERR_UNSUPPORTED, "the other end meets in version %u, this end in %d", version,
                        VERSION);
    }
    if (secret != m->key->present) {
        return moe_fail(err, MOE_ERR_DENIED, "the other end has %s cluster secret, this end has %s",
                        secret ? "a" : "no", m->key->present ? "one" : "none");
    }
    memcpy(m->nonces + (m->caller ? MEET_NONCE : 0), moe_get_bytes(&b, MEET_NONCE), MEET_NONCE);
    m->stage = m->caller ? MEET_CALL : MEET_ADDRESS;
    return MOE_OK;
}

static moe_status take_address(meet *m, moe_error *err)
{
    unsigned char mac[MEET_MAC];

    m->n_theirs = m->n_in - 2 - MEET_MAC;
    memcpy(m->theirs, m->in + 2, m->n_theirs);
    if (m->key->present &&
        (prove_address(m, !m->caller, mac) != MOE_OK || CRYPTO_memcmp(mac, m->in + 2 + m->n_theirs, MEET_MAC) != 0)) {
        return moe_fail(err, MOE_ERR_DENIED, "its proof of the cluster secret is wrong");
    }
    m->stage = MEET_ANSWER;
    return m->caller ? finish(m) : MOE_OK;
}

/* Bytes of the frame that is awaited, as far as that is known; 0: none is. */
static size_t wanted(const meet *m)
{
    if (m->stage == MEET_NONCES) {
        return NONCE_FRAME;
    }
    if (m->stage != MEET_ADDRESS) {
        return 0;
    }
    return m->n_in < 2 ? 2 : 2 + (size_t)(m->in[0] | m->in[1] << 8) + MEET_MAC;
}

void meet_refuse(meet *m)
{
    m->n_out = 2;
    m->out[0] = m->out[1] = 0xff;
}

static moe_status too_long(size_t n, moe_error *err)
{
    if (n == MEET_REFUSED) {
        return moe_fail(err, MOE_ERR_DENIED, "the other end does not accept our proof of the cluster secret");
    }
    return moe_fail(err, MOE_ERR_CORRUPT, "address of %zu bytes, limit %d", n, MEET_MAX_ADDRESS);
}

moe_status meet_receive(meet *m, const unsigned char *bytes, size_t n, size_t *n_used, moe_error *err)
{
    moe_status status = MOE_OK;

    *n_used = 0;
    for (size_t want = wanted(m); want > 0 && status == MOE_OK && *n_used < n; want = wanted(m)) {
        size_t take = MOE_MIN(want - m->n_in, n - *n_used);

        memcpy(m->in + m->n_in, bytes + *n_used, take);
        m->n_in += take;
        *n_used += take;
        want = wanted(m);
        if (want > sizeof m->in) {
            status = too_long(want - 2 - MEET_MAC, err);
        } else if (m->n_in == want) {
            status = m->stage == MEET_NONCES ? take_nonce(m, err) : take_address(m, err);
            m->n_in = 0;
        }
    }
    return status;
}
