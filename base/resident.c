#include "base/base.h"

void moe_memory_resident(moe_resident *out)
{
    FILE *f = fopen("/proc/self/status", "re");
    unsigned long long kib;
    char line[128];

    *out = (moe_resident){.anonymous = 0};
    while (f != NULL && fgets(line, sizeof line, f) != NULL) {
        if (sscanf(line, "RssAnon: %llu kB", &kib) == 1) {
            out->anonymous = (size_t)kib << 10;
        } else if (sscanf(line, "RssFile: %llu kB", &kib) == 1) {
            out->of_files = (size_t)kib << 10;
        } else if (sscanf(line, "RssShmem: %llu kB", &kib) == 1) {
            out->shared = (size_t)kib << 10;
        }
    }
    if (f != NULL) {
        (void)fclose(f);
    }
}
