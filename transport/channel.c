/* TLS over buffers: OpenSSL reads and writes through a BIO of ours. */
#include "transport/channel_priv.h"

#include <stdlib.h>
#include <string.h>

#include <openssl/err.h>
#include <openssl/hmac.h>
#include <openssl/ssl.h>

/* Chosen, not measured, but for OUT_BYTES and IN_BYTES: a frame of 64 KB leaves with one system call and comes with two.
 *
 *   RECORD_EXTRA    header, content type, tag; a handshake message or an alert may go out beside a record
 *   REKEY_RECORDS   AES-GCM keeps its margin for 2^24.5 full records (RFC 8446 sec. 5.5); a quarter of that */
#define OUT_BYTES     ((size_t)256 << 10)
#define IN_BYTES      ((size_t)256 << 10)
#define RECORD_EXTRA  1024
#define REKEY_RECORDS (1u << 22)
#define IDENTITY      "conclave 1"
#define ALERT         21 /* content type of a TLS record */
#define MAX_PROTOCOL  32

struct channel_key {
    SSL_CTX *context;
    BIO_METHOD *method;
    unsigned char bytes[32];
    unsigned char protocol[1 + MAX_PROTOCOL]; /* behind its length, as ALPN has it; 0: none */
};

struct channel {
    SSL *ssl;
    unsigned char *in, *out; /* owned [IN_BYTES], [OUT_BYTES] */
    size_t in_at, n_in, out_at, n_out;
    bool caller, done; /* done: the handshake */
    uint32_t n_records;
};

/* ------------------------------------------------------------------------------------------------ buffers */
static void make_room(unsigned char *bytes, size_t *at, size_t *n)
{
    if (*at > 0) {
        memmove(bytes, bytes + *at, *n - *at);
        *n -= *at;
        *at = 0;
    }
}

unsigned char *channel_in(channel *c, size_t *n_out)
{
    if (c->in_at == c->n_in || c->n_in == IN_BYTES) {
        make_room(c->in, &c->in_at, &c->n_in);
    }
    *n_out = IN_BYTES - c->n_in;
    return c->in + c->n_in;
}

void channel_received(channel *c, size_t n)
{
    MOE_ASSERT(n <= IN_BYTES - c->n_in);
    c->n_in += n;
}

const unsigned char *channel_out(const channel *c, size_t *n_out)
{
    *n_out = c->n_out - c->out_at;
    return c->out + c->out_at;
}

void channel_sent(channel *c, size_t n)
{
    MOE_ASSERT(n <= c->n_out - c->out_at);
    c->out_at += n;
    if (c->out_at == c->n_out) {
        c->out_at = c->n_out = 0;
    }
}

/* ------------------------------------------------------------------------------------------------ BIO */
static int bio_read(BIO *bio, char *to, int n)
{
    channel *c = BIO_get_data(bio);
    size_t take = MOE_MIN((size_t)n, c->n_in - c->in_at);

    BIO_clear_retry_flags(bio);
    if (take == 0) {
        BIO_set_retry_read(bio);
        return -1;
    }
    memcpy(to, c->in + c->in_at, take);
    c->in_at += take;
    return (int)take;
}

static int bio_write(BIO *bio, const char *from, int n)
{
    channel *c = BIO_get_data(bio);

    BIO_clear_retry_flags(bio);
    /* A stranger is told nothing: neither an alert, nor anything that OpenSSL would say before it has found the key. */
    if (!c->done && !c->caller && (SSL_session_reused(c->ssl) != 1 || (n > 0 && from[0] == ALERT))) {
        return n;
    }
    if ((size_t)n > OUT_BYTES - c->n_out) {
        make_room(c->out, &c->out_at, &c->n_out);
    }
    if ((size_t)n > OUT_BYTES - c->n_out) {
        BIO_set_retry_write(bio);
        return -1;
    }
    memcpy(c->out + c->n_out, from, (size_t)n);
    c->n_out += (size_t)n;
    return n;
}

static long bio_ctrl(BIO *bio, int command, long number, void *pointer)
{
    (void)bio, (void)number, (void)pointer;
    return command == BIO_CTRL_FLUSH;
}

static BIO_METHOD *method_new(void)
{
    BIO_METHOD *m = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "conclave channel");

    if (m != NULL && (BIO_meth_set_read(m, bio_read) != 1 || BIO_meth_set_write(m, bio_write) != 1 ||
                      BIO_meth_set_ctrl(m, bio_ctrl) != 1)) {
        BIO_meth_free(m);
        m = NULL;
    }
    return m;
}

/* ------------------------------------------------------------------------------------------------ key */
static const channel_key *key_of(const SSL *ssl)
{
    return SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
}

/* The key as a session, which is how OpenSSL takes a pre-shared key of TLS 1.3. NULL: out of memory. */
static SSL_SESSION *session_new(SSL *ssl)
{
    static const unsigned char aes_128_gcm_sha256[] = {0x13, 0x01};
    const SSL_CIPHER *cipher = SSL_CIPHER_find(ssl, aes_128_gcm_sha256);
    SSL_SESSION *s = SSL_SESSION_new();

    if (s != NULL && (cipher == NULL || SSL_SESSION_set_cipher(s, cipher) != 1 ||
                      SSL_SESSION_set1_master_key(s, key_of(ssl)->bytes, sizeof key_of(ssl)->bytes) != 1 ||
                      SSL_SESSION_set_protocol_version(s, TLS1_3_VERSION) != 1)) {
        SSL_SESSION_free(s);
        s = NULL;
    }
    return s;
}

static int offer_key(SSL *ssl, const EVP_MD *digest, const unsigned char **id, size_t *n_id, SSL_SESSION **out)
{
    (void)digest; /* the one cipher has one digest */
    *id = (const unsigned char *)IDENTITY;
    *n_id = sizeof IDENTITY - 1;
    *out = session_new(ssl);
    return *out != NULL;
}

static int find_key(SSL *ssl, const unsigned char *id, size_t n_id, SSL_SESSION **out)
{
    bool known = n_id == sizeof IDENTITY - 1 && memcmp(id, IDENTITY, n_id) == 0;

    *out = known ? session_new(ssl) : NULL;
    return *out != NULL; /* 0 ends the handshake: without a key there is nothing to go on with */
}

/* OpenSSL would answer a first message without a key share with a request for one. A stranger is to hear nothing. */
static int require_key(SSL *ssl, int *alert, void *arg)
{
    const unsigned char *bytes;
    size_t n;

    (void)arg;
    *alert = SSL_AD_HANDSHAKE_FAILURE;
    return SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_psk, &bytes, &n) == 1 ? SSL_CLIENT_HELLO_SUCCESS
                                                                            : SSL_CLIENT_HELLO_ERROR;
}

static bool configure(SSL_CTX *context)
{
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    (void)SSL_CTX_set_options(context, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
    SSL_CTX_set_client_hello_cb(context, require_key, NULL);
    SSL_CTX_set_psk_use_session_callback(context, offer_key);
    SSL_CTX_set_psk_find_session_callback(context, find_key);
    return SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) == 1 &&
           SSL_CTX_set_max_proto_version(context, TLS1_3_VERSION) == 1 &&
           SSL_CTX_set_ciphersuites(context, "TLS_AES_128_GCM_SHA256") == 1 &&
           SSL_CTX_set1_groups_list(context, "X25519") == 1 && SSL_CTX_set_num_tickets(context, 0) == 1 &&
           SSL_CTX_set_max_early_data(context, 0) == 1;
}

moe_status channel_key_open(const void *secret, size_t n, channel_key **out, moe_error *err)
{
    static const char purpose[] = "conclave channel 1 key";
    channel_key *key = calloc(1, sizeof *key);
    unsigned int n_bytes = 0;

    if (key == NULL || n > INT32_MAX) {
        free(key);
        return moe_fail(err, MOE_ERR_NO_MEMORY, "tls: out of memory");
    }
    key->method = method_new();
    key->context = SSL_CTX_new(TLS_method());
    if (key->method == NULL || key->context == NULL || !configure(key->context) ||
        HMAC(EVP_sha256(), n > 0 ? secret : "", (int)n, (const unsigned char *)purpose, sizeof purpose - 1, key->bytes,
             &n_bytes) == NULL ||
        n_bytes != sizeof key->bytes) {
        channel_key_close(key);
        return moe_fail(err, MOE_ERR_UNSUPPORTED, "tls: OpenSSL does not offer TLS 1.3 with AES-128-GCM and X25519");
    }
    SSL_CTX_set_app_data(key->context, key);
    *out = key;
    return MOE_OK;
}

void channel_key_close(channel_key *key)
{
    if (key != NULL) {
        SSL_CTX_free(key->context);
        BIO_meth_free(key->method);
        OPENSSL_cleanse(key->bytes, sizeof key->bytes);
        free(key);
    }
}

static int choose_protocol(SSL *ssl, const unsigned char **out, unsigned char *n_out, const unsigned char *offered,
                           unsigned int n_offered, void *arg)
{
    const unsigned char *own = key_of(ssl)->protocol;

    (void)arg;
    for (unsigned int i = 0; i + own[0] < n_offered; i += 1u + offered[i]) {
        if (offered[i] == own[0] && memcmp(offered + i + 1, own + 1, own[0]) == 0) {
            *out = own + 1;
            *n_out = own[0];
            return SSL_TLSEXT_ERR_OK;
        }
    }
    return SSL_TLSEXT_ERR_NOACK; /* none of them; the handshake goes on */
}

moe_status channel_key_offer(channel_key *key, const char *protocol)
{
    size_t n = strlen(protocol);

    MOE_ASSERT(n >= 1 && n <= MAX_PROTOCOL);
    key->protocol[0] = (unsigned char)n;
    memcpy(key->protocol + 1, protocol, n);
    SSL_CTX_set_alpn_select_cb(key->context, choose_protocol, NULL);
    return SSL_CTX_set_alpn_protos(key->context, key->protocol, (unsigned)n + 1) == 0 ? MOE_OK : MOE_ERR_NO_MEMORY;
}

/* ------------------------------------------------------------------------------------------------ channel */
moe_status channel_open(const channel_key *key, bool caller, channel **out)
{
    channel *c = calloc(1, sizeof *c);
    BIO *bio;

    if (c == NULL) {
        return MOE_ERR_NO_MEMORY;
    }
    c->caller = caller;
    c->in = moe_pages_alloc(IN_BYTES);
    c->out = moe_pages_alloc(OUT_BYTES);
    c->ssl = SSL_new(key->context);
    bio = BIO_new(key->method);
    if (c->in == NULL || c->out == NULL || c->ssl == NULL || bio == NULL) {
        BIO_free(bio);
        channel_close(c);
        return MOE_ERR_NO_MEMORY;
    }
    BIO_set_data(bio, c);
    BIO_set_init(bio, 1);
    SSL_set_bio(c->ssl, bio, bio); /* owns it */
    if (caller) {
        /* A certificate is never right: there is no authority that it could be of. */
        SSL_set_verify(c->ssl, SSL_VERIFY_PEER, NULL);
        SSL_set_connect_state(c->ssl);
    } else {
        SSL_set_accept_state(c->ssl);
    }
    *out = c;
    return MOE_OK;
}

void channel_close(channel *c)
{
    if (c == NULL) {
        return;
    }
    SSL_free(c->ssl);
    if (c->in != NULL) {
        explicit_bzero(c->in, c->n_in); /* what was decrypted lies elsewhere; what is here may still be read */
    }
    moe_pages_free(c->in, IN_BYTES);
    moe_pages_free(c->out, OUT_BYTES);
    free(c);
}

/* Why a call of OpenSSL failed; the queue of the thread is empty afterwards. */
static moe_status fail_ssl(moe_error *err, moe_status status, const char *what)
{
    unsigned long code = ERR_peek_last_error();
    const char *reason = code == 0 ? NULL : ERR_reason_error_string(code);

    ERR_clear_error();
    return moe_fail(err, status, "%s: %s", what, reason == NULL ? "no reason given" : reason);
}

/* Before each call: OpenSSL takes what another call has left in the thread's queue for the failure of this one. */
static void clear_errors(void)
{
    if (ERR_peek_error() != 0) { /* to clear an empty queue takes longer than to look */
        ERR_clear_error();
    }
}

moe_status channel_handshake(channel *c, moe_error *err)
{
    if (c->done) {
        return MOE_OK;
    }
    clear_errors();
    int result = SSL_do_handshake(c->ssl);

    if (result != 1) {
        int why = SSL_get_error(c->ssl, result);

        return why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE
                   ? MOE_ERR_BUSY
                   : fail_ssl(err, MOE_ERR_DENIED, "no proof of the cluster secret");
    }
    if (SSL_session_reused(c->ssl) != 1) { /* not by the key */
        return moe_fail(err, MOE_ERR_DENIED, "the other end did not use the key of the cluster secret");
    }
    c->done = true;
    return MOE_OK;
}

bool channel_agreed(const channel *c)
{
    const unsigned char *protocol;
    unsigned int n;

    SSL_get0_alpn_selected(c->ssl, &protocol, &n);
    return n > 0; /* there is but one */
}

moe_status channel_export(channel *c, const char *label, unsigned char *out, size_t n)
{
    clear_errors();
    return SSL_export_keying_material(c->ssl, out, n, label, strlen(label), NULL, 0, 0) == 1 ? MOE_OK
                                                                                             : MOE_ERR_INTERNAL;
}

moe_status channel_read(channel *c, void *bytes, size_t n, size_t *n_out, moe_error *err)
{
    *n_out = 0;
    if (n == 0 || (c->in_at == c->n_in &&
                   SSL_pending(c->ssl) == 0)) { /* nothing has come: to find that out takes OpenSSL longer */
        return MOE_OK;
    }
    clear_errors();
    if (SSL_read_ex(c->ssl, bytes, n, n_out) == 1) {
        return MOE_OK;
    }
    switch (SSL_get_error(c->ssl, 0)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
        return MOE_OK;
    case SSL_ERROR_ZERO_RETURN:
        return moe_fail(err, MOE_ERR_CANCELLED, "closed by the other end");
    default:
        return fail_ssl(err, MOE_ERR_CORRUPT, "bytes that are not the other end's");
    }
}

moe_status channel_write(channel *c, const void *bytes, size_t n)
{
    size_t written = 0;

    MOE_ASSERT(c->done && n >= 1 && n <= CHANNEL_RECORD);
    if (OUT_BYTES - (c->n_out - c->out_at) < n + RECORD_EXTRA) {
        return MOE_ERR_BUSY;
    }
    if (++c->n_records % REKEY_RECORDS == 0) {
        (void)SSL_key_update(c->ssl, SSL_KEY_UPDATE_NOT_REQUESTED);
    }
    clear_errors();
    return SSL_write_ex(c->ssl, bytes, n, &written) == 1 && written == n ? MOE_OK : MOE_ERR_INTERNAL;
}
