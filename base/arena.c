#include "base/base.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define ARENA_ALIGN ((size_t)64)
#define HUGE_PAGE   ((size_t)2 << 20)

moe_status moe_arena_init(moe_arena *a, size_t capacity)
{
    size_t rounded;

    *a = (moe_arena){0};
    if (capacity > SIZE_MAX - ARENA_ALIGN) {
        return MOE_ERR_NO_MEMORY;
    }
    rounded = MOE_MAX(moe_round_up(capacity, ARENA_ALIGN), ARENA_ALIGN);
    a->base = aligned_alloc(ARENA_ALIGN, rounded);
    if (a->base == NULL) {
        return MOE_ERR_NO_MEMORY;
    }
    a->capacity = rounded;
    return MOE_OK;
}

void moe_arena_fini(moe_arena *a)
{
    free(a->base);
    *a = (moe_arena){0};
}

void moe_arena_reset(moe_arena *a)
{
    a->used = 0;
}

void *moe_arena_alloc(moe_arena *a, size_t n, size_t size)
{
    size_t bytes;
    void *p;

    if (__builtin_mul_overflow(n, size, &bytes) || bytes > a->capacity - a->used) {
        return NULL;
    }
    p = a->base + a->used;
    a->used += moe_round_up(bytes, ARENA_ALIGN); /* capacity is a multiple of the alignment as well */
    a->peak = MOE_MAX(a->peak, a->used);
    return p;
}

static size_t pages_bytes(size_t bytes)
{
    return moe_round_up(bytes, (size_t)sysconf(_SC_PAGESIZE));
}

void *moe_pages_alloc(size_t bytes)
{
    void *p;

    if (bytes == 0 || bytes > SIZE_MAX / 2) {
        return NULL;
    }
    p = mmap(NULL, pages_bytes(bytes), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) {
        return NULL;
    }
    if (bytes >= HUGE_PAGE) {
        (void)madvise(p, pages_bytes(bytes), MADV_HUGEPAGE); /* advice: works as well without */
    }
    return p;
}

void moe_pages_free(void *p, size_t bytes)
{
    if (p != NULL) {
        (void)munmap(p, pages_bytes(bytes));
    }
}
