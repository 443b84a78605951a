/* How near the kernels come to the machine's limit, max(bytes / bandwidth, flop / peak), both measured in the same run.
 *
 *     bench_kernels [--isa portable|avx2|avx512f|avx512] [--seconds S] [--only NAME] [THREADS ...]     (default 1 and 2
 * threads)
 *
 * OLMoE's shapes, random distinct weights, 64 different experts (805 MB) so that every weight comes from memory.
 * Reported is the 5th percentile of the times (what repeats on a machine that others use) and the median. */
#include "bench/kernel_rig.h"
#include "compute/math.h"

#include <stdlib.h>
#include <string.h>

enum {
    D_MODEL = 2048,
    D_FF = 1024,
    VOCAB = 50304,
    N_EXPERTS = 64,
    N_HEADS = 16,
    HEAD_DIM = 128,
    PAGE_TOKENS = 16,
    MAX_CONTEXT = 4096,
    N_PAGES = MAX_CONTEXT / PAGE_TOKENS,
    MAX_ROWS = 512,
    TOP_K = 8,
    N_PROJECTIONS = 8
};

typedef struct bench {
    kernel_rig *rig;
    compute_device *d; /* the rig's */
    compute_expert *experts[N_EXPERTS];
    compute_matrix *projections[N_PROJECTIONS], *mapped[N_PROJECTIONS], *lm_head, *router;
    uint16_t *rows; /* row-major weights of the mapped projections */
    double pack_seconds;
    compute_mem *x, *wide, *rounded, *out, *results, *q, *k, *v, *kv, *gain, *table, *logits;
    compute_step *step;
    size_t next; /* which expert or projection comes next: the coldest */
} bench;

static compute_matrix *open_matrix(bench *b, uint16_t *scratch, size_t n_out, uint64_t seed, bool f32)
{
    compute_weight w = {scratch, COMPUTE_BF16, n_out, D_MODEL, false};
    compute_matrix *m = NULL;

    kernel_rig_fill(scratch, n_out * D_MODEL, seed);
    if (f32) {
        MOE_ASSERT(b->d->ops->matrix_open_f32(b->d, &w, &m) == MOE_OK);
    } else {
        MOE_ASSERT(b->d->ops->matrix_open(b->d, &w, COMPUTE_PACKED, &m) == MOE_OK);
    }
    return m;
}

static void open_weights(bench *b)
{
    uint16_t *scratch = kernel_rig_check(moe_pages_alloc((size_t)VOCAB * D_MODEL * 2));
    size_t part = (size_t)D_FF * D_MODEL;

    for (size_t e = 0; e < N_EXPERTS; e++) {
        compute_weight gate = {scratch, COMPUTE_BF16, D_FF, D_MODEL, false}, up = gate,
                       down = {scratch + 2 * part, COMPUTE_BF16, D_MODEL, D_FF, false};

        double start;

        kernel_rig_fill(scratch, 3 * part, e);
        up.data = scratch + part;
        start = kernel_rig_now();
        MOE_ASSERT(b->d->ops->expert_open(b->d, COMPUTE_FFN_SWIGLU, &gate, &up, &down, COMPUTE_PACKED,
                                          &b->experts[e]) == MOE_OK);
        b->pack_seconds += kernel_rig_now() - start;
    }
    b->rows = kernel_rig_check(moe_pages_alloc((size_t)N_PROJECTIONS * D_MODEL * D_MODEL * 2));
    for (size_t i = 0; i < N_PROJECTIONS; i++) {
        compute_weight w = {b->rows + i * D_MODEL * D_MODEL, COMPUTE_BF16, D_MODEL, D_MODEL, false};

        b->projections[i] = open_matrix(b, b->rows + i * D_MODEL * D_MODEL, D_MODEL, 100 + i, false);
        MOE_ASSERT(b->d->ops->matrix_open(b->d, &w, COMPUTE_MAPPED, &b->mapped[i]) == MOE_OK);
    }
    b->router = open_matrix(b, scratch, N_EXPERTS, 200, true);
    b->lm_head = open_matrix(b, scratch, VOCAB, 300, false);
    moe_pages_free(scratch, (size_t)VOCAB * D_MODEL * 2);
}

static compute_mem *room(bench *b, size_t bytes)
{
    return kernel_rig_check(b->d->ops->alloc(b->d, bytes));
}

static void open_activations(bench *b)
{
    size_t n = (size_t)MAX_ROWS * D_MODEL;
    uint16_t *x = kernel_rig_check(malloc(n * 2));
    double frequencies[HEAD_DIM / 2];
    float *table = kernel_rig_check(malloc((size_t)MAX_ROWS * HEAD_DIM * 4)), *wide = kernel_rig_check(malloc(n * 4));
    compute_kv_shape shape = {1, N_PAGES, PAGE_TOKENS, N_HEADS, HEAD_DIM, COMPUTE_BF16, false};

    MOE_ASSERT(b->d->ops->step_open(b->d, MAX_ROWS, PAGE_TOKENS, &b->step) == MOE_OK);
    kernel_rig_fill(x, n, 7);
    for (size_t i = 0; i < n; i++) {
        wide[i] = compute_f32_from_bf16(x[i]);
    }
    compute_rope_frequencies(frequencies, HEAD_DIM, 10000.0);
    compute_rope_table(table, MAX_ROWS, HEAD_DIM, frequencies, 1.0, 1.0);
    b->rounded = room(b, n * 4);
    b->wide = room(b, n * 4);
    b->x = room(b, n * 4);
    b->out = room(b, (size_t)64 * VOCAB * 4);
    b->results = room(b, n * TOP_K * 2);
    b->q = room(b, n * 4);
    b->k = room(b, n * 4);
    b->v = room(b, n * 4);
    b->kv = room(b, N_PAGES * compute_kv_page_bytes(&shape));
    b->gain = room(b, D_MODEL * 4);
    b->table = room(b, (size_t)MAX_ROWS * HEAD_DIM * 4);
    b->logits = room(b, (size_t)MAX_ROWS * N_EXPERTS * 4);
    b->d->ops->upload(b->d, b->rounded, x, n * 2);
    b->d->ops->upload(b->d, b->wide, wide, n * 4);
    b->d->ops->upload(b->d, b->gain, wide, D_MODEL * 4);
    b->d->ops->upload(b->d, b->table, table, (size_t)MAX_ROWS * HEAD_DIM * 4);
    free(x);
    free(table);
    free(wide);
}

/* ------------------------------------------------------------------------------------------------ measuring */
static void measure(bench *b, const char *name, kernel_fn fn, size_t n, double bytes, double flop)
{
    kernel_times t;

    if (!kernel_rig_measure(b->rig, name, fn, b, n, (kernel_work){.bytes = bytes, .flop = flop}, &t)) {
        return;
    }
    printf("%-24s %5zu %10.0f %10.0f %8.1f %8.1f %7s %6.0f %% %6.0f %%\n", name, n, t.best * 1e6, t.median * 1e6,
           bytes / t.best * 1e-9, flop / t.best * 1e-9, t.by_memory ? "memory" : "flop", 100.0 * t.bound / t.best,
           100.0 * t.bound / t.median);
    (void)fflush(stdout);
}

/* 8 experts, n rows each: a layer of n decoding sequences that all differ would spread them further. */
static void run_experts(bench *b, size_t n)
{
    static uint32_t rows[MAX_ROWS];
    compute_group groups[TOP_K];

    for (size_t i = 0; i < n; i++) {
        rows[i] = (uint32_t)i;
    }
    for (size_t i = 0; i < TOP_K; i++) {
        groups[i] = (compute_group){b->experts[b->next++ % N_EXPERTS], rows, n, i * n};
    }
    b->d->ops->expert_ffn(b->d, b->results, b->rounded, groups, TOP_K);
}

static void run_projection(bench *b, size_t n)
{
    b->d->ops->matmul(b->d, b->out, b->rounded, b->projections[b->next++ % N_PROJECTIONS], NULL, n);
}

static void run_mapped(bench *b, size_t n)
{
    b->d->ops->matmul(b->d, b->out, b->rounded, b->mapped[b->next++ % N_PROJECTIONS], NULL, n);
}

static void run_lm_head(bench *b, size_t n)
{
    b->d->ops->matmul(b->d, b->out, b->rounded, b->lm_head, NULL, n);
}

/* One decoding row that sees n positions. */
static void run_attention(bench *b, size_t n)
{
    static uint32_t pages[N_PAGES];
    const compute_kv_shape shape = {1, N_PAGES, PAGE_TOKENS, N_HEADS, HEAD_DIM, COMPUTE_BF16, false};
    const compute_row row = {pages, (uint32_t)n - 1};

    for (uint32_t i = 0; i < N_PAGES; i++) {
        pages[i] = (i * 37) % N_PAGES;
    }
    b->d->ops->step_begin(b->d, b->step, &row, 1);
    b->d->ops->attention(b->d, b->out, b->rounded, b->kv, &shape, 0, N_HEADS, b->step);
}

static void measure_products(bench *b)
{
    static const size_t rows[] = {1, 2, 4, 8, 16, 32, 64, 128};
    const double expert = 3.0 * D_FF * D_MODEL * TOP_K, projection = (double)D_MODEL * D_MODEL,
                 head = (double)VOCAB * D_MODEL;

    for (size_t i = 0; i < MOE_COUNT(rows); i++) {
        measure(b, "8 experts", run_experts, rows[i], expert * 2, 2.0 * expert * (double)rows[i]);
    }
    for (size_t i = 0; i < MOE_COUNT(rows); i++) {
        measure(b, "projection 2048x2048", run_projection, rows[i], projection * 2, 2.0 * projection * (double)rows[i]);
    }
    for (size_t i = 0; i < MOE_COUNT(rows); i++) {
        measure(b, "the same, mapped", run_mapped, rows[i], projection * 2, 2.0 * projection * (double)rows[i]);
    }
    for (size_t i = 0; i < 7; i += 2) {
        measure(b, "lm_head 50304x2048", run_lm_head, rows[i], head * 2, 2.0 * head * (double)rows[i]);
    }
    for (size_t n = 512; n <= MAX_CONTEXT; n *= 8) {
        measure(b, "attention of 1 row over", run_attention, n, 4.0 * D_MODEL * (double)n, 4.0 * D_MODEL * (double)n);
    }
}

/* ------------------------------------------------------------------------------------------------ a prefilled layer */
typedef enum { T_NORMS, T_PROJECTIONS, T_ROPE, T_ATTENTION, T_ROUTER, T_EXPERTS, T_COMBINE, N_TIMES } layer_part;
static const char *const part_names[N_TIMES] = {"norms",  "projections", "rope and KV", "attention",
                                                "router", "experts",     "combine"};

static double times[N_TIMES];

static double lap(double *since, layer_part part)
{
    double now = kernel_rig_now(), t = now - *since;

    times[part] += t;
    *since = now;
    return t;
}

/* Every row picks 8 of 64 experts; each expert gets n / 8 rows. */
static void layer(bench *b, size_t n)
{
    static uint32_t members[N_EXPERTS][MAX_ROWS];
    static compute_pick picks[MAX_ROWS * TOP_K];
    static compute_group groups[N_EXPERTS];
    static compute_row rows[MAX_ROWS];
    static uint32_t pages[N_PAGES];
    const compute_kv_shape shape = {1, N_PAGES, PAGE_TOKENS, N_HEADS, HEAD_DIM, COMPUTE_BF16, false};
    const compute_ops *o = b->d->ops;
    size_t n_members[N_EXPERTS] = {0}, at = 0;
    double t;

    for (uint32_t i = 0; i < N_PAGES; i++) {
        pages[i] = (i * 37) % N_PAGES;
    }
    for (size_t i = 0; i < n * TOP_K; i++) {
        size_t e = (i / TOP_K * 13 + i % TOP_K * 8) % N_EXPERTS;

        members[e][n_members[e]++] = (uint32_t)(i / TOP_K);
        picks[i] = (compute_pick){0.125f, (uint32_t)i};
        rows[i / TOP_K] = (compute_row){pages, (uint32_t)(i / TOP_K)};
    }
    for (size_t e = 0; e < N_EXPERTS; e++) {
        groups[e] = (compute_group){b->experts[e], members[e], n_members[e], at};
        at += n_members[e];
    }
    o->step_begin(b->d, b->step, rows, n);
    t = kernel_rig_now();
    o->rms_norm(b->d, b->x, b->rounded, b->wide, D_MODEL, b->gain, 1e-5f, D_MODEL, n);
    (void)lap(&t, T_NORMS);
    o->matmul(b->d, b->q, b->rounded, b->projections[0], NULL, n);
    o->matmul(b->d, b->k, b->rounded, b->projections[1], NULL, n);
    o->matmul(b->d, b->v, b->rounded, b->projections[2], NULL, n);
    (void)lap(&t, T_PROJECTIONS);
    o->rms_norm(b->d, b->q, NULL, b->q, D_MODEL, b->gain, 1e-5f, D_MODEL, n);
    o->rms_norm(b->d, b->k, NULL, b->k, D_MODEL, b->gain, 1e-5f, D_MODEL, n);
    (void)lap(&t, T_NORMS);
    o->rope(b->d, b->q, b->table, N_HEADS, HEAD_DIM, b->step);
    o->rope(b->d, b->k, b->table, N_HEADS, HEAD_DIM, b->step);
    o->kv_store(b->d, b->kv, &shape, 0, b->k, b->v, b->step);
    o->to_class(b->d, b->k, b->q, n * D_MODEL);
    (void)lap(&t, T_ROPE);
    o->attention(b->d, b->out, b->k, b->kv, &shape, 0, N_HEADS, b->step);
    (void)lap(&t, T_ATTENTION);
    o->to_class(b->d, b->k, b->out, n * D_MODEL);
    o->matmul(b->d, b->out, b->k, b->projections[3], NULL, n);
    o->add(b->d, b->out, b->wide, n * D_MODEL);
    (void)lap(&t, T_PROJECTIONS);
    o->rms_norm(b->d, b->x, b->k, b->out, D_MODEL, b->gain, 1e-5f, D_MODEL, n);
    (void)lap(&t, T_NORMS);
    o->matmul_f32(b->d, b->logits, b->x, b->router, NULL, n);
    (void)lap(&t, T_ROUTER);
    o->expert_ffn(b->d, b->results, b->k, groups, N_EXPERTS);
    (void)lap(&t, T_EXPERTS);
    o->combine(b->d, b->out, b->results, COMPUTE_BF16, picks, NULL, TOP_K, D_MODEL, n);
    (void)lap(&t, T_COMBINE);
}

static void measure_layer(bench *b, size_t n)
{
    const double weights = 4.0 * D_MODEL * D_MODEL + 3.0 * D_FF * D_MODEL * TOP_K + (double)N_EXPERTS * D_MODEL;
    const double scores = 2.0 * (double)n * (double)n / 2.0 * D_MODEL;
    double total = 0.0;

    memset(times, 0, sizeof(times));
    measure(b, "prefill of a layer", layer, n, (4.0 * D_MODEL * D_MODEL + 3.0 * D_FF * D_MODEL * N_EXPERTS) * 2,
            2.0 * (weights * (double)n + scores));
    if (times[T_EXPERTS] == 0.0) {
        return;
    }
    for (size_t i = 0; i < N_TIMES; i++) {
        total += times[i];
    }
    for (size_t i = 0; i < N_TIMES; i++) {
        printf("    %-20s %5.1f %%\n", part_names[i], 100.0 * times[i] / total);
    }
}

static void close_bench(bench *b)
{
    compute_mem *const all[] = {b->x, b->wide, b->rounded, b->out,  b->results, b->q,
                                b->k, b->v,    b->kv,      b->gain, b->table,   b->logits};

    for (size_t e = 0; e < N_EXPERTS; e++) {
        b->d->ops->expert_close(b->d, b->experts[e]);
    }
    for (size_t i = 0; i < N_PROJECTIONS; i++) {
        b->d->ops->matrix_close(b->d, b->projections[i]);
        b->d->ops->matrix_close(b->d, b->mapped[i]);
    }
    moe_pages_free(b->rows, (size_t)N_PROJECTIONS * D_MODEL * D_MODEL * 2);
    b->d->ops->matrix_close(b->d, b->lm_head);
    b->d->ops->matrix_close(b->d, b->router);
    b->d->ops->step_close(b->d, b->step);
    for (size_t i = 0; i < MOE_COUNT(all); i++) {
        b->d->ops->free(b->d, all[i]);
    }
}

static void run(kernel_rig *rig)
{
    bench b = {.rig = rig, .d = rig->d};

    open_weights(&b);
    open_activations(&b);
    kernel_rig_print(rig);
    printf("packing: %.1f GB/s, page faults included\n", N_EXPERTS * 3.0 * D_FF * D_MODEL * 2 / b.pack_seconds * 1e-9);
    printf("%-24s %5s %10s %10s %8s %8s %7s %8s %8s\n", "", "rows", "p5 us", "median us", "GB/s", "GFLOP/s", "limit",
           "of limit", "median");
    measure_products(&b);
    measure_layer(&b, MAX_ROWS);
    printf("best limits of the run: bandwidth %.1f GB/s, peak %.0f GFLOP/s\n", rig->bandwidth * 1e-9, rig->peak * 1e-9);
    close_bench(&b);
}

int main(int argc, char **argv)
{
    const kernel_program program = {
        .usage = "bench_kernels [--isa portable|avx2|avx512f|avx512] [--seconds S] [--only NAME] [THREADS ...]",
        .seconds = 0.5,
        .options = {.numeric_class = COMPUTE_CLASS_BF16_1,
                    .isa = COMPUTE_ISA_AUTO,
                    .max_rows = MAX_ROWS,
                    .max_ffn_rows = MAX_ROWS * TOP_K,
                    .max_d_ff = D_FF,
                    .max_context = MAX_CONTEXT},
        .run = run};

    return kernel_rig_main(&program, argc, argv);
}
