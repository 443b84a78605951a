/* sampling: raw logits -> the next token, and log-probabilities of tokens. docs/sampling.md is the contract.
 *
 * Nouns:
 *   sampling_params    how a token is chosen: temperature, cuts, penalties, seed
 *   sampling_history   the tokens that penalties count
 *   sampler            scratch of one thread that samples
 *
 * Order:   repetition penalty (prompt and output), frequency and presence penalty (output), temperature, top-k, top-p,
 *          min-p, one uniform.
 * Random:  Philox4x32-10, key = seed, counter = (output index, choice index). A token is a function of its arguments
 *          and of nothing else: no state is carried from one token to the next.
 * Threads: a sampler belongs to one thread at a time, which has called compute_thread_init. */
#ifndef CONCLAVE_SAMPLING_H
#define CONCLAVE_SAMPLING_H

#include "base/base.h"

typedef struct sampling_params {
    float temperature;        /* >= 0; 0 is greedy */
    int32_t top_k;            /* 0: off */
    float top_p;              /* (0, 1] */
    float min_p;              /* [0, 1] */
    float repetition_penalty; /* > 0; 1 is off */
    float frequency_penalty, presence_penalty;
    uint64_t seed;
} sampling_params;

#define SAMPLING_MAX_TOP_LOGPROBS 50
#define SAMPLING_MAX_TEMPERATURE  100
#define SAMPLING_MAX_PENALTY      100 /* repetition; frequency and presence: also negative */

typedef struct sampling_top {
    int32_t token_id;
    float logprob;
} sampling_top;

/* Scratch for one thread that samples: [vocab_size] sized arrays, allocated once. */
typedef struct sampler sampler;
MOE_NODISCARD moe_status sampler_open(size_t vocab_size, sampler **out);
void sampler_close(sampler *s);

/* Token counts of one choice for the penalties. NULL arrays when no penalty is on. */
typedef struct sampling_history {
    const int32_t *prompt; /* borrowed */
    size_t n_prompt;
    const int32_t *output;
    size_t n_output;
} sampling_history;

/* Picks the next token from raw logits f32 [vocab_size], which are not modified. banned [n_banned]: ids that may not be
 * chosen now (stop ids below min_tokens); they are left out as if absent, and ids outside the vocabulary are ignored.
 * Allocates nothing.
 * Errors: MOE_ERR_DATA_LOSS when a logit is NaN; MOE_ERR_INVALID_ARG when every id is banned. */
MOE_NODISCARD moe_status sampler_pick(sampler *s, const sampling_params *p, const float *logits,
                                      const sampling_history *history, const int32_t *banned, size_t n_banned,
                                      uint32_t output_index, uint32_t choice_index, int32_t *token_out);
/* log-softmax of the raw logits: of `token` (ignored if < 0) and the n_top largest, best first, ties to the lower id.
 * With n_top above the vocabulary the rest gets token_id -1. Errors: MOE_ERR_DATA_LOSS when a logit is NaN or
 * +infinity. */
MOE_NODISCARD moe_status sampler_logprobs(sampler *s, const float *logits, int32_t token, float *logprob_out,
                                          size_t n_top, sampling_top *top);
/* The generator itself: out[4] for counter and key (Salmon et al., SC11). */
void sampling_philox4x32_10(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

#endif
