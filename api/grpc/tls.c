#include "api/grpc/tls_priv.h"

#include <openssl/bio.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define MAX_FILE_BYTES ((size_t)1 << 20)

enum { TLS_CERT, TLS_KEY, TLS_CA, TLS_N_FILES };

typedef struct tls_files {
    char *text[TLS_N_FILES]; /* owned; [TLS_CA] may be NULL */
} tls_files;

struct tls {
    char *path[TLS_N_FILES]; /* owned */
    pthread_mutex_t mutex;   /* of what follows */
    moe_file_stamp tried[TLS_N_FILES];
    bool served;      /* the first handshake configuration has been handed out */
    tls_files loaded; /* the first one, kept until it is handed out */
};

/* ------------------------------------------------------------------------------------------------ files */
static void files_fini(tls_files *f)
{
    for (size_t i = 0; i < TLS_N_FILES; i++) {
        if (f->text[i] != NULL) {
            explicit_bzero(f->text[i], strlen(f->text[i]));
            free(f->text[i]);
            f->text[i] = NULL;
        }
    }
}

static X509 *parse_certificate(const char *pem)
{
    BIO *bio = BIO_new_mem_buf(pem, -1);
    X509 *x = bio == NULL ? NULL : PEM_read_bio_X509(bio, NULL, NULL, NULL);

    BIO_free(bio);
    return x;
}

static int no_passphrase(char *buffer, int size, int writing, void *ctx)
{
    (void)buffer, (void)size, (void)writing, (void)ctx;
    return 0; /* or OpenSSL would ask on the terminal */
}

static EVP_PKEY *parse_key(const char *pem)
{
    BIO *bio = BIO_new_mem_buf(pem, -1);
    EVP_PKEY *key = bio == NULL ? NULL : PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL);

    BIO_free(bio);
    return key;
}

/* gRPC would only find out at the next handshake, and say so on every one. */
static moe_status files_check(const tls *t, const tls_files *f, moe_error *err)
{
    X509 *cert = parse_certificate(f->text[TLS_CERT]);
    X509 *ca = f->text[TLS_CA] == NULL ? NULL : parse_certificate(f->text[TLS_CA]);
    EVP_PKEY *key = parse_key(f->text[TLS_KEY]);
    moe_status status = MOE_OK;

    if (cert == NULL) {
        status = moe_fail(err, MOE_ERR_CORRUPT, "tls certificate %s: no PEM certificate in it", t->path[TLS_CERT]);
    } else if (key == NULL) {
        status = moe_fail(err, MOE_ERR_CORRUPT, "tls key %s: no PEM private key without a passphrase in it",
                          t->path[TLS_KEY]);
    } else if (X509_check_private_key(cert, key) != 1) {
        status = moe_fail(err, MOE_ERR_CORRUPT, "tls key %s is not the key of certificate %s", t->path[TLS_KEY],
                          t->path[TLS_CERT]);
    } else if (f->text[TLS_CA] != NULL && ca == NULL) {
        status = moe_fail(err, MOE_ERR_CORRUPT, "tls client authority %s: no PEM certificate in it", t->path[TLS_CA]);
    }
    X509_free(cert);
    X509_free(ca);
    EVP_PKEY_free(key);
    return status;
}

static const char *const option_of[TLS_N_FILES] = {
    [TLS_CERT] = "--tls-cert", [TLS_KEY] = "--tls-key", [TLS_CA] = "--tls-ca"};

static moe_status files_load(const tls *t, tls_files *out, moe_error *err)
{
    tls_files f = {.text = {NULL}};
    moe_status status = MOE_OK;
    size_t bytes;

    for (size_t i = 0; i < TLS_N_FILES && status == MOE_OK; i++) {
        if (t->path[i] != NULL) {
            status = moe_file_read_named(option_of[i], t->path[i], MAX_FILE_BYTES, &f.text[i], &bytes, err);
        }
    }
    if (status == MOE_OK) {
        status = files_check(t, &f, err);
    }
    if (status != MOE_OK) {
        files_fini(&f);
        return status;
    }
    *out = f;
    return MOE_OK;
}

/* ------------------------------------------------------------------------------------------------ handshakes */
static bool files_changed(tls *t)
{
    bool changed = false;

    for (size_t i = 0; i < TLS_N_FILES; i++) {
        moe_file_stamp now = moe_file_stamp_read(t->path[i]);

        changed = changed || !moe_file_stamp_equal(&now, &t->tried[i]);
        t->tried[i] = now;
    }
    return changed;
}

/* gRPC 1.51 aborts on a fetched configuration without authorities, also where no client is asked for a certificate:
 * then the server's own stands in, which is never looked at. */
static grpc_ssl_server_certificate_config *config_of(const tls_files *f)
{
    const char *authorities = f->text[TLS_CA] != NULL ? f->text[TLS_CA] : f->text[TLS_CERT];
    grpc_ssl_pem_key_cert_pair pair = {.private_key = f->text[TLS_KEY], .cert_chain = f->text[TLS_CERT]};

    return grpc_ssl_server_certificate_config_create(authorities, &pair, 1);
}

static grpc_ssl_certificate_config_reload_status fetch(tls *t, grpc_ssl_server_certificate_config **config)
{
    tls_files fresh;
    moe_error err;

    if (!t->served) {
        t->served = true;
        *config = config_of(&t->loaded);
        files_fini(&t->loaded);
        return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_NEW;
    }
    if (!files_changed(t)) {
        return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_UNCHANGED;
    }
    if (files_load(t, &fresh, &err) != MOE_OK) {
        MOE_WARN("%s; the files read before stay in force", err.text);
        return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_UNCHANGED;
    }
    *config = config_of(&fresh);
    files_fini(&fresh);
    MOE_INFO("tls files read again, certificate %s", t->path[TLS_CERT]);
    return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_NEW;
}

static grpc_ssl_certificate_config_reload_status on_handshake(void *ctx, grpc_ssl_server_certificate_config **config)
{
    tls *t = ctx;

    pthread_mutex_lock(&t->mutex);
    grpc_ssl_certificate_config_reload_status status = fetch(t, config);
    pthread_mutex_unlock(&t->mutex);
    return status;
}

/* ------------------------------------------------------------------------------------------------ open and close */
moe_status tls_open(const char *cert_path, const char *key_path, const char *ca_path, tls **out, moe_error *err)
{
    const char *paths[TLS_N_FILES] = {cert_path, key_path, ca_path};
    tls *t = calloc(1, sizeof(*t));

    if (t == NULL) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "tls: out of memory");
    }
    pthread_mutex_init(&t->mutex, NULL);
    for (size_t i = 0; i < TLS_N_FILES; i++) {
        t->path[i] = paths[i] == NULL ? NULL : strdup(paths[i]);
    }
    files_changed(t);
    moe_status status = files_load(t, &t->loaded, err);
    if (status != MOE_OK) {
        tls_close(t);
        return status;
    }
    *out = t;
    return MOE_OK;
}

void tls_close(tls *t)
{
    if (t != NULL) {
        files_fini(&t->loaded);
        for (size_t i = 0; i < TLS_N_FILES; i++) {
            free(t->path[i]);
        }
        pthread_mutex_destroy(&t->mutex);
        free(t);
    }
}

grpc_server_credentials *tls_credentials(tls *t)
{
    grpc_ssl_client_certificate_request_type clients = t->path[TLS_CA] != NULL
                                                           ? GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY
                                                           : GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE;

    return grpc_ssl_server_credentials_create_with_options(
        grpc_ssl_server_credentials_create_options_using_config_fetcher(clients, on_handshake, t));
}
