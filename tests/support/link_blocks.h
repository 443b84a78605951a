/* What a node of a test holds: blocks with the revision of their last change, told as link_ops.holds_after wants it. */
#ifndef CONCLAVE_TESTS_LINK_BLOCKS_H
#define CONCLAVE_TESTS_LINK_BLOCKS_H

#include "proto/link.h"

typedef struct link_block {
    uint64_t experts, revision;
} link_block;

static inline uint32_t link_blocks_next(const link_block *blocks, uint32_t n, uint64_t after)
{
    uint32_t found = n;

    for (uint32_t i = 0; i < n; i++) {
        if (blocks[i].revision > after && (found == n || blocks[i].revision < blocks[found].revision)) {
            found = i;
        }
    }
    return found;
}

/* Block i is that of layer i. */
static inline void link_blocks_after(const link_block *blocks, uint32_t n, uint64_t latest, uint64_t revision,
                                     wire_holds *out)
{
    uint32_t i = link_blocks_next(blocks, n, revision);

    MOE_ASSERT(revision < latest);
    *out = (wire_holds){.after = revision, .upto = latest, .latest = latest};
    for (; i < n && out->n_blocks < WIRE_MAX_BLOCKS; i = link_blocks_next(blocks, n, blocks[i].revision)) {
        out->blocks[out->n_blocks++] = (wire_block){.layer = i, .experts = blocks[i].experts};
        out->upto = blocks[i].revision;
    }
    out->upto = i == n ? out->latest : out->upto;
}

#endif
