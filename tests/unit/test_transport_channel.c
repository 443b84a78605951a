/* TLS over bytes in memory: two channels and what is carried between them. */
#include "tests/support/support.h"
#include "transport/channel_priv.h"

#include <stdlib.h>
#include <string.h>

#include <openssl/ssl.h>

typedef struct pair {
    channel_key *key[2]; /* of the caller, of the one called */
    channel *end[2];
} pair;

static void open_pair(pair *p, const char *caller_secret, const char *called_secret)
{
    const char *secrets[] = {caller_secret, called_secret};
    moe_error err;

    for (int i = 0; i < 2; i++) {
        assert_ok(channel_key_open(secrets[i], strlen(secrets[i]), &p->key[i], &err), err);
        assert_int_equal(channel_open(p->key[i], i == 0, &p->end[i]), MOE_OK);
    }
}

static void close_pair(pair *p)
{
    for (int i = 0; i < 2; i++) {
        channel_close(p->end[i]);
        channel_key_close(p->key[i]);
    }
}

/* Carries what `from` has to say, at most `most` bytes; returns how many. */
static size_t carry(channel *from, channel *to, size_t most)
{
    size_t n, room;
    const unsigned char *bytes = channel_out(from, &n);
    unsigned char *in = channel_in(to, &room);

    n = MOE_MIN(MOE_MIN(n, room), most);
    memcpy(in, bytes, n);
    channel_sent(from, n);
    channel_received(to, n);
    return n;
}

/* Shakes hands, a few bytes at a time. The status of the first end that fails, else OK. */
static moe_status shake(pair *p, size_t step, moe_error *err)
{
    moe_status status[2] = {MOE_ERR_BUSY, MOE_ERR_BUSY};

    for (int round = 0; round < 100000; round++) {
        size_t moved = 0;

        for (int i = 0; i < 2; i++) {
            status[i] = channel_handshake(p->end[i], err);
            if (status[i] != MOE_OK && status[i] != MOE_ERR_BUSY) {
                return status[i];
            }
            moved += carry(p->end[i], p->end[1 - i], step);
        }
        if (status[0] == MOE_OK && status[1] == MOE_OK && moved == 0) {
            return MOE_OK;
        }
    }
    return MOE_ERR_TIMEOUT;
}

static void read_all(channel *c, unsigned char *to, size_t n)
{
    moe_error err;

    for (size_t at = 0, got = 1; at < n; at += got) {
        assert_ok(channel_read(c, to + at, n - at, &got, &err), err);
        assert_true(got > 0);
    }
}

static void a_protocol_comes_about_where_both_ends_would(void **state)
{
    static const char *const offers[][2] = {{"one", "one"}, {"one", "two"}, {"one", NULL}, {NULL, "one"}, {NULL, NULL}};
    unsigned char exported[2][32];
    moe_error err;

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(offers); i++) {
        pair p;

        open_pair(&p, "a secret", "a secret");
        for (int end = 0; end < 2; end++) {
            channel_close(p.end[end]);
            assert_true(offers[i][end] == NULL || channel_key_offer(p.key[end], offers[i][end]) == MOE_OK);
            assert_int_equal(channel_open(p.key[end], end == 0, &p.end[end]), MOE_OK);
        }
        assert_ok(shake(&p, 1 << 20, &err), err);
        for (int end = 0; end < 2; end++) {
            assert_int_equal(channel_agreed(p.end[end]), i == 0);
            assert_int_equal(channel_export(p.end[end], "EXPORTER-a test", exported[end], 32), MOE_OK);
        }
        assert_memory_equal(exported[0], exported[1], 32);
        assert_int_equal(channel_export(p.end[0], "EXPORTER-another", exported[0], 32), MOE_OK);
        assert_memory_not_equal(exported[0], exported[1], 32);
        close_pair(&p);
    }
}

static void ends_with_the_same_secret_talk_both_ways(void **state)
{
    static const size_t steps[] = {1, 7, 1000, SIZE_MAX};

    (void)state;
    for (size_t s = 0; s < MOE_COUNT(steps); s++) {
        pair p;
        moe_error err;
        unsigned char got[5];

        open_pair(&p, "secret", "secret");
        assert_ok(shake(&p, steps[s], &err), err);
        for (int i = 0; i < 2; i++) {
            assert_int_equal(channel_write(p.end[i], "hello", 5), MOE_OK);
            while (carry(p.end[i], p.end[1 - i], steps[s]) > 0) {
            }
            read_all(p.end[1 - i], got, 5);
            assert_memory_equal(got, "hello", 5);
        }
        close_pair(&p);
    }
}

static void many_records_arrive_whole(void **state)
{
    pair p;
    moe_error err;
    static unsigned char sent[CHANNEL_RECORD], got[CHANNEL_RECORD];

    (void)state;
    open_pair(&p, "", "");
    assert_ok(shake(&p, SIZE_MAX, &err), err);
    for (size_t i = 0; i < 200; i++) {
        size_t n = 1 + i * 977 % CHANNEL_RECORD;

        memset(sent, (int)i, n);
        assert_int_equal(channel_write(p.end[0], sent, n), MOE_OK);
        (void)carry(p.end[0], p.end[1], SIZE_MAX);
        read_all(p.end[1], got, n);
        assert_memory_equal(sent, got, n);
    }
    close_pair(&p);
}

static void a_channel_that_is_not_emptied_is_busy(void **state)
{
    pair p;
    moe_error err;
    static unsigned char bytes[CHANNEL_RECORD];
    int n = 0;

    (void)state;
    open_pair(&p, "", "");
    assert_ok(shake(&p, SIZE_MAX, &err), err);
    while (channel_write(p.end[0], bytes, sizeof bytes) == MOE_OK) {
        n++;
    }
    assert_true(n >= 4 && n < 100);
    (void)carry(p.end[0], p.end[1], SIZE_MAX);
    assert_int_equal(channel_write(p.end[0], bytes, sizeof bytes), MOE_OK);
    close_pair(&p);
}

/* Everything that the called end says until it gives up. */
static size_t said_to(const unsigned char *bytes, size_t n, moe_status *status_out)
{
    pair p;
    moe_error err;
    size_t room, said;
    unsigned char *in;

    open_pair(&p, "secret", "secret");
    in = channel_in(p.end[1], &room);
    memcpy(in, bytes, n);
    channel_received(p.end[1], n);
    *status_out = channel_handshake(p.end[1], &err);
    (void)channel_out(p.end[1], &said);
    close_pair(&p);
    return said;
}

static void another_secret_is_denied_without_a_word(void **state)
{
    pair p;
    moe_error err;
    size_t n, said;
    moe_status status;

    (void)state;
    open_pair(&p, "other", "secret");
    assert_int_equal(channel_handshake(p.end[0], &err), MOE_ERR_BUSY);
    const unsigned char *hello = channel_out(p.end[0], &n);
    said = said_to(hello, n, &status);
    assert_int_equal(status, MOE_ERR_DENIED);
    assert_int_equal(said, 0);
    close_pair(&p);
}

/* First messages of TLS clients that are no members: none is answered, not by an alert and not by a request to go on. */
static void strangers_hear_nothing(void **state)
{
    static const char *const groups[] = {"X25519", "P-256"};

    (void)state;
    for (size_t g = 0; g < MOE_COUNT(groups); g++) {
        SSL_CTX *context = SSL_CTX_new(TLS_client_method());
        BIO *in = BIO_new(BIO_s_mem()), *out = BIO_new(BIO_s_mem());
        unsigned char hello[4096];
        moe_status status;

        assert_non_null(context);
        assert_int_equal(SSL_CTX_set1_groups_list(context, g == 0 ? "X25519" : "P-256:X25519"), 1);
        SSL *ssl = SSL_new(context);
        SSL_set_bio(ssl, in, out);
        assert_int_equal(SSL_connect(ssl), -1);
        int n = BIO_read(out, hello, sizeof hello);
        assert_true(n > 100);
        assert_int_equal(said_to(hello, (size_t)n, &status), 0);
        assert_int_equal(status, MOE_ERR_DENIED);
        SSL_free(ssl);
        SSL_CTX_free(context);
    }
}

static void noise_hears_nothing(void **state)
{
    moe_random r;

    (void)state;
    moe_random_seed(&r, 1);
    for (int i = 0; i < 500; i++) {
        unsigned char bytes[600];
        size_t n = 1 + moe_random_below(&r, sizeof bytes);
        moe_status status;

        for (size_t j = 0; j < n; j++) {
            bytes[j] = (unsigned char)moe_random_u64(&r);
        }
        if (i % 2 == 0) { /* as a record of a handshake */
            memcpy(bytes, (unsigned char[]){22, 3, 1, 0, (unsigned char)moe_random_u64(&r)}, MOE_MIN(n, 5));
        }
        assert_int_equal(said_to(bytes, n, &status), 0);
        assert_true(status == MOE_ERR_DENIED || status == MOE_ERR_BUSY);
    }
}

/* A bit of a member's traffic is changed on the way: the reader notices, wherever it is. */
static void what_was_changed_on_the_way_is_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < 60; i++) {
        pair p;
        moe_error err;
        size_t n, room, got;
        unsigned char to[64];

        open_pair(&p, "secret", "secret");
        assert_ok(shake(&p, SIZE_MAX, &err), err);
        assert_int_equal(channel_write(p.end[0], "0123456789012345678901234567890123456789", 40), MOE_OK);
        const unsigned char *bytes = channel_out(p.end[0], &n);
        unsigned char *in = channel_in(p.end[1], &room);
        memcpy(in, bytes, n);
        in[5 + i % (n - 5)] ^= (unsigned char)(1 << i % 8); /* behind the header of the record */
        channel_received(p.end[1], n);
        assert_int_equal(channel_read(p.end[1], to, sizeof to, &got, &err), MOE_ERR_CORRUPT);
        close_pair(&p);
    }
}

/* A server with a certificate and no key: whoever took over an address. */
static void a_server_with_a_certificate_is_refused(void **state)
{
    pair p;
    moe_error err;
    size_t n, room;
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    EVP_PKEY *pkey = EVP_EC_gen("P-256");
    X509 *certificate = X509_new();
    BIO *in = BIO_new(BIO_s_mem()), *out = BIO_new(BIO_s_mem());
    unsigned char *to;
    moe_status status = MOE_ERR_BUSY;

    (void)state;
    assert_true(X509_set_version(certificate, 2) == 1 && X509_set_pubkey(certificate, pkey) == 1 &&
                X509_gmtime_adj(X509_getm_notBefore(certificate), 0) != NULL &&
                X509_gmtime_adj(X509_getm_notAfter(certificate), 1000) != NULL &&
                X509_sign(certificate, pkey, EVP_sha256()) > 0);
    assert_true(SSL_CTX_use_certificate(context, certificate) == 1 && SSL_CTX_use_PrivateKey(context, pkey) == 1);
    SSL *ssl = SSL_new(context);
    SSL_set_bio(ssl, in, out);
    open_pair(&p, "secret", "secret");
    for (int i = 0; i < 20 && status == MOE_ERR_BUSY; i++) {
        status = channel_handshake(p.end[0], &err);
        const unsigned char *bytes = channel_out(p.end[0], &n);
        (void)BIO_write(in, bytes, (int)n);
        channel_sent(p.end[0], n);
        (void)SSL_accept(ssl);
        to = channel_in(p.end[0], &room);
        int got = BIO_read(out, to, (int)room);
        channel_received(p.end[0], got > 0 ? (size_t)got : 0);
    }
    assert_int_equal(status, MOE_ERR_DENIED);
    close_pair(&p);
    SSL_free(ssl);
    SSL_CTX_free(context);
    X509_free(certificate);
    EVP_PKEY_free(pkey);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_protocol_comes_about_where_both_ends_would),
        cmocka_unit_test(ends_with_the_same_secret_talk_both_ways),
        cmocka_unit_test(many_records_arrive_whole),
        cmocka_unit_test(a_channel_that_is_not_emptied_is_busy),
        cmocka_unit_test(another_secret_is_denied_without_a_word),
        cmocka_unit_test(strangers_hear_nothing),
        cmocka_unit_test(noise_hears_nothing),
        cmocka_unit_test(what_was_changed_on_the_way_is_refused),
        cmocka_unit_test(a_server_with_a_certificate_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
