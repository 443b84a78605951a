/* An engine with its embedded node, stepped by hand; and answers collected from it. Fails the test on trouble. */
#ifndef CONCLAVE_TESTS_ENGINE_FIXTURE_H
#define CONCLAVE_TESTS_ENGINE_FIXTURE_H

#include "coordinator/embedded.h"
#include "engine/engine.h"
#include "tests/support/model_fixture.h"

typedef struct engine_fixture_options {
    model_fixture_options model;
    uint32_t max_batch_tokens, prefill_chunk, max_running, max_queue, micro_batches;
    uint64_t step_timeout_ns;
    const char *tokenizer_dir; /* NULL: none */
} engine_fixture_options;

typedef struct engine_fixture {
    model_fixture model;
    tokenizer *tokenizer;
    compute_device *maker; /* for what changes; of one thread */
    moe_threads *one;
    embedded *embedded;
    engine *engine;
} engine_fixture;

engine_fixture_options engine_fixture_defaults(const char *dir);
void engine_fixture_open(engine_fixture *f, const engine_fixture_options *o);
void engine_fixture_close(engine_fixture *f);

#define ANSWER_MAX_TOKENS 256
#define ANSWER_MAX_TOP    4
#define ANSWER_MAX_TEXT   4096

/* What one choice was given, everything that must be equal bit for bit. */
typedef struct answer {
    uint32_t n;
    int32_t tokens[ANSWER_MAX_TOKENS];
    float logprobs[ANSWER_MAX_TOKENS];
    sampling_top top[ANSWER_MAX_TOKENS][ANSWER_MAX_TOP];
    engine_finish finish;
    char text[ANSWER_MAX_TEXT];
    size_t text_bytes;
    char stop_match[ENGINE_MAX_STOP_BYTES + 1];
    bool has_stop_token;
    int32_t stop_token;
} answer;

/* A request in flight and what it has said so far. */
typedef struct asked {
    engine_request *request;
    answer choices[ENGINE_MAX_CHOICES];
    uint32_t first_index[ENGINE_MAX_CHOICES]; /* of the next token expected: no gap, no repeat */
    bool ended;
    moe_status status;
    char error[256];
    engine_usage usage;
    uint32_t n_scored;
    float scored[1024]; /* log-probabilities by position, or by label */
    float raw_scores[1024];
} asked;

/* A generate request of n_prompt tokens; the rest at their defaults (greedy off: temperature 1). */
engine_spec ask_spec(const int32_t *prompt, size_t n_prompt, uint32_t max_tokens, uint64_t seed);
void ask(engine_fixture *f, asked *a, const engine_spec *spec);
void ask_read(asked *a);                      /* takes the events that are there */
void ask_finish(engine_fixture *f, asked *a); /* steps until it has ended, then releases it */
void random_prompt(int32_t *out, size_t n, uint32_t vocab_size, uint64_t seed);
void assert_answers_equal(const answer *a, const answer *b); /* bit for bit */

#endif
