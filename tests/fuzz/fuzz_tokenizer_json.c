/* Any JSON as tokenizer.json, with a little encoding and decoding when it opens. A second part behind a NUL byte is
 * tokenizer_config.json, a third chat_template.jinja. */
#include "tokenizer/tokenizer.h"

#include <stdlib.h>
#include <string.h>

enum { VOCAB = 512, MAX_IDS = 64 };

typedef struct part {
    char *data; /* owned; NULL: there is none */
    size_t n;
} part;

static part part_take(const uint8_t **data, size_t *size)
{
    const uint8_t *nul = *size > 0 ? memchr(*data, 0, *size) : NULL;
    const size_t n = nul ? (size_t)(nul - *data) : *size;
    part p = {*size > 0 ? malloc(n + 1) : NULL, n};

    if (p.data) {
        memcpy(p.data, *data, n);
    }
    *data += nul ? n + 1 : n;
    *size -= nul ? n + 1 : n;
    return p;
}

static void decode(tokenizer *t, const int32_t *ids, size_t n, bool skip_special)
{
    tokenizer_decode d;
    moe_text out;

    moe_text_init(&out, 1 << 22);
    tokenizer_decode_init(&d, t, skip_special);
    for (size_t i = 0; i < n; i++) {
        tokenizer_decode_push(&d, ids[i], &out);
    }
    tokenizer_decode_finish(&d, &out);
    MOE_ASSERT(moe_utf8_valid_prefix(moe_text_cstr(&out), out.size) == out.size);
    moe_text_fini(&out);
}

static void use(tokenizer *t)
{
    static const char text[] = "ab  a\n<s> it's \xc3\xa9 e\xcc\x81 \xe2\x96\x81x\xf0\x9f\x98\x80 12";
    const tokenizer_span span = {2, 9};
    const tokenizer_message messages[] = {{TOKENIZER_ROLE_USER, text, 9}, {TOKENIZER_ROLE_ASSISTANT, "a", 1}};
    int32_t ids[MAX_IDS], all[VOCAB];
    size_t n = 0, bytes;

    if (tokenizer_encode(t, text, sizeof text - 1, true, &span, 1, ids, MAX_IDS, &n, NULL) == MOE_OK) {
        decode(t, ids, n, true);
    }
    if (tokenizer_chat_encode(t, messages, 2, true, ids, MAX_IDS, &n, NULL) == MOE_OK) {
        decode(t, ids, n, false);
    }
    for (int32_t id = 0; id < VOCAB; id++) {
        all[id] = id;
        (void)tokenizer_token_bytes(t, id, &bytes);
        MOE_ASSERT(bytes <= tokenizer_longest_token_bytes(t));
    }
    decode(t, all, VOCAB, false);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const tokenizer_specials specials = {.bos_id = 1, .eos_id = 2};
    part json = part_take(&data, &size), config = part_take(&data, &size), chat = part_take(&data, &size);
    tokenizer *t = NULL;
    moe_error err = {""};

    if (json.data && tokenizer_open_memory(json.data, json.n, config.data, config.n, chat.data, chat.n, VOCAB,
                                           &specials, &t, &err) == MOE_OK) {
        use(t);
        tokenizer_close(t);
    } else if (json.data) {
        MOE_ASSERT(err.text[0] != '\0');
    }
    free(json.data);
    free(config.data);
    free(chat.data);
    return 0;
}
