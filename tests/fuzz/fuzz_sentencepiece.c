/* Any bytes as tokenizer.model. The input: a u8 count and so many bytes of text, a u16 count and so many bytes of
 * tokenizer_config.json (none: no such file), the rest is the model. What opens encodes within the vocabulary and as a
 * plain search for the best pair would; any ids decode to UTF-8. */
#include "tokenizer/tokenizer_priv.h"

#include <stdlib.h>
#include <string.h>

enum { VOCAB = 512, MAX_IDS = 4096, MAX_MODEL = 1 << 16 };

typedef struct range {
    size_t begin, end;
    bool user;
} range;

/* Copied, so that a read behind the end is seen. NULL when there are no bytes. */
static char *take(const uint8_t **data, size_t *size, size_t n)
{
    char *copy = n > 0 ? malloc(n) : NULL;

    if (copy) {
        memcpy(copy, *data, n);
    }
    *data += n;
    *size -= n;
    return copy;
}

static size_t take_count(const uint8_t **data, size_t *size, size_t n_bytes)
{
    size_t n = 0;

    for (size_t i = 0; i<n_bytes && * size> 0; i++, ++*data, --*size) {
        n |= (size_t) * *data << (8 * i);
    }
    return MOE_MIN(n, *size);
}

static int32_t find(const tokenizer *t, text_view text, const range *r)
{
    const int32_t id = vocab_find(&t->bpe.vocab, text.data + r->begin, r->end - r->begin);

    return id >= 0 && t->tokens[id].flags & TOKEN_RESERVED ? -1 : id;
}

static size_t split(const tokenizer *t, text_view text, range *ranges)
{
    size_t n = 0;
    int32_t c;

    for (size_t at = 0; at < text.size; n++) {
        const added_token *user = added_set_longest(&t->pieces.user, text, at);
        const size_t length = user ? user->n_match : moe_utf8_get(text.data + at, &c);

        ranges[n] = (range){at, at + length, user != NULL};
        at += length;
    }
    return n;
}

/* The leftmost pair of the best score, again and again. */
static size_t merge_plainly(const tokenizer *t, text_view text, range *ranges, size_t n)
{
    for (;;) {
        size_t best = n;
        uint32_t best_order = 0;

        for (size_t i = 0; i + 1 < n; i++) {
            const range both = {ranges[i].begin, ranges[i + 1].end, false};
            const int32_t id = ranges[i].user || ranges[i + 1].user ? -1 : find(t, text, &both);

            if (id >= 0 && (best == n || t->pieces.order[id] < best_order)) {
                best = i;
                best_order = t->pieces.order[id];
            }
        }
        if (best == n) {
            return n;
        }
        ranges[best].end = ranges[best + 1].end;
        memmove(ranges + best + 1, ranges + best + 2, (n - best - 2) * sizeof *ranges);
        n--;
    }
}

/* Without added tokens there is one stretch of text, which encoding leaves normalised. */
static void check_plainly(tokenizer *t, const char *text, size_t n_text)
{
    static range ranges[MAX_IDS];
    static int32_t ids[MAX_IDS];
    size_t n = 0, at = 0;
    encoding e;

    encoding_init(&e, t, ids, MAX_IDS);
    if (t->raw.n == 0 && n_text > 0 && encoding_text(&e, text, 0, n_text) == MOE_OK && e.pieces_text.size < MAX_IDS) {
        n = merge_plainly(t, e.pieces_text, ranges, split(t, e.pieces_text, ranges));
        for (size_t i = 0; i < n; i++) {
            const int32_t id = find(t, e.pieces_text, &ranges[i]);

            if (id >= 0) {
                MOE_ASSERT(at < e.n_ids && ids[at] == id);
                at++;
            } else if (t->bpe.byte_fallback) {
                at += ranges[i].end - ranges[i].begin;
            } else if (i == 0 || find(t, e.pieces_text, &ranges[i - 1]) >= 0) {
                MOE_ASSERT(at < e.n_ids && ids[at] == t->bpe.unk_id);
                at++;
            }
        }
        MOE_ASSERT(at == e.n_ids);
    }
    encoding_fini(&e);
}

static void check_decode(tokenizer *t, const int32_t *ids, size_t n, bool skip_special)
{
    tokenizer_decode d;
    moe_text out;

    moe_text_init(&out, 1 << 22);
    tokenizer_decode_init(&d, t, skip_special);
    for (size_t i = 0; i < n; i++) {
        tokenizer_decode_push(&d, ids[i], &out);
        MOE_ASSERT(moe_utf8_valid_prefix(moe_text_cstr(&out), out.size) == out.size);
    }
    tokenizer_decode_finish(&d, &out);
    MOE_ASSERT(!out.failed && moe_utf8_valid_prefix(moe_text_cstr(&out), out.size) == out.size);
    moe_text_fini(&out);
}

static void use(tokenizer *t, const char *text, size_t n_text)
{
    static int32_t ids[MAX_IDS];
    size_t n = 0, bytes;

    if (tokenizer_encode(t, text, n_text, true, NULL, 0, ids, MAX_IDS, &n, NULL) == MOE_OK) {
        for (size_t i = 0; i < n; i++) {
            MOE_ASSERT(ids[i] >= 0 && ids[i] < VOCAB);
        }
        check_decode(t, ids, n, true);
        check_plainly(t, text, n_text);
    }
    for (size_t i = 0; i < VOCAB; i++) {
        ids[i] = (int32_t)i;
        (void)tokenizer_token_bytes(t, ids[i], &bytes);
        MOE_ASSERT(bytes <= tokenizer_longest_token_bytes(t));
    }
    check_decode(t, ids, VOCAB, false);
    for (size_t i = 0; i < n_text; i++) { /* and some in another order */
        ids[i] = (unsigned char)text[i] * 2 + (int32_t)(i % 2);
    }
    check_decode(t, ids, n_text, true);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    tokenizer *t = NULL;
    moe_error err = {""};
    moe_status status;
    size_t n_text, n_config, n_model;
    char *text, *config, *model;

    if (size > MAX_MODEL) {
        return 0;
    }
    n_text = take_count(&data, &size, 1);
    text = take(&data, &size, n_text);
    n_config = take_count(&data, &size, 2);
    config = take(&data, &size, n_config);
    n_model = size;
    model = take(&data, &size, size);
    status = tokenizer_open_model_memory(model ? model : "", n_model, config, n_config, NULL, 0, VOCAB, NULL, &t, &err);
    if (status == MOE_OK) {
        use(t, text ? text : "", n_text);
        tokenizer_close(t);
    } else {
        MOE_ASSERT(err.text[0] != '\0');
    }
    free(text);
    free(config);
    free(model);
    return 0;
}
