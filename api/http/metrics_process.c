/* What the kernel tells of this process, under the names that Prometheus' own clients use. */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "api/http/http.h"

typedef struct process {
    double cpu_seconds, start_seconds; /* start: since the epoch */
    uint64_t virtual_bytes, resident_bytes, n_threads;
} process;

static double clock_seconds(clockid_t id)
{
    struct timespec t = {0};

    (void)clock_gettime(id, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* /proc/self/stat: the fields behind the name, which may hold anything up to its last parenthesis. proc(5) counts them
 * from 1, the state being the 3rd. */
static bool read_stat(process *p)
{
    double ticks = (double)sysconf(_SC_CLK_TCK);
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    char text[2048] = "", *at, *rest = NULL;
    uint64_t fields[25] = {0};
    FILE *file = fopen("/proc/self/stat", "re");

    if (file == NULL) {
        return false;
    }
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    (void)fclose(file);
    if ((at = strrchr(text, ')')) == NULL) {
        return false;
    }
    at = strtok_r(at + 1, " ", &rest);
    for (size_t i = 3; i < MOE_COUNT(fields) && at != NULL; i++, at = strtok_r(NULL, " ", &rest)) {
        fields[i] = strtoull(at, NULL, 10);
    }
    p->cpu_seconds = (double)(fields[14] + fields[15]) / ticks;
    p->n_threads = fields[20];
    p->start_seconds = clock_seconds(CLOCK_REALTIME) - clock_seconds(CLOCK_BOOTTIME) + (double)fields[22] / ticks;
    p->virtual_bytes = fields[23];
    p->resident_bytes = fields[24] * page;
    return true;
}

static uint64_t count_descriptors(void)
{
    DIR *dir = opendir("/proc/self/fd");
    uint64_t n = 0;

    if (dir == NULL) {
        return 0;
    }
    while (readdir(dir) != NULL) {
        n++;
    }
    (void)closedir(dir);
    return n > 3 ? n - 3 : 0; /* ".", ".." and the one that reads */
}

static void put_real(moe_text *out, const char *name, const char *type, const char *help, double value)
{
    metrics_head(out, name, type, help);
    moe_text_printf(out, "%s %.3f\n", name, value);
}

void metrics_process(moe_text *out)
{
    process p = {.cpu_seconds = 0};
    struct rlimit limit = {0};

    if (!read_stat(&p)) {
        return;
    }
    (void)getrlimit(RLIMIT_NOFILE, &limit);
    put_real(out, "process_cpu_seconds_total", "counter", "Processor time, user and system.", p.cpu_seconds);
    put_real(out, "process_start_time_seconds", "gauge", "When the process started, since the epoch.", p.start_seconds);
    metrics_gauge(out, "process_resident_memory_bytes", "Resident memory.", p.resident_bytes);
    metrics_gauge(out, "process_virtual_memory_bytes", "Virtual memory.", p.virtual_bytes);
    metrics_gauge(out, "process_threads", "Threads.", p.n_threads);
    metrics_gauge(out, "process_open_fds", "Open file descriptors.", count_descriptors());
    metrics_gauge(out, "process_max_fds", "The limit of open file descriptors.", (uint64_t)limit.rlim_cur);
}
