/* What the tokenizer tests share: tokenizers from inline JSON, ids and text as strings. */
#ifndef CONCLAVE_TEST_TOKENIZER_SUPPORT_H
#define CONCLAVE_TEST_TOKENIZER_SUPPORT_H

#include "tests/support/support.h"
#include "tokenizer/tokenizer.h"

#include <stdlib.h>

enum { MAX_IDS = 4096, INLINE_VOCAB = 64 };

/* JSON is written with ' for " here. */
static inline char *quoted(const char *json)
{
    char *copy = json ? strdup(json) : NULL;

    for (char *c = copy; c && *c; c++) {
        *c = *c == '\'' ? '"' : *c;
    }
    return copy;
}

static inline moe_status open_inline(const char *json, const char *config, const tokenizer_specials *specials,
                                     tokenizer **out, moe_error *err)
{
    char *main_json = quoted(json), *config_json = quoted(config);
    const moe_status status =
        tokenizer_open_memory(main_json, strlen(main_json), config_json, config ? strlen(config) : 0, NULL, 0,
                              INLINE_VOCAB, specials, out, err);

    free(main_json);
    free(config_json);
    return status;
}

static inline tokenizer *must_open(const char *json, const char *config, const tokenizer_specials *specials)
{
    tokenizer *t = NULL;
    moe_error err = {""};

    assert_ok(open_inline(json, config, specials, &t, &err), err);
    return t;
}

/* messages alone, without tools, arguments and time */
static inline moe_status chat_ids(tokenizer *t, const tokenizer_message *messages, size_t n_messages, bool prompt,
                                  int32_t *ids, size_t max_ids, size_t *n_ids, moe_error *err)
{
    const tokenizer_conversation c = {.messages = messages, .n_messages = n_messages, .add_generation_prompt = prompt};

    return tokenizer_chat_encode(t, &c, ids, max_ids, n_ids, err);
}

static inline tokenizer_message said(tokenizer_role role, const char *content)
{
    return (tokenizer_message){.role = role, .content = content, .bytes = strlen(content)};
}

static inline const char *ids_text(const int32_t *ids, size_t n)
{
    static char text[MAX_IDS * 8];
    size_t used = 0;

    text[0] = '\0';
    for (size_t i = 0; i < n && used + 16 < sizeof text; i++) {
        used += (size_t)snprintf(text + used, sizeof text - used, i ? " %d" : "%d", (int)ids[i]);
    }
    return text;
}

/* "1 2 3"; valid until the next call. */
static inline const char *encoded_bytes(tokenizer *t, const char *text, size_t n, bool add_special,
                                        const tokenizer_span *spans, size_t n_spans)
{
    int32_t ids[MAX_IDS];
    size_t n_ids = 0;
    moe_error err = {""};

    assert_ok(tokenizer_encode(t, text, n, add_special, spans, n_spans, ids, MAX_IDS, &n_ids, &err), err);
    return ids_text(ids, n_ids);
}

static inline const char *encoded(tokenizer *t, const char *text)
{
    return encoded_bytes(t, text, strlen(text), false, NULL, 0);
}

/* Opens, encodes, closes. */
static inline const char *encoded_by(const char *json, const char *text)
{
    tokenizer *t = must_open(json, NULL, NULL);
    const char *ids = encoded(t, text);

    tokenizer_close(t);
    return ids;
}

/* The text of ids; the caller frees it with moe_text_fini. */
static inline moe_text decoded(const tokenizer *t, const int32_t *ids, size_t n, bool skip_special)
{
    tokenizer_decode d;
    moe_text out;

    moe_text_init(&out, 1 << 24);
    tokenizer_decode_init(&d, t, skip_special);
    for (size_t i = 0; i < n; i++) {
        tokenizer_decode_push(&d, ids[i], &out);
    }
    tokenizer_decode_finish(&d, &out);
    assert_false(out.failed);
    return out;
}

#define assert_decodes(t, ids, expected)                                                                               \
    do {                                                                                                               \
        moe_text assert_text = decoded((t), (ids), MOE_COUNT(ids), false);                                             \
        assert_string_equal(moe_text_cstr(&assert_text), (expected));                                                  \
        moe_text_fini(&assert_text);                                                                                   \
    } while (0)
#endif
