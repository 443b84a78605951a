/* Whose pack it is: Ed25519 over the bytes of pack.json. */
#include "pack/pack_priv.h"

#include <stdio.h>

#include <openssl/evp.h>
#include <openssl/pem.h>

static moe_status load_key(const char *path, EVP_PKEY **out, moe_error *err)
{
    FILE *f = fopen(path, "re");

    if (f == NULL) {
        return moe_fail(err, MOE_ERR_NOT_FOUND, "%s: cannot be read", path);
    }
    EVP_PKEY *key = PEM_read_PUBKEY(f, NULL, NULL, NULL);
    (void)fclose(f);
    if (key == NULL || EVP_PKEY_id(key) != EVP_PKEY_ED25519) {
        EVP_PKEY_free(key);
        return moe_fail(err, MOE_ERR_INVALID_ARG, "%s: must be an Ed25519 public key in PEM", path);
    }
    *out = key;
    return MOE_OK;
}

moe_status pack_check_signature(const char *key_file, const void *signature, size_t n_signature, const void *manifest,
                                size_t n, moe_error *err)
{
    EVP_PKEY *key = NULL;
    moe_status status = load_key(key_file, &key, err);

    if (status != MOE_OK) {
        return status;
    }
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool holds = n_signature == PACK_SIGNATURE_SIZE && ctx != NULL &&
                 EVP_DigestVerifyInit(ctx, NULL, NULL, NULL, key) == 1 &&
                 EVP_DigestVerify(ctx, signature, n_signature, manifest, n) == 1;
    EVP_MD_CTX_free(ctx);
    EVP_PKEY_free(key);
    return holds ? MOE_OK
                 : moe_fail(err, MOE_ERR_DENIED, "pack.sig: is not the signature of pack.json by %s", key_file);
}
