/* intake: a request of the API, checked field by field, as the engine wants it.
 * Threads: any; the tokenizer has its own lock. */
#ifndef CONCLAVE_API_INTAKE_PRIV_H
#define CONCLAVE_API_INTAKE_PRIV_H

#include "conclave/v1/inference.pb-c.h"
#include "api/sets_priv.h"
#include "engine/engine.h"

#define INTAKE_MAX_MESSAGES 4096

typedef Conclave__V1__GenerateRequest generate_request;
typedef Conclave__V1__ScoreRequest score_request;
typedef Conclave__V1__ClassifyRequest classify_request;
typedef Conclave__V1__TokenizeRequest tokenize_request;
typedef Conclave__V1__DetokenizeRequest detokenize_request;

/* spec points into the request and into ids; both live until the spec has been submitted. */
typedef struct intake {
    engine_spec spec;
    int32_t *ids;    /* owned; NULL when the request brought token ids */
    router_set *set; /* referenced; NULL: the current one */
} intake;

/* Errors name the field and the limit and never repeat the prompt: MOE_ERR_INVALID_ARG; and those of sets_resolve. */
MOE_NODISCARD moe_status intake_generate(const request_scope *scope, const generate_request *r, intake *out,
                                         moe_error *err);
MOE_NODISCARD moe_status intake_score(const request_scope *scope, const score_request *r, intake *out, moe_error *err);
MOE_NODISCARD moe_status intake_classify(const request_scope *scope, const classify_request *r, intake *out,
                                         moe_error *err);
void intake_fini(intake *in);

/* What a request that says nothing gets: the model's own defaults, then those of the API. The seed is left 0. */
void intake_default_sampling(const model_config *c, sampling_params *out);

/* *ids_out is malloc'ed. MOE_ERR_UNSUPPORTED without a tokenizer. */
MOE_NODISCARD moe_status intake_tokenize(engine *e, const tokenize_request *r, int32_t **ids_out, size_t *n_out,
                                         moe_error *err);
MOE_NODISCARD moe_status intake_detokenize(engine *e, const detokenize_request *r, moe_text *out, moe_error *err);
/* The text of ids; empty without a tokenizer. */
void intake_decode(const engine_info *info, const int32_t *ids, size_t n, bool skip_special, moe_text *out);

#endif
