/* kernel_rig: a device on threads of its own, on which a program times one op after the other against
 * max(bytes / bandwidth, flop / peak), both measured in the same run. */
#ifndef CONCLAVE_BENCH_KERNEL_RIG_H
#define CONCLAVE_BENCH_KERNEL_RIG_H

#include "bench/cpu_limits.h"
#include "compute/compute.h"

typedef struct kernel_rig {
    moe_threads *threads;
    compute_device *d;
    compute_isa isa;        /* of the device, and of the peak */
    double bandwidth, peak; /* the best so far; peak: of bf16 pairs */
    double seconds;         /* of one measurement */
    const char *only;       /* measure what has this in its name */
    void *read_memory;
} kernel_rig;

typedef struct kernel_program {
    const char *usage;
    double seconds;                 /* of one measurement, unless --seconds says */
    compute_device_options options; /* without threads */
    bool has_full_scan;             /* --full-scan is an option */
    void (*run)(kernel_rig *rig);   /* for each number of threads */
} kernel_program;

/* Options: --isa NAME, --seconds S, --only NAME, --full-scan, then THREADS ... (default 1 and 2). Returns what main
 * returns. */
int kernel_rig_main(const kernel_program *program, int argc, char **argv);

/* Measures the limits and prints them under the name of the device. */
void kernel_rig_print(kernel_rig *rig);

struct bench; /* the program's own, only handed on */
typedef void (*kernel_fn)(struct bench *b, size_t n);

typedef struct kernel_work {
    double bytes, flop;
    double peak; /* flop per second of the arithmetic in question; 0: the rig's */
} kernel_work;

typedef struct kernel_times {
    double best, median; /* seconds; best: the 5th percentile */
    double bound;        /* what the limit allows */
    bool by_memory;      /* the limit is the bandwidth */
} kernel_times;

/* Times fn(b, n) for the rig's seconds, at least five times. false: the name is not among those to measure. */
bool kernel_rig_measure(kernel_rig *rig, const char *name, kernel_fn fn, struct bench *b, size_t n, kernel_work work,
                        kernel_times *out);

double kernel_rig_now(void); /* seconds */
/* p, which must not be NULL: a benchmark has no way on without memory. */
void *kernel_rig_check(void *p);
/* bf16 in +-(2^-7, 2^-6). */
void kernel_rig_fill(uint16_t *to, size_t n, uint64_t seed);

#endif
