#include "bench/kernel_rig.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_SAMPLES = 4096, N_MEASURES = 5, READ_BYTES = 256 << 20 };

double kernel_rig_now(void)
{
    return (double)moe_now_ns(moe_clock_real()) * 1e-9;
}

void *kernel_rig_check(void *p)
{
    MOE_ASSERT(p != NULL);
    return p;
}

void kernel_rig_fill(uint16_t *to, size_t n, uint64_t seed)
{
    moe_random r;

    moe_random_seed(&r, seed);
    for (size_t i = 0; i < n; i += 4) {
        uint64_t u = (moe_random_u64(&r) & 0x807f807f807f807fu) | 0x3c003c003c003c00u;

        memcpy(to + i, &u, MOE_MIN(sizeof(u), (n - i) * 2));
    }
}

/* ------------------------------------------------------------------------------------------------ measuring */
static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* The best seen so far in this run: one that was disturbed must not flatter the kernels. */
static void measure_limits(kernel_rig *rig)
{
    double bandwidth = cpu_limits_bandwidth(rig->threads, rig->read_memory, READ_BYTES);

    rig->bandwidth = MOE_MAX(rig->bandwidth, bandwidth);
    rig->peak = MOE_MAX(rig->peak, cpu_limits_peak_bf16(rig->threads, rig->isa));
}

void kernel_rig_print(kernel_rig *rig)
{
    for (int i = 0; i < N_MEASURES; i++) {
        measure_limits(rig);
    }
    printf("\n%s, %zu threads: bandwidth %.1f GB/s, f32 peak %.0f GFLOP/s, bf16 peak %.0f GFLOP/s\n", rig->d->name,
           moe_threads_count(rig->threads), rig->bandwidth * 1e-9, cpu_limits_peak_f32(rig->threads, rig->isa) * 1e-9,
           rig->peak * 1e-9);
}

bool kernel_rig_measure(kernel_rig *rig, const char *name, kernel_fn fn, struct bench *b, size_t n, kernel_work work,
                        kernel_times *out)
{
    static double samples[MAX_SAMPLES];
    double end, memory, arithmetic;
    size_t n_samples = 0;

    if (strstr(name, rig->only) == NULL) {
        return false;
    }
    measure_limits(rig);
    memory = work.bytes / rig->bandwidth;
    arithmetic = work.flop / (work.peak == 0.0 ? rig->peak : work.peak);
    end = kernel_rig_now() + rig->seconds;
    fn(b, n);
    while (n_samples < 5 || (n_samples < MAX_SAMPLES && kernel_rig_now() < end)) {
        double start = kernel_rig_now();

        fn(b, n);
        samples[n_samples++] = kernel_rig_now() - start;
    }
    qsort(samples, n_samples, sizeof(*samples), by_value);
    *out = (kernel_times){.best = samples[n_samples / 20],
                          .median = samples[n_samples / 2],
                          .bound = MOE_MAX(memory, arithmetic),
                          .by_memory = memory > arithmetic};
    return true;
}

/* ------------------------------------------------------------------------------------------------ program */
static void run(const kernel_program *program, size_t n_threads, compute_device_options o, double seconds,
                const char *only)
{
    kernel_rig rig = {.seconds = seconds, .only = only, .isa = o.isa};

    MOE_ASSERT(moe_threads_open(n_threads, compute_thread_init, &rig.threads) == MOE_OK);
    o.threads = rig.threads;
    MOE_ASSERT(compute_open("cpu", &o, &rig.d, NULL) == MOE_OK);
    rig.read_memory = kernel_rig_check(moe_pages_alloc(READ_BYTES));
    kernel_rig_fill(rig.read_memory, READ_BYTES / 2, 1);
    program->run(&rig);
    moe_pages_free(rig.read_memory, READ_BYTES);
    compute_close(rig.d);
    moe_threads_close(rig.threads);
}

int kernel_rig_main(const kernel_program *program, int argc, char **argv)
{
    compute_device_options o = program->options;
    double seconds = program->seconds;
    const char *only = "";
    bool any = false;

    compute_thread_init();
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--isa") == 0 && i + 1 < argc) {
            o.isa = compute_isa_of(argv[++i]);
        } else if (strcmp(argv[i], "--seconds") == 0 && i + 1 < argc) {
            seconds = atof(argv[++i]);
        } else if (strcmp(argv[i], "--only") == 0 && i + 1 < argc) {
            only = argv[++i];
        } else if (program->has_full_scan && strcmp(argv[i], "--full-scan") == 0) {
            o.full_scan = true;
        } else if (atoi(argv[i]) > 0) {
            run(program, (size_t)atoi(argv[i]), o, seconds, only);
            any = true;
        } else {
            (void)fprintf(stderr, "%s\n", program->usage);
            return 2;
        }
    }
    for (size_t n = 1; n <= 2 && !any; n++) {
        run(program, n, o, seconds, only);
    }
    return 0;
}
