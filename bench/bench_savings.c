/* What sparse models save, through the engine with its embedded node, on random weights:
 *
 *     bench_savings [--only zero|dense] [--layers N] [--windows N] [THREADS]     (default: both, all cores)
 *
 * zero: experts of zero computation. Layers of MoE++-7B's shape with a router that picks them at a known share
 * (bench/image.h): time of the experts in steps of 4096 prompt tokens and in decode at batch 8, at shares 0, 20, 40 and
 * 60 %. One model holds all shares, each in its part of the vocabulary, and they take turns, so that a change of the
 * machine's speed hits all of them alike.
 *
 * dense: MoLM-350M-4B's shape against the matrices of Pythia-1.4B, a dense model, as one attention expert and one MLP
 * expert of the same family. docs/benchmarks.md explains the figures. */
#include "bench/load.h"
#include "bench/rig.h"

#include <stdlib.h>
#include <string.h>

enum {
    MAX_WINDOWS = 9,
    PREFILL_BATCH = 8,
    PREFILL_PROMPT = 512,
    PREFILL_ROWS = PREFILL_BATCH * PREFILL_PROMPT,
    DECODE_PROMPT = 16,
    ZERO_STEPS = 24, /* of a window of decode */
    DENSE_STEPS = 8,
    MAX_CONTEXT = 1024,
    DENSE_LAYERS = 24,
    ZERO_LAYERS = 2,
    N_SHARES = 4
};

typedef struct bench_config {
    char *only;
    uint32_t layers, windows;
} bench_config;

static const char *const parts[] = {"all", "zero", "dense", NULL};
static const moe_option options[] = {
    {"only", MOE_OPT_CHOICE, offsetof(bench_config, only), "all", 0, 0, parts, "PART", "measure one part", false},
    {"layers", MOE_OPT_U32, offsetof(bench_config, layers), "8", 1, DENSE_LAYERS, NULL, "N",
     "layers of 24 of MoLM and Pythia; fewer if memory is short", false},
    {"windows", MOE_OPT_U32, offsetof(bench_config, windows), "5", 1, MAX_WINDOWS, NULL, "N",
     "how often each measurement is made", false},
};
static const moe_program program = {.name = "bench_savings",
                                    .summary = "bench_savings [OPTION]... [THREADS] (default: all cores)\n"
                                               "Time that experts of zero computation and sparse models save.",
                                    .options = options,
                                    .n_options = MOE_COUNT(options)};

typedef struct bench {
    rig rig;
    moe_random random;
    size_t n_windows;
    load load;
    int32_t *ids; /* owned [vocab_size]: a part of the vocabulary, shuffled as far as needed */
} bench;

static double now_s(void)
{
    return (double)moe_now_ns(moe_clock_real()) * 1e-9;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double median(const double *values, size_t n)
{
    double sorted[MAX_WINDOWS];

    memcpy(sorted, values, n * sizeof *values);
    qsort(sorted, n, sizeof *sorted, by_value);
    return n % 2 == 1 ? sorted[n / 2] : 0.5 * (sorted[n / 2 - 1] + sorted[n / 2]);
}

/* ------------------------------------------------------------------------------------------------ requests */
/* n different random tokens out of first .. first + count - 1 begin b->ids. */
static void draw(bench *b, size_t first, size_t count, size_t n)
{
    for (size_t i = 0; i < count; i++) {
        b->ids[i] = (int32_t)(first + i);
    }
    for (size_t i = 0; i < n; i++) {
        size_t j = i + moe_random_below(&b->random, count - i);
        int32_t id = b->ids[i];
        b->ids[i] = b->ids[j];
        b->ids[j] = id;
    }
}

/* ------------------------------------------------------------------------------------------------ steps */
typedef struct counts {
    uint64_t rows[MODEL_MAX_LAYERS * 32]; /* by layer and expert */
    uint64_t ffn_picks, tokens;           /* in all layers */
} counts;

/* What some steps took. */
typedef struct measure {
    double seconds, expert_seconds, local_seconds, n_steps;
    double ffn_picks; /* of a row, mean over the layers */
    double distinct;  /* FFN experts that a layer reads in a step */
} measure;

static void count(bench *b, counts *out)
{
    const model_config *c = &b->rig.config;
    uint64_t by_number[MODEL_MAX_LAYERS * 8];
    size_t k = c->gate.k;

    MOE_ASSERT(c->n_experts <= 32 && k < 8);
    (void)engine_get_expert_rows(b->rig.engine, out->rows, (size_t)c->n_layers * c->n_experts);
    engine_get_ffn_picks(b->rig.engine, by_number, c->n_layers * (k + 1));
    out->ffn_picks = out->tokens = 0;
    for (size_t i = 0; i < c->n_layers * (k + 1); i++) {
        out->ffn_picks += by_number[i] * (i % (k + 1));
        out->tokens += by_number[i];
    }
}

static double count_distinct(const model_config *c, const counts *before, const counts *after)
{
    size_t n = 0;

    for (size_t i = 0; i < (size_t)c->n_layers * c->n_experts; i++) {
        n += i % c->n_experts < c->n_ffn_experts && before->rows[i] != after->rows[i];
    }
    return (double)n / c->n_layers;
}

/* Runs and times one step, added to m. */
static moe_status step(bench *b, measure *m, moe_error *err)
{
    static counts before, after;
    timed_report report = {.ns = {0}};
    double start;

    count(b, &before);
    timed_device_begin(b->rig.device, &report);
    start = now_s();
    (void)engine_step(b->rig.engine);
    m->seconds += now_s() - start;
    timed_device_end(b->rig.device);
    count(b, &after);
    m->n_steps += 1.0;
    m->expert_seconds += (double)(report.ns[TIMED_EXPERTS] + report.ns[TIMED_LOCAL]) * 1e-9;
    m->local_seconds += (double)report.ns[TIMED_LOCAL] * 1e-9;
    m->ffn_picks += (double)(after.ffn_picks - before.ffn_picks) / (double)(after.tokens - before.tokens);
    m->distinct += count_distinct(&b->rig.config, &before, &after);
    return load_read(&b->load, err);
}

static void mean_of_steps(measure *m)
{
    double n = m->n_steps;

    *m = (measure){m->seconds / n, m->expert_seconds / n, m->local_seconds / n, 1.0, m->ffn_picks / n, m->distinct / n};
}

/* One step of 8 prompts of 512 different tokens out of count from first on. */
static moe_status prefill(bench *b, size_t first, size_t count, measure *out, moe_error *err)
{
    moe_status status = MOE_OK;

    *out = (measure){.seconds = 0.0};
    draw(b, first, count, PREFILL_ROWS);
    for (size_t i = 0; i < PREFILL_BATCH && status == MOE_OK; i++) {
        status = load_submit(&b->load, b->ids + i * PREFILL_PROMPT, PREFILL_PROMPT, 1, err);
    }
    if (status == MOE_OK) {
        status = step(b, out, err);
    }
    if (status == MOE_OK && !load_all_decode(&b->load)) {
        status = moe_fail(err, MOE_ERR_INTERNAL, "a step of %d rows did not take them all", PREFILL_ROWS);
    }
    load_end(&b->load);
    return status;
}

/* n_steps of `batch` sequences, each with a prompt of 16 tokens. */
static moe_status decode(bench *b, size_t first, size_t count, size_t batch, uint32_t n_steps, measure *out,
                         moe_error *err)
{
    measure unused = {.seconds = 0.0};
    moe_status status = MOE_OK;

    *out = (measure){.seconds = 0.0};
    draw(b, first, count, batch * DECODE_PROMPT);
    for (size_t i = 0; i < batch && status == MOE_OK; i++) {
        status = load_submit(&b->load, b->ids + i * DECODE_PROMPT, DECODE_PROMPT, n_steps + 2, err);
    }
    while (status == MOE_OK && !load_all_decode(&b->load)) {
        status = step(b, &unused, err);
    }
    for (size_t i = 0; i < n_steps && status == MOE_OK; i++) {
        status = step(b, out, err);
    }
    mean_of_steps(out);
    load_end(&b->load);
    return status;
}

/* ------------------------------------------------------------------------------------------------ open */
static moe_status open_bench(bench *b, size_t n_threads, const char *config, const image_shares *shares, moe_error *err)
{
    const rig_model m = {.config_json = config,
                         .shares = shares,
                         .max_rows = PREFILL_ROWS,
                         .prefill_chunk = PREFILL_PROMPT,
                         .max_running = LOAD_MAX,
                         .max_context = MAX_CONTEXT,
                         .kv_tokens = PREFILL_BATCH * (PREFILL_PROMPT + MODEL_KV_PAGE_TOKENS),
                         .isa = COMPUTE_ISA_AUTO};
    moe_status status = rig_open_model(&b->rig, n_threads, &m, err);

    if (status == MOE_OK && (b->ids = calloc(b->rig.config.vocab_size, sizeof *b->ids)) == NULL) {
        rig_close(&b->rig);
        status = moe_fail(err, MOE_ERR_NO_MEMORY, "token ids: out of memory");
    }
    b->load.engine = b->rig.engine;
    moe_random_seed(&b->random, 5);
    return status;
}

static void close_bench(bench *b)
{
    rig_close(&b->rig);
    free(b->ids);
    b->ids = NULL;
}

/* ------------------------------------------------------------------------------------------------ zero */
static const image_shares shares = {.of = {0.0, 0.2, 0.4, 0.6}, .n = N_SHARES};

typedef struct zero_table {
    const char *name, *ratio_name;
    size_t rows;
    bool by_bytes; /* what should fall is bytes, not flop */
    measure m[N_SHARES][MAX_WINDOWS];
} zero_table;

static moe_status zero_window(bench *b, zero_table *t, size_t share, size_t window, moe_error *err)
{
    size_t n = image_vocab_part(&b->rig.config, &shares);

    return t->rows == PREFILL_ROWS ? prefill(b, share * n, n, &t->m[share][window], err)
                                   : decode(b, share * n, n, t->rows, ZERO_STEPS, &t->m[share][window], err);
}

/* Medians over the windows, and of how a share compares with share 0 in the same window. */
static void print_share(const bench *b, const zero_table *t, size_t share)
{
    double expert[MAX_WINDOWS], local[MAX_WINDOWS], all[MAX_WINDOWS], picks[MAX_WINDOWS], distinct[MAX_WINDOWS],
        faster[MAX_WINDOWS], all_faster[MAX_WINDOWS], ratio[MAX_WINDOWS], quotient[MAX_WINDOWS];
    size_t n = b->n_windows;

    for (size_t w = 0; w < n; w++) {
        const measure *m = &t->m[share][w], *full = &t->m[0][w];

        expert[w] = m->expert_seconds * 1e3;
        local[w] = m->local_seconds * 1e3;
        all[w] = m->seconds * 1e3;
        picks[w] = m->ffn_picks;
        distinct[w] = m->distinct;
        faster[w] = full->expert_seconds / m->expert_seconds;
        all_faster[w] = full->seconds / m->seconds;
        ratio[w] = t->by_bytes ? full->distinct / m->distinct : full->ffn_picks / m->ffn_picks;
        quotient[w] = faster[w] / ratio[w];
    }
    printf("%6.0f %% %8.1f %% %8.3f %8.2f %10.2f %8.2f %9.3f %9.3f %9.3f %10.2f %9.3f\n", 100.0 * shares.of[share],
           100.0 * (1.0 - median(picks, n) / b->rig.config.gate.k), median(picks, n), median(distinct, n),
           median(expert, n), median(local, n), median(faster, n), median(ratio, n), median(quotient, n),
           median(all, n), median(all_faster, n));
}

static moe_status zero_measure(bench *b, zero_table *t, moe_error *err)
{
    moe_status status = MOE_OK;

    for (size_t i = 0; i < N_SHARES && status == MOE_OK; i++) { /* touches the memory */
        status = zero_window(b, t, i, 0, err);
    }
    for (size_t i = 0; i < b->n_windows * N_SHARES && status == MOE_OK; i++) {
        status = zero_window(b, t, i % N_SHARES, i / N_SHARES, err);
    }
    if (status != MOE_OK) {
        return status;
    }
    printf("\n%s\n%8s %10s %8s %8s %10s %8s %9s %9s %9s %10s %9s\n", t->name, "share", "measured", "FFN", "experts",
           "experts", "of them", "speed-up", t->ratio_name, "speed-up", "step", "speed-up");
    printf("%8s %10s %8s %8s %10s %8s %9s %9s %9s %10s %9s\n", "", "", "a token", "a layer", "ms", "local ms", "",
           "ratio", "/ ratio", "ms", "of step");
    for (size_t i = 0; i < N_SHARES; i++) {
        print_share(b, t, i);
    }
    (void)fflush(stdout);
    return status;
}

static moe_status zero(bench *b, size_t n_threads, moe_error *err)
{
    static zero_table tables[] = {
        {.name = "steps of 4096 prompt tokens (8 x 512)", .ratio_name = "flop", .rows = PREFILL_ROWS},
        {.name = "decode at batch 8", .ratio_name = "byte", .rows = 8, .by_bytes = true}};
    char config[1024];
    moe_status status;

    snprintf(config, sizeof config,
             "{\"model_type\":\"MoE++\",\"vocab_size\":65536,\"hidden_size\":1536,\"intermediate_size\":4096,"
             "\"num_hidden_layers\":%d,\"num_attention_heads\":16,\"num_key_value_heads\":16,\"num_experts\":[20],"
             "\"max_position_embeddings\":2048,\"moe_2layer_gate\":false,\"moe_use_mixtral_gating\":false,"
             "\"moe_use_logits_norm\":true,\"moe_gate_norm_std\":1.0,\"moe_feature_no_mul_topk\":true,"
             "\"moe_expert_interval\":1,\"rms_norm_eps\":1e-6,\"hidden_act\":\"silu\",\"tie_word_embeddings\":false}",
             ZERO_LAYERS);
    status = open_bench(b, n_threads, config, &shares, err);
    if (status != MOE_OK) {
        return status;
    }
    printf("\nMoE++-7B's layers, %d of 24, bf16, %s, %zu threads: time of the experts by the share of picks that are "
           "zero, "
           "copy or constant experts\n",
           ZERO_LAYERS, b->rig.device_name, moe_threads_count(b->rig.threads));
    for (size_t i = 0; i < MOE_COUNT(tables) && status == MOE_OK; i++) {
        status = zero_measure(b, &tables[i], err);
    }
    close_bench(b);
    return status;
}

/* ------------------------------------------------------------------------------------------------ dense */
#define LATENCY_TOKENS 32768.0

typedef struct dense_shape {
    const char *name, *config; /* of n_layer */
    double published_tokens_s, published_ms, published_gb;
} dense_shape;

typedef struct dense_result {
    double tokens_s, best, peak_share, memory_gb, weights_gb, experts_share, skipped;
    double decode_tokens_s[3];
    double bandwidth_min, bandwidth_max; /* beside decode */
} dense_result;

#define MODULEFORMER                                                                                                   \
    "{\"model_type\":\"moduleformer\",\"n_layer\":%u,\"activation_function\":\"gelu_new\",\"bos_token_id\":0,"         \
    "\"eos_token_id\":0,\"tie_word_embeddings\":false,"
static const dense_shape shapes[] = {
    {"MoLM-350M-4B",
     MODULEFORMER
     "\"vocab_size\":50295,\"n_embd\":1024,\"n_head\":1,\"att_hidden\":1024,"
     "\"n_att_experts\":16,\"k_att\":2,\"ffd_hidden\":2048,\"n_mlp_experts\":32,\"k_mlp\":2,\"gating_size\":256,"
     "\"gate_type\":\"mlp\"}",
     71017.0, 497.0, 27.0},
    {"Pythia-1.4B",
     MODULEFORMER
     "\"vocab_size\":50304,\"n_embd\":2048,\"n_head\":16,\"att_hidden\":2048,"
     "\"n_att_experts\":1,\"k_att\":1,\"ffd_hidden\":8192,\"n_mlp_experts\":1,\"k_mlp\":1,\"gating_size\":1,"
     "\"gate_type\":\"linear\"}",
     35559.0, 918.0, 42.0},
};
static const size_t batches[] = {1, 8, 32};

/* Flop of a row's products with weights, without the head: two for each weight of two bytes. */
static double row_flop(const rig *r)
{
    const model_config *c = &r->config;

    return (double)model_coordinator_bytes(r->model) - 2.0 * c->vocab_size * c->d_model +
           (double)c->n_layers * c->gate.k * (double)r->expert_bytes;
}

static moe_status dense_prefill(bench *b, dense_result *r, moe_error *err)
{
    double speeds[MAX_WINDOWS], of_peak[MAX_WINDOWS], of_step[MAX_WINDOWS];
    size_t n = b->n_windows, n_ids = b->rig.config.vocab_size;
    engine_stats stats;
    measure m;
    moe_status status = prefill(b, 0, n_ids, &m, err); /* touches the memory */

    for (size_t w = 0; w < n && status == MOE_OK; w++) {
        rig_limits limits = rig_measure_limits(&b->rig);
        status = prefill(b, 0, n_ids, &m, err);
        limits = rig_limits_better(limits, rig_measure_limits(&b->rig));
        speeds[w] = PREFILL_ROWS / m.seconds;
        of_peak[w] = speeds[w] * row_flop(&b->rig) / limits.peak;
        of_step[w] = m.expert_seconds / m.seconds;
        r->best = MOE_MAX(r->best, speeds[w]);
    }
    if (status == MOE_OK) {
        r->tokens_s = median(speeds, n);
        r->peak_share = median(of_peak, n);
        r->experts_share = median(of_step, n);
        engine_get_stats(b->rig.engine, &stats);
        r->skipped =
            (double)stats.attention_keys_skipped / (double)(stats.attention_keys_seen + stats.attention_keys_skipped);
    }
    return status;
}

static moe_status dense_decode(bench *b, dense_result *r, moe_error *err)
{
    moe_status status = MOE_OK;

    for (size_t i = 0; i < MOE_COUNT(batches) && status == MOE_OK; i++) {
        double speeds[MAX_WINDOWS];

        for (size_t w = 0; w < b->n_windows && status == MOE_OK; w++) {
            double bandwidth = rig_measure_limits(&b->rig).bandwidth;
            measure m;
            status = decode(b, 0, b->rig.config.vocab_size, batches[i], DENSE_STEPS, &m, err);
            r->bandwidth_min = i + w == 0 ? bandwidth : MOE_MIN(r->bandwidth_min, bandwidth);
            r->bandwidth_max = MOE_MAX(r->bandwidth_max, bandwidth);
            speeds[w] = (double)batches[i] / m.seconds;
        }
        if (status == MOE_OK) {
            r->decode_tokens_s[i] = median(speeds, b->n_windows);
        }
    }
    return status;
}

static size_t weight_bytes(const model_tensors *t)
{
    size_t bytes = 0;

    for (size_t i = 0; i < model_tensors_count(t); i++) {
        bytes += model_tensors_all(t)[i].bytes;
    }
    return bytes;
}

static moe_status dense_measure(bench *b, size_t n_threads, const dense_shape *s, uint32_t n_layers, dense_result *r,
                                moe_error *err)
{
    moe_text config;
    moe_status status;

    moe_text_init(&config, 4096);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    moe_text_printf(&config, s->config, n_layers);
#pragma GCC diagnostic pop
    status = open_bench(b, n_threads, moe_text_cstr(&config), NULL, err);
    moe_text_fini(&config);
    if (status != MOE_OK) {
        return status;
    }
    status = dense_prefill(b, r, err);
    if (status == MOE_OK) {
        status = dense_decode(b, r, err);
    }
    r->memory_gb = (double)rig_memory_used(&b->rig) * 1e-9;
    r->weights_gb = (double)weight_bytes(b->rig.tensors) * 1e-9;
    close_bench(b);
    return status;
}

static void print_dense(const dense_result *r)
{
    const dense_shape *s = shapes;

    printf("\n%-14s %9s %9s %9s %9s %9s %10s %9s %9s   %9s %9s %9s\n", "prompts", "tokens/s", "best", "of peak",
           "experts", "keys", "latency", "memory", "weights", "README", "latency", "memory");
    printf("%-14s %9s %9s %9s %9s %9s %10s %9s %9s   %9s %9s %9s\n", "", "median", "", "", "of step", "skipped", "s",
           "GB", "GB", "tokens/s", "ms", "GB");
    for (size_t i = 0; i < MOE_COUNT(shapes); i++) {
        printf("%-14s %9.1f %9.1f %7.1f %% %7.1f %% %7.1f %% %10.1f %9.2f %9.2f   %9.0f %9.0f %9.0f\n", s[i].name,
               r[i].tokens_s, r[i].best, 100.0 * r[i].peak_share, 100.0 * r[i].experts_share, 100.0 * r[i].skipped,
               LATENCY_TOKENS / r[i].tokens_s, r[i].memory_gb, r[i].weights_gb, s[i].published_tokens_s,
               s[i].published_ms, s[i].published_gb);
    }
    printf("%-14s %9.2f %9.2f %9s %9s %9s %10.2f %9.2f %9.2f   %9.2f %9.2f %9.2f\n", "ratio",
           r[0].tokens_s / r[1].tokens_s, r[0].best / r[1].best, "", "", "", r[1].tokens_s / r[0].tokens_s,
           r[0].memory_gb / r[1].memory_gb, r[0].weights_gb / r[1].weights_gb,
           s[0].published_tokens_s / s[1].published_tokens_s, s[0].published_ms / s[1].published_ms,
           s[0].published_gb / s[1].published_gb);
    printf("\n%-14s %9s %9s %9s\n", "decode, tokens/s", "batch 1", "batch 8", "batch 32");
    for (size_t i = 0; i < MOE_COUNT(shapes); i++) {
        printf("%-16s %9.1f %9.1f %9.1f %7.1f-%.1f\n", s[i].name, r[i].decode_tokens_s[0], r[i].decode_tokens_s[1],
               r[i].decode_tokens_s[2], r[i].bandwidth_min * 1e-9, r[i].bandwidth_max * 1e-9);
    }
    printf("%-16s", "ratio");
    for (size_t i = 0; i < MOE_COUNT(batches); i++) {
        printf(" %9.2f", r[0].decode_tokens_s[i] / r[1].decode_tokens_s[i]);
    }
    printf("\n");
}

/* Of MoLM, the larger one; both get as many, so that they stay comparable. */
static uint32_t layers_that_fit(void)
{
    const size_t fixed = (size_t)2500 << 20, layer = (size_t)340 << 20, available = moe_memory_available() / 10 * 9;

    return available > fixed ? (uint32_t)MOE_MIN((available - fixed) / layer, (size_t)DENSE_LAYERS) : 0;
}

static moe_status dense(bench *b, size_t n_threads, uint32_t n_layers, moe_error *err)
{
    dense_result results[MOE_COUNT(shapes)] = {{.best = 0.0}};
    moe_status status = MOE_OK;

    n_layers = MOE_MIN(n_layers, layers_that_fit());
    if (n_layers == 0) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "not even one layer of MoLM fits into free memory");
    }
    printf(
        "\nMoLM-350M-4B's and Pythia-1.4B's shapes, bf16, %u of %d layers each%s: prompts in steps of 4096 tokens (8 x "
        "512), latency of 32768 tokens at that speed\n",
        n_layers, DENSE_LAYERS, n_layers < DENSE_LAYERS ? " (figures are those of the smaller models)" : "");
    (void)fflush(stdout);
    for (size_t i = 0; i < MOE_COUNT(shapes) && status == MOE_OK; i++) {
        status = dense_measure(b, n_threads, &shapes[i], n_layers, &results[i], err);
    }
    if (status == MOE_OK) {
        print_dense(results);
    }
    return status;
}

/* ------------------------------------------------------------------------------------------------ run */
static moe_status run(const bench_config *config, size_t n_threads, moe_error *err)
{
    bench *b = calloc(1, sizeof *b);
    moe_status status = MOE_OK;

    if (b == NULL) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "out of memory");
    }
    b->n_windows = config->windows;
    if (strcmp(config->only, "dense") != 0) {
        status = zero(b, n_threads, err);
    }
    if (status == MOE_OK && strcmp(config->only, "zero") != 0) {
        status = dense(b, n_threads, config->layers, err);
    }
    free(b);
    return status;
}

int main(int argc, char **argv)
{
    bench_config config;
    const char *args[1];
    size_t n_args = 0;
    moe_options_next next;
    moe_error err;
    moe_status status =
        moe_options_parse(&program, &config, argc, argv, NULL, args, MOE_COUNT(args), &n_args, &next, &err);

    compute_thread_init();
    moe_log_set_level(MOE_LOG_WARN);
    if (status == MOE_OK && next == MOE_OPTIONS_RUN) {
        status = run(&config, (size_t)strtoul(n_args == 0 ? "0" /* all cores */ : args[0], NULL, 10), &err);
    }
    if (status != MOE_OK) {
        (void)fprintf(stderr, "bench_savings: %s\n", err.text);
    }
    moe_options_fini(&program, &config);
    return status == MOE_OK ? 0 : 1;
}
