/* Writes a small checkpoint of any family with random weights into a folder: config.json and model.safetensors. Equal
 * options, equal bytes. Names and shapes are those that the loader expects: that they are the published ones is for the
 * oracle's vectors to show. */
#ifndef CONCLAVE_TESTS_RANDOM_MODEL_H
#define CONCLAVE_TESTS_RANDOM_MODEL_H

#include "base/base.h"

typedef struct random_model {
    const char *kind; /* one of random_model_kinds */
    uint32_t vocab_size, n_layers;
    bool bf16;
    uint32_t nan_token; /* its embedding is not a number; 0: none */
    float score_scale;  /* times the query matrices */
    uint64_t seed;
} random_model;

/* "olmoe" first (hidden 96, 4 heads over 2, 24 experts top-3); a family may come in two kinds. */
#define RANDOM_MODEL_N_KINDS 6
extern const char *const random_model_kinds[RANDOM_MODEL_N_KINDS];

/* 3 layers, vocabulary 256, f32. */
random_model random_model_defaults(const char *kind);
void random_model_write(const random_model *o, const char *dir);

#endif
