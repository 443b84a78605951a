#ifndef CONCLAVE_BASE_CORES_PRIV_H
#define CONCLAVE_BASE_CORES_PRIV_H

#include <stddef.h>

/* Cores of the tightest CPU quota above this process, rounded up; SIZE_MAX when there is none.
 *   memberships   /proc/self/cgroup
 *   mount         /sys/fs/cgroup: version 2, or version 1 with a folder cpu in it */
size_t cores_of_quota(const char *memberships, const char *mount);

#endif
