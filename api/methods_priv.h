/* methods: the functions of inference.c's method table that live in files of their own. */
#ifndef CONCLAVE_API_METHODS_PRIV_H
#define CONCLAVE_API_METHODS_PRIV_H

#include "api/grpc/rpc.h"
#include "api/sets_priv.h"

void generate_start(rpc_call *call, const uint8_t *bytes, size_t n);
void complete_start(rpc_call *call, const uint8_t *bytes, size_t n);
void generate_wake(rpc_call *call);
void generate_poll(rpc_call *call, uint64_t now_ns);
void generate_stop(rpc_call *call);
void generate_fini(rpc_call *call);
void policy_start(rpc_call *call, const uint8_t *bytes, size_t n);
void policy_poll(rpc_call *call, uint64_t now_ns);
void policy_fini(rpc_call *call);
void change_start(rpc_call *call, catalogue_op op, const uint8_t *bytes, size_t n);
void change_poll(rpc_call *call, uint64_t now_ns);
void change_fini(rpc_call *call);
void list_packs_start(rpc_call *call, const uint8_t *bytes, size_t n);
void list_sets_start(rpc_call *call, const uint8_t *bytes, size_t n);
void set_log_start(rpc_call *call, const uint8_t *bytes, size_t n);
void diff_sets_start(rpc_call *call, const uint8_t *bytes, size_t n);
void score_start(rpc_call *call, const uint8_t *bytes, size_t n);
void score_wake(rpc_call *call);
void score_fini(rpc_call *call);
void classify_start(rpc_call *call, const uint8_t *bytes, size_t n);
void classify_wake(rpc_call *call);
void classify_fini(rpc_call *call);

#endif
