/* Classes, dtypes, which instruction sets this processor has, and the row functions that dispatch on them. */
#include "compute/cpu_priv.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif

static const cpu_kernels *const tables[] = {
    [COMPUTE_ISA_PORTABLE] = &cpu_kernels_portable,
#if defined(__x86_64__)
    [COMPUTE_ISA_AVX2] = &cpu_kernels_avx2,
    [COMPUTE_ISA_AVX512F] = &cpu_kernels_avx512f,
    [COMPUTE_ISA_AVX512] = &cpu_kernels_avx512,
#endif
};

/* Rows may be asked for by any thread; tests and benchmarks change it between runs only. */
static _Atomic compute_isa row_isa = COMPUTE_ISA_AUTO;

const char *compute_dtype_name(compute_dtype dtype)
{
    static const char *const names[] = {
        [COMPUTE_F32] = "F32", [COMPUTE_BF16] = "BF16", [COMPUTE_F16] = "F16", [COMPUTE_DTYPE_OTHER] = "other"};

    return names[dtype];
}

bool compute_class_parse(const char *name, compute_class *out)
{
    for (int c = 0; c < COMPUTE_N_CLASSES; c++) {
        if (strcmp(name, compute_class_name((compute_class)c)) == 0) {
            *out = (compute_class)c;
            return true;
        }
    }
    return false;
}

void compute_thread_init(void)
{
#if defined(__x86_64__)
    _mm_setcsr(_mm_getcsr() | 0x8040u); /* FTZ, DAZ */
#endif
}

#if defined(__x86_64__)
static bool has_f16c(void) /* not a name that every compiler's __builtin_cpu_supports knows */
{
    unsigned a, b, c, d;

    return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}
#endif

/* __builtin_cpu_supports asks cpuid and, for AVX and AVX-512, xgetbv. */
bool compute_isa_available(compute_isa isa)
{
    switch (isa) {
    case COMPUTE_ISA_PORTABLE:
    case COMPUTE_ISA_AUTO:
        return true;
#if defined(__x86_64__)
    case COMPUTE_ISA_AVX2:
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
    case COMPUTE_ISA_AVX512F:
        return compute_isa_available(COMPUTE_ISA_AVX2) && __builtin_cpu_supports("avx512f") &&
               __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
               __builtin_cpu_supports("avx512dq");
    case COMPUTE_ISA_AVX512:
        return compute_isa_available(COMPUTE_ISA_AVX512F) && __builtin_cpu_supports("avx512bf16");
#else
    case COMPUTE_ISA_AVX2:
    case COMPUTE_ISA_AVX512F:
    case COMPUTE_ISA_AVX512:
#endif
    default:
        return false;
    }
}

/* Asked once: cpuid traps in a virtual machine, and the row functions come here for every row. */
compute_isa compute_isa_best(void)
{
    static _Atomic int known = COMPUTE_ISA_AUTO;
    int best = atomic_load_explicit(&known, memory_order_relaxed);

    if (best == COMPUTE_ISA_AUTO) {
        for (best = COMPUTE_ISA_AVX512; !compute_isa_available((compute_isa)best); best--) {
        }
        atomic_store_explicit(&known, best, memory_order_relaxed);
    }
    return (compute_isa)best;
}

const char *const compute_isa_names[] = {"auto", "portable", "avx2", "avx512f", "avx512", NULL};

const char *compute_isa_name(compute_isa isa)
{
    return isa == COMPUTE_ISA_AUTO ? compute_isa_names[0] : compute_isa_names[1 + isa];
}

compute_isa compute_isa_of(const char *name)
{
    compute_isa isa = COMPUTE_ISA_PORTABLE;

    while (isa < COMPUTE_ISA_AUTO && strcmp(name, compute_isa_name(isa)) != 0) {
        isa++;
    }
    return isa;
}

const cpu_kernels *cpu_kernels_of(compute_isa isa)
{
    return tables[isa == COMPUTE_ISA_AUTO ? compute_isa_best() : isa];
}

void compute_row_set_isa(compute_isa isa)
{
    MOE_ASSERT(compute_isa_available(isa));
    row_isa = isa;
}

static const cpu_kernels *row_kernels(void)
{
    return cpu_kernels_of(row_isa);
}

float compute_row_sum(const float *x, size_t n)
{
    return row_kernels()->row_sum(x, n);
}

float compute_row_max(const float *x, size_t n)
{
    MOE_ASSERT(n > 0);
    return row_kernels()->row_max(x, n);
}

void compute_row_exp(float *y, const float *x, float shift, size_t n)
{
    row_kernels()->row_exp(y, x, shift, n);
}

void compute_row_divide(float *y, float by, size_t n)
{
    row_kernels()->row_divide(y, by, n);
}

void compute_row_softmax(float *y, const float *x, size_t n)
{
    const cpu_kernels *k = row_kernels();

    MOE_ASSERT(n > 0);
    k->row_exp(y, x, k->row_max(x, n), n);
    k->row_divide(y, k->row_sum(y, n), n);
}

float compute_row_log_sum(const float *x, float max, size_t n, float *scratch)
{
    const cpu_kernels *k = row_kernels();

    k->row_exp(scratch, x, max, n);
    return compute_log(k->row_sum(scratch, n));
}
