#include "bench/rig.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/cpu_limits.h"

enum { READ_BYTES = 256 << 20 };

static const unsigned char no_fingerprint[32];
static const char no_fingerprint_hex[] = "0000000000000000000000000000000000000000000000000000000000000000";

/* ------------------------------------------------------------------------------------------------ memory */
size_t rig_memory_used(const rig *r)
{
    moe_resident now;

    moe_memory_resident(&now);
    return now.anonymous - r->image.own_bytes - READ_BYTES;
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

/* Of the device that m names. */
static moe_status free_memory(const rig_model *m, size_t *out, moe_error *err)
{
    const compute_device_options small = {
        .numeric_class = COMPUTE_CLASS_BF16_1, .max_rows = 1, .max_ffn_rows = 1, .max_d_ff = 32, .max_context = 1};
    compute_report report;
    compute_device *d;

    *out = moe_memory_available();
    if (m->device == NULL) {
        return MOE_OK;
    }
    moe_status status = compute_open(m->device, &small, &d, err);
    if (status == MOE_OK) {
        if (d->ops->report != NULL) {
            d->ops->report(d, &report);
            *out = report.free_bytes;
        }
        compute_close(d);
    }
    return status;
}

moe_status rig_layers_that_fit(const rig_model *m, const olmoe_shape *shape, uint32_t *out, moe_error *err)
{
    /* Embeddings twice, head, the image's pattern, the memory of the limit and the buffers of a step; a tenth stays free. */
    const model_config one = {.n_layers = 1, .n_kv_heads = shape->n_heads, .head_dim = shape->d_model / shape->n_heads};
    const size_t fixed = (size_t)2500 << 20;
    size_t layer = olmoe_layer_bytes(shape) + kv_bytes(&one, m->kv_tokens), available;
    moe_status status = free_memory(m, &available, err);

    if (status == MOE_OK) {
        available = available / 10 * 9;
        available = available > fixed ? (available - fixed) / layer : 0;
        *out = (uint32_t)MOE_MIN(available, (size_t)shape->n_layers);
    }
    return status;
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
    moe_status status = compute_open(m->device != NULL ? m->device : "cpu", &options, &inner, err);

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
                              .threads = r->threads,
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

static moe_status open_limits(rig *r, const rig_model *m, moe_error *err)
{
    double bytes_s, flop_s;

    if (m->device != NULL && strncmp(m->device, "cuda:", 5) == 0) {
        moe_status status = gpu_limits_open(m->device_module, &r->gpu_limits, err);

        r->gpu = (int)strtol(m->device + 5, NULL, 10);
        if (status == MOE_OK && !r->gpu_limits(r->gpu, &bytes_s, &flop_s)) {
            status = moe_fail(err, MOE_ERR_INTERNAL, "the limits of %s cannot be measured", m->device);
        }
        return status;
    }
    r->read_memory = moe_pages_alloc(READ_BYTES);
    if (r->read_memory == NULL) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "limits: out of memory");
    }
    memset(r->read_memory, 1, READ_BYTES);
    return MOE_OK;
}

moe_status rig_open_model(rig *r, size_t n_threads, const rig_model *m, moe_error *err)
{
    moe_status status;

    *r = (rig){.isa = m->isa,
               .max_rows = m->max_rows,
               .max_running = m->max_running,
               .max_context = m->max_context,
               .kv_tokens = m->kv_tokens};
    status = open_limits(r, m, err);
    if (status == MOE_OK) {
        status = moe_threads_open(n_threads, compute_thread_init, &r->threads);
    }
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
    moe_pages_free(r->read_memory, READ_BYTES);
}

/* ------------------------------------------------------------------------------------------------ limits */
rig_limits rig_measure_limits(rig *r)
{
    rig_limits limits = {0.0, 0.0};

    if (r->gpu_limits != NULL) { /* that it fails, the next step will tell */
        (void)r->gpu_limits(r->gpu, &limits.bandwidth, &limits.peak);
        r->gpu_bandwidth = limits.bandwidth;
        return limits;
    }
    return (rig_limits){.bandwidth = cpu_limits_bandwidth(r->threads, r->read_memory, READ_BYTES),
                        .peak = cpu_limits_peak_bf16(r->threads, r->isa)};
}

double rig_read_once(rig *r)
{
    return r->gpu_limits != NULL ? r->gpu_bandwidth
                                 : READ_BYTES / cpu_limits_read_seconds(r->threads, r->read_memory, READ_BYTES);
}

bool rig_report(const rig *r, compute_report *out)
{
    *out = (compute_report){.memory_bytes = 0};
    if (r->device->ops->report != NULL) {
        r->device->ops->report(r->device, out);
    }
    return r->device->ops->report != NULL;
}

rig_limits rig_limits_better(rig_limits a, rig_limits b)
{
    return (rig_limits){.bandwidth = MOE_MAX(a.bandwidth, b.bandwidth), .peak = MOE_MAX(a.peak, b.peak)};
}

rig_work rig_step_work(const rig *r, size_t n_rows, size_t n_logits, size_t n_positions, size_t n_kv_positions,
                       size_t n_distinct)
{
    const model_config *c = &r->config;
    const double d = c->d_model, layers = c->n_layers;
    const double row = 4.0 * d * d + c->n_experts * d + 3.0 * d * c->d_ff * c->gate.k; /* weights met, a layer */

    return (rig_work){
        .bytes = (double)model_coordinator_bytes(r->model) + (double)n_distinct * (double)r->expert_bytes +
                 layers * (double)n_kv_positions * 2.0 * d * 2.0,
        .flop = 2.0 * (layers * ((double)n_rows * row + 2.0 * (double)n_positions * d) +
                       (double)n_logits * d * c->vocab_size),
    };
}

double rig_limit_seconds(rig_work work, rig_limits limits)
{
    return MOE_MAX(work.bytes / limits.bandwidth, work.flop / limits.peak);
}
