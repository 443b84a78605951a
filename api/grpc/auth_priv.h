/* auth: bearer tokens from a file, one per line, blank lines and lines that begin with # left out. "TOKEN sets=a,b" binds
 * a token to sets by their names; a token that is there twice with other sets is refused.
 * Threads: one. */
#ifndef CONCLAVE_API_GRPC_AUTH_PRIV_H
#define CONCLAVE_API_GRPC_AUTH_PRIV_H

#include "api/permits.h"
#include "base/base.h"

#define AUTH_MAX_TOKENS      64
#define AUTH_MAX_TOKEN_BYTES 256

typedef struct auth auth;

/* Errors: those of moe_file_read_named; MOE_ERR_INVALID_ARG naming the line: no token at all, more than AUTH_MAX_TOKENS, one
 * longer than AUTH_MAX_TOKEN_BYTES or with characters that are not printable ASCII, or what follows it is no list of sets. Tokens are never logged. */
MOE_NODISCARD moe_status auth_open(const char *path, auth **out, moe_error *err);
void auth_close(auth *a); /* clears the tokens; NULL is fine */
/* Reads the file again if it changed; a bad new file is logged once and the old tokens stay. */
void auth_refresh(auth *a);
/* value: of the `authorization` header, "Bearer TOKEN". The time does not depend on how much of a token is right. *out: what it
 * is bound to. */
bool auth_accepts(const auth *a, const void *value, size_t n, permits *out);

#endif
