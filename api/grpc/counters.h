/* What the HTTP side reads of a gRPC listener: any thread. */
#ifndef CONCLAVE_API_GRPC_COUNTERS_H
#define CONCLAVE_API_GRPC_COUNTERS_H

#include "api/api.h"

#define RPC_N_STATUS 17

const char *rpc_code_name(size_t code); /* "OK", "CANCELLED", ...; code < RPC_N_STATUS */

size_t api_server_n_methods(const api_server *s);
const char *api_server_method_path(const api_server *s, size_t method_idx);
uint64_t api_server_count(const api_server *s, size_t method_idx,
                          size_t code); /* calls ended so; code < RPC_N_STATUS */
uint32_t api_server_open_calls(const api_server *s);
uint64_t api_server_last_turn_ns(const api_server *s);
bool api_server_leaving(const api_server *s); /* it drains, or has announced that it will */

#endif
