#include "api/grpc/auth_priv.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define MAX_FILE_BYTES ((size_t)64 << 10)

typedef struct auth_token {
    size_t n;
    unsigned char bytes[AUTH_MAX_TOKEN_BYTES]; /* zeroes behind n */
} auth_token;

typedef struct auth_tokens {
    size_t n;
    auth_token tokens[AUTH_MAX_TOKENS];
} auth_tokens;

struct auth {
    char *path; /* owned */
    moe_file_stamp stamp;
    auth_tokens tokens;
};

static moe_status add_token(auth_tokens *t, const char *path, size_t line_no, const char *line, size_t n,
                            moe_error *err)
{
    if (n > AUTH_MAX_TOKEN_BYTES || t->n == AUTH_MAX_TOKENS) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "token file %s line %zu: at most %d tokens of at most %d bytes", path,
                        line_no, AUTH_MAX_TOKENS, AUTH_MAX_TOKEN_BYTES);
    }
    for (size_t i = 0; i < n; i++) {
        if (line[i] <= ' ' || line[i] > '~') {
            return moe_fail(err, MOE_ERR_INVALID_ARG,
                            "token file %s line %zu: a token is printable ASCII without blanks", path, line_no);
        }
    }
    memcpy(t->tokens[t->n].bytes, line, n);
    t->tokens[t->n++].n = n;
    return MOE_OK;
}

static moe_status parse_tokens(const char *path, const char *text, size_t bytes, auth_tokens *out, moe_error *err)
{
    const char *at = text, *end = text + bytes, *line;
    size_t line_no = 0, n;
    moe_status status = MOE_OK;

    memset(out, 0, sizeof(*out));
    while (status == MOE_OK && moe_file_next_line(&at, end, &line, &n, &line_no)) {
        status = add_token(out, path, line_no, line, n, err);
    }
    if (status == MOE_OK && out->n == 0) {
        status = moe_fail(err, MOE_ERR_INVALID_ARG, "token file %s: no token in it", path);
    }
    return status;
}

static moe_status load(const char *path, auth_tokens *out, moe_error *err)
{
    char *text;
    size_t bytes;
    moe_status status = moe_file_read(path, MAX_FILE_BYTES, &text, &bytes, err);

    if (status == MOE_OK) {
        status = parse_tokens(path, text, bytes, out, err);
        explicit_bzero(text, bytes);
        free(text);
    }
    return status;
}

moe_status auth_open(const char *path, auth **out, moe_error *err)
{
    auth *a = calloc(1, sizeof(*a));

    if (a == NULL || (a->path = strdup(path)) == NULL) {
        free(a);
        return moe_fail(err, MOE_ERR_NO_MEMORY, "token file: out of memory");
    }
    a->stamp = moe_file_stamp_read(path);
    moe_status status = load(path, &a->tokens, err);
    if (status != MOE_OK) {
        auth_close(a);
        return status;
    }
    *out = a;
    return MOE_OK;
}

void auth_close(auth *a)
{
    if (a != NULL) {
        free(a->path);
        explicit_bzero(&a->tokens, sizeof(a->tokens));
        free(a);
    }
}

void auth_refresh(auth *a)
{
    moe_file_stamp now = moe_file_stamp_read(a->path);
    auth_tokens fresh;
    moe_error err;

    if (moe_file_stamp_equal(&now, &a->stamp)) {
        return;
    }
    a->stamp = now;
    if (load(a->path, &fresh, &err) != MOE_OK) {
        MOE_WARN("%s; the tokens read before stay in force", err.text);
        return;
    }
    a->tokens = fresh;
    explicit_bzero(&fresh, sizeof(fresh));
    MOE_INFO("token file read again, tokens %zu", a->tokens.n);
}

/* Every byte of every slot is looked at, whatever was found before. */
bool auth_accepts(const auth *a, const void *value, size_t n)
{
    static const char scheme[] = "Bearer ";
    unsigned char shown[AUTH_MAX_TOKEN_BYTES] = {0};
    const char *text = value;
    unsigned found = 0;

    if (n <= sizeof(scheme) - 1 || n - (sizeof(scheme) - 1) > sizeof(shown) ||
        strncasecmp(text, scheme, sizeof(scheme) - 1) != 0) {
        return false;
    }
    n -= sizeof(scheme) - 1;
    memcpy(shown, text + sizeof(scheme) - 1, n);
    for (size_t t = 0; t < a->tokens.n; t++) {
        volatile unsigned difference = a->tokens.tokens[t].n == n ? 0 : 1;

        for (size_t i = 0; i < sizeof(shown); i++) {
            difference = difference | (unsigned)(shown[i] ^ a->tokens.tokens[t].bytes[i]);
        }
        found |= difference == 0;
    }
    explicit_bzero(shown, sizeof(shown));
    return found != 0;
}
