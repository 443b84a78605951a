/* The engine without a tokenizer: what it would call of one ends the process. */
#include "tokenizer/tokenizer.h"

#include <stdlib.h>

static _Noreturn void stop(void)
{
    (void)fprintf(stderr, "tests/cuda/bare/tokenizer.c: there is no tokenizer here\n");
    abort();
}

moe_status tokenizer_open(const char *dir, size_t vocab_size, const tokenizer_specials *specials, tokenizer **out,
                          moe_error *err)
{
    (void)dir;
    (void)vocab_size;
    (void)specials;
    (void)out;
    return moe_fail(err, MOE_ERR_UNSUPPORTED, "there is no tokenizer here");
}

void tokenizer_close(tokenizer *t)
{
    if (t != NULL) {
        stop();
    }
}

size_t tokenizer_longest_token_bytes(const tokenizer *t)
{
    (void)t;
    stop();
}

void tokenizer_decode_init(tokenizer_decode *d, const tokenizer *t, bool skip_special)
{
    (void)d;
    (void)t;
    (void)skip_special;
    stop();
}

void tokenizer_decode_push(tokenizer_decode *d, int32_t id, moe_text *out)
{
    (void)d;
    (void)id;
    (void)out;
    stop();
}

void tokenizer_decode_finish(tokenizer_decode *d, moe_text *out)
{
    (void)d;
    (void)out;
    stop();
}
