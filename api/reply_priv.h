/* reply: what has come of one choice and has not been sent yet, and the messages made of it.
 * Text and log-probabilities are kept in wire form: text may contain NUL, which protobuf-c's strings cannot carry. */
#ifndef CONCLAVE_API_REPLY_PRIV_H
#define CONCLAVE_API_REPLY_PRIV_H

#include "conclave/v1/inference.pb-c.h"
#include "engine/engine.h"

typedef struct reply_choice {
    uint32_t first_index; /* of ids[0] */
    size_t n_ids, max_ids;
    int32_t *ids; /* owned */
    moe_text text;
    moe_text logprobs;    /* wire form of the repeated field */
    uint32_t logprobs_id; /* its number in the message it goes into */
    bool done, sent_done;
    engine_finish finish;
    bool has_stop_match, has_stop_token;
    char stop_match[ENGINE_MAX_STOP_BYTES + 1];
    int32_t stop_token_id;
    bool failed; /* out of memory, or over the limit of a reply */
} reply_choice;

void reply_choice_init(reply_choice *c, uint32_t logprobs_id);
void reply_choice_fini(reply_choice *c);
void reply_choice_clear(reply_choice *c);       /* what it holds has been sent */
bool reply_choice_empty(const reply_choice *c); /* no ids and no text */
/* TOKEN and CHOICE_DONE events. */
void reply_choice_add(reply_choice *c, const engine_info *info, const engine_event *event, bool want_logprobs);

Conclave__V1__FinishReason reply_finish(engine_finish finish);
void reply_usage(const engine_usage *from, Conclave__V1__Usage *usage, Conclave__V1__Timings *timings);
/* The bytes of a token, which live as long as the tokenizer; none without one. */
ProtobufCBinaryData reply_token(const engine_info *info, int32_t id);
/* Alternatives [n] as messages; entries and pointers are the caller's. */
void reply_top(const engine_info *info, const sampling_top *top, size_t n, Conclave__V1__TopLogprob *entries,
               Conclave__V1__TopLogprob **pointers);

#endif
