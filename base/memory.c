#include "base/base.h"
#include "base/cgroup_priv.h"
#include "base/memory_priv.h"

#include <string.h>

#define WITHOUT_MEMINFO ((size_t)1 << 30)

/* What a limit leaves. Pages of files are charged to the group as well, but the kernel gives them up for others. */
static size_t room(unsigned long long limit, unsigned long long used, unsigned long long of_files)
{
    used -= MOE_MIN(of_files, used);
    return limit > used ? (size_t)MOE_MIN(limit - used, (unsigned long long)SIZE_MAX) : 0;
}

/* Up to `high` a group is not slowed down, up to `max` it is not killed. */
static size_t room_of_version_2(const char *folder, bool in_all)
{
    unsigned long long max = 0, high = 0, used = 0, inactive = 0, active = 0;
    bool has_max = cgroup_number(folder, "memory.max", "", &max);
    bool has_high = cgroup_number(folder, "memory.high", "", &high);

    if (!has_max && !has_high) {
        return SIZE_MAX;
    }
    if (!in_all) {
        (void)cgroup_number(folder, "memory.current", "", &used);
        (void)cgroup_number(folder, "memory.stat", "inactive_file", &inactive);
        (void)cgroup_number(folder, "memory.stat", "active_file", &active);
    }
    return room(!has_high || (has_max && max < high) ? max : high, used, inactive + active);
}

/* hierarchical_memory_limit counts groups above that a container does not see. No limit is a very large number. */
static size_t room_of_version_1(const char *folder, bool in_all)
{
    unsigned long long limit, above, used = 0, inactive = 0, active = 0;

    if (!cgroup_number(folder, "memory.limit_in_bytes", "", &limit)) {
        return SIZE_MAX;
    }
    if (cgroup_number(folder, "memory.stat", "hierarchical_memory_limit", &above)) {
        limit = MOE_MIN(limit, above);
    }
    if (!in_all) {
        (void)cgroup_number(folder, "memory.usage_in_bytes", "", &used);
        (void)cgroup_number(folder, "memory.stat", "total_inactive_file", &inactive);
        (void)cgroup_number(folder, "memory.stat", "total_active_file", &active);
    }
    return room(limit, used, inactive + active);
}

typedef struct search {
    bool in_all; /* whoever uses it; else what is left */
    size_t bytes;
} search;

static void visit(void *ctx, const char *folder)
{
    search *s = ctx;
    size_t room_2 = room_of_version_2(folder, s->in_all), room_1 = room_of_version_1(folder, s->in_all);

    s->bytes = MOE_MIN(s->bytes, MOE_MIN(room_1, room_2));
}

static size_t of_machine(const char *proc, const char *key)
{
    char line[128];
    unsigned long long kib;
    size_t found = WITHOUT_MEMINFO;
    char path[256];
    FILE *f = (size_t)snprintf(path, sizeof path, "%s/meminfo", proc) < sizeof path ? fopen(path, "re") : NULL;

    while (f != NULL && fgets(line, sizeof line, f) != NULL) {
        if (strncmp(line, key, strlen(key)) == 0 && sscanf(line + strlen(key), ": %llu kB", &kib) == 1) {
            found = (size_t)kib << 10;
            break;
        }
    }
    if (f != NULL) {
        (void)fclose(f);
    }
    return found;
}

static size_t find_memory(const char *proc, const char *mount, bool in_all)
{
    char memberships[256];
    search s = {in_all, of_machine(proc, in_all ? "MemTotal" : "MemAvailable")};

    (void)snprintf(memberships, sizeof memberships, "%s/self/cgroup", proc);
    cgroup_each(memberships, mount, "memory", visit, &s);
    return s.bytes;
}

size_t memory_available_in(const char *proc, const char *mount)
{
    return find_memory(proc, mount, false);
}

size_t memory_total_in(const char *proc, const char *mount)
{
    return find_memory(proc, mount, true);
}

size_t moe_memory_available(void)
{
    return memory_available_in("/proc", CGROUP_MOUNT);
}

size_t moe_memory_total(void)
{
    return memory_total_in("/proc", CGROUP_MOUNT);
}
