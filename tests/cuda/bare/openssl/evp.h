/* What the way of a token uses of libcrypto: SHA-256 and random bytes. HMAC ends the process: there is no secret here. */
#ifndef CONCLAVE_TESTS_CUDA_BARE_EVP_H
#define CONCLAVE_TESTS_CUDA_BARE_EVP_H

#include <stddef.h>

typedef struct EVP_MD_CTX EVP_MD_CTX;
typedef struct EVP_MD EVP_MD;

const EVP_MD *EVP_sha256(void);
EVP_MD_CTX *EVP_MD_CTX_new(void);
void EVP_MD_CTX_free(EVP_MD_CTX *c);
int EVP_DigestInit_ex(EVP_MD_CTX *c, const EVP_MD *kind, void *engine);
int EVP_DigestUpdate(EVP_MD_CTX *c, const void *bytes, size_t n);
int EVP_DigestFinal_ex(EVP_MD_CTX *c, unsigned char out[32], unsigned *n_out);

unsigned char *HMAC(const EVP_MD *kind, const void *key, int key_bytes, const void *data, size_t n, unsigned char *out,
                    unsigned *n_out);
int RAND_bytes(unsigned char *out, int n);
void OPENSSL_cleanse(void *p, size_t n);
int CRYPTO_memcmp(const void *a, const void *b, size_t n);

#endif
