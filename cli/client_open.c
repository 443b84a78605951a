/* The opening half of client.h: whom to call, and what to show them. */
#include "cli/client_priv.h"

#include <grpc/grpc_security.h>
#include <stdlib.h>
#include <string.h>

#define UNIX_SCHEME "unix:"

enum {
    KEEPALIVE_MS = 30000, /* a server of ours takes a ping every 10 s */
    KEEPALIVE_TIMEOUT_MS = 10000,
    PEM_MAX_BYTES = 1 << 20,
    TOKEN_MAX_BYTES = 16384,
};

static bool is_set(const char *text)
{
    return text != NULL && *text != '\0';
}

static moe_status read_text(const char *flag, const char *path, size_t max_bytes, char **out, moe_error *err)
{
    size_t n;

    *out = NULL;
    return is_set(path) ? moe_file_read_named(flag, path, max_bytes, out, &n, err) : MOE_OK;
}

static moe_status read_pem(const char *flag, const char *path, char **out, moe_error *err)
{
    moe_status status = read_text(flag, path, PEM_MAX_BYTES, out, err);

    if (status == MOE_OK && *out != NULL && strstr(*out, "-----BEGIN ") == NULL) {
        status = moe_fail(err, MOE_ERR_INVALID_ARG, "%s %s: not a PEM file: no \"-----BEGIN\" in it", flag, path);
    }
    return status;
}

/* The server's file says behind a token which sets it is bound to: "TOKEN sets=a,b". */
static size_t without_sets(const char *line, size_t n)
{
    size_t end = 0, rest;

    while (end < n && line[end] != ' ' && line[end] != '\t') {
        end++;
    }
    for (rest = end; rest < n && (line[rest] == ' ' || line[rest] == '\t'); rest++) {
    }
    return n - rest > 5 && strncmp(line + rest, "sets=", 5) == 0 ? end : n;
}

/* The first line that says something. What HTTP/2 could not carry is refused here. */
static moe_status find_token(const char *text, const char *path, const char **token_out, size_t *n_out, moe_error *err)
{
    const char *at = text;
    size_t line_no = 0;

    if (!moe_file_next_line(&at, text + strlen(text), token_out, n_out, &line_no)) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "--token-file %s: no token in it", path);
    }
    *n_out = without_sets(*token_out, *n_out);
    for (size_t i = 0; i < *n_out; i++) {
        if ((*token_out)[i] <= ' ' || (*token_out)[i] > '~') {
            return moe_fail(err, MOE_ERR_INVALID_ARG,
                            "--token-file %s line %zu: a token is printable ASCII without blanks", path, line_no);
        }
    }
    return MOE_OK;
}

static moe_status read_token(cli_client *client, const char *path, moe_error *err)
{
    static const char scheme[] = "Bearer ";
    const char *token;
    char *text;
    size_t n;
    moe_status status = read_text("--token-file", path, TOKEN_MAX_BYTES, &text, err);

    if (status != MOE_OK || text == NULL) {
        return status;
    }
    status = find_token(text, path, &token, &n, err);
    if (status == MOE_OK) {
        client->authorization = malloc(sizeof(scheme) + n);
        if (client->authorization != NULL) {
            snprintf(client->authorization, sizeof(scheme) + n, "%s%.*s", scheme, (int)n, token);
        } else {
            status = moe_fail(err, MOE_ERR_NO_MEMORY, "token: out of memory");
        }
    }
    explicit_bzero(text, strlen(text));
    free(text);
    return status;
}

static moe_status make_tls(const cli_client_options *options, grpc_channel_credentials **out, moe_error *err)
{
    char *ca = NULL, *cert = NULL, *key = NULL;
    grpc_ssl_pem_key_cert_pair pair;
    moe_status status;

    if (is_set(options->tls_cert) != is_set(options->tls_key)) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "--tls-cert and --tls-key: one needs the other");
    }
    status = read_pem("--tls-ca", options->tls_ca, &ca, err);
    if (status == MOE_OK) {
        status = read_pem("--tls-cert", options->tls_cert, &cert, err);
    }
    if (status == MOE_OK) {
        status = read_pem("--tls-key", options->tls_key, &key, err);
    }
    if (status == MOE_OK) {
        pair = (grpc_ssl_pem_key_cert_pair){.private_key = key, .cert_chain = cert};
        *out = grpc_ssl_credentials_create_ex(ca, cert != NULL ? &pair : NULL, NULL, NULL);
        if (*out == NULL) {
            status = moe_fail(err, MOE_ERR_INVALID_ARG, "tls: the certificates were refused");
        }
    }
    free(ca);
    free(cert);
    free(key);
    return status;
}

/* Splits --server, for messages and for cli_peer_detect; a socket of this machine has no host. */
static moe_status set_target(cli_client *client, const char *server, moe_error *err)
{
    moe_status status;

    if (strncmp(server, UNIX_SCHEME, strlen(UNIX_SCHEME)) == 0) {
        client->is_unix = true;
        if (strlen(server) >= sizeof(client->target)) {
            return moe_fail(err, MOE_ERR_INVALID_ARG, "--server \"%.64s\": %zu bytes; at most %zu", server,
                            strlen(server), sizeof(client->target) - 1);
        }
        strcpy(client->target, server);
        return MOE_OK;
    }
    status = moe_address_parse("--server", server, CLI_DEFAULT_PORT, &client->address, err);
    if (status == MOE_OK && client->address.host[0] == '\0') {
        status = moe_fail(err, MOE_ERR_INVALID_ARG, "--server \"%.64s\": no host to connect to", server);
    }
    if (status == MOE_OK && client->address.port == 0) {
        status = moe_fail(err, MOE_ERR_INVALID_ARG, "--server \"%.64s\": nobody listens at port 0", server);
    }
    if (status == MOE_OK) {
        moe_address_print(&client->address, client->target);
    }
    return status;
}

static bool is_loopback(const cli_client *client)
{
    return client->is_unix || moe_address_is_loopback(&client->address);
}

static bool wants_tls(const cli_client_options *options)
{
    return options->tls || is_set(options->tls_ca) || is_set(options->tls_cert) || is_set(options->tls_key) ||
           is_set(options->tls_server_name);
}

static moe_status make_credentials(const cli_client *client, const cli_client_options *options,
                                   grpc_channel_credentials **out, moe_error *err)
{
    if (client->tls) {
        return make_tls(options, out, err);
    }
    if (is_set(options->token_file) && !is_loopback(client)) {
        MOE_WARN("the token goes to %s in plain text; --tls or --tls-ca FILE protects it", client->target);
    }
    *out = grpc_insecure_credentials_create();
    return MOE_OK;
}

static grpc_arg int_arg(char *key, int v)
{
    return (grpc_arg){.type = GRPC_ARG_INTEGER, .key = key, .value.integer = v};
}

static grpc_channel *make_channel(const cli_client *client, const cli_client_options *options,
                                  grpc_channel_credentials *credentials)
{
    /* gRPC's argument structs take char *, but do not write through it. */
    grpc_arg args[] = {
        int_arg((char *)GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, -1),
        int_arg((char *)GRPC_ARG_KEEPALIVE_TIME_MS, KEEPALIVE_MS),
        int_arg((char *)GRPC_ARG_KEEPALIVE_TIMEOUT_MS, KEEPALIVE_TIMEOUT_MS),
        int_arg((char *)GRPC_ARG_SERVICE_CONFIG_DISABLE_RESOLUTION, 1),
        /* A call that gRPC 1.51 tries again, as a server that ends has not taken it, may never end, whatever its deadline. */
        int_arg((char *)GRPC_ARG_ENABLE_RETRIES, 0),
        /* A proxy of the environment cannot reach this machine's own loopback. */
        int_arg((char *)GRPC_ARG_ENABLE_HTTP_PROXY, !is_loopback(client)),
        {.type = GRPC_ARG_STRING,
         .key = (char *)GRPC_SSL_TARGET_NAME_OVERRIDE_ARG,
         .value.string = (char *)options->tls_server_name},
    };
    grpc_channel_args list = {.num_args = MOE_COUNT(args) - !is_set(options->tls_server_name), .args = args};

    return grpc_channel_create(client->target, credentials, &list);
}

moe_status cli_client_open(const cli_client_options *options, cli_client **out, moe_error *err)
{
    grpc_channel_credentials *credentials = NULL;
    cli_client *client = calloc(1, sizeof(*client));
    moe_status status;

    if (client == NULL) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "client: out of memory");
    }
    client->timeout_s = options->timeout_s;
    client->tls = wants_tls(options);
    client->outlives_interrupts = options->outlives_interrupts;
    status = set_target(client, options->server, err);
    if (status != MOE_OK) {
        free(client);
        return status;
    }
    setenv("GRPC_VERBOSITY", "NONE", 0); /* the status says it; its log lines would say it again */
    grpc_init();
    status = read_token(client, options->token_file, err);
    if (status != MOE_OK) {
        goto err_close;
    }
    status = make_credentials(client, options, &credentials, err);
    if (status != MOE_OK) {
        goto err_close;
    }
    client->channel = make_channel(client, options, credentials);
    grpc_channel_credentials_release(credentials);
    client->cq = grpc_completion_queue_create_for_next(NULL);
    *out = client;
    return MOE_OK;

err_close:
    cli_client_close(client);
    return status;
}
