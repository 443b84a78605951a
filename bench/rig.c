#include "bench/rig.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/probe.h"

enum { PROBE_BYTES = 256 << 20 };

static const unsigned char no_fingerprint[32];
static const char no_fingerprint_hex[] = "0000000000000000000000000000000000000000000000000000000000000000";

/* ------------------------------------------------------------------------------------------------ memory */
size_t rig_memory_used(const rig *r)
{
    moe_resident now;

    moe_memory_resident(&now);
    return now.anonymous - r->image.own_bytes - PROBE_BYTES;
}

/* All layers, for n_tokens. */
static size_t kv_bytes(const model_config *c, size_t n_tokens)
{
    compute_kv_shape shape = {.page_tokens = MODEL_KV_PAGE_TOKENS,
                              .n_kv_heads = c->n_kv_heads,
                              .head_dim = c->head_dim,
                              .shared = c->shared_kv,
                              .dtype = COMPUTE_BF16};

    return compute_kv_page_bytes(&shape) * c->n_layers * (n_tokens / MODEL_KV_PAGE_TOKENS);
}

uint32_t rig_layers_that_fit(void)
{
    /* Embeddings twice, head, the image's pattern, the probe's memory and the buffers of 512 rows; a
     * tenth stays free. */
    const model_config one = {.n_layers = 1, .n_kv_heads = OLMOE_N_HEADS, .head_dim = OLMOE_D_MODEL / OLMOE_N_HEADS};
    const size_t fixed = (size_t)2500 << 20, available = moe_memory_available() / 10 * 9;
    size_t layer = olmoe_layer_bytes() + kv_bytes(&one, RIG_KV_TOKENS);
    size_t n = available > fixed ? (available - fixed) / layer : 0;

    return (uint32_t)MOE_MIN(n, (size_t)OLMOE_N_LAYERS);
}

/* ------------------------------------------------------------------------------------------------ open */
static void show_progress(void *ctx, size_t done, size_t total)
{
    int *last = ctx, tenth = total > 0 ? (int)(10.0 * (double)done / (double)total) : 10;

    if (tenth != *last && isatty(STDERR_FILENO)) {
        *last = tenth;
        (void)fprintf(stderr, "\rpacking weights: %3d %% of %.1f GB %s", tenth * 10, (double)total * 1e-9,
                      tenth == 10 ? "\n" : "");
    }
}

static moe_status open_checkpoint(rig *r, const rig_model *m, moe_error *err)
{
    moe_status status = model_config_parse(m->config_json, strlen(m->config_json), NULL, 0, &r->config, err);

    if (status == MOE_OK) {
        status = image_open(&r->config, m->shares, r->threads, &r->image, err);
    }
    if (status == MOE_OK) {
        status = checkpoint_open_memory(r->image.data, r->image.bytes, "random", &r->checkpoint, err);
    }
    if (status == MOE_OK) {
        status = model_tensors_open(&r->config, r->checkpoint, &r->tensors, err);
    }
    return status;
}

static moe_status open_device(rig *r, const rig_model *m, moe_error *err)
{
    const model_config *c = &r->config;
    compute_device_options options = {.numeric_class = COMPUTE_CLASS_BF16_1,
                                      .isa = m->isa,
                                      .threads = r->threads,
                                      .max_rows = m->max_rows,
                                      .max_ffn_rows = (size_t)m->max_rows * c->gate.k,
                                      .max_d_ff = c->d_ff,
                                      .max_context = m->max_context};
    compute_device *inner;
    moe_status status = compute_open("cpu", &options, &inner, err);

    if (status != MOE_OK) {
        return status;
    }
    r->device_name = inner->name;
    status = timed_device_open(inner, c->vocab_size, &r->device);
    return status == MOE_OK ? status : moe_fail(err, status, "device: out of memory");
}

static moe_status open_set(rig *r, moe_error *err)
{
    router_space *space;
    moe_status status = model_config_space(&r->config, &space, err);

    if (status == MOE_OK) {
        status = router_set_open_all(space, r->config.gate.k, no_fingerprint, &r->set, err);
        router_space_unref(space);
    }
    return status;
}

static moe_status open_model(rig *r, const rig_model *m, moe_error *err)
{
    const model_config *c = &r->config;
    int last_tenth = -1;
    moe_status status = model_open(c, r->tensors, r->device, COMPUTE_PACKED, m->max_context, show_progress, &last_tenth,
                                   &r->model, err);

    if (status == MOE_OK) {
        status = model_kv_open(c, r->device, kv_bytes(c, m->kv_tokens), false, &r->kv, err);
    }
    if (status == MOE_OK) {
        status = open_set(r, err);
    }
    return status;
}

static moe_status open_engine(rig *r, const rig_model *m, moe_error *err)
{
    int last_tenth = -1;
    embedded_options node = {.config = &r->config,
                             .space = router_set_space(r->set),
                             .tensors = r->tensors,
                             .device = r->device,
                             .layout = COMPUTE_PACKED,
                             .fingerprint = no_fingerprint,
                             .max_rows = m->max_rows,
                             .micro_batches = 1,
                             .progress = show_progress,
                             .progress_ctx = &last_tenth};
    engine_options options = {.model = r->model,
                              .kv = r->kv,
                              .base_set = r->set,
                              .clock = moe_clock_real(),
                              .max_batch_tokens = m->max_rows,
                              .prefill_chunk = m->prefill_chunk,
                              .max_running = m->max_running,
                              .max_queue = m->max_running,
                              .max_context = m->max_context,
                              .default_max_tokens = 64,
                              .micro_batches = 1,
                              .step_timeout_ns = 600000000000u};
    moe_status status = embedded_open(&node, &r->embedded, err);

    memcpy(options.fingerprint, no_fingerprint_hex, sizeof options.fingerprint);
    if (status == MOE_OK) {
        options.exchange = embedded_exchange(r->embedded);
        status = engine_open(&options, &r->engine, err);
    }
    return status == MOE_OK ? engine_warm_up(r->engine, err) : status;
}

moe_status rig_open_model(rig *r, size_t n_threads, const rig_model *m, moe_error *err)
{
    moe_status status;

    *r = (rig){.probe_memory = moe_pages_alloc(PROBE_BYTES), .isa = m->isa};
    if (r->probe_memory == NULL) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "probe: out of memory");
    }
    memset(r->probe_memory, 1, PROBE_BYTES);
    status = moe_threads_open(n_threads, compute_thread_init, &r->threads);
    if (status == MOE_OK) {
        status = open_checkpoint(r, m, err);
    }
    if (status == MOE_OK) {
        r->expert_bytes = model_expert_bytes(&r->config, r->tensors);
        status = open_device(r, m, err);
    }
    if (status == MOE_OK) {
        status = open_model(r, m, err);
    }
    if (status == MOE_OK) {
        status = open_engine(r, m, err);
    }
    if (status != MOE_OK) {
        rig_close(r);
    }
    return status;
}

moe_status rig_open(rig *r, size_t n_threads, uint32_t n_layers, compute_isa isa, moe_error *err)
{
    rig_model m = {.max_rows = RIG_MAX_ROWS,
                   .prefill_chunk = RIG_MAX_ROWS,
                   .max_running = RIG_MAX_RUNNING,
                   .max_context = RIG_MAX_CONTEXT,
                   .kv_tokens = RIG_KV_TOKENS,
                   .isa = isa};
    moe_text config;
    moe_status status;

    moe_text_init(&config, 4096);
    olmoe_config(n_layers, &config);
    m.config_json = moe_text_cstr(&config);
    status = rig_open_model(r, n_threads, &m, err);
    moe_text_fini(&config);
    return status;
}

void rig_close(rig *r)
{
    engine_close(r->engine);
    embedded_close(r->embedded);
    router_set_unref(r->set);
    model_kv_close(r->kv);
    model_close(r->model);
    compute_close(r->device);
    model_tensors_close(r->tensors);
    checkpoint_close(r->checkpoint);
    image_close(&r->image);
    moe_threads_close(r->threads);
    moe_pages_free(r->probe_memory, PROBE_BYTES);
}

/* ------------------------------------------------------------------------------------------------ limits */
rig_limits rig_probe(rig *r)
{
    return (rig_limits){.bandwidth = probe_bandwidth(r->threads, r->probe_memory, PROBE_BYTES),
                        .peak = probe_peak_bf16(r->threads, r->isa)};
}

double rig_probe_once(rig *r)
{
    return PROBE_BYTES / probe_read_seconds(r->threads, r->probe_memory, PROBE_BYTES);
}

rig_limits rig_limits_better(rig_limits a, rig_limits b)
{
    return (rig_limits){.bandwidth = MOE_MAX(a.bandwidth, b.bandwidth), .peak = MOE_MAX(a.peak, b.peak)};
}

rig_work rig_step_work(const rig *r, size_t n_rows, size_t n_logits, size_t n_positions, size_t n_kv_positions,
                       size_t n_distinct)
{
    const double d = OLMOE_D_MODEL, layers = r->config.n_layers;
    const double row =
        4.0 * d * d + OLMOE_N_EXPERTS * d + 3.0 * d * OLMOE_D_FF * OLMOE_TOP_K; /* weights met, a layer */

    return (rig_work){
        .bytes = (double)model_coordinator_bytes(r->model) + (double)n_distinct * (double)r->expert_bytes +
                 layers * (double)n_kv_positions * 2.0 * d * 2.0,
        .flop = 2.0 *
                (layers * ((double)n_rows * row + 2.0 * (double)n_positions * d) + (double)n_logits * d * OLMOE_VOCAB),
    };
}

double rig_limit_seconds(rig_work work, rig_limits limits)
{
    return MOE_MAX(work.bytes / limits.bandwidth, work.flop / limits.peak);
}
