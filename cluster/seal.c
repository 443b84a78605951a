/* Seal: the MAC that every record ends with where the cluster has a secret.
 *
 *   {"v":1,...,"mac":"<64 hex digits>"}
 *
 * HMAC-SHA-256 under a key derived from the secret, over the cluster's name, a NUL, the key's name without the prefix, a
 * NUL, and the bytes of the value without the mac: {"v":1,...}. So the seal holds for the bytes as they were written, and
 * a record is of no use under another key or in another cluster. docs/etcd.md says what an old one can do under its own. */
#include "cluster/cluster_priv.h"

#include <string.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#define MAC_BYTES  32
#define TAIL_BEGIN ",\"mac\":\""
#define TAIL_BYTES (sizeof TAIL_BEGIN - 1 + 2 * MAC_BYTES + 2) /* with "} at its end */

moe_status cluster_seal_init(cluster_seal *s, const char *name, const void *secret, size_t n)
{
    static const char purpose[] = "conclave record 1 key";
    unsigned int n_out = 0;

    *s = (cluster_seal){.present = n > 0};
    (void)snprintf(s->cluster, sizeof s->cluster, "%s", name);
    if (n == 0) {
        return MOE_OK;
    }
    if (n > INT32_MAX) {
        return MOE_ERR_INVALID_ARG;
    }
    return HMAC(EVP_sha256(), secret, (int)n, (const unsigned char *)purpose, sizeof purpose - 1, s->key, &n_out) !=
                       NULL &&
                   n_out == sizeof s->key
               ? MOE_OK
               : MOE_ERR_INTERNAL;
}

void cluster_seal_fini(cluster_seal *s)
{
    OPENSSL_cleanse(s, sizeof *s);
}

/* Of a value without its mac; n bytes, the last of them the closing brace, which is not read. */
static bool compute(const cluster_seal *s, const char *key, const char *value, size_t n, unsigned char mac[MAC_BYTES])
{
    unsigned int n_out = 0;
    moe_text t;

    moe_text_init(&t, SIZE_MAX - 1);
    moe_text_append(&t, s->cluster, strlen(s->cluster) + 1);
    moe_text_append(&t, key, strlen(key) + 1);
    moe_text_append(&t, value, n - 1);
    moe_text_append(&t, "}", 1);
    bool ok = !t.failed &&
              HMAC(EVP_sha256(), s->key, sizeof s->key, (const unsigned char *)t.data, t.size, mac, &n_out) != NULL &&
              n_out == MAC_BYTES;
    moe_text_fini(&t);
    return ok;
}

static void print(const unsigned char mac[MAC_BYTES], char hex[2 * MAC_BYTES])
{
    for (size_t i = 0; i < MAC_BYTES; i++) {
        hex[2 * i] = "0123456789abcdef"[mac[i] >> 4];
        hex[2 * i + 1] = "0123456789abcdef"[mac[i] & 15];
    }
}

void cluster_seal_write(const cluster_seal *s, const char *key, moe_text *record)
{
    unsigned char mac[MAC_BYTES];
    char hex[2 * MAC_BYTES];

    if (!s->present || record->failed) {
        return;
    }
    MOE_ASSERT(record->size > 1 && record->data[record->size - 1] == '}');
    if (!compute(s, key, record->data, record->size, mac)) {
        record->failed = true;
        return;
    }
    print(mac, hex);
    record->size--;
    moe_text_append(record, TAIL_BEGIN, sizeof TAIL_BEGIN - 1);
    moe_text_append(record, hex, sizeof hex);
    moe_text_append(record, "\"}", 2);
}

const char *cluster_seal_find(const char *value, size_t n)
{
    const char *tail = n > TAIL_BYTES ? value + n - TAIL_BYTES : NULL;

    return tail != NULL && memcmp(tail, TAIL_BEGIN, sizeof TAIL_BEGIN - 1) == 0 && memcmp(value + n - 2, "\"}", 2) == 0
               ? tail
               : NULL;
}

bool cluster_seal_is_there(const char *value, size_t n)
{
    return cluster_seal_find(value, n) != NULL;
}

bool cluster_seal_holds(const cluster_seal *s, const char *key, const char *value, size_t n)
{
    const char *tail = cluster_seal_find(value, n);
    unsigned char mac[MAC_BYTES];
    char hex[2 * MAC_BYTES];

    if (tail == NULL || !compute(s, key, value, (size_t)(tail - value) + 1, mac)) {
        return false;
    }
    print(mac, hex);
    return CRYPTO_memcmp(hex, tail + sizeof TAIL_BEGIN - 1, sizeof hex) == 0;
}
