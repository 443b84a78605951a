#include "template/template_priv.h"

#include <stdlib.h>
#include <string.h>

enum { BLOCK_BYTES = 16384, ALIGNMENT = 16 };

struct arena_block {
    arena_block *next;
    size_t used, capacity; /* bytes behind this head */
};

void arena_init(arena *a, size_t limit)
{
    *a = (arena){.limit = limit};
}

void arena_fini(arena *a)
{
    while (a->blocks) {
        arena_block *next = a->blocks->next;

        free(a->blocks);
        a->blocks = next;
    }
}

static arena_block *block_open(arena *a, size_t bytes)
{
    const size_t capacity = MOE_MAX(bytes, (size_t)BLOCK_BYTES);
    arena_block *block;

    if (capacity > a->limit - a->taken) {
        return NULL;
    }
    block = calloc(1, sizeof(*block) + ALIGNMENT + capacity);
    if (block) {
        block->capacity = capacity;
        block->next = a->blocks;
        a->blocks = block;
        a->taken += capacity;
    }
    return block;
}

static char *block_data(arena_block *block)
{
    const uintptr_t end = (uintptr_t)(block + 1);

    return (char *)block + ((end + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT - (uintptr_t)block);
}

void *arena_take(arena *a, size_t bytes)
{
    arena_block *block = a->blocks;
    void *taken;

    if (bytes > SIZE_MAX / 2) {
        return NULL;
    }
    bytes = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    if (!block || block->capacity - block->used < bytes) {
        block = block_open(a, bytes);
    }
    if (!block) {
        return NULL;
    }
    taken = block_data(block) + block->used;
    block->used += bytes;
    return taken;
}

void *arena_grow(arena *a, void *items, size_t n, size_t item_bytes, size_t first, size_t *capacity)
{
    const size_t more = *capacity ? *capacity * 2 : first;
    void *grown;

    if (n < *capacity) {
        return items;
    }
    grown = arena_take(a, more * item_bytes);
    if (grown) {
        if (n > 0) {
            memcpy(grown, items, n * item_bytes);
        }
        *capacity = more;
    }
    return grown;
}
