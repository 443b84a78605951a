/* Speed of the products on a real GPU beside what it can do at most, in one run: the second half of tools/gpu_check.sh. Shapes of
 * OLMoE-1B-7B: 64 experts of 2048 x 1024, 8 a token; its attention's square matrices. */
#include "compute/module.h"
#include "bench/cuda/limits.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define D_MODEL   2048u
#define D_FF      1024u
#define N_EXPERTS 64u
#define TOP_K     8u
#define MAX_ROWS  256u

const compute_module *conclave_compute_module(void);

static double now(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void check(bool ok, const char *what)
{
    if (!ok) {
        printf("gpu_bench: %s\n", what);
        exit(1);
    }
}

typedef struct rig {
    compute_device *d;
    compute_expert *experts[N_EXPERTS];
    compute_matrix *square;
    compute_mem *x, *out, *out_f32;
    uint32_t rows[N_EXPERTS][MAX_ROWS];
    compute_group groups[N_EXPERTS];
    double bytes_s, flop_s; /* the limits */
} rig;

static void *random_bf16(size_t n)
{
    uint16_t *w = malloc(n * 2);
    uint32_t r = 1;

    check(w != NULL, "no memory");
    for (size_t i = 0; i < n; i++) {
        r = r * 1664525u + 1013904223u;
        w[i] = (uint16_t)(0x3c00u | (r >> 16 & 0x80ffu));
    }
    return w;
}

static void rig_open(rig *g)
{
    const compute_device_options o = {.numeric_class = COMPUTE_CLASS_BF16_1,
                                      .max_rows = MAX_ROWS,
                                      .max_ffn_rows = MAX_ROWS * TOP_K,
                                      .max_d_ff = D_FF,
                                      .max_context = 4096};
    void *w = random_bf16((size_t)D_MODEL * D_MODEL);
    const compute_weight up = {w, COMPUTE_BF16, D_FF, D_MODEL, false}, down = {w, COMPUTE_BF16, D_MODEL, D_FF, false},
                         square = {w, COMPUTE_BF16, D_MODEL, D_MODEL, false};
    moe_error err = {""};

    check(conclave_compute_module()->open(0, &o, &g->d, &err) == MOE_OK, err.text);
    for (size_t i = 0; i < N_EXPERTS; i++) {
        check(g->d->ops->expert_open(g->d, COMPUTE_FFN_SWIGLU, &up, &up, &down, COMPUTE_PACKED, &g->experts[i]) ==
                  MOE_OK,
              "no memory for the experts");
    }
    check(g->d->ops->matrix_open(g->d, &square, COMPUTE_PACKED, &g->square) == MOE_OK, "no memory for a matrix");
    g->x = g->d->ops->alloc(g->d, MAX_ROWS * D_MODEL * 2);
    g->out = g->d->ops->alloc(g->d, MAX_ROWS * TOP_K * D_MODEL * 2);
    g->out_f32 = g->d->ops->alloc(g->d, MAX_ROWS * D_MODEL * 4);
    check(g->x != NULL && g->out != NULL && g->out_f32 != NULL, "no memory for rows");
    g->d->ops->upload(g->d, g->x, w, MAX_ROWS * D_MODEL * 2);
    free(w);
}

/* Each token's 8 different experts, by a generator. */
static size_t route(rig *g, size_t n_tokens)
{
    size_t n[N_EXPERTS] = {0}, n_groups = 0, at = 0;
    uint32_t r = 12345;

    for (size_t t = 0; t < n_tokens; t++) {
        bool taken[N_EXPERTS] = {false};

        for (size_t k = 0; k < TOP_K;) {
            r = r * 1664525u + 1013904223u;
            uint32_t e = r >> 16 & (N_EXPERTS - 1);

            if (!taken[e]) {
                taken[e] = true;
                g->rows[e][n[e]++] = (uint32_t)t;
                k++;
            }
        }
    }
    for (size_t e = 0; e < N_EXPERTS; e++) {
        if (n[e] > 0) {
            g->groups[n_groups++] = (compute_group){g->experts[e], g->rows[e], n[e], at};
            at += n[e];
        }
    }
    return n_groups;
}

static void print(const rig *g, const char *what, size_t n, double s, double bytes, double flop)
{
    double memory = bytes / g->bytes_s, fma = flop / g->flop_s;

    printf("| %s | %zu | %.1f | %.0f | %.1f | %.0f %% of %s |\n", what, n, s * 1e6, bytes / s * 1e-9, flop / s * 1e-12,
           100.0 * MOE_MAX(memory, fma) / s, memory > fma ? "copy bandwidth" : "FMA peak");
}

int main(void)
{
    static rig g;
    static const size_t rows[] = {1, 8, 64, 256};
    const int rounds = 50;

    rig_open(&g);
    check(conclave_gpu_limits(0, &g.bytes_s, &g.flop_s), "the limits cannot be measured");
    printf("%s: copies %.0f GB/s, FMA %.1f TFLOP/s\n\n", g.d->name, g.bytes_s * 1e-9, g.flop_s * 1e-12);
    printf("| what | tokens | us | GB/s | TFLOP/s | of the limit |\n|---|---|---|---|---|---|\n");
    for (size_t i = 0; i < MOE_COUNT(rows); i++) {
        size_t n = rows[i], n_groups = route(&g, n);
        double t = 0;

        for (int r = -5; r < rounds; r++) { /* the first ones warm up */
            if (r == 0) {
                check(g.d->ops->sync(g.d) == MOE_OK, "the device has failed");
                t = now();
            }
            g.d->ops->expert_ffn(g.d, g.out, g.x, g.groups, n_groups);
        }
        check(g.d->ops->sync(g.d) == MOE_OK, "the device has failed");
        print(&g, "experts' FFN, 8 of 64", n, (now() - t) / rounds, (double)n_groups * 3 * D_MODEL * D_FF * 2,
              (double)n * TOP_K * 6 * D_MODEL * D_FF);
        for (int r = -5; r < rounds; r++) {
            if (r == 0) {
                check(g.d->ops->sync(g.d) == MOE_OK, "the device has failed");
                t = now();
            }
            g.d->ops->matmul(g.d, g.out_f32, g.x, g.square, NULL, n);
        }
        check(g.d->ops->sync(g.d) == MOE_OK, "the device has failed");
        print(&g, "a 2048 x 2048 product (in L2)", n, (now() - t) / rounds, (double)D_MODEL * D_MODEL * 2,
              (double)n * 2 * D_MODEL * D_MODEL);
    }
    for (size_t i = 0; i < N_EXPERTS; i++) {
        g.d->ops->expert_close(g.d, g.experts[i]);
    }
    g.d->ops->matrix_close(g.d, g.square);
    g.d->ops->free(g.d, g.x);
    g.d->ops->free(g.d, g.out);
    g.d->ops->free(g.d, g.out_f32);
    compute_close(g.d);
    return 0;
}
