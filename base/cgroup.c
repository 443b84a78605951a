#include "base/cgroup_priv.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATH_BYTES 4096

static FILE *open_in(const char *folder, const char *name)
{
    char path[PATH_BYTES + 64];

    return (size_t)snprintf(path, sizeof path, "%s/%s", folder, name) < sizeof path ? fopen(path, "re") : NULL;
}

bool cgroup_line(const char *folder, const char *name, char *line, size_t bytes)
{
    FILE *f = open_in(folder, name);

    if (f == NULL) {
        return false;
    }
    bool ok = fgets(line, (int)bytes, f) != NULL;
    (void)fclose(f);
    return ok;
}

static bool number_of_line(const char *line, const char *key, unsigned long long *out)
{
    size_t n = strlen(key);
    char *end;

    if (strncmp(line, key, n) != 0 || (n > 0 && line[n] != ' ')) {
        return false;
    }
    line += n > 0 ? n + 1 : 0;
    errno = 0;
    unsigned long long value = strtoull(line, &end, 10);
    if (line[0] < '0' || line[0] > '9' || errno != 0 || (*end != '\n' && *end != '\0')) {
        return false;
    }
    *out = value;
    return true;
}

bool cgroup_number(const char *folder, const char *name, const char *key, unsigned long long *out)
{
    FILE *f = open_in(folder, name);
    char line[128];
    bool found = false;

    while (f != NULL && !found && fgets(line, sizeof line, f) != NULL) {
        found = number_of_line(line, key, out);
    }
    if (f != NULL) {
        (void)fclose(f);
    }
    return found;
}

static void visit_upwards(const char *mount, const char *path, void (*visit)(void *ctx, const char *folder), void *ctx)
{
    char folder[PATH_BYTES];
    size_t mount_bytes = strlen(mount);

    if ((size_t)snprintf(folder, sizeof folder, "%s%s", mount, path) >= sizeof folder) {
        folder[mount_bytes] = '\0';
    }
    for (;;) {
        visit(ctx, folder);
        if (strlen(folder) <= mount_bytes) {
            return;
        }
        *strrchr(folder, '/') = '\0';
    }
}

/* Whether a list with commas has this name. */
static bool has_name(const char *list, const char *name)
{
    size_t n = strlen(name);

    while (*list != '\0') {
        size_t here = strcspn(list, ",");

        if (here == n && memcmp(list, name, n) == 0) {
            return true;
        }
        list += here + (list[here] == ',');
    }
    return false;
}

/* "0::/path" is version 2; "4:cpu,cpuacct:/path" is version 1 with the cpu controller. */
static void one_membership(char *line, const char *mount, const char *controller,
                           void (*visit)(void *ctx, const char *folder), void *ctx)
{
    char of_controller[256];
    char *controllers = strchr(line, ':');
    char *path = controllers != NULL ? strchr(controllers + 1, ':') : NULL;

    if (path == NULL || path[1] != '/') {
        return;
    }
    *path++ = '\0';
    path[strcspn(path, "\n")] = '\0';
    controllers++;
    if (*controllers == '\0') {
        visit_upwards(mount, path, visit, ctx);
    } else if (has_name(controllers, controller)) {
        (void)snprintf(of_controller, sizeof of_controller, "%s/%s", mount, controller);
        visit_upwards(of_controller, path, visit, ctx);
    }
}

void cgroup_each(const char *memberships, const char *mount, const char *controller,
                 void (*visit)(void *ctx, const char *folder), void *ctx)
{
    char line[PATH_BYTES];
    FILE *f;

    if (strlen(mount) >= 200 || (f = fopen(memberships, "re")) == NULL) {
        return;
    }
    while (fgets(line, sizeof line, f) != NULL) {
        one_membership(line, mount, controller, visit, ctx);
    }
    (void)fclose(f);
}
