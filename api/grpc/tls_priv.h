/* tls: certificates of a listener, read again when their files change.
 * Threads: open and close on the program's thread; gRPC's own threads ask for the files at every handshake. */
#ifndef CONCLAVE_API_GRPC_TLS_PRIV_H
#define CONCLAVE_API_GRPC_TLS_PRIV_H

#include <grpc/grpc_security.h>

#include "base/base.h"

typedef struct tls tls;

/* ca_path NULL: clients need no certificate. Errors: those of moe_file_read_named; MOE_ERR_CORRUPT: no certificate or key in
 * a file, or the key is of another certificate. */
MOE_NODISCARD moe_status tls_open(const char *cert_path, const char *key_path, const char *ca_path, tls **out,
                                  moe_error *err);
void tls_close(tls *t); /* after the server that uses it is gone; NULL is fine */
/* Credentials for one server; the caller releases them. */
grpc_server_credentials *tls_credentials(tls *t);

#endif
