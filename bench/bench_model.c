/* How near a whole model comes to the machine's limit: OLMoE-1B-7B's shape with random weights, through the engine with
 * its embedded node and frames.
 *
 *     bench_model [--layers N] [--windows N] [--window-seconds S] [--isa ISA] [--device DEVICE] [--device-module FILE]
 *                 [--shape SHAPE] [THREADS ...]
 *
 * (default: all cores, then, without a GPU, 1 thread)
 *
 * Decode at batch 1, 8 and 32 after prompts of 16 random tokens, prefill of 512; on a GPU decode at batch 128 too, and
 * prefill of 2048. The limit of a step is
 * max(bytes / bandwidth, flop / peak): bytes of the weights it reads (the coordinator's, and of every expert that a row
 * of it picked) and of its KV cache. The same threads read the memory of the limit after every step, so that both meet
 * the same machine; the best of short measurements around the window is printed too. On a GPU the limits are those of
 * copies within its memory and of FMAs, before and after each window. docs/benchmarks.md explains. */
#include "bench/frames.h"
#include "bench/load.h"
#include "bench/rig.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_WINDOWS = 9, MIN_STEPS = 3, MAX_STEPS = 12, PROMPT_TOKENS = 16, MAX_MEASURES = 5, FRAME_ROUNDS = 9 };

typedef struct bench_config {
    uint32_t layers, windows;
    double window_seconds;
    char *isa, *device, *device_module, *shape;
} bench_config;

static const char *const shapes[] = {"olmoe", "tiny", NULL};
static const moe_option options[] = {
    {"layers", MOE_OPT_U32, offsetof(bench_config, layers), "0", 0, OLMOE_N_LAYERS, NULL, "N",
     "layers to measure of 16; 0: as many as fit into free memory", false},
    {"windows", MOE_OPT_U32, offsetof(bench_config, windows), "5", 1, MAX_WINDOWS, NULL, "N",
     "windows of each measurement, each between two measurements of the limit", false},
    {"window_seconds", MOE_OPT_F64, offsetof(bench_config, window_seconds), "0.7", 0.01, 60, NULL, "S",
     "length of a decode window", false},
    {"isa", MOE_OPT_CHOICE, offsetof(bench_config, isa), "auto", 0, 0, compute_isa_names, "ISA",
     "instruction set, of the limits too; one that this machine has not is refused", false},
    {"device", MOE_OPT_STRING, offsetof(bench_config, device), "cpu", 0, 0, NULL, "DEVICE",
     "what computes: cpu, cuda, cuda:N or auto, as the programs have it", false},
    {"device_module", MOE_OPT_STRING, offsetof(bench_config, device_module), NULL, 0, 0, NULL, "FILE",
     "the GPU's module X.so, beside which X-limits.so lies; by default both beside this program", false},
    {"shape", MOE_OPT_CHOICE, offsetof(bench_config, shape), "olmoe", 0, 0, shapes, "SHAPE",
     "tiny: shows that all works, where a figure means nothing", false},
};
static const moe_program program = {
    .name = "bench_model",
    .summary = "bench_model [OPTION]... [THREADS]... (default: all cores, then, without a GPU, 1)\n"
               "Speed of a model of OLMoE-1B-7B's shape against the limits of this machine, or of its GPU.",
    .options = options,
    .n_options = MOE_COUNT(options)};

/* One stretch of steps between two measurements of the limit. */
typedef struct window {
    double tokens, seconds;
    double limit_seconds; /* by the bandwidth that was read between the steps, in turns with them */
    double least_seconds; /* by the best of the limits around the window */
} window;

typedef struct measure {
    char name[32];
    size_t batch, n_prompt; /* sequences; tokens of their prompts */
    bool prefill;           /* the prompt is what is measured */
    double target;          /* of the limit; 0: there is none */
    window windows[MAX_WINDOWS];
    size_t n_windows, n_steps;
    rig_work work;     /* sums over all steps */
    double n_distinct; /* (layer, expert) pairs, the same */
    double bandwidth_min, bandwidth_max, peak_max;
    timed_report report;
    double kernel_ns, copy_ns; /* sums, of a device that reports them */
} measure;

typedef struct bench {
    rig rig;
    bench_config config;
    const olmoe_shape *shape;
    moe_random random;
    load load;
    uint64_t expert_rows[OLMOE_N_LAYERS * OLMOE_N_EXPERTS];
} bench;

static double now_s(void)
{
    return (double)moe_now_ns(moe_clock_real()) * 1e-9;
}

/* ------------------------------------------------------------------------------------------------ requests */
static moe_status submit(bench *b, size_t n_prompt, uint32_t max_tokens, moe_error *err)
{
    int32_t prompt[RIG_MAX_ROWS];

    for (size_t i = 0; i < n_prompt; i++) {
        prompt[i] = (int32_t)moe_random_below(&b->random, b->rig.config.vocab_size);
    }
    return load_submit(&b->load, prompt, n_prompt, max_tokens, err);
}

/* ------------------------------------------------------------------------------------------------ steps */
static size_t count_distinct(bench *b)
{
    uint64_t now[OLMOE_N_LAYERS * OLMOE_N_EXPERTS];
    size_t n = (size_t)b->rig.config.n_layers * b->rig.config.n_experts, n_distinct = 0;

    (void)engine_get_expert_rows(b->rig.engine, now, n);
    for (size_t i = 0; i < n; i++) {
        n_distinct += now[i] != b->expert_rows[i];
    }
    memcpy(b->expert_rows, now, n * sizeof *now);
    return n_distinct;
}

/* What the coming step works on, before it generates. */
static rig_work step_work(const bench *b, const measure *m, size_t n_distinct, const uint32_t *n_tokens_before)
{
    size_t n = m->n_prompt, n_positions = 0;

    if (m->prefill) {
        return rig_step_work(&b->rig, n, 1, n * (n + 1) / 2, n, n_distinct);
    }
    for (size_t i = 0; i < b->load.n_requests; i++) {
        n_positions += n + n_tokens_before[i];
    }
    return rig_step_work(&b->rig, b->load.n_requests, b->load.n_requests, n_positions, n_positions, n_distinct);
}

/* One timed step; its work is added to the measure's. */
static moe_status step(bench *b, measure *m, window *w, rig_work *work, moe_error *err)
{
    uint32_t before[LOAD_MAX];
    compute_report was, is;
    size_t n_distinct;
    double start;

    memcpy(before, b->load.n_tokens, sizeof before);
    (void)count_distinct(b);
    (void)rig_report(&b->rig, &was);
    timed_device_begin(b->rig.device, &m->report);
    start = now_s();
    (void)engine_step(b->rig.engine);
    w->seconds += now_s() - start;
    timed_device_end(b->rig.device);
    (void)rig_report(&b->rig, &is);
    m->kernel_ns += (double)(is.kernel_ns - was.kernel_ns);
    m->copy_ns += (double)(is.copy_ns - was.copy_ns);
    n_distinct = count_distinct(b);
    *work = step_work(b, m, n_distinct, before);
    w->tokens += (double)(m->prefill ? m->n_prompt : b->load.n_requests);
    m->n_steps++;
    m->n_distinct += (double)n_distinct;
    m->work.bytes += work->bytes;
    m->work.flop += work->flop;
    return load_read(&b->load, err);
}

/* Submits; for decode also reads the prompts. */
static moe_status start(bench *b, const measure *m, moe_error *err)
{
    uint32_t max_tokens = m->prefill ? 1 : 1 + (uint32_t)b->config.windows * MAX_STEPS;
    moe_status status = MOE_OK;

    for (size_t i = 0; i < m->batch && status == MOE_OK; i++) {
        status = submit(b, m->n_prompt, MOE_MIN(max_tokens, b->rig.max_context - (uint32_t)m->n_prompt), err);
    }
    while (status == MOE_OK && !m->prefill && !load_all_decode(&b->load)) {
        (void)engine_step(b->rig.engine);
        status = load_read(&b->load, err);
    }
    return status;
}

static moe_status run_window(bench *b, measure *m, moe_error *err)
{
    window *w = &m->windows[m->n_windows];
    rig_work work[MAX_STEPS];
    rig_limits limits = rig_measure_limits(&b->rig), paired;
    double read_seconds = 0.0;
    size_t n = 0, most = m->prefill ? 1 : MAX_STEPS;
    moe_status status = MOE_OK;

    *w = (window){.tokens = 0.0};
    while (status == MOE_OK && n < most && (n < MIN_STEPS || w->seconds < b->config.window_seconds)) {
        status = step(b, m, w, &work[n++], err);
        read_seconds += 1.0 / rig_read_once(&b->rig);
    }
    limits = rig_limits_better(limits, rig_measure_limits(&b->rig)); /* one that was disturbed flatters */
    paired = (rig_limits){.bandwidth = (double)n / read_seconds, .peak = limits.peak};
    for (size_t i = 0; i < n; i++) {
        w->limit_seconds += rig_limit_seconds(work[i], paired);
        w->least_seconds += rig_limit_seconds(work[i], limits);
    }
    m->bandwidth_min = m->n_windows == 0 ? paired.bandwidth : MOE_MIN(m->bandwidth_min, paired.bandwidth);
    m->bandwidth_max = MOE_MAX(m->bandwidth_max, limits.bandwidth);
    m->peak_max = MOE_MAX(m->peak_max, limits.peak);
    m->n_windows++;
    return status;
}

/* The whole KV cache is written once: a page's first touch costs more than a step of a small batch, and a server that
 * has run for a while has none left. */
static moe_status touch_kv(bench *b, moe_error *err)
{
    const size_t n_prompt = b->rig.max_rows - MODEL_KV_PAGE_TOKENS; /* and a page to decode in */
    compute_report report;
    moe_status status = MOE_OK;

    if (rig_report(&b->rig, &report)) {
        return MOE_OK; /* memory of its own, which costs no more at first */
    }
    for (size_t i = 0; i < b->rig.kv_tokens / b->rig.max_rows && status == MOE_OK; i++) {
        status = submit(b, n_prompt, MODEL_KV_PAGE_TOKENS, err);
    }
    while (status == MOE_OK && !load_all_decode(&b->load)) {
        (void)engine_step(b->rig.engine);
        status = load_read(&b->load, err);
    }
    load_end(&b->load);
    return status;
}

static moe_status run_measure(bench *b, measure *m, moe_error *err)
{
    moe_status status = m->prefill ? MOE_OK : start(b, m, err);

    while (status == MOE_OK && m->n_windows < b->config.windows) {
        if (m->prefill) {
            status = start(b, m, err);
        }
        if (status == MOE_OK) {
            status = run_window(b, m, err);
        }
        if (m->prefill) {
            load_end(&b->load);
        }
    }
    load_end(&b->load);
    return status;
}

/* ------------------------------------------------------------------------------------------------ printing */
static int by_share_of_limit(const void *a, const void *b)
{
    const window *x = a, *y = b;
    double p = x->limit_seconds / x->seconds, q = y->limit_seconds / y->seconds;

    return (p > q) - (p < q);
}

static void print_measure(const bench *b, measure *m)
{
    const window *median, *best;
    double steps = (double)m->n_steps;
    char target[16] = "-";

    qsort(m->windows, m->n_windows, sizeof *m->windows, by_share_of_limit);
    median = &m->windows[m->n_windows / 2];
    best = &m->windows[m->n_windows - 1];
    if (m->target > 0.0) {
        (void)snprintf(target, sizeof target, "%.0f %%", 100.0 * m->target);
    }
    printf("%-16s %8.1f %8.1f %8.1f   %6.1f %% %6.1f %% %8s %6.1f %%   %8.1f %8.2f %8.0f   %5.1f-%.1f %6.0f\n", m->name,
           median->tokens / median->seconds, best->tokens / best->seconds, median->tokens / median->limit_seconds,
           100.0 * median->limit_seconds / median->seconds, 100.0 * best->limit_seconds / best->seconds, target,
           100.0 * median->least_seconds / median->seconds, m->n_distinct / steps / b->rig.config.n_layers,
           m->work.bytes / steps * 1e-9, m->work.flop / steps * 1e-9, m->bandwidth_min * 1e-9, m->bandwidth_max * 1e-9,
           m->peak_max * 1e-9);
    (void)fflush(stdout);
}

static double report_ns(const timed_report *r)
{
    double sum = 0.0;

    for (size_t p = 0; p < TIMED_N_PARTS; p++) {
        sum += (double)r->ns[p];
    }
    return sum;
}

/* Of a GPU: what the host does while kernels run is beside their time, but for waiting; the rest of a step is the host's alone. */
static void print_device(const measure *all, size_t n)
{
    printf("\n%-34s", "kernels, on the device");
    for (size_t i = 0; i < n; i++) {
        printf(" %9.2f %6.1f %%", all[i].kernel_ns * 1e-6 / (double)all[i].n_steps,
               100.0 * all[i].kernel_ns / report_ns(&all[i].report));
    }
    printf("\n%-34s", "rows on their way to the host");
    for (size_t i = 0; i < n; i++) {
        printf(" %9.2f %6.1f %%", all[i].copy_ns * 1e-6 / (double)all[i].n_steps,
               100.0 * all[i].copy_ns / report_ns(&all[i].report));
    }
}

static void print_parts(const bench *b, const measure *all, size_t n)
{
    compute_report report;
    bool device = rig_report(&b->rig, &report);

    printf("\nwhere %s time goes (ms of a step, share)\n%-34s", device ? "the host's" : "a step's", "");
    for (size_t i = 0; i < n; i++) {
        printf(" %18s", all[i].name);
    }
    for (timed_part p = 0; p < TIMED_N_PARTS; p++) {
        printf("\n%-34s", timed_part_name(p));
        for (size_t i = 0; i < n; i++) {
            double ns = (double)all[i].report.ns[p];
            printf(" %9.2f %6.1f %%", ns * 1e-6 / (double)all[i].n_steps, 100.0 * ns / report_ns(&all[i].report));
        }
    }
    if (device) {
        print_device(all, n);
    }
    printf("\n");
}

/* Seconds of counting the picks of a row in one layer. */
static moe_status count_seconds(bench *b, double *out, moe_error *err)
{
    enum { N_ROWS = 32, N = 2000 };
    const uint32_t k = b->rig.config.gate.k;
    int32_t ids[N_ROWS * ROUTER_MAX_TOP_K];
    float weights[N_ROWS * ROUTER_MAX_TOP_K];
    router_use *use;
    moe_status status = router_use_open(router_set_space(b->rig.set), k, 0, &use);

    if (status != MOE_OK) {
        return moe_fail(err, status, "counters: out of memory");
    }
    for (size_t i = 0; i < (size_t)N_ROWS * k; i++) {
        ids[i] = (int32_t)moe_random_below(&b->random, b->rig.config.n_experts);
        weights[i] = 1.0f / (float)k;
    }
    double start = now_s();
    for (uint32_t i = 0; i < N; i++) {
        router_use_count(use, i % b->rig.config.n_layers, ids, weights, N_ROWS);
    }
    *out = (now_s() - start) / N / N_ROWS;
    router_use_close(use);
    return MOE_OK;
}

/* What the counters of experts take of each measure's steps. */
static moe_status print_counting(bench *b, const measure *all, size_t n, moe_error *err)
{
    double a_row = 0.0;
    moe_status status = count_seconds(b, &a_row, err);

    if (status != MOE_OK) {
        return status;
    }
    printf("\ncounting a row's picks in a layer: %.0f ns;", a_row * 1e9);
    for (size_t i = 0; i < n; i++) {
        double n_rows = (double)(all[i].prefill ? all[i].n_prompt : all[i].batch);
        double step = report_ns(&all[i].report) * 1e-9 / (double)all[i].n_steps;

        printf(" %s %.4f %%%s", all[i].name, 100.0 * a_row * n_rows * b->rig.config.n_layers / step,
               i + 1 < n ? "," : " of a step (goal: below 0.5 %)\n");
    }
    return MOE_OK;
}

static moe_status print_frames(bench *b, moe_error *err)
{
    static const struct {
        const char *name;
        size_t n_sequences, n_rows;
    } cases[] = {{"1 row", 1, 1}, {"8 rows", 8, 8}, {"32 rows", 32, 32}, {"512 rows", 1, 512}};
    moe_status status = MOE_OK;

    printf("\nframes against a direct call, all layers without head and sampling (ms, median)\n");
    printf("%-16s %10s %10s %8s   %10s %10s %8s\n", "", "experts", "by frames", "ratio", "layers", "by frames",
           "ratio");
    for (size_t i = 0; i < MOE_COUNT(cases) && status == MOE_OK; i++) {
        frames_result r;
        status = frames_measure(&b->rig, cases[i].n_sequences, cases[i].n_rows, FRAME_ROUNDS, &r, err);
        if (status == MOE_OK) {
            printf("%-16s %10.2f %10.2f %8.3f   %10.2f %10.2f %8.3f\n", cases[i].name, r.direct_experts * 1e3,
                   r.frames_experts * 1e3, r.frames_experts / r.direct_experts, r.direct_all * 1e3, r.frames_all * 1e3,
                   r.frames_all / r.direct_all);
        }
    }
    return status;
}

/* ------------------------------------------------------------------------------------------------ run */
/* As many sequences and rows as the rig takes. */
static size_t plan_measures(const bench *b, measure *all)
{
    static const struct {
        size_t batch;
        double cpu, gpu; /* targets */
    } decodes[] = {{1, 0.90, 0.70}, {8, 0.80, 0.0}, {32, 0.60, 0.0}, {128, 0.0, 0.0}};
    compute_report report;
    bool gpu = rig_report(&b->rig, &report);
    size_t n = 0;

    for (size_t i = 0; i < MOE_COUNT(decodes) && decodes[i].batch <= b->rig.max_running; i++) {
        all[n] = (measure){
            .batch = decodes[i].batch, .n_prompt = PROMPT_TOKENS, .target = gpu ? decodes[i].gpu : decodes[i].cpu};
        (void)snprintf(all[n].name, sizeof all[n].name, "decode batch %zu", all[n].batch);
        n++;
    }
    /* Of twice the peak where there are bf16 instructions. */
    double prefill = strcmp(b->rig.device_name, "cpu-avx512") == 0 ? 0.55 : 0.80;
    all[n] = (measure){.batch = 1, .n_prompt = b->rig.max_rows, .prefill = true, .target = gpu ? 0.0 : prefill};
    (void)snprintf(all[n].name, sizeof all[n].name, "prefill %zu", all[n].n_prompt);
    return n + 1;
}

/* What the host does beside the device, on this machine's cores. */
static moe_status measure_host(bench *b, const measure *all, size_t n, moe_error *err)
{
    moe_status status = print_counting(b, all, n, err);

    return status == MOE_OK ? print_frames(b, err) : status;
}

static moe_status measure_all(bench *b, moe_error *err)
{
    measure all[MAX_MEASURES];
    size_t n = plan_measures(b, all);
    moe_status status = touch_kv(b, err);

    printf("%-16s %8s %8s %8s   %8s %8s %8s %8s   %8s %8s %8s   %9s %6s\n", "", "tokens/s", "tokens/s", "tokens/s",
           "of limit", "of limit", "of limit", "of best", "experts", "GB", "GFLOP", "GB/s", "GFLOP/s");
    printf("%-16s %8s %8s %8s   %8s %8s %8s %8s   %8s %8s %8s   %9s %6s\n", "", "median", "best", "limit", "median",
           "best", "target", "limit", "a layer", "a step", "a step", "mean-best", "peak");
    for (size_t i = 0; i < n && status == MOE_OK; i++) {
        status = run_measure(b, &all[i], err);
        if (status == MOE_OK) {
            print_measure(b, &all[i]);
        }
    }
    if (status == MOE_OK) {
        print_parts(b, all, n);
    }
    return status == MOE_OK && b->rig.gpu_limits == NULL && b->shape == &olmoe_shape_full ? measure_host(b, all, n, err)
                                                                                          : status;
}

/* How large the engine's steps are. Where they are small, the KV memory holds what every sequence of a measurement has. */
static rig_model sizes_of(const bench_config *config, const char *device)
{
    rig_model m = {
        .max_rows = 512, .max_running = 32, .max_context = 1024, .kv_tokens = (size_t)32 * 128, .device = device};

    if (strcmp(config->shape, "tiny") == 0) {
        m = (rig_model){
            .max_rows = 128, .max_running = 128, .max_context = 256, .kv_tokens = (size_t)128 * 128, .device = device};
    } else if (device != NULL) {
        m = (rig_model){.max_rows = RIG_MAX_ROWS,
                        .max_running = RIG_MAX_RUNNING,
                        .max_context = OLMOE_MAX_CONTEXT,
                        .kv_tokens = (size_t)RIG_MAX_RUNNING * 128,
                        .device = device};
    }
    m.prefill_chunk = m.max_rows;
    m.device_module = config->device_module;
    m.isa = compute_isa_of(config->isa);
    return m;
}

static moe_status open_rig(bench *b, size_t n_threads, const char *device, uint32_t *n_layers, moe_error *err)
{
    rig_model m = sizes_of(&b->config, device);
    moe_text text;
    moe_status status = MOE_OK;

    *n_layers = b->config.layers != 0 ? MOE_MIN(b->config.layers, b->shape->n_layers) : b->shape->n_layers;
    if (b->config.layers == 0 && b->shape == &olmoe_shape_full) {
        status = rig_layers_that_fit(&m, b->shape, n_layers, err);
    }
    if (status == MOE_OK && *n_layers == 0) {
        status = moe_fail(err, MOE_ERR_NO_MEMORY, "not even one layer fits into free memory");
    }
    if (status != MOE_OK) {
        return status;
    }
    moe_text_init(&text, 4096);
    olmoe_config(b->shape, *n_layers, &text);
    m.config_json = moe_text_cstr(&text);
    status = rig_open_model(&b->rig, n_threads, &m, err);
    moe_text_fini(&text);
    b->load.engine = b->rig.engine;
    return status;
}

static moe_status run(const bench_config *config, const char *device, size_t n_threads, moe_error *err)
{
    bench *b = calloc(1, sizeof *b);
    uint32_t n_layers;
    double opened = now_s();
    moe_status status;

    if (b == NULL) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "out of memory");
    }
    b->config = *config;
    b->shape = strcmp(config->shape, "tiny") == 0 ? &olmoe_shape_tiny : &olmoe_shape_full;
    moe_random_seed(&b->random, 5);
    status = open_rig(b, n_threads, device, &n_layers, err);
    if (status == MOE_OK) {
        printf("\n%s, bf16, %u of %u layers%s, %s, %zu threads; packed in %.1f s\n",
               b->shape == &olmoe_shape_full ? "OLMoE-1B-7B's shape" : "a tiny shape", n_layers, b->shape->n_layers,
               n_layers < b->shape->n_layers ? " (tokens per second are those of this smaller model)" : "",
               b->rig.device_name, moe_threads_count(b->rig.threads), now_s() - opened);
        status = measure_all(b, err);
        rig_close(&b->rig);
    }
    free(b);
    return status;
}

/* NULL: the CPU. */
static moe_status find_device(const bench_config *config, compute_found *found, const char **device, moe_error *err)
{
    moe_status status = compute_find(config->device, config->device_module, found, err);

    *device = status == MOE_OK && strncmp(found->place, "cuda", 4) == 0 ? found->place : NULL;
    return status;
}

int main(int argc, char **argv)
{
    bench_config config;
    const char *args[8];
    size_t n_args = 0;
    compute_found found;
    const char *device = NULL;
    moe_options_next next;
    moe_error err;
    moe_status status =
        moe_options_parse(&program, &config, argc, argv, NULL, args, MOE_COUNT(args), &n_args, &next, &err);

    compute_thread_init();
    moe_log_set_level(MOE_LOG_WARN);
    if (status == MOE_OK && next == MOE_OPTIONS_RUN) {
        status = find_device(&config, &found, &device, &err);
    }
    if (status == MOE_OK && next == MOE_OPTIONS_RUN && n_args == 0) {
        args[n_args++] = "0"; /* all cores */
        if (moe_cores_available() > 1 && device == NULL) {
            args[n_args++] = "1";
        }
    }
    for (size_t i = 0; i < n_args && status == MOE_OK; i++) {
        status = run(&config, device, (size_t)strtoul(args[i], NULL, 10), &err);
    }
    if (status != MOE_OK) {
        (void)fprintf(stderr, "bench_model: %s\n", err.text);
    }
    moe_options_fini(&program, &config);
    return status == MOE_OK ? 0 : 1;
}
