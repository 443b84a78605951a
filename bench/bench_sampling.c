/* What sampling takes, against a plain pass over the same logits (compute_row_max: each is read once) by the same threads
 * in the same turn. Rows are given to the threads as the engine gives them.
 *
 *     bench_sampling [--turns N] [--vocab N] [THREADS ...]
 *
 * (default 31 turns, 50304 ids, 1 and 2 threads.) A row is as peaked as a trained model's: at temperature 1 the best id has
 * 0.38, and 0.95 are reached by some 200 ids. `flat` is that of an untrained head, the worst there is: half the vocabulary
 * is sorted. Reported are the 5th percentile of the turns and the median, for all rows; a row's share, and passes, are of the former. */
#include "compute/math.h"
#include "sampling/sampling.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MAX_ROWS = 128, N_HISTORY = 1024, MAX_TURNS = 1001, MAX_THREADS = 256 };

typedef struct kind {
    const char *name;
    sampling_params p;
    size_t n_top; /* log-probabilities */
    bool flat;
} kind;

#define PLAIN .top_p = 1.0f, .repetition_penalty = 1.0f

static const kind kinds[] = {
    {"greedy", {PLAIN}, 0, false},
    {"temperature 1", {PLAIN, .temperature = 1.0f}, 0, false},
    {"temperature 0.8", {PLAIN, .temperature = 0.8f}, 0, false},
    {"top-k 50", {PLAIN, .temperature = 0.8f, .top_k = 50}, 0, false},
    {"top-p 0.95", {.temperature = 0.8f, .top_p = 0.95f, .repetition_penalty = 1.0f}, 0, false},
    {"temperature 1, 5 logprobs", {PLAIN, .temperature = 1.0f}, 5, false},
    {"greedy, 5 logprobs", {PLAIN}, 5, false},
    {"temperature 0.8, penalties", {.temperature = 0.8f, .top_p = 1.0f, .repetition_penalty = 1.1f}, 0, false},
    {"temperature 1, flat", {PLAIN, .temperature = 1.0f}, 0, true},
};

typedef struct bench {
    moe_threads *threads;
    sampler *samplers[MAX_THREADS];
    size_t vocab_size, n_rows;
    float *peaked, *flat; /* [MAX_ROWS, vocab_size] */
    int32_t history[N_HISTORY];
    const kind *kind; /* NULL: the plain pass */
    float seen[MAX_ROWS];
    int32_t tokens[MAX_ROWS];
    uint32_t turn;
} bench;

static double now(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void *check(void *p)
{
    MOE_ASSERT(p != NULL);
    return p;
}

/* An odd number times the rank is another id for every rank, as long as the two have no factor in common. */
static void fill(bench *b)
{
    for (size_t row = 0; row < MAX_ROWS; row++) {
        moe_random random;

        moe_random_seed(&random, row + 1);
        for (size_t i = 0; i < b->vocab_size; i++) {
            size_t id = (i * 7919 + row * 131) % b->vocab_size;
            float noise = (float)moe_random_below(&random, 1000) * 1e-3f;
            b->peaked[row * b->vocab_size + id] = 12.0f - 1.5f * logf((float)(i + 1)) + 0.1f * noise;
            b->flat[row * b->vocab_size + id] = noise;
        }
    }
    for (size_t i = 0; i < N_HISTORY; i++) {
        b->history[i] = (int32_t)(i * 37 % b->vocab_size);
    }
}

static void task(void *ctx, size_t row, size_t thread)
{
    bench *b = ctx;
    const kind *k = b->kind;
    const float *logits = (k != NULL && k->flat ? b->flat : b->peaked) + row * b->vocab_size;
    const sampling_history history = {b->history, N_HISTORY / 2, b->history + N_HISTORY / 2, N_HISTORY / 2};
    sampling_top top[SAMPLING_MAX_TOP_LOGPROBS];

    if (k == NULL) {
        b->seen[row] = compute_row_max(logits, b->vocab_size);
        return;
    }
    sampler *s = b->samplers[thread];
    MOE_ASSERT(sampler_pick(s, &k->p, logits, &history, NULL, 0, b->turn, (uint32_t)row, &b->tokens[row]) == MOE_OK);
    if (k->n_top > 0) {
        MOE_ASSERT(sampler_logprobs(s, logits, b->tokens[row], &b->seen[row], k->n_top, top) == MOE_OK);
    }
}

static double timed(bench *b, const kind *k, uint32_t turn)
{
    double begin = now();

    b->kind = k;
    b->turn = turn;
    moe_threads_run(b->threads, b->n_rows, task, b);
    return now() - begin;
}

static int by_value(const void *x, const void *y)
{
    double a = *(const double *)x, b = *(const double *)y;

    return (a > b) - (a < b);
}

/* Returns the 5th percentile. */
static double print(const char *name, size_t n_rows, double *took, size_t n, double pass)
{
    qsort(took, n, sizeof *took, by_value);
    double best = took[n / 20];

    printf("%-28s %4zu %10.1f %10.1f %10.1f %8.1f\n", name, n_rows, best * 1e6, took[n / 2] * 1e6,
           best / (double)n_rows * 1e6, best / (pass > 0.0 ? pass : best));
    return best;
}

static void measure(bench *b, size_t n_turns)
{
    static double pass[MAX_TURNS], took[MOE_COUNT(kinds)][MAX_TURNS];

    for (size_t turn = 0; turn < n_turns; turn++) {
        for (size_t k = 0; k < MOE_COUNT(kinds); k++) {
            if (kinds[k].flat && turn >= 3) { /* slow, and of no use to anybody */
                took[k][turn] = took[k][turn % 3];
                continue;
            }
            took[k][turn] = timed(b, &kinds[k], (uint32_t)turn);
        }
        pass[turn] = timed(b, NULL, 0);
    }
    double once = print("plain pass", b->n_rows, pass, n_turns, 0.0);
    for (size_t k = 0; k < MOE_COUNT(kinds); k++) {
        (void)print(kinds[k].name, b->n_rows, took[k], n_turns, once);
    }
}

static void run(bench *b, size_t n_threads, size_t n_turns)
{
    const size_t rows[] = {1, 8, 32, MAX_ROWS};

    MOE_ASSERT(n_threads > 0 && n_threads <= MAX_THREADS &&
               moe_threads_open(n_threads, compute_thread_init, &b->threads) == MOE_OK);
    for (size_t i = 0; i < n_threads; i++) {
        MOE_ASSERT(sampler_open(b->vocab_size, &b->samplers[i]) == MOE_OK);
    }
    printf("%zu threads, %zu ids\n%-28s %4s %10s %10s %10s %8s\n", n_threads, b->vocab_size, "", "rows", "p5 us",
           "median us", "us a row", "passes");
    for (size_t i = 0; i < MOE_COUNT(rows); i++) {
        b->n_rows = rows[i];
        measure(b, n_turns);
    }
    for (size_t i = 0; i < n_threads; i++) {
        sampler_close(b->samplers[i]);
    }
    moe_threads_close(b->threads);
}

static size_t number(const char *text, size_t least, size_t most)
{
    char *end = NULL;
    unsigned long n = text == NULL ? 0 : strtoul(text, &end, 10);

    if (end == NULL || *end != '\0' || n < least || n > most) {
        (void)fprintf(stderr, "usage: bench_sampling [--turns N] [--vocab N] [THREADS ...]\n");
        exit(2);
    }
    return n;
}

int main(int argc, char **argv)
{
    bench b = {.vocab_size = 50304};
    size_t n_turns = 31;
    int at = 1;

    for (; at + 1 < argc && strncmp(argv[at], "--", 2) == 0; at += 2) {
        if (strcmp(argv[at], "--turns") == 0) {
            n_turns = number(argv[at + 1], 3, MAX_TURNS);
        } else {
            b.vocab_size = number(strcmp(argv[at], "--vocab") == 0 ? argv[at + 1] : NULL, 100, 1000000);
        }
    }
    compute_thread_init();
    b.peaked = check(calloc(MAX_ROWS * b.vocab_size, sizeof *b.peaked));
    b.flat = check(calloc(MAX_ROWS * b.vocab_size, sizeof *b.flat));
    fill(&b);
    if (at == argc) {
        run(&b, 1, n_turns);
        run(&b, 2, n_turns);
    }
    for (; at < argc; at++) {
        run(&b, number(argv[at], 1, MAX_THREADS), n_turns);
    }
    free(b.peaked);
    free(b.flat);
    return 0;
}
