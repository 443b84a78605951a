/* rig: an engine over a model with random weights (OLMoE-1B-7B's shape, or any other) with its embedded node, on a
 * device that counts where time goes, and measures its limits: of the machine, on the same threads, or of the GPU. Everything belongs to
 * the calling thread. */
#ifndef CONCLAVE_BENCH_RIG_H
#define CONCLAVE_BENCH_RIG_H

#include "bench/gpu_limits.h"
#include "bench/image.h"
#include "bench/olmoe.h"
#include "bench/timed_device.h"
#include "coordinator/embedded.h"
#include "engine/engine.h"

enum { RIG_MAX_ROWS = 2048, RIG_MAX_RUNNING = 128 }; /* at most */

/* Which model, and how large the engine's steps are. */
typedef struct rig_model {
    const char *config_json;
    const image_shares *shares; /* NULL: picks as they come */
    uint32_t max_rows;          /* of a step */
    uint32_t prefill_chunk, max_running, max_context;
    size_t kv_tokens;
    compute_isa isa;
    const char *device;        /* a place (compute_find); NULL: the CPU */
    const char *device_module; /* its file; NULL: the usual one */
} rig_model;

typedef struct rig {
    moe_threads *threads;
    image image;
    model_config config;
    checkpoint *checkpoint;
    model_tensors *tensors;
    compute_isa isa;
    compute_device *device;  /* timed */
    const char *device_name; /* of the device behind it */
    model *model;
    model_kv *kv;
    router_set *set;
    embedded *embedded;
    engine *engine;
    size_t expert_bytes;
    unsigned char *read_memory; /* NULL: a GPU, which has */
    gpu_limits_fn gpu_limits;   /* these */
    int gpu;
    double gpu_bandwidth; /* last measured */
    uint32_t max_rows, max_running, max_context;
    size_t kv_tokens;
} rig;

/* How many layers of a shape fit into the memory of m's device that is free now: image, packed weights, caches and buffers. *out 0:
 * not even one. */
MOE_NODISCARD moe_status rig_layers_that_fit(const rig_model *m, const olmoe_shape *shape, uint32_t *out,
                                             moe_error *err);
/* Any model; borrows m during the call. rig_step_work below is for models of OLMoE's kind only. */
MOE_NODISCARD moe_status rig_open_model(rig *r, size_t n_threads, const rig_model *m, moe_error *err);
void rig_close(rig *r);
/* Bytes of memory that the process holds for the model: weights, caches, buffers; not the image, nor what only the limit reads. */
size_t rig_memory_used(const rig *r);

typedef struct rig_limits {
    double bandwidth; /* bytes per second */
    double peak;      /* flop per second: of bf16 products, on a GPU of f32 FMAs */
} rig_limits;
rig_limits rig_measure_limits(rig *r);
rig_limits rig_limits_better(rig_limits a, rig_limits b);
/* Bytes per second of reading that memory once. A GPU is alone, and it would only be in the way: what rig_measure_limits
 * has found. */
double rig_read_once(rig *r);
/* Whether the device has memory and time of its own, which the report tells. */
bool rig_report(const rig *r, compute_report *out);

/* What a step must at least read and compute. */
typedef struct rig_work {
    double bytes, flop;
} rig_work;
/* n_rows rows, of which n_logits go through the head; n_positions: sum of the positions they attend to; n_kv_positions:
 * those of them that are distinct; n_distinct: (layer, expert) pairs that were picked. */
rig_work rig_step_work(const rig *r, size_t n_rows, size_t n_logits, size_t n_positions, size_t n_kv_positions,
                       size_t n_distinct);
double rig_limit_seconds(rig_work work, rig_limits limits);

#endif
