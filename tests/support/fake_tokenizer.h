/* The fake engine's tokenizer: bytes are tokens. It can be held while it encodes. */
#ifndef CONCLAVE_TESTS_FAKE_TOKENIZER_H
#define CONCLAVE_TESTS_FAKE_TOKENIZER_H

#include "tokenizer/tokenizer.h"

#include <pthread.h>

struct tokenizer {
    bool chat;
    pthread_mutex_t lock; /* of the rest */
    pthread_cond_t released;
    bool hold;
    size_t n_held, n_encoded;
};

void fake_tokenizer_init(tokenizer *t, bool chat);
void fake_tokenizer_hold(tokenizer *t, bool held);
/* Under its lock; of n_held or n_encoded. */
size_t fake_tokenizer_count(tokenizer *t, const size_t *count);

#endif
