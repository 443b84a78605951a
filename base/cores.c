#include "base/base.h"
#include "base/cores_priv.h"

#include <inttypes.h>
#include <sched.h>
#include <string.h>

#define PATH_BYTES 4096

static size_t quota_to_cores(long long quota_us, long long period_us)
{
    if (quota_us <= 0 || period_us <= 0) {
        return SIZE_MAX;
    }
    return (size_t)((quota_us - 1) / period_us) + 1;
}

/* The first line of folder/name; false if it cannot be read. */
static bool read_line(const char *folder, const char *name, char *line, size_t bytes)
{
    char path[PATH_BYTES + 64];
    FILE *f;
    bool ok;

    if ((size_t)snprintf(path, sizeof path, "%s/%s", folder, name) >= sizeof path || (f = fopen(path, "re")) == NULL) {
        return false;
    }
    ok = fgets(line, (int)bytes, f) != NULL;
    (void)fclose(f);
    return ok;
}

static size_t cores_of_folder(const char *folder)
{
    char line[128], period_line[128];
    long long quota_us, period_us;

    if (read_line(folder, "cpu.max", line, sizeof line)) {
        return sscanf(line, "%lld %lld", &quota_us, &period_us) == 2 ? quota_to_cores(quota_us, period_us) : SIZE_MAX;
    }
    if (read_line(folder, "cpu.cfs_quota_us", line, sizeof line) &&
        read_line(folder, "cpu.cfs_period_us", period_line, sizeof period_line) &&
        sscanf(line, "%lld", &quota_us) == 1 && sscanf(period_line, "%lld", &period_us) == 1) {
        return quota_to_cores(quota_us, period_us);
    }
    return SIZE_MAX;
}

/* A quota binds everything below it. Inside a container the path may be the host's: folders that are missing are
 * passed. */
static size_t cores_of_path(const char *mount, const char *path)
{
    char folder[PATH_BYTES];
    size_t mount_bytes = strlen(mount);
    size_t cores = SIZE_MAX;

    if ((size_t)snprintf(folder, sizeof folder, "%s%s", mount, path) >= sizeof folder) {
        folder[mount_bytes] = '\0';
    }
    for (;;) {
        size_t here = cores_of_folder(folder);

        cores = MOE_MIN(cores, here);
        if (strlen(folder) <= mount_bytes) {
            return cores;
        }
        *strrchr(folder, '/') = '\0';
    }
}

/* "0::/path" is version 2; "4:cpu,cpuacct:/path" is version 1 with the cpu controller. */
static size_t cores_of_membership(char *line, const char *mount)
{
    char cpu_mount[256];
    char *controllers = strchr(line, ':');
    char *path = controllers != NULL ? strchr(controllers + 1, ':') : NULL;

    if (path == NULL || path[1] != '/') {
        return SIZE_MAX;
    }
    *path++ = '\0';
    path[strcspn(path, "\n")] = '\0';
    controllers++;
    if (*controllers == '\0') {
        return cores_of_path(mount, path);
    }
    if (strcmp(controllers, "cpu") != 0 && strncmp(controllers, "cpu,", 4) != 0 &&
        strstr(controllers, ",cpu,") == NULL) {
        return SIZE_MAX;
    }
    (void)snprintf(cpu_mount, sizeof cpu_mount, "%s/cpu", mount);
    return cores_of_path(cpu_mount, path);
}

size_t cores_of_quota(const char *memberships, const char *mount)
{
    char line[PATH_BYTES];
    size_t cores = SIZE_MAX;
    FILE *f;

    if (strlen(mount) >= 200 || (f = fopen(memberships, "re")) == NULL) {
        return SIZE_MAX;
    }
    while (fgets(line, sizeof line, f) != NULL) {
        size_t here = cores_of_membership(line, mount);

        cores = MOE_MIN(cores, here);
    }
    (void)fclose(f);
    return cores;
}

size_t moe_cores_available(void)
{
    cpu_set_t set;
    size_t cores = 1;
    size_t quota = cores_of_quota("/proc/self/cgroup", "/sys/fs/cgroup");

    if (sched_getaffinity(0, sizeof set, &set) == 0) {
        cores = (size_t)CPU_COUNT(&set);
    }
    cores = MOE_MIN(cores, quota);
    return MOE_MAX(cores, (size_t)1);
}
