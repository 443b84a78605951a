/* A checkpoint opened for tests: config, tensors, device, model, KV cache, all experts in this process. Fails the test on trouble. */
#ifndef CONCLAVE_TESTS_MODEL_FIXTURE_H
#define CONCLAVE_TESTS_MODEL_FIXTURE_H

#include "model/model.h"

typedef struct model_fixture_options {
    const char *dir;
    compute_class numeric_class;
    bool auto_class; /* as the checkpoint says; numeric_class is ignored */
    compute_isa isa;
    compute_layout layout;
    size_t n_threads;
    bool guarded; /* the device whose buffers cannot be read outside its ops, and from which rows come late */
    size_t max_rows, max_context, kv_tokens;
    bool prefix_cache;
    bool full_scan; /* no early exit of stick-breaking */
} model_fixture_options;

typedef struct model_fixture {
    model_config config;
    checkpoint *checkpoint;
    model_tensors *tensors;
    moe_threads *threads;
    compute_device *device;
    model *model;
    model_kv *kv;
    router_set *set;          /* the base set */
    compute_expert **experts; /* [n_layers, n_experts]; NULL until model_fixture_load_experts */
    size_t max_context;
} model_fixture;

model_fixture_options model_fixture_defaults(const char *dir);
void model_fixture_open(model_fixture *f, const model_fixture_options *o);
void model_fixture_close(model_fixture *f);
/* A device beside it that makes experts and gates on one thread: *maker, then *one, are closed by the caller. */
void model_fixture_maker(const model_fixture *f, compute_isa isa, moe_threads **one, compute_device **maker);
void model_fixture_load_experts(model_fixture *f);
/* model_batch_route and model_batch_logits, until the device is done. */
void model_fixture_route(model_batch *batch, uint32_t layer);
void model_fixture_logits(model_batch *batch, float *out);
/* Computes all picks of a routed batch in place: what the exchange does over nodes. */
void model_fixture_compute(model_fixture *f, model_batch *batch);

/* The oracle's answers beside a checkpoint (expected.safetensors, say). Arrays are owned. */
typedef struct oracle_answers {
    size_t n_tokens, n_greedy, vocab_size, n_layers, k;
    int32_t *token_ids; /* [n_tokens] */
    float *logits;      /* [n_tokens, vocab_size] */
    float *margin;      /* [n_tokens] */
    int32_t *experts;   /* [n_layers, n_tokens, k] ascending */
    int32_t *greedy;    /* [n_greedy] */
} oracle_answers;

void oracle_answers_load(oracle_answers *a, const char *dir, const char *file_name, const model_config *c);
void oracle_answers_free(oracle_answers *a);

#endif
