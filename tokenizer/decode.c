#include "tokenizer/tokenizer_priv.h"

#include <string.h>

static const char replacement[] = "\xef\xbf\xbd"; /* U+FFFD */

const char *tokenizer_token_bytes(const tokenizer *t, int32_t id, size_t *bytes_out)
{
    if (id < 0 || (size_t)id >= t->vocab_size) {
        *bytes_out = 0;
        return "";
    }
    *bytes_out = t->tokens[id].n_decoded;
    return moe_text_cstr(&t->decoded) + t->tokens[id].decoded;
}

bool tokenizer_is_special(const tokenizer *t, int32_t id)
{
    return id >= 0 && (size_t)id < t->vocab_size && (t->tokens[id].flags & TOKEN_SPECIAL);
}

size_t tokenizer_longest_token_bytes(const tokenizer *t)
{
    return t->longest;
}

void tokenizer_decode_init(tokenizer_decode *d, const tokenizer *t, bool skip_special)
{
    *d = (tokenizer_decode){.t = t, .skip_special = skip_special, .first = true, .strip_left = t->decoder.n_strip};
}

static void put_pending(tokenizer_decode *d, unsigned char byte, bool *again, moe_text *out)
{
    size_t length;

    d->pending[d->n_pending] = byte;
    switch (utf8_look(d->pending, d->n_pending + 1, &length)) {
    case UTF8_PARTIAL:
        d->n_pending++;
        return;
    case UTF8_VALID:
        moe_text_append(out, d->pending, length);
        break;
    case UTF8_INVALID: /* what was held was a prefix, so it is the subpart, and byte begins anew */
        moe_text_append(out, replacement, 3);
        *again = true;
        break;
    }
    d->n_pending = 0;
}

static void put_bytes(tokenizer_decode *d, const unsigned char *p, size_t n, moe_text *out)
{
    while (n > 0) {
        size_t length;

        if (d->n_pending > 0) {
            bool again = false;

            put_pending(d, *p, &again, out);
            p += !again;
            n -= !again;
            continue;
        }
        length = moe_utf8_valid_prefix(p, n);
        moe_text_append(out, p, length);
        p += length;
        n -= length;
        if (n == 0) {
            return;
        }
        if (utf8_look(p, n, &length) == UTF8_PARTIAL) {
            memcpy(d->pending, p, n);
            d->n_pending = n;
            return;
        }
        moe_text_append(out, replacement, 3);
        p += length;
        n -= length;
    }
}

/* Text that no later token changes: the strip at the head of the sequence, then UTF-8. */
static void put_text(tokenizer_decode *d, const char *text, size_t n, moe_text *out)
{
    const decoder *how = &d->t->decoder;

    while (d->strip_left > 0 && n >= how->strip_bytes && memcmp(text, how->strip, how->strip_bytes) == 0) {
        text += how->strip_bytes;
        n -= how->strip_bytes;
        d->strip_left--;
    }
    if (n > 0) {
        d->strip_left = 0;
        put_bytes(d, (const unsigned char *)text, n, out);
    }
}

static void put_replacements(tokenizer_decode *d, size_t n, moe_text *out)
{
    for (size_t i = 0; i < n; i++) {
        put_text(d, replacement, 3, out);
    }
}

/* A run of byte tokens is its text if all of it is valid, else one U+FFFD per byte. */
static void run_flush(tokenizer_decode *d, moe_text *out)
{
    if (moe_utf8_valid_prefix(d->byte_run, d->n_byte_run) == d->n_byte_run) {
        put_text(d, (const char *)d->byte_run, d->n_byte_run, out);
    } else {
        put_replacements(d, d->n_byte_run, out);
    }
    d->n_byte_run = 0;
}

/* A run longer than is kept is judged in parts, cut between code points. */
static void run_push(tokenizer_decode *d, unsigned char byte, moe_text *out)
{
    d->byte_run[d->n_byte_run++] = byte;
    if (d->n_byte_run == sizeof d->byte_run) {
        unsigned char tail[sizeof d->byte_run];
        const size_t valid = moe_utf8_valid_prefix(d->byte_run, d->n_byte_run), rest = d->n_byte_run - valid;
        size_t length;

        memcpy(tail, d->byte_run + valid, rest);
        if (rest > 0 && utf8_look(tail, rest, &length) != UTF8_PARTIAL) {
            run_flush(d, out);
            return;
        }
        d->n_byte_run = valid;
        run_flush(d, out);
        memcpy(d->byte_run, tail, rest);
        d->n_byte_run = rest;
    }
}

/* Metaspace treats the first token of a sequence differently from what is kept for its id. */
static void put_first_metaspace(tokenizer_decode *d, const vocab_token *token, moe_text *out)
{
    moe_text scratch[2];
    text_view text;

    moe_text_init(&scratch[0], TOKENIZER_MAX_TOKEN * TOKENIZER_MAX_TOKEN);
    moe_text_init(&scratch[1], TOKENIZER_MAX_TOKEN * TOKENIZER_MAX_TOKEN);
    if (text_steps_run(&d->t->decoder.steps, (text_view){token->text, token->n_text}, true, scratch, &text) == MOE_OK) {
        put_text(d, text.data, text.size, out);
    } else {
        out->failed = true;
    }
    moe_text_fini(&scratch[0]);
    moe_text_fini(&scratch[1]);
}

void tokenizer_decode_push(tokenizer_decode *d, int32_t id, moe_text *out)
{
    const tokenizer *t = d->t;
    const vocab_token *token;

    if (id < 0 || (size_t)id >= t->vocab_size || !t->tokens[id].text) {
        return;
    }
    if (t->pieces.present) {
        sentencepiece_decode(d, id, out);
        return;
    }
    if (d->skip_special && tokenizer_is_special(t, id)) {
        return;
    }
    token = &t->tokens[id];
    if (token->flags & TOKEN_BYTE) {
        run_push(d, (unsigned char)moe_text_cstr(&t->decoded)[token->decoded], out);
        d->first = false;
        return;
    }
    run_flush(d, out);
    if (d->first && t->decoder.has_metaspace) {
        put_first_metaspace(d, token, out);
    } else {
        put_text(d, " ", t->decoder.join_with_space && !d->first ? 1 : 0, out);
        put_text(d, moe_text_cstr(&t->decoded) + token->decoded, token->n_decoded, out);
    }
    d->first = false;
}

void tokenizer_decode_finish(tokenizer_decode *d, moe_text *out)
{
    if (d->t->pieces.present) {
        sentencepiece_flush(d, out);
        return;
    }
    run_flush(d, out);
    if (d->n_pending > 0) {
        moe_text_append(out, replacement, 3);
        d->n_pending = 0;
    }
}
