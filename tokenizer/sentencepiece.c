/* SentencePiece BPE: text <-> pieces, as the library of that name does it (identity normalisation). The rules and their
 * order are those of its normalizer.cc, bpe_model.cc and sentencepiece_processor.cc. */
#include "tokenizer/tokenizer_priv.h"

#include <string.h>

static const char mark[] = "\xe2\x96\x81", replacement[] = "\xef\xbf\xbd"; /* U+2581 stands for a space; U+FFFD */

/* ------------------------------------------------------------------------------------------------ encoding */
/* A user-defined piece or one character; its length. */
static size_t unit_at(const sentencepiece *s, text_view text, size_t at, const added_token **user)
{
    int32_t c;

    *user = added_set_longest(&s->user, text, at);
    return *user ? (*user)->n_match : moe_utf8_get(text.data + at, &c);
}

static text_view space_of(const sentencepiece *s)
{
    return s->escape_spaces ? (text_view){mark, 3} : (text_view){" ", 1};
}

static void put_unit(text_view unit, text_view space, moe_text *out)
{
    for (size_t i = 0, end; i < unit.size; i = end + 1) {
        const char *hit = memchr(unit.data + i, ' ', unit.size - i);

        end = hit ? (size_t)(hit - unit.data) : unit.size;
        moe_text_append(out, unit.data + i, end - i);
        moe_text_append(out, space.data, hit ? space.size : 0);
    }
}

/* Units are taken whole, so that extra spaces inside of a user-defined piece stay. */
static void normalize(const sentencepiece *s, text_view in, bool prefix, moe_text *out)
{
    const text_view space = space_of(s);
    bool after_space = s->remove_extra_spaces;

    out->size = 0;
    moe_text_append(out, space.data, prefix ? space.size : 0);
    for (size_t at = 0, n; at < in.size && !out->failed; at += n) {
        const added_token *user;
        text_view unit;

        n = unit_at(s, in, at, &user);
        unit = (text_view){in.data + at, n};
        while (after_space && unit.size > 0 && unit.data[0] == ' ') {
            unit.data++;
            unit.size--;
        }
        if (unit.size > 0) {
            put_unit(unit, space, out);
            after_space = s->remove_extra_spaces && unit.data[unit.size - 1] == ' ';
        }
    }
    while (s->remove_extra_spaces && !out->failed && out->size >= space.size &&
           memcmp(out->data + out->size - space.size, space.data, space.size) == 0) {
        out->size -= space.size;
    }
}

/* The piece that text is; -1: none. */
static int32_t piece_find(const tokenizer *t, const char *text, size_t n)
{
    const int32_t id = n > t->pieces.longest ? -1 : vocab_find(&t->bpe.vocab, text, n);

    return id >= 0 && t->tokens[id].flags & TOKEN_RESERVED ? -1 : id;
}

static size_t symbol_end(const encoding *e, const symbol *s)
{
    return s->next < 0 ? e->pieces_text.size : e->symbols[s->next].begin;
}

bool sentencepiece_pair(const encoding *e, int32_t left, heap_entry *out)
{
    const symbol *a = &e->symbols[left], *b = &e->symbols[a->next];
    const tokenizer *t = e->t;
    int32_t id;

    if ((t->tokens[a->id].flags | t->tokens[b->id].flags) & TOKEN_USER) {
        return false;
    }
    id = piece_find(t, e->pieces_text.data + a->begin, symbol_end(e, b) - a->begin);
    if (id < 0) {
        return false;
    }
    *out = (heap_entry){.key = (uint64_t)t->pieces.order[id] << 32 | (uint32_t)left, .merged = id};
    return true;
}

static bool symbols_fill(encoding *e, text_view text)
{
    const tokenizer *t = e->t;
    bool ok = true;

    e->n_symbols = 0;
    e->pieces_text = text;
    for (size_t at = 0, n; at < text.size && ok; at += n) {
        const added_token *user;
        int32_t id;

        n = unit_at(&t->pieces, text, at, &user);
        id = user ? user->id : piece_find(t, text.data + at, n);
        ok = symbol_add(e, id >= 0 ? id : t->bpe.unk_id, at);
    }
    return ok;
}

/* An unknown character is its bytes; without byte pieces a run of them is one unk. */
static moe_status symbols_emit(encoding *e)
{
    const bpe *b = &e->t->bpe;
    moe_status status = MOE_OK;
    bool after_unk = false;

    for (int32_t i = e->n_symbols > 0 ? 0 : -1; i >= 0 && status == MOE_OK; i = e->symbols[i].next) {
        const symbol *s = &e->symbols[i];
        const bool unknown = s->id == b->unk_id;

        for (size_t at = s->begin; unknown && b->byte_fallback && at < symbol_end(e, s) && status == MOE_OK; at++) {
            status = encoding_emit(e, b->byte_id[(unsigned char)e->pieces_text.data[at]]);
        }
        if (!unknown || (!b->byte_fallback && !after_unk)) {
            status = encoding_emit(e, s->id);
        }
        after_unk = unknown;
    }
    return status;
}

moe_status sentencepiece_encode(encoding *e, text_view text, bool head)
{
    const sentencepiece *s = &e->t->pieces;

    normalize(s, text, s->dummy_prefix && (head || s->prefix_again), &e->pre);
    if (e->pre.failed || !symbols_fill(e, (text_view){moe_text_cstr(&e->pre), e->pre.size}) || !symbols_merge(e)) {
        return MOE_ERR_NO_MEMORY;
    }
    e->n_read += text.size;
    return symbols_emit(e);
}

/* ------------------------------------------------------------------------------------------------ decoding
 * strip_left: no text is out yet, so that a piece loses the mark it begins with. */
void sentencepiece_flush(tokenizer_decode *d, moe_text *out)
{
    for (; d->n_pending > 0; d->n_pending--) {
        moe_text_append(out, replacement, 3);
    }
}

/* Of bytes that are no code point, each becomes U+FFFD. */
static void put_byte(tokenizer_decode *d, unsigned char byte, moe_text *out)
{
    size_t length;
    utf8_head head;

    d->pending[d->n_pending++] = byte;
    while (d->n_pending > 0 && (head = utf8_look(d->pending, d->n_pending, &length)) != UTF8_PARTIAL) {
        const size_t used = head == UTF8_VALID ? length : 1;

        moe_text_append(out, head == UTF8_VALID ? (const char *)d->pending : replacement,
                        head == UTF8_VALID ? used : 3);
        d->n_pending -= used;
        memmove(d->pending, d->pending + used, d->n_pending);
    }
    d->strip_left = 0;
}

void sentencepiece_decode(tokenizer_decode *d, int32_t id, moe_text *out)
{
    const tokenizer *t = d->t;
    const vocab_token *token = &t->tokens[id];
    const char *text = moe_text_cstr(&t->decoded) + token->decoded;
    size_t n = token->n_decoded;

    if (d->skip_special && token->flags & TOKEN_SPECIAL) {
        sentencepiece_flush(d, out);
        return;
    }
    if (token->flags & TOKEN_BYTE) {
        put_byte(d, (unsigned char)*text, out);
        return;
    }
    sentencepiece_flush(d, out);
    if (d->strip_left > 0 && !(token->flags & TOKEN_RESERVED) && token->n_text >= 3 && !memcmp(token->text, mark, 3)) {
        text++; /* the mark is a space by now */
        n--;
        d->strip_left = t->pieces.remove_extra_spaces; /* then the next piece loses its mark too */
    }
    moe_text_append(out, text, n);
    d->strip_left = n > 0 ? 0 : d->strip_left;
}
