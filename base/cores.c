#include "base/base.h"
#include "base/cgroup_priv.h"
#include "base/cores_priv.h"

#include <sched.h>

static size_t quota_to_cores(long long quota_us, long long period_us)
{
    if (quota_us <= 0 || period_us <= 0) {
        return SIZE_MAX;
    }
    return (size_t)((quota_us - 1) / period_us) + 1;
}

static size_t cores_of_folder(const char *folder)
{
    char line[128], period_line[128];
    long long quota_us, period_us;

    if (cgroup_line(folder, "cpu.max", line, sizeof line)) {
        return sscanf(line, "%lld %lld", &quota_us, &period_us) == 2 ? quota_to_cores(quota_us, period_us) : SIZE_MAX;
    }
    if (cgroup_line(folder, "cpu.cfs_quota_us", line, sizeof line) &&
        cgroup_line(folder, "cpu.cfs_period_us", period_line, sizeof period_line) &&
        sscanf(line, "%lld", &quota_us) == 1 && sscanf(period_line, "%lld", &period_us) == 1) {
        return quota_to_cores(quota_us, period_us);
    }
    return SIZE_MAX;
}

static void visit(void *ctx, const char *folder)
{
    size_t *cores = ctx, here = cores_of_folder(folder);

    *cores = MOE_MIN(*cores, here);
}

size_t cores_of_quota(const char *memberships, const char *mount)
{
    size_t cores = SIZE_MAX;

    cgroup_each(memberships, mount, "cpu", visit, &cores);
    return cores;
}

size_t moe_cores_available(void)
{
    cpu_set_t set;
    size_t cores = 1;
    size_t quota = cores_of_quota(CGROUP_MEMBERSHIPS, CGROUP_MOUNT);

    if (sched_getaffinity(0, sizeof set, &set) == 0) {
        cores = (size_t)CPU_COUNT(&set);
    }
    cores = MOE_MIN(cores, quota);
    return MOE_MAX(cores, (size_t)1);
}
