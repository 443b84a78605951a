#ifndef CONCLAVE_BASE_MEMORY_PRIV_H
#define CONCLAVE_BASE_MEMORY_PRIV_H

#include <stddef.h>

/* moe_memory_available and moe_memory_total on other files than the kernel's.
 *   proc    /proc: meminfo and self/cgroup in it
 *   mount   /sys/fs/cgroup */
size_t memory_available_in(const char *proc, const char *mount);
size_t memory_total_in(const char *proc, const char *mount);

#endif
