#include "base/base.h"

#include <sys/mman.h>
#include <unistd.h>

#define HUGE_PAGE ((size_t)2 << 20)

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
