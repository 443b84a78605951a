#include "bench/cpu_limits.h"

enum { ROUNDS = 3, SPINS = 200000, BLOCK = 1 << 20 };

typedef void (*spin_fn)(size_t n);

static double seconds(void)
{
    return (double)moe_now_ns(moe_clock_real()) * 1e-9;
}

/* ------------------------------------------------------------------------------------------------ bandwidth */
typedef struct read_job {
    const unsigned char *memory;
    size_t n_tasks;
    volatile uint64_t sink;
} read_job;

#if defined(__x86_64__)
__attribute__((target("avx2"))) static uint64_t read_block(const unsigned char *p)
{
    typedef unsigned long long v4 __attribute__((vector_size(32), aligned(32)));
    const v4 *v = (const v4 *)(const void *)p;
    v4 a = {0}, b = {0}, c = {0}, d = {0};

    for (size_t i = 0; i < BLOCK / sizeof(v4); i += 4) {
        a += v[i];
        b += v[i + 1];
        c += v[i + 2];
        d += v[i + 3];
    }
    a += b + c + d;
    return a[0] + a[1] + a[2] + a[3];
}
#else
static uint64_t read_block(const unsigned char *p)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < BLOCK; i += 8) {
        sum += *(const uint64_t *)(const void *)(p + i);
    }
    return sum;
}
#endif

/* Contiguous parts, one per thread as far as they are handed out so. */
static void read_task(void *ctx, size_t task, size_t thread)
{
    read_job *job = ctx;

    (void)thread;
    job->sink ^= read_block(job->memory + task * BLOCK);
}

double cpu_limits_read_seconds(moe_threads *threads, const void *memory, size_t bytes)
{
    read_job job = {memory, bytes / BLOCK, 0};
    double start = seconds();

    moe_threads_run(threads, job.n_tasks, read_task, &job);
    return seconds() - start;
}

double cpu_limits_bandwidth(moe_threads *threads, const void *memory, size_t bytes)
{
    double best = 0.0;

    for (int i = 0; i < ROUNDS; i++) {
        best = MOE_MAX(best, (double)(bytes / BLOCK * BLOCK) / cpu_limits_read_seconds(threads, memory, bytes));
    }
    return best;
}

/* ------------------------------------------------------------------------------------------------ peak */
#if defined(__x86_64__)
#define REGISTERS_14(op, reg)                                                                                          \
    op(reg "2") op(reg "3") op(reg "4") op(reg "5") op(reg "6") op(reg "7") op(reg "8") op(reg "9") op(reg "10")       \
        op(reg "11") op(reg "12") op(reg "13") op(reg "14") op(reg "15")
#define FMA_ZMM(r) "vfmadd231ps %%zmm0, %%zmm1, %%" r "\n\t"
#define DOT_ZMM(r) "vdpbf16ps %%zmm0, %%zmm1, %%" r "\n\t"
#define FMA_YMM(r) "vfmadd231ps %%ymm0, %%ymm1, %%" r "\n\t"
#define CLOBBERED                                                                                                      \
    "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12",         \
        "xmm13", "xmm14", "xmm15", "cc"
enum { IN_FLIGHT = 14 };

/* Registers are cleared first: zeros, so no operand is slow. */
static void spin_fma_zmm(size_t n)
{
    __asm__ volatile("vzeroall\n1:\n\t" REGISTERS_14(FMA_ZMM, "zmm") "dec %0\n\tjnz 1b\n\tvzeroupper"
                     : "+r"(n)
                     :
                     : CLOBBERED);
}

static void spin_dot_zmm(size_t n)
{
    __asm__ volatile("vzeroall\n1:\n\t" REGISTERS_14(DOT_ZMM, "zmm") "dec %0\n\tjnz 1b\n\tvzeroupper"
                     : "+r"(n)
                     :
                     : CLOBBERED);
}

static void spin_fma_ymm(size_t n)
{
    __asm__ volatile("vzeroall\n1:\n\t" REGISTERS_14(FMA_YMM, "ymm") "dec %0\n\tjnz 1b\n\tvzeroupper"
                     : "+r"(n)
                     :
                     : CLOBBERED);
}
#endif

static void spin_task(void *ctx, size_t task, size_t thread)
{
    (void)task;
    (void)thread;
    (*(spin_fn *)ctx)(SPINS);
}

/* 8 tasks per thread, so that one that is held up does not halve the result. */
static double peak_of(moe_threads *threads, spin_fn fn, double flop_per_spin)
{
    size_t n_tasks = 8 * moe_threads_count(threads);
    double best = 0.0;

    for (int i = 0; i < ROUNDS; i++) {
        double t = seconds();

        moe_threads_run(threads, n_tasks, spin_task, &fn);
        t = (double)n_tasks * SPINS * flop_per_spin / (seconds() - t);
        best = MOE_MAX(best, t);
    }
    return best;
}

static compute_isa known(compute_isa isa)
{
    return isa == COMPUTE_ISA_AUTO ? compute_isa_best() : isa;
}

double cpu_limits_peak_f32(moe_threads *threads, compute_isa isa)
{
#if defined(__x86_64__)
    if (known(isa) >= COMPUTE_ISA_AVX512F) {
        return peak_of(threads, spin_fma_zmm, IN_FLIGHT * 32.0);
    }
    if (compute_isa_available(COMPUTE_ISA_AVX2)) {
        return peak_of(threads, spin_fma_ymm, IN_FLIGHT * 16.0);
    }
#endif
    (void)threads;
    (void)known;
    (void)isa;
    return 0.0;
}

double cpu_limits_peak_bf16(moe_threads *threads, compute_isa isa)
{
#if defined(__x86_64__)
    if (known(isa) == COMPUTE_ISA_AVX512) {
        return peak_of(threads, spin_dot_zmm, IN_FLIGHT * 64.0);
    }
#endif
    return cpu_limits_peak_f32(threads, isa);
}
