/* The node's command line: one table gives parsing, --help, the environment names, --print-config and validation. */
#ifndef CONCLAVE_EXPERT_NODE_PROGRAM_OPTIONS_H
#define CONCLAVE_EXPERT_NODE_PROGRAM_OPTIONS_H

#include "member/member.h"

typedef struct node_config {
    member_config member;
    char *model, *pack, *pack_key, *listen, *advertise, *http, *zone;
    uint32_t drain_timeout_ms;
    size_t memory, load_bandwidth;
    bool insecure;
} node_config;

extern const moe_program node_program;

#endif
