/* The kernels of the ModuleFormer family at MoLM's shapes, against max(bytes / bandwidth, flop / peak), both measured in
 * the same run.
 *
 *     bench_families [--isa portable|avx2|avx512f|avx512] [--seconds S] [--only NAME] [--full-scan] [THREADS ...]
 *
 * (default 1 and 2 threads.) Weights are random and read from memory: 32 GELU experts (268 MB), 96 attention matrices
 * (201 MB). Reported is the 5th percentile of the times and the median. Without --full-scan the random scores end a
 * stick after about 130 keys, which the limit then counts. */
#include "bench/kernel_rig.h"

#include <stdlib.h>

enum {
    D_MODEL = 1024,
    D_FF = 2048,
    N_EXPERTS = 32,
    N_MATRICES = 96,
    TOP_K = 2,
    PAGE_TOKENS = 16,
    MAX_CONTEXT = 4096,
    N_PAGES = MAX_CONTEXT / PAGE_TOKENS,
    MAX_ROWS = 256
};

typedef struct bench {
    kernel_rig *rig;
    compute_device *d; /* the rig's */
    compute_expert *experts[N_EXPERTS];
    compute_matrix *matrices[N_MATRICES];
    double pack_seconds;
    compute_mem *x, *wide, *out, *results, *kv, *gain;
    uint32_t pages[N_PAGES];
    compute_row rows[MAX_ROWS];
    compute_step *step;
    size_t next; /* which expert or matrix comes next: the coldest */
} bench;

static const compute_kv_shape kv_shape = {1, N_PAGES, PAGE_TOKENS, 1, D_MODEL, COMPUTE_BF16, true};

static void open_weights(bench *b)
{
    size_t n = (size_t)D_FF * D_MODEL;
    uint16_t *scratch = kernel_rig_check(malloc(2 * n * 2));
    const compute_weight up = {scratch, COMPUTE_BF16, D_FF, D_MODEL, true};
    const compute_weight down = {scratch + n, COMPUTE_BF16, D_MODEL, D_FF, true};
    const compute_weight square = {scratch, COMPUTE_BF16, D_MODEL, D_MODEL, true};
    double start;

    kernel_rig_fill(scratch, 2 * n, 1);
    start = kernel_rig_now();
    for (size_t e = 0; e < N_EXPERTS; e++) {
        MOE_ASSERT(b->d->ops->expert_open(b->d, COMPUTE_FFN_GELU_TANH, NULL, &up, &down, COMPUTE_PACKED,
                                          &b->experts[e]) == MOE_OK);
    }
    b->pack_seconds = kernel_rig_now() - start;
    for (size_t i = 0; i < N_MATRICES; i++) {
        MOE_ASSERT(b->d->ops->matrix_open(b->d, &square, COMPUTE_PACKED, &b->matrices[i]) == MOE_OK);
    }
    free(scratch);
}

static compute_mem *values(bench *b, size_t n, uint64_t seed)
{
    uint16_t *x = kernel_rig_check(malloc(n * 2));
    compute_mem *m = kernel_rig_check(b->d->ops->alloc(b->d, n * 4));

    kernel_rig_fill(x, n, seed);
    b->d->ops->upload(b->d, m, x, n * 2);
    free(x);
    return m;
}

static void open_activations(bench *b)
{
    size_t n = (size_t)MAX_ROWS * TOP_K * D_MODEL;

    MOE_ASSERT(b->d->ops->step_open(b->d, MAX_ROWS, PAGE_TOKENS, &b->step) == MOE_OK);
    b->x = values(b, n, 2);
    b->wide = values(b, 2 * n, 3);
    b->out = values(b, n, 4);
    b->results = values(b, n, 5);
    b->gain = values(b, D_MODEL, 6);
    b->kv = values(b, (size_t)MAX_CONTEXT * D_MODEL, 7);
    for (uint32_t i = 0; i < N_PAGES; i++) {
        b->pages[i] = (i * 37) % N_PAGES;
    }
}

/* ------------------------------------------------------------------------------------------------ measuring */
/* peak: flop/s of the arithmetic in question; 0: bf16 pairs. */
static void measure(bench *b, const char *name, kernel_fn fn, size_t n, double bytes, double flop, double peak)
{
    kernel_times t;

    if (!kernel_rig_measure(b->rig, name, fn, b, n, (kernel_work){bytes, flop, peak}, &t)) {
        return;
    }
    printf("%-26s %5zu %10.1f %10.1f %8.1f %8.1f %6.0f %% %6.0f %%\n", name, n, t.best * 1e6, t.median * 1e6,
           bytes / t.best * 1e-9, flop / t.best * 1e-9, 100.0 * t.bound / t.best, 100.0 * t.bound / t.median);
    (void)fflush(stdout);
}

/* ------------------------------------------------------------------------------------------------ what is measured */
/* TOP_K experts, n rows each. */
static void run_experts(bench *b, size_t n)
{
    uint32_t rows[MAX_ROWS];
    compute_group groups[TOP_K];

    for (size_t i = 0; i < n; i++) {
        rows[i] = (uint32_t)i;
    }
    for (size_t i = 0; i < TOP_K; i++) {
        groups[i] = (compute_group){b->experts[b->next++ % N_EXPERTS], rows, n, i * n};
    }
    b->d->ops->expert_ffn(b->d, b->results, b->x, groups, TOP_K);
}

/* TOP_K attention experts, n rows each. */
static void run_routed(bench *b, size_t n)
{
    uint32_t rows[MAX_ROWS], out_rows[TOP_K][MAX_ROWS];
    compute_routed groups[TOP_K];

    for (size_t i = 0; i < TOP_K; i++) {
        for (size_t r = 0; r < n; r++) {
            rows[r] = (uint32_t)r;
            out_rows[i][r] = (uint32_t)(r * TOP_K + i);
        }
        groups[i] = (compute_routed){b->matrices[b->next++ % N_MATRICES], rows, out_rows[i], n};
    }
    b->d->ops->matmul_routed(b->d, b->out, b->x, groups, TOP_K);
}

static void run_matmul(bench *b, size_t n)
{
    b->d->ops->matmul(b->d, b->out, b->x, b->matrices[b->next++ % N_MATRICES], NULL, n);
}

/* One row that sees n positions; MAX_ROWS rows, the last of which does. */
static void stick(bench *b, size_t n, size_t n_rows)
{
    for (size_t i = 0; i < n_rows; i++) {
        b->rows[i] = (compute_row){b->pages, (uint32_t)(n - n_rows + i)};
    }
    b->d->ops->step_begin(b->d, b->step, b->rows, n_rows);
    b->d->ops->stick_attention(b->d, b->out, b->x, b->kv, &kv_shape, 0, TOP_K, b->step);
}

static void run_stick_row(bench *b, size_t n)
{
    stick(b, n, 1);
}

static void run_stick_rows(bench *b, size_t n)
{
    stick(b, n, MAX_ROWS);
}

static void run_layer_norm(bench *b, size_t n)
{
    b->d->ops->layer_norm(b->d, b->wide, b->x, b->wide, b->gain, b->gain, 1e-5f, D_MODEL, n);
}

static void run_gelu(bench *b, size_t n)
{
    b->d->ops->activate(b->d, b->wide, COMPUTE_ACT_GELU_ERF, n * 256);
}

static double keys_seen(const bench *b, kernel_fn fn, bench *run, size_t n)
{
    compute_counters before, after;

    b->d->ops->counters(b->d, &before);
    fn(run, n);
    b->d->ops->counters(b->d, &after);
    return (double)(after.stick_keys_seen - before.stick_keys_seen);
}

/* A key is multiplied twice, in f32; it is read once for all rows at best. */
static void measure_stick(bench *b)
{
    double peak = cpu_limits_peak_f32(b->rig->threads, b->rig->isa);

    for (size_t n = 512; n <= MAX_CONTEXT; n *= 8) {
        double row = keys_seen(b, run_stick_row, b, n), rows = keys_seen(b, run_stick_rows, b, n);

        measure(b, "stick, 1 row over", run_stick_row, n, row / TOP_K * D_MODEL * 2, 4.0 * D_MODEL * row, peak);
        measure(b, "stick, 256 rows up to", run_stick_rows, n, (double)n * D_MODEL * 2, 4.0 * D_MODEL * rows, peak);
    }
}

static void measure_all(bench *b)
{
    static const size_t rows[] = {1, 4, 16, 64, 128};
    const double expert = 2.0 * D_FF * D_MODEL * TOP_K, square = (double)D_MODEL * D_MODEL;

    for (size_t i = 0; i < MOE_COUNT(rows); i++) {
        measure(b, "2 GELU experts", run_experts, rows[i], expert * 2, 2.0 * expert * (double)rows[i], 0.0);
    }
    for (size_t i = 0; i < MOE_COUNT(rows); i++) {
        measure(b, "2 routed 1024x1024", run_routed, rows[i], TOP_K * square * 2,
                TOP_K * 2.0 * square * (double)rows[i], 0.0);
    }
    for (size_t i = 0; i < MOE_COUNT(rows); i++) {
        measure(b, "matmul 1024x1024", run_matmul, rows[i], square * 2, 2.0 * square * (double)rows[i], 0.0);
    }
    measure_stick(b);
    measure(b, "layer norm", run_layer_norm, MAX_ROWS, 0.0, 0.0, 0.0);
    measure(b, "GELU (erf) of 256", run_gelu, MAX_ROWS, 0.0, 0.0, 0.0);
}

static void close_bench(bench *b)
{
    compute_mem *const all[] = {b->x, b->wide, b->out, b->results, b->kv, b->gain};

    for (size_t e = 0; e < N_EXPERTS; e++) {
        b->d->ops->expert_close(b->d, b->experts[e]);
    }
    for (size_t i = 0; i < N_MATRICES; i++) {
        b->d->ops->matrix_close(b->d, b->matrices[i]);
    }
    for (size_t i = 0; i < MOE_COUNT(all); i++) {
        b->d->ops->free(b->d, all[i]);
    }
    b->d->ops->step_close(b->d, b->step);
}

static void run(kernel_rig *rig)
{
    bench b = {.rig = rig, .d = rig->d};

    open_weights(&b);
    open_activations(&b);
    kernel_rig_print(rig);
    printf("packing input-major experts: %.1f GB/s, page faults included\n",
           N_EXPERTS * 2.0 * D_FF * D_MODEL * 2 / b.pack_seconds * 1e-9);
    printf("%-26s %5s %10s %10s %8s %8s %8s %8s\n", "", "rows", "p5 us", "median us", "GB/s", "GFLOP/s", "of limit",
           "median");
    measure_all(&b);
    close_bench(&b);
}

int main(int argc, char **argv)
{
    const kernel_program program = {.usage = "bench_families [--isa portable|avx2|avx512f|avx512] [--seconds S] "
                                             "[--only NAME] [--full-scan] [THREADS ...]",
                                    .seconds = 0.3,
                                    .options = {.numeric_class = COMPUTE_CLASS_BF16_1,
                                                .isa = COMPUTE_ISA_AUTO,
                                                .max_rows = MAX_ROWS,
                                                .max_ffn_rows = MAX_ROWS * TOP_K,
                                                .max_d_ff = D_FF,
                                                .max_context = MAX_CONTEXT},
                                    .has_full_scan = true,
                                    .run = run};

    return kernel_rig_main(&program, argc, argv);
}
