#include "api/grpc/auth_priv.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define MAX_FILE_BYTES ((size_t)64 << 10)

typedef struct auth_token {
    size_t n;
    unsigned char bytes[AUTH_MAX_TOKEN_BYTES]; /* zeroes behind n */
    permits permits;
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

/* One name of a list; n characters. */
static bool add_set(permits *p, const char *name, size_t n)
{
    if (n == 0 || n > PERMITS_MAX_NAME || p->n == PERMITS_MAX_SETS) {
        return false;
    }
    memcpy(p->names[p->n], name, n);
    p->names[p->n][n] = '\0';
    return strspn(p->names[p->n++], "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-_") == n;
}

/* "sets=a,b" */
static bool parse_sets(const char *text, size_t n, permits *out)
{
    static const char key[] = "sets=";
    const char *at = text + sizeof key - 1, *end = text + n;

    if (n < sizeof key || memcmp(text, key, sizeof key - 1) != 0) {
        return false;
    }
    out->bound = true;
    for (const char *comma; (comma = memchr(at, ',', (size_t)(end - at))) != NULL; at = comma + 1) {
        if (!add_set(out, at, (size_t)(comma - at))) {
            return false;
        }
    }
    return add_set(out, at, (size_t)(end - at));
}

static size_t word_length(const char *line, size_t n)
{
    size_t i = 0;

    while (i < n && line[i] != ' ' && line[i] != '\t') {
        i++;
    }
    return i;
}

static moe_status add_token(auth_tokens *t, const char *path, size_t line_no, const char *line, size_t n_line,
                            moe_error *err)
{
    size_t n = word_length(line, n_line), rest = n;

    while (rest < n_line && (line[rest] == ' ' || line[rest] == '\t')) {
        rest++;
    }
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
    auth_token *token = &t->tokens[t->n++];
    if (rest < n_line && !parse_sets(line + rest, n_line - rest, &token->permits)) {
        return moe_fail(
            err, MOE_ERR_INVALID_ARG,
            "token file %s line %zu: what follows the token must be sets=NAME,... of at most %d names of at "
            "most %d characters",
            path, line_no, PERMITS_MAX_SETS, PERMITS_MAX_NAME);
    }
    memcpy(token->bytes, line, n);
    token->n = n;
    return MOE_OK;
}

/* A token that is there twice has one meaning: what binds it must not be lost because a line below does not. */
static moe_status check_twice(const auth_tokens *t, const char *path, moe_error *err)
{
    const auth_token *last = &t->tokens[t->n - 1];

    for (size_t i = 0; i + 1 < t->n; i++) {
        const auth_token *one = &t->tokens[i];

        if (one->n == last->n && memcmp(one->bytes, last->bytes, one->n) == 0 &&
            memcmp(&one->permits, &last->permits, sizeof one->permits) != 0) {
            return moe_fail(err, MOE_ERR_INVALID_ARG,
                            "token file %s: a token is there twice, and bound to other sets the second time", path);
        }
    }
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
        status = status == MOE_OK ? check_twice(out, path, err) : status;
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
    moe_status status = moe_file_read_named("token file", path, MAX_FILE_BYTES, &text, &bytes, err);

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
bool auth_accepts(const auth *a, const void *value, size_t n, permits *out)
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
        *out = difference == 0 ? a->tokens.tokens[t].permits : *out;
    }
    explicit_bzero(shown, sizeof(shown));
    return found != 0;
}
