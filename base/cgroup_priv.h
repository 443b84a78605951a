/* cgroup: the control groups above this process, version 1 and 2, as far as they can be seen. */
#ifndef CONCLAVE_BASE_CGROUP_PRIV_H
#define CONCLAVE_BASE_CGROUP_PRIV_H

#include <stdbool.h>
#include <stddef.h>

#define CGROUP_MEMBERSHIPS "/proc/self/cgroup"
#define CGROUP_MOUNT       "/sys/fs/cgroup"

/* Calls visit for the folder of every control group that binds this process, the innermost first: a limit of any of
 * them holds for all below it. Folders that are missing are passed: inside a container the path may be the host's.
 *   memberships   /proc/self/cgroup
 *   mount         /sys/fs/cgroup: version 2, or version 1 with a folder per controller in it
 *   controller    "cpu", "memory" */
void cgroup_each(const char *memberships, const char *mount, const char *controller,
                 void (*visit)(void *ctx, const char *folder), void *ctx);

/* The first line of folder/name, cut to bytes; false if it cannot be read. */
bool cgroup_line(const char *folder, const char *name, char *line, size_t bytes);
/* Of a file of lines "key number", or with key "" of one number alone: the number. false: there is none ("max"). */
bool cgroup_number(const char *folder, const char *name, const char *key, unsigned long long *out);

#endif
