/* kv_memory: how large the KV cache becomes. Pure. */
#ifndef CONCLAVE_COORDINATOR_KV_MEMORY_H
#define CONCLAVE_COORDINATOR_KV_MEMORY_H

#include "base/base.h"

typedef struct kv_budget {
    size_t asked;      /* --kv-memory in bytes; 0: what fits */
    size_t available;  /* bytes that this process may still take, before weights are loaded */
    size_t weights;    /* bytes that will be loaded */
    size_t page_bytes; /* of MODEL_KV_PAGE_TOKENS tokens, all layers */
    uint32_t max_running, max_context;
} kv_budget;

/* Bytes of whole pages, at most what max_running sequences of max_context tokens can use. Without --kv-memory: what is
 * left after the weights and a margin for everything else; one context if only the margin stands against it.
 * Errors: MOE_ERR_INVALID_ARG when not even one context fits: the figures, and what to give. */
MOE_NODISCARD moe_status kv_memory_choose(const kv_budget *b, size_t *bytes_out, moe_error *err);

#endif
