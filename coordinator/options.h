/* The coordinator's command line: one table gives parsing, --help, the environment names, --print-config and
 * validation. */
#ifndef CONCLAVE_COORDINATOR_OPTIONS_H
#define CONCLAVE_COORDINATOR_OPTIONS_H

#include "member/member.h"

typedef struct coordinator_config {
    member_config member;             /* etcd NULL: an expert node in this process */
    char *pack, *pack_dir, *pack_key; /* pack, pack_dir: directories, with commas */
    char *accept_packs;
    char *model, *model_name, *listen, *advertise, *http, *health, *admin_listen;
    uint32_t max_batch_tokens, prefill_chunk, max_context, max_running, max_queue, default_max_tokens, micro_batches;
    size_t kv_memory; /* 0: what fits */
    char *metrics_experts, *tls_cert, *tls_key, *tls_ca, *token_file, *admin_token_file, *chat_template, *cuda_graphs;
    bool insecure, no_prefix_cache, no_early_exit, no_reflection;
    uint32_t keep_unused_ms, drain_delay_ms, drain_timeout_ms, step_timeout_ms, dispatch_timeout_ms, replication,
        min_nodes;
} coordinator_config;

extern const moe_program coordinator_program;

#endif
